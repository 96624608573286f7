//! In which order a queue gives its items.
//!
//! An item that is given to a getter that waits may come back, if that getter is dropped: it is *lent*. Then it
//! has to go to where it was, so what is lent is numbered. The items themselves lie in the queue without
//! numbers, unless their order depends on them.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use crate::ground::foreign;

/// What a [`QueueOver`](super::QueueOver) keeps its items in: it decides which item is the next. It cannot
/// be implemented outside of this crate.
///
/// The only foreign code that a store runs is the items' `Ord`, and that may use the very queue whose items it
/// compares.
pub trait Store: Default + sealed::Sealed {
    /// What is put and got.
    type Item;

    /// Whether it compares items. Then any call of `push`, `pop`, `lend` and `give_back` may run code that uses
    /// the queue, and the caller has to look again at what it knew of the queue before.
    #[doc(hidden)]
    const COMPARES: bool = false;

    /// Takes in a new item.
    #[doc(hidden)]
    fn push(&self, item: Self::Item);

    /// Gives the next item.
    #[doc(hidden)]
    fn pop(&self) -> Option<Self::Item>;

    /// Gives the next item to a getter that waits, with a number by which it can be given back. While somebody
    /// waits there is nothing to get, so it is the one that has just been put, or given back.
    #[doc(hidden)]
    fn lend(&self) -> Option<(u64, Self::Item)>;

    /// Takes back an item that was lent, to where it was.
    #[doc(hidden)]
    fn give_back(&self, number: u64, item: Self::Item);

    /// How many items there are.
    #[doc(hidden)]
    fn size(&self) -> usize;

    /// Drops all items.
    #[doc(hidden)]
    fn clear(&self);
}

mod sealed {
    pub trait Sealed {}
}

/// First in first out.
#[derive(Debug)]
pub struct Fifo<T>(RefCell<Row<T>>);

/// Last in first out.
#[derive(Debug)]
pub struct Lifo<T>(RefCell<Row<T>>);

/// Items in the order in which they were put.
///
/// An item is lent when there is no other one in `items`, so whatever is there was put after all that was ever
/// lent. Numbers are needed only among items that were lent: each was put before those that were lent after it.
#[derive(Debug)]
struct Row<T> {
    items: VecDeque<T>,
    /// Items that were given back, by their numbers. Hardly ever is there one.
    returned: BTreeMap<u64, T>,
    /// How many were lent so far. One that was given back keeps its number when it is lent again.
    lent: u64,
}

impl<T> Row<T> {
    /// Numbers an item of `items` that is lent.
    fn lent(&mut self, item: T) -> (u64, T) {
        debug_assert!(self.items.is_empty(), "items are lent while others could be got");
        self.lent += 1;
        (self.lent, item)
    }

    /// Those that were given back, if there are any. (To see that there is none takes less than to look for one.)
    #[inline]
    fn returned(&mut self) -> Option<&mut BTreeMap<u64, T>> {
        if self.returned.is_empty() { None } else { Some(&mut self.returned) }
    }

    #[inline]
    fn len(&self) -> usize {
        self.items.len() + self.returned.len()
    }

    fn discard(self) {
        foreign::discard_all(self.returned.into_values());
        foreign::discard_all(self.items);
    }
}

impl<T> Default for Row<T> {
    fn default() -> Row<T> {
        Row { items: VecDeque::new(), returned: BTreeMap::new(), lent: 0 }
    }
}

/// The least first; of equal ones, first in first out.
#[derive(Debug)]
pub struct Priority<T> {
    heap: RefCell<BinaryHeap<Ranked<T>>>,
    /// How many items there are. The heap cannot tell: while items are compared, they are taken out of it.
    size: Cell<usize>,
    /// How many items were put so far, which is the number of the next one.
    next_number: Cell<u64>,
}

/// An item with its number, which decides among equal ones. It compares as greater the sooner it is to be
/// given, for a `BinaryHeap` gives its greatest first.
#[derive(Debug)]
struct Ranked<T> {
    number: u64,
    item: T,
}

impl<T: Ord> Ord for Ranked<T> {
    fn cmp(&self, other: &Ranked<T>) -> Ordering {
        // If the items' `Ord` panics, the two count as equal. If the panic were passed on, it would hit
        // somebody who only puts or gets another item, and items that are just being moved could be lost.
        let order = foreign::call("order of a queue's items", None, || other.item.cmp(&self.item));
        order.unwrap_or(Ordering::Equal).then(other.number.cmp(&self.number))
    }
}

