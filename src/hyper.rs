//! What [`hyper`](https://docs.rs/hyper/1) wants of a runtime: a stream, an executor and a timer.
//!
//! hyper speaks HTTP/1 and HTTP/2 over whatever it is given. It is given
//!
//! * [`Io`] around a stream: of this crate, TLS, or any other that is [`AsyncRead`] and [`AsyncWrite`];
//! * [`OnLoop`] as the executor, which HTTP/2 needs, and as the timer, which its time limits need.
//!
//! Services, bodies and what they hold need not be `Send`: a connection is a coroutine, and so is each
//! request of HTTP/2.
//!
//! ```
//! use std::{cell::Cell, convert::Infallible, rc::Rc};
//! use http_body_util::{BodyExt, Empty, Full};
//! use hyper::{Request, Response, body::Bytes, client, server, service::service_fn};
//! use waterspout::hyper::{Io, OnLoop};
//! use waterspout::net::{TcpServer, TcpStream};
//! use waterspout::{IoLoop, coroutine};
//!
//! # IoLoop::new()?.run_sync(|| async {
//! let visits = Rc::new(Cell::new(0)); // one loop, one thread: no lock
//! let server = TcpServer::bare(async move |stream: TcpStream, _peer| {
//!     let service = service_fn(async |_request| {
//!         visits.set(visits.get() + 1);
//!         let body = format!("visit {}", visits.get());
//!         Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(body))))
//!     });
//!     let mut http = server::conn::http1::Builder::new();
//!     http.timer(OnLoop).serve_connection(Io::new(stream), service).await
//! });
//! let port = server.listen_on("127.0.0.1", 0)?;
//!
//! let stream = TcpStream::connect(("127.0.0.1", port)).await?;
//! let (mut sender, connection) = client::conn::http1::handshake(Io::new(stream)).await?;
//! coroutine::start(connection);
//! let request = Request::get("/").header("host", "localhost").body(Empty::<Bytes>::new())?;
//! let answer = sender.send_request(request).await?;
//! assert_eq!(answer.into_body().collect().await?.to_bytes(), "visit 1");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })??;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What an upgrade gives (a WebSocket, `CONNECT`) is the stream again, by `Upgraded::downcast`, or in an
//! [`Io`] of its own a stream like any other: `IoStream::new(Io::new(upgraded))`.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use ::hyper::rt;
use futures::io::{AsyncRead, AsyncWrite};

use crate::coroutine::{Sleep, now, sleep, sleep_until, spawn};
use crate::sockets::Lent;

/// A stream as hyper wants it, and a stream of hyper's as everybody else does.
///
/// Around an [`AsyncRead`] and [`AsyncWrite`], it is hyper's `Read` and `Write`. It reads into a buffer that
/// the loop [lends](Lent), so that hyper's own need not be zeroed for each read; a connection that waits has
/// none. Several slices are written in one call.
///
/// Around hyper's `Read` and `Write` (what an upgrade gives), it is an [`AsyncRead`] and [`AsyncWrite`].
///
/// A stream of this crate is used on the loop that it was made on. On another one, or when that is closed, it
/// gives an error, and hyper's connection ends (without one if hyper was waiting for a request).
#[derive(Debug)]
pub struct Io<T>(T);

impl<T> Io<T> {
    /// Puts it around a stream.
    pub fn new(stream: T) -> Io<T> {
        Io(stream)
    }

    /// The stream.
    pub fn get_ref(&self) -> &T {
        &self.0
    }

    /// The stream. What is read from it here, hyper misses.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.0
    }

    /// The stream without this. Nothing is kept here: what hyper has read and not used, it gives itself, as
    /// `read_buf` of its `Parts`.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T: AsyncRead + Unpin> rt::Read for Io<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut lent = Lent::borrow();
        let read = |bytes: &mut [u8]| Pin::new(&mut self.0).poll_read(cx, bytes);
        ready!(lent.poll_fill(buf.remaining(), read))?;
        buf.put_slice(&lent);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> rt::Write for Io<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }

    /// Otherwise hyper copies head and body together before it writes them.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }
}

impl<T: rt::Read + Unpin> AsyncRead for Io<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buf = rt::ReadBuf::new(buf);
        ready!(Pin::new(&mut self.0).poll_read(cx, buf.unfilled()))?;
        Poll::Ready(Ok(buf.filled().len()))
    }
}

impl<T: rt::Write + Unpin> AsyncWrite for Io<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The current loop as hyper's executor and timer.
///
/// What hyper executes is a coroutine of its own, which begins in the loop's next turn and need not be
/// `Send`. If it panics, the loop's exception handler hears of it
/// ([`Builder::on_exception`](crate::Builder::on_exception)); with HTTP/2 that ends one request, and with
/// HTTP/1 the connection. On a closed loop it is dropped at once.
///
/// As a timer it goes by the loop's clock, which may be virtual. A time limit of hyper's is tied to the loop
/// on which it began: awaited on another one, it panics as [`Sleep`] does.
///
/// hyper has no time limit without a timer, not even for reading the head of a request; and it panics if a
/// time limit is set without one.
///
/// Both need a loop: where the thread has none, they make one, as
/// [`IoLoop::current`](crate::IoLoop::current) does.
///
/// ```
/// use std::time::Duration;
/// use http_body_util::Empty;
/// use hyper::{Response, body::Bytes, server::conn::http1, service::service_fn};
/// use waterspout::hyper::{Io, OnLoop};
/// use waterspout::{IoLoop, coroutine::now, testing::duplex};
///
/// IoLoop::builder().virtual_time().build()?.run_sync(|| async {
///     let begun = now();
///     let (_silent_client, stream) = duplex(1024);
///     let service = service_fn(async |_request| {
///         Ok::<_, std::io::Error>(Response::new(Empty::<Bytes>::new()))
///     });
///     let mut http = http1::Builder::new();
///     http.timer(OnLoop).header_read_timeout(Duration::from_secs(60));
///     let ended = http.serve_connection(Io::new(stream), service).await;
///     assert!(ended.unwrap_err().is_timeout());
///     assert_eq!(now() - begun, Duration::from_secs(60));
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Default, Debug)]
pub struct OnLoop;

impl<F: Future + 'static> rt::Executor<F> for OnLoop {
    fn execute(&self, future: F) {
        // Not started here and now: hyper is in the middle of its own.
        drop(spawn(future));
    }
}

impl rt::Timer for OnLoop {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(sleep(duration))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(sleep_until(deadline))
    }

    fn now(&self) -> Instant {
        now()
    }

    /// Without a new allocation: hyper sets one for each head that it reads.
    fn reset(&self, sleep: &mut Pin<Box<dyn rt::Sleep>>, new_deadline: Instant) {
        match sleep.as_mut().downcast_mut_pin::<Sleep>() {
            Some(sleep) => sleep.get_mut().reset(new_deadline),
            None => *sleep = rt::Timer::sleep_until(self, new_deadline),
        }
    }
}

impl rt::Sleep for Sleep {}
