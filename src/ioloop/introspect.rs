//! What a loop tells about itself: counters, and its last steps.
//!
//! The counters are plain cells that only the loop's thread uses, and they are always on. Counting costs one
//! addition, and each thing that is counted costs at least a function call.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::panic::Location;
use std::rc::Rc;

/// What a loop has done since it was made, and what it has now, in numbers. From
/// [`IoLoop::counters`](crate::IoLoop::counters).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Turns, that is, rounds of the loop. A turn that is so long that timers are collected in its midst
    /// counts once more for each time that they are.
    pub turns: u64,
    /// System calls that asked the selector for events.
    pub polls: u64,
    /// Events that the selector reported.
    pub events: u64,
    /// Coroutines and handlers resumed.
    pub resumes: u64,
    /// Callbacks run, those of timers included.
    pub callbacks: u64,
    /// Timers that fired.
    pub timers: u64,
    /// Coroutines started.
    pub started: u64,
    /// Reads, writes, accepts and their like that were tried on sockets.
    pub io_calls: u64,
    /// How many of those answered `WouldBlock`.
    pub would_block: u64,
    /// Messages from other threads: callbacks, wake-ups, and the like.
    pub messages: u64,
    /// Writes of other threads to the loop's eventfd: at most one for each time that the loop slept.
    pub notified: u64,
    /// Panics and errors that nobody awaited.
    pub exceptions: u64,
    /// Coroutines, handlers and `run_sync` futures alive now.
    pub live: u64,
    /// Timers pending now.
    pub pending_timers: u64,
    /// Sockets registered now.
    pub sources: u64,
}

/// A cell for each of the [`Counters`] that only ever grows.
#[derive(Default)]
pub(crate) struct Counting {
    pub(crate) turns: Count,
    /// How many times timers were collected in the midst of a turn.
    pub(crate) batches: Count,
    pub(crate) polls: Count,
    pub(crate) events: Count,
    pub(crate) resumes: Count,
    pub(crate) callbacks: Count,
    pub(crate) timers: Count,
    pub(crate) started: Count,
    pub(crate) io_calls: Count,
    pub(crate) would_block: Count,
    pub(crate) messages: Count,
    /// The loop's exception handler counts these. It has the same cell.
    pub(crate) exceptions: Rc<Count>,
}

impl Counting {
    /// The counters that only ever grow. All others are 0 here.
    pub(super) fn counters(&self) -> Counters {
        Counters {
            turns: self.turns.get() + self.batches.get(),
            polls: self.polls.get(),
            events: self.events.get(),
            resumes: self.resumes.get(),
            callbacks: self.callbacks.get(),
            timers: self.timers.get(),
            started: self.started.get(),
            io_calls: self.io_calls.get(),
            would_block: self.would_block.get(),
            messages: self.messages.get(),
            exceptions: self.exceptions.get(),
            ..Counters::default()
        }
    }
}

#[derive(Default)]
pub(crate) struct Count(Cell<u64>);

impl Count {
    pub(crate) fn add(&self, n: u64) {
        self.0.set(self.0.get().wrapping_add(n));
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.get()
    }
}

/// One step of a loop, as [`IoLoop::trace`](crate::IoLoop::trace) lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// A turn began.
    Turn,
    /// The coroutine of this name was resumed. `None` for a handler of a file descriptor.
    Resume(Option<&'static str>),
    /// A callback was run, perhaps one of a timer. It was added at this place.
    Call(&'static Location<'static>),
    /// The selector was asked, and reported so many events.
    Poll(usize),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Turn => f.write_str("turn"),
            Step::Resume(Some(name)) => write!(f, "resume {name}"),
            Step::Resume(None) => f.write_str("resume a handler"),
            Step::Call(location) => write!(f, "call {location}"),
            Step::Poll(events) => write!(f, "poll: {events} events"),
        }
    }
}

/// A record of the last steps.
pub(crate) struct Trace {
    /// How many steps are kept.
    most: usize,
    steps: RefCell<VecDeque<Step>>,
}

impl Trace {
    pub(crate) fn new(most: usize) -> Trace {
        Trace { most, steps: RefCell::new(VecDeque::new()) }
    }

    pub(crate) fn add(&self, step: Step) {
        let mut steps = self.steps.borrow_mut();
        if steps.len() == self.most {
            steps.pop_front();
        }
        if self.most > 0 {
            steps.push_back(step);
        }
    }

    pub(crate) fn steps(&self) -> Vec<Step> {
        self.steps.borrow().iter().copied().collect()
    }
}
