//! UDP: `UdpSocket`.
//!
//! Datagrams keep their boundaries, so a short read proves nothing about what else has arrived: a
//! socket counts as ready until the system says that it is not.

use std::fmt;
use std::future::ready;
use std::io;
use std::net::{self, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::panic::Location;
use std::task::{Context, Poll};

use futures::future::FusedFuture;
use socket2::SockRef;

use super::address::{ToSocketAddrs, first_that_works, resolve_one};
use super::source::Registered;
use crate::ground::resumption;
use crate::ioloop::{Direction, Interest};

/// A UDP socket.
///
/// Its methods take `&self`, so several coroutines may send and receive at once, through an
/// [`Rc`](std::rc::Rc). Each datagram is received by one of them. A datagram longer than the buffer
/// loses its rest, as the system has it.
///
/// Dropping it closes it.
///
/// ```
/// use waterspout::{IoLoop, net::UdpSocket};
///
/// # IoLoop::new()?.run_sync(|| async {
/// let server = UdpSocket::bind("127.0.0.1:0").await?;
/// let client = UdpSocket::bind("127.0.0.1:0").await?;
/// client.send_to(b"ping", server.local_addr()?).await?;
///
/// let mut buf = [0; 1500];
/// let (len, peer) = server.recv_from(&mut buf).await?;
/// assert_eq!(&buf[..len], b"ping");
/// assert_eq!(peer, client.local_addr()?);
/// # Ok::<(), std::io::Error>(())
/// # })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct UdpSocket {
    registered: Registered<net::UdpSocket>,
}

impl UdpSocket {
    /// Binds to the first of the addresses that can be bound; port 0 takes a free one. Belongs to
    /// the current loop.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// Of the last address, or of looking up its name: `AddrInUse`, `PermissionDenied` and the like.
    #[track_caller]
    pub fn bind(address: impl ToSocketAddrs) -> impl FusedFuture<Output = io::Result<UdpSocket>> {
        resumption::here(async {
            let bind = |address: SocketAddr| ready(net::UdpSocket::bind(address));
            UdpSocket::from_std(first_that_works(address, bind).await?)
        })
    }

    /// Takes over a socket made elsewhere, for the current loop.
    ///
    /// # Errors
    ///
    /// What the system says of setting it non-blocking and of watching it.
    pub fn from_std(socket: net::UdpSocket) -> io::Result<UdpSocket> {
        socket.set_nonblocking(true)?;
        let ready = [Direction::Read, Direction::Write];
        Ok(UdpSocket { registered: Registered::new(socket, &ready)? })
    }

    /// Gives the socket up, in blocking mode as std's are.
    ///
    /// # Errors
    ///
    /// If it does not belong to the current loop; it is closed then.
    pub fn into_std(self) -> io::Result<net::UdpSocket> {
        let socket = self.registered.into_source()?;
        socket.set_nonblocking(false)?;
        Ok(socket)
    }

    /// Fixes the other side: [`send`](UdpSocket::send) sends there, and only what comes from there
    /// is received. The first of the addresses that works is taken.
    ///
    /// Nothing is sent, so an address where nobody listens works; that shows later, as
    /// `ConnectionRefused` of a send or receive. Cancel safe.
    ///
    /// # Errors
    ///
    /// Of the last address, or of looking up its name.
    #[track_caller]
    pub fn connect(
        &self,
        address: impl ToSocketAddrs,
    ) -> impl FusedFuture<Output = io::Result<()>> {
        let connect = |address| ready(self.registered.tell(net::UdpSocket::connect, address));
        resumption::here(async move { first_that_works(address, connect).await })
    }

    /// Sends a datagram to where the socket is connected, and gives its length.
    ///
    /// Cancel safe: if it is dropped before it is done, nothing was sent.
    ///
    /// # Errors
    ///
    /// What the system says: `NotConnected` (or its `EDESTADDRREQ`), `ConnectionRefused` of a
    /// datagram sent before, a datagram that is too long (`EMSGSIZE`).
    #[track_caller]
    pub fn send(&self, buf: &[u8]) -> impl FusedFuture<Output = io::Result<usize>> {
        self.registered.io(Direction::Write, Location::caller(), move |socket| socket.send(buf))
    }

