//! Queues between the coroutines of one thread. Tornado's `queues`.
//!
//! A [`Queue`] gives items first in first out, a [`PriorityQueue`] the least first, a [`LifoQueue`]
//! the last first: they are one queue over three kinds of [`Store`]. All are handles: a clone is the
//! same queue.
//!
//! What is put goes straight to the one who has waited longest to get, and what is got makes room
//! for the one who has waited longest to put; nobody barges in between. Waiters that are dropped
//! leave: an item whose putter was dropped before there was room is never put, an item whose getter was
//! dropped is given to the next, or goes back to where it was.
//!
//! They belong to no loop, are not `Send`, and have as many waiters at most as [locks](crate::locks)
//! have. Where those who put and those who get are to learn that the others have gone, there are
//! [`channels`](crate::channels).
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
/// The items' `Ord` may use the queue, which has nothing to get while it compares them. A panic in it
/// is reported to [`Builder::on_exception`](crate::Builder::on_exception), and takes the two items for
/// equal: none is lost, and their order may be another than it says.
pub type PriorityQueue<T> = QueueOver<Priority<T>>;

/// Last in first out. Tornado: `queues.LifoQueue`.
pub type LifoQueue<T> = QueueOver<Lifo<T>>;

/// A queue over a [`Store`]; see [`Queue`].
pub struct QueueOver<S: Store> {
    inner: Rc<Inner<S>>,
    /// Where the queue was made: there waits who uses a handle as a stream or a sink.
    place: &'static Location<'static>,
    /// What this handle waits for as a stream, and as a sink.
    getting: RefCell<Option<Getting<S>>>,
    /// Boxed, so that an item may hold a handle of the queue that it is put into.
    putting: Option<Box<Putting<S>>>,
}

struct Inner<S: Store> {
    store: S,
    maxsize: usize,
    closed: Cell<bool>,
    /// How many items were put so far, which is the turn of the next one.
    turns: Cell<u64>,
    /// Those who wait for an item. Whoever puts one gives it to the first of them.
    getters: WaitQueue<Given<S::Item>>,
    /// Those who wait for room. Their items wait with them; whoever makes room puts the first one's.
    putters: WaitQueue<Brought<S::Item>>,
    /// How many items were put for which `task_done` was not called.
    unfinished: Cell<usize>,
    /// Set while `unfinished` is 0: for `join`.
    finished: Event,
}

/// What a getter is given: an item, and its turn, by which it goes back to its place if the getter is
/// dropped.
struct Given<T>(u64, T);

/// The item of a putter that waits.
struct Brought<T>(T);

impl<S: Store> Queued<Given<S::Item>> for Inner<S> {
    fn waiters(&self) -> &WaitQueue<Given<S::Item>> {
        &self.getters
    }

    fn hand_on(&self, Given(turn, item): Given<S::Item>) {
        self.store.give_back(turn, item);
        self.serve();
    }
}

impl<S: Store> Queued<Brought<S::Item>> for Inner<S> {
    fn waiters(&self) -> &WaitQueue<Brought<S::Item>> {
        &self.putters
    }
}

/// The item was not put.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum QueueFull<T> {
    /// There may be room, later.
    ForNow(T),
    /// There never will be: the queue is closed.
    Closed(T),
}

impl<T> QueueFull<T> {
    /// The item.
    pub fn into_item(self) -> T {
        match self {
            QueueFull::ForNow(item) | QueueFull::Closed(item) => item,
        }
    }
}

/// There is nothing to get now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueEmpty {
    /// There may be, later.
    ForNow,
    /// There never will be: the queue is closed.
    Closed,
}

/// The queue is closed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct QueueClosed<T = ()>(
    /// The item that was not put.
    pub T,
);

/// [`task_done`](QueueOver::task_done) was called more often than items were put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskDoneTooOften;

