//! `IoStream`: buffered reading and writing in Tornado's terms, over any byte stream.
//!
//! Reads say what they want (so many bytes, up to a delimiter, everything) and get all of it or an
//! error. What has arrived stays in the stream until a read takes all that it wants, so a read that
//! is dropped (by a time-out, by `select!`) loses nothing. If what has arrived is enough for a read, the
//! read is served from that, also after the stream was closed. If not, it takes from the socket no more
//! than a chunk beyond what it wants, and then lets TCP hold the sender back.
//!
//! Writes are sent at once as far as the socket takes them; the rest is kept and sent by a coroutine
//! of the stream's own, so a write need not be awaited. Awaiting one waits until its last byte has
//! been handed to the system.
//!
//! A stream is a handle: a clone is the same stream, and a read that is under way is a handle, too. It
//! is closed by [`IoStream::close`], by the end from the other side, by an error, or when the last
//! handle is dropped and everything written has been sent; a peer that never reads keeps it open till
//! then. There is no half of a stream: as in Tornado, the end of what arrives closes both directions.
//! (Who needs the one direction after the end of the other closes it by [`AsyncWrite`](futures::io::AsyncWrite).)
//!
//! Over TCP, one can read and write while it still connects:
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
//! // Goes on while that connects.
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
use transport::poll_for_both;
use unsent::Unsent;
pub use write::Write;

/// How much may be kept that has arrived and was not read, unless told: Tornado's 100 MiB.
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
    /// The loop that it was made on. It is written to and closed whichever loop is current.
    home: LoopId,
    /// What the stream is over. A close drops it: at once, or if it is in use just then (the close may
    /// come out of its own code), when that use is over.
    io: RefCell<Option<S>>,
    is_closed: Cell<bool>,
    received: RefCell<Buffer>,
    unsent: RefCell<Unsent>,
    /// A read is under way.
    reading: Cell<bool>,
    /// A coroutine is sending what is unsent.
    sending: Cell<bool>,
    /// The wakers of who reads and of who sends. What the stream is over has them, too, and wakes them
    /// when something happens there. But a close from this side drops it, and it may wake nobody then:
    /// so the stream itself wakes these. Who reads or writes by a poll function may have given up.
    reader: Cell<Option<Waker>>,
    sender: Cell<Option<Waker>>,
    writer: Cell<Option<Waker>>,
    /// The waker of who watches for the close and has asked what the stream is over last.
    watcher: Cell<Option<Waker>>,
    error: RefCell<Option<Arc<io::Error>>>,
    /// Who watches for the close. They are woken when the stream is closed, and also when they have to
    /// look for the end of it themselves again; see `watch_again`.
    closed: WaitQueue,
    close_callback: RefCell<Weak<CloseCallback>>,
    options: Options,
    /// How many handles there are; the coroutine that sends is none of them.
    handles: Cell<usize>,
}

/// What is called when a stream is closed, until it is. It belongs to the coroutine that calls it, so that
/// it goes with the loop: it may hold a handle of its own stream.
type CloseCallback = Cell<Option<Box<dyn FnOnce()>>>;

