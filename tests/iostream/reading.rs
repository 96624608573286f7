//! Reads: what they want, what they get, what they leave.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::io::{AsyncRead, AsyncWrite};
use futures::{FutureExt, StreamExt};
use waterspout::StreamError;
use waterspout::coroutine::{self, moment, with_timeout};
use waterspout::iostream::{IoStream, Options, ReadBufferFull, UnsatisfiableRead};
use waterspout::net::UnixStream;
use waterspout::testing::{self, ExpectLog};

use crate::{
    Counted, Kind, assert_clean_end, cancelled, on_every_transport, pattern, poll_once, settle,
    sizes,
};

on_every_transport!(
    reads_say_what_they_want_and_leave_the_rest,
    a_read_of_nothing_is_done_at_once,
    read_some_takes_what_is_there_up_to_what_was_asked,
    read_into_fills_the_buffer_and_keeps_what_is_beyond,
    read_some_into_takes_what_is_there_and_fits,
    a_delimiter_is_found_wherever_it_is_split,
    what_is_read_into_a_vector_is_appended_to_it,
    a_read_into_a_vector_that_does_not_end_well_leaves_it_as_it_was,
    long_and_short_lines_take_turns,
    a_delimiter_may_end_at_the_limit_and_not_beyond,
    a_match_that_comes_with_what_is_beyond_the_limit_does_not_count,
    a_delimiter_that_never_comes_closes_the_stream_at_the_limit,
    four_megabytes_before_a_delimiter,
    small_reads_take_no_more_than_the_buffer_may_hold,
    a_read_of_more_than_the_buffer_may_hold_closes_the_stream,
    the_writer_is_held_back_while_nobody_reads,
    a_second_read_is_refused_and_the_first_goes_on,
    a_read_that_is_done_does_not_stand_in_the_way_of_the_next,
    a_cancelled_read_of_any_kind_loses_nothing,
    a_read_that_runs_out_of_time_loses_nothing,
    a_read_keeps_its_stream_open,
    a_peer_that_sends_byte_by_byte_is_read,
    lines_come_without_their_ends,
    a_line_that_is_too_long_is_an_error_also_at_the_end,
    reads_of_all_kinds_and_sizes_take_turns,
    reading_what_has_arrived_already_lets_others_run,
);

/// Reads with `read_some` until `n` bytes are there: they may come in pieces.
async fn some(stream: &IoStream<impl waterspout::iostream::Transport>, n: usize) -> Vec<u8> {
    let mut got = Vec::new();
    while got.len() < n {
        let piece = stream.read_some(n - got.len()).await.unwrap();
        assert!(!piece.is_empty());
        got.extend(piece);
    }
    got
}

async fn reads_say_what_they_want_and_leave_the_rest<K: Kind>() {
    let (reader, writer) = K::pair().await;
    writer.write("hel");
    writer.write(b"lo world\n1234567890");
    assert_eq!(reader.read_until(" ", 100).await.unwrap(), b"hello ");
    assert_eq!(reader.read_bytes(3).await.unwrap(), b"wor");
    assert_eq!(reader.read_until(b"\n", 100).await.unwrap(), b"ld\n");
    let mut buf = [0; 2];
    reader.read_into(&mut buf).await.unwrap();
    assert_eq!(&buf, b"12");
    assert_eq!(reader.read_some(1).await.unwrap(), b"3");
    writer.close();
    assert_eq!(reader.read_until_close().await.unwrap(), b"4567890");
    assert_clean_end(reader.read_bytes(1).await);
    assert_eq!(reader.read_until_close().await.unwrap(), b"");
}

async fn a_read_of_nothing_is_done_at_once<K: Kind>() {
    let (reader, _writer) = K::pair().await;
    for _ in 0..2 {
        assert_eq!(reader.read_bytes(0).now_or_never().unwrap().unwrap(), b"");
        assert_eq!(reader.read_some(0).now_or_never().unwrap().unwrap(), b"");
        reader.read_into(&mut []).now_or_never().unwrap().unwrap();
        assert_eq!(reader.read_some_into(&mut []).now_or_never().unwrap().unwrap(), 0);
        assert_eq!(reader.read_until("", 10).now_or_never().unwrap().unwrap(), b"");
        // Also when it is closed.
        reader.close();
    }
}

