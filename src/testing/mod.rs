//! Testing code that runs on a loop.
//!
//! [`#[waterspout::test]`](macro@crate::test) runs a test on a loop of its own; with `virtual_time`, in
//! virtual time. This module has what such tests need:
//!
//! * a pair of connected streams, in memory ([`duplex`]) or over TCP ([`tcp_pair`]), and a free port
//!   ([`bind_unused_port`]);
//! * tests that any stream and any lock should pass ([`stream_suite`], [`lock_suite`]);
//! * running a test with many orders of what is ready at the same time ([`explore`]), and running all that is
//!   ready ([`settle`]);
//! * expecting something in the log ([`ExpectLog`]), or a panic ([`ExpectPanic`]).
//!
//! # What fails in the background
//!
//! A test also fails if something fails that nobody in it awaits: if a callback or a coroutine panics, if
//! a [`#[coroutine]`](macro@crate::coroutine) whose handle was dropped gives an `Err`, or if nobody looks
//! at the exception of a [`Future`](crate::concurrent::Future). It is all that
//! [`Builder::on_exception`](crate::Builder::on_exception) would be told of on the test's loop. Each such
//! failure is logged when it happens. When the test's body is done and its loop was closed, the test fails
//! with a message that lists them all. Tornado: `AsyncTestCase` raises such exceptions, too.
//!
//! A test that expects such a failure says so by an [`ExpectLog`]: failures that this keeps from the log
//! do not fail the test. A `#[waterspout::test(allow_exceptions)]` does not mind any.
//!
//! ```
//! # #[cfg(feature = "macros")]
//! # mod tests {
//! use waterspout::coroutine::{moment, spawn};
//! use waterspout::testing::ExpectLog;
//!
//! #[waterspout::test]
//! async fn a_worker_that_fails_is_told_of() {
//!     let expected = ExpectLog::new("waterspout", "exception in coroutine");
//!     drop(spawn(async { panic!("no more") }));
//!     moment().await;
//!     assert_eq!(expected.count(), 1);
//! }
//! # }
//! ```

mod background;
mod expect_log;
mod expect_panic;
mod lock_suite;
mod memory;
mod settle;
mod stream_suite;
mod suite;

use std::io;
use std::net::TcpListener;
use std::panic::Location;
use std::time::Duration;

pub use expect_log::{ExpectLog, Logger, Pattern};
pub use expect_panic::ExpectPanic;
pub use lock_suite::{fair_lock_suite, lock_suite};
pub use memory::{Memory, duplex};
pub use settle::settle;
pub use stream_suite::{half_close_suite, stream_suite};

use background::Background;

use crate::coroutine;
use crate::ioloop::IoLoop;
use crate::sockets::{self, BindOptions, Family, TcpStream, bind_sockets};

/// The time limit of a test, in seconds, unless its attribute or the environment gives another. It is
/// Tornado's.
const TIMEOUT: f64 = 5.0;
/// The environment variable that may give another limit, also Tornado's. It is for slow machines, and so does
/// not hold in virtual time.
const TIMEOUT_VARIABLE: &str = "ASYNC_TEST_TIMEOUT";
/// The time limit of a test in virtual time, in seconds. A test that hangs there reaches any limit at once,
/// since the clock jumps to it when nothing else is left to do. So the limit may be far beyond what a test
/// sleeps: 100 days.
const VIRTUAL_TIMEOUT: f64 = 100.0 * 24.0 * 3600.0;

/// The environment variable that makes [`explore`] try one seed only.
const SEED_VARIABLE: &str = "WATERSPOUT_SEED";

/// Runs a test under many orders: once for each seed from 0 up to `seeds`, each time on a new loop in virtual
/// time. Whatever is ready in the same turn of such a loop runs in an order that the seed decides. See
/// [`Builder::shuffle`](crate::Builder::shuffle).
///
/// The same seed gives the same order, but it decides nothing else. Code that draws random numbers of its
/// own behaves differently in every run: `futures::select!` does, which polls its branches in a random
/// order, and so does iterating over a `HashMap`. If a run should be repeatable, use
/// [`futures::select_biased!`](crate::futures::select_biased), which polls its branches from the top down,
/// and put the branch first that must not be starved. Sockets, threads and child processes are not
/// controlled either.
///
/// # Panics
///
/// If `body` panics, if a run takes more than 100 days of virtual time, or if something
/// [failed in the background](self#what-fails-in-the-background). Then the seed is printed to standard error.
/// With `WATERSPOUT_SEED=7` in the environment, only the run with seed 7 is done.
///
/// ```
/// use std::{cell::RefCell, rc::Rc};
/// use waterspout::{coroutine::spawn, testing::explore};
///
/// let orders = RefCell::new(std::collections::BTreeSet::new());
/// explore(100, || async {
///     let order = Rc::new(RefCell::new(String::new()));
///     let children = ["a", "b", "c"].map(|name| {
///         let order = order.clone();
///         spawn(async move { order.borrow_mut().push_str(name) })
///     });
///     for child in children {
///         child.await;
///     }
///     orders.borrow_mut().insert(order.take());
/// });
/// assert_eq!(orders.into_inner().len(), 6, "every order of three has come up");
/// ```
#[track_caller]
pub fn explore(seeds: u64, body: impl AsyncFn()) {
    let location = Location::caller();
    let only = std::env::var(SEED_VARIABLE).ok().and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(0..seeds, |seed: u64| seed..seed + 1);
    for seed in seeds {
        let print_seed = PrintSeed(seed);
        let background = Background::default();
        let builder = IoLoop::builder().virtual_time().shuffle(seed);
        let io_loop = match builder.on_exception(background.handler()).build() {
            Ok(io_loop) => io_loop,
            Err(error) => panic!("cannot make a loop: {error}"),
        };
        let limit = Duration::from_secs_f64(VIRTUAL_TIMEOUT);
        let output = io_loop.run_named("explore", Some(limit), || body(), location);
        io_loop.close();
        if let Some(failed) = background.with(output.err().map(|error| error.to_string())) {
            panic!("{failed}");
        }
        std::mem::forget(print_seed);
    }
}

