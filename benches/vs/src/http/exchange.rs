//! The request that the loads send, and what its answer has to be.

pub const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";

/// Whether this is the whole answer; `None` if it cannot become a right one, which is a 200 with the length
/// and the bytes of the body.
pub fn is_answer(bytes: &[u8]) -> Option<bool> {
    let Some(end) = bytes.windows(4).position(|end| end == b"\r\n\r\n") else {
        return (bytes.len() < 4096).then_some(false);
    };
    let (head, body) = (std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 4..]);
    let mut lines = head.split("\r\n");
    let is_ok = lines.next()?.starts_with("HTTP/1.1 200 ");
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse())
    });
    let is_right = is_ok && length? == Ok(super::BODY.len());
    (is_right && super::BODY.as_bytes().starts_with(body))
        .then_some(body.len() == super::BODY.len())
}
