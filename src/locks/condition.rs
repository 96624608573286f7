//! `Condition`: something has changed, look again.

use std::fmt;
use std::rc::Rc;

use futures::future::FusedFuture;

use crate::ground::resumption;
use crate::ground::wait_queue::{Queued, WaitQueue, Waiting};

/// Lets coroutines wait until they are notified. Tornado: `locks.Condition`.
///
/// There is no lock to hold, unlike with a thread's condition variable. A notification is not kept: it
/// reaches only those who wait at the moment; [`Notify`](super::Notify) keeps one for whoever comes next.
///
/// ```
/// use waterspout::{IoLoop, coroutine, locks::Condition};
///
/// let io_loop = IoLoop::new()?;
/// io_loop.run_sync(|| async {
///     let condition = Condition::new();
///     let waits = condition.clone();
///     let waiter = coroutine::start(async move { waits.wait().await });
///     condition.notify(1);
///     waiter.await;
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Condition {
    inner: Rc<Inner>,
}

struct Inner {
    /// `notify` gives a `()` to each waiter that it wakes. If such a waiter is dropped before it has run,
    /// the queue hands the `()` on, so that the next waiter is notified in its stead. `notify_all` gives
    /// nothing: everybody is notified, so nobody is left to whom a `()` could be handed on.
    waiters: WaitQueue,
}

impl Queued<()> for Inner {
    fn waiters(&self) -> &WaitQueue {
        &self.waiters
    }

    fn hand_on(&self, (): ()) {
        self.notify(1);
    }
}

impl Inner {
    fn notify(&self, n: usize) {
        self.waiters.wake_first(n, |given| *given = Some(()));
    }
}

impl Condition {
    /// A condition that nobody waits for.
    pub fn new() -> Condition {
        Condition { inner: Rc::new(Inner { waiters: WaitQueue::new() }) }
    }

    /// Waits to be notified. The waiting begins when the future is first polled, mostly by its `.await`; in
    /// Tornado it begins with this call.
    ///
    /// Cancel safe: if a waiter is dropped after [`notify`](Condition::notify) has woken it and before it
    /// has run, the next waiter is woken instead. Tornado: `wait`; where that gives `False` after a
    /// time-out, [`with_timeout`](crate::coroutine::with_timeout) around this gives its error.
    #[track_caller]
    pub fn wait(&self) -> impl FusedFuture<Output = ()> + use<> {
        let mut waiting = Waiting::new(self.inner.clone());
        resumption::fused(std::future::poll_fn(move |cx| waiting.wait(cx, |_| false).map(drop)))
    }

    /// Wakes the `n` that have waited longest, or all if fewer wait. Tornado: `notify`.
    pub fn notify(&self, n: usize) {
        self.inner.notify(n);
    }

    /// Wakes all that wait. Tornado: `notify_all`.
    pub fn notify_all(&self) {
        self.inner.waiters.wake_all();
    }
}

impl Default for Condition {
    fn default() -> Condition {
        Condition::new()
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condition").field("waiters", &self.inner.waiters.len()).finish()
    }
}
