//! A result that waits until somebody takes it, and is not lost if nobody does.

use super::foreign;
use super::report::{self, Exception};

/// A result that waits until somebody takes it. If it is dropped before that, and is a failure, it is
/// reported.
#[derive(Debug)]
pub(crate) struct Kept<T> {
    value: Option<T>,
    failure: fn(&T) -> Option<Exception>,
}

impl<T> Kept<T> {
    /// `failure` says what is reported if nobody takes the value; `None` if the value is no failure.
    pub(crate) fn new(value: T, failure: fn(&T) -> Option<Exception>) -> Kept<T> {
        Kept { value: Some(value), failure }
    }

    pub(crate) fn take(mut self) -> Option<T> {
        self.value.take()
    }
}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        let Some(value) = self.value.take() else { return };
        if let Some(exception) = (self.failure)(&value) {
            report::report(exception);
        }
        foreign::discard(value);
    }
}
