//! `Semaphore`: at most so many at a time.

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::rc::Rc;
use std::task::{Poll, ready};

use futures::future::FusedFuture;

use crate::ground::wait_queue::{Queued, WaitQueue, Waiting};
use crate::ground::{foreign, resumption};

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
    /// Those that nobody has. While somebody waits they are his who has waited longest, as soon as they are
    /// as many as he wants.
    permits: Cell<usize>,
    /// How many were forgotten and not released since: a `BoundedSemaphore` has no others to release.
    forgotten: Cell<usize>,
    /// Who waits, each with how many he wants. Whom `serve` takes out of here has them, and they go to the
    /// next ones if that waiter is dropped before it has run.
    waiters: WaitQueue<usize>,
}

impl Queued<usize> for Inner {
    fn waiters(&self) -> &WaitQueue<usize> {
        &self.waiters
    }

    fn hand_on(&self, permits: usize) {
        self.release(permits);
    }

    /// It may have been the one that the others waited behind, for more than there was.
    fn take_back(&self, _: usize) {
        self.serve();
    }
}

impl Inner {
    /// Takes so many for one who comes now: behind all who wait.
    fn try_take(&self, n: usize) -> bool {
        n == 0 || self.permits.get() >= n && self.waiters.is_empty() && self.take(n)
    }

    fn take(&self, n: usize) -> bool {
        let left = self.permits.get().checked_sub(n);
        if let Some(left) = left {
            self.permits.set(left);
        }
        left.is_some()
    }

    fn release(&self, n: usize) {
        self.permits.set(self.permits.get().saturating_add(n));
        self.serve();
    }

    /// Gives what is there to those who wait, until the first of them wants more.
    fn serve(&self) {
        // Nobody waits for none.
        let has_enough = |wanted: &Option<usize>| self.take(wanted.unwrap_or(0));
        while self.permits.get() > 0 {
            let Some(next) = self.waiters.take_first_if(has_enough) else { return };
            foreign::wake(next);
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
    pub fn acquire(&self) -> impl FusedFuture<Output = Permit> + use<> {
        self.acquire_many(1)
    }

    /// Waits for `n` permits at once, which are released together. tokio: `acquire_many`.
    ///
    /// Nothing is taken until all `n` can be had, so that two who want several never have a part each and
    /// wait for the other's. Whoever waits is served first in first out, however much he wants: nobody takes
    /// what is released before him, also not one who wants less than there is. So a big request is never
    /// overtaken, and those behind it wait with it.
    ///
    /// One for more than there are waits until enough have been [`release`](Semaphore::release)d, which may
    /// be for ever. None at all are had at once.
    ///
    /// Cancel safe: what a dropped waiter had got, or had kept others from, goes to the next ones.
    ///
    /// ```
    /// use waterspout::{IoLoop, coroutine, locks::Semaphore};
    ///
    /// # IoLoop::new()?.run_sync(|| async {
    /// let memory = Semaphore::new(100);
    /// let small = memory.acquire_many(30).await;
    /// let big = coroutine::start(memory.acquire_many(80));
    /// assert!(memory.try_acquire().is_none(), "70 are free, but the big one is the next");
    /// drop(small);
    /// let _big = big.await;
    /// assert_eq!(memory.permits(), 20);
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn acquire_many(&self, n: usize) -> impl FusedFuture<Output = Permit> + use<> {
        let mut waiting = Waiting::new(self.inner.clone());
        resumption::fused(std::future::poll_fn(move |cx| {
            if !waiting.has_joined() {
                ready!(resumption::poll_proceed(cx));
                if waiting.queued().try_take(n) {
                    return Poll::Ready(Permit::of(waiting.queued(), n));
                }
                waiting.join(cx, &mut Some(n));
                // Joining clones the waker, which is foreign code, and may have released some.
                if waiting.queued().permits.get() >= n {
                    waiting.queued().serve();
                }
                return Poll::Pending;
            }
            waiting.poll(cx).map(|_| Permit::of(waiting.queued(), n))
        }))
    }

    /// A permit, if one is free and nobody waits.
    pub fn try_acquire(&self) -> Option<Permit> {
        self.try_acquire_many(1)
    }

    /// So many permits, if they are free and nobody waits. tokio: `try_acquire_many`.
    pub fn try_acquire_many(&self, n: usize) -> Option<Permit> {
        self.inner.try_take(n).then(|| Permit::of(&self.inner, n))
    }

    /// Adds a permit, beyond those it began with if need be: a [`Permit`] that is dropped needs no such
    /// call. Tornado: `release`.
    pub fn release(&self) {
        self.inner.release(1);
    }

    /// How many permits nobody has. Those who wait may want more than that, and are served before anybody
    /// else.
    pub fn permits(&self) -> usize {
        self.inner.permits.get()
    }

    /// How many wait.
    pub(super) fn waiters(&self) -> usize {
        self.inner.waiters.len()
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore")
            .field("permits", &self.permits())
            .field("waiters", &self.waiters())
            .finish()
    }
}

/// A permit of a [`Semaphore`], or [several](Semaphore::acquire_many); dropping it releases all of them.
#[must_use = "a permit is released when it is dropped"]
pub struct Permit {
    /// `None` once forgotten.
    inner: Option<Rc<Inner>>,
    /// How many it stands for.
    permits: usize,
}

impl Permit {
    fn of(inner: &Rc<Inner>, permits: usize) -> Permit {
        Permit { inner: Some(inner.clone()), permits }
    }

    /// Does not give it back: the semaphore has so many permits less, until somebody
    /// [`release`](Semaphore::release)s as many.
    pub fn forget(mut self) {
        if let Some(inner) = self.inner.take() {
            inner.forgotten.set(inner.forgotten.get() + self.permits);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take() {
            inner.release(self.permits);
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("permits", &self.permits).finish()
    }
}

/// A [`Semaphore`] that cannot get more permits than it began with: releasing one too often is a
/// mistake, and an error. Tornado: `locks.BoundedSemaphore`.
#[derive(Clone)]
pub struct BoundedSemaphore {
    semaphore: Semaphore,
    /// How many permits it began with.
    most: usize,
}

impl BoundedSemaphore {
    /// A semaphore with so many permits.
    pub fn new(permits: usize) -> BoundedSemaphore {
        BoundedSemaphore { semaphore: Semaphore::new(permits), most: permits }
    }

    /// As [`Semaphore::acquire`].
    #[track_caller]
    pub fn acquire(&self) -> impl FusedFuture<Output = Permit> + use<> {
        self.semaphore.acquire()
    }

    /// As [`Semaphore::acquire_many`].
    ///
    /// # Panics
    ///
    /// If `n` is more than the semaphore began with: it never has so many, and all who come after would wait
    /// with this one for ever.
    #[track_caller]
    pub fn acquire_many(&self, n: usize) -> impl FusedFuture<Output = Permit> + use<> {
        let most = self.most;
        assert!(
            n <= most,
            "acquire_many: {n} permits of a BoundedSemaphore that has {most} at most"
        );
        self.semaphore.acquire_many(n)
    }

    /// As [`Semaphore::try_acquire`].
    pub fn try_acquire(&self) -> Option<Permit> {
        self.semaphore.try_acquire()
    }

    /// As [`Semaphore::try_acquire_many`].
    pub fn try_acquire_many(&self, n: usize) -> Option<Permit> {
        self.semaphore.try_acquire_many(n)
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

impl fmt::Debug for BoundedSemaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundedSemaphore")
            .field("permits", &self.permits())
            .field("most", &self.most)
            .field("waiters", &self.semaphore.waiters())
            .finish()
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
