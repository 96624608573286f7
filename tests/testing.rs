//! What tests are made of: streams in memory, ports, many orders of what is ready, the trace, a clock
//! that is moved by hand, what is expected in the log.

mod common;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::env;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use common::{Diary, one_turn, panic_of, poll_acting_when_cloned, seconds, virtual_loop};
use futures::FutureExt;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use log::{Level, Log, Metadata, Record};
use waterspout::concurrent::channel;
use waterspout::coroutine::{self, moment, sleep, spawn, spawn_named, with_timeout};
use waterspout::net::{BindOptions, bind_sockets};
use waterspout::testing::{self, ExpectLog, ExpectPanic, Logger, explore};
use waterspout::{Coroutine, Interest, IoLoop, Step};

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

#[test]
fn an_unused_port_may_be_on_another_address_and_be_shared() {
    let bind = |options: &BindOptions| testing::bind_unused_port_with(options).unwrap();
    let options = BindOptions { address: Some("127.0.0.2".into()), ..BindOptions::default() };
    let (listener, port) = bind(&options);
    assert_eq!(listener.local_addr().unwrap(), ([127, 0, 0, 2], port).into());
    // It blocks, as std's do.
    let connects = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    assert_eq!(listener.accept().unwrap().1, connects.local_addr().unwrap());
    let shared = BindOptions { reuse_port: true, ..BindOptions::default() };
    let (listener, port) = bind(&shared);
    assert_eq!(listener.local_addr().unwrap(), ([127, 0, 0, 1], port).into());
    let shared = BindOptions { address: Some("127.0.0.1".into()), ..shared };
    assert!(bind_sockets(port, &shared).is_ok());
    let alone = BindOptions { reuse_port: false, ..shared };
    assert_eq!(bind_sockets(port, &alone).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    let invalid = BindOptions { address: Some("no address".into()), ..BindOptions::default() };
    assert!(testing::bind_unused_port_with(&invalid).is_err());
}

// ---------------------------------------------------------------------------------------------
// Settling

#[waterspout::test(virtual_time)]
async fn settling_runs_what_is_queued_and_what_that_queues_and_takes_no_time() {
    let (diary, begun) = (Diary::default(), coroutine::now());
    let late = diary.clone();
    drop(spawn(async move {
        sleep(Duration::from_nanos(1)).await;
        late.write("late");
    }));
    let chained = diary.clone();
    drop(spawn(async move {
        for n in 0..200 {
            spawn(moment()).await;
            let (inner, last) = (chained.clone(), n == 199);
            IoLoop::current().add_callback(move || {
                if last {
                    inner.write("chained")
                }
            });
        }
    }));
    IoLoop::current().call_later(Duration::ZERO, diary.writing("due"));
    IoLoop::current()
        .handle()
        .add_callback({
            let posted = Mutex::new(0);
            move || *posted.lock().unwrap() += 1
        })
        .unwrap();
    testing::settle().await;
    let mut told = diary.read();
    told.sort_unstable();
    assert_eq!((told, coroutine::now()), (vec!["chained".into(), "due".into()], begun));
    // With nothing to do it is done soon.
    let turns = IoLoop::current().counters().turns;
    testing::settle().await;
    assert!(IoLoop::current().counters().turns - turns <= 2);
    assert!(diary.read().is_empty());
}

#[waterspout::test]
async fn settling_deals_with_what_has_arrived_at_sockets() {
    let (one, other) = testing::tcp_pair().await.unwrap();
    let echoes = coroutine::start(async move {
        let mut buf = [0; 1];
        while other.read(&mut buf).await.unwrap() > 0 {
            other.write_all(&buf).await.unwrap();
        }
    });
    for n in 0..10 {
        one.write_all(&[n]).await.unwrap();
        testing::settle().await;
        assert_eq!(one.try_read(&mut [0; 10]).unwrap(), 1);
    }
    drop(one);
    testing::settle().await;
    assert!(echoes.done());
}

#[waterspout::test(virtual_time)]
async fn several_may_settle_at_the_same_time_and_one_that_stops_keeps_nobody() {
    let chain = spawn(async {
        for _ in 0..50 {
            moment().await;
        }
    });
    let settling: Vec<_> = (0..5).map(|_| coroutine::start(testing::settle())).collect();
    settling[2].cancel();
    let both = futures::future::join(testing::settle(), testing::settle());
    both.await;
    testing::settle().await;
    assert!(chain.done() && settling.iter().all(Coroutine::done));
}

#[test]
fn what_wakes_itself_for_ever_does_not_settle() {
    let io_loop = virtual_loop();
    let said = panic_of(|| {
        io_loop.run_sync(async || {
            drop(spawn(async {
                loop {
                    moment().await;
                }
            }));
            testing::settle().await;
        })
    });
    assert!(said.starts_with("settle (tests/testing.rs:"), "{said}");
    assert!(said.contains("it wakes itself for ever"), "{said}");
    // It is not taken for one who settles, after that.
    io_loop.close();
    virtual_loop().run_sync(testing::settle).unwrap();
}

#[test]
fn outside_of_any_loop_there_is_nothing_to_settle() {
    let settles = || {
        let mut settling = Box::pin(testing::settle());
        let once = common::poll(&mut settling).is_ready();
        once || common::poll(&mut settling).is_ready()
    };
    assert!(thread::spawn(settles).join().unwrap());
}

// ---------------------------------------------------------------------------------------------
// Panics that are expected

#[test]
fn panics_are_expected_by_their_message_and_by_the_thread() {
    let quiet = ExpectPanic::new("as asked");
    let caught = catch_unwind(|| panic!("as asked, by text"));
    assert!(caught.is_err());
    let caught = catch_unwind(|| panic!("{}", String::from("as asked, by a String")));
    assert!(caught.is_err());
    assert_eq!(quiet.count(), 2);
    let any = ExpectPanic::new("a payload that is not text");
    assert!(catch_unwind(|| std::panic::panic_any(7)).is_err());
    assert_eq!((any.count(), quiet.count()), (1, 2));
    assert!(catch_unwind(|| panic!("not as asked")).is_err());
    assert_eq!(quiet.count(), 2);
    // Nor on another thread.
    assert!(thread::spawn(|| panic!("as asked elsewhere")).join().is_err());
    assert_eq!(quiet.count(), 2);
}

#[test]
fn the_messages_of_expected_panics_are_missing_on_standard_error_and_no_others() {
    const RUN: &str = "EXPECT_PANIC_IN_CHILD";
    let test = "the_messages_of_expected_panics_are_missing_on_standard_error_and_no_others";
    if env::var_os(RUN).is_some() {
        // A hook of the user's own, beneath.
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            eprintln!("the user's hook");
            before(info);
        }));
        let io_loop = IoLoop::new().unwrap();
        let ran = io_loop.run_sync(async || {
            let _quiet = ExpectPanic::new("as asked");
            let logged = ExpectLog::new("waterspout::application", "exception in callback");
            IoLoop::current().add_callback(|| panic!("as asked"));
            testing::settle().await;
            assert_eq!(logged.count(), 1);
        });
        ran.unwrap();
        let _quiet = ExpectPanic::new("as asked");
        assert!(catch_unwind(|| panic!("as asked")).is_err());
        panic!("the test's own");
    }
    let mut again = Command::new(env::current_exe().unwrap());
    again.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(RUN, "");
    let output = again.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("the test's own") && !said.contains("as asked"), "{said}");
    assert_eq!(said.matches("the user's hook").count(), 1, "{said}");
}

