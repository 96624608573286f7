//! What a test expects in the log.
//!
//! The `log` crate has one logger a process, and the tests of a process run on many threads at once.
//! So the logger here, which is installed once, keeps no expectations itself: each thread has its
//! own, and a record is held against those of the thread that logs it. What nobody expects goes on
//! to the logger beneath.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::Location;
use std::rc::Rc;
use std::sync::OnceLock;

use log::{Level, LevelFilter, Log, Metadata, Record};

/// The logger that [`ExpectLog`] needs; it passes on what is not expected.
///
/// The first [`ExpectLog`] installs it, over one that writes warnings and errors to standard error.
/// A process that wants another one beneath calls [`Logger::install`] before, in every test that
/// logs: the first call counts.
#[derive(Debug)]
pub struct Logger(());

static LOGGER: Logger = Logger(());
static BENEATH: OnceLock<Box<dyn Log>> = OnceLock::new();
/// Whether installing went well, once it was tried.
static INSTALLED: OnceLock<bool> = OnceLock::new();

thread_local! {
    /// The last is the innermost.
    static EXPECTED: RefCell<Vec<Rc<Expected>>> = const { RefCell::new(Vec::new()) };
    /// How many records were expected.
    static MATCHED: Cell<u64> = const { Cell::new(0) };
}

/// Whether what `log` logs is expected.
pub(super) fn is_expected(log: impl FnOnce()) -> bool {
    let before = MATCHED.get();
    log();
    MATCHED.get() != before
}

impl Logger {
    /// Makes this the logger of the process, over `beneath`, and lets records of all levels through
    /// to it. Does nothing if it is installed already.
    ///
    /// # Panics
    ///
    /// If the process has another logger: that one cannot be replaced, so give it to this function
    /// instead of installing it.
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
        // Formatting is foreign code: nothing is borrowed now.
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

/// Warnings and errors, where the test harness shows them.
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

/// How the message of an expected record or panic begins.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Pattern {
    /// With this text.
    Text(String),
    /// With a match of this.
    #[cfg(feature = "regex")]
    #[cfg_attr(docsrs, doc(cfg(feature = "regex")))]
    Regex(regex::Regex),
}

impl Pattern {
    pub(super) fn matches(&self, message: &str) -> bool {
        match self {
            Pattern::Text(text) => message.starts_with(text),
            #[cfg(feature = "regex")]
            // The leftmost match is found, so one at the start is if there is one.
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

/// Expects records in the log of this thread, as long as it lives. Tornado: `ExpectLog`.
///
/// Records that match are kept from the log; others are passed on. Of several that would match, the
/// one that was made last counts. What it expects of a test's loop does not
/// [fail the test](super#what-fails-in-the-background). It is a guard of one thread, and may be held while
/// awaiting: all coroutines of a loop log on its thread.
///
/// std prints the message of a panic although it is expected here when it is reported; that is what
/// [`ExpectPanic`](super::ExpectPanic) is for.
///
/// # What there is to expect
///
/// The crate logs these, each beginning so. Behind "exception in" and what has failed come the name of the
/// coroutine or handler, if it has one, the place where it was added or started, and the error.
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
/// A [slow callback](crate::Builder::slow_callback) that is a coroutine's or a handler's has its name where
/// "the callback added at" stands here.
///
/// # Panics
///
/// When it is dropped, if nothing matched, unless it is [`optional`](ExpectLog::optional) or the
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
    /// Not `Send`: it has to be dropped on its thread.
    expected: Rc<Expected>,
    required: bool,
    made_at: &'static Location<'static>,
}

impl ExpectLog {
    /// Expects records whose target is `target` or within it, as modules are (all, if it is empty),
    /// and whose message begins as `pattern` says.
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

    /// Only records of this level match.
    pub fn level(self, level: Level) -> ExpectLog {
        self.expected.level.set(Some(level));
        self
    }

    /// It is all the same if nothing matches. Tornado: `required=False`.
    pub fn optional(mut self) -> ExpectLog {
        self.required = false;
        self
    }

    /// How many records have matched.
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
