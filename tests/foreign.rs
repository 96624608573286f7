//! Foreign code ends where it is called: it panics, comes back into the loop, or takes the last handle
//! of something, and nobody else notices.

mod child;
mod common;

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use common::{
    AtDrop, Bomb, Diary, one_turn, own_waker, panic_of, poll_for, seconds, suspend, turns,
    virtual_loop,
};
use futures::FutureExt;
use waterspout::concurrent::promise;
use waterspout::coroutine::{self, moment, sleep, spawn, start};
use waterspout::locks::Event;
use waterspout::{Coroutine, IoLoop};

// ---------------------------------------------------------------------------------------------
// A loop that runs within the eager part of a coroutine

/// What [`Logger`] is to panic at, so often.
static LOGGER_PANICS: AtomicU32 = AtomicU32::new(0);
const TROUBLE: &str = "to_be_troubled";

/// A logger whose disk is full, for what mentions [`TROUBLE`].
struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.args().to_string().contains(TROUBLE) {
            LOGGER_PANICS.fetch_add(1, SeqCst);
            panic!("the disk is full");
        }
    }

    fn flush(&self) {}
}

/// Runs `inner` on the loop from within the eager part of a coroutine of it, which is queued
/// meanwhile, and tells whether that coroutine's locals were still there after.
fn run_within_a_coroutine(io_loop: &IoLoop, inner: impl FnOnce(&IoLoop) + 'static) -> bool {
    io_loop.make_current();
    let (dropped, kept) = <(Rc<Cell<bool>>, Rc<Cell<bool>>)>::default();
    let (drops, keeps, within) = (dropped.clone(), kept.clone(), io_loop.clone());
    let to_be_troubled = async move {
        let local = AtDrop(move || drops.set(true));
        let text = "alive ".repeat(10);
        own_waker().await.wake(); // it is queued, and runs
        inner(&within);
        keeps.set(!dropped.get() && text.starts_with("alive"));
        local.keep();
    };
    drop(start(to_be_troubled));
    IoLoop::clear_current();
    kept.get()
}

#[test]
fn a_coroutine_is_not_dropped_while_it_is_polled_whoever_panics_in_a_loop_within_it() {
    log::set_boxed_logger(Box::new(Logger)).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    let io_loop = IoLoop::builder().slow_callback(Duration::ZERO).build().unwrap();
    // The name of the closure is in what is logged of it.
    fn to_be_troubled(io_loop: &IoLoop) -> bool {
        run_within_a_coroutine(io_loop, |io_loop| {
            io_loop.run_sync(|| sleep(Duration::from_millis(1))).unwrap();
        })
    }
    assert!(to_be_troubled(&io_loop));
}

#[test]
fn panics_in_a_loop_within_a_coroutine_are_not_that_coroutines() {
    let diary = Diary::new();
    let io_loop = diary.exceptions_of(IoLoop::builder().virtual_time()).build().unwrap();
    let kept = run_within_a_coroutine(&io_loop, |io_loop| {
        io_loop.add_callback(|| panic!("a callback"));
        drop(io_loop.spawn(async {
            suspend().await;
            panic!("another coroutine")
        }));
        let message = panic_of(|| {
            io_loop.run_sync(|| async {
                sleep(seconds(1)).await;
                panic!("the main future")
            })
        });
        assert_eq!(message, "the main future");
    });
    assert!(kept);
    assert_eq!(diary.read(), ["panicked: a callback", "panicked: another coroutine"]);
}

#[test]
fn a_loop_within_a_coroutine_may_be_closed_and_may_cancel_it() {
    for close in [false, true] {
        let io_loop = virtual_loop();
        io_loop.make_current();
        let (diary, within) = (Diary::new(), io_loop.clone());
        let (end, note) = (diary.at_end("dropped"), diary.clone());
        let own = Rc::new(RefCell::new(None::<Coroutine<()>>));
        let itself = own.clone();
        let coroutine = io_loop.spawn({
            let own = own.clone();
            async move {
                moment().await;
                if let Some(own) = &*own.borrow() {
                    own.cancel();
                }
            }
        });
        let first = start(async move {
            let _end = end;
            if close {
                within.close();
            } else {
                within.run_sync(|| coroutine).unwrap();
            }
            note.write("goes on");
            drop(itself);
            pending::<()>().await
        });
        assert_eq!(diary.read(), if close { vec!["goes on", "dropped"] } else { vec!["goes on"] });
        *own.borrow_mut() = Some(first);
        io_loop.close();
        own.take();
        IoLoop::clear_current();
    }
}

