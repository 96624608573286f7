//! `HttpServer`: HTTP on a `Server`.
//!
//! Accepting, the limit of connections and draining are the [`Server`]'s. [`connection`] is the life of a
//! connection, [`exchange`] a request and its answer, and [`watch`] all the time limits in one.

mod answer;
mod connection;
mod exchange;
#[cfg(feature = "http2")]
mod executor;
mod listeners;
mod refused;
mod settings;
mod shared;
mod timeout;
mod watch;
mod wire;

pub use self::timeout::{InTime, Timeout, TimeoutLayer};

use std::fmt;
use std::io;
use std::net::{self, IpAddr};
use std::panic::Location;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use futures::future::FusedFuture;
use futures::io::{AsyncRead, AsyncWrite};

use self::answer::{Answer, Handler, Tower};
use self::connection::Connection;
use self::listeners::{Accepted, Foreign, Listening};
use self::settings::Settings;
use self::shared::{Serving, Shared};
use super::error::BoxError;
use super::incoming::Incoming;
use super::request::{Peer, Request};
use super::response::IntoResponse;
use crate::coroutine::name_of;
use crate::ground::resumption;
use crate::ioloop::Deadline;
use crate::service::{Listener, Made, Server};
use crate::sockets::{BindOptions, TcpListener, UnixListener, bind_sockets, bind_unix_socket};

/// A server of HTTP/1 and, with the feature `http2`, HTTP/2, on the current loop. Tornado: `HTTPServer`.
///
/// What answers is a function, [`new`](HttpServer::new), which need not be `Send` and so can hold the state of
/// its loop in an `Rc`; or any tower service, such as an axum `Router`: [`tower`](HttpServer::tower).
///
/// ```
/// use std::{cell::Cell, rc::Rc, time::Duration};
/// use waterspout::{IoLoop, http::{HttpServer, Request, Response, StatusCode}};
///
/// # IoLoop::new()?.run_sync(|| async {
/// let visits = Rc::new(Cell::new(0)); // one loop, one thread: no lock
/// let server = HttpServer::new(async move |request: Request| {
///     visits.set(visits.get() + 1);
///     match request.path() {
///         "/" => Response::text(format!("visit {}\n", visits.get())),
///         _ => Response::of_status(StatusCode::NOT_FOUND),
///     }
/// });
/// let port = server.listen_on("127.0.0.1", 0)?;
/// println!("http://127.0.0.1:{port}/");
/// // ... and when it is to end:
/// server.drain(Duration::from_secs(10)).await;
/// # Ok::<(), std::io::Error>(())
/// # })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What it holds clients to
///
/// | | unless told | then |
/// | --- | --- | --- |
/// | [`max_connections`](HttpServer::max_connections) | any number | wait in the backlog |
/// | [`idle_connection_timeout`](HttpServer::idle_connection_timeout) | 1 hour | the connection is closed |
/// | [`header_timeout`](HttpServer::header_timeout) | 30 s | `408`, closed |
/// | [`max_header_size`](HttpServer::max_header_size) | 64 KiB, 100 headers | `431`, closed |
/// | [`max_body_size`](HttpServer::max_body_size) | 100 MiB | [`BodyError::TooLarge`](super::BodyError), `413`, closed |
/// | [`body_timeout`](HttpServer::body_timeout) | none | [`BodyError::TimedOut`](super::BodyError), `408`, closed |
/// | [`request_timeout`](HttpServer::request_timeout) | none | the handler is dropped, `503` |
/// | [`stall_timeout`](HttpServer::stall_timeout) | 1 minute | as for a body, or closed |
///
/// Time limits of connections are looked at once a second, so they may be late by that much. A request that
/// breaks the protocol is answered with `400` and its connection closed: one that does not say for which host it is,
/// too, or says it twice, or has a transfer coding other than `chunked`. The log hears of it in a line at the
/// level `info`, but of a flood of them only now and then; the same of handshakes of TLS that fail.
///
/// # What goes wrong
///
/// A handler that panics is answered with `500`, and reported with the path
/// ([`Builder::on_exception`](crate::Builder::on_exception)); so is one that gives a
/// `Content-Length` which is not that of its body, that fails by [`HttpError`](super::HttpError), or whose body
/// fails on the way. Other connections do not notice, and of HTTP/1 the same one goes on.
///
/// The client of a body that it wants to be asked for (`Expect: 100-continue`) is told to send it when the handler first
/// reads it. So a handler that answers before it has read anything, with that body as its answer say, waits for
/// ever.
///
/// A client that hangs up drops its handler where it waits, as if it were cancelled: see
/// [`finish_requests`](HttpServer::finish_requests).
///
/// # What a connection costs
///
/// One that has been idle for a second is *parked*: it has no buffer and no state but its socket and a
/// deadline, about a kilobyte in all. (With HTTP/2 and over TLS it keeps what the protocol needs.)
///
/// # On every core
///
/// A server belongs to its loop. [`Workers`](crate::process::Workers) run a loop on every core, and each makes a
/// server of its own; they share the port, and the system divides the connections among them:
///
/// ```no_run
/// # #[cfg(feature = "process")]
/// # fn main() -> Result<(), waterspout::process::WorkersError> {
/// use std::time::Duration;
/// use waterspout::{http::{HttpServer, Request}, net::BindOptions, process::{Worker, Workers}};
///
/// Workers::new().run(async |worker: Worker| {
///     let server = HttpServer::new(async |_: Request| "hello\n");
///     server.listen_with(8080, &BindOptions { reuse_port: true, ..Default::default() })?;
///     worker.stop().cancelled().await;
///     server.drain(Duration::from_secs(10)).await;
///     Ok::<(), std::io::Error>(())
/// })
/// # }
/// # #[cfg(not(feature = "process"))]
/// # fn main() {}
/// ```
///
/// # How it ends
///
/// Dropping the server closes all connections at once; [`drain`](HttpServer::drain) lets them finish.
pub struct HttpServer {
    server: Server<Accepted, Peer>,
    shared: Rc<Shared>,
}

