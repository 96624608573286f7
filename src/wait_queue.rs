//! `WaitQueue`: who waits, first in first out; the one queue under every lock, queue and promise.
//!
//! A waiter joins with [`Wait`], a future, and leaves when that is dropped. Whoever wakes takes the
//! wakers out first and wakes when no borrow is held any more, because waking runs foreign code. A
//! waiter that was taken is marked by its absence: its key has gone stale.
//!
//! Being single-threaded drops what makes such queues hard elsewhere: no lock, no atomic, no
//! registering twice to close a race.

use std::cell::RefCell;
use std::task::{Context, Poll, Waker};

use crate::ioloop::{Key, Slots};

struct Waiter {
    waker: Waker,
    before: Key,
    after: Key,
}

struct Waiters {
    slots: Slots<Waiter>,
    first: Key,
    last: Key,
}

/// The queue.
pub(crate) struct WaitQueue {
    waiters: RefCell<Waiters>,
}

/// A place in a queue; [`Key::NONE`] before joining.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place(Option<Key>);

impl Place {
    pub(crate) const NONE: Place = Place(None);
}

impl WaitQueue {
    pub(crate) const fn new() -> WaitQueue {
        let waiters = Waiters { slots: Slots::new(), first: Key::NONE, last: Key::NONE };
        WaitQueue { waiters: RefCell::new(waiters) }
    }

    /// Waits in `place`: joins at the end if it is none, and is ready when the waiter was taken.
    pub(crate) fn poll_wait(&self, place: &mut Place, cx: &Context<'_>) -> Poll<()> {
        let mut waiters = self.waiters.borrow_mut();
        match place.0 {
            None => {
                place.0 = Some(waiters.join(cx.waker().clone()));
                Poll::Pending
            }
            Some(key) => match waiters.slots.get_mut(key) {
                Some(waiter) => {
                    waiter.waker.clone_from(cx.waker());
                    Poll::Pending
                }
                None => Poll::Ready(()),
            },
        }
    }

    /// Gives a place up; tells whether it had been taken, that is, woken.
    pub(crate) fn leave(&self, place: &mut Place) -> bool {
        let Some(key) = place.0.take() else { return false };
        let waker = self.waiters.borrow_mut().remove(key);
        waker.is_none()
    }

    /// Takes the first waiter out; the caller wakes it.
    #[must_use]
    pub(crate) fn take_first(&self) -> Option<Waker> {
        let mut waiters = self.waiters.borrow_mut();
        let first = waiters.first;
        waiters.remove(first)
    }

    /// Takes all waiters out and wakes them in order.
    pub(crate) fn wake_all(&self) {
        let mut wakers = Vec::new();
        while let Some(waker) = self.take_first() {
            wakers.push(waker);
        }
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Waiters {
    fn join(&mut self, waker: Waker) -> Key {
        let waiter = Waiter { waker, before: self.last, after: Key::NONE };
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

    fn remove(&mut self, key: Key) -> Option<Waker> {
        let Waiter { waker, before, after } = self.slots.remove(key)?;
        match self.slots.get_mut(before) {
            Some(waiter) => waiter.after = after,
            None => self.first = after,
        }
        match self.slots.get_mut(after) {
            Some(waiter) => waiter.before = before,
            None => self.last = before,
        }
        Some(waker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;
    use std::sync::{Arc, Mutex};

    fn waker(log: &Arc<Mutex<Vec<u32>>>, n: u32) -> Waker {
        let log = log.clone();
        waker_fn::waker_fn(move || log.lock().unwrap().push(n))
    }

    #[test]
    fn waiters_are_woken_first_in_first_out_and_leave_from_anywhere() {
        let queue = Rc::new(WaitQueue::new());
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut places = [Place::NONE; 5];
        for (n, place) in places.iter_mut().enumerate() {
            let waker = waker(&log, n as u32);
            assert!(queue.poll_wait(place, &Context::from_waker(&waker)).is_pending());
        }
        for n in [0, 2, 4] {
            assert!(!queue.leave(&mut places[n]));
        }
        queue.wake_all();
        assert_eq!(*log.lock().unwrap(), [1, 3]);
        assert!(queue.poll_wait(&mut places[1], &Context::from_waker(Waker::noop())).is_ready());
        assert!(queue.leave(&mut places[3]));
        assert!(queue.take_first().is_none());
    }

    #[test]
    fn polling_again_keeps_the_place_and_the_latest_waker() {
        let queue = WaitQueue::new();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (mut a, mut b) = (Place::NONE, Place::NONE);
        for (place, n) in [(&mut a, 1), (&mut b, 2)] {
            assert!(queue.poll_wait(place, &Context::from_waker(&waker(&log, n))).is_pending());
        }
        assert!(queue.poll_wait(&mut a, &Context::from_waker(&waker(&log, 3))).is_pending());
        queue.wake_all();
        assert_eq!(*log.lock().unwrap(), [3, 2]);
    }
}