impl<S: Store> QueueOver<S> {
    /// A queue with room for so many items; 0 is without limit.
    #[track_caller]
    pub fn new(maxsize: usize) -> QueueOver<S> {
        let finished = Event::new();
        finished.set();
        let inner = Inner {
            store: S::default(),
            maxsize,
            closed: Cell::new(false),
            turns: Cell::new(0),
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

    /// How many items it has room for; 0 is without limit.
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

    /// Puts an item, waiting for room. Tornado: `put`.
    ///
    /// Cancel safe: an item whose `put` was dropped before there was room is not put.
    ///
    /// # Errors
    ///
    /// [`QueueClosed`] with the item, if the queue is closed, or is while it waits.
    #[track_caller]
    pub fn put(
        &self,
        item: S::Item,
    ) -> impl FusedFuture<Output = Result<(), QueueClosed<S::Item>>> + use<S> {
        let mut putting = self.putting(item, Location::caller());
        resumption::fused(std::future::poll_fn(move |cx| putting.poll(cx)))
    }

    /// Gets an item, waiting for one. Tornado: `get`.
    ///
    /// Cancel safe: an item that a dropped `get` had got is given to the next.
    ///
    /// # Errors
    ///
    /// [`QueueClosed`] if the queue is closed and empty, or is while it waits.
    #[track_caller]
    pub fn get(&self) -> impl FusedFuture<Output = Result<S::Item, QueueClosed>> + use<S> {
        let mut getting = self.getting(Location::caller());
        resumption::fused(std::future::poll_fn(move |cx| getting.poll(cx)))
    }

    fn putting(&self, item: S::Item, place: &'static Location<'static>) -> Putting<S> {
        let waiting = Waiting::at(place, self.inner.clone());
        Putting { waiting, item: Some(Brought(item)) }
    }

    /// What a `next` of this handle has begun, if it was dropped: it keeps its place among the getters.
    fn getting(&self, place: &'static Location<'static>) -> Getting<S> {
        let fresh = || Getting { waiting: Waiting::at(place, self.inner.clone()) };
        self.getting.take().unwrap_or_else(fresh)
    }

    /// Puts an item if there is room. Tornado: `put_nowait`.
    ///
    /// # Errors
    ///
    /// [`QueueFull`] with the item, which tells whether there ever will be room.
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
    /// [`QueueEmpty`], which tells whether there ever will be one.
    pub fn get_nowait(&self) -> Result<S::Item, QueueEmpty> {
        let begun = self.getting.take();
        let item = begun.map_or_else(|| self.inner.get(), Getting::into_item);
        item.ok_or_else(|| {
            if self.inner.closed.get() { QueueEmpty::Closed } else { QueueEmpty::ForNow }
        })
    }

    /// Says that an item that was got has been dealt with, for [`join`](QueueOver::join).
    ///
    /// # Errors
    ///
    /// If it is called more often than items were put.
    pub fn task_done(&self) -> Result<(), TaskDoneTooOften> {
        let left = self.inner.unfinished.get().checked_sub(1).ok_or(TaskDoneTooOften)?;
        self.inner.unfinished.set(left);
        if left == 0 {
            self.inner.finished.set();
        }
        Ok(())
    }

    /// Waits until every item that was put has been dealt with: not until the queue is empty, but
    /// until `task_done` was called for each. Cancel safe.
    #[track_caller]
    pub fn join(&self) -> impl FusedFuture<Output = ()> + use<S> {
        self.inner.finished.wait()
    }

    /// Closes it: nothing can be put any more, and what is in it can still be got. Waiting putters
    /// get their items back, waiting getters an error. Tornado has no such call.
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
    /// Also while somebody waits to put: whoever gets an item lets the first of those in at once, so there
    /// is never room that a newcomer could take.
    fn is_full(&self) -> bool {
        self.maxsize > 0 && self.store.size() >= self.maxsize
    }

    /// Puts an item for which there is room, or a getter.
    fn put(&self, item: S::Item) {
        self.unfinished.set(self.unfinished.get() + 1);
        self.finished.clear();
        let turn = self.turns.replace(self.turns.get() + 1);
        self.store.push(turn, item);
        self.serve();
    }

    /// Gives the next item to the first getter, if there are both.
    fn serve(&self) {
        if self.getters.is_empty() {
            return;
        }
        let Some((turn, item)) = self.store.pop() else { return };
        let mut next = Some(Given(turn, item));
        match self.getters.take_first(|given| *given = next.take()) {
            Some(getter) => foreign::wake(getter),
            // There was one before `pop`. But that compares items, and their `Ord` is somebody else's code:
            // it has put an item, which served the getter, or closed the queue, which woke all of them.
            None => {
                if let Some(Given(turn, item)) = next {
                    self.store.give_back(turn, item);
                }
            }
        }
        self.serve_more();
    }

    /// While items are compared, the queue looks empty. Whoever began to get just then, in the items'
    /// `Ord`, waits, and nobody would serve him although items are there.
    #[inline]
    fn serve_more(&self) {
        if S::COMPARES && !self.getters.is_empty() {
            self.serve();
        }
    }

    /// Gets the next item, and puts that of the first putter who waits. The latter comes first, so that
    /// in a queue that has an order the new item may be the next: as in Tornado.
    fn get(&self) -> Option<S::Item> {
        // There may be more items than there is room for: getters that were dropped gave theirs back when
        // the places were taken. Then this makes no room.
        let has_room = self.store.size() <= self.maxsize;
        let putter = if has_room { self.let_in() } else { None };
        let item = self.store.pop();
        wake(putter);
        self.serve_more();
        item.map(|(_, item)| item)
    }

    /// Puts the item of the first putter who waits, whom the caller wakes.
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

    /// Somebody has begun to wait who need not, as it turns out: that clones his waker, which is foreign code
    /// and has used the queue. Nobody else would tell him.
    #[cold]
    fn look_again(&self) {
        if self.closed.get() {
            self.wake_all();
        } else if self.store.size() > 0 {
            self.serve();
        }
        if !self.is_full() {
            wake(self.let_in());
        }
    }
}

impl<S: Store> Drop for Inner<S> {
    fn drop(&mut self) {
        self.store.clear();
    }
}

struct Putting<S: Store> {
    waiting: Waiting<Inner<S>, Brought<S::Item>>,
    /// The item, until it is put, or until this waits for room: then it is in `putters`.
    item: Option<Brought<S::Item>>,
}

impl<S: Store> Putting<S> {
    fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<(), QueueClosed<S::Item>>> {
        if self.item.is_none() {
            // It waited, and is done. Whoever made room has taken the item out of `putters` and put it; if
            // it is still there, the queue was closed instead.
            let left = ready!(self.waiting.poll(cx));
            return Poll::Ready(left.map_or(Ok(()), |Brought(item)| Err(QueueClosed(item))));
        }
        ready!(resumption::poll_proceed(cx));
        let inner = self.waiting.queued();
        if !inner.closed.get() && inner.is_full() {
            self.waiting.join(cx, &mut self.item);
            let inner = self.waiting.queued();
            if inner.closed.get() || !inner.is_full() {
                inner.look_again();
            }
            return Poll::Pending;
        }
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

struct Getting<S: Store> {
    waiting: Waiting<Inner<S>, Given<S::Item>>,
}

impl<S: Store> Getting<S> {
    /// The item that it has been given, or else one that is there now; it waits no more.
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
        let inner = self.waiting.queued();
        // Whoever was woken without an item was woken by `close`. There may be one all the same: another
        // getter was dropped since, and its item went back.
        if let Some(item) = inner.get() {
            return Poll::Ready(Ok(item));
        }
        if inner.closed.get() {
            return Poll::Ready(Err(QueueClosed(())));
        }
        self.waiting.join(cx, &mut None);
        let inner = self.waiting.queued();
        if inner.closed.get() || inner.store.size() > 0 {
            inner.look_again();
        }
        Poll::Pending
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
/// A stream is not told that a `next` was dropped: the handle keeps its place among those who wait,
/// and an item that comes meanwhile, for its next `next` or `get`. Drop the handle to give both up.
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

/// Puts items. Each handle can hold one for which there is no room yet; flushing waits until that is in
/// the queue. Closing flushes, and closes the queue.
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

/// The item is dropped: what `?` passes on says only that the queue is closed. The kind is
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
