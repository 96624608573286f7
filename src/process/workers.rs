//! `Workers`: a loop on every core. Tornado's `fork_processes`, with threads instead of processes.
//!
//! Each worker is a thread with a loop of its own, which runs one future; all of them call the same function
//! for it. Workers that serve one port have a listener each (`SO_REUSEPORT`), and the system divides the
//! connections among these. A worker that panics or ends with an error is started again under the same
//! number, up to a limit. `SIGTERM` and Ctrl-C ask all workers to end; those that take too long are stopped.
//!
//! The thread that calls `run` watches over the workers, on a loop of its own: each worker sends it `News`
//! when its loop is there and when it has ended.

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use futures::future::{Either, ready, select};
use futures::stream::{self, Stream, StreamExt, once};

use crate::concurrent::{ExcInfo, Receiver, Sender, channel};
use crate::coroutine::{CancelToken, Outcome, sleep, start, with_timeout};
use crate::ground::error::RunError;
use crate::ground::report;
use crate::ioloop::{IoLoop, LoopHandle};
use crate::signal::{self, Signal};

/// How long a loop may take to stop when it was told to. A loop that ever gets to its next turn needs only a
/// moment, but the machine may be busy.
const TIME_TO_STOP: Duration = Duration::from_secs(5);

/// A worker that fails before it has run so long is started again only after a pause.
const SOON: Duration = Duration::from_secs(1);
/// The length of the first such pause; it doubles each time.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
/// The length up to which it doubles.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How many threads can run at the same time. Tornado: `cpu_count`.
pub fn cpu_count() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

thread_local! {
    static WORKER: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The number of the worker whose thread this is, from 0; `None` on other threads. Tornado:
/// `task_id`.
pub fn worker_id() -> Option<usize> {
    WORKER.get()
}

/// What the function that a worker runs is given.
#[derive(Clone, Debug)]
pub struct Worker {
    id: usize,
    stop: CancelToken,
}

impl Worker {
    /// The worker's number, from 0. A worker that is started again has the same number.
    pub fn id(&self) -> usize {
        self.id
    }

    /// A token that is cancelled when the workers are to end: a server then stops accepting connections, and
    /// finishes serving those that it has.
    pub fn stop(&self) -> &CancelToken {
        &self.stop
    }
}

/// Runs a function on several threads, each with a loop of its own: one for each CPU by default. Tornado:
/// `fork_processes`.
///
/// Where they serve one port, each binds it with
/// [`reuse_port`](crate::net::BindOptions::reuse_port), and the system divides the connections among them. A
/// [`Balancer`](crate::net::Balancer) evens out what that leaves uneven.
///
/// ```
/// use std::time::Duration;
/// use waterspout::process::{Worker, Workers};
///
/// async fn serve(worker: Worker) {
///     println!("worker {} is up", worker.id());
///     # if true { return; }
///     worker.stop().cancelled().await; // accept and serve meanwhile
/// }
///
/// Workers::new().count(2).grace(Duration::from_secs(10)).run(serve)?;
/// # Ok::<(), waterspout::process::WorkersError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Workers {
    count: usize,
    max_restarts: usize,
    grace: Duration,
    pinned: bool,
}

/// Why the workers have ended before their time.
#[derive(Debug)]
#[non_exhaustive]
pub enum WorkersError {
    /// A thread or a loop could not be made.
    Start(io::Error),
    /// Workers panicked or ended with an error more often than they may. This is how the last one failed.
    TooManyRestarts(ExcInfo),
    /// So many workers had not ended when their grace was over, nor 5 seconds after their loops were told to
    /// stop: they never get to an `.await` that waits. Their threads run on.
    Stuck(usize),
}

impl fmt::Display for WorkersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WorkersError::Start(error) => write!(f, "cannot start a worker: {error}"),
            WorkersError::TooManyRestarts(info) => {
                write!(f, "workers were started again too often; the last time: {info}")
            }
            WorkersError::Stuck(count) => write!(f, "{count} workers do not end"),
        }
    }
}

impl Error for WorkersError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            WorkersError::Start(error) => Some(error),
            WorkersError::TooManyRestarts(info) => Some(info),
            WorkersError::Stuck(_) => None,
        }
    }
}

/// What a worker's thread tells the one that watches, with the worker's number.
enum News {
    Running(usize, LoopHandle),
    Ended(usize, Result<(), WorkerFailure>),
}

/// Why a worker has ended that should not have.
enum WorkerFailure {
    /// It panicked, or gave an error: it may be started again.
    Failed(ExcInfo),
    /// Its loop could not be made or run.
    NotStarted(io::Error),
}

impl Workers {
    /// The defaults: a worker for each CPU, 100 restarts, 30 seconds of grace, not pinned.
    pub fn new() -> Workers {
        let grace = Duration::from_secs(30);
        Workers { count: cpu_count(), max_restarts: 100, grace, pinned: false }
    }

