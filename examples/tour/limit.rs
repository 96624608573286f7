//! The limit on open files, which is the first limit that a program with many connections meets.
//!
//! There are two limits. The soft limit is the one that counts, and a process may raise it up to the hard
//! limit. Shells often start programs with a soft limit of 1,024 or 256, and a hard limit far above.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Each connection has two ends, and both are in this process.
const PER_CLIENT: u64 = 2;
/// Files that are no connections: standard streams, listener, selector and the like, and inherited ones.
const OTHERS: u64 = 32;

/// Raises the limit, if need be, so that this many clients can connect. The error tells the user what to do.
pub fn allow_open_files(clients: u64) -> Result<(), String> {
    let needed = PER_CLIENT * clients + OTHERS;
    let limit = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= needed);
    if enough(limit.current) {
        return Ok(());
    }
    let raised = Rlimit { current: Some(needed), maximum: limit.maximum };
    if enough(limit.maximum) && setrlimit(Resource::Nofile, raised).is_ok() {
        return Ok(());
    }
    let allowed = if enough(limit.maximum) { limit.current } else { limit.maximum };
    let allowed = allowed.unwrap_or_default();
    let mut advice = format!("raise the limit (`ulimit -n {needed}`)");
    let fewer = allowed.saturating_sub(OTHERS) / PER_CLIENT;
    if 0 < fewer && fewer < clients {
        advice += &format!(", or take fewer clients (`--clients {fewer}`)");
    }
    Err(format!(
        "{clients} clients need {needed} open files, and only {allowed} are allowed: {advice}"
    ))
}
