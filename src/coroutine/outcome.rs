//! `Outcome`: what a coroutine that nobody awaits may return.

use std::convert::Infallible;
use std::fmt;

use crate::ground::foreign;

/// What a coroutine that nobody awaits may return: nothing, or a result whose error can be reported.
#[diagnostic::on_unimplemented(
    message = "what nobody awaits cannot return `{Self}`",
    label = "nobody would ever see this",
    note = "an engine or a spawned callback returns `()`, or `Result<(), E>` where `E: Debug`; \
            a coroutine can return anything"
)]
pub trait Outcome {
    /// The error, as text; `None` if it is none.
    fn error(&self) -> Option<String>;
}

impl Outcome for () {
    fn error(&self) -> Option<String> {
        None
    }
}

impl Outcome for Infallible {
    fn error(&self) -> Option<String> {
        None
    }
}

impl<E: fmt::Debug> Outcome for Result<(), E> {
    fn error(&self) -> Option<String> {
        self.as_ref().err().map(|error| foreign::debug(error))
    }
}