#[test]
fn a_panic_that_is_expected_and_does_not_come_is_a_failure() {
    let said = panic_of(|| drop(ExpectPanic::new("as asked")));
    let begins = "nothing panicked with a message that begins with \"as asked\" (tests/testing.rs:";
    assert!(said.starts_with(begins), "{said}");
    // But a test that fails anyway fails by its own.
    let said = panic_of(|| {
        let _quiet = ExpectPanic::new("as asked");
        panic!("its own")
    });
    assert_eq!(said, "its own");
}

#[test]
fn a_destructor_may_expect_a_panic_while_its_thread_panics() {
    struct Expects;
    impl Drop for Expects {
        fn drop(&mut self) {
            let quiet = ExpectPanic::new("as asked");
            assert!(catch_unwind(|| panic!("as asked")).is_err());
            // If this was the first one, its hook is not there yet.
            let _ = quiet.count();
        }
    }
    let said = panic_of(|| {
        let _expects = Expects;
        panic!("its own")
    });
    assert_eq!(said, "its own");
}

// ---------------------------------------------------------------------------------------------
// Many orders of what is ready

fn shuffled(seed: u64) -> IoLoop {
    IoLoop::builder().virtual_time().shuffle(seed).build().unwrap()
}

/// What is ready at the start of one turn, as it runs under a seed: a callback, a coroutine, a
/// callback by a handle, and so on.
fn order_of(entries: usize, seed: u64) -> Vec<String> {
    let (io_loop, diary) = (shuffled(seed), Diary::new());
    for n in 0..entries {
        let write = diary.writing(n);
        match n % 2 {
            0 => io_loop.add_callback(write),
            _ => drop(io_loop.spawn(async { write() })),
        }
    }
    one_turn(&io_loop);
    diary.read()
}

