//! Reading: what a read looks for in the bytes that have arrived, and how it waits for more.

use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::panic::Location;
#[cfg(feature = "regex")]
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
#[cfg(feature = "regex")]
use std::time::Duration;

use futures::stream::Stream;
use memchr::memchr;
use memchr::memmem::Finder;

use futures::future::FusedFuture;

use super::buffer::Buffer;
use super::{Inner, IoStream, Transport};
#[cfg(feature = "regex")]
use crate::coroutine::{Sleep, sleep};
use crate::ground::error::{ReadBufferFull, StreamError, UnsatisfiableRead};
use crate::ground::wait_queue::wake;
use crate::ground::{foreign, report, resumption};

/// What a read has found in the bytes that have arrived.
enum Found {
    /// Everything that it wants: this many bytes from the front.
    First(usize),
    /// Not everything: it wants this many more bytes.
    Wants(usize),
    /// Not everything, and it cannot know how many more bytes it wants.
    More,
    /// It cannot be satisfied, whatever comes.
    Never(UnsatisfiableRead),
}

/// What can come after the bytes that have arrived.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    /// More bytes: the stream is open.
    More,
    /// Nothing: an error has closed the stream.
    Error,
    /// Nothing: the stream was closed without an error.
    End,
}

/// What a read looks for.
trait Find {
    /// Looks for it in all the bytes that have arrived.
    fn find(&mut self, received: &[u8], after: After) -> Found;

    /// Called while nothing more arrives. Ready if `find` is to be called again with the same bytes.
    fn poll_idle(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

impl<F: FnMut(&[u8], After) -> Found> Find for F {
    fn find(&mut self, received: &[u8], after: After) -> Found {
        self(received, after)
    }
}

/// A read that waits until `find` has found what it wants. It has a handle of its stream, and so keeps the
/// stream open.
struct Reading<S: Transport, F> {
    stream: IoStream<S>,
    find: F,
    /// Whether it is under way: it has been polled and is not done. A stream has at most one such read.
    begun: bool,
    /// Whether it has polled the transport.
    has_polled: bool,
}

impl<S: Transport, F: Find> Reading<S, F> {
    /// Waits until everything that the read wants has arrived. Then `take` takes it, which is the given
    /// number of bytes, out of the buffer.
    fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&mut Buffer, usize) -> T,
    ) -> Poll<Result<T, StreamError>> {
        if !self.begun {
            if self.stream.inner.reading.replace(true) {
                return Poll::Ready(Err(StreamError::AlreadyReading));
            }
            self.begun = true;
        }
        let found = ready!(self.poll_found(cx));
        self.end();
        Poll::Ready(found.map(|n| take(&mut self.stream.inner.received.borrow_mut(), n)))
    }

    /// Waits for the number of bytes that satisfy the read, from the front of the buffer.
    fn poll_found(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, StreamError>> {
        let inner = &*self.stream.inner;
        let max_buffer_size = inner.options.max_buffer_size;
        let mut has_received = false;
        loop {
            let after = match inner.is_closed() {
                false => After::More,
                true if inner.error.borrow().is_none() => After::End,
                true => After::Error,
            };
            let received = inner.received.borrow();
            let found = self.find.find(received.as_slice(), after);
            let room = max_buffer_size.checked_sub(received.len());
            drop(received);
            // Receiving from a socket has spent of the resumption's budget already. A read that is served
            // from the buffer, or fails at once, spends of it here. Otherwise a coroutine that reads
            // millions of short lines from one chunk would never let others run.
            let proceed = |cx: &Context<'_>| match has_received {
                true => Poll::Ready(()),
                false => resumption::poll_proceed(cx),
            };
            let room = match (found, room) {
                (Found::First(n), _) => return proceed(cx).map(|()| Ok(n)),
                (Found::Never(error), _) => {
                    ready!(proceed(cx));
                    return Poll::Ready(Err(inner.give_up(io::ErrorKind::InvalidData, error)));
                }
                _ if after != After::More => {
                    return proceed(cx).map(|()| Err(inner.closed_error()));
                }
                (Found::Wants(wants), Some(room)) if wants <= room => room,
                // The stream may end just where the buffer is full, and then the read succeeds. So one more
                // byte is asked for; only if that byte comes has too much arrived.
                (Found::More, Some(room)) => room.max(1),
                (Found::Wants(_) | Found::More, _) => {
                    let error = ReadBufferFull { max_buffer_size };
                    return Poll::Ready(Err(inner.give_up(io::ErrorKind::StorageFull, error)));
                }
            };
            if !inner.is_at_home() {
                return Poll::Ready(Err(StreamError::OtherLoop));
            }
            if !std::mem::replace(&mut self.has_polled, true) {
                // A task that waits by `AsyncRead` has polled the transport before, and would not be woken
                // any more, since a transport wakes only the waker that polled it last. Woken here, that
                // task gets the error that a read is under way.
                wake(inner.reader.take());
            }
            foreign::discard(inner.reader.replace(Some(cx.waker().clone())));
            // If this is ready, bytes have arrived or the stream was closed. In both cases look again.
            match inner.poll_receive(cx, room) {
                Poll::Ready(()) => has_received = true,
                Poll::Pending => ready!(self.find.poll_idle(cx)),
            }
        }
    }
}

