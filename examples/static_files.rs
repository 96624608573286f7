//! Serves the files beneath a folder. SIGTERM or Ctrl-C ends it, once the requests under way are answered.
//!
//! ```text
//! $ cargo run --features server --example static_files -- target/doc 8080
//! listening on http://127.0.0.1:8080/
//! ```

mod common;

use std::io;
use std::time::Duration;

use waterspout::futures::select;
use waterspout::http::{HttpServer, Request, StaticFiles};
use waterspout::signal::{self, Signal};

const USAGE: &str = "DIR PORT";

#[waterspout::main]
async fn main() -> io::Result<()> {
    let arguments = common::arguments(USAGE).unwrap_or_else(|| vec![".".into(), "8080".into()]);
    let files = StaticFiles::new(&arguments[0]).index("index.html").precompressed(true);
    let port: u16 = common::parsed(&arguments[1], "port", USAGE);
    let mut terminate = signal::stream(Signal::TERMINATE)?;
    let mut interrupt = signal::stream(Signal::INTERRUPT)?;

    let server = HttpServer::new(async move |request: Request| files.serve(&request).await);
    let what = format!("listen on port {port}");
    let port = common::or_explain(server.listen_on("127.0.0.1", port), &what);
    println!("listening on http://127.0.0.1:{port}/");

    select! {
        ended = terminate.recv() => ended?,
        ended = interrupt.recv() => ended?,
    }
    server.drain(Duration::from_secs(10)).await;
    Ok(())
}
