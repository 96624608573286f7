//! Reading: what a read wants, and until when it waits.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use futures::stream::Stream;
use memchr::memmem::Finder;

use super::buffer::Buffer;
use super::{Inner, IoStream, Transport};
use crate::error::{ReadBufferFull, StreamError, UnsatisfiableRead};

/// What a read finds in the bytes that have arrived.
enum Found {
    /// All that it wants: so many bytes from the front.
    First(usize),
    /// Not all; so many more will do at the least, if that is known.
    Wants(usize),
    /// It cannot come any more.
    Never(UnsatisfiableRead),
}

/// A read that looks for `find` in the bytes that have arrived.
struct Reading<S: Transport, F> {
    inner: Rc<Inner<S>>,
    find: F,
    /// This is the read that is under way.
    begun: bool,
}

impl<S: Transport, F: FnMut(&[u8], bool) -> Found> Reading<S, F> {
    /// Waits until all that is wanted has arrived, and gives it to `take`.
    fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&mut Buffer, usize) -> T,
    ) -> Poll<Result<T, StreamError>> {
        let inner = &*self.inner;
        if !self.begun {
            if inner.reading.replace(true) {
                return Poll::Ready(Err(StreamError::AlreadyReading));
            }
            self.begun = true;
        }
        let limit = inner.options.max_buffer_size;
        loop {
            let (found, len) = {
                let received = inner.received.borrow();
                ((self.find)(received.as_slice(), inner.is_closed()), received.len())
            };
            let wants = match found {
                Found::First(n) => {
                    return Poll::Ready(Ok(take(&mut inner.received.borrow_mut(), n)));
                }
                Found::Wants(wants) => wants.max(1),
                Found::Never(unsatisfiable) => {
                    log::info!(target: "waterspout", "{unsatisfiable}: closing the connection");
                    let error = io::Error::new(io::ErrorKind::InvalidData, unsatisfiable);
                    inner.close(Some(error));
                    return Poll::Ready(Err(inner.closed_error()));
                }
            };
            if inner.is_closed() {
                return Poll::Ready(Err(inner.closed_error()));
            }
            if wants > limit - len.min(limit) {
                let full = ReadBufferFull { max_buffer_size: limit };
                log::info!(target: "waterspout", "{full}: closing the connection");
                inner.close(Some(io::Error::new(io::ErrorKind::StorageFull, full)));
                return Poll::Ready(Err(inner.closed_error()));
            }
            // Whether something has come or nothing more will: look again.
            ready!(inner.poll_receive(cx, limit - len));
        }
    }
}

impl<S: Transport, F> Drop for Reading<S, F> {
    fn drop(&mut self) {
        if self.begun {
            self.inner.reading.set(false);
        }
    }
}

impl<S: Transport> IoStream<S> {
    fn start_reading<F: FnMut(&[u8], bool) -> Found>(&self, find: F) -> Reading<S, F> {
        Reading { inner: self.inner.clone(), find, begun: false }
    }

    /// Reads what `find` finds.
    fn read_found<F: FnMut(&[u8], bool) -> Found>(
        &self,
        find: F,
    ) -> impl Future<Output = Result<Vec<u8>, StreamError>> + use<S, F> {
        let mut reading = self.start_reading(find);
        poll_fn(move |cx| reading.poll(cx, |received, n| received.take(n)))
    }

    /// Reads `n` bytes; none is done at once. Tornado: `read_bytes(n)`.
    ///
    /// Cancel safe: what has arrived stays in the stream. So are all reads of a stream.
    ///
    /// # Errors
    ///
    /// [`StreamError::Closed`] if the stream ends before; its error is [`ReadBufferFull`] if `n` is
    /// more than the stream may keep. [`StreamError::AlreadyReading`] if another read is under way. So
    /// for all reads.
    pub fn read_bytes(
        &self,
        n: usize,
    ) -> impl Future<Output = Result<Vec<u8>, StreamError>> + use<S> {
        self.read_found(move |received, _| match n.checked_sub(received.len()) {
            None | Some(0) => Found::First(n),
            Some(missing) => Found::Wants(missing),
        })
    }

    /// Reads from 1 to `most` bytes, as soon as there are any. Tornado:
    /// `read_bytes(n, partial=True)`.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// As [`read_bytes`](IoStream::read_bytes).
    pub fn read_some(
        &self,
        most: usize,
    ) -> impl Future<Output = Result<Vec<u8>, StreamError>> + use<S> {
        self.read_found(move |received, _| match received.len().min(most) {
            0 if most > 0 => Found::Wants(1),
            n => Found::First(n),
        })
    }

