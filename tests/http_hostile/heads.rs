//! Heads that are malformed, that disagree with themselves, or that two servers might read in two ways.

use std::cell::Cell;
use std::rc::Rc;

use waterspout::coroutine;
use waterspout::http::{HttpServer, Request, Response};
use waterspout::testing::ExpectLog;

use super::{Inside, reported, unharmed};

/// What has to be refused: a status, and what is sent. `|` is the end of a line; `^` is the byte NUL.
const REFUSED: &[(u16, &str)] = &[
    // Request lines.
    (400, "GARBAGE||"),
    (400, "GET||"),
    (400, "GET /||"),
    (400, "GET  / HTTP/1.1|host: a||"),
    (400, "GET /  HTTP/1.1|host: a||"),
    (400, " GET / HTTP/1.1|host: a||"),
    (400, "GET / HTTP/1.1 |host: a||"),
    (400, "GET\t/ HTTP/1.1|host: a||"),
    (400, "GET / HTTP/2.0|host: a||"),
    (400, "GET / HTTP/1.2|host: a||"),
    (400, "GET / HTTP/11|host: a||"),
    (400, "GET / HTTP/1|host: a||"),
    (400, "GET / http/1.1|host: a||"),
    (400, "GET / HTTPS/1.1|host: a||"),
    (400, "GET / ICY/1.0|host: a||"),
    (400, "G\u{e9}T / HTTP/1.1|host: a||"),
    (400, "GE(T / HTTP/1.1|host: a||"),
    (400, "GET /a b HTTP/1.1|host: a||"),
    (400, "GET /a^b HTTP/1.1|host: a||"),
    (400, "GET /a\tb HTTP/1.1|host: a||"),
    (400, "GET /a\u{7f}b HTTP/1.1|host: a||"),
    (400, "^^^^||"),
    (400, "\u{16}\u{3}\u{1}\u{2}^\u{1}^||"),
    // Names and values.
    (400, "GET / HTTP/1.1|host: a|no colon||"),
    (400, "GET / HTTP/1.1|host: a|: no name||"),
    (400, "GET / HTTP/1.1|host: a|x : blank||"),
    (400, "GET / HTTP/1.1|host: a|x\t: tab||"),
    (400, "GET / HTTP/1.1|host: a| x: leads||"),
    (400, "GET / HTTP/1.1| host: a||"),
    (400, "GET / HTTP/1.1|host: a|x: folded| value||"),
    (400, "GET / HTTP/1.1|host: a|x: folded|\tvalue||"),
    (400, "GET / HTTP/1.1|host: a|x(y): z||"),
    (400, "GET / HTTP/1.1|host: a|x y: z||"),
    (400, "GET / HTTP/1.1|host: a|x\u{e9}: z||"),
    (400, "GET / HTTP/1.1|host: a|x^: z||"),
    (400, "GET / HTTP/1.1|host: a|x: y^z||"),
    (400, "GET / HTTP/1.1|host: a|x: y\rz||"),
    (400, "GET / HTTP/1.1|host: a|x: y\u{7f}||"),
    (400, "GET / HTTP/1.1|host: a|x: y\u{1}||"),
    (400, "GET / HTTP/1.1|host: a\r\r\n|"),
    // Hosts.
    (400, "GET / HTTP/1.1||"),
    (400, "GET / HTTP/1.1|x: y||"),
    (400, "GET http://a/ HTTP/1.1|x: y||"),
    (400, "GET / HTTP/1.1|host: a|host: b||"),
    (400, "GET / HTTP/1.1|host: a|host: a||"),
    (400, "GET / HTTP/1.1|x: y|host: a|z: z|HOST: b||"),
    (400, "GET / HTTP/1.0|host: a|host: b||"),
    // Lengths.
    (400, "POST / HTTP/1.1|host: a|content-length: ||"),
    (400, "POST / HTTP/1.1|host: a|content-length: x||"),
    (400, "POST / HTTP/1.1|host: a|content-length: +1||"),
    (400, "POST / HTTP/1.1|host: a|content-length: -1||"),
    (400, "POST / HTTP/1.1|host: a|content-length: 1 1||"),
    (400, "POST / HTTP/1.1|host: a|content-length: 0x1||"),
    (400, "POST / HTTP/1.1|host: a|content-length: 1.0||"),
    (400, "POST / HTTP/1.1|host: a|content-length: 1_0||"),
    (400, "POST / HTTP/1.1|host: a|content-length: 1, 1||"),
    (400, "POST / HTTP/1.1|host: a|content-length: 1,2||"),
    (400, "POST / HTTP/1.1|host: a|content-length: \u{661}||"),
    (400, "POST / HTTP/1.1|host: a|content-length: 18446744073709551616||"),
    (431, "POST / HTTP/1.1|host: a|content-length: 18446744073709551615||"), // hyper's choice of a status
    (400, "POST / HTTP/1.1|host: a|content-length: 99999999999999999999999||"),
    (400, "POST / HTTP/1.1|host: a|content-length: 1|content-length: 2||ab"),
    (400, "POST / HTTP/1.1|host: a|content-length: 1|content-length: 01x||ab"),
    // Codings: what is not understood, and what another server may not see.
    (400, "POST / HTTP/1.1|host: a|transfer-encoding: ||"),
    (400, "POST / HTTP/1.1|host: a|transfer-encoding: identity||"),
    (400, "POST / HTTP/1.1|host: a|transfer-encoding: gzip||"),
    (400, "POST / HTTP/1.1|host: a|transfer-encoding: xchunked||0||"),
    (400, "POST / HTTP/1.1|host: a|transfer-encoding: chunkedx||0||"),
    (400, "POST / HTTP/1.1|host: a|transfer-encoding: \"chunked\"||0||"),
    (400, "POST / HTTP/1.1|host: a|transfer-encoding: chunked;q=1||0||"),
    (400, "POST / HTTP/1.1|host: a|transfer-encoding: chunked, identity||0||"),
    (400, "POST / HTTP/1.1|host: a|transfer-encoding: chunked|transfer-encoding: identity||0||"),
    (400, "POST / HTTP/1.1|host: a|transfer-encoding: identity|transfer-encoding: chunked||0||"),
    (400, "POST / HTTP/1.1|host: a|transfer-encoding: chunked, chunked||0||"),
    (400, "POST / HTTP/1.1|host: a|transfer-encoding: chunked|transfer-encoding: chunked||0||"),
    (400, "POST / HTTP/1.1|host: a|transfer-encoding: gzip, chunked||0||"),
    (400, "POST / HTTP/1.1|host: a|transfer-encoding: ,chunked||0||"),
    (400, "POST / HTTP/1.1|host: a|transfer-encoding: x chunked||0||"),
    (400, "POST / HTTP/1.1|host: a|transfer-encoding : chunked||0||"),
    (400, "POST / HTTP/1.1|host: a|transfer-encoding: \u{b}chunked||0||"),
    (400, "POST / HTTP/1.1|host: a|transfer-encoding:| chunked||0||"),
    (400, "POST / HTTP/1.0|host: a|transfer-encoding: chunked||0||"),
    (400, "POST / HTTP/1.0|transfer-encoding: chunked|content-length: 1||0||"),
    (400, "POST / HTTP/1.1|host: a|transfer-encoding: identity|content-length: 1||a"),
];

