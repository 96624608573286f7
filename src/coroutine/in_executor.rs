//! `run_in_executor`: blocking work on other threads, awaited like a coroutine.

use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};

use futures::channel::oneshot;

use super::runner::Kind;
use super::{Coroutine, start_on};
use crate::concurrent::Executor;
use crate::ioloop::IoLoop;
use crate::resumption;

impl IoLoop {
    /// Runs blocking work on a thread of this loop's [`Executor`], by default the process's shared
    /// one. Tornado: `run_in_executor`, `run_on_executor`.
    ///
    /// The work begins now, whether or not the coroutine is awaited, and cannot be stopped: dropping
    /// or cancelling the coroutine forgets its result. A panic in it goes on in whoever awaits it.
    ///
    /// # Panics
    ///
    /// In the coroutine, if the executor refuses the work.
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
        let executor = self.core().executor.borrow().clone();
        let executor = executor.unwrap_or_else(|| Executor::shared().clone());
        executor.run_on(self, work)
    }

    /// Replaces the executor of [`run_in_executor`](IoLoop::run_in_executor) for this loop. Tornado:
    /// `set_default_executor`.
    pub fn set_default_executor(&self, executor: Executor) {
        let before = self.core().executor.replace(Some(executor));
        drop(before);
    }
}

impl Executor {
    /// Runs blocking work on a thread of this executor, awaited as a coroutine of the current loop.
    ///
    /// As [`IoLoop::run_in_executor`].
    ///
    /// # Panics
    ///
    /// As [`IoLoop::current`]; and in the coroutine, if the executor refuses the work.
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
        let (sender, receiver) = oneshot::channel();
        let submitted = self.submit(move || {
            let done = catch_unwind(AssertUnwindSafe(work));
            // Whoever asked may be gone; a destructor of the result must not end the thread.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(sender.send(done))));
        });
        let held = io_loop.core().hold_time();
        let answer = async move {
            let _held = held;
            if let Err(refused) = submitted {
                panic!("the work of {location} was refused: {refused}");
            }
            match resumption::at(location, receiver).await {
                Ok(Ok(output)) => output,
                Ok(Err(panic)) => resume_unwind(panic),
                Err(oneshot::Canceled) => {
                    panic!("the work of {location} was dropped by its executor")
                }
            }
        };
        start_on(io_loop, Kind::of::<W>, answer, location)
    }
}
