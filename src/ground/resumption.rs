//! What a resumption has: a budget, and a place where it waits.
//!
//! # The budget
//!
//! Awaiting something that is ready does not go through the loop. So a coroutine whose sockets, locks and
//! queues are always ready would never let others run. Therefore each operation on one of those spends one
//! unit of a budget, which is full at the beginning of every resumption. When nothing is left, the operation
//! is *refused*: it is pending although it could go on, and its waker is woken *when the resumption has
//! ended*. (If it were woken at once, a combinator that polls again whatever was woken would spin.) A
//! coroutine that is started within a resumption spends of the same budget; otherwise starting one coroutine
//! after the other would be a way around it.
//!
//! # Foreign wakers
//!
//! A future may also be polled with a foreign waker. Then it is polled by a combinator (`FuturesUnordered`),
//! or by something that blocks until the future is done (`futures::executor::block_on`). In the second case
//! the resumption cannot end before the future goes on, so the waker must not be kept back until then. But
//! both look the same from here. So a foreign waker that was refused is treated in three steps:
//!
//! 1. The first few times it is woken at once. Good combinators notice that, and return to the loop.
//! 2. From then on it is woken when the resumption has ended. That makes other combinators return.
//! 3. If the resumption has not ended after a millisecond, it is taken for one that blocks: a thread wakes
//!    the waker, and the future gets a fresh budget.
//!
//! Outside of a resumption, under a foreign executor, there is no budget.
//!
//! # The place
//!
//! A future that is about to return `Pending` notes the line of the user's code that awaits it. Whoever has
//! resumed the coroutine finds it here, for [`CoroutineInfo`](super::coroutine_info::CoroutineInfo).

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

/// The budget of one resumption, in operations. (tokio's is 128, too.)
const FULL: u32 = 128;
/// The budget outside of any resumption.
const UNLIMITED: u32 = u32::MAX;
/// How many refusals there may be in a turn until foreign wakers are not woken at once any more.
/// (`FuturesUnordered` gives way after two such wake-ups.)
const AT_ONCE: u32 = 16;
/// After how much time a resumption is taken for one that blocks.
const BLOCKS: Duration = Duration::from_millis(1);
/// A coroutine may poll a future again and again within one resumption, with its own waker, until the future
/// is ready. After so many refusals in a turn it is taken for one that would do so for ever, and gets a fresh
/// budget. (A combinator of thousands of futures is refused once for each of them, and then returns.)
const OWN_PATIENCE: u32 = 10_000;

type Place = Option<&'static Location<'static>>;

/// What the resumption that is going on has. It is all in one thread-local variable, because finding the
/// address of each costs a few instructions.
struct Now {
    /// What is left of the budget.
    left: Cell<u32>,
    /// How many operations were refused since a fresh budget was granted, or since the turn began.
    refused: Cell<u32>,
    /// The place that was noted last.
    waits_at: Cell<Place>,
    /// Whether there is a waker in `DEFERRED`.
    is_deferred: Cell<bool>,
    /// Whether a loop is resuming a coroutine, so that what is deferred is sure to be woken soon.
    by_a_loop: Cell<bool>,
}

thread_local! {
    static NOW: Now = const {
        Now {
            left: Cell::new(UNLIMITED),
            refused: Cell::new(0),
            waits_at: Cell::new(None),
            is_deferred: Cell::new(false),
            by_a_loop: Cell::new(false),
        }
    };
    /// The wakers to wake when the resumption has ended.
    static DEFERRED: RefCell<Vec<Waker>> = const { RefCell::new(Vec::new()) };
    /// The foreign wakers that were refused, and may belong to something that blocks this thread.
    static BLOCKED: RefCell<Option<Arc<Mutex<Blocked>>>> = const { RefCell::new(None) };
}

/// A resumption begins, with a fresh budget. (It is not taken for the doing of an exception handler, unless
/// the coroutine itself says that such a handler has started it.)
#[inline]
pub(crate) fn begin() {
    NOW.with(|now| {
        now.left.set(FULL);
        now.waits_at.set(None);
        now.by_a_loop.set(true);
    });
    report::set_handling(false);
}

/// The last of several resumptions in a row has ended.
#[inline]
pub(crate) fn end() {
    NOW.with(|now| {
        now.left.set(UNLIMITED);
        now.refused.set(0);
        now.by_a_loop.set(false);
    });
    report::set_handling(false);
}

/// The scope of a nested resumption: a coroutine that is started within another resumption, or outside of
/// any. Dropping it restores the outer place, and the outer budget less what was spent.
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
        // If another loop has run within this scope, the budget that is left there is one of its own
        // resumptions: the outer one must not be better off by that. Nor must it become limited by it.
        NOW.with(|now| {
            let limited = self.left != UNLIMITED;
            now.left.set(if limited { self.left.min(now.left.get()) } else { UNLIMITED });
            now.waits_at.set(self.waits_at);
        });
    }
}

/// A full budget for something that is sure to end soon and must not be refused anything. Dropping this
/// restores the budget from before.
pub(crate) struct Fresh(u32);

pub(crate) fn fresh() -> Fresh {
    Fresh(NOW.with(|now| now.left.replace(FULL)))
}

impl Drop for Fresh {
    fn drop(&mut self) {
        NOW.with(|now| now.left.set(self.0));
    }
}

/// Notes that the resumption is about to wait at `place`.
#[inline]
pub(crate) fn waits_at(place: &'static Location<'static>) {
    NOW.with(|now| now.waits_at.set(Some(place)));
}

/// The place that was noted, if one was.
#[inline]
pub(crate) fn place() -> Place {
    NOW.with(|now| now.waits_at.get())
}

