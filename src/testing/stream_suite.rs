//! `stream_suite`: a test of what any byte stream has to do, which any byte stream can be put through.
//!
//! Wherever reading has to wake writing, or the other way around, the two are separate coroutines: within one
//! task, a wake-up that is missing would not be noticed.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::panic::Location;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::suite::{self, Checked, ensure, poll_once, settle};
use crate::coroutine::{self, Coroutine};
use crate::iostream::Transport as Stream;

/// In bytes: a stream that takes more than this while nobody reads has no back pressure.
const ENDLESS: usize = 256 * 1024 * 1024;
/// In bytes: more than the buffers of one direction hold.
const LARGE: usize = 3 * 1024 * 1024 + 17;

/// Runs a check as a coroutine of its name: on a new pair, and then on another new one with the ends
/// exchanged.
macro_rules! both_ways {
    ($suite:expr, $name:literal, $check:ident) => {{
        let (one, other) = ($suite.make_pair)().await;
        $suite.run(concat!("stream suite: ", $name), $check(one, other)).await;
        let (one, other) = ($suite.make_pair)().await;
        $suite.run(concat!("stream suite, other way: ", $name), $check(other, one)).await;
    }};
}

/// Tests what every byte stream has to do: that the bytes arrive, and in order; partial reads; the end of the
/// stream; back pressure; that waiting readers and writers are woken; reads that are cancelled; a large
/// transfer.
///
/// `make_pair` makes the two ends of a connection, of the current loop. It is called anew for each check, and
/// each check is done in both directions. trio: `check_two_way_stream`.
///
/// # Panics
///
/// If something is wrong, with the name of the check and what that is. If a wake-up is missing, the check
/// hangs: so run it in a [`#[waterspout::test]`](macro@crate::test), whose time limit lists the coroutine of
/// the check among those that are stuck.
///
/// ```
/// use waterspout::{IoLoop, testing};
///
/// IoLoop::new()?.run_sync(|| testing::stream_suite(async || testing::duplex(1000)))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[track_caller]
pub fn stream_suite<A, B>(make_pair: impl AsyncFn() -> (A, B)) -> impl Future<Output = ()>
where
    A: AsyncRead + AsyncWrite + Unpin + 'static,
    B: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let suite = Suite { make_pair, called_at: Location::caller() };
    async move {
        both_ways!(suite, "bytes arrive whole and in order", in_order);
        both_ways!(suite, "a read takes what is there and fits", partial_reads);
        both_ways!(suite, "vectored writes keep their order", vectored);
        both_ways!(suite, "a dropped stream ends after its last byte", end_by_drop);
        both_ways!(suite, "a closed stream ends after its last byte", end_by_close);
        both_ways!(suite, "a waiting reader is woken by bytes", reader_woken);
        both_ways!(suite, "a waiting reader is woken by the end", reader_woken_by_end);
        both_ways!(suite, "the waker of the last poll is the one that is woken", latest_waker);
        both_ways!(suite, "a cancelled read loses nothing", cancelled_read);
        both_ways!(suite, "writing waits while nobody reads", back_pressure);
        both_ways!(suite, "a waiting writer is told when the reader goes", writer_told);
        both_ways!(suite, "much goes both ways at once", large);
    }
}

/// Tests what [`stream_suite`] cannot ask of every stream: that closing one direction leaves the other one
/// open. trio: `check_half_closeable_stream`.
///
/// # Panics
///
/// As [`stream_suite`].
#[track_caller]
pub fn half_close_suite<A, B>(make_pair: impl AsyncFn() -> (A, B)) -> impl Future<Output = ()>
where
    A: AsyncRead + AsyncWrite + Unpin + 'static,
    B: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let suite = Suite { make_pair, called_at: Location::caller() };
    async move {
        both_ways!(suite, "closing one direction leaves the other", half_close);
        both_ways!(suite, "what was closed takes no more", write_after_close);
    }
}

