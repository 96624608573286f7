//! What is due: the timers, and what they do when they fire.
//!
//! A timer is a waker in the wheel. One that calls back is a waker, too: its word has the number of no
//! loop, and a key that finds the callback in a table beside the wheel. So what is set and removed most,
//! a timer that wakes a coroutine, fits into two registers.
//!
//! The turn *collects* the timers that are due, and fires them one by one: each can still be removed by
//! one that fires before it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::Location;
use std::task::Waker;

use super::callback::Callback;
use super::ready::give_back;
use crate::ground::slots::{Full, Key, Slots};
use crate::ground::timers::Timers;
use crate::ground::waker::{waker, word_of};
use crate::ground::word::{NO_LOOP, pack, unpack};

pub(super) struct Due {
    wheel: RefCell<Timers<Waker>>,
    calls: RefCell<Slots<Callback, true>>,
    /// Those that are due and have not fired yet, in order.
    collected: RefCell<VecDeque<Key>>,
}

/// A timer that has fired.
pub(super) enum Fired {
    Wake(Waker),
    Call(Callback),
}

impl Due {
    pub(super) fn new() -> Due {
        Due {
            wheel: RefCell::new(Timers::new()),
            calls: RefCell::new(Slots::new()),
            collected: RefCell::new(VecDeque::new()),
        }
    }

    /// A timer that wakes somebody.
    #[inline]
    pub(super) fn add(&self, deadline: u64, waker: Waker) -> Result<Key, Full> {
        self.wheel.borrow_mut().insert(deadline, waker)
    }

    /// A timer that calls back.
    pub(super) fn add_call(&self, deadline: u64, callback: Callback) -> Result<Key, Full> {
        let key = self.calls.borrow_mut().insert(callback)?;
        self.add(deadline, waker(pack(NO_LOOP, key)))
    }

    /// Takes a timer out; the caller drops the waker when it holds no borrow.
    #[inline]
    pub(super) fn remove(&self, key: Key) -> Option<Waker> {
        self.wheel.borrow_mut().remove(key)
    }

    /// Takes a timer that calls back out; the caller drops the callback when it holds no borrow.
    pub(super) fn remove_call(&self, key: Key) -> Option<Callback> {
        let call = self.remove(key)?;
        self.call_of(&call)
    }

    #[inline]
    fn call_of(&self, waker: &Waker) -> Option<Callback> {
        let (number, key) = unpack(word_of(waker)?);
        if number == NO_LOOP { self.calls.borrow_mut().remove(key) } else { None }
    }

    /// Is the timer still pending? Then `waker` is the one to be woken, and becomes the one that was,
    /// for the caller to drop when it holds no borrow.
    #[inline]
    pub(super) fn poll(&self, key: Key, waker: &mut Option<Waker>) -> bool {
        let mut wheel = self.wheel.borrow_mut();
        let Some(known) = wheel.get_mut(key) else { return false };
        *waker = waker.take().map(|waker| std::mem::replace(known, waker));
        true
    }

    /// How many are pending.
    pub(super) fn len(&self) -> usize {
        self.wheel.borrow().len()
    }

    /// When the next one is due, if there is one.
    #[inline]
    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.wheel.borrow_mut().next_deadline()
    }

    /// Whether nobody waits for a deadline.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.wheel.borrow().is_empty()
    }

    /// Whether there is anything to [collect](Due::collect).
    #[inline]
    pub(super) fn is_due(&self, now: u64) -> bool {
        !self.wheel.borrow().is_settled(now)
    }

    /// Collects those that are due, for [`fire_next`](Due::fire_next).
    #[cold]
    pub(super) fn collect(&self, now: u64) {
        self.wheel.borrow_mut().collect_due(now, &mut self.collected.borrow_mut());
    }

    /// How many are collected.
    #[inline]
    pub(super) fn collected(&self) -> usize {
        self.collected.borrow().len()
    }

    /// The next one that was collected, unless it was removed meanwhile.
    #[inline]
    pub(super) fn fire_next(&self) -> Option<Fired> {
        let key = self.collected.borrow_mut().pop_front()?;
        let fired = self.wheel.borrow_mut().take_collected(key)?;
        Some(match self.call_of(&fired) {
            Some(callback) => Fired::Call(callback),
            None => Fired::Wake(fired),
        })
    }

    /// Gives back the memory that many timers at once have taken.
    #[inline]
    pub(super) fn give_back(&self) {
        give_back(&mut self.collected.borrow_mut());
    }

    /// Takes out any timer, while there are some: the loop closes.
    pub(super) fn take_any(&self) -> Option<(Waker, Option<Callback>)> {
        let waker = self.wheel.borrow_mut().pop_any()?;
        let call = self.call_of(&waker);
        Some((waker, call))
    }

    /// Where the callbacks were added that wait for their time.
    pub(super) fn callbacks(&self) -> Vec<&'static Location<'static>> {
        self.calls.borrow().iter().map(|(_, call)| call.location()).collect()
    }
}
