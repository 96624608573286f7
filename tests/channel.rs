//! `concurrent::channel`: items between loops.

mod common;

use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use common::{Bomb, Diary, panicking_waker, poll_for};
use futures::stream::FusedStream;
use futures::{FutureExt, StreamExt};
use waterspout::concurrent::{Receiver, SendError, Sender, TrySendError, channel};
use waterspout::coroutine::{moment, sleep, spawn, start, with_timeout};
use waterspout::{Coroutine, IoLoop};

#[waterspout::test(virtual_time)]
async fn items_arrive_in_order_and_the_end_after_them() {
    let (sender, mut receiver) = channel(2);
    let sending = spawn(async move {
        for n in 0..100 {
            sender.send(n).await.unwrap();
        }
    });
    for n in 0..100 {
        assert_eq!(receiver.recv().await, Some(n));
    }
    assert_eq!(receiver.recv().await, None);
    sending.await;
}

#[waterspout::test(virtual_time)]
async fn a_full_channel_holds_its_senders_back_in_order() {
    let (sender, mut receiver) = channel(1);
    sender.send(0).await.unwrap();
    assert_eq!(sender.try_send(9), Err(TrySendError::Full(9)));
    for n in 1..=3 {
        let sender = sender.clone();
        spawn(async move { sender.send(n).await.unwrap() });
    }
    moment().await;
    assert_eq!(receiver.recv().await, Some(0));
    // There is room, but those who wait come first.
    assert_eq!(sender.try_send(9), Err(TrySendError::Full(9)));
    for n in 1..=3 {
        assert_eq!(receiver.recv().await, Some(n));
    }
    assert_eq!(sender.try_send(4), Ok(()));
    assert_eq!(receiver.try_recv(), Some(4));
    assert_eq!(receiver.try_recv(), None);
}

#[waterspout::test(virtual_time)]
async fn a_dropped_send_is_not_sent_and_lets_the_next_go_on() {
    let (sender, mut receiver) = channel(1);
    sender.send(0).await.unwrap();
    let second = sender.clone();
    let waiting = spawn(async move {
        let first = with_timeout(Duration::from_secs(1), second.send(1)).await;
        assert!(first.is_err());
    });
    moment().await;
    let third = sender.clone();
    let last = spawn(async move { third.send(2).await.unwrap() });
    moment().await;
    waiting.await;
    assert_eq!(receiver.recv().await, Some(0));
    assert_eq!(receiver.recv().await, Some(2));
    last.await;
    // One whose turn has come, and who is dropped before he takes it.
    sender.send(3).await.unwrap();
    let mut gone = Box::pin(sender.send(4));
    let mut stays = Box::pin(sender.send(5));
    assert!(gone.as_mut().now_or_never().is_none());
    assert!(stays.as_mut().now_or_never().is_none());
    assert_eq!(receiver.recv().await, Some(3));
    drop(gone);
    stays.await.unwrap();
    assert_eq!(receiver.recv().await, Some(5));
}

#[waterspout::test(virtual_time)]
async fn who_waits_for_room_is_woken_once_until_they_look() {
    let (sender, mut receiver) = channel(8);
    for n in 0..8 {
        sender.send(n).await.unwrap();
    }
    let woken = Arc::new(AtomicUsize::new(0));
    let counting = woken.clone();
    let waker = waker_fn::waker_fn(move || {
        counting.fetch_add(1, Relaxed);
    });
    let mut cx = Context::from_waker(&waker);
    let mut waiting = pin!(sender.send(8));
    assert!(waiting.as_mut().poll(&mut cx).is_pending());
    for _ in 0..4 {
        assert!(receiver.try_recv().is_some());
    }
    assert_eq!(woken.load(Relaxed), 1);
    assert!(waiting.as_mut().poll(&mut cx).is_ready());
}

#[test]
fn who_waits_behind_another_is_woken_when_there_is_room_for_both() {
    let (sender, mut receiver) = channel(1);
    sender.try_send(0).unwrap();
    let woken = Arc::new(AtomicUsize::new(0));
    let counts = woken.clone();
    let waker = waker_fn::waker_fn(move || _ = counts.fetch_add(1, Relaxed));
    let [mut first, mut second] = [1, 2].map(|n| Box::pin(sender.send(n)));
    assert!((&mut first).now_or_never().is_none());
    assert!(poll_for(&mut second, &waker).is_pending());
    assert_eq!(receiver.try_recv(), Some(0));
    assert_eq!(first.now_or_never(), Some(Ok(())));
    assert_eq!(woken.load(Relaxed), 0);
    assert_eq!(receiver.try_recv(), Some(1));
    assert_eq!(woken.load(Relaxed), 1);
    assert!(poll_for(&mut second, &waker).is_ready());
}

