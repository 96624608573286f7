//! Coroutines: functions that wait without blocking, on the loop of their thread.
//!
//! # Calling one runs it
//!
//! A function under [`#[coroutine]`](macro@crate::coroutine) runs when it is called: at once, on the
//! caller's stack, up to the first point where it has to wait. Then the call returns a [`Coroutine`], a
//! handle, and the loop resumes the coroutine when it can go on. Await the handle if you need the result;
//! if you drop it, the coroutine runs all the same. That is Tornado's `gen.coroutine`. An `async fn` by
//! itself is different: it does nothing until it is polled, and stops for good when it is dropped.
//!
//! So there is nothing to spawn. A call that finds its answer in a cache never touches the run queue. A call
//! that has to wait has sent its request when it returns, and several such calls wait at the same time:
//!
//! ```
//! use std::time::Duration;
//! use waterspout::{IoLoop, coroutine::sleep};
//!
//! # #[cfg(feature = "macros")]
//! # {
//! #[waterspout::coroutine]
//! async fn fetch(n: u64) -> u64 {
//!     sleep(Duration::from_secs(n)).await;
//!     n
//! }
//!
//! let io_loop = IoLoop::builder().virtual_time().build()?;
//! let begun = io_loop.time();
//! let sum = io_loop.run_sync(|| async {
//!     let (a, b) = (fetch(2), fetch(3)); // both are on their way
//!     a.await + b.await
//! })?;
//! assert_eq!(sum, 5);
//! assert_eq!(io_loop.time() - begun, Duration::from_secs(3));
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The part up to the first wait is called the *eager part*. While it runs, the new coroutine is the
//! *current* one; when the call returns, its caller is the current one again. Both spend of the same budget
//! (see below). If the eager part panics, the caller does not notice: whoever awaits the coroutine gets the
//! panic. Calls that start each other in their eager parts are nested on the stack, as any calls are: about
//! 260 bytes each in a release build and 1,440 in a debug build, beside what the functions themselves take.
//! A stack of 2 MiB holds a thousand of them with ease, but not ten thousand.
//!
//! [`start`] does the same with any future; [`spawn`] queues it, to run in the loop's next turn. Both also
//! work while the loop does not run: the loop goes on with the coroutine when it is started.
//!
//! # Several futures in one coroutine
//!
//! Coroutines are started, and then awaited one after the other, or together: by [`multi`] if they give
//! results, by [`multi_outputs`] if they cannot fail. Plain futures are awaited together by the macros of the
//! [`futures`] crate: `join!` waits for all of them, and `select!` for the first one, and drops the others
//! halfway. Futures that lose nothing when they are dropped so say in their documentation that they are
//! *cancel safe*. The futures of this crate need no `.fuse()` in `select!`.
//!
//! ```
//! # use std::time::Duration;
//! # use waterspout::{IoLoop, coroutine::{multi_outputs, sleep, start}};
//! # #[cfg(feature = "macros")]
//! # IoLoop::builder().virtual_time().build()?.run_sync(|| async {
//! use futures::{FutureExt, join, select};
//!
//! let nap = async |seconds| sleep(Duration::from_secs(seconds)).map(|()| seconds).await;
//! assert_eq!(join!(nap(2), nap(3)), (2, 3));
//! assert_eq!(multi_outputs([2, 3].map(|n| start(async move { n }))).await, [2, 3]);
//!
//! select! {
//!     () = sleep(Duration::from_secs(60)) => unreachable!("a minute is longer than a second"),
//!     () = sleep(Duration::from_secs(1)) => {}
//! }
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! For a time limit there is [`with_timeout`].
//!
//! # What ends a coroutine
//!
//! Dropping its handle does not end a coroutine, not even where `select!` or a time limit drops the
//! handle. A future is a part of whoever awaits it, but a coroutine goes on by itself. It ends with its
//! handle if that is a [`CancelOnDrop`]: [`cancel_on_drop`](Coroutine::cancel_on_drop) makes one of any
//! handle, and calling a [`#[coroutine(cancel_on_drop)]`](macro@crate::coroutine) gives one. The
//! coroutines that it awaits end with it. So, to end all coroutines that a future awaits, however deep
//! inside, [`spawn`] the future and call `cancel_on_drop`.
//!
//! ```
//! # use std::time::Duration;
//! # use waterspout::{IoLoop, coroutine::{sleep, with_timeout}};
//! # #[cfg(feature = "macros")]
//! # {
//! use waterspout::futures::select;
//!
//! #[waterspout::coroutine]
//! async fn fetch(seconds: u64) -> u64 {
//!     sleep(Duration::from_secs(seconds)).await;
//!     seconds
//! }
//!
//! let io_loop = IoLoop::builder().virtual_time().build()?;
//! io_loop.run_sync(|| async {
//!     let limit = Duration::from_secs(10);
//!     assert!(with_timeout(limit, fetch(60).cancel_on_drop()).await.is_err());
//!     let first = select! {
//!         n = fetch(60).cancel_on_drop() => n,
//!         n = fetch(1).cancel_on_drop() => n,
//!     };
//!     assert_eq!(first, 1);
//! })?;
//! assert!(io_loop.coroutines().is_empty());
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Coroutine::cancel`] ends a coroutine by its handle; a [`CancelHandle`] does so while somebody else has
//! the handle. To end many coroutines together, there are [`TaskGroup`], which also waits for them,
//! [`JoinSet`] and [`CancelToken`].
//!
//! # Waiting for nothing costs nothing
//!
//! Awaiting something that is ready does not go through the loop. But a coroutine that never has to wait
//! would keep all others waiting. So each resumption has a budget: when a coroutine has done a number of
//! operations without waiting (I/O, timers, locks, queues), the next one makes it wait for a turn. A long
//! computation gives way to others by awaiting [`moment`].

mod cancel_handle;
mod cancel_token;
mod ending;
mod group;
mod in_executor;
mod interval;
mod join_set;
mod multi;
mod names;
mod outcome;
mod remote;
mod runner;
mod shape;
mod sleep;
mod timeout;
mod wait_iterator;

use std::cell::RefCell;
use std::fmt;
use std::ops::Deref;
use std::panic::Location;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::FusedFuture;

pub use crate::ground::error::{JoinError, TimedOut};
pub use cancel_handle::CancelHandle;
pub use cancel_token::CancelToken;
pub use ending::{Shield, shield};
pub use group::TaskGroup;
pub use in_executor::Blocking;
pub use interval::{Interval, MissedTickBehavior, interval, interval_at};
pub use join_set::JoinSet;
pub use multi::{
    Cancellable, CancellableChildren, Children, Fallible, FallibleChildren, multi, multi_outputs,
    multi_quiet, try_multi,
};
pub use outcome::Outcome;
pub use remote::Answer;
pub use sleep::{Moment, Sleep, moment, now, sleep, sleep_until};
pub use timeout::{Timeout, with_timeout};
pub use wait_iterator::WaitIterator;

use crate::concurrent;
use crate::ground::coroutine_info::CoroutineInfo;
use crate::ground::resumption;
use crate::ioloop::{Callback, Core, IoLoop, PeriodicCallback, on_current, with_current};
use cancel_handle::Control;
pub(crate) use names::name_of;
use runner::{Join, Runner};
pub(crate) use runner::{Kind, KindOf, Name};

/// The handle of a coroutine that was started. Await it for the result. If it is dropped, the coroutine is
/// *detached*: it runs on by itself. Tornado: the `Future` that a coroutine returns.
///
/// If the coroutine panics, so does whoever awaits it, with the same panic. If it was cancelled, awaiting it
/// panics with a message that says so. [`join`](Coroutine::join) gives an error in both cases instead. If
/// nobody awaits the coroutine, its panic is reported to
/// [`Builder::on_exception`](crate::Builder::on_exception), and so is its `Err` if it is a
/// [`#[coroutine]`](macro@crate::coroutine) function.
///
/// Cancel safe: dropping this while it is awaited detaches the coroutine, which goes on. Only if it is
/// dropped because the coroutine that awaits it was [cancelled](Coroutine::cancel), this one is cancelled,
/// too.
///
/// ```
/// use waterspout::{IoLoop, coroutine};
///
/// let io_loop = IoLoop::new()?;
/// let answer = io_loop.run_sync(|| async {
///     let coroutine = coroutine::spawn(async { 6 * 7 });
///     assert!(!coroutine.done());
///     coroutine.await
/// })?;
/// assert_eq!(answer, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Coroutine<T> {
    runner: Rc<dyn Join<T>>,
}

