//! `settle`: running the loop until nothing is ready any more.

use std::cell::Cell;
use std::panic::Location;

use crate::coroutine::moment;
use crate::ground::resumption;
use crate::ioloop::{Core, with_current};

/// After so many turns it is taken for certain that the loop will never come to rest.
const MAX_TURNS: u32 = 10_000;

thread_local! {
    /// How many calls of `settle` are under way on this thread.
    static SETTLING: Cell<usize> = const { Cell::new(0) };
}

/// A call of `settle` that is under way. They are counted, since each of them is resumed in every turn,
/// and so keeps the loop busy: the others must not wait for that to end.
struct Settling;

impl Settling {
    fn begin() -> Settling {
        SETTLING.set(SETTLING.get() + 1);
        Settling
    }

    fn count() -> usize {
        SETTLING.get()
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        SETTLING.set(SETTLING.get() - 1);
    }
}

/// Runs all that is ready on the current loop, and all that this makes ready, until nothing is ready any
/// more.
///
/// No time passes: a virtual clock stays where it is. (If something outside [holds
/// it](crate::IoLoop::hold_time), it goes with the real one.) So coroutines that sleep sleep on; timers
/// that are due fire. Sockets are looked at, so coroutines that wait for bytes which have arrived run,
/// too. This does not wait for jobs of executors, other threads or child processes: nobody knows when they
/// are done.
///
/// A test that counts turns of the loop, by three times `moment().await` for instance, breaks when the code
/// under test needs one turn more; with `settle` it does not. Several coroutines may settle at the same time.
/// Cancel safe.
///
/// # Panics
///
/// If something was ready in each of 10,000 turns, so that it will go on for ever.
///
/// ```
/// use std::{cell::Cell, rc::Rc, time::Duration};
/// use waterspout::{IoLoop, coroutine::{moment, now, sleep, spawn}, testing::settle};
///
/// # IoLoop::builder().virtual_time().build()?.run_sync(|| async {
/// let (done, begun) = (Rc::new(Cell::new(0)), now());
/// let does = done.clone();
/// spawn(async move {
///     for _ in 0..5 {
///         moment().await;
///         does.set(does.get() + 1);
///     }
///     sleep(Duration::from_secs(1)).await;
///     does.set(100);
/// });
/// settle().await;
/// assert_eq!((done.get(), now()), (5, begun));
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[track_caller]
pub fn settle() -> impl Future<Output = ()> {
    let place = Location::caller();
    resumption::at(place, async move {
        let _settling = Settling::begin();
        for _ in 0..MAX_TURNS {
            let before = with_current(Core::done_so_far);
            moment().await;
            let others = Settling::count() as u64 - 1;
            let is_at_rest = with_current(|core| {
                // In this turn each call of `settle`, this one and the others, has been resumed once. And
                // those of the others that have not returned are ready again. If nothing else has run and
                // nothing else is ready, the loop is at rest.
                let done = core.done_so_far().wrapping_sub(before.unwrap_or_default());
                done <= others + 1 && !core.has_more_to_do(others as usize)
            });
            // Outside of any loop it cannot be known, and there is nothing to wait for.
            if is_at_rest.unwrap_or(true) {
                return;
            }
        }
        panic!(
            "settle ({place}): something was ready in each of {MAX_TURNS} turns, so it wakes itself for ever"
        );
    })
}
