//! Streams over sockets: connecting, and the methods of a socket that a stream over one has, too.

use std::io;
use std::net;
use std::os::unix::net as unix;

use super::{IoStream, Transport};
use crate::sockets::{TcpStream, UnixStream};

impl<S: Transport> IoStream<S> {
    /// Gives what `ask` says about the transport, or an error once the stream is closed.
    fn ask<R>(&self, ask: impl FnOnce(&S) -> io::Result<R>) -> io::Result<R> {
        self.with_io(ask).unwrap_or_else(|| {
            Err(io::Error::new(io::ErrorKind::NotConnected, self.inner.closed_error()))
        })
    }
}

/// Connecting.
impl IoStream<TcpStream> {
    /// Begins to connect to `address`, and returns the stream at once, with the limits of
    /// [`IoStream::new`]. What is written while it connects is sent when it is connected, and reads wait
    /// until then. Small writes are sent at once (`TCP_NODELAY`). Tornado: `IOStream.connect`.
    ///
    /// This takes no name, since looking one up has to be awaited. For names there is
    /// [`TcpClient`](crate::net::TcpClient).
    ///
    /// Closing the stream gives the attempt up. So does dropping the last handle, unless something that was
    /// written is unsent.
    ///
    /// # Errors
    ///
    /// What the system finds wrong at once (`NetworkUnreachable`, too many open files). If the attempt
    /// fails later, that closes the stream: reads and writes then give
    /// [`StreamError::Closed`](crate::StreamError::Closed) with the error in it (`ConnectionRefused`,
    /// `TimedOut`). As with any other stream, this is noticed only while somebody reads, writes, or waits
    /// for [`closed`](IoStream::closed). A `TcpStream` that was taken out before
    /// ([`into_inner`](IoStream::into_inner)) gives the error once, to the first operation on it.
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

/// What the socket of the stream can tell. Once the stream is closed, all of these methods give an error of
/// the kind `NotConnected`.
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