async fn read_some_takes_what_is_there_up_to_what_was_asked<K: Kind>() {
    let (reader, writer) = K::pair().await;
    let reading = coroutine::start(reader.read_some(50));
    writer.write("hello");
    assert_eq!(reading.await.unwrap(), b"hello");
    let reading = coroutine::start(reader.read_some(3));
    writer.write("world");
    assert_eq!(reading.await.unwrap(), b"wor");
    assert_eq!(some(&reader, 2).await, b"ld");
    writer.close();
    assert_clean_end(reader.read_some(1).await);
}

async fn read_into_fills_the_buffer_and_keeps_what_is_beyond<K: Kind>() {
    let (reader, writer) = K::pair().await;
    let mut buf = [0; 10];
    {
        let mut read = std::pin::pin!(reader.read_into(&mut buf));
        assert!(poll_once(read.as_mut()).await.is_pending());
        assert!(reader.reading());
        writer.write("hello");
        settle().await;
        assert!(poll_once(read.as_mut()).await.is_pending());
        writer.write("world!!");
        read.await.unwrap();
    }
    assert!(!reader.reading());
    assert_eq!(&buf, b"helloworld");
    writer.write("1234567890");
    reader.read_into(&mut buf).await.unwrap();
    assert_eq!(&buf, b"!!12345678");
    reader.read_into(&mut buf[..2]).await.unwrap();
    assert_eq!(&buf, b"9012345678");
    // It ends before the buffer is full, and what came can still be read.
    writer.write("abc");
    writer.close();
    assert_clean_end(reader.read_into(&mut buf).await);
    assert_eq!(reader.read_bytes(3).await.unwrap(), b"abc");
}

async fn read_some_into_takes_what_is_there_and_fits<K: Kind>() {
    let (reader, writer) = K::pair().await;
    let mut buf = [0; 10];
    writer.write("hello");
    assert_eq!(reader.read_some_into(&mut buf).await.unwrap(), 5);
    assert_eq!(&buf, b"hello\0\0\0\0\0");
    writer.write("world!1234567890");
    assert_eq!(reader.read_bytes(0).await.unwrap(), b"");
    let mut got = Vec::new();
    while got.len() < 16 {
        let n = reader.read_some_into(&mut buf).await.unwrap();
        assert!((1..=10).contains(&n));
        got.extend_from_slice(&buf[..n]);
    }
    assert_eq!(got, b"world!1234567890");
}

async fn a_delimiter_is_found_wherever_it_is_split<K: Kind>() {
    let message = b"a\r\n\r\r\n\r\n";
    for read_chunk_size in [1, 2, 3, 64] {
        let options = Options { read_chunk_size, ..Options::default() };
        let (reader, writer) = K::pair_with(options).await;
        for cut in 0..=message.len() {
            let (first, second) = message.split_at(cut);
            let reading = coroutine::start(reader.read_until("\r\n\r\n", 9));
            writer.write(first);
            settle().await;
            writer.write(second);
            writer.write("rest");
            assert_eq!(reading.await.unwrap(), message, "{read_chunk_size}, {cut}");
            assert_eq!(reader.read_bytes(4).await.unwrap(), b"rest");
        }
    }
}

async fn what_is_read_into_a_vector_is_appended_to_it<K: Kind>() {
    let (reader, writer) = K::pair().await;
    let mut got = b"before ".to_vec();
    let message = b"one\r\n\ntwo\r\n";
    for cut in 0..=message.len() {
        writer.write(&message[..cut]);
        settle().await;
        let send_rest = async {
            settle().await;
            writer.write(&message[cut..]);
        };
        let reading = reader.read_until_into("\r\n", 100, &mut got);
        assert_eq!(futures::join!(reading, send_rest).0.unwrap(), 5);
        assert_eq!(reader.read_until_into(b"\n", 100, &mut got).await.unwrap(), 1);
        assert_eq!(reader.read_until_into("\r\n", 100, &mut got).await.unwrap(), 5);
        assert_eq!(got, [b"before ", &message[..]].concat(), "{cut}");
        got.truncate(7);
    }
    writer.write("rest");
    drop(writer);
    assert_eq!(reader.read_until_close_into(&mut got).await.unwrap(), 4);
    assert_eq!(reader.read_until_close_into(&mut got).await.unwrap(), 0);
    assert_eq!(got, b"before rest");
}

