//! `concurrent::Executor`: a bounded pool for work that blocks.

mod common;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use common::block_on;
use futures::FutureExt as _;
use waterspout::IoLoop;
use waterspout::concurrent::Executor;
use waterspout::coroutine::{self, moment, with_timeout};

/// Work that waits until it is let go.
fn gate() -> (mpsc::Sender<()>, impl FnOnce() + Send) {
    let (open, wait) = mpsc::channel();
    (open, move || wait.recv().unwrap())
}

#[waterspout::test]
async fn no_more_threads_than_the_bound_run_at_once() {
    let executor = Executor::builder().threads(2).build();
    // Each pair needs both threads, and a third would have nobody to meet.
    let barrier = Arc::new(Barrier::new(2));
    let jobs: Vec<_> = (0..20)
        .map(|_| {
            let barrier = barrier.clone();
            executor.run(move || {
                barrier.wait();
                thread::current().id()
            })
        })
        .collect();
    let mut threads = Vec::new();
    for job in jobs {
        threads.push(job.await);
    }
    threads.sort_by_key(|id| format!("{id:?}"));
    threads.dedup();
    assert_eq!((threads.len(), executor.threads()), (2, 2));
}

#[waterspout::test]
async fn more_than_may_wait_is_refused_and_counted() {
    let executor = Executor::builder().threads(1).queue_limit(1).name("small").build();
    let (open, wait) = gate();
    let (begun, begins) = mpsc::channel();
    let running = executor.run(move || {
        begun.send(()).unwrap();
        wait();
    });
    begins.recv().unwrap();
    let waiting = executor.run(|| "waited");
    let refused = executor.run(|| "never").join().await.unwrap_err();
    assert!(refused.is_panic());
    assert!(refused.to_string().contains("executor `small`"), "{refused}");
    let counters = executor.counters();
    assert_eq!((counters.queued, counters.submitted, counters.refused), (1, 2, 1));
    open.send(()).unwrap();
    running.await;
    assert_eq!(waiting.await, "waited");
}

#[waterspout::test]
async fn shutdown_finishes_what_was_submitted_and_takes_no_more() {
    let executor = Executor::builder().threads(2).build();
    let jobs: Vec<_> = (0..100).map(|n| executor.run(move || n)).collect();
    executor.shutdown();
    assert_eq!(executor.threads(), 0);
    for (n, job) in jobs.into_iter().enumerate() {
        assert_eq!(job.await, n);
    }
    let refused = executor.run(|| ()).join().await.unwrap_err();
    assert!(refused.to_string().contains("was shut down"), "{refused}");
}

#[waterspout::test(timeout = 60)]
async fn jobs_that_shut_their_executor_down_wait_for_the_others() {
    let executor = Executor::builder().threads(3).build();
    let (open, wait) = gate();
    let (done, is_done) = mpsc::channel();
    let (begun, begins) = mpsc::channel();
    let slow = executor.run(move || {
        begun.send(()).unwrap();
        wait();
        done.send(()).unwrap();
    });
    begins.recv().unwrap();
    let is_done = Arc::new(std::sync::Mutex::new(is_done));
    // Two at once, of which none waits for the other.
    let shutting: Vec<_> = (0..2)
        .map(|_| {
            let (inner, is_done) = (executor.clone(), is_done.clone());
            executor.run(move || {
                inner.shutdown();
                let _ = is_done.lock().unwrap().try_recv();
                inner.threads()
            })
        })
        .collect();
    while executor.counters().submitted < 3 || executor.counters().queued > 0 {
        moment().await;
    }
    assert!(!shutting.iter().any(|job| job.done()));
    open.send(()).unwrap();
    for job in shutting {
        assert!(job.await <= 2, "the slow one has ended");
    }
    slow.await;
    executor.shutdown();
    assert_eq!(executor.threads(), 0);
    // The only thread, and another executor's job.
    let executor = Executor::builder().threads(1).build();
    let inner = executor.clone();
    executor.run(move || inner.shutdown()).await;
    let (outer, inner) = (Executor::builder().build(), Executor::builder().build());
    inner.run(|| ()).await;
    outer.run(move || inner.shutdown()).await;
}

#[waterspout::test]
async fn what_is_abandoned_never_runs_and_its_awaiter_is_told() {
    let executor = Executor::builder().threads(1).build();
    let (open, wait) = gate();
    let (begun, begins) = mpsc::channel();
    let running = executor.run(move || {
        begun.send(()).unwrap();
        wait();
        "finished"
    });
    begins.recv().unwrap();
    let dropped = executor.run(|| unreachable!("it was abandoned"));
    executor.abandon();
    assert_eq!(executor.counters().abandoned, 1);
    let error = dropped.join().await.unwrap_err();
    assert!(error.to_string().contains("dropped by its executor"), "{error}");
    open.send(()).unwrap();
    assert_eq!(running.await, "finished");
}

#[waterspout::test]
async fn a_panic_reaches_the_awaiter_and_the_thread_goes_on() {
    let executor = Executor::builder().threads(1).build();
    let error = executor.run(|| panic!("in the work")).join().await.unwrap_err();
    assert!(error.to_string().contains("in the work"), "{error}");
    assert_eq!(executor.run(|| 5).await, 5);
    assert_eq!(executor.threads(), 1);
}

