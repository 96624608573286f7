//! `IoLoop`: a handle of a loop, and what its user asks of it.

use std::fmt;
use std::panic::Location;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::callback::Callback;
use super::core::Core;
use super::deadline::Deadline;
use super::inbox::{HeldTime, LoopHandle, LoopId};
use super::introspect::{Counters, Step};
use crate::ground::coroutine_info::CoroutineInfo;
use crate::ground::slots::Key;

/// An event loop: coroutines, callbacks, timers and sockets of one thread.
///
/// A value of this type is a handle: cloning it gives another handle of the same loop. The handle that
/// [`new`](IoLoop::new) or a builder gave *owns* the loop, and so do its clones. The loop is closed when
/// [`close`](IoLoop::close) is called, or when the last handle is dropped that owns it. Handles from
/// [`current`](IoLoop::current) do not own the loop, so coroutines may keep them. (A coroutine, callback or
/// handler that was given a *clone of an owner* keeps its own loop open: such a loop has to be closed by
/// `close`.)
///
/// A handle stays on its thread; other threads talk to the loop through a [`LoopHandle`]. The first loop
/// that is made on a thread is the thread's [current](IoLoop::current) one, until it is closed.
///
/// # Fairness
///
/// What is ready runs first in first out. However much is ready, sockets, other threads and timers do not
/// have to wait for all of it: the loop looks at them after at most 64 entries (resumptions, callbacks,
/// timers that fire), or when 100 µs are over and the entry that runs then has ended, whichever comes
/// first. That holds in the midst of a turn, too, however much was ready when it began, however many timers
/// are due, and however much other threads post. If more than 64 entries are ready, or they would take more
/// than a millisecond, a coroutine that is woken by a socket or by a timer does not wait for all of them.
/// (The clock is not read after each entry: if entries become slow all at once, up to 8 of them run before
/// that is noticed. In virtual time only the number of entries counts.)
///
/// ```
/// use waterspout::IoLoop;
///
/// let io_loop = IoLoop::new()?;
/// let answer = io_loop.run_sync(|| async { 6 * 7 })?;
/// assert_eq!(answer, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct IoLoop {
    pub(super) core: Rc<Core>,
    /// Whether this handle keeps the loop open; see `current`.
    pub(super) is_owner: bool,
}

/// Names a timer of a loop, for [`IoLoop::remove_timeout`]. It is plain data: dropping it does not remove the
/// timer, and keeping it keeps neither the timer nor its callback. Tornado: what `add_timeout` returns.
///
/// (The future that [`with_timeout`](crate::coroutine::with_timeout) gives is another type,
/// [`coroutine::Timeout`](crate::coroutine::Timeout).)
///
/// ```
/// use std::time::Duration;
/// use waterspout::{IoLoop, TimerId};
///
/// let io_loop = IoLoop::new()?;
/// let timer: TimerId = io_loop.call_later(Duration::from_secs(60), || unreachable!("it was removed"));
/// assert!(io_loop.remove_timeout(timer));
/// assert!(!io_loop.remove_timeout(timer), "it is no longer pending");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerId {
    id: LoopId,
    key: Key,
}

impl IoLoop {
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

    /// A handle for other threads.
    pub fn handle(&self) -> LoopHandle {
        LoopHandle::new(self.core.inbox.clone())
    }
}

