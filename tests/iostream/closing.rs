//! The end of a stream, from here and from there, and who is told.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::Shutdown;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::io::{AsyncRead, AsyncWrite};
use waterspout::coroutine;
use waterspout::iostream::{IoStream, Options};
use waterspout::net::UnixStream;
use waterspout::testing;
use waterspout::{IoLoop, StreamError};

use crate::common::{Diary, poll_acting_when_cloned, virtual_loop};
use crate::{
    Kind, Tcp, assert_clean_end, cancelled, on_every_transport, pattern, real_error, settle,
};

on_every_transport!(
    closing_twice_is_closing_once,
    closing_fails_what_is_unsent,
    closing_ends_a_waiting_read,
    closing_gives_a_read_until_close_what_has_arrived,
    what_has_arrived_can_be_read_after_closing,
    what_was_sent_before_the_close_can_be_read_after_it,
    the_end_is_seen_after_the_bytes_that_come_with_it,
    an_end_before_a_read_has_all_is_a_clean_close,
    a_close_is_noticed_while_nobody_reads,
    a_close_is_noticed_after_reads_that_ended_or_were_cancelled,
    a_close_is_noticed_while_somebody_reads,
    a_close_is_noticed_while_somebody_else_stops_watching,
    unread_bytes_delay_the_notice,
    the_close_callback_comes_after_the_errors,
    a_close_callback_of_a_closed_stream_is_called,
    a_close_callback_takes_the_place_of_the_one_before,
    a_stream_can_be_closed_with_an_error_of_ones_own,
    a_stream_is_open_as_long_as_there_is_a_handle,
    a_stream_can_be_closed_while_it_shows_what_it_is_over,
);

/// Calls of a close callback.
fn count_closes<K: Kind>(stream: &IoStream<K::Io>) -> Rc<Cell<u32>> {
    let calls = Rc::new(Cell::new(0));
    let counted = calls.clone();
    stream.set_close_callback(move || counted.set(counted.get() + 1));
    calls
}

async fn closing_twice_is_closing_once<K: Kind>() {
    let (stream, other) = K::pair().await;
    let calls = count_closes::<K>(&stream);
    settle().await;
    assert!(!stream.is_closed());
    stream.close();
    assert!(stream.is_closed());
    assert_eq!(calls.get(), 0, "not inside `close`");
    stream.close();
    settle().await;
    stream.clone().close();
    settle().await;
    assert_eq!(calls.get(), 1);
    assert!(stream.error().is_none());
    assert!(stream.with_io(|_| ()).is_none());
    other.closed().await;
    assert!(other.error().is_none());
}

async fn closing_fails_what_is_unsent<K: Kind>() {
    let (stream, other) = K::pair().await;
    let writes = [stream.write(vec![0; 20_000_000]), stream.write("x")];
    settle().await;
    assert!(stream.writing());
    stream.close();
    assert!(!stream.writing());
    for write in writes {
        assert_clean_end(write.await);
    }
    // It was not flushed; what had been sent arrives, or TCP resets.
    assert!(other.read_until_close().await.map_or(0, |got| got.len()) < 20_000_000);
}

async fn closing_ends_a_waiting_read<K: Kind>() {
    let (stream, other) = K::pair().await;
    other.write("abc").await.unwrap();
    let reading = coroutine::start(stream.read_bytes(4));
    settle().await;
    assert!(!reading.done());
    stream.close();
    assert_clean_end(reading.await);
    assert_eq!(stream.read_bytes(3).await.unwrap(), b"abc");
}

async fn closing_gives_a_read_until_close_what_has_arrived<K: Kind>() {
    let (stream, other) = K::pair().await;
    let reading = coroutine::start(stream.read_until_close());
    other.write("abc").await.unwrap();
    settle().await;
    settle().await;
    stream.close();
    assert_eq!(reading.await.unwrap(), b"abc");
}

async fn what_has_arrived_can_be_read_after_closing<K: Kind>() {
    let (stream, other) = K::pair().await;
    other.write("abc\ndefg");
    assert_eq!(stream.read_bytes(1).await.unwrap(), b"a");
    stream.close();
    assert_eq!(stream.read_until("\n", 10).await.unwrap(), b"bc\n");
    assert_clean_end(stream.read_bytes(5).await);
    assert_clean_end(stream.read_until("\n", 10).await);
    assert_eq!(stream.read_some(2).await.unwrap(), b"de");
    assert_eq!(stream.read_until_close().await.unwrap(), b"fg");
    assert_clean_end(stream.read_some(2).await);
}

