//! Coroutines: when they start, how they end, who hears of it.

mod common;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use common::{Diary, one_turn, own_waker, panic_of, suspend, virtual_loop};
use futures::FutureExt;
use futures::future::{join_all, pending};
use futures::stream::{FuturesUnordered, StreamExt};
use waterspout::coroutine::{self, moment, sleep, sleep_until, spawn, spawn_named, start};
use waterspout::{Coroutine, IoLoop};

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[waterspout::coroutine]
async fn write_twice(diary: Diary, name: &'static str) {
    diary.write(format!("{name} begins"));
    suspend().await;
    diary.write(format!("{name} ends"));
}

// When they start

#[waterspout::test]
async fn a_call_runs_to_the_first_suspension_before_it_returns() {
    let diary = Diary::new();
    diary.write("call");
    let coroutine = write_twice(diary.clone(), "it");
    diary.write("returned");
    coroutine.await;
    assert_eq!(diary.read(), ["call", "it begins", "returned", "it ends"]);
}

#[waterspout::test]
async fn a_spawned_one_runs_from_the_next_turn_on() {
    let diary = Diary::new();
    let inside = diary.clone();
    let coroutine = spawn(async move { inside.write("runs") });
    diary.write("spawned");
    assert!(!coroutine.done());
    coroutine.await;
    assert_eq!(diary.read(), ["spawned", "runs"]);
}

#[waterspout::test]
async fn one_that_never_suspends_never_touches_the_run_queue() {
    let before = IoLoop::current().counters();
    for n in 0..100 {
        let coroutine = start(async move { n });
        assert!(coroutine.done());
        assert_eq!(coroutine.await, n);
    }
    let after = IoLoop::current().counters();
    assert_eq!((after.resumes, after.turns), (before.resumes, before.turns));
    assert_eq!((after.started - before.started, after.live), (100, before.live));
}

#[test]
fn outside_of_a_running_loop_both_ways_work_and_the_loop_takes_them_up() {
    let io_loop = virtual_loop();
    io_loop.make_current();
    let diary = Diary::new();
    let started = write_twice(diary.clone(), "started");
    let inside = diary.clone();
    let spawned = spawn(async move { inside.write("spawned runs") });
    assert_eq!(diary.read(), ["started begins"]);
    one_turn(&io_loop);
    assert_eq!(diary.read(), ["started ends", "spawned runs"]);
    assert!(started.done() && spawned.done());
    IoLoop::clear_current();
}

#[test]
fn a_loop_can_be_given_one_while_another_is_current() {
    let (here, there) = (virtual_loop(), virtual_loop());
    let diary = Diary::new();
    let inside = diary.clone();
    here.run_sync(|| async {
        let coroutine =
            there.spawn(async move { inside.write(format!("{:?}", IoLoop::current())) });
        moment().await;
        assert!(!coroutine.done());
    })
    .unwrap();
    one_turn(&there);
    assert_eq!(diary.read(), [format!("{there:?}")]);
}

#[waterspout::test]
async fn recursion_is_as_deep_as_the_stack() {
    #[waterspout::coroutine]
    async fn down(n: u32) -> u32 {
        if n == 0 {
            suspend().await;
            return 0;
        }
        down(n - 1).await + 1
    }
    assert_eq!(down(1000).await, 1000);
}

// Which one is current

#[test]
fn the_current_one_is_put_aside_while_another_begins() {
    let name = || coroutine::current().map(|info| info.name);
    assert_eq!(name(), None);
    virtual_loop()
        .run_sync(|| async {
            assert_eq!(name(), Some("run_sync"));
            let outer = spawn_named("outer", async move {
                assert_eq!(name(), Some("outer"));
                let inner = write_current("inner");
                assert_eq!(name(), Some("outer"));
                inner.await;
                assert_eq!(name(), Some("outer"));
            });
            outer.await;
            assert_eq!(name(), Some("run_sync"));
            IoLoop::current().add_callback(move || assert_eq!(name(), None));
            moment().await;
        })
        .unwrap();
    assert_eq!(name(), None);

    #[waterspout::coroutine(name = "inner")]
    async fn write_current(expected: &'static str) {
        for _ in 0..2 {
            assert_eq!(coroutine::current().unwrap().name, expected);
            suspend().await;
        }
    }
}

