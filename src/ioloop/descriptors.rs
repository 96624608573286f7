//! Which file descriptor was registered by whom.
//!
//! A file descriptor is a number, and the system gives the number of a closed one to the next file that is
//! opened. The user may close a registered fd behind the loop's back. So it can happen that a socket still
//! has an fd which names another socket by now. If it ended "its" registration, that other socket would
//! never be reported again. So for each fd a loop notes its *owner*: the key of the socket that has
//! registered it last. A socket that changes or ends a registration shows its key, and nothing happens if
//! it is not the owner.
//!
//! A registration is ended before its fd is closed, although the selector would forget a closed fd by itself.
//! For somebody may have a duplicate of the fd, and then the selector would not forget it: it would go on to
//! report events that nobody waits for, and refuse to register the duplicate if that gets the same number.
//!
//! Sockets are dropped on other threads, too, so all of it is behind a lock. Hardly ever does a thread wait
//! for that lock.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::os::fd::RawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::ground::error::LoopClosed;
use crate::ground::slots::Key;

/// The registered file descriptors of a loop; see the module's text.
#[derive(Debug)]
pub(crate) struct Descriptors {
    /// `None` once the loop is closed.
    open: Mutex<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    registry: Registry,
    owners: HashMap<RawFd, Owner, BuildHasherDefault<FdHasher>>,
}

/// Spreads file descriptors over a hash map by one multiplication. The system gives the lowest free number to each
/// file, so nobody can choose many that collide, and it takes none of the care that a hash of foreign data takes.
#[derive(Default)]
struct FdHasher(u64);

