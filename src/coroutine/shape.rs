//! The shapes of children: what is awaited as an array gives an array, and what is awaited as a map, a map.
//!
//! A shape of children of one type is taken apart into what it looks like, such as a map's keys, and the
//! children; it is put together again of that and as many values. (The types of a tuple's children differ, so
//! that each form of `multi` has to deal with tuples itself.) Nobody outside can name this trait, so the
//! shapes that there are stand here.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash};

/// A vector, an array or a map.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be awaited by a form of `multi`",
    label = "not a vector, an array, a map or a tuple of two to six futures",
    note = "what an iterator gives is a vector by `.collect::<Vec<_>>()`"
)]
pub trait Shape {
    /// What it holds.
    type Child;
    /// The same shape, with a `T` in the place of each child.
    type Of<T>;
    /// What is left without the children.
    type Frame;

    /// The children come in the order of their places.
    fn take_apart(self) -> (Self::Frame, impl Iterator<Item = Self::Child>);

    /// There are as many values as there were children, in the same order.
    fn put_together<T>(frame: Self::Frame, values: Vec<T>) -> Self::Of<T>;
}

impl<C> Shape for Vec<C> {
    type Child = C;
    type Of<T> = Vec<T>;
    type Frame = ();

    fn take_apart(self) -> ((), impl Iterator<Item = C>) {
        ((), self.into_iter())
    }

    fn put_together<T>((): (), values: Vec<T>) -> Vec<T> {
        values
    }
}

impl<C, const N: usize> Shape for [C; N] {
    type Child = C;
    type Of<T> = [T; N];
    type Frame = ();

    fn take_apart(self) -> ((), impl Iterator<Item = C>) {
        ((), self.into_iter())
    }

    fn put_together<T>((): (), values: Vec<T>) -> [T; N] {
        match values.try_into() {
            Ok(values) => values,
            Err(_) => unreachable!("there are as many values as there were children"),
        }
    }
}

impl<K: Eq + Hash, C, S: BuildHasher + Default> Shape for HashMap<K, C, S> {
    type Child = C;
    type Of<T> = HashMap<K, T, S>;
    type Frame = Vec<K>;

    fn take_apart(self) -> (Vec<K>, impl Iterator<Item = C>) {
        let (keys, children): (Vec<K>, Vec<C>) = self.into_iter().unzip();
        (keys, children.into_iter())
    }

    fn put_together<T>(keys: Vec<K>, values: Vec<T>) -> HashMap<K, T, S> {
        keys.into_iter().zip(values).collect()
    }
}

impl<K: Ord, C> Shape for BTreeMap<K, C> {
    type Child = C;
    type Of<T> = BTreeMap<K, T>;
    type Frame = Vec<K>;

    fn take_apart(self) -> (Vec<K>, impl Iterator<Item = C>) {
        let (keys, children): (Vec<K>, Vec<C>) = self.into_iter().unzip();
        (keys, children.into_iter())
    }

    fn put_together<T>(keys: Vec<K>, values: Vec<T>) -> BTreeMap<K, T> {
        keys.into_iter().zip(values).collect()
    }
}
