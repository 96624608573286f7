//! Items from many senders, for one receiver. tokio: `sync::mpsc`.
//!
//! It is a [`Queue`] that is closed when the receiver, or the last sender, has gone. So an item goes
//! straight to the receiver if that waits, and takes up no room in the channel then. Senders that wait for
//! room are served first in first out, and one that comes in between cannot overtake them.
//!
//! ```
//! use waterspout::{IoLoop, channels::mpsc, coroutine};
//!
//! IoLoop::new()?.run_sync(|| async {
//!     let (sender, mut receiver) = mpsc::channel(2);
//!     for name in ["one", "two"] {
//!         let sender = sender.clone();
//!         coroutine::start(async move {
//!             for n in 1..=3 {
//!                 sender.send((name, n)).await.unwrap(); // waits while two are on their way
//!             }
//!         });
//!     }
//!     drop(sender); // the others have clones
//!     let mut received = Vec::new();
//!     while let Some(item) = receiver.recv().await {
//!         received.push(item);
//!     }
//!     assert_eq!(received.len(), 6);
//! })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::cell::Cell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::FusedFuture;
use futures::sink::Sink;
use futures::stream::{FusedStream, Stream};

use super::{SendError, TryRecvError, TrySendError};
use crate::ground::foreign;
use crate::locks::Event;
use crate::queues::{Queue, QueueClosed, QueueEmpty, QueueFull};

/// A channel with room for `capacity` items; 0 counts as 1.
///
/// A coroutine that uses the receiver as a stream, or a sender as a sink, is listed as waiting at the line
/// where this was called.
#[track_caller]
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    over(Queue::new(capacity.max(1)))
}

/// A channel in which there is always room: sending never waits. So nothing slows down a sender that is
/// faster than the receiver, and the channel may grow without limit.
#[track_caller]
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    over(Queue::new(0))
}

fn over<T>(queue: Queue<T>) -> (Sender<T>, Receiver<T>) {
    let shared = Rc::new(Shared { senders: Cell::new(1), closed: Event::new() });
    let receiver = Receiver { queue: queue.clone(), shared: shared.clone() };
    (Sender { queue, shared }, receiver)
}

/// What the ends of a channel share, beside the queue.
struct Shared {
    /// How many senders there are; the last one closes the queue.
    senders: Cell<usize>,
    /// Set when the receiver has gone, or has closed the channel. `Sender::closed` waits for it.
    closed: Event,
}

/// The sending end; a clone sends into the same channel.
///
/// When the last sender is dropped, the receiver gets what was sent, and then learns that it was all. A
/// [`send`](Sender::send) that still waits counts as a sender.
pub struct Sender<T> {
    queue: Queue<T>,
    shared: Rc<Shared>,
}

/// The receiving end, and a stream of what it receives.
///
/// When it is dropped, the items that it has not received are dropped. From then on senders get their items
/// back with an error, also those that wait for room.
pub struct Receiver<T> {
    queue: Queue<T>,
    shared: Rc<Shared>,
}

impl<T> Sender<T> {
    /// Sends an item, and waits for room if there is none.
    ///
    /// Cancel safe: an item whose `send` is dropped before there was room is not sent, but dropped with it.
    ///
    /// # Errors
    ///
    /// [`SendError`] with the item, if the receiver has gone or has closed the channel, be it before or while
    /// this waits.
    #[track_caller]
    pub fn send(&self, item: T) -> impl FusedFuture<Output = Result<(), SendError<T>>> + use<T> {
        let sender = self.clone();
        self.queue.put(item).map(move |sent| {
            drop(sender);
            sent.map_err(|QueueClosed(item)| SendError(item))
        })
    }

