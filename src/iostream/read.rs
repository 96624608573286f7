//! Reading: what a read wants, and until when it waits.

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

/// What a read finds in the bytes that have arrived.
enum Found {
    /// All that it wants: so many bytes from the front.
    First(usize),
    /// Not all: so many more are wanted.
    Wants(usize),
    /// Not all, and nobody knows how many more.
    More,
    /// It cannot come any more.
    Never(UnsatisfiableRead),
}

/// What comes after the bytes that have arrived.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    /// Nobody knows yet.
    More,
    /// Nothing, for an error has closed the stream.
    Error,
    /// Nothing: the stream has ended well.
    End,
}

/// What a read looks for.
trait Find {
    /// Finds it in the bytes that have arrived.
    fn find(&mut self, received: &[u8], after: After) -> Found;

    /// Nothing more has arrived. Ready if it wants to look again at what has.
    fn poll_idle(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

impl<F: FnMut(&[u8], After) -> Found> Find for F {
    fn find(&mut self, received: &[u8], after: After) -> Found {
        self(received, after)
    }
}

/// A read that looks for `find` in the bytes that have arrived. It keeps its stream open, as every handle
/// does.
struct Reading<S: Transport, F> {
    stream: IoStream<S>,
    find: F,
    /// Whether it is under way: it has been polled and is not done. A stream has one such read.
    begun: bool,
    /// Whether it has asked what the stream is over.
    asked: bool,
}

impl<S: Transport, F: Find> Reading<S, F> {
    /// Waits until all that is wanted has arrived, and gives it to `take`.
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
            // A read that has received something from a socket has spent of the resumption's budget. One
            // that is served from the buffer, or fails at once, spends here: else somebody who reads
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
                // If there is no room, the stream may still end just here, and then all is well. So one
                // more byte is asked for: only if that comes is it too much.
                (Found::More, Some(room)) => room.max(1),
                (Found::Wants(_) | Found::More, _) => {
                    let error = ReadBufferFull { max_buffer_size };
                    return Poll::Ready(Err(inner.give_up(io::ErrorKind::StorageFull, error)));
                }
            };
            if !inner.is_at_home() {
                return Poll::Ready(Err(StreamError::OtherLoop));
            }
            if !std::mem::replace(&mut self.asked, true) {
                // Who waits by a poll function would not be woken any more: only the last one who asks is.
                // He finds this read under way.
                wake(inner.reader.take());
            }
            foreign::discard(inner.reader.replace(Some(cx.waker().clone())));
            // Ready, something has come, or the stream was closed: either way, look again.
            match inner.poll_receive(cx, room) {
                Poll::Ready(()) => has_received = true,
                Poll::Pending => ready!(self.find.poll_idle(cx)),
            }
        }
    }
}

