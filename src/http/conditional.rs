//! Conditional requests: "send it if it is not what I have already" (RFC 9110, section 13).
//!
//! What a client has is told by an ETag or by a date, which an earlier answer has given it. Whether the
//! condition holds is found out by comparing the headers of the request with those of the answer that would
//! be sent. So these functions serve files and whole bodies alike. All of them are for `GET` and `HEAD`.

use std::hash::Hasher as _;
use std::time::{SystemTime, UNIX_EPOCH};

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};

use super::body::Body;
use super::response;

/// What the conditions of a request come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The answer is sent.
    Send,
    /// The client has it already.
    NotModified,
    /// The client wants it only if it is what it was, and it is not.
    Failed,
}

/// Evaluates the conditions in `asked` for an answer with the headers `answer`, in the order that RFC 9110
/// lays down in 13.2.2: an ETag goes before a date, which is coarser, and what would fail goes before what
/// would save the sending.
pub(super) fn verdict(asked: &HeaderMap, answer: &HeaderMap) -> Verdict {
    let etag = answer.get(header::ETAG).and_then(|value| tags(value.as_bytes()).next());
    let modified = date(answer, header::LAST_MODIFIED);
    let holds = if asked.contains_key(header::IF_MATCH) {
        is_listed(asked, header::IF_MATCH, etag, Tag::is_strongly)
    } else {
        let since = date(asked, header::IF_UNMODIFIED_SINCE);
        since.zip(modified).is_none_or(|(since, modified)| modified <= since)
    };
    if !holds {
        return Verdict::Failed;
    }
    let has_it = if asked.contains_key(header::IF_NONE_MATCH) {
        is_listed(asked, header::IF_NONE_MATCH, etag, Tag::is_weakly)
    } else {
        let since = date(asked, header::IF_MODIFIED_SINCE);
        since.zip(modified).is_some_and(|(since, modified)| modified <= since)
    };
    if has_it { Verdict::NotModified } else { Verdict::Send }
}

/// Whether a part of the answer may be sent, if one is asked for. Not if the client has a part already, of
/// something else than this (`If-Range`): it would put together what does not belong together.
pub(super) fn allows_range(asked: &HeaderMap, answer: &HeaderMap) -> bool {
    let Some(condition) = asked.get(header::IF_RANGE) else { return true };
    if let Some(theirs) = tags(condition.as_bytes()).next() {
        let etag = answer.get(header::ETAG).and_then(|value| tags(value.as_bytes()).next());
        return etag.is_some_and(|etag| etag.is_strongly(&theirs));
    }
    // The date has to be just the same: a file that is put back from a backup is an older one.
    let dates = date(asked, header::IF_RANGE).zip(date(answer, header::LAST_MODIFIED));
    dates.is_some_and(|(theirs, modified)| theirs == modified)
}

/// Gives an answer to this method an ETag, if it is that of a body that is there as a whole, and has none. Of a
/// body that comes in parts, nobody knows what it will be. Tornado: `set_etag_header`.
pub(super) fn tag(method: &Method, response: &mut Response<Body>) {
    if !is_found(method, response) || response.headers().contains_key(header::ETAG) {
        return;
    }
    let whole = response.body().as_bytes();
    // A handler may leave the body out if it is asked for the head only. It has an ETag, but not that one.
    let whole = whole.filter(|bytes| *method == Method::GET || !bytes.is_empty());
    if let Some(etag) = whole.map(|bytes| etag_of(bytes)) {
        response.headers_mut().insert(header::ETAG, etag);
    }
}

/// Makes of the answer to a request of this method with these headers `304 Not Modified`, if the client has already
/// what would be sent. Tornado: `check_etag_header`.
pub(super) fn unless_had(method: &Method, asked: &HeaderMap, response: &mut Response<Body>) {
    let validators = [header::ETAG, header::LAST_MODIFIED];
    let has_any = validators.iter().any(|name| response.headers().contains_key(name));
    if !has_any || !is_found(method, response) {
        return;
    }
    match verdict(asked, response.headers()) {
        Verdict::Send => {}
        Verdict::NotModified => {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            *response.body_mut() = Body::empty();
            remove_description(response.headers_mut());
        }
        Verdict::Failed => {
            let page = response::Response::of_status(StatusCode::PRECONDITION_FAILED);
            *response = page.into_inner();
        }
    }
}

