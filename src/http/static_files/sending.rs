//! Sending a file: a body that reads on when the client has taken what was read.
//!
//! Reading a file can block, so a thread of the executor does it, one piece at a time, and only when somebody
//! asks for the next piece. If the body is dropped, since the client has gone, the file is closed. A job that
//! is on its way then finds nothing to read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::concurrent::Executor;
use crate::coroutine::Blocking;
use crate::http::error::BodyError;

/// How many bytes are read at once.
pub(super) const PIECE: u64 = 64 * 1024;

/// The bytes of a file that were promised: not fewer, or the connection is ended, and not more, if the file
/// has grown meanwhile.
pub(super) struct Sending {
    /// Nobody else keeps it. A job gets it only for the time that it reads.
    file: Arc<File>,
    executor: Executor,
    location: &'static Location<'static>,
    next: Next,
    /// Where the piece begins that is to be read next.
    offset: u64,
    /// How many bytes are still to be given.
    remaining: u64,
}

enum Next {
    Read(Bytes),
    Reading(Blocking<io::Result<Bytes>>),
    NotRead,
}

impl Sending {
    /// `first` was read from `offset` on; `length` bytes from there on are sent.
    pub(super) fn new(
        file: File,
        offset: u64,
        length: u64,
        first: Bytes,
        executor: Executor,
        location: &'static Location<'static>,
    ) -> Sending {
        let offset = offset + first.len() as u64;
        let (file, next) = (Arc::new(file), Next::Read(first));
        Sending { file, executor, location, next, offset, remaining: length }
    }

    fn begin_to_read(&self) -> io::Result<Blocking<io::Result<Bytes>>> {
        let (file, offset, length) =
            (Arc::downgrade(&self.file), self.offset, self.remaining.min(PIECE));
        Blocking::try_begin(&self.executor, self.location, move || match file.upgrade() {
            Some(file) => read(&file, offset, length),
            None => Ok(Bytes::new()),
        })
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        loop {
            match &mut self.next {
                Next::NotRead => self.next = Next::Reading(self.begin_to_read()?),
                Next::Read(piece) => {
                    let piece = std::mem::take(piece);
                    self.next = Next::NotRead;
                    return Poll::Ready(Ok(piece));
                }
                Next::Reading(reading) => {
                    let piece = ready!(Pin::new(reading).poll(cx));
                    self.next = Next::NotRead;
                    let piece = piece?;
                    self.offset += piece.len() as u64;
                    return Poll::Ready(Ok(piece));
                }
            }
        }
    }
}

/// Reads `length` bytes. It blocks.
pub(super) fn read(file: &File, offset: u64, length: u64) -> io::Result<Bytes> {
    let mut piece = vec![0; length as usize];
    file.read_exact_at(&mut piece, offset).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            io::Error::new(error.kind(), "the file became shorter while it was sent")
        }
        _ => error,
    })?;
    Ok(piece.into())
}

impl Body for Sending {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.remaining == 0 {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(match ready!(self.poll_piece(cx)) {
            Ok(piece) => {
                self.remaining -= piece.len() as u64;
                Ok(Frame::data(piece))
            }
            Err(error) => {
                self.remaining = 0;
                Err(BodyError::Other(error.into()))
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}
