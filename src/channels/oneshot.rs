//! One value, once, which need not be `Clone`. tokio: `sync::oneshot`.
//!
//! It is an [`mpsc`] of one item whose sender is used up by sending. Where many wait for one result, or the
//! result may be an error that is to be heard of, there is [`promise`](crate::concurrent::promise).
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
/// Who awaits the receiver waits, for those who list coroutines, where this was called.
#[track_caller]
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::channel(1);
    (Sender { inner: sender }, Receiver { inner: receiver, has_given: false })
}

/// The sending end. Dropped without having sent, it gives the receiver an error.
pub struct Sender<T> {
    inner: mpsc::Sender<T>,
}

/// The receiving end: await it for the value. Cancel safe: await `&mut receiver`, and nothing is lost if
/// that is dropped.
///
/// It gives [`RecvError`] if the sender was dropped without having sent.
pub struct Receiver<T> {
    inner: mpsc::Receiver<T>,
    /// Whether awaiting it has given the value, or the error.
    has_given: bool,
}

impl<T> Sender<T> {
    /// Sends the value.
    ///
    /// # Errors
    ///
    /// The value, if the receiver has gone or has closed the channel. `Ok` does not mean that it will be
    /// received: the receiver may go before it has looked, and the value with it.
    pub fn send(self, value: T) -> Result<(), T> {
        self.inner.try_send(value).map_err(TrySendError::into_inner)
    }

    /// Waits until the receiver has gone, or has closed the channel: nobody wants the value any more. Cancel
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
    /// [`TryRecvError`], which tells whether it may come later.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        self.inner.try_recv()
    }

    /// The value cannot be sent any more; if it has been, it can still be received.
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