struct Suite<M> {
    make_pair: M,
    called_at: &'static Location<'static>,
}

impl<M> Suite<M> {
    async fn run(&self, name: &'static str, check: impl Future<Output = Checked> + 'static) {
        suite::run(name, self.called_at, check).await;
    }
}

/// Words an I/O error that should not have come.
fn unexpected(doing: &'static str) -> impl Fn(io::Error) -> String {
    move |error| format!("{doing} failed: {error}")
}

/// Bytes that repeat only after a while, so that it shows if some are missing or come twice.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect()
}

/// Checks that these bytes are the same; if not, says where they begin to differ.
fn same(got: &[u8], sent: &[u8]) -> Checked {
    let differs = got.iter().zip(sent).position(|(got, sent)| got != sent);
    ensure(differs.is_none(), || format!("byte {} is another one", differs.unwrap_or_default()))?;
    ensure(got.len() == sent.len(), || {
        format!("{} bytes were sent and {} arrived", sent.len(), got.len())
    })
}

async fn read_some(stream: &mut impl Stream, at_most: usize) -> Result<Vec<u8>, String> {
    let mut buf = vec![0; at_most];
    let n = stream.read(&mut buf).await.map_err(unexpected("reading"))?;
    ensure(n <= at_most, || format!("a read into {at_most} bytes claims to have read {n}"))?;
    buf.truncate(n);
    Ok(buf)
}

async fn read_exact(stream: &mut impl Stream, n: usize) -> Result<Vec<u8>, String> {
    let mut buf = vec![0; n];
    stream.read_exact(&mut buf).await.map_err(unexpected("reading"))?;
    Ok(buf)
}

