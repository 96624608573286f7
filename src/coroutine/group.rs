//! `TaskGroup`: coroutines that do not outlive their owner.
//!
//! A coroutine by itself goes on when its handle is dropped. A group owns coroutines, its children: dropping
//! the group cancels them, [`join`](TaskGroup::join) waits for them, and if one fails, the others are
//! cancelled, unless they are independent.
//!
//! Each child holds its own membership (`Member`) in its state machine, and so leaves the group by being
//! dropped, however it ends.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, Location, resume_unwind};
use std::rc::Rc;

use futures::FutureExt;
use futures::future::FusedFuture;

use super::{CancelHandle, Coroutine, Kind, Name, ending, name_of, start_on, with_timeout};
use crate::ground::error::ExcInfo;
use crate::ground::kept::Kept;
use crate::ground::report::{Exception, Panic};
use crate::ground::slots::{Key, Slots};
use crate::ground::{foreign, resumption};
use crate::ioloop::{Deadline, IoLoop};
use crate::locks::Event;

/// Owns coroutines, its children, and cancels them when it is dropped. The coroutines that a child awaits end
/// with it.
///
/// When a child fails, by an `Err` or a panic, the others are cancelled, unless the group is
/// [independent](TaskGroup::independent). [`join`](TaskGroup::join) gives the failure; if nobody joins, it is
/// reported. A child that has ended leaves the group: so a server's group holds the connections that there
/// are now, and nothing of the millions before.
///
/// ```
/// use std::time::Duration;
/// use waterspout::{IoLoop, coroutine::{TaskGroup, sleep}};
///
/// let io_loop = IoLoop::builder().virtual_time().build()?;
/// let result = io_loop.run_sync(|| async {
///     let group = TaskGroup::new();
///     for n in 1..=3 {
///         group.start(async move {
///             sleep(Duration::from_secs(n)).await;
///             if n == 2 { Err("two is enough") } else { Ok(()) }
///         });
///     }
///     group.join().await
/// })?;
/// assert_eq!(result, Err("two is enough"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TaskGroup<E = std::convert::Infallible> {
    inner: Rc<Inner<E>>,
}

struct Inner<E> {
    /// The children that have not ended. A child's handle is `None` during its eager part, when there is no
    /// handle yet, and after it was cancelled, until it has ended.
    children: RefCell<Slots<Option<Coroutine<()>>>>,
    /// The first failure of a child, until `join` takes it.
    failure: RefCell<Option<Kept<ChildFailure<E>>>>,
    /// Set while there are no children.
    empty: Event,
    state: Cell<State>,
    /// How often the children were cancelled.
    cancellations: Cell<u64>,
    is_independent: bool,
}

/// Whether a group takes new children.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The children were cancelled. New ones are refused until these have ended and the failure, if there is
    /// one, was taken.
    Ending,
    /// New children are refused for good.
    Closed,
}

/// How a child has failed, and which child it was.
struct ChildFailure<E> {
    cause: Cause<E>,
    name: &'static str,
    started_at: &'static Location<'static>,
}

enum Cause<E> {
    Error(E),
    Panic(Panic),
}

