//! A table whose keys go stale instead of dangling.
//!
//! Whatever can outlive the thing that it refers to holds a [`Key`] of that thing: the index of a slot in a
//! table, and the *generation* of that slot. When a value is removed, its slot moves on to the next
//! generation. So a key that is kept too long finds nothing, instead of the value that has the slot now.
//! Coroutines, sockets, timers and waiters all live in such tables; a waker and a token of the selector are
//! nothing but packed keys.
//!
//! # Whether the same key is ever given out twice
//!
//! In a table as it is by default, never: a generation has some 40 bits, and a slot that has used them up
//! (after hours of doing nothing else) is *retired*, that is, left vacant for ever. So a timer's key may be
//! kept for as long as the process runs.
//!
//! A key that has to fit in a waker, beside the number of its loop, has room for fewer bits. A table of such
//! keys is made to wrap (`WRAPS`): its generations start over. That harms nobody. Whoever owns the value
//! removes it with a key that is still good; and a waker that was kept while its slot was used 2^24 times
//! (2^8 on narrow targets) may wake another coroutine, which the contract of futures allows.
//!
//! # Marks
//!
//! A value can be marked, which costs no memory: the run queue marks the slots that are in it, so that none
//! gets in twice.
//!
//! # Memory
//!
//! A table that has been long and is mostly empty again gives back the vacant slots at its end. If slots
//! are made there again, they begin with a generation that none of the former ones has had, so that the old
//! keys stay stale.
//!
//! The table is plain data: it knows no loop, no clock and no socket.

/// How many bits of a key are the index of the slot: a table holds at most `2^INDEX_BITS - 1` values.
#[cfg(target_pointer_width = "64")]
pub(crate) const INDEX_BITS: u32 = 24;
/// How many bits of a packed key are the generation.
#[cfg(target_pointer_width = "64")]
pub(crate) const GENERATION_BITS: u32 = 24;

#[cfg(not(target_pointer_width = "64"))]
pub(crate) const INDEX_BITS: u32 = 18;
#[cfg(not(target_pointer_width = "64"))]
pub(crate) const GENERATION_BITS: u32 = 8;

const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;
/// The bits that a key of a table that wraps can have set.
const PACKED_MASK: u64 = (1 << (INDEX_BITS + GENERATION_BITS)) - 1;
/// The number that a slot's key grows by from one generation to the next.
const GENERATION: u64 = 1 << INDEX_BITS;

/// This bit is set in the key that a slot keeps while it is marked. No key that was given out has it, so
/// none equals the key of a marked slot.
const MARK: u64 = 1 << (u64::BITS - 1);

/// Slots whose keys are above this are not given back: all slots that are made later would have to begin
/// with a generation as high as theirs, and would soon be retired.
const AGED: u64 = MARK / 2;

/// The end of the list of vacant slots. It is no index that a slot can have.
const NONE: u32 = INDEX_MASK as u32;
/// Stands for the next vacant slot in a slot that is retired, and so in no list.
const RETIRED: u32 = u32::MAX;

/// The first so many slots are never given back.
const KEPT: usize = 256;

/// Names one value of one table, for as long as that value is there: an index (the low bits) and a
/// generation, in 64 bits on every target.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Key(u64);

impl Key {
    /// A key that no table ever gives out.
    pub(crate) const NONE: Key = Key(NONE as u64);

    /// The key in the low `INDEX_BITS + GENERATION_BITS` bits of a machine word. Only the keys of a table
    /// that wraps fit there.
    pub(crate) fn pack(self) -> usize {
        debug_assert!(self.0 <= PACKED_MASK, "a key of a table that does not wrap");
        self.0 as usize
    }

    /// The inverse of [`pack`](Key::pack); higher bits are ignored.
    pub(crate) fn unpack(word: usize) -> Key {
        Key(word as u64 & PACKED_MASK)
    }

    /// The index of the slot.
    pub(crate) fn index(self) -> usize {
        (self.0 & INDEX_MASK) as usize
    }
}

/// The table is at its limit of `2^INDEX_BITS - 1` values.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

#[derive(Debug)]
enum Content<T> {
    /// `next` is the index of the next slot in the list of vacant slots, or `NONE`, or `RETIRED`.
    Vacant {
        next: u32,
    },
    Occupied(T),
}

