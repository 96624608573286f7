//! A socket is a number beside what owns its fd.
//!
//! [`Registered`] is under every socket of this module: the source, which owns the fd, and the
//! [`Token`] that names the loop and the slot in its readiness table. It holds no pointer to the
//! loop and looks the current one up when it is polled, so it is `Send` by itself. Polled on a loop
//! that it does not belong to, it answers with an error that says so; dropped on another thread, it
//! posts its slot to the owner's inbox.
//!
//! What may have to wait is done through [`Registered`], which learns from its `WouldBlock` that the
//! socket is not ready any more. Somebody who read past it would wait for ever: the table would still
//! say that there is something to read, and poll(2) would not have been told to look again. So the
//! source itself is shown to nobody but the operation that is tried, and to plain functions that ask it
//! something. The selector knows it by the number of its fd alone: of what mio's own types do to be
//! told of a `WouldBlock`, nothing is used here, and whose system calls an operation makes is all the
//! same.
//!
//! The registration ends before the fd is closed, since somebody may hold a duplicate of it.

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::panic::Location;
use std::task::{Context, Poll, Waker};

use futures::future::FusedFuture;

use mio::unix::SourceFd;

use super::lent::Lent;
use crate::ground::error::LoopClosed;
use crate::ground::slots::Key;
use crate::ground::{foreign, resumption};
use crate::ioloop::{
    By, Core, Direction, Interest, IoLoop, LoopId, Readiness, Ticket, Until, Wait, forget_socket,
    is_closed, with_current,
};

/// Names a slot in the readiness table of a loop, and ends the registration with it.
#[derive(Debug)]
struct Token {
    id: LoopId,
    key: Key,
    fd: RawFd,
    interest: mio::Interest,
}

/// Who asks a socket: a task, and whether by a poll function or by a future.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    waker: &'a Waker,
    by: By<'a>,
}

impl<'a> From<&'a Context<'_>> for Asker<'a> {
    fn from(cx: &'a Context<'_>) -> Asker<'a> {
        Asker { waker: cx.waker(), by: By::Poll }
    }
}

impl<'a> From<&'a mut Context<'_>> for Asker<'a> {
    fn from(cx: &'a mut Context<'_>) -> Asker<'a> {
        Asker { waker: cx.waker(), by: By::Poll }
    }
}

impl Token {
    /// Is the socket ready for the direction, and may the current coroutine still do I/O in this
    /// resumption? Otherwise the waker is woken when that is so. Or: has the direction ended?
    #[inline]
    fn poll(&self, asker: Asker<'_>, direction: Direction, until: Until) -> Poll<io::Result<()>> {
        let mut spent = false;
        let wait = with_current(|core| {
            if core.id() != self.id {
                return None;
            }
            let wait = core
                .readiness(|table| table.poll(self.key, direction, until, asker.by, asker.waker));
            if wait == Some(Wait::Ready) && until != Until::Closed {
                spent = !resumption::spend();
                core.counting().io_calls.add((!spent).into());
            }
            wait
        });
        match wait.flatten() {
            Some(Wait::Ready) if !spent => Poll::Ready(Ok(())),
            Some(Wait::Pending) => Poll::Pending,
            wait => self.wait(wait, asker, direction, until),
        }
    }

    /// What is rare in [`poll`](Token::poll).
    #[cold]
    fn wait(
        &self,
        wait: Option<Wait>,
        asker: Asker<'_>,
        direction: Direction,
        until: Until,
    ) -> Poll<io::Result<()>> {
        match wait {
            Some(Wait::Pending) => {}
            Some(Wait::GiveWaker) => {
                // Cloning may run foreign code, and so may dropping.
                let waker = asker.waker.clone();
                let waits = with_current(|core| {
                    let ask = |table: &mut Readiness| {
                        let before = table.wait(self.key, direction, asker.by, waker);
                        (before, table.is_ready(self.key, direction, until))
                    };
                    (core.id() == self.id).then(|| core.readiness(ask))
                });
                // The clone may have closed the loop, or left another one current.
                let Some((before, is_ready)) = waits.flatten() else {
                    return Poll::Ready(Err(self.misused()));
                };
                foreign::discard(before);
                // Or it has run the loop, which has heard then what this waits for, and nobody will be told
                // of it again.
                if is_ready {
                    foreign::wake(asker.waker.clone());
                }
            }
            // It could go on, but the resumption has done enough.
            Some(Wait::Ready) => {
                if resumption::granted(asker.waker) {
                    with_current(|core| core.counting().io_calls.add(1));
                    return Poll::Ready(Ok(()));
                }
                if until == Until::ReadyOnce {
                    self.again(direction);
                }
                resumption::refuse(asker.waker);
            }
            None => return Poll::Ready(Err(self.misused())),
        }
        Poll::Pending
    }

