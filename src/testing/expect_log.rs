//! What a test expects in the log.
//!
//! The `log` crate has one logger for a process, but the tests of a process run on many threads at once. So
//! the logger here, which is installed once, keeps no expectations itself: each thread has a list of its own,
//! and a record is compared with the list of the thread that logs it. A record that nobody expects goes on to
//! another logger, which is *beneath* this one.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::Location;
use std::rc::Rc;
use std::sync::OnceLock;

use log::{Level, LevelFilter, Log, Metadata, Record};

/// The logger that [`ExpectLog`] needs. It passes records that are not expected on to another logger, the one
/// beneath it.
///
/// The first [`ExpectLog`] of the process installs it, over one that writes warnings and errors to
/// standard error. If you want another one beneath, call [`Logger::install`] before that: since tests run
/// in any order, do so in every test that logs. The first call counts.
#[derive(Debug)]
pub struct Logger(());

static LOGGER: Logger = Logger(());
static BENEATH: OnceLock<Box<dyn Log>> = OnceLock::new();
/// Whether the logger could be installed; empty before that was tried.
static INSTALLED: OnceLock<bool> = OnceLock::new();

thread_local! {
    /// What is expected on this thread, in the order in which it was said.
    static EXPECTED: RefCell<Vec<Rc<Expected>>> = const { RefCell::new(Vec::new()) };
    /// How many records of this thread have matched an expectation.
    static MATCHED: Cell<u64> = const { Cell::new(0) };
}

/// Calls `log`, and tells whether a record that it has logged was expected.
pub(super) fn is_expected(log: impl FnOnce()) -> bool {
    let before = MATCHED.get();
    log();
    MATCHED.get() != before
}

impl Logger {
    /// Makes this the logger of the process, with `beneath` beneath it, and sets the maximal level so that
    /// records of all levels get to it. If it is installed already, this does nothing.
    ///
    /// # Panics
    ///
    /// If the process has another logger, which cannot be replaced: give that one to this function instead of
    /// installing it.
    #[track_caller]
    pub fn install(beneath: impl Log + 'static) {
        let installed = *INSTALLED.get_or_init(|| {
            let installed = log::set_logger(&LOGGER).is_ok();
            if installed {
                let _ = BENEATH.set(Box::new(beneath));
                log::set_max_level(LevelFilter::Trace);
            }
            installed
        });
        assert!(
            installed,
            "the process has a logger already: call `testing::Logger::install` with that one instead"
        );
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let expecting = EXPECTED.try_with(|expected| !expected.borrow().is_empty());
        expecting.unwrap_or(false) || BENEATH.get().is_some_and(|log| log.enabled(metadata))
    }

    fn log(&self, record: &Record<'_>) {
        let expected = EXPECTED.try_with(|expected| expected.borrow().clone()).unwrap_or_default();
        // Formatting runs foreign code, so nothing is borrowed now.
        let message = record.args().to_string();
        if let Some(expected) = expected.iter().rev().find(|it| it.matches(record, &message)) {
            expected.count.set(expected.count.get() + 1);
            MATCHED.set(MATCHED.get().wrapping_add(1));
        } else if let Some(beneath) = BENEATH.get().filter(|log| log.enabled(record.metadata())) {
            beneath.log(record);
        }
    }

    fn flush(&self) {
        if let Some(beneath) = BENEATH.get() {
            beneath.flush();
        }
    }
}

/// Writes warnings and errors to standard error, which the test harness shows if the test fails.
struct StandardError;

impl Log for StandardError {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        eprintln!("[{} {}] {}", record.level(), record.target(), record.args());
    }

    fn flush(&self) {}
}

/// How the message of an expected record or panic begins. It can be made of a `&str`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Pattern {
    /// It begins with this text.
    Text(String),
    /// It begins with a match of this regular expression.
    #[cfg(feature = "regex")]
    #[cfg_attr(docsrs, doc(cfg(feature = "regex")))]
    Regex(regex::Regex),
}

impl Pattern {
    pub(super) fn matches(&self, message: &str) -> bool {
        match self {
            Pattern::Text(text) => message.starts_with(text),
            #[cfg(feature = "regex")]
            // `find` gives the leftmost match: so if there is one at the start, it gives that.
            Pattern::Regex(regex) => regex.find(message).is_some_and(|found| found.start() == 0),
        }
    }
}

impl From<&str> for Pattern {
    fn from(text: &str) -> Pattern {
        Pattern::Text(text.into())
    }
}

#[cfg(feature = "regex")]
impl From<regex::Regex> for Pattern {
    fn from(regex: regex::Regex) -> Pattern {
        Pattern::Regex(regex)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Text(text) => write!(f, "{text:?}"),
            #[cfg(feature = "regex")]
            Pattern::Regex(regex) => write!(f, "/{regex}/"),
        }
    }
}

#[derive(Debug)]
struct Expected {
    target: String,
    pattern: Pattern,
    level: Cell<Option<Level>>,
    count: Cell<usize>,
}

impl Expected {
    fn matches(&self, record: &Record<'_>, message: &str) -> bool {
        let rest = record.target().strip_prefix(&*self.target);
        let within =
            |rest: &str| rest.is_empty() || self.target.is_empty() || rest.starts_with("::");
        rest.is_some_and(within)
            && self.level.get().is_none_or(|level| level == record.level())
            && self.pattern.matches(message)
    }
}