#[test]
fn a_seed_gives_the_same_order_each_time_and_another_seed_another_one() {
    let orders: Vec<_> = (0..20).map(|seed| order_of(20, seed)).collect();
    assert_eq!(orders, (0..20).map(|seed| order_of(20, seed)).collect::<Vec<_>>());
    assert_eq!(orders.iter().collect::<BTreeSet<_>>().len(), 20);
}

#[test]
fn every_order_of_callbacks_and_coroutines_comes_up() {
    let orders: BTreeSet<_> = (0..1000).map(|seed| order_of(4, seed)).collect();
    assert_eq!(orders.len(), 24);
}

#[test]
fn without_a_seed_the_order_is_that_of_coming() {
    let (io_loop, diary) = (virtual_loop(), Diary::new());
    for n in 0..5 {
        io_loop.add_callback(diary.writing(n));
    }
    one_turn(&io_loop);
    assert_eq!(diary.read(), ["0", "1", "2", "3", "4"]);
}

#[test]
fn whatever_the_order_a_turn_runs_the_same() {
    for seed in 0..100 {
        let (io_loop, diary) = (shuffled(seed), Diary::new());
        for _ in 0..4 {
            let (inner, diary) = (io_loop.clone(), diary.clone());
            io_loop.add_callback(move || {
                diary.write("first");
                inner.add_callback(diary.writing("second"));
                drop(inner.spawn(async move { diary.write("second") }));
            });
        }
        one_turn(&io_loop);
        assert_eq!(diary.read(), ["first"; 4], "seed {seed}");
        one_turn(&io_loop);
        assert_eq!(diary.read(), ["second"; 8], "seed {seed}");
    }
}

#[test]
fn whatever_the_order_timers_come_after_what_is_ready_and_by_their_deadlines() {
    for seed in 0..100 {
        let (io_loop, diary) = (shuffled(seed), Diary::new());
        for (delay, name) in [(2, "later"), (1, "soon"), (1, "soon, too")] {
            io_loop.call_later(seconds(delay), diary.writing(name));
        }
        io_loop.advance(seconds(3));
        for _ in 0..2 {
            io_loop.add_callback(diary.writing("ready"));
        }
        one_turn(&io_loop);
        assert_eq!(diary.read(), ["ready", "ready", "soon", "soon, too", "later"], "seed {seed}");
    }
}

#[test]
fn a_seed_gives_the_same_steps_each_time() {
    let steps = |seed| {
        let io_loop = IoLoop::builder().virtual_time().shuffle(seed).trace(1000).build().unwrap();
        io_loop.run_sync(workers).unwrap();
        io_loop.trace()
    };
    assert_eq!(steps(1), steps(1));
    assert_ne!(steps(1), steps(2));
}

