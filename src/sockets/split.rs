//! The two directions of a stream as two values, a half that reads and a half that writes.
//!
//! `split` borrows the stream, so its halves cost nothing, and both are used within one coroutine.
//! `into_split` moves the stream into an [`Arc`] that both halves have, so that two coroutines can have
//! one each. (An `Rc` would do for those, but then the halves would not be `Send`, as the streams are.)
//!
//! The other side of a stream is told of the end when the direction that writes is closed. It is when an
//! [`OwnedWriteHalf`] is dropped, though the reading half may keep the stream itself open: otherwise the
//! other side would wait for an end that never comes.

use std::error::Error;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::io::{AsyncRead, AsyncWrite};

/// A stream of which the direction that writes can be closed by itself.
pub trait HalfClose {
    /// Tells the other side that nothing more comes. Reading goes on.
    fn close_write(&self);
}

/// The result of a shutdown(2) that closes a stream. If the other side has gone, the stream is closed
/// already, which is no error for whoever closes it. (Linux answers `NotConnected` after a reset, macOS
/// also after an orderly end.)
pub(super) fn ok_if_disconnected(shutdown: io::Result<()>) -> io::Result<()> {
    match shutdown {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        result => result,
    }
}

/// The half of a borrowed stream that reads; from the stream's `split`.
#[derive(Debug)]
pub struct ReadHalf<'a, S>(pub(super) &'a S);

/// The half of a borrowed stream that writes; from the stream's `split`.
#[derive(Debug)]
pub struct WriteHalf<'a, S>(pub(super) &'a S);

/// The half that reads, of a stream that its two halves share; from the stream's `into_split`.
#[derive(Debug)]
pub struct OwnedReadHalf<S>(Arc<S>);

/// The half that writes, of a stream that its two halves share; from the stream's `into_split`. Dropping
/// it tells the other side that the stream has ended.
#[derive(Debug)]
pub struct OwnedWriteHalf<S: HalfClose> {
    stream: Arc<S>,
    /// Whether dropping this half tells the other side that the stream has ended. Not after `reunite`,
    /// when the stream lives on.
    closes_on_drop: bool,
}

pub(super) fn into_split<S: HalfClose>(stream: S) -> (OwnedReadHalf<S>, OwnedWriteHalf<S>) {
    let stream = Arc::new(stream);
    (OwnedReadHalf(stream.clone()), OwnedWriteHalf { stream, closes_on_drop: true })
}

impl<S: HalfClose> OwnedReadHalf<S> {
    /// Makes the stream of its two halves again.
    ///
    /// # Errors
    ///
    /// If the halves are of two different streams. The error has them, so nothing is closed.
    ///
    /// ```
    /// use waterspout::{IoLoop, net::UnixStream};
    ///
    /// # IoLoop::new()?.run_sync(|| async {
    /// let (here, there) = UnixStream::pair()?;
    /// let (read, write) = here.into_split();
    /// let here = read.reunite(write).expect("halves of one stream");
    /// here.write_all(b"a").await?; // nothing has ended meanwhile
    /// assert_eq!(there.read(&mut [0; 9]).await?, 1);
    /// # Ok::<(), std::io::Error>(())
    /// # })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reunite(self, mut write: OwnedWriteHalf<S>) -> Result<S, ReuniteError<S>> {
        if !Arc::ptr_eq(&self.0, &write.stream) {
            return Err(ReuniteError(self, write));
        }
        write.closes_on_drop = false;
        drop(write);
        Ok(Arc::into_inner(self.0).expect("nobody has it but its halves"))
    }
}

impl<S: HalfClose> OwnedWriteHalf<S> {
    /// Makes the stream of its two halves again; see [`OwnedReadHalf::reunite`].
    ///
    /// # Errors
    ///
    /// If the halves are of two different streams. The error has them, so nothing is closed.
    pub fn reunite(self, read: OwnedReadHalf<S>) -> Result<S, ReuniteError<S>> {
        read.reunite(self)
    }
}

/// The error of two halves that are not of one stream, with these two halves; from
/// [`OwnedReadHalf::reunite`].
pub struct ReuniteError<S: HalfClose>(pub OwnedReadHalf<S>, pub OwnedWriteHalf<S>);

impl<S: HalfClose> fmt::Debug for ReuniteError<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReuniteError")
    }
}

impl<S: HalfClose> fmt::Display for ReuniteError<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the halves are of two streams")
    }
}

impl<S: HalfClose> Error for ReuniteError<S> {}

impl<S> AsRef<S> for ReadHalf<'_, S> {
    fn as_ref(&self) -> &S {
        self.0
    }
}

impl<S> AsRef<S> for WriteHalf<'_, S> {
    fn as_ref(&self) -> &S {
        self.0
    }
}

impl<S> AsRef<S> for OwnedReadHalf<S> {
    fn as_ref(&self) -> &S {
        &self.0
    }
}

impl<S: HalfClose> AsRef<S> for OwnedWriteHalf<S> {
    fn as_ref(&self) -> &S {
        &self.stream
    }
}

impl<S: HalfClose> Drop for OwnedWriteHalf<S> {
    fn drop(&mut self) {
        if self.closes_on_drop {
            self.stream.close_write();
        }
    }
}

impl<S> AsyncRead for ReadHalf<'_, S>
where
    for<'b> &'b S: AsyncRead,
{
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self.0).poll_read(cx, buf)
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self.0).poll_read_vectored(cx, bufs)
    }
}

impl<S> AsyncRead for OwnedReadHalf<S>
where
    for<'b> &'b S: AsyncRead,
{
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self.0).poll_read(cx, buf)
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self.0).poll_read_vectored(cx, bufs)
    }
}

impl<S> AsyncWrite for WriteHalf<'_, S>
where
    for<'b> &'b S: AsyncWrite,
{
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self.0).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self.0).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self.0).poll_close(cx)
    }
}

impl<S: HalfClose> AsyncWrite for OwnedWriteHalf<S>
where
    for<'b> &'b S: AsyncWrite,
{
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self.stream).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self.stream).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self.stream).poll_close(cx)
    }
}
