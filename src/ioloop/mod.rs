//! The loop: what is ready, what is due, what is readable, who calls from outside.
//!
//! Each of these four questions has a file of its own; [`IoLoop::turn`](IoLoop) asks them in order
//! and holds no other knowledge. A turn
//!
//! 1. takes what other threads have posted,
//! 2. notes how much is ready and collects the timers that are due,
//! 3. runs that much, first in first out, then those timers,
//! 4. polls the selector, which sleeps only if nothing is ready, and marks who can go on.
//!
//! Whatever is scheduled during a phase waits for the next turn, so callbacks that add callbacks
//! and timers that set timers cannot keep the loop from its sockets. While more is ready, the
//! selector is asked not every turn but every 64 entries, or about every 100 µs if entries take
//! long.
//!
//! **The rule under all of it**: no borrow of the loop's state is held while foreign code runs: not
//! a callback, not a poll, not a wake, not a destructor.

mod alarm;
mod builder;
mod clock;
mod handlers;
mod inbox;
pub(crate) mod introspect;
mod periodic;
mod readiness;
mod ready;
mod slots;
mod timers;
mod waker;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

pub use builder::Builder;
pub use handlers::Interest;
pub use inbox::{Answer, LoopHandle};
pub use introspect::{CoroutineInfo, Counters};
pub use periodic::PeriodicCallback;

pub(crate) use inbox::{Item, LoopId, forget};
pub(crate) use readiness::{Direction, Gone, SHORT_IS_DRAINED};
pub(crate) use ready::{Callback, Resume};
pub(crate) use slots::{Key, Slots};
pub(crate) use waker::waker;

use alarm::Alarm;
use clock::Clock;
use handlers::Handler;
use inbox::Inbox;
use introspect::Counting;
use readiness::Readiness;
use ready::{Next, Scheduler};
use timers::Timers;

use crate::concurrent::Executor;
use crate::error::{ExcInfo, RunError, StartError};
use crate::report::{self, Exception};

/// The token of the inbox's eventfd; no slot packs to it.
const INBOX: mio::Token = mio::Token(usize::MAX);
/// The token of the timerfd.
const ALARM: mio::Token = mio::Token(usize::MAX - 1);

/// While entries are ready, the selector is polled after at most so many of them. (tokio's default
/// is 61.)
const POLL_INTERVAL: u32 = 64;
/// Or after about this long, in nanoseconds, going by how long entries took lately.
const POLL_LATENCY: u64 = 100_000;
/// The selector sleeps at most this long at a time, like Tornado's.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);
/// How much I/O one resumption may do before it has to let the others run. (tokio's is 128.)
const BUDGET: u32 = 128;

/// An event loop: coroutines, callbacks, timers and sockets of one thread.
///
/// A value of this type is a handle: cloning it gives another handle of the same loop, and the loop
/// is closed when [`close`](IoLoop::close) is called or the last handle is dropped. (A coroutine
/// that holds a handle of its own loop keeps it open until `close`.) It stays on its thread; other
/// threads talk to the loop through a [`LoopHandle`].
///
/// ```
/// use waterspout::IoLoop;
///
/// let io_loop = IoLoop::new()?;
/// let answer = io_loop.run_sync(|| async { 6 * 7 })?;
/// assert_eq!(answer, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct IoLoop {
    core: Rc<Core>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Running,
    Closed,
}

/// What fires when a timer is due.
pub(crate) enum Timer {
    Wake(Waker),
    Call(Callback),
}

/// The state of a loop; every field is borrowed for a moment only.
pub(crate) struct Core {
    inbox: Arc<Inbox>,
    id: LoopId,
    clock: Clock,
    scheduler: RefCell<Scheduler>,
    timers: RefCell<Timers<Timer>>,
    readiness: RefCell<Readiness>,
    handlers: RefCell<HashMap<RawFd, Rc<dyn Handler>>>,
    poll: RefCell<mio::Poll>,
    alarm: RefCell<Alarm>,
    state: Cell<State>,
    stop: Cell<bool>,
    /// Made by [`IoLoop::current`]: closed with its thread.
    of_thread: Cell<bool>,

    /// The slot that is being resumed, what it may still do, and where it says it waits.
    current: Cell<Key>,
    budget: Cell<u32>,
    waiting_at: Cell<Option<&'static Location<'static>>>,
    /// The main future of `run_sync` was resumed.
    main_resumed: Cell<bool>,
    /// Wakers of resumptions that ran out of budget, woken when these have ended.
    deferred: RefCell<Vec<Waker>>,
    /// Executor jobs under way: while there are any, virtual time stands still.
    outside: Rc<Cell<usize>>,