impl HttpServer {
    /// A server that answers each request with what `handler` gives. It listens nowhere yet. Tornado:
    /// `HTTPServer(request_callback)`.
    ///
    /// Requests of different connections, and those of one HTTP/2 connection, are handled side by side.
    #[track_caller]
    pub fn new<H, R>(handler: H) -> HttpServer
    where
        H: AsyncFn(Request) -> R + 'static,
        R: IntoResponse + 'static,
    {
        let made = Made { name: name_of::<H>, place: Location::caller() };
        HttpServer::of(made, Handler(handler))
    }

    /// A server that answers by a [tower](https://docs.rs/tower) service: an axum `Router`, say. It listens
    /// nowhere yet.
    ///
    /// The service is cloned for each request. A request has its [`Peer`] among its extensions. A service
    /// or layer that uses tokio's timers, files or `spawn` panics, unless it has
    /// `tokio_context`.
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use http::{Request, Response};
    /// use waterspout::{IoLoop, http::{Body, HttpServer, Incoming}};
    ///
    /// # IoLoop::new()?.run_sync(|| async {
    /// let service = tower::service_fn(async |request: Request<Incoming>| {
    ///     Ok::<_, Infallible>(Response::new(Body::from(request.uri().path().to_owned())))
    /// });
    /// let server = HttpServer::tower(service);
    /// server.listen_on("127.0.0.1", 0)
    /// # })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn tower<S, B>(service: S) -> HttpServer
    where
        S: tower_service::Service<::http::Request<Incoming>, Response = ::http::Response<B>>,
        S: Clone + 'static,
        S::Error: Into<BoxError>,
        B: http_body::Body<Error: Into<BoxError>> + 'static,
    {
        let made = Made { name: name_of::<S>, place: Location::caller() };
        HttpServer::of(made, Tower(service))
    }

