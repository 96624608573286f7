//! `CancelHandle`: ending a coroutine that somebody else awaits.

use crate::ground::coroutine_info::CoroutineInfo;
use std::fmt;
use std::rc::Rc;

/// A coroutine as those see it who may end it: whatever it returns.
pub(crate) trait Control {
    fn cancel(self: Rc<Self>);
    fn is_done(&self) -> bool;
    /// Has it resumed although nothing has woken it.
    #[cfg(feature = "server")]
    fn wake(&self);
    fn info(&self) -> CoroutineInfo;
}

/// Cancels a coroutine, while somebody else has its [`Coroutine`](super::Coroutine) and perhaps awaits that;
/// from [`Coroutine::cancel_handle`](super::Coroutine::cancel_handle). A clone is for the same coroutine.
/// Dropping it does nothing. tokio: `AbortHandle`.
///
/// ```
/// use waterspout::{IoLoop, coroutine};
///
/// let io_loop = IoLoop::new()?;
/// io_loop.run_sync(|| async {
///     let coroutine = coroutine::spawn(std::future::pending::<()>());
///     let handle = coroutine.cancel_handle();
///     let waits = coroutine::start(coroutine.join());
///     handle.cancel();
///     assert!(handle.done() && waits.await.unwrap_err().is_cancelled());
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct CancelHandle {
    /// `None` if the coroutine was never started, since its group has refused it.
    control: Option<Rc<dyn Control>>,
}

impl CancelHandle {
    pub(super) fn of(control: Rc<dyn Control>) -> CancelHandle {
        CancelHandle { control: Some(control) }
    }

    /// A handle for a coroutine that was refused, and so was never started.
    pub(super) fn of_nobody() -> CancelHandle {
        CancelHandle { control: None }
    }

    /// As [`Coroutine::cancel`](super::Coroutine::cancel).
    pub fn cancel(&self) {
        if let Some(control) = &self.control {
            control.clone().cancel();
        }
    }

    /// Whether the coroutine has ended: it has returned, panicked, or been cancelled; or it was never
    /// started, since the group that was to start it has refused it.
    pub fn done(&self) -> bool {
        self.control.as_ref().is_none_or(|control| control.is_done())
    }
}

impl fmt::Debug for CancelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.control.as_ref().map(|control| control.info().name);
        f.debug_struct("CancelHandle").field("name", &name).field("done", &self.done()).finish()
    }
}
