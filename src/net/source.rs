//! A socket is a number beside its mio source.
//!
//! [`Registered`] is under every socket of this module: the mio source, which owns the fd, and the
//! [`Token`] that names the loop and the slot in its readiness table. It holds no pointer to the
//! loop and looks the current one up when it is polled, so it is `Send` by itself. Polled on a loop
//! that it does not belong to, it answers with an error that says so; dropped on another thread, it
//! posts its slot to the owner's inbox.
//!
//! The slot is forgotten before the fd is closed, and epoll is not told: closing the fd does that.

use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::panic::Location;
use std::task::{Context, Poll, Waker};

use mio::Interest;
use mio::event::Source;

use super::lent::Lent;
use crate::budget;
use crate::error::LoopClosed;
use crate::ioloop::{Core, Direction, Gone, IoLoop, Item, Key, LoopId, forget, with_current};

/// Names a slot in the readiness table of a loop, and gives it back.
#[derive(Debug)]
struct Token {
    id: LoopId,
    key: Key,
}

/// What a system call has proved of the socket's state.
#[derive(Clone, Copy)]
enum Proved {
    Nothing,
    Drained,
    WouldBlock,
}

impl Token {
    /// Is the socket ready for the direction, and may the current coroutine still do I/O in this
    /// resumption? Otherwise the waker is woken when that is so.
    fn poll_ready(&self, cx: &Context<'_>, direction: Direction) -> Poll<io::Result<()>> {
        let ready = self.here(|core| {
            match core.readiness(|readiness| readiness.poll_ready(self.key, direction, cx)) {
                Ok(Poll::Ready(())) => budget::poll_proceed(cx).map(Ok),
                Ok(Poll::Pending) => Poll::Pending,
                Err(Gone) => Poll::Ready(Err(LoopClosed.into())),
            }
        });
        ready.unwrap_or_else(|error| Poll::Ready(Err(error)))
    }

