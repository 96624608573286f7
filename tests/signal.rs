//! Unix signals as streams and callbacks. Each test raises signals in a process of its own or has a
//! signal for itself, because all listeners of a process hear all signals.

mod child;
mod common;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::turns;
use futures::{FutureExt, StreamExt};
use rustix::process::{Pid, Signal as RawSignal, kill_process};
use signal_hook::low_level::raise;
use waterspout::coroutine::{self, moment, with_timeout};
use waterspout::signal::{self, Signal, SignalHandler};
use waterspout::{Exception, IoLoop};

/// Runs a test in a process of its own and on a loop.
fn alone<F: Future>(test: &str, body: impl FnOnce() -> F) {
    child::alone(test, || {
        // The limit is only a guard against hanging.
        IoLoop::new().unwrap().run_sync_timeout(Duration::from_secs(60), body).unwrap();
    });
}

fn send(signal: Signal) {
    raise(signal.number()).unwrap();
}

/// Long enough for the loop to have asked its selector a few times: while it is busy it does so after
/// 64 entries of its queue at the latest.
async fn a_while() {
    turns(300).await;
}

#[test]
fn a_stream_hears_each_signal() {
    alone("a_stream_hears_each_signal", || async {
        let mut signals = signal::stream(Signal::USER1).unwrap();
        for _ in 0..3 {
            assert!(signals.recv().now_or_never().is_none());
            send(Signal::USER1);
            signals.recv().await.unwrap();
        }
        // As a stream, and while it is awaited.
        let waiting = coroutine::start(async move { signals.next().await });
        a_while().await;
        assert!(!waiting.done());
        send(Signal::USER1);
        waiting.await.unwrap().unwrap();
    });
}

#[test]
fn a_wait_that_was_given_up_loses_no_signal() {
    alone("a_wait_that_was_given_up_loses_no_signal", || async {
        let mut signals = signal::stream(Signal::USER1).unwrap();
        let waited = with_timeout(Duration::from_millis(1), signals.recv()).await;
        assert!(waited.is_err());
        send(Signal::USER1);
        signals.recv().await.unwrap();
    });
}

#[test]
fn signals_that_come_faster_than_they_are_heard_are_one() {
    alone("signals_that_come_faster_than_they_are_heard_are_one", || async {
        let mut signals = signal::stream(Signal::USER1).unwrap();
        // Few, a full read, more than that, and more than the pipe takes.
        for count in [1, 2, 63, 64, 65, 128, 1000, 100_000] {
            for _ in 0..count {
                send(Signal::USER1);
            }
            signals.recv().await.unwrap();
            a_while().await;
            assert!(signals.recv().now_or_never().is_none(), "{count} signals");
        }
    });
}

#[test]
fn a_callback_is_called_on_the_loop_until_its_handler_is_dropped() {
    let test = "a_callback_is_called_on_the_loop_until_its_handler_is_dropped";
    alone(test, || async {
        let calls = Rc::new(Cell::new(0));
        let called = calls.clone();
        let handler = signal::on(Signal::USER2, move || called.set(called.get() + 1)).unwrap();
        for n in 1..=3 {
            send(Signal::USER2);
            assert_eq!(calls.get(), n - 1, "not inside the signal");
            while calls.get() < n {
                moment().await;
            }
        }
        drop(handler);
        // It does not do what it does by default, which is to end the process.
        send(Signal::USER2);
        a_while().await;
        assert_eq!(calls.get(), 3);
        assert_eq!(Rc::strong_count(&calls), 1);
    });
}

#[test]
fn a_callback_may_drop_its_own_handler() {
    alone("a_callback_may_drop_its_own_handler", || async {
        let place: Rc<RefCell<Option<SignalHandler>>> = Rc::default();
        let calls = Rc::new(Cell::new(0));
        let (own, called) = (place.clone(), calls.clone());
        let handler = signal::on(Signal::USER1, move || {
            called.set(called.get() + 1);
            drop(own.borrow_mut().take());
            send(Signal::USER1);
        });
        *place.borrow_mut() = Some(handler.unwrap());
        send(Signal::USER1);
        while calls.get() == 0 {
            moment().await;
        }
        a_while().await;
        assert_eq!(calls.get(), 1);
        assert_eq!(Rc::strong_count(&calls), 1);
    });
}

#[test]
fn a_callback_that_panics_is_reported_and_called_again() {
    child::alone("a_callback_that_panics_is_reported_and_called_again", || {
        let heard: Rc<RefCell<Vec<String>>> = Rc::default();
        let hears = heard.clone();
        let hear = move |exception: &Exception| hears.borrow_mut().push(exception.to_string());
        let io_loop = IoLoop::builder().on_exception(hear).build().unwrap();
        let ran = io_loop.run_sync_timeout(Duration::from_secs(60), || async {
            let handler = signal::on(Signal::USER1, || panic!("no calm")).unwrap();
            for n in 1..=2 {
                send(Signal::USER1);
                while heard.borrow().len() < n {
                    moment().await;
                }
            }
            drop(handler);
        });
        ran.unwrap();
        let heard = heard.take();
        assert_eq!(heard.len(), 2);
        assert!(heard[0].contains("a signal's callback"), "{heard:?}");
        assert!(heard[0].contains("tests/signal.rs") && heard[0].contains("no calm"), "{heard:?}");
    });
}

