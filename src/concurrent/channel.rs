//! `channel`: a bounded queue between loops.
//!
//! The items are `Send`, the ends go to any thread, and either end can be awaited in any runtime. A
//! sender that finds the queue full waits; a receiver that finds it empty waits. Only a queue that
//! was empty wakes its receiver, and the loop's inbox makes one system call of many wake-ups, so a
//! stream of items costs a wake-up for each time the receiver had caught up.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::panic::Location;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use futures::future::FusedFuture;
use futures::stream::{FusedStream, Stream};

use crate::ground::park;
use crate::ground::wait_queue::wake;
use crate::ground::{foreign, resumption};

struct Shared<T> {
    state: Mutex<State<T>>,
    capacity: usize,
}

struct State<T> {
    items: VecDeque<T>,
    /// How many senders there are; without any, the channel is closed.
    senders: usize,
    /// The receiver has gone.
    refused: bool,
    receiver: Option<Waker>,
    /// Those who wait for room, by number, first in first out. Who has been woken has left the waker,
    /// and is not woken again.
    waiting: VecDeque<(u64, Option<Waker>)>,
    next: u64,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A channel with room for `capacity` items, at least one. What is not `Send` goes through
/// [`channels`](crate::channels), between coroutines of one thread.
///
/// ```
/// use waterspout::{IoLoop, concurrent::channel};
///
/// let (sender, mut receiver) = channel(16);
/// let worker = std::thread::spawn(move || {
///     IoLoop::new().unwrap().run_sync(|| async move {
///         for n in 0..100 {
///             sender.send(n).await.unwrap();
///         }
///     })
/// });
/// let sum = IoLoop::new()?.run_sync(|| async move {
///     let mut sum = 0;
///     while let Some(n) = receiver.recv().await {
///         sum += n;
///     }
///     sum
/// })?;
/// assert_eq!(sum, 4950);
/// worker.join().unwrap()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[track_caller]
pub fn channel<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let state = State {
        items: VecDeque::new(),
        senders: 1,
        refused: false,
        receiver: None,
        waiting: VecDeque::new(),
        next: 0,
    };
    let shared = Arc::new(Shared { state: Mutex::new(state), capacity: capacity.max(1) });
    (Sender { shared: shared.clone() }, Receiver { shared, place: Location::caller() })
}

/// The sending end; a clone sends into the same channel. When the last is dropped, the receiver gets
/// what is left, and then the end.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

/// The receiving end, and a stream of what it receives. When it is dropped, senders get their items
/// back.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    /// Where the channel was made: there waits who uses this as a stream.
    place: &'static Location<'static>,
}

/// The receiver has gone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SendError<T>(
    /// The item that was not sent.
    pub T,
);

/// The item was not sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// There is no room now.
    Full(T),
    /// The receiver has gone.
    Closed(T),
}

impl<T> TrySendError<T> {
    /// The item.
    pub fn into_inner(self) -> T {
        match self {
            TrySendError::Full(item) | TrySendError::Closed(item) => item,
        }
    }
}

impl<T: Send> Sender<T> {
    /// Sends an item, waiting for room.
    ///
    /// Cancel safe: the item of a send that was dropped is not sent.
    ///
    /// # Errors
    ///
    /// [`SendError`] with the item, if the receiver has gone.
    #[track_caller]
    pub fn send(&self, item: T) -> impl FusedFuture<Output = Result<(), SendError<T>>> {
        let mut sending = Sending { shared: &self.shared, item: Some(item), number: None };
        resumption::here(poll_fn(move |cx| sending.poll(cx)))
    }

    /// Sends an item and blocks this thread until there is room: for threads that run no loop.
    ///
    /// # Errors
    ///
    /// As [`send`](Sender::send).
    pub fn blocking_send(&self, item: T) -> Result<(), SendError<T>> {
        park::block_on(self.send(item))
    }

    /// Sends an item if there is room. May be called from anywhere, a thread without a loop included.
    ///
    /// # Errors
    ///
    /// [`TrySendError`] with the item.
    pub fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        let mut state = self.shared.lock();
        if state.refused {
            return Err(TrySendError::Closed(item));
        }
        // Not past those who wait.
        if !state.waiting.is_empty() || state.items.len() >= self.shared.capacity {
            return Err(TrySendError::Full(item));
        }
        let receiver = state.push(item);
        drop(state);
        wake(receiver);
        Ok(())
    }

    /// Whether the receiver has gone.
    pub fn is_closed(&self) -> bool {
        self.shared.lock().refused
    }
}

impl<T> State<T> {
    fn push(&mut self, item: T) -> Option<Waker> {
        self.items.push_back(item);
        self.receiver.take()
    }
}

struct Sending<'a, T> {
    shared: &'a Shared<T>,
    item: Option<T>,
    /// The place among those who wait.
    number: Option<u64>,
}

// The item is moved, never pinned.
impl<T> Unpin for Sending<'_, T> {}

