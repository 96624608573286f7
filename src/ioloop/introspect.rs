//! What a loop tells about itself: counters, and its last steps.
//!
//! The counters are plain cells of the loop's thread, always on: each costs one addition where the
//! thing that it counts costs at least a function call.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::panic::Location;
use std::rc::Rc;

/// How often a loop did what, since it was made. From [`IoLoop::counters`](crate::IoLoop::counters).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Turns: inbox, callbacks and coroutines, timers, selector. One that is so long that timers fire in
    /// its midst counts once more for each time that they do.
    pub turns: u64,
    /// System calls to the selector.
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
    /// Those of them that answered `EAGAIN`.
    pub would_block: u64,
    /// Messages and wake-ups from other threads.
    pub messages: u64,
    /// Writes to the loop's eventfd, by other threads: at most one for each time it slept.
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

/// One cell for each counter that counts up.
#[derive(Default)]
pub(crate) struct Counting {
    pub(crate) turns: Count,
    /// Timers that fired in the midst of a turn, together.
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
    /// Counted where they are reported, which is known to the handler alone.
    pub(crate) exceptions: Rc<Count>,
}

impl Counting {
    /// What counts up; the rest is none.
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

/// A step of a loop, as [`IoLoop::trace`](crate::IoLoop::trace) lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// A turn began.
    Turn,
    /// A coroutine was resumed, by its name; `None` for a handler of an fd.
    Resume(Option<&'static str>),
    /// A callback was run, or a timer's; by the place where it was added.
    Call(&'static Location<'static>),
    /// The selector was asked and told of so many events.
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

/// The last steps, if they are recorded.
pub(crate) struct Trace {
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
