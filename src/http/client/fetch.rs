//! `Fetch`: a request on its way, from the queue to the head of the answer.

use std::fmt;
use std::mem;
use std::panic::Location;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ::http::uri::Authority;
use ::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header,
};
use ::hyper::body::Incoming as WireBody;
use futures::channel::oneshot;
use futures::future::FusedFuture;
use url::{Position, Url};

use super::basic::basic;
use super::connection::Failed;
use super::error::FetchError;
use super::expect;
use super::message::{Message, location};
use super::pool::{Lease, Pool};
use super::response::FetchResponse;
use super::settings::Settings;
use super::stream::Route;
use crate::coroutine::{Kind, now, start_as, with_timeout};
use crate::ground::error::TimedOut;
use crate::ground::resumption;
use crate::http::body::Body;
use crate::http::error::BoxError;
use crate::http::incoming::{Incoming, Limits};
use crate::locks::Permit;

/// The body of a redirection is read if it is no longer than this, so that the connection can be used again.
const SHORT: u64 = 4096;

/// A request, until the head of its answer has come; from [`HttpClient::fetch`](super::HttpClient::fetch) and
/// the like. It begins when it is first awaited (or polled). Until then, its methods say more of it.
///
/// Dropping it gives the request up: the connection is closed; with HTTP/2, its stream is reset.
///
/// # Errors
///
/// What awaiting it gives: see [`FetchError`]. An answer with a status like `404` is no error.
#[must_use = "a fetch does nothing unless awaited"]
pub struct Fetch {
    state: State,
    place: &'static Location<'static>,
}

enum State {
    New(Box<New>),
    Running(Pin<Box<dyn FusedFuture<Output = Result<FetchResponse, FetchError>>>>),
    Done,
}

struct New {
    pool: Rc<Pool>,
    settings: Rc<Settings>,
    message: Result<Message, FetchError>,
}

impl Fetch {
    #[track_caller]
    pub(super) fn new(
        pool: Rc<Pool>,
        settings: Rc<Settings>,
        message: Result<Message, FetchError>,
    ) -> Fetch {
        let new = New { pool, settings, message };
        Fetch { state: State::New(Box::new(new)), place: Location::caller() }
    }

    fn with(mut self, change: impl FnOnce(&mut New)) -> Fetch {
        if let State::New(new) = &mut self.state {
            change(new);
        }
        self
    }

    fn with_settings(self, change: impl FnOnce(&mut Settings)) -> Fetch {
        self.with(|new| change(Rc::make_mut(&mut new.settings)))
    }

    /// Sets a header, in place of those of this name. What is no header is an error of the fetch. Tornado:
    /// `headers`.
    pub fn header<V: TryInto<HeaderValue>>(self, name: &str, value: V) -> Fetch {
        self.with(|new| {
            let Ok(message) = &mut new.message else { return };
            match (HeaderName::try_from(name), value.try_into()) {
                (Ok(name), Ok(value)) => {
                    message.headers.insert(name, value);
                }
                _ => {
                    let message = format!("no header can be made of the value of {name:?}");
                    new.message = Err(FetchError::Invalid(message));
                }
            }
        })
    }

    /// Sets the body. One that is whole can be sent again, if a server redirects the request to another; a
    /// stream cannot. Tornado: `body`, `body_producer`.
    pub fn body(self, body: impl Into<Body>) -> Fetch {
        self.with(|new| {
            if let Ok(message) = &mut new.message {
                message.body = body.into();
            }
        })
    }

    /// Tells the server who asks, in the clear unless the URL is one of `https`. A URL can say the same:
    /// `https://name:password@host/`. Tornado: `auth_username`, `auth_password`.
    pub fn basic_auth(self, name: &str, password: &str) -> Fetch {
        self.with(|new| {
            let value = basic(name.as_bytes(), password.as_bytes());
            if let (Ok(message), Some(value)) = (&mut new.message, value) {
                message.headers.insert(header::AUTHORIZATION, value);
            }
        })
    }

    /// [`HttpClient::request_timeout`](super::HttpClient::request_timeout) for this request.
    pub fn request_timeout(self, limit: Duration) -> Fetch {
        self.with_settings(|settings| settings.request_timeout = limit)
    }

    /// [`HttpClient::max_body_size`](super::HttpClient::max_body_size) for this request.
    pub fn max_body_size(self, bytes: u64) -> Fetch {
        self.with_settings(|settings| settings.max_body_size = bytes)
    }

    /// [`HttpClient::follow_redirects`](super::HttpClient::follow_redirects) for this request.
    pub fn follow_redirects(self, yes: bool) -> Fetch {
        self.with_settings(|settings| settings.follow_redirects = yes)
    }
}

