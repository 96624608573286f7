//! What the client sends.

use http::{Method, Request};
use waterspout::http::{self as client, FetchError, HttpClient, Url};

use super::*;

#[waterspout::test]
async fn one_line_fetches_a_url() {
    let site = Site::answering(|_| ok("hello"));
    assert_eq!(client::fetch(site.url("/")).await.unwrap().text().await.unwrap(), "hello");
}

#[waterspout::test]
async fn a_url_becomes_a_request() {
    let (site, log) = noting();
    let client = HttpClient::new();
    let answer = client.fetch(site.url("/a%20b/ä?x=1&y=#part")).await.unwrap();
    assert_eq!(answer.status(), 200);
    let asked = log.one();
    assert!(asked.head.starts_with("GET /a%20b/%C3%A4?x=1&y= HTTP/1.1\r\n"), "{asked:?}");
    assert_eq!(asked.header("host").unwrap(), format!("127.0.0.1:{}", site.port));
    let version = concat!("waterspout/", env!("CARGO_PKG_VERSION"));
    assert_eq!(asked.header("user-agent"), Some(version));
    assert!(!asked.has("connection") && !asked.has("content-length") && !asked.has("cookie"));
}

#[waterspout::test]
async fn urls_come_in_any_type() {
    let (site, log) = noting();
    let client = HttpClient::new();
    let text = site.url("/");
    let url = Url::parse(&text).unwrap();
    for fetch in [client.fetch(&text), client.fetch(text.as_str()), client.fetch(text.clone())] {
        assert!(fetch.await.is_ok());
    }
    for fetch in [client.fetch(&url), client.fetch(url.clone()), client.get(&url)] {
        assert!(fetch.await.is_ok());
    }
    assert_eq!(log.take().len(), 6);
}

#[waterspout::test]
async fn every_method_is_sent_with_or_without_a_body() {
    let (site, log) = noting();
    let client = HttpClient::new();
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "OTHER", "HEAD"] {
        let named = Method::from_bytes(method.as_bytes()).unwrap();
        let mut answer = client.request(named.clone(), site.url("/")).await.unwrap();
        assert_eq!(answer.text().await.unwrap(), if method == "HEAD" { "" } else { "ok" });
        assert_eq!(log.one().method(), method);
        client.request(named, site.url("/")).body("data").await.unwrap().bytes().await.unwrap();
        let asked = log.one();
        assert_eq!((asked.method(), asked.body().as_str()), (method, "data"));
        assert_eq!(asked.header("content-length"), Some("4"));
    }
}

#[waterspout::test]
async fn a_body_of_text_is_utf_8_and_bytes_go_as_they_are() {
    let (site, log) = noting();
    let client = HttpClient::new();
    let answer = client.post(site.url("/"), "é").header("content-type", "x/y").await;
    assert!(answer.is_ok());
    let asked = log.one();
    assert_eq!(
        (asked.body.as_slice(), asked.header("content-length")),
        (&b"\xc3\xa9"[..], Some("2"))
    );
    assert_eq!(asked.header("content-type"), Some("x/y"));
    assert!(client.post(site.url("/"), b"\xe9".to_vec()).await.is_ok());
    let asked = log.one();
    assert_eq!((asked.body.as_slice(), asked.has("content-type")), (&b"\xe9"[..], false));
}

#[waterspout::test]
async fn a_request_of_the_http_crate_is_sent_as_it_is() {
    let (site, log) = noting();
    let request = Request::patch(site.url("/x")).header("foo", "one").header("foo", "two");
    let request =
        request.header("user-agent", "mine").header("host", "other").body("data").unwrap();
    assert!(HttpClient::new().fetch(request).await.is_ok());
    let asked = log.one();
    assert_eq!((asked.method(), asked.target(), asked.body().as_str()), ("PATCH", "/x", "data"));
    assert!(asked.head.contains("foo: one\r\nfoo: two\r\n"));
    assert_eq!((asked.header("user-agent"), asked.header("host")), (Some("mine"), Some("other")));
}

