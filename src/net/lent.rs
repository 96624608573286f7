//! Buffers that the loop lends to whoever has something to read.
//!
//! A connection that waits needs no buffer; the loop keeps a few for those that do not wait. So ten
//! thousand idle connections own none, and the busy ones share buffers large enough to empty a
//! socket in one call.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::ioloop::with_current;

/// How many buffers a loop keeps for later; more are in use at once only while writes are blocked.
const KEPT: usize = 8;

/// Bytes that have just been read, in a buffer of the loop; dropping it gives the buffer back.
///
/// From `read_lent` of a stream. It dereferences to what was read, which is empty at the end of the
/// stream. It may be held while awaiting (a write, say); then it is one buffer more in use.
pub struct Lent {
    /// `None` once given back.
    buffer: Option<Box<[u8]>>,
    len: usize,
}

impl Lent {
    /// How large a lent buffer is, in bytes: 64 KiB, what Tornado reads at a time.
    pub const SIZE: usize = 64 * 1024;

    pub(crate) fn borrow() -> Lent {
        let kept = with_current(|core| core.lent.borrow_mut().pop()).flatten();
        let buffer = kept.unwrap_or_else(|| vec![0; Lent::SIZE].into_boxed_slice());
        Lent { buffer: Some(buffer), len: 0 }
    }

    pub(crate) fn whole(&mut self) -> &mut [u8] {
        self.buffer.as_deref_mut().unwrap_or_default()
    }

    pub(super) fn filled(mut self, len: usize) -> Lent {
        self.len = len;
        self
    }
}

impl Deref for Lent {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.buffer.as_deref().map_or(&[], |buffer| &buffer[..self.len])
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