    /// Sends an item if there is room.
    ///
    /// # Errors
    ///
    /// [`TrySendError`] with the item, which tells whether there may be room later.
    pub fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        self.queue.put_nowait(item).map_err(|full| match full {
            QueueFull::ForNow(item) => TrySendError::Full(item),
            QueueFull::Closed(item) => TrySendError::Closed(item),
        })
    }

    /// Waits until nobody wants items any more: the receiver has gone, or has closed the channel. Cancel
    /// safe.
    #[track_caller]
    pub fn closed(&self) -> impl FusedFuture<Output = ()> + use<T> {
        self.shared.closed.wait()
    }

    /// Whether the receiver has gone, or has closed the channel.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.is_set()
    }

    /// For how many items there is room now; [`usize::MAX`] if the channel is unbounded. tokio: `capacity`.
    pub fn capacity(&self) -> usize {
        self.max_capacity().saturating_sub(self.queue.qsize())
    }

    /// For how many items there is room when the channel is empty; [`usize::MAX`] if it is unbounded.
    pub fn max_capacity(&self) -> usize {
        match self.queue.maxsize() {
            0 => usize::MAX,
            maxsize => maxsize,
        }
    }
}

impl<T> Receiver<T> {
    /// Receives an item, and waits for one if there is none. `None` when there will be none any more: every
    /// sender has gone, or [`close`](Receiver::close) was called, and nothing is left in the channel.
    ///
    /// Cancel safe: if a `recv` is dropped that had been given an item, the next one gets that item.
    #[track_caller]
    pub fn recv(&mut self) -> impl FusedFuture<Output = Option<T>> {
        self.queue.get().map(Result::ok)
    }

    /// [`recv`](Receiver::recv) as a poll function. The receiver goes on waiting even if its caller stops
    /// polling: an item that comes meanwhile is kept for the next call that receives, whichever it is.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        Pin::new(&mut self.queue).poll_next(cx)
    }

    /// Receives an item if there is one.
    ///
    /// # Errors
    ///
    /// [`TryRecvError`], which tells whether there may be one later.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        self.queue.get_nowait().map_err(|empty| match empty {
            QueueEmpty::ForNow => TryRecvError::Empty,
            QueueEmpty::Closed => TryRecvError::Closed,
        })
    }

    /// Closes the channel: nothing can be sent any more, but what was sent can still be received. Senders
    /// that wait for room get their items back with an error.
    pub fn close(&mut self) {
        self.queue.close();
        self.shared.closed.set();
    }

    /// Whether nothing can be sent any more: the channel was closed, or every sender has gone.
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    /// How many items are in the channel. An item that was given to a waiting
    /// [`poll_recv`](Receiver::poll_recv) does not count.
    pub fn len(&self) -> usize {
        self.queue.qsize()
    }

    /// Whether no item is in the channel, as [`len`](Receiver::len) counts them.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.shared.senders.set(self.shared.senders.get() + 1);
        Sender { queue: self.queue.clone(), shared: self.shared.clone() }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let left = self.shared.senders.get() - 1;
        self.shared.senders.set(left);
        if left == 0 {
            self.queue.close();
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.close();
        // The senders keep the queue alive. Without this the items in it would live as long as they do.
        while let Ok(item) = self.try_recv() {
            foreign::discard(item);
        }
    }
}

/// The stream ends when every sender has gone, or the channel was closed, and all items are received.
impl<T> Stream for Receiver<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.poll_recv(cx)
    }
}

impl<T> FusedStream for Receiver<T> {
    fn is_terminated(&self) -> bool {
        self.queue.is_terminated()
    }
}

/// Sends items. Each sender can hold one item for which there is no room yet; flushing waits until that item
/// is sent, and if the sender is dropped before, the item is dropped with it. Closing the sink only flushes
/// it: the channel ends when every sender is dropped.
impl<T> Sink<T> for Sender<T> {
    type Error = SendError<T>;

    fn poll_ready(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SendError<T>>> {
        let ready = Pin::new(&mut self.queue).poll_ready(cx);
        ready.map_err(|QueueClosed(item)| SendError(item))
    }

    fn start_send(mut self: Pin<&mut Self>, item: T) -> Result<(), SendError<T>> {
        let sent = Pin::new(&mut self.queue).start_send(item);
        sent.map_err(|QueueClosed(item)| SendError(item))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError<T>>> {
        self.poll_ready(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError<T>>> {
        self.poll_ready(cx)
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let senders = self.shared.senders.get();
        f.debug_struct("Sender").field("senders", &senders).field("queue", &self.queue).finish()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let senders = self.shared.senders.get();
        f.debug_struct("Receiver").field("senders", &senders).field("queue", &self.queue).finish()
    }
}
