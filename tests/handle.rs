//! What other threads may do with a loop, and wakers: from other threads, of other loops, of loops
//! that are gone, and in the last moments of a thread.

mod common;

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, mpsc};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use common::{AtDrop, Diary, one_turn, own_waker, panic_of, suspend, virtual_loop};
use waterspout::coroutine::{self, moment, sleep};
use waterspout::net::TcpListener;
use waterspout::{Coroutine, IoLoop, LoopClosed, LoopHandle};

const SECOND: Duration = Duration::from_secs(1);

fn assert_send_sync<T: Send + Sync + 'static>(_: &T) {}

// ---------------------------------------------------------------------------------------------
// Callbacks
// ---------------------------------------------------------------------------------------------

#[test]
fn a_handle_goes_to_any_thread() {
    let io_loop = IoLoop::new().unwrap();
    assert_send_sync(&io_loop.handle());
    assert_send_sync(&io_loop.run_sync(own_waker).unwrap());
}

#[test]
fn what_belongs_to_a_loop_says_to_which() {
    let io_loop = virtual_loop();
    assert_eq!(format!("{:?}", io_loop.handle()), format!("LoopHandle({io_loop:?})"));
    assert_eq!(format!("{:?}", io_loop.hold_time()), format!("HeldTime({io_loop:?})"));
}

#[test]
fn callbacks_from_another_thread_run_on_the_loops_in_order() {
    let io_loop = IoLoop::new().unwrap();
    let handle = io_loop.handle();
    let here = thread::current().id();
    let (sender, receiver) = mpsc::channel();
    let thread = thread::spawn(move || {
        for n in 0..1000 {
            let sender = sender.clone();
            handle.add_callback(move || sender.send((n, thread::current().id())).unwrap()).unwrap();
        }
        handle.stop().unwrap();
    });
    io_loop.start().unwrap();
    thread.join().unwrap();
    assert!(receiver.try_iter().eq((0..1000).map(|n| (n, here))));
}

#[test]
fn a_stop_waits_for_what_was_posted_before_it_also_in_the_midst_of_a_turn() {
    let io_loop = IoLoop::new().unwrap();
    let (handle, ran) = (io_loop.handle(), Arc::new(AtomicUsize::new(0)));
    // A turn that is long enough for the loop to look up in its midst.
    for n in 0..1000 {
        let (handle, ran) = (handle.clone(), ran.clone());
        io_loop.add_callback(move || {
            if n == 10 {
                for _ in 0..100 {
                    let ran = ran.clone();
                    let count = move || {
                        ran.fetch_add(1, SeqCst);
                    };
                    handle.add_callback(count).unwrap();
                }
                handle.stop().unwrap();
            }
        });
    }
    io_loop.start().unwrap();
    assert_eq!(ran.load(SeqCst), 100);
    assert_eq!(io_loop.counters().messages, 101, "also the stop is one");
}

#[test]
fn what_is_ready_on_the_loop_does_not_wait_for_all_that_others_have_posted() {
    let io_loop = virtual_loop();
    let (handle, ran) = (io_loop.handle(), Arc::new(AtomicUsize::new(0)));
    io_loop
        .run_sync(async || {
            let counted = ran.clone();
            let posting = thread::spawn(move || {
                for _ in 0..5000 {
                    let counted = counted.clone();
                    let count = move || {
                        counted.fetch_add(1, SeqCst);
                    };
                    handle.add_callback(count).unwrap();
                }
            });
            posting.join().unwrap();
            let mut seen = 0;
            while seen < 5000 {
                suspend().await;
                let now = ran.load(SeqCst);
                assert!(now - seen <= 512, "{seen}, {now}");
                seen = now;
            }
        })
        .unwrap();
}