#[test]
fn all_listeners_hear_on_one_loop_and_on_others() {
    alone("all_listeners_hear_on_one_loop_and_on_others", || async {
        let mut streams = [Signal::USER1, Signal::USER1, Signal::USER2]
            .map(|signal| signal::stream(signal).unwrap());
        let calls = Rc::new(Cell::new(0));
        let called = calls.clone();
        let _handler = signal::on(Signal::USER1, move || called.set(called.get() + 1)).unwrap();
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (listening, ready) = mpsc::channel();
                let thread = thread::spawn(move || {
                    let heard = IoLoop::new().unwrap().run_sync(|| async {
                        let mut signals = signal::stream(Signal::USER1)?;
                        listening.send(()).unwrap();
                        signals.recv().await
                    });
                    heard.unwrap().unwrap();
                });
                ready.recv().unwrap();
                thread
            })
            .collect();
        send(Signal::USER1);
        for thread in threads {
            thread.join().unwrap();
        }
        let [one, other, another] = &mut streams;
        one.recv().await.unwrap();
        other.recv().await.unwrap();
        while calls.get() == 0 {
            moment().await;
        }
        assert!(another.recv().now_or_never().is_none(), "that is another signal");
        // Who goes takes nothing from those who stay.
        let [_, mut other, mut another] = streams;
        send(Signal::USER1);
        other.recv().await.unwrap();
        send(Signal::USER2);
        another.recv().await.unwrap();
    });
}

#[test]
fn a_listener_leaves_no_file_open() {
    alone("a_listener_leaves_no_file_open", || async {
        // What the first one installs stays.
        drop(signal::stream(Signal::USER1).unwrap());
        let before = (child::open_files(), IoLoop::current().counters().sources);
        for _ in 0..10 {
            let mut signals = signal::stream(Signal::USER1).unwrap();
            let handler = signal::on(Signal::USER1, || ()).unwrap();
            send(Signal::USER1);
            signals.recv().await.unwrap();
            drop(handler);
        }
        let after = (child::open_files(), IoLoop::current().counters().sources);
        assert_eq!(after, before);
    });
}

#[test]
fn ctrl_c_is_waited_for() {
    alone("ctrl_c_is_waited_for", || async {
        for _ in 0..2 {
            let mut waiting = Box::pin(signal::ctrl_c());
            assert!(waiting.as_mut().now_or_never().is_none());
            send(Signal::INTERRUPT);
            waiting.await.unwrap();
        }
    });
}

#[test]
fn a_signal_from_another_process_wakes_a_loop_that_sleeps() {
    let test = "a_signal_from_another_process_wakes_a_loop_that_sleeps";
    if child::is_child(test) {
        let waited = IoLoop::new().unwrap().run_sync(|| async {
            let mut terminate = signal::stream(Signal::TERMINATE)?;
            child::say("listening");
            terminate.recv().await?;
            child::say("heard");
            Ok::<_, io::Error>(())
        });
        return waited.unwrap().unwrap();
    }
    let mut child = child::Child::start(test);
    assert_eq!(child.hear(), "listening");
    kill_process(Pid::from_child(&child.process), RawSignal::TERM).unwrap();
    assert_eq!(child.hear(), "heard");
    assert!(child.end().0.success());
}

#[waterspout::test]
async fn a_stream_of_another_loop_is_an_error() {
    let mut signals = signal::stream(Signal::WINDOW_CHANGE).unwrap();
    let elsewhere = thread::spawn(move || {
        let heard = IoLoop::new().unwrap().run_sync(|| signals.recv()).unwrap();
        heard.unwrap_err().to_string()
    });
    let error = elsewhere.join().unwrap();
    assert!(error.contains("belongs to"), "{error}");
}

#[waterspout::test]
async fn signals_that_cannot_be_listened_to_have_no_value_or_are_an_error() {
    // SIGILL, SIGFPE, SIGKILL, SIGSEGV and SIGSTOP; and what is no signal.
    for number in [4, 8, 9, 11, 19, 0, -1, 65, i32::MAX] {
        assert_eq!(Signal::from_number(number), None, "{number}");
    }
    for signal in [Signal::INTERRUPT, Signal::TERMINATE, Signal::CHILD, Signal::ALARM] {
        assert_eq!(Signal::from_number(signal.number()), Some(signal));
    }
    // The C library keeps this one for itself.
    if let Some(reserved) = Signal::from_number(32) {
        let sources = IoLoop::current().counters().sources;
        assert!(signal::stream(reserved).is_err());
        assert_eq!(IoLoop::current().counters().sources, sources);
    }
}
