//! Which sockets are ready: turns the selector's edges into levels.
//!
//! A socket is registered with the selector once, for both directions, and *edge-triggered*: the selector
//! reports that the socket has become readable, and does not report it again until new bytes arrive. A
//! reader may stop with bytes unread, though (Tornado's flow control does), and will want them later without
//! any new event. So this table remembers what was reported: a direction is *ready* from the event on until
//! a system call has proved that the kernel has nothing left (it was *drained*). As long as a direction is
//! ready, an operation is simply tried; only when it is not does anybody wait. So waiting costs no system
//! call, as it would if the socket had to be registered each time.
//!
//! # What a direction goes through
//!
//! The table has a [`Side`] for each direction of each socket.
//!
//! | what happens | `ready` | `closed` | those who wait |
//! | --- | --- | --- | --- |
//! | the socket is registered | set if the caller says that a try is worth it | | |
//! | event: bytes, or room to write | set | | are woken |
//! | event: end of the stream, error, urgent data | set | set | are woken |
//! | somebody asks, and it is ready | cleared if asked with [`Until::ReadyOnce`] | | |
//! | somebody asks, and it is not ready | | | one more |
//! | the operation has not drained the socket after all: [`again`](Readiness::again) | set | | |
//! | a short read or write that proves it drained: [`drained`](Readiness::drained) | cleared | | |
//! | the system says `WouldBlock`: [`would_block`](Readiness::would_block) | cleared | cleared | |
//! | a future that waits is dropped: [`leave`](Readiness::leave) | | | one less |
//!
//! # What proves that a socket is drained
//!
//! `WouldBlock` always does. For a TCP stream, so does a read or write that moves fewer bytes than it was
//! asked to, which saves the call that would only say `WouldBlock`; but only on selectors that report every
//! new edge (epoll, kqueue).
//!
//! Such a short read must not hide two things whose edge may have come together with the bytes that were
//! read, because no other edge will follow: the end of the stream, and TCP's urgent data, before which a read
//! stops although more is there. So they set `closed`, which a short read leaves alone, and a direction that
//! is `closed` counts as ready.
//!
//! # Who waits
//!
//! Nearly always it is a coroutine of this loop, whose waker is a [word](crate::ground::word). A side has
//! room for two such words, for the two [ways](By) of waiting: nothing is allocated or cloned. Any other
//! waiter is in a box of [`OtherWaiters`], which hardly any socket has.
//!
//! A token of the selector is the packed key of a slot in this table, so an event for a socket that was
//! closed earlier in the same batch of events finds nothing. This is the only file that reads mio's events.

use std::cell::Cell;
use std::task::Waker;

use mio::event::Event;

use crate::ground::slots::{Full, Key, Slots};
use crate::ground::waker::{waker, word_of};

/// The two directions of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    Read = 0,
    Write = 1,
}

/// Whether a short read or write proves that a TCP stream is drained. On poll(2) it does not, because there
/// mio reports a socket again only after it has seen `WouldBlock`.
pub(crate) const SHORT_IS_DRAINED: bool = cfg!(not(mio_unsupported_force_poll_poll));

/// What the table knows of a socket: one side for each [`Direction`].
#[derive(Debug, Default)]
struct Sides([Side; 2]);

/// One direction of a socket; what sets and clears its fields is in the module's table.
#[derive(Debug, Default)]
struct Side {
    /// Reading or writing is worth a try.
    ready: bool,
    /// The direction has ended, or has an error, or there is urgent data to read: it counts as ready until
    /// the system says `WouldBlock`.
    closed: bool,
    /// A short read or write proves nothing of this socket, whatever its type.
    short_proves_nothing: bool,
    /// Whether the slot of `poll_word` is to be woken: it waits by a poll function.
    poll_waits: bool,
    /// Whether the slot of `future_word` is to be woken: it awaits the future whose ticket is
    /// `future_ticket`.
    future_waits: bool,
    /// The word of the slot that waits by a poll function, or was the last to do so.
    poll_word: usize,
    /// The word of the slot that awaits a future, or was the last to do so.
    future_word: usize,
    future_ticket: Ticket,
    /// Those who wait and have no word above, which is rare.
    others: Option<Box<OtherWaiters>>,
}

