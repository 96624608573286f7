//! `Request`: what a handler gets.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use ::http::request;
use bytes::Bytes;

use super::error::BodyError;
use super::incoming::Incoming;
use crate::service::Made;

/// A request, and the connection that it came by. Tornado: `HTTPServerRequest`.
///
/// It dereferences to the [`http::Request`](::http::Request) that it is around: its method, URI, headers and
/// extensions.
///
/// For testing a handler, one can be made without a connection:
///
/// ```
/// use waterspout::http::{Bytes, Incoming, Request};
///
/// let body = Incoming::from(Bytes::from_static(b"Jo"));
/// let request = http::Request::post("/greet?loud=yes").header("accept", "text/plain").body(body)?;
/// let request = Request::from(request);
/// assert_eq!(request.path(), "/greet");
/// assert_eq!(request.argument("loud").as_deref(), Some("yes"));
/// assert_eq!(request.header("accept"), Some("text/plain"));
/// # Ok::<(), http::Error>(())
/// ```
pub struct Request {
    /// In a box, for it is large, and futures that it is moved into are moved themselves.
    inner: Box<::http::Request<Incoming>>,
    connection: Option<Rc<Connected>>,
}

/// Who is at the other end of a connection, as the socket says.
#[derive(Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Peer {
    /// An address.
    Tcp(SocketAddr),
    /// A process on this machine, by a Unix socket.
    Unix,
    /// Whatever the [`Listener`](crate::net::Listener) says.
    Other(String),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(address) => address.fmt(f),
            Peer::Unix => f.write_str("a Unix socket"),
            Peer::Other(peer) => f.write_str(peer),
        }
    }
}

/// As it is displayed: so it stands in reports and in the log.
impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What all requests of a connection have in common.
pub(super) struct Connected {
    pub(super) peer: Peer,
    /// Of a connection over TLS: the certificates that the client has shown, in DER.
    pub(super) tls: Option<Box<[Vec<u8>]>>,
    pub(super) made: Made,
    /// The addresses of proxies that are believed what they say of the client; `None` if none are.
    pub(super) believed: Option<Rc<[IpAddr]>>,
}

impl Request {
    pub(super) fn new(inner: ::http::Request<Incoming>, connection: Rc<Connected>) -> Request {
        Request { inner: Box::new(inner), connection: Some(connection) }
    }

    /// The path, as it was sent: percent-encoded, without the query.
    pub fn path(&self) -> &str {
        self.uri().path()
    }

    /// What stands behind the question mark, as it was sent.
    pub fn query(&self) -> Option<&str> {
        self.uri().query()
    }

    /// The value of `name` in the query, decoded; the last one, if there are several. Tornado:
    /// `get_query_argument`.
    pub fn argument(&self, name: &str) -> Option<Cow<'_, str>> {
        self.arguments().filter(|(other, _)| other == name).map(|(_, value)| value).last()
    }

    /// The names and values of the query, decoded, in their order. Tornado: `query_arguments`.
    pub fn arguments(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        form_urlencoded::parse(self.query().unwrap_or_default().as_bytes())
    }

    /// The first header of this name, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers().get(name)?.to_str().ok()
    }

    /// Who is at the other end of the connection; `None` for a request that did not come by one.
    pub fn peer(&self) -> Option<&Peer> {
        self.connection.as_ref().map(|connection| &connection.peer)
    }

    /// The address of the client: of the peer, or with `xheaders` what a proxy has said. Tornado:
    /// `remote_ip`.
    pub fn remote_ip(&self) -> Option<IpAddr> {
        let connection = self.connection.as_ref()?;
        let peer = match connection.peer {
            Peer::Tcp(address) => Some(address.ip().to_canonical()),
            Peer::Unix | Peer::Other(_) => None,
        };
        match &connection.believed {
            Some(proxies) => self.forwarded_for(proxies).or(peer),
            None => peer,
        }
    }

    /// The client behind proxies that are believed. As Tornado: `X-Forwarded-For` names the client and then the
    /// proxies, and the last one of those that is not known for a proxy is the client; `X-Real-Ip` goes
    /// before it.
    fn forwarded_for(&self, proxies: &[IpAddr]) -> Option<IpAddr> {
        if let Some(real) = self.header("x-real-ip") {
            return real.trim().parse().ok();
        }
        // Several headers of this name are one list.
        let lists = self.headers().get_all("x-forwarded-for").into_iter();
        let hops: Vec<&str> =
            lists.filter_map(|list| list.to_str().ok()).flat_map(|list| list.split(',')).collect();
        let client = hops.into_iter().rev().map(str::trim).find(|hop| {
            hop.parse().map_or(true, |hop: IpAddr| !proxies.contains(&hop.to_canonical()))
        });
        client?.parse().ok()
    }

    /// `https` or `http`: by the connection, or with `xheaders` by what a proxy has said. Tornado:
    /// `protocol`.
    pub fn scheme(&self) -> &'static str {
        let Some(connection) = &self.connection else { return "http" };
        let said = connection.believed.as_ref().and_then(|_| {
            let said = self.header("x-scheme").or_else(|| self.header("x-forwarded-proto"))?;
            // A chain of proxies makes a list, of which the last one is the nearest.
            match said.rsplit(',').next()?.trim() {
                "https" => Some("https"),
                "http" => Some("http"),
                _ => None,
            }
        });
        said.unwrap_or(if connection.tls.is_some() { "https" } else { "http" })
    }

    /// The certificates that the client has shown, in DER, its own first; they have been verified. There are some only
    /// if the server asks for them ([`Tls::require_client_certificates`](crate::tls::Tls::require_client_certificates)). Tornado:
    /// `get_ssl_certificate`.
    #[cfg(feature = "_tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn peer_certificates(&self) -> impl Iterator<Item = &[u8]> {
        let shown = self.connection.iter().filter_map(|connection| connection.tls.as_ref());
        shown.flat_map(|shown| shown.iter().map(|certificate| &certificate[..]))
    }

    /// The host that the client asked for, with its port if it named one. Tornado: `host`.
    pub fn host(&self) -> Option<&str> {
        self.uri().authority().map(|authority| authority.as_str()).or_else(|| self.header("host"))
    }

    /// All of the body. As [`Incoming::bytes`].
    ///
    /// # Errors
    ///
    /// As [`Incoming::chunk`].
    pub async fn bytes(&mut self) -> Result<Bytes, BodyError> {
        self.body_mut().bytes().await
    }

    /// All of the body, as text. As [`Incoming::text`].
    ///
    /// # Errors
    ///
    /// As [`Incoming::text`].
    pub async fn text(&mut self) -> Result<String, BodyError> {
        self.body_mut().text().await
    }

    /// What this is around.
    pub fn into_inner(self) -> ::http::Request<Incoming> {
        *self.inner
    }

    /// The head and the body, each by itself.
    pub fn into_parts(self) -> (request::Parts, Incoming) {
        self.inner.into_parts()
    }
}

impl Deref for Request {
    type Target = ::http::Request<Incoming>;

    fn deref(&self) -> &::http::Request<Incoming> {
        &self.inner
    }
}

impl DerefMut for Request {
    fn deref_mut(&mut self) -> &mut ::http::Request<Incoming> {
        &mut self.inner
    }
}

/// A request that came by no connection: for testing a handler.
impl From<::http::Request<Incoming>> for Request {
    fn from(inner: ::http::Request<Incoming>) -> Request {
        Request { inner: Box::new(inner), connection: None }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", self.method())
            .field("uri", self.uri())
            .field("version", &self.version())
            .field("headers", self.headers())
            .field("peer", &self.peer())
            .finish_non_exhaustive()
    }
}
