//! What answers requests: a function of the user's, or a tower service.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use ::http::StatusCode;
use bytes::{Buf as _, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::settings::Settings;
use crate::ground::foreign;
use crate::http::body::Body;
use crate::http::error::BoxError;
use crate::http::incoming::Incoming;
use crate::http::request::{Connected, Request};
use crate::http::response::{IntoResponse, Response};

/// Gives the answer to a request.
pub(super) trait Answer: 'static {
    /// The body of its answers.
    type Body: HttpBody<Data = Bytes, Error: Into<BoxError>> + 'static;

    fn answer(
        self: Rc<Self>,
        request: ::http::Request<Incoming>,
        settings: &Settings,
        connected: Rc<Connected>,
    ) -> impl Future<Output = Answered<Self::Body>> + use<Self> + 'static;
}

pub(super) struct Answered<B> {
    pub(super) response: ::http::Response<B>,
    /// What is to be reported.
    pub(super) failed: Option<String>,
}

/// A function of the user's.
pub(super) struct Handler<H>(pub(super) H);

impl<H, R> Answer for Handler<H>
where
    H: AsyncFn(Request) -> R + 'static,
    R: IntoResponse + 'static,
{
    type Body = Body;

    fn answer(
        self: Rc<Self>,
        request: ::http::Request<Incoming>,
        _settings: &Settings,
        connected: Rc<Connected>,
    ) -> impl Future<Output = Answered<Body>> + use<H, R> + 'static {
        let request = Request::new(request, connected);
        async move {
            let mut response = (self.0)(request).await.into_response();
            let failed = response.take_failure();
            Answered { response: response.into_inner(), failed }
        }
    }
}

/// A tower service.
pub(super) struct Tower<S>(pub(super) S);

impl<S, B> Answer for Tower<S>
where
    S: tower_service::Service<::http::Request<Incoming>, Response = ::http::Response<B>>,
    S: Clone + 'static,
    S::Error: Into<BoxError>,
    B: HttpBody<Error: Into<BoxError>> + 'static,
{
    type Body = Either<B>;

    fn answer(
        self: Rc<Self>,
        mut request: ::http::Request<Incoming>,
        _settings: &Settings,
        connected: Rc<Connected>,
    ) -> impl Future<Output = Answered<Either<B>>> + use<S, B> + 'static {
        request.extensions_mut().insert(connected.peer.clone());
        let mut service = self.0.clone();
        async move {
            let answered = async {
                std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
                service.call(request).await
            };
            match answered.await {
                Ok(response) => {
                    let response = response.map(|body| Either::Theirs { body });
                    Answered { response, failed: None }
                }
                Err(error) => {
                    let failed = Some(foreign::debug(&error.into()));
                    let page = Response::of_status(StatusCode::INTERNAL_SERVER_ERROR);
                    let response = page.into_inner().map(|body| Either::Page { body });
                    Answered { response, failed }
                }
            }
        }
    }
}

pin_project_lite::pin_project! {
    /// The body of a tower service, whose parts are turned into [`Bytes`], or a page.
    #[project = EitherProjection]
    pub(super) enum Either<B> {
        Theirs { #[pin] body: B },
        Page { body: Body },
    }
}

impl<B: HttpBody<Error: Into<BoxError>>> HttpBody for Either<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match self.project() {
            EitherProjection::Theirs { body } => ready!(body.poll_frame(cx)).map(|frame| {
                let frame = frame.map_err(Into::into)?;
                Ok(frame.map_data(|mut data| data.copy_to_bytes(data.remaining())))
            }),
            EitherProjection::Page { body } => {
                ready!(Pin::new(body).poll_frame(cx)).map(|frame| frame.map_err(Into::into))
            }
        };
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Either::Theirs { body } => body.is_end_stream(),
            Either::Page { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Either::Theirs { body } => body.size_hint(),
            Either::Page { body } => HttpBody::size_hint(body),
        }
    }
}
