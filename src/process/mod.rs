//! Child processes, and a loop on every core.
//!
//! A [`Subprocess`] is a child process whose pipes and whose end are awaited like sockets. The loop learns of
//! its end by a pidfd, a file descriptor that becomes readable then, or by `SIGCHLD` where the kernel has no
//! pidfds. [`Workers`] is Tornado's `fork_processes`, with threads instead of processes.

mod workers;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::thread;

use futures::future::FusedFuture;
use futures::future::try_join3;

use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Pid, Signal as RawSignal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::ground::resumption;
use crate::ioloop::{IoLoop, LoopId, on_current, with_current};
use crate::signal::{self, Signal, SignalStream};
use crate::sockets::pipe::{PipeReader, PipeWriter};
pub use workers::{Worker, Workers, WorkersError, cpu_count, worker_id};

#[cfg(target_os = "linux")]
use crate::ioloop::Interest;

#[cfg(target_os = "linux")]
type PidFd = crate::sockets::AsyncFd<std::os::fd::OwnedFd>;

/// A child process. Tornado: `Subprocess`.
///
/// Its standard streams are as the [`Command`] says. Those that are [`Stdio::piped`] are fields of this, as
/// pipes that the loop reads and writes, and may be taken. A child whose output pipe is full waits until
/// somebody reads from it: so read what it writes before you wait for its end, or do both by
/// [`wait_with_output`](Subprocess::wait_with_output). If you only want the result, use
/// [`output`](Subprocess::output) or [`status`](Subprocess::status).
///
/// It belongs to the loop on which it was made. Dropping it lets the child run on. When the child ends, its
/// loop reaps it, so that no zombie is left; if the loop has gone, that is done when the next child is
/// started. With [`kill_on_drop`](Subprocess::kill_on_drop) the child is killed, and reaped without delay,
/// whatever has become of its loop.
///
/// If this process ignores `SIGCHLD`, the system reaps its children itself and keeps no exit status. They
/// run all the same; waiting for one is over when it ends, with the error `ECHILD`.
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
    /// The child's standard input: the child reads what is written here. Dropping it ends the input.
    pub stdin: Option<PipeWriter>,
    /// The child's standard output.
    pub stdout: Option<PipeReader>,
    /// The child's standard error.
    pub stderr: Option<PipeReader>,
    /// `None` only while this is dropped.
    running: Option<Running>,
    /// The loop on which it was made.
    id: LoopId,
    kill_on_drop: bool,
}

/// A child, and what tells one of those that wait for its end. The handle has one of these, and each exit
/// callback has its own.
struct Running {
    child: Shared,
    notice: ExitNotice,
}

/// A child for whose end several may wait: its handle and exit callbacks. Whichever of them reaps the child
/// leaves its status here for the others. No foreign code runs while this is locked.
#[derive(Clone)]
struct Shared(Arc<Mutex<Reaped>>);

/// A child that is sure to be reaped, whatever becomes of those that wait for it. If this is dropped before
/// the child has ended, the child goes to `ORPHANS`, and is reaped when another child is started after its
/// end. If it was killed, and so is about to end, a thread waits for that and reaps it without delay.
struct Reaped {
    /// `None` only while this is dropped.
    child: Option<Child>,
    fate: Fate,
    /// Whether it was killed, so that it ends at once.
    killed: bool,
}

/// What is known of a child's end.
#[derive(Clone, Copy)]
enum Fate {
    /// It has not ended, as far as is known here.
    Unknown,
    Ended(ExitStatus),
    /// It has ended, but somebody else has reaped it, and so has got its status: the system, or a `waitpid`
    /// somewhere in this process.
    Lost,
}

/// What tells a waiter that a child has ended.
enum ExitNotice {
    #[cfg(target_os = "linux")]
    PidFd(PidFd),
    /// `SIGCHLD`, which only says that some child has ended: the waiter then looks whether it is this one.
    Signal(SignalStream),
    /// Nothing is needed: the child was gone already when its pidfd was to be made. It had ended, and the
    /// system had reaped it, as it does where `SIGCHLD` is ignored.
    #[cfg(target_os = "linux")]
    Seen,
}