impl<S: Transport, F> Reading<S, F> {
    /// Lets others read, when this read is done or is dropped.
    fn end(&mut self) {
        if std::mem::take(&mut self.begun) {
            let inner = &*self.stream.inner;
            inner.reading.set(false);
            if let Some(waker) = inner.reader.take() {
                foreign::discard(waker);
            }
            inner.watch_again();
        }
    }
}

impl<S: Transport, F> Drop for Reading<S, F> {
    fn drop(&mut self) {
        self.end();
    }
}

impl<S: Transport> Inner<S> {
    /// Closes the stream because a read cannot be satisfied, and gives the error of that read.
    fn give_up(
        &self,
        kind: io::ErrorKind,
        error: impl Error + Send + Sync + 'static,
    ) -> StreamError {
        if self.is_closed() {
            return StreamError::Closed(Some(Arc::new(io::Error::new(kind, error))));
        }
        report::info(report::IOSTREAM, format_args!("{error}: closing the connection"));
        self.close(Some(io::Error::new(kind, error)));
        self.closed_error()
    }
}

/// Looks for `n` bytes.
fn exactly(n: usize) -> impl FnMut(&[u8], After) -> Found {
    move |received, _| match n.checked_sub(received.len()) {
        None | Some(0) => Found::First(n),
        Some(missing) => Found::Wants(missing),
    }
}

/// Looks for any number of bytes from 1 to `most`, as soon as there are any; if `most` is 0, for none.
fn some(most: usize) -> impl FnMut(&[u8], After) -> Found {
    move |received, _| match received.len().min(most) {
        0 if most > 0 => Found::Wants(1),
        n => Found::First(n),
    }
}

/// The delimiter that a read goes up to: one byte, which usually ends a line, or several, which may end a
/// header.
enum Delimiter {
    Byte(u8),
    /// Boxed because a `Finder` is large and the read's future, which has it, is moved.
    Bytes(Box<Finder<'static>>),
}

impl Delimiter {
    fn new(bytes: &[u8]) -> Delimiter {
        match *bytes {
            [byte] => Delimiter::Byte(byte),
            _ => Delimiter::Bytes(Box::new(Finder::new(bytes).into_owned())),
        }
    }

    fn len(&self) -> usize {
        match self {
            Delimiter::Byte(_) => 1,
            Delimiter::Bytes(finder) => finder.needle().len(),
        }
    }

