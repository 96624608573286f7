//! Tornado's demonstration of queues: a crawler. Its workers take paths from a queue, fetch these pages, and
//! put the links that they find there into the queue.
//!
//! ```text
//! $ cargo run --example webspider                       # crawls a small site of its own
//! $ cargo run --example webspider -- localhost 8000     # crawls that site, by plain HTTP
//! ```

mod common;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{IsTerminal, stderr};
use std::time::Duration;

use futures::future::join_all;
use waterspout::coroutine::with_timeout;
use waterspout::iostream::{IoStream, StreamError};
use waterspout::net::{TcpClient, TcpServer, TcpStream};
use waterspout::queues::Queue;

const WORKERS: usize = 4;

/// Serves a site of ten pages, whose links form a tree.
async fn serve(stream: IoStream<TcpStream>) -> Result<(), StreamError> {
    let request = stream.read_until("\r\n\r\n", 8192).await?;
    let request = String::from_utf8_lossy(&request);
    let answer = match request.split([' ', '/']).nth(2).and_then(|page| page.parse().ok()) {
        Some(page @ 1..=10) => {
            let links = [2 * page, 2 * page + 1].map(|to| format!("<a href=\"/{to}\">{to}</a>\n"));
            format!("HTTP/1.0 200 OK\r\n\r\n{}", if page < 6 { links.concat() } else { "".into() })
        }
        _ => "HTTP/1.0 404 Not Found\r\n\r\nthere is no such page".into(),
    };
    stream.write(answer).await
}

/// Fetches a page. The result has the headers and the body in one text.
async fn fetch(host: &str, port: u16, path: &str) -> Result<String, Box<dyn std::error::Error>> {
    let stream = IoStream::new(TcpClient::new().connect(host, port).await?);
    stream.write(format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n"));
    Ok(String::from_utf8_lossy(&stream.read_until_close().await?).into_owned())
}

#[waterspout::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = TcpServer::new(|stream, _peer| serve(stream));
    let usage = "HOST PORT";
    let (host, port, first) = match common::arguments(usage) {
        Some(asked) => (asked[0].clone(), common::parsed(&asked[1], "port", usage), "/"),
        None => ("localhost".into(), server.listen_on("localhost", 0)?, "/1"),
    };
    // Each path that was found, with its page once that was fetched. All workers are on one thread, so a
    // `RefCell` is enough to share it.
    let pages = RefCell::new(BTreeMap::from([(first.to_owned(), String::new())]));
    let queue = Queue::new(0);
    queue.put(first.to_owned()).await?;
    let worker = async || {
        while let Ok(path) = queue.get().await {
            let fetched = with_timeout(Duration::from_secs(5), fetch(&host, port, &path)).await;
            let page =
                fetched.map_or_else(|e| e.to_string(), |f| f.unwrap_or_else(|e| e.to_string()));
            for link in page.split("href=\"").skip(1).filter_map(|link| link.split('"').next()) {
                if link.starts_with('/') && !pages.borrow().contains_key(link) {
                    pages.borrow_mut().insert(link.to_owned(), String::new());
                    let _ = queue.put_nowait(link.to_owned());
                }
            }
            pages.borrow_mut().insert(path, page);
            let _ = queue.task_done();
            if stderr().is_terminal() {
                eprint!("\r{} pages found, {} to go ", pages.borrow().len(), queue.qsize());
            }
        }
    };
    let all_done = async {
        queue.join().await;
        queue.close(); // which ends the workers
    };
    futures::join!(all_done, join_all((0..WORKERS).map(|_| worker())));
    println!("{:8} {:>6}  what", "path", "bytes");
    for (path, page) in pages.take() {
        println!("{path:8} {:6}  {}", page.len(), page.lines().next().unwrap_or_default());
    }
    Ok(())
}
