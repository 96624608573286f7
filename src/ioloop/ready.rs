//! What runs next.
//!
//! The run queue holds callbacks and the keys of slots, in the order in which they became ready:
//! one queue, so that order is total. A slot is in it at most once: waking it sets its *scheduled*
//! flag, taking it out clears the flag.
//!
//! The loop resumes slots through [`Resume`] and knows nothing else of them: coroutines, fd
//! handlers and the main future of `run_sync` are alike to it.

use std::collections::VecDeque;
use std::panic::Location;
use std::rc::Rc;

use super::IoLoop;
use super::introspect::CoroutineInfo;
use super::slots::{Full, Key, Slots};

/// Something that a loop suspends and resumes.
pub(crate) trait Resume {
    /// Goes on until the next suspension. Called by the loop's turn, never from within itself.
    fn resume(self: Rc<Self>, io_loop: &IoLoop);

    /// The loop closes: drops what is suspended.
    fn close(self: Rc<Self>, io_loop: &IoLoop);

    /// Name and places, for people; `None` for what is no coroutine.
    fn info(&self) -> Option<CoroutineInfo> {
        None
    }
}

/// A callback with the place where it was added.
pub(crate) struct Callback {
    pub(crate) call: Box<dyn FnOnce()>,
    pub(crate) location: &'static Location<'static>,
}

/// An entry of the run queue.
pub(crate) enum Ready {
    Slot(Key),
    Call(Callback),
}

struct Slot {
    resume: Rc<dyn Resume>,
    scheduled: bool,
}

/// The table of slots and the run queue over it.
pub(crate) struct Scheduler {
    slots: Slots<Slot>,
    queue: VecDeque<Ready>,
}

/// What the turn took from the queue.
pub(crate) enum Next {
    Resume(Rc<dyn Resume>),
    Call(Callback),
    /// The slot has gone meanwhile.
    Stale,
}

impl Scheduler {
    pub(crate) fn new() -> Scheduler {
        Scheduler { slots: Slots::new(), queue: VecDeque::new() }
    }

    pub(crate) fn insert(&mut self, resume: Rc<dyn Resume>) -> Result<Key, Full> {
        self.slots.insert(Slot { resume, scheduled: false })
    }

    /// Takes a slot out; the caller drops it when no borrow is held any more.
    pub(crate) fn remove(&mut self, key: Key) -> Option<Rc<dyn Resume>> {
        self.slots.remove(key).map(|slot| slot.resume)
    }

    /// Queues a slot unless it is queued already, or gone.
    pub(crate) fn schedule(&mut self, key: Key) {
        match self.slots.get_mut(key) {
            Some(slot) if !slot.scheduled => {
                slot.scheduled = true;
                self.queue.push_back(Ready::Slot(key));
            }
            _ => {}
        }
    }

    pub(crate) fn call(&mut self, callback: Callback) {
        self.queue.push_back(Ready::Call(callback));
    }

    /// How much is ready: the snapshot that a turn runs.
    pub(crate) fn ready(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn next(&mut self) -> Option<Next> {
        Some(match self.queue.pop_front()? {
            Ready::Call(callback) => Next::Call(callback),
            Ready::Slot(key) => match self.slots.get_mut(key) {
                Some(slot) => {
                    slot.scheduled = false;
                    Next::Resume(slot.resume.clone())
                }
                None => Next::Stale,
            },
        })
    }

    /// How many slots are live.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Every live slot.
    pub(crate) fn keys(&self) -> Vec<Key> {
        self.slots.iter().map(|(key, _)| key).collect()
    }

    pub(crate) fn info(&self, key: Key) -> Option<CoroutineInfo> {
        self.slots.get(key)?.resume.info()
    }

    pub(crate) fn infos(&self) -> impl Iterator<Item = CoroutineInfo> {
        self.slots.iter().filter_map(|(_, slot)| slot.resume.info())
    }
}
