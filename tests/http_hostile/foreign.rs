//! Code of others in handlers, bodies and services: it panics, never ends, or does something to its own server.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use futures::stream;
use waterspout::IoLoop;
use waterspout::coroutine::{self, moment, now, sleep};
use waterspout::http::{Body, Bytes, HttpServer, Incoming, Request, Response, StatusCode};

use super::{Inside, SECOND, reported, unharmed};
use crate::common::{AtDrop, Diary, virtual_loop};

/// A service that panics where it is told to.
struct Panics {
    at: &'static str,
    armed: Rc<Cell<bool>>,
}

impl Panics {
    fn may(&self, at: &str) {
        if self.at == at && self.armed.get() {
            panic!("a service at {at}");
        }
    }
}

impl Clone for Panics {
    fn clone(&self) -> Panics {
        self.may("clone");
        Panics { at: self.at, armed: self.armed.clone() }
    }
}

impl Drop for Panics {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.may("drop");
        }
    }
}

impl tower_service::Service<http::Request<Incoming>> for Panics {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = LocalBoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.may("poll_ready");
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Incoming>) -> Self::Future {
        self.may("call");
        let (at, armed) = (self.at, self.armed.get());
        Box::pin(async move {
            if armed && at == "future" {
                panic!("a service at future");
            }
            Ok(http::Response::new(Body::from("fine")))
        })
    }
}

#[test]
fn a_service_that_panics_anywhere_is_answered_with_500_and_reported_with_the_path() {
    for at in ["clone", "poll_ready", "call", "future", "drop"] {
        let armed = Rc::new(Cell::new(true));
        let arms = armed.clone();
        let reported = reported(|| async move {
            let server = HttpServer::tower(Panics { at, armed: arms.clone() });
            let inside = Inside::of(&server);
            let (client, other) = (inside.connect().await, inside.connect().await);
            let answer = client.get("/path").await;
            assert_eq!(answer.status(), 500, "{at}");
            arms.set(false);
            assert_eq!(client.get("/path").await.body, "fine", "{at}");
            assert_eq!(other.get("/path").await.body, "fine", "{at}");
        });
        assert_eq!(reported.len(), 1, "{at}: {reported:?}");
        assert!(reported[0].contains(&format!("a service at {at}")), "{reported:?}");
        assert!(reported[0].contains("at GET /path"), "{reported:?}");
        drop(armed);
    }
}

/// A body that panics where it is told to.
struct PanickingBody {
    at: &'static str,
    parts: u8,
}

impl PanickingBody {
    fn may(&self, at: &str) {
        if self.at == at {
            panic!("a body at {at}");
        }
    }
}

impl http_body::Body for PanickingBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        if self.parts == 0 {
            return Poll::Ready(None);
        }
        self.parts -= 1;
        if self.parts == 0 {
            self.may("poll_frame");
        }
        Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::from_static(b"part")))))
    }

    fn is_end_stream(&self) -> bool {
        self.may("is_end_stream");
        false
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.may("size_hint");
        http_body::SizeHint::default()
    }
}

impl Drop for PanickingBody {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.may("drop");
        }
    }
}

#[test]
fn a_body_that_panics_anywhere_ends_its_connection_is_reported_and_harms_no_other() {
    for at in ["poll_frame", "is_end_stream", "size_hint", "drop"] {
        let reported = reported(|| async move {
            let server = HttpServer::new(async move |request: Request| match request.path() {
                "/fine" => Response::text("fine"),
                _ => Response::new(Body::from_http_body(PanickingBody { at, parts: 2 })),
            });
            let inside = Inside::of(&server);
            let (client, other) = (inside.connect().await, inside.connect().await);
            client.send("GET /bad HTTP/1.1\r\nhost: a\r\n\r\n");
            let all = client.0.read_until_close();
            futures::pin_mut!(all);
            for _ in 0..5 {
                moment().await;
            }
            assert_eq!(other.get("/fine").await.body, "fine", "{at}");
            let all = all.await.unwrap_or_default();
            assert!(at == "drop" || !all.ends_with(b"0\r\n\r\n"), "{at}: it is whole");
            moment().await;
            assert_eq!(server.connections(), 1, "{at}");
            assert_eq!(server.drain(5 * SECOND).await, 0);
        });
        assert_eq!(reported.len(), 1, "{at}: {reported:?}");
        assert!(reported[0].contains(&format!("a body at {at}")), "{reported:?}");
    }
}

