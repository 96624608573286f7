//! Sockets, pipes and other file descriptors, over the real loopback.

mod child;
mod common;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use common::{
    LOOPBACK, WHEN_DROPPED, WOKEN, give_number, kind, pattern, poll, poll_acting_when_cloned,
    poll_once, refusing, remote_number, turns,
};
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt, future::join_all};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use waterspout::coroutine::{self, moment, sleep, with_timeout};
use waterspout::net::{
    self, AsyncFd, TcpListener, TcpStream, UdpSocket, UnixDatagram, UnixListener, UnixStream, pipe,
};
use waterspout::{Counters, Interest, IoLoop, testing};

/// Does poll(2) tell who is ready?
const POLL: bool = cfg!(mio_unsupported_force_poll_poll);

/// A guard against hanging; nothing takes as long.
const SOON: Duration = Duration::from_secs(2);

type Reader = Box<dyn AsyncRead + Send + Unpin>;
type Writer = Box<dyn AsyncWrite + Send + Unpin>;

fn counters() -> Counters {
    IoLoop::current().counters()
}

async fn tcp_pair() -> (TcpStream, TcpStream) {
    testing::tcp_pair().await.unwrap()
}

/// Lets the loop hear of all that has happened.
async fn edges_come() {
    sleep(Duration::from_millis(1)).await;
}

/// A stream of each kind, as its two ends.
async fn streams() -> Vec<(&'static str, Writer, Reader)> {
    let (tcp_writer, tcp_reader) = tcp_pair().await;
    let (unix_writer, unix_reader) = UnixStream::pair().unwrap();
    let (pipe_writer, pipe_reader) = pipe::pair().unwrap();
    vec![
        ("TCP", Box::new(tcp_writer), Box::new(tcp_reader)),
        ("Unix", Box::new(unix_writer), Box::new(unix_reader)),
        ("pipe", Box::new(pipe_writer), Box::new(pipe_reader)),
    ]
}

/// A path in the temporary directory that goes with its owner.
struct TempPath(PathBuf);

impl TempPath {
    fn new() -> TempPath {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("waterspout-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        TempPath(std::env::temp_dir().join(name))
    }
}

impl Drop for TempPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl AsRef<std::path::Path> for TempPath {
    fn as_ref(&self) -> &std::path::Path {
        &self.0
    }
}

// ---------------------------------------------------------------------------------------------
// TCP: connecting and accepting

#[waterspout::test]
async fn both_ends_of_a_connection_send_small_writes_at_once() {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let address = listener.local_addr().unwrap();
    let clients = join_all((0..3).map(|_| TcpStream::connect(address))).await;
    assert!(clients.into_iter().all(|client| client.unwrap().nodelay().unwrap()));
    let (accepted, _) = listener.accept().await.unwrap();
    let (tried, _) = listener.try_accept().unwrap();
    let incoming = pin!(listener.incoming()).next().await.unwrap().unwrap();
    for stream in [accepted, tried, incoming] {
        assert!(stream.nodelay().unwrap());
        stream.set_nodelay(false).unwrap();
        assert!(!stream.nodelay().unwrap());
    }
}

#[waterspout::test]
async fn a_listener_says_whether_its_connections_send_small_writes_at_once() {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    assert!(listener.nodelay().unwrap());
    for nodelay in [false, true] {
        listener.set_nodelay(nodelay).unwrap();
        assert_eq!(listener.nodelay().unwrap(), nodelay);
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        assert_eq!(stream.nodelay().unwrap(), nodelay);
    }
}

#[waterspout::test]
async fn sockets_that_were_made_elsewhere_keep_their_options() {
    let listener = std::net::TcpListener::bind(LOOPBACK).unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    let (server, _) = listener.accept().await.unwrap();
    let client = TcpStream::from_std(client).unwrap();
    assert!(!listener.nodelay().unwrap());
    assert!(!server.nodelay().unwrap());
    assert!(!client.nodelay().unwrap());
}

#[waterspout::test]
async fn a_connection_that_was_reset_in_the_backlog_is_accepted_all_the_same() {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = std::net::TcpStream::connect(address).unwrap();
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    let (stream, _) = listener.accept().await.unwrap();
    assert_eq!(kind(stream.read(&mut [0]).await), io::ErrorKind::ConnectionReset);
}

#[waterspout::test]
async fn a_refused_connection_is_an_error() {
    let (_bound, closed) = refusing(LOOPBACK);
    let before = counters().sources;
    assert_eq!(kind(TcpStream::connect(closed).await), io::ErrorKind::ConnectionRefused);
    assert_eq!(counters().sources, before);
}

#[waterspout::test]
async fn connect_tries_every_address() {
    let (_bound, closed) = refusing(LOOPBACK);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let open = listener.local_addr().unwrap();
    let stream = TcpStream::connect(vec![closed, open]).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), open);
    let error = TcpStream::connect(vec![closed, closed]).await;
    assert_eq!(kind(error), io::ErrorKind::ConnectionRefused);
    assert_eq!(kind(TcpStream::connect(vec![]).await), io::ErrorKind::InvalidInput);
}

#[waterspout::test]
async fn a_name_is_looked_up() {
    let listener = TcpListener::bind("localhost:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = coroutine::start(TcpStream::connect(("localhost", port)));
    listener.accept().await.unwrap();
    client.await.unwrap();
    assert_eq!(kind(TcpStream::connect("localhost").await), io::ErrorKind::InvalidInput);
}

#[waterspout::test]
async fn bind_says_that_the_address_is_in_use() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    assert_eq!(kind(TcpListener::bind(address).await), io::ErrorKind::AddrInUse);
    // Unless another will do.
    let other = TcpListener::bind(vec![address, "127.0.0.1:0".parse().unwrap()]).await.unwrap();
    assert_ne!(other.local_addr().unwrap(), address);
}

#[waterspout::test]
async fn a_cancelled_connect_leaves_nothing_behind() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let before = counters().sources;
    {
        let mut connect = pin!(TcpStream::connect(listener.local_addr().unwrap()));
        assert!(poll_once(connect.as_mut()).await.is_pending());
        assert_eq!(counters().sources, before + 1);
    }
    assert_eq!(counters().sources, before);
}

#[waterspout::test]
async fn two_coroutines_accept_on_one_listener_and_both_are_served() {
    let listener = Rc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap();
    for _ in 0..10 {
        let accepting: Vec<_> = (0..2)
            .map(|_| {
                let listener = listener.clone();
                coroutine::start(async move { listener.accept().await.unwrap().0 })
            })
            .collect();
        let clients: Vec<_> = (0..2).map(|_| TcpStream::connect(address)).collect();
        let clients = join_all(clients).await;
        let servers = join_all(accepting).await;
        let ports = |streams: Vec<io::Result<SocketAddr>>| {
            let mut ports: Vec<_> = streams.into_iter().map(|a| a.unwrap().port()).collect();
            ports.sort();
            ports
        };
        let clients: Vec<_> = clients.into_iter().map(Result::unwrap).collect();
        assert_eq!(
            ports(clients.iter().map(TcpStream::local_addr).collect()),
            ports(servers.iter().map(TcpStream::peer_addr).collect())
        );
    }
}

#[waterspout::test]
async fn connections_that_come_one_by_one_reach_both_acceptors() {
    let listener = Rc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap();
    let accept = || {
        let listener = listener.clone();
        coroutine::start(async move { listener.accept().await.map(drop) })
    };
    let (first, second) = (accept(), accept());
    let _one = TcpStream::connect(address).await.unwrap();
    turns(3).await;
    assert!(first.done() != second.done(), "one connection, one acceptor");
    let _other = TcpStream::connect(address).await.unwrap();
    first.await.unwrap();
    second.await.unwrap();
}

#[waterspout::test]
async fn a_cancelled_accept_loses_no_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for _ in 0..3 {
        let mut accept = Box::pin(listener.accept());
        assert!(poll_once(accept.as_mut()).await.is_pending());
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        // It has been woken, and is not polled any more.
        turns(2).await;
        drop(accept);
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
    }
}

/// What is asked of a listener of each kind, for which they have methods of the same names.
macro_rules! tells_of_connections {
    ($listener:ident, $connect:expr) => {{
        // It may seem ready until it was tried.
        assert_eq!(kind($listener.try_accept()), io::ErrorKind::WouldBlock);
        assert!(poll_once(pin!($listener.readable())).await.is_pending());
        assert!(poll_once(pin!(poll_fn(|cx| $listener.poll_readable(cx)))).await.is_pending());
        let _client = coroutine::start($connect);
        with_timeout(SOON, $listener.readable()).await.unwrap().unwrap();
        poll_fn(|cx| $listener.poll_readable(cx)).await.unwrap();
        $listener.try_accept().unwrap();
        assert_eq!(kind($listener.try_accept()), io::ErrorKind::WouldBlock);
    }};
}

#[waterspout::test]
async fn a_listener_is_readable_when_there_is_a_connection_to_accept() {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    tells_of_connections!(listener, TcpStream::connect(listener.local_addr().unwrap()));
    let path = TempPath::new();
    let listener = UnixListener::bind(&path).unwrap();
    tells_of_connections!(listener, UnixStream::connect(path.0.clone()));
}

#[waterspout::test]
async fn incoming_is_a_stream_of_connections() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let clients = coroutine::start(join_all((0..5).map(move |_| TcpStream::connect(address))));
    let servers: Vec<_> = listener.incoming().take(5).collect().await;
    assert!(servers.iter().all(Result::is_ok));
    assert!(clients.await.iter().all(Result::is_ok));
    assert_eq!(kind(listener.try_accept()), io::ErrorKind::WouldBlock);
}

/// Two tasks, each by its own stream, are served one after the other.
async fn assert_both_are_served<T>(
    streams: [impl futures::Stream<Item = io::Result<T>>; 2],
    connect: impl AsyncFn(),
) {
    // It gives each of its futures a waker of its own.
    let mut served = FuturesUnordered::new();
    for (n, stream) in streams.into_iter().enumerate() {
        let mut stream = Box::pin(stream);
        served.push(async move { stream.next().await.unwrap().map(|_| n).unwrap() });
    }
    assert!(poll_once(pin!(served.next())).await.is_pending());
    let mut who = Vec::new();
    for _ in 0..2 {
        connect().await;
        who.push(with_timeout(SOON, served.next()).await.expect("one waits for it").unwrap());
    }
    who.sort();
    assert_eq!(who, [0, 1]);
}

#[waterspout::test]
async fn several_streams_of_connections_of_one_listener_are_all_served() {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connected = RefCell::new(Vec::new());
    let connect = async || {
        let stream = TcpStream::connect(tcp.local_addr().unwrap()).await.unwrap();
        connected.borrow_mut().push(stream);
    };
    assert_both_are_served([tcp.incoming(), tcp.incoming()], connect).await;
    let path = TempPath::new();
    let unix = UnixListener::bind(&path).unwrap();
    let connect = async || drop(UnixStream::connect(&path).await.unwrap());
    assert_both_are_served([unix.incoming(), unix.incoming()], connect).await;
    // One that is dropped takes nobody else with it.
    let connect = async || drop(UnixStream::connect(&path).await.unwrap());
    let mut gone = Box::pin(unix.incoming());
    assert!(poll_once(pin!(gone.next())).await.is_pending());
    let both = [unix.incoming(), unix.incoming()];
    drop(gone);
    assert_both_are_served(both, connect).await;
}

#[waterspout::test]
async fn a_burst_of_connections_is_accepted_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let clients: Vec<_> =
        (0..300).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    for _ in &clients {
        listener.accept().await.unwrap();
    }
    assert_eq!(kind(listener.try_accept()), io::ErrorKind::WouldBlock);
}

// ---------------------------------------------------------------------------------------------
// The ends of streams

#[waterspout::test]
async fn half_closing_ends_one_direction_and_leaves_the_other() {
    let (client, server) = tcp_pair().await;
    for (one, other) in [(&client, &server), (&server, &client)] {
        one.write_all(b"last words").await.unwrap();
        one.shutdown(Shutdown::Write).unwrap();
        let mut heard = String::new();
        let mut other = other;
        other.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "last words");
        // The end stays the end.
        for _ in 0..2 {
            assert_eq!(other.read(&mut [0; 8]).await.unwrap(), 0);
        }
        assert_eq!(kind(one.write(b"more").await), io::ErrorKind::BrokenPipe);
    }
}

