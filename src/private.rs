//! What the code that the attributes generate calls. It is not for people: it changes together with the
//! macros, without notice.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::panic::Location;

use crate::coroutine::{self, Coroutine, Kind, Name, Outcome};
use crate::ground::foreign;
use crate::ioloop::Builder;
pub use crate::testing::{TestOptions, run_test};

/// Finds, at compile time, how to report a coroutine's result when nobody awaited it.
///
/// An `Err` whose error is `Debug` is worth a line in the log; anything else is not an error, or cannot be
/// written down. A macro sees the return type only as tokens, and these may name an alias, so it leaves the
/// question to the compiler: `Probe::<T>::REPORT` is the type's own constant if `T` is such a result, since
/// that goes before a trait's; otherwise it is the one of the trait [`ReportNothing`]. In a function that is
/// generic over `E`, the compiler takes the constant that is right for every `E`.
///
/// ```
/// use waterspout::__private::{Probe, ReportNothing as _};
///
/// let of_io = Probe::<std::io::Result<u8>>::REPORT;
/// assert_eq!(of_io(&Ok(1)), None);
/// assert!(of_io(&Err(std::io::ErrorKind::NotFound.into())).unwrap().contains("NotFound"));
///
/// let of_number = Probe::<u8>::REPORT;
/// assert_eq!(of_number(&1), None);
/// ```
pub struct Probe<T>(PhantomData<fn(&T)>);

impl<T, E: Debug> Probe<Result<T, E>> {
    /// Gives the error of an `Err`, as text.
    pub const REPORT: fn(&Result<T, E>) -> Option<String> =
        |result| result.as_ref().err().map(|error| foreign::debug(error));
}

/// The answer of [`Probe`] for all other types.
pub trait ReportNothing {
    /// The coroutine's output.
    type Output;
    /// [`report_nothing`].
    const REPORT: fn(&Self::Output) -> Option<String>;
}

impl<T> ReportNothing for Probe<T> {
    type Output = T;
    const REPORT: fn(&T) -> Option<String> = report_nothing;
}

/// For outputs that are not reported: it gives no text.
pub fn report_nothing<T>(_: &T) -> Option<String> {
    None
}

/// Compiles only if the declared return type of an `#[engine]` is an [`Outcome`].
pub const fn check_engine_output<T: Outcome>() {}

/// What an attribute knows of the function on which it stands.
pub struct Declared<T> {
    /// The coroutine's name, if the attribute gives one; otherwise it is the function's path.
    pub name: Option<&'static str>,
    /// Gives the text to report, if an output is an error.
    pub report: fn(&T) -> Option<String>,
    /// Where the function is declared.
    pub at: &'static Location<'static>,
}

/// Where this is called.
#[track_caller]
pub fn here() -> &'static Location<'static> {
    Location::caller()
}

/// Starts a coroutine: the body of a function with `#[coroutine]` or `#[engine]` calls this.
#[track_caller]
pub fn start<F: Future + 'static>(
    declared: impl Fn() -> Declared<F::Output> + 'static,
    future: F,
) -> Coroutine<F::Output> {
    let kind = move || {
        let Declared { name, report, at } = declared();
        let name = name.map_or(Name::Of(coroutine::name_of::<F>), Name::Given);
        Kind { name, report, at: Some(at) }
    };
    coroutine::start_as(kind, future)
}

/// Runs `main` on a loop of its own, and closes that afterwards: the body of a `main` with `#[main]` calls
/// this.
#[track_caller]
pub fn run_main<F: Future>(builder: Builder, future: F) -> F::Output {
    let built = builder.build();
    let io_loop = built.unwrap_or_else(|error| panic!("cannot make main's loop: {error}"));
    let output = io_loop.run_named("main", None, || future, Location::caller());
    io_loop.close();
    output.unwrap_or_else(|error| panic!("main has no result: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! report {
        ($ty:ty) => {
            Probe::<$ty>::REPORT
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
