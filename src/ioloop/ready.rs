//! What runs next.
//!
//! The run queue holds callbacks and the keys of slots, in the order in which they became ready:
//! one queue, so that order is total. A slot is in it at most once: waking it marks it in the table,
//! taking it out takes the mark off.
//!
//! # Those who do not wait for a long queue
//!
//! Who was woken by the selector, or by a timer, while many others were ready has a place in the queue
//! like anyone else, but its key is in a list of its own, and the place says only that the next one in that
//! list is to run. So the turn may also take it from there before its place has come, if that is too
//! far away; one place later on is then void.
//!
//! Plain data: what is in a slot, `R`, is whatever the loop resumes, and is only handed out here.

use std::collections::VecDeque;
use std::panic::Location;

use super::callback::Callback;
use crate::ground::slots::{Full, Key, Slots};

/// An entry of the run queue.
pub(crate) enum Ready {
    Slot(Key),
    Call(Callback),
}

/// The place of one who may run before it has come: the first of those who are `ahead`. (A variant of
/// its own would make every entry a word longer.)
const AHEAD: Key = Key::NONE;

/// The table of slots and the run queue over it. What is marked in the table is in the queue.
pub(crate) struct Scheduler<R> {
    slots: Slots<R, true>,
    queue: VecDeque<Ready>,
    /// Those who may run before their place has come; how many have done so whose place is still to
    /// come; and whether who is woken now is one of those.
    ahead: VecDeque<Key>,
    void: usize,
    goes_ahead: bool,
}

/// What the turn took from the queue.
pub(crate) enum Next<R> {
    Resume(Key, R),
    Call(Callback),
    /// The slot has gone meanwhile.
    Stale,
}

impl<R: Clone> Scheduler<R> {
    pub(crate) fn new() -> Scheduler<R> {
        Scheduler {
            slots: Slots::new(),
            queue: VecDeque::new(),
            ahead: VecDeque::new(),
            void: 0,
            goes_ahead: false,
        }
    }

    /// A slot for `resume`, queued from the start or not.
    pub(crate) fn insert(&mut self, resume: R, queued: bool) -> Result<Key, Full> {
        let key = self.slots.insert_marked(resume, queued)?;
        if queued {
            self.queue.push_back(Ready::Slot(key));
        }
        Ok(key)
    }

    /// Takes a slot out; the caller drops it when no borrow is held any more.
    pub(crate) fn remove(&mut self, key: Key) -> Option<R> {
        self.slots.remove(key)
    }

    /// Queues a slot unless it is queued already, or gone.
    #[inline]
    pub(crate) fn schedule(&mut self, key: Key) {
        if self.slots.mark(key) {
            let ready = if self.goes_ahead { self.go_ahead(key) } else { key };
            self.queue.push_back(Ready::Slot(ready));
        }
    }

    #[cold]
    fn go_ahead(&mut self, key: Key) -> Key {
        self.ahead.push_back(key);
        AHEAD
    }

    /// Whether who is woken from here on need not wait for all those who are ready.
    #[inline]
    pub(crate) fn let_go_ahead(&mut self, goes_ahead: bool) {
        self.goes_ahead = goes_ahead;
    }

    /// Puts the first `ready` entries in another order.
    pub(crate) fn shuffle(&mut self, ready: usize, mut random: impl FnMut() -> u64) {
        let entries = self.queue.make_contiguous();
        let is_ahead = |entry: &&mut Ready| matches!(entry, Ready::Slot(AHEAD));
        let places = entries.iter_mut().filter(is_ahead).skip(self.void);
        for (place, key) in places.zip(self.ahead.drain(..)) {
            *place = Ready::Slot(key);
        }
        for last in (1..ready.min(entries.len())).rev() {
            entries.swap(last, (random() % (last as u64 + 1)) as usize);
        }
    }

    pub(crate) fn call(&mut self, callback: Callback) {
        self.queue.push_back(Ready::Call(callback));
    }

    /// How much is ready: the snapshot that a turn runs.
    pub(crate) fn ready(&self) -> usize {
        self.queue.len()
    }

    #[inline]
    pub(crate) fn next(&mut self) -> Option<Next<R>> {
        Some(match self.queue.pop_front()? {
            Ready::Call(callback) => Next::Call(callback),
            Ready::Slot(key) => match self.slots.unmark(key) {
                Some(resume) => Next::Resume(key, resume.clone()),
                None => self.next_in_its_place(key),
            },
        })
    }

    #[cold]
    fn next_in_its_place(&mut self, place: Key) -> Next<R> {
        if place == AHEAD && self.void > 0 {
            self.void -= 1;
        } else if place == AHEAD
            && let Some(key) = self.ahead.pop_front()
        {
            return self.take(key);
        }
        Next::Stale
    }

    fn take(&mut self, key: Key) -> Next<R> {
        match self.slots.unmark(key) {
            Some(resume) => Next::Resume(key, resume.clone()),
            None => Next::Stale,
        }
    }

