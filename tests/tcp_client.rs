//! `TcpClient`, over the real loopback.

mod child;
mod common;

use std::cell::Cell;
use std::future::pending;
use std::io::{self, ErrorKind};
use std::net::{self, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use common::{LOOPBACK, kind, open, refusing, seconds};
use futures::FutureExt;
use futures::future::join_all;
use socket2::{Domain, SockRef, Socket, Type};
use waterspout::coroutine::{self, moment, sleep};
use waterspout::net::{BindOptions, Resolver, TcpClient, TcpListener, bind_sockets};
use waterspout::{Counters, IoLoop};

const LOOPBACK_V6: SocketAddr = SocketAddr::new(net::IpAddr::V6(Ipv6Addr::LOCALHOST), 0);

/// Always the same addresses, after a time.
struct Known(Vec<SocketAddr>, Duration);

impl Resolver for Known {
    async fn resolve(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        sleep(self.1).await;
        Ok(self.0.clone())
    }
}

fn known(addresses: impl IntoIterator<Item = SocketAddr>) -> TcpClient<Known> {
    TcpClient::new().resolver(Known(addresses.into_iter().collect(), Duration::ZERO))
}

/// An address that says nothing: somebody listens, with a backlog that is full. The system drops
/// further attempts, and they try again later by themselves.
struct BlackHole {
    address: SocketAddr,
    listener: Socket,
    clients: Vec<Socket>,
}

impl BlackHole {
    async fn new(address: SocketAddr) -> BlackHole {
        let (listener, address) = refusing(address);
        listener.listen(0).unwrap();
        let mut clients = Vec::new();
        loop {
            let client = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
            client.set_nonblocking(true).unwrap();
            let _ = client.connect(&address.into());
            // On the loopback it is connected by now, or will not be.
            let connected = client.peer_addr().is_ok();
            clients.push(client);
            if !connected {
                return BlackHole { address, listener, clients };
            }
        }
    }
}

/// What must not leak.
fn held() -> (u64, u64, u64) {
    let Counters { live, sources, pending_timers, .. } = IoLoop::current().counters();
    (live, sources, pending_timers)
}

// ---------------------------------------------------------------------------------------------
// Names and addresses

#[waterspout::test]
async fn a_name_and_numeric_addresses_are_connected_to() {
    let options = BindOptions { address: Some("localhost".into()), ..BindOptions::default() };
    let sockets = bind_sockets(0, &options).unwrap();
    let port = sockets[0].local_addr().unwrap().port();
    let stream = TcpClient::new().connect("localhost", port).await.unwrap();
    assert!(stream.peer_addr().unwrap().ip().is_loopback());
    for address in [LOOPBACK, LOOPBACK_V6] {
        let (_listener, address) = open(address);
        let host = address.ip().to_string();
        let stream = TcpClient::new().connect(&host, address.port()).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), address);
    }
}

