//! Which connection a request goes by, and when connections end.

use std::cell::Cell;
use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::turns;
use futures::poll;
use waterspout::IoLoop;
use waterspout::coroutine::{self, sleep};
use waterspout::http::{BodyError, FetchError, HttpClient};
use waterspout::locks::Event;

use super::*;

/// A site that answers, and says how many of its connections have ended.
fn counting(answer: impl Fn(&Asked) -> String + 'static) -> (Site, Rc<Cell<u32>>) {
    let ended = Rc::new(Cell::new(0));
    let counts = ended.clone();
    let site = Site::scripted(async move |stream| {
        serve(&stream, &answer).await;
        counts.set(counts.get() + 1);
    });
    (site, ended)
}

#[waterspout::test]
async fn a_connection_serves_one_request_after_the_other() {
    let (site, ended) = counting(|asked| ok(asked.target()));
    let client = HttpClient::new();
    for path in ["/1", "/2", "/3"] {
        assert_eq!(text(&client, site.url(path)).await.unwrap(), path);
    }
    // A clone has the same connections.
    assert_eq!(text(&client.clone(), site.url("/4")).await.unwrap(), "/4");
    assert_eq!((site.accepted(), ended.get()), (1, 0));
}

#[waterspout::test]
async fn a_clone_has_settings_of_its_own_and_another_way_to_connect_makes_another_client() {
    let (site, _) = counting(|asked| ok(asked.header("user-agent").unwrap()));
    let client = HttpClient::new().user_agent("one");
    let other = client.clone().user_agent("two");
    assert_eq!(text(&client, site.url("/")).await.unwrap(), "one");
    assert_eq!(text(&other, site.url("/")).await.unwrap(), "two");
    assert_eq!(site.accepted(), 1);
    let other = other.source("127.0.0.1:0".parse().unwrap());
    assert_eq!(text(&other, site.url("/")).await.unwrap(), "two");
    assert_eq!(site.accepted(), 2);
    assert!(format!("{other:?}").contains("HttpClient"));
}

#[waterspout::test]
async fn requests_at_the_same_time_have_a_connection_each() {
    let (site, _) = counting(|asked| ok(asked.target()));
    let client = HttpClient::new();
    let fetches = (0..5).map(|_| text(&client, site.url("/")));
    for answer in futures::future::join_all(fetches).await {
        assert!(answer.is_ok());
    }
    assert_eq!(site.accepted(), 5);
    assert!(text(&client, site.url("/")).await.is_ok());
    assert_eq!(site.accepted(), 5);
}

#[waterspout::test]
async fn each_origin_has_its_own() {
    let (one, _) = counting(|_| ok("one"));
    let (two, _) = counting(|_| ok("two"));
    let client = HttpClient::new();
    for _ in 0..2 {
        assert_eq!(text(&client, one.url("/")).await.unwrap(), "one");
        assert_eq!(text(&client, two.url("/")).await.unwrap(), "two");
    }
    assert_eq!((one.accepted(), two.accepted()), (1, 1));
}

#[waterspout::test]
async fn a_connection_that_is_to_be_closed_is_not_used_again() {
    for answer in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ] {
        let site = Site::saying_and_staying(answer);
        let client = HttpClient::new();
        for _ in 0..2 {
            assert_eq!(text(&client, site.url("/")).await.unwrap(), "ok");
        }
        assert_eq!(site.accepted(), 2);
    }
    let (site, ended) = counting(|_| ok("ok"));
    let client = HttpClient::new();
    for _ in 0..2 {
        let fetch = client.get(site.url("/")).header("connection", "close");
        assert!(fetch.await.unwrap().text().await.is_ok());
    }
    turns(10).await;
    assert_eq!((site.accepted(), ended.get()), (2, 2));
}

/// The server ends each connection after the answer, and says nothing of it. The loop may not have heard of
/// that when the next request is sent.
#[waterspout::test]
async fn a_connection_that_the_server_has_ended_is_not_used_again() {
    let site = Site::saying(ok("ok"));
    let client = HttpClient::new();
    for _ in 0..20 {
        assert_eq!(text(&client, site.url("/")).await.unwrap(), "ok");
    }
    for pause in [0, 1, 2, 3, 10] {
        turns(pause).await;
        assert_eq!(text(&client, site.url("/")).await.unwrap(), "ok");
    }
}

#[waterspout::test]
async fn an_end_that_the_loop_has_not_heard_of_is_seen() {
    let (end, ended) = (Event::new(), Event::new());
    let (asked_to_end, has_ended) = (end.clone(), ended.clone());
    let site = Site::scripted(async move |stream| {
        asked(&stream).await;
        let _ = stream.write(ok("ok")).await;
        asked_to_end.wait().await;
        stream.close();
        has_ended.set();
    });
    let client = HttpClient::new();
    assert!(text(&client, site.url("/")).await.is_ok());
    end.set();
    ended.wait().await;
    assert_eq!(text(&client, site.url("/")).await.unwrap(), "ok");
    assert_eq!(site.accepted(), 2);
}

