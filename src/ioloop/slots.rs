//! A table whose keys go stale instead of dangling.
//!
//! Everything that can outlive what it refers to holds a [`Key`]: an index and the generation of
//! the slot at that index. Removing an entry moves the slot to its next generation, so a key kept
//! too long finds nothing. Coroutines, sockets, timers and waiters all live in such tables; a
//! waker and an epoll token are nothing but packed keys.
//!
//! The table is plain data: it knows no loop, no clock and no socket.

/// How many bits of a packed key name the slot: its table holds at most `2^INDEX_BITS - 1` entries.
#[cfg(target_pointer_width = "64")]
pub(crate) const INDEX_BITS: u32 = 24;
/// How many bits of a packed key name the generation. A slot that has been reused `2^GENERATION_BITS`
/// times repeats itself; what a key that old causes is one spurious wake-up, which futures allow.
#[cfg(target_pointer_width = "64")]
pub(crate) const GENERATION_BITS: u32 = 24;

#[cfg(not(target_pointer_width = "64"))]
pub(crate) const INDEX_BITS: u32 = 18;
#[cfg(not(target_pointer_width = "64"))]
pub(crate) const GENERATION_BITS: u32 = 8;

const INDEX_MASK: usize = (1 << INDEX_BITS) - 1;
const KEY_MASK: usize = (1 << (INDEX_BITS + GENERATION_BITS)) - 1;
/// What a slot's key grows by from one generation to the next.
const GENERATION: usize = 1 << INDEX_BITS;

/// Set in the key that a slot keeps while it is marked, so that no key equals it.
const MARK: usize = 1 << (usize::BITS - 1);

/// End of the free list; never a valid index.
const NONE: u32 = INDEX_MASK as u32;

/// Names one entry of one table, for as long as that entry lives: an index and a generation in one
/// word.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Key(usize);

impl Key {
    /// A key that no table ever hands out.
    pub(crate) const NONE: Key = Key(NONE as usize);

    /// The key in the low `INDEX_BITS + GENERATION_BITS` bits of a word.
    pub(crate) fn pack(self) -> usize {
        self.0
    }

    /// The inverse of [`pack`](Key::pack); higher bits are ignored.
    pub(crate) fn unpack(word: usize) -> Key {
        Key(word & KEY_MASK)
    }

    /// The slot's position.
    pub(crate) fn index(self) -> usize {
        self.0 & INDEX_MASK
    }
}

/// The table is at its limit of `2^INDEX_BITS - 1` entries.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

#[derive(Debug)]
enum Entry<T> {
    Vacant { next: u32 },
    Occupied(T),
}

#[derive(Debug)]
struct Slot<T> {
    /// The key of the entry, or of the next one; with `MARK` if it is marked.
    key: usize,
    entry: Entry<T>,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    slots: Vec<Slot<T>>,
    /// Head of the list of vacant slots; the last one vacated is the first one reused, as it is the one
    /// most likely in the cache.
    free: u32,
    /// From here on, slots are vacant and not in that list: none, except after all had gone. What comes
    /// then lies side by side again.
    fresh: usize,
    len: usize,
}

impl<T> Slots<T> {
    pub(crate) const fn new() -> Slots<T> {
        Slots { slots: Vec::new(), free: NONE, fresh: 0, len: 0 }
    }

    /// Puts `value` in a vacant slot.
    #[inline]
    pub(crate) fn insert(&mut self, value: T) -> Result<Key, Full> {
        self.insert_marked(value, false)
    }

    /// Puts `value` in a vacant slot, and marks it if that is `marked`.
    // Inlined, a value of several words is built in its slot; else it is copied there from the stack.
    #[inline(always)]
    pub(crate) fn insert_marked(&mut self, value: T, marked: bool) -> Result<Key, Full> {
        let mark = if marked { MARK } else { 0 };
        let is_listed = self.free != NONE;
        let vacant = if is_listed { self.free as usize } else { self.fresh };
        if let Some(Slot { key, entry: entry @ Entry::Vacant { .. } }) = self.slots.get_mut(vacant)
        {
            match *entry {
                Entry::Vacant { next } if is_listed => self.free = next,
                _ => self.fresh += 1,
            }
            let vacant = Key(*key & !MARK);
            *key = vacant.0 | mark;
            *entry = Entry::Occupied(value);
            self.len += 1;
            return Ok(vacant);
        }
        let index = self.slots.len();
        if index >= INDEX_MASK {
            return Err(Full);
        }
        self.slots.push(Slot { key: index | mark, entry: Entry::Occupied(value) });
        self.fresh += 1;
        self.len += 1;
        Ok(Key(index))
    }

    /// Marks the entry; `false` if it is marked already, or gone.
    ///
    /// One comparison answers both: a marked slot has a key that nobody has. (A key that was kept
    /// until its generation came around again may mark a vacant slot, which harms nobody.)
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

