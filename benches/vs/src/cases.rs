//! The micro-benchmark cases, generic over the runtime.
//!
//! Every case runs inside a spawned task (not the root future, which several
//! runtimes schedule differently).

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn, ready};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use crate::rt::{Runtime, Visitor};
use crate::sync::{Channel, Lock};
use crate::util::{Notify, Rng, cpu_time, poll_once, self_wake};

pub const NAMES: &[&str] = &[
    "spawn_join",
    "spawn_many",
    "call_join",
    "yield",
    "yield_1000",
    "selfwake",
    "selfwake_1000",
    "pingpong",
    "waker_clone_drop",
    "remote_wake",
    "timer_create_cancel",
    "with_timeout",
    "timer_fire",
    "timer_wheel",
    "sleep_accuracy",
    "lock_hand_off",
    "queue_1",
    "queue_64",
    "channel_64",
    "channel_64_cpu",
    "live_1",
    "live_10000",
    "live_1000000",
    "wakes_1",
    "wakes_10000",
    "wakes_1000000",
    "timers_1",
    "timers_10000",
    "timers_1000000",
];

const BATCHES: usize = 9;
const BATCH_TIME: Duration = Duration::from_millis(40);

/// ns per operation over the timed batches.
pub struct Stats {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

fn stats(mut v: Vec<f64>) -> Stats {
    v.sort_by(f64::total_cmp);
    Stats { median: v[v.len() / 2], min: v[0], max: v[v.len() - 1] }
}

/// Runs one case; `None` if the runtime cannot do it.
pub struct Case<'a>(pub &'a str);

impl Visitor for Case<'_> {
    type Out = Option<Stats>;
    fn visit<R: Runtime>(self) -> Option<Stats> {
        if !R::TIMERS && (self.0.starts_with("timer") || self.0.starts_with("sleep")) {
            return None;
        }
        if !R::REMOTE_WAKE && self.0 == "remote_wake" {
            return None;
        }
        if !R::TIME_LIMIT && self.0 == "with_timeout" {
            return None;
        }
        if !R::CALL && self.0 == "call_join" {
            return None;
        }
        if !R::FAIR && self.0.starts_with("wakes") {
            return None;
        }
        if !R::Lock::HERE && self.0.starts_with("lock")
            || !R::Queue::HERE && self.0.starts_with("queue")
            || !R::Channel::HERE && self.0.starts_with("channel")
        {
            return None;
        }
        let case: String = self.0.into();
        Some(R::block_on(async move { R::spawn(run::<R>(case)).await }))
    }
}

