//! Time: intervals, deadlines, and futures that `select!` takes as they are.

mod common;

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use common::{panic_of, seconds};
use futures::future::FusedFuture;
use futures::stream::FusedStream;
use futures::{FutureExt, StreamExt, select};
use waterspout::concurrent::{channel, promise};
use waterspout::coroutine::{
    CancelToken, MissedTickBehavior, TaskGroup, WaitIterator, interval, interval_at, moment, multi,
    multi_outputs, now, shield, sleep, sleep_until, spawn, try_multi, with_timeout,
};
use waterspout::iostream::IoStream;
use waterspout::locks::{BoundedSemaphore, Condition, Event, Lock, RwLock, Semaphore};
use waterspout::net::{
    CachingResolver, Listener, OverrideResolver, Resolver, TcpListener, TcpStream, ThreadedResolver,
};
use waterspout::queues::Queue;
use waterspout::{Deadline, IoLoop};

/// At which second each of some ticks came, when the work after the first takes 25 of them.
async fn ticks_of_ten_seconds(behavior: MissedTickBehavior) -> Vec<(u64, u64)> {
    let begun = now();
    let mut beat = interval(seconds(10));
    beat.set_missed_tick_behavior(behavior);
    let mut seen = Vec::new();
    for n in 0..5 {
        let due = beat.tick().await;
        seen.push(((due - begun).as_secs(), (now() - begun).as_secs()));
        sleep(seconds(if n == 0 { 25 } else { 1 })).await;
    }
    seen
}

#[waterspout::test(virtual_time)]
async fn an_interval_ticks_at_once_and_then_every_period_without_drift() {
    let begun = now();
    let mut beat = interval(seconds(10));
    for n in 0..5 {
        assert_eq!(beat.tick().await, begun + n * seconds(10));
        assert_eq!(now(), begun + n * seconds(10));
        sleep(seconds(3)).await;
    }
}

#[waterspout::test(virtual_time)]
async fn missed_ticks_come_in_a_burst_or_delay_the_beat_or_are_skipped() {
    let burst = ticks_of_ten_seconds(MissedTickBehavior::default()).await;
    assert_eq!(burst, [(0, 0), (10, 25), (20, 26), (30, 30), (40, 40)]);
    let delay = ticks_of_ten_seconds(MissedTickBehavior::Delay).await;
    assert_eq!(delay, [(0, 0), (10, 25), (35, 35), (45, 45), (55, 55)]);
    let skip = ticks_of_ten_seconds(MissedTickBehavior::Skip).await;
    assert_eq!(skip, [(0, 0), (10, 25), (30, 30), (40, 40), (50, 50)]);
}

#[waterspout::test(virtual_time)]
async fn an_interval_begins_when_it_is_told_to_and_is_a_stream_without_end() {
    let begun = now();
    let beat = interval_at(seconds(7), seconds(10));
    assert!(!beat.is_terminated());
    let ticks: Vec<Instant> = beat.take(3).collect().await;
    assert_eq!(ticks, [7, 17, 27].map(|n| begun + seconds(n)));
    let mut beat = interval_at(now() + seconds(1), seconds(10));
    assert_eq!(beat.select_next_some().await, begun + seconds(28));
}

#[waterspout::test(virtual_time)]
async fn a_tick_that_was_dropped_comes_later_and_a_dropped_interval_leaves_no_timer() {
    let io_loop = IoLoop::current();
    let (begun, timers) = (now(), io_loop.counters().pending_timers);
    let mut beat = interval_at(seconds(2), seconds(10));
    assert!(with_timeout(seconds(1), beat.tick()).await.is_err());
    assert_eq!(beat.tick().await, begun + seconds(2));
    assert!(with_timeout(seconds(1), beat.tick()).await.is_err());
    drop(beat);
    assert_eq!(io_loop.counters().pending_timers, timers);
}

#[waterspout::test(virtual_time)]
async fn a_burst_of_ticks_lets_others_have_their_turn() {
    let turns = Rc::new(Cell::new(0));
    let mut beat = interval(Duration::from_nanos(1));
    sleep(seconds(1)).await;
    let counts = turns.clone();
    let other = spawn(async move {
        loop {
            moment().await;
            counts.set(counts.get() + 1);
        }
    });
    for _ in 0..100 {
        beat.tick().await; // a second late, of a beat of a nanosecond
    }
    assert!(turns.get() >= 99, "{}", turns.get());
    other.cancel();
}

