//! The loop's timers: a hierarchical wheel that is plain data.
//!
//! The wheel knows no clock and no loop. Deadlines, and the `now` they are compared with, are
//! nanoseconds since the loop's epoch, and `now` is always an argument: real time and the virtual
//! time of tests look the same from here.
//!
//! # The wheel
//!
//! Time is cut into ticks of 2^20 ns, about a millisecond. A tick's number is read as groups of
//! six bits, a level for each group, 64 slots a level; eight levels reach as far as a `u64` does.
//! A timer lives on the level of the highest group in which its tick differs from `elapsed`, the
//! tick the wheel has come to, in the slot that this group numbers:
//!
//! ```text
//! elapsed   .. 000011 010110 101000
//! deadline  .. 000011 011001 000111
//!                     ^^^^^^ the first to differ: level 1, slot 25
//! ```
//!
//! So the innermost level holds what comes due within the current 64 ticks, a tick a slot, and any
//! slot of an outer level starts after all that is further in. When `elapsed` comes to an outer
//! slot, the slot's timers now differ from it in a lower group only, and *cascade*: they move
//! inwards. A timer cascades at most seven times; most are cancelled before the first.
//!
//! A deadline already past, or in the current tick, goes to the slot of the current tick.
//!
//! # Order, to the nanosecond
//!
//! Slots say only which tick. A slot is a queue of deadlines and keys in the order of insertion:
//! timers are appended, and a cascade walks from front to back and appends. The level and slot of a
//! timer follow from its tick and `elapsed` alone, so timers of equal deadline always share a queue,
//! and sorting a queue by deadline, those of equal deadline as they are, is all that Tornado's order
//! takes. That is done when a queue of the innermost level is first looked into, and again only if a
//! timer was appended out of order.
//!
//! # Removed, then found gone
//!
//! A timer that is removed leaves the table at once. Its key goes with it if it is the last of its
//! queue, as that of a time-out set a moment ago nearly always is; else it stays behind, finds nothing
//! when its time has come, and is skipped. When more than two thirds of all keys are such, all of them
//! are swept out. (asyncio does so with its heap.) Queues, not lists: what moves is two words side by
//! side, and a timer's entry is looked at when it is set and when it fires, not in between.
//!
//! # Collected, then taken
//!
//! All timers due in a turn are collected before any of them runs. A collected timer has left the
//! wheel but stays in the table until its payload is removed, and whoever comes first removes it:
//! the loop, to run it, or another due timer, to cancel it.
//!
//! # What it costs
//!
//! Inserting and removing touch the entry and the end of a queue: O(1), sweeping included, no
//! comparison with other timers, and no allocation once queues and table have grown. (A queue that
//! is empty gives back what a burst has made of it, and sorting a long one takes memory.) A level
//! allocates its queues when it gets its first timer, so a loop without timers owns none. The next
//! deadline is cached; once that is invalid, it is looked up in a bitmap a level, and at worst the
//! timers of one tick are sorted.

use std::collections::VecDeque;

use super::slots::{Full, Key, Slots};

/// The deadline of a timer that does not fire: it can only be removed.
pub(crate) const NEVER: u64 = u64::MAX;

/// A tick is `2^TICK_BITS` nanoseconds.
const TICK_BITS: u32 = 20;
/// A level has `2^GROUP_BITS` slots: as many as its bitmap has bits.
const GROUP_BITS: u32 = 6;
const SLOTS: usize = 1 << GROUP_BITS;
/// Enough for every tick of a `u64`.
const LEVELS: usize = (u64::BITS - TICK_BITS).div_ceil(GROUP_BITS) as usize;

/// A queue that is empty keeps memory for so many keys at most.
const KEPT: usize = 64;

/// Where a timer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Home {
    Wheel,
    /// Collected, not yet taken.
    Due,
    /// Its deadline is [`NEVER`].
    Never,
}

#[derive(Debug)]
struct Entry<T> {
    deadline: u64,
    home: Home,
    payload: T,
}

/// A place in the wheel, of a timer that may have been removed.
#[derive(Clone, Copy, Debug)]
struct Item {
    deadline: u64,
    key: Key,
}

impl Item {
    /// Whether the entry at its key is still where this says.
    fn is<T>(self, entry: &Entry<T>) -> bool {
        entry.home == Home::Wheel && entry.deadline == self.deadline
    }
}

type Queue = VecDeque<Item>;

