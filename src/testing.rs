//! Testing code that runs on a loop.

use std::panic::Location;
use std::time::Duration;

use crate::ioloop::IoLoop;

/// The time limit of a test, in seconds, unless its attribute or the environment says otherwise:
/// Tornado's.
const TIMEOUT: f64 = 5.0;
/// The environment variable that says otherwise: Tornado's, too.
const TIMEOUT_VARIABLE: &str = "ASYNC_TEST_TIMEOUT";
/// In virtual time a limit costs nothing while something moves the clock, and a test in which
/// nothing does gets there at once. 100 days are far beyond what a test sleeps.
const VIRTUAL_TIMEOUT: f64 = 100.0 * 24.0 * 3600.0;

/// What a `#[test]` attribute said; its expansion makes one.
#[doc(hidden)]
#[derive(Debug)]
pub struct TestOptions {
    pub name: &'static str,
    /// In seconds.
    pub timeout: Option<f64>,
    pub virtual_time: bool,
}

/// Runs a test on a loop of its own, which is closed after.
#[doc(hidden)]
#[track_caller]
pub fn run_test<B, F>(options: TestOptions, body: B) -> F::Output
where
    B: FnOnce() -> F,
    F: Future,
{
    let TestOptions { name, timeout, virtual_time } = options;
    let mut builder = IoLoop::builder();
    if virtual_time {
        builder = builder.virtual_time();
    }
    let io_loop = match builder.build() {
        Ok(io_loop) => io_loop,
        Err(error) => panic!("cannot make a loop for `{name}`: {error}"),
    };
    let default = if virtual_time { VIRTUAL_TIMEOUT } else { TIMEOUT };
    let timeout = timeout.or_else(from_environment).unwrap_or(default);
    let timeout = Duration::try_from_secs_f64(timeout).unwrap_or(Duration::MAX);
    let output = io_loop.run_named(name, Some(timeout), body, Location::caller());
    io_loop.close();
    output.unwrap_or_else(|error| panic!("`{name}`: {error}"))
}

/// The limit in [`TIMEOUT_VARIABLE`], if that is a number of seconds above zero.
fn from_environment() -> Option<f64> {
    let seconds = std::env::var(TIMEOUT_VARIABLE).ok()?.parse().ok()?;
    (seconds > 0.0).then_some(seconds)
}
