//! What a coroutine tells of itself: its name, where it was started, where it waits.
//!
//! The loop lists these ([`IoLoop::coroutines`](crate::IoLoop::coroutines)), and the error of a `run_sync`
//! that timed out carries those that were stuck. Errors do not import the loop, so this file stands beside
//! them.

use std::fmt;
use std::panic::Location;

/// A live coroutine, as [`IoLoop::coroutines`](crate::IoLoop::coroutines) lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CoroutineInfo {
    /// Its name: the path of the function, or the name given to `spawn_named`.
    pub name: &'static str,
    /// Where it was started.
    pub started_at: &'static Location<'static>,
    /// The line of the user's code where it waits. That is the line which called a function of this crate,
    /// `lock.acquire()` say, for the future that is now awaited. If it awaits another coroutine, it is the
    /// line where that one was started; if it awaits a promise's future or a stream (`queue.next()`), the
    /// line where that was made. `None` if it has not been resumed yet, or awaits a future of another crate
    /// that awaits none of this crate.
    pub waiting_at: Option<&'static Location<'static>>,
}

impl fmt::Display for CoroutineInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` started at {}", self.name, self.started_at)?;
        match self.waiting_at {
            Some(place) => write!(f, ", waiting at {place}"),
            None => Ok(()),
        }
    }
}
