//! What a stream over a socket is asked about the socket.

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
