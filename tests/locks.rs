//! Locks: who is woken and in which order, what becomes of what was meant for a waiter that has gone,
//! and what foreign code may do meanwhile.

mod common;

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use common::{
    AtDrop, Diary, panicking_waker, poll, poll_acting_when_cloned, poll_for, polled_again,
    run_elsewhere, seconds, suspend,
};
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use waker_fn::waker_fn;
use waterspout::coroutine::{moment, sleep, spawn, start, with_timeout};
use waterspout::locks::{
    BoundedSemaphore, Condition, Event, Lock, Notify, Permit, ReleasedTooOften, RwLock, Semaphore,
};
use waterspout::{Coroutine, IoLoop, TimedOut};

/// As many, polled once: they wait in line.
fn line<F: Future + Unpin>(n: usize, wait: impl Fn() -> F) -> Vec<F> {
    let mut line: Vec<_> = (0..n).map(|_| wait()).collect();
    assert!(line.iter_mut().all(|waiting| poll(waiting).is_pending()));
    line
}

thread_local! {
    /// What wakers call: they can be sent, what they are to do here cannot.
    static CALLS: RefCell<Vec<Rc<dyn Fn()>>> = const { RefCell::new(Vec::new()) };
}

/// `call`, to be called on this thread.
fn sendable(call: impl Fn() + 'static) -> impl Fn() + Send + Sync + 'static {
    let number = CALLS.with_borrow_mut(|calls| {
        calls.push(Rc::new(call));
        calls.len() - 1
    });
    move || CALLS.with_borrow(|calls| calls[number].clone())()
}

/// A waker that calls `call` when the last clone of it is dropped.
fn waker_dropping(call: impl Fn() + 'static) -> Waker {
    let dropping = AtDrop(sendable(call));
    waker_fn(move || dropping.keep())
}

/// A waker that calls `call`.
fn waker_calling(call: impl Fn() + 'static) -> Waker {
    waker_fn(sendable(call))
}

impl Diary {
    /// Waits, in a coroutine, writes `line` down and lets go of what it got.
    fn after<F: Future + 'static>(
        &self,
        waiting: F,
        line: impl Display + 'static,
    ) -> Coroutine<()> {
        let diary = self.clone();
        start(async move {
            let _got = waiting.await;
            diary.write(line);
        })
    }

    /// As [`after`](Diary::after), for as many seconds; then writes "timeout".
    fn within<F: Future + 'static>(
        &self,
        limit: u64,
        waiting: F,
        line: impl Display + 'static,
    ) -> Coroutine<()> {
        let diary = self.clone();
        start(async move {
            match with_timeout(seconds(limit), waiting).await {
                Ok(_got) => diary.write(line),
                Err(TimedOut) => diary.write("timeout"),
            }
        })
    }
}

// Condition

#[test]
fn a_condition_says_how_many_wait() {
    let condition = Condition::default();
    assert_eq!(format!("{condition:?}"), "Condition { waiters: 0 }");
    let mut waiting = line(3, || condition.wait());
    assert_eq!(format!("{condition:?}"), "Condition { waiters: 3 }");
    drop(waiting.remove(1));
    condition.notify(1);
    assert_eq!(format!("{condition:?}"), "Condition { waiters: 1 }");
}

#[waterspout::test(virtual_time)]
async fn notify_wakes_as_many_as_it_says_of_those_who_have_waited_longest() {
    let (condition, diary) = (Condition::new(), Diary::default());
    for n in 0..6 {
        diary.after(condition.wait(), n);
    }
    condition.notify(1);
    assert!(diary.read().is_empty()); // not inside of `notify`
    moment().await;
    diary.write("one");
    condition.notify(3);
    condition.notify(0);
    moment().await;
    diary.write("three");
    condition.notify(usize::MAX);
    moment().await;
    assert_eq!(diary.read(), ["0", "one", "1", "2", "3", "three", "4", "5"]);
}

#[waterspout::test(virtual_time)]
async fn notify_all_wakes_all_in_the_order_in_which_they_came() {
    let (condition, diary) = (Condition::new(), Diary::default());
    for n in 0..4 {
        diary.after(condition.wait(), n);
    }
    condition.notify_all();
    moment().await;
    diary.write("all");
    diary.after(condition.wait(), "late");
    moment().await;
    assert_eq!(diary.read(), ["0", "1", "2", "3", "all"]);
}

#[test]
fn a_notification_is_not_kept_for_who_does_not_wait_yet() {
    let condition = Condition::new();
    let mut unpolled = condition.wait();
    condition.notify(1);
    condition.notify_all();
    assert!(poll(&mut unpolled).is_pending());
    condition.notify(1);
    assert!(poll(&mut unpolled).is_ready());
}

#[waterspout::test(virtual_time)]
async fn a_notification_in_time_wins_and_one_that_is_late_is_none() {
    let condition = Condition::new();
    let notifies = condition.clone();
    IoLoop::current().call_later(seconds(2), move || notifies.notify(1));
    assert_eq!(with_timeout(seconds(1), condition.wait()).await, Err(TimedOut));
    assert_eq!(with_timeout(seconds(2), condition.wait()).await, Ok(()));
}

#[waterspout::test(virtual_time)]
async fn waiters_that_timed_out_do_not_count_for_notify() {
    let (condition, diary) = (Condition::new(), Diary::default());
    diary.after(condition.wait(), 0);
    diary.within(1, condition.wait(), 1);
    diary.after(condition.wait(), 2);
    diary.after(condition.wait(), 3);
    sleep(seconds(2)).await;
    assert_eq!(diary.read(), ["timeout"]);
    condition.notify(2);
    moment().await;
    assert_eq!(diary.read(), ["0", "2"]);
    condition.notify(1);
    moment().await;
    assert_eq!(diary.read(), ["3"]);
}

#[waterspout::test(virtual_time)]
async fn waiters_that_timed_out_are_not_woken_by_notify_all() {
    let (condition, diary) = (Condition::new(), Diary::default());
    diary.after(condition.wait(), 0);
    diary.within(1, condition.wait(), 1);
    diary.after(condition.wait(), 2);
    sleep(seconds(2)).await;
    condition.notify_all();
    moment().await;
    assert_eq!(diary.read(), ["timeout", "0", "2"]);
}

