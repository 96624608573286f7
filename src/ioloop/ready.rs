//! The run queue: what runs next.
//!
//! The queue holds callbacks and the keys of slots, in the order in which they became ready: one queue for
//! both, so that this order is total. A slot is in the queue at most once: to queue it marks it in the
//! table, and to take it from the queue takes the mark off.
//!
//! # Going ahead of a long queue
//!
//! A slot that the selector or a timer wakes should not have to wait for thousands of entries that were ready
//! before. So while the queue is long, such a slot *goes ahead*: its key is put into a second list, `ahead`,
//! and at its position in the queue stands only [`AHEAD`], which means "the first one of `ahead`". Now the
//! turn has the choice. If it comes to that position, it resumes the first slot of `ahead`, and all is as if
//! the key had stood there. If the position is too far away, the turn resumes the first slot of `ahead`
//! before; then there is one position more than there are slots in `ahead`, so the next such position is
//! *void*, and is skipped.
//!
//! This is plain data: what is in a slot, `R`, is whatever the loop resumes, and is only given out here.

use std::collections::VecDeque;
use std::panic::Location;

use super::callback::Callback;
use super::inbox::Message;
use crate::ground::slots::{Full, Key, Slots};

/// An entry of the run queue.
pub(crate) enum Ready {
    Slot(Key),
    Call(Callback),
}

/// Stands in the queue for the first slot of `ahead`, or is void. (A variant of [`Ready`] would make every
/// entry a word longer.)
const AHEAD: Key = Key::NONE;

/// The table of slots and the run queue over it. The slots that are marked in the table are those that are in
/// the queue, or in `ahead`.
pub(crate) struct Scheduler<R> {
    slots: Slots<R, true>,
    queue: VecDeque<Ready>,
    /// The slots that may run before their position in the queue has come.
    ahead: VecDeque<Key>,
    /// How many positions in the queue are void, since a slot of `ahead` has run before: the first so many
    /// that are `AHEAD`.
    void: usize,
    /// Whether a slot that is woken now goes ahead.
    goes_ahead: bool,
}

/// What the turn took from the queue.
pub(crate) enum Next<R> {
    Resume(Key, R),
    Call(Callback),
    /// Nothing: the slot was removed meanwhile, or the position is void.
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

    /// A slot for `resume`, which is in the queue from the start if `queued`.
    pub(crate) fn insert(&mut self, resume: R, queued: bool) -> Result<Key, Full> {
        let key = self.slots.insert_marked(resume, queued)?;
        if queued {
            self.queue.push_back(Ready::Slot(key));
        }
        Ok(key)
    }

    /// Removes a slot and gives what was in it, for the caller to drop when it holds no borrow.
    pub(crate) fn remove(&mut self, key: Key) -> Option<R> {
        self.slots.remove(key)
    }

    /// Queues a slot, unless it is queued already or was removed.
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

    /// Says whether the slots that are woken from here on go ahead of those that are ready.
    #[inline]
    pub(crate) fn let_go_ahead(&mut self, goes_ahead: bool) {
        self.goes_ahead = goes_ahead;
    }

    /// Puts the first `ready` entries in a random order, those that may go ahead among them.
    pub(crate) fn shuffle(&mut self, ready: usize, mut random: impl FnMut() -> u64) {
        let entries = self.queue.make_contiguous();
        let is_ahead = |entry: &&mut Ready| matches!(entry, Ready::Slot(AHEAD));
        let positions = entries.iter_mut().filter(is_ahead).skip(self.void);
        for (position, key) in positions.zip(self.ahead.drain(..)) {
            *position = Ready::Slot(key);
        }
        for last in (1..ready.min(entries.len())).rev() {
            entries.swap(last, (random() % (last as u64 + 1)) as usize);
        }
    }

    pub(crate) fn call(&mut self, callback: Callback) {
        self.queue.push_back(Ready::Call(callback));
    }

    /// Queues what other threads have posted, up to the first message that is about something else, and gives that.
    pub(crate) fn take_posted(
        &mut self,
        messages: &mut impl Iterator<Item = Message>,
    ) -> Option<Message> {
        for message in messages {
            match message {
                Message::Wake(key) => self.schedule(key),
                Message::Call(posted) => self.call(posted.into()),
                other => return Some(other),
            }
        }
        None
    }

    /// How many entries are ready. A turn runs as many as there are when it begins.
    pub(crate) fn ready(&self) -> usize {
        self.queue.len()
    }

    #[inline]
    pub(crate) fn next(&mut self) -> Option<Next<R>> {
        Some(match self.queue.pop_front()? {
            Ready::Call(callback) => Next::Call(callback),
            Ready::Slot(key) => match self.slots.unmark(key) {
                Some(resume) => Next::Resume(key, resume.clone()),
                None => self.next_of_ahead(key),
            },
        })
    }

    /// What to run for a position whose key finds no marked slot: because it is `AHEAD`, or stale.
    #[cold]
    fn next_of_ahead(&mut self, key: Key) -> Next<R> {
        if key == AHEAD && self.void > 0 {
            self.void -= 1;
        } else if key == AHEAD
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

    /// The first slot of `ahead`, before its position in the queue has come.
    pub(crate) fn next_ahead(&mut self) -> Option<Next<R>> {
        let key = self.ahead.pop_front()?;
        self.void += 1;
        Some(self.take(key))
    }

    /// Whether there are slots that may run before their position has come.
    pub(crate) fn has_ahead(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// Gives back the memory that many entries at once have made the queue take.
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

    /// The places where the callbacks in the queue were added.
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

/// A queue that is hardly used keeps room for so many entries.
const KEPT: usize = 1024;

/// Gives back memory of a queue that has been much longer than it is.
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

    /// A scheduler with as many slots as `slots` says.
    fn scheduler(slots: usize) -> (Scheduler<()>, Vec<Key>) {
        let mut scheduler = Scheduler::new();
        let keys = (0..slots).map(|_| scheduler.insert((), false).unwrap()).collect();
        (scheduler, keys)
    }

    /// Which one of `keys` is next; `None` if none is.
    fn number(next: Option<Next<()>>, keys: &[Key]) -> Option<usize> {
        match next? {
            Next::Resume(key, _) => keys.iter().position(|other| *other == key),
            Next::Call(_) | Next::Stale => None,
        }
    }

    #[test]
    fn a_slot_that_may_go_ahead_and_does_not_runs_at_its_position() {
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
    fn a_slot_that_went_ahead_leaves_a_void_position_and_may_be_queued_again() {
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
        // Random numbers that are all 0 swap the last entry with the first, the last but one with the first,
        // and so on.
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
