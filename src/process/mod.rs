//! Child processes, and a loop on every core.
//!
//! A [`Subprocess`] is a child whose pipes and whose end are awaited like sockets: the end through a
//! pidfd, which becomes readable then, or `SIGCHLD` where the kernel has none. [`Workers`] is
//! Tornado's `fork_processes` for a threaded world.

mod workers;

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use crate::coroutine::start;
use crate::ioloop::{Interest, IoLoop};
use crate::net::pipe::{PipeReader, PipeWriter};
use crate::signal::{self, Signal, SignalStream};
pub use workers::{Worker, Workers, WorkersError, cpu_count, worker_id};

#[cfg(target_os = "linux")]
type PidFd = crate::net::AsyncFd<std::os::fd::OwnedFd>;

/// A child process. Tornado: `Subprocess`.
///
/// Its standard streams are as the [`Command`] says; those that are [`Stdio::piped`] are here to be
/// taken, as pipes of the loop. Read what a child writes before waiting for its end: a child whose
/// pipe is full waits for its reader.
///
/// Dropping it lets the child run on; it is reaped when it ends, so no zombie is left. With
/// [`kill_on_drop`](Subprocess::kill_on_drop) the child is killed.
///
/// ```
/// use std::process::{Command, Stdio};
/// use waterspout::{IoLoop, process::Subprocess};
/// use futures::AsyncReadExt;
///
/// IoLoop::new()?.run_sync(|| async {
///     let mut child = Subprocess::spawn(Command::new("echo").arg("hello").stdout(Stdio::piped()))?;
///     let mut output = String::new();
///     child.stdout.take().unwrap().read_to_string(&mut output).await?;
///     assert_eq!(output, "hello\n");
///     assert!(child.wait_for_exit().await?.success());
///     Ok::<(), std::io::Error>(())
/// })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Subprocess {
    /// What is written here is the child's standard input; dropping it ends that.
    pub stdin: Option<PipeWriter>,
    /// The child's standard output.
    pub stdout: Option<PipeReader>,
    /// The child's standard error.
    pub stderr: Option<PipeReader>,
    /// `None` once it was left to be reaped.
    running: Option<Running>,
    kill_on_drop: bool,
}

/// A child and what tells of its end.
struct Running {
    child: Child,
    end: End,
    status: Cell<Option<ExitStatus>>,
}

enum End {
    #[cfg(target_os = "linux")]
    PidFd(PidFd),
    /// Any child's end; then one looks.
    Signal(SignalStream),
}

