//! Which sockets are ready: turns the selector's edges into levels.
//!
//! A socket is registered once, edge-triggered, for both directions. Each has a slot here with a
//! bit a direction and the wakers of who waits for it. An event sets bits and wakes who waits; a bit
//! stays set until a system call proves that the kernel has nothing left, so nobody who stops
//! reading early (Tornado's flow control) loses an edge, and waiting costs no `epoll_ctl`.
//!
//! What proves it is `EAGAIN`, or for TCP, on selectors that report every new edge (epoll, kqueue),
//! also a short read or write. Two things must survive such a proof, for their edge may have come together
//! with the bytes that were read, and no other will follow: the end of the stream, and TCP's urgent
//! data, before which a read stops although more is there. So `closed` bits stay until `EAGAIN`
//! itself.
//!
//! A token is the packed key of a slot: an event for a socket closed earlier in the same batch
//! finds nothing. This is the only file that reads mio's events.

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

/// A short read or write proves the socket drained: not so on poll(2), where mio arms a socket again
/// only when it sees `EAGAIN`.
pub(crate) const SHORT_IS_DRAINED: bool = cfg!(not(mio_unsupported_force_poll_poll));

/// Bits by direction: ready, and closed (or urgent), of which ready follows until `EAGAIN`.
const READY: [u8; 2] = [1, 2];
const CLOSED: [u8; 2] = [4, 8];
/// The fd is in an error state (for handlers, which are told).
const ERROR: u8 = 16;
/// Its reads may end early though more is there.
const PARTIAL: u8 = 32;

#[derive(Debug, Default)]
struct Source {
    bits: u8,
    /// Which of the words below are to be woken: a bit each, the first one lowest.
    armed: u8,
    /// The words of the slots that ask by a poll function to read, and to write; that await a future of
    /// each. A word stays when it was woken, as it is most often the same slot that waits next.
    words: [usize; 4],
    /// Which futures those of the words are.
    tickets: [Ticket; 2],
    /// Who else waits, which is rare.
    others: Option<Box<Others>>,
}

/// Names one wait of one future in a table, for ever: a future that is dropped takes itself out by it,
/// and nobody else, whatever wakers the others wait by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(crate) struct Ticket(u64);

impl Ticket {
    /// Of a future that does not wait.
    pub(crate) const NONE: Ticket = Ticket(0);
}

/// Who waits for a socket and has no word in it; two of each, by direction.
#[derive(Debug, Default)]
struct Others {
    /// Who asks by a poll function, with a waker that is not a slot's.
    polls: [Option<Waker>; 2],
    /// The futures beside one that has its word in the source, and those with wakers that are not
    /// slots' (several coroutines in `accept` on one listener).
    futures: [Row; 2],
}

impl Others {
    fn is_awaited(&self) -> bool {
        let waits = |row: &Row| row.places.iter().any(|(_, waker)| waker.is_some());
        self.polls.iter().any(Option::is_some) || self.futures.iter().any(waits)
    }
}

/// Futures in the order in which they came, which is that of their tickets.
#[derive(Debug, Default)]
struct Row {
    /// `None` where one has left; at most every second place is empty.
    places: Vec<(Ticket, Option<Waker>)>,
    taken: usize,
}

/// A row that is longer gives its memory back when it is emptied.
const KEPT_PLACES: usize = 64;

impl Row {
    fn push(&mut self, ticket: Ticket, waker: Waker) {
        self.places.push((ticket, Some(waker)));
        self.taken += 1;
    }

    fn find(&mut self, ticket: Ticket) -> Option<&mut Option<Waker>> {
        let at = self.places.binary_search_by_key(&ticket, |(ticket, _)| *ticket).ok()?;
        Some(&mut self.places[at].1).filter(|place| place.is_some())
    }

    fn leave(&mut self, ticket: Ticket) -> Option<Waker> {
        let waker = self.find(ticket)?.take();
        self.taken -= 1;
        if self.taken * 2 < self.places.len() {
            self.places.retain(|(_, waker)| waker.is_some());
        }
        waker
    }

    fn empty(&mut self, into: &mut Vec<Waker>) {
        self.taken = 0;
        into.extend(self.places.drain(..).filter_map(|(_, waker)| waker));
        self.places.shrink_to(KEPT_PLACES);
    }
}

