//! Coroutines: eager start, detaching, cancelling, joining, panics and errors, names and places,
//! time and turns. (What the attributes make of a function's form is in `macros.rs`.)

mod common;

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn, ready};
use std::pin::Pin;
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use common::{
    AtDrop, Bomb, Diary, block_on, one_turn, panic_of, poll, poll_acting_when_cloned, polled_again,
    seconds, suspend, virtual_loop,
};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use waterspout::__private::{TestOptions, run_test};
use waterspout::concurrent::channel;
use waterspout::coroutine::{self, moment, sleep, sleep_until};
use waterspout::locks::{Event, Lock};
use waterspout::queues::Queue;
use waterspout::{Coroutine, Exception, IoLoop};

const SECOND: Duration = Duration::from_secs(1);
/// Many times. Under Miri each takes a thousand times as long.
const OFTEN: u64 = if cfg!(miri) { 1_000 } else { 20_000 };

/// A loop in virtual time, and what was reported to it.
fn reporting() -> (IoLoop, Rc<RefCell<Vec<Exception>>>) {
    let reported = Rc::new(RefCell::new(Vec::new()));
    let reports = reported.clone();
    let report = move |exception: &Exception| reports.borrow_mut().push(exception.clone());
    (IoLoop::builder().virtual_time().on_exception(report).build().unwrap(), reported)
}

fn messages(reported: &Rc<RefCell<Vec<Exception>>>) -> Vec<String> {
    reported.borrow_mut().drain(..).map(|exception| exception.info.to_string()).collect()
}

// ---------------------------------------------------------------------------------------------
// Starting
// ---------------------------------------------------------------------------------------------

#[waterspout::test(virtual_time)]
async fn start_runs_to_the_first_suspension_on_the_callers_stack() {
    let diary = Diary::new();
    let inside = diary.clone();
    let coroutine = coroutine::start(async move {
        inside.write("start");
        suspend().await;
        inside.write("end");
    });
    diary.write("after call");
    coroutine.await;
    assert_eq!(diary.read(), ["start", "after call", "end"]);
}

#[waterspout::test(virtual_time)]
async fn spawn_runs_from_the_next_turn_on() {
    let (diary, turn) = (Diary::new(), IoLoop::current().counters().turns);
    let inside = diary.clone();
    let coroutine = coroutine::spawn(async move {
        inside.write(format!("start {} turn later", IoLoop::current().counters().turns - turn));
    });
    diary.write("after call");
    coroutine.await;
    assert_eq!(diary.read(), ["after call", "start 1 turn later"]);
}

#[waterspout::test(virtual_time)]
async fn a_coroutine_that_never_suspends_never_touches_the_run_queue() {
    let io_loop = IoLoop::current();
    let before = io_loop.counters();
    for n in 0..OFTEN {
        assert_eq!(coroutine::start(ready(n)).await, n);
    }
    let counters = io_loop.counters();
    assert_eq!(counters.started - before.started, OFTEN);
    assert_eq!((counters.resumes, counters.turns), (before.resumes, before.turns));
    assert_eq!(counters.live, before.live);
}

#[waterspout::test(virtual_time)]
async fn each_suspension_is_one_resumption() {
    let io_loop = IoLoop::current();
    let before = io_loop.counters().resumes;
    let coroutine = coroutine::start(async {
        for _ in 0..10 {
            suspend().await;
        }
    });
    coroutine.await;
    // Ten of the coroutine, one of the test.
    assert_eq!(io_loop.counters().resumes - before, 11);
}

#[test]
fn outside_of_a_running_loop_both_work_and_the_loop_goes_on_with_them() {
    let (io_loop, diary) = (virtual_loop(), Diary::new());
    io_loop.make_current();
    let (started, spawned) = (diary.clone(), diary.clone());
    drop(coroutine::start(async move {
        started.write("started");
        sleep(SECOND).await;
        started.write("started goes on");
    }));
    drop(coroutine::spawn(async move { spawned.write("spawned") }));
    assert_eq!(diary.read(), ["started"]);
    io_loop.run_sync(|| sleep(2 * SECOND)).unwrap();
    assert_eq!(diary.read(), ["spawned", "started goes on"]);
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

#[test]
fn on_a_closed_loop_a_coroutine_is_cancelled_from_the_start() {
    let io_loop = IoLoop::new().unwrap();
    io_loop.close();
    let diary = Diary::new();
    let inside = diary.at_end("dropped unrun");
    let coroutine = io_loop.spawn(async move { drop(inside) });
    assert_eq!((coroutine.done(), diary.read()), (true, vec!["dropped unrun".to_string()]));
    let joined = IoLoop::new().unwrap().run_sync(|| coroutine.join()).unwrap();
    assert!(joined.unwrap_err().is_cancelled());
}

#[waterspout::test(virtual_time)]
async fn a_thousand_coroutines_start_each_within_the_other() {
    #[waterspout::coroutine]
    async fn depth(n: usize) -> usize {
        if n == 0 {
            suspend().await;
            return 0;
        }
        depth(n - 1).await + 1
    }
    assert_eq!(depth(1000).await, 1000);
    assert_eq!(IoLoop::current().counters().live, 1);
}

// ---------------------------------------------------------------------------------------------
// Which one is current
// ---------------------------------------------------------------------------------------------

fn current_name() -> Option<&'static str> {
    coroutine::current().map(|info| info.name)
}

#[test]
fn the_current_coroutine_is_swapped_in_and_out_around_the_eager_part() {
    #[waterspout::coroutine(name = "outer")]
    async fn outer() {
        assert_eq!(current_name(), Some("outer"));
        let inner = inner();
        assert_eq!(current_name(), Some("outer"));
        suspend().await;
        assert_eq!(current_name(), Some("outer"));
        inner.await;
        assert_eq!(current_name(), Some("outer"));
    }
    #[waterspout::coroutine(name = "inner")]
    async fn inner() {
        assert_eq!(current_name(), Some("inner"));
        suspend().await;
        assert_eq!(current_name(), Some("inner"));
    }
    let io_loop = IoLoop::new().unwrap();
    io_loop.make_current();
    assert_eq!(current_name(), None);
    let outer = outer();
    assert_eq!(current_name(), None);
    io_loop
        .run_sync(|| async {
            assert_eq!(current_name(), Some("run_sync"));
            outer.await;
            assert_eq!(current_name(), Some("run_sync"));
        })
        .unwrap();
    io_loop.add_callback(|| assert_eq!(current_name(), None));
    one_turn(&io_loop);
    assert_eq!(io_loop.counters().exceptions, 0);
    IoLoop::clear_current();
}

