//! Writes: sent at once or later, in order, within limits.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures::FutureExt;
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use waterspout::coroutine::{self, moment, with_timeout};
use waterspout::iostream::{IoStream, Options};
use waterspout::testing::{self, Memory};
use waterspout::{IoLoop, StreamError};

use crate::{
    Counted, Kind, Tcp, assert_clean_end, on_every_transport, pattern, poll_once, real_error,
    settle, sizes,
};

on_every_transport!(
    a_write_that_fits_is_done_at_once,
    a_write_of_nothing_is_done_at_once,
    a_write_that_nobody_awaits_is_sent,
    writes_are_sent_in_order_whatever_is_awaited,
    ten_megabytes_pass_a_slow_reader,
    many_write_and_each_write_is_done_once,
    a_write_beyond_the_limit_is_refused_and_the_stream_stays_open,
    a_write_to_a_closed_stream_is_an_error,
    what_was_written_is_sent_when_the_last_handle_goes,
    a_time_limit_on_a_write_does_not_take_it_back,
    bytes_that_the_stream_owns_are_kept_as_they_are_until_they_are_sent,
    what_was_fed_is_sent_although_nobody_flushes,
    what_was_fed_is_sent_when_the_last_handle_goes,
    feeding_waits_when_the_other_side_does_not_read,
    feeding_a_closed_stream_is_an_error,
);

async fn a_write_that_fits_is_done_at_once<K: Kind>() {
    let (reader, writer) = K::pair().await;
    writer.write("hello").now_or_never().unwrap().unwrap();
    assert!(!writer.writing());
    assert_eq!(reader.read_bytes(5).await.unwrap(), b"hello");
}

async fn a_write_of_nothing_is_done_at_once<K: Kind>() {
    let (reader, writer) = K::pair().await;
    writer.write("").now_or_never().unwrap().unwrap();
    // Behind others it is done with them.
    let mut behind_others = {
        writer.write(pattern(20_000_000));
        writer.write("")
    };
    assert!((&mut behind_others).now_or_never().is_none());
    reader.read_bytes(20_000_000).await.unwrap();
    behind_others.await.unwrap();
}

async fn a_write_that_nobody_awaits_is_sent<K: Kind>() {
    let (reader, writer) = K::pair().await;
    drop(writer.write(pattern(5_000_000)));
    drop(writer.write("end"));
    assert!(reader.read_bytes(5_000_000).await.unwrap() == pattern(5_000_000));
    assert_eq!(reader.read_bytes(3).await.unwrap(), b"end");
}

async fn writes_are_sent_in_order_whatever_is_awaited<K: Kind>() {
    const TOTAL: usize = 6_000_000;
    let (reader, writer) = K::pair().await;
    let sending = coroutine::start(async move {
        let bytes = pattern(TOTAL);
        let mut rest = &bytes[..];
        for (n, size) in sizes(40_000).enumerate() {
            let (piece, more) = rest.split_at(size.min(rest.len()));
            let written = match n / 3 % 5 {
                0 => writer.write(piece),
                1 => writer.write_owned(Vec::from(piece)),
                2 => writer.feed(&piece[..size.min(100).min(piece.len())]),
                3 => writer.flush(),
                _ => writer.feed(piece),
            };
            let more = match n / 3 % 5 {
                2 => &rest[size.min(100).min(piece.len())..],
                3 => rest,
                _ => more,
            };
            match n % 3 {
                0 => drop(written),
                1 => written.await.unwrap(),
                _ => {
                    let _ = written.now_or_never();
                }
            }
            rest = more;
            if rest.is_empty() {
                break;
            }
        }
    });
    let got = reader.read_until_close().await.unwrap();
    sending.await;
    assert!(got == pattern(TOTAL), "{} bytes", got.len());
}

async fn ten_megabytes_pass_a_slow_reader<K: Kind>() {
    let (reader, writer) = K::pair().await;
    let written = coroutine::start(writer.write(pattern(10_000_000)));
    let mut got = Vec::new();
    for size in sizes(100_000) {
        moment().await;
        got.extend(reader.read_bytes(size.min(10_000_000 - got.len())).await.unwrap());
        if got.len() == 10_000_000 {
            break;
        }
    }
    written.await.unwrap();
    assert!(got == pattern(10_000_000));
}