impl Subprocess {
    /// Starts the process that `command` describes. It belongs to the current loop.
    ///
    /// # Errors
    ///
    /// What the system says: `NotFound`, `PermissionDenied`, too many open files. Then no file is left open,
    /// and no child is left running.
    ///
    /// # Panics
    ///
    /// As [`IoLoop::current`].
    pub fn spawn(command: &mut Command) -> io::Result<Subprocess> {
        Subprocess::spawn_watched(command, has_pidfds())
    }

    fn spawn_watched(command: &mut Command, by_pidfd: bool) -> io::Result<Subprocess> {
        reap_orphans();
        // A signal that comes before anybody listens is missed. So the listening begins before there is a
        // child that could end.
        let early = if by_pidfd { None } else { Some(signal::stream(Signal::CHILD)?) };
        let mut child = command.spawn()?;
        let notice =
            early.map_or_else(|| ExitNotice::of(&child), |signals| Ok(ExitNotice::Signal(signals)));
        match pipes(&mut child).and_then(|pipes| Ok((pipes, notice?))) {
            Ok(((stdin, stdout, stderr), notice)) => {
                let running = Some(Running { child: Shared::new(child), notice });
                let id = on_current(|core| core.id());
                Ok(Subprocess { stdin, stdout, stderr, running, id, kill_on_drop: false })
            }
            Err(error) => {
                // The child was started, but nothing would tell of its end, or its pipes cannot be used.
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

    /// Runs `command` to its end, and gives its exit status and all that it has written to its standard
    /// output and error. Python: `subprocess.run(..., capture_output=True)`.
    ///
    /// The child is started by this call, and belongs to the current loop. Its output and error are pipes,
    /// whatever `command` says of them. Its input is as `command` says; if that says nothing, it is this
    /// process's own, whereas [`Command::output`] gives it an empty one: say `stdin(Stdio::null())` for that.
    ///
    /// Otherwise this is [`spawn`](Subprocess::spawn) followed by
    /// [`wait_with_output`](Subprocess::wait_with_output), and what these say of limits and of cancelling
    /// holds here, too.
    ///
    /// # Errors
    ///
    /// As those two. All errors are given when this is awaited, also those of starting the child.
    ///
    /// # Panics
    ///
    /// As [`IoLoop::current`].
    ///
    /// ```
    /// use std::process::Command;
    /// use waterspout::{IoLoop, process::Subprocess};
    ///
    /// # IoLoop::new()?.run_sync(|| async {
    /// let output = Subprocess::output(Command::new("echo").arg("hello")).await?;
    /// assert!(output.status.success() && output.stderr.is_empty());
    /// assert_eq!(output.stdout, b"hello\n");
    /// # Ok::<(), std::io::Error>(())
    /// # })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn output(command: &mut Command) -> impl FusedFuture<Output = io::Result<Output>> + use<> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = Subprocess::spawn(command);
        resumption::here(async move { child?.wait_with_output().await })
    }

    /// Runs `command` to its end, and gives its exit status. Python: `subprocess.call`.
    ///
    /// The child is started by this call, and belongs to the current loop. Its standard streams are as
    /// `command` says; those of which it says nothing are this process's own. Those that are
    /// [`Stdio::piped`] are closed at once, since nobody would read or write them: a child that writes there
    /// gets `SIGPIPE`.
    ///
    /// If this is dropped before it is done, the child runs on.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Subprocess::spawn) and [`wait_for_exit`](Subprocess::wait_for_exit). All errors are given
    /// when this is awaited, also those of starting the child.
    ///
    /// # Panics
    ///
    /// As [`IoLoop::current`].
    ///
    /// ```
    /// use std::process::Command;
    /// use waterspout::{IoLoop, process::Subprocess};
    ///
    /// # IoLoop::new()?.run_sync(|| async {
    /// let status = Subprocess::status(Command::new("sh").args(["-c", "exit 3"])).await?;
    /// assert_eq!(status.code(), Some(3));
    /// # Ok::<(), std::io::Error>(())
    /// # })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn status(
        command: &mut Command,
    ) -> impl FusedFuture<Output = io::Result<ExitStatus>> + use<> {
        let child = Subprocess::spawn(command).map(|mut child| {
            (child.stdin, child.stdout, child.stderr) = (None, None, None);
            child
        });
        resumption::here(async move { child?.wait_for_exit().await })
    }

    /// Has the child killed if it still runs when this is dropped.
    #[must_use]
    pub fn kill_on_drop(mut self) -> Subprocess {
        self.kill_on_drop = true;
        self
    }

    /// The child's process id. Once the child has ended and was reaped, another process may get the same
    /// number: so send it signals by [`send_signal`](Subprocess::send_signal), which cannot hit another.
    pub fn pid(&self) -> u32 {
        self.running.as_ref().map_or(0, |running| running.child.lock().pid())
    }

    /// Sends the child a signal, for instance [`Signal::TERMINATE`] to ask it to end.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the child has ended and that is known here; `Unsupported` for real-time signals;
    /// otherwise what the system says, which is `ESRCH` if somebody else has reaped the child.
    pub fn send_signal(&self, signal: Signal) -> io::Result<()> {
        let signal = RawSignal::from_named_raw(signal.number());
        let signal = signal.ok_or(io::ErrorKind::Unsupported)?;
        match &self.running {
            Some(running) if running.child.lock().is_unknown() => running.signal(signal),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "the child has ended")),
        }
    }

    /// Kills the child (`SIGKILL`).
    ///
    /// # Errors
    ///
    /// What the system says. If the child has ended already, that is no error.
    pub fn kill(&mut self) -> io::Result<()> {
        match &mut self.running {
            Some(running) if running.child.lock().is_unknown() => running.kill(),
            _ => Ok(()),
        }
    }

    /// The child's exit status, or `None` if it has not ended. It does not wait.
    ///
    /// # Errors
    ///
    /// What the system says: `ECHILD` if somebody else has reaped the child.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        match &mut self.running {
            Some(running) => running.child.lock().try_wait(),
            None => Ok(None),
        }
    }

    /// Waits until the child has ended. Tornado: `wait_for_exit(raise_error=False)`. (Tornado's
    /// `raise_error=True` makes an error of a status that is not 0; here the caller asks
    /// [`ExitStatus::success`].)
    ///
    /// If [`stdin`](Subprocess::stdin) was not taken, it is closed first, as by [`Child::wait`]: otherwise a
    /// child that reads its input to the end would never end. Virtual time is held meanwhile.
    ///
    /// Cancel safe, and may be called again.
    ///
    /// # Errors
    ///
    /// What the system says: `ECHILD` if somebody else has reaped the child, so that its status is lost. Also
    /// if this is awaited on another loop than the child's, unless the child is known to have ended.
    #[track_caller]
    pub fn wait_for_exit(&mut self) -> impl FusedFuture<Output = io::Result<ExitStatus>> {
        resumption::here(async {
            drop(self.stdin.take());
            let _held = with_current(|core| core.hold_time());
            match &mut self.running {
                Some(running) => poll_fn(|cx| running.poll_exit(cx)).await,
                None => Err(io::ErrorKind::NotFound.into()),
            }
        })
    }

    /// Reads the child's standard output and error to their ends, both at the same time, waits for the child
    /// to end, and gives its status and both texts. Python: `communicate`.
    ///
    /// A stream that is not a pipe, or was taken, gives nothing. If [`stdin`](Subprocess::stdin) was not
    /// taken, it is closed. To write to it, take it, and write *while* this is awaited: a child that answers
    /// as it reads would stop reading once its output pipe is full.
    ///
    /// All that the child writes is kept in memory, without a limit: a child that never stops writing uses up
    /// all memory. For a limit, take the pipes and read [`take(n)`](futures::AsyncReadExt::take) of each. A pipe ends
    /// when nobody has it open for writing any more. That may be later than the child's end, if the child has
    /// passed the pipe on to children of its own. Virtual time is held meanwhile.
    ///
    /// Not cancel safe: if this is dropped, what it has read is lost. The child runs on, unless
    /// [`kill_on_drop`](Subprocess::kill_on_drop) was called.
    ///
    /// # Errors
    ///
    /// What reading a pipe gives; and as [`wait_for_exit`](Subprocess::wait_for_exit).
    ///
    /// ```
    /// use std::process::Command;
    /// use waterspout::{IoLoop, coroutine, process::Subprocess};
    ///
    /// # IoLoop::new()?.run_sync(|| async {
    /// let mut child = Subprocess::spawn_piped(&mut Command::new("cat"))?;
    /// let stdin = child.stdin.take().unwrap();
    /// let writes = coroutine::start(async move { stdin.write_all(&[b'x'; 200_000]).await });
    /// let output = child.wait_with_output().await?;
    /// writes.await?;
    /// assert_eq!(output.stdout.len(), 200_000);
    /// # Ok::<(), std::io::Error>(())
    /// # })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn wait_with_output(self) -> impl FusedFuture<Output = io::Result<Output>> + use<> {
        let mut child = self;
        resumption::here(async move {
            let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
            let ends = try_join3(child.wait_for_exit(), read_to_end(stdout), read_to_end(stderr));
            let (status, stdout, stderr) = ends.await?;
            Ok(Output { status, stdout, stderr })
        })
    }

    /// Waits for the child's end in the background, and then calls `callback` with its status, once.
    /// Tornado: `set_exit_callback`.
    ///
    /// The handle can be used as before: it may wait for the end, too, and set more callbacks, which are all
    /// called, in no particular order (in Tornado only the last one is). It may be dropped before the child ends; that closes those
    /// pipes which were not taken.
    ///
    /// The child's own loop calls the callback, never inside this call. That loop need not be the current
    /// one, and need not run yet. If it has gone already, or is another thread's, the current loop does.
    /// If the loop that is to call the callback is closed before, the callback is dropped and not called.
    /// If it panics, that is reported to [`Builder::on_exception`](crate::Builder::on_exception).
    ///
    /// The callback gets an error where [`wait_for_exit`](Subprocess::wait_for_exit) would give one, and if
    /// too many files are open: it needs a file descriptor of its own to learn of the end.
    ///
    /// # Panics
    ///
    /// As [`IoLoop::current`], if the child's loop has gone.
    ///
    /// ```
    /// use std::{cell::Cell, process::Command, rc::Rc};
    /// use waterspout::{IoLoop, coroutine::moment, process::Subprocess};
    ///
    /// # IoLoop::new()?.run_sync(|| async {
    /// let mut child = Subprocess::spawn(Command::new("sh").args(["-c", "exit 3"]))?;
    /// let told = Rc::new(Cell::new(None));
    /// let tells = told.clone();
    /// child.set_exit_callback(move |status| tells.set(status.unwrap().code()));
    /// assert_eq!(child.wait_for_exit().await?.code(), Some(3));
    /// while told.get().is_none() {
    ///     moment().await;
    /// }
    /// assert_eq!(told.get(), Some(3));
    /// # Ok::<(), std::io::Error>(())
    /// # })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn set_exit_callback(&self, callback: impl FnOnce(io::Result<ExitStatus>) + 'static) {
        let Some(running) = &self.running else { return };
        let io_loop = IoLoop::of(self.id).unwrap_or_else(IoLoop::current);
        let exit = resumption::here(running.exit());
        drop(io_loop.spawn(async move { callback(exit.await) }));
    }
}

