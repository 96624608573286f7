//! Taking a stream apart, and asking what it is over.

use std::cell::Cell;
use std::rc::Rc;

use futures::io::{AsyncReadExt, AsyncWriteExt};
use waterspout::StreamError;
use waterspout::coroutine;
use waterspout::iostream::IoStream;

use crate::{Kind, Tcp, Unix, assert_clean_end, on_every_transport, pattern, settle};

on_every_transport!(
    what_is_taken_out_goes_on_where_the_stream_was,
    a_stream_in_use_stays_whole_and_loses_nothing,
    a_closed_stream_is_not_taken_apart,
    the_other_handles_of_what_was_taken_apart_are_closed,
);

async fn what_is_taken_out_goes_on_where_the_stream_was<K: Kind>() {
    let (one, mut other) = K::io_pair().await;
    let stream = IoStream::new(one);
    let bytes = pattern(1000);
    other.write_all(b"STARTTLS\n").await.unwrap();
    other.write_all(&bytes[..500]).await.unwrap();
    assert_eq!(stream.read_until("\n", 100).await.unwrap(), b"STARTTLS\n");
    stream.write("go ahead").await.unwrap();
    let (mut io, mut received) = stream.into_inner().unwrap();
    other.write_all(&bytes[500..]).await.unwrap();
    let arrived = received.len();
    received.resize(1000, 0);
    io.read_exact(&mut received[arrived..]).await.unwrap();
    assert!(received == bytes);
    io.write_all(b", and so on").await.unwrap();
    let mut answer = [0; 19];
    other.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"go ahead, and so on");
    // It is a stream again, if one likes.
    let again = IoStream::new(io);
    again.write("!").await.unwrap();
    drop(again);
    let mut rest = Vec::new();
    other.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"!");
}

async fn a_stream_in_use_stays_whole_and_loses_nothing<K: Kind>() {
    let (stream, other) = K::pair().await;
    let reading = coroutine::start(stream.read_bytes(3));
    other.write("ab");
    settle().await;
    let error = stream.into_inner().err().unwrap();
    assert!(matches!(error.error(), StreamError::NotIdle), "{error}");
    let stream = error.into_stream();
    other.write("cd");
    assert_eq!(reading.await.unwrap(), b"abc");

    let writing = stream.write(vec![b'x'; 20_000_000]);
    let error = stream.into_inner().err().unwrap();
    assert!(matches!(error.error(), StreamError::NotIdle), "{error}");
    let stream = error.into_stream();
    assert_eq!(other.read_bytes(20_000_000).await.unwrap().len(), 20_000_000);
    writing.await.unwrap();

    // Somebody looks at what it is over.
    let refused = stream.with_io(|_| stream.clone().into_inner().is_err());
    assert_eq!(refused, Some(true));
    let (_io, received) = stream.into_inner().unwrap();
    assert_eq!(received, b"d");
}

async fn a_closed_stream_is_not_taken_apart<K: Kind>() {
    let (stream, _other) = K::pair().await;
    stream.close();
    let error = stream.into_inner().err().unwrap();
    assert_clean_end(Err::<(), _>(StreamError::from(error)));
}

async fn the_other_handles_of_what_was_taken_apart_are_closed<K: Kind>() {
    let (stream, other) = K::pair().await;
    let calls = Rc::new(Cell::new(0));
    let counted = calls.clone();
    stream.set_close_callback(move || counted.set(counted.get() + 1));
    let closed = coroutine::start(stream.closed());
    let mut clone = stream.clone();
    let polling = coroutine::start(async move { clone.read(&mut [0]).await });
    let handle = stream.clone();
    settle().await;
    let (io, received) = stream.into_inner().unwrap();
    assert!(received.is_empty());
    assert_eq!(Rc::strong_count(&calls), 1, "the callback is dropped");
    closed.await;
    assert_eq!(polling.await.unwrap(), 0);
    assert!(handle.is_closed() && handle.error().is_none());
    assert_clean_end(handle.read_bytes(1).await);
    assert_clean_end(handle.write("x").await);
    assert!(handle.clone().into_inner().is_err());
    handle.close();
    drop(handle);
    settle().await;
    assert_eq!(calls.get(), 0);
    // And nothing of that has reached the connection.
    assert!(!other.is_closed());
    let stream = IoStream::new(io);
    other.write("abc");
    assert_eq!(stream.read_bytes(3).await.unwrap(), b"abc");
}

#[waterspout::test]
async fn a_stream_knows_the_addresses_and_the_options_of_its_socket() {
    let (one, other) = Tcp::pair().await;
    assert_eq!(one.peer_addr().unwrap(), other.local_addr().unwrap());
    assert_eq!(other.peer_addr().unwrap(), one.local_addr().unwrap());
    assert!(one.nodelay().unwrap());
    one.set_nodelay(false).unwrap();
    assert!(!one.nodelay().unwrap());
    one.close();
    let errors = [
        one.peer_addr().map(drop),
        one.local_addr().map(drop),
        one.nodelay().map(drop),
        one.set_nodelay(true),
    ];
    for error in errors {
        assert_eq!(error.unwrap_err().kind(), std::io::ErrorKind::NotConnected);
    }
    let (one, _other) = Unix::pair().await;
    assert!(one.peer_addr().unwrap().is_unnamed() && one.local_addr().unwrap().is_unnamed());
    one.close();
    assert!(one.peer_addr().is_err() && one.local_addr().is_err());
}
