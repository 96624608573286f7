//! The ground floor: what everything else stands on, and what knows no loop.
//!
//! Plain data first ([`slots`], [`timers`], the [`word`] of a [`waker`]); then what happens to failures ([`error`],
//! [`report`]) and to code that is not ours ([`foreign`]); then what a coroutine has while it is resumed
//! ([`resumption`]) and while it waits ([`wait_queue`]). None of it imports anything from another folder.

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