    /// Entries run since the selector was polled, when that was, and how many may run until then.
    entries: Cell<u32>,
    polled_at: Cell<u64>,
    interval: Cell<u32>,

    /// Buffers between uses: events, due timers, wakers to wake, what sockets borrow to read.
    events: Cell<Option<mio::Events>>,
    due: Cell<Vec<Key>>,
    woken: Cell<Vec<Waker>>,
    pub(crate) lent: RefCell<Vec<Box<[u8]>>>,
    pub(crate) executor: RefCell<Option<Executor>>,

    on_exception: report::Handler,
    slow_callback: Option<Duration>,
    counting: Counting,
}

// ---------------------------------------------------------------------------------------------
// The current loop of a thread

/// Holds the thread's loop; closes it with the thread if [`IoLoop::current`] has made it.
struct Current(RefCell<Option<IoLoop>>);

impl Drop for Current {
    fn drop(&mut self) {
        if let Some(io_loop) = self.0.take() {
            if io_loop.core.of_thread.get() {
                io_loop.close();
            }
        }
    }
}

thread_local! {
    static CURRENT: Current = const { Current(RefCell::new(None)) };
}

/// Asks this thread's current loop, if there is one. `ask` runs no foreign code and does not change
/// which loop is current.
pub(crate) fn with_current<R>(ask: impl FnOnce(&Core) -> R) -> Option<R> {
    CURRENT
        .try_with(|current| current.0.borrow().as_ref().map(|io_loop| ask(&io_loop.core)))
        .ok()
        .flatten()
}

/// Makes `io_loop` the thread's current one, with its exception handler, and returns the one before.
fn replace_current(io_loop: Option<IoLoop>) -> Option<IoLoop> {
    report::install(io_loop.as_ref().map(|io_loop| io_loop.core.on_exception.clone()));
    CURRENT.try_with(|current| current.0.replace(io_loop)).ok().flatten()
}

/// Restores the loop that was current before, also on unwinding.
struct Entered(Option<IoLoop>);

impl Drop for Entered {
    fn drop(&mut self) {
        drop(replace_current(self.0.take()));
    }
}