/// Names one wait of one future, for ever: no other wait in the table ever gets the same ticket. A future
/// that is dropped shows its ticket to be taken out. (Its waker could not tell it from the others: several
/// futures of one coroutine wait by the same waker.)
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(crate) struct Ticket(u64);

impl Ticket {
    /// What a future has that does not wait.
    pub(crate) const NONE: Ticket = Ticket(0);
}

/// Those who wait for one direction of a socket, and whose word is not in its [`Side`].
#[derive(Debug, Default)]
struct OtherWaiters {
    /// Who waits by a poll function, with a foreign waker.
    poll: Option<Waker>,
    /// Futures with a foreign waker, and all futures that come while another one waits (several coroutines
    /// in `accept` on one listener).
    futures: Row,
}

impl OtherWaiters {
    fn is_empty(&self) -> bool {
        self.poll.is_none() && self.futures.waiting == 0
    }
}

/// Futures in the order in which they came, which is also the order of their tickets: so one is found by
/// binary search.
#[derive(Debug, Default)]
struct Row {
    /// The waker is `None` where a future has left. At most half of the positions are vacant like that, since
    /// closing the gap each time would move all that stand behind it.
    positions: Vec<(Ticket, Option<Waker>)>,
    /// How many positions are not vacant.
    waiting: usize,
}

/// A row that is longer gives its memory back when it is emptied.
const KEPT_POSITIONS: usize = 64;

impl Row {
    fn push(&mut self, ticket: Ticket, waker: Waker) {
        self.positions.push((ticket, Some(waker)));
        self.waiting += 1;
    }

    fn find(&mut self, ticket: Ticket) -> Option<&mut Option<Waker>> {
        let at = self.positions.binary_search_by_key(&ticket, |(ticket, _)| *ticket).ok()?;
        Some(&mut self.positions[at].1).filter(|waker| waker.is_some())
    }

    fn leave(&mut self, ticket: Ticket) -> Option<Waker> {
        let waker = self.find(ticket)?.take();
        self.waiting -= 1;
        if self.waiting * 2 < self.positions.len() {
            self.positions.retain(|(_, waker)| waker.is_some());
        }
        waker
    }

    fn empty(&mut self, into: &mut Vec<Waker>) {
        self.waiting = 0;
        into.extend(self.positions.drain(..).filter_map(|(_, waker)| waker));
        self.positions.shrink_to(KEPT_POSITIONS);
    }
}

/// What somebody waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Until {
    /// An operation is worth a try: the direction is ready, or it has ended.
    Ready,
    /// The same. But if it is ready, it stops being so at once, on the assumption that the operation which
    /// the caller does next drains the socket. That saves a second look into the table where it nearly
    /// always does. A caller whose operation has not drained the socket says [`again`](Readiness::again);
    /// otherwise what is left would not be noticed until more arrives.
    ReadyOnce,
    /// The direction has ended.
    Closed,
}

/// How somebody waits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum By<'a> {
    /// By a poll function (`poll_read` and the like). It keeps only the waker of the latest call, as the
    /// traits have it that declare such functions.
    Poll,
    /// By a future, which keeps its ticket here, and leaves when it is dropped. Any number of futures wait
    /// at once.
    Future(&'a Cell<Ticket>),
}

/// What the caller of [`Readiness::poll`] has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wait {
    /// Not wait: the operation is worth a try.
    Ready,
    /// Return `Pending`: the waker will be woken.
    Pending,
    /// Clone the waker, which may run foreign code, without holding a borrow, and give the clone to
    /// [`Readiness::wait`]; then return `Pending`.
    GiveWaker,
}

impl Side {
    #[inline]
    fn is_ready(&self, until: Until) -> bool {
        self.closed || (self.ready && until != Until::Closed)
    }

    /// Whether the future that has this ticket waits by the word.
    #[inline]
    fn is_at_word(&self, ticket: Ticket) -> bool {
        self.future_waits && self.future_ticket == ticket
    }

