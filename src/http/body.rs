//! `Body`: what is sent, of an answer or of a request.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use futures::io::AsyncRead;
use futures::stream::{Stream, StreamExt as _};
use http_body::{Frame, SizeHint};

use super::error::{BodyError, BoxError};
use super::incoming::Incoming;
use crate::sockets::Lent;

/// What is sent in an answer, or in a request: bytes that are there already, or a stream of them.
///
/// A stream is asked for its next part only when the other side has taken what went before, so a slow
/// reader slows the writer down and fills no buffer. It is dropped when the other side has gone. It need not be
/// `Send`.
///
/// ```
/// use futures::stream;
/// use waterspout::http::Body;
///
/// let empty = Body::empty();
/// let whole = Body::from("some text");
/// let parts = stream::iter(["one, ", "two"].map(Ok::<_, std::io::Error>));
/// let streamed = Body::from_stream(parts);
/// # let _ = (empty, whole, streamed);
/// ```
pub struct Body(Kind);

enum Kind {
    /// Empty once it was sent.
    Whole(Bytes),
    Streamed(Streamed),
}

/// Somebody's body, of whatever type.
type Streamed = Pin<Box<dyn http_body::Body<Data = Bytes, Error = BodyError>>>;

impl Body {
    /// No bytes at all.
    pub const fn empty() -> Body {
        Body(Kind::Whole(Bytes::new()))
    }

    /// The items of a stream, one after the other. How long it will be nobody knows, so HTTP/1 sends it in
    /// chunks, unless the `Content-Length` is set.
    ///
    /// An error ends the connection (of HTTP/2, the one stream), so that the other side learns that
    /// something is missing; a server reports it.
    pub fn from_stream<S, D, E>(stream: S) -> Body
    where
        S: Stream<Item = Result<D, E>> + 'static,
        D: Into<Bytes>,
        E: Into<BoxError>,
    {
        let error = |error: E| BodyError::Other(error.into());
        let stream = stream.map(move |item| item.map(Into::into).map_err(error));
        Body::streamed(Items { stream })
    }

    /// What can be read, to its end. See [`from_stream`](Body::from_stream).
    pub fn from_reader(reader: impl AsyncRead + 'static) -> Body {
        let mut reader = Box::pin(reader);
        Body::from_stream(futures::stream::poll_fn(move |cx| {
            let mut lent = Lent::borrow();
            let read = |bytes: &mut [u8]| reader.as_mut().poll_read(cx, bytes);
            Poll::Ready(match ready!(lent.poll_fill(Lent::SIZE, read)) {
                Ok(0) => None,
                Ok(_) => Some(Ok::<_, io::Error>(Bytes::copy_from_slice(&lent))),
                Err(error) => Some(Err(error)),
            })
        }))
    }

    /// Another crate's body, with its trailers: one of `http-body-util`, say.
    pub fn from_http_body<B>(body: B) -> Body
    where
        B: http_body::Body + 'static,
        B::Error: Into<BoxError>,
    {
        Body::streamed(Foreign::new(body))
    }

    pub(super) fn streamed(
        body: impl http_body::Body<Data = Bytes, Error = BodyError> + 'static,
    ) -> Body {
        Body(Kind::Streamed(Box::pin(Cut::new(body))))
    }

    /// The bytes, if all of them are there already.
    pub fn as_bytes(&self) -> Option<&Bytes> {
        match &self.0 {
            Kind::Whole(bytes) => Some(bytes),
            Kind::Streamed(_) => None,
        }
    }
}

impl Default for Body {
    fn default() -> Body {
        Body::empty()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Body {
        Body(Kind::Whole(bytes))
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Body {
        Bytes::from(bytes).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Body {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Body {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Body {
        Bytes::from_static(bytes).into()
    }
}

/// Passes on what arrives: for a proxy.
impl From<Incoming> for Body {
    fn from(incoming: Incoming) -> Body {
        Body::streamed(incoming)
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    #[inline]
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Kind::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(part_of(bytes))))),
            Kind::Streamed(body) => body.as_mut().poll_frame(cx),
        }
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(bytes) => bytes.is_empty(),
            Kind::Streamed(body) => body.is_end_stream(),
        }
    }

    #[inline]
    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Streamed(body) => body.size_hint(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Whole(bytes) => write!(f, "Body({} bytes)", bytes.len()),
            Kind::Streamed(_) => f.write_str("Body(streamed)"),
        }
    }
}

/// How much is given to hyper in one part. It copies what it is given together with the head, and would copy all of
/// a large body at once.
const PART: usize = 64 * 1024;

/// Takes the first part of `bytes`.
#[inline]
fn part_of(bytes: &mut Bytes) -> Bytes {
    if bytes.len() > PART { bytes.split_to(PART) } else { std::mem::take(bytes) }
}

pin_project_lite::pin_project! {
    /// A body whose parts are no longer than [`PART`].
    pub(super) struct Cut<B> {
        #[pin]
        body: B,
        // What is left of a part that was longer.
        rest: Bytes,
    }
}

impl<B> Cut<B> {
    pub(super) fn new(body: B) -> Cut<B> {
        Cut { body, rest: Bytes::new() }
    }
}

impl<B: http_body::Body<Data = Bytes>> http_body::Body for Cut<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        if !this.rest.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(part_of(this.rest)))));
        }
        let mut frame = ready!(this.body.poll_frame(cx));
        if let Some(part) = frame.as_mut().and_then(|frame| frame.as_mut().ok()?.data_mut()) {
            let first = part_of(part);
            *this.rest = std::mem::replace(part, first);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let rest = self.rest.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(hint.lower().saturating_add(rest));
        hint
    }
}

pin_project_lite::pin_project! {
    /// A stream of bytes as a body.
    struct Items<S> {
        #[pin]
        stream: S,
    }
}

impl<S: Stream<Item = Result<Bytes, BodyError>>> http_body::Body for Items<S> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let item = self.project().stream.poll_next(cx);
        item.map(|item| item.map(|item| item.map(Frame::data)))
    }
}

pin_project_lite::pin_project! {
    /// Another crate's body, whose parts and errors are turned into those of this one.
    pub(super) struct Foreign<B> {
        #[pin]
        body: B,
    }
}

impl<B> Foreign<B> {
    pub(super) fn new(body: B) -> Foreign<B> {
        Foreign { body }
    }
}

impl<B> http_body::Body for Foreign<B>
where
    B: http_body::Body<Error: Into<BoxError>>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(self.project().body.poll_frame(cx));
        Poll::Ready(frame.map(|frame| match frame {
            // Of `Bytes` this is no copy.
            Ok(frame) => Ok(frame.map_data(|mut data| data.copy_to_bytes(data.remaining()))),
            Err(error) => Err(BodyError::from_foreign(error.into())),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
