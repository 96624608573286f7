//! `Builder::slow_callback`: who keeps the others waiting is named in the log.

mod common;

use std::time::{Duration, Instant};

use common::Logged;
use waterspout::IoLoop;
use waterspout::coroutine::{moment, spawn_named};

/// Keeps the thread busy for as long.
fn busy(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        std::hint::spin_loop();
    }
}

const THRESHOLD: Duration = Duration::from_millis(100);

#[test]
fn a_slow_resumption_and_a_slow_callback_are_named_and_quick_ones_are_not() {
    let logged = Logged::install();
    let io_loop = IoLoop::builder().slow_callback(THRESHOLD).build().unwrap();
    io_loop
        .run_sync(|| async {
            spawn_named("quick", async {}).await;
            spawn_named("slow", async { busy(2 * THRESHOLD) }).await;
            IoLoop::current().add_callback(|| busy(2 * THRESHOLD));
            moment().await;
        })
        .unwrap();
    let lines = logged.take();
    let of = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
    assert_eq!(of("`slow` started at"), 1, "{lines:?}");
    assert_eq!(of("the callback added at tests/slow.rs"), 1, "{lines:?}");
    assert_eq!(of("`quick`"), 0, "{lines:?}");
    assert!(lines.iter().all(|line| line.contains("more than 100ms")), "{lines:?}");
}

#[test]
fn without_a_threshold_nothing_is_said() {
    let logged = Logged::install();
    let io_loop = IoLoop::new().unwrap();
    io_loop.run_sync(|| async { busy(2 * THRESHOLD) }).unwrap();
    assert_eq!(logged.take(), [""; 0]);
}
