//! Serves `Hello, world!` over HTTP. SIGTERM or Ctrl-C ends it, once the requests under way are answered.
//!
//! ```text
//! $ cargo run --release --all-features --example http_hello -- 8080
//! listening on http://127.0.0.1:8080/
//!
//! $ curl http://127.0.0.1:8080/               # in another terminal; also with --http2-prior-knowledge
//! ```

mod common;

use std::io;
use std::time::Duration;

use waterspout::futures::select;
use waterspout::http::{HttpServer, Request, Response};
use waterspout::signal::{self, Signal};

#[waterspout::main]
async fn main() -> io::Result<()> {
    let port = match common::arguments("PORT") {
        Some(arguments) => common::parsed(&arguments[0], "port", "PORT"),
        None => 8080,
    };
    let mut terminate = signal::stream(Signal::TERMINATE)?;
    let mut interrupt = signal::stream(Signal::INTERRUPT)?;

    let server = HttpServer::new(async |_: Request| Response::text("Hello, world!"));
    let port = common::or_explain(server.listen_on("127.0.0.1", port), "listen");
    println!("listening on http://127.0.0.1:{port}/");

    select! {
        ended = terminate.recv() => ended?,
        ended = interrupt.recv() => ended?,
    }
    server.drain(Duration::from_secs(10)).await;
    Ok(())
}
