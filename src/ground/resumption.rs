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
//! Who polls by another waker than a coroutine's is a combinator (`FuturesUnordered`), or blocks until
//! it is done (`futures::executor::block_on`), and then the resumption does not end before that. Both
//! look the same. So such a waker is woken at once for a few times, on which good combinators give
//! way. Then it waits for the end of the resumption, too, on which the others do; and if that has not
//! come after a millisecond, somebody blocks: a thread wakes the waker, and it gets a fresh budget.
//!
//! Outside of a resumption, under somebody else's executor, there is no budget.

use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use futures::future::FusedFuture;
use pin_project_lite::pin_project;

use super::waker::word_of;
use super::{foreign, report};

/// Operations for one resumption. (tokio's is 128, too.)
const FULL: u32 = 128;
/// Outside of any resumption.
const UNLIMITED: u32 = u32::MAX;
/// How often in a turn a waker that is no coroutine's is woken at once. (`FuturesUnordered` gives way
/// after two such wake-ups.)
const AT_ONCE: u32 = 16;
/// How long a resumption lasts until it is taken for one that blocks.
const BLOCKS: Duration = Duration::from_millis(1);
/// A coroutine that polls by its own waker and goes on after so many refusals within a turn would do
/// so for ever if nothing were granted. (A combinator of thousands of futures comes to an end.)
const OWN_PATIENCE: u32 = 10_000;

type Place = Option<&'static Location<'static>>;

/// What the resumption that is going on has. One variable of the thread, since each that a turn uses has
/// an address of its own to be found.
struct Now {
    left: Cell<u32>,
    /// Refusals since something was granted, or the turn began.
    refused: Cell<u32>,
    waits_at: Cell<Place>,
    /// Whether anybody ran out; see `DEFERRED`.
    is_deferred: Cell<bool>,
}

thread_local! {
    static NOW: Now = const {
        Now {
            left: Cell::new(UNLIMITED),
            refused: Cell::new(0),
            waits_at: Cell::new(None),
            is_deferred: Cell::new(false),
        }
    };
    /// Who ran out of the budget.
    static DEFERRED: RefCell<Vec<Waker>> = const { RefCell::new(Vec::new()) };
    /// Those who may be blocking this thread.
    static BLOCKED: RefCell<Option<Arc<Mutex<Blocked>>>> = const { RefCell::new(None) };
}

/// A resumption begins, with a fresh budget. (If it is an exception handler's doing, whoever is resumed
/// says so.)
#[inline]
pub(crate) fn begin() {
    NOW.with(|now| {
        now.left.set(FULL);
        now.waits_at.set(None);
    });
    report::set_handling(false);
}

/// The last of several resumptions has ended.
#[inline]
pub(crate) fn end() {
    NOW.with(|now| {
        now.left.set(UNLIMITED);
        now.refused.set(0);
    });
    report::set_handling(false);
}

/// A resumption within another, or within none; that goes on when this is dropped.
pub(crate) struct Nested {
    left: u32,
    waits_at: Place,
}

#[inline]
pub(crate) fn nested() -> Nested {
    NOW.with(|now| {
        let left = now.left.get();
        now.left.set(left.min(FULL));
        Nested { left, waits_at: now.waits_at.replace(None) }
    })
}

impl Drop for Nested {
    #[inline]
    fn drop(&mut self) {
        // A loop that has run within has given out other budgets: none of that was for this one.
        NOW.with(|now| {
            let limited = self.left != UNLIMITED;
            now.left.set(if limited { self.left.min(now.left.get()) } else { UNLIMITED });
            now.waits_at.set(self.waits_at);
        });
    }
}

/// A full budget for a task of bounded length that must not give way, until this is dropped.
pub(crate) struct Fresh(u32);

pub(crate) fn fresh() -> Fresh {
    Fresh(NOW.with(|now| now.left.replace(FULL)))
}

impl Drop for Fresh {
    fn drop(&mut self) {
        NOW.with(|now| now.left.set(self.0));
    }
}

/// Notes where the resumption is about to wait.
#[inline]
pub(crate) fn waits_at(place: &'static Location<'static>) {
    NOW.with(|now| now.waits_at.set(Some(place)));
}

/// Where it waits, if that was noted.
#[inline]
pub(crate) fn place() -> Place {
    NOW.with(|now| now.waits_at.get())
}

pin_project! {
    /// A future that tells where it waits, and whether it is done; from [`here`] and [`or_here`].
    #[derive(Debug)]
    pub(crate) struct Told<F> {
        #[pin]
        future: F,
        place: &'static Location<'static>,
        in_any_case: bool,
        is_done: bool,
    }
}

pin_project! {
    /// A future that tells whether it is done; from [`fused`].
    #[derive(Debug)]
    pub(crate) struct Fused<F> {
        #[pin]
        future: F,
        is_done: bool,
    }
}