#[waterspout::test]
async fn the_user_agent_can_be_set_or_left_out() {
    let (site, log) = noting();
    let client = HttpClient::new();
    assert!(client.clone().user_agent("mine").get(site.url("/")).await.is_ok());
    assert_eq!(log.one().header("user-agent"), Some("mine"));
    assert!(client.clone().user_agent("").get(site.url("/")).await.is_ok());
    assert!(!log.one().has("user-agent"));
    let of_request = client.user_agent("mine").get(site.url("/")).header("user-agent", "its");
    assert!(of_request.await.is_ok());
    assert_eq!(log.one().header("user-agent"), Some("its"));
}

#[waterspout::test]
async fn a_name_and_a_password_are_a_header() {
    let (site, log) = noting();
    let client = HttpClient::new();
    // The examples of RFC 7617.
    assert!(client.get(site.url("/")).basic_auth("Aladdin", "open sesame").await.is_ok());
    assert_eq!(log.one().header("authorization"), Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
    assert!(client.get(site.url("/")).basic_auth("test", "123£").await.is_ok());
    assert_eq!(log.one().header("authorization"), Some("Basic dGVzdDoxMjPCow=="));
}

#[waterspout::test]
async fn a_name_and_a_password_in_a_url_are_a_header_and_nowhere_else() {
    let (site, log) = noting();
    let client = HttpClient::new();
    let url = site.url("/").replace("http://", "http://me:secret@");
    let answer = client.fetch(&url).await.unwrap();
    assert_eq!(answer.url().as_str(), site.url("/"));
    let asked = log.one();
    assert_eq!(asked.header("authorization"), Some("Basic bWU6c2VjcmV0"));
    assert_eq!(asked.header("host").unwrap(), format!("127.0.0.1:{}", site.port));
    assert_eq!(asked.target(), "/");
    // A header says more than the URL.
    assert!(client.get(&url).header("authorization", "Other").await.is_ok());
    assert_eq!(log.one().header("authorization"), Some("Other"));
    let failed = client.fetch("http://me:secret@127.0.0.1:1/").await.unwrap_err();
    assert!(!format!("{failed} {failed:?}").contains("secret"), "{failed:?}");
    let failed = client.fetch("http://me:secret@host:99999/").await.unwrap_err();
    assert!(!format!("{failed} {failed:?}").contains("secret"), "{failed:?}");
    assert!(!format!("{:?}", client.fetch("http://me:secret@host/")).contains("secret"));
}

#[waterspout::test]
async fn what_is_no_header_is_an_error_and_nothing_is_sent() {
    let (site, log) = noting();
    let client = HttpClient::new();
    for bad in ["a\rb", "a\nb", "a\r\nx: y", "a\0"] {
        let error = client.get(site.url("/")).header("foo", bad).await.unwrap_err();
        assert!(matches!(error, FetchError::Invalid(_)), "{error:?}");
        let error = client.get(site.url("/")).header(bad, "foo").await.unwrap_err();
        assert!(matches!(error, FetchError::Invalid(_)), "{error:?}");
    }
    assert!(log.take().is_empty() && site.accepted() == 0);
}

#[waterspout::test]
async fn a_line_break_in_a_url_reaches_no_server() {
    let (site, log) = noting();
    let client = HttpClient::new();
    for path in ["/a\r\nx: y", "/?q=\r\nx: y", "/\r\n\r\nGET /b HTTP/1.1\r\n\r\n", "/#\r\nx: y"] {
        let _ = client.fetch(site.url(path)).await.unwrap();
        let asked = log.one();
        assert!(!asked.has("x") && asked.method() == "GET", "{asked:?}");
    }
    let url = format!("http://127.0.0.1:{}%0d%0ax:y/", site.port);
    for url in [&url, "http://a b/", "http://a%0d%0ab/", "http://u\r\n@/", "http://h\0/"] {
        let error = client.fetch(url).await.unwrap_err();
        assert!(matches!(error, FetchError::Invalid(_)), "{url} {error:?}");
    }
    assert!(log.take().is_empty());
}

#[waterspout::test]
async fn what_is_no_url_of_http_is_an_error() {
    let client = HttpClient::new();
    let urls = [
        "",
        "host",
        "/path",
        "ftp://host/",
        "file:///etc/passwd",
        "http://",
        "mailto:me",
        "http:///",
    ];
    for url in urls.iter().filter(|url| **url != "http:///") {
        let error = client.fetch(*url).await.unwrap_err();
        assert!(matches!(error, FetchError::Invalid(_)), "{url} {error:?}");
    }
    let relative = Request::get("/path").body("").unwrap();
    assert!(matches!(client.fetch(relative).await, Err(FetchError::Invalid(_))));
    let connect = client.request(Method::CONNECT, "http://host/").await;
    assert!(matches!(connect, Err(FetchError::Invalid(_))));
}

#[cfg(not(any(feature = "tls", feature = "tls-aws-lc")))]
#[waterspout::test]
async fn https_needs_tls() {
    let site = Site::answering(|_| ok(""));
    let url = site.url("/").replace("http:", "https:");
    let error = failure(&HttpClient::new(), url).await;
    assert!(error.to_string().contains("feature tls"), "{error}");
}

#[waterspout::test]
async fn a_numeric_address_of_ipv6_is_connected_to() {
    let server = TcpServer::new(async |stream: Stream, _peer| {
        serve(&stream, &|asked| ok(asked.header("host").unwrap())).await;
    });
    let Ok(port) = server.listen_on("::1", 0) else { return };
    let url = format!("http://[::1]:{port}/");
    assert_eq!(text(&HttpClient::new(), url).await.unwrap(), format!("[::1]:{port}"));
}

#[waterspout::test]
async fn names_are_looked_up_as_the_client_is_told() {
    use waterspout::net::{OverrideResolver, ThreadedResolver};
    let (site, log) = noting();
    let known = OverrideResolver::new(ThreadedResolver)
        .with_host("www.example.com", "127.0.0.1")
        .with_port("other.example.com", 8443, "127.0.0.1", site.port);
    let client = HttpClient::new().resolver(known);
    let url = format!("http://www.example.com:{}/", site.port);
    assert_eq!(text(&client, url).await.unwrap(), "ok");
    assert_eq!(log.one().header("host").unwrap(), format!("www.example.com:{}", site.port));
    assert_eq!(text(&client, "http://other.example.com:8443/").await.unwrap(), "ok");
    assert_eq!(log.one().header("host"), Some("other.example.com:8443"));
}

#[waterspout::test]
async fn it_connects_from_the_address_that_it_is_told() {
    let peers = Rc::new(RefCell::new(Vec::new()));
    let seen = peers.clone();
    let server = TcpServer::new(async move |stream: Stream, peer: std::net::SocketAddr| {
        seen.borrow_mut().push(peer.ip().to_string());
        serve(&stream, &|_| ok("")).await;
    });
    let port = server.listen_on("127.0.0.1", 0).unwrap();
    let client = HttpClient::new().source("127.0.0.2:0".parse().unwrap());
    // Not every system has that one.
    if client.get(format!("http://127.0.0.1:{port}/")).await.is_ok() {
        assert_eq!(peers.take(), ["127.0.0.2"]);
    }
    let client = HttpClient::new().source("203.0.113.1:0".parse().unwrap());
    let error = failure(&client, format!("http://127.0.0.1:{port}/")).await;
    assert!(matches!(error, FetchError::Connect { .. }), "{error:?}");
}

#[waterspout::test]
async fn a_unix_socket_serves_whatever_the_url_names() {
    use waterspout::net::{UnixServer, UnixStream};
    let path = std::env::temp_dir().join(format!("waterspout-client-{}", std::process::id()));
    let server = UnixServer::new(async |stream: IoStream<UnixStream>, _peer| {
        serve(&stream, &|asked| ok(asked.header("host").unwrap())).await;
    });
    server.listen(&path, 0o600).unwrap();
    let client = HttpClient::new().unix_socket(&path);
    assert_eq!(text(&client, "http://docker/version").await.unwrap(), "docker");
    assert_eq!(text(&client, "http://docker/other").await.unwrap(), "docker");
    assert_eq!(server.accepted(), 1);
    drop(server);
    let _ = std::fs::remove_file(&path);
    let error = failure(&HttpClient::new().unix_socket(&path), "http://docker/").await;
    assert!(error.to_string().contains("waterspout-client"), "{error}");
}
