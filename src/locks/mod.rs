//! Locks for the coroutines of one thread. Tornado's `locks`.
//!
//! | for | use |
//! | --- | --- |
//! | one at a time, over some state | [`Lock`] |
//! | many who read it, or one who changes it | [`RwLock`] |
//! | at most so many at a time | [`Semaphore`], [`BoundedSemaphore`] |
//! | waiting until something has happened, for good | [`Event`] |
//! | waiting until something changes, again and again | [`Condition`] |
//! | the same, and a change that nobody waited for is kept | [`Notify`] |
//!
//! Coroutines of one thread never run at the same time, so what is not kept across an `.await`
//! needs none of these: a [`Cell`](std::cell::Cell) or a [`RefCell`](std::cell::RefCell) will do.
//!
//! All are handles: a clone is the same lock. All are fair: waiters are served first in first out,
//! what is released goes to the one who has waited longest, and nobody barges in between. None takes
//! a time-out: [`with_timeout`](crate::coroutine::with_timeout) goes around any of them, and a waiter
//! that is dropped leaves the queue and takes nothing with it. They know no loop: whatever polls them
//! can wait for them, on the thread on which they were made. (They are not `Send`; between threads there
//! is [`channel`](crate::concurrent::channel).) Their `Debug` form tells how many wait, as Tornado's
//! `__repr__` does.
//!
//! # Panics
//!
//! Waiting panics if a lock has as many waiters already as it can have: 16,777,215, or 262,143 on 32-bit
//! targets.

mod condition;
mod event;
mod lock;
mod notify;
mod rw_lock;
mod semaphore;

pub use condition::Condition;
pub use event::Event;
pub use lock::{Lock, LockGuard};
pub use notify::Notify;
pub use rw_lock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use semaphore::{BoundedSemaphore, Permit, ReleasedTooOften, Semaphore};