/// Prints the seed when it is dropped. That happens only when a panic unwinds: after a run that went well, it
/// is forgotten.
struct PrintSeed(u64);

impl Drop for PrintSeed {
    fn drop(&mut self) {
        eprintln!("failed under seed {0}; {SEED_VARIABLE}={0} runs it again", self.0);
    }
}

/// The arguments of a `#[test]` attribute. The code that this generates makes one.
#[doc(hidden)]
#[derive(Debug)]
pub struct TestOptions {
    pub name: &'static str,
    /// In seconds.
    pub timeout: Option<f64>,
    pub virtual_time: bool,
    /// Whether what fails in the background is only logged.
    pub allow_exceptions: bool,
}

/// Runs a test on a loop of its own, and closes that afterwards. `error_in` gives the error in what the test
/// returns, as text, if there is one.
#[doc(hidden)]
#[track_caller]
pub fn run_test<B, F>(
    options: TestOptions,
    error_in: fn(&F::Output) -> Option<String>,
    body: B,
) -> F::Output
where
    B: FnOnce() -> F,
    F: Future,
{
    let TestOptions { name, timeout, virtual_time, allow_exceptions } = options;
    let mut builder = IoLoop::builder();
    if virtual_time {
        builder = builder.virtual_time();
    }
    let background = Background::default();
    if !allow_exceptions {
        builder = builder.on_exception(background.handler());
    }
    let io_loop = match builder.build() {
        Ok(io_loop) => io_loop,
        Err(error) => panic!("cannot make a loop for `{name}`: {error}"),
    };
    let timeout = timeout.unwrap_or_else(|| match virtual_time {
        true => VIRTUAL_TIMEOUT,
        false => from_environment().unwrap_or(TIMEOUT),
    });
    let timeout = Duration::try_from_secs_f64(timeout).unwrap_or(Duration::MAX);
    let output = io_loop.run_named(name, Some(timeout), body, Location::caller());
    io_loop.close();
    let failure = match &output {
        Ok(_) if background.is_empty() => None,
        Ok(output) => error_in(output).map(|error| format!("returned the error {error}")),
        Err(error) => Some(error.to_string()),
    };
    match (background.with(failure), output) {
        (None, Ok(output)) => output,
        (failure, _) => panic!("`{name}`: {}", failure.unwrap_or_default()),
    }
}

/// The limit in [`TIMEOUT_VARIABLE`], if that is a number of seconds above zero.
fn from_environment() -> Option<f64> {
    let seconds = std::env::var(TIMEOUT_VARIABLE).ok()?.parse().ok()?;
    (seconds > 0.0).then_some(seconds)
}

/// Gives a listener on a port of the loopback address that nobody else uses, and that port. Tornado:
/// `bind_unused_port()`.
///
/// # Errors
///
/// What the system says.
///
/// ```
/// let (listener, port) = waterspout::testing::bind_unused_port()?;
/// std::net::TcpStream::connect(("127.0.0.1", port))?;
/// listener.accept()?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn bind_unused_port() -> io::Result<(TcpListener, u16)> {
    bind_unused_port_with(&BindOptions::default())
}

/// [`bind_unused_port`] with options: for instance on another address, or with `reuse_port`, so that others
/// can bind the same port. Tornado: `bind_unused_port(reuse_port, address)`.
///
/// If the options have no address, it binds the loopback address, and not all addresses of the machine, as
/// [`bind_sockets`] does. If the address is a name that stands for several, it binds the first. The
/// listener is in blocking mode.
///
/// # Errors
///
/// As [`bind_sockets`].
///
/// ```
/// use waterspout::net::BindOptions;
/// use waterspout::testing::bind_unused_port_with;
///
/// let shared = BindOptions { reuse_port: true, ..BindOptions::default() };
/// let (listener, port) = bind_unused_port_with(&shared)?;
/// let again = waterspout::net::bind_sockets(
///     port,
///     &BindOptions { address: Some("127.0.0.1".into()), ..shared },
/// )?;
/// assert_eq!(again[0].local_addr()?, listener.local_addr()?);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn bind_unused_port_with(options: &BindOptions) -> io::Result<(TcpListener, u16)> {
    let loopback = if options.family == Family::V6 { "::1" } else { "127.0.0.1" };
    let address = options.address.clone().or_else(|| Some(loopback.into()));
    let sockets = bind_sockets(0, &BindOptions { address, ..options.clone() })?;
    let listener = sockets.into_iter().next().ok_or(io::ErrorKind::AddrNotAvailable)?;
    listener.set_nonblocking(false)?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

/// Makes a TCP connection over the loopback, and gives its two ends, both of the current loop: the one that
/// has connected, and the one that was accepted.
///
/// # Errors
///
/// What the system says.
pub async fn tcp_pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = sockets::TcpListener::bind(("127.0.0.1", 0)).await?;
    let connecting = coroutine::start(TcpStream::connect(listener.local_addr()?));
    let (accepted, _) = listener.accept().await?;
    Ok((connecting.await?, accepted))
}
