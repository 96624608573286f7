//! Waiting for several: `multi`, `try_multi`, `WaitIterator`, `with_timeout`.

mod common;

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use common::{Diary, seconds};
use futures::{FutureExt, StreamExt};
use log::Level;
use waterspout::concurrent::promise;
use waterspout::coroutine::{
    self, WaitIterator, moment, multi, multi_outputs, multi_quiet, sleep, spawn, try_multi,
    with_timeout,
};
use waterspout::testing::ExpectLog;
use waterspout::{Coroutine, IoLoop};

/// Finishes after `delay` seconds with `result`.
#[waterspout::coroutine]
async fn after<T: 'static, E: std::fmt::Debug + 'static>(
    delay: u64,
    result: Result<T, E>,
) -> Result<T, E> {
    sleep(seconds(delay)).await;
    result
}

fn ok(delay: u64) -> Coroutine<Result<u64, String>> {
    after(delay, Ok(delay))
}

#[waterspout::test(virtual_time)]
async fn multi_gives_values_in_the_order_of_the_input_whatever_finishes_first() {
    let begun = IoLoop::current().time();
    assert_eq!(multi(vec![ok(3), ok(1), ok(2)]).await, Ok(vec![3, 1, 2]));
    assert_eq!(IoLoop::current().time() - begun, seconds(3));
}

#[waterspout::test(virtual_time)]
async fn multi_keeps_the_shape_of_arrays_maps_and_tuples() {
    let [two, one] = multi([ok(2), ok(1)]).await.unwrap();
    assert_eq!((two, one), (2, 1));
    assert_eq!(multi([] as [Coroutine<Result<u8, ()>>; 0]).await, Ok([]));
    let map = HashMap::from([("a", ok(2)), ("b", ok(1))]);
    assert_eq!(multi(map).await, Ok(HashMap::from([("a", 2), ("b", 1)])));
    let tree = BTreeMap::from([(1, ok(2)), (2, ok(1))]);
    assert_eq!(multi(tree).await, Ok(BTreeMap::from([(1, 2), (2, 1)])));
    let tuple = (ok(1), after(2, Ok("two")), async { Ok(3.0) });
    assert_eq!(multi(tuple).await, Ok((1, "two", 3.0)));
}

/// Gives `value` after so many seconds, and cannot fail.
#[waterspout::coroutine]
async fn plain<T: 'static>(delay: u64, value: T) -> T {
    sleep(seconds(delay)).await;
    value
}

#[waterspout::test(virtual_time)]
async fn multi_outputs_awaits_what_cannot_fail_at_once_and_gives_outputs_in_the_order_of_the_input()
{
    let begun = IoLoop::current().time();
    assert_eq!(
        multi_outputs(vec![plain(3, "a"), plain(1, "b"), plain(2, "c")]).await,
        ["a", "b", "c"]
    );
    assert_eq!(IoLoop::current().time() - begun, seconds(3));
    multi_outputs(vec![sleep(seconds(1)), sleep(seconds(2))]).await;
    assert_eq!(IoLoop::current().time() - begun, seconds(5));
    assert!(multi_outputs(Vec::<Coroutine<u8>>::new()).now_or_never().unwrap().is_empty());
}

#[waterspout::test(virtual_time)]
async fn multi_outputs_keeps_the_shape_of_arrays_maps_and_tuples() {
    let [two, one] = multi_outputs([plain(2, "two"), plain(1, "one")]).await;
    assert_eq!((two, one), ("two", "one"));
    let map = HashMap::from([("a", plain(2, 2)), ("b", plain(1, 1))]);
    assert_eq!(multi_outputs(map).await, HashMap::from([("a", 2), ("b", 1)]));
    let tree = BTreeMap::from([(1, plain(2, 2)), (2, plain(1, 1))]);
    assert_eq!(multi_outputs(tree).await, BTreeMap::from([(1, 2), (2, 1)]));
    let (a, b, c) = multi_outputs((plain(1, 1), plain(2, "two"), async { 3.0 })).await;
    assert_eq!((a, b, c), (1, "two", 3.0));
    let six = (plain(1, 1), plain(2, 2), plain(3, 3), plain(2, 4), plain(1, 5), plain(3, 6));
    assert_eq!(multi_outputs(six).await, (1, 2, 3, 4, 5, 6));
}

