//! The state of a loop, and what the rest of the crate asks of it.
//!
//! Each phase of a turn has a part of it, in a file of its own, whose fields nobody else sees. Every
//! part is borrowed for a moment only, inside of its methods; what they take out and the caller has to
//! drop or wake, they return.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::callback::Callback;
use super::clock::Clock;
use super::deadline::Deadline;
use super::descriptors::Descriptors;
use super::due::Due;
use super::inbox::{HeldTime, Inbox, LoopId};
use super::introspect::{Count, Counters, Counting};
use super::life::{Life, State};
use super::pace::Pace;
use super::readiness::{Direction, Readiness};
use super::ready::Scheduler;
use super::registration::Registration;
use super::selector::{Outside, Selector};
use super::watch::Watch;
use crate::concurrent::Executor;
use crate::ground::coroutine_info::CoroutineInfo;
use crate::ground::error::LoopClosed;
use crate::ground::report::{self, Panic};
use crate::ground::slots::{Full, Key};
use crate::ground::waker::{waker, word_of};
use crate::ground::word::unpack;
use crate::ground::{foreign, resumption};

/// Something that a loop suspends and resumes.
pub(crate) trait Resume {
    /// Goes on until the next suspension. Called by the loop's turn, never from within itself. A
    /// panic in it goes through, to `panicked`.
    fn resume(self: Rc<Self>, core: &Core);

    /// It has panicked while it was resumed; gives the panic back if that is not its affair.
    fn panicked(&self, panic: Panic, core: &Core) -> Option<Panic> {
        let _ = core;
        Some(panic)
    }

    /// The loop closes: drops what is suspended.
    fn close(self: Rc<Self>) {}

    /// Name and places, for people; `None` for what is no coroutine.
    fn info(&self) -> Option<CoroutineInfo> {
        None
    }
}

/// A buffer that sockets borrow to read, between two uses.
pub(crate) struct LentBuffer {
    pub(crate) bytes: Box<[u8]>,
    /// From here on it is all zeros.
    pub(crate) used: usize,
}

/// What a loop is to be like.
pub(super) struct Options {
    pub(super) event_capacity: usize,
    pub(super) virtual_time: bool,
    pub(super) on_exception: Option<report::ExceptionHandler>,
    pub(super) slow_callback: Option<Duration>,
    pub(super) shuffle: Option<u64>,
    pub(super) trace: Option<usize>,
}

/// The state of a loop.
pub(crate) struct Core {
    pub(super) life: Life,
    pub(super) clock: Clock,
    id: LoopId,
    /// What other threads have posted: phase 1 of a turn.
    pub(super) inbox: Arc<Inbox>,
    /// What is due: phase 2.
    pub(super) due: Due,
    /// What is ready: phase 3.
    pub(super) scheduler: RefCell<Scheduler<Rc<dyn Resume>>>,
    /// The slot that is being resumed.
    pub(super) current: Cell<Key>,
    /// The main future of `run_sync` was resumed.
    pub(super) main_resumed: Cell<bool>,
    /// Who can read and write: phase 4.
    pub(super) selector: Selector,
    /// When it is time for phase 4.
    pub(super) pace: Pace,
    pub(super) watch: Watch,
    counting: Counting,
    pub(super) on_exception: report::ExceptionHandler,
    pub(super) handlers: RefCell<HashMap<RawFd, Rc<Registration>>>,
    /// Wakers to wake; kept from one use to the next.
    pub(super) woken: Cell<Vec<Waker>>,
    pub(crate) lent: RefCell<Vec<LentBuffer>>,
    pub(crate) executor: RefCell<Option<Executor>>,
}

impl Core {
    pub(super) fn new(options: Options) -> io::Result<Core> {
        let selector = Selector::new(options.event_capacity)?;
        let inbox = Inbox::register(selector.waker()?, Descriptors::new(selector.registry()?))?;
        let is_virtual = options.virtual_time;
        let counting = Counting::default();
        Ok(Core {
            life: Life::new(),
            clock: if is_virtual { Clock::virtual_time() } else { Clock::real() },
            id: inbox.id(),
            inbox,
            due: Due::new(),
            scheduler: RefCell::new(Scheduler::new()),
            current: Cell::new(Key::NONE),
            main_resumed: Cell::new(false),
            selector,
            pace: Pace::new(!is_virtual),
            watch: Watch::new(options.slow_callback, options.trace, options.shuffle),
            on_exception: counted(options.on_exception, counting.exceptions.clone()),
            counting,
            handlers: RefCell::new(HashMap::new()),
            woken: Cell::new(Vec::new()),
            lent: RefCell::new(Vec::new()),
            executor: RefCell::new(None),
        })
    }

    #[inline]
    pub(crate) fn number(&self) -> usize {
        self.id.number()
    }

