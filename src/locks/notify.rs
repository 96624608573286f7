//! `Notify`: a wake-up that is not lost.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::task::{Poll, ready};

use futures::future::FusedFuture;

use crate::ground::wait_queue::{Queued, WaitQueue, Waiting};
use crate::ground::{foreign, resumption};

/// Wakes one coroutine that waits or, if none does, the next one that comes to wait. Tornado has no such
/// thing: its [`Condition`](super::Condition) forgets a notification for which nobody waits. tokio:
/// `sync::Notify`.
///
/// It says "there is something to do, look": whoever is woken looks at state that is kept elsewhere. However
/// often [`notify_one`](Notify::notify_one) is called while nobody waits, only one wake-up is kept; so
/// whoever is woken should look until nothing is left to do.
///
/// ```
/// use std::{cell::RefCell, rc::Rc};
/// use waterspout::{IoLoop, coroutine, locks::Notify};
///
/// IoLoop::new()?.run_sync(|| async {
///     let (jobs, notify) = (Rc::new(RefCell::new(Vec::new())), Notify::new());
///     jobs.borrow_mut().extend([1, 2]);
///     notify.notify_one(); // nobody waits yet
///     let (left, notified) = (jobs.clone(), notify.clone());
///     let worker = coroutine::start(async move {
///         notified.notified().await;
///         left.take()
///     });
///     assert_eq!(worker.await, [1, 2]);
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Notify {
    inner: Rc<Inner>,
}

struct Inner {
    /// Whether a wake-up is kept for the next one that comes to wait.
    is_kept: Cell<bool>,
    /// `notify_one` gives a `()` to the waiter that it wakes. If that waiter is dropped before it has run,
    /// the queue hands the `()` on, so that the wake-up is not lost. `notify_waiters` gives nothing:
    /// everybody is woken, so nobody is left to whom a `()` could be handed on.
    waiters: WaitQueue,
}

impl Queued<()> for Inner {
    fn waiters(&self) -> &WaitQueue {
        &self.waiters
    }

    fn hand_on(&self, (): ()) {
        self.notify_one();
    }
}

impl Inner {
    fn notify_one(&self) {
        match self.waiters.take_first(|given| *given = Some(())) {
            Some(first) => foreign::wake(first),
            None => self.is_kept.set(true),
        }
    }
}

impl Notify {
    /// A `Notify` for which nobody waits, and which keeps no wake-up.
    pub fn new() -> Notify {
        Notify { inner: Rc::new(Inner { is_kept: Cell::new(false), waiters: WaitQueue::new() }) }
    }

    /// Wakes the one that has waited longest. If nobody waits, the wake-up is kept for the next that comes.
    pub fn notify_one(&self) {
        self.inner.notify_one();
    }

    /// Wakes all that wait now. It keeps no wake-up for those that come later.
    pub fn notify_waiters(&self) {
        self.inner.waiters.wake_all();
    }

    /// Waits for a wake-up; ready at once if one was kept. The waiting begins when the future is first
    /// polled, mostly by its `.await`.
    ///
    /// Cancel safe: if a waiter is dropped after it was woken and before it has run, its wake-up goes to the
    /// next waiter, or is kept.
    #[track_caller]
    pub fn notified(&self) -> impl FusedFuture<Output = ()> + use<> {
        let mut waiting = Waiting::new(self.inner.clone());
        resumption::fused(std::future::poll_fn(move |cx| {
            if waiting.has_joined() {
                return waiting.poll(cx).map(drop);
            }
            ready!(resumption::poll_proceed(cx));
            let take = |inner: &Inner| inner.is_kept.replace(false);
            if !take(waiting.queued()) && waiting.join(cx, &mut None, take) {
                return Poll::Pending;
            }
            Poll::Ready(())
        }))
    }
}

impl Default for Notify {
    fn default() -> Notify {
        Notify::new()
    }
}

impl fmt::Debug for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notify")
            .field("is_kept", &self.inner.is_kept.get())
            .field("waiters", &self.inner.waiters.len())
            .finish()
    }
}
