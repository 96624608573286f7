//! What tests are made of: streams in memory, ports, what is expected in the log.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::thread;

use futures::FutureExt;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use log::{Level, Log, Metadata, Record};
use waterspout::coroutine::{self, moment};
use waterspout::testing::{self, ExpectLog, Logger};

// ---------------------------------------------------------------------------------------------
// Streams

#[waterspout::test(timeout = 60.0)]
async fn a_stream_in_memory_holds_its_capacity_and_no_more() {
    let (mut one, mut other) = testing::duplex(3);
    assert_eq!(one.write(b"abcdef").await.unwrap(), 3);
    assert_eq!(other.arrived(), 3);
    assert!(one.write(b"d").now_or_never().is_none());
    assert_eq!(other.read(&mut [0; 1]).await.unwrap(), 1);
    assert_eq!(one.write(b"def").await.unwrap(), 1);
    // The other direction has room of its own.
    assert_eq!(other.write(b"xyz").await.unwrap(), 3);
    // Of no capacity, it could not do anything.
    assert_eq!(testing::duplex(0).0.write(b"ab").now_or_never().unwrap().unwrap(), 1);
}

#[waterspout::test(timeout = 60.0)]
async fn a_stream_in_memory_ends_after_what_was_written() {
    let (mut one, mut other) = testing::duplex(100);
    one.write_all(b"last").await.unwrap();
    one.close().await.unwrap();
    assert_eq!(one.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    let mut heard = String::new();
    other.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "last");
    other.write_all(b"answer").await.unwrap();
    drop(other);
    one.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "lastanswer");
}

#[waterspout::test(timeout = 60.0)]
async fn a_stream_in_memory_tells_a_writer_that_its_reader_has_gone() {
    let (mut one, other) = testing::duplex(2);
    let writing = coroutine::start(async move { one.write_all(b"abc").await });
    moment().await;
    assert!(!writing.done());
    drop(other);
    assert_eq!(writing.await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn a_stream_in_memory_connects_threads() {
    use waterspout::IoLoop;
    let (mut one, mut other) = testing::duplex(10);
    let sender = thread::spawn(move || {
        IoLoop::new().unwrap().run_sync(|| async { one.write_all(&[7; 10_000]).await }).unwrap()
    });
    let mut got = Vec::new();
    let io_loop = IoLoop::new().unwrap();
    io_loop.run_sync(|| async { other.read_to_end(&mut got).await }).unwrap().unwrap();
    sender.join().unwrap().unwrap();
    assert_eq!(got, [7; 10_000]);
}

#[waterspout::test(timeout = 60.0)]
async fn a_tcp_pair_is_connected_to_itself() {
    let (one, other) = testing::tcp_pair().await.unwrap();
    assert_eq!(one.local_addr().unwrap(), other.peer_addr().unwrap());
    assert_eq!(other.local_addr().unwrap(), one.peer_addr().unwrap());
}

#[test]
fn an_unused_port_is_free_and_bound() {
    let (listener, port) = testing::bind_unused_port().unwrap();
    assert_eq!(listener.local_addr().unwrap().port(), port);
    assert_ne!(port, 0);
    let again = std::net::TcpListener::bind(("127.0.0.1", port));
    assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AddrInUse);
}

// ---------------------------------------------------------------------------------------------
// The log. Tests run at the same time: each logs to a target of its own.

/// What was passed on.
struct Passed;

static PASSED: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

impl Log for Passed {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Info
    }

    fn log(&self, record: &Record<'_>) {
        let line = (record.target().into(), record.args().to_string());
        PASSED.lock().unwrap().push(line);
    }

    fn flush(&self) {}
}

fn passed(target: &str) -> Vec<String> {
    let passed = PASSED.lock().unwrap();
    passed.iter().filter(|(of, _)| of == target).map(|(_, message)| message.clone()).collect()
}

/// The message of the panic when it is dropped.
fn fails(expected: ExpectLog) -> Option<String> {
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(expected)));
    dropped.err().map(|panic| *panic.downcast::<String>().unwrap())
}

