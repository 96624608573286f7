//! Bodies of requests that are malformed, too large, kept for too long, or not what they say they are.

use std::cell::Cell;
use std::rc::Rc;

use waterspout::coroutine::{self, now, sleep, with_timeout};
use waterspout::http::{Body, HttpError, HttpServer, Request, Response};
use waterspout::testing::ExpectLog;

use super::{Inside, SECOND, unharmed};
use crate::common::Diary;

/// Chunks that are to be refused. `|` is the end of a line.
const CHUNKS: &[&str] = &[
    "|",
    "x|",
    "g|",
    "-1|",
    "+1|",
    " 1|a|0||",
    "0x1|a|0||",
    "1_0|",
    ";a|",
    "1\r1|",
    "1\na\n0\n\n",
    "1|ab|0||",
    "1|a\n0||",
    "1|a0||",
    "1;a\nb|a|0||",
    "10000000000000000|",
    "ffffffffffffffffff|",
    "fffffffffffffffffffffffffffffffff|",
    "\0|",
    "1|a|\0||",
    "0|no trailer|",
    "0|a\0: b||",
    "0|x: folded| value||",
    "0| |",
];

#[test]
fn chunks_that_are_malformed_are_errors_of_the_body_and_nothing_behind_them_is_taken_for_a_request()
{
    unharmed(|| async {
        let _log = ExpectLog::new("waterspout::http", "").optional();
        let asked = Rc::new(Cell::new(0));
        let counts = asked.clone();
        let server = HttpServer::new(async move |mut request: Request| {
            counts.set(counts.get() + 1);
            Ok::<_, HttpError>(request.text().await?)
        });
        let inside = Inside::of(&server);
        let mut wrong = Vec::new();
        for chunks in CHUNKS {
            let client = inside.connect().await;
            client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
            client.send(chunks.replace('|', "\r\n"));
            client.send("GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n");
            let all = client.0.read_until_close().await.unwrap();
            let all = String::from_utf8_lossy(&all);
            if !all.starts_with("HTTP/1.1 400 ") || asked.replace(0) != 1 {
                wrong.push(format!("{chunks:?}: {all:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

#[test]
fn what_is_said_beside_the_chunks_is_limited() {
    unharmed(|| async {
        let _log = ExpectLog::new("waterspout::http", "").optional();
        let server =
            HttpServer::new(async |mut request: Request| Ok::<_, HttpError>(request.text().await?));
        let inside = Inside::of(&server);
        for chunks in [
            format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(100_000)),
            format!("{}0\r\n\r\n", "1;xxxxxxxxxxxxxxxx\r\na\r\n".repeat(10_000)),
            format!("0\r\n{}\r\n", "x: y\r\n".repeat(10_000)),
            format!("0\r\nx: {}\r\n\r\n", "y".repeat(100_000)),
        ] {
            let client = inside.connect().await;
            client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
            client.send(&chunks);
            assert_eq!(client.answer().await.status(), 400, "{}", &chunks[..20]);
            assert!(client.is_closed().await);
        }
    });
}

/// The rest of a body must never be taken for a request.
#[test]
fn a_body_that_is_kept_beyond_its_answer_is_read_on_and_is_no_request() {
    unharmed(|| async {
        let (read, asked) = (Diary::new(), Rc::new(Cell::new(0)));
        let (reads, counts) = (read.clone(), asked.clone());
        let server = HttpServer::new(async move |request: Request| {
            counts.set(counts.get() + 1);
            let (mut body, reads) = (request.into_inner().into_body(), reads.clone());
            coroutine::start(async move { reads.write(format!("{:?}", body.text().await)) });
            "taken"
        })
        .header_timeout(30 * SECOND)
        .stall_timeout(600 * SECOND);
        let client = Inside::of(&server).connect().await;
        let smuggled = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
        let length = 1 + 2 * smuggled.len();
        client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\nx"));
        assert_eq!(client.answer().await.body, "taken");
        for pause in [10, 100] {
            sleep(pause * SECOND).await;
            client.send(smuggled);
        }
        sleep(SECOND).await;
        assert_eq!(asked.get(), 1);
        assert_eq!(read.read(), [format!("Ok({:?})", format!("x{smuggled}{smuggled}"))]);
        // And then the connection goes on.
        assert_eq!(client.get("/").await.body, "taken");
    });
}

#[test]
fn a_connection_whose_body_came_after_its_head_is_idle_after_the_answer() {
    for reads in [true, false] {
        unharmed(|| async {
            let server = HttpServer::new(async move |mut request: Request| match reads {
                true => request.text().await.unwrap(),
                false => {
                    sleep(SECOND / 2).await;
                    "unread".to_owned()
                }
            })
            .header_timeout(30 * SECOND);
            let client = Inside::of(&server).connect().await;
            client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n");
            sleep(SECOND / 4).await;
            client.send("abc");
            assert_eq!(client.answer().await.status(), 200);
            sleep(100 * SECOND).await;
            client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc");
            assert_eq!(client.answer().await.status(), 200);
        });
    }
}

#[test]
fn a_body_that_nobody_reads_is_not_collected() {
    unharmed(|| async {
        let _log = ExpectLog::new("waterspout::http", "").optional();
        let server = HttpServer::new(async |_: Request| "not read");
        let client = Inside::of(&server).connect_holding(1000).await;
        client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 50000000\r\n\r\n");
        let sent = client.0.write(vec![b'x'; 50_000_000]);
        let answer = client.answer().await;
        assert_eq!((answer.status(), &*answer.body), (200, "not read"));
        assert!(sent.await.is_err());
        assert_eq!(server.connections(), 0);
    });
}

#[test]
fn a_handler_that_does_not_read_holds_its_client_back() {
    unharmed(|| async {
        let server = HttpServer::new(async |_: Request| {
            sleep(100 * SECOND).await;
            "late"
        });
        let client = Inside::of(&server).connect_holding(1000).await;
        client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 50000000\r\n\r\n");
        let mut taken = 0;
        while with_timeout(SECOND, client.0.write(vec![b'x'; 1000])).await.is_ok() {
            taken += 1000;
        }
        assert!(taken < 200_000, "{taken} bytes were taken");
        assert_eq!(client.answer().await.body, "late");
    });
}

/// A gigabyte of zeros in a few kilobytes, whatever it was compressed by.
#[test]
fn a_decompression_bomb_is_an_error_as_soon_as_it_is_larger_than_a_body_may_be() {
    use async_compression::futures::bufread::{BrotliEncoder, GzipEncoder, ZlibEncoder};
    use futures::AsyncReadExt as _;
    use futures::io::{BufReader, repeat};
    unharmed(|| async {
        let _log = ExpectLog::new("waterspout::http", "").optional();
        let largest = Rc::new(Cell::new(0));
        let notes = largest.clone();
        let server = HttpServer::new(async move |mut request: Request| {
            let mut size = 0;
            while let Some(chunk) = request.body_mut().chunk().await? {
                size += chunk.len();
                notes.set(notes.get().max(chunk.len()));
                assert!(size <= 1_000_000);
            }
            Ok::<_, HttpError>("all")
        })
        .max_body_size(1_000_000)
        .decompress_request(true);
        let inside = Inside::of(&server);
        let zeros = || BufReader::new(repeat(0).take(30_000_000));
        let mut gzip = Vec::new();
        GzipEncoder::new(zeros()).read_to_end(&mut gzip).await.unwrap();
        let mut zlib = Vec::new();
        ZlibEncoder::new(zeros()).read_to_end(&mut zlib).await.unwrap();
        let mut brotli = Vec::new();
        BrotliEncoder::with_quality(zeros(), async_compression::Level::Fastest)
            .read_to_end(&mut brotli)
            .await
            .unwrap();
        let mut twice = Vec::new();
        GzipEncoder::new(&gzip[..]).read_to_end(&mut twice).await.unwrap();
        for (coding, bomb, status) in [
            ("gzip", &gzip, 413),
            ("deflate", &zlib, 413),
            ("br", &brotli, 413),
            ("gzip, gzip", &twice, 413),
        ] {
            let client = inside.connect().await;
            let length = bomb.len();
            assert!(length < 200_000, "{coding}: {length}");
            client.send(format!(
                "POST / HTTP/1.1\r\nhost: a\r\ncontent-encoding: {coding}\r\ncontent-length: {length}\r\n\r\n"
            ));
            client.send(bomb);
            let answered = client.answer().await.status();
            assert!(
                answered == status || coding.contains(',') && answered == 200,
                "{coding}: {answered}"
            );
        }
        assert!(largest.get() < 100_000, "{} bytes in one part", largest.get());
    });
}

#[test]
fn trailers_come_after_the_body_and_are_no_headers() {
    unharmed(|| async {
        let server = HttpServer::new(async |mut request: Request| {
            let body = request.text().await.unwrap();
            let trailers = request.body().trailers().unwrap();
            let length = trailers.get("content-length").is_some();
            format!("{body} {:?} {length} {:?}", trailers.get("x"), request.header("x"))
        });
        let client = Inside::of(&server).connect().await;
        client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
        client.send("1\r\na\r\n0\r\nx: y\r\nhost: b\r\n\r\n");
        assert_eq!(client.answer().await.body, "a Some(\"y\") false None");
    });
}

#[test]
fn an_answer_that_never_ends_is_dropped_when_its_client_leaves_or_takes_nothing() {
    for leaves in [true, false] {
        unharmed(|| async {
            let _log = ExpectLog::new("waterspout::http", "").optional();
            let diary = Diary::new();
            let held = diary.clone();
            let server = HttpServer::new(async move |_: Request| {
                let at_end = held.at_end("dropped");
                Response::new(Body::from_stream(futures::stream::repeat_with(move || {
                    at_end.keep();
                    Ok::<_, std::io::Error>(vec![b'x'; 1000])
                })))
            })
            .stall_timeout(60 * SECOND);
            let client = Inside::of(&server).connect_holding(10_000).await;
            let begun = now();
            client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
            client.head().await;
            if leaves {
                drop(client);
                coroutine::moment().await;
                coroutine::moment().await;
                assert_eq!(now(), begun);
            } else {
                sleep(63 * SECOND).await;
            }
            assert_eq!(diary.read(), ["dropped"]);
            assert_eq!(server.connections(), 0);
        });
    }
}
