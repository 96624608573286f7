//! What is under every socket: an fd with its registration, and the one door that every operation goes
//! through.
//!
//! A socket of this crate is a [`Registered`], which has two parts. The *source* owns the fd and makes
//! the system calls. The [`Registration`] says that a loop's selector watches the fd; it consists of
//! numbers: that of the loop, the key of the socket's slot in the loop's readiness table, and the fd. It
//! has no pointer to the loop. Each operation looks up which loop is current on this thread, and
//! compares the numbers. So a socket is `Send` by itself. If it is used while another loop is current,
//! or none, the operation fails with an error that says so. If it is dropped on another thread, its key
//! is posted to the inbox of its loop, which then frees the slot.
//!
//! # The road of a read
//!
//! 1. The user calls `stream.read(&mut buf)`, a method from `methods.rs`. It notes the line of that call
//!    (the *place*), and gives the future that [`Registered::read`] makes.
//! 2. A coroutine polls the future. The future's [`TicketHolder`] makes an [`Asker`]: the waker of the
//!    task, and the cell for the future's ticket. With that it calls [`Registered::poll_read`], which
//!    comes to `poll_draining`.
//! 3. `poll_draining` asks the readiness table, by [`Registration::poll`], whether a read is worth a try.
//! 4. If it is not, the table keeps the waker, under a ticket that it puts into the cell. The future
//!    notes the place, so that `coroutines()` can tell where the coroutine waits, and is pending. When
//!    the selector reports the socket, the loop notes in the table that it is ready, and wakes all who
//!    wait for it. The coroutine is resumed, and polls the future again: back to step 2.
//! 5. If a read is worth a try, and the budget of the resumption is not spent, the source calls read(2).
//! 6. The answer tells what the table is to say from now on. After `WouldBlock` the socket is not ready
//!    any more: back to step 3, where the future now waits. If a TCP stream gives fewer bytes than there
//!    was room for, it is drained, and so not ready either. (The table assumes that before the read, and
//!    hears only if it was wrong: see [`Until::ReadyOnce`].) After anything else the socket stays ready.
//!    In all cases but the first the future is done, and gives the user the number of bytes, or the error.
//!
//! If the future is dropped while it waits, its `TicketHolder` shows the ticket to the table, which
//! drops the waker. A poll function (`AsyncRead::poll_read`) takes the same road without a ticket: there
//! [`By::Poll`] stands in the `Asker`, and the table keeps only the waker of the latest call.
//!
//! # Why there is only one door
//!
//! Every `WouldBlock` has to be noted (step 6). If a read got one and nobody noted it, the table would
//! go on to say that the socket is ready: whoever waits until it is would be told to try again, at once
//! and without end. And poll(2), which reports a socket again only when it is told to, would not be told:
//! whoever waits for the end of the stream ([`Until::Closed`]) would wait for ever. So nobody gets at the
//! source but the operation that `Registered` tries, and plain functions that ask the source for
//! something (an address, an option).
//!
//! The socket types of mio have means of their own to note a `WouldBlock`. Nothing of them is used here.
//! The selector knows a socket by the number of its fd alone, so it does not matter whether mio, std or
//! another crate makes the system call.
//!
//! The registration ends before the fd is closed, because somebody may hold a duplicate of the fd, and
//! then the selector would go on to report it.

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::panic::Location;
use std::task::{Context, Poll, Waker};

use futures::future::FusedFuture;

use super::lent::Lent;
use crate::ground::error::LoopClosed;
use crate::ground::slots::Key;
use crate::ground::wait_queue::wake;
use crate::ground::{foreign, resumption};
use crate::ioloop::{
    By, Core, Direction, Interest, IoLoop, LoopId, Readiness, Ticket, Until, Wait, forget_socket,
    is_closed, with_current,
};

