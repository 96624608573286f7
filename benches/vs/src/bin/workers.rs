//! `workers RUNTIME CONNECTIONS`: what a request costs a server that runs on two threads.
//!
//! Each message of 64 bytes is echoed. The server is a process of its own, this program called again; the load
//! comes from `echo_load`, which has to be built beside it. Neither is pinned: three threads share the cores, so what
//! counts is the server's CPU time. Prints `cpu_us=` a request, `p50_us=`, `p99_us=`, and `uneven=`: how many
//! connections the busier thread had for each of the other.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use peers::util::BUF;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use waterspout::net::{Balancer, TcpServer};
use waterspout::process::{Worker, Workers};

const THREADS: usize = 2;

/// How many connections each thread of this server has had.
static ACCEPTED: [AtomicUsize; THREADS] = [const { AtomicUsize::new(0) }; THREADS];

/// A listener on loopback that shares its port with those of the other threads.
fn listen(port: u16) -> io::Result<TcpListener> {
    let sock = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    sock.set_reuse_address(true)?;
    sock.set_reuse_port(true)?;
    sock.set_tcp_nodelay(true)?;
    sock.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into())?;
    sock.listen(4096)?;
    sock.set_nonblocking(true)?;
    Ok(sock.into())
}

fn waterspout(port: u16, balancer: Option<Balancer>) -> io::Result<()> {
    let serve = async move |worker: Worker| {
        let server = TcpServer::bare(async |s: waterspout::net::TcpStream, _| {
            ACCEPTED[waterspout::process::worker_id().unwrap()].fetch_add(1, Relaxed);
            let mut buf = [0u8; BUF];
            while let Ok(n @ 1..) = s.read(&mut buf).await {
                if s.write_all(&buf[..n]).await.is_err() {
                    return;
                }
            }
        });
        if let Some(balancer) = &balancer {
            server.balance(balancer)?;
        }
        server.add_sockets([listen(port)?])?;
        worker.stop().cancelled().await;
        Ok::<(), io::Error>(())
    };
    Workers::new().count(THREADS).run(serve).map_err(io::Error::other)
}

async fn tokio_conn(mut s: tokio::net::TcpStream) {
    let mut buf = [0u8; BUF];
    while let Ok(n @ 1..) = s.read(&mut buf).await {
        if s.write_all(&buf[..n]).await.is_err() {
            return;
        }
    }
}

/// One runtime, whose threads steal work from each other. There is no telling whose a connection is.
fn tokio_mt(port: u16) -> io::Result<()> {
    let rt =
        tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?;
    rt.block_on(async {
        // In a task of its own: the future of `block_on` runs on a third thread.
        tokio::spawn(async move {
            let l = tokio::net::TcpListener::from_std(listen(port)?)?;
            loop {
                tokio::spawn(tokio_conn(l.accept().await?.0));
            }
        })
        .await?
    })
}

/// A runtime and a listener for each thread.
fn tokio_two(port: u16) -> io::Result<()> {
    let serve = move |id: usize| {
        let rt = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        tokio::task::LocalSet::new().block_on(&rt, async {
            let l = tokio::net::TcpListener::from_std(listen(port)?)?;
            loop {
                let (s, _) = l.accept().await?;
                ACCEPTED[id].fetch_add(1, Relaxed);
                tokio::task::spawn_local(tokio_conn(s));
            }
        })
    };
    let threads: Vec<_> = (0..THREADS).map(|id| thread::spawn(move || serve(id))).collect();
    threads.into_iter().try_for_each(|t| t.join().expect("a worker"))
}

/// Serves until it is killed; a line on standard input asks how many connections each thread has had.
fn serve(name: &str, port: u16) -> io::Result<()> {
    thread::spawn(|| {
        for _ in io::stdin().lines() {
            println!("{} {}", ACCEPTED[0].load(Relaxed), ACCEPTED[1].load(Relaxed));
        }
    });
    match name {
        "waterspout" => waterspout(port, None),
        "waterspout-balancer" => waterspout(port, Some(Balancer::new())),
        "tokio-mt2" => tokio_mt(port),
        "tokio-two" => tokio_two(port),
        _ => Err(io::Error::other("waterspout, waterspout-balancer, tokio-mt2 or tokio-two")),
    }
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    /// Starts it, and waits until it has had a connection.
    fn start(name: &str, port: u16) -> io::Result<Server> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["serve", name, &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut server = Server(command.spawn()?);
        for _ in 0..200 {
            thread::sleep(std::time::Duration::from_millis(20));
            if let Some(status) = server.0.try_wait()? {
                return Err(io::Error::other(format!("the server ended: {status}")));
            }
            if let Ok(mut s) = TcpStream::connect(("127.0.0.1", port)) {
                s.write_all(b"x")?;
                s.read_exact(&mut [0])?;
                return Ok(server);
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    fn accepted(&mut self) -> io::Result<[f64; THREADS]> {
        writeln!(self.0.stdin.as_mut().unwrap())?;
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().unwrap()).read_line(&mut line)?;
        let counts: Vec<f64> = line.split_whitespace().map(|n| n.parse().unwrap()).collect();
        counts.try_into().map_err(|_| io::Error::other(line))
    }
}

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [name, conns] = match args.as_slice() {
        [serving, name, port] if serving == "serve" => {
            return serve(name, port.parse().expect("PORT"));
        }
        [name, conns] => [name, conns],
        _ => return Err(io::Error::other("usage: workers RUNTIME CONNECTIONS")),
    };
    let port = listen(0)?.local_addr()?.port();
    let mut server = Server::start(name, port)?;
    let before = server.accepted()?;
    let load = Command::new(std::env::current_exe()?.with_file_name("echo_load"))
        .arg(format!("127.0.0.1:{port}"))
        .args(["--conns", conns, "--size", "64", "--seconds", "2", "--pid"])
        .arg(server.0.id().to_string())
        .output()?;
    let printed = String::from_utf8_lossy(&load.stdout);
    let number = |name: &str| {
        let value =
            printed.split_whitespace().find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        value
            .and_then(|value| value.parse::<f64>().ok())
            .ok_or_else(|| io::Error::other(printed.to_string()))
    };
    if number("errors")? > 0.0 {
        return Err(io::Error::other(printed.to_string()));
    }
    print!(
        "cpu_us={} p50_us={} p99_us={}",
        number("cpu_us_per_req")?,
        number("p50_us")?,
        number("p99_us")?
    );
    let after = server.accepted()?;
    let [a, b] = [after[0] - before[0], after[1] - before[1]];
    if a + b > 0.0 {
        print!(" uneven={:.2}", a.max(b) / a.min(b).max(1.0));
    }
    println!();
    Ok(())
}
