//! Each value, for each of many receivers. tokio: `sync::broadcast`.
//!
//! Sending never waits. A receiver that is so far behind that a value had to make room for another before
//! it was received is told how many it has missed, by `Lagged`, and goes on with the oldest that is there.
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

/// A channel that keeps up to `capacity` values, at least one, for receivers that have not had them yet.
pub fn channel<T: Clone>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let capacity = capacity.max(1);
    let ends = Ends::new(Kept { items: RefCell::default(), capacity, end: Cell::new(0) });
    (Sender { ends: ends.clone() }, Receiver { ends, next: 0 })
}

struct Kept<T> {
    /// Those that not all have had, the oldest first. Whoever has not had one has not had those after it,
    /// either: so `left` never goes down from one to the next.
    items: RefCell<VecDeque<Item<T>>>,
    capacity: usize,
    /// How many were sent: the number of the next one.
    end: Cell<u64>,
}

struct Item<T> {
    value: Rc<T>,
    /// How many have not had it.
    left: usize,
}

/// The sending end; a clone sends into the same channel.
pub struct Sender<T> {
    ends: Rc<Ends<Kept<T>>>,
}

/// The receiving end, for which all is kept that was sent since it was made, up to the channel's capacity.
pub struct Receiver<T> {
    ends: Rc<Ends<Kept<T>>>,
    /// The number of the value that is next for this one.
    next: u64,
}

/// There is no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecvError {
    /// There never will be one: every sender has gone.
    Closed,
    /// So many were missed. The next ones are there.
    Lagged(u64),
}

/// There is no value now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryRecvError {
    /// There may be one, later.
    Empty,
    /// There never will be one: every sender has gone.
    Closed,
    /// So many were missed. The next ones are there.
    Lagged(u64),
}

impl<T> Kept<T> {
    /// Keeps a value for so many; gives the one that had to make room.
    fn keep(&self, value: T, left: usize) -> Option<Item<T>> {
        let mut items = self.items.borrow_mut();
        items.push_back(Item { value: Rc::new(value), left });
        self.end.set(self.end.get() + 1);
        if items.len() > self.capacity { items.pop_front() } else { None }
    }

    /// The number of the oldest.
    fn start(&self) -> u64 {
        self.end.get() - self.items.borrow().len() as u64
    }

    /// What is next for a receiver that is as far as `next`. The last one gets the value itself, since
    /// nobody else has it: it need not be cloned.
    fn take(&self, next: &mut u64) -> Option<Result<Rc<T>, RecvError>> {
        let missed = self.start().saturating_sub(*next);
        if missed > 0 {
            *next += missed;
            return Some(Err(RecvError::Lagged(missed)));
        }
        let at = *next - self.start();
        let mut items = self.items.borrow_mut();
        let item = items.get_mut(usize::try_from(at).ok()?)?;
        *next += 1;
        item.left -= 1;
        if item.left > 0 {
            return Some(Ok(item.value.clone()));
        }
        // All have had those before it, so it is the first.
        items.pop_front().map(|item| Ok(item.value))
    }
}

impl<T> Ends<Kept<T>> {
    /// What is next, or that there will be nothing.
    fn next(&self, next: &mut u64) -> Option<Result<Rc<T>, RecvError>> {
        let ended = || self.has_ended().then_some(Err(RecvError::Closed));
        self.sent.take(next).or_else(ended)
    }
}

/// The value, without cloning it if nobody else has it.
fn own<T: Clone>(value: Rc<T>) -> T {
    Rc::try_unwrap(value).unwrap_or_else(|shared| {
        let own = T::clone(&shared);
        // The others may have dropped it meanwhile.
        foreign::discard(shared);
        own
    })
}

impl<T: Clone> Sender<T> {
    /// Sends a value to all receivers there are; gives how many that are.
    ///
    /// # Errors
    ///
    /// [`SendError`] with the value, if there is none.
    pub fn send(&self, value: T) -> Result<usize, SendError<T>> {
        let receivers = self.receiver_count();
        if receivers == 0 {
            return Err(SendError(value));
        }
        let displaced = self.ends.sent.keep(value, receivers);
        self.ends.tell();
        foreign::discard(displaced);
        Ok(receivers)
    }

    /// Another receiver, of what is sent from now on.
    pub fn subscribe(&self) -> Receiver<T> {
        self.ends.receiver_comes();
        Receiver { ends: self.ends.clone(), next: self.ends.sent.end.get() }
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
    /// Receives the next value, waiting for one.
    ///
    /// Cancel safe. If cloning a value panics, so does this, and goes on with the next value when it is
    /// called again.
    ///
    /// # Errors
    ///
    /// [`RecvError`]: values were missed, or every sender has gone and nothing is left.
    #[track_caller]
    pub fn recv(&mut self) -> impl FusedFuture<Output = Result<T, RecvError>> {
        let next = &mut self.next;
        self.ends.until(move |ends| ends.next(next)).map(|received| received.map(own))
    }

    /// Receives the next value if there is one.
    ///
    /// # Errors
    ///
    /// [`TryRecvError`], which tells why there is none.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        match self.ends.next(&mut self.next) {
            None => Err(TryRecvError::Empty),
            Some(Ok(value)) => Ok(own(value)),
            Some(Err(RecvError::Closed)) => Err(TryRecvError::Closed),
            Some(Err(RecvError::Lagged(missed))) => Err(TryRecvError::Lagged(missed)),
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.ends.sender_comes();
        Sender { ends: self.ends.clone() }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.ends.sender_goes();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        // What nobody else waits for goes with this one. It is dropped at last: a destructor may send, which
        // must find one receiver less.
        let untaken: Vec<_> = std::iter::from_fn(|| self.ends.sent.take(&mut self.next)).collect();
        self.ends.receiver_goes();
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
