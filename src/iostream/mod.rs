//! `IoStream`: buffered reading and writing in Tornado's terms, over any byte stream.
//!
//! **Reads** say what they want (a number of bytes, everything up to a delimiter, everything) and get all
//! of it or an error. What has arrived stays in the stream until a read takes all that it wants. So a read
//! that is dropped (by a time limit, by `select!`) loses nothing. If what has arrived is enough for a read,
//! the read is served from that, also after the stream was closed. If it is not enough, the read takes from
//! the socket no more than a chunk beyond what it wants. When nobody reads, TCP holds the sender back.
//!
//! **Writes** are sent at once as far as the socket takes them. The stream keeps the rest, and a coroutine
//! of its own sends it, so a write need not be awaited. Awaiting a write waits until its last byte has been
//! handed to the system.
//!
//! **An `IoStream` is a handle.** A clone is a handle of the same stream, and so is a read that is under
//! way. The stream is closed by [`IoStream::close`], by the end from the other side, or by an error. It is
//! also closed when the last handle is dropped, as soon as everything that was written has been sent; a
//! peer that never reads keeps it open. A stream has no halves: as in Tornado, the end of what arrives
//! closes both directions. (To end only what is sent, and still read, use
//! [`AsyncWrite`](futures::io::AsyncWrite)'s `poll_close`.)
//!
//! Over TCP, a program can read and write while the stream still connects:
//!
//! ```
//! use waterspout::{IoLoop, coroutine, iostream::IoStream, net::TcpListener};
//!
//! # IoLoop::new()?.run_sync(|| async {
//! # let listener = TcpListener::bind("127.0.0.1:0").await?;
//! # let address = listener.local_addr()?;
//! let stream = IoStream::connect(address)?;
//! stream.write("GET / HTTP/1.0\r\n\r\n");
//! let answer = coroutine::start(async move { stream.read_until_close().await });
//! // This goes on while the stream connects.
//! # let (server, _) = listener.accept().await?;
//! # let server = IoStream::new(server);
//! # server.read_until("\r\n\r\n", 100).await?;
//! # server.write("HTTP/1.0 204 No Content\r\n\r\n");
//! # drop(server);
//! let answer = answer.await?;
//! # assert!(answer.starts_with(b"HTTP/1.0 204"));
//! # Ok::<(), std::io::Error>(())
//! # })??;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod buffer;
mod pipe;
mod poll;
mod read;
mod sockets;
mod transport;
mod unsent;
mod write;

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

pub use crate::ground::error::{ReadBufferFull, StreamError, UnsatisfiableRead};
use futures::future::FusedFuture;

use crate::ground::foreign;
use crate::ground::resumption;
use crate::ground::wait_queue::{Left, Queued, WaitQueue, Waiting, wake};
use crate::ioloop::{IoLoop, LoopId, on_current, with_current};
use crate::sockets::Lent;
use buffer::Buffer;
pub use pipe::{Pipe, PipeIoStream};
pub use transport::Transport;
use transport::{is_ours, poll_for_both};
use unsent::Unsent;
pub use write::Write;

/// How many bytes may have arrived and not been read, by default: 100 MiB, as in Tornado.
const MAX_BUFFER_SIZE: usize = 100 * 1024 * 1024;

/// A buffered stream over `S`; see the [module](self). Tornado: `IOStream`.
///
/// ```
/// use waterspout::IoLoop;
/// use waterspout::iostream::IoStream;
/// use waterspout::net::UnixStream;
///
/// let io_loop = IoLoop::new()?;
/// io_loop.run_sync(|| async {
///     let (here, there) = UnixStream::pair()?;
///     let (here, there) = (IoStream::new(here), IoStream::new(there));
///     here.write("GET / HTTP/1.0\r\n\r\n"); // need not be awaited
///     assert_eq!(there.read_until(b"\r\n", 1024).await?, b"GET / HTTP/1.0\r\n");
///     assert_eq!(there.read_bytes(2).await?, b"\r\n");
///     Ok::<(), std::io::Error>(())
/// })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct IoStream<S: Transport> {
    inner: Rc<Inner<S>>,
}

