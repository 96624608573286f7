//! `Runner`: owns a state machine, resumes it, and settles its result.
//!
//! One allocation holds all that belongs to a coroutine: the state machine, its output (later, in the same
//! memory), who awaits it, and what is called when it is done. The loop's table has it as `Rc<dyn Resume>`,
//! and the handle, [`Coroutine`](super::Coroutine), as `Rc<dyn Join<T>>`: it is one allocation seen from two
//! sides. Neither side points at the other, and wakers are numbers, so there is no cycle of references. A
//! coroutine that is suspended belongs to the loop.
//!
//! ```text
//!              resume               Poll::Pending (Tornado's handle_yield)
//!   Suspended ────────────▶ Running ────────────▶ Suspended
//!       │                      │
//!       │ cancel               │ Poll::Ready, a panic, or cancelled meanwhile
//!       ▼                      ▼
//!    Running ──── done ────▶ Done ──── take ────▶ Taken
//!   (dropping)
//! ```
//!
//! While the state is `Running`, the state machine is being polled or dropped. Code that this runs may ask
//! for more: it may cancel the coroutine, or run a loop (within the eager part) that finds the coroutine
//! in its run queue. Polling or dropping the machine a second time from within would be unsound. So what
//! is asked meanwhile is only noted, in `asked`, and done when the step is over.

#![expect(
    unsafe_code,
    reason = "a state machine is pinned in place, and replaced by its output there"
)]

use std::cell::{Cell, UnsafeCell};
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::cancel_handle::Control;
use super::ending::{self, End};
use super::names::{is_of_std, name_of};
use super::outcome::Outcome;
use crate::ground::coroutine_info::CoroutineInfo;
use crate::ground::error::{ExcInfo, Failure, JoinError};
use crate::ground::report::{self, Exception, Panic};
use crate::ground::slots::Key;
use crate::ground::waker::{waker, word_of};
use crate::ground::word::{pack, unpack};
use crate::ground::{foreign, resumption};
use crate::ioloop::{Callback, Core, IoLoop, Resume};

/// What is known of a coroutine by its type: what it is called, and whether an output of it is an error.
pub(crate) struct Kind<T> {
    pub(crate) name: Name,
    /// Gives the text to report, if an output is an error that nobody has taken.
    pub(crate) report: fn(&T) -> Option<String>,
    /// Where the coroutine's function is declared. It counts as the place where the coroutine was started if
    /// that is a line of the standard library, which tells the user nothing.
    pub(crate) at: Option<&'static Location<'static>>,
}

/// A coroutine's name.
#[derive(Clone, Copy)]
pub(crate) enum Name {
    Given(&'static str),
    /// Found by the function when somebody asks. Making a name of a type takes a while, and most coroutines
    /// are asked for their kind, when they end, but never for their name.
    Of(fn() -> &'static str),
}

impl Name {
    pub(crate) fn get(self) -> &'static str {
        match self {
            Name::Given(name) => name,
            Name::Of(name_of) => name_of(),
        }
    }
}

/// Gives a coroutine's kind when somebody asks. It is a function, or a closure that captures a name at most:
/// so it nearly always takes no room in the coroutine.
pub(crate) trait KindOf<T>: Fn() -> Kind<T> + 'static {}

impl<T, K: Fn() -> Kind<T> + 'static> KindOf<T> for K {}

impl<T> Kind<T> {
    /// Coroutines of this name, whose outputs are not reported.
    pub(crate) fn named(name: &'static str) -> Kind<T> {
        Kind { name: Name::Given(name), report: |_| None, at: None }
    }

    /// Coroutines called after the type of their future, or of what makes it. Their outputs are not reported.
    pub(crate) fn of<F>() -> Kind<T> {
        Kind { name: Name::Of(name_of::<F>), report: |_| None, at: None }
    }

