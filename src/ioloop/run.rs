//! Starting, stopping and closing a loop.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::callback::Callback;
use super::core::{Core, Resume, Scope};
use super::current::Entered;
use super::io_loop::IoLoop;
use super::life::State;
use crate::ground::coroutine_info::CoroutineInfo;
use crate::ground::error::{ExcInfo, RunError, StartError};
use crate::ground::report::{self, Exception, Handling};
use crate::ground::slots::Key;
use crate::ground::waker::waker;
use crate::ground::word::pack;
use crate::ground::{foreign, resumption};

impl IoLoop {
    /// Runs the loop until [`stop`](IoLoop::stop).
    ///
    /// The loop is current while it runs; then the loop is current again that was so before, also on
    /// unwinding. It can be started again: entries that had not run when it stopped are still queued.
    /// Tornado: `start`.
    ///
    /// # Errors
    ///
    /// [`StartError`] if a loop runs on this thread already, or this one is closed.
    ///
    /// # Panics
    ///
    /// If the selector fails. That only happens if other code of the program has closed the selector's own
    /// file descriptor.
    pub fn start(&self) -> Result<(), StartError> {
        let _running = self.begin()?;
        while !self.core.life.is_to_stop() {
            self.turn(&mut || ());
        }
        Ok(())
    }

    /// Asks the loop to return from [`start`](IoLoop::start) or [`run_sync`](IoLoop::run_sync).
    ///
    /// The rest of the current turn still runs. If the loop does not run, the next `start` or `run_sync`
    /// returns at once. From another thread: [`LoopHandle::stop`](crate::LoopHandle::stop). Tornado: `stop`.
    pub fn stop(&self) {
        self.core.life.stop();
    }

    fn begin(&self) -> Result<Running<'_>, StartError> {
        // A running loop is mostly the current one. But if another loop is closed within it, that one is
        // current while destructors run, and such a destructor may call this.
        let itself = (self.core.life.state() == State::Running).then(|| self.clone());
        if let Some(running) = itself.or_else(IoLoop::running) {
            let (asked, running) = (format!("{self:?}"), format!("{running:?}"));
            return Err(StartError::Nested { asked, running });
        }
        if self.core.life.state() == State::Closed {
            return Err(StartError::Closed);
        }
        let core = &*self.core;
        let (within, entered) = (core.scope(Key::NONE), Some(self.enter()));
        core.life.begin();
        let is_owned = core.life.has_owner();
        let handling = Handling::keep();
        Ok(Running { io_loop: self, is_owned, _within: within, _handling: handling, entered })
    }

    /// Runs the loop until the future that `make` returns has finished, and gives its output.
    ///
    /// `make` is called inside the running loop. Neither `make` nor its future need be `'static` or `Send`.
    /// Coroutines that have not finished when this returns stay alive, and go on when the loop runs again.
    /// Tornado: `run_sync`.
    ///
    /// # Errors
    ///
    /// [`RunError::Start`] as for [`start`](IoLoop::start), [`RunError::Stopped`] if the loop was
    /// stopped before the future finished. The future is dropped then.
    ///
    /// # Panics
    ///
    /// With the panic of `make` or of its future.
    ///
    /// ```
    /// # use waterspout::IoLoop;
    /// let words = vec!["a", "loop"];
    /// let total = IoLoop::new()?.run_sync(|| async { words.iter().map(|w| w.len()).sum::<usize>() })?;
    /// assert_eq!(total, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn run_sync<M, F>(&self, make: M) -> Result<F::Output, RunError>
    where
        M: FnOnce() -> F,
        F: IntoFuture,
    {
        self.run_named("run_sync", None, make, Location::caller())
    }

    /// [`run_sync`](IoLoop::run_sync) with a time limit. Tornado: `run_sync(func, timeout)`.
    ///
    /// # Errors
    ///
    /// As [`run_sync`](IoLoop::run_sync); and [`RunError::TimedOut`] after `timeout`, which lists the
    /// coroutines that were suspended then. The future is dropped; coroutines that it was waiting for stay
    /// alive.
    ///
    /// # Panics
    ///
    /// As [`run_sync`](IoLoop::run_sync).
    #[track_caller]
    pub fn run_sync_timeout<M, F>(&self, timeout: Duration, make: M) -> Result<F::Output, RunError>
    where
        M: FnOnce() -> F,
        F: IntoFuture,
    {
        self.run_named("run_sync", Some(timeout), make, Location::caller())
    }

    /// `run_sync` under a name, which [`IoLoop::coroutines`] shows.
    pub(crate) fn run_named<M, F>(
        &self,
        name: &'static str,
        timeout: Option<Duration>,
        make: M,
        location: &'static Location<'static>,
    ) -> Result<F::Output, RunError>
    where
        M: FnOnce() -> F,
        F: IntoFuture,
    {
        let core = &*self.core;
        let _running = self.begin()?;
        let main = Rc::new(Main { name, location, waiting_at: Cell::new(None) });
        let mut slot = MainSlot { core, key: core.insert(main.clone(), true), timeout: None };
        let timed_out = Rc::new(Cell::new(false));
        if let Some(timeout) = timeout {
            let (timed_out, io_loop) = (timed_out.clone(), self.clone());
            let up = move || {
                timed_out.set(true);
                io_loop.stop();
            };
            let call = Callback::new(location, up);
            slot.timeout = Some(core.add_call(core.clock.after(timeout), call));
        }

        let of_handler = report::is_handling();
        // `make` is called when this is first polled, so inside the running loop.
        let mut future = pin!(async move { make().await });
        let waker = waker(pack(core.number(), slot.key));
        let mut outcome = None;
        while outcome.is_none() && !core.life.is_to_stop() {
            self.turn(&mut || {
                // The turn has begun the resumption, and taken it for none of an exception handler's doing.
                if of_handler {
                    report::set_handling(true);
                }
                let mut cx = Context::from_waker(&waker);
                let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut cx)));
                main.waiting_at.set(resumption::place());
                outcome = match polled {
                    Ok(Poll::Pending) => return,
                    Ok(Poll::Ready(output)) => Some(Ok(output)),
                    Err(panic) => Some(Err(panic)),
                };
                core.life.stop();
            });
        }
        match outcome {
            Some(Ok(output)) => Ok(output),
            Some(Err(panic)) => resume_unwind(panic),
            None if timed_out.get() => Err(RunError::TimedOut {
                after: timeout.unwrap_or_default(),
                stuck: self.coroutines(),
            }),
            None => Err(RunError::Stopped),
        }
    }

    /// Drops everything that the loop holds: suspended coroutines, callbacks, timers, handlers.
    ///
    /// Their destructors run within this call, with this loop as the current one. They may use the loop; what
    /// they add to it is dropped. From here on, methods of a [`LoopHandle`](crate::LoopHandle) give
    /// `LoopClosed`, and joining a coroutine of the loop gives a `JoinError`. Objects that were given to
    /// [`add_handler`](IoLoop::add_handler) are dropped, which closes them if they own their fd:
    /// Tornado's `close(all_fds=True)`. Closing twice does nothing.
    ///
    /// # Panics
    ///
    /// If the loop is running: [`stop`](IoLoop::stop) it first.
    #[track_caller]
    pub fn close(&self) {
        let core = &*self.core;
        match core.life.state() {
            State::Closed => return,
            State::Running => panic!("close: {self:?} is running, stop it first"),
            State::Open => core.life.close(),
        }
        let _entered = self.enter();
        foreign::discard_all(core.inbox.close());
        let slots = core.scheduler.borrow().keys();
        for slot in slots.into_iter().filter_map(|key| core.remove(key)) {
            slot.close();
        }
        loop {
            let next = core.scheduler.borrow_mut().next();
            let timer = core.due.take_any();
            if next.is_none() && timer.is_none() {
                break;
            }
            let (timer, call) = timer.unzip();
            // Each is dropped by itself. If one dropped while another one's panic unwinds, a second panic
            // would abort the process.
            foreign::discard(next);
            foreign::discard(timer);
            foreign::discard(call);
        }
        core.handlers.take();
        foreign::discard(core.selector.take_all());
        core.lent.borrow_mut().clear();
    }
}