/// Some that sleep, and wake in the same turns.
async fn workers() {
    let work = |name, period| {
        spawn_named(name, async move {
            for _ in 0..6 {
                sleep(seconds(period)).await;
            }
        })
    };
    for worker in [work("ann", 1), work("bob", 2), work("eve", 3)] {
        worker.await;
    }
}

#[test]
fn an_explored_body_may_be_an_async_closure_that_borrows() {
    let seen = RefCell::new(Vec::new());
    let held = String::from("held");
    explore(3, async move || {
        let held = &held;
        moment().await;
        assert_eq!(held, "held");
    });
    explore(3, async || {
        moment().await;
        seen.borrow_mut().push(());
    });
    assert_eq!(seen.take().len(), 3);
}

#[test]
fn exploring_takes_each_seed_once_on_a_loop_in_virtual_time() {
    let orders = RefCell::new(Vec::new());
    let start = std::time::Instant::now();
    explore(20, || async {
        let diary = Diary::new();
        let (ann, bob) = (diary.clone(), diary.clone());
        let children =
            [spawn(async move { ann.write("ann") }), spawn(async move { bob.write("bob") })];
        for child in children {
            child.await;
        }
        sleep(seconds(3600)).await;
        assert!(IoLoop::current().time() > start + seconds(3600));
        orders.borrow_mut().push(diary.read());
    });
    let orders = orders.into_inner();
    assert_eq!(orders.len(), 20);
    for order in [["ann", "bob"], ["bob", "ann"]] {
        assert!(orders.iter().any(|other| *other == order));
    }
}

#[test]
fn a_test_that_is_stuck_under_a_seed_fails() {
    let stuck = || explore(3, || async { spawn_named("forever", std::future::pending()).await });
    let said = panic_of(stuck);
    assert!(said.contains("timed out") && said.contains("`forever`"), "{said}");
}

#[test]
fn the_seed_that_failed_is_told_and_can_be_run_alone() {
    const TEST: &str = "the_seed_that_failed_is_told_and_can_be_run_alone";
    const IN_CHILD: &str = "WATERSPOUT_TEST_EXPLORES";
    if env::var_os(IN_CHILD).is_some() {
        return explore(1000, || async {
            eprintln!("tried");
            let diary = Diary::new();
            let children = [1, 2, 3].map(|n| {
                let diary = diary.clone();
                spawn(async move { diary.write(n) })
            });
            for child in children {
                child.await;
            }
            assert_ne!(diary.read(), ["3", "2", "1"]);
        });
    }
    // The standard error of a process in which this fails, and how many seeds it took.
    let fails = |seed: Option<&str>| {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", TEST, "--nocapture"]).env(IN_CHILD, "1");
        command.env_remove("WATERSPOUT_SEED");
        command.envs(seed.map(|seed| ("WATERSPOUT_SEED", seed)));
        let output = command.output().unwrap();
        assert!(!output.status.success());
        let said = String::from_utf8(output.stderr).unwrap();
        let tried = said.lines().filter(|line| *line == "tried").count();
        (said, tried)
    };
    let (said, tried) = fails(None);
    let told = said.lines().find_map(|line| line.strip_prefix("failed under seed ")).unwrap();
    let (seed, _) = told.split_once(';').unwrap();
    // It is the first that failed: all before it were tried.
    assert_eq!(seed.parse(), Ok(tried - 1));
    let (again, tried) = fails(Some(seed));
    assert!(again.contains(&format!("failed under seed {seed};")), "{again}");
    assert_eq!(tried, 1);
}

// ---------------------------------------------------------------------------------------------
// The trace

fn traced(steps: usize) -> IoLoop {
    IoLoop::builder().virtual_time().trace(steps).build().unwrap()
}

