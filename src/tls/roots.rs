//! Whom one trusts to say who somebody is.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use ::rustls::RootCertStore;

use super::certificates::{in_file, read_certificates};

/// Certificates whose word is taken for who a server is, or a client.
///
/// ```
/// use waterspout::tls::Roots;
///
/// # #[cfg(feature = "tls-webpki-roots")]
/// # {
/// let public = Roots::webpki();
/// assert!(public.len() > 50);
/// # }
/// # let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
/// # let pem = made.cert.pem();
/// let mut own = Roots::empty();
/// own.add_pem(pem.as_bytes())?;
/// assert_eq!(own.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Roots(pub(super) RootCertStore);

impl Roots {
    /// Nobody yet.
    pub fn empty() -> Roots {
        Roots(RootCertStore::empty())
    }

    /// Those that the system trusts, or that `SSL_CERT_FILE` and `SSL_CERT_DIR` name. It reads files, some
    /// hundred of them maybe: do it once. Python: `ssl.create_default_context`.
    ///
    /// # Errors
    ///
    /// If none can be found.
    #[cfg(feature = "tls-native-roots")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls-native-roots")))]
    pub fn native() -> io::Result<Roots> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = Roots::empty();
        // Systems have some that nobody can read.
        roots.0.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let errors: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
            let message = format!("the system has no root certificates: {}", errors.join(", "));
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        }
        Ok(roots)
    }

    /// Those that Mozilla trusts, compiled in: the same on each machine, and as old as the program.
    #[cfg(feature = "tls-webpki-roots")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls-webpki-roots")))]
    pub fn webpki() -> Roots {
        Roots(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect())
    }

    /// Those in a file of PEM. Python: `load_verify_locations`.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or as [`add_pem`](Roots::add_pem).
    pub fn from_pem_file(path: impl AsRef<Path>) -> io::Result<Roots> {
        let mut roots = Roots::empty();
        let path = path.as_ref();
        let read = fs::read(path).and_then(|pem| roots.add_pem(&pem));
        read.map(|()| roots).map_err(in_file(path))
    }

    /// Adds all certificates in a text of PEM.
    ///
    /// # Errors
    ///
    /// `InvalidData` if there is none in it, or one is no certificate; those before it are added.
    pub fn add_pem(&mut self, pem: &[u8]) -> io::Result<()> {
        for certificate in read_certificates(pem)? {
            self.0
                .add(certificate)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
        Ok(())
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roots").field("len", &self.len()).finish()
    }
}
