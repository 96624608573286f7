//! `RwLock`: many who read, or one who writes, also across `.await`.

use std::cell::Cell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use futures::FutureExt;
use futures::future::FusedFuture;

use super::semaphore::{Permit, Semaphore};

/// All permits: what one who writes has. One who reads has one of them.
const ALL: usize = usize::MAX;

/// Lets many coroutines at a time read a value, or one change it, first come first served. Tornado has none;
/// the names are those of [`std::sync::RwLock`].
///
/// Who comes first is served first, whether he reads or writes: one who wants to write waits for those who
/// read now, and those who come to read after him wait for him. So neither kind can keep the other out for
/// ever. It also means that who reads already and waits to read once more waits for ever if somebody came to
/// write in between.
///
/// A [`RefCell`](std::cell::RefCell) does for what is not kept across an `.await`.
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
    /// `None` while somebody writes: his guard has the value. Those who read share it.
    value: Cell<Option<Rc<T>>>,
}

impl<T> RwLock<T> {
    /// A free lock over a value.
    pub fn new(value: T) -> RwLock<T> {
        let (semaphore, value) = (Semaphore::new(ALL), Cell::new(Some(Rc::new(value))));
        RwLock { inner: Rc::new(Inner { semaphore, value }) }
    }

    /// Waits to read, which others may do at the same time. Dropping the guard ends it. Cancel safe.
    #[track_caller]
    pub fn read(&self) -> impl FusedFuture<Output = RwLockReadGuard<T>> + use<T> {
        let (lock, acquiring) = (self.clone(), self.inner.semaphore.acquire());
        acquiring.map(move |permit| RwLockReadGuard::new(&lock, permit))
    }

    /// Waits to be the only one, who may change the value. Dropping the guard ends it. Cancel safe: those who
    /// waited behind one who has gone are let in.
    #[track_caller]
    pub fn write(&self) -> impl FusedFuture<Output = RwLockWriteGuard<T>> + use<T> {
        let (lock, acquiring) = (self.clone(), self.inner.semaphore.acquire_many(ALL));
        acquiring.map(|permit| RwLockWriteGuard::new(lock, permit))
    }

    /// Reads, if nobody writes or waits.
    pub fn try_read(&self) -> Option<RwLockReadGuard<T>> {
        Some(RwLockReadGuard::new(self, self.inner.semaphore.try_acquire()?))
    }

    /// Writes, if nobody reads, writes or waits.
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
    /// Dropped last: who writes next has to be the value's only owner.
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
    /// Taken out of the lock, and put back when this is dropped. Nobody else has it meanwhile.
    value: Option<Rc<T>>,
    lock: RwLock<T>,
    /// Dropped last, when the value is back.
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
