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
    HalfClose, OwnedReadHalf, OwnedWriteHalf, ReadHalf, WriteHalf, into_split, is_closed_by,
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
    /// Its connections are TCP: one that was taken over could be of something else.
    is_tcp: bool,
}

impl TcpListener {
    /// Listens on the first of the addresses that can be bound; port 0 takes a free one.
    ///
    /// With `SO_REUSEADDR`, and room for 1,024 connections that wait. What it accepts sends small writes
    /// at once (`TCP_NODELAY`), unless [`set_nodelay`](TcpListener::set_nodelay) says otherwise. Belongs
    /// to the current loop.
    ///
    /// # Errors
    ///
    /// Of the last address: `AddrInUse`, `PermissionDenied` and the like.
    #[track_caller]
    pub fn bind(address: impl ToSocketAddrs) -> impl FusedFuture<Output = io::Result<TcpListener>> {
        resumption::here(first_that_works(address, async |address| {
            TcpListener::from_std(listen(address, &BindOptions::default(), false)?)
        }))
    }

    /// Takes over a listener made elsewhere, for the current loop. Its options stay as they are: what it
    /// accepts has `TCP_NODELAY` if [`set_nodelay`](TcpListener::set_nodelay) or [`bind_sockets`] has
    /// given it that.
    ///
    /// # Errors
    ///
    /// What the system says of setting it non-blocking and of watching it.
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

    fn taken_over(&self, stream: mio::net::TcpStream) -> io::Result<TcpStream> {
        TcpStream::accepted(stream, self.is_tcp)
    }

    into_std!(net::TcpListener);
    accepting!(TcpStream);
    readable!("a connection to accept", try_accept);

    /// The address that it listens on, with the port that was taken for 0.
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

    /// Lets what it accepts from now on send small writes at once, or gather them (Nagle's algorithm). A
    /// connection takes it over from its listener when it is made, so one that waits in the backlog
    /// already has what was set before.
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
/// [`Rc`](std::rc::Rc) or the halves of [`split`](TcpStream::split). Two that read at once each
/// get some of the bytes. It implements the [`futures::io`] traits, also for `&TcpStream`.
///
/// One that was connected or accepted here sends small writes at once (`TCP_NODELAY`). Otherwise a reply
/// of two writes, after which it waits for the other side, would take 40 ms or more: the system would
/// keep the second until the first is acknowledged, and the other side delays that, to send it with an
/// answer. Who writes very little very often, and waits for nothing, may want those gathered:
/// [`set_nodelay(false)`](TcpStream::set_nodelay).
///
/// Dropping it closes it at once; what was written is still sent.
pub struct TcpStream {
    registered: Registered<mio::net::TcpStream>,
}

/// Is it what its type says? The standard library takes any fd for one.
fn is_tcp(socket: &impl AsFd) -> bool {
    let socket = SockRef::from(socket);
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    let is_tcp = matches!(socket.protocol(), Ok(Some(socket2::Protocol::TCP)));
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    let is_tcp = socket.tcp_nodelay().is_ok();
    is_tcp
}

impl TcpStream {
    /// Connects to the first of the addresses that answers, trying one after the other. It has
    /// `TCP_NODELAY`.
    ///
    /// Cancel safe: dropping it closes the attempt.
    ///
    /// # Errors
    ///
    /// Of the last address, or of looking up its name.
    #[track_caller]
    pub fn connect(
        address: impl ToSocketAddrs,
    ) -> impl FusedFuture<Output = io::Result<TcpStream>> {
        resumption::here(first_that_works(address, TcpStream::connect_to))
    }

    async fn connect_to(address: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::start_connect(address)?.connected().await
    }

    /// Begins to connect. The stream is not ready for anything until that has succeeded or failed, so who
    /// reads or writes waits till then. If it has failed, the first who then reads or writes has the error,
    /// and nobody else: the next would find what looks like the end of a connection. So this is for
    /// whoever keeps the error.
    pub(crate) fn start_connect(address: SocketAddr) -> io::Result<TcpStream> {
        let stream = mio::net::TcpStream::connect(address)?;
        // If the attempt has failed already, some systems refuse this; waiting for it tells why it failed.
        let _ = stream.set_nodelay(true);
        TcpStream::registered(stream, true, &[])
    }