struct Inner<S> {
    /// The loop that the stream was made on. The transport is used only while this loop is current. A
    /// stream can be written to and closed while another one is.
    home: LoopId,
    /// The transport. Closing the stream drops it: at once, or if it is being used just then (its own code
    /// may close the stream), at the end of that use.
    io: RefCell<Option<S>>,
    is_closed: Cell<bool>,
    received: RefCell<Buffer>,
    unsent: RefCell<Unsent>,
    /// Whether a read is under way. A task that waits by `AsyncRead` is not a read.
    reading: Cell<bool>,
    /// Whether the stream's coroutine that sends is alive.
    sending: Cell<bool>,
    /// The waker of the task that reads, by a read or by `AsyncRead`.
    ///
    /// The transport has this waker, too, and wakes it when something happens there. But closing the stream
    /// drops the transport, which may wake nobody then. So the stream keeps the waker, and closing wakes
    /// it; likewise `sender` and `writer`. (A task that waits by `AsyncRead` or `AsyncWrite` may have given
    /// up meanwhile. Waking it does no harm.)
    reader: Cell<Option<Waker>>,
    /// The waker of the coroutine that sends.
    sender: Cell<Option<Waker>>,
    /// The waker of the task that writes by `AsyncWrite`.
    writer: Cell<Option<Waker>>,
    /// The waker of a task that waits for the close: of the one that polled the transport last, to notice
    /// the end.
    watcher: Cell<Option<Waker>>,
    /// The error that has closed the stream.
    error: RefCell<Option<Arc<io::Error>>>,
    /// The tasks that wait for the close. They are woken when the stream is closed, and also when one of
    /// them has to poll the transport again; see `watch_again`.
    closed: WaitQueue,
    close_callback: RefCell<Weak<CloseCallback>>,
    options: Options,
    /// How many handles of the stream there are. The coroutine that sends is not one of them.
    handles: Cell<usize>,
}

/// The callback for when a stream is closed; empty once it was called or cleared. It belongs to the
/// coroutine that calls it, and not to the stream, so that it is dropped with the loop: it may hold a handle
/// of its own stream, and the two would otherwise keep each other alive.
type CloseCallback = Cell<Option<Box<dyn FnOnce()>>>;

/// The limits of a stream. From [`IoStream::with_options`].
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many bytes may have arrived and not been read; by default 100 MiB. A read that wants more
    /// closes the stream with [`ReadBufferFull`].
    pub max_buffer_size: usize,
    /// How many bytes may have been written and not been sent; by default any number. A write of more
    /// is refused with [`StreamError::WriteBufferFull`].
    pub max_write_buffer_size: usize,
    /// How many bytes are read from the socket at a time; by default [`Lent::SIZE`]. A larger number counts
    /// as [`Lent::SIZE`], and one that is more than half of `max_buffer_size` as that half.
    pub read_chunk_size: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            max_buffer_size: MAX_BUFFER_SIZE,
            max_write_buffer_size: usize::MAX,
            read_chunk_size: Lent::SIZE,
        }
    }
}

impl<S: Transport> IoStream<S> {
    /// A stream over `io` with Tornado's limits: 100 MiB that have arrived, any number of bytes that are
    /// unsent. It belongs to the current loop, and so has `io` to do.
    ///
    /// # Panics
    ///
    /// As [`IoLoop::current`].
    #[track_caller]
    pub fn new(io: S) -> IoStream<S> {
        IoStream::with_options(io, Options::default())
    }

    /// A stream over `io` with other limits.
    ///
    /// # Panics
    ///
    /// As [`IoLoop::current`].
    #[track_caller]
    pub fn with_options(io: S, mut options: Options) -> IoStream<S> {
        let largest = Lent::SIZE.min(options.max_buffer_size / 2).max(1);
        options.read_chunk_size = options.read_chunk_size.clamp(1, largest);
        let inner = Inner {
            home: on_current(|core| core.id()),
            io: RefCell::new(Some(io)),
            is_closed: Cell::new(false),
            received: RefCell::new(Buffer::default()),
            unsent: RefCell::new(Unsent::default()),
            reading: Cell::new(false),
            sending: Cell::new(false),
            reader: Cell::new(None),
            sender: Cell::new(None),
            writer: Cell::new(None),
            watcher: Cell::new(None),
            error: RefCell::new(None),
            closed: WaitQueue::new(),
            close_callback: RefCell::new(Weak::new()),
            options,
            handles: Cell::new(1),
        };
        IoStream { inner: Rc::new(inner) }
    }

