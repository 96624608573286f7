//! `Interest`: what a file descriptor is watched for.

use std::fmt;
use std::ops::BitOr;

/// What to watch a file descriptor for; a handler also gets one, which says what has happened.
///
/// ```
/// use waterspout::Interest;
///
/// let both = Interest::READ | Interest::WRITE;
/// assert!(both.contains(Interest::READ));
/// assert!(!Interest::READ.contains(both));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Interest(u8);

impl Interest {
    /// Nothing but errors and the hang-up of the other side, for which every handler is called. Tornado:
    /// `NONE`.
    pub const NONE: Interest = Interest(0);
    /// There is something to read, or the stream has ended. Tornado: `READ`.
    pub const READ: Interest = Interest(1);
    /// There is room to write. Tornado: `WRITE`.
    pub const WRITE: Interest = Interest(2);
    /// An error or a hang-up. Every handler is called for it, whether or not it has asked for it. Tornado:
    /// `ERROR`.
    pub const ERROR: Interest = Interest(4);

    /// Whether this has all that `other` has.
    pub fn contains(self, other: Interest) -> bool {
        self.0 & other.0 == other.0
    }

    /// What the selector is asked to report. mio has no empty interest. The nearest to it is priority data,
    /// which hardly ever comes.
    pub(crate) fn mio(self) -> mio::Interest {
        match (self.contains(Interest::READ), self.contains(Interest::WRITE)) {
            (true, true) => mio::Interest::READABLE | mio::Interest::WRITABLE,
            (true, false) => mio::Interest::READABLE,
            (false, true) => mio::Interest::WRITABLE,
            #[cfg(any(target_os = "linux", target_os = "android"))]
            (false, false) => mio::Interest::PRIORITY,
            #[cfg(not(any(target_os = "linux", target_os = "android")))]
            (false, false) => mio::Interest::READABLE,
        }
    }
}

impl BitOr for Interest {
    type Output = Interest;

    fn bitor(self, other: Interest) -> Interest {
        Interest(self.0 | other.0)
    }
}

impl fmt::Debug for Interest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names =
            [(Interest::READ, "READ"), (Interest::WRITE, "WRITE"), (Interest::ERROR, "ERROR")];
        let names: Vec<_> =
            names.iter().filter(|(bit, _)| self.contains(*bit)).map(|(_, name)| *name).collect();
        f.write_str(if names.is_empty() { "NONE".into() } else { names.join(" | ") }.as_str())
    }
}
