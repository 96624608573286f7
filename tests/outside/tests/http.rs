//! hyper and an axum `Router` on a `Server`: the handlers open connections, sleep and work elsewhere.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use futures::{AsyncRead, AsyncWrite};
use hyper::rt::ReadBufCursor;
use hyper::server::conn::http1;
use hyper_util::service::TowerToHyperService;
use waterspout::concurrent::Executor;
use waterspout::coroutine;
use waterspout::iostream::IoStream;
use waterspout::net::{TcpServer, TcpStream};

/// A stream as hyper wants it.
struct Io(TcpStream);

impl hyper::rt::Read for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = [0; 8192];
        let most = bytes.len().min(buf.remaining());
        let n = ready!(Pin::new(&mut self.0).poll_read(cx, &mut bytes[..most]))?;
        buf.put_slice(&bytes[..n]);
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}

/// Asks another server, and waits a little: axum wants these futures `Send`.
async fn asks(State(other): State<SocketAddr>, Path(word): Path<String>) -> String {
    let ask = async {
        let mut stream = TcpStream::connect(other).await?;
        stream.write_all(format!("{word}\n").as_bytes()).await?;
        let mut answer = vec![0; word.len() + 1];
        futures::AsyncReadExt::read_exact(&mut stream, &mut answer).await?;
        Ok::<_, io::Error>(String::from_utf8_lossy(&answer).trim().to_uppercase())
    };
    coroutine::sleep(Duration::from_millis(1)).await;
    coroutine::with_timeout(Duration::from_secs(5), ask).await.unwrap().unwrap()
}

async fn offloads() -> String {
    let sum = Executor::shared().spawn_blocking(|| (1..=100).sum::<u32>()).await;
    sum.to_string()
}

async fn fetch(port: u16, path: &str) -> String {
    let stream = IoStream::new(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    stream.write(format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"));
    let answer = String::from_utf8(stream.read_until_close().await.unwrap()).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    body.to_owned()
}

#[waterspout::test]
async fn an_axum_router_is_served_and_its_handlers_await_what_this_crate_has() {
    let echo = TcpServer::new(async |stream, _| {
        while let Ok(line) = stream.read_until(b"\n", 1024).await {
            stream.write(line).await?;
        }
        Ok::<(), waterspout::StreamError>(())
    });
    let other = SocketAddr::from(([127, 0, 0, 1], echo.listen_on("127.0.0.1", 0).unwrap()));
    let router = Router::new()
        .route("/ask/{word}", get(asks))
        .route("/offload", get(offloads))
        .with_state(other);
    let server = TcpServer::bare(async move |stream, _| {
        let service = TowerToHyperService::new(router.clone());
        http1::Builder::new().serve_connection(Io(stream), service).await
    });
    let port = server.listen_on("127.0.0.1", 0).unwrap();
    assert_eq!(fetch(port, "/ask/hello").await, "HELLO");
    assert_eq!(fetch(port, "/offload").await, "5050");
    assert_eq!(server.drain(Duration::from_secs(5)).await, 0);
}
