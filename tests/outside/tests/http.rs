//! hyper and an axum `Router` on a `Server`: the handlers open connections, sleep and work elsewhere.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::service::TowerToHyperService;
use waterspout::concurrent::Executor;
use waterspout::coroutine;
use waterspout::hyper::{Io, OnLoop};
use waterspout::iostream::IoStream;
use waterspout::net::{TcpServer, TcpStream};

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
        let mut http = http1::Builder::new();
        http.timer(OnLoop).serve_connection(Io::new(stream), service).await
    });
    let port = server.listen_on("127.0.0.1", 0).unwrap();
    assert_eq!(fetch(port, "/ask/hello").await, "HELLO");
    assert_eq!(fetch(port, "/offload").await, "5050");
    assert_eq!(server.drain(Duration::from_secs(5)).await, 0);
}
