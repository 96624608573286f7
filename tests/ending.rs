//! How coroutines end before their time: what they await ends with them, and no chain is too long.

mod child;
mod common;

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use common::{AtDrop, Diary, seconds, virtual_loop};
use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use waterspout::concurrent::promise;
use waterspout::coroutine::{
    CancelOnDrop, CancelToken, TaskGroup, moment, multi, shield, sleep, spawn, start, try_multi,
    with_timeout,
};
use waterspout::locks::Event;
use waterspout::{Coroutine, IoLoop};

const LONG: usize = if cfg!(miri) { 500 } else { 100_000 };

/// Ticks every second, for ever.
#[waterspout::coroutine]
async fn tick(count: Rc<Cell<u32>>) {
    loop {
        sleep(seconds(1)).await;
        count.set(count.get() + 1);
    }
}

async fn awaits(ticks: Coroutine<()>) {
    ticks.await
}

async fn awaits_well(ticks: Coroutine<()>) -> Result<(), ()> {
    ticks.await;
    Ok(())
}

/// Whether ticks go on after `end` has run, in which `begin` runs.
async fn goes_on_after<T>(begin: impl FnOnce(Coroutine<()>) -> T, end: impl FnOnce(T)) -> bool {
    let count = Rc::new(Cell::new(0));
    let begun = begin(tick(count.clone()));
    // Between two ticks.
    sleep(Duration::from_millis(5_500)).await;
    assert!(count.get() >= 4);
    end(begun);
    let then = count.get();
    sleep(seconds(5)).await;
    count.get() != then
}

// ---------------------------------------------------------------------------------------------
// What is awaited

#[waterspout::test(virtual_time)]
async fn cancelling_reaches_what_is_awaited() {
    let cancel = |task: Coroutine<()>| task.cancel();
    assert!(!goes_on_after(|ticks| spawn(awaits(ticks)), cancel).await);
    assert!(!goes_on_after(|ticks| spawn(spawn(awaits(ticks))), cancel).await, "down the chain");
    let joins = |ticks: Coroutine<()>| spawn(async move { drop(ticks.join().await) });
    assert!(!goes_on_after(joins, cancel).await);
    let limits = |ticks| spawn(async { _ = with_timeout(seconds(60), ticks).await });
    assert!(!goes_on_after(limits, cancel).await);
    let selects = |mut ticks: Coroutine<()>| {
        spawn(
            async move { drop(futures::future::select(&mut ticks, Box::pin(pending::<()>())).await) },
        )
    };
    assert!(!goes_on_after(selects, cancel).await);
    let gathers = |ticks: Coroutine<()>| {
        spawn(async move { _ = multi((ticks.map(Ok::<_, ()>), pending::<Result<(), ()>>())).await })
    };
    assert!(!goes_on_after(gathers, cancel).await);
    // By another waker than its own.
    let unordered = |ticks: Coroutine<()>| {
        spawn(async move { FuturesUnordered::from_iter([ticks]).for_each(async |()| ()).await })
    };
    assert!(!goes_on_after(unordered, cancel).await);
}

#[waterspout::test(virtual_time)]
async fn whoever_owns_a_coroutine_ends_also_what_it_awaits() {
    let tied = |ticks| spawn(awaits(ticks)).cancel_on_drop();
    assert!(!goes_on_after(tied, drop).await);
    let grouped = |ticks| {
        let group = TaskGroup::<()>::new();
        group.start(awaits_well(ticks));
        group
    };
    assert!(!goes_on_after(grouped, drop).await);
    assert!(!goes_on_after(grouped, |group| group.cancel()).await);
    let token = |ticks| {
        let token = CancelToken::new();
        let listens = token.clone();
        drop(spawn(async move { _ = listens.run(awaits(ticks)).await }));
        token
    };
    assert!(!goes_on_after(token, |token| token.cancel()).await);
    let first_error = |ticks| {
        let (promise, fails) = promise::<()>();
        let fails = spawn(async move { fails.await.map_err(drop) });
        let ticks = spawn(awaits_well(ticks));
        drop(spawn(async move { _ = try_multi([fails, ticks]).await }));
        promise
    };
    assert!(!goes_on_after(first_error, drop).await);
}

#[waterspout::test(virtual_time)]
async fn a_handle_that_is_merely_dropped_detaches() {
    assert!(goes_on_after(|ticks| ticks, drop).await);
    // Dropped by its owner, which goes on.
    let owner = |mut ticks: Coroutine<()>| {
        let (promise, end) = promise::<()>();
        drop(spawn(async move {
            let _ = futures::future::select(&mut ticks, end).await;
            drop(ticks);
            pending::<()>().await
        }));
        promise
    };
    assert!(goes_on_after(owner, |promise| promise.set_result(())).await);
    // Given up by a time limit.
    let limited = |ticks| drop(spawn(async { _ = with_timeout(seconds(5), ticks).await }));
    assert!(goes_on_after(limited, drop).await);
    // Held, but never awaited.
    let held = |ticks: Coroutine<()>| {
        spawn(async move {
            pending::<()>().await;
            drop(ticks);
        })
    };
    assert!(goes_on_after(held, |task| task.cancel()).await);
}

