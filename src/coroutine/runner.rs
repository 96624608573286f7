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
//!    Running ─── settle ───▶ Done ──── take ────▶ Taken
//!   (dropping)
//! ```
//!
//! `Running` excludes everything else: a runner that is being polled, or whose state machine is
//! being dropped, cannot be resumed or dropped again from within. What is asked of it meanwhile is
//! noted, and done when its step is over: it may be cancelled, and a loop that runs within its eager
//! part may find it in the run queue.

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

/// What a coroutine is called, and whether an output of it is an error to report.
pub(crate) struct Kind<T> {
    pub(crate) name: Name,
    /// The error in an output, as text, if it is one.
    pub(crate) report: fn(&T) -> Option<String>,
    /// Where its function is, which is told where it was called by the standard library.
    pub(crate) at: Option<&'static Location<'static>>,
}

/// A coroutine's name. That of a type takes a while to find, and most coroutines are asked for their
/// kind, when they end, and never for their name.
#[derive(Clone, Copy)]
pub(crate) enum Name {
    Given(&'static str),
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

/// Gives a coroutine's kind, when somebody asks. A function, or a closure that captures a name at
/// most: nearly always it takes no room in the coroutine.
pub(crate) trait KindOf<T>: Fn() -> Kind<T> + 'static {}

impl<T, K: Fn() -> Kind<T> + 'static> KindOf<T> for K {}

impl<T> Kind<T> {
    /// Of this name; its outputs are nobody's errors.
    pub(crate) fn named(name: &'static str) -> Kind<T> {
        Kind { name: Name::Given(name), report: |_| None, at: None }
    }

    /// Named by the type of the future, or of what makes it; its outputs are nobody's errors.
    pub(crate) fn of<F>() -> Kind<T> {
        Kind { name: Name::Of(name_of::<F>), report: |_| None, at: None }
    }

    /// Named so, too; an `Err` of theirs is reported.
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
    /// [`poll_join`](Join::poll_join) that panics where there is no output.
    fn poll_output(&self, cx: &mut Context<'_>) -> Poll<T>;
    /// Whether somebody has had its output, or the panic that is there instead of one.
    fn is_taken(&self) -> bool;
    /// The same coroutine, without what it returns.
    fn control(self: Rc<Self>) -> Rc<dyn Control>;
    /// Nobody will await it. Tells whether it is to be cancelled with who awaited it.
    fn detach(&self) -> bool;
    /// Calls back when it is done, or at once if it is.
    fn when_done(&self, callback: Callback);
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Suspended,
    Running,
    Done,
    /// Done, and somebody has the output.
    Taken,
}

/// Asked of a coroutine while it is running: to go no further than its next suspension...
const CANCEL: u8 = 1;
/// ...or to be resumed after it.
const RESUME: u8 = 2;

/// Who else waits for a coroutine's end. Hardly any has such, so a pointer is all that they cost.
#[derive(Default)]
struct Others {
    /// Who awaits it by another waker than that of a slot.
    awaiter: Option<Waker>,
    callbacks: Vec<Callback>,
}

/// What is in the runner's one place.
enum Body<F: Future> {
    Machine(F),
    Output(Result<F::Output, Failure>),
    Taken,
}

pub(crate) struct Runner<F: Future + 'static, K> {
    kind: K,
    /// Its loop's number, and its slot there: what its waker is.
    word: Cell<usize>,
    state: Cell<State>,
    detached: Cell<bool>,
    /// What has been asked of it while it is running: `CANCEL`, `RESUME`.
    asked: Cell<u8>,
    /// An exception handler has started it, so its own failure is not for that handler.
    of_handler: bool,
    /// The word of the slot that awaits it; 0 if none does.
    awaiter: Cell<usize>,
    others: Cell<Option<Box<Others>>>,
    started_at: &'static Location<'static>,
    waiting_at: Cell<Option<&'static Location<'static>>>,
    /// Touched by `Runner::body` alone.
    body: UnsafeCell<Body<F>>,
}

impl<F: Future + 'static, K: KindOf<F::Output>> Runner<F, K> {
    /// A runner in a slot of the loop, suspended before its first step; queued for the next turn if
    /// `queued` says so. On a closed loop it has no slot, and is for the caller to cancel.
    pub(crate) fn new(
        core: &Core,
        machine: F,
        kind: K,
        queued: bool,
        started_at: &'static Location<'static>,
    ) -> Rc<Runner<F, K>> {
        // Cyclic, or it would be built on the stack, before there is a place for it, and copied.
        let runner = Rc::new_cyclic(|_| Runner {
            kind,
            word: Cell::new(pack(core.number(), Key::NONE)),
            state: Cell::new(State::Suspended),
            detached: Cell::new(false),
            asked: Cell::new(0),
            of_handler: report::is_handling(),
            awaiter: Cell::new(0),
            others: Cell::new(None),
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

    /// Whether a loop will resume it: not if the loop was closed before.
    pub(crate) fn has_slot(&self) -> bool {
        self.key() != Key::NONE
    }

    fn name(&self) -> &'static str {
        (self.kind)().name.get()
    }

    /// Where it was started, in somebody's code.
    fn started_at(&self) -> &'static Location<'static> {
        match (self.kind)().at {
            Some(at) if is_of_std(self.started_at) => at,
            _ => self.started_at,
        }
    }

    fn key(&self) -> Key {
        unpack(self.word.get()).1
    }

    /// The body, for the moment in which nobody else has it.
    ///
    /// # Safety
    ///
    /// The caller has set `state` to `Running`, and was the one to do so: it found another state
    /// before. Or the body holds no state machine any more, and nothing foreign runs while the
    /// reference lives. A state machine in it is pinned: it may be polled and dropped in place, and not
    /// be moved.
    #[expect(clippy::mut_from_ref, reason = "that is what the contract is for")]
    unsafe fn body(&self) -> &mut Body<F> {
        // SAFETY: a runner stays on its thread (it is in an `Rc`), and by the contract above no
        // other reference is alive.
        unsafe { &mut *self.body.get() }
    }

    /// Polls the state machine once, and puts its output in its place when there is one. Tells
    /// whether there is. `state` is `Running`.
    fn step(&self) -> bool {
        // Its destructor has nothing to do, and a call less to do it in.
        let waker = ManuallyDrop::new(waker(self.word.get()));
        let mut cx = Context::from_waker(&waker);
        // SAFETY: the caller has set `state` to `Running`, and keeps it so until this is over, also
        // if it panics; every other use of the body looks at `state` first.
        let body = unsafe { self.body() };
        let Body::Machine(machine) = body else { return false };
        // SAFETY: the machine lies inside an `Rc` that is never unwrapped or made `&mut`, and
        // leaves its place only by being dropped there, by the assignment below or in `settle`.
        match unsafe { Pin::new_unchecked(machine) }.poll(&mut cx) {
            Poll::Pending => false,
            Poll::Ready(output) => {
                // Drops the machine in place, and leaves the output there also if its destructor
                // panics.
                *body = Body::Output(Ok(output));
                true
            }
        }
    }

    /// Goes on until the next suspension, on the current loop. A panic goes through, and leaves
    /// `state` as `Running` for `fail`.
    fn go_on(&self, core: &Core) {
        match self.state.get() {
            State::Suspended => self.state.set(State::Running),
            // Its loop runs within its eager part, or within one of its destructors.
            State::Running => {
                core.refuse();
                return self.ask(RESUME);
            }
            State::Done | State::Taken => return,
        }
        if self.of_handler {
            // Until the next resumption begins.
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

    /// It has come to a suspension, and something was asked of it on the way.
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

    /// Its own step has panicked, which `go_on` has begun by setting `state` to `Running`: in the state
    /// machine, or in its destructor when it had given its output.
    ///
    /// Nobody else's panic comes here. A loop that finds the coroutine running already, because it runs
    /// within the coroutine's eager part, does not call this ([`Core::refuse`]); and nothing foreign runs
    /// in `go_on` after the step but what contains its own panics.
    #[cold]
    fn fail(&self, panic: Panic, core: &Core) {
        if self.state.get() != State::Running {
            return self.report_panic("whoever awaits coroutine", panic);
        }
        // SAFETY: `go_on` has set `state` to `Running` and its step is over, by unwinding; nothing
        // foreign runs while this looks.
        match unsafe { self.body() } {
            Body::Machine(_) => self.drop_machine(Failure::Panicked(panic)),
            Body::Output(_) | Body::Taken => {
                self.report_panic("the destructors of coroutine", panic);
            }
        }
        self.done(Some(core));
    }

    /// Starts it now, within whatever is going on.
    pub(crate) fn start(&self, core: &Core) {
        let _scope = core.scope(self.key());
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.go_on(core))) {
            self.fail(panic, core);
        }
    }

    /// Drops the state machine without an output. `state` is `Running`, and no step is under way.
    fn drop_machine(&self, failure: Failure) {
        debug_assert_eq!(self.state.get(), State::Running);
        let is_cancelled = matches!(failure, Failure::Cancelled);
        let drop_it = || {
            // SAFETY: `state` is `Running`, set by the caller, so nothing else gets at the body
            // while the machine's destructor runs. Assigning drops the machine in place, and
            // leaves the new value there also if the destructor panics.
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

    /// The outcome is in its place: gives the slot back and tells who waits for it.
    fn done(&self, core: Option<&Core>) {
        self.state.set(State::Done);
        match core {
            Some(core) => {
                let ended = match self.awaiter.replace(0) {
                    0 => core.remove(self.key()),
                    awaiter => core.end(self.key(), awaiter),
                };
                drop(ended);
                self.tell_others(core);
            }
            None => self.done_elsewhere(),
        }
        if self.detached.get() {
            self.drop_unread();
        }
    }

    /// [`done`](Runner::done), when its loop may not be the current one.
    #[cold]
    fn done_elsewhere(&self) {
        // (A loop that is gone has ended its coroutines before.)
        if let Some(io_loop) = self.io_loop() {
            drop(io_loop.core().remove(self.key()));
            self.tell_others(io_loop.core());
        }
        // (0 is the word of nobody.)
        waker(self.awaiter.replace(0)).wake();
    }

    /// Its loop, if that still exists.
    fn io_loop(&self) -> Option<IoLoop> {
        IoLoop::of_number(unpack(self.word.get()).0)
    }

    /// Queues the done callbacks for the next turn of its loop, and wakes who awaits it by a waker that
    /// is not a slot's.
    #[inline]
    fn tell_others(&self, core: &Core) {
        if let Some(others) = self.others.take() {
            (*others).tell(core);
        }
    }

    /// Whether somebody has begun to await it.
    fn is_awaited(&self) -> bool {
        let others = self.others.take();
        let is_awaited = others.as_ref().is_some_and(|others| others.awaiter.is_some());
        self.others.set(others);
        is_awaited || self.awaiter.get() != 0
    }

    /// Notes who awaits it, by a waker that is not the one of a slot; tells whether there is anything to
    /// wait for. To clone such a waker runs foreign code, in which this may have been cancelled.
    #[cold]
    fn await_by(&self, waker: &Waker) -> bool {
        let waker = waker.clone();
        if self.is_done() {
            foreign::discard(waker);
            return false;
        }
        let mut others = self.others.take().unwrap_or_default();
        let before = others.awaiter.replace(waker);
        self.others.set(Some(others));
        self.awaiter.set(0);
        // Foreign code, which may come back here.
        foreign::discard(before);
        !self.is_done()
    }

    /// Takes the outcome; `None` if it is not done, or the outcome was taken.
    fn take(&self) -> Option<Result<F::Output, Failure>> {
        if self.state.get() != State::Done {
            return None;
        }
        self.state.set(State::Taken);
        // SAFETY: it was `Done`, which means that the machine is gone; the reference ends with this
        // statement, in which nothing foreign runs.
        match std::mem::replace(unsafe { self.body() }, Body::Taken) {
            Body::Output(outcome) => Some(outcome),
            Body::Machine(_) | Body::Taken => None,
        }
    }

    /// Nobody took the outcome and nobody will: reports it if it is a failure, and drops it.
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

    /// For who awaited it by the handle, and not by `join`.
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
                // From here on nobody else can resume or end it, until its turn in the list comes.
                self.state.set(State::Running);
                ending::end(self);
            }
        }
    }

    fn is_done(&self) -> bool {
        matches!(self.state.get(), State::Done | State::Taken)
    }

    fn info(&self) -> CoroutineInfo {
        CoroutineInfo {
            name: self.name(),
            started_at: self.started_at(),
            waiting_at: self.waiting_at.get(),
        }
    }
}

impl Others {
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
            // The handle does not know where it is awaited; most often that is where it was got.
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
            // Its own loop may be closed, and would drop it.
            let own = self.io_loop().filter(|io_loop| !io_loop.core().is_closed());
            match own.or_else(IoLoop::try_current) {
                Some(io_loop) => io_loop.core().call(callback),
                None => {
                    let location = Some(callback.location());
                    foreign::call("callback", location, || callback.call());
                }
            }
        } else {
            let mut others = self.others.take().unwrap_or_default();
            others.callbacks.push(callback);
            self.others.set(Some(others));
        }
    }
}
