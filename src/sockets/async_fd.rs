//! Any other file descriptor on the loop: `AsyncFd`.
//!
//! The user brings an object that has an fd, and closures that read or write it. The loop tries a
//! closure when the fd is ready. The object stays the user's: it may be shared, and may outlive the
//! [`AsyncFd`].

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::panic::Location;
use std::task::{Context, Poll};

use futures::future::FusedFuture;

use super::methods::{readable, writable};
use super::source::{Registered, UserObject};
use crate::ioloop::{Direction, Interest};

/// A file descriptor of any kind, with operations of your own: a raw socket, a timerfd, inotify, a
/// terminal, a socket that a C library has made.
///
/// The fd has to be in non-blocking mode, because an operation that blocks stops the whole loop. An
/// operation is tried at once, and when it answers `WouldBlock` it is tried again each time the fd
/// becomes ready. This is for coroutines what Tornado's `add_handler` is for callbacks; that is here,
/// too, as [`add_handler`](crate::IoLoop::add_handler).
///
/// Dropping it, on any thread, ends the loop's watching of the fd and then drops the object. That closes
/// the fd only if nothing else keeps it open: another [`Rc`](std::rc::Rc) of the object, say. If the fd
/// was closed before, and its number is another file's by now, that file is left alone: if the loop
/// watches it, it goes on.
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
    registered: Registered<UserObject<T>>,
}

impl<T: AsRawFd> AsyncFd<T> {
    /// Watches the fd of `object` for both directions, on the current loop.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if this loop watches the fd already; what the system says of an fd that is closed
    /// (`EBADF`) or cannot be watched, like that of a regular file (`EPERM`). With poll(2), regular
    /// files can be watched, and are always ready.
    #[track_caller]
    pub fn new(object: T) -> io::Result<AsyncFd<T>> {
        AsyncFd::with_interest(object, Interest::READ | Interest::WRITE)
    }

    /// Watches the fd only for the directions in `interest`. An operation in another direction waits for
    /// ever if it answers `WouldBlock`.
    ///
    /// # Errors
    ///
    /// As [`new`](AsyncFd::new).
    #[track_caller]
    pub fn with_interest(object: T, interest: Interest) -> io::Result<AsyncFd<T>> {
        // Nobody knows whether the fd is ready now, so the first operation is tried before anybody waits.
        let ready: &[Direction] =
            match (interest.contains(Interest::READ), interest.contains(Interest::WRITE)) {
                (true, true) => &[Direction::Read, Direction::Write],
                (true, false) => &[Direction::Read],
                (false, true) => &[Direction::Write],
                (false, false) => &[],
            };
        let source = UserObject(object);
        Ok(AsyncFd { registered: Registered::with_interest(source, interest.mio(), ready)? })
    }

    /// Calls `read` when the fd is readable. As long as that answers `WouldBlock`, waits until the fd is
    /// readable again, and calls it again.
    ///
    /// After `Interrupted` it is called again at once. Cancel safe: the future can only be dropped
    /// between two calls of `read`, never in one.
    ///
    /// # Errors
    ///
    /// Those of `read`; an error if the fd belongs to another loop than the current one.
    #[track_caller]
    pub fn read_with<R>(
        &self,
        mut read: impl FnMut(&T) -> io::Result<R>,
    ) -> impl FusedFuture<Output = io::Result<R>> {
        self.registered.io(Direction::Read, Location::caller(), move |source| read(&source.0))
    }

    /// Calls `write` when the fd is writable. As long as that answers `WouldBlock`, waits until the fd is
    /// writable again, and calls it again.
    ///
    /// After `Interrupted` it is called again at once. Cancel safe: the future can only be dropped
    /// between two calls of `write`, never in one.
    ///
    /// # Errors
    ///
    /// Those of `write`; an error if the fd belongs to another loop than the current one.
    #[track_caller]
    pub fn write_with<R>(
        &self,
        mut write: impl FnMut(&T) -> io::Result<R>,
    ) -> impl FusedFuture<Output = io::Result<R>> {
        self.registered.io(Direction::Write, Location::caller(), move |source| write(&source.0))
    }

    /// [`read_with`](AsyncFd::read_with) as a poll function: of the tasks that call it, only the last
    /// one is woken.
    ///
    /// # Errors
    ///
    /// As [`read_with`](AsyncFd::read_with).
    pub fn poll_read_with<R>(
        &self,
        cx: &mut Context<'_>,
        mut read: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        self.registered.poll_io(cx, Direction::Read, |source| read(&source.0))
    }

    /// [`write_with`](AsyncFd::write_with) as a poll function: of the tasks that call it, only the last
    /// one is woken.
    ///
    /// # Errors
    ///
    /// As [`write_with`](AsyncFd::write_with).
    pub fn poll_write_with<R>(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        self.registered.poll_io(cx, Direction::Write, |source| write(&source.0))
    }

    /// Calls `read` once, without waiting. If that answers `WouldBlock`, the loop notes that the fd is not
    /// readable, so that [`readable`](AsyncFd::readable) waits.
    ///
    /// # Errors
    ///
    /// Those of `read`; an error if the fd belongs to another loop than the current one.
    pub fn try_read_with<R>(&self, read: impl FnOnce(&T) -> io::Result<R>) -> io::Result<R> {
        self.registered.try_io(Direction::Read, |source| read(&source.0))
    }

    /// Calls `write` once, without waiting. If that answers `WouldBlock`, the loop notes that the fd is
    /// not writable, so that [`writable`](AsyncFd::writable) waits.
    ///
    /// # Errors
    ///
    /// Those of `write`; an error if the fd belongs to another loop than the current one.
    pub fn try_write_with<R>(&self, write: impl FnOnce(&T) -> io::Result<R>) -> io::Result<R> {
        self.registered.try_io(Direction::Write, |source| write(&source.0))
    }

    readable!("something to read", try_read_with);
    writable!("room to write", try_write_with);

    /// The object. The loop does not see what is done with it directly. So an operation that may answer
    /// `WouldBlock` has to go through one of the methods here: otherwise
    /// [`readable`](AsyncFd::readable) would go on to say that the fd is readable, and never wait.
    pub fn get_ref(&self) -> &T {
        self.registered.get_ref()
    }

    /// The object, to be changed. It has to keep its fd, which the loop goes on watching.
    pub fn get_mut(&mut self) -> &mut T {
        self.registered.get_mut()
    }

    /// Takes the fd from the loop and gives the object back.
    ///
    /// # Errors
    ///
    /// If the fd belongs to another loop than the current one; what the selector says. The object is
    /// dropped then.
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
