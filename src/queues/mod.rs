//! Queues between the coroutines of one thread. Tornado's `queues`.
//!
//! A [`Queue`] gives its items first in first out, a [`PriorityQueue`] the least item first, a
//! [`LifoQueue`] the last item first. All three are [`QueueOver`], each over another [`Store`]. Each is a
//! handle: a clone is the same queue.
//!
//! Queues are fair: an item that is put goes straight to the getter that has waited longest, and when an
//! item is got, the putter that has waited longest puts its own in the room that became free; nobody who
//! comes in between can overtake them. A waiter that is dropped leaves the queue: an item whose putter is
//! dropped before there was room is never put; an item whose getter is dropped is given to the next
//! getter, or goes back to where it was.
//!
//! Queues belong to no loop, are not `Send`, and can have as many waiters as [locks](crate::locks) can.
//! Where putters and getters are to learn that the other side has gone, use [`channels`](crate::channels).
//!
//! A handle is also a [`Stream`] of the items, which ends when the queue is closed and empty, and a
//! [`Sink`] for them, for the combinators of the `futures` crate. (Tornado's `async for` over a queue
//! never ends; here [`close`](QueueOver::close) ends it.)
//!
//! ```
//! use futures::{SinkExt, StreamExt};
//! use waterspout::{IoLoop, queues::Queue};
//!
//! # IoLoop::new()?.run_sync(|| async {
//! let mut queue = Queue::new(0);
//! for n in 1..=3 {
//!     queue.send(n).await.unwrap();
//! }
//! queue.close();
//! assert_eq!(queue.map(|n| n * n).collect::<Vec<_>>().await, [1, 4, 9]);
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod store;

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt;
use std::panic::Location;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use futures::future::FusedFuture;
use futures::sink::Sink;
use futures::stream::{FusedStream, Stream};

use crate::ground::wait_queue::{Left, Queued, WaitQueue, Waiting, wake};
use crate::ground::{foreign, resumption};
use crate::locks::Event;
pub use store::{Fifo, Lifo, Priority, Store};

/// First in first out. Tornado: `queues.Queue`.
///
/// ```
/// use waterspout::{IoLoop, coroutine, queues::Queue};
///
/// let io_loop = IoLoop::new()?;
/// io_loop.run_sync(|| async {
///     let queue = Queue::new(2);
///     let puts = queue.clone();
///     coroutine::start(async move {
///         for n in 0..5 {
///             puts.put(n).await.unwrap(); // waits while two are in it
///         }
///         puts.close();
///     });
///     let mut seen = Vec::new();
///     while let Ok(n) = queue.get().await {
///         seen.push(n);
///         queue.task_done().unwrap();
///     }
///     assert_eq!(seen, [0, 1, 2, 3, 4]);
///     queue.join().await; // all that was put is done
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type Queue<T> = QueueOver<Fifo<T>>;

/// The least first; use [`std::cmp::Reverse`] for the greatest. Tornado: `queues.PriorityQueue`.
///
/// The items' `Ord` may use the queue itself, but finds nothing to get in it while items are compared. If
/// `Ord` panics, that is reported to [`Builder::on_exception`](crate::Builder::on_exception) and the two
/// items count as equal: neither is lost, but they may come in another order than they should.
pub type PriorityQueue<T> = QueueOver<Priority<T>>;

/// Last in first out. Tornado: `queues.LifoQueue`.
pub type LifoQueue<T> = QueueOver<Lifo<T>>;

/// A queue over a [`Store`]; see [`Queue`].
pub struct QueueOver<S: Store> {
    inner: Rc<Inner<S>>,
    /// Where the queue was made. A coroutine that uses a handle as a stream or a sink is said to wait here,
    /// for there is no better line: its waits are made by combinators.
    place: &'static Location<'static>,
    /// As a stream: the wait for an item that `poll_next` has begun.
    getting: RefCell<Option<Getting<S>>>,
    /// As a sink: the item that waits for room. It is boxed, so that an item's type may contain a handle
    /// of the queue that it is put into.
    putting: Option<Box<Putting<S>>>,
}

