//! Listening sockets for servers: one for each address of a name, all on the same port.
//!
//! They are sockets of the standard library, which belong to no loop yet. So a program can bind its
//! ports before it has a loop, and hand the sockets to the threads that will have one.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::{self, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net as unix;
use std::path::Path;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::address::{Target, host_and_port, unix_address};

/// How many connections may wait to be accepted. (Tornado's number is 128. Room for more costs nothing
/// while it is not used.)
pub(super) const BACKLOG: i32 = 1024;

/// How many ports that are free at the first address are tried, until one is free at every address.
const FREE_PORT_TRIES: u32 = 16;

/// How [`bind_sockets`] binds.
#[derive(Clone, Debug)]
pub struct BindOptions {
    /// A name or a numeric address, with its interface if need be (`fe80::1%eth0`). `None` or an empty
    /// text stands for all addresses of the machine.
    pub address: Option<String>,
    /// The kind of addresses that are bound; addresses of the other kind are left out. Tornado: `family`.
    pub family: Family,
    /// How many connections may wait to be accepted; 1,024 by default.
    pub backlog: i32,
    /// Lets several sockets have the same port (`SO_REUSEPORT`): one for each thread of a server, say.
    /// The system distributes the connections over them, by a hash of their addresses; a `Balancer` of servers
    /// evens that out. Off by default.
    pub reuse_port: bool,
    /// Lets accepted connections send small writes at once (`TCP_NODELAY`, which a connection takes over
    /// from its listener). On by default. Without it (Nagle's algorithm), a small write waits until the
    /// write before it is acknowledged.
    pub nodelay: bool,
}

/// A kind of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Family {
    /// IPv4 and IPv6. Tornado: `AF_UNSPEC`.
    #[default]
    Any,
    /// IPv4 only. Tornado: `AF_INET`.
    V4,
    /// IPv6 only. Tornado: `AF_INET6`.
    V6,
}

impl Family {
    fn has(self, address: &SocketAddr) -> bool {
        match self {
            Family::Any => true,
            Family::V4 => address.is_ipv4(),
            Family::V6 => address.is_ipv6(),
        }
    }
}

impl Default for BindOptions {
    fn default() -> BindOptions {
        BindOptions {
            address: None,
            family: Family::Any,
            backlog: BACKLOG,
            reuse_port: false,
            nodelay: true,
        }
    }
}

/// Binds a port on every address that `options` names: one socket each. Tornado: `bind_sockets`.
///
/// For port 0 the system takes a free one, the same for all addresses. A socket for IPv6 takes no IPv4
/// connections, so both families can be bound to the same port. If the machine has no IPv6, its
/// addresses are skipped, unless no other is left. A name is looked up before this returns, which may
/// block the thread.
///
/// # Errors
///
/// If an address cannot be bound: `AddrInUse`, `PermissionDenied` and the like. `AddrNotAvailable` if
/// there is no address of the family. If a name cannot be looked up, the error of that.
///
/// ```
/// use waterspout::net::{BindOptions, bind_sockets};
///
/// let options = BindOptions { address: Some("localhost".into()), ..BindOptions::default() };
/// let sockets = bind_sockets(0, &options)?;
/// let port = sockets[0].local_addr()?.port();
/// assert!(sockets.iter().all(|socket| socket.local_addr().unwrap().port() == port));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn bind_sockets(port: u16, options: &BindOptions) -> io::Result<Vec<net::TcpListener>> {
    let mut addresses: Vec<SocketAddr> = match options.address.as_deref().unwrap_or_default() {
        "" => vec![(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()],
        host => match host_and_port(host, port) {
            Target::Address(address) => vec![address],
            Target::Addresses(addresses) => addresses,
            Target::Name(name, port) => (name, port).to_socket_addrs()?.collect(),
            Target::Invalid(error) => return Err(error),
        },
    };
    addresses.retain(|address| options.family.has(address));
    if addresses.is_empty() {
        let (host, family) = (options.address.as_deref().unwrap_or_default(), options.family);
        let message = format!("`{host}` has no address of the family {family:?}");
        return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, message));
    }
    addresses.sort_by_key(SocketAddr::is_ipv6);
    let mut seen = HashSet::new();
    addresses.retain(|address| seen.insert(*address));
    bind_all(&addresses, |address| listen(address, options, address.is_ipv6()))
}

/// A socket for each address, all on one port.
fn bind_all(
    addresses: &[SocketAddr],
    mut bind: impl FnMut(SocketAddr) -> io::Result<net::TcpListener>,
) -> io::Result<Vec<net::TcpListener>> {
    let free_port = addresses.iter().all(|address| address.port() == 0);
    let mut tries = if free_port { FREE_PORT_TRIES } else { 1 };
    loop {
        tries -= 1;
        match try_bind_all(addresses, &mut bind) {
            // The system has chosen a port that is free at the first address, but not at a later one. It
            // will choose another one next time.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
            result => return result,
        }
    }
}

