//! `TaskGroup`: coroutines that do not outlive their owner.
//!
//! A coroutine by itself goes on when its handle is dropped. A group holds its children: dropping it
//! cancels them, [`join`](TaskGroup::join) waits for them, and a failure of one cancels the others
//! unless they are independent. What has finished is gone: a server's group holds its live
//! connections and nothing of the millions before.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::rc::Rc;

use futures::FutureExt;

use super::{Coroutine, start, with_timeout};
use crate::error::ExcInfo;
use crate::ioloop::{Deadline, Key, Slots};
use crate::locks::Event;
use crate::report::{self, Exception};

/// Owns coroutines and cancels them when it is dropped; see the [module](super).
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
    /// `None` while a child runs its eager part and its handle is still to come.
    children: RefCell<Slots<Option<Coroutine<()>>>>,
    failure: RefCell<Option<Failure<E>>>,
    /// Set while there are no children.
    empty: Event,
    independent: bool,
}

enum Failure<E> {
    Error(E),
    Panic(Box<dyn Any + Send>),
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
            independent,
        };
        TaskGroup { inner: Rc::new(inner) }
    }

    /// Starts a child, now, as [`start`](super::start()) does.
    ///
    /// # Panics
    ///
    /// As [`start`](super::start()).
    #[track_caller]
    pub fn start(&self, future: impl Future<Output = Result<(), E>> + 'static) {
        let inner = self.inner.clone();
        let Ok(key) = inner.children.borrow_mut().insert(None) else {
            panic!("a task group has as many children as it can hold");
        };
        inner.empty.clear();
        let child = start(async move {
            let result = AssertUnwindSafe(future).catch_unwind().await;
            inner.finished(key, result);
        });
        let mut child = Some(child);
        if let Some(place) = self.inner.children.borrow_mut().get_mut(key) {
            *place = child.take();
        }
        // It is done, or the group was cancelled while its eager part ran.
        if let Some(child) = child {
            child.cancel();
        }
    }

    /// How many children are alive.
    pub fn len(&self) -> usize {
        self.inner.children.borrow().len()
    }

    /// Whether no child is alive.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Cancels all children.
    pub fn cancel(&self) {
        self.inner.cancel();
    }

    /// Waits until no child is alive.
    ///
    /// Cancel safe; only dropping the group cancels its children.
    ///
    /// # Errors
    ///
    /// The first error of a child, once; never in an independent group.
    ///
    /// # Panics
    ///
    /// With the panic of a child, if that came first.
    pub async fn join(&self) -> Result<(), E> {
        self.inner.empty.wait().await;
        match self.inner.failure.take() {
            None => Ok(()),
            Some(Failure::Error(error)) => Err(error),
            Some(Failure::Panic(panic)) => resume_unwind(panic),
        }
    }

    /// Waits until no child is alive, but no longer than until `deadline`; then cancels those that
    /// are, and tells how many that were.
    pub async fn shutdown(&self, deadline: impl Into<Deadline>) -> usize {
        let _ = with_timeout(deadline, self.inner.empty.wait()).await;
        let left = self.len();
        self.cancel();
        left
    }
}

impl<E: fmt::Debug + 'static> Inner<E> {
    fn finished(&self, key: Key, result: Result<Result<(), E>, Box<dyn Any + Send>>) {
        let child = self.children.borrow_mut().remove(key);
        drop(child);
        let failure = match result {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(Failure::Error(error)),
            Err(panic) => Some(Failure::Panic(panic)),
        };
        match failure {
            None => {}
            Some(failure) if self.independent => failure.report(),
            Some(failure) => {
                // Later ones are consequences, or too late.
                self.failure.borrow_mut().get_or_insert(failure);
                self.cancel();
            }
        }
        self.tell_if_empty();
    }
}

impl<E> Inner<E> {
    fn cancel(&self) {
        let keys: Vec<Key> = self.children.borrow().iter().map(|(key, _)| key).collect();
        for key in keys {
            let child = self.children.borrow_mut().remove(key);
            if let Some(Some(child)) = child {
                child.cancel();
            }
        }
        self.tell_if_empty();
    }

    fn tell_if_empty(&self) {
        if self.children.borrow().len() == 0 {
            self.empty.set();
        }
    }
}

impl<E: fmt::Debug> Failure<E> {
    fn report(self) {
        let info = match self {
            Failure::Error(error) => ExcInfo::error(format!("{error:?}")),
            Failure::Panic(panic) => ExcInfo::from_panic(&*panic),
        };
        // It is the child that finishes here.
        let child = super::current();
        let name = child.as_ref().map(|child| child.name);
        let location = child.as_ref().map(|child| child.started_at);
        report::report(Exception { what: "coroutine of a task group", name, location, info });
    }
}

impl<E: fmt::Debug + 'static> Default for TaskGroup<E> {
    fn default() -> TaskGroup<E> {
        TaskGroup::new()
    }
}

impl<E> Drop for TaskGroup<E> {
    fn drop(&mut self) {
        self.inner.cancel();
    }
}

impl<E> fmt::Debug for TaskGroup<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskGroup").field("len", &self.inner.children.borrow().len()).finish()
    }
}
