//! Resolvers, which find the addresses of a name. There are several, which can be put over each other.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures::future::FusedFuture;

use super::address::{Target, host_and_port, look_up};
use crate::ground::resumption;
use crate::ioloop::IoLoop;

/// Finds the addresses of a name. Tornado: `Resolver`.
///
/// [`TcpClient`](crate::net::TcpClient) takes a resolver. It asks it only for names, never for numeric
/// addresses.
pub trait Resolver {
    /// The addresses of `host`, in the order in which they are to be tried.
    ///
    /// An implementation may be an `async fn`. Those of this crate give a [`FusedFuture`].
    ///
    /// # Errors
    ///
    /// If `host` has no address, or its addresses cannot be found out.
    fn resolve(&self, host: &str, port: u16) -> impl Future<Output = io::Result<Vec<SocketAddr>>>;
}

/// A resolver that several clients share.
impl<R: Resolver> Resolver for Rc<R> {
    #[expect(refining_impl_trait, reason = "`select!` takes it as it is")]
    #[track_caller]
    fn resolve(
        &self,
        host: &str,
        port: u16,
    ) -> impl FusedFuture<Output = io::Result<Vec<SocketAddr>>> {
        resumption::or_here((**self).resolve(host, port))
    }
}

/// Whether `text` is a numeric IPv4 or IPv6 address. Tornado: `is_valid_ip`.
///
/// ```
/// use waterspout::net::is_valid_ip;
///
/// assert!(is_valid_ip("127.0.0.1") && is_valid_ip("::1"));
/// assert!(!is_valid_ip("localhost") && !is_valid_ip("127.0.0.1 ") && !is_valid_ip(""));
/// ```
pub fn is_valid_ip(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

/// The addresses of `host`, at least one. `resolver` is asked only if `host` is not a numeric address.
pub(crate) async fn resolve_with(
    resolver: &impl Resolver,
    host: &str,
    port: u16,
) -> io::Result<Vec<SocketAddr>> {
    match host_and_port(host, port) {
        Target::Address(address) => return Ok(vec![address]),
        Target::Addresses(addresses) => return Ok(addresses),
        Target::Invalid(error) => return Err(error),
        Target::Name(..) => {}
    }
    let addresses = resolver.resolve(host, port).await?;
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address")));
    }
    Ok(addresses)
}

/// Asks the system (`getaddrinfo`) on another thread. Tornado: `ThreadedResolver`.
///
/// The process has up to 64 threads that do nothing but look-ups, so that no look-up waits for other
/// work. But if the loop was given an executor by
/// [`set_default_executor`](crate::IoLoop::set_default_executor), its look-ups run on that; if the
/// executor refuses one, that is an error of the look-up.
///
/// The system cannot be told to stop looking. So a look-up whose future was dropped keeps its thread
/// until the answer has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThreadedResolver;

impl Resolver for ThreadedResolver {
    #[expect(refining_impl_trait, reason = "`select!` takes it as it is")]
    #[track_caller]
    fn resolve(
        &self,
        host: &str,
        port: u16,
    ) -> impl FusedFuture<Output = io::Result<Vec<SocketAddr>>> {
        resumption::here(look_up(host.to_owned(), port))
    }
}

/// Puts other names or addresses in place of some names, and asks another resolver for the rest. Tornado:
/// `OverrideResolver`.
///
/// ```
/// use waterspout::net::{OverrideResolver, ThreadedResolver};
///
/// let resolver = OverrideResolver::new(ThreadedResolver)
///     .with_host("example.com", "127.0.0.1")
///     .with_port("example.com", 443, "127.0.0.1", 8443);
/// ```
#[derive(Clone)]
pub struct OverrideResolver<R> {
    inner: R,
    hosts: HashMap<String, String>,
    ports: HashMap<(String, u16), (String, u16)>,
}

impl<R: Resolver> OverrideResolver<R> {
    /// Asks `inner` for every name, until [`with_host`](OverrideResolver::with_host) or
    /// [`with_port`](OverrideResolver::with_port) says otherwise.
    pub fn new(inner: R) -> OverrideResolver<R> {
        OverrideResolver { inner, hosts: HashMap::new(), ports: HashMap::new() }
    }

