//! `Executor`: a bounded pool of threads for work that blocks.
//!
//! A thread is started when a job arrives and no thread is free for it, up to the bound; a thread that has
//! been idle for some seconds ends. The pool knows no loop: `coroutine/in_executor.rs` has what lets a
//! coroutine wait for a job, under [`run_in_executor`](crate::IoLoop::run_in_executor).

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ptr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

type Job = Box<dyn FnOnce() + Send>;

/// How long a thread without work stays before it ends.
const IDLE: Duration = Duration::from_secs(10);

/// A bounded pool of threads for blocking work. A clone is the same pool.
///
/// When its last clone is dropped, its threads finish all jobs that were submitted, and end.
///
/// ```
/// use waterspout::{IoLoop, concurrent::Executor};
///
/// let executor = Executor::builder().threads(2).name("hasher").build();
/// let io_loop = IoLoop::new()?;
/// let name = io_loop.run_sync(|| executor.run(|| std::thread::current().name().map(String::from)))?;
/// assert_eq!(name.as_deref(), Some("hasher"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Executor {
    owner: Arc<Owner>,
}

/// What the user's handles share. When it is dropped with the last of them, it tells the pool's threads to
/// end. The threads hold the pool itself, and not this, which they would keep from ever being dropped.
struct Owner(Arc<Pool>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.close();
    }
}

thread_local! {
    /// The address of the pool to which this thread belongs; null on all other threads. It is only compared.
    static OWN_POOL: Cell<*const Pool> = const { Cell::new(ptr::null()) };
}

struct Pool {
    state: Mutex<State>,
    /// Notified when there is a job, or when no more will come. Idle threads wait for it.
    work: Condvar,
    /// Notified when a thread has ended, or has begun to wait in `shutdown` itself. `shutdown` waits for it.
    ended: Condvar,
    max_threads: usize,
    queue_limit: usize,
    name: String,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// How many threads there are, idle, busy or about to begin.
    threads: usize,
    /// How many of them wait for a job.
    idle: usize,
    /// How many of them run a job.
    busy: usize,
    /// How many of them run a job that has called `shutdown` and waits there. Others that wait in `shutdown`
    /// do not wait for these: they would wait for each other for ever.
    in_shutdown: usize,
    closed: bool,
    submitted: u64,
    refused: u64,
    abandoned: u64,
}

/// What an [`Executor`] does, and has done. From [`Executor::counters`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecutorCounters {
    /// How many threads there are.
    pub threads: usize,
    /// How many of the threads have nothing to do.
    pub idle: usize,
    /// How many jobs wait for a thread.
    pub queued: usize,
    /// How many jobs have been taken on so far.
    pub submitted: u64,
    /// How many jobs have been refused so far, since too many were waiting, the executor was shut down, or no
    /// thread could be started.
    pub refused: u64,
    /// How many jobs have been dropped by [`Executor::abandon`].
    pub abandoned: u64,
}

/// Makes an [`Executor`]. From [`Executor::builder`].
#[derive(Clone, Debug)]
pub struct ExecutorBuilder {
    threads: usize,
    queue_limit: usize,
    name: String,
}

impl ExecutorBuilder {
    /// How many threads there may be; 0 counts as 1. By default five for each CPU, as in Tornado.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> ExecutorBuilder {
        self.threads = threads.max(1);
        self
    }

    /// How many jobs may wait for a thread; any more are refused. By default there is no limit.
    #[must_use]
    pub fn queue_limit(mut self, jobs: usize) -> ExecutorBuilder {
        self.queue_limit = jobs;
        self
    }

    /// The name of its threads. By default `waterspout-executor`.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> ExecutorBuilder {
        self.name = name.into();
        self
    }

    /// Makes the executor. It starts its first thread when it gets its first job.
    pub fn build(self) -> Executor {
        let ExecutorBuilder { threads: max_threads, queue_limit, name } = self;
        let state = Mutex::new(State::default());
        let (work, ended) = (Condvar::new(), Condvar::new());
        let pool = Pool { state, work, ended, max_threads, queue_limit, name };
        Executor { owner: Arc::new(Owner(Arc::new(pool))) }
    }
}

impl Executor {
    /// Begins to make an executor.
    pub fn builder() -> ExecutorBuilder {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let name = String::from("waterspout-executor");
        ExecutorBuilder { threads: 5 * cpus, queue_limit: usize::MAX, name }
    }

