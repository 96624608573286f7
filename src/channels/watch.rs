//! The latest value of something, for all who care. tokio: `sync::watch`.
//!
//! A receiver looks at the value that is there, or waits until there is one that it has not seen. It may
//! miss values that were replaced before it looked, but never the last one.
//!
//! What [`borrow`](Receiver::borrow) gives is a snapshot, an `Rc` of the value: it may be kept, also across
//! an `.await`, and it keeps nobody from sending. (tokio's borrows a lock, for which a sender waits: on one
//! thread that would be for ever.)
//!
//! ```
//! use waterspout::{IoLoop, channels::watch, coroutine};
//!
//! IoLoop::new()?.run_sync(|| async {
//!     let (sender, mut receiver) = watch::channel(1);
//!     let follows = coroutine::start(async move {
//!         let mut seen = vec![*receiver.borrow_and_update()];
//!         while receiver.changed().await.is_ok() {
//!             seen.push(*receiver.borrow_and_update());
//!         }
//!         seen // every sender has gone
//!     });
//!     sender.send(2).unwrap(); // replaced before anybody looks
//!     sender.send(3).unwrap();
//!     drop(sender);
//!     assert_eq!(follows.await, [1, 3]);
//! })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use futures::future::FusedFuture;

use super::ends::Ends;
use super::{RecvError, SendError};
use crate::ground::foreign;

/// A channel with its first value, which counts as seen.
pub fn channel<T>(initial: T) -> (Sender<T>, Receiver<T>) {
    let value = RefCell::new(Some(Rc::new(initial)));
    let ends = Ends::new(Watched { value, version: Cell::new(0) });
    (Sender { ends: ends.clone() }, Receiver { ends, seen: 0 })
}

struct Watched<T> {
    /// `None` while [`Sender::send_if_modified`] has it changed.
    value: RefCell<Option<Rc<T>>>,
    /// How often it was sent.
    version: Cell<u64>,
}

/// The sending end; a clone sends into the same channel.
pub struct Sender<T> {
    ends: Rc<Ends<Watched<T>>>,
}

/// The receiving end; a clone has seen what this one has.
pub struct Receiver<T> {
    ends: Rc<Ends<Watched<T>>>,
    /// The version that it has seen.
    seen: u64,
}

impl<T> Watched<T> {
    fn value(&self) -> Rc<T> {
        self.value.borrow().clone().expect(IS_CHANGED)
    }

    fn take(&self) -> Rc<T> {
        self.value.take().expect(IS_CHANGED)
    }
}

impl<T> Drop for Watched<T> {
    fn drop(&mut self) {
        // It goes with the last end, which may be anybody's.
        foreign::discard(self.value.take());
    }
}

const IS_CHANGED: &str = "this watch is used from within its own send_modify or send_if_modified: \
                          its value is there when that has returned";

/// The value while it is changed, which goes back also if that panics.
struct Changing<'a, T> {
    watched: &'a Watched<T>,
    value: Option<Rc<T>>,
}

impl<T> Drop for Changing<'_, T> {
    fn drop(&mut self) {
        self.watched.value.replace(self.value.take());
    }
}

impl<T> Ends<Watched<T>> {
    /// The version, if it is another than was seen; an error if there will be none.
    fn news(&self, seen: u64) -> Option<Result<u64, RecvError>> {
        let version = self.sent.version.get();
        if version != seen {
            return Some(Ok(version));
        }
        self.has_ended().then_some(Err(RecvError))
    }

    fn has_changed(&self) {
        self.sent.version.set(self.sent.version.get() + 1);
        self.tell();
    }
}

