//! waterspout
pub mod concurrent;
pub mod coroutine;
mod error;
mod ioloop;
pub mod net;
mod report;
mod wait_queue;

pub use coroutine::Coroutine;
pub use error::{JoinError, LoopClosed, RunError, StartError};
pub use ioloop::{
    Answer, Builder, CoroutineInfo, Counters, Deadline, Interest, IoLoop, LoopHandle,
    PeriodicCallback, Timeout,
};
pub use report::Exception;
