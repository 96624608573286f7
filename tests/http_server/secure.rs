//! Over TLS: both protocols by ALPN, and who the client is.

use std::sync::Arc;
use std::time::Duration;

use futures::AsyncWriteExt as _;
use http_body_util::{BodyExt as _, Empty};
use waterspout::coroutine;
use waterspout::http::{Bytes, HttpServer, Request};
use waterspout::hyper::{Io, OnLoop};
use waterspout::iostream::IoStream;
use waterspout::net::{TcpClient, TcpStream};
use waterspout::tls::{Roots, Tls, TlsConnector};

use super::{Client, SECOND, connect};

struct Signed {
    certificate: String,
    key: String,
}

fn signed(name: &str) -> Signed {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    Signed { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() }
}

fn trusting(signed: &Signed) -> Roots {
    let mut roots = Roots::empty();
    roots.add_pem(signed.certificate.as_bytes()).unwrap();
    roots
}

async fn tell(request: Request) -> String {
    let shown = request.peer_certificates().count();
    format!("{:?} {} {shown}", request.version(), request.scheme())
}

#[waterspout::test]
async fn http_1_and_2_are_chosen_by_alpn_and_plain_http_ends_with_a_line_in_the_log() {
    let ours = signed("localhost");
    let tls = Tls::from_pem(ours.certificate.as_bytes(), ours.key.as_bytes()).unwrap();
    let server = HttpServer::new(tell).tls(tls.acceptor().unwrap());
    let port = server.listen_on("127.0.0.1", 0).unwrap();

    let connector = |protocols: &[&str]| {
        TlsConnector::new(trusting(&ours)).unwrap().alpn(protocols.iter().copied())
    };
    let client = TcpClient::new().timeout(10 * SECOND);
    let stream = client.connect_tls(&connector(&["http/1.1"]), "localhost", port).await.unwrap();
    assert_eq!(stream.alpn_protocol(), Some(&b"http/1.1"[..]));
    let first = Client(IoStream::new(stream));
    assert_eq!(first.get("/").await.body, "HTTP/1.1 https 0");
    // It stays up over a pause.
    coroutine::sleep(Duration::from_millis(10)).await;
    assert_eq!(first.get("/").await.body, "HTTP/1.1 https 0");

    let stream = client.connect_tls(&connector(&["h2"]), "localhost", port).await.unwrap();
    assert_eq!(stream.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(OnLoop, Io::new(stream)).await.unwrap();
    coroutine::start(connection);
    let request = http::Request::get("https://localhost/").body(Empty::<Bytes>::new()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "HTTP/2.0 https 0");

    let _expected =
        waterspout::testing::ExpectLog::new("waterspout::http", "a connection from 127.0.0.1:");
    let plain = connect(port).await;
    plain.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    // A TLS alert, and the end.
    assert!(plain.0.read_until_close().await.unwrap().len() < 10);
    assert_eq!(first.get("/").await.body, "HTTP/1.1 https 0");
}

#[waterspout::test]
async fn a_client_certificate_is_told_to_the_handler() {
    let (ours, theirs) = (signed("localhost"), signed("client"));
    let tls = Tls::from_pem(ours.certificate.as_bytes(), ours.key.as_bytes()).unwrap();
    let acceptor = tls.require_client_certificates(trusting(&theirs)).acceptor().unwrap();
    let server = HttpServer::new(tell).tls(acceptor);
    let port = server.listen_on("127.0.0.1", 0).unwrap();
    let connector = TlsConnector::new(trusting(&ours)).unwrap();
    let identified = connector
        .client_certificate_pem(theirs.certificate.as_bytes(), theirs.key.as_bytes())
        .unwrap();
    let client = TcpClient::new().timeout(10 * SECOND);
    let stream = client.connect_tls(&identified, "localhost", port).await.unwrap();
    assert_eq!(Client(IoStream::new(stream)).get("/").await.body, "HTTP/1.1 https 1");
}

#[waterspout::test]
async fn a_secure_connection_that_ends_without_saying_so_is_no_exception() {
    let ours = signed("localhost");
    let tls = Tls::from_pem(ours.certificate.as_bytes(), ours.key.as_bytes()).unwrap();
    let server = HttpServer::new(tell).tls(tls.acceptor().unwrap());
    let port = server.listen_on("127.0.0.1", 0).unwrap();
    let connector = Arc::new(TlsConnector::new(trusting(&ours)).unwrap());
    let tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut stream = connector.connect("localhost", tcp).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    stream.flush().await.unwrap();
    stream.get_ref().shutdown(std::net::Shutdown::Both).unwrap();
    drop(stream);
    assert_eq!(server.drain(10 * SECOND).await, 0);
}

#[test]
fn the_end_of_an_answer_is_not_kept_back_while_its_client_pauses() {
    crate::common::virtual_loop()
        .run_sync(|| async {
            let ours = signed("localhost");
            let tls = Tls::from_pem(ours.certificate.as_bytes(), ours.key.as_bytes()).unwrap();
            let server =
                HttpServer::new(async |_: Request| "x".repeat(30_000)).tls(tls.acceptor().unwrap());
            let inside = super::Inside::of(&server);
            let connector = TlsConnector::new(trusting(&ours)).unwrap();
            // So little fits on the way that most of the answer waits within TLS, all of it encrypted already.
            let stream = inside.connect_bare(4000).await;
            let client =
                Client(IoStream::new(connector.connect("localhost", stream).await.unwrap()));
            client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
            coroutine::sleep(5 * SECOND).await;
            assert_eq!(client.answer().await.body.len(), 30_000);
            assert_eq!(client.get("/").await.body.len(), 30_000);
        })
        .unwrap();
}