async fn many_write_and_each_write_is_done_once<K: Kind>() {
    let (reader, writer) = K::pair().await;
    let done = Rc::new(Cell::new(0));
    let writers: Vec<_> = (0..10)
        .map(|_| {
            let (writer, done) = (writer.clone(), done.clone());
            coroutine::start(async move {
                for _ in 0..100 {
                    writer.write([b'x'; 5000]).await.unwrap();
                    done.set(done.get() + 1);
                }
            })
        })
        .collect();
    for _ in 0..1000 {
        assert_eq!(reader.read_bytes(5000).await.unwrap(), [b'x'; 5000]);
    }
    futures::future::join_all(writers).await;
    assert_eq!(done.get(), 1000);
}

async fn a_write_beyond_the_limit_is_refused_and_the_stream_stays_open<K: Kind>() {
    let options = Options { max_write_buffer_size: 100_000, ..Options::default() };
    let (reader, writer) = K::pair_with(options).await;
    let too_much = writer.write(vec![0; 100_001]).now_or_never().unwrap();
    assert!(matches!(too_much, Err(StreamError::WriteBufferFull)), "{too_much:?}");
    let mut taken = Vec::new();
    let mut last = loop {
        let piece = pattern(30_000);
        let mut written = writer.write(&piece);
        match (&mut written).now_or_never() {
            Some(Err(StreamError::WriteBufferFull)) => break None,
            Some(other) => other.unwrap(),
            None => {}
        }
        taken.extend(piece);
        if taken.len() > 100_000_000 {
            break Some(written);
        }
    };
    assert!(last.take().is_none(), "it is never too much");
    assert!(!writer.is_closed());
    // A reader that is slow, at last: there is room again.
    let got = reader.read_bytes(taken.len()).await.unwrap();
    assert!(got == taken);
    settle().await;
    writer.write("more").await.unwrap();
    assert_eq!(reader.read_bytes(4).await.unwrap(), b"more");
}

async fn a_write_to_a_closed_stream_is_an_error<K: Kind>() {
    let (_reader, writer) = K::pair().await;
    writer.close();
    assert_clean_end(writer.write("x").now_or_never().unwrap());
    assert_clean_end(writer.write("").now_or_never().unwrap());
}

async fn what_was_written_is_sent_when_the_last_handle_goes<K: Kind>() {
    let (reader, writer) = K::pair().await;
    let written = {
        let clone = writer.clone();
        drop(writer);
        let written = clone.write(pattern(5_000_000));
        clone.write("end");
        assert!(clone.writing());
        written
    };
    settle().await;
    let got = reader.read_until_close().await.unwrap();
    assert!(got == [&pattern(5_000_000)[..], b"end"].concat());
    written.await.unwrap();
}

async fn a_time_limit_on_a_write_does_not_take_it_back<K: Kind>() {
    let (reader, writer) = K::pair().await;
    let written = writer.write(pattern(10_000_000));
    assert!(with_timeout(Duration::ZERO, written).await.is_err());
    assert!(reader.read_bytes(10_000_000).await.unwrap() == pattern(10_000_000));
}

async fn bytes_that_the_stream_owns_are_kept_as_they_are_until_they_are_sent<K: Kind>() {
    let (reader, writer) = K::pair().await;
    let data: Rc<[u8]> = pattern(10_000_000).into();
    let mut writes = vec![writer.write("first")];
    writes.extend((0..3).map(|_| writer.write_owned(data.clone())));
    writes.push(writer.write("last"));
    assert_eq!(Rc::strong_count(&data), 4);
    assert_eq!(reader.read_bytes(5).await.unwrap(), b"first");
    for left in (0..3).rev() {
        assert!(reader.read_bytes(data.len()).await.unwrap() == *data);
        settle().await;
        assert!(Rc::strong_count(&data) <= 1 + left + 1);
    }
    assert_eq!(reader.read_bytes(4).await.unwrap(), b"last");
    for write in writes {
        write.await.unwrap();
    }
    assert_eq!(Rc::strong_count(&data), 1);
    // What is taken at once is not kept, and what is unsent is dropped when the stream is closed.
    writer.write_owned(Rc::<[u8]>::from(*b"x")).now_or_never().unwrap().unwrap();
    let written = writer.write_owned(data.clone());
    writer.close();
    assert!(written.await.is_err());
    assert_eq!(Rc::strong_count(&data), 1);
}

