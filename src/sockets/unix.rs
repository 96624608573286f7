//! Unix domain streams: `UnixListener` and `UnixStream`.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::{self, SocketAddr};
use std::panic::Location;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::FusedFuture;
use futures::io::{AsyncRead, AsyncWrite};
use futures::stream::Stream;

use super::address::unix_address;
use super::lent::Lent;
use super::send::{send, send_vectored};
use super::source::{Asker, ByteStream, ReadBytes, Registered, WriteBytes, established};
use super::split::{
    HalfClose, OwnedReadHalf, OwnedWriteHalf, ReadHalf, WriteHalf, into_split, is_closed_by,
};
use crate::coroutine::sleep;
use crate::ground::resumption;
use crate::ioloop::{Direction, Interest};

/// A full queue on the other side is the one thing that no selector tells about: it is tried again
/// after so long, then after twice as long, up to the second figure.
pub(super) const PATIENCE: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(64)];

/// A Unix domain socket that accepts connections.
///
/// Dropping it closes it, and leaves its path in the file system: remove that yourself. Several
/// coroutines may accept from one listener.
///
/// ```
/// use waterspout::{IoLoop, coroutine, net::{UnixListener, UnixStream}};
///
/// # let path = std::env::temp_dir().join(format!("waterspout-doc-{}", std::process::id()));
/// # IoLoop::new()?.run_sync(|| async {
/// let listener = UnixListener::bind(&path)?;
/// let client = coroutine::start(UnixStream::connect(path.clone()));
/// let (server, _peer) = listener.accept().await?;
/// client.await?.write_all(b"hello").await?;
/// let mut hello = [0; 5];
/// server.read_exact(&mut hello).await?;
/// assert_eq!(&hello, b"hello");
/// std::fs::remove_file(&path)?;
/// # Ok::<(), std::io::Error>(())
/// # })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct UnixListener {
    registered: Registered<mio::net::UnixListener>,
}

impl UnixListener {
    /// Listens on a path, which must not exist yet. Belongs to the current loop.
    ///
    /// On Linux, a path that begins with a NUL (`"\0name"`) is an abstract name: it has no file, and is
    /// free again when the listener is dropped.
    ///
    /// # Errors
    ///
    /// `AddrInUse` if the path exists, be it of a listener long gone; what the system says.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<UnixListener> {
        UnixListener::registered(mio::net::UnixListener::bind_addr(&unix_address(path.as_ref())?)?)
    }

    fn registered(listener: mio::net::UnixListener) -> io::Result<UnixListener> {
        Ok(UnixListener { registered: Registered::new(listener, &[Direction::Read])? })
    }

    /// Takes over a listener made elsewhere, for the current loop.
    ///
    /// # Errors
    ///
    /// What the system says of setting it non-blocking and of watching it.
    pub fn from_std(listener: net::UnixListener) -> io::Result<UnixListener> {
        listener.set_nonblocking(true)?;
        UnixListener::registered(mio::net::UnixListener::from_std(listener))
    }

    /// Gives the socket up, in blocking mode as std's are.
    ///
    /// # Errors
    ///
    /// If it does not belong to the current loop; it is closed then.
    pub fn into_std(self) -> io::Result<net::UnixListener> {
        let listener = net::UnixListener::from(self.registered.into_source()?);
        listener.set_nonblocking(false)?;
        Ok(listener)
    }

    /// Waits for a connection. The stream belongs to the current loop.
    ///
    /// Cancel safe: a connection is not lost.
    ///
    /// # Errors
    ///
    /// What the system says. `EMFILE` and `ENFILE` leave the connection waiting: accept again after
    /// a pause.
    #[track_caller]
    pub fn accept(&self) -> impl FusedFuture<Output = io::Result<(UnixStream, SocketAddr)>> {
        let place = Location::caller();
        self.registered.waiting(Direction::Read, place, move |asker| self.poll_accept_by(asker))
    }

    /// [`accept`](UnixListener::accept) as a poll function: of the tasks that call it, the last one is
    /// woken.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(UnixStream, SocketAddr)>> {
        self.poll_accept_by(cx.into())
    }

    fn poll_accept_by(&self, asker: Asker<'_>) -> Poll<io::Result<(UnixStream, SocketAddr)>> {
        loop {
            match self.registered.poll_io(asker, Direction::Read, |listener| listener.accept()) {
                Poll::Ready(Ok((stream, peer))) => {
                    return Poll::Ready(UnixStream::ready(stream).map(|stream| (stream, peer)));
                }
                Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::ConnectionAborted => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Accepts a connection if one is waiting, else `WouldBlock`.
    ///
    /// # Errors
    ///
    /// As [`accept`](UnixListener::accept).
    pub fn try_accept(&self) -> io::Result<(UnixStream, SocketAddr)> {
        let accepted = self.registered.try_io(Direction::Read, |listener| listener.accept());
        let (stream, peer) = accepted?;
        Ok((UnixStream::ready(stream)?, peer))
    }

    /// Connections as a stream, which never ends. There may be several at once.
    #[track_caller]
    pub fn incoming(&self) -> impl Stream<Item = io::Result<UnixStream>> {
        let waits = self.registered.waits(Direction::Read, Location::caller());
        futures::stream::poll_fn(move |cx| {
            let accepted = waits.poll(cx, |asker| self.poll_accept_by(asker));
            accepted.map(|accepted| Some(accepted.map(|(stream, _)| stream)))
        })
    }

    /// The path that it listens on.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.registered.ask(mio::net::UnixListener::local_addr)
    }
}

impl fmt::Debug for UnixListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.registered.fmt(f)
    }
}

