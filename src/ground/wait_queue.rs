//! `WaitQueue`: waiters, first in first out. It is the one queue under every lock, queue and promise.
//!
//! A waiter is a [`Waiting`], which a future owns:
//!
//! 1. When it is first polled, it *joins* at the end of the queue, with a value or without (a `put` brings
//!    what it wants to put), and notes for its coroutine where it waits.
//! 2. A lock that is released, or whoever else has something for the first waiter, *takes* it: exchanges the
//!    waiter's value for another, and gets the waiter's waker. The caller wakes that when it holds no borrow,
//!    because waking runs foreign code. The waiter is out of the queue now, but its ticket stays good.
//! 3. When the waiter is polled next, it has *come*: it gets the value that is there for it.
//!
//! A waiter may be dropped at any time. If it was still in the queue, it leaves from wherever it stands.
//! If it was taken and has not come, the value is [handed on](Queued::hand_on), so nothing is lost with it.
//!
//! One thread owns the queue, so it needs no lock and no atomic. Nothing can happen between finding that
//! one has to wait and joining, except by foreign code: see [`Waiting::join`].

use std::cell::RefCell;
use std::marker::PhantomData;
use std::panic::Location;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::slots::{Key, Slots};
use super::waker::word_of;
use super::{foreign, resumption};

struct Waiter<T> {
    /// `None` once the waiter was taken.
    waker: Option<Waker>,
    /// What the waiter has brought. Once it was taken: what is there for it.
    value: Option<T>,
    /// Its neighbours in the queue, or [`Key::NONE`]. They mean nothing once it was taken.
    before: Key,
    after: Key,
}

struct Waiters<T> {
    slots: Slots<Waiter<T>>,
    first: Key,
    last: Key,
}

/// The queue. `T` is what passes between a waiter and whoever takes it, if anything does.
pub(crate) struct WaitQueue<T = ()> {
    waiters: RefCell<Waiters<T>>,
}

/// What is waited for: a lock, a queue, a promise. It has a wait queue, and its waiters keep it alive.
pub(crate) trait Queued<T> {
    /// The wait queue.
    fn waiters(&self) -> &WaitQueue<T>;

    /// A waiter was taken and given `value`, and is dropped before it has come. An implementation gives the
    /// value to the next waiter, or keeps it.
    fn hand_on(&self, value: T) {
        foreign::discard(value);
    }

    /// A waiter that has brought `value` is dropped before anybody has taken it. It is out of the queue
    /// already.
    fn take_back(&self, value: T) {
        foreign::discard(value);
    }
}

/// A waiter, which leaves by itself when it is dropped; see the module's text.
pub(crate) struct Waiting<Q: Queued<T>, T = ()> {
    queued: Rc<Q>,
    /// The key of its [`Waiter`], from its first poll until it has come.
    ticket: Option<Key>,
    /// The line of the user's code that waits.
    place: &'static Location<'static>,
    _value: PhantomData<fn(T) -> T>,
}

/// What a waiter was doing when it left.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Left<T> {
    /// It had not joined, or had come already.
    Outside,
    /// It was in the queue, with this value, which it had brought.
    Waiting(Option<T>),
    /// It had been taken, and this value was there for it.
    Taken(Option<T>),
}

impl<Q: Queued<T>, T> Waiting<Q, T> {
    /// A waiter that has not joined yet. The place where it waits is the line of the caller.
    #[track_caller]
    pub(crate) fn new(queued: Rc<Q>) -> Waiting<Q, T> {
        Waiting::at(Location::caller(), queued)
    }

    /// [`new`](Waiting::new) with another place than the line of the caller.
    pub(crate) fn at(place: &'static Location<'static>, queued: Rc<Q>) -> Waiting<Q, T> {
        Waiting { queued, ticket: None, place, _value: PhantomData }
    }

    /// What it waits for: the lock, the queue.
    pub(crate) fn queued(&self) -> &Rc<Q> {
        &self.queued
    }

    /// The line of the user's code that waits.
    pub(crate) fn place(&self) -> &'static Location<'static> {
        self.place
    }

    /// Whether it has joined and not come yet: it is in the queue, or was taken.
    pub(crate) fn has_joined(&self) -> bool {
        self.ticket.is_some()
    }

