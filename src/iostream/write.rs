//! Writing: at once as far as possible, the rest in the background.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::panic::Location;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use futures::future::FusedFuture;

use super::transport::Transport;
use super::{Inner, IoStream};
use crate::concurrent::{self, promise};
use crate::ground::error::{LoopClosed, StreamError};
use crate::ground::wait_queue::wake;
use crate::ground::{foreign, resumption};

/// A write that is under way, or done; from [`IoStream::write`]. It may be dropped: the bytes are
/// sent all the same.
#[derive(Debug)]
pub struct Write {
    state: State,
    place: &'static Location<'static>,
    is_done: bool,
}

#[derive(Debug)]
enum State {
    Done(Result<(), StreamError>),
    Unsent(concurrent::Future<Result<(), StreamError>>),
}

impl Future for Write {
    type Output = Result<(), StreamError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = match &mut self.state {
            // The call that sent it has not spent of the caller's budget, so this does.
            State::Done(Ok(())) => resumption::poll_proceed(cx).map(Ok),
            State::Done(Err(error)) => Poll::Ready(Err(error.clone())),
            // The promise goes with the stream.
            State::Unsent(future) => Pin::new(future)
                .poll(cx)
                .map(|result| result.unwrap_or(Err(StreamError::Closed(None)))),
        };
        if polled.is_pending() {
            resumption::waits_at(self.place);
        }
        self.is_done = polled.is_ready();
        polled
    }
}

impl FusedFuture for Write {
    fn is_terminated(&self) -> bool {
        self.is_done
    }
}

impl<S: Transport> IoStream<S> {
    /// Writes bytes, behind those written before. Tornado: `write`.
    ///
    /// They are sent now as far as the socket takes them, the rest by itself when it takes more. (While
    /// another loop than the stream's is current, all of them wait for the stream's loop to run.) Awaiting
    /// waits until the last of them has been handed to the system; whoever writes faster than the other
    /// side reads should. Cancel safe: what was written is sent.
    ///
    /// # Errors
    ///
    /// They come from awaiting it. [`StreamError::Closed`] if the stream is closed, or is before the last
    /// byte was sent, as it is if its loop is closed; [`StreamError::WriteBufferFull`] if too much is unsent
    /// already: nothing was written then, and the stream stays open.
    ///
    /// # Panics
    ///
    /// If the stream's loop has as many live coroutines as it can have: 16,777,215, or 262,143 on 32-bit
    /// targets.
    #[track_caller]
    pub fn write(&self, data: impl AsRef<[u8]>) -> Write {
        let state = self.inner.clone().write(data.as_ref());
        Write { state, place: Location::caller(), is_done: false }
    }

    /// For whoever has to see to the end of a stream that somebody else uses: a server.
    pub(crate) fn keep(&self) -> Kept<S> {
        Kept { inner: self.inner.clone(), closes: true }
    }
}

/// Dropping this closes the stream, and what is unsent is lost, unless [`all_sent`](Kept::all_sent) has
/// come to its end before. It is no handle: it does not keep the stream open when all of those have gone.
pub(crate) struct Kept<S: Transport> {
    inner: Rc<Inner<S>>,
    closes: bool,
}

impl<S: Transport> Kept<S> {
    /// Waits until nothing that was written is unsent, or the stream is closed, and lets it go then.
    pub(crate) async fn all_sent(mut self) {
        while let Some(sent) = self.inner.all_sent() {
            // Also when an error has closed the stream.
            let _ = sent.await;
        }
        self.closes = false;
    }
}

impl<S: Transport> Drop for Kept<S> {
    fn drop(&mut self) {
        if self.closes {
            self.inner.close(None);
        }
    }
}