#[test]
fn no_notification_is_lost_when_a_waiter_notifies_while_it_is_woken() {
    let condition = Condition::new();
    let mut line = line(3, || condition.wait());
    let notifies = condition.clone();
    assert!(poll_for(&mut line[1], &waker_calling(move || notifies.notify(1))).is_pending());
    condition.notify(2);
    assert!(line.iter_mut().all(|waiting| poll(waiting).is_ready()));
}

#[test]
fn a_notification_of_a_waiter_that_is_dropped_goes_to_the_next() {
    let condition = Condition::new();
    let mut line = line(5, || condition.wait());
    drop(line.remove(0)); // before it was notified
    condition.notify(1);
    drop(line.remove(0)); // after
    drop(line.remove(0)); // and so on
    assert!(poll(&mut line[0]).is_ready());
    drop(line.remove(0)); // after it has seen it
    assert!(poll(&mut line[0]).is_pending());
}

#[test]
fn notify_all_is_for_those_who_wait_and_not_handed_on_to_who_comes_later() {
    let condition = Condition::new();
    let mut first = condition.wait();
    assert!(poll(&mut first).is_pending());
    condition.notify_all();
    let mut late = condition.wait();
    assert!(poll(&mut late).is_pending());
    drop(first);
    assert!(poll(&mut late).is_pending());
    condition.notify_all();
    assert!(poll(&mut late).is_ready());
}

// Event

#[test]
fn an_event_is_set_until_it_is_cleared() {
    let event = Event::new();
    assert!(!event.is_set());
    assert_eq!(format!("{event:?}"), "Event { is_set: false, waiters: 0 }");
    let _waiting = line(2, || event.wait());
    assert_eq!(format!("{event:?}"), "Event { is_set: false, waiters: 2 }");
    event.set();
    event.set();
    assert!(event.is_set());
    assert_eq!(format!("{event:?}"), "Event { is_set: true, waiters: 0 }");
    event.clear();
    event.clear();
    assert!(!event.is_set());
}

#[test]
fn setting_and_clearing_an_event_wakes_all_who_waited_and_none_who_comes_after() {
    let event = Event::new();
    let mut line = line(2, || event.wait());
    event.clear(); // it was clear: no harm
    event.set();
    let mut while_set = event.wait();
    assert!(poll(&mut while_set).is_ready());
    let mut asks_later = event.wait();
    event.clear();
    assert!(line.iter_mut().all(|waiting| poll(waiting).is_ready()));
    assert!(poll(&mut asks_later).is_pending());
    event.set();
    assert!(poll(&mut asks_later).is_ready());
}

#[waterspout::test(virtual_time)]
async fn an_event_wakes_in_the_order_in_which_they_came() {
    let (event, diary) = (Event::new(), Diary::default());
    for n in 0..4 {
        diary.after(event.wait(), n);
    }
    event.set();
    diary.after(event.wait(), "at once");
    event.clear();
    moment().await;
    assert_eq!(diary.read(), ["at once", "0", "1", "2", "3"]);
}

#[waterspout::test(virtual_time)]
async fn an_event_works_as_before_after_a_waiter_timed_out() {
    let event = Event::new();
    assert_eq!(with_timeout(seconds(1), event.wait()).await, Err(TimedOut));
    let sets = event.clone();
    IoLoop::current().call_later(seconds(1), move || sets.set());
    assert_eq!(with_timeout(seconds(2), event.wait()).await, Ok(()));
}

#[test]
fn waiters_of_an_event_may_be_dropped_woken_or_not() {
    let event = Event::new();
    let mut line = line(4, || event.wait());
    drop(line.remove(1));
    event.set();
    drop(line.remove(0));
    assert!(line.iter_mut().all(|waiting| poll(waiting).is_ready()));
}

#[test]
fn a_waker_of_an_event_may_clear_it_wait_for_it_and_drop_others() {
    let event = Event::new();
    let others = Rc::new(RefCell::new(line(2, || event.wait())));
    let (clears, drops) = (event.clone(), others.clone());
    let mut waiting = event.wait();
    let waker = waker_calling(move || {
        clears.clear();
        drops.borrow_mut().clear();
        drops.borrow_mut().extend(line(1, || clears.wait()));
    });
    assert!(poll_for(&mut waiting, &waker).is_pending());
    event.set();
    assert!(poll(&mut waiting).is_ready());
    assert!(!event.is_set());
    assert!(poll(&mut others.borrow_mut()[0]).is_pending());
}

#[waterspout::test(virtual_time)]
async fn who_asks_an_event_while_it_is_set_passes_also_if_it_first_has_to_give_way() {
    let (event, passed) = (Event::new(), Rc::new(Cell::new(0)));
    event.set();
    let (waits, passes) = (event.clone(), passed.clone());
    let passing = start(async move {
        loop {
            waits.wait().await;
            passes.set(passes.get() + 1);
        }
    });
    let before = passed.get();
    event.clear();
    moment().await;
    moment().await;
    assert_eq!(passed.get(), before + 1);
    passing.cancel();
}

// Semaphore

#[test]
fn a_semaphore_says_how_many_permits_are_free_and_how_many_wait() {
    let semaphore = Semaphore::new(2);
    assert_eq!(format!("{semaphore:?}"), "Semaphore { permits: 2, waiters: 0 }");
    let permit = semaphore.try_acquire().unwrap();
    assert_eq!((format!("{permit:?}").as_str(), semaphore.permits()), ("Permit { permits: 1 }", 1));
    let waiting = line(3, || semaphore.acquire_many(2));
    assert_eq!(format!("{semaphore:?}"), "Semaphore { permits: 1, waiters: 3 }");
    drop((waiting, permit));
    assert_eq!(semaphore.permits(), 2);
    let bounded = BoundedSemaphore::new(2);
    let _held = bounded.try_acquire_many(2);
    let _waiting = line(1, || bounded.acquire());
    assert_eq!(format!("{bounded:?}"), "BoundedSemaphore { permits: 0, most: 2, waiters: 1 }");
}

#[test]
fn a_released_permit_goes_to_who_has_waited_longest() {
    let semaphore = Semaphore::new(1);
    let first = poll(&mut semaphore.acquire());
    let Poll::Ready(first) = first else { panic!("one was free") };
    let mut line = line(2, || semaphore.acquire());
    drop(first);
    let Poll::Ready(second) = poll(&mut line[0]) else { panic!("it was handed on") };
    assert!(poll(&mut line[1]).is_pending());
    drop(second);
    assert!(poll(&mut line[1]).is_ready()); // and let go of
    assert!(poll(&mut semaphore.acquire()).is_ready());
    assert_eq!(semaphore.permits(), 1);
}

