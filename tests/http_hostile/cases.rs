//! Those of Tornado's cases for a server of HTTP that nobody else here has.

use waterspout::coroutine::moment;
use waterspout::http::{Body, HttpError, HttpServer, Request, Response};
use waterspout::iostream::IoStream;
use waterspout::net::UnixStream;
use waterspout::testing::ExpectLog;

use super::{Client, Inside, reported, unharmed};

#[test]
fn the_query_is_decoded_and_the_path_is_not() {
    unharmed(|| async {
        let server = HttpServer::new(async |request: Request| {
            let arguments: Vec<_> = request.arguments().collect();
            format!("{} {arguments:?}", request.path())
        });
        let client = Inside::of(&server).connect().await;
        for (path, found) in [
            ("/echo?foo=%C3%A9", r#"/echo [("foo", "é")]"#),
            ("/echo?foo=&foo=", r#"/echo [("foo", ""), ("foo", "")]"#),
            ("/echo?foo=%ff+%00&bar", r#"/echo [("foo", "\u{fffd} \0"), ("bar", "")]"#),
            ("//double/%2f?", "//double/%2f []"),
        ] {
            assert_eq!(client.get(path).await.body.replace('\u{fffd}', "\\u{fffd}"), found);
        }
    });
}

#[waterspout::test]
async fn garbage_from_a_unix_socket_is_refused() {
    let _log = ExpectLog::new("waterspout::http", "a connection from a Unix socket ended");
    let server = HttpServer::new(async |_: Request| "");
    let path = std::env::temp_dir().join(format!("waterspout-hostile-{}", std::process::id()));
    server.listen_unix(&path, 0o600).unwrap();
    let client = Client(IoStream::new(UnixStream::connect(&path).await.unwrap()));
    std::fs::remove_file(&path).unwrap();
    client.send("garbage\r\n\r\n");
    assert_eq!(client.answer().await.status(), 400);
    assert!(client.is_closed().await);
}

#[test]
fn a_client_may_say_that_its_request_is_the_last() {
    unharmed(|| async {
        let server = HttpServer::new(async |_: Request| "");
        let inside = Inside::of(&server);
        for last in ["close", "CLOSE", "keep-alive, close", "keep-alive\r\nconnection: close"] {
            let client = inside.connect().await;
            let head = format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: {last}\r\n\r\n");
            client.send(head.repeat(2));
            let answer = client.answer().await;
            assert_eq!(answer.header("connection"), Some("close"), "{last}");
            assert!(client.is_closed().await);
        }
    });
}

#[test]
fn requests_that_come_together_are_answered_in_their_order() {
    unharmed(|| async {
        let server = HttpServer::new(async |mut request: Request| {
            moment().await;
            let body = request.text().await.unwrap();
            format!("{} {body}", request.path())
        });
        let client = Inside::of(&server).connect().await;
        let all: Vec<String> = (0..100)
            .map(|n| {
                let body = "GET /no HTTP/1.1\r\n\r\n".repeat(n % 3);
                let length = body.len();
                format!("POST /{n} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{body}")
            })
            .collect();
        client.send(all.concat());
        for n in 0..100 {
            let body = "GET /no HTTP/1.1\r\n\r\n".repeat(n % 3);
            assert_eq!(client.answer().await.body, format!("/{n} {body}"));
        }
    });
}

#[test]
fn a_client_may_leave_before_all_its_answers_have_come() {
    unharmed(|| async {
        let server = HttpServer::new(async |_: Request| "");
        let client = Inside::of(&server).connect().await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n".repeat(2));
        client.answer().await;
        drop(client);
        for _ in 0..5 {
            moment().await;
        }
        assert_eq!(server.connections(), 0);
    });
}

#[test]
fn the_answer_to_a_head_has_no_body_whatever_it_says() {
    unharmed(|| async {
        let server = HttpServer::new(async |request: Request| match request.path() {
            "/chunked" => {
                Response::new(Body::from_stream(futures::stream::iter([Ok::<_, std::io::Error>(
                    "body",
                )])))
            }
            _ => Response::text("body"),
        });
        let client = Inside::of(&server).connect().await;
        for path in ["/", "/chunked", "/", "/chunked"] {
            client.send(format!("HEAD {path} HTTP/1.1\r\nhost: a\r\n\r\n"));
            let head = client.head().await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            assert_eq!(head.contains("content-length: 4\r\n"), path == "/", "{head}");
        }
    });
}

#[test]
fn a_length_that_a_handler_gives_and_is_not_that_of_its_body_is_not_sent() {
    for length in ["foo", "+10", "1_0", "11", "9"] {
        let reported = reported(|| async {
            let server = HttpServer::new(async |request: Request| {
                let length = request.argument("length").unwrap().into_owned();
                Response::text("1234567890").with_header("content-length", length)
            });
            let inside = Inside::of(&server);
            assert_eq!(inside.connect().await.get("/?length=10").await.body, "1234567890");
            let client = inside.connect().await;
            let answer = client.get(&format!("/?length={}", length.replace('+', "%2b"))).await;
            assert_eq!(answer.status(), 500, "{length}");
            assert_eq!(client.get("/?length=10").await.body, "1234567890");
        });
        assert_eq!(reported.len(), 1, "{length}: {reported:?}");
    }
}

#[test]
fn a_limit_that_a_request_has_changed_is_that_requests_own() {
    unharmed(|| async {
        let server = HttpServer::new(async |mut request: Request| {
            if request.path() == "/large" {
                request.body_mut().set_max_size(10_240);
            }
            Ok::<_, HttpError>(request.bytes().await?.len().to_string())
        })
        .max_body_size(1024);
        let client = Inside::of(&server).connect().await;
        let body = "a".repeat(10_240);
        assert_eq!(client.post("/large", &body).await.body, "10240");
        assert_eq!(client.post("/small", &body).await.status(), 413);
        assert!(client.is_closed().await);
    });
}
