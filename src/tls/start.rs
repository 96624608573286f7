//! `start_tls`: a stream that began in the clear goes on over TLS.

use std::io;
use std::time::Duration;

use futures::future::FusedFuture;

use super::client::TlsConnector;
use super::server::TlsAcceptor;
use super::shaking::within;
use super::stream::TlsStream;
use crate::ground::resumption;
use crate::iostream::{IoStream, Transport};

/// Going on over TLS (`STARTTLS`). Tornado: `start_tls`.
///
/// What was written before is sent first. What has arrived and was not read is taken for the beginning of
/// the handshake, as what comes later is: so whoever has put words of his own behind the `STARTTLS` line,
/// in the clear, makes the handshake fail, and cannot have them taken for what came over TLS. The
/// stream that this gives has nothing in it but what was sent over TLS.
///
/// The stream goes with its handshake: if that fails, it is closed, and does not go on in the clear. For
/// its other handles it is closed in any case, as with [`into_inner`](IoStream::into_inner). The limits
/// stay as they were.
impl<S: Transport> IoStream<S> {
    /// Goes on over TLS, as the client, with a server that has to be `host`. The time limit of `connector`
    /// covers what is unsent, too.
    ///
    /// # Errors
    ///
    /// As [`TlsConnector::connect`]; [`StreamError::NotIdle`](crate::StreamError::NotIdle) if a read is under
    /// way, and [`StreamError::Closed`](crate::StreamError::Closed) if the stream is closed, within the
    /// [`io::Error`].
    ///
    /// ```
    /// use waterspout::{IoLoop, iostream::IoStream, net::UnixStream, tls::{Roots, Tls, TlsConnector}};
    /// use waterspout::coroutine;
    ///
    /// # let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    /// # let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    /// # IoLoop::new()?.run_sync(|| async {
    /// let acceptor = Tls::from_pem(certificate.as_bytes(), key.as_bytes())?.acceptor()?;
    /// # let mut roots = Roots::empty();
    /// # roots.add_pem(certificate.as_bytes())?;
    /// let connector = TlsConnector::new(roots)?;
    /// let (client, server) = UnixStream::pair()?;
    ///
    /// let serving = coroutine::start(async move {
    ///     let stream = IoStream::new(server);
    ///     assert_eq!(stream.read_until("\r\n", 100).await?, b"STARTTLS\r\n");
    ///     stream.write("220 go ahead\r\n");
    ///     let stream = stream.start_tls_server(&acceptor).await?;
    ///     let secret = stream.read_until("\n", 100).await?;
    ///     Ok::<_, std::io::Error>(secret)
    /// });
    /// let stream = IoStream::new(client);
    /// stream.write("STARTTLS\r\n");
    /// stream.read_until("\r\n", 100).await?;
    /// let stream = stream.start_tls(&connector, "localhost").await?;
    /// stream.write("a secret\n").await?;
    /// assert_eq!(serving.await?, b"a secret\n");
    /// # Ok::<(), std::io::Error>(())
    /// # })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn start_tls(
        self,
        connector: &TlsConnector,
        host: &str,
    ) -> impl FusedFuture<Output = io::Result<IoStream<TlsStream<S>>>> + use<S> {
        let (connector, host) = (connector.clone(), host.to_owned());
        resumption::here(self.goes_on(connector.limit(), async move |received, stream| {
            connector.connect_behind(&host, received, stream).await
        }))
    }

    /// Goes on over TLS, as the server. The time limit of `acceptor` covers what is unsent, too.
    ///
    /// # Errors
    ///
    /// As [`TlsAcceptor::accept`]; otherwise as [`start_tls`](IoStream::start_tls).
    #[track_caller]
    pub fn start_tls_server(
        self,
        acceptor: &TlsAcceptor,
    ) -> impl FusedFuture<Output = io::Result<IoStream<TlsStream<S>>>> + use<S> {
        let acceptor = acceptor.clone();
        resumption::here(self.goes_on(acceptor.limit(), async move |received, stream| {
            acceptor.accept_behind(received, stream).await
        }))
    }

    async fn goes_on(
        self,
        limit: Duration,
        shake_hands: impl AsyncFnOnce(Vec<u8>, S) -> io::Result<TlsStream<S>>,
    ) -> io::Result<IoStream<TlsStream<S>>> {
        let options = self.options();
        let handshake = async {
            self.close_on_drop().all_sent().await;
            let (stream, received) = self.into_inner()?;
            shake_hands(received, stream).await
        };
        let stream = within(limit, handshake).await?;
        Ok(IoStream::with_options(stream, options))
    }
}