#[test]
fn nobody_barges_in_between_a_release_and_the_one_who_waits() {
    let semaphore = Semaphore::new(1);
    let held = semaphore.try_acquire();
    let mut line1 = line(1, || semaphore.acquire());
    drop(held);
    assert_eq!(semaphore.permits(), 0);
    assert!(semaphore.try_acquire().is_none());
    let mut line2 = line(1, || semaphore.acquire());
    let first = poll(&mut line1[0]);
    assert!(first.is_ready() && poll(&mut line2[0]).is_pending());
    assert!(semaphore.try_acquire().is_none());
    drop(first);
    assert!(poll(&mut line2[0]).is_ready());
}

#[waterspout::test(virtual_time)]
async fn the_one_who_releases_and_asks_again_waits_behind_the_others() {
    let (semaphore, diary) = (Semaphore::new(1), Diary::default());
    let turns = ["a", "b", "c"].map(|name| {
        let (semaphore, diary) = (semaphore.clone(), diary.clone());
        start(async move {
            for round in 0..3 {
                let _permit = semaphore.acquire().await;
                diary.write(format_args!("{name}{round}"));
                moment().await;
            }
        })
    });
    for each in turns {
        each.await;
    }
    assert_eq!(diary.read(), ["a0", "b0", "c0", "a1", "b1", "c1", "a2", "b2", "c2"]);
}

#[waterspout::test(virtual_time)]
async fn a_timed_out_acquire_takes_no_permit() {
    let semaphore = Semaphore::new(0);
    let releases = semaphore.clone();
    IoLoop::current().call_later(seconds(2), move || releases.release());
    assert!(with_timeout(seconds(1), semaphore.acquire()).await.is_err());
    sleep(seconds(2)).await;
    assert_eq!(semaphore.permits(), 1);
    let held = semaphore.acquire().await;
    let mut waiting = line(1, || semaphore.acquire());
    drop(held);
    assert!(poll(&mut waiting[0]).is_ready());
}

#[waterspout::test(virtual_time)]
async fn a_permit_that_is_released_in_time_wins() {
    let semaphore = Semaphore::new(0);
    let releases = semaphore.clone();
    IoLoop::current().call_later(seconds(1), move || releases.release());
    assert!(with_timeout(seconds(2), semaphore.acquire()).await.is_ok());
    // Also if both come at the same time.
    let held = semaphore.acquire().await;
    IoLoop::current().call_later(seconds(1), move || drop(held));
    assert!(with_timeout(seconds(1), semaphore.acquire()).await.is_ok());
    assert_eq!(semaphore.permits(), 1);
}

#[test]
fn a_semaphore_can_be_released_beyond_what_it_began_with() {
    let semaphore = Semaphore::new(1);
    semaphore.release();
    semaphore.release();
    let held: Vec<_> = std::iter::from_fn(|| semaphore.try_acquire()).collect();
    assert_eq!(held.len(), 3);
    let _waits = line(1, || semaphore.acquire());
}

#[test]
fn a_permit_that_is_forgotten_is_gone_until_one_is_added() {
    let semaphore = Semaphore::new(2);
    semaphore.try_acquire().unwrap().forget();
    assert_eq!(semaphore.permits(), 1);
    let held = semaphore.try_acquire().unwrap();
    let mut waiting = line(1, || semaphore.acquire());
    semaphore.release();
    assert!(poll(&mut waiting[0]).is_ready());
    drop(held);
    assert_eq!(semaphore.permits(), 2);
}

#[test]
fn a_permit_outlives_the_handles_of_its_semaphore() {
    let semaphore = Semaphore::new(1);
    let mut waiting = {
        let permit = semaphore.try_acquire();
        let waiting = line(1, || semaphore.acquire());
        drop((semaphore, permit));
        waiting
    };
    assert!(poll(&mut waiting[0]).is_ready());
}

#[waterspout::test(virtual_time)]
async fn holders_of_the_one_permit_do_not_overlap() {
    let (semaphore, diary) = (Semaphore::new(1), Diary::default());
    let holders = [0, 1].map(|n| {
        let (semaphore, diary) = (semaphore.clone(), diary.clone());
        start(async move {
            let _permit = semaphore.acquire().await;
            diary.write(format_args!("acquired {n}"));
            sleep(seconds(1)).await;
            diary.write(format_args!("release {n}"));
        })
    });
    for holder in holders {
        holder.await;
    }
    assert_eq!(diary.read(), ["acquired 0", "release 0", "acquired 1", "release 1"]);
}

#[waterspout::test(virtual_time)]
async fn a_permit_is_released_however_its_holder_ends() {
    let semaphore = Semaphore::new(1);
    let hold = |then: fn() -> LocalBoxFuture<'static, Result<(), &'static str>>| {
        let semaphore = semaphore.clone();
        start(async move {
            let _permit = semaphore.acquire().await;
            then().await?;
            Ok::<(), &str>(())
        })
    };
    assert_eq!(hold(|| async { Ok(()) }.boxed_local()).await, Ok(()));
    assert_eq!(semaphore.permits(), 1);

    assert_eq!(hold(|| async { Err("error") }.boxed_local()).await, Err("error"));
    assert_eq!(semaphore.permits(), 1);

    let panics = hold(|| {
        async {
            moment().await;
            panic!("while it holds a permit")
        }
        .boxed_local()
    });
    let waiting = semaphore.acquire();
    assert!(panics.join().await.is_err());
    drop(waiting.await);
    assert_eq!(semaphore.permits(), 1);

    let cancelled = hold(|| std::future::pending().boxed_local());
    let diary = Diary::default();
    diary.after(semaphore.acquire(), "next");
    cancelled.cancel();
    moment().await;
    assert_eq!((diary.read(), semaphore.permits()), (vec!["next".to_owned()], 1));

    let timed_out =
        with_timeout(seconds(1), hold(|| std::future::pending().boxed_local()).cancel_on_drop());
    assert!(timed_out.await.is_err());
    assert_eq!(semaphore.permits(), 1);
}

