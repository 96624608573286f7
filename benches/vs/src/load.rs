//! Load on a server: requests and answers on many connections, from one thread over epoll.
//!
//! It is a closed loop: each connection sends a request, waits for the whole answer, and sends the next.
//! What requests and answers are, a [`Protocol`] says.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use crate::util::cpu_of;

pub trait Protocol {
    /// The request with the number `seq` on connection `conn`.
    fn request(&mut self, conn: usize, seq: u32) -> &[u8];

    /// Looks at what has arrived of the answer, after `got` bytes that it was shown before. `Some(true)` if
    /// that completes the answer, `None` if it is a wrong one.
    fn answer(&mut self, conn: usize, seq: u32, got: usize, bytes: &[u8]) -> Option<bool>;
}

/// The options that are the same for every protocol.
pub struct Options {
    addr: SocketAddr,
    conns: usize,
    pid: Option<u32>,
    /// So many seconds are not measured.
    warmup: f64,
    until: Until,
}

/// When the load ends.
enum Until {
    /// After so many seconds.
    Seconds(f64),
    /// When each connection has had so many answers.
    Each(u32),
}

/// The value of `name` on the command line.
pub fn option<T: std::str::FromStr>(name: &str) -> Option<T> {
    let value = std::env::args().skip_while(|arg| arg != name).nth(1)?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} {value}?")))
}

impl Options {
    pub fn from_args() -> Options {
        let addr: SocketAddr = std::env::args().nth(1).expect("ADDR").parse().expect("ADDR");
        assert!(addr.ip().is_loopback(), "loopback only");
        let each = option("--each");
        Options {
            addr,
            conns: option("--conns").unwrap_or(1),
            pid: option("--pid"),
            warmup: option("--warmup").unwrap_or(if each.is_some() { 0.0 } else { 0.5 }),
            until: match each {
                Some(each) => Until::Each(each),
                None => Until::Seconds(option("--seconds").unwrap_or(3.0)),
            },
        }
    }
}

struct Conn {
    stream: TcpStream,
    seq: u32,
    sent: usize,
    got: usize,
    start: Instant,
    open: bool,
}

struct Load<P> {
    protocol: P,
    ep: RawFd,
    buf: Vec<u8>,
    errors: u64,
    hist: Histogram,
    requests: u64,
    measuring: bool,
    each: Option<u32>,
}

impl<P: Protocol> Load<P> {
    fn watch(&self, fd: RawFd, id: usize, op: libc::c_int, events: libc::c_int) {
        let mut ev = libc::epoll_event { events: events as u32, u64: id as u64 };
        // SAFETY: `ev` outlives the call.
        assert_eq!(unsafe { libc::epoll_ctl(self.ep, op, fd, &mut ev) }, 0);
    }

    /// Sends the rest of the current request; false if the connection broke.
    fn push(&mut self, id: usize, c: &mut Conn) -> bool {
        let request = self.protocol.request(id, c.seq);
        let rest = &request[c.sent..];
        let left = rest.len();
        let fd = c.stream.as_raw_fd();
        // SAFETY: the pointer and length come from a slice.
        let n = unsafe { libc::send(fd, rest.as_ptr().cast(), left, libc::MSG_NOSIGNAL) };
        if n < 0 && io::Error::last_os_error().kind() != io::ErrorKind::WouldBlock {
            return false;
        }
        let before = c.sent;
        let n = n.max(0) as usize;
        c.sent += n;
        if n < left {
            self.watch(fd, id, libc::EPOLL_CTL_MOD, libc::EPOLLIN | libc::EPOLLOUT);
        } else if before > 0 {
            self.watch(fd, id, libc::EPOLL_CTL_MOD, libc::EPOLLIN);
        }
        true
    }

    fn begin(&mut self, id: usize, c: &mut Conn) -> bool {
        c.seq += 1;
        c.sent = 0;
        c.got = 0;
        c.start = Instant::now();
        self.push(id, c)
    }

    /// Handles readiness; false if the connection is done, broke or gave a wrong answer.
    fn event(&mut self, id: usize, c: &mut Conn, events: u32) -> bool {
        if events & libc::EPOLLOUT as u32 != 0 && !self.push(id, c) {
            self.errors += 1;
            return false;
        }
        if events & !(libc::EPOLLOUT as u32) == 0 {
            return true;
        }
        let fd = c.stream.as_raw_fd();
        // SAFETY: `buf` is a Vec of that length.
        let n = unsafe { libc::recv(fd, self.buf.as_mut_ptr().cast(), self.buf.len(), 0) };
        if n < 0 && io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock {
            return true;
        }
        let bytes = &self.buf[..n.max(0) as usize];
        let answer = (n > 0).then(|| self.protocol.answer(id, c.seq, c.got, bytes));
        c.got += bytes.len();
        match answer.flatten() {
            None => {
                self.errors += 1;
                return false;
            }
            Some(false) => return true,
            Some(true) => {}
        }
        if self.measuring {
            self.requests += 1;
            self.hist.add(c.start.elapsed().as_nanos() as u64);
        }
        if self.each.is_some_and(|each| c.seq >= each) {
            return false;
        }
        let begun = self.begin(id, c);
        self.errors += u64::from(!begun);
        begun
    }
}