async fn read_to_end(pipe: Option<PipeReader>) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    if let Some(pipe) = pipe {
        // In chunks of the loop's own buffer: `futures`' `read_to_end` zeroes its buffer byte by byte, which
        // takes half a second for each megabyte in a debug build.
        loop {
            let chunk = pipe.read_lent().await?;
            if chunk.is_empty() {
                break;
            }
            all.extend_from_slice(&chunk);
        }
    }
    Ok(all)
}

impl Shared {
    fn new(child: Child) -> Shared {
        let child = Reaped { child: Some(child), fate: Fate::Unknown, killed: false };
        Shared(Arc::new(Mutex::new(child)))
    }

    fn lock(&self) -> MutexGuard<'_, Reaped> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reaped {
    fn is_unknown(&self) -> bool {
        matches!(self.fate, Fate::Unknown)
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        let lost = Errno::CHILD;
        match (self.fate, &mut self.child) {
            (Fate::Ended(status), _) => Ok(Some(status)),
            (Fate::Lost, _) | (Fate::Unknown, None) => Err(lost.into()),
            (Fate::Unknown, Some(child)) => {
                let status = child.try_wait();
                match &status {
                    Ok(Some(status)) => self.fate = Fate::Ended(*status),
                    Err(error) if error.raw_os_error() == Some(lost.raw_os_error()) => {
                        self.fate = Fate::Lost;
                    }
                    Ok(None) | Err(_) => {}
                }
                status
            }
        }
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        if let (Fate::Unknown, Some(child)) = (self.fate, self.child.take()) {
            reap_later(child, self.killed);
        }
    }
}

