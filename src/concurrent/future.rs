//! `Promise` and `Future`: one side sets a result once, the other side may look at it many times.
//!
//! Both are plain data of one thread, and know no loop. Setting the result takes all waiters out of the
//! queue and wakes them. Coroutines that are woken so go on in their loop's next turn, in the order in which
//! they began to wait; none of them runs inside `set_result`.

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
    /// Whether somebody has looked at the outcome. An exception at which nobody has looked is reported when
    /// the last handle goes.
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
        // There is one promise, and setting it uses it up: so the cell is still empty.
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
        // The result is dropped with the last handle, whoever drops that. A panic of the result's destructor
        // is not theirs.
        foreign::discard(self.outcome.take());
    }
}

/// Makes a promise and the future of its result.
///
/// A coroutine that awaits the future is listed as waiting at the line where this was called.
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

/// The side that sets the result, once.
///
/// If it is dropped before that, its future gives [`ExcInfo::Abandoned`], so that nobody waits for ever.
pub struct Promise<T> {
    /// `None` once the result is set.
    shared: Option<Rc<Shared<T>>>,
}

impl<T> Promise<T> {
    /// Sets the result. Coroutines that wait for it go on in their loop's next turn. Tornado: `set_result`.
    pub fn set_result(self, result: T) {
        self.set(Ok(result));
    }

    /// Sets an error, or a message, in place of a result. Tornado: `set_exception`.
    pub fn set_exception(self, error: impl Into<Box<dyn Error + Send + Sync>>) {
        self.set(Err(ExcInfo::error(error)));
    }

    /// Sets an exception that came from elsewhere in place of a result. Tornado: `set_exc_info`.
    pub fn set_exc_info(self, info: ExcInfo) {
        self.set(Err(info));
    }

    /// Whether all clones of its future have been dropped, so that nobody will see the result.
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
                // All futures have gone, too. Nobody waits for a result, so `Abandoned` need not be reported.
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

/// The side that gets the result; many may await it and look at it. Tornado: `Future`.
///
/// Each clone can be awaited, and gives a clone of the one result, for which `T` has to be `Clone` (make it
/// an `Rc` if it is not). It may be awaited again after it has given the result. If an exception was set and
/// nobody has ever looked at it, it is reported when the last clone is dropped.
///
/// Cancel safe: dropping a future that waits takes it out of the queue of waiters, and changes nothing else.
pub struct Future<T> {
    waiting: Waiting<Shared<T>>,
    /// Whether awaiting this has given the result already. (That is what `select!` asks; it can be awaited
    /// again all the same.)
    has_given: bool,
}

impl<T> Future<T> {
    fn shared(&self) -> &Shared<T> {
        self.waiting.queued()
    }

    /// Whether the result, or an exception, was set. Tornado: `done`.
    pub fn done(&self) -> bool {
        self.shared().is_done()
    }

    /// The result or the exception; `None` as long as neither was set. Tornado: `result`.
    pub fn result(&self) -> Option<Result<T, ExcInfo>>
    where
        T: Clone,
    {
        self.with_result(Result::clone)
    }

    /// Shows the result, or the exception, to `look` if it was set, without cloning it. Gives what `look` has
    /// given.
    pub fn with_result<R>(&self, look: impl FnOnce(&Result<T, ExcInfo>) -> R) -> Option<R> {
        let outcome = self.shared().outcome.get()?;
        self.shared().looked_at.set(true);
        Some(look(outcome))
    }

    /// The exception, if one was set. Tornado: `exc_info`, `exception`.
    pub fn exc_info(&self) -> Option<ExcInfo> {
        self.with_result(|result| result.as_ref().err().cloned()).flatten()
    }

    /// Waits until the result or an exception was set. That does not count as looking at it: an exception
    /// is still reported if nobody else looks.
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
