//! Queues: in which order what is put is got, who waits for whom, what becomes of items whose putter or
//! getter has gone, and when all is done.

mod common;

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::error::Error;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;

use common::{
    Bomb, Diary, panicking_waker, poll, poll_acting_when_cloned, poll_for, polled_again,
    run_elsewhere, seconds,
};
use futures::future::LocalBoxFuture;
use futures::stream::{self, FusedStream};
use futures::{FutureExt, SinkExt, StreamExt};
use waker_fn::waker_fn;
use waterspout::coroutine::{moment, multi, sleep, spawn, start, with_timeout};
use waterspout::queues::{
    Fifo, Lifo, LifoQueue, Priority, PriorityQueue, Queue, QueueClosed, QueueEmpty, QueueFull,
    QueueOver, Store, TaskDoneTooOften,
};
use waterspout::{Coroutine, IoLoop, TimedOut};

/// All that can be got now.
fn drain<S: Store>(queue: &QueueOver<S>) -> Vec<S::Item> {
    std::iter::from_fn(|| queue.get_nowait().ok()).collect()
}

/// Polls each once: they wait in line.
fn line<F: Future + Unpin>(waits: impl IntoIterator<Item = F>) -> Vec<F> {
    let mut line: Vec<_> = waits.into_iter().collect();
    assert!(line.iter_mut().all(|waiting| poll(waiting).is_pending()));
    line
}

/// As many getters, in line.
fn getters<S: Store>(
    queue: &QueueOver<S>,
    n: usize,
) -> Vec<impl Future<Output = Result<S::Item, QueueClosed>> + Unpin + use<S>> {
    line((0..n).map(|_| queue.get()))
}

/// Something to do, with its priority, by which alone it is compared.
#[derive(Debug)]
struct Job(u32, usize);

impl PartialEq for Job {
    fn eq(&self, other: &Job) -> bool {
        self.0 == other.0
    }
}

impl Eq for Job {}

