//! How the examples take their arguments, and say what is wrong.

#![allow(dead_code, reason = "no example needs all of it")]

use std::fmt::Display;
use std::path::Path;
use std::process::exit;
use std::str::FromStr;

/// The arguments: none, or as many as the words of `usage`. With others the program ends, and says how
/// it is used.
pub fn arguments(usage: &str) -> Option<Vec<String>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.len() {
        0 => None,
        n if n == usage.split_whitespace().count() && !arguments[0].starts_with('-') => {
            Some(arguments)
        }
        _ => wrong("these arguments are not known here", usage),
    }
}

/// An argument that is no text: a port, say.
pub fn parsed<T: FromStr>(argument: &str, what: &str, usage: &str) -> T {
    argument.parse().unwrap_or_else(|_| wrong(&format!("`{argument}` is no {what}"), usage))
}

fn wrong(complaint: &str, usage: &str) -> ! {
    eprintln!("{0}: {complaint}\nusage: {0} [{usage}]", program());
    exit(2)
}

/// What came of the attempt to do `what`; if nothing did, the program ends with a sentence.
pub fn or_explain<T, E: Display>(result: Result<T, E>, what: &str) -> T {
    result.unwrap_or_else(|error| {
        eprintln!("{}: cannot {what}: {error}", program());
        exit(1)
    })
}

fn program() -> String {
    let path = std::env::args().next().unwrap_or_default();
    Path::new(&path).file_name().unwrap_or_default().to_string_lossy().into_owned()
}