#[waterspout::test(virtual_time)]
async fn the_current_coroutine_is_swapped_out_also_when_the_eager_part_panics() {
    let before = current_name();
    let panicking = coroutine::start(async { panic!("eagerly") });
    assert_eq!(current_name(), before);
    let error: coroutine::JoinError = Coroutine::<()>::join(panicking).await.unwrap_err();
    assert!(error.is_panic());
}

#[waterspout::test(virtual_time)]
async fn coroutines_are_listed_with_their_names_and_places() {
    #[waterspout::coroutine]
    async fn napping() {
        sleep(3600 * SECOND).await;
    }
    let line = line!() + 1;
    let (nap, pausing) = (napping(), coroutine::spawn_named("pausing", pending::<()>()));
    assert!(nap.name().ends_with("napping"), "{}", nap.name());
    assert_eq!(pausing.name(), "pausing");
    let listed = IoLoop::current().coroutines();
    let nap_listed = listed.iter().find(|info| info.name.ends_with("napping")).unwrap();
    assert_eq!(nap_listed, &nap.info());
    assert_eq!((nap_listed.started_at.file(), nap_listed.started_at.line()), (file!(), line));
    assert_eq!(nap_listed.waiting_at.unwrap().file(), file!());
    assert!(listed.iter().any(|info| info.name == "pausing" && info.waiting_at.is_none()));
    let shown = format!("{nap:?}");
    assert!(shown.contains("napping"), "{shown}");
    assert!(shown.contains(&format!("{}:{line}", file!())), "{shown}");
    nap.cancel();
    pausing.cancel();
    // Only the test itself is left.
    assert_eq!(IoLoop::current().coroutines().len(), 1);
}

// ---------------------------------------------------------------------------------------------
// Detaching and cancelling
// ---------------------------------------------------------------------------------------------

#[waterspout::test(virtual_time)]
async fn dropping_the_handle_lets_the_coroutine_run_on() {
    let diary = Diary::new();
    let inside = diary.clone();
    drop(coroutine::start(async move {
        sleep(SECOND).await;
        inside.write("ran on");
    }));
    sleep(2 * SECOND).await;
    assert_eq!(diary.read(), ["ran on"]);
}

#[waterspout::test(virtual_time)]
async fn dropping_it_while_awaiting_detaches_too() {
    let diary = Diary::new();
    let inside = diary.clone();
    let coroutine = coroutine::start(async move {
        sleep(SECOND).await;
        inside.write("ran on");
    });
    futures::future::select(Box::pin(coroutine), Box::pin(moment())).await;
    sleep(2 * SECOND).await;
    assert_eq!(diary.read(), ["ran on"]);
}

#[waterspout::test(virtual_time)]
async fn cancel_drops_the_state_where_it_is_suspended() {
    let diary = Diary::new();
    let (inside, early) = (diary.clone(), diary.at_end("local dropped"));
    let coroutine = coroutine::start(async move {
        let _early = early;
        inside.write("before");
        sleep(SECOND).await;
        inside.write("never");
    });
    let counters = IoLoop::current().counters();
    coroutine.cancel();
    diary.write("cancelled");
    assert!(coroutine.done());
    coroutine.cancel();
    assert_eq!(diary.read(), ["before", "local dropped", "cancelled"]);
    let after = IoLoop::current().counters();
    assert_eq!(after.pending_timers, counters.pending_timers - 1);
    assert_eq!(after.live, counters.live - 1);
}

#[waterspout::test(virtual_time)]
async fn a_spawned_coroutine_that_is_cancelled_before_its_turn_never_runs() {
    let diary = Diary::new();
    let (call, end) = (diary.writing("ran"), diary.at_end("dropped"));
    let coroutine = coroutine::spawn(async move {
        end.keep();
        call();
    });
    coroutine.cancel();
    moment().await;
    assert_eq!(diary.read(), ["dropped"]);
}

#[waterspout::test(virtual_time)]
async fn a_coroutine_that_cancels_itself_ends_at_its_next_suspension() {
    let (diary, own) = (Diary::new(), Rc::new(RefCell::new(None::<Coroutine<()>>)));
    let (inside, itself, end) = (diary.clone(), own.clone(), diary.at_end("dropped"));
    let coroutine = coroutine::spawn(async move {
        let _end = end;
        itself.borrow().as_ref().unwrap().cancel();
        inside.write("runs on");
        ready(()).await;
        inside.write("still");
        moment().await;
        inside.write("never");
    });
    *own.borrow_mut() = Some(coroutine);
    moment().await;
    assert_eq!(diary.read(), ["runs on", "still", "dropped"]);
    let error = own.take().unwrap().join().await.unwrap_err();
    assert!(error.is_cancelled());
}

#[waterspout::test(virtual_time)]
async fn a_coroutine_that_cancels_itself_and_returns_has_returned() {
    let own = Rc::new(RefCell::new(None::<Coroutine<u8>>));
    let itself = own.clone();
    *own.borrow_mut() = Some(coroutine::spawn(async move {
        itself.borrow().as_ref().unwrap().cancel();
        7
    }));
    moment().await;
    let coroutine = own.take().unwrap();
    assert_eq!(coroutine.await, 7);
}

#[waterspout::test(virtual_time)]
async fn a_coroutine_may_be_cancelled_by_one_that_it_has_started() {
    let (diary, own) = (Diary::new(), Rc::new(RefCell::new(None::<Coroutine<()>>)));
    let (itself, end) = (own.clone(), diary.at_end("dropped"));
    *own.borrow_mut() = Some(coroutine::spawn(async move {
        let _end = end;
        coroutine::start(async move { itself.borrow().as_ref().unwrap().cancel() }).await;
        pending::<()>().await;
    }));
    moment().await;
    assert_eq!(diary.read(), ["dropped"]);
    drop(own.take());
}