#[test]
fn what_wakes_a_coroutine_while_a_loop_runs_within_it_is_not_forgotten() {
    let io_loop = virtual_loop();
    io_loop.make_current();
    let (event, within) = (Event::new(), io_loop.clone());
    let task = start(async move {
        let waits = pin!(event.wait().fuse());
        let runs = pin!(
            async {
                within.run_sync(|| async { event.set() }).unwrap();
                pending::<()>().await
            }
            .fuse()
        );
        futures::future::select(waits, runs).await;
    });
    io_loop.run_sync_timeout(seconds(1), || task).unwrap();
    IoLoop::clear_current();
}

#[test]
fn a_coroutine_that_a_loop_within_it_has_found_woken_goes_on_once_after() {
    let io_loop = virtual_loop();
    io_loop.make_current();
    let (within, polls) = (io_loop.clone(), Rc::new(Cell::new(0)));
    let counts = polls.clone();
    drop(start(poll_fn(move |cx| {
        counts.set(counts.get() + 1);
        // Twice, and each time its turn comes while it is still running.
        for _ in 0..2 * u32::from(counts.get() == 1) {
            cx.waker().wake_by_ref();
            within.run_sync(|| turns(2)).unwrap();
        }
        Poll::<()>::Pending
    })));
    assert_eq!(polls.get(), 1);
    io_loop.run_sync(|| turns(5)).unwrap();
    assert_eq!(polls.get(), 2);
    io_loop.close();
    IoLoop::clear_current();
}

#[test]
fn a_loop_that_runs_within_a_coroutine_does_not_give_it_a_fresh_budget() {
    let io_loop = virtual_loop();
    io_loop.make_current();
    let (within, seen) = (io_loop.clone(), Rc::new(Cell::new(0)));
    let counts = seen.clone();
    let event = Event::new();
    event.set();
    drop(start(async move {
        for n in 1.. {
            event.wait().await;
            counts.set(n);
            if n == 100 {
                within.run_sync(async || moment().await).unwrap();
            }
        }
    }));
    assert!(seen.get() < 1_000, "it never gives way");
    io_loop.close();
}

// ---------------------------------------------------------------------------------------------
// Panics

struct PanicsAtEnd;

impl Drop for PanicsAtEnd {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("a destructor");
        }
    }
}

/// Panics when it is dropped, with a payload that does so, too.
struct PanicsWithItself(u32);

impl Drop for PanicsWithItself {
    fn drop(&mut self) {
        if self.0 > 0 {
            panic_any(PanicsWithItself(self.0 - 1));
        }
    }
}

fn listening() -> (IoLoop, Diary) {
    let diary = Diary::new();
    (diary.exceptions_of(IoLoop::builder().virtual_time()).build().unwrap(), diary)
}

fn panicking_waker() -> Waker {
    waker_fn::waker_fn(|| panic!("a waker"))
}

#[test]
fn a_cancelled_coroutine_is_done_whatever_its_destructors_panic_with() {
    // A payload that goes on and on is left where it is, which Miri calls a leak.
    for levels in if cfg!(miri) { vec![1, 2] } else { vec![1, 2, 100] } {
        let (io_loop, diary) = listening();
        let task = io_loop.spawn(async move {
            let _held = PanicsWithItself(levels);
            pending::<()>().await
        });
        one_turn(&io_loop);
        task.cancel();
        assert!(task.done());
        let joined = io_loop.run_sync(|| task.join()).unwrap();
        assert!(joined.unwrap_err().is_cancelled());
        drop(io_loop);
        assert!(diary.read().len() <= 1);
    }
}

#[test]
fn a_cancelled_coroutine_whose_destructor_panics_is_reported_once() {
    let (io_loop, diary) = listening();
    io_loop
        .run_sync(|| async {
            let task = spawn(async {
                let _held = PanicsAtEnd;
                pending::<()>().await
            });
            moment().await;
            task.cancel();
            assert!(task.done());
        })
        .unwrap();
    assert_eq!(diary.read(), ["panicked: a destructor"]);
}

#[test]
fn dropping_the_handle_of_a_done_coroutine_does_not_panic() {
    let (io_loop, diary) = listening();
    io_loop
        .run_sync(|| async {
            let output = start(async { PanicsAtEnd });
            let payload = start(async { panic_any(PanicsWithItself(1)) });
            moment().await;
            for dropped in [
                catch_unwind(AssertUnwindSafe(|| drop(output))),
                catch_unwind(AssertUnwindSafe(|| drop(payload))),
            ] {
                assert!(dropped.is_ok());
            }
        })
        .unwrap();
    let reported = diary.read();
    assert_eq!(reported, ["panicked: a destructor", "panicked: a payload that is not text"]);
}

