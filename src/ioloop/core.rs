//! The state of a loop, and what the rest of the crate asks of it.
//!
//! Each phase of a turn has a part of the state, in a file of its own, whose fields no other file sees. A
//! part is borrowed only inside of its own methods, for a moment. If a method takes out something that may
//! run foreign code when it is dropped or woken, it returns that, and the caller drops or wakes it after the
//! borrow has ended.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::callback::Callback;
use super::clock::{Clock, nanos};
use super::deadline::Deadline;
use super::descriptors::Descriptors;
use super::due::Due;
use super::inbox::{HeldTime, Inbox, LoopId, Message};
use super::introspect::{Count, Counters, Counting};
use super::life::{Life, State};
use super::pace::Pace;
use super::readiness::{Direction, Readiness};
use super::ready::Scheduler;
use super::registration::Registration;
use super::selector::{Outside, Selector};
use super::slack::Slack;
use super::watch::Watch;
use crate::concurrent::Executor;
use crate::ground::coroutine_info::CoroutineInfo;
use crate::ground::error::LoopClosed;
use crate::ground::report::{self, Panic};
use crate::ground::slots::{Full, Key};
use crate::ground::waker::{waker, word_of};
use crate::ground::word::unpack;
use crate::ground::{foreign, resumption};

/// What is in a slot: something that a loop resumes, a coroutine or a handler.
pub(crate) trait Resume {
    /// Goes on until it has to wait again, or ends. The loop's turn calls this. If it panics, the turn
    /// catches the panic and calls `panicked`.
    fn resume(self: Rc<Self>, core: &Core);

    /// It has panicked while it was resumed. Returns the panic if it does not deal with it: then the turn
    /// reports it.
    fn panicked(&self, panic: Panic, core: &Core) -> Option<Panic> {
        let _ = core;
        Some(panic)
    }

    /// The loop closes: drops the state machine, or whatever else it owns.
    fn close(self: Rc<Self>) {}

    /// Its name and places, for those who list coroutines; `None` if it is no coroutine.
    fn info(&self) -> Option<CoroutineInfo> {
        None
    }
}

/// A buffer that the loop lends to sockets for reading; here it waits for its next use.
pub(crate) struct LentBuffer {
    pub(crate) bytes: Box<[u8]>,
    /// All bytes from this index on are zeros, since nobody has written to them.
    pub(crate) used: usize,
}

/// What a [`Builder`](super::builder::Builder) sets.
pub(super) struct Options {
    pub(super) event_capacity: usize,
    pub(super) virtual_time: bool,
    pub(super) on_exception: Option<report::ExceptionHandler>,
    pub(super) slow_callback: Option<Duration>,
    pub(super) shuffle: Option<u64>,
    pub(super) trace: Option<usize>,
    pub(super) timer_slack: Option<Duration>,
}

/// The state of a loop.
pub(crate) struct Core {
    pub(super) life: Life,
    pub(super) clock: Clock,
    id: LoopId,
    /// What other threads have posted: phase 1 of a turn.
    pub(super) inbox: Arc<Inbox>,
    /// An empty vector for messages that are taken out of it, as `woken`.
    pub(super) messages: Cell<Vec<Message>>,
    /// What is due: phase 2.
    pub(super) due: Due,
    /// What is ready: phase 3.
    pub(super) scheduler: RefCell<Scheduler<Rc<dyn Resume>>>,
    /// The slot that is being resumed. If there is a panic, it is one of this slot.
    pub(super) current: Cell<Key>,
    /// Whether the slot of `run_sync` was resumed, and its future is still to be polled for that.
    pub(super) main_resumed: Cell<bool>,
    /// Which sockets can be read or written: phase 4.
    pub(super) selector: Selector,
    /// When it is time for phase 4.
    pub(super) pace: Pace,
    /// When to wake up for the timers.
    pub(super) slack: Slack,
    pub(super) watch: Watch,
    counting: Counting,
    pub(super) on_exception: report::ExceptionHandler,
    pub(super) handlers: RefCell<HashMap<RawFd, Rc<Registration>>>,
    /// An empty vector for wakers that are to be woken. It is kept, so that its memory is used again.
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
            messages: Cell::new(Vec::new()),
            due: Due::new(),
            scheduler: RefCell::new(Scheduler::new()),
            current: Cell::new(Key::NONE),
            main_resumed: Cell::new(false),
            selector,
            pace: Pace::new(!is_virtual),
            slack: Slack::new(options.timer_slack.map(nanos)),
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

