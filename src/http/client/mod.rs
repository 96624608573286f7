//! `HttpClient`: fetches what URLs name, over connections that it keeps.
//!
//! The client itself is what it was told (`settings`) and its connections (`pool`). A `Fetch` goes from one to
//! the other: it waits for its turn, leases a connection, sends the request, and follows redirections. What is
//! left of it when the answer is there is a coroutine that waits for the end of the body, and then gives the
//! connection back.

mod basic;
mod connection;
mod error;
mod expect;
mod fetch;
mod message;
mod pool;
mod proxy;
mod response;
mod settings;
mod stream;

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use ::http::{HeaderValue, Method};

use crate::http::body::Body;
use crate::sockets::Resolver;
#[cfg(feature = "_tls")]
use crate::tls::TlsConnector;
use fetch::{bare, message_of};
use pool::{Limits, Pool};
use proxy::Proxies;
use settings::{AnyResolver, Making, Settings};

pub use error::FetchError;
pub use fetch::{Fetch, IntoFetch};
pub use response::FetchResponse;

/// Fetches a URL, or a request, by a client of its own: `HttpClient::new().fetch(what)`.
///
/// So each call connects anew. Who fetches more than once from a server had better keep an [`HttpClient`].
///
/// ```no_run
/// # async fn one() -> Result<(), waterspout::http::FetchError> {
/// let page = waterspout::http::fetch("https://www.rust-lang.org/").await?.text().await?;
/// # Ok(())
/// # }
/// ```
#[track_caller]
pub fn fetch(what: impl IntoFetch) -> Fetch {
    HttpClient::new().fetch(what)
}

/// Fetches what URLs of `http` and `https` name, by HTTP/1.1, or by HTTP/2 where the server offers that (feature
/// `http2`). Tornado: `AsyncHTTPClient`.
///
/// ```
/// use waterspout::IoLoop;
/// use waterspout::http::HttpClient;
/// use waterspout::net::TcpServer;
///
/// # IoLoop::new()?.run_sync(|| async {
/// let server = TcpServer::new(async |stream, _peer| {
///     let head = stream.read_until("\r\n\r\n", 4096).await?;
///     assert!(head.starts_with(b"GET /greeting?loud HTTP/1.1\r\n"));
///     stream.write("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nHELLO\n").await
/// });
/// let port = server.listen_on("127.0.0.1", 0)?;
///
/// let client = HttpClient::new();
/// let mut answer = client.fetch(format!("http://localhost:{port}/greeting?loud")).await?;
/// assert_eq!(answer.status(), 200);
/// assert_eq!(answer.text().await?, "HELLO\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// More of a request is said before it is awaited, or by a [`http::Request`](::http::Request):
///
/// ```no_run
/// # async fn some(client: waterspout::http::HttpClient) -> Result<(), Box<dyn std::error::Error>> {
/// let answer = client.post("https://example.org/", "a=1").header("x-mine", "1").await?.error_for_status()?;
/// let request = http::Request::put("https://example.org/").header("x-mine", "1").body("text")?;
/// let answer = client.fetch(request).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Connections
///
/// A clone of a client shares its connections, and may have other settings. Connections are kept for the next
/// request to the same origin (scheme, host and port, by the same proxy or socket). One that the server has
/// ended meanwhile, or on which it has sent something that nobody asked for, is not used again. With HTTP/2 one
/// connection serves all requests to an origin.
///
/// **Nothing is sent twice.** If a connection breaks after something of a request was sent, the fetch fails,
/// since nobody knows what the server has done. Only what was not sent at all is sent over another connection.
///
/// When the last clone is dropped, connections that are idle end at once, and the others when the answer has been
/// read (or dropped). A client belongs to no loop; but its connections do, and are used on that loop only.
///
/// # What is set, unless told
///
/// | setting | is | when it is over |
/// | --- | --- | --- |
/// | [`max_clients`](HttpClient::max_clients) | 100 | the next fetch waits for its turn |
/// | [`queue_timeout`](HttpClient::queue_timeout) | 20 seconds | [`FetchError::QueueTimedOut`] |
/// | [`connect_timeout`](HttpClient::connect_timeout) | 20 seconds | [`FetchError::ConnectTimedOut`] |
/// | [`request_timeout`](HttpClient::request_timeout) | 20 seconds | [`FetchError::TimedOut`], [`BodyError::TimedOut`](super::BodyError::TimedOut) |
/// | [`stall_timeout`](HttpClient::stall_timeout) | none | [`BodyError::TimedOut`](super::BodyError::TimedOut) |
/// | [`max_body_size`](HttpClient::max_body_size) | 100 MiB | [`BodyError::TooLarge`](super::BodyError::TooLarge) |
/// | [`max_header_size`](HttpClient::max_header_size) | 64 KiB, 100 headers | [`FetchError::Broken`] |
/// | [`max_redirects`](HttpClient::max_redirects) | 5 | [`FetchError::TooManyRedirects`] |
/// | [`max_idle_per_origin`](HttpClient::max_idle_per_origin) | as `max_clients` | the oldest one ends |
/// | [`idle_timeout`](HttpClient::idle_timeout) | 60 seconds | the connection ends |
///
/// # Redirections
///
/// `301`, `302`, `303`, `307` and `308` with a `Location` are followed, as Tornado and browsers do it:
///
/// * After `303`, and after `301` or `302` of a `POST`, the request is a `GET` without a body. Otherwise method
///   and body stay. A body that is a stream cannot be sent again: then the redirection is the answer.
/// * `Authorization`, `Cookie` and `Proxy-Authorization` do not go to another origin. What a `Location` says of
///   a name and a password counts at the same origin only.
/// * All redirections of a request together have its `request_timeout`.
///
/// # Cookies
///
/// There are none, but for those in the headers.
#[derive(Clone)]
pub struct HttpClient {
    pool: Rc<Pool>,
    settings: Rc<Settings>,
}

