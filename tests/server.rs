//! `Server`: any stream, any listener, and handshakes on the way.

mod common;

use std::cell::Cell;
use std::future::pending;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;
use std::{env, fs, process};

use common::{exceptions, turns, until};
use futures::AsyncReadExt as _;
use log::Level;
use waterspout::coroutine::{self, sleep};
use waterspout::iostream::{IoStream, Options};
use waterspout::net::{
    BindOptions, Family, Listener, Server, TcpServer, TcpStream, UnixServer, UnixStream,
    bind_sockets,
};
use waterspout::queues::Queue;
use waterspout::testing::{ExpectLog, Memory, duplex};
use waterspout::{IoLoop, StreamError};

const SECOND: Duration = Duration::from_secs(1);

/// Connections within the process, or errors.
#[derive(Clone)]
struct Local(Queue<io::Result<Memory>>);

impl Local {
    fn new() -> Local {
        Local(Queue::new(0))
    }

    /// The client's end of a new connection.
    fn connect(&self) -> Memory {
        let (client, connection) = duplex(1024);
        self.0.put_nowait(Ok(connection)).unwrap();
        client
    }

    fn fail(&self, kind: ErrorKind) {
        self.0.put_nowait(Err(kind.into())).unwrap();
    }
}

impl Listener for Local {
    type Stream = Memory;
    type Address = u32;

    async fn accept(&self) -> io::Result<(Memory, u32)> {
        Ok((self.0.get().await.map_err(io::Error::other)??, 7))
    }

    fn local_address(&self) -> io::Result<u32> {
        Ok(0)
    }
}

async fn line<S: waterspout::iostream::Transport>(stream: &IoStream<S>) -> String {
    let line = stream.read_until(b"\n", 1024).await.unwrap();
    String::from_utf8(line).unwrap().trim_end().to_owned()
}

#[waterspout::test]
async fn a_bare_handler_gets_the_stream_as_it_was_accepted() {
    let server = TcpServer::bare(async |stream: TcpStream, peer: SocketAddr| {
        assert_eq!(stream.peer_addr()?, peer);
        let mut request = [0; 4];
        stream.read_exact(&mut request).await?;
        stream.write_all(&request).await
    });
    let port = server.listen_on("127.0.0.1", 0).unwrap();
    let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    client.write_all(b"ping").await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"ping");
    assert_eq!(server.drain(SECOND).await, 0);
}

#[waterspout::test]
async fn an_async_closure_lends_its_captures_to_its_handlers() {
    let served = Cell::new(0);
    let names = [String::from("first"), String::from("second")];
    let server = TcpServer::new(async move |stream, _peer| {
        let name = &names[served.get()];
        served.set(served.get() + 1);
        stream.write(format!("{name}\n")).await
    });
    let port = server.listen_on("127.0.0.1", 0).unwrap();
    for expected in ["first", "second"] {
        let client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        assert_eq!(line(&IoStream::new(client)).await, expected);
    }
}

#[waterspout::test]
async fn a_unix_server_listens_on_a_path_with_its_permissions() {
    let path = env::temp_dir().join(format!("waterspout-server-{}", process::id()));
    let server = UnixServer::new(async |stream, _peer| {
        let request = stream.read_until(b"\n", 1024).await?;
        stream.write(request).await
    });
    server.listen(&path, 0o640).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    let client = IoStream::new(UnixStream::connect(&path).await.unwrap());
    client.write("hello\n");
    assert_eq!(line(&client).await, "hello");
    assert_eq!(server.drain(SECOND).await, 0);
    fs::remove_file(&path).unwrap();
    assert!(UnixStream::connect(&path).await.is_err());
}

