//! TLS: who speaks something else, who stops in the midst of it, and who reads slowly.

use std::rc::Rc;

use futures::FutureExt as _;
use waterspout::coroutine::{now, sleep};
use waterspout::http::{HttpServer, Request};
use waterspout::iostream::IoStream;
use waterspout::testing::ExpectLog;
use waterspout::tls::{Roots, Tls, TlsAcceptor, TlsConnector};

use super::{Client, Inside, SECOND, unharmed};

fn both() -> (TlsAcceptor, TlsConnector) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let mut roots = Roots::empty();
    roots.add_pem(certificate.as_bytes()).unwrap();
    let tls = Tls::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap();
    (tls.acceptor().unwrap(), TlsConnector::new(roots).unwrap())
}

async fn path(request: Request) -> String {
    request.path().to_owned()
}

#[test]
fn whoever_does_not_speak_tls_is_told_so_closed_and_a_line_of_the_log() {
    unharmed(|| async {
        let (acceptor, connector) = both();
        let server = HttpServer::new(path).tls(acceptor);
        let inside = Inside::of(&server);
        for garbage in [
            &b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x16\x03\x01\xff\xff\xff\xff\xff\xff",
            b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
            b"\x80\x2e\x01\x00\x02",
            &[0; 100_000],
            &[0xff; 100_000],
        ] {
            let log = ExpectLog::new(
                "waterspout::http",
                "a connection from \"a test\" ended: no handshake",
            );
            let client = inside.connect().await;
            client.send(garbage);
            let alert = client.0.read_until_close().await.unwrap();
            assert!(alert.is_empty() || alert[0] == 0x15, "{alert:?}");
            assert_eq!(log.count(), 1, "{garbage:?}");
            // Of a flood the log hears only now and then.
            sleep(11 * SECOND).await;
        }
        let client = inside.connect().await.0.into_inner().unwrap().0;
        let stream = connector.connect("localhost", client).await.unwrap();
        assert_eq!(Client(IoStream::new(stream)).get("/fine").await.body, "/fine");
    });
}

#[test]
fn whoever_speaks_tls_to_a_server_without_is_refused() {
    unharmed(|| async {
        let _log = ExpectLog::new("waterspout::http", "a connection from");
        let (_, connector) = both();
        let server = HttpServer::new(path);
        let inside = Inside::of(&server);
        let client = inside.connect().await.0.into_inner().unwrap().0;
        assert!(connector.connect("localhost", client).await.is_err());
        assert!(inside.connect().await.get("/fine").await.status() == 200);
    });
}

#[test]
fn failed_handshakes_do_not_flood_the_log() {
    unharmed(|| async {
        let log = ExpectLog::new("waterspout::http", "").optional();
        let others = ExpectLog::new("waterspout::net", "").optional();
        let (acceptor, _) = both();
        let server = HttpServer::new(path).tls(acceptor);
        let inside = Inside::of(&server);
        for _ in 0..1000 {
            let client = inside.connect().await;
            client.send("GET / HTTP/1.1\r\n\r\n");
            client.0.read_until_close().await.unwrap();
        }
        let lines = log.count() + others.count();
        assert!(lines <= 2, "{lines} lines");
    });
}

#[test]
fn a_handshake_that_stops_ends_in_time_and_a_drain_does_not_wait_for_it() {
    unharmed(|| async {
        let log = ExpectLog::new("waterspout::http", "").optional();
        let (acceptor, _) = both();
        let server = HttpServer::new(path).tls(acceptor);
        let inside = Inside::of(&server);
        let begun = now();
        let (silent, stops) = (inside.connect().await, inside.connect().await);
        stops.send(b"\x16\x03\x01");
        assert!(silent.0.read_until_close().await.is_ok());
        assert!(stops.0.read_until_close().await.is_ok());
        assert!(now() - begun <= 60 * SECOND);
        let silent = inside.connect().await;
        sleep(SECOND).await;
        let begun = now();
        assert_eq!(server.drain(50 * SECOND).await, 0);
        assert_eq!(now(), begun);
        assert!(silent.0.read_until_close().now_or_never().is_some());
        drop(log);
    });
}

#[test]
fn an_answer_that_is_still_in_the_buffers_of_tls_is_sent_however_late_it_is_read() {
    unharmed(|| async {
        let (acceptor, connector) = both();
        let server = HttpServer::new(async |_: Request| "x".repeat(30_000)).tls(acceptor);
        let inside = Inside::of(&server);
        for pause in [0, 3, 30] {
            // Less than the answer.
            let client = inside.connect_holding(5000).await.0.into_inner().unwrap().0;
            let stream = connector.connect("localhost", client).await.unwrap();
            let client = Client(IoStream::new(stream));
            for _ in 0..2 {
                client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
                sleep(pause * SECOND).await;
                assert_eq!(client.answer().await.body.len(), 30_000);
                sleep(pause * SECOND).await;
            }
        }
    });
}

#[test]
fn a_client_that_reads_nothing_over_tls_is_cut_off() {
    unharmed(|| async {
        let _log = ExpectLog::new("waterspout::http", "a connection from");
        let (acceptor, connector) = both();
        let server = HttpServer::new(async |_: Request| "x".repeat(30_000))
            .tls(acceptor)
            .stall_timeout(60 * SECOND);
        let inside = Inside::of(&server);
        let client = inside.connect_holding(5000).await.0.into_inner().unwrap().0;
        let mut stream = connector.connect("localhost", client).await.unwrap();
        futures::AsyncWriteExt::write_all(&mut stream, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        sleep(63 * SECOND).await;
        assert_eq!(server.connections(), 0);
        drop(stream);
    });
}

#[test]
fn a_client_that_names_no_host_is_served_by_the_default_certificate() {
    unharmed(|| async {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let mut roots = Roots::empty();
        roots.add_pem(certificate.as_bytes()).unwrap();
        let tls = Tls::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap();
        let server =
            HttpServer::new(async |request: Request| request.scheme()).tls(tls.acceptor().unwrap());
        let inside = Inside::of(&server);
        let client = inside.connect().await.0.into_inner().unwrap().0;
        // An address is no name that could be sent.
        let connector = Rc::new(TlsConnector::new(roots).unwrap());
        let stream = connector.connect("127.0.0.1", client).await.unwrap();
        assert_eq!(Client(IoStream::new(stream)).get("/").await.body, "https");
    });
}
