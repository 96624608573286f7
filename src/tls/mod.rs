//! TLS over any stream: [`rustls`](https://docs.rs/rustls/0.23), with certificates, time limits and errors as
//! a server has them. Tornado: `SSLIOStream`, `ssl_options`, `start_tls`.
//!
//! [`Tls`] says what a server shows: a certificate and its key, in PEM files. It makes a [`TlsAcceptor`],
//! which makes a [`TlsStream`] of each connection; a [`TlsConnector`] does for clients. The stream is
//! an `AsyncRead` and `AsyncWrite`, and goes into an [`IoStream`](crate::iostream::IoStream) or wherever
//! else one is wanted.
//!
//! ```no_run
//! use waterspout::net::TcpServer;
//! use waterspout::tls::Tls;
//!
//! # async fn serve() -> std::io::Result<()> {
//! let tls = Tls::from_pem_files("cert.pem", "key.pem")?.acceptor()?;
//! let server = TcpServer::tls(tls, async |stream, _peer| {
//!     while let Ok(line) = stream.read_until(b"\n", 1024).await {
//!         stream.write(line).await?;
//!     }
//!     Ok::<(), std::io::Error>(())
//! });
//! server.listen(8443)?;
//! # Ok(())
//! # }
//! ```
//!
//! | for | see |
//! | --- | --- |
//! | a server whose connections are TLS | [`Server::tls`](crate::net::Server::tls) |
//! | a client that connects by name | [`TcpClient::connect_tls`](crate::net::TcpClient::connect_tls) |
//! | a protocol that begins in the clear (`STARTTLS`) | [`IoStream::start_tls`](crate::iostream::IoStream::start_tls), [`start_tls_server`](crate::iostream::IoStream::start_tls_server) |
//! | HTTP/2 beside HTTP/1 by ALPN | [`Tls::alpn`], [`TlsStream::alpn_protocol`] |
//! | certificates for several names (SNI) | [`Tls::add_pem_files`] |
//! | who the client is, by its certificate | [`Tls::require_client_certificates`], [`TlsStream::peer_certificates`] |
//! | new certificates without a restart | [`TlsAcceptor::reload`] |
//! | whom a client trusts | [`Roots`] |
//! | all else that rustls can do | [`TlsAcceptor::from_config`], [`TlsConnector::from_config`] |
//!
//! # The end of a stream
//!
//! TLS says that a side has sent all that it will: `close_notify`. Without it, whoever has the network in
//! hand could cut a stream short, and it would look whole.
//!
//! * Closing sends it: [`AsyncWrite::poll_close`](futures::io::AsyncWrite::poll_close), which ends the one
//!   direction, [`IoStream::close`](crate::iostream::IoStream::close), and dropping the stream. The last two
//!   do not wait, so they send it if the stream takes it at once.
//! * A read at the end gives no bytes if it has come. If the stream ended without it, a read gives an
//!   error of the kind `UnexpectedEof`, and so does each one after it. Of an `IoStream`, that is what closed
//!   it: [`StreamError::Closed`](crate::StreamError::Closed) with that error, also from
//!   [`read_until_close`](crate::iostream::IoStream::read_until_close). What has arrived before can be read.
//!   Some peers never send `close_notify`; of a protocol that says itself where a message ends, the
//!   error after a whole message means nothing.
//!
//! # Cryptography
//!
//! The feature `tls` brings [ring](https://docs.rs/ring), and `tls-aws-lc`
//! [aws-lc-rs](https://docs.rs/aws-lc-rs), with key exchange that withstands quantum computers; each does by
//! itself, and if both are there, the latter is used. What the process has chosen as rustls' default
//! does not matter. TLS is 1.3 or 1.2; there is no renegotiation in it.

mod certificates;
mod client;
mod provider;
mod received;
mod roots;
mod server;
mod shaking;
mod start;
mod stream;

/// The crate of that name, for what is not wrapped here.
pub use ::rustls;

pub use client::TlsConnector;
pub use roots::Roots;
pub use server::{Tls, TlsAcceptor};
pub use stream::TlsStream;
