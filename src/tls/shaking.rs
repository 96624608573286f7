//! What a handshake does when it fails, or does not come to its end.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use ::rustls::Error as TlsError;

use crate::coroutine::with_timeout;
use crate::ground::error::TimedOut;

/// How long a handshake may take, unless told.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// Gives a handshake so long, and says plainly what went wrong.
pub(super) async fn within<T>(
    limit: Duration,
    handshake: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    match with_timeout(limit, handshake).await {
        Ok(done) => done.map_err(explained),
        Err(TimedOut) => {
            let message = format!("the TLS handshake took longer than {limit:?}");
            Err(io::Error::new(io::ErrorKind::TimedOut, message))
        }
    }
}

/// The other side sent what is no TLS; mostly since it speaks another protocol.
#[derive(Debug)]
struct NoTls(TlsError);

impl fmt::Display for NoTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the other side does not speak TLS: {}", self.0)
    }
}

impl Error for NoTls {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

fn explained(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return io::Error::new(error.kind(), "the other side ended during the TLS handshake");
    }
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
    match inner {
        Some(no_tls @ TlsError::InvalidMessage(_)) => {
            io::Error::new(io::ErrorKind::InvalidData, NoTls(no_tls.clone()))
        }
        _ => error,
    }
}
