//! Panics that a test expects, and that are not to be printed.
//!
//! std prints a panic when it is thrown, before anybody can know who will catch it. So a test says
//! beforehand which ones it expects, by their messages, and a hook of the process asks the thread
//! that panics. What no test expects goes on to the hook that was there before.

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

/// Expects panics on this thread, as long as it lives: std does not print their message.
///
/// For panics that are contained, as those of callbacks and coroutines are, or caught by the test. Whether
/// they are reported is another matter: that is for [`ExpectLog`](super::ExpectLog) to expect, by the text
/// of the record. Panics whose message begins otherwise are printed as ever, so a test that fails says why.
/// A test that fails by a panic that begins like the expected one fails all the same, but std's message is
/// missing: expect more than a word or two.
///
/// The first one installs a panic hook for the process, over the one there is, which is still called for
/// what is not expected. A hook of your own may come before, or after if it calls the one that it
/// [takes](std::panic::take_hook); one that does not call that prints expected panics, too. (A hook that
/// another thread sets in the same moment may be lost: std has no way to exchange them at once.) Other
/// threads, those of executors for instance, have expectations of their own.
///
/// # Panics
///
/// When it is dropped, if nothing panicked as expected, unless the thread is panicking already.
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
    /// Not `Send`: it has to be dropped on its thread.
    expected: Rc<Expected>,
    made_at: &'static Location<'static>,
}

impl ExpectPanic {
    /// Expects panics whose message begins as `pattern` says. What is thrown by
    /// [`panic_any`](std::panic::panic_any) and is no text has the message that is reported of it: "a payload
    /// that is not text".
    #[track_caller]
    pub fn new(pattern: impl Into<Pattern>) -> ExpectPanic {
        install();
        let expected = Rc::new(Expected { pattern: pattern.into(), count: Cell::new(0) });
        EXPECTED.with(|all| all.borrow_mut().push(expected.clone()));
        ExpectPanic { expected, made_at: Location::caller() }
    }

    /// How many have come.
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

/// Puts the hook over the one there is, once. A thread that panics may not change hooks: there it is left to
/// the next one.
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

/// A second panic in here would abort the process, so all that can fail says no.
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