#[waterspout::test(virtual_time)]
async fn a_receiver_that_goes_gives_the_items_back() {
    let (sender, receiver) = channel(1);
    sender.send("in it").await.unwrap();
    let waits = sender.clone();
    let waiting = spawn(async move { waits.send("on its way").await });
    moment().await;
    assert!(!sender.is_closed());
    drop(receiver);
    assert_eq!(waiting.await.unwrap_err().0, "on its way");
    assert_eq!(sender.send("late").await.unwrap_err().0, "late");
    assert_eq!(sender.try_send("later"), Err(TrySendError::Closed("later")));
    assert!(sender.is_closed());
}

#[test]
fn several_loops_send_to_one_and_nothing_is_lost() {
    let (sender, receiver) = channel(8);
    let threads: Vec<_> = (0..4u64)
        .map(|thread| {
            let sender = sender.clone();
            thread::spawn(move || {
                let io_loop = IoLoop::new().unwrap();
                let sent = io_loop.run_sync(|| async move {
                    for n in 0..5_000 {
                        sender.send(thread << 32 | n).await.unwrap();
                    }
                });
                sent.unwrap();
            })
        })
        .collect();
    drop(sender);
    let received: Vec<u64> = IoLoop::new().unwrap().run_sync(|| receiver.collect()).unwrap();
    assert_eq!(received.len(), 20_000);
    for thread in 0..4 {
        let own = received.iter().filter(|item| **item >> 32 == thread).map(|item| item & 0xffff);
        assert!(own.eq(0..5_000), "the items of sender {thread} are in order");
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_burst_does_not_wake_the_loop_for_each_item() {
    let (sender, mut receiver) = channel(10_000);
    let ((ready, begin), (sent, all_sent)) = (mpsc::channel(), mpsc::channel());
    let worker = thread::spawn(move || {
        let io_loop = IoLoop::new().unwrap();
        let inner = io_loop.clone();
        io_loop
            .run_sync(|| async move {
                let sum = Rc::new(Cell::new(0));
                // Runs once the loop is about to sleep in `recv`.
                inner.call_later(Duration::ZERO, move || ready.send(()).unwrap());
                while let Some(n) = receiver.recv().await {
                    if sum.get() == 0 {
                        // The rest of the burst comes while the loop is busy with the first item.
                        all_sent.recv().unwrap();
                    }
                    sum.set(sum.get() + n);
                }
                sum.get()
            })
            .map(|sum| (sum, io_loop.counters()))
            .unwrap()
    });
    begin.recv().unwrap();
    for n in 1..=10_000u64 {
        sender.try_send(n).unwrap();
    }
    drop(sender);
    sent.send(()).unwrap();
    let (sum, counters) = worker.join().unwrap();
    assert_eq!(sum, 50_005_000);
    // The first item woke it, if it waited by then.
    assert!(counters.messages <= 1 && counters.notified <= 1, "{counters:?}");
}

#[waterspout::test(virtual_time)]
async fn a_receiver_may_wait_with_others() {
    let (sender, mut receiver) = channel::<u8>(1);
    let waited = with_timeout(Duration::from_secs(1), receiver.recv()).await;
    assert!(waited.is_err());
    spawn(async move {
        sleep(Duration::from_secs(1)).await;
        sender.send(7).await.unwrap();
    });
    assert_eq!(receiver.next().await, Some(7));
    assert_eq!(receiver.next().await, None);
}

#[test]
fn a_stream_of_items_has_ended_when_nothing_is_left_and_nobody_sends() {
    let (sender, mut receiver) = channel(2);
    assert!(!receiver.is_terminated());
    sender.try_send(1).unwrap();
    let other = sender.clone();
    drop(sender);
    assert!(!receiver.is_terminated());
    assert_eq!(receiver.try_recv(), Some(1));
    assert!(!receiver.is_terminated(), "there is another one who may send");
    other.try_send(2).unwrap();
    drop(other);
    assert!(!receiver.is_terminated(), "there is something left");
    assert_eq!(receiver.try_recv(), Some(2));
    assert!(receiver.is_terminated());
}

#[test]
fn ends_and_errors_say_what_they_are_and_not_what_they_carry() {
    struct Unspeakable;
    let (sender, receiver) = channel(3);
    sender.try_send(Unspeakable).ok().unwrap();
    assert_eq!(
        format!("{sender:?} {receiver:?}"),
        "Sender { capacity: 3 } Receiver { capacity: 3 }"
    );
    let gone = SendError(Unspeakable);
    assert_eq!(format!("{gone:?}: {gone}"), "SendError: the receiver has gone");
    let (full, closed) = (TrySendError::Full(Unspeakable), TrySendError::Closed(Unspeakable));
    assert_eq!(format!("{full:?}: {full}"), "Full: the channel has no room");
    assert_eq!(format!("{closed:?}: {closed}"), "Closed: the receiver has gone");
}

/// Those that wait were polled once: nobody looks again by himself.
#[waterspout::test(virtual_time)]
async fn a_send_that_is_dropped_in_its_turn_wakes_the_next() {
    let (sender, mut receiver) = channel(1);
    sender.send(1).await.unwrap();
    let mut gone = Box::pin(sender.send(2));
    assert!((&mut gone).now_or_never().is_none());
    let others = [3, 4].map(|n| {
        let sender = sender.clone();
        start(async move { sender.send(n).await.unwrap() })
    });
    assert_eq!(receiver.try_recv(), Some(1));
    drop(gone);
    let received = async { [receiver.recv().await, receiver.recv().await] };
    assert_eq!(with_timeout(Duration::from_secs(1), received).await, Ok([Some(3), Some(4)]));
    for other in others {
        other.await;
    }
}

#[waterspout::test(virtual_time)]
async fn a_send_that_is_dropped_before_its_turn_takes_nobodys() {
    let (sender, mut receiver) = channel(1);
    sender.send(1).await.unwrap();
    let other = sender.clone();
    let first = start(async move { other.send(2).await.unwrap() });
    let mut gone = Box::pin(sender.send(3));
    assert!((&mut gone).now_or_never().is_none());
    drop(gone);
    assert!(!first.done());
    assert_eq!(receiver.recv().await, Some(1));
    assert_eq!(receiver.recv().await, Some(2));
    first.await;
    assert_eq!(receiver.try_recv(), None);
    sender.try_send(4).unwrap();
}

#[test]
fn a_waker_that_panics_keeps_nobody_from_the_end_of_a_channel() {
    let diary = Diary::new();
    let io_loop = diary.exceptions_of(IoLoop::builder().virtual_time()).build().unwrap();
    let ran = io_loop.run_sync_timeout(Duration::from_secs(1), async || {
        let (sender, receiver) = channel(1);
        sender.send(0).await.unwrap();
        let mut foreign = Box::pin(sender.send(1));
        assert!(poll_for(&mut foreign, &panicking_waker()).is_pending());
        let other = sender.clone();
        let waiting = start(async move { other.send(2).await });
        drop(receiver);
        assert_eq!(waiting.await.unwrap_err().0, 2);
    });
    ran.unwrap();
    assert_eq!(diary.read(), ["panicked: a waker"]);
}

/// A waker that looks at the channel when it is woken, and when it is dropped.
fn curious_waker(sender: &Sender<u8>, looks: &Arc<AtomicUsize>) -> Waker {
    struct Looks(Sender<u8>, Arc<AtomicUsize>);
    impl Looks {
        fn look(&self) {
            let _ = self.0.is_closed();
            self.1.fetch_add(1, Relaxed);
        }
    }
    impl Drop for Looks {
        fn drop(&mut self) {
            self.look();
        }
    }
    let looks = Looks(sender.clone(), looks.clone());
    waker_fn::waker_fn(move || looks.look())
}

#[test]
fn wakers_may_use_the_channel_when_they_are_replaced_woken_or_dropped() {
    // Whoever finds the channel locked hangs: not here.
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        let looks = Arc::new(AtomicUsize::new(0));
        // What may end a wait to receive...
        let ends_of_recv: [fn(&Sender<u8>); 3] =
            [|sender| _ = sender.try_send(1), |sender| _ = sender.send(1).now_or_never(), |_| ()];
        for end in ends_of_recv {
            let (sender, mut receiver) = channel(3);
            let mut waiting = Box::pin(receiver.recv());
            for _ in 0..2 {
                assert!(poll_for(&mut waiting, &curious_waker(&sender, &looks)).is_pending());
            }
            end(&sender);
            drop(sender);
            drop(waiting);
        }
        // (the last sender has none left to look by)
        let (sender, receiver) = channel::<u8>(1);
        let receiver = Arc::new(Mutex::new(receiver));
        let (looks_by, counts) = (receiver.clone(), looks.clone());
        let waker = waker_fn::waker_fn(move || {
            counts.fetch_add(1, Relaxed);
            assert_eq!(looks_by.lock().unwrap().try_recv(), None);
        });
        let waits = receiver.lock().unwrap().poll_recv(&mut Context::from_waker(&waker));
        assert!(waits.is_pending());
        drop(sender);
        // ...and one to send.
        let ends_of_send: [fn(&mut Option<Receiver<u8>>); 3] = [
            |receiver| _ = receiver.as_mut().unwrap().try_recv(),
            |receiver| _ = receiver.as_mut().unwrap().recv().now_or_never(),
            |receiver| drop(receiver.take()),
        ];
        for end in ends_of_send {
            let (sender, receiver) = channel(1);
            let mut receiver = Some(receiver);
            sender.try_send(1).unwrap();
            let [mut first, mut second] = [2, 3].map(|n| Box::pin(sender.send(n)));
            for _ in 0..2 {
                for waiting in [&mut first, &mut second] {
                    assert!(poll_for(waiting, &curious_waker(&sender, &looks)).is_pending());
                }
            }
            end(&mut receiver);
            drop(first);
            let _ = poll_for(&mut second, &curious_waker(&sender, &looks));
        }
        done.send(looks.load(Relaxed)).unwrap();
    });
    let looked = is_done.recv_timeout(Duration::from_secs(60)).expect("nobody hangs");
    assert!(looked > 22, "all 21 are dropped, and some are woken: {looked}");
}