    /// Why it cannot be used here.
    #[cold]
    fn misused(&self) -> io::Error {
        if is_closed(self.id) {
            return LoopClosed.into();
        }
        let message = match with_current(|core| core.id()) {
            Some(here) => format!(
                "this socket belongs to {} and was used on {here}: make it on the loop that uses it",
                self.id
            ),
            None => format!("this socket belongs to {} and was used outside of any loop", self.id),
        };
        io::Error::other(message)
    }

    /// A system call, on its loop, has not drained the socket.
    fn again(&self, direction: Direction) {
        with_current(|core| core.readiness(|table| table.again(self.key, direction)));
    }

    /// A system call, on its loop, has drained the socket for now.
    #[inline]
    fn drained(&self, direction: Direction) {
        with_current(|core| core.readiness(|table| table.drained(self.key, direction)));
    }

    /// A system call, on its loop, has answered `EAGAIN`.
    #[cold]
    fn would_block(&self, direction: Direction) -> io::Result<()> {
        let rearmed = with_current(|core| {
            core.counting().would_block.add(1);
            core.readiness(|table| table.would_block(self.key, direction));
            // poll(2) reports a socket again only when it is told to.
            match cfg!(mio_unsupported_force_poll_poll) {
                true => core.descriptors().rearm(self.fd, self.key, self.interest),
                false => Ok(()),
            }
        });
        rearmed.unwrap_or(Ok(()))
    }

    /// A future that waits is dropped.
    #[cold]
    fn leave(&self, direction: Direction, ticket: Ticket) {
        let waker = with_current(|core| {
            let ours = core.id() == self.id;
            ours.then(|| core.readiness(|table| table.leave(self.key, direction, ticket)))
        });
        foreign::discard(waker);
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        let woken = with_current(|core| {
            (core.id() == self.id).then(|| {
                core.descriptors().release(self.fd, self.key);
                core.forget_socket(self.key)
            })
        });
        match woken.flatten() {
            Some(woken) => foreign::wake_all(woken),
            None => forget_socket(self.id, self.fd, self.key),
        }
    }
}

/// Something with an fd, registered with a loop.
pub(crate) struct Registered<S> {
    /// Before the source, so that the registration ends before the fd is closed.
    token: Token,
    source: S,
}

impl<S> Registered<S> {
    /// Asks the source for what it need not wait for: an address, an option. It takes a plain function,
    /// which brings no buffer along: reading and writing are operations, and not done here.
    pub(super) fn ask<R>(&self, question: fn(&S) -> io::Result<R>) -> io::Result<R> {
        question(&self.source)
    }

    /// Tells the source something, by a plain function as well.
    pub(super) fn tell<V>(&self, order: fn(&S, V) -> io::Result<()>, value: V) -> io::Result<()> {
        order(&self.source, value)
    }

    /// Its other end is outside, and works in real time.
    pub(crate) fn is_outside(&self) {
        with_current(|core| core.is_outside(self.token.key));
    }

