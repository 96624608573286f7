//! `Runner`: owns a state machine, resumes it, and settles its result.
//!
//! One allocation holds all of it: the state machine, then its output in the same place, who awaits
//! it, what is called when it is done. The loop's table sees it as `Rc<dyn Resume>`, the
//! [`Coroutine`](super::Coroutine) as `Rc<dyn Join<T>>`: one allocation from two sides. Neither
//! points at the other, and wakers are numbers, so there is no cycle; what is suspended belongs to
//! the loop.
//!
//! ```text
//!              resume               Poll::Pending (Tornado's handle_yield)
//!   Suspended ────────────▶ Running ────────────▶ Suspended
//!       │                      │
//!       │ cancel               │ Poll::Ready, a panic, or cancelled meanwhile
//!       ▼                      ▼
//!    Running ─── settle ───▶ Done ──── take ────▶ Done, output taken
//!   (dropping)
//! ```
//!
//! `Running` excludes everything else: a runner that is being polled, or whose state machine is
//! being dropped, cannot be resumed or dropped again from within.

#![expect(
    unsafe_code,
    reason = "a state machine is pinned in place, and replaced by its output there"
)]

use std::cell::{Cell, RefCell, UnsafeCell};
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::error::{ExcInfo, Failure, JoinError};
use crate::ioloop::{Callback, CoroutineInfo, IoLoop, Key, LoopId, Resume, waker, with_current};
use crate::report::{self, Exception};

/// What a coroutine is called, and whether an output of it is an error to report.
pub(crate) struct Kind<T> {
    pub(crate) name: &'static str,
    pub(crate) report: fn(&T) -> Option<String>,
}

/// A coroutine as its handle sees it.
pub(crate) trait Join<T> {
    fn poll_join(&self, cx: &mut Context<'_>) -> Poll<Result<T, JoinError>>;
    fn is_done(&self) -> bool;
    fn cancel(self: Rc<Self>);
    /// Nobody will await it.
    fn detach(&self);
    /// Calls back when it is done, or at once if it is.
    fn when_done(&self, callback: Callback);
    fn info(&self) -> CoroutineInfo;
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Suspended,
    Running,
    Done,
}

/// What is in the runner's one place.
enum Body<F: Future> {
    Machine(F),
    Output(Result<F::Output, Failure>),
    Taken,
}

pub(crate) struct Runner<F: Future> {
    loop_id: LoopId,
    key: Cell<Key>,
    state: Cell<State>,
    detached: Cell<bool>,
    /// Cancelled while running: goes no further than its next suspension.
    cancelled: Cell<bool>,
    awaiter: Cell<Option<Waker>>,
    /// Boxed, since hardly any coroutine has one.
    callbacks: RefCell<Vec<Callback>>,
    kind: Kind<F::Output>,
    started_at: &'static Location<'static>,
    waiting_at: Cell<Option<&'static Location<'static>>>,
    /// Touched by `Runner::body` alone.
    body: UnsafeCell<Body<F>>,
}

impl<F: Future + 'static> Runner<F> {
    /// A runner in a slot of `io_loop`, suspended before its first step. On a closed loop it is
    /// cancelled at once.
    pub(crate) fn new(
        io_loop: &IoLoop,
        machine: F,
        kind: Kind<F::Output>,
        started_at: &'static Location<'static>,
    ) -> Rc<Runner<F>> {
        let core = io_loop.core();
        let runner = Rc::new(Runner {
            loop_id: core.id(),
            key: Cell::new(Key::NONE),
            state: Cell::new(State::Suspended),
            detached: Cell::new(false),
            cancelled: Cell::new(false),
            awaiter: Cell::new(None),
            callbacks: RefCell::new(Vec::new()),
            kind,
            started_at,
            waiting_at: Cell::new(None),
            body: UnsafeCell::new(Body::Machine(machine)),
        });
        core.counting().started.add(1);
        if core.is_closed() {
            runner.clone().cancel();
        } else {
            runner.key.set(core.insert(runner.clone()));
        }
        runner
    }

    /// Queues it for the next turn of its loop.
    pub(crate) fn schedule(&self, io_loop: &IoLoop) {
        io_loop.core().schedule(self.key.get());
    }

    /// The body, for the moment in which nobody else has it.
    ///
    /// # Safety
    ///
    /// The caller has set `state` to `Running` (and was the one to do so), or the body holds no
    /// state machine any more and nothing foreign runs while the reference lives. A state machine
    /// in it is pinned: it may be polled and dropped in place, and not be moved.
    #[expect(clippy::mut_from_ref, reason = "that is what the contract is for")]
    unsafe fn body(&self) -> &mut Body<F> {
        // SAFETY: a runner stays on its thread (it is in an `Rc`), and by the contract above no
        // other reference is alive.
        unsafe { &mut *self.body.get() }
    }

