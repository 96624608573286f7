//! Standard input, without a thread that blocks in it where that can be avoided.
//!
//! The selector can watch a terminal, a pipe or a socket. So reading waits as it does for any other fd,
//! and the program can end while nobody types, with no thread stuck in a read. The fd is not made
//! non-blocking, because then it would be so for every program that shares the terminal. Instead, each
//! read asks poll(2) first whether there is something, and does not read if it would block.
//!
//! What the selector cannot watch (with epoll, a file) is read by a thread of its own. When the
//! [`Stdin`] is dropped, nobody stops or joins that thread: it may be blocked in its read, and ends
//! after it.

use std::fmt;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::thread;

use futures::io::AsyncRead;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::AsyncFd;
use crate::concurrent::{Receiver, channel};
use crate::ioloop::Interest;

/// Standard input; from [`stdin`]. Reading is cancel safe.
pub struct Stdin {
    input: Input,
}

/// How standard input is read.
enum Input {
    /// The selector watches it.
    Watched(AsyncFd<OwnedFd>),
    /// A thread reads it, and sends what it has read in chunks.
    Thread {
        chunks: Receiver<io::Result<Vec<u8>>>,
        /// The last chunk that has come from the thread.
        chunk: Vec<u8>,
        /// How much of the chunk the user has read.
        read: usize,
    },
}

/// Standard input on the current loop. If there are two [`Stdin`]s that read at the same time, each gets
/// some of the bytes. Bytes that [`std::io::stdin`] has read into its buffer are not seen here.
///
/// # Errors
///
/// If standard input is closed, or what the system says of watching it.
///
/// # Panics
///
/// As [`IoLoop::current`](crate::IoLoop::current).
///
/// ```no_run
/// use futures::{AsyncBufReadExt, StreamExt, io::BufReader};
/// use waterspout::{IoLoop, net};
///
/// IoLoop::new()?.run_sync(|| async {
///     let mut lines = BufReader::new(net::stdin()?).lines();
///     while let Some(line) = lines.next().await {
///         println!("you said {}", line?);
///     }
///     Ok::<(), std::io::Error>(())
/// })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn stdin() -> io::Result<Stdin> {
    Stdin::of(io::stdin().as_fd().try_clone_to_owned()?)
}

impl Stdin {
    /// Reads `fd` by watching it if the selector can do that, and else by a thread.
    fn of(fd: OwnedFd) -> io::Result<Stdin> {
        let again = fd.try_clone()?;
        let input = match AsyncFd::with_interest(fd, Interest::READ) {
            Ok(watched) => Input::Watched(watched),
            // epoll's answer for a file.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => read_in_thread(again)?,
            Err(error) => return Err(error),
        };
        Ok(Stdin { input })
    }
}

/// Starts a thread that reads `fd` to its end, one chunk ahead of the user.
fn read_in_thread(fd: OwnedFd) -> io::Result<Input> {
    let (sender, chunks) = channel(1);
    let read = move || {
        let mut file = std::fs::File::from(fd);
        loop {
            let mut chunk = vec![0; 8 * 1024];
            let read = file.read(&mut chunk);
            let end = !matches!(read, Ok(1..));
            let item = read.map(|n| {
                chunk.truncate(n);
                chunk
            });
            // Blocks this thread until the user has taken the chunk before.
            if sender.blocking_send(item).is_err() || end {
                return;
            }
        }
    };
    thread::Builder::new().name("waterspout-stdin".into()).spawn(read)?;
    Ok(Input::Thread { chunks, chunk: Vec::new(), read: 0 })
}

/// Reads if there is something to read, and else answers `WouldBlock`, though the fd may be a blocking
/// one: it asks poll(2) first. (If another process reads the bytes in between, the read blocks all the
/// same.)
fn read_if_ready(fd: &OwnedFd, buf: &mut [u8]) -> io::Result<usize> {
    let mut asked = [PollFd::new(fd, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    if poll(&mut asked, Some(&at_once))? == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    Ok(rustix::io::read(fd, buf)?)
}

impl AsyncRead for Stdin {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.input {
            Input::Watched(fd) => fd.poll_read_with(cx, |fd| read_if_ready(fd, buf)),
            Input::Thread { chunks, chunk, read } => {
                if *read == chunk.len() {
                    let next = ready!(chunks.poll_recv(cx)).transpose()?;
                    (*chunk, *read) = (next.unwrap_or_default(), 0);
                }
                let n = buf.len().min(chunk.len() - *read);
                buf[..n].copy_from_slice(&chunk[*read..*read + n]);
                *read += n;
                Poll::Ready(Ok(n))
            }
        }
    }
}

impl fmt::Debug for Stdin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match &self.input {
            Input::Watched(_) => "watched",
            Input::Thread { .. } => "by a thread",
        };
        f.debug_struct("Stdin").field("how", &how).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ioloop::IoLoop;
    use futures::AsyncReadExt;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    fn read_all(fd: OwnedFd) -> (String, &'static str) {
        let io_loop = IoLoop::new().unwrap();
        let read = io_loop.run_sync(|| async {
            let mut stdin = Stdin::of(fd).unwrap();
            let how = if matches!(stdin.input, Input::Watched(_)) { "watched" } else { "thread" };
            let mut text = String::new();
            stdin.read_to_string(&mut text).await.unwrap();
            (text, how)
        });
        read.unwrap()
    }

    #[test]
    fn what_can_be_watched_is_and_stays_blocking() {
        let (read, mut write) = UnixStream::pair().unwrap();
        let again = read.try_clone().unwrap();
        let writer = thread::spawn(move || {
            for part in ["one ", "two ", "three"] {
                write.write_all(part.as_bytes()).unwrap();
            }
        });
        assert_eq!(read_all(read.into()), ("one two three".into(), "watched"));
        writer.join().unwrap();
        let flags = rustix::fs::fcntl_getfl(&again).unwrap();
        assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK));
    }

    #[test]
    fn a_file_is_read_to_its_end() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/LICENSE-APACHE");
        let file = std::fs::File::open(path).unwrap();
        let (text, how) = read_all(file.into());
        assert_eq!(text, std::fs::read_to_string(path).unwrap());
        assert_eq!(how, if cfg!(mio_unsupported_force_poll_poll) { "watched" } else { "thread" });
    }
}
