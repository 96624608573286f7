//! `with_timeout`: a time limit on anything that is awaited.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::FusedFuture;
use pin_project_lite::pin_project;

use super::sleep::Sleep;
use crate::ground::error::TimedOut;
use crate::ground::resumption::{self, Told};
use crate::ioloop::Deadline;

pin_project! {
    /// A future with a time limit; from [`with_timeout`].
    #[must_use = "futures do nothing unless awaited"]
    #[derive(Debug)]
    pub struct Timeout<F> {
        #[pin]
        future: Told<F>,
        sleep: Sleep,
    }
}

/// Awaits `future`, but no longer than until `deadline`: an [`Instant`](std::time::Instant), or a
/// [`Duration`](std::time::Duration) from this call. Tornado: `gen.with_timeout`.
///
/// If `future` is ready and the deadline has passed, `future` wins: it is asked before the time is. The timer
/// is set only if `future` is not ready when it is first asked. When the time is up, `future` is
/// dropped. That ends an `async` block or a read; but the [`Coroutine`](crate::Coroutine)s that `future`
/// awaits are only detached, and go on, as Tornado's do. To cancel a coroutine that is too slow, with all
/// that it awaits, give its [`CancelOnDrop`](super::CancelOnDrop), as in the second example.
///
/// Dropping this before it is done removes the timer and drops `future`: it is as cancel safe as that.
///
/// # Errors
///
/// [`TimedOut`] if `future` was not ready in time.
///
/// # Panics
///
/// As [`sleep`](super::sleep()).
///
/// ```
/// use std::time::Duration;
/// use waterspout::{IoLoop, coroutine::{sleep, with_timeout}};
///
/// let io_loop = IoLoop::builder().virtual_time().build()?;
/// let result = io_loop.run_sync(|| async {
///     let limit = Duration::from_secs(1);
///     assert_eq!(with_timeout(limit, async { 5 }).await, Ok(5));
///     with_timeout(limit, sleep(Duration::from_secs(2))).await
/// })?;
/// assert!(result.is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A coroutine goes on when its time is up, unless its handle cancels it: for `work` the caller asks for
/// that, for `lookup` the attribute does.
///
/// ```
/// use std::time::Duration;
/// use waterspout::{IoLoop, coroutine::{sleep, with_timeout}};
///
/// # #[cfg(feature = "macros")]
/// # {
/// #[waterspout::coroutine]
/// async fn work() {
///     sleep(Duration::from_secs(60)).await;
/// }
///
/// #[waterspout::coroutine(cancel_on_drop)]
/// async fn lookup() {
///     sleep(Duration::from_secs(60)).await;
/// }
///
/// let io_loop = IoLoop::builder().virtual_time().build()?;
/// io_loop.run_sync(|| async {
///     let limit = Duration::from_secs(1);
///     assert!(with_timeout(limit, work().cancel_on_drop()).await.is_err());
///     assert!(with_timeout(limit, lookup()).await.is_err());
/// })?;
/// assert!(io_loop.coroutines().is_empty());
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[track_caller]
pub fn with_timeout<F: IntoFuture>(
    deadline: impl Into<Deadline>,
    future: F,
) -> Timeout<F::IntoFuture> {
    let sleep = Sleep::until(deadline.into());
    Timeout { future: resumption::or_here(future.into_future()), sleep }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, TimedOut>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        // The future is asked first: if it is ready, as most that have a time limit are, no timer is set.
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        let place = resumption::place();
        if Pin::new(this.sleep).poll(cx).is_ready() {
            return Poll::Ready(Err(TimedOut));
        }
        // The timer has noted that the coroutine waits for it. But the coroutine waits for the future.
        if let Some(place) = place {
            resumption::waits_at(place);
        }
        Poll::Pending
    }
}

impl<F: Future> FusedFuture for Timeout<F> {
    fn is_terminated(&self) -> bool {
        self.future.is_terminated() || self.sleep.is_over()
    }
}

impl<F> Timeout<F> {
    /// Gives the future back, without the limit, to go on with what was not done in time. The timer is
    /// removed.
    ///
    /// ```
    /// use std::time::Duration;
    /// use waterspout::{IoLoop, coroutine::{sleep, with_timeout}};
    ///
    /// let io_loop = IoLoop::builder().virtual_time().build()?;
    /// let begun = io_loop.time();
    /// io_loop.run_sync(|| async {
    ///     let mut limited = with_timeout(Duration::from_secs(1), sleep(Duration::from_secs(3)));
    ///     if (&mut limited).await.is_err() {
    ///         limited.into_inner().await; // it takes two seconds more
    ///     }
    /// })?;
    /// assert_eq!(io_loop.time() - begun, Duration::from_secs(3));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn into_inner(self) -> F {
        self.future.into_inner()
    }
}
