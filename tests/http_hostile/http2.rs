//! HTTP/2 with frames made by hand: floods, streams that are reset, windows that are never opened, and how
//! connections end. What the crate `h2` does by itself is tested there; here is that it is set up for it.

use std::cell::Cell;
use std::rc::Rc;

use futures::FutureExt as _;
use waterspout::IoLoop;
use waterspout::coroutine::{moment, now, sleep};
use waterspout::http::{Body, HttpServer, Request, Response};
use waterspout::iostream::IoStream;
use waterspout::testing::{ExpectLog, Memory};

use super::{Inside, SECOND, unharmed};
use crate::common::Diary;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    /// The error of a GOAWAY.
    fn error(&self) -> u32 {
        assert_eq!(self.kind, GOAWAY);
        u32::from_be_bytes(self.payload[4..8].try_into().unwrap())
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header that enters no table.
fn header(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        bytes.extend(length(text.len()));
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// An integer with a prefix of seven bits.
fn length(mut length: usize) -> Vec<u8> {
    if length < 127 {
        return vec![length as u8];
    }
    let mut bytes = vec![127];
    length -= 127;
    while length >= 128 {
        bytes.push((length % 128) as u8 | 128);
        length /= 128;
    }
    bytes.push(length as u8);
    bytes
}

fn head(method: &str, path: &str) -> Vec<u8> {
    [
        header(":method", method),
        header(":scheme", "http"),
        header(":authority", "a"),
        header(":path", path),
    ]
    .concat()
}

fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, head("GET", path))
}

fn post(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, head("POST", path))
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, 8u32.to_be_bytes())
}

/// A client of HTTP/2 that knows nothing.
struct Client(IoStream<Memory>);

impl Client {
    async fn connect(inside: &Inside) -> Client {
        Client::connect_with(inside, &[]).await
    }

    /// Connects, and says so of its settings.
    async fn connect_with(inside: &Inside, settings: &[u8]) -> Client {
        let client = Client(inside.connect().await.0);
        client.send([PREFACE, &frame(SETTINGS, 0, 0, settings)].concat());
        client
    }

    fn send(&self, bytes: impl AsRef<[u8]>) {
        drop(self.0.write(bytes.as_ref()));
    }

