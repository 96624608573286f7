//! Proxies that are asked by plain HTTP; those that tunnel are in `secure.rs`, but for what goes wrong there.

use waterspout::http::{FetchError, HttpClient};

use super::*;

#[waterspout::test]
async fn a_proxy_gets_the_whole_url() {
    let (proxy, log) = noting();
    let client = HttpClient::new().proxy(&proxy.url("")).unwrap();
    assert_eq!(text(&client, "http://www.example.com/path?x#y").await.unwrap(), "ok");
    let asked = log.one();
    assert_eq!(asked.target(), "http://www.example.com/path?x");
    assert_eq!(asked.header("host"), Some("www.example.com"));
    assert!(!asked.has("proxy-authorization"));
    // One connection serves all hosts.
    assert_eq!(text(&client, "http://other.example.com:81/").await.unwrap(), "ok");
    assert_eq!(log.one().target(), "http://other.example.com:81/");
    assert_eq!(proxy.accepted(), 1);
}

#[waterspout::test]
async fn a_proxy_is_told_who_asks_and_the_server_too() {
    let (proxy, log) = noting();
    let url = proxy.url("").replace("//", "//me:secret@");
    let client = HttpClient::new().proxy(&url).unwrap();
    assert!(client.get("http://you:other@www.example.com/").await.is_ok());
    let asked = log.one();
    assert_eq!(asked.header("proxy-authorization"), Some("Basic bWU6c2VjcmV0"));
    assert_eq!(asked.header("authorization"), Some("Basic eW91Om90aGVy"));
    assert_eq!(asked.target(), "http://www.example.com/");
    // Who goes by no proxy has nothing to tell it.
    let (site, log) = noting();
    let direct = HttpClient::new().get(site.url("/")).header("proxy-authorization", "secret");
    assert!(direct.await.is_ok());
    assert!(!log.one().has("proxy-authorization"));
}

#[waterspout::test]
async fn a_proxy_follows_no_redirection_by_itself() {
    let log = Log::default();
    let notes = log.clone();
    let proxy = Site::answering(move |asked| {
        notes.note(asked);
        if asked.target().contains("one") { to(302, "http://two.example.com/x") } else { ok("two") }
    });
    let client = HttpClient::new().proxy(&proxy.url("").replace("//", "//me:secret@")).unwrap();
    assert_eq!(text(&client, "http://one.example.com/").await.unwrap(), "two");
    let [first, second] = log.take().try_into().unwrap();
    assert_eq!(
        (first.target(), second.target()),
        ("http://one.example.com/", "http://two.example.com/x")
    );
    // It is the proxy's, whatever the origin.
    assert!(first.has("proxy-authorization") && second.has("proxy-authorization"));
}

#[waterspout::test]
async fn what_is_no_proxy_is_an_error() {
    for url in ["", "socks5://host", "http://me:secret@"] {
        let error = HttpClient::new().proxy(url).unwrap_err();
        assert!(matches!(error, FetchError::Invalid(_)), "{url} {error:?}");
    }
    let port = waterspout::testing::bind_unused_port().unwrap().1;
    let client = HttpClient::new().proxy(&format!("127.0.0.1:{port}")).unwrap();
    let error = failure(&client, "http://www.example.com/").await;
    assert!(matches!(error, FetchError::Connect { .. }), "{error:?}");
    assert!(error.to_string().contains(&port.to_string()), "{error}");
}

#[waterspout::test]
async fn a_tunnel_that_is_refused_is_an_error_that_says_why() {
    let refusals: [(&str, &str); 6] = [
        ("HTTP/1.1 407 x\r\nProxy-Authenticate: Basic\r\nContent-Length: 4\r\n\r\nnope", "407"),
        ("HTTP/1.1 403 Forbidden\r\n\r\nno", "403"),
        ("HTTP/1.1 302 x\r\nLocation: http://evil/\r\nContent-Length: 0\r\n\r\n", "302"),
        ("garbage\r\n\r\n", ""),
        ("", ""),
        // Bytes that were sent before the client has said anything would be taken for the server's.
        ("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\nevil", "more than an answer"),
    ];
    for (answer, says) in refusals {
        let proxy = Site::saying(answer);
        let client = HttpClient::new().proxy(&proxy.url("")).unwrap();
        let error = failure(&client, "https://www.example.com/").await;
        assert!(matches!(error, FetchError::Proxy { .. }), "{answer:?} {error:?}");
        assert!(error.to_string().contains(says), "{answer:?} {error}");
    }
}

#[waterspout::test(virtual_time)]
async fn a_tunnel_is_part_of_connecting() {
    let proxy = Site::scripted(async |stream| {
        asked(&stream).await;
        stream.closed().await;
    });
    let client = HttpClient::new().proxy(&proxy.url("")).unwrap().connect_timeout(SECOND);
    let error = failure(&client, "https://www.example.com/").await;
    assert!(matches!(error, FetchError::ConnectTimedOut { .. }), "{error:?}");
    common::until(|| proxy.server.connections() == 0).await;
}
