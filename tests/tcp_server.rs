//! `TcpServer`, over the real loopback.

mod child;
mod common;

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::io::{self, ErrorKind, Read};
use std::net::{self, SocketAddr, SocketAddrV6};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{exceptions, link_local, turns, until};
use futures::future::join_all;
use waterspout::concurrent::promise;
use waterspout::coroutine::{self, moment, sleep, with_timeout};
use waterspout::iostream::{IoStream, Options};
use waterspout::net::{BindOptions, TcpServer, TcpStream, bind_sockets, pipe};
use waterspout::testing::ExpectLog;
use waterspout::{IoLoop, StreamError};

type Stream = IoStream<TcpStream>;

/// A listening socket on the loopback, and where it is.
fn listener() -> (Vec<net::TcpListener>, SocketAddr) {
    let options = BindOptions { address: Some("127.0.0.1".into()), ..BindOptions::default() };
    let sockets = bind_sockets(0, &options).unwrap();
    let address = sockets[0].local_addr().unwrap();
    (sockets, address)
}

/// Sends every line back.
async fn echo(stream: Stream, _peer: SocketAddr) {
    while let Ok(line) = stream.read_until(b"\n", 1024).await {
        stream.write(line);
    }
}

fn echo_server() -> (TcpServer, SocketAddr) {
    let (sockets, address) = listener();
    let server = TcpServer::new(echo);
    server.add_sockets(sockets).unwrap();
    (server, address)
}

async fn connect(address: SocketAddr) -> Stream {
    IoStream::new(TcpStream::connect(address).await.unwrap())
}

/// A line there and back.
async fn ask(stream: &Stream, line: &str) -> String {
    stream.write(format!("{line}\n"));
    let answer = stream.read_until(b"\n", 1024).await.unwrap();
    String::from_utf8(answer).unwrap().trim_end().to_owned()
}

#[waterspout::test]
async fn a_connection_is_handled() {
    let (server, address) = echo_server();
    let client = connect(address).await;
    assert_eq!(ask(&client, "hello").await, "hello");
    assert_eq!(ask(&client, "again").await, "again");
    assert_eq!((server.connections(), server.accepted()), (1, 1));
    client.close();
    until(|| server.connections() == 0).await;
    assert_eq!(server.accepted(), 1);
}

#[waterspout::test]
async fn the_handler_is_told_the_peer() {
    let (sockets, address) = listener();
    let server = TcpServer::new(|stream: Stream, peer: SocketAddr| async move {
        stream.write(format!("{peer}\n")).await
    });
    server.add_sockets(sockets).unwrap();
    let client = connect(address).await;
    let own = client.with_io(|io| io.local_addr().unwrap()).unwrap();
    assert_eq!(ask(&client, "").await, own.to_string());
}

#[waterspout::test]
async fn connections_send_small_writes_at_once_unless_their_sockets_were_bound_otherwise() {
    let server = TcpServer::new(|stream: Stream, _| async move {
        let nodelay = stream.with_io(|io| io.nodelay().unwrap()).unwrap();
        stream.write(format!("{nodelay}\n")).await
    });
    let loopback = BindOptions { address: Some("127.0.0.1".into()), ..BindOptions::default() };
    let sockets = bind_sockets(0, &BindOptions { nodelay: false, ..loopback }).unwrap();
    let nagle = sockets[0].local_addr().unwrap();
    server.add_sockets(sockets).unwrap();
    let port = server.listen_on("127.0.0.1", 0).unwrap();
    assert_eq!(ask(&connect(nagle).await, "").await, "false");
    assert_eq!(ask(&connect(SocketAddr::from(([127, 0, 0, 1], port))).await, "").await, "true");
}

#[waterspout::test]
async fn a_handler_can_take_its_stream_apart_and_hand_it_on() {
    let (sockets, address) = listener();
    let (send, handed) = promise();
    let send = Cell::new(Some(send));
    let server = TcpServer::new(move |stream: Stream, _| {
        let send = send.take().unwrap();
        async move {
            assert_eq!(stream.read_until(b"\n", 100).await?, b"CONNECT\n");
            stream.write("ok\n").await?;
            let (socket, received) = stream.into_inner()?;
            send.set_result((Rc::new(socket), received));
            Ok::<(), io::Error>(())
        }
    });
    server.add_sockets(sockets).unwrap();
    let client = connect(address).await;
    client.write("CONNECT\nhello");
    assert_eq!(client.read_until(b"\n", 100).await.unwrap(), b"ok\n");
    let (socket, received) = handed.await.unwrap();
    assert_eq!(received, b"hello");
    until(|| server.connections() == 0).await;
    // The server has no part in it any more.
    drop(server);
    socket.write_all(b"and on\n").await.unwrap();
    assert_eq!(client.read_until(b"\n", 100).await.unwrap(), b"and on\n");
}