#[test]
fn a_coroutine_wakes_its_last_awaiter_whatever_an_earlier_waker_does() {
    let (io_loop, _diary) = listening();
    let (promise, future) = promise::<()>();
    let mut task = io_loop.spawn(async move { future.await.is_ok() });
    assert!(poll_for(&mut task, &panicking_waker()).is_pending());
    let _ = io_loop.call_later(seconds(1), move || promise.set_result(()));
    assert!(io_loop.run_sync_timeout(seconds(2), || task).unwrap());
}

#[test]
fn a_coroutine_whose_awaiter_panics_when_woken_is_done_and_calls_back() {
    let (io_loop, diary) = listening();
    let mut task = io_loop.spawn(sleep(seconds(1)));
    task.add_done_callback(diary.writing("called back"));
    assert!(poll_for(&mut task, &panicking_waker()).is_pending());
    io_loop.run_sync(|| sleep(seconds(2))).unwrap();
    assert!(task.done());
    assert_eq!(diary.read(), ["panicked: a waker", "called back"]);
}

#[test]
fn an_awaiter_whose_waker_panics_when_it_is_dropped_makes_room_for_the_next() {
    let (io_loop, diary) = listening();
    let mut task = io_loop.spawn(sleep(seconds(1)));
    let (dropped, woken) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
    io_loop
        .run_sync(async || {
            let bomb = Bomb(dropped.clone());
            let first = waker_fn::waker_fn(move || _ = &bomb);
            assert!(poll_for(&mut task, &first).is_pending());
            drop(first);
            let counts = woken.clone();
            let second = waker_fn::waker_fn(move || _ = counts.fetch_add(1, SeqCst));
            assert!(poll_for(&mut task, &second).is_pending());
            assert_eq!(dropped.load(SeqCst), 1);
            sleep(seconds(2)).await;
        })
        .unwrap();
    assert_eq!((woken.load(SeqCst), diary.read()), (1, vec!["panicked: a destructor".into()]));
}

#[test]
fn an_err_whose_debug_form_panics_is_reported_all_the_same() {
    struct Shy;
    impl std::fmt::Debug for Shy {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("do not look")
        }
    }
    #[waterspout::coroutine]
    async fn fails() -> Result<(), Shy> {
        Err(Shy)
    }
    let (io_loop, diary) = listening();
    io_loop.run_sync(|| async { drop(fails()) }).unwrap();
    io_loop.spawn_callback(|| async { Err(Shy) });
    one_turn(&io_loop);
    one_turn(&io_loop);
    let reported = diary.read();
    assert!(
        reported.len() == 2 && reported.iter().all(|r| r.contains("do not look")),
        "{reported:?}"
    );
}

#[test]
fn an_exception_handler_is_not_given_what_it_causes_itself() {
    let calls = Rc::new(Cell::new(0));
    let counts = calls.clone();
    let builder = IoLoop::builder().virtual_time().on_exception(move |_| {
        counts.set(counts.get() + 1);
        drop(start(async { panic!("the reporter is down, at once") }));
        drop(spawn(async { panic!("the reporter is down, in the next turn") }));
        drop(spawn(async {
            sleep(seconds(1)).await;
            drop(spawn(async { panic!("the reporter is down, later") }));
        }));
        IoLoop::current().add_callback(|| {
            drop(spawn(async { panic!("the reporter's callback started this") }));
            panic!("the reporter's callback")
        });
        IoLoop::current().call_later(seconds(2), || panic!("the reporter's timer"));
        panic!("the reporter itself")
    });
    let io_loop = builder.build().unwrap();
    io_loop.add_callback(|| panic!("in a callback"));
    io_loop.run_sync(|| sleep(seconds(10))).unwrap();
    assert_eq!(calls.get(), 1);
    io_loop.add_callback(|| panic!("in another one"));
    one_turn(&io_loop);
    assert_eq!(calls.get(), 2, "it is asked again for what it has not caused");
}

#[test]
fn whoever_is_told_of_a_panic_has_more_than_what_was_left_of_the_budget() {
    let (diary, event) = (Diary::new(), Event::new());
    event.set();
    let (writes, ready) = (diary.clone(), event.clone());
    let builder = IoLoop::builder().virtual_time().on_exception(move |_| {
        let ready = ready.clone();
        let goes_on = start(async move { ready.wait().await });
        writes.write(if goes_on.done() { "done" } else { "out of budget" });
    });
    let io_loop = builder.build().unwrap();
    drop(io_loop.spawn(async move {
        while event.wait().now_or_never().is_some() {}
        panic!("without any budget left")
    }));
    one_turn(&io_loop);
    assert_eq!(diary.read(), ["done"]);
}

