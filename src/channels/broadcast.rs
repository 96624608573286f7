//! Values that each of many receivers gets. tokio: `sync::broadcast`.
//!
//! Sending never waits: when the channel is full, the oldest value makes room for the new one. A receiver
//! that had not received that value yet is told how many values it has missed, by `Lagged`, and goes on with
//! the oldest that is there.
//!
//! ```
//! use waterspout::{IoLoop, channels::broadcast::{self, RecvError}};
//!
//! IoLoop::new()?.run_sync(|| async {
//!     let (sender, mut one) = broadcast::channel(2);
//!     let mut two = sender.subscribe();
//!     sender.send("a").unwrap();
//!     assert_eq!(one.recv().await, Ok("a"));
//!     sender.send("b").unwrap();
//!     sender.send("c").unwrap();
//!     assert_eq!(one.recv().await, Ok("b"));
//!     assert_eq!(two.recv().await, Err(RecvError::Lagged(1)));
//!     assert_eq!(two.recv().await, Ok("b"));
//! })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::io;
use std::rc::Rc;

use futures::FutureExt;
use futures::future::FusedFuture;

use super::SendError;
use super::ends::Ends;
use crate::ground::foreign;

/// A channel that keeps up to `capacity` values for receivers that have not received them yet; 0 counts as
/// 1.
pub fn channel<T: Clone>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let capacity = capacity.max(1);
    let ends =
        Ends::new(Backlog { items: RefCell::default(), capacity, next_number: Cell::new(0) });
    (Sender { ends: ends.clone() }, Receiver { ends, next: 0 })
}

/// The values that some receiver has not received yet.
struct Backlog<T> {
    /// The oldest first. A receiver that has not received one of them has not received those after it,
    /// either. So `left` never gets smaller from one to the next, and the first is the first to go.
    items: RefCell<VecDeque<Item<T>>>,
    capacity: usize,
    /// How many values were sent, which is the number of the next one.
    next_number: Cell<u64>,
}

struct Item<T> {
    value: Rc<T>,
    /// How many receivers have not received the value yet. It is never 0.
    left: usize,
}

/// The sending end; a clone sends into the same channel.
pub struct Sender<T> {
    ends: Rc<Ends<Backlog<T>>>,
}

/// The receiving end. The values that are sent from its making on are kept for it until it receives them, up
/// to the channel's capacity.
pub struct Receiver<T> {
    ends: Rc<Ends<Backlog<T>>>,
    /// The number of the value that this receiver gets next.
    next: u64,
}

/// There is no value to receive, or some were missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecvError {
    /// There will be no value any more: every sender has gone.
    Closed,
    /// So many values have made room for others before this receiver got them. The next call gives the
    /// oldest that is left.
    Lagged(u64),
}

/// There is no value to receive now, or some were missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryRecvError {
    /// There is no value now, but there may be one later.
    Empty,
    /// There will be no value any more: every sender has gone.
    Closed,
    /// So many values have made room for others before this receiver got them. The next call gives the
    /// oldest that is left.
    Lagged(u64),
}

impl<T> Backlog<T> {
    /// Keeps a value for `left` receivers. Gives the one that had to make room for it, if any.
    fn keep(&self, value: T, left: usize) -> Option<Item<T>> {
        let mut items = self.items.borrow_mut();
        items.push_back(Item { value: Rc::new(value), left });
        self.next_number.set(self.next_number.get() + 1);
        if items.len() > self.capacity { items.pop_front() } else { None }
    }

    /// The number of the oldest value that is kept.
    fn oldest_number(&self) -> u64 {
        self.next_number.get() - self.items.borrow().len() as u64
    }

    /// The value whose number is `next`, on behalf of a receiver, whose `next` is moved on. `None` if that
    /// value was not sent yet. The last of the receivers gets the only `Rc` of the value, so that it need
    /// not be cloned.
    fn take(&self, next: &mut u64) -> Option<Result<Rc<T>, RecvError>> {
        let missed = self.oldest_number().saturating_sub(*next);
        if missed > 0 {
            *next += missed;
            return Some(Err(RecvError::Lagged(missed)));
        }
        let index = *next - self.oldest_number();
        let mut items = self.items.borrow_mut();
        let item = items.get_mut(usize::try_from(index).ok()?)?;
        *next += 1;
        item.left -= 1;
        if item.left > 0 {
            return Some(Ok(item.value.clone()));
        }
        // Everybody has received this value, and so all before it, which are gone: it is the first.
        items.pop_front().map(|item| Ok(item.value))
    }
}