#[test]
fn however_much_is_posted_a_stop_comes_after_it_and_a_closed_loop_drops_the_rest() {
    let io_loop = IoLoop::new().unwrap();
    let (handle, ran) = (io_loop.handle(), Arc::new(AtomicUsize::new(0)));
    let alive = Arc::new(());
    let post = |times| {
        for _ in 0..times {
            let (ran, alive) = (ran.clone(), alive.clone());
            let count = move || {
                ran.fetch_add(1, SeqCst);
                drop(alive);
            };
            handle.add_callback(count).unwrap();
        }
    };
    post(3000);
    handle.stop().unwrap();
    post(3000);
    io_loop.start().unwrap();
    let ran_before = ran.load(SeqCst);
    assert!((3000..3256).contains(&ran_before), "{ran_before}");
    io_loop.close();
    assert_eq!((ran.load(SeqCst), Arc::strong_count(&alive)), (ran_before, 1));
}

#[test]
fn on_the_loops_own_thread_they_are_not_run_inline_either() {
    let io_loop = IoLoop::new().unwrap();
    let (handle, called) = (io_loop.handle(), Arc::new(AtomicBool::new(false)));
    let seen = called.clone();
    io_loop
        .run_sync(|| async move {
            let calling = called.clone();
            handle.add_callback(move || calling.store(true, SeqCst)).unwrap();
            assert!(!called.load(SeqCst));
            moment().await;
            moment().await;
        })
        .unwrap();
    assert!(seen.load(SeqCst));
    assert_eq!(io_loop.counters().notified, 0);
}

#[test]
fn a_panic_in_a_callback_is_reported_with_the_place_that_added_it() {
    let diary = Diary::new();
    let inside = diary.clone();
    let io_loop = IoLoop::builder()
        .on_exception(move |exception| {
            let file = exception.location.map(|location| location.file());
            inside.write(format!("{} in {file:?}", exception.info));
        })
        .build()
        .unwrap();
    io_loop.handle().add_callback(|| panic!("from afar")).unwrap();
    io_loop.run_sync(moment).unwrap();
    assert_eq!(diary.read(), [format!("panicked: from afar in {:?}", Some(file!()))]);
}

#[test]
fn an_awake_loop_is_not_written_to() {
    let io_loop = IoLoop::new().unwrap();
    let handle = io_loop.handle();
    io_loop
        .run_sync(|| async move {
            let thread = thread::spawn(move || {
                for _ in 0..100 {
                    handle.add_callback(|| ()).unwrap();
                }
            });
            // The loop's thread is here, awake, until all is posted.
            thread.join().unwrap();
            while IoLoop::current().counters().callbacks < 100 {
                suspend().await;
            }
        })
        .unwrap();
    let counters = io_loop.counters();
    assert_eq!((counters.messages, counters.notified), (100, 0));
}

#[test]
fn a_loop_that_does_not_run_is_not_written_to() {
    let io_loop = IoLoop::new().unwrap();
    let handle = io_loop.handle();
    thread::spawn(move || (0..100).for_each(|_| handle.add_callback(|| ()).unwrap()))
        .join()
        .unwrap();
    one_turn(&io_loop);
    assert_eq!((io_loop.counters().callbacks, io_loop.counters().notified), (101, 0));
}

#[test]
fn a_sleeping_loop_is_written_to_at_most_once_for_each_sleep() {
    let io_loop = IoLoop::new().unwrap();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let handle = io_loop.handle();
            thread::spawn(move || {
                for n in 0..1000 {
                    handle.add_callback(|| ()).unwrap();
                    if n % 50 == 0 {
                        thread::yield_now();
                    }
                }
            })
        })
        .collect();
    let handle = io_loop.handle();
    let last = thread::spawn(move || {
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        handle.stop().unwrap();
    });
    io_loop.start().unwrap();
    last.join().unwrap();
    let counters = io_loop.counters();
    assert_eq!((counters.callbacks, counters.messages), (4000, 4001));
    assert!(counters.notified <= counters.polls, "{counters:?}");
}

#[test]
fn a_closed_loop_answers_so() {
    let io_loop = IoLoop::new().unwrap();
    let handle = io_loop.handle();
    assert!(!handle.is_closed());
    io_loop.close();
    assert!(handle.is_closed());
    assert_eq!(handle.add_callback(|| ()), Err(LoopClosed));
    assert_eq!(handle.stop(), Err(LoopClosed));
    assert_eq!(handle.spawn(|| async {}).unwrap_err(), LoopClosed);
    assert!(handle.run_sync(|| async {}).unwrap_err().is_cancelled());
    let as_io: std::io::Error = LoopClosed.into();
    assert!(as_io.to_string().contains("closed"));
    drop(io_loop);
    assert_eq!(handle.add_callback(|| ()), Err(LoopClosed));
}