    /// Waits until the direction has ended: an error, or nobody is at the other end.
    pub(crate) fn poll_closed<'a>(
        &self,
        asker: impl Into<Asker<'a>>,
        direction: Direction,
    ) -> Poll<io::Result<()>> {
        self.token.poll(asker.into(), direction, Until::Closed)
    }

    /// Tries `operation` when the socket is ready, and again when it was not after all.
    ///
    /// `operation` may be foreign: nothing is borrowed while it runs.
    pub(crate) fn poll_io<'a, R>(
        &self,
        asker: impl Into<Asker<'a>>,
        direction: Direction,
        operation: impl FnMut(&S) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        self.poll_draining(asker.into(), direction, Until::Ready, operation, |_| false)
    }

    /// [`poll_io`](Registered::poll_io) where some results prove that the socket is drained.
    fn poll_draining<R>(
        &self,
        asker: Asker<'_>,
        direction: Direction,
        until: Until,
        mut operation: impl FnMut(&S) -> io::Result<R>,
        has_drained: impl Fn(&R) -> bool,
    ) -> Poll<io::Result<R>> {
        loop {
            match self.token.poll(asker, direction, until) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
            let result = operation(&self.source);
            match &result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Err(error) = self.token.would_block(direction) {
                        return Poll::Ready(Err(error));
                    }
                    // Around again, to wait.
                    continue;
                }
                Ok(moved) if has_drained(moved) => {
                    if until == Until::Ready {
                        self.token.drained(direction);
                    }
                }
                _ => {
                    if until == Until::ReadyOnce {
                        self.token.again(direction);
                    }
                }
            }
            match result {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Tries `operation` once, whether or not the socket is known to be ready.
    pub(crate) fn try_io<R>(
        &self,
        direction: Direction,
        operation: impl FnOnce(&S) -> io::Result<R>,
    ) -> io::Result<R> {
        let usable = with_current(|core| {
            let usable = core.id() == self.token.id;
            if usable {
                core.counting().io_calls.add(1);
            }
            usable
        });
        if usable != Some(true) {
            return Err(self.token.misused());
        }
        let result = operation(&self.source);
        if matches!(&result, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            self.token.would_block(direction)?;
        }
        result
    }

    /// Waits until a connection attempt has succeeded or failed. `peer` finds out without waiting.
    pub(crate) fn connected(
        &self,
        peer: impl Fn(&S) -> io::Result<()>,
    ) -> impl FusedFuture<Output = io::Result<()>> {
        let place = Location::caller();
        self.waiting(Direction::Write, place, move |asker| {
            self.poll_io(asker, Direction::Write, &peer)
        })
    }

    /// The future of [`poll_io`](Registered::poll_io); `place` is where its user awaits.
    pub(crate) fn io<R>(
        &self,
        direction: Direction,
        place: &'static Location<'static>,
        mut operation: impl FnMut(&S) -> io::Result<R>,
    ) -> impl FusedFuture<Output = io::Result<R>> {
        self.waiting(direction, place, move |asker| self.poll_io(asker, direction, &mut operation))
    }

    /// Waits until the socket is ready, or seems so.
    pub(crate) fn ready(
        &self,
        direction: Direction,
        place: &'static Location<'static>,
    ) -> impl FusedFuture<Output = io::Result<()>> {
        self.waiting(direction, place, move |asker| self.token.poll(asker, direction, Until::Ready))
    }

    /// [`ready`](Registered::ready) as a poll function.
    pub(crate) fn poll_ready<'a>(
        &self,
        asker: impl Into<Asker<'a>>,
        direction: Direction,
    ) -> Poll<io::Result<()>> {
        self.token.poll(asker.into(), direction, Until::Ready)
    }

    /// [`try_io`](Registered::try_io) for an operation of the user's own.
    pub(super) fn try_own<R>(
        &self,
        interest: Interest,
        operation: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        self.try_io(direction_of(interest)?, |_| operation())
    }

    /// [`io`](Registered::io) for an operation of the user's own.
    pub(super) fn own<R>(
        &self,
        interest: Interest,
        place: &'static Location<'static>,
        mut operation: impl FnMut() -> io::Result<R>,
    ) -> impl FusedFuture<Output = io::Result<R>> {
        resumption::fused(
            async move { self.io(direction_of(interest)?, place, |_| operation()).await },
        )
    }

    /// A future from a poll function: it tells its coroutine where it waits, and leaves when it is
    /// dropped.
    pub(crate) fn waiting<T>(
        &self,
        direction: Direction,
        place: &'static Location<'static>,
        mut poll: impl FnMut(Asker<'_>) -> Poll<T>,
    ) -> impl FusedFuture<Output = T> {
        let waits = self.waits(direction, place);
        resumption::fused(poll_fn(move |cx| waits.poll(cx, &mut poll)))
    }

    /// Somebody who will wait for the direction, at that place.
    pub(super) fn waits(
        &self,
        direction: Direction,
        place: &'static Location<'static>,
    ) -> Waits<'_> {
        Waits { token: &self.token, direction, place, ticket: Cell::new(Ticket::NONE) }
    }
}