/// Does something to the server whose handler it is in.
type Act = fn(HttpServer) -> LocalBoxFuture<'static, ()>;

#[test]
fn a_handler_may_do_anything_to_its_own_server() {
    let acts: &[(&str, Act)] = &[
        ("drop", |server| async move { drop(server) }.boxed_local()),
        ("drop and wait", |server| {
            async move {
                drop(server);
                moment().await;
                unreachable!("it is cancelled where it waits");
            }
            .boxed_local()
        }),
        ("drain", |server| async move { _ = server.drain(SECOND).await }.boxed_local()),
        ("drain given up", |server| {
            async move { _ = server.drain(SECOND).now_or_never() }.boxed_local()
        }),
        ("stop twice", |server| {
            async move {
                server.stop();
                server.stop();
            }
            .boxed_local()
        }),
        ("close the loop", |server| {
            async move {
                IoLoop::current().close();
                drop(server);
            }
            .boxed_local()
        }),
    ];
    for (name, act) in acts {
        let diary = Diary::new();
        let held = diary.clone();
        let io_loop = virtual_loop();
        let outcome = io_loop.run_sync_timeout(60 * SECOND, || async move {
            let server = Rc::new(RefCell::new(None));
            let taken = server.clone();
            let handler = async move |_: Request| {
                let _at_end = held.at_end("ended");
                if let Some(server) = taken.take() {
                    act(server).await;
                }
                "done"
            };
            let made = HttpServer::new(handler);
            let inside = Inside::of(&made);
            *server.borrow_mut() = Some(made);
            let (client, other) = (inside.connect().await, inside.connect().await);
            moment().await;
            moment().await;
            client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
            let rest = client.0.read_until_close().await;
            assert!(rest.is_ok(), "{rest:?}");
            let _ = other.0.read_until_close().await;
        });
        let is_ended_as_expected = outcome.is_ok() || *name == "close the loop";
        assert!(
            is_ended_as_expected || *name == "drain given up" || *name == "stop twice",
            "{name}: {outcome:?}"
        );
        drop(io_loop);
        assert_eq!(diary.read(), ["ended"], "{name}");
    }
}

#[test]
fn state_whose_destructor_asks_the_server_is_dropped_when_nothing_is_borrowed() {
    for how in ["drop", "drain", "close"] {
        let asked = Rc::new(Cell::new(0));
        let counts = asked.clone();
        let io_loop = virtual_loop();
        let kept = io_loop
            .run_sync(|| async move {
                let server: Rc<RefCell<Option<Rc<HttpServer>>>> = Rc::default();
                let asks = server.clone();
                let state = Rc::new(AtDrop(move || {
                    counts.set(counts.get() + 1);
                    if let Ok(server) = asks.try_borrow() {
                        if let Some(server) = &*server {
                            let _ =
                                (server.connections(), server.accepted(), format!("{server:?}"));
                            server.stop();
                        }
                    }
                    let _ = coroutine::start(async {}).now_or_never();
                }));
                let in_body = state.clone();
                let made = HttpServer::new(async move |request: Request| {
                    state.keep();
                    if request.path() == "/body" {
                        let in_body = in_body.clone();
                        return Response::new(Body::from_stream(stream::poll_fn(move |_| {
                            in_body.keep();
                            Poll::<Option<Result<Bytes, Infallible>>>::Pending
                        })));
                    }
                    std::future::pending().await
                });
                let inside = Inside::of(&made);
                let (idle, busy, body) =
                    (inside.connect().await, inside.connect().await, inside.connect().await);
                busy.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
                body.send("GET /body HTTP/1.1\r\nhost: a\r\n\r\n");
                sleep(3 * SECOND).await;
                let made = Rc::new(made);
                match how {
                    "drain" => assert_eq!(made.drain(SECOND).await, 2),
                    _ => *server.borrow_mut() = Some(made.clone()),
                }
                let given = server.take();
                drop(given);
                if how == "close" {
                    *server.borrow_mut() = Some(made);
                }
                (server, idle, busy, body)
            })
            .unwrap();
        io_loop.close();
        drop(kept.0.take());
        drop(kept);
        drop(io_loop);
        assert_eq!(asked.get(), 1, "{how}");
    }
}

