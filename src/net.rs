//! Sockets, pipes and other file descriptors on the loop; servers, clients and names.
//!
//! Every socket belongs to the loop that was current when it was made, and is used on that loop's
//! thread. It is plain data, and so `Send`: it can be inside boxed `Send` trait objects, travel and
//! be dropped anywhere; polled elsewhere it answers with an error that says so.
//!
//! All implement the traits of [`futures::io`] where they are byte streams, and have inherent
//! methods of the same names, which take `&self`. A system call is tried before waiting; a socket
//! is registered once, for its whole life.
//!
//! TCP and Unix streams have listeners, streams and halves; UDP and Unix datagrams one socket each;
//! [`pipe`] has the two ends of a pipe and takes those of a child process. For everything else that
//! has a file descriptor there is [`AsyncFd`]. System calls that have no method are done by `try_io` and
//! `async_io` of a socket ([`TcpStream::async_io`], say).

pub use crate::service::{Listener, Server, TcpClient, TcpServer, UnixServer};
#[cfg(feature = "peer_cred")]
#[cfg_attr(docsrs, doc(cfg(feature = "peer_cred")))]
pub use crate::sockets::UCred;
pub use crate::sockets::{
    AsyncFd, BindOptions, CachingResolver, Family, Lent, OverrideResolver, OwnedReadHalf,
    OwnedWriteHalf, ReadHalf, Resolver, ReuniteError, Stdin, TcpListener, TcpStream,
    ThreadedResolver, ToSocketAddrs, UdpSocket, UnixDatagram, UnixListener, UnixStream, WriteHalf,
    bind_sockets, bind_unix_socket, copy_bidirectional, is_valid_ip, pipe, stdin,
};
