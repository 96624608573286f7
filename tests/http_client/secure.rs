//! `https`: certificates, HTTP/2, and tunnels through proxies.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;

use common::turns;
use futures::poll;
use futures::stream;
use http_body_util::BodyExt as _;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use waterspout::coroutine::{self, now, sleep};
use waterspout::http::{Body, FetchError, HttpClient, Version};
use waterspout::hyper::{Io, OnLoop};
use waterspout::locks::Event;
use waterspout::net::copy_bidirectional;
use waterspout::tls::{Roots, Tls, TlsConnector};

use super::*;

/// A certificate that vouches for itself.
struct Made {
    certificate: String,
    key: String,
}

fn made() -> Made {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    Made { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() }
}

impl Made {
    fn tls(&self) -> Tls {
        Tls::from_pem(self.certificate.as_bytes(), self.key.as_bytes()).unwrap()
    }

    fn roots(&self) -> Roots {
        let mut roots = Roots::empty();
        roots.add_pem(self.certificate.as_bytes()).unwrap();
        roots
    }

    fn client(&self) -> HttpClient {
        HttpClient::new().tls(TlsConnector::new(self.roots()).unwrap())
    }
}

/// A server of HTTP/1 over TLS.
fn http1(made: &Made) -> Site {
    let server = TcpServer::tls(made.tls().acceptor().unwrap(), async |stream, _peer| {
        serve(&stream, &|asked| {
            ok(format!("{} {}", asked.target(), asked.header("host").unwrap()))
        })
        .await;
    });
    let port = server.listen_on("127.0.0.1", 0).unwrap();
    Site { server, port }
}

