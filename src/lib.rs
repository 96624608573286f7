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
//! | functions that wait | [`coroutine`](mod@coroutine), [`#[coroutine]`](macro@coroutine), [`#[coroutines]`](macro@coroutines), [`Coroutine`] |
//! | running them | [`IoLoop::run_sync`], [`#[main]`](macro@main), [`#[test]`](macro@test) |
//! | time | [`coroutine::sleep()`], [`coroutine::with_timeout()`], [`coroutine::interval()`], [`IoLoop::call_later`], [`PeriodicCallback`] |
//! | several at once | [`coroutine::multi`], [`coroutine::multi_outputs`], [`coroutine::WaitIterator`], [`coroutine::TaskGroup`] |
//! | taking turns | [`locks`], [`queues`] |
//! | from one coroutine to another, until either has gone | [`channels`] |
//! | sockets and fds | [`net`], [`IoLoop::add_handler`] |
//! | reading up to a delimiter, buffered writes | [`iostream`] |
//! | servers, clients, names | [`net::TcpServer`], [`net::UnixServer`], [`net::Server`], [`net::TcpClient`], [`net::Resolver`] |
//! | a result that comes later | [`concurrent::promise`] |
//! | testing | [`#[test]`](macro@test), [`testing`] |
//! | other threads | [`LoopHandle`], [`IoLoop::run_in_executor`], [`concurrent::channel`] |
//! | processes, a loop on every core | [`process`], [`signal`] |
//! | what went wrong | [`Builder::on_exception`], [`IoLoop::coroutines`], [`IoLoop::counters`] |
//!
//! # The word list
//!
//! Tornado's `gen` module is [`coroutine`](mod@coroutine) here, since `gen` is a reserved word.
//! Tornado's `Future` is [`concurrent::Future`]; the trait of that name is [`std::future::Future`].
//! `set_exception` takes any error; a number of seconds is a [`Duration`](std::time::Duration), a
//! point in time an [`Instant`](std::time::Instant). `add_callback` from another thread is
//! [`LoopHandle::add_callback`].
//!
//! # What fails, and who hears of it
//!
//! An error or a panic goes to whoever awaits what failed. One that nobody awaits (a callback's, that of
//! a coroutine whose handle was dropped) goes to the loop's [`Builder::on_exception`] as an
//! [`Exception`], which says what failed, by name and place. Without a handler of its own it is an error
//! in the log of the [`log`] crate. So are warnings of too many open files, or of
//! [slow callbacks](Builder::slow_callback). `env_logger` shows them, or `tracing` by
//! way of `tracing-log`, or any logger for that crate. As long as the process has no logger, or has
//! turned all levels off (at run time, or by `log`'s feature `max_level_off`), they are lines on standard
//! error that begin with `waterspout:`, for failures must not vanish. In a [`#[test]`](macro@test) an exception
//! [fails the test](testing#what-fails-in-the-background).
//!
//! Each record has one of these targets, by which a logger can tell them apart. All are within
//! `waterspout`, so that a filter for that takes all of them.
//!
//! | target | what | Tornado |
//! | --- | --- | --- |
//! | `waterspout::application` | failures of the program's own code that nobody awaited | `tornado.application` |
//! | `waterspout::ioloop` | slow callbacks; fds that were closed under their handlers | `tornado.general` |
//! | `waterspout::iostream` | streams that are closed because a read went over its limit | `tornado.general` |
//! | `waterspout::net` | servers that cannot accept; handshakes that failed | `tornado.general` |
//! | `waterspout::process` | workers that failed and are started again | `tornado.general` |
//!
//! What can be expected there in a test is listed at [`ExpectLog`](testing::ExpectLog).
//!
//! # Features
//!
//! | feature | default | what |
//! | --- | --- | --- |
//! | `macros` | yes | `#[coroutine]`, `#[engine]`, `#[coroutines]`, `#[main]`, `#[test]` |
//! | `process` | yes | [`process`]: child processes, workers; and `signal` |
//! | `signal` | yes | [`signal`]: Unix signals |
//! | `affinity` | no | [`Workers::pinned`](process::Workers::pinned) |
//! | `peer_cred` | no | [`UnixStream::peer_cred`](net::UnixStream::peer_cred) |
//! | `regex` | no | [`IoStream::read_until_regex`](iostream::IoStream::read_until_regex), patterns in [`ExpectLog`](testing::ExpectLog) |

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

pub mod iostream;
#[cfg(feature = "signal")]
#[cfg_attr(docsrs, doc(cfg(feature = "signal")))]
pub mod signal;

#[cfg(feature = "process")]
#[cfg_attr(docsrs, doc(cfg(feature = "process")))]
pub mod process;
mod service;

pub mod testing;

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;
pub mod net;

/// The crate of that name, whose traits ours implement, and whose macros and combinators go with them:
/// `select!`, `join!`, `StreamExt`, `SinkExt`, `AsyncReadExt`. A program that names it `futures` in its own
/// `Cargo.toml` has the same one, in version 0.3.
pub use futures;

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

/// The README's program compiles.
#[cfg(all(doctest, feature = "macros"))]
#[doc = include_str!("../README.md")]
struct Readme;
