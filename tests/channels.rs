//! Channels between coroutines of one thread: what arrives and in which order, who learns that the other side
//! has gone, and what becomes of values whose sender or receiver stops half way.

mod common;

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::Poll;

use common::{
    Bomb, Diary, one_turn, panic_of, panicking_waker, poll, poll_acting_when_cloned, poll_for,
    seconds, virtual_loop,
};
use futures::future::FusedFuture;
use futures::stream::FusedStream;
use futures::{FutureExt, SinkExt, StreamExt, select, stream};
use waker_fn::waker_fn;
use waterspout::channels::{
    RecvError, SendError, TryRecvError, TrySendError, broadcast, mpsc, oneshot, watch,
};
use waterspout::coroutine::{moment, sleep, spawn, start, with_timeout};
use waterspout::{Coroutine, IoLoop};

/// What the loop is told of while `body` runs.
fn reported<F: Future>(body: impl FnOnce() -> F) -> Vec<String> {
    let diary = Diary::new();
    let io_loop = diary.exceptions_of(IoLoop::builder().virtual_time()).build().unwrap();
    io_loop.run_sync_timeout(seconds(1), body).unwrap();
    diary.read()
}

thread_local! {
    /// What a waker does to a channel, for wakers have to be `Send`.
    static ACT: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

/// Polls once, by a waker that runs `act` when it is first woken.
fn poll_acting_when_woken<F: Future + Unpin>(
    future: &mut F,
    act: impl FnOnce() + 'static,
) -> Poll<F::Output> {
    ACT.set(Some(Box::new(act)));
    poll_for(future, &waker_fn(|| ACT.take().into_iter().for_each(|act| act())))
}

// mpsc

#[waterspout::test(virtual_time)]
async fn mpsc_items_arrive_in_order_and_the_end_after_them() {
    let (sender, mut receiver) = mpsc::channel(2);
    let sending = spawn(async move {
        for n in 0..100 {
            sender.send(n).await.unwrap();
        }
    });
    for n in 0..100 {
        assert_eq!(receiver.recv().await, Some(n));
    }
    assert_eq!(receiver.recv().await, None);
    assert_eq!(receiver.recv().await, None);
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
    sending.await;
}

#[test]
fn an_mpsc_receiver_gets_what_is_left_when_the_last_sender_has_gone() {
    let (sender, mut receiver) = mpsc::channel(2);
    let other = sender.clone();
    sender.try_send(1).unwrap();
    drop(sender);
    assert!(!receiver.is_closed());
    other.try_send(2).unwrap();
    drop(other);
    assert!(receiver.is_closed() && !receiver.is_terminated());
    assert_eq!((receiver.try_recv(), receiver.try_recv()), (Ok(1), Ok(2)));
    assert!(receiver.is_terminated());
    assert_eq!(receiver.recv().now_or_never(), Some(None));
}

#[test]
fn an_mpsc_receiver_that_waits_hears_that_the_last_sender_has_gone() {
    let (sender, mut receiver) = mpsc::channel::<u8>(1);
    let mut waiting = receiver.recv();
    assert!(poll(&mut waiting).is_pending());
    let other = sender.clone();
    drop(sender);
    assert!(poll(&mut waiting).is_pending());
    drop(other);
    assert_eq!(poll(&mut waiting), Poll::Ready(None));
}

#[test]
fn a_full_mpsc_holds_its_senders_back_in_order() {
    let (sender, mut receiver) = mpsc::channel(1);
    sender.try_send(0).unwrap();
    assert_eq!(sender.try_send(9), Err(TrySendError::Full(9)));
    let mut waiting = [1, 2, 3].map(|n| sender.send(n));
    assert!(waiting.iter_mut().all(|send| poll(send).is_pending()));
    for (n, send) in waiting.iter_mut().enumerate() {
        assert_eq!(receiver.try_recv(), Ok(n));
        assert_eq!(poll(send), Poll::Ready(Ok(())));
        assert_eq!(sender.try_send(9), Err(TrySendError::Full(9)), "not past those who wait");
    }
    assert_eq!(receiver.try_recv(), Ok(3));
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
}

#[test]
fn an_mpsc_receiver_that_goes_gives_senders_their_items_back() {
    let (sender, receiver) = mpsc::channel(1);
    let in_it = Rc::new(1);
    sender.try_send(in_it.clone()).unwrap();
    let mut waiting = [2, 3].map(|n| sender.send(Rc::new(n)));
    assert!(waiting.iter_mut().all(|send| poll(send).is_pending()));
    let mut closed = sender.closed();
    assert!(poll(&mut closed).is_pending() && !sender.is_closed());
    drop(receiver);
    assert_eq!(Rc::strong_count(&in_it), 1, "what was not received is not kept for senders");
    for (n, send) in (2..).zip(&mut waiting) {
        assert_eq!(poll(send), Poll::Ready(Err(SendError(Rc::new(n)))));
    }
    assert!(poll(&mut closed).is_ready() && sender.is_closed());
    assert_eq!(sender.try_send(in_it.clone()), Err(TrySendError::Closed(in_it.clone())));
    assert_eq!(sender.send(in_it.clone()).now_or_never(), Some(Err(SendError(in_it))));
}

#[test]
fn what_is_in_a_closed_mpsc_can_be_received_and_no_more_comes() {
    let (sender, mut receiver) = mpsc::channel(1);
    sender.try_send(1).unwrap();
    let mut waiting = sender.send(2);
    assert!(poll(&mut waiting).is_pending());
    receiver.close();
    assert!(sender.is_closed() && receiver.is_closed());
    assert_eq!(poll(&mut waiting), Poll::Ready(Err(SendError(2))));
    assert_eq!(sender.try_send(3), Err(TrySendError::Closed(3)));
    assert_eq!(receiver.recv().now_or_never(), Some(Some(1)));
    assert_eq!(receiver.recv().now_or_never(), Some(None));
}

#[test]
fn a_send_that_waits_is_a_sender() {
    let (sender, mut receiver) = mpsc::channel(1);
    sender.try_send(1).unwrap();
    let mut waiting = sender.send(2);
    assert!(poll(&mut waiting).is_pending());
    drop(sender);
    assert!(!receiver.is_closed());
    assert_eq!(receiver.try_recv(), Ok(1));
    assert_eq!(poll(&mut waiting), Poll::Ready(Ok(())));
    assert!(receiver.is_closed(), "it has sent");
    assert_eq!(receiver.try_recv(), Ok(2));
    // One that stops half way is none any more.
    let (sender, mut receiver) = mpsc::channel::<u8>(1);
    let send = sender.send(3);
    drop(sender);
    let mut waiting = receiver.recv();
    assert!(poll(&mut waiting).is_pending());
    drop(send);
    assert_eq!(poll(&mut waiting), Poll::Ready(None));
}

#[test]
fn what_a_dropped_recv_had_got_is_received_by_the_next() {
    let (sender, mut receiver) = mpsc::channel(1);
    let mut woken = receiver.recv();
    assert!(poll(&mut woken).is_pending());
    sender.try_send(1).unwrap(); // it is the receiver's who waits
    sender.try_send(2).unwrap();
    drop(woken);
    assert_eq!(receiver.len(), 2);
    assert_eq!(receiver.try_recv(), Ok(1));
    assert_eq!(receiver.recv().now_or_never(), Some(Some(2)));
    // The same of one that was begun by a poll function.
    assert!(poll(&mut receiver.next()).is_pending());
    sender.try_send(3).unwrap();
    assert_eq!(receiver.recv().now_or_never(), Some(Some(3)));
    assert!(poll(&mut receiver.next()).is_pending());
    let item = Rc::new(());
    let (sender, mut receiver) = mpsc::channel(1);
    assert!(poll(&mut receiver.next()).is_pending());
    sender.try_send(item.clone()).unwrap();
    drop(receiver);
    assert_eq!(Rc::strong_count(&item), 1, "it is not kept for a sender");
}

#[test]
fn a_dropped_send_is_not_sent_and_one_that_had_room_is() {
    let (sender, mut receiver) = mpsc::channel(1);
    sender.try_send(0).unwrap();
    let mut waiting = [1, 2, 3].map(|n| Some(sender.send(n)));
    assert!(waiting.iter_mut().flatten().all(|send| poll(send).is_pending()));
    waiting[0] = None;
    assert_eq!(receiver.try_recv(), Ok(0));
    waiting[1] = None; // its item is in
    assert_eq!((receiver.try_recv(), receiver.try_recv()), (Ok(2), Ok(3)));
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
}

#[test]
fn an_mpsc_tells_how_much_is_in_it_and_an_unbounded_one_has_always_room() {
    let (sender, mut receiver) = mpsc::channel(2);
    assert_eq!((sender.max_capacity(), sender.capacity(), receiver.len()), (2, 2, 0));
    sender.try_send(1).unwrap();
    assert_eq!((sender.capacity(), receiver.len(), receiver.is_empty()), (1, 1, false));
    receiver.try_recv().unwrap();
    assert!(receiver.is_empty());
    assert_eq!(mpsc::channel::<u8>(0).0.max_capacity(), 1, "at least one");
    let (sender, receiver) = mpsc::unbounded();
    for n in 0..10_000 {
        assert_eq!(sender.send(n).now_or_never(), Some(Ok(())));
    }
    assert_eq!((sender.max_capacity(), receiver.len()), (usize::MAX, 10_000));
}

#[waterspout::test(virtual_time)]
async fn an_mpsc_is_a_stream_and_its_senders_are_sinks() {
    let (sender, receiver) = mpsc::channel(1);
    let feeds = sender.clone();
    let one = spawn(async move { stream::iter(0..5).map(Ok).forward(feeds).await });
    let two = spawn(async move { stream::iter(5..10).map(Ok).forward(sender).await });
    let mut received: Vec<i32> = receiver.collect().await;
    received.sort();
    assert!(received.into_iter().eq(0..10));
    assert_eq!((one.await, two.await), (Ok(()), Ok(())));
    let (mut sender, receiver) = mpsc::channel(1);
    sender.send(1).await.unwrap();
    sender.feed(2).await.unwrap();
    drop(receiver);
    assert_eq!(sender.flush().await, Err(SendError(2)));
    assert_eq!(SinkExt::send(&mut sender, 3).await, Err(SendError(3)));
    SinkExt::close(&mut sender).await.unwrap();
}

#[waterspout::test(virtual_time)]
async fn who_receives_what_he_sends_himself_does_not_keep_others_from_running() {
    let rounds = Rc::new(Cell::new(0u64));
    let busy = |work: fn() -> futures::future::LocalBoxFuture<'static, ()>| {
        let rounds = rounds.clone();
        start(async move {
            loop {
                work().await;
                rounds.set(rounds.get() + 1);
            }
        })
    };
    let all: [Coroutine<()>; 5] = [
        busy(|| {
            Box::pin(async {
                let (sender, mut receiver) = mpsc::channel(1);
                sender.send(()).await.unwrap();
                receiver.recv().await.unwrap();
            })
        }),
        busy(|| {
            Box::pin(async {
                let (sender, receiver) = oneshot::channel();
                sender.send(()).unwrap();
                receiver.await.unwrap();
            })
        }),
        busy(|| {
            Box::pin(async {
                let (sender, mut receiver) = watch::channel(());
                sender.send(()).unwrap();
                receiver.changed().await.unwrap();
            })
        }),
        busy(|| {
            Box::pin(async {
                let (_sender, mut receiver) = watch::channel(());
                receiver.wait_for(|()| true).await.unwrap();
            })
        }),
        busy(|| {
            Box::pin(async {
                let (sender, mut receiver) = broadcast::channel(1);
                sender.send(()).unwrap();
                receiver.recv().await.unwrap();
            })
        }),
    ];
    let before = rounds.get();
    moment().await;
    moment().await;
    assert!(before > 0 && rounds.get() > before);
    all.iter().for_each(Coroutine::cancel);
}

