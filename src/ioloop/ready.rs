//! What runs next.
//!
//! The run queue holds callbacks and the keys of slots, in the order in which they became ready:
//! one queue, so that order is total. A slot is in it at most once: waking it marks it in the table,
//! taking it out takes the mark off.
//!
//! The loop resumes slots through [`Resume`] and knows nothing else of them: coroutines, fd
//! handlers and the main future of `run_sync` are alike to it.

use std::collections::VecDeque;
use std::panic::Location;
use std::rc::Rc;

use super::IoLoop;
use super::introspect::CoroutineInfo;
use super::slots::{Full, Key, Slots};
use crate::foreign;
use crate::report::{self, Panic};

/// Something that a loop suspends and resumes.
pub(crate) trait Resume {
    /// Goes on until the next suspension. Called by the loop's turn, never from within itself. A
    /// panic in it goes through, to `panicked`.
    fn resume(self: Rc<Self>, io_loop: &IoLoop);

    /// It has panicked while it was resumed; gives the panic back if that is not its affair.
    fn panicked(&self, panic: Panic, io_loop: &IoLoop) -> Option<Panic> {
        let _ = io_loop;
        Some(panic)
    }

    /// The loop closes: drops what is suspended.
    fn close(self: Rc<Self>) {}

    /// Name and places, for people; `None` for what is no coroutine.
    fn info(&self) -> Option<CoroutineInfo> {
        None
    }
}

/// A callback with the place where it was added; behind one pointer, so that the queue is dense.
pub(crate) struct Callback(Box<dyn Call>);

/// A callback on its way from another thread.
pub(crate) struct Posted(Box<dyn Call + Send>);

trait Call {
    fn location(&self) -> &'static Location<'static>;
    fn call(self: Box<Self>);
}

struct Located<F> {
    location: &'static Location<'static>,
    callback: F,
}

impl<F: FnOnce()> Call for Located<F> {
    fn location(&self) -> &'static Location<'static> {
        self.location
    }

    fn call(self: Box<Self>) {
        (self.callback)();
    }
}

impl Callback {
    pub(crate) fn new(
        location: &'static Location<'static>,
        callback: impl FnOnce() + 'static,
    ) -> Callback {
        if report::is_handling() {
            // Its panic is reported within, where it is not for the handler that has added it.
            let contained = move || foreign::call("callback", Some(location), callback);
            let callback = move || {
                report::handling(contained);
            };
            return Callback(Box::new(Located { location, callback }));
        }
        Callback(Box::new(Located { location, callback }))
    }

    pub(crate) fn location(&self) -> &'static Location<'static> {
        self.0.location()
    }

    pub(crate) fn call(self) {
        self.0.call();
    }
}

impl Posted {
    pub(crate) fn new(
        location: &'static Location<'static>,
        callback: impl FnOnce() + Send + 'static,
    ) -> Posted {
        Posted(Box::new(Located { location, callback }))
    }
}

impl From<Posted> for Callback {
    fn from(posted: Posted) -> Callback {
        Callback(posted.0)
    }
}

/// An entry of the run queue.
pub(crate) enum Ready {
    Slot(Key),
    Call(Callback),
}

/// The table of slots and the run queue over it. What is marked in the table is in the queue.
pub(crate) struct Scheduler {
    slots: Slots<Rc<dyn Resume>>,
    queue: VecDeque<Ready>,
}

/// What the turn took from the queue.
pub(crate) enum Next {
    Resume(Key, Rc<dyn Resume>),
    Call(Callback),
    /// The slot has gone meanwhile.
    Stale,
}

impl Scheduler {
    pub(crate) fn new() -> Scheduler {
        Scheduler { slots: Slots::new(), queue: VecDeque::new() }
    }

    /// A slot for `resume`, queued from the start or not.
    pub(crate) fn insert(&mut self, resume: Rc<dyn Resume>, queued: bool) -> Result<Key, Full> {
        let key = self.slots.insert_marked(resume, queued)?;
        if queued {
            self.queue.push_back(Ready::Slot(key));
        }
        Ok(key)
    }

    /// Takes a slot out; the caller drops it when no borrow is held any more.
    pub(crate) fn remove(&mut self, key: Key) -> Option<Rc<dyn Resume>> {
        self.slots.remove(key)
    }

    /// Queues a slot unless it is queued already, or gone.
    #[inline]
    pub(crate) fn schedule(&mut self, key: Key) {
        if self.slots.mark(key) {
            self.queue.push_back(Ready::Slot(key));
        }
    }

    /// Puts the first `ready` entries in another order.
    pub(crate) fn shuffle(&mut self, ready: usize, mut random: impl FnMut() -> u64) {
        let entries = self.queue.make_contiguous();
        for last in (1..ready.min(entries.len())).rev() {
            entries.swap(last, (random() % (last as u64 + 1)) as usize);
        }
    }

    pub(crate) fn call(&mut self, callback: Callback) {
        self.queue.push_back(Ready::Call(callback));
    }

    /// How much is ready: the snapshot that a turn runs.
    pub(crate) fn ready(&self) -> usize {
        self.queue.len()
    }

    #[inline]
    pub(crate) fn next(&mut self) -> Option<Next> {
        Some(match self.queue.pop_front()? {
            Ready::Call(callback) => Next::Call(callback),
            Ready::Slot(key) => match self.slots.unmark(key) {
                Some(resume) => Next::Resume(key, resume.clone()),
                None => Next::Stale,
            },
        })
    }

    /// What is in a slot.
    pub(crate) fn get(&self, key: Key) -> Option<&Rc<dyn Resume>> {
        self.slots.get(key)
    }

    /// How many slots are live.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Where the callbacks that are queued were added.
    pub(crate) fn callbacks(&self) -> Vec<&'static Location<'static>> {
        let location = |ready: &Ready| match ready {
            Ready::Call(callback) => Some(callback.location()),
            Ready::Slot(_) => None,
        };
        self.queue.iter().filter_map(location).collect()
    }

    /// Every live slot.
    pub(crate) fn keys(&self) -> Vec<Key> {
        self.slots.iter().map(|(key, _)| key).collect()
    }

    pub(crate) fn info(&self, key: Key) -> Option<CoroutineInfo> {
        self.slots.get(key)?.info()
    }

    pub(crate) fn infos(&self) -> impl Iterator<Item = CoroutineInfo> {
        self.slots.iter().filter_map(|(_, resume)| resume.info())
    }
}
