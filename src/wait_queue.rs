//! `WaitQueue`: who waits, first in first out; the one queue under every lock, queue and promise.
//!
//! A waiter joins at the end, with a value or without, and leaves from anywhere when it is dropped.
//! Whoever has something for the first waiter *takes* it: exchanges the value, and gets the waker to
//! wake when no borrow is held any more, because waking runs foreign code. A waiter that was taken
//! has left the queue, but its place stays until it has come for its value. If it is dropped before
//! that, [`leave`](WaitQueue::leave) gives the value back, and what was handed over can be handed on:
//! nothing is lost with a waiter.
//!
//! Being single-threaded drops what makes such queues hard elsewhere: no lock, no atomic, no
//! registering twice to close a race.

use std::cell::RefCell;
use std::task::{Context, Poll, Waker};

use crate::foreign;
use crate::ioloop::{Key, Slots};

struct Waiter<T> {
    /// `None` once it was taken.
    waker: Option<Waker>,
    value: Option<T>,
    before: Key,
    after: Key,
}

struct Waiters<T> {
    slots: Slots<Waiter<T>>,
    first: Key,
    last: Key,
}

/// The queue. `T` is what passes between a waiter and who takes it, if anything does.
pub(crate) struct WaitQueue<T = ()> {
    waiters: RefCell<Waiters<T>>,
}

/// A waiter's place, as long as it has one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Place(Option<Key>);

/// How a waiter left.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Left<T> {
    /// It had no place.
    Outside,
    /// It was waiting, with this value.
    Waiting(Option<T>),
    /// It had been taken, and this was for it.
    Taken(Option<T>),
}

impl<T> WaitQueue<T> {
    pub(crate) const fn new() -> WaitQueue<T> {
        let waiters = Waiters { slots: Slots::new(), first: Key::NONE, last: Key::NONE };
        WaitQueue { waiters: RefCell::new(waiters) }
    }

    /// A place at the end, with a value for whoever takes it.
    pub(crate) fn join(&self, cx: &Context<'_>, value: Option<T>) -> Place {
        let waker = cx.waker().clone();
        Place(Some(self.waiters.borrow_mut().join(waker, value)))
    }

    /// Waits in a place. Ready when it was taken; gives what is in it then, and the place is none.
    ///
    /// Without a place it is ready with nothing: the waiter has come for its value already.
    pub(crate) fn poll(&self, place: &mut Place, cx: &Context<'_>) -> Poll<Option<T>> {
        let Some(key) = place.0 else { return Poll::Ready(None) };
        // Wakers are foreign: cloned before the borrow, and the old one dropped after it.
        let mut latest = cx.waker().clone();
        let mut waiters = self.waiters.borrow_mut();
        match waiters.slots.get_mut(key) {
            Some(Waiter { waker: Some(waker), .. }) => {
                std::mem::swap(waker, &mut latest);
                Poll::Pending
            }
            _ => {
                place.0 = None;
                Poll::Ready(waiters.slots.remove(key).and_then(|waiter| waiter.value))
            }
        }
    }

    /// [`poll`](WaitQueue::poll) for a waiter without a value: without a place it takes one at the
    /// end.
    pub(crate) fn wait(&self, place: &mut Place, cx: &Context<'_>) -> Poll<Option<T>> {
        if *place == Place::default() {
            *place = self.join(cx, None);
            return Poll::Pending;
        }
        self.poll(place, cx)
    }

    /// Gives a place up, taken or not.
    pub(crate) fn leave(&self, place: &mut Place) -> Left<T> {
        let Some(key) = place.0.take() else { return Left::Outside };
        let waiter = {
            let mut waiters = self.waiters.borrow_mut();
            waiters.unlink(key);
            waiters.slots.remove(key)
        };
        match waiter {
            Some(Waiter { waker: Some(_), value, .. }) => Left::Waiting(value),
            Some(Waiter { waker: None, value, .. }) => Left::Taken(value),
            None => Left::Outside,
        }
    }

    /// Takes the first waiter, if there is one: `exchange` gets its value and leaves it another. The
    /// caller wakes it. `exchange` runs under the queue's borrow: it moves values and no more.
    #[must_use = "a waiter that was taken has to be woken"]
    pub(crate) fn take_first(
        &self,
        exchange: impl FnOnce(Option<T>) -> Option<T>,
    ) -> Option<Waker> {
        let mut waiters = self.waiters.borrow_mut();
        let first = waiters.first;
        waiters.unlink(first);
        let waiter = waiters.slots.get_mut(first)?;
        waiter.value = exchange(waiter.value.take());
        waiter.waker.take()
    }