impl PartialOrd for Job {
    fn partial_cmp(&self, other: &Job) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Job {
    fn cmp(&self, other: &Job) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

// Putting and getting

#[test]
fn a_queue_says_what_is_in_it() {
    let queue = Queue::new(2);
    let state = |queue: &Queue<u8>| (queue.qsize(), queue.is_empty(), queue.is_full());
    assert_eq!((queue.maxsize(), state(&queue)), (2, (0, true, false)));
    queue.put_nowait(1).unwrap();
    assert_eq!(state(&queue), (1, false, false));
    queue.put_nowait(2).unwrap();
    assert_eq!(state(&queue), (2, false, true));
    assert_eq!(
        format!("{queue:?}"),
        "Queue { qsize: 2, maxsize: 2, getters: 0, putters: 0, unfinished_tasks: 2, is_closed: false }"
    );
    assert_eq!(queue.clone().get_nowait(), Ok(1)); // a clone is the same queue
    assert_eq!(state(&queue), (1, false, false));
}

#[test]
fn a_queue_says_who_waits_and_what_is_not_done() {
    let queue = Queue::new(1);
    let waiting = |queue: &Queue<u8>| {
        let text = format!("{queue:?}");
        let from = text.find("getters").unwrap();
        text[from..text.find(", is_closed").unwrap()].to_owned()
    };
    let mut getting = getters(&queue, 3);
    assert_eq!(waiting(&queue), "getters: 3, putters: 0, unfinished_tasks: 0");
    drop(getting.pop());
    queue.put_nowait(1).unwrap();
    assert_eq!(waiting(&queue), "getters: 1, putters: 0, unfinished_tasks: 1");
    drop(getting);
    assert_eq!((queue.qsize(), queue.get_nowait()), (1, Ok(1)));
    queue.task_done().unwrap();
    queue.put_nowait(2).unwrap();
    let _putting = line((0..2).map(|n| queue.put(n)));
    assert_eq!(waiting(&queue), "getters: 0, putters: 2, unfinished_tasks: 1");
    assert_eq!(queue.get_nowait(), Ok(2));
    assert_eq!(waiting(&queue), "getters: 0, putters: 1, unfinished_tasks: 2");
}

#[test]
fn items_are_got_in_the_order_in_which_they_were_put() {
    let queue = Queue::new(0);
    [1, 3, 2].into_iter().for_each(|n| queue.put_nowait(n).unwrap());
    assert_eq!(drain(&queue), [1, 3, 2]);
}

#[test]
fn without_a_maxsize_there_is_always_room() {
    let queue = Queue::new(0);
    for n in 0..10_000 {
        assert_eq!(queue.put(n).now_or_never(), Some(Ok(())));
    }
    assert_eq!((queue.qsize(), queue.is_full()), (10_000, false));
    assert!(drain(&queue).into_iter().eq(0..10_000));
}

#[test]
fn put_is_ready_at_once_while_there_is_room_and_get_while_there_are_items() {
    for maxsize in [1, 2, 7] {
        let queue = Queue::new(maxsize);
        for n in 0..maxsize {
            assert!(!queue.is_full());
            assert_eq!(poll(&mut queue.put(n)), Poll::Ready(Ok(())));
        }
        assert!(queue.is_full());
        assert_eq!(queue.put(99).now_or_never(), None);
        for n in 0..maxsize {
            assert_eq!(poll(&mut queue.get()), Poll::Ready(Ok(n)));
        }
        assert!(queue.is_empty());
        assert_eq!(queue.get().now_or_never(), None);
    }
}

#[test]
fn put_nowait_gives_the_item_back_when_there_is_no_room() {
    let queue = Queue::new(1);
    queue.put_nowait("kept").unwrap();
    let full = queue.put_nowait("refused").unwrap_err();
    assert_eq!(full, QueueFull::ForNow("refused"));
    assert_eq!((full.into_item(), drain(&queue)), ("refused", vec!["kept"]));
    assert_eq!(
        (full.to_string(), format!("{full:?}")),
        ("the queue has no room".into(), "ForNow".into())
    );
    // Also a queue that is full.
    queue.put_nowait("kept").unwrap();
    queue.close();
    let closed = queue.put_nowait("refused").unwrap_err();
    assert_eq!(closed, QueueFull::Closed("refused"));
    assert_eq!(
        (closed.to_string(), format!("{closed:?}")),
        ("the queue is closed".into(), "Closed".into())
    );
}

#[test]
fn get_nowait_says_whether_it_is_worth_while_to_try_again() {
    let queue = Queue::<u8>::new(0);
    assert_eq!(queue.get_nowait(), Err(QueueEmpty::ForNow));
    queue.close();
    assert_eq!(queue.get_nowait(), Err(QueueEmpty::Closed));
    assert_eq!(QueueEmpty::ForNow.to_string(), "the queue is empty");
    assert_eq!(QueueEmpty::Closed.to_string(), "the queue is closed and empty");
}

#[test]
fn an_item_goes_straight_to_the_getter_who_has_waited_longest() {
    let queue = Queue::new(1);
    let mut waiting = getters(&queue, 2);
    queue.put_nowait("a").unwrap();
    assert_eq!(queue.qsize(), 0);
    assert_eq!(queue.put("b").now_or_never(), Some(Ok(())));
    assert_eq!(queue.qsize(), 0);
    queue.put_nowait("c").unwrap();
    assert_eq!(queue.qsize(), 1);
    assert_eq!(poll(&mut waiting[1]), Poll::Ready(Ok("b"))); // whoever looks first
    assert_eq!(poll(&mut waiting[0]), Poll::Ready(Ok("a")));
    assert_eq!(drain(&queue), ["c"]);
}

#[waterspout::test(virtual_time)]
async fn getters_go_on_in_a_later_turn_in_the_order_in_which_they_came() {
    let (queue, got) = (Queue::new(0), Rc::new(RefCell::new(Vec::new())));
    for n in 0..3 {
        let (queue, got) = (queue.clone(), got.clone());
        start(async move {
            let item = queue.get().await.unwrap();
            got.borrow_mut().push((n, item));
        });
    }
    ["a", "b", "c"].into_iter().for_each(|item| queue.put_nowait(item).unwrap());
    assert!(got.borrow().is_empty()); // not inside of `put_nowait`
    moment().await;
    assert_eq!(*got.borrow(), [(0, "a"), (1, "b"), (2, "c")]);
}

#[test]
fn what_is_got_makes_room_for_the_putter_who_has_waited_longest() {
    let queue = Queue::new(1);
    queue.put_nowait(0).unwrap();
    let mut putters = line((1..4).map(|n| queue.put(n)));
    assert_eq!(queue.get_nowait(), Ok(0));
    assert_eq!((queue.qsize(), queue.is_full()), (1, true)); // it is in already
    assert_eq!(poll(&mut putters[0]), Poll::Ready(Ok(())));
    assert!(poll(&mut putters[1]).is_pending());
    assert_eq!(poll(&mut queue.get()), Poll::Ready(Ok(1)));
    assert_eq!(drain(&queue), [2, 3]);
    assert!(putters.iter_mut().skip(1).all(|putter| poll(putter).is_ready()));
}

#[test]
fn nobody_barges_in_before_those_who_wait() {
    let queue = Queue::new(1);
    queue.put_nowait(0).unwrap();
    let mut putters = line([queue.put(1)]);
    assert_eq!(queue.get_nowait(), Ok(0));
    assert_eq!(queue.put_nowait(2).unwrap_err(), QueueFull::ForNow(2));
    putters.extend(line([queue.put(2)]));
    assert_eq!(drain(&queue), [1, 2]);

    let mut waiting = getters(&queue, 1);
    queue.put_nowait(3).unwrap();
    assert_eq!(queue.get_nowait(), Err(QueueEmpty::ForNow));
    waiting.extend(getters(&queue, 1));
    queue.put_nowait(4).unwrap();
    assert_eq!(poll(&mut waiting[1]), Poll::Ready(Ok(4)));
    assert_eq!(poll(&mut waiting[0]), Poll::Ready(Ok(3)));
}

#[waterspout::test(virtual_time)]
async fn get_waits_for_what_is_put_later() {
    let queue = Queue::new(0);
    queue.put(0).await.unwrap();
    for n in 1..3 {
        let puts = queue.clone();
        IoLoop::current().call_later(seconds(n), move || puts.put_nowait(n).unwrap());
    }
    for n in 0..3 {
        assert_eq!(with_timeout(seconds(5), queue.get()).await, Ok(Ok(n)));
    }
}

#[waterspout::test(virtual_time)]
async fn put_waits_for_room_that_is_made_later() {
    let queue = Queue::new(1);
    queue.put_nowait(0).unwrap();
    for n in 0..2 {
        let gets = queue.clone();
        IoLoop::current().call_later(seconds(n + 1), move || {
            assert_eq!(gets.get_nowait(), Ok(n));
        });
    }
    let begun = IoLoop::current().time();
    multi([queue.put(1), queue.put(2)]).await.unwrap();
    assert_eq!(IoLoop::current().time() - begun, seconds(2));
    assert_eq!(drain(&queue), [2]);
}

// Waiters that go

#[waterspout::test(virtual_time)]
async fn a_getter_that_timed_out_takes_nothing() {
    let queue = Queue::new(0);
    let mut waiting = {
        let timed_out = with_timeout(seconds(1), queue.get());
        let mut timed_out = pin!(timed_out);
        assert!(poll(&mut timed_out).is_pending());
        let waiting = getters(&queue, 1);
        assert_eq!(timed_out.await, Err(TimedOut));
        waiting
    };
    queue.put_nowait(0).unwrap();
    assert_eq!(poll(&mut waiting[0]), Poll::Ready(Ok(0)));
    for limit in [Duration::ZERO, seconds(1)] {
        assert_eq!(with_timeout(limit, queue.get()).await, Err(TimedOut));
    }
    queue.put_nowait(1).unwrap();
    assert_eq!(with_timeout(Duration::ZERO, queue.get()).await, Ok(Ok(1)));
}

#[waterspout::test(virtual_time)]
async fn an_item_of_a_putter_that_timed_out_is_never_put() {
    let queue = Queue::new(1);
    queue.put_nowait(0).unwrap();
    let putter = queue.clone();
    let put = start(async move {
        sleep(Duration::from_millis(1)).await;
        putter.put(2).await
    });
    assert_eq!(with_timeout(seconds(1), queue.put(1)).await, Err(TimedOut));
    assert_eq!((queue.get_nowait(), queue.get().await), (Ok(0), Ok(2)));
    assert_eq!(put.await, Ok(()));
    assert!(queue.is_empty());
}

#[waterspout::test(virtual_time)]
async fn what_comes_in_time_is_not_lost_although_nobody_looks_until_later() {
    let queue = Queue::new(1);
    let mut get = pin!(with_timeout(seconds(1), queue.get()));
    assert!(poll(&mut get).is_pending());
    queue.put_nowait(0).unwrap();
    sleep(seconds(2)).await;
    assert_eq!(get.await, Ok(Ok(0)));

    queue.put_nowait(1).unwrap();
    let mut put = pin!(with_timeout(seconds(1), queue.put(2)));
    assert!(poll(&mut put).is_pending());
    assert_eq!(queue.get_nowait(), Ok(1));
    sleep(seconds(2)).await;
    assert_eq!((put.await, drain(&queue)), (Ok(Ok(())), vec![2]));
}

#[test]
fn an_item_of_a_putter_that_is_dropped_is_never_put() {
    let queue = Queue::new(1);
    queue.put_nowait(0).unwrap();
    let mut putters = line((1..6).map(|n| queue.put(n)));
    drop(putters.remove(0));
    drop(putters.remove(1));
    drop(queue.put(9)); // never polled
    assert_eq!(queue.get_nowait(), Ok(0)); // 2 goes in
    drop(putters.remove(0)); // which 2 has done: it has been put
    assert_eq!(drain(&queue), [2, 4, 5]);
    assert!(putters.iter_mut().all(|putter| poll(putter).is_ready()));
    assert_eq!(queue.put_nowait(6), Ok(()));
}

#[test]
fn an_item_of_a_getter_that_is_dropped_goes_to_the_next() {
    let queue = Queue::new(0);
    let mut waiting = getters(&queue, 6);
    drop(waiting.remove(1)); // before there was an item
    queue.put_nowait("a").unwrap();
    queue.put_nowait("b").unwrap();
    drop(waiting.remove(0)); // after "a" was given to it
    drop(waiting.remove(0)); // after "b"
    assert_eq!(queue.qsize(), 0);
    assert_eq!(poll(&mut waiting[1]), Poll::Ready(Ok("b")));
    drop(waiting.remove(0)); // "a" again
    assert_eq!(poll(&mut waiting[1]), Poll::Ready(Ok("a")));
    drop(waiting); // the first has got something, and so has the second
    queue.put_nowait("c").unwrap();
    assert_eq!(drain(&queue), ["c"]);
}

#[test]
fn items_that_getters_give_back_are_in_their_old_order() {
    let fifo = Queue::new(0);
    let waiting = getters(&fifo, 3);
    (0..5).for_each(|n| fifo.put_nowait(n).unwrap());
    drop(waiting); // in their order
    assert_eq!(drain(&fifo), [0, 1, 2, 3, 4]);

    let waiting = getters(&fifo, 3);
    (0..5).for_each(|n| fifo.put_nowait(n).unwrap());
    waiting.into_iter().rev().for_each(drop);
    assert_eq!(drain(&fifo), [0, 1, 2, 3, 4]);

    let lifo = LifoQueue::new(0);
    let waiting = getters(&lifo, 3);
    (0..5).for_each(|n| lifo.put_nowait(n).unwrap());
    drop(waiting);
    assert_eq!(drain(&lifo), [4, 3, 2, 1, 0]);

    let priority = PriorityQueue::new(0);
    let waiting = getters(&priority, 3);
    (0..5).for_each(|n| priority.put_nowait(Job(7, n)).unwrap());
    drop(waiting);
    assert_eq!(drain(&priority).iter().map(|job| job.1).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
}

/// What a queue does, in so many words: all items that are in it, by when they were put, and who waits.
struct Model {
    /// Which of the items is the next.
    next: fn(&BTreeMap<u64, u32>) -> Option<u64>,
    items: BTreeMap<u64, u32>,
    put: u64,
    waiting: VecDeque<usize>,
    given: HashMap<usize, (u64, u32)>,
}

impl Model {
    fn put(&mut self, item: u32) {
        self.items.insert(self.put, item);
        self.put += 1;
        self.serve();
    }

    fn get(&mut self) -> Option<(u64, u32)> {
        let next = (self.next)(&self.items)?;
        self.items.remove_entry(&next)
    }

    fn serve(&mut self) {
        let Some(getter) = self.waiting.front().copied() else { return };
        if let Some(next) = self.get() {
            self.waiting.pop_front();
            self.given.insert(getter, next);
        }
    }

    fn drop(&mut self, getter: usize) {
        self.waiting.retain(|waiting| *waiting != getter);
        if let Some((put, item)) = self.given.remove(&getter) {
            self.items.insert(put, item);
            self.serve();
        }
    }
}

/// Does whatever can be done to a queue, and checks that it is as the model says.
fn compare<S: Store<Item = u32>>(next: fn(&BTreeMap<u64, u32>) -> Option<u64>) {
    let mut random = 7u64;
    let mut below = move |n: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as usize % n
    };
    let queue = QueueOver::<S>::new(0);
    let (items, waiting, given) = (BTreeMap::new(), VecDeque::new(), HashMap::new());
    let mut model = Model { next, items, put: 0, waiting, given };
    let mut getters = Vec::new();
    for step in 0..5_000 {
        let chosen = below(getters.len() + 1);
        // Now and then there are mostly items, and then mostly getters.
        match (below(8), step / 64 % 2) {
            (0, _) | (1 | 2, 0) => {
                let item = below(10) as u32;
                queue.put_nowait(item).unwrap();
                model.put(item);
            }
            (3, _) => {
                let got = queue.get_nowait().ok();
                assert_eq!(got, model.get().map(|(_, item)| item), "step {step}");
            }
            (4..6, _) if chosen < getters.len() => {
                let (getter, get) = getters.swap_remove(chosen);
                drop(get);
                model.drop(getter);
            }
            (6, _) if chosen < getters.len() => {
                let (getter, get) = &mut getters[chosen];
                let got = poll_for(get, std::task::Waker::noop());
                let expected = model.given.remove(getter);
                assert_eq!(got.is_ready(), expected.is_some(), "step {step}");
                if let (Poll::Ready(got), Some((_, item))) = (got, expected) {
                    assert_eq!(got, Ok(item), "step {step}");
                    drop(getters.swap_remove(chosen));
                }
            }
            _ => {
                let mut get = Box::pin(queue.get());
                let expected = model.get().map(|(_, item)| Ok(item));
                match poll(&mut get) {
                    Poll::Ready(got) => assert_eq!(Some(got), expected, "step {step}"),
                    Poll::Pending => {
                        assert_eq!(expected, None, "step {step}");
                        model.waiting.push_back(step);
                        getters.push((step, get));
                    }
                }
            }
        }
        assert_eq!(queue.qsize(), model.items.len(), "step {step}");
    }
    drop(getters);
}

#[test]
fn whatever_getters_give_back_items_are_in_the_order_of_their_queue() {
    compare::<Fifo<u32>>(|items| items.keys().next().copied());
    compare::<Lifo<u32>>(|items| items.keys().next_back().copied());
    // Of equal ones, first in first out.
    compare::<Priority<u32>>(|items| {
        items.iter().min_by_key(|(put, item)| (**item, **put)).map(|(put, _)| *put)
    });
}

#[test]
fn an_item_that_was_given_back_takes_the_room_of_the_next_putter() {
    let queue = Queue::new(1);
    let getter = getters(&queue, 1);
    queue.put_nowait(0).unwrap();
    queue.put_nowait(1).unwrap();
    let mut putters = [queue.put(2), queue.put(3)];
    assert!(putters.iter_mut().all(|putter| poll(putter).is_pending()));
    drop(getter);
    assert_eq!(queue.qsize(), 2); // one more than there is room for, since it had gone already
    assert_eq!(queue.get_nowait(), Ok(0));
    assert_eq!(queue.qsize(), 1);
    assert!(putters.iter_mut().all(|putter| poll(putter).is_pending()));
    assert_eq!(queue.get_nowait(), Ok(1));
    assert_eq!((poll(&mut putters[0]), queue.qsize()), (Poll::Ready(Ok(())), 1));
    assert_eq!(drain(&queue), [2, 3]);
}

#[waterspout::test(virtual_time)]
async fn a_getter_that_is_cancelled_in_the_turn_in_which_it_is_served_loses_nothing() {
    let (queue, got) = (Queue::new(0), Rc::new(RefCell::new(Vec::new())));
    let waiting: Vec<_> = (0..3)
        .map(|n| {
            let (queue, got) = (queue.clone(), got.clone());
            start(async move {
                let item = queue.get().await.unwrap();
                got.borrow_mut().push((n, item));
            })
        })
        .collect();
    queue.put_nowait("a").unwrap();
    queue.put_nowait("b").unwrap();
    waiting[0].cancel();
    moment().await;
    assert_eq!(*got.borrow(), [(1, "b"), (2, "a")]);
    assert!(queue.is_empty());
}

#[waterspout::test(virtual_time)]
async fn nothing_is_left_of_waiters_that_timed_out() {
    let (full, empty) = (Queue::new(1), Queue::<Rc<()>>::new(0));
    let item = Rc::new(());
    full.put_nowait(item.clone()).unwrap();
    for _ in 0..100_000 {
        let (put, get, item) = (full.put(item.clone()), empty.get(), item.clone());
        start(async move {
            let _item = item;
            let both = async { futures::join!(put, get) };
            with_timeout(seconds(1), both).await.map(drop)
        });
    }
    let (mut put, mut get) = (line([full.put(item.clone())]), getters(&empty, 1));
    assert_eq!(Rc::strong_count(&item), 200_003);
    sleep(seconds(2)).await;
    assert_eq!(Rc::strong_count(&item), 3);
    full.get_nowait().unwrap();
    empty.put_nowait(item.clone()).unwrap();
    assert!(poll(&mut put[0]).is_ready() && poll(&mut get[0]).is_ready());
    assert_eq!((full.qsize(), empty.qsize()), (1, 0));
}

// Closing

#[test]
fn after_close_nothing_can_be_put_and_what_is_in_it_can_be_got() {
    let queue = Queue::new(0);
    [1, 2].into_iter().for_each(|n| queue.put_nowait(n).unwrap());
    queue.close();
    queue.close();
    assert!(queue.is_closed());
    assert_eq!(
        format!("{queue:?}"),
        "Queue { qsize: 2, maxsize: 0, getters: 0, putters: 0, unfinished_tasks: 2, is_closed: true }"
    );
    assert_eq!(queue.put_nowait(3), Err(QueueFull::Closed(3)));
    assert_eq!(queue.put(4).now_or_never(), Some(Err(QueueClosed(4))));
    assert_eq!(queue.get().now_or_never(), Some(Ok(1)));
    assert_eq!(queue.get_nowait(), Ok(2));
    assert_eq!(queue.get().now_or_never(), Some(Err(QueueClosed(()))));
    assert_eq!(QueueClosed(()).to_string(), "the queue is closed");
    assert_eq!(format!("{:?}", QueueClosed(5)), "QueueClosed");
}

#[test]
fn close_gives_waiting_putters_their_item_back_and_waiting_getters_an_error() {
    let queue = Queue::new(1);
    let mut waiting = getters(&queue, 3);
    queue.put_nowait("in time").unwrap();
    queue.close();
    assert_eq!(poll(&mut waiting[0]), Poll::Ready(Ok("in time")));
    assert!(
        waiting[1..].iter_mut().all(|getter| poll(getter) == Poll::Ready(Err(QueueClosed(()))))
    );

    let queue = Queue::new(1);
    queue.put_nowait(0).unwrap();
    let mut putters = line((1..4).map(|n| queue.put(n)));
    assert_eq!(queue.get_nowait(), Ok(0));
    queue.close();
    drop(putters.remove(2));
    assert_eq!(poll(&mut putters[1]), Poll::Ready(Err(QueueClosed(2))));
    assert_eq!(poll(&mut putters[0]), Poll::Ready(Ok(()))); // had been put
    assert_eq!(drain(&queue), [1]);
}

#[test]
fn a_getter_that_close_has_woken_gets_what_another_gave_back_before_it_looked() {
    let queue = Queue::new(0);
    let mut waiting = getters(&queue, 3);
    queue.put_nowait("item").unwrap(); // for the first
    queue.close();
    drop(waiting.remove(0));
    assert_eq!(poll(&mut waiting[0]), Poll::Ready(Ok("item")));
    assert_eq!(poll(&mut waiting[1]), Poll::Ready(Err(QueueClosed(()))));
}

#[waterspout::test(virtual_time)]
async fn join_after_close_waits_for_what_had_been_put() {
    let queue = Queue::new(1);
    queue.put_nowait(0).unwrap();
    let mut putters = line([queue.put(1)]);
    queue.close();
    assert!(poll(&mut putters[0]).is_ready());
    assert_eq!(with_timeout(seconds(1), queue.join()).await, Err(TimedOut));
    queue.get().await.unwrap();
    queue.task_done().unwrap();
    queue.join().await;
    assert_eq!(queue.task_done(), Err(TaskDoneTooOften));
}

// task_done and join, of each kind

fn task_done_more_often_than_put<S: Store<Item = u32>>() {
    let queue = QueueOver::<S>::new(0);
    assert_eq!(queue.task_done(), Err(TaskDoneTooOften));
    queue.put_nowait(1).unwrap();
    assert_eq!(queue.task_done(), Ok(()));
    assert_eq!(queue.task_done(), Err(TaskDoneTooOften));
}

#[test]
fn task_done_more_often_than_put_is_an_error() {
    task_done_more_often_than_put::<waterspout::queues::Fifo<u32>>();
    task_done_more_often_than_put::<waterspout::queues::Priority<u32>>();
    task_done_more_often_than_put::<waterspout::queues::Lifo<u32>>();
    let message = "task_done was called more often than items were put";
    assert_eq!(TaskDoneTooOften.to_string(), message);
}

fn join_waits_for_task_done<S: Store<Item = u32>>() {
    let queue = QueueOver::<S>::new(0);
    assert!(queue.join().now_or_never().is_some()); // nothing was ever put
    assert!(queue.join().now_or_never().is_some());
    queue.put_nowait(1).unwrap();
    let mut joins = line([queue.join(), queue.join()]);
    queue.get_nowait().unwrap();
    assert!(poll(&mut joins[0]).is_pending());
    queue.put_nowait(2).unwrap(); // extends it
    queue.task_done().unwrap();
    assert!(poll(&mut joins[0]).is_pending());
    queue.task_done().unwrap();
    queue.put_nowait(3).unwrap(); // too late for those who waited
    assert!(joins.iter_mut().all(|join| poll(join).is_ready()));
    assert!(queue.join().now_or_never().is_none());
}

#[test]
fn join_waits_for_task_done_and_not_for_emptiness() {
    join_waits_for_task_done::<waterspout::queues::Fifo<u32>>();
    join_waits_for_task_done::<waterspout::queues::Priority<u32>>();
    join_waits_for_task_done::<waterspout::queues::Lifo<u32>>();
}

async fn workers_share<S: Store<Item = u64> + 'static>() {
    let (queue, sums) = (QueueOver::<S>::new(0), Rc::new(RefCell::new([0; 2])));
    (0..100).for_each(|n| queue.put_nowait(n).unwrap());
    let workers = [0, 1].map(|n| {
        let (queue, sums) = (queue.clone(), sums.clone());
        start(async move {
            while let Ok(item) = queue.get().await {
                sums.borrow_mut()[n] += item;
                queue.task_done().unwrap();
                sleep(Duration::from_millis(item * 7 % 10)).await;
            }
        })
    });
    queue.join().await;
    let [a, b] = *sums.borrow();
    assert!(a + b == (0..100).sum() && a > 0 && b > 0, "{a}, {b}");
    assert!(!workers[0].done() && !workers[1].done());
    queue.close();
    for worker in workers {
        worker.await;
    }
}

#[waterspout::test(virtual_time)]
async fn join_waits_until_workers_have_dealt_with_all() {
    workers_share::<waterspout::queues::Fifo<u64>>().await;
    workers_share::<waterspout::queues::Priority<u64>>().await;
    workers_share::<waterspout::queues::Lifo<u64>>().await;
}

#[waterspout::test(virtual_time)]
async fn join_can_have_a_time_limit() {
    let queue = Queue::new(0);
    queue.put_nowait(0).unwrap();
    assert_eq!(with_timeout(seconds(1), queue.join()).await, Err(TimedOut));
    queue.task_done().unwrap();
    assert_eq!(with_timeout(seconds(1), queue.join()).await, Ok(()));
}

#[test]
fn items_of_waiting_putters_count_from_when_they_are_in() {
    let queue = Queue::new(1);
    queue.put_nowait(0).unwrap();
    let mut putters = line([queue.put(1), queue.put(2)]);
    putters.pop();
    let mut join = queue.join();
    for n in 0..2 {
        assert!(poll(&mut join).is_pending());
        assert_eq!(queue.get_nowait(), Ok(n));
        queue.task_done().unwrap();
    }
    assert!(poll(&mut join).is_ready());
    assert_eq!(queue.task_done(), Err(TaskDoneTooOften));
}

#[waterspout::test(virtual_time)]
async fn a_consumer_that_says_done_at_once_gets_all_before_join_ends() {
    let (queue, got) = (Queue::new(3), Rc::new(RefCell::new(Vec::new())));
    let (gets, history) = (queue.clone(), got.clone());
    start(async move {
        while let Ok(item) = gets.get().await {
            history.borrow_mut().push(item);
            gets.task_done().unwrap();
        }
    });
    let puts = queue.clone();
    start(async move {
        for item in 0..10 {
            puts.put(item).await.unwrap();
        }
    })
    .await;
    queue.join().await;
    assert!(got.borrow().iter().copied().eq(0..10));
    queue.close();
}

// Priority and last in first out

#[test]
fn a_priority_queue_gives_the_least_first() {
    let queue = PriorityQueue::new(2);
    queue.put_nowait((1, "a")).unwrap();
    queue.put_nowait((0, "b")).unwrap();
    assert!(queue.is_full());
    let _putters = line([queue.put((3, "c")), queue.put((2, "d"))]); // go in as they came
    assert_eq!(drain(&queue), [(0, "b"), (1, "a"), (2, "d"), (3, "c")]);
    assert!(queue.is_empty());
}

#[test]
fn a_priority_queue_gives_equals_in_the_order_in_which_they_were_put() {
    let queue = PriorityQueue::new(0);
    for (n, priority) in [1, 0, 1, 2, 0, 1].into_iter().enumerate() {
        queue.put_nowait(Job(priority, n)).unwrap();
    }
    let order: Vec<_> = drain(&queue).into_iter().map(|job| (job.0, job.1)).collect();
    assert_eq!(order, [(0, 1), (0, 4), (1, 0), (1, 2), (1, 5), (2, 3)]);
    // Also those that waited to be put.
    let queue = PriorityQueue::new(1);
    queue.put_nowait(Job(5, 0)).unwrap();
    let _putters = line([(5, 1), (4, 2), (4, 3), (5, 4)].map(|(p, n)| queue.put(Job(p, n))));
    let order: Vec<_> = drain(&queue).into_iter().map(|job| job.1).collect();
    assert_eq!(order, [0, 2, 3, 1, 4]); // who gets lets a waiting putter in first
}

#[test]
fn a_priority_queue_of_reversed_items_gives_the_greatest_first() {
    let queue = PriorityQueue::new(0);
    [2, 3, 1].into_iter().for_each(|n| queue.put_nowait(std::cmp::Reverse(n)).unwrap());
    assert_eq!(drain(&queue).into_iter().map(|item| item.0).collect::<Vec<_>>(), [3, 2, 1]);
}

#[test]
fn a_lifo_queue_gives_the_last_first() {
    let queue = LifoQueue::new(2);
    queue.put_nowait(1).unwrap();
    queue.put_nowait(0).unwrap();
    assert!(queue.is_full());
    let _putters = line([queue.put(3), queue.put(2)]);
    // Who gets lets a waiting putter in first.
    assert_eq!(drain(&queue), [3, 2, 0, 1]);
}

// Stream and sink

#[waterspout::test(virtual_time)]
async fn a_stream_of_a_queue_ends_when_that_is_closed_and_empty() {
    let queue = Queue::new(2);
    let puts = queue.clone();
    start(async move {
        for n in 0..5 {
            puts.put(n).await.unwrap();
            sleep(seconds(1)).await;
        }
        puts.close();
    });
    let mut items = queue.clone();
    assert!(!items.is_terminated());
    assert_eq!(items.by_ref().collect::<Vec<_>>().await, [0, 1, 2, 3, 4]);
    assert!(items.is_terminated());
    assert_eq!(items.next().await, None);
}

#[waterspout::test(virtual_time)]
async fn a_stream_is_cut_off_in_between_without_a_loss() {
    let mut queue = Queue::new(1);
    let puts = queue.clone();
    start(async move {
        for n in 0..20 {
            puts.put(n).await.unwrap();
            sleep(seconds(3)).await;
        }
        puts.close();
    });
    let (mut items, mut timeouts) = (Vec::new(), 0);
    loop {
        match with_timeout(seconds(1), queue.next()).await {
            Ok(Some(item)) => items.push(item),
            Ok(None) => break,
            Err(TimedOut) => timeouts += 1,
        }
    }
    assert!(items.into_iter().eq(0..20));
    assert!(timeouts >= 20, "{timeouts}");
}

#[test]
fn a_handle_that_is_dropped_gives_up_what_its_stream_has_waited_for() {
    let queue = Queue::new(0);
    let mut streams = [queue.clone(), queue.clone()];
    for stream in &mut streams {
        assert_eq!(stream.next().now_or_never(), None);
    }
    let mut waiting = getters(&queue, 1);
    queue.put_nowait("given").unwrap(); // to the first
    let [first, second] = streams;
    assert!(!first.clone().is_terminated());
    drop(second); // while it waits
    drop(first); // after it was given something
    assert_eq!(poll(&mut waiting[0]), Poll::Ready(Ok("given")));
}

#[test]
fn get_takes_the_place_that_a_dropped_next_of_the_same_handle_has_left() {
    let mut queue = Queue::new(0);
    assert_eq!(queue.next().now_or_never(), None);
    queue.put_nowait(0).unwrap(); // is for who waits, as if `next` still did
    assert_eq!(queue.get_nowait(), Ok(0));

    assert_eq!(queue.next().now_or_never(), None);
    let other = queue.clone();
    let mut waiting = other.get();
    assert!(poll(&mut waiting).is_pending());
    let mut get = queue.get();
    other.put_nowait(1).unwrap();
    assert_eq!(poll(&mut get), Poll::Ready(Ok(1)));
    assert!(poll(&mut waiting).is_pending());

    assert_eq!(queue.next().now_or_never(), None);
    assert_eq!(queue.get_nowait(), Err(QueueEmpty::ForNow)); // and the place is given up
    other.put_nowait(2).unwrap();
    assert_eq!(poll(&mut waiting), Poll::Ready(Ok(2)));
}

#[test]
fn a_stream_with_an_item_in_its_place_is_not_over() {
    let mut queue = Queue::new(0);
    assert_eq!(queue.next().now_or_never(), None);
    queue.put_nowait(1).unwrap();
    queue.close();
    assert!(queue.is_empty() && !queue.is_terminated());
    assert_eq!(queue.next().now_or_never(), Some(Some(1)));
    assert!(queue.is_terminated());
    assert_eq!(queue.next().now_or_never(), Some(None));
}

#[waterspout::test(virtual_time)]
async fn a_sink_sends_all_as_there_is_room_and_close_ends_the_stream() {
    let queue = Queue::new(2);
    let got = queue.clone();
    let got = start(async move {
        got.then(|item| async move {
            sleep(seconds(1)).await;
            item
        })
        .collect::<Vec<_>>()
        .await
    });
    let mut sink = queue.clone();
    sink.send_all(&mut stream::iter((0..10).map(Ok))).await.unwrap();
    sink.feed(10).await.unwrap();
    SinkExt::close(&mut sink).await.unwrap();
    assert!(queue.is_closed());
    assert_eq!(sink.send(11).await, Err(QueueClosed(11)));
    assert!(got.await.into_iter().eq(0..11));
}

#[test]
fn flushing_a_sink_waits_until_the_item_under_way_is_in() {
    let queue = Queue::new(1);
    let mut sink = queue.clone();
    assert_eq!(sink.feed(0).now_or_never(), Some(Ok(())));
    assert_eq!(sink.flush().now_or_never(), Some(Ok(())));
    assert_eq!(sink.feed(1).now_or_never(), Some(Ok(()))); // one more may be under way
    assert_eq!(sink.flush().now_or_never(), None);
    assert_eq!(sink.feed(2).now_or_never(), None);
    assert_eq!(queue.get_nowait(), Ok(0)); // makes room for 1, also if nobody polls
    assert_eq!(queue.get_nowait(), Ok(1));
    assert_eq!(sink.flush().now_or_never(), Some(Ok(())));
    assert!(queue.is_empty());
}

#[waterspout::test(virtual_time)]
async fn a_send_that_is_cut_off_goes_on_in_its_handle() {
    let queue = Queue::new(1);
    let mut sink = queue.clone();
    sink.send(0).await.unwrap();
    assert_eq!(with_timeout(seconds(1), sink.send(1)).await, Err(TimedOut));
    assert_eq!(with_timeout(seconds(1), sink.flush()).await, Err(TimedOut));
    assert_eq!(queue.get_nowait(), Ok(0));
    sink.flush().await.unwrap();
    assert_eq!(queue.qsize(), 1);
    // Unless the handle goes, too.
    assert_eq!(with_timeout(seconds(1), sink.send(2)).await, Err(TimedOut));
    drop(sink);
    assert_eq!(drain(&queue), [1]);
}

#[test]
fn a_sink_gets_the_item_under_way_back_when_the_queue_is_closed() {
    let queue = Queue::new(1);
    let mut sink = queue.clone();
    assert_eq!(sink.send(0).now_or_never(), Some(Ok(())));
    assert_eq!(sink.send(1).now_or_never(), None);
    queue.close();
    assert_eq!(sink.flush().now_or_never(), Some(Err(QueueClosed(1))));
    assert_eq!(sink.flush().now_or_never(), Some(Ok(())));
    assert_eq!(SinkExt::close(&mut sink).now_or_never(), Some(Ok(())));
    assert_eq!(drain(&queue), [0]);
}

#[waterspout::test(virtual_time)]
async fn a_queue_forwards_into_another() {
    let (from, to) = (Queue::new(1), Queue::new(1));
    let (source, sink) = (from.clone(), to.clone());
    let forwarded = start(source.map(Ok).forward(sink));
    let puts = start(async move {
        for n in 0..10 {
            from.put(n).await.unwrap();
        }
        from.close();
    });
    assert!(to.collect::<Vec<_>>().await.into_iter().eq(0..10));
    puts.await;
    assert_eq!(forwarded.await, Ok(()));
}

// Foreign code

thread_local! {
    /// What wakers of this thread use: they can be sent, queues cannot.
    static SHARED: RefCell<Option<Queue<u32>>> = const { RefCell::new(None) };
}

fn shared() -> Queue<u32> {
    SHARED.with_borrow(Clone::clone).expect("the test has shared one")
}

#[test]
fn a_waker_may_use_the_queue_that_wakes_it() {
    let queue = Queue::new(1);
    SHARED.set(Some(queue.clone()));
    let mut first = queue.get();
    let puts = waker_fn(|| {
        shared().put_nowait(2).unwrap(); // to the second
        shared().put_nowait(3).unwrap(); // kept
        assert_eq!(shared().put_nowait(4), Err(QueueFull::ForNow(4)));
    });
    assert!(poll_for(&mut first, &puts).is_pending());
    let mut second = getters(&queue, 1);
    queue.put_nowait(1).unwrap();
    assert_eq!(poll(&mut second[0]), Poll::Ready(Ok(2)));
    assert_eq!(poll(&mut first), Poll::Ready(Ok(1)));

    let mut put = queue.put(5);
    let gets = waker_fn(|| assert_eq!(shared().get_nowait(), Ok(5)));
    assert!(poll_for(&mut put, &gets).is_pending());
    assert_eq!(queue.get_nowait(), Ok(3));
    assert_eq!((poll(&mut put), queue.qsize()), (Poll::Ready(Ok(())), 0));

    let mut waiting = queue.get();
    let asks = waker_fn(|| {
        assert_eq!(shared().put_nowait(6), Err(QueueFull::Closed(6)));
        assert_eq!(shared().get_nowait(), Err(QueueEmpty::Closed));
    });
    assert!(poll_for(&mut waiting, &asks).is_pending());
    queue.close();
    assert_eq!(poll(&mut waiting), Poll::Ready(Err(QueueClosed(()))));
    SHARED.set(None);
}

#[test]
fn a_waker_that_uses_the_queue_when_it_is_cloned_leaves_nobody_waiting() {
    let queue = Queue::new(1);
    let act = |act: fn(&Queue<u8>)| {
        let queue = queue.clone();
        move || act(&queue)
    };
    let put = act(|queue| queue.put_nowait(1).unwrap());
    assert_eq!(poll_acting_when_cloned(&mut queue.get(), put), Poll::Ready(Ok(1)));

    queue.put_nowait(2).unwrap();
    let get = act(|queue| assert_eq!(queue.get_nowait(), Ok(2)));
    assert_eq!(poll_acting_when_cloned(&mut queue.put(3), get), Poll::Ready(Ok(())));
    assert_eq!(queue.get_nowait(), Ok(3));

    let closed = Poll::Ready(Err(QueueClosed(())));
    assert_eq!(poll_acting_when_cloned(&mut queue.get(), act(Queue::close)), closed);
    let full = Queue::new(1);
    full.put_nowait(4).unwrap();
    let closes = full.clone();
    let put = poll_acting_when_cloned(&mut full.put(5), move || closes.close());
    assert_eq!(put, Poll::Ready(Err(QueueClosed(5))));
}

/// Puts one with one less into the queue that it was meant for, when it is dropped.
struct Echo(u32, Queue<Echo>);

impl Drop for Echo {
    fn drop(&mut self) {
        if self.0 > 0 {
            // Refused, the next is dropped in turn.
            let _ = self.1.put_nowait(Echo(self.0 - 1, self.1.clone()));
        }
    }
}

#[test]
fn the_destructor_of_an_item_may_put_into_its_queue() {
    let queue = Queue::new(2);
    let echo = |n| Echo(n, queue.clone());
    queue.put_nowait(echo(2)).map_err(drop).unwrap();
    queue.put_nowait(echo(0)).map_err(drop).unwrap();
    let mut putters = line([queue.put(echo(3)), queue.put(echo(0))]);
    drop(putters.remove(0)); // with its item, whose echo finds no room, and so on
    assert_eq!(queue.qsize(), 2);
    drop(queue.get_nowait()); // makes room for the other putter: the echo finds none
    assert_eq!(queue.qsize(), 2);
    assert!(poll(&mut putters[0]).is_ready());
    drop((queue.get_nowait(), queue.get_nowait()));

    let getter = getters(&queue, 1);
    queue.put_nowait(echo(3)).map_err(drop).unwrap();
    drop(getter); // gives it back
    assert_eq!(queue.qsize(), 1);
    drop(queue.get_nowait()); // 3, whose echo is 2, and so on
    let rest: Vec<_> = std::iter::from_fn(|| queue.get_nowait().ok().map(|item| item.0)).collect();
    assert_eq!(rest, [2, 1, 0]);
}

// Fairness

#[waterspout::test(virtual_time)]
async fn a_pair_that_always_finds_room_and_items_does_not_keep_others_from_running() {
    let (queue, got) = (Queue::new(0), Rc::new(Cell::new(0u64)));
    let (puts, gets, counts) = (queue.clone(), queue.clone(), got.clone());
    let producer = start(async move {
        for n in 0u64.. {
            puts.put(n).await.unwrap();
        }
    });
    let consumer = start(async move {
        for n in 0u64.. {
            assert_eq!(gets.get().await, Ok(n));
            counts.set(n);
            gets.task_done().unwrap();
        }
    });
    let mut last = got.get();
    for _ in 0..5 {
        moment().await;
        moment().await;
        assert!(got.get() > last);
        last = got.get();
    }
    producer.cancel();
    consumer.cancel();
}

#[waterspout::test(virtual_time)]
async fn a_coroutine_that_puts_and_gets_by_itself_does_not_keep_others_from_running() {
    let (queue, rounds) = (Queue::new(1), Rc::new(Cell::new(0)));
    let counts = rounds.clone();
    let busy = start(async move {
        let mut stream = queue.clone();
        let mut sink = queue.clone();
        loop {
            queue.put(1).await.unwrap();
            queue.get().await.unwrap();
            sink.send(2).await.unwrap();
            stream.next().await.unwrap();
            counts.set(counts.get() + 1);
        }
    });
    let before = rounds.get();
    moment().await;
    moment().await;
    assert!(before > 0 && rounds.get() > before, "{before}, {}", rounds.get());
    busy.cancel();
}

#[waterspout::test(virtual_time)]
async fn a_pair_in_one_coroutine_that_polls_again_does_not_keep_others_from_running() {
    let (there, back) = (Queue::new(1), Queue::new(1));
    let rounds = Rc::new(Cell::new(0u64));
    let (gets, puts, counts) = (there.clone(), back.clone(), rounds.clone());
    let busy = start(polled_again(async move {
        let ping = async {
            loop {
                there.put(()).await.unwrap();
                back.get().await.unwrap();
            }
        };
        let pong = async {
            loop {
                gets.get().await.unwrap();
                puts.put(()).await.unwrap();
                counts.set(counts.get() + 1);
            }
        };
        futures::join!(ping, pong)
    }));
    let before = rounds.get();
    moment().await;
    moment().await;
    assert!(before > 0 && rounds.get() > before, "{before}, {}", rounds.get());
    busy.cancel();
}

#[waterspout::test(virtual_time)]
async fn a_hundred_thousand_waiters_of_one_queue_are_polled_twice_each() {
    const WAITERS: u32 = 100_000;
    let (queue, polls) = (Queue::new(1), Rc::new(Cell::new(0)));
    let counted = |wait: LocalBoxFuture<'static, u32>| {
        let (polls, mut wait) = (polls.clone(), wait);
        spawn(std::future::poll_fn(move |cx| {
            polls.set(polls.get() + 1);
            wait.as_mut().poll(cx)
        }))
    };
    let getters: Vec<_> =
        (0..WAITERS).map(|_| counted(queue.get().map(Result::unwrap).boxed_local())).collect();
    moment().await; // each waits, by a resumption and a budget of its own
    (0..WAITERS).for_each(|n| queue.put_nowait(n).unwrap());
    for (n, getter) in (0..).zip(getters) {
        assert_eq!(getter.await, n);
    }
    assert_eq!(polls.take(), 2 * WAITERS);