async fn run<R: Runtime>(case: String) -> Stats {
    match case.as_str() {
        "spawn_join" => {
            measure(1000, async |n| {
                for i in 0..n {
                    std::hint::black_box(R::spawn(async move { i }).await);
                }
            })
            .await
        }
        "spawn_many" => {
            let mut handles = Vec::with_capacity(10_000);
            measure(10_000, async |n| {
                for _ in 0..n / 10_000 {
                    for i in 0..10_000 {
                        handles.push(R::spawn(async move { i }));
                    }
                    for h in handles.drain(..) {
                        std::hint::black_box(h.await);
                    }
                }
            })
            .await
        }
        "call_join" => {
            measure(1000, async |n| {
                for i in 0..n {
                    std::hint::black_box(R::call(i).await);
                }
            })
            .await
        }
        "yield" => {
            measure(1000, async |n| {
                for _ in 0..n {
                    R::yield_now().await;
                }
            })
            .await
        }
        "selfwake" => {
            measure(1000, async |n| {
                for _ in 0..n {
                    self_wake().await;
                }
            })
            .await
        }
        "yield_1000" => {
            thousand::<R, _>(async |n| {
                for _ in 0..n {
                    R::yield_now().await;
                }
            })
            .await
        }
        "selfwake_1000" => {
            thousand::<R, _>(async |n| {
                for _ in 0..n {
                    self_wake().await;
                }
            })
            .await
        }
        "pingpong" => {
            measure(1000, async |n| {
                let cells = Rc::new((Notify::default(), Notify::default()));
                let other = cells.clone();
                let peer = R::spawn(async move {
                    for _ in 0..n {
                        other.0.wait().await;
                        other.1.notify();
                    }
                });
                for _ in 0..n {
                    cells.0.notify();
                    cells.1.wait().await;
                }
                peer.await;
            })
            .await
        }
        "waker_clone_drop" => {
            measure(1000, async |n| {
                poll_fn(|cx| {
                    for _ in 0..n {
                        drop(std::hint::black_box(cx.waker().clone()));
                    }
                    Poll::Ready(())
                })
                .await;
            })
            .await
        }
        "remote_wake" => remote_wake().await,
        "timer_create_cancel" => timer_create_cancel::<R>(100_000).await,
        "with_timeout" => {
            measure(1000, async |n| {
                for i in 0..n {
                    let limited = R::with_timeout(Duration::from_secs(60), ready(i));
                    std::hint::black_box(limited.await);
                }
            })
            .await
        }
        "timer_fire" => cpu_per_timer(timer_fire::<R>).await,
        "timer_wheel" => cpu_per_timer(timer_wheel::<R>).await,
        "sleep_accuracy" => {
            let mut v = Vec::new();
            for _ in 0..8 {
                let t0 = Instant::now();
                for _ in 0..125 {
                    R::sleep(Duration::from_millis(1)).await;
                }
                v.push(t0.elapsed().as_nanos() as f64 / 125.0 - 1e6);
            }
            stats(v)
        }
        "lock_hand_off" => {
            measure(1000, async |n| {
                let lock = Rc::new(R::Lock::new());
                let takers = [(); 2].map(|()| {
                    let lock = lock.clone();
                    R::spawn(async move {
                        for _ in 0..n / 2 {
                            let held = lock.acquire().await;
                            self_wake().await;
                            drop(held);
                            self_wake().await;
                        }
                    })
                });
                for t in takers {
                    t.await;
                }
            })
            .await
        }
        "queue_1" | "queue_64" => {
            measure(1000, async |n| {
                let (tx, rx) = R::Queue::new(number(&case) as usize);
                let putting = R::spawn(R::Queue::put_all(tx, n));
                R::Queue::get_all(rx, |i| {
                    std::hint::black_box(i);
                })
                .await;
                putting.await;
            })
            .await
        }
        "channel_64" => between_loops::<R>(64, |took| took.0).await,
        "channel_64_cpu" => between_loops::<R>(64, |took| took.1).await,
        "live_1" | "live_10000" | "live_1000000" => live::<R>(number(&case)).await,
        "wakes_1" | "wakes_10000" | "wakes_1000000" => wakes::<R>(number(&case)).await,
        "timers_1" | "timers_10000" | "timers_1000000" => {
            timer_create_cancel::<R>(number(&case)).await
        }
        other => {
            eprintln!("unknown case {other}; have {NAMES:?}");
            std::process::exit(2);
        }
    }
}

/// How many of them there are, at the end of a case's name.
fn number(case: &str) -> u64 {
    case.rsplit('_').next().and_then(|n| n.parse().ok()).expect("the case's name ends in a number")
}

/// How many operations to run before the process ends, if instructions are being counted.
fn counted_ops() -> Option<u64> {
    std::env::var("PEERS_OPS").ok()?.parse().ok()
}

/// Finds a batch size worth `BATCH_TIME` (in multiples of `unit`), warms up,
/// then times the batches. With `PEERS_OPS=N` it runs N operations once and
/// ends the process: for counting instructions (see `icount.sh`).
async fn measure(unit: u64, mut op: impl AsyncFnMut(u64)) -> Stats {
    if let Some(n) = counted_ops() {
        op(n.next_multiple_of(unit)).await;
        std::process::exit(0);
    }
    let mut n = unit;
    loop {
        let t0 = Instant::now();
        op(n).await;
        let t = t0.elapsed();
        if t >= BATCH_TIME / 4 {
            n = (n as f64 * BATCH_TIME.as_secs_f64() / t.as_secs_f64()) as u64;
            n = n.next_multiple_of(unit);
            break;
        }
        n *= 2;
    }
    op(n).await;
    let mut v = Vec::new();
    for _ in 0..BATCHES {
        let t0 = Instant::now();
        op(n).await;
        v.push(t0.elapsed().as_nanos() as f64 / n as f64);
    }
    stats(v)
}

/// 1000 tasks, each running `body(n)`; the cost is per iteration of `body`.
async fn thousand<R: Runtime, B: AsyncFn(u64) + Copy + 'static>(body: B) -> Stats {
    measure(100_000, async |n| {
        let tasks: Vec<_> =
            (0..1000).map(|_| R::spawn(async move { body(n / 1000).await })).collect();
        for t in tasks {
            t.await;
        }
    })
    .await
}