impl<T> Coroutine<T> {
    fn of<F, K>(runner: Rc<Runner<F, K>>) -> Coroutine<T>
    where
        F: Future<Output = T> + 'static,
        K: KindOf<T>,
    {
        if !runner.has_slot() {
            // The loop is closed and will never resume it.
            Control::cancel(runner.clone());
        }
        Coroutine { runner }
    }

    /// Whether the coroutine has ended: it has returned, panicked, or been cancelled.
    pub fn done(&self) -> bool {
        self.runner.is_done()
    }

    /// Ends the coroutine at the `.await` where it waits: its state is dropped there. A coroutine that is
    /// running, and cancels itself, ends when it next waits. Nothing happens if it has ended already.
    ///
    /// The coroutines that it awaits are cancelled, too, and those that these await, and so on, except for
    /// those that are awaited by [`shield`]. However long that chain is, it does not overflow the stack:
    /// coroutines that would be ended deep within the destructors of others are ended after these instead.
    ///
    /// Whoever awaits the coroutine gets a panic, and whoever joins it a [`JoinError`]. Tornado's coroutines
    /// cannot be cancelled; asyncio's can, by the same rule.
    pub fn cancel(&self) {
        self.runner.clone().cancel();
    }

    /// Has it resumed soon, so that it looks again at what it waits for.
    #[cfg(feature = "server")]
    pub(super) fn wake(&self) {
        self.runner.wake();
    }

