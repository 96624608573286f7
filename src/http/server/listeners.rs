//! Listeners of all kinds, as one server accepts from them.

use std::io;

#[cfg(feature = "_tls")]
use futures::future::LocalBoxFuture;

use super::wire::{Duplex, Socket};
use crate::http::request::Peer;
use crate::service::Listener;
use crate::sockets::{TcpListener, UnixListener};
#[cfg(feature = "_tls")]
use crate::tls::TlsAcceptor;

/// A connection that was accepted.
pub(super) struct Accepted {
    pub(super) socket: Socket,
    #[cfg(feature = "_tls")]
    pub(super) tls: Option<TlsAcceptor>,
}

/// What a handshake gives: the stream, and the certificates that the client has shown.
#[cfg(feature = "_tls")]
pub(super) type Shaken = (Socket, Box<[Vec<u8>]>);

/// Comes to the end of a handshake.
#[cfg(feature = "_tls")]
pub(super) fn over_tls(
    socket: Socket,
    acceptor: TlsAcceptor,
) -> LocalBoxFuture<'static, io::Result<Shaken>> {
    fn over(
        stream: impl Duplex + 'static,
        acceptor: TlsAcceptor,
    ) -> LocalBoxFuture<'static, io::Result<Shaken>> {
        Box::pin(async move {
            let stream = acceptor.accept(stream).await?;
            let shown = stream.peer_certificates().map(<[u8]>::to_vec).collect();
            Ok((Socket::Other(Box::new(stream)), shown))
        })
    }
    match socket {
        Socket::Tcp(stream) => over(stream, acceptor),
        Socket::Other(stream) => over(stream, acceptor),
    }
}

/// A listener, and what its connections speak.
pub(super) struct Listening<L> {
    pub(super) listener: L,
    #[cfg(feature = "_tls")]
    pub(super) tls: Option<TlsAcceptor>,
}

impl<L> Listening<L> {
    fn accepted(&self, socket: Socket) -> Accepted {
        Accepted {
            socket,
            #[cfg(feature = "_tls")]
            tls: self.tls.clone(),
        }
    }
}

impl Listener for Listening<TcpListener> {
    type Stream = Accepted;
    type Address = Peer;

    async fn accept(&self) -> io::Result<(Accepted, Peer)> {
        let (stream, peer) = self.listener.accept().await?;
        Ok((self.accepted(Socket::Tcp(stream)), Peer::Tcp(peer)))
    }

    fn local_address(&self) -> io::Result<Peer> {
        self.listener.local_addr().map(Peer::Tcp)
    }
}

impl Listener for Listening<UnixListener> {
    type Stream = Accepted;
    type Address = Peer;

    async fn accept(&self) -> io::Result<(Accepted, Peer)> {
        let (stream, _) = self.listener.accept().await?;
        Ok((self.accepted(Socket::Other(Box::new(stream))), Peer::Unix))
    }

    fn local_address(&self) -> io::Result<Peer> {
        let address = self.listener.local_addr()?;
        Ok(Peer::Other(format!("{address:?}")))
    }
}

/// A listener of any other kind.
pub(super) struct Foreign<L>(pub(super) L);

impl<L> Listener for Listening<Foreign<L>>
where
    L: Listener<Stream: Duplex>,
{
    type Stream = Accepted;
    type Address = Peer;

    async fn accept(&self) -> io::Result<(Accepted, Peer)> {
        let (stream, peer) = self.listener.0.accept().await?;
        let peer = Peer::Other(format!("{peer:?}"));
        Ok((self.accepted(Socket::Other(Box::new(stream))), peer))
    }

    fn local_address(&self) -> io::Result<Peer> {
        self.listener.0.local_address().map(|address| Peer::Other(format!("{address:?}")))
    }
}
