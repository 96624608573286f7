//! Addresses: what can be connected to and bound.
//!
//! A user may give an address in many forms: as a [`SocketAddr`], as a host and a port, as a text like
//! `localhost:80`. Each form is turned into a [`Target`] by [`ToSocketAddrs`]: addresses, or a name that
//! has to be looked up. A name is looked up on another thread, since the system's function for that may
//! block for half a minute.
//!
//! Texts are read as addresses in this file and nowhere else, and the result is a [`SocketAddr`], never
//! an [`IpAddr`] with a port beside it: an IPv6 address may need a *scope* (the interface by which it is
//! reached), which only a [`SocketAddr`] has. A link-local address without its scope cannot be connected
//! to.

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
/// A numeric address is used as it is. One of IPv6 may be in brackets, and may name the interface by
/// which it is reached, as in `fe80::1%eth0` or `[fe80::1%eth0]:80`. A name is looked up on another
/// thread, as by [`ThreadedResolver`](super::ThreadedResolver), while the loop runs on. This is the
/// counterpart of [`std::net::ToSocketAddrs`], and cannot be implemented outside of this crate.
pub trait ToSocketAddrs: sealed::Sealed {}

mod sealed {
    use super::{SocketAddr, io};

    pub trait Sealed {
        fn target(&self) -> Target;
    }

    /// What the user has given: addresses, or a name to look up.
    #[derive(Debug)]
    pub enum Target {
        /// One address, which is the usual case. It takes no allocation, so that sending a datagram
        /// takes none.
        Address(SocketAddr),
        Addresses(Vec<SocketAddr>),
        Name(String, u16),
        /// Neither an address nor a name.
        Invalid(io::Error),
    }
}

use sealed::Sealed;
pub(super) use sealed::Target;

/// The threads that look names up, unless the loop was given an executor. They do nothing else. On
/// threads shared with other blocking work, a look-up would wait until that work is done; and if that
/// work itself waits for look-ups, and has all the threads, neither would ever be done.
fn look_up_threads() -> Executor {
    static POOL: OnceLock<Executor> = OnceLock::new();
    let make = || Executor::builder().threads(LOOK_UP_THREADS).name("waterspout-resolver").build();
    POOL.get_or_init(make).clone()
}

/// How many look-ups of the process run at the same time, at most. There are many, because a look-up
/// keeps its thread for half a minute if the name server does not answer.
const LOOK_UP_THREADS: usize = 64;

/// Asks the system for the addresses of `host`, on another thread.
///
/// The system cannot be told to stop looking. So a look-up whose future was dropped keeps its thread
/// until the answer has come.
pub(super) async fn look_up(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    let look_up = move || (host.as_str(), port).to_socket_addrs().map(Vec::from_iter);
    let executor =
        on_current(|core| core.executor.borrow().clone()).unwrap_or_else(look_up_threads);
    let looking = executor.spawn_blocking(look_up);
    let found = AssertUnwindSafe(looking).catch_unwind().await;
    // If the executor refuses the work, the future panics. That panic becomes an error, so that it does
    // not end the coroutine that wants an address.
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

/// Tries `attempt` with one address after the other, and gives what it makes of the first with which it
/// succeeds. If it succeeds with none, gives the last error.
pub(crate) async fn first_that_works<T, F: Future<Output = io::Result<T>>>(
    target: impl ToSocketAddrs,
    // Not `AsyncFn`: if such a closure borrows something, the compiler does not find its future to be
    // `Send`.
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

/// Reads `host` as a numeric address, with its scope if it has one, or else as a name to look up.
pub(super) fn host_and_port(host: &str, port: u16) -> Target {
    // Only IPv6 addresses can be in brackets, as in URLs.
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

/// The number of the interface that `zone` names. `zone` is what stands after the `%` of an IPv6
/// address: the interface's name, or already its number.
fn scope(ip: Ipv6Addr, zone: &str) -> io::Result<u32> {
    if let Ok(number) = zone.parse() {
        return Ok(number);
    }
    // The system turns the name of an interface into its number when it reads an address. It reads a
    // numeric one without asking a name server, so this does not block. It takes the name of an
    // interface only after a link-local address, so that is what it gets here, whatever `ip` is.
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

/// Reads `text` as a host and a port, which are divided by the last colon.
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

/// The address of a Unix socket. `path` is that of a file, or, on Linux, an abstract name after a NUL.
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
