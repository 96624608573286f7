//! Server-sent events: how they are written, that nobody can smuggle one in, and keeping a connection alive.

mod common;

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use common::{AtDrop, poll_once};
use futures::stream::{self, StreamExt as _};
use http_body_util::BodyExt as _;
use waterspout::channels::mpsc;
use waterspout::coroutine::{now, sleep};
use waterspout::http::sse::{self, Event};
use waterspout::http::{HttpServer, IntoResponse, Request, Response};
use waterspout::iostream::IoStream;
use waterspout::net::TcpStream;

const SECOND: Duration = Duration::from_secs(1);

async fn next(response: &mut Response) -> Option<String> {
    let frame = response.body_mut().frame().await?.unwrap();
    Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
}

/// What a browser makes of a stream of events, by the HTML standard: kind, id and text of each event that it
/// dispatches.
fn dispatched(stream: &str) -> Vec<(String, String, String)> {
    let stream = stream.replace("\r\n", "\n").replace('\r', "\n");
    let (mut events, mut id) = (Vec::new(), String::new());
    let (mut kind, mut data) = (String::new(), String::new());
    for line in stream.split('\n') {
        if line.is_empty() {
            if let Some(text) = data.strip_suffix('\n') {
                events.push((kind.clone(), id.clone(), text.to_owned()));
            }
            (kind, data) = (String::new(), String::new());
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => kind = value.to_owned(),
            "data" => data += &format!("{value}\n"),
            "id" if !value.contains('\0') => id = value.to_owned(),
            _ => {}
        }
    }
    events
}

#[test]
fn an_event_is_written_field_by_field() {
    let texts = [
        (Event::new("hello"), "data: hello\n\n"),
        (Event::new(""), "data: \n\n"),
        (
            Event::new("one\ntwo\r\nthree\rfour"),
            "data: one\ndata: two\ndata: three\ndata: four\n\n",
        ),
        (Event::new(" indented\n"), "data:  indented\ndata: \n\n"),
        (Event::from("text").event("greeting"), "event: greeting\ndata: text\n\n"),
        (Event::from(String::from("text")).id("7"), "id: 7\ndata: text\n\n"),
        (Event::default().retry(Duration::from_micros(1_500_999)), "retry: 1500\n\n"),
        (Event::default().comment("two\nlines"), ": two\n: lines\n\n"),
        (Event::default(), "\n"),
        (
            Event::new("text").retry(SECOND).id("7").event("all").comment("note"),
            ": note\nevent: all\nid: 7\nretry: 1000\ndata: text\n\n",
        ),
    ];
    for (event, text) in texts {
        assert_eq!(event.to_string(), text);
    }
}

#[test]
fn whatever_the_texts_are_one_event_arrives_with_these_texts() {
    let breaks = ["\n", "\r", "\r\n", "\n\n", "\r\r", "\n\r\n", "\0\n"];
    for line_break in breaks {
        let smuggled = format!("x{line_break}data: evil{line_break}{line_break}event: evil");
        let event = Event::new(&*smuggled).event(&*smuggled).id(&*smuggled).comment(&*smuggled);
        let events = dispatched(&event.to_string());
        let flat: String =
            smuggled.chars().map(|c| if "\r\n\0".contains(c) { ' ' } else { c }).collect();
        let lines = smuggled.replace("\r\n", "\n").replace('\r', "\n");
        assert_eq!(events, [(flat.clone(), flat, lines)], "{line_break:?}");
    }
}

#[waterspout::test]
async fn events_are_an_answer_that_ends_with_the_stream() {
    let events = sse::events(stream::iter(["one", "two"]));
    let mut response = events.into_response();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert_eq!(next(&mut response).await.as_deref(), Some("data: one\n\n"));
    assert_eq!(next(&mut response).await.as_deref(), Some("data: two\n\n"));
    assert_eq!(next(&mut response).await, None);
}