    #[inline]
    pub(crate) fn id(&self) -> LoopId {
        self.id
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.life.state() == State::Closed
    }

    /// A slot for `resume`, queued from the start or not.
    #[track_caller]
    pub(crate) fn insert(&self, resume: Rc<dyn Resume>, queued: bool) -> Key {
        match self.scheduler.borrow_mut().insert(resume, queued) {
            Ok(key) => key,
            Err(Full) => panic!("{} has as many live coroutines as it can hold", self.id()),
        }
    }

    /// Gives a slot back; the caller drops what was in it when it holds no borrow.
    #[must_use]
    #[inline]
    pub(crate) fn remove(&self, key: Key) -> Option<Rc<dyn Resume>> {
        self.scheduler.borrow_mut().remove(key)
    }

    /// Lets the selector and the timers have their turn when this one is over.
    pub(crate) fn give_way(&self) {
        self.pace.give_way();
    }

    /// How much is ready to run.
    #[inline]
    pub(super) fn ready(&self) -> usize {
        self.scheduler.borrow().ready()
    }

    #[inline]
    pub(crate) fn schedule(&self, key: Key) {
        self.scheduler.borrow_mut().schedule(key);
    }

    /// Queues a callback; drops it if the loop is closed.
    pub(crate) fn call(&self, callback: Callback) {
        if self.is_closed() {
            return foreign::discard(callback);
        }
        self.scheduler.borrow_mut().call(callback);
    }

    /// Schedules a slot by the word of its waker, if it is one of this loop; tells whether it is.
    #[inline]
    pub(crate) fn schedule_word(&self, word: usize) -> bool {
        let (number, key) = unpack(word);
        let here = number == self.number();
        if here {
            self.schedule(key);
        }
        here
    }

    /// Gives back the slot of what has ended, for the caller to drop what was in it, and wakes the one that
    /// awaits it, by the word of its waker: it may be of another loop.
    #[must_use]
    pub(crate) fn end(&self, key: Key, awaiter: usize) -> Option<Rc<dyn Resume>> {
        let (number, awaits) = unpack(awaiter);
        let mut scheduler = self.scheduler.borrow_mut();
        if number == self.number() {
            scheduler.schedule(awaits);
        }
        let ended = scheduler.remove(key);
        drop(scheduler);
        if number != self.number() {
            waker(awaiter).wake();
        }
        ended
    }

    /// Schedules a slot by its waker, if it is one of this loop; tells whether it is.
    #[inline]
    pub(crate) fn wake_own(&self, waker: &Waker) -> bool {
        word_of(waker).is_some_and(|word| self.schedule_word(word))
    }

    /// Wakes somebody who waits; without detours if it is a slot of this loop.
    pub(crate) fn wake(&self, waker: Waker) {
        if !self.wake_own(&waker) {
            wake_foreign(waker);
        }
    }

