//! A stream as `AsyncRead` and `AsyncWrite`, for whatever takes any byte stream: codecs, TLS, HTTP.
//!
//! A future says that it has given up waiting, by being dropped. The caller of a poll function says
//! nothing: it just does not poll any more. So nobody can rely on its waiting. It does not make the stream
//! [`reading`](IoStream::reading), and [`closed`](IoStream::closed) goes on looking for the end of the
//! stream by itself. Both then wait for the transport to be readable. A transport wakes only the waker that
//! polled it last, so it is given one that wakes both.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::io::{AsyncRead, AsyncWrite};

use super::transport::{Transport, poll_for_both};
use super::{Inner, IoStream};
use crate::ground::error::StreamError;
use crate::ground::{foreign, resumption};

/// The error that the poll functions of writing give for `error`. A stream that was closed without an error
/// is a broken pipe for them, as a closed socket is.
fn write_error(error: StreamError) -> io::Error {
    match error {
        StreamError::Closed(None) => io::Error::new(io::ErrorKind::BrokenPipe, error),
        error => error.into(),
    }
}

impl<S: Transport> Inner<S> {
    /// Reads what has arrived, or if nothing has, from the transport.
    fn poll_read_into(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<Result<usize, StreamError>> {
        if self.reading.get() {
            return Poll::Ready(Err(StreamError::AlreadyReading));
        }
        if buf.is_empty() || self.received.borrow().len() > 0 {
            ready!(resumption::poll_proceed(cx));
            return Poll::Ready(Ok(self.received.borrow_mut().take_into(buf)));
        }
        if self.is_closed() {
            ready!(resumption::poll_proceed(cx));
            return Poll::Ready(match self.closed_error() {
                StreamError::Closed(None) => Ok(0),
                error => Err(error),
            });
        }
        if !self.is_at_home() {
            return Poll::Ready(Err(StreamError::OtherLoop));
        }
        foreign::discard(self.reader.replace(Some(cx.waker().clone())));
        let polled =
            poll_for_both(cx, &self.watcher, |cx| self.poll_io(cx, |io, cx| io.poll_read(cx, buf)));
        let read = ready!(polled).and_then(|read| foreign::believed(read, buf.len()));
        foreign::discard(self.reader.take());
        match read {
            Ok(n) => {
                if n == 0 {
                    self.close(None);
                }
                Poll::Ready(Ok(n))
            }
            Err(error) => {
                self.close(Some(error));
                Poll::Ready(Err(self.closed_error()))
            }
        }
    }

    /// Calls `write` with the transport as soon as everything that was written before has been sent. An
    /// error of `write` closes the stream.
    fn poll_write_side<T>(
        &self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<Result<T, StreamError>> {
        if self.is_closed() {
            return Poll::Ready(Err(self.closed_error()));
        }
        if !self.is_at_home() {
            return Poll::Ready(Err(StreamError::OtherLoop));
        }
        foreign::discard(self.writer.replace(Some(cx.waker().clone())));
        // The coroutine that sends these bytes wakes `writer` when it has sent them.
        if !self.unsent.borrow().is_empty() {
            return Poll::Pending;
        }
        let polled = ready!(self.poll_io(cx, write));
        foreign::discard(self.writer.take());
        Poll::Ready(polled.map_err(|error| {
            self.fail(error);
            self.closed_error()
        }))
    }
}

/// Gives what has arrived first, and then reads from the transport. Cancel safe: a poll that has to wait
/// has taken nothing.
///
/// While a read by one of [`IoStream`]'s own methods is under way, reading here is the error
/// [`StreamError::AlreadyReading`]; whoever waits here when such a read begins gets that error, too. As
/// with those methods, the end and an error close the stream in both directions. To write after the other
/// side has ended, take the transport out ([`into_inner`](IoStream::into_inner)) and write to that.
///
/// ```
/// use futures::AsyncReadExt;
/// use waterspout::{IoLoop, iostream::IoStream, net::UnixStream};
///
/// # IoLoop::new()?.run_sync(|| async {
/// let (here, there) = UnixStream::pair()?;
/// let mut here = IoStream::new(here);
/// there.write_all(b"3\nabc").await?;
/// drop(there);
/// assert_eq!(here.read_until(b"\n", 100).await?, b"3\n");
/// let mut body = String::new();
/// here.read_to_string(&mut body).await?;
/// assert_eq!(body, "abc");
/// # Ok::<(), std::io::Error>(())
/// # })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl<S: Transport> AsyncRead for IoStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_read_into(cx, buf).map_err(io::Error::from)
    }
}

/// Writes to the transport itself, and keeps nothing: it waits until everything that was written with
/// [`IoStream::write`] has been sent, and then until the transport takes some bytes. An error closes the
/// stream.
///
/// [`poll_close`](AsyncWrite::poll_close) ends the direction that is sent, if the transport can do that:
/// the other side then sees the end, and what it sends can still be read. Note that `stream.close()` is
/// [`IoStream::close`], which closes both directions; write `AsyncWriteExt::close(&mut stream)` for this
/// one.
///
/// ```
/// use futures::AsyncWriteExt;
/// use waterspout::{IoLoop, iostream::IoStream, net::UnixStream};
///
/// # IoLoop::new()?.run_sync(|| async {
/// let (here, there) = UnixStream::pair()?;
/// let mut here = IoStream::new(here);
/// here.write("a request, ");
/// here.write_all(b"and its rest").await?;
/// AsyncWriteExt::close(&mut here).await?;
/// let mut request = [0; 23];
/// there.read_exact(&mut request).await?;
/// assert_eq!(&request, b"a request, and its rest");
/// there.write_all(b"an answer").await?;
/// assert_eq!(here.read_bytes(9).await?, b"an answer");
/// # Ok::<(), std::io::Error>(())
/// # })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl<S: Transport> AsyncWrite for IoStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let write = |io: Pin<&mut S>, cx: &mut Context<'_>| {
            io.poll_write(cx, buf).map(|written| foreign::believed(written?, buf.len()))
        };
        self.inner.poll_write_side(cx, write).map_err(write_error)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let asked = bufs.iter().map(|buf| buf.len()).sum();
        let write = |io: Pin<&mut S>, cx: &mut Context<'_>| {
            io.poll_write_vectored(cx, bufs).map(|written| foreign::believed(written?, asked))
        };
        self.inner.poll_write_side(cx, write).map_err(write_error)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_write_side(cx, |io, cx| io.poll_flush(cx)).map_err(write_error)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(self.inner.poll_write_side(cx, |io, cx| io.poll_close(cx))) {
            // Closing a stream that was closed well does nothing.
            Err(StreamError::Closed(None)) => Poll::Ready(Ok(())),
            closed => Poll::Ready(closed.map_err(write_error)),
        }
    }
}
