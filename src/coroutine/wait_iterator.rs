//! `WaitIterator`: many futures in the order in which they finish.

use std::fmt;
use std::future::poll_fn;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::stream::{FusedStream, FuturesUnordered, Stream, StreamExt};
use pin_project_lite::pin_project;

use crate::resumption;

pin_project! {
    /// A future that remembers its place.
    struct Numbered<F> {
        index: usize,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Numbered<F> {
    type Output = (usize, F::Output);

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        this.future.poll(cx).map(|output| (*this.index, output))
    }
}

/// Gives the outputs of many futures as they finish; those that are done already, in the order of
/// the input. Tornado: `gen.WaitIterator`.
///
/// An error is the output of its future alone; the iteration goes on. It is a [`Stream`], too.
/// `next` is cancel safe: an output that was not given is given by the following call.
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
///         seen.push((n, waits.current_index().unwrap()));
///     }
///     assert_eq!(seen, [(1, 1), (2, 2), (3, 0)]);
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "streams do nothing unless polled"]
pub struct WaitIterator<F> {
    /// Where it was made: there waits who uses this as a stream.
    place: &'static Location<'static>,
    waiting: FuturesUnordered<Numbered<F>>,
    current: Option<usize>,
}

impl<F: Future> WaitIterator<F> {
    /// Iterates over these.
    #[track_caller]
    pub fn new(futures: impl IntoIterator<Item = F>) -> WaitIterator<F> {
        let futures = futures.into_iter().enumerate();
        WaitIterator {
            place: Location::caller(),
            waiting: futures.map(|(index, future)| Numbered { index, future }).collect(),
            current: None,
        }
    }

    /// Waits for the next output; `None` when all have been given.
    #[expect(clippy::should_implement_trait, reason = "it is awaited, and Tornado's name")]
    #[track_caller]
    pub fn next(&mut self) -> impl Future<Output = Option<F::Output>> {
        resumption::or_here(self.advance())
    }

    /// [`next`](WaitIterator::next) that does not say where it waits.
    pub(super) fn advance(&mut self) -> impl Future<Output = Option<F::Output>> {
        poll_fn(|cx| self.poll_advance(cx))
    }

    fn poll_advance(&mut self, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        let next = ready!(self.waiting.poll_next_unpin(cx));
        let (current, output) = next.unzip();
        self.current = current;
        Poll::Ready(output)
    }

    /// Whether all outputs have been given. Tornado: `done`.
    pub fn done(&self) -> bool {
        self.waiting.is_empty()
    }

    /// An empty place for each output.
    pub(super) fn places<T>(&self) -> impl Iterator<Item = Option<T>> + use<F, T> {
        (0..self.waiting.len()).map(|_| None)
    }

    /// The place in the input of the output given last; `None` before the first and after the end.
    pub fn current_index(&self) -> Option<usize> {
        self.current
    }
}

impl<F: Future> Stream for WaitIterator<F> {
    type Item = F::Output;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        let place = self.place;
        Pin::new(&mut resumption::or_at(place, self.advance())).poll(cx)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.waiting.len(), Some(self.waiting.len()))
    }
}

impl<F: Future> FusedStream for WaitIterator<F> {
    fn is_terminated(&self) -> bool {
        self.done()
    }
}

impl<F> fmt::Debug for WaitIterator<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitIterator")
            .field("waiting", &self.waiting.len())
            .field("current_index", &self.current)
            .finish()
    }
}