/// `future` waits where this is called: what it is made of is no affair of whoever awaits it. So is
/// every future of the crate that a user calls for.
#[track_caller]
pub(crate) fn here<F>(future: F) -> Told<F> {
    at(Location::caller(), future)
}

/// [`here`] on behalf of whoever stands at `place`.
pub(crate) fn at<F>(place: &'static Location<'static>, future: F) -> Told<F> {
    Told { future, place, in_any_case: true, is_done: false }
}

/// `future` is made of the user's own futures: it waits where they say, and where this is called only
/// if none of them says anything.
#[track_caller]
pub(crate) fn or_here<F>(future: F) -> Told<F> {
    or_at(Location::caller(), future)
}

/// [`or_here`] on behalf of whoever stands at `place`.
pub(crate) fn or_at<F>(place: &'static Location<'static>, future: F) -> Told<F> {
    Told { future, place, in_any_case: false, is_done: false }
}

impl<F: Future> Future for Told<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let before = NOW.with(|now| now.waits_at.replace(None));
        let polled = this.future.poll(cx);
        NOW.with(|now| {
            if polled.is_ready() {
                *this.is_done = true;
                now.waits_at.set(before);
            } else if *this.in_any_case || now.waits_at.get().is_none() {
                now.waits_at.set(Some(this.place));
            }
        });
        polled
    }
}

impl<F: Future> FusedFuture for Told<F> {
    fn is_terminated(&self) -> bool {
        self.is_done
    }
}

/// `future`, which says by itself where it waits, for `select!`, which asks whether it is done.
pub(crate) fn fused<F>(future: F) -> Fused<F> {
    Fused { future, is_done: false }
}

impl<F: Future> Future for Fused<F> {
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let polled = this.future.poll(cx);
        *this.is_done = polled.is_ready();
        polled
    }
}

impl<F: Future> FusedFuture for Fused<F> {
    fn is_terminated(&self) -> bool {
        self.is_done
    }
}

/// Spends one unit, if there is one.
#[inline]
pub(crate) fn spend() -> bool {
    NOW.with(|now| {
        match now.left.get() {
            0 => return false,
            UNLIMITED => {}
            left => now.left.set(left - 1),
        }
        true
    })
}

/// Spends one unit; pending if there is none.
#[inline]
pub(crate) fn poll_proceed(cx: &Context<'_>) -> Poll<()> {
    if spend() || granted(cx.waker()) {
        return Poll::Ready(());
    }
    refuse(cx.waker());
    Poll::Pending
}

/// There is nothing to spend: grants a fresh budget to who would wait for ever otherwise. If not, the
/// caller refuses, when it is about to be pending.
#[cold]
pub(crate) fn granted(waker: &Waker) -> bool {
    NOW.with(|now| {
        let refused = now.refused.get();
        let granted = if is_own(waker) { refused >= OWN_PATIENCE } else { Blocked::is_over() };
        now.refused.set(if granted { 0 } else { refused + 1 });
        if granted {
            now.left.set(FULL - 1);
        }
        granted
    })
}

/// Wakes who was refused: when the resumption has ended, or before that if it is no coroutine.
#[cold]
pub(crate) fn refuse(waker: &Waker) {
    if is_own(waker) {
        defer(waker.clone());
    } else if NOW.with(|now| now.refused.get()) <= AT_ONCE {
        foreign::wake(waker.clone());
    } else {
        Blocked::watch(waker.clone());
        defer(waker.clone());
    }
}

fn is_own(waker: &Waker) -> bool {
    word_of(waker).is_some()
}

/// Wakes when the resumptions of this turn have ended. (A thread that is ending has no more turns.)
pub(crate) fn defer(waker: Waker) {
    let _ = DEFERRED.try_with(|deferred| deferred.borrow_mut().push(waker));
    NOW.with(|now| now.is_deferred.set(true));
}

/// Whether there is anyone to wake.
pub(crate) fn is_deferred() -> bool {
    NOW.with(|now| now.is_deferred.get())
}

/// Who was refused and may be blocking the thread of a resumption, watched by another thread.
#[derive(Default)]
struct Blocked {
    wakers: Vec<Waker>,
    /// A thread watches.
    watched: bool,
    /// The resumption lasts so long that it blocks: those who go on have a new budget.
    over: bool,
}

impl Blocked {
    fn here() -> Option<Arc<Mutex<Blocked>>> {
        BLOCKED.try_with(|blocked| blocked.borrow().clone()).ok().flatten()
    }

    fn lock(blocked: &Mutex<Blocked>) -> MutexGuard<'_, Blocked> {
        blocked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over() -> bool {
        Blocked::here().is_some_and(|blocked| std::mem::take(&mut Blocked::lock(&blocked).over))
    }

