//! Pipes: one direction of bytes, between coroutines, threads or processes.
//!
//! [`pair`] makes one. With `try_from`, the ends of a child process's pipes are taken over, and any
//! other fd that is a pipe or like one (a FIFO, a terminal). Such an fd may give less than was asked for
//! although it has more (a terminal gives one line at a time). So a short read proves nothing here, and
//! only `WouldBlock` says that there is nothing left.
//!
//! Writing to a pipe that nobody reads any more raises `SIGPIPE`, because pipes have no flag against
//! that as sockets have. Rust's start-up code makes the process ignore this signal, and then the write
//! fails with `BrokenPipe`. In a program where the signal has its default action, it ends the process.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::panic::Location;
use std::path::Path;
use std::pin::Pin;
use std::process::{ChildStderr, ChildStdin, ChildStdout};
use std::task::{Context, Poll};

use futures::future::FusedFuture;
use futures::io::{AsyncRead, AsyncWrite};

use mio::Interest;
use mio::unix::pipe::{Receiver, Sender};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::lent::Lent;
use super::methods::{async_read, readable, reading, shows_fd};
use super::source::{Asker, ByteStream, ReadBytes, Registered, WriteBytes};
use crate::ground::resumption;
use crate::ioloop::Direction;

/// A new pipe: what is written to the one end is read from the other. Both ends belong to the current
/// loop.
///
/// # Errors
///
/// What the system says (too many open files).
///
/// ```
/// use waterspout::{IoLoop, net::pipe};
///
/// # IoLoop::new()?.run_sync(|| async {
/// let (writer, reader) = pipe::pair()?;
/// writer.write_all(b"hello").await?;
/// drop(writer);
/// let mut buf = [0; 16];
/// assert_eq!(reader.read(&mut buf).await?, 5);
/// assert_eq!(reader.read(&mut buf).await?, 0);
/// # Ok::<(), std::io::Error>(())
/// # })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn pair() -> io::Result<(PipeWriter, PipeReader)> {
    let (sender, receiver) = mio::unix::pipe::new()?;
    Ok((PipeWriter::new(sender)?, PipeReader::new(receiver, false)?))
}

impl ByteStream for Sender {}

impl WriteBytes for Sender {
    fn write(&self, buf: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(self, buf)?)
    }

    fn write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(rustix::io::writev(self, bufs)?)
    }
}

/// What a [`PipeReader`] reads from.
struct Source {
    receiver: Receiver,
    /// Whether the pipe has a name in the file system. Then it may be open for reading while nobody has
    /// opened it for writing yet.
    is_fifo: bool,
}

impl Source {
    /// Tells the end of the pipe from a FIFO that has no writer yet, for read(2) gives 0 bytes in both
    /// cases. In the second one the reader has to wait.
    fn end_or_wait(&self, result: rustix::io::Result<usize>) -> io::Result<usize> {
        match result? {
            0 if self.is_fifo && !self.has_ended()? => Err(io::ErrorKind::WouldBlock.into()),
            n => Ok(n),
        }
    }

    /// Whether all writers have gone. (poll(2) does not report `POLLHUP` of a FIFO that had none yet.)
    fn has_ended(&self) -> io::Result<bool> {
        let mut asked = [PollFd::new(&self.receiver, PollFlags::IN)];
        poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        Ok(asked[0].revents().contains(PollFlags::HUP))
    }
}

impl AsRawFd for Source {
    fn as_raw_fd(&self) -> RawFd {
        self.receiver.as_raw_fd()
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.receiver.fmt(f)
    }
}

impl ByteStream for Source {}

impl ReadBytes for Source {
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        // read(2) gives 0 for an empty buffer, which does not say that the pipe has ended.
        if buf.is_empty() {
            return Ok(0);
        }
        self.end_or_wait(rustix::io::read(&self.receiver, buf))
    }

    fn read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Ok(0);
        }
        self.end_or_wait(rustix::io::readv(&self.receiver, bufs))
    }
}

