//! Time limits, limits of size, and the queue.

use std::cell::Cell;

use common::turns;
use waterspout::coroutine::{self, now, sleep};
use waterspout::http::{BodyError, FetchError, HttpClient};
use waterspout::locks::Semaphore;
use waterspout::net::Resolver;

use super::*;

/// A site that answers each request when it is let.
fn let_by(gate: &Semaphore) -> (Site, Rc<Cell<usize>>) {
    let (gate, waiting) = (gate.clone(), Rc::new(Cell::new(0)));
    let waits = waiting.clone();
    let site = Site::scripted(async move |stream| {
        while let Some(asked) = asked(&stream).await {
            waits.set(waits.get() + 1);
            gate.acquire().await.forget();
            waits.set(waits.get() - 1);
            let _ = stream.write(ok(asked.target())).await;
        }
    });
    (site, waiting)
}

#[waterspout::test]
async fn only_so_many_fetch_at_the_same_time() {
    let gate = Semaphore::new(0);
    let (site, waiting) = let_by(&gate);
    let client = HttpClient::new().max_clients(2);
    let done = Rc::new(RefCell::new(Vec::new()));
    for number in 0..4 {
        let (client, done, url) = (client.clone(), done.clone(), site.url(&format!("/{number}")));
        coroutine::start(async move {
            let path = text(&client, url).await.unwrap();
            done.borrow_mut().push(path);
        });
    }
    // Which of two that are answered at the same time is first, the selector says.
    let sorted = || {
        let mut done = done.borrow().clone();
        done.sort_unstable();
        done
    };
    common::until(|| waiting.get() == 2).await;
    turns(10).await;
    assert_eq!(waiting.get(), 2);
    gate.release();
    gate.release();
    common::until(|| done.borrow().len() == 2 && waiting.get() == 2).await;
    assert_eq!(sorted(), ["/0", "/1"]);
    gate.release();
    gate.release();
    common::until(|| done.borrow().len() == 4).await;
    assert_eq!(sorted(), ["/0", "/1", "/2", "/3"]);
    assert_eq!(site.accepted(), 2);
}

#[waterspout::test]
async fn whoever_waits_longest_is_next() {
    let (site, log) = noting();
    let client = HttpClient::new().max_clients(1);
    let paths = ["/0", "/1", "/2", "/3"];
    let fetches = paths.iter().map(|path| text(&client, site.url(path)));
    for answer in futures::future::join_all(fetches).await {
        assert!(answer.is_ok());
    }
    let asked: Vec<_> = log.take().iter().map(|asked| asked.target().to_owned()).collect();
    assert_eq!((asked.as_slice(), site.accepted()), (&paths.map(String::from)[..], 1));
}

#[waterspout::test(virtual_time)]
async fn waiting_in_the_queue_has_a_time_limit_of_its_own() {
    let gate = Semaphore::new(0);
    let (site, _) = let_by(&gate);
    let client =
        HttpClient::new().max_clients(1).queue_timeout(SECOND).request_timeout(60 * SECOND);
    let first = coroutine::start(client.get(site.url("/first")));
    let begun = now();
    let error = failure(&client, site.url("/second")).await;
    assert!(matches!(error, FetchError::QueueTimedOut(SECOND)) && error.is_timeout(), "{error:?}");
    assert_eq!(now() - begun, SECOND);
    gate.release();
    assert_eq!(first.await.unwrap().text().await.unwrap(), "/first");
    gate.release();
    assert_eq!(text(&client, site.url("/third")).await.unwrap(), "/third");
}

#[waterspout::test(virtual_time)]
async fn the_time_in_the_queue_counts_for_no_other_limit() {
    let gate = Semaphore::new(0);
    let (site, _) = let_by(&gate);
    let client = HttpClient::new().max_clients(1).request_timeout(5 * SECOND);
    let first = coroutine::start(client.get(site.url("/first")).request_timeout(60 * SECOND));
    let second = coroutine::start({
        let (client, url) = (client.clone(), site.url("/second"));
        async move { text(&client, url).await }
    });
    sleep(10 * SECOND).await;
    gate.release();
    assert!(first.await.unwrap().text().await.is_ok());
    sleep(2 * SECOND).await;
    gate.release();
    assert_eq!(second.await.unwrap(), "/second");
}

#[waterspout::test]
async fn an_answer_has_its_place_until_it_was_read_or_dropped() {
    let site = Site::answering(|_| ok("x".repeat(1 << 20)));
    let client = HttpClient::new().max_clients(1);
    let mut answer = client.get(site.url("/")).await.unwrap();
    let waits = coroutine::start(client.get(site.url("/")));
    turns(20).await;
    assert!(!waits.done());
    answer.bytes().await.unwrap();
    let half_read = waits.await.unwrap();
    let waits = coroutine::start(client.get(site.url("/")));
    turns(20).await;
    assert!(!waits.done());
    drop(half_read);
    assert!(waits.await.is_ok());
}

#[waterspout::test(virtual_time)]
async fn a_server_that_never_answers_has_a_time_limit() {
    let site = Site::scripted(async |stream| {
        asked(&stream).await;
        stream.closed().await;
    });
    let begun = now();
    let error = failure(&HttpClient::new(), site.url("/")).await;
    assert!(matches!(error, FetchError::TimedOut(_)) && error.is_timeout(), "{error:?}");
    assert_eq!(now() - begun, 20 * SECOND);
    let error = HttpClient::new().get(site.url("/")).request_timeout(SECOND).await.unwrap_err();
    assert!(matches!(error, FetchError::TimedOut(SECOND)), "{error:?}");
    let error = std::io::Error::from(error);
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
}