#[test]
fn items_whose_destructors_panic_keep_nobody_from_the_end_of_a_channel() {
    let diary = Diary::new();
    let io_loop = diary.exceptions_of(IoLoop::builder().virtual_time()).build().unwrap();
    let dropped = Arc::new(AtomicUsize::new(0));
    let ran = io_loop.run_sync_timeout(Duration::from_secs(1), async || {
        let bomb = || Bomb(dropped.clone());
        let (sender, receiver) = channel(2);
        assert!(sender.try_send(bomb()).is_ok() && sender.try_send(bomb()).is_ok());
        let mut gone = Box::pin(sender.send(bomb()));
        assert!((&mut gone).now_or_never().is_none());
        let other = sender.clone();
        let last = bomb();
        let waiting = start(async move { std::mem::forget(other.send(last).await) });
        drop(gone);
        assert_eq!(dropped.load(Relaxed), 1);
        drop(receiver);
        waiting.await;
    });
    ran.unwrap();
    assert_eq!((dropped.load(Relaxed), diary.read().len()), (3, 3));
}

#[test]
fn a_sender_that_was_let_in_keeps_nobody_from_the_rest_of_the_room() {
    let (sender, mut receiver) = channel(2);
    [1, 2].into_iter().for_each(|n| sender.try_send(n).unwrap());
    let [mut first, mut second, mut third] = [3, 4, 5].map(|n| Box::pin(sender.send(n)));
    for waiting in [&mut first, &mut second, &mut third] {
        assert!(waiting.now_or_never().is_none());
    }
    assert_eq!([receiver.try_recv(), receiver.try_recv()], [Some(1), Some(2)]);
    // Both places are taken, by those who have waited longest, whoever comes first.
    assert_eq!(sender.try_send(9), Err(TrySendError::Full(9)));
    assert!((&mut third).now_or_never().is_none());
    assert_eq!((&mut second).now_or_never(), Some(Ok(())));
    assert_eq!(receiver.try_recv(), Some(4));
    assert_eq!((&mut third).now_or_never(), Some(Ok(())));
    assert_eq!(sender.try_send(9), Err(TrySendError::Full(9)));
    assert_eq!((&mut first).now_or_never(), Some(Ok(())));
    assert_eq!([receiver.try_recv(), receiver.try_recv()], [Some(5), Some(3)]);
    [6, 7].into_iter().for_each(|n| sender.try_send(n).unwrap());
}

