//! Server-sent events: an answer that goes on for as long as there is news (`text/event-stream`), which a
//! browser reads by its `EventSource`.
//!
//! ```
//! use std::time::Duration;
//! use futures::stream::{self, StreamExt as _};
//! use waterspout::http::{IntoResponse, Request, sse};
//!
//! async fn news(request: Request) -> impl IntoResponse {
//!     // After an interruption, the browser says which event it has seen last.
//!     let seen = request.header("last-event-id").and_then(|id| id.parse().ok()).unwrap_or(0);
//!     let events = stream::iter(seen + 1..).map(|number: u64| {
//!         sse::Event::new(format!("news {number}")).id(number.to_string())
//!     });
//!     sse::events(events).keep_alive(Duration::from_secs(15))
//! }
//! # let _ = news;
//! ```
//!
//! The stream is asked for the next event only when the client has taken the one before, and it is dropped
//! when the client has gone.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::{HeaderValue, header};
use bytes::Bytes;
use futures::stream::Stream;
use http_body::{Body as HttpBody, Frame};

use super::body::Body;
use super::error::BodyError;
use super::response::{IntoResponse, Response};
use crate::coroutine::{Sleep, sleep};

/// Something that a client is told of.
///
/// Whatever the texts are, they are no more than that: a line break in one of them does not end it, so that
/// nobody can smuggle an event in by what he has entered somewhere.
///
/// ```
/// use waterspout::http::sse::Event;
///
/// let event = Event::new("two\nlines").event("greeting").id("7");
/// assert_eq!(event.to_string(), "event: greeting\nid: 7\ndata: two\ndata: lines\n\n");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    comment: Option<String>,
    event: Option<String>,
    id: Option<String>,
    retry: Option<Duration>,
    data: Option<String>,
}

impl Event {
    /// An event with this text. A line break of any kind (`\n`, `\r\n`, `\r`) arrives as `\n`.
    ///
    /// [`Event::default`] has no text; of such an event browsers tell nobody, but they keep its id and its
    /// `retry`.
    pub fn new(data: impl Into<String>) -> Event {
        Event { data: Some(data.into()), ..Event::default() }
    }

    /// What kind of event it is; a browser calls the listeners for events of this name. Without a name it is
    /// a `message`. A line break in it becomes a space.
    #[must_use]
    pub fn event(mut self, name: impl Into<String>) -> Event {
        self.event = Some(name.into());
        self
    }

    /// What a browser sends as `Last-Event-ID` when it connects again. A line break in it becomes a space; so
    /// does a NUL, since browsers ignore an id that has one.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Event {
        self.id = Some(id.into());
        self
    }

    /// After how long a browser connects again, from now on, in whole milliseconds.
    #[must_use]
    pub fn retry(mut self, after: Duration) -> Event {
        self.retry = Some(after);
        self
    }

    /// A text that browsers ignore. It may have several lines.
    #[must_use]
    pub fn comment(mut self, text: impl Into<String>) -> Event {
        self.comment = Some(text.into());
        self
    }
}

/// The event as it is sent.
impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for line in self.comment.iter().flat_map(|text| lines(text)) {
            writeln!(f, ": {line}")?;
        }
        if let Some(name) = &self.event {
            writeln!(f, "event: {}", one_line(name))?;
        }
        if let Some(id) = &self.id {
            writeln!(f, "id: {}", one_line(id))?;
        }
        if let Some(after) = self.retry {
            writeln!(f, "retry: {}", after.as_millis())?;
        }
        for line in self.data.iter().flat_map(|text| lines(text)) {
            writeln!(f, "data: {line}")?;
        }
        f.write_char('\n')
    }
}

/// An event with this text.
impl From<String> for Event {
    fn from(data: String) -> Event {
        Event::new(data)
    }
}

/// An event with this text.
impl From<&str> for Event {
    fn from(data: &str) -> Event {
        Event::new(data)
    }
}

/// The lines of a text, whatever ends them.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
}

fn one_line(text: &str) -> Cow<'_, str> {
    let breaks = ['\n', '\r', '\0'];
    if text.contains(breaks) { text.replace(breaks, " ").into() } else { text.into() }
}

/// An answer that consists of events, to its end if the stream ends. A handler may give it as it is.
///
/// Browsers connect again when it ends; to `204 No Content` they do not.
pub fn events<S>(stream: S) -> Events<S>
where
    S: Stream<Item: Into<Event>> + 'static,
{
    Events { stream, keep_alive: Duration::MAX }
}

/// An answer that consists of events; from [`events`].
#[derive(Clone, Debug)]
#[must_use = "it is an answer only if the handler gives it"]
pub struct Events<S> {
    stream: S,
    keep_alive: Duration,
}

impl<S> Events<S> {
    /// Sends a comment whenever nothing was sent for this long, by the loop's clock, so that no proxy takes
    /// the connection for dead, and a client that has gone without a word is noticed. By default none is
    /// sent.
    ///
    /// # Panics
    ///
    /// If `period` is zero.
    pub fn keep_alive(mut self, period: Duration) -> Events<S> {
        assert!(!period.is_zero(), "the period of keep_alive is zero");
        self.keep_alive = period;
        self
    }
}

impl<S> IntoResponse for Events<S>
where
    S: Stream<Item: Into<Event>> + 'static,
{
    fn into_response(self) -> Response {
        let Events { stream, keep_alive } = self;
        let (stream, silence) = (Box::pin(stream), None);
        let mut response = Response::new(Body::streamed(Telling { stream, keep_alive, silence }));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// The body of such an answer.
struct Telling<S> {
    stream: Pin<Box<S>>,
    keep_alive: Duration,
    /// While there is no event: until when.
    silence: Option<Sleep>,
}

impl<S: Stream<Item: Into<Event>>> HttpBody for Telling<S> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let frame = |text: String| Poll::Ready(Some(Ok(Frame::data(text.into()))));
        if let Poll::Ready(event) = this.stream.as_mut().poll_next(cx) {
            this.silence = None;
            return event.map_or(Poll::Ready(None), |event| frame(event.into().to_string()));
        }
        if this.keep_alive == Duration::MAX {
            return Poll::Pending;
        }
        let period = this.keep_alive;
        let silence = this.silence.get_or_insert_with(|| sleep(period));
        if Pin::new(silence).poll(cx).is_pending() {
            return Poll::Pending;
        }
        this.silence = None;
        frame(String::from(":\n\n"))
    }
}