impl IoLoop {
    fn enter(&self) -> Entered {
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
    #[track_caller]
    pub fn current() -> IoLoop {
        if let Some(io_loop) = IoLoop::try_current() {
            return io_loop;
        }
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
    pub fn try_current() -> Option<IoLoop> {
        CURRENT.try_with(|current| current.0.borrow().clone()).ok().flatten()
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
        self.refuse_in_another_running_loop("make_current");
        drop(replace_current(Some(self.clone())));
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

    #[track_caller]
    fn refuse_in_another_running_loop(&self, what: &str) {
        match IoLoop::running() {
            Some(running) if running != *self => {
                panic!("{what}: {running:?} is running, it stays current until it stops")
            }
            _ => {}
        }
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

// ---------------------------------------------------------------------------------------------
// Making, starting, stopping, closing

impl IoLoop {
    /// A loop with defaults. It is not current until it starts or is made so.
    ///
    /// # Errors
    ///
    /// As [`Builder::build`].
    pub fn new() -> io::Result<IoLoop> {
        IoLoop::builder().build()
    }

    /// A loop with options.
    pub fn builder() -> Builder {
        Builder::new()
    }

    fn build(builder: Builder) -> io::Result<IoLoop> {
        let poll = mio::Poll::new()?;
        let inbox = Inbox::register(mio::Waker::new(poll.registry(), INBOX)?)?;
        let clock = builder.clock();
        let user = builder.on_exception;
        let on_exception: report::Handler = Rc::new(move |exception| {
            with_current(|core| core.counting.exceptions.add(1));
            match &user {
                None => log::error!(target: "waterspout", "{exception}"),
                Some(user) => {
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| user(exception))) {
                        let info = ExcInfo::from_panic(&*panic);
                        log::error!(target: "waterspout", "on_exception, given {exception}: {info}");
                    }
                }
            }
        });
        let core = Core {
            id: inbox.id(),
            inbox,
            clock,
            scheduler: RefCell::new(Scheduler::new()),
            timers: RefCell::new(Timers::new()),
            readiness: RefCell::new(Readiness::new()),
            handlers: RefCell::new(HashMap::new()),
            poll: RefCell::new(poll),
            alarm: RefCell::new(Alarm::new()),
            state: Cell::new(State::Open),
            stop: Cell::new(false),
            of_thread: Cell::new(false),
            current: Cell::new(Key::NONE),
            budget: Cell::new(BUDGET),
            waiting_at: Cell::new(None),
            main_resumed: Cell::new(false),
            deferred: RefCell::new(Vec::new()),
            outside: Rc::new(Cell::new(0)),
            entries: Cell::new(0),
            polled_at: Cell::new(0),
            interval: Cell::new(POLL_INTERVAL),
            events: Cell::new(Some(mio::Events::with_capacity(builder.event_capacity))),
            due: Cell::new(Vec::new()),
            woken: Cell::new(Vec::new()),
            lent: RefCell::new(Vec::new()),
            executor: RefCell::new(None),
            on_exception,
            slow_callback: builder.slow_callback,
            counting: Counting::default(),
        };
        Ok(IoLoop { core: Rc::new(core) })
    }

    /// The selector in use: `"epoll"`, `"kqueue"` or `"poll"`. Tornado: `configured_class()`.
    pub fn selector() -> &'static str {
        if cfg!(mio_unsupported_force_poll_poll) {
            "poll"
        } else if cfg!(any(target_os = "linux", target_os = "android")) {
            "epoll"
        } else {
            "kqueue"
        }
    }

    /// What other threads may do with this loop.
    pub fn handle(&self) -> LoopHandle {
        LoopHandle::new(self.core.inbox.clone())
    }

    /// Runs the loop until [`stop`](IoLoop::stop).
    ///
    /// The loop is current meanwhile; the one before is restored after, also on unwinding. It can
    /// be started again: what had not run by then is still queued.
    ///
    /// # Errors
    ///
    /// [`StartError`] if this thread runs a loop already, or this one is closed.
    ///
    /// # Panics
    ///
    /// If the selector fails, for which there is no reason but a closed or foreign fd in its place.
    pub fn start(&self) -> Result<(), StartError> {
        let _running = self.begin()?;
        while !self.core.stop.get() {
            self.turn(&mut || ());
        }
        Ok(())
    }

    /// Asks the loop to end [`start`](IoLoop::start) or [`run_sync`](IoLoop::run_sync).
    ///
    /// The rest of the current turn still runs. Called before `start`, it makes `start` return at
    /// once. From another thread: [`LoopHandle::stop`].
    pub fn stop(&self) {
        self.core.stop.set(true);
    }

    fn begin(&self) -> Result<Running<'_>, StartError> {
        if let Some(running) = IoLoop::running() {
            let (asked, running) = (format!("{self:?}"), format!("{running:?}"));
            return Err(StartError::Nested { asked, running });
        }
        if self.core.state.get() == State::Closed {
            return Err(StartError::Closed);
        }
        let entered = self.enter();
        self.core.state.set(State::Running);
        Ok(Running { core: &self.core, _entered: entered })
    }

    /// Runs the loop until the future that `make` returns has finished, and gives its output.
    ///
    /// `make` is called inside the running loop. Neither it nor its future need be `'static` or
    /// `Send`. Coroutines that are still unfinished then stay alive, and go on when the loop runs
    /// again. Tornado: `run_sync`.
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
        self.run(None, make, Location::caller())
    }

