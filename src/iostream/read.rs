//! Reading: what a read looks for in the bytes that have arrived, and how it waits for more.

use std::error::Error;
use std::io;
use std::panic::Location;
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

    /// Looks for it before anything else is done, in bytes that are there when the read begins: how many
    /// satisfy it. If it is `None`, `find` has the last word.
    fn find_at_once(&mut self, received: &[u8]) -> Option<usize> {
        match self.find(received, After::More) {
            Found::First(n) => Some(n),
            _ => None,
        }
    }

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

/// Where the bytes that a read has found go.
trait Take {
    type Output;

    /// Takes the first `n` bytes out of the buffer.
    fn take(&mut self, received: &mut Buffer, n: usize) -> Self::Output;
}

/// Into a vector of their own.
struct Fresh;

impl Take for Fresh {
    type Output = Vec<u8>;

    #[inline]
    fn take(&mut self, received: &mut Buffer, n: usize) -> Vec<u8> {
        received.take(n)
    }
}

/// Onto the end of the caller's vector; the output is their number.
struct Onto<'a>(&'a mut Vec<u8>);

impl Take for Onto<'_> {
    type Output = usize;

    #[inline]
    fn take(&mut self, received: &mut Buffer, n: usize) -> usize {
        received.take_onto(n, self.0);
        n
    }
}

/// Into the caller's slice, which has room for them; the output is their number.
struct Within<'a>(&'a mut [u8]);

impl Take for Within<'_> {
    type Output = usize;

    fn take(&mut self, received: &mut Buffer, n: usize) -> usize {
        received.take_into(&mut self.0[..n])
    }
}

/// Into the caller's slice, which they fill.
struct Full<'a>(&'a mut [u8]);

impl Take for Full<'_> {
    type Output = ();

    fn take(&mut self, received: &mut Buffer, n: usize) {
        received.take_into(&mut self.0[..n]);
    }
}

/// A stream that a read is of: a handle of its own, or a borrowed one. Either keeps the stream open.
trait Handle: Unpin {
    type Io: Transport;

    fn inner(&self) -> &Inner<Self::Io>;
}

impl<S: Transport> Handle for IoStream<S> {
    type Io = S;

    #[inline]
    fn inner(&self) -> &Inner<S> {
        &self.inner
    }
}

impl<S: Transport> Handle for &IoStream<S> {
    type Io = S;

    #[inline]
    fn inner(&self) -> &Inner<S> {
        &self.inner
    }
}

/// A read that waits until `find` has found what it wants.
struct Reading<H: Handle, F> {
    stream: H,
    find: F,
    state: State,
}

/// How far a read has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    /// It is under way: it has been polled and is not done. A stream has at most one such read.
    Begun,
    /// It is under way, and has polled the transport.
    Waits,
    Done,
}

impl<H: Handle, F> Reading<H, F> {
    #[inline]
    fn new(stream: H, find: F) -> Reading<H, F> {
        Reading { stream, find, state: State::New }
    }
}