/// Stands for this: the selector of a loop watches a file descriptor. Dropping it ends that, and frees the slot of the
/// socket in the readiness table.
#[derive(Debug)]
struct Registration {
    /// The loop that the socket belongs to.
    id: LoopId,
    /// The key of the socket in the loop's readiness table.
    key: Key,
    /// The number that the fd had when it was registered, by which the selector knows it.
    fd: RawFd,
    /// What the selector was told to watch, to be told again (see `would_block`).
    interest: mio::Interest,
}

/// Who asks whether a socket is ready: the waker of the task, and whether the task asks by a poll
/// function or by a future. The readiness table needs to know, because it keeps one waker for all calls
/// of poll functions (that of the latest), but one for each future.
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

impl Registration {
    /// Ready if an operation is worth a try, and the budget of this resumption is not spent yet: one
    /// unit is spent then. For [`Until::Closed`]: ready if the direction has ended. Otherwise pending,
    /// and the asker's waker will be woken.
    ///
    /// # Errors
    ///
    /// If the socket's loop is not the current one, or is closed.
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
            wait => self.poll_rare(wait, asker, direction, until),
        }
    }

    /// The rest of [`poll`](Registration::poll), which is rare: a waker that has to be cloned, a budget
    /// that is spent, or an error.
    #[cold]
    fn poll_rare(
        &self,
        wait: Option<Wait>,
        asker: Asker<'_>,
        direction: Direction,
        until: Until,
    ) -> Poll<io::Result<()>> {
        match wait {
            Some(Wait::Pending) => {}
            Some(Wait::GiveWaker) => {
                // Cloning a waker may run foreign code, so it is done while nothing is borrowed.
                let mut waker = Some(asker.waker.clone());
                let ask = |table: &mut Readiness| {
                    let is_ready = table.is_ready(self.key, direction, until);
                    let waits = waker.take_if(|_| !is_ready);
                    waits.and_then(|waker| table.wait(self.key, direction, asker.by, waker))
                };
                let asked =
                    with_current(|core| (core.id() == self.id).then(|| core.readiness(ask)));
                // That foreign code may have closed the loop, or left another one current.
                let Some(replaced) = asked.flatten() else {
                    foreign::discard(waker);
                    return Poll::Ready(Err(self.misused()));
                };
                foreign::discard(replaced);
                // Or it has run the loop, and the event that this task waits for came just then. No other
                // event would follow, so the table has not taken the waker, and the task is woken here.
                wake(waker);
            }
            // The socket is ready, but the budget is spent.
            Some(Wait::Ready) => {
                if resumption::granted(asker.waker) {
                    with_current(|core| core.counting().io_calls.add(1));
                    return Poll::Ready(Ok(()));
                }
                // The table counts on an operation that drains the socket, and none is done now.
                if until == Until::ReadyOnce {
                    self.again(direction);
                }
                resumption::refuse(asker.waker);
            }
            None => return Poll::Ready(Err(self.misused())),
        }
        Poll::Pending
    }

    /// The error that says why the socket cannot be used here.
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

    /// Takes back what [`Until::ReadyOnce`] has assumed: the system call has not drained the socket, so
    /// the table says again that it is ready. Only while the socket's loop is current, as the next two.
    fn again(&self, direction: Direction) {
        with_current(|core| core.readiness(|table| table.again(self.key, direction)));
    }

    /// Notes that a system call has drained the socket: it is not ready until the selector reports it.
    #[inline]
    fn drained(&self, direction: Direction) {
        with_current(|core| core.readiness(|table| table.drained(self.key, direction)));
    }

    /// Notes that a system call has answered `WouldBlock`.
    ///
    /// # Errors
    ///
    /// What the selector says when it is told to watch the fd again.
    #[cold]
    fn would_block(&self, direction: Direction) -> io::Result<()> {
        let rearmed = with_current(|core| {
            core.counting().would_block.add(1);
            core.readiness(|table| table.would_block(self.key, direction));
            // mio's selector over poll(2) stops watching for what it has reported until it is told to go
            // on.
            match cfg!(mio_unsupported_force_poll_poll) {
                true => core.descriptors().rearm(self.fd, self.key, self.interest),
                false => Ok(()),
            }
        });
        rearmed.unwrap_or(Ok(()))
    }

    /// Takes the waker of a future that is dropped out of the readiness table. If the socket's loop is not
    /// current, the waker stays there, and will be woken once for nothing.
    #[cold]
    fn leave(&self, direction: Direction, ticket: Ticket) {
        let waker = with_current(|core| {
            let ours = core.id() == self.id;
            ours.then(|| core.readiness(|table| table.leave(self.key, direction, ticket)))
        });
        foreign::discard(waker);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let woken = with_current(|core| {
            (core.id() == self.id).then(|| {
                core.descriptors().release(self.fd, self.key);
                core.forget_socket(self.key)
            })
        });
        match woken.flatten() {
            // Tasks that wait for the socket are woken, to find it gone.
            Some(woken) => foreign::wake_all(woken),
            None => forget_socket(self.id, self.fd, self.key),
        }
    }
}