    /// [`run_sync`](IoLoop::run_sync) with a time limit.
    ///
    /// # Errors
    ///
    /// Also [`RunError::TimedOut`] after `timeout`, which lists what was suspended then. The future
    /// is dropped; coroutines that it was waiting for stay alive.
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
        self.run(Some(timeout), make, Location::caller())
    }

    fn run<M, F>(
        &self,
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
        let main = Rc::new(Main { location, waiting_at: Cell::new(None) });
        let slot = MainSlot { core, key: core.insert(main.clone()), timeout: Cell::new(None) };
        core.schedule(slot.key);
        let timed_out = Rc::new(Cell::new(false));
        if let Some(timeout) = timeout {
            let (timed_out, io_loop) = (timed_out.clone(), self.clone());
            let up = move || {
                timed_out.set(true);
                io_loop.stop();
            };
            let call = Callback { call: Box::new(up), location };
            slot.timeout.set(Some(core.add_timer(core.clock.after(timeout), Timer::Call(call))));
        }

        let mut future = pin!(None);
        let mut make = Some(make);
        let mut outcome = None;
        let mut stuck = Vec::new();
        while outcome.is_none() && !core.stop.get() {
            self.turn(&mut || {
                let scope = core.scope(slot.key);
                let polled = catch_unwind(AssertUnwindSafe(|| {
                    if let Some(make) = make.take() {
                        future.set(Some(make().into_future()));
                    }
                    let waker = waker(core.number(), slot.key);
                    match future.as_mut().as_pin_mut() {
                        Some(future) => future.poll(&mut Context::from_waker(&waker)),
                        None => Poll::Pending,
                    }
                }));
                main.waiting_at.set(scope.end());
                match polled {
                    Ok(Poll::Pending) => {}
                    Ok(Poll::Ready(output)) => outcome = Some(Ok(output)),
                    Err(panic) => outcome = Some(Err(panic)),
                }
                if outcome.is_some() {
                    core.stop.set(true);
                }
            });
            if timed_out.get() {
                stuck = self.coroutines();
            }
        }
        match outcome {
            Some(Ok(output)) => Ok(output),
            Some(Err(panic)) => resume_unwind(panic),
            None if timed_out.get() => {
                Err(RunError::TimedOut { after: timeout.unwrap_or_default(), stuck })
            }
            None => Err(RunError::Stopped),
        }
    }

    /// Drops everything that the loop holds: suspended coroutines, callbacks, timers, handlers.
    ///
    /// Their destructors run here, with this loop as the current one, and may call it; what they
    /// add is dropped. Handles answer `LoopClosed` from here on, and joining a coroutine of the
    /// loop gives a `JoinError`. Objects that were handed to
    /// [`add_handler`](IoLoop::add_handler) are dropped, which closes them if they own their fd:
    /// Tornado's `close(all_fds=True)`. Closing twice does nothing.
    ///
    /// # Panics
    ///
    /// If the loop is running: [`stop`](IoLoop::stop) it first.
    #[track_caller]
    pub fn close(&self) {
        let core = &*self.core;
        match core.state.get() {
            State::Closed => return,
            State::Running => panic!("close: {self:?} is running, stop it first"),
            State::Open => core.state.set(State::Closed),
        }
        let _entered = self.enter();
        let mut posted = core.inbox.close();
        while let Some(item) = posted.pop_front() {
            self.guarded("destructor", None, || drop(item));
        }
        let slots = core.scheduler.borrow().keys();
        for slot in slots.into_iter().filter_map(|key| core.remove(key)) {
            self.guarded("destructor of a coroutine", None, || slot.close(self));
        }
        loop {
            let next = core.scheduler.borrow_mut().next();
            let timer = core.timers.borrow_mut().pop_any();
            let deferred = core.deferred.borrow_mut().pop();
            if next.is_none() && timer.is_none() && deferred.is_none() {
                break;
            }
            self.guarded("destructor", None, || drop((next, timer, deferred)));
        }
        let handlers = core.handlers.take();
        self.guarded("destructor", None, || drop(handlers));
        let readiness = core.readiness.replace(Readiness::new());
        self.guarded("destructor", None, || drop(readiness));
        core.lent.borrow_mut().clear();
    }
}

impl Drop for IoLoop {
    fn drop(&mut self) {
        if Rc::strong_count(&self.core) == 1 && self.core.state.get() == State::Open {
            self.close();
        }
    }
}

/// The loop runs: it is current, and stops being either also on unwinding.
struct Running<'a> {
    core: &'a Core,
    _entered: Entered,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.core.state.set(State::Open);
        self.core.stop.set(false);
    }
}

/// The slot of `run_sync`'s future, which lives on the stack of `run_sync`.
struct Main {
    location: &'static Location<'static>,
    waiting_at: Cell<Option<&'static Location<'static>>>,
}

impl Resume for Main {
    fn resume(self: Rc<Self>, io_loop: &IoLoop) {
        io_loop.core.main_resumed.set(true);
    }

    fn close(self: Rc<Self>, _: &IoLoop) {}

    fn info(&self) -> Option<CoroutineInfo> {
        Some(CoroutineInfo {
            name: "run_sync",
            started_at: self.location,
            waiting_at: self.waiting_at.get(),
        })
    }
}

/// Gives the slot and the timer of `run_sync` back.
struct MainSlot<'a> {
    core: &'a Core,
    key: Key,
    timeout: Cell<Option<Key>>,
}

impl Drop for MainSlot<'_> {
    fn drop(&mut self) {
        drop(self.core.remove(self.key));
        if let Some(timeout) = self.timeout.get() {
            drop(self.core.remove_timer(timeout));
        }
        self.core.main_resumed.set(false);
    }
}

// ---------------------------------------------------------------------------------------------
// The turn

impl IoLoop {
    fn turn(&self, main: &mut dyn FnMut()) {
        let core = &*self.core;
        core.counting.turns.add(1);
        self.take_inbox();

        let ready = core.scheduler.borrow().ready();
        let mut due = core.due.take();
        core.timers.borrow_mut().collect_due(core.clock.last(), &mut due);

        for _ in 0..ready {
            self.run_next();
            if core.main_resumed.take() {
                main();
            }
        }
        for key in due.drain(..) {
            self.fire(key);
        }
        core.due.set(due);
        let deferred = core.deferred.take();
        if !deferred.is_empty() {
            self.wake_all(deferred);
        }

        core.entries.set(core.entries.get().saturating_add(ready.max(1) as u32));
        if !core.stop.get() {
            self.poll();
        }
    }