    /// How many workers there are; 0 counts as 1. By default one for each CPU.
    #[must_use]
    pub fn count(mut self, count: usize) -> Workers {
        self.count = count.max(1);
        self
    }

    /// How often, in all, workers that failed are started again; by default 100 times, as in Tornado.
    ///
    /// A worker that fails within a second is started again only after a pause: of 10 ms the first time,
    /// twice as long each time after that, and a second at most. Otherwise a worker that always fails at
    /// once would keep a core busy with failing.
    #[must_use]
    pub fn max_restarts(mut self, restarts: usize) -> Workers {
        self.max_restarts = restarts;
        self
    }

    /// How long workers may take to end when they are asked to; by default 30 seconds. After that their loops
    /// are stopped: each worker's future is dropped at the `.await` where it waits.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Workers {
        self.grace = grace;
        self
    }

    /// Whether each worker is kept on a CPU of its own; by default not. It works on Linux, and has no effect
    /// elsewhere. It takes the feature `affinity`.
    ///
    /// ```
    /// use waterspout::process::{Worker, Workers};
    ///
    /// let workers = Workers::new().count(2).pinned(true);
    /// workers.run(async |worker: Worker| println!("worker {} has a CPU of its own", worker.id()))?;
    /// # Ok::<(), waterspout::process::WorkersError>(())
    /// ```
    #[cfg(feature = "affinity")]
    #[cfg_attr(docsrs, doc(cfg(feature = "affinity")))]
    #[must_use]
    pub fn pinned(mut self, pinned: bool) -> Workers {
        self.pinned = pinned;
        self
    }

    /// Runs `work` in every worker, and waits until all have ended. Each worker calls it on its own
    /// thread. It may be an async closure that borrows what it has captured: all workers share that.
    ///
    /// `SIGTERM` and Ctrl-C ask the workers to end; a second signal cuts their grace short. A worker whose
    /// future finishes is done; a worker that panics or gives an error is logged and started again.
    /// Coroutines that a worker leaves unfinished end with it.
    ///
    /// # Errors
    ///
    /// [`WorkersError`]. When one is given, all workers have been ended, or told to stop if they are stuck.
    /// [`WorkersError::Start`] also if a loop runs on this thread already: this has to be called outside of
    /// any loop, by `main` for instance.
    pub fn run<W, T>(self, work: W) -> Result<(), WorkersError>
    where
        W: AsyncFn(Worker) -> T + Send + Sync + 'static,
        T: Outcome,
    {
        let signals = || {
            // This is called before the first worker is started. A signal that came before anybody listens
            // would end the process, and with it workers that have begun.
            let terminate = signal::stream(Signal::TERMINATE);
            let both = terminate.and_then(|signals| {
                Ok(stream::select(signals, signal::stream(Signal::INTERRUPT)?))
            });
            match both {
                Ok(signals) => signals.left_stream(),
                Err(error) => once(ready(Err(error))).right_stream(),
            }
        };
        self.run_watched(signals, work)
    }

    /// Does as [`run`](Workers::run), but asks the workers to end when the future that `until` makes is done,
    /// instead of by signals. `until` is called before the first worker is started.
    ///
    /// # Errors
    ///
    /// As [`run`](Workers::run); also [`WorkersError::Start`] with the error that the future of `until`
    /// gives.
    pub fn run_until<U, V, W, T>(self, until: U, work: W) -> Result<(), WorkersError>
    where
        U: FnOnce() -> V,
        V: Future<Output = io::Result<()>>,
        W: AsyncFn(Worker) -> T + Send + Sync + 'static,
        T: Outcome,
    {
        self.run_watched(|| once(until()), work)
    }

    /// Runs the workers until the stream of `reasons` gives the first item, which asks them to end. The
    /// second item cuts their grace short.
    fn run_watched<R, W, T>(self, reasons: impl FnOnce() -> R, work: W) -> Result<(), WorkersError>
    where
        R: Stream<Item = io::Result<()>>,
        W: AsyncFn(Worker) -> T + Send + Sync + 'static,
        T: Outcome,
    {
        let io_loop = IoLoop::new().map_err(WorkersError::Start)?;
        let watched = io_loop.run_sync(|| {
            let reasons = reasons().chain(stream::pending());
            Supervisor::new(self, work).watch(reasons)
        });
        match watched {
            Ok(result) => result,
            Err(error) => Err(WorkersError::Start(io::Error::other(error))),
        }
    }
}

impl Default for Workers {
    fn default() -> Workers {
        Workers::new()
    }
}

