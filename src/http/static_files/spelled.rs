//! The names that the path of a URI spells.
//!
//! A name is decoded once, after the path was taken apart at its slashes, and has to be one that a folder can
//! have in it. So whatever a path spells, it asks for something beneath the root, or is refused without a
//! look at the disk: `..` and `%2e%2e`, a slash or a backslash that is hidden in a name, a name that ends at
//! a NUL.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use percent_encoding::percent_decode_str;

use super::refused::Refused;

/// Longer paths than this (in bytes) no system takes.
const LONGEST: usize = 4096;

/// Which names `path` spells, from the root on. It may begin with a slash and end with one.
pub(super) fn spelled(path: &str, dot_files: bool) -> Result<Vec<OsString>, Refused> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let name = |raw: &str| {
        let name: Vec<u8> = percent_decode_str(raw).collect();
        let hides = name.iter().any(|byte| [b'/', b'\\', 0].contains(byte));
        match &*name {
            b"" => Err(Refused::NotFound),
            b"." | b".." => Err(Refused::Forbidden),
            [b'.', ..] if !dot_files => Err(Refused::Forbidden),
            _ if hides => Err(Refused::Forbidden),
            _ => Ok(OsString::from_vec(name)),
        }
    };
    let names: Vec<OsString> = path.split('/').map(name).collect::<Result<_, _>>()?;
    let length: usize = names.iter().map(|name| name.len() + 1).sum();
    if length > LONGEST { Err(Refused::NotFound) } else { Ok(names) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn whatever_is_put_together_spells_names_that_a_folder_can_have_or_nothing() {
        const PIECES: [&str; 10] = [".", "/", "\\", "%2e", "%2F", "%5c", "%00", "%25", "2f", "a"];
        let mut accepted = 0;
        for number in 0..PIECES.len().pow(5) {
            let digits = (0..5).map(|place| number / PIECES.len().pow(place) % PIECES.len());
            let path: String = digits.map(|digit| PIECES[digit]).collect();
            for dot_files in [false, true] {
                let Ok(names) = spelled(&path, dot_files) else { continue };
                accepted += 1;
                for name in &names {
                    let name = name.as_bytes();
                    let is_good = !name.is_empty()
                        && name != b"."
                        && name != b".."
                        && !name.iter().any(|byte| b"/\\\0".contains(byte))
                        && (dot_files || name[0] != b'.');
                    assert!(is_good, "{path:?} spells {names:?}");
                }
            }
        }
        assert!(accepted > 1000, "{accepted}");
    }

    #[test]
    fn a_name_is_what_is_left_after_decoding_once() {
        let names = |path| spelled(path, false).unwrap().join(std::ffi::OsStr::new("|"));
        assert_eq!(names("/a/b%20c/"), "a|b c");
        assert_eq!(names("a%252f%252e%252e"), "a%2f%2e%2e");
        assert_eq!(names("/100%/%zz/%4"), "100%|%zz|%4");
        assert_eq!((names(""), names("/")), ("".into(), "".into()));
    }
}
