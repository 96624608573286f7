//! The loop's timers: a hierarchical wheel that is plain data.
//!
//! The wheel knows no clock and no loop. Deadlines, and the `now` they are compared with, are
//! nanoseconds since the loop was made, and `now` is always an argument: real time and the virtual
//! time of tests look the same from here.
//!
//! # The wheel
//!
//! Time is cut into ticks of 2^20 ns, about a millisecond. A tick's number is read as groups of
//! six bits. There is a level for each group, with 64 buckets; eight levels reach as far as a `u64` does.
//! `elapsed` is the tick that the wheel has come to. A timer lives on the level of the highest group in
//! which its own tick differs from `elapsed`, in the bucket that this group numbers:
//!
//! ```text
//! elapsed   .. 000011 010110 101000
//! deadline  .. 000011 011001 000111
//!                     ^^^^^^ the first group that differs: level 1, bucket 25
//! ```
//!
//! So the innermost level, level 0, has a bucket for each tick, and holds what comes due within the current
//! 64 ticks. Any bucket of an outer level starts later than all that is further in. When `elapsed` comes to
//! an outer bucket, the timers of that bucket differ from `elapsed` only in a lower group: they *cascade*,
//! that is, move to a level further in. A timer cascades at most seven times; most are removed before the
//! first.
//!
//! A deadline already past, or in the current tick, goes to the bucket of the current tick.
//!
//! # Order, to the nanosecond
//!
//! A bucket says only which tick. Its queue lists deadlines and keys in the order of insertion: timers are
//! appended, and a cascade walks from front to back and appends. The level and bucket of a timer follow from
//! its tick and `elapsed` alone, so timers of equal deadline always share a queue, in the order in which they
//! were inserted. To fire timers in Tornado's order, it is enough to sort a queue by deadline with a sort
//! that leaves equal ones as they are. That is done when a queue of the innermost level is first looked into,
//! and again only if a timer was appended out of order.
//!
//! # Removed at once, unlisted later
//!
//! A timer that is removed leaves the table at once. If it is the last of its queue, as a time limit set a
//! moment ago nearly always is, it is taken off the queue, too. Otherwise the queue still lists it: the key
//! is *stale*, finds nothing when its time has come, and is skipped. When more than two thirds of all listed
//! keys are stale, all stale ones are swept out. (asyncio does so with its heap.) These are queues and not
//! linked lists, so what a cascade moves is two words side by side, and the timer itself is looked at when it
//! is set and when it fires, not in between.
//!
//! # Collected, then fired
//!
//! All timers that are due in a turn are collected before any of them fires. A collected timer has left the
//! wheel but stays in the table until somebody removes it: the loop, to fire it, or the callback of another
//! timer that is due, to cancel it.
//!
//! # What it costs
//!
//! Inserting and removing touch the timer and the end of a queue: O(1), sweeping included, no
//! comparison with other timers, and no allocation once queues and table have grown. (A queue that becomes
//! empty gives back the memory that many timers at once have made it take, and sorting a long one takes
//! memory.) A level allocates its queues when it gets its first timer, so a loop without timers owns none.
//! The next deadline is cached. When it is no longer valid, it is looked up in the bitmaps of the levels, and
//! at worst the timers of one tick are sorted.

use std::collections::VecDeque;

use super::slots::{Full, Key, Slots};

/// The deadline of a timer that does not fire: it can only be removed.
pub(crate) const NEVER: u64 = u64::MAX;

/// A tick is `2^TICK_BITS` nanoseconds.
const TICK_BITS: u32 = 20;
/// A level has `2^GROUP_BITS` buckets: as many as its bitmap has bits.
const GROUP_BITS: u32 = 6;
const BUCKETS: usize = 1 << GROUP_BITS;
/// Enough levels for every tick of a `u64`.
const LEVELS: usize = (u64::BITS - TICK_BITS).div_ceil(GROUP_BITS) as usize;

/// A queue that is empty keeps memory for so many keys at most.
const KEPT: usize = 64;

/// Where a timer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Home {
    /// In the wheel: a queue lists it.
    Wheel,
    /// Due and collected, but neither fired nor removed yet.
    Collected,
    /// Its deadline is [`NEVER`].
    Never,
}

#[derive(Debug)]
struct Timer<T> {
    deadline: u64,
    home: Home,
    payload: T,
}

/// A timer as a queue lists it. The timer may have been removed since.
#[derive(Clone, Copy, Debug)]
struct Listed {
    deadline: u64,
    key: Key,
}

