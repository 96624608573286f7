//! Bodies that are streamed, to the server and from it.

use std::cell::Cell;
use std::io;

use common::turns;
use futures::channel::mpsc;
use futures::{SinkExt as _, StreamExt as _, stream};
use waterspout::IoLoop;
use waterspout::coroutine::{self, moment, sleep};
use waterspout::http::{Body, BodyError, FetchError, HttpClient};

use super::*;

fn parts(parts: &[&'static str]) -> Body {
    let parts: Vec<_> = parts.iter().map(|part| Ok::<_, io::Error>(*part)).collect();
    Body::from_stream(stream::iter(parts).then(async |part| {
        moment().await;
        part
    }))
}

#[waterspout::test]
async fn a_stream_is_sent_in_chunks_unless_its_length_is_told() {
    let (site, log) = noting();
    let client = HttpClient::new();
    assert!(client.post(site.url("/"), parts(&["1234", "5678"])).await.is_ok());
    let asked = log.one();
    assert_eq!(
        (asked.body().as_str(), asked.header("transfer-encoding")),
        ("12345678", Some("chunked"))
    );
    let fetch = client.post(site.url("/"), parts(&["1234", "5678"])).header("content-length", "8");
    assert!(fetch.await.is_ok());
    let asked = log.one();
    assert_eq!((asked.body().as_str(), asked.header("content-length")), ("12345678", Some("8")));
    assert!(!asked.has("transfer-encoding"));
    assert!(client.post(site.url("/"), parts(&[])).await.is_ok());
    assert_eq!(log.one().body(), "");
    let read = Body::from_reader(io::Cursor::new("from a reader").get_ref().as_bytes());
    assert!(client.post(site.url("/"), read).await.is_ok());
    assert_eq!(log.one().body(), "from a reader");
}

#[waterspout::test]
async fn a_stream_that_is_not_as_long_as_it_says_is_an_error() {
    let (site, log) = noting();
    let client = HttpClient::new();
    let fetch = client.post(site.url("/"), parts(&["1234"])).header("content-length", "8");
    assert!(fetch.await.is_err());
    let fetch = client.post(site.url("/"), parts(&["1234", "5678"])).header("content-length", "6");
    // The server gets what was announced, and what follows is no request.
    let _ = fetch.await;
    turns(10).await;
    for asked in log.take() {
        assert_eq!(asked.body().len(), 6);
    }
    assert_eq!(text(&client, site.url("/")).await.unwrap(), "ok");
}

#[waterspout::test]
async fn a_stream_that_fails_says_why_and_the_server_gets_no_whole_request() {
    let (site, log) = noting();
    let items = vec![Ok("1234"), Err(io::Error::other("the disk is gone"))];
    let body = Body::from_stream(stream::iter(items));
    let error = HttpClient::new().post(site.url("/"), body).await.unwrap_err();
    assert!(matches!(error, FetchError::RequestBody(_)), "{error:?}");
    assert!(error.to_string().contains("the disk is gone"), "{error}");
    common::until(|| site.server.connections() == 0).await;
    assert!(log.take().is_empty());
}

#[waterspout::test(timeout = 60)]
async fn a_slow_server_slows_the_stream_down() {
    let gate = waterspout::locks::Event::new();
    let opens = gate.clone();
    let site = Site::scripted(async move |stream| {
        head(&stream).await;
        opens.wait().await;
        let body = stream.read_until("\r\n0\r\n\r\n", 1 << 30).await.unwrap();
        let _ = stream.write(ok(body.len().to_string())).await;
    });
    let sent = Rc::new(Cell::new(0));
    let counts = sent.clone();
    let body = stream::iter(0..400).map(move |_| {
        counts.set(counts.get() + 1);
        Ok::<_, io::Error>(vec![b'x'; 64 * 1024])
    });
    let client = HttpClient::new();
    let fetch = coroutine::start(client.post(site.url("/"), Body::from_stream(body)));
    let mut before = 0;
    // What the sockets take is taken; then it stands still.
    loop {
        turns(100).await;
        if std::mem::replace(&mut before, sent.get()) == sent.get() {
            break;
        }
    }
    assert!(before < 350, "{before}");
    gate.set();
    let length: usize = fetch.await.unwrap().text().await.unwrap().parse().unwrap();
    assert!(length > 400 * 64 * 1024);
    assert_eq!(sent.get(), 400);
}

#[waterspout::test(timeout = 60)]
async fn a_slow_reader_slows_the_server_down() {
    let sent = Rc::new(Cell::new(0));
    let counts = sent.clone();
    let site = Site::scripted(async move |stream| {
        asked(&stream).await;
        let _ = stream.write("HTTP/1.1 200 OK\r\n\r\n").await;
        while counts.get() < 400 && stream.write(vec![b'x'; 64 * 1024]).await.is_ok() {
            counts.set(counts.get() + 1);
        }
    });
    let mut answer = HttpClient::new().get(site.url("/")).await.unwrap();
    let mut before = 0;
    loop {
        turns(100).await;
        if std::mem::replace(&mut before, sent.get()) == sent.get() {
            break;
        }
    }
    assert!(before < 350, "{before}");
    assert_eq!(answer.bytes().await.unwrap().len(), 400 * 64 * 1024);
}

#[waterspout::test]
async fn both_directions_can_flow_at_once() {
    let site = Site::scripted(async |stream| {
        head(&stream).await;
        let _ = stream.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        while let Ok(size) = stream.read_until("\r\n", 100).await {
            let part = stream.read_until("\r\n", 1000).await.unwrap();
            let _ = stream.write([size.as_slice(), &part].concat()).await;
            if size == b"0\r\n" {
                return;
            }
        }
    });
    let (mut says, said) = mpsc::channel::<io::Result<&'static str>>(0);
    let client = HttpClient::new();
    let mut answer = client.post(site.url("/"), Body::from_stream(said)).await.unwrap();
    for word in ["one", "two", "three"] {
        says.send(Ok(word)).await.unwrap();
        assert_eq!(answer.chunk().await.unwrap().unwrap(), word);
    }
    drop(says);
    assert_eq!(answer.chunk().await.unwrap(), None);
}

#[waterspout::test]
async fn an_answer_goes_on_as_a_request() {
    let (site, log) = noting();
    let client = HttpClient::new();
    let source = Site::answering(|_| ok("passed on"));
    let answer = client.get(source.url("/")).await.unwrap();
    assert!(client.post(site.url("/"), answer.into_body()).await.is_ok());
    assert_eq!(log.one().body(), "passed on");
}

#[waterspout::test]
async fn an_answer_before_the_request_was_sent_is_the_answer() {
    let site = Site::scripted(async |stream| {
        head(&stream).await;
        let _ = stream.write("HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nmuch").await;
        // It does not want it, but would not hear of the end otherwise.
        while stream.read_some(1 << 16).await.is_ok() {}
    });
    let client = HttpClient::new();
    let endless = stream::repeat_with(|| Ok::<_, io::Error>(vec![b'x'; 64 * 1024]));
    let mut answer = client.post(site.url("/"), Body::from_stream(endless)).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (413, "much"));
    // What is still being sent is not wanted any more.
    common::until(|| site.server.connections() == 0).await;
}