impl Future for Fetch {
    type Output = Result<FetchResponse, FetchError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let State::New(_) = &self.state {
            if let State::New(new) = mem::replace(&mut self.state, State::Done) {
                let fetching = resumption::at(self.place, run(*new));
                self.state = State::Running(Box::pin(fetching));
            }
        }
        let State::Running(fetching) = &mut self.state else { return Poll::Pending };
        let polled = fetching.as_mut().poll(cx);
        if polled.is_ready() {
            self.state = State::Done;
        }
        polled
    }
}

impl FusedFuture for Fetch {
    fn is_terminated(&self) -> bool {
        matches!(self.state, State::Done)
    }
}

impl fmt::Debug for Fetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Fetch");
        if let State::New(new) = &self.state {
            if let Ok(message) = &new.message {
                shown.field("method", &message.method).field("url", &message.url.as_str());
            }
        }
        shown.finish_non_exhaustive()
    }
}

/// What can be fetched: a URL as text or as a [`Url`], or a [`http::Request`](::http::Request) with whatever can
/// be a [`Body`].
pub trait IntoFetch: Sealed {}

mod sealed {
    use ::http::Request;

    use crate::http::body::Body;

    pub trait Sealed {
        fn what(self) -> What;
    }

    pub enum What {
        Url(String),
        Request(Box<Request<Body>>),
    }
}

use sealed::{Sealed, What};

impl<T: Sealed> IntoFetch for T {}

impl Sealed for &str {
    fn what(self) -> What {
        What::Url(self.to_owned())
    }
}

impl Sealed for &String {
    fn what(self) -> What {
        What::Url(self.clone())
    }
}

impl Sealed for String {
    fn what(self) -> What {
        What::Url(self)
    }
}

impl Sealed for &Url {
    fn what(self) -> What {
        What::Url(self.to_string())
    }
}

impl Sealed for Url {
    fn what(self) -> What {
        What::Url(self.into())
    }
}

impl<B: Into<Body>> Sealed for Request<B> {
    fn what(self) -> What {
        What::Request(Box::new(self.map(Into::into)))
    }
}

/// A request without headers and body.
pub(super) fn bare(method: Method, url: &str) -> Result<Message, FetchError> {
    Message::new(method, url, HeaderMap::new(), Body::empty())
}

/// The request of what is to be fetched.
pub(super) fn message_of(what: impl IntoFetch) -> Result<Message, FetchError> {
    match what.what() {
        What::Url(url) => bare(Method::GET, &url),
        What::Request(request) => {
            let (parts, body) = request.into_parts();
            let url = parts.uri.to_string();
            let message = Message::new(parts.method, &url, parts.headers, body)?;
            Ok(Message { extensions: parts.extensions, ..message })
        }
    }
}

async fn run(new: New) -> Result<FetchResponse, FetchError> {
    let New { pool, settings, message } = new;
    let mut message = message?;
    if message.method == Method::CONNECT {
        let why = "CONNECT is for proxies, and gives no answer".to_owned();
        return Err(FetchError::Invalid(why));
    }
    let headers = &mut message.headers;
    if let Some(agent) = &settings.user_agent {
        headers.entry(header::USER_AGENT).or_insert_with(|| agent.clone());
    }
    let permit = pool.admit(settings.queue_timeout).await?;
    let limit = settings.request_timeout;
    let until = now().checked_add(limit);
    let answered = with_timeout(limit, follow(&pool, &settings, message, permit, until)).await;
    match answered {
        Ok(Err(_)) if pool.is_closed() => Err(FetchError::Closed),
        Ok(answer) => answer,
        Err(TimedOut) => Err(FetchError::TimedOut(limit)),
    }
}