/// What owns an fd (the source), with its registration.
pub(crate) struct Registered<S> {
    /// It stands before the source because fields are dropped in their order: so the registration ends
    /// before the fd is closed.
    registration: Registration,
    source: S,
}

impl<S> Registered<S> {
    /// Asks the source for something that it need not wait for: an address, an option. `question` is a
    /// plain function and not a closure, so it cannot bring a buffer along to read into: operations are
    /// not done here, where nobody would note their `WouldBlock`.
    pub(super) fn ask<R>(&self, question: fn(&S) -> io::Result<R>) -> io::Result<R> {
        question(&self.source)
    }

    /// Tells the source something (an option, say), also by a plain function.
    pub(super) fn tell<V>(&self, order: fn(&S, V) -> io::Result<()>, value: V) -> io::Result<()> {
        order(&self.source, value)
    }

    /// Notes that the other end is outside (a child process has it), and works in real time: it holds
    /// virtual time while somebody waits for this socket.
    pub(crate) fn mark_outside(&self) {
        with_current(|core| core.mark_outside(self.registration.key));
    }

    /// Ready when the direction has ended, because of an error, or because nobody is at the other end.
    pub(crate) fn poll_closed<'a>(
        &self,
        asker: impl Into<Asker<'a>>,
        direction: Direction,
    ) -> Poll<io::Result<()>> {
        self.registration.poll(asker.into(), direction, Until::Closed)
    }

    /// Tries `operation` when the socket is ready. If that answers `WouldBlock`, waits until the socket is
    /// ready again, and so on; after `Interrupted`, tries again at once.
    ///
    /// `operation` may be foreign code: nothing is borrowed while it runs.
    pub(crate) fn poll_io<'a, R>(
        &self,
        asker: impl Into<Asker<'a>>,
        direction: Direction,
        operation: impl FnMut(&S) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        self.poll_draining(asker.into(), direction, Until::Ready, operation, |_| false)
    }

    /// [`poll_io`](Registered::poll_io) for an operation some of whose results prove that the socket is
    /// drained: `has_drained` says which. The readiness table learns here what came of the operation.
    fn poll_draining<R>(
        &self,
        asker: Asker<'_>,
        direction: Direction,
        until: Until,
        mut operation: impl FnMut(&S) -> io::Result<R>,
        has_drained: impl Fn(&R) -> bool,
    ) -> Poll<io::Result<R>> {
        loop {
            match self.registration.poll(asker, direction, until) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
            let result = operation(&self.source);
            match &result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Err(error) = self.registration.would_block(direction) {
                        return Poll::Ready(Err(error));
                    }
                    // The next question to the table makes the asker wait.
                    continue;
                }
                Ok(moved) if has_drained(moved) => {
                    // With `ReadyOnce` the table assumes it already.
                    if until == Until::Ready {
                        self.registration.drained(direction);
                    }
                }
                // It proves nothing: there may be more to read, or more room.
                _ => {
                    if until == Until::ReadyOnce {
                        self.registration.again(direction);
                    }
                }
            }
            match result {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Tries `operation` once, whether or not the socket is known to be ready. Never waits; after a
    /// `WouldBlock` the next one who waits for the socket does wait.
    pub(crate) fn try_io<R>(
        &self,
        direction: Direction,
        operation: impl FnOnce(&S) -> io::Result<R>,
    ) -> io::Result<R> {
        let usable = with_current(|core| {
            let usable = core.id() == self.registration.id;
            if usable {
                core.counting().io_calls.add(1);
            }
            usable
        });
        if usable != Some(true) {
            return Err(self.registration.misused());
        }
        let result = operation(&self.source);
        if matches!(&result, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            self.registration.would_block(direction)?;
        }
        result
    }

    /// Waits until a connection attempt has succeeded or failed. `outcome` tells which, without waiting:
    /// it answers `WouldBlock` as long as neither is so (see [`established`]).
    pub(crate) fn until_connected(
        &self,
        outcome: impl Fn(&S) -> io::Result<()>,
    ) -> impl FusedFuture<Output = io::Result<()>> {
        let place = Location::caller();
        self.waiting(Direction::Write, place, move |asker| {
            self.poll_io(asker, Direction::Write, &outcome)
        })
    }

    /// [`poll_io`](Registered::poll_io) as a future. `place` is the line of the user's call, which
    /// `coroutines()` shows while the future waits.
    pub(crate) fn io<R>(
        &self,
        direction: Direction,
        place: &'static Location<'static>,
        mut operation: impl FnMut(&S) -> io::Result<R>,
    ) -> impl FusedFuture<Output = io::Result<R>> {
        self.waiting(direction, place, move |asker| self.poll_io(asker, direction, &mut operation))
    }

    /// Waits until the socket is ready, or may be: the table can say so of a socket that has nothing to
    /// read.
    pub(crate) fn ready(
        &self,
        direction: Direction,
        place: &'static Location<'static>,
    ) -> impl FusedFuture<Output = io::Result<()>> {
        self.waiting(direction, place, move |asker| {
            self.registration.poll(asker, direction, Until::Ready)
        })
    }

    /// [`ready`](Registered::ready) as a poll function.
    pub(crate) fn poll_ready<'a>(
        &self,
        asker: impl Into<Asker<'a>>,
        direction: Direction,
    ) -> Poll<io::Result<()>> {
        self.registration.poll(asker.into(), direction, Until::Ready)
    }

    /// [`try_io`](Registered::try_io) for an operation that the user has written. It gets at the fd by
    /// itself.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if `interest` is not exactly one direction.
    pub(super) fn try_user_io<R>(
        &self,
        interest: Interest,
        operation: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        self.try_io(direction_of(interest)?, |_| operation())
    }

    /// [`io`](Registered::io) for an operation that the user has written. It gets at the fd by itself.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if `interest` is not exactly one direction.
    pub(super) fn user_io<R>(
        &self,
        interest: Interest,
        place: &'static Location<'static>,
        mut operation: impl FnMut() -> io::Result<R>,
    ) -> impl FusedFuture<Output = io::Result<R>> {
        resumption::fused(
            async move { self.io(direction_of(interest)?, place, |_| operation()).await },
        )
    }

    /// Makes a future of a poll function that asks for one direction. While the future waits, `place` is
    /// told to be where its coroutine waits; when the future is dropped, its waker is taken out of the
    /// readiness table.
    pub(crate) fn waiting<T>(
        &self,
        direction: Direction,
        place: &'static Location<'static>,
        mut poll: impl FnMut(Asker<'_>) -> Poll<T>,
    ) -> impl FusedFuture<Output = T> {
        let holder = self.ticket_holder(direction, place);
        resumption::fused(poll_fn(move |cx| holder.poll(cx, &mut poll)))
    }

    /// What a future or a stream needs that will wait for the direction, at that place.
    pub(super) fn ticket_holder(
        &self,
        direction: Direction,
        place: &'static Location<'static>,
    ) -> TicketHolder<'_> {
        let registration = &self.registration;
        TicketHolder { registration, direction, place, ticket: Cell::new(Ticket::NONE) }
    }
}

