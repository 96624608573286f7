//! A waker is a number.
//!
//! The pointer inside the [`RawWaker`] is no pointer: it is a [word](super::word) that names a loop and
//! a slot in that loop's table.
//!
//! So `clone` copies a word and `drop` does nothing: there is no reference count, atomic or not,
//! and nothing to dangle. `wake` on the thread where that loop is current marks the slot and puts
//! it on the run queue; anywhere else it posts the key to the loop's inbox. A number kept too long
//! finds no loop, or a newer generation in the slot, and is at worst one spurious wake-up, which
//! the contract of [`Future`] allows.
//!
//! Loops are built on their wakers, and so a waker knows no loop: whoever makes loops
//! [tells](set_wake) how a word is woken.

#![expect(unsafe_code, reason = "a RawWaker can be made in no other way")]

use std::ptr;
use std::sync::OnceLock;
use std::task::{RawWaker, RawWakerVTable, Waker};

/// A `static`, so that `Waker::will_wake` can compare its address.
static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake, |_| ());

/// How a word is woken. Before there is any loop, there is nobody to be woken.
static WAKE: OnceLock<fn(usize)> = OnceLock::new();

/// Words are woken by `wake` from now on: on whatever thread, and as often as anybody likes. The first to
/// say so is heard.
pub(crate) fn set_wake(wake: fn(usize)) {
    WAKE.get_or_init(|| wake);
}

/// The waker of a slot, by its word.
pub(crate) fn waker(word: usize) -> Waker {
    let data = ptr::without_provenance(word);
    // SAFETY: `data` is a number that the functions of `VTABLE` never dereference, so it is valid on
    // every thread and for ever. They own nothing: `clone` copies the number and `drop` has nothing to
    // release. `wake` may run on any thread at any time: it reads a `OnceLock` and calls what is in it, a
    // safe function that gets the number.
    unsafe { Waker::new(data, &VTABLE) }
}

fn clone(data: *const ()) -> RawWaker {
    RawWaker::new(data, &VTABLE)
}

fn wake(data: *const ()) {
    if let Some(wake) = WAKE.get() {
        wake(data.addr());
    }
}

/// The inverse of [`waker`]: the word of a waker of ours.
pub(crate) fn word_of(waker: &Waker) -> Option<usize> {
    ptr::eq(waker.vtable(), &VTABLE).then(|| waker.data().addr())
}