    /// Puts `to`, a name or a numeric address, in place of `host`.
    #[must_use]
    pub fn with_host(mut self, host: &str, to: &str) -> OverrideResolver<R> {
        self.hosts.insert(host.to_owned(), to.to_owned());
        self
    }

    /// Puts `to` and `to_port` in place of `host` with `port`. This goes before what
    /// [`with_host`](OverrideResolver::with_host) says of that host.
    #[must_use]
    pub fn with_port(mut self, host: &str, port: u16, to: &str, to_port: u16) -> Self {
        self.ports.insert((host.to_owned(), port), (to.to_owned(), to_port));
        self
    }
}

impl<R: Resolver> Resolver for OverrideResolver<R> {
    #[expect(refining_impl_trait, reason = "`select!` takes it as it is")]
    #[track_caller]
    fn resolve(
        &self,
        host: &str,
        port: u16,
    ) -> impl FusedFuture<Output = io::Result<Vec<SocketAddr>>> {
        resumption::here(async move {
            let (host, port) = match self.ports.get(&(host.to_owned(), port)) {
                Some((host, port)) => (host.as_str(), *port),
                None => (self.hosts.get(host).map_or(host, String::as_str), port),
            };
            resolve_with(&self.inner, host, port).await
        })
    }
}

impl<R: fmt::Debug> fmt::Debug for OverrideResolver<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OverrideResolver")
            .field("inner", &self.inner)
            .field("hosts", &self.hosts)
            .field("ports", &self.ports)
            .finish()
    }
}

/// Asks another resolver, and remembers its answers for a time. It does not remember errors, nor that a
/// name has no address.
pub struct CachingResolver<R> {
    inner: R,
    keep: Duration,
    known: RefCell<HashMap<(String, u16), Answer>>,
    /// How often `clear` was called. If that changes while an answer is awaited, the answer is not
    /// remembered.
    cleared: Cell<u64>,
}

/// Addresses, and since when they are remembered.
type Answer = (Instant, Rc<[SocketAddr]>);

impl<R: Resolver> CachingResolver<R> {
    /// Remembers answers for as long as `keep`, at most 1,024 of them.
    pub fn new(inner: R, keep: Duration) -> CachingResolver<R> {
        CachingResolver { inner, keep, known: RefCell::default(), cleared: Cell::new(0) }
    }

    /// Forgets all answers. An answer that is awaited now is given to whoever awaits it, but not
    /// remembered.
    pub fn clear(&self) {
        self.cleared.set(self.cleared.get() + 1);
        self.known.borrow_mut().clear();
    }
}

/// How many answers a [`CachingResolver`] remembers.
const REMEMBERED: usize = 1024;

impl<R: Resolver> Resolver for CachingResolver<R> {
    #[expect(refining_impl_trait, reason = "`select!` takes it as it is")]
    #[track_caller]
    fn resolve(
        &self,
        host: &str,
        port: u16,
    ) -> impl FusedFuture<Output = io::Result<Vec<SocketAddr>>> {
        resumption::here(async move {
            let key = (host.to_owned(), port);
            let is_over = |since: Instant| IoLoop::current().time() - since >= self.keep;
            let known = self.known.borrow().get(&key).cloned();
            match known {
                Some((since, addresses)) if !is_over(since) => return Ok(addresses.to_vec()),
                _ => {}
            }
            let cleared = self.cleared.get();
            let addresses = self.inner.resolve(host, port).await?;
            if addresses.is_empty() || cleared != self.cleared.get() {
                return Ok(addresses);
            }
            let mut known = self.known.borrow_mut();
            if known.len() >= REMEMBERED {
                known.retain(|_, (since, _)| !is_over(*since));
            }
            if known.len() < REMEMBERED {
                known.insert(key, (IoLoop::current().time(), addresses.as_slice().into()));
            }
            Ok(addresses)
        })
    }
}

impl<R: fmt::Debug> fmt::Debug for CachingResolver<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachingResolver")
            .field("inner", &self.inner)
            .field("keep", &self.keep)
            .field("known", &self.known.borrow().len())
            .finish()
    }
}