    queue.put_nowait(0).unwrap();
    let putters: Vec<_> = (1..=WAITERS)
        .map(|n| counted(queue.put(n).map(move |put| put.map(|()| n).unwrap()).boxed_local()))
        .collect();
    moment().await;
    assert!(drain(&queue).into_iter().eq(0..=WAITERS));
    for (n, putter) in (1..).zip(putters) {
        assert_eq!(putter.await, n);
    }
    assert_eq!(polls.take(), 2 * WAITERS);
}

#[test]
fn queues_work_under_another_executor() {
    let (queue, got) = (Queue::new(2), Rc::new(RefCell::new(Vec::new())));
    let (puts, joins, history) = (queue.clone(), queue.clone(), got.clone());
    let producer = async move {
        for n in 0..10_000 {
            puts.put(n).await.unwrap();
        }
        puts.join().await;
        puts.close();
    };
    let consumer = async move {
        while let Ok(item) = queue.get().await {
            history.borrow_mut().push(item);
            queue.task_done().unwrap();
        }
    };
    run_elsewhere([producer.boxed_local(), consumer.boxed_local()]);
    assert!(got.borrow().iter().copied().eq(0..10_000));
    assert!(joins.join().now_or_never().is_some());
}

#[test]
fn the_errors_of_a_queue_are_errors() {
    fn message<'a>(error: impl Error + 'a) -> String {
        error.to_string()
    }
    let not_debug = std::thread::current; // items need not be `Debug`
    assert_eq!(message(QueueFull::ForNow(not_debug)), "the queue has no room");
    assert_eq!(message(QueueClosed(not_debug)), "the queue is closed");
    assert_eq!(message(QueueEmpty::ForNow), "the queue is empty");
}