fn bytes_of(text: &str) -> Vec<u8> {
    text.replace('|', "\r\n").replace('^', "\0").into_bytes()
}

#[test]
fn heads_that_are_malformed_or_ambiguous_are_refused_and_nothing_behind_them_is_taken_for_a_request()
 {
    unharmed(|| async {
        let _log = ExpectLog::new("waterspout::http", "").optional();
        let asked = Rc::new(Cell::new(0));
        let counts = asked.clone();
        let server = HttpServer::new(async move |mut request: Request| {
            counts.set(counts.get() + 1);
            let body = request.text().await;
            format!("{} {body:?}", request.path())
        });
        let inside = Inside::of(&server);
        let other = inside.connect().await;
        let mut wrong = Vec::new();
        for (status, head) in REFUSED {
            let client = inside.connect().await;
            client.send(bytes_of(head));
            client.send("GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n");
            let all = client.0.read_until_close().await.unwrap();
            let all = String::from_utf8_lossy(&all);
            let is_refused =
                all.starts_with("HTTP/1.") && all[8..].starts_with(&format!(" {status} "));
            if !is_refused || all.matches("HTTP/1.").count() != 1 || asked.replace(0) != 0 {
                wrong.push(format!("{head:?}: {all:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(other.get("/").await.body.starts_with("/ "));
        assert_eq!(server.connections(), 1);
    });
}

/// What may look odd and has to be answered: what is sent, and what a handler finds in it.
const TAKEN: &[(&str, &str)] = &[
    ("GET / HTTP/1.1|host: a||", "GET / a []"),
    // Empty lines before a request, and single line feeds, are to be tolerated.
    ("||GET / HTTP/1.1|host: a||", "GET / a []"),
    ("GET / HTTP/1.1\nhost: a\n\n", "GET / a []"),
    ("GET / HTTP/1.1|host:||", "GET /  []"),
    ("GET / HTTP/1.1|host:\t a \t||", "GET / a []"),
    ("GET / HTTP/1.1|x: y|Host: a|x: z||", "GET / a []"),
    ("GET / HTTP/1.1|host: a|x:|y: \u{e9}\u{80}||", "GET / a []"),
    // As it was sent: what it means is the handler's to say.
    ("GET /../../etc/passwd HTTP/1.1|host: a||", "GET /../../etc/passwd a []"),
    ("GET /a/%2e%2e/%00/%zz/%ff HTTP/1.1|host: a||", "GET /a/%2e%2e/%00/%zz/%ff a []"),
    ("GET //a//b/./c;d HTTP/1.1|host: a||", "GET //a//b/./c;d a []"),
    ("GET /?a=%00&b=%ff&%=&&=%zz HTTP/1.1|host: a||", "GET /?a=%00&b=%ff&%=&&=%zz a []"),
    ("GET http://b:8080/c?d HTTP/1.1|host: a||", "GET http://b:8080/c?d b:8080 []"),
    ("GET http://b HTTP/1.1|host: a||", "GET http://b/ b []"),
    ("OPTIONS * HTTP/1.1|host: a||", "OPTIONS * a []"),
    ("GET * HTTP/1.1|host: a||", "GET * a []"),
    ("M-SEARCH!#$ / HTTP/1.1|host: a||", "M-SEARCH!#$ / a []"),
    // Bodies.
    ("GET / HTTP/1.1|host: a|content-length: 3||abc", "GET / a [abc]"),
    ("POST / HTTP/1.1|host: a||", "POST / a []"),
    ("POST / HTTP/1.1|host: a|content-length: 003||abc", "POST / a [abc]"),
    ("POST / HTTP/1.1|host: a|content-length: 3|content-length: 3||abc", "POST / a [abc]"),
    ("POST / HTTP/1.1|host: a|Transfer-Encoding: Chunked||3|abc|0||", "POST / a [abc]"),
    ("POST / HTTP/1.1|host: a|transfer-encoding:\tchunked ||3|abc|0||", "POST / a [abc]"),
    ("POST / HTTP/1.1|host: a|transfer-encoding: chunked||0003;a=\"b\"|abc|00||", "POST / a [abc]"),
    ("POST / HTTP/1.1|host: a|transfer-encoding: chunked||3|abc|0|x: y||", "POST / a [abc]"),
];

#[test]
fn what_looks_odd_and_is_valid_gets_to_the_handler_as_it_was_sent() {
    unharmed(|| async {
        let server = HttpServer::new(async |mut request: Request| {
            let body = request.text().await.unwrap();
            let _ = (request.path().len(), request.arguments().count(), request.remote_ip());
            let host = request.host().unwrap_or("none");
            format!("{} {} {host} [{body}]", request.method(), request.uri())
        });
        let client = Inside::of(&server).connect().await;
        for (head, found) in TAKEN {
            client.send(bytes_of(head));
            let answer = client.answer().await;
            assert_eq!(answer.status(), 200, "{head:?}");
            assert_eq!(answer.body, *found, "{head:?}");
        }
    });
}

#[test]
fn a_request_with_both_lengths_is_read_by_its_chunks_and_is_the_last_of_its_connection() {
    unharmed(|| async {
        let server = HttpServer::new(async |mut request: Request| {
            let has_length = request.header("content-length").is_some();
            let body = request.text().await.unwrap();
            format!("{} {has_length} {body}", request.path())
        });
        let inside = Inside::of(&server);
        for lengths in [
            "content-length: 6|transfer-encoding: chunked",
            "transfer-encoding: chunked|content-length: 6",
        ] {
            for version in ["connection: keep-alive|", ""] {
                let client = inside.connect().await;
                let head = format!("POST /one HTTP/1.1|host: a|{version}{lengths}||");
                client.send(bytes_of(&format!("{head}3|abc|0||GET /two HTTP/1.1|host: a||")));
                let answer = client.answer().await;
                assert_eq!(answer.body, "/one false abc");
                assert_eq!(answer.header("connection"), Some("close"));
                assert!(client.is_closed().await);
            }
        }
    });
}

#[test]
fn connections_of_http_1_0_are_kept_only_if_the_client_asks_for_that() {
    unharmed(|| async {
        let server = HttpServer::new(async |request: Request| format!("{:?}", request.host()));
        let inside = Inside::of(&server);
        let client = inside.connect().await;
        for _ in 0..2 {
            client.send("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n");
            let answer = client.answer().await;
            assert_eq!(answer.body, "None");
            assert_eq!(answer.header("connection"), Some("keep-alive"));
        }
        client.send("GET / HTTP/1.0\r\nhost: a\r\n\r\n");
        assert_eq!(client.answer().await.body, "Some(\"a\")");
        assert!(client.is_closed().await);
        // Without a version there is no head: that is HTTP/0.9.
        let client = inside.connect().await;
        let _log = ExpectLog::new("waterspout::http", "a connection from");
        client.send("GET /\r\n\r\n");
        assert_eq!(client.answer().await.status(), 400);
        assert!(client.is_closed().await);
    });
}

#[test]
fn heads_that_are_as_large_as_they_may_be_are_taken_and_larger_ones_are_refused_however_they_come()
{
    unharmed(|| async {
        let _log = ExpectLog::new("waterspout::http", "").optional();
        let server = HttpServer::new(async |request: Request| request.headers().len().to_string())
            .max_header_size(20_000);
        let inside = Inside::of(&server);
        let head = |size: usize| {
            let begin = "GET / HTTP/1.1\r\nhost: a\r\nx: ";
            format!("{begin}{}\r\n\r\n", "y".repeat(size - begin.len() - 4))
        };
        for part in [1, 1000, 100_000] {
            for (size, status) in [(20_000, 200), (20_001, 431), (200_000, 431)] {
                let client = inside.connect().await;
                for bytes in head(size).as_bytes().chunks(part) {
                    client.send(bytes);
                    if part > 1 || bytes[0] != b'y' {
                        coroutine::moment().await;
                    }
                }
                assert_eq!(client.answer().await.status(), status, "{size} in parts of {part}");
            }
        }
        for (count, status) in [(99, 200), (100, 431), (10_000, 431)] {
            let client = inside.connect().await;
            client.send(format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "a:\r\n".repeat(count)));
            assert_eq!(client.answer().await.status(), status, "{count} headers");
        }
        let client = inside.connect().await;
        client.send(format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(70_000)));
        assert_eq!(client.answer().await.status(), 431);
    });
}

#[test]
fn a_head_that_never_ends_is_not_collected() {
    unharmed(|| async {
        let _log = ExpectLog::new("waterspout::http", "a connection from");
        let server = HttpServer::new(async |_: Request| "");
        // So much is taken from the client as the connection holds, and as the server does.
        let client = Inside::of(&server).connect_holding(1000).await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n");
        let sent = client.0.write("x: y\r\n".repeat(1_000_000));
        assert_eq!(client.answer().await.status(), 431);
        // What comes then is thrown away, but not for long.
        assert!(sent.await.is_err());
    });
}

/// Values by which a client might smuggle a header, or an answer, in.
#[test]
fn a_header_that_a_handler_makes_of_what_a_client_says_has_no_line_breaks() {
    let reported = reported(|| async {
        let server = HttpServer::new(async |request: Request| {
            let value = request.argument("v").unwrap().into_owned();
            match request.path() {
                "/value" => Response::text("").with_header("x", value),
                "/name" => Response::text("").with_header(&value, "x"),
                _ => Response::redirect(&value),
            }
        });
        let client = Inside::of(&server).connect().await;
        for path in ["/value", "/name", "/redirect"] {
            for value in ["%0d%0aset-cookie:+a", "%0aset-cookie:+a", "a%0d", "a%00", "a%7f"] {
                let answer = client.get(&format!("{path}?v={value}")).await;
                assert_eq!(answer.status(), 500, "{path} {value}");
                assert_eq!(answer.header("set-cookie"), None);
            }
        }
    });
    assert_eq!(reported.len(), 15, "{reported:?}");
}
