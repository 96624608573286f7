//! How coroutines are ended early: one after the other, down to those that they await.
//!
//! Ending a coroutine drops its state machine. That may own other coroutines, which end then, too: requests
//! own requests, groups own groups. If each ended the next one from within its own destructor, a long chain
//! would overflow the stack. So what would be nested more than a few levels deep is put in a list instead,
//! and the outermost ending works through that list before it returns. Most endings are over when the call
//! that asked for them returns; those that went through the list are over when the outermost one is.
//!
//! Cancelling reaches what is awaited (asyncio's rule): when a handle is dropped *because its owner is
//! cancelled*, and somebody has begun to await it, its coroutine is cancelled. Any other handle that is
//! dropped detaches its coroutine, as in Tornado. So this file also notes when the destructors that run are
//! those of something that is cancelled: `DROPPING`.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures::future::FusedFuture;
use pin_project_lite::pin_project;

use crate::ground::foreign;
use crate::ground::slots::Key;
use crate::ioloop::{LoopId, with_current};

/// How many endings may be nested on the stack; what would be deeper is put in the list.
const MAX_DEPTH: u32 = 8;

/// Something that can be ended.
pub(super) trait End {
    /// Drops what has to be dropped. It is called once, and never panics.
    fn end(&self);
}

/// What waits in the list until the outermost ending comes to it.
enum Postponed {
    End(Rc<dyn End>),
    Drop(Box<dyn Any>),
}

/// Whose code runs: the slot that is being resumed (`Key::NONE` if none is), and the loop that resumes it;
/// `None` if the thread has no current loop.
type Current = Option<(LoopId, Key)>;

thread_local! {
    /// It has no destructor, so that it is still there for coroutines that end with the thread. Nothing
    /// leaks, since it owns no memory while it is empty.
    static LIST: ManuallyDrop<RefCell<VecDeque<Postponed>>> =
        const { ManuallyDrop::new(RefCell::new(VecDeque::new())) };
    /// How many endings are under way, each within the one before.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// While the destructors of something that is cancelled, or of a [`Shield`], run, this tells so, and whose
    /// code was running when they began. Such a destructor may start another coroutine or run a loop: that
    /// code is somebody else's, and handles that are dropped in it detach as usual.
    static DROPPING: Cell<Option<(Dropping, Current)>> = const { Cell::new(None) };
}

/// Why destructors run, as far as that makes a difference to the coroutines whose handles they drop.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dropping {
    /// Something is cancelled, and with it the coroutines that it awaits.
    Cancelled,
    /// A shield goes: coroutines go on, even those that are tied to their handles.
    Shield,
}

/// Ends `what`: now or, if endings are nested too deeply, before the outermost one returns.
pub(super) fn end(what: Rc<dyn End>) {
    if DEPTH.get() < MAX_DEPTH {
        return nested(|| what.end());
    }
    LIST.with(|list| list.borrow_mut().push_back(Postponed::End(what)));
}

/// Drops the output that a coroutine has left, at the same time as [`end`] would: it may be, or contain, the
/// last handle of another coroutine, and so on.
#[inline]
pub(super) fn discard<T: 'static>(value: T) {
    if !std::mem::needs_drop::<T>() {
    } else if DEPTH.get() < MAX_DEPTH {
        nested(|| foreign::discard(value));
    } else {
        LIST.with(|list| list.borrow_mut().push_back(Postponed::Drop(Box::new(value))));
    }
}

/// Calls `end`, one level deeper than what is ending already. If nothing is, this is the outermost ending,
/// which works through the list afterwards.
fn nested(end: impl FnOnce()) {
    let depth = DEPTH.get();
    DEPTH.set(depth + 1);
    end();
    if depth == 0 {
        while let Some(postponed) = LIST.with(|list| list.borrow_mut().pop_front()) {
            match postponed {
                Postponed::End(what) => what.end(),
                Postponed::Drop(value) => foreign::discard(value),
            }
        }
        LIST.with(|list| drop(list.take()));
    }
    DEPTH.set(depth);
}

/// Calls `run`, which drops something that is cancelled: a handle that is dropped in it, and that somebody
/// has begun to await, cancels its coroutine.
pub(super) fn cancelling<R>(run: impl FnOnce() -> R) -> R {
    dropping(Dropping::Cancelled, run)
}

/// Calls `run`, which drops something because of `why`.
fn dropping<R>(why: Dropping, run: impl FnOnce() -> R) -> R {
    struct Before(Option<(Dropping, Current)>);
    impl Drop for Before {
        fn drop(&mut self) {
            DROPPING.set(self.0);
        }
    }
    let _before = Before(DROPPING.replace(Some((why, current()))));
    run()
}

pin_project! {
    /// A future that awaits coroutines which go on when it is dropped; from [`shield`].
    #[must_use = "futures do nothing unless awaited"]
    #[derive(Debug)]
    pub struct Shield<F> {
        #[pin]
        future: Option<F>,
    }

    impl<F> PinnedDrop for Shield<F> {
        fn drop(this: Pin<&mut Self>) {
            dropping(Dropping::Shield, || this.project().future.set(None));
        }
    }
}

/// Awaits `future`, and protects the coroutines that `future` awaits: they go on when the coroutine that
/// awaits this is cancelled. asyncio: `shield`.
///
/// Otherwise cancelling a coroutine also cancels the coroutines that it awaits. This is for work that has to
/// come to its end once it was begun.
///
/// Cancel safe as far as `future` is made of handles of coroutines: these are detached, also if they are
/// [`CancelOnDrop`](super::CancelOnDrop)s. Everything else that
/// it is made of is dropped.
///
/// ```
/// use std::{cell::Cell, rc::Rc, time::Duration};
/// use waterspout::{IoLoop, coroutine::{shield, sleep, spawn}};
///
/// let io_loop = IoLoop::builder().virtual_time().build()?;
/// let saved = Rc::new(Cell::new(false));
/// io_loop.run_sync(|| async {
///     let done = saved.clone();
///     let request = spawn(async move {
///         let saves = spawn(async move {
///             sleep(Duration::from_secs(1)).await;
///             done.set(true);
///         });
///         shield(saves).await
///     });
///     sleep(Duration::from_millis(1)).await;
///     request.cancel(); // the client has gone
///     sleep(Duration::from_secs(2)).await;
/// })?;
/// assert!(saved.get());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn shield<F: IntoFuture>(future: F) -> Shield<F::IntoFuture> {
    Shield { future: Some(future.into_future()) }
}

impl<F: Future> Future for Shield<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project().future.as_pin_mut() {
            Some(future) => future.poll(cx),
            None => unreachable!("it is taken when this is dropped"),
        }
    }
}

impl<F: FusedFuture> FusedFuture for Shield<F> {
    fn is_terminated(&self) -> bool {
        self.future.as_ref().is_none_or(FusedFuture::is_terminated)
    }
}

/// Whether the caller runs in a destructor of something that is cancelled, and not in another coroutine or
/// loop that such a destructor has started.
pub(super) fn is_cancelling() -> bool {
    DROPPING.get() == Some((Dropping::Cancelled, current()))
}

/// Whether the caller runs in the destructor of a [`Shield`], likewise.
pub(super) fn is_shielded() -> bool {
    DROPPING.get() == Some((Dropping::Shield, current()))
}

fn current() -> Current {
    with_current(|core| (core.id(), core.current_key()))
}
