//! How the examples take their arguments and report errors.

#![allow(dead_code, reason = "no example needs all of it")]

use std::fmt::Display;
use std::path::Path;
use std::process::exit;
use std::str::FromStr;

/// The arguments of the program: `None`, or as many as `usage` has words. With any other number, the program
/// prints its usage and exits.
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

/// Parses an argument, a port say. If that fails, the program prints its usage and exits.
pub fn parsed<T: FromStr>(argument: &str, what: &str, usage: &str) -> T {
    argument.parse().unwrap_or_else(|_| wrong(&format!("`{argument}` is no {what}"), usage))
}

/// Says what is wrong with the arguments, prints the usage and exits.
pub fn wrong(complaint: &str, usage: &str) -> ! {
    eprintln!("{0}: {complaint}\nusage: {0} [{usage}]", program());
    exit(2)
}

/// The value of an attempt to do `what`. If the attempt failed, the program prints the error and exits.
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
