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
use super::methods::{
    accepting, async_read, async_write, halves, into_std, readable, reading, shows_fd,
    system_calls, writable, writing,
};
use super::send::{send, send_vectored};
use super::source::{Asker, ByteStream, ReadBytes, Registered, WriteBytes, established};
use super::split::{
    HalfClose, OwnedReadHalf, OwnedWriteHalf, ReadHalf, WriteHalf, into_split, ok_if_disconnected,
};
use crate::coroutine::sleep;
use crate::ground::resumption;
use crate::ioloop::{Direction, Interest};

/// Whether the queue of a listener, or of a receiver of datagrams, has room again is the one thing that
/// no selector reports. So an operation that found it full is tried again after this pause, then after
/// one twice as long, and so on up to [`LONGEST_PAUSE`].
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// See [`FIRST_PAUSE`].
pub(super) const LONGEST_PAUSE: Duration = Duration::from_millis(64);

/// A Unix domain socket that accepts connections.
///
/// Dropping it closes it, but leaves the file at its path, which you have to remove yourself. Several
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
    /// Listens on a path, at which no file may exist yet. The listener belongs to the current loop.
    ///
    /// On Linux, a path that begins with a NUL (`"\0name"`) is an abstract name: it has no file, and can
    /// be used again as soon as the listener is dropped.
    ///
    /// # Errors
    ///
    /// `AddrInUse` if there is a file at the path, even one that a closed listener has left behind; what
    /// the system says.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<UnixListener> {
        UnixListener::registered(mio::net::UnixListener::bind_addr(&unix_address(path.as_ref())?)?)
    }

    fn wrap_accepted(&self, stream: mio::net::UnixStream) -> io::Result<UnixStream> {
        UnixStream::registered(stream)
    }

    fn registered(listener: mio::net::UnixListener) -> io::Result<UnixListener> {
        Ok(UnixListener { registered: Registered::new(listener, &[Direction::Read])? })
    }

    /// Takes over a listener that was made elsewhere, for the current loop.
    ///
    /// # Errors
    ///
    /// What the system says of making it non-blocking and of watching it.
    pub fn from_std(listener: net::UnixListener) -> io::Result<UnixListener> {
        listener.set_nonblocking(true)?;
        UnixListener::registered(mio::net::UnixListener::from_std(listener))
    }

    into_std!(net::UnixListener);
    accepting!(UnixStream);
    readable!("a connection to accept", try_accept);

    /// The path that it listens on.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.registered.ask(mio::net::UnixListener::local_addr)
    }
}

/// A Unix domain connection.
///
/// Its methods take `&self`, so one coroutine may read while another writes, through an
/// [`Rc`](std::rc::Rc) or the halves of [`split`](UnixStream::split). If two coroutines read at the same
/// time, each gets some of the bytes. It implements the [`futures::io`] traits, also for `&UnixStream`.
///
/// It receives bytes only: if the peer sends file descriptors along with them (`SCM_RIGHTS`), the system
/// closes those. With the feature `peer_cred`, the method of that name tells whose process the peer is.
///
/// Dropping it closes it at once; the other side can still read what was written.
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
    /// Connects to the listener on a path, or on an abstract name (see [`UnixListener::bind`]), and
    /// waits while the queue of that listener is full. The stream belongs to the current loop.
    ///
    /// Cancel safe: dropping the future ends the attempt.
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
        let mut pause = FIRST_PAUSE;
        let stream = loop {
            match mio::net::UnixStream::connect_addr(&address) {
                // The listener's queue is full. On Linux the attempt has failed then, and is not going on.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    sleep(pause).await;
                    pause = LONGEST_PAUSE.min(2 * pause);
                }
                result => break UnixStream::registered(result?)?,
            }
        };
        let established =
            |stream: &mio::net::UnixStream| established(stream.take_error(), || stream.peer_addr());
        stream.registered.until_connected(established).await?;
        Ok(stream)
    }

    /// Two streams that are connected with each other. Both belong to the current loop.
    ///
    /// # Errors
    ///
    /// What the system says (too many open files).
    pub fn pair() -> io::Result<(UnixStream, UnixStream)> {
        let (one, other) = mio::net::UnixStream::pair()?;
        Ok((UnixStream::registered(one)?, UnixStream::registered(other)?))
    }

    /// The first read or write of the stream is tried before anybody waits: a stream that is connected
    /// can be written to, and the other side has often sent something by now.
    fn registered(stream: mio::net::UnixStream) -> io::Result<UnixStream> {
        let ready = [Direction::Read, Direction::Write];
        Ok(UnixStream { registered: Registered::new(stream, &ready)? })
    }

    /// Takes over a connection that was made elsewhere, for the current loop.
    ///
    /// # Errors
    ///
    /// What the system says of making it non-blocking and of watching it.
    pub fn from_std(stream: net::UnixStream) -> io::Result<UnixStream> {
        stream.set_nonblocking(true)?;
        UnixStream::registered(mio::net::UnixStream::from_std(stream))
    }

    into_std!(net::UnixStream);
    reading!();
    writing!();
    readable!("something to read", try_read);
    writable!("room to write", try_write);
    system_calls!();

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

    halves!(UnixStream);
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
        // This fails if the other side has gone, and then there is nobody to tell.
        let _ = self.shutdown(Shutdown::Write);
    }
}

async_read!(UnixStream, &UnixStream);
async_write!(UnixStream, &UnixStream);
shows_fd!(UnixListener, UnixStream);