// ---------------------------------------------------------------------------------------------
// Foreign code
// ---------------------------------------------------------------------------------------------

/// A loop on which `body` runs, and what is reported meanwhile.
fn reported<F: Future>(body: impl FnOnce() -> F) -> Vec<String> {
    let diary = Diary::new();
    let io_loop = diary.exceptions_of(IoLoop::builder().virtual_time()).build().unwrap();
    io_loop.run_sync_timeout(seconds(1), body).unwrap();
    diary.read()
}

#[test]
fn a_waker_that_panics_keeps_nobody_from_hearing_that_a_queue_is_closed() {
    let told = reported(async || {
        let (empty, full) = (Queue::<u8>::new(0), Queue::new(1));
        full.put_nowait(0).unwrap();
        let mut getter = Box::pin(empty.get());
        let mut putter = Box::pin(full.put(1));
        assert!(poll_for(&mut getter, &panicking_waker()).is_pending());
        assert!(poll_for(&mut putter, &panicking_waker()).is_pending());
        let (gets, puts) = (start(empty.get()), start(full.put(2)));
        empty.close();
        full.close();
        assert!(gets.await.is_err());
        assert_eq!(puts.await.unwrap_err().0, 2);
    });
    assert_eq!(told, ["panicked: a waker"; 2]);
}

