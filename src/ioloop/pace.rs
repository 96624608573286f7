//! How long the loop works before it looks up.
//!
//! While something is ready, nothing makes the loop ask its selector, its inbox and its timers, so it
//! has to do that by itself: after 64 entries, or 100 µs after the last time, whichever comes first.
//! (An entry is a resumption, a callback, or a timer that fires.) Reading the clock after each entry
//! would cost more than a short entry does. So it is read once for as many as the rest of that time is
//! enough for, going by how long they took lately, and for 8 of them at most: when entries become slow
//! all at once, up to 8 of them run before that is noticed.
//!
//! Plain data: `now` is an argument. A virtual clock does not move while entries run, so there it is 64
//! entries, and the same in each run.

use std::cell::Cell;

/// After so many entries the loop looks up. (tokio's default is 61.)
pub(super) const MOST: u64 = 64;
/// After so many nanoseconds it does, too.
const LATENCY: u64 = 100_000;
/// The clock is read after so many entries at the latest.
const UNREAD: u64 = 8;
/// Who is woken does not wait for entries that take so many nanoseconds together, going by how long they
/// took lately.
const LONG: u64 = 1_000_000;
/// Timers that are due within so many nanoseconds after others have fired share a wake-up: it costs
/// more than they do. (Linux lets a thread's own timers share one within the same time.)
const SHARED_WAKE_UP: u64 = 50_000;

pub(super) struct Pace {
    has_real_clock: bool,
    /// When so many entries have run since the loop looked up, it is to be asked whether it is time...
    pause_at: Cell<u64>,
    /// ...and so many of them are left until then.
    room: Cell<u64>,
    /// How long an entry took lately; 0 by a virtual clock.
    each: Cell<u64>,
    /// When the loop looked up; if the clock was not read then, when that was done first.
    looked_at: Cell<Option<u64>>,
    /// How many entries had run before that.
    untimed: Cell<u64>,
    /// Somebody gives way to others.
    is_asked: Cell<bool>,
    /// When timers fired last.
    fired_at: Cell<u64>,
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
            is_asked: Cell::new(false),
            fired_at: Cell::new(0),
        }
    }

    /// How many may run before it is to be asked whether it is time.
    #[inline]
    pub(super) fn room(&self) -> usize {
        self.room.get() as usize
    }

    /// So many entries run, if there is room for as many; tells how many they are.
    #[inline]
    pub(super) fn run(&self, entries: usize) -> usize {
        let room = self.room.get();
        let run = room.min(entries as u64);
        self.room.set(room - run);
        run as usize
    }

    /// How many have run since the loop looked up.
    fn entries(&self) -> u64 {
        self.pause_at.get() - self.room.get()
    }

    /// Lets some more run.
    fn pause_after(&self, before: u64, more: u64) {
        self.pause_at.set(before + more);
        self.room.set(more);
    }

    /// Whether a turn of so many entries may begin before the loop looks up, when it was found that it is
    /// not time. One that would be cut in two does not: better look up before it.
    pub(super) fn may_begin(&self, entries: usize) -> bool {
        self.entries() + entries as u64 <= MOST
    }

    /// Whether it is time to look up. If not, there is [room](Pace::room) for some more.
    pub(super) fn is_time(&self, now: u64) -> bool {
        let entries = self.entries();
        if self.is_asked.get() || entries >= MOST {
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
        // Those that were not timed are taken to have been like the others.
        let each = self.each.get();
        let timed = now.saturating_sub(known_since.unwrap_or(now));
        let left = LATENCY.saturating_sub(timed + self.untimed.get() * each);
        if left == 0 && known_since.is_some() {
            return true;
        }
        self.pause_after(entries, unread(left, each).min(MOST - entries));
        false
    }

    /// So much time was spent since the clock was read.
    fn adapt(&self, spent: u64) {
        let timed = self.entries() - self.untimed.get();
        if self.has_real_clock && timed > 0 {
            self.each.set((spent / timed).max(1));
        }
    }

    /// The loop has looked up, while it was busy or not; `now` if the clock was read.
    pub(super) fn looked_up(&self, was_busy: bool, now: Option<u64>) {
        if let (true, Some(before), Some(now)) = (was_busy, self.looked_at.get(), now) {
            self.adapt(now.saturating_sub(before));
        }
        self.looked_at.set(now);
        self.untimed.set(0);
        self.is_asked.set(false);
        self.pause_after(0, unread(LATENCY, self.each.get()));
    }

    /// Whether so many entries are too many for who is woken meanwhile to wait for all of them.
    #[inline]
    pub(super) fn is_long(&self, entries: usize) -> bool {
        let entries = entries as u64;
        entries > MOST || entries * self.each.get() > LONG
    }

    /// Lets the loop look up as soon as it can.
    pub(super) fn give_way(&self) {
        self.is_asked.set(true);
        self.pause_after(self.entries(), 0);
    }

    /// Timers fire.
    pub(super) fn fires(&self, now: u64) {
        self.fired_at.set(now);
    }

    /// When to wake up for a deadline.
    pub(super) fn wake_up_at(&self, deadline: u64, now: u64) -> u64 {
        let have_just_fired = now.saturating_sub(self.fired_at.get()) < SHARED_WAKE_UP;
        match deadline > now && have_just_fired {
            true => deadline.max(now + SHARED_WAKE_UP),
            false => deadline,
        }
    }
}

/// For how many entries the clock is not read, when so much time is left and each takes so long.
fn unread(left: u64, each: u64) -> u64 {
    left.checked_div(each).map_or(MOST, |entries| entries.clamp(1, UNREAD))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs entries that take as long as `each` says, until it is time; tells after how many that is, and
    /// how long it took.
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
        // The next time, it is known from the start how long they take.
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
    fn who_gives_way_makes_it_time_once() {
        let pace = Pace::new(false);
        pace.run(1);
        pace.give_way();
        assert!(pace.room() == 0 && pace.is_time(0));
        pace.looked_up(true, Some(0));
        assert!(pace.room() == 64 && !pace.is_time(0));
    }

    #[test]
    fn timers_that_follow_closely_on_others_share_a_wake_up() {
        let pace = Pace::new(true);
        pace.fires(1_000_000);
        assert_eq!(pace.wake_up_at(1_010_000, 1_005_000), 1_055_000);
        assert_eq!(pace.wake_up_at(1_200_000, 1_005_000), 1_200_000);
        assert_eq!(pace.wake_up_at(1_004_000, 1_005_000), 1_004_000, "it is late already");
        assert_eq!(pace.wake_up_at(1_060_000, 1_050_000), 1_060_000, "one that comes alone");
    }
}