    /// Calls `look` with what the stream is over. `None` once the stream is closed, or if this is called by
    /// the code of the transport itself while the stream uses it.
    ///
    /// `look` may use the stream. Whatever it reads or writes is read or sent a turn later, when the
    /// transport is free again.
    pub fn with_io<R>(&self, look: impl FnOnce(&S) -> R) -> Option<R> {
        if self.is_closed() {
            return None;
        }
        let _released = Release(&self.inner);
        match self.inner.io.try_borrow() {
            Ok(io) => io.as_ref().map(look),
            // This was called by the transport's own code, while `poll_io` has the transport borrowed.
            Err(_) => None,
        }
    }

    /// The limits that it was made with, for a stream that takes its place.
    #[cfg(feature = "_tls")]
    pub(crate) fn options(&self) -> Options {
        self.inner.options
    }

    /// Closes the stream now. What was written and is unsent is dropped, and awaiting those writes gives an
    /// error. What has arrived can still be read. Closing a second time does nothing. Tornado: `close`.
    pub fn close(&self) {
        self.inner.close(None);
    }

    /// [`close`](IoStream::close) with an error of your own. Whoever waits for the stream, or uses it
    /// later, gets that error within [`StreamError::Closed`]. If the stream is closed already, its error
    /// does not change. Tornado: `close(exc_info=...)`.
    ///
    /// ```
    /// use waterspout::{IoLoop, iostream::IoStream, net::UnixStream};
    ///
    /// # IoLoop::new()?.run_sync(|| async {
    /// let (here, _there) = UnixStream::pair()?;
    /// let stream = IoStream::new(here);
    /// stream.close_with_error(std::io::Error::other("no such command"));
    /// let error = stream.read_bytes(1).await.unwrap_err();
    /// assert_eq!(error.real_error().unwrap().to_string(), "no such command");
    /// # Ok::<(), std::io::Error>(())
    /// # })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn close_with_error(&self, error: impl Into<io::Error>) {
        self.inner.close(Some(error.into()));
    }

    /// Takes out what the stream is over, and the bytes that have arrived and were not read. This is for a
    /// protocol that goes on as another one (`STARTTLS`, `CONNECT`, `Upgrade`). Tornado: `start_tls`,
    /// `HTTP1Connection.detach`.
    ///
    /// For other handles the stream is then closed, without an error, and [`closed`](IoStream::closed) is
    /// ready. A callback of [`set_close_callback`](IoStream::set_close_callback) is dropped, since the
    /// connection was not closed. (Tornado's callback goes on with the new stream.) Whoever waits in
    /// [`AsyncRead`](futures::io::AsyncRead) or [`AsyncWrite`](futures::io::AsyncWrite) gets the error that
    /// the stream is closed.
    ///
    /// A connection of a [`TcpServer`](crate::net::TcpServer) ends with its handler. If what was taken out
    /// is used after that, the server neither counts it, nor waits for it in `drain`, nor cancels it.
    ///
    /// # Errors
    ///
    /// [`StreamError::NotIdle`] if a read is under way, or something that was written is unsent: await
    /// those first. [`StreamError::Closed`] if the stream is closed. The error contains the stream, as it
    /// was, so nothing is lost.
    ///
    /// ```
    /// use waterspout::{IoLoop, iostream::IoStream, net::UnixStream};
    ///
    /// # IoLoop::new()?.run_sync(|| async {
    /// let (here, there) = UnixStream::pair()?;
    /// there.write_all(b"STARTTLS\r\n\x16\x03\x01").await?;
    ///
    /// let stream = IoStream::new(here);
    /// assert_eq!(stream.read_until(b"\r\n", 100).await?, b"STARTTLS\r\n");
    /// stream.write("220 go ahead\r\n").await?;
    /// let (socket, received) = stream.into_inner()?;
    /// assert_eq!(received, b"\x16\x03\x01"); // for whoever goes on with `socket`
    /// # Ok::<(), std::io::Error>(())
    /// # })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn into_inner(self) -> Result<(S, Vec<u8>), IntoInnerError<S>> {
        self.inner.take_apart().map_err(|error| IntoInnerError { stream: self, error })
    }

    /// Whether the stream is closed, by either side. Tornado: `closed`.
    pub fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }

    /// Whether a read is under way. Tornado: `reading`.
    pub fn reading(&self) -> bool {
        self.inner.reading.get()
    }

    /// Whether something that was written is unsent. Tornado: `writing`.
    pub fn writing(&self) -> bool {
        !self.inner.unsent.borrow().is_empty()
    }

    /// The error that closed the stream; `None` if it is open, or was closed without an error. Tornado:
    /// `error`.
    pub fn error(&self) -> Option<Arc<io::Error>> {
        self.inner.error.borrow().clone()
    }

    /// Waits until the stream is closed. It looks for the end of the stream also while nobody reads. Tornado:
    /// `set_close_callback`.
    ///
    /// To look for the end is to read: what arrives meanwhile is kept, up to a chunk. If a chunk has
    /// arrived that nobody reads, an end after it is noticed only when it was read, as in Tornado. While
    /// another loop than the stream's is current, this cannot look for the end, and is ready only when
    /// somebody else has closed the stream or noticed its end.
    ///
    /// Cancel safe.
    #[track_caller]
    pub fn closed(&self) -> impl FusedFuture<Output = ()> + use<S> {
        let mut watch = Watch { waiting: Waiting::new(self.inner.clone()) };
        resumption::fused(std::future::poll_fn(move |cx| watch.poll(cx)))
    }

    /// Calls `callback` once, in a later turn of the stream's loop, when the stream is closed; also if it
    /// is closed already. Tornado: `set_close_callback`.
    ///
    /// A callback that was set before is dropped, and this one is called instead. But if the stream is
    /// closed already, both are called. A panic in a callback is reported. If the loop is closed, the
    /// callback is dropped.
    ///
    /// ```
    /// use std::{cell::Cell, rc::Rc};
    /// use waterspout::{IoLoop, coroutine::moment, iostream::IoStream, net::UnixStream};
    ///
    /// # IoLoop::new()?.run_sync(|| async {
    /// let (here, there) = UnixStream::pair()?;
    /// let stream = IoStream::new(here);
    /// let is_closed = Rc::new(Cell::new(false));
    /// let sets = is_closed.clone();
    /// stream.set_close_callback(|| unreachable!("the next one is set instead"));
    /// stream.set_close_callback(move || sets.set(true));
    /// drop(there);
    /// while !is_closed.get() {
    ///     moment().await;
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// # })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn set_close_callback(&self, callback: impl FnOnce() + 'static) {
        let Some(home) = self.inner.home() else { return foreign::discard(callback) };
        let waiting = self.inner.close_callback.borrow().upgrade();
        if let Some(waiting) = waiting {
            return foreign::discard(waiting.replace(Some(Box::new(callback))));
        }
        let callback: Rc<CloseCallback> = Rc::new(Cell::new(Some(Box::new(callback))));
        if !self.is_closed() {
            *self.inner.close_callback.borrow_mut() = Rc::downgrade(&callback);
        }
        let closed = self.closed();
        home.spawn_callback(|| async move {
            closed.await;
            if let Some(callback) = callback.take() {
                callback();
            }
        });
    }

    /// Drops the callback that [`set_close_callback`](IoStream::set_close_callback) has set. If the stream
    /// is closed already, the callback is called all the same. Tornado: `set_close_callback(None)`.
    pub fn clear_close_callback(&self) {
        self.inner.clear_close_callback();
    }
}