#[test]
fn the_current_one_comes_back_also_after_a_panic_in_the_eager_part() {
    let io_loop = virtual_loop();
    io_loop
        .run_sync(|| async {
            let panics = start(async { panic!("at once") });
            assert_eq!(coroutine::current().unwrap().name, "run_sync");
            assert!(panics.join().await.unwrap_err().is_panic());
        })
        .unwrap();
}

#[waterspout::test]
async fn names_and_places_tell_them_apart() {
    let named = spawn_named("by hand", pending::<()>());
    assert_eq!(named.name(), "by hand");
    let coroutine = write_twice(Diary::new(), "x");
    assert_eq!(coroutine.name(), concat!(module_path!(), "::write_twice"));
    let info = coroutine.info();
    assert_eq!((info.started_at.file(), info.started_at.line()), (file!(), line!() - 3));
    moment().await;
    let all = IoLoop::current().coroutines();
    assert!(all.iter().any(|info| info.name == "by hand" && info.started_at.file() == file!()));
    let text = format!("{named:?}");
    assert!(text.contains("by hand") && text.contains(file!()), "{text}");
}

#[waterspout::test(virtual_time)]
async fn one_that_sleeps_says_where() {
    let sleeping = start(async {
        sleep(seconds(1)).await;
    });
    assert_eq!(sleeping.info().waiting_at.unwrap().line(), line!() - 2);
    sleeping.await;
}

// How they end

#[waterspout::test(virtual_time)]
async fn one_whose_handle_is_dropped_runs_on() {
    let diary = Diary::new();
    drop(write_twice(diary.clone(), "it"));
    moment().await;
    assert_eq!(diary.read(), ["it begins", "it ends"]);
}

#[waterspout::test(virtual_time)]
async fn cancel_drops_the_state_where_it_is_suspended() {
    let diary = Diary::new();
    let held = diary.at_end("dropped");
    let inside = diary.clone();
    let coroutine = start(async move {
        held.keep();
        pending::<()>().await;
        inside.write("never");
    });
    diary.write("cancel");
    coroutine.cancel();
    diary.write("cancelled");
    assert!(coroutine.done());
    coroutine.cancel();
    let error = coroutine.join().await.unwrap_err();
    assert!(error.is_cancelled() && !error.is_panic());
    assert!(error.to_string().ends_with("was cancelled"), "{error}");
    assert!(error.into_panic().is_err());
    assert_eq!(diary.read(), ["cancel", "dropped", "cancelled"]);
}

#[waterspout::test(virtual_time)]
async fn one_that_was_queued_and_is_cancelled_never_runs() {
    let ran = Rc::new(Cell::new(false));
    let inside = ran.clone();
    let coroutine = spawn(async move { inside.set(true) });
    coroutine.cancel();
    moment().await;
    assert!(coroutine.done() && !ran.get());
}

#[waterspout::test(virtual_time)]
async fn one_that_cancels_itself_ends_at_its_next_suspension() {
    let diary = Diary::new();
    let own: Rc<RefCell<Option<Coroutine<()>>>> = Rc::default();
    let (inside, itself) = (diary.clone(), own.clone());
    *own.borrow_mut() = Some(spawn(async move {
        itself.borrow().as_ref().unwrap().cancel();
        inside.write("runs on");
        suspend().await;
        inside.write("never");
    }));
    moment().await;
    moment().await;
    assert_eq!(diary.read(), ["runs on"]);
    assert!(own.take().unwrap().join().await.unwrap_err().is_cancelled());
}

#[waterspout::test(virtual_time)]
async fn one_that_cancels_itself_and_finishes_has_its_result() {
    let own: Rc<RefCell<Option<Coroutine<u8>>>> = Rc::default();
    let itself = own.clone();
    *own.borrow_mut() = Some(spawn(async move {
        itself.borrow().as_ref().unwrap().cancel();
        5
    }));
    moment().await;
    assert_eq!(own.take().unwrap().await, 5);
}

#[waterspout::test(virtual_time)]
async fn awaiting_a_cancelled_one_panics_with_a_sentence() {
    let coroutine = spawn_named("the lost one", pending::<()>());
    coroutine.cancel();
    let panic = std::panic::AssertUnwindSafe(coroutine).catch_unwind().await.unwrap_err();
    let message = panic.downcast::<String>().unwrap();
    assert!(message.contains("`the lost one`, which was cancelled"), "{message}");
}