#[test]
fn a_destructor_that_panics_while_its_coroutine_is_cancelled_is_reported() {
    let (io_loop, reported) = reporting();
    io_loop
        .run_sync(|| async {
            let panicking = AtDrop(|| panic!("in a destructor"));
            let coroutine = coroutine::start(async move {
                let _panicking = panicking;
                pending::<()>().await
            });
            coroutine.cancel();
            assert!(coroutine.join().await.unwrap_err().is_cancelled());
            moment().await;
        })
        .unwrap();
    assert_eq!(messages(&reported), ["panicked: in a destructor"]);
    assert_eq!(io_loop.counters().live, 0);
}

#[test]
fn a_destructor_that_panics_when_its_coroutine_has_given_its_output_is_reported() {
    let (io_loop, reported) = reporting();
    io_loop
        .run_sync(|| async {
            let panicking = AtDrop(|| panic!("after the output"));
            let gives = coroutine::start(poll_fn(move |_| {
                panicking.keep();
                Poll::Ready(5)
            }));
            assert_eq!(gives.await, 5);
        })
        .unwrap();
    assert_eq!(messages(&reported), ["panicked: after the output"]);
}

#[waterspout::test(virtual_time)]
async fn a_destructor_may_cancel_others_and_start_some() {
    let diary = Diary::new();
    let (end, note) = (diary.at_end("second"), diary.clone());
    let second = coroutine::start(async move {
        let _end = end;
        pending::<()>().await
    });
    let cancelling = AtDrop(move || {
        note.write("first");
        second.cancel();
        let note = note.clone();
        drop(coroutine::start(async move { note.write("started") }));
    });
    let first = coroutine::start(async move {
        let _cancelling = cancelling;
        pending::<()>().await
    });
    first.cancel();
    assert_eq!(diary.read(), ["first", "second", "started"]);
}

#[waterspout::test(virtual_time)]
async fn cancel_on_drop_cancels_and_its_await_is_the_coroutines() {
    let diary = Diary::new();
    let end = diary.at_end("cancelled");
    let kept = coroutine::start(async move {
        let _end = end;
        pending::<()>().await
    })
    .cancel_on_drop();
    drop(kept);
    assert_eq!(diary.read(), ["cancelled"]);
    assert_eq!(coroutine::spawn(async { 5 }).cancel_on_drop().await, 5);
}

#[test]
fn close_cancels_and_whoever_joins_is_told() {
    let io_loop = IoLoop::new().unwrap();
    let coroutine = io_loop.spawn(pending::<()>());
    let waiting = io_loop.spawn(async move { coroutine.join().await.unwrap_err().is_cancelled() });
    let last = io_loop.spawn(pending::<()>());
    one_turn(&io_loop);
    io_loop.close();
    assert!(waiting.done() && last.done());
    let other = IoLoop::new().unwrap();
    assert!(other.run_sync(|| last.join()).unwrap().unwrap_err().is_cancelled());
}

#[test]
fn close_ends_coroutines_that_hold_their_own_handles() {
    let (io_loop, diary) = (virtual_loop(), Diary::new());
    let handles = Rc::new(RefCell::new(Vec::new()));
    let circle = Rc::downgrade(&handles);
    io_loop
        .run_sync(|| async {
            for word in ["first", "second"] {
                let (beat, end, held) = (diary.clone(), diary.at_end(word), handles.clone());
                let coroutine = coroutine::start(async move {
                    let _held = (end, held);
                    loop {
                        sleep(SECOND).await;
                        beat.write("beat");
                    }
                });
                handles.borrow_mut().push(coroutine);
            }
            drop(handles);
            sleep(SECOND).await;
        })
        .unwrap();
    assert_eq!(diary.read(), ["beat", "beat"]);
    io_loop.close();
    let mut ended = diary.read();
    ended.sort();
    assert_eq!(ended, ["first", "second"]);
    assert!(circle.upgrade().is_none());
}

// ---------------------------------------------------------------------------------------------
// How it ends
// ---------------------------------------------------------------------------------------------

#[waterspout::test(virtual_time)]
async fn what_a_coroutine_holds_goes_when_it_ends_although_its_handle_is_kept() {
    let diary = Diary::new();
    for end in ["returns", "fails", "panics", "is cancelled"] {
        let held = diary.at_end(end);
        let kept = coroutine::start(async move {
            let _held = held;
            suspend().await;
            match end {
                "returns" => Ok(()),
                "fails" => Err("expected"),
                "panics" => panic!("expected"),
                _ => pending().await,
            }
        });
        assert!(diary.read().is_empty());
        moment().await;
        if end == "is cancelled" {
            assert!(diary.read().is_empty());
            kept.cancel();
        }
        assert!(kept.done());
        assert_eq!(diary.read(), [end]);
        let _ = kept.join().await;
    }
}

#[waterspout::test(virtual_time)]
async fn join_gives_the_output_or_what_went_wrong() {
    assert_eq!(coroutine::spawn(async { 1 }).join().await.unwrap(), 1);

    let cancelled = coroutine::spawn_named("cancelled one", pending::<()>());
    cancelled.cancel();
    let error = cancelled.join().await.unwrap_err();
    assert!(error.is_cancelled() && !error.is_panic());
    assert_eq!(error.name(), "cancelled one");
    assert_eq!(error.to_string(), "`cancelled one` was cancelled");
    assert!(error.into_panic().unwrap_err().is_cancelled());

    let words = String::from("words");
    let panicked = coroutine::spawn_named("panicking one", async move { panic!("with {words}") });
    let error = Coroutine::<()>::join(panicked).await.unwrap_err();
    assert!(error.is_panic() && !error.is_cancelled());
    assert_eq!(error.to_string(), "`panicking one` panicked: with words");
    let payload = error.into_panic().unwrap();
    assert_eq!(payload.downcast_ref::<String>().unwrap(), "with words");

    let payload = coroutine::spawn(async { std::panic::panic_any(17_u8) });
    let error = Coroutine::<()>::join(payload).await.unwrap_err();
    assert_eq!(*error.into_panic().unwrap().downcast::<u8>().unwrap(), 17);
}

#[test]
fn a_join_error_can_be_boxed_and_sent() {
    fn assert_error<E: std::error::Error + Send + Sync + 'static>() {}
    assert_error::<coroutine::JoinError>();
}