impl Listed {
    /// Whether `timer`, which was found by this key, is in the wheel with this deadline. If not, this is
    /// stale.
    fn still_names<T>(self, timer: &Timer<T>) -> bool {
        timer.home == Home::Wheel && timer.deadline == self.deadline
    }
}

type Queue = VecDeque<Listed>;

#[derive(Debug)]
struct Level {
    /// Bit `n` is set while the queue of bucket `n` is not empty.
    occupied: u64,
    /// A queue for each bucket; none before the level gets its first timer.
    queues: Vec<Queue>,
}

impl Level {
    const EMPTY: Level = Level { occupied: 0, queues: Vec::new() };

    #[cold]
    fn make(&mut self) {
        self.queues.resize_with(BUCKETS, Queue::new);
    }

    /// A queue has become empty.
    fn emptied(&mut self, index: usize) {
        self.occupied &= !(1 << index);
        let queue = &mut self.queues[index];
        if queue.capacity() > KEPT {
            *queue = Queue::new();
        }
    }
}

/// The bucket of a deadline. It changes when `elapsed` comes to it: then the timer cascades.
#[derive(Clone, Copy)]
struct Bucket {
    tick: u64,
    level: usize,
    /// Which one of its level it is.
    index: usize,
    /// When a timer in it next needs attention: to be collected, or to cascade.
    turning_point: u64,
}

/// The wheel, with a payload for each timer: a waker or a callback.
#[derive(Debug)]
pub(crate) struct Timers<T> {
    table: Slots<Timer<T>>,
    levels: [Level; LEVELS],
    /// The tick that the wheel has come to. Deadlines before it are in the bucket of this tick, if there are
    /// any.
    elapsed: u64,
    /// Before this time, `collect_due` has nothing to do; [`NEVER`] if the wheel is empty.
    next: u64,
    /// Whether `next` is what `next_deadline` is to answer. If not, it is only a lower bound of that.
    next_is_exact: bool,
    /// The tick whose queue is in the order of deadlines; [`NEVER`] if none is known to be.
    sorted: u64,
    /// How many timers are in the wheel ([`Home::Wheel`]).
    live: usize,
    /// How many listed keys are of timers that were removed.
    stale: usize,
    /// How many timers are collected ([`Home::Collected`]).
    collected: usize,
    /// The index of the slot that `pop_any` has emptied last.
    popped: usize,
}

impl<T> Timers<T> {
    pub(crate) const fn new() -> Timers<T> {
        Timers {
            table: Slots::new(),
            levels: [Level::EMPTY; LEVELS],
            elapsed: 0,
            next: NEVER,
            next_is_exact: true,
            sorted: NEVER,
            live: 0,
            stale: 0,
            collected: 0,
            popped: 0,
        }
    }

    /// Adds a timer, which fires after those of the same deadline. The deadline may be past. If it is
    /// [`NEVER`], the timer stays until it is removed.
    pub(crate) fn insert(&mut self, deadline: u64, payload: T) -> Result<Key, Full> {
        let home = if deadline == NEVER { Home::Never } else { Home::Wheel };
        let key = self.table.insert(Timer { deadline, home, payload })?;
        if home == Home::Wheel {
            self.live += 1;
            let turning_point = self.append(Listed { deadline, key });
            if turning_point <= self.next {
                // All others are at `next` or later, exact or not, so this timer is the first.
                self.next = turning_point;
                self.next_is_exact = true;
            }
        }
        Ok(key)
    }

