//! What a coroutine tells of itself: its name, where it was started, where it waits.
//!
//! The loop lists these ([`IoLoop::coroutines`](crate::IoLoop::coroutines)), and an error of `run_sync`
//! carries those that were stuck. Errors are below the loop, and so is this.

use std::fmt;
use std::panic::Location;

/// A live coroutine, as [`IoLoop::coroutines`](crate::IoLoop::coroutines) lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CoroutineInfo {
    /// Its name: the path of the function, or what `spawn_named` said.
    pub name: &'static str,
    /// Where it was started.
    pub started_at: &'static Location<'static>,
    /// The line in which its user waits: of the call of this crate that gave the future which is
    /// awaited, `lock.acquire()` say. A coroutine that is awaited is told by where it was started, a
    /// promise's future and a stream (`queue.next()`) by where they were made. `None` before its first
    /// step, or if what it awaits is of another crate and awaits nothing of this one.
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