impl Running {
    fn poll_exit(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<ExitStatus>> {
        let Running { child, notice } = self;
        if let Fate::Ended(status) = child.lock().fate {
            return Poll::Ready(Ok(status));
        }
        let look =
            || child.lock().try_wait()?.ok_or_else(|| io::Error::from(io::ErrorKind::WouldBlock));
        match notice {
            #[cfg(target_os = "linux")]
            ExitNotice::PidFd(pidfd) => pidfd.poll_read_with(cx, |_| look()),
            #[cfg(target_os = "linux")]
            ExitNotice::Seen => Poll::Ready(look()),
            ExitNotice::Signal(signals) => loop {
                match look() {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        ready!(signals.poll_recv(cx))?;
                    }
                    exit => return Poll::Ready(exit),
                }
            },
        }
    }

    /// Waits for the child's end on behalf of an exit callback. It may be awaited on any loop.
    fn exit(&self) -> impl Future<Output = io::Result<ExitStatus>> + use<> {
        let (child, make_notice) = (self.child.clone(), self.notice.again());
        async move {
            let _held = with_current(|core| core.hold_time());
            if let Some(status) = child.lock().try_wait()? {
                return Ok(status);
            }
            let mut running = Running { notice: make_notice()?, child };
            poll_fn(|cx| running.poll_exit(cx)).await
        }
    }

