//! `Message`: a request as it is sent, and what becomes of it when a server sends it elsewhere.

use ::http::{Extensions, HeaderMap, Method, StatusCode, header};
use url::Url;

use super::basic::{strip_userinfo, take_userinfo};
use super::error::FetchError;
use crate::http::body::Body;

/// A request. Its URL has neither a name nor a password: these are in its headers.
pub(super) struct Message {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) extensions: Extensions,
    pub(super) body: Body,
}

/// Reads the URL of something that can be fetched.
fn read_url(text: &str) -> Result<Url, FetchError> {
    let url = Url::parse(text).map_err(|error| {
        // Before an `@` there may be a password.
        let shown = text.rsplit('@').next().unwrap_or_default();
        FetchError::Invalid(format!("{shown:?} is no URL: {error}"))
    })?;
    fetchable(url)
}

fn fetchable(mut url: Url) -> Result<Url, FetchError> {
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        strip_userinfo(&mut url);
        let message = format!("{url} cannot be fetched: it is no URL of http or https");
        return Err(FetchError::Invalid(message));
    }
    Ok(url)
}

/// What only the origin may know that it was meant for.
const SECRETS: [header::HeaderName; 3] =
    [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION];

/// What says something of a body.
const ABOUT_BODIES: [header::HeaderName; 6] = [
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::TRANSFER_ENCODING,
    header::EXPECT,
];

/// Where a server sends a request, if what it answers is a redirection: `301`, `302`, `303`, `307` or `308`
/// with a `Location`.
pub(super) fn location(status: StatusCode, headers: &HeaderMap) -> Option<&[u8]> {
    let redirects = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
    headers.get(header::LOCATION).filter(|_| redirects).map(|location| location.as_bytes())
}

impl Message {
    /// A request whose URL may have a name and a password in it. A header says more than these.
    pub(super) fn new(
        method: Method,
        url: &str,
        mut headers: HeaderMap,
        body: Body,
    ) -> Result<Message, FetchError> {
        let mut url = read_url(url)?;
        if let Some(authorization) = take_userinfo(&mut url) {
            headers.entry(header::AUTHORIZATION).or_insert(authorization);
        }
        Ok(Message { method, url, headers, extensions: Extensions::new(), body })
    }