/// The direction that `interest` is; an error if it is both or none.
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

/// The part of a future or a stream that knows whether it waits in the readiness table, by its ticket.
/// When it is dropped while it waits, it takes the waker out of the table: otherwise a coroutine that
/// has given up this future and goes on to wait for something else would be woken by it for nothing.
pub(super) struct TicketHolder<'a> {
    registration: &'a Registration,
    direction: Direction,
    place: &'static Location<'static>,
    /// [`Ticket::NONE`] while it does not wait. The readiness table sets it.
    ticket: Cell<Ticket>,
}

impl TicketHolder<'_> {
    /// Calls `poll` with the asker that `poll` is to wait as. If that is pending, notes where the
    /// coroutine waits.
    pub(super) fn poll<T>(
        &self,
        cx: &Context<'_>,
        poll: impl FnOnce(Asker<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let polled = poll(Asker { waker: cx.waker(), by: By::Future(&self.ticket) });
        match &polled {
            // The event that made the socket ready has woken all who waited for it, and so has taken their
            // wakers out of the table: there is nothing left for `drop` to take out.
            Poll::Ready(_) => self.ticket.set(Ticket::NONE),
            Poll::Pending => resumption::waits_at(self.place),
        }
        polled
    }
}

impl Drop for TicketHolder<'_> {
    fn drop(&mut self) {
        if self.ticket.get() != Ticket::NONE {
            self.registration.leave(self.direction, self.ticket.get());
        }
    }
}