    /// Joins at the end, and brings what is in `value` for whoever takes the waiter. Tells whether it has
    /// joined.
    ///
    /// The caller has found that it has to wait. But joining needs a clone of the waker, and to clone a
    /// foreign one runs foreign code, which may release the very lock that the caller is about to wait for.
    /// Nobody would wake the waiter for that any more. So after such a clone `need_not` looks once more, and
    /// may take what it finds. If it returns `true`, the waiter does not join, and the value stays with the
    /// caller. (Cloning one of our own wakers runs no foreign code, so `need_not` is not called then.)
    #[inline]
    pub(crate) fn join(
        &mut self,
        cx: &Context<'_>,
        value: &mut Option<T>,
        need_not: impl FnOnce(&Q) -> bool,
    ) -> bool {
        let waker = cx.waker().clone();
        if word_of(cx.waker()).is_none() && need_not(&self.queued) {
            foreign::discard(waker);
            return false;
        }
        self.ticket = Some(self.queued.waiters().waiters.borrow_mut().join(waker, value.take()));
        resumption::waits_at(self.place);
        true
    }

    /// Waits until the waiter is taken; then it has come, and gets the value that is there for it. Ready
    /// with nothing if it has come before, or has never joined.
    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<Option<T>> {
        let Some(key) = self.ticket else { return Poll::Ready(None) };
        // Wakers are foreign: this one is cloned before the borrow, and the old one is dropped after it.
        let mut latest = cx.waker().clone();
        let mut waiters = self.queued.waiters().waiters.borrow_mut();
        match waiters.slots.get_mut(key) {
            Some(Waiter { waker: Some(waker), .. }) => {
                std::mem::swap(waker, &mut latest);
                drop(waiters);
                foreign::discard(latest);
                resumption::waits_at(self.place);
                Poll::Pending
            }
            _ => {
                self.ticket = None;
                let waiter = waiters.slots.remove(key);
                drop(waiters);
                Poll::Ready(waiter.and_then(|waiter| waiter.value))
            }
        }
    }

    /// [`poll`](Waiting::poll) for a waiter that brings no value. It [joins](Waiting::join) first if it has
    /// not, and is ready with nothing if it need not.
    pub(crate) fn wait(
        &mut self,
        cx: &Context<'_>,
        need_not: impl FnOnce(&Q) -> bool,
    ) -> Poll<Option<T>> {
        if self.has_joined() {
            return self.poll(cx);
        }
        if self.join(cx, &mut None, need_not) { Poll::Pending } else { Poll::Ready(None) }
    }

    /// Leaves, taken or not. The caller gets the waiter's value, and has to hand it on if the waiter was
    /// taken.
    pub(crate) fn leave(&mut self) -> Left<T> {
        let Some(key) = self.ticket.take() else { return Left::Outside };
        let waiter = {
            let mut waiters = self.queued.waiters().waiters.borrow_mut();
            waiters.unlink(key);
            waiters.slots.remove(key)
        };
        match waiter {
            Some(Waiter { waker: Some(waker), value, .. }) => {
                foreign::discard(waker);
                Left::Waiting(value)
            }
            Some(Waiter { waker: None, value, .. }) => Left::Taken(value),
            None => Left::Outside,
        }
    }
}

impl<Q: Queued<T>, T> Drop for Waiting<Q, T> {
    #[inline]
    fn drop(&mut self) {
        // Most have come by now.
        if self.has_joined() {
            self.give_up();
        }
    }
}

impl<Q: Queued<T>, T> Waiting<Q, T> {
    fn give_up(&mut self) {
        match self.leave() {
            Left::Taken(Some(value)) => self.queued.hand_on(value),
            Left::Waiting(Some(value)) => self.queued.take_back(value),
            _ => {}
        }
    }
}

impl<T> WaitQueue<T> {
    pub(crate) const fn new() -> WaitQueue<T> {
        let waiters = Waiters { slots: Slots::new(), first: Key::NONE, last: Key::NONE };
        WaitQueue { waiters: RefCell::new(waiters) }
    }

    /// Takes the first waiter, if there is one, and returns its waker for the caller to wake. `exchange` may
    /// move the waiter's value out and put another one in for it. It runs while the queue is borrowed, so it
    /// must do no more than that.
    #[must_use = "a waiter that was taken has to be woken"]
    pub(crate) fn take_first(&self, exchange: impl FnOnce(&mut Option<T>)) -> Option<Waker> {
        self.waiters.borrow_mut().take_first(|value| {
            exchange(value);
            true
        })
    }