    /// Phase 1: what other threads have posted.
    fn take_inbox(&self) {
        let core = &*self.core;
        if !core.inbox.is_pending() {
            return;
        }
        let items = core.inbox.take();
        core.counting.messages.add(items.len() as u64);
        for item in items {
            match item {
                Item::Wake(key) => core.schedule(key),
                Item::Call(call) => core.call(Callback { call, location: Location::caller() }),
                Item::ForgetSource(key) => self.wake_all(core.take_source(key)),
                Item::ForgetTimer(key) => {
                    let timer = core.remove_timer(key);
                    self.guarded("destructor", None, || drop(timer));
                }
                Item::Stop => self.stop(),
            }
        }
    }

    /// Phase 3: one entry of the run queue.
    fn run_next(&self) {
        let core = &*self.core;
        let next = core.scheduler.borrow_mut().next();
        match next {
            Some(Next::Resume(resume)) => {
                core.counting.resumes.add(1);
                let info = || resume.info().map_or("a handler".into(), |info| info.to_string());
                self.guarded("handler", None, || self.timed(info, || resume.clone().resume(self)));
            }
            Some(Next::Call(callback)) => self.run_callback(callback),
            Some(Next::Stale) | None => {}
        }
    }

    fn run_callback(&self, callback: Callback) {
        self.core.counting.callbacks.add(1);
        let location = callback.location;
        let what = || format!("the callback added at {location}");
        self.guarded("callback", Some(location), || self.timed(what, callback.call));
    }

    /// Phase 3: one timer that was due when the turn began, unless it was removed meanwhile.
    fn fire(&self, key: Key) {
        let core = &*self.core;
        match core.remove_timer(key) {
            Some(Timer::Wake(waker)) => {
                core.counting.timers.add(1);
                self.guarded("waker", None, || waker.wake());
            }
            Some(Timer::Call(callback)) => {
                core.counting.timers.add(1);
                self.run_callback(callback);
            }
            None => {}
        }
    }