    /// Receives a datagram, and gives its length.
    ///
    /// Cancel safe: no datagram is lost.
    ///
    /// # Errors
    ///
    /// What the system says: `ConnectionRefused` of a datagram sent before, if connected.
    #[track_caller]
    pub fn recv(&self, buf: &mut [u8]) -> impl FusedFuture<Output = io::Result<usize>> {
        self.registered.io(Direction::Read, Location::caller(), move |socket| socket.recv(buf))
    }

    /// Sends a datagram to the first of the addresses, and gives its length.
    ///
    /// A numeric address is used without an allocation; a name is looked up each time.
    ///
    /// Cancel safe: if it is dropped before it is done, nothing was sent.
    ///
    /// # Errors
    ///
    /// Of looking up the name; what the system says, as for [`send`](UdpSocket::send).
    #[track_caller]
    pub fn send_to(
        &self,
        buf: &[u8],
        address: impl ToSocketAddrs,
    ) -> impl FusedFuture<Output = io::Result<usize>> {
        let place = Location::caller();
        resumption::fused(async move {
            let address = resolve_one(address).await?;
            self.registered
                .io(Direction::Write, place, move |socket| socket.send_to(buf, address))
                .await
        })
    }

    /// Receives a datagram, and gives its length and where it came from.
    ///
    /// Cancel safe: no datagram is lost.
    ///
    /// # Errors
    ///
    /// As [`recv`](UdpSocket::recv).
    #[track_caller]
    pub fn recv_from(
        &self,
        buf: &mut [u8],
    ) -> impl FusedFuture<Output = io::Result<(usize, SocketAddr)>> {
        self.registered.io(Direction::Read, Location::caller(), move |socket| socket.recv_from(buf))
    }

    /// Receives a datagram, which stays there to be received again.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// As [`recv`](UdpSocket::recv).
    #[track_caller]
    pub fn peek(&self, buf: &mut [u8]) -> impl FusedFuture<Output = io::Result<usize>> {
        self.registered.io(Direction::Read, Location::caller(), move |socket| socket.peek(buf))
    }

    /// [`peek`](UdpSocket::peek) that also tells where the datagram came from.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// As [`recv`](UdpSocket::recv).
    #[track_caller]
    pub fn peek_from(
        &self,
        buf: &mut [u8],
    ) -> impl FusedFuture<Output = io::Result<(usize, SocketAddr)>> {
        self.registered.io(Direction::Read, Location::caller(), move |socket| socket.peek_from(buf))
    }

