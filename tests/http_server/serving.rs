//! What a handler gets, and what becomes of what it gives.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::rc::Rc;

use futures::stream;
use log::Level;
use waterspout::coroutine::{self, sleep};
use waterspout::http::{
    Body, Bytes, HttpError, HttpServer, Incoming, Method, Peer, Request, Response, StatusCode,
};
use waterspout::iostream::IoStream;
use waterspout::net::UnixStream;
use waterspout::testing::ExpectLog;
use waterspout::{Exception, IoLoop};

use super::{Client, Inside, SECOND, connect};
use crate::common::exceptions;

#[waterspout::test]
async fn requests_of_a_connection_are_answered_in_order_with_state_of_the_loop() {
    let visits = Rc::new(Cell::new(0));
    let counted = visits.clone();
    let server = HttpServer::new(async move |request: Request| {
        counted.set(counted.get() + 1);
        format!("{} {} {}", request.method(), request.path(), counted.get())
    });
    let client = connect(server.listen_on("127.0.0.1", 0).unwrap()).await;
    assert_eq!(client.get("/one").await.body, "GET /one 1");
    assert_eq!(client.post("/two", "x").await.body, "POST /two 2");
    // Both at once.
    client.send("GET /3 HTTP/1.1\r\nhost: a\r\n\r\nGET /4 HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.answer().await.body, "GET /3 3");
    assert_eq!(client.answer().await.body, "GET /4 4");
    assert_eq!((visits.get(), server.connections(), server.accepted()), (4, 1, 1));
}

#[waterspout::test]
async fn a_unix_socket_is_served_beside_a_port() {
    let server = HttpServer::new(async |request: Request| format!("{:?}", request.peer()));
    let path = std::env::temp_dir().join(format!("waterspout-http-{}", std::process::id()));
    server.listen_unix(&path, 0o600).unwrap();
    let port = server.listen_on("127.0.0.1", 0).unwrap();
    let client = Client(IoStream::new(UnixStream::connect(&path).await.unwrap()));
    assert_eq!(client.get("/").await.body, "Some(a Unix socket)");
    assert!(connect(port).await.get("/").await.body.starts_with("Some(127.0.0.1:"));
    std::fs::remove_file(path).unwrap();
}

#[waterspout::test]
async fn bodies_come_whole_or_in_parts_with_their_trailers() {
    let server = HttpServer::new(async |mut request: Request| {
        if request.path() == "/parts" {
            let mut lengths = Vec::new();
            while let Some(part) = request.body_mut().chunk().await? {
                lengths.push(part.len().to_string());
            }
            let trailers = request.body().trailers().map(|trailers| trailers["sum"].clone());
            return Ok(format!("{} {trailers:?}", lengths.join("+")));
        }
        Ok::<_, HttpError>(request.text().await?)
    });
    let inside = Inside::of(&server);
    let client = inside.connect().await;
    assert_eq!(client.post("/", "").await.body, "");
    assert_eq!(client.post("/", "hello").await.body, "hello");
    client.send("POST /parts HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    client.send("3\r\nabc\r\n");
    coroutine::moment().await;
    client.send("2\r\nde\r\n0\r\nsum: 5\r\n\r\n");
    assert_eq!(client.answer().await.body, r#"3+2 Some("5")"#);
    let wrong = client.post("/", "\u{1}").await;
    assert_eq!(wrong.body, "\u{1}");
    client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\n\xff");
    assert_eq!(client.answer().await.status(), 400);
}

#[waterspout::test]
async fn a_streamed_answer_is_asked_for_more_only_when_the_client_has_taken_what_went_before() {
    let given = Rc::new(Cell::new(0));
    let counted = given.clone();
    let server = HttpServer::new(async move |_: Request| {
        let counted = counted.clone();
        let parts = stream::repeat_with(move || {
            counted.set(counted.get() + 1);
            Ok::<_, Infallible>(vec![b'x'; 10_000])
        });
        Response::new(Body::from_stream(parts))
    });
    let inside = Inside::of(&server);
    let client = inside.connect_holding(1000).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    client.head().await;
    for _ in 0..100 {
        coroutine::moment().await;
    }
    let before = given.get();
    assert!(before < 15, "{before} parts for nobody");
    client.0.read_bytes(500_000).await.unwrap();
    assert!(given.get() >= 49);
}

#[waterspout::test]
async fn a_large_answer_arrives_as_it_was_whatever_it_is_cut_into() {
    let bytes: Bytes = (0..1_000_000u32).map(|n| b'a' + (n % 23) as u8).collect::<Vec<_>>().into();
    let sent = bytes.clone();
    let server = HttpServer::new(async move |_: Request| sent.clone());
    let client = connect(server.listen_on("127.0.0.1", 0).unwrap()).await;
    let answer = client.get("/").await;
    assert_eq!(answer.header("content-length"), Some("1000000"));
    assert!(answer.body.as_bytes() == bytes);
    assert_eq!(client.get("/").await.body.len(), 1_000_000);
}

#[test]
fn a_handler_that_fails_or_panics_is_answered_with_500_and_reported_with_the_path() {
    let reported = exceptions(IoLoop::builder(), || async {
        let server = HttpServer::new(async |request: Request| match request.path() {
            "/panics" => panic!("a secret"),
            "/fails" => Err(std::io::Error::other("another secret"))?,
            "/header" => Ok(Response::text("").with_header("x", "a\r\nset-cookie: b")),
            "/refuses" => Err(HttpError::new(StatusCode::FORBIDDEN)),
            "/body" => {
                let parts = [Ok("some"), Err(std::io::Error::other("cut"))];
                Ok(Response::new(Body::from_stream(stream::iter(parts))))
            }
            _ => Ok(Response::text("fine")),
        });
        let client = connect(server.listen_on("127.0.0.1", 0).unwrap()).await;
        for path in ["/panics?a=1", "/fails", "/header"] {
            let answer = client.get(path).await;
            assert_eq!(answer.status(), 500, "{path}");
            assert!(answer.body.contains("500: Internal Server Error"));
            assert!(!answer.body.contains("secret") && answer.header("set-cookie").is_none());
        }
        let refused = client.get("/refuses").await;
        assert_eq!(refused.status(), 403);
        assert_eq!(
            refused.body,
            "<html><title>403: Forbidden</title><body>403: Forbidden</body></html>"
        );
        // The same connection goes on.
        assert_eq!(client.get("/").await.body, "fine");
        client.send("GET /body HTTP/1.1\r\nhost: a\r\n\r\n");
        let rest = client.0.read_until_close().await.unwrap();
        assert!(!rest.ends_with(b"0\r\n\r\n"), "it is not whole");
    });
    let reported = reported.join("\n");
    for what in ["a secret, at GET /panics?a=1", "another secret", "at GET /fails", "\"x\"", "cut"]
    {
        assert!(reported.contains(what), "{what}: {reported}");
    }
    assert_eq!(reported.lines().count(), 4, "{reported}");
}

#[waterspout::test]
async fn what_a_handler_gives_becomes_an_answer() {
    let server = HttpServer::new(async |request: Request| match request.path() {
        "/text" => "text".to_owned().into_response(),
        "/bytes" => vec![1, 2].into_response(),
        "/none" => ().into_response(),
        "/redirect" => Response::redirect("/elsewhere"),
        "/made" => (StatusCode::CREATED, "made").into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    });
    use waterspout::http::IntoResponse as _;
    let client = Inside::of(&server).connect().await;
    let text = client.get("/text").await;
    assert_eq!(text.header("content-type"), Some("text/plain; charset=utf-8"));
    assert!(text.header("date").is_some());
    assert_eq!(client.get("/bytes").await.header("content-type"), Some("application/octet-stream"));
    client.send("GET /none HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(client.head().await.starts_with("HTTP/1.1 204 No Content\r\n"));
    let redirect = client.get("/redirect").await;
    assert_eq!((redirect.status(), redirect.header("location")), (302, Some("/elsewhere")));
    assert_eq!(client.get("/made").await.status(), 201);
    assert_eq!(client.get("/none-such").await.status(), 404);
    client.send("HEAD /text HTTP/1.1\r\nhost: a\r\n\r\n");
    let head = client.head().await;
    assert!(head.contains("content-length: 4\r\n"), "{head}");
    assert_eq!(client.get("/text").await.body, "text");
}

#[waterspout::test]
async fn a_tower_service_is_served_and_knows_the_peer() {
    let service = tower::service_fn(async |request: http::Request<Incoming>| {
        if request.method() == Method::DELETE {
            return Err("no");
        }
        let peer = request.extensions().get::<Peer>().cloned().unwrap();
        Ok(http::Response::new(Body::from(format!("{peer} {}", request.uri()))))
    });
    let server = HttpServer::tower(service);
    let client = Inside::of(&server).connect().await;
    assert_eq!(client.get("/a?b=c").await.body, "\"a test\" /a?b=c");
}

#[waterspout::test]
async fn proxies_are_believed_only_if_that_was_asked_for() {
    async fn tell(request: Request) -> String {
        format!("{:?} {}", request.remote_ip(), request.scheme())
    }
    let ask = async |server: HttpServer, headers: &str| {
        let client = connect(server.listen_on("127.0.0.1", 0).unwrap()).await;
        client.send(format!("GET / HTTP/1.1\r\nhost: a\r\n{headers}\r\n"));
        client.answer().await.body
    };
    let forwarded =
        "x-forwarded-for: 10.0.0.1, 192.0.2.7\r\nx-forwarded-for: 192.0.2.9\r\nx-scheme: https\r\n";
    let plain = || HttpServer::new(tell);
    assert_eq!(ask(plain(), forwarded).await, "Some(127.0.0.1) http");
    assert_eq!(ask(plain().xheaders(true), forwarded).await, "Some(192.0.2.9) https");
    let trusted = ["192.0.2.9", "192.0.2.7"].map(|proxy| proxy.parse().unwrap());
    assert_eq!(ask(plain().trusted_downstream(trusted), forwarded).await, "Some(10.0.0.1) https");
    let real = "x-real-ip: 2001:db8::1\r\nx-scheme: ftp\r\n";
    assert_eq!(ask(plain().xheaders(true), real).await, "Some(2001:db8::1) http");
    assert_eq!(ask(plain().xheaders(true), "x-real-ip: <evil>\r\n").await, "Some(127.0.0.1) http");
}

#[waterspout::test]
async fn a_connection_is_upgraded_and_what_has_arrived_comes_along() {
    let server = HttpServer::new(async |mut request: Request| {
        let upgrading = hyper::upgrade::on(&mut *request);
        coroutine::start(async move {
            let upgraded = upgrading.await.unwrap();
            let stream = IoStream::new(waterspout::hyper::Io::new(upgraded));
            while let Ok(line) = stream.read_until(b"\n", 64).await {
                drop(stream.write([b"> ", &line[..]].concat()));
            }
        });
        Response::new(Body::empty())
            .with_status(StatusCode::SWITCHING_PROTOCOLS)
            .with_header("connection", "upgrade")
            .with_header("upgrade", "lines")
    });
    let client = Inside::of(&server).connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: lines\r\n\r\none\n");
    assert!(client.head().await.starts_with("HTTP/1.1 101 "));
    assert_eq!(client.0.read_until(b"\n", 64).await.unwrap(), b"> one\n");
    client.send("two\n");
    assert_eq!(client.0.read_until(b"\n", 64).await.unwrap(), b"> two\n");
}

#[cfg(feature = "http2")]
#[waterspout::test]
async fn http_2_by_its_preface_runs_requests_side_by_side() {
    use http_body_util::{BodyExt as _, Empty};
    let order = Rc::new(RefCell::new(Vec::new()));
    let noted = order.clone();
    let server = HttpServer::new(async move |request: Request| {
        if request.path() == "/slow" {
            sleep(SECOND).await;
        }
        noted.borrow_mut().push(request.path().to_owned());
        format!("{:?} {:?}", request.version(), request.host())
    });
    let port = server.listen_on("127.0.0.1", 0).unwrap();
    let stream = waterspout::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let io = waterspout::hyper::Io::new(stream);
    let (sender, connection) =
        hyper::client::conn::http2::handshake(waterspout::hyper::OnLoop, io).await.unwrap();
    coroutine::start(connection);
    let ask = |path: &str| {
        let uri = format!("http://test{path}");
        let request = http::Request::get(uri).body(Empty::<Bytes>::new()).unwrap();
        let mut sender = sender.clone();
        async move {
            let answer = sender.send_request(request).await.unwrap();
            answer.into_body().collect().await.unwrap().to_bytes()
        }
    };
    let (slow, quick) = waterspout::futures::join!(ask("/slow"), ask("/quick"));
    assert_eq!(slow, r#"HTTP/2.0 Some("test")"#);
    assert_eq!(quick, slow);
    assert_eq!(*order.borrow(), ["/quick", "/slow"]);
    assert_eq!(server.connections(), 1);
}

#[cfg(feature = "http2")]
#[waterspout::test]
async fn of_http_2_no_body_is_sent_where_there_must_be_none() {
    use http_body_util::{BodyExt as _, Empty};
    let server = HttpServer::new(async |request: Request| match request.path() {
        "/whole" => Response::text("text"),
        "/streamed" => Response::new(Body::from_reader(&b"text"[..])),
        "/panics" => panic!("no answer"),
        "/none" => Response::text("text").with_status(StatusCode::NO_CONTENT),
        _ => Response::text("text").with_status(StatusCode::NOT_MODIFIED),
    });
    let port = server.listen_on("127.0.0.1", 0).unwrap();
    let stream = waterspout::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let io = waterspout::hyper::Io::new(stream);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(waterspout::hyper::OnLoop, io).await.unwrap();
    coroutine::start(connection);
    let _expected = ExpectLog::new("waterspout::application", "exception in a request handler");
    let cases = [
        (Method::HEAD, "/whole", 200, Some("4")),
        (Method::HEAD, "/streamed", 200, None),
        (Method::HEAD, "/panics", 500, Some("93")),
        (Method::GET, "/none", 204, None),
        (Method::GET, "/unchanged", 304, None),
    ];
    for (method, path, status, length) in cases {
        let request = http::Request::builder().method(method).uri(format!("http://test{path}"));
        let answer =
            sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
        let said = answer.headers().get("content-length").map(|length| length.to_str().unwrap());
        assert_eq!(said, length, "{path}");
        // An error if anything came.
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "", "{path}");
    }
}

#[test]
fn what_a_service_fails_with_is_answered_with_500_and_reported() {
    let reported = Rc::new(RefCell::new(Vec::new()));
    let noted = reported.clone();
    let report = move |exception: &Exception| noted.borrow_mut().push(exception.to_string());
    let io_loop = IoLoop::builder().on_exception(report).build().unwrap();
    io_loop
        .run_sync(|| async {
            let service = tower::service_fn(async |_: http::Request<Incoming>| {
                Err::<http::Response<Body>, _>("the database is gone")
            });
            let server = HttpServer::tower(service);
            let client = Inside::of(&server).connect().await;
            assert_eq!(client.get("/a").await.status(), 500);
        })
        .unwrap();
    assert!(reported.borrow()[0].contains("the database is gone"), "{reported:?}");
}

#[waterspout::test]
async fn each_request_is_a_line_of_the_access_log_at_the_level_of_its_status() {
    let server = HttpServer::new(async |request: Request| match request.path() {
        "/gone" => StatusCode::GONE,
        "/down" => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    });
    let client = connect(server.listen_on("127.0.0.1", 0).unwrap()).await;
    for (path, line, level) in [
        ("/a?b=c", "200 GET /a?b=c (127.0.0.1) ", Level::Info),
        ("/gone", "410 GET /gone (127.0.0.1) ", Level::Warn),
        ("/down", "503 GET /down (127.0.0.1) ", Level::Error),
    ] {
        let expected = ExpectLog::new("waterspout::access", line).level(level);
        client.get(path).await;
        coroutine::moment().await;
        assert_eq!(expected.count(), 1, "{path}");
    }
}
