//! `Workers`: one loop a core. Tornado's `fork_processes`, on threads.
//!
//! Each worker is a thread with a loop of its own that runs one coroutine, from the same function.
//! Workers that serve one port have a listener each (`SO_REUSEPORT`), among which the system divides the
//! connections. A worker that panics or ends with an error is started again under its number, up to a limit; `SIGTERM` and Ctrl-C
//! ask all of them to end, and those that take too long are ended.

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

/// So long a loop that was told to stop has to do so: one that gets to its next turn at all takes a moment,
/// but the machine may be busy.
const TIME_TO_STOP: Duration = Duration::from_secs(5);

/// A worker that fails sooner is started again after a pause...
const SOON: Duration = Duration::from_secs(1);
/// ...of this length, which doubles each time...
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
/// ...up to this one.
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

/// What a worker's coroutine is told.
#[derive(Clone, Debug)]
pub struct Worker {
    id: usize,
    stop: CancelToken,
}

impl Worker {
    /// Its number, from 0. A worker that is started again has the same.
    pub fn id(&self) -> usize {
        self.id
    }

    /// Cancelled when the workers are to end: a server stops accepting then, and drains.
    pub fn stop(&self) -> &CancelToken {
        &self.stop
    }
}

/// How workers run; one thread with a loop for each CPU unless told. Tornado: `fork_processes`.
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
    /// Workers panicked or ended with an error more often than they may; this is what the last one did.
    TooManyRestarts(ExcInfo),
    /// So many workers had not ended when their grace was over, nor 5 seconds after their loops were told
    /// to stop: they never await. Their threads run on.
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

/// What a worker's thread tells the one that watches.
enum News {
    Running(usize, LoopHandle),
    Ended(usize, Result<(), Ending>),
}

/// How a worker ended that should not have.
enum Ending {
    Failed(ExcInfo),
    NotStarted(io::Error),
}

impl Workers {
    /// A worker for each CPU, 100 restarts, half a minute to end, not pinned.
    pub fn new() -> Workers {
        let grace = Duration::from_secs(30);
        Workers { count: cpu_count(), max_restarts: 100, grace, pinned: false }
    }

    /// So many workers, at least one.
    #[must_use]
    pub fn count(mut self, count: usize) -> Workers {
        self.count = count.max(1);
        self
    }

    /// How often, in all, workers that failed are started again: 100 unless told, as in Tornado.
    ///
    /// One that fails within a second is started again after a pause of 10 ms, which doubles each time,
    /// up to a second: what fails at once would keep a core busy with failing otherwise.
    #[must_use]
    pub fn max_restarts(mut self, restarts: usize) -> Workers {
        self.max_restarts = restarts;
        self
    }