#[test]
fn a_period_of_zero_and_a_tick_on_another_loop_are_refused() {
    assert!(panic_of(|| interval(Duration::ZERO)).contains("longer than zero"));
    let first = IoLoop::new().unwrap();
    let mut beat = first.run_sync(async || interval(seconds(1))).unwrap();
    let second = IoLoop::new().unwrap();
    let refused = panic_of(|| second.run_sync(async || beat.tick().await));
    assert!(refused.contains("make it where it is awaited"), "{refused}");
}

#[waterspout::test(virtual_time)]
async fn an_interval_without_end_ticks_once() {
    let mut beat = interval(Duration::MAX);
    beat.tick().await;
    assert!(with_timeout(seconds(1 << 20), beat.tick()).await.is_err());
}

#[waterspout::test(virtual_time)]
async fn a_sleep_tells_its_deadline() {
    let begun = now();
    let mut nap = sleep(seconds(3));
    assert_eq!(nap.deadline(), Some(begun + seconds(3)));
    nap.reset(seconds(5));
    assert_eq!(nap.deadline(), Some(begun + seconds(5)));
    (&mut nap).await;
    assert_eq!(nap.deadline(), Some(now()));
    assert_eq!(sleep_until(begun + seconds(9)).deadline(), Some(begun + seconds(9)));
    assert_eq!(sleep(Duration::MAX).deadline(), None);
}

#[test]
fn the_deadline_of_a_sleep_is_its_own_loops() {
    let first = IoLoop::new().unwrap();
    let nap = first.run_sync(async || sleep(seconds(1))).unwrap();
    let refused = panic_of(|| IoLoop::new().unwrap().run_sync(async || nap.deadline()).unwrap());
    assert!(refused.contains("make it where it is awaited"), "{refused}");
}

#[waterspout::test(virtual_time)]
async fn a_deadline_that_is_fixed_counts_from_then_however_often_it_is_used() {
    let begun = now();
    let limit = Deadline::from(seconds(5)).fixed();
    assert_eq!(limit, Deadline::At(begun + seconds(5)));
    sleep(seconds(3)).await;
    assert!(with_timeout(limit, sleep(seconds(4))).await.is_err());
    assert_eq!(now() - begun, seconds(5));
    assert!(with_timeout(limit, sleep(seconds(4))).await.is_err());
    assert_eq!(now() - begun, seconds(5));
    assert_eq!(limit.fixed(), limit);
    assert_eq!(Deadline::After(Duration::MAX).fixed(), Deadline::After(Duration::MAX));
}

#[waterspout::test(virtual_time)]
async fn what_was_not_done_in_time_can_go_on_without_the_limit() {
    let (io_loop, begun) = (IoLoop::current(), now());
    let timers = io_loop.counters().pending_timers;
    let mut limited = with_timeout(seconds(2), sleep(seconds(5)));
    assert!((&mut limited).await.is_err());
    limited.into_inner().await;
    assert_eq!(now() - begun, seconds(5));
    let mut limited = with_timeout(seconds(60), spawn(async { 7 }));
    assert!((&mut limited).now_or_never().is_none());
    let inner = limited.into_inner();
    assert_eq!(io_loop.counters().pending_timers, timers);
    assert_eq!(inner.await, 7);
}

/// Awaits it, and tells whether it said at each step that it is done when it was.
async fn tells_when_it_is_done<F: FusedFuture>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    assert!(!future.is_terminated(), "before it is polled");
    let output = std::future::poll_fn(|cx| {
        let polled = future.as_mut().poll(cx);
        assert_eq!(future.is_terminated(), polled.is_ready());
        polled
    });
    output.await
}

