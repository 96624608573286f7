//! Locks for the coroutines of one thread. Tornado's `locks`.
//!
//! | for | use |
//! | --- | --- |
//! | a value that one coroutine at a time may use | [`Lock`] |
//! | a value that many may read at a time, or one may change | [`RwLock`] |
//! | at most `n` coroutines at a time doing something | [`Semaphore`], [`BoundedSemaphore`] |
//! | waiting until something has happened, for good | [`Event`] |
//! | waiting until something changes, again and again | [`Condition`] |
//! | the same, but a change is kept for whoever comes next if nobody waits | [`Notify`] |
//!
//! Coroutines of one thread never run at the same time. So state that no coroutine keeps borrowed across an
//! `.await` needs none of these: a [`Cell`](std::cell::Cell) or a [`RefCell`](std::cell::RefCell) will do.
//!
//! Each of them is a handle: a clone is the same lock. All are fair: waiters are served first in first out,
//! and what is released goes straight to the waiter that has waited longest, so that nobody who comes in
//! between can snatch it. None takes a time-out: put [`with_timeout`](crate::coroutine::with_timeout) around
//! the wait. A waiter that is dropped leaves the queue, and what it had been given goes to the next.
//!
//! Locks belong to no loop: they can be awaited in any runtime, on the thread on which they were made. (They
//! are not `Send`. Between threads there is [`channel`](crate::concurrent::channel).) Their `Debug`
//! form tells how many wait, as Tornado's `__repr__` does.
//!
//! # Panics
//!
//! Waiting panics if the lock has as many waiters as it can have already: 16,777,215, or 262,143 on 32-bit
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
