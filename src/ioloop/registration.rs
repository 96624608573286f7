//! A file descriptor that has a handler.

use std::cell::Cell;
use std::io;
use std::os::fd::RawFd;

use super::descriptors::Descriptors;
use super::interest::Interest;
use crate::ground::slots::Key;

/// What the loop knows of a handler by the number of its descriptor. The handler itself is in its slot.
pub(super) struct Registration {
    pub(super) fd: RawFd,
    pub(super) interest: Cell<Interest>,
    /// Its slot in the readiness table.
    pub(super) source: Key,
    /// Its slot in the run queue.
    pub(super) slot: Cell<Key>,
}

impl Registration {
    /// Makes the selector report what is ready, also if it has reported it before.
    pub(super) fn rearm(&self, descriptors: &Descriptors) -> io::Result<()> {
        descriptors.rearm(self.fd, self.source, self.interest.get().mio())
    }
}
