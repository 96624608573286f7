//! What is due: the timers, and what they do when they fire.
//!
//! In the wheel, every timer is a waker. A timer that runs a callback is a waker, too, but one that is never
//! woken: its word has loop number 0, which no loop has, and the key of the callback in a table beside the
//! wheel, `calls`. So the kind of timer that is set and removed most, one that wakes a coroutine, fits into
//! two registers.
//!
//! The turn *collects* the timers that are due, and then fires them one by one. Until a timer fires, another
//! one that fires before it can still remove it.

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
    /// The callbacks of timers that run one.
    calls: RefCell<Slots<Callback, true>>,
    /// The timers that were collected and have not fired yet, in order. Some may have been removed.
    collected: RefCell<VecDeque<Key>>,
}

/// What a timer does that fires.
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

    /// Adds a timer that wakes `waker`.
    #[inline]
    pub(super) fn add(&self, deadline: u64, waker: Waker) -> Result<Key, Full> {
        self.wheel.borrow_mut().insert(deadline, waker)
    }

    /// Adds a timer that runs a callback.
    pub(super) fn add_call(&self, deadline: u64, callback: Callback) -> Result<Key, Full> {
        let key = self.calls.borrow_mut().insert(callback)?;
        self.add(deadline, waker(pack(NO_LOOP, key)))
    }

    /// Removes a timer; the caller drops the waker when it holds no borrow.
    #[inline]
    pub(super) fn remove(&self, key: Key) -> Option<Waker> {
        self.wheel.borrow_mut().remove(key)
    }

    /// Removes a timer that runs a callback; the caller drops the callback when it holds no borrow.
    pub(super) fn remove_call(&self, key: Key) -> Option<Callback> {
        let call = self.remove(key)?;
        self.call_of(&call)
    }

    /// Takes out the callback of a timer that was removed from the wheel, if it has one.
    #[inline]
    fn call_of(&self, waker: &Waker) -> Option<Callback> {
        let (number, key) = unpack(word_of(waker)?);
        if number == NO_LOOP { self.calls.borrow_mut().remove(key) } else { None }
    }

    /// Whether the timer is still pending. If it is, and there is a `waker`, that is the one to be woken from
    /// now on, and the former one is put in its place, for the caller to drop when it holds no borrow.
    #[inline]
    pub(super) fn poll(&self, key: Key, waker: &mut Option<Waker>) -> bool {
        let mut wheel = self.wheel.borrow_mut();
        let Some(known) = wheel.get_mut(key) else { return false };
        *waker = waker.take().map(|waker| std::mem::replace(known, waker));
        true
    }

    /// How many timers are pending.
    pub(super) fn len(&self) -> usize {
        self.wheel.borrow().len()
    }

    /// When the wheel has to be looked at next: at the next deadline or before. `None` if there is no timer
    /// that will ever be due.
    #[inline]
    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.wheel.borrow_mut().next_deadline()
    }

    /// Whether there is no timer that is not collected.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.wheel.borrow().is_empty()
    }

    /// Whether [`collect`](Due::collect) has anything to do at `now`.
    #[inline]
    pub(super) fn is_due(&self, now: u64) -> bool {
        !self.wheel.borrow().is_settled(now)
    }

    /// Collects the timers that are due at `now`, for [`fire_next`](Due::fire_next).
    #[cold]
    pub(super) fn collect(&self, now: u64) {
        self.wheel.borrow_mut().collect_due(now, &mut self.collected.borrow_mut());
    }

    /// How many were collected and have not fired yet; those that were removed since are counted, too.
    #[inline]
    pub(super) fn collected(&self) -> usize {
        self.collected.borrow().len()
    }

    /// Removes the next timer that was collected, for the caller to do what it says. `None` if it was removed
    /// meanwhile.
    #[inline]
    pub(super) fn fire_next(&self) -> Option<Fired> {
        let key = self.collected.borrow_mut().pop_front()?;
        let fired = self.wheel.borrow_mut().take_collected(key)?;
        Some(match self.call_of(&fired) {
            Some(callback) => Fired::Call(callback),
            None => Fired::Wake(fired),
        })
    }

    /// Gives back memory that many timers due at once have made the list take.
    #[inline]
    pub(super) fn give_back(&self) {
        give_back(&mut self.collected.borrow_mut());
    }

    /// Removes any timer; `None` if there is none left. For a loop that closes.
    pub(super) fn take_any(&self) -> Option<(Waker, Option<Callback>)> {
        let waker = self.wheel.borrow_mut().pop_any()?;
        let call = self.call_of(&waker);
        Some((waker, call))
    }

    /// The places where the timers that run a callback were added.
    pub(super) fn callbacks(&self) -> Vec<&'static Location<'static>> {
        self.calls.borrow().iter().map(|(_, call)| call.location()).collect()
    }
}