#[derive(Debug)]
struct Slot<T> {
    /// The key of the value. If the slot is vacant: the key that its next value gets. With `MARK` if it is
    /// marked.
    key: u64,
    content: Content<T>,
}

/// The table. `WRAPS` says whether its generations start over, so that its keys can be packed.
#[derive(Debug)]
pub(crate) struct Slots<T, const WRAPS: bool = false> {
    slots: Vec<Slot<T>>,
    /// Head of the list of vacant slots. The slot that was vacated last is used first, since it is the most
    /// likely one to be in the cache.
    free: u32,
    /// All slots from this index on are vacant and not in the list. It is back to 0 when the table becomes
    /// empty, so that the values that come then lie side by side again.
    unlisted: usize,
    len: usize,
    /// In a long table: the last slot that was occupied when `give_back` looked for it. When its value is
    /// removed, there may be slots at the end to give back. Otherwise `usize::MAX`, which is no slot.
    last: usize,
    /// The generation with which new slots at the end begin, as part of a key.
    first_generation: u64,
}

impl<T, const WRAPS: bool> Slots<T, WRAPS> {
    pub(crate) const fn new() -> Slots<T, WRAPS> {
        Slots {
            slots: Vec::new(),
            free: NONE,
            unlisted: 0,
            len: 0,
            last: usize::MAX,
            first_generation: 0,
        }
    }

    /// Puts `value` in a vacant slot.
    #[inline]
    pub(crate) fn insert(&mut self, value: T) -> Result<Key, Full> {
        self.insert_marked(value, false)
    }

    /// Puts `value` in a vacant slot, which is marked from the start if `marked`.
    // Inlined, a value of several words is built in its slot; otherwise it is copied there from the stack.
    #[inline(always)]
    pub(crate) fn insert_marked(&mut self, value: T, marked: bool) -> Result<Key, Full> {
        let mark = if marked { MARK } else { 0 };
        let is_listed = self.free != NONE;
        let vacant = if is_listed { self.free as usize } else { self.unlisted };
        if let Some(Slot { key, content: content @ Content::Vacant { .. } }) =
            self.slots.get_mut(vacant)
        {
            match *content {
                Content::Vacant { next } if is_listed => self.free = next,
                Content::Vacant { next: RETIRED } => return self.insert_unlisted(value, mark),
                _ => self.unlisted += 1,
            }
            let vacant = Key(*key & !MARK);
            *key = vacant.0 | mark;
            *content = Content::Occupied(value);
            self.len += 1;
            return Ok(vacant);
        }
        self.insert_unlisted(value, mark)
    }

    #[cold]
    fn insert_unlisted(&mut self, value: T, mark: u64) -> Result<Key, Full> {
        let key = self.next_unlisted()?;
        match self.slots.get_mut(key.index()) {
            Some(slot) => *slot = Slot { key: key.0 | mark, content: Content::Occupied(value) },
            None => self.slots.push(Slot { key: key.0 | mark, content: Content::Occupied(value) }),
        }
        self.unlisted = key.index() + 1;
        self.len += 1;
        Ok(key)
    }

    /// The key of the first slot that is not in the list of vacant ones and not retired; if there is none, of
    /// a new slot at the end.
    fn next_unlisted(&mut self) -> Result<Key, Full> {
        let rest = self.slots.iter().skip(self.unlisted);
        let is_retired =
            |slot: &&Slot<T>| matches!(slot.content, Content::Vacant { next: RETIRED });
        if let Some(slot) = rest.into_iter().find(|slot| !is_retired(slot)) {
            return Ok(Key(slot.key & !MARK));
        }
        let index = self.slots.len();
        if index as u64 >= INDEX_MASK {
            return Err(Full);
        }
        if index >= 2 * KEPT {
            self.last = index;
        }
        Ok(Key(self.first_generation | index as u64))
    }

    /// Marks the value; `false` if it is marked already, or has been removed.
    ///
    /// One comparison answers both questions, since nobody has the key of a marked slot. (A key that was kept
    /// until its generation came again, in a table that wraps, may mark a vacant slot. That harms nobody:
    /// the next value that gets the slot is marked or not as its `insert` says.)
    #[inline]
    pub(crate) fn mark(&mut self, key: Key) -> bool {
        match self.slots.get_mut(key.index()) {
            Some(slot) if slot.key == key.0 => {
                slot.key |= MARK;
                true
            }
            _ => false,
        }
    }

