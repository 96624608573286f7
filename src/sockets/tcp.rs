//! TCP: `TcpListener` and `TcpStream`.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{self, Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::FusedFuture;
use futures::io::{AsyncRead, AsyncWrite};
use futures::stream::Stream;

use socket2::{Domain, SockRef, Socket, Type};

use super::address::{ToSocketAddrs, first_that_works};
use super::bind::{BindOptions, listen};
use super::lent::Lent;
use super::methods::{
    accepting, async_read, async_write, halves, into_std, readable, reading, shows_fd,
    system_calls, writable, writing,
};
use super::send::send_vectored;
use super::source::{Asker, ByteStream, ReadBytes, Registered, WriteBytes, established};
use super::split::{
    HalfClose, OwnedReadHalf, OwnedWriteHalf, ReadHalf, WriteHalf, into_split, ok_if_disconnected,
};
use crate::ground::resumption;
use crate::ioloop::{Direction, Interest, SHORT_IS_DRAINED};

/// A TCP socket that accepts connections.
///
/// Dropping it closes it. Several coroutines may accept from one listener.
///
/// ```
/// use waterspout::{IoLoop, coroutine, net::{TcpListener, TcpStream}};
///
/// # IoLoop::new()?.run_sync(|| async {
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let client = coroutine::start(TcpStream::connect(listener.local_addr()?));
/// let (server, _peer) = listener.accept().await?;
/// client.await?.write_all(b"hello").await?;
/// let mut hello = [0; 5];
/// server.read_exact(&mut hello).await?;
/// assert_eq!(&hello, b"hello");
/// # Ok::<(), std::io::Error>(())
/// # })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TcpListener {
    registered: Registered<mio::net::TcpListener>,
    /// Whether its connections are TCP. A listener that was made elsewhere need not be (see [`is_tcp`]).
    is_tcp: bool,
}

impl TcpListener {
    /// Listens on the first of the addresses that can be bound; port 0 takes a free one. The listener
    /// belongs to the current loop.
    ///
    /// It has `SO_REUSEADDR`, and room for 1,024 connections that wait to be accepted. What it accepts
    /// sends small writes at once (`TCP_NODELAY`), unless [`set_nodelay`](TcpListener::set_nodelay) says
    /// otherwise.
    ///
    /// # Errors
    ///
    /// If no address can be bound, the error of the last one: `AddrInUse`, `PermissionDenied` and the
    /// like. If a name cannot be looked up, the error of that.
    #[track_caller]
    pub fn bind(address: impl ToSocketAddrs) -> impl FusedFuture<Output = io::Result<TcpListener>> {
        resumption::here(first_that_works(address, async |address| {
            TcpListener::from_std(listen(address, &BindOptions::default(), false)?)
        }))
    }

    /// Takes over a listener that was made elsewhere, for the current loop. Its options stay as they
    /// are: what it accepts has `TCP_NODELAY` if the listener has, from
    /// [`set_nodelay`](TcpListener::set_nodelay) or [`bind_sockets`].
    ///
    /// # Errors
    ///
    /// What the system says of making it non-blocking and of watching it.
    ///
    /// [`bind_sockets`]: super::bind_sockets
    ///
    /// ```
    /// use socket2::{Domain, Socket, Type};
    /// use std::net::SocketAddr;
    /// use waterspout::{IoLoop, net::TcpListener};
    ///
    /// # IoLoop::new()?.run_sync(|| async {
    /// // Set up before it listens.
    /// let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    /// socket.set_recv_buffer_size(100_000)?;
    /// socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    /// socket.listen(100)?;
    /// let listener = TcpListener::from_std(socket.into())?;
    /// # assert_ne!(listener.local_addr()?.port(), 0);
    /// # Ok::<(), std::io::Error>(())
    /// # })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_std(listener: net::TcpListener) -> io::Result<TcpListener> {
        listener.set_nonblocking(true)?;
        let is_tcp = is_tcp(&listener);
        let listener = mio::net::TcpListener::from_std(listener);
        Ok(TcpListener { registered: Registered::new(listener, &[Direction::Read])?, is_tcp })
    }

    fn wrap_accepted(&self, stream: mio::net::TcpStream) -> io::Result<TcpStream> {
        TcpStream::already_connected(stream, self.is_tcp)
    }

    into_std!(net::TcpListener);
    accepting!(TcpStream);
    readable!("a connection to accept", try_accept);

    /// The address that it listens on. If port 0 was asked for, this has the port that the system has
    /// taken.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.registered.ask(mio::net::TcpListener::local_addr)
    }

    /// Whether what it accepts sends small writes at once (`TCP_NODELAY`).
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn nodelay(&self) -> io::Result<bool> {
        SockRef::from(self).tcp_nodelay()
    }

    /// Says whether the connections to come send small writes at once, or gather them (Nagle's
    /// algorithm). The system copies this option from the listener when a connection is made, so a
    /// connection that waits in the backlog already keeps what was set before.
    ///
    /// # Errors
    ///
    /// What the system says.
    ///
    /// ```
    /// use waterspout::{IoLoop, coroutine, net::{TcpListener, TcpStream}};
    ///
    /// # IoLoop::new()?.run_sync(|| async {
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// assert!(listener.nodelay()?); // unless told otherwise
    /// listener.set_nodelay(false)?;
    /// let client = coroutine::start(TcpStream::connect(listener.local_addr()?));
    /// let (server, _peer) = listener.accept().await?;
    /// assert!(!server.nodelay()?);
    /// assert!(client.await?.nodelay()?); // the other end is for itself
    /// # Ok::<(), std::io::Error>(())
    /// # })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        SockRef::from(self).set_tcp_nodelay(nodelay)
    }
}