#[waterspout::test]
async fn unix_streams_half_close_as_well() {
    let (client, server) = UnixStream::pair().unwrap();
    client.write_all(b"question").await.unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut heard = String::new();
    (&server).read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "question");
    server.write_all(b"answer").await.unwrap();
    drop(server);
    let mut heard = String::new();
    (&client).read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "answer");
}

#[waterspout::test]
async fn read_exact_tells_of_an_early_end() {
    for (name, mut writer, mut reader) in streams().await {
        writer.write_all(b"abc").await.unwrap();
        drop(writer);
        let read = reader.read_exact(&mut [0; 4]).await;
        assert_eq!(kind(read), io::ErrorKind::UnexpectedEof, "{name}");
    }
    let (client, server) = tcp_pair().await;
    client.write_all(b"abc").await.unwrap();
    drop(client);
    assert_eq!(kind(server.read_exact(&mut [0; 4]).await), io::ErrorKind::UnexpectedEof);
}

#[waterspout::test]
async fn the_end_that_comes_with_the_last_bytes_is_seen() {
    for buffer in [1, 4, 5, 64] {
        // What the reader knows when bytes and end arrive: nothing, since it has not read yet; that
        // it has to wait; that it has been woken already.
        for order in ["unread", "waiting", "woken"] {
            for (name, mut writer, mut reader) in streams().await {
                let what = format!("{name}, {order}, a buffer of {buffer}");
                let mut expected = b"last!".to_vec();
                match order {
                    "unread" => {
                        writer.write_all(b"last!").await.unwrap();
                        drop(writer);
                    }
                    "waiting" => {
                        let mut buf = [0; 1];
                        let mut read = reader.read(&mut buf);
                        assert!(poll_once(pin!(&mut read)).await.is_pending(), "{what}");
                        writer.write_all(b"last!").await.unwrap();
                        drop(writer);
                        assert_eq!(read.await.unwrap(), 1, "{what}");
                        expected.remove(0);
                    }
                    _ => {
                        let mut buf = [0; 1];
                        let mut read = reader.read(&mut buf);
                        assert!(poll_once(pin!(&mut read)).await.is_pending(), "{what}");
                        writer.write_all(b"last!").await.unwrap();
                        turns(3).await;
                        drop(writer);
                        assert_eq!(read.await.unwrap(), 1, "{what}");
                        expected.remove(0);
                    }
                }
                let mut got = Vec::new();
                let mut buf = vec![0; buffer];
                loop {
                    let n = reader.read(&mut buf).await.unwrap();
                    if n == 0 {
                        break;
                    }
                    got.extend_from_slice(&buf[..n]);
                }
                assert_eq!(got, expected, "{what}");
                assert_eq!(reader.read(&mut buf).await.unwrap(), 0, "{what}");
            }
        }
    }
}

#[waterspout::test]
async fn the_end_that_comes_alone_is_seen() {
    for (name, mut writer, mut reader) in streams().await {
        writer.write_all(b"abc").await.unwrap();
        let mut buf = [0; 64];
        assert_eq!(reader.read(&mut buf).await.unwrap(), 3, "{name}");
        turns(2).await;
        let reading = coroutine::start(async move { reader.read(&mut buf).await });
        turns(2).await;
        assert!(!reading.done(), "{name}");
        drop(writer);
        assert_eq!(reading.await.unwrap(), 0, "{name}");
    }
}

/// The selector tells of all that is so with each event.
#[waterspout::test]
async fn the_end_is_seen_however_often_the_loop_has_been_told_of_it() {
    let chunk = vec![0; 1 << 16];
    for more in 0..4 {
        let (here, there) = tcp_pair().await;
        there.write_all(b"x").await.unwrap();
        there.shutdown(Shutdown::Write).unwrap();
        here.readable().await.unwrap();
        for _ in 0..more {
            let mut filled = 0;
            while let Ok(n) = here.try_write(&chunk) {
                filled += n;
            }
            there.read_exact(&mut vec![0; filled]).await.unwrap();
            here.writable().await.unwrap();
        }
        let mut buf = [0; 8];
        for expected in [1, 0, 0] {
            let read = with_timeout(SOON, here.read(&mut buf)).await.expect("it ends");
            assert_eq!(read.unwrap(), expected);
        }
    }
}

/// Also where the loop has not heard of it.
#[waterspout::test]
async fn who_has_read_the_end_need_not_wait_for_it_again() {
    let listener = std::net::TcpListener::bind(LOOPBACK).unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    drop(listener.accept().unwrap());
    // It has come.
    assert_eq!(client.peek(&mut [0]).unwrap(), 0);
    client.set_nonblocking(true).unwrap();
    let client = TcpStream::from_std(client).unwrap();
    for _ in 0..2 {
        assert_eq!(client.read(&mut [0]).now_or_never().unwrap().unwrap(), 0);
    }
}

#[waterspout::test]
async fn a_reset_is_an_error_of_the_waiting_read() {
    let (client, server) = tcp_pair().await;
    let reading = coroutine::start(async move { server.read(&mut [0; 8]).await });
    turns(2).await;
    client.set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    assert_eq!(kind(reading.await), io::ErrorKind::ConnectionReset);
}

#[waterspout::test]
async fn a_reset_is_an_error_of_the_waiting_write() {
    let (client, server) = tcp_pair().await;
    let writing = coroutine::start(async move {
        let bytes = vec![1; 64 * 1024];
        loop {
            if let Err(error) = server.write_all(&bytes).await {
                break error.kind();
            }
        }
    });
    turns(3).await;
    assert!(!writing.done(), "nobody reads, so it waits");
    client.set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    let error = writing.await;
    let expected = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
    assert!(expected.contains(&error), "{error:?}");
}

#[waterspout::test]
async fn closing_what_was_reset_is_no_error() {
    for by_half in [false, true] {
        let (mut here, there) = tcp_pair().await;
        there.set_linger(Some(Duration::ZERO)).unwrap();
        drop(there);
        assert_eq!(kind(here.read(&mut [0; 8]).await), io::ErrorKind::ConnectionReset);
        assert_eq!(kind(here.shutdown(Shutdown::Write)), io::ErrorKind::NotConnected);
        if by_half {
            let (_reader, mut writer) = here.into_split();
            writer.close().await.unwrap();
        } else {
            here.close().await.unwrap();
            here.close().await.unwrap();
        }
    }
}

/// Where `SIGPIPE` has its default action, it ends the process.
#[test]
fn writing_to_a_socket_whose_reader_has_gone_raises_no_signal() {
    child::alone("writing_to_a_socket_whose_reader_has_gone_raises_no_signal", || {
        let raised = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGPIPE, raised.clone()).unwrap();
        let bufs = [IoSlice::new(b"two"), IoSlice::new(b"buffers")];
        let body = async || {
            let (tcp, peer) = tcp_pair().await;
            peer.set_linger(Some(Duration::ZERO)).unwrap();
            drop(peer);
            assert!(tcp.read(&mut [0; 8]).await.is_err());
            let (unix, _) = UnixStream::pair().unwrap();
            for _ in 0..2 {
                assert_eq!(kind(tcp.write(b"x").await), io::ErrorKind::BrokenPipe);
                assert_eq!(kind(tcp.try_write(b"x")), io::ErrorKind::BrokenPipe);
                assert_eq!(kind(tcp.write_vectored(&bufs).await), io::ErrorKind::BrokenPipe);
                assert_eq!(kind(unix.write(b"x").await), io::ErrorKind::BrokenPipe);
                assert_eq!(kind(unix.try_write(b"x")), io::ErrorKind::BrokenPipe);
                assert_eq!(kind(unix.write_vectored(&bufs).await), io::ErrorKind::BrokenPipe);
            }
            let (one, other) = UnixDatagram::pair().unwrap();
            one.shutdown(Shutdown::Both).unwrap();
            assert!(one.send(b"x").await.is_err() && one.try_send(b"x").is_err());
            drop(other);
            assert!(!raised.load(Ordering::SeqCst));
            // Of a pipe it is the nature.
            let (pipe, _) = pipe::pair().unwrap();
            assert_eq!(kind(pipe.write(b"x").await), io::ErrorKind::BrokenPipe);
            assert!(raised.load(Ordering::SeqCst));
        };
        IoLoop::new().unwrap().run_sync(body).unwrap();
    });
}

#[waterspout::test]
async fn writing_to_a_reader_that_has_gone_is_a_broken_pipe() {
    let (here, there) = UnixStream::pair().unwrap();
    drop(there);
    assert_eq!(kind(here.write(b"x").await), io::ErrorKind::BrokenPipe);
    let (writer, reader) = pipe::pair().unwrap();
    drop(reader);
    assert_eq!(kind(writer.write(b"x").await), io::ErrorKind::BrokenPipe);
    let (writer, reader) = pipe::pair().unwrap();
    let writing = coroutine::start(async move { writer.write_all(&vec![0; 1 << 20]).await });
    turns(2).await;
    assert!(!writing.done());
    drop(reader);
    assert_eq!(kind(writing.await), io::ErrorKind::BrokenPipe);
}

#[waterspout::test]
async fn bytes_around_urgent_data_all_arrive() {
    let (client, server) = tcp_pair().await;
    let reading = coroutine::start(async move {
        let mut got = Vec::new();
        let mut buf = [0; 64];
        while got.len() < 8 {
            let n = server.read(&mut buf).await.unwrap();
            assert_ne!(n, 0);
            got.extend_from_slice(&buf[..n]);
        }
        got
    });
    turns(2).await;
    // One turn sees it all: a read stops before the urgent byte, though more is there.
    client.try_write(b"abcd").unwrap();
    socket2::SockRef::from(&client).send_out_of_band(b"!").unwrap();
    client.try_write(b"efgh").unwrap();
    assert_eq!(reading.await, b"abcdefgh");
}

/// Sends "abc", an urgent byte and "def" before the first read. A kernel may know no urgent data for a
/// socket.
#[waterspout::test]
async fn bytes_after_urgent_data_of_a_unix_stream_all_arrive() {
    let (here, there) = UnixStream::pair().unwrap();
    edges_come().await;
    there.write_all(b"abc").await.unwrap();
    if socket2::SockRef::from(&there).send_out_of_band(b"!").is_err() {
        return;
    }
    there.write_all(b"def").await.unwrap();
    edges_come().await;
    // Its one edge has come.
    let (mut got, mut buf) = (Vec::new(), [0; 64]);
    while got.len() < 6 {
        let n = with_timeout(SOON, here.read(&mut buf)).await.expect("there is more").unwrap();
        got.extend_from_slice(&buf[..n]);
    }
    assert_eq!(got, b"abcdef");
}

#[waterspout::test]
async fn bytes_that_come_with_descriptors_all_arrive() {
    let (here, there) = UnixStream::pair().unwrap();
    edges_come().await;
    for byte in *b"abc" {
        let passed = [there.as_fd()];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&passed)));
        rustix::net::sendmsg(&there, &[IoSlice::new(&[byte])], &mut control, SendFlags::empty())
            .unwrap();
    }
    edges_come().await;
    for expected in *b"abc" {
        let mut buf = [0; 8];
        let n = with_timeout(SOON, here.read(&mut buf)).await.expect("there is more").unwrap();
        assert_eq!(&buf[..n], [expected]);
    }
}

/// The standard library takes any fd for the socket that it is said to be.
#[waterspout::test]
#[cfg(target_os = "linux")]
async fn packets_of_a_socket_that_is_no_stream_all_arrive() {
    let reader = |socket: OwnedFd, as_tcp| -> (Reader, Writer) {
        if as_tcp {
            let stream = TcpStream::from_std(std::net::TcpStream::from(socket)).unwrap();
            let (reader, writer) = stream.into_split();
            (Box::new(reader), Box::new(writer))
        } else {
            let stream = std::os::unix::net::UnixStream::from(socket);
            let (reader, writer) = UnixStream::from_std(stream).unwrap().into_split();
            (Box::new(reader), Box::new(writer))
        }
    };
    for as_tcp in [false, true] {
        let pair = socket2::Socket::pair(socket2::Domain::UNIX, socket2::Type::SEQPACKET, None);
        let (here, there) = pair.unwrap();
        let (mut here, _writer) = reader(here.into(), as_tcp);
        edges_come().await;
        for packet in [b"one", b"two"] {
            there.send(packet).unwrap();
        }
        edges_come().await;
        for packet in [b"one", b"two"] {
            let mut buf = [0; 64];
            let n = with_timeout(SOON, here.read(&mut buf)).await.expect("there is more").unwrap();
            assert_eq!(&buf[..n], packet);
        }
    }
}

