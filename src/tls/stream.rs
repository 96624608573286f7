//! `TlsStream`: a stream over TLS, and how it ends.
//!
//! futures-rustls moves the bytes. What is added here is the end: whoever cuts a stream short is found out
//! each time, nothing is taken after the close, and a stream that is dropped says that it has ended.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use ::rustls::{CommonState, ProtocolVersion};
use futures::io::{AsyncRead, AsyncWrite};
use futures_rustls as session;

use super::received::Received;
use crate::ground::{foreign, resumption};

/// A stream over TLS, from either side; the [module](super) says how it ends.
///
/// From [`TlsAcceptor`](super::TlsAcceptor), [`TlsConnector`](super::TlsConnector),
/// [`Server::tls`](crate::net::Server::tls), [`TcpClient::connect_tls`](crate::net::TcpClient::connect_tls) and
/// [`IoStream::start_tls`](crate::iostream::IoStream::start_tls). Of a stream that an `IoStream` is over,
/// [`with_io`](crate::iostream::IoStream::with_io) shows it.
///
/// It is `Send` if what it is over is. What was written is sent for certain only after a flush (an
/// `IoStream` sees to that).
pub struct TlsStream<S: AsyncRead + AsyncWrite + Unpin> {
    /// In a box, for it is large, and streams are moved.
    session: Box<session::TlsStream<Received<S>>>,
    /// The other side ended without saying so.
    is_truncated: bool,
    /// This side has said that it has ended.
    is_closed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    pub(super) fn new(session: impl Into<session::TlsStream<Received<S>>>) -> TlsStream<S> {
        TlsStream { session: Box::new(session.into()), is_truncated: false, is_closed: false }
    }

    fn state(&self) -> &CommonState {
        self.session.get_ref().1
    }

    fn session(&mut self) -> Pin<&mut session::TlsStream<Received<S>>> {
        Pin::new(&mut self.session)
    }

    /// What it is over: for addresses and options. What is read or written there does harm.
    pub fn get_ref(&self) -> &S {
        self.session.get_ref().0.get_ref()
    }

    /// The protocol that both sides have agreed on by ALPN: `h2`, say. Tornado: `selected_alpn_protocol`
    /// of the `SSLSocket`.
    pub fn alpn_protocol(&self) -> Option<&[u8]> {
        self.state().alpn_protocol()
    }

    /// The name that the client has asked for (SNI), in small letters, on the server's side. A client
    /// that connects to an address asks for none, and on the client's side there is none.
    pub fn server_name(&self) -> Option<&str> {
        match &*self.session {
            session::TlsStream::Server(server) => server.get_ref().1.server_name(),
            session::TlsStream::Client(_) => None,
        }
    }

    /// The certificates that the other side has shown, in DER, its own first. They have been verified. A
    /// client shows some only if the server asks for them. Tornado: `getpeercert(True)`.
    pub fn peer_certificates(&self) -> impl Iterator<Item = &[u8]> {
        self.state().peer_certificates().into_iter().flatten().map(|certificate| &certificate[..])
    }

    /// `TLSv1.3` or `TLSv1.2`. Python: `SSLSocket.version`.
    pub fn version(&self) -> &'static str {
        match self.state().protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        }
    }
}

/// Cancel safe, as are the streams that it is over.
impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        // futures-rustls would take that for the end, and after having told of the missing end once, give a
        // clean one.
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if !self.is_truncated {
            match self.session().poll_read(cx, buf) {
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.is_truncated = true;
                }
                polled => return polled,
            }
        }
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the other side ended without close_notify: something may be missing",
        )))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        // rustls would drop it silently.
        if self.is_closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.session().poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.session().poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.session().poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_closed = true;
        self.session().poll_close(cx)
    }
}

/// Says that it has ended, if the stream takes that without waiting.
impl<S: AsyncRead + AsyncWrite + Unpin> Drop for TlsStream<S> {
    fn drop(&mut self) {
        let _budget = resumption::fresh();
        let mut cx = Context::from_waker(Waker::noop());
        foreign::call("what a stream is over", None, || {
            // Not a second time, and not after an alert that says more.
            self.session.get_mut().1.send_close_notify();
            let _sent = self.session().poll_flush(&mut cx);
        });
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> fmt::Debug for TlsStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let alpn = self.alpn_protocol().map(String::from_utf8_lossy);
        f.debug_struct("TlsStream")
            .field("version", &self.version())
            .field("alpn_protocol", &alpn)
            .field("server_name", &self.server_name())
            .finish_non_exhaustive()
    }
}
