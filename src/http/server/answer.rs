//! What answers requests: a function of the user's, or a tower service.

use std::rc::Rc;

use ::http::{HeaderMap, Method};
use bytes::Bytes;
use http_body::Body as HttpBody;

use super::settings::Settings;
use crate::ground::foreign;
use crate::http::body::{Body, Cut, Foreign};
#[cfg(feature = "compression")]
use crate::http::compress::{Coding, compress};
use crate::http::conditional;
use crate::http::error::BoxError;
use crate::http::incoming::Incoming;
use crate::http::request::{Connected, Request};
use crate::http::response::IntoResponse;

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
    /// `None` if it is to be a page that says nothing but `500`.
    pub(super) response: Option<::http::Response<B>>,
    /// What is to be reported.
    pub(super) failed: Option<String>,
    /// Whether the body is known to be there as a whole.
    pub(super) is_whole: bool,
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
        settings: &Settings,
        connected: Rc<Connected>,
    ) -> impl Future<Output = Answered<Body>> + use<H, R> + 'static {
        let finishing = Finishing::of(settings, &request);
        let request = Request::new(request, connected);
        async move {
            let (mut response, failed) = (self.0)(request).await.into_response().into_both();
            if let Some(finishing) = finishing {
                finishing.finish(&mut response);
            }
            let is_whole = response.body().as_bytes().is_some();
            Answered { response: Some(response), failed, is_whole }
        }
    }
}

/// What is done with the answer of a handler before it is sent, if the server was told to.
///
/// In a box, and in place: an answer is large, and each function that takes one and gives one moves it twice, also
/// for servers that were told nothing.
struct Finishing {
    method: Method,
    asked: HeaderMap,
    etag: bool,
    #[cfg(feature = "compression")]
    compresses: bool,
}

impl Finishing {
    #[inline]
    fn of(settings: &Settings, request: &::http::Request<Incoming>) -> Option<Box<Finishing>> {
        #[cfg(feature = "compression")]
        let compresses = settings.compresses;
        #[cfg(not(feature = "compression"))]
        let compresses = false;
        let finishing = || {
            Box::new(Finishing {
                method: request.method().clone(),
                asked: request.headers().clone(),
                etag: settings.etag,
                #[cfg(feature = "compression")]
                compresses,
            })
        };
        (settings.etag || compresses).then(finishing)
    }

    #[cold]
    fn finish(&self, response: &mut ::http::Response<Body>) {
        if self.etag {
            conditional::tag(&self.method, response);
        }
        #[cfg(feature = "compression")]
        if self.compresses {
            compress(response, Coding::liked(&self.asked));
        }
        // Last, for an answer that is compressed has another ETag.
        if self.etag {
            conditional::unless_had(&self.method, &self.asked, response);
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
    type Body = Cut<Foreign<B>>;

    fn answer(
        self: Rc<Self>,
        mut request: ::http::Request<Incoming>,
        _settings: &Settings,
        connected: Rc<Connected>,
    ) -> impl Future<Output = Answered<Cut<Foreign<B>>>> + use<S, B> + 'static {
        request.extensions_mut().insert(connected.peer.clone());
        async move {
            // Here, where a panic is answered and reported.
            let mut service = self.0.clone();
            let answered = async {
                std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
                service.call(request).await
            };
            match answered.await {
                Ok(response) => {
                    let response = response.map(|body| Cut::new(Foreign::new(body)));
                    Answered { response: Some(response), failed: None, is_whole: false }
                }
                Err(error) => {
                    let failed = foreign::debug(&error.into());
                    Answered { response: None, failed: Some(failed), is_whole: true }
                }
            }
        }
    }
}
