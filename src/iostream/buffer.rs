//! Bytes on their way through a stream: those that were received and nobody has read yet, and copies of those
//! that were written and are unsent.
//!
//! Bytes are appended at the end, all of them can be seen as one slice, and they are taken from the front.
//! That takes time linear in the bytes that pass through. An empty buffer owns no memory, since most streams
//! are idle most of the time.
//!
//! The bytes are in a vector, from `start` up to `end`. There are two kinds of memory:
//!
//! * *Little memory*, for few bytes: a vector of its own, with nothing behind `end`.
//! * *Large memory*, into which a socket reads directly: [`Lent::SIZE`] or more, with room behind `end`. If it
//!   is of exactly that size, it came from the loop or could have, and goes back there.
//!
//! A socket reads into a buffer that the loop lends, with room at its front for the bytes that are here
//! already. If all of them together are few, those that came are appended to little memory, and the loop has
//! its buffer back at once. If they fill half of the lent buffer, that becomes the memory: at full speed no
//! byte is copied before it is taken. What large memory is used for less than a quarter goes back to little
//! memory when a read has to wait, so a slow peer ties up no more than four times what it has sent.

use std::io;
use std::task::{Poll, ready};

use crate::ground::foreign;
use crate::sockets::Lent;

/// Bytes on their way. See the module's text. Dropping it gives the loop's memory back.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }

    #[inline]
    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Appends a copy of `bytes`.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.bytes.truncate(self.end);
        // What was taken is at least as much as what is moved, so each byte is moved once on average.
        if self.start > self.len() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
        self.end = self.bytes.len();
    }

    /// Appends a copy of `bytes` in memory that the loop lends, for a short time: [`settle`](Buffer::settle)
    /// is to be called if the bytes have to stay. `false` if there is no room for all of them.
    pub(super) fn gather(&mut self, bytes: &[u8]) -> bool {
        if self.bytes.is_empty() && bytes.len() <= Lent::SIZE {
            self.bytes = Lent::borrow().into_memory();
        }
        let room = self.bytes.get_mut(self.end..self.end + bytes.len());
        let fits = room.map(|room| room.copy_from_slice(bytes)).is_some();
        if fits {
            self.end += bytes.len();
        }
        fits
    }

    /// Receives up to `most` bytes behind those that are here, by `read`, which may be foreign code unless
    /// `is_ours` says that only the system writes into what it is given.
    ///
    /// # Errors
    ///
    /// Those of `read`, and one if it claims to have read more than there was room for.
    pub(super) fn poll_receive(
        &mut self,
        most: usize,
        is_ours: bool,
        read: impl FnOnce(&mut [u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if self.bytes.len() < Lent::SIZE {
            let (mut lent, have) = (Lent::borrow(), self.len());
            let n = ready!(lent.poll_fill_behind(have, most, is_ours, read))?;
            if have + n < Lent::SIZE / 2 {
                self.extend(&lent[have..]);
            } else if n > 0 {
                lent[..have].copy_from_slice(self.as_slice());
                *self = Buffer { bytes: lent.into_memory(), start: 0, end: have + n };
            }
            return Poll::Ready(Ok(n));
        }
        self.make_room();
        let room = &mut self.bytes[self.end..];
        let most = most.min(room.len());
        match read(&mut room[..most]) {
            Poll::Ready(read) => {
                let n = foreign::believed(read?, most)?;
                self.end += n;
                Poll::Ready(Ok(n))
            }
            Poll::Pending => {
                self.settle();
                Poll::Pending
            }
        }
    }

    /// Sees to it that there is room behind the bytes, by moving them to the front or into larger memory.
    fn make_room(&mut self) {
        let (size, room) = (self.bytes.len(), self.bytes.len() - self.end);
        // As above, or not much worse; but where the bytes fill more than a half, they would soon be moved
        // again.
        if self.start >= self.len() || (room < size / 4 && self.start >= size / 4) {
            self.bytes.copy_within(self.start..self.end, 0);
        } else if room < size / 4 {
            let mut larger = vec![0; 2 * size];
            larger[..self.len()].copy_from_slice(self.as_slice());
            Lent::give_back(std::mem::replace(&mut self.bytes, larger));
        } else {
            return;
        }
        (self.start, self.end) = (0, self.len());
    }

    /// The bytes are to stay for a while: moves few bytes out of large memory.
    pub(super) fn settle(&mut self) {
        if self.bytes.len() >= Lent::SIZE && self.len() < self.bytes.len() / 4 {
            let few = self.as_slice().to_vec();
            Lent::give_back(std::mem::take(&mut self.bytes));
            *self = Buffer { start: 0, end: few.len(), bytes: few };
        }
    }

    /// Takes the first `n` bytes.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    #[inline]
    pub(super) fn take(&mut self, n: usize) -> Vec<u8> {
        if n == self.bytes.len() {
            return self.take_memory();
        }
        let taken = self.as_slice()[..n].to_vec();
        self.consume(n);
        taken
    }

    /// Takes all bytes with the memory, which is full of them.
    fn take_memory(&mut self) -> Vec<u8> {
        (self.start, self.end) = (0, 0);
        std::mem::take(&mut self.bytes)
    }

    /// Takes the first `n` bytes, and appends them to `to`.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    #[inline]
    pub(super) fn take_onto(&mut self, n: usize, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.as_slice()[..n]);
        self.consume(n);
    }

    /// Takes as many bytes as there are and fit into `buf`, copies them there, and returns their number.
    pub(super) fn take_into(&mut self, buf: &mut [u8]) -> usize {
        let n = self.len().min(buf.len());
        buf[..n].copy_from_slice(&self.as_slice()[..n]);
        self.consume(n);
        n
    }

    /// Drops the first `n` bytes.
    #[inline]
    pub(super) fn consume(&mut self, n: usize) {
        self.start += n;
        if self.start == self.end {
            self.release();
        }
    }

    /// Nothing is left: gives the memory back.
    #[cold]
    fn release(&mut self) {
        let memory = self.take_memory();
        Lent::give_back(memory);
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        Lent::give_back(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_order_however_they_are_taken() {
        let mut buffer = Buffer::default();
        let all: Vec<u8> = (0..=255).collect();
        for chunk in all.chunks(7) {
            buffer.extend(chunk);
        }
        let mut seen = buffer.take(3);
        let mut some = [0; 100];
        assert_eq!(buffer.take_into(&mut some), 100);
        seen.extend(some);
        seen.extend(buffer.take(0));
        seen.extend(buffer.take(buffer.len()));
        assert_eq!(seen, all);
        assert_eq!(buffer.take_into(&mut some), 0);
    }

    #[test]
    fn an_empty_buffer_owns_no_memory() {
        let mut buffer = Buffer::default();
        buffer.extend(&[0; 1000]);
        buffer.take(400);
        assert_eq!(buffer.take_into(&mut [0; 1000]), 600);
        assert_eq!(buffer.bytes.capacity(), 0);
        buffer.extend(&[1; 10]);
        assert_eq!(buffer.take(10), [1; 10]);
        assert_eq!(buffer.bytes.capacity(), 0);
    }

    /// Receives bytes that go on counting from where `next` is, at most `n`.
    fn receive(buffer: &mut Buffer, n: usize, next: &mut u8) -> usize {
        let read = |room: &mut [u8]| {
            let n = n.min(room.len());
            room[..n].fill_with(|| {
                *next = next.wrapping_add(1);
                *next
            });
            Poll::Ready(Ok(n))
        };
        match buffer.poll_receive(Lent::SIZE, true, read) {
            Poll::Ready(Ok(n)) => n,
            other => panic!("{other:?}"),
        }
    }

    fn wait(buffer: &mut Buffer) {
        assert!(buffer.poll_receive(Lent::SIZE, true, |_| Poll::Pending).is_pending());
    }

    #[test]
    fn whatever_is_received_comes_out_in_order_whatever_is_taken() {
        let (mut buffer, mut came, mut went) = (Buffer::default(), 0, 0_u8);
        let mut state = 1_u32;
        let mut random = |up_to: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % up_to
        };
        for _ in 0..3000 {
            let scale = 1 << random(18);
            match random(5) {
                0 | 1 => _ = receive(&mut buffer, 1 + random(scale), &mut came),
                2 => wait(&mut buffer),
                _ => {
                    let n = random(scale.min(buffer.len()) + 1);
                    let taken = match random(3) {
                        0 => buffer.take(n),
                        1 => {
                            let mut taken = Vec::new();
                            buffer.take_onto(n, &mut taken);
                            taken
                        }
                        _ => {
                            let mut taken = vec![0; n];
                            assert_eq!(buffer.take_into(&mut taken), n);
                            taken
                        }
                    };
                    assert_eq!(taken.len(), n);
                    for byte in taken {
                        went = went.wrapping_add(1);
                        assert_eq!(byte, went);
                    }
                }
            }
            assert_eq!(came.wrapping_sub(went) as usize, buffer.len() % 256);
        }
    }

    #[test]
    fn few_bytes_take_little_memory_and_many_are_not_copied() {
        let (mut buffer, mut next) = (Buffer::default(), 0);
        receive(&mut buffer, 100, &mut next);
        assert!(buffer.capacity() <= 200);
        receive(&mut buffer, Lent::SIZE, &mut next);
        assert_eq!(buffer.capacity(), Lent::SIZE);
        // What is left stays where it is while it is worth it, and until somebody waits for more.
        buffer.consume(Lent::SIZE / 2);
        wait(&mut buffer);
        assert_eq!((buffer.len(), buffer.capacity()), (Lent::SIZE / 2, Lent::SIZE));
        buffer.consume(Lent::SIZE / 2 - 100);
        assert_eq!(buffer.capacity(), Lent::SIZE);
        wait(&mut buffer);
        assert!(buffer.len() == 100 && buffer.capacity() <= 200);
    }

    #[test]
    fn one_byte_at_a_time_moves_no_more_than_many_at_once() {
        let (mut buffer, mut next) = (Buffer::default(), 0);
        let (mut moves, mut memory) = (0, 0);
        for n in 1..=3 * Lent::SIZE {
            receive(&mut buffer, 1, &mut next);
            wait(&mut buffer);
            assert!(buffer.capacity() <= 4 * n.max(Lent::SIZE / 4));
            moves += usize::from(std::mem::replace(&mut memory, buffer.capacity()) != memory);
        }
        assert!(moves < 40, "{moves}");
    }

    #[test]
    fn what_was_taken_does_not_pile_up() {
        let mut buffer = Buffer::default();
        buffer.extend(&[7; 10]);
        for _ in 0..10_000 {
            buffer.extend(&[7; 100]);
            assert_eq!(buffer.take(100).len(), 100);
        }
        assert_eq!(buffer.len(), 10);
        assert!(buffer.bytes.capacity() < 2000, "{}", buffer.bytes.capacity());
    }
}
