//! The loop.
//!
//! Each round of it asks four questions: what have other threads posted (`inbox`), which timers are due
//! (`due`), what is ready to run (`ready`), and which sockets can be read or written (`selector`). Each of
//! these files has the part of a loop's state that answers its question, and `turn` asks them in order.
//! `core` is the state of a loop put together, `current` says which loop a thread has, `run` starts and
//! closes loops.
//!
//! **The rule under all of it**: no borrow of the loop's state is held while foreign code runs: not
//! a callback, not a poll, not a wake, not a destructor.

mod builder;
mod callback;
mod clock;
mod core;
mod current;
mod deadline;
mod descriptors;
mod due;
mod fine_sleep;
mod handlers;
mod inbox;
mod interest;
mod introspect;
mod io_loop;
mod life;
mod pace;
mod periodic;
mod readiness;
mod ready;
mod registration;
mod run;
mod selector;
mod slack;
mod turn;
mod watch;

pub use builder::Builder;
pub use deadline::Deadline;
pub use inbox::{HeldTime, LoopHandle};
pub use interest::Interest;
pub use introspect::{Counters, Step};
pub use io_loop::{IoLoop, TimerId};
pub use periodic::PeriodicCallback;

pub(crate) use self::core::{Core, LentBuffer, Resume};
pub(crate) use callback::Callback;
pub(crate) use clock::nanos;
pub(crate) use current::{on_current, with_current};
pub(crate) use inbox::{LoopId, Message, forget, forget_socket, is_closed};
pub(crate) use readiness::{By, Direction, Readiness, SHORT_IS_DRAINED, Ticket, Until, Wait};