/// `spawn_join` beside so many tasks that are suspended for good.
async fn live<R: Runtime>(parked: u64) -> Stats {
    let waiting = Rc::new((Cell::new(parked), Notify::default()));
    let handles: Vec<_> = (0..parked)
        .map(|_| {
            let waiting = waiting.clone();
            R::spawn(async move {
                waiting.0.set(waiting.0.get() - 1);
                if waiting.0.get() == 0 {
                    waiting.1.notify();
                }
                drop(waiting);
                pending::<()>().await;
            })
        })
        .collect();
    waiting.1.wait().await;
    let stats = measure(1000, async |n| {
        for i in 0..n {
            std::hint::black_box(R::spawn(async move { i }).await);
        }
    })
    .await;
    // Ending them would take longer than what was measured, and the process ends anyway.
    std::mem::forget(handles);
    stats
}

/// The progress of all the tasks of `wakes`.
struct Wakes {
    done: Cell<u64>,
    /// How many are done when the current batch ends.
    batch_end: Cell<u64>,
    batch: u64,
    stamps: RefCell<Vec<Instant>>,
}

impl Wakes {
    /// Counts one; false when nothing is left to measure. The task that completes a batch takes the
    /// time, since one that waited for that would come up a whole round later.
    fn go_on(&self) -> bool {
        self.done.set(self.done.get() + 1);
        if self.done.get() == self.batch_end.get() {
            let mut stamps = self.stamps.borrow_mut();
            if !stamps.is_empty() && counted_ops().is_some() {
                std::process::exit(0);
            }
            stamps.push(Instant::now());
            self.batch_end.set(self.batch_end.get() + self.batch);
        }
        self.stamps.borrow().len() <= BATCHES
    }
}

/// So many tasks that all wake themselves, in turn: the cost of one such wake.
async fn wakes<R: Runtime>(tasks: u64) -> Stats {
    let wakes = Rc::new(Wakes {
        done: Cell::new(0),
        // Once they have all been around.
        batch_end: Cell::new(2 * tasks),
        batch: counted_ops().unwrap_or(tasks.max(200_000)),
        stamps: RefCell::default(),
    });
    let handles: Vec<_> = (0..tasks)
        .map(|_| {
            let wakes = wakes.clone();
            R::spawn(async move {
                while wakes.go_on() {
                    self_wake().await;
                }
            })
        })
        .collect();
    for h in handles {
        h.await;
    }
    let stamps = wakes.stamps.borrow();
    let batches = stamps.windows(2).map(|w| (w[1] - w[0]).as_nanos() as f64 / wakes.batch as f64);
    stats(batches.collect())
}

/// A sleep of a minute, polled once and dropped, beside so many that stay.
async fn timer_create_cancel<R: Runtime>(others: u64) -> Stats {
    let mut rng = Rng(42);
    let mut kept: Vec<Pin<Box<dyn Future<Output = ()>>>> = Vec::new();
    for _ in 0..others {
        let d = Duration::from_millis(60_000 + rng.below(60_000));
        let mut s: Pin<Box<dyn Future<Output = ()>>> = Box::pin(R::sleep(d));
        // Not this task's waker: glommio counts wakers in 15 bits.
        let mut cx = Context::from_waker(Waker::noop());
        assert!(s.as_mut().poll(&mut cx).is_pending());
        kept.push(s);
    }
    measure(1000, async |n| {
        for _ in 0..n {
            let s = std::pin::pin!(R::sleep(Duration::from_secs(60)));
            assert!(!poll_once(s).await);
        }
        R::yield_now().await;
    })
    .await
}

/// How many items go from loop to loop in a batch.
const ITEMS: u64 = 300_000;

/// Items from another thread's loop to this one: the time, and the CPU time of both, from the first
/// item to the last.
async fn between_loops<R: Runtime>(
    capacity: usize,
    which: impl Fn((Duration, Duration)) -> Duration,
) -> Stats {
    let mut v = Vec::new();
    for _ in 0..BATCHES {
        let (tx, rx) = R::Channel::new(capacity);
        let thread = std::thread::spawn(move || {
            R::block_on(async move { R::spawn(R::Channel::put_all(tx, ITEMS)).await });
        });
        let stamps = Rc::new(RefCell::new(Vec::new()));
        let (taken, mut next) = (stamps.clone(), 0);
        R::Channel::get_all(rx, move |i| {
            assert_eq!(i, next);
            next += 1;
            if i == 0 || next == ITEMS {
                taken.borrow_mut().push((Instant::now(), cpu_time()));
            }
        })
        .await;
        thread.join().unwrap();
        let stamps = stamps.borrow();
        let took = which((stamps[1].0 - stamps[0].0, stamps[1].1 - stamps[0].1));
        v.push(took.as_nanos() as f64 / (ITEMS - 1) as f64);
    }
    stats(v)
}

