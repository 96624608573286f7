//! Collects what fails during a test and is awaited by nobody in it, so that the test can fail by it.

use std::cell::{Cell, RefCell};
use std::fmt::Write;
use std::rc::Rc;

use super::expect_log;
use crate::ground::foreign;
use crate::ground::report::{self, Exception};

/// How many failures are kept. A test in which something fails over and over should not use up all memory.
const MAX_KEPT: usize = 100;

/// The failures that were reported to the loop of a test, without those that an
/// [`ExpectLog`](super::ExpectLog) expected.
#[derive(Clone, Default)]
pub(super) struct Background(Rc<Failures>);

#[derive(Default)]
struct Failures {
    count: Cell<usize>,
    first: RefCell<Vec<String>>,
}

impl Background {
    /// The exception handler for the loop of the test.
    pub(super) fn handler(&self) -> impl Fn(&Exception) + use<> {
        let failures = self.0.clone();
        move |exception| {
            // Formatting an error may run foreign code.
            let text = foreign::debug(&format_args!("{exception}"));
            if expect_log::is_expected(|| {
                report::error(report::APPLICATION, format_args!("{text}"))
            }) {
                return;
            }
            failures.count.set(failures.count.get() + 1);
            let mut first = failures.first.borrow_mut();
            if first.len() < MAX_KEPT {
                first.push(text);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.count.get() == 0
    }

    /// What is wrong with the test, if anything is: how its body has failed, and what failed in the
    /// background.
    pub(super) fn with(&self, body: Option<String>) -> Option<String> {
        if self.is_empty() {
            return body;
        }
        let (count, first) = (self.0.count.get(), self.0.first.borrow());
        let mut text = body.map(|body| format!("{body}\n")).unwrap_or_default();
        text.push_str("what failed in the background, which nobody awaited or expected:");
        for failure in &*first {
            text.push_str("\n  ");
            text.push_str(failure);
        }
        if count > first.len() {
            let _ = write!(text, "\n  and {} more", count - first.len());
        }
        Some(text)
    }
}
