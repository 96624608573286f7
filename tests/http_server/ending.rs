//! How connections end: by draining, by dropping the server, by a client that hangs up.

use std::cell::Cell;
use std::rc::Rc;

use waterspout::IoLoop;
use waterspout::coroutine::{self, now, sleep};
use waterspout::http::{HttpServer, Request};

use super::{Inside, SECOND, connect};
use crate::common::{Diary, virtual_loop};

async fn slow(request: Request) -> String {
    if request.path() == "/slow" {
        sleep(5 * SECOND).await;
    }
    request.path().to_owned()
}

#[test]
fn drain_ends_idle_connections_at_once_and_lets_the_others_answer() {
    virtual_loop()
        .run_sync(|| async {
            let server = HttpServer::new(slow);
            let inside = Inside::of(&server);
            let (fresh, warm, parked, busy) = (
                inside.connect().await,
                inside.connect().await,
                inside.connect().await,
                inside.connect().await,
            );
            parked.get("/").await;
            sleep(10 * SECOND).await;
            warm.get("/").await;
            busy.send("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n");
            sleep(SECOND).await;
            let begun = now();
            let draining = server.drain(60 * SECOND);
            let clients = async {
                assert!(fresh.is_closed().await && parked.is_closed().await);
                assert!(warm.is_closed().await);
                assert_eq!(now(), begun);
                let answer = busy.answer().await;
                assert_eq!(answer.body, "/slow");
                assert_eq!(answer.header("connection"), Some("close"));
                assert!(busy.is_closed().await);
                assert_eq!(now() - begun, 4 * SECOND);
            };
            let (cancelled, ()) = futures::join!(draining, clients);
            assert_eq!(cancelled, 0);
        })
        .unwrap();
}

#[test]
fn drain_cancels_what_has_not_ended_at_the_deadline() {
    virtual_loop()
        .run_sync(|| async {
            let server = HttpServer::new(slow);
            let inside = Inside::of(&server);
            let client = inside.connect().await;
            client.send("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n");
            sleep(SECOND).await;
            assert_eq!(server.drain(SECOND).await, 1);
            assert!(client.is_closed().await);
        })
        .unwrap();
}

#[test]
fn a_handler_may_drain_its_own_server() {
    virtual_loop()
        .run_sync(|| async {
            let server = Rc::new(Cell::new(None::<HttpServer>));
            let draining = server.clone();
            let made = HttpServer::new(async move |_: Request| {
                let server = draining.take().unwrap();
                coroutine::start(async move { server.drain(60 * SECOND).await });
                "bye"
            });
            let inside = Inside::of(&made);
            server.set(Some(made));
            let client = inside.connect().await;
            assert_eq!(client.get("/").await.body, "bye");
            assert!(client.is_closed().await);
        })
        .unwrap();
}

#[waterspout::test]
async fn a_client_that_hangs_up_drops_its_handler_unless_requests_are_finished() {
    for finishes in [false, true] {
        let diary = Diary::new();
        let (begun, ended) = (Rc::new(Cell::new(false)), waterspout::locks::Event::new());
        let server = HttpServer::new({
            let (diary, begun, ended) = (diary.clone(), begun.clone(), ended.clone());
            async move |_: Request| {
                let ended = ended.clone();
                let _at_end = diary.at_end("dropped");
                let _tells = waterspout::futures::future::lazy(|_| ()).await;
                begun.set(true);
                struct Tells(waterspout::locks::Event);
                impl Drop for Tells {
                    fn drop(&mut self) {
                        self.0.set();
                    }
                }
                let _tells = Tells(ended);
                sleep(SECOND / 5).await;
                diary.write("finished");
                "late"
            }
        })
        .finish_requests(finishes);
        let client = connect(server.listen_on("127.0.0.1", 0).unwrap()).await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        while !begun.get() {
            sleep(SECOND / 100).await;
        }
        client.0.close();
        ended.wait().await;
        coroutine::moment().await;
        let expected: &[&str] = if finishes { &["finished", "dropped"] } else { &["dropped"] };
        assert_eq!(diary.read(), expected);
    }
}

#[test]
fn a_loop_that_is_closed_under_its_server_drops_all() {
    let diary = Diary::new();
    let io_loop = IoLoop::new().unwrap();
    let server = io_loop
        .run_sync(|| async {
            let held = diary.clone();
            let server = HttpServer::new(async move |_: Request| {
                let _at_end = held.at_end("dropped");
                std::future::pending::<()>().await;
            });
            let client = connect(server.listen_on("127.0.0.1", 0).unwrap()).await;
            client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
            sleep(SECOND / 20).await;
            server
        })
        .unwrap();
    io_loop.close();
    assert_eq!(diary.read(), ["dropped"]);
    assert_eq!(server.connections(), 0);
    drop(server);
}
