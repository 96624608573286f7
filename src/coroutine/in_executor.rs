//! `run_in_executor`: blocking work on other threads. It is awaited as a coroutine, or as a future that is
//! `Send`.

use std::io;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;

use futures::channel::oneshot;

use super::runner::Kind;
use super::{Coroutine, start_on};
use crate::concurrent::Executor;
use crate::ground::resumption;
use crate::ioloop::{Core, HeldTime, IoLoop, with_current};

impl IoLoop {
    /// Runs blocking work on a thread of this loop's [`Executor`], by default the process's shared
    /// one. Tornado: `run_in_executor`, `run_on_executor`.
    ///
    /// The work is queued by this call, whether or not the coroutine is awaited, and cannot be stopped:
    /// dropping or cancelling the coroutine only loses its result. If the work panics, so does the coroutine.
    ///
    /// # Panics
    ///
    /// The coroutine panics if the executor refuses the work: too much is waiting, it was shut down, or no
    /// thread could be started.
    ///
    /// ```
    /// use waterspout::IoLoop;
    ///
    /// let io_loop = IoLoop::new()?;
    /// let inner = io_loop.clone();
    /// let text = io_loop.run_sync(|| inner.run_in_executor(|| std::fs::read_to_string("Cargo.toml")))?;
    /// assert!(text?.contains("waterspout"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn run_in_executor<T, W>(&self, work: W) -> Coroutine<T>
    where
        W: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.executor().run_on(self, work)
    }

    /// The executor of [`run_in_executor`](IoLoop::run_in_executor).
    pub(crate) fn executor(&self) -> Executor {
        let executor = self.core().executor.borrow().clone();
        executor.unwrap_or_else(|| Executor::shared().clone())
    }

    /// Replaces the executor of [`run_in_executor`](IoLoop::run_in_executor) for this loop. Tornado:
    /// `set_default_executor`.
    pub fn set_default_executor(&self, executor: Executor) {
        let before = self.core().executor.replace(Some(executor));
        drop(before);
    }
}

impl Executor {
    /// Runs blocking work on a thread of this executor, awaited as a coroutine of the current loop: otherwise
    /// as [`IoLoop::run_in_executor`].
    ///
    /// # Panics
    ///
    /// As [`IoLoop::current`]. The coroutine panics if the executor refuses the work.
    #[track_caller]
    pub fn run<T, W>(&self, work: W) -> Coroutine<T>
    where
        W: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.run_on(&IoLoop::current(), work)
    }

    #[track_caller]
    fn run_on<T, W>(&self, io_loop: &IoLoop, work: W) -> Coroutine<T>
    where
        W: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let location = Location::caller();
        let work = Blocking::begin(self, work, location, io_loop.core().hold_time().into());
        start_on(io_loop, Kind::of::<W>, work, location)
    }

    /// Runs blocking work on a thread of this executor, and gives a future that may be awaited anywhere:
    /// in a coroutine, within a future that has to be `Send`, or in another runtime.
    /// [`run`](Executor::run) gives a coroutine instead, which is listed and can be cancelled, and needs a
    /// loop.
    ///
    /// The work is queued by this call, whether or not the future is awaited, and cannot be stopped:
    /// dropping the future only loses its result. If this thread has a current loop, the future holds its
    /// virtual time.
    ///
    /// # Panics
    ///
    /// Awaiting it panics with the panic of the work, or if the executor refuses the work.
    ///
    /// ```
    /// use waterspout::{IoLoop, concurrent::Executor};
    ///
    /// fn is_send<F: Future + Send>(future: F) -> F {
    ///     future
    /// }
    ///
    /// let text = IoLoop::new()?.run_sync(|| {
    ///     is_send(async {
    ///         Executor::shared().spawn_blocking(|| std::fs::read_to_string("Cargo.toml")).await
    ///     })
    /// })?;
    /// assert!(text?.contains("waterspout"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn spawn_blocking<T, W>(&self, work: W) -> Blocking<T>
    where
        W: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        Blocking::begin(self, work, Location::caller(), with_current(Core::hold_time))
    }
}

/// The result of work on a thread of an executor; from [`Executor::spawn_blocking`].
#[must_use = "the work is done anyway; await it, or drop this explicitly"]
#[derive(Debug)]
pub struct Blocking<T> {
    result: oneshot::Receiver<thread::Result<T>>,
    /// Why the executor has refused the work, if it has.
    refused: Option<io::Error>,
    /// Where the work was asked for.
    location: &'static Location<'static>,
    /// Holds the virtual time of the loop, if there is one, until the result is there.
    held: Option<HeldTime>,
}

impl<T: Send + 'static> Blocking<T> {
    /// As [`Executor::spawn_blocking`], with another place, and with an error if the executor refuses the work.
    #[cfg(feature = "server")]
    pub(crate) fn try_begin(
        executor: &Executor,
        location: &'static Location<'static>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<Blocking<T>> {
        let held = with_current(Core::hold_time);
        let mut blocking = Blocking::begin(executor, work, location, held);
        blocking.refused.take().map_or(Ok(blocking), Err)
    }

    fn begin(
        executor: &Executor,
        work: impl FnOnce() -> T + Send + 'static,
        location: &'static Location<'static>,
        held: Option<HeldTime>,
    ) -> Blocking<T> {
        let (sender, result) = oneshot::channel();
        let submitted = executor.submit(move || {
            let done = catch_unwind(AssertUnwindSafe(work));
            // If nobody waits for the result any more, it is dropped here. A panic of its destructor must not
            // end the executor's thread.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(sender.send(done))));
        });
        Blocking { result, refused: submitted.err(), location, held }
    }
}

impl<T> Future for Blocking<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let location = self.location;
        if let Some(refused) = self.refused.take() {
            panic!("the work of {location} was refused: {refused}");
        }
        let polled = Pin::new(&mut self.result).poll(cx);
        let Poll::Ready(done) = polled else {
            resumption::waits_at(location);
            return Poll::Pending;
        };
        self.held = None;
        match done {
            Ok(Ok(output)) => Poll::Ready(output),
            Ok(Err(panic)) => resume_unwind(panic),
            Err(oneshot::Canceled) => {
                panic!("the work of {location} was dropped by its executor")
            }
        }
    }
}
