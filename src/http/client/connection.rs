//! Connections that speak HTTP: one that has one request at a time, and one of HTTP/2 that has many.
//!
//! hyper's side of a connection is a coroutine of the client's group. This side sends requests to it. If this
//! side is dropped, the connection ends when the exchange under way is over.

#[cfg(feature = "http2")]
use std::cell::Cell;
#[cfg(feature = "http2")]
use std::rc::Rc;
#[cfg(feature = "http2")]
use std::time::Instant;

use ::http::{Request, Response};
use ::hyper::body::Incoming as WireBody;
use ::hyper::client::conn::TrySendError;
use ::hyper::client::conn::http1;
#[cfg(feature = "http2")]
use ::hyper::client::conn::http2;

use super::error::FetchError;
use super::stream::{Stream, Watched};
use crate::coroutine::{CancelHandle, TaskGroup, moment};
use crate::http::body::Body;
use crate::hyper::Io;
#[cfg(feature = "http2")]
use crate::hyper::OnLoop;
use crate::ioloop::IoLoop;

/// Why there is no answer.
pub(super) enum Failed {
    /// Nothing of the request was sent. Here is its body again.
    Unsent(Body, ::hyper::Error),
    /// Something of it may have been.
    Sent(FetchError),
}

impl From<TrySendError<Request<Body>>> for Failed {
    fn from(mut error: TrySendError<Request<Body>>) -> Failed {
        match error.take_message() {
            Some(request) => Failed::Unsent(request.into_body(), error.into_error()),
            None => Failed::Sent(FetchError::of_exchange(error.into_error())),
        }
    }
}

/// A connection of HTTP/1.
pub(super) struct Http1 {
    sender: http1::SendRequest<Body>,
    socket: Watched,
    /// Where hyper's side runs.
    home: IoLoop,
    running: CancelHandle,
}

impl Http1 {
    pub(super) async fn begin(
        stream: Stream,
        group: &TaskGroup,
        max_header_size: usize,
    ) -> Result<Http1, FetchError> {
        let socket = stream.socket().downgrade();
        let mut builder = http1::Builder::new();
        builder
            .max_header_size(max_header_size)
            .allow_obsolete_multiline_headers_in_responses(true);
        let begun = builder.handshake(Io::new(stream)).await;
        let (sender, connection) = begun.map_err(FetchError::of_exchange)?;
        let running = group.start_named("a connection of an HttpClient", async {
            // Whoever waits for an answer hears of the error. If nobody does, the connection has just ended.
            let _ended = connection.await;
            Ok(())
        });
        Ok(Http1 { sender, socket, home: IoLoop::current(), running })
    }

    pub(super) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<WireBody>, Failed> {
        Ok(self.sender.try_send_request(request).await?)
    }

    /// Whether the next request can go by this: the last exchange is whole, and the server has neither ended
    /// since then nor sent anything, which would be taken for the next answer.
    pub(super) fn is_free(&self) -> bool {
        self.sender.is_ready() && self.home == IoLoop::current() && self.socket.is_quiet()
    }

    /// Waits until the exchange is whole, whose answer has come to its end. That it is not is certain soon:
    /// hyper's side needs to run once more to find out. A request that is still being sent then is not wanted
    /// any more.
    pub(super) async fn is_whole(&self) -> bool {
        for _ in 0..2 {
            if self.sender.is_ready() || self.sender.is_closed() {
                break;
            }
            moment().await;
        }
        self.sender.is_ready()
    }

    /// Closes it, whatever is under way.
    pub(super) fn close(self) {
        self.running.cancel();
    }
}

/// A connection of HTTP/2, which several requests share.
#[cfg(feature = "http2")]
pub(super) struct Http2 {
    sender: http2::SendRequest<Body>,
    socket: Watched,
    home: IoLoop,
    /// How many exchanges are under way.
    exchanges: Cell<usize>,
    /// When the last exchange has ended.
    idle_since: Cell<Instant>,
}

/// Starts hyper's coroutines in a group.
#[cfg(feature = "http2")]
#[derive(Clone)]
struct InGroup(std::rc::Weak<TaskGroup>);

#[cfg(feature = "http2")]
impl<F: Future + 'static> ::hyper::rt::Executor<F> for InGroup {
    fn execute(&self, future: F) {
        let Some(group) = self.0.upgrade() else { return };
        group.start_named("a connection of an HttpClient", async {
            // Not here and now: hyper is in the middle of its own.
            moment().await;
            future.await;
            Ok(())
        });
    }
}

#[cfg(feature = "http2")]
impl Http2 {
    pub(super) async fn begin(
        stream: Stream,
        group: &Rc<TaskGroup>,
        max_header_size: usize,
    ) -> Result<Http2, FetchError> {
        let socket = stream.socket().downgrade();
        let mut builder = http2::Builder::new(InGroup(Rc::downgrade(group)));
        builder
            .timer(OnLoop)
            .max_header_list_size(u32::try_from(max_header_size).unwrap_or(u32::MAX));
        let begun = builder.handshake(Io::new(stream)).await;
        let (sender, connection) = begun.map_err(FetchError::of_exchange)?;
        group.start_named("a connection of an HttpClient", async {
            let _ended = connection.await;
            Ok(())
        });
        let (exchanges, idle_since) = (Cell::new(0), Cell::new(crate::coroutine::now()));
        Ok(Http2 { sender, socket, home: IoLoop::current(), exchanges, idle_since })
    }

    /// Whether the next request can go by this. If something has come that hyper has not seen, which may be the
    /// end, it is let have a look first.
    pub(super) async fn is_free(&self) -> bool {
        for _ in 0..2 {
            if self.home != IoLoop::current() || self.socket.is_quiet() {
                break;
            }
            moment().await;
        }
        self.home == IoLoop::current() && self.sender.is_ready() && !self.sender.is_closed()
    }

    /// Since when nobody uses it, if that is so.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        Some(self.idle_since.get()).filter(|_| self.exchanges.get() == 0)
    }
}

/// An exchange over HTTP/2, for as long as it goes on.
#[cfg(feature = "http2")]
pub(super) struct Exchange(Rc<Http2>);

#[cfg(feature = "http2")]
impl Exchange {
    pub(super) fn over(connection: Rc<Http2>) -> Exchange {
        connection.exchanges.set(connection.exchanges.get() + 1);
        Exchange(connection)
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Result<Response<WireBody>, Failed> {
        Ok(self.0.sender.clone().try_send_request(request).await?)
    }

    pub(super) fn connection(&self) -> &Rc<Http2> {
        &self.0
    }
}

#[cfg(feature = "http2")]
impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.exchanges.set(self.0.exchanges.get() - 1);
        self.0.idle_since.set(crate::coroutine::now());
    }
}
