//! What the client makes of what servers say, be it true or not.

use waterspout::http::{BodyError, Bytes, FetchError, HttpClient, StatusCode};

use super::*;

/// What a site that says this, and then ends the connection, is understood to say.
async fn heard(answer: &'static str) -> Result<(u16, String), FetchError> {
    let site = Site::saying(answer);
    let mut answer = HttpClient::new().get(site.url("/")).await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

async fn body(answer: &'static str) -> String {
    heard(answer).await.unwrap().1
}

#[waterspout::test]
async fn the_end_of_a_body_is_told_in_three_ways() {
    assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await, "hello");
    assert_eq!(body("HTTP/1.1 200 OK\r\n\r\nhello").await, "hello");
    let chunked =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n1\r\n1\r\n2\r\n0\r\n\r\n";
    assert_eq!(body(chunked).await, "12");
    assert_eq!(body("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello").await, "hello");
}

#[waterspout::test]
async fn parts_come_as_they_arrive_and_trailers_last() {
    let site = Site::scripted(async |stream| {
        asked(&stream).await;
        let _ = stream
            .write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nasdf\r\n")
            .await;
        common::turns(5).await;
        let _ = stream.write("4\r\nqwer\r\n0\r\nx-sum: 8\r\n\r\n").await;
    });
    let mut answer = HttpClient::new().get(site.url("/")).await.unwrap();
    let mut parts = Vec::new();
    while let Some(part) = answer.chunk().await.unwrap() {
        parts.push(part);
    }
    assert_eq!(parts, ["asdf", "qwer"].map(Bytes::from));
    assert_eq!(answer.body().trailers().unwrap()["x-sum"], "8");
}

#[waterspout::test]
async fn lengths_that_agree_are_one_and_others_are_an_error() {
    for lengths in ["2", "2\r\nContent-Length: 2", "2,2", "2, 2,2"] {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {lengths}\r\n\r\nok");
        let site = Site::saying(answer);
        assert_eq!(text(&HttpClient::new(), site.url("/")).await.unwrap(), "ok", "{lengths:?}");
    }
    let wrong = ["2\r\nContent-Length: 3", "2,4", "-2", "x", "+2", "2 3", "99999999999999999999"];
    for lengths in wrong {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {lengths}\r\n\r\nok");
        let site = Site::saying(answer);
        let error = failure(&HttpClient::new(), site.url("/")).await;
        assert!(matches!(error, FetchError::Broken(_)), "{lengths:?} {error:?}");
    }
}

#[waterspout::test]
async fn what_is_chunked_has_no_length() {
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    // A connection on which the two differ is not trusted any further.
    let site = Site::saying_and_staying(both);
    let client = HttpClient::new();
    for _ in 0..2 {
        match text(&client, site.url("/")).await {
            Ok(text) => assert_eq!(text, "ok"),
            Err(error) => assert!(matches!(error, FetchError::Broken(_)), "{error:?}"),
        }
    }
}

#[waterspout::test]
async fn a_body_that_is_cut_short_is_an_error() {
    let short = [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n",
    ];
    for answer in short {
        let error = heard(answer).await.unwrap_err();
        assert!(matches!(error, FetchError::Body(BodyError::Broken(_))), "{answer:?} {error:?}");
    }
}