struct Inner<S: Store> {
    store: S,
    maxsize: usize,
    closed: Cell<bool>,
    /// Getters that wait for an item. Whoever puts one gives it to the first of them.
    getters: WaitQueue<Given<S::Item>>,
    /// Putters that wait for room, each with its item. Whoever makes room puts the item of the first.
    putters: WaitQueue<Brought<S::Item>>,
    /// For how many items that were put `task_done` was not called yet.
    unfinished: Cell<usize>,
    /// Set while `unfinished` is 0. `join` waits for it.
    finished: Event,
}

/// What a getter is given: an item, and the number by which it goes back to where it was if the getter is
/// dropped.
struct Given<T>(u64, T);

/// The item that a waiting putter has brought.
struct Brought<T>(T);

impl<S: Store> Queued<Given<S::Item>> for Inner<S> {
    fn waiters(&self) -> &WaitQueue<Given<S::Item>> {
        &self.getters
    }

    fn hand_on(&self, Given(number, item): Given<S::Item>) {
        self.store.give_back(number, item);
        self.serve();
    }
}

impl<S: Store> Queued<Brought<S::Item>> for Inner<S> {
    fn waiters(&self) -> &WaitQueue<Brought<S::Item>> {
        &self.putters
    }
}

/// The item was not put; here it is back. From [`put_nowait`](QueueOver::put_nowait).
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum QueueFull<T> {
    /// There is no room now, but there may be later.
    ForNow(T),
    /// The queue is closed, so nothing can be put any more.
    Closed(T),
}

impl<T> QueueFull<T> {
    /// The item that was not put.
    pub fn into_item(self) -> T {
        match self {
            QueueFull::ForNow(item) | QueueFull::Closed(item) => item,
        }
    }
}

/// There is nothing to get. From [`get_nowait`](QueueOver::get_nowait).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueEmpty {
    /// There is nothing now, but there may be something later.
    ForNow,
    /// The queue is closed, so there will be nothing any more.
    Closed,
}

/// The queue is closed. From [`put`](QueueOver::put), with the item, and from [`get`](QueueOver::get).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct QueueClosed<T = ()>(
    /// The item that was not put.
    pub T,
);

/// [`task_done`](QueueOver::task_done) was called more often than items were put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskDoneTooOften;

impl<S: Store> QueueOver<S> {
    /// A queue with room for `maxsize` items; 0 stands for no limit.
    #[track_caller]
    pub fn new(maxsize: usize) -> QueueOver<S> {
        let finished = Event::new();
        finished.set();
        let inner = Inner {
            store: S::default(),
            maxsize,
            closed: Cell::new(false),
            getters: WaitQueue::new(),
            putters: WaitQueue::new(),
            unfinished: Cell::new(0),
            finished,
        };
        QueueOver::handle(Rc::new(inner), Location::caller())
    }

    fn handle(inner: Rc<Inner<S>>, place: &'static Location<'static>) -> QueueOver<S> {
        QueueOver { inner, place, getting: RefCell::new(None), putting: None }
    }

    /// For how many items it has room in all; 0 stands for no limit.
    pub fn maxsize(&self) -> usize {
        self.inner.maxsize
    }

    /// How many items are in it. Tornado: `qsize`.
    pub fn qsize(&self) -> usize {
        self.inner.store.size()
    }

    /// Whether nothing is in it. Tornado: `empty`.
    pub fn is_empty(&self) -> bool {
        self.qsize() == 0
    }

    /// Whether there is no room. Tornado: `full`.
    pub fn is_full(&self) -> bool {
        self.inner.is_full()
    }

    /// Puts an item, and waits for room if there is none. Tornado: `put`.
    ///
    /// Cancel safe: an item whose `put` is dropped before there was room is not put, but dropped with it.
    ///
    /// # Errors
    ///
    /// [`QueueClosed`] with the item, if the queue is closed, or is closed while this waits.
    #[track_caller]
    pub fn put(
        &self,
        item: S::Item,
    ) -> impl FusedFuture<Output = Result<(), QueueClosed<S::Item>>> + use<S> {
        let mut putting = self.putting(item, Location::caller());
        resumption::fused(std::future::poll_fn(move |cx| putting.poll(cx)))
    }