    /// The next frame; `None` at the end.
    async fn next(&self) -> Option<Frame> {
        let head = self.0.read_bytes(9).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let payload = self.0.read_bytes(length).await.ok()?;
        let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// The next frame of this kind.
    async fn next_of(&self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    /// All that is sent until the end: the error of the last GOAWAY, and how many frames there were.
    async fn end(&self) -> (Option<u32>, usize) {
        let (mut error, mut frames) = (None, 0);
        while let Some(frame) = self.next().await {
            frames += 1;
            if frame.kind == GOAWAY {
                error = Some(frame.error());
            }
        }
        (error, frames)
    }

    /// Whether a request is answered.
    async fn is_served(&self, stream: u32) -> bool {
        self.send(get(stream, "/"));
        loop {
            match self.next().await {
                Some(frame) if frame.kind == HEADERS && frame.stream == stream => return true,
                Some(_) => {}
                None => return false,
            }
        }
    }
}

const ENHANCE_YOUR_CALM: u32 = 11;

/// Counts how many handlers wait at a time.
#[derive(Clone, Default)]
struct Handlers {
    now: Rc<Cell<usize>>,
    most: Rc<Cell<usize>>,
    begun: Rc<Cell<usize>>,
}

impl Handlers {
    fn enter(&self) -> impl Drop + use<> {
        self.now.set(self.now.get() + 1);
        self.begun.set(self.begun.get() + 1);
        self.most.set(self.most.get().max(self.now.get()));
        let now = self.now.clone();
        crate::common::AtDrop(move || now.set(now.get() - 1))
    }
}

#[test]
fn a_preface_that_comes_in_pieces_is_http_2_and_one_that_is_cut_ends() {
    unharmed(|| async {
        let _log = ExpectLog::new("waterspout::http", "").optional();
        let server = HttpServer::new(async |_: Request| "").header_timeout(30 * SECOND);
        let inside = Inside::of(&server);
        for cut in 1..PREFACE.len() {
            let client = Client(inside.connect().await.0);
            client.send(&PREFACE[..cut]);
            sleep(3 * SECOND).await;
            client.send([&PREFACE[cut..], &frame(SETTINGS, 0, 0, [])].concat());
            assert!(client.is_served(1).await, "cut at {cut}");

            let client = inside.connect().await;
            client.send(&PREFACE[..cut]);
            assert_eq!(client.answer().await.status(), 408, "cut at {cut}");

            // What begins so and goes on otherwise is neither.
            let client = inside.connect().await;
            client.send([&PREFACE[..cut], b"\0\r\n\r\n"].concat());
            let answered = client.0.read_until_close().await.unwrap();
            assert!(answered.is_empty() || answered.starts_with(b"HTTP/1.1 400 "), "cut at {cut}");
        }
        for garbage in [&b"\0\0\0\0\0\0\0\0\0"[..], b"garbage that is no frame at all"] {
            let client = Client(inside.connect().await.0);
            client.send([PREFACE, garbage].concat());
            let (error, frames) = client.end().await;
            assert!(error.is_some_and(|error| error != 0) && frames < 5, "{garbage:?}");
        }
        moment().await;
        assert_eq!(server.connections(), 0);
    });
}

#[test]
fn rapid_resets_do_not_pile_up_handlers_and_end_the_connection() {
    for finishes in [false, true] {
        unharmed(|| async {
            let _log = ExpectLog::new("waterspout::http", "").optional();
            let handlers = Handlers::default();
            let counts = handlers.clone();
            let server = HttpServer::new(async move |_: Request| {
                let _inside = counts.enter();
                sleep(10 * SECOND).await;
            })
            .finish_requests(finishes);
            let inside = Inside::of(&server);
            let (client, other) = (Client::connect(&inside).await, Client::connect(&inside).await);
            // All at once.
            let burst: Vec<u8> =
                (0..5000).flat_map(|n| [get(2 * n + 1, "/"), reset(2 * n + 1)].concat()).collect();
            client.send(burst);
            assert_eq!(client.end().await.0, Some(ENHANCE_YOUR_CALM));
            // One after the other, so that each handler has begun when its stream is reset.
            let client = Client::connect(&inside).await;
            for n in 0..5000 {
                client.send(get(2 * n + 1, "/"));
                moment().await;
                moment().await;
                moment().await;
                client.send(reset(2 * n + 1));
            }
            sleep(SECOND).await;
            assert!(handlers.most.get() <= 200, "{} handlers", handlers.most.get());
            sleep(20 * SECOND).await;
            assert_eq!(handlers.now.get(), 0);
            assert!(other.is_served(1).await);
        });
    }
}

#[test]
fn a_client_has_a_limited_number_of_streams_at_a_time() {
    unharmed(|| async {
        let _log = ExpectLog::new("waterspout::http", "").optional();
        let handlers = Handlers::default();
        let counts = handlers.clone();
        let server = HttpServer::new(async move |_: Request| {
            let _inside = counts.enter();
            sleep(10 * SECOND).await;
        });
        let inside = Inside::of(&server);
        let client = Client::connect(&inside).await;
        client.send((0..3000).flat_map(|n| get(2 * n + 1, "/")).collect::<Vec<u8>>());
        sleep(SECOND).await;
        assert!(handlers.most.get() <= 200, "{} handlers", handlers.most.get());
    });
}

#[test]
fn floods_of_frames_that_ask_for_nothing_are_answered_or_ended_and_collect_nothing() {
    let headers = || head("GET", "/");
    let floods: Vec<(&str, Vec<u8>)> = vec![
        ("ping", frame(PING, 0, 0, [0; 8])),
        ("settings", frame(SETTINGS, 0, 0, [])),
        ("settings of a window", frame(SETTINGS, 0, 0, [0, 4, 0, 0, 0, 1])),
        ("answers to pings", frame(PING, ACK, 0, [0; 8])),
        ("priorities", frame(2, 0, 1, [0; 5])),
        ("windows", frame(WINDOW_UPDATE, 0, 0, [0, 0, 0, 1])),
        ("windows of nothing", frame(WINDOW_UPDATE, 0, 0, [0; 4])),
        ("unknown", frame(77, 0, 0, [0; 100])),
        ("unknown and empty", frame(77, 0, 0, [])),
        ("resets of idle streams", reset(101)),
        ("continuations of nothing", frame(CONTINUATION, 0, 1, headers())),
        ("data of idle streams", frame(DATA, 0, 101, [])),
        ("even streams", frame(HEADERS, END_HEADERS, 2, headers())),
    ];
    for (name, flood) in floods {
        unharmed(|| async {
            let _log = ExpectLog::new("waterspout::http", "").optional();
            let server = HttpServer::new(async |_: Request| "");
            let inside = Inside::of(&server);
            let (client, other) =
                (Client(inside.connect_holding(10_000).await.0), Client::connect(&inside).await);
            client.send([PREFACE, &frame(SETTINGS, 0, 0, [])].concat());
            // The client reads nothing of what it is answered.
            let sent = client.0.write(flood.repeat(20_000));
            sleep(SECOND).await;
            assert!(other.is_served(1).await, "{name}");
            sleep(120 * SECOND).await;
            drop(sent);
            drop(client);
            sleep(2 * SECOND).await;
            assert_eq!(server.connections(), 1, "{name}");
        });
    }
}

#[test]
fn heads_without_an_end_and_heads_that_grow_are_refused() {
    // The second entry of the table, of 4,000 bytes, named so often: each of these is one byte.
    let mut bomb = head("GET", "/");
    bomb.push(0x40);
    bomb.extend(length(1));
    bomb.extend(b"x");
    bomb.extend(length(3900));
    bomb.extend([b'y'; 3900]);
    bomb.extend([0x80 | 62; 10_000]);
    let many = [head("GET", "/"), header("x", "y").repeat(10_000)].concat();
    let large = [head("GET", "/"), header("x", &"y".repeat(200_000))].concat();
    for (name, block) in [("bomb", bomb), ("many", many), ("large", large)] {
        unharmed(|| async {
            let _log = ExpectLog::new("waterspout::http", "").optional();
            let asked = Rc::new(Cell::new(0));
            let counts = asked.clone();
            let server = HttpServer::new(async move |_: Request| counts.set(counts.get() + 1));
            let inside = Inside::of(&server);
            let client = Client::connect(&inside).await;
            let mut parts: Vec<&[u8]> = block.chunks(16_000).collect();
            let last = parts.pop().unwrap();
            let mut kind = HEADERS;
            for part in parts {
                client.send(frame(kind, if kind == HEADERS { END_STREAM } else { 0 }, 1, part));
                kind = CONTINUATION;
            }
            let flags = if kind == HEADERS { END_STREAM | END_HEADERS } else { END_HEADERS };
            client.send(frame(kind, flags, 1, last));
            sleep(SECOND).await;
            assert_eq!(asked.get(), 0, "{name}");
            // The answer is 431, a reset or the end.
            let answered = client.next_of(HEADERS).now_or_never();
            let is_refused = match answered {
                Some(Some(frame)) => frame.stream == 1,
                Some(None) | None => true,
            };
            assert!(is_refused, "{name}");
        });
    }
    unharmed(|| async {
        let _log = ExpectLog::new("waterspout::http", "").optional();
        let server = HttpServer::new(async |_: Request| "");
        let inside = Inside::of(&server);
        for (name, part) in [
            ("empty", Vec::new()),
            ("short", header("x", "y")),
            ("long", header("x", &"y".repeat(16_000))),
        ] {
            let client = Client(inside.connect_holding(10_000).await.0);
            client.send([PREFACE, &frame(SETTINGS, 0, 0, [])].concat());
            client.send(frame(HEADERS, END_STREAM, 1, head("GET", "/")));
            let sent = client.0.write(frame(CONTINUATION, 0, 1, part).repeat(20_000));
            let (error, _) = client.end().await;
            assert!(error.is_some_and(|error| error != 0), "{name}: {error:?}");
            drop(sent);
        }
        assert_eq!(server.connections(), 0);
    });
}

#[test]
fn a_window_that_overflows_and_data_beyond_a_window_are_errors() {
    unharmed(|| async {
        let _log = ExpectLog::new("waterspout::http", "").optional();
        let server = HttpServer::new(async |mut request: Request| {
            sleep(100 * SECOND).await;
            let _ = request.bytes().await;
        });
        let inside = Inside::of(&server);
        let client = Client::connect(&inside).await;
        let most = [0x7f, 0xff, 0xff, 0xff];
        client.send(frame(WINDOW_UPDATE, 0, 0, most).repeat(2));
        assert_eq!(client.end().await.0, Some(3));
        let client = Client::connect(&inside).await;
        client.send([post(1, "/"), frame(WINDOW_UPDATE, 0, 1, most).repeat(2)].concat());
        assert_eq!(client.next_of(RST_STREAM).await.unwrap().payload, 3u32.to_be_bytes());
        let client = Client::connect(&inside).await;
        client.send([post(1, "/"), frame(DATA, 0, 1, [0; 16_000]).repeat(1000)].concat());
        let (error, _) = client.end().await;
        assert_eq!(error, Some(3));
    });
}

#[test]
fn a_body_of_empty_frames_is_ended_in_time() {
    unharmed(|| async {
        let _log = ExpectLog::new("waterspout::http", "").optional();
        let diary = Diary::new();
        let writes = diary.clone();
        let server = HttpServer::new(async move |mut request: Request| {
            writes.write(format!("{:?}", request.bytes().await.is_err()));
        })
        .body_timeout(60 * SECOND)
        .stall_timeout(30 * SECOND);
        let inside = Inside::of(&server);
        let client = Client::connect(&inside).await;
        client.send(post(1, "/"));
        let begun = now();
        while diary.read().is_empty() {
            client.send(frame(DATA, 0, 1, []).repeat(100));
            sleep(SECOND).await;
            assert!(now() - begun <= 62 * SECOND);
        }
        let client = Client::connect(&inside).await;
        client.send([post(1, "/"), frame(DATA, 0, 1, []).repeat(100_000)].concat());
        sleep(SECOND).await;
        let resumes = IoLoop::current().counters().resumes;
        sleep(SECOND).await;
        assert!(IoLoop::current().counters().resumes - resumes < 10);
    });
}

#[test]
fn a_client_that_never_opens_a_window_is_cut_off_and_its_answers_are_dropped() {
    unharmed(|| async {
        let _log = ExpectLog::new("waterspout::http", "a connection from");
        let handlers = Handlers::default();
        let counts = handlers.clone();
        let server = HttpServer::new(async move |_: Request| {
            let inside = counts.enter();
            Response::new(Body::from_stream(futures::stream::repeat_with(move || {
                let _ = &inside;
                Ok::<_, std::io::Error>(vec![b'x'; 1000])
            })))
        })
        .stall_timeout(60 * SECOND);
        let inside = Inside::of(&server);
        let client = Client::connect_with(&inside, &[0, 4, 0, 0, 0, 0]).await;
        client.send((0..100).flat_map(|n| get(2 * n + 1, "/")).collect::<Vec<u8>>());
        sleep(SECOND).await;
        assert_eq!(handlers.now.get(), 100);
        let begun = now();
        client.end().await;
        assert!(now() - begun <= 62 * SECOND);
        assert_eq!(handlers.now.get(), 0);
        assert_eq!(server.connections(), 0);
    });
}

#[test]
fn drain_tells_clients_by_goaway_answers_what_has_come_and_ends() {
    unharmed(|| async {
        let server = HttpServer::new(async |request: Request| {
            if request.path() == "/slow" {
                sleep(5 * SECOND).await;
            }
        });
        let inside = Inside::of(&server);
        let (idle, busy, deaf) = (
            Client::connect(&inside).await,
            Client::connect(&inside).await,
            Client::connect(&inside).await,
        );
        busy.send(get(1, "/slow"));
        sleep(SECOND).await;
        let begun = now();
        let draining = server.drain(60 * SECOND);
        // As RFC 9113 has it: a GOAWAY that refuses nothing, and when the client has surely seen that, the last.
        let told = async |client: &Client| {
            let first = client.next_of(GOAWAY).await.unwrap();
            assert_eq!((first.error(), &first.payload[..4]), (0, &[0x7f, 0xff, 0xff, 0xff][..]));
            let ping = client.next_of(PING).await.unwrap();
            assert_eq!(ping.flags & ACK, 0);
            client.send(frame(PING, ACK, 0, ping.payload));
        };
        let clients = async {
            told(&idle).await;
            assert_eq!(idle.end().await.0, Some(0));
            assert_eq!(now(), begun);
            told(&busy).await;
            let answer = busy.next_of(HEADERS).await.unwrap();
            assert_eq!(answer.stream, 1);
            assert_eq!(now() - begun, 4 * SECOND);
            busy.end().await;
            assert_eq!(now() - begun, 4 * SECOND);
        };
        let (cancelled, ()) = futures::join!(draining, clients);
        assert_eq!(cancelled, 1);
        assert_eq!(now() - begun, 60 * SECOND);
        deaf.end().await;
    });
}

#[test]
fn a_connection_that_asks_for_nothing_is_told_to_go_and_closed_although_it_does_not_answer() {
    unharmed(|| async {
        let server = HttpServer::new(async |_: Request| "").idle_connection_timeout(100 * SECOND);
        let inside = Inside::of(&server);
        let pings = Client::connect(&inside).await;
        let begun = now();
        assert!(pings.is_served(1).await);
        for _ in 0..99 {
            sleep(SECOND).await;
            pings.send(frame(PING, 0, 0, [0; 8]));
        }
        assert_eq!(server.connections(), 1);
        let (error, _) = pings.end().await;
        assert_eq!(error, Some(0));
        let took = now() - begun;
        assert!(took >= 100 * SECOND && took <= 104 * SECOND, "{took:?}");
        // One that has said nothing but the preface.
        let client = Client(inside.connect().await.0);
        client.send(PREFACE);
        let begun = now();
        client.end().await;
        let took = now() - begun;
        assert!(took >= 100 * SECOND && took <= 104 * SECOND, "{took:?}");
        assert_eq!(server.connections(), 0);
    });
}

#[test]
fn requests_that_are_malformed_do_not_get_to_a_handler() {
    unharmed(|| async {
        let _log = ExpectLog::new("waterspout::http", "").optional();
        let asked = Rc::new(Cell::new(None));
        let counts = asked.clone();
        let server = HttpServer::new(async move |request: Request| counts.set(Some(request)));
        let inside = Inside::of(&server);
        let pseudo = |method: &str, path: &str| {
            [header(":method", method), header(":scheme", "http"), header(":path", path)].concat()
        };
        let heads = [
            ("upper case", [head("GET", "/"), header("X", "y")].concat()),
            ("connection", [head("GET", "/"), header("connection", "close")].concat()),
            (
                "transfer coding",
                [head("GET", "/"), header("transfer-encoding", "chunked")].concat(),
            ),
            ("te", [head("GET", "/"), header("te", "gzip")].concat()),
            ("pseudo behind", [header("x", "y"), head("GET", "/")].concat()),
            ("unknown pseudo", [head("GET", "/"), header(":x", "y")].concat()),
            ("of an answer", [head("GET", "/"), header(":status", "200")].concat()),
            ("twice", [head("GET", "/"), header(":path", "/b")].concat()),
            ("no method", [header(":scheme", "http"), header(":path", "/")].concat()),
            ("no path", [header(":method", "GET"), header(":scheme", "http")].concat()),
            ("empty path", pseudo("GET", "")),
            ("blank in the path", pseudo("GET", "/a b")),
            ("line break in the path", pseudo("GET", "/a\r\nx: y")),
            ("line break in a value", [head("GET", "/"), header("x", "a\r\ny: z")].concat()),
            ("nul in a value", [head("GET", "/"), header("x", "a\0")].concat()),
            ("line break in a name", [head("GET", "/"), header("x\r\ny", "z")].concat()),
            ("colon in a name", [head("GET", "/"), header("x:y", "z")].concat()),
            ("another host", [head("GET", "/"), header("host", "b")].concat()),
            ("two hosts", [pseudo("GET", "/"), header("host", "b"), header("host", "b")].concat()),
            ("length and no body", [head("GET", "/"), header("content-length", "5")].concat()),
        ];
        for (name, block) in heads {
            let client = Client::connect(&inside).await;
            client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, block));
            loop {
                match client.next().await {
                    // 0x88 is `:status: 200`.
                    Some(frame) if frame.kind == HEADERS => {
                        assert_ne!(frame.payload[0], 0x88, "{name}");
                        break;
                    }
                    Some(frame) if frame.kind == GOAWAY || frame.kind == RST_STREAM => break,
                    Some(_) => {}
                    None => break,
                }
            }
            let asked = asked.take();
            assert!(asked.is_none(), "{name}: {asked:?}");
        }
        assert!(Client::connect(&inside).await.is_served(1).await);
    });
}