impl<S> Inner<S> {
    fn is_closed(&self) -> bool {
        self.is_closed.get()
    }

    /// Drops the transport if the stream is closed and the transport is not being used.
    fn release_io(&self) {
        if self.is_closed() {
            let io = self.io.try_borrow_mut().ok().and_then(|mut io| io.take());
            // Nothing is borrowed any more: dropping the transport is foreign code.
            foreign::discard(io);
        }
    }
}

impl<S: Transport> Inner<S> {
    /// The loop that the stream was made on, unless that loop is closed.
    fn home(&self) -> Option<IoLoop> {
        IoLoop::of(self.home)
    }

    /// Whether the loop that the stream was made on is the current one, so that the transport can be used.
    fn is_at_home(&self) -> bool {
        with_current(|core| core.id()) == Some(self.home)
    }

    /// Closes the stream, once. The tasks that read and write are woken before those that only wait for the
    /// close, so that they have their errors before a close callback runs, as in Tornado.
    fn close(&self, error: Option<io::Error>) {
        if self.is_closed.replace(true) {
            return;
        }
        *self.error.borrow_mut() = error.map(Arc::new);
        // The callback is due now. Forgetting it here makes a callback that is set later another one,
        // instead of replacing this one.
        self.close_callback.take();
        let unsent = self.unsent.take();
        wake(self.reader.take());
        unsent.fail(&self.closed_error());
        self.release_io();
        wake(self.sender.take());
        wake(self.writer.take());
        self.closed.wake_all();
    }

