//! Channels between the coroutines of one thread. tokio: `sync`.
//!
//! | for | use |
//! | --- | --- |
//! | items from many senders, which one receiver takes in order | [`mpsc`] |
//! | one value, sent once; it need not be `Clone` | [`oneshot`] |
//! | the latest value of something, which any number of receivers look at | [`watch`] |
//! | values that each of many receivers gets | [`broadcast`] |
//!
//! A channel has senders and receivers, and each side learns that the other has gone: receiving ends when
//! all senders have been dropped and all that they sent has been received; sending gives the value back when
//! nobody is left to receive it. A [queue](crate::queues) lacks that: every handle of it can both put and
//! get, so that it ends only when somebody closes it.
//!
//! Waiters are served first in first out. One that is dropped leaves the queue of waiters, and no value is
//! lost with it. Senders and receivers belong to no loop: they can be awaited in any runtime. They are not
//! `Send`; between threads there is [`concurrent::channel`](crate::concurrent::channel). They can have
//! as many waiters as [locks](crate::locks) can, and their `Debug` form tells how many wait.

pub mod broadcast;
mod ends;
pub mod mpsc;
pub mod oneshot;
pub mod watch;

use std::error::Error;
use std::fmt;
use std::io;

pub use crate::concurrent::{SendError, TrySendError};

/// There is nothing to receive and there will be nothing, since every sender has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecvError;

/// There is nothing to receive now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryRecvError {
    /// There is nothing now, but there may be something later.
    Empty,
    /// There will be nothing any more: every sender has gone, or the receiver has closed the channel.
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
