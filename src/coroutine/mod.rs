//! Coroutines: functions that wait without blocking, on the loop of their thread.
//!
//! # Calling one runs it
//!
//! A function under [`#[coroutine]`](macro@crate::coroutine) runs when it is called: at once, on
//! the caller's stack, up to the first point where it has to wait. Then the call returns a
//! [`Coroutine`], and the loop resumes it when it can go on. Await the handle if its result is
//! needed; drop it if not, the coroutine runs all the same. That is Tornado's `gen.coroutine`, and
//! it is what an `async fn` is not: that does nothing until it is polled, and stops for good when it
//! is dropped.
//!
//! So there is nothing to spawn. A call that finds its answer in a cache never touches the run
//! queue; a call that has to wait has its request on the way when it returns, and several such
//! calls wait at the same time:
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
//! While the eager part runs, it is the *current* coroutine; the caller is put back when the call
//! returns. Both spend of one budget (see below). A panic in it does not reach the caller, but whoever
//! awaits it.
//! Calls that start each other within their eager parts are nested on the stack, as any calls are: about
//! 260 bytes each in a release build and 1,440 in a debug build, beside what the functions themselves
//! take. A stack of 2 MiB holds a thousand with ease, and not ten thousand.
//!
//! [`start`] does the same with any future, [`spawn`] queues it to run in the loop's next turn.
//! Outside a running loop both work: the loop takes the coroutine up when it starts.
//!
//! # Several futures in one coroutine
//!
//! Coroutines are started, and then awaited one after the other, or together: by [`multi`] if they give
//! results, by [`multi_outputs`] if they cannot fail. Plain futures are awaited together by the macros of
//! the [`futures`] crate: all of them by `join!`, the first of them by `select!`. Which futures may be
//! dropped halfway, as `select!` does, their documentation says: *cancel safe*. The futures of this crate
//! need no `.fuse()` there.
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
//! Dropping its handle does not, not even where `select!` or a time limit drops it: the coroutine is not the
//! caller's part, as a future is, but goes on by itself. It ends with the handle if that is a
//! [`CancelOnDrop`], which [`cancel_on_drop`](Coroutine::cancel_on_drop) makes of any, and which a
//! [`#[coroutine(cancel_on_drop)]`](macro@crate::coroutine) gives. What it awaits then ends with it. To end
//! all that a future awaits, however deep inside, [`spawn`] the future and tie it so.
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
//! [`Coroutine::cancel`] ends one by its handle, and [`CancelHandle`] by another. Many are ended together by a
//! [`TaskGroup`], which also waits for them, by a [`JoinSet`] or by a [`CancelToken`].
//!
//! # Waiting for nothing costs nothing
//!
//! Awaiting what is ready already does not go through the loop. A coroutine that never has to wait
//! would keep the others waiting, so I/O, timers, locks and queues give way after a number of
//! operations; a computation does so with [`moment`].

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

use crate::concurrent::Future as Slot;
use crate::ground::coroutine_info::CoroutineInfo;
use crate::ground::resumption;
use crate::ioloop::{Callback, Core, IoLoop, PeriodicCallback, on_current, with_current};
use cancel_handle::Control;
pub(crate) use names::name_of;
use runner::{Join, Runner};
pub(crate) use runner::{Kind, KindOf, Name};

/// A coroutine that has been started. Await it for its result; dropping it lets the coroutine run
/// on by itself.
///
/// Awaiting gives the result. A panic in the coroutine goes on in whoever awaits it; awaiting a
/// cancelled one panics with a sentence that says so. [`join`](Coroutine::join) gives an error for
/// both instead. A panic, or the `Err` of a [`#[coroutine]`](macro@crate::coroutine) function, that
/// nobody awaits is reported to [`Builder::on_exception`](crate::Builder::on_exception). Tornado:
/// the `Future` that a coroutine returns.
///
/// Cancel safe: dropping it while awaiting detaches the coroutine, which goes on. Only where a coroutine
/// is dropped because it was [cancelled](Coroutine::cancel), what it awaited is cancelled with it.
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
            // Its loop is closed.
            Control::cancel(runner.clone());
        }
        Coroutine { runner }
    }

    /// Whether it has come to its end: returned, panicked, or been cancelled.
    pub fn done(&self) -> bool {
        self.runner.is_done()
    }

    /// Ends it where it is suspended, dropping its state there; if it is running (it cancels
    /// itself), at its next suspension. Nothing happens if it is done.
    ///
    /// The coroutines that it awaits are cancelled, too, and what those await, and so on, unless it
    /// awaits them by [`shield`]. However long that chain is, it takes no more stack: what is nested deeply
    /// in destructors is dropped when those are through.
    ///
    /// Who awaits it gets a panic, who joins it a [`JoinError`]. Tornado's coroutines cannot be
    /// cancelled; this is asyncio's rule.
    pub fn cancel(&self) {
        self.runner.clone().cancel();
    }

    /// A handle that cancels it, for others than who awaits it.
    pub fn cancel_handle(&self) -> CancelHandle {
        CancelHandle::of(self.runner.clone().control())
    }

    /// Waits for it, and gives a [`JoinError`] where awaiting would panic.
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

    /// Ties it to the value that this returns: dropping that cancels it, instead of detaching it.
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

    /// Calls `callback` in the loop's turn after it is done, in the order in which callbacks were
    /// added. If it is done already, that is the next turn of the current loop, or at once where there
    /// is none. Tornado: `Future.add_done_callback`.
    ///
    /// It does not take the result: await the coroutine, or [`join`](Coroutine::join), for that.
    #[track_caller]
    pub fn add_done_callback(&self, callback: impl FnOnce() + 'static) {
        self.runner.when_done(Callback::new(Location::caller(), callback));
    }

    /// Its name: the path of the function, with the type that it is a method of, what the attribute or
    /// [`spawn_named`] said, or the type of the future.
    pub fn name(&self) -> &'static str {
        self.runner.info().name
    }

    /// Its name and places, as [`IoLoop::coroutines`] lists them.
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

