//! Tornado's event loop and coroutines in native Rust.
#![doc = "TODO"]

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;
pub mod concurrent;
pub mod coroutine;
mod error;
mod ioloop;
pub mod net;
mod report;
mod testing;
mod wait_queue;

pub use coroutine::Coroutine;
pub use error::{JoinError, LoopClosed, RunError, StartError};
pub use ioloop::{
    Answer, Builder, CoroutineInfo, Counters, Deadline, Interest, IoLoop, LoopHandle,
    PeriodicCallback, Timeout,
};
pub use report::Exception;
#[cfg(feature = "macros")]
pub use waterspout_macros::{coroutine, engine, main, test};
