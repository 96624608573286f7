//! Sending on sockets without `SIGPIPE`.
//!
//! If the other side of a socket does not read any more, write(2) and writev(2) raise the signal
//! `SIGPIPE`, which ends the process by default. Rust's start-up code makes the process ignore it, but a
//! library written in Rust can be part of a program that was not started by that code, and a program can
//! undo it. So bytes for a socket are not written but sent, with a flag that tells the system not to
//! raise the signal. (macOS has no such flag, but an option of the socket, which the standard library
//! and mio set.)

use std::io::{self, IoSlice};
use std::os::fd::AsFd;

use socket2::SockRef;

/// Of send(2) and sendmsg(2).
#[cfg(not(target_vendor = "apple"))]
const FLAGS: i32 = libc::MSG_NOSIGNAL;
#[cfg(target_vendor = "apple")]
const FLAGS: i32 = 0;

/// Sends as much of `buf` as there is room for.
pub(super) fn send(socket: impl AsFd, buf: &[u8]) -> io::Result<usize> {
    SockRef::from(&socket).send_with_flags(buf, FLAGS)
}

/// Sends as much of several buffers, one after the other, as there is room for.
pub(super) fn send_vectored(socket: impl AsFd, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    SockRef::from(&socket).send_vectored_with_flags(bufs, FLAGS)
}
