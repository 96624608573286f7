//! `Response`: what a handler gives, and what can be made one.

use std::any::Any;
use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::ops::{Deref, DerefMut};

use ::http::{HeaderName, HeaderValue, StatusCode, header, response};
use bytes::Bytes;

use super::body::Body;
use super::error::BodyError;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// An answer: `200 OK` unless told.
///
/// It dereferences to the [`http::Response`](::http::Response) that it is around: its status, headers and body.
/// `Content-Length` or chunks, `Date` and what HTTP/1 says of the connection are added when it is sent.
///
/// ```
/// use waterspout::http::{Response, StatusCode};
///
/// let response = Response::html("<p>made").with_status(StatusCode::CREATED).with_header("location", "/7");
/// assert_eq!(response.status(), 201);
/// assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
/// ```
#[must_use]
pub struct Response {
    inner: ::http::Response<Body>,
    /// What has gone wrong, which is reported and not sent.
    failed: Option<String>,
}

impl Response {
    /// An answer with this body, and no header.
    pub fn new(body: impl Into<Body>) -> Response {
        Response { inner: ::http::Response::new(body.into()), failed: None }
    }

    /// Text, in UTF-8.
    pub fn text(text: impl Into<Body>) -> Response {
        Response::of_type(TEXT, text)
    }

    /// A page, in UTF-8.
    pub fn html(page: impl Into<Body>) -> Response {
        Response::of_type(HTML, page)
    }

    /// What is JSON already: of `serde_json::to_string`, say.
    pub fn json(json: impl Into<Body>) -> Response {
        Response::of_type(JSON, json)
    }

    /// Sends the client elsewhere, to come back: `302 Found`. With
    /// [`with_status`](Response::with_status) it can be another redirection. Tornado: `redirect`.
    pub fn redirect(location: &str) -> Response {
        Response::new(Body::empty())
            .with_status(StatusCode::FOUND)
            .with_header("location", location)
    }

    /// A page that says no more than the status, as Tornado's `write_error` writes it. A status that goes
    /// without a body has none.
    pub fn of_status(status: StatusCode) -> Response {
        let has_body = !status.is_informational()
            && ![StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::NOT_MODIFIED]
                .contains(&status);
        if !has_body {
            return Response::new(Body::empty()).with_status(status);
        }
        let reason = status.canonical_reason().unwrap_or("Unknown");
        let (code, title) = (status.as_str(), reason);
        let page =
            format!("<html><title>{code}: {title}</title><body>{code}: {title}</body></html>");
        Response::html(page).with_status(status)
    }

    fn of_type(content_type: HeaderValue, body: impl Into<Body>) -> Response {
        let mut response = Response::new(body);
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response
    }

    /// Sets the status. Tornado: `set_status`.
    pub fn with_status(mut self, status: StatusCode) -> Response {
        *self.status_mut() = status;
        self
    }

    /// Sets a header, in place of those of this name. Tornado: `set_header`.
    ///
    /// What is no header (a line break within it, say, by which a client might smuggle a header of his own in)
    /// is not sent: the answer becomes `500 Internal Server Error`, and is reported.
    pub fn with_header<V>(mut self, name: &str, value: V) -> Response
    where
        V: TryInto<HeaderValue>,
    {
        match (HeaderName::try_from(name), value.try_into()) {
            (Ok(name), Ok(value)) => {
                self.headers_mut().insert(name, value);
                self
            }
            _ => {
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                let mut response = Response::of_status(status);
                response.failed = Some(format!("no header can be made of the value of {name:?}"));
                response
            }
        }
    }

    /// What this is around. What has gone wrong, if something has, is not reported then.
    pub fn into_inner(self) -> ::http::Response<Body> {
        self.inner
    }

    /// The head and the body, each by itself.
    pub fn into_parts(self) -> (response::Parts, Body) {
        self.inner.into_parts()
    }

    /// What this is around, and what has gone wrong.
    pub(super) fn into_both(self) -> (::http::Response<Body>, Option<String>) {
        (self.inner, self.failed)
    }
}

impl Deref for Response {
    type Target = ::http::Response<Body>;

    fn deref(&self) -> &::http::Response<Body> {
        &self.inner
    }
}

impl DerefMut for Response {
    fn deref_mut(&mut self) -> &mut ::http::Response<Body> {
        &mut self.inner
    }
}