    /// Runs foreign code; its panic is reported and goes no further.
    fn guarded(
        &self,
        what: &'static str,
        location: Option<&'static Location<'static>>,
        run: impl FnOnce(),
    ) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
            let info = ExcInfo::from_panic(&*panic);
            // The payload is foreign, too, and its destructor might panic.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(panic)));
            report::report(Exception { what, name: None, location, info });
        }
    }

    /// Runs something and warns if it took longer than the threshold, if there is one.
    fn timed(&self, what: impl FnOnce() -> String, run: impl FnOnce()) {
        let Some(threshold) = self.core.slow_callback else { return run() };
        let waiting = self.core.scheduler.borrow().ready();
        let what = what();
        let start = Instant::now();
        run();
        let took = start.elapsed();
        if took > threshold {
            log::warn!(
                target: "waterspout",
                "{what} took {took:?}, more than {threshold:?}, while {waiting} others were waiting"
            );
        }
    }

    /// Phase 4: asks the selector who can go on, and sleeps there if nobody can.
    fn poll(&self) {
        let core = &*self.core;
        let busy = core.scheduler.borrow().ready() > 0;
        if busy && core.entries.get() < core.interval.get() {
            return;
        }
        let sleep = if busy { Sleep::Not } else { core.sleep() };
        let asleep = sleep != Sleep::Not && core.inbox.fall_asleep();
        let timeout = match sleep {
            Sleep::AtMost(time) if asleep => Some(time),
            Sleep::Forever if asleep => None,
            _ => Some(Duration::ZERO),
        };
        let Some(mut events) = core.events.take() else { return };
        let polled = core.poll.borrow_mut().poll(&mut events, timeout);
        if asleep {
            core.inbox.wake_up();
        }
        core.counting.polls.add(1);
        match polled {
            Ok(()) => self.dispatch(&events),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => panic!("{self:?}: the selector failed: {error}"),
        }
        let quiet = events.is_empty();
        core.events.set(Some(events));
        core.after_poll(busy, quiet);
    }

    fn dispatch(&self, events: &mio::Events) {
        let core = &*self.core;
        let mut woken = core.woken.take();
        let mut readiness = core.readiness.borrow_mut();
        let mut count = 0;
        for event in events.iter().filter(|event| ![INBOX, ALARM].contains(&event.token())) {
            readiness.on_event(event, &mut woken);
            count += 1;
        }
        drop(readiness);
        core.counting.events.add(count);
        self.wake_all(woken);
    }

    /// Wakes all, also those after one whose waker panics, and keeps the buffer.
    fn wake_all(&self, mut woken: Vec<Waker>) {
        let mut wakers = woken.drain(..);
        while wakers.len() > 0 {
            self.guarded("waker", None, || wakers.by_ref().for_each(Waker::wake));
        }
        drop(wakers);
        self.core.woken.set(woken);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sleep {
    Not,
    AtMost(Duration),
    Forever,
}

impl Core {
    /// How long the selector may sleep, since nothing is ready.
    fn sleep(&self) -> Sleep {
        let Some(deadline) = self.timers.borrow_mut().next_deadline() else {
            return Sleep::Forever;
        };
        if self.clock.is_virtual() {
            // Looks once; if there is nothing, `after_poll` moves the clock instead of sleeping.
            return if self.outside.get() > 0 { Sleep::Forever } else { Sleep::Not };
        }
        let left = Duration::from_nanos(deadline.saturating_sub(self.clock.read()));
        let poll = self.poll.borrow();
        let armed = self.alarm.borrow_mut().arm(poll.registry(), ALARM, deadline, left);
        // Without a timerfd (too many open files), deadlines are kept to the next millisecond.
        match armed.unwrap_or(Duration::from_millis(1)).min(LONGEST_SLEEP) {
            Duration::ZERO => Sleep::Not,
            time => Sleep::AtMost(time),
        }
    }

    /// Brings the clock up to date, if there is anyone to whom it matters.
    fn after_poll(&self, busy: bool, quiet: bool) {
        let mut timers = self.timers.borrow_mut();
        if self.clock.is_virtual() {
            let idle = !busy && quiet && self.outside.get() == 0 && !self.inbox.is_pending();
            if let (true, Some(deadline)) = (idle, timers.next_deadline()) {
                self.clock.advance_to(deadline);
            }
        } else if busy || !timers.is_empty() {
            let now = self.clock.read();
            if busy {
                let spent = now.saturating_sub(self.polled_at.get());
                let each = (spent / u64::from(self.entries.get().max(1))).max(1);
                let interval = (POLL_LATENCY / each).clamp(1, POLL_INTERVAL.into());
                self.interval.set(interval as u32);
            }
            self.polled_at.set(now);
        }
        self.entries.set(0);
    }

    pub(crate) fn number(&self) -> usize {
        self.id.number()
    }

    pub(crate) fn id(&self) -> LoopId {
        self.id
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.get() == State::Closed
    }

    /// A slot for `resume`.
    #[track_caller]
    pub(crate) fn insert(&self, resume: Rc<dyn Resume>) -> Key {
        match self.scheduler.borrow_mut().insert(resume) {
            Ok(key) => key,
            Err(slots::Full) => panic!("{} has as many live coroutines as it can hold", self.id),
        }
    }

    /// Gives a slot back; the caller drops what was in it when it holds no borrow.
    #[must_use]
    pub(crate) fn remove(&self, key: Key) -> Option<Rc<dyn Resume>> {
        self.scheduler.borrow_mut().remove(key)
    }

    pub(crate) fn schedule(&self, key: Key) {
        self.scheduler.borrow_mut().schedule(key);
    }

    /// Queues a callback, unless the loop is closed.
    pub(crate) fn call(&self, callback: Callback) {
        if self.is_closed() {
            return;
        }
        self.scheduler.borrow_mut().call(callback);
    }

    /// Enters a slot: it is the current one, with a fresh budget, until the scope ends.
    pub(crate) fn scope(&self, key: Key) -> Scope<'_> {
        Scope {
            core: self,
            current: self.current.replace(key),
            budget: self.budget.replace(BUDGET),
            waiting_at: self.waiting_at.replace(None),
        }
    }

    /// Says that something outside is under way, for which virtual time has to wait.
    pub(crate) fn outside(&self) -> Outside {
        self.outside.set(self.outside.get() + 1);
        Outside(self.outside.clone())
    }

    pub(crate) fn turns(&self) -> u64 {
        self.counting.turns.get()
    }

    /// The coroutine that is being resumed.
    pub(crate) fn current(&self) -> Option<CoroutineInfo> {
        self.scheduler.borrow().info(self.current.get())
    }

    /// Notes where the coroutine that is being resumed is about to wait.
    pub(crate) fn waits_at(&self, place: &'static Location<'static>) {
        self.waiting_at.set(Some(place));
    }

    /// Spends one unit of the current resumption's budget. If none is left, the task is woken when
    /// its resumption has ended: not before, or a combinator that polls again whatever was woken
    /// would spin.
    pub(crate) fn poll_budget(&self, cx: &Context<'_>) -> Poll<()> {
        match self.budget.get() {
            0 => {
                self.deferred.borrow_mut().push(cx.waker().clone());
                Poll::Pending
            }
            left => {
                self.budget.set(left - 1);
                Poll::Ready(())
            }
        }
    }

    #[track_caller]
    pub(crate) fn add_timer(&self, deadline: u64, timer: Timer) -> Key {
        match self.timers.borrow_mut().insert(deadline, timer) {
            Ok(key) => key,
            Err(slots::Full) => panic!("{} has as many timers as it can hold", self.id),
        }
    }

    /// Takes a timer out; the caller drops it when it holds no borrow.
    #[must_use]
    pub(crate) fn remove_timer(&self, key: Key) -> Option<Timer> {
        self.timers.borrow_mut().remove(key)
    }

    /// Is the timer still pending? Then `waker` is the one to be woken.
    pub(crate) fn poll_timer(&self, key: Key, waker: &Waker) -> bool {
        match self.timers.borrow_mut().get_mut(key) {
            Some(Timer::Wake(known)) => {
                known.clone_from(waker);
                true
            }
            Some(Timer::Call(_)) => true,
            None => false,
        }
    }

    pub(crate) fn after(&self, delay: Duration) -> u64 {
        self.clock.after(delay)
    }

    pub(crate) fn at(&self, when: Instant) -> u64 {
        self.clock.at(when)
    }

    /// Registers a socket for both directions; what is in `ready` is tried first, not waited for.
    pub(crate) fn add_source(
        &self,
        source: &mut impl mio::event::Source,
        interest: mio::Interest,
        ready: &[Direction],
    ) -> io::Result<Key> {
        if self.is_closed() {
            return Err(crate::error::LoopClosed.into());
        }
        let key = self.readiness.borrow_mut().insert(ready);
        let key = key.map_err(|slots::Full| {
            io::Error::other(format!("{} has as many sockets as it can hold", self.id))
        })?;
        let registered =
            self.poll.borrow().registry().register(source, mio::Token(key.pack()), interest);
        if registered.is_err() {
            self.readiness.borrow_mut().remove(key, &mut Vec::new());
        }
        registered.map(|()| key)
    }

    /// Forgets a socket whose fd is closed, or about to be, which is why epoll is not told. Who waited
    /// for it is for the caller to wake, to find it gone.
    pub(crate) fn take_source(&self, key: Key) -> Vec<Waker> {
        let mut woken = Vec::new();
        self.readiness.borrow_mut().remove(key, &mut woken);
        woken
    }

    pub(crate) fn readiness<R>(&self, ask: impl FnOnce(&mut Readiness) -> R) -> R {
        ask(&mut self.readiness.borrow_mut())
    }

    pub(crate) fn registry<R>(&self, ask: impl FnOnce(&mio::Registry) -> R) -> R {
        ask(self.poll.borrow().registry())
    }

    pub(crate) fn counting(&self) -> &Counting {
        &self.counting
    }
}