/// What somebody waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Until {
    /// Something can be done, or the direction has ended.
    Ready,
    /// The same, and what is done next is taken to drain the socket, which saves a look into the table
    /// where it nearly always does. If it did not, there is more: [`again`](Readiness::again).
    ReadyOnce,
    /// It has ended.
    Closed,
}

/// How somebody waits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum By<'a> {
    /// By a poll function: one at a time, the last one, as those traits have it.
    Poll,
    /// By a future, which keeps its ticket here, and leaves when it is dropped.
    Future(&'a Cell<Ticket>),
}

/// The answer to who asks for readiness.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wait {
    /// No need to.
    Ready,
    /// The waker is known.
    Known,
    /// It is not: let it [`wait`](Readiness::wait).
    Unknown,
}

/// The bits of the words by direction: of who asks by a poll function, of who awaits a future, of both.
const POLL: [u8; 2] = [0b0001, 0b0010];
const FUTURE: [u8; 2] = [0b0100, 0b1000];
const WORDS: [u8; 2] = [0b0101, 0b1010];

impl Source {
    #[inline]
    fn is_ready(&self, direction: Direction, until: Until) -> bool {
        let ready = if until == Until::Closed { 0 } else { READY[direction as usize] };
        self.bits & (ready | CLOSED[direction as usize]) != 0
    }

    /// Is the future's word armed?
    #[inline]
    fn is_armed(&self, direction: Direction, ticket: Ticket) -> bool {
        self.armed & FUTURE[direction as usize] != 0 && self.tickets[direction as usize] == ticket
    }

    /// Lets the waker be woken, if that takes no clone of it; tells whether that is so. `last` is the
    /// last ticket that was given out.
    // Inlined, it would keep the look whether the socket is ready from being inlined.
    #[inline(never)]
    fn arm(&mut self, direction: Direction, by: By<'_>, waker: &Waker, last: &mut Ticket) -> bool {
        let at = direction as usize;
        match (by, word_of(waker), &self.others) {
            (By::Poll, Some(word), None) => {
                self.words[at] = word;
                self.armed |= POLL[at];
                true
            }
            (By::Future(_), Some(word), None) if self.armed & FUTURE[at] == 0 => {
                self.arm_future(direction, by, word, last);
                true
            }
            _ => self.arm_rarely(direction, by, waker, last),
        }
    }

    #[inline]
    fn arm_future(&mut self, direction: Direction, by: By<'_>, word: usize, last: &mut Ticket) {
        let By::Future(ticket) = by else { return };
        let at = direction as usize;
        last.0 += 1;
        ticket.set(*last);
        self.tickets[at] = *last;
        self.words[2 + at] = word;
        self.armed |= FUTURE[at];
    }

    /// [`arm`](Source::arm) where somebody else waits, or by a waker that is not a slot's.
    #[cold]
    fn arm_rarely(
        &mut self,
        direction: Direction,
        by: By<'_>,
        waker: &Waker,
        last: &mut Ticket,
    ) -> bool {
        let at = direction as usize;
        let word = word_of(waker);
        let known = |known: &Option<Waker>| known.as_ref().is_some_and(|w| w.will_wake(waker));
        match by {
            By::Poll => {
                let foreign = self.others.as_ref().map_or(&None, |others| &others.polls[at]);
                match word {
                    // The foreign waker has to go.
                    Some(_) if foreign.is_some() => false,
                    Some(word) => {
                        self.words[at] = word;
                        self.armed |= POLL[at];
                        true
                    }
                    None => known(foreign),
                }
            }
            By::Future(ticket) => {
                if self.is_armed(direction, ticket.get()) {
                    self.words[2 + at] = word.unwrap_or(self.words[2 + at]);
                    return word.is_some();
                }
                let row = self.others.as_mut().map(|others| &mut others.futures[at]);
                match (row, word) {
                    // First in, first out: the word is only for who finds nobody waiting.
                    (Some(row), _) if row.taken > 0 => {
                        row.find(ticket.get()).is_some_and(|w| known(w))
                    }
                    (_, Some(word)) if self.armed & FUTURE[at] == 0 => {
                        self.arm_future(direction, by, word, last);
                        true
                    }
                    _ => false,
                }
            }
        }
    }

