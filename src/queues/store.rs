//! In which order a queue gives its items.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};

/// What a [`QueueOver`](super::QueueOver) keeps its items in, each with its turn: how many were put
/// before it. It cannot be implemented outside of this crate.
pub trait Store: Default + sealed::Sealed {
    /// What is put and got.
    type Item;

    /// Takes an item in, whose turn is the last.
    #[doc(hidden)]
    fn push(&mut self, turn: u64, item: Self::Item);

    /// Takes an item back that was given and not wanted after all: it goes where it was.
    #[doc(hidden)]
    fn give_back(&mut self, turn: u64, item: Self::Item);

    /// Gives the next item.
    #[doc(hidden)]
    fn pop(&mut self) -> Option<(u64, Self::Item)>;

    /// How many there are.
    #[doc(hidden)]
    fn size(&self) -> usize;
}

mod sealed {
    pub trait Sealed {}
}

/// First in first out.
#[derive(Debug)]
pub struct Fifo<T>(VecDeque<(u64, T)>);

/// Last in first out.
#[derive(Debug)]
pub struct Lifo<T>(Vec<(u64, T)>);

/// The least first; of equal ones, first in first out.
#[derive(Debug)]
pub struct Priority<T>(BinaryHeap<Entry<T>>);

/// An item with its turn, which is greater the sooner it is to be given.
#[derive(Debug)]
struct Entry<T> {
    turn: u64,
    item: T,
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
        Priority(BinaryHeap::new())
    }
}

impl<T> sealed::Sealed for Fifo<T> {}
impl<T> sealed::Sealed for Lifo<T> {}
impl<T: Ord> sealed::Sealed for Priority<T> {}

impl<T> Store for Fifo<T> {
    type Item = T;

    fn push(&mut self, turn: u64, item: T) {
        self.0.push_back((turn, item));
    }

    fn give_back(&mut self, turn: u64, item: T) {
        let place = self.0.partition_point(|(earlier, _)| *earlier < turn);
        self.0.insert(place, (turn, item));
    }

    fn pop(&mut self) -> Option<(u64, T)> {
        self.0.pop_front()
    }

    fn size(&self) -> usize {
        self.0.len()
    }
}

impl<T> Store for Lifo<T> {
    type Item = T;

    fn push(&mut self, turn: u64, item: T) {
        self.0.push((turn, item));
    }

    fn give_back(&mut self, turn: u64, item: T) {
        let place = self.0.partition_point(|(earlier, _)| *earlier < turn);
        self.0.insert(place, (turn, item));
    }

    fn pop(&mut self) -> Option<(u64, T)> {
        self.0.pop()
    }

    fn size(&self) -> usize {
        self.0.len()
    }
}

impl<T: Ord> Store for Priority<T> {
    type Item = T;

    fn push(&mut self, turn: u64, item: T) {
        self.0.push(Entry { turn, item });
    }

    fn give_back(&mut self, turn: u64, item: T) {
        self.push(turn, item);
    }

    fn pop(&mut self) -> Option<(u64, T)> {
        self.0.pop().map(|Entry { turn, item }| (turn, item))
    }

    fn size(&self) -> usize {
        self.0.len()
    }
}
