//! `Lock`: one coroutine at a time uses a value, also across `.await`.

use std::cell::Cell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use futures::FutureExt;
use futures::future::FusedFuture;

use super::semaphore::{Permit, Semaphore};

/// Gives one coroutine at a time the use of a value, first come first served. Tornado: `locks.Lock`.
///
/// Unlike a [`RefCell`](std::cell::RefCell)'s, its guard may be held across an `.await`. Tornado's lock
/// guards no value: that is a `Lock<()>`.
///
/// ```
/// use waterspout::{IoLoop, locks::Lock};
///
/// let io_loop = IoLoop::new()?;
/// io_loop.run_sync(|| async {
///     let balance = Lock::new(10);
///     {
///         let mut balance = balance.acquire().await;
///         *balance += 5;
///     }
///     assert_eq!(*balance.acquire().await, 15);
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Lock<T = ()> {
    inner: Rc<Inner<T>>,
}

struct Inner<T> {
    semaphore: Semaphore,
    /// `None` while the lock is held: then the value is in its [`LockGuard`].
    value: Cell<Option<T>>,
}

impl<T> Lock<T> {
    /// A lock over a value, which nobody holds yet.
    pub fn new(value: T) -> Lock<T> {
        let (semaphore, value) = (Semaphore::new(1), Cell::new(Some(value)));
        Lock { inner: Rc::new(Inner { semaphore, value }) }
    }

    /// Waits for the lock. It is released when the guard is dropped, also if a panic drops it. Tornado:
    /// `acquire`; dropping the guard is Tornado's `release`.
    ///
    /// A coroutine that holds the lock and waits for it again waits for ever.
    ///
    /// Cancel safe: if a waiter is dropped that had been given the lock, the next one gets it.
    #[track_caller]
    pub fn acquire(&self) -> impl FusedFuture<Output = LockGuard<T>> + use<T> {
        let (lock, acquiring) = (self.clone(), self.inner.semaphore.acquire());
        acquiring.map(|permit| LockGuard::new(lock, permit))
    }

    /// Takes the lock if it is free.
    pub fn try_acquire(&self) -> Option<LockGuard<T>> {
        let permit = self.inner.semaphore.try_acquire()?;
        Some(LockGuard::new(self.clone(), permit))
    }

    /// Whether somebody holds the lock.
    pub fn is_locked(&self) -> bool {
        self.inner.semaphore.permits() == 0
    }
}

impl<T: Default> Default for Lock<T> {
    fn default() -> Lock<T> {
        Lock::new(T::default())
    }
}

impl<T> Clone for Lock<T> {
    fn clone(&self) -> Lock<T> {
        Lock { inner: self.inner.clone() }
    }
}

impl<T> fmt::Debug for Lock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock")
            .field("is_locked", &self.is_locked())
            .field("waiters", &self.inner.semaphore.waiters())
            .finish()
    }
}

/// The value of a [`Lock`], and the right to it.
#[must_use = "the lock is released when its guard is dropped"]
pub struct LockGuard<T = ()> {
    /// The value has been moved out of the lock, and is moved back when the guard is dropped. So a guard
    /// borrows nothing, and may outlive the handle that it came from.
    value: Option<T>,
    lock: Lock<T>,
    /// Released only when the value is back in the lock: the next holder takes it from there. (Fields are
    /// dropped after `Drop::drop` has run.)
    _permit: Permit,
}

impl<T> LockGuard<T> {
    fn new(lock: Lock<T>, permit: Permit) -> LockGuard<T> {
        LockGuard { value: lock.inner.value.take(), lock, _permit: permit }
    }
}

const HELD: &str = "the one permit is held, so the value is here";

impl<T> Deref for LockGuard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect(HELD)
    }
}

impl<T> DerefMut for LockGuard<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect(HELD)
    }
}

impl<T> Drop for LockGuard<T> {
    fn drop(&mut self) {
        self.lock.inner.value.set(self.value.take());
    }
}

impl<T: fmt::Debug> fmt::Debug for LockGuard<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
