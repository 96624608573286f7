//! `add_handler`, `update_handler`, `remove_handler`: callbacks on file descriptors.
//!
//! To the user they are level-triggered, as in Tornado: a handler that reads only part of what has arrived is
//! called again. But the selector reports edges, and the loop cannot see what a handler reads. So after each
//! call the fd is registered again, which makes the selector report again what is left.
//!
//! A handler has a slot that the loop resumes, like a coroutine. Its word waits in the readiness table, an
//! event puts the slot on the run queue, and the next turn runs the handler in order with everything else. So
//! when a handler is removed, it is not called any more even if the selector has reported an event already.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use super::core::{Core, Resume};
use super::interest::Interest;
use super::io_loop::IoLoop;
use super::registration::Registration;
use crate::ground::slots::Key;
use crate::ground::word::pack;
use crate::ground::{foreign, report};

struct FdHandler<S, H> {
    registration: Rc<Registration>,
    source: S,
    handler: RefCell<H>,
}

impl<S: 'static, H: FnMut(&S, Interest) + 'static> Resume for FdHandler<S, H> {
    fn resume(self: Rc<Self>, core: &Core) {
        let registration = &self.registration;
        if !core.descriptors().is_owner(registration.fd, registration.socket) {
            // The user has closed the fd, and its number may be that of another file now. The event was one
            // of a duplicate of the closed fd.
            return;
        }
        let word = pack(core.number(), registration.slot.get());
        let happened = core.readiness(|table| table.take_happened(registration.socket, word));
        let Some(happened) = happened else { return };
        let mut told = Interest::NONE;
        for (is, interest) in [
            (happened.readable, Interest::READ),
            (happened.writable, Interest::WRITE),
            (happened.error, Interest::ERROR),
        ] {
            if is && (registration.interest.get() | Interest::ERROR).contains(interest) {
                told = told | interest;
            }
        }
        let _rearm = Rearm { registration, core };
        if told != Interest::NONE {
            (self.handler.borrow_mut())(&self.source, told);
        }
    }

    fn close(self: Rc<Self>) {
        foreign::discard(self);
    }
}

/// Dropping this registers the fd again after a call of the handler, also if that has panicked; but not if it
/// has removed the handler.
struct Rearm<'a> {
    registration: &'a Registration,
    core: &'a Core,
}

impl Drop for Rearm<'_> {
    fn drop(&mut self) {
        let Rearm { registration, core } = self;
        let known = core.handlers.borrow().get(&registration.fd).map(|known| known.slot.get());
        if known != Some(registration.slot.get()) {
            return;
        }
        if let Err(error) = registration.rearm(core.descriptors()) {
            report::error(
                report::IOLOOP,
                format_args!(
                    "the handler of fd {} is not called any more: {error}; \
                 was the fd closed before remove_handler?",
                    registration.fd
                ),
            );
        }
    }
}

impl IoLoop {
    /// Calls `handler` whenever `source` is ready for what `interest` says.
    ///
    /// `source` is anything with a file descriptor: a socket, an `Rc` of one, an `OwnedFd`, or a
    /// bare `RawFd`. The loop owns it until [`remove_handler`](IoLoop::remove_handler) or
    /// [`close`](IoLoop::close), and gives a reference to it to the handler, with what has happened. Handlers
    /// are level-triggered: as long as there is something to read, the handler is called again, once a
    /// turn. It is called for what `interest` says, and for errors. A panic in it is reported, and the
    /// handler stays. Tornado: `add_handler`.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if this loop watches that fd already, whatever object it was given for that. (If
    /// that fd was closed since, the old handler is removed instead.) The system's error if the fd is
    /// closed (`EBADF`) or cannot be watched, like a regular file (`EPERM`).
    ///
    /// poll(2) accepts such fds: there a regular file is always ready, and a closed fd is reported as an
    /// [error](Interest::ERROR). And poll(2) knows an fd by its number alone. So there
    /// [`remove_handler`](IoLoop::remove_handler) has to be called before the number of a closed fd becomes
    /// that of another file, which this loop does not watch.
    ///
    /// ```
    /// use std::cell::Cell;
    /// use std::io::{Read, Write};
    /// use std::os::unix::net::UnixStream;
    /// use std::rc::Rc;
    /// use waterspout::{Interest, IoLoop};
    ///
    /// let io_loop = IoLoop::new()?;
    /// let (mut here, there) = UnixStream::pair()?;
    /// let inner = io_loop.clone();
    /// let got = Rc::new(Cell::new(0));
    /// let got_ = got.clone();
    /// io_loop.add_handler(there, Interest::READ, move |mut there: &UnixStream, _| {
    ///     let mut byte = [0];
    ///     there.read_exact(&mut byte).unwrap();
    ///     got_.set(byte[0]);
    ///     inner.stop();
    /// })?;
    /// here.write_all(b"x")?;
    /// io_loop.start()?;
    /// assert_eq!(got.get(), b'x');
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn add_handler<S, H>(&self, source: S, interest: Interest, handler: H) -> io::Result<()>
    where
        S: AsRawFd + 'static,
        H: FnMut(&S, Interest) + 'static,
    {
        let core = self.core();
        let fd = source.as_raw_fd();
        let added = core.add_socket(fd, interest.mio(), &[]);
        let key = added.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                let message =
                    format!("{self:?} watches fd {fd} already: update_handler changes a handler");
                io::Error::new(io::ErrorKind::AlreadyExists, message)
            }
            _ => error,
        })?;
        // If there was a handler for this number, its fd was closed: the selector would have refused the
        // new one otherwise.
        self.remove_handler(&fd);
        let registration = Rc::new(Registration {
            fd,
            interest: Cell::new(interest),
            socket: key,
            slot: Cell::new(Key::NONE),
        });
        let handler = RefCell::new(handler);
        let handler = FdHandler { registration: registration.clone(), source, handler };
        let slot = core.insert(Rc::new(handler), false);
        registration.slot.set(slot);
        core.readiness(|table| table.take_happened(key, pack(core.number(), slot)));
        core.handlers.borrow_mut().insert(fd, registration);
        Ok(())
    }

    /// Changes what the handler of an fd is called for. If the fd is ready for that already, the handler is
    /// called in the next turn. Tornado: `update_handler`.
    ///
    /// # Errors
    ///
    /// `NotFound` if the loop does not watch that fd; the system's error if the fd was closed.
    pub fn update_handler(&self, source: &impl AsRawFd, interest: Interest) -> io::Result<()> {
        let core = self.core();
        let fd = source.as_raw_fd();
        let registration = core.handlers.borrow().get(&fd).cloned();
        let Some(registration) = registration else {
            let message = format!("{self:?} does not watch fd {fd}: add_handler first");
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        };
        registration.interest.set(interest);
        registration.rearm(core.descriptors())
    }

    /// Stops watching a file descriptor and drops the handler with what was registered; tells
    /// whether there was one.
    ///
    /// Nothing happens if the fd is not watched. The handler is not called any more, even if the selector has
    /// reported an event already. If the handler itself calls this, it is dropped when it returns. Tornado:
    /// `remove_handler`.
    pub fn remove_handler(&self, source: &impl AsRawFd) -> bool {
        let core = self.core();
        let registration = core.handlers.borrow_mut().remove(&source.as_raw_fd());
        let Some(registration) = registration else { return false };
        core.descriptors().release(registration.fd, registration.socket);
        drop(core.forget_socket(registration.socket));
        foreign::discard(core.remove(registration.slot.get()));
        true
    }
}
