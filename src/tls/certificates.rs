//! Certificates and their keys: read from PEM, chosen by the name that a client asks for, and read again.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use ::rustls::crypto::CryptoProvider;
use ::rustls::pki_types::pem::PemObject as _;
use ::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use ::rustls::server::{ClientHello, ResolvesServerCert};
use ::rustls::sign::CertifiedKey;

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// Says in which file it went wrong.
pub(super) fn in_file(path: &Path) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The certificates in a text of PEM: one at least.
pub(super) fn read_certificates(pem: &[u8]) -> io::Result<Vec<CertificateDer<'static>>> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.map_err(|error| invalid(error.to_string()))?;
    if certificates.is_empty() {
        return Err(invalid("there is no certificate in it"));
    }
    Ok(certificates)
}

fn read_key(pem: &[u8]) -> io::Result<PrivateKeyDer<'static>> {
    // Its error says nothing of the key.
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|error| invalid(format!("there is no private key in it: {error}")))
}

/// A chain of certificates and the key of the first, and where they can be read again.
#[derive(Clone)]
pub(super) struct Identity {
    key: Arc<CertifiedKey>,
    files: Option<(PathBuf, PathBuf)>,
}

impl Identity {
    pub(super) fn from_pem(
        certificates: &[u8],
        key: &[u8],
        provider: &CryptoProvider,
    ) -> io::Result<Identity> {
        Identity::new(read_certificates(certificates)?, read_key(key)?, provider)
    }

    pub(super) fn from_files(
        certificates: &Path,
        key: &Path,
        provider: &CryptoProvider,
    ) -> io::Result<Identity> {
        let chain = fs::read(certificates).and_then(|pem| read_certificates(&pem));
        let chain = chain.map_err(in_file(certificates))?;
        let private = fs::read(key).and_then(|pem| read_key(&pem)).map_err(in_file(key))?;
        let identity = Identity::new(chain, private, provider).map_err(in_file(certificates))?;
        Ok(Identity { files: Some((certificates.into(), key.into())), ..identity })
    }

    /// It fails if the key is not that of the first certificate.
    fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        provider: &CryptoProvider,
    ) -> io::Result<Identity> {
        let key = CertifiedKey::from_der(chain, key, provider);
        let key = key.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Identity { key: Arc::new(key), files: None })
    }

    pub(super) fn key(&self) -> Arc<CertifiedKey> {
        self.key.clone()
    }

    /// As it is now in its files; as it was if it has none.
    fn again(&self, provider: &CryptoProvider) -> io::Result<Identity> {
        match &self.files {
            Some((certificates, key)) => Identity::from_files(certificates, key, provider),
            None => Ok(self.clone()),
        }
    }
}

/// What a server shows to whom.
#[derive(Clone)]
pub(super) struct Identities {
    /// To whoever asks for no name, or for one that is not in the list.
    otherwise: Identity,
    by_name: HashMap<String, Identity>,
}

impl Identities {
    pub(super) fn new(otherwise: Identity) -> Identities {
        Identities { otherwise, by_name: HashMap::new() }
    }

    pub(super) fn add(&mut self, name: &str, identity: Identity) {
        self.by_name.insert(name.to_ascii_lowercase(), identity);
    }

    fn of(&self, name: Option<&str>) -> &Identity {
        let named = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            self.by_name.get(&name).or_else(|| {
                let (_, domain) = name.split_once('.')?;
                self.by_name.get(&format!("*.{domain}"))
            })
        });
        named.unwrap_or(&self.otherwise)
    }

    /// All of them as they are now in their files, or an error.
    fn again(&self, provider: &CryptoProvider) -> io::Result<Identities> {
        let again =
            |(name, identity): (&String, &Identity)| Ok((name.clone(), identity.again(provider)?));
        Ok(Identities {
            otherwise: self.otherwise.again(provider)?,
            by_name: self.by_name.iter().map(again).collect::<io::Result<_>>()?,
        })
    }
}

/// What a server shows, on all threads; it may become another while connections come in.
pub(super) struct Shown(RwLock<Arc<Identities>>);

impl Shown {
    pub(super) fn new(identities: Identities) -> Shown {
        Shown(RwLock::new(Arc::new(identities)))
    }

    fn now(&self) -> Arc<Identities> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All or nothing: after an error, what was shown is shown on.
    pub(super) fn reload(&self, provider: &CryptoProvider) -> io::Result<()> {
        // Read before the lock is taken: handshakes go on meanwhile.
        let identities = Arc::new(self.now().again(provider)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = identities;
        Ok(())
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.now().of(client.server_name()).key())
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.now().fmt(f)
    }
}

/// The names only: no key is shown to anybody.
impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_name.keys()).finish()
    }
}