/// A TCP connection.
///
/// Its methods take `&self`, so one coroutine may read while another writes, through an
/// [`Rc`](std::rc::Rc) or the halves of [`split`](TcpStream::split). If two coroutines read at the same
/// time, each gets some of the bytes. It implements the [`futures::io`] traits, also for `&TcpStream`.
///
/// A stream that was connected or accepted here sends small writes at once (`TCP_NODELAY`). Without
/// that, a reply of two writes, after which this side waits for the other one, takes 40 ms or more: the
/// system keeps the second write back until the first is acknowledged, and the other side delays the
/// acknowledgement, to send it along with an answer. A program that writes very little very often, and
/// does not wait for answers, may want its writes gathered:
/// [`set_nodelay(false)`](TcpStream::set_nodelay).
///
/// Dropping it closes it at once; what was written is still sent.
pub struct TcpStream {
    registered: Registered<mio::net::TcpStream>,
}

/// Whether the socket is really one of TCP. The standard library's types do not say: `From<OwnedFd>`
/// makes a `TcpStream` of any fd.
fn is_tcp(socket: &impl AsFd) -> bool {
    let socket = SockRef::from(socket);
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    let is_tcp = matches!(socket.protocol(), Ok(Some(socket2::Protocol::TCP)));
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    let is_tcp = socket.tcp_nodelay().is_ok();
    is_tcp
}

#[cfg(feature = "server")]
impl TcpStream {
    /// [`poll_read_lent`](TcpStream::poll_read_lent) of at most `most` bytes.
    #[inline]
    pub(crate) fn poll_read_lent_part(
        &self,
        cx: &mut Context<'_>,
        most: usize,
    ) -> Poll<io::Result<Lent>> {
        self.registered.poll_read_lent_part(cx, most)
    }

    /// Ready when the other side has sent its last byte, although there may be bytes before it to be read.
    pub(crate) fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.registered.poll_closed(cx, Direction::Read)
    }
}

impl TcpStream {
    /// Connects to the first of the addresses that answers, trying one after the other. The stream has
    /// `TCP_NODELAY`, and belongs to the current loop.
    ///
    /// Cancel safe: dropping the future ends the attempt.
    ///
    /// # Errors
    ///
    /// If no address answers, the error of the last one. If a name cannot be looked up, the error of that.
    #[track_caller]
    pub fn connect(
        address: impl ToSocketAddrs,
    ) -> impl FusedFuture<Output = io::Result<TcpStream>> {
        resumption::here(first_that_works(address, TcpStream::connect_to))
    }

    async fn connect_to(address: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::start_connect(address)?.until_connected().await
    }

    /// Begins to connect. Until the attempt has succeeded or failed, the stream is not ready for
    /// anything, so whoever reads or writes waits. If it has failed, the system gives the error to the
    /// first operation, and to no other: the next would see what looks like the end of a connection. So
    /// this is for a caller that keeps the error.
    pub(crate) fn start_connect(address: SocketAddr) -> io::Result<TcpStream> {
        let stream = mio::net::TcpStream::connect(address)?;
        // If the attempt has failed already, some systems refuse this; waiting for it tells why it failed.
        let _ = stream.set_nodelay(true);
        TcpStream::registered(stream, true, &[])
    }

