//! The state of a loop, and what the rest of the crate asks of it.
//!
//! Every field is borrowed for a moment only, inside the methods of [`Core`]; what they take out
//! and the caller has to drop or wake, they return.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::clock::Clock;
use super::current::forget_loop;
use super::descriptors::Descriptors;
use super::handlers::Handler;
use super::inbox::{HeldTime, Inbox, LoopId};
use super::introspect::{Counting, Step, Trace};
use super::pace::Pace;
use super::readiness::{Direction, Readiness};
use super::ready::{Callback, Resume, Scheduler};
use super::waker::vtable;
use super::{Builder, Deadline, waker, with_current, word_of};
use crate::concurrent::Executor;
use crate::ground::coroutine_info::CoroutineInfo;
use crate::ground::error::LoopClosed;
use crate::ground::slots::{Full, Key, Slots};
use crate::ground::timers::Timers;
use crate::ground::word::{NO_LOOP, pack, unpack};
use crate::ground::{foreign, report, resumption};

/// The token of the inbox's eventfd; no slot packs to it.
pub(super) const INBOX: mio::Token = mio::Token(usize::MAX);

/// What a loop is doing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Open,
    Running,
    Closed,
}

/// A buffer that sockets borrow to read, between two uses.
pub(crate) struct LentBuffer {
    pub(crate) bytes: Box<[u8]>,
    /// From here on it is all zeros.
    pub(crate) used: usize,
}

/// The state of a loop; every field is borrowed for a moment only.
pub(crate) struct Core {
    pub(super) inbox: Arc<Inbox>,
    pub(super) id: LoopId,
    pub(super) clock: Clock,
    pub(super) scheduler: RefCell<Scheduler>,
    pub(super) timers: RefCell<Timers<Waker>>,
    /// What the timers that call back call.
    pub(super) calls: RefCell<Slots<Callback, true>>,
    pub(super) readiness: RefCell<Readiness>,
    pub(super) handlers: RefCell<HashMap<RawFd, Rc<dyn Handler>>>,
    pub(super) poll: RefCell<mio::Poll>,
    pub(super) state: Cell<State>,
    pub(super) stop: Cell<bool>,
    /// It has run, or runs.
    pub(super) has_run: Cell<bool>,
    /// Made by [`IoLoop::current`]: closed with its thread.
    pub(super) of_thread: Cell<bool>,
    /// How many handles own it, and whether its thread keeps it; see `current`.
    pub(super) owners: Cell<usize>,
    pub(super) is_kept: Cell<bool>,

    /// The slot that is being resumed.
    pub(super) current: Cell<Key>,
    /// The main future of `run_sync` was resumed.
    pub(super) main_resumed: Cell<bool>,
    /// Sockets whose other end is outside: virtual time is held while somebody waits for one.
    pub(super) outside: RefCell<Vec<Key>>,

    pub(super) pace: Pace,
    /// Timers that are due and have not fired yet.
    pub(super) due: RefCell<VecDeque<Key>>,

    /// Buffers between uses: events, wakers to wake, what sockets borrow to read.
    pub(super) events: Cell<Option<mio::Events>>,
    pub(super) woken: Cell<Vec<Waker>>,
    pub(crate) lent: RefCell<Vec<LentBuffer>>,
    pub(crate) executor: RefCell<Option<Executor>>,

    pub(super) on_exception: report::Handler,
    pub(super) slow_callback: Option<Duration>,
    /// Whether entries are timed, recorded, or put in another order.
    pub(super) watched: bool,
    pub(super) trace: Option<Trace>,
    /// The state of the generator that orders what is ready, for tests.
    pub(super) shuffle: Option<Cell<u64>>,
    pub(super) counting: Counting,
}

