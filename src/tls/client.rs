//! `TlsConnector`: the client's side of the handshake.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::rustls::ClientConfig;
use ::rustls::pki_types::ServerName;
use ::rustls::sign::SingleCertAndKey;
use futures::future::FusedFuture;
use futures::io::{AsyncRead, AsyncWrite};
use futures_rustls as session;

use super::certificates::Identity;
use super::provider::provider;
use super::received::Received;
use super::roots::Roots;
use super::shaking::{self, within};
use super::stream::TlsStream;
use crate::ground::resumption;

/// The client's side of handshakes: whom it trusts, and what it speaks. A server has to show a certificate
/// for the name that it is connected to by, for which one of the roots vouches.
///
/// A clone is the same one, on other threads, too. Keep one: it comes back to the sessions that it had, which
/// saves most of a handshake.
///
/// ```no_run
/// use waterspout::net::TcpClient;
/// use waterspout::tls::{Roots, TlsConnector};
///
/// # #[cfg(feature = "tls-native-roots")]
/// # async fn connect() -> std::io::Result<()> {
/// let connector = TlsConnector::new(Roots::native()?)?.alpn(["http/1.1"]);
/// let stream = TcpClient::new().connect_tls(&connector, "www.rust-lang.org", 443).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TlsConnector {
    config: Arc<ClientConfig>,
    limit: Duration,
}

impl TlsConnector {
    /// A connector that believes `roots`. Python: `ssl.create_default_context`.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if that is nobody.
    pub fn new(roots: Roots) -> io::Result<TlsConnector> {
        if roots.is_empty() {
            let message = "there are no roots, so no server could prove who it is";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?
            .with_root_certificates(roots.0)
            .with_no_client_auth();
        Ok(TlsConnector::from_config(Arc::new(config)))
    }

    /// A connector by a configuration of your own, with a time limit of 10 seconds. Make that with
    /// `ClientConfig::builder_with_provider`, for the process may have no default.
    pub fn from_config(config: Arc<ClientConfig>) -> TlsConnector {
        TlsConnector { config, limit: shaking::LIMIT }
    }

    /// The protocols that are spoken, the best first; [`TlsStream::alpn_protocol`] tells which one the
    /// server has chosen. Python: `set_alpn_protocols`.
    #[must_use]
    pub fn alpn(mut self, protocols: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> TlsConnector {
        let config = Arc::make_mut(&mut self.config);
        config.alpn_protocols = protocols.into_iter().map(Into::into).collect();
        self
    }

    /// This one if it says by [`alpn`](TlsConnector::alpn) what is spoken; if not, one that speaks `protocols`.
    #[cfg(feature = "client")]
    pub(crate) fn or_alpn(self, protocols: impl IntoIterator<Item = &'static str>) -> TlsConnector {
        if self.config.alpn_protocols.is_empty() { self.alpn(protocols) } else { self }
    }

    /// What to show to a server that asks who the client is: a chain of certificates, the client's own first,
    /// and its key, in files of PEM. Python: `load_cert_chain`.
    ///
    /// # Errors
    ///
    /// As [`Tls::from_pem_files`](super::Tls::from_pem_files).
    pub fn client_certificate_pem_files(
        self,
        certificates: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> io::Result<TlsConnector> {
        let identity = Identity::from_files(certificates.as_ref(), key.as_ref(), &provider())?;
        Ok(self.shows(&identity))
    }

    /// [`client_certificate_pem_files`](TlsConnector::client_certificate_pem_files) from texts of PEM.
    ///
    /// # Errors
    ///
    /// As [`Tls::from_pem_files`](super::Tls::from_pem_files).
    pub fn client_certificate_pem(
        self,
        certificates: &[u8],
        key: &[u8],
    ) -> io::Result<TlsConnector> {
        Ok(self.shows(&Identity::from_pem(certificates, key, &provider())?))
    }

    fn shows(mut self, identity: &Identity) -> TlsConnector {
        let config = Arc::make_mut(&mut self.config);
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(identity.key()));
        // Sessions in which nobody was shown, or another.
        config.resumption = ::rustls::client::Resumption::default();
        self
    }

    /// How long a handshake may take: 10 seconds unless told.
    #[must_use]
    pub fn handshake_timeout(mut self, limit: Duration) -> TlsConnector {
        self.limit = limit;
        self
    }

    /// Comes to the end of a handshake on `stream`, whose other side has to be `host`: a name, which is
    /// told to the server (SNI), or a numeric address, which is not. Dropping it drops the stream.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if `host` is neither; `TimedOut` after the time limit; `InvalidData` if the
    /// other side does not speak TLS, cannot prove to be `host`, or turns the client away, with rustls' error
    /// in it; `UnexpectedEof` if it ends; and what the stream gives.
    #[track_caller]
    pub fn connect<S>(
        &self,
        host: &str,
        stream: S,
    ) -> impl FusedFuture<Output = io::Result<TlsStream<S>>> + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        resumption::here(within(self.limit, self.connect_behind(host, Vec::new(), stream)))
    }

    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// A handshake without a time limit on a stream from which `received` has been read already.
    pub(super) fn connect_behind<S>(
        &self,
        host: &str,
        received: Vec<u8>,
        stream: S,
    ) -> impl Future<Output = io::Result<TlsStream<S>>> + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            let message = format!("{host:?} is neither the name of a host nor an address");
            io::Error::new(io::ErrorKind::InvalidInput, message)
        });
        let connector = session::TlsConnector::from(self.config.clone());
        let stream = Received::new(received, stream);
        async move { connector.connect(name?, stream).await.map(TlsStream::new) }
    }
}

impl fmt::Debug for TlsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConnector")
            .field("handshake_timeout", &self.limit)
            .finish_non_exhaustive()
    }
}
