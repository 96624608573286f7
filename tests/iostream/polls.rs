//! A stream as `AsyncRead` and `AsyncWrite`.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use waterspout::coroutine;
use waterspout::iostream::{IoStream, Options};
use waterspout::net::UnixStream;
use waterspout::{IoLoop, testing};

use crate::common::kind;
use crate::{Kind, cancelled, on_every_transport, pattern, settle};

on_every_transport!(
    what_has_arrived_is_read_first,
    two_ways_to_read_do_not_wait_at_the_same_time,
    who_watches_and_who_reads_by_polling_are_both_woken,
    a_close_is_noticed_after_polls_that_were_given_up,
    what_was_written_before_is_sent_before,
    a_write_that_waits_goes_on_after_another_one_in_between,
    a_close_ends_what_waits_in_a_poll,
    a_closed_stream_can_be_read_to_its_end_and_closed_again,
);

async fn what_has_arrived_is_read_first<K: Kind>() {
    let (mut stream, other) = K::pair().await;
    let bytes = pattern(200_000);
    other.write("a line\n");
    other.write(&bytes);
    drop(other);
    assert_eq!(stream.read_until("\n", 100).await.unwrap(), b"a line\n");
    let mut buf = [0; 10];
    stream.read_exact(&mut buf).await.unwrap();
    assert_eq!(buf, bytes[..10]);
    assert_eq!(stream.read_bytes(10).await.unwrap(), bytes[10..20]);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest == bytes[20..]);
    assert!(stream.is_closed() && stream.error().is_none());
}

async fn two_ways_to_read_do_not_wait_at_the_same_time<K: Kind>() {
    let (stream, other) = K::pair().await;
    let reading = coroutine::start(stream.read_bytes(3));
    let busy = kind(stream.clone().read(&mut [0]).await);
    assert_eq!(busy, io::ErrorKind::ResourceBusy);
    other.write("abc");
    assert_eq!(reading.await.unwrap(), b"abc");

    let mut clone = stream.clone();
    let polling = coroutine::start(async move { kind(clone.read(&mut [0]).await) });
    settle().await;
    assert!(!polling.done() && !stream.reading());
    let reading = coroutine::start(stream.read_bytes(3));
    assert_eq!(polling.await, io::ErrorKind::ResourceBusy);
    other.write("def");
    assert_eq!(reading.await.unwrap(), b"def");
}

async fn who_watches_and_who_reads_by_polling_are_both_woken<K: Kind>() {
    for watches_first in [false, true] {
        let (stream, other) = K::pair().await;
        let watch = || coroutine::start(stream.closed());
        let mut closed = watches_first.then(watch);
        settle().await;
        let mut clone = stream.clone();
        let reading = coroutine::start(async move {
            let mut buf = [0; 3];
            clone.read_exact(&mut buf).await.unwrap();
            let end = clone.read(&mut [0; 3]).await.unwrap();
            (buf, end)
        });
        settle().await;
        let closed = closed.get_or_insert_with(watch);
        settle().await;
        for bytes in ["a", "bc"] {
            other.write(bytes);
            settle().await;
        }
        assert!(!closed.done() && !reading.done());
        other.close();
        closed.await;
        assert_eq!(reading.await, (*b"abc", 0));
    }
}

async fn a_close_is_noticed_after_polls_that_were_given_up<K: Kind>() {
    let (stream, other) = K::pair().await;
    let closed = coroutine::start(stream.closed());
    settle().await;
    let mut clone = stream.clone();
    let polled = async move {
        cancelled(clone.read(&mut [0]), || ()).await;
    };
    coroutine::start(polled).await;
    settle().await;
    other.close();
    closed.await;
}

async fn what_was_written_before_is_sent_before<K: Kind>() {
    let (mut stream, other) = K::pair().await;
    let bytes = pattern(20_000_000);
    drop(stream.write(&bytes));
    assert!(stream.writing());
    let writing = coroutine::start(async move {
        stream.write_all(b"the end").await.unwrap();
        assert!(!stream.writing());
        AsyncWriteExt::flush(&mut stream).await.unwrap();
        stream
    });
    settle().await;
    assert!(!writing.done());
    assert!(other.read_bytes(bytes.len()).await.unwrap() == bytes);
    assert_eq!(other.read_bytes(7).await.unwrap(), b"the end");
    drop(writing.await);
    other.closed().await;
}