/// What the thread that watches over the workers knows of them. The lists have an element for each worker, at
/// the index of its number.
struct Supervisor<W> {
    workers: Workers,
    work: Arc<W>,
    sender: Sender<News>,
    news: Receiver<News>,
    /// The sending end of a channel to each worker. Nothing is ever sent: when this end is dropped, the
    /// worker cancels its token.
    stops: Vec<Option<Sender<()>>>,
    /// The loops of the workers that run, to be stopped when the grace is over.
    handles: Vec<Option<LoopHandle>>,
    /// When the worker's thread was started, and the pause that it made before it began its work.
    started: Vec<(Instant, Duration)>,
    /// How many workers have not ended.
    alive: usize,
    restarts: usize,
    /// Whether the workers were asked to end.
    is_ending: bool,
    /// Whether their grace is over. Then their loops have been stopped, and a loop that begins only now
    /// has to be stopped, too.
    is_grace_over: bool,
}

impl<W, T> Supervisor<W>
where
    W: AsyncFn(Worker) -> T + Send + Sync + 'static,
    T: Outcome,
{
    fn new(workers: Workers, work: W) -> Supervisor<W> {
        // There has to be room for all news that can be under way at the same time, so that `try_send`
        // never fails. These are two from each worker: it sends `Running` and `Ended` once in each of its
        // lives, and is not started again before its `Ended` was received.
        let (sender, news) = channel(2 * workers.count + 2);
        let stops = (0..workers.count).map(|_| None).collect();
        let handles = vec![None; workers.count];
        let started = vec![(Instant::now(), Duration::ZERO); workers.count];
        let work = Arc::new(work);
        Supervisor {
            workers,
            work,
            sender,
            news,
            stops,
            handles,
            started,
            alive: 0,
            restarts: 0,
            is_ending: false,
            is_grace_over: false,
        }
    }

    /// Starts the workers, watches over them until they have ended or are to end, and ends those that are
    /// left.
    async fn watch(
        mut self,
        reasons: impl Stream<Item = io::Result<()>>,
    ) -> Result<(), WorkersError> {
        let mut outcome = Ok(());
        for id in 0..self.workers.count {
            if let Err(error) = self.start(id, Duration::ZERO) {
                outcome = Err(WorkersError::Start(error));
                break;
            }
        }
        let mut reasons = pin!(reasons);
        let mut asked = false;
        while self.alive > 0 && outcome.is_ok() {
            let next = select(self.news.next(), reasons.next()).await;
            match next {
                Either::Left((Some(news), _)) => {
                    outcome = self.hear(news);
                }
                Either::Left((None, _)) | Either::Right((None, _)) => break,
                Either::Right((Some(reason), _)) => {
                    outcome = reason.map_err(WorkersError::Start);
                    asked = true;
                    break;
                }
            }
        }
        // If the workers have to end because of a failure, no signal has come yet. Then the first signal only
        // asks for what happens anyway, and it is the second one that cuts the grace short.
        let mut more = reasons.skip(usize::from(!asked));
        let stuck = self.end(more.next()).await;
        match outcome {
            Ok(()) if stuck > 0 => Err(WorkersError::Stuck(stuck)),
            outcome => outcome,
        }
    }

    /// Starts the thread of a worker. It pauses before it begins its work.
    fn start(&mut self, id: usize, pause: Duration) -> io::Result<()> {
        let (work, sender) = (self.work.clone(), self.sender.clone());
        let (stop, stopped) = channel(1);
        let pinned = self.workers.pinned;
        thread::Builder::new().name(format!("worker-{id}")).spawn(move || {
            WORKER.set(Some(id));
            if pinned {
                pin_to_cpu(id);
            }
            let ended = live(id, pause, &*work, &sender, stopped);
            // If this fails, the watching thread has gone, and nobody is to be told.
            let _ = sender.try_send(News::Ended(id, ended));
        })?;
        self.stops[id] = Some(stop);
        self.started[id] = (Instant::now(), pause);
        self.alive += 1;
        Ok(())
    }

    /// Takes note of what a worker's thread tells, and starts a worker again that has failed. An error ends
    /// all workers.
    fn hear(&mut self, news: News) -> Result<(), WorkersError> {
        let (id, ended) = match news {
            News::Running(id, handle) => {
                if self.is_grace_over {
                    let _ = handle.stop();
                }
                self.handles[id] = Some(handle);
                return Ok(());
            }
            News::Ended(id, ended) => (id, ended),
        };
        self.alive -= 1;
        (self.stops[id], self.handles[id]) = (None, None);
        match ended {
            Ok(()) => Ok(()),
            Err(WorkerFailure::NotStarted(error)) => Err(WorkersError::Start(error)),
            Err(WorkerFailure::Failed(info)) if self.is_ending => {
                report::error(
                    report::PROCESS,
                    format_args!("worker {id} failed while it was to end: {info}"),
                );
                Ok(())
            }
            Err(WorkerFailure::Failed(info)) => {
                self.restarts += 1;
                if self.restarts > self.workers.max_restarts {
                    return Err(WorkersError::TooManyRestarts(info));
                }
                report::error(
                    report::PROCESS,
                    format_args!("worker {id} failed and is started again: {info}"),
                );
                let (started, pause) = self.started[id];
                let pause = pause_after(pause, started.elapsed().saturating_sub(pause));
                self.start(id, pause).map_err(WorkersError::Start)
            }
        }
    }

    /// Asks all workers to end, and stops their loops when their grace is over, or when `hurry` is done.
    /// Gives how many have still not ended some time after that.
    async fn end(&mut self, hurry: impl Future + Unpin) -> usize {
        self.is_ending = true;
        self.stops.fill_with(|| None);
        let grace = sleep(self.workers.grace);
        self.hear_until(select(grace, hurry)).await;
        self.is_grace_over = true;
        for handle in self.handles.iter().flatten() {
            let _ = handle.stop();
        }
        self.hear_until(sleep(TIME_TO_STOP)).await;
        self.alive
    }

    /// Takes note of what workers tell until all have ended, or `over` is done.
    async fn hear_until(&mut self, over: impl Future) {
        let mut over = pin!(over);
        while self.alive > 0 {
            let next = select(self.news.next(), over.as_mut()).await;
            match next {
                Either::Left((Some(news), _)) => drop(self.hear(news)),
                _ => return,
            }
        }
    }
}