    /// A slot for `resume`, which is on the run queue from the start if `queued`.
    ///
    /// # Panics
    ///
    /// If the table of slots is full.
    #[track_caller]
    pub(crate) fn insert(&self, resume: Rc<dyn Resume>, queued: bool) -> Key {
        match self.scheduler.borrow_mut().insert(resume, queued) {
            Ok(key) => key,
            Err(Full) => panic!("{} has as many live coroutines as it can hold", self.id()),
        }
    }

    /// Removes a slot and gives what was in it, for the caller to drop when it holds no borrow.
    #[must_use]
    #[inline]
    pub(crate) fn remove(&self, key: Key) -> Option<Rc<dyn Resume>> {
        self.scheduler.borrow_mut().remove(key)
    }

    /// Has the loop look at its selector and its timers as soon as the current entry has run.
    pub(crate) fn give_way(&self) {
        self.pace.give_way();
    }

    /// How many entries are in the run queue.
    #[inline]
    pub(super) fn ready(&self) -> usize {
        self.scheduler.borrow().ready()
    }

    /// Puts a slot on the run queue, unless it is there already or was removed.
    #[inline]
    pub(crate) fn schedule(&self, key: Key) {
        self.scheduler.borrow_mut().schedule(key);
    }

    /// Queues a callback. If the loop is closed, drops it.
    pub(crate) fn call(&self, callback: Callback) {
        if self.is_closed() {
            return foreign::discard(callback);
        }
        self.scheduler.borrow_mut().call(callback);
    }

    /// Puts the slot of a word on the run queue, if the word is of this loop; tells whether it is.
    #[inline]
    pub(crate) fn schedule_word(&self, word: usize) -> bool {
        let (number, key) = unpack(word);
        let here = number == self.number();
        if here {
            self.schedule(key);
        }
        here
    }

    /// A coroutine has ended: removes its slot, and gives what was in it for the caller to drop. Wakes the
    /// coroutine that awaits it, by the word `awaiter`, which may be one of another loop, or of none if
    /// nobody awaits it.
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

    /// Puts the slot of a waker on the run queue, if the waker is a word of this loop; tells whether it is.
    #[inline]
    pub(crate) fn wake_own(&self, waker: &Waker) -> bool {
        word_of(waker).is_some_and(|word| self.schedule_word(word))
    }

    /// Wakes a waker. If it is a word of this loop, that is done at once, and not by way of the thread's
    /// current loop.
    pub(crate) fn wake(&self, waker: Waker) {
        if !self.wake_own(&waker) {
            wake_foreign(waker);
        }
    }