    /// Takes the mark off and shows the entry, unless it is gone.
    #[inline]
    pub(crate) fn unmark(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.index())?;
        if slot.key != key.0 | MARK {
            return None;
        }
        slot.key = key.0;
        match &mut slot.entry {
            Entry::Occupied(value) => Some(value),
            Entry::Vacant { .. } => None,
        }
    }

    /// Takes the entry out, marked or not; from here on `key` finds nothing.
    #[inline]
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.index())?;
        if slot.key & !MARK != key.0 || matches!(slot.entry, Entry::Vacant { .. }) {
            return None;
        }
        slot.key = (key.0 + GENERATION) & KEY_MASK;
        let entry = std::mem::replace(&mut slot.entry, Entry::Vacant { next: self.free });
        self.free = key.index() as u32;
        self.len -= 1;
        if self.len == 0 {
            (self.free, self.fresh) = (NONE, 0);
        }
        match entry {
            Entry::Occupied(value) => Some(value),
            Entry::Vacant { .. } => None,
        }
    }

    #[inline]
    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        match self.slots.get(key.index()) {
            Some(Slot { key: known, entry: Entry::Occupied(value) }) if *known & !MARK == key.0 => {
                Some(value)
            }
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.slots.get_mut(key.index()) {
            Some(Slot { key: known, entry: Entry::Occupied(value) }) if *known & !MARK == key.0 => {
                Some(value)
            }
            _ => None,
        }
    }

    /// The key of the first live entry at or after `index`.
    pub(crate) fn first_from(&self, index: usize) -> Option<Key> {
        let slot = self.slots.get(index..)?.iter();
        let mut live = slot.filter(|slot| matches!(slot.entry, Entry::Occupied(_)));
        Some(Key(live.next()?.key & !MARK))
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How many entries fit before the table allocates.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.slots.capacity()
    }

    /// Every live key with its entry, in the order of their slots.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.slots.iter().filter_map(|slot| match &slot.entry {
            Entry::Occupied(value) => Some((Key(slot.key & !MARK), value)),
            Entry::Vacant { .. } => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_finds_its_entry_until_the_entry_is_removed() {
        let mut slots = Slots::new();
        let a = slots.insert("a").unwrap();
        let b = slots.insert("b").unwrap();
        assert_eq!((slots.get(a), slots.get(b), slots.len()), (Some(&"a"), Some(&"b"), 2));
        assert_eq!(slots.remove(a), Some("a"));
        assert_eq!((slots.get(a), slots.len()), (None, 1));
        assert_eq!(slots.remove(a), None);
    }

    #[test]
    fn a_key_of_a_reused_slot_is_stale() {
        let mut slots = Slots::new();
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
        let mut slots = Slots::new();
        let keys: Vec<_> = (0..3).map(|n| slots.insert(n).unwrap()).collect();
        slots.remove(keys[0]);
        slots.remove(keys[2]);
        assert_eq!(slots.insert(9).unwrap().index(), 2);
        assert_eq!(slots.insert(9).unwrap().index(), 0);
        assert_eq!(slots.insert(9).unwrap().index(), 3);
    }

    #[test]
    fn a_table_that_was_emptied_fills_from_its_beginning() {
        let mut slots = Slots::new();
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
        for key in [Key(0), Key(KEY_MASK - 1), Key(7 * GENERATION + 5)] {
            assert_eq!(Key::unpack(key.pack()), key);
            let foreign = 1usize << (INDEX_BITS + GENERATION_BITS);
            assert_eq!(Key::unpack(key.pack() | foreign), key);
        }
    }

    #[test]
    fn generations_wrap_around_within_their_bits() {
        let mut slots = Slots::new();
        let key = slots.insert(()).unwrap();
        let last = Key(KEY_MASK - INDEX_MASK);
        slots.slots[0].key = last.0;
        assert_eq!(slots.remove(key), None);
        slots.remove(last).unwrap();
        assert_eq!(slots.insert(()), Ok(Key(0)));
    }

    #[test]
    fn an_entry_is_marked_once_and_found_all_the_same() {
        let mut slots = Slots::new();
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
    fn iter_visits_live_entries_in_slot_order() {
        let mut slots = Slots::new();
        let keys: Vec<_> = (0..4).map(|n| slots.insert(n).unwrap()).collect();
        slots.remove(keys[1]);
        let seen: Vec<_> = slots.iter().map(|(key, n)| (key, *n)).collect();
        assert_eq!(seen, [(keys[0], 0), (keys[2], 2), (keys[3], 3)]);
        assert_eq!(slots.get(Key::NONE), None);
    }

    #[test]
    fn first_from_skips_vacant_slots_and_ends_with_the_table() {
        let mut slots = Slots::new();
        let keys: Vec<_> = (0..4).map(|n| slots.insert(n).unwrap()).collect();
        slots.remove(keys[1]);
        slots.remove(keys[3]);
        assert_eq!(slots.first_from(0), Some(keys[0]));
        assert_eq!(slots.first_from(1), Some(keys[2]));
        assert_eq!(slots.first_from(3), None);
        assert_eq!(slots.first_from(9), None);
    }
}
