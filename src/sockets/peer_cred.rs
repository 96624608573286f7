//! Whose process is at the other end of a Unix socket, as the kernel noted it when the socket was
//! connected.
//!
//! The call goes through nix and not through rustix, on which this crate relies elsewhere. If the peer's
//! process is not in this process's pid namespace, the kernel gives 0 as its number. nix hands that on.
//! rustix reads the number, without a check, into a type that cannot be 0.

use std::io;

use super::UnixStream;

/// User, group and process of a peer, as they were when the peer connected, or began to listen; from
/// [`UnixStream::peer_cred`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct UCred {
    uid: u32,
    gid: u32,
    pid: Option<u32>,
}

impl UCred {
    /// The effective user.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The effective group.
    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// The number of the peer's process. That process may have ended since, and the number may be
    /// another's by now. `None` if the process has no number that is valid here (because it runs in a
    /// container whose processes are not seen from here, say), and always on FreeBSD, which does not
    /// tell the number.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }
}

#[cfg_attr(docsrs, doc(cfg(feature = "peer_cred")))]
impl UnixStream {
    /// Who is at the other end. A stream that has connected is told who listened, and one that was
    /// accepted is told who connected. Both streams of a [`pair`](UnixStream::pair) are told who made
    /// the pair. This takes the feature `peer_cred`.
    ///
    /// # Errors
    ///
    /// What the system says; `Unsupported` on a system that this crate does not know how to ask.
    ///
    /// ```
    /// use waterspout::{IoLoop, net::UnixStream};
    ///
    /// # IoLoop::new()?.run_sync(|| async {
    /// let (here, _there) = UnixStream::pair()?;
    /// let peer = here.peer_cred()?;
    /// println!("user {} of group {}, process {:?}", peer.uid(), peer.gid(), peer.pid());
    /// # Ok::<(), std::io::Error>(())
    /// # })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn peer_cred(&self) -> io::Result<UCred> {
        ask(self)
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn ask(stream: &UnixStream) -> io::Result<UCred> {
    let peer = nix::sys::socket::getsockopt(stream, nix::sys::socket::sockopt::PeerCredentials)?;
    Ok(UCred { uid: peer.uid(), gid: peer.gid(), pid: known(peer.pid()) })
}

#[cfg(any(target_vendor = "apple", target_os = "freebsd", target_os = "dragonfly"))]
fn ask(stream: &UnixStream) -> io::Result<UCred> {
    use nix::sys::socket::{getsockopt, sockopt};
    let peer = getsockopt(stream, sockopt::LocalPeerCred)?;
    #[cfg(target_vendor = "apple")]
    let pid = known(getsockopt(stream, sockopt::LocalPeerPid)?);
    #[cfg(not(target_vendor = "apple"))]
    let pid = None;
    // The first group is the effective one.
    Ok(UCred { uid: peer.uid(), gid: peer.groups()[0], pid })
}

#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "dragonfly"
)))]
fn ask(_: &UnixStream) -> io::Result<UCred> {
    Err(io::ErrorKind::Unsupported.into())
}

/// `pid`, if it is the number of a process. 0 says that the process has no number here.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn known(pid: i32) -> Option<u32> {
    u32::try_from(pid).ok().filter(|&pid| pid != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ioloop::IoLoop;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_peer_in_this_process_is_this_user_and_this_process() {
        let asked = IoLoop::new().unwrap().run_sync(|| async {
            let (here, there) = UnixStream::pair().unwrap();
            assert_eq!(here.peer_cred().unwrap(), there.peer_cred().unwrap());
            here.peer_cred().unwrap()
        });
        let asked = asked.unwrap();
        // Whose are the files that this process makes?
        let path = std::env::temp_dir().join(format!("waterspout-cred-{}", std::process::id()));
        std::fs::write(&path, "").unwrap();
        let made = std::fs::metadata(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(asked.uid(), made.uid());
        if cfg!(any(target_os = "linux", target_os = "android")) {
            assert_eq!(asked.gid(), made.gid());
            assert_eq!(asked.pid(), Some(std::process::id()));
        }
    }

    #[test]
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    fn a_peer_whose_process_is_not_seen_from_here_has_no_number() {
        assert_eq!(known(0), None);
        assert_eq!(known(-1), None);
        assert_eq!(known(7), Some(7));
    }
}