#[test]
fn the_trace_has_every_step_in_order() {
    let io_loop = traced(100);
    let lines = Cell::new((0, 0));
    let inner = io_loop.clone();
    let program = || async {
        lines.set((line!() + 1, line!() + 2));
        inner.add_callback(|| {});
        inner.call_later(seconds(1), || {});
        spawn_named("child", sleep(seconds(2))).await;
    };
    io_loop.run_sync(program).unwrap();
    let told: Vec<_> = io_loop.trace().iter().map(Step::to_string).collect();
    // Without the columns.
    let no_column = |step: &String| match step.rsplit_once(':') {
        Some((call, _)) if call.starts_with("call ") => call.to_owned(),
        _ => step.clone(),
    };
    let steps: Vec<_> = told.iter().map(no_column).collect();
    let (callback, timer) = lines.get();
    let [callback, timer] = [callback, timer].map(|line| format!("call {}:{line}", file!()));
    let first = ["turn", "resume run_sync", "turn", &callback, "resume child", "poll: 0 events"];
    assert_eq!(steps[..6], first);
    // How often it looks at the clock and the selector between them is its own affair.
    let busy = |step: &&String| !["turn", "poll: 0 events"].contains(&step.as_str());
    let rest: Vec<_> = steps[6..].iter().filter(busy).collect();
    assert_eq!(rest, [&*timer, "resume child", "resume run_sync"]);
}

/// Also of those that begin for timers in the midst of a long one.
#[test]
fn the_trace_tells_of_every_turn_that_is_counted() {
    let io_loop = traced(10_000);
    for n in 0..200 {
        let inner = io_loop.clone();
        io_loop.add_callback(move || {
            if n == 0 {
                inner.call_later(Duration::ZERO, || ());
            }
        });
    }
    io_loop.run_sync(|| sleep(seconds(1))).unwrap();
    let turns = io_loop.trace().iter().filter(|step| **step == Step::Turn).count();
    assert_eq!(turns as u64, io_loop.counters().turns);
}

#[test]
fn the_trace_tells_events_and_handlers() {
    let io_loop = traced(100);
    let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
    io_loop.add_handler(one, Interest::READ, |_, _| IoLoop::current().stop()).unwrap();
    io::Write::write_all(&mut &other, b"x").unwrap();
    io_loop.start().unwrap();
    let steps = io_loop.trace();
    let expected = [Step::Turn, Step::Poll(1), Step::Turn, Step::Resume(None)];
    assert_eq!(steps, expected);
}

#[test]
fn the_trace_keeps_the_last_steps_and_none_unless_asked() {
    let last = |steps| {
        let io_loop = traced(steps);
        io_loop.run_sync(workers).unwrap();
        io_loop.trace()
    };
    let all = last(1000);
    assert!(all.len() > 20 && all.len() < 1000);
    assert_eq!(last(7), all[all.len() - 7..]);
    assert_eq!(last(0), []);
    let untraced = virtual_loop();
    untraced.run_sync(workers).unwrap();
    assert_eq!(untraced.trace(), []);
}

// ---------------------------------------------------------------------------------------------
// A clock that is moved by hand

#[test]
fn the_clock_is_where_it_was_moved_and_nothing_fires_before_the_next_turn() {
    let (io_loop, diary) = (virtual_loop(), Diary::new());
    for (delay, name) in [(5, "five"), (10, "ten"), (1, "one")] {
        io_loop.call_later(seconds(delay), diary.writing(name));
    }
    let start = io_loop.time();
    io_loop.advance(seconds(4));
    io_loop.advance(Duration::from_millis(1500));
    assert_eq!(io_loop.time(), start + Duration::from_millis(5500));
    assert_eq!(diary.read(), [""; 0]);
    one_turn(&io_loop);
    assert_eq!(diary.read(), ["one", "five"]);
    one_turn(&io_loop);
    assert_eq!((diary.read(), io_loop.time()), (vec![], start + Duration::from_millis(5500)));
    io_loop.advance(Duration::from_millis(4500));
    one_turn(&io_loop);
    assert_eq!(diary.read(), ["ten"]);
}

