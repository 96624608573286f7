//! Addresses: what can be connected and bound to.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6, ToSocketAddrs as _};
use std::panic::AssertUnwindSafe;

use futures::FutureExt;

use crate::error::ExcInfo;
use crate::ioloop::IoLoop;

/// Something that names one or more socket addresses.
///
/// Numeric addresses are used as they are. A name is looked up (`getaddrinfo`) on a thread of the
/// loop's executor, so that the loop does not stand still. The counterpart of
/// [`std::net::ToSocketAddrs`]; it cannot be implemented outside of this crate.
pub trait ToSocketAddrs: sealed::Sealed {}

mod sealed {
    use super::SocketAddr;

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
        /// `host:port` that cannot be taken apart.
        Invalid(&'static str),
    }
}

use sealed::{Sealed, Target};

/// Asks the system for the addresses of `host`, on a thread of the loop's executor.
///
/// The system cannot be told to stop looking, so an answer that is not waited for any more keeps its
/// thread until it has come.
pub(super) async fn look_up(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    let look_up = move || (host.as_str(), port).to_socket_addrs().map(Vec::from_iter);
    // Nobody else can want the answer.
    let looking = IoLoop::current().run_in_executor(look_up).cancel_on_drop();
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
        Target::Invalid(message) => {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
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
pub(crate) async fn first_that_works<T>(
    target: impl ToSocketAddrs,
    attempt: impl AsyncFn(SocketAddr) -> io::Result<T>,
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

fn host_and_port(host: &str, port: u16) -> Target {
    match host.parse::<IpAddr>() {
        Ok(ip) => Target::Address((ip, port).into()),
        Err(_) => Target::Name(host.to_owned(), port),
    }
}

fn host_colon_port(text: &str) -> Target {
    if let Ok(address) = text.parse() {
        return Target::Address(address);
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Target::Invalid("an address has the form host:port");
    };
    match port.parse() {
        Ok(port) => host_and_port(host, port),
        Err(_) => Target::Invalid("the port of an address is a number up to 65535"),
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
            Target::Invalid(message) => message.to_owned(),
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
}