#[waterspout::test(virtual_time)]
async fn dropping_a_handle_that_cancels_ends_it() {
    let diary = Diary::new();
    let held = diary.at_end("dropped");
    let coroutine = start(async move {
        held.keep();
        pending::<()>().await;
    });
    drop(coroutine.cancel_on_drop());
    assert_eq!(diary.read(), ["dropped"]);
    assert_eq!(start(async { 5 }).cancel_on_drop().await, 5);
}

#[waterspout::test(virtual_time)]
async fn a_panic_goes_on_in_who_awaits() {
    let coroutine = start(async {
        suspend().await;
        panic!("deep inside")
    });
    let panic = std::panic::AssertUnwindSafe(coroutine).catch_unwind().await.unwrap_err();
    assert_eq!(*panic.downcast::<&str>().unwrap(), "deep inside");
}

#[waterspout::test(virtual_time)]
async fn a_panic_in_the_eager_part_is_not_the_callers() {
    let coroutine: Coroutine<()> = start(async { panic!("at once") });
    assert!(coroutine.done());
    let error = coroutine.join().await.unwrap_err();
    assert!(error.is_panic() && error.to_string().ends_with("panicked: at once"), "{error}");
    assert_eq!(*error.into_panic().unwrap().downcast::<&str>().unwrap(), "at once");
}

#[test]
fn a_panic_in_the_main_future_goes_through_run_sync_and_the_loop_goes_on() {
    let io_loop = virtual_loop();
    let diary = Diary::new();
    drop(io_loop.spawn({
        let diary = diary.clone();
        async move {
            for _ in 0..3 {
                suspend().await;
            }
            diary.write("still here");
        }
    }));
    let panics = || io_loop.run_sync(|| async { panic!("main") });
    assert_eq!(panic_of(panics), "main");
    io_loop.run_sync(|| async { sleep(seconds(1)).await }).unwrap();
    assert_eq!(diary.read(), ["still here"]);
}

// Who hears of it

fn told(run: impl Future<Output = ()>) -> Vec<String> {
    let heard: Rc<RefCell<Vec<String>>> = Rc::default();
    let hears = heard.clone();
    let io_loop = IoLoop::builder()
        .virtual_time()
        .on_exception(move |exception| hears.borrow_mut().push(exception.to_string()))
        .build()
        .unwrap();
    io_loop.run_sync(|| run).unwrap();
    drop(io_loop);
    heard.take()
}

#[waterspout::coroutine]
async fn fails(at_once: bool) -> Result<(), String> {
    if !at_once {
        suspend().await;
    }
    Err("no luck".into())
}

#[waterspout::engine]
async fn engine_fails() -> Result<(), String> {
    suspend().await;
    Err("out of fuel".into())
}