#[test]
fn a_waker_that_panics_when_it_is_let_in_keeps_nobody_else_out() {
    let (sender, mut receiver) = channel(2);
    [1, 2].into_iter().for_each(|n| sender.try_send(n).unwrap());
    let [mut panics, mut other] = [3, 4].map(|n| Box::pin(sender.send(n)));
    let woken = Arc::new(AtomicUsize::new(0));
    let counts = woken.clone();
    let waker = waker_fn::waker_fn(move || _ = counts.fetch_add(1, Relaxed));
    assert!(poll_for(&mut panics, &panicking_waker()).is_pending());
    assert!(poll_for(&mut other, &waker).is_pending());
    assert_eq!([receiver.try_recv(), receiver.try_recv()], [Some(1), Some(2)]);
    assert_eq!(woken.load(Relaxed), 1);
    drop(panics);
    assert_eq!(other.now_or_never(), Some(Ok(())));
    assert_eq!((sender.try_send(5), receiver.try_recv()), (Ok(()), Some(4)));
}

/// What a channel does, in so many words.
#[derive(Default)]
struct Model {
    room: usize,
    items: VecDeque<u64>,
    waiting: VecDeque<u64>,
    let_in: BTreeSet<u64>,
    woken: Vec<u64>,
}

impl Model {
    fn has_room(&self) -> bool {
        self.items.len() + self.let_in.len() < self.room
    }