    /// [`recv_from`](UdpSocket::recv_from) as a poll function.
    pub fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        self.registered.poll_io(cx, Direction::Read, |socket| socket.recv_from(buf))
    }

    /// [`send_to`](UdpSocket::send_to) as a poll function.
    pub fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        buf: &[u8],
        address: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        self.registered.poll_io(cx, Direction::Write, |socket| socket.send_to(buf, address))
    }

    /// Sends a datagram to where the socket is connected, if there is room.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is none; as [`send`](UdpSocket::send).
    pub fn try_send(&self, buf: &[u8]) -> io::Result<usize> {
        self.registered.try_io(Direction::Write, |socket| socket.send(buf))
    }

    /// Receives a datagram if one is there.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is none; as [`recv`](UdpSocket::recv).
    pub fn try_recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.registered.try_io(Direction::Read, |socket| socket.recv(buf))
    }

    /// Sends a datagram to `address`, if there is room.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is none; as [`send`](UdpSocket::send).
    pub fn try_send_to(&self, buf: &[u8], address: SocketAddr) -> io::Result<usize> {
        self.registered.try_io(Direction::Write, |socket| socket.send_to(buf, address))
    }

    /// Receives a datagram if one is there, and tells where it came from.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is none; as [`recv`](UdpSocket::recv).
    pub fn try_recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.registered.try_io(Direction::Read, |socket| socket.recv_from(buf))
    }

    /// Waits until there may be a datagram; then use [`try_recv`](UdpSocket::try_recv).
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

    /// Waits until there may be room for a datagram; then use [`try_send`](UdpSocket::try_send).
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

    /// [`readable`](UdpSocket::readable) as a poll function: of the tasks that call it, the last one is woken.
    ///
    /// # Errors
    ///
    /// As [`readable`](UdpSocket::readable).
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.registered.poll_ready(cx, Direction::Read)
    }

    /// [`writable`](UdpSocket::writable) as a poll function: of the tasks that call it, the last one is woken.
    ///
    /// # Errors
    ///
    /// As [`writable`](UdpSocket::writable).
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
    /// something else than `WouldBlock`. As with [`try_io`](UdpSocket::try_io), it gets at the socket by its
    /// [`AsFd`], and must not block.
    ///
    /// `Interrupted` is tried again at once. Cancel safe: it is dropped between two calls of `operation`,
    /// never in one.
    ///
    /// # Errors
    ///
    /// As [`try_io`](UdpSocket::try_io).
    #[track_caller]
    pub fn async_io<R>(
        &self,
        interest: Interest,
        operation: impl FnMut() -> io::Result<R>,
    ) -> impl FusedFuture<Output = io::Result<R>> {
        self.registered.own(interest, Location::caller(), operation)
    }

    /// The address that it is bound to, with the port that was taken for 0.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.registered.ask(net::UdpSocket::local_addr)
    }

    /// The address that it is connected to.
    ///
    /// # Errors
    ///
    /// `NotConnected` if it is not.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.registered.ask(net::UdpSocket::peer_addr)
    }

    /// Whether it may send to a broadcast address (`SO_BROADCAST`).
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn broadcast(&self) -> io::Result<bool> {
        self.registered.ask(net::UdpSocket::broadcast)
    }

    /// Allows sending to a broadcast address, or not.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn set_broadcast(&self, on: bool) -> io::Result<()> {
        self.registered.tell(net::UdpSocket::set_broadcast, on)
    }

    /// How many hops a datagram may take (`IP_TTL`).
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn ttl(&self) -> io::Result<u32> {
        self.registered.ask(net::UdpSocket::ttl)
    }

    /// Sets how many hops a datagram may take.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.registered.tell(net::UdpSocket::set_ttl, ttl)
    }

    /// How many hops an IPv4 multicast datagram may take (`IP_MULTICAST_TTL`).
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn multicast_ttl_v4(&self) -> io::Result<u32> {
        self.registered.ask(net::UdpSocket::multicast_ttl_v4)
    }

    /// Sets how many hops an IPv4 multicast datagram may take; 1 unless set.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn set_multicast_ttl_v4(&self, ttl: u32) -> io::Result<()> {
        self.registered.tell(net::UdpSocket::set_multicast_ttl_v4, ttl)
    }

    /// Whether IPv4 multicast datagrams come back to this machine (`IP_MULTICAST_LOOP`).
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn multicast_loop_v4(&self) -> io::Result<bool> {
        self.registered.ask(net::UdpSocket::multicast_loop_v4)
    }

    /// Lets IPv4 multicast datagrams come back to this machine, or not.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn set_multicast_loop_v4(&self, on: bool) -> io::Result<()> {
        self.registered.tell(net::UdpSocket::set_multicast_loop_v4, on)
    }

    /// Whether IPv6 multicast datagrams come back to this machine (`IPV6_MULTICAST_LOOP`).
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn multicast_loop_v6(&self) -> io::Result<bool> {
        self.registered.ask(net::UdpSocket::multicast_loop_v6)
    }

    /// Lets IPv6 multicast datagrams come back to this machine, or not.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn set_multicast_loop_v6(&self, on: bool) -> io::Result<()> {
        self.registered.tell(net::UdpSocket::set_multicast_loop_v6, on)
    }

    /// Joins the multicast group `group`, on the interface with that address; the system chooses
    /// one if it is unspecified.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn join_multicast_v4(&self, group: Ipv4Addr, interface: Ipv4Addr) -> io::Result<()> {
        SockRef::from(self).join_multicast_v4(&group, &interface)
    }

    /// Leaves a group that was joined.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn leave_multicast_v4(&self, group: Ipv4Addr, interface: Ipv4Addr) -> io::Result<()> {
        SockRef::from(self).leave_multicast_v4(&group, &interface)
    }

    /// Joins the multicast group `group`, on the interface with that index; 0 is any.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn join_multicast_v6(&self, group: &Ipv6Addr, interface: u32) -> io::Result<()> {
        SockRef::from(self).join_multicast_v6(group, interface)
    }

    /// Leaves a group that was joined.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn leave_multicast_v6(&self, group: &Ipv6Addr, interface: u32) -> io::Result<()> {
        SockRef::from(self).leave_multicast_v6(group, interface)
    }

    /// The error that the socket has kept, if any (`SO_ERROR`).
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.registered.ask(net::UdpSocket::take_error)
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.registered.fmt(f)
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.registered.as_fd()
    }
}

impl AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.registered.as_raw_fd()
    }
}