#[derive(Default)]
struct Remote {
    request: AtomicU64,
    /// When the thread called `wake()`, in ns since the start.
    woken_at: AtomicU64,
    reply: AtomicU64,
    stop: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

/// From the call of `wake()` on another thread to the poll of the task, whose
/// executor has had 50 us to go to sleep in the kernel. The other thread spins
/// and so costs no wake-up of its own.
async fn remote_wake() -> Stats {
    let epoch = Instant::now();
    let shared = Arc::new(Remote::default());
    let theirs = shared.clone();
    let thread = std::thread::spawn(move || {
        let mut seen = 0;
        while !theirs.stop.load(SeqCst) {
            let r = theirs.request.load(SeqCst);
            if r == seen {
                std::hint::spin_loop();
                continue;
            }
            seen = r;
            let t0 = Instant::now();
            while t0.elapsed() < Duration::from_micros(50) {
                std::hint::spin_loop();
            }
            let w = theirs.waker.lock().unwrap().take();
            theirs.woken_at.store(epoch.elapsed().as_nanos() as u64, SeqCst);
            theirs.reply.store(r, SeqCst);
            w.expect("the task left its waker").wake();
        }
    });
    let mut round = 0;
    let mut v = Vec::new();
    for batch in 0..=BATCHES {
        let mut ns = 0;
        for _ in 0..300 {
            round += 1;
            let mut asked = false;
            poll_fn(|cx| {
                if !asked {
                    asked = true;
                    *shared.waker.lock().unwrap() = Some(cx.waker().clone());
                    shared.request.store(round, SeqCst);
                    return Poll::Pending;
                }
                // Spurious polls are not the wake; keep waiting.
                if shared.reply.load(SeqCst) != round { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
            ns += epoch.elapsed().as_nanos() as u64 - shared.woken_at.load(SeqCst);
        }
        if batch > 0 {
            v.push(ns as f64 / 300.0);
        }
    }
    shared.stop.store(true, SeqCst);
    thread.join().unwrap();
    stats(v)
}

const TIMERS: u64 = 100_000;

async fn cpu_per_timer<F: Future<Output = ()>>(f: impl Fn() -> F) -> Stats {
    f().await;
    let mut v = Vec::new();
    for _ in 0..7 {
        let t0 = cpu_time();
        f().await;
        v.push((cpu_time() - t0).as_nanos() as f64 / TIMERS as f64);
    }
    stats(v)
}

/// One task per timer.
async fn timer_fire<R: Runtime>() {
    let mut rng = Rng(7);
    let tasks: Vec<_> = (0..TIMERS)
        .map(|_| {
            let d = Duration::from_micros(rng.below(50_000));
            R::spawn(async move { R::sleep(d).await })
        })
        .collect();
    for t in tasks {
        t.await;
    }
}

/// Counts wakes; the last one wakes the waiting task.
struct Counter {
    left: AtomicU64,
    last: Mutex<Option<Waker>>,
}

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        if self.left.fetch_sub(1, SeqCst) == 1
            && let Some(w) = self.last.lock().unwrap().take()
        {
            w.wake();
        }
    }
}

/// No tasks: sleeps boxed, polled once with a counting waker, waited for by
/// count. Timer data structure and driver only.
async fn timer_wheel<R: Runtime>() {
    let mut rng = Rng(7);
    let counter = Arc::new(Counter { left: AtomicU64::new(TIMERS), last: Mutex::new(None) });
    let waker = Waker::from(counter.clone());
    let mut cx = Context::from_waker(&waker);
    let mut sleeps = Vec::with_capacity(TIMERS as usize);
    for _ in 0..TIMERS {
        let mut s = Box::pin(R::sleep(Duration::from_micros(rng.below(50_000))));
        if s.as_mut().poll(&mut cx).is_ready() {
            counter.left.fetch_sub(1, SeqCst);
        }
        sleeps.push(s);
    }
    poll_fn(|cx| {
        *counter.last.lock().unwrap() = Some(cx.waker().clone());
        if counter.left.load(SeqCst) == 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
