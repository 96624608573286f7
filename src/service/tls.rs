//! Servers and clients over TLS.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::panic::Location;
use std::pin::pin;
use std::rc::Rc;

use futures::future::FusedFuture;

use super::server::{Made, Server, shake_hands};
use super::tcp_client::TcpClient;
use crate::coroutine::{Outcome, name_of};
use crate::ground::resumption;
use crate::iostream::{IoStream, Transport};
use crate::sockets::{Resolver, TcpStream};
use crate::tls::{TlsAcceptor, TlsConnector, TlsStream};

impl<S: Transport, A: Clone + fmt::Debug + 'static> Server<S, A> {
    /// A server that calls `handle_stream` for each connection when its TLS handshake is done. It listens
    /// nowhere yet. Tornado: `TCPServer(ssl_options=...)`.
    ///
    /// All else is as with [`new`](Server::new); also, a client that ends without `close_notify` counts as
    /// one that hung up. The handshake has the time limit of `acceptor`. Neither accepting nor another
    /// handshake waits for a handshake, and one that fails is no exception: it is a line of the log at the
    /// level `info`.
    ///
    /// Who wants the [`TlsStream`] itself, for hyper say, does the handshake with
    /// [`wrapping`](Server::wrapping):
    ///
    /// ```
    /// use std::time::Duration;
    /// use futures::AsyncWriteExt as _;
    /// use waterspout::{IoLoop, iostream::IoStream, net::{TcpClient, TcpServer}};
    /// use waterspout::tls::{Roots, Tls, TlsConnector};
    ///
    /// # let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    /// # let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    /// # IoLoop::new()?.run_sync(|| async {
    /// let tls = Tls::from_pem(certificate.as_bytes(), key.as_bytes())?.acceptor()?;
    /// let acceptor = tls.clone();
    /// let server = TcpServer::tls(tls, async |stream, _peer| stream.write("hello\n").await);
    /// let port = server.listen_on("127.0.0.1", 0)?;
    ///
    /// let limit = Duration::from_secs(10);
    /// let handshake = async move |stream, _peer| acceptor.accept(stream).await;
    /// let bare = TcpServer::wrapping(limit, handshake, async |mut stream| {
    ///     stream.write_all(b"hello\n").await?;
    ///     stream.close().await
    /// });
    /// let bare_port = bare.listen_on("127.0.0.1", 0)?;
    ///
    /// # let mut roots = Roots::empty();
    /// # roots.add_pem(certificate.as_bytes())?;
    /// let connector = TlsConnector::new(roots)?;
    /// let client = TcpClient::new().timeout(limit);
    /// for port in [port, bare_port] {
    ///     let stream = client.connect_tls(&connector, "localhost", port).await?;
    ///     assert_eq!(IoStream::new(stream).read_until_close().await?, b"hello\n");
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn tls<H, R>(acceptor: TlsAcceptor, handle_stream: H) -> Server<S, A>
    where
        H: AsyncFn(IoStream<TlsStream<S>>, A) -> R + 'static,
        R: Outcome + 'static,
    {
        let made = Made { name: name_of::<H>, place: Location::caller() };
        let both = Rc::new((acceptor, handle_stream));
        Server::of(made, move |stream, peer: A, options| {
            let both = both.clone();
            Box::pin(async move {
                let from = peer.clone();
                let closing = Cell::new(None);
                let handling = pin!(async {
                    let (acceptor, handle_stream) = &*both;
                    let accepting =
                        async { acceptor.accept(stream).await.map_err(|error| error.to_string()) };
                    let stream = shake_hands(&from, accepting).await?;
                    let stream = IoStream::with_options(stream, options);
                    closing.set(Some(stream.close_on_drop()));
                    Some(handle_stream(stream, peer).await)
                });
                made.report(&from, handling).await;
                if let Some(closing) = closing.take() {
                    closing.all_sent().await;
                }
            })
        })
    }
}

impl<R: Resolver> TcpClient<R> {
    /// [`connect`](TcpClient::connect), and then the TLS handshake with a server that has to be `host`. The
    /// time limit of this client covers both; the handshake has that of `connector`, too.
    ///
    /// Cancel safe: dropping the future closes all sockets. So does the time limit.
    ///
    /// # Errors
    ///
    /// As [`connect`](TcpClient::connect) and [`TlsConnector::connect`].
    #[track_caller]
    pub fn connect_tls(
        &self,
        connector: &TlsConnector,
        host: &str,
        port: u16,
    ) -> impl FusedFuture<Output = io::Result<TlsStream<TcpStream>>> {
        let connecting = async move {
            let stream = self.first_of(host, port).await?;
            connector.connect(host, stream).await
        };
        resumption::here(self.in_time(host, port, connecting))
    }
}
