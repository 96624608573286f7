//! What the loop knows of a file descriptor that has a handler.

use std::cell::Cell;
use std::io;
use std::os::fd::RawFd;

use super::descriptors::Descriptors;
use super::interest::Interest;
use crate::ground::slots::Key;

/// What the loop finds by the number of a file descriptor that has a handler. The handler itself is in its
/// slot.
pub(super) struct Registration {
    pub(super) fd: RawFd,
    pub(super) interest: Cell<Interest>,
    /// The key of the fd in the readiness table.
    pub(super) socket: Key,
    /// The key of the handler among the slots that the loop resumes.
    pub(super) slot: Cell<Key>,
}

impl Registration {
    /// Makes the selector report what the fd is ready for, even if it has reported that before. (It reports
    /// edges, and cannot know that the handler has left something unread.)
    pub(super) fn rearm(&self, descriptors: &Descriptors) -> io::Result<()> {
        descriptors.rearm(self.fd, self.socket, self.interest.get().mio())
    }
}