    /// Gets an item, and waits for one if there is none. Tornado: `get`.
    ///
    /// Cancel safe: if a `get` is dropped that had been given an item, the next getter gets that item, or it
    /// goes back to where it was.
    ///
    /// # Errors
    ///
    /// [`QueueClosed`] if the queue is closed and empty, or becomes so while this waits.
    #[track_caller]
    pub fn get(&self) -> impl FusedFuture<Output = Result<S::Item, QueueClosed>> + use<S> {
        let mut getting = self.getting(Location::caller());
        resumption::fused(std::future::poll_fn(move |cx| getting.poll(cx)))
    }

    fn putting(&self, item: S::Item, place: &'static Location<'static>) -> Putting<S> {
        let waiting = Waiting::at(place, self.inner.clone());
        Putting { waiting, item: Some(Brought(item)) }
    }

    /// The wait for an item that a dropped `next` of this handle has begun, or else a new one. So whoever
    /// asks the handle next has that `next`'s position among the getters, and an item that has come for it.
    fn getting(&self, place: &'static Location<'static>) -> Getting<S> {
        let fresh = || Getting { waiting: Waiting::at(place, self.inner.clone()) };
        self.getting.take().unwrap_or_else(fresh)
    }

    /// Puts an item if there is room. Tornado: `put_nowait`.
    ///
    /// # Errors
    ///
    /// [`QueueFull`] with the item. It tells whether there may be room later.
    pub fn put_nowait(&self, item: S::Item) -> Result<(), QueueFull<S::Item>> {
        if self.inner.closed.get() {
            return Err(QueueFull::Closed(item));
        }
        if self.inner.is_full() {
            return Err(QueueFull::ForNow(item));
        }
        self.inner.put(item);
        Ok(())
    }

    /// Gets an item if there is one. Tornado: `get_nowait`.
    ///
    /// # Errors
    ///
    /// [`QueueEmpty`], which tells whether there may be an item later.
    pub fn get_nowait(&self) -> Result<S::Item, QueueEmpty> {
        let begun = self.getting.take();
        let item = begun.map_or_else(|| self.inner.get(), Getting::into_item);
        item.ok_or_else(|| {
            if self.inner.closed.get() { QueueEmpty::Closed } else { QueueEmpty::ForNow }
        })
    }

    /// Says that one of the items that were got has been dealt with: [`join`](QueueOver::join) waits for
    /// that. Tornado: `task_done`.
    ///
    /// # Errors
    ///
    /// [`TaskDoneTooOften`] if it is called more often than items were put.
    pub fn task_done(&self) -> Result<(), TaskDoneTooOften> {
        let left = self.inner.unfinished.get().checked_sub(1).ok_or(TaskDoneTooOften)?;
        self.inner.unfinished.set(left);
        if left == 0 {
            self.inner.finished.set();
        }
        Ok(())
    }

    /// Waits until every item that was put has been dealt with: not just until the queue is empty, but until
    /// [`task_done`](QueueOver::task_done) was called as often as items were put. Cancel safe. Tornado:
    /// `join`.
    #[track_caller]
    pub fn join(&self) -> impl FusedFuture<Output = ()> + use<S> {
        self.inner.finished.wait()
    }

    /// Closes the queue: nothing can be put any more, but what is in it can still be got. Waiting putters
    /// get their items back with an error, waiting getters get an error. Tornado has no such call.
    pub fn close(&self) {
        self.inner.closed.set(true);
        self.inner.wake_all();
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.inner.closed.get()
    }
}

impl<S: Store> Inner<S> {
    /// Whether a putter has to wait. The putters that wait already need not be looked at: whoever gets an
    /// item lets the first of them in at once, so that there never is room which a newcomer could take from
    /// them.
    fn is_full(&self) -> bool {
        self.maxsize > 0 && self.store.size() >= self.maxsize
    }

    /// Puts an item for which there is room, and serves a getter that waits.
    fn put(&self, item: S::Item) {
        self.unfinished.set(self.unfinished.get() + 1);
        self.finished.clear();
        self.store.push(item);
        self.serve();
    }