impl HttpClient {
    /// A client with no connections yet.
    pub fn new() -> HttpClient {
        let (clients, idle_per_origin) = (100, usize::MAX);
        let limits = Limits { clients, idle_per_origin, idle_timeout: Duration::from_secs(60) };
        let pool = Pool::new(Making::default(), limits);
        HttpClient { pool, settings: Rc::default() }
    }

    /// Fetches a URL (by `GET`), or sends a [`http::Request`](::http::Request). Tornado: `fetch`.
    ///
    /// It begins when the [`Fetch`] is awaited, and then gives a [`FetchResponse`], whose head has come.
    #[track_caller]
    pub fn fetch(&self, what: impl IntoFetch) -> Fetch {
        Fetch::new(self.pool.clone(), self.settings.clone(), message_of(what))
    }

    /// Fetches a URL by `GET`.
    #[track_caller]
    pub fn get(&self, url: impl AsRef<str>) -> Fetch {
        self.request(Method::GET, url)
    }

    /// Sends a `POST` with this body. Its `Content-Type` is to be set by
    /// [`header`](Fetch::header). (Tornado's would be `application/x-www-form-urlencoded`.)
    #[track_caller]
    pub fn post(&self, url: impl AsRef<str>, body: impl Into<Body>) -> Fetch {
        self.request(Method::POST, url).body(body)
    }

    /// Sends a request with any method.
    #[track_caller]
    pub fn request(&self, method: Method, url: impl AsRef<str>) -> Fetch {
        let message = bare(method, url.as_ref());
        Fetch::new(self.pool.clone(), self.settings.clone(), message)
    }