#[waterspout::test]
async fn a_connection_works_in_both_directions() {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = coroutine::start(async move {
        let client = TcpClient::new().connect("127.0.0.1", port).await?;
        client.write_all(b"ping").await?;
        let mut answer = [0; 4];
        client.read_exact(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    });
    let (server, _) = listener.accept().await.unwrap();
    let mut asked = [0; 4];
    server.read_exact(&mut asked).await.unwrap();
    server.write_all(b"pong").await.unwrap();
    assert_eq!((&asked, &client.await.unwrap()), (b"ping", b"pong"));
}

#[waterspout::test]
async fn a_source_address_is_used() {
    let (_listener, address) = open(LOOPBACK);
    let source = SocketAddr::from(([127, 0, 0, 2], 0));
    let client = TcpClient::new().source(source);
    let stream = client.connect("127.0.0.1", address.port()).await.unwrap();
    assert_eq!(stream.local_addr().unwrap().ip(), source.ip());
    assert_eq!(stream.peer_addr().unwrap(), address);
}

#[waterspout::test]
async fn small_writes_are_sent_at_once_also_from_a_source_address() {
    let (_listener, address) = open(LOOPBACK);
    let source = SocketAddr::from(([127, 0, 0, 2], 0));
    for client in [TcpClient::new(), TcpClient::new().source(source)] {
        let stream = client.connect("127.0.0.1", address.port()).await.unwrap();
        assert!(stream.nodelay().unwrap());
    }
}

#[waterspout::test]
async fn a_source_port_is_used() {
    let (_listener, address) = open(LOOPBACK);
    // Free now; it is bound with SO_REUSEADDR on both sides, so nobody is in the way.
    let (socket, source) = refusing(SocketAddr::from(([127, 0, 0, 3], 0)));
    drop(socket);
    let client = TcpClient::new().source(source);
    let stream = client.connect("127.0.0.1", address.port()).await.unwrap();
    assert_eq!(stream.local_addr().unwrap(), source);
}

#[waterspout::test]
async fn a_source_address_that_is_not_ours_is_an_error() {
    let (_listener, address) = open(LOOPBACK);
    let before = held();
    // An address for documentation.
    let client = TcpClient::new().source("192.0.2.1:0".parse().unwrap());
    let error = kind(client.connect("127.0.0.1", address.port()).await);
    assert_eq!(error, ErrorKind::AddrNotAvailable);
    let (_listener, taken) = open(LOOPBACK);
    let client = TcpClient::new().source(taken);
    let error = kind(client.connect("127.0.0.1", address.port()).await);
    assert_eq!(error, ErrorKind::AddrInUse);
    assert_eq!(held(), before);
}

#[waterspout::test]
async fn addresses_of_another_family_than_the_source_are_not_tried() {
    let (six, address) = open(LOOPBACK_V6);
    six.set_nonblocking(true).unwrap();
    let client = known([address]).source(LOOPBACK);
    assert_eq!(kind(client.connect("name", 1).await), ErrorKind::AddrNotAvailable);
    assert_eq!(kind(six.accept()), ErrorKind::WouldBlock);
    let client = TcpClient::new().source(LOOPBACK);
    assert_eq!(kind(client.connect("::1", address.port()).await), ErrorKind::AddrNotAvailable);
}

// ---------------------------------------------------------------------------------------------
// Several addresses

#[waterspout::test]
async fn a_refused_connection_is_an_error_and_leaves_nothing() {
    let before = held();
    for address in [LOOPBACK, LOOPBACK_V6] {
        let (_closed, address) = refusing(address);
        let host = address.ip().to_string();
        let error = kind(TcpClient::new().connect(&host, address.port()).await);
        assert_eq!(error, ErrorKind::ConnectionRefused);
    }
    assert_eq!(held(), before);
}

#[waterspout::test]
async fn if_one_family_refuses_the_other_is_tried_at_once() {
    let (_listener, good) = open(LOOPBACK);
    let (_closed, bad) = refusing(LOOPBACK_V6);
    let before = held();
    let stream = known([bad, good]).connect("name", 1).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), good);
    drop(stream);
    assert_eq!(held(), before);
}

#[waterspout::test]
async fn all_addresses_are_tried_and_the_last_error_is_the_one() {
    let bad = [refusing(LOOPBACK), refusing(LOOPBACK_V6), refusing(LOOPBACK)];
    let (_listener, good) = open(LOOPBACK);
    let refusing = bad.iter().map(|(_, address)| *address);
    let stream = known(refusing.clone().chain([good])).connect("name", 1).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), good);
    let error = kind(known(refusing).connect("name", 1).await);
    assert_eq!(error, ErrorKind::ConnectionRefused);
}

#[waterspout::test(virtual_time)]
async fn if_one_family_is_silent_the_other_is_tried_beside_it_and_wins() {
    let hole = BlackHole::new(LOOPBACK_V6).await;
    let (_listener, good) = open(LOOPBACK);
    let (before, begun) = (held(), IoLoop::current().time());
    let stream = known([hole.address, good]).connect("name", 1).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), good);
    assert_eq!(IoLoop::current().time() - begun, Duration::from_millis(250));
    drop(stream);
    assert_eq!(held(), before, "the attempt that lost is closed");
}

