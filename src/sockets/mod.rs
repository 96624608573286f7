//! Sockets, pipes and whatever else has a file descriptor.
//!
//! Under all of them is `source`, which has an fd and its registration, and does every operation. Users
//! find the types in [`net`](crate::net), whose text says what they have in common.

mod address;
mod async_fd;
mod bind;
mod copy;
mod lent;
mod methods;
#[cfg(feature = "peer_cred")]
mod peer_cred;
pub mod pipe;
mod resolver;
mod send;
mod source;
mod split;
mod stdin;
mod tcp;
mod udp;
mod unix;
mod unix_datagram;

pub use address::ToSocketAddrs;
pub use async_fd::AsyncFd;
pub use bind::{BindOptions, Family, bind_sockets, bind_unix_socket};
pub use copy::copy_bidirectional;
pub use lent::Lent;
#[cfg(feature = "peer_cred")]
pub use peer_cred::UCred;
pub(crate) use resolver::resolve_with;
pub use resolver::{CachingResolver, OverrideResolver, Resolver, ThreadedResolver, is_valid_ip};
pub use split::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, WriteHalf};
pub use stdin::{Stdin, stdin};
pub use tcp::{TcpListener, TcpStream};
pub use udp::UdpSocket;
pub use unix::{UnixListener, UnixStream};
pub use unix_datagram::UnixDatagram;