    /// The executor that the whole process shares, made with the defaults when it is first used.
    pub fn shared() -> &'static Executor {
        static SHARED: OnceLock<Executor> = OnceLock::new();
        SHARED.get_or_init(|| Executor::builder().build())
    }

    /// How many threads there are now.
    pub fn threads(&self) -> usize {
        self.owner.0.lock().threads
    }

    /// What the executor does now, and has done so far.
    pub fn counters(&self) -> ExecutorCounters {
        let state = self.owner.0.lock();
        ExecutorCounters {
            threads: state.threads,
            idle: state.idle,
            queued: state.jobs.len(),
            submitted: state.submitted,
            refused: state.refused,
            abandoned: state.abandoned,
        }
    }

    /// Takes on no more jobs, lets the threads finish those that were submitted, and blocks until the threads
    /// have ended.
    ///
    /// It is for the end of a program: it blocks the thread that calls it, and a loop that runs there. A job
    /// of this executor may call it, too; it waits for all other threads then, except for those whose jobs
    /// wait in here as well. (Two jobs of two executors that each shut down the other's executor wait for
    /// ever.)
    pub fn shutdown(&self) {
        let pool = &self.owner.0;
        pool.close();
        let is_own = ptr::eq(OWN_POOL.get(), Arc::as_ptr(pool));
        let mut state = pool.lock();
        state.in_shutdown += usize::from(is_own);
        pool.ended.notify_all();
        while state.threads > if is_own { state.in_shutdown } else { 0 } {
            state = pool.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.in_shutdown -= usize::from(is_own);
    }

    /// Takes on no more jobs and drops those that no thread has begun. It does not wait for those that run.
    /// Awaiting the result of a job that was dropped panics, with a message that says so.
    pub fn abandon(&self) {
        let pool = &self.owner.0;
        pool.close();
        let mut state = pool.lock();
        state.abandoned += state.jobs.len() as u64;
        let jobs = std::mem::take(&mut state.jobs);
        drop(state);
        drop(jobs);
    }

    /// Queues a job, which must not panic.
    pub(crate) fn submit(&self, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let pool = &self.owner.0;
        let mut state = pool.lock();
        // A job for which a thread is free, or can be started, does not count as waiting.
        let max_jobs = pool.queue_limit.saturating_add(pool.max_threads - state.busy);
        let refusal = if state.closed {
            Some((io::ErrorKind::NotConnected, format!("executor `{}` was shut down", pool.name)))
        } else if state.jobs.len() >= max_jobs {
            let waiting = state.jobs.len();
            let message = format!("{waiting} jobs are waiting for executor `{}`", pool.name);
            Some((io::ErrorKind::QuotaExceeded, message))
        } else {
            None
        };
        if let Some((kind, message)) = refusal {
            state.refused += 1;
            return Err(io::Error::new(kind, message));
        }
        state.submitted += 1;
        state.jobs.push_back(Box::new(job));
        // If so many threads run no job, each job will get one of them: also threads that are only starting
        // look for a job first.
        if state.threads - state.busy >= state.jobs.len() || state.threads >= pool.max_threads {
            drop(state);
            pool.work.notify_one();
            return Ok(());
        }
        state.threads += 1;
        let worker = pool.clone();
        let started = thread::Builder::new().name(pool.name.clone()).spawn(move || worker.work());
        if let Err(error) = started {
            state.threads -= 1;
            // The other threads will run the job in time. If there are none, nobody would: so it is refused.
            if state.threads == 0 {
                let job = state.jobs.pop_back();
                state.submitted -= 1;
                state.refused += 1;
                drop(state);
                drop(job);
                return Err(error);
            }
        }
        Ok(())
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.lock().closed = true;
        self.work.notify_all();
    }

    /// What a thread of the pool does from its start to its end.
    fn work(&self) {
        OWN_POOL.set(self);
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                state.busy += 1;
                drop(state);
                job();
                state = self.lock();
                state.busy -= 1;
                continue;
            }
            if state.closed {
                break;
            }
            state.idle += 1;
            let waited = self.work.wait_timeout(state, IDLE);
            let (resumed, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = resumed;
            state.idle -= 1;
            if timeout.timed_out() && state.jobs.is_empty() {
                break;
            }
        }
        state.threads -= 1;
        drop(state);
        self.ended.notify_all();
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor")
            .field("name", &self.owner.0.name)
            .field("threads", &self.threads())
            .finish()
    }
}
