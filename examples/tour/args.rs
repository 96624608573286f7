//! The command line of the tour.

use std::ffi::OsString;

/// What is printed after a wrong argument.
pub const USAGE: &str = "usage: tour [--clients N] [--messages M] [--seconds S] [--help]";

pub const HELP: &str = "\
An echo server and many clients on one loop; every byte that comes back is checked.

usage: tour [--clients N] [--messages M] [--seconds S] [--help]

  --clients N    how many clients talk at the same time: 1 to 20000, by default 1000
  --messages M   how many messages each of them sends: 1 to 1000000000, by default 100,
                 or as many as there is time for with --seconds
  --seconds S    begin no message after S seconds: 1 to 86400, by default no limit
  --help         this text

The exit status is 0 if nothing was lost or wrong, 1 otherwise, and 2 if the tour could
not begin: wrong arguments, or fewer open files allowed than it needs.
";

// Each client takes one of the ports that the system hands out, some 28,000 on Linux, and keeps it for a
// minute after its connection was closed.
const MAX_CLIENTS: u64 = 20_000;
const MAX_MESSAGES: u64 = 1_000_000_000;
const MAX_SECONDS: u64 = 24 * 3600;

#[derive(Clone, Copy)]
pub struct Args {
    pub clients: u64,
    /// How many messages each client sends; `None` means as many as there is time for.
    pub messages: Option<u64>,
    pub seconds: Option<u64>,
}

pub enum Asked {
    Tour(Args),
    Help,
}

/// Reads the arguments; an error is a sentence about the one that is wrong.
pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Asked, String> {
    let mut arguments = arguments.map(|argument| argument.to_string_lossy().into_owned());
    let (mut clients, mut messages, mut seconds) = (1_000, None, None);
    while let Some(argument) = arguments.next() {
        let (option, value) = match argument.split_once('=') {
            Some((option, value)) => (option, Some(value.to_owned())),
            None => (argument.as_str(), None),
        };
        let mut number = |max| {
            let value = value.clone().or_else(|| arguments.next());
            number(option, value, max)
        };
        match option {
            "--clients" => clients = number(MAX_CLIENTS)?,
            "--messages" => messages = Some(number(MAX_MESSAGES)?),
            "--seconds" => seconds = Some(number(MAX_SECONDS)?),
            "--help" | "-h" => return Ok(Asked::Help),
            _ => return Err(format!("there is no option `{argument}`")),
        }
    }
    let default = if seconds.is_none() { Some(100) } else { None };
    Ok(Asked::Tour(Args { clients, messages: messages.or(default), seconds }))
}

fn number(option: &str, value: Option<String>, max: u64) -> Result<u64, String> {
    let value = value.ok_or_else(|| format!("{option} needs a number after it"))?;
    match value.parse() {
        Ok(number) if (1..=max).contains(&number) => Ok(number),
        _ => Err(format!("{option} takes a number from 1 to {max}, not `{value}`")),
    }
}
