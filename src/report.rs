//! Where failures go that nobody was listening for.
//!
//! A panic in a callback, an `Err` of a coroutine that was never awaited, an exception of a future
//! that was dropped unread: each ends here, once. The loop that is current on the thread has
//! installed its handler; without one, or by default, the failure is logged as an error.
//!
//! This stands below the loop so that the things a loop is made of can report without knowing it.

use std::cell::RefCell;
use std::fmt;
use std::panic::Location;
use std::rc::Rc;

use crate::error::ExcInfo;

/// A failure that nobody awaited; what [`Builder::on_exception`](crate::Builder::on_exception) gets.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Exception {
    /// What failed, as in "exception in callback".
    pub what: &'static str,
    /// The name of the coroutine, if it was one.
    pub name: Option<&'static str>,
    /// Where the callback was added, or the coroutine started.
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

pub(crate) type Handler = Rc<dyn Fn(&Exception)>;

thread_local! {
    static HANDLER: RefCell<Option<Handler>> = const { RefCell::new(None) };
}

/// Installs the handler of this thread and returns the one before it.
pub(crate) fn install(handler: Option<Handler>) -> Option<Handler> {
    HANDLER.try_with(|current| current.replace(handler)).ok().flatten()
}

/// Hands `exception` to this thread's handler, or logs it.
pub(crate) fn report(exception: Exception) {
    let handler = HANDLER.try_with(|current| current.borrow().clone()).ok().flatten();
    match handler {
        Some(handler) => handler(&exception),
        None => log(&exception),
    }
}

/// What happens by default: a line in the log. Without a logger it goes to standard error, as
/// Python's last resort does, for failures must not vanish.
pub(crate) fn log(exception: &Exception) {
    if log::log_enabled!(target: "waterspout", log::Level::Error) {
        log::error!(target: "waterspout", "{exception}");
    } else if log::max_level() == log::LevelFilter::Off {
        eprintln!("waterspout: {exception}");
    }
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
}
