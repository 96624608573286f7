//! The errors of the loop, and those that more than one module gives.
//!
//! The text of each is one sentence that says what happened, and what the caller can do about it. Misuse of
//! the loop is an error value or a panic with such a sentence, in debug and release builds alike. What the
//! other side of a socket does is an [`std::io::Error`], and never a panic.
//!
//! Most functions of a program return `io::Result`, so `?` turns each of these errors into an
//! [`std::io::Error`] with a fitting kind. The original error is within it:
//! [`get_ref`](std::io::Error::get_ref) shows it, and [`downcast`](std::io::Error::downcast) takes it out.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::coroutine_info::CoroutineInfo;

/// Why something has no result: Tornado's `exc_info`, cheap to clone.
///
/// It implements [`Error`], and the error that it wraps is its [`source`](Error::source).
///
/// ```
/// use std::error::Error;
/// use waterspout::concurrent::ExcInfo;
///
/// let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
/// let info = ExcInfo::error(refused);
/// assert_eq!(info.to_string(), "connection refused");
/// assert!(info.source().unwrap().is::<std::io::Error>());
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ExcInfo {
    /// An error value.
    Error(Arc<dyn Error + Send + Sync>),
    /// A panic, by its message.
    Panic(Arc<str>),
    /// The work was cancelled before it had a result.
    Cancelled,
    /// Whoever should have given the result was dropped without giving one.
    Abandoned,
}

impl ExcInfo {
    /// Wraps an error, or a message: whatever `?` turns into a boxed error.
    pub fn error(error: impl Into<Box<dyn Error + Send + Sync>>) -> ExcInfo {
        ExcInfo::Error(Arc::from(error.into()))
    }

    /// Keeps the message of a panic's payload.
    pub(crate) fn from_panic(payload: &(dyn Any + Send)) -> ExcInfo {
        ExcInfo::Panic(Arc::from(panic_message(payload)))
    }
}

impl fmt::Display for ExcInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExcInfo::Error(error) => write!(f, "{error}"),
            ExcInfo::Panic(message) => write!(f, "panicked: {message}"),
            ExcInfo::Cancelled => f.write_str("cancelled before it had a result"),
            ExcInfo::Abandoned => {
                f.write_str("abandoned: its promise was dropped without a result")
            }
        }
    }
}

impl Error for ExcInfo {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            ExcInfo::Error(error) => Some(&**error),
            _ => None,
        }
    }
}

/// The kind is that of the [`std::io::Error`] that it wraps, or else
/// [`Other`](std::io::ErrorKind::Other).
impl From<ExcInfo> for std::io::Error {
    fn from(info: ExcInfo) -> std::io::Error {
        let kind = match &info {
            ExcInfo::Error(error) => {
                error.downcast_ref::<std::io::Error>().map(|error| error.kind())
            }
            _ => None,
        };
        std::io::Error::new(kind.unwrap_or(std::io::ErrorKind::Other), info)
    }
}

/// The text of a panic's payload; `panic!` makes it a `&str` or a `String`.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> &str {
    if let Some(message) = payload.downcast_ref::<&'static str>() {
        message
    } else if let Some(message) = payload.downcast_ref::<String>() {
        message
    } else {
        "a payload that is not text"
    }
}

/// The loop has been closed, perhaps because its thread has ended. Nothing was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopClosed;

impl fmt::Display for LoopClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the IoLoop is closed, nothing can run on it any more")
    }
}

impl Error for LoopClosed {}

impl From<LoopClosed> for std::io::Error {
    fn from(error: LoopClosed) -> std::io::Error {
        std::io::Error::new(std::io::ErrorKind::NotConnected, error)
    }
}

/// A time limit was over before there was a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedOut;

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time was up")
    }
}

impl Error for TimedOut {}

impl From<TimedOut> for std::io::Error {
    fn from(error: TimedOut) -> std::io::Error {
        std::io::Error::new(std::io::ErrorKind::TimedOut, error)
    }
}

/// Why an [`IoStream`](crate::iostream::IoStream) could not read or write, or could not be taken apart.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum StreamError {
    /// The stream is closed: cleanly (`None`), or because of this error. What arrived before can still be
    /// read.
    Closed(Option<Arc<std::io::Error>>),
    /// The limit of the write buffer would be exceeded: write less, or await earlier writes first.
    WriteBufferFull,
    /// Another read of this stream is under way: await that first.
    AlreadyReading,
    /// A read or a write of this stream is under way, or its transport is in use at this moment: await that
    /// before you take the stream apart. Tornado: the `ValueError` of `start_tls`.
    NotIdle,
    /// The stream was read on another loop than the one that it was made on. That works only for bytes which
    /// have arrived already: read on its own loop. The stream stays open.
    OtherLoop,
    /// The time limit of a [`with_timeout`](crate::coroutine::with_timeout) was over first. The stream stays
    /// open.
    TimedOut,
}

