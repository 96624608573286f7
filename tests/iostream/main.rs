//! `IoStream` over every kind of transport: what Tornado's tests state, and what they don't.
//!
//! A test is generic over the transport where it can be, and runs over TCP, Unix sockets, memory and
//! pipes.

mod closing;
#[path = "../common/mod.rs"]
mod common;
mod connecting;
mod parts;
mod pipes;
mod polls;
mod reading;
mod writing;

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use common::{pattern, poll_once, turns};
use futures::io::{AsyncRead, AsyncWrite};
use waterspout::StreamError;
use waterspout::iostream::{IoStream, Options, Pipe, Transport};
use waterspout::net::{TcpStream, UnixStream};
use waterspout::testing::{self, Memory};

/// A kind of transport, by how to make two connected ends.
trait Kind {
    type Io: Transport;

    async fn io_pair() -> (Self::Io, Self::Io);

    async fn pair() -> (IoStream<Self::Io>, IoStream<Self::Io>) {
        Self::pair_with(Options::default()).await
    }

    async fn pair_with(options: Options) -> (IoStream<Self::Io>, IoStream<Self::Io>) {
        let (one, other) = Self::io_pair().await;
        (IoStream::with_options(one, options), IoStream::with_options(other, options))
    }
}

struct Tcp;
struct Unix;
struct InMemory;
struct Pipes;

impl Kind for Tcp {
    type Io = TcpStream;

    async fn io_pair() -> (TcpStream, TcpStream) {
        testing::tcp_pair().await.unwrap()
    }
}

impl Kind for Unix {
    type Io = UnixStream;

    async fn io_pair() -> (UnixStream, UnixStream) {
        UnixStream::pair().unwrap()
    }
}

impl Kind for InMemory {
    type Io = Memory;

    async fn io_pair() -> (Memory, Memory) {
        testing::duplex(10_000)
    }
}

impl Kind for Pipes {
    type Io = Pipe;

    async fn io_pair() -> (Pipe, Pipe) {
        common::pipes()
    }
}

/// Makes a test of each function for each transport.
macro_rules! on_every_transport {
    ($($test:ident),* $(,)?) => {
        on_every_transport!(tcp = Tcp, $($test),*);
        on_every_transport!(unix = Unix, $($test),*);
        on_every_transport!(memory = InMemory, $($test),*);
        on_every_transport!(pipe = Pipes, $($test),*);
    };
    ($module:ident = $kind:ident, $($test:ident),*) => {
        mod $module {
            $(
                #[waterspout::test(timeout = 60.0)]
                async fn $test() {
                    super::$test::<crate::$kind>().await
                }
            )*
        }
    };
}
use on_every_transport;

/// Lets everything that is ready run.
async fn settle() {
    turns(200).await;
}

/// Polls a future once, which has to wait, and drops it after everything that was ready has run.
async fn cancelled<F: Future>(future: F, meanwhile: impl FnOnce()) {
    let mut future = pin!(future);
    assert!(poll_once(future.as_mut()).await.is_pending());
    meanwhile();
    settle().await;
}

/// Sizes that look random and are the same every time.
fn sizes(up_to: usize) -> impl Iterator<Item = usize> {
    let mut state = 42_u64;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % up_to + 1
    })
}

/// The stream ended without an error, and so this failed.
#[track_caller]
fn assert_clean_end<T: std::fmt::Debug>(result: Result<T, StreamError>) {
    assert!(matches!(result, Err(StreamError::Closed(None))), "{result:?}");
}

/// The kind of the error that closed the stream.
#[track_caller]
fn real_error<T: std::fmt::Debug>(result: Result<T, StreamError>) -> io::ErrorKind {
    match &result {
        Err(error) => error.real_error().unwrap_or_else(|| panic!("{result:?}")).kind(),
        Ok(_) => panic!("{result:?}"),
    }
}

/// Counts what is asked of a transport.
struct Counted<S> {
    io: S,
    counts: Rc<Counts>,
}

#[derive(Default)]
struct Counts {
    reads: Cell<usize>,
    /// Bytes that were read.
    read: Cell<usize>,
    largest_buffer: Cell<usize>,
    /// Bytes that each write took.
    writes: RefCell<Vec<usize>>,
}

impl<S> Counted<S> {
    fn new(io: S) -> (Counted<S>, Rc<Counts>) {
        let counts = Rc::new(Counts::default());
        (Counted { io, counts: counts.clone() }, counts)
    }

    fn wrote(&self, polled: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(n)) = polled {
            self.counts.writes.borrow_mut().push(*n);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let counts = self.counts.clone();
        counts.reads.set(counts.reads.get() + 1);
        counts.largest_buffer.set(counts.largest_buffer.get().max(buf.len()));
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if let Poll::Ready(Ok(n)) = &polled {
            counts.read.set(counts.read.get() + n);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.wrote(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // All of it in one call, as a socket takes it.
        let whole: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
        let polled = Pin::new(&mut self.io).poll_write(cx, &whole);
        self.wrote(&polled);
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_close(cx)
    }
}