    /// Has the direction ended? Otherwise the waker is woken when that may be so.
    fn poll_closed(&self, cx: &Context<'_>, direction: Direction) -> Poll<io::Result<()>> {
        let closed = self.here(|core| {
            core.readiness(|readiness| readiness.poll_closed(self.key, direction, cx))
        });
        match closed {
            Ok(Ok(closed)) => closed.map(Ok),
            Ok(Err(Gone)) => Poll::Ready(Err(LoopClosed.into())),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Asks the loop that it belongs to, which has to be the current one.
    fn here<R>(&self, ask: impl FnOnce(&Core) -> R) -> io::Result<R> {
        let answer = with_current(|core| match core.id() == self.id {
            true => Ok(ask(core)),
            false => Err(core.id()),
        });
        let message = match answer {
            Some(Ok(answer)) => return Ok(answer),
            Some(Err(here)) => format!(
                "this socket belongs to {} and was used on {here}: make it on the loop that uses it",
                self.id
            ),
            None => format!("this socket belongs to {} and was used outside of any loop", self.id),
        };
        Err(io::Error::other(message))
    }

    /// After a system call, on its loop.
    fn tried(&self, direction: Direction, proved: Proved) {
        let _ = self.here(|core| {
            core.counting().io_calls.add(1);
            match proved {
                Proved::Nothing => {}
                Proved::Drained => {
                    core.readiness(|readiness| readiness.drained(self.key, direction));
                }
                Proved::WouldBlock => {
                    core.counting().would_block.add(1);
                    core.readiness(|readiness| readiness.would_block(self.key, direction));
                }
            }
        });
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        let woken = with_current(|core| (core.id() == self.id).then(|| core.take_source(self.key)));
        match woken.flatten() {
            Some(woken) => woken.into_iter().for_each(Waker::wake),
            None => forget(self.id, Item::ForgetSource(self.key)),
        }
    }
}

/// A mio source registered with a loop.
#[derive(Debug)]
pub(crate) struct Registered<S> {
    /// Before the source, so that the slot goes before the fd.
    token: Token,
    source: S,
}

impl<S> Registered<S> {
    pub(crate) fn source(&self) -> &S {
        &self.source
    }

    pub(crate) fn source_mut(&mut self) -> &mut S {
        &mut self.source
    }

    pub(crate) fn loop_id(&self) -> LoopId {
        self.token.id
    }

    /// Waits until the direction has ended: an error, or nobody is at the other end.
    pub(crate) fn poll_closed(
        &self,
        cx: &Context<'_>,
        direction: Direction,
    ) -> Poll<io::Result<()>> {
        self.token.poll_closed(cx, direction)
    }

    /// Tries `operation` when the socket is ready, and again when it was not after all.
    ///
    /// `operation` may be foreign: nothing is borrowed while it runs.
    pub(crate) fn poll_io<R>(
        &self,
        cx: &Context<'_>,
        direction: Direction,
        operation: impl FnMut(&S) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        self.poll_proving(cx, direction, operation, |_| Proved::Nothing)
    }

    fn poll_proving<R>(
        &self,
        cx: &Context<'_>,
        direction: Direction,
        mut operation: impl FnMut(&S) -> io::Result<R>,
        proved: impl Fn(&R) -> Proved,
    ) -> Poll<io::Result<R>> {
        loop {
            match self.token.poll_ready(cx, direction) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
            match operation(&self.source) {
                Ok(result) => {
                    self.token.tried(direction, proved(&result));
                    return Poll::Ready(Ok(result));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Around again, to wait.
                    self.token.tried(direction, Proved::WouldBlock);
                }
                Err(error) => {
                    self.token.tried(direction, Proved::Nothing);
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Poll::Ready(Err(error));
                    }
                }
            }
        }
    }

    /// Tries `operation` once, whether or not the socket is known to be ready.
    pub(crate) fn try_io<R>(
        &self,
        direction: Direction,
        operation: impl FnOnce(&S) -> io::Result<R>,
    ) -> io::Result<R> {
        self.token.here(|_| ())?;
        let result = operation(&self.source);
        let would_block =
            matches!(&result, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        self.token.tried(direction, if would_block { Proved::WouldBlock } else { Proved::Nothing });
        result
    }

    /// Waits until a connection attempt has succeeded or failed. `peer` finds out without waiting;
    /// it goes through mio, for poll(2) to be armed again if it is too early to tell.
    pub(crate) fn connected(
        &self,
        peer: impl Fn(&S) -> io::Result<()>,
    ) -> impl Future<Output = io::Result<()>> {
        poll_fn(move |cx| self.poll_io(cx, Direction::Write, &peer))
    }

    /// The future of [`poll_io`](Registered::poll_io); `place` is where its user awaits.
    pub(crate) fn io<R>(
        &self,
        direction: Direction,
        place: &'static Location<'static>,
        mut operation: impl FnMut(&S) -> io::Result<R>,
    ) -> impl Future<Output = io::Result<R>> {
        waiting_at(place, move |cx| self.poll_io(cx, direction, &mut operation))
    }

    /// Waits until the socket is ready, or seems so.
    pub(crate) fn ready(
        &self,
        direction: Direction,
        place: &'static Location<'static>,
    ) -> impl Future<Output = io::Result<()>> {
        waiting_at(place, move |cx| self.token.poll_ready(cx, direction))
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

/// A future from a poll function, which tells its coroutine where it waits.
pub(crate) fn waiting_at<T>(
    place: &'static Location<'static>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> impl Future<Output = T> {
    poll_fn(move |cx| {
        let polled = poll(cx);
        if polled.is_pending() {
            with_current(|core| core.waits_at(place));
        }
        polled
    })
}

impl<S: Source> Registered<S> {
    /// Registers a source with the current loop, for both directions. What is in `ready` is tried
    /// first rather than waited for.
    #[track_caller]
    pub(crate) fn new(source: S, ready: &[Direction]) -> io::Result<Registered<S>> {
        Registered::with_interest(source, Interest::READABLE | Interest::WRITABLE, ready)
    }

    /// For sources that have one direction only.
    #[track_caller]
    pub(crate) fn with_interest(
        mut source: S,
        interest: Interest,
        ready: &[Direction],
    ) -> io::Result<Registered<S>> {
        let mut register = |core: &Core| {
            let key = core.add_source(&mut source, interest, ready)?;
            Ok(Token { id: core.id(), key })
        };
        let token = match with_current(&mut register) {
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
        let Registered { token, mut source } = self;
        let deregistered = with_current(|core| {
            (core.id() == token.id)
                .then(|| core.registry(|registry| registry.deregister(&mut source)))
        });
        match deregistered.flatten() {
            // poll(2) in mio forgets by itself what has hung up.
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Some(_) => Ok(source),
            None => Err(io::Error::other(format!(
                "this socket belongs to {}, which is not the current loop",
                token.id
            ))),
        }
    }
}

/// A source of bytes without boundaries.
pub(crate) trait ByteStream {
    /// Moving less than was asked proves the source drained, so that `EAGAIN` need not be waited
    /// for. Not so for what an fd of unknown kind may be: a terminal gives a line at a time.
    const SHORT_IS_DRAINED: bool;
}

impl<S: ByteStream> Registered<S> {
    /// [`poll_io`](Registered::poll_io) for byte streams: moving less than `asked` proves something.
    fn poll_transfer(
        &self,
        cx: &Context<'_>,
        direction: Direction,
        asked: usize,
        operation: impl FnMut(&S) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        self.poll_proving(cx, direction, operation, |&moved| {
            // Nothing at all is the end of the stream, which stays readable.
            let short = S::SHORT_IS_DRAINED && 0 < moved && moved < asked;
            if short { Proved::Drained } else { Proved::Nothing }
        })
    }
}

impl<S: ByteStream> Registered<S>
where
    for<'a> &'a S: Read,
{
    pub(crate) fn poll_read(&self, cx: &Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_transfer(cx, Direction::Read, buf.len(), |mut source| source.read(buf))
    }

    pub(crate) fn poll_read_vectored(
        &self,
        cx: &Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let asked = bufs.iter().map(|buf| buf.len()).sum();
        self.poll_transfer(cx, Direction::Read, asked, |mut source| source.read_vectored(bufs))
    }

    /// Reads into a buffer that the loop lends when there is something to read.
    pub(crate) fn poll_read_lent(&self, cx: &Context<'_>) -> Poll<io::Result<Lent>> {
        let mut lent = None;
        let polled = self.poll_transfer(cx, Direction::Read, Lent::SIZE, |mut source| {
            source.read(lent.get_or_insert_with(Lent::borrow).whole())
        });
        polled.map_ok(|len| lent.unwrap_or_else(Lent::borrow).filled(len))
    }

    pub(crate) fn read(
        &self,
        place: &'static Location<'static>,
        buf: &mut [u8],
    ) -> impl Future<Output = io::Result<usize>> {
        waiting_at(place, move |cx| self.poll_read(cx, buf))
    }

    pub(crate) fn read_exact(
        &self,
        place: &'static Location<'static>,
        buf: &mut [u8],
    ) -> impl Future<Output = io::Result<()>> {
        let mut filled = 0;
        waiting_at(place, move |cx| {
            while filled < buf.len() {
                match self.poll_read(cx, &mut buf[filled..]) {
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
    ) -> impl Future<Output = io::Result<usize>> {
        waiting_at(place, move |cx| self.poll_read_vectored(cx, bufs))
    }

    pub(crate) fn read_lent(
        &self,
        place: &'static Location<'static>,
    ) -> impl Future<Output = io::Result<Lent>> {
        waiting_at(place, move |cx| self.poll_read_lent(cx))
    }

    pub(crate) fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.try_io(Direction::Read, |mut source| source.read(buf))
    }
}

impl<S: ByteStream> Registered<S>
where
    for<'a> &'a S: Write,
{
    pub(crate) fn poll_write(&self, cx: &Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_transfer(cx, Direction::Write, buf.len(), |mut source| source.write(buf))
    }

    pub(crate) fn poll_write_vectored(
        &self,
        cx: &Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let asked = bufs.iter().map(|buf| buf.len()).sum();
        self.poll_transfer(cx, Direction::Write, asked, |mut source| source.write_vectored(bufs))
    }

    pub(crate) fn write(
        &self,
        place: &'static Location<'static>,
        buf: &[u8],
    ) -> impl Future<Output = io::Result<usize>> {
        waiting_at(place, move |cx| self.poll_write(cx, buf))
    }

    pub(crate) fn write_all(
        &self,
        place: &'static Location<'static>,
        buf: &[u8],
    ) -> impl Future<Output = io::Result<()>> {
        let mut written = 0;
        waiting_at(place, move |cx| {
            while written < buf.len() {
                match self.poll_write(cx, &buf[written..]) {
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
    ) -> impl Future<Output = io::Result<usize>> {
        waiting_at(place, move |cx| self.poll_write_vectored(cx, bufs))
    }

    pub(crate) fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        self.try_io(Direction::Write, |mut source| source.write(buf))
    }
}