impl IoLoop {
    /// The loop's thread ends. If nobody has ever run the loop, reports the coroutines and callbacks that
    /// have waited for that in vain.
    pub(super) fn report_what_never_ran(&self) {
        let core = &*self.core;
        if core.life.has_run() {
            return;
        }
        let tell = |what, name, location| {
            let info =
                ExcInfo::error("it has not run: its thread has ended without running a loop");
            report::report(Exception { what, name, location: Some(location), info });
        };
        for coroutine in self.coroutines() {
            tell("coroutine", Some(coroutine.name), coroutine.started_at);
        }
        let callbacks = core.scheduler.borrow().callbacks();
        callbacks
            .into_iter()
            .chain(core.due.callbacks())
            .for_each(|location| tell("callback", None, location));
    }
}

/// While this lives, the loop runs and is current. Dropping it ends both, also on unwinding.
///
/// A loop may be run by a coroutine that was started while no loop ran (its first, eager part is polled by
/// the call). So the scope of that resumption is kept here, and restored after.
struct Running<'a> {
    io_loop: &'a IoLoop,
    /// Whether a handle owned the loop when it began to run. If not, it is not closed when it has stopped,
    /// though none owns it: the caller still has a handle.
    is_owned: bool,
    _within: Scope<'a>,
    _handling: Handling,
    entered: Option<Entered>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let core = &self.io_loop.core;
        core.life.end();
        drop(self.entered.take());
        if self.is_owned {
            self.io_loop.close_if_unowned();
        }
    }
}

/// What is in the slot of `run_sync`'s future. The future itself is on the stack of `run_sync`.
struct Main {
    name: &'static str,
    location: &'static Location<'static>,
    waiting_at: Cell<Option<&'static Location<'static>>>,
}

impl Resume for Main {
    fn resume(self: Rc<Self>, core: &Core) {
        core.main_resumed.set(true);
    }

    fn info(&self) -> Option<CoroutineInfo> {
        Some(CoroutineInfo {
            name: self.name,
            started_at: self.location,
            waiting_at: self.waiting_at.get(),
        })
    }
}

/// Dropping this removes the slot and the timer of `run_sync`.
struct MainSlot<'a> {
    core: &'a Core,
    key: Key,
    timeout: Option<Key>,
}

impl Drop for MainSlot<'_> {
    fn drop(&mut self) {
        drop(self.core.remove(self.key));
        if let Some(timeout) = self.timeout {
            drop(self.core.remove_call(timeout));
        }
    }
}