#[test]
fn a_handler_that_never_ends_and_is_to_finish_does_not_keep_its_connection_or_the_server() {
    let diary = Diary::new();
    let held = diary.clone();
    unharmed(|| async move {
        let server = HttpServer::new(async move |_: Request| {
            let _at_end = held.at_end("dropped");
            std::future::pending::<()>().await;
        })
        .finish_requests(true);
        let client = Inside::of(&server).connect().await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        sleep(SECOND).await;
        drop(client);
        sleep(SECOND).await;
        let begun = now();
        server.drain(5 * SECOND).await;
        assert!(now() - begun <= 5 * SECOND);
        assert_eq!(server.connections(), 0);
    });
    assert_eq!(diary.read(), ["dropped"]);
}

#[test]
fn an_upgrade_that_nobody_takes_or_takes_too_late_ends_its_connection() {
    unharmed(|| async {
        let kept = Rc::new(RefCell::new(None));
        let keeps = kept.clone();
        let server = HttpServer::new(async move |mut request: Request| {
            if request.path() == "/kept" {
                *keeps.borrow_mut() = Some(hyper::upgrade::on(&mut *request));
            }
            Response::new(Body::empty())
                .with_status(StatusCode::SWITCHING_PROTOCOLS)
                .with_header("connection", "upgrade")
                .with_header("upgrade", "lines")
        });
        let inside = Inside::of(&server);
        let head = |path: &str| {
            format!(
                "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: lines\r\n\r\n"
            )
        };
        let client = inside.connect().await;
        client.send(head("/never"));
        assert!(client.head().await.starts_with("HTTP/1.1 101 "));
        assert!(client.is_closed().await);
        let client = inside.connect().await;
        client.send(head("/kept"));
        assert!(client.head().await.starts_with("HTTP/1.1 101 "));
        sleep(SECOND).await;
        let upgrading = kept.take().unwrap();
        drop(client);
        drop(server);
        // The stream is whoever's took it; it has ended, and is no panic.
        let _ = upgrading.await;
        // Asked for where nothing is upgraded.
        let upgrading = Rc::new(RefCell::new(None));
        let keeps = upgrading.clone();
        let server = HttpServer::new(async move |mut request: Request| {
            *keeps.borrow_mut() = Some(hyper::upgrade::on(&mut *request));
            "no"
        });
        let client = Inside::of(&server).connect().await;
        client.send(head("/"));
        assert_eq!(client.answer().await.body, "no");
        drop(client);
        let _ = upgrading.take().unwrap().await;
    });
}

#[test]
fn a_loop_that_is_closed_under_connections_of_all_kinds_drops_them() {
    let diary = Diary::new();
    let held = diary.clone();
    let io_loop = virtual_loop();
    let kept = io_loop
        .run_sync(|| async move {
            let server = HttpServer::new(async move |request: Request| {
                let at_end = held.at_end(request.path().to_owned());
                if request.path() == "/wait" {
                    std::future::pending::<()>().await;
                }
                Response::new(Body::from_stream(stream::poll_fn(move |_| {
                    at_end.keep();
                    Poll::<Option<Result<Bytes, Infallible>>>::Pending
                })))
            });
            let inside = Inside::of(&server);
            let mut clients = Vec::new();
            for send in [
                "",
                "GET /wait HTTP/1.1\r\nhost: a\r\n\r\n",
                "GET /body HTTP/1.1\r\nhost: a\r\n\r\n",
                "GET",
            ] {
                let client = inside.connect().await;
                client.send(send);
                clients.push(client);
            }
            let h2 = inside.connect().await;
            h2.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
            clients.push(h2);
            sleep(3 * SECOND).await;
            assert_eq!(server.connections(), 5);
            (server, inside, clients)
        })
        .unwrap();
    io_loop.close();
    let mut ended = diary.read();
    ended.sort();
    assert_eq!(ended, ["/body", "/wait"]);
    assert_eq!(kept.0.connections(), 0);
    drop(kept);
}

#[test]
fn a_handler_that_starts_a_loop_within_its_own_is_told_so_and_can_answer() {
    unharmed(|| async {
        let server = HttpServer::new(async |_: Request| {
            let inner = virtual_loop();
            inner.run_sync(|| async {}).unwrap_err().to_string()
        });
        let client = Inside::of(&server).connect().await;
        for _ in 0..2 {
            assert!(client.get("/").await.body.contains("running"));
            sleep(3 * SECOND).await;
        }
    });
}
