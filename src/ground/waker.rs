//! A waker is a number.
//!
//! What std takes for a pointer inside the [`RawWaker`] is a [word](super::word): it names a loop and a slot
//! in that loop's table.
//!
//! So `clone` copies a word and `drop` does nothing: there is no reference count, atomic or not, and nothing
//! that could dangle. `wake` on the thread where that loop is current marks the slot and puts it on the run
//! queue; anywhere else it posts the key to the loop's inbox. A word that is kept too long finds no loop, or
//! a slot with a newer generation. At worst it finds another loop of the same number, or a generation that
//! has come again, and wakes somebody for nothing, which the contract of [`Future`] allows.
//!
//! Loops are built on their wakers, so this file cannot import them. The file that makes loops says
//! [how a word is woken](set_wake).

#![expect(unsafe_code, reason = "a RawWaker can be made in no other way")]

use std::ptr;
use std::sync::OnceLock;
use std::task::{RawWaker, RawWakerVTable, Waker};

/// A `static`, so that `Waker::will_wake` can compare its address.
static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake, |_| ());

/// How a word is woken. It is not set before there is any loop, and then there is nobody to wake.
static WAKE: OnceLock<fn(usize)> = OnceLock::new();

/// From now on, words are woken by `wake`, which may be called on any thread and any number of times. Only
/// the first call has an effect.
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

/// The inverse of [`waker`]: the word of a waker of ours; `None` if the waker is foreign.
pub(crate) fn word_of(waker: &Waker) -> Option<usize> {
    ptr::eq(waker.vtable(), &VTABLE).then(|| waker.data().addr())
}
