//! `accept_load ADDR PID [--conns N] [--count N]`
//!
//! Opens connections one after the other in each of `--conns` places, `--count` in all; each sends
//! a byte, waits for it to come back, which shows that it was accepted and has its task, and is
//! reset, so that none is left in TIME_WAIT and the port range lasts. ADDR is `echo_server`'s and
//! PID its process. Prints one line: `rps=.. errors=.. requests=.. cpu_us_per_req=..` where a
//! request is a connection, and the CPU time the server's.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use peers::util::cpu_of;

/// Connects, which on loopback does not wait for the server, and sends the byte.
fn open(poll: &Poll, addr: SocketAddr, place: usize) -> io::Result<TcpStream> {
    let mut s = TcpStream::connect(addr)?;
    s.set_nodelay(true)?;
    s.set_nonblocking(true)?;
    socket2::SockRef::from(&s).set_linger(Some(Duration::ZERO))?;
    s.write_all(b"x")?;
    let fd = s.as_raw_fd();
    poll.registry().register(&mut SourceFd(&fd), Token(place), Interest::READABLE)?;
    Ok(s)
}

/// Opens and closes `count` connections, so many at a time; how many of them failed.
fn connections(addr: SocketAddr, at_a_time: usize, count: u64) -> io::Result<u64> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut opened = 0;
    let mut places = Vec::new();
    for place in 0..at_a_time {
        places.push(open(&poll, addr, place)?);
        opened += 1;
    }
    let (mut closed, mut errors) = (0, 0);
    while closed < opened {
        poll.poll(&mut events, Some(Duration::from_secs(10)))?;
        if events.is_empty() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        for event in &events {
            let place = event.token().0;
            match places[place].read(&mut [0; 8]) {
                Ok(1) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
                Ok(_) | Err(_) => errors += 1,
            }
            closed += 1;
            let fd = places[place].as_raw_fd();
            poll.registry().deregister(&mut SourceFd(&fd))?;
            if opened < count {
                places[place] = open(&poll, addr, place)?;
                opened += 1;
            }
        }
    }
    Ok(errors)
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let opt = |name: &str, default: u64| {
        let at = args.iter().position(|a| a == name);
        at.map_or(default, |i| args.get(i + 1).expect(name).parse().expect(name))
    };
    let addr: SocketAddr = args.first().expect("ADDR").parse().expect("ADDR");
    let pid: u32 = args.get(1).expect("PID").parse().expect("PID");
    assert!(addr.ip().is_loopback(), "loopback only");
    let (at_a_time, count) = (opt("--conns", 64) as usize, opt("--count", 20_000));

    let warm = connections(addr, at_a_time, count / 10).expect("connections");
    let (t0, c0) = (Instant::now(), cpu_of(pid));
    let errors = connections(addr, at_a_time, count).expect("connections");
    let seconds = t0.elapsed().as_secs_f64();
    // What the server does about the last resets is its work, too.
    std::thread::sleep(Duration::from_millis(20));
    let cpu = cpu_of(pid) - c0;
    println!(
        "rps={:.0} errors={} requests={count} cpu_us_per_req={:.3}",
        count as f64 / seconds,
        warm + errors,
        cpu * 1e6 / count as f64,
    );
}
