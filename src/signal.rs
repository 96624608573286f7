//! Unix signals as streams and callbacks.
//!
//! When a signal arrives, the system interrupts the program to run a signal handler, which may do almost
//! nothing there. The one that is installed here (by the `signal-hook` crate) writes a byte into a socket,
//! whose other end the loop reads like any other. So what runs in answer to the signal is an ordinary
//! coroutine or callback. Each listener has a socket of its own: there may be several listeners, on any
//! number of loops, and all of them hear each signal. Signals that come faster than a listener hears them
//! are heard as one, as the system itself merges signals.
//!
//! Once a signal has been listened to, it never again does what it does by default (`SIGTERM` does not end
//! the process, say), not even after the listener was dropped.

use std::fmt;
use std::io;
use std::os::unix::net as unix;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures::future::FusedFuture;
use futures::io::AsyncRead;
use futures::stream::{Stream, StreamExt};
use signal_hook::SigId;
use signal_hook::consts as signals;
use signal_hook::low_level;

use crate::coroutine::{CancelOnDrop, start};
use crate::ground::error::ExcInfo;
use crate::ground::report::{self, Exception};
use crate::ground::resumption;
use crate::sockets::UnixStream;

/// A signal that can be listened to.
///
/// ```
/// use waterspout::signal::Signal;
///
/// assert_eq!(Signal::TERMINATE.number(), 15);
/// assert_eq!(Signal::from_number(9), None, "nobody can listen to SIGKILL");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Signal(i32);

impl Signal {
    /// `SIGINT`: the user pressed Ctrl-C.
    pub const INTERRUPT: Signal = Signal(signals::SIGINT);
    /// `SIGTERM`: somebody asks the process to end.
    pub const TERMINATE: Signal = Signal(signals::SIGTERM);
    /// `SIGHUP`: the terminal has gone. A service takes it as the order to read its configuration again.
    pub const HANGUP: Signal = Signal(signals::SIGHUP);
    /// `SIGQUIT`: the user pressed Ctrl-\.
    pub const QUIT: Signal = Signal(signals::SIGQUIT);
    /// `SIGUSR1`.
    pub const USER1: Signal = Signal(signals::SIGUSR1);
    /// `SIGUSR2`.
    pub const USER2: Signal = Signal(signals::SIGUSR2);
    /// `SIGCHLD`: a child process has ended or stopped.
    pub const CHILD: Signal = Signal(signals::SIGCHLD);
    /// `SIGWINCH`: the terminal has another size.
    pub const WINDOW_CHANGE: Signal = Signal(signals::SIGWINCH);
    /// `SIGALRM`: a timer of the system, set by `alarm`, has run out.
    pub const ALARM: Signal = Signal(signals::SIGALRM);

    /// A signal by its number. `None` for signals that cannot be caught (`SIGKILL`, `SIGSTOP`), for those
    /// that have to be dealt with on the spot, by the thread that caused them (`SIGSEGV`, `SIGFPE`,
    /// `SIGILL`), and for numbers that are not from 1 to 64.
    pub fn from_number(number: i32) -> Option<Signal> {
        let is_signal = (1..=64).contains(&number);
        (is_signal && !signals::FORBIDDEN.contains(&number)).then_some(Signal(number))
    }

    /// The signal's number on this system.
    pub fn number(self) -> i32 {
        self.0
    }
}

/// Hears a signal each time it comes; from [`stream`]. It is a stream that never ends.
///
/// Dropping it ends the listening. If nobody else listens to the signal then, the process ignores it.
pub struct SignalStream {
    /// Where this was made. A coroutine that uses it as a stream is listed as waiting here.
    place: &'static Location<'static>,
    id: SigId,
    signal: Signal,
    pipe: UnixStream,
}