impl StreamError {
    /// The error that closed the stream, if one did. Tornado: `StreamClosedError.real_error`.
    pub fn real_error(&self) -> Option<&std::io::Error> {
        match self {
            StreamError::Closed(error) => error.as_deref(),
            _ => None,
        }
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StreamError::Closed(None) => f.write_str("the stream is closed"),
            StreamError::Closed(Some(error)) => write!(f, "the stream is closed: {error}"),
            StreamError::WriteBufferFull => f.write_str("too much that was written is unsent"),
            StreamError::AlreadyReading => {
                f.write_str("another read of this stream is under way, await that first")
            }
            StreamError::NotIdle => f.write_str(
                "the stream is not idle: a read or a write is under way, await that first",
            ),
            StreamError::OtherLoop => f.write_str(
                "the stream belongs to another loop, read on the one that it was made on",
            ),
            StreamError::TimedOut => TimedOut.fmt(f),
        }
    }
}

impl Error for StreamError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            StreamError::TimedOut => Some(&TimedOut),
            _ => self.real_error().map(|error| error as _),
        }
    }
}

impl From<TimedOut> for StreamError {
    fn from(TimedOut: TimedOut) -> StreamError {
        StreamError::TimedOut
    }
}

/// An error of a stream's transport, or of connecting it, becomes [`StreamError::Closed`], with the error as
/// its [`real_error`](StreamError::real_error). But if the [`std::io::Error`] was made of a `StreamError`,
/// that one is taken out again.
impl From<std::io::Error> for StreamError {
    fn from(error: std::io::Error) -> StreamError {
        match error.downcast::<StreamError>() {
            Ok(error) => error,
            Err(error) => StreamError::Closed(Some(Arc::new(error))),
        }
    }
}

impl From<StreamError> for std::io::Error {
    fn from(error: StreamError) -> std::io::Error {
        let kind = match &error {
            StreamError::Closed(None) => std::io::ErrorKind::UnexpectedEof,
            StreamError::Closed(Some(error)) => error.kind(),
            StreamError::WriteBufferFull => std::io::ErrorKind::StorageFull,
            StreamError::AlreadyReading | StreamError::NotIdle => std::io::ErrorKind::ResourceBusy,
            StreamError::OtherLoop => std::io::ErrorKind::Other,
            StreamError::TimedOut => std::io::ErrorKind::TimedOut,
        };
        std::io::Error::new(kind, error)
    }
}

/// A read has a limit of bytes, and that many have arrived without what it was to read. The stream is closed
/// with this as its [`real_error`](StreamError::real_error).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsatisfiableRead {
    /// The limit of the read, in bytes.
    pub max_bytes: usize,
}

impl fmt::Display for UnsatisfiableRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "what was to be read is not within {} bytes", self.max_bytes)
    }
}

impl Error for UnsatisfiableRead {}

/// A read wants more bytes than the stream may keep. The stream is closed with this as its
/// [`real_error`](StreamError::real_error).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadBufferFull {
    /// How many bytes the stream may keep at most.
    pub max_buffer_size: usize,
}

impl fmt::Display for ReadBufferFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the read buffer is full with {} bytes", self.max_buffer_size)
    }
}

impl Error for ReadBufferFull {}

/// A loop could not be started.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartError {
    /// A loop already runs on this thread, perhaps this very one. Await instead of starting.
    Nested {
        /// The loop that was asked to start, as its `Debug` form names it.
        asked: String,
        /// The loop that runs on this thread.
        running: String,
    },
    /// The loop has been closed.
    Closed,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Nested { asked, running } if asked == running => {
                write!(f, "{asked} is already running: inside it, await instead of starting it")
            }
            StartError::Nested { asked, running } => write!(
                f,
                "{asked} cannot start while {running} runs on this thread: \
                 await inside the running loop, or give the other loop a thread of its own"
            ),
            StartError::Closed => LoopClosed.fmt(f),
        }
    }
}

impl Error for StartError {}

impl From<StartError> for std::io::Error {
    fn from(error: StartError) -> std::io::Error {
        std::io::Error::new(error.kind(), error)
    }
}

