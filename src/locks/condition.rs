//! `Condition`: something has changed, look again.

use std::fmt;
use std::rc::Rc;

use futures::future::FusedFuture;

use crate::ground::resumption;
use crate::ground::wait_queue::{Queued, WaitQueue, Waiting};

/// Lets coroutines wait until they are notified. Tornado: `locks.Condition`.
///
/// There is no lock to hold, and a notification is not kept: it goes to those who wait now.
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
    /// `notify` gives each waiter whom it wakes its `()`. If that waiter is dropped before it has run, the
    /// `()` is handed on: the next one is notified instead. `notify_all` gives nothing, since nobody is
    /// left to whom it could be handed on.
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

    /// Waits to be notified. It waits from its first poll on: from the `.await`, not from this call as in
    /// Tornado.
    ///
    /// Cancel safe: a [`notify`](Condition::notify) that a dropped waiter had got goes to the next.
    /// Tornado's `False` after a time-out is the error of
    /// [`with_timeout`](crate::coroutine::with_timeout). Tornado: `wait`.
    #[track_caller]
    pub fn wait(&self) -> impl FusedFuture<Output = ()> + use<> {
        let mut waiting = Waiting::new(self.inner.clone());
        resumption::fused(std::future::poll_fn(move |cx| waiting.wait(cx).map(drop)))
    }

    /// Wakes up to `n` of those who have waited longest. Tornado: `notify`.
    pub fn notify(&self, n: usize) {
        self.inner.notify(n);
    }

    /// Wakes all who wait. Tornado: `notify_all`.
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
