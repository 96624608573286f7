//! `CancelHandle`: ending a coroutine that somebody else awaits.

use crate::ground::coroutine_info::CoroutineInfo;
use std::fmt;
use std::rc::Rc;

/// A coroutine, whatever it returns, to whoever may end it.
pub(crate) trait Control {
    fn cancel(self: Rc<Self>);
    fn is_done(&self) -> bool;
    fn info(&self) -> CoroutineInfo;
}

/// Cancels a coroutine whose [`Coroutine`](super::Coroutine) is somebody else's, who awaits it perhaps; from
/// [`Coroutine::cancel_handle`](super::Coroutine::cancel_handle). A clone is for the same one. Dropping it
/// does nothing. tokio: `AbortHandle`.
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
    /// `None` for one that was never started.
    control: Option<Rc<dyn Control>>,
}

impl CancelHandle {
    pub(super) fn of(control: Rc<dyn Control>) -> CancelHandle {
        CancelHandle { control: Some(control) }
    }

    /// For what was refused.
    pub(super) fn of_nobody() -> CancelHandle {
        CancelHandle { control: None }
    }

    /// As [`Coroutine::cancel`](super::Coroutine::cancel).
    pub fn cancel(&self) {
        if let Some(control) = &self.control {
            control.clone().cancel();
        }
    }

    /// Whether the coroutine has come to its end: returned, panicked, or been cancelled; or was refused by the
    /// group that was to start it.
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
