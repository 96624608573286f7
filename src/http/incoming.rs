//! `Incoming`: a body as it comes in, within limits.
//!
//! hyper reads a body only as far as it is asked for, so a slow reader here slows the other side down. What is
//! added to that are limits: how large a body may be, however it was compressed, and how long it may take.
//! A body that is known to be too large is not read at all: then hyper does not send `100 Continue`, and the
//! client need not send it.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::http::HeaderMap;
use bytes::{Bytes, BytesMut};
use futures::stream::Stream;
use http_body::{Body as _, Frame, SizeHint};

use super::error::BodyError;
use crate::coroutine::{Sleep, sleep};

/// The body of a request that a server got, or of an answer that a client got.
///
/// It is a [`Stream`] of its parts as they arrive, and [`bytes`](Incoming::bytes) waits for all of it. It is
/// `Send`, so that axum and others take it, but is read on the loop of its connection.
///
/// After an error it gives that there is nothing more. Dropping it before its end ends the connection, unless
/// what is missing has arrived already.
#[must_use]
pub struct Incoming(Option<Box<Source>>);

struct Source {
    kind: Kind,
    limits: Limits,
    /// How many bytes were given.
    given: u64,
    trailers: Option<HeaderMap>,
    /// While it waits for the next part: until when.
    patience: Option<Sleep>,
    /// How long all of it may still take.
    whole: Option<Sleep>,
    is_over: bool,
    /// Dropped as soon as nothing of the body is expected any more, which tells the connection.
    until_over: Option<UntilOver>,
}

type UntilOver = Box<dyn Any + Send + Sync>;

enum Kind {
    Whole(Bytes),
    Wire(::hyper::body::Incoming),
    #[cfg(feature = "compression")]
    Decoded(Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send>>),
}

/// What a body is held to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// In bytes, after it was decompressed.
    pub(super) size: u64,
    /// How long nothing may come.
    pub(super) stall: Duration,
    /// How long all of it may take; [`Duration::MAX`] for ever.
    pub(super) whole: Duration,
}

impl Limits {
    pub(super) const NONE: Limits =
        Limits { size: u64::MAX, stall: Duration::MAX, whole: Duration::MAX };
}

impl Incoming {
    /// No body.
    pub const fn empty() -> Incoming {
        Incoming(None)
    }

    /// The body that hyper has received the beginning of.
    pub(super) fn new(body: ::hyper::body::Incoming, limits: Limits) -> Incoming {
        if body.is_end_stream() {
            return Incoming::empty();
        }
        Incoming::of(Kind::Wire(body), limits)
    }

    fn of(kind: Kind, limits: Limits) -> Incoming {
        let (patience, whole) = (None, None);
        let source = Source {
            kind,
            limits,
            given: 0,
            trailers: None,
            patience,
            whole,
            is_over: false,
            until_over: None,
        };
        Incoming(Some(Box::new(source)))
    }

    /// Drops `held` when this body has come to its end, has failed, or is dropped.
    pub(super) fn holding(mut self, held: impl FnOnce() -> UntilOver) -> Incoming {
        if let Some(source) = &mut self.0 {
            source.until_over = Some(held());
        }
        self
    }

    /// What `decode` makes of the bytes of this body, held to the limits that this was held to, which then
    /// are for what was decoded.
    #[cfg(feature = "compression")]
    pub(super) fn decoded<S>(mut self, decode: impl FnOnce(Incoming) -> S) -> Incoming
    where
        S: Stream<Item = Result<Bytes, BodyError>> + Send + 'static,
    {
        let Some(source) = &mut self.0 else { return self };
        let limits = std::mem::replace(&mut source.limits, Limits::NONE);
        Incoming::of(Kind::Decoded(Box::pin(decode(self))), limits)
    }

    /// Takes up to `limit` bytes of this body, whatever the server's or the client's own limit is. Tornado:
    /// `set_max_body_size`.
    pub fn set_max_size(&mut self, limit: u64) {
        if let Some(source) = &mut self.0 {
            source.limits.size = limit;
        }
    }

    /// Gives all of the rest this long from now, beside the limits that there are. Tornado:
    /// `set_body_timeout`.
    pub fn set_timeout(&mut self, limit: Duration) {
        if let Some(source) = &mut self.0 {
            source.limits.whole = limit;
            source.whole = None;
        }
    }