impl<E: fmt::Debug + 'static> TaskGroup<E> {
    /// A group in which the failure of a child cancels the others.
    pub fn new() -> TaskGroup<E> {
        TaskGroup::with_policy(false)
    }

    /// A group in which the failure of a child is reported to
    /// [`Builder::on_exception`](crate::Builder::on_exception), and the others go on.
    pub fn independent() -> TaskGroup<E> {
        TaskGroup::with_policy(true)
    }

    fn with_policy(is_independent: bool) -> TaskGroup<E> {
        let empty = Event::new();
        empty.set();
        let inner = Inner {
            children: RefCell::new(Slots::new()),
            failure: RefCell::new(None),
            empty,
            state: Cell::new(State::Open),
            cancellations: Cell::new(0),
            is_independent,
        };
        TaskGroup { inner: Rc::new(inner) }
    }

    /// Starts a child, now, as [`start`](super::start()) does. The handle that it gives can cancel the child;
    /// dropping the handle does nothing.
    ///
    /// The group refuses the child, and drops `future` without running it, while the group is ending: after a
    /// failure until [`join`](TaskGroup::join) has given that, and after [`cancel`](TaskGroup::cancel) until
    /// the children have ended. After [`close`](TaskGroup::close) or [`shutdown`](TaskGroup::shutdown) it
    /// refuses all children for good.
    ///
    /// # Panics
    ///
    /// As [`start`](super::start()).
    #[track_caller]
    pub fn start<F>(&self, future: F) -> CancelHandle
    where
        F: Future<Output = Result<(), E>> + 'static,
    {
        self.start_as(Name::Of(name_of::<F>), Location::caller(), future)
    }

    /// [`start`](TaskGroup::start) with a name for the child, by which lists and reports call it.
    ///
    /// # Panics
    ///
    /// As [`start`](super::start()).
    #[track_caller]
    pub fn start_named<F>(&self, name: &'static str, future: F) -> CancelHandle
    where
        F: Future<Output = Result<(), E>> + 'static,
    {
        self.start_as(Name::Given(name), Location::caller(), future)
    }

    /// [`start`](TaskGroup::start) on behalf of `started_at`, with a name that the caller chooses.
    pub(crate) fn start_as<F>(
        &self,
        name: Name,
        started_at: &'static Location<'static>,
        future: F,
    ) -> CancelHandle
    where
        F: Future<Output = Result<(), E>> + 'static,
    {
        if self.inner.state.get() != State::Open {
            ending::discard(future);
            return CancelHandle::of_nobody();
        }
        let Ok(key) = self.inner.children.borrow_mut().insert(None) else {
            panic!("a task group has as many children as it can hold");
        };
        self.inner.empty.clear();
        let member = Member { inner: self.inner.clone(), key };
        // No `async` block: that would keep the future twice, once as what it has captured and once as what it awaits.
        // The closure has the membership, and `map` drops it after the future. So the child leaves the group last,
        // however it ends.
        let child = AssertUnwindSafe(future).catch_unwind().map(move |result| {
            let cause = match result {
                Ok(Ok(())) => return,
                Ok(Err(error)) => Cause::Error(error),
                Err(panic) => Cause::Panic(panic),
            };
            member.inner.failed(ChildFailure { cause, name: name.get(), started_at });
        });
        let kind = move || Kind { name, report: |_| None, at: None };
        let cancellations = self.inner.cancellations.get();
        let child = start_on(&IoLoop::current(), kind, child, started_at);
        let handle = child.cancel_handle();
        let mut child = Some(child);
        if let Some(kept_handle) = self.inner.children.borrow_mut().get_mut(key) {
            // If the children were cancelled during this one's eager part, this one was meant, too; but then
            // there was no handle yet by which to cancel it. That is done below.
            if self.inner.cancellations.get() == cancellations {
                *kept_handle = child.take();
            }
        }
        if let Some(child) = child {
            child.cancel();
        }
        handle
    }

    /// How many children have not ended.
    pub fn len(&self) -> usize {
        self.inner.children.borrow().len()
    }

    /// Whether all children have ended.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes no more children, for good: a future that is to be started from now on is dropped without being
    /// run. Children that have not ended go on; [`join`](TaskGroup::join) waits for them.
    pub fn close(&self) {
        self.inner.state.set(State::Closed);
    }

    /// Cancels all children, and the coroutines that they await.
    pub fn cancel(&self) {
        self.inner.cancel();
    }

    /// Has all children resumed soon, so that they look at a flag that was set for them.
    #[cfg(feature = "server")]
    pub(crate) fn wake(&self) {
        for (_, child) in self.inner.children.borrow().iter() {
            child.iter().for_each(Coroutine::wake);
        }
    }

    /// Waits until all children have ended.
    ///
    /// Cancel safe: dropping this cancels no child; only dropping the group does. This does not borrow the
    /// group, and is ready soon after the group is dropped.
    ///
    /// # Errors
    ///
    /// The first error of a child, once; none in an independent group. Later errors are reported to
    /// [`Builder::on_exception`](crate::Builder::on_exception). So is the first one if nobody joins.
    ///
    /// # Panics
    ///
    /// If the first failure of a child was a panic, this panics with it.
    #[track_caller]
    pub fn join(&self) -> impl FusedFuture<Output = Result<(), E>> + use<E> {
        let (inner, empty) = (self.inner.clone(), self.inner.empty.wait());
        resumption::fused(async move {
            empty.await;
            let failure = inner.failure.take();
            inner.reopen();
            match failure.and_then(Kept::take).map(|failure| failure.cause) {
                None => Ok(()),
                Some(Cause::Error(error)) => Err(error),
                Some(Cause::Panic(panic)) => resume_unwind(panic),
            }
        })
    }

    /// Waits until all children have ended, but no longer than until `deadline`. Then it cancels those
    /// that are left, and gives their number. From then on the group takes no more children; while this
    /// waits, children can still be added (not after [`close`](TaskGroup::close)).
    #[track_caller]
    pub fn shutdown(&self, deadline: impl Into<Deadline>) -> impl FusedFuture<Output = usize> {
        let empty = self.inner.empty.wait();
        resumption::fused(async move {
            let _ = with_timeout(deadline, empty).await;
            self.inner.state.set(State::Closed);
            let left = self.len();
            self.cancel();
            left
        })
    }
}