    /// As [`of`](Kind::of), but an `Err` is reported if nobody has taken it.
    pub(crate) fn reporting<F>() -> Kind<T>
    where
        T: Outcome,
    {
        Kind { name: Name::Of(name_of::<F>), report: T::error, at: None }
    }
}

/// A coroutine as its handle sees it.
pub(crate) trait Join<T>: Control {
    fn poll_join(&self, cx: &mut Context<'_>) -> Poll<Result<T, Failure>>;
    /// [`poll_join`](Join::poll_join) that panics if the coroutine has failed.
    fn poll_output(&self, cx: &mut Context<'_>) -> Poll<T>;
    /// Whether somebody has taken its output, or its failure.
    fn is_taken(&self) -> bool;
    /// The same coroutine, whatever it returns.
    fn control(self: Rc<Self>) -> Rc<dyn Control>;
    /// Notes that nobody will await it. Tells whether the caller has to cancel it, since the handle is
    /// dropped because the coroutine that awaits it is cancelled.
    fn detach(&self) -> bool;
    /// Has `callback` called when it has ended. See [`Coroutine::add_done_callback`].
    ///
    /// [`Coroutine::add_done_callback`]: super::Coroutine::add_done_callback
    fn when_done(&self, callback: Callback);
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Suspended,
    Running,
    Done,
    /// Done, and somebody has taken the output or failure.
    Taken,
}

/// A bit of `Runner::asked`: the coroutine is to be ended when its step is over.
const CANCEL: u8 = 1;
/// A bit of `Runner::asked`: the coroutine is to be resumed again after its step.
const RESUME: u8 = 2;

/// Those who wait for a coroutine's end and are not a slot that awaits it. Hardly any coroutine has such, so
/// they are behind one pointer.
#[derive(Default)]
struct Listeners {
    /// Whoever awaits it by a foreign waker.
    awaiter: Option<Waker>,
    callbacks: Vec<Callback>,
}

/// The state machine, and later what it has become.
enum Body<F: Future> {
    Machine(F),
    Output(Result<F::Output, Failure>),
    Taken,
}

pub(crate) struct Runner<F: Future + 'static, K> {
    kind: K,
    /// The word of its slot, of which its waker is made. Its key is `Key::NONE` if it has no slot.
    word: Cell<usize>,
    state: Cell<State>,
    /// Whether the handle was dropped, so that nobody will take the output.
    detached: Cell<bool>,
    /// What was asked while its state was `Running`: the bits `CANCEL` and `RESUME`.
    asked: Cell<u8>,
    /// Whether an exception handler has started it. Then its failure is logged, and not given to the
    /// exception handler, which might start such a coroutine for each failure.
    of_handler: bool,
    /// The word of the slot that awaits it; 0 if none does.
    awaiter: Cell<usize>,
    listeners: Cell<Option<Box<Listeners>>>,
    started_at: &'static Location<'static>,
    waiting_at: Cell<Option<&'static Location<'static>>>,
    /// Used by way of `Runner::body` only.
    body: UnsafeCell<Body<F>>,
}

impl<F: Future + 'static, K: KindOf<F::Output>> Runner<F, K> {
    /// A runner in a slot of the loop, suspended before its first step. If `queued`, the slot is put on
    /// the run queue. On a closed loop the runner gets no slot, and the caller has to cancel it.
    pub(crate) fn new(
        core: &Core,
        machine: F,
        kind: K,
        queued: bool,
        started_at: &'static Location<'static>,
    ) -> Rc<Runner<F, K>> {
        // `Rc::new_cyclic` makes the allocation first and builds the runner in it. `Rc::new` would build
        // it on the stack and copy it, state machine and all.
        let runner = Rc::new_cyclic(|_| Runner {
            kind,
            word: Cell::new(pack(core.number(), Key::NONE)),
            state: Cell::new(State::Suspended),
            detached: Cell::new(false),
            asked: Cell::new(0),
            of_handler: report::is_handling(),
            awaiter: Cell::new(0),
            listeners: Cell::new(None),
            started_at,
            waiting_at: Cell::new(None),
            body: UnsafeCell::new(Body::Machine(machine)),
        });
        core.counting().started.add(1);
        if !core.is_closed() {
            runner.word.set(pack(core.number(), core.insert(runner.clone(), queued)));
        }
        runner
    }

    /// Whether it has a slot, so that its loop can resume it. It has none if the loop was closed already.
    pub(crate) fn has_slot(&self) -> bool {
        self.key() != Key::NONE
    }

    fn name(&self) -> &'static str {
        (self.kind)().name.get()
    }

    /// Where it was started; the place of its function if that is in the standard library.
    fn started_at(&self) -> &'static Location<'static> {
        match (self.kind)().at {
            Some(at) if is_of_std(self.started_at) => at,
            _ => self.started_at,
        }
    }

    fn key(&self) -> Key {
        unpack(self.word.get()).1
    }

