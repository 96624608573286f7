//! What was written to a stream and is unsent: the bytes, and a promise for each write that is not done.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::ops::Range;

use super::buffer::Buffer;
use crate::concurrent::Promise;
use crate::ground::error::StreamError;
use crate::ground::foreign;

/// The unsent bytes of a stream, and the writes that they belong to.
#[derive(Default)]
pub(super) struct Unsent {
    /// The bytes. While the transport is called with some of them, those are not in here.
    pub(super) pieces: Pieces,
    /// Whether there are bytes, and all of them were fed: no write waits for them, and nobody has tried to
    /// send them yet.
    pub(super) gathering: bool,
    /// How many bytes were written since the stream was made. Bytes that are written by way of `AsyncWrite`
    /// go to the transport without being kept here, and do not count.
    pub(super) written: u64,
    /// How many of those were sent.
    pub(super) sent: u64,
    /// The writes that are not done, in order. The number of each is what `written` was after its last byte
    /// was added: the write is done as soon as `sent` has reached that number.
    pub(super) writes: VecDeque<(u64, Promise<Result<(), StreamError>>)>,
}

impl Unsent {
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.writes.is_empty()
    }

    /// Whether so many bytes may be written, if no more than `most` may be unsent.
    pub(super) fn has_room(&self, bytes: usize, most: usize) -> bool {
        bytes <= most.saturating_sub((self.written - self.sent) as usize)
    }

    /// Whether [`done`](Unsent::done) would give any write.
    pub(super) fn is_due(&self) -> bool {
        self.writes.front().is_some_and(|(last, _)| *last <= self.sent)
    }

    /// Takes out the writes whose last byte was sent. The caller settles their promises.
    pub(super) fn done(&mut self) -> Vec<Promise<Result<(), StreamError>>> {
        let done = self.writes.partition_point(|(last, _)| *last <= self.sent);
        self.writes.drain(..done).map(|(_, promise)| promise).collect()
    }

    /// Settles all writes with this error, which says that the stream is closed.
    pub(super) fn fail(self, error: &StreamError) {
        self.pieces.discard();
        for (_, promise) in self.writes {
            promise.set_result(Err(error.clone()));
        }
    }
}

/// Bytes that are sent one after the other.
#[derive(Default)]
pub(super) struct Pieces(VecDeque<Piece>);

/// Neither kind is empty.
enum Piece {
    /// Copies of what was written.
    Copied(Buffer),
    Owned(Owned),
}

/// A part of somebody else's bytes, which are kept as they are.
struct Owned {
    bytes: Box<dyn AsRef<[u8]>>,
    part: Range<usize>,
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Piece::Copied(buffer) => buffer.len(),
            Piece::Owned(owned) => owned.part.len(),
        }
    }

    /// The bytes. This calls foreign code, which may give other bytes each time.
    fn as_slice(&self) -> io::Result<&[u8]> {
        match self {
            Piece::Copied(buffer) => Ok(buffer.as_slice()),
            Piece::Owned(owned) => {
                let bytes = owned.bytes.as_ref().as_ref();
                bytes.get(owned.part.clone()).ok_or_else(|| {
                    let message = "bytes that were written have changed their number";
                    io::Error::new(io::ErrorKind::InvalidData, message)
                })
            }
        }
    }
}

impl Pieces {
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        let of = |piece: &Piece| match piece {
            Piece::Copied(buffer) => buffer.capacity(),
            Piece::Owned(_) => 0,
        };
        self.0.iter().map(of).sum()
    }

    /// How many pieces are sent at a time.
    const AT_ONCE: usize = 16;

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends a copy of `bytes`.
    pub(super) fn copy(&mut self, bytes: &[u8]) {
        match self.0.back_mut() {
            _ if bytes.is_empty() => {}
            Some(Piece::Copied(buffer)) => buffer.extend(bytes),
            _ => {
                let mut buffer = Buffer::default();
                buffer.extend(bytes);
                self.0.push_back(Piece::Copied(buffer));
            }
        }
    }

    /// Appends a part of `bytes`, which are kept as they are.
    pub(super) fn own<B: AsRef<[u8]> + 'static>(&mut self, bytes: B, part: Range<usize>) {
        if !part.is_empty() {
            self.0.push_back(Piece::Owned(Owned { bytes: Box::new(bytes), part }));
        }
    }

    /// Appends a copy of `bytes`, of which there are some, to others that were gathered and will be sent soon.
    /// `false` if there is no room for them.
    pub(super) fn gather(&mut self, bytes: &[u8]) -> bool {
        match self.0.back_mut() {
            Some(Piece::Copied(buffer)) => buffer.gather(bytes),
            Some(Piece::Owned(_)) => false,
            None => {
                let mut buffer = Buffer::default();
                let fits = buffer.gather(bytes);
                if fits {
                    self.0.push_back(Piece::Copied(buffer));
                }
                fits
            }
        }
    }

    pub(super) fn append(&mut self, mut behind: Pieces) {
        self.0.append(&mut behind.0);
    }

    /// Calls `send` with the first of the bytes, then `behind`, and gives how many bytes those are, and what
    /// `send` gives.
    pub(super) fn slices<R>(
        &self,
        behind: &[u8],
        send: impl FnOnce(&[IoSlice<'_>]) -> R,
    ) -> io::Result<(usize, R)> {
        let mut slices = [IoSlice::new(&[]); Pieces::AT_ONCE + 1];
        let (mut count, mut total) = (0, 0);
        let mut add = |bytes| {
            slices[count] = IoSlice::new(bytes);
            (count, total) = (count + 1, total + bytes.len());
        };
        for piece in self.0.iter().take(Pieces::AT_ONCE) {
            add(piece.as_slice()?);
        }
        if !behind.is_empty() && self.0.len() <= Pieces::AT_ONCE {
            add(behind);
        }
        Ok((total, send(&slices[..count])))
    }

    /// Drops the first `n` bytes. If there are fewer, gives by how many.
    ///
    /// What is owned by others is dropped when all of it is gone. That is foreign code.
    pub(super) fn consume(&mut self, mut n: usize) -> usize {
        while n > 0
            && let Some(piece) = self.0.front_mut()
        {
            let len = piece.len();
            if n >= len {
                n -= len;
                foreign::discard(self.0.pop_front());
                continue;
            }
            match piece {
                Piece::Copied(buffer) => buffer.consume(n),
                Piece::Owned(owned) => owned.part.start += n,
            }
            return 0;
        }
        n
    }

    /// The bytes have to stay until the transport takes more.
    pub(super) fn settle(&mut self) {
        for piece in &mut self.0 {
            if let Piece::Copied(buffer) = piece {
                buffer.settle();
            }
        }
    }

    /// Drops all of it, which may be foreign code.
    pub(super) fn discard(self) {
        foreign::discard_all(self.0);
    }
}