/// The limits of a stream. From [`IoStream::with_options`].
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many bytes may have arrived and not been read: 100 MiB unless told. A read that wants more
    /// closes the stream with [`ReadBufferFull`].
    pub max_buffer_size: usize,
    /// How many bytes may have been written and not been sent: any number unless told. A write beyond
    /// is refused with [`StreamError::WriteBufferFull`].
    pub max_write_buffer_size: usize,
    /// How many bytes are read from the socket at a time: [`Lent::SIZE`] unless told. It is no more than
    /// that, and no more than half of `max_buffer_size`, whatever is told.
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
    /// A stream over `io` with Tornado's limits: 100 MiB received, any number written. It belongs to
    /// the current loop, as what it is over has to.
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

    /// Shows what the stream is over; `None` once it is closed, or if the transport itself asks.
    ///
    /// `look` may use the stream. What is to be read or sent then has to wait until the transport is free
    /// again, and is done a turn later.
    pub fn with_io<R>(&self, look: impl FnOnce(&S) -> R) -> Option<R> {
        if self.is_closed() {
            return None;
        }
        let _released = Release(&self.inner);
        match self.inner.io.try_borrow() {
            Ok(io) => io.as_ref().map(look),
            // Something in the transport's own code asks, and that has it borrowed.
            Err(_) => None,
        }
    }

    /// Closes the stream now. What was written and is unsent is dropped, and its writes give an
    /// error; what has arrived can still be read. Closing twice does nothing. Tornado: `close`.
    pub fn close(&self) {
        self.inner.close(None);
    }

    /// [`close`](IoStream::close) with an error of your own: who waits for the stream and who uses it
    /// later gets that, as [`StreamError::Closed`]. If the stream is closed already, what closed it stays.
    /// Tornado: `close(exc_info=...)`.
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

    /// Takes what the stream is over out of it, with the bytes that have arrived and were not read: for a
    /// protocol that goes on as another one (`STARTTLS`, `CONNECT`, `Upgrade`). Tornado: `start_tls`,
    /// `HTTP1Connection.detach`.
    ///
    /// For the other handles, the stream is closed then, without an error. [`closed`](IoStream::closed)
    /// is done; a callback of [`set_close_callback`](IoStream::set_close_callback) is dropped, for the
    /// connection was not closed (Tornado's goes on with the new stream). Who waits in
    /// [`AsyncRead`](futures::io::AsyncRead) or [`AsyncWrite`](futures::io::AsyncWrite) is told that the stream is closed. A connection of a
    /// [`TcpServer`](crate::net::TcpServer) still is its handler: what is taken out and lives on is
    /// counted, drained and cancelled no more.
    ///
    /// # Errors
    ///
    /// [`StreamError::NotIdle`] if a read is under way, or something that was written is unsent: await
    /// those before. [`StreamError::Closed`] if the stream is closed. The stream, which is as it was, is in
    /// the error: nothing is lost.
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

    /// Whether the stream is closed, from either side. Tornado: `closed`.
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

    /// What closed the stream, if it was an error: `None` for a clean end. Tornado: `error`.
    pub fn error(&self) -> Option<Arc<io::Error>> {
        self.inner.error.borrow().clone()
    }

    /// Waits until the stream is closed, watching for that also while nobody reads.
    ///
    /// What arrives meanwhile is kept, up to a chunk. If there is as much that nobody reads, the end
    /// behind it is seen only after it was read, as in Tornado. Another loop than the stream's own cannot
    /// look for the end; awaited there, it tells of a close that others have noticed. Cancel safe. Tornado:
    /// `set_close_callback`.
    #[track_caller]
    pub fn closed(&self) -> impl FusedFuture<Output = ()> + use<S> {
        let mut watch = Watch { waiting: Waiting::new(self.inner.clone()) };
        resumption::fused(std::future::poll_fn(move |cx| watch.poll(cx)))
    }

    /// Calls `callback` in a later turn of the stream's loop when the stream is closed, once; also if
    /// it is already. It takes the place of the one that was set before, which is dropped, unless that is
    /// due: the stream was closed. A panic in it is reported. If the loop is closed, the callback is dropped. Tornado:
    /// `set_close_callback`.
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

    /// Drops the callback that [`set_close_callback`](IoStream::set_close_callback) has set, unless that
    /// is due: the stream was closed. Tornado: `set_close_callback(None)`.
    pub fn clear_close_callback(&self) {
        self.inner.clear_close_callback();
    }
}

impl<S> Inner<S> {
    fn is_closed(&self) -> bool {
        self.is_closed.get()
    }

    /// Drops what the stream is over, if it is closed and nobody uses that now.
    fn release_io(&self) {
        if self.is_closed() {
            let io = self.io.try_borrow_mut().ok().and_then(|mut io| io.take());
            // With nothing borrowed: this is foreign code.
            foreign::discard(io);
        }
    }
}

