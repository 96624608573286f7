//! The bytes that a stream has received and nobody has read yet. Plain data.
//!
//! Bytes are appended at the end, all of them can be seen as one slice, and they are taken from the front.
//! That takes time linear in the bytes that pass through. An empty buffer owns no memory, since most streams
//! are idle most of the time.
//!
//! The buffer is one vector, and the index at which its unread bytes start. Taking all bytes of a vector
//! whose start is 0 gives the vector away without copying. Taking a part moves the start. When the bytes
//! before the start are more than half of the vector, they are removed and the others moved to the front;
//! so each byte is moved at most once on average.

/// Bytes that have arrived and were not read. See the module's text.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Takes the first `n` bytes.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub(super) fn take(&mut self, n: usize) -> Vec<u8> {
        if self.start == 0 && n == self.bytes.len() {
            return std::mem::take(&mut self.bytes);
        }
        let taken = self.as_slice()[..n].to_vec();
        self.consume(n);
        taken
    }

    /// Takes as many bytes as there are and fit into `buf`, copies them there, and returns their number.
    pub(super) fn take_into(&mut self, buf: &mut [u8]) -> usize {
        let n = self.len().min(buf.len());
        buf[..n].copy_from_slice(&self.as_slice()[..n]);
        self.consume(n);
        n
    }

    /// Drops the first `n` bytes.
    fn consume(&mut self, n: usize) {
        self.start += n;
        if self.start == self.bytes.len() {
            *self = Buffer::default();
        } else if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
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
