//! Sockets, pipes and other file descriptors on the loop.
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

mod address;
mod async_fd;
mod bind;
mod copy;
mod fd;
mod lent;
mod listener;
pub mod pipe;
mod resolver;
mod send;
mod server;
mod source;
mod split;
mod stdin;
mod tcp;
mod tcp_client;
mod udp;
mod unix;
mod unix_datagram;

pub use address::ToSocketAddrs;
pub use async_fd::AsyncFd;
pub use bind::{BindOptions, Family, bind_sockets, bind_unix_socket};
pub use copy::copy_bidirectional;
pub use lent::Lent;
pub use listener::Listener;
pub use resolver::{CachingResolver, OverrideResolver, Resolver, ThreadedResolver, is_valid_ip};
pub use server::{Server, TcpServer, UnixServer};
pub use split::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, WriteHalf};
pub use stdin::{Stdin, stdin};
pub use tcp::{TcpListener, TcpStream};
pub use tcp_client::TcpClient;
pub use udp::UdpSocket;
pub use unix::{UnixListener, UnixStream};
pub use unix_datagram::UnixDatagram;