    /// The body. Nobody else may have a reference to it meanwhile.
    ///
    /// # Safety
    ///
    /// One of two things has to be so. Either the caller itself has set `state` to `Running`, after it
    /// found another state. Or the body holds no state machine any more, and no foreign code runs while
    /// the reference lives. A state machine in it is pinned: it may be polled and dropped in place, but
    /// not moved.
    #[expect(clippy::mut_from_ref, reason = "that is what the contract is for")]
    unsafe fn body(&self) -> &mut Body<F> {
        // SAFETY: a runner stays on its thread (it is in an `Rc`), and by the contract above no
        // other reference is alive.
        unsafe { &mut *self.body.get() }
    }

    /// Polls the state machine once, and replaces it by its output when there is one. Tells whether there is.
    /// The caller has set `state` to `Running`.
    fn step(&self) -> bool {
        // Dropping one of our wakers does nothing, but would be a call by its vtable. This saves it.
        let waker = ManuallyDrop::new(waker(self.word.get()));
        let mut cx = Context::from_waker(&waker);
        // SAFETY: the caller has set `state` to `Running`, and keeps it so until this is over, also
        // if it panics; every other use of the body looks at `state` first.
        let body = unsafe { self.body() };
        let Body::Machine(machine) = body else { return false };
        // SAFETY: the machine lies inside an `Rc` that is never unwrapped or made `&mut`. It is never moved
        // out of there, but dropped in place, by the assignment below or in `drop_machine`.
        match unsafe { Pin::new_unchecked(machine) }.poll(&mut cx) {
            Poll::Pending => false,
            Poll::Ready(output) => {
                // This drops the machine in place. If its destructor panics, the output is there all the
                // same.
                *body = Body::Output(Ok(output));
                true
            }
        }
    }

    /// Runs the coroutine until it waits or ends. Its loop is `core`. A panic of its step goes through to the
    /// caller, and leaves `state` as `Running`, by which `fail` sees that it was this step.
    fn go_on(&self, core: &Core) {
        match self.state.get() {
            State::Suspended => self.state.set(State::Running),
            // The loop runs within the coroutine's eager part, or within a destructor of its state machine.
            State::Running => {
                core.refuse();
                return self.ask(RESUME);
            }
            State::Done | State::Taken => return,
        }
        if self.of_handler {
            // It holds until the next resumption begins.
            report::set_handling(true);
        }
        if self.step() {
            return self.done(Some(core));
        }
        self.waiting_at.set(resumption::place());
        match self.asked.get() {
            0 => self.state.set(State::Suspended),
            asked => self.do_what_was_asked(asked, core),
        }
    }

    /// The coroutine waits, after a step in which something was asked of it.
    #[cold]
    fn do_what_was_asked(&self, asked: u8, core: &Core) {
        if asked & CANCEL != 0 {
            self.drop_machine(Failure::Cancelled);
            return self.done(Some(core));
        }
        self.asked.set(0);
        self.state.set(State::Suspended);
        core.schedule(self.key());
    }

    #[cold]
    fn ask(&self, what: u8) {
        self.asked.set(self.asked.get() | what);
    }

    /// Settles the coroutine after its step has panicked: in the state machine, or in the machine's
    /// destructor when it had given its output.
    ///
    /// The panic is always that of the coroutine's own step. A loop that finds the coroutine running
    /// already, because it runs within the coroutine's eager part, does not call this ([`Core::refuse`]).
    /// And after the step `go_on` runs no foreign code whose panics are not caught there.
    #[cold]
    fn fail(&self, panic: Panic, core: &Core) {
        if self.state.get() != State::Running {
            return self.report_panic("whoever awaits coroutine", panic);
        }
        // SAFETY: `go_on` has set `state` to `Running`, and its step is over, by unwinding. No foreign code
        // runs while this reference is used.
        match unsafe { self.body() } {
            Body::Machine(_) => self.drop_machine(Failure::Panicked(panic)),
            Body::Output(_) | Body::Taken => {
                self.report_panic("the destructors of coroutine", panic);
            }
        }
        self.done(Some(core));
    }