/// Something outside of the loop that it is waiting for; see [`Core::outside`].
pub(crate) struct Outside(Rc<Cell<usize>>);

impl Drop for Outside {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// The slot that is being resumed; the one before is restored at the end, also on unwinding.
pub(crate) struct Scope<'a> {
    core: &'a Core,
    current: Key,
    budget: u32,
    waiting_at: Option<&'static Location<'static>>,
}

impl Scope<'_> {
    /// Ends it and tells where the slot said it waits.
    pub(crate) fn end(self) -> Option<&'static Location<'static>> {
        self.core.waiting_at.get()
    }
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        self.core.current.set(self.current);
        self.core.budget.set(self.budget);
        self.core.waiting_at.set(self.waiting_at);
    }
}

// ---------------------------------------------------------------------------------------------
// Callbacks, timers, and what the loop tells

/// When something is due: an instant, or a time from now. Both ways work wherever one is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// At this instant; one in the past is due at once.
    At(Instant),
    /// This long from now; [`Duration::MAX`] is never.
    After(Duration),
}

impl From<Instant> for Deadline {
    fn from(when: Instant) -> Deadline {
        Deadline::At(when)
    }
}

impl From<Duration> for Deadline {
    fn from(delay: Duration) -> Deadline {
        Deadline::After(delay)
    }
}

/// Names a timer of a loop, for [`IoLoop::remove_timeout`]. Plain data; keeping it keeps nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout {
    id: LoopId,
    key: Key,
}