async fn what_was_fed_is_sent_although_nobody_flushes<K: Kind>() {
    let (reader, writer) = K::pair().await;
    for n in 0..3 {
        writer.feed([n; 10]).now_or_never().unwrap().unwrap();
        assert!(writer.writing());
    }
    assert_eq!(reader.read_bytes(30).await.unwrap(), [[0; 10], [1; 10], [2; 10]].concat());
    settle().await;
    assert!(!writer.writing());
    writer.feed("again");
    writer.flush().await.unwrap();
    assert!(!writer.writing());
    assert_eq!(reader.read_bytes(5).await.unwrap(), b"again");
}

async fn what_was_fed_is_sent_when_the_last_handle_goes<K: Kind>() {
    let (reader, writer) = K::pair().await;
    writer.feed("the end");
    drop(writer);
    assert_eq!(reader.read_until_close().await.unwrap(), b"the end");
}

async fn feeding_waits_when_the_other_side_does_not_read<K: Kind>() {
    let (reader, writer) = K::pair().await;
    let mut fed = 0;
    let last = loop {
        let mut feed = writer.feed([b'x'; 1000]);
        fed += 1000;
        if (&mut feed).now_or_never().is_none() {
            // The system may take more after a while.
            settle().await;
            if (&mut feed).now_or_never().is_none() {
                break feed;
            }
        }
        assert!(fed < 100_000_000);
    };
    assert_eq!(reader.read_bytes(fed).await.unwrap().len(), fed);
    last.await.unwrap();
}

async fn feeding_a_closed_stream_is_an_error<K: Kind>() {
    let (_reader, writer) = K::pair().await;
    writer.feed("x");
    writer.close();
    assert!(!writer.writing());
    assert_clean_end(writer.feed("x").now_or_never().unwrap());
    assert_clean_end(writer.flush().now_or_never().unwrap());
}

#[waterspout::test(timeout = 60.0)]
async fn what_was_fed_is_sent_in_one_call_and_before_what_is_written() {
    let (one, mut other) = testing::duplex(1_000_000);
    let (io, counts) = Counted::new(one);
    let writer = IoStream::new(io);
    let sent = || std::mem::take(&mut *counts.writes.borrow_mut());
    (0..100).for_each(|_| drop(writer.feed(b"0123456789")));
    assert!(sent().is_empty());
    writer.flush().now_or_never().unwrap().unwrap();
    assert_eq!(sent(), [1000]);
    writer.feed("a");
    writer.write("b").now_or_never().unwrap().unwrap();
    assert_eq!(sent(), [2]);
    writer.feed("c");
    writer.write_owned(vec![b'd'; 3]).now_or_never().unwrap().unwrap();
    assert_eq!(sent(), [4]);
    // As much as does not fit is sent with what was gathered.
    writer.feed(vec![b'e'; 60_000]).now_or_never().unwrap().unwrap();
    assert!(sent().is_empty());
    writer.feed(vec![b'f'; 10_000]).now_or_never().unwrap().unwrap();
    assert_eq!(sent(), [70_000]);
    writer.feed("").now_or_never().unwrap().unwrap();
    assert!(!writer.writing() && sent().is_empty());
    let mut got = vec![0; 1000 + 6 + 70_000];
    other.read_exact(&mut got).await.unwrap();
    assert!(got[1000..].starts_with(b"abcddde"));
}

