//! `Semaphore`: at most so many at a time.

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::rc::Rc;
use std::task::{Poll, ready};

use crate::wait_queue::{Queued, WaitQueue, Waiting};
use crate::{foreign, resumption};

/// Hands out a number of permits, first come first served. Tornado: `locks.Semaphore`.
///
/// A permit that is released goes straight to the one who has waited longest; who asks meanwhile
/// waits behind.
///
/// ```
/// use waterspout::{IoLoop, locks::Semaphore};
///
/// let io_loop = IoLoop::new()?;
/// io_loop.run_sync(|| async {
///     let semaphore = Semaphore::new(2);
///     let one = semaphore.acquire().await;
///     let two = semaphore.acquire().await;
///     assert!(semaphore.try_acquire().is_none());
///     drop(one);
///     assert!(semaphore.try_acquire().is_some());
///     # drop(two);
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Semaphore {
    inner: Rc<Inner>,
}

struct Inner {
    permits: Cell<usize>,
    /// How many were forgotten and not released since: a `BoundedSemaphore` has no others to release.
    forgotten: Cell<usize>,
    /// Who waits. Whom `release` takes out of here has a permit, which is its `()`, and goes to the next if
    /// that waiter is dropped before it has run.
    waiters: WaitQueue,
}

impl Queued<()> for Inner {
    fn waiters(&self) -> &WaitQueue {
        &self.waiters
    }

    fn hand_on(&self, (): ()) {
        self.release();
    }
}

impl Inner {
    fn try_take(&self) -> bool {
        // While somebody waits there are no free permits: what is released is handed over.
        let permits = self.permits.get();
        if permits > 0 {
            self.permits.set(permits - 1);
        }
        permits > 0
    }

    fn release(&self) {
        match self.waiters.take_first(|permit| *permit = Some(())) {
            Some(next) => foreign::wake(next),
            None => self.permits.set(self.permits.get().saturating_add(1)),
        }
    }
}

impl Semaphore {
    /// A semaphore with so many permits. It may be 0: then the first ones come by
    /// [`release`](Semaphore::release).
    pub fn new(permits: usize) -> Semaphore {
        let (permits, forgotten) = (Cell::new(permits), Cell::new(0));
        Semaphore { inner: Rc::new(Inner { permits, forgotten, waiters: WaitQueue::new() }) }
    }

    /// Waits for a permit, which is released when the [`Permit`] is dropped, also by a panic. Tornado:
    /// `acquire`.
    ///
    /// Cancel safe: a permit that a dropped waiter had got goes to the next.
    #[track_caller]
    pub fn acquire(&self) -> impl Future<Output = Permit> + use<> {
        let mut waiting = Waiting::new(self.inner.clone());
        std::future::poll_fn(move |cx| {
            if !waiting.has_joined() {
                ready!(resumption::poll_proceed(cx));
                if waiting.queued().try_take() {
                    return Poll::Ready(Permit::of(waiting.queued()));
                }
            }
            waiting.wait(cx).map(|_| Permit::of(waiting.queued()))
        })
    }

    /// A permit, if one is free.
    pub fn try_acquire(&self) -> Option<Permit> {
        self.inner.try_take().then(|| Permit::of(&self.inner))
    }

    /// Adds a permit, beyond those it began with if need be: a [`Permit`] that is dropped needs no such
    /// call. Tornado: `release`.
    pub fn release(&self) {
        self.inner.release();
    }

    /// How many permits are free.
    pub fn permits(&self) -> usize {
        self.inner.permits.get()
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore").field("permits", &self.permits()).finish()
    }
}

/// A permit of a [`Semaphore`]; dropping it releases it.
#[must_use = "a permit is released when it is dropped"]
pub struct Permit {
    /// `None` once forgotten.
    inner: Option<Rc<Inner>>,
}

impl Permit {
    fn of(inner: &Rc<Inner>) -> Permit {
        Permit { inner: Some(inner.clone()) }
    }

    /// Does not give it back: the semaphore has one permit less, until somebody
    /// [`release`](Semaphore::release)s one.
    pub fn forget(mut self) {
        if let Some(inner) = self.inner.take() {
            inner.forgotten.set(inner.forgotten.get() + 1);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take() {
            inner.release();
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permit")
    }
}

/// A [`Semaphore`] that cannot get more permits than it began with: releasing one too often is a
/// mistake, and an error. Tornado: `locks.BoundedSemaphore`.
#[derive(Clone, Debug)]
pub struct BoundedSemaphore {
    semaphore: Semaphore,
}

impl BoundedSemaphore {
    /// A semaphore with so many permits.
    pub fn new(permits: usize) -> BoundedSemaphore {
        BoundedSemaphore { semaphore: Semaphore::new(permits) }
    }

    /// As [`Semaphore::acquire`].
    #[track_caller]
    pub fn acquire(&self) -> impl Future<Output = Permit> + use<> {
        self.semaphore.acquire()
    }

    /// As [`Semaphore::try_acquire`].
    pub fn try_acquire(&self) -> Option<Permit> {
        self.semaphore.try_acquire()
    }

    /// Gives back a permit that was [`forget`](Permit::forget)ten. Tornado: `release`.
    ///
    /// # Errors
    ///
    /// [`ReleasedTooOften`] if none was: what is not forgotten is free, or comes back with its [`Permit`].
    pub fn release(&self) -> Result<(), ReleasedTooOften> {
        let forgotten = &self.semaphore.inner.forgotten;
        forgotten.set(forgotten.get().checked_sub(1).ok_or(ReleasedTooOften)?);
        self.semaphore.release();
        Ok(())
    }

    /// How many permits are free.
    pub fn permits(&self) -> usize {
        self.semaphore.permits()
    }
}

/// [`BoundedSemaphore::release`] would have made a permit more than the semaphore has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReleasedTooOften;

impl fmt::Display for ReleasedTooOften {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "no permit of the semaphore was forgotten: each is free, or comes back when its Permit is dropped",
        )
    }
}

impl Error for ReleasedTooOften {}
