//! Where servers send the client, and what it takes there.

use futures::stream;
use http::Method;
use waterspout::http::{Body, FetchError, HttpClient};

use super::*;

/// Tornado's handlers for its tests: `/countdown/N` redirects to one less, `/to/STATUS/PATH` to another path, and
/// all else says what it was asked.
fn app(asked: &Asked) -> String {
    let target = asked.target();
    if let Some(count) = target.strip_prefix("/countdown/") {
        return match count.parse::<usize>().unwrap() {
            0 => ok("zero"),
            count => to(302, &format!("/countdown/{}", count - 1)),
        };
    }
    if let Some((status, path)) = target.strip_prefix("/to/").and_then(|to| to.split_once('/')) {
        return to(status.parse().unwrap(), &format!("/{path}"));
    }
    if asked.method() == "HEAD" {
        return ok("");
    }
    ok(format!("{} {target} {}", asked.method(), asked.body()))
}

#[waterspout::test]
async fn redirections_are_followed_over_one_connection() {
    let site = Site::answering(app);
    let client = HttpClient::new();
    let mut answer = client.get(site.url("/countdown/3")).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.url().path()), (200, "/countdown/0"));
    let history: Vec<_> =
        answer.history().iter().map(|(status, url)| (status.as_u16(), url.path())).collect();
    assert_eq!(history, [(302, "/countdown/3"), (302, "/countdown/2"), (302, "/countdown/1")]);
    assert_eq!(answer.text().await.unwrap(), "zero");
    assert_eq!(site.accepted(), 1);
    // They take no place of their own.
    let client = HttpClient::new().max_clients(1);
    assert_eq!(text(&client, site.url("/countdown/3")).await.unwrap(), "zero");
}

#[waterspout::test]
async fn a_redirection_is_the_answer_if_it_is_not_to_be_followed_or_says_not_where() {
    let site = Site::answering(app);
    let client = HttpClient::new();
    let answer = client.get(site.url("/countdown/2")).follow_redirects(false).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.header("location")), (302, Some("/countdown/1")));
    assert!(
        client
            .clone()
            .follow_redirects(false)
            .get(answer.url())
            .await
            .unwrap()
            .history()
            .is_empty()
    );
    for status in [301, 302, 303, 307, 308] {
        let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n");
        let nowhere = Site::saying(answer);
        assert_eq!(client.get(nowhere.url("/")).await.unwrap().status(), status);
    }
    for status in [300, 304, 305, 306, 201] {
        let answer = client.get(site.url(&format!("/to/{status}/x"))).await.unwrap();
        assert_eq!(answer.status(), status);
    }
}

#[waterspout::test]
async fn redirections_for_ever_are_an_error() {
    let site = Site::answering(|_| to(302, "/"));
    let client = HttpClient::new();
    assert!(matches!(failure(&client, site.url("/")).await, FetchError::TooManyRedirects(5)));
    let site = Site::answering(app);
    assert_eq!(text(&client, site.url("/countdown/5")).await.unwrap(), "zero");
    assert!(matches!(
        failure(&client, site.url("/countdown/6")).await,
        FetchError::TooManyRedirects(5)
    ));
    let more = client.max_redirects(6);
    assert_eq!(text(&more, site.url("/countdown/6")).await.unwrap(), "zero");
}

#[waterspout::test]
async fn the_method_after_a_redirection_is_that_of_browsers() {
    let site = Site::answering(app);
    let client = HttpClient::new();
    for status in [301, 302, 303, 307, 308] {
        let url = site.url(&format!("/to/{status}/x"));
        for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
            let becomes_get = status == 303 || (status < 303 && method == Method::POST);
            let expected =
                if becomes_get { "GET /x ".to_owned() } else { format!("{method} /x data") };
            let mut answer = client.request(method, &url).body("data").await.unwrap();
            assert_eq!(answer.text().await.unwrap(), expected, "{status}");
        }
        let mut answer = client.request(Method::HEAD, &url).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (200, ""));
    }
}

#[waterspout::test]
async fn what_says_something_of_the_body_goes_with_it() {
    let log = Log::default();
    let notes = log.clone();
    let site = Site::answering(move |asked| {
        notes.note(asked);
        app(asked)
    });
    let client = HttpClient::new();
    let fetch = client.post(site.url("/to/303/x"), "data").header("content-type", "x/y");
    assert!(fetch.header("x-mine", "1").await.is_ok());
    let [first, second] = log.take().try_into().unwrap();
    assert!(first.has("content-type") && first.has("content-length") && first.has("x-mine"));
    assert!(!second.has("content-type") && !second.has("content-length") && second.has("x-mine"));
    assert_eq!(first.header("user-agent"), second.header("user-agent"));
}