#[test]
fn a_callback_may_move_the_clock_and_what_is_set_after_counts_from_there() {
    let (io_loop, diary) = (virtual_loop(), Diary::new());
    let start = io_loop.time();
    let (inner, write) = (io_loop.clone(), diary.clone());
    io_loop.call_later(seconds(3), diary.writing("due by then"));
    io_loop.add_callback(move || {
        inner.advance(seconds(10));
        inner.call_later(seconds(1), write.writing("one more second"));
        write.write("moved");
    });
    one_turn(&io_loop);
    // The turn's timers were collected when it began.
    assert_eq!(diary.read(), ["moved"]);
    one_turn(&io_loop);
    assert_eq!(diary.read(), ["due by then"]);
    let stops = io_loop.clone();
    io_loop.call_later(seconds(1), move || stops.stop());
    io_loop.start().unwrap();
    assert_eq!(
        (diary.read(), io_loop.time()),
        (vec!["one more second".into()], start + seconds(11))
    );
}

#[waterspout::test(virtual_time)]
async fn sleepers_and_time_limits_end_when_the_clock_is_moved_past_them() {
    let io_loop = IoLoop::current();
    let slept = spawn(async {
        sleep(seconds(60)).await;
        IoLoop::current().time()
    });
    let limited = spawn(with_timeout(seconds(30), std::future::pending::<()>()));
    moment().await;
    let start = io_loop.time();
    io_loop.advance(seconds(59));
    assert!(limited.await.is_err());
    assert!(!slept.done());
    assert_eq!(io_loop.time(), start + seconds(59));
    io_loop.advance(seconds(3));
    assert_eq!(slept.await, start + seconds(62));
}

#[test]
fn the_clock_moves_as_far_as_it_counts_and_no_further() {
    let (io_loop, diary) = (virtual_loop(), Diary::new());
    io_loop.call_later(seconds(1), diary.writing("due"));
    io_loop.advance(Duration::ZERO);
    one_turn(&io_loop);
    assert_eq!(diary.read(), [""; 0]);
    io_loop.advance(seconds(100 * 365 * 24 * 3600));
    io_loop.advance(Duration::MAX);
    one_turn(&io_loop);
    assert_eq!(diary.read(), ["due"]);
}

#[test]
fn the_real_clock_cannot_be_moved() {
    let said = panic_of(|| IoLoop::new().unwrap().advance(seconds(1)));
    assert!(said.contains("has the real clock"), "{said}");
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

// ---------------------------------------------------------------------------------------------
// What fails in the background of a test

#[waterspout::coroutine(name = "lost error")]
async fn gives_an_error() -> Result<(), &'static str> {
    moment().await;
    Err("lost")
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("lost");
    }
}

