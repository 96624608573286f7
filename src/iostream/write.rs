//! Writing: as much as possible is sent at once, and the rest by a coroutine of the stream.

use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::panic::Location;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use futures::future::FusedFuture;

use super::transport::Transport;
use super::unsent::Pieces;
use super::{Inner, IoStream};
use crate::concurrent::{self, promise};
use crate::ground::error::{LoopClosed, StreamError};
use crate::ground::wait_queue::wake;
use crate::ground::{foreign, resumption};

/// A write that is under way or done; from [`IoStream::write`]. Awaiting it is optional: if it is dropped,
/// the bytes are sent all the same.
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

impl Write {
    #[track_caller]
    fn of(state: State) -> Write {
        Write { state, place: Location::caller(), is_done: false }
    }
}

impl Future for Write {
    type Output = Result<(), StreamError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = match &mut self.state {
            // The call of `write`, which has sent the bytes, has not spent of the caller's budget. This does.
            State::Done(Ok(())) => resumption::poll_proceed(cx).map(Ok),
            State::Done(Err(error)) => Poll::Ready(Err(error.clone())),
            // The promise is dropped only if the stream is, and then the stream is closed.
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
    /// Writes bytes, after all those that were written before. Tornado: `write`.
    ///
    /// The call sends as many bytes as the transport takes now. The stream keeps the others, and a
    /// coroutine of its own sends them when the transport takes more. (While another loop than the stream's
    /// is current, the call sends nothing, and all bytes wait for the stream's loop to run.) Awaiting the
    /// write waits until its last byte has been handed to the system. Await it if you write faster than the
    /// other side reads; otherwise what is unsent grows.
    ///
    /// Cancel safe: what was written is sent, also if the future is dropped.
    ///
    /// # Errors
    ///
    /// Errors come from awaiting the write, not from the call.
    ///
    /// * [`StreamError::Closed`] if the stream is closed, or is closed before the last byte was sent.
    ///   Closing the stream's loop does that, too.
    /// * [`StreamError::WriteBufferFull`] if too many bytes are unsent already. None of these bytes was
    ///   written then, and the stream stays open.
    ///
    /// # Panics
    ///
    /// If the stream's loop has as many live coroutines as it can have: 16,777,215, or 262,143 on 32-bit
    /// targets.
    #[track_caller]
    pub fn write(&self, data: impl AsRef<[u8]>) -> Write {
        Write::of(
            self.inner.clone().write(data.as_ref(), |pieces, data, part| pieces.copy(&data[part])),
        )
    }

    /// [`write`](IoStream::write) of bytes that the stream may keep. What the transport does not take at once
    /// is not copied: the stream keeps `data` itself until its last byte is sent, or the stream is closed.
    ///
    /// `data` is a `Vec<u8>` or a `String`, say. If many streams send the same, it is an `Rc<[u8]>` or a
    /// `Bytes` (of the crate `bytes`), of which each has a clone.
    ///
    /// Cancel safe: what was written is sent, also if the future is dropped.
    ///
    /// # Errors
    ///
    /// As [`write`](IoStream::write). [`StreamError::Closed`], too, if the number of bytes in `data` becomes
    /// less while the stream keeps it.
    ///
    /// # Panics
    ///
    /// As [`write`](IoStream::write).
    ///
    /// ```
    /// use std::rc::Rc;
    /// use waterspout::{IoLoop, iostream::IoStream, net::UnixStream};
    ///
    /// # IoLoop::new()?.run_sync(|| async {
    /// let news: Rc<[u8]> = vec![b'x'; 1_000_000].into();
    /// let mut readers = Vec::new();
    /// for _ in 0..3 {
    ///     let (here, there) = UnixStream::pair()?;
    ///     IoStream::new(here).write_owned(news.clone());
    ///     readers.push(IoStream::new(there));
    /// }
    /// for reader in readers {
    ///     assert_eq!(reader.read_until_close().await?, *news);
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// # })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn write_owned(&self, data: impl AsRef<[u8]> + 'static) -> Write {
        Write::of(self.inner.clone().write(data, Pieces::own))
    }

