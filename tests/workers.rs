//! `Workers`: a loop on several threads.

mod child;

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::net::{self, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal as RawSignal, kill_process};
use waterspout::IoLoop;
use waterspout::concurrent::{Receiver, Sender, channel};
use waterspout::coroutine::{self, moment, sleep};
use waterspout::iostream::IoStream;
use waterspout::net::{BindOptions, TcpServer, TcpStream, bind_sockets};
use waterspout::process::{Worker, Workers, WorkersError, cpu_count, worker_id};

const LONG: Duration = Duration::from_secs(3600);

/// Never.
fn pending() -> std::future::Pending<io::Result<()>> {
    std::future::pending()
}

/// Tells when `count` have reported.
async fn all_of(count: usize, mut reports: Receiver<usize>) -> io::Result<()> {
    for _ in 0..count {
        reports.recv().await;
    }
    Ok(())
}

fn reports() -> (Sender<usize>, Receiver<usize>) {
    channel(100)
}

/// Counts down when it is dropped.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Counted {
        count.fetch_add(1, Ordering::SeqCst);
        Counted(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

// ---------------------------------------------------------------------------------------------
// Who they are

#[test]
fn an_async_closure_lends_what_it_has_to_its_workers() {
    let names = [String::from("first"), String::from("second")];
    let (sender, mut told) = channel::<String>(2);
    let until = async move || {
        let mut both = [told.recv().await, told.recv().await].map(Option::unwrap);
        both.sort();
        assert_eq!(both, ["first", "second"]);
        Ok(())
    };
    let work = async move |worker: Worker| {
        let name = &names[worker.id()];
        moment().await;
        sender.send(name.clone()).await.unwrap();
    };
    Workers::new().count(2).run_until(until, work).unwrap();
}

#[test]
fn each_worker_runs_once_on_a_thread_of_its_own_and_knows_its_number() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sees = seen.clone();
    let result = Workers::new().count(4).run_until(pending, move |worker: Worker| {
        let thread = thread::current();
        assert_eq!(thread.name(), Some(&*format!("worker-{}", worker.id())));
        sees.lock().unwrap().push((worker.id(), thread.id()));
        async move {
            assert_eq!(worker_id(), Some(worker.id()));
            assert!(!worker.stop().is_cancelled());
            moment().await;
            assert_eq!(worker_id(), Some(worker.id()));
        }
    });
    result.unwrap();
    let mut seen = std::mem::take(&mut *seen.lock().unwrap());
    seen.sort_by_key(|(id, _)| *id);
    assert!(seen.iter().map(|(id, _)| *id).eq(0..4), "{seen:?}");
    let threads: Vec<_> = seen.iter().map(|(_, thread)| *thread).collect();
    assert!((0..4).all(|n| !threads[n + 1..].contains(&threads[n])));
    assert_eq!(worker_id(), None);
    assert!(cpu_count() >= 1);
}

#[test]
fn there_is_at_least_one_worker() {
    let ran = Arc::new(AtomicUsize::new(0));
    let runs = ran.clone();
    let work = move |_| {
        runs.fetch_add(1, Ordering::SeqCst);
        async {}
    };
    Workers::new().count(0).run_until(pending, work).unwrap();
    assert_eq!(ran.load(Ordering::SeqCst), 1);
}

