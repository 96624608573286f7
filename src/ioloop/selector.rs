//! The selector: who can read and write, and how long the loop sleeps until somebody can.
//!
//! It owns mio's `Poll`, and the table of readiness, which only its events and the sockets change.

use std::cell::{Cell, RefCell};
use std::io;
use std::task::Waker;
use std::time::Duration;

use mio::{Events, Poll, Registry, Token};

use super::fine_sleep;
use super::readiness::{Direction, Readiness};
use crate::ground::slots::{Full, Key};

/// The token of the inbox's eventfd; no slot packs to it.
const INBOX: Token = Token(usize::MAX);

pub(super) struct Selector {
    poll: RefCell<Poll>,
    readiness: RefCell<Readiness>,
    /// Sockets whose other end is outside: virtual time is held while somebody waits for one.
    outside: RefCell<Vec<Key>>,
    /// Kept from one use to the next.
    events: Cell<Option<Events>>,
}

/// What the selector was asked, and has answered.
pub(super) struct Asked {
    pub(super) result: io::Result<()>,
    events: Events,
}

/// What takes real time, of all that the loop waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Outside {
    Nothing,
    /// Something that nobody waits for now.
    There,
    /// Something that holds virtual time.
    Awaited,
}

impl Selector {
    /// With room for so many events at once.
    pub(super) fn new(event_capacity: usize) -> io::Result<Selector> {
        Ok(Selector {
            poll: RefCell::new(Poll::new()?),
            readiness: RefCell::new(Readiness::new()),
            outside: RefCell::new(Vec::new()),
            events: Cell::new(Some(Events::with_capacity(event_capacity))),
        })
    }

    /// What ends its sleep.
    pub(super) fn waker(&self) -> io::Result<mio::Waker> {
        mio::Waker::new(self.poll.borrow().registry(), INBOX)
    }

    pub(super) fn registry(&self) -> io::Result<Registry> {
        self.poll.borrow().registry().try_clone()
    }

    /// Asks who can go on, and sleeps until somebody can, at most so long. Nothing is asked from within
    /// its own answer, which is to be [given back](Selector::give_back).
    #[inline]
    pub(super) fn ask(&self, timeout: Option<Duration>) -> Option<Asked> {
        let mut events = self.events.take()?;
        let result = fine_sleep::poll(&mut self.poll.borrow_mut(), &mut events, timeout);
        Some(Asked { result, events })
    }

    pub(super) fn give_back(&self, asked: Asked) -> io::Result<()> {
        self.events.set(Some(asked.events));
        asked.result
    }

    /// Notes who can go on. Slots are woken by `wake`, which is told their words and says whether it
    /// knew them; others are put into `later`, to be woken when no borrow is held any more. Tells how many
    /// events there were.
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

    /// A slot for a socket; what is in `ready` is tried first, not waited for.
    pub(super) fn insert(&self, ready: &[Direction]) -> Result<Key, Full> {
        self.readiness.borrow_mut().insert(ready)
    }

    /// Forgets a socket. Who waited for it is for the caller to wake, to find it gone.
    pub(super) fn remove(&self, key: Key) -> Vec<Waker> {
        let mut woken = Vec::new();
        self.readiness.borrow_mut().remove(key, &mut woken);
        woken
    }

    /// Takes all there is out of the table, for the caller to drop: the loop closes.
    pub(super) fn take_all(&self) -> Readiness {
        self.readiness.replace(Readiness::new())
    }

    /// How many sockets there are.
    pub(super) fn len(&self) -> usize {
        self.readiness.borrow().len()
    }

    /// The other end of a socket is outside.
    pub(super) fn is_outside(&self, key: Key) {
        self.outside.borrow_mut().push(key);
    }

    /// What is outside, when something else there is awaited or not.
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