#[test]
fn a_permit_of_a_waiter_that_is_dropped_goes_to_the_next() {
    let semaphore = Semaphore::new(0);
    let mut line = line(6, || semaphore.acquire());
    drop(line.remove(2)); // in the middle
    drop(line.remove(0)); // before it was handed over
    semaphore.release();
    drop(line.remove(0)); // after
    drop(line.remove(0)); // and so on
    assert_eq!(semaphore.permits(), 0);
    let third = poll(&mut line[0]);
    assert!(third.is_ready() && poll(&mut line[1]).is_pending());
    drop(third);
    drop(line); // the last, which had it
    assert_eq!(semaphore.permits(), 1);
}

#[waterspout::test(virtual_time)]
async fn a_waiter_that_is_cancelled_in_the_turn_in_which_it_is_served_loses_nothing() {
    let (semaphore, diary) = (Semaphore::new(0), Diary::default());
    let first = diary.after(semaphore.acquire(), "first");
    diary.within(1, semaphore.acquire(), "second");
    diary.after(semaphore.acquire(), "third");
    let (releases, cancels) = (semaphore.clone(), Rc::new(Cell::new(Some(first))));
    IoLoop::current().call_later(seconds(2), move || {
        releases.release();
        cancels.take().unwrap().cancel();
    });
    sleep(seconds(3)).await;
    assert_eq!(diary.read(), ["timeout", "third"]);
    assert_eq!(semaphore.permits(), 1);
    assert!(semaphore.acquire().now_or_never().is_some());
    assert_eq!(semaphore.permits(), 1);
}

#[test]
fn a_waker_of_a_semaphore_may_release_it_ask_it_and_drop_others() {
    let semaphore = Semaphore::new(0);
    let others = Rc::new(RefCell::new(Vec::new()));
    let (again, drops) = (semaphore.clone(), others.clone());
    let waker = waker_calling(move || {
        drops.borrow_mut().pop(); // the third
        assert!(again.try_acquire().is_none());
        again.release(); // to the second
        again.release(); // to nobody
    });
    let mut first = semaphore.acquire();
    assert!(poll_for(&mut first, &waker).is_pending());
    *others.borrow_mut() = line(2, || semaphore.acquire());
    semaphore.release();
    assert_eq!(semaphore.permits(), 1);
    assert!(poll(&mut others.borrow_mut()[0]).is_ready()); // and let go of
    assert_eq!(semaphore.permits(), 2);
    drop(first);
    assert_eq!(semaphore.permits(), 3);
}

#[test]
fn a_waker_that_is_replaced_may_use_the_lock() {
    let semaphore = Semaphore::new(0);
    let mut waiting = semaphore.acquire();
    let releases = semaphore.clone();
    assert!(poll_for(&mut waiting, &waker_dropping(move || releases.release())).is_pending());
    assert!(poll(&mut waiting).is_pending());
    assert!(poll(&mut waiting).is_ready());
}

#[test]
fn a_waker_that_goes_with_its_waiter_may_use_the_lock() {
    let semaphore = Semaphore::new(0);
    let mut waiting = semaphore.acquire();
    let releases = semaphore.clone();
    assert!(poll_for(&mut waiting, &waker_dropping(move || releases.release())).is_pending());
    drop(waiting);
    assert_eq!(semaphore.permits(), 1);
}

// Several permits at once

fn is_had(waiting: &mut (impl Future<Output = Permit> + Unpin)) -> Option<Permit> {
    match poll(waiting) {
        Poll::Ready(permit) => Some(permit),
        Poll::Pending => None,
    }
}

#[test]
fn several_permits_are_acquired_and_released_together() {
    let semaphore = Semaphore::new(5);
    let three = is_had(&mut semaphore.acquire_many(3)).unwrap();
    assert_eq!((semaphore.permits(), semaphore.try_acquire_many(3).is_none()), (2, true));
    let mut waiting = line(1, || semaphore.acquire_many(5));
    drop(three);
    let all = is_had(&mut waiting[0]).unwrap();
    assert_eq!((semaphore.permits(), format!("{all:?}")), (0, "Permit { permits: 5 }".into()));
    all.forget();
    assert_eq!(semaphore.permits(), 0);
}

#[test]
fn who_wants_many_is_not_overtaken_by_who_wants_few_and_takes_nothing_until_he_can_have_all() {
    let semaphore = Semaphore::new(4);
    let mut held: Vec<_> = (0..4).map(|_| semaphore.try_acquire().unwrap()).collect();
    let (mut big, mut small) =
        (line(1, || semaphore.acquire_many(3)), line(2, || semaphore.acquire()));
    for free in 1..3 {
        drop(held.pop());
        assert!(is_had(&mut big[0]).is_none() && is_had(&mut small[0]).is_none());
        assert_eq!((semaphore.permits(), semaphore.try_acquire().is_none()), (free, true));
        assert!(is_had(&mut semaphore.acquire()).is_none());
    }
    drop(held.pop());
    assert!(is_had(&mut small[0]).is_none());
    let three = is_had(&mut big[0]).unwrap();
    drop(held.pop());
    assert!(is_had(&mut small[1]).is_none());
    let one = is_had(&mut small[0]).unwrap();
    drop((three, one));
    assert!(is_had(&mut small[1]).is_some());
    assert_eq!(semaphore.permits(), 4);
}

#[test]
fn one_release_serves_as_many_as_there_are_permits_for() {
    let semaphore = Semaphore::new(5);
    let all = semaphore.try_acquire_many(5);
    let mut waiting: Vec<_> = [2, 2, 2, 1].into_iter().map(|n| semaphore.acquire_many(n)).collect();
    assert!(waiting.iter_mut().all(|waiting| poll(waiting).is_pending()));
    drop(all);
    assert_eq!(semaphore.permits(), 1);
    let had: Vec<_> = waiting.iter_mut().map(is_had).collect();
    assert_eq!(had.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, false, false]);
}

