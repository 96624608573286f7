//! `Deadline`: when something is due.

use std::time::{Duration, Instant};

/// When something is due: at an instant, or after some time from now. Every function that takes a deadline
/// takes an [`Instant`] or a [`Duration`].
///
/// Instants are those of the loop's clock. If that clock is virtual, [`Instant::now`] has nothing to do
/// with it, and may be far in its past or future; [`coroutine::now`](crate::coroutine::now) is right with
/// every clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// At this instant. If it is in the past, that is at once.
    At(Instant),
    /// After this time from now. [`Duration::MAX`] is never.
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