    /// A handle that can only cancel the coroutine, for somebody else than whoever awaits it.
    pub fn cancel_handle(&self) -> CancelHandle {
        CancelHandle::of(self.runner.clone().control())
    }

    /// Waits for the coroutine, and gives a [`JoinError`] where awaiting it would panic.
    ///
    /// ```
    /// use waterspout::{IoLoop, coroutine};
    ///
    /// let io_loop = IoLoop::new()?;
    /// let result = io_loop.run_sync(|| {
    ///     let coroutine = coroutine::spawn(std::future::pending::<()>());
    ///     coroutine.cancel();
    ///     coroutine.join()
    /// })?;
    /// assert!(result.unwrap_err().is_cancelled());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn join(self) -> JoinHandle<T> {
        JoinHandle { coroutine: self, place: Location::caller(), cancels: false }
    }

    /// Makes a handle that cancels the coroutine when it is dropped, instead of detaching it.
    ///
    /// ```
    /// use waterspout::{IoLoop, coroutine};
    ///
    /// let io_loop = IoLoop::new()?;
    /// io_loop.run_sync(|| async {
    ///     drop(coroutine::spawn(std::future::pending::<()>()).cancel_on_drop());
    /// })?;
    /// assert!(io_loop.coroutines().is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cancel_on_drop(self) -> CancelOnDrop<T> {
        CancelOnDrop { coroutine: Some(self) }
    }

    /// Calls `callback` in its loop's turn after the one in which the coroutine has ended; several
    /// callbacks are called in the order in which they were added. If the coroutine has ended already, the
    /// callback is called in the next turn. (If its loop is closed, the current loop calls it, and if
    /// there is none, it is called at once.) Tornado: `Future.add_done_callback`.
    ///
    /// The callback is not given the result: await the coroutine, or [`join`](Coroutine::join), for that.
    #[track_caller]
    pub fn add_done_callback(&self, callback: impl FnOnce() + 'static) {
        self.runner.when_done(Callback::new(Location::caller(), callback));
    }

    /// The coroutine's name: the one that the attribute or [`spawn_named`] gives; or else the path of its
    /// function, with the type that it is a method of; or else the type of its future.
    pub fn name(&self) -> &'static str {
        self.runner.info().name
    }

    /// The coroutine's name, where it was started and where it waits, as [`IoLoop::coroutines`] lists them.
    pub fn info(&self) -> CoroutineInfo {
        self.runner.info()
    }
}

impl<T> std::future::Future for Coroutine<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        self.runner.poll_output(cx)
    }
}

impl<T> FusedFuture for Coroutine<T> {
    fn is_terminated(&self) -> bool {
        self.runner.is_taken()
    }
}

impl<T> Drop for Coroutine<T> {
    fn drop(&mut self) {
        if self.runner.detach() {
            self.cancel();
        }
    }
}

impl<T> fmt::Debug for Coroutine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = self.runner.info();
        f.debug_struct("Coroutine")
            .field("name", &info.name)
            .field("started_at", &info.started_at.to_string())
            .field("done", &self.done())
            .finish()
    }
}

