//! Tornado's event loop and coroutines in native Rust: one [`IoLoop`] per thread, `!Send`
//! coroutines on it.
//!
//! ```no_run
//! use waterspout::net::{TcpListener, TcpStream};
//!
//! # #[cfg(feature = "macros")]
//! #[waterspout::coroutine]
//! async fn echo(stream: TcpStream) -> std::io::Result<()> {
//!     let mut buf = vec![0; 4096];
//!     loop {
//!         let n = stream.read(&mut buf).await?;
//!         if n == 0 {
//!             return Ok(());
//!         }
//!         stream.write_all(&buf[..n]).await?;
//!     }
//! }
//!
//! # #[cfg(feature = "macros")]
//! #[waterspout::main]
//! async fn main() -> std::io::Result<()> {
//!     let listener = TcpListener::bind("127.0.0.1:8888").await?;
//!     loop {
//!         let (stream, _peer) = listener.accept().await?;
//!         echo(stream); // it runs from here on
//!     }
//! }
//! # #[cfg(not(feature = "macros"))]
//! # fn main() {}
//! ```
//!
//! # Where to look
//!
//! | for | see |
//! | --- | --- |
//! | functions that can wait | [`coroutine`](mod@coroutine), [`#[coroutine]`](macro@coroutine), [`#[coroutines]`](macro@coroutines), [`Coroutine`] |
//! | running them | [`IoLoop::run_sync`], [`#[main]`](macro@main), [`#[test]`](macro@test) |
//! | time | [`coroutine::sleep()`], [`coroutine::with_timeout()`], [`coroutine::interval()`], [`IoLoop::call_later`], [`PeriodicCallback`] |
//! | several at once | [`coroutine::multi`], [`coroutine::multi_outputs`], [`coroutine::WaitIterator`], [`coroutine::TaskGroup`] |
//! | locks and queues | [`locks`], [`queues`] |
//! | messages from one coroutine to another, where each side learns that the other has gone | [`channels`] |
//! | sockets and other file descriptors | [`net`], [`IoLoop::add_handler`] |
//! | reading up to a delimiter, buffered writes | [`iostream`] |
//! | servers, clients, names | [`net::TcpServer`], [`net::UnixServer`], [`net::Server`], [`net::TcpClient`], [`net::Resolver`] |
//! | TLS | [`tls`](mod@crate::tls), [`net::Server::tls`], [`net::TcpClient::connect_tls`] |
//! | HTTP | [`http`](mod@crate::http), [`http::HttpServer`], [`http::StaticFiles`], [`http::sse`], [`http::HttpClient`], [`http::fetch`](crate::http::fetch()) |
//! | HTTP, with a hyper of your own | [`hyper`](mod@crate::hyper) |
//! | other crates: axum, tonic, databases, QUIC, DNS, HTTP clients | [`ecosystem`] |
//! | a result that somebody sets later | [`concurrent::promise`] |
//! | testing | [`#[test]`](macro@test), [`testing`] |
//! | other threads | [`LoopHandle`], [`IoLoop::run_in_executor`], [`concurrent::channel`] |
//! | processes, a loop on every core | [`process`], [`signal`] |
//! | what went wrong | [`Builder::on_exception`], [`IoLoop::coroutines`], [`IoLoop::counters`] |
//!
//! # The word list
//!
//! | Tornado | here |
//! | --- | --- |
//! | the module `gen` | [`coroutine`](mod@coroutine), since `gen` is a reserved word of Rust |
//! | `Future` | [`concurrent::Future`]; [`std::future::Future`] is Rust's trait |
//! | `set_exception(exception)` | [`set_exception`](concurrent::Promise::set_exception), which takes any error |
//! | a number of seconds | a [`Duration`](std::time::Duration) |
//! | a point in time | an [`Instant`](std::time::Instant) |
//! | `add_callback`, called from another thread | [`LoopHandle::add_callback`] |
//!
//! # What fails, and who hears of it
//!
//! An error or a panic goes to whoever awaits what failed. If nobody awaits it (a callback has failed, or
//! a coroutine whose handle was dropped), it goes as an [`Exception`], which has the name and the place of
//! what failed, to the exception handler that [`Builder::on_exception`] has set for the loop. A loop
//! without an exception handler writes it to the log, as an error.
//!
//! The log is that of the [`log`] crate. The crate also writes its own warnings there: of too many open
//! files, or of [slow callbacks](Builder::slow_callback). Any logger for the `log` crate shows them,
//! `env_logger` say, or `tracing` by way of `tracing-log`. Failures must not vanish: while the process has
//! no logger, or has turned all levels off (at run time, or by the feature `max_level_off` of `log`), they
//! are printed on standard error, in lines that begin with `waterspout:`. In a [`#[test]`](macro@test) an
//! exception [fails the test](testing#what-fails-in-the-background).
//!
//! Each record of the log has one of these targets. All of them begin with `waterspout`, so a filter for
//! that name finds all.
//!
//! | target | what | Tornado |
//! | --- | --- | --- |
//! | `waterspout::application` | failures of the program's own code that nobody awaited | `tornado.application` |
//! | `waterspout::access` | a line for each request that an [`http::HttpServer`] has answered | `tornado.access` |
//! | `waterspout::http` | clients that break the rules of HTTP | `tornado.general` |
//! | `waterspout::ioloop` | slow callbacks; fds that were closed under their handlers | `tornado.general` |
//! | `waterspout::iostream` | streams that are closed because a read went over its limit | `tornado.general` |
//! | `waterspout::net` | servers that cannot accept; handshakes that failed | `tornado.general` |
//! | `waterspout::process` | workers that failed and are started again | `tornado.general` |
//!
//! The texts that a test can expect in the log are listed at [`ExpectLog`](testing::ExpectLog).
//!
//! # Features
//!
//! | feature | default | what it gives |
//! | --- | --- | --- |
//! | `macros` | yes | `#[coroutine]`, `#[engine]`, `#[coroutines]`, `#[main]`, `#[test]` |
//! | `process` | yes | [`process`]: child processes, and a loop on every core; includes `signal` |
//! | `signal` | yes | [`signal`]: Unix signals as streams and callbacks |
//! | `affinity` | no | [`Workers::pinned`](process::Workers::pinned), on Linux; includes `process` |
//! | `client` | no | [`http::HttpClient`] |
//! | `compression` | no | compressed requests and answers, for `server` and `client` |
//! | `http1` | no | HTTP/1; `server` and `client` include it |
//! | `http2` | no | HTTP/2, for `server` and `client` |
//! | `hyper` | no | [`hyper`](mod@crate::hyper): a stream, an executor and a timer for the crate of that name |
//! | `peer_cred` | no | [`UnixStream::peer_cred`](net::UnixStream::peer_cred) |
//! | `regex` | no | [`IoStream::read_until_regex`](iostream::IoStream::read_until_regex), patterns in [`ExpectLog`](testing::ExpectLog) |
//! | `server` | no | [`http::HttpServer`], [`http::StaticFiles`], [`http::sse`] |
//! | `tls` | no | [`tls`](mod@crate::tls), with ring for its cryptography |
//! | `tls-aws-lc` | no | the same with aws-lc-rs |
//! | `tls-native-roots` | no | [`tls::Roots::native`](crate::tls::Roots::native) |
//! | `tls-webpki-roots` | no | [`tls::Roots::webpki`](crate::tls::Roots::webpki) |
//! | `tokio-compat` | no | tokio's own sockets, timers and files in handlers of an [`http::HttpServer`] |

