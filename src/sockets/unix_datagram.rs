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

    /// Gives the socket up, in blocking mode as std's are.
    ///
    /// # Errors
    ///
    /// If it does not belong to the current loop; it is closed then.
    pub fn into_std(self) -> io::Result<net::UnixDatagram> {
        let socket = self.registered.into_source()?;
        socket.set_nonblocking(false)?;
        Ok(socket)
    }

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

    /// Sends a datagram to where the socket is connected, and gives its length.
    ///
    /// Cancel safe: if it is dropped before it is done, nothing was sent.
    ///
    /// # Errors
    ///
    /// What the system says: `NotConnected`, `ConnectionRefused` if the other side has gone.
    #[track_caller]
    pub fn send(&self, buf: &[u8]) -> impl FusedFuture<Output = io::Result<usize>> {
        self.registered.io(Direction::Write, Location::caller(), move |socket| send(socket, buf))
    }

    /// Receives a datagram, and gives its length.
    ///
    /// Cancel safe: no datagram is lost.
    ///
    /// # Errors
    ///
    /// What the system says.
    #[track_caller]
    pub fn recv(&self, buf: &mut [u8]) -> impl FusedFuture<Output = io::Result<usize>> {
        self.registered.io(Direction::Read, Location::caller(), move |socket| socket.recv(buf))
    }

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

    /// Receives a datagram, and gives its length and where it came from.
    ///
    /// Cancel safe: no datagram is lost.
    ///
    /// # Errors
    ///
    /// What the system says.
    #[track_caller]
    pub fn recv_from(
        &self,
        buf: &mut [u8],
    ) -> impl FusedFuture<Output = io::Result<(usize, SocketAddr)>> {
        self.registered.io(Direction::Read, Location::caller(), move |socket| socket.recv_from(buf))
    }

    /// Sends a datagram to where the socket is connected, if there is room.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is none; as [`send`](UnixDatagram::send).
    pub fn try_send(&self, buf: &[u8]) -> io::Result<usize> {
        self.registered.try_io(Direction::Write, |socket| send(socket, buf))
    }

    /// Receives a datagram if one is there.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is none; as [`recv`](UnixDatagram::recv).
    pub fn try_recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.registered.try_io(Direction::Read, |socket| socket.recv(buf))
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

    /// Receives a datagram if one is there, and tells where it came from.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is none; as [`recv`](UnixDatagram::recv).
    pub fn try_recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.registered.try_io(Direction::Read, |socket| socket.recv_from(buf))
    }

    /// Waits until there may be a datagram; then use [`try_recv`](UnixDatagram::try_recv).
    ///
    /// What is new here may count as ready until an operation has answered `WouldBlock`, so the first wait
    /// may be over at once.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// If the socket belongs to another loop.
    #[track_caller]
    pub fn readable(&self) -> impl FusedFuture<Output = io::Result<()>> {
        self.registered.ready(Direction::Read, Location::caller())
    }

    /// Waits until there may be room for a datagram; then use
    /// [`try_send`](UnixDatagram::try_send).
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// If the socket belongs to another loop.
    #[track_caller]
    pub fn writable(&self) -> impl FusedFuture<Output = io::Result<()>> {
        self.registered.ready(Direction::Write, Location::caller())
    }

    /// [`readable`](UnixDatagram::readable) as a poll function: of the tasks that call it, the last one is woken.
    ///
    /// # Errors
    ///
    /// As [`readable`](UnixDatagram::readable).
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.registered.poll_ready(cx, Direction::Read)
    }

    /// [`writable`](UnixDatagram::writable) as a poll function: of the tasks that call it, the last one is woken.
    ///
    /// # Errors
    ///
    /// As [`writable`](UnixDatagram::writable).
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.registered.poll_ready(cx, Direction::Write)
    }

    /// Does an operation of your own on the socket, once, without waiting. If it answers `WouldBlock`,
    /// the socket waits from now on.
    ///
    /// `operation` gets at the socket by its [`AsFd`], and must not block. One that does not read or
    /// write this socket must not answer `WouldBlock`: who waits then would wait for what is there
    /// already.
    ///
    /// # Errors
    ///
    /// Those of `operation`; `InvalidInput` if `interest` is not one of [`Interest::READ`] and
    /// [`Interest::WRITE`]; that the socket belongs to another loop. `operation` is not called in those
    /// two cases.
    pub fn try_io<R>(
        &self,
        interest: Interest,
        operation: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        self.registered.try_own(interest, operation)
    }

    /// Does an operation of your own on the socket, again each time that is ready, until it answers
    /// something else than `WouldBlock`. As with [`try_io`](UnixDatagram::try_io), it gets at the socket by its
    /// [`AsFd`], and must not block.
    ///
    /// `Interrupted` is tried again at once. Cancel safe: it is dropped between two calls of `operation`,
    /// never in one.
    ///
    /// # Errors
    ///
    /// As [`try_io`](UnixDatagram::try_io).
    #[track_caller]
    pub fn async_io<R>(
        &self,
        interest: Interest,
        operation: impl FnMut() -> io::Result<R>,
    ) -> impl FusedFuture<Output = io::Result<R>> {
        self.registered.own(interest, Location::caller(), operation)
    }

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

    /// The error that the socket has kept, if any (`SO_ERROR`).
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.registered.ask(net::UnixDatagram::take_error)
    }
}

impl fmt::Debug for UnixDatagram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.registered.fmt(f)
    }
}

impl AsFd for UnixDatagram {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.registered.as_fd()
    }
}

impl AsRawFd for UnixDatagram {
    fn as_raw_fd(&self) -> RawFd {
        self.registered.as_raw_fd()
    }
}