    /// The next part, as it arrives; `None` at the end. Cancel safe.
    ///
    /// # Errors
    ///
    /// If the body is too large, takes too long, or is cut short: see [`BodyError`].
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        std::future::poll_fn(|cx| self.poll_chunk(cx)).await.transpose()
    }

    /// All of it. What it may be at most is set by the server, by the client, or by
    /// [`set_max_size`](Incoming::set_max_size).
    ///
    /// Cancel safe only in that what has been read is lost.
    ///
    /// # Errors
    ///
    /// As [`chunk`](Incoming::chunk).
    pub async fn bytes(&mut self) -> Result<Bytes, BodyError> {
        let Some(first) = self.chunk().await? else { return Ok(Bytes::new()) };
        let Some(second) = self.chunk().await? else { return Ok(first) };
        let mut all = BytesMut::with_capacity(2 * (first.len() + second.len()));
        all.extend_from_slice(&first);
        all.extend_from_slice(&second);
        while let Some(chunk) = self.chunk().await? {
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }

    /// All of it, as text.
    ///
    /// # Errors
    ///
    /// As [`chunk`](Incoming::chunk), and if it is no UTF-8.
    pub async fn text(&mut self) -> Result<String, BodyError> {
        String::from_utf8(self.bytes().await?.into()).map_err(|_| BodyError::NotText)
    }

    /// The trailers, once the body has ended, if there were any.
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.0.as_ref()?.trailers.as_ref()
    }

    /// How many bytes are still to come, if that is known.
    pub fn remaining(&self) -> Option<u64> {
        http_body::Body::size_hint(self).exact()
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            match ready!(Pin::new(&mut *self).poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) if bytes.is_empty() => {}
                    Ok(bytes) => return Poll::Ready(Some(Ok(bytes))),
                    Err(frame) => {
                        if let (Some(source), Ok(trailers)) = (&mut self.0, frame.into_trailers()) {
                            source.trailers = Some(trailers);
                        }
                    }
                },
            }
        }
    }
}

impl Source {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let hint = self.kind.size_hint();
        if self.given.saturating_add(hint.lower()) > self.limits.size {
            return Poll::Ready(Some(Err(BodyError::TooLarge(self.limits.size))));
        }
        let Poll::Ready(frame) = self.kind.poll(cx) else { return self.poll_patience(cx) };
        self.patience = None;
        let Some(frame) = frame.transpose()? else { return Poll::Ready(None) };
        if let Some(bytes) = frame.data_ref() {
            self.given = self.given.saturating_add(bytes.len() as u64);
            if self.given > self.limits.size {
                return Poll::Ready(Some(Err(BodyError::TooLarge(self.limits.size))));
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    /// Nothing has come: whether that has lasted for too long.
    fn poll_patience(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let limits =
            [(&mut self.patience, self.limits.stall), (&mut self.whole, self.limits.whole)];
        for (waiting, limit) in limits {
            if limit == Duration::MAX {
                continue;
            }
            if Pin::new(waiting.get_or_insert_with(|| sleep(limit))).poll(cx).is_ready() {
                return Poll::Ready(Some(Err(BodyError::TimedOut(limit))));
            }
        }
        Poll::Pending
    }
}

impl Kind {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Kind::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Wire(body) => {
                Pin::new(body).poll_frame(cx).map_err(|error| BodyError::Broken(error.into()))
            }
            #[cfg(feature = "compression")]
            Kind::Decoded(stream) => {
                stream.as_mut().poll_next(cx).map(|item| item.map(|item| item.map(Frame::data)))
            }
        }
    }

    /// Whether it is known that nothing more will come.
    fn is_end_stream(&self) -> bool {
        match self {
            Kind::Whole(bytes) => bytes.is_empty(),
            Kind::Wire(body) => body.is_end_stream(),
            #[cfg(feature = "compression")]
            Kind::Decoded(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Wire(body) => body.size_hint(),
            #[cfg(feature = "compression")]
            Kind::Decoded(_) => SizeHint::new(),
        }
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(source) = self.0.as_mut().filter(|source| !source.is_over) else {
            return Poll::Ready(None);
        };
        let frame = ready!(source.poll(cx));
        // hyper does not always say so when a body has come whole: not if its request was answered before.
        let is_last = match &frame {
            Some(Ok(frame)) => frame.is_trailers() || source.kind.is_end_stream(),
            Some(Err(_)) | None => true,
        };
        if is_last {
            source.is_over = true;
            // hyper ends the connection if something of the body is missing.
            source.kind = Kind::Whole(Bytes::new());
            (source.patience, source.whole) = (None, None);
            source.until_over = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|source| source.kind.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), |source| source.kind.size_hint())
    }
}

impl Stream for Incoming {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_chunk(cx)
    }
}

/// A body that is there already: for testing a handler, say.
impl From<Bytes> for Incoming {
    fn from(bytes: Bytes) -> Incoming {
        Incoming::of(Kind::Whole(bytes), Limits::NONE)
    }
}

impl Default for Incoming {
    fn default() -> Incoming {
        Incoming::empty()
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Incoming");
        match self.remaining() {
            Some(remaining) => shown.field("remaining", &remaining).finish(),
            None => shown.finish_non_exhaustive(),
        }
    }
}
