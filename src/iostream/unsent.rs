//! What was written to a stream and is unsent: bytes, and those who wait until theirs are sent.

use std::collections::VecDeque;

use crate::concurrent::Promise;
use crate::ground::error::StreamError;

/// What was written and is unsent.
#[derive(Default)]
pub(super) struct Unsent {
    /// The bytes. (Those that the transport is being given just then are out of here meanwhile.)
    pub(super) bytes: VecDeque<u8>,
    /// How many bytes were written and sent since the stream was made. (Those that were written as
    /// `AsyncWrite` has it are never unsent, and do not count.)
    pub(super) written: u64,
    pub(super) sent: u64,
    /// The writes that are not done, in order, each with what `written` was when its last byte was in: it
    /// is done when `sent` has come that far.
    pub(super) writes: VecDeque<(u64, Promise<Result<(), StreamError>>)>,
}

impl Unsent {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.writes.is_empty()
    }

    /// Whether a write can be told that it is done.
    pub(super) fn is_due(&self) -> bool {
        self.writes.front().is_some_and(|(last, _)| *last <= self.sent)
    }

    /// Takes out the writes whose last byte is sent.
    pub(super) fn done(&mut self) -> Vec<Promise<Result<(), StreamError>>> {
        let done = self.writes.partition_point(|(last, _)| *last <= self.sent);
        self.writes.drain(..done).map(|(_, promise)| promise).collect()
    }

    /// Tells all of them that the stream is closed.
    pub(super) fn fail(self, error: &StreamError) {
        for (_, promise) in self.writes {
            promise.set_result(Err(error.clone()));
        }
    }
}