async fn a_read_into_a_vector_that_does_not_end_well_leaves_it_as_it_was<K: Kind>() {
    let _log = ExpectLog::new("waterspout", "what was to be read").level(log::Level::Info);
    let (reader, writer) = K::pair().await;
    let mut got = b"before".to_vec();
    let send = || drop(writer.write("half a line"));
    cancelled(reader.read_until_into("\n", 100, &mut got), send).await;
    cancelled(reader.read_until_close_into(&mut got), || {}).await;
    assert!(reader.read_until_into("\n", 11, &mut got).await.is_err());
    assert!(reader.is_closed());
    assert!(reader.read_until_into("\n", 100, &mut got).await.is_err());
    assert!(reader.read_until_close_into(&mut got).await.is_err());
    assert_eq!(got, b"before");
    assert_eq!(reader.read_bytes(11).await.unwrap(), b"half a line");
}

async fn long_and_short_lines_take_turns<K: Kind>() {
    let (reader, writer) = K::pair().await;
    const LENGTHS: [usize; 9] = [1, 20, 70_000, 2, 65_536, 65_535, 200_000, 20, 32_768];
    let lengths = || LENGTHS.into_iter().cycle().take(90);
    let writing = coroutine::start(async move {
        for len in lengths() {
            let mut line = pattern(len);
            line.iter_mut().for_each(|byte| *byte |= 128);
            line[len - 1] = b'\n';
            writer.write(line).await.unwrap();
        }
    });
    let mut line = Vec::new();
    for (n, len) in lengths().enumerate() {
        line.clear();
        match n % 2 {
            0 => assert_eq!(reader.read_until_into("\n", 1 << 20, &mut line).await.unwrap(), len),
            _ => line = reader.read_until("\n", 1 << 20).await.unwrap(),
        }
        assert_eq!((line.len(), line.pop()), (len, Some(b'\n')));
        let sent = pattern(len);
        assert!(line.iter().zip(sent).all(|(got, sent)| *got == sent | 128), "line {n}");
    }
    writing.await;
}

/// The read closed the stream because it could not have what it wanted within `max_bytes`.
fn assert_unsatisfiable(result: Result<Vec<u8>, StreamError>, max_bytes: usize) {
    let error = result.unwrap_err();
    let source = error.real_error().and_then(|error| error.get_ref()).unwrap();
    assert_eq!(source.downcast_ref(), Some(&UnsatisfiableRead { max_bytes }));
}

async fn a_delimiter_may_end_at_the_limit_and_not_beyond<K: Kind>() {
    // What was sent before the read, and after.
    for (before, after) in [("abcdef", ""), ("", "abcdef"), ("abcd", "ef")] {
        let (reader, writer) = K::pair().await;
        for max_bytes in [50, 6] {
            writer.write(before);
            settle().await;
            let reading = coroutine::start(reader.read_until("def", max_bytes));
            writer.write(after);
            assert_eq!(reading.await.unwrap(), b"abcdef");
        }
        let _log = ExpectLog::new("waterspout", "what was to be read").level(log::Level::Info);
        writer.write(before);
        settle().await;
        let reading = coroutine::start(reader.read_until("def", 5));
        writer.write(after);
        assert_unsatisfiable(reading.await, 5);
        assert!(reader.is_closed());
        let error = reader.error().unwrap();
        assert!(error.get_ref().unwrap().is::<UnsatisfiableRead>());
        // What had arrived is still there.
        assert_eq!(reader.read_bytes(5).await.unwrap(), b"abcde");
    }
}

#[cfg(feature = "regex")]
mod with_regex {
    use super::*;
    use regex::bytes::Regex;

