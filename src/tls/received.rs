//! Bytes that have arrived already, and then the stream that they came from.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::io::{AsyncRead, AsyncWrite};

use crate::ground::foreign;

/// Gives `bytes` first, and then what `stream` does; writes go to that.
#[derive(Debug)]
pub(super) struct Received<S> {
    bytes: Vec<u8>,
    taken: usize,
    stream: S,
}

impl<S> Received<S> {
    pub(super) fn new(bytes: Vec<u8>, stream: S) -> Received<S> {
        Received { bytes, taken: 0, stream }
    }

    pub(super) fn get_ref(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Received<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let left = &this.bytes[this.taken..];
        if left.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        let n = left.len().min(buf.len());
        buf[..n].copy_from_slice(&left[..n]);
        this.taken += n;
        if this.taken == this.bytes.len() {
            (this.bytes, this.taken) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(n))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Received<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    /// All of them, as far as the stream takes them. Many streams take one slice a call, but a session that
    /// fails makes only one call, and its alert is in the last of several slices.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let asked: usize = bufs.iter().map(|buf| buf.len()).sum();
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        let Poll::Ready(Ok(mut written @ 1..)) = polled else { return polled };
        if foreign::believed(written, asked)? == asked {
            return Poll::Ready(Ok(written));
        }
        let mut slices = bufs.to_vec();
        let mut left = &mut slices[..];
        IoSlice::advance_slices(&mut left, written);
        // What was written is told first. If it fails then, it does so again.
        while let Poll::Ready(Ok(n @ 1..)) =
            Pin::new(&mut self.stream).poll_write_vectored(cx, left)
        {
            written += foreign::believed(n, asked - written)?;
            IoSlice::advance_slices(&mut left, n);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
