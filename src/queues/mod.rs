//! Queues between the coroutines of one thread. Tornado's `queues`.
//!
//! A [`Queue`] gives items first in first out, a [`PriorityQueue`] the least first, a [`LifoQueue`]
//! the last first: they are one queue over three kinds of [`Store`]. All are handles: a clone is the
//! same queue.
//!
//! What is put goes straight to the one who has waited longest to get, and what is got makes room
//! for the one who has waited longest to put; nobody barges in between. Waiters that are dropped
//! leave: an item whose putter was dropped is never put, an item whose getter was dropped is given to
//! the next, or goes back to where it was.

mod store;

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use futures::sink::Sink;
use futures::stream::{FusedStream, Stream};

use crate::locks::Event;
use crate::wait_queue::{Left, Place, WaitQueue};
use crate::{foreign, resumption};
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
pub type PriorityQueue<T> = QueueOver<Priority<T>>;

/// Last in first out. Tornado: `queues.LifoQueue`.
pub type LifoQueue<T> = QueueOver<Lifo<T>>;

/// A queue over a [`Store`]; see [`Queue`].
pub struct QueueOver<S: Store> {
    inner: Rc<Inner<S>>,
    /// What this handle waits for as a stream, and as a sink.
    getting: RefCell<Option<Getting<S>>>,
    /// Boxed, so that an item may hold a handle of the queue that it is put into.
    putting: Option<Box<Putting<S>>>,
}

struct Inner<S: Store> {
    store: RefCell<S>,
    maxsize: usize,
    closed: Cell<bool>,
    /// How many items were put so far.
    turns: Cell<u64>,
    /// Waits for an item, which is put in its place with its turn.
    getters: WaitQueue<(u64, S::Item)>,
    /// Waits for room, with the item in its place until there is.
    putters: WaitQueue<S::Item>,
    unfinished: Cell<usize>,
    /// Set while nothing is unfinished.
    finished: Event,
}

