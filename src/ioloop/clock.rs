//! The loop's clock: real, or virtual for tests.
//!
//! Times are nanoseconds since the loop was made, as in the timer wheel. The clock remembers its last
//! reading, for callers that need no fresh one, since reading it takes time.
//!
//! A virtual clock moves only when the loop says so: it jumps to the next deadline when nothing else is left
//! to do. While something outside is under way, which takes real time, the clock is *held*: it reaches the
//! next deadline no sooner than the real clock would.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::ground::timers::NEVER;

pub(crate) struct Clock {
    /// When the loop was made.
    base: Instant,
    /// The last reading.
    now: Cell<u64>,
    is_virtual: bool,
    /// Since when (in real time) a virtual clock has been held without moving.
    held_since: Cell<Option<Instant>>,
}

impl Clock {
    pub(crate) fn real() -> Clock {
        Clock {
            base: Instant::now(),
            now: Cell::new(0),
            is_virtual: false,
            held_since: Cell::new(None),
        }
    }

    pub(crate) fn virtual_time() -> Clock {
        Clock { is_virtual: true, ..Clock::real() }
    }

    pub(crate) fn is_virtual(&self) -> bool {
        self.is_virtual
    }

    /// The last reading. It costs nothing, and is never later than the present.
    pub(crate) fn last(&self) -> u64 {
        self.now.get()
    }

    /// Reads the clock.
    pub(crate) fn read(&self) -> u64 {
        if !self.is_virtual {
            self.now.set(nanos(self.base.elapsed()));
        }
        self.now.get()
    }

    /// Moves a virtual clock forward.
    pub(crate) fn advance_to(&self, now: u64) {
        debug_assert!(self.is_virtual);
        self.now.set(self.now.get().max(now));
        self.held_since.set(None);
    }

    /// How much real time it takes until a virtual clock that is held may reach `deadline`. If it was not
    /// held before, it is from now on.
    pub(crate) fn held_until(&self, deadline: u64) -> Duration {
        let since = self.held_since.get().unwrap_or_else(Instant::now);
        self.held_since.set(Some(since));
        Duration::from_nanos(deadline.saturating_sub(self.last())).saturating_sub(since.elapsed())
    }

    /// A virtual clock is not held any more.
    pub(crate) fn let_go(&self) {
        self.held_since.set(None);
    }

    /// The deadline `delay` from now; [`NEVER`] if that is further than the clock can count.
    pub(crate) fn after(&self, delay: Duration) -> u64 {
        self.read().saturating_add(nanos(delay))
    }

    /// The deadline at `when`; 0 for an instant before the loop was made.
    pub(crate) fn at(&self, when: Instant) -> u64 {
        nanos(when.saturating_duration_since(self.base))
    }

    /// The instant of a reading.
    pub(crate) fn instant(&self, now: u64) -> Instant {
        self.base + Duration::from_nanos(now)
    }

    /// The instant of a deadline; none if it is [`NEVER`], or further than an instant can be.
    pub(crate) fn due(&self, deadline: u64) -> Option<Instant> {
        let delay = (deadline != NEVER).then(|| Duration::from_nanos(deadline))?;
        self.base.checked_add(delay)
    }
}

/// A duration in nanoseconds. One that does not fit into 64 bits, of five centuries and more, is [`NEVER`].
pub(crate) fn nanos(duration: Duration) -> u64 {
    let seconds = duration.as_secs().saturating_mul(1_000_000_000);
    seconds.saturating_add(duration.subsec_nanos().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_clock_moves_only_forward_and_only_when_told() {
        let clock = Clock::virtual_time();
        assert_eq!((clock.read(), clock.last()), (0, 0));
        clock.advance_to(7);
        clock.advance_to(3);
        assert_eq!((clock.read(), clock.last()), (7, 7));
        assert_eq!(clock.after(Duration::from_nanos(5)), 12);
    }

    #[test]
    fn a_virtual_clock_that_is_held_runs_no_faster_than_the_real_one() {
        let clock = Clock::virtual_time();
        let hour = Duration::from_secs(3600);
        let left = clock.held_until(nanos(hour));
        assert!(left <= hour && left > hour / 2);
        assert_eq!(clock.held_until(0), Duration::ZERO);
        let early = clock.held_since.get().unwrap() - hour;
        clock.held_since.set(Some(early));
        assert_eq!(clock.held_until(nanos(hour)), Duration::ZERO);
        // After each move, the waiting begins anew.
        clock.advance_to(1);
        assert!(clock.held_until(nanos(hour)) > hour / 2);
        clock.let_go();
        assert_eq!(clock.held_since.get(), None);
    }

    #[test]
    fn far_and_past_times_saturate() {
        let clock = Clock::virtual_time();
        clock.advance_to(10);
        assert_eq!(clock.after(Duration::MAX), NEVER);
        assert_eq!(clock.at(clock.base - Duration::from_secs(1)), 0);
        assert_eq!(clock.at(clock.instant(10)), 10);
    }

    #[test]
    fn a_real_clock_remembers_its_last_reading() {
        let clock = Clock::real();
        let read = clock.read();
        assert_eq!(clock.last(), read);
        assert!(clock.read() >= read);
    }
}