#[test]
fn what_an_exception_handler_starts_runs_like_anything_else() {
    let diary = Diary::new();
    let writes = diary.clone();
    let builder = IoLoop::builder().virtual_time().on_exception(move |exception| {
        let (begins, ends) =
            (writes.writing(exception.info.to_string()), writes.writing("is told of"));
        drop(start(async move {
            begins();
            sleep(seconds(1)).await;
            drop(spawn(async { ends() }));
        }));
    });
    let io_loop = builder.build().unwrap();
    io_loop.add_callback(|| panic!("a callback"));
    io_loop.run_sync(|| sleep(seconds(10))).unwrap();
    assert_eq!(diary.read(), ["panicked: a callback", "is told of"]);
    assert_eq!(io_loop.counters().live, 0);
}

#[test]
#[cfg_attr(miri, ignore = "makes sockets")]
fn a_loop_that_has_unwound_can_run_again() {
    let builder = IoLoop::builder().on_exception(|_| panic_any(PanicsWithItself(3)));
    let io_loop = builder.build().unwrap();
    let ran = catch_unwind(AssertUnwindSafe(|| {
        io_loop.run_sync(|| async {
            let (here, there) = waterspout::net::UnixStream::pair().unwrap();
            let mut buf = [0; 8];
            let mut read = pin!(there.read(&mut buf));
            let waker = panicking_waker();
            assert!(read.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            here.write_all(b"x").await.unwrap();
            common::turns(5).await;
            panic!("the main future")
        })
    }));
    assert!(ran.is_err());
    let read = io_loop.run_sync_timeout(seconds(10), || async {
        let (here, there) = waterspout::net::UnixStream::pair().unwrap();
        let read = start(async move { there.read(&mut [0; 8]).await });
        moment().await;
        here.write_all(b"x").await.unwrap();
        read.await
    });
    assert_eq!(read.unwrap().unwrap(), 1);
}

#[test]
#[cfg_attr(miri, ignore = "starts a process")]
fn panics_are_survived_where_nobody_reads_standard_error() {
    const NAME: &str = "panics_are_survived_where_nobody_reads_standard_error";
    if child::is_child(NAME) {
        let io_loop = IoLoop::new().unwrap();
        io_loop.add_callback(|| panic!("in a callback"));
        io_loop.run_sync(|| async { drop(start(async { panic!("in a coroutine") })) }).unwrap();
        drop(promise::<()>().0); // and what is reported without a loop
        return;
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", NAME, "--nocapture"]).env("WATERSPOUT_TEST_IN_CHILD", NAME);
    let status = command.stdout(std::process::Stdio::null()).stderr(writer).status();
    assert!(status.unwrap().success());
}

#[test]
fn a_callback_that_is_dropped_by_a_closed_loop_may_panic() {
    let io_loop = virtual_loop();
    io_loop.close();
    let held = PanicsAtEnd;
    io_loop.add_callback(move || drop(held));
    let handle = io_loop.handle();
    assert!(handle.add_callback(|| ()).is_err());
}

// ---------------------------------------------------------------------------------------------
// What has never run

#[test]
#[cfg_attr(miri, ignore = "starts a process")]
fn what_waits_on_a_thread_that_never_ran_its_loop_is_told_when_the_thread_ends() {
    child::alone(
        "what_waits_on_a_thread_that_never_ran_its_loop_is_told_when_the_thread_ends",
        || {
            static TOLD: std::sync::Mutex<Vec<String>> = std::sync::Mutex::new(Vec::new());
            struct Keeps;
            impl log::Log for Keeps {
                fn enabled(&self, _: &log::Metadata<'_>) -> bool {
                    true
                }
                fn log(&self, record: &log::Record<'_>) {
                    TOLD.lock().unwrap().push(record.args().to_string());
                }
                fn flush(&self) {}
            }
            log::set_logger(&Keeps).unwrap();
            log::set_max_level(log::LevelFilter::Warn);
            let silent = std::thread::spawn(|| {
                IoLoop::current().run_sync(|| async { drop(spawn(pending::<()>())) }).unwrap();
            });
            silent.join().unwrap();
            assert!(TOLD.lock().unwrap().is_empty(), "its loop has run");
            let spawns = std::thread::spawn(|| {
                drop(coroutine::spawn_named("never", async {}));
                drop(start(sleep(seconds(1))));
                IoLoop::current().add_callback(|| ());
                IoLoop::current().call_later(seconds(1), || ());
            });
            spawns.join().unwrap();
            let told = TOLD.lock().unwrap();
            assert!(
                told.len() == 4 && told.iter().all(|line| line.contains("has not run")),
                "{told:?}"
            );
            assert!(told[0].contains("`never`") && told[0].contains(file!()), "{told:?}");
        },
    );
}
