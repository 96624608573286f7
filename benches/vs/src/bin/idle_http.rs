//! `idle_http ADDR PID N`: what an idle connection costs the HTTP server at ADDR, whose process is PID.
//!
//! Opens N connections, sends a request on each and reads the answer, waits for three seconds (a server may
//! put connections away that have been idle for a while), and reads the server's RSS. At last each connection
//! has to answer once more. Prints `RSS before in KiB, after in KiB, bytes a connection`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use peers::http::exchange::{REQUEST, is_answer};
use peers::util::rss_kib;

fn ask(stream: &mut TcpStream) {
    stream.write_all(REQUEST).expect("write");
    let (mut answer, mut buf) = (Vec::new(), [0; 4096]);
    while !is_answer(&answer).expect("a right answer") {
        let n = stream.read(&mut buf).expect("read");
        assert!(n > 0, "the server has closed the connection");
        answer.extend(&buf[..n]);
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [addr, pid, n] = args.as_slice() else {
        eprintln!("usage: idle_http ADDR PID N");
        std::process::exit(2);
    };
    let addr: SocketAddr = addr.parse().expect("ADDR");
    assert!(addr.ip().is_loopback(), "loopback only");
    let (pid, n): (u32, u64) = (pid.parse().expect("PID"), n.parse().expect("N"));

    let connect = || {
        let mut stream = TcpStream::connect(addr).expect("connect");
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("linger");
        ask(&mut stream);
        stream
    };
    // What the server makes once, for its first connections, is not theirs.
    let _first: Vec<TcpStream> = (0..64).map(|_| connect()).collect();
    let before = rss_kib(pid);
    let mut streams: Vec<TcpStream> = (0..n).map(|_| connect()).collect();
    std::thread::sleep(Duration::from_secs(3));
    let after = rss_kib(pid);
    streams.iter_mut().for_each(ask);
    println!("{before} {after} {}", after.saturating_sub(before) * 1024 / n);
}