#[derive(Debug)]
struct Level {
    /// Bit `n` is set while queue `n` has items.
    occupied: u64,
    /// A queue a slot; none before the level gets its first timer.
    queues: Vec<Queue>,
}

impl Level {
    const EMPTY: Level = Level { occupied: 0, queues: Vec::new() };

    #[cold]
    fn make(&mut self) {
        self.queues.resize_with(SLOTS, Queue::new);
    }

    /// A queue has become empty.
    fn emptied(&mut self, slot: usize) {
        self.occupied &= !(1 << slot);
        let queue = &mut self.queues[slot];
        if queue.capacity() > KEPT {
            *queue = Queue::new();
        }
    }
}

/// Where a deadline belongs, as long as `elapsed` does not come there.
#[derive(Clone, Copy)]
struct Place {
    tick: u64,
    level: usize,
    slot: usize,
    /// When a timer there first needs attention: to be collected, or to cascade.
    turning_point: u64,
}

/// The wheel, with a payload for each timer: a waker or a callback.
#[derive(Debug)]
pub(crate) struct Timers<T> {
    entries: Slots<Entry<T>>,
    levels: [Level; LEVELS],
    /// The tick the wheel has come to. No queue but the current tick's holds anything earlier.
    elapsed: u64,
    /// No call of `collect_due` before this can do anything; [`NEVER`] if the wheel is empty.
    next: u64,
    /// Whether `next` is the answer of `next_deadline`, or only a time before it.
    next_is_exact: bool,
    /// The tick whose queue is in the order of deadlines.
    sorted: u64,
    /// How many entries are [`Home::Wheel`], and how many items have none any more.
    waiting: usize,
    gone: usize,
    /// How many entries are [`Home::Due`].
    collected: usize,
    /// Where `pop_any` found its last entry.
    popped: usize,
}

impl<T> Timers<T> {
    pub(crate) const fn new() -> Timers<T> {
        Timers {
            entries: Slots::new(),
            levels: [Level::EMPTY; LEVELS],
            elapsed: 0,
            next: NEVER,
            next_is_exact: true,
            sorted: NEVER,
            waiting: 0,
            gone: 0,
            collected: 0,
            popped: 0,
        }
    }

    /// Adds a timer, behind those of the same deadline. The deadline may be past; if it is
    /// [`NEVER`], the timer stays until removed.
    pub(crate) fn insert(&mut self, deadline: u64, payload: T) -> Result<Key, Full> {
        let home = if deadline == NEVER { Home::Never } else { Home::Wheel };
        let key = self.entries.insert(Entry { deadline, home, payload })?;
        if home == Home::Wheel {
            self.waiting += 1;
            let turning_point = self.append(Item { deadline, key });
            if turning_point <= self.next {
                // `next` is before all others, exact or not.
                self.next = turning_point;
                self.next_is_exact = true;
            }
        }
        Ok(key)
    }

