//! One request and its answer.
//!
//! Whatever a handler does, there is an answer, and somebody hears of it: a handler that panics, or fails with
//! an error that is not the client's fault, is answered with a page that says nothing but `500`, and is reported
//! with the path. An answer whose body fails on the way is reported, too, and its connection is ended, which is
//! all that can be done for the client then.

use std::convert::Infallible;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use ::http::header::CONTENT_LENGTH;
use ::http::uri::PathAndQuery;
use ::http::{HeaderValue, Method, StatusCode, Version, header};
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use http_body::{Body as HttpBody, Frame, SizeHint};
use log::Level;

use super::answer::{Answer, Answered};
use super::refused;
use super::settings::Settings;
use super::shared::Serving;
use super::wire::{Notes, STREAMS};
use crate::coroutine::{now, start, with_timeout};
use crate::ground::error::ExcInfo;
use crate::ground::foreign;
use crate::ground::report::{self, Exception, Panic};
use crate::http::body::Body;
use crate::http::error::BoxError;
use crate::http::incoming::Incoming;
use crate::http::request::{Connected, Peer};
use crate::http::response::Response;

/// A connection, as each of its requests needs to know it.
pub(super) struct Asked<A> {
    pub(super) serving: Rc<Serving<A>>,
    pub(super) settings: Rc<Settings>,
    pub(super) connected: Rc<Connected>,
    pub(super) notes: Arc<Notes>,
}

/// Answers a request.
///
/// What can be done at once is done here, and not when the future is first polled: a request is large, and each
/// future that it is moved into and out of again moves all of it twice.
pub(super) fn exchange<A: Answer>(
    asked: &Asked<A>,
    request: ::http::Request<::hyper::body::Incoming>,
) -> impl Future<Output = Result<::http::Response<Sent<A::Body>>, Infallible>> + use<A> {
    let Asked { serving, settings, connected, notes } = asked;
    let exchange = Exchange::begins(settings, connected, notes.clone(), &request);
    if let Err(why) = refused::check(&request) {
        serving.shared.complain(&connected.peer, &why);
        let answering = Answering::Refused { status: StatusCode::BAD_REQUEST };
        return Exchanging { answering, exchange: Some(exchange) };
    }
    if settings.finishes && notes.unfinished() >= STREAMS {
        let answering = Answering::Refused { status: StatusCode::SERVICE_UNAVAILABLE };
        return Exchanging { answering, exchange: Some(exchange) };
    }
    let incoming =
        |body| Incoming::new(body, settings.body).holding(|| Box::new(notes.receiving()));
    let request = request.map(incoming);
    #[cfg(feature = "compression")]
    let request = if settings.decompresses { decompressed(request) } else { request };
    let answering = serving.answer.clone().answer(request, settings, connected.clone());
    let answering = AssertUnwindSafe(answering).catch_unwind();
    let answering = if settings.finishes || settings.request != Duration::MAX {
        let answering = bounded(settings.clone(), notes.clone(), answering);
        Answering::Bounded { answering: Box::pin(answering) }
    } else {
        Answering::Plain { answering }
    };
    Exchanging { answering, exchange: Some(exchange) }
}

/// A request whose body is given as it was before it was compressed.
#[cfg(feature = "compression")]
fn decompressed(mut request: ::http::Request<Incoming>) -> ::http::Request<Incoming> {
    let body = std::mem::take(request.body_mut());
    *request.body_mut() = crate::http::coding::decode(request.headers_mut(), body);
    request
}

/// What has come of a handler: a panic, if there is no answer.
type Outcome<B> = Result<Answered<B>, Panic>;

pin_project_lite::pin_project! {
    struct Exchanging<F, B> {
        #[pin]
        answering: Answering<F, B>,
        // `None` once it is a part of the answer.
        exchange: Option<Exchange>,
    }
}

