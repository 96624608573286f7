//! Any other file descriptor on the loop: `AsyncFd`.
//!
//! The loop tells when the fd is ready, and the operation is the user's closure. The fd belongs to
//! the object in it, which may be shared or live on.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::panic::Location;
use std::task::{Context, Poll};

use futures::future::FusedFuture;

use super::methods::{readable, writable};
use super::source::{Own, Registered};
use crate::ioloop::{Direction, Interest};

/// A file descriptor of any kind, with operations of your own: a raw socket, a timerfd, inotify, a
/// terminal, a socket that a C library has made.
///
/// The fd has to be in non-blocking mode; an operation that blocks stops the whole loop. An
/// operation is tried at once, and when it answers `WouldBlock` it is tried again each time the fd
/// becomes ready. A counterpart of Tornado's `add_handler` for coroutines; callbacks are served by
/// [`add_handler`](crate::IoLoop::add_handler).
///
/// Dropping it takes the fd from the loop and drops the object, in that order, on whatever thread; the
/// object may be shared, or something else may keep the file open. If the fd was closed before, and its
/// number given to another file, that one is left alone.
///
/// ```
/// use std::io::{Read, Write};
/// use std::os::unix::net::UnixStream;
/// use waterspout::{IoLoop, net::AsyncFd};
///
/// # IoLoop::new()?.run_sync(|| async {
/// let (here, there) = UnixStream::pair()?;
/// there.set_nonblocking(true)?;
/// let there = AsyncFd::new(there)?;
///
/// (&here).write_all(b"hello")?;
/// let mut buf = [0; 16];
/// let len = there.read_with(|mut stream| stream.read(&mut buf)).await?;
/// assert_eq!(&buf[..len], b"hello");
/// # Ok::<(), std::io::Error>(())
/// # })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct AsyncFd<T: AsRawFd> {
    registered: Registered<Own<T>>,
}

impl<T: AsRawFd> AsyncFd<T> {
    /// Watches the fd of `object` for both directions, on the current loop.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if this loop watches the fd already; what the system says of one that is
    /// closed (`EBADF`) or cannot be watched, like a regular file (`EPERM`). poll(2) takes those:
    /// there a regular file is always ready.
    #[track_caller]
    pub fn new(object: T) -> io::Result<AsyncFd<T>> {
        AsyncFd::with_interest(object, Interest::READ | Interest::WRITE)
    }

    /// Watches the fd only for some directions; waiting for another one takes for ever.
    ///
    /// # Errors
    ///
    /// As [`new`](AsyncFd::new).
    #[track_caller]
    pub fn with_interest(object: T, interest: Interest) -> io::Result<AsyncFd<T>> {
        // Its state is not known: what is asked for is tried first.
        let ready: &[Direction] =
            match (interest.contains(Interest::READ), interest.contains(Interest::WRITE)) {
                (true, true) => &[Direction::Read, Direction::Write],
                (true, false) => &[Direction::Read],
                (false, true) => &[Direction::Write],
                (false, false) => &[],
            };
        Ok(AsyncFd { registered: Registered::with_interest(Own(object), interest.mio(), ready)? })
    }

    /// Does `read` when the fd is readable, again each time it answers `WouldBlock`.
    ///
    /// `Interrupted` is tried again at once. Cancel safe: it is dropped between two calls of `read`,
    /// never in one.
    ///
    /// # Errors
    ///
    /// Those of `read`; that the fd belongs to another loop.
    #[track_caller]
    pub fn read_with<R>(
        &self,
        mut read: impl FnMut(&T) -> io::Result<R>,
    ) -> impl FusedFuture<Output = io::Result<R>> {
        self.registered.io(Direction::Read, Location::caller(), move |own| read(&own.0))
    }

    /// Does `write` when the fd is writable, again each time it answers `WouldBlock`.
    ///
    /// `Interrupted` is tried again at once. Cancel safe: it is dropped between two calls of
    /// `write`, never in one.
    ///
    /// # Errors
    ///
    /// Those of `write`; that the fd belongs to another loop.
    #[track_caller]
    pub fn write_with<R>(
        &self,
        mut write: impl FnMut(&T) -> io::Result<R>,
    ) -> impl FusedFuture<Output = io::Result<R>> {
        self.registered.io(Direction::Write, Location::caller(), move |own| write(&own.0))
    }

    /// [`read_with`](AsyncFd::read_with) as a poll function.
    pub fn poll_read_with<R>(
        &self,
        cx: &mut Context<'_>,
        mut read: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        self.registered.poll_io(cx, Direction::Read, |own| read(&own.0))
    }

    /// [`write_with`](AsyncFd::write_with) as a poll function.
    pub fn poll_write_with<R>(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        self.registered.poll_io(cx, Direction::Write, |own| write(&own.0))
    }

    /// Does `read` once. If it answers `WouldBlock`, [`readable`](AsyncFd::readable) waits from now
    /// on.
    ///
    /// # Errors
    ///
    /// Those of `read`; that the fd belongs to another loop.
    pub fn try_read_with<R>(&self, read: impl FnOnce(&T) -> io::Result<R>) -> io::Result<R> {
        self.registered.try_io(Direction::Read, |own| read(&own.0))
    }

    /// Does `write` once. If it answers `WouldBlock`, [`writable`](AsyncFd::writable) waits from
    /// now on.
    ///
    /// # Errors
    ///
    /// Those of `write`; that the fd belongs to another loop.
    pub fn try_write_with<R>(&self, write: impl FnOnce(&T) -> io::Result<R>) -> io::Result<R> {
        self.registered.try_io(Direction::Write, |own| write(&own.0))
    }

    readable!("something to read", try_read_with);
    writable!("room to write", try_write_with);

    /// The object. What is done with it directly is not seen by the loop: an operation that answers
    /// `WouldBlock` has to go through one of the methods here.
    pub fn get_ref(&self) -> &T {
        self.registered.get_ref()
    }

    /// The object, to be changed. It has to keep its fd.
    pub fn get_mut(&mut self) -> &mut T {
        self.registered.get_mut()
    }

    /// Takes the fd from the loop and gives the object back.
    ///
    /// # Errors
    ///
    /// If it does not belong to the current loop; the object is dropped then.
    pub fn into_inner(self) -> io::Result<T> {
        Ok(self.registered.into_source()?.0)
    }
}

impl<T: AsRawFd + fmt::Debug> fmt::Debug for AsyncFd<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AsyncFd").field(self.get_ref()).finish()
    }
}

impl<T: AsRawFd + AsFd> AsFd for AsyncFd<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.get_ref().as_fd()
    }
}

impl<T: AsRawFd> AsRawFd for AsyncFd<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.get_ref().as_raw_fd()
    }
}
