//! Any file descriptor as a source of mio's.
//!
//! mio's own socket types are sources that know when they have to be armed again on poll(2). This
//! is the same for whatever has an fd, and it also copes with mio forgetting an fd that has an
//! error: an unreachable peer is no reason for a datagram socket to go deaf.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::panic::Location;

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use super::source::Registered;
use crate::ioloop::{Direction, rearm};

/// An fd that can be registered; it is borrowed through [`do_io`](Fd::do_io).
pub(crate) struct Fd<T> {
    /// Before `io`, so that poll(2) forgets the fd before it is closed.
    armed: Option<Armed>,
    io: T,
}

/// How the fd is registered with a selector that has to be told again and again: poll(2).
struct Armed {
    registry: Registry,
    fd: RawFd,
    token: Token,
    interest: Interest,
}

impl Drop for Armed {
    fn drop(&mut self) {
        // It may have been forgotten already.
        let _ = self.registry.deregister(&mut SourceFd(&self.fd));
    }
}

impl<T> Fd<T> {
    pub(crate) fn new(io: T) -> Fd<T> {
        Fd { armed: None, io }
    }

    pub(crate) fn get_ref(&self) -> &T {
        &self.io
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        &mut self.io
    }

    pub(crate) fn into_inner(self) -> T {
        self.io
    }

    /// Every operation that may answer `WouldBlock` goes through here.
    pub(crate) fn do_io<R>(&self, operation: impl FnOnce(&T) -> io::Result<R>) -> io::Result<R> {
        let result = operation(&self.io);
        if let (Err(error), Some(armed)) = (&result, &self.armed) {
            if error.kind() == io::ErrorKind::WouldBlock {
                rearm(&armed.registry, armed.fd, armed.token, armed.interest)?;
            }
        }
        result
    }
}

impl<T> Registered<Fd<T>> {
    /// [`io`](Registered::io) with what the [`Fd`] holds.
    pub(super) fn fd_io<R>(
        &self,
        direction: Direction,
        place: &'static Location<'static>,
        mut operation: impl FnMut(&T) -> io::Result<R>,
    ) -> impl Future<Output = io::Result<R>> {
        self.io(direction, place, move |fd| fd.do_io(&mut operation))
    }

    /// [`try_io`](Registered::try_io) with what the [`Fd`] holds.
    pub(super) fn try_fd_io<R>(
        &self,
        direction: Direction,
        operation: impl FnOnce(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        self.try_io(direction, |fd| fd.do_io(operation))
    }
}

impl<T: AsRawFd> Source for Fd<T> {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        let fd = self.io.as_raw_fd();
        SourceFd(&fd).register(registry, token, interest)?;
        if cfg!(mio_unsupported_force_poll_poll) {
            let registry = registry.try_clone()?;
            self.armed = Some(Armed { registry, fd, token, interest });
        }
        Ok(())
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        rearm(registry, self.io.as_raw_fd(), token, interest)?;
        if let Some(armed) = &mut self.armed {
            (armed.token, armed.interest) = (token, interest);
        }
        Ok(())
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        let deregistered = SourceFd(&self.io.as_raw_fd()).deregister(registry);
        self.armed = None;
        deregistered
    }
}

impl<T: fmt::Debug> fmt::Debug for Fd<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.io.fmt(f)
    }
}
