//! Connections that wait for a request, with and without hyper.

use waterspout::coroutine::sleep;
use waterspout::http::{HttpServer, Request, Response};

use super::{Inside, SECOND};
use crate::common::virtual_loop;

async fn path(request: Request) -> String {
    request.path().to_owned()
}

#[test]
fn a_request_that_comes_at_whatever_moment_is_answered() {
    virtual_loop()
        .run_sync(|| async {
            let server = HttpServer::new(path);
            let client = Inside::of(&server).connect().await;
            for millis in (900..2200).step_by(7) {
                sleep(SECOND / 1000 * millis).await;
                assert_eq!(client.get(&format!("/{millis}")).await.body, format!("/{millis}"));
            }
            assert_eq!(server.accepted(), 1);
        })
        .unwrap();
}

#[test]
fn a_head_that_is_cut_by_the_pause_at_any_byte_is_whole_again() {
    virtual_loop()
        .run_sync(|| async {
            let server = HttpServer::new(path);
            let client = Inside::of(&server).connect().await;
            let request = "GET /whole HTTP/1.1\r\nhost: test\r\n\r\n";
            for cut in 1..request.len() {
                // The answer before, and the beginning of the next request with it.
                client
                    .send(format!("GET /before HTTP/1.1\r\nhost: test\r\n\r\n{}", &request[..cut]));
                assert_eq!(client.answer().await.body, "/before");
                sleep(SECOND * 5 / 2).await;
                client.send(&request[cut..]);
                assert_eq!(client.answer().await.body, "/whole", "cut at {cut}");
                sleep(SECOND * 3).await;
            }
        })
        .unwrap();
}

#[test]
fn a_handler_that_waits_and_a_body_that_trickles_keep_their_connection_up() {
    virtual_loop()
        .run_sync(|| async {
            let server = HttpServer::new(async |mut request: Request| {
                sleep(20 * SECOND).await;
                let body = request.text().await.unwrap();
                let first = futures::stream::once(async { Ok(body) });
                Response::new(waterspout::http::Body::from_stream(futures::StreamExt::chain(
                    first,
                    parts_of(),
                )))
            });
            let client = Inside::of(&server).connect().await;
            client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\na");
            sleep(30 * SECOND).await;
            client.send("bc");
            assert_eq!(client.answer().await.body, "abc0 1 2 ");
            assert_eq!(client.post("/", "x").await.body, "x0 1 2 ");
        })
        .unwrap();
}

fn parts_of() -> impl futures::Stream<Item = std::io::Result<String>> {
    futures::stream::unfold(0, async |n| {
        sleep(5 * SECOND).await;
        (n < 3).then(|| (Ok(format!("{n} ")), n + 1))
    })
}

#[test]
fn a_crowd_of_connections_is_parked_sooner_and_each_goes_on() {
    virtual_loop()
        .run_sync(|| async {
            let server = HttpServer::new(path);
            let inside = Inside::of(&server);
            let mut clients = Vec::new();
            for n in 0..300 {
                let client = inside.connect().await;
                assert_eq!(client.get(&format!("/{n}")).await.body, format!("/{n}"));
                clients.push(client);
                sleep(SECOND / 1000).await;
            }
            for round in 0..3 {
                for (n, client) in clients.iter().enumerate() {
                    assert_eq!(
                        client.get(&format!("/{round}/{n}")).await.body,
                        format!("/{round}/{n}")
                    );
                }
                sleep(SECOND).await;
            }
            assert_eq!(server.connections(), 300);
        })
        .unwrap();
}

#[test]
fn a_connection_whose_body_came_late_is_idle_like_any_other_afterwards() {
    virtual_loop()
        .run_sync(|| async {
            let server =
                HttpServer::new(async |mut request: Request| request.text().await.unwrap());
            let client = Inside::of(&server).connect().await;
            client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n");
            sleep(SECOND).await;
            client.send("abc");
            assert_eq!(client.answer().await.body, "abc");
            // Far longer than a head may take.
            sleep(200 * SECOND).await;
            assert_eq!(client.post("/", "again").await.body, "again");
        })
        .unwrap();
}

#[test]
fn a_body_that_is_read_on_after_the_answer_does_not_make_a_second_answer() {
    virtual_loop()
        .run_sync(|| async {
            let server = HttpServer::new(async |request: Request| {
                let (_, mut body) = request.into_parts();
                waterspout::coroutine::start(async move {
                    while let Ok(Some(_)) = body.chunk().await {}
                });
                "early"
            });
            let client = Inside::of(&server).connect().await;
            client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 300\r\n\r\n");
            assert_eq!(client.answer().await.body, "early");
            for _ in 0..10 {
                client.send("x");
                sleep(10 * SECOND).await;
            }
            drop(server);
            assert!(client.is_closed().await, "there was a second answer");
        })
        .unwrap();
}