    /// Lets the caller wait, if that takes no clone of its waker; tells whether it waits now.
    /// `last_ticket` is the last ticket that the table has given out.
    // Inlined, this would keep the question whether the socket is ready from being inlined.
    #[inline(never)]
    fn wait_by_word(&mut self, by: By<'_>, waker: &Waker, last_ticket: &mut Ticket) -> bool {
        match (by, word_of(waker), &self.others) {
            (By::Poll, Some(word), None) => {
                self.poll_waits_by(word);
                true
            }
            (By::Future(ticket), Some(word), None) if !self.future_waits => {
                self.future_waits_by(word, ticket, last_ticket);
                true
            }
            _ => self.wait_beside_others(by, waker, last_ticket),
        }
    }

    #[inline]
    fn poll_waits_by(&mut self, word: usize) {
        self.poll_word = word;
        self.poll_waits = true;
    }

    #[inline]
    fn future_waits_by(&mut self, word: usize, ticket: &Cell<Ticket>, last_ticket: &mut Ticket) {
        last_ticket.0 += 1;
        ticket.set(*last_ticket);
        self.future_ticket = *last_ticket;
        self.future_word = word;
        self.future_waits = true;
    }

    /// [`wait_by_word`](Side::wait_by_word) where somebody else waits, or with a foreign waker.
    #[cold]
    fn wait_beside_others(&mut self, by: By<'_>, waker: &Waker, last_ticket: &mut Ticket) -> bool {
        let word = word_of(waker);
        let is_known = |known: &Option<Waker>| known.as_ref().is_some_and(|w| w.will_wake(waker));
        match by {
            By::Poll => {
                let foreign = self.others.as_ref().map_or(&None, |others| &others.poll);
                match word {
                    // The foreign waker of an earlier call has to go: `wait` gives it to the caller to drop.
                    Some(_) if foreign.is_some() => false,
                    Some(word) => {
                        self.poll_waits_by(word);
                        true
                    }
                    None => is_known(foreign),
                }
            }
            By::Future(ticket) => {
                // It waits already, and may have moved to another coroutine since.
                if self.is_at_word(ticket.get()) {
                    self.future_word = word.unwrap_or(self.future_word);
                    return word.is_some();
                }
                let row = self.others.as_mut().map(|others| &mut others.futures);
                match (row, word) {
                    // The word is woken before the row. So a future may take it only if nobody is in the
                    // row, or it would overtake those who have waited longer.
                    (Some(row), _) if row.waiting > 0 => {
                        row.find(ticket.get()).is_some_and(|waker| is_known(waker))
                    }
                    (_, Some(word)) if !self.future_waits => {
                        self.future_waits_by(word, ticket, last_ticket);
                        true
                    }
                    _ => false,
                }
            }
        }
    }

    /// Lets the caller wait by `waker`, where it could not do so by a word alone. Gives back a waker that is
    /// replaced, for the caller to drop when it holds no borrow.
    fn wait_by_waker(
        &mut self,
        by: By<'_>,
        waker: Waker,
        last_ticket: &mut Ticket,
    ) -> Option<Waker> {
        let is_at_word = matches!(by, By::Future(ticket) if self.is_at_word(ticket.get()));
        let others = self.others.get_or_insert_default();
        match by {
            By::Poll => match word_of(&waker) {
                Some(word) => {
                    let foreign = others.poll.take();
                    self.poll_waits_by(word);
                    foreign
                }
                None => {
                    self.poll_waits = false;
                    others.poll.replace(waker)
                }
            },
            By::Future(ticket) => {
                if let Some(known) = others.futures.find(ticket.get()) {
                    return known.replace(waker);
                }
                if is_at_word {
                    self.future_waits = false;
                }
                last_ticket.0 += 1;
                ticket.set(*last_ticket);
                others.futures.push(*last_ticket, waker);
                None
            }
        }
    }

    /// Takes out the future that has this ticket, if it still waits. Gives back its waker, for the caller to
    /// drop when it holds no borrow.
    fn leave(&mut self, ticket: Ticket) -> Option<Waker> {
        if self.is_at_word(ticket) {
            self.future_waits = false;
            return None;
        }
        self.others.as_mut()?.futures.leave(ticket)
    }

    fn is_awaited(&self) -> bool {
        let others = self.others.as_ref();
        self.poll_waits || self.future_waits || others.is_some_and(|others| !others.is_empty())
    }