#[test]
fn those_who_waited_behind_a_big_request_are_served_when_it_is_given_up() {
    let semaphore = Semaphore::new(2);
    let held = semaphore.try_acquire();
    let mut big = line(1, || semaphore.acquire_many(2));
    let mut small = line(2, || semaphore.acquire());
    drop(big.pop());
    let one = is_had(&mut small[0]);
    assert!(one.is_some() && is_had(&mut small[1]).is_none());
    // Also when it has had its permits, and has not come for them.
    let mut big = line(1, || semaphore.acquire_many(2));
    drop(one);
    assert!(is_had(&mut small[1]).is_some()); // and let go of
    drop(held);
    let mut small = line(2, || semaphore.acquire());
    drop(big.pop());
    assert!(small.iter_mut().map(is_had).collect::<Vec<_>>().iter().all(Option::is_some));
    assert_eq!(semaphore.permits(), 2);
}

#[test]
fn more_than_there_are_waits_for_those_that_are_added() {
    let semaphore = Semaphore::new(1);
    let mut waiting = line(1, || semaphore.acquire_many(3));
    assert!(semaphore.try_acquire_many(3).is_none());
    semaphore.release();
    assert!(poll(&mut waiting[0]).is_pending());
    semaphore.release();
    assert!(is_had(&mut waiting[0]).is_some());
    let mut for_ever = line(1, || semaphore.acquire_many(usize::MAX));
    semaphore.release();
    assert!(poll(&mut for_ever[0]).is_pending());
}

#[test]
fn no_permits_at_all_are_had_at_once() {
    let semaphore = Semaphore::new(0);
    let _waiting = line(1, || semaphore.acquire());
    drop(is_had(&mut semaphore.acquire_many(0)).unwrap());
    drop(semaphore.try_acquire_many(0).unwrap());
    assert_eq!(semaphore.permits(), 0);
}

// BoundedSemaphore

#[test]
fn a_bounded_semaphore_refuses_more_than_it_can_ever_have() {
    let semaphore = BoundedSemaphore::new(3);
    assert!(is_had(&mut semaphore.acquire_many(3)).is_some());
    let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        drop(semaphore.acquire_many(4));
    }));
    let message = refused.unwrap_err().downcast::<String>().unwrap();
    assert_eq!(*message, "acquire_many: 4 permits of a BoundedSemaphore that has 3 at most");
    assert!(semaphore.try_acquire_many(4).is_none());
    // Those that are forgotten may come back.
    semaphore.try_acquire_many(2).unwrap().forget();
    let mut waiting = line(1, || semaphore.acquire_many(3));
    assert_eq!((semaphore.release(), semaphore.release()), (Ok(()), Ok(())));
    assert_eq!(semaphore.release(), Err(ReleasedTooOften));
    assert!(is_had(&mut waiting[0]).is_some());
}

#[test]
fn a_bounded_semaphore_takes_a_permit_back_for_each_that_was_forgotten() {
    let semaphore = BoundedSemaphore::new(1);
    assert_eq!(semaphore.release(), Err(ReleasedTooOften));
    assert_eq!(
        ReleasedTooOften.to_string(),
        "no permit of the semaphore was forgotten: each is free, or comes back when its Permit is dropped"
    );
    semaphore.try_acquire().unwrap().forget();
    let mut waiting = line(1, || semaphore.acquire());
    assert_eq!(semaphore.release(), Ok(()));
    let permit = poll(&mut waiting[0]);
    assert!(permit.is_ready());
    drop(permit);
    assert_eq!((semaphore.permits(), semaphore.release()), (1, Err(ReleasedTooOften)));
}

#[test]
fn a_bounded_semaphore_does_not_take_a_permit_that_is_held_for_a_missing_one() {
    let semaphore = BoundedSemaphore::new(1);
    let permit = semaphore.try_acquire().unwrap();
    assert_eq!(semaphore.release(), Err(ReleasedTooOften));
    assert!(semaphore.try_acquire().is_none());
    let mut waiting = semaphore.acquire();
    assert!(poll(&mut waiting).is_pending());
    assert_eq!(semaphore.release(), Err(ReleasedTooOften));
    assert!(poll(&mut waiting).is_pending());
    drop(permit);
    assert!(poll(&mut waiting).is_ready());
    assert_eq!(semaphore.permits(), 1);
}

// RwLock

#[test]
fn many_read_at_a_time_and_one_writes_alone() {
    let lock = RwLock::new(1);
    let (one, two) = (lock.try_read().unwrap(), lock.read().now_or_never().unwrap());
    assert_eq!((*one, *two, format!("{one:?}")), (1, 1, "1".into()));
    assert!(lock.try_write().is_none() && lock.write().now_or_never().is_none());
    drop((one, two));
    let mut writes = lock.try_write().unwrap();
    *writes += 1;
    assert_eq!((*writes, format!("{writes:?}")), (2, "2".into()));
    assert!(lock.try_read().is_none() && lock.read().now_or_never().is_none());
    assert!(lock.try_write().is_none());
    drop(writes);
    assert_eq!(*lock.try_read().unwrap(), 2);
}

#[test]
fn a_rw_lock_says_who_has_it_and_how_many_wait() {
    let lock = RwLock::<()>::default();
    let state = || format!("{lock:?}");
    let reads = (lock.try_read(), lock.try_read());
    assert_eq!(state(), "RwLock { readers: 2, is_written: false, waiters: 0 }");
    let mut waiting = line(1, || lock.write().boxed_local());
    assert_eq!(state(), "RwLock { readers: 2, is_written: false, waiters: 1 }");
    drop(reads);
    let writes = poll(&mut waiting[0]);
    assert_eq!(state(), "RwLock { readers: 0, is_written: true, waiters: 0 }");
    drop(writes);
    assert_eq!(state(), "RwLock { readers: 0, is_written: false, waiters: 0 }");
}

#[test]
fn who_waits_to_write_is_not_overtaken_by_those_who_come_to_read() {
    let lock = RwLock::new(());
    let (early, mut write) = (lock.try_read(), line(1, || lock.write().boxed_local()));
    let mut late = line(2, || lock.read().boxed_local());
    let mut second = line(1, || lock.write().boxed_local());
    assert!(lock.try_read().is_none());
    drop(early);
    assert!(late.iter_mut().all(|read| poll(read).is_pending()));
    let writes = poll(&mut write[0]);
    assert!(writes.is_ready() && poll(&mut late[0]).is_pending());
    drop(writes);
    // Both at the same time, and the other one who writes after them.
    let reads: Vec<_> = late.iter_mut().map(poll).collect();
    assert!(reads.iter().all(Poll::is_ready) && poll(&mut second[0]).is_pending());
    drop(reads);
    assert!(poll(&mut second[0]).is_ready());
}

