//! Which sockets are ready: turns the selector's edges into levels.
//!
//! A socket is registered once, edge-triggered, for both directions. Each has a slot here with a
//! bit a direction and the wakers of who waits for it. An event sets bits and wakes who waits; a bit
//! stays set until a system call proves that the kernel has nothing left, so nobody who stops
//! reading early (Tornado's flow control) loses an edge, and waiting costs no `epoll_ctl`.
//!
//! What proves it is `EAGAIN`, or on selectors that report every new edge (epoll, kqueue) also a
//! short read or write. Two things must survive such a proof, for their edge may have come together
//! with the bytes that were read, and no other will follow: the end of the stream, and TCP's urgent
//! data, before which a read stops although more is there. So `closed` bits stay until `EAGAIN`
//! itself.
//!
//! A token is the packed key of a slot: an event for a socket closed earlier in the same batch
//! finds nothing. This is the only file that reads mio's events.

use std::task::Waker;

use mio::event::Event;

use super::slots::{Full, Key, Slots};
use super::waker::{waker, word_of};

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

#[derive(Debug, Default)]
struct Source {
    bits: u8,
    /// Which of the words below are to be woken: a bit each, the first one lowest.
    armed: u8,
    /// The words of the slots that ask by a poll function to read, and to write; that await a future of
    /// each. A word stays when it was woken, as it is most often the same slot that waits next.
    words: [usize; 4],
    /// Who else waits, which is rare: by a waker that is not a slot's, or when a slot's future waits
    /// already (several coroutines in `accept` on one listener).
    #[expect(clippy::box_collection, reason = "a vector would take three words of every socket")]
    others: Option<Box<Vec<Other>>>,
}