/// The one direction that is asked for.
fn direction_of(interest: Interest) -> io::Result<Direction> {
    match interest {
        Interest::READ => Ok(Direction::Read),
        Interest::WRITE => Ok(Direction::Write),
        other => {
            let message = format!("an operation reads or writes, so it cannot be one of {other:?}");
            Err(io::Error::new(io::ErrorKind::InvalidInput, message))
        }
    }
}

/// A future or a stream that may be waiting; it leaves when it is dropped.
pub(super) struct Waits<'a> {
    token: &'a Token,
    direction: Direction,
    place: &'static Location<'static>,
    ticket: Cell<Ticket>,
}

impl Waits<'_> {
    /// Polls, and tells the coroutine where it waits.
    pub(super) fn poll<T>(
        &self,
        cx: &Context<'_>,
        poll: impl FnOnce(Asker<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let polled = poll(Asker { waker: cx.waker(), by: By::Future(&self.ticket) });
        match &polled {
            // What made the socket ready has woken all who waited for it: nobody is left to leave.
            Poll::Ready(_) => self.ticket.set(Ticket::NONE),
            Poll::Pending => resumption::waits_at(self.place),
        }
        polled
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        if self.ticket.get() != Ticket::NONE {
            self.token.leave(self.direction, self.ticket.get());
        }
    }
}

/// Whether a connection attempt has succeeded (somebody is there) or failed, or it is too early to
/// tell, which is `WouldBlock`.
pub(crate) fn established<P>(
    error: io::Result<Option<io::Error>>,
    peer: impl FnOnce() -> io::Result<P>,
) -> io::Result<()> {
    if let Some(error) = error? {
        return Err(error);
    }
    match peer() {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => {
            Err(io::ErrorKind::WouldBlock.into())
        }
        result => result.map(drop),
    }
}

/// An object of the user's own. Unlike any other source it can be had from its registration: it is the
/// user's to use beside the loop.
pub(super) struct Own<T>(pub(super) T);

impl<T: AsRawFd> AsRawFd for Own<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl<T> Registered<Own<T>> {
    pub(super) fn get_ref(&self) -> &T {
        &self.source.0
    }

    pub(super) fn get_mut(&mut self) -> &mut T {
        &mut self.source.0
    }
}

impl<S: AsFd> AsFd for Registered<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

/// The number that it had from the start: what the source says may change.
impl<S> AsRawFd for Registered<S> {
    fn as_raw_fd(&self) -> RawFd {
        self.token.fd
    }
}

/// As the source: that it is registered need not be said.
impl<S: fmt::Debug> fmt::Debug for Registered<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl<S: AsRawFd> Registered<S> {
    /// Registers a source with the current loop, for both directions. What is in `ready` is tried
    /// first rather than waited for.
    #[track_caller]
    pub(crate) fn new(source: S, ready: &[Direction]) -> io::Result<Registered<S>> {
        Registered::with_interest(source, mio::Interest::READABLE | mio::Interest::WRITABLE, ready)
    }

    /// For sources that have one direction only.
    #[track_caller]
    pub(crate) fn with_interest(
        source: S,
        interest: mio::Interest,
        ready: &[Direction],
    ) -> io::Result<Registered<S>> {
        let fd = source.as_raw_fd();
        let register = |core: &Core| {
            let key = core.add_socket(&mut SourceFd(&fd), fd, interest, ready)?;
            Ok(Token { id: core.id(), key, fd, interest })
        };
        let token = match with_current(register) {
            Some(token) => token,
            None => register(IoLoop::current().core()),
        };
        token.map(|token| Registered { token, source })
    }

