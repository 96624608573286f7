//! `Executor`: a bounded pool of threads for work that blocks.
//!
//! Threads are started when work arrives and none is idle, up to the bound, and end after some idle
//! seconds. It knows no loop: how a coroutine waits for the work is
//! [`run_in_executor`](crate::IoLoop::run_in_executor)'s affair.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ptr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

type Job = Box<dyn FnOnce() + Send>;

/// How long a thread without work stays.
const IDLE: Duration = Duration::from_secs(10);

/// A bounded pool of threads for blocking work; cheap to clone.
///
/// When its last clone is dropped, its threads finish what was submitted and end.
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

/// Tells the threads when the last handle has gone; they hold the pool alone.
struct Owner(Arc<Pool>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.close();
    }
}

thread_local! {
    /// The pool whose thread this is, by its address; it outlives its threads.
    static OWN_POOL: Cell<*const Pool> = const { Cell::new(ptr::null()) };
}

struct Pool {
    state: Mutex<State>,
    /// There is work, or no more will come.
    work: Condvar,
    /// A thread has ended, or waits for the others to end.
    ended: Condvar,
    threads: usize,
    queue: usize,
    name: String,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    /// Those that run a job.
    busy: usize,
    /// Those whose job waits in `shutdown`, for which nobody else waits there.
    leaving: usize,
    closed: bool,
    submitted: u64,
    refused: u64,
    abandoned: u64,
}

/// What an [`Executor`] does, and has done. From [`Executor::counters`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecutorCounters {
    /// Threads there are.
    pub threads: usize,
    /// Of those, how many have nothing to do.
    pub idle: usize,
    /// Work that waits for a thread.
    pub queued: usize,
    /// Work that was taken on, in all.
    pub submitted: u64,
    /// Work that was refused, since too much was waiting, the executor was shut down, or no thread
    /// could be started.
    pub refused: u64,
    /// Work that was dropped by [`Executor::abandon`].
    pub abandoned: u64,
}

/// Makes an [`Executor`]. From [`Executor::builder`].
#[derive(Clone, Debug)]
pub struct ExecutorBuilder {
    threads: usize,
    queue: usize,
    name: String,
}

impl ExecutorBuilder {
    /// At most so many threads, and at least one; five for each CPU unless told, like Tornado's.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> ExecutorBuilder {
        self.threads = threads.max(1);
        self
    }

    /// At most so much work may wait for a thread; more is refused. Without limit unless told.
    #[must_use]
    pub fn queue_limit(mut self, jobs: usize) -> ExecutorBuilder {
        self.queue = jobs;
        self
    }

    /// What its threads are called.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> ExecutorBuilder {
        self.name = name.into();
        self
    }

    /// Makes the executor; threads start with the first work.
    pub fn build(self) -> Executor {
        let ExecutorBuilder { threads, queue, name } = self;
        let state = Mutex::new(State::default());
        let (work, ended) = (Condvar::new(), Condvar::new());
        let pool = Pool { state, work, ended, threads, queue, name };
        Executor { owner: Arc::new(Owner(Arc::new(pool))) }
    }
}

impl Executor {
    /// An executor with options.
    pub fn builder() -> ExecutorBuilder {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        ExecutorBuilder { threads: 5 * cpus, queue: usize::MAX, name: "waterspout-executor".into() }
    }

    /// The process's shared executor, made with defaults when it is first used.
    pub fn shared() -> &'static Executor {
        static SHARED: OnceLock<Executor> = OnceLock::new();
        SHARED.get_or_init(|| Executor::builder().build())
    }

    /// How many threads it has now.
    pub fn threads(&self) -> usize {
        self.owner.0.lock().threads
    }

    /// What it does, and has done.
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

    /// Takes on no more work, finishes what was submitted, and blocks until its threads have ended.
    ///
    /// For the end of a program; a loop's thread stands still meanwhile. A job of this executor may call
    /// it, too: it waits for all the others but those that do the same. (Jobs of two executors that
    /// shut each other down wait for ever.)
    pub fn shutdown(&self) {
        let pool = &self.owner.0;
        pool.close();
        let is_own = ptr::eq(OWN_POOL.get(), Arc::as_ptr(pool));
        let mut state = pool.lock();
        state.leaving += usize::from(is_own);
        pool.ended.notify_all();
        while state.threads > if is_own { state.leaving } else { 0 } {
            state = pool.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.leaving -= usize::from(is_own);
    }

    /// Takes on no more work and drops what no thread has begun; does not wait for what one has. Whoever
    /// awaits what was dropped gets a panic that says so.
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
        let refusal = if state.closed {
            Some((io::ErrorKind::NotConnected, format!("executor `{}` was shut down", pool.name)))
        } else if state.jobs.len() >= pool.queue.saturating_add(pool.threads - state.busy) {
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
        // Those without work will come to it, also those that are only starting.
        if state.threads - state.busy >= state.jobs.len() || state.threads >= pool.threads {
            drop(state);
            pool.work.notify_one();
            return Ok(());
        }
        state.threads += 1;
        let worker = pool.clone();
        let started = thread::Builder::new().name(pool.name.clone()).spawn(move || worker.work());
        if let Err(error) = started {
            state.threads -= 1;
            // The others will come to it; if there are none, the last job in has to go.
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

    /// A thread's life.
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
