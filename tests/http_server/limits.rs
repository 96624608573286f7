//! What clients are held to. In virtual time, over connections in memory.

use std::time::Duration;

use futures::FutureExt as _;
use waterspout::coroutine::{now, sleep};
use waterspout::http::{HttpError, HttpServer, Request, Response};

use super::{Inside, SECOND};
use crate::common::virtual_loop;

async fn text(mut request: Request) -> Result<String, HttpError> {
    Ok(request.text().await?)
}

#[test]
fn a_head_that_does_not_come_in_time_is_answered_with_408() {
    virtual_loop()
        .run_sync(|| async {
            let server = HttpServer::new(text).header_timeout(30 * SECOND);
            let inside = Inside::of(&server);
            let (client, other) = (inside.connect().await, inside.connect().await);
            let begun = now();
            client.send("GET / HTTP/1.1\r\nhost: ");
            for _ in 0..5 {
                sleep(5 * SECOND).await;
                client.send("a");
                assert_eq!(other.get("/").await.status(), 200);
            }
            let answer = client.answer().await;
            assert_eq!(answer.status(), 408);
            assert_eq!(now() - begun, 30 * SECOND);
            assert!(client.is_closed().await);
            // A head that comes in pieces, but in time, is answered, and the next one has its own time.
            for _ in 0..2 {
                other.send("GET / HTTP/1.1\r\n");
                sleep(29 * SECOND).await;
                other.send("host: a\r\n\r\n");
                assert_eq!(other.answer().await.status(), 200);
            }
        })
        .unwrap();
}

#[test]
fn a_body_that_stalls_or_takes_too_long_is_answered_with_408() {
    virtual_loop()
        .run_sync(|| async {
            let server = HttpServer::new(text).stall_timeout(10 * SECOND).body_timeout(60 * SECOND);
            let inside = Inside::of(&server);
            let client = inside.connect().await;
            let begun = now();
            client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 50\r\n\r\nabc");
            assert_eq!(client.answer().await.status(), 408);
            assert_eq!(now() - begun, 10 * SECOND);
            assert!(client.is_closed().await);

            let client = inside.connect().await;
            let begun = now();
            client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 50\r\n\r\n");
            let answer = loop {
                client.send("x");
                let later = sleep(5 * SECOND);
                futures::pin_mut!(later);
                let answered = client.answer();
                futures::pin_mut!(answered);
                match futures::future::select(answered, later).await {
                    futures::future::Either::Left((answer, _)) => break answer,
                    futures::future::Either::Right(_) => {}
                }
            };
            assert_eq!(answer.status(), 408);
            assert_eq!(now() - begun, 60 * SECOND);
        })
        .unwrap();
}

#[test]
fn a_handler_that_takes_too_long_is_dropped_and_answered_with_503() {
    virtual_loop()
        .run_sync(|| async {
            let server = HttpServer::new(async |request: Request| {
                if request.path() == "/slow" {
                    sleep(60 * SECOND).await;
                }
                "done"
            })
            .request_timeout(5 * SECOND);
            let client = Inside::of(&server).connect().await;
            let begun = now();
            assert_eq!(client.get("/slow").await.status(), 503);
            assert_eq!(now() - begun, 5 * SECOND);
            assert_eq!(client.get("/").await.body, "done");
        })
        .unwrap();
}

#[test]
fn a_client_that_does_not_read_its_answer_is_cut_off_and_one_that_reads_slowly_is_not() {
    virtual_loop()
        .run_sync(|| async {
            let server = HttpServer::new(async |_: Request| Response::new(vec![b'x'; 1_000_000]))
                .stall_timeout(20 * SECOND);
            let inside = Inside::of(&server);
            let slow = inside.connect_holding(10_000).await;
            let never = inside.connect_holding(10_000).await;
            slow.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
            never.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
            slow.head().await;
            let mut left = 1_000_000;
            while left > 0 {
                sleep(10 * SECOND).await;
                left -= slow.0.read_bytes(50_000).await.unwrap().len();
            }
            assert_eq!(server.connections(), 1);
            assert!(slow.get("/").now_or_never().is_none());
        })
        .unwrap();
}