async fn what_was_sent_before_the_close_can_be_read_after_it<K: Kind>() {
    // Part of it in the stream's buffer, and part in the kernel's.
    let options = Options { read_chunk_size: 256, ..Options::default() };
    let (stream, other) = K::pair_with(options).await;
    let calls = count_closes::<K>(&stream);
    let sent = pattern(5000);
    other.write(&sent).await.unwrap();
    let mut got = stream.read_bytes(100).await.unwrap();
    other.close();
    settle().await;
    assert_eq!(calls.get(), 0);
    while got.len() < 5000 {
        got.extend(stream.read_bytes(100).await.unwrap());
        settle().await;
    }
    assert!(got == sent);
    stream.closed().await;
    settle().await;
    assert_eq!(calls.get(), 1);
}

async fn the_end_is_seen_after_the_bytes_that_come_with_it<K: Kind>() {
    let (stream, other) = K::pair().await;
    let reading = coroutine::start(stream.read_until("done", usize::MAX));
    other.write([b'x'; 2048]).await.unwrap();
    settle().await;
    other.write("done");
    other.close();
    assert_eq!(reading.await.unwrap().len(), 2052);
    assert_eq!(stream.read_until_close().await.unwrap(), b"");
    assert!(stream.is_closed());
}

async fn an_end_before_a_read_has_all_is_a_clean_close<K: Kind>() {
    let (stream, other) = K::pair().await;
    let reading = coroutine::start(stream.read_until("done", usize::MAX));
    other.write([b'x'; 2048]).await.unwrap();
    settle().await;
    other.write("foo");
    other.close();
    assert_clean_end(reading.await);
    assert!(stream.error().is_none());
    assert_eq!(stream.read_bytes(2051).await.unwrap().len(), 2051);
    // Its own side has gone with it.
    assert_clean_end(stream.write("x").await);
}

async fn a_close_is_noticed_while_nobody_reads<K: Kind>() {
    let (stream, other) = K::pair().await;
    let calls = count_closes::<K>(&stream);
    let closed = coroutine::start(stream.closed());
    settle().await;
    assert!(!closed.done() && !stream.is_closed());
    other.close();
    closed.await;
    assert!(stream.is_closed());
    settle().await;
    assert_eq!(calls.get(), 1);
}

async fn a_close_is_noticed_after_reads_that_ended_or_were_cancelled<K: Kind>() {
    for cancel in [false, true] {
        let (stream, other) = K::pair().await;
        let closed = coroutine::start(stream.closed());
        for _ in 0..3 {
            if cancel {
                cancelled(stream.read_bytes(1), || ()).await;
            } else {
                let reading = coroutine::start(stream.read_bytes(1));
                settle().await;
                other.write("a").await.unwrap();
                assert_eq!(reading.await.unwrap(), b"a");
            }
        }
        settle().await;
        assert!(!closed.done());
        other.close();
        closed.await;
    }
}

async fn a_close_is_noticed_while_somebody_reads<K: Kind>() {
    let (stream, other) = K::pair().await;
    let calls = count_closes::<K>(&stream);
    let reading = coroutine::start(stream.read_until("\n", 10));
    settle().await;
    other.close();
    assert_clean_end(reading.await);
    settle().await;
    assert_eq!(calls.get(), 1);
}

async fn a_close_is_noticed_while_somebody_else_stops_watching<K: Kind>() {
    let (stream, other) = K::pair().await;
    let closed = coroutine::start(stream.closed());
    cancelled(stream.closed(), || ()).await;
    other.close();
    closed.await;
}

async fn unread_bytes_delay_the_notice<K: Kind>() {
    let options = Options { read_chunk_size: 16, ..Options::default() };
    let (stream, other) = K::pair_with(options).await;
    let calls = count_closes::<K>(&stream);
    other.write([b'x'; 100]).await.unwrap();
    other.close();
    settle().await;
    assert_eq!(calls.get(), 0);
    assert_eq!(stream.read_bytes(100).await.unwrap(), [b'x'; 100]);
    stream.closed().await;
    settle().await;
    assert_eq!(calls.get(), 1);
}

