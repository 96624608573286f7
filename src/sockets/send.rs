//! Sending on sockets without `SIGPIPE`.
//!
//! Where nobody reads any more, write(2) and writev(2) raise `SIGPIPE`, whose default action ends the
//! process. Rust's start-up code ignores it, but not every program lets it. So what is written to a
//! socket is sent, with a flag that says not to. (On macOS that is an option of the socket, which the
//! standard library and mio set.)

use std::io::{self, IoSlice};
use std::os::fd::AsFd;

use socket2::SockRef;

#[cfg(not(target_vendor = "apple"))]
const FLAGS: i32 = libc::MSG_NOSIGNAL;
#[cfg(target_vendor = "apple")]
const FLAGS: i32 = 0;

pub(super) fn send(socket: impl AsFd, buf: &[u8]) -> io::Result<usize> {
    SockRef::from(&socket).send_with_flags(buf, FLAGS)
}

pub(super) fn send_vectored(socket: impl AsFd, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    SockRef::from(&socket).send_vectored_with_flags(bufs, FLAGS)
}