    /// Takes the first waiter, if there is one and `agrees` agrees when it sees the value that the waiter has
    /// brought. The value stays with the waiter. Returns the waker for the caller to wake. `agrees` runs
    /// while the queue is borrowed.
    #[must_use = "a waiter that was taken has to be woken"]
    pub(crate) fn take_first_if(&self, agrees: impl FnOnce(&Option<T>) -> bool) -> Option<Waker> {
        self.waiters.borrow_mut().take_first(|value| agrees(value))
    }

    /// Takes all who wait now, then wakes them in order. (If each were woken before the next is taken, one
    /// whose waker runs foreign code could join again and be taken twice.)
    pub(crate) fn wake_all(&self) {
        self.wake_first(usize::MAX, |_| ());
    }

    /// Takes up to `n` of those who have waited longest, as [`take_first`](WaitQueue::take_first) does, then
    /// wakes them in order.
    pub(crate) fn wake_first(&self, n: usize, exchange: impl Fn(&mut Option<T>)) {
        let mut taken = (0..n).map_while(|_| self.take_first(&exchange));
        let Some(first) = taken.next() else { return };
        // Most often there was only one, and an empty vector does not allocate.
        let others: Vec<Waker> = taken.collect();
        foreign::wake(first);
        foreign::wake_all(others);
    }

    /// How many wait. This walks through the queue: it is for `Debug` forms and for diagnosis.
    pub(crate) fn len(&self) -> usize {
        let waiters = self.waiters.borrow();
        let first = waiters.slots.get(waiters.first);
        std::iter::successors(first, |waiter| waiters.slots.get(waiter.after)).count()
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiters.borrow().first == Key::NONE
    }
}

/// Wakes the waiter that was taken, if there was one.
pub(crate) fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        foreign::wake(waker);
    }
}

impl<T> Waiters<T> {
    fn join(&mut self, waker: Waker, value: Option<T>) -> Key {
        let (before, after) = (self.last, Key::NONE);
        let waiter = Waiter { waker: Some(waker), value, before, after };
        let Ok(key) = self.slots.insert(waiter) else {
            panic!("a wait queue has as many waiters as it can hold");
        };
        match self.slots.get_mut(self.last) {
            Some(last) => last.after = key,
            None => self.first = key,
        }
        self.last = key;
        key
    }

    /// Takes the first waiter, if there is one and `exchange` agrees.
    fn take_first(&mut self, exchange: impl FnOnce(&mut Option<T>) -> bool) -> Option<Waker> {
        let first = self.slots.get_mut(self.first)?;
        if !exchange(&mut first.value) {
            return None;
        }
        let waker = first.waker.take();
        self.first = first.after;
        match self.slots.get_mut(self.first) {
            Some(waiter) => waiter.before = Key::NONE,
            None => self.last = Key::NONE,
        }
        waker
    }

