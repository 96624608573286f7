//! `PeriodicCallback`: a callback at a steady beat.
//!
//! The beat is `start + k × period`. A call that takes longer than a period skips whole beats and
//! keeps the phase, so the schedule neither drifts nor bunches up.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::Location;
use std::rc::Rc;
use std::time::Duration;

use super::callback::Callback;
use super::clock::nanos;
use super::current::with_current;
use super::inbox::LoopId;
use super::io_loop::IoLoop;
use crate::ground::slots::Key;

/// Calls a callback every period, first one period after [`start`](PeriodicCallback::start).
///
/// If a call takes longer than a period, the beats that it missed are skipped. If a call panics, that is
/// reported, and the beat goes on. Dropping the `PeriodicCallback` stops it. Tornado: `PeriodicCallback`.
///
/// [`new_async`](PeriodicCallback::new_async) is for callbacks that await something; no call begins before
/// the last one has ended.
///
/// ```
/// use std::{cell::Cell, rc::Rc, time::Duration};
/// use waterspout::{IoLoop, PeriodicCallback, coroutine::sleep};
///
/// let io_loop = IoLoop::builder().virtual_time().build()?;
/// io_loop.run_sync(|| async {
///     let beats = Rc::new(Cell::new(0));
///     let counted = beats.clone();
///     let periodic = PeriodicCallback::new(Duration::from_secs(1), move || {
///         counted.set(counted.get() + 1);
///     });
///     periodic.start();
///     sleep(Duration::from_millis(3_500)).await;
///     assert_eq!(beats.get(), 3);
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PeriodicCallback {
    beat: Rc<Beat>,
}

/// A call under way, which owns this. Dropping it says that the call has ended, and sets the timer for the
/// next one.
pub(crate) struct Call {
    beat: Rc<Beat>,
    /// How many times the beat had been started when the call began. If it was started again since, that
    /// has set a timer already.
    start: u64,
}

struct Beat {
    callback: RefCell<Box<dyn FnMut(Call)>>,
    /// The place where it was made, for reports of its panics.
    location: &'static Location<'static>,
    period: Duration,
    jitter: Cell<f64>,
    /// `None` while it is stopped.
    next: Cell<Option<Next>>,
    /// How many times it was started.
    starts: Cell<u64>,
    /// Whether a call is under way.
    calling: Cell<bool>,
}

/// The next call.
#[derive(Clone, Copy)]
struct Next {
    /// The loop that it runs on.
    id: LoopId,
    /// When it is due, by that loop's clock.
    due: u64,
    timer: Key,
}

impl PeriodicCallback {
    /// Makes a callback that is called every `period`, once it is [started](PeriodicCallback::start).
    ///
    /// # Panics
    ///
    /// If `period` is zero.
    #[track_caller]
    pub fn new(period: Duration, mut callback: impl FnMut() + 'static) -> PeriodicCallback {
        PeriodicCallback::with_call(period, move |_call| callback())
    }

    #[track_caller]
    pub(crate) fn with_call(
        period: Duration,
        callback: impl FnMut(Call) + 'static,
    ) -> PeriodicCallback {
        assert!(!period.is_zero(), "a PeriodicCallback's period must be longer than zero");
        let beat = Beat {
            callback: RefCell::new(Box::new(callback)),
            location: Location::caller(),
            period,
            jitter: Cell::new(0.0),
            next: Cell::new(None),
            starts: Cell::new(0),
            calling: Cell::new(false),
        };
        PeriodicCallback { beat: Rc::new(beat) }
    }

    /// Varies each period at random, within this fraction of it: with 0.1, a period takes from 95 % to 105
    /// % of what was asked for. Tornado: `jitter`.
    ///
    /// This keeps many processes from doing the same thing at the same time.
    ///
    /// # Panics
    ///
    /// If `fraction` is not between 0 and 1.
    #[must_use]
    pub fn jitter(self, fraction: f64) -> PeriodicCallback {
        assert!((0.0..=1.0).contains(&fraction), "jitter is a fraction between 0 and 1");
        self.beat.jitter.set(fraction);
        self
    }