pin_project_lite::pin_project! {
    #[project = AnsweringProjection]
    enum Answering<F, B> {
        Plain { #[pin] answering: F },
        // The client has broken the rules, or has too many handlers run.
        Refused { status: StatusCode },
        // `None` if it has taken too long.
        Bounded { answering: LocalBoxFuture<'static, Option<Outcome<B>>> },
    }
}

impl<F, B> Future for Exchanging<F, B>
where
    F: Future<Output = Outcome<B>>,
    B: HttpBody<Data = Bytes, Error: Into<BoxError>>,
{
    type Output = Result<::http::Response<Sent<B>>, Infallible>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answered = match this.answering.project() {
            AnsweringProjection::Plain { answering } => Some(ready!(answering.poll(cx))),
            AnsweringProjection::Bounded { answering } => ready!(answering.as_mut().poll(cx)),
            AnsweringProjection::Refused { status } => {
                let Some(exchange) = this.exchange.take() else { return Poll::Pending };
                let mut response = page(*status, exchange);
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
                return Poll::Ready(Ok(response));
            }
        };
        let Some(mut exchange) = this.exchange.take() else { return Poll::Pending };
        let response = match answered {
            Some(Ok(Answered { response, failed, is_whole })) => {
                if let Some(failed) = failed {
                    exchange.asked.fails(ExcInfo::error(failed));
                }
                match response {
                    Some(response) => {
                        if response.headers().keys().any(|name| name == CONTENT_LENGTH) {
                            if let Err(wrong) = exchange.check_length(&response) {
                                exchange.asked.fails(ExcInfo::error(wrong));
                                let status = StatusCode::INTERNAL_SERVER_ERROR;
                                return Poll::Ready(Ok(page(status, exchange)));
                            }
                        }
                        exchange.asked.is_answered(response.status());
                        if exchange.has_no_body(response.status()) {
                            return Poll::Ready(Ok(without_body(response, exchange)));
                        }
                        response.map(|body| exchange.sends(Sending::Theirs { body }, is_whole))
                    }
                    None => page(StatusCode::INTERNAL_SERVER_ERROR, exchange),
                }
            }
            Some(Err(panic)) => {
                exchange.asked.fails(ExcInfo::from_panic(&*panic));
                report::discard_panic(panic);
                page(StatusCode::INTERNAL_SERVER_ERROR, exchange)
            }
            None => page(StatusCode::SERVICE_UNAVAILABLE, exchange),
        };
        Poll::Ready(Ok(response))
    }
}

/// Within a time limit, and if it is to finish in any case, in a coroutine of its own.
async fn bounded<F: Future + 'static>(
    settings: Rc<Settings>,
    notes: Arc<Notes>,
    answering: F,
) -> Option<F::Output> {
    if settings.finishes {
        let finishing = async move {
            let _unfinished = notes.finishes();
            answering.await
        };
        // If the connection ends, only this handle is dropped, and the coroutine runs on.
        within(settings.request, pin!(start(finishing))).await
    } else {
        within(settings.request, pin!(answering)).await
    }
}

/// Gives a handler its time limit, if it has one; `None` after that.
async fn within<F: Future + Unpin>(limit: Duration, answering: F) -> Option<F::Output> {
    match limit {
        Duration::MAX => Some(answering.await),
        limit => with_timeout(limit, answering).await.ok(),
    }
}

/// An answer that says no more than its status.
#[cold]
fn page<B>(status: StatusCode, mut exchange: Exchange) -> ::http::Response<Sent<B>> {
    exchange.asked.is_answered(status);
    let response = Response::of_status(status).into_inner();
    if exchange.has_no_body(status) {
        return without_body(response, exchange);
    }
    response.map(|body| {
        let text = body.as_bytes().cloned().unwrap_or_default();
        exchange.sends(Sending::Page { text }, true)
    })
}

/// An answer of which only the head is sent. It says how long the body would be, if that is known.
#[cold]
fn without_body<B: HttpBody, C>(
    response: ::http::Response<B>,
    exchange: Exchange,
) -> ::http::Response<Sent<C>> {
    let (mut head, body) = response.into_parts();
    let length = body.size_hint().exact().filter(|_| exchange.asked.method == Method::HEAD);
    if let Some(length) = length {
        head.headers.entry(CONTENT_LENGTH).or_insert_with(|| length.into());
    }
    foreign::discard(body);
    let sending = Sending::Page { text: Bytes::new() };
    ::http::Response::from_parts(head, exchange.sends(sending, true))
}

/// A request that is being answered.
struct Exchange {
    under_way: UnderWay,
    asked: Request,
    is_http2: bool,
}

/// Counts a request, and what of its answer was not taken, until it is dropped.
struct UnderWay {
    notes: Arc<Notes>,
    /// Whether the answer has given something that was not taken yet.
    is_untaken: bool,
}

/// What was asked for, for reports and for the access log, of which it writes its line when it is dropped.
struct Request {
    method: Method,
    path: Option<PathAndQuery>,
    connected: Rc<Connected>,
    line: Option<Line>,
}

/// A line of the access log.
struct Line {
    begun: Instant,
    status: Option<StatusCode>,
}

impl Exchange {
    fn begins(
        settings: &Settings,
        connected: &Rc<Connected>,
        notes: Arc<Notes>,
        request: &::http::Request<::hyper::body::Incoming>,
    ) -> Exchange {
        notes.begins();
        let logs = settings.logs_access && log::log_enabled!(target: report::ACCESS, Level::Error);
        let asked = Request {
            method: request.method().clone(),
            path: request.uri().path_and_query().cloned(),
            connected: connected.clone(),
            line: logs.then(|| Line { begun: now(), status: None }),
        };
        let under_way = UnderWay { notes, is_untaken: false };
        Exchange { under_way, asked, is_http2: request.version() == Version::HTTP_2 }
    }

    /// The body of its answer. If that is there as a whole it cannot fail, and if there is no access log either,
    /// nobody will want to know any more what was asked for.
    #[inline]
    fn sends<B>(self, sending: Sending<B>, is_whole: bool) -> Sent<B> {
        let is_wanted = !is_whole || self.asked.line.is_some();
        let asked = is_wanted.then(|| Box::new(self.asked));
        Sent { sending, under_way: self.under_way, asked }
    }