pin_project! {
    /// A future that notes where it waits, and knows whether it is done; from [`here`] and [`or_here`].
    #[derive(Debug)]
    pub(crate) struct Told<F> {
        #[pin]
        future: F,
        place: &'static Location<'static>,
        // Whether `place` is noted even if `future` has noted another one.
        in_any_case: bool,
        is_done: bool,
    }
}

pin_project! {
    /// A future that knows whether it is done; from [`fused`].
    #[derive(Debug)]
    pub(crate) struct Fused<F> {
        #[pin]
        future: F,
        is_done: bool,
    }
}

/// Makes `future` note the line of the caller as the place where it waits, whatever the futures within it
/// have noted: those are this crate's, and of no interest to the user. Functions of this crate that give
/// the user a future wrap it in this.
#[track_caller]
pub(crate) fn here<F>(future: F) -> Told<F> {
    at(Location::caller(), future)
}

/// [`here`] with another place than the line of the caller.
pub(crate) fn at<F>(place: &'static Location<'static>, future: F) -> Told<F> {
    Told { future, place, in_any_case: true, is_done: false }
}

/// For a `future` that is made of the user's own futures. It waits where they have noted that they do. Only
/// if none of them has noted a place, it notes the line of the caller.
#[track_caller]
pub(crate) fn or_here<F>(future: F) -> Told<F> {
    or_at(Location::caller(), future)
}

/// [`or_here`] with another place than the line of the caller.
pub(crate) fn or_at<F>(place: &'static Location<'static>, future: F) -> Told<F> {
    Told { future, place, in_any_case: false, is_done: false }
}

impl<F: Future> Future for Told<F> {
    type Output = F::Output;

    #[inline]
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

impl<F> Told<F> {
    pub(crate) fn into_inner(self) -> F {
        self.future
    }
}

impl<F: Future> FusedFuture for Told<F> {
    fn is_terminated(&self) -> bool {
        self.is_done
    }
}

/// For a `future` that notes by itself where it waits. It only gets `is_terminated`, which `select!` asks
/// for.
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

/// Spends one unit of the budget; `false` if nothing is left.
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

/// Spends one unit of the budget. If nothing is left, the operation is refused: pending, and the waker will
/// be woken.
#[inline]
pub(crate) fn poll_proceed(cx: &Context<'_>) -> Poll<()> {
    if spend() || granted(cx.waker()) {
        return Poll::Ready(());
    }
    refuse(cx.waker());
    Poll::Pending
}

/// Called when nothing is left of the budget. Grants a fresh one, and returns `true`, where the resumption
/// would never end otherwise. If it returns `false`, the caller calls [`refuse`] and returns `Pending`.
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

/// Sees to it that the waker of an operation that was refused is woken: a word when the resumption has
/// ended, a foreign waker perhaps before that, as the module's text says.
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

/// Whether the waker is one of ours, that is, a coroutine's.
fn is_own(waker: &Waker) -> bool {
    word_of(waker).is_some()
}

/// Has `waker` woken when the resumptions of this turn have ended. (If the thread-local variable is gone, the
/// thread is ending, and there are no more turns.)
pub(crate) fn defer(waker: Waker) {
    let _ = DEFERRED.try_with(|deferred| deferred.borrow_mut().push(waker));
    NOW.with(|now| now.is_deferred.set(true));
}

/// Whether a loop is resuming a coroutine. (A coroutine that is started outside of any running loop is resumed,
/// too, but nobody knows when its loop will run.)
pub(crate) fn is_by_a_loop() -> bool {
    NOW.with(|now| now.by_a_loop.get())
}

/// Whether there are wakers that were deferred.
pub(crate) fn is_deferred() -> bool {
    NOW.with(|now| now.is_deferred.get())
}

/// Foreign wakers that were refused and may belong to something that blocks the thread of the resumption. So
/// another thread watches how long the resumption takes.
#[derive(Default)]
struct Blocked {
    wakers: Vec<Waker>,
    /// Whether there is a thread that watches.
    watched: bool,
    /// Whether the resumption has taken so long that it is taken for one that blocks. Whoever asks next
    /// gets a fresh budget.
    over: bool,
}

impl Blocked {
    /// That of this thread, if there is one.
    fn here() -> Option<Arc<Mutex<Blocked>>> {
        BLOCKED.try_with(|blocked| blocked.borrow().clone()).ok().flatten()
    }

    fn lock(blocked: &Mutex<Blocked>) -> MutexGuard<'_, Blocked> {
        blocked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a fresh budget is due, which is then given out.
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

    /// Wakes the wakers if they are still there: the resumption has not ended, and so it blocks.
    fn go_on(blocked: &Mutex<Blocked>) {
        let mut state = Blocked::lock(blocked);
        let wakers = std::mem::take(&mut state.wakers);
        (state.watched, state.over) = (false, !wakers.is_empty());
        drop(state);
        foreign::wake_all(wakers);
    }

    /// The resumption has ended, so nothing blocks: forgets the wakers.
    fn end() {
        let Some(blocked) = Blocked::here() else { return };
        let mut state = Blocked::lock(&blocked);
        let wakers = std::mem::take(&mut state.wakers);
        state.over = false;
        drop(state);
        foreign::discard_all(wakers);
    }
}

/// The resumptions have ended: the wakers that were deferred, for the caller to wake.
pub(crate) fn take_deferred() -> Vec<Waker> {
    NOW.with(|now| now.is_deferred.set(false));
    Blocked::end();
    DEFERRED.try_with(RefCell::take).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Spends `n` units with a coroutine's waker; tells whether none was refused.
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
    fn something_that_blocks_is_woken_at_once_and_later_in_time_and_gets_more() {
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
        // The thread that watches ends without a waker to wake, unless it came before the end of the
        // resumption.
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
    fn a_future_of_the_crate_notes_the_line_of_its_caller_and_none_within() {
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