    /// Writes bytes that need not be sent at once: they are gathered, up to 64 KiB, and sent together. So many
    /// small writes cost few system calls. Tornado has no counterpart; the name is that of
    /// `futures::SinkExt::feed`.
    ///
    /// What was fed is sent before anything else that is written, by [`flush`](IoStream::flush) or the next
    /// [`write`](IoStream::write), when no more fits, and at the latest in the next turn of the stream's
    /// loop. So nothing is left behind if nobody flushes.
    ///
    /// Awaiting this waits only if the bytes do not fit, and then until they have been handed to the system,
    /// as for [`write`](IoStream::write). To know that what was fed is sent, await a flush.
    ///
    /// Cancel safe: what was fed is sent, also if the future is dropped.
    ///
    /// # Errors
    ///
    /// As [`write`](IoStream::write). If the stream is closed before the bytes are sent, a later flush says
    /// so.
    ///
    /// # Panics
    ///
    /// As [`write`](IoStream::write).
    ///
    /// ```
    /// use waterspout::{IoLoop, iostream::IoStream, net::UnixStream};
    ///
    /// # IoLoop::new()?.run_sync(|| async {
    /// let (here, there) = UnixStream::pair()?;
    /// let here = IoStream::new(here);
    /// for n in 0..3 {
    ///     here.feed(format!("{n}\n")).await?;
    /// }
    /// here.flush().await?; // one system call
    /// let mut got = [0; 100];
    /// assert_eq!(there.read(&mut got).await?, 6);
    /// # Ok::<(), std::io::Error>(())
    /// # })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn feed(&self, data: impl AsRef<[u8]>) -> Write {
        Write::of(self.inner.clone().feed(data.as_ref()))
    }

    /// Sends what was [fed](IoStream::feed). Awaiting it waits until everything that was written or fed
    /// before has been handed to the system. Tornado: awaiting a `write(b"")`.
    ///
    /// (This is not [`AsyncWriteExt::flush`](futures::AsyncWriteExt::flush), which does the same, but sends
    /// only when it is awaited.)
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// [`StreamError::Closed`] if the stream is closed, or is closed before the last byte was sent.
    ///
    /// # Panics
    ///
    /// As [`write`](IoStream::write).
    #[track_caller]
    pub fn flush(&self) -> Write {
        self.write([])
    }

    /// A guard with which a server sees to the end of a stream that its handler uses.
    pub(crate) fn close_on_drop(&self) -> CloseOnDrop<S> {
        CloseOnDrop { inner: self.inner.clone(), closes: true }
    }
}

/// Dropping this closes the stream, and what is unsent is lost, unless [`all_sent`](CloseOnDrop::all_sent)
/// was awaited to its end. It is not a handle of the stream: when all handles are dropped and everything is
/// sent, the stream is closed although this is there.
pub(crate) struct CloseOnDrop<S: Transport> {
    inner: Rc<Inner<S>>,
    closes: bool,
}

impl<S: Transport> CloseOnDrop<S> {
    /// Waits until everything that was written has been sent, or the stream is closed. Then the stream is
    /// left as it is: a handle that somebody still has keeps it open.
    pub(crate) async fn all_sent(mut self) {
        while let Some(sent) = self.inner.all_sent() {
            // If an error has closed the stream, nothing is unsent any more, and the loop ends.
            let _ = sent.await;
        }
        self.closes = false;
    }
}

impl<S: Transport> Drop for CloseOnDrop<S> {
    fn drop(&mut self) {
        if self.closes {
            self.inner.close(None);
        }
    }
}