#[test]
fn those_who_wait_to_read_behind_a_writer_who_goes_are_let_in() {
    let lock = RwLock::new(());
    let (_early, write) = (lock.try_read(), line(1, || lock.write().boxed_local()));
    let mut late = line(2, || lock.read().boxed_local());
    drop(write);
    let reads: Vec<_> = late.iter_mut().map(poll).collect();
    assert!(reads.iter().all(Poll::is_ready));
}

#[test]
fn guards_of_a_rw_lock_outlive_its_handles_and_a_panic_gives_it_back() {
    let lock = RwLock::new(String::from("a"));
    let panics = lock.clone();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        panics.try_write().unwrap().push('b');
        let mut guard = panics.try_write().unwrap();
        guard.push('c');
        std::panic::resume_unwind(Box::new("while it writes"));
    }));
    assert!(panicked.is_err());
    drop(panics);
    let guard = lock.try_read().expect("it was given back");
    drop(lock);
    assert_eq!(*guard, "abc");
}

// Lock

#[test]
fn a_lock_says_whether_it_is_locked_and_how_many_wait() {
    let lock = Lock::new(7);
    assert_eq!(
        (lock.is_locked(), format!("{lock:?}")),
        (false, "Lock { is_locked: false, waiters: 0 }".into())
    );
    let guard = lock.try_acquire().unwrap();
    let waiting = line(2, || lock.acquire().boxed_local());
    assert!(lock.is_locked());
    assert_eq!(format!("{lock:?}"), "Lock { is_locked: true, waiters: 2 }");
    drop(waiting);
    assert_eq!(format!("{guard:?}"), "7");
    drop(guard);
    assert!(!lock.is_locked());
    assert!(!Lock::<()>::default().is_locked());
}

#[test]
fn a_lock_is_handed_to_who_has_waited_longest_and_to_nobody_else() {
    let lock = Lock::new(());
    let guard = lock.acquire().now_or_never().unwrap();
    let mut first = pin!(lock.acquire());
    let mut second = pin!(lock.acquire());
    assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
    drop(guard);
    assert!(lock.is_locked() && lock.try_acquire().is_none());
    assert!(lock.acquire().now_or_never().is_none() && poll(&mut second).is_pending());
    let guard = poll(&mut first);
    assert!(guard.is_ready() && poll(&mut second).is_pending());
    drop(guard);
    assert!(poll(&mut second).is_ready());
    assert!(!lock.is_locked());
}

#[waterspout::test(virtual_time)]
async fn a_lock_is_acquired_first_come_first_served() {
    let (lock, diary) = (Lock::new(()), Diary::default());
    let guard = lock.acquire().await;
    let waiting: Vec<_> = (0..5).map(|n| diary.after(lock.acquire(), n)).collect();
    assert!(!waiting.iter().any(Coroutine::done));
    drop(guard);
    diary.after(lock.acquire(), "late").await;
    assert_eq!(diary.read(), ["0", "1", "2", "3", "4", "late"]);
}

#[waterspout::test(virtual_time)]
async fn a_lock_stays_locked_when_a_waiter_times_out() {
    let lock = Lock::new(());
    let guard = lock.acquire().await;
    assert!(with_timeout(seconds(1), lock.acquire()).await.is_err());
    assert!(lock.is_locked() && lock.try_acquire().is_none());
    drop(guard);
    assert!(!lock.is_locked());
}

#[waterspout::test(virtual_time)]
async fn who_holds_a_lock_and_waits_for_it_waits_for_ever() {
    let lock = Lock::new(());
    let guard = lock.acquire().await;
    let clone = lock.clone(); // is the same lock
    assert!(with_timeout(seconds(3600), clone.acquire()).await.is_err());
    drop(guard);
    drop(clone.acquire().await);
}

#[waterspout::test(virtual_time)]
async fn the_value_of_a_lock_is_handed_on_with_it() {
    let lock = Lock::new(Vec::new());
    let writers: Vec<_> = (0..5)
        .map(|n| {
            let lock = lock.clone();
            start(async move {
                let mut value = lock.acquire().await;
                value.push(n);
                moment().await;
                value.push(n);
            })
        })
        .collect();
    for writer in writers {
        writer.await;
    }
    assert_eq!(*lock.acquire().await, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
    let taken = std::mem::take(&mut *lock.try_acquire().unwrap());
    assert_eq!((taken.len(), lock.try_acquire().unwrap().len()), (10, 0));
}

#[waterspout::test(virtual_time)]
async fn the_value_of_a_lock_is_handed_on_as_it_was_left_by_a_panic_or_a_cancellation() {
    let lock = Lock::new(vec!["new"]);
    let hold = |what: &'static str, panics: bool| {
        let lock = lock.clone();
        start(async move {
            let mut value = lock.acquire().await;
            value.push(what);
            moment().await;
            if panics {
                panic!("while it holds the lock");
            }
            std::future::pending::<()>().await;
        })
    };
    let (panics, cancelled) = (hold("panicked", true), hold("cancelled", false));
    let diary = Diary::default();
    diary.after(lock.acquire(), "next");
    assert!(panics.join().await.is_err());
    moment().await;
    moment().await;
    cancelled.cancel();
    moment().await;
    assert_eq!(diary.read(), ["next"]);
    assert_eq!(*lock.try_acquire().unwrap(), ["new", "panicked", "cancelled"]);
}

#[test]
fn a_lock_that_was_handed_to_a_waiter_that_is_dropped_keeps_its_value_for_the_next() {
    let lock = Lock::new("value".to_owned());
    let guard = lock.try_acquire();
    let mut first = Box::pin(lock.acquire());
    let mut second = Box::pin(lock.acquire());
    assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
    drop(guard);
    drop(first);
    let Poll::Ready(guard) = poll(&mut second) else { panic!("it is the next") };
    assert_eq!(*guard, "value");
    drop((guard, second));
    drop(lock.acquire()); // never polled
    assert_eq!(*lock.try_acquire().unwrap(), "value");
}