/// Waits until a coroutine has ended; from [`Coroutine::join`]. Dropping it detaches the coroutine, or
/// cancels it if this is from [`CancelOnDrop::join`].
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct JoinHandle<T> {
    coroutine: Coroutine<T>,
    /// Where `join` was called.
    place: &'static Location<'static>,
    /// Whether dropping this cancels the coroutine.
    cancels: bool,
}

impl<T> JoinHandle<T> {
    /// As [`Coroutine::done`].
    pub fn done(&self) -> bool {
        self.coroutine.done()
    }

    /// As [`Coroutine::cancel`].
    pub fn cancel(&self) {
        self.coroutine.cancel();
    }

    /// As [`Coroutine::cancel_handle`].
    pub fn cancel_handle(&self) -> CancelHandle {
        self.coroutine.cancel_handle()
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        if self.cancels {
            self.coroutine.cancel();
        }
    }
}

impl<T> std::future::Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Coroutine { runner } = &self.coroutine;
        let polled = runner.poll_join(cx);
        if polled.is_pending() {
            resumption::waits_at(self.place);
        }
        polled.map_err(|failure| JoinError::new(runner.info().name, failure))
    }
}

impl<T> FusedFuture for JoinHandle<T> {
    fn is_terminated(&self) -> bool {
        self.coroutine.is_terminated()
    }
}

/// The handle of a coroutine that is cancelled when this is dropped; from [`Coroutine::cancel_on_drop`],
/// or from a call of a [`#[coroutine(cancel_on_drop)]`](macro@crate::coroutine). Awaiting it gives the
/// result, as awaiting a [`Coroutine`] does, and it has the methods of one.
///
/// So when a time limit or a `select!` gives the coroutine up, it is cancelled, with all that it awaits:
///
/// ```
/// use std::{rc::Rc, time::Duration};
/// use waterspout::{IoLoop, coroutine::{sleep, with_timeout}, futures::select};
///
/// # #[cfg(feature = "macros")]
/// # {
/// #[waterspout::coroutine(cancel_on_drop)]
/// async fn fetch(seconds: u64, _connection: Rc<()>) -> u64 {
///     sleep(Duration::from_secs(seconds)).await;
///     seconds
/// }
///
/// let io_loop = IoLoop::builder().virtual_time().build()?;
/// io_loop.run_sync(|| async {
///     let connection = Rc::new(());
///
///     let limit = Duration::from_secs(10);
///     assert!(with_timeout(limit, fetch(60, connection.clone())).await.is_err());
///     assert_eq!(Rc::strong_count(&connection), 1); // it does not wait for its answer any more
///
///     let first = select! {
///         n = fetch(60, connection.clone()) => n,
///         n = fetch(1, connection.clone()) => n,
///     };
///     assert_eq!((first, Rc::strong_count(&connection)), (1, 1));
/// })?;
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping it cancels the coroutine"]
#[derive(Debug)]
pub struct CancelOnDrop<T> {
    /// `None` only while this is dropped after `join` or `detach` have taken it.
    coroutine: Option<Coroutine<T>>,
}

impl<T> CancelOnDrop<T> {
    /// Waits for the coroutine, and gives a [`JoinError`] where awaiting it would panic. Dropping the
    /// [`JoinHandle`] that this gives cancels the coroutine, too.
    #[track_caller]
    pub fn join(mut self) -> JoinHandle<T> {
        let mut joins = self.take().join();
        joins.cancels = true;
        joins
    }

    /// Gives a handle back that does not cancel the coroutine when it is dropped.
    pub fn detach(mut self) -> Coroutine<T> {
        self.take()
    }

    fn take(&mut self) -> Coroutine<T> {
        self.coroutine.take().unwrap_or_else(|| unreachable!("whoever takes it takes this, too"))
    }
}

impl<T> Deref for CancelOnDrop<T> {
    type Target = Coroutine<T>;

    fn deref(&self) -> &Coroutine<T> {
        match &self.coroutine {
            Some(coroutine) => coroutine,
            None => unreachable!("whoever takes it takes this, too"),
        }
    }
}

impl<T> std::future::Future for CancelOnDrop<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        self.runner.poll_output(cx)
    }
}

impl<T> FusedFuture for CancelOnDrop<T> {
    fn is_terminated(&self) -> bool {
        self.coroutine.as_ref().is_none_or(Coroutine::is_terminated)
    }
}