#[waterspout::test]
async fn what_nobody_asked_for_is_no_answer() {
    let say = Event::new();
    let says = say.clone();
    let site = Site::scripted(async move |stream| {
        let mut is_first = true;
        while asked(&stream).await.is_some() {
            let _ = stream.write(ok(if is_first { "good" } else { "late" })).await;
            is_first = false;
            says.wait().await;
            let _ = stream.write(ok("evil")).await;
        }
    });
    for pause in [0, 1, 5] {
        say.clear();
        let client = HttpClient::new();
        assert_eq!(text(&client, site.url("/")).await.unwrap(), "good");
        say.set();
        turns(pause).await;
        assert_eq!(text(&client, site.url("/")).await.unwrap(), "good");
    }
}

#[waterspout::test]
async fn what_was_not_read_to_its_end_closes_the_connection() {
    let long = "x".repeat(1 << 20);
    let (site, ended) = counting(move |_| ok(&long));
    let client = HttpClient::new();
    let mut answer = client.get(site.url("/")).await.unwrap();
    assert!(answer.chunk().await.unwrap().is_some());
    drop(answer);
    common::until(|| ended.get() == 1).await;
    assert!(client.get(site.url("/")).await.unwrap().bytes().await.is_ok());
    assert_eq!((site.accepted(), ended.get()), (2, 1));
}

#[waterspout::test]
async fn a_fetch_that_is_dropped_closes_the_connection() {
    let (site, ended) = counting(|_| String::new());
    let client = HttpClient::new();
    let mut fetch = client.get(site.url("/"));
    assert!(poll!(&mut fetch).is_pending());
    common::until(|| site.accepted() == 1).await;
    turns(5).await;
    assert_eq!(ended.get(), 0);
    drop(fetch);
    common::until(|| ended.get() == 1).await;
}

#[waterspout::test]
async fn a_fetch_that_is_dropped_at_any_time_leaves_the_client_as_it_was() {
    let (site, _) = counting(|asked| ok(asked.target()));
    let client = HttpClient::new().max_clients(1);
    for steps in 0..12 {
        let mut fetch = Box::pin(text(&client, site.url("/dropped")));
        for _ in 0..steps {
            if poll!(&mut fetch).is_ready() {
                break;
            }
            turns(1).await;
        }
        drop(fetch);
        assert_eq!(text(&client, site.url("/next")).await.unwrap(), "/next", "{steps}");
    }
}

#[waterspout::test(virtual_time)]
async fn an_idle_connection_ends_after_a_while() {
    let (site, ended) = counting(|_| ok("ok"));
    let client = HttpClient::new().idle_timeout(10 * SECOND);
    for _ in 0..3 {
        assert!(text(&client, site.url("/")).await.is_ok());
        sleep(9 * SECOND).await;
    }
    assert_eq!((site.accepted(), ended.get()), (1, 0));
    sleep(2 * SECOND).await;
    assert_eq!(ended.get(), 1);
    assert!(text(&client, site.url("/")).await.is_ok());
    assert_eq!(site.accepted(), 2);
}

#[waterspout::test]
async fn only_so_many_idle_connections_are_kept() {
    let (site, ended) = counting(|_| ok("ok"));
    let client = HttpClient::new().max_idle_per_origin(2);
    let fetches = (0..5).map(|_| text(&client, site.url("/")));
    futures::future::join_all(fetches).await;
    common::until(|| ended.get() == 3).await;
    assert_eq!(site.accepted(), 5);
    turns(10).await;
    assert_eq!(ended.get(), 3);
    // All together they are as many as there may be clients.
    let (other, _) = counting(|_| ok("ok"));
    let client = client.max_clients(1);
    assert!(text(&client, other.url("/")).await.is_ok());
    common::until(|| ended.get() == 4).await;
    let none = HttpClient::new().idle_timeout(Duration::ZERO);
    for _ in 0..2 {
        assert!(text(&none, site.url("/")).await.is_ok());
    }
    assert_eq!(site.accepted(), 7);
}

#[waterspout::test]
async fn idle_connections_end_with_the_last_client() {
    let (site, ended) = counting(|_| ok("ok"));
    let client = HttpClient::new();
    let clone = client.clone();
    assert!(text(&client, site.url("/")).await.is_ok());
    drop(client);
    turns(10).await;
    assert_eq!(ended.get(), 0);
    drop(clone);
    common::until(|| ended.get() == 1).await;
}

#[waterspout::test]
async fn an_answer_can_be_read_when_the_client_has_gone() {
    let long = "x".repeat(1 << 20);
    let (site, ended) = counting(move |_| ok(&long));
    let client = HttpClient::new();
    let mut fetch = client.get(site.url("/"));
    assert!(poll!(&mut fetch).is_pending());
    drop(client);
    let mut answer = fetch.await.unwrap();
    assert_eq!(answer.bytes().await.unwrap().len(), 1 << 20);
    common::until(|| ended.get() == 1).await;
}