    /// Takes all who wait now, then wakes them in order.
    pub(crate) fn wake_all(&self) {
        self.wake_first(usize::MAX, |value| value);
    }

    /// Takes up to `n` who have waited longest, as [`take_first`](WaitQueue::take_first) does, then
    /// wakes them in order.
    pub(crate) fn wake_first(&self, n: usize, exchange: impl Fn(Option<T>) -> Option<T>) {
        let mut taken = (0..n).map_while(|_| self.take_first(&exchange));
        let Some(first) = taken.next() else { return };
        // Most often that was all, and an empty vector costs nothing.
        let others: Vec<Waker> = taken.collect();
        foreign::wake(first);
        foreign::wake_all(others);
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiters.borrow().first == Key::NONE
    }
}

/// Wakes who is there.
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

    /// Takes a waiter out of the list, if it is still in it.
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
    use std::sync::{Arc, Mutex};

    type Log = Arc<Mutex<Vec<u32>>>;

    fn waker(log: &Log, n: u32) -> Waker {
        let log = log.clone();
        waker_fn::waker_fn(move || log.lock().unwrap().push(n))
    }

    fn joined<T>(queue: &WaitQueue<T>, log: &Log, n: u32, value: Option<T>) -> Place {
        queue.join(&Context::from_waker(&waker(log, n)), value)
    }

    fn poll<T>(queue: &WaitQueue<T>, place: &mut Place) -> Poll<Option<T>> {
        queue.poll(place, &Context::from_waker(Waker::noop()))
    }

    #[test]
    fn waiters_are_woken_first_in_first_out_and_leave_from_anywhere() {
        let (queue, log) = (WaitQueue::<()>::new(), Log::default());
        let mut places: Vec<Place> = (0..5).map(|n| joined(&queue, &log, n, None)).collect();
        for n in [0, 2, 4] {
            assert_eq!(queue.leave(&mut places[n]), Left::Waiting(None));
        }
        queue.wake_all();
        assert_eq!(*log.lock().unwrap(), [1, 3]);
        assert_eq!(poll(&queue, &mut places[1]), Poll::Ready(None));
        assert_eq!(queue.leave(&mut places[1]), Left::Outside);
        assert_eq!(queue.leave(&mut places[3]), Left::Taken(None));
        assert!(queue.is_empty());
    }

    #[test]
    fn polling_again_keeps_the_place_and_the_latest_waker() {
        let (queue, log) = (WaitQueue::<()>::new(), Log::default());
        let mut first = joined(&queue, &log, 1, None);
        let _second = joined(&queue, &log, 2, None);
        assert!(queue.poll(&mut first, &Context::from_waker(&waker(&log, 3))).is_pending());
        queue.wake_all();
        assert_eq!(*log.lock().unwrap(), [3, 2]);
    }

    #[test]
    fn taking_exchanges_values_with_the_first_waiter() {
        let (queue, log) = (WaitQueue::new(), Log::default());
        let mut getter = joined(&queue, &log, 1, None);
        let mut putter = joined(&queue, &log, 2, Some("put"));
        queue.take_first(|_| Some("given")).unwrap().wake();
        let mut got = None;
        queue
            .take_first(|value| {
                got = value;
                None
            })
            .unwrap()
            .wake();
        assert_eq!((got, queue.is_empty()), (Some("put"), true));
        assert!(queue.take_first(|value| value).is_none());
        assert_eq!(poll(&queue, &mut getter), Poll::Ready(Some("given")));
        assert_eq!(poll(&queue, &mut putter), Poll::Ready(None));
        assert_eq!(*log.lock().unwrap(), [1, 2]);
    }

    #[test]
    fn what_was_for_a_waiter_that_leaves_comes_back() {
        let (queue, log) = (WaitQueue::new(), Log::default());
        let mut place = joined(&queue, &log, 1, None);
        drop(queue.take_first(|_| Some(7)));
        assert_eq!(queue.leave(&mut place), Left::Taken(Some(7)));
        let mut place = joined(&queue, &log, 1, Some(8));
        assert_eq!(queue.leave(&mut place), Left::Waiting(Some(8)));
        assert!(queue.is_empty());
    }
}
