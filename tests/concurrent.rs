//! `concurrent`: promises and their futures, and work on other threads as a coroutine awaits it.
//! (The pool by itself is in `executor.rs`.)

mod common;

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Barrier, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use common::{
    AtDrop, Bomb, Diary, one_turn, panic_of, panicking_waker, poll_acting_when_cloned, suspend,
    virtual_loop,
};
use futures::future::join_all;
use waterspout::IoLoop;
use waterspout::concurrent::{ExcInfo, Executor, Future, promise};
use waterspout::coroutine::{self, moment, sleep};

const SECOND: Duration = Duration::from_secs(1);

/// A loop whose exceptions are in the diary.
fn reporting() -> (IoLoop, Diary) {
    let diary = Diary::new();
    (diary.exceptions_of(IoLoop::builder().virtual_time()).build().unwrap(), diary)
}

// ---------------------------------------------------------------------------------------------
// Results
// ---------------------------------------------------------------------------------------------

#[test]
fn a_future_has_no_result_until_it_is_set_and_then_keeps_it() {
    let (promise, future) = promise();
    assert!(!future.done());
    assert!(future.result().is_none() && future.exc_info().is_none());
    promise.set_result(7);
    assert!(future.done());
    for _ in 0..2 {
        assert_eq!(future.result().unwrap().unwrap(), 7);
        assert!(future.exc_info().is_none());
    }
    assert_eq!(future.clone().result().unwrap().unwrap(), 7);
}

#[test]
fn what_is_not_clone_can_be_looked_at() {
    struct NotClone(u8);
    let (promise, future) = promise();
    assert!(future.with_result(|_| ()).is_none());
    promise.set_result(NotClone(3));
    assert_eq!(future.with_result(|result| result.as_ref().unwrap().0), Some(3));
}

#[test]
fn awaiting_what_is_set_already_does_not_go_through_the_loop() {
    let io_loop = IoLoop::new().unwrap();
    let (promise, future) = promise();
    promise.set_result(1);
    let before = io_loop.counters();
    io_loop
        .run_sync(|| async {
            for _ in 0..20_000 {
                assert_eq!(future.clone().await.unwrap(), 1);
            }
        })
        .unwrap();
    let counters = io_loop.counters();
    assert_eq!((counters.turns - before.turns, counters.resumes - before.resumes), (1, 1));
}

#[test]
fn many_may_await_one_and_go_on_in_the_order_in_which_they_began() {
    let (io_loop, diary) = (IoLoop::new().unwrap(), Diary::new());
    io_loop
        .run_sync(|| async {
            let (promise, future) = promise();
            let waiting = (0..4).map(|n| {
                let (future, diary) = (future.clone(), diary.clone());
                coroutine::start(
                    async move { diary.write(format!("{n}: {}", future.await.unwrap())) },
                )
            });
            let waiting: Vec<_> = waiting.collect();
            promise.set_result("set");
            diary.write("nobody runs inside set_result");
            join_all(waiting).await;
        })
        .unwrap();
    assert_eq!(
        diary.read(),
        ["nobody runs inside set_result", "0: set", "1: set", "2: set", "3: set"]
    );
}

#[test]
fn one_that_stops_waiting_leaves_the_others_waiting() {
    let (io_loop, diary) = (IoLoop::new().unwrap(), Diary::new());
    io_loop
        .run_sync(|| async {
            let (promise, future) = promise();
            let waiting: Vec<_> = (0..3)
                .map(|n| {
                    let (future, diary) = (future.clone(), diary.clone());
                    coroutine::start(async move { diary.write(n + future.await.unwrap()) })
                })
                .collect();
            waiting[1].cancel();
            promise.set_result(10);
            moment().await;
        })
        .unwrap();
    assert_eq!(diary.read(), ["10", "12"]);
}

#[test]
fn a_promise_knows_whether_anybody_is_left_to_see_the_result() {
    let (promise, future) = promise::<()>();
    let clone = future.clone();
    drop(future);
    assert!(!promise.is_abandoned());
    drop(clone);
    assert!(promise.is_abandoned());
    promise.set_result(());
}

// ---------------------------------------------------------------------------------------------
// Done callbacks
// ---------------------------------------------------------------------------------------------

