//! HTTP/1 and HTTP/2: a server and a client on the loop.
//!
//! [hyper](https://docs.rs/hyper/1) speaks the protocols. What is here is what it leaves to others: limits, time
//! limits, connections that are kept and connections that are ended, what is sent and what is received.
//!
//! | for | see |
//! | --- | --- |
//! | serving | [`HttpServer`], [`Request`], [`Response`], [`IntoResponse`], [`HttpError`] |
//! | fetching | [`fetch()`], [`HttpClient`], [`Fetch`], [`FetchResponse`], [`FetchError`] |
//! | what is sent, and what comes in | [`Body`], [`Incoming`], [`BodyError`] |
//! | files | [`StaticFiles`] |
//! | news for a browser, as it comes in | [`sse`] |
//!
//! Methods, headers, status codes and URIs are those of the crate [`http`](https://docs.rs/http/1), so that
//! other crates take them as they are: [`Method`], [`HeaderMap`], [`StatusCode`], [`Uri`].

#[cfg(feature = "server")]
mod accept_encoding;
mod body;
#[cfg(feature = "client")]
mod client;
#[cfg(feature = "compression")]
mod coding;
#[cfg(all(feature = "compression", feature = "server"))]
mod compress;
#[cfg(feature = "server")]
mod conditional;
mod error;
mod incoming;
#[cfg(feature = "server")]
mod request;
#[cfg(feature = "server")]
mod response;
#[cfg(feature = "server")]
mod server;
#[cfg(feature = "server")]
#[cfg_attr(docsrs, doc(cfg(feature = "server")))]
pub mod sse;
#[cfg(feature = "server")]
mod static_files;

pub use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};
pub use body::Body;
pub use bytes::Bytes;
#[cfg(feature = "client")]
pub use client::{Fetch, FetchError, FetchResponse, HttpClient, IntoFetch, fetch};
pub use error::{BodyError, BoxError};
pub use incoming::Incoming;
#[cfg(feature = "server")]
pub use request::{Peer, Request};
#[cfg(feature = "server")]
pub use response::{HttpError, IntoResponse, Response};
#[cfg(feature = "server")]
pub use server::{HttpServer, InTime, Timeout, TimeoutLayer};
#[cfg(feature = "server")]
pub use static_files::StaticFiles;
#[cfg(feature = "client")]
pub use url::Url;
