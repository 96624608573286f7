//! What fails in HTTP: a body that does not come whole, and a request that is answered with an error.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use ::http::StatusCode;

/// An error of any type, as [`http_body`] has it.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Why a body has not come whole.
#[derive(Debug)]
#[non_exhaustive]
pub enum BodyError {
    /// It is larger than this many bytes, which is all that is taken. When it is known beforehand, nothing of
    /// the body is read.
    TooLarge(u64),
    /// Nothing more of it came for this long, or not all of it within this time.
    TimedOut(Duration),
    /// The other side ended the connection before the body was whole, or did not keep to the protocol.
    Broken(BoxError),
    /// It is not compressed as its `Content-Encoding` says.
    Encoding(BoxError),
    /// It is no text in UTF-8.
    NotText,
    /// The stream that it is made of has failed.
    Other(BoxError),
}

impl BodyError {
    /// The error of a body that another crate has passed on.
    pub(super) fn from_foreign(error: BoxError) -> BodyError {
        match error.downcast::<BodyError>() {
            Ok(error) => *error,
            Err(error) => BodyError::Other(error),
        }
    }

    /// What a server answers whose handler gives up because of this.
    pub fn status(&self) -> StatusCode {
        match self {
            BodyError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            BodyError::TimedOut(_) => StatusCode::REQUEST_TIMEOUT,
            BodyError::Broken(_) | BodyError::Encoding(_) | BodyError::NotText => {
                StatusCode::BAD_REQUEST
            }
            BodyError::Other(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BodyError::TooLarge(limit) => {
                write!(f, "the body is larger than the {limit} bytes that are taken")
            }
            BodyError::TimedOut(limit) => write!(f, "the body did not come within {limit:?}"),
            BodyError::Broken(error) => write!(f, "the body was cut short: {error}"),
            BodyError::Encoding(error) => {
                write!(f, "the body is not compressed as it says: {error}")
            }
            BodyError::NotText => f.write_str("the body is no text in UTF-8"),
            BodyError::Other(error) => write!(f, "{error}"),
        }
    }
}

impl Error for BodyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            BodyError::Broken(error) | BodyError::Encoding(error) | BodyError::Other(error) => {
                Some(&**error)
            }
            _ => None,
        }
    }
}

impl From<BodyError> for std::io::Error {
    fn from(error: BodyError) -> std::io::Error {
        use std::io::ErrorKind;
        let kind = match error {
            BodyError::TimedOut(_) => ErrorKind::TimedOut,
            BodyError::Broken(_) => ErrorKind::UnexpectedEof,
            BodyError::Other(_) => ErrorKind::Other,
            _ => ErrorKind::InvalidData,
        };
        std::io::Error::new(kind, error)
    }
}