impl StartError {
    fn kind(&self) -> std::io::ErrorKind {
        match self {
            StartError::Nested { .. } => std::io::ErrorKind::Other,
            StartError::Closed => std::io::ErrorKind::NotConnected,
        }
    }
}

/// Why `run_sync` has no result.
#[derive(Debug)]
#[non_exhaustive]
pub enum RunError {
    /// The loop could not be started.
    Start(StartError),
    /// `stop` was called before the future finished.
    Stopped,
    /// The time limit was over before the future finished.
    TimedOut {
        /// The time limit.
        after: Duration,
        /// Every coroutine that was suspended then. They tell what is stuck, and where.
        stuck: Vec<CoroutineInfo>,
    },
}

impl From<StartError> for RunError {
    fn from(error: StartError) -> RunError {
        RunError::Start(error)
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Start(error) => error.fmt(f),
            RunError::Stopped => f.write_str("the loop was stopped before the future finished"),
            RunError::TimedOut { after, stuck } => {
                write!(f, "operation timed out after {after:?}")?;
                for coroutine in stuck {
                    write!(f, "\n  stuck: {coroutine}")?;
                }
                Ok(())
            }
        }
    }
}

impl Error for RunError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            RunError::Start(error) => Some(error),
            _ => None,
        }
    }
}

impl From<RunError> for std::io::Error {
    fn from(error: RunError) -> std::io::Error {
        let kind = match &error {
            RunError::Start(error) => error.kind(),
            RunError::Stopped => std::io::ErrorKind::Other,
            RunError::TimedOut { .. } => std::io::ErrorKind::TimedOut,
        };
        std::io::Error::new(kind, error)
    }
}

/// A coroutine, or a job of an executor, has ended without a result: it panicked, or it was cancelled.
///
/// From [`Coroutine::join`](crate::Coroutine::join), [`LoopHandle::spawn`](crate::LoopHandle::spawn)
/// and their like.
pub struct JoinError {
    name: &'static str,
    /// The payload of the panic, or `None` if the work was cancelled. Nobody ever waits for the mutex. It is
    /// there to make the error `Sync`, as boxed errors have to be.
    panic: Option<Mutex<Box<dyn Any + Send>>>,
}

/// How work can end without a result.
pub(crate) enum Failure {
    Panicked(Box<dyn Any + Send>),
    Cancelled,
}

impl JoinError {
    pub(crate) fn new(name: &'static str, failure: Failure) -> JoinError {
        let panic = match failure {
            Failure::Panicked(payload) => Some(Mutex::new(payload)),
            Failure::Cancelled => None,
        };
        JoinError { name, panic }
    }

    /// The work was cancelled, or its loop was closed.
    pub fn is_cancelled(&self) -> bool {
        self.panic.is_none()
    }

    /// The work panicked.
    pub fn is_panic(&self) -> bool {
        self.panic.is_some()
    }

    /// The name of the coroutine that failed.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The panic, if it was one.
    pub(crate) fn exc_info(&self) -> Option<ExcInfo> {
        let payload = self.panic.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        Some(ExcInfo::from_panic(&**payload))
    }

    /// The payload of the panic, for [`std::panic::resume_unwind`].
    ///
    /// # Errors
    ///
    /// The error itself, if the work was cancelled and did not panic.
    pub fn into_panic(self) -> Result<Box<dyn Any + Send>, JoinError> {
        match self.panic {
            Some(payload) => Ok(payload.into_inner().unwrap_or_else(PoisonError::into_inner)),
            None => Err(self),
        }
    }

    /// Resumes the panic in the caller, or panics with a sentence that says what was cancelled.
    pub(crate) fn resume(self) -> ! {
        match self.into_panic() {
            Ok(payload) => std::panic::resume_unwind(payload),
            Err(cancelled) => panic!(
                "awaited `{}`, which was cancelled; `.join().await` gives an error instead",
                cancelled.name
            ),
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.panic {
            Some(payload) => {
                let payload = payload.lock().unwrap_or_else(PoisonError::into_inner);
                write!(f, "`{}` panicked: {}", self.name, panic_message(&**payload))
            }
            None => write!(f, "`{}` was cancelled", self.name),
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinError({self})")
    }
}

impl Error for JoinError {}

/// The kind is always [`Other`](std::io::ErrorKind::Other). `Interrupted` would suit work that was cancelled,
/// but functions that read and write would try again then.
impl From<JoinError> for std::io::Error {
    fn from(error: JoinError) -> std::io::Error {
        std::io::Error::other(error)
    }
}