    fn of(made: Made, answer: impl Answer) -> HttpServer {
        let shared = Rc::new(Shared::default());
        let serving = Rc::new(Serving { answer: Rc::new(answer), made, shared: shared.clone() });
        let server = Server::of(made, move |accepted, peer, _| {
            Box::pin(Connection::new(accepted, peer, serving.clone()).handle())
        });
        HttpServer { server, shared }
    }

    fn set(self, change: impl FnOnce(&mut Settings)) -> HttpServer {
        change(Rc::make_mut(&mut self.shared.settings.borrow_mut()));
        self
    }

    /// Serves at most this many connections at a time. Further ones wait in the backlog of their listener.
    #[must_use]
    pub fn max_connections(self, connections: usize) -> HttpServer {
        HttpServer { server: self.server.max_connections(connections), shared: self.shared }
    }

    /// Closes a connection on which nothing was asked for so long. Tornado: `idle_connection_timeout`.
    #[must_use]
    pub fn idle_connection_timeout(self, limit: Duration) -> HttpServer {
        self.set(|settings| settings.idle = limit)
    }

    /// How long the head of a request may take, from its first byte to its last.
    ///
    /// Of HTTP/2 it cannot be seen when a head begins. There a connection whose only head does not end is an idle one.
    #[must_use]
    pub fn header_timeout(self, limit: Duration) -> HttpServer {
        self.set(|settings| settings.head = limit)
    }

    /// How long the body of a request may take, from when the handler waits for it first. A request can change
    /// that for itself: [`Incoming::set_timeout`]. Tornado: `body_timeout`.
    #[must_use]
    pub fn body_timeout(self, limit: Duration) -> HttpServer {
        self.set(|settings| settings.body.whole = limit)
    }

    /// How long a handler may take until its answer begins. After that it is dropped, and
    /// `503 Service Unavailable` answered.
    #[must_use]
    pub fn request_timeout(self, limit: Duration) -> HttpServer {
        self.set(|settings| settings.request = limit)
    }

    /// How long a client may send nothing of a body that is waited for, or take nothing of an answer.
    #[must_use]
    pub fn stall_timeout(self, limit: Duration) -> HttpServer {
        self.set(|settings| (settings.stall, settings.body.stall) = (limit, limit))
    }

    /// How large the head of a request may be, in bytes. Tornado: `max_header_size`.
    #[must_use]
    pub fn max_header_size(self, bytes: usize) -> HttpServer {
        self.set(|settings| settings.head_size = bytes)
    }

    /// How large the body of a request may be, in bytes. A request can change that for itself, before its body
    /// is read: [`Incoming::set_max_size`]. Tornado: `max_body_size`.
    #[must_use]
    pub fn max_body_size(self, bytes: u64) -> HttpServer {
        self.set(|settings| settings.body.size = bytes)
    }

    /// Whether the body of a request that is compressed (`gzip`, `deflate`, `br`) is given as it was before. What
    /// [`max_body_size`](HttpServer::max_body_size) allows is then counted after that, so that a few bytes cannot
    /// become gigabytes. Tornado: `decompress_request`.
    #[cfg(feature = "compression")]
    #[cfg_attr(docsrs, doc(cfg(feature = "compression")))]
    #[must_use]
    pub fn decompress_request(self, decompresses: bool) -> HttpServer {
        self.set(|settings| settings.decompresses = decompresses)
    }

    /// Whether answers of a handler that are text are compressed for clients that take that: by `br` or `gzip`, if
    /// they are longer than a kilobyte and not compressed already. A strong ETag becomes a weak one. For a tower
    /// service there is `CompressionLayer` of `tower-http`. Tornado: `compress_response`.
    #[cfg(feature = "compression")]
    #[cfg_attr(docsrs, doc(cfg(feature = "compression")))]
    #[must_use]
    pub fn compress_response(self, compresses: bool) -> HttpServer {
        self.set(|settings| settings.compresses = compresses)
    }

    /// Believes what a proxy in front says of the client: `X-Real-Ip` or `X-Forwarded-For`, `X-Scheme` or
    /// `X-Forwarded-Proto`. Whoever can reach the server without such a proxy can then claim anything.
    /// Tornado: `xheaders`.
    #[must_use]
    pub fn xheaders(self, believe: bool) -> HttpServer {
        self.set(|settings| settings.believed = believe.then(Rc::default))
    }

