//! What a server accepts from.

use std::fmt;
use std::io;
use std::net;
use std::os::unix::net as unix;

use futures::future::FusedFuture;

use crate::sockets::{TcpListener, TcpStream, UnixListener, UnixStream};

/// Somewhere connections come from, for a [`Server`](super::Server): the listeners of this crate, one of
/// another crate, or none that is a socket at all.
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
    /// Who is at its other side.
    type Address: Clone + fmt::Debug + 'static;

    /// Waits for a connection, and takes it.
    ///
    /// An implementation may be an `async fn`. Those of this crate give a [`FusedFuture`].
    ///
    /// Where the server has a limit of connections, this is polled only while there is room for one.
    ///
    /// # Errors
    ///
    /// `ConnectionAborted`, `ConnectionRefused`, `ConnectionReset`, `PermissionDenied` and what says that a
    /// network or a host cannot be reached are taken for the trouble of one connection: the server goes on.
    /// After any other error, too many open files say, it goes on after a pause, and says so in the log.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Self::Address)>>;

    /// Where it listens, for people.
    ///
    /// # Errors
    ///
    /// If that is not known.
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