#[test]
fn done_callbacks_run_in_a_later_turn_in_order_and_never_inside_set_result() {
    let (io_loop, diary) = (IoLoop::new().unwrap(), Diary::new());
    io_loop
        .run_sync(|| async {
            let (promise, future) = promise();
            for n in 0..4 {
                let note = diary.clone();
                future.add_done_callback(move |future: &Future<&str>| {
                    note.write(format!("{n}: {}", future.result().unwrap().unwrap()));
                });
                // Some have been waiting for turns when it is set, and some are new.
                if n < 2 {
                    moment().await;
                }
            }
            promise.set_result("set");
            diary.write("after set_result");
            let note = diary.clone();
            future.add_done_callback(move |_| note.write("4: when it was done"));
            diary.write("after add_done_callback");
            moment().await;
            moment().await;
        })
        .unwrap();
    assert_eq!(
        diary.read(),
        [
            "after set_result",
            "after add_done_callback",
            "0: set",
            "1: set",
            "2: set",
            "3: set",
            "4: when it was done",
        ]
    );
}

#[test]
fn done_callbacks_run_in_the_turn_after() {
    let io_loop = IoLoop::new().unwrap();
    let called_in = Rc::new(Cell::new(0));
    io_loop
        .run_sync(|| async {
            let turns = || IoLoop::current().counters().turns;
            for already_done in [false, true] {
                let (promise, future) = promise::<()>();
                let (noted, mut promise) = (called_in.clone(), Some(promise));
                if already_done {
                    promise.take().unwrap().set_result(());
                }
                future.add_done_callback(move |_| noted.set(IoLoop::current().counters().turns));
                moment().await;
                if let Some(promise) = promise {
                    promise.set_result(());
                }
                let set_in = turns() - u64::from(already_done);
                moment().await;
                assert_eq!(called_in.get(), set_in + 1);
            }
        })
        .unwrap();
}

#[test]
fn a_panic_in_a_done_callback_is_reported_and_the_others_run() {
    let (io_loop, diary) = reporting();
    io_loop
        .run_sync(|| async {
            let (promise, future) = promise();
            future.add_done_callback(|_| panic!("first"));
            let note = diary.clone();
            future.add_done_callback(move |_| note.write("second"));
            promise.set_result(());
            moment().await;
            moment().await;
        })
        .unwrap();
    assert_eq!(diary.read(), ["panicked: first", "second"]);
}

#[test]
fn add_future_calls_back_on_the_loop_that_was_asked() {
    let (a, b, diary) = (IoLoop::new().unwrap(), IoLoop::new().unwrap(), Diary::new());
    let (promise, future) = promise();
    let note = diary.clone();
    a.add_future(future, move |_| note.write(format!("on {:?}", IoLoop::current())));
    one_turn(&a);
    b.run_sync(|| async move {
        promise.set_result(());
        moment().await;
    })
    .unwrap();
    assert!(diary.read().is_empty());
    one_turn(&a);
    one_turn(&a);
    assert_eq!(diary.read(), [format!("on {a:?}")]);
}

// ---------------------------------------------------------------------------------------------
// Exceptions
// ---------------------------------------------------------------------------------------------

#[test]
fn a_dropped_promise_is_abandoned_and_wakes_who_waits() {
    let (io_loop, diary) = reporting();
    let result = io_loop
        .run_sync(|| async {
            let (promise, future) = promise::<u8>();
            let waiting = coroutine::start(future);
            drop(promise);
            waiting.await
        })
        .unwrap();
    assert!(matches!(result, Err(ExcInfo::Abandoned)));
    assert!(result.unwrap_err().to_string().contains("abandoned"));
    assert!(diary.read().is_empty());
}

#[test]
fn an_exception_tells_its_source() {
    let (promise, future) = promise::<()>();
    promise.set_exception(io::Error::from(io::ErrorKind::AddrInUse));
    let info = future.exc_info().unwrap();
    let source = info.source().unwrap().downcast_ref::<io::Error>().unwrap();
    assert_eq!(source.kind(), io::ErrorKind::AddrInUse);
    let error = future.result().unwrap().unwrap_err();
    assert_eq!(error.to_string(), info.to_string());
}