    fn find(&self, within: &[u8]) -> Option<usize> {
        match self {
            Delimiter::Byte(byte) => memchr(*byte, within),
            Delimiter::Bytes(finder) => finder.find(within),
        }
    }
}

/// Looks for everything up to and including the delimiter. If `rest` is true and the stream ends well
/// without a delimiter, it takes what is left.
fn delimited(
    delimiter: &[u8],
    max_bytes: usize,
    rest: bool,
) -> impl FnMut(&[u8], After) -> Found + use<> {
    let delimiter = Delimiter::new(delimiter);
    // The delimiter was looked for and does not begin before this index.
    let mut from = 0;
    move |received, after| {
        let within = &received[..received.len().min(max_bytes)];
        if let Some(at) = delimiter.find(&within[from..]) {
            return Found::First(from + at + delimiter.len());
        }
        from = (within.len() + 1).saturating_sub(delimiter.len());
        if rest && after == After::End && (1..=max_bytes).contains(&received.len()) {
            Found::First(received.len())
        } else if received.len() >= max_bytes {
            Found::Never(UnsatisfiableRead { max_bytes })
        } else {
            Found::More
        }
    }
}

/// Looks for a regular expression, and knows when it is time to look again.
///
/// A match may begin anywhere in what has arrived, and `regex` cannot go on where it stopped, so each search
/// begins at the front. A search for each chunk that arrives would take quadratic time. So there is a search
///
/// * when there are twice as many bytes as at the last search. All these searches together look at no more
///   than twice as many bytes as the last of them.
/// * when nothing has arrived for as long as a search takes. So a match is found although nothing follows
///   it, and no more than half of the time is spent searching.
#[cfg(feature = "regex")]
struct Search {
    regex: regex::bytes::Regex,
    max_bytes: usize,
    max_buffer_size: usize,
    /// How many bytes there were at the last search, which found nothing.
    searched: usize,
    /// How many bytes there were at the last call of `find`, whether that searched or not.
    seen: usize,
    /// Runs while nothing more arrives, until it is time to search again.
    pause: Option<Sleep>,
    /// Whether a pause has run to its end, so that the next call of `find` is to search.
    has_paused: bool,
}

#[cfg(feature = "regex")]
impl Search {
    /// Up to this many bytes are searched each time, since that takes no longer than receiving them.
    const FEW: usize = 4096;

    /// How long a search in this many bytes takes, by estimate: a nanosecond a byte.
    fn takes(bytes: usize) -> Duration {
        Duration::from_nanos(bytes as u64)
    }
}

#[cfg(feature = "regex")]
impl Find for Search {
    fn find(&mut self, received: &[u8], after: After) -> Found {
        let (has_paused, have) = (std::mem::take(&mut self.has_paused), received.len());
        if std::mem::replace(&mut self.seen, have) != have {
            self.pause = None;
        }
        let is_full = have >= self.max_bytes.min(self.max_buffer_size);
        let is_due = have <= Search::FEW || have / 2 >= self.searched;
        if !(is_due || has_paused || is_full || after != After::More) {
            return Found::More;
        }
        match self.regex.find(received).map(|found| found.end()) {
            Some(end) if end <= self.max_bytes => Found::First(end),
            None if have < self.max_bytes => {
                self.searched = have;
                Found::More
            }
            _ => Found::Never(UnsatisfiableRead { max_bytes: self.max_bytes }),
        }
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.searched >= self.seen {
            return Poll::Pending;
        }
        let pause = self.pause.get_or_insert_with(|| sleep(Search::takes(self.seen)));
        ready!(Pin::new(pause).poll(cx));
        (self.pause, self.has_paused) = (None, true);
        Poll::Ready(())
    }
}

impl<S: Transport> IoStream<S> {
    fn start_reading<F: Find>(&self, find: F) -> Reading<S, F> {
        Reading { stream: self.clone(), find, begun: false, has_polled: false }
    }

    /// Reads the bytes that `find` finds.
    #[track_caller]
    fn read_found<F: Find>(
        &self,
        find: F,
    ) -> impl FusedFuture<Output = Result<Vec<u8>, StreamError>> + use<S, F> {
        let mut reading = self.start_reading(find);
        resumption::here(poll_fn(move |cx| reading.poll(cx, |received, n| received.take(n))))
    }

    /// Reads `n` bytes. Reading 0 bytes is done at once. Tornado: `read_bytes(n)`.
    ///
    /// Cancel safe, as all reads of a stream are: what has arrived stays in the stream.
    ///
    /// # Errors
    ///
    /// All reads of a stream can give these errors.
    ///
    /// * [`StreamError::Closed`] if the stream ends before the read has everything. The error in it is
    ///   [`ReadBufferFull`] if the read wants more than the stream may keep.
    /// * [`StreamError::AlreadyReading`] if another read is under way.
    /// * [`StreamError::OtherLoop`] if what has arrived is not enough, and the read is awaited on another
    ///   loop than the stream's.
    #[track_caller]
    pub fn read_bytes(
        &self,
        n: usize,
    ) -> impl FusedFuture<Output = Result<Vec<u8>, StreamError>> + use<S> {
        self.read_found(exactly(n))
    }