    /// Takes the source back; it is registered with no loop any more.
    ///
    /// # Errors
    ///
    /// If the socket's loop, which has to be told, is not the current one.
    pub(crate) fn into_source(self) -> io::Result<S> {
        let Registered { token, source } = self;
        let taken = with_current(|core| {
            (core.id() == token.id).then(|| {
                core.descriptors().take_back(token.fd, token.key, &mut SourceFd(&token.fd))
            })
        });
        match taken.flatten() {
            Some(taken) => taken.map(|()| source),
            None => Err(io::Error::other(format!(
                "this socket belongs to {}, which is not the current loop",
                token.id
            ))),
        }
    }
}

/// So many buffers are read or written in one system call; that it takes fewer bytes than more of them
/// hold proves nothing.
const IOV_MAX: usize = 1024;

/// A source of bytes without boundaries, or what is taken for one.
pub(crate) trait ByteStream {
    /// Moving less than was asked proves the source drained, so that `EAGAIN` need not be waited for.
    /// That is so of TCP. A Unix stream stops early at urgent data and at descriptors that come with
    /// bytes, a socket with boundaries gives one packet at a time, a terminal a line.
    const SHORT_IS_DRAINED: bool = false;
}

/// A source that bytes are read from.
pub(crate) trait ReadBytes: ByteStream {
    fn read(&self, buf: &mut [u8]) -> io::Result<usize>;

    /// With at most [`IOV_MAX`] buffers.
    fn read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize>;
}

/// A source that bytes are written to. A socket answers `BrokenPipe` if nobody reads any more, and does
/// not raise `SIGPIPE`.
pub(crate) trait WriteBytes: ByteStream {
    fn write(&self, buf: &[u8]) -> io::Result<usize>;

    /// With at most [`IOV_MAX`] buffers.
    fn write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize>;
}

impl<S: ByteStream> Registered<S> {
    /// [`SHORT_IS_DRAINED`](ByteStream::SHORT_IS_DRAINED) is not so of this one, whatever its type.
    pub(super) fn set_partial(&self) {
        with_current(|core| core.readiness(|table| table.short_proves_nothing(self.token.key)));
    }

    /// [`poll_io`](Registered::poll_io) for byte streams: moving less than `asked` may prove something.
    fn poll_transfer<'a>(
        &self,
        asker: impl Into<Asker<'a>>,
        direction: Direction,
        asked: usize,
        operation: impl FnMut(&S) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        // Most reads are short, most writes are not.
        let until = match direction {
            Direction::Read if S::SHORT_IS_DRAINED => Until::ReadyOnce,
            _ => Until::Ready,
        };
        self.poll_draining(asker.into(), direction, until, operation, |&moved| {
            // Nothing at all is the end of the stream, which stays readable.
            S::SHORT_IS_DRAINED && 0 < moved && moved < asked
        })
    }
}

impl<S: ReadBytes> Registered<S> {
    pub(crate) fn poll_read<'a>(
        &self,
        asker: impl Into<Asker<'a>>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_transfer(asker, Direction::Read, buf.len(), |source| source.read(buf))
    }

    pub(crate) fn poll_read_vectored<'a>(
        &self,
        asker: impl Into<Asker<'a>>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let most = bufs.len().min(IOV_MAX);
        let bufs = &mut bufs[..most];
        let asked = bufs.iter().map(|buf| buf.len()).sum();
        self.poll_transfer(asker, Direction::Read, asked, |source| source.read_vectored(bufs))
    }

    /// Reads into a buffer that the loop lends when there is something to read.
    pub(crate) fn poll_read_lent<'a>(&self, asker: impl Into<Asker<'a>>) -> Poll<io::Result<Lent>> {
        let mut lent = None;
        let polled = self.poll_transfer(asker, Direction::Read, Lent::SIZE, |source| {
            source.read(lent.get_or_insert_with(Lent::borrow).whole())
        });
        polled.map_ok(|len| lent.unwrap_or_else(Lent::borrow).filled(len))
    }

    pub(crate) fn read(
        &self,
        place: &'static Location<'static>,
        buf: &mut [u8],
    ) -> impl FusedFuture<Output = io::Result<usize>> {
        self.waiting(Direction::Read, place, move |asker| self.poll_read(asker, buf))
    }

    pub(crate) fn read_exact(
        &self,
        place: &'static Location<'static>,
        buf: &mut [u8],
    ) -> impl FusedFuture<Output = io::Result<()>> {
        let mut filled = 0;
        self.waiting(Direction::Read, place, move |asker| {
            while filled < buf.len() {
                match self.poll_read(asker, &mut buf[filled..]) {
                    Poll::Ready(Ok(0)) => {
                        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                    }
                    Poll::Ready(Ok(n)) => filled += n,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            Poll::Ready(Ok(()))
        })
    }

    pub(crate) fn read_vectored(
        &self,
        place: &'static Location<'static>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> impl FusedFuture<Output = io::Result<usize>> {
        self.waiting(Direction::Read, place, move |asker| self.poll_read_vectored(asker, bufs))
    }

    pub(crate) fn read_lent(
        &self,
        place: &'static Location<'static>,
    ) -> impl FusedFuture<Output = io::Result<Lent>> {
        self.waiting(Direction::Read, place, move |asker| self.poll_read_lent(asker))
    }

    pub(crate) fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.try_io(Direction::Read, |source| source.read(buf))
    }

    pub(crate) fn try_read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let most = bufs.len().min(IOV_MAX);
        self.try_io(Direction::Read, |source| source.read_vectored(&mut bufs[..most]))
    }
}

