//! What the suites share: a check is a coroutine with a name, and says what is wrong.

use std::future::poll_fn;
use std::panic::Location;
use std::task::{Context, Poll};

use crate::coroutine::{moment, spawn_named};

/// What a check has found.
pub(super) type Checked = Result<(), String>;

/// Runs a check as a coroutine that bears its name: one that hangs is listed by it.
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

/// Lets everything that is ready run. While that is so, the loop looks at the sockets only now and
/// then, but within 64 entries of its queue.
pub(super) async fn settle() {
    for _ in 0..200 {
        moment().await;
    }
}