    /// Fills `buf`. Tornado: `read_into`.
    ///
    /// Cancel safe: nothing is copied into `buf` before all of it has arrived.
    ///
    /// # Errors
    ///
    /// As [`read_bytes`](IoStream::read_bytes).
    pub fn read_into(&self, buf: &mut [u8]) -> impl Future<Output = Result<(), StreamError>> {
        let n = buf.len();
        let mut reading =
            self.start_reading(move |received, _| match n.checked_sub(received.len()) {
                None | Some(0) => Found::First(n),
                Some(missing) => Found::Wants(missing),
            });
        poll_fn(move |cx| reading.poll(cx, |received, _| received.take_into(buf)).map_ok(drop))
    }

    /// Reads into `buf` as soon as there is anything, and tells how much. Tornado:
    /// `read_into(buf, partial=True)`.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// As [`read_bytes`](IoStream::read_bytes).
    pub fn read_some_into(
        &self,
        buf: &mut [u8],
    ) -> impl Future<Output = Result<usize, StreamError>> {
        let empty = buf.is_empty();
        let mut reading = self.start_reading(move |received, _| {
            if empty || !received.is_empty() { Found::First(0) } else { Found::Wants(1) }
        });
        poll_fn(move |cx| reading.poll(cx, |received, _| received.take_into(buf)))
    }

    /// Reads up to and with `delimiter`. Tornado: `read_until`.
    ///
    /// The delimiter has to end within `max_bytes`, or the stream is closed: what the other side sends
    /// without end must not fill the memory. Each byte is looked at once, so it takes linear time.
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// As [`read_bytes`](IoStream::read_bytes); [`StreamError::Closed`] with [`UnsatisfiableRead`].
    pub fn read_until<D: AsRef<[u8]>>(
        &self,
        delimiter: D,
        max_bytes: usize,
    ) -> impl Future<Output = Result<Vec<u8>, StreamError>> + use<S, D> {
        let finder = Finder::new(delimiter.as_ref()).into_owned();
        // Where the delimiter may begin that was not found yet.
        let mut from = 0;
        self.read_found(move |received, _| {
            let length = finder.needle().len();
            let within = &received[..received.len().min(max_bytes)];
            if let Some(at) = finder.find(&within[from.min(within.len())..]) {
                return Found::First(from + at + length);
            }
            from = (within.len() + 1).saturating_sub(length.max(1));
            if received.len() >= max_bytes {
                Found::Never(UnsatisfiableRead { max_bytes })
            } else {
                Found::Wants(1)
            }
        })
    }

    /// Reads up to the end of what matches a regular expression. Tornado: `read_until_regex`.
    ///
    /// The match has to end within `max_bytes`, or the stream is closed. What has arrived is searched
    /// again whenever more has, from its beginning, as a regular expression demands. Cancel safe.
    ///
    /// # Errors
    ///
    /// As [`read_until`](IoStream::read_until).
    #[cfg(feature = "regex")]
    pub fn read_until_regex(
        &self,
        regex: &regex::bytes::Regex,
        max_bytes: usize,
    ) -> impl Future<Output = Result<Vec<u8>, StreamError>> + use<S> {
        let regex = regex.clone();
        self.read_found(move |received, _| {
            let found = regex.find(received).map(|found| found.end());
            match found {
                Some(end) if end <= max_bytes => Found::First(end),
                None if received.len() < max_bytes => Found::Wants(1),
                _ => Found::Never(UnsatisfiableRead { max_bytes }),
            }
        })
    }

    /// Reads everything until the stream is closed; what is left, if it is closed already. Tornado:
    /// `read_until_close`.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// [`StreamError::Closed`] if an error closes the stream, or with [`ReadBufferFull`] if it is more
    /// than the stream may keep. [`StreamError::AlreadyReading`].
    pub fn read_until_close(&self) -> impl Future<Output = Result<Vec<u8>, StreamError>> + use<S> {
        let inner = self.inner.clone();
        self.read_found(move |received, closed| match closed {
            true if inner.error.borrow().is_none() => Found::First(received.len()),
            _ => Found::Wants(1),
        })
    }

    /// Lines as a stream, without their ends (`\n` or `\r\n`); the last one may lack its end. It ends
    /// with the stream, or after an error, which a line of more than `max_bytes` is, too.
    pub fn lines(
        &self,
        max_bytes: usize,
    ) -> impl Stream<Item = Result<Vec<u8>, StreamError>> + use<S> {
        futures::stream::unfold(Some(self.clone()), move |stream| async move {
            let stream = stream?;
            match stream.read_until(b"\n", max_bytes).await {
                Ok(mut line) => {
                    line.pop();
                    if line.last() == Some(&b'\r') {
                        line.pop();
                    }
                    Some((Ok(line), Some(stream)))
                }
                Err(StreamError::Closed(None)) => {
                    let rest = stream.read_until_close().await;
                    match rest {
                        Ok(rest) if rest.is_empty() => None,
                        rest => Some((rest, None)),
                    }
                }
                Err(error) => Some((Err(error), None)),
            }
        })
    }
}