// oneshot

#[waterspout::test(virtual_time)]
async fn a_oneshot_takes_one_value_from_one_coroutine_to_another() {
    struct NotClone(#[expect(dead_code, reason = "it makes it not Send, either")] Rc<()>);
    let (sender, receiver) = oneshot::channel();
    let gives = spawn(async move {
        sleep(seconds(1)).await;
        sender.send(NotClone(Rc::new(()))).map_err(drop)
    });
    assert!(receiver.await.is_ok());
    assert_eq!(gives.await, Ok(()));
}

#[test]
fn a_oneshot_whose_sender_has_gone_gives_an_error() {
    let (sender, mut receiver) = oneshot::channel::<u8>();
    assert!(poll(&mut receiver).is_pending());
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
    drop(sender);
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
    assert!(!receiver.is_terminated(), "it has not said so yet");
    assert_eq!(poll(&mut receiver), Poll::Ready(Err(RecvError)));
    assert!(receiver.is_terminated());
    assert_eq!(poll(&mut receiver), Poll::Ready(Err(RecvError)), "and again");
}

#[test]
fn a_oneshot_whose_receiver_has_gone_gives_the_value_back() {
    let (sender, receiver) = oneshot::channel();
    let mut closed = sender.closed();
    assert!(!sender.is_closed() && poll(&mut closed).is_pending());
    drop(receiver);
    assert!(sender.is_closed() && poll(&mut closed).is_ready());
    assert_eq!(sender.send(7), Err(7));
    // What was sent and not received goes with the receiver.
    let (sender, receiver) = oneshot::channel();
    let value = Rc::new(());
    sender.send(value.clone()).unwrap();
    drop(receiver);
    assert_eq!(Rc::strong_count(&value), 1);
}

#[test]
fn what_was_sent_before_a_oneshot_was_closed_is_received() {
    let (sender, mut receiver) = oneshot::channel();
    sender.send(1).unwrap();
    receiver.close();
    assert_eq!(receiver.now_or_never(), Some(Ok(1)));
    let (sender, mut receiver) = oneshot::channel();
    receiver.close();
    assert_eq!((sender.is_closed(), sender.send(2)), (true, Err(2)));
    assert_eq!(receiver.now_or_never(), Some(Err(RecvError)));
}

#[waterspout::test(virtual_time)]
async fn a_oneshot_goes_on_after_a_time_limit_and_within_a_select() {
    let (sender, mut receiver) = oneshot::channel();
    assert!(with_timeout(seconds(1), &mut receiver).await.is_err());
    sender.send(1).unwrap(); // to the one that had waited
    let (gone, mut other) = oneshot::channel::<u8>();
    drop(gone);
    let mut seen = Vec::new();
    for _ in 0..2 {
        select! {
            value = receiver => seen.push(value),
            value = other => seen.push(value),
        }
    }
    seen.sort_by_key(Result::is_err);
    assert_eq!(seen, [Ok(1), Err(RecvError)]);
}

// watch

#[waterspout::test(virtual_time)]
async fn a_watch_tells_each_receiver_once_of_the_latest_value() {
    let (sender, mut receiver) = watch::channel(0);
    assert_eq!((receiver.has_changed(), *receiver.borrow()), (Ok(false), 0));
    let follows = |mut receiver: watch::Receiver<i32>| {
        start(async move {
            let mut seen = Vec::new();
            while receiver.changed().await.is_ok() {
                seen.push(*receiver.borrow());
            }
            seen
        })
    };
    let [one, two] = [follows(receiver.clone()), follows(sender.subscribe())];
    sender.send(1).unwrap();
    sender.send(2).unwrap();
    moment().await;
    sender.send(2).unwrap(); // an equal one is new all the same
    assert_eq!(receiver.has_changed(), Ok(true));
    assert_eq!((*receiver.borrow(), receiver.has_changed()), (2, Ok(true)));
    assert_eq!((*receiver.borrow_and_update(), receiver.has_changed()), (2, Ok(false)));
    let mut late = sender.subscribe();
    assert_eq!(late.has_changed(), Ok(false), "what was there is seen");
    sender.send(3).unwrap();
    drop(sender);
    assert_eq!((one.await, two.await), (vec![2, 3], vec![2, 3]));
    // The last value is told of, and then the end.
    assert_eq!((receiver.has_changed(), receiver.changed().await), (Ok(true), Ok(())));
    assert_eq!(
        (receiver.has_changed(), receiver.changed().await),
        (Err(RecvError), Err(RecvError))
    );
    assert_eq!((*receiver.borrow(), *late.borrow_and_update()), (3, 3));
}

#[test]
fn a_watch_without_receivers_refuses_unless_it_is_told_not_to() {
    let (sender, receiver) = watch::channel(1);
    let mut closed = sender.closed();
    assert_eq!((sender.receiver_count(), sender.is_closed()), (1, false));
    let other = receiver.clone();
    drop(receiver);
    assert!(poll(&mut closed).is_pending());
    drop(other);
    assert!(poll(&mut closed).is_ready() && sender.is_closed());
    assert_eq!((sender.send(2), *sender.borrow()), (Err(SendError(2)), 1));
    assert_eq!((*sender.send_replace(3), *sender.borrow()), (1, 3));
    let receiver = sender.subscribe();
    assert_eq!((sender.is_closed(), sender.receiver_count(), *receiver.borrow()), (false, 1, 3));
    assert!(poll(&mut sender.closed()).is_pending());
    sender.send(4).unwrap();
}

#[test]
fn what_a_watch_lent_stays_what_it_is() {
    #[derive(Debug, PartialEq)]
    struct NotClone(u8);
    let (sender, receiver) = watch::channel(NotClone(1));
    let before = receiver.borrow();
    sender.send(NotClone(2)).unwrap();
    assert_eq!((&*before, &*receiver.borrow()), (&NotClone(1), &NotClone(2)));

    thread_local!(static CLONED: Cell<u32> = const { Cell::new(0) });
    #[derive(Debug, PartialEq)]
    struct Counts(u8);
    impl Clone for Counts {
        fn clone(&self) -> Counts {
            CLONED.set(CLONED.get() + 1);
            Counts(self.0)
        }
    }
    let (sender, mut receiver) = watch::channel(Counts(1));
    sender.send_modify(|value| value.0 = 2);
    assert_eq!((CLONED.get(), receiver.has_changed()), (0, Ok(true)));
    let before = receiver.borrow_and_update();
    sender.send_modify(|value| value.0 = 3);
    assert_eq!((CLONED.get(), before.0, receiver.borrow().0), (1, 2, 3));
}

#[test]
fn a_watch_tells_of_what_was_modified_and_of_nothing_else() {
    let (sender, mut receiver) = watch::channel(1);
    let mut waiting = receiver.changed();
    assert!(poll(&mut waiting).is_pending());
    assert!(!sender.send_if_modified(|_| false));
    assert!(poll(&mut waiting).is_pending());
    assert!(sender.send_if_modified(|value| {
        *value += 1;
        true
    }));
    assert_eq!(poll(&mut waiting), Poll::Ready(Ok(())));
    drop(waiting);
    assert_eq!(*receiver.borrow(), 2);
}

#[test]
fn a_watch_that_is_used_while_it_is_modified_says_what_is_wrong_and_stays_whole() {
    let (sender, receiver) = watch::channel(1);
    let uses: [&dyn Fn(); 5] = [
        &|| drop(receiver.borrow()),
        &|| drop(sender.borrow()),
        &|| sender.send(2).unwrap(),
        &|| sender.send_modify(|value| *value = 2),
        &|| panic!("its own send_modify"), // whatever it panics with
    ];
    for within in uses {
        let message = panic_of(|| {
            sender.send_modify(|value| {
                *value += 10;
                within();
            })
        });
        assert!(message.contains("its own send_modify"), "{message}");
        assert_eq!(receiver.has_changed(), Ok(false));
    }
    assert_eq!(*receiver.borrow(), 51);
    sender.send(3).unwrap();
    assert_eq!((*receiver.borrow(), receiver.has_changed()), (3, Ok(true)));
}

#[waterspout::test(virtual_time)]
async fn a_watch_waits_for_a_value_of_some_kind() {
    let (sender, mut receiver) = watch::channel(1);
    assert_eq!(*receiver.wait_for(|n| *n == 1).await.unwrap(), 1, "also if it was seen");
    let mut asked = Vec::new();
    let mut waits = receiver.wait_for(|n| {
        asked.push(*n);
        *n > 3
    });
    for n in [2, 3] {
        assert!(poll(&mut waits).is_pending());
        sender.send(n).unwrap();
        sender.send(n + 1).unwrap();
    }
    assert_eq!(waits.await.map(|n| *n), Ok(4));
    assert_eq!(asked, [1, 3, 4]);
    assert_eq!(receiver.has_changed(), Ok(false));
    sender.send(5).unwrap();
    drop(sender);
    assert_eq!(receiver.wait_for(|n| *n == 5).await.map(|n| *n), Ok(5));
    assert_eq!(receiver.wait_for(|n| *n == 6).await, Err(RecvError));
}

#[test]
fn the_question_of_a_watch_may_send_and_drop_senders() {
    let (sender, mut receiver) = watch::channel(0);
    let sender = Cell::new(Some(sender));
    let mut waits = receiver.wait_for(|n| {
        if let Some(sender) = sender.take() {
            sender.send(*n + 1).unwrap();
            sender.send_modify(|n| *n += 1);
        }
        *n == 2
    });
    assert_eq!(poll(&mut waits), Poll::Ready(Ok(Rc::new(2))));
}

#[test]
fn a_change_that_a_dropped_future_was_woken_for_is_not_seen() {
    let (sender, mut receiver) = watch::channel(0);
    let mut waiting = receiver.changed();
    assert!(poll(&mut waiting).is_pending());
    sender.send(1).unwrap();
    drop(waiting);
    assert_eq!(receiver.has_changed(), Ok(true));
    assert_eq!(receiver.changed().now_or_never(), Some(Ok(())));
}

// broadcast

#[waterspout::test(virtual_time)]
async fn a_broadcast_gives_each_value_to_each_receiver_and_then_the_end() {
    let (sender, receiver) = broadcast::channel(4);
    let receives = |mut receiver: broadcast::Receiver<i32>| {
        start(async move {
            let mut received = Vec::new();
            while let Ok(value) = receiver.recv().await {
                received.push(value);
            }
            assert_eq!(receiver.recv().await, Err(broadcast::RecvError::Closed));
            assert_eq!(receiver.try_recv(), Err(broadcast::TryRecvError::Closed));
            received
        })
    };
    let [one, two] = [receives(receiver), receives(sender.subscribe())];
    assert_eq!((sender.send(1), sender.send(2)), (Ok(2), Ok(2)));
    let late = receives(sender.subscribe());
    moment().await;
    assert_eq!((sender.send(3), sender.receiver_count()), (Ok(3), 3));
    drop(sender);
    assert_eq!((one.await, two.await, late.await), (vec![1, 2, 3], vec![1, 2, 3], vec![3]));
}

#[test]
fn a_receiver_that_is_too_slow_is_told_how_many_it_has_missed() {
    use broadcast::TryRecvError::{Empty, Lagged};
    let (sender, mut slow) = broadcast::channel(2);
    let mut fast = sender.subscribe();
    for n in 0..5 {
        sender.send(n).unwrap();
        assert_eq!(fast.try_recv(), Ok(n));
    }
    assert_eq!([slow.try_recv(), slow.try_recv()], [Err(Lagged(3)), Ok(3)]);
    assert_eq!([slow.try_recv(), slow.try_recv()], [Ok(4), Err(Empty)]);
    assert_eq!(fast.try_recv(), Err(Empty));
    sender.send(5).unwrap();
    sender.send(6).unwrap();
    sender.send(7).unwrap();
    let lagged = broadcast::RecvError::Lagged(1);
    assert_eq!(fast.recv().now_or_never(), Some(Err(lagged)));
    drop(sender);
    assert_eq!([fast.try_recv(), fast.try_recv()], [Ok(6), Ok(7)]);
    assert_eq!(slow.recv().now_or_never(), Some(Err(lagged)));
    let (sender, mut receiver) = broadcast::channel(0);
    sender.send(1).unwrap();
    assert_eq!(receiver.try_recv(), Ok(1), "room for one at least");
}

#[test]
fn a_broadcast_keeps_a_value_no_longer_than_somebody_is_to_have_it() {
    let (sender, mut one) = broadcast::channel(8);
    let mut two = sender.subscribe();
    let value = Rc::new(());
    let kept = || Rc::strong_count(&value) - 1;
    for _ in 0..3 {
        sender.send(value.clone()).unwrap();
    }
    drop((one.try_recv().unwrap(), one.try_recv().unwrap()));
    assert_eq!(kept(), 3);
    drop(two.try_recv().unwrap());
    assert_eq!(kept(), 2);
    drop(two);
    assert_eq!(kept(), 1, "the one that the other has not had, either");
    drop(one);
    assert_eq!(kept(), 0);
    assert_eq!(sender.send(value.clone()), Err(SendError(value.clone())));
    let mut late = sender.subscribe();
    sender.send(value.clone()).unwrap();
    assert!(late.try_recv().is_ok() && late.try_recv().is_err());
}

#[test]
fn a_broadcast_clones_a_value_for_all_but_the_last() {
    thread_local!(static CLONED: Cell<u32> = const { Cell::new(0) });
    #[derive(Debug)]
    struct Counts;
    impl Clone for Counts {
        fn clone(&self) -> Counts {
            CLONED.set(CLONED.get() + 1);
            Counts
        }
    }
    let (sender, mut one) = broadcast::channel(1);
    let (mut two, mut three) = (sender.subscribe(), sender.subscribe());
    sender.send(Counts).unwrap();
    for (n, receiver) in [&mut one, &mut two, &mut three].into_iter().enumerate() {
        assert_eq!(CLONED.get() as usize, n);
        receiver.try_recv().unwrap();
    }
    assert_eq!(CLONED.get(), 2);
}

#[test]
fn the_sender_of_a_broadcast_hears_that_nobody_receives() {
    let (sender, receiver) = broadcast::channel::<u8>(1);
    let mut closed = sender.closed();
    let other = sender.subscribe();
    drop(receiver);
    assert!(poll(&mut closed).is_pending());
    drop(other);
    assert!(poll(&mut closed).is_ready());
    let _again = sender.subscribe();
    assert!(poll(&mut sender.closed()).is_pending());
}

#[test]
fn a_value_that_a_dropped_recv_was_woken_for_is_received_by_the_next() {
    let (sender, mut receiver) = broadcast::channel(1);
    let mut waiting = receiver.recv();
    assert!(poll(&mut waiting).is_pending());
    sender.send(1).unwrap();
    drop(waiting);
    assert_eq!(receiver.recv().now_or_never(), Some(Ok(1)));
}

#[test]
fn a_clone_that_panics_in_a_broadcast_hits_who_receives_and_nobody_else() {
    #[derive(Debug, PartialEq)]
    struct Shy(u8);
    impl Clone for Shy {
        fn clone(&self) -> Shy {
            assert!(self.0 != 1, "not me");
            Shy(self.0)
        }
    }
    let (sender, mut one) = broadcast::channel(4);
    let mut two = sender.subscribe();
    sender.send(Shy(1)).unwrap();
    sender.send(Shy(2)).unwrap();
    assert_eq!(panic_of(|| one.recv().now_or_never()), "not me");
    assert_eq!(one.recv().now_or_never(), Some(Ok(Shy(2))), "it goes on with the next");
    assert_eq!((two.try_recv(), two.try_recv()), (Ok(Shy(1)), Ok(Shy(2))));
}

#[test]
fn a_clone_in_a_broadcast_may_use_it() {
    #[derive(Debug)]
    struct Curious(Rc<RefCell<Option<broadcast::Sender<Curious>>>>);
    impl Clone for Curious {
        fn clone(&self) -> Curious {
            // The last sender goes within.
            if let Some(sender) = self.0.take() {
                sender.send(Curious(self.0.clone())).unwrap();
                drop(sender.subscribe());
            }
            Curious(self.0.clone())
        }
    }
    let (sender, mut one) = broadcast::channel(1);
    let mut two = sender.subscribe();
    let shared = Rc::new(RefCell::new(None));
    sender.send(Curious(shared.clone())).unwrap();
    shared.replace(Some(sender));
    assert!(one.try_recv().is_ok());
    // It displaced the one that it is a clone of.
    assert!(matches!(two.try_recv(), Err(broadcast::TryRecvError::Lagged(1))));
    assert!(one.try_recv().is_ok() && two.try_recv().is_ok());
    assert!(matches!(two.try_recv(), Err(broadcast::TryRecvError::Closed)));
}

// Foreign code, and loops that are closed

#[test]
fn a_waker_that_panics_keeps_nobody_else_from_being_told() {
    let told = reported(async || {
        let (sender, mut receiver) = watch::channel(0);
        let mut other = receiver.clone();
        let mut foreign = receiver.changed();
        assert!(poll_for(&mut foreign, &panicking_waker()).is_pending());
        let waits = start(async move { other.changed().await });
        sender.send(1).unwrap();
        assert_eq!(waits.await, Ok(()));

        let (sender, mut receiver) = broadcast::channel(1);
        let mut other = sender.subscribe();
        let mut foreign = receiver.recv();
        assert!(poll_for(&mut foreign, &panicking_waker()).is_pending());
        let waits = start(async move { other.recv().await });
        sender.send(1).unwrap();
        assert_eq!((waits.await, poll(&mut foreign)), (Ok(1), Poll::Ready(Ok(1))));

        let (sender, receiver) = mpsc::channel(1);
        sender.try_send(0).unwrap();
        let mut foreign = sender.send(1);
        assert!(poll_for(&mut foreign, &panicking_waker()).is_pending());
        let mut hears = sender.closed();
        assert!(poll_for(&mut hears, &panicking_waker()).is_pending());
        let waits = start(sender.send(2));
        let closed = start(sender.closed());
        drop(receiver);
        closed.await;
        assert_eq!(waits.await, Err(SendError(2)));
    });
    assert_eq!(told, ["panicked: a waker"; 4]);
}

#[test]
fn a_waker_may_drop_the_other_end_and_use_its_own() {
    // The receiver is dropped as the item is given to it.
    let (sender, receiver) = mpsc::channel(1);
    let receiver = Rc::new(RefCell::new(receiver));
    let receives = receiver.clone();
    let mut waiting = futures::future::poll_fn(move |cx| receives.borrow_mut().poll_recv(cx));
    let receiver = Cell::new(Some(receiver));
    assert!(poll_acting_when_woken(&mut waiting, move || drop(receiver.take())).is_pending());
    sender.try_send(1).unwrap();
    assert_eq!(poll(&mut waiting), Poll::Ready(Some(1)));
    drop(waiting);
    assert_eq!(sender.try_send(2), Err(TrySendError::Closed(2)));

    // The last sender goes as it hears that the receiver has gone.
    let (sender, receiver) = mpsc::channel::<u8>(1);
    let mut closed = sender.closed();
    assert!(poll_acting_when_woken(&mut closed, move || drop(sender)).is_pending());
    drop(receiver);
    assert!(poll(&mut closed).is_ready());

    // A receiver of a watch and one of a broadcast send and go within their own wake.
    let (sender, receiver) = watch::channel(0);
    let mut other = sender.subscribe();
    let (again, mut waits) = (sender.clone(), other.changed());
    let act = move || {
        drop(receiver);
        again.send(2).unwrap();
    };
    assert!(poll_acting_when_woken(&mut waits, act).is_pending());
    sender.send(1).unwrap();
    assert_eq!(poll(&mut waits), Poll::Ready(Ok(())));
    drop(waits);
    assert_eq!((*other.borrow(), sender.receiver_count()), (2, 1));

    let (sender, receiver) = broadcast::channel(4);
    let mut other = sender.subscribe();
    let (again, mut waits) = (sender.clone(), other.recv());
    let act = move || {
        drop(receiver);
        again.send(2).unwrap();
    };
    assert!(poll_acting_when_woken(&mut waits, act).is_pending());
    sender.send(1).unwrap();
    assert_eq!(poll(&mut waits), Poll::Ready(Ok(1)));
    drop(waits);
    assert_eq!((other.try_recv(), sender.receiver_count()), (Ok(2), 1));
}

#[test]
fn a_waker_that_uses_the_channel_when_it_is_cloned_leaves_nobody_waiting() {
    let (sender, mut receiver) = mpsc::channel::<u8>(1);
    let goes = move || drop(sender);
    assert_eq!(poll_acting_when_cloned(&mut receiver.recv(), goes), Poll::Ready(None));

    let (sender, receiver) = mpsc::channel(1);
    sender.try_send(1).unwrap();
    let sent = poll_acting_when_cloned(&mut sender.send(2), move || drop(receiver));
    assert_eq!(sent, Poll::Ready(Err(SendError(2))));

    let (sender, mut receiver) = watch::channel(0);
    let mut waits = receiver.changed();
    let sends = move || sender.send(1).unwrap();
    assert_eq!(poll_acting_when_cloned(&mut waits, sends), Poll::Ready(Ok(())));

    let (sender, mut receiver) = broadcast::channel::<u8>(1);
    let mut waits = receiver.recv();
    let goes = move || drop(sender);
    let ended = Poll::Ready(Err(broadcast::RecvError::Closed));
    assert_eq!(poll_acting_when_cloned(&mut waits, goes), ended);
}

/// Sends one with one less into the channel that it was meant for, when it is dropped.
#[derive(Clone)]
struct Echo(u32, Rc<dyn Fn(Echo)>);

impl Drop for Echo {
    fn drop(&mut self) {
        if self.0 > 0 {
            (self.1)(Echo(self.0 - 1, self.1.clone()));
        }
    }
}

#[test]
fn destructors_of_values_may_send_into_their_channel() {
    let (sender, mut receiver) = mpsc::channel(2);
    let again = sender.clone();
    let send: Rc<dyn Fn(Echo)> = Rc::new(move |echo| drop(again.try_send(echo)));
    sender.try_send(Echo(3, send.clone())).ok().unwrap();
    sender.try_send(Echo(2, send.clone())).ok().unwrap();
    drop(receiver.try_recv());
    assert_eq!(receiver.len(), 2, "its echo is in");
    drop(receiver); // with two, whose echoes are refused
    assert!(sender.is_closed() && Rc::strong_count(&send) == 1);

    let (sender, receiver) = watch::channel(Echo(0, send));
    let again = sender.clone();
    let send: Rc<dyn Fn(Echo)> = Rc::new(move |echo| drop(again.send(echo)));
    sender.send(Echo(2, send.clone())).ok().unwrap();
    sender.send(Echo(0, send.clone())).ok().unwrap(); // replaced by the echo of the one before
    assert_eq!(receiver.borrow().0, 1);
    drop(receiver);
    drop(sender.send_replace(Echo(0, Rc::new(drop)))); // the echo is refused
    assert_eq!(Rc::strong_count(&send), 1);

    let (sender, mut receiver) = broadcast::channel(1);
    let again = sender.clone();
    let send: Rc<dyn Fn(Echo)> = Rc::new(move |echo| drop(again.send(echo)));
    sender.send(Echo(3, send.clone())).ok().unwrap();
    let other = sender.subscribe();
    sender.send(Echo(0, send.clone())).ok().unwrap(); // displaced by the echo of 3, which is 2
    assert!(matches!(receiver.try_recv(), Err(broadcast::TryRecvError::Lagged(2))));
    drop(receiver);
    assert_eq!(sender.receiver_count(), 1);
    drop(other); // with the echo, whose own is refused
    assert_eq!((sender.receiver_count(), Rc::strong_count(&send)), (0, 1));
}

#[test]
fn values_whose_destructors_panic_are_dropped_all_the_same() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let bomb = || Rc::new(Bomb(dropped.clone()));
    let told = reported(async || {
        let (sender, receiver) = mpsc::channel(2);
        sender.try_send(bomb()).unwrap();
        sender.try_send(bomb()).unwrap();
        drop(receiver);
        let (sender, receiver) = watch::channel(bomb());
        sender.send(bomb()).unwrap();
        drop((receiver, sender));
        let (sender, receiver) = broadcast::channel(2);
        for _ in 0..3 {
            sender.send(bomb()).unwrap();
        }
        drop(receiver);
    });
    assert_eq!((told, dropped.load(Relaxed)), (vec!["panicked: a destructor".into(); 7], 7));
}