/// The end of a pipe that is read from; from [`pair`] or a child process.
///
/// Dropping it closes it: whoever writes to the other end then gets `BrokenPipe`.
///
/// ```
/// use std::process::{Command, Stdio};
/// use waterspout::{IoLoop, net::pipe::PipeReader};
///
/// # IoLoop::new()?.run_sync(|| async {
/// let mut child = Command::new("echo").arg("hello").stdout(Stdio::piped()).spawn()?;
/// let stdout = PipeReader::try_from(child.stdout.take().unwrap())?;
/// let mut buf = [0; 6];
/// stdout.read_exact(&mut buf).await?;
/// assert_eq!(&buf, b"hello\n");
/// child.wait()?;
/// # Ok::<(), std::io::Error>(())
/// # })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PipeReader {
    registered: Registered<Source>,
}

impl PipeReader {
    /// Of a receiver that is in non-blocking mode already.
    fn new(receiver: Receiver, is_fifo: bool) -> io::Result<PipeReader> {
        let source = Source { receiver, is_fifo };
        let ready = [Direction::Read];
        let registered = Registered::with_interest(source, Interest::READABLE, &ready)?;
        Ok(PipeReader { registered })
    }

    fn nonblocking(receiver: Receiver, is_fifo: bool) -> io::Result<PipeReader> {
        receiver.set_nonblocking(true)?;
        PipeReader::new(receiver, is_fifo)
    }

    /// Opens a FIFO to read from, for the current loop. Opening does not wait for a writer.
    ///
    /// Reading waits for the first writer, and comes to the end when the last writer has gone. If you
    /// want to read what later writers write, too, open the FIFO for writing yourself: then there is
    /// always one.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the file is no FIFO; what the system says of opening it.
    ///
    /// # Panics
    ///
    /// As [`IoLoop::current`](crate::IoLoop::current).
    ///
    /// ```
    /// use waterspout::{IoLoop, net::pipe::{PipeReader, PipeWriter}};
    ///
    /// # let path = std::env::temp_dir().join(format!("waterspout-fifo-{}", std::process::id()));
    /// # assert!(std::process::Command::new("mkfifo").arg(&path).status()?.success());
    /// # IoLoop::new()?.run_sync(|| async {
    /// let reader = PipeReader::open(&path)?;
    /// let writer = PipeWriter::open(&path)?;
    /// # std::fs::remove_file(&path)?;
    /// writer.write_all(b"hello").await?;
    /// drop(writer);
    /// let mut buf = [0; 16];
    /// assert_eq!(reader.read(&mut buf).await?, 5);
    /// assert_eq!(reader.read(&mut buf).await?, 0);
    /// # Ok::<(), std::io::Error>(())
    /// # })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(path: impl AsRef<Path>) -> io::Result<PipeReader> {
        PipeReader::new(open_fifo(path.as_ref(), OpenOptions::new().read(true))?.into(), true)
    }

    /// Takes the pipe from the loop and gives its fd, in blocking mode, as child processes expect it.
    ///
    /// # Errors
    ///
    /// If it belongs to another loop than the current one; what the system says. The pipe is closed then.
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        let Source { receiver, .. } = self.registered.into_source()?;
        receiver.set_nonblocking(false)?;
        Ok(receiver.into())
    }

    reading!();
    readable!("something to read", try_read);
}

impl TryFrom<ChildStdout> for PipeReader {
    type Error = io::Error;

    /// Takes over what a child writes to its standard output, for the current loop.
    fn try_from(stdout: ChildStdout) -> io::Result<PipeReader> {
        let reader = PipeReader::nonblocking(stdout.into(), false)?;
        reader.registered.mark_outside();
        Ok(reader)
    }
}

impl TryFrom<ChildStderr> for PipeReader {
    type Error = io::Error;

    /// Takes over what a child writes to its standard error, for the current loop.
    fn try_from(stderr: ChildStderr) -> io::Result<PipeReader> {
        let reader = PipeReader::nonblocking(stderr.into(), false)?;
        reader.registered.mark_outside();
        Ok(reader)
    }
}

impl TryFrom<OwnedFd> for PipeReader {
    type Error = io::Error;

    /// Takes over an fd to read from, for the current loop. It is made non-blocking, and that also for
    /// other processes that share it. epoll refuses the fd of a regular file (`EPERM`).
    ///
    /// Of a FIFO that nobody has opened for writing yet, reading waits for the first writer.
    fn try_from(fd: OwnedFd) -> io::Result<PipeReader> {
        let file = File::from(fd);
        let is_fifo = file.metadata()?.file_type().is_fifo();
        PipeReader::nonblocking(OwnedFd::from(file).into(), is_fifo)
    }
}

