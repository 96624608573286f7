//! `posting RUNTIME CASE`: what a loop does while other threads give it work, and while much of its own is ready.
//! Prints `name=number` pairs; less is better.
//!
//! * `callbacks`, `spawns`: three threads post callbacks, or spawn tasks, for a second, as fast as they can, and a task
//!   of the loop sleeps for a millisecond again and again: how late it wakes up, and what the process needs in memory.
//! * `callback_cost`, `spawn_cost`: the CPU time of one of them, posting and running it, from one thread.
//! * `busy_sleep`: the same sleep beside 10,000 tasks that work for a microsecond and yield, for ever; `idle_sleep`:
//!   beside 100,000 that do nothing but yield.

use std::cell::Cell;
use std::future::Future;
use std::hint::black_box;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use peers::rt::Runtime;
use peers::rt::{tokio_rt, waterspout_rt};
use peers::util::cpu_time;

/// A runtime as other threads see it.
trait Remote: Runtime {
    type Handle: Clone + Send + 'static;
    /// Of the current runtime.
    fn handle() -> Self::Handle;
    /// Has the runtime call `f`.
    fn post(handle: &Self::Handle, f: impl FnOnce() + Send + 'static);
    /// Starts a task that nobody waits for.
    fn spawn_on(handle: &Self::Handle, f: impl Future<Output = u64> + Send + 'static);
}

impl Remote for waterspout_rt::Own {
    type Handle = waterspout::LoopHandle;

    fn handle() -> Self::Handle {
        waterspout::IoLoop::current().handle()
    }

    fn post(handle: &Self::Handle, f: impl FnOnce() + Send + 'static) {
        handle.add_callback(f).unwrap();
    }

    fn spawn_on(handle: &Self::Handle, f: impl Future<Output = u64> + Send + 'static) {
        drop(handle.spawn(move || f).unwrap());
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// tokio has no callbacks: a task takes them out of a channel.
#[derive(Clone)]
struct OnTokio {
    runtime: tokio::runtime::Handle,
    jobs: tokio::sync::mpsc::UnboundedSender<Job>,
}

impl Remote for tokio_rt::LocalSet {
    type Handle = OnTokio;

    fn handle() -> OnTokio {
        let (jobs, mut posted) = tokio::sync::mpsc::unbounded_channel::<Job>();
        drop(tokio::task::spawn_local(async move {
            while let Some(job) = posted.recv().await {
                job();
            }
        }));
        OnTokio { runtime: tokio::runtime::Handle::current(), jobs }
    }

    fn post(handle: &OnTokio, f: impl FnOnce() + Send + 'static) {
        assert!(handle.jobs.send(Box::new(f)).is_ok());
    }

    fn spawn_on(handle: &OnTokio, f: impl Future<Output = u64> + Send + 'static) {
        drop(handle.runtime.spawn(f));
    }
}

/// How late sleeps of a millisecond are, for so long.
async fn sleeps<R: Runtime>(window: Duration) -> Vec<Duration> {
    let (begun, mut late) = (Instant::now(), Vec::new());
    while begun.elapsed() < window {
        let before = Instant::now();
        R::sleep(Duration::from_millis(1)).await;
        late.push(before.elapsed() - Duration::from_millis(1));
    }
    late
}

fn print_late(mut late: Vec<Duration>) {
    late.sort();
    let at = |part: f64| late[((late.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    print!("p50_ms={:.3} p99_ms={:.3} max_ms={:.3}", at(0.5), at(0.99), at(1.0));
}

fn peak_rss_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// Three threads do `post` until the sleeps are over.
fn while_posting<R: Remote>(post: fn(&R::Handle, Arc<AtomicU64>)) {
    let (stop, posted, done) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicU64::new(0)),
    );
    let (late, rate) = R::block_on(async move {
        let handle = R::handle();
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (handle, stop, posted, done) =
                    (handle.clone(), stop.clone(), posted.clone(), done.clone());
                thread::spawn(move || {
                    while !stop.load(Relaxed) {
                        post(&handle, done.clone());
                        posted.fetch_add(1, Relaxed);
                    }
                })
            })
            .collect();
        let late = sleeps::<R>(Duration::from_secs(1)).await;
        let rate = done.load(Relaxed);
        stop.store(true, Relaxed);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        while done.load(Relaxed) < posted.load(Relaxed) {
            R::sleep(Duration::from_millis(1)).await;
        }
        (late, rate)
    });
    print_late(late);
    println!(" peak_mib={:.1} ns_each={:.1}", peak_rss_mib(), 1e9 / rate as f64);
}

/// CPU time of what another thread posts, and of running it, in turn: each has its thousands while the other waits.
fn cost<R: Remote>(post: fn(&R::Handle, Arc<AtomicU64>)) {
    const ROUNDS: u64 = 400;
    const EACH: u64 = 4000;
    let done = Arc::new(AtomicU64::new(0));
    let spent = R::block_on(async move {
        let (handle, counted) = (R::handle(), done.clone());
        let (ask, asked) = mpsc::sync_channel(0);
        let (tell, told) = mpsc::sync_channel(0);
        let thread = thread::spawn(move || {
            while asked.recv().is_ok() {
                (0..EACH).for_each(|_| post(&handle, counted.clone()));
                tell.send(()).unwrap();
            }
        });
        let run = async |rounds: u64| {
            let (begin, before) = (cpu_time(), done.load(Relaxed));
            for round in 1..=rounds {
                ask.send(()).unwrap();
                told.recv().unwrap();
                while done.load(Relaxed) < before + round * EACH {
                    R::yield_now().await;
                }
            }
            cpu_time() - begin
        };
        run(ROUNDS / 10).await;
        let spent = run(ROUNDS).await;
        drop(ask);
        thread.join().unwrap();
        spent
    });
    println!("cpu_ns={:.1}", spent.as_nanos() as f64 / (ROUNDS * EACH) as f64);
}

fn beside<R: Runtime>(tasks: usize, work: Duration) {
    let late = R::block_on(async move {
        let stop = Rc::new(Cell::new(false));
        let tasks: Vec<_> = (0..tasks)
            .map(|_| {
                let stop = stop.clone();
                R::spawn(async move {
                    while !stop.get() {
                        if !work.is_zero() {
                            let begun = Instant::now();
                            while begun.elapsed() < work {}
                        }
                        R::yield_now().await;
                    }
                })
            })
            .collect();
        let late = sleeps::<R>(Duration::from_secs(2)).await;
        stop.set(true);
        for task in tasks {
            task.await;
        }
        late
    });
    print_late(late);
    println!();
}

fn run<R: Remote>(case: &str) {
    let callback: fn(&R::Handle, Arc<AtomicU64>) = |handle, done| {
        R::post(handle, move || {
            done.fetch_add(1, Relaxed);
        });
    };
    let spawn: fn(&R::Handle, Arc<AtomicU64>) = |handle, done| {
        R::spawn_on(handle, async move { black_box(done.fetch_add(1, Relaxed)) });
    };
    match case {
        "callbacks" => while_posting::<R>(callback),
        "spawns" => while_posting::<R>(spawn),
        "callback_cost" => cost::<R>(callback),
        "spawn_cost" => cost::<R>(spawn),
        "busy_sleep" => beside::<R>(10_000, Duration::from_micros(1)),
        "idle_sleep" => beside::<R>(100_000, Duration::ZERO),
        _ => panic!("no case {case}"),
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [runtime, case] = &args[..] else { panic!("posting RUNTIME CASE") };
    match runtime.as_str() {
        "waterspout" => run::<waterspout_rt::Own>(case),
        "tokio" => run::<tokio_rt::LocalSet>(case),
        _ => panic!("no runtime {runtime}"),
    }
}