#[test]
fn a_call_that_got_ok_runs_or_is_dropped_with_the_loop() {
    // Each callback counts its own end, run or not; a thread posts until it is refused.
    let (accepted, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    for _ in 0..20 {
        let io_loop = IoLoop::new().unwrap();
        let (handle, accepted, ended) = (io_loop.handle(), accepted.clone(), ended.clone());
        let thread = thread::spawn(move || {
            // More than the loop will take before it is closed.
            for _ in 0..10_000 {
                let ended = ended.clone();
                let end = AtDrop(move || _ = ended.fetch_add(1, SeqCst));
                // What is refused ends, too, so it is counted on both sides.
                accepted.fetch_add(1, SeqCst);
                if handle.add_callback(move || end.keep()).is_err() {
                    break;
                }
            }
        });
        io_loop
            .run_sync(|| async {
                for _ in 0..10 {
                    moment().await;
                }
            })
            .unwrap();
        io_loop.close();
        thread.join().unwrap();
    }
    assert_eq!(accepted.load(SeqCst), ended.load(SeqCst));
}

#[test]
fn a_callback_may_post_to_its_own_handle_and_a_destructor_may_too() {
    let io_loop = IoLoop::new().unwrap();
    let (handle, again) = (io_loop.handle(), io_loop.handle());
    let posting = AtDrop(move || _ = again.add_callback(|| ()));
    io_loop
        .handle()
        .add_callback(move || {
            posting.keep();
            let stop = handle.clone();
            handle.add_callback(move || stop.stop().unwrap()).unwrap();
        })
        .unwrap();
    io_loop.start().unwrap();
    let posting = io_loop.handle();
    let posting = AtDrop(move || assert_eq!(posting.add_callback(|| ()), Err(LoopClosed)));
    io_loop.handle().add_callback(move || posting.keep()).unwrap();
    io_loop.close();
    assert_eq!(io_loop.counters().exceptions, 0);
}

// ---------------------------------------------------------------------------------------------
// Coroutines from afar
// ---------------------------------------------------------------------------------------------

/// A loop on a thread of its own, until it is dropped.
struct Elsewhere {
    handle: LoopHandle,
    thread: Option<thread::JoinHandle<()>>,
}

impl Elsewhere {
    fn new() -> Elsewhere {
        let (sender, receiver) = mpsc::channel();
        let thread = thread::spawn(move || {
            let io_loop = IoLoop::builder().on_exception(|_| ()).build().unwrap();
            sender.send(io_loop.handle()).unwrap();
            io_loop.start().unwrap();
            io_loop.close();
        });
        Elsewhere { handle: receiver.recv().unwrap(), thread: Some(thread) }
    }

    fn end(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = self.handle.stop();
            thread.join().unwrap();
        }
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        self.end();
    }
}

#[test]
fn run_sync_from_another_thread_gives_the_output() {
    let elsewhere = Elsewhere::new();
    let output = elsewhere.handle.run_sync(|| async {
        let not_send = Rc::new(20);
        moment().await;
        *not_send + 1
    });
    assert_eq!(output.unwrap(), 21);
}

#[test]
fn a_panic_from_afar_comes_back_as_an_error() {
    let elsewhere = Elsewhere::new();
    let error = elsewhere.handle.run_sync(|| async { panic!("over there") }).unwrap_err();
    assert!(error.is_panic());
    assert!(error.to_string().contains("over there"), "{error}");
    let in_make = elsewhere.handle.run_sync(|| {
        if true {
            panic!("in make");
        }
        async {}
    });
    assert!(in_make.unwrap_err().to_string().contains("in make"));
    assert_eq!(elsewhere.handle.run_sync(|| async { "still there" }).unwrap(), "still there");
}

#[test]
fn a_loop_that_closes_cancels_what_others_wait_for() {
    let mut elsewhere = Elsewhere::new();
    let answer = elsewhere.handle.spawn(pending::<()>).unwrap();
    elsewhere.end();
    let answer = IoLoop::new().unwrap().run_sync(|| answer).unwrap();
    assert!(answer.unwrap_err().is_cancelled());
}

