//! One module per runtime.

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::time::Duration;

use crate::sync::{Channel, Lock};

pub mod compio_rt;
pub mod floor;
pub mod futures_rt;
#[cfg(feature = "glommio")]
pub mod glommio_rt;
pub mod monoio_rt;
pub mod smol_rt;
pub mod tokio_rt;
pub mod waterspout_rt;

/// What a runtime must offer to be measured. Everything runs on the calling
/// thread.
pub trait Runtime: 'static {
    /// Whether `sleep` works.
    const TIMERS: bool = true;
    /// Whether a waker works on another thread.
    const REMOTE_WAKE: bool = true;
    /// Whether `with_timeout` works.
    const TIME_LIMIT: bool = false;
    /// Whether `call` works: starting a task runs it at once, inside the call.
    const CALL: bool = false;

    /// Whether a task that wakes itself goes behind those that are ready.
    const FAIR: bool = true;

    /// A lock for the tasks of one loop.
    type Lock: Lock;
    /// A channel between the tasks of one loop.
    type Queue: Channel;
    /// A channel between the loops of two threads.
    type Channel: Channel<Tx: Send, Rx: Send>;

    /// Builds a fresh runtime with I/O and timers enabled, runs `f` to its end.
    fn block_on<F>(f: F) -> F::Output
    where
        F: Future + 'static,
        F::Output: 'static;

    /// Schedules `f` at once (not at the first poll of the returned handle).
    fn spawn<F>(f: F) -> impl Future<Output = F::Output> + 'static
    where
        F: Future + 'static,
        F::Output: 'static;

    /// Calls a function that is a task of its own and ends at once: what it did is done when the
    /// call returns, and only the result is awaited.
    fn call(_i: u64) -> impl Future<Output = u64> + 'static {
        async { unreachable!("`CALL` says that there is none") }
    }

    /// The runtime's own yield; where it has none, a self-wake.
    fn yield_now() -> impl Future<Output = ()> {
        crate::util::self_wake()
    }

    /// A one-shot timer.
    fn sleep(_d: Duration) -> impl Future<Output = ()> + 'static {
        async { unreachable!("`TIMERS` says that there is none") }
    }

    /// `f`, but no longer than `d`: `None` when the time is up.
    fn with_timeout<F: Future + 'static>(
        _d: Duration,
        _f: F,
    ) -> impl Future<Output = Option<F::Output>> {
        async { unreachable!("`TIME_LIMIT` says that there is none") }
    }

    /// Accepts for ever, one task per connection, 4 KiB buffer, `TCP_NODELAY`.
    fn echo(_l: TcpListener) -> impl Future<Output = io::Result<()>> + 'static {
        async { Err(io::ErrorKind::Unsupported.into()) }
    }
}

/// A generic function over runtimes, as an object.
pub trait Visitor {
    type Out;
    fn visit<R: Runtime>(self) -> Self::Out;
}

macro_rules! runtimes {
    ($($(#[$m:meta])* $name:literal => $ty:ty,)*) => {
        /// Every runtime's name on the command line.
        pub const NAMES: &[&str] = &[$($(#[$m])* $name),*];

        /// Calls `v` with the runtime of that name.
        pub fn with<V: Visitor>(name: &str, v: V) -> Option<V::Out> {
            match name {
                $($(#[$m])* $name => Some(v.visit::<$ty>()),)*
                _ => None,
            }
        }
    };
}

runtimes! {
    "floor" => floor::Floor,
    "waterspout" => waterspout_rt::Own,
    "waterspout-lent" => waterspout_rt::Lent,
    "waterspout-bare" => waterspout_rt::Bare,
    "waterspout-server" => waterspout_rt::Server,
    "tokio" => tokio_rt::LocalSet,
    "tokio-local" => tokio_rt::Local,
    "tokio-send" => tokio_rt::Send,
    "smol" => smol_rt::Smol,
    "futures" => futures_rt::Pool,
    "monoio-uring" => monoio_rt::Uring,
    "monoio-uring-coop" => monoio_rt::UringCoop,
    "monoio-legacy" => monoio_rt::Legacy,
    "compio" => compio_rt::Uring,
    "compio-poll" => compio_rt::Polling,
    #[cfg(feature = "glommio")]
    "glommio" => glommio_rt::Eager,
    #[cfg(feature = "glommio")]
    "glommio-queued" => glommio_rt::Queued,
}