    on_every_transport!(
        a_regex_is_found_wherever_it_is_split,
        a_regex_may_end_at_the_limit_and_not_beyond,
        a_regex_is_found_far_into_what_has_arrived_although_nothing_follows,
        a_regex_is_looked_for_before_the_stream_is_given_up,
    );

    #[waterspout::test]
    async fn what_matches_is_appended_to_a_vector() {
        let (one, other) = UnixStream::pair().unwrap();
        let (reader, writer) = (IoStream::new(one), IoStream::new(other));
        let (regex, mut got) = (Regex::new(r"\r?\n").unwrap(), Vec::new());
        writer.write("ab\r\nc\nd");
        assert_eq!(reader.read_until_regex_into(&regex, 100, &mut got).await.unwrap(), 4);
        assert_eq!(reader.read_until_regex_into(&regex, 100, &mut got).await.unwrap(), 2);
        cancelled(reader.read_until_regex_into(&regex, 100, &mut got), || {}).await;
        assert_eq!(got, b"ab\r\nc\n");
        assert_eq!(reader.read_bytes(1).await.unwrap(), b"d");
    }

    async fn a_regex_is_found_wherever_it_is_split<K: Kind>() {
        let regex = Regex::new(r"\r?\n\r?\n").unwrap();
        for message in [&b"headers\r\n\r\n"[..], b"headers\n\n"] {
            let (reader, writer) = K::pair().await;
            for cut in 0..=message.len() {
                let (first, second) = message.split_at(cut);
                let reading = coroutine::start(reader.read_until_regex(&regex, 50));
                writer.write(first);
                settle().await;
                writer.write(second);
                writer.write("rest");
                assert_eq!(reading.await.unwrap(), message);
                assert_eq!(reader.read_bytes(4).await.unwrap(), b"rest");
            }
        }
    }

    async fn a_regex_is_found_far_into_what_has_arrived_although_nothing_follows<K: Kind>() {
        let (reader, writer) = K::pair().await;
        let regex = Regex::new("b+c").unwrap();
        let reading = coroutine::start(reader.read_until_regex(&regex, 1_000_000));
        writer.write(vec![b'a'; 100_000]).await.unwrap();
        for piece in ["b", "b", "bc"] {
            settle().await;
            assert!(!reading.done());
            writer.write(piece);
        }
        assert_eq!(reading.await.unwrap().len(), 100_004);
    }

    async fn a_regex_is_looked_for_before_the_stream_is_given_up<K: Kind>() {
        let regex = Regex::new("bc").unwrap();
        let message = [vec![b'a'; 9_000], b"bc".to_vec()].concat();
        // The end comes with the match, or the limit of the buffer or of the read does.
        for (max_bytes, max_buffer_size) in
            [(1_000_000, 1_000_000), (9_002, 1_000_000), (1_000_000, 9_002)]
        {
            let options = Options { max_buffer_size, ..Options::default() };
            let (reader, writer) = K::pair_with(options).await;
            let reading = coroutine::start(reader.read_until_regex(&regex, max_bytes));
            writer.write(&message[..8_000]).await.unwrap();
            settle().await;
            writer.write(&message[8_000..]).await.unwrap();
            writer.close();
            assert_eq!(reading.await.unwrap(), message);
        }
    }

    async fn a_regex_may_end_at_the_limit_and_not_beyond<K: Kind>() {
        let regex = Regex::new("d.f").unwrap();
        for (before, after) in [("abcdef", ""), ("", "abcdef"), ("abcd", "ef")] {
            let (reader, writer) = K::pair().await;
            for max_bytes in [50, 6] {
                writer.write(before);
                settle().await;
                let reading = coroutine::start(reader.read_until_regex(&regex, max_bytes));
                writer.write(after);
                assert_eq!(reading.await.unwrap(), b"abcdef");
            }
            let _log = ExpectLog::new("waterspout", "what was to be read");
            writer.write(before);
            settle().await;
            let reading = coroutine::start(reader.read_until_regex(&regex, 5));
            writer.write(after);
            assert_unsatisfiable(reading.await, 5);
            assert!(reader.is_closed());
        }
    }
}