#[test]
fn an_error_that_nobody_awaits_is_reported_with_name_and_place() {
    for at_once in [true, false] {
        let lines = told(async move {
            fails(at_once);
            moment().await;
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(
            lines[0].starts_with("exception in coroutine `coroutine::fails` ("),
            "{}",
            lines[0]
        );
        assert!(lines[0].contains(file!()) && lines[0].ends_with("\"no luck\""), "{}", lines[0]);
    }
}

#[test]
fn an_engine_reports_its_error() {
    let lines = told(async {
        engine_fails();
        moment().await;
    });
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains("`coroutine::engine_fails`"), "{}", lines[0]);
    assert!(lines[0].ends_with("\"out of fuel\""), "{}", lines[0]);
}

#[test]
fn an_error_that_is_awaited_or_joined_is_not_reported() {
    let lines = told(async {
        assert!(fails(true).await.is_err());
        assert!(fails(false).await.is_err());
        assert!(fails(false).join().await.unwrap().is_err());
        fails(false).cancel();
    });
    assert_eq!(lines, [""; 0]);
}

#[test]
fn a_panic_that_nobody_awaits_is_reported() {
    let lines = told(async {
        spawn_named("it", async { panic!("over here") });
        moment().await;
    });
    assert_eq!(lines.len(), 1);
    assert!(lines[0].starts_with("exception in coroutine `it` ("), "{}", lines[0]);
    assert!(lines[0].ends_with("panicked: over here"), "{}", lines[0]);
}

#[test]
fn a_handle_dropped_after_the_end_reports_as_well() {
    let lines = told(async {
        let coroutine = fails(false);
        moment().await;
        assert!(coroutine.done());
        drop(coroutine);
    });
    assert_eq!(lines.len(), 1);
}

#[test]
fn a_destructor_that_panics_while_it_is_cancelled_is_reported_and_the_rest_goes_on() {
    let lines = told(async {
        let bomb = common::AtDrop(|| panic!("in a destructor"));
        let coroutine = start(async move {
            bomb.keep();
            pending::<()>().await;
        });
        coroutine.cancel();
        assert!(coroutine.join().await.unwrap_err().is_cancelled());
        // And one that is dropped with the state machine when that has given its output.
        let bomb = common::AtDrop(|| panic!("after the output"));
        let mut bomb = Some(bomb);
        let gives = start(poll_fn(move |_| {
            bomb.as_mut().unwrap().keep();
            Poll::Ready(5)
        }));
        assert_eq!(gives.await, 5);
    });
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("exception in the destructors of coroutine"), "{}", lines[0]);
    assert!(lines[1].ends_with("after the output"), "{}", lines[1]);
}

#[waterspout::test(virtual_time)]
async fn done_callbacks_run_in_the_next_turn_in_order_also_if_it_is_done() {
    let diary = Diary::new();
    let coroutine = start(suspend());
    coroutine.add_done_callback(diary.writing("first"));
    coroutine.add_done_callback(diary.writing("second"));
    moment().await;
    assert!(coroutine.done());
    assert_eq!(diary.read(), [""; 0]);
    coroutine.add_done_callback(diary.writing("third"));
    moment().await;
    assert_eq!(diary.read(), ["first", "second", "third"]);
    let cancelled = start(pending::<()>());
    cancelled.add_done_callback(diary.writing("cancelled"));
    cancelled.cancel();
    moment().await;
    assert_eq!(diary.read(), ["cancelled"]);
}

// With another loop on the thread