    /// Sends a signal to this child and to no other process. A pidfd always stands for this child, also when
    /// another process has got its number. Where there is no pidfd, the number is the child's own until the
    /// child is reaped.
    fn signal(&self, signal: RawSignal) -> io::Result<()> {
        match &self.notice {
            #[cfg(target_os = "linux")]
            ExitNotice::PidFd(pidfd) => Ok(rustix::process::pidfd_send_signal(pidfd, signal)?),
            #[cfg(target_os = "linux")]
            ExitNotice::Seen => Err(Errno::SRCH.into()),
            ExitNotice::Signal(_) => {
                // Locked until the signal is sent: nobody can reap the child in between.
                let reaped = self.child.lock();
                match &reaped.child {
                    Some(child) if reaped.is_unknown() => {
                        Ok(kill_process(Pid::from_child(child), signal)?)
                    }
                    _ => Err(Errno::SRCH.into()),
                }
            }
        }
    }

    fn kill(&mut self) -> io::Result<()> {
        self.child.lock().killed = true;
        match self.signal(RawSignal::KILL) {
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(()),
            killed => killed,
        }
    }
}

impl ExitNotice {
    /// Gives a function that makes another `ExitNotice` for the same child. It has to be called on the
    /// loop on which that is awaited.
    fn again(&self) -> Box<dyn FnOnce() -> io::Result<ExitNotice>> {
        match self {
            #[cfg(target_os = "linux")]
            ExitNotice::PidFd(pidfd) => {
                // Copies the file descriptor. A pidfd made of the child's number may be for another process,
                // which has got that number by now.
                let pidfd = pidfd.get_ref().try_clone();
                Box::new(|| PidFd::with_interest(pidfd?, Interest::READ).map(ExitNotice::PidFd))
            }
            #[cfg(target_os = "linux")]
            ExitNotice::Seen => Box::new(|| Ok(ExitNotice::Seen)),
            ExitNotice::Signal(_) => {
                Box::new(|| signal::stream(Signal::CHILD).map(ExitNotice::Signal))
            }
        }
    }

