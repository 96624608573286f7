//! `Promise` and `Future`: one side sets a result once, the other side may look at it many times.
//!
//! Plain data of one thread: it knows no loop. Setting the result takes all waiters out of the
//! queue and wakes them, which on a loop means that they go on in its next turn, in the order in
//! which they began to wait; nothing of theirs runs inside `set_result`.

use std::cell::{Cell, OnceCell};
use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures::future::FusedFuture;

use crate::ground::error::ExcInfo;
use crate::ground::foreign;
use crate::ground::report::{self, Exception};
use crate::ground::wait_queue::{Queued, WaitQueue, Waiting};

struct Shared<T> {
    outcome: OnceCell<Result<T, ExcInfo>>,
    waiters: WaitQueue,
    /// Somebody has seen the exception.
    looked_at: Cell<bool>,
}

impl<T> Queued<()> for Shared<T> {
    fn waiters(&self) -> &WaitQueue {
        &self.waiters
    }
}

impl<T> Shared<T> {
    fn is_done(&self) -> bool {
        self.outcome.get().is_some()
    }

    fn set(&self, outcome: Result<T, ExcInfo>) {
        // The one promise is used up by setting it, so the cell is empty.
        let _ = self.outcome.set(outcome);
        self.waiters.wake_all();
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        if let (Some(Err(info)), false) = (self.outcome.get(), self.looked_at.get()) {
            let info = info.clone();
            let what = "a Future whose exception was never retrieved";
            report::report(Exception { what, name: None, location: None, info });
        }
        // It goes with the last handle, which may be anybody's.
        foreign::discard(self.outcome.take());
    }
}

/// A promise and the future of its result.
///
/// Whoever awaits the future waits, for those who list coroutines, where the promise was made.
///
/// ```
/// use waterspout::{IoLoop, concurrent::promise};
///
/// let io_loop = IoLoop::new()?;
/// let (promise, future) = promise();
/// io_loop.add_callback(|| promise.set_result("here you are"));
/// let result = io_loop.run_sync(|| future)?;
/// assert_eq!(result.unwrap(), "here you are");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[track_caller]
pub fn promise<T>() -> (Promise<T>, Future<T>) {
    let shared = Rc::new(Shared {
        outcome: OnceCell::new(),
        waiters: WaitQueue::new(),
        looked_at: Cell::new(false),
    });
    (
        Promise { shared: Some(shared.clone()) },
        Future { waiting: Waiting::new(shared), has_given: false },
    )
}

/// The side that gives the result, once.
///
/// Dropped without a result, it resolves its future as [`ExcInfo::Abandoned`], so that nobody
/// waits for ever.
pub struct Promise<T> {
    /// Taken when the result is set.
    shared: Option<Rc<Shared<T>>>,
}

impl<T> Promise<T> {
    /// Gives the result. Waiters go on in the loop's next turn. Tornado: `set_result`.
    pub fn set_result(self, result: T) {
        self.set(Ok(result));
    }

    /// Gives an error, or a message, in place of a result. Tornado: `set_exception`.
    pub fn set_exception(self, error: impl Into<Box<dyn Error + Send + Sync>>) {
        self.set(Err(ExcInfo::error(error)));
    }

    /// Gives the exception of something else. Tornado: `set_exc_info`.
    pub fn set_exc_info(self, info: ExcInfo) {
        self.set(Err(info));
    }

    /// Whether every future of it has been dropped: nobody will see the result.
    pub fn is_abandoned(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| Rc::strong_count(shared) == 1)
    }

    fn set(mut self, outcome: Result<T, ExcInfo>) {
        if let Some(shared) = self.shared.take() {
            shared.set(outcome);
        }
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            shared.set(Err(ExcInfo::Abandoned));
            if Rc::strong_count(&shared) == 1 {
                // Both sides are gone: that is no exception that anybody missed.
                shared.looked_at.set(true);
            }
        }
    }
}

impl<T> fmt::Debug for Promise<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Promise").field("is_abandoned", &self.is_abandoned()).finish()
    }
}

/// The side that gets the result; many may await and look at it. Tornado: `Future`.
///
/// Each clone can be awaited; all see the same result, which is why `T: Clone` there (use `Rc<T>`
/// for what is not). Cancel safe: dropping one takes its place in the queue and nothing else. If an
/// exception is set and no clone ever looked, it is reported when the last one goes.
pub struct Future<T> {
    waiting: Waiting<Shared<T>>,
    /// Whether awaiting it has given the result; it gives it again.
    has_given: bool,
}

impl<T> Future<T> {
    fn shared(&self) -> &Shared<T> {
        self.waiting.queued()
    }

    /// Whether the result, or an exception, is there. Tornado: `done`.
    pub fn done(&self) -> bool {
        self.shared().is_done()
    }

    /// The result or the exception; `None` as long as neither is there. Tornado: `result`.
    pub fn result(&self) -> Option<Result<T, ExcInfo>>
    where
        T: Clone,
    {
        self.with_result(Result::clone)
    }

    /// Shows the result, if it is there, without cloning it.
    pub fn with_result<R>(&self, look: impl FnOnce(&Result<T, ExcInfo>) -> R) -> Option<R> {
        let outcome = self.shared().outcome.get()?;
        self.shared().looked_at.set(true);
        Some(look(outcome))
    }

    /// The exception, if that is what was set. Tornado: `exc_info`, `exception`.
    pub fn exc_info(&self) -> Option<ExcInfo> {
        self.with_result(|result| result.as_ref().err().cloned()).flatten()
    }

    /// Waits until the result is there, whatever it is, and without marking it as seen.
    pub(crate) async fn settled(mut self) {
        std::future::poll_fn(|cx| self.poll_settled(cx)).await;
    }

    fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.done() {
            return Poll::Ready(());
        }
        self.waiting.wait(cx, |shared| shared.outcome.get().is_some()).map(drop)
    }
}

impl<T> Clone for Future<T> {
    fn clone(&self) -> Future<T> {
        let waiting = Waiting::at(self.waiting.place(), self.waiting.queued().clone());
        Future { waiting, has_given: false }
    }
}

impl<T: Clone> std::future::Future for Future<T> {
    type Output = Result<T, ExcInfo>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.poll_settled(cx) {
            Poll::Ready(()) => {
                self.has_given = true;
                self.result().map_or(Poll::Pending, Poll::Ready)
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<T: Clone> FusedFuture for Future<T> {
    fn is_terminated(&self) -> bool {
        self.has_given
    }
}

impl<T> fmt::Debug for Future<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Future").field("done", &self.done()).finish()
    }
}
