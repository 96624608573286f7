//! The loop by itself: which one is current, how it starts, stops and closes, in which order a
//! turn runs things, callbacks, timers, and the periodic callback.

mod child;
mod common;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::future::{pending, poll_fn};
use std::io::{ErrorKind, Write};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use common::{AtDrop, Diary, one_turn, panic_of, suspend, virtual_loop};
use waterspout::concurrent::promise;
use waterspout::coroutine::{self, moment, sleep};
use waterspout::locks::Event;
use waterspout::net::UnixStream;
use waterspout::{
    Coroutine, Deadline, Interest, IoLoop, PeriodicCallback, RunError, StartError, TimerId,
};

const SECOND: Duration = Duration::from_secs(1);

/// Runs `f` on a thread of its own, so that thread-locals are fresh.
fn on_a_thread<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    thread::spawn(f).join().unwrap()
}

/// A panic of type `()`.
fn panicking(message: &'static str) {
    panic!("{message}");
}

/// Seconds since `begun`, as text.
fn seconds(io_loop: &IoLoop, begun: Instant) -> String {
    (io_loop.time() - begun).as_secs_f64().to_string()
}

// ---------------------------------------------------------------------------------------------
// Which loop
// ---------------------------------------------------------------------------------------------

#[test]
fn the_selector_in_use_has_a_name() {
    let expected = if cfg!(mio_unsupported_force_poll_poll) {
        "poll"
    } else if cfg!(any(target_os = "linux", target_os = "android")) {
        "epoll"
    } else {
        "kqueue"
    };
    assert_eq!(IoLoop::selector(), expected);
}

#[test]
fn a_thread_has_no_loop_until_it_asks_and_then_keeps_it() {
    on_a_thread(|| {
        assert_eq!(IoLoop::try_current(), None);
        IoLoop::clear_current();
        assert_eq!(IoLoop::try_current(), None);
        let made = IoLoop::current();
        assert_eq!(IoLoop::try_current(), Some(made.clone()));
        assert_eq!(IoLoop::current(), made);
    });
}

#[test]
fn each_thread_has_a_loop_of_its_own() {
    let names: HashSet<String> =
        (0..3).map(|_| on_a_thread(|| format!("{:?}", IoLoop::current()))).collect();
    assert_eq!(names.len(), 3);
}

#[test]
fn a_loop_that_current_made_is_closed_with_its_thread() {
    let handle = on_a_thread(|| IoLoop::current().handle());
    assert!(handle.is_closed());
}

#[test]
fn the_first_loop_of_a_thread_is_its_current_one_and_others_are_when_they_are_asked_to_be() {
    on_a_thread(|| {
        let (first, second) = (IoLoop::new().unwrap(), IoLoop::new().unwrap());
        assert_eq!(IoLoop::try_current(), Some(first.clone()));
        second.make_current();
        assert_eq!(IoLoop::try_current(), Some(second));
        IoLoop::clear_current();
        assert_eq!(IoLoop::try_current(), None);
        IoLoop::clear_current();
        assert_eq!(IoLoop::try_current(), None);
        let third = IoLoop::new().unwrap();
        assert_eq!(IoLoop::try_current(), Some(third));
    });
}

#[test]
fn a_closed_loop_is_nobodys_current_one() {
    on_a_thread(|| {
        let closed = IoLoop::new().unwrap();
        closed.close();
        assert_eq!(IoLoop::try_current(), None);
        closed.make_current();
        assert_ne!(IoLoop::current(), closed);
        IoLoop::current().close();
        let outer = IoLoop::new().unwrap();
        let within = outer.clone();
        // It was current before one that is closed while it is not: it does not come back.
        let other = IoLoop::new().unwrap();
        other.run_sync(|| async move { within.close() }).unwrap();
        assert_eq!(IoLoop::try_current(), None);
        assert_eq!(IoLoop::current().run_sync(|| async { 1 }).unwrap(), 1);
    });
}

#[test]
fn a_loop_is_closed_with_its_last_owner_whoever_has_been_handed_it_as_the_current_one() {
    on_a_thread(|| {
        let diary = Diary::new();
        let (io_loop, end) = (IoLoop::new().unwrap(), diary.at_end("dropped"));
        let handle = io_loop.handle();
        io_loop
            .run_sync(|| async {
                drop(coroutine::start(async move {
                    let _end = end;
                    let io_loop = IoLoop::current();
                    std::future::pending::<()>().await;
                    drop(io_loop);
                }));
            })
            .unwrap();
        let (owner, guest) = (io_loop.clone(), IoLoop::current());
        drop(io_loop);
        assert!(!handle.is_closed());
        drop(owner);
        assert!(handle.is_closed());
        assert_eq!(diary.read(), ["dropped"]);
        assert_eq!(guest.start(), Err(StartError::Closed));
        assert_eq!(IoLoop::try_current(), None);
    });
}

#[test]
fn a_loop_whose_last_owner_goes_while_it_runs_is_closed_when_it_has_stopped() {
    on_a_thread(|| {
        let io_loop = IoLoop::new().unwrap();
        let (guest, handle) = (IoLoop::current(), io_loop.handle());
        let still_open = guest.run_sync(|| async move {
            drop(io_loop);
            moment().await;
            !IoLoop::current().handle().is_closed()
        });
        assert!(still_open.unwrap() && handle.is_closed());
    });
}

#[test]
fn a_thread_keeps_the_loop_that_was_made_current_until_it_has_another() {
    on_a_thread(|| {
        let io_loop = IoLoop::new().unwrap();
        let handle = io_loop.handle();
        io_loop.make_current();
        drop(io_loop);
        assert!(!handle.is_closed());
        assert_eq!(IoLoop::current().run_sync(|| async { 1 }).unwrap(), 1);
        assert!(!handle.is_closed());
        IoLoop::clear_current();
        assert!(handle.is_closed());
    });
}

#[test]
fn a_running_loop_is_current_and_the_one_before_comes_back() {
    on_a_thread(|| {
        let (before, io_loop) = (IoLoop::new().unwrap(), IoLoop::new().unwrap());
        before.make_current();
        let inside = io_loop.run_sync(|| async { IoLoop::current() }).unwrap();
        assert_eq!(inside, io_loop);
        assert_eq!(IoLoop::try_current(), Some(before));
    });
}

#[test]
fn no_loop_before_means_no_loop_after() {
    on_a_thread(|| {
        let io_loop = IoLoop::new().unwrap();
        IoLoop::clear_current();
        for _ in 0..3 {
            one_turn(&io_loop);
            assert_eq!(IoLoop::try_current(), None);
        }
    });
}

#[test]
fn the_one_before_comes_back_also_on_unwinding() {
    on_a_thread(|| {
        let (before, io_loop) = (IoLoop::new().unwrap(), IoLoop::new().unwrap());
        before.make_current();
        let message = panic_of(|| io_loop.run_sync(|| async { panic!("unwinding") }));
        assert_eq!(message, "unwinding");
        assert_eq!(IoLoop::try_current(), Some(before));
        assert_eq!(
            io_loop.run_sync(|| async { "and it runs again" }).unwrap(),
            "and it runs again"
        );
    });
}

#[test]
fn a_running_loop_stays_current() {
    let (io_loop, other) = (IoLoop::new().unwrap(), IoLoop::new().unwrap());
    let same = io_loop.clone();
    io_loop
        .run_sync(|| async {
            assert!(panic_of(|| other.make_current()).contains("is running"));
            assert!(panic_of(IoLoop::clear_current).contains("is running"));
            same.make_current(); // which it is
            assert_eq!(IoLoop::current(), same);
        })
        .unwrap();
}

#[test]
fn instance_is_one_however_many_threads_race() {
    let count = 16;
    let (start, end) = (Arc::new(Barrier::new(count)), Arc::new(Barrier::new(count)));
    let names = Arc::new(Mutex::new(HashSet::new()));
    let threads: Vec<_> = (0..count)
        .map(|_| {
            let (start, end, names) = (start.clone(), end.clone(), names.clone());
            thread::spawn(move || {
                start.wait();
                let instance = IoLoop::instance();
                names.lock().unwrap().insert(format!("{instance:?}"));
                end.wait(); // the loop lives as long as its thread
                instance
            })
        })
        .collect();
    let handles: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(names.lock().unwrap().len(), 1);
    assert!(handles.iter().all(|handle| handle.is_closed()));
    // Now that it is closed, the next to ask lends its own.
    on_a_thread(|| {
        let instance = IoLoop::instance();
        assert!(!instance.is_closed());
        assert_eq!(format!("{instance:?}"), format!("{:?}", IoLoop::current().handle()));
    });
}

// ---------------------------------------------------------------------------------------------
// Start, stop
// ---------------------------------------------------------------------------------------------

