//! `TimeoutLayer`: a time limit for the requests of a part of a tower service, by the loop's clock.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::http::{Request, Response, StatusCode};

use crate::coroutine::with_timeout;
use crate::ground::error::TimedOut;

/// A tower layer that gives each request so long, and answers `503 Service Unavailable` after that: for an
/// axum `Router`, say, since those of `tower` and `tower-http` panic without tokio. For a whole server there is
/// [`request_timeout`](super::HttpServer::request_timeout).
///
/// The time is that of the loop, which may be virtual. What was asked for is dropped when the time is over.
///
/// ```
/// use std::{convert::Infallible, time::Duration};
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, ServiceExt};
/// use waterspout::{IoLoop, coroutine::sleep, http::{Body, TimeoutLayer}};
///
/// IoLoop::builder().virtual_time().build()?.run_sync(|| async {
///     let slow = tower::service_fn(async |_: Request<Body>| {
///         sleep(Duration::from_secs(60)).await;
///         Ok::<_, Infallible>(Response::new(Body::from("late")))
///     });
///     let service = ServiceBuilder::new().layer(TimeoutLayer::new(Duration::from_secs(5))).service(slow);
///     let answer = service.oneshot(Request::new(Body::empty())).await.unwrap();
///     assert_eq!(answer.status(), 503);
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct TimeoutLayer {
    limit: Duration,
    status: StatusCode,
}

impl TimeoutLayer {
    /// Gives each request so long.
    pub fn new(limit: Duration) -> TimeoutLayer {
        TimeoutLayer { limit, status: StatusCode::SERVICE_UNAVAILABLE }
    }

    /// Answers with this status after that.
    #[must_use]
    pub fn status(mut self, status: StatusCode) -> TimeoutLayer {
        self.status = status;
        self
    }
}

impl<S> tower_layer::Layer<S> for TimeoutLayer {
    type Service = Timeout<S>;

    fn layer(&self, inner: S) -> Timeout<S> {
        Timeout { inner, layer: *self }
    }
}

/// A service whose requests have a time limit; from [`TimeoutLayer`].
#[derive(Clone, Copy, Debug)]
pub struct Timeout<S> {
    inner: S,
    layer: TimeoutLayer,
}

pin_project_lite::pin_project! {
    /// An answer within a time limit; from [`Timeout`].
    #[derive(Debug)]
    pub struct InTime<F> {
        #[pin]
        answering: crate::coroutine::Timeout<F>,
        status: StatusCode,
    }
}

impl<S, A, B> tower_service::Service<Request<A>> for Timeout<S>
where
    S: tower_service::Service<Request<A>, Response = Response<B>>,
    B: Default,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = InTime<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> InTime<S::Future> {
        let answering = with_timeout(self.layer.limit, self.inner.call(request));
        InTime { answering, status: self.layer.status }
    }
}

impl<F, B, E> Future for InTime<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Default,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        Poll::Ready(ready!(this.answering.poll(cx)).unwrap_or_else(|TimedOut| {
            let mut late = Response::new(B::default());
            *late.status_mut() = *this.status;
            Ok(late)
        }))
    }
}