    /// Reads from 1 to `most` bytes, as soon as there are any. Tornado:
    /// `read_bytes(n, partial=True)`.
    ///
    /// Cancel safe: what has arrived stays in the stream.
    ///
    /// # Errors
    ///
    /// As [`read_bytes`](IoStream::read_bytes).
    #[track_caller]
    pub fn read_some(
        &self,
        most: usize,
    ) -> impl FusedFuture<Output = Result<Vec<u8>, StreamError>> + use<S> {
        self.read_found(some(most))
    }

    /// Fills `buf`. Tornado: `read_into`.
    ///
    /// Cancel safe: nothing is copied into `buf` before all of it has arrived.
    ///
    /// # Errors
    ///
    /// As [`read_bytes`](IoStream::read_bytes).
    #[track_caller]
    pub fn read_into(&self, buf: &mut [u8]) -> impl FusedFuture<Output = Result<(), StreamError>> {
        let mut reading = self.start_reading(exactly(buf.len()));
        resumption::here(poll_fn(move |cx| {
            reading.poll(cx, |received, _| received.take_into(buf)).map_ok(drop)
        }))
    }

    /// Reads into `buf` as soon as there are any bytes, and gives their number. Tornado:
    /// `read_into(buf, partial=True)`.
    ///
    /// Cancel safe: what has arrived stays in the stream.
    ///
    /// # Errors
    ///
    /// As [`read_bytes`](IoStream::read_bytes).
    #[track_caller]
    pub fn read_some_into(
        &self,
        buf: &mut [u8],
    ) -> impl FusedFuture<Output = Result<usize, StreamError>> {
        let mut reading = self.start_reading(some(buf.len()));
        resumption::here(poll_fn(move |cx| reading.poll(cx, |received, _| received.take_into(buf))))
    }

    /// Reads up to and including `delimiter`. Tornado: `read_until`.
    ///
    /// If the delimiter does not end within `max_bytes`, the stream is closed: otherwise the other side
    /// could fill the memory by sending without end. Each byte is looked at once, so this takes linear
    /// time.
    ///
    /// Cancel safe: what has arrived stays in the stream.
    ///
    /// # Errors
    ///
    /// As [`read_bytes`](IoStream::read_bytes); [`StreamError::Closed`] with [`UnsatisfiableRead`] in it if
    /// the delimiter does not end within `max_bytes`.
    #[track_caller]
    pub fn read_until<D: AsRef<[u8]>>(
        &self,
        delimiter: D,
        max_bytes: usize,
    ) -> impl FusedFuture<Output = Result<Vec<u8>, StreamError>> + use<S, D> {
        self.read_found(delimited(delimiter.as_ref(), max_bytes, false))
    }

    /// Reads up to the end of what matches a regular expression. Tornado: `read_until_regex`.
    ///
    /// If the match does not end within `max_bytes`, the stream is closed.
    ///
    /// A match may begin anywhere, so each search begins at the front of what has arrived. There is a
    /// search when twice as many bytes have arrived as at the last search, and when nothing more has
    /// arrived for a while (a nanosecond for each byte that is there). So all searches together take linear
    /// time.
    ///
    /// Cancel safe: what has arrived stays in the stream.
    ///
    /// # Errors
    ///
    /// As [`read_until`](IoStream::read_until).
    #[cfg(feature = "regex")]
    #[track_caller]
    pub fn read_until_regex(
        &self,
        regex: &regex::bytes::Regex,
        max_bytes: usize,
    ) -> impl FusedFuture<Output = Result<Vec<u8>, StreamError>> + use<S> {
        self.read_found(Search {
            regex: regex.clone(),
            max_bytes,
            max_buffer_size: self.inner.options.max_buffer_size,
            searched: 0,
            seen: 0,
            pause: None,
            has_paused: false,
        })
    }