#[waterspout::test(virtual_time)]
async fn what_is_detached_by_one_that_is_cancelled_still_calls_back() {
    let (diary, (promise, future)) = (Diary::new(), promise::<()>());
    let goes_on = start(async { _ = future.await });
    goes_on.add_done_callback(diary.writing("called back"));
    let owner = start(async move {
        pending::<()>().await;
        drop(goes_on);
    });
    owner.cancel();
    promise.set_result(());
    sleep(seconds(1)).await;
    assert_eq!(diary.read(), ["called back"]);
}

#[waterspout::test(virtual_time)]
async fn what_is_shielded_goes_on() {
    let cancel = |task: Coroutine<()>| task.cancel();
    assert!(goes_on_after(|ticks| spawn(async { shield(ticks).await }), cancel).await);
    assert!(goes_on_after(|ticks| spawn(async { shield(awaits(ticks)).await }), cancel).await);
    // What else the same coroutine awaits ends.
    let count = Rc::new(Cell::new(0));
    let other = tick(count.clone());
    let both = |ticks| spawn(async { _ = futures::join!(shield(ticks), other) });
    assert!(goes_on_after(both, cancel).await);
    let then = count.get();
    sleep(seconds(5)).await;
    assert_eq!(count.get(), then);
}

#[waterspout::test(virtual_time)]
async fn a_destructor_of_what_is_cancelled_may_run_code_that_detaches() {
    let count = Rc::new(Cell::new(0));
    let counts = count.clone();
    let task = spawn(async move {
        let _at_end = AtDrop(move || {
            let counts = counts.clone();
            // It awaits, and lets go, of its own accord: nobody cancels this one.
            drop(start(async move { _ = futures::poll!(Box::pin(tick(counts))) }));
        });
        pending::<()>().await
    });
    moment().await;
    task.cancel();
    sleep(seconds(5)).await;
    assert!(count.get() >= 4);
}

#[waterspout::test(virtual_time)]
async fn cancelling_is_over_when_the_call_returns() {
    let diary = Diary::new();
    let inner_end = diary.at_end("inner");
    let inner = spawn(async move {
        let _end = inner_end;
        pending::<()>().await
    });
    let outer_end = diary.at_end("outer");
    let outer = spawn(async move {
        let _end = outer_end;
        inner.await
    });
    common::turns(2).await;
    outer.cancel();
    assert!(outer.done());
    let mut ends = diary.read();
    ends.sort();
    assert_eq!(ends, ["inner", "outer"]);
}

// ---------------------------------------------------------------------------------------------
// Long chains

/// A thread with a stack that no long recursion fits into.
fn on_a_small_stack(body: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(256 << 10).spawn(body).unwrap();
    thread.join().unwrap();
}

/// A chain of coroutines each of which owns the one before.
fn owners(counted: &Rc<Cell<usize>>) -> Option<CancelOnDrop<()>> {
    let mut next: Option<CancelOnDrop<()>> = None;
    for _ in 0..LONG {
        let (owned, count) = (next.take(), counted.clone());
        let ends = AtDrop(move || count.set(count.get() + 1));
        let coroutine = start(async move {
            let (_owned, _ends) = (owned, ends);
            pending::<()>().await;
        });
        next = Some(coroutine.cancel_on_drop());
    }
    next
}

#[test]
fn a_long_chain_of_owners_ends_without_a_deep_stack() {
    on_a_small_stack(|| {
        let drops = Rc::new(Cell::new(0));
        let io_loop = virtual_loop();
        io_loop.run_sync(|| async { drop(owners(&drops)) }).unwrap();
        assert_eq!(drops.take(), LONG);
        let chain = io_loop.run_sync(|| async { owners(&drops) }).unwrap();
        io_loop.close();
        drop(chain);
        assert_eq!(drops.take(), LONG, "closing ends it");
    });
}

#[test]
fn a_long_chain_of_awaiters_is_cancelled_without_a_deep_stack() {
    on_a_small_stack(|| {
        let io_loop = virtual_loop();
        io_loop
            .run_sync(|| async {
                let mut last = spawn(pending::<()>());
                for _ in 0..LONG {
                    last = spawn(last);
                }
                sleep(seconds(1)).await;
                last.cancel();
                assert!(last.done());
            })
            .unwrap();
        assert!(io_loop.coroutines().is_empty());
    });
}

