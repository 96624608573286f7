//! A result that waits for whoever is to take it.

use super::foreign;
use super::report::{self, Exception};

/// A result that waits for somebody to take it. If nobody does, and it is a failure, it is reported.
#[derive(Debug)]
pub(crate) struct Kept<T> {
    value: Option<T>,
    failure: fn(&T) -> Option<Exception>,
}

impl<T> Kept<T> {
    /// `failure` tells what is to be reported of the value, if nobody takes it.
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