impl Hasher for FdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_i32(byte.into());
        }
    }

    fn write_i32(&mut self, fd: i32) {
        // An odd number near 2^64 divided by the golden ratio. The map takes its place from the low bits and its tag from
        // the high ones; both differ for numbers that follow each other.
        self.0 = (self.0 ^ u64::from(fd.unsigned_abs())).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// An emptied map that has had room for more gives its memory back.
const KEPT: usize = 256;

#[derive(Debug)]
struct Owner {
    key: Key,
    file: FileId,
}

impl Descriptors {
    pub(crate) fn new(registry: Registry) -> Descriptors {
        Descriptors { open: Mutex::new(Some(Open { registry, owners: HashMap::default() })) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers `fd` for `key`, which is its owner from now on. If it had another owner, the file of that
    /// one must have been closed.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if this very file is registered under this number already; other errors of the
    /// selector.
    pub(super) fn register(&self, fd: RawFd, key: Key, interest: Interest) -> io::Result<()> {
        let mut open = self.lock();
        let Open { registry, owners } = open.as_mut().ok_or(LoopClosed)?;
        let file = FileId::of(fd);
        if !SELECTOR_TELLS_FILES_APART {
            match owners.get(&fd) {
                Some(known) if known.file == file => {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                // The number was that of a file which has been closed; the selector has not noticed.
                Some(_) => drop(registry.deregister(&mut SourceFd(&fd))),
                None => {}
            }
        }
        registry.register(&mut SourceFd(&fd), Token(key.pack()), interest)?;
        owners.insert(fd, Owner { key, file });
        Ok(())
    }

    /// Makes the selector report what the fd is ready for, even if it has reported that before.
    ///
    /// # Errors
    ///
    /// `NotFound` if `key` is not the owner; other errors of the selector.
    pub(crate) fn rearm(&self, fd: RawFd, key: Key, interest: Interest) -> io::Result<()> {
        let mut open = self.lock();
        let Open { registry, owners } = open.as_mut().ok_or(LoopClosed)?;
        if owners.get(&fd).is_none_or(|owner| owner.key != key) {
            let message = format!("fd {fd} was closed: the number is another file's now");
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        }
        let (mut fd, token) = (SourceFd(&fd), Token(key.pack()));
        match registry.reregister(&mut fd, token, interest) {
            // poll(2) in mio forgets an fd that has hung up or has an error.
            Err(error)
                if cfg!(mio_unsupported_force_poll_poll)
                    && error.kind() == io::ErrorKind::NotFound =>
            {
                registry.register(&mut fd, token, interest)
            }
            result => result,
        }
    }

    /// Ends a registration, if `key` is the owner. May be called on any thread.
    pub(crate) fn release(&self, fd: RawFd, key: Key) {
        self.end(fd, key, |registry| {
            // This fails if the user has closed the fd behind the loop's back; then there is nothing to do.
            let _ = registry.deregister(&mut SourceFd(&fd));
        });
    }

    /// [`release`](Descriptors::release) for an fd that stays open, and may be registered again.
    ///
    /// # Errors
    ///
    /// Those of the selector.
    pub(crate) fn take_back(&self, fd: RawFd, key: Key) -> io::Result<()> {
        match self.end(fd, key, |registry| registry.deregister(&mut SourceFd(&fd))) {
            // poll(2) in mio forgets by itself an fd that has hung up.
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn end<R>(&self, fd: RawFd, key: Key, end: impl FnOnce(&Registry) -> R) -> Option<R> {
        let mut open = self.lock();
        let Open { registry, owners } = open.as_mut()?;
        if owners.get(&fd)?.key != key {
            return None;
        }
        owners.remove(&fd);
        if owners.capacity() > KEPT && owners.len() < owners.capacity() / 8 {
            owners.shrink_to(owners.capacity() / 4);
        }
        Some(end(registry))
    }

    /// Whether `key` is the owner of the fd.
    pub(super) fn is_owner(&self, fd: RawFd, key: Key) -> bool {
        let open = self.lock();
        open.as_ref().and_then(|open| open.owners.get(&fd)).is_some_and(|owner| owner.key == key)
    }

    /// Forgets all, as the loop is closed.
    pub(super) fn close(&self) {
        drop(self.lock().take());
    }
}

/// Whether the selector knows by itself which file an fd names. epoll does: it forgets a file that was
/// closed, and refuses an fd only if its file is registered under that number already. poll(2) knows only
/// the number, and kqueue refuses nothing.
const SELECTOR_TELLS_FILES_APART: bool = cfg!(all(
    any(target_os = "linux", target_os = "android"),
    not(mio_unsupported_force_poll_poll)
));

/// Which file an fd names, where the selector does not know.
#[derive(PartialEq, Eq, Debug)]
struct FileId {
    /// Device and inode. `None` where there is no way to ask (FreeBSD without a file system for
    /// `/dev/fd`): then an fd that is registered is taken to name the same file as before.
    known: Option<(u64, u64)>,
}

impl FileId {
    fn of(fd: RawFd) -> FileId {
        use std::os::unix::fs::MetadataExt;
        if SELECTOR_TELLS_FILES_APART {
            return FileId { known: None };
        }
        let metadata = std::fs::metadata(format!("/dev/fd/{fd}")).ok();
        FileId { known: metadata.map(|metadata| (metadata.dev(), metadata.ino())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::slots::Slots;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

    fn owners(descriptors: &Descriptors) -> usize {
        descriptors.lock().as_ref().map_or(0, |open| open.owners.len())
    }

    #[test]
    fn an_fd_is_its_owners_until_that_ends_the_registration() {
        let poll = mio::Poll::new().unwrap();
        let descriptors = Descriptors::new(poll.registry().try_clone().unwrap());
        let mut keys = Slots::<()>::new();
        let (mine, other) = (keys.insert(()).unwrap(), keys.insert(()).unwrap());
        let (socket, _peer) = UnixStream::pair().unwrap();
        let fd = socket.as_raw_fd();
        let register = |key| descriptors.register(fd, key, BOTH);
        let take_back = |key| descriptors.take_back(fd, key);
        let ends: [&dyn Fn(Key); 2] =
            [&|key| descriptors.release(fd, key), &|key| take_back(key).unwrap()];
        for end in ends {
            register(mine).unwrap();
            assert_eq!(register(other).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            end(other);
            assert!(descriptors.is_owner(fd, mine) && !descriptors.is_owner(fd, other));
            descriptors.rearm(fd, mine, BOTH).unwrap();
            assert_eq!(
                descriptors.rearm(fd, other, BOTH).unwrap_err().kind(),
                io::ErrorKind::NotFound
            );
            end(mine);
            assert_eq!((descriptors.is_owner(fd, mine), owners(&descriptors)), (false, 0));
            assert!(descriptors.rearm(fd, mine, BOTH).is_err());
        }
        register(mine).unwrap();
        descriptors.close();
        assert!(register(other).is_err() && descriptors.rearm(fd, mine, BOTH).is_err());
        descriptors.release(fd, mine);
        take_back(mine).unwrap();
    }
}
