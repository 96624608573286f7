//! Where failures go that nobody awaits.
//!
//! A panic in a callback, an `Err` of a coroutine that was never awaited, an exception of a future that was
//! dropped unread: each of them is reported here, once. The loop that is current on a thread has installed
//! its exception handler for the thread. Where there is none, the failure is logged as an error.
//!
//! This file knows no loop, so that the parts which a loop is made of can report failures, too.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::rc::Rc;

use log::{Level, LevelFilter};

use super::error::ExcInfo;

/// A failure that nobody awaited; what [`Builder::on_exception`](crate::Builder::on_exception) gets.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Exception {
    /// What kind of thing failed: `"callback"`, as in "exception in callback".
    pub what: &'static str,
    /// The name of the coroutine that failed, or of what was called, if it has one.
    pub name: Option<&'static str>,
    /// The line where the callback was added, the coroutine was started, or the server was made.
    pub location: Option<&'static Location<'static>>,
    /// The panic or the error.
    pub info: ExcInfo,
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exception in {}", self.what)?;
        if let Some(name) = self.name {
            write!(f, " `{name}`")?;
        }
        if let Some(location) = self.location {
            write!(f, " ({location})")?;
        }
        write!(f, ": {}", self.info)
    }
}

/// The targets of log records, which `lib.rs` lists for users. This one is for failures of the user's own
/// code (Tornado's `tornado.application`); those below are for what modules of this crate have to say
/// (`tornado.general`).
pub(crate) const APPLICATION: &str = "waterspout::application";
pub(crate) const IOLOOP: &str = "waterspout::ioloop";
pub(crate) const IOSTREAM: &str = "waterspout::iostream";
pub(crate) const NET: &str = "waterspout::net";
#[cfg(feature = "server")]
pub(crate) const HTTP: &str = "waterspout::http";
#[cfg(feature = "server")]
pub(crate) const ACCESS: &str = "waterspout::access";
#[cfg(feature = "process")]
pub(crate) const PROCESS: &str = "waterspout::process";

pub(crate) type ExceptionHandler = Rc<dyn Fn(&Exception)>;

/// The payload of a panic.
pub(crate) type Panic = Box<dyn Any + Send>;

thread_local! {
    /// The exception handler of this thread.
    static HANDLER: RefCell<Option<ExceptionHandler>> = const { RefCell::new(None) };
    /// Whether the exception handler runs on this thread, or something that it has started.
    static IS_HANDLING: Cell<bool> = const { Cell::new(false) };
}

/// Installs the exception handler of this thread and returns the one before it.
pub(crate) fn install(handler: Option<ExceptionHandler>) -> Option<ExceptionHandler> {
    HANDLER.try_with(|current| current.replace(handler)).ok().flatten()
}

/// Gives `exception` to this thread's exception handler, or logs it if there is none. The handler is the
/// loop's, which counts the exception and [hands it over](hand_over) to the user's.
pub(crate) fn report(exception: Exception) {
    let handler = HANDLER.try_with(|current| current.borrow().clone()).ok().flatten();
    match handler {
        Some(handler) => handler(&exception),
        None => hand_over(None, &exception),
    }
}

/// Calls the user's exception handler, or logs `exception` if there is none.
///
/// The handler is foreign code, too, and may fail each time that it is called. If it were called for its own
/// failures, that would go on for ever. So what fails while it runs is only logged, and so is what fails
/// later in a callback or coroutine that it has started. If it panics, its panic is logged together with the
/// exception that it was given.
pub(crate) fn hand_over(handler: Option<&dyn Fn(&Exception)>, exception: &Exception) {
    let handler = handler.filter(|_| !is_handling());
    let Some(handler) = handler else { return error(APPLICATION, format_args!("{exception}")) };
    let handled = catch_unwind(AssertUnwindSafe(|| handling(|| handler(exception))));
    if let Err(panic) = handled {
        let info = ExcInfo::from_panic(&*panic);
        error(APPLICATION, format_args!("on_exception, given {exception}: {info}"));
        discard_panic(panic);
    }
}

/// Whether what runs now is the exception handler, or was started by it.
#[inline(always)]
pub(crate) fn is_handling() -> bool {
    IS_HANDLING.get()
}

