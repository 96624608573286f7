//! Addresses: what can be connected and bound to.
//!
//! Names of addresses are read here and nowhere else, and what they name stays a [`SocketAddr`]: an
//! IPv6 address by itself has lost its scope, without which a link-local one leads nowhere.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, ToSocketAddrs as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net as unix;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::OnceLock;

use futures::FutureExt;

use crate::concurrent::Executor;
use crate::ground::error::ExcInfo;
use crate::ioloop::on_current;

/// Something that names one or more socket addresses.
///
/// Numeric addresses are used as they are; one of IPv6 may be in brackets, and may name the
/// interface that it is reached by, as in `fe80::1%eth0` or `[fe80::1%eth0]:80`. A name is looked up
/// as [`ThreadedResolver`](super::ThreadedResolver) does it, so that the loop does not stand still. The
/// counterpart of [`std::net::ToSocketAddrs`]; it cannot be implemented outside of this crate.
pub trait ToSocketAddrs: sealed::Sealed {}

mod sealed {
    use super::{SocketAddr, io};

    pub trait Sealed {
        fn target(&self) -> Target;
    }

    /// Addresses, or a name to look up.
    #[derive(Debug)]
    pub enum Target {
        /// The usual case, without an allocation: a datagram is sent to one.
        Address(SocketAddr),
        Addresses(Vec<SocketAddr>),
        Name(String, u16),
        /// Neither an address nor a name.
        Invalid(io::Error),
    }
}

use sealed::Sealed;
pub(super) use sealed::Target;

/// The threads that look names up, unless the loop was given an executor. They are nobody else's: a
/// look-up would wait behind all the other work, and work that waits for a look-up would never end once
/// it has all the threads.
fn pool() -> Executor {
    static POOL: OnceLock<Executor> = OnceLock::new();
    let make = || Executor::builder().threads(LOOK_UPS).name("waterspout-resolver").build();
    POOL.get_or_init(make).clone()
}

/// So many look-ups of a process run at the same time: a name server that does not answer keeps each
/// for half a minute.
const LOOK_UPS: usize = 64;

/// Asks the system for the addresses of `host`, on another thread.
///
/// The system cannot be told to stop looking, so an answer that is not waited for any more keeps its
/// thread until it has come.
pub(super) async fn look_up(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    let look_up = move || (host.as_str(), port).to_socket_addrs().map(Vec::from_iter);
    let executor = on_current(|core| core.executor.borrow().clone()).unwrap_or_else(pool);
    let looking = executor.spawn_blocking(look_up);
    let found = AssertUnwindSafe(looking).catch_unwind().await;
    // The executor may refuse the work, which is no reason to end who wants an address.
    found.unwrap_or_else(|panic| Err(io::Error::other(ExcInfo::from_panic(&*panic))))
}

/// The addresses that `target` names, at least one.
async fn resolve(target: impl ToSocketAddrs) -> io::Result<Vec<SocketAddr>> {
    let addresses = match target.target() {
        Target::Address(address) => vec![address],
        Target::Addresses(addresses) => addresses,
        Target::Name(host, port) => look_up(host, port).await?,
        Target::Invalid(error) => return Err(error),
    };
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no address to use"));
    }
    Ok(addresses)
}

/// The first of the addresses that `target` names.
pub(crate) async fn resolve_one(target: impl ToSocketAddrs) -> io::Result<SocketAddr> {
    match target.target() {
        Target::Address(address) => Ok(address),
        // There is at least one.
        _ => Ok(resolve(target).await?[0]),
    }
}