async fn a_match_that_comes_with_what_is_beyond_the_limit_does_not_count<K: Kind>() {
    let (reader, writer) = K::pair().await;
    writer.write("abcdef");
    writer.close();
    // Also when the stream has ended, and cannot be closed any more.
    reader.closed().await;
    assert_unsatisfiable(reader.read_until("def", 5).await, 5);
    assert!(reader.error().is_none());
    assert_eq!(reader.read_until("def", 6).await.unwrap(), b"abcdef");
}

async fn a_delimiter_that_never_comes_closes_the_stream_at_the_limit<K: Kind>() {
    let options = Options { read_chunk_size: 1000, ..Options::default() };
    let (reader, writer) = K::pair_with(options).await;
    let sending = coroutine::start(async move {
        let line = pattern(999).iter().map(|byte| byte | 128).collect::<Vec<_>>();
        loop {
            if let Err(error) = writer.write(&line).await {
                break error;
            }
        }
    });
    let _log = ExpectLog::new("waterspout", "what was to be read");
    assert_unsatisfiable(reader.read_until("\n", 100_000).await, 100_000);
    // No more than a chunk beyond was taken, and who sends is told.
    assert!(reader.read_bytes(101_000).await.is_err());
    sending.await;
}

async fn four_megabytes_before_a_delimiter<K: Kind>() {
    // Were all looked at again with each chunk, it would be more than 100 GB.
    let options = Options { read_chunk_size: 64, ..Options::default() };
    let (reader, writer) = K::pair_with(options).await;
    for _ in 0..4096 {
        writer.write([b'A'; 1024]);
    }
    writer.write("\r\n");
    let read = reader.read_until("\r\n", usize::MAX).await.unwrap();
    assert_eq!(read.len(), 4096 * 1024 + 2);
}

async fn small_reads_take_no_more_than_the_buffer_may_hold<K: Kind>() {
    let options = Options { max_buffer_size: 10 * 1024, ..Options::default() };
    let (reader, writer) = K::pair_with(options).await;
    let line = [&[b'a'; 1023][..], b"\n"].concat();
    writer.write(line.repeat(200));
    for _ in 0..100 {
        assert_eq!(reader.read_bytes(1024).await.unwrap(), line);
        assert_eq!(reader.read_until("\n", 4096).await.unwrap(), line);
    }
}

async fn a_read_of_more_than_the_buffer_may_hold_closes_the_stream<K: Kind>() {
    let options = Options { max_buffer_size: 1000, ..Options::default() };
    let full = |result: Result<Vec<u8>, StreamError>| {
        let error = result.unwrap_err();
        let source = error.real_error().and_then(|error| error.get_ref()).unwrap();
        assert_eq!(source.downcast_ref(), Some(&ReadBufferFull { max_buffer_size: 1000 }));
    };
    let log = ExpectLog::new("waterspout", "the read buffer is full");
    let (reader, _writer) = K::pair_with(options).await;
    full(reader.read_bytes(1001).await);
    assert!(reader.is_closed());

    let (reader, writer) = K::pair_with(options).await;
    writer.write([7; 2001]);
    assert_eq!(reader.read_bytes(1000).await.unwrap(), [7; 1000]);
    full(reader.read_until("x", usize::MAX).await);
    assert_eq!(reader.read_bytes(1000).await.unwrap(), [7; 1000]);

    let (reader, writer) = K::pair_with(options).await;
    writer.write([7; 2000]);
    drop(writer);
    full(reader.read_until_close().await);
    assert_eq!(log.count(), 3);

    // As much as it may hold is not too much.
    let (reader, writer) = K::pair_with(options).await;
    writer.write([7; 1000]);
    drop(writer);
    assert_eq!(reader.read_until_close().await.unwrap(), [7; 1000]);
}

async fn the_writer_is_held_back_while_nobody_reads<K: Kind>() {
    const MB: usize = 1024 * 1024;
    let (reader, writer) = K::pair().await;
    let mut written = writer.write(pattern(24 * MB));
    let mut got = reader.read_bytes(MB).await.unwrap();
    settle().await;
    assert!(writer.writing());
    assert!((&mut written).now_or_never().is_none());
    while got.len() < 24 * MB {
        got.extend(reader.read_bytes(MB).await.unwrap());
    }
    written.await.unwrap();
    assert!(!writer.writing());
    assert!(got == pattern(24 * MB));
}