#[test]
fn a_getter_whose_waker_panics_hands_its_item_on() {
    let told = reported(async || {
        let queue = Queue::new(0);
        let mut foreign = Box::pin(queue.get());
        assert!(poll_for(&mut foreign, &panicking_waker()).is_pending());
        let other = start(queue.get());
        queue.put_nowait(1).unwrap();
        drop(foreign);
        assert_eq!(other.await, Ok(1));
    });
    assert_eq!(told, ["panicked: a waker"]);
}

#[test]
fn items_whose_destructors_panic_are_dropped_all_the_same() {
    fn all_of<S: Store<Item = Keyed>>() {
        let dropped = Arc::new(AtomicUsize::new(0));
        let item = || Keyed(Bomb(dropped.clone()));
        let told = reported(async || {
            let queue = QueueOver::<S>::new(2);
            assert!(queue.put_nowait(item()).is_ok() && queue.put_nowait(item()).is_ok());
            // One that waits for room, and one that was never polled.
            let mut waiting = Box::pin(queue.put(item()));
            assert!(poll(&mut waiting).is_pending());
            drop(waiting);
            drop(queue.put(item()));
            assert_eq!(dropped.load(Relaxed), 2);
            drop(queue);
        });
        assert_eq!((dropped.load(Relaxed), told), (4, vec!["panicked: a destructor".into(); 4]));
    }
    all_of::<Fifo<Keyed>>();
    all_of::<Lifo<Keyed>>();
    all_of::<Priority<Keyed>>();
}