#[waterspout::test(timeout = 60)]
async fn an_attempt_that_was_slow_may_still_win() {
    let mut hole = BlackHole::new(LOOPBACK_V6).await;
    let (_closed, bad) = refusing(LOOPBACK);
    let connecting = known([hole.address, bad]);
    let connecting = coroutine::start(async move { connecting.connect("name", 1).await });
    // By the time that the other one is refused.
    sleep(Duration::from_millis(300)).await;
    assert!(!connecting.done());
    // Room in the backlog: the system's next try, after a second, gets through.
    hole.clients.clear();
    hole.listener.set_nonblocking(true).unwrap();
    while hole.listener.accept().is_ok() {}
    assert_eq!(connecting.await.unwrap().peer_addr().unwrap(), hole.address);
}

// ---------------------------------------------------------------------------------------------
// Peers that go

#[waterspout::test]
async fn a_peer_that_goes_while_it_is_connected_to_refuses() {
    let hole = BlackHole::new(LOOPBACK).await;
    let before = held();
    let client = known([hole.address]);
    let mut connecting = Box::pin(client.connect("name", 1));
    while IoLoop::current().counters().sources == before.1 {
        assert!(connecting.as_mut().now_or_never().is_none());
        moment().await;
    }
    // The system's next try, after a second, finds nobody.
    drop(hole);
    assert_eq!(kind(connecting.await), ErrorKind::ConnectionRefused);
    assert_eq!(held(), before);
}

#[waterspout::test]
async fn a_peer_that_resets_before_the_connection_is_noticed_is_an_error() {
    let (listener, address) = open(LOOPBACK);
    let before = held();
    let client = known([address]);
    let mut connecting = Box::pin(client.connect("name", 1));
    while IoLoop::current().counters().sources == before.1 {
        assert!(connecting.as_mut().now_or_never().is_none());
        moment().await;
    }
    reset(listener.accept().unwrap().0);
    // Of the connect, or of what is done first if the system is late to tell.
    let error = match connecting.await {
        Ok(stream) => kind(stream.read(&mut [0; 1]).await),
        Err(error) => error.kind(),
    };
    assert_eq!(error, ErrorKind::ConnectionReset);
    assert_eq!(held(), before);
}

#[waterspout::test]
async fn a_peer_that_resets_at_once_is_an_error_of_the_first_read_or_write() {
    let (listener, address) = open(LOOPBACK);
    for reads in [true, false] {
        let stream = known([address]).connect("name", 1).await.unwrap();
        let reading = coroutine::start(async move {
            let first = stream.read(&mut [0; 1]).await;
            (first, stream)
        });
        moment().await;
        assert!(!reading.done());
        reset(listener.accept().unwrap().0);
        let (first, stream) = reading.await;
        assert_eq!(kind(first), ErrorKind::ConnectionReset);
        // It is told once, by the system; then there is the end, and nobody to write to.
        match reads {
            true => assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0),
            false => assert_eq!(kind(stream.write(b"x").await), ErrorKind::BrokenPipe),
        }
    }
}