impl<S: WriteBytes> Registered<S> {
    pub(crate) fn poll_write<'a>(
        &self,
        asker: impl Into<Asker<'a>>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_transfer(asker, Direction::Write, buf.len(), |source| source.write(buf))
    }

    pub(crate) fn poll_write_vectored<'a>(
        &self,
        asker: impl Into<Asker<'a>>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bufs = &bufs[..bufs.len().min(IOV_MAX)];
        let asked = bufs.iter().map(|buf| buf.len()).sum();
        self.poll_transfer(asker, Direction::Write, asked, |source| source.write_vectored(bufs))
    }

    pub(crate) fn write(
        &self,
        place: &'static Location<'static>,
        buf: &[u8],
    ) -> impl FusedFuture<Output = io::Result<usize>> {
        self.waiting(Direction::Write, place, move |asker| self.poll_write(asker, buf))
    }

    pub(crate) fn write_all(
        &self,
        place: &'static Location<'static>,
        buf: &[u8],
    ) -> impl FusedFuture<Output = io::Result<()>> {
        let mut written = 0;
        self.waiting(Direction::Write, place, move |asker| {
            while written < buf.len() {
                match self.poll_write(asker, &buf[written..]) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(n)) => written += n,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            Poll::Ready(Ok(()))
        })
    }

    pub(crate) fn write_vectored(
        &self,
        place: &'static Location<'static>,
        bufs: &[IoSlice<'_>],
    ) -> impl FusedFuture<Output = io::Result<usize>> {
        self.waiting(Direction::Write, place, move |asker| self.poll_write_vectored(asker, bufs))
    }

    pub(crate) fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        self.try_io(Direction::Write, |source| source.write(buf))
    }

    pub(crate) fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let bufs = &bufs[..bufs.len().min(IOV_MAX)];
        self.try_io(Direction::Write, |source| source.write_vectored(bufs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind::{ConnectionRefused, NotConnected, WouldBlock};

    #[test]
    fn a_connection_attempt_has_failed_or_succeeded_or_it_is_too_early_to_tell() {
        let kind = |result: io::Result<()>| result.map_err(|error| error.kind());
        let found = |peer: io::Result<u8>| kind(established(Ok(None), || peer));
        assert_eq!(found(Ok(1)), Ok(()));
        assert_eq!(found(Err(NotConnected.into())), Err(WouldBlock));
        assert_eq!(found(Err(ConnectionRefused.into())), Err(ConnectionRefused));
        let nobody = || -> io::Result<u8> { panic!("it is not asked for") };
        let failed = established(Ok(Some(ConnectionRefused.into())), nobody);
        assert_eq!(kind(failed), Err(ConnectionRefused));
        assert_eq!(kind(established(Err(NotConnected.into()), nobody)), Err(NotConnected));
    }
}