#[waterspout::test]
async fn a_loop_uses_the_executor_that_it_was_given() {
    let io_loop = IoLoop::current();
    io_loop.set_default_executor(Executor::builder().name("mine").build());
    let name = io_loop.run_in_executor(|| thread::current().name().map(String::from)).await;
    assert_eq!(name.as_deref(), Some("mine"));
}

#[waterspout::test(virtual_time)]
async fn a_time_limit_gives_up_the_result_and_not_the_work() {
    let executor = Executor::builder().threads(1).build();
    let (open, wait) = gate();
    let (ended, ends) = mpsc::channel();
    let work = executor.run(move || {
        wait();
        ended.send("ended").unwrap();
    });
    assert!(with_timeout(Duration::ZERO, work).await.is_err());
    open.send(()).unwrap();
    assert_eq!(ends.recv(), Ok("ended"));
    // Virtual time stands still during the work, so this is in time.
    let hour = Duration::from_secs(3600);
    assert_eq!(with_timeout(hour, executor.run(|| 5)).await, Ok(5));
    let done = executor.run(|| 6);
    while !done.done() {
        moment().await;
    }
    assert_eq!(with_timeout(Duration::ZERO, done).await, Ok(6));
}

#[test]
fn the_threads_of_a_dropped_executor_finish_and_end() {
    let io_loop = IoLoop::new().unwrap();
    let (sent, received) = mpsc::channel();
    io_loop
        .run_sync(|| async {
            let executor = Executor::builder().threads(1).build();
            for n in 0..10 {
                let sent = sent.clone();
                executor.run(move || sent.send(n).unwrap());
            }
        })
        .unwrap();
    drop(sent);
    // The channel ends when the last job is gone, whichever thread that was on.
    assert!(received.iter().eq(0..10));
}

#[waterspout::test(virtual_time)]
async fn virtual_time_stands_still_while_a_job_is_under_way() {
    let io_loop = IoLoop::current();
    let begun = io_loop.time();
    let hour = coroutine::start(coroutine::sleep(Duration::from_secs(3600)));
    let text = io_loop.run_in_executor(|| std::fs::read_to_string("Cargo.toml").unwrap()).await;
    assert!(text.contains("waterspout"));
    assert_eq!(io_loop.time(), begun);
    hour.await;
    assert_eq!(io_loop.time() - begun, Duration::from_secs(3600));
}

#[test]
fn a_loop_is_dropped_although_a_coroutine_awaits_a_job_of_it() {
    struct Ended(mpsc::Sender<()>);
    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
        }
    }
    let io_loop = IoLoop::new().unwrap();
    let (open, wait) = gate();
    let (ended, ends) = mpsc::channel();
    let begin = || async {
        let ended = Ended(ended);
        drop(coroutine::start(async move {
            let _ended = ended;
            // The handle is a temporary that lives as long as the job is awaited.
            IoLoop::current().run_in_executor(wait).await;
        }));
    };
    io_loop.run_sync(begin).unwrap();
    assert!(ends.try_recv().is_err());
    drop(io_loop);
    ends.try_recv().expect("the coroutine went with its loop");
    open.send(()).unwrap();
}

#[test]
fn work_that_is_awaited_anywhere_gives_its_result_its_panic_or_its_refusal() {
    let executor = Executor::builder().name("anywhere").build();
    assert_eq!(block_on(executor.spawn_blocking(|| 1)), 1);
    let io_loop = IoLoop::new().unwrap();
    // Begun in one place, awaited in another.
    let begun = executor.spawn_blocking(|| 2);
    assert_eq!(io_loop.run_sync(|| begun).unwrap(), 2);
    let failed = |executor: &Executor| {
        let work = executor.spawn_blocking(|| panic!("at work"));
        let outcome = io_loop.run_sync(|| AssertUnwindSafe(work).catch_unwind()).unwrap();
        let panic = outcome.unwrap_err();
        let text = panic.downcast_ref::<String>().cloned();
        text.unwrap_or_else(|| panic.downcast_ref::<&str>().unwrap().to_string())
    };
    assert_eq!(failed(&executor), "at work");
    executor.shutdown();
    let refused = failed(&executor);
    assert!(refused.contains("tests/executor.rs") && refused.contains("`anywhere`"), "{refused}");
}

#[waterspout::test(virtual_time)]
async fn virtual_time_stands_still_while_work_is_under_way_and_not_when_it_was_forgotten() {
    let (open, wait) = gate();
    let begun = coroutine::now();
    let work = Executor::shared().spawn_blocking(move || {
        wait();
        thread::sleep(Duration::from_millis(5));
    });
    open.send(()).unwrap();
    with_timeout(Duration::from_secs(3600), work).await.unwrap();
    assert_eq!(coroutine::now(), begun);
    let (open, wait) = gate();
    drop(Executor::shared().spawn_blocking(wait));
    coroutine::sleep(Duration::from_secs(3600)).await;
    open.send(()).unwrap();
}
