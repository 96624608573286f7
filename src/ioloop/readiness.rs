//! Which sockets are ready: turns the selector's edges into levels.
//!
//! A socket is registered once, edge-triggered, for both directions. Each has a slot here with a
//! bit a direction and the wakers of who waits for it. An event sets bits and takes wakers; a bit
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

use std::task::{Context, Poll, Waker};

use mio::event::Event;

use super::slots::{Full, Key, Slots};

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
    /// The first waiter of each direction...
    first: [Option<Waker>; 2],
    /// ...and the others, which are rare: several coroutines in `accept` on one listener.
    others: Vec<(Direction, Waker)>,
}

impl Source {
    fn wait(&mut self, direction: Direction, waker: &Waker) {
        let first = &mut self.first[direction as usize];
        match first {
            None => *first = Some(waker.clone()),
            Some(known) if known.will_wake(waker) => {}
            Some(_) => {
                let known =
                    |(of, known): &(Direction, Waker)| *of == direction && known.will_wake(waker);
                if !self.others.iter().any(known) {
                    self.others.push((direction, waker.clone()));
                }
            }
        }
    }

    fn take_waiters(&mut self, direction: Direction, woken: &mut Vec<Waker>) {
        woken.extend(self.first[direction as usize].take());
        self.others.retain(|(of, waker)| {
            if *of == direction {
                woken.push(waker.clone());
            }
            *of != direction
        });
    }
}

/// What a handler is told: the bits since it was last told.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Taken {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    pub(crate) error: bool,
}

/// The slot is not in this table: the socket belongs to another loop, or its loop was closed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Gone;

/// The table of sockets.
#[derive(Debug)]
pub(crate) struct Readiness {
    sources: Slots<Source>,
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

    /// Forgets a socket. Who waited for it is woken, to find it gone.
    pub(crate) fn remove(&mut self, key: Key, woken: &mut Vec<Waker>) {
        if let Some(mut source) = self.sources.remove(key) {
            source.take_waiters(Direction::Read, woken);
            source.take_waiters(Direction::Write, woken);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.sources.len()
    }

    /// Is the socket ready, or else: wakes the waker when it is.
    pub(crate) fn poll_ready(
        &mut self,
        key: Key,
        direction: Direction,
        cx: &Context<'_>,
    ) -> Result<Poll<()>, Gone> {
        let source = self.sources.get_mut(key).ok_or(Gone)?;
        if source.bits & (READY[direction as usize] | CLOSED[direction as usize]) != 0 {
            return Ok(Poll::Ready(()));
        }
        source.wait(direction, cx.waker());
        Ok(Poll::Pending)
    }

    /// Has the direction ended, or else: wakes the waker when something happens to it.
    pub(crate) fn poll_closed(
        &mut self,
        key: Key,
        direction: Direction,
        cx: &Context<'_>,
    ) -> Result<Poll<()>, Gone> {
        let source = self.sources.get_mut(key).ok_or(Gone)?;
        if source.bits & CLOSED[direction as usize] != 0 {
            return Ok(Poll::Ready(()));
        }
        source.wait(direction, cx.waker());
        Ok(Poll::Pending)
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
        source.wait(Direction::Read, waker);
        source.wait(Direction::Write, waker);
        let bits = std::mem::take(&mut source.bits);
        Some(Taken {
            readable: bits & READY[0] != 0,
            writable: bits & READY[1] != 0,
            error: bits & (CLOSED[1] | ERROR) != 0,
        })
    }

    /// Sets the bits of an event and collects who waited for them; the caller wakes them when it
    /// holds no borrow any more.
    pub(crate) fn on_event(&mut self, event: &Event, woken: &mut Vec<Waker>) {
        let Some(source) = self.sources.get_mut(Key::unpack(event.token().0)) else { return };
        // An error ends both directions as far as waiting goes: the next call on the socket tells.
        let error = event.is_error();
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
        if event.is_readable() || event.is_priority() || read_closed {
            source.bits |= READY[0];
            source.take_waiters(Direction::Read, woken);
        }
        if event.is_writable() || write_closed {
            source.bits |= READY[1];
            source.take_waiters(Direction::Write, woken);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> (Readiness, Key) {
        let mut readiness = Readiness::new();
        let key = readiness.insert(&[Direction::Read]).unwrap();
        (readiness, key)
    }

    #[test]
    fn a_bit_stays_until_the_socket_is_drained() {
        let (mut readiness, key) = table();
        let cx = Context::from_waker(Waker::noop());
        for _ in 0..2 {
            assert_eq!(readiness.poll_ready(key, Direction::Read, &cx), Ok(Poll::Ready(())));
        }
        readiness.drained(key, Direction::Read);
        assert_eq!(readiness.poll_ready(key, Direction::Read, &cx), Ok(Poll::Pending));
        assert_eq!(readiness.poll_ready(key, Direction::Write, &cx), Ok(Poll::Pending));
    }

    #[test]
    fn the_end_of_the_stream_survives_a_short_read_but_not_eagain() {
        let (mut readiness, key) = table();
        let cx = Context::from_waker(Waker::noop());
        readiness.sources.get_mut(key).unwrap().bits = READY[0] | CLOSED[0];
        readiness.drained(key, Direction::Read);
        assert_eq!(readiness.poll_ready(key, Direction::Read, &cx), Ok(Poll::Ready(())));
        readiness.would_block(key, Direction::Read);
        assert_eq!(readiness.poll_ready(key, Direction::Read, &cx), Ok(Poll::Pending));
    }

    #[test]
    fn every_waiter_of_a_direction_is_kept_once() {
        let (mut readiness, key) = table();
        let wakers: Vec<Waker> = (0..3).map(|_| waker_fn::waker_fn(|| ())).collect();
        readiness.drained(key, Direction::Read);
        for _ in 0..2 {
            for waker in &wakers {
                let cx = Context::from_waker(waker);
                assert_eq!(readiness.poll_ready(key, Direction::Read, &cx), Ok(Poll::Pending));
            }
        }
        let cx = Context::from_waker(&wakers[0]);
        assert_eq!(readiness.poll_ready(key, Direction::Write, &cx), Ok(Poll::Pending));
        let mut woken = Vec::new();
        readiness.sources.get_mut(key).unwrap().take_waiters(Direction::Read, &mut woken);
        assert_eq!(woken.len(), 3);
        assert!(woken.iter().zip(&wakers).all(|(woken, waker)| woken.will_wake(waker)));
        woken.clear();
        readiness.remove(key, &mut woken);
        assert_eq!(woken.len(), 1);
        assert_eq!(readiness.poll_ready(key, Direction::Read, &cx), Err(Gone));
    }
}