#[waterspout::test]
async fn every_future_tells_when_it_is_done() {
    tells_when_it_is_done(sleep(Duration::ZERO)).await;
    tells_when_it_is_done(moment()).await;
    tells_when_it_is_done(spawn(moment())).await;
    tells_when_it_is_done(spawn(moment()).join()).await.unwrap();
    tells_when_it_is_done(spawn(moment()).cancel_on_drop()).await;
    tells_when_it_is_done(shield(spawn(moment()))).await;
    tells_when_it_is_done(with_timeout(seconds(9), moment())).await.unwrap();
    tells_when_it_is_done(with_timeout(Duration::ZERO, std::future::pending::<()>()))
        .await
        .unwrap_err();
    tells_when_it_is_done(multi([spawn(async { Ok::<_, ()>(1) })])).await.unwrap();
    tells_when_it_is_done(multi_outputs((moment(), moment()))).await;
    tells_when_it_is_done(try_multi([spawn(async { Err::<(), _>(1) })])).await.unwrap_err();
    tells_when_it_is_done(WaitIterator::new([moment()]).next()).await.unwrap();
    tells_when_it_is_done(interval(seconds(1)).tick()).await;
    let group = TaskGroup::<()>::new();
    group.start(async {
        moment().await;
        Ok(())
    });
    tells_when_it_is_done(group.join()).await.unwrap();
    tells_when_it_is_done(group.shutdown(seconds(1))).await;
    let answer = IoLoop::current().handle().spawn(async || moment().await).unwrap();
    tells_when_it_is_done(answer).await.unwrap();

    let (promise, future) = promise();
    let gives = spawn(async move { promise.set_result(1) });
    tells_when_it_is_done(future.clone()).await.unwrap();
    tells_when_it_is_done(future).await.unwrap();
    gives.await;
    let token = CancelToken::new();
    tells_when_it_is_done(token.run(moment())).await.unwrap();
    token.cancel();
    tells_when_it_is_done(token.cancelled()).await;
    let (sender, mut receiver) = channel(1);
    tells_when_it_is_done(sender.send(1)).await.unwrap();
    assert_eq!(tells_when_it_is_done(receiver.recv()).await, Some(1));

    let queue = Queue::new(1);
    tells_when_it_is_done(queue.put(1)).await.unwrap();
    tells_when_it_is_done(queue.get()).await.unwrap();
    queue.task_done().unwrap();
    tells_when_it_is_done(queue.join()).await;
    let (lock, event, condition) = (Lock::new(5), Event::new(), Condition::new());
    let held = tells_when_it_is_done(lock.acquire()).await;
    let frees = spawn(async move {
        moment().await;
        drop(held);
    });
    assert_eq!(*tells_when_it_is_done(lock.acquire()).await, 5);
    frees.await;
    let sets = spawn({
        let (event, condition) = (event.clone(), condition.clone());
        async move {
            event.set();
            moment().await;
            condition.notify(1);
        }
    });
    tells_when_it_is_done(event.wait()).await;
    tells_when_it_is_done(condition.wait()).await;
    sets.await;
    tells_when_it_is_done(Semaphore::new(1).acquire()).await.forget();
    let shared = RwLock::new(());
    drop(tells_when_it_is_done(shared.read()).await);
    drop(tells_when_it_is_done(shared.write()).await);
    tells_when_it_is_done(BoundedSemaphore::new(1).acquire()).await.forget();

    let listener = tells_when_it_is_done(TcpListener::bind("127.0.0.1:0")).await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = tells_when_it_is_done(TcpStream::connect(address)).await.unwrap();
    let (server, _) = tells_when_it_is_done(listener.accept()).await.unwrap();
    let _again = TcpStream::connect(address).await.unwrap();
    tells_when_it_is_done(Listener::accept(&listener)).await.unwrap();
    let resolver = Rc::new(CachingResolver::new(
        OverrideResolver::new(ThreadedResolver).with_host("here", "127.0.0.1"),
        seconds(1),
    ));
    let expected = [([127, 0, 0, 1], 80).into()];
    assert_eq!(tells_when_it_is_done(resolver.resolve("here", 80)).await.unwrap(), expected);
    assert_eq!(
        tells_when_it_is_done(Rc::new(ThreadedResolver).resolve("127.0.0.1", 80)).await.unwrap(),
        expected
    );
    tells_when_it_is_done(client.write_all(b"ping")).await.unwrap();
    let mut request = [0; 4];
    tells_when_it_is_done(server.read_exact(&mut request)).await.unwrap();
    assert_eq!(&request, b"ping");

    let (client, server) = (IoStream::new(client), IoStream::new(server));
    tells_when_it_is_done(client.write("pong")).await.unwrap();
    assert_eq!(tells_when_it_is_done(server.read_bytes(4)).await.unwrap(), b"pong");
    client.close();
    tells_when_it_is_done(server.closed()).await;
}

#[waterspout::test(virtual_time)]
async fn select_takes_futures_as_they_are_also_in_a_loop() {
    let (queue, lock) = (Queue::new(0), Lock::new(()));
    let _held = lock.acquire().await;
    let fills = spawn({
        let queue = queue.clone();
        async move {
            for n in 1..=3 {
                sleep(seconds(n)).await;
                queue.put(n).await.unwrap();
            }
        }
    });
    let (mut fills, mut end, mut locked) = (fills, sleep(seconds(10)), lock.acquire());
    let (mut got, mut filled) = (Vec::new(), false);
    loop {
        select! {
            n = queue.get() => got.push(n.unwrap()),
            () = fills => filled = true, // and is not polled again
            _guard = locked => unreachable!("it is held"),
            () = end => break,
        }
    }
    assert_eq!((got, filled), (vec![1, 2, 3], true));
}