impl<T> Drop for CancelOnDrop<T> {
    fn drop(&mut self) {
        if let Some(coroutine) = &self.coroutine
            && !ending::is_shielded()
        {
            coroutine.cancel();
        }
    }
}

// ---------------------------------------------------------------------------------------------
// Starting

/// Starts `future` as a coroutine of the current loop, now: it runs on the caller's stack up to the first
/// point where it has to wait. It is what [`#[coroutine]`](macro@crate::coroutine) does with the body of a
/// function.
///
/// If the coroutine gives an `Err` and nobody awaits it, nobody hears of that: only the attribute knows
/// enough of the type to report it. On a closed loop the coroutine is cancelled without being run.
///
/// # Panics
///
/// As [`IoLoop::current`]; or if the loop has 16,777,215 live coroutines already.
#[track_caller]
pub fn start<F: Future + 'static>(future: F) -> Coroutine<F::Output> {
    start_as(Kind::of::<F>, future)
}

/// Queues `future` as a coroutine of the current loop: it begins to run in the loop's next turn.
///
/// # Panics
///
/// As [`start`].
///
/// ```
/// # use waterspout::{IoLoop, coroutine};
/// # IoLoop::new()?.run_sync(|| async {
/// let coroutine = coroutine::spawn(async { "later" });
/// assert_eq!(coroutine.await, "later");
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[track_caller]
pub fn spawn<F: Future + 'static>(future: F) -> Coroutine<F::Output> {
    let location = Location::caller();
    Coroutine::of(on_current(|core| queue(core, Kind::of::<F>, future, location)))
}

/// [`spawn`] on behalf of whoever called at `location`.
#[track_caller]
pub(crate) fn spawn_at<F: Future + 'static>(
    location: &'static Location<'static>,
    future: F,
) -> Coroutine<F::Output> {
    Coroutine::of(on_current(|core| queue(core, Kind::of::<F>, future, location)))
}

/// [`spawn`] with a name, for logs and for [`IoLoop::coroutines`].
///
/// # Panics
///
/// As [`start`].
#[track_caller]
pub fn spawn_named<F: Future + 'static>(name: &'static str, future: F) -> Coroutine<F::Output> {
    let (kind, location) = (move || Kind::named(name), Location::caller());
    Coroutine::of(on_current(|core| queue(core, kind, future, location)))
}

/// The coroutine that is running now, if one is: its name, where it was started, and where it waited last.
///
/// ```
/// # use waterspout::{IoLoop, coroutine};
/// # IoLoop::new()?.run_sync(|| async {
/// let coroutine = coroutine::spawn_named("inner", async { coroutine::current().unwrap().name });
/// assert_eq!(coroutine.await, "inner");
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn current() -> Option<CoroutineInfo> {
    with_current(|core| core.current()).flatten()
}

#[track_caller]
pub(crate) fn start_as<F: Future + 'static>(
    kind: impl KindOf<F::Output>,
    future: F,
) -> Coroutine<F::Output> {
    start_on(&IoLoop::current(), kind, future, Location::caller())
}

/// Starts a coroutine of a loop that need not be the current one. If it is not, the eager part of the
/// coroutine runs while another loop is current, and must not use the current loop.
fn start_on<F: Future + 'static>(
    io_loop: &IoLoop,
    kind: impl KindOf<F::Output>,
    future: F,
    location: &'static Location<'static>,
) -> Coroutine<F::Output> {
    let runner = Runner::new(io_loop.core(), future, kind, false, location);
    if runner.has_slot() {
        runner.start(io_loop.core());
    }
    Coroutine::of(runner)
}

/// Queues a coroutine for the next turn of a loop. No foreign code runs in here.
fn queue<F: Future + 'static, K: KindOf<F::Output>>(
    core: &Core,
    kind: K,
    future: F,
    location: &'static Location<'static>,
) -> Rc<Runner<F, K>> {
    Runner::new(core, future, kind, true, location)
}

