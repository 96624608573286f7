//! Why there is no file to be sent, and what is answered then: a page that says no more than its status.

use std::io;

use ::http::{HeaderValue, StatusCode};
use rustix::io::Errno;

use crate::http::response::{HttpError, IntoResponse, Response};

#[derive(Debug)]
pub(super) enum Refused {
    Method,
    Forbidden,
    NotFound,
    /// What should not happen, and is reported.
    Failed(io::Error),
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        match self {
            Refused::Method => Response::of_status(StatusCode::METHOD_NOT_ALLOWED)
                .with_header("allow", HeaderValue::from_static("GET, HEAD")),
            Refused::Forbidden => Response::of_status(StatusCode::FORBIDDEN),
            Refused::NotFound => Response::of_status(StatusCode::NOT_FOUND),
            Refused::Failed(error) => HttpError::from(error).into_response(),
        }
    }
}

impl From<Errno> for Refused {
    fn from(error: Errno) -> Refused {
        match error {
            // INVAL: a name that this file system cannot have, or a link that is none any more.
            Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::ILSEQ | Errno::INVAL => {
                Refused::NotFound
            }
            // LOOP, MLINK and NXIO: a link, or a socket, where something else was a moment ago.
            Errno::ACCESS | Errno::PERM | Errno::LOOP | Errno::MLINK | Errno::NXIO => {
                Refused::Forbidden
            }
            error => Refused::Failed(io::Error::from(error)),
        }
    }
}