    /// Wakes `waker` if the resumption has not ended in time.
    fn watch(waker: Waker) {
        let made = BLOCKED.try_with(|known| known.borrow_mut().get_or_insert_default().clone());
        let Ok(blocked) = made else { return foreign::wake(waker) };
        let mut state = Blocked::lock(&blocked);
        state.wakers.push(waker);
        if std::mem::replace(&mut state.watched, true) {
            return;
        }
        drop(state);
        let watches = blocked.clone();
        let watch = move || {
            thread::sleep(BLOCKS);
            Blocked::go_on(&watches);
        };
        let name = String::from("waterspout-budget");
        if thread::Builder::new().name(name).spawn(watch).is_err() {
            Blocked::go_on(&blocked);
        }
    }

    fn go_on(blocked: &Mutex<Blocked>) {
        let mut state = Blocked::lock(blocked);
        let wakers = std::mem::take(&mut state.wakers);
        (state.watched, state.over) = (false, !wakers.is_empty());
        drop(state);
        foreign::wake_all(wakers);
    }

    /// The resumption has ended: nobody blocks.
    fn end() {
        let Some(blocked) = Blocked::here() else { return };
        let mut state = Blocked::lock(&blocked);
        let wakers = std::mem::take(&mut state.wakers);
        state.over = false;
        drop(state);
        foreign::discard_all(wakers);
    }
}

/// Those to wake now that the resumptions have ended.
pub(crate) fn take_deferred() -> Vec<Waker> {
    NOW.with(|now| now.is_deferred.set(false));
    Blocked::end();
    DEFERRED.try_with(RefCell::take).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Spends by a coroutine's waker (of no loop).
    fn spend(n: u32) -> bool {
        let own = crate::ground::waker::waker(0);
        spend_by(&own, n)
    }

    fn spend_by(waker: &Waker, n: u32) -> bool {
        (0..n).all(|_| poll_proceed(&Context::from_waker(waker)).is_ready())
    }

    #[test]
    fn a_budget_is_spent_and_a_coroutine_is_woken_later() {
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
    fn who_blocks_is_woken_at_once_and_then_in_time_and_gets_more() {
        let (wakes, woken) = mpsc::channel();
        let other = waker_fn::waker_fn(move || wakes.send(()).unwrap());
        begin();
        assert!(spend(FULL));
        for _ in 0..AT_ONCE {
            assert!(!spend_by(&other, 1) && !is_deferred());
            woken.try_recv().unwrap();
        }
        for _ in 0..3 {
            assert!(!spend_by(&other, 1) && is_deferred());
            woken.recv_timeout(Duration::from_secs(60)).unwrap();
            assert!(spend_by(&other, FULL));
            NOW.with(|now| now.refused.set(AT_ONCE));
        }
        end();
        assert_eq!(take_deferred().len(), 3);
    }

    #[test]
    fn a_combinator_is_woken_when_the_resumption_has_ended() {
        begin();
        assert!(spend(FULL));
        NOW.with(|now| now.refused.set(AT_ONCE));
        let (wakes, woken) = mpsc::channel();
        let other = waker_fn::waker_fn(move || wakes.send(()).unwrap());
        assert!(!spend_by(&other, 1));
        end();
        take_deferred();
        drop(other);
        // The one who watches had nobody to wake, or did so before the resumption had ended.
        while Blocked::here().is_some_and(|blocked| Blocked::lock(&blocked).watched) {
            thread::yield_now();
        }
        assert!(woken.try_iter().count() <= 1 && !is_deferred());
    }

    #[test]
    fn a_coroutine_that_polls_on_within_its_resumption_gets_more() {
        begin();
        assert!(spend(FULL));
        (0..OWN_PATIENCE).for_each(|_| assert!(!spend(1)));
        assert!(spend(FULL) && !spend(1));
        end();
        take_deferred();
    }

    #[test]
    fn the_call_of_the_crate_says_where_it_waits_and_what_it_is_made_of_does_not() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut polled = |future: Pin<&mut dyn Future<Output = ()>>| {
            begin();
            let is_pending = future.poll(&mut cx).is_pending();
            (is_pending, place().map(Location::line))
        };
        let untold = std::future::pending::<()>;
        let inner = line!() + 1;
        let told = || here(untold());
        let outer = line!() + 1;
        assert_eq!(polled(std::pin::pin!(here(told()))), (true, Some(outer)));
        let own = line!() + 1;
        assert_eq!(polled(std::pin::pin!(or_here(untold()))), (true, Some(own)));
        assert_eq!(polled(std::pin::pin!(or_here(told()))), (true, Some(inner)));
        assert_eq!(polled(std::pin::pin!(here(async {}))), (false, None));
        end();
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
