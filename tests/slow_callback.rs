//! The warning about what keeps a loop busy for long, and what goes to the log by default. In a test
//! program of its own, since a program has one logger.

mod common;

use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use common::one_turn;
use waterspout::coroutine::{self, moment};
use waterspout::{Interest, IoLoop};

const LONG: Duration = Duration::from_millis(3);

/// Keeps what this thread logs, of the program's whole log.
struct Logged(Mutex<Vec<(ThreadId, String)>>);

impl Logged {
    /// Installs the logger of this test program, once, and gives it.
    fn install() -> Arc<Logged> {
        static LOGGED: Mutex<Option<Arc<Logged>>> = Mutex::new(None);
        let mut logged = LOGGED.lock().unwrap();
        let logged = logged.get_or_insert_with(|| {
            let logged = Arc::new(Logged(Mutex::new(Vec::new())));
            log::set_boxed_logger(Box::new(Forward(logged.clone()))).unwrap();
            log::set_max_level(log::LevelFilter::Warn);
            logged
        });
        logged.clone()
    }

    /// What this thread has logged since it last asked.
    fn take(&self) -> Vec<String> {
        let mut all = self.0.lock().unwrap();
        let me = thread::current().id();
        let mine = all.iter().filter(|(of, _)| *of == me).map(|(_, line)| line.clone()).collect();
        all.retain(|(of, _)| *of != me);
        mine
    }
}

struct Forward(Arc<Logged>);

impl log::Log for Forward {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("waterspout::")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = format!("{} {}", record.level(), record.args());
            self.0.0.lock().unwrap().push((thread::current().id(), line));
        }
    }

    fn flush(&self) {}
}

/// Keeps the thread for longer than the threshold.
fn dawdle() {
    let begun = Instant::now();
    while begun.elapsed() <= LONG {
        std::hint::spin_loop();
    }
}

/// A loop that warns of what takes longer than [`LONG`]. What is quick takes microseconds, unless the
/// machine is busy; so the tests only look for the warnings that must come.
fn watched() -> IoLoop {
    IoLoop::builder().slow_callback(LONG).build().unwrap()
}

fn assert_warned(logged: &[String], of: &str) {
    let warned = logged.iter().any(|line| line.starts_with("WARN") && line.contains(of));
    assert!(warned, "no warning of {of}: {logged:?}");
}

#[test]
fn a_slow_callback_is_named_by_its_place() {
    let logged = Logged::install();
    let io_loop = watched();
    let line = line!() + 1;
    io_loop.add_callback(dawdle);
    one_turn(&io_loop);
    let lines = logged.take();
    assert_warned(&lines, &format!("{}:{line}", file!()));
    assert_warned(&lines, "while 1 others were waiting");
}

#[test]
fn a_slow_timer_is_named_by_its_place() {
    let logged = Logged::install();
    let io_loop = watched();
    let line = line!() + 1;
    io_loop.call_later(Duration::ZERO, dawdle);
    one_turn(&io_loop);
    assert_warned(&logged.take(), &format!("{}:{line}", file!()));
}

#[test]
fn a_slow_resumption_is_named_by_its_coroutine() {
    let logged = Logged::install();
    watched()
        .run_sync(|| async {
            let coroutine = coroutine::spawn_named("dawdler", async {
                moment().await;
                dawdle();
            });
            coroutine.await;
        })
        .unwrap();
    assert_warned(&logged.take(), "`dawdler`");
}

#[test]
fn the_future_of_run_sync_is_watched_too() {
    let logged = Logged::install();
    watched()
        .run_sync(|| async {
            moment().await;
            dawdle();
        })
        .unwrap();
    assert_warned(&logged.take(), "`run_sync`");
}

#[test]
fn a_slow_handler_is_told_of() {
    use std::io::Write;
    let logged = Logged::install();
    let io_loop = watched();
    let (here, mut there) = std::os::unix::net::UnixStream::pair().unwrap();
    let dawdling = |_: &_, _| {
        dawdle();
        IoLoop::current().stop();
    };
    io_loop.add_handler(here, Interest::READ, dawdling).unwrap();
    there.write_all(b"x").unwrap();
    io_loop.start().unwrap();
    assert_warned(&logged.take(), "handler");
}

#[test]
fn nothing_is_told_unless_asked_for() {
    let logged = Logged::install();
    let io_loop = IoLoop::new().unwrap();
    io_loop.add_callback(dawdle);
    one_turn(&io_loop);
    assert!(logged.take().is_empty());
}

#[test]
fn failures_that_nobody_awaits_are_logged_unless_there_is_a_handler() {
    let logged = Logged::install();
    let io_loop = IoLoop::new().unwrap();
    io_loop.add_callback(|| panic!("in a callback"));
    one_turn(&io_loop);
    let lines = logged.take();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("ERROR exception in callback"), "{lines:?}");
    assert!(lines[0].contains("in a callback") && lines[0].contains(file!()), "{lines:?}");

    let io_loop = IoLoop::builder().on_exception(|_| ()).build().unwrap();
    io_loop.add_callback(|| panic!("in a callback"));
    one_turn(&io_loop);
    assert!(logged.take().is_empty());
}

#[test]
fn the_panic_of_an_exception_handler_is_logged() {
    let logged = Logged::install();
    let io_loop = IoLoop::builder().on_exception(|_| panic!("the handler")).build().unwrap();
    io_loop.add_callback(|| panic!("in a callback"));
    one_turn(&io_loop);
    let lines = logged.take();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("in a callback") && lines[0].contains("the handler"), "{lines:?}");
}

#[test]
fn an_error_of_a_future_that_nobody_looked_at_is_logged_also_without_a_loop() {
    let logged = Logged::install();
    let (promise, future) = waterspout::concurrent::promise::<()>();
    promise.set_exception("lost");
    drop(future);
    let lines = logged.take();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("never retrieved") && lines[0].contains("lost"), "{lines:?}");
}
