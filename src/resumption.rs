//! What a resumption has: a budget, and a place where it waits.
//!
//! Awaiting what is ready does not go through the loop, so a coroutine whose sockets, locks and
//! queues are always ready would never give way. Each operation of theirs spends one unit of a
//! budget that is fresh with every resumption; without any left, the operation is pending although
//! it could go on, and its task is woken *when the resumption has ended*. Not before: a combinator
//! that polls again whatever was woken would spin. A coroutine that is started within a resumption
//! spends of the same budget, or starting one after the other would be a way around it.
//!
//! What is about to wait notes the place of its `.await`, and whoever resumed it finds it here.
//!
//! Outside of a resumption, under somebody else's executor, there is no budget.

use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::task::{Context, Poll, Waker};

/// Operations for one resumption. (tokio's is 128, too.)
const FULL: u32 = 128;
/// Outside of any resumption.
const UNLIMITED: u32 = u32::MAX;

type Place = Option<&'static Location<'static>>;

thread_local! {
    static LEFT: Cell<u32> = const { Cell::new(UNLIMITED) };
    static WAITS_AT: Cell<Place> = const { Cell::new(None) };
    /// Whether anybody ran out...
    static IS_DEFERRED: Cell<bool> = const { Cell::new(false) };
    /// ...and who.
    static DEFERRED: RefCell<Vec<Waker>> = const { RefCell::new(Vec::new()) };
}

/// A resumption begins, with a fresh budget.
pub(crate) fn begin() {
    LEFT.set(FULL);
    WAITS_AT.set(None);
}

/// The last of several resumptions has ended.
pub(crate) fn end() {
    LEFT.set(UNLIMITED);
}

/// A resumption within another, or within none; that goes on when this is dropped.
pub(crate) struct Nested {
    left: u32,
    waits_at: Place,
}

#[inline]
pub(crate) fn nested() -> Nested {
    let left = LEFT.get();
    LEFT.set(left.min(FULL));
    Nested { left, waits_at: WAITS_AT.replace(None) }
}

impl Drop for Nested {
    #[inline]
    fn drop(&mut self) {
        // A loop that has run within has given out other budgets: none of that was for this one.
        LEFT.set(if self.left == UNLIMITED { UNLIMITED } else { self.left.min(LEFT.get()) });
        WAITS_AT.set(self.waits_at);
    }
}

/// A full budget for a task of bounded length that must not give way, until this is dropped.
pub(crate) struct Fresh(u32);

pub(crate) fn fresh() -> Fresh {
    Fresh(LEFT.replace(FULL))
}

impl Drop for Fresh {
    fn drop(&mut self) {
        LEFT.set(self.0);
    }
}

/// Notes where the resumption is about to wait.
pub(crate) fn waits_at(place: &'static Location<'static>) {
    WAITS_AT.set(Some(place));
}

/// Where it waits, if that was noted.
#[inline]
pub(crate) fn place() -> Place {
    WAITS_AT.get()
}

/// Spends one unit, if there is one.
#[inline]
pub(crate) fn spend() -> bool {
    match LEFT.get() {
        0 => return false,
        UNLIMITED => {}
        left => LEFT.set(left - 1),
    }
    true
}

/// Spends one unit; pending if there is none.
#[inline]
pub(crate) fn poll_proceed(cx: &Context<'_>) -> Poll<()> {
    if spend() {
        return Poll::Ready(());
    }
    defer(cx.waker().clone());
    Poll::Pending
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

    fn spend(n: u32) -> bool {
        (0..n).all(|_| poll_proceed(&Context::from_waker(Waker::noop())).is_ready())
    }

    #[test]
    fn a_budget_is_spent_and_the_waker_is_kept_for_later() {
        assert!(spend(1000));
        begin();
        assert!(spend(FULL) && !is_deferred());
        assert!(!spend(1) && is_deferred());
        assert_eq!(take_deferred().len(), 1);
        begin();
        assert!(spend(1) && !is_deferred());
        end();
        assert!(spend(1000));
    }

    #[test]
    fn a_nested_resumption_spends_of_the_same_budget_and_has_its_own_place() {
        begin();
        let here = Location::caller();
        waits_at(here);
        {
            let _nested = nested();
            assert!(place().is_none() && spend(FULL) && !spend(1));
            waits_at(Location::caller());
        }
        assert!(place() == Some(here) && !spend(1));
        end();
        {
            let _nested = nested();
            assert!(spend(FULL) && !spend(1));
        }
        assert!(spend(1000));
        take_deferred();
    }
}