#[waterspout::test(virtual_time)]
async fn an_exception_keeps_its_source_and_is_cheap_to_copy() {
    let (promise, future) = promise::<()>();
    promise.set_exception(io::Error::from(io::ErrorKind::ConnectionReset));
    let info = future.clone().await.unwrap_err();
    assert_eq!(info.to_string(), "connection reset");
    let source = info.source().unwrap().downcast_ref::<io::Error>().unwrap();
    assert_eq!(source.kind(), io::ErrorKind::ConnectionReset);
    assert!(std::ptr::eq(
        source,
        future.exc_info().unwrap().source().unwrap().downcast_ref().unwrap()
    ));
    let sent: Box<dyn Error + Send + Sync> = info.into();
    assert_eq!(sent.to_string(), "connection reset");
}

#[test]
fn an_exception_can_be_handed_on() {
    let (first, of_first) = promise::<()>();
    let (second, of_second) = promise::<()>();
    first.set_exception("a message");
    second.set_exc_info(of_first.exc_info().unwrap());
    assert_eq!(of_second.exc_info().unwrap().to_string(), "a message");
    assert!(of_second.exc_info().unwrap().source().is_some());
    let without_source = [ExcInfo::Cancelled, ExcInfo::Abandoned, ExcInfo::Panic("boom".into())];
    assert!(without_source.iter().all(|info| info.source().is_none()));
    assert_eq!(without_source[2].to_string(), "panicked: boom");
}

#[test]
fn an_error_nobody_looked_at_is_reported_when_the_last_handle_goes() {
    let (io_loop, diary) = reporting();
    io_loop
        .run_sync(|| async {
            let (promise, future) = promise::<()>();
            let clone = future.clone();
            promise.set_exception("lost");
            assert!(future.done());
            drop(future);
            assert!(diary.read().is_empty());
            drop(clone);
            assert_eq!(diary.read(), ["lost"]);
        })
        .unwrap();
    assert_eq!(io_loop.counters().exceptions, 1);
}

#[test]
fn an_error_that_somebody_looked_at_is_not_reported() {
    let looks: [fn(&Future<u8>); 4] = [
        |future| drop(future.result()),
        |future| drop(future.exc_info()),
        |future| assert!(future.with_result(|_| ()).is_some()),
        |future| {
            let mut future = future.clone();
            let polled = Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(polled, Poll::Ready(Err(_))));
        },
    ];
    let (io_loop, diary) = reporting();
    io_loop
        .run_sync(|| async {
            for look in looks {
                let (promise, future) = promise::<u8>();
                let clone = future.clone();
                promise.set_exception("seen");
                look(&clone);
                drop((clone, future));
            }
        })
        .unwrap();
    assert!(diary.read().is_empty());
}

#[test]
fn looking_before_it_is_set_is_not_looking() {
    let (io_loop, diary) = reporting();
    io_loop
        .run_sync(|| async {
            let (promise, future) = promise::<u8>();
            assert!(future.result().is_none() && future.exc_info().is_none());
            promise.set_exception("lost");
        })
        .unwrap();
    assert_eq!(diary.read(), ["lost"]);
}

#[test]
fn an_error_that_comes_when_all_futures_are_gone_is_reported_but_not_an_abandoned_promise() {
    let (io_loop, diary) = reporting();
    io_loop
        .run_sync(|| async {
            let (dropped, future) = promise::<u8>();
            drop(future);
            drop(dropped);
            assert!(diary.read().is_empty());
            let (promise, future) = promise::<u8>();
            drop(future);
            promise.set_exception("lost");
        })
        .unwrap();
    assert_eq!(diary.read(), ["lost"]);
}

#[test]
fn waiters_that_are_woken_may_set_other_promises() {
    let (io_loop, diary) = (IoLoop::new().unwrap(), Diary::new());
    io_loop
        .run_sync(|| async {
            let (first, of_first) = promise();
            let (second, of_second) = promise();
            let set =
                coroutine::start(async move { second.set_result(of_first.await.unwrap() + 1) });
            let note = diary.clone();
            let get = coroutine::start(async move { note.write(of_second.await.unwrap()) });
            first.set_result(1);
            set.await;
            get.await;
        })
        .unwrap();
    assert_eq!(diary.read(), ["2"]);
}

#[test]
fn a_promise_may_be_set_by_a_destructor_of_what_awaits_it() {
    let io_loop = IoLoop::new().unwrap();
    io_loop
        .run_sync(|| async {
            let (promise, future) = promise::<()>();
            let slot = RefCell::new(Some(promise));
            let setting = AtDrop(move || slot.take().unwrap().set_result(()));
            let waiting = coroutine::start(async move {
                let _setting = setting;
                future.await.unwrap();
            });
            waiting.cancel();
            moment().await;
        })
        .unwrap();
    assert_eq!(io_loop.counters().exceptions, 0);
}

