//! What an `HttpClient` was told, and what holds unless it is told.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use ::http::HeaderValue;
use futures::future::LocalBoxFuture;

use super::proxy::Proxies;
use crate::sockets::{Resolver, ThreadedResolver};

/// How a fetch goes. Each clone of a client may have others.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) queue_timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) request_timeout: Duration,
    pub(super) stall_timeout: Duration,
    pub(super) max_body_size: u64,
    pub(super) follow_redirects: bool,
    pub(super) max_redirects: usize,
    #[cfg(feature = "compression")]
    pub(super) decompress: bool,
    pub(super) user_agent: Option<HeaderValue>,
    pub(super) proxies: Proxies,
    pub(super) unix_socket: Option<Rc<Path>>,
}

impl Default for Settings {
    fn default() -> Settings {
        let agent = concat!("waterspout/", env!("CARGO_PKG_VERSION"));
        Settings {
            queue_timeout: Duration::from_secs(20),
            connect_timeout: Duration::from_secs(20),
            request_timeout: Duration::from_secs(20),
            stall_timeout: Duration::MAX,
            max_body_size: 100 << 20,
            follow_redirects: true,
            max_redirects: 5,
            #[cfg(feature = "compression")]
            decompress: true,
            user_agent: Some(HeaderValue::from_static(agent)),
            proxies: Proxies::default(),
            unix_socket: None,
        }
    }
}

/// How connections are made. Clients share connections only if they make them alike.
#[derive(Clone)]
pub(super) struct Making {
    pub(super) resolver: AnyResolver,
    pub(super) source: Option<SocketAddr>,
    /// `None` stands for one that trusts whom the features say.
    #[cfg(feature = "_tls")]
    pub(super) tls: Option<crate::tls::TlsConnector>,
    pub(super) max_header_size: usize,
}

impl Default for Making {
    fn default() -> Making {
        Making {
            resolver: AnyResolver::new(ThreadedResolver),
            source: None,
            #[cfg(feature = "_tls")]
            tls: None,
            max_header_size: 64 * 1024,
        }
    }
}

/// Somebody's resolver, of whatever type.
#[derive(Clone)]
pub(super) struct AnyResolver(Rc<dyn Resolving>);

impl AnyResolver {
    pub(super) fn new(resolver: impl Resolver + 'static) -> AnyResolver {
        AnyResolver(Rc::new(resolver))
    }
}

impl Resolver for AnyResolver {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.0.resolving(host, port).await
    }
}

trait Resolving {
    fn resolving<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> LocalBoxFuture<'a, io::Result<Vec<SocketAddr>>>;
}

impl<R: Resolver> Resolving for R {
    fn resolving<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> LocalBoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(self.resolve(host, port))
    }
}
