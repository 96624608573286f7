//! In which order a queue gives its items.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};

/// What a [`QueueOver`](super::QueueOver) keeps its items in. It cannot be implemented outside of
/// this crate.
pub trait Store: Default + sealed::Sealed {
    /// What is put and got.
    type Item;

    /// Takes an item in.
    #[doc(hidden)]
    fn push(&mut self, item: Self::Item);

    /// Takes back an item that was given and not wanted after all: it is the next again.
    #[doc(hidden)]
    fn give_back(&mut self, item: Self::Item);

    /// Gives the next item.
    #[doc(hidden)]
    fn pop(&mut self) -> Option<Self::Item>;

    /// How many there are.
    #[doc(hidden)]
    fn size(&self) -> usize;
}

mod sealed {
    pub trait Sealed {}
}

/// First in first out.
#[derive(Debug)]
pub struct Fifo<T>(VecDeque<T>);

/// Last in first out.
#[derive(Debug)]
pub struct Lifo<T>(Vec<T>);

/// The least first; of equal ones, first in first out.
#[derive(Debug)]
pub struct Priority<T> {
    heap: BinaryHeap<Entry<T>>,
    pushed: u64,
}

/// An item with its turn among its equals, which is greater the sooner it is to be given.
#[derive(Debug)]
struct Entry<T> {
    item: T,
    turn: u64,
}

impl<T: Ord> Ord for Entry<T> {
    fn cmp(&self, other: &Entry<T>) -> Ordering {
        other.item.cmp(&self.item).then(other.turn.cmp(&self.turn))
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
        Fifo(VecDeque::new())
    }
}

impl<T> Default for Lifo<T> {
    fn default() -> Lifo<T> {
        Lifo(Vec::new())
    }
}

impl<T: Ord> Default for Priority<T> {
    fn default() -> Priority<T> {
        Priority { heap: BinaryHeap::new(), pushed: 0 }
    }
}

impl<T> sealed::Sealed for Fifo<T> {}
impl<T> sealed::Sealed for Lifo<T> {}
impl<T: Ord> sealed::Sealed for Priority<T> {}

impl<T> Store for Fifo<T> {
    type Item = T;

    fn push(&mut self, item: T) {
        self.0.push_back(item);
    }

    fn give_back(&mut self, item: T) {
        self.0.push_front(item);
    }

    fn pop(&mut self) -> Option<T> {
        self.0.pop_front()
    }

    fn size(&self) -> usize {
        self.0.len()
    }
}

impl<T> Store for Lifo<T> {
    type Item = T;

    fn push(&mut self, item: T) {
        self.0.push(item);
    }

    fn give_back(&mut self, item: T) {
        self.0.push(item);
    }

    fn pop(&mut self) -> Option<T> {
        self.0.pop()
    }

    fn size(&self) -> usize {
        self.0.len()
    }
}

impl<T: Ord> Store for Priority<T> {
    type Item = T;

    fn push(&mut self, item: T) {
        self.pushed += 1;
        self.heap.push(Entry { item, turn: self.pushed });
    }

    fn give_back(&mut self, item: T) {
        self.heap.push(Entry { item, turn: 0 });
    }

    fn pop(&mut self) -> Option<T> {
        self.heap.pop().map(|entry| entry.item)
    }

    fn size(&self) -> usize {
        self.heap.len()
    }
}