// ---------------------------------------------------------------------------------------------
// Moving bytes

#[waterspout::test(timeout = 30.0)]
async fn megabytes_pass_under_back_pressure() {
    for (name, mut writer, mut reader) in streams().await {
        let sent = Rc::new(pattern(6 * 1024 * 1024 + 17));
        let sending = sent.clone();
        let sender = coroutine::start(async move {
            writer.write_all(&sending).await.unwrap();
            writer.close().await.unwrap();
        });
        turns(5).await;
        assert!(!sender.done(), "{name}: nobody reads, so it waits");
        let mut got = Vec::new();
        let mut buf = vec![0; 10_000];
        loop {
            let n = reader.read(&mut buf).await.unwrap();
            if n == 0 {
                break;
            }
            got.extend_from_slice(&buf[..n]);
        }
        sender.await;
        assert!(got == *sent, "{name}: {} bytes of {}", got.len(), sent.len());
    }
}

#[waterspout::test(timeout = 30.0)]
async fn both_directions_flow_at_once_through_split_halves() {
    let (client, server) = tcp_pair().await;
    let sent = Rc::new(pattern(3 * 1024 * 1024));
    let mut coroutines = Vec::new();
    for stream in [client, server] {
        let (mut reader, mut writer) = stream.into_split();
        let sending = sent.clone();
        coroutines.push(coroutine::start(async move {
            writer.write_all(&sending).await.unwrap();
            // Dropping this half is the end for the other side.
        }));
        let expected = sent.clone();
        coroutines.push(coroutine::start(async move {
            let mut got = Vec::new();
            reader.read_to_end(&mut got).await.unwrap();
            assert!(got == *expected);
        }));
    }
    join_all(coroutines).await;
    turns(1).await;
    assert_eq!(counters().sources, 0);
}

#[waterspout::test]
async fn split_halves_of_a_borrowed_stream_serve_one_coroutine() {
    let (mut client, server) = UnixStream::pair().unwrap();
    let echo = coroutine::start(async move {
        let bytes = server.read_lent().await.unwrap();
        server.write_all(&bytes).await.unwrap();
    });
    // By its path: `AsyncReadExt` has a `split` that takes the stream by value and comes first.
    let (mut reader, mut writer) = UnixStream::split(&mut client);
    let mut buf = [0; 4];
    let (written, read) =
        futures::future::join(writer.write_all(b"echo"), reader.read_exact(&mut buf)).await;
    written.unwrap();
    read.unwrap();
    assert_eq!(&buf, b"echo");
    echo.await;
}

#[waterspout::test(timeout = 30.0)]
async fn a_peer_that_sends_byte_by_byte_is_read() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let bytes = pattern(3000);
    let sent = bytes.clone();
    let peer = thread::spawn(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        for byte in sent {
            stream.write_all(&[byte]).unwrap();
        }
        let mut buf = [0; 1];
        assert_eq!(stream.read(&mut buf).unwrap(), 1);
    });
    let (stream, _) = listener.accept().await.unwrap();
    let mut got = vec![0; 3000];
    stream.read_exact(&mut got).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    assert_eq!(got, bytes);
    peer.join().unwrap();
}

#[waterspout::test]
async fn vectored_calls_fill_and_empty_several_buffers() {
    let (tcp, tcp_peer) = tcp_pair().await;
    let (unix, unix_peer) = UnixStream::pair().unwrap();
    let (writer, reader) = pipe::pair().unwrap();
    let bufs = [IoSlice::new(b"abc"), IoSlice::new(b""), IoSlice::new(b"defgh")];
    assert_eq!(tcp.write_vectored(&bufs).await.unwrap(), 8);
    assert_eq!(unix.write_vectored(&bufs).await.unwrap(), 8);
    assert_eq!(writer.write_vectored(&bufs).await.unwrap(), 8);
    let (mut one, mut other) = ([0; 2], [0; 32]);
    for which in 0..3 {
        let mut bufs = [IoSliceMut::new(&mut one), IoSliceMut::new(&mut other)];
        let n = match which {
            0 => tcp_peer.read_vectored(&mut bufs).await,
            1 => unix_peer.read_vectored(&mut bufs).await,
            _ => reader.read_vectored(&mut bufs).await,
        };
        assert_eq!(n.unwrap(), 8);
        assert_eq!((&one, &other[..6]), (b"ab", &b"cdefgh"[..]));
    }
    // The bit was cleared by the short read, or not; what comes next is seen in any case.
    tcp.write_all(b"next").await.unwrap();
    assert_eq!(tcp_peer.read(&mut other).await.unwrap(), 4);
}

#[waterspout::test]
async fn more_buffers_than_the_system_takes_at_once_lose_nothing() {
    for (name, mut writer, mut reader) in streams().await {
        let bytes = pattern(5000);
        let bufs: Vec<_> = bytes.chunks(1).map(IoSlice::new).collect();
        let mut written = 0;
        while written < bufs.len() {
            written += writer.write_vectored(&bufs[written..]).await.unwrap();
        }
        edges_come().await;
        let mut got = vec![0; bytes.len()];
        let mut read = 0;
        while read < got.len() {
            // Its one edge has come: what a read leaves has to be known from the read.
            let rest = &mut got[read..];
            let mut bufs: Vec<_> = rest.chunks_mut(1).take(1500).map(IoSliceMut::new).collect();
            let reading = with_timeout(SOON, reader.read_vectored(&mut bufs));
            read += reading.await.unwrap_or_else(|_| panic!("{name}: {read} came")).unwrap();
        }
        assert_eq!(got, bytes, "{name}");
    }
}

#[waterspout::test]
async fn peek_leaves_what_it_reads() {
    let (client, server) = tcp_pair().await;
    client.write_all(b"abc").await.unwrap();
    let mut buf = [0; 8];
    for _ in 0..2 {
        assert_eq!(server.peek(&mut buf).await.unwrap(), 3);
    }
    assert_eq!(server.read(&mut buf).await.unwrap(), 3);
    let mut peek = pin!(server.peek(&mut buf));
    assert!(poll_once(peek.as_mut()).await.is_pending());
    client.write_all(b"d").await.unwrap();
    assert_eq!(peek.await.unwrap(), 1);
}