    /// Polls the state machine once. `None` if it is not suspended.
    fn step(&self) -> Option<Result<Poll<F::Output>, Failure>> {
        if self.state.get() != State::Suspended {
            return None;
        }
        self.state.set(State::Running);
        let waker = waker(self.loop_id.number(), self.key.get());
        let mut cx = Context::from_waker(&waker);
        let polled = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: `state` was `Suspended` and is `Running` now, until this function's caller
            // settles it or suspends again; every other use of the body looks at `state` first.
            match unsafe { self.body() } {
                Body::Machine(machine) => {
                    // SAFETY: the machine lies inside an `Rc` that is never unwrapped or made
                    // `&mut`, and leaves its place only by being dropped there, in `settle`.
                    unsafe { Pin::new_unchecked(machine) }.poll(&mut cx)
                }
                Body::Output(_) | Body::Taken => Poll::Pending,
            }
        }));
        Some(polled.map_err(Failure::Panicked))
    }

    /// Drops the state machine and puts the outcome in its place. `state` is `Running`.
    fn settle(&self, outcome: Result<F::Output, Failure>) {
        debug_assert_eq!(self.state.get(), State::Running);
        let dropped = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: `state` is `Running`, set by the caller, so nothing else gets at the body
            // while the machine's destructor runs. Assigning drops the machine in place, and
            // leaves `Taken` there also if the destructor panics.
            unsafe { *self.body() = Body::Taken };
        }));
        // SAFETY: as above; what is overwritten is `Taken`, which runs no destructor.
        unsafe { *self.body() = Body::Output(outcome) };
        self.state.set(State::Done);
        if let Err(panic) = dropped {
            self.report("the destructors of coroutine", ExcInfo::from_panic(&*panic));
        }

        let slot = with_current(|core| {
            if core.id() == self.loop_id { core.remove(self.key.get()) } else { None }
        });
        match slot {
            Some(slot) => drop(slot),
            // Another loop is current: its own finds a runner that is done, and removes it.
            None => waker(self.loop_id.number(), self.key.get()).wake(),
        }
        if let Some(awaiter) = self.awaiter.take() {
            awaiter.wake();
        }
        for callback in self.callbacks.take() {
            call_back(callback);
        }
        if self.detached.get() {
            self.drop_unread();
        }
    }

    /// Takes the outcome; `None` if it is not done, or the outcome was taken.
    fn take(&self) -> Option<Result<F::Output, Failure>> {
        if self.state.get() != State::Done {
            return None;
        }
        // SAFETY: `Done` means that the machine is gone; the reference ends with this statement,
        // in which nothing foreign runs.
        match std::mem::replace(unsafe { self.body() }, Body::Taken) {
            Body::Output(outcome) => Some(outcome),
            Body::Machine(_) | Body::Taken => None,
        }
    }

    /// Nobody took the outcome and nobody will: reports it if it is a failure.
    fn drop_unread(&self) {
        match self.take() {
            Some(Err(Failure::Panicked(panic))) => {
                self.report("coroutine", ExcInfo::from_panic(&*panic));
            }
            Some(Ok(output)) => {
                if let Some(error) = (self.kind.report)(&output) {
                    self.report("coroutine", ExcInfo::error(error));
                }
            }
            Some(Err(Failure::Cancelled)) | None => {}
        }
    }

    fn report(&self, what: &'static str, info: ExcInfo) {
        let (name, location) = (Some(self.kind.name), Some(self.started_at));
        report::report(Exception { what, name, location, info });
    }
}

/// Runs a done callback in the next turn; if no loop is current to do so, it is dropped with the
/// coroutine.
fn call_back(callback: Callback) {
    if let Some(io_loop) = IoLoop::try_current() {
        io_loop.core().call(callback);
    }
}

impl<F: Future + 'static> Resume for Runner<F> {
    fn resume(self: Rc<Self>, io_loop: &IoLoop) {
        let core = io_loop.core();
        let scope = core.scope(self.key.get());
        let Some(polled) = self.step() else {
            if self.state.get() == State::Running {
                return; // It resumes itself from within: impossible through the loop.
            }
            // Settled while another loop was current.
            drop(core.remove(self.key.get()));
            return;
        };
        let waiting_at = scope.end();
        match polled {
            Ok(Poll::Pending) if self.cancelled.get() => self.settle(Err(Failure::Cancelled)),
            Ok(Poll::Pending) => {
                self.waiting_at.set(waiting_at);
                self.state.set(State::Suspended);
            }
            Ok(Poll::Ready(output)) => self.settle(Ok(output)),
            Err(panic) => self.settle(Err(panic)),
        }
    }

    fn close(self: Rc<Self>, _: &IoLoop) {
        self.cancel();
    }

    fn info(&self) -> Option<CoroutineInfo> {
        Some(Join::info(self))
    }
}

impl<F: Future + 'static> Join<F::Output> for Runner<F> {
    fn poll_join(&self, cx: &mut Context<'_>) -> Poll<Result<F::Output, JoinError>> {
        if self.state.get() != State::Done {
            self.awaiter.set(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        let name = self.kind.name;
        match self.take() {
            Some(outcome) => Poll::Ready(outcome.map_err(|failure| JoinError::new(name, failure))),
            None => panic!("`{name}` was awaited again after it had given its output"),
        }
    }

    fn is_done(&self) -> bool {
        self.state.get() == State::Done
    }

    fn cancel(self: Rc<Self>) {
        match self.state.get() {
            State::Done => {}
            State::Running => self.cancelled.set(true),
            State::Suspended => {
                self.state.set(State::Running);
                self.settle(Err(Failure::Cancelled));
            }
        }
    }

    fn detach(&self) {
        self.detached.set(true);
        if self.state.get() == State::Done {
            self.drop_unread();
        }
    }

    fn when_done(&self, callback: Callback) {
        if self.state.get() == State::Done {
            call_back(callback);
        } else {
            self.callbacks.borrow_mut().push(callback);
        }
    }

    fn info(&self) -> CoroutineInfo {
        CoroutineInfo {
            name: self.kind.name,
            started_at: self.started_at,
            waiting_at: self.waiting_at.get(),
        }
    }
}