#[test]
fn stop_before_start_makes_start_return_at_once() {
    let (io_loop, diary) = (IoLoop::new().unwrap(), Diary::new());
    io_loop.add_callback(diary.writing("callback"));
    io_loop.stop();
    io_loop.start().unwrap();
    assert!(diary.read().is_empty());
    // Once: the next start runs.
    one_turn(&io_loop);
    assert_eq!(diary.read(), ["callback"]);
}

#[test]
fn the_rest_of_the_turn_runs_after_stop_and_what_is_left_stays_queued() {
    let (io_loop, diary) = (virtual_loop(), Diary::new());
    let (inner, inside) = (io_loop.clone(), diary.clone());
    io_loop.add_callback(move || {
        inside.write("stop");
        inner.stop();
        inner.add_callback(inside.writing("next turn"));
    });
    io_loop.add_callback(diary.writing("same turn"));
    io_loop.call_later(Duration::ZERO, diary.writing("due"));
    io_loop.start().unwrap();
    assert_eq!(diary.read(), ["stop", "same turn", "due"]);
    one_turn(&io_loop);
    assert_eq!(diary.read(), ["next turn"]);
}

#[test]
fn start_within_start_is_an_error_that_names_both() {
    let (outer, other) = (IoLoop::new().unwrap(), IoLoop::new().unwrap());
    let same = outer.clone();
    outer
        .run_sync(|| async {
            let Err(StartError::Nested { asked, running }) = other.start() else {
                panic!("started");
            };
            assert_eq!((asked, running), (format!("{other:?}"), format!("{same:?}")));
            let message = other.start().unwrap_err().to_string();
            assert!(message.contains(&format!("{other:?}")), "{message}");
            assert!(message.contains(&format!("{same:?}")), "{message}");
            let itself = same.start().unwrap_err().to_string();
            assert!(itself.contains("already running"), "{itself}");
        })
        .unwrap();
}

#[test]
fn run_sync_within_a_loop_is_an_error_and_hurts_nothing() {
    let (outer, other) = (IoLoop::new().unwrap(), IoLoop::new().unwrap());
    let same = outer.clone();
    let after = outer.run_sync(|| async {
        for io_loop in [&same, &other] {
            let nested = io_loop.run_sync(|| async {});
            assert!(matches!(nested, Err(RunError::Start(StartError::Nested { .. }))));
        }
        moment().await;
        "goes on"
    });
    assert_eq!(after.unwrap(), "goes on");
    assert_eq!(other.run_sync(|| async { 1 }).unwrap(), 1);
}

#[test]
fn a_running_loop_is_not_started_by_a_destructor_at_anothers_close() {
    let outer = IoLoop::new().unwrap();
    let seen = Rc::new(Cell::new(false));
    let (inner, seen_) = (outer.clone(), seen.clone());
    outer
        .run_sync(|| async move {
            let other = IoLoop::new().unwrap();
            let nested = AtDrop(move || {
                seen_.set(true);
                assert!(matches!(inner.start(), Err(StartError::Nested { .. })));
            });
            other.add_callback(move || nested.keep());
            other.close();
        })
        .unwrap();
    assert!(seen.get());
    assert_eq!(outer.counters().exceptions, 0);
}

#[test]
fn a_closed_loop_does_not_start() {
    let io_loop = IoLoop::new().unwrap();
    io_loop.close();
    assert_eq!(io_loop.start(), Err(StartError::Closed));
    assert!(matches!(io_loop.run_sync(|| async {}), Err(RunError::Start(StartError::Closed))));
}

#[test]
fn run_sync_calls_inside_the_loop_and_borrows_what_it_likes() {
    let io_loop = IoLoop::new().unwrap();
    let mut words = vec![String::from("borrowed")];
    let current = io_loop
        .run_sync(|| {
            let current = IoLoop::current(); // called inside, too
            async {
                moment().await;
                words.push("mutably".into());
                current
            }
        })
        .unwrap();
    assert_eq!(current, io_loop);
    assert_eq!(words, ["borrowed", "mutably"]);
}

#[test]
fn run_sync_gives_what_the_future_gives() {
    let io_loop = IoLoop::new().unwrap();
    for suspended in [false, true] {
        for result in [Ok(42), Err("not 42")] {
            let given = io_loop.run_sync(|| async {
                if suspended {
                    moment().await;
                }
                result
            });
            assert_eq!(given.unwrap(), result);
        }
    }
}

#[test]
fn a_panic_goes_through_run_sync_wherever_it_is_and_the_loop_goes_on() {
    on_a_thread(|| {
        let io_loop = IoLoop::new().unwrap();
        for place in ["before there is a future", "at once", "later"] {
            let panicking = || {
                assert_ne!(place, "before there is a future");
                async {
                    assert_ne!(place, "at once");
                    moment().await;
                    panic!("{place}")
                }
            };
            let message = panic_of(|| io_loop.run_sync(panicking));
            assert!(message.contains(place), "{message}");
            assert_eq!(io_loop.counters().live, 0);
            assert_eq!(io_loop.run_sync(|| async { "goes on" }).unwrap(), "goes on");
        }
    });
}

#[test]
fn run_sync_that_is_stopped_says_so() {
    let io_loop = IoLoop::new().unwrap();
    let inner = io_loop.clone();
    io_loop.add_callback(move || inner.stop());
    assert!(matches!(io_loop.run_sync(pending::<()>), Err(RunError::Stopped)));
    io_loop.stop();
    assert!(matches!(io_loop.run_sync(|| async {}), Err(RunError::Stopped)));
    io_loop.run_sync(|| async {}).unwrap();
}

#[test]
fn a_timed_out_run_sync_leaves_coroutines_alive_which_finish_in_a_later_run() {
    let (io_loop, diary) = (virtual_loop(), Diary::new());
    let inside = diary.clone();
    let error = io_loop
        .run_sync_timeout(SECOND, || async {
            let _dropped = diary.at_end("future dropped");
            let _detached = coroutine::start(async move {
                sleep(2 * SECOND).await;
                inside.write("coroutine");
            });
            pending::<()>().await
        })
        .unwrap_err();
    let RunError::TimedOut { after, stuck } = &error else { panic!("{error}") };
    assert_eq!((*after, stuck.len()), (SECOND, 2));
    assert!(error.to_string().starts_with("operation timed out after 1s"), "{error}");
    assert!(error.to_string().contains(file!()), "{error}");
    assert_eq!(diary.read(), ["future dropped"]);
    assert_eq!(io_loop.counters().live, 1);
    io_loop.run_sync(|| sleep(SECOND)).unwrap();
    assert_eq!(diary.read(), ["coroutine"]);
    assert_eq!(io_loop.counters().live, 0);
}

#[test]
fn run_sync_takes_its_timer_back() {
    let io_loop = virtual_loop();
    io_loop.run_sync_timeout(SECOND, || async {}).unwrap();
    assert_eq!(io_loop.counters().pending_timers, 0);
    // It would have stopped this run.
    io_loop.run_sync(|| sleep(2 * SECOND)).unwrap();
}

#[test]
fn run_sync_may_have_for_ever() {
    let io_loop = virtual_loop();
    io_loop.run_sync_timeout(Duration::MAX, || sleep(SECOND)).unwrap();
    assert_eq!(io_loop.counters().pending_timers, 0);
}

#[test]
fn a_future_that_is_done_when_time_is_up_wins() {
    let io_loop = virtual_loop();
    assert_eq!(io_loop.run_sync_timeout(Duration::ZERO, || async { 1 }).unwrap(), 1);
}

// ---------------------------------------------------------------------------------------------
// Close
// ---------------------------------------------------------------------------------------------

