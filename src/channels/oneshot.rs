//! One value, sent once; it need not be `Clone`. tokio: `sync::oneshot`.
//!
//! It is an [`mpsc`] channel with room for one item, whose sender is used up by sending. Use
//! [`promise`](crate::concurrent::promise) where several wait for the same result, or where the result may
//! be an error that must be reported if nobody looks at it.
//!
//! ```
//! use waterspout::{IoLoop, channels::oneshot, coroutine};
//!
//! IoLoop::new()?.run_sync(|| async {
//!     let (sender, receiver) = oneshot::channel();
//!     coroutine::start(async move { sender.send(Box::new(7)).unwrap() });
//!     assert_eq!(*receiver.await.unwrap(), 7);
//! })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::FusedFuture;

use super::{RecvError, TryRecvError, TrySendError, mpsc};

/// A channel for one value.
///
/// A coroutine that awaits the receiver is listed as waiting at the line where this was called.
#[track_caller]
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::channel(1);
    (Sender { inner: sender }, Receiver { inner: receiver, has_given: false })
}

/// The sending end. If it is dropped before it has sent, the receiver gets an error.
pub struct Sender<T> {
    inner: mpsc::Sender<T>,
}

/// The receiving end: await it for the value. It gives [`RecvError`] if the sender was dropped before it has
/// sent.
///
/// Cancel safe if you await `&mut receiver`: when that wait is dropped, the receiver is still there, and the
/// value with it.
pub struct Receiver<T> {
    inner: mpsc::Receiver<T>,
    /// Whether awaiting this has given the value, or the error, already.
    has_given: bool,
}

impl<T> Sender<T> {
    /// Sends the value.
    ///
    /// # Errors
    ///
    /// The value itself, if the receiver has gone or has closed the channel. `Ok` does not mean that the
    /// value will be received: the receiver may still be dropped, and the value with it.
    pub fn send(self, value: T) -> Result<(), T> {
        self.inner.try_send(value).map_err(TrySendError::into_inner)
    }

    /// Waits until nobody wants the value any more: the receiver has gone, or has closed the channel. Cancel
    /// safe.
    #[track_caller]
    pub fn closed(&self) -> impl FusedFuture<Output = ()> + use<T> {
        self.inner.closed()
    }

    /// Whether the receiver has gone, or has closed the channel.
    pub fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }
}

impl<T> Receiver<T> {
    /// Receives the value if it is there.
    ///
    /// # Errors
    ///
    /// [`TryRecvError`], which tells whether the value may come later.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        self.inner.try_recv()
    }

    /// Closes the channel: the value cannot be sent any more. If it was sent already, it can still be
    /// received.
    pub fn close(&mut self) {
        self.inner.close();
    }
}

impl<T> Future for Receiver<T> {
    type Output = Result<T, RecvError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, RecvError>> {
        let received = self.inner.poll_recv(cx);
        self.has_given |= received.is_ready();
        received.map(|value| value.ok_or(RecvError))
    }
}

impl<T> FusedFuture for Receiver<T> {
    fn is_terminated(&self) -> bool {
        self.has_given
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}