#[waterspout::test(virtual_time)]
async fn a_promise_may_be_kept_by_who_waits_for_it() {
    // The future holds what holds the promise: a circle that only `set_result` opens.
    let (promise, future) = promise();
    let alive = Rc::new(Cell::new(0));
    let counted = alive.clone();
    let circle = coroutine::spawn(async move {
        let keeps = (promise, counted.clone());
        suspend().await;
        counted.set(1);
        keeps.0.set_result(());
    });
    future.await.unwrap();
    circle.await;
    assert_eq!((alive.get(), Rc::strong_count(&alive)), (1, 1));
}

// ---------------------------------------------------------------------------------------------
// Work on other threads
// ---------------------------------------------------------------------------------------------

#[test]
fn work_runs_on_another_thread_and_comes_back() {
    let io_loop = IoLoop::new().unwrap();
    let here = std::thread::current().id();
    let inner = io_loop.clone();
    let there = io_loop.run_sync(|| inner.run_in_executor(|| std::thread::current().id())).unwrap();
    assert_ne!(there, here);
}

#[test]
fn work_of_one_loop_runs_at_the_same_time() {
    let io_loop = IoLoop::new().unwrap();
    // Each waits until the other runs.
    let both = Arc::new(Barrier::new(2));
    let work = [1, 2].map(|n| {
        let both = both.clone();
        io_loop.run_in_executor(move || {
            both.wait();
            n
        })
    });
    assert_eq!(io_loop.run_sync(|| join_all(work)).unwrap(), [1, 2]);
}

#[test]
fn done_callbacks_of_work_run_on_the_loop() {
    let (io_loop, diary) = (IoLoop::new().unwrap(), Diary::new());
    let (inner, note) = (io_loop.clone(), diary.clone());
    let output = io_loop.run_sync(|| async move {
        let work = inner.run_in_executor(|| 5);
        work.add_done_callback(move || note.write(format!("on {:?}", IoLoop::current())));
        let output = work.await;
        // If it was done before the callback was added, this is the turn after.
        moment().await;
        output
    });
    assert_eq!(output.unwrap(), 5);
    assert_eq!(diary.read(), [format!("on {io_loop:?}")]);
}

#[test]
fn work_begins_although_nobody_awaits_it() {
    let io_loop = IoLoop::new().unwrap();
    let (sender, receiver) = mpsc::channel();
    drop(io_loop.run_in_executor(move || sender.send("begun").unwrap()));
    assert_eq!(receiver.recv().unwrap(), "begun");
    io_loop.close();
}

#[test]
fn work_given_to_a_loop_before_it_runs_comes_back_to_that_loop() {
    let io_loop = IoLoop::new().unwrap();
    let (open, wait) = mpsc::channel();
    let work = io_loop.run_in_executor(move || wait.recv().map(|()| 42));
    open.send(()).unwrap();
    // The limit is only a guard: without a fault, what comes back ends it.
    assert_eq!(io_loop.run_sync_timeout(60 * SECOND, || work).unwrap(), Ok(42));
}

#[test]
fn a_panic_in_the_work_reaches_who_awaits_it() {
    let (io_loop, diary) = reporting();
    let inner = io_loop.clone();
    let message =
        panic_of(|| io_loop.run_sync(|| inner.run_in_executor(|| panic!("in the work"))).unwrap());
    assert_eq!(message, "in the work");
    let inner = io_loop.clone();
    let error = io_loop
        .run_sync(|| inner.run_in_executor(|| panic!("in the work")).join())
        .unwrap()
        .unwrap_err();
    assert!(error.is_panic());
    assert!(diary.read().is_empty());
}

#[test]
fn a_panic_in_work_that_nobody_awaits_is_reported() {
    let (io_loop, diary) = reporting();
    io_loop
        .run_sync(|| async {
            let io_loop = IoLoop::current();
            drop(io_loop.run_in_executor(|| panic!("unheard")));
            while io_loop.counters().exceptions == 0 {
                io_loop.run_in_executor(|| ()).await;
            }
        })
        .unwrap();
    assert_eq!(diary.read(), ["panicked: unheard"]);
}