impl<S: Transport, F> Reading<S, F> {
    /// Lets others read: this is done, or was given up.
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
    /// A read cannot be satisfied: that closes the stream, and is the error.
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

/// So many bytes.
fn exactly(n: usize) -> impl FnMut(&[u8], After) -> Found {
    move |received, _| match n.checked_sub(received.len()) {
        None | Some(0) => Found::First(n),
        Some(missing) => Found::Wants(missing),
    }
}

/// From 1 to `most` bytes, as soon as there are any.
fn some(most: usize) -> impl FnMut(&[u8], After) -> Found {
    move |received, _| match received.len().min(most) {
        0 if most > 0 => Found::Wants(1),
        n => Found::First(n),
    }
}

/// What a read goes up to: a byte, which most often ends a line, or several, as they end a header.
enum Delimiter {
    Byte(u8),
    /// Boxed, for a finder is large and futures are moved.
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

/// Everything up to and with a delimiter; also the rest before the end, if `rest` says so.
fn delimited(
    delimiter: &[u8],
    max_bytes: usize,
    rest: bool,
) -> impl FnMut(&[u8], After) -> Found + use<> {
    let delimiter = Delimiter::new(delimiter);
    // Up to here it was looked for: it does not begin before this.
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

/// A search for a regular expression, and when it is worth while to search again.
///
/// A match may begin anywhere in what has arrived, so `regex` has to begin at the front each time.
/// Doing that for each chunk would take quadratic time. So it is done when
///
/// * there are twice as many bytes as at the last search: all these searches together look at no more
///   than twice as many bytes as the last of them, or
/// * nothing has come for as long as a search takes: so a match that is there is found although nothing
///   follows it, and no more than half of the time is spent in searching.
#[cfg(feature = "regex")]
struct Search {
    regex: regex::bytes::Regex,
    max_bytes: usize,
    max_buffer_size: usize,
    /// How many bytes were looked at in vain.
    searched: usize,
    /// How many there were when it was asked last, whether it searched or not.
    seen: usize,
    /// Runs from when it was found that nothing more has arrived, until it is time to search again...
    pause: Option<Sleep>,
    /// ...and then this is set.
    is_paused: bool,
}

#[cfg(feature = "regex")]
impl Search {
    /// So few bytes are looked at each time, which takes no longer than receiving them does.
    const FEW: usize = 4096;

    /// How long looking at so many bytes may take.
    fn takes(bytes: usize) -> Duration {
        Duration::from_nanos(bytes as u64)
    }
}

#[cfg(feature = "regex")]
impl Find for Search {
    fn find(&mut self, received: &[u8], after: After) -> Found {
        let (is_paused, have) = (std::mem::take(&mut self.is_paused), received.len());
        if std::mem::replace(&mut self.seen, have) != have {
            self.pause = None;
        }
        let is_full = have >= self.max_bytes.min(self.max_buffer_size);
        let is_due = have <= Search::FEW || have / 2 >= self.searched;
        if !(is_due || is_paused || is_full || after != After::More) {
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
        (self.pause, self.is_paused) = (None, true);
        Poll::Ready(())
    }
}

impl<S: Transport> IoStream<S> {
    fn start_reading<F: Find>(&self, find: F) -> Reading<S, F> {
        Reading { stream: self.clone(), find, begun: false, asked: false }
    }

    /// Reads what `find` finds.
    #[track_caller]
    fn read_found<F: Find>(
        &self,
        find: F,
    ) -> impl FusedFuture<Output = Result<Vec<u8>, StreamError>> + use<S, F> {
        let mut reading = self.start_reading(find);
        resumption::here(poll_fn(move |cx| reading.poll(cx, |received, n| received.take(n))))
    }

    /// Reads `n` bytes; none is done at once. Tornado: `read_bytes(n)`.
    ///
    /// Cancel safe: what has arrived stays in the stream. So are all reads of a stream.
    ///
    /// # Errors
    ///
    /// [`StreamError::Closed`] if the stream ends before; its error is [`ReadBufferFull`] if `n` is
    /// more than the stream may keep. [`StreamError::AlreadyReading`] if another read is under way.
    /// [`StreamError::OtherLoop`] if what has arrived is not enough, and it is awaited on another loop than
    /// the stream's. So for all reads.
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
    /// Cancel safe.
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

    /// Reads into `buf` as soon as there is anything, and tells how much. Tornado:
    /// `read_into(buf, partial=True)`.
    ///
    /// Cancel safe.
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

    /// Reads up to and with `delimiter`. Tornado: `read_until`.
    ///
    /// The delimiter has to end within `max_bytes`, or the stream is closed: what the other side sends
    /// without end must not fill the memory. Each byte is looked at once, so it takes linear time.
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// As [`read_bytes`](IoStream::read_bytes); [`StreamError::Closed`] with [`UnsatisfiableRead`].
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
    /// The match has to end within `max_bytes`, or the stream is closed. As a regular expression may
    /// match from anywhere, it is looked for from the beginning of what has arrived: not for each
    /// byte that comes, but when there are twice as many as the last time, or none comes for a
    /// nanosecond a byte. So it takes linear time altogether. Cancel safe.
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
            is_paused: false,
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
    /// than the stream may keep. Otherwise as [`read_bytes`](IoStream::read_bytes).
    #[track_caller]
    pub fn read_until_close(
        &self,
    ) -> impl FusedFuture<Output = Result<Vec<u8>, StreamError>> + use<S> {
        self.read_found(|received: &[u8], after| match after {
            After::End => Found::First(received.len()),
            After::More | After::Error => Found::More,
        })
    }

    /// Lines as a stream, without their ends (`\n` or `\r\n`); the last one may lack its end.
    ///
    /// It ends with the stream, or after its first error. A line of more than `max_bytes`, counted with
    /// its end, is an error, and closes the stream as [`read_until`](IoStream::read_until) does. Cancel
    /// safe: a line is taken whole. Other reads may come between two lines.
    #[track_caller]
    pub fn lines(
        &self,
        max_bytes: usize,
    ) -> impl Stream<Item = Result<Vec<u8>, StreamError>> + use<S> {
        let (stream, place) = (self.clone(), Location::caller());
        let begin = move || stream.start_reading(delimited(b"\n", max_bytes, true));
        // The line that is being read; none after the end.
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
            is_paused: false,
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
