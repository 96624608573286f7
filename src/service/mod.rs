//! Servers and clients: what stands on streams, and gives them to the user's protocol.
//!
//! Users find these in [`net`](crate::net), beside the sockets.

mod listener;
mod server;
mod tcp_client;

pub use listener::Listener;
pub use server::{Server, TcpServer, UnixServer};
pub use tcp_client::TcpClient;
