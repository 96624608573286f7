//! How long the loop works before it *looks up*, that is, asks its selector, its inbox and its timers.
//!
//! While entries are ready, nothing forces the loop to do that. So it does it by itself: after 64 entries, or
//! 100 µs after it has looked up last, whichever comes first.
//!
//! To know whether 100 µs are over, the loop would have to read the clock after each entry, which costs more
//! than a short entry does. So it estimates: from how long an entry took lately (`each`), and from how much
//! of the 100 µs is left, follows how many more entries can run before the clock has to be read again. They
//! are 8 at most. So if entries become slow all at once, up to 8 slow ones run before that is noticed.
//!
//! The turn works like this: it runs as many entries as there is [room](Pace::room) for. When there is no
//! room left, it reads the clock and asks whether it [is time](Pace::is_time). If it is, the loop looks up,
//! and [says so](Pace::looked_up). If not, there is room for some more entries.
//!
//! This is plain data: `now` is an argument. A virtual clock does not move while entries run, so in virtual
//! time only the 64 entries count, which is the same in each run of a test.

use std::cell::Cell;

/// After so many entries the loop looks up. (tokio's default is 61.)
pub(super) const MOST: u64 = 64;
/// A turn begins with at most so many messages of other threads. (When the loop looks up in the midst of a turn, it
/// takes half as many as have run.)
pub(super) const MOST_POSTED: usize = 256;
/// After so many nanoseconds the loop looks up, too.
const LATENCY: u64 = 100_000;
/// The clock is read after so many entries at the latest.
const UNREAD: u64 = 8;
/// A slot that is woken need not wait for entries that take longer than so many nanoseconds together, going
/// by how long an entry took lately.
const LONG: u64 = 1_000_000;

pub(super) struct Pace {
    has_real_clock: bool,
    /// When so many entries have run since the loop looked up, the turn has to ask whether it is time.
    pause_at: Cell<u64>,
    /// How many entries may run until then.
    room: Cell<u64>,
    /// How many nanoseconds an entry took lately; 0 with a virtual clock.
    each: Cell<u64>,
    /// When the loop looked up last. If the clock was not read then, it is when the clock was first read
    /// after that; `None` until then.
    looked_at: Cell<Option<u64>>,
    /// How many entries had run between looking up and `looked_at`.
    untimed: Cell<u64>,
    /// Whether a coroutine gives way, and so wants the loop to look up.
    gives_way: Cell<bool>,
}

impl Pace {
    pub(super) fn new(has_real_clock: bool) -> Pace {
        let each = if has_real_clock { LATENCY } else { 0 };
        let unread = unread(LATENCY, each);
        Pace {
            has_real_clock,
            pause_at: Cell::new(unread),
            room: Cell::new(unread),
            each: Cell::new(each),
            looked_at: Cell::new(None),
            untimed: Cell::new(0),
            gives_way: Cell::new(false),
        }
    }

    /// How many entries may run before the turn has to ask whether it is time.
    #[inline]
    pub(super) fn room(&self) -> usize {
        self.room.get() as usize
    }

    /// Takes room for as many as `entries`, or for as many as there is room for. Returns how many the
    /// caller is to run.
    #[inline]
    pub(super) fn run(&self, entries: usize) -> usize {
        let room = self.room.get();
        let run = room.min(entries as u64);
        self.room.set(room - run);
        run as usize
    }

    /// How many entries have run since the loop looked up.
    pub(super) fn entries(&self) -> u64 {
        self.pause_at.get() - self.room.get()
    }

    /// Makes room for `more` entries, when so many `have_run`.
    fn pause_after(&self, have_run: u64, more: u64) {
        self.pause_at.set(have_run + more);
        self.room.set(more);
    }

    /// Whether a turn of so many entries may begin before the loop looks up, given that it is not time yet.
    /// It may not if it has too many entries to run all of them before it is time: then it is better to
    /// look up before the turn than in its midst.
    pub(super) fn may_begin(&self, entries: usize) -> bool {
        self.entries() + entries as u64 <= MOST
    }

    /// Whether it is time to look up. If not, there is [room](Pace::room) for some more.
    pub(super) fn is_time(&self, now: u64) -> bool {
        let entries = self.entries();
        if self.gives_way.get() || entries >= MOST {
            return true;
        }
        let known_since = self.looked_at.get();
        match known_since {
            Some(looked_at) => self.adapt(now.saturating_sub(looked_at)),
            None => {
                self.looked_at.set(Some(now));
                self.untimed.set(entries);
            }
        }
        // Entries that ran before the clock was read are taken to have been as long as the others.
        let each = self.each.get();
        let timed = now.saturating_sub(known_since.unwrap_or(now));
        let left = LATENCY.saturating_sub(timed + self.untimed.get() * each);
        if left == 0 && known_since.is_some() {
            return true;
        }
        self.pause_after(entries, unread(left, each).min(MOST - entries));
        false
    }

    /// Learns how long an entry takes: `spent` nanoseconds have passed since `looked_at`.
    fn adapt(&self, spent: u64) {
        let timed = self.entries() - self.untimed.get();
        if self.has_real_clock && timed > 0 {
            self.each.set((spent / timed).max(1));
        }
    }

    /// The loop has looked up. `was_busy` if it did not sleep meanwhile (time asleep says nothing of how long
    /// entries take); `now` if the clock was read.
    pub(super) fn looked_up(&self, was_busy: bool, now: Option<u64>) {
        if let (true, Some(before), Some(now)) = (was_busy, self.looked_at.get(), now) {
            self.adapt(now.saturating_sub(before));
        }
        self.looked_at.set(now);
        self.untimed.set(0);
        self.gives_way.set(false);
        self.pause_after(0, unread(LATENCY, self.each.get()));
    }