#[waterspout::test]
async fn several_ports_and_families_are_served() {
    let options = BindOptions { address: Some("localhost".into()), ..BindOptions::default() };
    let sockets = bind_sockets(0, &options).unwrap();
    let mut addresses: Vec<_> = sockets.iter().map(|s| s.local_addr().unwrap()).collect();
    let server = TcpServer::new(echo);
    server.add_sockets(sockets).unwrap();
    let (more, address) = listener();
    addresses.push(address);
    server.add_sockets(more).unwrap();
    for (n, address) in addresses.iter().enumerate() {
        let client = connect(*address).await;
        assert_eq!(ask(&client, &n.to_string()).await, n.to_string());
    }
    assert_eq!(server.accepted(), addresses.len() as u64);
}

#[waterspout::test]
async fn a_server_listens_on_an_address_with_its_scope() {
    let Some((ip, scope, interface)) = link_local() else { return };
    for host in [format!("{ip}%{scope}"), format!("{ip}%{interface}"), format!("[{ip}%{scope}]")] {
        let server = TcpServer::new(echo);
        let port = server.listen_on(&host, 0).unwrap();
        let client = connect(SocketAddrV6::new(ip, port, 0, scope).into()).await;
        assert_eq!(ask(&client, &host).await, host);
    }
}

#[waterspout::test]
async fn connections_that_waited_before_the_server_was_there_are_served() {
    let (sockets, address) = listener();
    let client = connect(address).await;
    client.write("early\n");
    let server = TcpServer::new(echo);
    server.add_sockets(sockets).unwrap();
    assert_eq!(client.read_until(b"\n", 99).await.unwrap(), b"early\n");
}

#[waterspout::test]
async fn the_limits_of_streams_are_those_that_were_set() {
    let (sockets, address) = listener();
    let limits = Options { max_buffer_size: 8, ..Options::default() };
    let server = TcpServer::new(echo).stream_options(limits);
    server.add_sockets(sockets).unwrap();
    let client = connect(address).await;
    assert_eq!(ask(&client, "short").await, "short");
    client.write("too long for it\n");
    // It may be a reset, for the server has not read all.
    assert!(client.read_until_close().await.map_or(true, |rest| rest.is_empty()));
}

// ---------------------------------------------------------------------------------------------
// Stopping

#[waterspout::test]
async fn stop_closes_the_listeners_and_connections_go_on() {
    let (server, address) = echo_server();
    let client = connect(address).await;
    assert_eq!(ask(&client, "before").await, "before");
    server.stop();
    let refused = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(ask(&client, "after").await, "after");
}

#[waterspout::test]
async fn stopping_twice_does_no_harm() {
    let (server, _) = echo_server();
    let sources = IoLoop::current().counters().sources;
    server.stop();
    assert_eq!(IoLoop::current().counters().sources, sources - 1);
    // Takes the number of the fd that was closed.
    let (reader, address) = echo_server();
    server.stop();
    assert_eq!(ask(&connect(address).await, "still").await, "still");
    drop(reader);
}

#[waterspout::test]
async fn a_server_that_was_stopped_can_listen_again() {
    let (server, _) = echo_server();
    server.stop();
    let (sockets, address) = listener();
    server.add_sockets(sockets).unwrap();
    assert_eq!(ask(&connect(address).await, "again").await, "again");
}

#[waterspout::test]
async fn stopped_before_it_ran_it_accepts_nothing() {
    let (sockets, address) = listener();
    let _waiting = net::TcpStream::connect(address).unwrap();
    let server = TcpServer::new(echo);
    server.add_sockets(sockets).unwrap();
    server.stop();
    turns(10).await;
    assert_eq!(server.accepted(), 0);
}

/// A server whose first connection does something to it.
fn server_with(
    act: impl Fn(&RefCell<Option<TcpServer>>) + 'static,
) -> (Rc<RefCell<Option<TcpServer>>>, SocketAddr) {
    let (sockets, address) = listener();
    let place = Rc::new(RefCell::new(None));
    let inner = place.clone();
    let server = TcpServer::new(move |stream: Stream, _| {
        act(&inner);
        async move {
            let _ = stream.read_until_close().await;
        }
    });
    server.add_sockets(sockets).unwrap();
    *place.borrow_mut() = Some(server);
    (place, address)
}

#[waterspout::test]
async fn a_handler_that_stops_the_server_is_the_last() {
    let (server, address) =
        server_with(|server| server.borrow().as_ref().expect("it is there").stop());
    // All of them wait when the first is accepted.
    let clients: Vec<_> = (0..40).map(|_| net::TcpStream::connect(address).unwrap()).collect();
    until(|| server.borrow().as_ref().unwrap().accepted() > 0).await;
    turns(10).await;
    let accepted = server.borrow().as_ref().unwrap().accepted();
    assert_eq!(accepted, 1);
    drop(clients);
    // It holds the place that holds it.
    server.take();
}