    /// Puts a waker down that could not be armed, and gives back the one whose place it takes.
    fn wait(
        &mut self,
        direction: Direction,
        by: By<'_>,
        waker: Waker,
        last: &mut Ticket,
    ) -> Option<Waker> {
        let at = direction as usize;
        let is_armed = matches!(by, By::Future(ticket) if self.is_armed(direction, ticket.get()));
        let others = self.others.get_or_insert_default();
        match by {
            By::Poll => match word_of(&waker) {
                Some(word) => {
                    self.words[at] = word;
                    self.armed |= POLL[at];
                    others.polls[at].take()
                }
                None => {
                    self.armed &= !POLL[at];
                    others.polls[at].replace(waker)
                }
            },
            By::Future(ticket) => {
                if let Some(place) = others.futures[at].find(ticket.get()) {
                    return place.replace(waker);
                }
                if is_armed {
                    self.armed &= !FUTURE[at];
                }
                last.0 += 1;
                ticket.set(*last);
                others.futures[at].push(*last, waker);
                None
            }
        }
    }

    /// Takes out a future, if it is still to be woken; the caller drops its waker.
    fn leave(&mut self, direction: Direction, ticket: Ticket) -> Option<Waker> {
        if self.is_armed(direction, ticket) {
            self.armed &= !FUTURE[direction as usize];
            return None;
        }
        self.others.as_mut()?.futures[direction as usize].leave(ticket)
    }

    /// Wakes who waits for the directions whose `WORDS` these are: slots by `wake`, if that can.
    #[inline]
    fn wake(&mut self, words: u8, wake: &mut impl FnMut(usize) -> bool, later: &mut Vec<Waker>) {
        let mut due = self.armed & words;
        self.armed &= !words;
        while due != 0 {
            let word = self.words[due.trailing_zeros() as usize % 4];
            due &= due - 1;
            if !wake(word) {
                later.push(waker(word));
            }
        }
        if self.others.is_some() {
            self.wake_others(words, later);
        }
    }

    #[cold]
    fn wake_others(&mut self, words: u8, later: &mut Vec<Waker>) {
        let Some(others) = &mut self.others else { return };
        for (at, direction) in WORDS.into_iter().enumerate() {
            if words & direction != 0 {
                later.extend(others.polls[at].take());
                others.futures[at].empty(later);
            }
        }
    }
}

/// What a handler is told: the bits since it was last told.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Taken {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    pub(crate) error: bool,
}

/// The table of sockets.
#[derive(Debug)]
pub(crate) struct Readiness {
    sources: Slots<Source, true>,
    /// The last ticket that was given out.
    last: Ticket,
}

impl Readiness {
    pub(crate) fn new() -> Readiness {
        Readiness { sources: Slots::new(), last: Ticket::NONE }
    }

    /// A slot for a socket; what is `ready` is tried at once rather than waited for.
    pub(crate) fn insert(&mut self, ready: &[Direction]) -> Result<Key, Full> {
        let bits = ready.iter().fold(0, |bits, &direction| bits | READY[direction as usize]);
        self.sources.insert(Source { bits, ..Source::default() })
    }

