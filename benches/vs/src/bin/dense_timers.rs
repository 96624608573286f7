//! `dense_timers RUNTIME dense`: 200,000 tasks sleep, each until a moment of its own within 5 seconds. Prints
//! `cpu_us=.. p50_us=.. p99_us=..`: the CPU time of the process a task, from its start to its end, and how late
//! the sleeps ended.
//!
//! `waterspout-slack` is waterspout with a timer slack of 1 ms, which is what tokio's timers have.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use peers::rt::{self, Runtime, Visitor, waterspout_rt};
use peers::util::{Rng, cpu_time};
use waterspout::IoLoop;

const SLEEPS: usize = 200_000;
/// The first sleep ends when all tasks have long been started.
const FIRST: Duration = Duration::from_millis(500);
const WINDOW: Duration = Duration::from_secs(5);

thread_local! {
    /// How late each sleep ended, in nanoseconds.
    static LATE: RefCell<Vec<u64>> = RefCell::new(Vec::with_capacity(SLEEPS));
}

async fn dense<R: Runtime>() -> Duration {
    let mut rng = Rng(7);
    let begun = cpu_time();
    let tasks: Vec<_> = (0..SLEEPS)
        .map(|_| {
            let sleep = FIRST + Duration::from_nanos(rng.below(WINDOW.as_nanos() as u64));
            R::spawn(async move {
                let due = Instant::now() + sleep;
                R::sleep(sleep).await;
                let late = due.elapsed().as_nanos() as u64;
                LATE.with_borrow_mut(|all| all.push(late));
            })
        })
        .collect();
    for task in tasks {
        task.await;
    }
    cpu_time() - begun
}

struct Dense;

impl Visitor for Dense {
    type Out = Duration;
    fn visit<R: Runtime>(self) -> Duration {
        // As a task, since a main future of its own is slower in some runtimes.
        R::block_on(async { R::spawn(dense::<R>()).await })
    }
}

fn with_slack() -> Duration {
    let io_loop = IoLoop::builder().timer_slack(Duration::from_millis(1)).build().unwrap();
    io_loop.run_sync(dense::<waterspout_rt::Own>).unwrap()
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let cpu = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["waterspout-slack", "dense"] => Some(with_slack()),
        [name, "dense"] => rt::with(name, Dense),
        _ => None,
    };
    let Some(cpu) = cpu else {
        eprintln!("usage: dense_timers RUNTIME dense; there are waterspout-slack, {:?}", rt::NAMES);
        std::process::exit(2);
    };
    let mut late = LATE.take();
    late.sort_unstable();
    let late_us = |share: f64| late[(late.len() as f64 * share) as usize] as f64 / 1e3;
    println!(
        "cpu_us={:.3} p50_us={:.1} p99_us={:.1}",
        cpu.as_secs_f64() * 1e6 / late.len() as f64,
        late_us(0.5),
        late_us(0.99),
    );
}