#[test]
fn virtual_time_stands_still_while_work_is_under_way() {
    let io_loop = virtual_loop();
    let begun = io_loop.time();
    io_loop.call_later(SECOND, || ());
    let inner = io_loop.clone();
    io_loop
        .run_sync(|| async move {
            let (open, wait) = mpsc::channel();
            let work = inner.run_in_executor(move || wait.recv().unwrap());
            // The loop has nothing to do but a timer, again and again between the calls.
            let handle = inner.handle();
            let opening = inner.run_in_executor(move || {
                for _ in 0..100 {
                    let (called, calls) = mpsc::channel();
                    handle.add_callback(move || called.send(()).unwrap()).unwrap();
                    calls.recv().unwrap();
                }
                open.send(()).unwrap();
            });
            work.await;
            assert_eq!(inner.time(), begun);
            opening.await;
            assert_eq!(inner.time(), begun);
            sleep(2 * SECOND).await;
            assert_eq!(inner.time(), begun + 2 * SECOND);
        })
        .unwrap();
}

#[test]
fn virtual_time_goes_on_when_the_work_is_forgotten() {
    let io_loop = virtual_loop();
    let (open, wait) = mpsc::channel::<()>();
    let (begun, inner) = (io_loop.time(), io_loop.clone());
    io_loop
        .run_sync(|| async move {
            let work = inner.run_in_executor(move || _ = wait.recv());
            work.cancel();
            sleep(3600 * SECOND).await;
        })
        .unwrap();
    // The work still waits.
    assert_eq!(io_loop.time() - begun, 3600 * SECOND);
    drop(open);
}

#[test]
fn as_much_as_there_are_threads_and_places_is_taken_on_at_once() {
    // However slow the threads are to begin.
    for _ in 0..50 {
        let io_loop = IoLoop::new().unwrap();
        let executor = Executor::builder().threads(2).queue_limit(1).build();
        let done = io_loop.run_sync(|| async {
            let work: Vec<_> = (0..3).map(|n| executor.run(move || n)).collect();
            join_all(work.into_iter().map(|work| work.join())).await
        });
        let done: Vec<_> = done.unwrap().into_iter().map(|done| done.ok()).collect();
        assert_eq!(done, [Some(0), Some(1), Some(2)]);
    }
}

#[test]
fn without_places_to_wait_work_still_has_the_threads() {
    let io_loop = IoLoop::new().unwrap();
    let executor = Executor::builder().threads(1).queue_limit(0).build();
    assert_eq!(io_loop.run_sync(|| executor.run(|| "ran")).unwrap(), "ran");
}

#[test]
fn a_waker_that_panics_keeps_no_result_from_the_others() {
    let (io_loop, diary) = reporting();
    let ran = io_loop.run_sync_timeout(SECOND, async || {
        let (promise, future) = promise();
        let before = coroutine::start(future.clone());
        let mut foreign = future.clone();
        let polled = Pin::new(&mut foreign).poll(&mut Context::from_waker(&panicking_waker()));
        assert!(polled.is_pending());
        let after = coroutine::start(future);
        promise.set_result(7);
        (before.await.unwrap(), after.await.unwrap())
    });
    assert_eq!(ran.unwrap(), (7, 7));
    assert_eq!(diary.read(), ["panicked: a waker"]);
}

#[test]
fn a_result_whose_destructor_panics_hurts_nobody() {
    let (io_loop, diary) = reporting();
    let dropped = Arc::new(AtomicUsize::new(0));
    let bomb = || Rc::new(Bomb(dropped.clone()));
    io_loop
        .run_sync(async || {
            let (kept, future) = promise();
            kept.set_result(bomb());
            drop(future);
            // Nobody wants this one.
            let (unwanted, future) = promise();
            drop(future);
            unwanted.set_result(bomb());
        })
        .unwrap();
    assert_eq!(dropped.load(Relaxed), 2);
    assert_eq!(diary.read(), ["panicked: a destructor"; 2]);
}

#[test]
fn a_result_that_is_set_while_a_waker_is_cloned_is_not_missed() {
    let (promise, mut future) = promise::<u8>();
    let got = poll_acting_when_cloned(&mut future, move || promise.set_result(7));
    assert!(matches!(got, Poll::Ready(Ok(7))), "{got:?}");
}
