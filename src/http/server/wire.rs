//! The stream of a connection, between the socket and hyper.
//!
//! There is one type for all sockets: the machine code of hyper's connection is large, and would otherwise be
//! made once for TCP, once for Unix sockets, and again for TLS over each.
//!
//! hyper does not say whether a connection is idle, in the middle of a head, or stuck because the client does
//! not read. But that can be seen from here: a [`Wire`] takes notes of what goes through it, and the
//! connection's coroutine reads them. They are atomics, never used from two threads at once, because hyper wants
//! a stream that can be upgraded to be `Send`.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use ::hyper::rt;
use bytes::Bytes;
use futures::io::{AsyncRead, AsyncWrite};

use crate::sockets::{Lent, TcpStream};

/// How many requests of one HTTP/2 connection are answered at a time. A client that takes a request back may at once
/// send another one, so as many handlers may run that finish in any case.
pub(super) const STREAMS: u32 = 200;

/// The stream of a connection.
pub(super) enum Socket {
    Tcp(TcpStream),
    /// A Unix socket, one of another crate, or TLS over any.
    Other(Box<dyn Duplex>),
}

/// A stream in both directions.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

impl Socket {
    /// Reads at most `most` bytes into a buffer of the loop. While it waits, it has none.
    #[inline]
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
    ) -> Poll<io::Result<Lent>> {
        match self {
            Socket::Tcp(stream) => stream.poll_read_lent_part(cx, most),
            Socket::Other(stream) => {
                let mut lent = Lent::borrow();
                let most = most.min(Lent::SIZE);
                ready!(lent.poll_fill(most, |bytes| Pin::new(stream).poll_read(cx, bytes)))?;
                Poll::Ready(Ok(lent))
            }
        }
    }

    #[inline]
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Socket::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Socket::Other(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    #[inline]
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            // It has no buffer.
            Socket::Tcp(_) => Poll::Ready(Ok(())),
            Socket::Other(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Tcp(stream) => Pin::new(stream).poll_close(cx),
            Socket::Other(stream) => Pin::new(stream).poll_close(cx),
        }
    }

    /// Whether it can be told that the client has hung up without reading what it may have sent before.
    pub(super) fn tells_end(&self) -> bool {
        matches!(self, Socket::Tcp(_))
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Socket::Tcp(stream) => stream.fmt(f),
            Socket::Other(_) => f.write_str("Socket"),
        }
    }
}

/// What can be seen of a connection that hyper drives.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Bytes have come that belong to no request yet: a head has begun.
    heard: AtomicBool,
    /// The client takes no more bytes for now.
    blocked: AtomicBool,
    /// The client has sent its last byte, and all of it was read.
    ended: AtomicBool,
    /// The client has hung up while a request of its is being answered.
    hung_up: AtomicBool,
    /// Counts the writes that have got through.
    written: AtomicU32,
    /// Counts the requests.
    requests: AtomicU32,
    /// How many requests are being answered.
    in_flight: AtomicU32,
    /// How many bodies of requests are still to come.
    receiving: AtomicU32,
    /// How many handlers run that are to finish in any case.
    unfinished: AtomicU32,
    /// How many answers wait until the client takes what they have given last.
    untaken: AtomicU32,
}

impl Notes {
    /// Whether the beginning of a head has come, and not yet all of it.
    pub(super) fn is_in_head(&self) -> bool {
        self.heard.load(Relaxed) && !self.is_busy()
    }

    /// Whether a request is being answered, or its body is still to come: a handler may read it after its answer.
    fn is_busy(&self) -> bool {
        self.in_flight.load(Relaxed) > 0 || self.receiving.load(Relaxed) > 0
    }

