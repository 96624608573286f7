//! Results that come later: promises and their futures, and work on other threads.
//!
//! Tornado's `concurrent`. The type [`Future`] here is Tornado's: a result slot that many may look
//! at. The trait of the same name is [`std::future::Future`], which it implements; write
//! `concurrent::Future` for the type.

mod channel;
mod executor;
mod future;

pub use crate::ground::error::ExcInfo;
pub use channel::{Receiver, SendError, Sender, TrySendError, channel};
pub use executor::{Executor, ExecutorBuilder, ExecutorCounters};
pub use future::{Future, Promise, promise};