#[test]
fn a_panic_goes_on_in_whoever_awaits() {
    let (io_loop, reported) = reporting();
    for start in [true, false] {
        let message = panic_of(|| {
            io_loop.run_sync(|| async {
                let panicking = async move {
                    if !start {
                        suspend().await;
                    }
                    panic!("inside");
                };
                // Through two coroutines.
                coroutine::start(async move { coroutine::start(panicking).await }).await
            })
        });
        assert_eq!(message, "inside");
    }
    assert!(messages(&reported).is_empty());
    assert_eq!(io_loop.counters().live, 0);
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
    io_loop.run_sync(|| async { sleep(SECOND).await }).unwrap();
    assert_eq!(diary.read(), ["still here"]);
}

#[test]
fn a_panic_in_the_eager_part_does_not_reach_the_caller() {
    let (io_loop, reported) = reporting();
    io_loop
        .run_sync(|| async {
            let panicking: Coroutine<()> = coroutine::start(async { panic!("eagerly") });
            assert!(panicking.done());
            assert!(messages(&reported).is_empty());
            drop(panicking);
            assert_eq!(messages(&reported), ["panicked: eagerly"]);
        })
        .unwrap();
}

#[test]
fn awaiting_a_cancelled_coroutine_panics_with_a_sentence() {
    let io_loop = IoLoop::new().unwrap();
    let message = panic_of(|| {
        io_loop.run_sync(|| async {
            let coroutine = coroutine::spawn_named("gone", pending::<()>());
            coroutine.cancel();
            coroutine.await
        })
    });
    assert!(message.contains("`gone`") && message.contains("cancelled"), "{message}");
    assert!(message.contains("join"), "{message}");
}

#[waterspout::coroutine(name = "failing")]
async fn failing(suspended: bool) -> Result<u8, &'static str> {
    if suspended {
        suspend().await;
    }
    Err("an error")
}

#[test]
fn a_panic_that_nobody_awaits_is_reported_with_name_and_place() {
    let (io_loop, reported) = reporting();
    io_loop
        .run_sync(|| async {
            #[waterspout::coroutine(name = "panicking")]
            async fn panicking(suspended: bool) {
                if suspended {
                    suspend().await;
                }
                panic!("unheard");
            }
            let line = line!() + 2;
            for suspended in [false, true] {
                panicking(suspended);
            }
            moment().await;
            moment().await;
            for exception in reported.borrow().iter() {
                assert_eq!(exception.name, Some("panicking"));
                let place = exception.location.unwrap();
                assert_eq!((place.file(), place.line()), (file!(), line));
                assert_eq!(exception.info.to_string(), "panicked: unheard");
            }
            assert_eq!(reported.borrow().len(), 2);
        })
        .unwrap();
    assert_eq!(io_loop.counters().exceptions, 2);
}

#[test]
fn an_err_that_nobody_awaits_is_reported_once_and_an_awaited_one_is_not() {
    let (io_loop, reported) = reporting();
    io_loop
        .run_sync(|| async {
            for suspended in [false, true] {
                failing(suspended);
                moment().await;
                moment().await;
                assert_eq!(messages(&reported), ["\"an error\""]);
                assert_eq!(failing(suspended).await, Err("an error"));
                assert_eq!(failing(suspended).join().await.unwrap(), Err("an error"));
                // Done, and then dropped.
                let kept = failing(suspended);
                moment().await;
                moment().await;
                assert!(kept.done() && messages(&reported).is_empty());
                drop(kept);
                assert_eq!(messages(&reported), ["\"an error\""]);
            }
        })
        .unwrap();
    assert!(messages(&reported).is_empty());
}

#[test]
fn an_engine_is_fire_and_forget_and_its_errors_are_reported() {
    #[waterspout::engine(name = "engine")]
    async fn engine(diary: Diary, suspended: bool) -> Result<(), &'static str> {
        diary.write("start");
        if suspended {
            suspend().await;
        }
        diary.write("end");
        Err("of an engine")
    }
    let (io_loop, reported) = reporting();
    let diary = Diary::new();
    io_loop
        .run_sync(|| async {
            let () = engine(diary.clone(), true);
            diary.write("after call");
            moment().await;
            moment().await;
            assert_eq!(diary.read(), ["start", "after call", "end"]);
            assert_eq!(reported.borrow()[0].name, Some("engine"));
            assert_eq!(messages(&reported), ["\"of an engine\""]);
            engine(diary.clone(), false);
            assert_eq!(messages(&reported), ["\"of an engine\""]);
        })
        .unwrap();
}

#[test]
fn a_cancelled_coroutine_that_nobody_awaits_is_not_reported() {
    let (io_loop, reported) = reporting();
    io_loop
        .run_sync(|| async {
            let coroutine = coroutine::spawn(pending::<()>());
            coroutine.cancel();
            drop(coroutine);
            moment().await;
        })
        .unwrap();
    assert!(messages(&reported).is_empty());
}

#[test]
fn an_exception_handler_that_panics_does_not_stop_the_loop() {
    let io_loop = IoLoop::builder().on_exception(|_| panic!("the handler")).build().unwrap();
    let after = io_loop.run_sync(|| async {
        drop(coroutine::start(async { panicking() }));
        drop(coroutine::spawn(async { panicking() }));
        moment().await;
        moment().await;
        "goes on"
    });
    assert_eq!(after.unwrap(), "goes on");
    assert_eq!(io_loop.counters().exceptions, 2);
}

/// A panic of type `()`.
fn panicking() {
    panic!("of a coroutine");
}

#[test]
fn an_output_whose_destructor_panics_does_not_stop_the_loop() {
    let (io_loop, reported) = reporting();
    let after = io_loop.run_sync(|| async {
        drop(coroutine::spawn(async { AtDrop(|| panic!("in an output")) }));
        moment().await;
        moment().await;
        "goes on"
    });
    assert_eq!(after.unwrap(), "goes on");
    assert_eq!(messages(&reported), ["panicked: in an output"]);
    assert_eq!(io_loop.counters().live, 0);
}

#[test]
fn a_panic_payload_whose_destructor_panics_does_not_stop_the_loop() {
    struct Payload;
    impl Drop for Payload {
        fn drop(&mut self) {
            panic!("in a payload");
        }
    }
    let (io_loop, reported) = reporting();
    let after = io_loop.run_sync(|| async {
        IoLoop::current().add_callback(|| std::panic::panic_any(Payload));
        moment().await;
        drop(coroutine::spawn(async {
            if true {
                std::panic::panic_any(Payload);
            }
        }));
        moment().await;
        moment().await;
        "goes on"
    });
    assert_eq!(after.unwrap(), "goes on");
    assert!(!messages(&reported).is_empty());
}