#[cfg(all(target_os = "linux", feature = "affinity"))]
#[test]
fn pinned_workers_stay_on_one_cpu_each() {
    use std::collections::BTreeMap;

    use rustix::thread::{CpuSet, sched_getaffinity};
    let cpus = || {
        let set = sched_getaffinity(None).unwrap();
        (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect::<Vec<_>>()
    };
    let allowed = cpus();
    let seen = Arc::new(Mutex::new(BTreeMap::new()));
    let sees = seen.clone();
    let workers = Workers::new().count(allowed.len().min(4) + 1).pinned(true);
    let result = workers.run_until(pending, move |worker: Worker| {
        sees.lock().unwrap().insert(worker.id(), cpus());
        async {}
    });
    result.unwrap();
    let seen = seen.lock().unwrap();
    for (id, cpus) in seen.iter() {
        assert_eq!(*cpus, [allowed[id % allowed.len()]]);
    }
}

#[waterspout::test]
async fn workers_cannot_be_run_by_a_running_loop() {
    let result = Workers::new().count(1).run_until(pending, |_| async {});
    assert!(matches!(result, Err(WorkersError::Start(_))), "{result:?}");
}

// ---------------------------------------------------------------------------------------------
// Starting again

#[test]
fn a_worker_that_panics_is_started_again_under_its_number() {
    let lives = Arc::new(Mutex::new(Vec::new()));
    let (sender, reports) = reports();
    let counts = lives.clone();
    let work = move |worker: Worker| {
        let (sender, counts) = (sender.clone(), counts.clone());
        async move {
            counts.lock().unwrap().push(worker.id());
            let life = counts.lock().unwrap().iter().filter(|id| **id == worker.id()).count();
            assert!(worker.id() != 1 || life == 3, "as asked");
            assert_eq!(worker_id(), Some(worker.id()));
            sender.send(worker.id()).await.unwrap();
            worker.stop().cancelled().await;
        }
    };
    let workers = Workers::new().count(3).max_restarts(2);
    workers.run_until(|| all_of(3, reports), work).unwrap();
    let mut lives = std::mem::take(&mut *lives.lock().unwrap());
    lives.sort_unstable();
    assert_eq!(lives, [0, 1, 1, 1, 2]);
}

#[test]
fn an_error_is_as_good_as_a_panic() {
    let lives = Arc::new(AtomicUsize::new(0));
    let counts = lives.clone();
    let result = Workers::new().count(1).run_until(pending, move |_| {
        let life = counts.fetch_add(1, Ordering::SeqCst);
        async move { if life < 2 { Err(io::Error::other("no luck")) } else { Ok(()) } }
    });
    result.unwrap();
    assert_eq!(lives.load(Ordering::SeqCst), 3);
    let result = Workers::new()
        .count(1)
        .max_restarts(0)
        .run_until(pending, |_| async { Err::<(), _>("no luck at all") });
    let error = result.unwrap_err();
    assert!(matches!(error, WorkersError::TooManyRestarts(_)), "{error:?}");
    assert!(error.to_string().contains("no luck at all"), "{error}");
}

#[test]
fn a_worker_that_panics_each_time_before_it_has_begun_is_given_up() {
    let lives = Arc::new(AtomicUsize::new(0));
    let counts = lives.clone();
    let workers = Workers::new().count(1).max_restarts(5);
    let result = workers.run_until(pending, move |_| {
        let life = counts.fetch_add(1, Ordering::SeqCst);
        assert!(life > 1000, "not again");
        async {}
    });
    let error = result.unwrap_err();
    assert!(matches!(error, WorkersError::TooManyRestarts(_)), "{error:?}");
    assert!(error.to_string().contains("panicked: not again"), "{error}");
    assert_eq!(lives.load(Ordering::SeqCst), 6);
}

#[test]
fn a_worker_that_fails_at_once_is_started_again_after_a_pause_that_grows() {
    let lives = Arc::new(Mutex::new(Vec::new()));
    let counts = lives.clone();
    let workers = Workers::new().count(1).max_restarts(4);
    let result = workers.run_until(pending, move |_| {
        counts.lock().unwrap().push(Instant::now());
        async { Err::<(), _>("at once") }
    });
    assert!(matches!(result, Err(WorkersError::TooManyRestarts(_))), "{result:?}");
    let lives = lives.lock().unwrap();
    let pauses: Vec<_> = lives.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(pauses.len(), 4);
    for (pause, least) in pauses.iter().zip([10, 20, 40, 80]) {
        assert!(*pause >= Duration::from_millis(least), "{pauses:?}");
    }
}

#[test]
fn a_worker_that_pauses_ends_with_the_others() {
    let lives = Arc::new(AtomicUsize::new(0));
    let counts = lives.clone();
    let (failed, reports) = reports();
    // The tenth pause lasts a second, and nobody waits for its end.
    let result = Workers::new().count(1).run_until(
        || all_of(9, reports),
        move |worker: Worker| {
            counts.fetch_add(1, Ordering::SeqCst);
            let _ = failed.try_send(worker.id());
            async { Err::<(), _>("at once") }
        },
    );
    result.unwrap();
    assert!(lives.load(Ordering::SeqCst) <= 10);
}

#[test]
fn when_one_is_given_up_the_others_are_asked_to_end() {
    let asked = Arc::new(AtomicBool::new(false));
    let is_asked = asked.clone();
    let (up, is_up) = reports();
    let is_up = Arc::new(Mutex::new(Some(is_up)));
    let result = Workers::new().count(2).max_restarts(1).grace(LONG).run_until(
        pending,
        move |worker: Worker| {
            let (is_asked, up, is_up) = (is_asked.clone(), up.clone(), is_up.clone());
            async move {
                if worker.id() == 0 {
                    up.send(0).await.unwrap();
                    worker.stop().cancelled().await;
                    is_asked.store(true, Ordering::SeqCst);
                } else {
                    let first = is_up.lock().unwrap().take();
                    if let Some(mut is_up) = first {
                        is_up.recv().await;
                    }
                    panic!("given up");
                }
            }
        },
    );
    assert!(result.unwrap_err().to_string().contains("given up"));
    assert!(asked.load(Ordering::SeqCst));
}

#[test]
fn a_worker_that_panics_while_it_is_to_end_is_not_started_again() {
    let (sender, reports) = reports();
    let lives = Arc::new(AtomicUsize::new(0));
    let counts = lives.clone();
    let work = move |worker: Worker| {
        counts.fetch_add(1, Ordering::SeqCst);
        let sender = sender.clone();
        async move {
            sender.send(worker.id()).await.unwrap();
            worker.stop().cancelled().await;
            assert!(!worker.stop().is_cancelled(), "too late to matter");
        }
    };
    Workers::new().count(2).run_until(|| all_of(2, reports), work).unwrap();
    assert_eq!(lives.load(Ordering::SeqCst), 2);
}

// ---------------------------------------------------------------------------------------------
// Ending

#[test]
fn workers_that_are_asked_to_end_tidy_up_first() {
    let (sender, reports) = reports();
    let tidied = Arc::new(AtomicUsize::new(0));
    let tidies = tidied.clone();
    let work = move |worker: Worker| {
        let (sender, tidies) = (sender.clone(), tidies.clone());
        async move {
            sender.send(worker.id()).await.unwrap();
            worker.stop().cancelled().await;
            sleep(Duration::from_millis(20)).await;
            tidies.fetch_add(1, Ordering::SeqCst);
        }
    };
    Workers::new().count(3).grace(LONG).run_until(|| all_of(3, reports), work).unwrap();
    assert_eq!(tidied.load(Ordering::SeqCst), 3);
}

#[test]
fn workers_that_are_done_early_are_not_waited_for() {
    let (sender, reports) = reports();
    let work = move |worker: Worker| {
        let sender = sender.clone();
        async move {
            if worker.id() > 0 {
                sender.send(worker.id()).await.unwrap();
                worker.stop().cancelled().await;
            }
        }
    };
    Workers::new().count(3).grace(LONG).run_until(|| all_of(2, reports), work).unwrap();
}

#[test]
fn who_does_not_listen_is_ended_when_the_grace_is_over() {
    let (sender, reports) = reports();
    let alive = Arc::new(AtomicUsize::new(0));
    let lives = alive.clone();
    let work = move |worker: Worker| {
        let (sender, held) = (sender.clone(), Counted::new(&lives));
        async move {
            let _held = held;
            sender.send(worker.id()).await.unwrap();
            std::future::pending::<()>().await;
        }
    };
    let workers = Workers::new().count(3).grace(Duration::from_millis(10));
    workers.run_until(|| all_of(3, reports), work).unwrap();
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}

#[test]
fn who_is_only_just_starting_when_the_grace_is_over_is_ended_too() {
    for _ in 0..20 {
        let workers = Workers::new().count(2).grace(Duration::ZERO);
        let result = workers.run_until(|| async { Ok(()) }, |_| std::future::pending::<()>());
        result.unwrap();
    }
}

#[test]
fn a_worker_that_is_stuck_in_blocking_code_is_an_error() {
    let (sender, reports) = reports();
    let (go_on, stuck) = mpsc::channel::<()>();
    let stuck = Mutex::new(Some(stuck));
    let work = move |worker: Worker| {
        let (sender, stuck) = (sender.clone(), stuck.lock().unwrap().take());
        async move {
            sender.send(worker.id()).await.unwrap();
            match stuck {
                Some(stuck) => drop(stuck.recv()),
                None => worker.stop().cancelled().await,
            }
        }
    };
    let workers = Workers::new().count(2).grace(Duration::ZERO);
    let error = workers.run_until(|| all_of(2, reports), work).unwrap_err();
    assert!(matches!(error, WorkersError::Stuck(1)), "{error:?}");
    assert_eq!(error.to_string(), "1 workers do not end");
    drop(go_on);
}

#[test]
fn what_a_worker_leaves_on_its_loop_is_dropped_with_it() {
    let alive = Arc::new(AtomicUsize::new(0));
    let lives = alive.clone();
    let work = move |_| {
        let held = Counted::new(&lives);
        async move {
            // It keeps its own loop alive.
            let io_loop = IoLoop::current();
            coroutine::start(async move {
                let _held = (held, io_loop);
                std::future::pending::<()>().await;
            });
        }
    };
    Workers::new().count(2).run_until(pending, work).unwrap();
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}

#[test]
fn a_failure_of_what_ends_them_ends_them() {
    let until = || async { Err(io::Error::other("no signals here")) };
    let work = |worker: Worker| async move { worker.stop().cancelled().await };
    let error = Workers::new().count(2).run_until(until, work).unwrap_err();
    assert!(matches!(error, WorkersError::Start(_)), "{error:?}");
    assert!(error.to_string().contains("no signals here"), "{error}");
}

// ---------------------------------------------------------------------------------------------
// Sharing a port

/// A server of a worker that tells each client its number.
async fn serve(worker: Worker, sockets: Vec<net::TcpListener>) -> io::Result<()> {
    let id = worker.id();
    let server = TcpServer::new(move |stream: IoStream<TcpStream>, _| async move {
        let _ = stream.write([b'0' + id as u8]).await;
    });
    server.add_sockets(sockets)?;
    worker.stop().cancelled().await;
    server.drain(Duration::from_secs(5)).await;
    Ok(())
}

/// Sockets for `count` workers on one port.
fn shared(count: usize) -> (Vec<Vec<net::TcpListener>>, SocketAddr) {
    let address = Some("127.0.0.1".into());
    let options = BindOptions { address, reuse_port: true, ..BindOptions::default() };
    let first = bind_sockets(0, &options).unwrap();
    let address = first[0].local_addr().unwrap();
    let others = (1..count).map(|_| bind_sockets(address.port(), &options).unwrap());
    let all = others.collect::<Vec<_>>();
    (std::iter::once(first).chain(all).collect(), address)
}

/// Connects until all of `count` workers have answered.
fn all_answer(address: SocketAddr, count: usize) {
    let mut seen = BTreeSet::new();
    // The system distributes them by a hash; that one gets none of so many is as good as impossible.
    for _ in 0..2000 {
        let mut answer = [0; 1];
        net::TcpStream::connect(address).unwrap().read_exact(&mut answer).unwrap();
        seen.insert(answer[0] - b'0');
        if seen.len() == count {
            return;
        }
    }
    panic!("only {seen:?} have answered");
}

#[test]
fn workers_share_the_connections_of_a_port() {
    let (sockets, address) = shared(2);
    let sockets = Mutex::new(sockets);
    let (done, is_done) = reports();
    let clients = thread::spawn(move || {
        all_answer(address, 2);
        done.try_send(0).unwrap();
    });
    let work = move |worker| serve(worker, sockets.lock().unwrap().pop().unwrap());
    Workers::new().count(2).run_until(|| all_of(1, is_done), work).unwrap();
    clients.join().unwrap();
    assert!(net::TcpStream::connect(address).is_err(), "nobody listens any more");
}

/// Serves with two workers until a signal comes, and is what the child does.
fn serve_until_a_signal() {
    let (sockets, address) = shared(2);
    let sockets = Mutex::new(sockets);
    let up = AtomicUsize::new(0);
    let result = Workers::new().count(2).run(move |worker| {
        let sockets = sockets.lock().unwrap().pop().unwrap();
        if up.fetch_add(1, Ordering::SeqCst) == 1 {
            child::say(address);
        }
        let serving = serve(worker, sockets);
        async move {
            serving.await?;
            child::say("drained");
            Ok::<(), io::Error>(())
        }
    });
    result.unwrap();
    child::say("ended");
}

#[track_caller]
fn ends_by(test: &str, signal: RawSignal) {
    let mut child = child::Child::start(test);
    let address = child.hear().parse().unwrap();
    all_answer(address, 2);
    kill_process(Pid::from_child(&child.process), signal).unwrap();
    let heard: Vec<_> = (0..3).map(|_| child.hear()).collect();
    assert_eq!(heard, ["drained", "drained", "ended"]);
    assert!(child.end().0.success());
}

#[test]
fn sigterm_ends_workers_gracefully() {
    let test = "sigterm_ends_workers_gracefully";
    if child::is_child(test) {
        return serve_until_a_signal();
    }
    ends_by(test, RawSignal::TERM);
}

#[test]
fn ctrl_c_ends_workers_gracefully() {
    let test = "ctrl_c_ends_workers_gracefully";
    if child::is_child(test) {
        return serve_until_a_signal();
    }
    ends_by(test, RawSignal::INT);
}

#[test]
fn a_signal_that_comes_as_soon_as_a_worker_is_there_ends_them() {
    let test = "a_signal_that_comes_as_soon_as_a_worker_is_there_ends_them";
    if child::is_child(test) {
        let sent = AtomicBool::new(false);
        let result = Workers::new().count(2).run(move |worker: Worker| {
            if !sent.swap(true, Ordering::SeqCst) {
                kill_process(rustix::process::getpid(), RawSignal::TERM).unwrap();
            }
            async move { worker.stop().cancelled().await }
        });
        result.unwrap();
        return child::say("ended");
    }
    for _ in 0..5 {
        let (status, said) = child::Child::start(test).end();
        assert!(status.success() && said.contains("child: ended"), "{status} {said}");
    }
}

#[test]
fn a_second_signal_cuts_the_grace_short() {
    let test = "a_second_signal_cuts_the_grace_short";
    if child::is_child(test) {
        let result = Workers::new().count(1).grace(LONG).run(|worker: Worker| async move {
            child::say("up");
            worker.stop().cancelled().await;
            child::say("no");
            std::future::pending::<()>().await;
        });
        result.unwrap();
        return child::say("ended");
    }
    let mut child = child::Child::start(test);
    let pid = Pid::from_child(&child.process);
    assert_eq!(child.hear(), "up");
    kill_process(pid, RawSignal::INT).unwrap();
    assert_eq!(child.hear(), "no");
    kill_process(pid, RawSignal::INT).unwrap();
    assert_eq!(child.hear(), "ended");
    assert!(child.end().0.success());
}
