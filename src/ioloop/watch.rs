//! What a loop does for somebody who looks for a fault: it warns of slow callbacks, records its steps, or
//! runs what is ready in a random order.
//!
//! A loop that is asked for none of this looks at one flag, and pays nothing else.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::introspect::{Step, Trace};
use crate::ground::report;

pub(super) struct Watch {
    /// Whether anything of the following is asked for.
    is_on: bool,
    /// The loop warns of a callback or a resumption that takes longer than this.
    slow: Option<Duration>,
    trace: Option<Trace>,
    /// The state of the random numbers by which what is ready is put in another order, for tests.
    shuffle: Option<Cell<u64>>,
}

impl Watch {
    pub(super) fn new(slow: Option<Duration>, steps: Option<usize>, seed: Option<u64>) -> Watch {
        Watch {
            is_on: slow.is_some() || steps.is_some() || seed.is_some(),
            slow,
            trace: steps.map(Trace::new),
            shuffle: seed.map(Cell::new),
        }
    }

    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Records a step, if steps are recorded.
    #[inline]
    pub(super) fn step(&self, step: Step) {
        if let Some(trace) = &self.trace {
            trace.add(step);
        }
    }

    /// The last steps; none if they are not recorded.
    pub(super) fn steps(&self) -> Vec<Step> {
        self.trace.as_ref().map(Trace::steps).unwrap_or_default()
    }

    /// Random numbers by which what is ready is to be put in another order; `None` if it is not.
    pub(super) fn order(&self) -> Option<impl FnMut() -> u64> {
        self.shuffle.as_ref().map(|state| || next_random(state))
    }

    /// Calls `run`, and warns if that takes too long. `what` gives the name of what runs, and `waiting` how
    /// many entries are ready meanwhile; both are called before `run`.
    pub(super) fn timed(
        &self,
        what: impl FnOnce() -> String,
        waiting: impl FnOnce() -> usize,
        run: impl FnOnce(),
    ) {
        let Some(threshold) = self.slow else { return run() };
        let (what, waiting) = (what(), waiting());
        let start = Instant::now();
        run();
        let took = start.elapsed();
        if took > threshold {
            report::warn(
                report::IOLOOP,
                format_args!(
                    "{what} took {took:?}, more than {threshold:?}, while {waiting} others were waiting"
                ),
            );
        }
    }
}

/// SplitMix64: a small generator of random numbers, which are the same on every machine.
fn next_random(state: &Cell<u64>) -> u64 {
    state.set(state.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
    let mut z = state.get();
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise a seed would give another order on another machine.
    #[test]
    fn the_random_numbers_are_those_of_splitmix64() {
        let state = Cell::new(0);
        let numbers = [(); 3].map(|()| next_random(&state));
        assert_eq!(numbers, [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f]);
    }
}
