//! Servers, and a client that connects by name: both give streams to the user's protocol.
//!
//! Users find them in [`net`](crate::net), beside the sockets.

mod balancer;
mod listener;
mod server;
mod tcp_client;
#[cfg(feature = "_tls")]
mod tls;

pub use balancer::Balancer;
pub use listener::Listener;
#[cfg(feature = "server")]
pub(crate) use server::Made;
pub use server::{Server, TcpServer, UnixServer};
pub use tcp_client::TcpClient;
