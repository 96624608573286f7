//! `Authorization: Basic`: a name and a password as a header, and out of a URL.

use std::borrow::Cow;

use ::http::HeaderValue;
use percent_encoding::percent_decode_str;
use url::Url;

/// The header's value for a name and a password, in UTF-8.
pub(super) fn basic(name: &[u8], password: &[u8]) -> Option<HeaderValue> {
    let both = [name, b":", password].concat();
    let mut value = HeaderValue::try_from(format!("Basic {}", base64(&both))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Takes name and password out of a URL; the header's value for them, if there are any.
pub(super) fn take_userinfo(url: &mut Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let decoded = |text| Cow::from(percent_decode_str(text));
    let value = basic(&decoded(url.username()), &decoded(url.password().unwrap_or_default()));
    strip_userinfo(url);
    value
}

/// Takes name and password out of a URL.
pub(super) fn strip_userinfo(url: &mut Url) {
    // These fail only for URLs without a host, which have no name and no password.
    let _ = url.set_username("");
    let _ = url.set_password(None);
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |n: usize| u32::from(three.get(n).copied().unwrap_or(0));
        let all = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let shown = digit <= three.len();
            let digit = DIGITS[(all >> (18 - 6 * digit)) as usize & 63];
            text.push(if shown { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        let pairs = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (bytes, text) in pairs {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xbf]), "+/+/");
    }

    #[test]
    fn a_name_and_a_password_leave_the_url() {
        let mut url = Url::parse("http://J%C3%B6:p%3Aw@host/path").unwrap();
        assert_eq!(take_userinfo(&mut url).unwrap(), basic("Jö".as_bytes(), b"p:w").unwrap());
        assert_eq!(url.as_str(), "http://host/path");
        assert_eq!(take_userinfo(&mut url), None);
    }
}
