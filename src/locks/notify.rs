//! `Notify`: a wake-up that is not lost.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::task::{Poll, ready};

use futures::future::FusedFuture;

use crate::ground::wait_queue::{Queued, WaitQueue, Waiting};
use crate::ground::{foreign, resumption};

/// Wakes one coroutine that waits, or the next that comes to wait: a wake-up is kept until somebody has
/// it. Tornado has none; a [`Condition`](super::Condition) forgets whom nobody waited for. tokio:
/// `sync::Notify`.
///
/// It is for "there is something to do, look": whoever is woken looks at state that is elsewhere. However
/// often [`notify_one`](Notify::notify_one) is called while nobody waits, one wake-up is kept, so who is
/// woken looks until nothing is left to do.
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
    /// A wake-up that nobody has had yet.
    is_kept: Cell<bool>,
    /// `notify_one` gives whom it wakes a `()`, which is handed on if that waiter is dropped before it has
    /// run. `notify_waiters` gives nothing: nobody is left to whom it could be handed on.
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
    /// One that nobody waits for, and that keeps no wake-up.
    pub fn new() -> Notify {
        Notify { inner: Rc::new(Inner { is_kept: Cell::new(false), waiters: WaitQueue::new() }) }
    }

    /// Wakes the one who has waited longest, or else the next who comes.
    pub fn notify_one(&self) {
        self.inner.notify_one();
    }

    /// Wakes all who wait now, and keeps nothing for those who come.
    pub fn notify_waiters(&self) {
        self.inner.waiters.wake_all();
    }

    /// Waits for a wake-up; ready at once if one was kept. It waits from its first poll on.
    ///
    /// Cancel safe: what a dropped waiter had got goes to the next, or is kept.
    #[track_caller]
    pub fn notified(&self) -> impl FusedFuture<Output = ()> + use<> {
        let mut waiting = Waiting::new(self.inner.clone());
        resumption::fused(std::future::poll_fn(move |cx| {
            if waiting.has_joined() {
                return waiting.poll(cx).map(drop);
            }
            ready!(resumption::poll_proceed(cx));
            if waiting.queued().is_kept.replace(false) {
                return Poll::Ready(());
            }
            waiting.join(cx, &mut None);
            // Joining clones the waker, which is foreign code, and may have notified.
            if waiting.queued().is_kept.replace(false) {
                waiting.queued().notify_one();
            }
            Poll::Pending
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
