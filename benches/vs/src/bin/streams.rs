//! `streams RUNTIME CASE`: buffered reading and writing over TCP on loopback.
//!
//! At the other end is a thread with a blocking socket, which sends as fast as it is read, or reads as fast as is
//! sent. Only the thread of the runtime counts. Prints `cpu_ns=..`: its CPU time (with the kernel's part) for each line
//! or write. With a third argument, it does so many lines or writes instead of as many as the case usually has.
//!
//! * `lines_20`, `lines_200`, `lines_64k`: lines of so many bytes, each read into a vector of its own: `read_until` of
//!   an `IoStream`, and of tokio's `BufReader` of 64 KiB. `lines_.._reused`: all into one vector.
//! * `writes_1k`: writes of 1 KiB, each awaited, and a flush after every 64: `feed` and `flush` of an `IoStream`, and
//!   `write_all` and `flush` of tokio's `BufWriter` of 8 KiB.
//! * `writes_1m`: writes of 1 MiB, each awaited until the system has all of it: `write_owned` of an `IoStream`, whose
//!   bytes are shared, and `write_all` of tokio's `TcpStream`, which borrows them. `writes_1m_copied`: `write` of an
//!   `IoStream`, which copies what the socket does not take at once.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::exit;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, BufWriter};
use waterspout::iostream::IoStream;

/// What is read and written of one case.
#[derive(Clone, Copy)]
enum Case {
    Lines { len: usize, reused: bool },
    /// Writes of 1 KiB that are gathered.
    Gathered,
    /// Writes of 1 MiB.
    Large { copied: bool },
}

/// How many bytes a line may have at most.
const MAX_LINE: usize = 1 << 20;
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// How many writes there are before a flush.
const BATCH: usize = 64;
/// How much the thread at the other end sends and reads at a time.
const BLOCK: usize = 256 * KIB;

impl Case {
    fn named(name: &str) -> Option<(Case, usize)> {
        let lines = |len, reused| Case::Lines { len, reused };
        Some(match name {
            "lines_20" => (lines(20, false), 4_000_000),
            "lines_20_reused" => (lines(20, true), 4_000_000),
            "lines_200" => (lines(200, false), 1_000_000),
            "lines_200_reused" => (lines(200, true), 1_000_000),
            "lines_64k" => (lines(64 * KIB, false), 8_000),
            "lines_64k_reused" => (lines(64 * KIB, true), 8_000),
            "writes_1k" => (Case::Gathered, 512_000),
            "writes_1m" => (Case::Large { copied: false }, 500),
            "writes_1m_copied" => (Case::Large { copied: true }, 500),
            _ => return None,
        })
    }

    /// What the thread at the other end does: `n` lines or writes.
    fn peer(self, mut stream: TcpStream, n: usize) -> io::Result<()> {
        match self {
            Case::Lines { len, .. } => {
                let mut line = vec![b'x'; len];
                line[len - 1] = b'\n';
                let block = line.repeat((BLOCK / len).max(1));
                let mut left = n * len;
                while left > 0 {
                    let part = left.min(block.len());
                    stream.write_all(&block[..part])?;
                    left -= part;
                }
            }
            Case::Gathered | Case::Large { .. } => {
                let mut block = vec![0; BLOCK];
                while stream.read(&mut block)? > 0 {}
            }
        }
        Ok(())
    }
}

async fn on_waterspout(stream: TcpStream, case: Case, n: usize) -> io::Result<()> {
    let stream = IoStream::new(waterspout::net::TcpStream::from_std(stream)?);
    match case {
        Case::Lines { len, reused: false } => {
            for _ in 0..n {
                assert_eq!(stream.read_until(b"\n", MAX_LINE).await?.len(), len);
            }
        }
        Case::Lines { len, reused: true } => {
            let mut line = Vec::new();
            for _ in 0..n {
                line.clear();
                assert_eq!(stream.read_until_into(b"\n", MAX_LINE, &mut line).await?, len);
            }
        }
        Case::Gathered => {
            let data = [b'x'; KIB];
            for _ in 0..n / BATCH {
                for _ in 0..BATCH {
                    stream.feed(data).await?;
                }
                stream.flush().await?;
            }
        }
        Case::Large { copied: false } => {
            let data: Rc<[u8]> = vec![b'x'; MIB].into();
            for _ in 0..n {
                stream.write_owned(data.clone()).await?;
            }
        }
        Case::Large { copied: true } => {
            let data = vec![b'x'; MIB];
            for _ in 0..n {
                stream.write(&data).await?;
            }
        }
    }
    Ok(())
}

async fn on_tokio(stream: TcpStream, case: Case, n: usize) -> io::Result<()> {
    let mut stream = tokio::net::TcpStream::from_std(stream)?;
    match case {
        Case::Lines { len, reused } => {
            let mut stream = BufReader::with_capacity(64 * KIB, stream);
            let mut line = Vec::new();
            for _ in 0..n {
                match reused {
                    true => line.clear(),
                    false => line = Vec::new(),
                }
                assert_eq!(stream.read_until(b'\n', &mut line).await?, len);
            }
        }
        Case::Gathered => {
            let mut stream = BufWriter::with_capacity(8 * KIB, stream);
            let data = [b'x'; KIB];
            for _ in 0..n / BATCH {
                for _ in 0..BATCH {
                    stream.write_all(&data).await?;
                }
                stream.flush().await?;
            }
        }
        Case::Large { .. } => {
            let data = vec![b'x'; MIB];
            for _ in 0..n {
                stream.write_all(&data).await?;
            }
        }
    }
    Ok(())
}

fn run(runtime: &str, stream: TcpStream, case: Case, n: usize) -> io::Result<()> {
    match runtime {
        "waterspout" => {
            let io_loop = waterspout::IoLoop::new()?;
            io_loop.run_sync(|| on_waterspout(stream, case, n)).expect("the loop runs")
        }
        "tokio" => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            tokio::task::LocalSet::new().block_on(&runtime, async {
                tokio::task::spawn_local(on_tokio(stream, case, n)).await.expect("it runs")
            })
        }
        _ => usage(),
    }
}

/// The CPU time of this thread, with the kernel's part.
fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it fills the struct that we own.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn usage() -> ! {
    eprintln!("usage: streams waterspout|tokio CASE [N]");
    exit(2)
}

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (Some(runtime), Some((case, usual))) =
        (args.first(), args.get(1).and_then(|name| Case::named(name)))
    else {
        usage()
    };
    let n = args.get(2).map_or(usual, |n| n.parse().unwrap_or_else(|_| usage()));
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let there = TcpStream::connect(listener.local_addr()?)?;
    let (here, _) = listener.accept()?;
    here.set_nodelay(true)?;
    here.set_nonblocking(true)?;
    let peer = thread::spawn(move || case.peer(there, n));
    let begun = thread_time();
    run(runtime, here, case, n)?;
    let took = thread_time() - begun;
    peer.join().expect("the other end runs")?;
    println!("cpu_ns={:.2}", took.as_nanos() as f64 / n as f64);
    Ok(())
}