impl IoLoop {
    /// Queues a callback. Callbacks run first in first out, and never within this call: if this is called
    /// within a turn, the callback runs in the next one. Tornado: `add_callback`.
    ///
    /// A panic in it is reported to [`Builder::on_exception`](crate::Builder::on_exception) and the loop
    /// goes on. On a closed loop the callback is dropped. From other threads: [`LoopHandle::add_callback`].
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
        self.core.call(Callback::new(Location::caller(), callback));
    }

    /// Runs a callback at a deadline: an [`Instant`] or a [`Duration`] from now.
    ///
    /// The clock is monotonic. Callbacks of equal deadlines run in the order in which they were added. One
    /// with a deadline in the past runs in the next turn; one with a deadline that is too far away to count
    /// in 64 bits of nanoseconds never runs. A panic is reported to
    /// [`Builder::on_exception`](crate::Builder::on_exception) and the loop goes on. On a closed loop the
    /// callback is dropped. Tornado: `add_timeout`.
    ///
    /// # Panics
    ///
    /// If the loop has 16,777,215 timers already.
    #[track_caller]
    pub fn add_timeout(
        &self,
        deadline: impl Into<Deadline>,
        callback: impl FnOnce() + 'static,
    ) -> TimerId {
        let core = &*self.core;
        let key = if core.is_closed() {
            Key::NONE
        } else {
            let call = Callback::new(Location::caller(), callback);
            core.add_call(core.deadline(deadline.into()), call)
        };
        TimerId { id: core.id(), key }
    }

    /// [`add_timeout`](IoLoop::add_timeout) with a time from now. Tornado: `call_later`.
    #[track_caller]
    pub fn call_later(&self, delay: Duration, callback: impl FnOnce() + 'static) -> TimerId {
        self.add_timeout(delay, callback)
    }

    /// [`add_timeout`](IoLoop::add_timeout) with an instant. Tornado: `call_at`.
    #[track_caller]
    pub fn call_at(&self, when: Instant, callback: impl FnOnce() + 'static) -> TimerId {
        self.add_timeout(when, callback)
    }

    /// Removes a timer and drops its callback at once; tells whether the timer was still pending.
    ///
    /// It does no harm, and gives `false`, if the timer has fired or belongs to another loop. Of several
    /// timers that are due in the same turn, one that fires early can still remove a later one. Tornado:
    /// `remove_timeout`.
    pub fn remove_timeout(&self, timer: TimerId) -> bool {
        if timer.id != self.core.id() {
            return false;
        }
        let callback = self.core.remove_call(timer.key);
        callback.is_some()
    }

    /// The time of the loop's clock: the present, unless the clock is virtual. Tornado: `time`.
    pub fn time(&self) -> Instant {
        self.core.time()
    }

    /// What the loop has done so far, and what it has now, in numbers.
    pub fn counters(&self) -> Counters {
        self.core.counters()
    }

    /// Moves a virtual clock forward by hand. Timers that are due then fire in the next turn, in order.
    ///
    /// A test that only waits does not need this: the clock moves by itself when nothing is left to do.
    ///
    /// The clock stops five centuries after the loop was made, for it cannot count further. A deadline that
    /// is set there never comes.
    ///
    /// # Panics
    ///
    /// If the loop's clock is the real one.
    #[track_caller]
    pub fn advance(&self, time: Duration) {
        let clock = &self.core.clock;
        assert!(clock.is_virtual(), "advance: {self:?} has the real clock, which nobody moves");
        clock.advance_to(clock.after(time));
    }

    /// Holds a virtual clock until the guard is dropped: meanwhile the clock reaches the next deadline no
    /// sooner than the real clock would. On a loop with the real clock nothing happens.
    ///
    /// This is for tests that wait for something which takes real time, and which the loop does not know
    /// of: a thread that has a channel's sender, or a server in another process. (What the loop does know
    /// of is said at [`Builder::virtual_time`](crate::Builder::virtual_time).) The guard is `Send`, so it
    /// can be moved to such a thread. The thread has to keep it until it has done all that the loop is to
    /// see: once the guard is dropped, the clock may jump before the thread's next step.
    ///
    /// ```
    /// use std::{thread, time::Duration};
    /// use waterspout::{IoLoop, concurrent::channel, coroutine::with_timeout};
    ///
    /// let io_loop = IoLoop::builder().virtual_time().build()?;
    /// let hour = Duration::from_secs(3600);
    /// let (sender, mut receiver) = channel(1);
    /// let held = io_loop.hold_time();
    /// let thread = thread::spawn(move || {
    ///     let _held = held; // without it, the hour would be over before this thread has begun
    ///     thread::sleep(Duration::from_millis(5));
    ///     sender.try_send("in time").unwrap();
    /// });
    /// let received = io_loop.run_sync(|| async { with_timeout(hour, receiver.recv()).await })?;
    /// assert_eq!(received, Ok(Some("in time")));
    /// # thread.join().unwrap();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn hold_time(&self) -> HeldTime {
        self.core.hold_time()
    }

    /// The last steps that the loop took, if [`Builder::trace`](crate::Builder::trace) asked for them.
    ///
    /// ```
    /// use waterspout::{IoLoop, Step, coroutine};
    ///
    /// let io_loop = IoLoop::builder().virtual_time().trace(100).build()?;
    /// io_loop.run_sync(|| async { coroutine::spawn_named("child", async {}).await })?;
    /// let resumed = |step: &Step| matches!(step, Step::Resume(_));
    /// let steps: Vec<_> = io_loop.trace().into_iter().filter(resumed).map(|s| s.to_string()).collect();
    /// assert_eq!(steps, ["resume run_sync", "resume child", "resume run_sync"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn trace(&self) -> Vec<Step> {
        self.core.watch.steps()
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
        self.core.coroutines()
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }
}

impl PartialEq for IoLoop {
    fn eq(&self, other: &IoLoop) -> bool {
        self.core.id() == other.core.id()
    }
}

impl Eq for IoLoop {}

impl fmt::Debug for IoLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.core.id())
    }
}