impl<E: fmt::Debug + 'static> Inner<E> {
    fn failed(&self, failure: ChildFailure<E>) {
        let failure = Kept::new(failure, ChildFailure::exception);
        if self.is_independent || self.failure.borrow().is_some() {
            // Nobody will ask for it, so it is reported: dropping a `Kept` does that.
            return drop(failure);
        }
        *self.failure.borrow_mut() = Some(failure);
        self.cancel();
    }
}

impl<E> Inner<E> {
    /// Cancels all children. Those in their eager part have no handle yet; `start_as` cancels them.
    fn cancel(&self) {
        self.cancellations.set(self.cancellations.get() + 1);
        let mut children = self.children.borrow_mut();
        let keys: Vec<Key> = children.iter().map(|(key, _)| key).collect();
        if !keys.is_empty() && self.state.get() == State::Open {
            self.state.set(State::Ending);
        }
        let handles = keys.into_iter().filter_map(|key| children.get_mut(key)?.take());
        let handles: Vec<_> = handles.collect();
        drop(children);
        for child in handles {
            child.cancel();
        }
    }

    /// Takes new children again, if all that was to be done after a failure or `cancel` is done.
    fn reopen(&self) {
        let is_over = self.children.borrow().len() == 0 && self.failure.borrow().is_none();
        if is_over && self.state.get() == State::Ending {
            self.state.set(State::Open);
        }
    }
}

/// A child's membership in its group. The child itself holds it, and so leaves the group however it ends:
/// also when its loop is closed.
struct Member<E> {
    inner: Rc<Inner<E>>,
    key: Key,
}

impl<E> Drop for Member<E> {
    fn drop(&mut self) {
        let child = self.inner.children.borrow_mut().remove(self.key);
        drop(child);
        if self.inner.children.borrow().len() == 0 {
            self.inner.reopen();
            self.inner.empty.set();
        }
    }
}

impl<E: fmt::Debug> ChildFailure<E> {
    fn exception(&self) -> Option<Exception> {
        let info = match &self.cause {
            Cause::Error(error) => ExcInfo::error(foreign::debug(error)),
            Cause::Panic(panic) => ExcInfo::from_panic(&**panic),
        };
        let (name, location) = (Some(self.name), Some(self.started_at));
        Some(Exception { what: "coroutine of a task group", name, location, info })
    }
}

impl<E: fmt::Debug + 'static> Default for TaskGroup<E> {
    fn default() -> TaskGroup<E> {
        TaskGroup::new()
    }
}

impl<E> Drop for TaskGroup<E> {
    fn drop(&mut self) {
        self.inner.state.set(State::Closed);
        self.inner.cancel();
    }
}

impl<E> fmt::Debug for TaskGroup<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskGroup").field("len", &self.inner.children.borrow().len()).finish()
    }
}
