//! `Executor`: a bounded pool of threads for work that blocks.
//!
//! Threads are started when work arrives and none is idle, up to the bound, and end after some idle
//! seconds. It knows no loop: how a coroutine waits for the work is
//! [`run_in_executor`](crate::IoLoop::run_in_executor)'s affair.

use std::collections::VecDeque;
use std::fmt;
use std::io;
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
        self.0.lock().closed = true;
        self.0.work.notify_all();
    }
}

struct Pool {
    state: Mutex<State>,
    work: Condvar,
    threads: usize,
    queue: usize,
    name: String,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    closed: bool,
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
        let pool = Pool { state, work: Condvar::new(), threads, queue, name };
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

    /// Queues a job, which must not panic.
    pub(crate) fn submit(&self, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let pool = &self.owner.0;
        let mut state = pool.lock();
        if state.jobs.len() >= pool.queue && state.idle <= state.jobs.len() {
            return Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                format!("{} jobs are waiting for executor `{}`", state.jobs.len(), pool.name),
            ));
        }
        state.jobs.push_back(Box::new(job));
        if state.idle >= state.jobs.len() || state.threads >= pool.threads {
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

    /// A thread's life.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job();
                state = self.lock();
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