/// A server of HTTP/2, which answers by `service`.
fn http2<F>(made: &Made, service: impl Fn(Request<hyper::body::Incoming>) -> F + 'static) -> Site
where
    F: Future<Output = Response<Body>> + 'static,
{
    let acceptor = made.tls().alpn(["h2"]).acceptor().unwrap();
    let handshake = async move |stream, _peer| acceptor.accept(stream).await;
    let service = Rc::new(service);
    let server = TcpServer::wrapping(10 * SECOND, handshake, async move |stream| {
        let service = service.clone();
        let service = service_fn(move |request| {
            let answer = service(request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let mut http = http2::Builder::new(OnLoop);
        let _ = http.timer(OnLoop).serve_connection(Io::new(stream), service).await;
    });
    let port = server.listen_on("127.0.0.1", 0).unwrap();
    Site { server, port }
}

/// Answers with the path.
async fn path(request: Request<hyper::body::Incoming>) -> Response<Body> {
    Response::new(Body::from(request.uri().path().to_owned()))
}

fn url(site: &Site, path: &str) -> String {
    format!("https://127.0.0.1:{}{path}", site.port)
}

#[waterspout::test]
async fn https_is_fetched_over_a_connection_that_is_kept() {
    let made = made();
    let site = http1(&made);
    let client = made.client();
    for _ in 0..3 {
        let mut answer = client.get(url(&site, "/x")).await.unwrap();
        assert_eq!(answer.version(), Version::HTTP_11);
        assert_eq!(answer.text().await.unwrap(), format!("/x 127.0.0.1:{}", site.port));
    }
    assert_eq!(site.accepted(), 1);
    let by_name = format!("https://localhost:{}/", site.port);
    assert!(text(&client, by_name).await.is_ok());
}

#[waterspout::test]
async fn a_server_that_proves_nothing_gets_no_request() {
    let made = made();
    let site = http1(&made);
    let others = self::made().client();
    let error = failure(&others, url(&site, "/")).await;
    assert!(matches!(error, FetchError::Tls { .. }), "{error:?}");
    assert!(error.to_string().contains("127.0.0.1"), "{error}");
    // The right certificate, and another name than it is for.
    let known = waterspout::net::OverrideResolver::new(waterspout::net::ThreadedResolver);
    let client = made.client().resolver(known.with_host("www.example.com", "127.0.0.1"));
    let error = failure(&client, format!("https://www.example.com:{}/", site.port)).await;
    assert!(matches!(error, FetchError::Tls { .. }), "{error:?}");
    // And a server that speaks no TLS.
    let plain = Site::scripted(async |stream| {
        let _ = stream.write("HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = stream.read_until_close().await;
    });
    let error = failure(&client, url(&plain, "/")).await;
    assert!(matches!(error, FetchError::Tls { .. }), "{error:?}");
}

#[waterspout::test]
async fn a_client_can_show_a_certificate() {
    let (made, shown) = (made(), self::made());
    let acceptor = made.tls().require_client_certificates(shown.roots()).acceptor().unwrap();
    let server = TcpServer::tls(acceptor, async |stream, _peer| {
        serve(&stream, &|_| ok("welcome")).await;
    });
    let port = server.listen_on("127.0.0.1", 0).unwrap();
    let site = Site { server, port };
    let connector = TlsConnector::new(made.roots()).unwrap();
    let connector = connector
        .client_certificate_pem(shown.certificate.as_bytes(), shown.key.as_bytes())
        .unwrap();
    let client = HttpClient::new().tls(connector);
    assert_eq!(text(&client, url(&site, "/")).await.unwrap(), "welcome");
    assert!(text(&made.client(), url(&site, "/")).await.is_err());
}

#[waterspout::test]
async fn what_is_got_by_http_is_not_got_by_https() {
    let made = made();
    let secure = http1(&made);
    let place = url(&secure, "/x");
    let plain = Site::answering(move |_| to(302, &place));
    let client = made.client();
    let answer = client.get(plain.url("/")).await.unwrap();
    assert_eq!(answer.url().as_str(), url(&secure, "/x"));
}

// ---------------------------------------------------------------------------------------------
// HTTP/2

#[waterspout::test]
async fn one_connection_of_http2_serves_all_requests_to_an_origin() {
    let made = made();
    let site = http2(&made, path);
    let client = made.client();
    // Also those that come before it is there.
    let paths: Vec<_> = (0..20).map(|number| format!("/{number}")).collect();
    let fetches = paths.iter().map(|path| text(&client, url(&site, path)));
    for (path, answer) in paths.iter().zip(futures::future::join_all(fetches).await) {
        assert_eq!(*path, answer.unwrap());
    }
    let answer = client.get(url(&site, "/")).await.unwrap();
    assert_eq!(answer.version(), Version::HTTP_2);
    assert_eq!(site.accepted(), 1);
}

#[waterspout::test]
async fn a_request_of_http2_says_what_one_of_http1_says() {
    let made = made();
    let seen = Rc::new(RefCell::new(Vec::new()));
    let sees = seen.clone();
    let site = http2(&made, move |request| {
        let sees = sees.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            sees.borrow_mut().push((parts, body));
            Response::new(Body::empty())
        }
    });
    let fetch = made.client().post(url(&site, "/p?q").replace("//", "//me:secret@"), "data");
    let fetch = fetch.header("host", "other").header("x", "1").header("connection", "close");
    assert!(fetch.header("expect", "100-continue").await.is_ok());
    let (parts, body) = seen.borrow_mut().remove(0);
    assert_eq!(
        (parts.method.as_str(), parts.uri.to_string()),
        ("POST", "https://other/p?q".to_owned())
    );
    assert_eq!(body, "data");
    assert_eq!(parts.headers["x"], "1");
    assert_eq!(parts.headers["authorization"], "Basic bWU6c2VjcmV0");
    assert!(!parts.headers.contains_key("host") && !parts.headers.contains_key("connection"));
}

#[waterspout::test]
async fn dropping_one_of_several_requests_ends_only_that() {
    let made = made();
    let ended = Rc::new(Cell::new(0));
    let counts = ended.clone();
    let site = http2(&made, move |request| {
        let at_end = common::AtDrop({
            let counts = counts.clone();
            move || counts.set(counts.get() + 1)
        });
        async move {
            let path = request.uri().path().to_owned();
            if path == "/never" {
                at_end.keep();
                std::future::pending::<()>().await;
            }
            let endless = stream::repeat_with(|| Ok::<_, io::Error>(vec![b'x'; 10_000]));
            match path.as_str() {
                "/endless" => Response::new(Body::from_stream(endless)),
                _ => Response::new(Body::from(path)),
            }
        }
    });
    let client = made.client();
    assert_eq!(text(&client, url(&site, "/first")).await.unwrap(), "/first");
    let mut never = client.get(url(&site, "/never"));
    assert!(poll!(&mut never).is_pending());
    turns(20).await;
    let before = ended.get();
    drop(never);
    common::until(|| ended.get() > before).await;
    let mut endless = client.get(url(&site, "/endless")).await.unwrap();
    assert!(endless.chunk().await.unwrap().is_some());
    drop(endless);
    assert_eq!(text(&client, url(&site, "/last")).await.unwrap(), "/last");
    assert_eq!(site.accepted(), 1);
}

#[waterspout::test]
async fn an_answer_of_http2_has_its_place_until_it_was_read() {
    let made = made();
    let site = http2(&made, async |_| Response::new(Body::from("x".repeat(1 << 20))));
    let client = made.client().max_clients(1);
    let mut answer = client.get(url(&site, "/")).await.unwrap();
    let waits = coroutine::start(client.get(url(&site, "/")));
    turns(20).await;
    assert!(!waits.done());
    answer.bytes().await.unwrap();
    let half_read = waits.await.unwrap();
    let waits = coroutine::start(client.get(url(&site, "/")));
    turns(20).await;
    assert!(!waits.done());
    drop(half_read);
    assert!(waits.await.is_ok());
}

#[waterspout::test]
async fn a_connection_of_http2_that_has_ended_is_not_used_again() {
    let made = made();
    let site = http2(&made, path);
    let client = made.client();
    let port = site.port;
    assert_eq!(text(&client, url(&site, "/1")).await.unwrap(), "/1");
    for pause in [0, 1, 10] {
        let site = http2(&made, path);
        assert_eq!(text(&client, url(&site, "/2")).await.unwrap(), "/2");
        // Its connections end with it, and nobody says so.
        let old = url(&site, "/3");
        drop(site);
        turns(pause).await;
        let error = failure(&client, &old).await;
        assert!(matches!(error, FetchError::Connect { .. }), "{pause} {error:?}");
    }
    assert_eq!(text(&client, format!("https://127.0.0.1:{port}/4")).await.unwrap(), "/4");
}

#[waterspout::test(virtual_time)]
async fn a_connection_of_http2_whose_server_fell_silent_is_given_up() {
    let made = made();
    let is_silent = Rc::new(Cell::new(true));
    let silent = is_silent.clone();
    let site = http2(&made, move |request| {
        let silent = silent.get();
        async move {
            if silent {
                std::future::pending::<()>().await;
            }
            path(request).await
        }
    });
    let client = made.client();
    let begun = now();
    let error = failure(&client, url(&site, "/1")).await;
    assert!(matches!(error, FetchError::TimedOut(_)), "{error:?}");
    assert_eq!(now() - begun, 20 * SECOND);
    is_silent.set(false);
    assert_eq!(text(&client, url(&site, "/2")).await.unwrap(), "/2");
    assert_eq!(site.accepted(), 2);
}

#[waterspout::test(virtual_time)]
async fn an_idle_connection_of_http2_ends_after_a_while_and_a_busy_one_does_not() {
    let made = made();
    let go = Event::new();
    let goes = go.clone();
    let site = http2(&made, move |_| {
        let waits = goes.wait();
        async move {
            waits.await;
            Response::new(Body::from("late"))
        }
    });
    let client = made.client().idle_timeout(10 * SECOND).request_timeout(Duration::MAX);
    let waits = coroutine::start(client.get(url(&site, "/")));
    sleep(60 * SECOND).await;
    assert_eq!(site.server.connections(), 1);
    go.set();
    assert_eq!(waits.await.unwrap().text().await.unwrap(), "late");
    sleep(9 * SECOND).await;
    assert_eq!(text(&client, url(&site, "/")).await.unwrap(), "late");
    assert_eq!(site.accepted(), 1);
    sleep(21 * SECOND).await;
    common::until(|| site.server.connections() == 0).await;
}

#[waterspout::test]
async fn bodies_of_http2_are_streamed_both_ways_and_a_failing_one_resets_its_stream() {
    let made = made();
    let site =
        http2(&made, async |request| Response::new(Body::from_http_body(request.into_body())));
    let client = made.client();
    let parts = stream::iter(["one, ", "two"].map(Ok::<_, io::Error>));
    let mut answer = client.post(url(&site, "/"), Body::from_stream(parts)).await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "one, two");
    let failing = stream::iter([Ok("one"), Err(io::Error::other("gone"))]);
    let failed =
        async { client.post(url(&site, "/"), Body::from_stream(failing)).await?.text().await };
    assert!(failed.await.is_err());
    assert!(text(&client, url(&site, "/")).await.is_ok());
    assert_eq!(site.accepted(), 1);
}

#[waterspout::test]
async fn a_client_can_refuse_http2() {
    let made = made();
    let acceptor = made.tls().alpn(["h2", "http/1.1"]).acceptor().unwrap();
    let server = TcpServer::tls(acceptor, async |stream, _peer| {
        serve(&stream, &|_| ok("by HTTP/1")).await;
    });
    let port = server.listen_on("127.0.0.1", 0).unwrap();
    let site = Site { server, port };
    let connector = TlsConnector::new(made.roots()).unwrap().alpn(["http/1.1"]);
    let client = HttpClient::new().tls(connector);
    assert_eq!(text(&client, url(&site, "/")).await.unwrap(), "by HTTP/1");
}

#[waterspout::test]
async fn garbage_instead_of_http2_is_an_error() {
    let made = made();
    let acceptor = made.tls().alpn(["h2"]).acceptor().unwrap();
    let server = TcpServer::tls(acceptor, async |stream, _peer| {
        let _ = stream.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        let _ = stream.read_until_close().await;
    });
    let port = server.listen_on("127.0.0.1", 0).unwrap();
    let site = Site { server, port };
    let error = failure(&made.client(), url(&site, "/")).await;
    assert!(matches!(error, FetchError::Broken(_)), "{error:?}");
}

// ---------------------------------------------------------------------------------------------
// Tunnels

/// A proxy that connects to where it is asked to.
fn tunnelling() -> (Site, Log) {
    let log = Log::default();
    let notes = log.clone();
    let server = TcpServer::new(async move |stream: Stream, _peer| {
        let Some(asked) = asked(&stream).await else { return };
        notes.note(&asked);
        let Ok(mut to) = TcpStream::connect(asked.target()).await else { return };
        let _ = stream.write("HTTP/1.1 200 Connection established\r\n\r\n").await;
        let (mut from, _) = stream.into_inner().unwrap();
        let _ = copy_bidirectional(&mut from, &mut to).await;
    });
    let port = server.listen_on("127.0.0.1", 0).unwrap();
    (Site { server, port }, log)
}

#[waterspout::test]
async fn a_tunnel_is_asked_for_once_and_carries_what_the_proxy_cannot_read() {
    let made = made();
    let (proxy, log) = tunnelling();
    for site in [http1(&made), http2(&made, path)] {
        let url_of_proxy = proxy.url("").replace("//", "//me:secret@");
        let client = made.client().proxy(&url_of_proxy).unwrap();
        for _ in 0..3 {
            let fetch = client.get(url(&site, "/x")).header("proxy-authorization", "of the user");
            let mut answer = fetch.await.unwrap();
            assert!(answer.text().await.unwrap().starts_with("/x"));
        }
        let asked = log.one();
        assert_eq!(
            (asked.method(), asked.target()),
            ("CONNECT", &*format!("127.0.0.1:{}", site.port))
        );
        assert_eq!(asked.header("host").unwrap(), format!("127.0.0.1:{}", site.port));
        assert_eq!(asked.header("proxy-authorization"), Some("Basic bWU6c2VjcmV0"));
        assert!(!asked.has("user-agent") && !asked.has("authorization"));
        assert_eq!(site.accepted(), 1);
    }
}

#[waterspout::test]
async fn a_proxy_that_pretends_to_be_the_server_proves_nothing() {
    let made = made();
    let server = TcpServer::new(async |stream: Stream, _peer| {
        asked(&stream).await;
        let _ = stream.write("HTTP/1.1 200 OK\r\n\r\n").await;
        let _ = stream.read_bytes(1).await;
        let _ = stream.write(ok("evil")).await;
    });
    let port = server.listen_on("127.0.0.1", 0).unwrap();
    let client = made.client().proxy(&format!("127.0.0.1:{port}")).unwrap();
    let error = failure(&client, "https://www.example.com/").await;
    assert!(matches!(error, FetchError::Tls { .. }), "{error:?}");
}
