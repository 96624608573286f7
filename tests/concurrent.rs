//! Promises and their futures: one sets, many look.

mod common;

use std::cell::Cell;
use std::error::Error;
use std::io;
use std::rc::Rc;

use common::{Diary, one_turn, suspend, virtual_loop};
use waterspout::IoLoop;
use waterspout::concurrent::{ExcInfo, Future, promise};
use waterspout::coroutine::{moment, spawn, start};

#[waterspout::test(virtual_time)]
async fn a_result_is_seen_by_all_who_await_and_by_all_who_look() {
    let (promise, future) = promise();
    let waiters: Vec<_> = (0..3)
        .map(|_| {
            let future = future.clone();
            start(async move { future.await.unwrap() })
        })
        .collect();
    assert!(!future.done() && future.result().is_none() && future.exc_info().is_none());
    promise.set_result("here");
    assert!(future.done());
    for waiter in waiters {
        assert_eq!(waiter.await, "here");
    }
    assert_eq!(future.result().unwrap().unwrap(), "here");
    assert_eq!(future.clone().await.unwrap(), "here");
    assert_eq!(future.with_result(|result| result.as_ref().unwrap().len()), Some(4));
}

#[test]
fn nothing_of_a_waiter_runs_inside_set_result() {
    let io_loop = virtual_loop();
    let diary = Diary::new();
    io_loop
        .run_sync(|| async {
            let (promise, future) = promise();
            for name in ["a", "b"] {
                let (future, diary) = (future.clone(), diary.clone());
                start(async move {
                    future.await.unwrap();
                    diary.write(name);
                });
            }
            let called = diary.clone();
            future.add_done_callback(move |future| {
                assert!(future.done());
                called.write("callback");
            });
            moment().await; // the callback has begun to wait, behind the others
            diary.write("before");
            promise.set_result(());
            diary.write("after");
            moment().await;
            assert_eq!(diary.read(), ["before", "after", "a", "b", "callback"]);
        })
        .unwrap();
}

#[test]
fn done_callbacks_run_in_a_later_turn_in_the_order_in_which_they_were_added() {
    let io_loop = virtual_loop();
    io_loop.make_current();
    let diary = Diary::new();
    let (promise, future) = promise();
    let note = |word: &'static str| {
        let diary = diary.clone();
        move |_: &Future<()>| diary.write(word)
    };
    future.add_done_callback(note("first"));
    io_loop.add_future(future.clone(), note("second"));
    one_turn(&io_loop);
    promise.set_result(());
    future.add_done_callback(note("third")); // it is done already
    assert_eq!(diary.read(), [""; 0]);
    one_turn(&io_loop);
    assert_eq!(diary.read(), ["first", "second", "third"]);
    one_turn(&io_loop);
    assert_eq!(diary.read(), [""; 0]);
    IoLoop::clear_current();
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

#[waterspout::test(virtual_time)]
async fn a_promise_that_is_dropped_abandons_its_future() {
    let (promise, future) = promise::<u8>();
    let waiter = start(future.clone());
    drop(promise);
    assert!(matches!(waiter.await, Err(ExcInfo::Abandoned)));
    assert!(matches!(future.exc_info(), Some(ExcInfo::Abandoned)));
}

#[waterspout::test(virtual_time)]
async fn exc_info_of_something_else_can_be_passed_on() {
    let (first, future) = promise::<u8>();
    drop(first);
    let (second, other) = promise::<u8>();
    second.set_exc_info(future.exc_info().unwrap());
    assert!(matches!(other.await, Err(ExcInfo::Abandoned)));
}

/// What is reported while `run` runs on a loop, and once more when it is over.
fn reported(run: impl FnOnce()) -> Vec<String> {
    let diary = Diary::new();
    let io_loop = diary.exceptions_of(IoLoop::builder().virtual_time()).build().unwrap();
    io_loop.run_sync(|| async { run() }).unwrap();
    diary.read()
}

#[test]
fn an_exception_that_nobody_looked_at_is_reported_when_the_last_handle_goes() {
    let lost = reported(|| {
        let (promise, future) = promise::<()>();
        let again = future.clone();
        promise.set_exception("lost");
        drop(future);
        drop(again);
    });
    assert_eq!(lost, ["lost"]);
    for look in [
        (|future| drop(future.exc_info())) as fn(&Future<()>),
        |future| drop(future.result()),
        |future| assert!(future.with_result(|_| ()).is_some()),
    ] {
        let seen = reported(|| {
            let (promise, future) = promise::<()>();
            let again = future.clone();
            promise.set_exception("seen");
            look(&future);
            drop((future, again));
        });
        assert_eq!(seen, [""; 0]);
    }
}

#[test]
fn a_result_or_a_promise_that_nobody_waits_for_is_no_exception() {
    let nothing = reported(|| {
        let (set, future) = promise();
        set.set_result(5);
        drop(future);
        let (unset, future) = promise::<()>();
        drop(future);
        assert!(unset.is_abandoned());
        drop(unset);
    });
    assert_eq!(nothing, [""; 0]);
}

#[waterspout::test(virtual_time)]
async fn a_waiter_that_is_dropped_leaves_and_the_others_stay() {
    let (promise, future) = promise();
    let gone = start(future.clone());
    let stays = start(future.clone());
    gone.cancel();
    drop(gone);
    promise.set_result(5);
    assert_eq!(stays.await.unwrap(), 5);
    assert_eq!(future.await.unwrap(), 5);
}

#[waterspout::test(virtual_time)]
async fn twenty_thousand_ready_futures_are_awaited_in_one_go() {
    let (promise, future) = promise();
    promise.set_result(());
    let before = IoLoop::current().counters().turns;
    for _ in 0..20_000 {
        future.clone().await.unwrap();
    }
    assert_eq!(IoLoop::current().counters().turns, before);
}

#[waterspout::test(virtual_time)]
async fn a_promise_may_be_kept_by_who_waits_for_it() {
    // The future holds what holds the promise: a circle that only `set_result` opens.
    let (promise, future) = promise();
    let alive = Rc::new(Cell::new(0));
    let counted = alive.clone();
    let circle = spawn(async move {
        let keeps = (promise, counted.clone());
        suspend().await;
        counted.set(1);
        keeps.0.set_result(());
    });
    future.await.unwrap();
    circle.await;
    assert_eq!((alive.get(), Rc::strong_count(&alive)), (1, 1));
}