/// Whether this is what a client has asked to see.
fn is_found(method: &Method, response: &Response<Body>) -> bool {
    [Method::GET, Method::HEAD].contains(method) && response.status() == StatusCode::OK
}

/// Takes out of the headers of a `304 Not Modified` what describes the body that is not sent. By RFC 9110,
/// 15.4.5, what says how long and for whom the client may keep its copy stays: the ETag, `Cache-Control`,
/// `Expires`, `Vary`, and the date if there is no ETag. What belongs to the answer as such, and not to its
/// body, stays, too: without the headers of CORS a browser would not let the page see its own copy, and a
/// cookie would be lost.
pub(super) fn remove_description(headers: &mut HeaderMap) {
    let described = [
        header::ACCEPT_RANGES,
        header::CONTENT_ENCODING,
        header::CONTENT_LANGUAGE,
        header::CONTENT_LENGTH,
        header::CONTENT_RANGE,
        header::CONTENT_TYPE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
    ];
    for name in described {
        headers.remove(name);
    }
    if headers.contains_key(header::ETAG) {
        headers.remove(header::LAST_MODIFIED);
    }
}

/// The `Last-Modified` of what was changed at this time; `None` if the header cannot tell it, which has years
/// from 1970 to 9999. A time that is still to come becomes `now`: by RFC 9110, 8.8.2.1, no answer is older
/// than what it has.
pub(super) fn last_modified(modified: SystemTime, now: SystemTime) -> Option<HeaderValue> {
    const YEAR_10000: u64 = 253_402_300_800;
    let since = modified.min(now).duration_since(UNIX_EPOCH).ok()?;
    if since.as_secs() >= YEAR_10000 {
        return None;
    }
    HeaderValue::try_from(httpdate::fmt_http_date(modified.min(now))).ok()
}

/// The ETag of these bytes: their hash and how many they are.
///
/// std's SipHash has fixed keys here, so that all workers, and a server that was started again, give the same
/// ETag. With 64 bits, two versions of a page are taken for the same once in 2^64 times. Somebody who knows
/// the keys can find two bodies with one hash. What he gains is that his own page, which he could write as he
/// likes, looks unchanged to those who have seen it. Another release of Rust may hash differently; then
/// clients fetch once more.
fn etag_of(bytes: &[u8]) -> HeaderValue {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(bytes);
    let etag = format!("\"{:016x}-{:x}\"", hasher.finish(), bytes.len());
    HeaderValue::try_from(etag).expect("hexadecimal digits within quotes")
}

/// An ETag: what stands within the quotes, and whether it is a weak one, which says only that two bodies are
/// as good as the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tag<'a> {
    text: &'a [u8],
    is_weak: bool,
}

impl Tag<'_> {
    /// Whether the bodies are the same, byte for byte.
    fn is_strongly(&self, other: &Tag<'_>) -> bool {
        !self.is_weak && !other.is_weak && self.text == other.text
    }

    /// Whether one body is as good as the other.
    fn is_weakly(&self, other: &Tag<'_>) -> bool {
        self.text == other.text
    }
}

/// The ETags of a list. A text may have commas within its quotes. From what is no ETag on, nothing is read.
fn tags(mut list: &[u8]) -> impl Iterator<Item = Tag<'_>> {
    std::iter::from_fn(move || {
        let is_between = |byte: &u8| [b' ', b'\t', b','].contains(byte);
        let begin = list.iter().position(|byte| !is_between(byte))?;
        let rest = &list[begin..];
        let quoted = rest.strip_prefix(b"W/").unwrap_or(rest);
        let is_weak = quoted.len() < rest.len();
        let text = quoted.strip_prefix(b"\"")?;
        let end = text.iter().position(|&byte| byte == b'"')?;
        list = &text[end + 1..];
        Some(Tag { text: &text[..end], is_weak })
    })
}