    /// Gives the next item to the first getter that waits, if there are both.
    fn serve(&self) {
        if self.getters.is_empty() {
            return;
        }
        let Some((number, item)) = self.store.lend() else { return };
        let mut next = Some(Given(number, item));
        match self.getters.take_first(|given| *given = next.take()) {
            Some(getter) => foreign::wake(getter),
            // A getter was there before `lend`. But `lend` compares items, and their `Ord` is foreign code: it
            // has put an item, which served the getter, or closed the queue, which woke all getters.
            None => {
                if let Some(Given(number, item)) = next {
                    self.store.give_back(number, item);
                }
            }
        }
        self.serve_more();
    }

    /// Serves those that have begun to wait while items were compared. The queue looks empty just then, so
    /// that a `get` within the items' `Ord` waits; without this it would go on waiting, although there are
    /// items.
    #[inline]
    fn serve_more(&self) {
        if S::COMPARES && !self.getters.is_empty() {
            self.serve();
        }
    }

    /// Gets the next item, and puts the item of the first putter that waits. The latter is put first, so
    /// that in a [`PriorityQueue`] or a [`LifoQueue`] it may be the next one itself, as in Tornado.
    fn get(&self) -> Option<S::Item> {
        // There may be more items than `maxsize`: a getter that was dropped has given its item back when the
        // room had been filled again. Then taking one item makes no room for another.
        let has_room = self.store.size() <= self.maxsize;
        let putter = if has_room { self.let_in() } else { None };
        let item = self.store.pop();
        wake(putter);
        self.serve_more();
        item
    }

    /// Puts the item of the first putter that waits, and gives its waker: the caller has to wake it.
    #[inline]
    fn let_in(&self) -> Option<Waker> {
        let mut next = None;
        let putter = self.putters.take_first(|item| next = item.take());
        if let Some(Brought(next)) = next {
            self.put(next);
        }
        putter
    }

    fn wake_all(&self) {
        self.getters.wake_all();
        self.putters.wake_all();
    }
}

impl<S: Store> Drop for Inner<S> {
    fn drop(&mut self) {
        self.store.clear();
    }
}

/// Somebody who puts an item.
struct Putting<S: Store> {
    waiting: Waiting<Inner<S>, Brought<S::Item>>,
    /// The item, until it is put. While this waits for room, the item waits in `putters` instead.
    item: Option<Brought<S::Item>>,
}

impl<S: Store> Putting<S> {
    fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<(), QueueClosed<S::Item>>> {
        if self.item.is_none() {
            // This waits, and is ready when somebody has woken it. If that was somebody who made room, they
            // have taken the item out of `putters` and put it. If the item is still there, it was `close`.
            let left = ready!(self.waiting.poll(cx));
            return Poll::Ready(left.map_or(Ok(()), |Brought(item)| Err(QueueClosed(item))));
        }
        ready!(resumption::poll_proceed(cx));
        let need_not = |inner: &Inner<S>| inner.closed.get() || !inner.is_full();
        if !need_not(self.waiting.queued()) && self.waiting.join(cx, &mut self.item, need_not) {
            return Poll::Pending;
        }
        let inner = self.waiting.queued();
        match self.item.take() {
            Some(Brought(item)) if inner.closed.get() => Poll::Ready(Err(QueueClosed(item))),
            Some(Brought(item)) => {
                inner.put(item);
                Poll::Ready(Ok(()))
            }
            None => Poll::Ready(Ok(())),
        }
    }
}

impl<S: Store> Drop for Putting<S> {
    fn drop(&mut self) {
        foreign::discard(self.item.take());
    }
}

/// Somebody who gets an item.
struct Getting<S: Store> {
    waiting: Waiting<Inner<S>, Given<S::Item>>,
}

impl<S: Store> Getting<S> {
    /// Stops waiting, and gives the item that this has been given, or else one that is in the queue now.
    fn into_item(mut self) -> Option<S::Item> {
        match self.waiting.leave() {
            Left::Taken(Some(Given(_, item))) => Some(item),
            _ => self.waiting.queued().get(),
        }
    }

    fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<S::Item, QueueClosed>> {
        if !self.waiting.has_joined() {
            ready!(resumption::poll_proceed(cx));
        } else if let Some(Given(_, item)) = ready!(self.waiting.poll(cx)) {
            return Poll::Ready(Ok(item));
        }
        loop {
            let inner = self.waiting.queued();
            // A getter that was woken without an item was woken by `close`. There may be an item all the
            // same: another getter has been dropped since then, and its item went back.
            if let Some(item) = inner.get() {
                return Poll::Ready(Ok(item));
            }
            if inner.closed.get() {
                return Poll::Ready(Err(QueueClosed(())));
            }
            let need_not = |inner: &Inner<S>| inner.closed.get() || inner.store.size() > 0;
            if self.waiting.join(cx, &mut None, need_not) {
                return Poll::Pending;
            }
        }
    }
}

