//! What an `HttpServer` was told.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::http::incoming::Limits;

/// What holds for the connections that are accepted from now on.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// How long a connection may be idle between two requests, and before the first.
    pub(super) idle: Duration,
    /// How long the head of a request may take.
    pub(super) head: Duration,
    /// How long a handler may take until its answer begins.
    pub(super) request: Duration,
    /// How long a client may take nothing of an answer; `body` has the same for what it sends.
    pub(super) stall: Duration,
    /// In bytes.
    pub(super) head_size: usize,
    pub(super) body: Limits,
    /// The proxies that are believed what they say of a client.
    pub(super) believed: Option<Rc<[IpAddr]>>,
    pub(super) logs_access: bool,
    pub(super) finishes: bool,
    pub(super) etag: bool,
    #[cfg(feature = "compression")]
    pub(super) decompresses: bool,
    #[cfg(feature = "compression")]
    pub(super) compresses: bool,
    #[cfg(feature = "tokio-compat")]
    pub(super) in_tokio: bool,
    #[cfg(feature = "_tls")]
    pub(super) tls: Option<crate::tls::TlsAcceptor>,
}

impl Default for Settings {
    fn default() -> Settings {
        let stall = Duration::from_secs(60);
        Settings {
            idle: Duration::from_secs(3600),
            head: Duration::from_secs(30),
            request: Duration::MAX,
            stall,
            head_size: 64 * 1024,
            body: Limits { size: 100 * 1024 * 1024, stall, whole: Duration::MAX },
            believed: None,
            logs_access: true,
            finishes: false,
            etag: false,
            #[cfg(feature = "compression")]
            decompresses: false,
            #[cfg(feature = "compression")]
            compresses: false,
            #[cfg(feature = "tokio-compat")]
            in_tokio: false,
            #[cfg(feature = "_tls")]
            tls: None,
        }
    }
}
