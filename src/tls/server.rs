//! `Tls` and `TlsAcceptor`: what a server shows, and its side of the handshake.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::rustls::ServerConfig;
use ::rustls::server::danger::ClientCertVerifier;
use ::rustls::server::{NoClientAuth, WebPkiClientVerifier};
use futures::future::FusedFuture;
use futures::io::{AsyncRead, AsyncWrite};
use futures_rustls as session;

use super::certificates::{Identities, Identity, Shown};
use super::provider::provider;
use super::received::Received;
use super::roots::Roots;
use super::shaking::{self, within};
use super::stream::TlsStream;
use crate::ground::resumption;

/// What a server shows, and whom it lets in: it makes a [`TlsAcceptor`]. Tornado: `ssl_options`.
///
/// ```
/// use waterspout::tls::Tls;
///
/// # let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
/// # let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
/// let tls = Tls::from_pem(certificate.as_bytes(), key.as_bytes())?;
/// let acceptor = tls.alpn(["h2", "http/1.1"]).acceptor()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Tls {
    identities: Identities,
    alpn: Vec<Vec<u8>>,
    clients: Clients,
    limit: Duration,
}

/// Whether clients have to say who they are, and who vouches for them.
#[derive(Clone)]
enum Clients {
    Unasked,
    Asked(Roots),
    Known(Roots),
}

impl Tls {
    /// A chain of certificates, the server's own first, and its key, in files of PEM. They are read now, and
    /// again by [`TlsAcceptor::reload`]. Python: `load_cert_chain`.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, has nothing of the kind in it, or if the key is not that of the certificate.
    /// The message says which file.
    pub fn from_pem_files(
        certificates: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> io::Result<Tls> {
        Identity::from_files(certificates.as_ref(), key.as_ref(), &provider()).map(Tls::of)
    }

    /// A chain of certificates, the server's own first, and its key, as texts of PEM.
    ///
    /// # Errors
    ///
    /// As [`from_pem_files`](Tls::from_pem_files).
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> io::Result<Tls> {
        Identity::from_pem(certificates, key, &provider()).map(Tls::of)
    }

    fn of(identity: Identity) -> Tls {
        Tls {
            identities: Identities::new(identity),
            alpn: Vec::new(),
            clients: Clients::Unasked,
            limit: shaking::LIMIT,
        }
    }

    /// Another certificate, for clients that ask for `name` (SNI). `*.example.org` is for each name one
    /// level below `example.org` that has none of its own. Whoever asks for another name, or for none, is
    /// shown the first certificate.
    ///
    /// # Errors
    ///
    /// As [`from_pem_files`](Tls::from_pem_files).
    pub fn add_pem_files(
        mut self,
        name: &str,
        certificates: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> io::Result<Tls> {
        let identity = Identity::from_files(certificates.as_ref(), key.as_ref(), &provider())?;
        self.identities.add(name, identity);
        Ok(self)
    }

    /// [`add_pem_files`](Tls::add_pem_files) from texts of PEM.
    ///
    /// # Errors
    ///
    /// As [`from_pem_files`](Tls::from_pem_files).
    pub fn add_pem(mut self, name: &str, certificates: &[u8], key: &[u8]) -> io::Result<Tls> {
        self.identities.add(name, Identity::from_pem(certificates, key, &provider())?);
        Ok(self)
    }

    /// The protocols that are spoken, the best first; [`TlsStream::alpn_protocol`] tells which it is. A
    /// client that speaks only others is turned away; one that names none is let in. Python:
    /// `set_alpn_protocols`.
    #[must_use]
    pub fn alpn(mut self, protocols: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Tls {
        self.alpn = protocols.into_iter().map(Into::into).collect();
        self
    }

    /// Lets in only clients that show a certificate for which one of `roots` vouches. Python:
    /// `verify_mode = CERT_REQUIRED`.
    ///
    /// A client of TLS 1.3 has finished its handshake before the server looks: it is told by its first
    /// read that it was turned away.
    #[must_use]
    pub fn require_client_certificates(mut self, roots: Roots) -> Tls {
        self.clients = Clients::Known(roots);
        self
    }

    /// Asks clients for a certificate, and lets in those that have none, too;
    /// [`TlsStream::peer_certificates`] tells. One that nobody vouches for is not let in. Python:
    /// `verify_mode = CERT_OPTIONAL`.
    #[must_use]
    pub fn request_client_certificates(mut self, roots: Roots) -> Tls {
        self.clients = Clients::Asked(roots);
        self
    }

    /// How long a handshake may take: 10 seconds unless told.
    #[must_use]
    pub fn handshake_timeout(mut self, limit: Duration) -> Tls {
        self.limit = limit;
        self
    }

    /// What accepts.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if clients are asked for certificates, and there is no root to vouch for them.
    pub fn acceptor(self) -> io::Result<TlsAcceptor> {
        let invalid = |error: &dyn fmt::Display| {
            io::Error::new(io::ErrorKind::InvalidInput, error.to_string())
        };
        let provider = provider();
        let vouched = |roots: Roots| {
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots.0), provider.clone())
        };
        let clients: Arc<dyn ClientCertVerifier> = match self.clients {
            Clients::Unasked => Arc::new(NoClientAuth),
            Clients::Asked(roots) => {
                vouched(roots).allow_unauthenticated().build().map_err(|error| invalid(&error))?
            }
            Clients::Known(roots) => vouched(roots).build().map_err(|error| invalid(&error))?,
        };
        let shown = Arc::new(Shown::new(self.identities));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| invalid(&error))?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(shown.clone());
        config.alpn_protocols = self.alpn;
        Ok(TlsAcceptor { config: Arc::new(config), shown: Some(shown), limit: self.limit })
    }
}

