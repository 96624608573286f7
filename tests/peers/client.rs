//! The client of ours that `tests/peers/run` has ask other people's servers.
//!
//! `peer_client CHECK VERSION URL [SOCKET]`, in the folder of the certificates: all answers have to be of
//! this version of HTTP. With a socket, that is what it connects to, whatever the URL says.

use std::future::Future;
use std::io;
use std::time::Duration;

use waterspout::coroutine::multi;
use waterspout::futures::{StreamExt as _, stream};
use waterspout::http::{Body, FetchError, FetchResponse, HttpClient, Method};
use waterspout::tls::{Roots, TlsConnector};

type Checked = Result<(), Box<dyn std::error::Error>>;

struct Peer {
    client: HttpClient,
    version: String,
    url: String,
    upload: Vec<u8>,
}

impl Peer {
    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    async fn fetched(
        &self,
        fetch: impl Future<Output = Result<FetchResponse, FetchError>>,
    ) -> Result<FetchResponse, FetchError> {
        let answer = fetch.await?.error_for_status()?;
        assert_eq!(format!("{:?}", answer.version()), self.version);
        Ok(answer)
    }

    async fn get(&self, path: &str) -> Result<FetchResponse, FetchError> {
        self.fetched(self.client.get(self.url(path)).into_future()).await
    }

    /// A folder of files.
    async fn files(&self) -> Checked {
        let head = self.client.request(Method::HEAD, self.url("/upload"));
        let head = self.fetched(head.into_future()).await?;
        assert_eq!(head.header("content-length"), Some("3000000"));
        assert!(self.get("/upload").await?.bytes().await? == self.upload);
        let missing = self.get("/missing").await.err().and_then(|error| error.status());
        assert_eq!(missing.map(|status| status.as_u16()), Some(404));
        let many = (0..20).map(async |_| self.get("/piece").await?.bytes().await);
        for piece in multi(many.collect::<Vec<_>>()).await? {
            assert!(piece == self.upload[..100_000]);
        }
        Ok(())
    }

    /// A part of a file.
    async fn ranges(&self) -> Checked {
        let part = self.client.get(self.url("/upload")).header("range", "bytes=1000-1999");
        let mut part = self.fetched(part.into_future()).await?;
        assert_eq!(part.status(), 206);
        assert!(part.bytes().await? == self.upload[1000..2000]);
        Ok(())
    }

    /// What is sent comes back: as a whole, and in parts.
    async fn echo(&self) -> Checked {
        let upload = self.upload.clone();
        let parts: Vec<_> = upload.chunks(100_000).map(<[u8]>::to_vec).collect();
        let parts = Body::from_stream(stream::iter(parts).map(Ok::<_, io::Error>));
        for body in [Body::from(upload), parts] {
            let echo = self.client.post(self.url("/echo"), body);
            assert!(self.fetched(echo.into_future()).await?.bytes().await? == self.upload);
        }
        Ok(())
    }

    /// An answer in parts, which may be compressed; a redirection; a time limit.
    async fn answers(&self) -> Checked {
        let lines = self.get("/lines?count=50").await?.text().await?;
        assert_eq!(lines.lines().last(), Some("line 49"));
        let redirected = self.get("/redirect").await?;
        assert_eq!(redirected.history().len(), 1);
        let slow = self.client.get(self.url("/slow?ms=60000"));
        let slow = slow.request_timeout(Duration::from_millis(300)).await;
        assert!(slow.is_err_and(|error| error.is_timeout()));
        assert_eq!(self.get("/lines?count=1").await?.text().await?, "line 0\n");
        Ok(())
    }

    /// The server sees the certificate.
    async fn certificate(&self) -> Checked {
        assert_eq!(self.get("/certificate").await?.text().await?, "SUCCESS");
        Ok(())
    }
}

#[waterspout::main]
async fn main() -> Checked {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (check, version, url, socket) = match arguments.as_slice() {
        [check, version, url] => (check, version, url, None),
        [check, version, url, socket] => (check, version, url, Some(socket)),
        _ => {
            eprintln!("usage: peer_client CHECK VERSION URL [SOCKET]");
            std::process::exit(2)
        }
    };
    let connector = TlsConnector::new(Roots::from_pem_file("ca.pem")?)?;
    let connector = connector.client_certificate_pem_files("client.pem", "client.key")?;
    let client = HttpClient::new().tls(connector);
    let client = match socket {
        Some(socket) => client.unix_socket(socket),
        None => client,
    };
    let upload = std::fs::read("upload")?;
    let peer = Peer { client, version: version.clone(), url: url.clone(), upload };
    match check.as_str() {
        "files" => peer.files().await,
        "ranges" => peer.ranges().await,
        "echo" => peer.echo().await,
        "answers" => peer.answers().await,
        "certificate" => peer.certificate().await,
        _ => Err(format!("there is no check `{check}`").into()),
    }
}
