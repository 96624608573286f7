//! UDP: `UdpSocket`.
//!
//! One call receives one datagram, however many have arrived. So a short read does not prove that the
//! socket is drained, as it does of a TCP stream: the socket counts as ready until a call answers
//! `WouldBlock`.

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
use super::methods::{datagrams, into_std, readable, shows_fd, system_calls, writable};
use super::send::send;
use super::source::Registered;
use crate::ground::resumption;
use crate::ioloop::{Direction, Interest};

/// A UDP socket.
///
/// Its methods take `&self`, so several coroutines may send and receive at once, through an
/// [`Rc`](std::rc::Rc). Each datagram is received by one of them. Of a datagram that is longer than the
/// buffer, only as much as fits is received: the system drops the rest.
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
    /// Binds to the first of the addresses that can be bound; port 0 takes a free one. The socket
    /// belongs to the current loop.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// If no address can be bound, the error of the last one: `AddrInUse`, `PermissionDenied` and the
    /// like. If a name cannot be looked up, the error of that.
    #[track_caller]
    pub fn bind(address: impl ToSocketAddrs) -> impl FusedFuture<Output = io::Result<UdpSocket>> {
        resumption::here(async {
            let bind = |address: SocketAddr| ready(net::UdpSocket::bind(address));
            UdpSocket::from_std(first_that_works(address, bind).await?)
        })
    }

    /// Takes over a socket that was made elsewhere, for the current loop.
    ///
    /// # Errors
    ///
    /// What the system says of making it non-blocking and of watching it.
    pub fn from_std(socket: net::UdpSocket) -> io::Result<UdpSocket> {
        socket.set_nonblocking(true)?;
        let ready = [Direction::Read, Direction::Write];
        Ok(UdpSocket { registered: Registered::new(socket, &ready)? })
    }

    into_std!(net::UdpSocket);

    /// Connects the socket to the first of the addresses that works: [`send`](UdpSocket::send) sends to
    /// that address, and only what comes from it is received.
    ///
    /// Nothing is sent to connect. So an address at which nobody receives works, too, and only a later
    /// send or receive fails with `ConnectionRefused`. Cancel safe.
    ///
    /// # Errors
    ///
    /// If no address works, the error of the last one. If a name cannot be looked up, the error of that.
    #[track_caller]
    pub fn connect(
        &self,
        address: impl ToSocketAddrs,
    ) -> impl FusedFuture<Output = io::Result<()>> {
        let connect = |address| ready(self.registered.tell(net::UdpSocket::connect, address));
        resumption::here(async move { first_that_works(address, connect).await })
    }

    datagrams!();

    /// Sends a datagram to the first of the addresses, and gives its length.
    ///
    /// A numeric address is used without an allocation; a name is looked up each time.
    ///
    /// Cancel safe: if the future is dropped before it is done, nothing was sent.
    ///
    /// # Errors
    ///
    /// If a name cannot be looked up, the error of that. Else as [`send`](UdpSocket::send).
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

    /// [`recv`](UdpSocket::recv) that leaves the datagram in the socket, to be received again.
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

    /// [`recv_from`](UdpSocket::recv_from) that leaves the datagram in the socket, to be received again.
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

    /// [`send_to`](UdpSocket::send_to) as a poll function: of the tasks that call it, only the last one is
    /// woken.
    ///
    /// # Errors
    ///
    /// As [`send`](UdpSocket::send).
    pub fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        buf: &[u8],
        address: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        self.registered.poll_io(cx, Direction::Write, |socket| socket.send_to(buf, address))
    }

    /// Sends a datagram to `address`, without waiting.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is no room; else as [`send`](UdpSocket::send).
    pub fn try_send_to(&self, buf: &[u8], address: SocketAddr) -> io::Result<usize> {
        self.registered.try_io(Direction::Write, |socket| socket.send_to(buf, address))
    }

    readable!("a datagram", try_recv);
    writable!("room for a datagram", try_send);
    system_calls!();

    /// The address that it is bound to. If port 0 was asked for, this has the port that the system has
    /// taken.
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
    /// `NotConnected` if it is not connected.
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

    /// Says whether it may send to a broadcast address.
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

    /// Sets how many hops an IPv4 multicast datagram may take. If this is never called, that is 1.
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

    /// Says whether IPv4 multicast datagrams come back to this machine.
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

    /// Says whether IPv6 multicast datagrams come back to this machine.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn set_multicast_loop_v6(&self, on: bool) -> io::Result<()> {
        self.registered.tell(net::UdpSocket::set_multicast_loop_v6, on)
    }

    /// Joins the multicast group `group`, on the interface that has the address `interface`. If that is
    /// the unspecified address (`0.0.0.0`), the system chooses an interface.
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

    /// Joins the multicast group `group`, on the interface with the index `interface`. With 0, the system
    /// chooses one.
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
}

shows_fd!(UdpSocket);