/// Waits for a coroutine's end; from [`Coroutine::join`]. Dropping it detaches the coroutine, or cancels it
/// if it is from [`CancelOnDrop::join`].
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct JoinHandle<T> {
    coroutine: Coroutine<T>,
    place: &'static Location<'static>,
    /// Dropping it cancels the coroutine.
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

/// A coroutine that is cancelled when this is dropped; from [`Coroutine::cancel_on_drop`], or from a
/// [`#[coroutine(cancel_on_drop)]`](macro@crate::coroutine). Awaiting it is awaiting the coroutine, and it
/// can be asked what a [`Coroutine`] can.
///
/// So a time limit and a `select!` cancel the coroutine that they give up, and all that it awaits:
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
    /// `None` when it was given away.
    coroutine: Option<Coroutine<T>>,
}

impl<T> CancelOnDrop<T> {
    /// Waits for the coroutine, and gives a [`JoinError`] where awaiting would panic. Dropping that cancels it,
    /// too.
    #[track_caller]
    pub fn join(mut self) -> JoinHandle<T> {
        let mut joins = self.take().join();
        joins.cancels = true;
        joins
    }

    /// Gives the coroutine back, which goes on when that is dropped.
    pub fn detach(mut self) -> Coroutine<T> {
        self.take()
    }

    fn take(&mut self) -> Coroutine<T> {
        self.coroutine.take().unwrap_or_else(|| unreachable!("who takes it takes this, too"))
    }
}

impl<T> Deref for CancelOnDrop<T> {
    type Target = Coroutine<T>;

    fn deref(&self) -> &Coroutine<T> {
        match &self.coroutine {
            Some(coroutine) => coroutine,
            None => unreachable!("who takes it takes this, too"),
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
        if let Some(coroutine) = &self.coroutine {
            coroutine.cancel();
        }
    }
}

// ---------------------------------------------------------------------------------------------
// Starting

/// Starts `future` as a coroutine of the current loop, now: it runs on the caller's stack up to its
/// first suspension. What [`#[coroutine]`](macro@crate::coroutine) does with a function's body.
///
/// An `Err` that it returns is its awaiter's affair: only the attribute knows enough of the type to
/// report one that nobody awaits. On a closed loop the coroutine is cancelled from the start.
///
/// # Panics
///
/// As [`IoLoop::current`]; or if the loop has 16,777,215 live coroutines already.
#[track_caller]
pub fn start<F: Future + 'static>(future: F) -> Coroutine<F::Output> {
    start_as(Kind::of::<F>, future)
}

/// Queues `future` as a coroutine of the current loop: it runs from the loop's next turn on.
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

/// [`spawn`] on behalf of who asked for it at `location`.
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

/// The coroutine that is running now, if one is: its name and places.
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

/// Starts a coroutine of a loop that need not be the current one: then its first step must not count
/// on that.
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

/// Queues a coroutine for the next turn of a loop. Nothing foreign runs in here.
fn queue<F: Future + 'static, K: KindOf<F::Output>>(
    core: &Core,
    kind: K,
    future: F,
    location: &'static Location<'static>,
) -> Rc<Runner<F, K>> {
    Runner::new(core, future, kind, true, location)
}

impl IoLoop {
    /// [`spawn`] on this loop, current or not.
    ///
    /// # Panics
    ///
    /// If the loop has 16,777,215 live coroutines already.
    #[track_caller]
    pub fn spawn<F: Future + 'static>(&self, future: F) -> Coroutine<F::Output> {
        Coroutine::of(queue(self.core(), Kind::of::<F>, future, Location::caller()))
    }

    /// Calls `callback` in the next turn and runs the future that it returns, if it is one; fire and
    /// forget. Tornado: `spawn_callback`.
    ///
    /// A panic, and an `Err`, are reported to [`Builder::on_exception`](crate::Builder::on_exception).
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

    /// Calls `callback` with the settled future in a turn after it has settled, also if it has
    /// already. Tornado: `add_future`.
    #[track_caller]
    pub fn add_future<T: 'static>(
        &self,
        future: Slot<T>,
        callback: impl FnOnce(&Slot<T>) + 'static,
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
            // It takes its place among those who wait now, and not in a turn from now.
            runner.start(core);
        }
        drop(Coroutine::of(runner));
    }
}

impl<T: 'static> Slot<T> {
    /// Calls `callback` in a turn of the current loop after this future has settled, also if it has
    /// already; callbacks of one future run in the order in which they were added. Tornado:
    /// `add_done_callback`.
    ///
    /// # Panics
    ///
    /// As [`IoLoop::current`].
    #[track_caller]
    pub fn add_done_callback(&self, callback: impl FnOnce(&Slot<T>) + 'static) {
        IoLoop::current().add_future(self.clone(), callback);
    }
}

impl PeriodicCallback {
    /// A callback that awaits, for every `period`. It is not started.
    ///
    /// An async closure, which may keep what it has between the calls and borrow from that, or a closure
    /// that gives futures. It never overlaps itself: a beat that comes while the last call is unfinished is
    /// skipped, as are beats that a call overruns. A panic, and an `Err`, are reported.
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
                // Dropped last: when it says that the call is over, nobody borrows the callback.
                let _call = call;
                let mut callback = callback.borrow_mut();
                (*callback)().await
            };
            drop(start_on(&IoLoop::current(), Kind::reporting::<C>, called, location));
        })
    }
}
