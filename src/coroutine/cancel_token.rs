//! `CancelToken`: telling coroutines that it is time to end.
//!
//! Cancelling a coroutine drops it at the `.await` where it waits. A token asks instead: a coroutine that
//! listens to it can finish what it is doing. A server, for instance, stops accepting connections when its
//! token is cancelled, and goes on serving those that it has until they end.

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

/// How many children a token may have before it first looks for some that can be thrown out.
const FIRST_PRUNING: usize = 16;

/// A request to end. Once it was made, by [`cancel`](CancelToken::cancel), it stays made. A clone is the same
/// token.
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
    /// The token that cancels this one. It is kept alive, since it is the only one that knows of this one:
    /// if it went with its last handle, its own parent could not cancel this one any more.
    parent: RefCell<Option<Rc<Inner>>>,
    /// Tokens that are cancelled with this one. The list does not keep them alive.
    children: RefCell<Vec<Weak<Inner>>>,
    /// When the list has become so long, those children that have gone are thrown out before another is
    /// added. Otherwise a server's token would collect the tokens of all its past requests.
    prune_at: Cell<usize>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // A long line of parents, each kept by its child alone, goes one after the other: if each dropped the
        // next one from within its own destructor, that would overflow the stack.
        let mut parent = self.parent.take();
        while let Some(last) = parent.and_then(Rc::into_inner) {
            parent = last.parent.take();
        }
    }
}

impl CancelToken {
    /// A token that is not cancelled.
    pub fn new() -> CancelToken {
        CancelToken::default()
    }

    /// Makes a token that is cancelled together with this one, and may also be cancelled by itself before:
    /// for a part of what this one ends. This handle need not be kept for that. tokio-util: `child_token`.
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
        if children.len() >= self.inner.prune_at.get() {
            children.retain(|child| child.strong_count() > 0);
            self.inner.prune_at.set(FIRST_PRUNING.max(2 * children.len()));
        }
        children.push(Rc::downgrade(&child.inner));
        *child.inner.parent.borrow_mut() = Some(self.inner.clone());
        child
    }

    /// Cancels this token, and its [children](CancelToken::child) with theirs.
    pub fn cancel(&self) {
        // It goes through a list of descendants instead of calling itself for each child: a long line of them
        // would overflow the stack.
        let mut cancelled = vec![self.inner.clone()];
        while let Some(token) = cancelled.pop() {
            let children = token.children.take();
            cancelled.extend(children.iter().filter_map(Weak::upgrade));
            drop(token.parent.take());
            token.event.set();
        }
    }

    /// Whether the token was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.inner.event.is_set()
    }

    /// Waits until the token is cancelled. Cancel safe.
    #[track_caller]
    pub fn cancelled(&self) -> impl FusedFuture<Output = ()> + use<> {
        self.inner.event.wait()
    }

    /// Awaits `future` until the token is cancelled. Then it drops `future`, which cancels the coroutines
    /// that `future` awaits, and gives `None`. If `future` is ready as well, its output is given.
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
                // The token is polled first: whichever is polled last says where the coroutine waits, and
                // that should be `future`.
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