    /// Removes the timer, collected or not, and returns its payload. The caller drops the payload when it
    /// holds no borrow, because a destructor may call the loop. `None` if the timer was removed before.
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let timer = self.table.remove(key)?;
        match timer.home {
            Home::Wheel => self.leave(Listed { deadline: timer.deadline, key }),
            Home::Collected => self.collected -= 1,
            Home::Never => {}
        }
        Some(timer.payload)
    }

    /// [`remove`](Timers::remove) for a timer that was collected: to fire it. `None` if it was removed since.
    #[inline]
    pub(crate) fn take_collected(&mut self, key: Key) -> Option<T> {
        let timer = self.table.remove(key)?;
        debug_assert!(matches!(timer.home, Home::Collected));
        self.collected -= 1;
        Some(timer.payload)
    }

    /// A timer was removed from the table while it was in the wheel.
    fn leave(&mut self, listed: Listed) {
        self.live -= 1;
        let bucket = self.bucket(listed.deadline);
        if bucket.turning_point == self.next {
            // Perhaps this was the first timer. The others are no earlier, so `next` is still a lower bound.
            self.next_is_exact = false;
        }
        let level = &mut self.levels[bucket.level];
        let queue = &mut level.queues[bucket.index];
        if queue.back().is_some_and(|last| last.key == listed.key) {
            queue.pop_back();
            if queue.is_empty() {
                level.emptied(bucket.index);
            }
        } else {
            self.stale += 1;
        }
        if self.stale > 2 * self.live {
            self.sweep();
        }
    }

    /// Takes all stale keys off the queues.
    #[cold]
    fn sweep(&mut self) {
        let table = &self.table;
        for level in &mut self.levels {
            let mut occupied = level.occupied;
            while occupied != 0 {
                let index = occupied.trailing_zeros() as usize;
                occupied &= occupied - 1;
                let queue = &mut level.queues[index];
                queue.retain(|listed| {
                    table.get(listed.key).is_some_and(|timer| listed.still_names(timer))
                });
                queue.shrink_to(KEPT.max(2 * queue.len()));
                if queue.is_empty() {
                    level.emptied(index);
                }
            }
        }
        self.stale = 0;
    }

    /// The payload of a timer that has not been removed, collected or not.
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.table.get_mut(key).map(|timer| &mut timer.payload)
    }

    /// Whether [`collect_due`](Timers::collect_due) has nothing to do at `now`.
    pub(crate) fn is_settled(&self, now: u64) -> bool {
        now < self.next && now >> TICK_BITS <= self.elapsed
    }

    /// Moves the wheel to `now` and appends the keys of all timers with `deadline <= now` to `due`, in the
    /// order of their deadlines, those of equal deadline in the order of insertion. These timers leave the
    /// wheel, but stay in the table until they are [removed](Timers::remove).
    ///
    /// A `now` that is earlier than that of a former call is allowed, and moves nothing.
    pub(crate) fn collect_due(&mut self, now: u64, due: &mut VecDeque<Key>) {
        let tick = self.elapsed.max(now >> TICK_BITS);
        if now >= self.next {
            self.advance(tick, now, due);
        }
        // All buckets that are left start in `tick` or later, so their timers need not cascade.
        self.elapsed = tick;
    }

    /// When [`collect_due`](Timers::collect_due) must be called next; `None` if there is nothing to call it
    /// for. That is the earliest deadline if the innermost level holds it. Otherwise it is the time at which
    /// an outer bucket cascades, which is no later than the earliest deadline. A call at that time always
    /// gets on: either it collects something, or the next answer is later.
    pub(crate) fn next_deadline(&mut self) -> Option<u64> {
        while !self.next_is_exact {
            self.next = match self.first_occupied() {
                Some((0, index)) => match self.earliest(index) {
                    Some(listed) => listed.deadline,
                    None => continue,
                },
                Some((level, index)) => self.start(level, index) << TICK_BITS,
                None => NEVER,
            };
            self.next_is_exact = true;
        }
        (self.next != NEVER).then_some(self.next)
    }

    /// How many timers are not collected yet, including those that never will be.
    pub(crate) fn len(&self) -> usize {
        self.table.len() - self.collected
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes any timer whatever, collected or not; `None` if there is none left. A loop that closes calls
    /// this until then. Between two calls destructors may add and remove timers.
    pub(crate) fn pop_any(&mut self) -> Option<T> {
        // Goes on from where the last call stopped; to start over each time would take quadratic time. A
        // timer added meanwhile takes the slot vacated last, which is where the next call looks first.
        let key = self.table.first_from(self.popped).or_else(|| self.table.first_from(0))?;
        self.popped = key.index();
        self.remove(key)
    }

    /// Goes from bucket to bucket until that of `tick`, the tick of `now`: cascades and collects on the way,
    /// and sets `next`.
    fn advance(&mut self, tick: u64, now: u64, due: &mut VecDeque<Key>) {
        while let Some((level, index)) = self.first_occupied() {
            let start = self.start(level, index);
            if start > tick {
                self.next = start << TICK_BITS;
                self.next_is_exact = level > 0;
                return;
            }
            self.elapsed = start;
            if level > 0 {
                self.cascade(level, index);
            } else if let Some(rest) = self.collect(index, now, due) {
                self.next = rest;
                self.next_is_exact = true;
                return;
            }
        }
        self.next = NEVER;
        self.next_is_exact = true;
    }

    /// Moves the timers of an outer bucket that `elapsed` has come to further in, in their order.
    fn cascade(&mut self, level: usize, index: usize) {
        let mut queue = std::mem::take(&mut self.levels[level].queues[index]);
        for listed in queue.drain(..) {
            self.append(listed);
        }
        self.levels[level].queues[index] = queue;
        self.levels[level].emptied(index);
    }

    /// Collects what is due in a bucket of the innermost level. Returns the earliest deadline of the rest.
    fn collect(&mut self, index: usize, now: u64, due: &mut VecDeque<Key>) -> Option<u64> {
        while let Some(listed) = self.earliest(index) {
            if listed.deadline > now {
                return Some(listed.deadline);
            }
            self.levels[0].queues[index].pop_front();
            if let Some(timer) = self.table.get_mut(listed.key) {
                timer.home = Home::Collected;
            }
            due.push_back(listed.key);
            self.live -= 1;
            self.collected += 1;
        }
        None
    }

    /// The first timer in a bucket of the innermost level. Sorts the queue if need be, and takes stale keys
    /// off its front.
    fn earliest(&mut self, index: usize) -> Option<Listed> {
        let tick = self.start(0, index);
        let level = &mut self.levels[0];
        let queue = &mut level.queues[index];
        if self.sorted != tick {
            self.sorted = tick;
            queue.make_contiguous().sort_by_key(|listed| listed.deadline);
        }
        while let Some(&listed) = queue.front() {
            if self.table.get(listed.key).is_some_and(|timer| listed.still_names(timer)) {
                return Some(listed);
            }
            queue.pop_front();
            self.stale = self.stale.saturating_sub(1);
        }
        level.emptied(index);
        None
    }

    /// Appends a timer to the queue of its bucket, and says when it next needs attention there.
    fn append(&mut self, listed: Listed) -> u64 {
        let Bucket { tick, level, index, turning_point } = self.bucket(listed.deadline);
        let level = &mut self.levels[level];
        if level.queues.is_empty() {
            level.make();
        }
        level.occupied |= 1 << index;
        let queue = &mut level.queues[index];
        let is_last = || queue.back().is_none_or(|last| listed.deadline >= last.deadline);
        if tick == self.sorted && !is_last() {
            self.sorted = NEVER;
        }
        queue.push_back(listed);
        turning_point
    }

    fn bucket(&self, deadline: u64) -> Bucket {
        let tick = self.elapsed.max(deadline >> TICK_BITS);
        // The highest bit that differs is in the group of the level.
        let level = (tick ^ self.elapsed | 1).ilog2() / GROUP_BITS;
        let group = tick >> (level * GROUP_BITS);
        let start = group << (level * GROUP_BITS + TICK_BITS);
        Bucket {
            tick,
            level: level as usize,
            index: group as usize % BUCKETS,
            turning_point: if level == 0 { deadline } else { start },
        }
    }

    /// The level and index of the occupied bucket that starts first: every bucket of a level starts before
    /// all buckets further out.
    fn first_occupied(&self) -> Option<(usize, usize)> {
        let level = self.levels.iter().position(|level| level.occupied != 0)?;
        Some((level, self.levels[level].occupied.trailing_zeros() as usize))
    }

    /// The first tick of a bucket that is current or yet to come.
    fn start(&self, level: usize, index: usize) -> u64 {
        let shift = level as u32 * GROUP_BITS;
        let above = shift + GROUP_BITS;
        (self.elapsed >> above << above) | (index as u64) << shift
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

    /// Collects at `now` and removes what was collected; returns the payloads in order.
    fn fire<T>(timers: &mut Timers<T>, now: u64) -> Vec<T> {
        let mut due = VecDeque::new();
        timers.collect_due(now, &mut due);
        due.into_iter().map(|key| timers.remove(key).unwrap()).collect()
    }

    /// Goes from one `next_deadline` to the next until the wheel is empty. Returns what fired when, and how
    /// many steps that took.
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
        // Each three are inserted after those before have cascaded once more, the last three in the tick
        // of the deadline.
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
    fn part_of_the_current_bucket_is_collected_and_the_rest_stays() {
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
        // From the middle, the front and the end of the queue.
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
        // `next` is only a lower bound now; that must not hide a timer that is set at that very time.
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
        assert!(timers.table.capacity() <= 256);
        // A hundred timers in a hundred ticks: few in each queue.
        assert!(queued(&timers) <= 2 * BUCKETS * 16, "{}", queued(&timers));
    }

    #[test]
    fn a_wheel_without_timers_owns_no_memory() {
        let mut timers = Timers::<()>::new();
        timers.insert(NEVER, ()).unwrap();
        timers.collect_due(HOUR, &mut VecDeque::new());
        assert!(timers.levels.iter().all(|level| level.queues.capacity() == 0));
    }

    #[test]
    fn a_timer_is_its_deadline_its_payload_and_a_word() {
        let word = size_of::<usize>();
        assert_eq!(size_of::<Timer<[usize; 2]>>(), size_of::<u64>() + 3 * word);
        assert_eq!(size_of::<Option<Timer<u64>>>(), size_of::<Timer<u64>>());
    }

    /// How many timers the queues have room to list.
    fn queued<T>(timers: &Timers<T>) -> usize {
        timers.levels.iter().flat_map(|level| &level.queues).map(Queue::capacity).sum()
    }

    #[test]
    fn what_was_removed_takes_no_more_room_than_what_was_not() {
        let mut timers = Timers::new();
        let mut rng = Rng(3);
        let mut live = VecDeque::new();
        let mut most = 0;
        // First in, first out, so that it is hardly ever the last of a queue that is removed.
        for _ in 0..100_000 {
            live.push_back(timers.insert(HOUR + rng.below(HOUR), ()).unwrap());
            if live.len() > 100 {
                timers.remove(live.pop_front().unwrap()).unwrap();
            }
            assert!(timers.stale <= 2 * timers.live);
            most = most.max(queued(&timers));
        }
        assert!(most < 64 * KEPT, "{most}");
        for key in live {
            timers.remove(key).unwrap();
        }
        assert_eq!((timers.stale, timers.next_deadline()), (0, None));
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
            // Two timers are added in the midst. The second takes a slot that the calls have passed already.
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

    /// The simplest thing that does what the wheel does: a sorted list of deadlines and numbers. A number is
    /// given once, in the order of insertion.
    #[derive(Default)]
    struct Model {
        pending: Vec<(u64, u64)>,
        /// The numbers and keys of those that are collected and not removed.
        due: Vec<(u64, Key)>,
        /// The keys of all in `pending`, in the same order.
        keys: Vec<Key>,
        inserted: u64,
        now: u64,
    }

    impl Model {
        fn insert(&mut self, timers: &mut Timers<u64>, deadline: u64) {
            let number = self.inserted;
            self.inserted += 1;
            let key = timers.insert(deadline, number).unwrap();
            let position = self.pending.partition_point(|other| *other < (deadline, number));
            self.pending.insert(position, (deadline, number));
            self.keys.insert(position, key);
        }

        fn remove(&mut self, timers: &mut Timers<u64>, position: usize) {
            let (key, (_, number)) = (self.keys.remove(position), self.pending.remove(position));
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
                    if (tick ^ timers.elapsed) < BUCKETS as u64 {
                        assert_eq!(next, earliest);
                    }
                }
                (next, earliest) => assert_eq!(next, earliest),
            }
            next
        }

        /// Collects at the time that the wheel says. Something is collected, or the next time is later.
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
                            // A deadline that there is already, to test the order of equal ones.
                            2..6 if !model.pending.is_empty() => {
                                model.pending[rng.below(model.pending.len() as u64) as usize].0
                            }
                            _ => model.now.saturating_add(rng.magnitude(55)),
                        };
                        model.insert(&mut timers, deadline);
                    }
                    45..63 if !model.pending.is_empty() => {
                        let position = match rng.below(4) {
                            0 => 0,
                            _ => rng.below(model.pending.len() as u64) as usize,
                        };
                        model.remove(&mut timers, position);
                    }
                    63..70 => {
                        let now = model.now.saturating_add(rng.magnitude(47));
                        model.collect(&mut timers, now);
                    }
                    70..72 => {
                        let now = model.now.saturating_sub(rng.magnitude(40));
                        model.collect(&mut timers, now);
                    }
                    // Deadlines near the end of time are left for the end of the test.
                    72..88 if timers.next_deadline().is_some_and(|next| next < 500 * YEAR) => {
                        model.step(&mut timers);
                    }
                    _ if !model.due.is_empty() => {
                        let position = rng.below(model.due.len() as u64) as usize;
                        let (number, key) = model.due.swap_remove(position);
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