#[waterspout::test(virtual_time)]
async fn done_callbacks_run_in_the_next_turn_in_order_also_if_it_is_done_already() {
    let diary = Diary::new();
    let coroutine = coroutine::start(suspend());
    for n in 0..3 {
        coroutine.add_done_callback(diary.writing(n));
    }
    moment().await;
    assert!(coroutine.done());
    coroutine.add_done_callback(diary.writing("late"));
    diary.write("not inside");
    moment().await;
    let words = diary.read();
    assert!(
        words.iter().eq(["0", "1", "2", "not inside", "late"].iter())
            || words.iter().eq(["not inside", "0", "1", "2", "late"].iter()),
        "{words:?}"
    );
}

#[test]
fn a_done_callback_that_comes_late_is_the_current_loops_or_is_called_at_once() {
    let diary = Diary::default();
    let io_loop = IoLoop::new().unwrap();
    let coroutine = io_loop.spawn(async {});
    io_loop.run_sync(moment).unwrap();
    assert!(coroutine.done());
    io_loop.close();
    let other = IoLoop::new().unwrap();
    other
        .run_sync(async || {
            coroutine.add_done_callback(diary.writing("in the next turn"));
            diary.write("in this turn");
            moment().await;
        })
        .unwrap();
    IoLoop::clear_current();
    coroutine.add_done_callback(diary.writing("at once"));
    assert_eq!(diary.read(), ["in this turn", "in the next turn", "at once"]);
}

#[waterspout::test(virtual_time)]
async fn done_callbacks_run_however_it_ends_and_leave_the_output() {
    let diary = Diary::new();
    let cancelled = coroutine::spawn(pending::<()>());
    cancelled.add_done_callback(diary.writing("cancelled"));
    cancelled.cancel();
    let panicked: Coroutine<()> = coroutine::spawn(async { panic!("expected") });
    panicked.add_done_callback(diary.writing("panicked"));
    let returned = coroutine::spawn(async { 3 });
    returned.add_done_callback(diary.writing("returned"));
    assert!(diary.read().is_empty());
    moment().await;
    moment().await;
    assert_eq!(diary.read(), ["cancelled", "panicked", "returned"]);
    assert_eq!(returned.await, 3);
    assert!(panicked.join().await.unwrap_err().is_panic());
}

#[waterspout::test(virtual_time)]
async fn polling_a_coroutine_again_after_its_output_panics_with_a_sentence() {
    let mut coroutine = coroutine::start(ready(1));
    let mut poll = || Pin::new(&mut coroutine).poll(&mut Context::from_waker(Waker::noop()));
    assert_eq!(poll(), Poll::Ready(1));
    assert!(panic_of(poll).contains("awaited again"));
}

#[waterspout::test(virtual_time)]
async fn whoever_leaves_it_to_another_to_await_a_coroutine_is_not_resumed_for_that() {
    let task = Rc::new(RefCell::new(coroutine::start(sleep(SECOND))));
    let (polled, polls) = (task.clone(), Rc::new(Cell::new(0)));
    let counts = polls.clone();
    let before = coroutine::start(poll_fn(move |cx| {
        counts.set(counts.get() + 1);
        Pin::new(&mut *polled.borrow_mut()).poll(cx)
    }));
    assert!(poll(&mut *task.borrow_mut()).is_pending());
    sleep(2 * SECOND).await;
    assert!(task.borrow().done() && !before.done());
    assert_eq!(polls.get(), 1);
}

