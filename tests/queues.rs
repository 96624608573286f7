//! Queues: in which order what is put is got, who waits for whom, what becomes of items whose putter or
//! getter has gone, and when all is done.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures::{FutureExt, StreamExt};
use waterspout::queues::{
    LifoQueue, PriorityQueue, Queue, QueueClosed, QueueEmpty, QueueOver, Store,
};

/// Polls once, for nobody.
fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// All that can be got now.
fn drain<S: Store>(queue: &QueueOver<S>) -> Vec<S::Item> {
    std::iter::from_fn(|| queue.get_nowait().ok()).collect()
}

/// As many getters, in line.
fn getters<S: Store>(
    queue: &QueueOver<S>,
    n: usize,
) -> Vec<impl Future<Output = Result<S::Item, QueueClosed>> + Unpin + use<S>> {
    let mut getters: Vec<_> = (0..n).map(|_| queue.get()).collect();
    assert!(getters.iter_mut().all(|getter| poll(getter).is_pending()));
    getters
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
