//! `Semaphore`: at most so many coroutines at a time.

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
/// A permit that is released goes straight to the one that has waited longest; whoever comes to ask for
/// one while others wait queues up behind them.
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
    /// How many permits are free. While somebody waits, they are saved up for the first waiter until there
    /// are as many as it wants.
    permits: Cell<usize>,
    /// How many permits were forgotten and have not been released since. These are all that
    /// [`BoundedSemaphore::release`] may give back.
    forgotten: Cell<usize>,
    /// Each waiter has brought the number of permits that it wants. `serve` has taken as many from `permits`
    /// when it takes a waiter, and the number stays with the waiter: if that is dropped before it has run,
    /// the queue hands the number on, and so many permits are released.
    waiters: WaitQueue<usize>,
}

impl Queued<usize> for Inner {
    fn waiters(&self) -> &WaitQueue<usize> {
        &self.waiters
    }

    fn hand_on(&self, permits: usize) {
        self.release(permits);
    }

    /// A waiter has given up before it was served. If it was the first, and wanted more permits than were
    /// free, those behind it may be content with what is there.
    fn take_back(&self, _: usize) {
        self.serve();
    }
}

impl Inner {
    /// Takes `n` permits for somebody who comes only now; refuses while others wait, who come first.
    fn try_take(&self, n: usize) -> bool {
        n == 0 || self.permits.get() >= n && self.waiters.is_empty() && self.take(n)
    }

    /// Takes `n` permits if so many are free, whoever waits.
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

    /// Gives the free permits to those that wait, in order, and stops at the first that wants more than are
    /// left.
    fn serve(&self) {
        // Every waiter has brought a number (and none has brought 0: whoever wants none does not wait).
        let has_enough = |wanted: &Option<usize>| self.take(wanted.unwrap_or(0));
        while self.permits.get() > 0 {
            let Some(next) = self.waiters.take_first_if(has_enough) else { return };
            foreign::wake(next);
        }
    }
}

impl Semaphore {
    /// A semaphore with so many permits. There may be 0: then [`release`](Semaphore::release) makes the
    /// first ones.
    pub fn new(permits: usize) -> Semaphore {
        let (permits, forgotten) = (Cell::new(permits), Cell::new(0));
        Semaphore { inner: Rc::new(Inner { permits, forgotten, waiters: WaitQueue::new() }) }
    }

    /// Waits for a permit. It is released when the [`Permit`] is dropped, also if a panic drops it. Tornado:
    /// `acquire`.
    ///
    /// Cancel safe: if a waiter is dropped that had been given a permit, the next one gets it.
    #[track_caller]
    pub fn acquire(&self) -> impl FusedFuture<Output = Permit> + use<> {
        self.acquire_many(1)
    }

    /// Waits for `n` permits at once, which are released together. tokio: `acquire_many`.
    ///
    /// Nothing is taken until all `n` can be had: so two requests for several permits never hold a part each
    /// while they wait for the other's. Waiters are served first in first out, however many permits they
    /// want: while a big request waits, those behind it wait as well, also if what is free would be enough
    /// for them. So a big request is never overtaken.
    ///
    /// A request for more permits than the semaphore has waits until enough have been added by
    /// [`release`](Semaphore::release), which may be for ever. A request for none is granted at once.
    ///
    /// Cancel safe: if a waiter is dropped, the permits that it had been given, or for which others had to
    /// wait behind it, go to the next ones.
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
                let take = |inner: &Inner| inner.try_take(n);
                if !take(waiting.queued()) && waiting.join(cx, &mut Some(n), take) {
                    return Poll::Pending;
                }
                return Poll::Ready(Permit::of(waiting.queued(), n));
            }
            waiting.poll(cx).map(|_| Permit::of(waiting.queued(), n))
        }))
    }

    /// Takes a permit if one is free and nobody waits.
    pub fn try_acquire(&self) -> Option<Permit> {
        self.try_acquire_many(1)
    }

    /// Takes `n` permits if so many are free and nobody waits. tokio: `try_acquire_many`.
    pub fn try_acquire_many(&self, n: usize) -> Option<Permit> {
        self.inner.try_take(n).then(|| Permit::of(&self.inner, n))
    }

    /// Adds a permit, also beyond the number that the semaphore began with. It is not needed for a
    /// [`Permit`], which is given back when it is dropped. Tornado: `release`.
    pub fn release(&self) {
        self.inner.release(1);
    }

    /// How many permits are free. That does not mean that one can be had: if somebody waits for more than
    /// these, they are kept for that waiter.
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
    /// `None` once it was forgotten: then dropping it releases nothing.
    inner: Option<Rc<Inner>>,
    /// How many permits this stands for.
    permits: usize,
}

impl Permit {
    fn of(inner: &Rc<Inner>, permits: usize) -> Permit {
        Permit { inner: Some(inner.clone()), permits }
    }

    /// Drops it without giving anything back: the semaphore has fewer permits from now on, until somebody
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

/// A [`Semaphore`] that never has more permits than it began with: releasing once too often is an error.
/// Tornado: `locks.BoundedSemaphore`.
#[derive(Clone)]
pub struct BoundedSemaphore {
    semaphore: Semaphore,
    /// How many permits it began with, which is also the most it can have.
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
    /// If `n` is more than the semaphore began with: so many can never be free, so that this request and all
    /// behind it would wait for ever.
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
    /// [`ReleasedTooOften`] if no permit is forgotten: then each is free already, or comes back when its
    /// [`Permit`] is dropped.
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

/// [`BoundedSemaphore::release`] would have given the semaphore a permit more than it began with.
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