#[test]
fn an_answer_wakes_a_loop_that_sleeps() {
    let elsewhere = Elsewhere::new();
    let io_loop = IoLoop::new().unwrap();
    let handle = elsewhere.handle.clone();
    let sum = io_loop.run_sync(|| async move {
        let mut sum = 0;
        for n in 0..10 {
            sum += handle.spawn(move || async move { n }).unwrap().await.unwrap();
        }
        sum
    });
    assert_eq!(sum.unwrap(), 45);
}

#[test]
fn an_answer_that_is_dropped_leaves_the_coroutine_running() {
    let elsewhere = Elsewhere::new();
    let (sender, receiver) = mpsc::channel();
    drop(
        elsewhere
            .handle
            .spawn(|| async move {
                moment().await;
                sender.send("ran").unwrap();
            })
            .unwrap(),
    );
    assert_eq!(receiver.recv().unwrap(), "ran");
}

#[test]
fn run_sync_on_a_thread_that_runs_a_loop_is_refused() {
    let elsewhere = Elsewhere::new();
    let handle = elsewhere.handle.clone();
    let io_loop = IoLoop::new().unwrap();
    let message = io_loop.run_sync(|| async move { panic_of(|| handle.run_sync(|| async {})) });
    assert!(message.unwrap().contains("would block"));
}

#[test]
fn loops_on_several_threads_call_each_other() {
    let loops: Vec<Elsewhere> = (0..3).map(|_| Elsewhere::new()).collect();
    let handles: Vec<LoopHandle> = loops.iter().map(|elsewhere| elsewhere.handle.clone()).collect();
    async fn around(handles: Vec<LoopHandle>, left: usize) -> usize {
        if left == 0 {
            return 0;
        }
        let next = handles[left % handles.len()].clone();
        let going = next.spawn(move || {
            Box::pin(around(handles, left - 1)) as std::pin::Pin<Box<dyn Future<Output = usize>>>
        });
        going.unwrap().await.unwrap() + 1
    }
    let first = handles[0].clone();
    assert_eq!(first.run_sync(move || around(handles, 30)).unwrap(), 30);
}

// ---------------------------------------------------------------------------------------------
// Wakers
// ---------------------------------------------------------------------------------------------

