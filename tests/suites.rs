//! Every stream of the crate goes through the suite that holds for any.

mod common;

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use common::pipes;
use futures::io::{AsyncRead, AsyncWrite};
use waterspout::net::UnixStream;
use waterspout::testing::{self, Memory, half_close_suite, stream_suite};
use waterspout::{IoLoop, coroutine};

#[waterspout::test(timeout = 120.0)]
async fn tcp() {
    let pair = async || testing::tcp_pair().await.unwrap();
    stream_suite(pair).await;
    half_close_suite(pair).await;
}

#[waterspout::test(timeout = 120.0)]
async fn unix() {
    let pair = async || UnixStream::pair().unwrap();
    stream_suite(pair).await;
    half_close_suite(pair).await;
}

#[waterspout::test(timeout = 120.0)]
async fn two_pipes() {
    stream_suite(async || pipes()).await;
    half_close_suite(async || pipes()).await;
}

#[waterspout::test(timeout = 120.0)]
async fn memory() {
    for capacity in [64, 1000, 1_000_000] {
        let pair = async || testing::duplex(capacity);
        stream_suite(pair).await;
        half_close_suite(pair).await;
    }
}

#[waterspout::test(timeout = 120.0)]
async fn boxed_streams() {
    trait Both: AsyncRead + AsyncWrite + Send + Unpin {}
    impl<S: AsyncRead + AsyncWrite + Send + Unpin> Both for S {}
    let boxed = |(one, other)| (Box::new(one) as Box<dyn Both>, Box::new(other) as Box<dyn Both>);
    stream_suite(async || boxed(testing::duplex(100))).await;
}

// ---------------------------------------------------------------------------------------------
// The suite finds what is wrong

/// A stream with one fault.
struct Faulty {
    io: Memory,
    fault: Fault,
    reads: Cell<usize>,
}

#[derive(Clone, Copy)]
enum Fault {
    /// A byte is another one, after many that are right.
    Garbles,
    /// A read that ends early forgets what it read.
    LosesOnShortReads,
    /// There is no end, only silence.
    NeverEnds,
    /// The end comes again and again as an error.
    EndIsAnError,
    /// Everything is taken, whoever reads it.
    TakesAll,
    /// Nobody is woken when bytes come.
    DoesNotWakeReaders,
    /// Closing one direction closes the other.
    ClosesBoth,
}

impl AsyncRead for Faulty {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let fault = self.fault;
        let noop = std::task::Waker::noop();
        let polled = match fault {
            Fault::DoesNotWakeReaders => {
                Pin::new(&mut self.io).poll_read(&mut Context::from_waker(noop), buf)
            }
            _ => Pin::new(&mut self.io).poll_read(cx, buf),
        };
        self.reads.set(self.reads.get() + 1);
        match (fault, &polled) {
            (Fault::Garbles, Poll::Ready(Ok(n @ 1..))) if self.reads.get() > 20 => buf[n - 1] ^= 1,
            (Fault::LosesOnShortReads, Poll::Ready(Ok(n @ 1..))) if *n < buf.len() => {
                let _ = Pin::new(&mut self.io).poll_read(&mut Context::from_waker(noop), buf);
                return Poll::Ready(Ok(n - 1)).map_ok(|n: usize| n.max(1));
            }
            (Fault::NeverEnds, Poll::Ready(Ok(0))) => return Poll::Pending,
            (Fault::EndIsAnError, Poll::Ready(Ok(0))) => {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            _ => {}
        }
        polled
    }
}

impl AsyncWrite for Faulty {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.io).poll_write(cx, buf) {
            Poll::Pending if matches!(self.fault, Fault::TakesAll) => Poll::Ready(Ok(buf.len())),
            polled => polled,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if matches!(self.fault, Fault::ClosesBoth) {
            self.io = testing::duplex(1).0;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_close(cx)
    }
}

/// What the suite says of streams with a fault: its panic, or `None` if it hangs.
fn verdict(fault: Fault, half_close: bool) -> Option<String> {
    // In virtual time, a loop in which nothing moves any more is at its time limit at once.
    let io_loop = IoLoop::builder().virtual_time().build().unwrap();
    let faulty = move |io| Faulty { io, fault, reads: Cell::new(0) };
    let stuck = Rc::new(Cell::new(true));
    let ended = stuck.clone();
    let found = io_loop.run_sync_timeout(std::time::Duration::from_secs(1), || async move {
        let checked = coroutine::start(async move {
            let pair = async || {
                let (one, other) = testing::duplex(1000);
                (faulty(one), faulty(other))
            };
            match half_close {
                false => stream_suite(pair).await,
                true => half_close_suite(pair).await,
            }
        });
        let found = checked.join().await;
        ended.set(false);
        found.unwrap_err().into_panic().ok().and_then(|panic| panic.downcast::<String>().ok())
    });
    let found = found.ok().flatten().map(|message| *message);
    assert_eq!(found.is_none(), stuck.get());
    io_loop.close();
    found
}

#[test]
fn the_suite_says_what_is_wrong_with_a_stream() {
    for (fault, half_close, expected) in [
        (Fault::Garbles, false, "is another one"),
        (Fault::LosesOnShortReads, false, "stream suite: "),
        (Fault::EndIsAnError, false, "stream suite: a dropped stream ends after its last byte"),
        (Fault::TakesAll, false, "bytes were taken while nobody reads"),
        (Fault::ClosesBoth, true, "stream suite: closing one direction leaves the other"),
    ] {
        let said = verdict(fault, half_close).unwrap_or_default();
        assert!(said.contains(expected), "{said}");
        assert!(said.contains("tests/suites.rs"), "{said}");
    }
}

#[test]
fn a_stream_that_does_not_wake_hangs_in_the_suite() {
    for fault in [Fault::DoesNotWakeReaders, Fault::NeverEnds] {
        assert_eq!(verdict(fault, false), None);
    }
}
