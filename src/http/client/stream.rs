//! Connecting: to the server, to its Unix socket, or through a proxy, and TLS over that.

use std::fmt;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use ::http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use ::hyper::client::conn::http1;
use futures::future::{Either, select};
use futures::io::{AsyncRead, AsyncWrite};
use socket2::SockRef;
use url::Url;

use super::error::FetchError;
use super::proxy::Proxy;
use super::settings::{Making, Settings};
use crate::http::body::Body;
use crate::hyper::Io;
use crate::service::TcpClient;
use crate::sockets::{TcpStream, UnixStream};
#[cfg(feature = "_tls")]
use crate::tls::{TlsConnector, TlsStream};

/// Where a connection leads, and how it gets there. Requests for which this is the same can share connections.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Route {
    pub(super) is_tls: bool,
    host: String,
    port: u16,
    by: By,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum By {
    Nobody,
    /// The proxy gets the requests, each with the whole URL.
    Proxy(Rc<Proxy>),
    /// The proxy passes on bytes, which are TLS.
    Tunnel(Rc<Proxy>),
    Unix(Rc<Path>),
}

impl Route {
    pub(super) fn of(url: &Url, settings: &Settings) -> Route {
        let is_tls = url.scheme() == "https";
        // Such a URL always has both.
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or_default();
        let proxy = settings.proxies.of(url).cloned();
        let (host, port, by) = match (&settings.unix_socket, proxy) {
            (Some(path), _) => (host, port, By::Unix(path.clone())),
            (None, None) => (host, port, By::Nobody),
            (None, Some(proxy)) if is_tls => (host, port, By::Tunnel(proxy)),
            // One connection serves all hosts.
            (None, Some(proxy)) => ("", 0, By::Proxy(proxy)),
        };
        Route { is_tls, host: host.to_owned(), port, by }
    }

