//! The ground floor: everything else stands on it, and it knows no loop.
//!
//! First there is plain data: [`slots`], [`timers`], and the [`word`] that is a [`waker`]. Then there is
//! the one way to report a failure ([`error`], [`report`]) and to call code that is not ours ([`foreign`]).
//! Then there is what a coroutine has while it is resumed ([`resumption`]) and while it waits
//! ([`wait_queue`]). None of it imports anything from another folder.

pub(crate) mod coroutine_info;
pub(crate) mod error;
pub(crate) mod foreign;
pub(crate) mod kept;
pub(crate) mod park;
pub(crate) mod report;
pub(crate) mod resumption;
pub(crate) mod slots;
pub(crate) mod timers;
pub(crate) mod wait_queue;
pub(crate) mod waker;
pub(crate) mod word;