async fn the_close_callback_comes_after_the_errors<K: Kind>() {
    let (stream, _other) = K::pair().await;
    let order = Rc::new(RefCell::new(Vec::new()));
    let log = |what: &'static str| {
        let order = order.clone();
        move || order.borrow_mut().push(what)
    };
    stream.set_close_callback(log("callback"));
    settle().await;
    let (reading, read) = (stream.read_bytes(1), log("read"));
    coroutine::start(async move {
        assert_clean_end(reading.await);
        read();
    });
    let (writing, written) = (stream.write(vec![0; 20_000_000]), log("write"));
    coroutine::start(async move {
        assert_clean_end(writing.await);
        written();
    });
    settle().await;
    stream.close();
    settle().await;
    assert_eq!(*order.borrow(), ["read", "write", "callback"]);
}

async fn a_close_callback_of_a_closed_stream_is_called<K: Kind>() {
    let (stream, _other) = K::pair().await;
    stream.close();
    let calls = count_closes::<K>(&stream);
    assert_eq!(calls.get(), 0, "not at once");
    settle().await;
    assert_eq!(calls.get(), 1);
}

async fn a_close_callback_takes_the_place_of_the_one_before<K: Kind>() {
    let (stream, _other) = K::pair().await;
    let (first, second) = (count_closes::<K>(&stream), count_closes::<K>(&stream));
    assert_eq!(Rc::strong_count(&first), 1, "it is dropped at once");
    settle().await;
    let third = count_closes::<K>(&stream);
    stream.clear_close_callback();
    let last = count_closes::<K>(&stream);
    stream.close();
    // Due ones are called, whatever comes after them.
    let (late, latest) = (count_closes::<K>(&stream), count_closes::<K>(&stream));
    stream.clear_close_callback();
    settle().await;
    let calls = [first, second, third, last, late, latest].map(|calls| calls.get());
    assert_eq!(calls, [0, 0, 0, 1, 1, 1]);
}

async fn a_stream_can_be_closed_with_an_error_of_ones_own<K: Kind>() {
    let (stream, other) = K::pair().await;
    let calls = count_closes::<K>(&stream);
    let reading = coroutine::start(stream.read_bytes(1));
    let writing = stream.write(vec![0; 20_000_000]);
    settle().await;
    stream.close_with_error(io::Error::new(io::ErrorKind::InvalidInput, "not understood"));
    stream.close_with_error(io::Error::other("too late"));
    for result in [reading.await.map(drop), writing.await, stream.write("x").await] {
        let error = result.unwrap_err();
        let error = error.real_error().unwrap();
        assert_eq!(
            (error.kind(), &*error.to_string()),
            (io::ErrorKind::InvalidInput, "not understood")
        );
    }
    assert_eq!(stream.error().unwrap().to_string(), "not understood");
    settle().await;
    assert_eq!(calls.get(), 1);
    // What was sent of it is there.
    other.read_until_close().await.unwrap();
}

async fn a_stream_is_open_as_long_as_there_is_a_handle<K: Kind>() {
    let (stream, other) = K::pair().await;
    // Neither of these is a handle.
    let calls = count_closes::<K>(&stream);
    let closed = coroutine::start(stream.closed());
    let clone = stream.clone();
    drop(stream);
    settle().await;
    other.write("abc");
    assert_eq!(clone.read_bytes(3).await.unwrap(), b"abc");
    assert!(!closed.done());
    drop(clone);
    closed.await;
    settle().await;
    assert_eq!(calls.get(), 1);
    other.closed().await;
}

async fn a_stream_can_be_closed_while_it_shows_what_it_is_over<K: Kind>() {
    let (stream, other) = K::pair().await;
    let write = stream.with_io(|_| stream.write("abc")).unwrap();
    write.await.unwrap();
    assert_eq!(other.read_bytes(3).await.unwrap(), b"abc");
    let reading = coroutine::start(stream.read_bytes(1));
    stream.with_io(|_| {
        stream.close();
        assert!(stream.is_closed());
    });
    assert!(stream.with_io(|_| ()).is_none());
    assert_clean_end(reading.await);
    other.closed().await;
}