#[waterspout::test(virtual_time)]
async fn a_coroutine_may_outlive_the_one_that_awaits_it_last() {
    // The second awaiter takes over from the first.
    let coroutine = Rc::new(RefCell::new(coroutine::start(suspend())));
    let mut first = Box::pin(poll_fn({
        let coroutine = coroutine.clone();
        move |cx| Pin::new(&mut *coroutine.borrow_mut()).poll(cx)
    }));
    assert!(first.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(first);
    poll_fn(|cx| Pin::new(&mut *coroutine.borrow_mut()).poll(cx)).await;
}

// ---------------------------------------------------------------------------------------------
// Turns
// ---------------------------------------------------------------------------------------------

/// In which turns, counted from now, the futures end that `make` makes.
async fn turns<F: Future>(make: impl FnOnce() -> F) -> u64 {
    let io_loop = IoLoop::current();
    let before = io_loop.counters().turns;
    make().await;
    io_loop.counters().turns - before
}

#[waterspout::test(virtual_time)]
async fn moment_costs_exactly_one_turn() {
    assert_eq!(turns(moment).await, 1);
    assert_eq!(
        turns(|| async {
            moment().await;
            moment().await
        })
        .await,
        2
    );
    assert_eq!(coroutine::start(turns(moment)).await, 1);
    assert_eq!(coroutine::spawn(turns(moment)).await, 1);
    assert_eq!(turns(|| async { futures::join!(moment(), moment(), moment()) }).await, 1);
    let unordered = || async {
        let mut moments: FuturesUnordered<_> = (0..100).map(|_| moment()).collect();
        while moments.next().await.is_some() {}
    };
    assert_eq!(turns(unordered).await, 1);
    let boxed = || futures::future::join_all((0..100).map(|_| Box::pin(moment())));
    assert_eq!(turns(boxed).await, 1);
}

#[waterspout::test(virtual_time)]
async fn moments_take_turns_and_what_is_ready_does_not() {
    let orders = [(true, true, "abababab"), (false, false, "aaaabbbb"), (true, false, "abbbbaaa")];
    for (of_a, of_b, expected) in orders {
        let diary = Diary::new();
        let coroutines = [("a", of_a), ("b", of_b)].map(|(name, gives_way)| {
            let diary = diary.clone();
            coroutine::start(async move {
                for _ in 0..4 {
                    diary.write(name);
                    if gives_way { moment().await } else { ready(()).await }
                }
            })
        });
        futures::future::join_all(coroutines).await;
        assert_eq!(diary.read().concat(), expected);
    }
}

#[waterspout::test(virtual_time)]
async fn moment_lets_what_is_ready_run_first() {
    let diary = Diary::new();
    IoLoop::current().add_callback(diary.writing("a"));
    drop(coroutine::spawn({
        let diary = diary.clone();
        async move { diary.write("b") }
    }));
    moment().await;
    diary.write("then");
    assert_eq!(diary.read(), ["a", "b", "then"]);
}

#[waterspout::test(virtual_time)]
async fn awaiting_what_is_ready_does_not_go_through_the_loop() {
    let ready_ones = || async {
        for n in 0..OFTEN {
            ready(n).await;
            coroutine::start(ready(n)).await;
        }
    };
    assert_eq!(turns(ready_ones).await, 0);
}

/// Polls `future` again for as long as it has been woken meanwhile, as a combinator or an executor
/// within a task may; tells how often that was. The outer task is woken, too.
async fn polling_what_was_woken(future: impl Future<Output = ()>) -> usize {
    let (mut future, mut polls) = (Box::pin(future), 0);
    polled_again(poll_fn(|cx| {
        polls += 1;
        assert!(polls < 100_000, "it spins: the loop never gets its turn");
        future.as_mut().poll(cx)
    }))
    .await;
    polls
}

#[waterspout::test(virtual_time)]
async fn what_is_always_ready_gives_way_now_and_then() {
    let lock = Lock::new(0);
    let often = || async {
        for _ in 0..OFTEN {
            *lock.acquire().await += 1;
        }
    };
    let turns = turns(often).await;
    assert!((OFTEN / 1000..=OFTEN).contains(&turns), "{turns}");
}

#[test]
fn a_callback_is_no_part_of_the_coroutine_that_has_run_before_it() {
    let (io_loop, event, noted) = (virtual_loop(), Event::new(), Rc::new(Cell::new(None)));
    event.set();
    let (ready, notes) = (event.clone(), noted.clone());
    drop(io_loop.spawn(async move {
        while event.wait().now_or_never().is_some() {}
        pending::<()>().await
    }));
    io_loop.add_callback(move || {
        let has_budget = coroutine::start(async move { ready.wait().await }).done();
        notes.set(Some((coroutine::current(), has_budget)));
    });
    one_turn(&io_loop);
    assert_eq!(noted.take(), Some((None, true)));
}

#[waterspout::test(virtual_time)]
async fn running_out_of_budget_does_not_make_a_combinator_spin() {
    let lock = Lock::new(0);
    let polls = polling_what_was_woken(async {
        for _ in 0..OFTEN {
            *lock.acquire().await += 1;
        }
    })
    .await;
    assert!((polls as u64) < OFTEN, "{polls}");
}

#[waterspout::test(virtual_time)]
async fn moment_does_not_make_a_combinator_spin() {
    assert!(polling_what_was_woken(moment()).await < 10);
}

#[waterspout::test(virtual_time)]
async fn a_coroutine_that_never_really_waits_lets_others_run() {
    let (lock, stop) = (Rc::new(Lock::new(())), Rc::new(Cell::new(false)));
    let stopped = stop.clone();
    let spinning = coroutine::start(async move {
        while !stopped.get() {
            drop(lock.acquire().await);
        }
    });
    moment().await;
    stop.set(true);
    spinning.await;
}

// ---------------------------------------------------------------------------------------------
// Time
// ---------------------------------------------------------------------------------------------

#[waterspout::test(virtual_time)]
async fn sleep_is_exact_to_the_nanosecond() {
    let io_loop = IoLoop::current();
    for nanos in [1, 999, 1_000_000, 1_048_577, 3_600_000_000_001] {
        let begun = io_loop.time();
        sleep(Duration::from_nanos(nanos)).await;
        assert_eq!(io_loop.time() - begun, Duration::from_nanos(nanos));
    }
    let when = io_loop.time() + Duration::from_nanos(12_345_678_901);
    sleep_until(when).await;
    assert_eq!(io_loop.time(), when);
}

#[waterspout::test(virtual_time)]
async fn sleep_counts_from_the_call() {
    let io_loop = IoLoop::current();
    let begun = io_loop.time();
    let asleep = sleep(3 * SECOND);
    sleep(2 * SECOND).await;
    asleep.await;
    assert_eq!(io_loop.time() - begun, 3 * SECOND);
}

#[waterspout::test(virtual_time)]
async fn sleeping_no_time_or_until_the_past_takes_a_turn_or_two() {
    let io_loop = IoLoop::current();
    let begun = io_loop.time();
    assert!((1..=2).contains(&turns(|| sleep(Duration::ZERO)).await));
    sleep(SECOND).await;
    assert!((1..=2).contains(&turns(|| sleep_until(begun)).await));
    assert_eq!(io_loop.time(), begun + SECOND);
}

#[waterspout::test(virtual_time)]
async fn sleepers_wake_by_deadline_and_equal_ones_in_order() {
    let diary = Diary::new();
    let sleepers: Vec<_> = [3, 1, 2, 1, 3]
        .into_iter()
        .enumerate()
        .map(|(n, seconds)| {
            let diary = diary.clone();
            coroutine::start(async move {
                sleep(seconds * SECOND).await;
                diary.write(format!("{seconds}: {n}"));
            })
        })
        .collect();
    for sleeper in sleepers {
        sleeper.await;
    }
    assert_eq!(diary.read(), ["1: 1", "1: 3", "2: 2", "3: 0", "3: 4"]);
}

#[waterspout::test(virtual_time)]
async fn a_sleep_that_is_dropped_takes_its_timer_back() {
    let io_loop = IoLoop::current();
    let before = io_loop.counters().pending_timers;
    let mut asleep = Box::pin(sleep(SECOND));
    assert_eq!(io_loop.counters().pending_timers, before);
    assert!(asleep.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(io_loop.counters().pending_timers, before + 1);
    drop(asleep);
    assert_eq!(io_loop.counters().pending_timers, before);
}

#[waterspout::test(virtual_time)]
async fn a_sleep_can_be_reset() {
    let io_loop = IoLoop::current();
    let begun = io_loop.time();
    let mut asleep = sleep(SECOND);
    futures::future::select(&mut asleep, Box::pin(moment())).await;
    assert!(!asleep.is_over());
    asleep.reset(5 * SECOND);
    (&mut asleep).await;
    assert!(asleep.is_over());
    assert_eq!(io_loop.time() - begun, 5 * SECOND);
    asleep.reset(io_loop.time() + SECOND);
    asleep.await;
    assert_eq!(io_loop.time() - begun, 6 * SECOND);
}

#[waterspout::test(virtual_time)]
async fn a_sleep_for_ever_never_ends() {
    let for_ever = coroutine::start(sleep(Duration::MAX));
    sleep(Duration::from_secs(10 * 86_400)).await;
    assert!(!for_ever.done());
    for_ever.cancel();
}

#[test]
fn a_sleep_awaited_on_another_loop_panics_with_a_sentence() {
    let (a, b) = (virtual_loop(), virtual_loop());
    let asleep = a.run_sync(|| ready(sleep(SECOND))).unwrap();
    let message = panic_of(|| b.run_sync(|| asleep));
    assert!(message.contains("make it where it is awaited"), "{message}");
}

/// A waker whose copies call the loop when they are made and dropped: what a waker may hold, a task
/// of another executor for one, may do so, too.
fn waker_that_calls_the_loop() -> Waker {
    struct Calling;
    impl Wake for Calling {
        fn wake(self: Arc<Self>) {
            call_the_loop();
        }
    }
    impl Drop for Calling {
        fn drop(&mut self) {
            call_the_loop();
        }
    }
    fn call_the_loop() {
        let io_loop = IoLoop::current();
        let timeout = io_loop.call_later(SECOND, || ());
        io_loop.remove_timeout(timeout);
        io_loop.add_callback(|| ());
        drop(coroutine::spawn(async {}));
        io_loop.run_sync(|| async {}).unwrap_err();
    }
    Waker::from(Arc::new(Calling))
}

/// Polls waits of all kinds with two foreign wakers each, so that the first is dropped for the second,
/// and that with the wait.
async fn wait_by(mut waker: impl FnMut() -> Waker) {
    let (promise, future) = waterspout::concurrent::promise::<()>();
    let lock = Lock::new(());
    let held = lock.acquire().await;
    let (_there, socket) = std::os::unix::net::UnixStream::pair().unwrap();
    let socket = waterspout::net::UnixStream::from_std(socket).unwrap();
    let mut byte = [0];
    let mut asleep = sleep(SECOND);
    let ((full, _receives), (_sends, mut empty)) = (channel(1), channel::<u8>(1));
    full.try_send(1).unwrap();
    let waits: [Pin<Box<dyn Future<Output = ()> + '_>>; 8] = [
        Box::pin(&mut asleep),
        Box::pin(async { future.await.unwrap() }),
        Box::pin(async { drop(lock.acquire().await) }),
        Box::pin(async { drop(socket.read(&mut byte).await) }),
        Box::pin(async { full.send(2).await.unwrap() }),
        Box::pin(async { _ = empty.recv().await }),
        Box::pin(coroutine::start(pending::<()>())),
        Box::pin(moment()),
    ];
    for (n, mut wait) in waits.into_iter().enumerate() {
        for _ in 0..2 {
            let polled = wait.as_mut().poll(&mut Context::from_waker(&waker()));
            assert!(polled.is_pending(), "{n}");
        }
        drop(wait);
    }
    drop(held);
    promise.set_result(());
    moment().await;
}

#[waterspout::test(virtual_time)]
#[cfg_attr(miri, ignore = "makes sockets")]
async fn a_foreign_waker_may_call_the_loop_when_it_is_replaced_dropped_or_woken() {
    wait_by(waker_that_calls_the_loop).await;
}

#[test]
#[cfg_attr(miri, ignore = "makes sockets")]
fn a_foreign_waker_may_panic_when_it_is_replaced_or_dropped() {
    let diary = Diary::new();
    let io_loop = diary.exceptions_of(IoLoop::builder().virtual_time()).build().unwrap();
    let dropped = Arc::new(AtomicUsize::new(0));
    let waker = || {
        let bomb = Bomb(dropped.clone());
        waker_fn::waker_fn(move || _ = &bomb)
    };
    io_loop.run_sync(|| wait_by(waker)).unwrap();
    io_loop.close();
    assert_eq!(dropped.load(Ordering::Relaxed), 16);
    let told = diary.read();
    assert!(told.len() >= 14 && told.iter().all(|told| told == "panicked: a destructor"));
}

// ---------------------------------------------------------------------------------------------
// Tests of coroutines
// ---------------------------------------------------------------------------------------------

/// What `#[waterspout::test]` makes of `body`.
#[track_caller]
fn run_as_test<F: Future<Output = ()>>(
    name: &'static str,
    timeout: Option<f64>,
    virtual_time: bool,
    body: impl FnOnce() -> F,
) {
    let options = TestOptions { name, timeout, virtual_time, allow_exceptions: false };
    run_test(options, |()| None, body)
}

#[test]
fn a_test_that_takes_too_long_names_the_stuck_coroutine_and_the_place() {
    #[waterspout::coroutine(name = "the stuck one")]
    async fn stuck() {
        sleep(Duration::MAX).await;
    }
    for virtual_time in [false, true] {
        let begun = Instant::now();
        let message = panic_of(|| {
            let timeout = Some(0.01);
            run_as_test("too_long", timeout, virtual_time, || async {
                stuck().await;
            })
        });
        assert!(message.contains("`too_long`"), "{message}");
        assert!(message.contains("timed out after 10ms"), "{message}");
        assert!(message.contains("`the stuck one`"), "{message}");
        assert!(message.contains(&format!("waiting at {}", file!())), "{message}");
        assert!(virtual_time || begun.elapsed() >= Duration::from_millis(10));
    }
}

#[test]
fn in_virtual_time_a_test_where_nothing_moves_fails_at_once() {
    // Its limit is in virtual time, and far away.
    let message = panic_of(|| run_as_test("hangs", None, true, pending::<()>));
    assert!(message.contains("timed out"), "{message}");
}

#[test]
fn a_test_drops_what_it_has_left_running() {
    let diary = Diary::new();
    let end = diary.at_end("dropped");
    run_as_test("leaves", None, false, || async {
        drop(coroutine::start(async move {
            let _end = end;
            pending::<()>().await
        }));
    });
    assert_eq!(diary.read(), ["dropped"]);
}

#[test]
#[cfg_attr(miri, ignore = "starts a process")]
fn the_environment_sets_the_time_limit_of_tests_that_set_none() {
    for (variable, limit) in [("0.02", "20ms"), ("0.03", "30ms")] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "a_test_that_hangs", "--nocapture"])
            .env("ASYNC_TEST_TIMEOUT", variable)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let words = String::from_utf8_lossy(&output.stdout);
        assert!(words.contains(&format!("timed out after {limit}")), "{words}");
        // What the attribute says goes before the environment, which says nothing of virtual time.
        assert!(words.contains("timed out after 10ms"), "{words}");
        assert!(words.contains("timed out after 8640000s"), "{words}");
    }
}

