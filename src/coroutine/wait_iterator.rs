//! `WaitIterator`: many futures in the order in which they finish.

use std::fmt;
use std::future::poll_fn;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::future::FusedFuture;
use futures::stream::{FusedStream, FuturesUnordered, Stream, StreamExt};
use pin_project_lite::pin_project;

use crate::ground::{foreign, resumption};

pin_project! {
    /// A future that gives its key with its output.
    struct Keyed<K, F> {
        key: Option<K>,
        #[pin]
        future: F,
    }
}

impl<K, F: Future> Future for Keyed<K, F> {
    type Output = (Option<K>, F::Output);

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        this.future.poll(cx).map(|output| (this.key.take(), output))
    }
}

/// Gives the outputs of many futures as they finish. Those that are done from the start come in the order of
/// the input. Tornado: `gen.WaitIterator`.
///
/// Each future has a key, by which [`current_index`](WaitIterator::current_index) tells whose output was
/// given last: its index in the input, or the key that was given to [`keyed`](WaitIterator::keyed).
///
/// If a future gives an error, that is an output like others, and the iteration goes on. This is a
/// [`Stream`], too.
///
/// ```
/// use std::time::Duration;
/// use waterspout::{IoLoop, coroutine::{WaitIterator, sleep}};
///
/// let io_loop = IoLoop::builder().virtual_time().build()?;
/// io_loop.run_sync(|| async {
///     let mut waits = WaitIterator::new([3, 1, 2].map(|n| async move {
///         sleep(Duration::from_secs(n)).await;
///         n
///     }));
///     let mut seen = Vec::new();
///     while let Some(n) = waits.next().await {
///         seen.push((n, *waits.current_index().unwrap()));
///     }
///     assert_eq!(seen, [(1, 1), (2, 2), (3, 0)]);
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "streams do nothing unless polled"]
pub struct WaitIterator<F, K = usize> {
    /// Where this was made. A coroutine that uses it as a stream is listed as waiting here.
    place: &'static Location<'static>,
    waiting: FuturesUnordered<Keyed<K, F>>,
    /// The key of the output that was given last.
    current: Option<K>,
}

impl<F: Future> WaitIterator<F> {
    /// Iterates over these futures. The key of each is its index in the input, from 0.
    #[track_caller]
    pub fn new(futures: impl IntoIterator<Item = F>) -> WaitIterator<F> {
        WaitIterator::keyed(futures.into_iter().enumerate())
    }

    /// A `None` for each future that is left, to be replaced by what it gives.
    pub(super) fn empty_values<T>(&self) -> impl Iterator<Item = Option<T>> + use<F, T> {
        (0..self.waiting.len()).map(|_| None)
    }
}

impl<F: Future, K> WaitIterator<F, K> {
    /// Iterates over the futures of a map, or of any pairs of key and future. Tornado:
    /// `WaitIterator(**kwargs)`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use waterspout::{IoLoop, coroutine::{WaitIterator, sleep}};
    ///
    /// let io_loop = IoLoop::builder().virtual_time().build()?;
    /// io_loop.run_sync(|| async {
    ///     let slow = sleep(Duration::from_secs(2));
    ///     let fast = sleep(Duration::from_secs(1));
    ///     let mut waits = WaitIterator::keyed([("slow", slow), ("fast", fast)]);
    ///     waits.next().await;
    ///     assert_eq!(waits.current_index(), Some(&"fast"));
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn keyed(futures: impl IntoIterator<Item = (K, F)>) -> WaitIterator<F, K> {
        let keyed = |(key, future)| Keyed { key: Some(key), future };
        WaitIterator {
            place: Location::caller(),
            waiting: futures.into_iter().map(keyed).collect(),
            current: None,
        }
    }

    /// Waits for the next output; `None` when all have been given.
    ///
    /// Cancel safe: an output that a dropped call has not given is given by the next call.
    #[expect(clippy::should_implement_trait, reason = "it is awaited, and Tornado's name")]
    #[track_caller]
    pub fn next(&mut self) -> impl FusedFuture<Output = Option<F::Output>> {
        resumption::or_here(self.advance())
    }

    /// [`next`](WaitIterator::next), for callers that say themselves where the coroutine waits.
    pub(super) fn advance(&mut self) -> impl Future<Output = Option<F::Output>> {
        poll_fn(|cx| self.poll_advance(cx))
    }

    fn poll_advance(&mut self, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        let next = ready!(self.waiting.poll_next_unpin(cx));
        let (current, output) = next.unzip();
        // The destructor of a key is foreign code. If it panics, the output must not be lost.
        foreign::discard(std::mem::replace(&mut self.current, current.flatten()));
        Poll::Ready(output)
    }

    /// Whether all outputs have been given. Tornado: `done`.
    pub fn done(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The key of the output that was given last; `None` before the first and after the end. Tornado:
    /// `current_index`.
    pub fn current_index(&self) -> Option<&K> {
        self.current.as_ref()
    }
}

// The futures are pinned in allocations of their own, so this can be moved.
impl<F, K> Unpin for WaitIterator<F, K> {}

impl<F: Future, K> Stream for WaitIterator<F, K> {
    type Item = F::Output;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        let place = self.place;
        Pin::new(&mut resumption::or_at(place, self.advance())).poll(cx)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.waiting.len(), Some(self.waiting.len()))
    }
}

impl<F: Future, K> FusedStream for WaitIterator<F, K> {
    fn is_terminated(&self) -> bool {
        self.done()
    }
}

impl<F, K: fmt::Debug> fmt::Debug for WaitIterator<F, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitIterator")
            .field("waiting", &self.waiting.len())
            .field("current_index", &self.current)
            .finish()
    }
}
