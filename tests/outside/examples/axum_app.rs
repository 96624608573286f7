//! An axum app on an `HttpServer`, whose state is shared by all threads, beside state that is the loop's alone.
//!
//! ```text
//! $ cargo run --manifest-path tests/outside/Cargo.toml --example axum_app -- 8080
//! listening on http://127.0.0.1:8080/
//!
//! $ curl --json '{"apples": 2}' http://127.0.0.1:8080/tally    # in another terminal
//! $ curl http://127.0.0.1:8080/visits
//! ```
//!
//! With `--tls CERTIFICATES KEY` after the port, two PEM files, it speaks TLS. SIGTERM or Ctrl-C ends it.

#[path = "../../../examples/common/mod.rs"]
mod common;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use tower::ServiceExt as _;
use waterspout::coroutine;
use waterspout::futures::select;
use waterspout::http::{Body, HttpServer, Request, Response};
use waterspout::signal::{self, Signal};
use waterspout::tls::Tls;

const USAGE: &str = "PORT [--tls CERTIFICATES KEY]";

/// What axum's handlers share has to be `Send`, although nobody sends it here.
type Tally = Arc<Mutex<BTreeMap<String, u64>>>;

/// Adds what is sent, such as `{"apples": 2}`, and gives the whole tally.
async fn add(
    State(tally): State<Tally>,
    Json(more): Json<BTreeMap<String, u64>>,
) -> Json<BTreeMap<String, u64>> {
    let mut tally = tally.lock().expect("nobody panics with it");
    for (name, count) in more {
        let all = tally.entry(name).or_default();
        *all = all.saturating_add(count);
    }
    Json(tally.clone())
}

async fn show(State(tally): State<Tally>) -> Json<BTreeMap<String, u64>> {
    Json(tally.lock().expect("nobody panics with it").clone())
}

/// Handlers of axum's await what this crate has.
async fn wait(Path(milliseconds): Path<u16>) -> String {
    coroutine::sleep(Duration::from_millis(milliseconds.into())).await;
    format!("{milliseconds} ms later\n")
}

fn router() -> Router {
    Router::new()
        .route("/tally", get(show).post(add))
        .route("/wait/{milliseconds}", get(wait))
        .with_state(Tally::default())
}

/// The router behind a function that need not be `Send`: it answers what needs the loop's own state by itself, and
/// has the router answer the rest. Without such state, `HttpServer::tower(router())` is all there is to do.
fn server() -> HttpServer {
    let visits = Rc::new(Cell::new(0_u64));
    let router = router();
    HttpServer::new(async move |request: Request| {
        visits.set(visits.get() + 1);
        if request.path() == "/visits" {
            return Response::text(format!("{}\n", visits.get()));
        }
        let Ok(answer) = router.clone().oneshot(request.into_inner()).await;
        Response::from(answer.map(Body::from_http_body))
    })
}

#[waterspout::main]
async fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (port, tls) = match arguments[..] {
        [] => ("8080", None),
        [port] if !port.starts_with('-') => (port, None),
        [port, "--tls", certificates, key] => (port, Some((certificates, key))),
        _ => common::wrong("these arguments are not known here", USAGE),
    };
    let port = common::parsed(port, "port", USAGE);
    let mut terminate = signal::stream(Signal::TERMINATE)?;
    let mut interrupt = signal::stream(Signal::INTERRUPT)?;

    let (scheme, server) = match tls {
        Some((certificates, key)) => {
            let acceptor = Tls::from_pem_files(certificates, key).and_then(Tls::acceptor);
            ("https", server().tls(common::or_explain(acceptor, "speak TLS")))
        }
        None => ("http", server()),
    };
    let listening = server.listen_on("127.0.0.1", port);
    let port = common::or_explain(listening, &format!("listen on port {port}"));
    println!("listening on {scheme}://127.0.0.1:{port}/");

    select! {
        ended = terminate.recv() => ended?,
        ended = interrupt.recv() => ended?,
    }
    server.drain(Duration::from_secs(10)).await;
    Ok(())
}
