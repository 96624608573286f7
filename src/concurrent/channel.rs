//! `channel`: a bounded queue between loops.
//!
//! The items are `Send`, the ends may be on any threads, and either end can be awaited in any runtime. A
//! sender that finds the queue full waits, and so does a receiver that finds it empty. Sending wakes the
//! receiver only if that waits, and the inbox of its loop makes one system call of many wake-ups. So a fast
//! stream of items does not cost a wake-up for each, but one for each time that the receiver had caught up.
//!
//! When the receiver takes an item, the place that becomes free is *reserved* for the sender that has waited
//! longest, and that sender is woken. It puts its item there when it is polled, which may be much later, since
//! it has to wake up on a thread of its own. Until then only that one place is kept for it: other senders go
//! on sending into the rest of the room. (If they had to queue behind it, one sender that waits would make
//! all of them wait, each item would need a wake-up, and the threads would take turns instead of running side
//! by side.)
//!
//! Between two coroutines, not even one that was let in is woken at once: to wake a thread takes as long as to
//! receive dozens of items, and a sender that wakes up for one place fills it and sleeps again. So senders are
//! woken when the receiver's loop has ended its turn, or half of the room is free. That cannot be put off for
//! long, and if either side is no coroutine, it is not put off at all.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::panic::Location;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};

use futures::future::FusedFuture;
use futures::stream::{FusedStream, Stream};

use crate::ground::park;
use crate::ground::wait_queue::wake;
use crate::ground::waker::word_of;
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
    /// Senders that wait for room, in the order of their numbers. There is none while there is room.
    waiting: VecDeque<(u64, Waker)>,
    /// The number of the next sender that has to wait.
    next_number: u64,
    /// How many places are reserved for senders that were let in and have not come yet: they have left
    /// `waiting`, but neither sent their items nor been dropped.
    reserved: usize,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A channel between threads, with room for `capacity` items; 0 counts as 1. Between coroutines of one
/// thread, also for items that are not `Send`, there are [`channels`](crate::channels).
///
/// What one sender sends arrives in the order in which it was sent, if each [`send`](Sender::send) is awaited
/// before the next. Among several senders, room is given to those that have waited longest, and nobody takes
/// it before them. But each of them puts its item in when it has woken up, so items of different senders may
/// arrive in another order than the one in which these began to wait.
///
/// A coroutine that waits in `send` is woken when half of the room is free, or when the receiver's coroutine
/// lets others run. Where either is no coroutine of a running loop, each place that becomes free wakes a sender.
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
        reserved: 0,
    };
    let shared = Arc::new(Shared { state: Mutex::new(state), capacity: capacity.max(1) });
    let receiver = Receiver { shared: shared.clone(), to_wake: None, place: Location::caller() };
    (Sender { shared }, receiver)
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
    /// Senders that were let in and are woken later. `None` until there is one.
    to_wake: Option<Arc<ToWake>>,
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
    /// Cancel safe: an item whose `send` is dropped before it has ended is not sent, but dropped with it. Room
    /// that was already reserved for it goes to the next sender. (One that is kept, but not polled any more,
    /// keeps its place from the others.)
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
        if !state.has_room(self.shared.capacity) {
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
    /// Its number, if it had to wait, until it has sent its item: it is in `State::waiting`, or it was let in
    /// and counts in `State::reserved`.
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
        let may_send = match self.number {
            None => state.has_room(self.shared.capacity),
            Some(number) => state.has_let_in(number),
        };
        if state.receiver_has_gone || may_send {
            let Some(item) = self.item.take() else { return Poll::Pending };
            if self.number.take().is_some() {
                state.reserved -= 1;
            }
            let (receiver, sent) = if state.receiver_has_gone {
                (None, Err(SendError(item)))
            } else {
                (state.push(item), Ok(()))
            };
            drop(state);
            wake(receiver);
            foreign::discard(waker);
            return Poll::Ready(sent);
        }
        let Some(waker) = waker else { return Poll::Pending };
        let before = match self.number {
            None => {
                let number = state.next_number;
                state.next_number += 1;
                state.waiting.push_back((number, waker));
                self.number = Some(number);
                None
            }
            Some(number) => {
                let at = state.place_of(number);
                at.map(|at| std::mem::replace(&mut state.waiting[at].1, waker))
            }
        };
        drop(state);
        foreign::discard(before);
        Poll::Pending
    }
}