/// Every way to fail that nobody awaits.
fn failures() -> [(&'static str, fn()); 9] {
    [
        ("callback", || IoLoop::current().add_callback(|| panic!("lost"))),
        ("timer", || _ = IoLoop::current().call_later(seconds(1), || panic!("lost"))),
        ("spawn", || drop(spawn(async { panic!("lost") }))),
        ("start", || drop(coroutine::start(async { panic!("lost") }))),
        ("coroutine", || drop(gives_an_error())),
        ("spawn_callback", || IoLoop::current().spawn_callback(|| async { Err::<(), _>("lost") })),
        ("promise", || {
            let (promise, future) = waterspout::concurrent::promise::<()>();
            promise.set_exception("lost");
            drop(future);
        }),
        ("group", || {
            let group = coroutine::TaskGroup::independent();
            group.start(async { Err("lost") });
        }),
        // Suspended when the test ends, it fails when the loop is closed.
        ("close", || {
            let bomb = Bomb;
            drop(coroutine::start(async move {
                let _bomb = bomb;
                std::future::pending::<()>().await
            }));
        }),
    ]
}

#[test]
fn what_fails_in_the_background_fails_the_test() {
    for (name, fail) in failures() {
        let said = panic_of(|| {
            explore(1, || async {
                fail();
                sleep(seconds(2)).await;
            })
        });
        let told = said.contains("what failed in the background") && said.contains("exception in");
        assert!(told && said.contains("lost"), "{name}: {said}");
        assert_eq!(said.matches("exception in").count(), 1, "{name}: {said}");
    }
}

#[test]
fn every_failure_in_the_background_is_told_of_beside_that_of_the_test() {
    let said = panic_of(|| {
        explore(1, || async {
            failures().into_iter().for_each(|(_, fail)| fail());
            spawn_named("forever", std::future::pending()).await
        })
    });
    assert!(said.contains("timed out") && said.contains("`forever`"), "{said}");
    assert!(said.contains("`lost error`"), "{said}");
    assert_eq!(said.matches("exception in").count(), failures().len(), "{said}");
}

#[test]
fn a_test_that_fails_for_ever_in_the_background_tells_of_the_first_times() {
    let said = panic_of(|| {
        explore(1, || async {
            (0..5000).for_each(|_| drop(coroutine::start(async { panic!("lost") })));
        })
    });
    assert_eq!(said.matches("panicked: lost").count(), 100);
    assert!(said.contains("and 4900 more"), "{said}");
}

#[waterspout::test]
#[should_panic(expected = "what failed in the background, which nobody awaited or expected:\n  \
                           exception in coroutine `lost error`")]
async fn the_attribute_sees_to_the_background_too() {
    drop(gives_an_error());
    moment().await;
    moment().await;
}

#[test]
fn a_test_that_returns_an_error_tells_of_both() {
    use waterspout::__private::{TestOptions, run_test};
    let options =
        TestOptions { name: "both", timeout: None, virtual_time: true, allow_exceptions: false };
    let error_in = |result: &Result<(), &str>| result.err().map(String::from);
    let said = panic_of(|| {
        run_test(options, error_in, || async {
            IoLoop::current().add_callback(|| panic!("lost"));
            moment().await;
            Err("of its own")
        })
    });
    let both = "`both`: returned the error of its own\nwhat failed in the background";
    assert!(said.starts_with(both) && said.contains("panicked: lost"), "{said}");
}

#[waterspout::test(allow_exceptions)]
async fn a_test_may_allow_what_fails_in_the_background() {
    Logger::install(Passed);
    drop(gives_an_error());
    moment().await;
    moment().await;
    assert_eq!(IoLoop::current().counters().exceptions, 1);
}

#[test]
fn what_is_expected_in_the_log_fails_no_test() {
    Logger::install(Passed);
    explore(3, || async {
        let expected = ExpectLog::new("waterspout", "exception in");
        failures().into_iter().take(8).for_each(|(_, fail)| fail());
        sleep(seconds(2)).await;
        assert_eq!(expected.count(), 8);
    });
    let said = panic_of(|| {
        explore(1, || async {
            let _expected = ExpectLog::new("waterspout", "exception in callback");
            IoLoop::current().add_callback(|| panic!("as it should"));
            drop(gives_an_error());
            sleep(seconds(2)).await;
        })
    });
    assert!(said.contains("`lost error`") && !said.contains("as it should"), "{said}");
}

#[test]
fn an_error_that_cannot_be_put_into_words_fails_the_test_all_the_same() {
    #[derive(Debug)]
    struct Shy;
    impl std::fmt::Display for Shy {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("do not look")
        }
    }
    impl std::error::Error for Shy {}
    let said = panic_of(|| {
        explore(1, || async {
            let (promise, future) = waterspout::concurrent::promise::<()>();
            promise.set_exception(Shy);
            drop(future);
        })
    });
    assert!(said.contains("do not look"), "{said}");
}

// ---------------------------------------------------------------------------------------------
// What holds virtual time

const HOUR: Duration = Duration::from_secs(3600);

#[waterspout::test(virtual_time)]
async fn a_thread_that_has_a_guard_along_is_waited_for() {
    let io_loop = IoLoop::current();
    let (begun, held) = (coroutine::now(), [io_loop.hold_time(), io_loop.handle().hold_time()]);
    let (sender, mut receiver) = channel(1);
    let threads = held.map(|held| {
        let sender = sender.clone();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            sender.blocking_send("in time").unwrap();
            // The loop is to hear of that, too, before time goes on.
            drop(sender);
            drop(held);
        })
    });
    drop(sender);
    for _ in &threads {
        assert_eq!(with_timeout(HOUR, receiver.recv()).await, Ok(Some("in time")));
    }
    assert_eq!(coroutine::now(), begun);
    assert_eq!(receiver.recv().await, None);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[waterspout::test(virtual_time)]