#[waterspout::test(timeout = 60.0)]
async fn a_half_close_by_the_other_side_is_a_close() {
    let (there, here) = Tcp::io_pair().await;
    let stream = IoStream::new(here);
    there.write_all(b"last words").await.unwrap();
    there.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read_until_close().await.unwrap(), b"last words");
    assert!(stream.is_closed() && stream.error().is_none());
    assert_eq!(there.read(&mut [0; 8]).await.unwrap(), 0);
}

#[waterspout::test(timeout = 60.0)]
async fn a_reset_is_the_error_of_the_read_and_of_the_stream() {
    for watched in [false, true] {
        let (there, here) = Tcp::io_pair().await;
        let stream = IoStream::new(here);
        there.write_all(b"abc").await.unwrap();
        assert_eq!(stream.read_bytes(1).await.unwrap(), b"a");
        let reading = (!watched).then(|| coroutine::start(stream.read_bytes(5)));
        let closed = coroutine::start(stream.closed());
        settle().await;
        there.set_linger(Some(Duration::ZERO)).unwrap();
        drop(there);
        if let Some(reading) = reading {
            assert_eq!(real_error(reading.await), io::ErrorKind::ConnectionReset);
        }
        closed.await;
        assert_eq!(stream.error().unwrap().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(stream.read_bytes(2).await.unwrap(), b"bc");
        assert_eq!(real_error(stream.read_bytes(1).await), io::ErrorKind::ConnectionReset);
        // The rest is not all that was sent, so this does not pretend so.
        assert_eq!(real_error(stream.read_until_close().await), io::ErrorKind::ConnectionReset);
        assert_eq!(real_error(stream.write("x").await), io::ErrorKind::ConnectionReset);
    }
}

#[waterspout::test(timeout = 60.0)]
async fn what_the_other_side_sent_before_it_went_can_be_read_after_a_failed_write() {
    // A server that answers early and goes: whoever still writes gets an error, and the answer.
    let expected = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
    for waiting in [false, true] {
        let (there, here) = UnixStream::pair().unwrap();
        let stream = IoStream::new(here);
        if waiting {
            stream.write(pattern(5_000_000));
            settle().await;
            assert!(stream.writing());
        }
        there.write_all(b"no, thanks").await.unwrap();
        drop(there);
        let kind = real_error(stream.write("x").await);
        assert!(expected.contains(&kind), "{kind:?}");
        assert!(stream.is_closed());
        assert_eq!(stream.error().unwrap().kind(), kind);
        assert_eq!(stream.read_bytes(10).await.unwrap(), b"no, thanks");
    }
}

#[waterspout::test(timeout = 60.0)]
async fn a_closed_stream_leaves_no_coroutine_behind() {
    let (one, _other) = testing::duplex(10);
    let stream = IoStream::new(one);
    let before = IoLoop::current().coroutines().len();
    drop(stream.write([0; 100]));
    let _reading = coroutine::start(stream.read_bytes(1));
    settle().await;
    stream.close();
    settle().await;
    assert_eq!(IoLoop::current().coroutines().len(), before);
}

#[test]
fn a_stream_survives_its_loop() {
    let io_loop = IoLoop::new().unwrap();
    let (stream, written) = io_loop
        .run_sync(|| async {
            let (one, other) = UnixStream::pair().unwrap();
            let stream = IoStream::new(one);
            stream.set_close_callback(|| ());
            coroutine::start(stream.read_bytes(1));
            let written = stream.write(vec![0; 10_000_000]);
            drop(IoStream::new(other).write(vec![0; 10_000_000]));
            settle().await;
            (stream, written)
        })
        .unwrap();
    io_loop.close();
    assert!(matches!(written.now_or_never(), Some(Err(StreamError::Closed(_)))));
    assert!(!stream.reading());
    drop(stream);
}

// ---------------------------------------------------------------------------------------------
// A stream belongs to its loop

fn pair_on(io_loop: &IoLoop) -> (IoStream<UnixStream>, IoStream<UnixStream>) {
    let pair = || async {
        let (here, there) = UnixStream::pair().unwrap();
        (IoStream::new(here), IoStream::new(there))
    };
    io_loop.run_sync(pair).unwrap()
}

/// Two loops of which the second is current, as in a program that makes one beside its own.
fn own_and_current() -> (IoLoop, IoLoop) {
    let (own, current) = (IoLoop::new().unwrap(), IoLoop::new().unwrap());
    current.make_current();
    (own, current)
}

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn between_two_runs_of_its_loop_a_stream_is_written_to_and_watched() {
    let io_loop = IoLoop::new().unwrap();
    let (here, there) = pair_on(&io_loop);
    let closes = Rc::new(Cell::new(0));
    let counted = closes.clone();
    here.set_close_callback(move || counted.set(counted.get() + 1));
    // More than the socket takes.
    let (short, long) = (there.write("abc"), there.write(vec![b'x'; 1_000_000]));
    let read = io_loop.run_sync_timeout(LIMIT, || async {
        assert_eq!(here.read_bytes(3).await?, b"abc");
        assert_eq!(here.read_bytes(1_000_000).await?.len(), 1_000_000);
        short.await?;
        long.await?;
        there.close();
        here.closed().await;
        settle().await;
        Ok::<(), StreamError>(())
    });
    read.unwrap().unwrap();
    assert_eq!(closes.get(), 1);
}

#[test]
fn a_stream_is_its_own_loops_also_while_another_one_is_current() {
    let (own, _current) = own_and_current();
    let (here, there) = pair_on(&own);
    let closes = Rc::new(Cell::new(0));
    let counted = closes.clone();
    here.set_close_callback(move || counted.set(counted.get() + 1));
    let write = there.write("abc");
    assert!(!there.is_closed() && there.writing());
    let read = own.run_sync_timeout(LIMIT, || async {
        write.await?;
        there.close();
        let read = here.read_bytes(3).await;
        here.closed().await;
        settle().await;
        read
    });
    assert_eq!(read.unwrap().unwrap(), b"abc");
    assert_eq!(closes.get(), 1);
}

#[test]
fn reading_on_another_loop_gives_what_is_there_and_else_an_error_that_closes_nothing() {
    let (own, current) = own_and_current();
    let (here, there) = pair_on(&own);
    let arrive = || async {
        there.write("abcde").await.unwrap();
        cancelled(here.read_bytes(9), || ()).await;
    };
    own.run_sync_timeout(LIMIT, arrive).unwrap();
    let elsewhere = || async {
        assert_eq!(here.read_bytes(3).await.unwrap(), b"abc");
        let error = here.read_bytes(3).await.unwrap_err();
        assert!(matches!(error, StreamError::OtherLoop), "{error}");
        // Watching discovers nothing here, and breaks nothing.
        assert!(here.closed().now_or_never().is_none());
        assert!(!here.reading() && !here.is_closed());
        there.write("f");
    };
    current.run_sync_timeout(LIMIT, elsewhere).unwrap();
    assert_eq!(own.run_sync_timeout(LIMIT, || here.read_bytes(3)).unwrap().unwrap(), b"def");
}

#[test]
fn a_close_callback_that_holds_its_stream_goes_with_the_loop() {
    let io_loop = IoLoop::new().unwrap();
    let (here, there) = pair_on(&io_loop);
    let held = Rc::new(());
    let also = (held.clone(), here.clone());
    here.set_close_callback(move || drop(also));
    io_loop.run_sync(settle).unwrap();
    drop((here, there));
    assert_eq!(Rc::strong_count(&held), 2);
    io_loop.close();
    assert_eq!(Rc::strong_count(&held), 1);
}

#[waterspout::test]
async fn a_close_callback_may_set_another_one() {
    let (stream, other) = Tcp::pair().await;
    let (called, again) = (Rc::new(Cell::new(0)), stream.clone());
    let counted = called.clone();
    stream.set_close_callback(move || {
        let counts = counted.clone();
        again.set_close_callback(move || counts.set(counts.get() + 10));
        counted.set(counted.get() + 1);
    });
    other.close();
    stream.closed().await;
    settle().await;
    assert_eq!(called.get(), 11);
}

#[test]
fn a_stream_of_a_closed_loop_says_so_and_settles_what_is_asked_of_it() {
    let io_loop = IoLoop::new().unwrap();
    let (here, there) = pair_on(&io_loop);
    io_loop.close();
    let dropped = Rc::new(());
    let held = dropped.clone();
    here.set_close_callback(move || drop(held));
    assert_eq!(Rc::strong_count(&dropped), 1, "the callback is dropped, not kept");
    for stream in [&here, &there] {
        let error = stream.write("x").now_or_never().unwrap().unwrap_err();
        assert!(error.to_string().contains("closed"), "{error}");
        assert!(stream.is_closed() && stream.error().is_some());
    }
    assert!(here.read_bytes(1).now_or_never().unwrap().is_err());
}

// ---------------------------------------------------------------------------------------------
// Foreign code that panics

/// Panics wherever it is told to; is never ready otherwise.
#[derive(Default)]
struct Panics {
    reading: bool,
    writing: bool,
    flushing: bool,
    dropping: bool,
}

impl AsyncRead for Panics {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        assert!(!self.reading, "while it is read from");
        Poll::Pending
    }
}