/// All are equal.
struct Keyed(#[expect(dead_code)] Bomb);

impl PartialEq for Keyed {
    fn eq(&self, _: &Keyed) -> bool {
        true
    }
}

impl Eq for Keyed {}

impl PartialOrd for Keyed {
    fn partial_cmp(&self, other: &Keyed) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Keyed {
    fn cmp(&self, _: &Keyed) -> Ordering {
        Ordering::Equal
    }
}

/// Compared by its number, after what its order does besides.
#[derive(Clone)]
struct Ranked(u32, Rc<dyn Fn()>);

impl PartialEq for Ranked {
    fn eq(&self, other: &Ranked) -> bool {
        self.0 == other.0
    }
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Ranked) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Ranked) -> Ordering {
        (self.1)();
        self.0.cmp(&other.0)
    }
}

fn numbers(queue: &PriorityQueue<Ranked>) -> Vec<u32> {
    drain(queue).into_iter().map(|Ranked(n, _)| n).collect()
}

#[test]
fn an_order_may_look_at_its_queue() {
    let queue = PriorityQueue::new(9);
    let sizes = Rc::new(RefCell::new(Vec::new()));
    let looks: Rc<dyn Fn()> = Rc::new({
        let (queue, sizes) = (queue.clone(), sizes.clone());
        move || {
            sizes.borrow_mut().push(queue.qsize());
            assert!(!queue.is_empty() && !queue.is_full());
            assert!(format!("{queue:?}").contains("maxsize: 9"));
        }
    });
    for n in [3, 1, 2] {
        queue.put_nowait(Ranked(n, looks.clone())).unwrap();
    }
    assert_eq!((numbers(&queue), queue.qsize()), (vec![1, 2, 3], 0));
    assert!(sizes.borrow().iter().all(|size| (1..=3).contains(size)), "{sizes:?}");
}