#[waterspout::test(timeout = 60.0)]
async fn a_read_takes_at_most_a_chunk_beyond_what_it_wants() {
    let (one, mut other) = testing::duplex(1_000_000);
    let (io, counts) = Counted::new(one);
    let options = Options { read_chunk_size: 4096, ..Options::default() };
    let reader = IoStream::with_options(io, options);
    futures::AsyncWriteExt::write_all(&mut other, &[b'a'; 1_000_000]).await.unwrap();
    for n in [1, 5000, 10, 4096] {
        let had = counts.read.get();
        reader.read_bytes(n).await.unwrap();
        assert!(counts.read.get() - had < n + 4096);
        settle().await;
    }
    assert!(counts.largest_buffer.get() <= 4096);
    // Watching for the close takes no more than a chunk either.
    reader.set_close_callback(|| ());
    settle().await;
    assert!(counts.read.get() <= 1 + 5000 + 10 + 4096 + 4096);
}

#[waterspout::test(timeout = 60.0)]
async fn a_chunk_is_at_most_half_of_what_the_buffer_may_hold() {
    let (one, mut other) = testing::duplex(1_000_000);
    let (io, counts) = Counted::new(one);
    let reader = IoStream::with_options(io, Options { max_buffer_size: 100, ..Options::default() });
    futures::AsyncWriteExt::write_all(&mut other, &[b'a'; 1000]).await.unwrap();
    assert_eq!(reader.read_bytes(100).await.unwrap(), [b'a'; 100]);
    assert_eq!(counts.largest_buffer.get(), 50);
}

async fn a_second_read_is_refused_and_the_first_goes_on<K: Kind>() {
    let (reader, writer) = K::pair().await;
    let first = coroutine::start(reader.read_bytes(4));
    let second = reader.read_until("x", 10).await;
    assert!(matches!(second, Err(StreamError::AlreadyReading)), "{second:?}");
    let second = reader.clone().read_bytes(0).await;
    assert!(matches!(second, Err(StreamError::AlreadyReading)), "{second:?}");
    writer.write("abcd");
    assert_eq!(first.await.unwrap(), b"abcd");
    assert!(!reader.is_closed());
}

async fn a_read_that_is_done_does_not_stand_in_the_way_of_the_next<K: Kind>() {
    let (reader, writer) = K::pair().await;
    writer.write("abcd");
    let mut first = std::pin::pin!(reader.read_bytes(2));
    assert_eq!(first.as_mut().await.unwrap(), b"ab");
    assert!(!reader.reading());
    assert_eq!(reader.read_bytes(2).await.unwrap(), b"cd");
    let (_, second) = (reader.read_bytes(1), reader.read_bytes(0));
    assert_eq!(second.await.unwrap(), b"");
}

async fn a_cancelled_read_of_any_kind_loses_nothing<K: Kind>() {
    let (reader, writer) = K::pair().await;
    let whole = pattern(100).iter().map(|byte| byte | 128).collect::<Vec<_>>();
    let (first, rest) = whole.split_at(40);
    let send = || drop(writer.write(first));
    for kind in 0.. {
        match kind {
            0 => cancelled(reader.read_bytes(100), send).await,
            1 => cancelled(reader.read_into(&mut [0; 100]), send).await,
            2 => cancelled(reader.read_until("\n", 1000), send).await,
            3 => cancelled(reader.read_until_close(), send).await,
            4 => cancelled(reader.lines(1000).next(), send).await,
            // These are woken by what they would take, and are dropped before they do.
            5 => cancelled(reader.read_some(100), send).await,
            6 => cancelled(reader.read_some_into(&mut [0; 100]), send).await,
            _ => break,
        }
        assert!(!reader.reading());
        writer.write(rest);
        assert_eq!(reader.read_bytes(100).await.unwrap(), whole, "{kind}");
    }
}

