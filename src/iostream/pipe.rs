//! `PipeIoStream`: a stream over pipes.
//!
//! A pipe has one direction, and a stream has two. In the direction that a stream's pipe does not have, no
//! byte ever passes, but the end is noticed: reading from a stream over a [`PipeWriter`] waits until nobody
//! reads the pipe any more, and is then at its end. So closing works as over sockets. Two pipes, one for
//! each direction, make a stream that can be both read and written.

use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::io::{AsyncRead, AsyncWrite};

use super::IoStream;
use crate::sockets::pipe::{PipeReader, PipeWriter};

/// A stream over one pipe or two. Tornado: `PipeIOStream`.
///
/// Make one by `from`, from a [`PipeReader`], a [`PipeWriter`], or a tuple of both. A stream over both closes
/// both when the one that it reads from ends, as over a socket. Two streams, over one pipe each, are closed
/// independently of each other; that is right for the pipes of a child process:
///
/// ```
/// # #[cfg(feature = "process")]
/// # {
/// use std::process::Command;
/// use waterspout::{IoLoop, iostream::PipeIoStream, process::Subprocess};
///
/// IoLoop::new()?.run_sync(|| async {
///     let mut child = Subprocess::spawn_piped(&mut Command::new("sort"))?;
///     let stdin = PipeIoStream::from(child.stdin.take().unwrap());
///     let stdout = PipeIoStream::from(child.stdout.take().unwrap());
///     stdin.write("world\nhello\n");
///     drop(stdin); // when all is sent, this ends the child's input
///     assert_eq!(stdout.read_until_close().await?, b"hello\nworld\n");
///     assert!(child.wait_for_exit().await?.success());
///     Ok::<(), std::io::Error>(())
/// })??;
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type PipeIoStream = IoStream<Pipe>;

/// What a [`PipeIoStream`] is over: a pipe to read from, one to write to, or both.
///
/// If there is only a pipe to write to, reading waits until nobody reads that pipe any more, and then gives
/// the end. If there is only a pipe to read from, writing is an error.
#[derive(Debug)]
pub struct Pipe {
    reader: Option<PipeReader>,
    writer: Option<PipeWriter>,
}

impl Pipe {
    /// The pipe to read from, if there is one.
    pub fn reader(&self) -> Option<&PipeReader> {
        self.reader.as_ref()
    }

    /// The pipe to write to, if there is one.
    pub fn writer(&self) -> Option<&PipeWriter> {
        self.writer.as_ref()
    }

    fn poll_write_end<T>(
        &mut self,
        write: impl FnOnce(Pin<&mut PipeWriter>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match &mut self.writer {
            Some(writer) => write(Pin::new(writer)),
            None => Poll::Ready(Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this stream is over a pipe that is read from, it cannot be written to",
            ))),
        }
    }
}

impl From<PipeReader> for Pipe {
    fn from(reader: PipeReader) -> Pipe {
        Pipe { reader: Some(reader), writer: None }
    }
}

impl From<PipeWriter> for Pipe {
    fn from(writer: PipeWriter) -> Pipe {
        Pipe { reader: None, writer: Some(writer) }
    }
}

impl From<(PipeReader, PipeWriter)> for Pipe {
    fn from((reader, writer): (PipeReader, PipeWriter)) -> Pipe {
        Pipe { reader: Some(reader), writer: Some(writer) }
    }
}

impl From<PipeReader> for PipeIoStream {
    fn from(reader: PipeReader) -> PipeIoStream {
        IoStream::new(reader.into())
    }
}

impl From<PipeWriter> for PipeIoStream {
    fn from(writer: PipeWriter) -> PipeIoStream {
        IoStream::new(writer.into())
    }
}

impl From<(PipeReader, PipeWriter)> for PipeIoStream {
    fn from(both: (PipeReader, PipeWriter)) -> PipeIoStream {
        IoStream::new(both.into())
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Pipe { reader: Some(reader), .. } => Pin::new(reader).poll_read(cx, buf),
            Pipe { writer: Some(writer), .. } => writer.poll_closed(cx).map_ok(|()| 0),
            Pipe { reader: None, writer: None } => Poll::Ready(Ok(0)),
        }
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.reader {
            Some(reader) => Pin::new(reader).poll_read_vectored(cx, bufs),
            None => self.poll_read(cx, &mut []),
        }
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_end(|writer| writer.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_end(|writer| writer.poll_write_vectored(cx, bufs))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write_end(|writer| writer.poll_flush(cx))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.writer {
            Some(writer) => Pin::new(writer).poll_close(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}
