//! Running what is queued.

use std::cell::Cell;
use std::panic::Location;

use crate::coroutine::moment;
use crate::ground::resumption;
use crate::ioloop::{Core, with_current};

/// In so many turns everything comes to rest that ever does.
const MOST_TURNS: u32 = 10_000;

thread_local! {
    /// How many wait for the rest of this thread to come to rest.
    static SETTLING: Cell<usize> = const { Cell::new(0) };
}

/// One who waits is not what the others wait for.
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

/// Runs what is queued on the current loop, and what that queues and wakes, until nothing is ready any more.
///
/// No time passes: a virtual clock stays where it is (unless something outside
/// [holds it](crate::IoLoop::hold_time), and then it keeps to the real one). So who sleeps sleeps on; what is
/// due already runs. Sockets are asked, so what has arrived on one is dealt with. Jobs of executors, other
/// threads and children are not waited for: nobody knows when they are done.
///
/// A test that counts turns of the loop (`moment().await`, three times) breaks when the code under test takes
/// one more; this does not. Several may settle at the same time. Cancel safe.
///
/// # Panics
///
/// If something has been ready in each of 10,000 turns: it wakes itself, or those who wake it, for ever.
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
        for _ in 0..MOST_TURNS {
            let before = with_current(Core::done_so_far);
            moment().await;
            let others = Settling::count() as u64 - 1;
            let is_at_rest = with_current(|core| {
                // Each who settles has been resumed once, and those who have had no answer yet are ready.
                let done = core.done_so_far().wrapping_sub(before.unwrap_or_default());
                done <= others + 1 && !core.has_more_to_do(others as usize)
            });
            // Outside of any loop, nobody knows.
            if is_at_rest.unwrap_or(true) {
                return;
            }
        }
        panic!(
            "settle ({place}): something was ready in each of {MOST_TURNS} turns, so it wakes itself for ever"
        );
    })
}
