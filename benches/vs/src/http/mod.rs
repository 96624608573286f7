//! HTTP servers that answer "Hello, World!" over HTTP/1.1 with keep-alive, one thread each.
//!
//! To add one: write the function, and its line in the table below. Servers in other languages are in
//! `others/` and `python/`; `drive.py` starts them.

use std::io;
use std::net::TcpListener;

#[cfg(feature = "http-peers")]
use crate::rt::monoio_rt;
use crate::rt::{Runtime, smol_rt, tokio_rt, waterspout_rt};

#[cfg(feature = "http-peers")]
mod actix_rs;
mod by_hyper;
pub mod exchange;
mod http_server;
#[cfg(feature = "http-peers")]
mod ntex_rs;

/// The whole body of every answer.
const BODY: &str = "Hello, World!";

macro_rules! servers {
    ($($(#[$m:meta])* $name:literal => $serve:expr,)*) => {
        /// Every server's name on the command line.
        pub const NAMES: &[&str] = &[$($(#[$m])* $name),*];

        /// Serves what `listener` accepts, for ever; `None` if there is no server of that name.
        pub fn run(name: &str, listener: TcpListener) -> Option<io::Result<()>> {
            match name {
                $($(#[$m])* $name => Some($serve(listener)),)*
                _ => None,
            }
        }
    };
}

servers! {
    "waterspout" => |l| waterspout_rt::Own::block_on(http_server::serve(l)),
    "waterspout-hyper" => |l| waterspout_rt::Own::block_on(by_hyper::waterspout(l)),
    "tokio" => |l| tokio_rt::LocalSet::block_on(by_hyper::tokio(l)),
    "tokio-notimer" => |l| tokio_rt::LocalSet::block_on(by_hyper::tokio_without_timer(l)),
    "smol" => |l| smol_rt::Smol::block_on(by_hyper::smol(l)),
    #[cfg(feature = "http-peers")]
    "monoio-uring" => |l| monoio_rt::Uring::block_on(by_hyper::monoio(l)),
    #[cfg(feature = "http-peers")]
    "monoio-legacy" => |l| monoio_rt::Legacy::block_on(by_hyper::monoio(l)),
    #[cfg(feature = "http-peers")]
    "actix-web" => actix_rs::serve,
    #[cfg(feature = "http-peers")]
    "ntex" => ntex_rs::serve,
}
