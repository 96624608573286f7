//! In which order a queue gives its items.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};

use crate::ground::foreign;

/// What a [`QueueOver`](super::QueueOver) keeps its items in, each with its turn: how many were put
/// before it. It cannot be implemented outside of this crate.
///
/// Nothing of somebody else's runs in here but the items' `Ord`, which may use the queue that compares
/// them.
pub trait Store: Default + sealed::Sealed {
    /// What is put and got.
    type Item;

    /// Whether it compares items. Then each of these calls may run code that puts and gets, and what was
    /// known of the queue before may not be so after.
    #[doc(hidden)]
    const COMPARES: bool = false;

    /// Takes an item in, whose turn is the last.
    #[doc(hidden)]
    fn push(&self, turn: u64, item: Self::Item);

    /// Takes an item back that was given and not wanted after all: it goes where it was.
    #[doc(hidden)]
    fn give_back(&self, turn: u64, item: Self::Item);

    /// Gives the next item.
    #[doc(hidden)]
    fn pop(&self) -> Option<(u64, Self::Item)>;

    /// How many there are.
    #[doc(hidden)]
    fn size(&self) -> usize;

    /// Drops all.
    #[doc(hidden)]
    fn clear(&self);
}

mod sealed {
    pub trait Sealed {}
}

/// First in first out.
#[derive(Debug)]
pub struct Fifo<T>(RefCell<VecDeque<(u64, T)>>);

/// Last in first out.
#[derive(Debug)]
pub struct Lifo<T>(RefCell<VecDeque<(u64, T)>>);

/// The least first; of equal ones, first in first out.
#[derive(Debug)]
pub struct Priority<T> {
    heap: RefCell<BinaryHeap<Entry<T>>>,
    /// How many there are. Not the heap's length: while items are compared they are out of it.
    size: Cell<usize>,
}

/// An item with its turn, which is greater the sooner it is to be given.
#[derive(Debug)]
struct Entry<T> {
    turn: u64,
    item: T,
}

impl<T: Ord> Ord for Entry<T> {
    fn cmp(&self, other: &Entry<T>) -> Ordering {
        // If `Ord` panics, the two are taken for equal. Passed on, the panic would hit somebody who only puts
        // or gets another item, in the midst of moving these, which could be lost.
        let order = foreign::call("order of a queue's items", None, || other.item.cmp(&self.item));
        order.unwrap_or(Ordering::Equal).then(other.turn.cmp(&self.turn))
    }
}

impl<T: Ord> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Entry<T>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Ord> PartialEq for Entry<T> {
    fn eq(&self, other: &Entry<T>) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T: Ord> Eq for Entry<T> {}

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
        Priority { heap: RefCell::default(), size: Cell::new(0) }
    }
}

impl<T> sealed::Sealed for Fifo<T> {}
impl<T> sealed::Sealed for Lifo<T> {}
impl<T: Ord> sealed::Sealed for Priority<T> {}

/// Puts an item back among others, which are in the order of their turns.
fn put_back<T>(items: &mut VecDeque<(u64, T)>, turn: u64, item: T) {
    let place = items.partition_point(|(earlier, _)| *earlier < turn);
    items.insert(place, (turn, item));
}

impl<T> Store for Fifo<T> {
    type Item = T;

    fn push(&self, turn: u64, item: T) {
        self.0.borrow_mut().push_back((turn, item));
    }

    fn give_back(&self, turn: u64, item: T) {
        put_back(&mut self.0.borrow_mut(), turn, item);
    }

    fn pop(&self) -> Option<(u64, T)> {
        self.0.borrow_mut().pop_front()
    }

    fn size(&self) -> usize {
        self.0.borrow().len()
    }

    fn clear(&self) {
        foreign::discard_all(self.0.take());
    }
}

impl<T> Store for Lifo<T> {
    type Item = T;

    fn push(&self, turn: u64, item: T) {
        self.0.borrow_mut().push_back((turn, item));
    }

    fn give_back(&self, turn: u64, item: T) {
        put_back(&mut self.0.borrow_mut(), turn, item);
    }

    fn pop(&self) -> Option<(u64, T)> {
        self.0.borrow_mut().pop_back()
    }

    fn size(&self) -> usize {
        self.0.borrow().len()
    }

    fn clear(&self) {
        foreign::discard_all(self.0.take());
    }
}

impl<T: Ord> Priority<T> {
    /// Changes the heap, which compares items: that is foreign code, which may use this very queue.
    /// So the items are out of it meanwhile; what is put in meanwhile joins them.
    fn change<R>(&self, change: impl FnOnce(&mut BinaryHeap<Entry<T>>) -> R) -> R {
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

    fn push(&self, turn: u64, item: T) {
        self.size.set(self.size.get() + 1);
        self.change(|heap| heap.push(Entry { turn, item }));
    }

    fn give_back(&self, turn: u64, item: T) {
        self.push(turn, item);
    }

    fn pop(&self) -> Option<(u64, T)> {
        let Entry { turn, item } = self.change(BinaryHeap::pop)?;
        self.size.set(self.size.get() - 1);
        Some((turn, item))
    }

    fn size(&self) -> usize {
        self.size.get()
    }

    fn clear(&self) {
        self.size.set(0);
        foreign::discard_all(self.heap.take());
    }
}
