//! The selector: which sockets can be read or written, and how long the loop sleeps until one can.
//!
//! It owns mio's `Poll`, and the table of readiness, which is changed by the events of the selector and by
//! the sockets' own operations.

use std::cell::{Cell, RefCell};
use std::io;
use std::task::Waker;
use std::time::Duration;

use mio::{Events, Poll, Registry, Token};

use super::fine_sleep;
use super::readiness::{Direction, Readiness};
use crate::ground::slots::{Full, Key};

/// The token of the eventfd by which other threads wake the loop. No key of a slot packs to this number.
const INBOX: Token = Token(usize::MAX);

pub(super) struct Selector {
    poll: RefCell<Poll>,
    readiness: RefCell<Readiness>,
    /// Sockets whose other end is outside: virtual time is held while somebody waits for one of them.
    outside: RefCell<Vec<Key>>,
    /// The buffer for events; `None` while it is in use.
    events: Cell<Option<Events>>,
}

/// The selector's answer.
pub(super) struct Asked {
    pub(super) result: io::Result<()>,
    events: Events,
}

/// Whether anything that the loop knows of takes real time, as a child process does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Outside {
    Nothing,
    /// There is something, but nobody waits for it now.
    There,
    /// There is something that holds virtual time: somebody waits for it, or has a guard of `hold_time`.
    Awaited,
}

impl Selector {
    /// A selector that reports so many events at once at most.
    pub(super) fn new(event_capacity: usize) -> io::Result<Selector> {
        Ok(Selector {
            poll: RefCell::new(Poll::new()?),
            readiness: RefCell::new(Readiness::new()),
            outside: RefCell::new(Vec::new()),
            events: Cell::new(Some(Events::with_capacity(event_capacity))),
        })
    }

    /// The waker by which other threads end its sleep.
    pub(super) fn waker(&self) -> io::Result<mio::Waker> {
        mio::Waker::new(self.poll.borrow().registry(), INBOX)
    }

    pub(super) fn registry(&self) -> io::Result<Registry> {
        self.poll.borrow().registry().try_clone()
    }

    /// Asks which sockets are ready, and sleeps until one is, for `timeout` at most. The caller
    /// [gives the answer back](Selector::give_back) when it has dealt with it. `None` if an answer has not
    /// been given back yet.
    #[inline]
    pub(super) fn ask(&self, timeout: Option<Duration>) -> Option<Asked> {
        let mut events = self.events.take()?;
        let result = fine_sleep::poll(&mut self.poll.borrow_mut(), &mut events, timeout);
        Some(Asked { result, events })
    }

    /// Takes back an answer, and returns the error if asking has failed.
    pub(super) fn give_back(&self, asked: Asked) -> io::Result<()> {
        self.events.set(Some(asked.events));
        asked.result
    }

    /// Notes which sockets are ready, and wakes those who wait for them. `wake` gets the words of slots, and
    /// says whether the slot is one of this loop, which it has woken then. The wakers of all others are put
    /// into `later`, for the caller to wake when it holds no borrow. Returns how many events there were.
    #[inline]
    pub(super) fn dispatch(
        &self,
        asked: &Asked,
        mut wake: impl FnMut(usize) -> bool,
        later: &mut Vec<Waker>,
    ) -> u64 {
        let mut readiness = self.readiness.borrow_mut();
        let mut count = 0;
        for event in asked.events.iter().filter(|event| event.token() != INBOX) {
            readiness.on_event(event, &mut wake, later);
            count += 1;
        }
        count
    }

    #[inline]
    pub(super) fn readiness<R>(&self, ask: impl FnOnce(&mut Readiness) -> R) -> R {
        ask(&mut self.readiness.borrow_mut())
    }

    /// A slot for a socket. The directions in `ready` are tried first, not waited for.
    pub(super) fn insert(&self, ready: &[Direction]) -> Result<Key, Full> {
        self.readiness.borrow_mut().insert(ready)
    }

    /// Forgets a socket. Gives the wakers of those who wait for it, for the caller to wake; they find the
    /// socket gone.
    pub(super) fn remove(&self, key: Key) -> Vec<Waker> {
        let mut woken = Vec::new();
        self.readiness.borrow_mut().remove(key, &mut woken);
        woken
    }

    /// Takes the whole table, for the caller to drop. For a loop that closes.
    pub(super) fn take_all(&self) -> Readiness {
        self.readiness.replace(Readiness::new())
    }

    /// How many sockets there are.
    pub(super) fn len(&self) -> usize {
        self.readiness.borrow().len()
    }

    /// Notes that the other end of a socket is outside.
    pub(super) fn mark_outside(&self, key: Key) {
        self.outside.borrow_mut().push(key);
    }

    /// Whether anything is outside. `is_awaited` if somebody holds virtual time in another way than by
    /// waiting for a socket.
    #[inline]
    pub(super) fn outside(&self, is_awaited: bool) -> Outside {
        if !is_awaited && self.outside.borrow().is_empty() {
            return Outside::Nothing;
        }
        self.look_outside(is_awaited)
    }

    #[cold]
    fn look_outside(&self, mut is_awaited: bool) -> Outside {
        let readiness = self.readiness.borrow();
        let mut outside = self.outside.borrow_mut();
        outside.retain(|key| {
            let known = readiness.is_awaited(*key);
            is_awaited |= known == Some(true);
            known.is_some()
        });
        match is_awaited {
            true => Outside::Awaited,
            false if outside.is_empty() => Outside::Nothing,
            false => Outside::There,
        }
    }
}

impl Asked {
    /// Whether there was no event at all.
    #[inline]
    pub(super) fn is_quiet(&self) -> bool {
        self.events.is_empty()
    }
}