/// Expects records that this thread logs, as long as this lives. Tornado: `ExpectLog`.
///
/// Records that match are kept from the log; others are passed on. If a record matches several of these,
/// it counts for the one that was made last. A failure that is expected by this does not [fail the
/// test](super#what-fails-in-the-background). It is a guard of one thread, and may be held across an
/// `.await`: all coroutines of a loop log on its thread.
///
/// If the failure is a panic, std prints its message all the same: it does so when the panic is thrown,
/// before it is reported. To keep it from that, there is [`ExpectPanic`](super::ExpectPanic).
///
/// # What there is to expect
///
/// The crate logs the following; a text is how the message begins. After "exception in" and what has failed,
/// the message has the name of the coroutine or handler, if it has one, the place where it was added or
/// started, and the error.
///
/// | target | level | text |
/// | --- | --- | --- |
/// | `waterspout::application` | error | `exception in callback` |
/// | `waterspout::application` | error | `exception in coroutine` |
/// | `waterspout::application` | error | `exception in coroutine of a task group` |
/// | `waterspout::application` | error | `exception in the destructors of coroutine` |
/// | `waterspout::application` | error | `exception in whoever awaits coroutine` |
/// | `waterspout::application` | error | `exception in handler` |
/// | `waterspout::application` | error | `exception in a connection handler` |
/// | `waterspout::application` | error | `exception in a request handler` |
/// | `waterspout::application` | error | `exception in a listener` |
/// | `waterspout::application` | error | `exception in a signal's callback` |
/// | `waterspout::application` | error | `exception in a Future whose exception was never retrieved` |
/// | `waterspout::application` | error | `exception in multi, which was dropped` |
/// | `waterspout::application` | error | `exception in waker` |
/// | `waterspout::application` | error | `exception in destructor` |
/// | `waterspout::application` | error | `exception in order of a queue's items` |
/// | `waterspout::application` | error | `exception in what a stream is over` |
/// | `waterspout::application` | error | `one more error of multi` |
/// | `waterspout::application` | error | `on_exception, given exception in` |
/// | `waterspout::ioloop` | warn | `the callback added at` |
/// | `waterspout::ioloop` | error | `the handler of fd` |
/// | `waterspout::ioloop` | error | `cannot wake` |
/// | `waterspout::iostream` | info | `what was to be read is not within` |
/// | `waterspout::iostream` | info | `the read buffer is full with` |
/// | `waterspout::net` | info | `no handshake with` |
/// | `waterspout::net` | warn | `accepting on` |
/// | `waterspout::process` | error | `worker` |
/// | `waterspout::process` | warn | `worker` |
///
/// The message of a [slow callback](crate::Builder::slow_callback) begins with the name of the coroutine or
/// handler instead of "the callback added at" if one of these was slow.
///
/// # Panics
///
/// Dropping it panics if no record has matched, unless it is [`optional`](ExpectLog::optional) or the
/// thread is panicking already.
///
/// ```
/// use waterspout::testing::ExpectLog;
///
/// let expected = ExpectLog::new("app", "it broke");
/// log::error!(target: "app::disk", "it broke: no space");
/// assert_eq!(expected.count(), 1);
/// ```
#[must_use = "it expects records until it is dropped"]
#[derive(Debug)]
pub struct ExpectLog {
    /// An `Rc`, so that this is not `Send`: it has to be dropped on its thread, whose list it is in.
    expected: Rc<Expected>,
    /// Whether dropping this panics if no record has matched.
    required: bool,
    made_at: &'static Location<'static>,
}

impl ExpectLog {
    /// Expects records whose message begins as `pattern` says, and whose target is `target` or within it,
    /// as a module is within another: `app` matches `app::disk`, too. An empty `target` matches all.
    ///
    /// # Panics
    ///
    /// As [`Logger::install`].
    #[track_caller]
    pub fn new(target: &str, pattern: impl Into<Pattern>) -> ExpectLog {
        Logger::install(StandardError);
        let expected = Rc::new(Expected {
            target: target.into(),
            pattern: pattern.into(),
            level: Cell::new(None),
            count: Cell::new(0),
        });
        EXPECTED.with(|all| all.borrow_mut().push(expected.clone()));
        ExpectLog { expected, required: true, made_at: Location::caller() }
    }

    /// Lets only records of this level match.
    pub fn level(self, level: Level) -> ExpectLog {
        self.expected.level.set(Some(level));
        self
    }

    /// Does not panic if no record matches. Tornado: `required=False`.
    pub fn optional(mut self) -> ExpectLog {
        self.required = false;
        self
    }

    /// How many records have matched so far.
    pub fn count(&self) -> usize {
        self.expected.count.get()
    }
}

impl Drop for ExpectLog {
    fn drop(&mut self) {
        let _ = EXPECTED.try_with(|all| {
            all.borrow_mut().retain(|expected| !Rc::ptr_eq(expected, &self.expected));
        });
        if self.required && self.count() == 0 && !std::thread::panicking() {
            let Expected { target, pattern, .. } = &*self.expected;
            let made_at = self.made_at;
            panic!("nothing was logged for {target:?} that begins with {pattern} ({made_at})");
        }
    }
}
