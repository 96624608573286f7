//! Panics that a test expects, and that should not be printed.
//!
//! std prints a panic when it is thrown, before anybody can know who will catch it. So a test says beforehand
//! which panics it expects, by their messages, and its thread keeps a list of these. The panic hook of the
//! process looks into the list of the thread that panics; if the panic is not there, the hook calls the one
//! that was installed before.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{self, Location};
use std::rc::Rc;
use std::sync::Once;
use std::thread;

use super::Pattern;
use crate::ground::error::panic_message;

thread_local! {
    static EXPECTED: RefCell<Vec<Rc<Expected>>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug)]
struct Expected {
    pattern: Pattern,
    count: Cell<usize>,
}

/// Expects panics on this thread, as long as this lives: std does not print their messages.
///
/// It is for panics that are contained, as those of callbacks and coroutines are, or that the test
/// catches. If they are also logged, expect that by an [`ExpectLog`](super::ExpectLog), with the text of
/// the log record. Panics whose message begins otherwise are printed as always, so that a test that fails
/// says why. If a test fails by a panic whose message begins like the expected one, it fails all the same,
/// but the message is not printed: so expect more than a word or two.
///
/// The first `ExpectPanic` of the process installs a panic hook. For panics that are not expected, that
/// calls the hook that was installed before. If you install one of your own later, it should call the one
/// that it [takes](std::panic::take_hook), or it will print expected panics, too. (A hook that another
/// thread installs at the same moment may be lost, since std cannot exchange hooks in one step.) Other
/// threads, those of executors for instance, have expectations of their own.
///
/// # Panics
///
/// Dropping it panics if nothing has panicked as expected, unless the thread is panicking already.
///
/// ```
/// use waterspout::{IoLoop, testing::{ExpectLog, ExpectPanic, settle}};
///
/// # IoLoop::new()?.run_sync(|| async {
/// let (panics, logged) = (
///     ExpectPanic::new("the callback's own fault"),
///     ExpectLog::new("waterspout::application", "exception in callback"),
/// );
/// IoLoop::current().add_callback(|| panic!("the callback's own fault"));
/// settle().await;
/// assert_eq!((panics.count(), logged.count()), (1, 1));
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "it expects panics until it is dropped"]
#[derive(Debug)]
pub struct ExpectPanic {
    /// An `Rc`, so that this is not `Send`: it has to be dropped on its thread, whose list it is in.
    expected: Rc<Expected>,
    made_at: &'static Location<'static>,
}

impl ExpectPanic {
    /// Expects panics whose message begins as `pattern` says. A payload of
    /// [`panic_any`](std::panic::panic_any) that is not text has the message by which it is reported: "a
    /// payload that is not text".
    #[track_caller]
    pub fn new(pattern: impl Into<Pattern>) -> ExpectPanic {
        install();
        let expected = Rc::new(Expected { pattern: pattern.into(), count: Cell::new(0) });
        EXPECTED.with(|all| all.borrow_mut().push(expected.clone()));
        ExpectPanic { expected, made_at: Location::caller() }
    }

    /// How many panics have matched so far.
    pub fn count(&self) -> usize {
        self.expected.count.get()
    }
}

impl Drop for ExpectPanic {
    fn drop(&mut self) {
        let _ = EXPECTED.try_with(|all| {
            all.borrow_mut().retain(|expected| !Rc::ptr_eq(expected, &self.expected));
        });
        if self.count() == 0 && !thread::panicking() {
            let (pattern, made_at) = (&self.expected.pattern, self.made_at);
            panic!("nothing panicked with a message that begins with {pattern} ({made_at})");
        }
    }
}

/// Installs the panic hook, once. A thread that is panicking must not change hooks: then the next call
/// does it.
fn install() {
    static INSTALLED: Once = Once::new();
    if thread::panicking() {
        return;
    }
    INSTALLED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !is_expected(info.payload()) {
                before(info);
            }
        }));
    });
}

/// Whether this thread expects a panic with this payload, which then counts. The hook calls this during a
/// panic, when another panic would abort the process: so where something fails here, the answer is no.
fn is_expected(payload: &(dyn Any + Send)) -> bool {
    let find = |all: &RefCell<Vec<Rc<Expected>>>| {
        let all = all.try_borrow().ok()?;
        let mut latest_first = all.iter().rev();
        latest_first.find(|it| it.pattern.matches(panic_message(payload))).cloned()
    };
    let found = EXPECTED.try_with(find).ok().flatten();
    if let Some(expected) = &found {
        expected.count.set(expected.count.get() + 1);
    }
    found.is_some()
}