#[waterspout::test(virtual_time)]
async fn an_error_is_an_output_as_any_other_for_multi_outputs() {
    let outputs =
        multi_outputs([ok(1), after(1, Err("no".into())), after(2, Err("nor".into()))]).await;
    assert_eq!(outputs, [Ok(1), Err("no".to_owned()), Err("nor".to_owned())]);
    let outputs = multi_outputs((ok(1), async { Err::<(), _>(2) })).await;
    assert_eq!(outputs, (Ok(1), Err(2)));
}

#[waterspout::test(virtual_time)]
async fn multi_waits_for_all_after_an_error_and_gives_the_first_in_input_order() {
    let begun = IoLoop::current().time();
    let children = vec![ok(1), after(3, Err("late".into())), after(2, Err("early".into())), ok(4)];
    assert_eq!(multi_quiet(children).await, Err("late".to_owned()));
    assert_eq!(IoLoop::current().time() - begun, seconds(4));
    let tuple =
        (ok(1), after::<(), _>(3, Err("late".into())), after::<(), _>(2, Err("early".into())));
    assert_eq!(multi_quiet(tuple).await.unwrap_err(), "late");
}

#[waterspout::test(virtual_time)]
async fn multi_logs_the_errors_after_the_first_unless_it_is_quiet() {
    let place = format!("one more error of multi at {}", file!());
    let logged = ExpectLog::new("waterspout", &*place).level(Level::Error);
    let no = |word: &str| after::<u64, _>(1, Err(word.to_owned()));
    assert_eq!(multi([no("one"), no("two"), no("three")]).await, Err("one".to_owned()));
    assert_eq!(logged.count(), 2);
    assert_eq!(multi((no("one"), ok(2), no("two"))).await, Err("one".to_owned()));
    assert_eq!(logged.count(), 3);
    // A single error is given and need not be logged.
    assert_eq!(multi([ok(1), no("one")]).await, Err("one".to_owned()));
    assert_eq!(multi_quiet([no("one"), no("two")]).await, Err("one".to_owned()));
    assert_eq!(multi_quiet((no("one"), no("two"))).await, Err("one".to_owned()));
    assert_eq!(logged.count(), 3);
}

#[test]
fn multi_of_nothing_is_done_at_once() {
    let nothing: Vec<Coroutine<Result<(), ()>>> = Vec::new();
    assert_eq!(multi(nothing).now_or_never(), Some(Ok(vec![])));
    let nothing: HashMap<u8, Coroutine<Result<(), ()>>> = HashMap::new();
    assert_eq!(multi(nothing).now_or_never(), Some(Ok(HashMap::new())));
}

#[waterspout::test(virtual_time)]
async fn multi_of_a_hundred_thousand_children_polls_each_a_few_times() {
    let polls = Rc::new(Cell::new(0u64));
    let children: Vec<_> = (0..100_000u32)
        .map(|n| {
            let polls = polls.clone();
            let mut child = Box::pin(async move {
                moment().await;
                Ok::<_, ()>(n)
            });
            std::future::poll_fn(move |cx| {
                polls.set(polls.get() + 1);
                child.as_mut().poll(cx)
            })
        })
        .collect();
    let values = multi(children).await.unwrap();
    assert!(values.into_iter().eq(0..100_000));
    assert!(polls.get() <= 400_000, "{} polls", polls.get());
}

#[waterspout::test(virtual_time)]
async fn one_future_may_be_awaited_by_several_children() {
    let (promise, future) = promise();
    let children = vec![future.clone(), future.clone(), future];
    let all = spawn(async { multi(children).await.unwrap() });
    moment().await;
    promise.set_result(7);
    assert_eq!(all.await, [7, 7, 7]);
}

#[waterspout::test(virtual_time)]
async fn dropping_multi_detaches_its_coroutines() {
    let done = Rc::new(Cell::new(false));
    let child = {
        let done = done.clone();
        spawn(async move {
            sleep(seconds(1)).await;
            done.set(true);
            Ok::<_, ()>(())
        })
    };
    assert!(multi(vec![child]).now_or_never().is_none());
    sleep(seconds(2)).await;
    assert!(done.get());
}