/// What has come of a connection attempt: `Ok` if it has succeeded (the socket has a peer), its error if
/// it has failed, and `WouldBlock` while it is under way. `error` is the socket's `SO_ERROR`, and `peer`
/// asks for the address of its peer.
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

/// The source of an `AsyncFd`: an object of the user. It is the one kind of source that can be got out
/// of a [`Registered`] by reference, since the user may do with the object what the loop does not see.
pub(super) struct UserObject<T>(pub(super) T);

impl<T: AsRawFd> AsRawFd for UserObject<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl<T> Registered<UserObject<T>> {
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

/// The number that was registered. A source of the user could give another number each time it is asked.
impl<S> AsRawFd for Registered<S> {
    fn as_raw_fd(&self) -> RawFd {
        self.registration.fd
    }
}

/// Shown as the source is.
impl<S: fmt::Debug> fmt::Debug for Registered<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl<S: AsRawFd> Registered<S> {
    /// Registers a source with the current loop, for both directions. The directions in `ready` count as
    /// ready from the start: the first operation is tried, and waits only if it answers `WouldBlock`.
    #[track_caller]
    pub(crate) fn new(source: S, ready: &[Direction]) -> io::Result<Registered<S>> {
        Registered::with_interest(source, mio::Interest::READABLE | mio::Interest::WRITABLE, ready)
    }

    /// [`new`](Registered::new) for a source that has one direction only, or that the selector is to
    /// watch for something else, too.
    #[track_caller]
    pub(crate) fn with_interest(
        source: S,
        interest: mio::Interest,
        ready: &[Direction],
    ) -> io::Result<Registered<S>> {
        let fd = source.as_raw_fd();
        let register = |core: &Core| {
            let key = core.add_socket(fd, interest, ready)?;
            Ok(Registration { id: core.id(), key, fd, interest })
        };
        let registration = match with_current(register) {
            Some(registration) => registration,
            None => register(IoLoop::current().core()),
        };
        registration.map(|registration| Registered { registration, source })
    }