#[test]
fn close_drops_all_that_the_loop_holds() {
    let (io_loop, diary) = (virtual_loop(), Diary::new());
    let of = |word| diary.at_end(word);
    let (in_coroutine, in_callback, in_timer) = (of("coroutine"), of("callback"), of("timer"));
    let (in_posted, in_handler) = (Arc::new(()), of("handler"));
    let posted = Arc::downgrade(&in_posted);
    io_loop
        .run_sync(|| async move {
            let _detached = coroutine::start(async move {
                let _in_coroutine = in_coroutine;
                pending::<()>().await
            });
        })
        .unwrap();
    io_loop.add_callback(move || in_callback.keep());
    io_loop.call_later(SECOND, move || in_timer.keep());
    io_loop.handle().add_callback(move || drop(in_posted)).unwrap();
    let (here, mut there) = std::os::unix::net::UnixStream::pair().unwrap();
    io_loop.add_handler(here, Interest::READ, move |_, _| in_handler.keep()).unwrap();

    io_loop.close();
    assert_eq!(there.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    let mut dropped = diary.read();
    dropped.sort();
    assert_eq!(dropped, ["callback", "coroutine", "handler", "timer"]);
    assert!(posted.upgrade().is_none());
    let counters = io_loop.counters();
    assert_eq!((counters.live, counters.pending_timers, counters.sources), (0, 0, 0));
    io_loop.close();
    assert!(io_loop.handle().is_closed());
}

#[test]
fn dropping_the_last_handle_closes() {
    let diary = Diary::new();
    let io_loop = IoLoop::new().unwrap();
    let (clone, handle, end) = (io_loop.clone(), io_loop.handle(), diary.at_end("dropped"));
    io_loop.add_callback(move || end.keep());
    drop(io_loop);
    assert!(!handle.is_closed());
    drop(clone);
    assert!(handle.is_closed());
    assert_eq!(diary.read(), ["dropped"]);
}

#[test]
fn destructors_at_close_may_call_the_loop() {
    let (diary, slot) = (Diary::new(), Rc::new(Cell::new(None::<TimerId>)));
    let io_loop = diary.exceptions_of(IoLoop::builder().virtual_time()).build().unwrap();
    let inner = io_loop.clone();
    slot.set(Some(io_loop.call_later(SECOND, diary.writing("never"))));
    let inside = diary.clone();
    let calling = AtDrop(move || {
        assert_eq!(IoLoop::current(), inner);
        assert_eq!(IoLoop::try_current(), Some(inner.clone()));
        let lost = inside.at_end("callback dropped");
        inner.add_callback(move || lost.keep());
        let lost = inside.at_end("timer dropped");
        let timeout = inner.call_later(SECOND, move || lost.keep());
        assert!(!inner.remove_timeout(timeout));
        inner.remove_timeout(slot.take().unwrap());
        let lost = inside.at_end("coroutine dropped");
        let spawned = coroutine::spawn(async move { lost.keep() });
        assert!(spawned.done());
        let lost = inside.at_end("started dropped");
        let started: Coroutine<()> = coroutine::start(async move { lost.keep() });
        assert!(started.done());
        inner.spawn_callback(|| async {});
        let (promise, future) = promise::<()>();
        future.add_done_callback(|_| panic!("called back on a closed loop"));
        promise.set_result(());
        let (here, _there) = std::os::unix::net::UnixStream::pair().unwrap();
        inner.add_handler(here, Interest::READ, |_, _| ()).unwrap_err();
        assert!(inner.handle().add_callback(|| ()).is_err());
        assert_eq!(inner.start(), Err(StartError::Closed));
        let periodic = PeriodicCallback::new(SECOND, || ());
        periodic.start();
        inner.close();
        drop(sleep(SECOND));
        inside.write("destructor ran");
    });
    io_loop
        .run_sync(|| async {
            let _detached = coroutine::start(async move {
                let _calling = calling;
                pending::<()>().await
            });
        })
        .unwrap();
    io_loop.close();
    assert_eq!(
        diary.read(),
        [
            "callback dropped",
            "timer dropped",
            "coroutine dropped",
            "started dropped",
            "destructor ran"
        ]
    );
}

#[test]
fn panicking_destructors_at_close_are_reported_and_the_rest_is_dropped() {
    let diary = Diary::new();
    let io_loop = diary.exceptions_of(IoLoop::builder()).build().unwrap();
    for word in ["first", "second"] {
        let end = diary.at_end(word);
        let panicking = AtDrop(move || panic!("at close"));
        io_loop.add_callback(move || {
            panicking.keep();
            end.keep()
        });
        let (end, panicking) = (diary.at_end(word), AtDrop(move || panic!("at close")));
        drop(io_loop.spawn(async move {
            {
                panicking.keep();
                end.keep()
            }
        }));
        let (end, panicking) = (diary.at_end(word), AtDrop(move || panic!("at close")));
        io_loop.call_later(SECOND, move || {
            panicking.keep();
            end.keep()
        });
        let (end, panicking) = (diary.at_end(word), AtDrop(move || panic!("at close")));
        let (here, _there) = std::os::unix::net::UnixStream::pair().unwrap();
        let handler = move |_: &_, _: Interest| {
            panicking.keep();
            end.keep()
        };
        io_loop.add_handler(here, Interest::READ, handler).unwrap();
    }
    io_loop.close();
    let words = diary.read();
    let count = |word: &str| words.iter().filter(|other| *other == word).count();
    assert_eq!((count("first"), count("second")), (4, 4), "{words:?}");
    assert!(count("panicked: at close") >= 7, "{words:?}");
}

#[test]
fn closing_a_running_loop_panics_and_the_loop_goes_on() {
    let io_loop = IoLoop::new().unwrap();
    let inner = io_loop.clone();
    let message = io_loop.run_sync(|| async move { panic_of(|| inner.close()) }).unwrap();
    assert!(message.contains("stop it first"), "{message}");
    io_loop.run_sync(moment).unwrap();
}

#[test]
fn a_thousand_loops_in_sequence_leave_no_fd_behind() {
    if !std::path::Path::new("/proc/self/fd").exists() {
        return;
    }
    child::alone("a_thousand_loops_in_sequence_leave_no_fd_behind", || {
        let use_one = |n: u32| {
            let io_loop = IoLoop::new().unwrap();
            let (here, _there) = std::os::unix::net::UnixStream::pair().unwrap();
            io_loop.add_handler(here, Interest::READ, |_, _| ()).unwrap();
            drop(io_loop.spawn(pending::<()>()));
            // A part of a millisecond takes a finer sleep, where there is one.
            io_loop.run_sync(|| sleep(Duration::from_micros(10))).unwrap();
            if n % 2 == 0 {
                io_loop.close();
            }
        };
        use_one(0);
        let before = child::open_files();
        (0..1000).for_each(use_one);
        assert_eq!(child::open_files(), before);
    });
}

// ---------------------------------------------------------------------------------------------
// The turn and its callbacks
// ---------------------------------------------------------------------------------------------

#[test]
fn callbacks_run_first_in_first_out_and_never_inline() {
    let (io_loop, diary) = (IoLoop::new().unwrap(), Diary::new());
    let (inner, inside) = (io_loop.clone(), diary.clone());
    io_loop
        .run_sync(|| async move {
            inner.add_callback(inside.writing("a"));
            inner.add_callback(inside.writing("b"));
            inside.write("not inline");
            moment().await;
        })
        .unwrap();
    assert_eq!(diary.read(), ["not inline", "a", "b"]);
}

#[test]
fn a_callback_added_by_a_callback_runs_in_the_next_turn() {
    let (io_loop, diary) = (IoLoop::new().unwrap(), Diary::new());
    let begun = io_loop.counters().turns;
    let turn = {
        let (io_loop, diary) = (io_loop.clone(), diary.clone());
        move |word: &str| diary.write(format!("{word} {}", io_loop.counters().turns - begun))
    };
    let (inner, turn_) = (io_loop.clone(), turn.clone());
    io_loop.add_callback(move || {
        turn_("a");
        let (innermost, turn_) = (inner.clone(), turn_.clone());
        inner.add_callback(move || {
            turn_("a-next");
            let stop = innermost.clone();
            innermost.add_callback(move || {
                turn_("a-last");
                stop.stop();
            });
        });
    });
    io_loop.add_callback(move || turn("b"));
    io_loop.start().unwrap();
    assert_eq!(diary.read(), ["a 1", "b 1", "a-next 2", "a-last 3"]);
}

#[test]
fn a_callback_added_by_a_timer_runs_before_time_goes_on() {
    let (io_loop, diary) = (virtual_loop(), Diary::new());
    let (begun, inner, inside) = (io_loop.time(), io_loop.clone(), diary.clone());
    io_loop.call_later(SECOND, move || {
        let stop = inner.clone();
        inner.add_callback(move || {
            inside.write(seconds(&stop, begun));
            stop.stop();
        });
    });
    io_loop.call_later(2 * SECOND, diary.writing("time went on"));
    io_loop.start().unwrap();
    assert_eq!(diary.read(), ["1"]);
}

#[test]
fn a_turn_runs_callbacks_then_due_timers_then_what_they_added() {
    for io_loop in [IoLoop::new().unwrap(), virtual_loop()] {
        let diary = Diary::new();
        let (inner, inside) = (io_loop.clone(), diary.clone());
        io_loop.add_callback(move || {
            inside.write("a");
            let stop = inner.clone();
            inner.add_callback(move || {
                inside.write("a-next");
                stop.stop();
            });
        });
        io_loop.add_callback(diary.writing("b"));
        io_loop.call_later(Duration::ZERO, diary.writing("timeout"));
        io_loop.start().unwrap();
        assert_eq!(diary.read(), ["a", "b", "timeout", "a-next"]);
    }
}

#[test]
fn coroutines_and_callbacks_share_one_queue() {
    let (io_loop, diary) = (IoLoop::new().unwrap(), Diary::new());
    for n in 0..3 {
        io_loop.add_callback(diary.writing(format!("callback {n}")));
        let call = diary.writing(format!("coroutine {n}"));
        drop(io_loop.spawn(async move { call() }));
        let call = diary.writing(format!("spawned callback {n}"));
        io_loop.spawn_callback(move || async move { call() });
    }
    one_turn(&io_loop);
    let expected: Vec<String> = (0..3)
        .flat_map(|n| ["callback", "coroutine", "spawned callback"].map(|of| format!("{of} {n}")))
        .collect();
    assert_eq!(diary.read(), expected);
}

#[test]
fn a_panic_in_a_callback_is_reported_with_its_place_and_the_loop_goes_on() {
    let diary = Diary::new();
    let inside = diary.clone();
    let io_loop = IoLoop::builder()
        .virtual_time()
        .on_exception(move |exception| {
            inside.write(format!("{}: {}", exception.what, exception.info));
            assert_eq!(exception.location.unwrap().file(), file!());
        })
        .build()
        .unwrap();
    io_loop.add_callback(|| panic!("in a callback"));
    io_loop.add_callback(diary.writing("next"));
    io_loop.call_later(Duration::ZERO, || panic!("in a timer"));
    io_loop.call_later(Duration::ZERO, diary.writing("next timer"));
    io_loop.spawn_callback(|| async { panicking("in a spawned callback") });
    io_loop.spawn_callback(|| async { Err("an error") });
    one_turn(&io_loop);
    assert_eq!(
        diary.read(),
        [
            "callback: panicked: in a callback",
            "next",
            "coroutine: panicked: in a spawned callback",
            "coroutine: \"an error\"",
            "callback: panicked: in a timer",
            "next timer",
        ]
    );
    assert_eq!(io_loop.counters().exceptions, 4);
}

#[test]
fn the_exception_handler_may_use_the_loop_and_may_panic() {
    let diary = Diary::new();
    let inside = diary.clone();
    let io_loop = IoLoop::builder()
        .on_exception(move |exception| {
            IoLoop::current().add_callback(inside.writing("added by the handler"));
            panic!("the handler, given {exception}");
        })
        .build()
        .unwrap();
    io_loop.add_callback(|| panic!("in a callback"));
    io_loop.add_callback(diary.writing("next"));
    io_loop.run_sync(moment).unwrap();
    assert_eq!(diary.read(), ["next", "added by the handler"]);
    assert_eq!(io_loop.counters().exceptions, 1);
}

#[test]
fn a_destructor_may_add_callbacks_while_the_loop_runs() {
    let (io_loop, diary) = (IoLoop::new().unwrap(), Diary::new());
    let (inner, inside) = (io_loop.clone(), diary.clone());
    let adding = AtDrop(move || inner.add_callback(inside.writing("from a destructor")));
    io_loop.add_callback(move || adding.keep());
    io_loop.run_sync(moment).unwrap();
    assert_eq!(diary.read(), ["from a destructor"]);
}

#[test]
fn callbacks_that_add_callbacks_do_not_keep_sockets_waiting() {
    let io_loop = IoLoop::new().unwrap();
    let (here, mut there) = std::os::unix::net::UnixStream::pair().unwrap();
    io_loop.add_handler(here, Interest::READ, |_, _| IoLoop::current().stop()).unwrap();
    there.write_all(b"x").unwrap();
    fn again(io_loop: &IoLoop, left: u32) {
        assert!(left > 0, "the socket was never looked at");
        io_loop.add_callback(move || again(&IoLoop::current(), left - 1));
    }
    again(&io_loop, 10_000);
    io_loop.start().unwrap();
}

// ---------------------------------------------------------------------------------------------
// Long turns
// ---------------------------------------------------------------------------------------------

/// Counts entries, and notes how many had run when something happened.
#[derive(Clone, Default)]
struct Count(Rc<Cell<u32>>);

impl Count {
    fn get(&self) -> u32 {
        self.0.get()
    }

    /// A callback that counts, and takes so long.
    fn counting(&self, time: Duration) -> impl FnOnce() + 'static {
        let count = self.clone();
        move || {
            count.0.set(count.get() + 1);
            spin(time);
        }
    }

    /// A call that notes the count, and where it is noted.
    fn noting(&self) -> (Rc<Cell<Option<u32>>>, impl FnOnce() + 'static) {
        let (noted, count) = (Rc::new(Cell::new(None)), self.clone());
        let notes = noted.clone();
        (noted, move || notes.set(Some(count.get())))
    }
}