    fn clear_close_callback(&self) {
        let waiting = self.close_callback.borrow().upgrade();
        if let Some(waiting) = waiting {
            foreign::discard(waiting.take());
        }
    }

    /// Takes out the transport and what has arrived, unless somebody is using the stream.
    fn take_apart(&self) -> Result<(S, Vec<u8>), StreamError> {
        if self.is_closed() {
            return Err(self.closed_error());
        }
        if self.reading.get() || !self.unsent.borrow().is_empty() {
            return Err(StreamError::NotIdle);
        }
        // The transport is in use, too, if its own code has called this.
        let io = self.io.try_borrow_mut().ok().and_then(|mut io| io.take());
        let io = io.ok_or(StreamError::NotIdle)?;
        let mut received = self.received.take();
        let received = received.take(received.len());
        self.is_closed.set(true);
        self.clear_close_callback();
        wake(self.reader.take());
        wake(self.writer.take());
        self.closed.wake_all();
        Ok((io, received))
    }

    /// The error for whoever wants something of the stream once it is closed.
    fn closed_error(&self) -> StreamError {
        StreamError::Closed(self.error.borrow().clone())
    }

    /// Calls `poll` with the transport. That is foreign code, and the transport is borrowed while it runs.
    ///
    /// * It may use this stream. If it closes the stream, the transport is dropped when this call ends. If
    ///   it reads or writes, the transport is in use, so that is pending, and is polled again in the next
    ///   turn.
    /// * It may panic. Nobody knows what state the transport is in then, so this gives an error, for which
    ///   the callers close the stream.
    fn poll_io<T>(
        &self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let _released = Release(self);
        match self.io.try_borrow_mut() {
            Ok(mut io) => match &mut *io {
                Some(io) => foreign::call("what a stream is over", None, || poll(Pin::new(io), cx))
                    .unwrap_or_else(|| Poll::Ready(Err(io::Error::other("it panicked")))),
                None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            },
            Err(_) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    /// Reads a chunk of at most `most` bytes into the buffer, and gives its size; 0 is the end.
    fn poll_read(&self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
        let most = most.min(self.options.read_chunk_size);
        // The buffer is taken out while the transport reads into it: foreign code may run then, which may
        // use this stream, and would find the buffer borrowed. It finds nothing to read, and so waits for
        // the transport, which it finds in use.
        let mut received = self.received.take();
        let polled = received.poll_receive(most, is_ours::<S>(), |buf| {
            self.poll_io(cx, |io, cx| io.poll_read(cx, buf))
        });
        self.received.replace(received);
        polled
    }

    /// Reads a chunk of at most `most` bytes into the buffer. The end, or an error, closes the stream.
    /// Ready if either has happened.
    fn poll_receive(&self, cx: &mut Context<'_>, most: usize) -> Poll<()> {
        match ready!(self.poll_read(cx, most)) {
            Ok(0) => self.close(None),
            Ok(_) => {}
            Err(error) => self.close(Some(error)),
        }
        Poll::Ready(())
    }

    /// Closes the stream because writing has failed. What has arrived is read first: the other side, which
    /// takes no more, may have said why.
    fn fail(&self, error: io::Error) {
        // A budget of its own, since the caller's may be spent. It is large enough to empty a socket's
        // buffer, and it ends, also if the transport always has something to read.
        let _budget = resumption::fresh();
        let mut cx = Context::from_waker(Waker::noop());
        while !self.is_closed() {
            let room = self.options.max_buffer_size.saturating_sub(self.received.borrow().len());
            if room == 0 || !matches!(self.poll_read(&mut cx, room), Poll::Ready(Ok(1..))) {
                break;
            }
        }
        self.close(Some(error));
    }

    /// Called when somebody has stopped reading, or waiting for the close. Theirs may have been the only
    /// waker that the transport would wake, and then nobody would notice the end of the stream. So the
    /// tasks that still wait for the close are woken, and poll the transport themselves.
    fn watch_again(&self) {
        if !self.is_closed() && !self.closed.is_empty() {
            self.closed.wake_all();
        }
    }
}

/// Dropped at the end of a use of the transport, also by a panic. If the stream was closed during that use,
/// the transport could not be dropped then, and is dropped now.
struct Release<'a, S>(&'a Inner<S>);

impl<S> Drop for Release<'_, S> {
    fn drop(&mut self) {
        self.0.release_io();
    }
}