#[test]
fn coroutines_that_wait_in_channels_end_with_their_loop() {
    let (io_loop, diary) = (virtual_loop(), Diary::new());
    let (full, mut items) = mpsc::channel(1);
    full.try_send(0).unwrap();
    let (empty, mut nothing) = mpsc::channel::<u8>(1);
    let (promises, promised) = oneshot::channel::<u8>();
    let (sets, mut watches) = watch::channel(0);
    let (tells, mut hears) = broadcast::channel::<u8>(1);
    let spawn = |name: &'static str, waits: futures::future::LocalBoxFuture<'static, ()>| {
        let end = diary.at_end(name);
        drop(io_loop.spawn(async move {
            waits.await;
            end.keep();
        }));
    };
    let send = full.send(1);
    spawn("sends", Box::pin(async { send.await.unwrap() }));
    spawn("receives", Box::pin(async move { assert!(nothing.recv().await.is_none()) }));
    spawn("has a promise", Box::pin(async move { promised.await.map(drop).unwrap() }));
    spawn("watches", Box::pin(async move { watches.changed().await.unwrap() }));
    spawn("hears", Box::pin(async move { hears.recv().await.map(drop).unwrap() }));
    one_turn(&io_loop);
    one_turn(&io_loop);
    io_loop.close();
    assert_eq!(diary.read(), ["sends", "receives", "has a promise", "watches", "hears"]);
    assert!(empty.is_closed() && promises.is_closed() && sets.is_closed());
    assert_eq!(tells.receiver_count(), 0);
    drop(full);
    assert_eq!([items.try_recv(), items.try_recv()], [Ok(0), Err(TryRecvError::Closed)]);
}