    /// Ends all connections, of all clones, and what is being fetched by them:
    /// [`FetchError::Closed`]. Nothing can be fetched any more. Tornado: `close`.
    pub fn close(&self) {
        self.pool.close();
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> HttpClient {
        change(Rc::make_mut(&mut self.settings));
        self
    }

    fn with_limits(self, change: impl FnOnce(&mut Limits)) -> HttpClient {
        let mut limits = self.pool.limits();
        change(&mut limits);
        self.pool.set_limits(limits);
        self
    }

    /// Makes connections in another way, and so shares none with the others any more.
    fn with_making(mut self, change: impl FnOnce(&mut Making)) -> HttpClient {
        let mut making = self.pool.making().clone();
        change(&mut making);
        self.pool = Pool::new(making, self.pool.limits());
        self
    }

    /// How many fetches there may be at the same time, each until its answer was read to its end. Others wait
    /// for their turn, first come, first served. It also is how many idle connections are kept. For all clones;
    /// those that have been let in do not count if it is changed. Tornado: `max_clients`, which is 10.
    #[must_use]
    pub fn max_clients(self, number: usize) -> HttpClient {
        self.with_limits(|limits| limits.clients = number.max(1))
    }

    /// How many idle connections to one origin are kept. For all clones.
    #[must_use]
    pub fn max_idle_per_origin(self, number: usize) -> HttpClient {
        self.with_limits(|limits| limits.idle_per_origin = number)
    }

    /// How long an idle connection is kept. With [`Duration::ZERO`], none is. For all clones.
    #[must_use]
    pub fn idle_timeout(self, limit: Duration) -> HttpClient {
        self.with_limits(|limits| limits.idle_timeout = limit)
    }

    /// How long a fetch waits for its turn, which counts for no other time limit.
    #[must_use]
    pub fn queue_timeout(self, limit: Duration) -> HttpClient {
        self.with(|settings| settings.queue_timeout = limit)
    }

    /// How long looking a name up, connecting, a proxy and the TLS handshake may take together. Tornado:
    /// `connect_timeout`.
    #[must_use]
    pub fn connect_timeout(self, limit: Duration) -> HttpClient {
        self.with(|settings| settings.connect_timeout = limit)
    }

    /// How long a fetch may take, with all redirections, from its turn to the end of the body. For the
    /// download of something large, set this to [`Duration::MAX`], and the
    /// [`stall_timeout`](HttpClient::stall_timeout). Tornado: `request_timeout`.
    #[must_use]
    pub fn request_timeout(self, limit: Duration) -> HttpClient {
        self.with(|settings| settings.request_timeout = limit)
    }

    /// How long nothing of the body may come while it is awaited.
    #[must_use]
    pub fn stall_timeout(self, limit: Duration) -> HttpClient {
        self.with(|settings| settings.stall_timeout = limit)
    }

    /// How large a body may be, in bytes, after it was decompressed. Reading one that is larger gives
    /// [`BodyError::TooLarge`](super::BodyError::TooLarge). Tornado: `max_body_size`.
    #[must_use]
    pub fn max_body_size(self, bytes: u64) -> HttpClient {
        self.with(|settings| settings.max_body_size = bytes)
    }

    /// How large the head of an answer may be, in bytes. Another client from then on: it shares no connections
    /// with its clones from before. Tornado: `max_header_size`.
    #[must_use]
    pub fn max_header_size(self, bytes: usize) -> HttpClient {
        self.with_making(|making| making.max_header_size = bytes)
    }

    /// Whether redirections are followed: yes, unless told. Tornado: `follow_redirects`.
    #[must_use]
    pub fn follow_redirects(self, yes: bool) -> HttpClient {
        self.with(|settings| settings.follow_redirects = yes)
    }

    /// How many redirections are followed. (Tornado then gives the last redirection as the answer.)
    #[must_use]
    pub fn max_redirects(self, number: usize) -> HttpClient {
        self.with(|settings| settings.max_redirects = number)
    }

    /// Whether compressed answers are asked for, and decompressed: yes, unless told. `Content-Encoding` and
    /// `Content-Length` are then taken off. For a request that says itself what it takes, by
    /// `Accept-Encoding`, or that asks for a `Range`, nothing is decompressed. Tornado: `decompress_response`.
    #[cfg(feature = "compression")]
    #[cfg_attr(docsrs, doc(cfg(feature = "compression")))]
    #[must_use]
    pub fn decompress(self, yes: bool) -> HttpClient {
        self.with(|settings| settings.decompress = yes)
    }

    /// The `User-Agent` of requests that have none: `waterspout/` and the version, unless told; with an
    /// empty text, none. Tornado: `user_agent`.
    ///
    /// # Panics
    ///
    /// If it cannot be a header.
    #[must_use]
    pub fn user_agent(self, name: &str) -> HttpClient {
        let Ok(agent) = HeaderValue::from_str(name) else {
            panic!("{name:?} cannot be a header");
        };
        self.with(|settings| settings.user_agent = Some(agent).filter(|_| !name.is_empty()))
    }

    /// Fetches by a proxy, whose URL is `http://host:port`, or `http://name:password@host:port` if it wants to
    /// know who asks. What is fetched by `https` it passes on without seeing it (`CONNECT`). Tornado:
    /// `proxy_host` and so on, of the client over curl.
    ///
    /// # Errors
    ///
    /// [`FetchError::Invalid`] if that is no such URL.
    pub fn proxy(self, url: &str) -> Result<HttpClient, FetchError> {
        let proxies = Proxies::all(url)?;
        Ok(self.with(|settings| settings.proxies = proxies))
    }

    /// Fetches by the proxies that the environment names, as most programs do: `HTTP_PROXY` and `HTTPS_PROXY`
    /// for URLs of these schemes, `ALL_PROXY` for both, and `NO_PROXY` for hosts that are connected to
    /// directly. Each may be in small letters, which goes before. `NO_PROXY` is a list with commas of names
    /// (which stand for all names below them, too), addresses, nets like `10.0.0.0/8`, each with a port or
    /// without, or `*`.
    ///
    /// In a CGI script, which has a variable `REQUEST_METHOD`, `HTTP_PROXY` is not believed, since whoever makes
    /// a request there sets it.
    ///
    /// # Errors
    ///
    /// [`FetchError::Invalid`] if one of them is no URL of a proxy.
    pub fn proxy_from_env(self) -> Result<HttpClient, FetchError> {
        let proxies = Proxies::from_env(|name| std::env::var(name).ok())?;
        Ok(self.with(|settings| settings.proxies = proxies))
    }

    /// Fetches from the server that listens at a Unix socket, whatever host the URL names; that is then only
    /// told to the server. Redirections stay there, too.
    #[must_use]
    pub fn unix_socket(self, path: impl AsRef<Path>) -> HttpClient {
        self.with(|settings| settings.unix_socket = Some(path.as_ref().into()))
    }

    /// Shakes hands by this: whom the client trusts, and whether it shows a certificate. If it says by
    /// [`alpn`](TlsConnector::alpn) what is spoken (only `http/1.1`, say), that holds. Otherwise the client
    /// trusts whom the features `tls-native-roots` or `tls-webpki-roots` say. Another client from then on: it
    /// shares no connections with its clones from before. Tornado: `ssl_options`, `ca_certs`, `client_cert`.
    #[cfg(feature = "_tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    #[must_use]
    pub fn tls(self, connector: TlsConnector) -> HttpClient {
        let connector = connector.or_alpn(stream::protocols());
        self.with_making(|making| making.tls = Some(connector))
    }

    /// Looks names up by this. Another client from then on: it shares no connections with its clones from
    /// before. Tornado: `resolver`, `hostname_mapping`.
    #[must_use]
    pub fn resolver(self, resolver: impl Resolver + 'static) -> HttpClient {
        self.with_making(|making| making.resolver = AnyResolver::new(resolver))
    }

    /// Connects from this address of the machine; port 0 stands for any. Another client from then on: it shares
    /// no connections with its clones from before. Tornado: `network_interface`.
    #[must_use]
    pub fn source(self, address: SocketAddr) -> HttpClient {
        self.with_making(|making| making.source = Some(address))
    }
}

impl Default for HttpClient {
    fn default() -> HttpClient {
        HttpClient::new()
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient")
            .field("max_clients", &self.pool.limits().clients)
            .field("request_timeout", &self.settings.request_timeout)
            .field("proxies", &self.settings.proxies)
            .finish_non_exhaustive()
    }
}