#[waterspout::test]
async fn try_calls_do_not_wait() {
    let (client, server) = tcp_pair().await;
    let mut buf = [0; 8];
    assert_eq!(kind(server.try_read(&mut buf)), io::ErrorKind::WouldBlock);
    client.write_all(b"abc").await.unwrap();
    server.readable().await.unwrap();
    assert_eq!(server.try_read(&mut buf).unwrap(), 3);
    assert_eq!(kind(server.try_read(&mut buf)), io::ErrorKind::WouldBlock);

    let chunk = vec![0; 1 << 16];
    let mut filled = 0;
    let error = loop {
        match client.try_write(&chunk) {
            Ok(n) => filled += n,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    let writable = coroutine::start(async move {
        client.writable().await.unwrap();
        client
    });
    turns(2).await;
    assert!(!writable.done());
    let mut rest = vec![0; filled];
    server.read_exact(&mut rest).await.unwrap();
    let client = writable.await;
    assert!(client.try_write(b"room").unwrap() > 0);
}

#[waterspout::test]
async fn readable_waits_until_there_is_something() {
    for which in ["bytes", "end"] {
        let (client, server) = UnixStream::pair().unwrap();
        let server = Rc::new(server);
        let mut buf = [0; 8];
        assert_eq!(kind(server.try_read(&mut buf)), io::ErrorKind::WouldBlock);
        let waiting = server.clone();
        let waiting = coroutine::start(async move { waiting.readable().await });
        turns(2).await;
        assert!(!waiting.done());
        if which == "bytes" {
            client.write_all(b"x").await.unwrap();
        } else {
            drop(client);
        }
        waiting.await.unwrap();
        assert_eq!(server.try_read(&mut buf).unwrap(), if which == "bytes" { 1 } else { 0 });
    }
}

#[waterspout::test]
async fn a_cancelled_read_loses_nothing() {
    for (name, mut writer, mut reader) in streams().await {
        for expected in [b'a', b'b', b'c'] {
            let mut buf = [0; 8];
            let mut read = reader.read(&mut buf);
            assert!(poll_once(pin!(&mut read)).await.is_pending(), "{name}");
            writer.write_all(&[expected]).await.unwrap();
            // Woken, but nobody polls it any more.
            turns(2).await;
            assert_eq!(reader.read(&mut buf).await.unwrap(), 1, "{name}");
            assert_eq!(buf[0], expected, "{name}");
        }
    }
}

#[waterspout::test]
async fn of_two_waits_of_one_task_either_may_be_dropped() {
    for first_goes in [true, false] {
        let (here, there) = UnixStream::pair().unwrap();
        let waiting = coroutine::start(async move {
            assert!(here.try_read(&mut [0; 8]).is_err());
            let (mut first, mut second) = (Box::pin(here.readable()), Box::pin(here.readable()));
            assert!(poll_once(first.as_mut()).await.is_pending());
            assert!(poll_once(second.as_mut()).await.is_pending());
            let left = if first_goes { second } else { first };
            left.await.unwrap();
        });
        turns(3).await;
        assert!(!waiting.done());
        there.write_all(b"x").await.unwrap();
        with_timeout(SOON, waiting).await.expect("it is woken");
    }
}

#[waterspout::test]
async fn a_wait_that_is_dropped_wakes_nobody() {
    let (here, _there) = UnixStream::pair().unwrap();
    let polls = Rc::new(Cell::new(0));
    let count = polls.clone();
    let _waiting = coroutine::start(async move {
        let (mut buf, mut other) = ([0; 8], [0; 8]);
        let mut dropped = Some(Box::pin(here.read(&mut buf)));
        let mut kept = pin!(here.read(&mut other));
        poll_fn(|cx| {
            count.set(count.get() + 1);
            if let Some(mut dropped) = dropped.take() {
                assert!(dropped.as_mut().poll(cx).is_pending());
            }
            kept.as_mut().poll(cx)
        })
        .await
    });
    turns(5).await;
    assert_eq!(polls.get(), 1);
}

/// A combinator that makes a waker for each poll is no reason to spin.
#[waterspout::test]
async fn a_socket_that_is_polled_with_a_fresh_waker_each_time_wakes_only_the_last() {
    let (here, there) = UnixStream::pair().unwrap();
    let polls = Rc::new(Cell::new(0));
    let count = polls.clone();
    let waiting = coroutine::start(async move {
        let mut buf = [0; 8];
        let mut read = pin!(here.read(&mut buf));
        let mut tick = pin!(turns(3).fuse());
        poll_fn(|cx| {
            count.set(count.get() + 1);
            let _ = tick.as_mut().poll(cx);
            let task = cx.waker().clone();
            let fresh = waker_fn::waker_fn(move || task.wake_by_ref());
            read.as_mut().poll(&mut Context::from_waker(&fresh))
        })
        .await
    });
    turns(50).await;
    assert_eq!(polls.get(), 4, "nothing came: only the ticks were a reason");
    there.write_all(b"x").await.unwrap();
    assert_eq!(with_timeout(SOON, waiting).await.expect("it is woken").unwrap(), 1);
    assert_eq!(polls.get(), 5);
}

#[waterspout::test]
async fn a_cancelled_coroutine_lets_another_one_read_on() {
    let (client, server) = tcp_pair().await;
    let server = Rc::new(server);
    let read = |server: Rc<TcpStream>| {
        coroutine::start(async move { server.read(&mut [0; 8]).await.unwrap() })
    };
    let (first, second) = (read(server.clone()), read(server.clone()));
    turns(1).await;
    first.cancel();
    client.write_all(b"abc").await.unwrap();
    assert_eq!(second.await, 3);
}

#[waterspout::test]
async fn std_sockets_come_and_go() {
    // TCP
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().await.unwrap();
    let listener = listener.into_std().unwrap();
    let client = TcpStream::from_std(client).unwrap();
    client.write_all(b"one").await.unwrap();
    let mut server = server.into_std().unwrap();
    let mut buf = [0; 3];
    server.read_exact(&mut buf).unwrap();
    assert_eq!(&buf, b"one");
    let server = TcpStream::from_std(server).unwrap();
    server.write_all(b"two").await.unwrap();
    client.read_exact(&mut buf).await.unwrap();
    assert_eq!(&buf, b"two");
    drop((client, server, listener));

    // Unix
    let (here, there) = std::os::unix::net::UnixStream::pair().unwrap();
    let (here, there) = (UnixStream::from_std(here).unwrap(), UnixStream::from_std(there).unwrap());
    here.write_all(b"six").await.unwrap();
    let mut there = there.into_std().unwrap();
    there.read_exact(&mut buf).unwrap();
    assert_eq!(&buf, b"six");
    let path = TempPath::new();
    let listener = UnixListener::bind(&path).unwrap().into_std().unwrap();
    let listener = UnixListener::from_std(listener).unwrap();
    drop((here, there, listener));

    // Datagrams
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    socket.send_to(b"udp", address).await.unwrap();
    let socket = socket.into_std().unwrap();
    assert_eq!(socket.recv(&mut buf).unwrap(), 3);
    let socket = UdpSocket::from_std(socket).unwrap();
    socket.send_to(b"udp", address).await.unwrap();
    assert_eq!(socket.recv(&mut buf).await.unwrap(), 3);
    let (one, other) = UnixDatagram::pair().unwrap();
    let one = one.into_std().unwrap();
    one.send(b"dgr").unwrap();
    assert_eq!(other.recv(&mut buf).await.unwrap(), 3);
    let one = UnixDatagram::from_std(one).unwrap();
    drop((socket, one, other));

    turns(1).await;
    assert_eq!(counters().sources, 0);
}

// ---------------------------------------------------------------------------------------------
// Loops and threads

#[test]
fn a_socket_polled_on_another_loop_names_both_and_loses_nothing() {
    let (owner, other) = (IoLoop::new().unwrap(), IoLoop::new().unwrap());
    let (client, server) = owner.run_sync(tcp_pair).unwrap();
    let datagrams = owner.run_sync(|| UdpSocket::bind("127.0.0.1:0")).unwrap().unwrap();
    owner.run_sync(|| client.write_all(b"kept")).unwrap().unwrap();

    let mut buf = [0; 8];
    let mut errors = Vec::new();
    other
        .run_sync(async || {
            errors.push(server.read(&mut buf).await.unwrap_err());
            errors.push(server.try_read(&mut buf).unwrap_err());
            errors.push(server.readable().await.unwrap_err());
            errors.push(client.write(b"lost").await.unwrap_err());
            errors.push(datagrams.recv(&mut buf).await.unwrap_err());
        })
        .unwrap();
    for error in errors {
        let message = error.to_string();
        assert_eq!(error.kind(), io::ErrorKind::Other, "{message}");
        assert!(message.contains(&format!("{owner:?}")), "{message}");
        assert!(message.contains(&format!("{other:?}")), "{message}");
    }
    IoLoop::clear_current();
    let message = server.try_read(&mut buf).unwrap_err().to_string();
    assert!(message.contains("outside of any loop"), "{message}");

    assert_eq!(owner.run_sync(|| server.read(&mut buf)).unwrap().unwrap(), 4);
    assert_eq!(&buf[..4], b"kept");
}

#[test]
fn trying_a_socket_of_another_loop_does_not_disturb_that_loops_own() {
    // Both sockets have the same slot, each in its loop.
    let (one, other) = (IoLoop::new().unwrap(), IoLoop::new().unwrap());
    let (_foreign_peer, foreign) = one.run_sync(async || UnixStream::pair().unwrap()).unwrap();
    let read = other.run_sync(async || {
        let (peer, own) = UnixStream::pair().unwrap();
        let mut buf = [0; 8];
        let mut reading = Box::pin(own.read(&mut buf));
        assert!(poll_once(reading.as_mut()).await.is_pending());
        peer.write_all(b"abc").await.unwrap();
        turns(2).await;
        // The edge is in the table now, and there will be no other.
        assert!(foreign.try_read(&mut [0; 8]).is_err());
        reading.await
    });
    assert_eq!(read.unwrap().unwrap(), 3);
}

#[test]
fn a_socket_of_a_closed_loop_says_that_it_is_closed() {
    let io_loop = IoLoop::new().unwrap();
    let (here, _there) = io_loop.run_sync(async || UnixStream::pair().unwrap()).unwrap();
    io_loop.close();
    let mut cx = Context::from_waker(Waker::noop());
    let polled = Pin::new(&mut &here).poll_read(&mut cx, &mut [0; 8]);
    let Poll::Ready(Err(error)) = polled else { panic!("{polled:?}") };
    let closed = error.get_ref().is_some_and(|inner| inner.is::<waterspout::LoopClosed>());
    assert!(closed, "{error:?}");
}

#[waterspout::test]
async fn a_socket_dropped_on_another_thread_leaves_its_loop() {
    let (client, server) = tcp_pair().await;
    let (writer, reader) = pipe::pair().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
    one.set_nonblocking(true).unwrap();
    let fd = AsyncFd::new(one).unwrap();
    assert_eq!(counters().sources, 6);
    thread::spawn(move || drop((server, writer, socket, fd))).join().unwrap();
    turns(1).await;
    assert_eq!(counters().sources, 2);
    // They are closed indeed.
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(reader.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!((&other).read(&mut [0; 8]).unwrap(), 0);
}

/// Drops something where its loop is current, where another loop is, or on another thread.
const PLACES: [fn(Box<dyn std::any::Any + Send>); 3] = [
    drop,
    |value| {
        let other = IoLoop::new().unwrap();
        other.add_callback(move || drop(value));
        other.close();
    },
    |value| thread::spawn(move || drop(value)).join().unwrap(),
];

#[waterspout::test]
async fn a_socket_dropped_under_who_waits_for_it_wakes_the_waiter() {
    for drop_it in PLACES {
        let (_client, server) = tcp_pair().await;
        let server = Arc::new(server);
        let waiting = Arc::downgrade(&server);
        let coroutine = coroutine::start(poll_fn(move |cx| match waiting.upgrade() {
            Some(server) => Pin::new(&mut &*server).poll_read(cx, &mut [0; 8]),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }));
        turns(1).await;
        drop_it(Box::new(server));
        let coroutine = with_timeout(SOON, coroutine).await.expect("it is woken");
        assert_eq!(kind(coroutine), io::ErrorKind::NotConnected);
    }
}

#[waterspout::test]
async fn streams_are_send_in_boxes() {
    fn send<T: Send>(value: T) -> T {
        value
    }
    for (name, writer, reader) in streams().await {
        let (mut writer, mut reader) = (send(writer), send(reader));
        // To another thread and back.
        (writer, reader) = thread::spawn(move || (writer, reader)).join().unwrap();
        writer.write_all(b"boxed").await.unwrap();
        let mut buf = [0; 5];
        reader.read_exact(&mut buf).await.unwrap();
        assert_eq!(&buf, b"boxed", "{name}");
    }
}

#[waterspout::test]
async fn registrations_go_with_their_sockets() {
    let path = TempPath::new();
    let (tcp, tcp_peer) = tcp_pair().await;
    let unix = UnixListener::bind(&path).unwrap();
    let connected = UnixStream::connect(&path).await.unwrap();
    let (accepted, _) = unix.accept().await.unwrap();
    let pipe = pipe::pair().unwrap();
    let datagrams = UnixDatagram::pair().unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    assert_eq!(counters().sources, 10);
    drop((tcp, unix, connected, pipe, datagrams, udp));
    assert_eq!(counters().sources, 2);
    let (reader, writer) = tcp_peer.into_split();
    drop(reader);
    assert_eq!(counters().sources, 2);
    drop(writer);
    drop(accepted);
    assert_eq!(counters().sources, 0);
}

#[waterspout::test]
async fn a_duplicate_of_a_dropped_stream_wakes_nobody_and_can_be_registered() {
    for drop_it in PLACES {
        let (twin, mut peer) = std::os::unix::net::UnixStream::pair().unwrap();
        let stream = std::os::unix::net::UnixStream::from(remote_number(&twin));
        let stream = UnixStream::from_std(stream).unwrap();
        let number = stream.as_raw_fd();
        drop_it(Box::new(stream));
        turns(3).await;
        let before = counters().events;
        for _ in 0..5 {
            peer.write_all(b"x").unwrap();
            turns(3).await;
        }
        assert_eq!(counters().events, before, "of a socket that is gone");
        let again = rustix::io::fcntl_dupfd_cloexec(&twin, number).unwrap();
        assert_eq!(again.as_raw_fd(), number);
        let again = UnixStream::from_std(again.into()).unwrap();
        again.read_exact(&mut [0; 5]).await.unwrap();
    }
}

#[waterspout::test]
async fn an_fd_that_was_closed_elsewhere_is_dropped_without_harm_to_what_has_its_number() {
    for drop_it in PLACES.into_iter().chain([(|value| {
        let fd = value.downcast::<AsyncFd<i32>>().unwrap();
        fd.into_inner().unwrap();
    }) as fn(Box<dyn std::any::Any + Send>)])
    {
        let (gone, _peer) = std_pair();
        let fd = AsyncFd::new(gone.as_raw_fd()).unwrap();
        let (here, there) = std_pair();
        let here = UnixStream::from_std(give_number(gone, here)).unwrap();
        let there = UnixStream::from_std(there).unwrap();
        assert_eq!(here.as_raw_fd(), fd.as_raw_fd());
        drop_it(Box::new(fd));
        turns(3).await;
        for _ in 0..2 {
            let mut buf = [0; 8];
            let mut reading = pin!(here.read(&mut buf));
            assert!(poll_once(reading.as_mut()).await.is_pending());
            there.write_all(b"x").await.unwrap();
            assert_eq!(with_timeout(SOON, reading).await.expect("it is watched").unwrap(), 1);
        }
    }
}

#[test]
fn fds_that_are_closed_and_used_again_are_new_sockets() {
    let io_loop = IoLoop::new().unwrap();
    io_loop
        .run_sync(async || {
            for round in 0..200_u32 {
                let (client, server) = UnixStream::pair().unwrap();
                client.write_all(&round.to_ne_bytes()).await.unwrap();
                let mut buf = [0; 4];
                server.read_exact(&mut buf).await.unwrap();
                assert_eq!(u32::from_ne_bytes(buf), round);
                if round % 3 == 0 {
                    // An event is on its way for what is closed now.
                    client.write_all(b"x").await.unwrap();
                }
                if round % 2 == 0 {
                    moment().await;
                }
            }
            assert_eq!(counters().sources, 0);
        })
        .unwrap();
}

// ---------------------------------------------------------------------------------------------
// Fairness and cost

#[waterspout::test]
async fn who_never_waits_still_lets_others_go_on() {
    let (mine, echo) = UnixStream::pair().unwrap();
    let (asking, answering) = UnixStream::pair().unwrap();
    let done = Rc::new(Cell::new(false));
    let answer = coroutine::spawn(async move {
        loop {
            let bytes = answering.read_lent().await.unwrap();
            if bytes.is_empty() {
                break;
            }
            answering.write_all(&bytes).await.unwrap();
        }
    });
    let done_ = done.clone();
    let ask = coroutine::spawn(async move {
        let mut buf = [0; 8];
        for _ in 0..100 {
            asking.write_all(b"question").await.unwrap();
            asking.read_exact(&mut buf).await.unwrap();
        }
        done_.set(true);
    });
    let mut buf = [0; 4];
    let mut rounds = 0_u64;
    while !done.get() {
        // Always ready: what is read has just been written.
        mine.write_all(b"busy").await.unwrap();
        echo.read_exact(&mut buf).await.unwrap();
        rounds += 1;
        assert!(rounds < 1_000_000, "nobody else runs");
    }
    assert!(rounds > 100);
    ask.await;
    answer.await;
}

#[waterspout::test]
async fn waiting_for_a_lent_buffer_takes_none() {
    let mut peers = Vec::new();
    let at = Rc::new(RefCell::new(Vec::new()));
    for _ in 0..16 {
        let (peer, stream) = UnixStream::pair().unwrap();
        peers.push(peer);
        let at = at.clone();
        coroutine::start(async move {
            loop {
                let bytes = stream.read_lent().await.unwrap();
                if bytes.is_empty() {
                    return;
                }
                at.borrow_mut().push(bytes.as_ptr());
            }
        });
    }
    turns(2).await;
    for peer in peers.iter().chain(&peers) {
        let before = at.borrow().len();
        peer.write_all(b"x").await.unwrap();
        while at.borrow().len() == before {
            moment().await;
        }
    }
    // One buffer has served all; had those who wait kept one, there would be more.
    let at = at.borrow();
    assert_eq!(at.len(), 32);
    assert!(at.iter().all(|&address| address == at[0]), "{at:?}");
}

#[waterspout::test]
async fn lent_bytes_stay_as_they_are_while_others_read() {
    let (one, one_peer) = tcp_pair().await;
    let (other, other_peer) = tcp_pair().await;
    one.write_all(&pattern(1000)).await.unwrap();
    other.write_all(&[7; 1000]).await.unwrap();
    let mut held = one_peer.read_lent().await.unwrap();
    let more = other_peer.read_lent().await.unwrap();
    turns(3).await;
    assert_eq!(*held, pattern(1000)[..]);
    assert_eq!(*more, [7; 1000]);
    held[0] = 99;
    drop(more);
    other.write_all(&[8; 1000]).await.unwrap();
    let more = other_peer.read_lent().await.unwrap();
    assert_eq!((held[0], held[1], held.len()), (99, pattern(2)[1], 1000));
    assert_eq!(*more, [8; 1000]);
    drop(one);
    assert!(one_peer.read_lent().await.unwrap().is_empty());
    // They may travel as well.
    thread::spawn(move || drop(held)).join().unwrap();
}

#[waterspout::test(timeout = 30.0)]
async fn an_echo_needs_no_eagain_and_no_wake_from_afar() {
    const CONNECTIONS: u64 = 64;
    const REQUESTS: u64 = 50;
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let (client, server) = tcp_pair().await;
        coroutine::start(async move {
            let mut buf = [0; 512];
            loop {
                let n = server.read(&mut buf).await.unwrap();
                if n == 0 {
                    break;
                }
                server.write_all(&buf[..n]).await.unwrap();
            }
        });
        clients.push(client);
    }
    let clients = Rc::new(clients);
    let round = |requests| {
        let clients = clients.clone();
        let asking = (0..CONNECTIONS as usize).map(move |i| {
            let clients = clients.clone();
            async move {
                let mut buf = [0; 512];
                for _ in 0..requests {
                    clients[i].write_all(&[i as u8; 100]).await.unwrap();
                    assert_eq!(clients[i].read(&mut buf).await.unwrap(), 100);
                    assert_eq!(buf[..100], [i as u8; 100]);
                }
            }
        });
        join_all(asking.map(coroutine::spawn).collect::<Vec<_>>())
    };
    // The first read of each socket is a try.
    round(2).await;
    let before = counters();
    round(REQUESTS).await;
    let after = counters();
    assert_eq!(after.notified, before.notified);
    if !POLL {
        assert_eq!(after.would_block, before.would_block);
        // A read and a write on each side.
        assert_eq!(after.io_calls - before.io_calls, CONNECTIONS * REQUESTS * 4);
    }
}

/// Also those of who polls on within one resumption, until it is given a new budget, and those that
/// do not wait.
#[waterspout::test]
async fn every_read_that_was_tried_is_counted() {
    let (here, mut there) = tcp_pair().await;
    let sent = pattern(1000);
    here.write_all(&sent).await.unwrap();
    there.readable().await.unwrap();
    let before = counters().io_calls;
    let (mut got, mut buf) = (Vec::new(), [0]);
    poll_fn(|cx| {
        while got.len() < sent.len() {
            if let Poll::Ready(read) = Pin::new(&mut there).poll_read(cx, &mut buf) {
                got.extend_from_slice(&buf[..read.unwrap()]);
            }
        }
        Poll::Ready(())
    })
    .await;
    assert_eq!((got, counters().io_calls - before), (sent, 1000));
    assert_eq!(kind(there.try_read(&mut buf)), io::ErrorKind::WouldBlock);
    assert_eq!(counters().io_calls - before, 1001);
}

#[waterspout::test]
async fn a_short_write_needs_no_eagain_to_wait() {
    let (here, there) = tcp_pair().await;
    let (bytes, mut written) = (vec![1; 64 << 20], 0);
    let before = counters().would_block;
    while let Poll::Ready(n) = poll_once(pin!(here.write(&bytes[written..]))).await {
        written += n.unwrap();
    }
    assert!(POLL || counters().would_block == before);
    let writing = coroutine::start(async move { here.write(b"more").await });
    let mut left = written;
    while left > 0 {
        left -= there.read(&mut vec![0; left]).await.unwrap();
    }
    assert_eq!(with_timeout(SOON, writing).await.expect("it is woken").unwrap(), 4);
}

/// The budget of a resumption ends between two reads: what is there is read by the next one.
#[waterspout::test]
async fn reading_goes_on_where_a_budget_has_ended() {
    let (here, there) = tcp_pair().await;
    here.write_all(&pattern(1000)).await.unwrap();
    edges_come().await;
    let reading = coroutine::start(async move {
        let mut got = Vec::new();
        for _ in 0..1000 {
            let mut byte = [0];
            there.read_exact(&mut byte).await.unwrap();
            got.extend(byte);
        }
        got
    });
    assert_eq!(with_timeout(SOON, reading).await.expect("it goes on"), pattern(1000));
}

#[waterspout::test]
async fn a_read_that_runs_out_of_time_costs_no_resumption() {
    let (here, _there) = tcp_pair().await;
    let resumed = Rc::new(Cell::new(0));
    let count = resumed.clone();
    let reading = coroutine::start(async move {
        let mut buf = [0; 8];
        let mut read = Box::pin(with_timeout(Duration::from_millis(1), here.read(&mut buf)));
        let timed_out = poll_fn(|cx| {
            count.set(count.get() + 1);
            read.as_mut().poll(cx)
        });
        assert!(timed_out.await.is_err());
        drop(read);
        // It stays, to be resumed if there were a reason.
        poll_fn::<(), _>(|_| {
            count.set(count.get() + 1);
            Poll::Pending
        })
        .await;
    });
    sleep(Duration::from_millis(5)).await;
    turns(5).await;
    assert_eq!(resumed.get(), 3, "at first, at its end, and once by itself");
    drop(reading);
}

/// Each is found among the others without looking through all of them.
#[waterspout::test(timeout = 30.0)]
async fn fifty_thousand_acceptors_come_and_go_on_one_listener() {
    const MANY: usize = 50_000;
    let listener = Rc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let group = coroutine::TaskGroup::new();
    let accepted = Rc::new(Cell::new(0));
    for _ in 0..MANY {
        let (listener, accepted) = (listener.clone(), accepted.clone());
        group.start(async move {
            listener.accept().await?;
            accepted.set(accepted.get() + 1);
            io::Result::Ok(())
        });
    }
    let address = listener.local_addr().unwrap();
    let mut clients = Vec::new();
    for n in 1..=5 {
        clients.push(TcpStream::connect(address).await.unwrap());
        while accepted.get() < n {
            moment().await;
        }
    }
    drop(group);
    edges_come().await;
    assert_eq!(accepted.get(), 5);
    let _client = TcpStream::connect(address).await.unwrap();
    listener.accept().await.unwrap();
}

// ---------------------------------------------------------------------------------------------
// UDP

#[waterspout::test]
async fn datagrams_keep_their_boundaries() {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    for text in [&b"one"[..], b"", b"three"] {
        assert_eq!(client.send_to(text, address).await.unwrap(), text.len());
    }
    let mut buf = [0; 64];
    assert_eq!(server.peek_from(&mut buf).await.unwrap(), (3, client.local_addr().unwrap()));
    assert_eq!(server.peek(&mut buf).await.unwrap(), 3);
    for text in [&b"one"[..], b"", b"three"] {
        let (n, peer) = server.recv_from(&mut buf).await.unwrap();
        assert_eq!((&buf[..n], peer), (text, client.local_addr().unwrap()));
    }
    assert_eq!(kind(server.try_recv_from(&mut buf)), io::ErrorKind::WouldBlock);
    // By name, too.
    client.send_to(b"named", ("localhost", address.port())).await.unwrap();
    assert_eq!(server.recv(&mut buf).await.unwrap(), 5);
}

#[waterspout::test]
async fn a_connected_udp_socket_hears_only_its_peer() {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    assert_eq!(kind(client.peer_addr()), io::ErrorKind::NotConnected);
    client.connect(server.local_addr().unwrap()).await.unwrap();
    assert_eq!(client.peer_addr().unwrap(), server.local_addr().unwrap());
    let mut buf = [0; 8];
    let mut heard = [0; 8];
    let mut recv = pin!(client.recv(&mut heard));
    assert!(poll_once(recv.as_mut()).await.is_pending());
    let address = client.local_addr().unwrap();
    stranger.send_to(b"psst", address).await.unwrap();
    turns(2).await;
    assert!(poll_once(recv.as_mut()).await.is_pending());
    server.try_send_to(b"ok", address).unwrap();
    assert_eq!(recv.await.unwrap(), 2);
    client.send(b"hi").await.unwrap();
    assert_eq!(client.try_send(b"again").unwrap(), 5);
    assert_eq!(server.recv(&mut buf).await.unwrap(), 2);
    server.readable().await.unwrap();
    assert_eq!(server.try_recv(&mut buf).unwrap(), 5);
    server.writable().await.unwrap();
}

#[waterspout::test]
async fn a_udp_socket_hears_on_after_a_refusal() {
    let gone = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = gone.local_addr().unwrap();
    let client = Rc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    client.connect(address).await.unwrap();
    drop(gone);
    let mut buf = [0; 8];
    for _ in 0..3 {
        assert_eq!(kind(client.try_recv(&mut buf)), io::ErrorKind::WouldBlock);
        client.send(b"anyone?").await.unwrap();
        assert_eq!(kind(client.recv(&mut buf).await), io::ErrorKind::ConnectionRefused);
        turns(2).await;
    }
    let reading = client.clone();
    let reading = coroutine::start(async move { reading.recv(&mut [0; 8]).await });
    turns(2).await;
    assert!(!reading.done());
    let back = std::net::UdpSocket::bind(address).unwrap();
    back.send_to(b"here", client.local_addr().unwrap()).unwrap();
    assert_eq!(reading.await.unwrap(), 4);
}

#[waterspout::test]
async fn two_coroutines_receive_from_one_udp_socket() {
    let server = Rc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let address = server.local_addr().unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for _ in 0..20 {
        let receive = |server: Rc<UdpSocket>| {
            coroutine::start(async move {
                let mut buf = [0; 1];
                server.recv(&mut buf).await.unwrap();
                buf[0]
            })
        };
        let receiving = [receive(server.clone()), receive(server.clone())];
        turns(1).await;
        client.send_to(&[1], address).await.unwrap();
        client.send_to(&[2], address).await.unwrap();
        let mut got = join_all(receiving).await;
        got.sort();
        assert_eq!(got, [1, 2]);
    }
}

#[waterspout::test]
async fn udp_options_are_kept() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.set_broadcast(true).unwrap();
    assert!(socket.broadcast().unwrap());
    socket.set_ttl(7).unwrap();
    assert_eq!(socket.ttl().unwrap(), 7);
    socket.set_multicast_ttl_v4(3).unwrap();
    assert_eq!(socket.multicast_ttl_v4().unwrap(), 3);
    socket.set_multicast_loop_v4(false).unwrap();
    assert!(!socket.multicast_loop_v4().unwrap());
    assert!(socket.take_error().unwrap().is_none());
    let not_a_group = socket.join_multicast_v4([127, 0, 0, 1].into(), [127, 0, 0, 1].into());
    assert!(not_a_group.is_err());
    let in_use = UdpSocket::bind(socket.local_addr().unwrap()).await;
    assert_eq!(kind(in_use), io::ErrorKind::AddrInUse);
    let too_long = socket.send_to(&vec![0; 70_000], socket.local_addr().unwrap()).await;
    assert!(too_long.is_err());
}

#[waterspout::test]
async fn udp_poll_functions_keep_the_waker() {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    let receiving = coroutine::start(async move {
        let mut buf = [0; 8];
        let (n, _) = poll_fn(|cx| server.poll_recv_from(cx, &mut buf)).await.unwrap();
        n
    });
    turns(2).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    poll_fn(|cx| client.poll_send_to(cx, b"four", address)).await.unwrap();
    assert_eq!(receiving.await, 4);
}

// ---------------------------------------------------------------------------------------------
// Unix domain

#[waterspout::test]
async fn a_unix_datagram_is_had_from_a_poll_function() {
    let (here, there) = UnixDatagram::pair().unwrap();
    let receiving = coroutine::start(async move {
        let mut buf = [0; 8];
        let (n, sender) = poll_fn(|cx| here.poll_recv_from(cx, &mut buf)).await.unwrap();
        (n, sender.is_unnamed())
    });
    turns(2).await;
    there.send(b"four").await.unwrap();
    assert_eq!(receiving.await, (4, true));
}

#[waterspout::test]
async fn unix_sockets_connect_by_path() {
    let path = TempPath::new();
    assert_eq!(kind(UnixStream::connect(&path).await), io::ErrorKind::NotFound);
    let listener = UnixListener::bind(&path).unwrap();
    assert_eq!(kind(UnixListener::bind(&path)), io::ErrorKind::AddrInUse);
    assert_eq!(listener.local_addr().unwrap().as_pathname(), Some(path.0.as_path()));
    let accepting = coroutine::start(async move {
        let stream = listener.incoming().next().await.unwrap().unwrap();
        (stream, listener)
    });
    let client = UnixStream::connect(&path).await.unwrap();
    let (server, listener) = accepting.await;
    assert_eq!(client.peer_addr().unwrap().as_pathname(), Some(path.0.as_path()));
    client.write_all(b"abc").await.unwrap();
    assert_eq!(&*server.read_lent().await.unwrap(), b"abc");
    assert_eq!(kind(listener.try_accept()), io::ErrorKind::WouldBlock);
    drop(listener);
    assert_eq!(kind(UnixStream::connect(&path).await), io::ErrorKind::ConnectionRefused);
}

#[waterspout::test]
async fn a_unix_connect_waits_while_the_queue_is_full() {
    let path = TempPath::new();
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    socket.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    socket.listen(0).unwrap();
    let listener = UnixListener::from_std(socket.into()).unwrap();
    let path = Rc::new(path);
    let connecting: Vec<_> = (0..4)
        .map(|_| {
            let path = path.clone();
            coroutine::start(async move { UnixStream::connect(&*path).await.map(drop) })
        })
        .collect();
    turns(2).await;
    assert!(connecting.iter().any(|connect| !connect.done()));
    for _ in &connecting {
        listener.accept().await.unwrap();
    }
    for connect in connecting {
        connect.await.unwrap();
    }
}

#[waterspout::test]
async fn unix_datagrams_find_their_path() {
    let (server_path, client_path) = (TempPath::new(), TempPath::new());
    let server = UnixDatagram::bind(&server_path).unwrap();
    let client = UnixDatagram::bind(&client_path).unwrap();
    let nameless = UnixDatagram::unbound().unwrap();
    let mut buf = [0; 64];
    client.send_to(b"to you", &server_path).await.unwrap();
    let (n, peer) = server.recv_from(&mut buf).await.unwrap();
    assert_eq!(&buf[..n], b"to you");
    assert_eq!(peer.as_pathname(), Some(client_path.0.as_path()));
    assert_eq!(kind(server.try_recv(&mut buf)), io::ErrorKind::WouldBlock);

    assert_eq!(kind(nameless.send(b"x").await), io::ErrorKind::NotConnected);
    nameless.connect(&server_path).unwrap();
    nameless.send(b"hello").await.unwrap();
    assert_eq!(nameless.peer_addr().unwrap().as_pathname(), Some(server_path.0.as_path()));
    let (n, peer) = server.recv_from(&mut buf).await.unwrap();
    assert_eq!((n, peer.is_unnamed()), (5, true));

    assert_eq!(kind(server.send_to(b"x", TempPath::new()).await), io::ErrorKind::NotFound);
    drop(server);
    assert_eq!(kind(nameless.send(b"x").await), io::ErrorKind::ConnectionRefused);
}

#[waterspout::test]
#[cfg(target_os = "linux")]
async fn unix_sockets_find_each_other_by_abstract_names() {
    use std::os::linux::net::SocketAddrExt;

    let name = |kind| format!("\0waterspout-net-{}-{kind}", std::process::id());
    let listener = UnixListener::bind(name("stream")).unwrap();
    let bound = listener.local_addr().unwrap();
    assert_eq!(bound.as_abstract_name(), Some(&name("stream").as_bytes()[1..]));
    assert_eq!(kind(UnixListener::bind(name("stream"))), io::ErrorKind::AddrInUse);
    let connecting = coroutine::start(UnixStream::connect(name("stream")));
    let (server, _) = listener.accept().await.unwrap();
    connecting.await.unwrap().write_all(b"abc").await.unwrap();
    assert_eq!(&*server.read_lent().await.unwrap(), b"abc");
    drop(listener);
    assert_eq!(kind(UnixStream::connect(name("stream")).await), io::ErrorKind::ConnectionRefused);

    let (one, other) = (name("one"), name("other"));
    let (here, there) = (UnixDatagram::bind(&one).unwrap(), UnixDatagram::bind(&other).unwrap());
    here.send_to(b"x", &other).await.unwrap();
    assert_eq!(here.try_send_to(b"x", &other).unwrap(), 1);
    here.connect(&other).unwrap();
    here.send(b"x").await.unwrap();
    for _ in 0..3 {
        let (_, from) = there.recv_from(&mut [0; 8]).await.unwrap();
        assert_eq!(from.as_abstract_name(), Some(&one.as_bytes()[1..]));
    }
}

#[waterspout::test]
async fn a_unix_datagram_waits_for_room_in_either_way_of_sending() {
    // Connected: the selector tells.
    let (here, there) = UnixDatagram::pair().unwrap();
    while here.try_send(b"fill").is_ok() {}
    let sending = coroutine::start(async move { here.send(b"last").await });
    turns(2).await;
    assert!(!sending.done());
    let mut buf = [0; 8];
    loop {
        there.recv(&mut buf).await.unwrap();
        if &buf[..4] == b"last" {
            break;
        }
    }
    sending.await.unwrap();

    // By path, into a queue that somebody else has filled: it does not.
    let path = TempPath::new();
    let server = UnixDatagram::bind(&path).unwrap();
    let filler = UnixDatagram::unbound().unwrap();
    while filler.try_send_to(b"fill", &path).is_ok() {}
    let sender = UnixDatagram::unbound().unwrap();
    let sending = coroutine::start(async move { sender.send_to(b"last", path).await });
    turns(2).await;
    assert!(!sending.done());
    loop {
        server.recv(&mut buf).await.unwrap();
        if &buf[..4] == b"last" {
            break;
        }
    }
    assert_eq!(sending.await.unwrap(), 4);
}

// ---------------------------------------------------------------------------------------------
// Pipes

#[waterspout::test]
async fn a_closed_pipe_writer_ends_the_pipe_and_says_so() {
    let (mut writer, reader) = pipe::pair().unwrap();
    let mut buf = [0; 8];
    assert_eq!(kind(reader.try_read(&mut buf)), io::ErrorKind::WouldBlock);
    writer.writable().await.unwrap();
    assert_eq!(writer.try_write(b"abc").unwrap(), 3);
    reader.readable().await.unwrap();
    assert_eq!(reader.try_read(&mut buf).unwrap(), 3);
    let before = counters().sources;
    writer.close().await.unwrap();
    writer.close().await.unwrap();
    assert_eq!(counters().sources, before - 1);
    assert_eq!(reader.read(&mut buf).await.unwrap(), 0);
    assert_eq!(kind(writer.write(b"x").await), io::ErrorKind::BrokenPipe);
    assert_eq!(kind(writer.try_write(b"x")), io::ErrorKind::BrokenPipe);
    assert_eq!(kind(writer.into_fd()), io::ErrorKind::BrokenPipe);
}

#[waterspout::test]
async fn a_child_is_fed_and_read() {
    use std::process::{Command, Stdio};
    let mut command = Command::new("sh");
    command.args(["-c", "cat; echo oops >&2"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = pipe::PipeWriter::try_from(child.stdin.take().unwrap()).unwrap();
    let mut stdout = pipe::PipeReader::try_from(child.stdout.take().unwrap()).unwrap();
    let mut stderr = pipe::PipeReader::try_from(child.stderr.take().unwrap()).unwrap();
    let sent = pattern(300_000);
    let sending = sent.clone();
    let feeding = coroutine::start(async move {
        stdin.write_all(&sending).await.unwrap();
        stdin.close().await.unwrap();
    });
    let mut got = Vec::new();
    stdout.read_to_end(&mut got).await.unwrap();
    feeding.await;
    assert!(got == sent);
    let mut complaint = String::new();
    stderr.read_to_string(&mut complaint).await.unwrap();
    assert_eq!(complaint, "oops\n");
    assert!(child.wait().unwrap().success());
}

#[waterspout::test]
#[cfg(target_os = "linux")]
async fn a_fifo_has_ended_when_its_writers_have_gone_and_not_before_the_first() {
    use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
    let path = TempPath::new();
    mknodat(CWD, path.as_ref(), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let open = |flags| open(path.as_ref(), flags | OFlags::NONBLOCK, Mode::empty()).unwrap();
    let reader = Rc::new(pipe::PipeReader::try_from(open(OFlags::RDONLY)).unwrap());
    let reads = reader.clone();
    let writer = || pipe::PipeWriter::try_from(open(OFlags::WRONLY)).unwrap();
    let mut buf = [0; 8];
    assert_eq!(kind(reader.try_read(&mut buf)), io::ErrorKind::WouldBlock);
    let reading = coroutine::start(async move {
        let reader = reads;
        let (mut head, mut tail) = ([0; 2], [0; 3]);
        reader.read_exact(&mut head).await.unwrap();
        let mut bufs = [IoSliceMut::new(&mut []), IoSliceMut::new(&mut tail)];
        assert_eq!(reader.read_vectored(&mut bufs).await.unwrap(), 3);
        [&head[..], &tail].concat()
    });
    turns(2).await;
    assert!(!reading.done(), "it waits for a writer");
    let first = writer();
    turns(2).await;
    assert!(!reading.done(), "it waits for what that writes");
    first.write_all(b"hello").await.unwrap();
    assert_eq!(with_timeout(SOON, reading).await.unwrap(), b"hello");
    let reads = reader.clone();
    let ending = coroutine::start(async move { reads.read_lent().await.unwrap().len() });
    turns(2).await;
    assert!(!ending.done(), "its writer is there");
    drop(first);
    assert_eq!(with_timeout(SOON, ending).await.unwrap(), 0);
    assert_eq!(reader.try_read(&mut buf).unwrap(), 0);
    let second = writer();
    assert_eq!(kind(reader.try_read(&mut buf)), io::ErrorKind::WouldBlock);
    let reads = reader.clone();
    let reading = coroutine::start(async move { reads.read(&mut [0; 8]).await.unwrap() });
    turns(2).await;
    second.write_all(b"again").await.unwrap();
    assert_eq!(with_timeout(SOON, reading).await.expect("it is watched"), 5);
    drop(second);
    assert_eq!(reader.read(&mut buf).await.unwrap(), 0);
}

#[waterspout::test]
async fn pipe_ends_come_and_go_as_fds() {
    let (writer, reader) = pipe::pair().unwrap();
    let (writer, reader) = (writer.into_fd().unwrap(), reader.into_fd().unwrap());
    assert_eq!(counters().sources, 0);
    let mut writer = std::fs::File::from(writer);
    writer.write_all(b"as a file").unwrap();
    let reader = pipe::PipeReader::try_from(reader).unwrap();
    let mut buf = [0; 9];
    reader.read_exact(&mut buf).await.unwrap();
    assert_eq!(&buf, b"as a file");
    let writer = pipe::PipeWriter::try_from(OwnedFd::from(writer)).unwrap();
    writer.write_all(b"and back.").await.unwrap();
    reader.read_exact(&mut buf).await.unwrap();
    assert_eq!(&buf, b"and back.");
}

// ---------------------------------------------------------------------------------------------
// Any fd

fn std_pair() -> (std::os::unix::net::UnixStream, std::os::unix::net::UnixStream) {
    let (here, there) = std::os::unix::net::UnixStream::pair().unwrap();
    here.set_nonblocking(true).unwrap();
    there.set_nonblocking(true).unwrap();
    (here, there)
}

#[waterspout::test]
async fn an_operation_waits_again_each_time_it_would_block() {
    let (mut peer, fd) = std_pair();
    let fd = Rc::new(AsyncFd::new(fd).unwrap());
    for round in 0..5 {
        let reading = fd.clone();
        let reading = coroutine::start(async move {
            let mut buf = [0; 8];
            let n = reading.read_with(|mut stream| stream.read(&mut buf)).await.unwrap();
            buf[..n].to_vec()
        });
        turns(2).await;
        assert!(!reading.done());
        peer.write_all(&[round, round]).unwrap();
        assert_eq!(reading.await, [round, round]);
    }
    // What is left unread is no new edge, and is seen all the same.
    peer.write_all(b"abcdef").unwrap();
    for expected in *b"abcdef" {
        let mut buf = [0; 1];
        fd.read_with(|mut stream| stream.read(&mut buf)).await.unwrap();
        assert_eq!(buf[0], expected);
    }
    assert_eq!(
        kind(fd.try_read_with(|mut stream| stream.read(&mut [0; 8]))),
        io::ErrorKind::WouldBlock
    );
    let waiting = fd.clone();
    let waiting = coroutine::start(async move { waiting.readable().await });
    turns(2).await;
    assert!(!waiting.done());
    drop(peer);
    waiting.await.unwrap();
    let end = poll_fn(|cx| fd.poll_read_with(cx, |mut stream| stream.read(&mut [0; 8]))).await;
    assert_eq!(end.unwrap(), 0);
}

#[waterspout::test]
async fn writing_waits_for_room() {
    let (peer, fd) = std_pair();
    let fd = Rc::new(AsyncFd::new(fd).unwrap());
    let chunk = [1; 4096];
    while fd.try_write_with(|mut stream| stream.write(&chunk)).is_ok() {}
    let writing = fd.clone();
    let writing = coroutine::start(async move {
        writing.write_with(|mut stream| stream.write(b"last")).await.unwrap();
        writing.writable().await.unwrap();
        poll_fn(|cx| writing.poll_write_with(cx, |mut stream| stream.write(b"!"))).await
    });
    turns(2).await;
    assert!(!writing.done());
    let mut buf = vec![0; 1 << 20];
    while (&peer).read(&mut buf).is_ok() {}
    assert_eq!(writing.await.unwrap(), 1);
}

#[waterspout::test]
async fn an_error_of_the_operation_is_given_back_and_interruption_is_not() {
    let (_peer, fd) = std_pair();
    let fd = AsyncFd::new(fd).unwrap();
    let mut calls = 0;
    let error = fd.read_with(|_| -> io::Result<()> {
        calls += 1;
        Err(if calls < 3 { io::ErrorKind::Interrupted } else { io::ErrorKind::InvalidData }.into())
    });
    assert_eq!(kind(error.await), io::ErrorKind::InvalidData);
    assert_eq!(calls, 3);
}

#[waterspout::test]
async fn an_fd_is_given_back_and_taken_again() {
    let (mut peer, fd) = std_pair();
    let mut fd = AsyncFd::new(fd).unwrap();
    assert_eq!(kind(AsyncFd::new(fd.as_raw_fd())), io::ErrorKind::AlreadyExists);
    for round in 0..3 {
        let inner = fd.into_inner().unwrap();
        assert_eq!(counters().sources, 0);
        peer.write_all(&[round]).unwrap();
        fd = AsyncFd::with_interest(inner, Interest::READ).unwrap();
        let mut buf = [0; 8];
        assert_eq!(fd.read_with(|mut stream| stream.read(&mut buf)).await.unwrap(), 1);
        assert_eq!(buf[0], round);
    }
    assert!(fd.get_mut().take_error().unwrap().is_none());
}

#[waterspout::test]
async fn dropping_tells_the_selector_although_the_file_stays_open() {
    let (mut peer, fd) = std_pair();
    let shared = Arc::new(fd);
    for _ in 0..3 {
        let fd = AsyncFd::new(shared.clone()).unwrap();
        peer.write_all(b"x").unwrap();
        fd.read_with(|stream| (&**stream).read(&mut [0; 8])).await.unwrap();
        drop(fd);
        assert_eq!(counters().sources, 0);
    }
    turns(1).await;
    let before = counters().events;
    peer.write_all(b"nobody listens").unwrap();
    turns(5).await;
    assert_eq!(counters().events, before);
}

#[waterspout::test]
async fn fds_that_cannot_be_watched_are_refused_by_epoll() {
    let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
    let closed = AsyncFd::new(1_000_000);
    let file = AsyncFd::with_interest(file, Interest::READ);
    if POLL {
        // poll(2) takes anything; a file is ready, always.
        let file = file.unwrap();
        let n = file.read_with(|mut file| file.read(&mut [0; 16])).await.unwrap();
        assert_eq!(n, 16);
    } else {
        assert_eq!(kind(file), io::ErrorKind::PermissionDenied);
        assert!(closed.is_err());
        assert_eq!(counters().sources, 0);
    }
}

#[test]
fn an_fd_of_another_loop_is_refused_and_not_taken_back() {
    let (owner, other) = (IoLoop::new().unwrap(), IoLoop::new().unwrap());
    let (mut peer, fd) = std_pair();
    let fd = owner.run_sync(async || AsyncFd::new(fd).unwrap()).unwrap();
    peer.write_all(b"kept").unwrap();
    let error = other.run_sync(async || fd.read_with(|mut s| s.read(&mut [0; 8])).await);
    let message = error.unwrap().unwrap_err().to_string();
    assert!(message.contains(&format!("{owner:?}")), "{message}");
    assert!(message.contains(&format!("{other:?}")), "{message}");
    let read = owner.run_sync(async || fd.read_with(|mut s| s.read(&mut [0; 8])).await);
    assert_eq!(read.unwrap().unwrap(), 4);
    assert!(other.run_sync(async || fd.into_inner().is_err()).unwrap());
    owner.run_sync(moment).unwrap();
    assert_eq!(owner.counters().sources, 0);
}

#[test]
fn a_duplicate_of_a_socket_that_another_loop_has_refused_wakes_nobody() {
    let (owner, other) = (IoLoop::new().unwrap(), IoLoop::new().unwrap());
    let (twin, mut peer) = std_pair();
    let stream = twin.try_clone().unwrap();
    let stream = owner.run_sync(async || UnixStream::from_std(stream).unwrap()).unwrap();
    assert!(other.run_sync(async || stream.into_std().is_err()).unwrap());
    owner.run_sync(async || turns(3).await).unwrap();
    let before = owner.counters().events;
    peer.write_all(b"x").unwrap();
    owner.run_sync(async || turns(3).await).unwrap();
    assert_eq!(owner.counters().events, before, "of a socket that is gone");
}

#[waterspout::test]
async fn a_wait_that_is_dropped_leaves_its_waker_with_nobody() {
    let (here, there) = UnixStream::pair().unwrap();
    let held = Arc::new(());
    let waker = || {
        let held = held.clone();
        waker_fn::waker_fn(move || drop(held.clone()))
    };
    for _ in 0..100 {
        // Like a combinator that is made anew each time around: another waker for each wait.
        let waker = waker();
        let mut buf = [0; 8];
        let mut read = Box::pin(here.read(&mut buf));
        assert!(read.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop(read);
        let mut polled = pin!(&here);
        let poll = polled.as_mut().poll_read(&mut Context::from_waker(&waker), &mut buf);
        assert!(poll.is_pending());
    }
    assert_eq!(Arc::strong_count(&held), 2, "that of the last poll function is kept");
    there.write_all(b"x").await.unwrap();
    let mut buf = [0; 8];
    assert_eq!(here.read(&mut buf).await.unwrap(), 1);
    assert_eq!(Arc::strong_count(&held), 1);
}

// ---------------------------------------------------------------------------------------------
// Operations of one's own

/// Reads from a socket of whatever type by a system call of one's own; `poll` first asks whether it is
/// readable.
macro_rules! own_operations {
    ($here:expr, $there:expr) => {{
        let (here, there) = (Rc::new($here), $there);
        let receive = |here: &_| {
            let mut buf = [0; 8];
            let (n, _) = rustix::net::recv(here, &mut buf, rustix::net::RecvFlags::empty())?;
            Ok(buf[..n].to_vec())
        };
        // What would block is waited for from then on, whoever has found it out.
        assert_eq!(
            kind(here.try_io(Interest::READ, || receive(&*here))),
            io::ErrorKind::WouldBlock
        );
        assert!(poll_fn(|cx| Poll::Ready(here.poll_readable(cx))).await.is_pending());
        let reader = here.clone();
        let reading =
            coroutine::start(
                async move { reader.async_io(Interest::READ, || receive(&*reader)).await },
            );
        settle().await;
        assert!(!reading.done());
        there
            .async_io(Interest::WRITE, || {
                Ok(rustix::net::send(&there, b"abc", SendFlags::empty())?)
            })
            .await
            .unwrap();
        assert_eq!(reading.await.unwrap(), b"abc");

        poll_fn(|cx| there.poll_writable(cx)).await.unwrap();
        there
            .try_io(Interest::WRITE, || Ok(rustix::net::send(&there, b"d", SendFlags::empty())?))
            .unwrap();
        poll_fn(|cx| here.poll_readable(cx)).await.unwrap();
        assert_eq!(here.try_io(Interest::READ, || receive(&*here)).unwrap(), b"d");

        // Neither direction, or both, is none; and nothing is done.
        for interest in [Interest::NONE, Interest::READ | Interest::WRITE, Interest::ERROR] {
            let never = || -> io::Result<()> { panic!("it is not called") };
            assert_eq!(kind(here.try_io(interest, never)), io::ErrorKind::InvalidInput);
            assert_eq!(kind(here.async_io(interest, never).await), io::ErrorKind::InvalidInput);
        }
        // A panic goes to who has called it, and leaves the socket as it was.
        let panics = || here.try_io(Interest::READ, || -> io::Result<()> { panic!("in it") });
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
        // An interruption is tried again.
        let mut interrupted = false;
        let twice =
            here.async_io(Interest::WRITE, || match std::mem::replace(&mut interrupted, true) {
                false => Err(io::ErrorKind::Interrupted.into()),
                true => Ok(2),
            });
        assert_eq!(twice.await.unwrap(), 2);
    }};
}

async fn settle() {
    turns(200).await;
}

#[waterspout::test]
async fn operations_of_ones_own_wait_until_the_socket_is_ready() {
    let (one, other) = tcp_pair().await;
    own_operations!(one, other);
    let (one, other) = UnixStream::pair().unwrap();
    own_operations!(one, other);
    let (one, other) = UnixDatagram::pair().unwrap();
    own_operations!(one, other);
    let one = UdpSocket::bind(LOOPBACK).await.unwrap();
    let other = UdpSocket::bind(LOOPBACK).await.unwrap();
    one.connect(other.local_addr().unwrap()).await.unwrap();
    other.connect(one.local_addr().unwrap()).await.unwrap();
    own_operations!(one, other);
}

#[test]
fn operations_of_ones_own_are_not_done_on_another_loop() {
    let (own, other) = (IoLoop::new().unwrap(), IoLoop::new().unwrap());
    let (here, _there) = own.run_sync(|| async { UnixStream::pair().unwrap() }).unwrap();
    let never = || -> io::Result<()> { panic!("it is not called") };
    other
        .run_sync(|| async {
            assert!(here.try_io(Interest::READ, never).is_err());
            assert!(here.async_io(Interest::READ, never).await.is_err());
            assert!(poll_fn(|cx| here.poll_readable(cx)).await.is_err());
            assert!(poll_fn(|cx| here.poll_read_lent(cx)).await.is_err());
        })
        .unwrap();
    own.close();
    assert!(here.try_io(Interest::READ, never).is_err());
}

#[waterspout::test]
async fn an_operation_of_ones_own_may_use_its_socket_again() {
    let (here, there) = tcp_pair().await;
    there.write_all(b"ab").await.unwrap();
    let read = here.async_io(Interest::READ, || {
        let mut buf = [0; 2];
        here.try_read(&mut buf[..1])?;
        here.try_read(&mut buf[1..])?;
        Ok(buf)
    });
    assert_eq!(read.await.unwrap(), *b"ab");
}

#[waterspout::test]
async fn of_the_tasks_that_poll_for_readiness_the_last_one_is_woken() {
    let (here, there) = UnixStream::pair().unwrap();
    let here = Rc::new(here);
    assert_eq!(kind(here.try_read(&mut [0])), io::ErrorKind::WouldBlock);
    let started = Rc::new(RefCell::new(Vec::new()));
    let waiting: Vec<_> = (0..2)
        .map(|n| {
            let (here, started) = (here.clone(), started.clone());
            coroutine::start(async move {
                poll_fn(|cx| here.poll_readable(cx)).await.unwrap();
                started.borrow_mut().push(n);
            })
        })
        .collect();
    there.write_all(b"a").await.unwrap();
    edges_come().await;
    settle().await;
    assert_eq!(*started.borrow(), [1]);
    waiting.iter().for_each(|waiting| waiting.cancel());
}

#[waterspout::test]
async fn a_lent_buffer_is_had_from_a_poll_function_when_there_is_something_to_read() {
    let (tcp, tcp_peer) = tcp_pair().await;
    let (unix, unix_peer) = UnixStream::pair().unwrap();
    let (writer, reader) = pipe::pair().unwrap();
    assert!(poll_fn(|cx| Poll::Ready(tcp.poll_read_lent(cx))).await.is_pending());
    for bytes in [b"abc", b"def"] {
        tcp_peer.write_all(bytes).await.unwrap();
        unix_peer.write_all(bytes).await.unwrap();
        writer.write_all(bytes).await.unwrap();
        assert_eq!(*poll_fn(|cx| tcp.poll_read_lent(cx)).await.unwrap(), *bytes);
        assert_eq!(*poll_fn(|cx| unix.poll_read_lent(cx)).await.unwrap(), *bytes);
        assert_eq!(*poll_fn(|cx| reader.poll_read_lent(cx)).await.unwrap(), *bytes);
    }
    drop((tcp_peer, unix_peer, writer));
    assert!(poll_fn(|cx| tcp.poll_read_lent(cx)).await.unwrap().is_empty());
    assert!(poll_fn(|cx| unix.poll_read_lent(cx)).await.unwrap().is_empty());
    assert!(poll_fn(|cx| reader.poll_read_lent(cx)).await.unwrap().is_empty());
}

#[waterspout::test]
async fn several_buffers_are_filled_and_emptied_without_waiting() {
    let (tcp, tcp_peer) = tcp_pair().await;
    let (unix, unix_peer) = UnixStream::pair().unwrap();
    let (writer, reader) = pipe::pair().unwrap();
    // More than one system call takes.
    let bufs = vec![IoSlice::new(b"ab"); 2000];
    let (mut one, mut other) = ([0; 3], [0; 5000]);
    for which in 0..3 {
        let mut bufs_in = [IoSliceMut::new(&mut one), IoSliceMut::new(&mut other)];
        let empty = match which {
            0 => tcp_peer.try_read_vectored(&mut bufs_in),
            1 => unix_peer.try_read_vectored(&mut bufs_in),
            _ => reader.try_read_vectored(&mut bufs_in),
        };
        assert_eq!(kind(empty), io::ErrorKind::WouldBlock);
        let written = match which {
            0 => tcp.try_write_vectored(&bufs),
            1 => unix.try_write_vectored(&bufs),
            _ => writer.try_write_vectored(&bufs),
        };
        let written = written.unwrap();
        assert!(0 < written && written <= 2 * 1024, "{written}");
        match which {
            0 => tcp_peer.readable().await.unwrap(),
            1 => unix_peer.readable().await.unwrap(),
            _ => poll_fn(|cx| reader.poll_readable(cx)).await.unwrap(),
        }
        let read = match which {
            0 => tcp_peer.try_read_vectored(&mut bufs_in),
            1 => unix_peer.try_read_vectored(&mut bufs_in),
            _ => reader.try_read_vectored(&mut bufs_in),
        };
        assert_eq!(read.unwrap(), written);
        assert_eq!((&one, &other[..2]), (b"aba", &b"ba"[..]));
    }
    poll_fn(|cx| writer.poll_writable(cx)).await.unwrap();
}

// ---------------------------------------------------------------------------------------------
// Sockets that were set up before

fn set_up() -> socket2::Socket {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_keepalive(true).unwrap();
    socket
}

#[waterspout::test]
async fn a_socket_that_was_set_up_is_connected_as_it_is() {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let address = listener.local_addr().unwrap();
    for nodelay in [false, true] {
        let socket = set_up();
        socket.set_tcp_nodelay(nodelay).unwrap();
        let stream = TcpStream::connect_socket(socket, address).await.unwrap();
        assert!(socket2::SockRef::from(&stream).keepalive().unwrap());
        assert_eq!(stream.nodelay().unwrap(), nodelay);
        let (server, _) = listener.accept().await.unwrap();
        stream.write_all(b"a").await.unwrap();
        assert_eq!(server.read(&mut [0]).await.unwrap(), 1);
        // Linux tells who asks again that it is connected, so there is nothing to wait for.
        if cfg!(target_os = "linux") {
            let socket = stream.into_std().unwrap();
            let stream = TcpStream::connect_socket(socket, address).await.unwrap();
            stream.write_all(b"b").await.unwrap();
            assert_eq!(server.read(&mut [0]).await.unwrap(), 1);
        }
    }
}

#[waterspout::test]
async fn a_socket_that_is_connected_after_it_was_taken_over_waits_like_any_other() {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let address = listener.local_addr().unwrap();
    let stream = TcpStream::from_std(set_up().into()).unwrap();
    edges_come().await; // The selector takes what is not connected for something that has hung up.
    let _ = socket2::SockRef::from(&stream).connect(&address.into());
    let (server, _) = listener.accept().await.unwrap();
    for byte in [b"a", b"b"] {
        let mut buf = [0];
        {
            let mut reading = pin!(stream.read(&mut buf));
            assert!(poll_once(reading.as_mut()).await.is_pending());
            server.write_all(byte).await.unwrap();
            with_timeout(SOON, reading).await.unwrap().unwrap();
        }
        assert_eq!(&buf, byte);
    }
}

#[waterspout::test]
async fn a_socket_that_was_set_up_is_closed_when_it_is_refused_or_given_up() {
    let (_bound, closed) = refusing(LOOPBACK);
    let before = counters().sources;
    let refused = TcpStream::connect_socket(set_up(), closed).await;
    assert_eq!(kind(refused), io::ErrorKind::ConnectionRefused);
    assert_eq!(counters().sources, before);
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    drop(TcpStream::connect_socket(set_up(), listener.local_addr().unwrap()));
    assert_eq!(kind(listener.try_accept()), io::ErrorKind::WouldBlock);
    let wrong_family = TcpStream::connect_socket(set_up(), "[::1]:1".parse().unwrap()).await;
    assert!(wrong_family.is_err());
}

// ---------------------------------------------------------------------------------------------
// Halves, and fds of pipes

#[waterspout::test]
async fn halves_of_one_stream_are_made_one_and_nothing_ends() {
    let (one, other) = tcp_pair().await;
    let (read, write) = one.into_split();
    let one = write.reunite(read).unwrap();
    one.write_all(b"a").await.unwrap();
    assert_eq!(other.read(&mut [0; 9]).await.unwrap(), 1);
    assert!(poll_fn(|cx| Poll::Ready(other.poll_read_lent(cx))).await.is_pending());
    drop(one);
    assert_eq!(other.read(&mut [0; 9]).await.unwrap(), 0);
}

#[waterspout::test]
async fn halves_of_two_streams_are_given_back_as_they_were() {
    let ((one, one_peer), (other, other_peer)) =
        (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
    let ((read, one_write), (other_read, write)) = (one.into_split(), other.into_split());
    let error = read.reunite(write).unwrap_err();
    assert_eq!(error.to_string(), "the halves are of two streams");
    assert!(poll_fn(|cx| Poll::Ready(other_peer.poll_read_lent(cx))).await.is_pending());
    let net::ReuniteError(read, write) = error;
    let one = read.reunite(one_write).unwrap();
    let other = other_read.reunite(write).unwrap();
    one.write_all(b"a").await.unwrap();
    other.write_all(b"b").await.unwrap();
    assert_eq!(*one_peer.read_lent().await.unwrap(), *b"a");
    assert_eq!(*other_peer.read_lent().await.unwrap(), *b"b");
}

#[waterspout::test]
async fn the_writing_end_of_a_pipe_shows_its_fd_until_it_is_closed() {
    let (mut writer, reader) = pipe::pair().unwrap();
    rustix::io::write(&writer, b"abc").unwrap();
    assert_eq!(writer.as_fd().as_raw_fd(), writer.as_raw_fd());
    assert_eq!(*reader.read_lent().await.unwrap(), *b"abc");
    writer.close().await.unwrap();
    assert_eq!(reader.read(&mut [0]).await.unwrap(), 0);
    let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| writer.as_raw_fd()));
    assert!(asked.is_err());
}

#[waterspout::test]
#[cfg(target_os = "linux")]
async fn a_fifo_is_opened_without_waiting_for_its_other_end() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let path = TempPath::new();
    mknodat(CWD, path.as_ref(), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let nobody_reads = pipe::PipeWriter::open(&path).unwrap_err();
    assert_eq!(nobody_reads.raw_os_error(), Some(rustix::io::Errno::NXIO.raw_os_error()));
    let reader = pipe::PipeReader::open(&path).unwrap();
    assert_eq!(kind(reader.try_read(&mut [0; 9])), io::ErrorKind::WouldBlock);
    let writer = pipe::PipeWriter::open(&path).unwrap();
    writer.write_all(b"abc").await.unwrap();
    assert_eq!(*reader.read_lent().await.unwrap(), *b"abc");
    drop(writer);
    assert_eq!(reader.read(&mut [0; 9]).await.unwrap(), 0);
    for refused in [
        pipe::PipeReader::open("/dev/null").map(drop),
        pipe::PipeWriter::open("/dev/null").map(drop),
    ] {
        assert_eq!(kind(refused), io::ErrorKind::InvalidInput);
    }
    assert_eq!(kind(pipe::PipeReader::open("/no/such/file")), io::ErrorKind::NotFound);
}

#[waterspout::test]
async fn what_is_fresh_is_taken_for_ready_until_it_was_tried() {
    let (_client, server) = tcp_pair().await;
    server.readable().await.unwrap();
    server.readable().await.unwrap();
    assert_eq!(kind(server.try_read(&mut [0])), io::ErrorKind::WouldBlock);
    assert!(poll_once(pin!(server.readable())).await.is_pending());
}

#[test]
fn an_event_that_comes_while_a_waker_is_cloned_is_not_missed() {
    let io_loop = IoLoop::new().unwrap();
    let (here, there) = UnixStream::pair().unwrap();
    // What is new is tried first, and found empty.
    assert_eq!(kind(here.try_read(&mut [0])), io::ErrorKind::WouldBlock);
    let mut readable = Box::pin(here.readable());
    let there = Rc::new(there);
    let (inner, writes) = (io_loop.clone(), there.clone());
    let act = move || {
        assert_eq!(writes.try_write(b"x").unwrap(), 1);
        // The loop hears of it, and nobody waits yet.
        inner.run_sync(|| turns(100)).unwrap();
    };
    assert!(poll_acting_when_cloned(&mut readable, act).is_pending());
    assert_eq!(WOKEN.get(), 1);
    assert!(poll(&mut readable).is_ready());

    let mut writable = Box::pin(there.writable());
    assert!(poll(&mut writable).is_ready());
    let mut readable = Box::pin(there.readable());
    assert_eq!(kind(there.try_read(&mut [0])), io::ErrorKind::WouldBlock);
    let closed = poll_acting_when_cloned(&mut readable, move || io_loop.close());
    assert!(matches!(closed, Poll::Ready(Err(_))), "nobody would wake it any more");
}

#[test]
fn a_waker_may_change_the_current_loop_when_it_is_cloned_and_when_it_is_dropped() {
    let (io_loop, other) = (IoLoop::new().unwrap(), IoLoop::new().unwrap());
    let (here, _there) = UnixStream::pair().unwrap();
    assert_eq!(kind(here.try_read(&mut [0])), io::ErrorKind::WouldBlock);
    WHEN_DROPPED.set(Some(Box::new(IoLoop::clear_current)));
    let mut readable = Box::pin(here.readable());
    let polled = poll_acting_when_cloned(&mut readable, move || other.make_current());
    assert!(matches!(polled, Poll::Ready(Err(_))));
    assert!(IoLoop::try_current().is_none());
    drop(readable);
    drop(io_loop);
}
