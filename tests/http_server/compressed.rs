//! Requests and answers that are compressed.

use std::cell::Cell;
use std::rc::Rc;

use async_compression::futures::bufread::{BrotliDecoder, GzipDecoder, GzipEncoder};
use futures::AsyncReadExt as _;
use futures::io::Cursor;
use waterspout::coroutine;
use waterspout::http::{Body, HttpError, HttpServer, Request, Response};
use waterspout::iostream::Transport;

use super::{Client, Inside};

async fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    GzipEncoder::new(Cursor::new(bytes)).read_to_end(&mut all).await.unwrap();
    all
}

/// The head, and the body as it was sent.
async fn ask<S: Transport>(client: &Client<S>, path: &str, takes: &str) -> (String, Vec<u8>) {
    client.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\naccept-encoding: {takes}\r\n\r\n"));
    let head = client.head().await;
    let mut body = Vec::new();
    if head.contains("transfer-encoding: chunked") {
        loop {
            let line = client.0.read_until(b"\r\n", 64).await.unwrap();
            let length = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16);
            let part = client.0.read_bytes(length.unwrap()).await.unwrap();
            client.0.read_until(b"\r\n", 2).await.unwrap();
            if part.is_empty() {
                break;
            }
            body.extend(part);
        }
    } else {
        let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap();
        body = client.0.read_bytes(length.parse().unwrap()).await.unwrap();
    }
    (head, body)
}

fn long() -> String {
    "all the same. ".repeat(10_000)
}

#[waterspout::test]
async fn text_is_compressed_as_the_client_likes_it() {
    let server = HttpServer::new(async |request: Request| match request.path() {
        "/short" => Response::text("short"),
        "/bytes" => Response::new(vec![0; 10_000]),
        "/tagged" => Response::html(long()).with_header("etag", "\"1\""),
        "/ready" => Response::text(long()).with_header("content-encoding", "identity"),
        _ => Response::text(long()),
    })
    .compress_response(true);
    let client = Inside::of(&server).connect().await;

    let (head, body) = ask(&client, "/", "gzip").await;
    assert!(head.contains("content-encoding: gzip\r\n"), "{head}");
    assert!(head.contains("vary: accept-encoding\r\n") && body.len() < 2000);
    let mut text = String::new();
    GzipDecoder::new(Cursor::new(body)).read_to_string(&mut text).await.unwrap();
    assert!(text == long());

    let (head, body) = ask(&client, "/tagged", "gzip, br").await;
    assert!(head.contains("content-encoding: br\r\n"), "{head}");
    assert!(head.contains("etag: W/\"1\"\r\n"), "{head}");
    let mut text = String::new();
    BrotliDecoder::new(Cursor::new(body)).read_to_string(&mut text).await.unwrap();
    assert!(text == long());

    let (head, body) = ask(&client, "/", "identity").await;
    assert!(head.contains("vary: accept-encoding\r\n") && body == long().as_bytes());
    for path in ["/short", "/bytes", "/ready"] {
        let (head, _) = ask(&client, path, "gzip, br").await;
        assert!(!head.contains("vary") && !head.contains("chunked"), "{path}: {head}");
    }
}

#[waterspout::test]
async fn what_there_is_of_a_compressed_stream_is_sent_while_it_waits_for_more() {
    let (go_on, waits) = waterspout::concurrent::promise();
    let waits = Cell::new(Some(waits));
    let server = HttpServer::new(async move |_: Request| {
        let waits = waits.take().unwrap();
        let first = futures::stream::once(async { Ok::<_, std::io::Error>("first ".repeat(300)) });
        let second = futures::stream::once(async move {
            let _: Rc<()> = waits.await.unwrap();
            Ok("second".to_owned())
        });
        let parts = futures::StreamExt::chain(first, second);
        let mut response = Response::text("");
        *response.body_mut() = Body::from_stream(parts);
        response
    })
    .compress_response(true);
    let client = Inside::of(&server).connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\n\r\n");
    client.head().await;
    let mut decoder = GzipDecoder::new(Cursor::new(Vec::new()));
    let mut text = String::new();
    // The first part can be read although the second has not come.
    let mut sent = Vec::new();
    while text.len() < 1800 {
        let line = client.0.read_until(b"\r\n", 64).await.unwrap();
        let length = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
        sent.extend(client.0.read_bytes(length).await.unwrap());
        client.0.read_until(b"\r\n", 2).await.unwrap();
        decoder = GzipDecoder::new(Cursor::new(sent.clone()));
        let mut bytes = vec![0; 4096];
        let read = decoder.read(&mut bytes).await.unwrap_or(0);
        text = String::from_utf8_lossy(&bytes[..read]).into_owned();
    }
    drop(decoder);
    assert_eq!(text, "first ".repeat(300));
    go_on.set_result(Rc::new(()));
    client.0.read_until(b"\r\n0\r\n\r\n", 4096).await.unwrap();
    coroutine::moment().await;
}

#[waterspout::test]
async fn a_compressed_request_is_given_as_it_was_and_a_bomb_is_too_large() {
    let server = HttpServer::new(async |mut request: Request| {
        let encoding = request.header("content-encoding").map(str::to_owned);
        let length = request.bytes().await?.len();
        Ok::<_, HttpError>(format!("{length} {encoding:?}"))
    })
    .decompress_request(true)
    .max_body_size(200_000);
    let inside = Inside::of(&server);
    let post = async |bytes: &[u8]| {
        let client = inside.connect().await;
        let length = bytes.len();
        client.send(format!(
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-encoding: gzip\r\ncontent-length: {length}\r\n\r\n"
        ));
        client.send(bytes);
        client.answer().await
    };
    assert_eq!(post(&gzipped(long().as_bytes()).await).await.body, "140000 None");
    let bomb = gzipped(&vec![0; 50_000_000]).await;
    assert!(bomb.len() < 200_000);
    assert_eq!(post(&bomb).await.status(), 413);
    assert_eq!(post(b"this is no gzip").await.status(), 400);
    let mut cut = gzipped(long().as_bytes()).await;
    cut.truncate(100);
    assert_eq!(post(&cut).await.status(), 400);
}
