//! Coroutines that other threads start on a loop: `LoopHandle::spawn` and `LoopHandle::run_sync`.
//!
//! A closure travels to the loop, and the result travels back; both are `Send`. The closure makes a future on
//! the loop, which stays there, so that the future need not be `Send`.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, Location};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::channel::oneshot;
use futures::future::FusedFuture;

use super::{Coroutine, Kind, name_of, queue};
use crate::ground::error::{Failure, JoinError, LoopClosed};
use crate::ground::foreign;
use crate::ground::kept::Kept;
use crate::ground::park;
use crate::ground::report::Exception;
use crate::ground::resumption;
use crate::ioloop::{Core, HeldTime, IoLoop, LoopHandle, LoopId, with_current};

impl LoopHandle {
    /// Starts a coroutine on the loop, from any thread.
    ///
    /// `make` is sent to the loop's thread and called there; the future that it makes stays there, and so
    /// need not be `Send`. The [`Answer`] can be awaited in any runtime. If it is dropped, the coroutine
    /// goes on.
    ///
    /// # Errors
    ///
    /// [`LoopClosed`] if the loop is closed.
    ///
    /// ```
    /// use std::rc::Rc;
    /// use waterspout::IoLoop;
    ///
    /// let io_loop = IoLoop::new()?;
    /// let handle = io_loop.handle();
    /// let thread = std::thread::spawn(move || {
    ///     // Any runtime could await this; here it is another loop.
    ///     let other = IoLoop::new().unwrap();
    ///     let answer = other.run_sync(|| handle.spawn(|| async { *Rc::new(42) }).unwrap());
    ///     handle.stop().unwrap();
    ///     answer.unwrap().unwrap()
    /// });
    /// io_loop.start()?;
    /// assert_eq!(thread.join().unwrap(), 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn spawn<M, F>(&self, make: M) -> Result<Answer<F::Output>, LoopClosed>
    where
        M: FnOnce() -> F + Send + 'static,
        F: Future + 'static,
        F::Output: Send + 'static,
    {
        let location = Location::caller();
        let (sender, receiver) = oneshot::channel();
        self.add_callback(move || {
            let answering = answering(make, sender, location);
            let queued = queue(IoLoop::current().core(), Kind::of::<F>, answering, location);
            drop(Coroutine::of(queued));
        })?;
        let (name, id) = (name_of::<F>, self.id());
        Ok(Answer { receiver, name, place: location, id, held: None, is_done: false })
    }

    /// Runs a coroutine on the loop, and blocks this thread until it has ended. It is for threads that run no
    /// loop. Tornado has no such call; asyncio's is `run_coroutine_threadsafe(...).result()`.
    ///
    /// # Errors
    ///
    /// [`JoinError`] if the coroutine panicked, or if it was cancelled or never started because the loop was
    /// closed.
    ///
    /// # Panics
    ///
    /// If this thread runs a loop, which would stand still meanwhile. There, await what [`spawn`] gives.
    ///
    /// [`spawn`]: LoopHandle::spawn
    ///
    /// ```
    /// # use waterspout::IoLoop;
    /// let io_loop = IoLoop::new()?;
    /// let handle = io_loop.handle();
    /// let thread = std::thread::spawn(move || {
    ///     let sum = handle.run_sync(|| async { 1 + 1 }).unwrap();
    ///     handle.stop().unwrap();
    ///     sum
    /// });
    /// io_loop.start()?;
    /// assert_eq!(thread.join().unwrap(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn run_sync<M, F>(&self, make: M) -> Result<F::Output, JoinError>
    where
        M: FnOnce() -> F + Send + 'static,
        F: Future + 'static,
        F::Output: Send + 'static,
    {
        if let Some(running) = IoLoop::running() {
            panic!(
                "LoopHandle::run_sync would block the thread of {running:?}: \
                 `handle.spawn(..)?.await` does not"
            );
        }
        match self.spawn(make) {
            Ok(answer) => park::block_on(answer),
            Err(LoopClosed) => Err(JoinError::new(name_of::<F>(), Failure::Cancelled)),
        }
    }
}

/// Runs what `make` makes, and sends how it has ended. If the coroutine is cancelled, this is dropped, and the
/// sender with it, which tells the receiver.
async fn answering<M, F>(
    make: M,
    sender: oneshot::Sender<Kept<Done<F::Output>>>,
    location: &'static Location<'static>,
) where
    M: FnOnce() -> F,
    F: Future,
{
    let mut made = pin!(Some(async move { make().await }));
    let running = poll_fn(|cx| match made.as_mut().as_pin_mut() {
        Some(made) => made.poll(cx),
        None => Poll::Pending,
    });
    let result = AssertUnwindSafe(running).catch_unwind().await;
    // What it owns is gone when the answer comes. A panic of that is not the coroutine's.
    foreign::call("destructor", None, || made.set(None));
    let result = result.map_err(|panic| JoinError::new(name_of::<F>(), Failure::Panicked(panic)));
    // If nobody waits for the answer any more, `send` gives it back, and it is dropped here. A `Kept` that is
    // dropped reports the panic that it holds.
    let done = Kept::new(Done { result, location }, Done::failure);
    foreign::call("waker", None, || drop(sender.send(done)));
}

/// How a coroutine has ended, on its way to another thread.
#[derive(Debug)]
struct Done<T> {
    result: Result<T, JoinError>,
    location: &'static Location<'static>,
}

impl<T> Done<T> {
    /// What is to be reported if nobody takes this: a panic. That the coroutine was cancelled is not.
    fn failure(&self) -> Option<Exception> {
        let error = self.result.as_ref().err()?;
        let (info, name, location) = (error.exc_info()?, Some(error.name()), Some(self.location));
        Some(Exception { what: "coroutine", name, location, info })
    }
}

/// The result of a coroutine that runs on another thread's loop: a future that any runtime can await. From
/// [`LoopHandle::spawn`].
///
/// It gives [`JoinError`] if the coroutine panicked or was cancelled. Dropping it detaches the coroutine:
/// that goes on, and if it panics, that is reported. Cancel safe.
#[must_use = "the coroutine runs anyway; await the answer, or drop it explicitly"]
#[derive(Debug)]
pub struct Answer<T> {
    receiver: oneshot::Receiver<Kept<Done<T>>>,
    name: fn() -> &'static str,
    /// Where the coroutine was asked for.
    place: &'static Location<'static>,
    /// The loop that runs the coroutine.
    id: LoopId,
    /// While a coroutine of another loop waits for this answer, it holds that loop's virtual time: the answer
    /// takes real time.
    held: Option<HeldTime>,
    is_done: bool,
}

impl<T> Future for Answer<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let name = self.name;
        let polled = Pin::new(&mut self.receiver).poll(cx);
        if polled.is_pending() {
            resumption::waits_at(self.place);
            let id = self.id;
            let hold = |core: &Core| (core.id() != id).then(|| core.hold_time());
            self.held = with_current(hold).flatten();
        } else {
            self.held = None;
            self.is_done = true;
        }
        polled.map(|answer| match answer.ok().and_then(Kept::take) {
            Some(done) => done.result,
            None => Err(JoinError::new(name(), Failure::Cancelled)),
        })
    }
}

impl<T> FusedFuture for Answer<T> {
    fn is_terminated(&self) -> bool {
        self.is_done
    }
}
