//! A waker is a number.
//!
//! The pointer inside the [`RawWaker`] is no pointer: it is a [word](crate::ground::word) that names a loop
//! and a slot in that loop's table.
//!
//! So `clone` copies a word and `drop` does nothing: there is no reference count, atomic or not,
//! and nothing to dangle. `wake` on the thread where that loop is current marks the slot and puts
//! it on the run queue; anywhere else it posts the key to the loop's inbox. A number kept too long
//! finds no loop, or a newer generation in the slot, and is at worst one spurious wake-up, which
//! the contract of [`Future`] allows.

#![expect(unsafe_code, reason = "a RawWaker can be made in no other way")]

use std::ptr;
use std::task::{RawWaker, RawWakerVTable, Waker};

use super::inbox;
use super::with_current;
use crate::ground::slots::Key;
use crate::ground::word::unpack;

/// A `static`, so that `Waker::will_wake` can compare its address.
static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake, |_| ());

/// The waker of a slot, by its word.
pub(crate) fn waker(word: usize) -> Waker {
    let data = ptr::without_provenance(word);
    // SAFETY: `data` is a number that the functions of `VTABLE` only decode, never dereference, so
    // it is valid on every thread and for ever. They own nothing: `clone` copies the number and
    // `drop` has nothing to release. `wake` may run on any thread at any time: it uses what
    // `with_current` gives for its own thread, or else the registry of inboxes behind its lock.
    unsafe { Waker::new(data, &VTABLE) }
}

fn clone(data: *const ()) -> RawWaker {
    RawWaker::new(data, &VTABLE)
}

fn wake(data: *const ()) {
    let (number, key) = unpack(data.addr());
    let here = with_current(|core| {
        let here = core.number() == number;
        if here {
            core.schedule(key);
        }
        here
    });
    if here != Some(true) {
        wake_from_afar(number, key);
    }
}

#[cold]
fn wake_from_afar(number: usize, key: Key) {
    inbox::wake(number, key);
}

/// By what the wakers of slots are known.
pub(super) fn vtable() -> &'static RawWakerVTable {
    &VTABLE
}

/// The inverse of [`waker`]: the word of a waker of ours.
pub(crate) fn word_of(waker: &Waker) -> Option<usize> {
    ptr::eq(waker.vtable(), &VTABLE).then(|| waker.data().addr())
}