    /// Whether the body of an answer is not to be sent. Of HTTP/1, hyper sees to that.
    #[inline]
    fn has_no_body(&self, status: StatusCode) -> bool {
        self.is_http2
            && (self.asked.method == Method::HEAD
                || status == StatusCode::NO_CONTENT
                || status == StatusCode::NOT_MODIFIED)
    }

    /// Whether the length that a handler has given is that of its body. The client would take what is beyond it for
    /// the next answer, and hyper believes it.
    #[cold]
    fn check_length<B: HttpBody>(&self, response: &::http::Response<B>) -> Result<(), String> {
        if self.asked.method == Method::HEAD || response.status() == StatusCode::NOT_MODIFIED {
            return Ok(());
        }
        let given = response.headers()[CONTENT_LENGTH].to_str().unwrap_or("no text");
        let is_number = given.bytes().all(|byte| byte.is_ascii_digit());
        let length = given.parse::<u64>().ok().filter(|_| is_number);
        match response.body().size_hint().exact() {
            None if length.is_some() => Ok(()),
            None => Err(format!("the Content-Length {given:?} is no length")),
            Some(exact) if length == Some(exact) => Ok(()),
            Some(exact) => Err(format!("the Content-Length {given:?} of a body of {exact} bytes")),
        }
    }
}

impl UnderWay {
    #[inline]
    fn is_taken(&mut self) {
        if std::mem::take(&mut self.is_untaken) {
            self.notes.is_taken();
        }
    }

    #[inline]
    fn gives(&mut self) {
        self.is_untaken = true;
        self.notes.gives();
    }
}

impl Drop for UnderWay {
    #[inline]
    fn drop(&mut self) {
        self.is_taken();
        self.notes.ends();
    }
}

impl Request {
    #[inline]
    fn is_answered(&mut self, status: StatusCode) {
        if let Some(line) = &mut self.line {
            line.status = Some(status);
        }
    }

    #[cold]
    fn fails(&self, info: ExcInfo) {
        let info = ExcInfo::error(format!("{info}, at {self}"));
        let made = self.connected.made;
        let (name, location) = (Some((made.name)()), Some(made.place));
        report::report(Exception { what: "a request handler", name, location, info });
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.as_ref().map_or("*", PathAndQuery::as_str);
        write!(f, "{} {path}", self.method)
    }
}

impl Drop for Request {
    #[inline]
    fn drop(&mut self) {
        if let Some(line) = self.line.take() {
            line.log(self);
        }
    }
}

impl Line {
    /// As Tornado's `log_request` has it.
    #[cold]
    fn log(&self, asked: &Request) {
        let took = (now() - self.begun).as_secs_f64() * 1000.0;
        let peer: &dyn fmt::Display = match &asked.connected.peer {
            Peer::Tcp(address) => &address.ip(),
            peer => peer,
        };
        let Some(status) = self.status else {
            let text = format_args!("--- {asked} ({peer}) {took:.2}ms: the client hung up");
            return report::tell_if_logged(Level::Info, report::ACCESS, text);
        };
        let level = match status.as_u16() {
            500.. => Level::Error,
            400.. => Level::Warn,
            _ => Level::Info,
        };
        let text = format_args!("{} {asked} ({peer}) {took:.2}ms", status.as_str());
        report::tell_if_logged(level, report::ACCESS, text);
    }
}

pin_project_lite::pin_project! {
    /// The body of an answer, as hyper gets it.
    pub(super) struct Sent<B> {
        #[pin]
        sending: Sending<B>,
        under_way: UnderWay,
        asked: Option<Box<Request>>,
    }
}

/// hyper moves an answer eight times, and what is larger than this is moved by a function call each time.
const _: () = assert!(size_of::<::http::Response<Sent<Body>>>() <= 256);

pin_project_lite::pin_project! {
    #[project = SendingProjection]
    enum Sending<B> {
        Theirs { #[pin] body: B },
        Page { text: Bytes },
    }
}

impl<B: HttpBody<Data = Bytes, Error: Into<BoxError>>> HttpBody for Sent<B> {
    type Data = Bytes;
    type Error = BoxError;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        this.under_way.is_taken();
        let frame = match this.sending.project() {
            SendingProjection::Theirs { body } => ready!(body.poll_frame(cx)),
            SendingProjection::Page { text } if text.is_empty() => None,
            SendingProjection::Page { text } => Some(Ok(Frame::data(std::mem::take(text)))),
        };
        match frame {
            None => Poll::Ready(None),
            Some(Ok(frame)) => {
                this.under_way.gives();
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                let error = error.into();
                if let Some(asked) = this.asked {
                    asked.fails(ExcInfo::error(format!("the body of the answer: {error}")));
                }
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        match &self.sending {
            Sending::Theirs { body } => body.is_end_stream(),
            Sending::Page { text } => text.is_empty(),
        }
    }

    #[inline]
    fn size_hint(&self) -> SizeHint {
        match &self.sending {
            Sending::Theirs { body } => body.size_hint(),
            Sending::Page { text } => SizeHint::with_exact(text.len() as u64),
        }
    }
}