/// The names that have a certificate of their own; no key is shown.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("names", &self.identities)
            .field("handshake_timeout", &self.limit)
            .finish_non_exhaustive()
    }
}

/// The server's side of handshakes. From [`Tls::acceptor`].
///
/// A clone is the same one, on other threads, too: servers on all cores share it, and one
/// [`reload`](TlsAcceptor::reload) is for all of them.
#[derive(Clone)]
pub struct TlsAcceptor {
    config: Arc<ServerConfig>,
    shown: Option<Arc<Shown>>,
    limit: Duration,
}

impl TlsAcceptor {
    /// An acceptor by a configuration of your own, with a time limit of 10 seconds. Make that with
    /// `ServerConfig::builder_with_provider`, for the process may have no default.
    pub fn from_config(config: Arc<ServerConfig>) -> TlsAcceptor {
        TlsAcceptor { config, shown: None, limit: shaking::LIMIT }
    }

    /// How long a handshake may take: 10 seconds unless told.
    #[must_use]
    pub fn handshake_timeout(mut self, limit: Duration) -> TlsAcceptor {
        self.limit = limit;
        self
    }

    /// Offers these protocols by ALPN, if none are offered.
    #[cfg(feature = "server")]
    pub(crate) fn or_speaking(mut self, protocols: &[&[u8]]) -> TlsAcceptor {
        if self.config.alpn_protocols.is_empty() {
            let mut config = ServerConfig::clone(&self.config);
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            self.config = Arc::new(config);
        }
        self
    }

    /// Reads the files of all certificates and keys again: for a `SIGHUP`, or when they have been renewed.
    /// Handshakes from now on show what is read; connections that stand, and clients that come back to their
    /// session, are not disturbed. What was not given as files stays as it is. It reads on this thread.
    ///
    /// # Errors
    ///
    /// As [`Tls::from_pem_files`], of the first that cannot be had; what was shown is shown on then, all of
    /// it.
    ///
    /// ```no_run
    /// # #[cfg(feature = "signal")]
    /// # fn reloads(acceptor: waterspout::tls::TlsAcceptor) -> std::io::Result<()> {
    /// use waterspout::signal::{self, Signal};
    ///
    /// let _handler = signal::on(Signal::HANGUP, move || {
    ///     if let Err(error) = acceptor.reload() {
    ///         eprintln!("the old certificates stay: {error}");
    ///     }
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn reload(&self) -> io::Result<()> {
        match &self.shown {
            Some(shown) => shown.reload(&provider()),
            None => Ok(()),
        }
    }

    /// Comes to the end of a handshake on `stream`, or of its time. Dropping it drops the stream.
    ///
    /// # Errors
    ///
    /// `TimedOut` after the time limit; `InvalidData` if the other side does not speak TLS or the two do not
    /// agree, with rustls' error in it, after the other side was told by an alert; `UnexpectedEof` if it
    /// ends; and what the stream gives. Nobody need be told but a log: whoever can connect can cause it.
    ///
    /// ```
    /// use waterspout::{IoLoop, iostream::IoStream, testing::duplex, tls::{Tls, TlsConnector, Roots}};
    ///
    /// # let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    /// # let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    /// # IoLoop::new()?.run_sync(|| async {
    /// let acceptor = Tls::from_pem(certificate.as_bytes(), key.as_bytes())?.acceptor()?;
    /// let mut roots = Roots::empty();
    /// roots.add_pem(certificate.as_bytes())?;
    /// let connector = TlsConnector::new(roots)?;
    ///
    /// let (one, other) = duplex(4096);
    /// let accepting = waterspout::coroutine::start(acceptor.accept(one));
    /// let client = IoStream::new(connector.connect("localhost", other).await?);
    /// let server = accepting.await?;
    /// assert_eq!(server.server_name(), Some("localhost"));
    ///
    /// client.write("hello\n").await?;
    /// assert_eq!(IoStream::new(server).read_until("\n", 100).await?, b"hello\n");
    /// # Ok::<(), std::io::Error>(())
    /// # })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn accept<S>(
        &self,
        stream: S,
    ) -> impl FusedFuture<Output = io::Result<TlsStream<S>>> + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        resumption::here(within(self.limit, self.accept_behind(Vec::new(), stream)))
    }

    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// A handshake without a time limit on a stream from which `received` has been read already.
    pub(super) fn accept_behind<S>(
        &self,
        received: Vec<u8>,
        stream: S,
    ) -> impl Future<Output = io::Result<TlsStream<S>>> + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = session::TlsAcceptor::from(self.config.clone());
        let accepting = acceptor.accept(Received::new(received, stream));
        async move { accepting.await.map(TlsStream::new) }
    }
}

impl fmt::Debug for TlsAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsAcceptor")
            .field("names", &self.shown)
            .field("handshake_timeout", &self.limit)
            .finish_non_exhaustive()
    }
}
