//! What was written to a stream and is unsent: the bytes, and a promise for each write that is not done.

use std::collections::VecDeque;

use crate::concurrent::Promise;
use crate::ground::error::StreamError;

/// The unsent bytes of a stream, and the writes that they belong to.
#[derive(Default)]
pub(super) struct Unsent {
    /// The bytes. While the transport is called with some of them, those are not in here.
    pub(super) bytes: VecDeque<u8>,
    /// How many bytes were written since the stream was made. Bytes that are written by way of `AsyncWrite`
    /// go to the transport without being kept here, and do not count.
    pub(super) written: u64,
    /// How many of those were sent.
    pub(super) sent: u64,
    /// The writes that are not done, in order. The number of each is what `written` was after its last byte
    /// was added: the write is done as soon as `sent` has reached that number.
    pub(super) writes: VecDeque<(u64, Promise<Result<(), StreamError>>)>,
}

impl Unsent {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.writes.is_empty()
    }

    /// Whether [`done`](Unsent::done) would give any write.
    pub(super) fn is_due(&self) -> bool {
        self.writes.front().is_some_and(|(last, _)| *last <= self.sent)
    }

    /// Takes out the writes whose last byte was sent. The caller settles their promises.
    pub(super) fn done(&mut self) -> Vec<Promise<Result<(), StreamError>>> {
        let done = self.writes.partition_point(|(last, _)| *last <= self.sent);
        self.writes.drain(..done).map(|(_, promise)| promise).collect()
    }

    /// Settles all writes with this error, which says that the stream is closed.
    pub(super) fn fail(self, error: &StreamError) {
        for (_, promise) in self.writes {
            promise.set_result(Err(error.clone()));
        }
    }
}