/// hyper polls the body while the connection runs, which ends with the fetch.
#[waterspout::test]
async fn a_body_may_drop_its_own_fetch_and_the_client() {
    let (site, log) = noting();
    for closes in [false, true] {
        let client = HttpClient::new();
        let own = Rc::new(RefCell::new(None));
        let (dropped, dropping) = (Rc::new(Cell::new(false)), own.clone());
        let notes = dropped.clone();
        let closing = client.clone();
        let body = stream::poll_fn(move |_| {
            if closes {
                closing.close();
            }
            drop(dropping.take());
            notes.set(true);
            std::task::Poll::Ready(Some(Ok::<_, io::Error>("more")))
        });
        let mut fetch = Box::pin(client.post(site.url("/"), Body::from_stream(body)));
        drop(client);
        assert!(futures::poll!(&mut fetch).is_pending());
        let polling = own.clone();
        *own.borrow_mut() = Some(
            coroutine::start(async move {
                let _ = fetch.await;
                drop(polling);
            })
            .cancel_on_drop(),
        );
        common::until(|| dropped.get()).await;
        turns(10).await;
        common::until(|| site.server.connections() == 0).await;
        assert!(log.take().is_empty());
    }
}

#[test]
fn a_body_of_the_user_that_panics_ends_its_fetch() {
    let heard = common::exceptions(IoLoop::builder(), async || {
        let (site, _) = noting();
        let client = HttpClient::new();
        let panics = stream::once(async { panic!("by the user") });
        let body = Body::from_stream(panics.map(|item: &'static str| Ok::<_, io::Error>(item)));
        assert!(client.post(site.url("/"), body).await.is_err());
        assert_eq!(text(&client, site.url("/")).await.unwrap(), "ok");
    });
    assert!(heard.len() == 1 && heard[0].contains("by the user"), "{heard:?}");
}

// ---------------------------------------------------------------------------------------------
// Expect: 100-continue

#[waterspout::test]
async fn a_body_that_the_server_wants_is_sent() {
    let site = Site::scripted(async |stream| {
        let asked = head(&stream).await.unwrap();
        assert_eq!(asked.header("expect"), Some("100-continue"));
        turns(20).await;
        let _ = stream.write("HTTP/1.1 100 Continue\r\n\r\n").await;
        let body = stream.read_bytes(4).await.unwrap();
        let _ = stream.write(ok(String::from_utf8(body).unwrap())).await;
    });
    let fetch = HttpClient::new().post(site.url("/"), "1234").header("expect", "100-continue");
    assert_eq!(fetch.await.unwrap().text().await.unwrap(), "1234");
}

#[waterspout::test]
async fn a_body_that_the_server_does_not_want_is_not_sent() {
    let client = HttpClient::new();
    for ends in [true, false] {
        let site = Site::scripted(async move |stream| {
            head(&stream).await;
            let _ = stream.write("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
            if !ends {
                assert!(stream.read_bytes(1).await.is_err(), "nothing of it may come");
            }
        });
        let body = Body::from_stream(stream::once(async {
            panic!("nobody asked for it");
            #[expect(unreachable_code, reason = "it gives the type")]
            Ok::<_, io::Error>("")
        }));
        let fetch = client.post(site.url("/"), body).header("expect", "100-Continue");
        let mut answer = fetch.await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (403, "no"));
        common::until(|| site.server.connections() == 0).await;
    }
}

#[waterspout::test(virtual_time)]
async fn a_server_that_does_not_say_gets_the_body_after_a_while() {
    let site = Site::scripted(async |stream| {
        let asked = asked(&stream).await.unwrap();
        let _ = stream.write(ok(asked.body())).await;
    });
    let begun = coroutine::now();
    let fetch = HttpClient::new().post(site.url("/"), "1234").header("expect", "100-continue");
    assert_eq!(fetch.await.unwrap().text().await.unwrap(), "1234");
    assert_eq!(coroutine::now() - begun, SECOND);
}

#[waterspout::test(virtual_time)]
async fn an_error_of_the_body_is_an_io_error_too() {
    let site = Site::scripted(async |stream| {
        asked(&stream).await;
        let _ = stream.write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n").await;
        sleep(60 * SECOND).await;
    });
    let read = async || -> io::Result<()> {
        let client = HttpClient::new();
        client.get(site.url("/")).await?.into_body().bytes().await?;
        Ok(())
    };
    let error = read().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(error.downcast::<BodyError>().is_ok());
}