fn spin(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {}
}

/// How many entries of a long turn run before a byte is seen, a sleep ends, and a timer calls back, where
/// all of that could be at once. `queue` queues the entries and tells how many.
fn run_before(io_loop: &IoLoop, queue: impl Fn(&Count) -> u32) -> [u32; 3] {
    let count = Count::default();
    let ((byte, at_byte), (slept, at_sleep)) = (count.noting(), count.noting());
    let (called, at_call) = count.noting();
    io_loop
        .run_sync(async || {
            let (here, there) = UnixStream::pair().unwrap();
            drop(coroutine::start(async move {
                there.read(&mut [0]).await.unwrap();
                at_byte();
            }));
            moment().await;
            let many = queue(&count);
            drop(coroutine::start(async move {
                sleep(Duration::ZERO).await;
                at_sleep();
            }));
            io_loop.call_later(Duration::ZERO, at_call);
            here.write_all(b"x").await.unwrap();
            while count.get() < many {
                suspend().await;
            }
            moment().await;
            moment().await;
        })
        .unwrap();
    [byte, slept, called].map(|noted| noted.get().unwrap())
}

#[test]
fn a_long_turn_looks_at_sockets_and_timers_after_64_entries() {
    let seen = run_before(&virtual_loop(), |count| {
        (0..5000).for_each(|_| IoLoop::current().add_callback(count.counting(Duration::ZERO)));
        5000
    });
    assert!(seen.iter().all(|seen| *seen <= 3 * 64), "{seen:?}");
}

#[test]
fn a_turn_of_no_more_than_64_entries_is_not_interrupted() {
    let (io_loop, count) = (virtual_loop(), Count::default());
    let (called, at_call) = count.noting();
    // A turn of 40 leaves no room for another 40 before the loop looks up.
    (0..40).for_each(|_| io_loop.add_callback(|| ()));
    let inner = io_loop.clone();
    io_loop.add_callback(move || {
        let innermost = inner.clone();
        inner.add_callback(move || {
            innermost.call_later(Duration::ZERO, at_call);
        });
        (0..40).for_each(|_| inner.add_callback(count.counting(Duration::ZERO)));
    });
    io_loop.run_sync(|| sleep(SECOND)).unwrap();
    assert_eq!(called.get(), Some(40));
}

#[test]
fn slow_entries_do_not_keep_sockets_and_timers_waiting() {
    let slow = Duration::from_millis(2);
    let seen = run_before(&IoLoop::new().unwrap(), |count| {
        (0..60).for_each(|_| IoLoop::current().add_callback(count.counting(slow)));
        60
    });
    assert!(seen.iter().all(|seen| *seen <= 20), "{seen:?}");
}

#[test]
fn entries_that_become_slow_are_noticed() {
    let seen = run_before(&IoLoop::new().unwrap(), |count| {
        let io_loop = IoLoop::current();
        (0..500).for_each(|_| io_loop.add_callback(|| ()));
        (0..60).for_each(|_| io_loop.add_callback(count.counting(Duration::from_millis(2))));
        60
    });
    assert!(seen.iter().all(|seen| *seen <= 20), "{seen:?}");
}

#[test]
fn many_timers_that_are_due_do_not_keep_sockets_waiting_nor_whom_they_wake() {
    let count = Count::default();
    let ((byte, at_byte), (slept, at_sleep)) = (count.noting(), count.noting());
    let io_loop = virtual_loop();
    io_loop
        .run_sync(async || {
            let (here, there) = UnixStream::pair().unwrap();
            drop(coroutine::start(async move {
                there.read(&mut [0]).await.unwrap();
                at_byte();
            }));
            moment().await;
            drop(coroutine::start(async move {
                sleep(SECOND).await;
                at_sleep();
            }));
            for _ in 0..5000 {
                io_loop.call_later(SECOND, count.counting(Duration::ZERO));
            }
            let write = coroutine::start(async move {
                sleep(SECOND - Duration::from_nanos(1)).await;
                here.write_all(b"x").await.unwrap();
                IoLoop::current().advance(Duration::from_nanos(1));
                here
            });
            sleep(SECOND).await;
            assert_eq!(count.get(), 5000, "whoever is due last is woken last");
            write.await;
        })
        .unwrap();
    let seen = [byte, slept].map(|noted| noted.get().unwrap());
    assert!(seen.iter().all(|seen| *seen <= 3 * 64), "{seen:?}");
}