#[waterspout::test]
async fn a_server_that_is_stopped_by_a_connection_that_waited_for_it_stops() {
    let (sockets, address) = listener();
    let clients: Vec<_> = (0..3).map(|_| net::TcpStream::connect(address).unwrap()).collect();
    let place: Rc<RefCell<std::rc::Weak<TcpServer>>> = Rc::default();
    let inner = place.clone();
    let server = Rc::new(TcpServer::new(move |_: Stream, _| {
        if let Some(server) = inner.borrow().upgrade() {
            server.stop();
        }
        std::future::pending::<()>()
    }));
    *place.borrow_mut() = Rc::downgrade(&server);
    server.add_sockets(sockets).unwrap();
    until(|| server.accepted() > 0).await;
    turns(10).await;
    assert_eq!(server.accepted(), 1);
    let refused = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    drop(clients);
}

#[waterspout::test]
async fn nothing_is_accepted_after_stop_although_the_event_was_polled() {
    for before in [true, false] {
        let (server, stopper);
        let (sockets, address) = listener();
        let (writer, reader) = pipe::pair().unwrap();
        let new = || {
            let server = TcpServer::new(echo);
            server.add_sockets(sockets).unwrap();
            Rc::new(server)
        };
        let at_stop = Rc::new(Cell::new(None));
        let stop = |server: &Rc<TcpServer>| {
            let (server, at_stop) = (server.clone(), at_stop.clone());
            coroutine::start(async move {
                reader.read(&mut [0; 1]).await.unwrap();
                server.stop();
                at_stop.set(Some(server.accepted()));
            })
        };
        server = new();
        stopper = stop(&server);
        turns(3).await;
        // Both become ready now, and the loop hears of both at once, in some order.
        let connect = || net::TcpStream::connect(address).unwrap();
        let early = before.then(connect);
        writer.try_write(b"!").unwrap();
        let late = (!before).then(connect);
        stopper.await;
        turns(10).await;
        assert_eq!(Some(server.accepted()), at_stop.get());
        drop((early, late));
    }
}

#[waterspout::test]
async fn drain_waits_for_the_connections() {
    let (server, address) = echo_server();
    let client = connect(address).await;
    assert_eq!(ask(&client, "one").await, "one");
    let server = Rc::new(server);
    let draining = {
        let server = server.clone();
        coroutine::start(async move { server.drain(Duration::from_secs(3600)).await })
    };
    assert_eq!(ask(&client, "two").await, "two");
    assert!(!draining.done());
    let refused = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    client.close();
    assert_eq!(draining.await, 0);
}

#[waterspout::test(virtual_time)]
async fn drain_ends_what_is_left_at_the_deadline() {
    let (server, address) = echo_server();
    let clients = join_all((0..3).map(|_| connect(address))).await;
    for client in &clients {
        assert_eq!(ask(client, "hello").await, "hello");
    }
    clients[0].close();
    let begun = IoLoop::current().time();
    assert_eq!(server.drain(Duration::from_secs(60)).await, 2);
    assert_eq!(IoLoop::current().time() - begun, Duration::from_secs(60));
    assert_eq!(server.connections(), 0);
    for client in &clients[1..] {
        assert_eq!(client.read_until_close().await.unwrap(), b"");
    }
    assert_eq!(server.drain(Duration::ZERO).await, 0, "there is nobody left");
}

#[waterspout::test(virtual_time)]
async fn a_drain_that_is_given_up_leaves_the_connections_alone() {
    let (server, address) = echo_server();
    let client = connect(address).await;
    assert_eq!(ask(&client, "one").await, "one");
    let drain = server.drain(Duration::from_secs(60));
    assert!(with_timeout(Duration::from_secs(1), drain).await.is_err());
    assert_eq!(ask(&client, "two").await, "two");
}