#[waterspout::test(virtual_time)]
async fn try_multi_stops_at_the_first_error_and_cancels_the_rest() {
    let begun = IoLoop::current().time();
    let children = [ok(1), after(3, Err("late".into())), after(2, Err("early".into())), ok(9)];
    assert_eq!(try_multi(children).await, Err("early".to_owned()));
    assert_eq!(IoLoop::current().time() - begun, seconds(2));
    let names: Vec<_> = IoLoop::current().coroutines().iter().map(|info| info.name).collect();
    assert!(names.iter().all(|name| !name.ends_with("after")), "{names:?}");
    let children =
        (ok(1), after::<&str, _>(3, Err("late".into())), after::<(), _>(2, Err("early".into())));
    assert_eq!(try_multi(children).await, Err("early".to_owned()));
    assert_eq!(IoLoop::current().time() - begun, seconds(4));
    let names: Vec<_> = IoLoop::current().coroutines().iter().map(|info| info.name).collect();
    assert!(names.iter().all(|name| !name.ends_with("after")), "{names:?}");
}

#[waterspout::test(virtual_time)]
async fn try_multi_keeps_the_shape_of_vectors_arrays_maps_and_tuples() {
    assert_eq!(try_multi(vec![ok(2), ok(1)]).await, Ok(vec![2, 1]));
    let [two, one] = try_multi([ok(2), ok(1)]).await.unwrap();
    assert_eq!((two, one), (2, 1));
    let map = HashMap::from([("a", ok(2)), ("b", ok(1))]);
    assert_eq!(try_multi(map).await, Ok(HashMap::from([("a", 2), ("b", 1)])));
    let tree = BTreeMap::from([(1, ok(2)), (2, ok(1))]);
    assert_eq!(try_multi(tree).await, Ok(BTreeMap::from([(1, 2), (2, 1)])));
    let three = after(3, Ok(3.0)).cancel_on_drop();
    assert_eq!(try_multi((ok(1), after(2, Ok("two")), three)).await, Ok((1, "two", 3.0)));
    let (one, six) = (|| after(1, Ok::<_, ()>(1)), after(1, Ok(6)));
    assert_eq!(try_multi((one(), one(), one(), one(), one(), six)).await, Ok((1, 1, 1, 1, 1, 6)));
}

#[test]
fn try_multi_of_nothing_is_done_at_once() {
    assert_eq!(try_multi(Vec::<Coroutine<Result<(), ()>>>::new()).now_or_never(), Some(Ok(vec![])));
    assert_eq!(try_multi([] as [Coroutine<Result<u8, ()>>; 0]).now_or_never(), Some(Ok([])));
}

#[waterspout::test(virtual_time)]
async fn try_multi_borrows_nothing_of_what_gave_the_coroutines() {
    let delays = vec![2, 1];
    let all = try_multi(delays.iter().map(|&delay| ok(delay)).collect::<Vec<_>>());
    drop(delays);
    assert_eq!(spawn(all).await, Ok(vec![2, 1]));
}

/// Fails after a second, or owns `owned` for a minute.
#[waterspout::coroutine]
async fn fails_or_owns(fails: bool, owned: Rc<()>) -> Result<(), &'static str> {
    if fails {
        sleep(seconds(1)).await;
        return Err("no");
    }
    slow(owned).await;
    Ok(())
}

#[waterspout::test(virtual_time)]
async fn what_try_multi_cancels_has_ended_before_the_error_is_given() {
    let owned = Rc::new(());
    let owns = || fails_or_owns(false, owned.clone());
    let fails = || fails_or_owns(true, owned.clone());
    assert_eq!(try_multi([owns(), fails(), owns()]).await, Err("no"));
    assert_eq!(Rc::strong_count(&owned), 1, "also what they awaited");
    assert_eq!(try_multi((owns(), fails(), owns().cancel_on_drop())).await, Err("no"));
    assert_eq!(Rc::strong_count(&owned), 1);
    let map = HashMap::from([(1, owns()), (2, fails())]);
    let mut all = std::pin::pin!(try_multi(map));
    assert_eq!(all.as_mut().await, Err("no"));
    assert_eq!(Rc::strong_count(&owned), 1, "although the future is still there");
}