impl<S: Transport> Inner<S> {
    #[track_caller]
    fn write(self: Rc<Self>, mut data: &[u8]) -> State {
        if self.is_closed() {
            return State::Done(Err(self.closed_error()));
        }
        let mut unsent = self.unsent.borrow_mut();
        let waiting = (unsent.written - unsent.sent) as usize;
        if data.len() > self.options.max_write_buffer_size.saturating_sub(waiting) {
            return State::Done(Err(StreamError::WriteBufferFull));
        }
        unsent.written += data.len() as u64;
        let (last, is_first) = (unsent.written, unsent.is_empty());
        drop(unsent);
        if is_first && self.is_at_home() {
            // The call is no wait, so it has no waker. It has a budget of its own: if the caller's were spent,
            // nobody could be woken to go on when there is a new one. (Awaiting the write spends of that.)
            // And it asks by a waker that wakes nobody: if anything is left to send, the coroutine that
            // does so asks again, by its own.
            let _budget = resumption::fresh();
            let mut cx = Context::from_waker(Waker::noop());
            match self.send_now(&mut cx, &mut data) {
                Poll::Ready(Ok(())) => {
                    // Who writes by a poll function would not be woken, now that somebody else has asked.
                    wake(self.writer.take());
                    return State::Done(Ok(()));
                }
                Poll::Ready(Err(error)) => self.fail(error),
                Poll::Pending => {}
            }
            if self.is_closed() {
                return State::Done(Err(self.closed_error()));
            }
        }
        let (promise, future) = promise();
        let mut unsent = self.unsent.borrow_mut();
        if is_first {
            // The transport may have written to this stream when it was given these. That stands behind.
            let mut behind = std::mem::replace(&mut unsent.bytes, data.iter().copied().collect());
            unsent.bytes.append(&mut behind);
            unsent.writes.push_front((last, promise));
        } else {
            unsent.bytes.extend(data);
            unsent.writes.push_back((last, promise));
        }
        drop(unsent);
        if !self.sending.replace(true) {
            // Queued, and not started here and now: there is nothing that it could send so soon.
            let (home, sending) = (self.home(), resumption::here(Sending(self).send()));
            match home {
                Some(home) => drop(home.spawn(sending)),
                // Its loop is closed. Dropping this closes the stream with that error.
                None => drop(sending),
            }
        }
        State::Unsent(future)
    }

    /// Settles when what has been written so far is sent; none if nothing is unsent.
    fn all_sent(&self) -> Option<concurrent::Future<Result<(), StreamError>>> {
        let mut unsent = self.unsent.borrow_mut();
        if unsent.is_empty() {
            return None;
        }
        let ((promise, future), last) = (promise(), unsent.written);
        unsent.writes.push_back((last, promise));
        Some(future)
    }

    /// Sends from the front of `data`, as far as it goes without waiting.
    fn send_now(&self, cx: &mut Context<'_>, data: &mut &[u8]) -> Poll<io::Result<()>> {
        while !data.is_empty() {
            let sent = ready!(self.poll_send(cx, data, &[]))?;
            *data = &data[sent..];
        }
        self.poll_flush(cx)
    }