    #[cfg(target_os = "linux")]
    fn of(child: &Child) -> io::Result<ExitNotice> {
        use rustix::process::{PidfdFlags, pidfd_open};
        match pidfd_open(Pid::from_child(child), PidfdFlags::empty()) {
            Ok(pidfd) => PidFd::with_interest(pidfd, Interest::READ).map(ExitNotice::PidFd),
            Err(Errno::SRCH) => Ok(ExitNotice::Seen),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn of(_: &Child) -> io::Result<ExitNotice> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// This side's ends of a child's three pipes, which the loop reads and writes.
type Pipes = (Option<PipeWriter>, Option<PipeReader>, Option<PipeReader>);

fn pipes(child: &mut Child) -> io::Result<Pipes> {
    Ok((
        child.stdin.take().map(PipeWriter::try_from).transpose()?,
        child.stdout.take().map(PipeReader::try_from).transpose()?,
        child.stderr.take().map(PipeReader::try_from).transpose()?,
    ))
}

/// Whether the kernel has pidfds (Linux has since 5.3). It is asked once.
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

/// Children for which nobody waits and which no loop will reap. Each start of another child looks which of
/// them have ended, and reaps those.
static ORPHANS: Mutex<Vec<Child>> = Mutex::new(Vec::new());

/// Leaves a child to whoever starts the next one, who will reap it; and if it is about to end, to a thread
/// that waits for that.
fn reap_later(child: Child, ends_at_once: bool) {
    let pid = Pid::from_child(&child);
    ORPHANS.lock().unwrap_or_else(PoisonError::into_inner).push(child);
    if !ends_at_once {
        return;
    }
    let wait = move || {
        // This waits for the child's end and does not reap it. Somebody else may reap it by way of
        // `ORPHANS`, and a moment later another child may have its number, which this would reap instead.
        // Only whoever has locked `ORPHANS` can be sure that the number is still this child's.
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let _ = retry_on_intr(|| waitid(WaitId::Pid(pid), ended));
        reap_orphans();
    };
    // If no thread can be started, the child stays a zombie until another child is started.
    let _ = thread::Builder::new().name("waterspout-reaper".into()).spawn(wait);
}

fn reap_orphans() {
    let mut orphans = ORPHANS.lock().unwrap_or_else(PoisonError::into_inner);
    orphans.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
}

impl Drop for Subprocess {
    fn drop(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        if !matches!(running.child.lock().try_wait(), Ok(None)) {
            return;
        }
        if self.kill_on_drop {
            let _ = running.kill();
        }
        // If the child's loop runs on this thread, a coroutine there waits for the end and reaps the child.
        // If not, or if the loop is closed before the end, `running` is dropped, and with it a `Reaped`,
        // which sees to the rest.
        if let Some(io_loop) = IoLoop::running().filter(|io_loop| io_loop.core().id() == self.id) {
            drop(io_loop.spawn(async move { poll_fn(|cx| running.poll_exit(cx)).await.map(drop) }));
        }
    }
}

impl fmt::Debug for Subprocess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subprocess").field("pid", &self.pid()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coroutine::{Coroutine, moment, start, with_timeout};
    use rustix::process::{WaitOptions, waitpid};
    use std::cell::Cell;
    use std::os::unix::process::ExitStatusExt;
    use std::rc::Rc;
    use std::time::Duration;

    /// A shell that is watched by `SIGCHLD` and runs `script` when its standard input ends.
    fn spawn(script: &str) -> Subprocess {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("cat; {script}")]).stdin(Stdio::piped());
        Subprocess::spawn_watched(&mut command, false).unwrap()
    }