#[waterspout::test(virtual_time)]
async fn connecting_has_a_time_limit_which_looking_up_the_name_is_part_of() {
    struct Never;
    impl Resolver for Never {
        async fn resolve(&self, _: &str, _: u16) -> std::io::Result<Vec<std::net::SocketAddr>> {
            std::future::pending().await
        }
    }
    let client = HttpClient::new().resolver(Never).connect_timeout(SECOND);
    let begun = now();
    let error = failure(&client, "http://www.example.com/").await;
    assert!(matches!(error, FetchError::ConnectTimedOut { .. }) && error.is_timeout(), "{error:?}");
    assert!(error.to_string().contains("www.example.com:80"), "{error}");
    assert_eq!(now() - begun, SECOND);
    let error = client.get("http://www.example.com/").request_timeout(SECOND / 2).await;
    assert!(matches!(error, Err(FetchError::TimedOut(_))), "{error:?}");
}

#[waterspout::test]
async fn nobody_there_is_an_error_that_says_where() {
    let port = waterspout::testing::bind_unused_port().unwrap().1;
    let error = failure(&HttpClient::new(), format!("http://127.0.0.1:{port}/")).await;
    let FetchError::Connect { error: cause, .. } = &error else { panic!("{error:?}") };
    assert_eq!(cause.kind(), std::io::ErrorKind::ConnectionRefused);
    assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
}

#[waterspout::test(virtual_time)]
async fn the_body_has_what_is_left_of_the_time() {
    let site = Site::scripted(async |stream| {
        asked(&stream).await;
        sleep(15 * SECOND).await;
        let _ = stream.write("HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write("x").await.is_ok() {
            sleep(SECOND).await;
        }
    });
    let begun = now();
    let error = failure(&HttpClient::new(), site.url("/")).await;
    assert!(
        matches!(error, FetchError::Body(BodyError::TimedOut(_))) && error.is_timeout(),
        "{error:?}"
    );
    assert_eq!(now() - begun, 20 * SECOND);
}

#[waterspout::test(virtual_time)]
async fn a_body_may_take_long_and_still_not_stall() {
    let site = Site::scripted(async |stream| {
        let asked = asked(&stream).await.unwrap();
        let _ = stream.write("HTTP/1.1 200 OK\r\n\r\n").await;
        for second in 1..=20 {
            sleep(second * SECOND).await;
            let _ = stream.write("x").await;
            if asked.target() == "/short" && second == 5 {
                return;
            }
        }
    });
    let client = HttpClient::new().request_timeout(Duration::MAX).stall_timeout(10 * SECOND);
    assert_eq!(text(&client, site.url("/short")).await.unwrap(), "xxxxx");
    let error = failure(&client, site.url("/long")).await;
    assert!(matches!(error, FetchError::Body(BodyError::TimedOut(_))), "{error:?}");
}

#[waterspout::test]
async fn a_body_that_is_too_large_is_an_error() {
    let site = Site::answering(|asked| {
        let body = "a"
            .repeat(1024 * asked.target().trim_start_matches(['/', 'c']).parse::<usize>().unwrap());
        if asked.target().starts_with("/c") {
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                body.len()
            )
        } else {
            ok(body)
        }
    });
    let client = HttpClient::new().max_body_size(64 * 1024);
    assert_eq!(text(&client, site.url("/64")).await.unwrap().len(), 64 * 1024);
    assert_eq!(text(&client, site.url("/c64")).await.unwrap().len(), 64 * 1024);
    for path in ["/65", "/c65", "/100"] {
        let error = failure(&client, site.url(path)).await;
        assert!(matches!(error, FetchError::Body(BodyError::TooLarge(65536))), "{error:?}");
    }
    let fetch = client.get(site.url("/100")).max_body_size(100 * 1024);
    assert!(fetch.await.unwrap().bytes().await.is_ok());
}

#[waterspout::test]
async fn a_head_that_is_too_large_is_an_error() {
    let site = Site::answering(|asked| {
        let filler = "a".repeat(asked.target()[1..].parse().unwrap());
        format!("HTTP/1.1 200 OK\r\nX-Filler: {filler}\r\nContent-Length: 2\r\n\r\nok")
    });
    let client = HttpClient::new().max_header_size(1024);
    assert_eq!(text(&client, site.url("/100")).await.unwrap(), "ok");
    let error = failure(&client, site.url("/1000")).await;
    assert!(matches!(error, FetchError::Broken(_)), "{error:?}");
    let client = HttpClient::new();
    assert_eq!(text(&client, site.url("/60000")).await.unwrap(), "ok");
    assert!(matches!(failure(&client, site.url("/70000")).await, FetchError::Broken(_)));
    let many = (0..1000).map(|number| format!("x-{number}: 1\r\n")).collect::<String>();
    let site = Site::saying(format!("HTTP/1.1 200 OK\r\n{many}\r\n"));
    assert!(matches!(failure(&client, site.url("/")).await, FetchError::Broken(_)));
}

/// A head of no end is not taken in for ever.
#[waterspout::test]
async fn a_head_without_an_end_is_an_error() {
    let site = Site::scripted(async |stream| {
        asked(&stream).await;
        let _ = stream.write("HTTP/1.1 200 OK\r\n").await;
        while stream.write("x: y\r\n".repeat(100)).await.is_ok() {}
    });
    let error = failure(&HttpClient::new(), site.url("/")).await;
    assert!(matches!(error, FetchError::Broken(_)), "{error:?}");
}
