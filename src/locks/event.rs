//! `Event`: something has happened, for good.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

use futures::future::FusedFuture;

use crate::ground::resumption;
use crate::ground::wait_queue::{Queued, WaitQueue, Waiting};

/// Lets coroutines wait until it is set; once it is, nobody waits for it. Tornado: `locks.Event`.
///
/// ```
/// use waterspout::{IoLoop, coroutine, locks::Event};
///
/// let io_loop = IoLoop::new()?;
/// io_loop.run_sync(|| async {
///     let event = Event::new();
///     let waits = event.clone();
///     let waiter = coroutine::start(async move { waits.wait().await });
///     assert!(!waiter.done());
///     event.set();
///     waiter.await;
///     event.wait().await; // it stays set
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct Event {
    inner: Rc<Inner>,
}

struct Inner {
    is_set: Cell<bool>,
    waiters: WaitQueue,
}

impl Queued<()> for Inner {
    fn waiters(&self) -> &WaitQueue {
        &self.waiters
    }
}

impl Default for Inner {
    fn default() -> Inner {
        Inner { is_set: Cell::new(false), waiters: WaitQueue::new() }
    }
}

impl Event {
    /// An event that is not set.
    pub fn new() -> Event {
        Event::default()
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.inner.is_set.get()
    }

    /// Sets it and wakes all that wait. They go on even if it is cleared again before they run.
    pub fn set(&self) {
        self.inner.is_set.set(true);
        self.inner.waiters.wake_all();
    }

    /// Clears it: whoever begins to wait from now on waits for the next [`set`](Event::set).
    pub fn clear(&self) {
        self.inner.is_set.set(false);
    }

    /// Waits until it is set; ready at once if it is. Cancel safe.
    #[track_caller]
    pub fn wait(&self) -> impl FusedFuture<Output = ()> + use<> {
        let mut waiting = Waiting::new(self.inner.clone());
        // Whether this waiter has found the event set. If its resumption has no budget left then, it has to
        // give way before it may go on. If somebody clears the event in between, the waiter is let through
        // all the same, since the event was set when it came.
        let mut was_set = false;
        resumption::fused(std::future::poll_fn(move |cx| {
            if !waiting.has_joined() {
                was_set |= waiting.queued().is_set.get();
                if was_set {
                    return resumption::poll_proceed(cx);
                }
            }
            waiting.wait(cx, |inner| inner.is_set.get()).map(drop)
        }))
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("is_set", &self.is_set())
            .field("waiters", &self.inner.waiters.len())
            .finish()
    }
}