    /// The first of those who need not wait, before its place has come.
    pub(crate) fn next_ahead(&mut self) -> Option<Next<R>> {
        let key = self.ahead.pop_front()?;
        self.void += 1;
        Some(self.take(key))
    }

    /// Whether there is anybody who need not wait.
    pub(crate) fn has_ahead(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// Gives back what a burst has made of the queue.
    #[inline]
    pub(crate) fn give_back(&mut self) {
        give_back(&mut self.queue);
        give_back(&mut self.ahead);
    }

    /// What is in a slot.
    pub(crate) fn get(&self, key: Key) -> Option<&R> {
        self.slots.get(key)
    }

    /// How many slots are live.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Where the callbacks that are queued were added.
    pub(crate) fn callbacks(&self) -> Vec<&'static Location<'static>> {
        let location = |ready: &Ready| match ready {
            Ready::Call(callback) => Some(callback.location()),
            Ready::Slot(_) => None,
        };
        self.queue.iter().filter_map(location).collect()
    }

    /// Every live slot.
    pub(crate) fn keys(&self) -> Vec<Key> {
        self.slots.iter().map(|(key, _)| key).collect()
    }

    /// What is in each of the slots.
    pub(crate) fn slots(&self) -> impl Iterator<Item = &R> {
        self.slots.iter().map(|(_, slot)| slot)
    }
}

/// A queue that is hardly used keeps room for so many.
const KEPT: usize = 1024;

/// Gives back the memory of a queue that has been much longer than it is.
#[inline]
pub(super) fn give_back<T>(queue: &mut VecDeque<T>) {
    if queue.capacity() > KEPT {
        shrink(queue);
    }
}

#[cold]
fn shrink<T>(queue: &mut VecDeque<T>) {
    if queue.capacity() / 8 > queue.len() {
        queue.shrink_to(KEPT.max(2 * queue.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A scheduler with so many slots.
    fn scheduler(slots: usize) -> (Scheduler<()>, Vec<Key>) {
        let mut scheduler = Scheduler::new();
        let keys = (0..slots).map(|_| scheduler.insert((), false).unwrap()).collect();
        (scheduler, keys)
    }

    /// What is next, as its number among `keys`.
    fn number(next: Option<Next<()>>, keys: &[Key]) -> Option<usize> {
        match next? {
            Next::Resume(key, _) => keys.iter().position(|other| *other == key),
            Next::Call(_) | Next::Stale => None,
        }
    }

    #[test]
    fn who_may_go_ahead_has_its_place_all_the_same() {
        let (mut scheduler, keys) = scheduler(6);
        for (n, key) in keys.iter().enumerate() {
            scheduler.let_go_ahead(n % 2 == 1);
            scheduler.schedule(*key);
            scheduler.schedule(*key);
        }
        let order = [(); 6].map(|()| number(scheduler.next(), &keys).unwrap());
        assert_eq!(order, [0, 1, 2, 3, 4, 5]);
        assert!(scheduler.next().is_none() && scheduler.ahead.is_empty());
    }

    #[test]
    fn who_went_ahead_leaves_a_void_place_and_may_come_again() {
        let (mut scheduler, keys) = scheduler(4);
        scheduler.schedule(keys[0]);
        scheduler.let_go_ahead(true);
        scheduler.schedule(keys[1]);
        scheduler.schedule(keys[2]);
        assert_eq!(number(scheduler.next_ahead(), &keys), Some(1));
        scheduler.let_go_ahead(false);
        scheduler.schedule(keys[1]);
        scheduler.schedule(keys[3]);
        let mut order = Vec::new();
        while let Some(next) = scheduler.next() {
            order.push(number(Some(next), &keys));
        }
        assert_eq!(order, [Some(0), None, Some(2), Some(1), Some(3)]);
        assert_eq!((scheduler.void, scheduler.ahead.len()), (0, 0));
    }

    #[test]
    fn a_shuffle_takes_in_those_who_may_go_ahead() {
        let (mut scheduler, keys) = scheduler(4);
        scheduler.let_go_ahead(true);
        keys.iter().for_each(|key| scheduler.schedule(*key));
        scheduler.next_ahead();
        // The last with the first, and so on.
        scheduler.shuffle(4, || 0);
        let mut order = Vec::new();
        while let Some(next) = scheduler.next() {
            order.extend(number(Some(next), &keys));
        }
        assert_eq!(order, [1, 2, 3]);
        assert_eq!((scheduler.void, scheduler.ahead.len()), (0, 0));
    }

    #[test]
    fn a_queue_that_has_been_much_longer_keeps_room_for_twice_what_is_in_it() {
        let mut queue = VecDeque::with_capacity(100 * KEPT);
        queue.extend(0..20 * KEPT);
        give_back(&mut queue);
        assert!(queue.capacity() >= 100 * KEPT, "it is in use");
        queue.truncate(2 * KEPT);
        give_back(&mut queue);
        assert!((4 * KEPT..8 * KEPT).contains(&queue.capacity()), "{}", queue.capacity());
        queue.clear();
        give_back(&mut queue);
        assert!((KEPT..2 * KEPT).contains(&queue.capacity()), "{}", queue.capacity());
    }
}
