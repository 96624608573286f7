//! `HttpServer`: what a handler gets and gives, limits, time limits, parked connections, and how it all ends.

#[path = "../common/mod.rs"]
mod common;
#[cfg(feature = "compression")]
mod compressed;
mod ending;
#[path = "../common/http.rs"]
mod http;
mod limits;
mod parking;
#[cfg(feature = "tls")]
mod secure;
mod serving;
#[cfg(feature = "tokio-compat")]
mod tokio_context;
#[cfg(feature = "process")]
mod workers;

pub(crate) use self::http::{Client, Inside, SECOND, connect};
