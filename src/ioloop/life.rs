//! The life of a loop: open, running or closed, and who keeps it open.

use std::cell::Cell;

/// What a loop is doing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Open,
    Running,
    Closed,
}

pub(super) struct Life {
    state: Cell<State>,
    /// Whether it runs, or has ever run.
    has_run: Cell<bool>,
    /// Whether it is to stop running; if it does not run, whether the next `start` returns at once.
    is_to_stop: Cell<bool>,
    /// Whether [`IoLoop::current`](crate::IoLoop::current) has made it: then it is closed with its thread.
    is_of_thread: Cell<bool>,
    /// How many handles own it; see `current`.
    owners: Cell<usize>,
    /// Whether its thread keeps it open; see `current`.
    is_kept: Cell<bool>,
}

impl Life {
    pub(super) fn new() -> Life {
        Life {
            state: Cell::new(State::Open),
            has_run: Cell::new(false),
            is_to_stop: Cell::new(false),
            is_of_thread: Cell::new(false),
            owners: Cell::new(0),
            is_kept: Cell::new(false),
        }
    }

    #[inline]
    pub(super) fn state(&self) -> State {
        self.state.get()
    }

    /// The loop begins to run.
    pub(super) fn begin(&self) {
        self.state.set(State::Running);
        self.has_run.set(true);
    }

    /// The loop has stopped, and can be run again.
    pub(super) fn end(&self) {
        self.state.set(State::Open);
        self.is_to_stop.set(false);
    }

    pub(super) fn close(&self) {
        self.state.set(State::Closed);
    }

    pub(super) fn has_run(&self) -> bool {
        self.has_run.get()
    }

    pub(super) fn stop(&self) {
        self.is_to_stop.set(true);
    }

    #[inline]
    pub(super) fn is_to_stop(&self) -> bool {
        self.is_to_stop.get()
    }

    /// Notes that [`IoLoop::current`](crate::IoLoop::current) has made it.
    pub(super) fn belongs_to_thread(&self) {
        self.is_of_thread.set(true);
        self.is_kept.set(true);
    }

    pub(super) fn is_of_thread(&self) -> bool {
        self.is_of_thread.get()
    }

    /// Says whether its thread keeps it open.
    pub(super) fn set_kept(&self, is_kept: bool) {
        self.is_kept.set(is_kept);
    }

    pub(super) fn add_owner(&self) {
        self.owners.set(self.owners.get() + 1);
    }

    pub(super) fn remove_owner(&self) {
        self.owners.set(self.owners.get() - 1);
    }

    /// Whether there is a handle that owns it.
    pub(super) fn has_owner(&self) -> bool {
        self.owners.get() > 0
    }

    /// Whether neither a handle nor the thread keeps it open.
    pub(super) fn is_abandoned(&self) -> bool {
        !self.has_owner() && !self.is_kept.get()
    }
}