impl Core {
    pub(super) fn new(builder: Builder) -> io::Result<Core> {
        resumption::wakers_of_coroutines(vtable());
        let poll = mio::Poll::new()?;
        let waker = mio::Waker::new(poll.registry(), INBOX)?;
        let inbox = Inbox::register(waker, Descriptors::new(poll.registry().try_clone()?))?;
        let clock = builder.clock();
        Ok(Core {
            id: inbox.id(),
            inbox,
            scheduler: RefCell::new(Scheduler::new()),
            timers: RefCell::new(Timers::new()),
            calls: RefCell::new(Slots::new()),
            readiness: RefCell::new(Readiness::new()),
            handlers: RefCell::new(HashMap::new()),
            poll: RefCell::new(poll),
            state: Cell::new(State::Open),
            stop: Cell::new(false),
            has_run: Cell::new(false),
            of_thread: Cell::new(false),
            owners: Cell::new(0),
            is_kept: Cell::new(false),
            current: Cell::new(Key::NONE),
            main_resumed: Cell::new(false),
            outside: RefCell::new(Vec::new()),
            pace: Pace::new(!clock.is_virtual()),
            clock,
            due: RefCell::new(VecDeque::new()),
            events: Cell::new(Some(mio::Events::with_capacity(builder.event_capacity))),
            woken: Cell::new(Vec::new()),
            lent: RefCell::new(Vec::new()),
            executor: RefCell::new(None),
            on_exception: counting(builder.on_exception),
            slow_callback: builder.slow_callback,
            watched: builder.slow_callback.is_some()
                || builder.trace.is_some()
                || builder.shuffle.is_some(),
            trace: builder.trace.map(Trace::new),
            shuffle: builder.shuffle.map(Cell::new),
            counting: Counting::default(),
        })
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

    /// A slot for `resume`, queued from the start or not.
    #[track_caller]
    pub(crate) fn insert(&self, resume: Rc<dyn Resume>, queued: bool) -> Key {
        match self.scheduler.borrow_mut().insert(resume, queued) {
            Ok(key) => key,
            Err(Full) => panic!("{} has as many live coroutines as it can hold", self.id),
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
            self.outside.borrow_mut().push(key);
        }
    }

    /// What is outside, and so takes real time.
    #[inline]
    pub(super) fn outside(&self) -> Outside {
        let is_nothing = self.outside.borrow().is_empty() && !self.inbox.is_held();
        if is_nothing { Outside::Nothing } else { self.look_outside() }
    }

    #[cold]
    fn look_outside(&self) -> Outside {
        let mut is_awaited = self.inbox.is_held();
        let readiness = self.readiness.borrow();
        let mut outside = self.outside.borrow_mut();
        outside.retain(|key| {
            let known = readiness.is_awaited(*key);
            is_awaited |= known == Some(true);
            known.is_some()
        });
        match is_awaited {
            true => Outside::Awaited,
            false if outside.is_empty() => Outside::Nothing,
            false => Outside::There,
        }
    }

    #[inline]
    pub(super) fn traces(&self, step: Step) {
        if let Some(trace) = &self.trace {
            trace.add(step);
        }
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
        self.scheduler.borrow().info(self.current.get())
    }

    /// A timer that wakes somebody.
    #[track_caller]
    pub(crate) fn add_timer(&self, deadline: u64, waker: Waker) -> Key {
        match self.timers.borrow_mut().insert(deadline, waker) {
            Ok(key) => key,
            Err(Full) => self.too_many_timers(),
        }
    }

    /// A timer that calls back: its waker is one of no loop, whose key finds the callback.
    #[track_caller]
    pub(crate) fn add_call(&self, deadline: u64, callback: Callback) -> Key {
        match self.calls.borrow_mut().insert(callback) {
            Ok(key) => self.add_timer(deadline, waker(pack(NO_LOOP, key))),
            Err(Full) => self.too_many_timers(),
        }
    }

    #[cold]
    #[track_caller]
    fn too_many_timers(&self) -> ! {
        panic!("{} has as many timers as it can hold", self.id)
    }

    /// Takes a timer out; the caller drops the waker when it holds no borrow.
    #[must_use]
    pub(crate) fn remove_timer(&self, key: Key) -> Option<Waker> {
        self.timers.borrow_mut().remove(key)
    }

    /// Takes a timer that calls back out; the caller drops the callback when it holds no borrow.
    #[must_use]
    pub(crate) fn remove_call(&self, key: Key) -> Option<Callback> {
        let call = self.remove_timer(key)?;
        self.call_of(&call)
    }

    /// The callback of a timer that calls back.
    #[inline]
    pub(super) fn call_of(&self, waker: &Waker) -> Option<Callback> {
        let (number, key) = unpack(word_of(waker)?);
        if number == NO_LOOP { self.calls.borrow_mut().remove(key) } else { None }
    }

    /// Is the timer still pending? Then `waker` is the one to be woken, and becomes the one that was,
    /// for the caller to drop when it holds no borrow.
    pub(crate) fn poll_timer(&self, key: Key, waker: &mut Option<Waker>) -> bool {
        let mut timers = self.timers.borrow_mut();
        let Some(known) = timers.get_mut(key) else { return false };
        *waker = waker.take().map(|waker| std::mem::replace(known, waker));
        true
    }

    /// The instant of a deadline; none if that is never.
    pub(crate) fn instant(&self, deadline: u64) -> Option<Instant> {
        self.clock.due(deadline)
    }

    /// The time now, counted as deadlines are.
    pub(crate) fn now(&self) -> u64 {
        self.clock.read()
    }

    pub(crate) fn deadline(&self, deadline: Deadline) -> u64 {
        match deadline {
            Deadline::At(when) => self.clock.at(when),
            Deadline::After(delay) => self.clock.after(delay),
        }
    }

    /// Registers a socket whose number is `fd`; what is in `ready` is tried first, not waited for.
    pub(crate) fn add_source(
        &self,
        source: &mut impl mio::event::Source,
        fd: RawFd,
        interest: mio::Interest,
        ready: &[Direction],
    ) -> io::Result<Key> {
        if self.is_closed() {
            return Err(LoopClosed.into());
        }
        let key = self.readiness.borrow_mut().insert(ready);
        let key = key.map_err(|Full| {
            io::Error::other(format!("{} has as many sockets as it can hold", self.id))
        })?;
        let registered = self.descriptors().register(source, fd, key, interest);
        if registered.is_err() {
            drop(self.take_source(key));
        }
        registered.map(|()| key)
    }

    /// Forgets a socket whose registration has ended. Who waited for it is for the caller to wake, to
    /// find it gone.
    pub(crate) fn take_source(&self, key: Key) -> Vec<Waker> {
        let mut woken = Vec::new();
        self.readiness.borrow_mut().remove(key, &mut woken);
        woken
    }

    pub(crate) fn readiness<R>(&self, ask: impl FnOnce(&mut Readiness) -> R) -> R {
        ask(&mut self.readiness.borrow_mut())
    }

    pub(crate) fn descriptors(&self) -> &Descriptors {
        self.inbox.descriptors()
    }

    pub(crate) fn counting(&self) -> &Counting {
        &self.counting
    }

    /// A number that changes with all that runs, and with all that comes from outside.
    pub(crate) fn done_so_far(&self) -> u64 {
        let Counting { resumes, callbacks, timers, events, messages, .. } = &self.counting;
        let counts = [resumes, callbacks, timers, events, messages];
        counts.into_iter().fold(0, |sum, count| sum.wrapping_add(count.get()))
    }

    /// Whether there is something to run without waiting for it, beside so many that are ready.
    pub(crate) fn has_more_to_do(&self, besides: usize) -> bool {
        self.ready() > besides || !self.due.borrow().is_empty() || self.inbox.is_pending()
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        forget_loop(self.id);
    }
}

/// Out of line, so that waking a slot needs no place to unwind from.
#[cold]
fn wake_foreign(waker: Waker) {
    foreign::wake(waker);
}

/// The user's handler, or the log, with a count.
fn counting(user: Option<report::Handler>) -> report::Handler {
    Rc::new(move |exception| {
        with_current(|core| core.counting.exceptions.add(1));
        report::hand_over(user.as_deref(), exception);
    })
}

/// See [`Core::outside`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Outside {
    Nothing,
    /// Something that nobody waits for now.
    There,
    /// Something that holds virtual time.
    Awaited,
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
