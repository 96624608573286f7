//! How many instructions the loop's hot paths take, against what is checked in.
//!
//! Time depends on who else uses the machine; instructions do not. Each case is run twice under
//! callgrind, once for longer, and the difference is divided by how much longer: what it takes to
//! start the process and the loop cancels out. Linux with valgrind only.
//!
//! ```text
//! cargo bench --bench instructions                compares with instructions.txt; 1 if one is worse
//! cargo bench --bench instructions -- --record    writes that file anew
//! ```
//!
//! It calls itself as `instructions CASE N`: N operations of one case, and no more.

use std::cell::RefCell;
use std::fs;
use std::future::{Future, poll_fn};
use std::path::Path;
use std::pin::pin;
use std::process::{Command, ExitCode};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt};
use waterspout::iostream::IoStream;
use waterspout::locks::Lock;
use waterspout::queues::Queue;
use waterspout::{IoLoop, coroutine, testing};

const CASES: &[&str] = &[
    "spawn_await",
    "call_await",
    "self_wake",
    "ping_pong",
    "timer_set_cancel",
    "timer_fire",
    "with_timeout",
    "readiness",
    "read_until",
    "read_until_into",
    "feed",
    "lock_hand_off",
    "queue_put_get",
];

/// The two lengths of a run. What is done once for all operations (a table that grows) still
/// cancels out if it has grown before the shorter one ends.
const SHORT: u64 = 4_096;
const LONG: u64 = 20_480;

/// By how much a figure may be above the one that is checked in, in per cent.
const TOLERANCE: f64 = 5.0;

/// Exit status when there is nothing to measure with, so that a caller can tell it from a failure.
const NO_VALGRIND: u8 = 2;

fn main() -> ExitCode {
    // Cargo says `--bench`, which this always is.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => drive(false),
        ["--record"] => drive(true),
        [case, n] if CASES.contains(&case) => match n.parse() {
            Ok(n) => {
                run(case, n);
                ExitCode::SUCCESS
            }
            Err(_) => usage(),
        },
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: instructions [--record] | CASE N; the cases are {}", CASES.join(" "));
    ExitCode::FAILURE
}

// ---- the cases -----------------------------------------------------------------------------------

/// Runs `n` operations of a case.
///
/// In virtual time throughout: how often the loop asks its selector between coroutines that are
/// ready depends on how long they take, and when a timer is due on how fast the machine is.
fn run(case: &str, n: u64) {
    let io_loop = IoLoop::builder().virtual_time().build().expect("a loop");
    let ran = io_loop.run_sync(async || match case {
        "spawn_await" => spawn_await(n).await,
        "call_await" => call_await(n).await,
        "self_wake" => self_wakes(n).await,
        "ping_pong" => ping_pong(n).await,
        "timer_set_cancel" => timer_set_cancel(n).await,
        "timer_fire" => timer_fire(n).await,
        "with_timeout" => with_timeout(n).await,
        "readiness" => readiness(n).await,
        "read_until" => read_until(n).await,
        "read_until_into" => read_until_into(n).await,
        "feed" => feed(n).await,
        "lock_hand_off" => lock_hand_off(n).await,
        "queue_put_get" => queue_put_get(n).await,
        _ => unreachable!("CASES has all of these"),
    });
    ran.expect("the loop runs to the end");
}

/// A coroutine that waits for its turn, and its result.
async fn spawn_await(n: u64) {
    for i in 0..n {
        assert_eq!(coroutine::spawn(async move { i }).await, i);
    }
}

#[waterspout::coroutine]
async fn answer(i: u64) -> u64 {
    i
}

/// A coroutine that ends inside its call, and its result.
async fn call_await(n: u64) {
    for i in 0..n {
        assert_eq!(answer(i).await, i);
    }
}

