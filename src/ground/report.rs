//! Where failures go that nobody was listening for.
//!
//! A panic in a callback, an `Err` of a coroutine that was never awaited, an exception of a future
//! that was dropped unread: each ends here, once. The loop that is current on the thread has
//! installed its handler; without one, or by default, the failure is logged as an error.
//!
//! This stands below the loop so that the things a loop is made of can report without knowing it.

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
    /// What failed, as in "exception in callback".
    pub what: &'static str,
    /// The name of the coroutine, or of what was called, if it has one.
    pub name: Option<&'static str>,
    /// Where the callback was added, the coroutine started, or the server made.
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

/// The targets of what is logged. lib.rs lists them for users: the one for what the user's own code has done
/// is Tornado's `tornado.application`; the others, by module, are its `tornado.general`.
pub(crate) const APPLICATION: &str = "waterspout::application";
pub(crate) const IOLOOP: &str = "waterspout::ioloop";
pub(crate) const IOSTREAM: &str = "waterspout::iostream";
pub(crate) const NET: &str = "waterspout::net";
#[cfg(feature = "process")]
pub(crate) const PROCESS: &str = "waterspout::process";

pub(crate) type Handler = Rc<dyn Fn(&Exception)>;

/// The payload of a panic.
pub(crate) type Panic = Box<dyn Any + Send>;

thread_local! {
    static HANDLER: RefCell<Option<Handler>> = const { RefCell::new(None) };
    /// A handler is at work on this thread.
    static IS_HANDLING: Cell<bool> = const { Cell::new(false) };
}

/// Installs the handler of this thread and returns the one before it.
pub(crate) fn install(handler: Option<Handler>) -> Option<Handler> {
    HANDLER.try_with(|current| current.replace(handler)).ok().flatten()
}

/// Hands `exception` to this thread's handler, which is the loop's and [hands it over](hand_over) to the
/// user's; or logs it.
pub(crate) fn report(exception: Exception) {
    let handler = HANDLER.try_with(|current| current.borrow().clone()).ok().flatten();
    match handler {
        Some(handler) => handler(&exception),
        None => hand_over(None, &exception),
    }
}

/// Hands `exception` to `handler`, or logs it where there is none.
///
/// A handler is foreign code, too. It may fail each time that it is called, so what fails while it runs is
/// logged and not handed to it again; nor is what fails later in a callback or coroutine that it has
/// started. Its own panic is logged with the exception that it did not deal with.
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

/// Whether this is a handler's doing.
#[inline(always)]
pub(crate) fn is_handling() -> bool {
    IS_HANDLING.get()
}

/// Whether what runs from here on is a handler's doing: the handler, or what it has started.
#[inline(always)]
pub(crate) fn set_handling(is_handling: bool) {
    IS_HANDLING.set(is_handling);
}

/// Whether this was a handler's doing before something that may change that; so it is again when this is
/// dropped.
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

/// Runs something that is a handler's doing.
pub(crate) fn handling<R>(run: impl FnOnce() -> R) -> R {
    let _before = Handling::keep();
    set_handling(true);
    run()
}

/// An error for the log.
pub(crate) fn error(target: &str, text: fmt::Arguments<'_>) {
    tell(Level::Error, target, text);
}

/// A warning for the log.
pub(crate) fn warn(target: &str, text: fmt::Arguments<'_>) {
    tell(Level::Warn, target, text);
}

/// A line for who looks for such. Without a logger there is none.
pub(crate) fn info(target: &str, text: fmt::Arguments<'_>) {
    if can_log(log::max_level(), log::STATIC_MAX_LEVEL) {
        tell(Level::Info, target, text);
    }
}

/// A line in the log. Where nothing can be logged at all it goes to standard error, as Python's last
/// resort does, for failures must not vanish; and so it does where the logger fails.
fn tell(level: Level, target: &str, text: fmt::Arguments<'_>) {
    // What is formatted, and the logger, are foreign.
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
    // Standard error may be closed, and there is nowhere left to say so.
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Whether anything reaches a logger. The level is `Off` at run time until a logger is set; `log`'s features
/// `max_level_off` and `release_max_level_off` make it so when the program is compiled, and then what is
/// logged vanishes although there is a logger. (A logger that is to have errors alone, and so gets no
/// warning, is the program's choice.)
fn can_log(at_run_time: LevelFilter, compiled_in: LevelFilter) -> bool {
    at_run_time.min(compiled_in) != LevelFilter::Off
}

/// Drops the payload of a panic. Its destructor may panic, too, with a payload of its own: what does
/// so again and again is left where it is.
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
