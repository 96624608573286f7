//! `net::copy_bidirectional`.

mod common;

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};

use common::{pattern, turns};
use futures::future::join;
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use waterspout::coroutine;
use waterspout::net::{TcpListener, TcpStream, copy_bidirectional};
use waterspout::testing::duplex;

#[waterspout::test]
async fn much_goes_both_ways_through_small_streams_at_the_same_time() {
    let ((client, mut a), (mut b, server)) = (duplex(7), duplex(11));
    let proxy = coroutine::start(async move { copy_bidirectional(&mut a, &mut b).await });
    let side = |stream: waterspout::testing::Memory, sends: Vec<u8>| async move {
        let (mut reads, mut writes) = stream.split();
        let mut got = Vec::new();
        let write = async {
            writes.write_all(&sends).await.unwrap();
            writes.close().await.unwrap();
        };
        let (_, read) = join(write, reads.read_to_end(&mut got)).await;
        read.unwrap();
        got
    };
    let (to, back) = (pattern(10_000), pattern(5_000));
    let (answer, request) = join(side(client, to.clone()), side(server, back.clone())).await;
    assert!(request == to && answer == back);
    assert_eq!(proxy.await.unwrap(), (10_000, 5_000));
}

#[waterspout::test]
async fn sockets_are_copied_and_the_end_of_one_side_lets_the_other_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut client = TcpStream::connect(address).await.unwrap();
    let (mut a, _) = listener.accept().await.unwrap();
    let mut b = TcpStream::connect(address).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let proxy = coroutine::start(async move { copy_bidirectional(&mut a, &mut b).await });
    client.write_all(b"question").await.unwrap();
    client.close().await.unwrap();
    let mut question = String::new();
    server.read_to_string(&mut question).await.unwrap();
    server.write_all(b"answer").await.unwrap();
    drop(server);
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!((&*question, &*answer), ("question", "answer"));
    assert_eq!(proxy.await.unwrap(), (8, 6));
}

/// Reads what it is told, for ever, and takes as it is told.
struct Odd {
    reads: fn(usize) -> usize,
    takes: fn(usize) -> usize,
}

impl AsyncRead for Odd {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok((self.reads)(bytes.len())))
    }
}

impl AsyncWrite for Odd {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok((self.takes)(bytes.len())))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[waterspout::test]
async fn streams_that_take_nothing_or_lie_are_errors() {
    type Count = fn(usize) -> usize;
    let cases: [(Count, Count, ErrorKind); 3] = [
        (|n| n, |_| 0, ErrorKind::WriteZero),
        (|n| n, |n| n + 1, ErrorKind::InvalidData),
        (|n| n + 1, |n| n, ErrorKind::InvalidData),
    ];
    for (reads, takes, kind) in cases {
        let (mut a, mut b) = (Odd { reads, takes }, Odd { reads: |_| 0, takes });
        let error = copy_bidirectional(&mut a, &mut b).await.unwrap_err();
        assert_eq!(error.kind(), kind);
    }
}

#[waterspout::test]
async fn streams_that_are_always_ready_let_others_run() {
    let endless = || Odd { reads: |n| n, takes: |n| n };
    let copies =
        coroutine::start(async move { copy_bidirectional(&mut endless(), &mut endless()).await });
    turns(10).await;
    assert!(!copies.done());
    copies.cancel();
}