#[waterspout::test]
async fn what_is_no_answer_is_an_error() {
    let wrong = [
        "",
        "HTTP/1.1 200 OK\r\n",
        "hello\r\n\r\n",
        "HTTP/1.1 OK\r\n\r\n",
        "HTTP/3.0 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno header\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad name: x\r\n\r\n",
        "HTTP/1.1 99999 OK\r\n\r\n",
        "\x16\x03\x01\x00\x05hello",
        "GET / HTTP/1.1\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ];
    for answer in wrong {
        let error = heard(answer).await.unwrap_err();
        assert!(matches!(error, FetchError::Broken(_)), "{answer:?} {error:?}");
    }
}

#[waterspout::test]
async fn some_answers_have_no_body_whatever_their_headers_say() {
    assert_eq!(heard("HTTP/1.1 204 No Content\r\n\r\n").await.unwrap(), (204, "".into()));
    for status in [204, 304] {
        let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 42\r\n\r\n");
        let site = Site::saying_and_staying(answer);
        let client = HttpClient::new();
        for _ in 0..2 {
            let mut answer = client.get(site.url("/")).await.unwrap();
            assert_eq!(
                (answer.status().as_u16(), answer.header("content-length")),
                (status, Some("42"))
            );
            assert_eq!(answer.text().await.unwrap(), "");
        }
        assert_eq!(site.accepted(), 1);
    }
    let site = Site::saying_and_staying("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n");
    let client = HttpClient::new();
    for _ in 0..2 {
        let mut answer = client.request(http::Method::HEAD, site.url("/")).await.unwrap();
        assert_eq!(answer.header("content-length"), Some("7"));
        assert_eq!(answer.text().await.unwrap(), "");
    }
    assert_eq!(site.accepted(), 1);
}

/// Otherwise the body would be the answer to the next request.
#[waterspout::test]
async fn a_body_where_there_is_none_ends_the_connection() {
    let site = Site::scripted(async |stream| {
        let mut first = true;
        while let Some(asked) = asked(&stream).await {
            let evil = ok("evil");
            let answer = match asked.target() {
                "/head" => {
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{evil}", evil.len())
                }
                "/204" => format!("HTTP/1.1 204 x\r\nContent-Length: {}\r\n\r\n{evil}", evil.len()),
                "/304" => format!("HTTP/1.1 304 x\r\n\r\n{evil}"),
                "/two" => format!("{}{evil}", ok("one")),
                _ => ok(if first { "good" } else { "late" }),
            };
            first = false;
            let _ = stream.write(answer).await;
        }
    });
    for path in ["/head", "/204", "/304", "/two"] {
        let client = HttpClient::new();
        let method = if path == "/head" { http::Method::HEAD } else { http::Method::GET };
        let mut answer = client.request(method, site.url(path)).await.unwrap();
        let body = answer.text().await.unwrap();
        assert_eq!(body, if path == "/two" { "one" } else { "" });
        assert_eq!(text(&client, site.url("/next")).await.unwrap(), "good", "after {path}");
        assert_eq!(text(&client, site.url("/next")).await.unwrap(), "late");
    }
}

#[waterspout::test]
async fn what_comes_before_the_answer_is_passed_over() {
    let answer = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n\
                  HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    assert_eq!(heard(answer).await.unwrap(), (200, "ok".into()));
}

#[waterspout::test(virtual_time)]
async fn what_comes_before_the_answer_for_ever_ends_in_time() {
    let site = Site::scripted(async |stream| {
        asked(&stream).await;
        while stream.write("HTTP/1.1 100 Continue\r\n\r\n").await.is_ok() {
            waterspout::coroutine::sleep(SECOND / 10).await;
        }
    });
    let error = failure(&HttpClient::new(), site.url("/")).await;
    assert!(matches!(error, FetchError::TimedOut(_)), "{error:?}");
}

/// Answers in which bytes are changed, left out or added at random, but the same in each run.
#[waterspout::test(timeout = 60)]
async fn whatever_a_server_says_a_fetch_comes_to_its_end() {
    let good = [
        ok("hello"),
        to(302, "/next"),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n5;e=1\r\nhello\r\n0\r\nx: y\r\n\r\n".into(),
        format!("HTTP/1.1 100 Continue\r\n\r\n{}", ok("hello")),
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\nhello".into(),
    ];
    let mut state = 1_u64;
    let mut random = move |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let answer = Rc::new(RefCell::new(Vec::new()));
    let says = answer.clone();
    let site = Site::scripted(async move |stream| {
        while let Some(asked) = asked(&stream).await {
            if asked.target() == "/good" {
                let _ = stream.write(ok("good")).await;
                continue;
            }
            let says = says.borrow().clone();
            let _ = stream.write(says).await;
            return;
        }
    });
    let client = HttpClient::new().max_clients(2);
    for round in 0..600 {
        let mut bytes = good[round % good.len()].clone().into_bytes();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            match random(3) {
                0 => bytes[at] = random(256) as u8,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, b"\r\n :0;,\0\xff9"[random(10)]),
            }
        }
        answer.replace(bytes);
        // Either will do.
        let _ = text(&client, site.url("/")).await;
        assert_eq!(text(&client, site.url("/good")).await.unwrap(), "good");
    }
}

#[waterspout::test]
async fn headers_come_as_they_are() {
    let answer = "HTTP/1.1 200 OK\r\nX-XSS-Protection: 1;\r\n\tmode=block\r\nFoo: \u{e9}\r\nfoo: two\r\n\
                  Content-Length: 0\r\n\r\n";
    let site = Site::saying(answer);
    let answer = HttpClient::new().get(site.url("/")).await.unwrap();
    let folded = answer.header("x-xss-protection").unwrap();
    assert_eq!(folded.split_whitespace().collect::<Vec<_>>(), ["1;", "mode=block"]);
    assert_eq!(answer.headers()["foo"].as_bytes(), "\u{e9}".as_bytes());
    assert_eq!(answer.headers().get_all("foo").iter().count(), 2);
    assert_eq!(answer.header("foo"), None, "it is not ASCII");
    assert_eq!(answer.header("none"), None);
}

#[waterspout::test]
async fn a_status_is_an_error_if_it_is_asked_to_be() {
    let site = Site::answering(|asked| {
        format!("HTTP/1.1 {} x\r\nContent-Length: 2\r\n\r\nhi", &asked.target()[1..])
    });
    let client = HttpClient::new();
    for status in [200, 204, 304, 399] {
        let answer = client.get(site.url(&format!("/{status}"))).await.unwrap();
        assert!(answer.error_for_status().is_ok());
    }
    for status in [400, 404, 500, 599] {
        let url = site.url(&format!("/{status}"));
        assert_eq!(client.get(&url).await.unwrap().text().await.unwrap(), "hi");
        let error = client.get(&url).await.unwrap().error_for_status().unwrap_err();
        assert_eq!(error.status(), StatusCode::from_u16(status).ok());
        assert!(error.to_string().contains(&url), "{error}");
    }
}

#[waterspout::test]
async fn text_has_to_be_utf_8() {
    let site = Site::saying(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n\xe9");
    let error = failure(&HttpClient::new(), site.url("/")).await;
    assert!(matches!(error, FetchError::Body(BodyError::NotText)), "{error:?}");
}

#[waterspout::test]
async fn an_answer_comes_apart() {
    let site = Site::answering(|_| ok("hello"));
    let client = HttpClient::new();
    let answer = client.get(site.url("/")).await.unwrap();
    assert!(format!("{answer:?}").contains("200"));
    let (parts, mut body) = answer.into_parts();
    // The client may be gone by then.
    drop(client);
    assert_eq!((parts.status.as_u16(), body.text().await.unwrap().as_str()), (200, "hello"));
}