    /// Starts the beat on the current loop. Nothing happens if it is running.
    ///
    /// # Panics
    ///
    /// As [`IoLoop::current`].
    #[track_caller]
    pub fn start(&self) {
        if self.is_running() {
            return;
        }
        let io_loop = IoLoop::current();
        let core = io_loop.core();
        let due = core.clock.read();
        self.beat.starts.set(self.beat.starts.get() + 1);
        self.beat.next.set(Some(Next { id: core.id(), due, timer: Key::NONE }));
        self.beat.set_timer();
    }

    /// Stops the beat. The callback is not called any more, even if it is due already. May be called within
    /// the callback.
    pub fn stop(&self) {
        if let Some(next) = self.beat.next.take() {
            // If another loop is current, the timer fires and finds the beat stopped.
            let call = with_current(|core| {
                if core.id() == next.id { core.remove_call(next.timer) } else { None }
            });
            drop(call);
        }
    }

    /// Whether it has been started and not stopped.
    pub fn is_running(&self) -> bool {
        self.beat.next.get().is_some()
    }
}

impl Drop for PeriodicCallback {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for PeriodicCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeriodicCallback")
            .field("period", &self.beat.period)
            .field("is_running", &self.is_running())
            .finish()
    }
}

impl Beat {
    /// Sets the timer for the first beat that lies ahead, unless it is stopped.
    fn set_timer(self: &Rc<Beat>) {
        let Some(Next { id, due, .. }) = self.next.get() else { return };
        let (weak, start) = (Rc::downgrade(self), self.starts.get());
        let call = move || match weak.upgrade() {
            Some(beat) if beat.starts.get() == start => beat.call(),
            _ => {}
        };
        let call = Callback::new(self.location, call);
        let period = self.period(due);
        let next = with_current(|core| {
            if core.id() != id || core.is_closed() {
                return None;
            }
            let due = next_beat(due, core.clock.read(), period);
            Some(Next { id, due, timer: core.add_call(due, call) })
        });
        self.next.set(next.flatten());
    }

    fn call(self: Rc<Beat>) {
        if self.next.get().is_none() {
            return;
        }
        if self.calling.replace(true) {
            // It was stopped and started again while a call is under way, which has not ended: this beat is
            // skipped, so that calls do not overlap.
            return self.set_timer();
        }
        let call = Call { beat: self.clone(), start: self.starts.get() };
        (self.callback.borrow_mut())(call);
    }

    /// The period in nanoseconds, varied by the jitter.
    fn period(&self, seed: u64) -> u64 {
        let period = nanos(self.period);
        let jitter = self.jitter.get();
        if jitter == 0.0 {
            return period;
        }
        let factor = 1.0 + jitter * (fraction(seed) - 0.5);
        ((period as f64 * factor) as u64).max(1)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.beat.calling.set(false);
        if self.beat.starts.get() == self.start {
            self.beat.set_timer();
        }
    }
}

/// The first beat after `now`, one period or more after `last`.
fn next_beat(last: u64, now: u64, period: u64) -> u64 {
    let skipped = now.saturating_sub(last) / period;
    last.saturating_add(period.saturating_mul(skipped + 1))
}

/// A number from 0 to 1 that looks random, since the standard library's hashers have random keys.
fn fraction(seed: u64) -> f64 {
    use std::hash::{BuildHasher, RandomState};
    (RandomState::new().hash_one(seed) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beats_keep_their_phase_and_skip_what_was_missed() {
        assert_eq!(next_beat(100, 100, 10), 110);
        assert_eq!(next_beat(100, 109, 10), 110);
        assert_eq!(next_beat(100, 110, 10), 120);
        assert_eq!(next_beat(100, 147, 10), 150);
        assert_eq!(next_beat(100, 50, 10), 110);
        assert_eq!(next_beat(u64::MAX - 1, u64::MAX, 10), u64::MAX);
    }

    #[test]
    fn fractions_lie_between_zero_and_one_and_differ() {
        let fractions: Vec<f64> = (0..100).map(fraction).collect();
        assert!(fractions.iter().all(|fraction| (0.0..1.0).contains(fraction)));
        assert!(fractions.windows(2).any(|pair| pair[0] != pair[1]));
    }
}