impl<B: Into<Body>> From<::http::Response<B>> for Response {
    fn from(inner: ::http::Response<B>) -> Response {
        Response { inner: inner.map(Into::into), failed: None }
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status())
            .field("headers", self.headers())
            .field("body", self.body())
            .finish()
    }
}

/// What a handler may give: an answer, or something that one can be made of.
///
/// | | is |
/// | --- | --- |
/// | [`Response`], `http::Response` | as it is |
/// | `&'static str`, `String` | text |
/// | `Vec<u8>`, [`Bytes`] | bytes |
/// | [`StatusCode`] | a page that says no more than that |
/// | `(StatusCode, _)` | the second, with that status |
/// | `()` | `204 No Content` |
/// | [`HttpError`] | what the error is to be answered with |
/// | `Result` | either of both |
pub trait IntoResponse {
    /// Makes the answer.
    fn into_response(self) -> Response;
}

impl IntoResponse for Response {
    fn into_response(self) -> Response {
        self
    }
}

impl<B: Into<Body>> IntoResponse for ::http::Response<B> {
    fn into_response(self) -> Response {
        self.into()
    }
}

impl IntoResponse for () {
    fn into_response(self) -> Response {
        Response::of_status(StatusCode::NO_CONTENT)
    }
}

impl IntoResponse for &'static str {
    fn into_response(self) -> Response {
        Response::text(self)
    }
}

impl IntoResponse for String {
    fn into_response(self) -> Response {
        Response::text(self)
    }
}

impl IntoResponse for Bytes {
    fn into_response(self) -> Response {
        Response::of_type(BYTES, self)
    }
}

impl IntoResponse for Vec<u8> {
    fn into_response(self) -> Response {
        Response::of_type(BYTES, self)
    }
}

impl IntoResponse for StatusCode {
    fn into_response(self) -> Response {
        Response::of_status(self)
    }
}

impl<R: IntoResponse> IntoResponse for (StatusCode, R) {
    fn into_response(self) -> Response {
        self.1.into_response().with_status(self.0)
    }
}

impl<R: IntoResponse, E: IntoResponse> IntoResponse for Result<R, E> {
    fn into_response(self) -> Response {
        match self {
            Ok(response) => response.into_response(),
            Err(error) => error.into_response(),
        }
    }
}

impl IntoResponse for Infallible {
    fn into_response(self) -> Response {
        match self {}
    }
}

/// Why a handler gives up, and what is answered then. Tornado: `HTTPError`.
///
/// A handler that returns `Result<_, HttpError>` can use `?` on any error: `500 Internal Server Error` is
/// answered, and the error is reported with the path ([`Builder::on_exception`](crate::Builder::on_exception)).
/// Nothing of it is sent. A [`BodyError`] is answered with its [`status`](BodyError::status), and is not
/// reported if the client is to blame.
///
/// ```
/// use waterspout::http::{HttpError, Request, Response, StatusCode};
///
/// async fn double(mut request: Request) -> Result<Response, HttpError> {
///     let text = request.text().await?;
///     let number: u64 = text.trim().parse().map_err(|_| HttpError::new(StatusCode::BAD_REQUEST))?;
///     let page = std::fs::read_to_string("/no/such/template")?; // answered with 500
///     Ok(Response::text(page.replace("{}", &(2 * number).to_string())))
/// }
/// ```
pub struct HttpError {
    response: Box<Response>,
}

impl HttpError {
    /// An answer that says no more than this status.
    pub fn new(status: StatusCode) -> HttpError {
        HttpError { response: Box::new(Response::of_status(status)) }
    }

    /// This answer.
    pub fn with_response(response: impl IntoResponse) -> HttpError {
        HttpError { response: Box::new(response.into_response()) }
    }

    /// The status that it is answered with.
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        *self.response
    }
}

impl<E: Error + 'static> From<E> for HttpError {
    fn from(error: E) -> HttpError {
        let body_error = (&error as &dyn Any).downcast_ref::<BodyError>();
        let status = body_error.map_or(StatusCode::INTERNAL_SERVER_ERROR, BodyError::status);
        let mut response = Response::of_status(status);
        if status.is_server_error() {
            response.failed = Some(crate::ground::foreign::debug(&error));
        }
        HttpError { response: Box::new(response) }
    }
}

impl fmt::Debug for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpError({})", self.status())
    }
}