/// Listens to a signal on the current loop, from this call on.
///
/// # Errors
///
/// If there are too many open files (it takes two), or the system refuses the signal handler.
///
/// # Panics
///
/// As [`IoLoop::current`](crate::IoLoop::current).
///
/// ```
/// use waterspout::{IoLoop, signal::{self, Signal}};
///
/// IoLoop::new()?.run_sync(|| async {
///     let mut hangups = signal::stream(Signal::HANGUP)?;
///     # signal_hook::low_level::raise(Signal::HANGUP.number())?;
///     hangups.recv().await?;
///     println!("reading the configuration again");
///     Ok::<(), std::io::Error>(())
/// })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[track_caller]
pub fn stream(signal: Signal) -> io::Result<SignalStream> {
    let (read, write) = unix::UnixStream::pair()?;
    let pipe = UnixStream::from_std(read)?;
    let id = low_level::pipe::register(signal.0, write)?;
    Ok(SignalStream { place: Location::caller(), id, signal, pipe })
}

impl SignalStream {
    /// Waits for the next signal. Cancel safe.
    ///
    /// # Errors
    ///
    /// If it is awaited on another loop than the one it was made on, or if that loop is closed.
    #[track_caller]
    pub fn recv(&mut self) -> impl FusedFuture<Output = io::Result<()>> {
        resumption::here(std::future::poll_fn(|cx| self.poll_recv(cx)))
    }

    pub(crate) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Reads until nothing is left, so that all signals that have come are heard as one. A read that does
        // not fill the buffer has emptied the socket.
        let mut bytes = [0; 64];
        let mut heard = false;
        loop {
            match Pin::new(&mut &self.pipe).poll_read(cx, &mut bytes) {
                Poll::Ready(Ok(n)) if n == bytes.len() => heard = true,
                Poll::Pending if !heard => {
                    resumption::waits_at(self.place);
                    return Poll::Pending;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(_)) | Poll::Pending => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl Stream for SignalStream {
    type Item = io::Result<()>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<()>>> {
        self.poll_recv(cx).map(Some)
    }
}

impl Drop for SignalStream {
    fn drop(&mut self) {
        low_level::unregister(self.id);
    }
}

impl fmt::Debug for SignalStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignalStream").field("signal", &self.signal).finish()
    }
}

/// Calls `callback` on the current loop each time the signal comes, until the [`SignalHandler`] that this
/// returns is dropped. The callback itself may drop it. Tornado: `add_callback_from_signal`.
///
/// If the callback panics, that is reported to [`Builder::on_exception`](crate::Builder::on_exception), and
/// the next signal calls it again.
///
/// # Errors
///
/// As [`stream`].
///
/// # Panics
///
/// As [`IoLoop::current`](crate::IoLoop::current).
#[track_caller]
pub fn on(signal: Signal, mut callback: impl FnMut() + 'static) -> io::Result<SignalHandler> {
    let location = Location::caller();
    let mut signals = stream(signal)?;
    let alive = Rc::new(());
    let listens = Rc::downgrade(&alive);
    let listening = start(async move {
        while let Some(Ok(())) = signals.next().await {
            // The callback may have dropped the handler. That cancels this coroutine, but only when it next
            // waits. If another signal has come already, it would not wait, but call the callback again.
            if listens.strong_count() == 0 {
                return;
            }
            if let Err(panic) = catch_unwind(AssertUnwindSafe(&mut callback)) {
                let (what, info) = ("a signal's callback", ExcInfo::from_panic(&*panic));
                report::report(Exception { what, name: None, location: Some(location), info });
            }
        }
    });
    Ok(SignalHandler { signal, _alive: alive, _listening: listening.cancel_on_drop() })
}

/// Keeps a callback listening to a signal until this is dropped; from [`on`].
#[must_use = "dropping it ends the listening"]
pub struct SignalHandler {
    signal: Signal,
    /// The coroutine has a `Weak` of this, by which it sees that the handler was dropped. It stands before
    /// `_listening`, so that it is dropped before the coroutine is cancelled.
    _alive: Rc<()>,
    _listening: CancelOnDrop<()>,
}

impl fmt::Debug for SignalHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignalHandler").field("signal", &self.signal).finish()
    }
}

/// Waits until the user presses Ctrl-C. It listens from its first poll on, mostly by its `.await`; from then
/// on Ctrl-C does not end the program any more, even when nobody waits for it.
///
/// Cancel safe.
///
/// # Errors
///
/// As [`stream`].
#[track_caller]
pub fn ctrl_c() -> impl FusedFuture<Output = io::Result<()>> {
    resumption::here(async { stream(Signal::INTERRUPT)?.recv().await })
}