impl<S: Transport> Inner<S> {
    /// Sends `data` after everything else that is unsent. The part of it that cannot be sent now, `keep` adds
    /// to the pieces.
    #[track_caller]
    fn write<D: AsRef<[u8]>>(
        self: Rc<Self>,
        data: D,
        keep: impl FnOnce(&mut Pieces, D, Range<usize>),
    ) -> State {
        if self.is_closed() {
            return State::Done(Err(self.closed_error()));
        }
        let bytes = data.as_ref();
        let mut unsent = self.unsent.borrow_mut();
        if !unsent.has_room(bytes.len(), self.options.max_write_buffer_size) {
            return State::Done(Err(StreamError::WriteBufferFull));
        }
        unsent.written += bytes.len() as u64;
        let last = unsent.written;
        // Only if nobody waits for the transport to take more.
        let at_once = (unsent.is_empty() || unsent.gathering) && self.is_at_home();
        unsent.gathering = false;
        let mut pieces = match at_once {
            true => std::mem::take(&mut unsent.pieces),
            false => Pieces::default(),
        };
        drop(unsent);
        let mut rest = bytes;
        if at_once {
            // This is a call and not a future, so it has no waker. Two things follow. It has a budget of
            // its own: were the caller's budget spent, there would be no waker to go on by with the next
            // one. (Awaiting the write spends of the caller's.) And it polls the transport with a waker
            // that wakes nobody: if anything is left to send, the coroutine that sends it polls again, with
            // its own waker.
            let _budget = resumption::fresh();
            let mut cx = Context::from_waker(Waker::noop());
            match self.send_now(&mut cx, &mut pieces, &mut rest) {
                Poll::Ready(Ok(())) => {
                    // A task that waits by `AsyncWrite` polled the transport before this, and would not be
                    // woken any more, since a transport wakes only the waker that polled it last.
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
        let part = bytes.len() - rest.len()..bytes.len();
        let (promise, future) = promise();
        let mut unsent = self.unsent.borrow_mut();
        if at_once {
            keep(&mut pieces, data, part);
            pieces.settle();
            // While the transport was called with these bytes, it may have written to this stream itself.
            // Those bytes come after these.
            let behind = std::mem::replace(&mut unsent.pieces, pieces);
            unsent.pieces.append(behind);
            unsent.gathering = false;
            unsent.writes.push_front((last, promise));
        } else {
            keep(&mut unsent.pieces, data, part);
            unsent.writes.push_back((last, promise));
        }
        drop(unsent);
        self.start_sending();
        State::Unsent(future)
    }

    /// Keeps a copy of `data` to be sent with what comes after it; if that does not fit, writes it.
    #[track_caller]
    fn feed(self: Rc<Self>, data: &[u8]) -> State {
        if !self.is_closed() {
            let mut unsent = self.unsent.borrow_mut();
            if (unsent.is_empty() || unsent.gathering)
                && !data.is_empty()
                && unsent.has_room(data.len(), self.options.max_write_buffer_size)
                && unsent.pieces.gather(data)
            {
                unsent.written += data.len() as u64;
                unsent.gathering = true;
                drop(unsent);
                self.start_sending();
                return State::Done(Ok(()));
            }
        }
        self.write(data, |pieces, data, part| pieces.copy(&data[part]))
    }

    /// Sees to it that the coroutine that sends will run.
    #[track_caller]
    fn start_sending(self: Rc<Self>) {
        if !self.sending.replace(true) {
            // Queued, and not started here and now: it could not send anything yet.
            let (home, sending) = (self.home(), resumption::here(Sending(self).send()));
            match home {
                Some(home) => drop(home.spawn(sending)),
                // The stream's loop is closed. Dropping `Sending` closes the stream with the error that
                // says so.
                None => drop(sending),
            }
        }
    }

    /// A future that is ready when everything that was written so far has been sent; `None` if nothing is
    /// unsent.
    fn all_sent(&self) -> Option<concurrent::Future<Result<(), StreamError>>> {
        let mut unsent = self.unsent.borrow_mut();
        if unsent.is_empty() {
            return None;
        }
        unsent.gathering = false;
        let ((promise, future), last) = (promise(), unsent.written);
        unsent.writes.push_back((last, promise));
        Some(future)
    }

    /// Sends bytes from the front of the pieces and then of `data`, and removes them there, as long as the
    /// transport takes them.
    fn send_now(
        &self,
        cx: &mut Context<'_>,
        pieces: &mut Pieces,
        data: &mut &[u8],
    ) -> Poll<io::Result<()>> {
        while !(pieces.is_empty() && data.is_empty()) {
            let sent = ready!(self.poll_send(cx, pieces, data))?;
            *data = &data[pieces.consume(sent)..];
        }
        self.poll_flush(cx)
    }

    /// Sends bytes from the front of the pieces and then of `data`, and gives their number.
    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        pieces: &Pieces,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let (asked, sent) = ready!(self.poll_io(cx, |io, cx| {
            let (asked, polled) = pieces.slices(data, |slices| match slices {
                [only] => io.poll_write(cx, only),
                slices => io.poll_write_vectored(cx, slices),
            })?;
            polled.map_ok(|sent| (asked, sent))
        }))?;
        if foreign::believed(sent, asked)? == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.unsent.borrow_mut().sent += sent as u64;
        Poll::Ready(Ok(sent))
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_io(cx, |io, cx| io.poll_flush(cx))
    }

    /// Sends everything that is unsent, and settles the writes that are done.
    fn poll_send_all(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        foreign::discard(self.sender.replace(Some(cx.waker().clone())));
        loop {
            // The bytes are taken out while the transport is called with them: it may write to this stream
            // itself, and would find the queue borrowed.
            let mut pieces = {
                let mut unsent = self.unsent.borrow_mut();
                if std::mem::take(&mut unsent.gathering) {
                    // From here on these bytes belong to a write, for which nobody waits, so that the
                    // transport is flushed after them, and what is written meanwhile is sent behind them.
                    let write = (unsent.written, promise().0);
                    unsent.writes.push_back(write);
                }
                std::mem::take(&mut unsent.pieces)
            };
            let polled = match pieces.is_empty() {
                true => Poll::Ready(Ok(0)),
                false => self.poll_send(cx, &pieces, &[]),
            };
            if self.is_closed() {
                pieces.discard();
                return Poll::Ready(Ok(()));
            }
            match polled {
                Poll::Ready(Ok(sent)) => _ = pieces.consume(sent),
                Poll::Ready(Err(_)) => {}
                Poll::Pending => pieces.settle(),
            }
            if self.is_closed() {
                // A destructor of what was sent has closed it.
                pieces.discard();
                return Poll::Ready(Ok(()));
            }
            if !pieces.is_empty() {
                let mut unsent = self.unsent.borrow_mut();
                // What was written meanwhile comes after these bytes.
                let behind = std::mem::replace(&mut unsent.pieces, pieces);
                unsent.pieces.append(behind);
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

/// The coroutine that sends what is unsent, until nothing is unsent or the stream is closed. If it is
/// dropped before that, the stream's loop was closed. Nobody would send the rest then, so dropping it
/// closes the stream.
struct Sending<S: Transport>(Rc<Inner<S>>);

impl<S: Transport> Sending<S> {
    async fn send(self) {
        let inner = &self.0;
        match poll_fn(|cx| inner.poll_send_all(cx)).await {
            Err(error) => inner.fail(error),
            // The last handle was dropped while this coroutine was sending.
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
            assert!(writer.inner.unsent.borrow().pieces.capacity() > 1_000_000);
            reader.read_bytes(10_000_000).await.unwrap();
            written.await.unwrap();
            moment().await;
            assert_eq!(writer.inner.unsent.borrow().pieces.capacity(), 0);
            assert_eq!(reader.inner.received.borrow().capacity(), 0);
        });
        done.unwrap();
    }

    /// A transport that takes the given number of bytes at each call, and then none. During the first call
    /// that takes any, it writes to its own stream.
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
        // The transport writes to its stream while the coroutine that sends the rest calls it, and then
        // while the call of `write` itself does.
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
