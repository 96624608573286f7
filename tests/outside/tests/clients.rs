//! HTTP clients that bring a runtime or a thread of their own: reqwest within `Compat`, ureq in an executor.
//! The server that they ask is on the loop meanwhile.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use async_compat::Compat;
use futures::future::join_all;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use waterspout::IoLoop;
use waterspout::coroutine::{self, with_timeout};
use waterspout::hyper::{Io, OnLoop};
use waterspout::net::TcpServer;
use waterspout::testing::ExpectPanic;

/// Answers what was asked: "POST /path text". For `/never`, there is no answer.
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    if head.uri.path() == "/never" {
        return pending().await;
    }
    let body = body.collect().await.unwrap().to_bytes();
    let text = format!("{} {} {}", head.method, head.uri.path(), String::from_utf8_lossy(&body));
    Ok(Response::new(text.into()))
}

/// A server, and its URL without a path.
fn server() -> (TcpServer, String) {
    let server = TcpServer::bare(async |stream, _| {
        let mut http = http1::Builder::new();
        // It is an error for hyper if a client hangs up before it has the answer.
        let _ = http.timer(OnLoop).serve_connection(Io::new(stream), service_fn(answer)).await;
    });
    let port = server.listen_on("127.0.0.1", 0).unwrap();
    (server, format!("http://127.0.0.1:{port}"))
}

async fn post(
    client: &reqwest::Client,
    url: String,
    body: &'static str,
) -> reqwest::Result<String> {
    client.post(url).body(body).send().await?.error_for_status()?.text().await
}

#[waterspout::test]
async fn reqwest_asks_within_compat_many_at_once() {
    let (_server, url) = server();
    let heard = Rc::new(RefCell::new(Vec::new()));
    let hears = heard.clone();
    // What is in there is still a future of the loop, and need not be `Send`.
    let asks = Compat::new(async move {
        let client = reqwest::Client::new();
        join_all((0..100).map(async |n| {
            let answer = post(&client, format!("{url}/{n}"), "hello").await.unwrap();
            assert_eq!(answer, format!("POST /{n} hello"));
            hears.borrow_mut().push(n);
        }))
        .await;
    });
    asks.await;
    assert_eq!(heard.borrow().len(), 100);
}

#[waterspout::test]
async fn a_request_that_is_given_up_leaves_the_client_usable() {
    let (server, url) = server();
    let asks = Compat::new(async {
        let client = reqwest::Client::new();
        let never = client.get(format!("{url}/never")).send();
        with_timeout(Duration::from_millis(10), never).await.unwrap_err();
        post(&client, format!("{url}/next"), "").await.unwrap()
    });
    assert_eq!(asks.await, "POST /next ");
    // The server heard that both have hung up.
    assert_eq!(server.drain(Duration::from_secs(5)).await, 0);
}

#[waterspout::test]
async fn reqwest_finds_no_runtime_without_compat() {
    let (_server, url) = server();
    let panics = ExpectPanic::new("there is no reactor running");
    let asks = coroutine::start(async move { reqwest::Client::new().get(url).send().await });
    assert!(asks.join().await.is_err());
    assert_eq!(panics.count(), 1);
}

#[waterspout::test]
async fn ureq_asks_in_an_executor_and_the_loop_goes_on() {
    let (_server, url) = server();
    let asks = (0..10).map(|n| {
        let url = format!("{url}/{n}");
        IoLoop::current().run_in_executor(move || {
            let mut answer = ureq::post(&url).send("hello")?;
            answer.body_mut().read_to_string()
        })
    });
    let answers = join_all(asks.collect::<Vec<_>>()).await;
    for (n, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.unwrap(), format!("POST /{n} hello"));
    }
}