    /// The request that a server asks for by a redirection. As Tornado and as browsers:
    ///
    /// * After `303`, and after `301` or `302` of a `POST`, it is a `GET` without a body. (A `HEAD` stays one.)
    /// * At another origin, it has no `Authorization`, no `Cookie` and no `Proxy-Authorization`, and a name and
    ///   a password in the URL do not count.
    /// * `Host` is that of the new URL.
    ///
    /// `body` is what was sent, if it can be sent once more. `None` if it is needed, and cannot.
    pub(super) fn redirected(
        &self,
        status: StatusCode,
        location: &[u8],
        body: Option<Body>,
    ) -> Result<Option<Message>, FetchError> {
        let no_url = |why: &dyn std::fmt::Display| {
            FetchError::Invalid(format!("{} redirects to what is no URL: {why}", self.url))
        };
        let text = std::str::from_utf8(location).map_err(|error| no_url(&error))?;
        let mut url = fetchable(self.url.join(text).map_err(|error| no_url(&error))?)?;
        let mut headers = self.headers.clone();
        headers.remove(header::HOST);
        if url.origin() != self.url.origin() {
            strip_userinfo(&mut url);
            for secret in SECRETS {
                headers.remove(secret);
            }
        } else if let Some(authorization) = take_userinfo(&mut url) {
            headers.insert(header::AUTHORIZATION, authorization);
        }
        let becomes_get = match status {
            StatusCode::SEE_OTHER => self.method != Method::HEAD,
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => self.method == Method::POST,
            _ => false,
        };
        let (method, body) = if becomes_get {
            for about in ABOUT_BODIES {
                headers.remove(about);
            }
            (Method::GET, Body::empty())
        } else {
            let Some(body) = body else { return Ok(None) };
            (self.method.clone(), body)
        };
        let extensions = self.extensions.clone();
        Ok(Some(Message { method, url, headers, extensions, body }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(method: Method) -> Message {
        let mut headers = HeaderMap::new();
        let names = ["host", "authorization", "cookie", "proxy-authorization", "content-type", "x"];
        for name in names {
            headers.insert(name, "told".parse().unwrap());
        }
        let url = Url::parse("http://host/a/b?c").unwrap();
        Message { method, url, headers, extensions: Extensions::new(), body: Body::empty() }
    }

    /// The method and the URL after a redirection, and the headers that are left.
    fn after(method: Method, status: u16, to: &str) -> (Method, String, Vec<String>) {
        let status = StatusCode::from_u16(status).unwrap();
        let body = Some(Body::empty());
        let next = message(method).redirected(status, to.as_bytes(), body).unwrap().unwrap();
        let mut names: Vec<_> = next.headers.keys().map(ToString::to_string).collect();
        names.sort_unstable();
        (next.method, next.url.to_string(), names)
    }

    #[test]
    fn see_other_is_got_and_so_is_what_was_posted() {
        let table = [
            (Method::POST, 301, Method::GET),
            (Method::POST, 302, Method::GET),
            (Method::POST, 303, Method::GET),
            (Method::POST, 307, Method::POST),
            (Method::POST, 308, Method::POST),
            (Method::PUT, 301, Method::PUT),
            (Method::PUT, 302, Method::PUT),
            (Method::PUT, 303, Method::GET),
            (Method::PUT, 307, Method::PUT),
            (Method::DELETE, 302, Method::DELETE),
            (Method::DELETE, 303, Method::GET),
            (Method::HEAD, 302, Method::HEAD),
            (Method::HEAD, 303, Method::HEAD),
        ];
        for (before, status, expected) in table {
            let (method, _, names) = after(before.clone(), status, "/");
            assert_eq!(method, expected, "{before} {status}");
            let keeps_type = names.contains(&"content-type".to_owned());
            assert_eq!(keeps_type, method == before, "{before} {status}");
        }
    }

    #[test]
    fn secrets_stay_at_their_origin() {
        let (_, url, names) = after(Method::GET, 302, "/d");
        assert_eq!(url, "http://host/d");
        assert_eq!(names, ["authorization", "content-type", "cookie", "proxy-authorization", "x"]);
        let elsewhere = [
            "http://other/",
            "//other",
            "https://host/",
            "http://host:8080/",
            "http://me:secret@other/",
            "http://host@other/",
        ];
        for to in elsewhere {
            let (_, url, names) = after(Method::GET, 302, to);
            assert_eq!(names, ["content-type", "x"], "{to}");
            assert!(!url.contains('@'));
        }
        assert_eq!(after(Method::GET, 302, "http://HOST:80/").2.len(), 5);
    }

    #[test]
    fn a_name_in_the_url_counts_at_the_same_origin() {
        let status = StatusCode::FOUND;
        let next =
            message(Method::GET).redirected(status, b"http://u:p@host/", Some(Body::empty()));
        let next = next.unwrap().unwrap();
        assert_eq!(next.headers["authorization"], "Basic dTpw");
        assert_eq!(next.url.as_str(), "http://host/");
    }

    #[test]
    fn nobody_is_sent_to_what_is_no_url_of_http() {
        for to in
            ["file:///etc/passwd", "http://", "http://[::1", "mailto:x", "ftp://host/", "data:x"]
        {
            let body = Some(Body::empty());
            let error = message(Method::GET).redirected(StatusCode::FOUND, to.as_bytes(), body);
            assert!(matches!(error, Err(FetchError::Invalid(_))), "{to}");
        }
        let body = Some(Body::empty());
        let error = message(Method::GET).redirected(StatusCode::FOUND, b"/\xff", body);
        assert!(matches!(error, Err(FetchError::Invalid(_))));
    }

    #[test]
    fn what_cannot_be_sent_once_more_is_not_redirected() {
        let redirected =
            |status| message(Method::POST).redirected(status, b"/", None).unwrap().is_some();
        assert!(!redirected(StatusCode::TEMPORARY_REDIRECT));
        assert!(redirected(StatusCode::FOUND), "it goes without the body");
    }
}
