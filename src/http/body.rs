//! `Body`: what is sent, of an answer or of a request.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
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
        Body::streamed(Items(Box::pin(
            stream.map(|item| item.map(Into::into).map_err(|error| BodyError::Other(error.into()))),
        )))
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
        B::Data: Into<Bytes>,
        B::Error: Into<BoxError>,
    {
        Body::streamed(Foreign(Box::pin(body)))
    }

    pub(super) fn streamed(
        body: impl http_body::Body<Data = Bytes, Error = BodyError> + 'static,
    ) -> Body {
        Body(Kind::Streamed(Box::pin(body)))
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
            Kind::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
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

/// A stream of bytes as a body.
struct Items<S>(Pin<Box<S>>);

impl<S: Stream<Item = Result<Bytes, BodyError>>> http_body::Body for Items<S> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.0.as_mut().poll_next(cx).map(|item| item.map(|item| item.map(Frame::data)))
    }
}

/// Another crate's body, whose parts and errors are turned into those of this one.
struct Foreign<B>(Pin<Box<B>>);

impl<B> http_body::Body for Foreign<B>
where
    B: http_body::Body,
    B::Data: Into<Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(self.0.as_mut().poll_frame(cx));
        Poll::Ready(frame.map(|frame| match frame {
            Ok(frame) => Ok(frame.map_data(Into::into)),
            Err(error) => Err(BodyError::from_foreign(error.into())),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