    /// The proxy that gets the requests themselves.
    pub(super) fn proxy(&self) -> Option<&Proxy> {
        match &self.by {
            By::Proxy(proxy) => Some(proxy),
            _ => None,
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.by {
            By::Nobody | By::Tunnel(_) => write!(f, "{}:{}", self.host, self.port),
            By::Proxy(proxy) => write!(f, "the proxy {proxy}"),
            By::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A socket that a connection uses and the client can look at.
#[derive(Clone)]
pub(super) struct Socket(Rc<Kind>);

enum Kind {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Whether nothing has come that was not read, not even the end. The loop may not know of it yet, so the
    /// system is asked.
    fn is_quiet(&self) -> bool {
        let socket = match &*self.0 {
            Kind::Tcp(stream) => SockRef::from(stream),
            Kind::Unix(stream) => SockRef::from(stream),
        };
        let looked = socket.peek(&mut [MaybeUninit::uninit()]);
        looked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    pub(super) fn downgrade(&self) -> Watched {
        Watched(Rc::downgrade(&self.0))
    }
}

/// A socket that belongs to a connection.
pub(super) struct Watched(std::rc::Weak<Kind>);

impl Watched {
    /// Whether the connection still has it, and nothing has come on it that was not read.
    pub(super) fn is_quiet(&self) -> bool {
        self.0.upgrade().is_some_and(|kind| Socket(kind).is_quiet())
    }
}

/// What a connection speaks HTTP over.
pub(super) enum Stream {
    Plain(Socket),
    #[cfg(feature = "_tls")]
    Tls(TlsStream<Socket>),
}

impl Stream {
    pub(super) fn socket(&self) -> &Socket {
        match self {
            Stream::Plain(socket) => socket,
            #[cfg(feature = "_tls")]
            Stream::Tls(stream) => stream.get_ref(),
        }
    }

    /// Whether both sides have agreed on HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        match self {
            Stream::Plain(_) => false,
            #[cfg(feature = "_tls")]
            Stream::Tls(stream) => stream.alpn_protocol() == Some(b"h2"),
        }
    }
}

/// Connects, with all that goes before the first request.
pub(super) async fn connect(making: &Making, route: &Route) -> Result<Stream, FetchError> {
    let socket = match &route.by {
        By::Nobody => dial(making, &route.host, route.port).await?,
        By::Proxy(proxy) => dial(making, &proxy.host, proxy.port).await?,
        By::Tunnel(proxy) => {
            let socket = dial(making, &proxy.host, proxy.port).await?;
            tunnel(proxy, socket, &route.host, route.port, making.max_header_size).await?
        }
        By::Unix(path) => {
            let stream = UnixStream::connect(path).await;
            let to = || path.display().to_string();
            Socket(Rc::new(Kind::Unix(
                stream.map_err(|error| FetchError::Connect { to: to(), error })?,
            )))
        }
    };
    if !route.is_tls {
        return Ok(Stream::Plain(socket));
    }
    #[cfg(feature = "_tls")]
    return shake_hands(making, route, socket).await;
    #[cfg(not(feature = "_tls"))]
    Err(FetchError::Invalid(format!(
        "{route} cannot be fetched from by https: TLS is not compiled in (feature tls)"
    )))
}

async fn dial(making: &Making, host: &str, port: u16) -> Result<Socket, FetchError> {
    let client = TcpClient::new().resolver(making.resolver.clone());
    let client = match making.source {
        Some(source) => client.source(source),
        None => client,
    };
    match client.connect(host, port).await {
        Ok(stream) => Ok(Socket(Rc::new(Kind::Tcp(stream)))),
        Err(error) => Err(FetchError::Connect { to: format!("{host}:{port}"), error }),
    }
}

/// Has the proxy connect to a host. From then on, all bytes are for that.
async fn tunnel(
    proxy: &Proxy,
    socket: Socket,
    host: &str,
    port: u16,
    max_header_size: usize,
) -> Result<Socket, FetchError> {
    let failed = |reason: String| FetchError::Proxy { proxy: proxy.to_string(), reason };
    let to = format!("{host}:{port}");
    let uri = Uri::try_from(&to).map_err(|error| failed(error.to_string()))?;
    let host = HeaderValue::try_from(&to).map_err(|error| failed(error.to_string()))?;
    let mut request = Request::new(Body::empty());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = uri;
    request.headers_mut().insert(header::HOST, host);
    if let Some(authorization) = &proxy.authorization {
        request.headers_mut().insert(header::PROXY_AUTHORIZATION, authorization.clone());
    }
    let mut builder = http1::Builder::new();
    builder.max_header_size(max_header_size);
    let shaken = builder.handshake(Io::new(socket.clone())).await;
    let (mut sender, connection) = shaken.map_err(|error| failed(error.to_string()))?;
    let answered = Box::pin(sender.send_request(request));
    // The connection ends after an answer that opens the tunnel, and otherwise when the request has failed.
    let connection = Box::pin(connection.without_shutdown());
    let (answer, connection) = match select(answered, connection).await {
        Either::Left((answer, connection)) => (answer, Either::Left(connection)),
        Either::Right((ended, answered)) => (answered.await, Either::Right(ended)),
    };
    let status = answer.map_err(|error| failed(error.to_string()))?.status();
    if !status.is_success() {
        let hint = match status {
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                " (a name and a password can stand in its URL)"
            }
            _ => "",
        };
        return Err(failed(format!("it answers {status}{hint}")));
    }
    let parts = match connection {
        Either::Left(connection) => connection.await,
        Either::Right(ended) => ended,
    };
    let parts = parts.map_err(|error| failed(error.to_string()))?;
    // Of TLS, the client speaks first.
    if !parts.read_buf.is_empty() {
        return Err(failed("it sends more than an answer".into()));
    }
    Ok(socket)
}

#[cfg(feature = "_tls")]
async fn shake_hands(making: &Making, route: &Route, socket: Socket) -> Result<Stream, FetchError> {
    let failed = |error| FetchError::Tls { to: route.to_string(), error };
    let connector = match &making.tls {
        Some(connector) => connector.clone(),
        None => usual_connector().map_err(failed)?,
    };
    // A certificate is for an address without the brackets that it has in a URL.
    let host = route.host.trim_matches(['[', ']']);
    connector.connect(host, socket).await.map(Stream::Tls).map_err(failed)
}

/// What a connection may speak, as ALPN names it.
#[cfg(feature = "_tls")]
pub(super) fn protocols() -> Vec<&'static str> {
    if cfg!(feature = "http2") { vec!["h2", "http/1.1"] } else { vec!["http/1.1"] }
}

/// One that trusts whom the features say. Finding them takes long, and sessions are better resumed, so the
/// process has one for all clients.
#[cfg(feature = "_tls")]
fn usual_connector() -> io::Result<TlsConnector> {
    use std::sync::OnceLock;
    static USUAL: OnceLock<TlsConnector> = OnceLock::new();
    if let Some(connector) = USUAL.get() {
        return Ok(connector.clone());
    }
    let connector = TlsConnector::new(usual_roots()?)?.alpn(protocols());
    Ok(USUAL.get_or_init(|| connector).clone())
}

#[cfg(feature = "tls-native-roots")]
fn usual_roots() -> io::Result<crate::tls::Roots> {
    crate::tls::Roots::native()
}

#[cfg(all(feature = "_tls", feature = "tls-webpki-roots", not(feature = "tls-native-roots")))]
fn usual_roots() -> io::Result<crate::tls::Roots> {
    Ok(crate::tls::Roots::webpki())
}

#[cfg(all(feature = "_tls", not(any(feature = "tls-native-roots", feature = "tls-webpki-roots"))))]
fn usual_roots() -> io::Result<crate::tls::Roots> {
    let message = "nobody is trusted: give HttpClient::tls a connector, or use the feature \
                   tls-native-roots or tls-webpki-roots";
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match &*self.0 {
            Kind::Tcp(stream) => Pin::new(&mut &*stream).poll_read(cx, buf),
            Kind::Unix(stream) => Pin::new(&mut &*stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &*self.0 {
            Kind::Tcp(stream) => Pin::new(&mut &*stream).poll_write(cx, buf),
            Kind::Unix(stream) => Pin::new(&mut &*stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &*self.0 {
            Kind::Tcp(stream) => Pin::new(&mut &*stream).poll_write_vectored(cx, bufs),
            Kind::Unix(stream) => Pin::new(&mut &*stream).poll_write_vectored(cx, bufs),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket keeps nothing back.
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &*self.0 {
            Kind::Tcp(stream) => Pin::new(&mut &*stream).poll_close(cx),
            Kind::Unix(stream) => Pin::new(&mut &*stream).poll_close(cx),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            #[cfg(feature = "_tls")]
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            #[cfg(feature = "_tls")]
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            #[cfg(feature = "_tls")]
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(socket) => Pin::new(socket).poll_flush(cx),
            #[cfg(feature = "_tls")]
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(socket) => Pin::new(socket).poll_close(cx),
            #[cfg(feature = "_tls")]
            Stream::Tls(stream) => Pin::new(stream).poll_close(cx),
        }
    }
}