#[test]
fn one_of_another_loop_is_awaited_cancelled_and_woken_from_here() {
    let (here, there) = (virtual_loop(), virtual_loop());
    let awaited = there.spawn(async { 5 });
    let cancelled = there.spawn(pending::<()>());
    let waker = Rc::new(RefCell::new(None));
    let inside = waker.clone();
    let woken = there.spawn(async move {
        *inside.borrow_mut() = Some(own_waker().await);
        let mut times = 0;
        poll_fn(|_| {
            times += 1;
            if times < 2 { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    });
    one_turn(&there);
    here.run_sync(|| async {
        assert_eq!(awaited.await, 5);
        cancelled.cancel();
        assert!(cancelled.join().await.unwrap_err().is_cancelled());
        waker.take().unwrap().wake();
        moment().await;
        assert!(!woken.done(), "it goes on in its own loop");
    })
    .unwrap();
    one_turn(&there);
    one_turn(&there);
    assert!(woken.done());
    assert_eq!(there.counters().live, 0);
}

// Sleep and moment

#[waterspout::test(virtual_time)]
async fn sleeps_end_exactly_when_they_are_due_and_count_from_their_call() {
    let io_loop = IoLoop::current();
    let begun = io_loop.time();
    let early = sleep(Duration::from_nanos(1_234_567));
    sleep(Duration::from_nanos(1_000_000)).await;
    assert_eq!(io_loop.time() - begun, Duration::from_nanos(1_000_000));
    early.await;
    assert_eq!(io_loop.time() - begun, Duration::from_nanos(1_234_567));
    sleep_until(begun + seconds(86_400 * 30)).await;
    assert_eq!(io_loop.time() - begun, seconds(86_400 * 30));
    let before = io_loop.counters().turns;
    sleep_until(begun).await;
    assert!(io_loop.counters().turns > before, "also what is due takes a turn");
}

#[waterspout::test(virtual_time)]
async fn a_sleep_that_is_dropped_takes_its_timer_back() {
    let io_loop = IoLoop::current();
    let mut asleep = Box::pin(sleep(seconds(1)));
    assert!((&mut asleep).now_or_never().is_none());
    assert_eq!(io_loop.counters().pending_timers, 2); // with the test's own limit
    drop(asleep);
    assert_eq!(io_loop.counters().pending_timers, 1);
}

#[waterspout::test(virtual_time)]
async fn a_sleep_can_be_set_anew() {
    let io_loop = IoLoop::current();
    let begun = io_loop.time();
    let mut asleep = pin!(sleep(seconds(1)));
    assert!(asleep.as_mut().now_or_never().is_none());
    asleep.as_mut().get_mut().reset(seconds(5));
    asleep.as_mut().await;
    assert!(asleep.is_over());
    assert_eq!(io_loop.time() - begun, seconds(5));
    assert_eq!(io_loop.counters().pending_timers, 1);
}

#[test]
fn a_sleep_of_another_loop_panics_with_a_sentence() {
    let (here, there) = (virtual_loop(), virtual_loop());
    let asleep = there.run_sync(|| std::future::ready(sleep(seconds(1)))).unwrap();
    let message = panic_of(|| here.run_sync(|| asleep));
    assert!(message.contains("make it where it is awaited"), "{message}");
}

#[waterspout::test(virtual_time)]
async fn a_moment_is_one_turn_also_inside_combinators() {
    let io_loop = IoLoop::current();
    let turns = || io_loop.counters().turns;
    let before = turns();
    moment().await;
    assert_eq!(turns() - before, 1);
    let before = turns();
    join_all((0..10).map(|_| moment())).await;
    assert_eq!(turns() - before, 1);
    let before = turns();
    let mut unordered: FuturesUnordered<_> = std::iter::once(moment()).collect();
    unordered.next().await;
    assert_eq!(turns() - before, 1, "it polls again at once what has woken itself");
}

#[waterspout::test(virtual_time)]
async fn moments_take_turns() {
    let diary = Diary::new();
    let coroutines = ["a", "b", "c"].map(|name| {
        let diary = diary.clone();
        start(async move {
            for n in 0..2 {
                diary.write(format!("{name}{n}"));
                moment().await;
            }
        })
    });
    join_all(coroutines).await;
    assert_eq!(diary.read(), ["a0", "b0", "c0", "a1", "b1", "c1"]);
}

#[waterspout::test(virtual_time)]
async fn a_combinator_that_polls_again_what_was_woken_does_not_spin() {
    // Polls its child as long as that wakes itself: a select loop of the worst kind.
    let queue = waterspout::queues::Queue::new(0);
    for n in 0..1000 {
        queue.put_nowait(n).unwrap();
    }
    let mut polls = 0;
    let turns = IoLoop::current().counters().turns;
    let mut drain = pin!(async {
        while queue.get_nowait().is_ok() {
            queue.put(0).await.unwrap();
            queue.get().await.unwrap();
        }
    });
    let woken = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    poll_fn(|cx| {
        loop {
            polls += 1;
            let (outer, flag) = (cx.waker().clone(), woken.clone());
            let waker = waker_fn::waker_fn(move || {
                flag.store(true, std::sync::atomic::Ordering::Relaxed);
                outer.wake_by_ref();
            });
            if drain.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_ready() {
                return Poll::Ready(());
            }
            if !woken.swap(false, std::sync::atomic::Ordering::Relaxed) {
                return Poll::Pending;
            }
        }
    })
    .await;
    let turns = IoLoop::current().counters().turns - turns;
    assert!(turns >= 10 && polls <= 3 * turns, "{polls} polls in {turns} turns");
}

#[test]
fn a_test_that_hangs_says_what_is_stuck_and_where() {
    let options =
        waterspout::__private::TestOptions { name: "hangs", timeout: None, virtual_time: true };
    let message = panic_of(|| {
        waterspout::__private::run_test(options, || async {
            let stuck = spawn_named("the stuck one", async { sleep(Duration::MAX).await });
            stuck.await;
        })
    });
    assert!(message.starts_with("`hangs`: operation timed out"), "{message}");
    assert!(message.contains("stuck: `the stuck one` started at"), "{message}");
    assert!(message.contains(&format!("waiting at {}:", file!())), "{message}");
}
