//! Buffers that the loop lends to a read when there is something to read.
//!
//! While a connection waits, it needs no buffer. So the loop keeps a few buffers, lends one to a read
//! that is tried, and gets it back when the bytes were dealt with. Ten thousand idle connections have no
//! buffer at all, and the busy ones share a few that are large enough to drain a socket by one system
//! call.
//!
//! A buffer that is lent for a second time still holds bytes of the connection that had it first. That
//! is no harm if a socket is read, since the system only writes into the buffer. But an `IoStream` may
//! be over a transport of the user, whose code could look into the buffer, and pass another connection's
//! secrets on. So a buffer knows how much of it was used, and that part is zeroed before foreign code
//! reads into it.

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::task::Poll;

use crate::ground::foreign;
use crate::ioloop::{LentBuffer, with_current};

/// How many buffers a loop keeps when nobody uses them. More are in use at the same time only if many
/// coroutines hold what they have read while they wait, for a slow write, say; those above this number are
/// given back to the allocator.
const KEPT_BUFFERS: usize = 8;

/// Bytes that have just been read, in a buffer that the loop lends; from `read_lent` of a stream.
/// Dropping it gives the buffer back to the loop.
///
/// It dereferences to the bytes, of which there are none at the end of the stream. It may be held while
/// something is awaited (a write, say); meanwhile other reads use other buffers.
pub struct Lent {
    /// `None` only while it is dropped.
    buffer: Option<LentBuffer>,
    /// How many bytes were read.
    len: usize,
}

impl Lent {
    /// How large a lent buffer is, in bytes: 64 KiB, what Tornado reads at a time.
    pub const SIZE: usize = 64 * 1024;

    /// A buffer of the current loop, or a new one if the loop has none left, with nothing read into it
    /// yet.
    pub(crate) fn borrow() -> Lent {
        let kept = with_current(|core| core.lent.borrow_mut().pop()).flatten();
        let new = || LentBuffer { bytes: vec![0; Lent::SIZE].into_boxed_slice(), used: 0 };
        Lent { buffer: Some(kept.unwrap_or_else(new)), len: 0 }
    }

    /// The whole buffer, for a socket to read into. After the read, the caller says by
    /// [`filled`](Lent::filled) how much that was.
    pub(super) fn whole(&mut self) -> &mut [u8] {
        self.buffer.as_mut().map_or(&mut [], |buffer| &mut buffer.bytes)
    }

    /// It holds `len` bytes that were read.
    pub(super) fn filled(mut self, len: usize) -> Lent {
        self.set_len(len);
        self
    }

    fn set_len(&mut self, len: usize) {
        self.len = len;
        if let Some(buffer) = &mut self.buffer {
            buffer.used = buffer.used.max(len);
        }
    }

    /// Lets foreign code read into the buffer, at most `most` bytes. That code sees zeros in place of what
    /// was in the buffer before. If it claims to have read more than `most`, that is an error.
    #[cfg(feature = "hyper")]
    pub(crate) fn poll_fill(
        &mut self,
        most: usize,
        read: impl FnOnce(&mut [u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.poll_fill_behind(0, most, false, read)
    }

    /// [`poll_fill`](Lent::poll_fill) behind the first `before` bytes of the buffer, which the caller will
    /// write to. `is_ours` says that `read` is no foreign code: it lets the system write into the buffer,
    /// and does not look into it.
    pub(crate) fn poll_fill_behind(
        &mut self,
        before: usize,
        most: usize,
        is_ours: bool,
        read: impl FnOnce(&mut [u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let Some(LentBuffer { bytes, used }) = &mut self.buffer else { return Poll::Ready(Ok(0)) };
        let most = most.min(bytes.len() - before);
        let was_used = match is_ours {
            true => *used,
            false => {
                bytes[..*used].fill(0);
                0
            }
        };
        // If the foreign code panics, or claims too much, nobody knows how much it has written: all of
        // what it was shown counts as used.
        *used = was_used.max(before + most);
        let polled = read(&mut bytes[before..before + most]);
        match &polled {
            Poll::Ready(Ok(len)) => {
                foreign::believed(*len, most)?;
                *used = was_used;
                self.set_len(before + *len);
            }
            Poll::Ready(Err(_)) | Poll::Pending => *used = was_used,
        }
        polled
    }

    /// Takes the buffer away from the loop, for its bytes to stay where they are.
    pub(crate) fn into_memory(mut self) -> Vec<u8> {
        self.buffer.take().map_or_else(Vec::new, |buffer| buffer.bytes.into_vec())
    }

    /// Gives the loop memory of the size that it lends, in place of what was
    /// [taken away](Lent::into_memory). Other memory is freed.
    pub(crate) fn give_back(memory: Vec<u8>) {
        if memory.len() == Lent::SIZE {
            let buffer = LentBuffer { bytes: memory.into_boxed_slice(), used: Lent::SIZE };
            drop(Lent { buffer: Some(buffer), len: 0 });
        }
    }
}

impl Deref for Lent {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], |buffer| &buffer.bytes[..self.len])
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut [u8] {
        let len = self.len;
        &mut self.whole()[..len]
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(buffer) = self.buffer.take() else { return };
        with_current(|core| {
            let mut kept = core.lent.borrow_mut();
            if kept.len() < KEPT_BUFFERS && !core.is_closed() {
                kept.push(buffer);
            }
        });
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lent").field(&&**self).finish()
    }
}
