//! Copying both ways between two streams, which is what a proxy does.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::future::FusedFuture;
use futures::io::{AsyncRead, AsyncWrite};

use crate::ground::{foreign, resumption};

/// How many bytes of one direction are read before they are written.
const CHUNK: usize = 16 * 1024;

/// Copies what arrives on each of two streams to the other, until both have ended. Gives how many bytes
/// went from `a` to `b`, and how many from `b` to `a`. tokio: `copy_bidirectional`.
///
/// When one stream has ended, the other is closed for writing (`poll_close`), so that its other side
/// learns of the end; what comes back from there is still copied. While there is nothing to read in a
/// direction, what was written is flushed.
///
/// Not cancel safe: bytes that were read and not yet written are lost.
///
/// # Errors
///
/// The first error of either stream, or `WriteZero` if a stream takes no bytes any more. That also ends
/// the copying in the other direction.
///
/// ```
/// use futures::{AsyncReadExt as _, AsyncWriteExt as _};
/// use waterspout::{IoLoop, coroutine, net::copy_bidirectional, testing::duplex};
///
/// IoLoop::new()?.run_sync(|| async {
///     let ((mut client, mut a), (mut b, mut server)) = (duplex(64), duplex(64));
///     let proxy = coroutine::start(async move { copy_bidirectional(&mut a, &mut b).await });
///     client.write_all(b"ping").await?;
///     client.close().await?;
///     let mut request = String::new();
///     server.read_to_string(&mut request).await?;
///     server.write_all(b"pong!").await?;
///     server.close().await?;
///     let mut answer = String::new();
///     client.read_to_string(&mut answer).await?;
///     assert_eq!((&*request, &*answer), ("ping", "pong!"));
///     assert_eq!(proxy.await?, (4, 5));
///     Ok::<(), std::io::Error>(())
/// })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[track_caller]
pub fn copy_bidirectional<A, B>(
    a: &mut A,
    b: &mut B,
) -> impl FusedFuture<Output = io::Result<(u64, u64)>>
where
    A: AsyncRead + AsyncWrite + Unpin + ?Sized,
    B: AsyncRead + AsyncWrite + Unpin + ?Sized,
{
    let (mut there, mut back) = (OneWay::new(), OneWay::new());
    resumption::fused(resumption::here(poll_fn(move |cx| {
        let (mut a, mut b) = (Pin::new(&mut *a), Pin::new(&mut *b));
        let there_is_done = there.poll(cx, a.as_mut(), b.as_mut())?.is_ready();
        let back_is_done = back.poll(cx, b, a)?.is_ready();
        match there_is_done && back_is_done {
            true => Poll::Ready(Ok((there.copied, back.copied))),
            false => Poll::Pending,
        }
    })))
}

/// Copying from one stream to the other, in one direction.
struct OneWay {
    bytes: Box<[u8]>,
    /// The part of `bytes` that was read and is still to be written.
    unwritten: std::ops::Range<usize>,
    /// How many bytes were written.
    copied: u64,
    is_unflushed: bool,
    state: State,
}

enum State {
    Copying,
    /// All was read and written, and the stream that is written to is being closed.
    Closing,
    Done,
}

impl OneWay {
    fn new() -> OneWay {
        OneWay {
            bytes: vec![0; CHUNK].into(),
            unwritten: 0..0,
            copied: 0,
            is_unflushed: false,
            state: State::Copying,
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut from: Pin<&mut (impl AsyncRead + ?Sized)>,
        mut to: Pin<&mut (impl AsyncWrite + ?Sized)>,
    ) -> Poll<io::Result<()>> {
        loop {
            match self.state {
                State::Done => return Poll::Ready(Ok(())),
                State::Closing => {
                    ready!(to.as_mut().poll_close(cx))?;
                    self.state = State::Done;
                }
                State::Copying if self.unwritten.is_empty() => {
                    // Foreign streams spend no budget. If they are always ready, this is what lets
                    // others run.
                    ready!(resumption::poll_proceed(cx));
                    match from.as_mut().poll_read(cx, &mut self.bytes)? {
                        Poll::Ready(0) => self.state = State::Closing,
                        Poll::Ready(read) => self.unwritten = 0..foreign::believed(read, CHUNK)?,
                        Poll::Pending if self.is_unflushed => {
                            ready!(to.as_mut().poll_flush(cx))?;
                            self.is_unflushed = false;
                            return Poll::Pending;
                        }
                        Poll::Pending => return Poll::Pending,
                    }
                }
                State::Copying => {
                    let bytes = &self.bytes[self.unwritten.clone()];
                    match ready!(to.as_mut().poll_write(cx, bytes))? {
                        0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                        written => {
                            self.unwritten.start += foreign::believed(written, bytes.len())?;
                            self.copied += written as u64;
                            self.is_unflushed = true;
                        }
                    }
                }
            }
        }
    }
}