impl<T: Ord> PartialOrd for Ranked<T> {
    fn partial_cmp(&self, other: &Ranked<T>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Ord> PartialEq for Ranked<T> {
    fn eq(&self, other: &Ranked<T>) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T: Ord> Eq for Ranked<T> {}

impl<T> Default for Fifo<T> {
    fn default() -> Fifo<T> {
        Fifo(RefCell::default())
    }
}

impl<T> Default for Lifo<T> {
    fn default() -> Lifo<T> {
        Lifo(RefCell::default())
    }
}

impl<T: Ord> Default for Priority<T> {
    fn default() -> Priority<T> {
        Priority { heap: RefCell::default(), size: Cell::new(0), next_number: Cell::new(0) }
    }
}

impl<T> sealed::Sealed for Fifo<T> {}
impl<T> sealed::Sealed for Lifo<T> {}
impl<T: Ord> sealed::Sealed for Priority<T> {}

impl<T> Store for Fifo<T> {
    type Item = T;

    #[inline]
    fn push(&self, item: T) {
        self.0.borrow_mut().items.push_back(item);
    }

    #[inline]
    fn pop(&self) -> Option<T> {
        let mut row = self.0.borrow_mut();
        if let Some((_, item)) = row.returned().and_then(BTreeMap::pop_first) {
            return Some(item);
        }
        row.items.pop_front()
    }

    #[inline]
    fn lend(&self) -> Option<(u64, T)> {
        let mut row = self.0.borrow_mut();
        if let Some(returned) = row.returned().and_then(BTreeMap::pop_first) {
            return Some(returned);
        }
        let item = row.items.pop_front()?;
        Some(row.lent(item))
    }

    fn give_back(&self, number: u64, item: T) {
        self.0.borrow_mut().returned.insert(number, item);
    }

    fn size(&self) -> usize {
        self.0.borrow().len()
    }

    fn clear(&self) {
        self.0.take().discard();
    }
}

impl<T> Store for Lifo<T> {
    type Item = T;

    #[inline]
    fn push(&self, item: T) {
        self.0.borrow_mut().items.push_back(item);
    }

    #[inline]
    fn pop(&self) -> Option<T> {
        let mut row = self.0.borrow_mut();
        let item = row.items.pop_back();
        item.or_else(|| row.returned().and_then(BTreeMap::pop_last).map(|(_, item)| item))
    }

    #[inline]
    fn lend(&self) -> Option<(u64, T)> {
        let mut row = self.0.borrow_mut();
        match row.items.pop_back() {
            Some(item) => Some(row.lent(item)),
            None => row.returned().and_then(BTreeMap::pop_last),
        }
    }

    fn give_back(&self, number: u64, item: T) {
        self.0.borrow_mut().returned.insert(number, item);
    }

    fn size(&self) -> usize {
        self.0.borrow().len()
    }

    fn clear(&self) {
        self.0.take().discard();
    }
}

impl<T: Ord> Priority<T> {
    /// Changes the heap. That compares items, which is foreign code and may use this very queue. So the
    /// items are taken out of `self.heap` meanwhile, and no borrow is held; items that are put in meanwhile
    /// join the others afterwards.
    fn change<R>(&self, change: impl FnOnce(&mut BinaryHeap<Ranked<T>>) -> R) -> R {
        let mut heap = self.heap.take();
        let result = change(&mut heap);
        loop {
            let mut meanwhile = self.heap.take();
            if meanwhile.is_empty() {
                break;
            }
            heap.append(&mut meanwhile);
        }
        self.heap.replace(heap);
        result
    }
}

impl<T: Ord> Store for Priority<T> {
    type Item = T;

    const COMPARES: bool = true;

    fn push(&self, item: T) {
        let number = self.next_number.replace(self.next_number.get() + 1);
        self.give_back(number, item);
    }

    fn give_back(&self, number: u64, item: T) {
        self.size.set(self.size.get() + 1);
        self.change(|heap| heap.push(Ranked { number, item }));
    }

    fn pop(&self) -> Option<T> {
        self.lend().map(|(_, item)| item)
    }

    fn lend(&self) -> Option<(u64, T)> {
        let Ranked { number, item } = self.change(BinaryHeap::pop)?;
        self.size.set(self.size.get() - 1);
        Some((number, item))
    }

    fn size(&self) -> usize {
        self.size.get()
    }

    fn clear(&self) {
        self.size.set(0);
        foreign::discard_all(self.heap.take());
    }
}