#[test]
fn the_destructor_of_a_lock_s_value_may_use_locks() {
    let other = Semaphore::new(0);
    struct Releases(Semaphore, Option<Lock<Option<Releases>>>);
    impl Drop for Releases {
        fn drop(&mut self) {
            self.0.release();
            if let Some(lock) = &self.1 {
                assert!(lock.try_acquire().is_none()); // its own, which is held
            }
        }
    }
    let lock = Lock::new(None);
    *lock.try_acquire().unwrap() = Some(Releases(other.clone(), Some(lock.clone())));
    let mut guard = lock.try_acquire().unwrap();
    *guard = Some(Releases(other.clone(), None)); // drops the first while it is held
    drop((lock, guard)); // and the second with the lock
    assert_eq!(other.permits(), 2);
}

// All of them

#[waterspout::test(virtual_time)]
async fn coroutines_that_are_always_ready_do_not_starve_the_loop() {
    let lock = Lock::new(());
    let busy = spawn(async move {
        loop {
            let lock = lock.clone();
            // Done when the call returns, so awaiting it does not wait; each has a lock to itself.
            start(async move { drop(lock.acquire().await) }).await;
        }
    });
    for _ in 0..3 {
        moment().await;
    }
    busy.cancel();
}

#[waterspout::test(virtual_time)]
async fn a_hundred_thousand_waiters_of_one_lock_are_polled_twice_each() {
    const WAITERS: u64 = 100_000;
    let (lock, polls) = (Lock::new(0), Rc::new(Cell::new(0)));
    let guard = lock.acquire().await;
    let waiters: Vec<_> = (0..WAITERS)
        .map(|n| {
            let (lock, polls) = (lock.clone(), polls.clone());
            spawn(async move {
                let mut acquiring = pin!(lock.acquire());
                let mut value = std::future::poll_fn(|cx| {
                    polls.set(polls.get() + 1);
                    acquiring.as_mut().poll(cx)
                })
                .await;
                assert_eq!(*value, n);
                *value += 1;
            })
        })
        .collect();
    moment().await; // each waits, by a resumption and a budget of its own
    let resumed = IoLoop::current().counters().resumes;
    drop(guard);
    for waiter in waiters {
        waiter.await;
    }
    assert_eq!((*lock.acquire().await, polls.get()), (WAITERS, 2 * WAITERS));
    let resumed = IoLoop::current().counters().resumes - resumed;
    assert!(resumed <= 3 * WAITERS, "{resumed} resumes");
}

#[waterspout::test(virtual_time)]
async fn nothing_is_left_of_waiters_that_timed_out() {
    let (condition, semaphore, event) = (Condition::new(), Semaphore::new(0), Event::new());
    let left = Rc::new(());
    for _ in 0..100_000 {
        let left = left.clone();
        let (changed, permit, set) = (condition.wait(), semaphore.acquire(), event.wait());
        start(async move {
            let _left = left;
            let all = async { futures::join!(changed, permit, set) };
            with_timeout(seconds(1), all).await.map(drop)
        });
    }
    assert_eq!(format!("{condition:?}"), "Condition { waiters: 100000 }");
    let (mut changed, mut permit) = (line(1, || condition.wait()), line(1, || semaphore.acquire()));
    assert_eq!(Rc::strong_count(&left), 100_001);
    sleep(seconds(2)).await;
    assert_eq!(Rc::strong_count(&left), 1);
    let resumes = IoLoop::current().counters().resumes;
    condition.notify(1);
    semaphore.release();
    event.set();
    assert!(poll(&mut changed[0]).is_ready() && poll(&mut permit[0]).is_ready());
    assert_eq!(format!("{condition:?}"), "Condition { waiters: 0 }");
    moment().await;
    assert!(IoLoop::current().counters().resumes - resumes <= 2); // nobody else was woken
}

#[test]
fn no_waker_is_kept_of_waiters_that_are_dropped() {
    let (condition, semaphore, event) = (Condition::new(), Semaphore::new(0), Event::new());
    let counted = Arc::new(());
    let counting = counted.clone();
    let waker = waker_fn(move || {
        let _ = &counting;
    });
    let alive = Arc::downgrade(&counted);
    drop(counted);
    for _ in 0..1000 {
        let (mut changed, mut permit, mut set) =
            (condition.wait(), semaphore.acquire(), event.wait());
        assert!(poll_for(&mut changed, &waker).is_pending());
        assert!(poll_for(&mut permit, &waker).is_pending());
        assert!(poll_for(&mut set, &waker).is_pending());
    }
    drop(waker);
    assert!(alive.upgrade().is_none());
}

#[waterspout::test(virtual_time)]
async fn a_lock_that_is_always_free_does_not_keep_others_from_running() {
    let (lock, semaphore, event) = (Lock::new(0u64), Semaphore::new(1), Event::new());
    event.set();
    let counts = lock.clone();
    let busy = start(async move {
        loop {
            *counts.acquire().await += 1;
            drop(semaphore.acquire().await);
            event.wait().await;
        }
    });
    let before = *lock.try_acquire().unwrap();
    moment().await;
    moment().await;
    let after = *lock.try_acquire().unwrap();
    assert!(before > 0 && after > before, "{before}, {after}");
    busy.cancel();
}

#[waterspout::test(virtual_time)]
async fn a_combinator_that_polls_again_does_not_keep_others_from_running() {
    let lock = Lock::new(0u64);
    let counts = lock.clone();
    let busy = start(polled_again(async move {
        loop {
            *counts.acquire().await += 1;
        }
    }));
    let before = *lock.try_acquire().unwrap();
    moment().await;
    moment().await;
    let after = *lock.try_acquire().unwrap();
    assert!(before > 0 && after > before, "{before}, {after}");
    busy.cancel();
}