impl<S: Transport> Inner<S> {
    /// The loop that it was made on, unless that is closed.
    fn home(&self) -> Option<IoLoop> {
        IoLoop::of(self.home)
    }

    /// Whether the loop that it was made on is the current one, so that what it is over can be used.
    fn is_at_home(&self) -> bool {
        with_current(|core| core.id()) == Some(self.home)
    }

    /// Those who read and write are woken before those who only wait for the close, so that they have
    /// their errors before a close callback runs, as in Tornado.
    fn close(&self, error: Option<io::Error>) {
        if self.is_closed.replace(true) {
            return;
        }
        *self.error.borrow_mut() = error.map(Arc::new);
        // The callback is due now: one that is set later is another one.
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

    /// Takes out what the stream is over, and what has arrived, if nobody is using it.
    fn take_apart(&self) -> Result<(S, Vec<u8>), StreamError> {
        if self.is_closed() {
            return Err(self.closed_error());
        }
        if self.reading.get() || !self.unsent.borrow().is_empty() {
            return Err(StreamError::NotIdle);
        }
        // Also not if its own code asks.
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

    /// The error of whoever wants something of a closed stream.
    fn closed_error(&self) -> StreamError {
        StreamError::Closed(self.error.borrow().clone())
    }

    /// Uses what the stream is over. That is somebody else's code, and is borrowed meanwhile.
    ///
    /// * It may call this stream. If it closes it, what the stream is over is dropped when this use has
    ///   ended. If it reads or writes, that has to come back in the next turn.
    /// * It may panic. Nobody knows what state it is in then, so that is an error here, for which the
    ///   callers close the stream.
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

    /// Reads a chunk, of at most `most` bytes.
    fn poll_read(&self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
        let mut lent = Lent::borrow();
        let most = most.min(self.options.read_chunk_size);
        let n =
            ready!(lent.poll_fill(most, |buf| self.poll_io(cx, |io, cx| io.poll_read(cx, buf))))?;
        self.received.borrow_mut().extend(&lent);
        Poll::Ready(Ok(n))
    }

    /// Receives a chunk, of at most `most` bytes; the end closes the stream.
    fn poll_receive(&self, cx: &mut Context<'_>, most: usize) -> Poll<()> {
        match ready!(self.poll_read(cx, most)) {
            Ok(0) => self.close(None),
            Ok(_) => {}
            Err(error) => self.close(Some(error)),
        }
        Poll::Ready(())
    }

    /// Writing has failed, which closes the stream. Whoever stopped listening may have said why
    /// before, so what has arrived is received first.
    fn fail(&self, error: io::Error) {
        // Of its own, for the caller's may be spent: large enough to empty a socket's buffer, and with an
        // end, for something to read from that has none.
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

    /// Somebody has stopped reading, or watching. It may have been the only one whom what the stream is
    /// over would wake, and then nobody would notice the end. So those who still watch are woken, to ask it
    /// themselves.
    fn watch_again(&self) {
        if !self.is_closed() && !self.closed.is_empty() {
            self.closed.wake_all();
        }
    }
}

/// At the end of a use of what the stream is over, also by a panic: drops it if the stream was closed
/// meanwhile, which could not be done as long as it was in use.
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

struct Watch<S: Transport> {
    waiting: Waiting<Inner<S>>,
}

impl<S: Transport> Watch<S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.waiting.queued().is_closed() {
                return Poll::Ready(());
            }
            if self.waiting.wait(cx).is_ready() {
                continue;
            }
            let inner = self.waiting.queued();
            // To look for the end is to read. Not so if somebody reads anyway, who closes the stream when
            // he sees the end, and has those who watch woken when he is done; if there is a chunk already
            // that nobody has read; or if this is not the stream's loop.
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
            // Who reads by a poll function gets what has arrived from the stream, and not from where he
            // waits for it.
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
    /// Why not.
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
