//! What the crate logs, and that the list of it at `ExpectLog` is right.

use std::cell::Cell;
use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::FutureExt;
use log::Level;
use waterspout::concurrent::promise;
use waterspout::coroutine::{TaskGroup, multi, spawn};
use waterspout::iostream::{IoStream, Options};
use waterspout::locks::Event;
use waterspout::queues::PriorityQueue;
use waterspout::testing::{ExpectLog, ExpectPanic, duplex, settle};
use waterspout::{Interest, IoLoop};

/// A row of the table: target, level and text.
type Row = (String, Level, String);

fn listed() -> Vec<Row> {
    let source = include_str!("../src/testing/expect_log.rs");
    let rows = source.lines().filter_map(|line| line.strip_prefix("/// | `waterspout::"));
    rows.map(|row| {
        let mut cells = row.split(" | ").map(|cell| cell.trim_matches(['`', ' ', '|']));
        let mut cell = || cells.next().unwrap().to_owned();
        (format!("waterspout::{}", cell()), cell().parse().unwrap(), cell())
    })
    .collect()
}

/// Panics when it is compared or dropped.
#[derive(PartialEq, Eq)]
struct Bomb(bool);

impl PartialOrd for Bomb {
    fn partial_cmp(&self, other: &Bomb) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Bomb {
    fn cmp(&self, _: &Bomb) -> std::cmp::Ordering {
        panic!("as asked")
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(!self.0, "as asked");
    }
}

fn a_callback_fails() {
    IoLoop::current().add_callback(|| panic!("as asked"));
}

/// What provokes each text.
fn provoked() -> [(&'static str, fn()); 16] {
    [
        ("exception in callback", a_callback_fails),
        ("exception in coroutine", || drop(spawn(async { panic!("as asked") }))),
        ("exception in coroutine of a task group", || {
            TaskGroup::independent().start(async { Err("as asked") });
        }),
        ("exception in the destructors of coroutine", || {
            let bomb = Bomb(true);
            let waits = spawn(async move {
                let _bomb = bomb;
                std::future::pending::<()>().await
            });
            IoLoop::current().add_callback(move || waits.cancel());
        }),
        ("exception in handler", || {
            let (mut one, other) = std::os::unix::net::UnixStream::pair().unwrap();
            one.write_all(b"x").unwrap();
            let fails_once = Cell::new(true);
            let handler = move |_: &_, _| assert!(!fails_once.take(), "as asked");
            let fd = other.as_raw_fd();
            let io_loop = IoLoop::current();
            io_loop.add_handler(other, Interest::READ, handler).unwrap();
            io_loop.add_callback(move || {
                IoLoop::current().add_callback(move || {
                    drop(one);
                    IoLoop::current().remove_handler(&fd);
                })
            });
        }),
        ("exception in a Future whose exception was never retrieved", || {
            let (promise, future) = promise::<()>();
            promise.set_exception("as asked");
            drop(future);
        }),
        ("exception in multi, which was dropped", || {
            let children = [
                async { Err::<(), _>("as asked") }.boxed_local(),
                std::future::pending().boxed_local(),
            ];
            assert!(multi(children).now_or_never().is_none());
        }),
        ("one more error of multi", || {
            let all = multi([1, 2].map(|n| async move { Err::<(), _>(n) }));
            drop(spawn(async move { assert!(all.await.is_err()) }));
        }),
        ("exception in waker", || {
            let event = Event::new();
            let mut waiting = Box::pin(event.wait());
            let waker = waker_fn::waker_fn(|| panic!("as asked"));
            let waits = waiting.as_mut().poll(&mut std::task::Context::from_waker(&waker));
            assert!(waits.is_pending());
            event.set();
        }),
        ("exception in destructor", || {
            let queue = waterspout::queues::Queue::new(0);
            queue.put_nowait(Bomb(true)).ok().unwrap();
        }),
        ("exception in order of a queue's items", || {
            let queue = PriorityQueue::new(0);
            (0..2).for_each(|_| queue.put_nowait(Bomb(false)).ok().unwrap());
        }),
        ("what was to be read is not within", || reads_too_much(10, usize::MAX)),
        ("the read buffer is full with", || reads_too_much(usize::MAX, 10)),
        ("the callback added at", || {
            IoLoop::current().add_callback(|| std::thread::sleep(Duration::from_millis(20)));
        }),
        // By a handler, see below.
        ("on_exception, given exception in", a_callback_fails),
        ("worker", || {
            let work = async |_| Err::<(), _>("as asked");
            _ = waterspout::process::Workers::new().count(1).max_restarts(1).run(work);
        }),
    ]
}

/// A line that is longer than may be read, or kept.
fn reads_too_much(most: usize, kept: usize) {
    let (mut there, here) = duplex(100);
    drop(spawn(async move {
        futures::AsyncWriteExt::write_all(&mut there, &[b'x'; 50]).await.unwrap();
        let options = Options { max_buffer_size: kept, ..Options::default() };
        let stream = IoStream::with_options(here, options);
        assert!(stream.read_until(b"\n", most).await.is_err());
    }));
}

/// What is left to others: the file that says it, or whose tests expect it, and what stands there.
const ELSEWHERE: [(&str, &str, &str); 10] = [
    (
        "exception in a connection handler",
        "tests/tcp_server.rs",
        "exception in a connection handler",
    ),
    ("exception in a request handler", "src/http/server/exchange.rs", "\"a request handler\""),
    ("exception in a listener", "tests/server.rs", "exception in a listener"),
    ("exception in a signal's callback", "tests/signal.rs", "a signal's callback"),
    (
        "exception in whoever awaits coroutine",
        "src/coroutine/runner.rs",
        "\"whoever awaits coroutine",
    ),
    ("exception in what a stream is over", "src/iostream/mod.rs", "\"what a stream is over\""),
    ("the handler of fd", "src/ioloop/handlers.rs", "\"the handler of fd"),
    ("cannot wake", "src/ioloop/inbox.rs", "\"cannot wake"),
    ("no handshake with", "tests/server.rs", "\"no handshake with"),
    ("accepting on", "tests/server.rs", "\"accepting on"),
];

#[test]
fn what_is_listed_at_expect_log_is_what_is_logged() {
    let _quiet = ExpectPanic::new("as asked");
    for (text, provoke) in provoked() {
        let rows = listed().into_iter().filter(|(.., listed)| listed == text);
        let (target, level, _) = rows.min_by_key(|row| row.1).unwrap_or_else(|| panic!("{text}"));
        let mut builder = IoLoop::builder().virtual_time().slow_callback(Duration::from_millis(10));
        if text.starts_with("on_exception") {
            builder = builder.on_exception(|_| panic!("as asked"));
        }
        let expected = ExpectLog::new(&target, text).level(level);
        // Workers have threads and loops of their own.
        if text == "worker" {
            provoke();
        } else {
            let io_loop = builder.build().unwrap();
            io_loop
                .run_sync(async || {
                    provoke();
                    settle().await;
                })
                .unwrap();
        }
        assert!(expected.count() > 0, "{text}");
    }
}

#[test]
fn every_text_that_is_listed_is_provoked_here_or_said_elsewhere() {
    let here = provoked().map(|(text, _)| text);
    for (text, file, says) in ELSEWHERE {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        assert!(fs::read_to_string(path).unwrap().contains(says), "{file} does not say {text:?}");
    }
    let known = |text: &str| here.contains(&text) || ELSEWHERE.iter().any(|it| it.0 == text);
    let unknown: Vec<_> = listed().into_iter().filter(|row| !known(&row.2)).collect();
    assert!(unknown.is_empty() && listed().len() > 20, "{unknown:?}");
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn whatever_fails_is_listed() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let mut seen = 0;
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for call in
            ["foreign::call(\"", "report_panic(\"", "what: \"", "what = \"", "what, info) = (\""]
        {
            for rest in code.split(call).skip(1) {
                let what = rest.split('"').next().unwrap();
                let text = format!("exception in {what}");
                let is_listed = listed().iter().any(|row| row.2 == text);
                assert!(is_listed, "{text:?} of {} is not listed at ExpectLog", file.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 12, "{seen} were found");
}
