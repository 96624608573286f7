//! `FetchError`: why there is no answer, or no good one.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use ::http::StatusCode;

use crate::http::error::{BodyError, BoxError};

/// Why a fetch has failed, by the step that did. Tornado: `HTTPError` with the code 599, and
/// [`Status`](FetchError::Status) is that with any other code.
///
/// URLs are shown without a password.
#[derive(Debug)]
#[non_exhaustive]
pub enum FetchError {
    /// What was to be fetched, or what a server sends the client to, is no URL that can be fetched; or a header
    /// is none. Nothing was sent there.
    Invalid(String),
    /// [`max_clients`](super::HttpClient::max_clients) others were fetching for this long.
    QueueTimedOut(Duration),
    /// The name could not be looked up, or nobody could be connected to.
    Connect {
        /// Whom: a host and its port, or the path of a socket.
        to: String,
        /// What the system says.
        error: io::Error,
    },
    /// Looking the name up, connecting and shaking hands took this long.
    ConnectTimedOut {
        /// Whom.
        to: String,
        /// The time limit.
        limit: Duration,
    },
    /// The TLS handshake has failed: mostly since the server's certificate proves nothing.
    Tls {
        /// With whom.
        to: String,
        /// Why.
        error: io::Error,
    },
    /// The proxy does not connect to where it should.
    Proxy {
        /// Which one: its host and port.
        proxy: String,
        /// What it says: its status, or what went wrong.
        reason: String,
    },
    /// The whole took this long, and there is no answer yet.
    TimedOut(Duration),
    /// The server ended the connection before it had answered, or does not keep to the protocol. It may have
    /// got the request.
    Broken(BoxError),
    /// The stream that the body of the request is made of has failed.
    RequestBody(BoxError),
    /// Servers have redirected the request more often than this, which is all that is followed.
    TooManyRedirects(usize),
    /// The answer has come, and its body does not come whole.
    Body(BodyError),
    /// The answer says that something is wrong, in the eyes of
    /// [`error_for_status`](super::FetchResponse::error_for_status).
    Status {
        /// What it says.
        status: StatusCode,
        /// Where it comes from.
        url: String,
    },
    /// The client was [closed](super::HttpClient::close).
    Closed,
}

impl FetchError {
    /// Whether a time limit has come.
    pub fn is_timeout(&self) -> bool {
        match self {
            FetchError::QueueTimedOut(_)
            | FetchError::ConnectTimedOut { .. }
            | FetchError::TimedOut(_)
            | FetchError::Body(BodyError::TimedOut(_)) => true,
            // The system and the TLS connector have limits of their own.
            FetchError::Connect { error, .. } | FetchError::Tls { error, .. } => {
                error.kind() == io::ErrorKind::TimedOut
            }
            _ => false,
        }
    }

    /// The status of the answer, if that is what is wrong.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            FetchError::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// What hyper says of an exchange.
    pub(super) fn of_exchange(error: ::hyper::Error) -> FetchError {
        let mut source = error.source();
        while let Some(cause) = source {
            if cause.is::<BodyError>() {
                return FetchError::RequestBody(error.into());
            }
            source = cause.source();
        }
        FetchError::Broken(error.into())
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FetchError::Invalid(why) => f.write_str(why),
            FetchError::QueueTimedOut(limit) => {
                write!(f, "the client had no room for one more fetch within {limit:?}")
            }
            FetchError::Connect { to, error } => write!(f, "cannot connect to {to}: {error}"),
            FetchError::ConnectTimedOut { to, limit } => {
                write!(f, "connecting to {to} took longer than {limit:?}")
            }
            FetchError::Tls { to, error } => write!(f, "no TLS with {to}: {error}"),
            FetchError::Proxy { proxy, reason } => {
                write!(f, "the proxy {proxy} does not connect: {reason}")
            }
            FetchError::TimedOut(limit) => write!(f, "there was no answer within {limit:?}"),
            FetchError::Broken(error) => write!(f, "there is no answer: {}", Causes(&**error)),
            FetchError::RequestBody(error) => {
                write!(f, "the request could not be sent: {}", Causes(&**error))
            }
            FetchError::TooManyRedirects(most) => {
                write!(f, "the request was redirected more than {most} times")
            }
            FetchError::Body(error) => write!(f, "{error}"),
            FetchError::Status { status, url } => write!(f, "{url} gives {status}"),
            FetchError::Closed => f.write_str("the client was closed"),
        }
    }
}

/// An error with what has caused it, since hyper's own texts say little.
struct Causes<'a>(&'a dyn Error);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

impl Error for FetchError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            FetchError::Connect { error, .. } | FetchError::Tls { error, .. } => Some(error),
            FetchError::Broken(error) | FetchError::RequestBody(error) => Some(&**error),
            FetchError::Body(error) => Some(error),
            _ => None,
        }
    }
}

impl From<BodyError> for FetchError {
    fn from(error: BodyError) -> FetchError {
        FetchError::Body(error)
    }
}

impl From<FetchError> for io::Error {
    fn from(error: FetchError) -> io::Error {
        use io::ErrorKind;
        let kind = match &error {
            FetchError::Invalid(_) => ErrorKind::InvalidInput,
            error if error.is_timeout() => ErrorKind::TimedOut,
            FetchError::Connect { error, .. } | FetchError::Tls { error, .. } => error.kind(),
            FetchError::Broken(_) => ErrorKind::ConnectionAborted,
            _ => ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}