impl<T> State<T> {
    /// Whether there is room that is not reserved.
    fn has_room(&self, capacity: usize) -> bool {
        self.items.len() + self.reserved < capacity
    }

    /// Whether a sender that had to wait has a place reserved for it. Senders are let in one after the other,
    /// so these are the ones whose numbers come before that of the first who still waits.
    fn has_let_in(&self, number: u64) -> bool {
        number < self.waiting.front().map_or(self.next_number, |(first, _)| *first)
    }

    /// Where in `waiting` a sender is that was not let in yet.
    fn place_of(&self, number: u64) -> Option<usize> {
        self.waiting.binary_search_by_key(&number, |(number, _)| *number).ok()
    }

    /// To be called when a place may have become free. Reserves it for the sender that has waited longest, and
    /// gives that sender's waker: the caller wakes it when it holds no lock.
    fn let_in(&mut self, capacity: usize) -> Option<Waker> {
        if !self.has_room(capacity) {
            return None;
        }
        let (_, waker) = self.waiting.pop_front()?;
        self.reserved += 1;
        Some(waker)
    }
}

impl<T> Drop for Sending<'_, T> {
    fn drop(&mut self) {
        foreign::discard(self.item.take());
        let Some(number) = self.number else { return };
        let mut state = self.shared.lock();
        let (mut gone, mut next) = (None, None);
        match state.place_of(number) {
            Some(at) => gone = state.waiting.remove(at),
            None => {
                state.reserved -= 1;
                next = state.let_in(self.shared.capacity);
            }
        }
        drop(state);
        wake(next);
        foreign::discard(gone);
    }
}

/// Senders that were let in and are to be woken together.
#[derive(Default)]
struct ToWake(Mutex<Vec<Waker>>);

impl ToWake {
    /// Has `sender` woken when the resumptions of this turn have ended, if nobody wakes them before.
    fn add(self: &Arc<Self>, sender: Waker) {
        let mut senders = self.lock();
        senders.push(sender);
        if senders.len() == 1 {
            resumption::defer(Waker::from(self.clone()));
        }
    }

    fn wake_all(&self) {
        let senders = std::mem::take(&mut *self.lock());
        foreign::wake_all(senders);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The loop wakes it like a coroutine.
impl Wake for ToWake {
    fn wake(self: Arc<Self>) {
        self.wake_all();
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
        let next = state.let_in(self.shared.capacity);
        let is_half_free = state.items.len() <= self.shared.capacity / 2;
        drop(state);
        self.wake(next, is_half_free);
        item
    }

    /// Wakes a sender that was let in, or has it woken later.
    fn wake(&mut self, sender: Option<Waker>, is_half_free: bool) {
        if let Some(sender) = sender {
            if is_half_free || !resumption::is_by_a_loop() || word_of(&sender).is_none() {
                foreign::wake(sender);
            } else {
                self.to_wake.get_or_insert_default().add(sender);
            }
        }
        if is_half_free {
            self.to_wake.iter().for_each(|to_wake| to_wake.wake_all());
        }
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
        let next = state.let_in(self.shared.capacity);
        let is_half_free = state.items.len() <= self.shared.capacity / 2;
        drop(state);
        self.wake(next, is_half_free);
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
        // All that wait are let in, and find that the receiver has gone.
        let waiting = std::mem::take(&mut state.waiting);
        state.reserved += waiting.len();
        drop(state);
        self.to_wake.iter().for_each(|to_wake| to_wake.wake_all());
        foreign::wake_all(waiting.into_iter().map(|(_, waker)| waker));
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