#[waterspout::test]
async fn a_stream_is_not_sent_twice() {
    let site = Site::answering(app);
    let client = HttpClient::new();
    let body = || Body::from_stream(stream::iter(["data"].map(Ok::<_, std::io::Error>)));
    let answer = client.request(Method::PUT, site.url("/to/307/x")).body(body()).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.header("location")), (307, Some("/x")));
    let mut answer = client.post(site.url("/to/302/x"), body()).await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "GET /x ");
}

#[waterspout::test]
async fn secrets_do_not_go_to_another_origin() {
    let (other, log) = noting();
    let place = other.url("/");
    let site = Site::answering(
        move |asked| if asked.target() == "/out" { to(302, &place) } else { app(asked) },
    );
    let client = HttpClient::new();
    let names = ["authorization", "cookie", "proxy-authorization"];
    let fetch = |path: &str| {
        let fetch = client.get(site.url(path).replace("//", "//me:secret@"));
        fetch.header("cookie", "secret").header("proxy-authorization", "secret").header("x", "1")
    };
    assert!(fetch("/out").await.is_ok());
    let asked = log.one();
    assert!(asked.has("x") && asked.has("user-agent"));
    assert!(!names.iter().any(|name| asked.has(name)), "{asked:?}");
    assert!(!asked.head.contains("secret"), "{asked:?}");

    let log = Log::default();
    let notes = log.clone();
    let same = Site::answering(move |asked| {
        notes.note(asked);
        app(asked)
    });
    let url = same.url("/to/302/x").replace("//", "//me:secret@");
    assert!(client.get(url).header("cookie", "secret").await.is_ok());
    for asked in log.take() {
        assert_eq!(asked.header("authorization"), Some("Basic bWU6c2VjcmV0"));
        assert_eq!(asked.header("cookie"), Some("secret"));
    }
}

#[waterspout::test]
async fn the_host_is_that_of_the_new_url() {
    let (other, log) = noting();
    let place = other.url("/");
    let site = Site::answering(move |_| to(302, &place));
    let client = HttpClient::new();
    assert!(client.get(site.url("/")).header("host", "virtual").await.is_ok());
    assert_eq!(log.one().header("host").unwrap(), format!("127.0.0.1:{}", other.port));
}

#[waterspout::test]
async fn nobody_is_sent_to_another_scheme_or_made_to_tell_who_he_is() {
    let (other, log) = noting();
    let client = HttpClient::new();
    let bad =
        ["file:///etc/passwd", "gopher://host/", "http://", "javascript:x", "http://[", "unix:/x"];
    for place in bad {
        let site = Site::saying(to(302, place));
        let error = failure(&client, site.url("/")).await;
        assert!(matches!(error, FetchError::Invalid(_)), "{place} {error:?}");
    }
    let place = other.url("/").replace("//", "//evil:name@");
    let site = Site::saying(to(302, &place));
    let answer = client.get(site.url("/")).await.unwrap();
    assert_eq!(answer.url().as_str(), other.url("/"));
    assert!(!log.one().has("authorization"));
}

#[waterspout::test]
async fn a_redirection_may_have_a_body_of_any_size() {
    let log = Log::default();
    let notes = log.clone();
    let site = Site::scripted(async move |stream| {
        while let Some(asked) = asked(&stream).await {
            notes.note(&asked);
            let head = "HTTP/1.1 302 x\r\nLocation: /end\r\n";
            let _ = match asked.target() {
                "/short" => stream.write(format!("{head}Content-Length: 4\r\n\r\nmore")).await,
                "/endless" => {
                    let _ = stream.write(format!("{head}\r\n")).await;
                    while stream.write("x".repeat(1000)).await.is_ok() {}
                    return;
                }
                "/cut" => {
                    let _ = stream.write(format!("{head}Content-Length: 4\r\n\r\nmo")).await;
                    return;
                }
                _ => stream.write(ok("end")).await,
            };
        }
    });
    let client = HttpClient::new();
    for path in ["/short", "/endless", "/cut"] {
        assert_eq!(text(&client, site.url(path)).await.unwrap(), "end", "{path}");
    }
}

#[waterspout::test(virtual_time)]
async fn all_redirections_share_the_time_of_the_request() {
    let site = Site::scripted(async |stream| {
        while asked(&stream).await.is_some() {
            waterspout::coroutine::sleep(4 * SECOND).await;
            let _ = stream.write(to(302, "/")).await;
        }
    });
    let begun = waterspout::coroutine::now();
    let client = HttpClient::new().max_redirects(1000);
    assert!(matches!(failure(&client, site.url("/")).await, FetchError::TimedOut(_)));
    assert_eq!(waterspout::coroutine::now() - begun, 20 * SECOND);
}