/// Closes a connection with a reset.
fn reset(stream: net::TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

// ---------------------------------------------------------------------------------------------
// Time limits and cancelling

#[waterspout::test(virtual_time)]
async fn the_time_limit_ends_an_attempt_and_leaves_nothing() {
    let hole = BlackHole::new(LOOPBACK).await;
    let (before, begun) = (held(), IoLoop::current().time());
    let client = TcpClient::new().timeout(seconds(3));
    let error = client.connect("127.0.0.1", hole.address.port()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(error.to_string().contains("took longer than 3s"), "{error}");
    assert_eq!(IoLoop::current().time() - begun, seconds(3));
    assert_eq!(held(), before);
}

#[waterspout::test(virtual_time)]
async fn one_time_limit_covers_resolving_and_connecting() {
    let (one, other) = (BlackHole::new(LOOPBACK).await, BlackHole::new(LOOPBACK_V6).await);
    let (before, begun) = (held(), IoLoop::current().time());
    let resolver = Known(vec![one.address, other.address], seconds(2));
    let client = TcpClient::new().resolver(resolver).timeout(seconds(3));
    assert_eq!(kind(client.connect("name", 1).await), ErrorKind::TimedOut);
    assert_eq!(IoLoop::current().time() - begun, seconds(3));
    assert_eq!(held(), before);
    // Fast enough in both.
    let (_listener, good) = open(LOOPBACK);
    let resolver = Known(vec![good], seconds(2));
    TcpClient::new().resolver(resolver).timeout(seconds(3)).connect("name", 1).await.unwrap();
}

#[waterspout::test(virtual_time)]
async fn no_time_at_all_is_too_little_unless_nothing_takes_any() {
    let hole = BlackHole::new(LOOPBACK).await;
    let client = TcpClient::new().timeout(Duration::ZERO);
    let error = kind(client.connect("127.0.0.1", hole.address.port()).await);
    assert_eq!(error, ErrorKind::TimedOut);
}

#[waterspout::test(virtual_time)]
async fn dropping_it_closes_all_attempts() {
    let holes = [BlackHole::new(LOOPBACK_V6).await, BlackHole::new(LOOPBACK).await];
    let before = held();
    let client = known(holes.iter().map(|hole| hole.address));
    let mut connecting = Box::pin(client.connect("name", 1));
    while IoLoop::current().counters().sources == before.1 {
        assert!(connecting.as_mut().now_or_never().is_none());
        moment().await;
    }
    // The second is under way beside the first then.
    sleep(Duration::from_millis(250)).await;
    assert!(connecting.as_mut().now_or_never().is_none());
    assert_eq!(IoLoop::current().counters().sources, before.1 + 2);
    drop(connecting);
    assert_eq!(held(), before);
    let connecting = coroutine::start(async move { client.connect("name", 1).await });
    while IoLoop::current().counters().sources < before.1 + 1 {
        moment().await;
    }
    connecting.cancel();
    assert_eq!(held(), before);
}

#[test]
fn attempts_that_failed_were_late_or_were_given_up_leave_no_file_open() {
    child::alone("attempts_that_failed_were_late_or_were_given_up_leave_no_file_open", || {
        let io_loop = IoLoop::builder().virtual_time().build().unwrap();
        let ran = io_loop.run_sync(|| async {
            let hole = BlackHole::new(LOOPBACK_V6).await;
            let (_listener, good) = open(LOOPBACK);
            let (_closed, bad) = refusing(LOOPBACK);
            let before = child::open_files();
            let limit = seconds(1);
            for addresses in [vec![hole.address], vec![bad, bad], vec![hole.address, bad, good]] {
                for _ in 0..20 {
                    drop(known(addresses.clone()).timeout(limit).connect("name", 1).await);
                    drop(
                        known(addresses.clone())
                            .source(LOOPBACK_V6)
                            .connect("name", 1)
                            .now_or_never(),
                    );
                }
            }
            assert_eq!(child::open_files(), before);
        });
        ran.unwrap();
    });
}

#[waterspout::test]
async fn many_connect_at_once_by_one_client() {
    let listener = Rc::new(TcpListener::bind(LOOPBACK).await.unwrap());
    let port = listener.local_addr().unwrap().port();
    let accepted = Rc::new(Cell::new(0));
    let (accepting, counts) = (listener.clone(), accepted.clone());
    let server = coroutine::start(async move {
        let mut kept = Vec::new();
        while kept.len() < 100 {
            kept.push(accepting.accept().await.unwrap());
            counts.set(kept.len());
        }
        pending::<()>().await;
    });
    let client = TcpClient::new().timeout(seconds(5));
    let streams = join_all((0..100).map(|_| client.connect("localhost", port))).await;
    assert_eq!(streams.iter().filter(|stream| stream.is_ok()).count(), 100);
    while accepted.get() < 100 {
        moment().await;
    }
    server.cancel();
}