/// What `attempt` makes of the first of the addresses that it succeeds with, or its last error.
pub(crate) async fn first_that_works<T, F: Future<Output = io::Result<T>>>(
    target: impl ToSocketAddrs,
    // Not `AsyncFn`: the compiler does not see that one which borrows is `Send`.
    attempt: impl Fn(SocketAddr) -> F,
) -> io::Result<T> {
    let mut last = io::ErrorKind::InvalidInput.into();
    for address in resolve(target).await? {
        match attempt(address).await {
            Ok(made) => return Ok(made),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// What `host` names: a numeric address, with its scope, or a name to look up.
pub(super) fn host_and_port(host: &str, port: u16) -> Target {
    // Brackets are of IPv6 only, as they are in URLs.
    let (text, bracketed) = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(text) => (text, true),
        None => (host, false),
    };
    let (ip, zone) = text.split_once('%').map_or((text, None), |(ip, zone)| (ip, Some(zone)));
    match (ip.parse(), zone) {
        (Ok(IpAddr::V6(ip)), zone) => match zone.map_or(Ok(0), |zone| scope(ip, zone)) {
            Ok(scope) => Target::Address(SocketAddrV6::new(ip, port, 0, scope).into()),
            Err(error) => Target::Invalid(error),
        },
        (Ok(ip), None) if !bracketed => Target::Address((ip, port).into()),
        _ => Target::Name(host.to_owned(), port),
    }
}

/// The number of the interface that `zone` names, or is.
fn scope(ip: Ipv6Addr, zone: &str) -> io::Result<u32> {
    if let Ok(number) = zone.parse() {
        return Ok(number);
    }
    // Nobody else is asked for a numeric address; by name, only a link-local one may have a scope.
    let found = (format!("fe80::%{zone}").as_str(), 0).to_socket_addrs();
    let scope = found.ok().and_then(|mut found| match found.next() {
        Some(SocketAddr::V6(address)) => Some(address.scope_id()),
        _ => None,
    });
    scope.filter(|scope| *scope != 0).ok_or_else(|| {
        let message = format!("{ip} cannot be reached by an interface {zone:?}");
        io::Error::new(io::ErrorKind::AddrNotAvailable, message)
    })
}

fn host_colon_port(text: &str) -> Target {
    let Some((host, port)) = text.rsplit_once(':') else {
        return invalid("an address has the form host:port");
    };
    match port.parse() {
        Ok(port) => host_and_port(host, port),
        Err(_) => invalid("the port of an address is a number up to 65535"),
    }
}

fn invalid(message: &str) -> Target {
    Target::Invalid(io::Error::new(io::ErrorKind::InvalidInput, message))
}

/// The address of a Unix socket: a path, or, on Linux, an abstract name after a NUL.
pub(super) fn unix_address(path: &Path) -> io::Result<unix::SocketAddr> {
    #[cfg(target_os = "android")]
    use std::os::android::net::SocketAddrExt as _;
    #[cfg(target_os = "linux")]
    use std::os::linux::net::SocketAddrExt as _;

    match path.as_os_str().as_bytes() {
        #[cfg(any(target_os = "android", target_os = "linux"))]
        [0, name @ ..] => unix::SocketAddr::from_abstract_name(name),
        _ => unix::SocketAddr::from_pathname(path),
    }
}

impl Sealed for SocketAddr {
    fn target(&self) -> Target {
        Target::Address(*self)
    }
}

impl Sealed for SocketAddrV4 {
    fn target(&self) -> Target {
        Target::Address((*self).into())
    }
}

impl Sealed for SocketAddrV6 {
    fn target(&self) -> Target {
        Target::Address((*self).into())
    }
}

impl Sealed for (IpAddr, u16) {
    fn target(&self) -> Target {
        Target::Address((*self).into())
    }
}

impl Sealed for ([u8; 4], u16) {
    fn target(&self) -> Target {
        Target::Address((*self).into())
    }
}

impl Sealed for (&str, u16) {
    fn target(&self) -> Target {
        host_and_port(self.0, self.1)
    }
}

impl Sealed for (String, u16) {
    fn target(&self) -> Target {
        host_and_port(&self.0, self.1)
    }
}

impl Sealed for str {
    fn target(&self) -> Target {
        host_colon_port(self)
    }
}

impl Sealed for String {
    fn target(&self) -> Target {
        host_colon_port(self)
    }
}

impl Sealed for [SocketAddr] {
    fn target(&self) -> Target {
        Target::Addresses(self.to_vec())
    }
}

impl Sealed for Vec<SocketAddr> {
    fn target(&self) -> Target {
        Target::Addresses(self.clone())
    }
}

impl<T: Sealed + ?Sized> Sealed for &T {
    fn target(&self) -> Target {
        (**self).target()
    }
}

impl<T: Sealed + ?Sized> ToSocketAddrs for T {}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(target: impl ToSocketAddrs) -> String {
        match target.target() {
            Target::Address(address) => address.to_string(),
            Target::Addresses(addresses) => format!("{addresses:?}"),
            Target::Name(host, port) => format!("look up {host} for {port}"),
            Target::Invalid(error) => error.to_string(),
        }
    }

    #[test]
    fn numeric_addresses_are_not_looked_up() {
        assert_eq!(shown("127.0.0.1:80"), "127.0.0.1:80");
        assert_eq!(shown("[::1]:80"), "[::1]:80");
        assert_eq!(shown(("::1", 80)), "[::1]:80");
        assert_eq!(shown(([127, 0, 0, 1], 80)), "127.0.0.1:80");
        assert_eq!(shown("127.0.0.1:80".to_owned()), "127.0.0.1:80");
    }

    #[test]
    fn names_are_looked_up_and_nonsense_is_refused() {
        assert_eq!(shown("localhost:80"), "look up localhost for 80");
        assert_eq!(shown(("localhost".to_owned(), 80)), "look up localhost for 80");
        assert_eq!(shown("localhost"), "an address has the form host:port");
        assert_eq!(shown("localhost:http"), "the port of an address is a number up to 65535");
        assert_eq!(shown("localhost:65536"), "the port of an address is a number up to 65535");
    }

    #[test]
    fn an_ipv6_address_keeps_its_scope_however_it_is_written() {
        for text in ["[fe80::1%7]:80", "fe80::1%7:80"] {
            assert_eq!(shown(text), "[fe80::1%7]:80");
        }
        for host in ["fe80::1%7", "[fe80::1%7]"] {
            assert_eq!(shown((host, 80)), "[fe80::1%7]:80");
        }
    }

    #[test]
    #[cfg(target_os = "linux")] // There the loopback is the first interface, and called `lo`.
    fn an_interface_may_be_named_for_any_ipv6_address() {
        for host in ["fe80::1", "ff02::1", "fd00::1", "::1"] {
            let expected = format!("[{host}%1]:80");
            assert_eq!(shown(format!("[{host}%lo]:80")), expected);
            assert_eq!(shown((format!("{host}%lo"), 80)), expected);
        }
    }

    #[test]
    fn brackets_around_an_ipv6_address_are_no_part_of_it() {
        assert_eq!(shown(("[::1]", 80)), "[::1]:80");
        assert_eq!(shown("[::1]:80"), "[::1]:80");
        for host in ["[localhost]", "[127.0.0.1]", "127.0.0.1%1", "[::1", "::1]", "[[::1]]", "[]"] {
            let expected = format!("look up {host} for 80");
            assert_eq!(
                (shown((host, 80)), shown(format!("{host}:80"))),
                (expected.clone(), expected)
            );
        }
    }

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        for zone in ["no such", "", "4294967296", "-1", "lo\0", "lo%lo", "lo]"] {
            let error = format!("fe80::1 cannot be reached by an interface {zone:?}");
            assert_eq!(shown((format!("fe80::1%{zone}"), 80)), error);
        }
    }
}