/// Runs the load, and prints one line:
/// `rps=.. p50_us=.. p99_us=.. p999_us=.. errors=.. requests=.. cpu_us_per_req=..`, where the CPU time is the
/// server's, and -1 without a pid.
pub fn run(options: Options, protocol: impl Protocol) {
    let Options { addr, conns, pid, warmup, until } = options;
    // SAFETY: plain system call.
    let ep = unsafe { libc::epoll_create1(0) };
    let mut load = Load {
        protocol,
        ep,
        buf: vec![0; 64 * 1024],
        errors: 0,
        hist: Histogram::new(),
        requests: 0,
        measuring: false,
        each: match until {
            Until::Each(each) => Some(each),
            Until::Seconds(_) => None,
        },
    };
    let mut all: Vec<Conn> = (0..conns)
        .map(|id| {
            let stream = TcpStream::connect(addr).expect("connect");
            stream.set_nodelay(true).unwrap();
            stream.set_nonblocking(true).unwrap();
            // Close with a reset, so that no TIME_WAIT eats the port range.
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            load.watch(stream.as_raw_fd(), id, libc::EPOLL_CTL_ADD, libc::EPOLLIN);
            Conn { stream, seq: 0, sent: 0, got: 0, start: Instant::now(), open: true }
        })
        .collect();
    for (id, c) in all.iter_mut().enumerate() {
        assert!(load.begin(id, c), "first send");
    }

    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; 1024];
    let t0 = Instant::now();
    let mut from = (t0, 0.0);
    let mut open = conns;
    while open > 0 {
        let now = Instant::now();
        if !load.measuring && now - t0 >= Duration::from_secs_f64(warmup) {
            load.measuring = true;
            from = (now, pid.map_or(0.0, cpu_of));
        }
        match until {
            Until::Seconds(seconds) if load.measuring => {
                if now - from.0 >= Duration::from_secs_f64(seconds) {
                    break;
                }
            }
            _ => {}
        }
        // SAFETY: `events` has 1024 entries.
        let n = unsafe { libc::epoll_wait(ep, events.as_mut_ptr(), 1024, 100) };
        for e in &events[..n.max(0) as usize] {
            let (id, flags) = (e.u64 as usize, e.events);
            let c = &mut all[id];
            if c.open && !load.event(id, c, flags) {
                c.open = false;
                open -= 1;
                load.watch(c.stream.as_raw_fd(), id, libc::EPOLL_CTL_DEL, 0);
            }
        }
    }
    let secs = from.0.elapsed().as_secs_f64();
    let cpu_us = match pid {
        Some(pid) => (cpu_of(pid) - from.1) * 1e6 / load.requests as f64,
        None => -1.0,
    };
    println!(
        "rps={:.0} p50_us={:.1} p99_us={:.1} p999_us={:.1} errors={} requests={} cpu_us_per_req={:.3}",
        load.requests as f64 / secs,
        load.hist.percentile_us(0.50),
        load.hist.percentile_us(0.99),
        load.hist.percentile_us(0.999),
        load.errors,
        load.requests,
        cpu_us,
    );
}

/// Log-linear histogram of nanoseconds: 64 buckets per power of two.
struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    fn new() -> Self {
        Self { counts: vec![0; 64 * 64], total: 0 }
    }

    fn add(&mut self, ns: u64) {
        let ns = ns.max(64);
        let shift = 63 - ns.leading_zeros() - 6;
        let i = (shift as usize) * 64 + (ns >> shift) as usize;
        self.counts[i] += 1;
        self.total += 1;
    }

    fn percentile_us(&self, p: f64) -> f64 {
        let want = (self.total as f64 * p).ceil() as u64;
        let mut seen = 0;
        for (i, c) in self.counts.iter().enumerate() {
            seen += c;
            if seen >= want && *c > 0 {
                let shift = i / 64 - 1;
                let mantissa = (i - shift * 64) as u64;
                return (mantissa << shift) as f64 / 1000.0;
            }
        }
        0.0
    }
}
