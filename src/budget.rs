//! How much a coroutine may do before it has to let the others run.
//!
//! Awaiting what is ready does not go through the loop, so a coroutine whose sockets, locks and
//! queues are always ready would never give way. Each operation of theirs spends one unit of a
//! budget that is fresh with every resumption; without any left, the operation is pending although
//! it could go on, and its task is woken *when the resumption has ended*. Not before: a combinator
//! that polls again whatever was woken would spin.
//!
//! Outside of a resumption, under somebody else's executor, there is no budget.

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll, Waker};

/// Operations for one resumption. (tokio's is 128, too.)
const FULL: u32 = 128;
/// Outside of any resumption.
const UNLIMITED: u32 = u32::MAX;

thread_local! {
    static LEFT: Cell<u32> = const { Cell::new(UNLIMITED) };
    /// Whether anybody ran out...
    static IS_DEFERRED: Cell<bool> = const { Cell::new(false) };
    /// ...and who.
    static DEFERRED: RefCell<Vec<Waker>> = const { RefCell::new(Vec::new()) };
}

/// A fresh budget until it is dropped; then the one before goes on.
pub(crate) struct Fresh(u32);

pub(crate) fn fresh() -> Fresh {
    Fresh(LEFT.replace(FULL))
}

impl Drop for Fresh {
    fn drop(&mut self) {
        LEFT.set(self.0);
    }
}

/// Spends one unit; pending if there is none.
pub(crate) fn poll_proceed(cx: &Context<'_>) -> Poll<()> {
    match LEFT.get() {
        UNLIMITED => Poll::Ready(()),
        0 => {
            defer(cx.waker().clone());
            Poll::Pending
        }
        left => {
            LEFT.set(left - 1);
            Poll::Ready(())
        }
    }
}

/// Wakes when the resumptions of this turn have ended. (A thread that is ending has no more turns.)
pub(crate) fn defer(waker: Waker) {
    let _ = DEFERRED.try_with(|deferred| deferred.borrow_mut().push(waker));
    IS_DEFERRED.set(true);
}

/// Whether there is anyone to wake.
pub(crate) fn is_deferred() -> bool {
    IS_DEFERRED.get()
}

/// Those to wake now that the resumptions have ended.
pub(crate) fn take_deferred() -> Vec<Waker> {
    IS_DEFERRED.set(false);
    DEFERRED.try_with(RefCell::take).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_and_the_waker_is_kept_for_later() {
        let cx = Context::from_waker(Waker::noop());
        assert!((0..1000).all(|_| poll_proceed(&cx).is_ready()));
        let outer = fresh();
        assert!(poll_proceed(&cx).is_ready());
        {
            let _inner = fresh();
            assert!((0..FULL).all(|_| poll_proceed(&cx).is_ready()));
            assert!(poll_proceed(&cx).is_pending());
            assert_eq!(take_deferred().len(), 1);
        }
        assert!((1..FULL).all(|_| poll_proceed(&cx).is_ready()));
        assert!(poll_proceed(&cx).is_pending());
        drop(outer);
        assert!(poll_proceed(&cx).is_ready());
        assert_eq!(take_deferred().len(), 1);
    }
}