#[test]
#[ignore = "run by the test above in a process of its own"]
fn a_test_that_hangs() {
    for (timeout, virtual_time) in [(None, false), (Some(0.01), false), (None, true)] {
        println!("{}", panic_of(|| run_as_test("hangs", timeout, virtual_time, pending::<()>)));
    }
}

#[waterspout::test(timeout = 2.5, virtual_time)]
#[should_panic(expected = "timed out after 2.5s")]
async fn the_attribute_takes_a_time_limit() {
    sleep(3 * SECOND).await;
}

// ---------------------------------------------------------------------------------------------
// Blocking within a coroutine
// ---------------------------------------------------------------------------------------------

#[waterspout::test(virtual_time)]
#[cfg_attr(miri, ignore = "makes sockets")]
async fn blocking_on_what_is_ready_ends_also_when_the_budget_is_spent() {
    const MANY: usize = 1000;
    let queue = Queue::new(0);
    (0..MANY).for_each(|n| queue.put_nowait(n).unwrap());
    let (sender, mut receiver) = channel(MANY);
    let (lock, event) = (Lock::new(()), Event::new());
    event.set();
    let (here, there) = waterspout::net::UnixStream::pair().unwrap();
    // There is always more to read, for only the loop is told of what comes into an empty socket.
    assert_eq!(there.write(&[0; 2 * MANY]).await.unwrap(), 2 * MANY);
    assert_eq!(here.read(&mut [0]).await.unwrap(), 1);
    block_on(async {
        for n in 0..MANY {
            assert_eq!(queue.get().await.unwrap(), n);
            sender.send(n).await.unwrap();
            assert_eq!(receiver.recv().await, Some(n));
            drop(lock.acquire().await);
            event.wait().await;
            assert_eq!(here.read(&mut [0]).await.unwrap(), 1);
            // By a combinator that has wakers of its own.
            let mut both = FuturesUnordered::from_iter([event.wait(), event.wait()]);
            while both.next().await.is_some() {}
        }
    });
}