    /// Enters a slot within whatever is going on: it is the current one until the scope ends.
    #[inline]
    pub(crate) fn scope(&self, key: Key) -> Scope<'_> {
        Scope { core: self, current: self.current.replace(key), _nested: resumption::nested() }
    }

    /// Something outside is under way: holds virtual time.
    pub(crate) fn hold_time(&self) -> HeldTime {
        HeldTime::new(self.inbox.clone())
    }

    /// The other end of a socket is outside: it holds virtual time while somebody waits for it.
    pub(crate) fn is_outside(&self, key: Key) {
        if self.clock.is_virtual() {
            self.selector.is_outside(key);
        }
    }

    /// What is outside, and so takes real time.
    #[inline]
    pub(super) fn outside(&self) -> Outside {
        self.selector.outside(self.inbox.is_held())
    }

    /// The slot that was to be resumed is in the middle of its resumption already, in an outer run: a
    /// panic from here on is not one of its own.
    #[cold]
    pub(crate) fn refuse(&self) {
        self.current.set(Key::NONE);
    }

    /// The slot that is being resumed.
    pub(crate) fn current_key(&self) -> Key {
        self.current.get()
    }

    /// The coroutine that is being resumed.
    pub(crate) fn current(&self) -> Option<CoroutineInfo> {
        self.scheduler.borrow().get(self.current.get())?.info()
    }

    /// Every live coroutine.
    pub(super) fn coroutines(&self) -> Vec<CoroutineInfo> {
        self.scheduler.borrow().slots().filter_map(|slot| slot.info()).collect()
    }

    /// A timer that wakes somebody.
    #[track_caller]
    pub(crate) fn add_timer(&self, deadline: u64, waker: Waker) -> Key {
        self.due.add(deadline, waker).unwrap_or_else(|Full| self.too_many_timers())
    }

    /// A timer that calls back.
    #[track_caller]
    pub(crate) fn add_call(&self, deadline: u64, callback: Callback) -> Key {
        self.due.add_call(deadline, callback).unwrap_or_else(|Full| self.too_many_timers())
    }

    #[cold]
    #[track_caller]
    fn too_many_timers(&self) -> ! {
        panic!("{} has as many timers as it can hold", self.id())
    }

    /// Takes a timer out; the caller drops the waker when it holds no borrow.
    #[must_use]
    pub(crate) fn remove_timer(&self, key: Key) -> Option<Waker> {
        self.due.remove(key)
    }

    /// Takes a timer that calls back out; the caller drops the callback when it holds no borrow.
    #[must_use]
    pub(crate) fn remove_call(&self, key: Key) -> Option<Callback> {
        self.due.remove_call(key)
    }

    /// Is the timer still pending? Then `waker` is the one to be woken, and becomes the one that was,
    /// for the caller to drop when it holds no borrow.
    pub(crate) fn poll_timer(&self, key: Key, waker: &mut Option<Waker>) -> bool {
        self.due.poll(key, waker)
    }

    /// The instant of a deadline; none if that is never.
    pub(crate) fn instant(&self, deadline: u64) -> Option<Instant> {
        self.clock.due(deadline)
    }

    /// The time now, counted as deadlines are.
    pub(crate) fn now(&self) -> u64 {
        self.clock.read()
    }

    /// The time now.
    pub(crate) fn time(&self) -> Instant {
        self.clock.instant(self.clock.read())
    }

    pub(crate) fn deadline(&self, deadline: Deadline) -> u64 {
        match deadline {
            Deadline::At(when) => self.clock.at(when),
            Deadline::After(delay) => self.clock.after(delay),
        }
    }

    /// Registers a socket whose number is `fd`; what is in `ready` is tried first, not waited for.
    pub(crate) fn add_socket(
        &self,
        source: &mut impl mio::event::Source,
        fd: RawFd,
        interest: mio::Interest,
        ready: &[Direction],
    ) -> io::Result<Key> {
        if self.is_closed() {
            return Err(LoopClosed.into());
        }
        let key = self.selector.insert(ready).map_err(|Full| {
            io::Error::other(format!("{} has as many sockets as it can hold", self.id()))
        })?;
        let registered = self.descriptors().register(source, fd, key, interest);
        if registered.is_err() {
            drop(self.forget_socket(key));
        }
        registered.map(|()| key)
    }

    /// Forgets a socket whose registration has ended. Who waited for it is for the caller to wake, to
    /// find it gone.
    pub(crate) fn forget_socket(&self, key: Key) -> Vec<Waker> {
        self.selector.remove(key)
    }

    #[inline]
    pub(crate) fn readiness<R>(&self, ask: impl FnOnce(&mut Readiness) -> R) -> R {
        self.selector.readiness(ask)
    }

    pub(crate) fn descriptors(&self) -> &Descriptors {
        self.inbox.descriptors()
    }

    #[inline]
    pub(crate) fn counting(&self) -> &Counting {
        &self.counting
    }

    /// How often the loop did what, and what it has now.
    pub(super) fn counters(&self) -> Counters {
        Counters {
            notified: self.inbox.notified(),
            live: self.scheduler.borrow().len() as u64,
            pending_timers: self.due.len() as u64,
            sources: self.selector.len() as u64,
            ..self.counting.counters()
        }
    }

    /// A number that changes with all that runs, and with all that comes from outside.
    pub(crate) fn done_so_far(&self) -> u64 {
        let Counting { resumes, callbacks, timers, events, messages, .. } = &self.counting;
        let counts = [resumes, callbacks, timers, events, messages];
        counts.into_iter().fold(0, |sum, count| sum.wrapping_add(count.get()))
    }

    /// Whether there is something to run without waiting for it, beside so many that are ready.
    pub(crate) fn has_more_to_do(&self, besides: usize) -> bool {
        self.ready() > besides || self.due.collected() > 0 || self.inbox.is_pending()
    }
}

/// Out of line, so that waking a slot needs no place to unwind from.
#[cold]
fn wake_foreign(waker: Waker) {
    foreign::wake(waker);
}

/// The user's handler, or the log, with a count.
fn counted(
    user: Option<report::ExceptionHandler>,
    exceptions: Rc<Count>,
) -> report::ExceptionHandler {
    Rc::new(move |exception| {
        exceptions.add(1);
        report::hand_over(user.as_deref(), exception);
    })
}

/// The slot that is being resumed; the one before is restored at the end, also on unwinding.
pub(crate) struct Scope<'a> {
    core: &'a Core,
    current: Key,
    _nested: resumption::Nested,
}

impl Drop for Scope<'_> {
    #[inline]
    fn drop(&mut self) {
        self.core.current.set(self.current);
    }
}