impl Subprocess {
    /// Starts the process that `command` describes, for the current loop.
    ///
    /// # Errors
    ///
    /// What the system says: `NotFound`, `PermissionDenied`. Nothing is left open then.
    ///
    /// # Panics
    ///
    /// As [`IoLoop::current`].
    pub fn spawn(command: &mut Command) -> io::Result<Subprocess> {
        reap_orphans();
        // Before the child can end, if it is a signal that tells so.
        let early = End::before_spawn()?;
        let mut child = command.spawn()?;
        let end = early.map_or_else(|| End::of(&child), Ok);
        match pipes(&mut child).and_then(|pipes| Ok((pipes, end?))) {
            Ok(((stdin, stdout, stderr), end)) => {
                let running = Running { child, end, status: Cell::new(None) };
                Ok(Subprocess {
                    stdin,
                    stdout,
                    stderr,
                    running: Some(running),
                    kill_on_drop: false,
                })
            }
            Err(error) => {
                // Started, but it cannot be watched.
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// [`spawn`](Subprocess::spawn) with all three standard streams as pipes. Tornado: `STREAM`.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Subprocess::spawn).
    pub fn spawn_piped(command: &mut Command) -> io::Result<Subprocess> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Subprocess::spawn(command)
    }

    /// Kills the child when this is dropped and the child is still running.
    #[must_use]
    pub fn kill_on_drop(mut self) -> Subprocess {
        self.kill_on_drop = true;
        self
    }

    /// The child's process id.
    pub fn pid(&self) -> u32 {
        self.running.as_ref().map_or(0, |running| running.child.id())
    }

    /// Asks the child to end, or stops it, by a signal.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if it has ended and was waited for; what the system says.
    #[cfg(target_os = "linux")]
    pub fn send_signal(&self, signal: Signal) -> io::Result<()> {
        let ended = || io::Error::new(io::ErrorKind::InvalidInput, "the child has ended");
        let running = self.running.as_ref().filter(|running| running.status.get().is_none());
        let running = running.ok_or_else(ended)?;
        let pid = rustix::process::Pid::from_child(&running.child);
        let signal = rustix::process::Signal::from_named_raw(signal.number());
        let signal = signal.ok_or(io::ErrorKind::Unsupported)?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// Kills the child (`SIGKILL`).
    ///
    /// # Errors
    ///
    /// What the system says. To have ended already is none.
    pub fn kill(&mut self) -> io::Result<()> {
        match &mut self.running {
            Some(running) if running.status.get().is_none() => running.child.kill(),
            _ => Ok(()),
        }
    }

    /// The child's exit status, if it has ended. Does not wait.
    ///
    /// # Errors
    ///
    /// What the system says: `ECHILD` if somebody else has reaped the child.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        match &mut self.running {
            Some(running) => running.try_wait(),
            None => Ok(None),
        }
    }

    /// Waits until the child has ended. Tornado: `wait_for_exit(raise_error=False)`; what
    /// `raise_error` does is `status.success()`'s or `exit_ok`'s affair.
    ///
    /// Cancel safe, and may be called again.
    ///
    /// # Errors
    ///
    /// What the system says: `ECHILD` if somebody else has reaped the child, whose status is lost.
    pub async fn wait_for_exit(&mut self) -> io::Result<ExitStatus> {
        match &mut self.running {
            Some(running) => poll_fn(|cx| running.poll_exit(cx)).await,
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Waits for the child's end in the background and calls `callback` with its status, once.
    /// Tornado: `set_exit_callback`.
    ///
    /// The pipes have to be taken before; those that are left are closed.
    pub fn set_exit_callback(self, callback: impl FnOnce(io::Result<ExitStatus>) + 'static) {
        let mut child = self;
        start(async move { callback(child.wait_for_exit().await) });
    }
}

impl Running {
    fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.status.get().is_none() {
            self.status.set(self.child.try_wait()?);
        }
        Ok(self.status.get())
    }

    fn poll_exit(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<ExitStatus>> {
        let Running { child, end, status } = self;
        if let Some(status) = status.get() {
            return Poll::Ready(Ok(status));
        }
        let mut look = || child.try_wait()?.ok_or_else(|| io::ErrorKind::WouldBlock.into());
        let exit = match end {
            #[cfg(target_os = "linux")]
            End::PidFd(pidfd) => ready!(pidfd.poll_read_with(cx, |_| look())),
            End::Signal(signals) => loop {
                match look() {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        ready!(signals.poll_recv(cx))?;
                    }
                    exit => break exit,
                }
            },
        };
        if let Ok(exit) = exit {
            status.set(Some(exit));
        }
        Poll::Ready(exit)
    }
}

impl End {
    /// What has to be there before the child is: nothing where there are pidfds.
    fn before_spawn() -> io::Result<Option<End>> {
        if has_pidfds() {
            Ok(None)
        } else {
            signal::stream(Signal::CHILD).map(End::Signal).map(Some)
        }
    }

    #[cfg(target_os = "linux")]
    fn of(child: &Child) -> io::Result<End> {
        use rustix::process::{Pid, PidfdFlags, pidfd_open};
        let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
        PidFd::with_interest(pidfd, Interest::READ).map(End::PidFd)
    }

    #[cfg(not(target_os = "linux"))]
    fn of(_: &Child) -> io::Result<End> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// The child's ends of its pipes, as the loop's.
type Pipes = (Option<PipeWriter>, Option<PipeReader>, Option<PipeReader>);

fn pipes(child: &mut Child) -> io::Result<Pipes> {
    Ok((
        child.stdin.take().map(PipeWriter::try_from).transpose()?,
        child.stdout.take().map(PipeReader::try_from).transpose()?,
        child.stderr.take().map(PipeReader::try_from).transpose()?,
    ))
}

/// Whether the kernel has pidfds (Linux 5.3), asked once.
fn has_pidfds() -> bool {
    #[cfg(target_os = "linux")]
    {
        use std::sync::OnceLock;
        static HAS: OnceLock<bool> = OnceLock::new();
        *HAS.get_or_init(|| {
            use rustix::process::{PidfdFlags, getpid, pidfd_open};
            pidfd_open(getpid(), PidfdFlags::empty()).is_ok()
        })
    }
    #[cfg(not(target_os = "linux"))]
    false
}

/// Children that nobody waits for and whose loop has gone; looked at when the next is started.
static ORPHANS: Mutex<Vec<Child>> = Mutex::new(Vec::new());

fn reap_orphans() {
    let mut orphans = ORPHANS.lock().unwrap_or_else(PoisonError::into_inner);
    orphans.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
}

impl Drop for Subprocess {
    fn drop(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        if !matches!(running.try_wait(), Ok(None)) {
            return;
        }
        if self.kill_on_drop {
            let _ = running.child.kill();
        }
        // A loop reaps it when it ends.
        match IoLoop::try_current() {
            Some(io_loop) if !io_loop.core().is_closed() => {
                start(async move { poll_fn(|cx| running.poll_exit(cx)).await.map(drop) });
            }
            _ => ORPHANS.lock().unwrap_or_else(PoisonError::into_inner).push(running.child),
        }
    }
}

impl fmt::Debug for Subprocess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subprocess").field("pid", &self.pid()).finish_non_exhaustive()
    }
}
