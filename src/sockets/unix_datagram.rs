//! Unix domain datagrams: `UnixDatagram`.

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::{self, SocketAddr};
use std::panic::Location;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll};

use futures::future::{Either, FusedFuture, select};

use super::address::unix_address;
use super::methods::{datagrams, into_std, readable, shows_fd, system_calls, writable};
use super::send::send;
use super::source::Registered;
use super::unix::PATIENCE;
use crate::coroutine::sleep;
use crate::ground::resumption;
use crate::ioloop::{Direction, Interest};

/// A Unix domain datagram socket.
///
/// Its methods take `&self`, so several coroutines may send and receive at once. Datagrams are not
/// lost or reordered here: a sender waits while the receiver's queue is full. A datagram longer than
/// the buffer loses its rest.
///
/// Dropping it closes it, and leaves its path in the file system if it has one.
///
/// ```
/// use waterspout::{IoLoop, net::UnixDatagram};
///
/// # IoLoop::new()?.run_sync(|| async {
/// let (here, there) = UnixDatagram::pair()?;
/// here.send(b"hello").await?;
/// let mut buf = [0; 16];
/// let len = there.recv(&mut buf).await?;
/// assert_eq!(&buf[..len], b"hello");
/// # Ok::<(), std::io::Error>(())
/// # })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct UnixDatagram {
    registered: Registered<net::UnixDatagram>,
}

impl UnixDatagram {
    /// Binds to a path, which must not exist yet. Belongs to the current loop.
    ///
    /// Here and wherever a path is asked for, it may be an abstract name; see
    /// [`UnixListener::bind`](super::UnixListener::bind).
    ///
    /// # Errors
    ///
    /// `AddrInUse` if the path exists; what the system says.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<UnixDatagram> {
        UnixDatagram::from_std(net::UnixDatagram::bind_addr(&unix_address(path.as_ref())?)?)
    }

    /// A socket without a path: it can send, and receive only if it is
    /// [connected](UnixDatagram::connect) by a [`pair`](UnixDatagram::pair).
    ///
    /// # Errors
    ///
    /// What the system says (too many open files).
    pub fn unbound() -> io::Result<UnixDatagram> {
        UnixDatagram::from_std(net::UnixDatagram::unbound()?)
    }

    /// Two sockets that are connected with each other.
    ///
    /// # Errors
    ///
    /// What the system says (too many open files).
    pub fn pair() -> io::Result<(UnixDatagram, UnixDatagram)> {
        let (one, other) = net::UnixDatagram::pair()?;
        Ok((UnixDatagram::from_std(one)?, UnixDatagram::from_std(other)?))
    }

    /// Takes over a socket made elsewhere, for the current loop.
    ///
    /// # Errors
    ///
    /// What the system says of setting it non-blocking and of watching it.
    pub fn from_std(socket: net::UnixDatagram) -> io::Result<UnixDatagram> {
        socket.set_nonblocking(true)?;
        let ready = [Direction::Read, Direction::Write];
        Ok(UnixDatagram { registered: Registered::new(socket, &ready)? })
    }

    into_std!(net::UnixDatagram);

    /// Fixes the other side: [`send`](UnixDatagram::send) sends there, and only what comes from
    /// there is received.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such path, `ConnectionRefused` if nobody is there any more; what
    /// the system says.
    pub fn connect(&self, path: impl AsRef<Path>) -> io::Result<()> {
        self.registered.tell(net::UnixDatagram::connect_addr, &unix_address(path.as_ref())?)
    }

    datagrams!();

    /// Sends a datagram to the socket on a path, and gives its length.
    ///
    /// The system does not tell when somebody else's full queue has room again, so it is tried
    /// again every few milliseconds then. [Connect](UnixDatagram::connect) to be told.
    ///
    /// Cancel safe: if it is dropped before it is done, nothing was sent.
    ///
    /// # Errors
    ///
    /// What the system says: `NotFound` if there is no such path, `ConnectionRefused` if nobody is
    /// there any more.
    #[track_caller]
    pub fn send_to(
        &self,
        buf: &[u8],
        path: impl AsRef<Path>,
    ) -> impl FusedFuture<Output = io::Result<usize>> {
        let place = Location::caller();
        resumption::fused(async move {
            let address = unix_address(path.as_ref())?;
            let mut patience = PATIENCE[0];
            loop {
                // This socket may be full, too, and of that the selector does tell.
                let send = self
                    .registered
                    .io(Direction::Write, place, |socket| socket.send_to_addr(buf, &address));
                if let Either::Left((sent, _)) = select(pin!(send), sleep(patience)).await {
                    return sent;
                }
                match self.try_send_to_address(buf, &address) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        patience = PATIENCE[1].min(2 * patience);
                    }
                    sent => return sent,
                }
            }
        })
    }

    /// Sends a datagram to the socket on a path, if there is room.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is none; as [`send_to`](UnixDatagram::send_to).
    pub fn try_send_to(&self, buf: &[u8], path: impl AsRef<Path>) -> io::Result<usize> {
        self.try_send_to_address(buf, &unix_address(path.as_ref())?)
    }

    fn try_send_to_address(&self, buf: &[u8], address: &SocketAddr) -> io::Result<usize> {
        self.registered.try_io(Direction::Write, |socket| socket.send_to_addr(buf, address))
    }

    readable!("a datagram", try_recv);
    writable!("room for a datagram", try_send);
    system_calls!();

    /// Closes one direction or both.
    ///
    /// # Errors
    ///
    /// What the system says: `NotConnected` if it is not connected.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.registered.tell(net::UnixDatagram::shutdown, how)
    }

    /// The path that it is bound to, if it is.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.registered.ask(net::UnixDatagram::local_addr)
    }

    /// The path of the socket that it is connected to, if that has one.
    ///
    /// # Errors
    ///
    /// `NotConnected` if it is not connected.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.registered.ask(net::UnixDatagram::peer_addr)
    }
}

shows_fd!(UnixDatagram);