#[waterspout::test(timeout = 60.0)]
async fn what_is_fed_counts_as_unsent() {
    let (one, _other) = testing::duplex(1000);
    let options = Options { max_write_buffer_size: 100, ..Options::default() };
    let writer = IoStream::with_options(one, options);
    writer.feed([0; 100]).now_or_never().unwrap().unwrap();
    for too_much in [writer.feed("x"), writer.write("x"), writer.write_owned("x")] {
        let result = too_much.now_or_never().unwrap();
        assert!(matches!(result, Err(StreamError::WriteBufferFull)), "{result:?}");
    }
    let writer = writer.into_inner().unwrap_err().into_stream();
    writer.flush().now_or_never().unwrap().unwrap();
    writer.write("x").now_or_never().unwrap().unwrap();
    assert!(writer.into_inner().is_ok());
}

#[waterspout::test(timeout = 60.0)]
async fn a_transport_that_buffers_is_flushed_after_what_was_fed() {
    let (one, other) = testing::duplex(1000);
    let gate = Rc::new(Gate::default());
    let writer = IoStream::new(Buffered { io: one, held: Vec::new(), gate: gate.clone() });
    let reader = IoStream::new(other);
    writer.feed("fed");
    let clone = writer.clone();
    drop(writer);
    settle().await;
    // The last handle goes while the transport has the bytes and has not passed them on.
    drop(clone);
    gate.open();
    assert_eq!(reader.read_until_close().await.unwrap(), b"fed");
}

/// Bytes that become fewer, and that call back when they are dropped.
struct Odd {
    len: Rc<Cell<usize>>,
    dropped: Option<Box<dyn FnOnce()>>,
}

impl AsRef<[u8]> for Odd {
    fn as_ref(&self) -> &[u8] {
        &[b'o'; 1000][..self.len.get()]
    }
}

impl Drop for Odd {
    fn drop(&mut self) {
        if let Some(dropped) = self.dropped.take() {
            dropped();
        }
    }
}

#[waterspout::test(timeout = 60.0)]
async fn owned_bytes_that_become_fewer_close_the_stream() {
    let (one, _other) = testing::duplex(10);
    let writer = IoStream::new(one);
    let len = Rc::new(Cell::new(1000));
    let mut written = writer.write_owned(Odd { len: len.clone(), dropped: None });
    settle().await;
    assert!((&mut written).now_or_never().is_none());
    len.set(5);
    let again = writer.write("");
    drop(_other);
    settle().await;
    assert!(written.await.is_err() && again.await.is_err() && writer.is_closed());
}

#[waterspout::test(timeout = 60.0)]
async fn owned_bytes_may_use_the_stream_when_they_are_dropped() {
    for closes in [false, true] {
        let (one, mut other) = testing::duplex(10);
        let writer = IoStream::new(one);
        let (len, clone) = (Rc::new(Cell::new(20)), writer.clone());
        let dropped = move || match closes {
            true => clone.close(),
            false => drop(clone.write("from the destructor")),
        };
        let written = writer.write_owned(Odd { len, dropped: Some(Box::new(dropped)) });
        let behind = writer.write("behind");
        let mut got = Vec::new();
        drop(writer);
        other.read_to_end(&mut got).await.unwrap();
        let expected = ["o".repeat(20).as_str(), "behind", "from the destructor"].concat();
        match closes {
            true => assert!(got.starts_with(&[b'o'; 20]) && got.len() < 30),
            false => assert_eq!(String::from_utf8(got).unwrap(), expected),
        }
        assert_eq!((written.await.is_err(), behind.await.is_err()), (closes, closes));
    }
}

#[waterspout::test(timeout = 60.0)]
async fn a_write_is_done_when_its_own_last_byte_is_sent() {
    let (one, mut other) = testing::duplex(100);
    let writer = IoStream::new(one);
    let mut writes: Vec<_> = [100, 50, 0, 30, 100].map(|n| writer.write(vec![b'x'; n])).into();
    let done = |writes: &mut Vec<_>| -> Vec<bool> {
        writes
            .iter_mut()
            .map(|write: &mut waterspout::iostream::Write| {
                write.now_or_never().is_some_and(|result| result.is_ok())
            })
            .collect()
    };
    assert_eq!(done(&mut writes), [true, false, false, false, false]);
    for (read, expected) in [
        (49, [true, false, false, false, false]),
        (1, [true, true, true, false, false]),
        (30, [true, true, true, true, false]),
        (99, [true, true, true, true, false]),
        (1, [true, true, true, true, true]),
    ] {
        other.read_exact(&mut vec![0; read]).await.unwrap();
        settle().await;
        assert_eq!(done(&mut writes), expected, "after {read} more");
    }
    assert!(!writer.writing());
}