#[test]
fn timers_that_set_timers_in_a_long_turn_do_not_fire_in_the_same_turn_and_keep_nobody_waiting() {
    fn again(io_loop: &IoLoop, turns: &Rc<RefCell<Vec<u64>>>) {
        let (inner, noted) = (io_loop.clone(), turns.clone());
        io_loop.call_later(Duration::ZERO, move || {
            noted.borrow_mut().push(inner.counters().turns);
            again(&inner, &noted);
        });
    }
    let (io_loop, count) = (virtual_loop(), Count::default());
    let turns = Rc::new(RefCell::new(Vec::new()));
    again(&io_loop, &turns);
    for _ in 0..1000 {
        io_loop.add_callback(count.counting(Duration::ZERO));
    }
    io_loop.run_sync(moment).unwrap();
    let turns = turns.take();
    assert!(turns.len() > 10 && turns.windows(2).all(|pair| pair[0] < pair[1]), "{turns:?}");
    assert_eq!(count.get(), 1000);
    // The timer that is left holds its loop.
    io_loop.close();
}

#[test]
fn the_order_stays_total_for_those_whom_timers_wake_among_others() {
    for many in [3, 40, 200] {
        let (io_loop, diary) = (virtual_loop(), Diary::new());
        // One after the other: a sleep that ends, and a callback that adds a callback.
        for n in 0..many {
            let (inner, inside, slept) = (io_loop.clone(), diary.clone(), diary.clone());
            drop(io_loop.spawn(async move {
                sleep(Duration::ZERO).await;
                slept.write(format!("slept {n}"));
            }));
            drop(io_loop.spawn(async move {
                let add = inner.clone();
                inner.call_later(Duration::ZERO, move || {
                    add.add_callback(inside.writing(format!("called {n}")));
                });
            }));
        }
        io_loop.run_sync(|| sleep(SECOND)).unwrap();
        let words = diary.read();
        assert_eq!(words.len(), 2 * many);
        if many < 32 {
            let pairs = (0..many).flat_map(|n| [format!("slept {n}"), format!("called {n}")]);
            assert_eq!(words, pairs.collect::<Vec<_>>());
        }
        for of in ["slept", "called"] {
            let mine = words.iter().filter(|word| word.starts_with(of));
            assert!(mine.cloned().eq((0..many).map(|n| format!("{of} {n}"))), "{words:?}");
        }
    }
}

/// Those whom timers woke in a turn have their places in the next one if that is over first.
#[test]
fn whom_timers_woke_in_a_turn_that_is_over_run_in_their_places_in_the_next_one() {
    let (io_loop, diary) = (virtual_loop(), Diary::new());
    let (inner, notes) = (io_loop.clone(), diary.clone());
    io_loop.add_callback(move || {
        for n in 0..10 {
            let slept = notes.writing(format!("slept {n}"));
            drop(coroutine::start(async {
                sleep(Duration::ZERO).await;
                slept();
            }));
        }
        for n in 0..100 {
            // The timers fire after the first 64.
            let (adds, note) = (inner.clone(), notes.writing(format!("added by {n}")));
            inner.add_callback(move || adds.add_callback(note));
        }
    });
    io_loop.run_sync(|| sleep(SECOND)).unwrap();
    let added = |n| format!("added by {n}");
    let slept = (0..10).map(|n| format!("slept {n}"));
    let expected: Vec<_> = (0..64).map(added).chain(slept).chain((64..100).map(added)).collect();
    assert_eq!(diary.read(), expected);
}

#[test]
fn a_long_turn_in_which_timers_fire_is_one_turn() {
    let (io_loop, turns) = (virtual_loop(), Rc::new(RefCell::new(HashSet::new())));
    io_loop.call_later(Duration::ZERO, || ());
    for _ in 0..1000 {
        let (inner, noted) = (io_loop.clone(), turns.clone());
        io_loop.add_callback(move || _ = noted.borrow_mut().insert(inner.counters().turns));
    }
    io_loop.run_sync(|| sleep(SECOND)).unwrap();
    assert_eq!(turns.borrow().len(), 1);
}

/// Whether that was a timer or a socket.
#[test]
fn whom_an_entry_of_a_long_turn_wakes_waits_for_the_next_one_although_others_went_ahead() {
    for by_timer in [true, false] {
        let (io_loop, count, event) = (virtual_loop(), Count::default(), Event::new());
        let ((ahead, at_other), (woken, at_wake)) = (count.noting(), count.noting());
        io_loop
            .run_sync(async || {
                let (here, there) = UnixStream::pair().unwrap();
                drop(coroutine::start(async move {
                    match by_timer {
                        true => sleep(SECOND).await,
                        false => drop(there.read(&mut [0]).await),
                    }
                    at_other();
                }));
                let waits = event.clone();
                drop(coroutine::start(async move {
                    waits.wait().await;
                    at_wake();
                }));
                moment().await;
                for n in 0..200 {
                    let (event, counts) = (event.clone(), count.counting(Duration::ZERO));
                    io_loop.add_callback(move || {
                        if n == 70 {
                            event.set();
                        }
                        counts();
                    });
                }
                here.write_all(b"x").await.unwrap();
                if by_timer {
                    io_loop.advance(SECOND);
                }
                sleep(SECOND).await;
            })
            .unwrap();
        assert!(ahead.get() < Some(200), "{ahead:?}");
        assert_eq!(woken.get(), Some(200));
    }
}

/// In virtual time that is up to 64 entries.
#[test]
fn whom_timers_wake_do_not_go_ahead_of_few() {
    let (io_loop, count) = (virtual_loop(), Count::default());
    let seen = Rc::new(RefCell::new(Vec::new()));
    for _ in 0..40 {
        let (seen, count) = (seen.clone(), count.clone());
        drop(io_loop.spawn(async move {
            sleep(Duration::ZERO).await;
            seen.borrow_mut().push(count.get());
        }));
    }
    let inner = io_loop.clone();
    let counts = count.clone();
    // They fall asleep, and wake up in a turn of a hundred.
    io_loop.add_callback(move || {
        (0..100).for_each(|_| inner.add_callback(counts.counting(Duration::ZERO)));
    });
    io_loop.run_sync(|| sleep(SECOND)).unwrap();
    assert_eq!(*seen.borrow(), [100; 40]);
}

#[test]
fn many_whom_one_event_wakes_do_not_keep_a_long_queue_waiting() {
    let (io_loop, order) = (virtual_loop(), Rc::new(RefCell::new(String::new())));
    io_loop
        .run_sync(async || {
            let (here, there) = UnixStream::pair().unwrap();
            assert!(there.try_read(&mut [0]).is_err());
            let there = Rc::new(there);
            for _ in 0..300 {
                let (there, order) = (there.clone(), order.clone());
                drop(coroutine::start(async move {
                    there.readable().await.unwrap();
                    order.borrow_mut().push('w');
                }));
            }
            for _ in 0..1000 {
                let order = order.clone();
                io_loop.add_callback(move || order.borrow_mut().push('q'));
            }
            here.write_all(b"x").await.unwrap();
            sleep(SECOND).await;
        })
        .unwrap();
    let order = order.take();
    let all_woken = order.rfind('w').unwrap();
    let longest = |of: char| order[..=all_woken].split(|c| c != of).map(str::len).max().unwrap();
    assert_eq!((order.len(), order.matches('w').count()), (1300, 300));
    assert!(longest('w') <= 64 && longest('q') <= 64, "{order}");
}

#[test]
fn the_rest_of_a_long_turn_runs_after_stop() {
    let (io_loop, count) = (virtual_loop(), Count::default());
    let inner = io_loop.clone();
    io_loop.add_callback(move || inner.stop());
    for _ in 0..1000 {
        let (inner, next) = (io_loop.clone(), count.counting(Duration::ZERO));
        let first = count.counting(Duration::ZERO);
        io_loop.add_callback(move || {
            first();
            inner.add_callback(next);
        });
    }
    io_loop.start().unwrap();
    assert_eq!(count.get(), 1000);
    io_loop.run_sync(moment).unwrap();
    assert_eq!(count.get(), 2000);
}

#[test]
fn a_thread_that_posts_all_the_time_keeps_no_sleep_waiting() {
    let (io_loop, stop) = (IoLoop::new().unwrap(), Arc::new(AtomicBool::new(false)));
    let (handle, stops) = (io_loop.handle(), stop.clone());
    let posting = thread::spawn(move || {
        let mut posted = 0;
        while !stops.load(SeqCst) && posted < 500_000 {
            handle.add_callback(|| spin(Duration::from_micros(2))).unwrap();
            posted += 1;
        }
    });
    let most = io_loop.run_sync(async || {
        let mut most = 0;
        for _ in 0..20 {
            let callbacks = IoLoop::current().counters().callbacks;
            sleep(Duration::from_micros(100)).await;
            most = most.max(IoLoop::current().counters().callbacks - callbacks);
        }
        stop.store(true, SeqCst);
        most
    });
    posting.join().unwrap();
    let most = most.unwrap();
    assert!(most < 5_000, "{most} callbacks ran meanwhile");
}