async fn a_read_that_runs_out_of_time_loses_nothing<K: Kind>() {
    let (reader, writer) = K::pair().await;
    for byte in pattern(50) {
        assert!(with_timeout(Duration::ZERO, reader.read_bytes(50)).await.is_err());
        futures::select_biased! {
            () = moment() => {}
            read = reader.read_bytes(50) => panic!("{read:?}"),
            () = reader.closed() => panic!("it is not closed"),
        }
        writer.write([byte]).await.unwrap();
    }
    assert_eq!(reader.read_bytes(50).await.unwrap(), pattern(50));
}

async fn a_read_keeps_its_stream_open<K: Kind>() {
    let (reader, writer) = K::pair().await;
    let reading = coroutine::start(reader.read_bytes(3));
    drop(reader);
    settle().await;
    writer.write("abc");
    assert_eq!(reading.await.unwrap(), b"abc");
    writer.closed().await;
}

async fn a_peer_that_sends_byte_by_byte_is_read<K: Kind>() {
    let (reader, writer) = K::pair().await;
    let sent = pattern(1000).iter().map(|byte| byte | 128).collect::<Vec<_>>();
    let bytes = [&sent[..], b"\n"].concat();
    let expected = bytes.clone();
    let sending = coroutine::start(async move {
        for byte in bytes {
            writer.write([byte]).await.unwrap();
            moment().await;
        }
    });
    assert_eq!(reader.read_until("\n", 1001).await.unwrap(), expected);
    sending.await;
    assert_clean_end(reader.read_bytes(1).await);
}

async fn lines_come_without_their_ends<K: Kind>() {
    for read_chunk_size in [1, 64] {
        let options = Options { read_chunk_size, ..Options::default() };
        let (reader, writer) = K::pair_with(options).await;
        writer.write("one\ntwo\r\n\n\r\n\rthree\r\r\nlast");
        writer.close();
        let lines: Vec<_> = reader.lines(10).map(Result::unwrap).collect().await;
        let expected: [&[u8]; 6] = [b"one", b"two", b"", b"", b"\rthree\r", b"last"];
        assert_eq!(lines, expected);
        assert_eq!(reader.lines(10).count().await, 0);
    }
    let (reader, writer) = K::pair().await;
    writer.write("one\n");
    writer.close();
    let lines: Vec<_> = reader.lines(10).map(Result::unwrap).collect().await;
    assert_eq!(lines, [b"one"]);
}

async fn a_line_that_is_too_long_is_an_error_also_at_the_end<K: Kind>() {
    for (sent, ended) in [("one\ntoo long\nfour\n", false), ("one\ntoo long", true)] {
        let (reader, writer) = K::pair().await;
        writer.write(sent);
        if ended {
            writer.close();
            reader.closed().await;
        }
        // It closes the stream, if that is open.
        let log = ExpectLog::new("waterspout", "what was to be read").optional();
        let mut lines = reader.lines(5);
        assert_eq!(lines.next().await.unwrap().unwrap(), b"one");
        assert_unsatisfiable(lines.next().await.unwrap(), 5);
        assert!(lines.next().await.is_none());
        assert_eq!(log.count(), usize::from(!ended));
    }
}

async fn reads_of_all_kinds_and_sizes_take_turns<K: Kind>() {
    const TOTAL: usize = 500_000;
    let (reader, writer) = K::pair().await;
    let sending = coroutine::start(async move {
        let bytes = pattern(TOTAL);
        let mut rest = &bytes[..];
        for size in sizes(1000) {
            let (piece, more) = rest.split_at(size.min(rest.len()));
            writer.write(piece).await.unwrap();
            rest = more;
            if rest.is_empty() {
                break;
            }
        }
    });
    let mut got = Vec::new();
    for (n, size) in sizes(2000).enumerate() {
        let size = size.min(TOTAL - got.len());
        let mut buf = vec![0; size];
        match n % 5 {
            0 => got.extend(reader.read_bytes(size).await.unwrap()),
            1 => got.extend(reader.read_some(size).await.unwrap()),
            2 => {
                reader.read_into(&mut buf).await.unwrap();
                got.extend(buf);
            }
            3 => {
                let n = reader.read_some_into(&mut buf).await.unwrap();
                got.extend_from_slice(&buf[..n]);
            }
            // `pattern` has every byte within 256.
            _ if TOTAL - got.len() > 1000 => {
                got.extend(reader.read_until([77], 600).await.unwrap());
            }
            _ => {}
        }
        if got.len() == TOTAL {
            break;
        }
    }
    sending.await;
    assert!(got == pattern(TOTAL));
    assert_clean_end(reader.read_bytes(1).await);
}

