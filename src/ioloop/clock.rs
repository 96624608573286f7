//! The loop's clock: real, or virtual for tests.
//!
//! Times are nanoseconds since the loop was made, which is what the timer wheel counts in. The
//! clock remembers its last reading, so that whoever needs no fresh one pays for none. A virtual
//! clock moves only when the loop says so: it jumps to the next deadline when nothing else is left
//! to do.

use std::cell::Cell;
use std::time::{Duration, Instant};

pub(crate) struct Clock {
    base: Instant,
    now: Cell<u64>,
    is_virtual: bool,
}

impl Clock {
    pub(crate) fn real() -> Clock {
        Clock { base: Instant::now(), now: Cell::new(0), is_virtual: false }
    }

    pub(crate) fn virtual_time() -> Clock {
        Clock { is_virtual: true, ..Clock::real() }
    }

    pub(crate) fn is_virtual(&self) -> bool {
        self.is_virtual
    }

    /// The last reading; free, and never ahead of the time.
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
    }

    /// The deadline `delay` from now; [`NEVER`](super::timers::NEVER) if that is further than the clock
    /// can count.
    pub(crate) fn after(&self, delay: Duration) -> u64 {
        self.read().saturating_add(nanos(delay))
    }

    /// The deadline at `when`; an instant before the loop was made is in the past, like 0.
    pub(crate) fn at(&self, when: Instant) -> u64 {
        nanos(when.saturating_duration_since(self.base))
    }

    /// The instant of a reading.
    pub(crate) fn instant(&self, now: u64) -> Instant {
        self.base + Duration::from_nanos(now)
    }
}

/// A duration in nanoseconds; five centuries and more are [`NEVER`](super::timers::NEVER).
pub(super) fn nanos(duration: Duration) -> u64 {
    let seconds = duration.as_secs().saturating_mul(1_000_000_000);
    seconds.saturating_add(duration.subsec_nanos().into())
}

#[cfg(test)]
mod tests {
    use super::super::timers::NEVER;
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