#[test]
fn a_body_that_is_too_large_is_refused_before_it_is_sent_or_as_soon_as_it_is() {
    virtual_loop()
        .run_sync(|| async {
            let server = HttpServer::new(async |mut request: Request| {
                if request.path() == "/large" {
                    request.body_mut().set_max_size(1000);
                }
                text(request).await
            })
            .max_body_size(10);
            let inside = Inside::of(&server);
            let client = inside.connect().await;
            assert_eq!(client.post("/", "0123456789").await.body, "0123456789");
            assert_eq!(client.post("/large", &"x".repeat(999)).await.body.len(), 999);
            // Nobody says `100 Continue` to it.
            client.send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 11\r\n\r\n");
            assert_eq!(client.answer().await.status(), 413);
            assert!(client.is_closed().await);

            let client = inside.connect().await;
            client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n8\r\n01234567\r\n3\r\n890\r\n");
            assert_eq!(client.answer().await.status(), 413);
            let client = inside.connect().await;
            client.send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n");
            assert!(client.head().await.starts_with("HTTP/1.1 100 Continue"));
            client.send("abc");
            assert_eq!(client.answer().await.body, "abc");
        })
        .unwrap();
}

#[waterspout::test]
async fn an_answer_that_refuses_a_body_reaches_a_client_that_goes_on_sending() {
    let server = HttpServer::new(text).max_body_size(10);
    let client = super::connect(server.listen_on("127.0.0.1", 0).unwrap()).await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 500000\r\n\r\n");
    client.send(vec![b'x'; 500_000]);
    assert_eq!(client.answer().await.status(), 413);
}

#[test]
fn heads_that_are_too_large_or_malformed_are_refused_and_the_log_is_not_flooded() {
    use waterspout::testing::ExpectLog;
    virtual_loop()
        .run_sync(|| async {
            let expected =
                ExpectLog::new("waterspout::http", "a connection from \"a test\" ended:");
            let server = HttpServer::new(text).max_header_size(10_000);
            let inside = Inside::of(&server);
            for (status, head) in [
                (400, "GARBAGE\r\n\r\n".to_owned()),
                (400, "GET / HTTP/1.1\r\nhost : a\r\n\r\n".to_owned()),
                (
                    400,
                    "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n"
                        .to_owned(),
                ),
                (400, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n".to_owned()),
                (431, format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(20_000))),
                (431, format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(200))),
            ] {
                let client = inside.connect().await;
                client.send(&head);
                assert_eq!(client.answer().await.status(), status, "{}", &head[..20]);
                assert!(client.is_closed().await);
            }
            drop(expected);
            for _ in 0..100 {
                let client = inside.connect().await;
                client.send("GARBAGE\r\n\r\n");
                client.answer().await;
            }
            sleep(11 * SECOND).await;
            let _expected = ExpectLog::new(
                "waterspout::http",
                "106 connections have ended since the last such line; of \"a test\": ",
            );
            let client = inside.connect().await;
            client.send("GARBAGE\r\n\r\n");
            client.answer().await;
        })
        .unwrap();
}

#[test]
fn a_connection_that_asks_for_nothing_is_closed_after_its_time() {
    virtual_loop()
        .run_sync(|| async {
            let limit = 100 * SECOND;
            let server = HttpServer::new(text).idle_connection_timeout(limit);
            let inside = Inside::of(&server);
            let (silent, once) = (inside.connect().await, inside.connect().await);
            let begun = now();
            sleep(50 * SECOND).await;
            once.get("/").await;
            assert!(silent.is_closed().await);
            assert_eq!(now() - begun, limit);
            assert!(once.is_closed().await);
            let took = now() - begun;
            assert!(took >= 150 * SECOND && took <= 152 * SECOND, "{took:?}");
            assert_eq!(server.connections(), 0);
        })
        .unwrap();
}

#[test]
fn limits_of_no_length_and_for_ever_do_no_harm() {
    for limit in [Duration::ZERO, Duration::MAX] {
        virtual_loop()
            .run_sync(|| async {
                let server = HttpServer::new(text)
                    .header_timeout(limit)
                    .body_timeout(Duration::MAX)
                    .stall_timeout(Duration::MAX)
                    .request_timeout(Duration::MAX)
                    .idle_connection_timeout(Duration::MAX);
                let client = Inside::of(&server).connect().await;
                assert_eq!(client.post("/", "a").await.body, "a");
                sleep(10_000 * SECOND).await;
                assert_eq!(client.post("/", "b").await.body, "b");
            })
            .unwrap();
    }
}
