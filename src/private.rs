//! What the attributes' expansions call. Not for people: it changes with the macros, without notice.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::panic::Location;

use crate::coroutine::{self, Coroutine, Kind, Outcome};
use crate::ioloop::IoLoop;
pub use crate::testing::{TestOptions, run_test};

/// Finds, at compile time, how to report a coroutine's result when nobody awaited it.
///
/// An `Err` whose type is `Debug` is worth a line in the log; anything else is not an error, or
/// cannot be written. A macro sees a return type only as tokens, which may spell an alias, so it
/// asks the compiler: both traits below have a method `report`, and the method call
/// `(&Probe::<T>::new()).report()` takes the one that needs fewer references. In a function generic
/// over `E` the answer is the one that holds for every `E`.
///
/// ```
/// use waterspout::__private::{Probe, ReportErr as _, ReportNothing as _};
///
/// let of_io = (&Probe::<std::io::Result<u8>>::new()).report();
/// assert_eq!(of_io(&Ok(1)), None);
/// assert!(of_io(&Err(std::io::ErrorKind::NotFound.into())).unwrap().contains("NotFound"));
///
/// let of_number = (&Probe::<u8>::new()).report();
/// assert_eq!(of_number(&1), None);
/// ```
pub struct Probe<T>(PhantomData<fn(&T)>);

impl<T> Probe<T> {
    /// A probe for results of type `T`.
    #[allow(clippy::new_without_default)] // an expansion spells `new`; nobody wants a default
    pub const fn new() -> Probe<T> {
        Probe(PhantomData)
    }
}

/// The answer for `Result<_, E>` where `E: Debug`.
pub trait ReportErr {
    /// What the probe asks about.
    type Output;
    /// The function that writes an `Err` down.
    fn report(&self) -> fn(&Self::Output) -> Option<String>;
}

impl<T, E: Debug> ReportErr for Probe<Result<T, E>> {
    type Output = Result<T, E>;
    fn report(&self) -> fn(&Result<T, E>) -> Option<String> {
        |result| result.as_ref().err().map(|error| format!("{error:?}"))
    }
}

/// The answer for everything else.
pub trait ReportNothing {
    /// What the probe asks about.
    type Output;
    /// [`report_nothing`].
    fn report(&self) -> fn(&Self::Output) -> Option<String>;
}

// One reference further away than `ReportErr`, which therefore wins where it applies.
impl<T> ReportNothing for &Probe<T> {
    type Output = T;
    fn report(&self) -> fn(&T) -> Option<String> {
        report_nothing
    }
}

/// For results that are never an error: there is nothing to say.
pub fn report_nothing<T>(_: &T) -> Option<String> {
    None
}

/// Holds an engine's declared return type to [`Outcome`].
pub const fn check_engine_output<T: Outcome>() {}

/// What `#[coroutine]` and `#[engine]` make of a call.
#[track_caller]
pub fn start<F: Future + 'static>(
    name: &'static str,
    report: fn(&F::Output) -> Option<String>,
    future: F,
) -> Coroutine<F::Output> {
    coroutine::start_as(Kind { name, report }, future)
}

/// What `#[main]` makes of `main`: a loop runs it, and is closed after.
#[track_caller]
pub fn run_main<F: Future>(future: F) -> F::Output {
    let io_loop = IoLoop::new().unwrap_or_else(|error| panic!("cannot make main's loop: {error}"));
    let output = io_loop.run_named("main", None, || future, Location::caller());
    io_loop.close();
    output.unwrap_or_else(|error| panic!("main has no result: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! report {
        ($ty:ty) => {
            (&Probe::<$ty>::new()).report()
        };
    }

    struct Silent;

    #[test]
    fn an_error_that_is_debug_is_written() {
        assert_eq!(report!(Result<u8, &'static str>)(&Err("no")).as_deref(), Some("\"no\""));
        assert_eq!(report!(Result<u8, &'static str>)(&Ok(1)), None);
        assert_eq!(report!(std::fmt::Result)(&Err(std::fmt::Error)).as_deref(), Some("Error"));
    }

    #[test]
    fn anything_else_is_nothing_to_report() {
        assert_eq!(report!(())(&()), None);
        assert_eq!(report!(Option<u8>)(&None), None);
        assert_eq!(report!(Result<u8, Silent>)(&Err(Silent)), None);
    }

    #[test]
    fn a_generic_error_is_written_where_its_bounds_say_that_it_can_be() {
        fn unbounded<T, E>(result: &Result<T, E>) -> Option<String> {
            report!(Result<T, E>)(result)
        }
        fn bounded<T, E: Debug>(result: &Result<T, E>) -> Option<String> {
            report!(Result<T, E>)(result)
        }
        assert_eq!(unbounded(&Err::<u8, u8>(5)), None);
        assert_eq!(bounded(&Err::<u8, u8>(5)).as_deref(), Some("5"));
    }
}
