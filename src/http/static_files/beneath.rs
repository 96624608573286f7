//! Opening what lies beneath a root, and nothing else.
//!
//! Whoever looks at a path first, and opens it by its name then, may open something else: in between,
//! somebody can put a link there. So the way is gone name by name, each looked up in the folder that was
//! opened before it, and opened with `O_NOFOLLOW`: the system refuses to open a link, whenever it came there.
//! If links are followed, what they say is read and gone in the same way. That never leads up from the root,
//! nor to its beginning anew, as an absolute link would. What was opened in the end is looked at once more,
//! by its descriptor.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, readlinkat, statat};
use rustix::io::{Errno, retry_on_intr};

use super::refused::Refused;

/// What was found.
pub(super) enum Found {
    /// A regular file, open for reading.
    File(File, Box<Metadata>),
    Folder,
}

/// As many links as Linux follows for one path.
const MAX_LINKS: usize = 40;

/// A folder is opened only to look for names in it, which needs no right to list it where the system can tell
/// the difference.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
const LOOK: OFlags = OFlags::PATH;
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
const LOOK: OFlags = OFlags::RDONLY;

const FOLDER: OFlags = LOOK.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A FIFO or a device that is there all of a sudden must not block, nor become the terminal of this process.
const FILE: OFlags =
    OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Opens what is at the end of `names`, each of which is looked up in the one before it, and the first in
/// `root`. The way to `root` itself may lead over links.
pub(super) fn open(root: &Path, names: &[OsString], follow_links: bool) -> Result<Found, Refused> {
    let root = retry_on_intr(|| rustix::fs::open(root, FOLDER, Mode::empty()));
    // An open folder for each name of the way. A link may lead back up on it.
    let mut way = vec![root?];
    // What is still to be gone; the next name is the last one.
    let mut ahead: Vec<OsString> = names.iter().rev().cloned().collect();
    let mut links = 0;
    while let Some(name) = ahead.pop() {
        if name == ".." {
            way.pop();
        }
        // Above the root there is nothing.
        let here = way.last().ok_or(Refused::Forbidden)?;
        if name == ".." {
            continue;
        }
        // This is only to know what to do. What is opened then is never a link, whatever was seen here.
        let seen = retry_on_intr(|| statat(here, &name, AtFlags::SYMLINK_NOFOLLOW))?;
        match FileType::from_raw_mode(seen.st_mode) {
            FileType::Directory => way.push(open_in(here, &name, FOLDER)?),
            FileType::RegularFile if ahead.is_empty() => {
                let file = File::from(open_in(here, &name, FILE)?);
                let metadata = file.metadata().map_err(Refused::Failed)?;
                let is_file = metadata.is_file();
                return if is_file {
                    Ok(Found::File(file, Box::new(metadata)))
                } else {
                    Err(Refused::Forbidden)
                };
            }
            FileType::RegularFile => return Err(Refused::NotFound),
            FileType::Symlink if follow_links && links < MAX_LINKS => {
                links += 1;
                let target = retry_on_intr(|| readlinkat(here, &name, Vec::new()))?;
                if target.as_bytes().starts_with(b"/") {
                    return Err(Refused::Forbidden);
                }
                let names = target.as_bytes().split(|&byte| byte == b'/').rev();
                let names = names.filter(|name| !name.is_empty() && *name != b".");
                ahead.extend(names.map(|name| OsStr::from_bytes(name).to_owned()));
            }
            // Links; and FIFOs, devices and sockets, which are not even opened: already that could disturb
            // whoever is at the other end.
            _ => return Err(Refused::Forbidden),
        }
    }
    Ok(Found::Folder)
}

fn open_in(folder: &OwnedFd, name: &OsStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    retry_on_intr(|| openat(folder, name, flags | OFlags::NOFOLLOW, Mode::empty()))
}