    /// Forgets a socket. Who waited for it is to be woken, to find it gone.
    pub(crate) fn remove(&mut self, key: Key, woken: &mut Vec<Waker>) {
        if let Some(mut source) = self.sources.remove(key) {
            source.wake(WORDS[0] | WORDS[1], &mut |_| false, woken);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.sources.len()
    }

    /// Is the socket ready, or else: is this waker woken when it is? `None` if it is not in this
    /// table: its loop was closed.
    #[inline]
    pub(crate) fn poll(
        &mut self,
        key: Key,
        direction: Direction,
        until: Until,
        by: By<'_>,
        waker: &Waker,
    ) -> Option<Wait> {
        let source = self.sources.get_mut(key)?;
        if source.is_ready(direction, until) {
            if until == Until::ReadyOnce && source.bits & PARTIAL == 0 {
                source.bits &= !READY[direction as usize];
            }
            return Some(Wait::Ready);
        }
        let known = source.arm(direction, by, waker, &mut self.last);
        Some(if known { Wait::Known } else { Wait::Unknown })
    }

    /// Wakes `waker`, which is not known, when the socket is ready. Gives back what the caller is to
    /// drop.
    pub(crate) fn wait(
        &mut self,
        key: Key,
        direction: Direction,
        by: By<'_>,
        waker: Waker,
    ) -> Option<Waker> {
        self.sources.get_mut(key)?.wait(direction, by, waker, &mut self.last)
    }

    /// A future that waits is dropped; so is its waker by the caller, when it holds no borrow.
    pub(crate) fn leave(
        &mut self,
        key: Key,
        direction: Direction,
        ticket: Ticket,
    ) -> Option<Waker> {
        self.sources.get_mut(key)?.leave(direction, ticket)
    }

    /// Whether anybody waits for the socket; nothing if it is gone.
    pub(crate) fn is_awaited(&self, key: Key) -> Option<bool> {
        let source = self.sources.get(key)?;
        Some(source.armed != 0 || source.others.as_ref().is_some_and(|others| others.is_awaited()))
    }

    /// What was done after [`ReadyOnce`](Until::ReadyOnce) has not drained the socket.
    pub(crate) fn again(&mut self, key: Key, direction: Direction) {
        if let Some(source) = self.sources.get_mut(key) {
            source.bits |= READY[direction as usize];
        }
    }

    /// A short read or write has drained the socket for now.
    pub(crate) fn drained(&mut self, key: Key, direction: Direction) {
        if let Some(source) = self.sources.get_mut(key) {
            if source.bits & PARTIAL == 0 {
                source.bits &= !READY[direction as usize];
            }
        }
    }

    /// What is said of short reads and writes is not so of this socket.
    pub(crate) fn set_partial(&mut self, key: Key) {
        if let Some(source) = self.sources.get_mut(key) {
            source.bits |= PARTIAL;
        }
    }

    /// `EAGAIN`: nothing there, not even an end.
    pub(crate) fn would_block(&mut self, key: Key, direction: Direction) {
        if let Some(source) = self.sources.get_mut(key) {
            source.bits &= !(READY[direction as usize] | CLOSED[direction as usize]);
        }
    }

    /// Takes the bits of a handler's fd and lets `waker` wait for the next ones.
    pub(crate) fn take(&mut self, key: Key, waker: &Waker) -> Option<Taken> {
        let source = self.sources.get_mut(key)?;
        for direction in [Direction::Read, Direction::Write] {
            if !source.arm(direction, By::Poll, waker, &mut self.last) {
                source.wait(direction, By::Poll, waker.clone(), &mut self.last);
            }
        }
        let bits = std::mem::take(&mut source.bits);
        Some(Taken {
            readable: bits & READY[0] != 0,
            writable: bits & READY[1] != 0,
            error: bits & (CLOSED[1] | ERROR) != 0,
        })
    }

    /// Sets the bits of an event and wakes who waited for them: by `wake`, which runs no foreign code,
    /// or else `later`, when the caller holds no borrow any more.
    pub(crate) fn on_event(
        &mut self,
        event: &Event,
        wake: &mut impl FnMut(usize) -> bool,
        later: &mut Vec<Waker>,
    ) {
        let Some(source) = self.sources.get_mut(Key::unpack(event.token().0)) else { return };
        // An error ends both directions as far as waiting goes: the next call on the socket tells.
        let error = event.is_error() || is_closed_fd(event);
        let read_closed = error || event.is_read_closed();
        let write_closed = error || event.is_write_closed();
        if read_closed || event.is_priority() {
            source.bits |= CLOSED[0];
        }
        if write_closed {
            source.bits |= CLOSED[1];
        }
        if error {
            source.bits |= ERROR;
        }
        let mut words = 0;
        if event.is_readable() || event.is_priority() || read_closed {
            source.bits |= READY[0];
            words |= WORDS[0];
        }
        if event.is_writable() || write_closed {
            source.bits |= READY[1];
            words |= WORDS[1];
        }
        source.wake(words, wake, later);
    }
}

/// mio has no name for what poll(2) says of an fd that is closed; it is the event that is nothing
/// else. (epoll and kqueue forget such fds.)
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
        if wait == Wait::Unknown {
            readiness.wait(key, direction, by, waker.clone());
        }
        wait
    }

    fn woken(readiness: &mut Readiness, key: Key, direction: Direction) -> Vec<Waker> {
        let mut woken = Vec::new();
        let source = readiness.sources.get_mut(key).unwrap();
        source.wake(WORDS[direction as usize], &mut |_| false, &mut woken);
        woken
    }

    /// A future's ticket.
    fn ticket() -> Cell<Ticket> {
        Cell::new(Ticket::NONE)
    }

    #[test]
    fn a_slot_stays_for_the_next_time_and_gives_way_to_another() {
        let (mut readiness, key) = table();
        readiness.drained(key, Read);
        let mut woken = Vec::new();
        for word in [7, 7, 8] {
            let ticket = ticket();
            let by = By::Future(&ticket);
            assert_eq!(ask(&mut readiness, key, Read, by, &waker(word)), Wait::Known);
            let source = readiness.sources.get_mut(key).unwrap();
            for _ in 0..2 {
                let wake = &mut |word| {
                    woken.push(word);
                    true
                };
                source.wake(WORDS[0], wake, &mut Vec::new());
            }
        }
        assert_eq!(woken, [7, 7, 8], "once each time");
    }

    #[test]
    fn a_bit_stays_until_the_socket_is_drained() {
        let (mut readiness, key) = table();
        for _ in 0..2 {
            assert_eq!(ask(&mut readiness, key, Read, By::Poll, Waker::noop()), Wait::Ready);
        }
        readiness.drained(key, Read);
        assert_eq!(ask(&mut readiness, key, Read, By::Poll, Waker::noop()), Wait::Unknown);
        assert_eq!(ask(&mut readiness, key, Write, By::Poll, Waker::noop()), Wait::Unknown);
    }

    #[test]
    fn what_is_taken_to_drain_the_socket_does_so_until_it_says_otherwise() {
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
    fn nothing_is_taken_to_drain_a_socket_of_which_short_reads_prove_nothing() {
        let (mut readiness, key) = table();
        readiness.set_partial(key);
        readiness.set_partial(key);
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
        assert_eq!(ask(&mut readiness, key, Read, By::Poll, &waker(1)), Wait::Known);
    }

    #[test]
    fn the_end_of_the_stream_survives_a_short_read_but_not_eagain() {
        let (mut readiness, key) = table();
        readiness.sources.get_mut(key).unwrap().bits = READY[0] | CLOSED[0];
        readiness.drained(key, Read);
        assert_eq!(ask(&mut readiness, key, Read, By::Poll, Waker::noop()), Wait::Ready);
        readiness.would_block(key, Read);
        assert_eq!(ask(&mut readiness, key, Read, By::Poll, Waker::noop()), Wait::Unknown);
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
                assert_eq!(wait, Wait::Known);
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
    fn of_those_who_poll_the_last_one_is_woken_beside_the_futures() {
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
    fn a_slot_and_a_foreign_waker_that_poll_take_each_others_place() {
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

    /// However a future that waits changes its waker, and whoever waits beside it.
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
                // A ticket that was used is nobody's, also when the same futures wait again.
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
    fn a_row_that_many_have_left_keeps_no_empty_places() {
        let mut row = Row::default();
        for n in 1..=1000 {
            row.push(Ticket(n), Waker::noop().clone());
        }
        // Those who are left do not move each time.
        for n in (10..=1000).step_by(20) {
            assert!(row.leave(Ticket(n)).is_some());
        }
        assert_eq!((row.taken, row.places.len()), (950, 1000));
        for n in (10..=1000).step_by(20) {
            assert!(row.leave(Ticket(n)).is_none());
        }
        for n in (1..=1000).filter(|n| n % 10 != 0) {
            assert!(row.leave(Ticket(n)).is_some() && row.leave(Ticket(n)).is_none());
        }
        assert!(row.taken == 50 && row.places.len() <= 100, "{}", row.places.len());
        let mut woken = Vec::new();
        row.empty(&mut woken);
        assert!(woken.len() == 50 && row.places.capacity() <= KEPT_PLACES);
        assert_eq!((row.taken, row.places.len()), (0, 0));
    }
}