    /// Begins a resumption of a slot within whatever is going on: the slot is the current one until the scope
    /// is dropped.
    #[inline]
    pub(crate) fn scope(&self, key: Key) -> Scope<'_> {
        Scope { core: self, current: self.current.replace(key), _nested: resumption::nested() }
    }

    /// Holds virtual time until the guard is dropped, because something outside is under way.
    pub(crate) fn hold_time(&self) -> HeldTime {
        HeldTime::new(self.inbox.clone())
    }

    /// The other end of this socket is outside: the socket holds virtual time while somebody waits for it.
    pub(crate) fn mark_outside(&self, key: Key) {
        if self.clock.is_virtual() {
            self.selector.mark_outside(key);
        }
    }

    /// Whether anything is outside, and whether it holds virtual time.
    #[inline]
    pub(super) fn outside(&self) -> Outside {
        self.selector.outside(self.inbox.is_held())
    }

    /// The slot that was to be resumed is in the midst of a resumption already, which has started this loop
    /// again, and so it is not resumed. A panic from here on is not one of that slot.
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

    /// Adds a timer that wakes `waker`.
    ///
    /// # Panics
    ///
    /// If the loop has as many timers as it can hold.
    #[track_caller]
    pub(crate) fn add_timer(&self, deadline: u64, waker: Waker) -> Key {
        self.due.add(deadline, waker).unwrap_or_else(|Full| self.too_many_timers())
    }

    /// Adds a timer that runs a callback.
    ///
    /// # Panics
    ///
    /// If the loop has as many timers as it can hold.
    #[track_caller]
    pub(crate) fn add_call(&self, deadline: u64, callback: Callback) -> Key {
        self.due.add_call(deadline, callback).unwrap_or_else(|Full| self.too_many_timers())
    }

    #[cold]
    #[track_caller]
    fn too_many_timers(&self) -> ! {
        panic!("{} has as many timers as it can hold", self.id())
    }

    /// Removes a timer that wakes; the caller drops the waker when it holds no borrow.
    #[must_use]
    pub(crate) fn remove_timer(&self, key: Key) -> Option<Waker> {
        self.due.remove(key)
    }

    /// Removes a timer that runs a callback; the caller drops the callback when it holds no borrow.
    #[must_use]
    pub(crate) fn remove_call(&self, key: Key) -> Option<Callback> {
        self.due.remove_call(key)
    }

    /// Whether the timer is still pending. If it is, and there is a `waker`, that is the one to be woken from
    /// now on, and the former one is put in its place, for the caller to drop when it holds no borrow.
    pub(crate) fn poll_timer(&self, key: Key, waker: &mut Option<Waker>) -> bool {
        self.due.poll(key, waker)
    }

    /// The instant of a deadline; none if it never comes.
    pub(crate) fn instant(&self, deadline: u64) -> Option<Instant> {
        self.clock.due(deadline)
    }

    /// The time now, counted as deadlines are.
    pub(crate) fn now(&self) -> u64 {
        self.clock.read()
    }

    /// When the clock was read last. When a timer has fired, that is at its deadline or later.
    #[cfg(feature = "server")]
    #[inline]
    pub(crate) fn last_time(&self) -> u64 {
        self.clock.last()
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

    /// Registers a socket whose file descriptor is `fd`. The directions in `ready` count as ready from the
    /// start, so that they are tried rather than waited for.
    ///
    /// # Errors
    ///
    /// If the loop is closed, has as many sockets as it can hold, or the selector refuses the socket.
    pub(crate) fn add_socket(
        &self,
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
        let registered = self.descriptors().register(fd, key, interest);
        if registered.is_err() {
            drop(self.forget_socket(key));
        }
        registered.map(|()| key)
    }

    /// Forgets a socket whose registration has ended. Gives the wakers of those who wait for it, for the
    /// caller to wake; they find the socket gone.
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

    /// A number that changes whenever an entry runs, an event comes or a message comes.
    pub(crate) fn done_so_far(&self) -> u64 {
        let Counting { resumes, callbacks, timers, events, messages, .. } = &self.counting;
        let counts = [resumes, callbacks, timers, events, messages];
        counts.into_iter().fold(0, |sum, count| sum.wrapping_add(count.get()))
    }

    /// Whether there is something to run without waiting for it, beside `besides` entries that are ready.
    pub(crate) fn has_more_to_do(&self, besides: usize) -> bool {
        self.ready() > besides || self.due.collected() > 0 || self.inbox.is_pending()
    }
}

/// Out of line: if this were inlined in [`Core::wake`], that would have to be prepared for a panic even
/// where it only wakes a word.
#[cold]
fn wake_foreign(waker: Waker) {
    foreign::wake(waker);
}

/// An exception handler that counts the exception and hands it to the user's handler, or to the log.
fn counted(
    user: Option<report::ExceptionHandler>,
    exceptions: Rc<Count>,
) -> report::ExceptionHandler {
    Rc::new(move |exception| {
        exceptions.add(1);
        report::hand_over(user.as_deref(), exception);
    })
}

/// Dropping this makes the slot current that was so before [`Core::scope`], also on unwinding.
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