impl IoLoop {
    /// [`spawn`] on this loop, which need not be the current one.
    ///
    /// # Panics
    ///
    /// If the loop has 16,777,215 live coroutines already.
    #[track_caller]
    pub fn spawn<F: Future + 'static>(&self, future: F) -> Coroutine<F::Output> {
        Coroutine::of(queue(self.core(), Kind::of::<F>, future, Location::caller()))
    }

    /// Calls `callback` in the next turn, and runs the future that it returns. Nobody can await that.
    /// Tornado: `spawn_callback`.
    ///
    /// A panic or an `Err` is reported to [`Builder::on_exception`](crate::Builder::on_exception).
    ///
    /// ```
    /// use waterspout::IoLoop;
    ///
    /// let io_loop = IoLoop::builder().on_exception(|e| assert!(e.info.to_string().contains("lost"))).build()?;
    /// io_loop.spawn_callback(|| async { Err::<(), _>("lost") });
    /// io_loop.run_sync(|| async {})?;
    /// assert_eq!(io_loop.counters().exceptions, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn spawn_callback<C, F>(&self, callback: C)
    where
        C: FnOnce() -> F + 'static,
        F: Future<Output: Outcome> + 'static,
    {
        let (kind, called) = (Kind::reporting::<C>, async move { callback().await });
        drop(Coroutine::of(queue(self.core(), kind, called, Location::caller())));
    }

    /// Calls `callback` with the future in a turn after its result, or an exception, was set; if that was
    /// done before, in the next turn. Tornado: `add_future`.
    #[track_caller]
    pub fn add_future<T: 'static>(
        &self,
        future: concurrent::Future<T>,
        callback: impl FnOnce(&concurrent::Future<T>) + 'static,
    ) {
        let kind = || Kind::named("add_future");
        let is_done = future.done();
        let waiting = future.clone();
        let called = async move {
            waiting.settled().await;
            callback(&future);
        };
        let core = self.core();
        let runner = Runner::new(core, called, kind, is_done, Location::caller());
        if !is_done && runner.has_slot() {
            // Started now, so that it joins the waiters of the future now. If it were queued, callbacks
            // that are added later might come before it.
            runner.start(core);
        }
        drop(Coroutine::of(runner));
    }
}

impl<T: 'static> concurrent::Future<T> {
    /// Calls `callback` in a turn of the current loop after the result, or an exception, was set; if that was
    /// done before, in the next turn. Callbacks of one future are called in the order in which they were
    /// added. Tornado: `add_done_callback`.
    ///
    /// # Panics
    ///
    /// As [`IoLoop::current`].
    #[track_caller]
    pub fn add_done_callback(&self, callback: impl FnOnce(&concurrent::Future<T>) + 'static) {
        IoLoop::current().add_future(self.clone(), callback);
    }
}

impl PeriodicCallback {
    /// A callback that may await, to be called every `period`. It is not started yet: see
    /// [`start`](PeriodicCallback::start).
    ///
    /// `callback` is an async closure, which may borrow from what it has captured, or a closure that gives
    /// futures. Calls never overlap: a beat that comes while the last call has not ended is skipped. A
    /// panic or an `Err` is reported to [`Builder::on_exception`](crate::Builder::on_exception).
    ///
    /// # Panics
    ///
    /// If `period` is zero.
    ///
    /// ```
    /// use std::time::Duration;
    /// use waterspout::{IoLoop, PeriodicCallback, coroutine::{moment, sleep}};
    ///
    /// let io_loop = IoLoop::builder().virtual_time().build()?;
    /// io_loop.run_sync(async || {
    ///     let mut beats = Vec::new();
    ///     let periodic = PeriodicCallback::new_async(Duration::from_secs(1), async move || {
    ///         beats.push(waterspout::coroutine::now());
    ///         moment().await;
    ///         assert!(beats.windows(2).all(|pair| pair[1] - pair[0] == Duration::from_secs(1)));
    ///     });
    ///     periodic.start();
    ///     sleep(Duration::from_secs(5)).await;
    /// })?;
    /// # assert_eq!(io_loop.counters().exceptions, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn new_async<C, T>(period: Duration, callback: C) -> PeriodicCallback
    where
        C: AsyncFnMut() -> T + 'static,
        T: Outcome + 'static,
    {
        let location = Location::caller();
        let callback = Rc::new(RefCell::new(callback));
        PeriodicCallback::with_call(period, move |call| {
            let callback = callback.clone();
            #[expect(clippy::await_holding_refcell_ref, reason = "calls do not overlap")]
            let called = async move {
                // Declared first, so that it is dropped last. When it is dropped, the next call may begin,
                // and borrows `callback`, which nobody may have borrowed then.
                let _call = call;
                let mut callback = callback.borrow_mut();
                (*callback)().await
            };
            drop(start_on(&IoLoop::current(), Kind::reporting::<C>, called, location));
        })
    }
}