async_read!(PipeReader, &PipeReader);
shows_fd!(PipeReader);

/// The end of a pipe that is written to; from [`pair`] or a child process.
///
/// Dropping it, or closing it through [`AsyncWrite`], ends the pipe for whoever reads from the other
/// end, unless there are other writers.
///
/// ```
/// use futures::AsyncWriteExt;
/// use std::process::{Command, Stdio};
/// use waterspout::{IoLoop, net::pipe::{PipeReader, PipeWriter}};
///
/// # IoLoop::new()?.run_sync(|| async {
/// let mut command = Command::new("cat");
/// let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
/// let mut stdin = PipeWriter::try_from(child.stdin.take().unwrap())?;
/// let stdout = PipeReader::try_from(child.stdout.take().unwrap())?;
/// stdin.write_all(b"hello").await?;
/// stdin.close().await?;
/// let mut buf = [0; 5];
/// stdout.read_exact(&mut buf).await?;
/// assert_eq!(&buf, b"hello");
/// assert_eq!(stdout.read(&mut buf).await?, 0);
/// child.wait()?;
/// # Ok::<(), std::io::Error>(())
/// # })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PipeWriter {
    /// `None` once it was closed through `AsyncWrite`. A socket can be shut down and keep its fd, but
    /// the only way to end a pipe is to close the fd.
    registered: Option<Registered<Sender>>,
}

impl PipeWriter {
    /// Of a sender that is in non-blocking mode already.
    fn new(sender: Sender) -> io::Result<PipeWriter> {
        let ready = [Direction::Write];
        let registered = Registered::with_interest(sender, Interest::WRITABLE, &ready)?;
        Ok(PipeWriter { registered: Some(registered) })
    }

    fn nonblocking(sender: Sender) -> io::Result<PipeWriter> {
        sender.set_nonblocking(true)?;
        PipeWriter::new(sender)
    }

    /// Opens a FIFO to write to, for the current loop. Opening does not wait for a reader.
    ///
    /// # Errors
    ///
    /// `ENXIO` if nobody has it open for reading: try again later, or open it for reading yourself before.
    /// `InvalidInput` if the file is no FIFO; what the system says of opening it.
    ///
    /// # Panics
    ///
    /// As [`IoLoop::current`](crate::IoLoop::current).
    pub fn open(path: impl AsRef<Path>) -> io::Result<PipeWriter> {
        PipeWriter::new(open_fifo(path.as_ref(), OpenOptions::new().write(true))?.into())
    }

    fn registered(&self) -> io::Result<&Registered<Sender>> {
        self.registered.as_ref().ok_or_else(closed)
    }