/// The pause of a worker that is started again, after it had paused for `pause` and then `lived` so long.
fn pause_after(pause: Duration, lived: Duration) -> Duration {
    if lived >= SOON {
        return Duration::ZERO;
    }
    (2 * pause).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

/// One life of a worker, on its thread, until its future is done or its loop is stopped.
fn live<W, T>(
    id: usize,
    pause: Duration,
    work: &W,
    sender: &Sender<News>,
    mut stopped: Receiver<()>,
) -> Result<(), WorkerFailure>
where
    W: AsyncFn(Worker) -> T,
    T: Outcome,
{
    let io_loop = IoLoop::new().map_err(WorkerFailure::NotStarted)?;
    let _ = sender.try_send(News::Running(id, io_loop.handle()));
    if !pause.is_zero() {
        // If the pause ends by anything else than its time being up, the worker was asked to end, or its loop
        // was stopped, before it has begun: so it is done.
        let paused = io_loop.run_sync(|| with_timeout(pause, stopped.recv()));
        if !matches!(paused, Ok(Err(_))) {
            return Ok(());
        }
    }
    let lived = catch_unwind(AssertUnwindSafe(|| {
        io_loop.run_sync(|| {
            let stop = CancelToken::new();
            let worker = Worker { id, stop: stop.clone() };
            start(async move {
                // Nothing is ever sent here. This goes on when the other end is dropped.
                stopped.recv().await;
                stop.cancel();
            });
            work(worker)
        })
    }));
    // The loop has to be closed by hand. Dropping this handle would not do it if something that the worker
    // has left holds another one.
    io_loop.close();
    match lived {
        Ok(Ok(output)) => match output.error() {
            None => Ok(()),
            Some(error) => Err(WorkerFailure::Failed(ExcInfo::error(error))),
        },
        // The loop was stopped, since the grace was over.
        Ok(Err(RunError::Stopped)) => Ok(()),
        Ok(Err(error)) => Err(WorkerFailure::NotStarted(io::Error::other(error))),
        Err(panic) => Err(WorkerFailure::Failed(ExcInfo::from_panic(&*panic))),
    }
}

#[cfg(all(target_os = "linux", feature = "affinity"))]
fn pin_to_cpu(id: usize) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    // Workers are spread over the CPUs that this process may use at all.
    let Ok(allowed) = sched_getaffinity(None) else { return };
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect();
    let Some(&cpu) = cpus.get(id % cpus.len().max(1)) else { return };
    let mut own = CpuSet::new();
    own.set(cpu);
    if let Err(error) = sched_setaffinity(None, &own) {
        report::warn(
            report::PROCESS,
            format_args!("worker {id} cannot be kept on CPU {cpu}: {error}"),
        );
    }
}

#[cfg(not(all(target_os = "linux", feature = "affinity")))]
fn pin_to_cpu(_: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fails_at_once_pauses_longer_each_time_and_who_lived_does_not() {
        let mut pause = Duration::ZERO;
        let pauses: Vec<u128> = std::iter::repeat_with(|| {
            pause = pause_after(pause, Duration::from_millis(3));
            pause.as_millis()
        })
        .take(9)
        .collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        assert_eq!(pause_after(pause, Duration::from_secs(1)), Duration::ZERO);
    }
}
