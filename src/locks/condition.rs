//! `Condition`: something has changed, look again.

use std::fmt;
use std::rc::Rc;

use crate::wait_queue::{Queued, WaitQueue, Waiting};

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
    /// A waiter that was notified by number has been given something, which is handed on if it is
    /// dropped; one that was woken with all the others has nothing.
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

    /// Waits to be notified. It waits from its first poll on.
    ///
    /// Cancel safe: a [`notify`](Condition::notify) that a dropped waiter had got goes to the next.
    /// Tornado's `False` after a time-out is the error of
    /// [`with_timeout`](crate::coroutine::with_timeout).
    #[track_caller]
    pub fn wait(&self) -> impl Future<Output = ()> + use<> {
        let mut waiting = Waiting::new(self.inner.clone());
        std::future::poll_fn(move |cx| waiting.wait(cx).map(drop))
    }

    /// Wakes up to `n` of those who have waited longest.
    pub fn notify(&self, n: usize) {
        self.inner.notify(n);
    }

    /// Wakes all who wait.
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
        f.debug_struct("Condition").field("is_awaited", &!self.inner.waiters.is_empty()).finish()
    }
}
