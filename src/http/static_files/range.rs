//! `Range`: which part of a file is asked for, by Tornado's rules.

use ::http::{HeaderMap, header};

/// What is to be sent of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    /// From the first of these bytes up to, and without, the second: at least one, and not all.
    Some(u64, u64),
    /// What was asked for is not there.
    Unsatisfiable,
}

/// Which part of a file of `size` bytes is asked for.
///
/// As in Tornado, what is no range, is one of another unit, or is several ranges, asks for the whole. (An
/// answer of several parts would let a client have the same bytes over and over for one request.) So does a
/// range of all bytes: Chrome refuses to play audio that comes as `206 Partial Content` then.
pub(super) fn part(asked: &HeaderMap, size: u64) -> Part {
    let mut ranges = asked.get_all(header::RANGE).into_iter();
    let (Some(range), None) = (ranges.next(), ranges.next()) else { return Part::Whole };
    let Some((first, last)) = range.to_str().ok().and_then(bounds) else { return Part::Whole };
    let (begin, end) = match (first, last) {
        (None, None) => return Part::Whole,
        // The last so many bytes.
        (None, Some(0)) => return Part::Unsatisfiable,
        (None, Some(length)) => (size.saturating_sub(length), size),
        (Some(first), None) => (first, size),
        (Some(first), Some(last)) => (first, last.saturating_add(1).min(size)),
    };
    if begin >= end {
        Part::Unsatisfiable
    } else if (begin, end) == (0, size) {
        Part::Whole
    } else {
        Part::Some(begin, end)
    }
}

/// The two numbers of `bytes=FIRST-LAST`, either of which may be missing; `None` if it is something else.
/// Tornado takes `bytes=FIRST` for `bytes=FIRST-`.
fn bounds(range: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (unit, range) = range.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.split_once('-').unwrap_or((range, ""));
    Some((number(first)?, number(last)?))
}

/// A number, which may be missing. One that is too large for any file is the largest there is.
fn number(digits: &str) -> Option<Option<u64>> {
    let digits = digits.trim();
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(if digits.is_empty() { None } else { Some(digits.parse().unwrap_or(u64::MAX)) })
}

#[cfg(test)]
mod tests {
    use ::http::HeaderValue;

    use super::*;

    fn asked(ranges: &[&str]) -> HeaderMap {
        let mut asked = HeaderMap::new();
        for range in ranges {
            asked.append(header::RANGE, HeaderValue::from_str(range).unwrap());
        }
        asked
    }

    #[test]
    fn a_range_is_read_by_tornados_rules() {
        use Part::{Some, Unsatisfiable, Whole};
        let cases = [
            ("bytes=0-9", Some(0, 10)),
            ("bytes=0-0", Some(0, 1)),
            ("bytes=22-", Some(22, 26)),
            ("bytes=25-25", Some(25, 26)),
            ("bytes=1-10000000", Some(1, 26)),
            ("bytes=-4", Some(22, 26)),
            ("bytes=5", Some(5, 26)),
            (" bytes = 1 - 2 ", Some(1, 3)),
            ("Bytes=1-2", Some(1, 3)),
            ("bytes=0-", Whole),
            ("bytes=0-25", Whole),
            ("bytes=0-10000000", Whole),
            ("bytes=-26", Whole),
            ("bytes=-1000000", Whole),
            ("bytes=0-99999999999999999999999999", Whole),
            ("bytes=0-18446744073709551615", Whole),
            ("bytes=", Whole),
            ("bytes=-", Whole),
            ("asdf", Whole),
            ("", Whole),
            ("lines=1-2", Whole),
            ("bytes=1-2,4-5", Whole),
            ("bytes=1-2-3", Whole),
            ("bytes=--5", Whole),
            ("bytes=+1-2", Whole),
            ("bytes=1_0-", Whole),
            ("bytes=0x1-", Whole),
            ("bytes=a-b", Whole),
            ("bytes=-0", Unsatisfiable),
            ("bytes=26", Unsatisfiable),
            ("bytes=26-", Unsatisfiable),
            ("bytes=26-30", Unsatisfiable),
            ("bytes=10-3", Unsatisfiable),
            ("bytes=99999999999999999999999999-", Unsatisfiable),
        ];
        for (range, expected) in cases {
            assert_eq!(part(&asked(&[range]), 26), expected, "{range:?}");
        }
        assert_eq!(part(&HeaderMap::new(), 26), Whole);
        assert_eq!(part(&asked(&["bytes=1-2", "bytes=4-5"]), 26), Whole);
        for range in ["bytes=0-", "bytes=-5", "bytes=0-0"] {
            assert_eq!(part(&asked(&[range]), 0), Unsatisfiable, "{range:?} of nothing");
        }
    }

    #[test]
    fn every_part_lies_within_the_file_and_is_what_was_asked_for() {
        let numbers = [None].into_iter().chain((0..12).map(Option::Some));
        for size in 0..10u64 {
            for first in numbers.clone() {
                for last in numbers.clone() {
                    let text = |bound: Option<u64>| bound.map_or(String::new(), |n| n.to_string());
                    let range = format!("bytes={}-{}", text(first), text(last));
                    let wanted: Vec<u64> = match (first, last) {
                        (None, None) => (0..size).collect(),
                        (None, Some(length)) => (size.saturating_sub(length)..size).collect(),
                        (Some(first), last) => (0..size)
                            .filter(|n| *n >= first && last.is_none_or(|last| *n <= last))
                            .collect(),
                    };
                    let got: Vec<u64> = match part(&asked(&[&range]), size) {
                        Part::Whole => (0..size).collect(),
                        Part::Some(begin, end) => (begin..end).collect(),
                        Part::Unsatisfiable => Vec::new(),
                    };
                    assert_eq!(got, wanted, "{range} of {size}");
                }
            }
        }
    }
}
