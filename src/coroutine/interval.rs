//! `interval`: a steady beat to await.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures::future::FusedFuture;
use futures::stream::{FusedStream, Stream};

use super::sleep::Sleep;
use crate::ground::resumption;
use crate::ioloop::{Deadline, nanos};

/// In nanoseconds: by how much a tick may be late and still count as in time. A loop that is busy is often a
/// little late, which must not count as a missed tick. (tokio's tolerance is the same.)
const TOLERANCE: u64 = 5_000_000;

/// Ticks every `period`; the first tick comes at once. It is awaited by [`tick`](Interval::tick), or as a
/// [`Stream`].
///
/// It runs nothing by itself: the caller awaits a tick, does something, and awaits the next.
/// [`MissedTickBehavior`] says what becomes of ticks that were due meanwhile. To have a callback called at a
/// steady beat there is [`PeriodicCallback`](crate::PeriodicCallback), as in Tornado, which has no interval.
/// tokio: `time::interval`.
///
/// # Panics
///
/// If `period` is zero; and as [`sleep`](super::sleep()).
///
/// ```
/// use std::time::Duration;
/// use waterspout::{IoLoop, coroutine::{interval, now, sleep}};
///
/// IoLoop::builder().virtual_time().build()?.run_sync(|| async {
///     let begun = now();
///     let mut beat = interval(Duration::from_secs(10));
///     for n in 0..4 {
///         assert_eq!(beat.tick().await - begun, n * Duration::from_secs(10));
///         sleep(Duration::from_secs(3)).await; // the beat does not drift
///     }
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[track_caller]
pub fn interval(period: Duration) -> Interval {
    interval_at(Duration::ZERO, period)
}

/// [`interval`] whose first tick comes at `start`: an [`Instant`], or a [`Duration`] from now. tokio:
/// `time::interval_at`.
///
/// # Panics
///
/// As [`interval`].
#[track_caller]
pub fn interval_at(start: impl Into<Deadline>, period: Duration) -> Interval {
    assert!(!period.is_zero(), "an interval's period must be longer than zero");
    Interval {
        sleep: Sleep::until(start.into()),
        period: nanos(period),
        missed: MissedTickBehavior::default(),
    }
}

/// What becomes of ticks that are due while nobody awaits them. A tick that is given up to 5 milliseconds
/// late counts as in time. tokio: `time::MissedTickBehavior`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissedTickBehavior {
    /// They are given right after each other until the beat is caught up with, so that there are as many
    /// ticks as there should be.
    #[default]
    Burst,
    /// They are left out, and the beat starts again at the tick that was late: between two ticks there is
    /// always a whole period at least.
    Delay,
    /// They are left out, and the beat stays as it was, at whole periods from the first tick. It is what
    /// [`PeriodicCallback`](crate::PeriodicCallback) does.
    Skip,
}

impl MissedTickBehavior {
    /// When the next tick is due, after one that was due at `due` and was given at `now`. All are in
    /// nanoseconds.
    fn next(self, due: u64, now: u64, period: u64) -> u64 {
        let on_beat = due.saturating_add(period);
        if now.saturating_sub(due) <= TOLERANCE {
            return on_beat;
        }
        match self {
            MissedTickBehavior::Burst => on_beat,
            MissedTickBehavior::Delay => now.saturating_add(period),
            MissedTickBehavior::Skip => now.saturating_add(period - (now - due) % period),
        }
    }
}

/// Ticks at a steady beat; from [`interval`] and [`interval_at`].
///
/// As a [`Stream`] it has no end. Dropping it removes its timer.
#[derive(Debug)]
pub struct Interval {
    /// Ends when the next tick is due.
    sleep: Sleep,
    /// In nanoseconds.
    period: u64,
    missed: MissedTickBehavior,
}

impl Interval {
    /// Says what becomes of ticks that are due while nobody awaits them. By default it is
    /// [`Burst`](MissedTickBehavior::Burst).
    ///
    /// ```
    /// use std::time::Duration;
    /// use waterspout::{IoLoop, coroutine::{MissedTickBehavior, interval, now, sleep}};
    ///
    /// IoLoop::builder().virtual_time().build()?.run_sync(|| async {
    ///     let begun = now();
    ///     let mut beat = interval(Duration::from_secs(10));
    ///     beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ///     beat.tick().await;
    ///     sleep(Duration::from_secs(25)).await;
    ///     beat.tick().await; // that of the tenth second, late
    ///     beat.tick().await;
    ///     assert_eq!(now() - begun, Duration::from_secs(30));
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_missed_tick_behavior(&mut self, behavior: MissedTickBehavior) {
        self.missed = behavior;
    }

    /// Waits for the next tick, and gives the instant at which it was due. It takes at least one turn of the
    /// loop, so that a burst of ticks keeps nobody else waiting.
    ///
    /// Cancel safe: a tick that a dropped call has not given is given by the next call.
    ///
    /// # Panics
    ///
    /// If it is awaited on another loop than the one that the interval was made on.
    #[track_caller]
    pub fn tick(&mut self) -> impl FusedFuture<Output = Instant> {
        resumption::here(poll_fn(|cx| self.poll_tick(cx)))
    }

    /// [`tick`](Interval::tick) as a poll function.
    pub fn poll_tick(&mut self, cx: &mut Context<'_>) -> Poll<Instant> {
        ready!(Pin::new(&mut self.sleep).poll(cx));
        let due = self.sleep.deadline().unwrap_or_else(super::now);
        let (period, missed) = (self.period, self.missed);
        self.sleep.go_on(|due, now| missed.next(due, now, period));
        Poll::Ready(due)
    }
}

impl Stream for Interval {
    type Item = Instant;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Instant>> {
        self.poll_tick(cx).map(Some)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::MAX, None)
    }
}

impl FusedStream for Interval {
    fn is_terminated(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_tick_is_caught_up_with_delayed_or_skipped() {
        use MissedTickBehavior::{Burst, Delay, Skip};
        const MS: u64 = 1_000_000;
        let next =
            |behavior: MissedTickBehavior, now| behavior.next(100 * MS, now * MS, 50 * MS) / MS;
        for behavior in [Burst, Delay, Skip] {
            assert_eq!(next(behavior, 99), 150, "a clock that is behind makes no tick early");
            assert_eq!(next(behavior, 100), 150);
            assert_eq!(next(behavior, 105), 150, "within the tolerance");
            assert_eq!(behavior.next(100, u64::MAX, u64::MAX), u64::MAX);
        }
        assert_eq!([Burst, Delay, Skip].map(|it| next(it, 120)), [150, 170, 150]);
        assert_eq!([Burst, Delay, Skip].map(|it| next(it, 150)), [150, 200, 200]);
        assert_eq!([Burst, Delay, Skip].map(|it| next(it, 260)), [150, 310, 300]);
    }
}