impl<S: Transport> Queued<()> for Inner<S> {
    fn waiters(&self) -> &WaitQueue {
        &self.closed
    }
}

/// Waits for the close of a stream.
struct Watch<S: Transport> {
    waiting: Waiting<Inner<S>>,
}

impl<S: Transport> Watch<S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.waiting.queued().is_closed() {
                return Poll::Ready(());
            }
            if self.waiting.wait(cx, Inner::is_closed).is_ready() {
                continue;
            }
            let inner = self.waiting.queued();
            // To look for the end is to read. Three cases need no looking, or do not allow it. A read is
            // under way: it closes the stream when it comes to the end, and wakes this when it is done. A
            // chunk has arrived that nobody has read: more must not be kept. Or this is not the stream's
            // loop.
            let chunk = inner.options.read_chunk_size;
            let room = chunk.saturating_sub(inner.received.borrow().len());
            if inner.reading.get() || room == 0 || !inner.is_at_home() {
                return Poll::Pending;
            }
            foreign::discard(inner.watcher.replace(Some(cx.waker().clone())));
            let received = poll_for_both(cx, &inner.reader, |cx| inner.poll_receive(cx, room));
            if received.is_pending() {
                return Poll::Pending;
            }
            // This may have read the bytes for which a task waits by `AsyncRead`. The transport would not
            // wake that task again for them, so this does. The task then finds the bytes in the stream.
            wake(inner.reader.take());
        }
    }
}

impl<S: Transport> Drop for Watch<S> {
    fn drop(&mut self) {
        if self.waiting.leave() != Left::Outside {
            let inner = self.waiting.queued();
            foreign::discard(inner.watcher.take());
            inner.watch_again();
        }
    }
}

/// A stream that could not be taken apart, and why; from [`IoStream::into_inner`].
pub struct IntoInnerError<S: Transport> {
    stream: IoStream<S>,
    error: StreamError,
}

impl<S: Transport> IntoInnerError<S> {
    /// Why the stream could not be taken apart.
    pub fn error(&self) -> &StreamError {
        &self.error
    }

    /// The stream, as it was.
    pub fn into_stream(self) -> IoStream<S> {
        self.stream
    }
}

impl<S: Transport> fmt::Debug for IntoInnerError<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("IntoInnerError").field(&self.error).finish()
    }
}

impl<S: Transport> fmt::Display for IntoInnerError<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<S: Transport> Error for IntoInnerError<S> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.error)
    }
}

/// Drops the stream.
impl<S: Transport> From<IntoInnerError<S>> for StreamError {
    fn from(error: IntoInnerError<S>) -> StreamError {
        error.error
    }
}

/// Drops the stream.
impl<S: Transport> From<IntoInnerError<S>> for io::Error {
    fn from(error: IntoInnerError<S>) -> io::Error {
        error.error.into()
    }
}

impl<S: Transport> Clone for IoStream<S> {
    fn clone(&self) -> IoStream<S> {
        self.inner.handles.set(self.inner.handles.get() + 1);
        IoStream { inner: self.inner.clone() }
    }
}

impl<S: Transport> Drop for IoStream<S> {
    fn drop(&mut self) {
        let handles = self.inner.handles.get() - 1;
        self.inner.handles.set(handles);
        if handles == 0 && !self.writing() {
            self.close();
        }
    }
}

impl<S: Transport> fmt::Debug for IoStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IoStream")
            .field("is_closed", &self.is_closed())
            .field("reading", &self.reading())
            .field("writing", &self.writing())
            .field("error", &self.error())
            .finish()
    }
}
