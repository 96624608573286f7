//! Writing: at once as far as possible, the rest in the background.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use super::{Inner, IoStream, Transport};
use crate::concurrent::{self, Promise, promise};
use crate::coroutine;
use crate::error::{ExcInfo, StreamError};

/// What was written and is unsent. Bytes are counted over the stream's whole life.
#[derive(Default)]
pub(super) struct Unsent {
    bytes: VecDeque<u8>,
    sent: u64,
    /// By the number of their last byte, in order.
    writes: VecDeque<(u64, Promise<Result<(), StreamError>>)>,
}

impl Unsent {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.writes.is_empty()
    }

    /// The writes whose last byte is sent now.
    fn done(&mut self) -> Vec<Promise<Result<(), StreamError>>> {
        let done = self.writes.partition_point(|(last, _)| *last <= self.sent);
        self.writes.drain(..done).map(|(_, promise)| promise).collect()
    }

    /// The stream is closed.
    pub(super) fn fail(self, error: &StreamError) {
        for (_, promise) in self.writes {
            promise.set_result(Err(error.clone()));
        }
    }
}

/// A write that is under way, or done; from [`IoStream::write`]. It may be dropped: the bytes are
/// sent all the same.
#[derive(Debug)]
pub struct Write {
    state: State,
}

#[derive(Debug)]
enum State {
    Done(Result<(), StreamError>),
    Unsent(concurrent::Future<Result<(), StreamError>>),
}

impl Future for Write {
    type Output = Result<(), StreamError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.state {
            State::Done(result) => Poll::Ready(result.clone()),
            State::Unsent(future) => Pin::new(future).poll(cx).map(|settled| match settled {
                Ok(result) => result,
                // The promise goes with the stream.
                Err(ExcInfo::Abandoned) | Err(_) => Err(StreamError::Closed(None)),
            }),
        }
    }
}

impl<S: Transport> IoStream<S> {
    /// Writes bytes, behind those written before. Tornado: `write`.
    ///
    /// They are sent now as far as the socket takes them, the rest by itself when it takes more.
    /// Awaiting waits until the last of them has been handed to the system; whoever writes faster than
    /// the other side reads should. Cancel safe: what was written is sent.
    ///
    /// # Errors
    ///
    /// [`StreamError::Closed`] if the stream is closed, or is before the last byte was sent;
    /// [`StreamError::WriteBufferFull`] if too much is unsent already: nothing was written then, and
    /// the stream stays open.
    ///
    /// # Panics
    ///
    /// As [`IoLoop::current`](crate::IoLoop::current).
    #[track_caller]
    pub fn write(&self, data: impl AsRef<[u8]>) -> Write {
        let state = self.inner.clone().write(data.as_ref());
        Write { state }
    }
}

impl<S: Transport> Inner<S> {
    #[track_caller]
    fn write(self: Rc<Self>, mut data: &[u8]) -> State {
        if self.is_closed() {
            return State::Done(Err(self.closed_error()));
        }
        let waiting = self.unsent.borrow().bytes.len();
        if data.len() > self.options.max_write_buffer_size.saturating_sub(waiting) {
            return State::Done(Err(StreamError::WriteBufferFull));
        }
        if self.unsent.borrow().is_empty() {
            // Nobody is woken by this: the coroutine that sends the rest asks again.
            let mut cx = Context::from_waker(Waker::noop());
            match self.send_now(&mut cx, &mut data) {
                Poll::Ready(Ok(())) => return State::Done(Ok(())),
                Poll::Ready(Err(error)) => {
                    self.close(Some(error));
                    return State::Done(Err(self.closed_error()));
                }
                Poll::Pending => {}
            }
        }
        let (promise, future) = promise();
        let mut unsent = self.unsent.borrow_mut();
        unsent.bytes.extend(data);
        let last = unsent.sent + unsent.bytes.len() as u64;
        unsent.writes.push_back((last, promise));
        drop(unsent);
        if !self.sending.replace(true) {
            drop(coroutine::start(self.send()));
        }
        State::Unsent(future)
    }

    /// Sends from the front of `data`, as far as it goes without waiting.
    fn send_now(&self, cx: &mut Context<'_>, data: &mut &[u8]) -> Poll<io::Result<()>> {
        while !data.is_empty() {
            let sent = ready!(self.poll_send(cx, data))?;
            *data = &data[sent..];
        }
        self.poll_flush(cx)
    }

    fn poll_send(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let sent = match &mut *self.io.borrow_mut() {
            Some(io) => Pin::new(io).poll_write(cx, data),
            None => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        };
        match sent {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(n)) => {
                self.unsent.borrow_mut().sent += n as u64;
                Poll::Ready(Ok(n))
            }
            other => other,
        }
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self.io.borrow_mut() {
            Some(io) => Pin::new(io).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Sends what is unsent, until nothing is or the stream is closed.
    async fn send(self: Rc<Self>) {
        let sent = std::future::poll_fn(|cx| self.poll_send_all(cx)).await;
        self.sending.set(false);
        match sent {
            Err(error) => self.close(Some(error)),
            // The last handle was dropped while this was under way.
            Ok(()) if self.handles.get() == 0 => self.close(None),
            Ok(()) => {}
        }
    }

    fn poll_send_all(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_closed() {
            // Out of the queue while it is being sent: nothing is borrowed then.
            let mut bytes = std::mem::take(&mut self.unsent.borrow_mut().bytes);
            let (front, _) = bytes.as_slices();
            let polled = match front {
                [] => self.poll_flush(cx).map_ok(|()| 0),
                front => self.poll_send(cx, front),
            };
            if let Poll::Ready(Ok(sent)) = polled {
                bytes.drain(..sent);
            }
            let all_sent = bytes.is_empty() && matches!(polled, Poll::Ready(Ok(0)));
            let mut unsent = self.unsent.borrow_mut();
            // What was written meanwhile stands behind.
            bytes.append(&mut unsent.bytes);
            unsent.bytes = bytes;
            ready!(polled)?;
            let done = unsent.done();
            drop(unsent);
            for promise in done {
                promise.set_result(Ok(()));
            }
            if all_sent && self.unsent.borrow().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}
