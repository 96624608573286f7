//! In which order a queue gives its items.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};

use crate::ground::foreign;

/// What a [`QueueOver`](super::QueueOver) keeps its items in: it decides which item is the next. It cannot
/// be implemented outside of this crate.
///
/// Each item comes with a number: how many items were put before it. The only foreign code that a store
/// runs is the items' `Ord`, and that may use the very queue whose items it compares.
pub trait Store: Default + sealed::Sealed {
    /// What is put and got.
    type Item;

    /// Whether it compares items. Then any call of `push`, `give_back` and `pop` may run code that uses the
    /// queue, and the caller has to look again at what it knew of the queue before.
    #[doc(hidden)]
    const COMPARES: bool = false;

    /// Takes in a new item, whose number is greater than all others.
    #[doc(hidden)]
    fn push(&self, number: u64, item: Self::Item);

    /// Takes back an item that `pop` has given, to where it was.
    #[doc(hidden)]
    fn give_back(&self, number: u64, item: Self::Item);

    /// Gives the next item.
    #[doc(hidden)]
    fn pop(&self) -> Option<(u64, Self::Item)>;

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
pub struct Fifo<T>(RefCell<VecDeque<(u64, T)>>);

/// Last in first out.
#[derive(Debug)]
pub struct Lifo<T>(RefCell<VecDeque<(u64, T)>>);

/// The least first; of equal ones, first in first out.
#[derive(Debug)]
pub struct Priority<T> {
    heap: RefCell<BinaryHeap<Ranked<T>>>,
    /// How many items there are. The heap cannot tell: while items are compared, they are taken out of it.
    size: Cell<usize>,
}

/// An item with its number. It compares as greater the sooner it is to be given, for a `BinaryHeap` gives
/// its greatest first.
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
        Priority { heap: RefCell::default(), size: Cell::new(0) }
    }
}

impl<T> sealed::Sealed for Fifo<T> {}
impl<T> sealed::Sealed for Lifo<T> {}
impl<T: Ord> sealed::Sealed for Priority<T> {}

/// Puts an item back among others that are in the order of their numbers.
fn put_back<T>(items: &mut VecDeque<(u64, T)>, number: u64, item: T) {
    let index = items.partition_point(|(earlier, _)| *earlier < number);
    items.insert(index, (number, item));
}

impl<T> Store for Fifo<T> {
    type Item = T;

    fn push(&self, number: u64, item: T) {
        self.0.borrow_mut().push_back((number, item));
    }

    fn give_back(&self, number: u64, item: T) {
        put_back(&mut self.0.borrow_mut(), number, item);
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

    fn push(&self, number: u64, item: T) {
        self.0.borrow_mut().push_back((number, item));
    }

    fn give_back(&self, number: u64, item: T) {
        put_back(&mut self.0.borrow_mut(), number, item);
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

    fn push(&self, number: u64, item: T) {
        self.size.set(self.size.get() + 1);
        self.change(|heap| heap.push(Ranked { number, item }));
    }

    fn give_back(&self, number: u64, item: T) {
        self.push(number, item);
    }

    fn pop(&self) -> Option<(u64, T)> {
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
