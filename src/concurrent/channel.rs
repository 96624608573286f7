//! `channel`: a bounded queue between loops.
//!
//! The items are `Send`, the ends may be on any threads, and either end can be awaited in any runtime. A
//! sender that finds the queue full waits, and so does a receiver that finds it empty. Sending wakes the
//! receiver only if that waits, and the inbox of its loop makes one system call of many wake-ups. So a fast
//! stream of items does not cost a wake-up for each, but one for each time that the receiver had caught up.

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
    /// How many senders there are. When none is left and `items` is empty, receiving ends.
    senders: usize,
    receiver_has_gone: bool,
    /// The waker of the receiver, while that waits.
    receiver: Option<Waker>,
    /// Senders that wait for room, in the order of their numbers: first in first out. A sender that was woken
    /// stays in the list until it is polled, but its waker is gone, so that nobody wakes it twice.
    waiting: VecDeque<(u64, Option<Waker>)>,
    /// The number of the next sender that waits.
    next_number: u64,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A channel between threads, with room for `capacity` items; 0 counts as 1. Between coroutines of one
/// thread, also for items that are not `Send`, there are [`channels`](crate::channels).
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
        receiver_has_gone: false,
        receiver: None,
        waiting: VecDeque::new(),
        next_number: 0,
    };
    let shared = Arc::new(Shared { state: Mutex::new(state), capacity: capacity.max(1) });
    (Sender { shared: shared.clone() }, Receiver { shared, place: Location::caller() })
}

/// The sending end; a clone sends into the same channel. When the last sender is dropped, the receiver gets
/// what was sent, and then learns that it was all.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

/// The receiving end, and a stream of what it receives. When it is dropped, the items in the channel are
/// dropped, and from then on senders get their items back with an error.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    /// Where the channel was made. A coroutine that uses this as a stream is listed as waiting here.
    place: &'static Location<'static>,
}

/// The item was not sent, since the receiver has gone. Here it is back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SendError<T>(
    /// The item that was not sent.
    pub T,
);

/// The item was not sent; here it is back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// There is no room now.
    Full(T),
    /// The receiver has gone.
    Closed(T),
}

impl<T> TrySendError<T> {
    /// The item that was not sent.
    pub fn into_inner(self) -> T {
        match self {
            TrySendError::Full(item) | TrySendError::Closed(item) => item,
        }
    }
}

impl<T: Send> Sender<T> {
    /// Sends an item, and waits for room if there is none.
    ///
    /// Cancel safe: an item whose `send` is dropped before there was room is not sent, but dropped with it.
    ///
    /// # Errors
    ///
    /// [`SendError`] with the item, if the receiver has gone.
    #[track_caller]
    pub fn send(&self, item: T) -> impl FusedFuture<Output = Result<(), SendError<T>>> {
        let mut sending = Sending { shared: &self.shared, item: Some(item), number: None };
        resumption::here(poll_fn(move |cx| sending.poll(cx)))
    }

    /// Sends an item, and blocks this thread until there is room. It is for threads that run no loop: a loop
    /// would stand still meanwhile.
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
    /// [`TrySendError`] with the item, which tells whether there may be room later.
    pub fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        let mut state = self.shared.lock();
        if state.receiver_has_gone {
            return Err(TrySendError::Closed(item));
        }
        // While others wait, the room is for them, also if there is some already.
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
        self.shared.lock().receiver_has_gone
    }
}

impl<T> State<T> {
    /// Adds an item, and gives the waker of the receiver if that waits: the caller wakes it when it holds no
    /// lock.
    fn push(&mut self, item: T) -> Option<Waker> {
        self.items.push_back(item);
        self.receiver.take()
    }
}

/// The future of a [`Sender::send`].
struct Sending<'a, T> {
    shared: &'a Shared<T>,
    /// `None` once it was sent.
    item: Option<T>,
    /// Its number in `State::waiting`, while it waits for room.
    number: Option<u64>,
}

// The item is moved, never pinned.
impl<T> Unpin for Sending<'_, T> {}

impl<T> Sending<'_, T> {
    fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<(), SendError<T>>> {
        ready!(resumption::poll_proceed(cx));
        match self.send_or_wait(None) {
            // It has to wait, for which it needs a waker. Cloning one runs foreign code, which must not find
            // the channel locked. There may be room by the time that is done, so this looks once more.
            Poll::Pending => self.send_or_wait(Some(cx.waker().clone())),
            sent => sent,
        }
    }

    /// Sends the item if there is room. If not, it waits to be woken by `waker`; without a waker it only says
    /// that it would have to wait.
    fn send_or_wait(&mut self, waker: Option<Waker>) -> Poll<Result<(), SendError<T>>> {
        let mut state = self.shared.lock();
        // Room is for the first sender that waits. If none waits, it is for anybody.
        let is_first = match self.number {
            None => state.waiting.is_empty(),
            Some(number) => state.waiting.front().is_none_or(|(first, _)| *first >= number),
        };
        let has_room = is_first && state.items.len() < self.shared.capacity;
        if state.receiver_has_gone || has_room {
            let Some(item) = self.item.take() else { return Poll::Pending };
            if state.receiver_has_gone {
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
                let number = state.next_number;
                state.next_number += 1;
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
    /// The waker of the first sender that waits, if there is room for its item. `None` if that sender was
    /// woken already. The caller wakes it when it holds no lock.
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
        // This sender may have been woken to send into room that became free. Then the next one has to be
        // woken in its stead, or the room would stay unused.
        let next = state.next_to_send(self.shared.capacity);
        drop(state);
        wake(next);
        foreign::discard(gone);
    }
}

impl<T: Send> Receiver<T> {
    /// Receives an item, and waits for one if there is none. `None` when all senders have gone and nothing is
    /// left.
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

    /// Receives an item, or learns that there will be none any more. If neither is so, it waits to be woken
    /// by `waker`; without a waker it only says that it would have to wait. (It is called twice, as
    /// `send_or_wait` is, since a waker must not be cloned while the channel is locked.)
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
        state.receiver_has_gone = true;
        let items = std::mem::take(&mut state.items);
        let receiver = state.receiver.take();
        // Senders that wait are woken, find that the receiver has gone, and leave the list themselves.
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

/// The item is dropped: the error that `?` passes on says only that the receiver has gone. Its kind is
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