    /// The addresses of further proxies that a request may have come through: the client is the last one in
    /// `X-Forwarded-For` that is none of them. Implies [`xheaders`](HttpServer::xheaders). Tornado:
    /// `trusted_downstream`.
    #[must_use]
    pub fn trusted_downstream(self, proxies: impl IntoIterator<Item = IpAddr>) -> HttpServer {
        let proxies = proxies.into_iter().map(|proxy| proxy.to_canonical()).collect();
        self.set(|settings| settings.believed = Some(proxies))
    }

    /// Whether each request is a line of the log: on unless told. At the level `info`, `warn` from
    /// `400` on and `error` from `500` on, with the target `waterspout::access`. It costs nothing while the log does not take
    /// it. Tornado: `log_request`.
    ///
    /// `200 GET /path (127.0.0.1) 1.23ms`
    #[must_use]
    pub fn access_log(self, logs: bool) -> HttpServer {
        self.set(|settings| settings.logs_access = logs)
    }

    /// Whether a body that a handler gives as a whole, in answer to `GET` or `HEAD`, gets an ETag, and is not
    /// sent to a client that has it already (`304 Not Modified`): off unless told, for each body has to be
    /// hashed. Tornado: `compute_etag`.
    ///
    /// An answer that has an `ETag` or a `Last-Modified` of its own is held to the conditions of the request as
    /// well. Answers of a tower service are left as they are.
    #[must_use]
    pub fn etag(self, gives: bool) -> HttpServer {
        self.set(|settings| settings.etag = gives)
    }

    /// Whether a handler runs to its end although its client has hung up. Without this it is dropped where
    /// it waits, as soon as the server learns of it. It has [`request_timeout`](HttpServer::request_timeout) for its
    /// answer only.
    ///
    /// Of one HTTP/2 connection no more than 200 handlers run, and what it asks for beyond that is answered with `503`.
    /// But a client that connects again and again can have any number of them run: let each end by itself.
    #[must_use]
    pub fn finish_requests(self, finishes: bool) -> HttpServer {
        self.set(|settings| settings.finishes = finishes)
    }

