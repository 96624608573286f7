//! Standard input, without a thread that blocks in it where that can be avoided.
//!
//! A terminal, a pipe or a socket can be watched, so reading waits like that of any other fd, and a
//! program can end while nobody types. The fd is not made non-blocking, for that would be so for every
//! program that shares the terminal: each read asks poll(2) first. What cannot be watched, like a
//! file, is read by a thread, which is left alone when the [`Stdin`] is dropped.

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
    source: Source,
}

enum Source {
    Watched(AsyncFd<OwnedFd>),
    Thread {
        chunks: Receiver<io::Result<Vec<u8>>>,
        /// What has arrived, and how much of it was read.
        chunk: Vec<u8>,
        read: usize,
    },
}

/// Standard input on the current loop. Two that read at once each get some of it, and what
/// [`std::io::stdin`] has buffered is not seen here.
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
    /// Reads `fd` in the way that it allows.
    fn of(fd: OwnedFd) -> io::Result<Stdin> {
        let again = fd.try_clone()?;
        let source = match AsyncFd::with_interest(fd, Interest::READ) {
            Ok(watched) => Source::Watched(watched),
            // What epoll says of a file.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => read_in_thread(again)?,
            Err(error) => return Err(error),
        };
        Ok(Stdin { source })
    }
}

fn read_in_thread(fd: OwnedFd) -> io::Result<Source> {
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
            // This thread may block; nobody waits for it.
            if sender.blocking_send(item).is_err() || end {
                return;
            }
        }
    };
    thread::Builder::new().name("waterspout-stdin".into()).spawn(read)?;
    Ok(Source::Thread { chunks, chunk: Vec::new(), read: 0 })
}

/// Reads without ever blocking: asks first, since the fd may be a blocking one.
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
        match &mut self.source {
            Source::Watched(fd) => fd.poll_read_with(cx, |fd| read_if_ready(fd, buf)),
            Source::Thread { chunks, chunk, read } => {
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
        let how = match &self.source {
            Source::Watched(_) => "watched",
            Source::Thread { .. } => "by a thread",
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
            let how = if matches!(stdin.source, Source::Watched(_)) { "watched" } else { "thread" };
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