/// Goes where servers send it, until one gives an answer.
async fn follow(
    pool: &Rc<Pool>,
    settings: &Settings,
    mut message: Message,
    permit: Permit,
    until: Option<Instant>,
) -> Result<FetchResponse, FetchError> {
    // Whoever asks for a compressed answer by himself wants it as it is.
    #[cfg(feature = "compression")]
    let decompresses = settings.decompress
        && ![header::ACCEPT_ENCODING, header::RANGE]
            .iter()
            .any(|name| message.headers.contains_key(name));
    #[cfg(feature = "compression")]
    if decompresses {
        message.headers.insert(header::ACCEPT_ENCODING, crate::http::coding::ACCEPTED);
    }
    let mut history = Vec::new();
    let (lease, response) = loop {
        let again = message.body.as_bytes().cloned().map(Body::from);
        let (lease, response) = exchange(pool, settings, &mut message, until).await?;
        let location = match location(response.status(), response.headers()) {
            Some(location) if settings.follow_redirects => location,
            _ => break (lease, response),
        };
        let Some(next) = message.redirected(response.status(), location, again)? else {
            break (lease, response);
        };
        if history.len() >= settings.max_redirects {
            return Err(FetchError::TooManyRedirects(settings.max_redirects));
        }
        history.push((response.status(), mem::replace(&mut message, next).url));
        leave(lease, response).await;
    };
    let limits = Limits {
        size: settings.max_body_size,
        stall: settings.stall_timeout,
        whole: until.map_or(Duration::MAX, |until| until.saturating_duration_since(now())),
    };
    let (awaited, is_over) = oneshot::channel::<std::convert::Infallible>();
    let (parts, body) = response.into_parts();
    let body = Incoming::new(body, limits).holding(|| Box::new(awaited));
    // This also keeps the client until the body has come to its end, since its connections end with it.
    let ending = async move {
        let _ = is_over.await;
        lease.over().await;
        drop(permit);
    };
    drop(start_as(|| Kind::named("an answer to an HttpClient"), ending));
    #[cfg(feature = "compression")]
    let (mut parts, mut body) = (parts, body);
    #[cfg(feature = "compression")]
    if decompresses {
        body = crate::http::coding::decode(&mut parts.headers, body);
    }
    Ok(FetchResponse::new(Response::from_parts(parts, body), message.url, history))
}

/// Done with a redirection. If that has little more to say, the connection can be used again.
async fn leave(lease: Lease, response: Response<WireBody>) {
    let mut body = Incoming::new(response.into_body(), Limits::NONE);
    if body.remaining().is_some_and(|bytes| bytes <= SHORT) {
        // If it does not come whole, the connection is not used again.
        let _ = body.bytes().await;
    }
    drop(body);
    lease.over().await;
}

/// Sends the request, whose body is then taken, and waits for the head of the answer.
async fn exchange(
    pool: &Rc<Pool>,
    settings: &Settings,
    message: &mut Message,
    until: Option<Instant>,
) -> Result<(Lease, Response<WireBody>), FetchError> {
    let route = Route::of(&message.url, settings);
    let mut body = mem::take(&mut message.body);
    loop {
        let mut lease = pool.lease(&route, settings.connect_timeout, until).await?;
        let is_held_back = !lease.is_http2() && expect::is_asked_for(&message.headers);
        let mut request = head(message, &route, lease.is_http2())?.map(|()| body);
        if is_held_back {
            request = expect::hold_back(request);
        }
        match lease.send(request).await {
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                let error = "the server switches to another protocol, which nobody asked for";
                return Err(FetchError::Broken(BoxError::from(error)));
            }
            Ok(response) => return Ok((lease, response)),
            // The server has ended the connection before it got any of this, so another one has to do. What was
            // held back is a body no more.
            Err(Failed::Unsent(unsent, _)) if lease.is_reused() && !is_held_back => body = unsent,
            Err(Failed::Unsent(_, error)) => return Err(FetchError::of_exchange(error)),
            Err(Failed::Sent(error)) => return Err(error),
        }
    }
}

/// The head of a request as it goes over a connection.
fn head(message: &Message, route: &Route, is_http2: bool) -> Result<Request<()>, FetchError> {
    let url = &message.url;
    let invalid = |error: &dyn fmt::Display| {
        FetchError::Invalid(format!("{url} cannot be asked for: {error}"))
    };
    let mut headers = message.headers.clone();
    let told = headers.remove(header::PROXY_AUTHORIZATION);
    if let Some(proxy) = route.proxy() {
        if let Some(authorization) = proxy.authorization.clone().or(told) {
            headers.insert(header::PROXY_AUTHORIZATION, authorization);
        }
    }
    let whole_url = is_http2 || route.proxy().is_some();
    let from = if whole_url { Position::BeforeScheme } else { Position::BeforePath };
    let uri = Uri::try_from(&url[from..Position::AfterQuery]);
    let mut uri = uri.map_err(|error| invalid(&error))?;
    if is_http2 {
        headers.remove(header::EXPECT);
        // The URL names the host, unless the user has named another.
        if let Some(host) = headers.remove(header::HOST) {
            let mut parts = uri.into_parts();
            let host = Authority::try_from(host.as_bytes()).map_err(|error| invalid(&error))?;
            parts.authority = Some(host);
            uri = Uri::from_parts(parts).map_err(|error| invalid(&error))?;
        }
    } else if !headers.contains_key(header::HOST) {
        let host = HeaderValue::try_from(&url[Position::BeforeHost..Position::AfterPort]);
        headers.insert(header::HOST, host.map_err(|error| invalid(&error))?);
    }
    let mut request = Request::new(());
    *request.method_mut() = message.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    *request.extensions_mut() = message.extensions.clone();
    Ok(request)
}
