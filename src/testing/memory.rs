//! `duplex`: two streams in memory, each of which reads what is written to the other.
//!
//! They do what code has to cope with in sockets, and nothing else: each direction has a bounded buffer; the
//! end is seen after all bytes before it; one reader and one writer can wait. They make no system calls, so
//! virtual time does not stop for them, and they belong to no loop, so they work on any thread.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use futures::io::{AsyncRead, AsyncWrite};

use crate::ground::wait_queue::wake;
use crate::ground::{foreign, resumption};

/// Makes a pair of streams: what is written to one is read from the other. Each direction holds `capacity`
/// bytes at most (0 counts as 1); when it is full, writing waits until the other side reads.
///
/// ```
/// use futures::{AsyncReadExt, AsyncWriteExt};
/// use waterspout::{IoLoop, testing};
///
/// # IoLoop::new()?.run_sync(|| async {
/// let (mut here, mut there) = testing::duplex(64);
/// here.write_all(b"hello").await?;
/// here.close().await?;
/// let mut heard = String::new();
/// there.read_to_string(&mut heard).await?;
/// assert_eq!(heard, "hello");
/// there.write_all(b"the other direction is still open").await?;
/// # Ok::<(), std::io::Error>(())
/// # })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn duplex(capacity: usize) -> (Memory, Memory) {
    let direction = || {
        let bytes = Bytes { capacity: capacity.max(1), ..Bytes::default() };
        Arc::new(Mutex::new(bytes))
    };
    let (one, other) = (direction(), direction());
    (
        Memory { incoming: one.clone(), outgoing: other.clone() },
        Memory { incoming: other, outgoing: one },
    )
}

/// One direction of a pair.
#[derive(Default)]
struct Bytes {
    held: VecDeque<u8>,
    capacity: usize,
    /// Whether the writing side is closed, so that no more will be written.
    ended: bool,
    /// Whether the reading side was dropped, so that nobody will read.
    unread: bool,
    /// Whoever waits for bytes.
    reader: Option<Waker>,
    /// Whoever waits for room.
    writer: Option<Waker>,
}

/// A stream in memory; from [`duplex`].
///
/// Closing it, by [`AsyncWrite`], ends the direction to the other side. Dropping it ends both directions:
/// writing on the other side gives the error `BrokenPipe` then. At most one task should read and one task
/// write at the same time, as the traits say: of several that wait for the same, only the last one is
/// woken.
pub struct Memory {
    incoming: Arc<Mutex<Bytes>>,
    outgoing: Arc<Mutex<Bytes>>,
}

impl Memory {
    /// How many bytes the other side has written that were not read here yet.
    pub fn arrived(&self) -> usize {
        lock(&self.incoming).held.len()
    }

    /// Ends the direction to the other side.
    fn end(&self) {
        let mut bytes = lock(&self.outgoing);
        bytes.ended = true;
        let reader = bytes.reader.take();
        drop(bytes);
        wake(reader);
    }
}

fn lock(bytes: &Mutex<Bytes>) -> MutexGuard<'_, Bytes> {
    // Nothing under the lock panics.
    bytes.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AsyncRead for Memory {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        // Wakers are foreign code: they are woken, cloned and dropped only while the lock is not held.
        ready!(resumption::poll_proceed(cx));
        let waker = cx.waker().clone();
        let mut bytes = lock(&self.incoming);
        if bytes.held.is_empty() && !bytes.ended && !buf.is_empty() {
            let before = bytes.reader.replace(waker);
            drop(bytes);
            foreign::discard(before);
            return Poll::Pending;
        }
        let n = bytes.held.read(buf)?;
        let writer = if n > 0 { bytes.writer.take() } else { None };
        drop(bytes);
        wake(writer);
        Poll::Ready(Ok(n))
    }
}

impl AsyncWrite for Memory {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(resumption::poll_proceed(cx));
        let waker = cx.waker().clone();
        let mut bytes = lock(&self.outgoing);
        if bytes.ended || bytes.unread {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let n = buf.len().min(bytes.capacity - bytes.held.len());
        if n == 0 && !buf.is_empty() {
            let before = bytes.writer.replace(waker);
            drop(bytes);
            foreign::discard(before);
            return Poll::Pending;
        }
        bytes.held.write_all(&buf[..n])?;
        let reader = if n > 0 { bytes.reader.take() } else { None };
        drop(bytes);
        wake(reader);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.end();
        let mut bytes = lock(&self.incoming);
        bytes.unread = true;
        bytes.held = VecDeque::new();
        let writer = bytes.writer.take();
        drop(bytes);
        wake(writer);
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("arrived", &self.arrived()).finish_non_exhaustive()
    }
}
