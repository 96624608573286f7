//! The end of a stream, from here and from there, and who is told.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use futures::FutureExt;
use waterspout::coroutine;
use waterspout::iostream::{IoStream, Options};
use waterspout::net::UnixStream;
use waterspout::testing;
use waterspout::{IoLoop, StreamError};

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
