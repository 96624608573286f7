//! Items from many senders, for one receiver. tokio: `sync::mpsc`.
//!
//! It is a [`Queue`] that is closed when either side has gone. So an item goes straight to a receiver that
//! waits, and takes no room then; senders that wait for room are served first in first out, and nobody
//! barges in between.
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

/// A channel with room for `capacity` items, at least one.
///
/// Who uses the receiver as a stream, or a sender as a sink, waits where this was called.
#[track_caller]
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    over(Queue::new(capacity.max(1)))
}

/// A channel in which there is always room: sending never waits, and nothing holds a sender back that is
/// faster than its receiver.
#[track_caller]
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    over(Queue::new(0))
}

fn over<T>(queue: Queue<T>) -> (Sender<T>, Receiver<T>) {
    let ends = Rc::new(Ends { senders: Cell::new(1), closed: Event::new() });
    let receiver = Receiver { queue: queue.clone(), ends: ends.clone() };
    (Sender { queue, ends }, receiver)
}

struct Ends {
    /// How many there are; the last one closes the queue.
    senders: Cell<usize>,
    /// Set when the receiver has gone, or has closed the channel.
    closed: Event,
}

/// The sending end; a clone sends into the same channel.
///
/// When the last one is dropped, the receiver gets what is left, and then the end. A [`send`](Sender::send)
/// that waits is a sender, too.
pub struct Sender<T> {
    queue: Queue<T>,
    ends: Rc<Ends>,
}

/// The receiving end, and a stream of what it receives.
///
/// When it is dropped, what it has not received is dropped, and senders get their items back, also those
/// who wait.
pub struct Receiver<T> {
    queue: Queue<T>,
    ends: Rc<Ends>,
}

impl<T> Sender<T> {
    /// Sends an item, waiting for room.
    ///
    /// Cancel safe: an item whose `send` was dropped before there was room is not sent.
    ///
    /// # Errors
    ///
    /// [`SendError`] with the item, if the receiver has gone or has closed the channel, or does so while
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

    /// Waits until the receiver has gone, or has closed the channel: nobody wants any more. Cancel safe.
    #[track_caller]
    pub fn closed(&self) -> impl FusedFuture<Output = ()> + use<T> {
        self.ends.closed.wait()
    }

    /// Whether the receiver has gone, or has closed the channel.
    pub fn is_closed(&self) -> bool {
        self.ends.closed.is_set()
    }

    /// How many items there is room for now. tokio: `capacity`.
    pub fn capacity(&self) -> usize {
        self.max_capacity().saturating_sub(self.queue.qsize())
    }

    /// How many items there is room for when none is in it; [`usize::MAX`] if that is without limit.
    pub fn max_capacity(&self) -> usize {
        match self.queue.maxsize() {
            0 => usize::MAX,
            maxsize => maxsize,
        }
    }
}

impl<T> Receiver<T> {
    /// Receives an item, waiting for one; `None` when every sender has gone, or [`close`](Receiver::close)
    /// was called, and nothing is left.
    ///
    /// Cancel safe: an item that a dropped `recv` had got is the next one again.
    #[track_caller]
    pub fn recv(&mut self) -> impl FusedFuture<Output = Option<T>> {
        self.queue.get().map(Result::ok)
    }

    /// [`recv`](Receiver::recv) as a poll function. It goes on waiting when its task does not: what comes
    /// meanwhile is for the next call of any of these.
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

    /// Nothing can be sent any more, and what has been can still be received. Senders that wait get their
    /// items back.
    pub fn close(&mut self) {
        self.queue.close();
        self.ends.closed.set();
    }

    /// Whether nothing can be sent any more: it was closed, or every sender has gone.
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    /// How many items are in it, without one that has been given to a [`poll_recv`](Receiver::poll_recv)
    /// that waits.
    pub fn len(&self) -> usize {
        self.queue.qsize()
    }

    /// Whether nothing is in it; see [`len`](Receiver::len).
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.ends.senders.set(self.ends.senders.get() + 1);
        Sender { queue: self.queue.clone(), ends: self.ends.clone() }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let left = self.ends.senders.get() - 1;
        self.ends.senders.set(left);
        if left == 0 {
            self.queue.close();
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.close();
        // Senders keep the queue, so what is in it would stay as long as they do.
        while let Ok(item) = self.try_recv() {
            foreign::discard(item);
        }
    }
}

/// The end comes when every sender has gone.
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

/// Sends items. Each sender can hold one for which there is no room yet, which is dropped with it; flushing
/// waits until that is sent. Closing only flushes: the channel ends when every sender was dropped.
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
        let senders = self.ends.senders.get();
        f.debug_struct("Sender").field("senders", &senders).field("queue", &self.queue).finish()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let senders = self.ends.senders.get();
        f.debug_struct("Receiver").field("senders", &senders).field("queue", &self.queue).finish()
    }
}