/// Suspends once, being awake already: the way through the run queue and back.
async fn self_wake() {
    let mut woken = false;
    poll_fn(|cx| {
        if woken {
            return Poll::Ready(());
        }
        woken = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

async fn self_wakes(n: u64) {
    for _ in 0..n {
        self_wake().await;
    }
}

/// Somebody's turn: one who waits for it, and one who gives it.
#[derive(Default)]
struct Turn(RefCell<(bool, Option<Waker>)>);

impl Turn {
    fn give(&self) {
        let waiting = {
            let mut turn = self.0.borrow_mut();
            turn.0 = true;
            turn.1.take()
        };
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }

    async fn wait(&self) {
        poll_fn(|cx| {
            let mut turn = self.0.borrow_mut();
            if std::mem::take(&mut turn.0) {
                return Poll::Ready(());
            }
            turn.1 = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// There and back: two wakes and two resumptions.
async fn ping_pong(n: u64) {
    let turns = Rc::new((Turn::default(), Turn::default()));
    let theirs = turns.clone();
    let other = coroutine::spawn(async move {
        for _ in 0..n {
            theirs.0.wait().await;
            theirs.1.give();
        }
    });
    for _ in 0..n {
        turns.0.give();
        turns.1.wait().await;
    }
    other.await;
}

/// A minute's sleep that is given up at once, beside a thousand that are not.
async fn timer_set_cancel(n: u64) {
    for i in 0..1_000 {
        coroutine::start(coroutine::sleep(Duration::from_millis(60_000 + 60 * i)));
    }
    for _ in 0..n {
        let mut sleep = pin!(coroutine::sleep(Duration::from_secs(60)));
        let pending = poll_fn(|cx| Poll::Ready(sleep.as_mut().poll(cx).is_pending())).await;
        assert!(pending);
    }
}

/// A timer that fires while 63 others wait: set, due, its coroutine woken and resumed.
async fn timer_fire(n: u64) {
    let sleepers: Vec<_> = (0..64)
        .map(|i| {
            coroutine::spawn(async move {
                for _ in 0..n / 64 {
                    // No two at the same time, so that every one is a turn of its own.
                    coroutine::sleep(Duration::from_micros(1_000 + i)).await;
                }
            })
        })
        .collect();
    for sleeper in sleepers {
        sleeper.await;
    }
}

/// A time limit on what is ready.
async fn with_timeout(n: u64) {
    for i in 0..n {
        let limited = coroutine::with_timeout(Duration::from_secs(60), std::future::ready(i));
        assert_eq!(limited.await, Ok(i));
    }
}

/// A byte through the kernel: the selector reports it, and who waited for it reads it.
///
/// The buffer has room for more, so that the read shows that nothing is left (over TCP it does), and the
/// next one waits.
async fn readiness(n: u64) {
    let (here, there) = testing::tcp_pair().await.expect("a pair");
    for _ in 0..n {
        here.write_all(&[1]).await.expect("written");
        assert_eq!(there.read(&mut [0; 16]).await.expect("read"), 1);
    }
}

/// A line of 32 bytes out of a stream in which 64 arrive at a time.
async fn read_until(n: u64) {
    const LINE: &[u8; 32] = b"thirty-one bytes and a line end\n";
    let (mut here, there) = testing::duplex(64 * LINE.len());
    let there = IoStream::new(there);
    let lines = LINE.repeat(64);
    for _ in 0..n / 64 {
        here.write_all(&lines).await.expect("written");
        for _ in 0..64 {
            assert_eq!(there.read_until(b"\n", 100).await.expect("a line"), LINE);
        }
    }
}

/// The same into a vector that is used for all lines.
async fn read_until_into(n: u64) {
    const LINE: &[u8; 32] = b"thirty-one bytes and a line end\n";
    let (mut here, there) = testing::duplex(64 * LINE.len());
    let there = IoStream::new(there);
    let (lines, mut line) = (LINE.repeat(64), Vec::new());
    for _ in 0..n / 64 {
        here.write_all(&lines).await.expect("written");
        for _ in 0..64 {
            line.clear();
            there.read_until_into(b"\n", 100, &mut line).await.expect("a line");
            assert_eq!(line, LINE);
        }
    }
}

/// A small write that is gathered with 63 others.
async fn feed(n: u64) {
    const PIECE: &[u8; 32] = b"thirty-one bytes and a line end\n";
    let (here, mut there) = testing::duplex(64 * PIECE.len());
    let here = IoStream::new(here);
    let mut pieces = PIECE.repeat(64);
    for _ in 0..n / 64 {
        for _ in 0..64 {
            here.feed(PIECE).await.expect("open");
        }
        here.flush().await.expect("sent");
        there.read_exact(&mut pieces).await.expect("read");
    }
}

/// Two that want the same lock: each takes it when the other has let go, and suspends with it and
/// after it.
async fn lock_hand_off(n: u64) {
    let lock = Lock::new(0);
    let takers = [(); 2].map(|()| {
        let lock = lock.clone();
        coroutine::spawn(async move {
            for _ in 0..n / 2 {
                let mut count = lock.acquire().await;
                self_wake().await;
                *count += 1;
                drop(count);
                self_wake().await;
            }
        })
    });
    for taker in takers {
        taker.await;
    }
    assert_eq!(*lock.acquire().await, n);
}

/// A queue with room for one: who puts and who gets wait in turn.
async fn queue_put_get(n: u64) {
    let queue = Queue::new(1);
    let theirs = queue.clone();
    let putting = coroutine::spawn(async move {
        for i in 0..n {
            theirs.put(i).await.expect("open");
        }
    });
    for i in 0..n {
        assert_eq!(queue.get().await, Ok(i));
    }
    putting.await;
}

// ---- the driver ----------------------------------------------------------------------------------

/// What is checked in: whose code was counted, then a figure for each case.
struct Expected {
    taken_with: String,
    figures: Vec<(String, u64)>,
}

impl Expected {
    fn read(path: &Path) -> Option<Expected> {
        let text = fs::read_to_string(path).ok()?;
        let mut lines = text.lines();
        let taken_with = lines.next()?.to_owned();
        let figures = lines.filter_map(|line| {
            let (case, figure) = line.split_once(' ')?;
            Some((case.to_owned(), figure.trim().parse().ok()?))
        });
        Some(Expected { taken_with, figures: figures.collect() })
    }

    fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut text = format!("{}\n", self.taken_with);
        for (case, figure) in &self.figures {
            text += &format!("{case} {figure}\n");
        }
        fs::write(path, text)
    }

    fn of(&self, case: &str) -> Option<u64> {
        self.figures.iter().find(|(name, _)| name == case).map(|(_, figure)| *figure)
    }
}

/// Another compiler, architecture or C library (whose `malloc` is counted, too) has other figures,
/// and that is nobody's fault.
fn taken_with() -> String {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let rustc = first_line(&rustc, &["--version"]).unwrap_or("an unknown rustc".into());
    let libc = first_line("getconf", &["GNU_LIBC_VERSION"]).unwrap_or("an unknown libc".into());
    format!("{rustc}, {}, {libc}", std::env::consts::ARCH)
}

/// The first line that a command prints, if it succeeds.
fn first_line(command: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(command).args(args).output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?;
    said.lines().next().filter(|_| output.status.success()).map(str::to_owned)
}

fn drive(record: bool) -> ExitCode {
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("instructions: no valgrind on this machine, so nothing was measured");
        return NO_VALGRIND.into();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.txt");
    let here = taken_with();
    let expected = Expected::read(&path);
    let binding = expected.as_ref().is_some_and(|expected| expected.taken_with == here);
    let mut figures = Vec::new();
    let (mut worse, mut better) = (Vec::new(), Vec::new());
    println!("{:<18}{:>14}{:>10}{:>14}", "case", "instructions", "expected", "difference");
    for case in CASES {
        let Some(figure) = measure(case) else {
            eprintln!("instructions: callgrind did not count {case}");
            return ExitCode::FAILURE;
        };
        figures.push(((*case).to_owned(), figure));
        let Some(before) = expected.as_ref().and_then(|expected| expected.of(case)) else {
            println!("{case:<18}{figure:>14}{:>10}{:>14}", "-", "-");
            if !record && binding {
                worse.push(*case);
            }
            continue;
        };
        let difference = 100.0 * (figure as f64 / before as f64 - 1.0);
        println!("{case:<18}{figure:>14}{before:>10}{difference:>+12.1} %");
        if difference > TOLERANCE {
            worse.push(*case);
        } else if difference < -TOLERANCE {
            better.push(*case);
        }
    }
    if record {
        if let Err(error) = (Expected { taken_with: here, figures }).write(&path) {
            eprintln!("instructions: {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
        println!("written to {}", path.display());
        return ExitCode::SUCCESS;
    }
    let Some(expected) = expected else {
        eprintln!("instructions: nothing to compare with in {}", path.display());
        return ExitCode::FAILURE;
    };
    if !binding {
        println!("taken with {}, and this is {here}: no difference fails", expected.taken_with);
        return ExitCode::SUCCESS;
    }
    if !better.is_empty() {
        println!("better by more than {TOLERANCE} %, so record that: {}", better.join(", "));
    }
    if !worse.is_empty() {
        println!("worse by more than {TOLERANCE} %, or not recorded: {}", worse.join(", "));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Instructions an operation.
fn measure(case: &str) -> Option<u64> {
    let (short, long) = (count(case, SHORT)?, count(case, LONG)?);
    Some((long.checked_sub(short)? as f64 / (LONG - SHORT) as f64).round() as u64)
}

/// The instructions of a process that does `n` operations, as callgrind tells them at its end.
fn count(case: &str, n: u64) -> Option<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().ok()?)
        .args([case, &n.to_string()])
        .output()
        .ok()?;
    let told = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        eprintln!("{told}");
        return None;
    }
    let collected = told.lines().find_map(|line| line.split_once("Collected : "))?.1;
    collected.trim().parse().ok()
}
