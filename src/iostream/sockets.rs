//! Streams over sockets: connecting while one writes already, and what is asked about the socket.

use std::io;
use std::net;
use std::os::unix::net as unix;

use super::{IoStream, Transport};
use crate::sockets::{TcpStream, UnixStream};

impl<S: Transport> IoStream<S> {
    /// Asks what the stream is over, if that can be asked.
    fn ask<R>(&self, ask: impl FnOnce(&S) -> io::Result<R>) -> io::Result<R> {
        self.with_io(ask).unwrap_or_else(|| {
            Err(io::Error::new(io::ErrorKind::NotConnected, self.inner.closed_error()))
        })
    }
}

/// Connecting.
impl IoStream<TcpStream> {
    /// Begins to connect to `address`, and is a stream at once, with the limits of [`IoStream::new`]. What
    /// is written meanwhile is sent when it is connected; reads wait for that. Small writes are sent at
    /// once (`TCP_NODELAY`). Tornado: `IOStream.connect`.
    ///
    /// For a name there is [`TcpClient`](crate::net::TcpClient): looking it up has to be waited for.
    ///
    /// When the last handle is dropped, or the stream is closed, the attempt is given up; not as long as
    /// something that was written is unsent, unless the stream is closed.
    ///
    /// # Errors
    ///
    /// What the system says at once (`NetworkUnreachable`, too many open files). If the attempt fails
    /// later, that closes the stream: whatever is read, written or awaited of it gives
    /// [`StreamError::Closed`](crate::StreamError::Closed) with the error (`ConnectionRefused`, `TimedOut`).
    /// As with any other stream, that is noticed when somebody reads, writes or watches
    /// ([`closed`](IoStream::closed)). A `TcpStream` that is taken out before
    /// ([`into_inner`](IoStream::into_inner)) tells the error only to the first who uses it.
    ///
    /// # Panics
    ///
    /// As [`IoLoop::current`](crate::IoLoop::current).
    ///
    /// ```
    /// use waterspout::{IoLoop, iostream::IoStream, net::TcpListener};
    ///
    /// # IoLoop::new()?.run_sync(|| async {
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let stream = IoStream::connect(listener.local_addr()?)?;
    /// stream.write("GET / HTTP/1.0\r\n\r\n"); // sent when it is connected
    /// let (server, _peer) = listener.accept().await?;
    /// let server = IoStream::new(server);
    /// assert_eq!(server.read_until("\r\n", 100).await?, b"GET / HTTP/1.0\r\n");
    /// # Ok::<(), std::io::Error>(())
    /// # })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn connect(address: net::SocketAddr) -> io::Result<IoStream<TcpStream>> {
        Ok(IoStream::new(TcpStream::start_connect(address)?))
    }
}

/// About the socket. All of it is an error of the kind `NotConnected` once the stream is closed.
///
/// ```
/// use waterspout::{IoLoop, iostream::IoStream, testing};
///
/// # IoLoop::new()?.run_sync(|| async {
/// let (here, there) = testing::tcp_pair().await?;
/// let (here, there) = (IoStream::new(here), IoStream::new(there));
/// assert_eq!(here.peer_addr()?, there.local_addr()?);
/// assert!(here.nodelay()?);
/// here.set_nodelay(false)?;
/// here.close();
/// assert!(here.peer_addr().is_err());
/// # Ok::<(), std::io::Error>(())
/// # })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl IoStream<TcpStream> {
    /// The other side's address.
    ///
    /// # Errors
    ///
    /// As [`TcpStream::peer_addr`]; `NotConnected` once the stream is closed.
    pub fn peer_addr(&self) -> io::Result<net::SocketAddr> {
        self.ask(TcpStream::peer_addr)
    }

    /// This side's address.
    ///
    /// # Errors
    ///
    /// As [`TcpStream::local_addr`]; `NotConnected` once the stream is closed.
    pub fn local_addr(&self) -> io::Result<net::SocketAddr> {
        self.ask(TcpStream::local_addr)
    }

    /// Whether small writes are sent at once (`TCP_NODELAY`).
    ///
    /// # Errors
    ///
    /// As [`TcpStream::nodelay`]; `NotConnected` once the stream is closed.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.ask(TcpStream::nodelay)
    }

    /// Sends small writes at once, or gathers them (Nagle's algorithm). Tornado: `set_nodelay`.
    ///
    /// # Errors
    ///
    /// As [`TcpStream::set_nodelay`]; `NotConnected` once the stream is closed.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.ask(|stream| stream.set_nodelay(nodelay))
    }
}

/// About the socket.
impl IoStream<UnixStream> {
    /// The other side's path, if it has one.
    ///
    /// # Errors
    ///
    /// As [`UnixStream::peer_addr`]; `NotConnected` once the stream is closed.
    pub fn peer_addr(&self) -> io::Result<unix::SocketAddr> {
        self.ask(UnixStream::peer_addr)
    }

    /// This side's path, if it has one.
    ///
    /// # Errors
    ///
    /// As [`UnixStream::local_addr`]; `NotConnected` once the stream is closed.
    pub fn local_addr(&self) -> io::Result<unix::SocketAddr> {
        self.ask(UnixStream::local_addr)
    }
}