impl AsFd for UnixListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.registered.as_fd()
    }
}

impl AsRawFd for UnixListener {
    fn as_raw_fd(&self) -> RawFd {
        self.registered.as_raw_fd()
    }
}

/// A Unix domain connection.
///
/// Its methods take `&self`, so one coroutine may read while another writes, through an
/// [`Rc`](std::rc::Rc) or the halves of [`split`](UnixStream::split). Two that read at once each
/// get some of the bytes. It implements the [`futures::io`] traits, also for `&UnixStream`. It moves
/// bytes: file descriptors that a peer sends along (`SCM_RIGHTS`) are closed by the system. Who the peer is
/// (`SO_PEERCRED`) can be asked of its fd, by the `nix` crate say.
///
/// Dropping it closes it at once; what was written is still there for the other side.
///
/// ```
/// use waterspout::{IoLoop, net::UnixStream};
///
/// # IoLoop::new()?.run_sync(|| async {
/// let (here, there) = UnixStream::pair()?;
/// here.write_all(b"hello").await?;
/// let mut hello = [0; 5];
/// there.read_exact(&mut hello).await?;
/// assert_eq!(&hello, b"hello");
/// # Ok::<(), std::io::Error>(())
/// # })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct UnixStream {
    registered: Registered<mio::net::UnixStream>,
}

impl UnixStream {
    /// Connects to the listener on a path, or on an abstract name (see [`UnixListener::bind`]), waiting
    /// while its queue is full.
    ///
    /// Cancel safe: dropping it closes the attempt.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such path, `ConnectionRefused` if nobody listens there any more;
    /// what the system says.
    #[track_caller]
    pub fn connect(path: impl AsRef<Path>) -> impl FusedFuture<Output = io::Result<UnixStream>> {
        resumption::here(UnixStream::connect_to(path))
    }