async fn letting_go_wakes_a_loop_that_is_held() {
    let (begun, held) = (coroutine::now(), IoLoop::current().hold_time());
    let thread = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        drop(held);
    });
    coroutine::sleep(HOUR).await;
    assert_eq!(coroutine::now() - begun, HOUR);
    thread.join().unwrap();
}

#[waterspout::test(virtual_time)]
async fn a_clock_that_is_held_goes_on_as_the_real_one_does() {
    let _held = IoLoop::current().hold_time();
    let (begun, real) = (coroutine::now(), Instant::now());
    let polls = IoLoop::current().counters().polls;
    for n in 1..=3 {
        coroutine::sleep_until(begun + n * Duration::from_millis(10)).await;
    }
    assert!(real.elapsed() >= Duration::from_millis(30));
    let polls = IoLoop::current().counters().polls - polls;
    assert!(polls <= 30, "it sleeps meanwhile: {polls}");
    assert_eq!(coroutine::now() - begun, Duration::from_millis(30));
}

#[waterspout::test(virtual_time)]
async fn a_clock_that_is_held_again_counts_from_then() {
    let held = IoLoop::current().hold_time();
    let (sender, mut receiver) = channel(1);
    let thread = thread::spawn(move || {
        thread::sleep(Duration::from_millis(5));
        sender.blocking_send(()).unwrap();
    });
    assert!(with_timeout(HOUR, receiver.recv()).await.is_ok());
    drop(held);
    thread.join().unwrap();
    moment().await;
    thread::sleep(Duration::from_millis(30));
    let (_held, real) = (IoLoop::current().hold_time(), Instant::now());
    coroutine::sleep(Duration::from_millis(20)).await;
    assert!(real.elapsed() >= Duration::from_millis(20));
}

#[waterspout::test(virtual_time)]
async fn an_idle_sender_on_another_thread_does_not_hold_the_clock() {
    let (sender, mut receiver) = channel::<()>(1);
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let thread = thread::spawn(move || (ended.recv().is_err(), sender));
    assert!(with_timeout(HOUR, receiver.recv()).await.is_err());
    drop(end);
    assert!(thread.join().unwrap().0);
}

#[waterspout::test(virtual_time)]
async fn the_answer_of_another_loop_is_waited_for_and_one_of_its_own_is_not() {
    let begun = coroutine::now();
    let (lend, lent) = std::sync::mpsc::channel();
    let thread = thread::spawn(move || {
        let io_loop = IoLoop::new().unwrap();
        lend.send(io_loop.handle()).unwrap();
        io_loop.start().unwrap();
    });
    let other = lent.recv().unwrap();
    let slow = || coroutine::sleep(Duration::from_millis(20));
    with_timeout(HOUR, other.spawn(slow).unwrap()).await.unwrap().unwrap();
    assert_eq!(coroutine::now(), begun);
    other.stop().unwrap();
    thread.join().unwrap();
    let own = IoLoop::current().handle().spawn(|| coroutine::sleep(HOUR)).unwrap();
    with_timeout(2 * HOUR, own).await.unwrap().unwrap();
    assert_eq!(coroutine::now() - begun, HOUR);
}

#[test]
fn the_time_is_the_loops_and_without_one_the_present() {
    let io_loop = IoLoop::builder().virtual_time().build().unwrap();
    io_loop.advance(HOUR);
    io_loop.run_sync(|| async { assert_eq!(coroutine::now(), IoLoop::current().time()) }).unwrap();
    drop(io_loop);
    let (before, now) = (Instant::now(), coroutine::now());
    assert!(before <= now && now <= Instant::now());
    assert_eq!(IoLoop::try_current(), None, "it makes none");
}

#[test]
fn a_waker_may_use_the_stream_in_memory_when_it_is_cloned() {
    let (mut one, other) = testing::duplex(3);
    let mut buf = [0; 3];
    let mut read = one.read(&mut buf);
    assert!(poll_acting_when_cloned(&mut read, move || drop(other)).is_ready());
}
