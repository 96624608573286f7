//! Which loop a thread has.

use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::sync::{Mutex, PoisonError};

use super::core::{Core, State};
use super::{IoLoop, LoopHandle};
use crate::report;

/// Ends the thread's current loop with the thread: closes it if [`IoLoop::current`] has made it.
struct AtEnd;

impl Drop for AtEnd {
    fn drop(&mut self) {
        if let Some(io_loop) = CURRENT.with(|current| current.take()) {
            if io_loop.core.of_thread.get() {
                io_loop.close();
            }
        }
    }
}

thread_local! {
    /// Has no destructor, so that destructors at the end of the thread find it, too.
    static CURRENT: ManuallyDrop<RefCell<Option<IoLoop>>> =
        const { ManuallyDrop::new(RefCell::new(None)) };
    static AT_END: AtEnd = const { AtEnd };
}

/// Asks this thread's current loop, if there is one. `ask` runs no foreign code and does not change
/// which loop is current.
pub(crate) fn with_current<R>(ask: impl FnOnce(&Core) -> R) -> Option<R> {
    CURRENT.with(|current| current.borrow().as_ref().map(|io_loop| ask(&io_loop.core)))
}

/// [`with_current`] that makes a loop if the thread has none.
#[track_caller]
pub(crate) fn on_current<R>(ask: impl FnOnce(&Core) -> R) -> R {
    if CURRENT.with(|current| current.borrow().is_none()) {
        drop(IoLoop::current());
    }
    match with_current(ask) {
        Some(answer) => answer,
        None => unreachable!("IoLoop::current leaves its loop as the current one, or panics"),
    }
}

/// Makes `io_loop` the thread's current one, with its exception handler, and returns the one before.
fn replace_current(io_loop: Option<IoLoop>) -> Option<IoLoop> {
    report::install(io_loop.as_ref().map(|io_loop| io_loop.core.on_exception.clone()));
    CURRENT.with(|current| current.replace(io_loop))
}

/// Restores the loop that was current before, also on unwinding.
pub(super) struct Entered(Option<IoLoop>);

impl Drop for Entered {
    fn drop(&mut self) {
        drop(replace_current(self.0.take()));
    }
}

impl IoLoop {
    pub(super) fn enter(&self) -> Entered {
        Entered(replace_current(Some(self.clone())))
    }

    /// This thread's current loop, made if there is none. Tornado: `IOLoop.current()`.
    ///
    /// It is never another thread's. A loop made here is closed with its thread.
    ///
    /// # Panics
    ///
    /// If a loop has to be made and the system refuses (too many open files), or if the thread is
    /// ending and its thread-locals are gone. [`try_current`](IoLoop::try_current) does not panic.
    #[inline]
    #[track_caller]
    pub fn current() -> IoLoop {
        match IoLoop::try_current() {
            Some(io_loop) => io_loop,
            None => IoLoop::of_thread(),
        }
    }

    #[cold]
    #[track_caller]
    fn of_thread() -> IoLoop {
        let io_loop = match IoLoop::new() {
            Ok(io_loop) => io_loop,
            Err(error) => panic!("cannot make this thread's IoLoop: {error}"),
        };
        io_loop.core.of_thread.set(true);
        io_loop.make_current();
        assert!(IoLoop::try_current().is_some(), "this thread is ending, it cannot have an IoLoop");
        io_loop
    }

    /// This thread's current loop, if it has one. Tornado: `IOLoop.current(instance=False)`.
    #[inline]
    pub fn try_current() -> Option<IoLoop> {
        CURRENT.with(|current| current.borrow().clone())
    }

    /// The loop that runs on this thread, if one does.
    pub(crate) fn running() -> Option<IoLoop> {
        IoLoop::try_current().filter(|io_loop| io_loop.core.state.get() == State::Running)
    }

    /// Makes this loop the thread's current one, until another is. Tornado: `make_current`.
    ///
    /// # Panics
    ///
    /// If another loop is running on this thread: everything in it counts on being current.
    #[track_caller]
    pub fn make_current(&self) {
        if let Some(running) = IoLoop::running().filter(|running| running != self) {
            panic!("make_current: {running:?} is running, it stays current until it stops");
        }
        // A thread that is ending keeps none: nobody would take it away again.
        if AT_END.try_with(|_| ()).is_ok() {
            drop(replace_current(Some(self.clone())));
        }
    }

    /// Leaves the thread without a current loop. Nothing happens if it has none. Tornado:
    /// `clear_current`.
    ///
    /// # Panics
    ///
    /// If a loop is running on this thread.
    #[track_caller]
    pub fn clear_current() {
        if let Some(running) = IoLoop::running() {
            panic!("clear_current: {running:?} is running, it stays current until it stops");
        }
        drop(replace_current(None));
    }

    /// The handle of the process's loop, the same for every thread. Tornado: `IOLoop.instance()`.
    ///
    /// The first thread to ask lends its current loop; however many race, one wins. When that loop
    /// is closed, the next thread to ask lends its own.
    ///
    /// # Panics
    ///
    /// As [`IoLoop::current`] does.
    #[track_caller]
    pub fn instance() -> LoopHandle {
        static INSTANCE: Mutex<Option<LoopHandle>> = Mutex::new(None);
        let mut instance = INSTANCE.lock().unwrap_or_else(PoisonError::into_inner);
        match &*instance {
            Some(handle) if !handle.is_closed() => handle.clone(),
            _ => instance.insert(IoLoop::current().handle()).clone(),
        }
    }
}