    /// Polls the send of `n`.
    fn send(&mut self, n: u64) -> bool {
        let is_new = !self.waiting.contains(&n);
        let sends = self.let_in.remove(&n) || is_new && self.has_room();
        match sends {
            true => self.items.push_back(n),
            false if is_new => self.waiting.push_back(n),
            false => {}
        }
        sends
    }

    fn recv(&mut self) -> Option<u64> {
        let item = self.items.pop_front();
        self.let_in();
        item
    }

    fn drop(&mut self, n: u64) {
        self.waiting.retain(|waiting| *waiting != n);
        self.let_in.remove(&n);
        self.let_in();
    }

    fn let_in(&mut self) {
        while self.has_room() && !self.waiting.is_empty() {
            let n = self.waiting.pop_front().unwrap();
            self.let_in.insert(n);
            self.woken.push(n);
        }
    }
}

#[test]
fn whatever_is_done_to_a_channel_room_goes_to_those_who_have_waited_longest() {
    let mut random = 42u64;
    let mut below = move |n: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as usize % n
    };
    for room in [1, 2, 3, 8] {
        let (sender, mut receiver) = channel(room);
        let mut model = Model { room, ..Model::default() };
        let woken = Arc::new(Mutex::new(Vec::new()));
        let waker_of = |n| {
            let woken = woken.clone();
            waker_fn::waker_fn(move || woken.lock().unwrap().push(n))
        };
        let mut sends = Vec::new();
        for n in 0..5_000 {
            let chosen = below(sends.len() + 1);
            match below(8) {
                0..3 if sends.len() < 20 => {
                    let mut send = Box::pin(sender.send(n));
                    let sent = poll_for(&mut send, &waker_of(n)).is_ready();
                    assert_eq!(sent, model.send(n), "step {n}");
                    if !sent {
                        sends.push((n, send));
                    }
                }
                3 if chosen < sends.len() => {
                    let (n, mut send) = sends.swap_remove(chosen);
                    let sent = poll_for(&mut send, &waker_of(n)).is_ready();
                    assert_eq!(sent, model.send(n));
                    if !sent {
                        sends.push((n, send));
                    }
                }
                4 if chosen < sends.len() => {
                    let (n, send) = sends.swap_remove(chosen);
                    drop(send);
                    model.drop(n);
                }
                5 => {
                    let sent = model.has_room() && model.send(n);
                    assert_eq!(sender.try_send(n).is_ok(), sent, "step {n}");
                }
                _ => assert_eq!(receiver.try_recv(), model.recv(), "step {n}"),
            }
            assert!(model.items.len() + model.let_in.len() <= room);
            assert_eq!(*woken.lock().unwrap(), model.woken, "step {n}");
        }
        // Each of those that are left is let in when it is its turn, and not before.
        while !sends.is_empty() || !model.items.is_empty() {
            sends.retain_mut(|(n, send)| {
                let sent = poll_for(send, &waker_of(*n)).is_ready();
                assert_eq!(sent, model.send(*n));
                !sent
            });
            assert_eq!(receiver.try_recv(), model.recv());
            assert_eq!(*woken.lock().unwrap(), model.woken);
        }
        assert_eq!(receiver.try_recv(), None);
    }
}

