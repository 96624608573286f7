//! Testing code that runs on a loop.
//!
//! [`#[waterspout::test]`](macro@crate::test) runs a test on a loop of its own, in virtual time if
//! told so. Here is what goes into such tests: streams without a network ([`duplex`]) and with one
//! ([`tcp_pair`]), a free port ([`bind_unused_port`]), what any stream and any lock has to do, as a
//! test ([`stream_suite`], [`lock_suite`]), many orders of what is ready ([`explore`]), a way to run all
//! that is ready ([`settle`]), and what is expected in the log ([`ExpectLog`]) and of panics
//! ([`ExpectPanic`]).
//!
//! # What fails in the background
//!
//! A test also fails by what nobody in it awaits: the panic of a callback or a coroutine, the `Err` of
//! a [`#[coroutine]`](macro@crate::coroutine) whose handle was dropped, an exception of a
//! [`Future`](crate::concurrent::Future) that nobody looked at; whatever
//! [`Builder::on_exception`](crate::Builder::on_exception) would hear of on the test's loop. It is
//! logged when it happens, and again in the message with which the test fails when its body is done
//! and its loop was closed. Tornado: `AsyncTestCase` raises such exceptions, too.
//!
//! A test that expects such a failure says so by an [`ExpectLog`]: what that keeps from the log fails no
//! test. One that does not mind any is a `#[waterspout::test(allow_exceptions)]`.
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

/// The time limit of a test, in seconds, unless its attribute or the environment says otherwise:
/// Tornado's.
const TIMEOUT: f64 = 5.0;
/// The environment variable that says otherwise: Tornado's, too. It is there for machines that are slow,
/// which virtual time is not.
const TIMEOUT_VARIABLE: &str = "ASYNC_TEST_TIMEOUT";
/// In virtual time a limit costs nothing while something moves the clock, and a test in which
/// nothing does gets there at once. 100 days are far beyond what a test sleeps.
const VIRTUAL_TIMEOUT: f64 = 100.0 * 24.0 * 3600.0;

/// The environment variable that makes [`explore`] try one seed only.
const SEED_VARIABLE: &str = "WATERSPOUT_SEED";

/// Runs a test under many orders: on a fresh loop in virtual time for each of the first `seeds` seeds,
/// with what is ready in a turn in an order of the seed's. See
/// [`Builder::shuffle`](crate::Builder::shuffle).
///
/// A seed replays that order and nothing else. What draws random numbers of its own does so anew in every run:
/// `futures::select!` is one, which looks at its branches in an order that is random, and iterating over a
/// `HashMap` another. Code that is to be replayed uses
/// [`futures::select_biased!`](crate::futures::select_biased), whose branches are looked at from the top down;
/// put the one that must not be starved first. Sockets, threads and children are as ever.
///
/// # Panics
///
/// With the test's panic, if a run takes more than 100 days of virtual time, or if something
/// [failed in the background](self#what-fails-in-the-background). The seed is printed to standard error
/// then, and `WATERSPOUT_SEED=7` in the environment runs that one again, and no others.
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
        let told = Told(seed);
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
        std::mem::forget(told);
    }
}

/// Tells the seed when it is dropped, which only a panic does.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        eprintln!("failed under seed {0}; {SEED_VARIABLE}={0} runs it again", self.0);
    }
}

/// What a `#[test]` attribute said; its expansion makes one.
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

/// Runs a test on a loop of its own, which is closed after. `error_in` words the error in what the test
/// returns.
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

/// A listener on a port of the loopback that nobody else uses, and that port. Tornado:
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

/// [`bind_unused_port`] as `options` say: on another address, or with `reuse_port`, so that others can bind
/// the port, too. Tornado: `bind_unused_port(reuse_port, address)`.
///
/// Without an address it is the loopback's, and not all of the machine's as in
/// [`bind_sockets`]. Of a name's addresses it is the first. The listener is in
/// blocking mode.
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

/// The two ends of a TCP connection over the loopback, on the current loop: who connected, and who
/// accepted.
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
