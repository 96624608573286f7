//! hyper and an axum `Router` on a `Server`: the handlers open connections, sleep and work elsewhere, share
//! state, speak JSON, and use what wants tokio's runtime.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_compat::Compat;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use http_body_util::BodyExt as _;
use hyper::server::conn::http1;
use hyper::{Request, StatusCode, client};
use hyper_util::service::TowerToHyperService;
use tower::ServiceBuilder;
use waterspout::concurrent::Executor;
use waterspout::coroutine;
use waterspout::http::HttpServer;
use waterspout::hyper::{Io, OnLoop};
use waterspout::iostream::IoStream;
use waterspout::net::{TcpClient, TcpServer, TcpStream};
use waterspout::tls::{Roots, Tls, TlsConnector};

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

/// What the handlers share has to be `Send`.
type Tally = Arc<Mutex<BTreeMap<String, u64>>>;

/// Adds what is sent, such as `{"apples": 2}`, and gives the whole tally.
async fn add(
    State(tally): State<Tally>,
    Json(more): Json<BTreeMap<String, u64>>,
) -> Json<BTreeMap<String, u64>> {
    let mut tally = tally.lock().unwrap();
    for (name, count) in more {
        *tally.entry(name).or_default() += count;
    }
    Json(tally.clone())
}

#[waterspout::test]
async fn an_axum_app_speaks_json_over_tls_and_its_connections_share_its_state() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let acceptor = Tls::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap();
    let acceptor = acceptor.acceptor().unwrap();
    let router = Router::new().route("/tally", post(add)).with_state(Tally::default());
    let server = HttpServer::tower(router).tls(acceptor);
    let port = server.listen_on("127.0.0.1", 0).unwrap();

    let mut roots = Roots::empty();
    roots.add_pem(certificate.as_bytes()).unwrap();
    let connector = TlsConnector::new(roots).unwrap().alpn(["http/1.1"]);
    let send = async |kind: &str, json: &str| {
        let stream = TcpClient::new().connect_tls(&connector, "localhost", port).await.unwrap();
        let (mut sender, connection) =
            client::conn::http1::handshake(Io::new(stream)).await.unwrap();
        coroutine::start(connection);
        let request =
            Request::post("/tally").header("host", "localhost").header("content-type", kind);
        let request = request.body(json.to_owned()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    };
    let json = "application/json";
    assert_eq!(send(json, r#"{"apples":2}"#).await, (StatusCode::OK, r#"{"apples":2}"#.into()));
    let both = r#"{"apples":3,"pears":1}"#;
    assert_eq!(send(json, r#"{"apples":1,"pears":1}"#).await, (StatusCode::OK, both.into()));
    // axum's own answers to what is no JSON, and to what does not say that it is.
    assert_eq!(send(json, r#"{"apples":"#).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(send("text/plain", "apples").await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(server.drain(Duration::from_secs(5)).await, 0);
}

/// A layer with a time limit of tokio's, and a handler that spawns on tokio.
#[waterspout::test]
async fn what_wants_tokios_runtime_has_it_within_compat() {
    let spawns = async || tokio::spawn(async { "spawned" }).await.unwrap();
    let router = Router::new().route("/spawn", get(spawns));
    let layered = ServiceBuilder::new().timeout(Duration::from_secs(5)).service(router);
    let in_context = HttpServer::tower(layered.clone()).tokio_context(true);
    let by_hyper = TcpServer::bare(async move |stream, _| {
        let service = TowerToHyperService::new(layered.clone());
        Compat::new(http1::Builder::new().serve_connection(Io::new(stream), service)).await
    });
    let ports = [in_context.listen_on("127.0.0.1", 0), by_hyper.listen_on("127.0.0.1", 0)];
    for port in ports {
        assert_eq!(fetch(port.unwrap(), "/spawn").await, "spawned");
    }
    let limit = Duration::from_secs(5);
    assert_eq!((in_context.drain(limit).await, by_hyper.drain(limit).await), (0, 0));
}