    async fn connect_to(path: impl AsRef<Path>) -> io::Result<UnixStream> {
        let address = unix_address(path.as_ref())?;
        let mut patience = PATIENCE[0];
        let stream = loop {
            match mio::net::UnixStream::connect_addr(&address) {
                // Linux does not queue for the queue, and does not tell when there is room.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    sleep(patience).await;
                    patience = PATIENCE[1].min(2 * patience);
                }
                result => break UnixStream::ready(result?)?,
            }
        };
        let established =
            |stream: &mio::net::UnixStream| established(stream.take_error(), || stream.peer_addr());
        stream.registered.connected(established).await?;
        Ok(stream)
    }

    /// Two streams that are connected with each other.
    ///
    /// # Errors
    ///
    /// What the system says (too many open files).
    pub fn pair() -> io::Result<(UnixStream, UnixStream)> {
        let (one, other) = mio::net::UnixStream::pair()?;
        Ok((UnixStream::ready(one)?, UnixStream::ready(other)?))
    }

    /// It is tried first, for what is connected can be written and often read.
    fn ready(stream: mio::net::UnixStream) -> io::Result<UnixStream> {
        let ready = [Direction::Read, Direction::Write];
        Ok(UnixStream { registered: Registered::new(stream, &ready)? })
    }

    /// Takes over a connection made elsewhere, for the current loop.
    ///
    /// # Errors
    ///
    /// What the system says of setting it non-blocking and of watching it.
    pub fn from_std(stream: net::UnixStream) -> io::Result<UnixStream> {
        stream.set_nonblocking(true)?;
        UnixStream::ready(mio::net::UnixStream::from_std(stream))
    }

    /// Gives the socket up, in blocking mode as std's are.
    ///
    /// # Errors
    ///
    /// If it does not belong to the current loop; it is closed then.
    pub fn into_std(self) -> io::Result<net::UnixStream> {
        let stream = net::UnixStream::from(self.registered.into_source()?);
        stream.set_nonblocking(false)?;
        Ok(stream)
    }

    /// Reads what is there, at most as much as fits; 0 is the end of the stream.
    ///
    /// Cancel safe: no byte is lost.
    ///
    /// # Errors
    ///
    /// What the system says: `ConnectionReset` and the like.
    #[track_caller]
    pub fn read(&self, buf: &mut [u8]) -> impl FusedFuture<Output = io::Result<usize>> {
        self.registered.read(Location::caller(), buf)
    }

    /// Reads until `buf` is full.
    ///
    /// Not cancel safe: what was read into `buf` by then is known only to this future.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` if the stream ends before; what the system says.
    #[track_caller]
    pub fn read_exact(&self, buf: &mut [u8]) -> impl FusedFuture<Output = io::Result<()>> {
        self.registered.read_exact(Location::caller(), buf)
    }

    /// Reads what is there into several buffers at once.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// As [`read`](UnixStream::read).
    #[track_caller]
    pub fn read_vectored(
        &self,
        bufs: &mut [IoSliceMut<'_>],
    ) -> impl FusedFuture<Output = io::Result<usize>> {
        self.registered.read_vectored(Location::caller(), bufs)
    }

    /// Reads what is there into a buffer that the loop lends for it, so that a connection that
    /// waits owns no buffer. Empty at the end of the stream.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// As [`read`](UnixStream::read).
    #[track_caller]
    pub fn read_lent(&self) -> impl FusedFuture<Output = io::Result<Lent>> {
        self.registered.read_lent(Location::caller())
    }

    /// [`read_lent`](UnixStream::read_lent) as a poll function: of the tasks that call it, the last one is woken.
    ///
    /// # Errors
    ///
    /// As [`read`](UnixStream::read).
    pub fn poll_read_lent(&self, cx: &mut Context<'_>) -> Poll<io::Result<Lent>> {
        self.registered.poll_read_lent(cx)
    }

    /// Writes as much as there is room for.
    ///
    /// Cancel safe: if it is dropped before it is done, nothing was written.
    ///
    /// # Errors
    ///
    /// What the system says: `BrokenPipe`, `ConnectionReset` and the like.
    #[track_caller]
    pub fn write(&self, buf: &[u8]) -> impl FusedFuture<Output = io::Result<usize>> {
        self.registered.write(Location::caller(), buf)
    }

    /// Writes all of `buf`.
    ///
    /// Not cancel safe: how much was written by then is known only to this future.
    ///
    /// # Errors
    ///
    /// As [`write`](UnixStream::write).
    #[track_caller]
    pub fn write_all(&self, buf: &[u8]) -> impl FusedFuture<Output = io::Result<()>> {
        self.registered.write_all(Location::caller(), buf)
    }

    /// Writes from several buffers at once.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// As [`write`](UnixStream::write).
    #[track_caller]
    pub fn write_vectored(
        &self,
        bufs: &[IoSlice<'_>],
    ) -> impl FusedFuture<Output = io::Result<usize>> {
        self.registered.write_vectored(Location::caller(), bufs)
    }

    /// Waits until there may be something to read; then use [`try_read`](UnixStream::try_read).
    ///
    /// What is new here may count as ready until an operation has answered `WouldBlock`, so the first wait
    /// may be over at once.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// If the stream belongs to another loop.
    #[track_caller]
    pub fn readable(&self) -> impl FusedFuture<Output = io::Result<()>> {
        self.registered.ready(Direction::Read, Location::caller())
    }

    /// Waits until there may be room to write; then use [`try_write`](UnixStream::try_write).
    ///
    /// What is new here may count as ready until an operation has answered `WouldBlock`, so the first wait
    /// may be over at once.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// If the stream belongs to another loop.
    #[track_caller]
    pub fn writable(&self) -> impl FusedFuture<Output = io::Result<()>> {
        self.registered.ready(Direction::Write, Location::caller())
    }

    /// [`readable`](UnixStream::readable) as a poll function: of the tasks that call it, the last one is woken.
    ///
    /// # Errors
    ///
    /// As [`readable`](UnixStream::readable).
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.registered.poll_ready(cx, Direction::Read)
    }

    /// [`writable`](UnixStream::writable) as a poll function: of the tasks that call it, the last one is woken.
    ///
    /// # Errors
    ///
    /// As [`writable`](UnixStream::writable).
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.registered.poll_ready(cx, Direction::Write)
    }

    /// Reads if there is something, without waiting.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is nothing; as [`read`](UnixStream::read).
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.registered.try_read(buf)
    }

    /// Writes if there is room, without waiting.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is none; as [`write`](UnixStream::write).
    pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        self.registered.try_write(buf)
    }

    /// Reads into several buffers if there is something, without waiting.
    ///
    /// # Errors
    ///
    /// As [`try_read`](UnixStream::try_read).
    pub fn try_read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.registered.try_read_vectored(bufs)
    }

    /// Writes from several buffers if there is room, without waiting.
    ///
    /// # Errors
    ///
    /// As [`try_write`](UnixStream::try_write).
    pub fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.registered.try_write_vectored(bufs)
    }

    /// Does an operation of your own on the stream, once, without waiting. If it answers `WouldBlock`,
    /// the stream waits from now on.
    ///
    /// `operation` gets at the stream by its [`AsFd`], and must not block. One that does not read or
    /// write this stream must not answer `WouldBlock`: who waits then would wait for what is there
    /// already.
    ///
    /// # Errors
    ///
    /// Those of `operation`; `InvalidInput` if `interest` is not one of [`Interest::READ`] and
    /// [`Interest::WRITE`]; that the stream belongs to another loop. `operation` is not called in those
    /// two cases.
    pub fn try_io<R>(
        &self,
        interest: Interest,
        operation: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        self.registered.try_own(interest, operation)
    }

    /// Does an operation of your own on the stream, again each time that is ready, until it answers
    /// something else than `WouldBlock`. As with [`try_io`](UnixStream::try_io), it gets at the stream by its
    /// [`AsFd`], and must not block.
    ///
    /// `Interrupted` is tried again at once. Cancel safe: it is dropped between two calls of `operation`,
    /// never in one.
    ///
    /// # Errors
    ///
    /// As [`try_io`](UnixStream::try_io).
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
    /// What the system says.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.registered.tell(mio::net::UnixStream::shutdown, how)
    }

    /// This side's path, if it has one.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.registered.ask(mio::net::UnixStream::local_addr)
    }

    /// The other side's path, if it has one.
    ///
    /// # Errors
    ///
    /// What the system says: `NotConnected` if the other side has gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.registered.ask(mio::net::UnixStream::peer_addr)
    }

    /// The error that the socket has kept, if any (`SO_ERROR`).
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.registered.ask(mio::net::UnixStream::take_error)
    }

    /// The two directions, for two parts of one coroutine.
    pub fn split(&mut self) -> (ReadHalf<'_, UnixStream>, WriteHalf<'_, UnixStream>) {
        (ReadHalf(self), WriteHalf(self))
    }

    /// The two directions, for two coroutines. Dropping the write half ends the stream for the other
    /// side; dropping both closes it. [`reunite`](OwnedReadHalf::reunite) makes them one again.
    pub fn into_split(self) -> (OwnedReadHalf<UnixStream>, OwnedWriteHalf<UnixStream>) {
        into_split(self)
    }
}