impl AsyncWrite for Panics {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        assert!(!self.writing, "while it is written to");
        match self.flushing {
            true => Poll::Ready(Ok(buf.len())),
            false => Poll::Pending,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        panic!("while it is flushed");
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for Panics {
    fn drop(&mut self) {
        assert!(!self.dropping, "while it is dropped");
    }
}

/// The error that closed the stream, as text.
fn why<T: std::fmt::Debug>(result: Result<T, StreamError>) -> String {
    result.unwrap_err().real_error().map_or("a clean end".into(), ToString::to_string)
}

/// What a loop is told of while `body` runs on it.
fn exceptions<F: Future<Output = ()>>(body: impl FnOnce() -> F) -> Vec<String> {
    let diary = Diary::new();
    let io_loop = diary.exceptions_of(IoLoop::builder()).build().unwrap();
    io_loop.run_sync_timeout(LIMIT, body).unwrap();
    diary.read()
}

#[test]
fn everybody_is_told_of_a_close_although_what_the_stream_is_over_panics_when_it_is_dropped() {
    let told = exceptions(|| async {
        let stream = IoStream::new(Panics { dropping: true, ..Panics::default() });
        let closes = Rc::new(Cell::new(0));
        let (counted, closed) = (closes.clone(), stream.closed());
        stream.set_close_callback(|| panic!("in the callback"));
        let watching = coroutine::start(async move {
            closed.await;
            counted.set(counted.get() + 1);
        });
        let reading = coroutine::start(stream.read_bytes(1));
        let written = stream.write("x");
        settle().await;
        stream.close();
        watching.await;
        assert!(reading.await.is_err() && written.await.is_err());
        settle().await;
        assert_eq!(closes.get(), 1);
    });
    assert_eq!(told, ["panicked: while it is dropped", "panicked: in the callback"]);
}

#[test]
fn what_panics_while_it_is_used_closes_the_stream_and_settles_every_read_and_write() {
    let told = exceptions(|| async {
        let io = Panics { reading: true, ..Panics::default() };
        let stream = IoStream::new(io);
        let written = stream.write("x");
        assert_eq!(why(stream.read_bytes(1).await), "it panicked");
        assert_eq!(why(written.await), "it panicked");
        assert!(stream.is_closed());
    });
    assert_eq!(told, ["panicked: while it is read from"]);
    for (flushing, what) in [(false, "while it is written to"), (true, "while it is flushed")] {
        let told = exceptions(|| async {
            let io = Panics { writing: !flushing, flushing, ..Panics::default() };
            let stream = IoStream::new(io);
            let reading = coroutine::start(stream.read_bytes(1));
            assert_eq!(why(stream.write("x").await), "it panicked");
            assert_eq!(why(reading.await), "it panicked");
            assert!(!stream.writing());
        });
        assert_eq!(told, [format!("panicked: {what}")]);
    }
}

#[waterspout::test]
async fn who_panics_while_it_is_shown_what_a_stream_is_over_does_not_keep_that_open() {
    let (one, other) = testing::tcp_pair().await.unwrap();
    let (stream, other) = (IoStream::new(one), IoStream::new(other));
    let look = || {
        stream.with_io(|_| {
            stream.close();
            panic!("while it looks");
        })
    };
    assert!(std::panic::catch_unwind(AssertUnwindSafe(look)).is_err());
    other.closed().await;
}

#[test]
fn a_stream_that_is_closed_while_a_waker_is_cloned_is_not_watched_for_ever() {
    let _io_loop = virtual_loop();
    let stream = IoStream::new(UnixStream::pair().unwrap().0);
    let closes = stream.clone();
    let closed = poll_acting_when_cloned(&mut Box::pin(stream.closed()), move || closes.close());
    assert!(closed.is_ready());
}