#[test]
fn a_cycle_through_an_item_ends_with_the_receiver() {
    struct Holds(#[expect(dead_code, reason = "it is only held")] mpsc::Sender<Holds>, Diary);
    impl Drop for Holds {
        fn drop(&mut self) {
            self.1.write("dropped");
        }
    }
    let diary = Diary::new();
    let (sender, receiver) = mpsc::channel(1);
    sender.try_send(Holds(sender.clone(), diary.clone())).ok().unwrap();
    drop(sender);
    drop(receiver);
    assert_eq!(diary.read(), ["dropped"]);
}

// What they say

#[test]
fn ends_say_who_waits_and_not_what_they_carry() {
    struct Unspeakable;
    let (sender, mut receiver) = mpsc::channel(3);
    sender.try_send(Unspeakable).ok().unwrap();
    drop(receiver.try_recv());
    assert!(poll(&mut receiver.next()).is_pending());
    let queue = "Queue { qsize: 0, maxsize: 3, getters: 1, putters: 0, unfinished_tasks: 1, is_closed: false }";
    assert_eq!(format!("{sender:?}"), format!("Sender {{ senders: 1, queue: {queue} }}"));
    assert_eq!(format!("{receiver:?}"), format!("Receiver {{ senders: 1, queue: {queue} }}"));
    let (sender, receiver) = oneshot::channel::<Unspeakable>();
    assert!(format!("{sender:?} {receiver:?}").contains("senders: 1"));
    let (sender, mut receiver) = watch::channel(Unspeakable);
    let other = receiver.clone();
    let waits = &mut receiver.changed();
    assert!(poll(waits).is_pending());
    assert_eq!(
        format!("{sender:?} {other:?}"),
        "Sender { senders: 1, receivers: 2, waiting: 1 } Receiver { senders: 1, receivers: 2, waiting: 1 }"
    );
    let (sender, receiver) = broadcast::channel::<u8>(1);
    assert_eq!(
        format!("{:?} {receiver:?}", sender.clone()),
        "Sender { senders: 2, receivers: 1, waiting: 0 } Receiver { senders: 2, receivers: 1, waiting: 0 }"
    );
}

#[test]
fn the_errors_of_channels_are_errors() {
    let all: [(&dyn Error, &str); 8] = [
        (&RecvError, "the sender has gone"),
        (&TryRecvError::Empty, "nothing has been sent yet"),
        (&TryRecvError::Closed, "the channel is closed and empty"),
        (&broadcast::RecvError::Closed, "the sender has gone"),
        (&broadcast::RecvError::Lagged(3), "too far behind: 3 were missed"),
        (&broadcast::TryRecvError::Empty, "nothing has been sent yet"),
        (&broadcast::TryRecvError::Closed, "the channel is closed and empty"),
        (&broadcast::TryRecvError::Lagged(3), "too far behind: 3 were missed"),
    ];
    for (error, text) in all {
        assert_eq!(error.to_string(), text);
    }
}