impl<S: Store> Clone for QueueOver<S> {
    fn clone(&self) -> QueueOver<S> {
        QueueOver::handle(self.inner.clone(), self.place)
    }
}

impl<S: Store> fmt::Debug for QueueOver<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("qsize", &self.qsize())
            .field("maxsize", &self.maxsize())
            .field("getters", &self.inner.getters.len())
            .field("putters", &self.inner.putters.len())
            .field("unfinished_tasks", &self.inner.unfinished.get())
            .field("is_closed", &self.is_closed())
            .finish()
    }
}

/// Gets items until the queue is closed and empty.
///
/// A stream does not learn that its `next` was dropped. So the handle keeps its position among the getters,
/// and an item that comes meanwhile is kept for the handle's next `next` or `get`. Drop the handle to give
/// up both.
impl<S: Store> Stream for QueueOver<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let mut getting = self.getting(self.place);
        let got = getting.poll(cx);
        if got.is_pending() {
            *self.getting.get_mut() = Some(getting);
        }
        got.map(Result::ok)
    }
}

impl<S: Store> FusedStream for QueueOver<S> {
    fn is_terminated(&self) -> bool {
        self.is_closed() && self.is_empty() && self.getting.borrow().is_none()
    }
}

/// Puts items. Each handle can hold one item for which there is no room yet; flushing waits until that item
/// is in the queue. Closing the sink flushes it and closes the queue.
impl<S: Store> Sink<S::Item> for QueueOver<S> {
    type Error = QueueClosed<S::Item>;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let Some(putting) = &mut self.putting else { return Poll::Ready(Ok(())) };
        let put = ready!(putting.poll(cx));
        self.putting = None;
        Poll::Ready(put)
    }

    fn start_send(mut self: Pin<&mut Self>, item: S::Item) -> Result<(), Self::Error> {
        match self.put_nowait(item) {
            Ok(()) => Ok(()),
            Err(QueueFull::Closed(item)) => Err(QueueClosed(item)),
            Err(QueueFull::ForNow(item)) => {
                self.putting = Some(Box::new(self.putting(item, self.place)));
                Ok(())
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.poll_ready(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let flushed = ready!(self.as_mut().poll_ready(cx));
        self.close();
        Poll::Ready(flushed)
    }
}

impl<S: Store> Unpin for QueueOver<S> {}

impl<T> fmt::Debug for QueueFull<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            QueueFull::ForNow(_) => "ForNow",
            QueueFull::Closed(_) => "Closed",
        })
    }
}

impl<T> fmt::Display for QueueFull<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            QueueFull::ForNow(_) => "the queue has no room",
            QueueFull::Closed(_) => "the queue is closed",
        })
    }
}

impl<T> Error for QueueFull<T> {}

impl fmt::Display for QueueEmpty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QueueEmpty::ForNow => f.write_str("the queue is empty"),
            QueueEmpty::Closed => f.write_str("the queue is closed and empty"),
        }
    }
}

impl Error for QueueEmpty {}

impl<T> fmt::Debug for QueueClosed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("QueueClosed")
    }
}

impl<T> fmt::Display for QueueClosed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the queue is closed")
    }
}

impl<T> Error for QueueClosed<T> {}

/// The item is dropped: the error that `?` passes on says only that the queue is closed. Its kind is
/// [`BrokenPipe`](std::io::ErrorKind::BrokenPipe).
impl<T> From<QueueClosed<T>> for std::io::Error {
    fn from(QueueClosed(item): QueueClosed<T>) -> std::io::Error {
        drop(item);
        std::io::Error::new(std::io::ErrorKind::BrokenPipe, QueueClosed(()))
    }
}

impl fmt::Display for TaskDoneTooOften {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("task_done was called more often than items were put")
    }
}

impl Error for TaskDoneTooOften {}