    /// Unlinks a waiter from its neighbours, unless it was taken.
    fn unlink(&mut self, key: Key) {
        let Some(Waiter { waker: Some(_), before, after, .. }) = self.slots.get(key) else {
            return;
        };
        let (before, after) = (*before, *after);
        match self.slots.get_mut(before) {
            Some(waiter) => waiter.after = after,
            None => self.first = after,
        }
        match self.slots.get_mut(after) {
            Some(waiter) => waiter.before = before,
            None => self.last = before,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::sync::{Arc, Mutex};

    type Log = Arc<Mutex<Vec<u32>>>;

    /// A wait queue, and the last value that was handed on from a waiter that had been taken.
    struct Hands<T> {
        queue: WaitQueue<T>,
        handed: Cell<Option<T>>,
    }

    impl<T> Queued<T> for Hands<T> {
        fn waiters(&self) -> &WaitQueue<T> {
            &self.queue
        }

        fn hand_on(&self, value: T) {
            self.handed.set(Some(value));
        }
    }

    fn hands<T>() -> (Rc<Hands<T>>, Log) {
        let hands = Hands { queue: WaitQueue::new(), handed: Cell::new(None) };
        (Rc::new(hands), Log::default())
    }

    fn waker(log: &Log, n: u32) -> Waker {
        let log = log.clone();
        waker_fn::waker_fn(move || log.lock().unwrap().push(n))
    }

    fn joined<T>(
        hands: &Rc<Hands<T>>,
        log: &Log,
        n: u32,
        value: Option<T>,
    ) -> Waiting<Hands<T>, T> {
        let mut waiting = Waiting::new(hands.clone());
        let mut value = value;
        waiting.join(&Context::from_waker(&waker(log, n)), &mut value, |_| false);
        assert!(waiting.has_joined() && value.is_none());
        waiting
    }

    fn poll<T>(waiting: &mut Waiting<Hands<T>, T>) -> Poll<Option<T>> {
        waiting.poll(&Context::from_waker(Waker::noop()))
    }

    #[test]
    fn waiters_are_woken_first_in_first_out_and_leave_from_anywhere() {
        let (hands, log) = hands::<()>();
        let mut waiting: Vec<_> = (0..5).map(|n| joined(&hands, &log, n, None)).collect();
        for n in [0, 2, 4] {
            assert_eq!(waiting[n].leave(), Left::Waiting(None));
        }
        hands.queue.wake_all();
        assert_eq!(*log.lock().unwrap(), [1, 3]);
        assert_eq!(poll(&mut waiting[1]), Poll::Ready(None));
        assert_eq!(waiting[1].leave(), Left::Outside);
        assert_eq!(waiting[3].leave(), Left::Taken(None));
        assert!(hands.queue.is_empty());
    }

    #[test]
    fn those_at_the_ends_and_in_the_middle_leave_by_being_dropped() {
        let (hands, log) = hands::<()>();
        let mut waiting: Vec<_> = (0..6).map(|n| joined(&hands, &log, n, None)).collect();
        for n in [5, 2, 0] {
            drop(waiting.remove(n));
        }
        waiting.push(joined(&hands, &log, 6, None));
        hands.queue.wake_first(3, |_| ());
        assert_eq!(*log.lock().unwrap(), [1, 3, 4]);
        assert!(!hands.queue.is_empty());
        hands.queue.wake_first(3, |_| ());
        assert_eq!(*log.lock().unwrap(), [1, 3, 4, 6]);
        assert!(hands.queue.is_empty());
    }

    #[test]
    fn polling_again_keeps_the_turn_and_the_latest_waker() {
        let (hands, log) = hands::<()>();
        let mut first = joined(&hands, &log, 1, None);
        let _second = joined(&hands, &log, 2, None);
        assert!(first.poll(&Context::from_waker(&waker(&log, 3))).is_pending());
        hands.queue.wake_all();
        assert_eq!(*log.lock().unwrap(), [3, 2]);
    }

    #[test]
    fn a_waiter_notes_the_line_of_its_caller_at_each_poll() {
        let (hands, _log) = hands::<()>();
        let _resumption = resumption::nested();
        let line = line!() + 1;
        let mut waiting = Waiting::new(hands.clone());
        let cx = Context::from_waker(Waker::noop());
        for _ in 0..2 {
            let _again = resumption::nested();
            assert!(waiting.wait(&cx, |_| false).is_pending());
            let place = resumption::place().unwrap();
            assert_eq!((place.file(), place.line()), (file!(), line));
        }
        hands.queue.wake_all();
        let _last = resumption::nested();
        assert!(waiting.wait(&cx, |_| false).is_ready() && resumption::place().is_none());
    }

    #[test]
    fn taking_exchanges_values_with_the_first_waiter() {
        let (hands, log) = hands();
        let mut getter = joined(&hands, &log, 1, None);
        let mut putter = joined(&hands, &log, 2, Some("put"));
        hands.queue.take_first(|value| *value = Some("given")).unwrap().wake();
        let mut got = None;
        hands.queue.take_first(|value| got = value.take()).unwrap().wake();
        assert_eq!((got, hands.queue.is_empty()), (Some("put"), true));
        assert!(hands.queue.take_first(|_| ()).is_none());
        assert_eq!(poll(&mut getter), Poll::Ready(Some("given")));
        assert_eq!(poll(&mut putter), Poll::Ready(None));
        assert_eq!(*log.lock().unwrap(), [1, 2]);
    }

    #[test]
    fn what_was_for_a_waiter_that_leaves_is_handed_on() {
        let (hands, log) = hands();
        let mut waiting = joined(&hands, &log, 1, None);
        drop(hands.queue.take_first(|value| *value = Some(7)));
        assert_eq!(waiting.leave(), Left::Taken(Some(7)));
        drop(waiting);
        assert_eq!(hands.handed.take(), None);
        let waiting = joined(&hands, &log, 1, None);
        drop(hands.queue.take_first(|value| *value = Some(7)));
        drop(waiting);
        assert_eq!(hands.handed.take(), Some(7));
        // What a waiter has brought itself is not handed on.
        let mut waiting = joined(&hands, &log, 1, Some(8));
        assert_eq!(waiting.leave(), Left::Waiting(Some(8)));
        drop(joined(&hands, &log, 1, Some(8)));
        assert_eq!((hands.handed.take(), hands.queue.is_empty()), (None, true));
    }

    #[test]
    fn the_first_is_taken_only_when_it_agrees_and_nobody_before_it() {
        let (hands, log) = hands();
        let mut big = joined(&hands, &log, 1, Some(3));
        let mut small = joined(&hands, &log, 2, Some(1));
        let fits = |n: u32| move |wanted: &Option<u32>| wanted.unwrap() <= n;
        assert!(hands.queue.take_first_if(fits(2)).is_none());
        assert_eq!(hands.queue.len(), 2);
        hands.queue.take_first_if(fits(3)).unwrap().wake();
        assert_eq!((hands.queue.len(), poll(&mut big)), (1, Poll::Ready(Some(3))));
        hands.queue.take_first_if(fits(1)).unwrap().wake();
        assert_eq!((hands.queue.len(), poll(&mut small)), (0, Poll::Ready(Some(1))));
        assert!(hands.queue.take_first_if(|_| true).is_none());
        assert_eq!(*log.lock().unwrap(), [1, 2]);
    }

    #[test]
    fn a_waiter_that_has_come_may_join_again_behind_the_others() {
        let (hands, log) = hands::<()>();
        let mut first = joined(&hands, &log, 1, None);
        let _second = joined(&hands, &log, 2, None);
        hands.queue.wake_first(1, |_| ());
        assert!(poll(&mut first).is_ready() && !first.has_joined());
        assert!(first.wait(&Context::from_waker(&waker(&log, 3)), |_| false).is_pending());
        hands.queue.wake_all();
        assert_eq!(*log.lock().unwrap(), [1, 2, 3]);
    }

    #[test]
    fn what_nobody_else_is_handed_may_panic_when_it_is_dropped() {
        struct Queue(WaitQueue<Bomb>);
        impl Queued<Bomb> for Queue {
            fn waiters(&self) -> &WaitQueue<Bomb> {
                &self.0
            }
        }
        struct Bomb(Rc<Cell<u32>>);
        impl Drop for Bomb {
            fn drop(&mut self) {
                self.0.set(self.0.get() + 1);
                panic!("a destructor");
            }
        }
        let (queue, dropped) = (Rc::new(Queue(WaitQueue::new())), Rc::<Cell<u32>>::default());
        let cx = Context::from_waker(Waker::noop());
        let mut taken = Waiting::new(queue.clone());
        taken.join(&cx, &mut None, |_| false);
        drop(queue.0.take_first(|value| *value = Some(Bomb(dropped.clone()))));
        drop(taken);
        assert_eq!(dropped.get(), 1);
        let mut waiting = Waiting::new(queue.clone());
        waiting.join(&cx, &mut Some(Bomb(dropped.clone())), |_| false);
        drop(waiting);
        assert_eq!(dropped.get(), 2);
    }

    #[test]
    fn a_waker_that_panics_leaves_nobody_asleep() {
        let (hands, log) = hands::<()>();
        let panics = waker_fn::waker_fn(|| panic!("a waker"));
        let mut first = Waiting::new(hands.clone());
        let mut second = Waiting::new(hands.clone());
        for waiting in [&mut first, &mut second] {
            assert!(waiting.wait(&Context::from_waker(&panics), |_| false).is_pending());
        }
        let _third = joined(&hands, &log, 3, None);
        hands.queue.wake_all();
        assert_eq!(*log.lock().unwrap(), [3]);
        assert!(poll(&mut first).is_ready() && poll(&mut second).is_ready());
    }
}
