//! The shapes of what the forms of `multi` await: an array of futures gives an array of values, and a map of
//! futures gives a map of values.
//!
//! A shape is taken apart into its children, the futures, and its frame, which is what is left without them,
//! such as a map's keys. When the children are done, the frame and their values are put together again. (The
//! children of a tuple have different types, so each form of `multi` has to deal with tuples itself.) Nobody
//! outside of this crate can name the trait, so these are all shapes that there are.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash};

/// A vector, an array or a map.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be awaited by a form of `multi`",
    label = "not a vector, an array, a map or a tuple of two to six futures",
    note = "what an iterator gives is a vector by `.collect::<Vec<_>>()`"
)]
pub trait Shape {
    /// What it holds: a future.
    type Child;
    /// The same shape, with a `T` instead of each child.
    type Of<T>;
    /// What is left without the children.
    type Frame;

    /// Gives the frame and the children.
    fn take_apart(self) -> (Self::Frame, impl Iterator<Item = Self::Child>);

    /// Makes the shape of its frame and of as many values as there were children, in the same order.
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