    /// Takes the pipe from the loop and gives its fd, in blocking mode, as child processes expect it.
    ///
    /// # Errors
    ///
    /// `BrokenPipe` if it was closed through [`AsyncWrite`]. An error if it belongs to another loop than
    /// the current one; what the system says. The pipe is closed then.
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        let registered = self.registered.ok_or_else(closed)?;
        let sender = registered.into_source()?;
        sender.set_nonblocking(false)?;
        Ok(sender.into())
    }

    /// Waits until there is room, writes as much of `buf` as fits, and gives the number of bytes.
    ///
    /// Cancel safe: if the future is dropped before it is done, nothing was written.
    ///
    /// # Errors
    ///
    /// `BrokenPipe` if nobody reads any more, or this end was closed; what the system says.
    #[track_caller]
    pub fn write(&self, buf: &[u8]) -> impl FusedFuture<Output = io::Result<usize>> {
        let place = Location::caller();
        resumption::fused(async move { self.registered()?.write(place, buf).await })
    }

    /// Writes all of `buf`.
    ///
    /// Not cancel safe: only this future knows how much it has written.
    ///
    /// # Errors
    ///
    /// As [`write`](PipeWriter::write).
    #[track_caller]
    pub fn write_all(&self, buf: &[u8]) -> impl FusedFuture<Output = io::Result<()>> {
        let place = Location::caller();
        resumption::fused(async move { self.registered()?.write_all(place, buf).await })
    }

    /// [`write`](PipeWriter::write) from several buffers, one after the other, by one system call.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// As [`write`](PipeWriter::write).
    #[track_caller]
    pub fn write_vectored(
        &self,
        bufs: &[IoSlice<'_>],
    ) -> impl FusedFuture<Output = io::Result<usize>> {
        let place = Location::caller();
        resumption::fused(async move { self.registered()?.write_vectored(place, bufs).await })
    }

    /// Waits until there may be room to write; then use [`try_write`](PipeWriter::try_write).
    ///
    /// There may be none all the same: then that method answers `WouldBlock`, and from there on this
    /// waits. A new pipe may count as writable until such an answer, so the first wait may be over at
    /// once.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// If the pipe belongs to another loop than the current one, or was closed.
    #[track_caller]
    pub fn writable(&self) -> impl FusedFuture<Output = io::Result<()>> {
        let place = Location::caller();
        resumption::fused(async move { self.registered()?.ready(Direction::Write, place).await })
    }

    /// Waits until nobody reads any more, so that every write would fail with `BrokenPipe`.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// If the pipe belongs to another loop than the current one, or this end was closed.
    #[track_caller]
    pub fn closed(&self) -> impl FusedFuture<Output = io::Result<()>> {
        let place = Location::caller();
        resumption::fused(async move {
            let registered = self.registered()?;
            let until_closed = |asker: Asker<'_>| registered.poll_closed(asker, Direction::Write);
            registered.waiting(Direction::Write, place, until_closed).await
        })
    }

    /// [`closed`](PipeWriter::closed) as a poll function: of the tasks that call it, only the last one
    /// is woken.
    ///
    /// # Errors
    ///
    /// As [`closed`](PipeWriter::closed).
    pub fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.registered() {
            Ok(registered) => registered.poll_closed(cx, Direction::Write),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// [`writable`](PipeWriter::writable) as a poll function: of the tasks that call it, only the last
    /// one is woken.
    ///
    /// # Errors
    ///
    /// As [`writable`](PipeWriter::writable).
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.registered() {
            Ok(registered) => registered.poll_ready(cx, Direction::Write),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// [`write`](PipeWriter::write) without waiting.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is no room; else as [`write`](PipeWriter::write).
    pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        self.registered()?.try_write(buf)
    }

    /// [`write_vectored`](PipeWriter::write_vectored) without waiting.
    ///
    /// # Errors
    ///
    /// As [`try_write`](PipeWriter::try_write).
    pub fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.registered()?.try_write_vectored(bufs)
    }
}

/// Opens a FIFO, without waiting for anybody to open its other end.
fn open_fifo(path: &Path, options: &mut OpenOptions) -> io::Result<OwnedFd> {
    let file = options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    if !file.metadata()?.file_type().is_fifo() {
        let message = format!("{} is no FIFO", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    Ok(file.into())
}

/// The error of a [`PipeWriter`] that was closed through `AsyncWrite`.
fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "this pipe was closed here")
}

impl TryFrom<ChildStdin> for PipeWriter {
    type Error = io::Error;

    /// Takes over what a child reads from its standard input, for the current loop.
    fn try_from(stdin: ChildStdin) -> io::Result<PipeWriter> {
        let writer = PipeWriter::nonblocking(stdin.into())?;
        writer.registered()?.mark_outside();
        Ok(writer)
    }
}

impl TryFrom<OwnedFd> for PipeWriter {
    type Error = io::Error;

    /// Takes over an fd to write to, for the current loop. It is made non-blocking, and that also for
    /// other processes that share it. epoll refuses the fd of a regular file (`EPERM`).
    fn try_from(fd: OwnedFd) -> io::Result<PipeWriter> {
        PipeWriter::nonblocking(fd.into())
    }
}

impl AsyncWrite for PipeWriter {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.registered() {
            Ok(registered) => registered.poll_write(cx, buf),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.registered() {
            Ok(registered) => registered.poll_write_vectored(cx, bufs),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.registered = None;
        Poll::Ready(Ok(()))
    }
}

/// # Panics
///
/// If it was closed through [`AsyncWrite`]: then it has no fd any more.
impl AsFd for PipeWriter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.registered {
            Some(registered) => registered.as_fd(),
            None => panic!("a pipe that was closed has no fd any more"),
        }
    }
}

/// # Panics
///
/// If it was closed through [`AsyncWrite`]: then it has no fd any more.
impl AsRawFd for PipeWriter {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl fmt::Debug for PipeWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.registered {
            Some(registered) => registered.fmt(f),
            None => f.write_str("PipeWriter (closed)"),
        }
    }
}