#[test]
fn an_order_may_use_its_queue() {
    let queue = PriorityQueue::new(0);
    let quiet: Rc<dyn Fn()> = Rc::new(|| ());
    let once = Rc::new(Cell::new(3_u32));
    let uses: Rc<dyn Fn()> = Rc::new({
        let (queue, quiet) = (queue.clone(), quiet.clone());
        move || {
            if let Some(left) = once.get().checked_sub(1) {
                once.set(left);
                queue.put_nowait(Ranked(10 + left, quiet.clone())).unwrap();
                // What it has put, or nothing: the others are being compared.
                if left == 1 {
                    let _ = queue.get_nowait();
                }
            }
        }
    });
    for n in [3, 1, 2] {
        queue.put_nowait(Ranked(n, uses.clone())).unwrap();
    }
    let size = queue.qsize();
    let got = numbers(&queue);
    assert_eq!((got.len(), &got[..3]), (size, &[1, 2, 3][..]));
    assert!(got.is_sorted() && size == 5, "{got:?}");
}

#[test]
fn who_begins_to_get_while_items_are_compared_gets_one() {
    let told = reported(async || {
        let queue = PriorityQueue::new(0);
        let getter: Rc<RefCell<Option<Coroutine<_>>>> = Rc::default();
        let gets: Rc<dyn Fn()> = Rc::new({
            let (queue, getter) = (queue.clone(), getter.clone());
            let begun = Cell::new(false);
            move || {
                if queue.qsize() == 3 && !begun.replace(true) {
                    let got = start(queue.get());
                    assert!(!got.done());
                    *getter.borrow_mut() = Some(got);
                }
            }
        });
        for n in [3, 1] {
            queue.put_nowait(Ranked(n, gets.clone())).unwrap();
        }
        queue.put_nowait(Ranked(2, gets.clone())).unwrap();
        let got = getter.take().expect("it was compared").await.ok().map(|item| item.0);
        assert_eq!((got, numbers(&queue)), (Some(1), vec![2, 3]));
    });
    assert!(told.is_empty(), "{told:?}");
}