impl<T> Ends<Backlog<T>> {
    /// What a receiver gets next, or the error that there will be nothing; `None` as long as it has to wait.
    fn next(&self, next: &mut u64) -> Option<Result<Rc<T>, RecvError>> {
        let ended = || self.has_ended().then_some(Err(RecvError::Closed));
        self.sent.take(next).or_else(ended)
    }
}

/// The value itself if nobody else has this `Rc`, or else a clone of it.
fn into_value<T: Clone>(value: Rc<T>) -> T {
    Rc::try_unwrap(value).unwrap_or_else(|shared| {
        let cloned = T::clone(&shared);
        // `T::clone` is foreign code: the others may have dropped their `Rc` in it, so that this is the last
        // one, which runs the value's destructor.
        foreign::discard(shared);
        cloned
    })
}

impl<T: Clone> Sender<T> {
    /// Sends a value to all receivers that there are now, and gives their number.
    ///
    /// # Errors
    ///
    /// [`SendError`] with the value, if there is no receiver.
    pub fn send(&self, value: T) -> Result<usize, SendError<T>> {
        let receivers = self.receiver_count();
        if receivers == 0 {
            return Err(SendError(value));
        }
        let displaced = self.ends.sent.keep(value, receivers);
        self.ends.wake_receivers();
        foreign::discard(displaced);
        Ok(receivers)
    }

    /// Makes another receiver, which gets the values that are sent from now on.
    pub fn subscribe(&self) -> Receiver<T> {
        self.ends.add_receiver();
        Receiver { ends: self.ends.clone(), next: self.ends.sent.next_number.get() }
    }

    /// Waits until there is no receiver. Cancel safe.
    #[track_caller]
    pub fn closed(&self) -> impl FusedFuture<Output = ()> + use<T> {
        self.ends.closed()
    }

    /// How many receivers there are.
    pub fn receiver_count(&self) -> usize {
        self.ends.receivers()
    }
}

impl<T: Clone> Receiver<T> {
    /// Receives the next value, and waits for one if there is none.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// [`RecvError`] if values were missed, or if every sender has gone and nothing is left.
    ///
    /// # Panics
    ///
    /// If cloning the value panics. The next call gives the value after it.
    #[track_caller]
    pub fn recv(&mut self) -> impl FusedFuture<Output = Result<T, RecvError>> {
        let next = &mut self.next;
        self.ends.until(move |ends| ends.next(next)).map(|received| received.map(into_value))
    }

    /// Receives the next value if there is one.
    ///
    /// # Errors
    ///
    /// [`TryRecvError`], which tells why there is none.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        match self.ends.next(&mut self.next) {
            None => Err(TryRecvError::Empty),
            Some(Ok(value)) => Ok(into_value(value)),
            Some(Err(RecvError::Closed)) => Err(TryRecvError::Closed),
            Some(Err(RecvError::Lagged(missed))) => Err(TryRecvError::Lagged(missed)),
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.ends.add_sender();
        Sender { ends: self.ends.clone() }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.ends.remove_sender();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        // Takes all values that are left for this receiver: those that nobody else is to receive are
        // dropped here, in the end. Their destructors may send on this channel, and a value that is sent
        // must not count on this receiver any more.
        let untaken: Vec<_> = std::iter::from_fn(|| self.ends.sent.take(&mut self.next)).collect();
        self.ends.remove_receiver();
        foreign::discard_all(untaken);
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ends.debug("Sender", f)
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ends.debug("Receiver", f)
    }
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecvError::Closed => super::RecvError.fmt(f),
            RecvError::Lagged(missed) => write!(f, "too far behind: {missed} were missed"),
        }
    }
}

impl Error for RecvError {}

/// The kind of `Closed` is [`BrokenPipe`](io::ErrorKind::BrokenPipe), that of `Lagged`
/// [`Other`](io::ErrorKind::Other).
impl From<RecvError> for io::Error {
    fn from(error: RecvError) -> io::Error {
        let kind = match error {
            RecvError::Closed => io::ErrorKind::BrokenPipe,
            RecvError::Lagged(_) => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TryRecvError::Empty => super::TryRecvError::Empty.fmt(f),
            TryRecvError::Closed => super::TryRecvError::Closed.fmt(f),
            TryRecvError::Lagged(missed) => RecvError::Lagged(*missed).fmt(f),
        }
    }
}

impl Error for TryRecvError {}
