//! `HttpClient`, against servers that say what a test has them say.

#[path = "../common/mod.rs"]
mod common;

mod answers;
mod bodies;
#[cfg(feature = "compression")]
mod compressed;
mod connections;
mod limits;
mod proxies;
mod redirects;
mod requests;
#[cfg(all(feature = "tls", feature = "http2"))]
mod secure;
#[cfg(all(feature = "http2", feature = "server", feature = "tls"))]
mod served;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use waterspout::http::{FetchError, HttpClient};
use waterspout::iostream::{IoStream, Transport};
use waterspout::net::{TcpServer, TcpStream};

const SECOND: Duration = Duration::from_secs(1);

type Stream = IoStream<TcpStream>;

/// A request as it has arrived.
#[derive(Clone, Debug)]
struct Asked {
    head: String,
    body: Vec<u8>,
}

impl Asked {
    fn method(&self) -> &str {
        self.head.split(' ').next().unwrap()
    }

    fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    fn has(&self, name: &str) -> bool {
        self.header(name).is_some()
    }

    fn body(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The next request; `None` if there is none.
async fn asked<S: Transport>(stream: &IoStream<S>) -> Option<Asked> {
    let mut asked = head(stream).await?;
    asked.body = match (asked.header("content-length"), asked.has("transfer-encoding")) {
        (Some(length), _) => stream.read_bytes(length.parse().unwrap()).await.ok()?,
        (None, true) => {
            let mut body = Vec::new();
            loop {
                let line = stream.read_until("\r\n", 100).await.ok()?;
                let size = std::str::from_utf8(&line).unwrap().trim();
                let size = usize::from_str_radix(size, 16).unwrap();
                let mut chunk = stream.read_bytes(size + 2).await.ok()?;
                chunk.truncate(size);
                body.extend(chunk);
                if size == 0 {
                    break body;
                }
            }
        }
        (None, false) => Vec::new(),
    };
    Some(asked)
}

/// The head of the next request, whose body is not read.
async fn head<S: Transport>(stream: &IoStream<S>) -> Option<Asked> {
    let head = stream.read_until("\r\n\r\n", 1 << 20).await.ok()?;
    Some(Asked { head: String::from_utf8(head).unwrap(), body: Vec::new() })
}

/// A server on the loopback.
struct Site {
    server: TcpServer,
    port: u16,
}

impl Site {
    /// Does with each connection what the test says.
    fn scripted(script: impl AsyncFn(Stream) + 'static) -> Site {
        let server = TcpServer::new(async move |stream, _peer| script(stream).await);
        let port = server.listen_on("127.0.0.1", 0).unwrap();
        Site { server, port }
    }

    /// Answers each request, as long as the client likes.
    fn answering(answer: impl Fn(&Asked) -> String + 'static) -> Site {
        Site::scripted(async move |stream| serve(&stream, &answer).await)
    }

    /// Reads one request, says this, and ends the connection.
    fn saying(answer: impl AsRef<[u8]> + 'static) -> Site {
        Site::scripted(async move |stream| {
            if asked(&stream).await.is_some() {
                let _ = stream.write(answer.as_ref()).await;
            }
        })
    }

    /// As [`saying`](Site::saying), but the connection stays open until the client ends it.
    fn saying_and_staying(answer: impl AsRef<[u8]> + 'static) -> Site {
        Site::scripted(async move |stream| {
            while asked(&stream).await.is_some() {
                let _ = stream.write(answer.as_ref()).await;
            }
        })
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// How many connections were made in all.
    fn accepted(&self) -> u64 {
        self.server.accepted()
    }
}

async fn serve<S: Transport>(stream: &IoStream<S>, answer: &impl Fn(&Asked) -> String) {
    while let Some(asked) = asked(stream).await {
        if stream.write(answer(&asked)).await.is_err() {
            return;
        }
    }
}

/// An answer with this body.
fn ok(body: impl AsRef<str>) -> String {
    let body = body.as_ref();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A redirection.
fn to(status: u16, location: &str) -> String {
    format!("HTTP/1.1 {status} Elsewhere\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n")
}

/// The requests that a site has got.
#[derive(Clone, Default)]
struct Log(Rc<RefCell<Vec<Asked>>>);

impl Log {
    fn note(&self, asked: &Asked) {
        self.0.borrow_mut().push(asked.clone());
    }

    fn take(&self) -> Vec<Asked> {
        self.0.take()
    }

    /// The only request.
    fn one(&self) -> Asked {
        let mut all = self.take();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }
}

/// A site that answers everything with `ok`, and what it was asked.
fn noting() -> (Site, Log) {
    let log = Log::default();
    let notes = log.clone();
    let site = Site::answering(move |asked| {
        notes.note(asked);
        ok(if asked.method() == "HEAD" { "" } else { "ok" })
    });
    (site, log)
}

/// The body that this gives, as text.
async fn text(client: &HttpClient, url: impl AsRef<str>) -> Result<String, FetchError> {
    client.get(url).await?.text().await
}

/// Fetches, and gives the error of the body or of the fetch.
async fn failure(client: &HttpClient, url: impl AsRef<str>) -> FetchError {
    text(client, url).await.unwrap_err()
}