    /// Takes the timer out, collected or not, and returns its payload: to run it, or for the caller
    /// to drop where a destructor may call the loop. `None` if that has happened before.
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let entry = self.entries.remove(key)?;
        match entry.home {
            Home::Wheel => self.leave(Item { deadline: entry.deadline, key }),
            Home::Due => self.collected -= 1,
            Home::Never => {}
        }
        Some(entry.payload)
    }

    /// [`remove`](Timers::remove) for a timer that was collected, if it is still there.
    #[inline]
    pub(crate) fn take_collected(&mut self, key: Key) -> Option<T> {
        let entry = self.entries.remove(key)?;
        debug_assert!(matches!(entry.home, Home::Due));
        self.collected -= 1;
        Some(entry.payload)
    }

    /// A timer has left the table before its time.
    fn leave(&mut self, item: Item) {
        self.waiting -= 1;
        let place = self.place(item.deadline);
        if place.turning_point == self.next {
            // Nothing has become earlier, so `next` still holds as a bound.
            self.next_is_exact = false;
        }
        let level = &mut self.levels[place.level];
        let queue = &mut level.queues[place.slot];
        if queue.back().is_some_and(|last| last.key == item.key) {
            queue.pop_back();
            if queue.is_empty() {
                level.emptied(place.slot);
            }
        } else {
            self.gone += 1;
        }
        if self.gone > 2 * self.waiting {
            self.sweep();
        }
    }

    /// Throws out the items of timers that were removed.
    #[cold]
    fn sweep(&mut self) {
        let entries = &self.entries;
        for level in &mut self.levels {
            let mut occupied = level.occupied;
            while occupied != 0 {
                let slot = occupied.trailing_zeros() as usize;
                occupied &= occupied - 1;
                let queue = &mut level.queues[slot];
                queue.retain(|item| entries.get(item.key).is_some_and(|entry| item.is(entry)));
                queue.shrink_to(KEPT.max(2 * queue.len()));
                if queue.is_empty() {
                    level.emptied(slot);
                }
            }
        }
        self.gone = 0;
    }

    /// The payload of a timer that has not been removed, collected or not.
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.entries.get_mut(key).map(|entry| &mut entry.payload)
    }

    /// Whether [`collect_due`](Timers::collect_due) has nothing to do at `now`.
    pub(crate) fn is_settled(&self, now: u64) -> bool {
        now < self.next && now >> TICK_BITS <= self.elapsed
    }

    /// Moves the wheel to `now` and appends the keys of all timers with `deadline <= now` to `due`,
    /// in the order of their deadlines, those of equal deadline in the order of insertion. They
    /// leave the wheel, but their payloads stay until [`remove`](Timers::remove)d.
    ///
    /// A `now` before an earlier one is allowed and moves nothing.
    pub(crate) fn collect_due(&mut self, now: u64, due: &mut VecDeque<Key>) {
        let tick = self.elapsed.max(now >> TICK_BITS);
        if now >= self.next {
            self.advance(tick, now, due);
        }
        // What is left starts after `tick`, or in it, so it stays on its level.
        self.elapsed = tick;
    }

    /// When [`collect_due`](Timers::collect_due) must be called next, `None` if there is nothing to
    /// call it for. That is the earliest deadline if the innermost level holds it, otherwise a time
    /// no later, at which timers cascade. Either way the call gets on: something is collected, or
    /// the next answer is later.
    pub(crate) fn next_deadline(&mut self) -> Option<u64> {
        while !self.next_is_exact {
            self.next = match self.first_slot() {
                Some((0, slot)) => match self.earliest(slot) {
                    Some(item) => item.deadline,
                    None => continue,
                },
                Some((level, slot)) => self.start(level, slot) << TICK_BITS,
                None => NEVER,
            };
            self.next_is_exact = true;
        }
        (self.next != NEVER).then_some(self.next)
    }

    /// How many timers are not collected yet, those that never will be among them.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.collected
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes out any timer whatever, collected or not, until there is none: for a loop that closes.
    /// Between two calls destructors may add and remove timers.
    pub(crate) fn pop_any(&mut self) -> Option<T> {
        // Goes around from where it stopped; starting over each time would be quadratic. A timer
        // added meanwhile takes the slot vacated last, which is where the next call looks first.
        let key = self.entries.first_from(self.popped).or_else(|| self.entries.first_from(0))?;
        self.popped = key.index();
        self.remove(key)
    }

    /// Goes from slot to slot until `tick`, which includes `now`: cascades, collects, and leaves
    /// behind what `next` is after that.
    fn advance(&mut self, tick: u64, now: u64, due: &mut VecDeque<Key>) {
        while let Some((level, slot)) = self.first_slot() {
            let start = self.start(level, slot);
            if start > tick {
                self.next = start << TICK_BITS;
                self.next_is_exact = level > 0;
                return;
            }
            self.elapsed = start;
            if level > 0 {
                self.cascade(level, slot);
            } else if let Some(rest) = self.collect(slot, now, due) {
                self.next = rest;
                self.next_is_exact = true;
                return;
            }
        }
        self.next = NEVER;
        self.next_is_exact = true;
    }

    /// Moves the timers of an outer slot that `elapsed` has come to, in their order.
    fn cascade(&mut self, level: usize, slot: usize) {
        let mut queue = std::mem::take(&mut self.levels[level].queues[slot]);
        for item in queue.drain(..) {
            self.append(item);
        }
        self.levels[level].queues[slot] = queue;
        self.levels[level].emptied(slot);
    }

    /// Collects what is due in a slot of the innermost level. Returns the earliest deadline of the
    /// rest.
    fn collect(&mut self, slot: usize, now: u64, due: &mut VecDeque<Key>) -> Option<u64> {
        while let Some(item) = self.earliest(slot) {
            if item.deadline > now {
                return Some(item.deadline);
            }
            self.levels[0].queues[slot].pop_front();
            if let Some(entry) = self.entries.get_mut(item.key) {
                entry.home = Home::Due;
            }
            due.push_back(item.key);
            self.waiting -= 1;
            self.collected += 1;
        }
        None
    }

    /// The first timer in a queue of the innermost level, which is put in order if need be. What is
    /// gone before it is thrown out.
    fn earliest(&mut self, slot: usize) -> Option<Item> {
        let tick = self.start(0, slot);
        let level = &mut self.levels[0];
        let queue = &mut level.queues[slot];
        if self.sorted != tick {
            self.sorted = tick;
            queue.make_contiguous().sort_by_key(|item| item.deadline);
        }
        while let Some(&item) = queue.front() {
            if self.entries.get(item.key).is_some_and(|entry| item.is(entry)) {
                return Some(item);
            }
            queue.pop_front();
            self.gone = self.gone.saturating_sub(1);
        }
        level.emptied(slot);
        None
    }

    /// Appends an item to the queue where its deadline belongs, and says when that needs attention
    /// first.
    fn append(&mut self, item: Item) -> u64 {
        let Place { tick, level, slot, turning_point } = self.place(item.deadline);
        let level = &mut self.levels[level];
        if level.queues.is_empty() {
            level.make();
        }
        level.occupied |= 1 << slot;
        let queue = &mut level.queues[slot];
        let is_last = || queue.back().is_none_or(|last| item.deadline >= last.deadline);
        if tick == self.sorted && !is_last() {
            self.sorted = NEVER;
        }
        queue.push_back(item);
        turning_point
    }

    fn place(&self, deadline: u64) -> Place {
        let tick = self.elapsed.max(deadline >> TICK_BITS);
        // The highest bit that differs is in the level's group.
        let level = (tick ^ self.elapsed | 1).ilog2() / GROUP_BITS;
        let group = tick >> (level * GROUP_BITS);
        let start = group << (level * GROUP_BITS + TICK_BITS);
        Place {
            tick,
            level: level as usize,
            slot: group as usize % SLOTS,
            turning_point: if level == 0 { deadline } else { start },
        }
    }

    /// The occupied slot that starts first: every slot of a level comes before all further out.
    fn first_slot(&self) -> Option<(usize, usize)> {
        let level = self.levels.iter().position(|level| level.occupied != 0)?;
        Some((level, self.levels[level].occupied.trailing_zeros() as usize))
    }

    /// The first tick of a slot that is yet to come, or current.
    fn start(&self, level: usize, slot: usize) -> u64 {
        let shift = level as u32 * GROUP_BITS;
        let above = shift + GROUP_BITS;
        (self.elapsed >> above << above) | (slot as u64) << shift
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: u64 = 1 << TICK_BITS;
    const MS: u64 = 1_000_000;
    const HOUR: u64 = 3_600_000 * MS;
    const DAY: u64 = 24 * HOUR;
    const YEAR: u64 = 365 * DAY;

    /// Collects at `now` and takes the payloads, in order.
    fn fire<T>(timers: &mut Timers<T>, now: u64) -> Vec<T> {
        let mut due = VecDeque::new();
        timers.collect_due(now, &mut due);
        due.into_iter().map(|key| timers.remove(key).unwrap()).collect()
    }

    /// Steps virtual time through all that is in the wheel: what fired when, and in how many steps.
    fn run<T>(timers: &mut Timers<T>) -> (Vec<(u64, T)>, usize) {
        let (mut fired, mut steps) = (Vec::new(), 0);
        while let Some(now) = timers.next_deadline() {
            fired.extend(fire(timers, now).into_iter().map(|payload| (now, payload)));
            steps += 1;
        }
        (fired, steps)
    }

    #[test]
    fn timers_fire_in_the_order_of_their_deadlines() {
        let mut timers = Timers::new();
        for deadline in [30 * MS, 10 * MS, DAY, 10 * MS + 1, 2 * HOUR, 20 * MS] {
            timers.insert(deadline, deadline).unwrap();
        }
        assert_eq!(fire(&mut timers, 10 * MS - 1), []);
        assert_eq!(fire(&mut timers, 25 * MS), [10 * MS, 10 * MS + 1, 20 * MS]);
        assert_eq!(fire(&mut timers, YEAR), [30 * MS, 2 * HOUR, DAY]);
        assert_eq!(timers.next_deadline(), None);
    }

    #[test]
    fn equal_deadlines_fire_in_the_order_of_insertion() {
        let mut timers = Timers::new();
        for n in 0..100 {
            timers.insert(5 * MS + n % 3, n).unwrap();
        }
        let mut expected: Vec<_> = (0..100).collect();
        expected.sort_by_key(|n| n % 3);
        assert_eq!(fire(&mut timers, 6 * MS), expected);
    }

    #[test]
    fn equal_deadlines_keep_their_order_across_cascades() {
        let mut timers = Timers::new();
        let deadline = 3 * DAY + 7;
        // Each is inserted after the earlier ones have cascaded once more, the last in the tick of
        // the deadline.
        let mut n = 0;
        for before in [2 * DAY, DAY, HOUR, 60_000 * MS, 1_000 * MS, 70 * MS, 5 * MS, 3, 0] {
            assert_eq!(fire(&mut timers, deadline - before - 1), []);
            for _ in 0..3 {
                timers.insert(deadline, n).unwrap();
                n += 1;
            }
        }
        assert_eq!(fire(&mut timers, deadline), (0..n).collect::<Vec<_>>());
    }

    #[test]
    fn a_timer_fires_at_its_nanosecond_and_not_before() {
        let mut timers = Timers::new();
        for deadline in [1, TICK - 1, TICK, TICK + 1, 64 * TICK - 1, 64 * TICK, 4096 * TICK] {
            timers.insert(deadline, deadline).unwrap();
            assert_eq!(fire(&mut timers, deadline - 1), []);
            assert_eq!(fire(&mut timers, deadline), [deadline]);
        }
    }

    #[test]
    fn part_of_the_current_slot_is_collected_and_the_rest_stays() {
        let mut timers = Timers::new();
        let base = 100 * TICK;
        fire(&mut timers, base);
        for offset in [300, 100, 200, 400, 100] {
            timers.insert(base + offset, offset).unwrap();
        }
        assert_eq!(timers.next_deadline(), Some(base + 100));
        assert_eq!(fire(&mut timers, base + 200), [100, 100, 200]);
        assert_eq!((timers.len(), timers.next_deadline()), (2, Some(base + 300)));
        timers.insert(base + 250, 250).unwrap();
        assert_eq!(timers.next_deadline(), Some(base + 250));
        assert_eq!(fire(&mut timers, base + 299), [250]);
        assert_eq!(fire(&mut timers, base + 400), [300, 400]);
    }

    #[test]
    fn past_deadlines_are_due_at_once_and_come_first() {
        let mut timers = Timers::new();
        fire(&mut timers, HOUR);
        for deadline in [HOUR + 1, HOUR, 5, HOUR - MS, 0, 5] {
            timers.insert(deadline, deadline).unwrap();
        }
        assert_eq!(timers.next_deadline(), Some(0));
        assert_eq!(fire(&mut timers, HOUR), [0, 5, 5, HOUR - MS, HOUR]);
        assert_eq!(timers.next_deadline(), Some(HOUR + 1));
    }

    #[test]
    fn a_clock_that_goes_back_moves_nothing_but_still_collects() {
        let mut timers = Timers::new();
        fire(&mut timers, HOUR);
        timers.insert(10, "past").unwrap();
        timers.insert(HOUR - 1, "less past").unwrap();
        timers.insert(HOUR + MS, "to come").unwrap();
        assert_eq!(fire(&mut timers, 9), [""; 0]);
        assert_eq!(fire(&mut timers, 10), ["past"]);
        assert_eq!(fire(&mut timers, 10), [""; 0]);
        assert_eq!(fire(&mut timers, HOUR + MS), ["less past", "to come"]);
    }

    #[test]
    fn a_due_timer_can_cancel_another_due_one() {
        let mut timers = Timers::new();
        let first = timers.insert(MS, "first").unwrap();
        let second = timers.insert(MS, "second").unwrap();
        let mut due = VecDeque::new();
        timers.collect_due(MS, &mut due);
        assert_eq!((due.make_contiguous(), timers.len()), (&mut [first, second][..], 0));
        assert_eq!(timers.remove(first), Some("first"));
        assert_eq!(timers.get_mut(second), Some(&mut "second"));
        assert_eq!(timers.remove(second), Some("second"));
        assert_eq!(timers.get_mut(second), None);
        assert_eq!(timers.remove(second), None);
    }

    #[test]
    fn a_collected_timer_is_not_collected_again() {
        let mut timers = Timers::new();
        timers.insert(MS, ()).unwrap();
        let mut due = VecDeque::new();
        timers.collect_due(MS, &mut due);
        timers.collect_due(HOUR, &mut due);
        assert_eq!((due.len(), timers.next_deadline()), (1, None));
    }

    #[test]
    fn a_removed_timer_never_fires_and_its_key_is_stale() {
        let mut timers = Timers::new();
        let keys: Vec<_> = (0..5).map(|n| timers.insert(HOUR, n).unwrap()).collect();
        // The middle, the head and the tail of a list.
        for n in [2, 0, 4] {
            assert_eq!(timers.remove(keys[n]), Some(n));
            assert_eq!(timers.remove(keys[n]), None);
        }
        assert_eq!((timers.len(), timers.is_empty()), (2, false));
        assert_eq!(fire(&mut timers, HOUR), [1, 3]);
        assert!(timers.is_empty());
    }

    #[test]
    fn a_timer_that_never_fires_can_only_be_removed() {
        let mut timers = Timers::new();
        let never = timers.insert(NEVER, "never").unwrap();
        assert_eq!((timers.len(), timers.next_deadline()), (1, None));
        timers.insert(NEVER - 1, "at the end").unwrap();
        assert_eq!(fire(&mut timers, NEVER), ["at the end"]);
        assert_eq!((timers.len(), timers.next_deadline()), (1, None));
        assert_eq!(timers.remove(never), Some("never"));
        assert_eq!((timers.is_empty(), timers.remove(never)), (true, None));
    }

    #[test]
    fn far_deadlines_are_hit_exactly_in_a_few_steps() {
        let deadlines =
            [1, HOUR + 1, 3 * HOUR, DAY - 1, 40 * DAY, YEAR, 500 * YEAR + 123, NEVER - 1];
        let mut timers = Timers::new();
        for deadline in deadlines.into_iter().rev() {
            timers.insert(deadline, deadline).unwrap();
        }
        let (fired, steps) = run(&mut timers);
        assert_eq!(fired, deadlines.map(|deadline| (deadline, deadline)));
        assert!(steps <= deadlines.len() * LEVELS, "{steps} steps");
    }

    #[test]
    fn the_next_deadline_follows_insertion_and_removal() {
        let mut timers = Timers::new();
        assert_eq!(timers.next_deadline(), None);
        let far = timers.insert(DAY, ()).unwrap();
        let cascade = timers.next_deadline().unwrap();
        assert!(cascade <= DAY && cascade > DAY / 2);
        let near = timers.insert(9 * MS, ()).unwrap();
        let nearer = timers.insert(8 * MS, ()).unwrap();
        let same = timers.insert(8 * MS, ()).unwrap();
        assert_eq!(timers.next_deadline(), Some(8 * MS));
        timers.remove(nearer);
        assert_eq!(timers.next_deadline(), Some(8 * MS));
        timers.remove(same);
        // A bound that is no longer exact must not hide a timer that is.
        let between = timers.insert(8 * MS + 1, ()).unwrap();
        assert_eq!(timers.next_deadline(), Some(8 * MS + 1));
        timers.remove(between);
        assert_eq!(timers.next_deadline(), Some(9 * MS));
        timers.remove(near);
        assert_eq!(timers.next_deadline(), Some(cascade));
        timers.remove(far);
        assert_eq!(timers.next_deadline(), None);
    }

    #[test]
    fn a_wheel_in_steady_use_grows_no_more() {
        let mut timers = Timers::new();
        let mut rng = Rng(7);
        let mut due = VecDeque::with_capacity(256);
        let mut now = 0;
        for _ in 0..200 {
            let inserted =
                [(); 200].map(|()| timers.insert(now + rng.below(100 * MS), ()).unwrap());
            inserted.into_iter().take(100).for_each(|key| {
                timers.remove(key).unwrap();
            });
            now += 100 * MS;
            timers.collect_due(now, &mut due);
            assert_eq!(due.len(), 100);
            due.drain(..).for_each(|key| timers.remove(key).unwrap());
        }
        assert!(timers.entries.capacity() <= 256);
        // A hundred in as many ticks: few in each queue.
        assert!(queued(&timers) <= 2 * SLOTS * 16, "{}", queued(&timers));
    }

    #[test]
    fn a_wheel_without_timers_owns_no_memory() {
        let mut timers = Timers::<()>::new();
        timers.insert(NEVER, ()).unwrap();
        timers.collect_due(HOUR, &mut VecDeque::new());
        assert!(timers.levels.iter().all(|level| level.queues.capacity() == 0));
    }

    #[test]
    fn an_entry_is_its_deadline_its_payload_and_a_word() {
        let word = size_of::<usize>();
        assert_eq!(size_of::<Entry<[usize; 2]>>(), size_of::<u64>() + 3 * word);
        assert_eq!(size_of::<Option<Entry<u64>>>(), size_of::<Entry<u64>>());
    }

    /// How many items the queues have room for.
    fn queued<T>(timers: &Timers<T>) -> usize {
        timers.levels.iter().flat_map(|level| &level.queues).map(Queue::capacity).sum()
    }

    #[test]
    fn what_was_removed_takes_no_more_room_than_what_was_not() {
        let mut timers = Timers::new();
        let mut rng = Rng(3);
        let mut live = VecDeque::new();
        let mut most = 0;
        // First in, first out, so that hardly ever the last of a queue is removed.
        for _ in 0..100_000 {
            live.push_back(timers.insert(HOUR + rng.below(HOUR), ()).unwrap());
            if live.len() > 100 {
                timers.remove(live.pop_front().unwrap()).unwrap();
            }
            assert!(timers.gone <= 2 * timers.waiting);
            most = most.max(queued(&timers));
        }
        assert!(most < 64 * KEPT, "{most}");
        for key in live {
            timers.remove(key).unwrap();
        }
        assert_eq!((timers.gone, timers.next_deadline()), (0, None));
        assert!(timers.levels.iter().all(|level| level.occupied == 0));
    }

    #[test]
    fn a_burst_of_timers_leaves_no_queue_behind_that_long() {
        let mut timers = Timers::new();
        let keys: Vec<_> = (0..10_000).map(|n| timers.insert(HOUR + n % 7, ()).unwrap()).collect();
        for key in &keys[..9_999] {
            timers.remove(*key).unwrap();
        }
        assert!(queued(&timers) <= 2 * KEPT);
        for _ in 0..10_000 {
            timers.insert(2 * HOUR, ()).unwrap();
        }
        assert_eq!(run(&mut timers).0.len(), 10_001);
        assert!(queued(&timers) <= 8 * KEPT);
    }

    #[test]
    fn pop_any_drains_all_also_what_is_added_meanwhile() {
        let mut timers = Timers::new();
        for n in 0..10 {
            timers.insert(n * HOUR, n).unwrap();
        }
        timers.insert(NEVER, 10).unwrap();
        timers.collect_due(2 * HOUR, &mut VecDeque::new());
        assert_eq!(timers.len(), 8);
        let mut popped = Vec::new();
        while let Some(n) = timers.pop_any() {
            popped.push(n);
            // The second of two lands behind where the next look starts.
            if n == 5 {
                timers.insert(HOUR, 11).unwrap();
                timers.insert(NEVER, 12).unwrap();
            }
        }
        popped.sort_unstable();
        assert_eq!(popped, (0..13).collect::<Vec<_>>());
        assert_eq!((timers.len(), timers.next_deadline()), (0, None));
    }

    /// SplitMix64.
    struct Rng(u64);

    impl Rng {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ z >> 31
        }

        fn below(&mut self, end: u64) -> u64 {
            self.next() % end
        }

        /// Any magnitude below `2^bits` is as likely as any other.
        fn magnitude(&mut self, bits: u64) -> u64 {
            let shift = 64 - self.below(bits + 1);
            self.next().checked_shr(shift as u32).unwrap_or(0)
        }
    }

    /// Timers as a sorted list of deadline and number; a number is given once, in order.
    #[derive(Default)]
    struct Model {
        pending: Vec<(u64, u64)>,
        /// Collected, not yet taken, with their keys.
        due: Vec<(u64, Key)>,
        /// The keys of all that are pending, by position as in `pending`.
        keys: Vec<Key>,
        inserted: u64,
        now: u64,
    }

    impl Model {
        fn insert(&mut self, timers: &mut Timers<u64>, deadline: u64) {
            let number = self.inserted;
            self.inserted += 1;
            let key = timers.insert(deadline, number).unwrap();
            let place = self.pending.partition_point(|other| *other < (deadline, number));
            self.pending.insert(place, (deadline, number));
            self.keys.insert(place, key);
        }

        fn remove(&mut self, timers: &mut Timers<u64>, place: usize) {
            let (key, (_, number)) = (self.keys.remove(place), self.pending.remove(place));
            assert_eq!(timers.get_mut(key).copied(), Some(number));
            assert_eq!(timers.remove(key), Some(number));
            assert_eq!(timers.remove(key), None);
        }

        /// Returns how many were collected.
        fn collect(&mut self, timers: &mut Timers<u64>, now: u64) -> usize {
            let mut due = VecDeque::new();
            timers.collect_due(now, &mut due);
            let count = self
                .pending
                .partition_point(|(deadline, _)| *deadline <= now && *deadline != NEVER);
            assert_eq!(due.make_contiguous(), &self.keys[..count]);
            for (key, (_, number)) in self.keys.drain(..count).zip(self.pending.drain(..count)) {
                assert_eq!(timers.get_mut(key).copied(), Some(number));
                self.due.push((number, key));
            }
            self.now = self.now.max(now);
            count
        }

        fn check_next(&self, timers: &mut Timers<u64>) -> Option<u64> {
            let earliest = self.pending.first().map(|timer| timer.0).filter(|at| *at != NEVER);
            let next = timers.next_deadline();
            match (next, earliest) {
                (Some(next), Some(earliest)) => {
                    assert!(next <= earliest, "{next} is later than {earliest}");
                    let tick = (earliest >> TICK_BITS).max(timers.elapsed);
                    if (tick ^ timers.elapsed) < SLOTS as u64 {
                        assert_eq!(next, earliest);
                    }
                }
                (next, earliest) => assert_eq!(next, earliest),
            }
            next
        }

        /// Goes to where the wheel says, which must get it on.
        fn step(&mut self, timers: &mut Timers<u64>) -> bool {
            let Some(next) = self.check_next(timers) else { return false };
            if self.collect(timers, next) == 0 {
                assert!(self.check_next(timers).is_some_and(|after| after > next));
            }
            true
        }
    }

    #[test]
    fn the_wheel_agrees_with_a_sorted_list() {
        for seed in 0..8 {
            let mut rng = Rng(seed);
            let mut timers = Timers::new();
            let mut model = Model::default();
            for _ in 0..50_000 {
                match rng.below(100) {
                    0..45 => {
                        let deadline = match rng.below(20) {
                            0 => model.now.saturating_sub(rng.magnitude(50)),
                            1 => NEVER - rng.below(3),
                            // The same again, for the order of equals.
                            2..6 if !model.pending.is_empty() => {
                                model.pending[rng.below(model.pending.len() as u64) as usize].0
                            }
                            _ => model.now.saturating_add(rng.magnitude(55)),
                        };
                        model.insert(&mut timers, deadline);
                    }
                    45..63 if !model.pending.is_empty() => {
                        let place = match rng.below(4) {
                            0 => 0,
                            _ => rng.below(model.pending.len() as u64) as usize,
                        };
                        model.remove(&mut timers, place);
                    }
                    63..70 => {
                        let now = model.now.saturating_add(rng.magnitude(47));
                        model.collect(&mut timers, now);
                    }
                    70..72 => {
                        let now = model.now.saturating_sub(rng.magnitude(40));
                        model.collect(&mut timers, now);
                    }
                    // The end of time is for the end of the test.
                    72..88 if timers.next_deadline().is_some_and(|next| next < 500 * YEAR) => {
                        model.step(&mut timers);
                    }
                    _ if !model.due.is_empty() => {
                        let place = rng.below(model.due.len() as u64) as usize;
                        let (number, key) = model.due.swap_remove(place);
                        assert_eq!(timers.remove(key), Some(number));
                        assert_eq!(timers.remove(key), None);
                    }
                    _ => {}
                }
                if rng.below(2) == 0 {
                    model.check_next(&mut timers);
                }
                assert_eq!(timers.len(), model.pending.len());
            }
            if seed % 2 == 0 {
                while model.step(&mut timers) {}
                assert!(model.pending.iter().all(|timer| timer.0 == NEVER));
            }
            let mut left: Vec<_> = model.pending.iter().map(|timer| timer.1).collect();
            left.extend(model.due.iter().map(|timer| timer.0));
            left.sort_unstable();
            let mut popped: Vec<_> = std::iter::from_fn(|| timers.pop_any()).collect();
            popped.sort_unstable();
            assert_eq!(popped, left);
            assert_eq!((timers.len(), timers.next_deadline()), (0, None));
        }
    }
}
