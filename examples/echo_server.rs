//! An echo server: what a client sends, it gets back.
//!
//! ```text
//! $ cargo run --example echo_server
//! listening on 127.0.0.1:8888
//!
//! $ nc 127.0.0.1 8888         # in another terminal: type a line, and Ctrl-D to end
//! ```
//!
//! Another address can be given: `cargo run --example echo_server 127.0.0.1:9999`; port 0 takes a
//! free one.

mod common;

use std::io;
use std::time::Duration;

use waterspout::coroutine::sleep;
use waterspout::net::{TcpListener, TcpStream};

/// Serves one connection. Nobody awaits this coroutine, so an error of it goes to the loop's exception
/// handler, which writes it to the log or to standard error. The server goes on.
#[waterspout::coroutine]
async fn echo(stream: TcpStream) -> io::Result<()> {
    loop {
        let bytes = stream.read_lent().await?;
        if bytes.is_empty() {
            return Ok(());
        }
        stream.write_all(&bytes).await?;
    }
}

#[waterspout::main]
async fn main() -> io::Result<()> {
    let asked = common::arguments("HOST:PORT");
    let address = asked.map_or("127.0.0.1:8888".into(), |arguments| arguments.concat());
    let listener = TcpListener::bind(address.as_str()).await;
    let listener = common::or_explain(listener, &format!("listen on {address}"));
    println!("listening on {}", listener.local_addr()?);
    loop {
        match listener.accept().await {
            Ok((stream, _peer)) => drop(echo(stream)), // it runs from here on
            Err(error) => {
                // Too many open files, most likely. The client still waits to be accepted, so
                // another attempt would fail at once, until somebody has hung up.
                eprintln!("cannot accept: {error}");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
