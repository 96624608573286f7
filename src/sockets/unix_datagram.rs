//! Unix domain datagrams: `UnixDatagram`.
//!
//! They differ from UDP in that a datagram is never dropped: if the receiver's queue is full, sending
//! has to wait. The selector reports that this queue has room only for the receiver that the socket is
//! connected to.

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
use super::unix::{FIRST_PAUSE, LONGEST_PAUSE};
use crate::coroutine::sleep;
use crate::ground::resumption;
use crate::ioloop::{Direction, Interest};

/// A Unix domain datagram socket.
///
/// Its methods take `&self`, so several coroutines may send and receive at once. Unlike UDP, no datagram
/// is lost or overtaken by another: a sender waits while the receiver's queue is full. Of a datagram
/// that is longer than the receiver's buffer, only as much as fits is received.
///
/// Dropping it closes it, but leaves the file at its path, if it has one.
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
    /// Binds to a path, at which no file may exist yet. The socket belongs to the current loop.
    ///
    /// This path, and every other path in the methods here, may be an abstract name; see
    /// [`UnixListener::bind`](super::UnixListener::bind).
    ///
    /// # Errors
    ///
    /// `AddrInUse` if there is a file at the path; what the system says.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<UnixDatagram> {
        UnixDatagram::from_std(net::UnixDatagram::bind_addr(&unix_address(path.as_ref())?)?)
    }

    /// A socket without a path. It can send. Nobody can send to it, since it has no address. (The
    /// sockets of a [`pair`](UnixDatagram::pair) have no path either, but are connected with each
    /// other.)
    ///
    /// # Errors
    ///
    /// What the system says (too many open files).
    pub fn unbound() -> io::Result<UnixDatagram> {
        UnixDatagram::from_std(net::UnixDatagram::unbound()?)
    }

    /// Two sockets that are connected with each other. Both belong to the current loop.
    ///
    /// # Errors
    ///
    /// What the system says (too many open files).
    pub fn pair() -> io::Result<(UnixDatagram, UnixDatagram)> {
        let (one, other) = net::UnixDatagram::pair()?;
        Ok((UnixDatagram::from_std(one)?, UnixDatagram::from_std(other)?))
    }

    /// Takes over a socket that was made elsewhere, for the current loop.
    ///
    /// # Errors
    ///
    /// What the system says of making it non-blocking and of watching it.
    pub fn from_std(socket: net::UnixDatagram) -> io::Result<UnixDatagram> {
        socket.set_nonblocking(true)?;
        let ready = [Direction::Read, Direction::Write];
        Ok(UnixDatagram { registered: Registered::new(socket, &ready)? })
    }

    into_std!(net::UnixDatagram);

    /// Connects the socket to the one on a path: [`send`](UnixDatagram::send) sends to that, and only what
    /// that sends is received.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such path, `ConnectionRefused` if the socket on it was closed; what the
    /// system says.
    pub fn connect(&self, path: impl AsRef<Path>) -> io::Result<()> {
        self.registered.tell(net::UnixDatagram::connect_addr, &unix_address(path.as_ref())?)
    }

    datagrams!();

    /// Sends a datagram to the socket on a path, and gives its length.
    ///
    /// If the receiver's queue is full, this waits. The system does not report when that queue has room
    /// again, so this tries again after 1 ms, and then after longer and longer pauses of up to 64 ms. It
    /// does report that to a socket which is [connected](UnixDatagram::connect) to the receiver and uses
    /// [`send`](UnixDatagram::send).
    ///
    /// Cancel safe: if the future is dropped before it is done, nothing was sent.
    ///
    /// # Errors
    ///
    /// What the system says: `NotFound` if there is no such path, `ConnectionRefused` if the socket on
    /// it was closed.
    #[track_caller]
    pub fn send_to(
        &self,
        buf: &[u8],
        path: impl AsRef<Path>,
    ) -> impl FusedFuture<Output = io::Result<usize>> {
        let place = Location::caller();
        resumption::fused(async move {
            let address = unix_address(path.as_ref())?;
            let mut pause = FIRST_PAUSE;
            loop {
                // It may also be this socket's own buffer that is full. When that has room, the selector
                // reports it, so this waits for both: the selector, and the end of the pause.
                let send = self
                    .registered
                    .io(Direction::Write, place, |socket| socket.send_to_addr(buf, &address));
                if let Either::Left((sent, _)) = select(pin!(send), sleep(pause)).await {
                    return sent;
                }
                match self.try_send_to_address(buf, &address) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        pause = LONGEST_PAUSE.min(2 * pause);
                    }
                    sent => return sent,
                }
            }
        })
    }

    /// [`send_to`](UnixDatagram::send_to) without waiting.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is no room; else as [`send_to`](UnixDatagram::send_to).
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

    /// The path that it is bound to, if it is bound.
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