impl IoLoop {
    /// Queues a callback: first in first out, never run inside this call, run in the next turn if
    /// called within a turn. Tornado: `add_callback`.
    ///
    /// A panic in it is reported to [`Builder::on_exception`] and the loop goes on. On a closed
    /// loop the callback is dropped. From other threads: [`LoopHandle::add_callback`].
    ///
    /// ```
    /// use waterspout::IoLoop;
    ///
    /// let io_loop = IoLoop::new()?;
    /// let inner = io_loop.clone();
    /// io_loop.add_callback(move || inner.stop());
    /// io_loop.start()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn add_callback(&self, callback: impl FnOnce() + 'static) {
        self.core.call(Callback { call: Box::new(callback), location: Location::caller() });
    }

    /// Runs a callback at a deadline: an [`Instant`] or a [`Duration`] from now.
    ///
    /// The clock is monotonic. Equal deadlines run in the order in which they were set; a deadline
    /// in the past runs in the next turn; one too far to count never does. A panic is reported and
    /// the loop goes on. On a closed loop the callback is dropped. Tornado: `add_timeout`.
    ///
    /// # Panics
    ///
    /// If the loop has 16,777,215 timers already.
    #[track_caller]
    pub fn add_timeout(
        &self,
        deadline: impl Into<Deadline>,
        callback: impl FnOnce() + 'static,
    ) -> Timeout {
        let core = &*self.core;
        let key = if core.is_closed() {
            Key::NONE
        } else {
            let call = Callback { call: Box::new(callback), location: Location::caller() };
            core.add_timer(core.deadline(deadline.into()), Timer::Call(call))
        };
        Timeout { id: core.id, key }
    }

    /// [`add_timeout`](IoLoop::add_timeout) by a time from now. Tornado: `call_later`.
    #[track_caller]
    pub fn call_later(&self, delay: Duration, callback: impl FnOnce() + 'static) -> Timeout {
        self.add_timeout(delay, callback)
    }

    /// [`add_timeout`](IoLoop::add_timeout) at an instant. Tornado: `call_at`.
    #[track_caller]
    pub fn call_at(&self, when: Instant, callback: impl FnOnce() + 'static) -> Timeout {
        self.add_timeout(when, callback)
    }

    /// Takes a timer back and drops its callback at once; tells whether it was still pending.
    ///
    /// Harmless after it has fired, and with a timer of another loop. A timer that is due can be
    /// taken back by one due before it. Tornado: `remove_timeout`.
    pub fn remove_timeout(&self, timeout: Timeout) -> bool {
        if timeout.id != self.core.id {
            return false;
        }
        let timer = self.core.remove_timer(timeout.key);
        timer.is_some()
    }

    /// The loop's time: the present, or in virtual time the loop's own. Tornado: `time`.
    pub fn time(&self) -> Instant {
        self.core.clock.instant(self.core.clock.read())
    }

    /// How often the loop did what.
    pub fn counters(&self) -> Counters {
        let core = &*self.core;
        let counting = &core.counting;
        Counters {
            turns: counting.turns.get(),
            polls: counting.polls.get(),
            events: counting.events.get(),
            resumes: counting.resumes.get(),
            callbacks: counting.callbacks.get(),
            timers: counting.timers.get(),
            started: counting.started.get(),
            io_calls: counting.io_calls.get(),
            would_block: counting.would_block.get(),
            messages: counting.messages.get(),
            notified: core.inbox.notified(),
            exceptions: counting.exceptions.get(),
            live: core.scheduler.borrow().len() as u64,
            pending_timers: core.timers.borrow().len() as u64,
            sources: core.readiness.borrow().len() as u64,
        }
    }

    /// Every live coroutine: its name, where it was started, and where it waits.
    ///
    /// ```
    /// use std::time::Duration;
    /// use waterspout::{IoLoop, coroutine};
    ///
    /// let io_loop = IoLoop::new()?;
    /// io_loop.run_sync(|| async {
    ///     coroutine::start(coroutine::sleep(Duration::from_secs(60)));
    /// })?;
    /// let coroutines = io_loop.coroutines();
    /// assert_eq!(coroutines.len(), 1);
    /// assert_eq!(coroutines[0].started_at.file(), file!());
    /// assert!(coroutines[0].waiting_at.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn coroutines(&self) -> Vec<CoroutineInfo> {
        self.core.scheduler.borrow().infos().collect()
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }
}

impl Core {
    pub(crate) fn deadline(&self, deadline: Deadline) -> u64 {
        match deadline {
            Deadline::At(when) => self.at(when),
            Deadline::After(delay) => self.after(delay),
        }
    }
}

impl PartialEq for IoLoop {
    fn eq(&self, other: &IoLoop) -> bool {
        self.core.id == other.core.id
    }
}

impl Eq for IoLoop {}

impl fmt::Debug for IoLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.core.id)
    }
}