#[test]
fn sends_that_are_given_up_on_several_threads_cost_nobody_room() {
    let (sender, receiver) = channel(2);
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let sender = sender.clone();
            thread::spawn(move || {
                let mut sent = 0;
                for n in 0..3_000 {
                    // Polled once and given up, wherever that finds it.
                    sent += usize::from(sender.send(n).now_or_never().is_some());
                    sender.blocking_send(n).unwrap();
                    sent += 1;
                }
                sent
            })
        })
        .collect();
    drop(sender);
    let received = IoLoop::new().unwrap().run_sync(|| receiver.count()).unwrap();
    let sent: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert_eq!(received, sent);
}

/// A loop on which a coroutine waits to send one more than there is room for.
fn loop_that_sends(sender: Sender<u32>, room: u32) -> (IoLoop, Coroutine<()>) {
    let io_loop = IoLoop::builder().virtual_time().build().unwrap();
    let mut sending = None;
    let ran = io_loop.run_sync(async || {
        sending = Some(start(async move {
            for n in 0..=room {
                let _ = sender.send(n).await;
            }
        }));
        moment().await;
    });
    ran.unwrap();
    let sending = sending.unwrap();
    assert!(!sending.done());
    (io_loop, sending)
}

#[test]
fn a_coroutine_that_waits_for_room_is_woken_however_the_receiver_goes_on() {
    type Receives = fn(Receiver<u32>);
    let in_a_loop: Receives = |mut receiver| {
        let io_loop = IoLoop::builder().virtual_time().build().unwrap();
        let received = io_loop.run_sync(async || {
            let first = receiver.recv().await;
            moment().await;
            first
        });
        assert_eq!(received.unwrap(), Some(0));
        std::mem::forget(receiver);
    };
    let before_a_loop_runs: Receives = |mut receiver| {
        let io_loop = IoLoop::builder().virtual_time().build().unwrap();
        io_loop.make_current();
        let receiving = start(async move {
            let first = receiver.recv().await;
            std::mem::forget(receiver);
            first
        });
        assert_eq!(receiving.now_or_never(), Some(Some(0)));
    };
    let by_a_callback: Receives = |mut receiver| {
        let io_loop = IoLoop::builder().virtual_time().build().unwrap();
        let stops = io_loop.clone();
        io_loop.add_callback(move || {
            assert_eq!(receiver.try_recv(), Some(0));
            std::mem::forget(receiver);
            stops.stop();
        });
        io_loop.start().unwrap();
    };
    let and_goes: Receives = |receiver| {
        let io_loop = IoLoop::builder().virtual_time().build().unwrap();
        let received = io_loop.run_sync(async move || {
            let mut receiver = receiver;
            receiver.recv().await
        });
        assert_eq!(received.unwrap(), Some(0));
    };
    for receives in [in_a_loop, before_a_loop_runs, by_a_callback, and_goes] {
        let (sender, receiver) = channel(8);
        let (io_loop, sending) = loop_that_sends(sender, 8);
        thread::spawn(move || receives(receiver)).join().unwrap();
        io_loop.run_sync_timeout(Duration::from_secs(1), || sending).unwrap();
    }
}

#[test]
fn half_of_the_room_wakes_who_waits_even_if_the_receivers_loop_stands_still() {
    let (sender, mut receiver) = channel(4);
    let ((waits, is_waiting), (sent, is_sent)) = (mpsc::channel(), mpsc::channel());
    let worker = thread::spawn(move || {
        let (io_loop, sending) = loop_that_sends(sender, 4);
        waits.send(()).unwrap();
        io_loop.run_sync(|| sending).unwrap();
        sent.send(()).unwrap();
    });
    is_waiting.recv().unwrap();
    let ran = IoLoop::new().unwrap().run_sync(async || {
        assert_eq!([receiver.recv().await, receiver.recv().await], [Some(0), Some(1)]);
        is_sent.recv_timeout(Duration::from_secs(60)).expect("it was woken");
    });
    ran.unwrap();
    worker.join().unwrap();
}
