//! `TaskGroup`: coroutines that do not outlive their owner.
//!
//! A coroutine by itself goes on when its handle is dropped. A group holds its children: dropping it
//! cancels them, [`join`](TaskGroup::join) waits for them, and a failure of one cancels the others
//! unless they are independent. What has finished is gone: a server's group holds its live
//! connections and nothing of the millions before.

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

/// Owns coroutines and cancels them when it is dropped. Each may await others, which end with it.
///
/// A child that fails, by an `Err` or a panic, has the others cancelled, unless the group is
/// [independent](TaskGroup::independent). The failure is for [`join`](TaskGroup::join); one that nobody
/// joins for is reported. Children that have finished are gone: a server's group holds its live
/// connections and nothing of the millions before.
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
    /// The handle is `None` while the child runs its eager part and its handle is still to come, and
    /// when it was cancelled and has not ended yet.
    children: RefCell<Slots<Option<Coroutine<()>>>>,
    failure: RefCell<Option<Kept<Failure<E>>>>,
    /// Set while there are no children.
    empty: Event,
    state: Cell<State>,
    independent: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Its children were cancelled; new ones are refused until they have ended and a failure, if
    /// there is one, was taken.
    Ending,
    /// New children are refused for good.
    Closed,
}

/// Why a child failed, and which.
struct Failure<E> {
    cause: Cause<E>,
    name: &'static str,
    started_at: &'static Location<'static>,
}

enum Cause<E> {
    Error(E),
    Panic(Panic),
}

impl<E: fmt::Debug + 'static> TaskGroup<E> {
    /// A group in which a failure cancels the others.
    pub fn new() -> TaskGroup<E> {
        TaskGroup::with_policy(false)
    }

    /// A group in which a failure is reported to
    /// [`Builder::on_exception`](crate::Builder::on_exception), and the others go on.
    pub fn independent() -> TaskGroup<E> {
        TaskGroup::with_policy(true)
    }

    fn with_policy(independent: bool) -> TaskGroup<E> {
        let empty = Event::new();
        empty.set();
        let inner = Inner {
            children: RefCell::new(Slots::new()),
            failure: RefCell::new(None),
            empty,
            state: Cell::new(State::Open),
            independent,
        };
        TaskGroup { inner: Rc::new(inner) }
    }

    /// Starts a child, now, as [`start`](super::start()) does.
    ///
    /// It is refused, which drops `future` without running it, while the group is ending: from a
    /// failure until [`join`](TaskGroup::join) has given that, from [`cancel`](TaskGroup::cancel) until
    /// the children have ended, and for good after [`close`](TaskGroup::close) or
    /// [`shutdown`](TaskGroup::shutdown). The handle cancels the child; dropping it does nothing.
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

    /// [`start`](TaskGroup::start) under a name, which is what it is called in lists and reports.
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

    /// [`start`](TaskGroup::start) under another name and place than those of the future.
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
        let child = async move {
            // Whatever way the child ends, it leaves the group last.
            let member = member;
            let result = AssertUnwindSafe(future).catch_unwind().await;
            let cause = match result {
                Ok(Ok(())) => return,
                Ok(Err(error)) => Cause::Error(error),
                Err(panic) => Cause::Panic(panic),
            };
            member.inner.failed(Failure { cause, name: name.get(), started_at });
        };
        let kind = move || Kind { name, report: |_| None, at: None };
        let child = start_on(&IoLoop::current(), kind, child, started_at);
        let handle = child.cancel_handle();
        let mut child = Some(child);
        if let Some(place) = self.inner.children.borrow_mut().get_mut(key) {
            // It was cancelled with the group while its eager part ran, if the group is not open.
            if self.inner.state.get() == State::Open {
                *place = child.take();
            }
        }
        if let Some(child) = child {
            child.cancel();
        }
        handle
    }

    /// How many children are alive.
    pub fn len(&self) -> usize {
        self.inner.children.borrow().len()
    }

    /// Whether no child is alive.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes no more children, for good: what is started from now on is dropped without being run. Those
    /// that are alive go on; [`join`](TaskGroup::join) waits for them.
    pub fn close(&self) {
        self.inner.state.set(State::Closed);
    }

    /// Cancels all children, and the coroutines that they await.
    pub fn cancel(&self) {
        self.inner.cancel();
    }

    /// Waits until no child is alive.
    ///
    /// Cancel safe; only dropping the group cancels its children. This does not borrow the group: when that
    /// is dropped, it is done.
    ///
    /// # Errors
    ///
    /// The first error of a child, once; never in an independent group. Errors that come after it are
    /// reported to [`Builder::on_exception`](crate::Builder::on_exception), and so is one that nobody
    /// joins for.
    ///
    /// # Panics
    ///
    /// With the panic of a child, if that came first.
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

    /// Waits until no child is alive, but no longer than until `deadline`; then cancels those that
    /// are, and tells how many that were. The group takes no more children then.
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
    fn failed(&self, failure: Failure<E>) {
        let failure = Kept::new(failure, Failure::exception);
        if self.independent || self.failure.borrow().is_some() {
            // Which reports it: nobody will ask for it.
            return drop(failure);
        }
        *self.failure.borrow_mut() = Some(failure);
        self.cancel();
    }
}

impl<E> Inner<E> {
    fn cancel(&self) {
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

    fn reopen(&self) {
        let is_over = self.children.borrow().len() == 0 && self.failure.borrow().is_none();
        if is_over && self.state.get() == State::Ending {
            self.state.set(State::Open);
        }
    }
}

/// A child's place in its group, held by the child itself. So it leaves however it ends: also with
/// its loop.
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

impl<E: fmt::Debug> Failure<E> {
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