#[waterspout::test]
async fn a_server_listens_on_the_addresses_of_one_family_if_it_is_told_to() {
    let server = TcpServer::new(async |_, _| pending::<io::Result<()>>().await);
    let options = BindOptions { family: Family::V4, ..BindOptions::default() };
    assert!(server.listen_with(0, &options).unwrap() > 0);
    let sockets = bind_sockets(0, &options).unwrap();
    assert!(sockets.iter().all(|socket| socket.local_addr().unwrap().is_ipv4()));
    let address = Some("127.0.0.1".into());
    let options = BindOptions { address, family: Family::V6, ..BindOptions::default() };
    let error = server.listen_with(0, &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
    assert!(error.to_string().contains("127.0.0.1"), "{error}");
}

#[waterspout::test]
async fn two_servers_share_a_port_if_they_are_told_to() {
    let servers = [(); 2].map(|()| TcpServer::new(async |_, _| pending::<io::Result<()>>().await));
    let address = Some(String::from("127.0.0.1"));
    let options = BindOptions { reuse_port: true, backlog: 16, address, ..BindOptions::default() };
    let port = servers[0].listen_with(0, &options).unwrap();
    assert_eq!(servers[1].listen_with(port, &options).unwrap(), port);
    let _clients = [(); 8].map(|()| std::net::TcpStream::connect(("127.0.0.1", port)).unwrap());
    until(|| servers.iter().map(TcpServer::accepted).sum::<u64>() == 8).await;
}

#[waterspout::test(virtual_time)]
async fn a_listener_of_ones_own_is_served_beside_others_and_within_the_limit() {
    let server = Server::new(async |stream, peer: u32| {
        stream.write(format!("{peer}\n")).await?;
        stream.read_until_close().await.map(drop)
    })
    .max_connections(2);
    let listeners = [Local::new(), Local::new()];
    listeners.iter().for_each(|listener| server.add_listener(listener.clone()));
    let clients = [(); 2].map(|()| listeners[0].connect());
    let beside = listeners[1].connect();
    turns(8).await;
    assert_eq!((server.connections(), server.accepted()), (2, 2));
    // The one that is served gives its place to the one that waits at the other listener.
    let [first, second] = clients.map(IoStream::new);
    assert_eq!(line(&first).await, "7");
    first.close();
    assert_eq!(line(&IoStream::new(beside)).await, "7");
    assert_eq!(line(&second).await, "7");
    assert_eq!(server.accepted(), 3);
}

#[waterspout::test(virtual_time)]
async fn an_error_of_a_listener_is_a_pause_and_that_of_a_connection_is_none() {
    let _log = ExpectLog::new(
        "waterspout",
        "accepting on 0 pauses: out of memory; 0 connections are served on",
    )
    .level(Level::Warn);
    let server = Server::new(async |stream, _| stream.write("hello\n").await);
    let listener = Local::new();
    server.add_listener(listener.clone());
    let begun = coroutine::now();
    listener.fail(ErrorKind::ConnectionReset);
    assert_eq!(line(&IoStream::new(listener.connect())).await, "hello");
    assert_eq!(coroutine::now(), begun);
    listener.fail(ErrorKind::OutOfMemory);
    assert_eq!(line(&IoStream::new(listener.connect())).await, "hello");
    assert_eq!(coroutine::now() - begun, Duration::from_millis(100));
}

/// Has something each time it is asked.
struct Always(ErrorKind);

impl Listener for Always {
    type Stream = ();
    type Address = ();

    async fn accept(&self) -> io::Result<((), ())> {
        match self.0 {
            ErrorKind::Other => panic!("a listener"),
            ErrorKind::NotFound => Ok(((), ())),
            kind => Err(kind.into()),
        }
    }

    fn local_address(&self) -> io::Result<()> {
        panic!("its address")
    }
}

#[test]
fn a_listener_that_always_has_something_keeps_nobody_waiting() {
    for kind in [ErrorKind::NotFound, ErrorKind::ConnectionAborted, ErrorKind::WouldBlock] {
        let _log = ExpectLog::new("waterspout", "accepting on a socket pauses").optional();
        let reports = exceptions(IoLoop::builder().virtual_time(), async || {
            let server = Server::bare(async |(), ()| {});
            server.add_listener(Always(kind));
            turns(100).await;
            server.stop();
        });
        let expected = usize::from(kind == ErrorKind::WouldBlock);
        assert_eq!(reports.len(), expected, "{kind}: {reports:?}");
    }
}

#[test]
fn a_listener_that_panics_is_reported_and_asked_again_after_a_pause() {
    let reports = exceptions(IoLoop::builder().virtual_time(), async || {
        let server = Server::bare(async |(), ()| {});
        server.add_listener(Always(ErrorKind::Other));
        sleep(Duration::from_millis(150)).await;
    });
    assert_eq!(reports.len(), 2, "{reports:?}");
    assert!(reports[0].starts_with("exception in a listener (tests/server.rs:"), "{reports:?}");
}

/// A handshake whose first line says what it does.
async fn handshake(stream: Memory, peer: u32) -> Result<(IoStream<Memory>, u32), StreamError> {
    let stream = IoStream::new(stream);
    match line(&stream).await.as_str() {
        "wrong" => Err(StreamError::Closed(None)),
        "panics" => panic!("a handshake"),
        _ => Ok((stream, peer)),
    }
}

fn shaking_server() -> (Server<Memory, u32>, Local) {
    let server = Server::wrapping(SECOND, handshake, async |(stream, peer)| {
        stream.write(format!("{peer}\n")).await
    });
    let listener = Local::new();
    server.add_listener(listener.clone());
    (server, listener)
}

#[test]
fn a_handshake_that_stalls_keeps_nobody_waiting_and_is_given_up_in_time() {
    let _log = ExpectLog::new("waterspout", "no handshake with 7: it took longer than 1s")
        .level(Level::Info);
    let reports = exceptions(IoLoop::builder().virtual_time(), async || {
        let (server, listener) = shaking_server();
        let stalls = IoStream::new(listener.connect());
        let begun = coroutine::now();
        let client = IoStream::new(listener.connect());
        client.write("right\n");
        assert_eq!(line(&client).await, "7");
        assert_eq!((coroutine::now(), server.connections()), (begun, 1));
        assert!(stalls.read_until_close().await.unwrap().is_empty());
        assert_eq!((coroutine::now() - begun, server.connections()), (SECOND, 0));
    });
    assert!(reports.is_empty(), "{reports:?}");
}

#[test]
fn a_handshake_that_fails_is_a_line_of_the_log_and_one_that_panics_is_reported() {
    let _log = ExpectLog::new("waterspout", "no handshake with 7: ").level(Level::Info);
    let reports = exceptions(IoLoop::builder().virtual_time(), async || {
        let (_server, listener) = shaking_server();
        for first in ["wrong\n", "panics\n", "right\n"] {
            let client = IoStream::new(listener.connect());
            client.write(first);
            let answer = client.read_until_close().await.unwrap();
            assert_eq!(answer == b"7\n", first == "right\n");
        }
    });
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(reports[0].contains("panicked: a handshake, with 7"), "{reports:?}");
}

#[waterspout::test(virtual_time)]
async fn a_server_that_is_dropped_drops_handshakes_and_listeners() {
    let (server, listener) = shaking_server();
    let client = IoStream::new(listener.connect());
    turns(4).await;
    assert_eq!(server.connections(), 1);
    drop(server);
    assert!(client.read_until_close().await.unwrap().is_empty());
}

#[waterspout::test(virtual_time)]
async fn the_limits_of_streams_are_set_for_any_listener() {
    let server = Server::new(async |stream, _| {
        let full = stream.write([0; 100]).await.unwrap_err();
        assert!(matches!(full, StreamError::WriteBufferFull));
        stream.write("full\n").await
    });
    let options = Options { max_write_buffer_size: 10, ..Options::default() };
    let server = server.stream_options(options);
    let listener = Local::new();
    server.add_listener(listener.clone());
    assert_eq!(line(&IoStream::new(listener.connect())).await, "full");
}