#[test]
fn a_moment_lets_sockets_and_timers_have_their_turn() {
    let (count, io_loop) = (Count::default(), virtual_loop());
    let ((byte, at_byte), (called, at_call)) = (count.noting(), count.noting());
    io_loop
        .run_sync(async || {
            let (here, there) = UnixStream::pair().unwrap();
            drop(coroutine::start(async move {
                there.read(&mut [0]).await.unwrap();
                at_byte();
            }));
            moment().await;
            here.write_all(b"x").await.unwrap();
            io_loop.call_later(Duration::ZERO, at_call);
            for _ in 0..10 {
                moment().await;
                count.counting(Duration::ZERO)();
            }
        })
        .unwrap();
    assert_eq!([byte.get(), called.get()], [Some(1), Some(1)]);
}

#[test]
fn the_selector_is_asked_less_often_when_entries_are_short() {
    let polls = |io_loop: IoLoop, entries: u64, time| {
        let before = io_loop.counters().polls;
        io_loop
            .run_sync(async || {
                for _ in 0..entries {
                    spin(time);
                    suspend().await;
                }
            })
            .unwrap();
        io_loop.counters().polls - before
    };
    let short = polls(virtual_loop(), 64 * 20, Duration::ZERO);
    assert!((20..=22).contains(&short), "{short}");
    let long = polls(IoLoop::new().unwrap(), 64, Duration::from_millis(1));
    assert!((40..=66).contains(&long), "{long}");
}

// ---------------------------------------------------------------------------------------------
// Timers
// ---------------------------------------------------------------------------------------------

#[test]
fn timers_run_by_deadline_and_equal_ones_in_the_order_in_which_they_were_set() {
    let (io_loop, diary) = (virtual_loop(), Diary::new());
    let at = io_loop.time() + SECOND;
    for n in 0..20 {
        io_loop.call_at(at, diary.writing(format!("{n}")));
    }
    io_loop.call_later(2 * SECOND, diary.writing("later"));
    io_loop.call_at(at - Duration::from_nanos(1), diary.writing("sooner"));
    io_loop.add_timeout(at, diary.writing("20"));
    io_loop.add_timeout(Deadline::After(SECOND), diary.writing("21"));
    io_loop.run_sync(|| sleep(3 * SECOND)).unwrap();
    let mut expected = vec!["sooner".to_string()];
    expected.extend((0..22).map(|n| n.to_string()));
    expected.push("later".into());
    assert_eq!(diary.read(), expected);
    // And the sleep.
    assert_eq!((io_loop.counters().timers, io_loop.counters().callbacks), (25, 24));
}

#[test]
fn a_timer_set_while_timers_run_does_not_fire_in_the_same_turn() {
    let (io_loop, diary) = (virtual_loop(), Diary::new());
    let (inner, inside) = (io_loop.clone(), diary.clone());
    io_loop.call_later(Duration::ZERO, move || {
        let turn = inner.counters().turns;
        inside.write("first");
        let (innermost, inside) = (inner.clone(), inside.clone());
        inner.call_later(Duration::ZERO, move || {
            inside.write(format!("{} later", innermost.counters().turns - turn));
            innermost.stop();
        });
    });
    io_loop.call_later(Duration::ZERO, diary.writing("second"));
    io_loop.start().unwrap();
    assert_eq!(diary.read(), ["first", "second", "1 later"]);
}

#[test]
fn a_due_timer_can_take_back_another_due_one() {
    // Due at the same time, or at different times and all of them late.
    for (late, apart) in [(Duration::ZERO, Duration::ZERO), (5 * SECOND, SECOND)] {
        let (io_loop, diary) = (virtual_loop(), Diary::new());
        let due = io_loop.time() + SECOND;
        io_loop.run_sync(|| sleep(late)).unwrap();
        let victim = Rc::new(Cell::new(None));
        let (inner, inside, victim_) = (io_loop.clone(), diary.clone(), victim.clone());
        io_loop.call_at(due, move || {
            let removed = inner.remove_timeout(victim_.take().unwrap());
            inside.write(format!("removed {removed}"));
        });
        let end = diary.at_end("closure dropped");
        victim.set(Some(io_loop.call_at(due + apart, move || end.keep())));
        io_loop.call_at(due + 2 * apart, diary.writing("third"));
        io_loop.run_sync(|| sleep(SECOND)).unwrap();
        assert_eq!(diary.read(), ["closure dropped", "removed true", "third"]);
    }
}

#[test]
fn removing_a_timer_frees_its_closure_at_once() {
    let io_loop = virtual_loop();
    let at = io_loop.time() + SECOND;
    let held = Rc::new(());
    let holding = || {
        let holding = held.clone();
        move || drop(holding)
    };
    // However it was set.
    let timeouts = [
        io_loop.call_later(SECOND, holding()),
        io_loop.call_at(at, holding()),
        io_loop.add_timeout(at, holding()),
        io_loop.add_timeout(Deadline::After(SECOND), holding()),
    ];
    for (n, timeout) in timeouts.into_iter().enumerate() {
        assert_eq!(Rc::strong_count(&held), 5 - n);
        assert!(io_loop.remove_timeout(timeout));
        assert_eq!(Rc::strong_count(&held), 4 - n);
        assert!(!io_loop.remove_timeout(timeout));
    }
    assert_eq!(io_loop.counters().pending_timers, 0);
}

#[test]
fn removing_a_timer_that_has_fired_harms_nothing() {
    let (io_loop, diary) = (virtual_loop(), Diary::new());
    let fired = io_loop.call_later(Duration::ZERO, diary.writing("fired"));
    io_loop.run_sync(moment).unwrap();
    assert!(!io_loop.remove_timeout(fired));
    // Nor does it hit one that has taken its place.
    io_loop.call_later(SECOND, diary.writing("another"));
    assert!(!io_loop.remove_timeout(fired));
    io_loop.run_sync(|| sleep(2 * SECOND)).unwrap();
    assert_eq!(diary.read(), ["fired", "another"]);
}

#[test]
fn what_has_fired_takes_no_timer_back_and_ends_no_sleep_however_many_have_come_after_it() {
    let io_loop = virtual_loop();
    let old = io_loop.call_later(Duration::ZERO, || ());
    let mut slept = Box::pin(sleep(Duration::ZERO));
    io_loop
        .run_sync(async || {
            // It is polled once, and never learns that it is over.
            poll_fn(|cx| Poll::Ready(slept.as_mut().poll(cx).is_pending())).await;
            sleep(SECOND).await;
        })
        .unwrap();
    // More than a slot has generations in a waker of 32 bits. (`slots.rs` tests the rest.)
    for _ in 0..1000 {
        let others = [(); 2].map(|()| io_loop.call_later(SECOND, || ()));
        assert!(!io_loop.remove_timeout(old));
        for other in others {
            assert!(io_loop.remove_timeout(other));
        }
    }
    io_loop
        .run_sync(async || {
            let others: Vec<_> = (0..3).map(|_| coroutine::start(sleep(SECOND))).collect();
            sleep(Duration::ZERO).await;
            drop(slept);
            futures::future::join_all(others).await;
        })
        .unwrap();
}

#[test]
fn a_timer_of_another_loop_is_left_alone() {
    let (io_loop, other, diary) = (virtual_loop(), virtual_loop(), Diary::new());
    let timeout = io_loop.call_later(SECOND, diary.writing("kept"));
    other.call_later(SECOND, || ());
    assert!(!other.remove_timeout(timeout));
    io_loop.run_sync(|| sleep(2 * SECOND)).unwrap();
    assert_eq!(diary.read(), ["kept"]);
}

#[test]
fn a_timer_may_take_itself_back_while_it_runs() {
    let io_loop = virtual_loop();
    let own = Rc::new(Cell::new(None));
    let (inner, own_) = (io_loop.clone(), own.clone());
    own.set(Some(io_loop.call_later(SECOND, move || {
        assert!(!inner.remove_timeout(own_.take().unwrap()));
    })));
    io_loop.run_sync(|| sleep(2 * SECOND)).unwrap();
    assert_eq!(io_loop.counters().exceptions, 0);
}

#[test]
fn a_deadline_in_the_past_is_due_in_the_next_turn() {
    let (before, io_loop, diary) = (Instant::now(), virtual_loop(), Diary::new());
    for past in [before, before - Duration::from_millis(1), io_loop.time()] {
        io_loop.call_at(past, diary.writing("past"));
    }
    let begun = io_loop.time();
    one_turn(&io_loop);
    assert_eq!(diary.read(), ["past", "past", "past"]);
    assert_eq!(io_loop.time(), begun);
}