    /// Runs its eager part now, within the coroutine or callback that is running, if one is.
    pub(crate) fn start(&self, core: &Core) {
        let _scope = core.scope(self.key());
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.go_on(core))) {
            self.fail(panic, core);
        }
    }

    /// Drops the state machine, and puts `failure` into the body instead of an output. `state` is
    /// `Running`, and no step is under way.
    fn drop_machine(&self, failure: Failure) {
        debug_assert_eq!(self.state.get(), State::Running);
        let is_cancelled = matches!(failure, Failure::Cancelled);
        let drop_it = || {
            // SAFETY: the caller has set `state` to `Running`, so nothing else gets at the body while the
            // machine's destructor runs. The assignment drops the machine in place; if its destructor panics,
            // the new value is there all the same.
            unsafe { *self.body() = Body::Output(Err(failure)) };
        };
        let dropped = catch_unwind(AssertUnwindSafe(|| match is_cancelled {
            true => ending::cancelling(drop_it),
            false => drop_it(),
        }));
        if let Err(panic) = dropped {
            self.report_panic("the destructors of coroutine", panic);
        }
    }

    /// Ends the coroutine, whose output or failure is in the body: frees its slot, and wakes and calls those
    /// that wait for its end. `core` is its loop, or `None` if its loop may not be the current one.
    fn done(&self, core: Option<&Core>) {
        self.state.set(State::Done);
        match core {
            Some(core) => {
                let ended = match self.awaiter.replace(0) {
                    0 => core.remove(self.key()),
                    awaiter => core.end(self.key(), awaiter),
                };
                drop(ended);
                self.tell_listeners(core);
            }
            None => self.done_elsewhere(),
        }
        if self.detached.get() {
            self.drop_unread();
        }
    }

    /// The part of [`done`](Runner::done) that differs where its loop may not be the current one.
    #[cold]
    fn done_elsewhere(&self) {
        // (If the loop is gone, there is no slot to free: it has taken all coroutines out of its table.)
        if let Some(io_loop) = self.io_loop() {
            drop(io_loop.core().remove(self.key()));
            self.tell_listeners(io_loop.core());
        }
        // (If nobody awaits it, this wakes the word 0, which belongs to no loop: so nothing happens.)
        waker(self.awaiter.replace(0)).wake();
    }

    /// The coroutine's loop, if that still exists.
    fn io_loop(&self) -> Option<IoLoop> {
        IoLoop::of_number(unpack(self.word.get()).0)
    }

    /// Queues the done callbacks for the next turn of its loop, and wakes whoever awaits it by a foreign
    /// waker.
    #[inline]
    fn tell_listeners(&self, core: &Core) {
        if let Some(listeners) = self.listeners.take() {
            (*listeners).tell(core);
        }
    }

    /// Whether somebody has begun to await it.
    fn is_awaited(&self) -> bool {
        let listeners = self.listeners.take();
        let is_awaited = listeners.as_ref().is_some_and(|listeners| listeners.awaiter.is_some());
        self.listeners.set(listeners);
        is_awaited || self.awaiter.get() != 0
    }

    /// Notes that it is awaited by a foreign waker. Tells whether there is still something to wait for:
    /// cloning that waker runs foreign code, which may have cancelled this coroutine.
    #[cold]
    fn await_by(&self, waker: &Waker) -> bool {
        let waker = waker.clone();
        if self.is_done() {
            foreign::discard(waker);
            return false;
        }
        let mut listeners = self.listeners.take().unwrap_or_default();
        let before = listeners.awaiter.replace(waker);
        self.listeners.set(Some(listeners));
        self.awaiter.set(0);
        // Dropping the waker of before runs foreign code, which may use this coroutine: so it comes last.
        foreign::discard(before);
        !self.is_done()
    }

    /// Takes the output or failure; `None` if the coroutine has not ended, or somebody has taken it.
    fn take(&self) -> Option<Result<F::Output, Failure>> {
        if self.state.get() != State::Done {
            return None;
        }
        self.state.set(State::Taken);
        // SAFETY: the state was `Done`, so there is no state machine any more. The reference ends with this
        // statement, in which no foreign code runs.
        match std::mem::replace(unsafe { self.body() }, Body::Taken) {
            Body::Output(outcome) => Some(outcome),
            Body::Machine(_) | Body::Taken => None,
        }
    }

    /// Drops the output or failure, which nobody will take, and reports it if it is an error or a panic.
    fn drop_unread(&self) {
        match self.take() {
            Some(Err(Failure::Panicked(panic))) => self.report_panic("coroutine", panic),
            Some(Ok(output)) => {
                if let Some(error) = ((self.kind)().report)(&output) {
                    self.report("coroutine", ExcInfo::error(error));
                }
                ending::discard(output);
            }
            Some(Err(Failure::Cancelled)) | None => {}
        }
    }

    #[cold]
    fn was_taken(&self) -> ! {
        panic!("`{}` was awaited again after its output", self.name())
    }

    /// Panics with the failure of the coroutine, in whoever awaits its handle and not a `join`.
    #[cold]
    fn resume_failure(&self, failure: Failure) -> ! {
        JoinError::new(self.name(), failure).resume()
    }

    #[cold]
    fn report_panic(&self, what: &'static str, panic: Panic) {
        self.report(what, ExcInfo::from_panic(&*panic));
        report::discard_panic(panic);
    }

    #[cold]
    fn report(&self, what: &'static str, info: ExcInfo) {
        let (name, location) = (Some(self.name()), Some(self.started_at()));
        let exception = Exception { what, name, location, info };
        match self.of_handler {
            true => report::handling(|| report::report(exception)),
            false => report::report(exception),
        }
    }
}