async fn reading_what_has_arrived_already_lets_others_run<K: Kind>() {
    const LINES: usize = 4_000;
    let (reader, writer) = K::pair().await;
    let written = writer.write(vec![b'\n'; LINES]);
    // All of it is in the stream, and stays there.
    cancelled(reader.read_bytes(LINES + 1), || ()).await;
    written.await.unwrap();
    let (count, counted) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let counts = count.clone();
    let stream = reader.clone();
    drop(coroutine::spawn(async move {
        while stream.read_until("\n", 9).await.is_ok() {
            counts.set(counts.get() + 1);
        }
    }));
    while count.get() < LINES {
        moment().await;
        let lines = count.get() - counted.replace(count.get());
        assert!(lines <= 300, "{lines} lines in one resumption");
    }
    // Nor does who asks a closed stream again and again keep the others from running.
    reader.close();
    let stop = Rc::new(Cell::new(false));
    let stopped = stop.clone();
    let asking = coroutine::spawn(async move {
        let asked = (0..1_000_000).map(async |_| reader.read_bytes(1).await.unwrap_err());
        for ask in asked {
            ask.await;
            if stopped.get() {
                return true;
            }
        }
        false
    });
    moment().await;
    stop.set(true);
    assert!(asking.await, "nobody else ever ran");
}

/// A transport that looks at the buffers that it is given, and may claim to have read more than they hold.
struct Curious {
    io: UnixStream,
    seen: Rc<Cell<usize>>,
    claims: usize,
}

impl AsyncRead for Curious {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let others = buf.iter().filter(|&&byte| byte != 0).count();
        self.seen.set(self.seen.get() + others);
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        Poll::Ready(Ok(read + self.claims))
    }
}

impl AsyncWrite for Curious {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_close(cx)
    }
}

#[waterspout::test]
async fn a_transport_is_shown_no_bytes_of_other_connections() {
    let (here, there) = UnixStream::pair().unwrap();
    let (secret, peer) = UnixStream::pair().unwrap();
    let seen = Rc::new(Cell::new(0));
    let curious = IoStream::new(Curious { io: here, seen: seen.clone(), claims: 0 });
    for round in 1..=3 {
        // By a buffer that the loop lends directly, and by a stream.
        peer.write_all(&pattern(3000 * round)).await.unwrap();
        drop(secret.read_lent().await.unwrap());
        peer.write_all(b"less").await.unwrap();
        drop(secret.read_lent().await.unwrap());
        there.write_all(&[b'x'; 10]).await.unwrap();
        assert_eq!(curious.read_bytes(10).await.unwrap(), [b'x'; 10]);
    }
    let (other, other_peer) = UnixStream::pair().unwrap();
    let other = IoStream::new(other);
    other_peer.write_all(&pattern(5000)).await.unwrap();
    other.read_bytes(5000).await.unwrap();
    there.write_all(b"y").await.unwrap();
    assert_eq!(curious.read_bytes(1).await.unwrap(), b"y");
    assert_eq!(seen.get(), 0);
}

#[waterspout::test]
async fn a_transport_that_claims_more_than_the_buffer_holds_is_not_believed() {
    let (here, there) = UnixStream::pair().unwrap();
    let (secret, peer) = UnixStream::pair().unwrap();
    peer.write_all(&pattern(3000)).await.unwrap();
    drop(secret.read_lent().await.unwrap());
    let options = Options { read_chunk_size: 100, ..Options::default() };
    let liar = Curious { io: here, seen: Rc::default(), claims: 100 };
    let liar = IoStream::with_options(liar, options);
    there.write_all(b"x").await.unwrap();
    let error = liar.read_bytes(1).await.unwrap_err();
    let StreamError::Closed(Some(error)) = error else { panic!("{error:?}") };
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}