    /// Sends from the front of two slices, which a queue's bytes are in.
    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        front: &[u8],
        back: &[u8],
    ) -> Poll<io::Result<usize>> {
        let sent = ready!(self.poll_io(cx, |io, cx| match back {
            [] => io.poll_write(cx, front),
            back => io.poll_write_vectored(cx, &[IoSlice::new(front), IoSlice::new(back)]),
        }))?;
        if foreign::believed(sent, front.len() + back.len())? == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.unsent.borrow_mut().sent += sent as u64;
        Poll::Ready(Ok(sent))
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_io(cx, |io, cx| io.poll_flush(cx))
    }

    fn poll_send_all(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        foreign::discard(self.sender.replace(Some(cx.waker().clone())));
        loop {
            // Taken out while the transport is given them: that may write to this stream, so the queue
            // must not be borrowed.
            let mut bytes = std::mem::take(&mut self.unsent.borrow_mut().bytes);
            let polled = match bytes.as_slices() {
                ([], _) => Poll::Ready(Ok(0)),
                (front, back) => self.poll_send(cx, front, back),
            };
            if self.is_closed() {
                return Poll::Ready(Ok(()));
            }
            if let Poll::Ready(Ok(sent)) = polled {
                bytes.drain(..sent);
            }
            if !bytes.is_empty() {
                let mut unsent = self.unsent.borrow_mut();
                // What was written meanwhile stands behind.
                bytes.append(&mut unsent.bytes);
                unsent.bytes = bytes;
            }
            ready!(polled)?;
            if self.unsent.borrow().is_due() {
                ready!(self.poll_flush(cx))?;
                let done = self.unsent.borrow_mut().done();
                for promise in done {
                    promise.set_result(Ok(()));
                }
            }
            if self.is_closed() || self.unsent.borrow().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// Sends what is unsent, until nothing is or the stream is closed. If it is dropped before, its loop was
/// closed: nobody would send the rest then, so that closes the stream.
struct Sending<S: Transport>(Rc<Inner<S>>);

impl<S: Transport> Sending<S> {
    async fn send(self) {
        let inner = &self.0;
        match poll_fn(|cx| inner.poll_send_all(cx)).await {
            Err(error) => inner.fail(error),
            // The last handle was dropped while this was under way.
            Ok(()) if inner.handles.get() == 0 => inner.close(None),
            Ok(()) => {}
        }
    }
}

impl<S: Transport> Drop for Sending<S> {
    fn drop(&mut self) {
        let inner = &self.0;
        inner.sending.set(false);
        foreign::discard(inner.sender.take());
        if !inner.unsent.borrow().is_empty() {
            inner.close(Some(LoopClosed.into()));
        }
        wake(inner.writer.take());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::coroutine::moment;
    use crate::ioloop::IoLoop;
    use crate::sockets::UnixStream;
    use futures::FutureExt;
    use futures::io::{AsyncRead, AsyncWrite};
    use std::cell::RefCell;

    #[test]
    fn a_stream_that_has_nothing_to_do_owns_no_buffer() {
        let io_loop = IoLoop::new().unwrap();
        let done = io_loop.run_sync(|| async {
            let (one, other) = UnixStream::pair().unwrap();
            let (writer, reader) = (IoStream::new(one), IoStream::new(other));
            let written = writer.write(vec![0; 10_000_000]);
            assert!(writer.inner.unsent.borrow().bytes.capacity() > 1_000_000);
            reader.read_bytes(10_000_000).await.unwrap();
            written.await.unwrap();
            moment().await;
            assert_eq!(writer.inner.unsent.borrow().bytes.capacity(), 0);
            assert_eq!(reader.inner.received.borrow().capacity(), 0);
        });
        done.unwrap();
    }

    /// Takes as many bytes at each call as it is told, then none; writes to its own stream meanwhile.
    struct Reentrant {
        stream: Rc<RefCell<Option<IoStream<Reentrant>>>>,
        inner: Rc<RefCell<Option<Write>>>,
        seen: Rc<RefCell<Vec<u8>>>,
        takes: VecDeque<usize>,
    }

    impl AsyncRead for Reentrant {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Reentrant {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            let n = self.takes.pop_front().unwrap_or(0);
            if n == 0 {
                return Poll::Pending;
            }
            if let Some(stream) = self.stream.take() {
                *self.inner.borrow_mut() = Some(stream.write("b"));
            }
            self.seen.borrow_mut().extend(&buf[..n]);
            Poll::Ready(Ok(n))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn what_is_written_while_the_transport_is_given_bytes_stands_behind_those() {
        // In the coroutine that sends the rest, and in the write itself.
        for takes in [vec![0, 3], vec![1, 0, 2]] {
            let (own, inner, seen) = <(Rc<RefCell<_>>, Rc<RefCell<_>>, Rc<RefCell<_>>)>::default();
            let io = Reentrant {
                stream: own.clone(),
                inner: inner.clone(),
                seen: seen.clone(),
                takes: takes.into(),
            };
            let io_loop = IoLoop::new().unwrap();
            let done = io_loop.run_sync(|| async {
                let stream = IoStream::new(io);
                *own.borrow_mut() = Some(stream.clone());
                stream.write("aaa").await.unwrap();
                assert_eq!(*seen.borrow(), b"aaa");
                let mut inner = inner.take().unwrap();
                assert!((&mut inner).now_or_never().is_none(), "its byte was not sent");
                assert!(stream.writing());
                stream.close();
                assert!(inner.await.is_err());
            });
            done.unwrap();
        }
    }
}