/// There is no room now.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct QueueFull<T>(
    /// The item that was not put.
    pub T,
);

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
    pub fn new(maxsize: usize) -> QueueOver<S> {
        let finished = Event::new();
        finished.set();
        let inner = Inner {
            store: RefCell::new(S::default()),
            maxsize,
            closed: Cell::new(false),
            turns: Cell::new(0),
            getters: WaitQueue::new(),
            putters: WaitQueue::new(),
            unfinished: Cell::new(0),
            finished,
        };
        QueueOver { inner: Rc::new(inner), getting: RefCell::new(None), putting: None }
    }

    /// How many items it has room for; 0 is without limit.
    pub fn maxsize(&self) -> usize {
        self.inner.maxsize
    }

    /// How many items are in it. Tornado: `qsize`.
    pub fn qsize(&self) -> usize {
        self.inner.store.borrow().size()
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
    pub fn put(
        &self,
        item: S::Item,
    ) -> impl Future<Output = Result<(), QueueClosed<S::Item>>> + use<S> {
        let mut putting = self.putting(item);
        std::future::poll_fn(move |cx| putting.poll(cx))
    }

    /// Gets an item, waiting for one. Tornado: `get`.
    ///
    /// Cancel safe: an item that a dropped `get` had got is given to the next.
    ///
    /// # Errors
    ///
    /// [`QueueClosed`] if the queue is closed and empty, or is while it waits.
    pub fn get(&self) -> impl Future<Output = Result<S::Item, QueueClosed>> + use<S> {
        let mut getting = self.getting();
        std::future::poll_fn(move |cx| getting.poll(cx))
    }

    fn putting(&self, item: S::Item) -> Putting<S> {
        Putting { inner: self.inner.clone(), item: Some(item), place: Place::default() }
    }

    /// Goes on with what a dropped `next` of this handle has begun.
    fn getting(&self) -> Getting<S> {
        let fresh = || Getting { inner: self.inner.clone(), place: Place::default() };
        self.getting.take().unwrap_or_else(fresh)
    }

    /// Puts an item if there is room. Tornado: `put_nowait`.
    ///
    /// # Errors
    ///
    /// [`QueueFull`] with the item, if there is none, or the queue is closed.
    pub fn put_nowait(&self, item: S::Item) -> Result<(), QueueFull<S::Item>> {
        if self.inner.closed.get() || self.inner.is_full() {
            return Err(QueueFull(item));
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
    pub fn join(&self) -> impl Future<Output = ()> + use<S> {
        self.inner.finished.wait()
    }

    /// Closes it: nothing can be put any more, and what is in it can still be got. Waiting putters
    /// get their items back, waiting getters an error. Tornado has no such call.
    pub fn close(&self) {
        let inner = &*self.inner;
        inner.closed.set(true);
        inner.getters.wake_all();
        inner.putters.wake_all();
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.inner.closed.get()
    }
}

impl<S: Store> Inner<S> {
    /// While anybody waits to put, it is: who gets lets the first of them in.
    fn is_full(&self) -> bool {
        self.maxsize > 0 && self.store.borrow().size() >= self.maxsize
    }

    /// Puts an item for which there is room, or a getter.
    fn put(&self, item: S::Item) {
        self.unfinished.set(self.unfinished.get() + 1);
        self.finished.clear();
        let turn = self.turns.replace(self.turns.get() + 1);
        self.store.borrow_mut().push(turn, item);
        self.serve();
    }

    /// Gives the next item to the first getter, if there are both.
    fn serve(&self) {
        if self.getters.is_empty() {
            return;
        }
        let Some(next) = self.store.borrow_mut().pop() else { return };
        if let Some(getter) = self.getters.take_first(|_| Some(next)) {
            foreign::wake(getter);
        }
    }

    /// Gets the next item and lets the first putter have its place: first in, so that its item may
    /// be the next, as in Tornado.
    fn get(&self) -> Option<S::Item> {
        let mut next = None;
        // An item that was given back may have left it fuller than full.
        let size = self.store.borrow().size();
        let putter = if size <= self.maxsize {
            self.putters.take_first(|item| {
                next = item;
                None
            })
        } else {
            None
        };
        if let Some(next) = next {
            self.put(next);
        }
        let (_, item) = self.store.borrow_mut().pop()?;
        if let Some(putter) = putter {
            foreign::wake(putter);
        }
        Some(item)
    }
}

struct Putting<S: Store> {
    inner: Rc<Inner<S>>,
    /// Until it is in the queue, or in the place.
    item: Option<S::Item>,
    place: Place,
}

impl<S: Store> Putting<S> {
    fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<(), QueueClosed<S::Item>>> {
        if self.item.is_some() {
            ready!(resumption::poll_proceed(cx));
        }
        if let Some(item) = self.item.take() {
            if self.inner.closed.get() {
                return Poll::Ready(Err(QueueClosed(item)));
            }
            if !self.inner.is_full() {
                self.inner.put(item);
                return Poll::Ready(Ok(()));
            }
            self.place = self.inner.putters.join(cx, Some(item));
            return Poll::Pending;
        }
        // Whoever made room has taken the item; a queue that was closed has left it.
        let left = ready!(self.inner.putters.poll(&mut self.place, cx));
        Poll::Ready(left.map_or(Ok(()), |item| Err(QueueClosed(item))))
    }
}

impl<S: Store> Drop for Putting<S> {
    fn drop(&mut self) {
        drop(self.inner.putters.leave(&mut self.place));
    }
}

struct Getting<S: Store> {
    inner: Rc<Inner<S>>,
    place: Place,
}

impl<S: Store> Getting<S> {
    /// What there is now; gives the place up.
    fn into_item(mut self) -> Option<S::Item> {
        match self.inner.getters.leave(&mut self.place) {
            Left::Taken(Some((_, item))) => Some(item),
            _ => self.inner.get(),
        }
    }

    fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<S::Item, QueueClosed>> {
        let inner = &self.inner;
        if self.place == Place::default() {
            ready!(resumption::poll_proceed(cx));
        } else if let Some((_, item)) = ready!(inner.getters.poll(&mut self.place, cx)) {
            return Poll::Ready(Ok(item));
        }
        // Woken without an item, it was closed; another getter may have given its item back since.
        if let Some(item) = inner.get() {
            return Poll::Ready(Ok(item));
        }
        if inner.closed.get() {
            return Poll::Ready(Err(QueueClosed(())));
        }
        self.place = inner.getters.join(cx, None);
        Poll::Pending
    }
}

impl<S: Store> Drop for Getting<S> {
    fn drop(&mut self) {
        if let Left::Taken(Some((turn, item))) = self.inner.getters.leave(&mut self.place) {
            self.inner.store.borrow_mut().give_back(turn, item);
            self.inner.serve();
        }
    }
}

impl<S: Store> Clone for QueueOver<S> {
    fn clone(&self) -> QueueOver<S> {
        QueueOver { inner: self.inner.clone(), getting: RefCell::new(None), putting: None }
    }
}

impl<S: Store> fmt::Debug for QueueOver<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("qsize", &self.qsize())
            .field("maxsize", &self.maxsize())
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
        let mut getting = self.getting();
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

/// Puts items; one more than there is room for may be under way in each handle. Flushing waits until
/// it is in the queue; closing closes the queue.
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
            Err(QueueFull(item)) if self.is_closed() => Err(QueueClosed(item)),
            Err(QueueFull(item)) => {
                self.putting = Some(Box::new(self.putting(item)));
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
        f.write_str("QueueFull")
    }
}

impl<T> fmt::Display for QueueFull<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the queue has no room")
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

impl fmt::Display for TaskDoneTooOften {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("task_done was called more often than items were put")
    }
}

impl Error for TaskDoneTooOften {}
