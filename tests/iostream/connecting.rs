//! A stream that is used while it connects.

use std::cell::Cell;
use std::io::ErrorKind::{ConnectionRefused, WouldBlock};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;

use socket2::{Domain, Socket, Type};
use waterspout::coroutine;
use waterspout::iostream::IoStream;
use waterspout::net::{TcpListener, TcpStream};
use waterspout::{IoLoop, StreamError};

use super::common::{LOOPBACK, poll_once, refusing, turns};
use super::{pattern, settle};

fn sources() -> u64 {
    IoLoop::current().counters().sources
}

fn is_refused<T: std::fmt::Debug>(result: Result<T, StreamError>) {
    let error = result.unwrap_err();
    assert_eq!(error.real_error().map(std::io::Error::kind), Some(ConnectionRefused));
}

#[waterspout::test]
async fn what_is_written_while_it_connects_is_sent_then() {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let sent = pattern(1_000_000);
    let stream = IoStream::connect(listener.local_addr().unwrap()).unwrap();
    let (first, last) = (stream.write("first "), stream.write(&sent));
    let answer = stream.read_until_close();
    assert!(stream.writing(), "nobody has told the loop yet that it is connected");
    let (server, _) = listener.accept().await.unwrap();
    let server = IoStream::new(server);
    assert_eq!(server.read_bytes(6).await.unwrap(), b"first ");
    assert_eq!(server.read_bytes(sent.len()).await.unwrap(), sent);
    server.write("answer");
    drop(server);
    assert_eq!(answer.await.unwrap(), b"answer");
    first.await.unwrap();
    last.await.unwrap();
    assert!(stream.is_closed() && stream.error().is_none());
}

#[waterspout::test]
async fn a_stream_that_was_connected_while_it_was_used_is_like_any_other() {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let stream = IoStream::connect(listener.local_addr().unwrap()).unwrap();
    assert!(stream.nodelay().unwrap());
    stream.write("a").await.unwrap();
    let (server, peer) = listener.accept().await.unwrap();
    assert_eq!(stream.local_addr().unwrap(), peer);
    assert_eq!(stream.peer_addr().unwrap(), server.local_addr().unwrap());
    let (socket, _) = stream.into_inner().unwrap();
    server.write_all(b"b").await.unwrap();
    assert_eq!(socket.read(&mut [0; 2]).await.unwrap(), 1);
}

/// What somebody does with the stream that is refused.
type Use = fn(&IoStream<TcpStream>);

#[waterspout::test]
async fn a_refused_connection_is_the_error_of_whoever_uses_the_stream() {
    let (_bound, closed) = refusing(LOOPBACK);
    // Whoever of them is first to ask the system.
    let uses: [Use; 4] = [
        |_| {},
        |stream| drop(stream.write("before the others")),
        |stream| drop(coroutine::start(stream.closed())),
        |stream| {
            let stream = stream.clone();
            coroutine::start(async move { is_refused(stream.read_bytes(1).await) });
        },
    ];
    for first in uses {
        let before = sources();
        let stream = IoStream::connect(closed).unwrap();
        let callbacks = Rc::new(Cell::new(0));
        let called = callbacks.clone();
        stream.set_close_callback(move || called.set(called.get() + 1));
        first(&stream);
        let written = stream.write("abc");
        if !stream.reading() {
            is_refused(stream.read_bytes(1).await);
        }
        is_refused(written.await);
        assert!(stream.is_closed());
        assert_eq!(stream.error().unwrap().kind(), ConnectionRefused);
        // Also whoever comes later.
        is_refused(stream.write("d").await);
        is_refused(stream.read_bytes(1).await);
        settle().await;
        assert_eq!(callbacks.get(), 1);
        assert_eq!(sources(), before);
    }
}

#[waterspout::test]
async fn who_only_watches_a_stream_hears_that_it_was_refused() {
    let (_bound, closed) = refusing(LOOPBACK);
    let stream = IoStream::connect(closed).unwrap();
    stream.closed().await;
    assert_eq!(stream.error().unwrap().kind(), ConnectionRefused);
}

#[waterspout::test]
async fn an_attempt_that_fails_at_once_is_the_error_of_the_call() {
    let before = sources();
    let nowhere = SocketAddr::from(([255, 255, 255, 255], 1));
    assert!(IoStream::connect(nowhere).is_err());
    assert_eq!(sources(), before);
}

/// A listener whose queue is full, so that who connects waits, and what is in that queue.
fn full() -> (Socket, Socket, SocketAddr) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&LOOPBACK.into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let waits = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    waits.connect(&address).unwrap();
    (listener, waits, address.as_socket().unwrap())
}

#[waterspout::test]
async fn a_stream_that_is_closed_or_dropped_while_it_connects_gives_the_attempt_up() {
    if !cfg!(target_os = "linux") {
        return; // What other systems do with a full queue differs.
    }
    let (_listener, _waits, address) = full();
    let before = sources();
    for closes in [false, true] {
        let stream = IoStream::connect(address).unwrap();
        let socket_is_there = |stream: &IoStream<TcpStream>| {
            stream.with_io(|socket| socket.try_read(&mut [0]).unwrap_err().kind())
        };
        turns(100).await;
        assert_eq!(socket_is_there(&stream), Some(WouldBlock));
        assert!(poll_once(pin!(stream.read_bytes(1))).await.is_pending());
        match closes {
            // Nothing that was written is unsent.
            false => drop(stream),
            true => {
                let (written, read) = (stream.write("abc"), stream.read_bytes(1));
                turns(100).await;
                assert!(stream.writing());
                stream.close();
                assert!(matches!(written.await, Err(StreamError::Closed(None))));
                assert!(matches!(read.await, Err(StreamError::Closed(None))));
            }
        }
        settle().await;
        assert_eq!(sources(), before);
    }
}

#[waterspout::test]
async fn what_was_written_before_the_last_handle_was_dropped_is_sent_when_it_is_connected() {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let stream = IoStream::connect(listener.local_addr().unwrap()).unwrap();
    stream.write("abc");
    drop(stream);
    let (server, _) = listener.accept().await.unwrap();
    assert_eq!(IoStream::new(server).read_until_close().await.unwrap(), b"abc");
}