#[derive(Debug)]
struct Other {
    direction: Direction,
    by: By,
    waker: Waker,
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
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum By {
    /// By a poll function: one at a time, the last one, as those traits have it.
    Poll = 0,
    /// By a future, which leaves when it is dropped.
    Future = 1,
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

/// The bits of both words of a direction.
const WORDS: [u8; 2] = [0b0101, 0b1010];

impl Source {
    #[inline]
    fn is_ready(&self, direction: Direction, until: Until) -> bool {
        let ready = if until == Until::Closed { 0 } else { READY[direction as usize] };
        self.bits & (ready | CLOSED[direction as usize]) != 0
    }

    fn word(&mut self, direction: Direction, by: By) -> (&mut usize, &mut u8, u8) {
        let at = by as usize * 2 + direction as usize;
        (&mut self.words[at], &mut self.armed, 1 << at)
    }

    /// Lets the waker be woken, if that takes no clone of it; tells whether that is so.
    fn arm(&mut self, direction: Direction, by: By, waker: &Waker) -> bool {
        let has_others = self.has_others();
        let (word, armed, bit) = self.word(direction, by);
        if let Some(new) = word_of(waker) {
            let is_free = !has_others && (*armed & bit == 0 || by == By::Poll);
            if is_free || (*word == new && by == By::Future) {
                *word = new;
                *armed |= bit;
                return true;
            }
        }
        has_others && self.other(direction, by, waker).is_some()
    }

    fn has_others(&self) -> bool {
        self.others.as_ref().is_some_and(|others| !others.is_empty())
    }

    #[cold]
    fn other(&self, direction: Direction, by: By, waker: &Waker) -> Option<usize> {
        self.others.as_ref()?.iter().position(|other| {
            (other.direction, other.by) == (direction, by) && other.waker.will_wake(waker)
        })
    }

    /// Puts a waker down that could not be armed, and gives back the one whose place it takes.
    fn wait(&mut self, direction: Direction, by: By, waker: Waker) -> Option<Waker> {
        // One who polls takes the place of the last one.
        let polls =
            |other: &Other| by == By::Poll && (other.direction, other.by) == (direction, by);
        let others = self.others.get_or_insert_default();
        let at = others.iter().position(polls);
        let before = at.map(|at| others.remove(at).waker);
        let at = at.unwrap_or(others.len());
        let other = Other { direction, by, waker };
        let (word, armed, bit) = self.word(direction, by);
        let is_free = *armed & bit == 0 || by == By::Poll;
        match word_of(&other.waker) {
            Some(new) if is_free => {
                *word = new;
                *armed |= bit;
            }
            _ => {
                if by == By::Poll {
                    *armed &= !bit;
                }
                self.others.get_or_insert_default().insert(at, other);
            }
        }
        before
    }

    /// Takes a waker of a future out, if it is still to be woken.
    fn leave(&mut self, direction: Direction, waker: &Waker) -> Option<Waker> {
        if let Some(at) = self.other(direction, By::Future, waker) {
            return self.others.as_mut().map(|others| others.remove(at).waker);
        }
        let (word, armed, bit) = self.word(direction, By::Future);
        if word_of(waker) != Some(*word) {
            return None;
        }
        // One that was woken has nothing to wait for.
        let was_armed = *armed & bit != 0;
        *armed &= !bit;
        was_armed.then(|| waker.clone())
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
        if self.has_others() {
            self.wake_others(words, later);
        }
    }

    #[cold]
    fn wake_others(&mut self, words: u8, later: &mut Vec<Waker>) {
        let Some(others) = &mut self.others else { return };
        for other in std::mem::take(&mut **others) {
            if words & WORDS[other.direction as usize] != 0 {
                later.push(other.waker);
            } else {
                others.push(other);
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
}

impl Readiness {
    pub(crate) fn new() -> Readiness {
        Readiness { sources: Slots::new() }
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
        by: By,
        waker: &Waker,
    ) -> Option<Wait> {
        let source = self.sources.get_mut(key)?;
        if source.is_ready(direction, until) {
            if until == Until::ReadyOnce {
                source.bits &= !READY[direction as usize];
            }
            return Some(Wait::Ready);
        }
        let known = source.arm(direction, by, waker);
        Some(if known { Wait::Known } else { Wait::Unknown })
    }

    /// Wakes `waker`, which is not known, when the socket is ready. Gives back what the caller is to
    /// drop.
    pub(crate) fn wait(
        &mut self,
        key: Key,
        direction: Direction,
        by: By,
        waker: Waker,
    ) -> Option<Waker> {
        self.sources.get_mut(key)?.wait(direction, by, waker)
    }

    /// A future that waits by `waker` is dropped. Whoever else waits by the same has to ask again, so
    /// the caller wakes it.
    pub(crate) fn leave(&mut self, key: Key, direction: Direction, waker: &Waker) -> Option<Waker> {
        self.sources.get_mut(key)?.leave(direction, waker)
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
            source.bits &= !READY[direction as usize];
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
            if !source.arm(direction, By::Poll, waker) {
                source.wait(direction, By::Poll, waker.clone());
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
        by: By,
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

    #[test]
    fn a_slot_stays_for_the_next_time_and_gives_way_to_another() {
        let (mut readiness, key) = table();
        readiness.drained(key, Read);
        let mut woken = Vec::new();
        for word in [7, 7, 8] {
            assert_eq!(ask(&mut readiness, key, Read, By::Future, &waker(word)), Wait::Known);
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
            assert_eq!(ask(&mut readiness, key, Read, By::Future, Waker::noop()), Wait::Ready);
        }
        readiness.drained(key, Read);
        assert_eq!(ask(&mut readiness, key, Read, By::Future, Waker::noop()), Wait::Unknown);
        assert_eq!(ask(&mut readiness, key, Write, By::Future, Waker::noop()), Wait::Unknown);
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
            for waker in &wakers {
                assert_ne!(ask(&mut readiness, key, Read, By::Future, waker), Wait::Ready);
            }
            for waker in &wakers {
                assert_eq!(ask(&mut readiness, key, Read, By::Future, waker), Wait::Known);
            }
            ask(&mut readiness, key, Write, By::Future, &wakers[0]);
            let got = woken(&mut readiness, key, Read);
            assert!(same(&got, &[&wakers[0], &wakers[1], &wakers[2]]));
            let mut rest = Vec::new();
            readiness.remove(key, &mut rest);
            assert!(same(&rest, &[&wakers[0]]));
            assert_eq!(readiness.poll(key, Read, Until::Ready, By::Future, &wakers[0]), None);
        }
    }

    #[test]
    fn of_those_who_poll_the_last_one_is_woken_beside_the_futures() {
        for wakers in both_kinds(3) {
            let (mut readiness, key) = table();
            readiness.drained(key, Read);
            ask(&mut readiness, key, Read, By::Poll, &wakers[0]);
            ask(&mut readiness, key, Read, By::Future, &wakers[1]);
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

    #[test]
    fn a_future_that_is_dropped_leaves_nothing() {
        for wakers in both_kinds(3) {
            let (mut readiness, key) = table();
            readiness.drained(key, Read);
            for waker in &wakers {
                ask(&mut readiness, key, Read, By::Future, waker);
            }
            for gone in [&wakers[2], &wakers[0]] {
                assert!(readiness.leave(key, Read, gone).unwrap().will_wake(gone));
                assert!(readiness.leave(key, Read, gone).is_none());
            }
            assert!(readiness.leave(key, Write, &wakers[1]).is_none());
            assert!(same(&woken(&mut readiness, key, Read), &[&wakers[1]]));
        }
    }
}
