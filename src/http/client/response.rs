//! `FetchResponse`: what a server has answered.

use std::fmt;
use std::ops::{Deref, DerefMut};

use ::http::{StatusCode, response};
use bytes::Bytes;
use url::Url;

use super::error::FetchError;
use crate::http::incoming::Incoming;

/// The answer to a fetch: the head is there, the body comes as it is read. Tornado: `HTTPResponse`.
///
/// It dereferences to the [`http::Response`](::http::Response) that it is around: its status, version, headers
/// and body. What went wrong at the server is no error here, but a status:
/// [`error_for_status`](FetchResponse::error_for_status) makes it one.
///
/// Reading the body to its end gives the connection back to the client, for the next request. Dropping it
/// before that closes the connection, since there is no other way to stop the server (with HTTP/2 there is,
/// and only this answer ends).
#[must_use]
pub struct FetchResponse {
    inner: ::http::Response<Incoming>,
    url: Url,
    history: Vec<(StatusCode, Url)>,
}

impl FetchResponse {
    pub(super) fn new(
        inner: ::http::Response<Incoming>,
        url: Url,
        history: Vec<(StatusCode, Url)>,
    ) -> FetchResponse {
        FetchResponse { inner, url, history }
    }

    /// The URL that has answered, after all redirections, without a name and a password. Tornado:
    /// `effective_url`.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The redirections that were followed: what each URL answered, the first one first.
    pub fn history(&self) -> &[(StatusCode, Url)] {
        &self.history
    }

    /// The first header of this name, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers().get(name)?.to_str().ok()
    }

    /// This answer, unless it says that something is wrong: a status from 400 on. Tornado: `raise_error`.
    ///
    /// # Errors
    ///
    /// [`FetchError::Status`].
    pub fn error_for_status(self) -> Result<FetchResponse, FetchError> {
        let status = self.status();
        if status.is_client_error() || status.is_server_error() {
            return Err(FetchError::Status { status, url: self.url.into() });
        }
        Ok(self)
    }

    /// The next part of the body, as it arrives; `None` at its end. Cancel safe. See [`Incoming::chunk`].
    ///
    /// # Errors
    ///
    /// [`FetchError::Body`].
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, FetchError> {
        Ok(self.body_mut().chunk().await?)
    }

    /// The whole body, or what has not been read of it, if that is no more than
    /// [`max_body_size`](super::HttpClient::max_body_size). Tornado: `body`.
    ///
    /// # Errors
    ///
    /// [`FetchError::Body`].
    pub async fn bytes(&mut self) -> Result<Bytes, FetchError> {
        Ok(self.body_mut().bytes().await?)
    }

    /// The body as text, which has to be in UTF-8. As [`bytes`](FetchResponse::bytes).
    ///
    /// # Errors
    ///
    /// [`FetchError::Body`].
    pub async fn text(&mut self) -> Result<String, FetchError> {
        Ok(self.body_mut().text().await?)
    }

    /// What this is around.
    pub fn into_inner(self) -> ::http::Response<Incoming> {
        self.inner
    }

    /// The body: a stream of its parts.
    pub fn into_body(self) -> Incoming {
        self.inner.into_body()
    }

    /// The head and the body, each by itself.
    pub fn into_parts(self) -> (response::Parts, Incoming) {
        self.inner.into_parts()
    }
}

impl Deref for FetchResponse {
    type Target = ::http::Response<Incoming>;

    fn deref(&self) -> &::http::Response<Incoming> {
        &self.inner
    }
}

impl DerefMut for FetchResponse {
    fn deref_mut(&mut self) -> &mut ::http::Response<Incoming> {
        &mut self.inner
    }
}

impl fmt::Debug for FetchResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchResponse")
            .field("url", &self.url.as_str())
            .field("status", &self.status())
            .field("version", &self.version())
            .field("headers", self.headers())
            .field("body", self.body())
            .finish_non_exhaustive()
    }
}