#[waterspout::test(virtual_time)]
async fn blocking_send_with_room_does_not_wait_for_the_loop() {
    let (sender, mut receiver) = channel(1000);
    (0..1000).for_each(|n| sender.blocking_send(n).unwrap());
    block_on(async { assert_eq!(receiver.recv().await, Some(0)) });
}

#[waterspout::test(virtual_time)]
async fn polling_at_once_again_what_was_refused_comes_to_an_end() {
    let event = Event::new();
    event.set();
    (0..200).for_each(|_| block_on(event.wait()));
    let wait = || Box::pin(event.wait());
    let mut polls = 0;
    poll_fn(|cx| {
        while wait().as_mut().poll(cx).is_ready() {}
        while wait().as_mut().poll(cx).is_pending() {
            polls += 1;
            assert!(polls < 1_000_000, "it spins");
        }
        Poll::Ready(())
    })
    .await;
}

#[waterspout::test(virtual_time)]
async fn what_never_really_waits_gives_way_inside_of_combinators_too() {
    let (event, waits) = (Event::new(), Rc::new(Cell::new(0)));
    event.set();
    let never_waits = || {
        let (event, waits) = (event.clone(), waits.clone());
        Box::pin(async move {
            loop {
                event.wait().await;
                waits.set(waits.get() + 1);
            }
        })
    };
    for count in [1, 2, 50] {
        let mut unordered: FuturesUnordered<_> = (0..count).map(|_| never_waits()).collect();
        let unordered = coroutine::start(async move { unordered.next().await });
        let joined = coroutine::start(futures::future::join_all((0..count).map(|_| never_waits())));
        let inner: FuturesUnordered<_> = (0..2).map(|_| never_waits()).collect();
        let nested = coroutine::start(async move {
            let mut outer = FuturesUnordered::from_iter([inner.into_future()]);
            outer.next().await;
        });
        // The loop has its turn each time, and they go on with a budget that has an end.
        for _ in 0..10 {
            let before = waits.get();
            moment().await;
            let more = waits.get() - before;
            assert!((1..10_000).contains(&more), "{more} with {count}");
        }
        unordered.cancel();
        joined.cancel();
        nested.cancel();
    }
}

// ---------------------------------------------------------------------------------------------
// Async closures

#[test]
fn whatever_takes_a_closure_that_gives_a_future_takes_an_async_closure() {
    let io_loop = IoLoop::builder().virtual_time().build().unwrap();
    let words = [String::from("a"), String::from("loop")];
    let lengths = async || words.iter().map(String::len).sum::<usize>();
    assert_eq!(io_loop.run_sync(lengths).unwrap(), 5);
    assert_eq!(io_loop.run_sync_timeout(seconds(1), lengths).unwrap(), 5);
    let (handle, owned) = (io_loop.handle(), words.clone());
    let answer = handle.spawn(async move || owned.concat()).unwrap();
    assert_eq!(io_loop.run_sync(async || answer.await.unwrap()).unwrap(), "aloop");
    let (called, sees) = (Rc::new(Cell::new(0)), words);
    let calls = called.clone();
    io_loop.spawn_callback(async move || {
        let longest = sees.iter().max_by_key(|word| word.len());
        moment().await;
        calls.set(longest.unwrap().len());
    });
    io_loop.run_sync(async || sleep(seconds(1)).await).unwrap();
    assert_eq!(called.get(), 4);
}

#[test]
fn a_coroutine_that_is_cancelled_while_a_waker_is_cloned_is_not_awaited_for_ever() {
    let io_loop = virtual_loop();
    let mut joins = io_loop.spawn(std::future::pending::<()>()).join();
    let handle = joins.cancel_handle();
    assert!(poll_acting_when_cloned(&mut joins, move || handle.cancel()).is_ready());
}