    /// Whether so many entries are too many for a slot that is woken to wait for all of them.
    #[inline]
    pub(super) fn is_long(&self, entries: usize) -> bool {
        let entries = entries as u64;
        entries > MOST || entries * self.each.get() > LONG
    }

    /// Has the loop look up after the entry that runs now.
    pub(super) fn give_way(&self) {
        self.gives_way.set(true);
        self.pause_after(self.entries(), 0);
    }
}

/// How many entries may run before the clock has to be read, if so many nanoseconds are left and an entry
/// takes as many as `each` says.
fn unread(left: u64, each: u64) -> u64 {
    left.checked_div(each).map_or(MOST, |entries| entries.clamp(1, UNREAD))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs entries that take as long as `each` says, until it is time. Returns how many they were, and how
    /// long they took.
    fn until_time(pace: &Pace, now: &mut u64, each: impl Fn(u64) -> u64) -> (u64, u64) {
        let begun = *now;
        for entries in 1..=2 * MOST {
            *now += each(entries);
            pace.run(1);
            if pace.room() == 0 && pace.is_time(*now) {
                let spent = *now - begun;
                pace.looked_up(true, Some(*now));
                return (entries, spent);
            }
        }
        panic!("it is never time");
    }

    #[test]
    fn it_is_time_after_64_entries_or_a_tenth_of_a_millisecond() {
        let (pace, mut now) = (Pace::new(true), 0);
        pace.looked_up(true, Some(now));
        for _ in 0..3 {
            for (each, expected) in
                [(20, 64), (1_500, 64), (25_000, 4), (100_000, 1), (10_000_000, 1)]
            {
                until_time(&pace, &mut now, |_| each);
                let (entries, _) = until_time(&pace, &mut now, |_| each);
                assert_eq!(entries, expected, "{each} ns");
            }
        }
    }

    #[test]
    fn whatever_the_pace_was_the_time_is_not_much_exceeded() {
        for before in [20, 500, 5_000, 50_000] {
            for each in [1_000, 10_000, 90_000] {
                for quick in 0..MOST {
                    let (pace, mut now) = (Pace::new(true), 0);
                    pace.looked_up(true, Some(now));
                    until_time(&pace, &mut now, |_| before);
                    let change = |n| if n <= quick { before } else { each };
                    let (_, spent) = until_time(&pace, &mut now, change);
                    assert!(spent <= LATENCY + UNREAD * each, "{before}, {each}: {spent} ns");
                }
            }
        }
    }

    #[test]
    fn the_clock_is_not_read_after_each_short_entry() {
        let (pace, mut reads) = (Pace::new(true), 0);
        pace.looked_up(true, Some(0));
        for n in 1..=100 * MOST {
            pace.run(1);
            if pace.room() == 0 {
                reads += 1;
                if pace.is_time(20 * n) {
                    pace.looked_up(true, Some(20 * n));
                }
            }
        }
        assert!(reads <= 100 * MOST / UNREAD + 8, "{reads}");
    }

    #[test]
    fn what_ran_before_the_clock_was_read_is_taken_to_be_like_what_runs_after() {
        let pace = Pace::new(true);
        pace.looked_up(false, None);
        pace.run(1);
        assert!(pace.room() == 0 && !pace.is_time(10_000_000));
        pace.run(1);
        assert!(pace.room() == 0 && !pace.is_time(10_040_000));
        pace.run(1);
        assert!(pace.room() == 0 && pace.is_time(10_080_000));
        // After looking up again, it is known from the start how long an entry takes.
        pace.looked_up(false, None);
        assert_eq!((pace.run(64), pace.room()), (2, 0));
        assert!(!pace.is_time(20_000_000));
        pace.run(1);
        assert!(pace.room() == 0 && pace.is_time(20_040_000));
    }

    #[test]
    fn what_was_slept_says_nothing_about_the_pace() {
        let (pace, mut now) = (Pace::new(true), 0);
        pace.looked_up(true, Some(now));
        until_time(&pace, &mut now, |_| 20);
        pace.looked_up(false, Some(now + 1_000_000_000));
        assert_eq!(pace.room() as u64, UNREAD);
    }

    #[test]
    fn a_turn_that_would_be_cut_in_two_is_not_begun() {
        let pace = Pace::new(false);
        assert!(pace.may_begin(64) && !pace.may_begin(65));
        assert_eq!((pace.run(10), pace.room()), (10, 54));
        assert!(pace.may_begin(54) && !pace.may_begin(55));
        assert_eq!((pace.run(100), pace.room()), (54, 0));
        assert!(!pace.may_begin(1) && pace.is_time(0));
    }

    #[test]
    fn a_queue_is_long_by_how_many_they_are_or_how_long_they_take() {
        let pace = Pace::new(false);
        assert!(!pace.is_long(64) && pace.is_long(65));
        let (pace, mut now) = (Pace::new(true), 0);
        pace.looked_up(true, Some(now));
        until_time(&pace, &mut now, |_| 20_000);
        assert!(!pace.is_long(50) && pace.is_long(51));
    }

    #[test]
    fn a_coroutine_that_gives_way_makes_it_time_once() {
        let pace = Pace::new(false);
        pace.run(1);
        pace.give_way();
        assert!(pace.room() == 0 && pace.is_time(0));
        pace.looked_up(true, Some(0));
        assert!(pace.room() == 64 && !pace.is_time(0));
    }
}