/// Says whether what runs from here on is the exception handler, or was started by it.
#[inline(always)]
pub(crate) fn set_handling(is_handling: bool) {
    IS_HANDLING.set(is_handling);
}

/// Restores what [`is_handling`] says now when this is dropped.
pub(crate) struct Handling {
    before: bool,
}

impl Handling {
    pub(crate) fn keep() -> Handling {
        Handling { before: is_handling() }
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        set_handling(self.before);
    }
}

/// Runs the exception handler, or something that it has started.
pub(crate) fn handling<R>(run: impl FnOnce() -> R) -> R {
    let _before = Handling::keep();
    set_handling(true);
    run()
}

/// Logs an error.
pub(crate) fn error(target: &str, text: fmt::Arguments<'_>) {
    tell(Level::Error, target, text);
}

/// Logs a warning.
pub(crate) fn warn(target: &str, text: fmt::Arguments<'_>) {
    tell(Level::Warn, target, text);
}

/// Logs a line of information, or leaves it out, as [`tell_if_logged`] does.
pub(crate) fn info(target: &str, text: fmt::Arguments<'_>) {
    tell_if_logged(Level::Info, target, text);
}

/// Logs a line. Where nothing can be logged it is left out, and does not go to standard error.
pub(crate) fn tell_if_logged(level: Level, target: &str, text: fmt::Arguments<'_>) {
    if can_log(log::max_level(), log::STATIC_MAX_LEVEL) {
        tell(level, target, text);
    }
}

/// Logs a line. Where nothing can be logged at all, or the logger panics, the line goes to standard error, as
/// Python's last resort does, because failures must not vanish.
fn tell(level: Level, target: &str, text: fmt::Arguments<'_>) {
    // The logger is foreign code, and so is the formatting of the user's errors.
    let logged = catch_unwind(AssertUnwindSafe(|| {
        if log::log_enabled!(target: target, level) {
            log::log!(target: target, level, "{text}");
        }
    }));
    let failed = match logged {
        Ok(()) if can_log(log::max_level(), log::STATIC_MAX_LEVEL) => return,
        Ok(()) => String::new(),
        Err(panic) => {
            let failed = format!(" (the logger, or the text: {})", ExcInfo::from_panic(&*panic));
            discard_panic(panic);
            failed
        }
    };
    let line = catch_unwind(AssertUnwindSafe(|| format!("waterspout: {text}{failed}\n")));
    let line = line.unwrap_or_else(|panic| {
        discard_panic(panic);
        format!("waterspout: something failed{failed}\n")
    });
    // Writing fails if standard error is closed, and there is nowhere left to say so.
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Whether anything can reach a logger. At run time the highest level is `Off` until the program sets a
/// logger. When the program is compiled, `log`'s features `max_level_off` and `release_max_level_off` make
/// it `Off`, and then log records vanish although there is a logger. (If the program has its logger take
/// errors alone, warnings vanish, but that is its choice.)
fn can_log(at_run_time: LevelFilter, compiled_in: LevelFilter) -> bool {
    at_run_time.min(compiled_in) != LevelFilter::Off
}

/// Drops the payload of a panic. The payload's destructor may panic, too, with a payload of its own, and so
/// on: the third such payload is leaked.
pub(crate) fn discard_panic(mut panic: Panic) {
    for _ in 0..3 {
        match catch_unwind(AssertUnwindSafe(|| drop(panic))) {
            Ok(()) => return,
            Err(next) => panic = next,
        }
    }
    std::mem::forget(panic);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_says_what_failed_and_where() {
        let exception = Exception {
            what: "coroutine",
            name: Some("app::echo"),
            location: None,
            info: ExcInfo::Panic("boom".into()),
        };
        assert_eq!(exception.to_string(), "exception in coroutine `app::echo`: panicked: boom");
    }

    #[test]
    fn what_is_logged_vanishes_where_it_is_off_at_run_time_or_was_compiled_out() {
        use LevelFilter::{Error, Off, Trace};
        assert!(can_log(Error, Trace) && can_log(Trace, Error));
        assert!(!can_log(Off, Trace) && !can_log(Trace, Off));
    }
}
