//! The crate's own server and client, together.

use std::io;

use futures::stream;
use waterspout::http::{
    Body, FetchError, HttpClient, HttpError, HttpServer, Request, Response, Version,
};
use waterspout::tls::{Roots, Tls, TlsConnector};

use super::*;

/// Sends back what it got: what comes as it comes, unless it is asked to collect it.
async fn echo(mut request: Request) -> Result<Response, HttpError> {
    if request.path() == "/collect" {
        let body = request.bytes().await?;
        return Ok(Response::new(body).with_header("x-length", "told"));
    }
    let (_, body) = request.into_parts();
    Ok(Response::new(Body::from(body)))
}

/// Where the server listens, and a client for it: in the clear, and over TLS with HTTP/1 and HTTP/2.
fn all() -> Vec<(HttpServer, String, HttpClient, Version)> {
    let names = vec!["127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let certificate = made.cert.pem();
    let acceptor =
        Tls::from_pem(certificate.as_bytes(), made.signing_key.serialize_pem().as_bytes());
    let acceptor = acceptor.unwrap().alpn(["h2", "http/1.1"]).acceptor().unwrap();
    let mut roots = Roots::empty();
    roots.add_pem(certificate.as_bytes()).unwrap();
    let connector = TlsConnector::new(roots).unwrap();
    let of = |server: HttpServer, scheme: &str, client: HttpClient, version| {
        let port = server.listen_on("127.0.0.1", 0).unwrap();
        (server, format!("{scheme}://127.0.0.1:{port}"), client, version)
    };
    let by_http1 = HttpClient::new().tls(connector.clone().alpn(["http/1.1"]));
    vec![
        of(HttpServer::new(echo), "http", HttpClient::new(), Version::HTTP_11),
        of(HttpServer::new(echo).tls(acceptor.clone()), "https", by_http1, Version::HTTP_11),
        of(
            HttpServer::new(echo).tls(acceptor),
            "https",
            HttpClient::new().tls(connector),
            Version::HTTP_2,
        ),
    ]
}

#[waterspout::test(timeout = 60)]
async fn bodies_of_all_sizes_go_there_and_back() {
    for (server, url, client, version) in all() {
        for size in [0, 1, 100, 65_535, 65_536, 1_000_000] {
            let sent: Vec<u8> = (0..size).map(|n: u32| n.to_le_bytes()[n as usize % 4]).collect();
            for path in ["/collect", "/"] {
                let mut answer = client.post(format!("{url}{path}"), sent.clone()).await.unwrap();
                assert_eq!((answer.status().as_u16(), answer.version()), (200, version));
                assert_eq!(answer.bytes().await.unwrap(), sent, "{url}{path} {size}");
                let parts: Vec<_> =
                    sent.chunks(10_000).map(|part| Ok::<_, io::Error>(part.to_vec())).collect();
                let parts = Body::from_stream(stream::iter(parts));
                let mut answer = client.post(format!("{url}{path}"), parts).await.unwrap();
                assert_eq!(answer.bytes().await.unwrap(), sent, "{url}{path} {size} streamed");
            }
        }
        assert_eq!(server.accepted(), 1, "{url}");
    }
}

#[cfg(feature = "compression")]
#[waterspout::test(timeout = 60)]
async fn what_the_server_compresses_the_client_decompresses() {
    let page = "a page that is long enough to be compressed. ".repeat(1000);
    let whole = page.clone();
    let server = HttpServer::new(async move |_| whole.clone()).compress_response(true);
    let url = format!("http://127.0.0.1:{}/", server.listen_on("127.0.0.1", 0).unwrap());
    let client = HttpClient::new();
    assert_eq!(text(&client, &url).await.unwrap(), page);
    let mut answer = client.get(&url).header("accept-encoding", "gzip").await.unwrap();
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    assert!(answer.bytes().await.unwrap().len() < page.len() / 10);
}

#[waterspout::test(timeout = 60)]
async fn many_at_the_same_time_get_each_his_own() {
    for (server, url, client, version) in all() {
        let fetches = (0..200).map(|number| {
            let (client, url) = (client.clone(), url.clone());
            async move {
                let sent = number.to_string().repeat(1000);
                let mut answer = client.post(&url, sent.clone()).await.unwrap();
                assert_eq!(answer.text().await.unwrap(), sent);
            }
        });
        futures::future::join_all(fetches).await;
        let most = if version == Version::HTTP_2 { 1 } else { 100 };
        assert!(server.accepted() <= most, "{url}: {}", server.accepted());
    }
}

#[waterspout::test(timeout = 60)]
async fn a_server_that_drains_lets_the_client_finish_and_then_is_not_there() {
    for (server, url, client, _) in all() {
        assert_eq!(client.post(&url, "first").await.unwrap().text().await.unwrap(), "first");
        let (mut says, said) = futures::channel::mpsc::channel::<io::Result<&'static str>>(1);
        let mut answer = client.post(&url, Body::from_stream(said)).await.unwrap();
        let finishing = async {
            common::turns(10).await;
            says.try_send(Ok("last")).unwrap();
            says.close_channel();
            assert_eq!(answer.text().await.unwrap(), "last");
        };
        let (left, ()) = futures::join!(server.drain(Duration::from_secs(30)), finishing);
        assert_eq!(left, 0, "{url}");
        let error = failure(&client, &url).await;
        assert!(matches!(error, FetchError::Connect { .. }), "{url} {error:?}");
    }
}