#[test]
fn locks_work_under_another_executor() {
    let (lock, diary) = (Lock::new(()), Diary::default());
    let (event, condition, gate) = (Event::new(), Condition::new(), Semaphore::new(0));
    let workers = (0..3).map(|n| {
        let (lock, diary) = (lock.clone(), diary.clone());
        let (event, condition, gate) = (event.clone(), condition.clone(), gate.clone());
        async move {
            let guard = lock.acquire().await;
            diary.write(format_args!("lock {n}"));
            event.wait().await;
            drop(guard);
            condition.wait().await;
            diary.write(format_args!("condition {n}"));
            drop(gate.acquire().await);
            diary.write(format_args!("permit {n}"));
        }
        .boxed_local()
    });
    let (notifies, opens, wakes) = (condition.clone(), gate.clone(), event.clone());
    let main = async move {
        wakes.set();
        // Gives way until all wait.
        for _ in 0..10 {
            suspend().await;
        }
        notifies.notify_all();
        opens.release();
    };
    run_elsewhere(workers.chain([main.boxed_local()]));
    let expected = [["lock 0", "lock 1", "lock 2"], ["condition 0", "condition 1", "condition 2"]];
    let read = diary.read();
    assert_eq!(read[..3], expected[0]);
    assert_eq!(
        read.iter().filter(|line| line.starts_with("condition")).collect::<Vec<_>>(),
        expected[1]
    );
    assert_eq!(
        read.iter().filter(|line| line.starts_with("permit")).collect::<Vec<_>>(),
        ["permit 0", "permit 1", "permit 2"]
    );
    // 100,000 operations that are ready: nothing is rationed without a loop.
    let always = async {
        for _ in 0..100_000 {
            drop(lock.acquire().await)
        }
    };
    assert!(always.now_or_never().is_some());
}

// ---------------------------------------------------------------------------------------------
// Wakers that panic
// ---------------------------------------------------------------------------------------------

/// One in a row of waiters has a waker that panics, whoever wakes them: the others go on, and the
/// panic is reported.
#[test]
fn a_waker_that_panics_leaves_nobody_asleep() {
    type Wait = Box<dyn Fn() -> LocalBoxFuture<'static, ()>>;
    type Wake = Box<dyn Fn()>;
    let (event, all, some) = (Event::new(), Condition::new(), Condition::new());
    let (semaphore, lock) = (Semaphore::new(0), Lock::new(()));
    let held = Cell::new(lock.try_acquire());
    let cases: Vec<(&str, Wait, Wake)> = vec![
        (
            "Event::set",
            Box::new({
                let event = event.clone();
                move || Box::pin(event.wait())
            }),
            Box::new(move || event.set()),
        ),
        (
            "Condition::notify_all",
            Box::new({
                let all = all.clone();
                move || Box::pin(all.wait())
            }),
            Box::new(move || all.notify_all()),
        ),
        (
            "Condition::notify",
            Box::new({
                let some = some.clone();
                move || Box::pin(some.wait())
            }),
            Box::new(move || some.notify(3)),
        ),
        (
            "Semaphore::release",
            Box::new({
                let semaphore = semaphore.clone();
                move || Box::pin(semaphore.acquire().map(drop))
            }),
            Box::new(move || (0..3).for_each(|_| semaphore.release())),
        ),
        (
            "the guard of a Lock",
            Box::new(move || Box::pin(lock.acquire().map(drop))),
            Box::new(move || drop(held.take())),
        ),
    ];
    for (what, wait, wake) in cases {
        let diary = Diary::new();
        let io_loop = diary.exceptions_of(IoLoop::builder().virtual_time()).build().unwrap();
        let ran = io_loop.run_sync_timeout(seconds(1), async || {
            let before = start(wait());
            let mut foreign = wait();
            assert!(poll_for(&mut foreign, &panicking_waker()).is_pending());
            let after = start(wait());
            wake();
            before.await;
            // It was woken all the same. Dropped, it hands on what was for it.
            drop(foreign);
            after.await;
        });
        assert!(ran.is_ok(), "{what}: {ran:?}");
        assert_eq!(diary.read(), ["panicked: a waker"], "{what}");
    }
}

// ---------------------------------------------------------------------------------------------
// Notify

#[waterspout::test]
async fn a_wake_up_that_nobody_waits_for_is_kept_once() {
    let notify = Notify::new();
    notify.notify_waiters(); // keeps nothing
    assert!(notify.notified().now_or_never().is_none());
    notify.notify_one();
    notify.notify_one();
    assert_eq!(format!("{notify:?}"), "Notify { is_kept: true, waiters: 0 }");
    notify.notified().await;
    assert!(notify.notified().now_or_never().is_none());
}

#[waterspout::test]
async fn notify_one_wakes_in_order_and_notify_waiters_all_who_wait() {
    let notify = Notify::new();
    let mut waiting = line(4, || Box::pin(notify.notified()));
    assert_eq!(format!("{notify:?}"), "Notify { is_kept: false, waiters: 4 }");
    notify.notify_one();
    assert_eq!(format!("{notify:?}"), "Notify { is_kept: false, waiters: 3 }");
    assert_eq!(
        waiting.iter_mut().map(|it| poll(it).is_ready()).collect::<Vec<_>>(),
        [true, false, false, false]
    );
    notify.notify_waiters();
    assert!(waiting[1..].iter_mut().all(|it| poll(it).is_ready()));
    assert!(notify.notified().now_or_never().is_none());
}

#[waterspout::test]
async fn a_wake_up_of_a_waiter_that_has_gone_goes_to_the_next_or_is_kept() {
    let notify = Notify::new();
    let mut waiting = line(2, || Box::pin(notify.notified()));
    notify.notify_one();
    drop(waiting.remove(0));
    assert!(poll(&mut waiting[0]).is_ready());
    let mut last = line(1, || Box::pin(notify.notified()));
    notify.notify_one();
    drop(last.pop());
    assert!(notify.notified().now_or_never().is_some());
    // Who was not woken takes nothing along.
    drop(line(1, || Box::pin(notify.notified())));
    notify.notify_one();
    assert!(notify.notified().now_or_never().is_some());
}

#[test]
fn what_comes_while_a_waker_is_cloned_is_not_missed() {
    let event = Event::new();
    let sets = event.clone();
    assert!(poll_acting_when_cloned(&mut event.wait(), move || sets.set()).is_ready());

    let semaphore = Semaphore::new(0);
    let releases = semaphore.clone();
    let permit = poll_acting_when_cloned(&mut semaphore.acquire(), move || releases.release());
    assert!(permit.is_ready());
    drop(permit);
    assert_eq!(semaphore.permits(), 1);

    let notify = Notify::new();
    let notifies = notify.clone();
    assert!(
        poll_acting_when_cloned(&mut notify.notified(), move || notifies.notify_one()).is_ready()
    );

    let lock = Lock::new(1);
    let mut held = Some(lock.try_acquire().unwrap());
    let got = poll_acting_when_cloned(&mut lock.acquire(), move || drop(held.take()));
    assert!(matches!(got, Poll::Ready(guard) if *guard == 1));
}
