//! How coroutines end before their time: one after the other, down to what they await.
//!
//! Ending a coroutine drops its state machine, and what is in there may own other coroutines, which end
//! then, too: requests own requests, groups own groups. If each ended the next from within its own
//! destructor, a long chain would overflow the stack. So what is nested more than a few levels deep is
//! put in a list, and whoever has begun the first ending works through it. An ending is over when the
//! call that asked for it returns; at such a depth, when the first one is.
//!
//! Cancelling reaches what is awaited (asyncio's rule): a handle that is dropped *because its owner is
//! cancelled* cancels its coroutine, if it has begun to be awaited. Any other handle that is dropped
//! detaches its coroutine, as in Tornado. So the list also knows whose destructors are at work.

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

/// So many endings may be within each other; what would be deeper is put in the list.
const AT_ONCE: u32 = 8;

/// Something that can be ended.
pub(super) trait End {
    /// Drops what it has to drop. Called once. No panic comes out of it.
    fn end(&self);
}

enum Item {
    End(Rc<dyn End>),
    Drop(Box<dyn Any>),
}

/// Whose code runs: the slot that is being resumed, and its loop.
type Running = Option<(LoopId, Key)>;

thread_local! {
    /// Has no destructor, so that what ends with the thread finds it; and no memory when it is empty.
    static LIST: ManuallyDrop<RefCell<VecDeque<Item>>> =
        const { ManuallyDrop::new(RefCell::new(VecDeque::new())) };
    /// How many endings within each other are under way.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// The destructors of something that is cancelled are at work, within this.
    static CANCELLING: Cell<Option<Running>> = const { Cell::new(None) };
}

/// Ends `what`, now or after what is ending already.
pub(super) fn end(what: Rc<dyn End>) {
    if DEPTH.get() < AT_ONCE {
        return within_another(|| what.end());
    }
    LIST.with(|list| list.borrow_mut().push_back(Item::End(what)));
}

/// Drops what a coroutine has left, which may be the last handle of another one.
#[inline]
pub(super) fn discard<T: 'static>(value: T) {
    if !std::mem::needs_drop::<T>() {
    } else if DEPTH.get() < AT_ONCE {
        within_another(|| foreign::discard(value));
    } else {
        LIST.with(|list| list.borrow_mut().push_back(Item::Drop(Box::new(value))));
    }
}

/// Ends something within whatever is ending. Who is within nothing works through the list after.
fn within_another(end: impl FnOnce()) {
    let depth = DEPTH.get();
    DEPTH.set(depth + 1);
    end();
    if depth == 0 {
        while let Some(item) = LIST.with(|list| list.borrow_mut().pop_front()) {
            match item {
                Item::End(what) => what.end(),
                Item::Drop(value) => foreign::discard(value),
            }
        }
        LIST.with(|list| drop(list.take()));
    }
    DEPTH.set(depth);
}

/// Runs the destructors of something that is cancelled.
pub(super) fn cancelling<R>(run: impl FnOnce() -> R) -> R {
    within(Some(running()), run)
}

/// Runs destructors that detach, also while their owner is cancelled.
fn detaching<R>(run: impl FnOnce() -> R) -> R {
    within(None, run)
}

fn within<R>(cancelling: Option<Running>, run: impl FnOnce() -> R) -> R {
    struct Before(Option<Running>);
    impl Drop for Before {
        fn drop(&mut self) {
            CANCELLING.set(self.0);
        }
    }
    let _before = Before(CANCELLING.replace(cancelling));
    run()
}

pin_project! {
    /// A future whose coroutines go on when it is dropped; from [`shield`].
    #[must_use = "futures do nothing unless awaited"]
    #[derive(Debug)]
    pub struct Shield<F> {
        #[pin]
        future: Option<F>,
    }

    impl<F> PinnedDrop for Shield<F> {
        fn drop(this: Pin<&mut Self>) {
            detaching(|| this.project().future.set(None));
        }
    }
}

/// Awaits `future` and keeps the coroutines that it awaits from being cancelled with whoever awaits
/// this: they go on. asyncio: `shield`.
///
/// Cancelling a coroutine also cancels the coroutines that it awaits. This is for work that has to come
/// to its end once it was begun.
///
/// Cancel safe for handles of coroutines: they are detached. What else `future` is made of is dropped.
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

/// Whether this is the destructor of something that is cancelled, and not a coroutine or a loop that
/// such a destructor runs.
pub(super) fn is_cancelling() -> bool {
    CANCELLING.get().is_some_and(|within| within == running())
}

fn running() -> Running {
    with_current(|core| (core.id(), core.current_key()))
}
