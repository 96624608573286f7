//! `CancelToken`: telling coroutines that it is time to end.
//!
//! Cancelling a coroutine drops it where it stands. A token asks instead: whoever listens finishes
//! what it is doing. A server stops accepting when its token is cancelled, and lets its connections
//! come to their end.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::Poll;

use futures::future::FusedFuture;

use super::ending;
use crate::ground::resumption;
use crate::locks::Event;

/// So many children are kept without a look whether anybody has them.
const FEW: usize = 16;

/// A request to end, which is made once and stays made. A clone is the same token.
///
/// ```
/// use waterspout::{IoLoop, coroutine::{self, CancelToken}};
///
/// let io_loop = IoLoop::new()?;
/// io_loop.run_sync(|| async {
///     let token = CancelToken::new();
///     let listens = token.clone();
///     let server = coroutine::start(async move {
///         let ran = listens.run(std::future::pending::<()>()).await;
///         assert!(ran.is_none());
///         "and now to tidy up"
///     });
///     token.cancel();
///     assert_eq!(server.await, "and now to tidy up");
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct CancelToken {
    inner: Rc<Inner>,
}

#[derive(Default)]
struct Inner {
    event: Event,
    /// Those that are cancelled with it, as long as somebody has them.
    children: RefCell<Vec<Weak<Inner>>>,
    /// When there are so many, those that nobody has are thrown out.
    crowded: Cell<usize>,
}

impl CancelToken {
    /// A token that is not cancelled.
    pub fn new() -> CancelToken {
        CancelToken::default()
    }

    /// A token that is cancelled with this one, and may be cancelled before: for a part of what this one ends.
    /// tokio-util: `child_token`.
    ///
    /// ```
    /// use waterspout::coroutine::CancelToken;
    ///
    /// let server = CancelToken::new();
    /// let (request, other) = (server.child(), server.child());
    /// request.cancel();
    /// assert!(request.is_cancelled() && !server.is_cancelled() && !other.is_cancelled());
    /// server.cancel();
    /// assert!(other.is_cancelled() && server.child().is_cancelled());
    /// ```
    #[must_use]
    pub fn child(&self) -> CancelToken {
        let child = CancelToken::new();
        if self.is_cancelled() {
            child.cancel();
            return child;
        }
        let mut children = self.inner.children.borrow_mut();
        if children.len() >= self.inner.crowded.get() {
            children.retain(|child| child.strong_count() > 0);
            self.inner.crowded.set(FEW.max(2 * children.len()));
        }
        children.push(Rc::downgrade(&child.inner));
        child
    }

    /// Cancels it, and its [children](CancelToken::child).
    pub fn cancel(&self) {
        // A list, since there may be a long line of descendants.
        let mut cancelled = vec![self.inner.clone()];
        while let Some(token) = cancelled.pop() {
            let children = token.children.take();
            cancelled.extend(children.iter().filter_map(Weak::upgrade));
            token.event.set();
        }
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.inner.event.is_set()
    }

    /// Waits until it is cancelled. Cancel safe.
    #[track_caller]
    pub fn cancelled(&self) -> impl FusedFuture<Output = ()> + use<> {
        self.inner.event.wait()
    }

    /// Awaits `future` until the token is cancelled: then `future` is dropped, the coroutines that it
    /// awaits are cancelled, and this gives `None`. A future that is ready wins.
    #[track_caller]
    pub fn run<F: Future>(
        &self,
        future: F,
    ) -> impl FusedFuture<Output = Option<F::Output>> + use<F> {
        let cancelled = self.cancelled();
        resumption::fused(async move {
            let mut future = pin!(Some(future));
            let mut cancelled = pin!(cancelled);
            poll_fn(|cx| {
                // The token first, so that it is the future that says where it waits.
                let is_cancelled = cancelled.as_mut().poll(cx).is_ready();
                let running = future.as_mut().as_pin_mut();
                match running.map_or(Poll::Pending, |running| running.poll(cx)) {
                    Poll::Ready(output) => Poll::Ready(Some(output)),
                    Poll::Pending if is_cancelled => {
                        ending::cancelling(|| future.set(None));
                        Poll::Ready(None)
                    }
                    Poll::Pending => Poll::Pending,
                }
            })
            .await
        })
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelToken").field("is_cancelled", &self.is_cancelled()).finish()
    }
}
