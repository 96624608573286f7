//! `Accept-Encoding`: which compressed form of an answer a client would take.

use ::http::{HeaderMap, header};

/// Those of the codings `offered` that the client takes, and likes no less than what is not compressed: the
/// best liked first, and of those that it likes equally, the one that is offered first.
pub(super) fn accepted<'a>(asked: &HeaderMap, offered: &[&'a str]) -> Vec<&'a str> {
    let lists = asked.get_all(header::ACCEPT_ENCODING).into_iter();
    let liked: Vec<(&str, u16)> = lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','))
        .map(|member| {
            let (coding, parameters) = member.split_once(';').unwrap_or((member, ""));
            (coding.trim(), quality(parameters))
        })
        .collect();
    let find = |name: &str| liked.iter().find(|(coding, _)| coding.eq_ignore_ascii_case(name));
    let plain = find("identity").map_or(0, |(_, quality)| *quality);
    let mut accepted: Vec<(&str, u16)> = offered
        .iter()
        .filter_map(|coding| {
            // The name that gzip had in HTTP/1.0.
            let old = if *coding == "gzip" { find("x-gzip") } else { None };
            let (_, quality) = find(coding).or(old).or_else(|| find("*"))?;
            (*quality > 0 && *quality >= plain).then_some((*coding, *quality))
        })
        .collect();
    // This keeps the order of those that are equal.
    accepted.sort_by_key(|(_, quality)| std::cmp::Reverse(*quality));
    accepted.into_iter().map(|(coding, _)| coding).collect()
}

/// How much something is liked, in thousandths: all of them if nothing is said of that, or nothing that can be
/// understood.
fn quality(parameters: &str) -> u16 {
    for parameter in parameters.split(';') {
        let Some((name, value)) = parameter.split_once('=') else { continue };
        if name.trim().eq_ignore_ascii_case("q") {
            let value = value.trim().parse::<f32>().ok();
            let value = value.filter(|value| (0.0..=1.0).contains(value));
            return value.map_or(1000, |value| (value * 1000.0) as u16);
        }
    }
    1000
}

#[cfg(test)]
mod tests {
    use ::http::HeaderValue;

    use super::*;

    #[test]
    fn what_is_liked_best_comes_first_and_what_is_not_taken_is_left_out() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            ("gzip", &["gzip"]),
            ("gzip, br", &["br", "gzip"]),
            ("gzip;q=1.0, br;q=0.9", &["gzip", "br"]),
            ("br;q=0, gzip", &["gzip"]),
            ("BR ; Q=0.5,\tGZIP ; q=0.5", &["br", "gzip"]),
            ("x-gzip", &["gzip"]),
            ("*", &["br", "gzip"]),
            ("*;q=0, gzip", &["gzip"]),
            ("br;q=0, *;q=0.1", &["gzip"]),
            ("identity, gzip;q=0.5", &[]),
            ("identity;q=0.5, gzip;q=0.5, br;q=0.4", &["gzip"]),
            ("identity;q=0", &[]),
            ("deflate, compress", &[]),
            ("gzip;q=nan, br;q=0.5", &["gzip", "br"]),
            ("gzip;q=0.5, br;q=-1", &["br", "gzip"]),
            ("gzip;level=9, br;q", &["br", "gzip"]),
            ("gzipped, ;q=1, ,", &[]),
        ];
        for (list, expected) in cases {
            let mut asked = HeaderMap::new();
            asked.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(list));
            assert_eq!(accepted(&asked, &["br", "gzip"]), *expected, "{list}");
        }
        assert!(accepted(&HeaderMap::new(), &["br", "gzip"]).is_empty());
    }
}