#[waterspout::test(timeout = 60.0)]
async fn writes_are_done_in_the_order_in_which_they_were_written() {
    let (one, mut other) = testing::duplex(10);
    let writer = IoStream::new(one);
    let order = Rc::new(RefCell::new(Vec::new()));
    for n in 0..20 {
        let (written, order) = (writer.write([n; 3]), order.clone());
        coroutine::start(async move {
            written.await.unwrap();
            order.borrow_mut().push(n);
        });
    }
    other.read_exact(&mut [0; 60]).await.unwrap();
    settle().await;
    assert_eq!(*order.borrow(), (0..20).collect::<Vec<_>>());
}

#[waterspout::test(timeout = 60.0)]
async fn what_waits_is_sent_in_few_calls() {
    let (one, mut other) = testing::duplex(100_000);
    let (io, counts) = Counted::new(one);
    let writer = IoStream::new(io);
    writer.write(vec![0; 100_000]);
    for n in 0..1000_usize {
        writer.write([n as u8; 10]);
    }
    settle().await;
    assert_eq!(*counts.writes.borrow(), [100_000]);
    other.read_exact(&mut vec![0; 100_000]).await.unwrap();
    settle().await;
    assert_eq!(*counts.writes.borrow(), [100_000, 10_000]);
    let mut got = vec![0; 10_000];
    other.read_exact(&mut got).await.unwrap();
    assert!(got.chunks(10).enumerate().all(|(n, piece)| piece == [n as u8; 10]));
}

#[waterspout::test(timeout = 60.0)]
async fn what_waits_is_sent_in_one_call_wherever_the_buffer_begins() {
    let (one, mut other) = testing::duplex(1000);
    let (io, counts) = Counted::new(one);
    let writer = IoStream::new(io);
    writer.write([0; 1000]);
    let sent = pattern(100_000);
    let mut got = Vec::new();
    let (mut rest, mut waiting) = (&sent[..], 0);
    // As much is written as is read, so that the unsent bytes go round and round in their buffer.
    other.read_exact(&mut [0; 1000]).await.unwrap();
    writer.write(&rest[..2500]);
    (rest, waiting) = (&rest[2500..], waiting + 2500);
    while got.len() < sent.len() {
        settle().await;
        let n = waiting.min(1000);
        let mut piece = vec![0; n];
        other.read_exact(&mut piece).await.unwrap();
        got.extend(piece);
        waiting -= n;
        let n = n.min(rest.len());
        writer.write(&rest[..n]);
        (rest, waiting) = (&rest[n..], waiting + n);
    }
    assert!(got == sent);
    let writes = counts.writes.borrow();
    assert!(writes.len() <= 110, "{} calls", writes.len());
}

#[waterspout::test(timeout = 60.0)]
async fn whoever_writes_what_is_always_taken_lets_others_run() {
    let (one, _other) = testing::duplex(10_000_000);
    let writer = IoStream::new(one);
    let stop = Rc::new(Cell::new(false));
    let stopped = stop.clone();
    let writing = coroutine::start(async move {
        for _ in 0..10_000_000 {
            if stopped.get() {
                return true;
            }
            writer.write("x").await.unwrap();
        }
        false
    });
    moment().await;
    stop.set(true);
    assert!(writing.await, "nobody else ever ran");
}

