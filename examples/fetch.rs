//! Fetches a URL, and prints what it names or saves it in a file.
//!
//! ```text
//! $ cargo run --features client,tls-native-roots,tls,compression --example fetch -- https://www.rust-lang.org/
//! $ cargo run --features client --example fetch -- http://localhost:8000/large.iso large.iso
//! ```
//!
//! Without arguments it fetches from a small server of its own. On a terminal it shows how far it has come.

mod common;

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use waterspout::http::{FetchError, FetchResponse, HttpClient};
use waterspout::net::TcpServer;

const USAGE: &str = "URL [FILE]";

/// What is shown while a body comes: on a terminal, and not between what is printed there.
struct Progress {
    is_shown: bool,
    all: Option<u64>,
    got: u64,
    shown: u64,
}

impl Progress {
    fn new(all: Option<u64>, is_saved: bool) -> Progress {
        Progress { is_shown: is_saved && io::stderr().is_terminal(), all, got: 0, shown: 0 }
    }

    fn add(&mut self, bytes: usize) {
        self.got += bytes as u64;
        // Not for each part: a terminal is slow.
        if self.is_shown && (self.got - self.shown > 100_000 || Some(self.got) == self.all) {
            self.shown = self.got;
            let mut err = io::stderr().lock();
            let _ = match self.all {
                Some(all) if all > 0 => {
                    let done = usize::try_from(self.got * 40 / all).unwrap_or(40).min(40);
                    let bar = format!("{:40}", "#".repeat(done));
                    write!(err, "\r[{bar}] {} of {} kB", self.got / 1000, all / 1000)
                }
                _ => write!(err, "\r{} kB", self.got / 1000),
            };
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown > 0 {
            let _ = writeln!(io::stderr());
        }
    }
}

/// Writes the body where it belongs, as it comes.
async fn save(mut answer: FetchResponse, file: Option<&str>) -> io::Result<u64> {
    let mut to: Box<dyn Write> = match file {
        Some(file) => Box::new(File::create(file)?),
        None => Box::new(io::stdout().lock()),
    };
    let mut progress = Progress::new(answer.body().remaining(), file.is_some());
    while let Some(part) = answer.chunk().await? {
        // This blocks the loop, which has nothing else to do.
        to.write_all(&part)?;
        progress.add(part.len());
    }
    to.flush()?;
    Ok(progress.got)
}

async fn fetch(url: &str, file: Option<&str>) -> Result<(), FetchError> {
    // A large body may take as long as it likes, if only something comes.
    let client = HttpClient::new().proxy_from_env()?.max_body_size(u64::MAX);
    let client = client.request_timeout(Duration::MAX).stall_timeout(Duration::from_secs(30));
    let answer = client.get(url).await?.error_for_status()?;
    for (status, from) in answer.history() {
        eprintln!("{from} redirects: {status}");
    }
    let from = answer.url().clone();
    let bytes = common::or_explain(save(answer, file).await, "save that");
    if let Some(file) = file {
        eprintln!("{file}: {bytes} bytes from {from}");
    }
    Ok(())
}

#[waterspout::main]
async fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let server = TcpServer::new(async |stream, _peer| {
        stream.read_until("\r\n\r\n", 8192).await?;
        stream
            .write("HTTP/1.1 200 OK\r\nContent-Length: 27\r\n\r\nfetched from a server here\n")
            .await
    });
    let (url, file) = match arguments.as_slice() {
        [] => (format!("http://127.0.0.1:{}/", server.listen_on("127.0.0.1", 0)?), None),
        [url] if !url.starts_with('-') => (url.clone(), None),
        [url, file] if !url.starts_with('-') => (url.clone(), Some(file.as_str())),
        _ => common::wrong("these arguments are not known here", USAGE),
    };
    match fetch(&url, file).await {
        Err(FetchError::Invalid(why)) => common::wrong(&why, USAGE),
        result => common::or_explain(result, "fetch that"),
    }
    Ok(())
}