/// What an order does at its next comparisons, one after the other.
#[derive(Clone, Default)]
struct Orders(Rc<RefCell<VecDeque<Order>>>);

type Order = Box<dyn FnOnce()>;

impl Orders {
    fn next(&self, order: impl FnOnce() + 'static) {
        self.0.borrow_mut().push_back(Box::new(order));
    }

    fn item(&self, n: u32) -> Ranked {
        let orders = self.clone();
        Ranked(
            n,
            Rc::new(move || {
                let order = orders.0.borrow_mut().pop_front();
                order.into_iter().for_each(|order| order());
            }),
        )
    }
}

#[test]
fn who_begins_to_get_while_another_gets_is_not_left_waiting() {
    let told = reported(async || {
        let (queue, orders) = (PriorityQueue::new(0), Orders::default());
        (1..=4).for_each(|n| queue.put_nowait(orders.item(n)).unwrap());
        let getter: Rc<RefCell<Option<Coroutine<_>>>> = Rc::default();
        orders.next({
            let (queue, getter) = (queue.clone(), getter.clone());
            move || {
                let got = start(queue.get());
                assert!(!got.done());
                *getter.borrow_mut() = Some(got);
            }
        });
        assert_eq!(queue.get_nowait().ok().map(|item| item.0), Some(1));
        let got = getter.take().expect("it was compared").await.ok().map(|item| item.0);
        assert_eq!((got, numbers(&queue)), (Some(2), vec![3, 4]));
    });
    assert!(told.is_empty(), "{told:?}");
}

#[test]
fn who_stops_getting_while_items_are_compared_loses_none() {
    let told = reported(async || {
        let (queue, orders) = (PriorityQueue::new(0), Orders::default());
        (1..=3).for_each(|n| queue.put_nowait(orders.item(n)).unwrap());
        let getter: Rc<RefCell<Option<Coroutine<_>>>> = Rc::default();
        // While it is put, and then while it is found for whom.
        orders.next({
            let (queue, getter) = (queue.clone(), getter.clone());
            move || *getter.borrow_mut() = Some(start(queue.get()))
        });
        orders.next({
            let getter = getter.clone();
            move || getter.take().expect("it waits").cancel()
        });
        queue.put_nowait(orders.item(4)).unwrap();
        assert!(getter.borrow().is_none() && orders.0.borrow().is_empty());
        assert_eq!(numbers(&queue), [1, 2, 3, 4]);
    });
    assert!(told.is_empty(), "{told:?}");
}

#[test]
fn an_order_that_panics_loses_no_item_and_is_reported() {
    let panics = Rc::new(Cell::new(false));
    let told = reported(async || {
        let queue = PriorityQueue::new(0);
        let order: Rc<dyn Fn()> = Rc::new({
            let panics = panics.clone();
            move || assert!(!panics.get(), "an order")
        });
        let item = |n| Ranked(n, order.clone());
        for n in [3, 1, 2, 5] {
            queue.put_nowait(item(n)).unwrap();
        }
        panics.set(true);
        queue.put_nowait(item(4)).unwrap();
        let first = queue.get_nowait().unwrap();
        panics.set(false);
        let mut all = numbers(&queue);
        all.push(first.0);
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3, 4, 5]);
        // Also if it is a getter's coroutine that is woken, or a putter whose item is let in.
        let full = PriorityQueue::new(2);
        full.put_nowait(item(1)).unwrap();
        full.put_nowait(item(2)).unwrap();
        let putter = start(full.put(item(3)));
        panics.set(true);
        assert!(full.get_nowait().is_ok());
        panics.set(false);
        putter.await.ok().unwrap();
        assert_eq!(numbers(&full).len(), 2);
    });
    assert!(told.len() > 1 && told.iter().all(|told| told == "panicked: an order"), "{told:?}");
}