    /// Wakes all who wait, once. `wake` gets the words, and says whether the slot is one of this loop, which
    /// it has woken then. The wakers of all others are put into `later`.
    // An event of a socket that can be written to reports both directions, so this is called twice for each.
    #[inline(always)]
    fn wake(&mut self, wake: &mut impl FnMut(usize) -> bool, later: &mut Vec<Waker>) {
        // The words stay, since it is most often the same slot that waits next.
        if std::mem::take(&mut self.poll_waits) && !wake(self.poll_word) {
            later.push(waker(self.poll_word));
        }
        if std::mem::take(&mut self.future_waits) && !wake(self.future_word) {
            later.push(waker(self.future_word));
        }
        if self.others.is_some() {
            self.wake_others(later);
        }
    }

    #[cold]
    fn wake_others(&mut self, later: &mut Vec<Waker>) {
        let Some(others) = &mut self.others else { return };
        later.extend(others.poll.take());
        others.futures.empty(later);
    }
}

impl Sides {
    #[inline]
    fn of(&mut self, direction: Direction) -> &mut Side {
        &mut self.0[direction as usize]
    }
}

/// What has happened to the fd of a handler since the handler was last told.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Happened {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    pub(crate) error: bool,
}

/// The table of sockets.
#[derive(Debug)]
pub(crate) struct Readiness {
    sockets: Slots<Sides, true>,
    /// The last ticket that was given out.
    last_ticket: Ticket,
}

impl Readiness {
    pub(crate) fn new() -> Readiness {
        Readiness { sockets: Slots::new(), last_ticket: Ticket::NONE }
    }

    /// A slot for a socket. The directions in `ready` count as ready from the start, so that they are tried
    /// rather than waited for.
    pub(crate) fn insert(&mut self, ready: &[Direction]) -> Result<Key, Full> {
        let mut sides = Sides::default();
        for &direction in ready {
            sides.of(direction).ready = true;
        }
        self.sockets.insert(sides)
    }