    /// Serves the connections of all listeners from now on over TLS. `h2` and `http/1.1` are offered by ALPN,
    /// unless `acceptor` offers something itself. Tornado: `ssl_options`.
    ///
    /// For certificates that are renewed, keep a clone of the acceptor, and
    /// [`reload`](crate::tls::TlsAcceptor::reload) it.
    #[cfg(feature = "_tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    #[must_use]
    pub fn tls(self, acceptor: crate::tls::TlsAcceptor) -> HttpServer {
        let protocols: &[&[u8]] =
            if cfg!(feature = "http2") { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
        self.set(|settings| settings.tls = Some(acceptor.or_speaking(protocols)))
    }

    /// Lets handlers, services and layers use tokio: its timers, sockets, files and `spawn`. One thread beside
    /// the loop's turns tokio's own reactor, so this is slower than what the loop has.
    #[cfg(feature = "tokio-compat")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tokio-compat")))]
    #[must_use]
    pub fn tokio_context(self, has: bool) -> HttpServer {
        self.set(|settings| settings.in_tokio = has)
    }

    /// Listens on a port of all addresses of the machine, and returns the port's number; port 0 takes a free
    /// port. Can be called again for more ports. Tornado: `listen`.
    ///
    /// # Errors
    ///
    /// As [`bind_sockets`].
    ///
    /// # Panics
    ///
    /// As [`IoLoop::current`](crate::IoLoop::current).
    pub fn listen(&self, port: u16) -> io::Result<u16> {
        self.listen_with(port, &BindOptions::default())
    }

    /// [`listen`](HttpServer::listen) on the addresses of `address` only.
    ///
    /// # Errors
    ///
    /// As [`bind_sockets`].
    ///
    /// # Panics
    ///
    /// As [`IoLoop::current`](crate::IoLoop::current).
    pub fn listen_on(&self, address: &str, port: u16) -> io::Result<u16> {
        self.listen_with(port, &BindOptions { address: Some(address.into()), ..Default::default() })
    }

    /// [`listen`](HttpServer::listen) with all its options. Servers of several loops that serve one port, as
    /// with `Workers`, set `reuse_port`.
    ///
    /// # Errors
    ///
    /// As [`bind_sockets`].
    ///
    /// # Panics
    ///
    /// As [`IoLoop::current`](crate::IoLoop::current).
    pub fn listen_with(&self, port: u16, options: &BindOptions) -> io::Result<u16> {
        let sockets = bind_sockets(port, options)?;
        let port = sockets[0].local_addr()?.port();
        self.add_sockets(sockets)?;
        Ok(port)
    }

    /// Accepts from sockets that listen already. Tornado: `add_sockets`.
    ///
    /// # Errors
    ///
    /// If a socket cannot be registered with the loop. The server accepts from the sockets before it.
    ///
    /// # Panics
    ///
    /// As [`IoLoop::current`](crate::IoLoop::current).
    pub fn add_sockets(
        &self,
        sockets: impl IntoIterator<Item = net::TcpListener>,
    ) -> io::Result<()> {
        for socket in sockets {
            self.server.add_listener(self.listening(TcpListener::from_std(socket)?));
        }
        Ok(())
    }

    /// Listens on a path, and gives its file the permissions `mode`. The file is not removed when the server
    /// has gone. Tornado: `add_socket(bind_unix_socket(path, mode))`.
    ///
    /// # Errors
    ///
    /// As [`bind_unix_socket`].
    ///
    /// # Panics
    ///
    /// As [`IoLoop::current`](crate::IoLoop::current).
    pub fn listen_unix(&self, path: impl AsRef<Path>, mode: u32) -> io::Result<()> {
        let listener = UnixListener::from_std(bind_unix_socket(path, mode)?)?;
        self.server.add_listener(self.listening(listener));
        Ok(())
    }

    /// Accepts from any other listener: in the memory of a test, say.
    ///
    /// # Panics
    ///
    /// As [`IoLoop::current`](crate::IoLoop::current).
    pub fn add_listener<L>(&self, listener: L)
    where
        L: Listener<Stream: AsyncRead + AsyncWrite + Unpin + Send>,
    {
        self.server.add_listener(self.listening(Foreign(listener)));
    }

    fn listening<L>(&self, listener: L) -> Listening<L> {
        Listening {
            listener,
            #[cfg(feature = "_tls")]
            tls: self.shared.settings.borrow().tls.clone(),
        }
    }

    /// Stops accepting and closes the listeners; connections go on. Tornado: `stop`.
    pub fn stop(&self) {
        self.server.stop();
    }

    /// Ends the server: stops accepting, closes the connections that wait for a request, lets the others answer
    /// what they were asked, and waits until they have, but no longer than until `deadline`. Then it cancels
    /// what is left, and gives the number of connections that were. Tornado: `stop`, and
    /// `close_all_connections`.
    ///
    /// A client is told: by `Connection: close` in its last answer, or by `GOAWAY`. What comes for a connection
    /// in that very moment is answered, or not begun at all.
    ///
    /// Cancel safe: if the future was polled and is dropped, connections go on to end, but are not cancelled.
    #[track_caller]
    pub fn drain(&self, deadline: impl Into<Deadline>) -> impl FusedFuture<Output = usize> {
        resumption::here(async move {
            self.server.stop();
            self.shared.is_draining.set(true);
            self.server.wake_connections();
            self.server.drain(deadline).await
        })
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.server.connections()
    }

    /// How many connections were accepted in all.
    pub fn accepted(&self) -> u64 {
        self.server.accepted()
    }
}

impl fmt::Debug for HttpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpServer")
            .field("connections", &self.connections())
            .field("accepted", &self.accepted())
            .finish_non_exhaustive()
    }
}