impl ByteStream for mio::net::UnixStream {}

impl ReadBytes for mio::net::UnixStream {
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        (&mut &*self).read(buf)
    }

    fn read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&mut &*self).read_vectored(bufs)
    }
}

impl WriteBytes for mio::net::UnixStream {
    fn write(&self, buf: &[u8]) -> io::Result<usize> {
        send(self, buf)
    }

    fn write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        send_vectored(self, bufs)
    }
}

impl HalfClose for UnixStream {
    fn close_write(&self) {
        // If the other side has gone, there is nobody to tell.
        let _ = self.shutdown(Shutdown::Write);
    }
}

impl AsyncRead for &UnixStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.registered.poll_read(cx, buf)
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        self.registered.poll_read_vectored(cx, bufs)
    }
}

impl AsyncWrite for &UnixStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.registered.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.registered.poll_write_vectored(cx, bufs)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(is_closed_by(self.shutdown(Shutdown::Write)))
    }
}

impl AsyncRead for UnixStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_read(cx, buf)
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_read_vectored(cx, bufs)
    }
}

impl AsyncWrite for UnixStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_close(cx)
    }
}

impl fmt::Debug for UnixStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.registered.fmt(f)
    }
}

impl AsFd for UnixStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.registered.as_fd()
    }
}

impl AsRawFd for UnixStream {
    fn as_raw_fd(&self) -> RawFd {
        self.registered.as_raw_fd()
    }
}