    /// Connects from a certain address of this machine.
    pub(crate) async fn connect_from(
        source: Option<SocketAddr>,
        address: SocketAddr,
    ) -> io::Result<TcpStream> {
        let Some(source) = source else { return TcpStream::connect_to(address).await };
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.bind(&source.into())?;
        TcpStream::connect_with(socket, address).await
    }

    /// Connects a socket that you have made and set up: keep-alive, sizes of buffers, the device or the
    /// address that it goes out from, TCP Fast Open. Its options stay as they are, with Nagle's algorithm
    /// or without; only non-blocking mode is set.
    ///
    /// A `Socket` of the [`socket2`](https://docs.rs/socket2) crate is such one. (A listener that was set
    /// up is taken over by [`TcpListener::from_std`].)
    ///
    /// Cancel safe: dropping it closes the attempt.
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
            // With TCP Fast Open, it connects with the first write, so nothing is to be waited for.
            Ok(()) => TcpStream::accepted(stream, is_tcp),
            Err(error)
                if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) =>
            {
                TcpStream::registered(stream, is_tcp, &[])?.connected().await
            }
            Err(error) => Err(error),
        }
    }

    /// Waits until it is connected.
    async fn connected(self) -> io::Result<TcpStream> {
        let established =
            |stream: &mio::net::TcpStream| established(stream.take_error(), || stream.peer_addr());
        self.registered.connected(established).await?;
        Ok(self)
    }

    /// What a listener has accepted: it is tried first, for the client has often sent already.
    fn accepted(stream: mio::net::TcpStream, is_tcp: bool) -> io::Result<TcpStream> {
        TcpStream::registered(stream, is_tcp, &[Direction::Read, Direction::Write])
    }

    fn registered(
        stream: mio::net::TcpStream,
        is_tcp: bool,
        ready: &[Direction],
    ) -> io::Result<TcpStream> {
        let interest = mio::Interest::READABLE | mio::Interest::WRITABLE;
        // Urgent data makes reads end early, so that has to be known.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let interest = interest | mio::Interest::PRIORITY;
        let registered = Registered::with_interest(stream, interest, ready)?;
        if !is_tcp {
            registered.set_partial();
        }
        Ok(TcpStream { registered })
    }

    /// Takes over a connection made elsewhere, for the current loop. Its options stay as they are, with
    /// Nagle's algorithm or without (see [`set_nodelay`](TcpStream::set_nodelay)).
    ///
    /// # Errors
    ///
    /// What the system says of setting it non-blocking and of watching it.
    pub fn from_std(stream: net::TcpStream) -> io::Result<TcpStream> {
        stream.set_nonblocking(true)?;
        let is_tcp = is_tcp(&stream);
        TcpStream::accepted(mio::net::TcpStream::from_std(stream), is_tcp)
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

    /// Reads without taking what was read from the stream.
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

    /// Sends small writes at once, or gathers them (Nagle's algorithm). What was connected or accepted
    /// here sends them at once; in Tornado it gathers them unless told. Tornado: `set_nodelay`.
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

    /// How long closing waits for what was written (`SO_LINGER`); `None` is not at all.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        SockRef::from(self).linger()
    }

    /// Sets how long closing waits for what was written. Zero makes closing reset the connection.
    ///
    /// A time above zero makes the *drop* block for up to as long: use it with care on a loop.
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
        // It sends, too, without a signal.
        (&mut &*self).write(buf)
    }

    fn write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        send_vectored(self, bufs)
    }
}

impl HalfClose for TcpStream {
    fn close_write(&self) {
        // If the other side has gone, there is nobody to tell.
        let _ = self.shutdown(Shutdown::Write);
    }
}

async_read!(TcpStream, &TcpStream);
async_write!(TcpStream, &TcpStream);
shows_fd!(TcpListener, TcpStream);
