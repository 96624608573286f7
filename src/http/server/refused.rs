//! Requests that hyper takes, and that RFC 9112 and RFC 9113 have a server refuse: what one server reads in one way
//! and another server in another way, so that a request could be hidden within another one.

use ::http::{HeaderMap, Method, Request, Version, header};
use http_body::Body;

/// Why a request is to be refused.
pub(super) type Refused = &'static str;

/// Whether a request is to be answered at all. This is done for each, and so has to cost next to nothing for those
/// that look as nearly all do.
#[inline]
pub(super) fn check<B: Body>(request: &Request<B>) -> Result<(), Refused> {
    let headers = request.headers();
    // Most clients send `Host` first; and if no name is there twice, it is not either.
    let has_usual_host =
        headers.keys().next() == Some(&header::HOST) && headers.keys_len() == headers.len();
    if !has_usual_host || request.version() == Version::HTTP_2 {
        check_target(request)?;
    }
    // Of HTTP/1, a body of which nobody knows how long it will be is one in chunks.
    match request.body().is_end_stream() || request.body().size_hint().exact().is_some() {
        true => Ok(()),
        false => check_coding(headers),
    }
}

/// A request says once for which host it is. With HTTP/2 it may say so in two ways, but not two things; and only
/// there can it leave out the path.
#[cold]
fn check_target<B>(request: &Request<B>) -> Result<(), Refused> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err("a request has several hosts");
    }
    match (request.version(), host, request.uri().authority()) {
        (Version::HTTP_11, None, _) => Err("a request has no host"),
        (Version::HTTP_2, Some(host), Some(authority)) if host != authority.as_str() => {
            Err("a request has two hosts")
        }
        (Version::HTTP_2, ..)
            if request.uri().path().is_empty() && request.method() != Method::CONNECT =>
        {
            Err("a request has no path")
        }
        _ => Ok(()),
    }
}

/// A body has one coding at most, for others are not understood.
#[cold]
fn check_coding(headers: &HeaderMap) -> Result<(), Refused> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        (None, None) => Ok(()),
        _ => Err("a body has a transfer coding that is not understood"),
    }
}