    /// Takes the mark off and gives the value; nothing if it is not marked, or has been removed.
    #[inline]
    pub(crate) fn unmark(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.index())?;
        if slot.key != key.0 | MARK {
            return None;
        }
        slot.key = key.0;
        match &mut slot.content {
            Content::Occupied(value) => Some(value),
            Content::Vacant { .. } => None,
        }
    }

    /// Removes the value, marked or not; from here on `key` finds nothing.
    #[inline]
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        // Asked before the value is taken out: otherwise every removal would copy the value to the stack, in
        // case that `give_back` has to run.
        if key.index() == self.last { self.remove_last(key) } else { self.take(key) }
    }

    #[cold]
    fn remove_last(&mut self, key: Key) -> Option<T> {
        let taken = self.take(key);
        if taken.is_some() {
            self.give_back();
        }
        taken
    }

    #[inline(always)]
    fn take(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.index())?;
        if slot.key & !MARK != key.0 || !matches!(slot.content, Content::Occupied(_)) {
            return None;
        }
        let next = key.0 + GENERATION;
        slot.key = if WRAPS { next & PACKED_MASK } else { next };
        let content = std::mem::replace(&mut slot.content, Content::Vacant { next: self.free });
        if !WRAPS && next >= MARK {
            slot.content = Content::Vacant { next: RETIRED };
        } else {
            self.free = key.index() as u32;
        }
        self.len -= 1;
        if self.len == 0 {
            (self.free, self.unlisted) = (NONE, 0);
        }
        match content {
            Content::Occupied(value) => Some(value),
            Content::Vacant { .. } => None,
        }
    }

    /// Gives back the vacant slots at the end, if they are at least as many as all the others.
    ///
    /// The search for the last occupied slot goes on downwards from where the search before it ended, until
    /// the table grows again. So all searches together take no longer than growing the table did.
    fn give_back(&mut self) {
        let stays = |slot: &Slot<T>| {
            matches!(slot.content, Content::Occupied(_) | Content::Vacant { next: RETIRED })
                || slot.key & !MARK > AGED
        };
        let last = self.slots.len() - 1;
        for from in [self.last, last] {
            self.last = self.slots[..=from].iter().rposition(stays).unwrap_or(0);
            if 2 * (self.last + 1) > self.slots.len() {
                return;
            }
        }
        let end = KEPT.max(self.last + 1);
        let given_back = self.slots.drain(end..).map(|slot| slot.key & !MARK & !INDEX_MASK);
        self.first_generation = given_back.fold(self.first_generation, u64::max);
        self.slots.shrink_to_fit();
        if end < 2 * KEPT {
            self.last = usize::MAX;
        }
        (self.free, self.unlisted) = (NONE, end);
        for (index, slot) in self.slots.iter_mut().enumerate().rev() {
            match &mut slot.content {
                Content::Occupied(_) | Content::Vacant { next: RETIRED } => {}
                Content::Vacant { next } => (*next, self.free) = (self.free, index as u32),
            }
        }
    }

    #[inline]
    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        match self.slots.get(key.index()) {
            Some(Slot { key: known, content: Content::Occupied(value) })
                if *known & !MARK == key.0 =>
            {
                Some(value)
            }
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.slots.get_mut(key.index()) {
            Some(Slot { key: known, content: Content::Occupied(value) })
                if *known & !MARK == key.0 =>
            {
                Some(value)
            }
            _ => None,
        }
    }

    /// The key of the first value at or after `index`.
    pub(crate) fn first_from(&self, index: usize) -> Option<Key> {
        let slot = self.slots.get(index..)?.iter();
        let mut live = slot.filter(|slot| matches!(slot.content, Content::Occupied(_)));
        Some(Key(live.next()?.key & !MARK))
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How many values fit before the table allocates.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.slots.capacity()
    }

    /// Every key with its value, in the order of the slots.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.slots.iter().filter_map(|slot| match &slot.content {
            Content::Occupied(value) => Some((Key(slot.key & !MARK), value)),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_finds_its_value_until_the_value_is_removed() {
        let mut slots: Slots<_> = Slots::new();
        let a = slots.insert("a").unwrap();
        let b = slots.insert("b").unwrap();
        assert_eq!((slots.get(a), slots.get(b), slots.len()), (Some(&"a"), Some(&"b"), 2));
        assert_eq!(slots.remove(a), Some("a"));
        assert_eq!((slots.get(a), slots.len()), (None, 1));
        assert_eq!(slots.remove(a), None);
    }

    #[test]
    fn a_key_of_a_reused_slot_is_stale() {
        let mut slots: Slots<_> = Slots::new();
        let old = slots.insert(1).unwrap();
        slots.remove(old);
        let new = slots.insert(2).unwrap();
        assert_eq!(old.index(), new.index());
        assert_eq!(slots.get(old), None);
        assert_eq!(slots.get_mut(old), None);
        assert_eq!(slots.remove(old), None);
        assert_eq!(slots.get(new), Some(&2));
    }

    #[test]
    fn the_slot_vacated_last_is_reused_first() {
        let mut slots: Slots<_> = Slots::new();
        let keys: Vec<_> = (0..3).map(|n| slots.insert(n).unwrap()).collect();
        slots.remove(keys[0]);
        slots.remove(keys[2]);
        assert_eq!(slots.insert(9).unwrap().index(), 2);
        assert_eq!(slots.insert(9).unwrap().index(), 0);
        assert_eq!(slots.insert(9).unwrap().index(), 3);
    }

    #[test]
    fn a_table_that_was_emptied_fills_from_its_beginning() {
        let mut slots: Slots<_> = Slots::new();
        let old: Vec<_> = (0..4).map(|n| slots.insert(n).unwrap()).collect();
        for n in [2, 0, 3, 1] {
            slots.remove(old[n]);
        }
        let mut new = [(); 3].map(|()| slots.insert(9).unwrap());
        assert_eq!(new.map(Key::index), [0, 1, 2]);
        slots.remove(new[1]);
        new[1] = slots.insert(9).unwrap();
        assert_eq!(new[1].index(), 1);
        assert_eq!([(); 2].map(|()| slots.insert(9).unwrap().index()), [3, 4]);
        assert!(old.iter().all(|key| slots.get(*key).is_none()));
        assert!(new.iter().all(|key| slots.get(*key).is_some()));
    }

    #[test]
    fn packing_keeps_every_bit_and_ignores_higher_ones() {
        for key in [Key(0), Key(PACKED_MASK - 1), Key(7 * GENERATION + 5)] {
            assert_eq!(Key::unpack(key.pack()), key);
            let foreign = (PACKED_MASK as usize).wrapping_add(1);
            assert_eq!(Key::unpack(key.pack() | foreign), key);
        }
    }

    #[test]
    fn generations_wrap_around_within_their_bits_where_keys_are_packed() {
        let mut slots = Slots::<_, true>::new();
        let key = slots.insert(()).unwrap();
        let last = Key(PACKED_MASK - INDEX_MASK);
        slots.slots[0].key = last.0;
        assert_eq!(slots.remove(key), None);
        slots.remove(last).unwrap();
        assert_eq!(slots.insert(()), Ok(Key(0)));
    }

    #[test]
    fn elsewhere_a_key_never_comes_round() {
        let mut slots: Slots<_> = Slots::new();
        let key = slots.insert(0).unwrap();
        // As if the slot had been used more often than a packed key can tell.
        slots.slots[0].key = PACKED_MASK - INDEX_MASK;
        slots.remove(Key(PACKED_MASK - INDEX_MASK)).unwrap();
        assert_eq!(slots.insert(1), Ok(Key(PACKED_MASK + 1)));
        assert_eq!((slots.get(key), slots.get(Key(PACKED_MASK + 1))), (None, Some(&1)));
        // After its last generation the slot is left vacant for ever, also when the table becomes empty.
        let last = Key(MARK - GENERATION);
        slots.slots[0].key = last.0;
        assert_eq!((slots.remove(last), slots.len()), (Some(1), 0));
        for _ in 0..2 {
            let others = [2, 3].map(|n| slots.insert(n).unwrap());
            assert_eq!(others.map(Key::index), [1, 2]);
            assert!(slots.get(key).is_none() && slots.get(last).is_none());
            for key in others {
                slots.remove(key).unwrap();
            }
        }
    }

    /// Fills a table with `many` values, and removes all but those at `kept`, from either end.
    fn burst<const WRAPS: bool>(
        many: usize,
        kept: &[usize],
        backwards: bool,
    ) -> (Slots<usize, WRAPS>, Vec<Key>) {
        let mut slots = Slots::new();
        let keys: Vec<_> = (0..many).map(|n| slots.insert(n).unwrap()).collect();
        let order = |n| if backwards { many - 1 - n } else { n };
        for n in (0..many).map(order).filter(|n| !kept.contains(n)) {
            slots.remove(keys[n]).unwrap();
        }
        (slots, keys)
    }

    #[test]
    fn a_table_gives_back_what_a_burst_has_made_of_it() {
        for (kept, backwards) in [(&[][..], false), (&[0, 5], false), (&[0, 5], true)] {
            let (mut slots, keys) = burst::<false>(100_000, kept, backwards);
            assert!(slots.capacity() <= 2 * KEPT, "{}", slots.capacity());
            let again: Vec<_> = (0..1000).map(|n| slots.insert(n).unwrap()).collect();
            for (n, key) in keys.iter().enumerate() {
                assert_eq!(slots.get(*key), kept.iter().find(|kept| **kept == n));
            }
            assert!(again.iter().enumerate().all(|(n, key)| slots.get(*key) == Some(&n)));
        }
        // A value at the end keeps the table as long as it is, until it is removed.
        let (mut slots, keys) = burst::<true>(100_000, &[7, 99_000, 99_999], false);
        for (n, capacity) in [(99_999, 99_001), (99_000, KEPT)] {
            assert!(slots.capacity() >= capacity);
            slots.remove(keys[n]).unwrap();
        }
        assert!(slots.capacity() <= 2 * KEPT && slots.get(keys[7]) == Some(&7));
    }

    #[test]
    fn a_slot_that_has_nearly_used_up_its_generations_is_not_given_back() {
        let (mut slots, _) = burst::<false>(10_000, &[9_000], false);
        let old = Key((AGED + GENERATION) | 9_000);
        slots.slots[9_000].key = old.0;
        slots.remove(old).unwrap();
        assert!(slots.capacity() > 9_000 && slots.first_generation < AGED);
    }

    #[test]
    fn a_value_is_marked_once_and_found_all_the_same() {
        let mut slots: Slots<_> = Slots::new();
        let key = slots.insert('a').unwrap();
        assert_eq!(slots.unmark(key), None);
        assert!(slots.mark(key) && !slots.mark(key));
        assert_eq!((slots.get(key), slots.iter().next()), (Some(&'a'), Some((key, &'a'))));
        assert_eq!(slots.unmark(key), Some(&mut 'a'));
        assert!(slots.mark(key));
        assert_eq!(slots.remove(key), Some('a'));
        assert!(!slots.mark(key));
        assert_eq!(slots.unmark(key), None);
        let next = slots.insert('b').unwrap();
        assert!(slots.mark(next) && slots.get(key).is_none());
        let marked = ['c', 'd'].map(|value| slots.insert_marked(value, true).unwrap());
        assert!(marked.iter().all(|key| !slots.mark(*key) && slots.unmark(*key).is_some()));
    }

    #[test]
    fn iter_visits_live_values_in_slot_order() {
        let mut slots: Slots<_> = Slots::new();
        let keys: Vec<_> = (0..4).map(|n| slots.insert(n).unwrap()).collect();
        slots.remove(keys[1]);
        let seen: Vec<_> = slots.iter().map(|(key, n)| (key, *n)).collect();
        assert_eq!(seen, [(keys[0], 0), (keys[2], 2), (keys[3], 3)]);
        assert_eq!(slots.get(Key::NONE), None);
    }

    #[test]
    fn first_from_skips_vacant_slots_and_ends_with_the_table() {
        let mut slots: Slots<_> = Slots::new();
        let keys: Vec<_> = (0..4).map(|n| slots.insert(n).unwrap()).collect();
        slots.remove(keys[1]);
        slots.remove(keys[3]);
        assert_eq!(slots.first_from(0), Some(keys[0]));
        assert_eq!(slots.first_from(1), Some(keys[2]));
        assert_eq!(slots.first_from(3), None);
        assert_eq!(slots.first_from(9), None);
    }
}