async fn a_write_that_waits_goes_on_after_another_one_in_between<K: Kind>() {
    const LEN: usize = 20_000_000;
    let (stream, other) = K::pair().await;
    let mut clone = stream.clone();
    let writing = coroutine::start(async move { clone.write_all(&vec![b'a'; LEN]).await });
    settle().await;
    assert!(!writing.done() && !stream.writing(), "it keeps nothing of its own");
    let between = stream.write("b");
    // Also one that is sent at once.
    stream.write("");
    let bytes = other.read_bytes(LEN + 1).await.unwrap();
    writing.await.unwrap();
    between.await.unwrap();
    assert_eq!(bytes.iter().filter(|&&byte| byte == b'b').count(), 1);
}

async fn a_close_ends_what_waits_in_a_poll<K: Kind>() {
    let (stream, _other) = K::pair().await;
    let (mut reader, mut writer) = (stream.clone(), stream.clone());
    let reading = coroutine::start(async move { reader.read(&mut [0]).await });
    let writing = coroutine::start(async move { writer.write_all(&[0; 20_000_000]).await });
    settle().await;
    assert!(!reading.done() && !writing.done());
    stream.close();
    assert_eq!(reading.await.unwrap(), 0);
    assert_eq!(kind(writing.await), io::ErrorKind::BrokenPipe);
}

async fn a_closed_stream_can_be_read_to_its_end_and_closed_again<K: Kind>() {
    let (mut stream, other) = K::pair().await;
    other.write("abc").await.unwrap();
    assert_eq!(stream.read_bytes(1).await.unwrap(), b"a");
    stream.close();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "bc");
    AsyncWriteExt::close(&mut stream).await.unwrap();
    assert_eq!(kind(AsyncWriteExt::write(&mut stream, b"x").await), io::ErrorKind::BrokenPipe);

    let (mut stream, _other) = K::pair().await;
    stream.close_with_error(io::Error::from(io::ErrorKind::InvalidInput));
    assert_eq!(kind(stream.read(&mut [0]).await), io::ErrorKind::InvalidInput);
    assert_eq!(kind(AsyncWriteExt::flush(&mut stream).await), io::ErrorKind::InvalidInput);
    assert_eq!(kind(AsyncWriteExt::close(&mut stream).await), io::ErrorKind::InvalidInput);
}

#[waterspout::test]
async fn the_sending_direction_is_closed_alone_and_after_what_was_written() {
    let (one, other) = testing::tcp_pair().await.unwrap();
    let mut stream = IoStream::new(one);
    let bytes = pattern(20_000_000);
    drop(stream.write(&bytes));
    let closing = coroutine::start(async move {
        AsyncWriteExt::close(&mut stream).await.unwrap();
        stream
    });
    settle().await;
    assert!(!closing.done());
    let mut got = vec![0; bytes.len()];
    other.read_exact(&mut got).await.unwrap();
    assert!(got == bytes);
    assert_eq!(other.read(&mut [0]).await.unwrap(), 0);
    let stream = closing.await;
    assert!(!stream.is_closed());
    other.write_all(b"an answer").await.unwrap();
    assert_eq!(stream.read_bytes(9).await.unwrap(), b"an answer");
    assert!(stream.write("x").await.is_err());
}

#[test]
fn another_loop_can_read_what_is_there_and_no_more() {
    let (own, other) = (IoLoop::new().unwrap(), IoLoop::new().unwrap());
    let (mut here, there) = own
        .run_sync(|| async {
            let (here, there) = UnixStream::pair().unwrap();
            there.write_all(b"abc").await.unwrap();
            let here = IoStream::new(here);
            assert_eq!(here.read_bytes(1).await.unwrap(), b"a");
            (here, there)
        })
        .unwrap();
    other
        .run_sync(|| async {
            let mut buf = [0; 9];
            assert_eq!(here.read(&mut buf).await.unwrap(), 2);
            assert!(here.read(&mut buf).await.is_err());
            assert!(AsyncWriteExt::write(&mut here, b"x").await.is_err());
        })
        .unwrap();
    assert!(!here.is_closed());
    drop(there);
}