    /// How long workers may take to end when they are asked to: 30 seconds unless told. Then their loops are
    /// stopped, and they are ended at the `.await` where they are.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Workers {
        self.grace = grace;
        self
    }

    /// Keeps each worker on a CPU of its own (Linux only, without effect elsewhere). It takes the feature
    /// `affinity`.
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

    /// Runs `work` in every worker and waits until all have ended. It is called on the worker's thread, and
    /// may be an async closure that lends what it has to all of them.
    ///
    /// `SIGTERM` and Ctrl-C ask them to end; a second one cuts their grace short. A worker whose
    /// future finishes is done; one that panics or gives an error is logged and started again.
    /// Coroutines that a worker leaves unfinished end with it.
    ///
    /// # Errors
    ///
    /// [`WorkersError`]; the other workers have been ended then. [`WorkersError::Start`] also if a loop
    /// runs on this thread already: workers are run by a thread of their own, as `main` is.
    pub fn run<W, T>(self, work: W) -> Result<(), WorkersError>
    where
        W: AsyncFn(Worker) -> T + Send + Sync + 'static,
        T: Outcome,
    {
        let signals = || {
            // Here, before the first worker is started: a signal that came before anybody listens would end
            // the process, and with it workers that have begun.
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

    /// [`run`](Workers::run) with another reason to end than a signal: when the future that `until`
    /// makes is done. `until` is called before the first worker is started.
    ///
    /// # Errors
    ///
    /// As [`run`](Workers::run); also [`WorkersError::Start`] with the error of that future.
    pub fn run_until<U, V, W, T>(self, until: U, work: W) -> Result<(), WorkersError>
    where
        U: FnOnce() -> V,
        V: Future<Output = io::Result<()>>,
        W: AsyncFn(Worker) -> T + Send + Sync + 'static,
        T: Outcome,
    {
        self.run_watched(|| once(until()), work)
    }

    /// Runs until there is a reason to end, and gives grace until there is another.
    fn run_watched<R, W, T>(self, reasons: impl FnOnce() -> R, work: W) -> Result<(), WorkersError>
    where
        R: Stream<Item = io::Result<()>>,
        W: AsyncFn(Worker) -> T + Send + Sync + 'static,
        T: Outcome,
    {
        let io_loop = IoLoop::new().map_err(WorkersError::Start)?;
        let watched = io_loop.run_sync(|| {
            let reasons = reasons().chain(stream::pending());
            Watch::new(self, work).watch(reasons)
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

/// The thread that watches over the workers.
struct Watch<W> {
    workers: Workers,
    work: Arc<W>,
    sender: Sender<News>,
    news: Receiver<News>,
    /// A channel to each worker, in which nothing is sent: when this end is dropped, the worker's token is
    /// cancelled.
    stops: Vec<Option<Sender<()>>>,
    /// The loops of those that run, to be stopped when the grace is over.
    handles: Vec<Option<LoopHandle>>,
    /// When each was started, after which pause.
    begun: Vec<(Instant, Duration)>,
    alive: usize,
    restarts: usize,
    /// They were asked to end.
    stopping: bool,
    /// Their grace is over: the loops have been stopped, and so is one that begins only now.
    over: bool,
}

impl<W, T> Watch<W>
where
    W: AsyncFn(Worker) -> T + Send + Sync + 'static,
    T: Outcome,
{
    fn new(workers: Workers, work: W) -> Watch<W> {
        // Room for all that is sent before somebody listens, so that `try_send` never fails: a worker says
        // `Running` and `Ended` once in each life, and is not started again before its `Ended` was heard.
        let (sender, news) = channel(2 * workers.count + 2);
        let stops = (0..workers.count).map(|_| None).collect();
        let handles = vec![None; workers.count];
        let begun = vec![(Instant::now(), Duration::ZERO); workers.count];
        let work = Arc::new(work);
        Watch {
            workers,
            work,
            sender,
            news,
            stops,
            handles,
            begun,
            alive: 0,
            restarts: 0,
            stopping: false,
            over: false,
        }
    }

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
        // If a failure ends them, nobody has asked for it yet. The first signal then asks for what happens
        // anyway, and only the second one is in a hurry.
        let mut more = reasons.skip(usize::from(!asked));
        let stuck = self.end(more.next()).await;
        match outcome {
            Ok(()) if stuck > 0 => Err(WorkersError::Stuck(stuck)),
            outcome => outcome,
        }
    }

    /// Starts the thread of a worker, which begins after a pause.
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
            // The other side has room for it, or has gone.
            let _ = sender.try_send(News::Ended(id, ended));
        })?;
        self.stops[id] = Some(stop);
        self.begun[id] = (Instant::now(), pause);
        self.alive += 1;
        Ok(())
    }

    fn hear(&mut self, news: News) -> Result<(), WorkersError> {
        let (id, ended) = match news {
            News::Running(id, handle) => {
                if self.over {
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
            Err(Ending::NotStarted(error)) => Err(WorkersError::Start(error)),
            Err(Ending::Failed(info)) if self.stopping => {
                report::error(
                    report::PROCESS,
                    format_args!("worker {id} failed while it was to end: {info}"),
                );
                Ok(())
            }
            Err(Ending::Failed(info)) => {
                self.restarts += 1;
                if self.restarts > self.workers.max_restarts {
                    return Err(WorkersError::TooManyRestarts(info));
                }
                report::error(
                    report::PROCESS,
                    format_args!("worker {id} failed and is started again: {info}"),
                );
                let (begun, pause) = self.begun[id];
                let pause = pause_after(pause, begun.elapsed().saturating_sub(pause));
                self.start(id, pause).map_err(WorkersError::Start)
            }
        }
    }

    /// Asks all workers to end, then ends them; tells how many do not. `hurry` cuts their grace short.
    async fn end(&mut self, hurry: impl Future + Unpin) -> usize {
        self.stopping = true;
        self.stops.fill_with(|| None);
        let grace = sleep(self.workers.grace);
        self.hear_until(select(grace, hurry)).await;
        self.over = true;
        for handle in self.handles.iter().flatten() {
            let _ = handle.stop();
        }
        self.hear_until(sleep(TIME_TO_STOP)).await;
        self.alive
    }

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

/// How long a worker pauses that lived so long after the last pause.
fn pause_after(pause: Duration, lived: Duration) -> Duration {
    if lived >= SOON {
        return Duration::ZERO;
    }
    (2 * pause).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

/// A worker's life, on its thread, until it is done or asked to end.
fn live<W, T>(
    id: usize,
    pause: Duration,
    work: &W,
    sender: &Sender<News>,
    mut stopped: Receiver<()>,
) -> Result<(), Ending>
where
    W: AsyncFn(Worker) -> T,
    T: Outcome,
{
    let io_loop = IoLoop::new().map_err(Ending::NotStarted)?;
    let _ = sender.try_send(News::Running(id, io_loop.handle()));
    if !pause.is_zero() {
        // Unless the time is up, it was asked to end, or stopped, before it has begun: so it is done.
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
                // Nothing is ever sent; it ends when the other end is dropped.
                stopped.recv().await;
                stop.cancel();
            });
            work(worker)
        })
    }));
    // By hand: if anything of the worker's holds a clone of it, it would not be closed with this handle.
    io_loop.close();
    match lived {
        Ok(Ok(output)) => match output.error() {
            None => Ok(()),
            Some(error) => Err(Ending::Failed(ExcInfo::error(error))),
        },
        // Stopped is what happens to those whose grace is over.
        Ok(Err(RunError::Stopped)) => Ok(()),
        Ok(Err(error)) => Err(Ending::NotStarted(io::Error::other(error))),
        Err(panic) => Err(Ending::Failed(ExcInfo::from_panic(&*panic))),
    }
}

#[cfg(all(target_os = "linux", feature = "affinity"))]
fn pin_to_cpu(id: usize) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    // Of those that the process may use at all.
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
