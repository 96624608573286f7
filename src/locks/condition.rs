//! `Condition`: something has changed, look again.

use std::fmt;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::wait_queue::{Left, Place, WaitQueue};

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
    /// A waiter that was notified by number has something in its place, which it hands on if it is
    /// dropped; one that was woken with all the others has nothing.
    waiters: Rc<WaitQueue>,
}

impl Condition {
    /// A condition that nobody waits for.
    pub fn new() -> Condition {
        Condition { waiters: Rc::new(WaitQueue::new()) }
    }

    /// Waits to be notified. It waits from its first poll on.
    ///
    /// Cancel safe: a [`notify`](Condition::notify) that a dropped waiter had got goes to the next.
    /// Tornado's `False` after a time-out is the error of
    /// [`with_timeout`](crate::coroutine::with_timeout).
    pub fn wait(&self) -> impl Future<Output = ()> + use<> {
        let mut waiting = Waiting { waiters: self.waiters.clone(), place: Place::default() };
        std::future::poll_fn(move |cx| waiting.poll(cx))
    }

    /// Wakes up to `n` of those who have waited longest.
    pub fn notify(&self, n: usize) {
        self.waiters.wake_first(n, |_| Some(()));
    }

    /// Wakes all who wait.
    pub fn notify_all(&self) {
        self.waiters.wake_all();
    }
}

impl Default for Condition {
    fn default() -> Condition {
        Condition::new()
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condition").field("is_awaited", &!self.waiters.is_empty()).finish()
    }
}

struct Waiting {
    waiters: Rc<WaitQueue>,
    place: Place,
}

impl Waiting {
    fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        self.waiters.wait(&mut self.place, cx).map(drop)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Left::Taken(Some(())) = self.waiters.leave(&mut self.place) {
            self.waiters.wake_first(1, |_| Some(()));
        }
    }
}