#[waterspout::test(virtual_time)]
async fn dropping_try_multi_cancels_its_coroutines() {
    let pending = spawn(std::future::pending::<Result<(), ()>>());
    let weak = Rc::new(());
    let held = weak.clone();
    let holding = spawn(async move {
        let _held = held;
        std::future::pending::<Result<(), ()>>().await
    });
    moment().await;
    assert_eq!(Rc::strong_count(&weak), 2);
    assert!(try_multi([pending, holding]).now_or_never().is_none());
    assert_eq!(Rc::strong_count(&weak), 1);
    // Also those that it has not awaited yet.
    drop(try_multi(vec![fails_or_owns(false, weak.clone())]));
    drop(try_multi((fails_or_owns(false, weak.clone()), fails_or_owns(true, weak.clone()))));
    assert_eq!(Rc::strong_count(&weak), 1);
}

#[waterspout::test(virtual_time)]
async fn wait_iterator_gives_what_is_done_first_in_argument_order() {
    let mut waits =
        WaitIterator::new([ok(2), spawn(async { Ok(7) }), ok(1), spawn(async { Ok(8) })]);
    assert_eq!((waits.current_index(), waits.done()), (None, false));
    moment().await; // both spawned ones have run
    let mut seen = Vec::new();
    while let Some(result) = waits.next().await {
        seen.push((*waits.current_index().unwrap(), result.unwrap()));
    }
    assert_eq!(seen, [(1, 7), (3, 8), (2, 1), (0, 2)]);
    assert_eq!((waits.current_index(), waits.done()), (None, true));
}

#[waterspout::test(virtual_time)]
async fn wait_iterator_goes_on_after_an_error() {
    // Two of them are done in the same turn.
    let children = || [after(2, Err("no")), after(3, Ok(42)), after(1, Ok(24)), after(3, Ok(84))];
    let mut waits = WaitIterator::new(children());
    let mut seen = Vec::new();
    while let Some(result) = waits.next().await {
        seen.push((*waits.current_index().unwrap(), result));
    }
    assert_eq!(seen, [(2, Ok(24)), (0, Err("no")), (1, Ok(42)), (3, Ok(84))]);
    let results: Vec<_> = WaitIterator::new(children()).collect().await;
    assert!(seen.into_iter().map(|(_, result)| result).eq(results));
}

#[waterspout::test(virtual_time)]
async fn a_keyed_wait_iterator_tells_the_key_of_each_output() {
    let children =
        HashMap::from([("slow", ok(3)), ("fast", ok(1)), ("fails", after(2, Err("no".into())))]);
    let mut waits = WaitIterator::keyed(children);
    assert_eq!((waits.current_index(), waits.done()), (None, false));
    let mut seen = Vec::new();
    while let Some(result) = waits.next().await {
        seen.push((*waits.current_index().unwrap(), result));
    }
    assert_eq!(seen, [("fast", Ok(1)), ("fails", Err("no".to_owned())), ("slow", Ok(3))]);
    assert_eq!((waits.current_index(), waits.done()), (None, true));
}

#[test]
fn a_key_whose_destructor_panics_costs_a_wait_iterator_no_output() {
    struct Bomb(u64);
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("key {}", self.0);
        }
    }
    let diary = Diary::new();
    let io_loop = diary.exceptions_of(IoLoop::builder().virtual_time()).build().unwrap();
    let seen = io_loop.run_sync(|| async {
        let mut waits = WaitIterator::keyed([2, 1].map(|n| (Bomb(n), plain(n, n))));
        let mut seen = Vec::new();
        while let Some(n) = waits.next().await {
            seen.push((waits.current_index().unwrap().0, n));
        }
        seen
    });
    assert_eq!(seen.unwrap(), [(1, 1), (2, 2)]);
    assert_eq!(diary.read(), ["panicked: key 1", "panicked: key 2"]);
}

#[waterspout::test(virtual_time)]
async fn a_wait_iterator_of_nothing_is_done() {
    let mut waits = WaitIterator::new(Vec::<Coroutine<()>>::new());
    assert_eq!((waits.current_index(), waits.done()), (None, true));
    assert_eq!(waits.next().await, None);
}

