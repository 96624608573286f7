//! Results that come later: promises and their futures, channels between loops, and threads for blocking
//! work. Tornado's `concurrent`.
//!
//! The type [`Future`] here is Tornado's: a result that is set once, and at which many may look. The trait
//! of the same name, [`std::future::Future`], is another thing; this type implements it. Write
//! `concurrent::Future` for the type.

mod channel;
mod executor;
mod future;

pub use crate::ground::error::ExcInfo;
pub use channel::{Receiver, SendError, Sender, TrySendError, channel};
pub use executor::{Executor, ExecutorBuilder, ExecutorCounters};
pub use future::{Future, Promise, promise};
