//! What `stream_suite` and `lock_suite` share. A check is a coroutine with a name, which gives a message if
//! something is wrong.

use std::future::poll_fn;
use std::panic::Location;
use std::task::{Context, Poll};

use crate::coroutine::{moment, spawn_named};

/// The result of a check: what is wrong, if something is.
pub(super) type Checked = Result<(), String>;

/// Runs a check as a coroutine of that name. If it hangs, the name is in the list of coroutines that are
/// stuck.
pub(super) async fn run(
    name: &'static str,
    called_at: &'static Location<'static>,
    check: impl Future<Output = Checked> + 'static,
) {
    if let Err(wrong) = spawn_named(name, check).await {
        panic!("{name}: {wrong} (called at {called_at})");
    }
}

pub(super) fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(otherwise()) }
}

pub(super) async fn poll_once<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    poll_fn(|cx| Poll::Ready(poll(cx))).await
}

/// Lets everything that is ready run, for 200 turns of the loop. `moment` makes the loop look at its
/// sockets in each of them.
pub(super) async fn settle() {
    for _ in 0..200 {
        moment().await;
    }
}