#[waterspout::test(virtual_time)]
async fn a_dropped_next_of_a_wait_iterator_loses_nothing() {
    let mut waits = WaitIterator::new([ok(1), ok(2)]);
    assert!(with_timeout(seconds(0), waits.next()).await.is_err());
    assert_eq!(waits.next().await, Some(Ok(1)));
    assert_eq!(waits.next().await, Some(Ok(2)));
    assert_eq!(waits.next().await, None);
}

#[waterspout::test(virtual_time)]
async fn a_finished_future_wins_over_a_deadline_in_the_past() {
    let past = IoLoop::current().time();
    sleep(seconds(1)).await;
    assert_eq!(with_timeout(past, async { 5 }).await, Ok(5));
    assert!(with_timeout(past, std::future::pending::<()>()).await.is_err());
    assert!(with_timeout(Duration::ZERO, std::future::pending::<()>()).await.is_err());
}

#[waterspout::test(virtual_time)]
async fn a_future_that_finishes_at_the_deadline_wins() {
    assert_eq!(with_timeout(seconds(1), sleep(seconds(1))).await, Ok(()));
    assert_eq!(with_timeout(seconds(1), ok(1)).await, Ok(Ok(1)));
}

#[waterspout::test(virtual_time)]
async fn a_time_limit_gives_what_the_future_gives_in_time() {
    let io_loop = IoLoop::current();
    let begun = io_loop.time();
    let ((succeeds, value), (fails, exception)) = (promise(), promise::<()>());
    io_loop.call_later(seconds(1), || succeeds.set_result("in time"));
    io_loop.call_later(seconds(2), || fails.set_exception("failed in time"));
    assert_eq!(with_timeout(seconds(60), value.clone()).await.unwrap().unwrap(), "in time");
    assert_eq!(io_loop.time() - begun, seconds(1));
    let exception = with_timeout(seconds(60), exception).await.unwrap().unwrap_err();
    assert_eq!(exception.to_string(), "failed in time");
    // What was there already takes no time.
    assert_eq!(with_timeout(seconds(60), value).await.unwrap().unwrap(), "in time");
    assert_eq!(io_loop.time() - begun, seconds(2));
}

#[waterspout::test(virtual_time)]
async fn a_coroutine_goes_on_after_its_time_out() {
    let done = Rc::new(Cell::new(false));
    let inside = done.clone();
    let coroutine = coroutine::start(async move {
        sleep(seconds(2)).await;
        inside.set(true);
    });
    assert!(with_timeout(seconds(1), coroutine).await.is_err());
    assert!(!done.get());
    sleep(seconds(2)).await;
    assert!(done.get());
}

/// Owns `_owned` for a minute.
#[waterspout::coroutine]
async fn slow(_owned: Rc<()>) {
    sleep(seconds(60)).await;
}

/// Awaits [`slow`] and is tied to its handle.
#[waterspout::coroutine(cancel_on_drop)]
async fn tied(owned: Rc<()>) {
    slow(owned).await
}

#[waterspout::test(virtual_time)]
async fn a_time_limit_cancels_a_coroutine_that_is_tied_to_its_handle() {
    let owned = Rc::new(());
    assert!(with_timeout(seconds(1), slow(owned.clone()).cancel_on_drop()).await.is_err());
    assert_eq!(Rc::strong_count(&owned), 1);
    assert!(with_timeout(seconds(1), tied(owned.clone())).await.is_err());
    assert_eq!(Rc::strong_count(&owned), 1, "also what it awaited");
    assert_eq!(with_timeout(seconds(100), tied(owned.clone())).await, Ok(()));
    // Given up before its time.
    assert!(with_timeout(seconds(1), tied(owned.clone())).now_or_never().is_none());
    assert_eq!(Rc::strong_count(&owned), 1);
}

