//! The word of a waker: the number of a loop, and the [`Key`] of a slot in that loop's table, packed
//! into one machine word.
//!
//! ```text
//!   63        48 47              24 23               0
//!  +------------+------------------+------------------+
//!  |    loop    |    generation    |       slot       |     (64-bit targets)
//!  +------------+------------------+------------------+
//! ```
//!
//! So a process can have 65,535 loops at once, and a loop 16,777,215 live coroutines. On narrower targets
//! they are 63 and 262,143.

use super::slots::{GENERATION_BITS, INDEX_BITS, Key};

const KEY_BITS: u32 = INDEX_BITS + GENERATION_BITS;

/// A number that no loop has. Its words are free for other uses: see `ioloop/due.rs`.
pub(crate) const NO_LOOP: usize = 0;
/// The largest number that a loop can have.
pub(crate) const MAX_LOOPS: usize = (1 << (usize::BITS - KEY_BITS)) - 1;

/// The word of slot `key` in loop `number`.
pub(crate) fn pack(number: usize, key: Key) -> usize {
    number << KEY_BITS | key.pack()
}

/// The inverse of [`pack`].
pub(crate) fn unpack(word: usize) -> (usize, Key) {
    (word >> KEY_BITS, Key::unpack(word))
}