impl<F: Future + 'static, K: KindOf<F::Output>> End for Runner<F, K> {
    fn end(&self) {
        self.drop_machine(Failure::Cancelled);
        self.done(None);
    }
}

impl<F: Future + 'static, K: KindOf<F::Output>> Control for Runner<F, K> {
    fn cancel(self: Rc<Self>) {
        match self.state.get() {
            State::Done | State::Taken => {}
            State::Running => self.ask(CANCEL),
            State::Suspended => {
                // `ending` may put it in its list first. Until it is dropped, the state keeps everybody
                // else from resuming or ending it.
                self.state.set(State::Running);
                ending::end(self);
            }
        }
    }

    fn is_done(&self) -> bool {
        matches!(self.state.get(), State::Done | State::Taken)
    }

    #[cfg(feature = "server")]
    fn wake(&self) {
        waker(self.word.get()).wake();
    }

    fn info(&self) -> CoroutineInfo {
        CoroutineInfo {
            name: self.name(),
            started_at: self.started_at(),
            waiting_at: self.waiting_at.get(),
        }
    }
}

impl Listeners {
    #[cold]
    fn tell(self, core: &Core) {
        self.callbacks.into_iter().for_each(|callback| core.call(callback));
        self.awaiter.into_iter().for_each(|awaiter| core.wake(awaiter));
    }
}

impl<F: Future + 'static, K: KindOf<F::Output>> Resume for Runner<F, K> {
    fn resume(self: Rc<Self>, core: &Core) {
        self.go_on(core);
    }

    fn panicked(&self, panic: Panic, core: &Core) -> Option<Panic> {
        self.fail(panic, core);
        None
    }

    fn close(self: Rc<Self>) {
        Control::cancel(self);
    }

    fn info(&self) -> Option<CoroutineInfo> {
        Some(Control::info(self))
    }
}

impl<F: Future + 'static, K: KindOf<F::Output>> Join<F::Output> for Runner<F, K> {
    fn poll_join(&self, cx: &mut Context<'_>) -> Poll<Result<F::Output, Failure>> {
        let waits = !self.is_done()
            && match word_of(cx.waker()) {
                Some(word) => {
                    self.awaiter.set(word);
                    true
                }
                None => self.await_by(cx.waker()),
            };
        if waits {
            // Where the handle is awaited cannot be known. Where the coroutine was started is most often the
            // same line, and so that is told.
            resumption::waits_at(self.started_at);
            return Poll::Pending;
        }
        match self.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => self.was_taken(),
        }
    }

    fn poll_output(&self, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.poll_join(cx) {
            Poll::Ready(Ok(output)) => Poll::Ready(output),
            Poll::Ready(Err(failure)) => self.resume_failure(failure),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_taken(&self) -> bool {
        self.state.get() == State::Taken
    }

    fn control(self: Rc<Self>) -> Rc<dyn Control> {
        self
    }

    fn detach(&self) -> bool {
        self.detached.set(true);
        match self.state.get() {
            State::Taken => false,
            State::Done => {
                self.drop_unread();
                false
            }
            State::Suspended | State::Running => ending::is_cancelling() && self.is_awaited(),
        }
    }

    fn when_done(&self, callback: Callback) {
        if self.is_done() {
            // If its own loop is closed, that would never call the callback: then another one does.
            let own = self.io_loop().filter(|io_loop| !io_loop.core().is_closed());
            match own.or_else(IoLoop::try_current) {
                Some(io_loop) => io_loop.core().call(callback),
                None => callback.call(),
            }
        } else {
            let mut listeners = self.listeners.take().unwrap_or_default();
            listeners.callbacks.push(callback);
            self.listeners.set(Some(listeners));
        }
    }
}
