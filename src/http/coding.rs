//! Taking off how a body is compressed: `gzip`, `deflate` and `br`, for an answer that a client got, and for a
//! request that a server got.
//!
//! Whatever it was compressed by, what comes out is held to the limits of the body. A few bytes that would
//! become gigabytes become no more than that, since a body is decompressed only as far as it is read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::http::{HeaderMap, HeaderValue, header};
use async_compression::futures::bufread::{
    BrotliDecoder, DeflateDecoder, GzipDecoder, ZlibDecoder,
};
use bytes::Bytes;
use futures::io::{AsyncBufRead, AsyncRead};
use futures::stream::{IntoAsyncRead, MapErr, Stream, TryStreamExt as _};

use super::error::BodyError;
use super::incoming::Incoming;
use crate::sockets::Lent;

/// What `decode` can take off, as `Accept-Encoding` says it.
#[cfg(feature = "client")]
pub(super) const ACCEPTED: HeaderValue = HeaderValue::from_static("gzip, deflate, br");

/// How many codings are taken off a body. Nobody needs two; a thousand would take a thousand decoders.
const MOST: usize = 4;

/// Takes off the codings that `Content-Encoding` names: the last one first, since it was put on last, until
/// one comes that is unknown. The headers then say what is left, and no longer how long the body is.
pub(super) fn decode(headers: &mut HeaderMap, mut body: Incoming) -> Incoming {
    use http_body::Body as _;
    // The answer to a HEAD says how its body would be compressed.
    if body.is_end_stream() {
        return body;
    }
    let Some(mut codings) = codings(headers).filter(|codings| codings.len() <= MOST) else {
        return body;
    };
    let all = codings.len();
    while let Some(coding) = codings.last().and_then(|name| Coding::named(name)) {
        body = match coding {
            Coding::Identity => body,
            coding => body.decoded(|body| Decoded { coding, state: State::Begins(source(body)) }),
        };
        codings.pop();
    }
    if codings.len() == all {
        return body;
    }
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::CONTENT_ENCODING);
    if let Ok(left) = HeaderValue::try_from(codings.join(", ")) {
        if !codings.is_empty() {
            headers.insert(header::CONTENT_ENCODING, left);
        }
    }
    body
}

/// The names in all headers `Content-Encoding`; `None` if one of them is no text.
fn codings(headers: &HeaderMap) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for list in headers.get_all(header::CONTENT_ENCODING) {
        let list = list.to_str().ok()?.split(',').map(str::trim);
        names.extend(list.filter(|name| !name.is_empty()).map(str::to_ascii_lowercase));
    }
    Some(names)
}

#[derive(Clone, Copy)]
enum Coding {
    Identity,
    Gzip,
    Deflate,
    Brotli,
}

impl Coding {
    fn named(name: &str) -> Option<Coding> {
        match name {
            "identity" => Some(Coding::Identity),
            "gzip" | "x-gzip" => Some(Coding::Gzip),
            "deflate" => Some(Coding::Deflate),
            "br" => Some(Coding::Brotli),
            _ => None,
        }
    }

    /// What decodes a body that begins with this byte.
    fn decoder(self, first: u8, source: Source) -> Decoder {
        match self {
            Coding::Identity | Coding::Gzip => {
                let mut gzip = GzipDecoder::new(source);
                // It may be several files of gzip, one behind the other.
                gzip.multiple_members(true);
                Decoder::Gzip(gzip)
            }
            // `deflate` means zlib. Some servers leave out what zlib adds, of which the first byte says that it
            // is there.
            Coding::Deflate if first & 0x0f == 8 => Decoder::Zlib(ZlibDecoder::new(source)),
            Coding::Deflate => Decoder::Deflate(DeflateDecoder::new(source)),
            Coding::Brotli => Decoder::Brotli(Box::new(BrotliDecoder::new(source))),
        }
    }
}

/// A body as the decoders read it.
type Source = IntoAsyncRead<MapErr<Incoming, fn(BodyError) -> io::Error>>;

fn source(body: Incoming) -> Source {
    body.map_err(io::Error::from as fn(BodyError) -> io::Error).into_async_read()
}

enum Decoder {
    Gzip(GzipDecoder<Source>),
    Zlib(ZlibDecoder<Source>),
    Deflate(DeflateDecoder<Source>),
    Brotli(Box<BrotliDecoder<Source>>),
}

impl Decoder {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Decoder::Gzip(decoder) => Pin::new(decoder).poll_read(cx, buf),
            Decoder::Zlib(decoder) => Pin::new(decoder).poll_read(cx, buf),
            Decoder::Deflate(decoder) => Pin::new(decoder).poll_read(cx, buf),
            Decoder::Brotli(decoder) => Pin::new(decoder).poll_read(cx, buf),
        }
    }

    fn source(&mut self) -> &mut Source {
        match self {
            Decoder::Gzip(decoder) => decoder.get_mut(),
            Decoder::Zlib(decoder) => decoder.get_mut(),
            Decoder::Deflate(decoder) => decoder.get_mut(),
            Decoder::Brotli(decoder) => decoder.get_mut(),
        }
    }
}

/// The bytes that a body was made of before it was compressed.
struct Decoded {
    coding: Coding,
    state: State,
}

enum State {
    /// Nothing has come yet.
    Begins(Source),
    Decodes(Decoder),
    Over,
}

impl Decoded {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            match &mut self.state {
                State::Begins(source) => {
                    let begun = ready!(Pin::new(source).poll_fill_buf(cx))?;
                    let first = begun.first().copied();
                    let State::Begins(source) = std::mem::replace(&mut self.state, State::Over)
                    else {
                        return Poll::Ready(Ok(None));
                    };
                    // No bytes at all are no body, however that is compressed.
                    let Some(first) = first else { return Poll::Ready(Ok(None)) };
                    self.state = State::Decodes(self.coding.decoder(first, source));
                }
                State::Decodes(decoder) => {
                    let mut lent = Lent::borrow();
                    let read = |bytes: &mut [u8]| decoder.poll_read(cx, bytes);
                    if ready!(lent.poll_fill(Lent::SIZE, read))? > 0 {
                        return Poll::Ready(Ok(Some(Bytes::copy_from_slice(&lent))));
                    }
                    // Whoever does not read a body to its end ends the connection.
                    let left = ready!(Pin::new(decoder.source()).poll_fill_buf(cx))?;
                    if !left.is_empty() {
                        let message = "something follows what was compressed";
                        return Poll::Ready(Err(io::Error::other(message)));
                    }
                    self.state = State::Over;
                }
                State::Over => return Poll::Ready(Ok(None)),
            }
        }
    }
}

impl Stream for Decoded {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(cx).map(|polled| match polled {
            Ok(bytes) => bytes.map(Ok),
            // An error of the body itself has only passed through the decoder.
            Err(error) => Some(Err(error
                .downcast::<BodyError>()
                .unwrap_or_else(|error| BodyError::Encoding(error.into())))),
        })
    }
}