/// Whether `etag` is in the list of this header, which may come more than once; `*` stands for whatever there
/// is.
fn is_listed<'a>(
    asked: &'a HeaderMap,
    name: HeaderName,
    etag: Option<Tag<'a>>,
    is_same: fn(&Tag<'a>, &Tag<'a>) -> bool,
) -> bool {
    asked.get_all(name).iter().map(HeaderValue::as_bytes).any(|list| {
        list.trim_ascii() == b"*"
            || etag.is_some_and(|etag| tags(list).any(|theirs| is_same(&etag, &theirs)))
    })
}

/// The date in this header, if it has one, and only one.
fn date(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    let mut values = headers.get_all(name).into_iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    httpdate::parse_http_date(value.to_str().ok()?.trim()).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::http::response::Response;

    const EARLIER: &str = "Sat, 01 Jan 2000 00:00:00 GMT";
    const THEN: &str = "Sat, 01 Jan 2000 00:00:01 GMT";
    const LATER: &str = "Sat, 01 Jan 2000 00:00:02 GMT";

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    /// What there is: `"a,b"`, changed `THEN`.
    fn judge(asked: &[(&'static str, &str)]) -> Verdict {
        verdict(&headers(asked), &headers(&[("etag", "\"a,b\""), ("last-modified", THEN)]))
    }

    #[test]
    fn an_etag_goes_before_a_date_and_what_fails_before_what_saves_the_sending() {
        use Verdict::{Failed, NotModified, Send};
        let (same, other) = ("\"a,b\"", "\"c\"");
        let cases: &[(&[(&'static str, &str)], Verdict)] = &[
            (&[], Send),
            (&[("if-none-match", same)], NotModified),
            (&[("if-none-match", "W/\"a,b\"")], NotModified),
            (&[("if-none-match", "\"x\", W/\"y\",\t\"a,b\"")], NotModified),
            (&[("if-none-match", "\"x\""), ("if-none-match", same)], NotModified),
            (&[("if-none-match", " * ")], NotModified),
            (&[("if-none-match", other)], Send),
            (&[("if-none-match", "a,b")], Send),
            (&[("if-none-match", "\"a,b")], Send),
            (&[("if-none-match", "\"a\", \"b\"")], Send),
            (&[("if-none-match", "")], Send),
            (&[("if-none-match", other), ("if-modified-since", LATER)], Send),
            (&[("if-none-match", same), ("if-modified-since", EARLIER)], NotModified),
            (&[("if-modified-since", EARLIER)], Send),
            (&[("if-modified-since", THEN)], NotModified),
            (&[("if-modified-since", LATER)], NotModified),
            (&[("if-modified-since", "!nv@l!d")], Send),
            (&[("if-modified-since", "Fri, 01 Jan 1960 00:00:00 GMT")], Send),
            (&[("if-modified-since", LATER), ("if-modified-since", LATER)], Send),
            (&[("if-match", same)], Send),
            (&[("if-match", "*")], Send),
            (&[("if-match", "W/\"a,b\"")], Failed),
            (&[("if-match", other)], Failed),
            (&[("if-match", same), ("if-unmodified-since", EARLIER)], Send),
            (&[("if-match", other), ("if-none-match", same)], Failed),
            (&[("if-match", same), ("if-none-match", same)], NotModified),
            (&[("if-unmodified-since", EARLIER)], Failed),
            (&[("if-unmodified-since", THEN)], Send),
            (&[("if-unmodified-since", "soon")], Send),
        ];
        for (asked, expected) in cases {
            assert_eq!(judge(asked), *expected, "{asked:?}");
        }
    }

    #[test]
    fn a_part_is_sent_only_of_what_the_client_has_a_part_of() {
        let answer = headers(&[("etag", "\"a\""), ("last-modified", THEN)]);
        let cases = [
            ("\"a\"", true),
            ("\"b\"", false),
            ("W/\"a\"", false),
            (THEN, true),
            (EARLIER, false),
            (LATER, false),
            ("a", false),
            ("", false),
        ];
        assert!(allows_range(&HeaderMap::new(), &answer));
        for (condition, expected) in cases {
            let asked = headers(&[("if-range", condition)]);
            assert_eq!(allows_range(&asked, &answer), expected, "{condition}");
        }
        let weak = headers(&[("etag", "W/\"a\"")]);
        assert!(!allows_range(&headers(&[("if-range", "W/\"a\"")]), &weak));
    }

    fn answered(method: Method, asked: &[(&'static str, &str)], response: Response) -> Response {
        let mut response = response.into_inner();
        tag(&method, &mut response);
        unless_had(&method, &headers(asked), &mut response);
        response.into()
    }

    #[test]
    fn a_whole_body_has_an_etag_and_is_not_sent_to_who_has_it() {
        let etag = |text: &'static str| {
            let response = answered(Method::GET, &[], Response::text(text));
            assert_eq!(response.body().as_bytes().unwrap(), text);
            response.headers()["etag"].to_str().unwrap().to_owned()
        };
        assert!(etag("hello") == etag("hello") && etag("hello") != etag("Hello"));
        let hello = etag("hello");
        for method in [Method::GET, Method::HEAD] {
            let response = Response::text("hello")
                .with_header("content-language", "en")
                .with_header("cache-control", "max-age=7")
                .with_header("access-control-allow-origin", "*");
            let response = answered(method, &[("if-none-match", &hello)], response);
            assert_eq!(response.status(), 304);
            assert!(response.body().as_bytes().unwrap().is_empty());
            let mut names: Vec<_> = response.headers().keys().map(HeaderName::as_str).collect();
            names.sort_unstable();
            assert_eq!(names, ["access-control-allow-origin", "cache-control", "etag"]);
        }
    }

    #[test]
    fn what_is_no_whole_body_that_was_found_is_left_as_it_is() {
        let any = [("if-none-match", "*")];
        let stream =
            || Body::from_stream(futures::stream::empty::<Result<Vec<u8>, std::io::Error>>());
        let untouched = [
            answered(Method::POST, &any, Response::text("made")),
            answered(Method::GET, &any, Response::of_status(StatusCode::NOT_FOUND)),
            answered(Method::GET, &any, Response::new(stream())),
            answered(
                Method::HEAD,
                &any,
                Response::new(Body::empty()).with_header("content-length", "5"),
            ),
        ];
        for response in untouched {
            assert!(
                response.status() != 304 && !response.headers().contains_key("etag"),
                "{response:?}"
            );
        }
        // A handler that gives an ETag, or a date, itself is taken at its word.
        let own = || Response::new(stream()).with_header("etag", "\"own\"");
        assert_eq!(answered(Method::GET, &[("if-none-match", "\"own\"")], own()).status(), 304);
        assert_eq!(answered(Method::GET, &[("if-match", "\"other\"")], own()).status(), 412);
        let dated = Response::new(stream()).with_header("last-modified", THEN);
        assert_eq!(answered(Method::GET, &[("if-modified-since", THEN)], dated).status(), 304);
    }

    #[test]
    fn a_date_that_no_header_can_tell_is_left_out_and_one_to_come_is_now() {
        let year =
            |year: u64| UNIX_EPOCH + Duration::from_secs((year - 1970) * 31_556_952 + 86_400);
        let now = year(2000);
        let told = |modified, now| {
            last_modified(modified, now).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(told(UNIX_EPOCH, now).as_deref(), Some("Thu, 01 Jan 1970 00:00:00 GMT"));
        assert_eq!(told(UNIX_EPOCH - Duration::from_secs(1), now), None);
        assert_eq!(told(year(12_000), year(12_000)), None);
        assert_eq!(told(year(12_000), now), told(now, now));
    }
}
