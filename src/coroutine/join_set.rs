//! `JoinSet`: coroutines whose outputs come as they end.

use std::fmt;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::FusedFuture;
use futures::stream::{FuturesUnordered, Stream, StreamExt};

use super::{CancelHandle, Coroutine, JoinHandle, spawn_at};
use crate::ground::error::JoinError;
use crate::ground::resumption;

/// A set of coroutines that gives their outputs in the order in which they end. (Of those that have ended
/// before the set was waited on for the first time since they were added, the outputs come in the order in
/// which they were added.) Coroutines can be added at any time. Dropping the set cancels those that have not ended. tokio: `JoinSet`; Tornado's
/// [`WaitIterator`](super::WaitIterator) is for a set that is known from the start.
///
/// It is also a [`Stream`], which ends when the set is empty.
///
/// ```
/// use std::time::Duration;
/// use waterspout::{IoLoop, coroutine::{JoinSet, sleep}};
///
/// let io_loop = IoLoop::builder().virtual_time().build()?;
/// let order = io_loop.run_sync(|| async {
///     let mut set = JoinSet::new();
///     for n in [3, 1, 2] {
///         set.spawn(async move {
///             sleep(Duration::from_secs(n)).await;
///             n
///         });
///     }
///     let mut order = Vec::new();
///     while let Some(output) = set.join_next().await {
///         order.push(output?);
///     }
///     Ok::<_, waterspout::JoinError>(order)
/// })??;
/// assert_eq!(order, [1, 2, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping it cancels its coroutines"]
pub struct JoinSet<T> {
    coroutines: FuturesUnordered<JoinHandle<T>>,
}

impl<T> JoinSet<T> {
    /// An empty set.
    pub fn new() -> JoinSet<T> {
        JoinSet { coroutines: FuturesUnordered::new() }
    }

    /// Queues `future` as a coroutine of the current loop, and adds that to the set. The handle that this
    /// gives can cancel the coroutine.
    ///
    /// # Panics
    ///
    /// As [`spawn`](super::spawn()).
    #[track_caller]
    pub fn spawn<F>(&mut self, future: F) -> CancelHandle
    where
        F: Future<Output = T> + 'static,
    {
        self.add(spawn_at(Location::caller(), future))
    }

    /// Adds a coroutine that was started elsewhere, for instance by calling a `#[coroutine]` function.
    #[track_caller]
    pub fn add(&mut self, coroutine: Coroutine<T>) -> CancelHandle {
        let handle = coroutine.cancel_handle();
        self.coroutines.push(coroutine.cancel_on_drop().join());
        handle
    }

    /// Waits until a coroutine of the set ends, takes it out of the set and gives its output; `None` if
    /// the set is empty. A coroutine that was cancelled or has panicked gives a [`JoinError`].
    ///
    /// Cancel safe: a coroutine that a dropped call has not given stays in the set.
    #[track_caller]
    pub fn join_next(&mut self) -> impl FusedFuture<Output = Option<Result<T, JoinError>>> {
        resumption::here(self.coroutines.next())
    }

    /// How many coroutines are in the set, including those that have ended and were not taken out.
    pub fn len(&self) -> usize {
        self.coroutines.len()
    }

    /// Whether no coroutine is in the set.
    pub fn is_empty(&self) -> bool {
        self.coroutines.is_empty()
    }

    /// Cancels the coroutines that have not ended. They stay in the set until they are taken out.
    pub fn cancel(&self) {
        // Cancelling runs destructors, which are foreign code: the set must not be iterated over meanwhile.
        let handles: Vec<_> = self.coroutines.iter().map(JoinHandle::cancel_handle).collect();
        handles.iter().for_each(CancelHandle::cancel);
    }
}

impl<T> Stream for JoinSet<T> {
    type Item = Result<T, JoinError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.coroutines.poll_next_unpin(cx)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len(), Some(self.len()))
    }
}

impl<T> Default for JoinSet<T> {
    fn default() -> JoinSet<T> {
        JoinSet::new()
    }
}

impl<T> fmt::Debug for JoinSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinSet").field("len", &self.len()).finish()
    }
}