#[test]
fn a_long_chain_of_groups_is_dropped_without_a_deep_stack() {
    on_a_small_stack(|| {
        let io_loop = virtual_loop();
        io_loop
            .run_sync(|| async {
                let mut group = TaskGroup::<()>::new();
                for _ in 0..LONG {
                    let inner = std::mem::take(&mut group);
                    group.start(async move {
                        let _inner = inner;
                        pending().await
                    });
                }
            })
            .unwrap();
        assert!(io_loop.coroutines().is_empty());
    });
}

#[test]
fn a_long_chain_of_outputs_that_nobody_takes_is_dropped_without_a_deep_stack() {
    struct Holds(#[allow(dead_code)] Option<Coroutine<Holds>>);
    on_a_small_stack(|| {
        virtual_loop()
            .run_sync(|| async {
                let mut last = None;
                for _ in 0..LONG {
                    let held = last.take();
                    last = Some(start(async { Holds(held) }));
                }
                drop(last);
            })
            .unwrap();
    });
}

#[test]
fn a_chain_whose_destructors_panic_ends_all_the_same() {
    let diary = Diary::new();
    let io_loop = diary.exceptions_of(IoLoop::builder().virtual_time()).build().unwrap();
    io_loop
        .run_sync(|| async {
            let mut last = spawn(pending::<()>());
            for n in 0..100 {
                let ends = AtDrop(move || assert!(n % 10 != 0, "one in ten"));
                last = spawn(async move {
                    let _ends = ends;
                    last.await
                });
            }
            sleep(seconds(1)).await;
            last.cancel();
        })
        .unwrap();
    assert!(io_loop.coroutines().is_empty());
    assert_eq!(diary.read().len(), 10);
}

// ---------------------------------------------------------------------------------------------
// Closed loops

#[test]
fn a_closed_loop_takes_no_wakes_of_the_one_after_it() {
    let first = IoLoop::new().unwrap();
    first.make_current();
    first.close();
    let second = virtual_loop();
    let event = Event::new();
    let task = second.spawn(event.wait());
    second.run_sync(moment).unwrap();
    first.make_current(); // which it does not become
    event.set();
    second.run_sync_timeout(seconds(1), || task).unwrap();
}

#[test]
fn what_is_done_while_another_loop_closes_reaches_its_own_loop() {
    let diary = Diary::new();
    let (first, second) = (virtual_loop(), virtual_loop());
    let task = Rc::new(second.spawn(pending::<()>()));
    task.add_done_callback(diary.writing("called back"));
    second.run_sync(moment).unwrap();
    let cancels = task.clone();
    let at_close = AtDrop(move || {
        // A loop that is made here must not be taken for the one that closes.
        let third = virtual_loop();
        let event = Event::new();
        let waits = third.spawn(event.wait());
        third.run_sync(moment).unwrap();
        event.set();
        third.run_sync_timeout(seconds(1), || waits).unwrap();
        cancels.cancel();
    });
    drop(first.spawn(async move {
        let _at_close = at_close;
        pending::<()>().await
    }));
    first.run_sync(moment).unwrap();
    first.close();
    assert!(task.done());
    second.run_sync(|| common::turns(2)).unwrap();
    assert_eq!(diary.read(), ["called back"]);
}

#[test]
fn a_done_callback_is_called_on_its_own_loop_whichever_is_current() {
    let (own, other) = (virtual_loop(), virtual_loop());
    let called_on = Rc::new(RefCell::new(Vec::new()));
    let note = || {
        let called_on = called_on.clone();
        move || called_on.borrow_mut().push(IoLoop::current())
    };
    let task = own.spawn(async {});
    own.run_sync(|| common::turns(2)).unwrap();
    other.make_current();
    task.add_done_callback(note());
    other.run_sync(|| common::turns(2)).unwrap();
    assert!(called_on.borrow().is_empty());
    own.run_sync(|| common::turns(2)).unwrap();
    assert_eq!(called_on.take(), [own]);
    IoLoop::clear_current();
}

#[test]
#[cfg_attr(miri, ignore = "starts a process")]
fn handles_of_closed_loops_keep_no_file_open() {
    child::alone("handles_of_closed_loops_keep_no_file_open", || {
        let before = child::open_files();
        let handles: Vec<_> = (0..20)
            .map(|_| {
                let io_loop = IoLoop::new().unwrap();
                io_loop.run_sync(|| sleep(Duration::from_micros(10))).unwrap();
                io_loop.handle()
            })
            .collect();
        assert!(handles.iter().all(|handle| handle.is_closed()));
        assert_eq!(child::open_files(), before);
    });
}