    /// Gives the source back, which is registered with no loop any more.
    ///
    /// # Errors
    ///
    /// If the socket's loop, which has to be told, is not the current one; what the selector says. The
    /// source is dropped then.
    pub(crate) fn into_source(self) -> io::Result<S> {
        let Registered { registration, source } = self;
        let taken = with_current(|core| {
            (core.id() == registration.id)
                .then(|| core.descriptors().take_back(registration.fd, registration.key))
        });
        let taken = taken.flatten().unwrap_or_else(|| {
            Err(io::Error::other(format!(
                "this socket belongs to {}, which is not the current loop",
                registration.id
            )))
        });
        // Before the source, which is dropped after an error and closes its fd.
        drop(registration);
        taken.map(|()| source)
    }
}

/// How many buffers one system call reads into or writes from, at most. If the user gives more, only
/// those up to this number count as what was asked for: otherwise a call that has filled all of these
/// would look like a short one, which proves that the socket is drained.
const IOV_MAX: usize = 1024;

/// A source that bytes are read from or written to.
pub(crate) trait ByteStream {
    /// Whether a call that moves fewer bytes than it was asked to proves that the source is drained,
    /// which saves the call that would only answer `WouldBlock`. That is so of TCP. Other sources may
    /// have more to give after a short read: a Unix stream stops at urgent data, and at file descriptors
    /// that come with the bytes; a socket with boundaries gives one packet at a time, and a terminal one
    /// line.
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
    /// From now on a short read or write of this source proves nothing, whatever
    /// [`SHORT_IS_DRAINED`](ByteStream::SHORT_IS_DRAINED) says of its type.
    pub(super) fn short_proves_nothing(&self) {
        let key = self.registration.key;
        with_current(|core| core.readiness(|table| table.short_proves_nothing(key)));
    }

    /// [`poll_io`](Registered::poll_io) for bytes, `asked` of them: fewer may prove that the source is
    /// drained.
    fn poll_transfer<'a>(
        &self,
        asker: impl Into<Asker<'a>>,
        direction: Direction,
        asked: usize,
        operation: impl FnMut(&S) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        // Most reads are short, so the table is to assume that this one will drain the source, which saves
        // telling it afterwards. Most writes are not short.
        let until = match direction {
            Direction::Read if S::SHORT_IS_DRAINED => Until::ReadyOnce,
            _ => Until::Ready,
        };
        self.poll_draining(asker.into(), direction, until, operation, |&moved| {
            // A read of 0 bytes is the end of the stream. That drains nothing: the next read has to find
            // it, too.
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
        let count = bufs.len().min(IOV_MAX);
        let bufs = &mut bufs[..count];
        let asked = bufs.iter().map(|buf| buf.len()).sum();
        self.poll_transfer(asker, Direction::Read, asked, |source| source.read_vectored(bufs))
    }

    /// Reads into a buffer of the loop, which is borrowed only once the read is tried: whoever waits has
    /// none.
    pub(crate) fn poll_read_lent<'a>(&self, asker: impl Into<Asker<'a>>) -> Poll<io::Result<Lent>> {
        self.poll_read_lent_part(asker, Lent::SIZE)
    }

    /// [`poll_read_lent`](Registered::poll_read_lent) of at most `most` bytes.
    pub(crate) fn poll_read_lent_part<'a>(
        &self,
        asker: impl Into<Asker<'a>>,
        most: usize,
    ) -> Poll<io::Result<Lent>> {
        let mut lent = None;
        let most = most.min(Lent::SIZE);
        let polled = self.poll_transfer(asker, Direction::Read, most, |source| {
            source.read(&mut lent.get_or_insert_with(Lent::borrow).whole()[..most])
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
        let count = bufs.len().min(IOV_MAX);
        self.try_io(Direction::Read, |source| source.read_vectored(&mut bufs[..count]))
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