/// Claims to have moved more than it was asked to.
struct Liar;

impl AsyncRead for Liar {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len() + 1))
    }
}

impl AsyncWrite for Liar {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len() + 1))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[waterspout::test]
async fn a_transport_that_claims_to_have_moved_too_much_is_not_believed() {
    let invalid = io::ErrorKind::InvalidData;
    assert_eq!(kind(IoStream::new(Liar).read(&mut [0; 4]).await), invalid);
    assert_eq!(kind(AsyncWriteExt::write(&mut IoStream::new(Liar), b"abc").await), invalid);
    let error = IoStream::new(Liar).write("abc").await.unwrap_err();
    assert_eq!(error.real_error().unwrap().kind(), invalid);
}

/// Takes what it is given when it is told to, and remembers nobody who asked before.
struct Forgets(Rc<Cell<bool>>);

impl AsyncRead for Forgets {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Pending
    }
}

impl AsyncWrite for Forgets {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.0.get() { Poll::Ready(Ok(buf.len())) } else { Poll::Pending }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[waterspout::test]
async fn a_write_that_is_done_at_once_wakes_one_that_waits_in_a_poll() {
    let takes = Rc::new(Cell::new(false));
    let stream = IoStream::new(Forgets(takes.clone()));
    let mut clone = stream.clone();
    let writing = coroutine::start(async move { clone.write_all(b"a").await });
    settle().await;
    assert!(!writing.done());
    takes.set(true);
    stream.write("b").await.unwrap();
    writing.await.unwrap();
}

#[waterspout::test]
async fn a_close_wakes_who_waits_in_a_poll_although_the_transport_wakes_nobody() {
    let stream = IoStream::new(Forgets(Rc::default()));
    let (mut reader, mut writer) = (stream.clone(), stream.clone());
    let reading = coroutine::start(async move { reader.read(&mut [0]).await });
    let writing = coroutine::start(async move { kind(writer.write_all(b"a").await) });
    settle().await;
    assert!(!reading.done() && !writing.done());
    stream.close();
    assert_eq!((reading.await.unwrap(), writing.await), (0, io::ErrorKind::BrokenPipe));
}

/// Polls its own stream when it is read from.
struct Own(Rc<RefCell<Option<IoStream<Own>>>>);

impl AsyncRead for Own {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let own = self.0.take();
        if let Some(mut own) = own {
            assert!(Pin::new(&mut own).poll_read(cx, buf).is_pending());
            assert!(Pin::new(&mut own).poll_write(cx, b"x").is_pending());
            own.close();
            assert!(own.into_inner().is_err());
        }
        buf[0] = b'a';
        Poll::Ready(Ok(1))
    }
}

impl AsyncWrite for Own {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[waterspout::test]
async fn a_transport_may_poll_its_own_stream_and_close_it() {
    let own = Rc::new(RefCell::new(None));
    let mut stream = IoStream::new(Own(own.clone()));
    *own.borrow_mut() = Some(stream.clone());
    let mut buf = [0; 4];
    assert_eq!(stream.read(&mut buf).await.unwrap(), 1);
    assert!(stream.is_closed());
    assert_eq!(stream.read(&mut buf).await.unwrap(), 0);
}

#[waterspout::test]
async fn polling_what_has_arrived_lets_others_run_now_and_then() {
    let (one, other) = testing::duplex(1_000_000);
    let (mut stream, other) =
        (IoStream::with_options(one, Options::default()), IoStream::new(other));
    other.write(vec![0; 60_000]).await.unwrap();
    assert_eq!(stream.read_bytes(1).await.unwrap(), [0]);
    let done = coroutine::start(async move {
        for _ in 0..50_000 {
            let mut buf = [0];
            poll_fn(|cx| Pin::new(&mut stream).poll_read(cx, &mut buf)).await.unwrap();
        }
    });
    assert!(!done.done(), "it has waited for its turn");
    done.await;
}