async fn write_all(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Checked {
    stream.write_all(bytes).await.map_err(unexpected("writing"))?;
    stream.flush().await.map_err(unexpected("flushing"))
}

/// Reads to the end, in pieces of `at_most` bytes at most, and checks that nothing comes after the end.
async fn read_to_end(stream: &mut impl Stream, at_most: usize) -> Result<Vec<u8>, String> {
    let mut got = Vec::new();
    loop {
        let piece = read_some(stream, at_most).await?;
        if piece.is_empty() {
            break;
        }
        got.extend(piece);
    }
    let after = read_some(stream, at_most).await?;
    ensure(after.is_empty(), || "there is something after the end".into())?;
    Ok(got)
}

/// A coroutine that writes `bytes`, and gives the stream back.
fn writing<S: Stream>(mut stream: S, bytes: Vec<u8>) -> Coroutine<Result<S, String>> {
    coroutine::start(async move {
        write_all(&mut stream, &bytes).await?;
        Ok(stream)
    })
}

async fn in_order(one: impl Stream, mut other: impl Stream) -> Checked {
    let sent: Vec<u8> = (0..=255).collect();
    let bytes = sent.clone();
    let sender = coroutine::start(async move {
        let mut one = one;
        for piece in bytes.chunks(3) {
            write_all(&mut one, piece).await?;
        }
        Ok::<_, String>(one)
    });
    same(&read_exact(&mut other, sent.len()).await?, &sent)?;
    let mut one = sender.await?;
    let answering = writing(other, b"answer".to_vec());
    same(&read_exact(&mut one, 6).await?, b"answer")?;
    answering.await.map(drop)
}

async fn partial_reads(one: impl Stream, mut other: impl Stream) -> Checked {
    let sender = writing(one, b"abcdef".to_vec());
    let first = read_some(&mut other, 1).await?;
    same(&first, b"a")?;
    let mut got = first;
    while got.len() < 6 {
        let piece = read_some(&mut other, 4).await?;
        ensure(!piece.is_empty(), || "an end where there is none".into())?;
        got.extend(piece);
    }
    same(&got, b"abcdef")?;
    sender.await.map(drop)
}

async fn vectored(one: impl Stream, mut other: impl Stream) -> Checked {
    let sender = coroutine::start(async move {
        let mut one = one;
        let all = b"one, two, three";
        let mut written = 0;
        while written < all.len() {
            let rest = &all[written..];
            let (first, second) = rest.split_at(rest.len() / 2);
            let slices = [IoSlice::new(first), IoSlice::new(b""), IoSlice::new(second)];
            let n = one.write_vectored(&slices).await.map_err(unexpected("writing"))?;
            ensure(n > 0, || "a vectored write wrote nothing".into())?;
            written += n;
        }
        one.flush().await.map_err(unexpected("flushing"))?;
        Ok::<_, String>(one)
    });
    same(&read_exact(&mut other, 15).await?, b"one, two, three")?;
    sender.await.map(drop)
}

async fn end_by_drop(one: impl Stream, mut other: impl Stream) -> Checked {
    let sender = coroutine::start(async move { writing(one, b"last".to_vec()).await.map(drop) });
    same(&read_to_end(&mut other, 3).await?, b"last")?;
    sender.await
}

async fn end_by_close(one: impl Stream, mut other: impl Stream) -> Checked {
    let sender = coroutine::start(async move {
        let mut one = writing(one, b"last".to_vec()).await?;
        one.close().await.map_err(unexpected("closing"))?;
        Ok::<_, String>(one)
    });
    same(&read_to_end(&mut other, 64).await?, b"last")?;
    drop(sender.await?);
    same(&read_to_end(&mut other, 64).await?, b"")
}

async fn reader_woken(one: impl Stream, other: impl Stream) -> Checked {
    let mut one = one;
    let reader = coroutine::start(async move {
        let mut other = other;
        let mut seen = Vec::new();
        while seen.len() < 2 {
            seen.extend(read_some(&mut other, 1).await?);
        }
        Ok::<_, String>((seen, other))
    });
    for byte in [b"a", b"b"] {
        settle().await;
        ensure(!reader.done(), || "a read ended without anything to read".into())?;
        write_all(&mut one, byte).await?;
    }
    same(&reader.await?.0, b"ab")
}

async fn reader_woken_by_end(one: impl Stream, other: impl Stream) -> Checked {
    let reader = coroutine::start(async move {
        let mut other = other;
        read_to_end(&mut other, 8).await
    });
    settle().await;
    ensure(!reader.done(), || "a read ended without anything to read".into())?;
    drop(one);
    same(&reader.await?, b"")
}

fn poll_byte(stream: &RefCell<impl Stream>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    Pin::new(&mut *stream.borrow_mut()).poll_read(cx, &mut [0; 1])
}

async fn latest_waker(one: impl Stream, other: impl Stream) -> Checked {
    let mut one = one;
    let other = Rc::new(RefCell::new(other));
    let early = poll_byte(&other, &mut Context::from_waker(Waker::noop()));
    ensure(early.is_pending(), || "a read ended without anything to read".into())?;
    let reading = other.clone();
    let reader = coroutine::start(async move { poll_fn(|cx| poll_byte(&reading, cx)).await });
    settle().await;
    write_all(&mut one, b"x").await?;
    let n = reader.await.map_err(unexpected("reading"))?;
    ensure(n == 1, || format!("a read of one byte gave {n}"))
}

async fn cancelled_read(one: impl Stream, mut other: impl Stream) -> Checked {
    let mut one = one;
    for round in 0..3 {
        let mut buf = [0; 8];
        {
            let mut read = other.read(&mut buf);
            let polled = poll_once(|cx| Pin::new(&mut read).poll(cx)).await;
            ensure(polled.is_pending(), || "a read ended without anything to read".into())?;
            if round == 1 {
                // In this round, the read is dropped only after the byte has arrived and the read was woken.
                write_all(&mut one, b"x").await?;
                settle().await;
            }
        }
        if round != 1 {
            write_all(&mut one, b"x").await?;
        }
        same(&read_exact(&mut other, 1).await?, b"x")?;
    }
    Ok(())
}

/// Writes until a write has to wait, and gives the number of bytes that were taken.
async fn fill(stream: &mut impl Stream) -> Result<usize, String> {
    let piece = pattern(64 * 1024);
    let mut taken = 0;
    loop {
        // This is done in a new resumption, since with a spent budget every write has to wait.
        settle().await;
        let from = taken % piece.len();
        match poll_once(|cx| Pin::new(&mut *stream).poll_write(cx, &piece[from..])).await {
            Poll::Ready(Ok(n)) => taken += n,
            Poll::Ready(Err(error)) => return Err(unexpected("writing")(error)),
            Poll::Pending => return Ok(taken),
        }
        ensure(taken < ENDLESS, || format!("{taken} bytes were taken while nobody reads"))?;
    }
}

async fn back_pressure(mut one: impl Stream, mut other: impl Stream) -> Checked {
    let taken = fill(&mut one).await?;
    ensure(taken > 0, || "not a byte is taken".into())?;
    let piece = pattern(64 * 1024);
    let mut sent: Vec<u8> = piece.iter().copied().cycle().take(taken).collect();
    let sender = coroutine::start(async move {
        write_all(&mut one, b"and the rest").await?;
        one.close().await.map_err(unexpected("closing"))?;
        Ok::<_, String>(one)
    });
    sent.extend(b"and the rest");
    settle().await;
    same(&read_to_end(&mut other, 5000).await?, &sent)?;
    sender.await.map(drop)
}

async fn writer_told(one: impl Stream, other: impl Stream) -> Checked {
    let writer = coroutine::start(async move {
        let mut one = one;
        let piece = vec![1; 64 * 1024];
        let mut taken = 0;
        while taken < ENDLESS {
            match one.write(&piece).await {
                Ok(n) => taken += n,
                Err(_) => return Ok(()),
            }
        }
        Err(format!("{taken} bytes were taken while nobody reads"))
    });
    settle().await;
    drop(other);
    writer.await
}

async fn large(one: impl Stream, other: impl Stream) -> Checked {
    fn echo(stream: impl Stream, sent: Rc<Vec<u8>>) -> Coroutine<Checked> {
        let (mut reader, mut writer) = stream.split();
        let sending = sent.clone();
        let sender = coroutine::start(async move {
            write_all(&mut writer, &sending).await?;
            Ok::<_, String>(writer)
        });
        coroutine::start(async move {
            let mut got = Vec::new();
            let mut buf = vec![0; 7777];
            while got.len() < sent.len() {
                let n = reader.read(&mut buf).await.map_err(unexpected("reading"))?;
                ensure(n > 0, || format!("an end after {} bytes", got.len()))?;
                got.extend_from_slice(&buf[..n]);
            }
            same(&got, &sent)?;
            // This side may still be sending. The check is over only when that has ended without an error.
            sender.await.map(drop)
        })
    }
    let sent = Rc::new(pattern(LARGE));
    let (one, other) = (echo(one, sent.clone()), echo(other, sent));
    one.await?;
    other.await
}

async fn half_close(one: impl Stream, mut other: impl Stream) -> Checked {
    let asking = coroutine::start(async move {
        let mut one = writing(one, b"question".to_vec()).await?;
        one.close().await.map_err(unexpected("closing"))?;
        Ok::<_, String>(one)
    });
    same(&read_to_end(&mut other, 64).await?, b"question")?;
    let mut one = asking.await?;
    let sender = coroutine::start(async move {
        let mut other = writing(other, pattern(LARGE)).await?;
        other.close().await.map_err(unexpected("closing"))
    });
    same(&read_to_end(&mut one, 9999).await?, &pattern(LARGE))?;
    sender.await
}

async fn write_after_close(mut one: impl Stream, _other: impl Stream) -> Checked {
    one.close().await.map_err(unexpected("closing"))?;
    let written = one.write(b"more").await;
    ensure(written.is_err(), || "a write is taken after closing".into())
}