#![cfg_attr(docsrs, feature(doc_cfg))]

// From the ground up: a folder imports only what stands above it in this list. tests/floors.rs checks that.
mod ground;

pub mod concurrent;
pub mod locks;
pub mod queues;

pub mod channels;

mod ioloop;

pub mod coroutine;

mod sockets;

#[cfg(feature = "hyper")]
#[cfg_attr(docsrs, doc(cfg(feature = "hyper")))]
pub mod hyper;
pub mod iostream;
#[cfg(feature = "signal")]
#[cfg_attr(docsrs, doc(cfg(feature = "signal")))]
pub mod signal;

#[cfg(feature = "_tls")]
#[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
pub mod tls;

#[cfg(feature = "process")]
#[cfg_attr(docsrs, doc(cfg(feature = "process")))]
pub mod process;
mod service;

#[cfg(feature = "_http")]
#[cfg_attr(docsrs, doc(cfg(any(feature = "client", feature = "server"))))]
pub mod http;

pub mod testing;

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;
pub mod ecosystem;
pub mod net;

/// The crate `futures`. Types of this crate implement its traits, and its macros and combinators can be
/// used with them: `select!`, `join!`, `StreamExt`, `SinkExt`, `AsyncReadExt`. It is version 0.3, so a
/// program that has `futures` 0.3 in its own `Cargo.toml` has the same crate.
pub use futures;

/// [`tokio_util::compat`]: streams of this crate as tokio's traits want them, by `.compat()`, and the other way round.
///
/// ```
/// use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
/// use waterspout::{IoLoop, compat::FuturesAsyncReadCompatExt as _, testing::duplex};
///
/// # IoLoop::new()?.run_sync(|| async {
/// let (one, other) = duplex(64);
/// let (mut one, mut other) = (one.compat(), other.compat());
/// one.write_all(b"hello").await?;
/// let mut heard = [0; 5];
/// other.read_exact(&mut heard).await?;
/// assert_eq!(&heard, b"hello");
/// # Ok::<(), std::io::Error>(())
/// # })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[cfg(feature = "tokio-compat")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio-compat")))]
pub use tokio_util::compat;

pub use coroutine::Coroutine;
pub use ground::coroutine_info::CoroutineInfo;
pub use ground::error::{JoinError, LoopClosed, RunError, StartError, StreamError, TimedOut};
pub use ground::report::Exception;
pub use ioloop::{
    Builder, Counters, Deadline, HeldTime, Interest, IoLoop, LoopHandle, PeriodicCallback, Step,
    TimerId,
};
#[cfg(feature = "macros")]
pub use waterspout_macros::{coroutine, coroutines, engine, main, test};

/// The README's programs compile.
#[cfg(all(doctest, feature = "macros", feature = "server", feature = "signal"))]
#[doc = include_str!("../README.md")]
struct Readme;
