//! Buffers that the loop lends to whoever has something to read.
//!
//! A connection that waits needs no buffer; the loop keeps a few for those that do not wait. So ten
//! thousand idle connections own none, and the busy ones share buffers large enough to empty a
//! socket in one call.
//!
//! A buffer that is lent again holds bytes of whoever had it before. A socket does not look, but what
//! else an `IoStream` is over might; so a buffer knows how much of it was used, and that is zeroed
//! before somebody else's code reads into it.

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::task::Poll;

use crate::ground::foreign;
use crate::ioloop::{LentBuffer, with_current};

/// How many buffers a loop keeps for later; more are in use at once only while writes are blocked.
const KEPT: usize = 8;

/// Bytes that have just been read, in a buffer of the loop; dropping it gives the buffer back.
///
/// From `read_lent` of a stream. It dereferences to what was read, which is empty at the end of the
/// stream. It may be held while awaiting (a write, say); then it is one buffer more in use.
pub struct Lent {
    /// `None` once given back.
    buffer: Option<LentBuffer>,
    len: usize,
}

impl Lent {
    /// How large a lent buffer is, in bytes: 64 KiB, what Tornado reads at a time.
    pub const SIZE: usize = 64 * 1024;

    pub(crate) fn borrow() -> Lent {
        let kept = with_current(|core| core.lent.borrow_mut().pop()).flatten();
        let new = || LentBuffer { bytes: vec![0; Lent::SIZE].into_boxed_slice(), used: 0 };
        Lent { buffer: Some(kept.unwrap_or_else(new)), len: 0 }
    }

    /// All of it, for a socket to read into; then tell how much that [`filled`](Lent::filled).
    pub(super) fn whole(&mut self) -> &mut [u8] {
        self.buffer.as_mut().map_or(&mut [], |buffer| &mut buffer.bytes)
    }

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

    /// Lets somebody else's code read into it, at most `most` bytes. That is shown none of what was in
    /// it before, and not believed if it claims to have read more.
    pub(crate) fn poll_fill(
        &mut self,
        most: usize,
        read: impl FnOnce(&mut [u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let Some(LentBuffer { bytes, used }) = &mut self.buffer else { return Poll::Ready(Ok(0)) };
        bytes[..*used].fill(0);
        let most = most.min(bytes.len());
        // Unless it comes back and says how much it was.
        *used = most;
        let polled = read(&mut bytes[..most]);
        match &polled {
            Poll::Ready(Ok(len)) => {
                foreign::believed(*len, most)?;
                *used = 0;
                self.set_len(*len);
            }
            Poll::Ready(Err(_)) | Poll::Pending => *used = 0,
        }
        polled
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
            if kept.len() < KEPT && !core.is_closed() {
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
