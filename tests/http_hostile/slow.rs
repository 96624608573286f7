//! Clients that are slow, silent or many: what they cost, and that they end.

use futures::FutureExt as _;
use waterspout::IoLoop;
use waterspout::coroutine::{moment, now, sleep};
use waterspout::http::{HttpServer, Request, Response};
use waterspout::testing::ExpectLog;

use super::{Inside, SECOND, unharmed};

async fn path(request: Request) -> String {
    request.path().to_owned()
}

/// The first letters of `POST` and `PUT` begin the preface of HTTP/2, too.
#[test]
fn a_head_that_stops_after_any_byte_is_answered_with_408_in_time() {
    unharmed(|| async {
        let _log = ExpectLog::new("waterspout::http", "").optional();
        let server = HttpServer::new(path).header_timeout(30 * SECOND);
        let inside = Inside::of(&server);
        for begun in
            ["P", "PR", "PO", "G", "GET / HTTP/1.1", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r", "\r", "\r\n"]
        {
            let client = inside.connect().await;
            let begin = now();
            sleep(SECOND * 7 / 10).await;
            client.send(begun);
            let answer = client.answer().await;
            assert_eq!(answer.status(), 408, "{begun:?}");
            let took = now() - begin;
            assert_eq!(took, SECOND * 7 / 10 + 30 * SECOND, "{begun:?}");
            assert!(client.is_closed().await);
        }
    });
}

#[test]
fn the_beginning_of_a_head_that_comes_with_a_request_has_its_time_too() {
    unharmed(|| async {
        let _log = ExpectLog::new("waterspout::http", "").optional();
        let server = HttpServer::new(path).header_timeout(30 * SECOND);
        let inside = Inside::of(&server);
        for begun in ["P", "PRI ", "GET /", "G"] {
            let client = inside.connect().await;
            client.send(format!("GET /a HTTP/1.1\r\nhost: a\r\n\r\n{begun}"));
            assert_eq!(client.answer().await.body, "/a");
            let begin = now();
            assert_eq!(client.answer().await.status(), 408, "{begun:?}");
            let took = now() - begin;
            assert!(took >= 29 * SECOND && took <= 33 * SECOND, "{begun:?} {took:?}");
        }
    });
}

#[test]
fn ten_thousand_idle_connections_cost_a_timer_each_and_no_work() {
    unharmed(|| async {
        let server = HttpServer::new(path).idle_connection_timeout(3600 * SECOND);
        let inside = Inside::of(&server);
        let mut clients = Vec::new();
        for n in 0..10_000 {
            let client = inside.connect_holding(1000).await;
            if n % 2 == 0 {
                client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
                client.0.read_until(b"\r\n\r\n/", 1000).await.unwrap();
            }
            clients.push(client);
        }
        sleep(10 * SECOND).await;
        let io_loop = IoLoop::current();
        let before = io_loop.counters();
        assert!(before.pending_timers <= 10_010, "{before:?}");
        sleep(1000 * SECOND).await;
        let after = io_loop.counters();
        assert!(after.resumes - before.resumes < 10, "{before:?} {after:?}");
        assert!(after.turns - before.turns < 10, "{before:?} {after:?}");
        // One of them asks, and only that one is woken.
        let (client, before) = (&clients[1234], io_loop.counters());
        assert_eq!(client.get("/one").await.body, "/one");
        assert!(io_loop.counters().resumes - before.resumes < 20);
        assert_eq!(server.connections(), 10_000);
        sleep(3603 * SECOND).await;
        assert_eq!(server.connections(), 0);
    });
}

#[test]
fn connections_that_come_and_go_leave_nothing_behind() {
    unharmed(|| async {
        let server = HttpServer::new(path);
        let inside = Inside::of(&server);
        let io_loop = IoLoop::current();
        let before = io_loop.counters();
        for n in 0..3000 {
            let client = inside.connect().await;
            let head = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
            client.send(&head[..n % (head.len() + 1)]);
            moment().await;
        }
        for _ in 0..10 {
            moment().await;
        }
        let after = io_loop.counters();
        assert_eq!(server.connections(), 0);
        assert_eq!(server.accepted(), 3000);
        assert!(after.live <= before.live + 1 && after.pending_timers <= 1, "{after:?}");
    });
}

#[test]
fn a_client_that_sends_a_byte_a_second_is_ended_in_time_whatever_it_sends() {
    unharmed(|| async {
        let _log = ExpectLog::new("waterspout::http", "").optional();
        let server = HttpServer::new(async |mut request: Request| {
            let body = request.bytes().await;
            body.map(|_| "all").map_err(waterspout::http::HttpError::from)
        })
        .header_timeout(30 * SECOND)
        .body_timeout(60 * SECOND);
        let inside = Inside::of(&server);
        for (begin, limit, status) in [
            ("GET / HTTP/1.1\r\nhost: a\r\nx: ", 30, 408),
            ("\r\n\r\n\r\n", 30, 408),
            ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n", 60, 408),
            ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", 60, 408),
            ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1;", 60, 408),
        ] {
            let client = inside.connect().await;
            let begun = now();
            client.send(begin);
            let mut answering = Box::pin(client.answer());
            let answer = loop {
                if let Some(answer) = answering.as_mut().now_or_never() {
                    break answer;
                }
                sleep(SECOND).await;
                client.send("0");
            };
            assert_eq!(answer.status(), status, "{begin:?}");
            let took = now() - begun;
            assert!(took >= limit * SECOND && took <= (limit + 2) * SECOND, "{begin:?} {took:?}");
        }
    });
}

#[test]
fn a_client_that_asks_again_and_again_and_reads_nothing_is_not_answered_without_end() {
    unharmed(|| async {
        let _log = ExpectLog::new("waterspout::http", "a connection from");
        let answered = std::rc::Rc::new(std::cell::Cell::new(0));
        let counts = answered.clone();
        let server = HttpServer::new(async move |_: Request| {
            counts.set(counts.get() + 1);
            Response::new(vec![b'x'; 1000])
        })
        .stall_timeout(60 * SECOND);
        let client = Inside::of(&server).connect_holding(10_000).await;
        let begun = now();
        let sent = client.0.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n".repeat(100_000));
        assert!(sent.await.is_err(), "it was all taken");
        assert!(now() - begun <= 63 * SECOND);
        assert!(answered.get() < 500, "{} answers", answered.get());
        assert_eq!(server.connections(), 0);
    });
}

#[test]
fn a_client_that_waits_for_100_continue_and_then_sends_nothing_is_given_up() {
    unharmed(|| async {
        let server = HttpServer::new(async |mut request: Request| {
            let body = request.bytes().await;
            body.map(|_| "all").map_err(waterspout::http::HttpError::from)
        })
        .stall_timeout(60 * SECOND);
        let client = Inside::of(&server).connect().await;
        client.send(
            "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n",
        );
        assert!(client.head().await.starts_with("HTTP/1.1 100 "));
        let begun = now();
        assert_eq!(client.answer().await.status(), 408);
        assert_eq!(now() - begun, 60 * SECOND);
        assert!(client.is_closed().await);
    });
}

#[test]
fn a_drain_ends_clients_that_do_not_cooperate_at_its_deadline() {
    unharmed(|| async {
        let _log = ExpectLog::new("waterspout::http", "").optional();
        let server = HttpServer::new(async |mut request: Request| {
            let _ = request.bytes().await;
            Response::new(vec![b'x'; 100_000])
        });
        let inside = Inside::of(&server);
        let (in_head, in_body, unread) =
            (inside.connect().await, inside.connect().await, inside.connect_holding(1000).await);
        in_head.send("GET / HT");
        in_body.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n");
        unread.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        sleep(SECOND / 10).await;
        let begun = now();
        assert_eq!(server.drain(20 * SECOND).await, 3);
        assert_eq!(now() - begun, 20 * SECOND);
        assert!(in_head.is_closed().await && in_body.is_closed().await);
    });
}

#[test]
fn a_connection_that_has_spoken_http_1_does_not_change_to_http_2() {
    unharmed(|| async {
        let _log = ExpectLog::new("waterspout::http", "").optional();
        let server = HttpServer::new(path);
        let inside = Inside::of(&server);
        for pause in [0, 10] {
            let client = inside.connect().await;
            assert_eq!(client.get("/").await.body, "/");
            sleep(pause * SECOND).await;
            client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
            assert!(client.is_closed().await);
        }
    });
}