    /// Forgets a socket, and puts the wakers of all who wait for it into `woken`. The caller wakes them when
    /// it holds no borrow; they find the socket gone.
    pub(crate) fn remove(&mut self, key: Key, woken: &mut Vec<Waker>) {
        if let Some(mut sides) = self.sockets.remove(key) {
            for side in &mut sides.0 {
                side.wake(&mut |_| false, woken);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.sockets.len()
    }

    /// Whether the socket is ready; if not, the caller waits, and `waker` is woken when it is. `None` if the
    /// socket is not in this table, because its loop was closed.
    #[inline]
    pub(crate) fn poll(
        &mut self,
        key: Key,
        direction: Direction,
        until: Until,
        by: By<'_>,
        waker: &Waker,
    ) -> Option<Wait> {
        let side = self.sockets.get_mut(key)?.of(direction);
        if side.is_ready(until) {
            if until == Until::ReadyOnce && !side.short_proves_nothing {
                side.ready = false;
            }
            return Some(Wait::Ready);
        }
        let waits = side.wait_by_word(by, waker, &mut self.last_ticket);
        Some(if waits { Wait::Pending } else { Wait::GiveWaker })
    }

    /// Wakes `waker` when the socket is ready: the second step, after [`Wait::GiveWaker`]. Gives back a waker
    /// that is replaced, for the caller to drop when it holds no borrow.
    pub(crate) fn wait(
        &mut self,
        key: Key,
        direction: Direction,
        by: By<'_>,
        waker: Waker,
    ) -> Option<Waker> {
        let side = self.sockets.get_mut(key)?.of(direction);
        side.wait_by_waker(by, waker, &mut self.last_ticket)
    }

    /// Whether the socket is ready, or has ended; also if it is gone.
    pub(crate) fn is_ready(&self, key: Key, direction: Direction, until: Until) -> bool {
        self.sockets.get(key).is_none_or(|socket| socket.0[direction as usize].is_ready(until))
    }

    /// A future is dropped that waits: it is not woken any more. Gives back its waker, for the caller to drop
    /// when it holds no borrow.
    pub(crate) fn leave(
        &mut self,
        key: Key,
        direction: Direction,
        ticket: Ticket,
    ) -> Option<Waker> {
        self.sockets.get_mut(key)?.of(direction).leave(ticket)
    }

    /// Whether anybody waits for the socket; `None` if it is not in this table any more.
    pub(crate) fn is_awaited(&self, key: Key) -> Option<bool> {
        Some(self.sockets.get(key)?.0.iter().any(Side::is_awaited))
    }

    /// The operation that was done after [`Until::ReadyOnce`] has not drained the socket: it is ready still.
    pub(crate) fn again(&mut self, key: Key, direction: Direction) {
        if let Some(sides) = self.sockets.get_mut(key) {
            sides.of(direction).ready = true;
        }
    }

    /// A short read or write has drained the socket for now.
    pub(crate) fn drained(&mut self, key: Key, direction: Direction) {
        if let Some(sides) = self.sockets.get_mut(key) {
            let side = sides.of(direction);
            if !side.short_proves_nothing {
                side.ready = false;
            }
        }
    }

    /// From now on, a short read or write of this socket proves nothing: [`Until::ReadyOnce`] and
    /// [`drained`](Readiness::drained) leave it ready, and only `WouldBlock` counts.
    pub(crate) fn short_proves_nothing(&mut self, key: Key) {
        if let Some(sides) = self.sockets.get_mut(key) {
            for side in &mut sides.0 {
                side.short_proves_nothing = true;
            }
        }
    }

    /// The system has said `WouldBlock`: there is nothing to read or no room to write, and no end either.
    pub(crate) fn would_block(&mut self, key: Key, direction: Direction) {
        if let Some(sides) = self.sockets.get_mut(key) {
            let side = sides.of(direction);
            (side.ready, side.closed) = (false, false);
        }
    }

    /// Tells a handler what has happened to its fd, and forgets it: after each call of a handler its fd is
    /// registered anew, so the selector reports again what still holds. The next event wakes the slot of
    /// `word`.
    pub(crate) fn take_happened(&mut self, key: Key, word: usize) -> Option<Happened> {
        let [read, write] = &mut self.sockets.get_mut(key)?.0;
        let happened =
            Happened { readable: read.ready, writable: write.ready, error: write.closed };
        for side in [read, write] {
            (side.ready, side.closed) = (false, false);
            side.poll_waits_by(word);
        }
        Some(happened)
    }

    /// Notes an event, and wakes those who waited for it. `wake` gets the words of slots, runs no foreign
    /// code, and says whether the slot is one of this loop. The wakers of all others are put into `later`,
    /// for the caller to wake when it holds no borrow.
    pub(crate) fn on_event(
        &mut self,
        event: &Event,
        wake: &mut impl FnMut(usize) -> bool,
        later: &mut Vec<Waker>,
    ) {
        let Some(sides) = self.sockets.get_mut(Key::unpack(event.token().0)) else { return };
        let [read, write] = &mut sides.0;
        // An error ends the waiting in both directions: the next operation on the socket gets it.
        let error = event.is_error() || is_closed_fd(event);
        let read_closed = error || event.is_read_closed() || event.is_priority();
        let write_closed = error || event.is_write_closed();
        if read_closed || event.is_readable() {
            read.ready = true;
            read.closed |= read_closed;
            read.wake(wake, later);
        }
        if write_closed || event.is_writable() {
            write.ready = true;
            write.closed |= write_closed;
            write.wake(wake, later);
        }
    }
}

/// Whether poll(2) reports that the fd is closed. mio has no name for that report (`POLLNVAL`), which is the
/// one event that is nothing else. (epoll and kqueue forget such an fd, and report nothing.)
fn is_closed_fd(event: &Event) -> bool {
    cfg!(mio_unsupported_force_poll_poll)
        && !(event.is_readable()
            || event.is_writable()
            || event.is_priority()
            || event.is_read_closed()
            || event.is_write_closed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Read, Write};

    fn table() -> (Readiness, Key) {
        let mut readiness = Readiness::new();
        let key = readiness.insert(&[Read]).unwrap();
        (readiness, key)
    }

    /// Wakers of slots, and foreign ones.
    fn both_kinds(n: usize) -> [Vec<Waker>; 2] {
        let foreign = || waker_fn::waker_fn(|| ());
        [(1..=n).map(waker).collect(), (0..n).map(|_| foreign()).collect()]
    }

    fn same(woken: &[Waker], expected: &[&Waker]) -> bool {
        woken.len() == expected.len()
            && woken.iter().zip(expected).all(|(woken, expected)| woken.will_wake(expected))
    }

    /// Asks and waits, as sockets do.
    fn ask(
        readiness: &mut Readiness,
        key: Key,
        direction: Direction,
        by: By<'_>,
        waker: &Waker,
    ) -> Wait {
        let wait = readiness.poll(key, direction, Until::Ready, by, waker).unwrap();
        if wait == Wait::GiveWaker {
            readiness.wait(key, direction, by, waker.clone());
        }
        wait
    }

    fn woken(readiness: &mut Readiness, key: Key, direction: Direction) -> Vec<Waker> {
        let mut woken = Vec::new();
        readiness.sockets.get_mut(key).unwrap().of(direction).wake(&mut |_| false, &mut woken);
        woken
    }

    /// A future's ticket.
    fn ticket() -> Cell<Ticket> {
        Cell::new(Ticket::NONE)
    }

    #[test]
    fn a_slot_waits_again_by_its_word_until_another_slot_takes_over() {
        let (mut readiness, key) = table();
        readiness.drained(key, Read);
        let mut woken = Vec::new();
        for word in [7, 7, 8] {
            let ticket = ticket();
            let by = By::Future(&ticket);
            assert_eq!(ask(&mut readiness, key, Read, by, &waker(word)), Wait::Pending);
            let side = readiness.sockets.get_mut(key).unwrap().of(Read);
            for _ in 0..2 {
                let wake = &mut |word| {
                    woken.push(word);
                    true
                };
                side.wake(wake, &mut Vec::new());
            }
        }
        assert_eq!(woken, [7, 7, 8], "once each time");
    }

    #[test]
    fn a_socket_stays_ready_until_it_is_drained() {
        let (mut readiness, key) = table();
        for _ in 0..2 {
            assert_eq!(ask(&mut readiness, key, Read, By::Poll, Waker::noop()), Wait::Ready);
        }
        readiness.drained(key, Read);
        assert_eq!(ask(&mut readiness, key, Read, By::Poll, Waker::noop()), Wait::GiveWaker);
        assert_eq!(ask(&mut readiness, key, Write, By::Poll, Waker::noop()), Wait::GiveWaker);
    }

    #[test]
    fn an_operation_is_assumed_to_drain_the_socket_until_it_says_otherwise() {
        let (mut readiness, key) = table();
        let poll = |readiness: &mut Readiness, until| {
            readiness.poll(key, Read, until, By::Poll, &waker(1)) == Some(Wait::Ready)
        };
        assert!(poll(&mut readiness, Until::ReadyOnce));
        assert!(!poll(&mut readiness, Until::ReadyOnce));
        readiness.again(key, Read);
        assert!(!poll(&mut readiness, Until::Closed));
        assert!(poll(&mut readiness, Until::Ready) && poll(&mut readiness, Until::Ready));
    }

    #[test]
    fn a_socket_whose_short_reads_prove_nothing_stays_ready_until_would_block() {
        let (mut readiness, key) = table();
        readiness.short_proves_nothing(key);
        readiness.short_proves_nothing(key);
        for is_again in [false, false, true, true] {
            let wait = readiness.poll(key, Read, Until::ReadyOnce, By::Poll, &waker(1));
            assert_eq!(wait, Some(Wait::Ready));
            match is_again {
                false => readiness.drained(key, Read),
                true => readiness.again(key, Read),
            }
        }
        assert_eq!(ask(&mut readiness, key, Read, By::Poll, &waker(1)), Wait::Ready);
        readiness.would_block(key, Read);
        assert_eq!(ask(&mut readiness, key, Read, By::Poll, &waker(1)), Wait::Pending);
    }

    #[test]
    fn the_end_of_the_stream_survives_a_short_read_but_not_would_block() {
        let (mut readiness, key) = table();
        readiness.sockets.get_mut(key).unwrap().of(Read).closed = true;
        readiness.drained(key, Read);
        assert_eq!(ask(&mut readiness, key, Read, By::Poll, Waker::noop()), Wait::Ready);
        readiness.would_block(key, Read);
        assert_eq!(ask(&mut readiness, key, Read, By::Poll, Waker::noop()), Wait::GiveWaker);
    }

    #[test]
    fn every_future_that_waits_is_kept_once_and_woken_in_order() {
        for wakers in both_kinds(3) {
            let (mut readiness, key) = table();
            readiness.drained(key, Read);
            let tickets = [(); 4].map(|()| ticket());
            for (waker, ticket) in wakers.iter().zip(&tickets) {
                let wait = ask(&mut readiness, key, Read, By::Future(ticket), waker);
                assert_ne!(wait, Wait::Ready);
            }
            for (waker, ticket) in wakers.iter().zip(&tickets) {
                let wait = ask(&mut readiness, key, Read, By::Future(ticket), waker);
                assert_eq!(wait, Wait::Pending);
            }
            ask(&mut readiness, key, Write, By::Future(&tickets[3]), &wakers[0]);
            let got = woken(&mut readiness, key, Read);
            assert!(same(&got, &[&wakers[0], &wakers[1], &wakers[2]]));
            let mut rest = Vec::new();
            readiness.remove(key, &mut rest);
            assert!(same(&rest, &[&wakers[0]]));
            let by = By::Future(&tickets[0]);
            assert_eq!(readiness.poll(key, Read, Until::Ready, by, &wakers[0]), None);
        }
    }

    #[test]
    fn of_several_that_poll_the_last_one_is_woken_and_so_are_all_futures() {
        for wakers in both_kinds(3) {
            let (mut readiness, key) = table();
            readiness.drained(key, Read);
            let ticket = ticket();
            ask(&mut readiness, key, Read, By::Poll, &wakers[0]);
            ask(&mut readiness, key, Read, By::Future(&ticket), &wakers[1]);
            ask(&mut readiness, key, Read, By::Poll, &wakers[2]);
            assert!(same(&woken(&mut readiness, key, Read), &[&wakers[2], &wakers[1]]));
        }
    }

    #[test]
    fn a_slot_and_a_foreign_waker_that_poll_replace_each_other() {
        let [slots, foreign] = both_kinds(2);
        let turns = [&slots[0], &foreign[0], &slots[0], &foreign[1], &foreign[1], &slots[1]];
        for last in 1..=turns.len() {
            let (mut readiness, key) = table();
            readiness.drained(key, Read);
            for waker in &turns[..last] {
                ask(&mut readiness, key, Read, By::Poll, waker);
            }
            assert!(same(&woken(&mut readiness, key, Read), &[turns[last - 1]]), "{last}");
        }
    }

    /// A future may change its waker while it waits, from a word to a foreign one and back, with other
    /// futures before or behind it.
    #[test]
    fn of_the_wakers_of_one_future_the_last_one_is_woken() {
        let [slots, foreign] = both_kinds(3);
        let turns = [&slots[0], &foreign[0], &slots[1], &foreign[1], &foreign[2], &slots[0]];
        for last in 1..=turns.len() {
            for others in [[None, None], [Some(&slots[2]), None], [None, Some(&slots[2])]] {
                let (mut readiness, key) = table();
                readiness.drained(key, Read);
                let tickets = [(); 3].map(|()| ticket());
                let other = |readiness: &mut Readiness, n: usize| {
                    if let Some(other) = others[n] {
                        ask(readiness, key, Read, By::Future(&tickets[n]), other);
                    }
                };
                other(&mut readiness, 0);
                for (n, waker) in turns[..last].iter().enumerate() {
                    ask(&mut readiness, key, Read, By::Future(&tickets[2]), waker);
                    if n == 0 {
                        other(&mut readiness, 1);
                    }
                }
                let got = woken(&mut readiness, key, Read);
                let beside = others.into_iter().flatten().count();
                let is = |waker: &Waker| got.iter().filter(|w| w.will_wake(waker)).count();
                assert_eq!((got.len(), is(turns[last - 1])), (1 + beside, 1), "{last} {others:?}");
                assert_eq!(is(&slots[2]), beside);
            }
        }
    }

    #[test]
    fn who_asks_again_by_another_slot_is_woken_by_that_whoever_waits_beside() {
        let [slots, foreign] = both_kinds(3);
        for direction in [Read, Write] {
            for beside in [None, Some(&slots[2]), Some(&foreign[2])] {
                let (mut readiness, key) = table();
                readiness.drained(key, Read);
                let [future, other] = [ticket(), ticket()];
                for slot in [&slots[0], &slots[0], &slots[1], &slots[1]] {
                    ask(&mut readiness, key, direction, By::Future(&future), slot);
                    ask(&mut readiness, key, direction, By::Poll, slot);
                    if let Some(beside) = beside {
                        ask(&mut readiness, key, direction, By::Future(&other), beside);
                    }
                }
                let expected: Vec<_> = [&slots[1], &slots[1]].into_iter().chain(beside).collect();
                assert!(same(&woken(&mut readiness, key, direction), &expected));
            }
        }
    }

    #[test]
    fn a_future_that_is_dropped_takes_out_itself_and_nobody_else() {
        for mut wakers in both_kinds(3) {
            // The second waits by the waker of the first, as those of one task do.
            wakers[1] = wakers[0].clone();
            for gone in 0..3 {
                let (mut readiness, key) = table();
                readiness.drained(key, Read);
                let tickets = [(); 3].map(|()| ticket());
                for (waker, ticket) in wakers.iter().zip(&tickets) {
                    ask(&mut readiness, key, Read, By::Future(ticket), waker);
                }
                for _ in 0..2 {
                    readiness.leave(key, Read, tickets[gone].get());
                    readiness.leave(key, Write, tickets[(gone + 1) % 3].get());
                }
                let mut left: Vec<_> = wakers.iter().collect();
                left.remove(gone);
                assert!(same(&woken(&mut readiness, key, Read), &left), "{gone}");
                // When the same futures wait again, they get other tickets: the old ones find nobody.
                let old = tickets[1].get();
                for (waker, ticket) in wakers.iter().zip(&tickets) {
                    ask(&mut readiness, key, Read, By::Future(ticket), waker);
                }
                readiness.leave(key, Read, old);
                assert_eq!(woken(&mut readiness, key, Read).len(), 3);
            }
        }
    }

    #[test]
    fn a_socket_is_awaited_as_long_as_anybody_waits_by_whatever_waker() {
        for wakers in both_kinds(2) {
            let (mut readiness, key) = table();
            readiness.drained(key, Read);
            assert_eq!(readiness.is_awaited(key), Some(false));
            let ticket = ticket();
            ask(&mut readiness, key, Read, By::Future(&ticket), &wakers[0]);
            assert_eq!(readiness.is_awaited(key), Some(true));
            readiness.leave(key, Read, ticket.get());
            assert_eq!(readiness.is_awaited(key), Some(false));
            ask(&mut readiness, key, Write, By::Poll, &wakers[1]);
            assert_eq!(readiness.is_awaited(key), Some(true));
            woken(&mut readiness, key, Write);
            assert_eq!(readiness.is_awaited(key), Some(false));
            readiness.remove(key, &mut Vec::new());
            assert_eq!(readiness.is_awaited(key), None);
        }
    }

    #[test]
    fn a_row_that_many_have_left_keeps_few_vacant_positions() {
        let mut row = Row::default();
        for n in 1..=1000 {
            row.push(Ticket(n), Waker::noop().clone());
        }
        // The waiters that are left are not moved each time that one leaves.
        for n in (10..=1000).step_by(20) {
            assert!(row.leave(Ticket(n)).is_some());
        }
        assert_eq!((row.waiting, row.positions.len()), (950, 1000));
        for n in (10..=1000).step_by(20) {
            assert!(row.leave(Ticket(n)).is_none());
        }
        for n in (1..=1000).filter(|n| n % 10 != 0) {
            assert!(row.leave(Ticket(n)).is_some() && row.leave(Ticket(n)).is_none());
        }
        assert!(row.waiting == 50 && row.positions.len() <= 100, "{}", row.positions.len());
        let mut woken = Vec::new();
        row.empty(&mut woken);
        assert!(woken.len() == 50 && row.positions.capacity() <= KEPT_POSITIONS);
        assert_eq!((row.waiting, row.positions.len()), (0, 0));
    }
}