/// [`bind_all`] for one port: with port 0, the one that the system chooses for the first address.
fn try_bind_all(
    addresses: &[SocketAddr],
    bind: &mut impl FnMut(SocketAddr) -> io::Result<net::TcpListener>,
) -> io::Result<Vec<net::TcpListener>> {
    let several = addresses.len() > 1;
    let mut sockets: Vec<net::TcpListener> = Vec::new();
    let mut skipped = None;
    for mut address in addresses.iter().copied() {
        if let Some(first) = sockets.first() {
            address.set_port(first.local_addr()?.port());
        }
        match bind(address) {
            Ok(socket) => sockets.push(socket),
            Err(error) if several && address.is_ipv6() && is_lacking(&error) => {
                skipped = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    if sockets.is_empty() {
        return Err(skipped.unwrap_or_else(|| io::ErrorKind::InvalidInput.into()));
    }
    Ok(sockets)
}

/// Whether the error says that the machine has no IPv6, or does not have this address of it (it may lack
/// `::1` although `localhost` names it).
fn is_lacking(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, Unsupported};
    // std has no `ErrorKind` for `EAFNOSUPPORT`.
    let no_family = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    matches!(error.kind(), AddrNotAvailable | Unsupported)
        || error.raw_os_error() == Some(no_family)
}

/// A listening socket on one address, non-blocking.
pub(super) fn listen(
    address: SocketAddr,
    options: &BindOptions,
    only_v6: bool,
) -> io::Result<net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    if only_v6 {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    // It is set on the listener, from which each connection takes it over. Setting it on the connections
    // would take a system call for each, which fails if the connection was reset meanwhile.
    socket.set_tcp_nodelay(options.nodelay)?;
    socket.bind(&address.into())?;
    socket.listen(options.backlog)?;
    Ok(socket.into())
}

/// Binds a listening Unix socket to a path, with the permissions `mode` for its file (in Tornado, 0o600 by
/// default). Tornado: `bind_unix_socket`.
///
/// If there is a socket file at the path on which nobody listens any more, it is replaced. An abstract
/// name (`"\0name"`, on Linux) has no file, and so no permissions either.
///
/// # Errors
///
/// `AddrInUse` if somebody uses the socket at the path; `AlreadyExists` if the file there is no socket
/// (a symbolic link counts as none, even if it leads to one); what the system says.
pub fn bind_unix_socket(path: impl AsRef<Path>, mode: u32) -> io::Result<unix::UnixListener> {
    let path = path.as_ref();
    let has_file = unix_address(path)?.as_pathname().is_some();
    let address = SockAddr::unix(path)?;
    if has_file {
        make_room(path, &address)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address)?;
    // The permissions are set before `listen`, since nobody can connect until then.
    let permitted = match has_file {
        true => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
        false => Ok(()),
    };
    let listens = permitted.and_then(|()| socket.listen(BACKLOG));
    if let Err(error) = listens {
        if has_file {
            let _ = fs::remove_file(path);
        }
        return Err(error);
    }
    Ok(socket.into())
}

/// Removes the file at `path` if it is a socket that nobody uses any more. Any other file there is an
/// error.
fn make_room(path: &Path, address: &SockAddr) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(file) if !file.file_type().is_socket() => {
            let message = format!("{} exists and is no socket", path.display());
            Err(io::Error::new(io::ErrorKind::AlreadyExists, message))
        }
        Ok(_) if is_stale(address)? => fs::remove_file(path),
        Ok(_) => {
            let message = format!("{} is somebody's socket", path.display());
            Err(io::Error::new(io::ErrorKind::AddrInUse, message))
        }
    }
}

/// Whether nobody uses the socket file any more. Only if connecting is refused is that so. Other errors
/// come of sockets that are in use: one whose backlog is full, one of another type, one that this
/// process is not permitted to use.
fn is_stale(address: &SockAddr) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A blocking connect would wait while the backlog is full.
    socket.set_nonblocking(true)?;
    match socket.connect(address) {
        Err(error) => Ok(error.kind() == io::ErrorKind::ConnectionRefused),
        Ok(()) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    const BOTH: [SocketAddr; 2] = [
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
        SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0),
    ];

    /// Binds IPv4 addresses, as long as `errors` has any left: each IPv6 address gets the next one of
    /// these. When there are none left, IPv6 addresses can be bound, too (a socket of IPv4 stands for
    /// that).
    fn bind(address: SocketAddr, errors: &mut Vec<io::ErrorKind>) -> io::Result<net::TcpListener> {
        match errors.pop() {
            Some(kind) if address.is_ipv6() => Err(kind.into()),
            Some(kind) => {
                errors.push(kind);
                net::TcpListener::bind((Ipv4Addr::LOCALHOST, address.port()))
            }
            None => net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)),
        }
    }

    #[test]
    fn another_free_port_is_taken_if_it_is_in_use_at_the_second_address() {
        let mut errors = vec![io::ErrorKind::AddrInUse; 2];
        let sockets = bind_all(&BOTH, |address| bind(address, &mut errors)).unwrap();
        assert_eq!((sockets.len(), errors.len()), (2, 0));
        // If the port is always in use at the second address, this ends after some tries.
        let mut errors = vec![io::ErrorKind::AddrInUse; 1000];
        let error = bind_all(&BOTH, |address| bind(address, &mut errors)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(errors.len() > 900);
    }

    #[test]
    fn a_missing_family_is_skipped_if_there_is_another() {
        for lacking in [io::ErrorKind::AddrNotAvailable, io::ErrorKind::Unsupported] {
            let mut errors = vec![lacking];
            let sockets = bind_all(&BOTH, |address| bind(address, &mut errors)).unwrap();
            assert_eq!(sockets.len(), 1);
            let mut errors = vec![lacking];
            let error = bind_all(&BOTH[1..], |address| bind(address, &mut errors)).unwrap_err();
            assert_eq!(error.kind(), lacking);
        }
        let no_family = || io::Error::from(rustix::io::Errno::AFNOSUPPORT);
        let refuse_six = |address: SocketAddr| match address {
            SocketAddr::V6(_) => Err(no_family()),
            SocketAddr::V4(_) => net::TcpListener::bind(address),
        };
        assert_eq!(bind_all(&BOTH, refuse_six).unwrap().len(), 1);
    }
}