#[test]
fn what_is_expected_is_kept_from_the_log_and_the_rest_is_passed_on() {
    Logger::install(Passed);
    let expected = ExpectLog::new("kept", "it broke");
    log::warn!(target: "kept", "it broke: badly");
    log::warn!(target: "kept", "and it broke");
    log::warn!(target: "keptnot", "it broke elsewhere");
    assert_eq!(expected.count(), 1);
    assert_eq!(passed("kept"), ["and it broke"]);
    assert_eq!(passed("keptnot"), ["it broke elsewhere"]);
    assert_eq!(fails(expected), None);
    log::warn!(target: "kept", "it broke again");
    assert_eq!(passed("kept"), ["and it broke", "it broke again"]);
}

#[test]
fn what_is_expected_and_does_not_come_is_a_failure() {
    Logger::install(Passed);
    let failed = fails(ExpectLog::new("nothing", "it broke")).unwrap();
    assert!(failed.contains("\"nothing\"") && failed.contains("\"it broke\""), "{failed}");
    assert!(failed.contains("tests/testing.rs"), "{failed}");
    assert_eq!(fails(ExpectLog::new("nothing", "it broke").optional()), None);
    // One panic is enough.
    let panic = catch_unwind(|| {
        let _expected = ExpectLog::new("nothing", "it broke");
        panic!("first");
    });
    assert_eq!(*panic.unwrap_err().downcast::<&str>().unwrap(), "first");
}

#[test]
fn a_target_holds_the_modules_within() {
    Logger::install(Passed);
    let expected = ExpectLog::new("outer", "");
    log::info!(target: "outer::inner", "one");
    log::info!(target: "outer", "two");
    log::info!(target: "outermost", "three");
    assert_eq!(expected.count(), 2);
    let all = ExpectLog::new("", "four");
    log::info!(target: "anything", "four");
    assert_eq!(all.count(), 1);
}

#[test]
fn a_level_can_be_expected_also_one_that_is_not_logged() {
    Logger::install(Passed);
    let expected = ExpectLog::new("level", "it").level(Level::Trace);
    log::info!(target: "level", "it is info");
    log::debug!(target: "level", "it is debug");
    log::trace!(target: "level", "it is trace");
    assert_eq!(expected.count(), 1);
    assert_eq!(passed("level"), ["it is info"]);
}

#[cfg(feature = "regex")]
#[test]
fn a_regex_has_to_match_at_the_start() {
    Logger::install(Passed);
    let expected = ExpectLog::new("regex", regex::Regex::new(r"code [0-9]+").unwrap());
    log::info!(target: "regex", "code 12 is bad");
    log::info!(target: "regex", "bad code 12, code 13");
    assert_eq!(expected.count(), 1);
    let missing = ExpectLog::new("regex", regex::Regex::new("never.*").unwrap());
    assert!(fails(missing).unwrap().contains("/never.*/"));
}

#[test]
fn the_innermost_of_several_that_match_counts() {
    Logger::install(Passed);
    let outer = ExpectLog::new("nested", "it");
    let inner = ExpectLog::new("nested", "it broke").optional();
    log::info!(target: "nested", "it broke");
    log::info!(target: "nested", "it did not break");
    assert_eq!((outer.count(), inner.count()), (1, 1));
    // The outer may go first.
    drop(outer);
    log::info!(target: "nested", "it broke");
    assert_eq!(inner.count(), 2);
}

#[test]
fn other_threads_have_their_own_expectations() {
    Logger::install(Passed);
    let expected = ExpectLog::new("threads", "it").optional();
    thread::spawn(|| log::info!(target: "threads", "it is elsewhere")).join().unwrap();
    assert_eq!(expected.count(), 0);
    assert_eq!(passed("threads"), ["it is elsewhere"]);
}

#[waterspout::test(timeout = 60.0)]
async fn an_expectation_is_held_while_awaiting() {
    Logger::install(Passed);
    let expected = ExpectLog::new("waterspout", "exception in");
    waterspout::IoLoop::current().spawn_callback(|| async { Err::<(), _>("lost") });
    moment().await;
    moment().await;
    assert_eq!(expected.count(), 1);
}