#[test]
fn a_deadline_too_far_to_count_never_comes_and_can_be_taken_back() {
    let (io_loop, diary) = (virtual_loop(), Diary::new());
    let never = io_loop.call_later(Duration::MAX, diary.writing("never"));
    let far = io_loop.call_later(Duration::from_secs(400 * 365 * 86_400), diary.writing("far"));
    io_loop.run_sync(|| sleep(Duration::from_secs(100 * 365 * 86_400))).unwrap();
    assert!(diary.read().is_empty());
    assert!(io_loop.remove_timeout(never));
    assert!(io_loop.remove_timeout(far));
}

#[test]
fn timers_that_follow_closely_share_wake_ups() {
    let io_loop = IoLoop::new().unwrap();
    let fired = Rc::new(Cell::new(0));
    for n in 1..=1000 {
        let fired = fired.clone();
        io_loop.call_later(n * Duration::from_micros(20), move || fired.set(fired.get() + 1));
    }
    io_loop.run_sync(|| sleep(Duration::from_millis(21))).unwrap();
    assert_eq!(fired.get(), 1000);
    // One for each of them otherwise, unless the machine is slow.
    let polls = io_loop.counters().polls;
    assert!(polls <= 600, "{polls}");
}

#[test]
#[cfg(target_os = "linux")]
fn what_a_loop_opens_is_not_inherited_by_children() {
    let io_loop = IoLoop::new().unwrap();
    let files = || {
        let entries = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let named = |entry: std::fs::DirEntry| {
            let name =
                std::fs::read_link(entry.path()).ok()?.into_os_string().into_string().ok()?;
            let flags = std::fs::read_to_string(
                std::path::Path::new("/proc/self/fdinfo").join(entry.file_name()),
            );
            Some((name, flags.ok()?))
        };
        entries.filter_map(named).collect::<Vec<_>>()
    };
    io_loop.run_sync(|| sleep(Duration::from_micros(900))).unwrap();
    for (name, info) in files().into_iter().filter(|(name, _)| name.starts_with("anon_inode:")) {
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
        assert_ne!(flags & 0o2_000_000, 0, "{name} is closed on exec: {info}");
    }
}

#[test]
fn timers_keep_to_the_real_clock() {
    let io_loop = IoLoop::new().unwrap();
    for wanted in [Duration::from_micros(300), Duration::from_micros(2_700)] {
        let begun = Instant::now();
        let inner = io_loop.clone();
        io_loop.call_later(wanted, move || inner.stop());
        io_loop.start().unwrap();
        assert!(begun.elapsed() >= wanted);
    }
}

/// A loop that does not wake up for its timers within an hour.
fn sluggish_loop() -> IoLoop {
    IoLoop::builder().timer_slack(Duration::MAX).build().unwrap()
}

#[test]
fn timers_that_share_a_wake_up_fire_by_deadline_and_equal_ones_in_the_order_in_which_they_were_set()
{
    let (io_loop, diary) = (sluggish_loop(), Diary::new());
    let begun = io_loop.time();
    let last = begun + Duration::from_millis(4);
    for (millis, word) in [(3, "c"), (1, "a"), (2, "removed"), (1, "b"), (3, "d")] {
        let (inner, diary) = (io_loop.clone(), diary.clone());
        let due = begun + Duration::from_millis(millis);
        let timer = io_loop.call_at(due, move || {
            assert!(inner.time() >= due, "early");
            diary.write(word);
        });
        if word == "removed" {
            assert!(io_loop.remove_timeout(timer));
        }
    }
    let inner = io_loop.clone();
    io_loop.call_at(last, move || inner.stop());
    let handle = io_loop.handle();
    let waking = thread::spawn(move || {
        while Instant::now() < last {
            thread::yield_now();
        }
        handle.add_callback(|| ()).unwrap();
    });
    io_loop.start().unwrap();
    assert_eq!(diary.read(), ["a", "b", "c", "d"]);
    waking.join().unwrap();
}

#[test]
fn slack_delays_no_timer_while_the_loop_is_awake() {
    sluggish_loop()
        .run_sync(|| async {
            let millisecond = Duration::from_millis(1);
            let sleeping = coroutine::spawn(sleep(millisecond));
            while !sleeping.done() {
                moment().await;
            }
        })
        .unwrap();
}

#[test]
fn a_slack_delays_time_limits_and_beats_keep_their_phase() {
    let millisecond = Duration::from_millis(1);
    let io_loop = IoLoop::builder().timer_slack(millisecond).build().unwrap();
    let begun = io_loop.time();
    let timed_out = io_loop.run_sync_timeout(millisecond, pending::<()>);
    assert!(matches!(timed_out, Err(RunError::TimedOut { .. })));
    assert!(io_loop.time() >= begun + millisecond);
    io_loop
        .run_sync(|| async {
            assert!(coroutine::with_timeout(millisecond, pending::<()>()).await.is_err());
            let mut beat = coroutine::interval(millisecond);
            let first = beat.tick().await;
            for n in 1..5 {
                let due = beat.tick().await;
                assert_eq!(due, first + n * millisecond);
                assert!(coroutine::now() >= due);
            }
        })
        .unwrap();
}

#[test]
fn in_virtual_time_slack_delays_nothing() {
    let builder = IoLoop::builder().virtual_time().timer_slack(1000 * SECOND);
    let io_loop = builder.build().unwrap();
    let begun = io_loop.time();
    io_loop
        .run_sync(|| async {
            for n in 1..5 {
                sleep(SECOND).await;
                assert_eq!(coroutine::now(), begun + n * SECOND);
            }
        })
        .unwrap();
}

// ---------------------------------------------------------------------------------------------
// PeriodicCallback
// ---------------------------------------------------------------------------------------------

/// A loop, and a diary of the seconds at which something was called.
fn beating() -> (IoLoop, Diary, impl Fn() + Clone + 'static) {
    let (io_loop, diary) = (virtual_loop(), Diary::new());
    let (begun, inner, inside) = (io_loop.time(), io_loop.clone(), diary.clone());
    let note = move || inside.write(seconds(&inner, begun));
    (io_loop, diary, note)
}

#[test]
fn a_periodic_callback_is_first_called_after_one_period_and_keeps_the_beat() {
    let (io_loop, diary, note) = beating();
    io_loop
        .run_sync(|| async {
            let periodic = PeriodicCallback::new(SECOND, note);
            assert!(!periodic.is_running());
            periodic.start();
            periodic.start();
            assert!(periodic.is_running());
            sleep(Duration::from_millis(3500)).await;
            periodic.stop();
            periodic.stop();
            assert!(!periodic.is_running());
            sleep(3 * SECOND).await;
        })
        .unwrap();
    assert_eq!(diary.read(), ["1", "2", "3"]);
    assert_eq!(io_loop.counters().pending_timers, 0);
}

#[test]
fn missed_beats_are_skipped_and_the_phase_is_kept() {
    let (io_loop, diary, note) = beating();
    io_loop
        .run_sync(|| async {
            // A call that lasts until the next beat misses that.
            let mut lasts = [9, 9, 10, 11, 20, 20, 35, 35, 0, 0, 0].into_iter();
            let periodic = PeriodicCallback::new_async(10 * SECOND, move || {
                note();
                sleep(lasts.next().unwrap() * SECOND)
            });
            periodic.start();
            sleep(235 * SECOND).await;
        })
        .unwrap();
    let beats = ["10", "20", "30", "50", "70", "100", "130", "170", "210", "220", "230"];
    assert_eq!(diary.read(), beats);
}

#[test]
fn an_async_callback_never_overlaps_itself() {
    let (io_loop, diary) = (virtual_loop(), Diary::new());
    io_loop
        .run_sync(|| async {
            let inside = diary.clone();
            let periodic = PeriodicCallback::new_async(SECOND, move || {
                let diary = inside.clone();
                async move {
                    diary.write("begins");
                    sleep(Duration::from_millis(1500)).await;
                    diary.write("ends");
                }
            });
            periodic.start();
            sleep(Duration::from_millis(5700)).await;
            assert_eq!(diary.read(), ["begins", "ends", "begins", "ends", "begins"]);
            // Started again while a call is under way, it still does not.
            periodic.stop();
            periodic.start();
            sleep(4 * SECOND).await;
        })
        .unwrap();
    let words = diary.read();
    let expected = ["ends", "begins"].iter().cycle().take(words.len());
    assert!(words.iter().eq(expected), "{words:?}");
    assert!(words.len() > 2);
}

#[test]
fn an_async_closure_keeps_what_it_has_between_its_calls_and_borrows_from_it() {
    let (io_loop, diary) = (virtual_loop(), Diary::new());
    io_loop
        .run_sync(async || {
            let (inside, end, mut calls) = (diary.clone(), diary.at_end("freed"), Vec::new());
            let periodic = PeriodicCallback::new_async(SECOND, async move || {
                end.keep();
                let number = calls.len();
                calls.push(number);
                let last = calls.last_mut().unwrap();
                sleep(Duration::from_millis(100)).await;
                *last += 1;
                inside.write(format!("{calls:?}"));
            });
            periodic.start();
            sleep(Duration::from_millis(3050)).await;
            assert_eq!(diary.read(), ["[1]", "[1, 2]"]);
            // A call that is under way when it is dropped ends, and what it borrows stays until then.
            drop(periodic);
            assert!(diary.read().is_empty());
            sleep(SECOND).await;
        })
        .unwrap();
    assert_eq!(diary.read(), ["[1, 2, 3]", "freed"]);
}

