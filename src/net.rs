//! Sockets, pipes and other file descriptors on the loop; servers, clients and names.
//!
//! Every socket belongs to the loop that was current when the socket was made, and is used on that loop's
//! thread. A socket is plain data, and so `Send`: it can be part of a boxed `Send` trait object, and be moved
//! to any thread and dropped there. An operation on it fails, with an error that says so, while another loop
//! than the socket's is current.
//!
//! Byte streams implement the traits of [`futures::io`], and have methods of the same names that take
//! `&self`. An operation tries its system call first, and waits only if the call would block. A socket is
//! registered with the selector once, for its whole life.
//!
//! | for | there are |
//! | --- | --- |
//! | TCP | [`TcpListener`], [`TcpStream`] and its halves |
//! | Unix streams | [`UnixListener`], [`UnixStream`] and its halves |
//! | datagrams | [`UdpSocket`], [`UnixDatagram`] |
//! | pipes, also those of a child process | [`pipe`] |
//! | anything else with a file descriptor | [`AsyncFd`] |
//! | a system call that has no method here | a socket's `try_io` and `async_io` (as [`TcpStream::async_io`]) |

pub use crate::service::{Balancer, Listener, Server, TcpClient, TcpServer, UnixServer};
#[cfg(feature = "peer_cred")]
#[cfg_attr(docsrs, doc(cfg(feature = "peer_cred")))]
pub use crate::sockets::UCred;
pub use crate::sockets::{
    AsyncFd, BindOptions, CachingResolver, Family, Lent, OverrideResolver, OwnedReadHalf,
    OwnedWriteHalf, ReadHalf, Resolver, ReuniteError, Stdin, TcpListener, TcpStream,
    ThreadedResolver, ToSocketAddrs, UdpSocket, UnixDatagram, UnixListener, UnixStream, WriteHalf,
    bind_sockets, bind_unix_socket, copy_bidirectional, is_valid_ip, pipe, stdin,
};
