//! `Deadline`: when something is due.

use std::time::{Duration, Instant};

/// When something is due: an instant, or a time from now. Both ways work wherever one is taken.
///
/// Instants are those of the loop's clock. In virtual time [`Instant::now`] is none of them, and may be
/// long past or far ahead there: [`coroutine::now`](crate::coroutine::now) is right on every clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// At this instant; one in the past is due at once.
    At(Instant),
    /// This long from now; [`Duration::MAX`] is never.
    After(Duration),
}

impl From<Instant> for Deadline {
    fn from(when: Instant) -> Deadline {
        Deadline::At(when)
    }
}

impl From<Duration> for Deadline {
    fn from(delay: Duration) -> Deadline {
        Deadline::After(delay)
    }
}