#[waterspout::test(virtual_time)]
async fn a_select_cancels_the_coroutines_that_lost_and_are_tied_to_their_handles() {
    let owned = Rc::new(());
    let first = futures::select! {
        () = slow(owned.clone()).cancel_on_drop() => "slow",
        () = tied(owned.clone()) => "tied",
        () = coroutine::start(sleep(seconds(1))).cancel_on_drop() => "fast",
    };
    assert_eq!((first, Rc::strong_count(&owned)), ("fast", 1));
    // What is kept outside lives on, for another `select!`.
    let mut kept = tied(owned.clone());
    for _ in 0..2 {
        futures::select! {
            () = kept => unreachable!("a minute is longer than two seconds"),
            () = sleep(seconds(1)) => {}
        }
    }
    assert_eq!((kept.done(), Rc::strong_count(&owned)), (false, 2));
    drop(kept);
    assert_eq!(Rc::strong_count(&owned), 1);
}

#[waterspout::test(virtual_time)]
async fn a_time_limit_takes_its_timer_back() {
    let io_loop = IoLoop::current();
    let before = io_loop.counters().pending_timers;
    with_timeout(seconds(60), moment()).await.unwrap();
    drop(with_timeout(seconds(60), moment()));
    assert!(with_timeout(seconds(60), std::future::pending::<()>()).now_or_never().is_none());
    assert_eq!(io_loop.counters().pending_timers, before);
}

#[waterspout::test(virtual_time)]
async fn a_time_limit_on_what_is_ready_sets_no_timer() {
    let io_loop = IoLoop::current();
    let before = io_loop.counters().pending_timers;
    let pending = async || io_loop.counters().pending_timers;
    assert_eq!(with_timeout(seconds(60), pending()).await, Ok(before));
    // One that is not ready has it from then on.
    let waits = async || {
        moment().await;
        io_loop.counters().pending_timers
    };
    assert_eq!(with_timeout(seconds(60), waits()).await, Ok(before + 1));
}

/// Ready when it is asked for the `n`th time.
fn ready_when_asked(n: u32) -> impl Future<Output = &'static str> {
    let mut asked = 0;
    std::future::poll_fn(move |_| {
        asked += 1;
        if asked == n { Poll::Ready("ready") } else { Poll::Pending }
    })
}

#[waterspout::test(virtual_time)]
async fn a_time_limit_that_is_over_still_asks_what_it_limits() {
    let past = IoLoop::current().time();
    sleep(seconds(1)).await;
    // Once at once, and for the last time when the timer has fired.
    assert_eq!(with_timeout(past, ready_when_asked(1)).await, Ok("ready"));
    assert_eq!(with_timeout(past, ready_when_asked(2)).await, Ok("ready"));
    assert!(with_timeout(past, ready_when_asked(3)).await.is_err());
}

#[waterspout::test(virtual_time)]
async fn a_time_limit_without_end_never_ends() {
    let result = with_timeout(Duration::MAX, sleep(seconds(60 * 60 * 24))).await;
    assert_eq!(result, Ok(()));
    let far = Instant::now() + Duration::from_secs(1 << 31);
    assert_eq!(with_timeout(far, sleep(seconds(1))).await, Ok(()));
}

#[test]
fn an_error_that_multi_holds_when_it_is_dropped_is_reported() {
    let diary = Diary::new();
    let io_loop = diary.exceptions_of(IoLoop::builder().virtual_time()).build().unwrap();
    let limit = seconds(1);
    io_loop
        .run_sync(|| async {
            let fails = || async { Err::<(), _>("in a list") };
            let never = || std::future::pending::<Result<(), &str>>();
            type Boxed = futures::future::LocalBoxFuture<'static, Result<(), &'static str>>;
            let list: Vec<Boxed> = vec![Box::pin(fails()), Box::pin(never())];
            with_timeout(limit, multi(list)).await.unwrap_err();
            let pair = (async { Err::<(), _>("in a pair") }, never());
            with_timeout(limit, multi(pair)).await.unwrap_err();
            let quiet = (async { Err::<(), _>("quiet") }, never());
            with_timeout(limit, multi_quiet(quiet)).await.unwrap_err();
            let taken = (async { Err::<(), _>("taken") }, async { Ok::<(), _>(()) });
            multi(taken).await.unwrap_err();
        })
        .unwrap();
    assert_eq!(diary.read(), ["\"in a list\"", "\"in a pair\""]);
}