#[test]
fn an_async_callback_that_panics_or_is_cancelled_is_free_for_the_next_beat() {
    let diary = Diary::new();
    let io_loop = diary.exceptions_of(IoLoop::builder().virtual_time()).build().unwrap();
    let inside = diary.clone();
    let (mut calls, mut held) = (0, diary.at_end("freed"));
    let periodic = PeriodicCallback::new_async(SECOND, async move || {
        held.keep();
        let held = &mut held;
        calls += 1;
        inside.write(calls);
        match calls {
            1 => panic!("at once"),
            2 => {
                moment().await;
                panic!("later")
            }
            3 => {
                let pending = coroutine::spawn(std::future::pending::<()>());
                pending.cancel();
                pending.await; // which panics
            }
            _ => std::future::pending().await,
        }
        held.keep();
    });
    io_loop
        .run_sync(async || {
            periodic.start();
            sleep(10 * SECOND).await;
        })
        .unwrap();
    let told = diary.read();
    assert_eq!(told[..4], ["1", "panicked: at once", "2", "panicked: later"]);
    assert_eq!((told[4].as_str(), told.last().unwrap().as_str()), ("3", "4"));
    // The fourth call is still under way, and ends with the loop.
    io_loop.close();
    assert!(diary.read().is_empty());
    drop(periodic);
    assert_eq!(diary.read(), ["freed"]);
}

#[test]
fn jitter_stays_within_its_bounds_and_varies() {
    let (io_loop, times) = (virtual_loop(), Rc::new(RefCell::new(Vec::new())));
    io_loop
        .run_sync(|| async {
            let (noted, begun) = (times.clone(), IoLoop::current().time());
            let periodic = PeriodicCallback::new(SECOND, move || {
                noted.borrow_mut().push(IoLoop::current().time() - begun);
            })
            .jitter(0.5);
            periodic.start();
            sleep(100 * SECOND).await;
        })
        .unwrap();
    let times = times.borrow();
    assert!((80..=134).contains(&times.len()), "{}", times.len());
    let periods: HashSet<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let bounds = Duration::from_millis(750)..=Duration::from_millis(1250);
    assert!(periods.iter().all(|period| bounds.contains(period)), "{periods:?}");
    assert!(periods.len() > 10);
}

#[test]
fn a_period_of_zero_and_a_jitter_beyond_one_are_refused() {
    assert!(panic_of(|| PeriodicCallback::new(Duration::ZERO, || ())).contains("longer than zero"));
    let wild = || PeriodicCallback::new(SECOND, || ()).jitter(1.5);
    assert!(panic_of(wild).contains("between 0 and 1"));
    let not_a_number = || PeriodicCallback::new(SECOND, || ()).jitter(f64::NAN);
    assert!(panic_of(not_a_number).contains("between 0 and 1"));
}

#[test]
fn stop_inside_the_callback_wins() {
    for is_async in [false, true] {
        let (io_loop, diary, note) = beating();
        io_loop
            .run_sync(|| async {
                let own = Rc::new(RefCell::new(None::<PeriodicCallback>));
                let inside = own.clone();
                let call = move || {
                    note();
                    inside.borrow().as_ref().unwrap().stop();
                };
                let periodic = if is_async {
                    let call = Rc::new(call);
                    PeriodicCallback::new_async(SECOND, move || {
                        let call = call.clone();
                        async move {
                            call();
                            moment().await;
                        }
                    })
                } else {
                    PeriodicCallback::new(SECOND, call)
                };
                periodic.start();
                *own.borrow_mut() = Some(periodic);
                sleep(5 * SECOND).await;
                assert!(!own.borrow().as_ref().unwrap().is_running());
                drop(own.take());
            })
            .unwrap();
        assert_eq!(diary.read(), ["1"]);
    }
}

#[test]
fn started_again_it_takes_a_new_phase() {
    let (io_loop, diary, note) = beating();
    io_loop
        .run_sync(|| async {
            let periodic = PeriodicCallback::new(SECOND, note);
            periodic.start();
            sleep(Duration::from_millis(1500)).await;
            periodic.stop();
            periodic.start();
            sleep(2 * SECOND).await;
        })
        .unwrap();
    // The sleep was set later than the beat of 3.5, and ends in the same turn.
    assert_eq!(diary.read()[..2], ["1", "2.5"]);
}

#[test]
fn a_panic_or_an_error_in_it_is_reported_and_the_beat_goes_on() {
    let diary = Diary::new();
    let io_loop = diary.exceptions_of(IoLoop::builder().virtual_time()).build().unwrap();
    io_loop
        .run_sync(|| async {
            let panicking = PeriodicCallback::new(SECOND, || panic!("at the beat"));
            let failing = PeriodicCallback::new_async(SECOND, || async { Err("failed") });
            panicking.start();
            failing.start();
            sleep(Duration::from_millis(2500)).await;
        })
        .unwrap();
    let twice = ["panicked: at the beat", "\"failed\""].repeat(2);
    assert_eq!(diary.read(), twice);
}

#[test]
fn what_goes_wrong_in_it_is_reported_with_the_place_where_it_was_made() {
    let diary = Diary::new();
    let heard = diary.clone();
    let io_loop = IoLoop::builder()
        .virtual_time()
        .on_exception(move |exception| {
            let location = exception.location.unwrap();
            heard.write(format!("{}:{}", location.file(), location.line()));
        })
        .build()
        .unwrap();
    let here = line!();
    let panicking = PeriodicCallback::new(SECOND, || panic!("at the beat"));
    let failing = PeriodicCallback::new_async(SECOND, || async { Err("failed") });
    io_loop
        .run_sync(|| async {
            panicking.start();
            failing.start();
            sleep(Duration::from_millis(1500)).await;
        })
        .unwrap();
    let file = file!();
    assert_eq!(diary.read(), [format!("{file}:{}", here + 1), format!("{file}:{}", here + 2)]);
}

#[test]
fn dropping_it_stops_it_and_frees_its_callback() {
    let (io_loop, diary) = (virtual_loop(), Diary::new());
    io_loop
        .run_sync(|| async {
            let (end, call) = (diary.at_end("freed"), diary.clone());
            let periodic = PeriodicCallback::new(SECOND, move || {
                end.keep();
                call.write("beat");
            });
            periodic.start();
            sleep(Duration::from_millis(1500)).await;
            drop(periodic);
            diary.write("dropped");
            sleep(5 * SECOND).await;
        })
        .unwrap();
    assert_eq!(diary.read(), ["beat", "freed", "dropped"]);
}

#[test]
fn it_may_be_dropped_inside_its_callback() {
    let (io_loop, diary, note) = beating();
    io_loop
        .run_sync(|| async {
            let own = Rc::new(RefCell::new(None::<PeriodicCallback>));
            let inside = own.clone();
            let periodic = PeriodicCallback::new(SECOND, move || {
                note();
                let it = inside.take();
                drop(it);
            });
            periodic.start();
            *own.borrow_mut() = Some(periodic);
            sleep(5 * SECOND).await;
        })
        .unwrap();
    assert_eq!(diary.read(), ["1"]);
}

#[test]
fn it_beats_on_the_loop_where_it_was_started() {
    let (io_loop, diary, note) = beating();
    let other = virtual_loop();
    let periodic = PeriodicCallback::new(SECOND, note);
    io_loop.run_sync(|| async { periodic.start() }).unwrap();
    other.run_sync(|| sleep(5 * SECOND)).unwrap();
    assert!(diary.read().is_empty());
    io_loop.run_sync(|| sleep(Duration::from_millis(1500))).unwrap();
    assert_eq!(diary.read(), ["1"]);
    // Stopped from elsewhere, it is not called any more.
    other.run_sync(|| async { periodic.stop() }).unwrap();
    io_loop.run_sync(|| sleep(5 * SECOND)).unwrap();
    assert!(diary.read().is_empty());
}

// ---------------------------------------------------------------------------------------------
// Virtual time
// ---------------------------------------------------------------------------------------------

#[test]
fn virtual_time_stands_still_while_anything_is_left_to_do() {
    let io_loop = virtual_loop();
    let begun = io_loop.time();
    let inner = io_loop.clone();
    io_loop.call_later(SECOND, || ());
    io_loop
        .run_sync(|| async move {
            for _ in 0..1000 {
                suspend().await;
                assert_eq!(inner.time(), begun);
            }
        })
        .unwrap();
}
