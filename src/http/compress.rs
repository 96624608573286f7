//! Compressing answers, for clients that take that.
//!
//! As Tornado does it: text only, and nothing that is shorter than a kilobyte, for which it is not worth it. A body
//! that comes in parts is compressed part by part, and what there is of it is sent whenever it waits for more.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::http::{HeaderMap, HeaderValue, StatusCode, header};
use async_compression::Level;
use async_compression::futures::bufread::{BrotliEncoder, GzipEncoder};
use bytes::Bytes;
use futures::stream::{Stream, TryStreamExt as _};
use http_body::Body as _;

use super::accept_encoding::accepted;
use super::body::Body;
use super::error::BodyError;

/// What is shorter is sent as it is.
const SHORTEST: u64 = 1024;
/// What is worth its time when it is done for each answer anew.
const GZIP: Level = Level::Precise(6);
const BROTLI: Level = Level::Precise(4);

/// How an answer can be compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Coding {
    Gzip,
    Brotli,
}

impl Coding {
    /// What a client likes best, of what there is; `br` before `gzip` if it likes both alike.
    pub(super) fn liked(asked: &HeaderMap) -> Option<Coding> {
        match *accepted(asked, &["br", "gzip"]).first()? {
            "br" => Some(Coding::Brotli),
            _ => Some(Coding::Gzip),
        }
    }
}

/// Compresses the body of an answer, if that is worth it and the client takes it (`liked`). Whether it does or
/// not, caches are told that the answer depends on that.
pub(super) fn compress(response: &mut ::http::Response<Body>, liked: Option<Coding>) {
    if !is_worth_it(response) {
        return;
    }
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
    let Some(coding) = liked else { return };
    let name = match coding {
        Coding::Gzip => "gzip",
        Coding::Brotli => "br",
    };
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::ACCEPT_RANGES);
    weaken(headers);
    let plain = Parts(std::mem::take(response.body_mut()));
    let plain = plain.map_err(std::io::Error::from).into_async_read();
    *response.body_mut() = match coding {
        Coding::Gzip => Body::from_reader(GzipEncoder::with_quality(plain, GZIP)),
        Coding::Brotli => Body::from_reader(BrotliEncoder::with_quality(plain, BROTLI)),
    };
}

/// An ETag stands for the same bytes, and these are others now; a weak one stands for what they mean.
fn weaken(headers: &mut HeaderMap) {
    let Some(tag) = headers.get(header::ETAG).and_then(|tag| tag.to_str().ok()) else { return };
    if tag.starts_with('"') {
        if let Ok(weak) = HeaderValue::try_from(format!("W/{tag}")) {
            headers.insert(header::ETAG, weak);
        }
    }
}

fn is_worth_it(response: &::http::Response<Body>) -> bool {
    let headers = response.headers();
    let is_short = response.body().size_hint().upper().is_some_and(|upper| upper < SHORTEST);
    let is_other =
        [StatusCode::PARTIAL_CONTENT, StatusCode::SWITCHING_PROTOCOLS].contains(&response.status());
    let is_kept = headers
        .get(header::CACHE_CONTROL)
        .is_some_and(|control| control.as_bytes().windows(12).any(|word| word == b"no-transform"));
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    !is_short
        && !is_other
        && !is_kept
        && !headers.contains_key(header::CONTENT_ENCODING)
        && (kind.starts_with("text/")
            || kind.ends_with("+xml")
            || kind.ends_with("+json")
            || [
                "application/javascript",
                "application/json",
                "application/wasm",
                "application/xml",
            ]
            .contains(&kind))
}

/// The parts of a body, without trailers.
struct Parts(Body);

impl Stream for Parts {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(Pin::new(&mut self.0).poll_frame(cx)?) {
                None => return Poll::Ready(None),
                Some(frame) => {
                    if let Ok(part) = frame.into_data() {
                        return Poll::Ready(Some(Ok(part)));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_what_it_likes_best() {
        let liked = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, text.parse().unwrap());
            Coding::liked(&headers)
        };
        for (text, coding) in [
            ("gzip", Some(Coding::Gzip)),
            ("gzip, deflate, br", Some(Coding::Brotli)),
            ("br;q=0.5, gzip;q=0.8", Some(Coding::Gzip)),
            ("br;q=0, gzip", Some(Coding::Gzip)),
            ("BR ; q=0.1", Some(Coding::Brotli)),
            ("*", Some(Coding::Brotli)),
            ("*;q=0", None),
            ("gzip;q=0", None),
            ("identity", None),
            ("gzip;q=nonsense", Some(Coding::Gzip)),
            ("", None),
        ] {
            assert_eq!(liked(text), coding, "{text}");
        }
        assert_eq!(Coding::liked(&HeaderMap::new()), None);
    }
}