    fn pid(child: &Subprocess) -> Pid {
        Pid::from_raw(child.pid() as i32).unwrap()
    }

    fn waiting(
        mut child: Subprocess,
    ) -> (PipeWriter, Coroutine<(io::Result<ExitStatus>, Subprocess)>) {
        let stdin = child.stdin.take().unwrap();
        (stdin, start(async move { (child.wait_for_exit().await, child) }))
    }

    fn run<F: Future>(body: impl FnOnce() -> F) -> F::Output {
        let io_loop = IoLoop::new().unwrap();
        io_loop.run_sync_timeout(Duration::from_secs(60), body).unwrap()
    }

    #[test]
    fn without_pidfds_a_signal_tells_of_the_end() {
        run(|| async {
            let children: Vec<_> = (0..5).map(|n| waiting(spawn(&format!("exit {n}")))).collect();
            moment().await;
            for (n, (stdin, coroutine)) in children.into_iter().enumerate().rev() {
                assert!(!coroutine.done());
                drop(stdin);
                let (status, mut child) = coroutine.await;
                assert_eq!(status.unwrap().code(), Some(n as i32));
                assert_eq!(child.wait_for_exit().await.unwrap().code(), Some(n as i32));
            }
        });
    }

    #[test]
    fn without_pidfds_children_are_signalled_and_stopped_ones_have_not_ended() {
        run(|| async {
            let mut child = spawn("exit");
            let _stdin = child.stdin.take();
            kill_process(pid(&child), RawSignal::STOP).unwrap();
            let stopped = with_timeout(Duration::from_millis(50), child.wait_for_exit()).await;
            assert!(stopped.is_err());
            child.kill().unwrap();
            assert_eq!(child.wait_for_exit().await.unwrap().signal(), Some(9));
            child.kill().unwrap();
        });
    }

    #[test]
    fn without_pidfds_a_child_that_somebody_else_has_reaped_is_an_error() {
        run(|| async {
            let child = spawn("exit");
            let pid = pid(&child);
            let (stdin, coroutine) = waiting(child);
            drop(stdin);
            waitpid(Some(pid), WaitOptions::empty()).unwrap();
            let (status, mut child) = coroutine.await;
            let lost = Some(rustix::io::Errno::CHILD.raw_os_error());
            assert_eq!(status.unwrap_err().raw_os_error(), lost);
            assert_eq!(child.wait_for_exit().await.unwrap_err().raw_os_error(), lost);
            child.kill().unwrap();
        });
    }

    #[test]
    fn without_pidfds_exit_callbacks_and_the_handle_are_all_told() {
        run(|| async {
            let mut child = spawn("exit 4");
            let told = Rc::new(Cell::new(0));
            for _ in 0..3 {
                let tells = told.clone();
                let callback = move |status: io::Result<ExitStatus>| {
                    assert_eq!(status.unwrap().code(), Some(4));
                    tells.set(tells.get() + 1);
                };
                child.set_exit_callback(callback);
            }
            moment().await;
            assert_eq!(told.get(), 0);
            assert_eq!(child.wait_for_exit().await.unwrap().code(), Some(4));
            while told.get() < 3 {
                moment().await;
            }
        });
    }

    #[test]
    fn without_pidfds_a_dropped_child_is_reaped() {
        run(|| async {
            let mut child = spawn("exit");
            let (stdin, pid) = (child.stdin.take(), child.pid());
            drop(child);
            drop(stdin);
            while std::path::Path::new(&format!("/proc/{pid}")).exists() {
                moment().await;
            }
        });
    }
}
