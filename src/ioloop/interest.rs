//! `Interest`: what a file descriptor is watched for.

use std::fmt;
use std::ops::BitOr;

/// What to watch a file descriptor for, and what a handler is told.
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
    /// Nothing but errors and the hang-up of the other side, which are always told. Tornado: `NONE`.
    pub const NONE: Interest = Interest(0);
    /// There is something to read, or the end of it. Tornado: `READ`.
    pub const READ: Interest = Interest(1);
    /// There is room to write. Tornado: `WRITE`.
    pub const WRITE: Interest = Interest(2);
    /// An error or a hang-up; told to every handler, asked for or not. Tornado: `ERROR`.
    pub const ERROR: Interest = Interest(4);

    /// Whether all of `other` is in it.
    pub fn contains(self, other: Interest) -> bool {
        self.0 & other.0 == other.0
    }

    /// What mio is asked for: it knows no empty interest, and priority data is next to none.
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
