//! Channels between the coroutines of one thread. tokio: `sync`.
//!
//! | for | use |
//! | --- | --- |
//! | items from many, for one who takes them in order | [`mpsc`] |
//! | one value, once, which need not be `Clone` | [`oneshot`] |
//! | the latest value of something, for all who care | [`watch`] |
//! | each value, for each of many | [`broadcast`] |
//!
//! A channel has two ends, and each learns that the other has gone: receiving ends when all senders have
//! been dropped and what they sent is taken, and sending gives the value back when nobody is left to
//! receive it. That is what a channel has beyond a [queue](crate::queues), all of whose handles put and get,
//! so that it ends only when somebody closes it.
//!
//! Waiters are served first in first out; one that is dropped leaves, and takes no value with it. Ends
//! belong to no loop, whatever polls them can wait, and they are not `Send`: between threads there is
//! [`concurrent::channel`](crate::concurrent::channel). They have as many waiters at most as
//! [locks](crate::locks) have, and tell in their `Debug` form how many wait.

pub mod broadcast;
mod ends;
pub mod mpsc;
pub mod oneshot;
pub mod watch;

use std::error::Error;
use std::fmt;
use std::io;

pub use crate::concurrent::{SendError, TrySendError};

/// There is nothing to receive, and never will be: every sender has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecvError;

/// There is nothing to receive now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryRecvError {
    /// There may be, later.
    Empty,
    /// There never will be: every sender has gone, or the receiver has closed the channel.
    Closed,
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the sender has gone")
    }
}

impl Error for RecvError {}

/// The kind is [`BrokenPipe`](io::ErrorKind::BrokenPipe).
impl From<RecvError> for io::Error {
    fn from(error: RecvError) -> io::Error {
        io::Error::new(io::ErrorKind::BrokenPipe, error)
    }
}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TryRecvError::Empty => "nothing has been sent yet",
            TryRecvError::Closed => "the channel is closed and empty",
        })
    }
}

impl Error for TryRecvError {}