    /// Connects to `address` from the address `local` of this machine; without one, the system chooses.
    pub(crate) async fn connect_from(
        local: Option<SocketAddr>,
        address: SocketAddr,
    ) -> io::Result<TcpStream> {
        let Some(local) = local else { return TcpStream::connect_to(address).await };
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.bind(&local.into())?;
        TcpStream::connect_with(socket, address).await
    }

    /// Connects a socket that you have made and set up: with keep-alive, sizes of buffers, the device or
    /// the address that it goes out from, TCP Fast Open. Its options stay as they are (so it may have
    /// Nagle's algorithm), but it is made non-blocking. The stream belongs to the current loop.
    ///
    /// `socket` may be a `Socket` of the [`socket2`](https://docs.rs/socket2) crate. (For a listener
    /// that you have set up there is [`TcpListener::from_std`].)
    ///
    /// Cancel safe: dropping the future ends the attempt.
    ///
    /// # Errors
    ///
    /// What the system says: `ConnectionRefused` and the like.
    ///
    /// ```
    /// use socket2::{Domain, Socket, TcpKeepalive, Type};
    /// use std::time::Duration;
    /// use waterspout::{IoLoop, net::{TcpListener, TcpStream}};
    ///
    /// # IoLoop::new()?.run_sync(|| async {
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    /// socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_secs(60)))?;
    /// socket.set_tcp_nodelay(true)?;
    /// let stream = TcpStream::connect_socket(socket, listener.local_addr()?).await?;
    /// assert!(stream.nodelay()?);
    /// # Ok::<(), std::io::Error>(())
    /// # })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn connect_socket(
        socket: impl Into<OwnedFd>,
        address: SocketAddr,
    ) -> impl FusedFuture<Output = io::Result<TcpStream>> {
        resumption::here(TcpStream::connect_with(socket.into().into(), address))
    }

    async fn connect_with(socket: Socket, address: SocketAddr) -> io::Result<TcpStream> {
        socket.set_nonblocking(true)?;
        let is_tcp = is_tcp(&socket);
        let connected = socket.connect(&address.into());
        let stream = mio::net::TcpStream::from_std(socket.into());
        match connected {
            // With TCP Fast Open, the stream connects by its first write: there is nothing to wait for
            // here.
            Ok(()) => TcpStream::already_connected(stream, is_tcp),
            Err(error)
                if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) =>
            {
                TcpStream::registered(stream, is_tcp, &[])?.until_connected().await
            }
            Err(error) => Err(error),
        }
    }

    /// Waits until the connection attempt has succeeded or failed.
    async fn until_connected(self) -> io::Result<TcpStream> {
        let established =
            |stream: &mio::net::TcpStream| established(stream.take_error(), || stream.peer_addr());
        self.registered.until_connected(established).await?;
        Ok(self)
    }

    /// Of a stream that is connected already. Its first read or write is tried before anybody waits,
    /// since the other side has often sent something by now.
    fn already_connected(stream: mio::net::TcpStream, is_tcp: bool) -> io::Result<TcpStream> {
        TcpStream::registered(stream, is_tcp, &[Direction::Read, Direction::Write])
    }

    fn registered(
        stream: mio::net::TcpStream,
        is_tcp: bool,
        ready: &[Direction],
    ) -> io::Result<TcpStream> {
        let interest = mio::Interest::READABLE | mio::Interest::WRITABLE;
        // A read ends before urgent data, so a short read does not prove that the stream is drained
        // while there is some. The selector has to report it, for the readiness table to know that.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let interest = interest | mio::Interest::PRIORITY;
        let registered = Registered::with_interest(stream, interest, ready)?;
        if !is_tcp {
            registered.short_proves_nothing();
        }
        Ok(TcpStream { registered })
    }

    /// Takes over a connection that was made elsewhere, for the current loop. Its options stay as they
    /// are, so it may have Nagle's algorithm (see [`set_nodelay`](TcpStream::set_nodelay)).
    ///
    /// # Errors
    ///
    /// What the system says of making it non-blocking and of watching it.
    pub fn from_std(stream: net::TcpStream) -> io::Result<TcpStream> {
        stream.set_nonblocking(true)?;
        let is_tcp = is_tcp(&stream);
        TcpStream::already_connected(mio::net::TcpStream::from_std(stream), is_tcp)
    }

    into_std!(net::TcpStream);

    reading! {
        /// ```
        /// # use waterspout::net::TcpStream;
        /// # #[cfg(feature = "macros")]
        /// #[waterspout::coroutine]
        /// async fn echo(stream: TcpStream) -> std::io::Result<()> {
        ///     loop {
        ///         let bytes = stream.read_lent().await?;
        ///         if bytes.is_empty() {
        ///             return Ok(());
        ///         }
        ///         stream.write_all(&bytes).await?;
        ///     }
        /// }
        /// ```
    }

    /// [`read`](TcpStream::read) that leaves the bytes in the stream, to be read again.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// As [`read`](TcpStream::read).
    #[track_caller]
    pub fn peek(&self, buf: &mut [u8]) -> impl FusedFuture<Output = io::Result<usize>> {
        self.registered.io(Direction::Read, Location::caller(), move |stream| stream.peek(buf))
    }

    writing!();
    readable!("something to read", try_read);
    writable!("room to write", try_write);

    system_calls! {
        /// ```
        /// use socket2::SockRef;
        /// use waterspout::{Interest, IoLoop, testing};
        ///
        /// # IoLoop::new()?.run_sync(|| async {
        /// let (here, there) = testing::tcp_pair().await?;
        /// // Urgent data, for which there is no method.
        /// here.async_io(Interest::WRITE, || SockRef::from(&here).send_out_of_band(b"!")).await?;
        /// # let mut buf = [std::mem::MaybeUninit::new(0)];
        /// # there.async_io(Interest::READ, || SockRef::from(&there).recv_out_of_band(&mut buf)).await?;
        /// # Ok::<(), std::io::Error>(())
        /// # })??;
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
    }

    /// Closes one direction or both.
    ///
    /// # Errors
    ///
    /// What the system says: `NotConnected` if the other side has gone.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.registered.tell(mio::net::TcpStream::shutdown, how)
    }

    /// This side's address.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.registered.ask(mio::net::TcpStream::local_addr)
    }

    /// The other side's address.
    ///
    /// # Errors
    ///
    /// What the system says: `NotConnected` if the other side has gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.registered.ask(mio::net::TcpStream::peer_addr)
    }

    /// Whether small writes are sent at once (`TCP_NODELAY`).
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.registered.ask(mio::net::TcpStream::nodelay)
    }

    /// Says whether small writes are sent at once, or gathered (Nagle's algorithm). Tornado:
    /// `set_nodelay`.
    ///
    /// A stream that was connected or accepted here sends them at once from the start; in Tornado it
    /// gathers them until it is told not to.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.registered.tell(mio::net::TcpStream::set_nodelay, nodelay)
    }

    /// How many hops a packet may take (`IP_TTL`).
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn ttl(&self) -> io::Result<u32> {
        self.registered.ask(mio::net::TcpStream::ttl)
    }

    /// Sets how many hops a packet may take.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.registered.tell(mio::net::TcpStream::set_ttl, ttl)
    }

    /// How long closing the stream waits until what was written is sent (`SO_LINGER`). `None`: it does
    /// not wait.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        SockRef::from(self).linger()
    }

    /// Sets how long closing the stream waits until what was written is sent. With zero, closing resets
    /// the connection instead.
    ///
    /// With a longer time, *dropping* the stream may block the thread, and the whole loop, for so long.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
        SockRef::from(self).set_linger(linger)
    }

    halves!(TcpStream);
}

impl ByteStream for mio::net::TcpStream {
    const SHORT_IS_DRAINED: bool = SHORT_IS_DRAINED;
}

impl ReadBytes for mio::net::TcpStream {
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        (&mut &*self).read(buf)
    }

    fn read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&mut &*self).read_vectored(bufs)
    }
}

impl WriteBytes for mio::net::TcpStream {
    fn write(&self, buf: &[u8]) -> io::Result<usize> {
        // The standard library sends as `send` does here: without raising `SIGPIPE`.
        (&mut &*self).write(buf)
    }

    fn write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        send_vectored(self, bufs)
    }
}

impl HalfClose for TcpStream {
    fn close_write(&self) {
        // This fails if the other side has gone, and then there is nobody to tell.
        let _ = self.shutdown(Shutdown::Write);
    }
}

async_read!(TcpStream, &TcpStream);
async_write!(TcpStream, &TcpStream);
shows_fd!(TcpListener, TcpStream);