#[waterspout::test]
async fn close_ends_all_at_once() {
    let (site, ended) =
        counting(|asked| if asked.target() == "/never" { String::new() } else { ok("ok") });
    let half = Site::saying_and_staying("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx");
    let client = HttpClient::new();
    assert!(text(&client, site.url("/")).await.is_ok());
    let mut half_read = client.get(half.url("/")).await.unwrap();
    let waits = client.get(site.url("/never"));
    let waits = coroutine::start(waits);
    turns(10).await;
    client.clone().close();
    assert!(matches!(waits.await, Err(FetchError::Closed)));
    assert!(matches!(half_read.bytes().await, Err(FetchError::Body(BodyError::Broken(_)))));
    assert!(matches!(failure(&client, site.url("/")).await, FetchError::Closed));
    common::until(|| ended.get() == 1).await;
}

#[test]
fn in_whatever_order_things_run_each_fetch_gets_its_own_answer() {
    waterspout::testing::explore(100, async || {
        // Each connection ends after three answers, without saying so; every fifth answer has too much.
        let count = Rc::new(Cell::new(0));
        let site = Site::scripted(async move |stream| {
            for _ in 0..3 {
                let Some(asked) = asked(&stream).await else { return };
                count.set(count.get() + 1);
                let much = if count.get() % 5 == 0 { ok("evil") } else { String::new() };
                if stream.write(ok(asked.target()) + &much).await.is_err() {
                    return;
                }
            }
        });
        let client = HttpClient::new().max_clients(3);
        let fetches = (0..12).map(|number| {
            let (client, path) = (client.clone(), format!("/{number}"));
            let url = site.url(&path);
            coroutine::spawn(async move {
                if number % 4 == 3 {
                    let mut given_up = client.get(&url);
                    for _ in 0..number {
                        if poll!(&mut given_up).is_ready() {
                            break;
                        }
                        turns(1).await;
                    }
                }
                for _ in 0..3 {
                    assert_eq!(text(&client, &url).await.unwrap(), path);
                }
            })
        });
        for fetch in fetches.collect::<Vec<_>>() {
            fetch.await;
        }
        drop(client);
        common::until(|| site.server.connections() == 0).await;
    });
}

/// A server on threads of its own, and how many connections it has got.
fn threaded() -> (String, Arc<AtomicUsize>) {
    let listener = std::net::TcpListener::bind(common::LOOPBACK).unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let accepted = Arc::new(AtomicUsize::new(0));
    let counts = accepted.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            counts.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || {
                // A request comes in one piece.
                while stream.read(&mut [0; 4096]).is_ok_and(|length| length > 0) {
                    stream.write_all(ok("ok").as_bytes()).unwrap();
                }
            });
        }
    });
    (url, accepted)
}

/// A connection is used on the loop that it was made on: on another one, nobody would run it.
#[test]
fn a_client_can_go_from_loop_to_loop() {
    let (url, accepted) = threaded();
    let client = HttpClient::new();
    let fetch = |io_loop: &IoLoop| {
        io_loop.make_current();
        let limit = Duration::from_secs(60);
        let fetched = io_loop.run_sync_timeout(limit, async || {
            for _ in 0..2 {
                assert_eq!(text(&client, &url).await.unwrap(), "ok");
            }
            // The connection is given back in the next turn.
            turns(2).await;
        });
        fetched.unwrap();
        accepted.load(Ordering::SeqCst)
    };
    let (one, two) = (IoLoop::new().unwrap(), IoLoop::new().unwrap());
    assert_eq!(fetch(&one), 1);
    assert_eq!(fetch(&two), 2);
    // Those of a loop that is closed have ended.
    drop(two);
    let three = IoLoop::new().unwrap();
    assert_eq!(fetch(&three), 3);
    assert!(fetch(&one) <= 4);
}

#[test]
fn a_loop_that_is_closed_ends_what_it_fetches() {
    let client = HttpClient::new();
    let io_loop = IoLoop::new().unwrap();
    let (waits, mut half_read) = io_loop
        .run_sync(async || {
            let (site, _) = counting(|asked| {
                if asked.target() == "/never" { String::new() } else { ok("x".repeat(1 << 20)) }
            });
            let waits = coroutine::start(client.get(site.url("/never")));
            let half_read = client.get(site.url("/")).await.unwrap();
            common::until(|| site.accepted() == 2).await;
            (waits, half_read)
        })
        .unwrap();
    drop(io_loop);
    assert!(waits.done());
    let other = IoLoop::new().unwrap();
    let error = other.run_sync(async || half_read.bytes().await.unwrap_err()).unwrap();
    assert!(matches!(error, FetchError::Body(BodyError::Broken(_))), "{error:?}");
}

#[waterspout::test]
async fn connections_are_coroutines_with_a_name() {
    let (site, _) = counting(|_| ok("ok"));
    let client = HttpClient::new();
    assert!(text(&client, site.url("/")).await.is_ok());
    turns(3).await;
    let running = IoLoop::current().coroutines();
    let ours = running.iter().filter(|coroutine| coroutine.name.contains("HttpClient"));
    assert_eq!(ours.count(), 2, "{running:?}");
    drop(client);
    turns(3).await;
    let running = IoLoop::current().coroutines();
    assert!(!running.iter().any(|coroutine| coroutine.name.contains("HttpClient")), "{running:?}");
}