#[waterspout::test(virtual_time)]
async fn blocking_on_writes_that_are_taken_ends_also_when_the_budget_is_spent() {
    const MANY: usize = 1000;
    let (one, other) = testing::duplex(MANY);
    let (writer, reader) = (IoStream::new(one), IoStream::new(other));
    let (wake, woken) = mpsc::channel();
    let waker = waker_fn::waker_fn(move || _ = wake.send(()));
    // Polls to the end within this resumption, as `futures::executor::block_on` does.
    let mut writes = Box::pin(async {
        for _ in 0..MANY {
            writer.write("x").await.unwrap();
            assert!(!writer.writing());
        }
    });
    while writes.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
        woken.recv_timeout(Duration::from_secs(30)).expect("it hangs");
    }
    assert_eq!(reader.read_bytes(MANY).await.unwrap().len(), MANY);
}

#[waterspout::test(virtual_time)]
async fn writing_to_many_streams_at_once_takes_no_coroutine_for_each() {
    let pairs: Vec<_> = (0..500).map(|_| testing::duplex(10)).collect();
    let (writers, readers): (Vec<_>, Vec<_>) =
        pairs.into_iter().map(|(one, other)| (IoStream::new(one), IoStream::new(other))).unzip();
    let started = IoLoop::current().counters().started;
    for writer in &writers {
        writer.write("news");
        assert!(!writer.writing());
    }
    assert_eq!(IoLoop::current().counters().started, started);
    for reader in &readers {
        assert_eq!(reader.read_bytes(4).await.unwrap(), b"news");
    }
}

/// Keeps what is written until it is flushed, which takes until it is allowed.
struct Buffered {
    io: Memory,
    held: Vec<u8>,
    gate: Rc<Gate>,
}

#[derive(Default)]
struct Gate {
    open: Cell<bool>,
    waiting: Cell<Option<Waker>>,
}

impl Gate {
    fn open(&self) {
        self.open.set(true);
        self.wake();
    }

    fn wake(&self) {
        self.waiting.take().unwrap().wake();
    }
}

impl AsyncRead for Buffered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Buffered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.held.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.held.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if !self.gate.open.get() {
            self.gate.waiting.set(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        let Buffered { io, held, .. } = &mut *self;
        let n = ready!(Pin::new(io).poll_write(cx, held))?;
        assert_eq!(n, held.len());
        held.clear();
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

#[waterspout::test(timeout = 60.0)]
async fn a_write_is_not_done_before_the_transport_has_passed_it_on() {
    let (one, mut other) = testing::duplex(1000);
    let gate = Rc::new(Gate::default());
    let writer = IoStream::new(Buffered { io: one, held: Vec::new(), gate: gate.clone() });
    let mut first = writer.write("first, ");
    settle().await;
    assert!((&mut first).now_or_never().is_none());
    assert!(writer.writing());
    // Written while the flush is waiting, and taken by the transport before that is done.
    let mut second = writer.write("second");
    gate.wake();
    settle().await;
    assert!((&mut first).now_or_never().is_none());
    assert!((&mut second).now_or_never().is_none());
    gate.open();
    first.await.unwrap();
    second.await.unwrap();
    let mut got = [0; 13];
    other.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"first, second");
    assert!(!writer.writing());
    writer.write("!").now_or_never().unwrap().unwrap();
}

#[waterspout::test(timeout = 60.0)]
async fn a_transport_that_takes_nothing_is_an_error() {
    struct Nothing;
    impl AsyncRead for Nothing {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
    }
    impl AsyncWrite for Nothing {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(0))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
    let writer = IoStream::new(Nothing);
    assert_eq!(real_error(writer.write("x").await), io::ErrorKind::WriteZero);
    assert!(writer.is_closed());
}

#[waterspout::test(timeout = 60.0)]
async fn a_reset_fails_every_write_that_waits() {
    let (there, here) = Tcp::io_pair().await;
    let writer = IoStream::new(here);
    let mut first = writer.write(vec![0; 20_000_000]);
    let second = writer.write("x");
    settle().await;
    assert!(poll_once(Pin::new(&mut first)).await.is_pending());
    there.set_linger(Some(Duration::ZERO)).unwrap();
    drop(there);
    let expected = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
    for write in [first, second, writer.write("y")] {
        let kind = real_error(write.await);
        assert!(expected.contains(&kind), "{kind:?}");
    }
    assert!(expected.contains(&writer.error().unwrap().kind()));
}
