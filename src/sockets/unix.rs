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

    fn taken_over(&self, stream: mio::net::UnixStream) -> io::Result<UnixStream> {
        UnixStream::ready(stream)
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
/// [`Rc`](std::rc::Rc) or the halves of [`split`](UnixStream::split). Two that read at once each
/// get some of the bytes. It implements the [`futures::io`] traits, also for `&UnixStream`. It moves
/// bytes: file descriptors that a peer sends along (`SCM_RIGHTS`) are closed by the system. Who the peer is
/// is told by `peer_cred`, which takes the feature of that name.
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
        // If the other side has gone, there is nobody to tell.
        let _ = self.shutdown(Shutdown::Write);
    }
}

async_read!(UnixStream, &UnixStream);
async_write!(UnixStream, &UnixStream);
shows_fd!(UnixListener, UnixStream);