#[test]
fn a_waker_woken_very_often_from_many_threads_loses_nothing() {
    const THREADS: usize = 4;
    const TIMES: usize = 100_000;
    let io_loop = IoLoop::new().unwrap();
    let woken = Arc::new(AtomicUsize::new(0));
    let (polled, threads) = io_loop
        .run_sync(|| async {
            let mut threads = Vec::new();
            let mut polled = 0;
            poll_fn(|cx| {
                polled += 1;
                if threads.is_empty() {
                    threads.extend((0..THREADS).map(|n| {
                        let (waker, woken) = (cx.waker().clone(), woken.clone());
                        thread::spawn(move || {
                            for _ in 0..TIMES {
                                woken.fetch_add(1, SeqCst);
                                // By value and by reference.
                                if n % 2 == 0 {
                                    waker.wake_by_ref();
                                } else {
                                    let copy = waker.clone();
                                    copy.wake();
                                }
                            }
                        })
                    }));
                }
                // Ends only if the wake-up after the very last addition arrives.
                if woken.load(SeqCst) == THREADS * TIMES { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            (polled, threads)
        })
        .unwrap();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(polled <= THREADS * TIMES + 1);
    // What came too late is taken and harms nothing.
    io_loop.run_sync(moment).unwrap();
}

#[test]
fn many_wakes_in_one_turn_are_one_resumption() {
    let io_loop = IoLoop::new().unwrap();
    let polls = Rc::new(Cell::new(0));
    let (slot, count) = (Rc::new(RefCell::new(None)), polls.clone());
    let given = slot.clone();
    drop(io_loop.spawn(poll_fn(move |cx| {
        count.set(count.get() + 1);
        *given.borrow_mut() = Some(cx.waker().clone());
        Poll::<()>::Pending
    })));
    one_turn(&io_loop);
    let waker: Waker = slot.borrow_mut().take().unwrap();
    io_loop
        .run_sync(|| async move {
            (0..100).for_each(|_| waker.wake_by_ref());
            moment().await;
        })
        .unwrap();
    assert_eq!(polls.get(), 2);
}

#[test]
fn a_waker_outlives_its_coroutine_its_loop_and_its_thread() {
    let waker = thread::spawn(|| {
        let io_loop = IoLoop::new().unwrap();
        let waker = io_loop.run_sync(|| coroutine::start(own_waker())).unwrap();
        waker.wake_by_ref(); // the coroutine is gone
        one_turn(&io_loop);
        io_loop.close();
        waker.wake_by_ref(); // the loop is closed
        drop(io_loop);
        waker.wake_by_ref();
        waker
    })
    .join()
    .unwrap();
    waker.wake_by_ref();
    let copy = waker.clone();
    assert!(copy.will_wake(&waker));
    // Another loop that has the number now is at worst woken for nothing.
    let io_loop = IoLoop::new().unwrap();
    io_loop
        .run_sync(|| async move {
            copy.wake();
            moment().await;
            waker.wake();
        })
        .unwrap();
}

#[test]
fn a_wake_while_another_loop_is_current_reaches_its_own() {
    let (a, b, diary) = (IoLoop::new().unwrap(), IoLoop::new().unwrap(), Diary::new());
    let (slot, inside) = (Rc::new(RefCell::new(None)), diary.clone());
    let given = slot.clone();
    let waiting = a.spawn(async move {
        let mut first = true;
        poll_fn(|cx| {
            *given.borrow_mut() = Some(cx.waker().clone());
            if std::mem::take(&mut first) { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        inside.write(format!("resumed on {:?}", IoLoop::current()));
    });
    one_turn(&a);
    b.run_sync(|| async {
        let waker: Waker = slot.borrow_mut().take().unwrap();
        waker.wake();
        moment().await;
    })
    .unwrap();
    assert!(diary.read().is_empty());
    a.run_sync(|| waiting).unwrap();
    assert_eq!(diary.read(), [format!("resumed on {a:?}")]);
}

#[test]
fn a_coroutine_of_one_loop_can_be_awaited_in_another_of_the_same_thread() {
    let (a, b) = (virtual_loop(), virtual_loop());
    let of_a = a.spawn(async {
        sleep(SECOND).await;
        "of a"
    });
    let awaiting = b.spawn(of_a);
    one_turn(&b);
    assert!(!awaiting.done());
    a.run_sync(|| sleep(2 * SECOND)).unwrap();
    assert!(!awaiting.done());
    assert_eq!(b.run_sync(|| awaiting).unwrap(), "of a");
}

#[test]
fn a_coroutine_that_ends_with_its_loop_tells_whoever_awaits_it_in_another() {
    let (a, b) = (virtual_loop(), virtual_loop());
    let joining = b.spawn(a.spawn(pending::<()>()).join());
    one_turn(&b);
    a.close();
    let joined = b.run_sync_timeout(SECOND, || joining).unwrap();
    assert!(joined.unwrap_err().is_cancelled());
}

#[test]
fn a_coroutine_can_be_cancelled_while_another_loop_is_current() {
    for awaited_on_a in [true, false] {
        let (a, b, diary) = (virtual_loop(), virtual_loop(), Diary::new());
        let end = diary.at_end("dropped");
        let waiting = a.spawn(async move {
            let _end = end;
            sleep(SECOND).await;
        });
        one_turn(&a);
        assert_eq!((a.counters().live, a.counters().pending_timers), (1, 1));
        b.run_sync(|| async {
            waiting.cancel();
            assert_eq!(diary.read(), ["dropped"]);
            assert!(waiting.done());
        })
        .unwrap();
        if awaited_on_a {
            let error = a.run_sync_timeout(SECOND, || waiting.join()).unwrap().unwrap_err();
            assert!(error.is_cancelled());
        } else {
            one_turn(&a);
            let error = b.run_sync_timeout(SECOND, || waiting.join()).unwrap().unwrap_err();
            assert!(error.is_cancelled());
        }
        assert_eq!((a.counters().live, a.counters().pending_timers), (0, 0));
    }
}

#[test]
fn a_coroutine_can_be_cancelled_outside_of_any_loop() {
    let io_loop = virtual_loop();
    let waiting = io_loop.spawn(async { sleep(SECOND).await });
    one_turn(&io_loop);
    waiting.cancel();
    assert!(waiting.done());
    one_turn(&io_loop);
    assert_eq!((io_loop.counters().live, io_loop.counters().pending_timers), (0, 0));
}

#[test]
fn done_callbacks_run_on_the_coroutines_own_loop() {
    for other_is_current in [false, true] {
        let (a, b, diary) = (IoLoop::new().unwrap(), IoLoop::new().unwrap(), Diary::new());
        let waiting = a.spawn(pending::<()>());
        let note = diary.clone();
        waiting.add_done_callback(move || note.write(format!("on {:?}", IoLoop::current())));
        one_turn(&a);
        if other_is_current {
            b.run_sync(|| async {
                waiting.cancel();
                moment().await;
            })
            .unwrap();
        } else {
            waiting.cancel();
        }
        assert!(diary.read().is_empty());
        a.run_sync(|| async {
            moment().await;
            moment().await;
        })
        .unwrap();
        assert_eq!(diary.read(), [format!("on {a:?}")]);
    }
}

#[test]
fn a_loop_may_run_while_another_that_it_feeds_is_only_current_later() {
    let (a, b) = (IoLoop::new().unwrap(), IoLoop::new().unwrap());
    let handle = b.handle();
    let (sender, receiver) = mpsc::channel();
    a.run_sync(|| async move { handle.add_callback(move || sender.send(1).unwrap()).unwrap() })
        .unwrap();
    assert!(receiver.try_recv().is_err());
    one_turn(&b);
    assert_eq!(receiver.recv().unwrap(), 1);
}

// ---------------------------------------------------------------------------------------------
// The last moments of a thread
// ---------------------------------------------------------------------------------------------

/// Something of a loop that is kept in a thread-local, and what its end did.
struct Keepsake {
    waker: Option<Waker>,
    handle: LoopHandle,
    coroutine: Option<Coroutine<()>>,
    sleep: Option<coroutine::Sleep>,
    listener: Option<TcpListener>,
    io_loop: Option<IoLoop>,
    ended: mpsc::Sender<&'static str>,
}

impl Drop for Keepsake {
    fn drop(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake_by_ref();
            drop(waker.clone());
            waker.wake();
        }
        let _ = self.handle.add_callback(|| ());
        if let Some(coroutine) = self.coroutine.take() {
            coroutine.cancel();
            assert!(coroutine.done());
            coroutine.add_done_callback(|| ());
        }
        drop((self.sleep.take(), self.listener.take()));
        let current = IoLoop::try_current();
        if let Some(io_loop) = self.io_loop.take() {
            io_loop.add_callback(|| ());
            io_loop.close();
        }
        if current.is_some() {
            IoLoop::current().add_callback(|| ());
        }
        // Whatever it says of that, it says it without aborting.
        let _ = std::panic::catch_unwind(IoLoop::current);
        self.ended.send("ended").unwrap();
    }
}

thread_local! {
    static KEEPSAKE: RefCell<Option<Keepsake>> = const { RefCell::new(None) };
}

/// Ends a thread whose thread-local has a keepsake. `first` is the thread-local that is used first,
/// which decides the order in which they are destroyed.
fn end_a_thread(keepsake_first: bool, of_thread: bool, keep_loop: bool) {
    let (ended, receiver) = mpsc::channel();
    thread::spawn(move || {
        if keepsake_first {
            KEEPSAKE.with(|keepsake| drop(keepsake.borrow_mut().take()));
        }
        let io_loop = if of_thread { IoLoop::current() } else { IoLoop::new().unwrap() };
        let keepsake = io_loop
            .run_sync(|| async {
                let mut asleep = coroutine::sleep(SECOND);
                poll_fn(|cx| {
                    assert!(std::pin::Pin::new(&mut asleep).poll(cx).is_pending());
                    Poll::Ready(())
                })
                .await;
                Keepsake {
                    waker: Some(coroutine::start(own_waker()).await),
                    handle: IoLoop::current().handle(),
                    coroutine: Some(coroutine::start(async {
                        let _socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
                        sleep(SECOND).await;
                    })),
                    sleep: Some(asleep),
                    listener: Some(TcpListener::bind("127.0.0.1:0").await.unwrap()),
                    io_loop: keep_loop.then(IoLoop::current),
                    ended,
                }
            })
            .unwrap();
        KEEPSAKE.with(|slot| *slot.borrow_mut() = Some(keepsake));
        drop(io_loop);
    })
    .join()
    .unwrap();
    assert!(receiver.iter().eq(["ended"]));
}

#[test]
fn what_is_kept_in_a_thread_local_may_end_after_the_loop_or_before() {
    for keepsake_first in [false, true] {
        for of_thread in [false, true] {
            for keep_loop in [false, true] {
                end_a_thread(keepsake_first, of_thread, keep_loop);
            }
        }
    }
}

#[test]
fn destructors_at_the_end_of_a_thread_run_with_their_loop_as_the_current_one() {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let io_loop = IoLoop::current();
        let name = format!("{io_loop:?}");
        let asking = AtDrop(move || {
            let current = IoLoop::try_current().map(|current| format!("{current:?}"));
            sender.send(current == Some(name.clone())).unwrap();
        });
        io_loop.add_callback(move || asking.keep());
    })
    .join()
    .unwrap();
    assert_eq!(receiver.recv(), Ok(true));
}

#[test]
fn a_socket_or_a_sleep_dropped_on_another_thread_is_given_back() {
    let io_loop = IoLoop::new().unwrap();
    let (asleep, listener) = io_loop
        .run_sync(|| async {
            let mut asleep = sleep(3600 * SECOND);
            poll_fn(|cx| {
                assert!(std::pin::Pin::new(&mut asleep).poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            (asleep, TcpListener::bind("127.0.0.1:0").await.unwrap())
        })
        .unwrap();
    assert_eq!((io_loop.counters().pending_timers, io_loop.counters().sources), (1, 1));
    thread::spawn(move || drop((asleep, listener))).join().unwrap();
    one_turn(&io_loop);
    assert_eq!((io_loop.counters().pending_timers, io_loop.counters().sources), (0, 0));
}

#[test]
fn threads_that_start_and_end_loops_at_the_same_time_do_not_mix_them_up() {
    let start = Arc::new(Barrier::new(4));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let start = start.clone();
            thread::spawn(move || {
                start.wait();
                for n in 0..100 {
                    let io_loop = IoLoop::new().unwrap();
                    let handle = io_loop.handle();
                    let posted = handle.spawn(move || async move { n }).unwrap();
                    let got = io_loop.run_sync(|| posted).unwrap().unwrap();
                    assert_eq!(got, n);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_sleeping_loop_is_woken() {
    let io_loop = IoLoop::new().unwrap();
    io_loop.call_later(Duration::MAX, || ());
    // Until the loop was asleep when the thread stopped it.
    while io_loop.counters().notified == 0 {
        let handle = io_loop.handle();
        let thread = thread::spawn(move || handle.stop().unwrap());
        io_loop.start().unwrap();
        thread.join().unwrap();
    }
}

#[test]
fn a_panic_of_a_remote_coroutine_is_reported_unless_somebody_has_its_answer() {
    let diary = Diary::new();
    let io_loop = diary.exceptions_of(IoLoop::builder().virtual_time()).build().unwrap();
    let handle = io_loop.handle();
    io_loop
        .run_sync(|| async {
            drop(handle.spawn(|| async { panic!("nobody waits") }).unwrap());
            common::turns(3).await;
            let late = handle.spawn(|| async { panic!("nobody has looked") }).unwrap();
            common::turns(3).await;
            drop(late);
            let taken = handle.spawn(|| async { panic!("taken") }).unwrap();
            assert!(taken.await.unwrap_err().is_panic());
        })
        .unwrap();
    assert_eq!(diary.read(), ["panicked: nobody waits", "panicked: nobody has looked"]);
}
