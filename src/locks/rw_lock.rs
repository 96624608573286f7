//! `RwLock`: many coroutines read a value, or one writes it, also across `.await`.

use std::cell::Cell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use futures::FutureExt;
use futures::future::FusedFuture;

use super::semaphore::{Permit, Semaphore};

/// How many permits the lock's semaphore has. A writer takes all of them, a reader takes one.
const ALL: usize = usize::MAX;

/// Lets many coroutines at a time read a value, or one change it, first come first served. Tornado has none;
/// the names are those of [`std::sync::RwLock`].
///
/// Whoever comes first is served first, readers and writers alike: a writer waits for those that read now,
/// and readers that come after the writer wait for it. So neither kind can keep the other out for ever. It
/// also means that a coroutine must not wait to read while it holds a read guard: if a writer has come in
/// between, each of the two waits for the other, for ever.
///
/// Where no borrow is kept across an `.await`, a [`RefCell`](std::cell::RefCell) will do.
///
/// ```
/// use waterspout::{IoLoop, locks::RwLock};
///
/// let io_loop = IoLoop::new()?;
/// io_loop.run_sync(|| async {
///     let names = RwLock::new(vec!["ann"]);
///     let (one, two) = (names.read().await, names.read().await);
///     assert_eq!(one.len() + two.len(), 2);
///     assert!(names.try_write().is_none());
///     drop((one, two));
///     names.write().await.push("bob");
///     assert_eq!(*names.read().await, ["ann", "bob"]);
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RwLock<T = ()> {
    inner: Rc<Inner<T>>,
}

struct Inner<T> {
    semaphore: Semaphore,
    /// `None` while somebody writes: then the value is in the [`RwLockWriteGuard`]. Read guards share it.
    value: Cell<Option<Rc<T>>>,
}

impl<T> RwLock<T> {
    /// A lock over a value, which nobody holds yet.
    pub fn new(value: T) -> RwLock<T> {
        let (semaphore, value) = (Semaphore::new(ALL), Cell::new(Some(Rc::new(value))));
        RwLock { inner: Rc::new(Inner { semaphore, value }) }
    }

    /// Waits until it may read the value; others may read it at the same time. The right to read ends when
    /// the guard is dropped.
    ///
    /// Cancel safe: if a waiter is dropped that had been let in, those behind it are.
    #[track_caller]
    pub fn read(&self) -> impl FusedFuture<Output = RwLockReadGuard<T>> + use<T> {
        let (lock, acquiring) = (self.clone(), self.inner.semaphore.acquire());
        acquiring.map(move |permit| RwLockReadGuard::new(&lock, permit))
    }

    /// Waits until nobody else reads or writes; then it may change the value, alone. The right to write ends
    /// when the guard is dropped.
    ///
    /// Cancel safe: if a waiting writer is dropped, the readers that waited behind it are let in.
    #[track_caller]
    pub fn write(&self) -> impl FusedFuture<Output = RwLockWriteGuard<T>> + use<T> {
        let (lock, acquiring) = (self.clone(), self.inner.semaphore.acquire_many(ALL));
        acquiring.map(|permit| RwLockWriteGuard::new(lock, permit))
    }

    /// Takes the right to read if nobody writes, and nobody waits.
    pub fn try_read(&self) -> Option<RwLockReadGuard<T>> {
        Some(RwLockReadGuard::new(self, self.inner.semaphore.try_acquire()?))
    }

    /// Takes the right to write if nobody reads or writes, and nobody waits.
    pub fn try_write(&self) -> Option<RwLockWriteGuard<T>> {
        let permit = self.inner.semaphore.try_acquire_many(ALL)?;
        Some(RwLockWriteGuard::new(self.clone(), permit))
    }
}

impl<T: Default> Default for RwLock<T> {
    fn default() -> RwLock<T> {
        RwLock::new(T::default())
    }
}

impl<T> Clone for RwLock<T> {
    fn clone(&self) -> RwLock<T> {
        RwLock { inner: self.inner.clone() }
    }
}

impl<T> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let semaphore = &self.inner.semaphore;
        let is_written = semaphore.permits() == 0;
        let readers = if is_written { 0 } else { ALL - semaphore.permits() };
        f.debug_struct("RwLock")
            .field("readers", &readers)
            .field("is_written", &is_written)
            .field("waiters", &semaphore.waiters())
            .finish()
    }
}

/// The value of an [`RwLock`], and the right to read it.
#[must_use = "the right to read ends when its guard is dropped"]
pub struct RwLockReadGuard<T = ()> {
    value: Rc<T>,
    /// Dropped after `value` (fields are dropped in this order): when the permit lets the next writer in,
    /// that has to be the only owner of the value.
    _permit: Permit,
}

impl<T> RwLockReadGuard<T> {
    fn new(lock: &RwLock<T>, permit: Permit) -> RwLockReadGuard<T> {
        let value = lock.inner.value.take().expect(HELD);
        lock.inner.value.set(Some(value.clone()));
        RwLockReadGuard { value, _permit: permit }
    }
}

const HELD: &str = "the permits that are held say who has the value";

impl<T> Deref for RwLockReadGuard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for RwLockReadGuard<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// The value of an [`RwLock`], and the right to change it.
#[must_use = "the right to write ends when its guard is dropped"]
pub struct RwLockWriteGuard<T = ()> {
    /// The value has been moved out of the lock, and is moved back when the guard is dropped. Nobody else
    /// owns it meanwhile.
    value: Option<Rc<T>>,
    lock: RwLock<T>,
    /// Released only when the value is back in the lock: the next holder takes it from there. (Fields are
    /// dropped after `Drop::drop` has run.)
    _permit: Permit,
}

impl<T> RwLockWriteGuard<T> {
    fn new(lock: RwLock<T>, permit: Permit) -> RwLockWriteGuard<T> {
        RwLockWriteGuard { value: lock.inner.value.take(), lock, _permit: permit }
    }
}

impl<T> Deref for RwLockWriteGuard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect(HELD)
    }
}

impl<T> DerefMut for RwLockWriteGuard<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().and_then(Rc::get_mut).expect(HELD)
    }
}

impl<T> Drop for RwLockWriteGuard<T> {
    fn drop(&mut self) {
        self.lock.inner.value.set(self.value.take());
    }
}

impl<T: fmt::Debug> fmt::Debug for RwLockWriteGuard<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