impl<T> Sending<'_, T> {
    fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<(), SendError<T>>> {
        ready!(resumption::poll_proceed(cx));
        match self.send_or_wait(None) {
            // Cloning a waker is foreign code, which must not find the channel locked. Much may happen
            // meanwhile.
            Poll::Pending => self.send_or_wait(Some(cx.waker().clone())),
            sent => sent,
        }
    }

    /// Sends the item if there is room. If not, waits to be woken by `waker`, if there is one.
    fn send_or_wait(&mut self, waker: Option<Waker>) -> Poll<Result<(), SendError<T>>> {
        let mut state = self.shared.lock();
        let first = match self.number {
            // Room is for the first who waits, or for anybody if nobody does.
            None => state.waiting.is_empty(),
            Some(number) => state.waiting.front().is_none_or(|(first, _)| *first >= number),
        };
        if state.refused || first && state.items.len() < self.shared.capacity {
            let Some(item) = self.item.take() else { return Poll::Pending };
            if state.refused {
                return Poll::Ready(Err(SendError(item)));
            }
            if self.number.take().is_some() {
                state.waiting.pop_front();
            }
            let receiver = state.push(item);
            let next = state.next_to_send(self.shared.capacity);
            drop(state);
            wake(receiver);
            wake(next);
            foreign::discard(waker);
            return Poll::Ready(Ok(()));
        }
        let Some(waker) = waker else { return Poll::Pending };
        let before = match self.number {
            None => {
                let number = state.next;
                state.next += 1;
                state.waiting.push_back((number, Some(waker)));
                self.number = Some(number);
                None
            }
            Some(number) => {
                let at = state.waiting.binary_search_by_key(&number, |(n, _)| *n);
                at.ok().and_then(|at| state.waiting[at].1.replace(waker))
            }
        };
        drop(state);
        foreign::discard(before);
        Poll::Pending
    }
}

impl<T> State<T> {
    /// The first who waits, if there is room, unless that has been woken.
    fn next_to_send(&mut self, capacity: usize) -> Option<Waker> {
        if self.items.len() >= capacity {
            return None;
        }
        self.waiting.front_mut()?.1.take()
    }
}

impl<T> Drop for Sending<'_, T> {
    fn drop(&mut self) {
        foreign::discard(self.item.take());
        let Some(number) = self.number else { return };
        let mut state = self.shared.lock();
        let at = state.waiting.binary_search_by_key(&number, |(n, _)| *n);
        let gone = at.ok().and_then(|at| state.waiting.remove(at));
        // It may have been its turn.
        let next = state.next_to_send(self.shared.capacity);
        drop(state);
        wake(next);
        foreign::discard(gone);
    }
}

impl<T: Send> Receiver<T> {
    /// Receives an item, waiting for one; `None` when all senders have gone and nothing is left.
    ///
    /// Cancel safe.
    #[track_caller]
    pub fn recv(&mut self) -> impl FusedFuture<Output = Option<T>> {
        resumption::here(poll_fn(|cx| self.poll_recv(cx)))
    }

    /// Receives an item if there is one.
    pub fn try_recv(&mut self) -> Option<T> {
        let mut state = self.shared.lock();
        let item = state.items.pop_front();
        let next = state.next_to_send(self.shared.capacity);
        drop(state);
        wake(next);
        item
    }

    /// [`recv`](Receiver::recv) as a poll function.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        ready!(resumption::poll_proceed(cx));
        let received = match self.receive_or_wait(None) {
            Poll::Pending => self.receive_or_wait(Some(cx.waker().clone())),
            received => received,
        };
        if received.is_pending() {
            resumption::waits_at(self.place);
        }
        received
    }

    /// Receives an item, or the end. If there is neither, waits to be woken by `waker`, if there is one.
    fn receive_or_wait(&mut self, waker: Option<Waker>) -> Poll<Option<T>> {
        let mut state = self.shared.lock();
        let item = state.items.pop_front();
        let unused = if item.is_some() || state.senders == 0 {
            waker
        } else {
            let Some(waker) = waker else { return Poll::Pending };
            let before = state.receiver.replace(waker);
            drop(state);
            foreign::discard(before);
            return Poll::Pending;
        };
        let next = state.next_to_send(self.shared.capacity);
        drop(state);
        wake(next);
        foreign::discard(unused);
        Poll::Ready(item)
    }
}

impl<T: Send> Stream for Receiver<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.poll_recv(cx)
    }
}

impl<T: Send> FusedStream for Receiver<T> {
    fn is_terminated(&self) -> bool {
        let state = self.shared.lock();
        state.senders == 0 && state.items.is_empty()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.shared.lock().senders += 1;
        Sender { shared: self.shared.clone() }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.senders -= 1;
        let receiver = if state.senders == 0 { state.receiver.take() } else { None };
        drop(state);
        wake(receiver);
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.refused = true;
        let items = std::mem::take(&mut state.items);
        let receiver = state.receiver.take();
        // They look again, and take themselves off the list.
        let waiting: Vec<Waker> =
            state.waiting.iter_mut().filter_map(|(_, waker)| waker.take()).collect();
        drop(state);
        foreign::wake_all(waiting);
        foreign::discard(receiver);
        foreign::discard_all(items);
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("capacity", &self.shared.capacity).finish()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("capacity", &self.shared.capacity).finish()
    }
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SendError")
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the receiver has gone")
    }
}

impl<T> Error for SendError<T> {}

/// The item is dropped: what `?` passes on says only that the receiver has gone. The kind is
/// [`BrokenPipe`](std::io::ErrorKind::BrokenPipe).
impl<T> From<SendError<T>> for std::io::Error {
    fn from(SendError(item): SendError<T>) -> std::io::Error {
        drop(item);
        std::io::Error::new(std::io::ErrorKind::BrokenPipe, SendError(()))
    }
}

impl<T> fmt::Debug for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TrySendError::Full(_) => f.write_str("Full"),
            TrySendError::Closed(_) => f.write_str("Closed"),
        }
    }
}

impl<T> fmt::Display for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TrySendError::Full(_) => f.write_str("the channel has no room"),
            TrySendError::Closed(_) => f.write_str("the receiver has gone"),
        }
    }
}

impl<T> Error for TrySendError<T> {}
