//! The latest value of something, which any number of receivers look at. tokio: `sync::watch`.
//!
//! A receiver looks at the value that is there, or waits until there is one that it has not seen. It may
//! miss values that were replaced before it looked, but never the last one.
//!
//! [`borrow`](Receiver::borrow) gives a snapshot, an `Rc` of the value: it may be kept, also across an
//! `.await`, and it keeps nobody from sending. (tokio's gives a lock guard, and sending waits until all
//! guards are dropped; on one thread that would be for ever.)
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

/// A channel with its first value. The receiver that this gives counts it as seen.
pub fn channel<T>(initial: T) -> (Sender<T>, Receiver<T>) {
    let value = RefCell::new(Some(Rc::new(initial)));
    let ends = Ends::new(Watched { value, version: Cell::new(0) });
    (Sender { ends: ends.clone() }, Receiver { ends, seen: 0 })
}

struct Watched<T> {
    /// `None` while the user's function in [`Sender::send_if_modified`] changes the value.
    value: RefCell<Option<Rc<T>>>,
    /// How often a value was sent.
    version: Cell<u64>,
}

/// The sending end; a clone sends into the same channel.
pub struct Sender<T> {
    ends: Rc<Ends<Watched<T>>>,
}

/// The receiving end. A clone is another receiver, which has seen what this one has seen so far.
pub struct Receiver<T> {
    ends: Rc<Ends<Watched<T>>>,
    /// The version of the value that this receiver has seen last.
    seen: u64,
}

impl<T> Watched<T> {
    fn value(&self) -> Rc<T> {
        self.value.borrow().clone().expect(IS_BEING_CHANGED)
    }

    fn take(&self) -> Rc<T> {
        self.value.take().expect(IS_BEING_CHANGED)
    }
}

impl<T> Drop for Watched<T> {
    fn drop(&mut self) {
        // The value is dropped with the last end of the channel, whoever drops that. A panic of the value's
        // destructor is not theirs.
        foreign::discard(self.value.take());
    }
}

const IS_BEING_CHANGED: &str = "this watch is used from within its own send_modify or send_if_modified: \
                          its value is there when that has returned";

/// Has the value while a user's function changes it, and puts it back also if that function panics.
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
    /// The version of the value if it is not the one that was `seen`. An error if there is no news and every
    /// sender has gone.
    fn news(&self, seen: u64) -> Option<Result<u64, RecvError>> {
        let version = self.sent.version.get();
        if version != seen {
            return Some(Ok(version));
        }
        self.has_ended().then_some(Err(RecvError))
    }

    /// Counts a new version, and wakes the receivers that wait for one.
    fn announce(&self) {
        self.sent.version.set(self.sent.version.get() + 1);
        self.wake_receivers();
    }
}

impl<T> Sender<T> {
    /// Replaces the value, and wakes all receivers that wait for a change.
    ///
    /// # Errors
    ///
    /// [`SendError`] with the new value if there is no receiver; the value that is there stays. See
    /// [`send_replace`](Sender::send_replace), which replaces it in any case.
    ///
    /// # Panics
    ///
    /// If it is called within the function given to [`send_modify`](Sender::send_modify) or
    /// [`send_if_modified`](Sender::send_if_modified) of the same channel. So does every call that looks at
    /// the value or changes it.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.is_closed() {
            return Err(SendError(value));
        }
        foreign::discard(self.send_replace(value));
        Ok(())
    }

    /// Replaces the value, also if there is no receiver (one may [`subscribe`](Sender::subscribe) later).
    /// Gives the value that was there before. Panics as [`send`](Sender::send) does.
    pub fn send_replace(&self, value: T) -> Rc<T> {
        let before = self.ends.sent.take();
        self.ends.sent.value.replace(Some(Rc::new(value)));
        self.ends.announce();
        before
    }

    /// Changes the value in place, also if there is no receiver, and wakes all receivers that wait for a
    /// change.
    ///
    /// If somebody keeps a snapshot of the value, the value is cloned first, so that the snapshot stays as it
    /// is.
    ///
    /// # Panics
    ///
    /// If `modify` panics: then the value stays as `modify` has left it, and nobody is woken. Also if this is
    /// called within `modify` of the same channel.
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

    /// Does as [`send_modify`](Sender::send_modify), but the change counts, and wakes receivers, only if
    /// `modify` gives `true`. Gives what `modify` has given.
    pub fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool
    where
        T: Clone,
    {
        let watched = &self.ends.sent;
        let mut changing = Changing { watched, value: Some(watched.take()) };
        let is_modified = changing.value.as_mut().is_some_and(|value| modify(Rc::make_mut(value)));
        drop(changing);
        if is_modified {
            self.ends.announce();
        }
        is_modified
    }

    /// A snapshot of the value.
    pub fn borrow(&self) -> Rc<T> {
        self.ends.sent.value()
    }

    /// Makes another receiver. It counts the value that is there as seen.
    pub fn subscribe(&self) -> Receiver<T> {
        self.ends.add_receiver();
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
    /// A snapshot of the value. The value does not count as seen by that.
    pub fn borrow(&self) -> Rc<T> {
        self.ends.sent.value()
    }

    /// A snapshot of the value, which counts as seen from now on.
    pub fn borrow_and_update(&mut self) -> Rc<T> {
        self.seen = self.ends.sent.version.get();
        self.borrow()
    }

    /// Waits until there is a value that this receiver has not seen; from then on that value counts as seen.
    /// Ready at once if there is one.
    ///
    /// Cancel safe: if a `changed` is dropped before it was ready, the value does not count as seen.
    ///
    /// # Errors
    ///
    /// [`RecvError`] if every sender has gone, and this receiver has seen the last value.
    #[track_caller]
    pub fn changed(&mut self) -> impl FusedFuture<Output = Result<(), RecvError>> {
        let seen = &mut self.seen;
        self.ends.until(move |ends| {
            let news = ends.news(*seen)?;
            Some(news.map(|version| *seen = version))
        })
    }

    /// Whether there is a value that this receiver has not seen.
    ///
    /// # Errors
    ///
    /// As [`changed`](Receiver::changed).
    pub fn has_changed(&self) -> Result<bool, RecvError> {
        self.ends.news(self.seen).transpose().map(|version| version.is_some())
    }

    /// Waits until `is_so` is true of the value, and gives a snapshot of that. It asks first about the value
    /// that is there, whether that was seen or not. Each value that it has asked about counts as seen.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// [`RecvError`] if every sender has gone, and `is_so` is not true of the last value.
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
        self.ends.add_sender();
        Sender { ends: self.ends.clone() }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        self.ends.add_receiver();
        Receiver { ends: self.ends.clone(), seen: self.seen }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.ends.remove_sender();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.ends.remove_receiver();
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