impl<H: Handle, F: Find> Reading<H, F> {
    /// Waits until everything that the read wants has arrived. Then `take` takes it, which is the given
    /// number of bytes, out of the buffer.
    #[inline]
    fn poll<T: Take>(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut T,
    ) -> Poll<Result<T::Output, StreamError>> {
        let (mut received, n);
        'found: {
            // Most lines have arrived already, with those before them. A read that finds one does nothing
            // but take it: no waker is kept, and nobody has to be told that the read begins and ends, since
            // nobody else runs in between.
            if self.state == State::New && !self.stream.inner().reading.get() {
                let arrived = self.stream.inner().received.borrow_mut();
                if let Some(at_once) = self.find.find_at_once(arrived.as_slice())
                    && resumption::spend()
                {
                    self.state = State::Done;
                    (received, n) = (arrived, at_once);
                    break 'found;
                }
            }
            match ready!(self.poll_begun(cx)) {
                Ok(later) => (received, n) = (self.stream.inner().received.borrow_mut(), later),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        // There is one place where the bytes are taken, so that the compiler makes it part of the caller's
        // code.
        Poll::Ready(Ok(take.take(&mut received, n)))
    }

    /// The rest of [`poll`](Reading::poll), for a read that has to begin, and to wait perhaps: the number of
    /// bytes that satisfy it.
    #[inline(never)]
    fn poll_begun(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, StreamError>> {
        if !self.is_under_way() {
            if self.stream.inner().reading.replace(true) {
                self.state = State::Done;
                return Poll::Ready(Err(StreamError::AlreadyReading));
            }
            self.state = State::Begun;
        }
        let found = ready!(self.poll_found(cx));
        self.end();
        Poll::Ready(found)
    }

    /// Waits for the number of bytes that satisfy the read, from the front of the buffer.
    fn poll_found(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, StreamError>> {
        let inner = self.stream.inner();
        let max_buffer_size = inner.options.max_buffer_size;
        let mut has_received = false;
        loop {
            let after = inner.after();
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
            if std::mem::replace(&mut self.state, State::Waits) != State::Waits {
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

impl<H: Handle, F> Reading<H, F> {
    #[inline]
    fn is_under_way(&self) -> bool {
        matches!(self.state, State::Begun | State::Waits)
    }

    /// Lets others read, when this read is done or is dropped.
    fn end(&mut self) {
        self.state = State::Done;
        let inner = self.stream.inner();
        inner.reading.set(false);
        if let Some(waker) = inner.reader.take() {
            foreign::discard(waker);
        }
        inner.watch_again();
    }
}

impl<H: Handle, F> Drop for Reading<H, F> {
    #[inline]
    fn drop(&mut self) {
        if self.is_under_way() {
            self.end();
        }
    }
}

/// A read as a future. It notes the line of the user's call as the place where it waits.
struct Read<H: Handle, F, T> {
    reading: Reading<H, F>,
    /// Takes the bytes that were found out of the buffer.
    take: T,
    place: &'static Location<'static>,
}

impl<H: Handle, F, T> Read<H, F, T> {
    #[track_caller]
    #[inline]
    fn new(stream: H, find: F, take: T) -> Read<H, F, T> {
        let place = Location::caller();
        Read { reading: Reading::new(stream, find), take, place }
    }
}

impl<H: Handle, F: Find + Unpin, T: Take + Unpin> Future for Read<H, F, T> {
    type Output = Result<T::Output, StreamError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Read { reading, take, place } = self.get_mut();
        let polled = reading.poll(cx, take);
        if polled.is_pending() {
            resumption::waits_at(place);
        }
        polled
    }
}

impl<H: Handle, F: Find + Unpin, T: Take + Unpin> FusedFuture for Read<H, F, T> {
    fn is_terminated(&self) -> bool {
        self.reading.state == State::Done
    }
}

impl<S: Transport> Inner<S> {
    /// What can come after the bytes that have arrived.
    #[inline]
    fn after(&self) -> After {
        match self.is_closed() {
            false => After::More,
            true if self.error.borrow().is_none() => After::End,
            true => After::Error,
        }
    }

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

/// Looks for everything that there is when the stream has ended well.
fn everything() -> impl FnMut(&[u8], After) -> Found {
    |received, after| match after {
        After::End => Found::First(received.len()),
        After::More | After::Error => Found::More,
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
    #[inline]
    fn new(bytes: &[u8]) -> Delimiter {
        match *bytes {
            [byte] => Delimiter::Byte(byte),
            _ => Delimiter::Bytes(Box::new(Finder::new(bytes).into_owned())),
        }
    }

    #[inline]
    fn len(&self) -> usize {
        match self {
            Delimiter::Byte(_) => 1,
            Delimiter::Bytes(finder) => finder.needle().len(),
        }
    }

    #[inline]
    fn find(&self, within: &[u8]) -> Option<usize> {
        match self {
            Delimiter::Byte(byte) => find_byte(*byte, within),
            Delimiter::Bytes(finder) => find_bytes(finder, within),
        }
    }
}

/// `memchr`, which it takes longer to call than to look at a few bytes here, eight at a time; many lines are
/// short.
#[inline]
fn find_byte(byte: u8, within: &[u8]) -> Option<usize> {
    const FEW: usize = 4;
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    for (n, word) in within.chunks_exact(8).take(FEW).enumerate() {
        let Ok(word) = word.try_into() else { break };
        // The bytes that are 0 here are those that are looked for. Taking 1 from each sets its highest bit
        // in the first of them, and in none before it.
        let differs = u64::from_le_bytes(word) ^ (ONES * u64::from(byte));
        let found = differs.wrapping_sub(ONES) & !differs & (ONES << 7);
        if found != 0 {
            return Some(8 * n + found.trailing_zeros() as usize / 8);
        }
    }
    let from = 8 * (within.len() / 8).min(FEW);
    memchr(byte, &within[from..]).map(|at| from + at)
}

/// A function of its own, so that the code that looks for one byte stays small enough to be part of the read.
#[inline(never)]
fn find_bytes(finder: &Finder<'_>, within: &[u8]) -> Option<usize> {
    finder.find(within)
}

/// Looks for everything up to and including a delimiter.
struct Delimited {
    delimiter: Delimiter,
    max_bytes: usize,
    /// Whether to take what is left if the stream ends well without a delimiter.
    rest: bool,
    /// The delimiter was looked for and does not begin before this index.
    from: usize,
}

#[inline]
fn delimited(delimiter: &[u8], max_bytes: usize, rest: bool) -> Delimited {
    Delimited { delimiter: Delimiter::new(delimiter), max_bytes, rest, from: 0 }
}

impl Find for Delimited {
    #[inline]
    fn find_at_once(&mut self, received: &[u8]) -> Option<usize> {
        let within = &received[..received.len().min(self.max_bytes)];
        self.delimiter.find(within).map(|at| at + self.delimiter.len())
    }

    #[inline]
    fn find(&mut self, received: &[u8], after: After) -> Found {
        let Delimited { delimiter, max_bytes, rest, from } = self;
        let within = &received[..received.len().min(*max_bytes)];
        if let Some(at) = delimiter.find(&within[*from..]) {
            return Found::First(*from + at + delimiter.len());
        }
        *from = (within.len() + 1).saturating_sub(delimiter.len());
        if *rest && after == After::End && (1..=*max_bytes).contains(&received.len()) {
            Found::First(received.len())
        } else if received.len() >= *max_bytes {
            Found::Never(UnsatisfiableRead { max_bytes: *max_bytes })
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
    /// Waits until `find` has found what it looks for. Then `take` takes that out of the buffer.
    #[track_caller]
    #[inline]
    fn read<F: Find, T: Take>(&self, find: F, take: T) -> Read<IoStream<S>, F, T> {
        Read::new(self.clone(), find, take)
    }

    /// [`read`](IoStream::read) for a future that borrows something anyway, and so may borrow the stream.
    #[track_caller]
    #[inline]
    fn read_borrowed<F: Find, T: Take>(&self, find: F, take: T) -> Read<&IoStream<S>, F, T> {
        Read::new(self, find, take)
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
    #[inline]
    pub fn read_bytes(
        &self,
        n: usize,
    ) -> impl FusedFuture<Output = Result<Vec<u8>, StreamError>> + use<S> {
        self.read(exactly(n), Fresh)
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
    #[inline]
    pub fn read_some(
        &self,
        most: usize,
    ) -> impl FusedFuture<Output = Result<Vec<u8>, StreamError>> + use<S> {
        self.read(some(most), Fresh)
    }

    /// Fills `buf`. Tornado: `read_into`.
    ///
    /// Cancel safe: nothing is copied into `buf` before all of it has arrived.
    ///
    /// # Errors
    ///
    /// As [`read_bytes`](IoStream::read_bytes).
    #[track_caller]
    #[inline]
    pub fn read_into(&self, buf: &mut [u8]) -> impl FusedFuture<Output = Result<(), StreamError>> {
        self.read_borrowed(exactly(buf.len()), Full(buf))
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
    #[inline]
    pub fn read_some_into(
        &self,
        buf: &mut [u8],
    ) -> impl FusedFuture<Output = Result<usize, StreamError>> {
        self.read_borrowed(some(buf.len()), Within(buf))
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
    #[inline]
    pub fn read_until<D: AsRef<[u8]>>(
        &self,
        delimiter: D,
        max_bytes: usize,
    ) -> impl FusedFuture<Output = Result<Vec<u8>, StreamError>> + use<S, D> {
        self.read(delimited(delimiter.as_ref(), max_bytes, false), Fresh)
    }

    /// [`read_until`](IoStream::read_until), but appends what was read, with the delimiter, to `buf`, and
    /// gives its length. One vector for all lines saves an allocation for each; clear it between them.
    ///
    /// Cancel safe: nothing is appended to `buf` before all of it has arrived. If this is dropped before
    /// that, `buf` is as it was, and what has arrived stays in the stream.
    ///
    /// # Errors
    ///
    /// As [`read_until`](IoStream::read_until). `buf` is as it was then.
    ///
    /// ```
    /// use waterspout::{IoLoop, iostream::IoStream, net::UnixStream};
    ///
    /// # IoLoop::new()?.run_sync(|| async {
    /// let (here, there) = UnixStream::pair()?;
    /// let (here, there) = (IoStream::new(here), IoStream::new(there));
    /// there.write("one\ntwo\n");
    /// let mut line = Vec::new();
    /// for expected in ["one\n", "two\n"] {
    ///     line.clear();
    ///     assert_eq!(here.read_until_into("\n", 100, &mut line).await?, 4);
    ///     assert_eq!(line, expected.as_bytes());
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// # })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    #[inline]
    pub fn read_until_into(
        &self,
        delimiter: impl AsRef<[u8]>,
        max_bytes: usize,
        buf: &mut Vec<u8>,
    ) -> impl FusedFuture<Output = Result<usize, StreamError>> {
        self.read_borrowed(delimited(delimiter.as_ref(), max_bytes, false), Onto(buf))
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
    #[inline]
    pub fn read_until_regex(
        &self,
        regex: &regex::bytes::Regex,
        max_bytes: usize,
    ) -> impl FusedFuture<Output = Result<Vec<u8>, StreamError>> + use<S> {
        self.read(self.search(regex, max_bytes), Fresh)
    }

    /// [`read_until_regex`](IoStream::read_until_regex), but appends what was read to `buf`, and gives its
    /// length, as [`read_until_into`](IoStream::read_until_into) does.
    ///
    /// Cancel safe: nothing is appended to `buf` before all of it has arrived.
    ///
    /// # Errors
    ///
    /// As [`read_until`](IoStream::read_until). `buf` is as it was then.
    #[cfg(feature = "regex")]
    #[track_caller]
    #[inline]
    pub fn read_until_regex_into(
        &self,
        regex: &regex::bytes::Regex,
        max_bytes: usize,
        buf: &mut Vec<u8>,
    ) -> impl FusedFuture<Output = Result<usize, StreamError>> {
        self.read_borrowed(self.search(regex, max_bytes), Onto(buf))
    }

    #[cfg(feature = "regex")]
    fn search(&self, regex: &regex::bytes::Regex, max_bytes: usize) -> Search {
        Search {
            regex: regex.clone(),
            max_bytes,
            max_buffer_size: self.inner.options.max_buffer_size,
            searched: 0,
            seen: 0,
            pause: None,
            has_paused: false,
        }
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
    #[inline]
    pub fn read_until_close(
        &self,
    ) -> impl FusedFuture<Output = Result<Vec<u8>, StreamError>> + use<S> {
        self.read(everything(), Fresh)
    }

    /// [`read_until_close`](IoStream::read_until_close), but appends what was read to `buf`, and gives its
    /// length.
    ///
    /// Cancel safe: nothing is appended to `buf` before the stream is closed.
    ///
    /// # Errors
    ///
    /// As [`read_until_close`](IoStream::read_until_close). `buf` is as it was then.
    #[track_caller]
    #[inline]
    pub fn read_until_close_into(
        &self,
        buf: &mut Vec<u8>,
    ) -> impl FusedFuture<Output = Result<usize, StreamError>> {
        self.read_borrowed(everything(), Onto(buf))
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
        let begin = move || Reading::new(stream.clone(), delimited(b"\n", max_bytes, true));
        // The read of the next line; `None` after the end.
        let mut reading = Some(begin());
        futures::stream::poll_fn(move |cx| {
            let Some(line) = &mut reading else { return Poll::Ready(None) };
            let polled = line.poll(cx, &mut Fresh);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_such_byte_is_found_wherever_it_is_and_whatever_is_around_it() {
        for len in 0..100 {
            // The neighbours of the byte, from which it differs by little.
            for other in [0, 9, 11, 0x0a ^ 0x80, 255] {
                let mut within = vec![other; len];
                assert_eq!(find_byte(10, &within), None);
                for at in (0..len).rev() {
                    within[at] = 10;
                    assert_eq!(find_byte(10, &within), Some(at), "{within:?}");
                    assert_eq!(find_byte(other, &within[..=at]), (at > 0).then_some(0));
                }
            }
        }
    }
}

#[cfg(all(test, feature = "regex"))]
mod regex_tests {
    use std::future::poll_fn;

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