#[waterspout::test(virtual_time)]
async fn a_comment_is_sent_whenever_nothing_was_sent_for_so_long() {
    let begun = now();
    let pauses = stream::iter([5, 25, 10, 0]).then(|seconds| async move {
        sleep(seconds * SECOND).await;
        format!("{seconds}")
    });
    let mut response = sse::events(pauses).keep_alive(10 * SECOND).into_response();
    let mut heard = Vec::new();
    while let Some(text) = next(&mut response).await {
        heard.push(((now() - begun).as_secs(), text));
    }
    let text = |seconds| format!("data: {seconds}\n\n");
    let comment = || String::from(":\n\n");
    // What comes just when the time is over comes instead of the comment, or after it.
    let last = heard.len() - 2;
    assert_eq!(heard[..4], [(5, text(5)), (15, comment()), (25, comment()), (30, text(25))]);
    assert_eq!(heard[last..], [(40, text(10)), (40, text(0))]);
    assert!(dispatched(":\n\n").is_empty());
}

#[waterspout::test(virtual_time)]
async fn without_keep_alive_nothing_is_sent_and_for_ever_is_for_ever() {
    for events in [sse::events(stream::pending::<Event>()), {
        sse::events(stream::pending::<Event>()).keep_alive(Duration::MAX)
    }] {
        let mut response = events.into_response();
        let mut waiting = pin!(next(&mut response));
        assert!(poll_once(waiting.as_mut()).await.is_pending());
        sleep(1_000_000 * SECOND).await;
        assert!(poll_once(waiting.as_mut()).await.is_pending());
    }
}

#[test]
#[should_panic(expected = "the period of keep_alive is zero")]
fn a_period_of_no_time_is_refused() {
    let _ = sse::events(stream::pending::<Event>()).keep_alive(Duration::ZERO);
}

#[waterspout::test(virtual_time)]
async fn who_tells_learns_that_the_client_has_gone() {
    let (sender, receiver) = mpsc::channel::<Event>(1);
    let mut response = sse::events(receiver).keep_alive(SECOND).into_response();
    sender.send(Event::new("news")).await.unwrap();
    assert_eq!(next(&mut response).await.as_deref(), Some("data: news\n\n"));
    assert_eq!(next(&mut response).await.as_deref(), Some(":\n\n"));
    drop(response);
    assert!(sender.send(Event::new("more")).await.is_err());
}

#[waterspout::test]
async fn the_stream_is_asked_only_for_what_the_client_takes_and_is_dropped_with_the_answer() {
    let (asked, dropped) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
    let (asks, drops) = (asked.clone(), dropped.clone());
    let guard = AtDrop(move || drops.set(true));
    let numbers = stream::iter(1..).map(move |number: u32| {
        guard.keep();
        asks.set(number);
        number.to_string()
    });
    let mut response = sse::events(numbers).into_response();
    assert_eq!(asked.get(), 0);
    for number in 1..=3 {
        assert_eq!(next(&mut response).await, Some(format!("data: {number}\n\n")));
        assert_eq!(asked.get(), number);
    }
    assert!(!dropped.get());
    drop(response);
    assert!(dropped.get());
}

#[waterspout::test]
async fn each_event_comes_over_the_wire_when_there_is_one_and_a_client_that_goes_ends_the_stream() {
    let (sender, receiver) = mpsc::channel::<Event>(1);
    let receiver = Rc::new(Cell::new(Some(receiver)));
    let server = HttpServer::new(async move |request: Request| {
        let seen = request.header("last-event-id").map(str::to_owned);
        let events = receiver.take().expect("it is asked once");
        sse::events(stream::iter(seen.map(Event::new)).chain(events))
    });
    let port = server.listen_on("127.0.0.1", 0).unwrap();
    let client = IoStream::new(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    let request = "GET / HTTP/1.1\r\nHost: test\r\nLast-Event-ID: seven\r\n\r\n";
    client.write(request).await.unwrap();
    let head = client.read_until("\r\n\r\n", 10_000).await.unwrap();
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(
        head.contains("\r\ntransfer-encoding: chunked\r\n") && !head.contains("content-length")
    );
    // Chunks: their lengths, in hexadecimal digits, stand before them.
    let expected = ["D\r\ndata: seven\n\n\r\n", "B\r\ndata: one\n\n\r\n", "B\r\ndata: two\n\n\r\n"];
    for (number, chunk) in expected.into_iter().enumerate() {
        if number > 0 {
            sender.send(Event::new(["one", "two"][number - 1])).await.unwrap();
        }
        assert_eq!(client.read_bytes(chunk.len()).await.unwrap(), chunk.as_bytes());
    }
    client.close();
    sender.closed().await;
}
