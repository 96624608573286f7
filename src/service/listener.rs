//! What a server accepts from.

use std::fmt;
use std::io;
use std::net;
use std::os::unix::net as unix;

use futures::future::FusedFuture;

use crate::sockets::{TcpListener, TcpStream, UnixListener, UnixStream};

/// What a [`Server`](super::Server) accepts connections from: a listener of this crate, one of another crate,
/// or something that is not a socket at all.
///
/// ```
/// use std::{cell::RefCell, io, rc::Rc, time::Duration};
/// use waterspout::{IoLoop, iostream::IoStream, net::{Listener, Server}, queues::Queue};
/// use waterspout::testing::{Memory, duplex};
///
/// /// Connections within the process: for a test, say.
/// struct Local(Queue<Memory>);
///
/// impl Listener for Local {
///     type Stream = Memory;
///     type Address = &'static str;
///
///     async fn accept(&self) -> io::Result<(Memory, &'static str)> {
///         let stream = self.0.get().await.map_err(io::Error::other)?;
///         Ok((stream, "a test"))
///     }
///
///     fn local_address(&self) -> io::Result<&'static str> {
///         Ok("memory")
///     }
/// }
///
/// # IoLoop::new()?.run_sync(|| async {
/// let server = Server::new(async |stream, _peer| stream.write("hello\n").await);
/// let connections = Queue::new(0);
/// server.add_listener(Local(connections.clone()));
///
/// let (client, connection) = duplex(1024);
/// connections.put(connection).await?;
/// assert_eq!(IoStream::new(client).read_until(b"\n", 64).await?, b"hello\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Listener: 'static {
    /// A connection.
    type Stream: 'static;
    /// The address of the other side of a connection.
    type Address: Clone + fmt::Debug + 'static;

    /// Waits for a connection, and takes it.
    ///
    /// An implementation may be an `async fn`. The listeners of this crate return a [`FusedFuture`].
    ///
    /// A server that has a limit of connections polls this future only while there is room for one more.
    ///
    /// # Errors
    ///
    /// Errors of these kinds are about one connection only, and the server accepts the next one at once:
    /// `ConnectionAborted`, `ConnectionRefused`, `ConnectionReset`, `PermissionDenied`, `HostUnreachable`,
    /// `NetworkUnreachable` and `NetworkDown`. After any other error (too many open files, say) the server
    /// pauses, writes a warning to the log, and then goes on.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Self::Address)>>;

    /// The address that it listens on. The server puts it into the log.
    ///
    /// # Errors
    ///
    /// If the address is not known.
    fn local_address(&self) -> io::Result<Self::Address>;
}

impl Listener for TcpListener {
    type Stream = TcpStream;
    type Address = net::SocketAddr;

    #[expect(refining_impl_trait, reason = "`select!` takes it as it is")]
    #[track_caller]
    fn accept(&self) -> impl FusedFuture<Output = io::Result<(TcpStream, net::SocketAddr)>> {
        self.accept()
    }

    fn local_address(&self) -> io::Result<net::SocketAddr> {
        self.local_addr()
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;
    type Address = unix::SocketAddr;

    #[expect(refining_impl_trait, reason = "`select!` takes it as it is")]
    #[track_caller]
    fn accept(&self) -> impl FusedFuture<Output = io::Result<(UnixStream, unix::SocketAddr)>> {
        self.accept()
    }

    fn local_address(&self) -> io::Result<unix::SocketAddr> {
        self.local_addr()
    }
}