impl<T> Sender<T> {
    /// Replaces the value, and wakes all who wait for a change.
    ///
    /// # Errors
    ///
    /// [`SendError`] with the value, which replaces nothing, if there is no receiver. See
    /// [`send_replace`](Sender::send_replace).
    ///
    /// # Panics
    ///
    /// Within the function of [`send_modify`](Sender::send_modify), as all that looks at the value or
    /// changes it.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.is_closed() {
            return Err(SendError(value));
        }
        foreign::discard(self.send_replace(value));
        Ok(())
    }

    /// Replaces the value, also if there is no receiver, for those that [`subscribe`](Sender::subscribe)
    /// later; gives the one that was there. Panics as [`send`](Sender::send) does.
    pub fn send_replace(&self, value: T) -> Rc<T> {
        let before = self.ends.sent.take();
        self.ends.sent.value.replace(Some(Rc::new(value)));
        self.ends.has_changed();
        before
    }

    /// Changes the value in place, also if there is no receiver, and wakes all who wait for a change.
    ///
    /// The value is cloned before if somebody keeps a snapshot of it, which stays what it is. If `modify`
    /// panics, so does this: the value stays as that has left it, and nobody is woken.
    ///
    /// # Panics
    ///
    /// If it is called within `modify`, of the same channel.
    ///
    /// ```
    /// use waterspout::channels::watch;
    ///
    /// let (sender, receiver) = watch::channel(vec![1]);
    /// let before = receiver.borrow();
    /// sender.send_modify(|list| list.push(2));
    /// assert_eq!((&*before, &*receiver.borrow()), (&vec![1], &vec![1, 2]));
    /// ```
    pub fn send_modify(&self, modify: impl FnOnce(&mut T))
    where
        T: Clone,
    {
        self.send_if_modified(|value| {
            modify(value);
            true
        });
    }

    /// [`send_modify`](Sender::send_modify), which wakes somebody only if `modify` says that it has changed
    /// the value. Gives what that says.
    pub fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool
    where
        T: Clone,
    {
        let watched = &self.ends.sent;
        let mut changing = Changing { watched, value: Some(watched.take()) };
        let is_modified = changing.value.as_mut().is_some_and(|value| modify(Rc::make_mut(value)));
        drop(changing);
        if is_modified {
            self.ends.has_changed();
        }
        is_modified
    }

    /// A snapshot of the value.
    pub fn borrow(&self) -> Rc<T> {
        self.ends.sent.value()
    }

    /// Another receiver, which has seen the value that is there.
    pub fn subscribe(&self) -> Receiver<T> {
        self.ends.receiver_comes();
        Receiver { ends: self.ends.clone(), seen: self.ends.sent.version.get() }
    }

    /// Waits until there is no receiver. Cancel safe.
    #[track_caller]
    pub fn closed(&self) -> impl FusedFuture<Output = ()> + use<T> {
        self.ends.closed()
    }

    /// Whether there is no receiver.
    pub fn is_closed(&self) -> bool {
        self.ends.is_closed()
    }

    /// How many receivers there are.
    pub fn receiver_count(&self) -> usize {
        self.ends.receivers()
    }
}

impl<T> Receiver<T> {
    /// A snapshot of the value, which does not count as seen by this.
    pub fn borrow(&self) -> Rc<T> {
        self.ends.sent.value()
    }

    /// A snapshot of the value, which counts as seen.
    pub fn borrow_and_update(&mut self) -> Rc<T> {
        self.seen = self.ends.sent.version.get();
        self.borrow()
    }

    /// Waits for a value that was not seen, which counts as seen then; ready at once if there is one.
    ///
    /// Cancel safe: what a dropped `changed` had not told of is not seen.
    ///
    /// # Errors
    ///
    /// [`RecvError`] if every sender has gone, and the last value was seen.
    #[track_caller]
    pub fn changed(&mut self) -> impl FusedFuture<Output = Result<(), RecvError>> {
        let seen = &mut self.seen;
        self.ends.until(move |ends| {
            let news = ends.news(*seen)?;
            Some(news.map(|version| *seen = version))
        })
    }

    /// Whether there is a value that was not seen.
    ///
    /// # Errors
    ///
    /// As [`changed`](Receiver::changed).
    pub fn has_changed(&self) -> Result<bool, RecvError> {
        self.ends.news(self.seen).transpose().map(|version| version.is_some())
    }

    /// Waits until a value `is_so`, and gives a snapshot of it. The value that is there is looked at first,
    /// seen or not. All that were looked at count as seen.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// [`RecvError`] if every sender has gone, and the last value is not so.
    ///
    /// ```
    /// use waterspout::{IoLoop, channels::watch, coroutine};
    ///
    /// IoLoop::new()?.run_sync(|| async {
    ///     let (sender, mut receiver) = watch::channel(0);
    ///     let waits = coroutine::start(async move { *receiver.wait_for(|n| *n > 9).await.unwrap() });
    ///     sender.send(8).unwrap();
    ///     sender.send(10).unwrap();
    ///     assert_eq!(waits.await, 10);
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn wait_for(
        &mut self,
        mut is_so: impl FnMut(&T) -> bool,
    ) -> impl FusedFuture<Output = Result<Rc<T>, RecvError>> {
        let seen = &mut self.seen;
        let mut is_first = true;
        self.ends.until(move |ends| {
            let news = if std::mem::take(&mut is_first) {
                Ok(ends.sent.version.get())
            } else {
                ends.news(*seen)?
            };
            match news {
                Ok(version) => {
                    let value = ends.sent.value();
                    *seen = version;
                    is_so(&value).then_some(Ok(value))
                }
                Err(ended) => Some(Err(ended)),
            }
        })
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.ends.sender_comes();
        Sender { ends: self.ends.clone() }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        self.ends.receiver_comes();
        Receiver { ends: self.ends.clone(), seen: self.seen }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.ends.sender_goes();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.ends.receiver_goes();
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