#[waterspout::test]
async fn dropping_a_server_ends_its_connections() {
    let (server, address) = echo_server();
    let client = connect(address).await;
    assert_eq!(ask(&client, "one").await, "one");
    drop(server);
    assert_eq!(client.read_until_close().await.unwrap(), b"");
    let refused = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[waterspout::test]
async fn a_handler_that_drops_the_server_ends_with_it() {
    let (server, address) = server_with(|server| drop(server.borrow_mut().take()));
    let live = IoLoop::current().counters().live;
    let client = connect(address).await;
    // Its own connection, too.
    assert_eq!(client.read_until_close().await.unwrap(), b"");
    assert!(server.borrow().is_none());
    until(|| IoLoop::current().counters().live < live).await;
}

/// A handler that writes a lot, and does not wait for it.
fn lavish_server(bytes: usize) -> (TcpServer, SocketAddr) {
    let (sockets, address) = listener();
    let server = TcpServer::new(move |stream: Stream, _| async move {
        stream.write(vec![b'x'; bytes]);
    });
    server.add_sockets(sockets).unwrap();
    (server, address)
}

#[waterspout::test]
async fn drain_waits_until_what_was_written_has_been_sent() {
    const BYTES: usize = 32 << 20;
    let (server, address) = lavish_server(BYTES);
    let client = connect(address).await;
    until(|| server.accepted() == 1).await;
    assert_eq!(server.connections(), 1, "its handler is done, and it is not");
    let reading = coroutine::start(async move {
        let mut read = 0;
        while let Ok(chunk) = client.read_some(1 << 20).await {
            read += chunk.len();
        }
        read
    });
    assert_eq!(server.drain(Duration::from_secs(60)).await, 0);
    drop(server);
    assert_eq!(reading.await, BYTES);
}

#[waterspout::test(virtual_time)]
async fn drain_cuts_off_who_does_not_take_what_was_written() {
    let (server, address) = lavish_server(64 << 20);
    let client = connect(address).await;
    until(|| server.accepted() == 1).await;
    assert_eq!(server.drain(Duration::from_secs(60)).await, 1);
    assert_eq!(server.connections(), 0);
    let mut read = 0;
    while let Ok(chunk) = client.read_some(1 << 20).await {
        read += chunk.len();
    }
    assert!(read < 64 << 20, "all of it arrived");
}

#[waterspout::test(virtual_time)]
async fn a_connection_has_its_place_until_what_was_written_has_been_sent() {
    let (sockets, address) = listener();
    let server = TcpServer::new(|stream: Stream, _| async move {
        stream.write(vec![b'x'; 16 << 20]);
    });
    let server = server.max_connections(1);
    server.add_sockets(sockets).unwrap();
    let clients = join_all((0..2).map(|_| connect(address))).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(server.accepted(), 1);
    let (one, other) = (clients[0].read_until_close(), clients[1].read_until_close());
    assert_eq!(one.await.unwrap().len() + other.await.unwrap().len(), 32 << 20);
}

#[waterspout::coroutine]
async fn echo_as_a_coroutine(stream: Stream) -> Result<(), StreamError> {
    loop {
        let line = stream.read_until(b"\n", 1024).await?;
        stream.write(line).await?;
    }
}

#[waterspout::test(virtual_time)]
async fn a_server_that_was_drained_and_dropped_serves_nobody() {
    for drains in [true, false] {
        let (sockets, address) = listener();
        let server = TcpServer::new(|stream, _| echo_as_a_coroutine(stream));
        server.add_sockets(sockets).unwrap();
        let client = connect(address).await;
        assert_eq!(ask(&client, "one").await, "one");
        if drains {
            assert_eq!(server.drain(Duration::from_secs(1)).await, 1);
            assert_eq!(server.connections(), 0);
        }
        drop(server);
        client.write("two\n");
        let answer = client.read_until(b"\n", 1024).await;
        assert!(matches!(answer, Err(StreamError::Closed(_))), "{answer:?}");
    }
}

#[waterspout::test(virtual_time)]
async fn a_handler_whose_stream_was_given_away_has_ended_and_the_stream_has_not() {
    let (sockets, address) = listener();
    let room = Rc::new(RefCell::new(Vec::new()));
    let joined = room.clone();
    let server = TcpServer::new(move |stream: Stream, _| {
        joined.borrow_mut().push(stream);
        async {}
    });
    server.add_sockets(sockets).unwrap();
    let client = connect(address).await;
    until(|| !room.borrow().is_empty() && server.connections() == 0).await;
    assert_eq!(server.drain(Duration::from_secs(1)).await, 0);
    room.borrow()[0].write("still there\n");
    assert_eq!(client.read_until(b"\n", 99).await.unwrap(), b"still there\n");
}

#[waterspout::test(virtual_time)]
async fn drains_within_handlers_and_beside_each_other_all_end() {
    let (sockets, address) = listener();
    let own = Rc::new(RefCell::new(None::<Rc<TcpServer>>));
    let (within, drained) = (own.clone(), Rc::new(Cell::new(None)));
    let left = drained.clone();
    let server = TcpServer::new(move |stream: Stream, _| {
        let (server, left) = (within.borrow().clone().unwrap(), left.clone());
        async move {
            stream.read_bytes(1).await?;
            // It waits for itself, and is cancelled by itself.
            left.set(Some(server.drain(Duration::from_secs(2)).await));
            moment().await;
            left.set(None);
            Ok::<(), StreamError>(())
        }
    });
    let server = Rc::new(server);
    *own.borrow_mut() = Some(server.clone());
    server.add_sockets(sockets).unwrap();
    let client = connect(address).await;
    client.write("!");
    until(|| server.connections() == 1).await;
    let draining: Vec<_> = (3..6)
        .map(|seconds| {
            let server = server.clone();
            coroutine::start(async move { server.drain(Duration::from_secs(seconds)).await })
        })
        .collect();
    for drain in draining {
        assert_eq!(drain.await, 0);
    }
    assert_eq!(drained.get(), Some(1));
    assert_eq!(client.read_until_close().await.unwrap(), b"");
    own.take();
}

#[test]
fn closing_the_loop_while_a_server_drains_ends_all_of_it() {
    let io_loop = IoLoop::builder().virtual_time().build().unwrap();
    let client = io_loop.run_sync(|| async {
        let (server, address) = lavish_server(64 << 20);
        let client = net::TcpStream::connect(address).unwrap();
        until(|| server.connections() == 1).await;
        drop(coroutine::spawn(async move { server.drain(Duration::from_secs(3600)).await }));
        moment().await;
        client
    });
    io_loop.close();
    let mut client = client.unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let ended = io::copy(&mut client, &mut io::sink());
    let reset = |error: io::Error| assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let _ = ended.map_err(reset);
}

// ---------------------------------------------------------------------------------------------
// How many

#[waterspout::test]
async fn beyond_the_limit_connections_wait_and_are_served_later() {
    let (sockets, address) = listener();
    let server = TcpServer::new(echo).max_connections(2);
    server.add_sockets(sockets).unwrap();
    let clients = join_all((0..4).map(|_| connect(address))).await;
    for (n, client) in clients.iter().enumerate() {
        client.write(format!("{n}\n"));
    }
    assert_eq!(clients[0].read_until(b"\n", 99).await.unwrap(), b"0\n");
    assert_eq!(clients[1].read_until(b"\n", 99).await.unwrap(), b"1\n");
    turns(20).await;
    assert_eq!((server.connections(), server.accepted()), (2, 2));
    clients[1].close();
    assert_eq!(clients[2].read_until(b"\n", 99).await.unwrap(), b"2\n");
    clients[0].close();
    assert_eq!(clients[3].read_until(b"\n", 99).await.unwrap(), b"3\n");
    turns(20).await;
    assert_eq!((server.connections(), server.accepted()), (2, 4));
}

#[waterspout::test]
async fn the_limit_is_one_for_all_listeners_and_none_of_them_keeps_it() {
    let (one, first) = listener();
    let (other, second) = listener();
    let server = TcpServer::new(echo).max_connections(1);
    server.add_sockets(one.into_iter().chain(other)).unwrap();
    turns(5).await;
    for address in [second, first, second, second, first] {
        let client = connect(address).await;
        assert_eq!(ask(&client, "hello").await, "hello");
        let waiting = connect(if address == first { second } else { first }).await;
        waiting.write("later\n");
        turns(20).await;
        assert_eq!(server.connections(), 1);
        client.close();
        assert_eq!(waiting.read_until(b"\n", 99).await.unwrap(), b"later\n");
        waiting.close();
        until(|| server.connections() == 0).await;
    }
}

#[waterspout::test]
async fn a_handler_that_panics_gives_its_place_back() {
    let expected = ExpectLog::new("waterspout", "exception in a connection handler");
    let (sockets, address) = listener();
    let server = TcpServer::new(|stream: Stream, peer| async move {
        if stream.read_until(b"\n", 99).await.is_ok_and(|line| line == b"panic\n") {
            panic!("as asked");
        }
        echo(stream, peer).await;
    });
    let server = server.max_connections(1);
    server.add_sockets(sockets).unwrap();
    for _ in 0..3 {
        let client = connect(address).await;
        client.write("panic\n");
        assert_eq!(client.read_until_close().await.unwrap(), b"");
    }
    let client = connect(address).await;
    client.write("calm\n");
    assert_eq!(ask(&client, "hello").await, "hello");
    assert_eq!((server.connections(), server.accepted()), (1, 4));
    assert_eq!(expected.count(), 3);
}

#[waterspout::test]
async fn a_crowd_at_the_door_does_not_keep_the_others_waiting() {
    let (sockets, address) = listener();
    let clients: Vec<_> = (0..900).map(|_| net::TcpStream::connect(address).unwrap()).collect();
    let server = TcpServer::new(|_: Stream, _| std::future::pending::<()>());
    server.add_sockets(sockets).unwrap();
    let (mut before, mut most) = (0, 0);
    while server.accepted() < 900 {
        moment().await;
        most = most.max(server.accepted() - before);
        before = server.accepted();
    }
    assert!(most <= 300, "{most} of 900 in one turn");
    drop(clients);
}

// ---------------------------------------------------------------------------------------------
// What goes wrong

#[test]
fn errors_and_panics_of_a_handler_are_reported_with_the_peer_and_the_server_goes_on() {
    let peers = Rc::new(RefCell::new(Vec::new()));
    let told = peers.clone();
    let exceptions = exceptions(IoLoop::builder(), || async move {
        let (sockets, address) = listener();
        let server = TcpServer::new(|stream: Stream, _| async move {
            match &*stream.read_until(b"\n", 99).await? {
                b"error\n" => Err(io::Error::other("no luck")),
                b"panic\n" => panic!("no calm"),
                _ => stream.write("fine\n").await.map_err(io::Error::other),
            }
        });
        server.add_sockets(sockets).unwrap();
        for word in ["error\n", "panic\n"] {
            let client = connect(address).await;
            let own = client.with_io(|io| io.local_addr().unwrap()).unwrap();
            told.borrow_mut().push(own.to_string());
            client.write(word);
            assert_eq!(client.read_until_close().await.unwrap(), b"");
        }
        assert_eq!(ask(&connect(address).await, "else").await, "fine");
    });
    assert_eq!(exceptions.len(), 2, "{exceptions:?}");
    let what = ["no luck", "panicked: no calm"];
    for ((exception, peer), what) in exceptions.iter().zip(peers.take()).zip(what) {
        assert!(exception.contains("a connection handler"), "{exception}");
        assert!(exception.contains(what) && exception.contains(&peer), "{exception}");
    }
}

#[test]
fn a_client_that_hangs_up_is_reported_to_nobody() {
    fn hang_up<F, O>(handle: impl Fn(Stream) -> F + 'static) -> Vec<String>
    where
        F: Future<Output = Result<(), O>> + 'static,
        O: std::fmt::Debug + 'static,
    {
        exceptions(IoLoop::builder(), || async move {
            let (sockets, address) = listener();
            let server = TcpServer::new(move |stream, _| handle(stream));
            server.add_sockets(sockets).unwrap();
            for _ in 0..3 {
                let client = connect(address).await;
                assert_eq!(ask(&client, "hello").await, "hello");
            }
            until(|| server.accepted() == 3 && server.connections() == 0).await;
        })
    }
    // The error by itself, and as what `?` makes of it.
    async fn echoes<E: From<StreamError>>(stream: Stream) -> Result<(), E> {
        loop {
            let line = stream.read_until(b"\n", 1024).await?;
            stream.write(line).await?;
        }
    }
    const NOTHING: [&str; 0] = [];
    assert_eq!(hang_up(echoes::<StreamError>), NOTHING);
    assert_eq!(hang_up(echoes::<io::Error>), NOTHING);
    assert_eq!(hang_up(echoes::<Box<dyn Error>>), NOTHING);
    assert_eq!(hang_up(echoes::<Box<dyn Error + Send + Sync>>), NOTHING);
    assert_eq!(hang_up(echo_as_a_coroutine), NOTHING);
    // What is an error of the handler's own, or has closed the stream, is one.
    let eof = |_| async { Err(io::Error::from(ErrorKind::UnexpectedEof)) };
    assert_eq!(hang_up_reports(eof), 1);
    let limit = |stream: Stream| async move { stream.read_until(b"\n", 2).await.map(drop) };
    assert_eq!(hang_up_reports(limit), 1);
}

#[test]
fn a_connection_that_was_reset_is_reported() {
    let told = exceptions(IoLoop::builder(), || async {
        let (sockets, address) = listener();
        let server =
            TcpServer::new(|stream: Stream, _| async move { stream.read_bytes(1).await.map(drop) });
        server.add_sockets(sockets).unwrap();
        let client = connect(address).await;
        until(|| server.connections() == 1).await;
        let reset = |io: &TcpStream| {
            socket2::SockRef::from(io).set_linger(Some(Duration::ZERO)).unwrap();
        };
        client.with_io(reset).unwrap();
        client.close();
        until(|| server.connections() == 0).await;
    });
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("reset"), "{told:?}");
}

/// How often it is reported that a handler ended as it does after a line of a client.
fn hang_up_reports<F, E>(handle: impl Fn(Stream) -> F + 'static) -> usize
where
    F: Future<Output = Result<(), E>> + 'static,
    E: std::fmt::Debug + 'static,
{
    let told = exceptions(IoLoop::builder(), || async move {
        let (sockets, address) = listener();
        let server = TcpServer::new(move |stream, _| handle(stream));
        server.add_sockets(sockets).unwrap();
        let client = connect(address).await;
        client.write("a line\n");
        client.closed().await;
    });
    told.len()
}

#[test]
fn a_panic_before_the_handler_has_made_its_future_is_reported_with_the_peer_too() {
    let exceptions = exceptions(IoLoop::builder(), || async {
        let (sockets, address) = listener();
        let calls = Cell::new(0);
        let server = TcpServer::new(move |stream: Stream, peer| {
            calls.set(calls.get() + 1);
            assert!(calls.get() > 1, "too early");
            echo(stream, peer)
        });
        server.add_sockets(sockets).unwrap();
        let client = connect(address).await;
        assert_eq!(client.read_until_close().await.unwrap(), b"");
        assert_eq!(ask(&connect(address).await, "later").await, "later");
    });
    let [exception] = &exceptions[..] else { panic!("{exceptions:?}") };
    assert!(exception.contains("a connection handler"), "{exception}");
    assert!(exception.contains("too early") && exception.contains("127.0.0.1:"), "{exception}");
}

#[waterspout::test]
async fn a_client_that_resets_its_connection_while_it_waits_disturbs_nobody() {
    let (sockets, address) = listener();
    for _ in 0..10 {
        let client = net::TcpStream::connect(address).unwrap();
        socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    }
    let server = TcpServer::new(echo);
    server.add_sockets(sockets).unwrap();
    assert_eq!(ask(&connect(address).await, "hello").await, "hello");
    until(|| server.connections() <= 1).await;
}

// ---------------------------------------------------------------------------------------------
// Too many open files

/// Counts the lines of the log.
struct Counting;

static LINES: AtomicUsize = AtomicUsize::new(0);

impl log::Log for Counting {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.target() == "waterspout::net" && record.level() <= log::Level::Warn {
            LINES.fetch_add(1, Ordering::Relaxed);
            child::say(format!("log {}", record.args()));
        }
    }

    fn flush(&self) {}
}

/// Serves with few files until standard input ends; tells its address, and what it counted.
fn serve_with_few_files(most: u64) {
    log::set_logger(&Counting).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    child::limit_open_files(most);
    let io_loop = IoLoop::new().unwrap();
    let result = io_loop.run_sync(|| async {
        let (sockets, address) = listener();
        let served = Rc::new(Cell::new(0u32));
        let counts = served.clone();
        let server = TcpServer::new(move |stream: Stream, _| {
            let counts = counts.clone();
            async move {
                if let Ok(byte) = stream.read_bytes(1).await {
                    counts.set(counts.get() + 1);
                    let _ = stream.write(byte).await;
                    let _ = stream.read_until_close().await;
                }
            }
        });
        server.add_sockets(sockets).unwrap();
        child::say(address);
        let input = async {
            let mut input = pipe::PipeReader::try_from(rustix::io::dup(io::stdin()).unwrap())?;
            let mut byte = [0; 1];
            // Each byte asks how often the loop has turned, and how many timers have fired.
            while futures::AsyncReadExt::read(&mut input, &mut byte).await? > 0 {
                let counters = IoLoop::current().counters();
                child::say(format!("{} {}", counters.turns, counters.timers));
            }
            Ok::<(), io::Error>(())
        };
        input.await.unwrap();
        child::say(format!("{} {}", server.accepted(), served.get()));
        child::say(LINES.load(Ordering::Relaxed));
    });
    result.unwrap();
}

impl child::Child {
    /// [`hear`](child::Child::hear), past the log.
    fn hear_past_the_log(&mut self) -> String {
        loop {
            let heard = self.hear();
            if !heard.starts_with("log ") {
                return heard;
            }
        }
    }

    /// How often its loop has turned, and how many timers have fired.
    fn turns_and_timers(&mut self) -> (u64, u64) {
        io::Write::write_all(self.process.stdin.as_mut().unwrap(), b"?").unwrap();
        let heard = self.hear_past_the_log();
        let (turns, timers) = heard.split_once(' ').unwrap();
        (turns.parse().unwrap(), timers.parse().unwrap())
    }

    /// Sees that it sleeps while it pauses: it turns a few times when a pause ends and when it is asked,
    /// however long this takes.
    async fn is_idle(&mut self) {
        let (turns, timers) = self.turns_and_timers();
        sleep(Duration::from_millis(700)).await;
        let (turns_after, timers_after) = self.turns_and_timers();
        let (turned, pauses) = (turns_after - turns, timers_after - timers);
        assert!(turned <= 5 * pauses + 20, "{turned} turns in {pauses} pauses");
    }
}

#[test]
fn without_file_descriptors_accepting_pauses_and_goes_on_by_itself() {
    let test = "without_file_descriptors_accepting_pauses_and_goes_on_by_itself";
    if child::is_child(test) {
        return serve_with_few_files(64);
    }
    let mut server = child::Child::start(test);
    let address: SocketAddr = server.hear().parse().unwrap();
    let io_loop = IoLoop::new().unwrap();
    let ran = io_loop.run_sync(|| async {
        let mut clients: Vec<_> = join_all((0..100).map(|_| connect(address))).await;
        let log = server.hear();
        assert!(log.contains(&format!("accepting on {address} pauses")), "{log}");
        assert!(log.contains("connections are served on"), "{log}");

        // Those that it has are served meanwhile, and the loop sleeps otherwise.
        server.is_idle().await;
        clients[0].write("a");
        assert_eq!(clients[0].read_bytes(1).await.unwrap(), b"a");

        // The last one is served as soon as others have gone.
        let last = clients.pop().unwrap();
        last.write("z");
        drop(clients);
        assert_eq!(last.read_bytes(1).await.unwrap(), b"z");
    });
    ran.unwrap();
    drop(server.process.stdin.take());
    assert_eq!(server.hear_past_the_log(), "100 2");
    assert_eq!(server.hear_past_the_log(), "1", "a line each time is a flood");
    let (status, said) = server.end();
    assert!(status.success(), "{said}");
}

#[test]
fn without_a_logger_a_pause_and_what_fails_are_told_on_standard_error() {
    let test = "without_a_logger_a_pause_and_what_fails_are_told_on_standard_error";
    if child::is_child(test) {
        child::limit_open_files(64);
        let serve = || async {
            let (sockets, address) = listener();
            let server = TcpServer::new(|stream: Stream, _| async move {
                stream.read_bytes(1).await.map(drop)?;
                Err(io::Error::other("no luck"))
            });
            server.add_sockets(sockets).unwrap();
            let clients: Vec<_> = join_all((0..40).map(|_| TcpStream::connect(address))).await;
            clients[0].as_ref().unwrap().write_all(b"!").await.unwrap();
            sleep(Duration::from_millis(300)).await;
        };
        return IoLoop::new().unwrap().run_sync(serve).unwrap();
    }
    let (status, told) = child::Child::start(test).end();
    assert!(status.success(), "{told}");
    assert_eq!(told.matches("pauses: ").count(), 1, "{told}");
    assert_eq!(told.matches("exception in a connection handler `").count(), 1, "{told}");
}

#[test]
fn twenty_thousand_connections_on_256_file_descriptors_are_all_served() {
    const BATCH: usize = 500;
    const BATCHES: usize = 40;
    let test = "twenty_thousand_connections_on_256_file_descriptors_are_all_served";
    if child::is_child(test) {
        return serve_with_few_files(256);
    }
    let mut server = child::Child::start(test);
    let address: SocketAddr = server.hear().parse().unwrap();
    let begun = Instant::now();
    let io_loop = IoLoop::new().unwrap();
    let ran = io_loop.run_sync(|| async {
        for batch in 0..BATCHES {
            // All are connected before the first says anything, so the server has to pause.
            let connecting = join_all((0..BATCH).map(|_| async {
                let stream = TcpStream::connect(address).await.unwrap();
                // A reset at the end, so that ports are free again at once.
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                stream
            }));
            let clients = connecting.await;
            if batch == 0 {
                let log = server.hear();
                assert!(log.contains(&format!("accepting on {address} pauses")), "{log}");
                server.is_idle().await;
            }
            let asking = clients.into_iter().map(|stream| async move {
                stream.write_all(b"x").await.unwrap();
                let mut byte = [0; 1];
                stream.read_exact(&mut byte).await.unwrap();
                assert_eq!(&byte, b"x");
            });
            join_all(asking).await;
        }
    });
    ran.unwrap();
    drop(server.process.stdin.take());
    let all = BATCH * BATCHES;
    assert_eq!(server.hear_past_the_log(), format!("{all} {all}"));
    let lines: u64 = server.hear_past_the_log().parse().unwrap();
    // One in half a minute, so the longer it takes, the more there may be.
    let most = 1 + begun.elapsed().as_secs() / 30;
    assert!((1..=most).contains(&lines), "{lines} lines in {:?}", begun.elapsed());
    let (status, said) = server.end();
    assert!(status.success(), "{said}");
}

#[test]
fn a_server_leaves_no_file_open() {
    child::alone("a_server_leaves_no_file_open", || {
        let io_loop = IoLoop::new().unwrap();
        let before = child::open_files();
        let ran = io_loop.run_sync(|| async {
            let (server, address) = echo_server();
            let clients = join_all((0..5).map(|_| connect(address))).await;
            for client in &clients {
                ask(client, "hello").await;
            }
            let mut waits = net::TcpStream::connect(address).unwrap();
            drop((server, clients));
            // The one that was never accepted is told, too.
            let end = waits.read(&mut [0; 1]);
            assert!(!matches!(end, Ok(1)), "{end:?}");
        });
        ran.unwrap();
        assert_eq!(child::open_files(), before);
    });
}