    /// Reads everything until the stream is closed; if it is closed already, what is left. Tornado:
    /// `read_until_close`.
    ///
    /// Cancel safe: what has arrived stays in the stream.
    ///
    /// # Errors
    ///
    /// [`StreamError::Closed`] if an error closes the stream. The error in it is [`ReadBufferFull`] if more
    /// arrives than the stream may keep. Otherwise as [`read_bytes`](IoStream::read_bytes).
    #[track_caller]
    pub fn read_until_close(
        &self,
    ) -> impl FusedFuture<Output = Result<Vec<u8>, StreamError>> + use<S> {
        self.read_found(|received: &[u8], after| match after {
            After::End => Found::First(received.len()),
            After::More | After::Error => Found::More,
        })
    }

    /// Reads lines, as a [`Stream`] of them, without the `\n` or `\r\n` at their ends. The last line need
    /// not have such an end.
    ///
    /// The lines end with this stream, or after the first error. A line of more than `max_bytes`, including
    /// its end, is an error, and closes this stream as [`read_until`](IoStream::read_until) does. Between
    /// two lines, other methods may read.
    ///
    /// Cancel safe: a line is taken only when all of it has arrived.
    #[track_caller]
    pub fn lines(
        &self,
        max_bytes: usize,
    ) -> impl Stream<Item = Result<Vec<u8>, StreamError>> + use<S> {
        let (stream, place) = (self.clone(), Location::caller());
        let begin = move || stream.start_reading(delimited(b"\n", max_bytes, true));
        // The read of the next line; `None` after the end.
        let mut reading = Some(begin());
        futures::stream::poll_fn(move |cx| {
            let Some(line) = &mut reading else { return Poll::Ready(None) };
            let polled = line.poll(cx, |received, n| received.take(n));
            if polled.is_pending() {
                resumption::waits_at(place);
            }
            match ready!(polled) {
                Ok(mut line) => {
                    reading = Some(begin());
                    if line.last() == Some(&b'\n') {
                        line.pop();
                        if line.last() == Some(&b'\r') {
                            line.pop();
                        }
                    }
                    Poll::Ready(Some(Ok(line)))
                }
                Err(error) => {
                    reading = None;
                    let ended = matches!(error, StreamError::Closed(None));
                    Poll::Ready((!ended).then_some(Err(error)))
                }
            }
        })
    }
}

#[cfg(all(test, feature = "regex"))]
mod tests {
    use super::*;
    use crate::ioloop::IoLoop;

    fn search(pattern: &str) -> Search {
        Search {
            regex: regex::bytes::Regex::new(pattern).unwrap(),
            max_bytes: usize::MAX,
            max_buffer_size: usize::MAX,
            searched: 0,
            seen: 0,
            pause: None,
            has_paused: false,
        }
    }

    #[test]
    fn a_regex_is_not_looked_for_again_in_all_that_has_arrived_with_each_piece() {
        let (mut search, bytes) = (search("bc"), vec![b'a'; 1 << 18]);
        let (mut looked_at, mut before) = (0, 0);
        for have in (1..=bytes.len()).step_by(100) {
            assert!(matches!(search.find(&bytes[..have], After::More), Found::More));
            if search.searched != std::mem::replace(&mut before, search.searched) {
                looked_at += search.searched;
            }
        }
        assert!(looked_at < 2 * bytes.len(), "{looked_at} bytes were looked at");
    }

    #[test]
    fn a_pause_that_takes_as_long_as_looking_is_enough_to_look_again() {
        let io_loop = IoLoop::builder().virtual_time().build().unwrap();
        let (mut search, mut bytes) = (search("bc"), vec![b'a'; 1 << 16]);
        assert!(matches!(search.find(&bytes, After::More), Found::More));
        bytes.extend(b"bc");
        assert!(matches!(search.find(&bytes, After::More), Found::More));
        let begun = io_loop.time();
        io_loop.run_sync(|| poll_fn(|cx| search.poll_idle(cx))).unwrap();
        assert_eq!(io_loop.time() - begun, Search::takes(bytes.len()));
        let Found::First(n) = search.find(&bytes, After::More) else { panic!("it is there") };
        assert_eq!(n, bytes.len());
    }
}