    /// Whether something is there to be sent that the client does not take.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.load(Relaxed) || self.untaken.load(Relaxed) > 0
    }

    /// Whether no request is being answered, and none has begun.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_busy() && !self.heard.load(Relaxed) && !self.is_blocked()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Relaxed)
    }

    /// Whether the client has hung up and does not wait for the answer to a request.
    pub(super) fn has_hung_up(&self) -> bool {
        self.hung_up.load(Relaxed) && self.in_flight.load(Relaxed) > 0
    }

    pub(super) fn written(&self) -> u32 {
        self.written.load(Relaxed)
    }

    pub(super) fn requests(&self) -> u32 {
        self.requests.load(Relaxed)
    }

    /// What has come so far is no beginning of a head.
    #[cfg(feature = "http2")]
    pub(super) fn forget_head(&self) {
        self.heard.store(false, Relaxed);
    }

    /// A request has come whole, but for its body.
    #[inline]
    pub(super) fn begins(&self) {
        self.heard.store(false, Relaxed);
        add(&self.requests, 1);
        add(&self.in_flight, 1);
    }

    /// Its answer was given to hyper, or dropped. What was heard meanwhile was its body.
    #[inline]
    pub(super) fn ends(&self) {
        add(&self.in_flight, u32::MAX);
        self.heard.store(false, Relaxed);
    }

    /// Until what this gives is dropped, the body of a request is still to come.
    pub(super) fn receiving(self: &Arc<Notes>) -> Receiving {
        self.receiving.fetch_add(1, Relaxed);
        Receiving(self.clone())
    }

    pub(super) fn unfinished(&self) -> u32 {
        self.unfinished.load(Relaxed)
    }

    /// Until what this gives is dropped, a handler runs that is to finish in any case.
    pub(super) fn finishes(self: &Arc<Notes>) -> Unfinished {
        add(&self.unfinished, 1);
        Unfinished(self.clone())
    }

    /// An answer has given a part, and was not asked for more yet.
    #[inline]
    pub(super) fn gives(&self) {
        add(&self.untaken, 1);
    }

    /// It was asked for more, or dropped.
    #[inline]
    pub(super) fn is_taken(&self) {
        add(&self.untaken, u32::MAX);
    }
}

pub(super) struct Receiving(Arc<Notes>);

impl Drop for Receiving {
    fn drop(&mut self) {
        // Handlers may drop their body on another thread.
        self.0.receiving.fetch_sub(1, Relaxed);
        self.0.heard.store(false, Relaxed);
    }
}

pub(super) struct Unfinished(Arc<Notes>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        add(&self.0.unfinished, u32::MAX);
    }
}

/// Adds without the cost of an atomic addition, since only one thread at a time does so.
#[inline]
fn add(to: &AtomicU32, what: u32) {
    to.store(to.load(Relaxed).wrapping_add(what), Relaxed);
}

/// The stream of a connection as hyper gets it.
#[derive(Debug)]
pub(super) struct Wire {
    socket: Socket,
    /// What was read before hyper was there.
    received: Bytes,
    /// Whether to listen for a client that hangs up while its request is answered.
    listens: bool,
    notes: Arc<Notes>,
}

impl Wire {
    pub(super) fn new(socket: Socket, received: Bytes, listens: bool, notes: Arc<Notes>) -> Wire {
        Wire { socket, received, listens, notes }
    }

    /// The socket, and what hyper has not read of the bytes before.
    pub(super) fn into_parts(self) -> (Socket, Bytes) {
        (self.socket, self.received)
    }
}

impl rt::Read for Wire {
    #[inline]
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.received.is_empty() {
            let len = buf.remaining().min(self.received.len());
            buf.put_slice(&self.received.split_to(len));
            self.notes.heard.store(true, Relaxed);
            return Poll::Ready(Ok(()));
        }
        let lent = ready!(self.socket.poll_read(cx, buf.remaining()))?;
        match lent.is_empty() {
            true => self.notes.ended.store(true, Relaxed),
            false => self.notes.heard.store(true, Relaxed),
        }
        buf.put_slice(&lent);
        Poll::Ready(Ok(()))
    }
}

/// hyper is not told that several buffers can be written at once. So it copies the head and the body together,
/// which is cheaper than a list of them as long as both are short; and an answer gives its body in short parts.
impl rt::Write for Wire {
    #[inline]
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = self.socket.poll_write(cx, buf);
        self.notes.blocked.store(polled.is_pending(), Relaxed);
        if polled.is_ready() {
            add(&self.notes.written, 1);
        }
        polled
    }

    /// hyper comes by here each time that it has done what it can.
    #[inline]
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.listens && self.notes.in_flight.load(Relaxed) > 0 {
            self.listen(cx);
        }
        let polled = self.socket.poll_flush(cx);
        // TLS takes what is written into a buffer of its own.
        self.notes.blocked.store(polled.is_pending(), Relaxed);
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_close(cx)
    }
}

impl Wire {
    /// hyper would have to read in order to learn that the client has hung up, and to allocate for that in the
    /// middle of each request. A socket of the loop says so by itself.
    fn listen(&self, cx: &mut Context<'_>) {
        let Socket::Tcp(stream) = &self.socket else { return };
        if stream.poll_ended(cx).is_ready() {
            self.notes.hung_up.store(true, Relaxed);
        }
    }
}
