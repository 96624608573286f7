//! `lock_suite`: a test of what any lock has to do, which any lock can be put through.
//!
//! The checks know a lock only as something that gives a guard later, and a guard as something that can be
//! dropped. So they are the same for all types of locks. Wherever one side has to wake another, the two are
//! separate coroutines: within one task, a wake-up that is missing would not be noticed.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{Location, resume_unwind};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::future::{LocalBoxFuture, join_all};

use super::suite::{self, Checked, ensure, poll_once, settle};
use crate::coroutine::{self, Coroutine, moment, with_timeout};

/// Tests what every lock has to do: one at a time holds it; a waiter is woken when it is released, also by a
/// panic; a waiter that gives up takes nothing with it.
///
/// `make` makes a lock, and is called for each check. `acquire` waits for the lock and gives a guard, which
/// releases the lock when it is dropped. The locks are leaked, so that guards may borrow them. The order in
/// which waiters get the lock is not tested: that is for [`fair_lock_suite`]. trio: `test_generic_lock_*`,
/// which all of its own locks go through.
///
/// # Panics
///
/// If something is wrong, with the name of the check and what that is. If a wake-up is missing, or the
/// lock is lost, the check hangs: so run it in a [`#[waterspout::test]`](macro@crate::test), whose time
/// limit lists the coroutine of the check among those that are stuck, or under many orders by
/// [`explore`](super::explore).
///
/// ```
/// use waterspout::{locks::Lock, testing::{explore, fair_lock_suite, lock_suite}};
///
/// explore(10, || lock_suite(|| futures::lock::Mutex::new(()), futures::lock::Mutex::lock));
/// explore(10, || async {
///     lock_suite(|| Lock::new(()), Lock::acquire).await;
///     fair_lock_suite(|| Lock::new(()), Lock::acquire).await;
/// });
/// ```
#[track_caller]
pub fn lock_suite<L: 'static, G: 'static>(
    make: impl Fn() -> L,
    acquire: impl AsyncFn(&'static L) -> G + 'static,
) -> impl Future<Output = ()> {
    let suite = Suite { make: erased(make, acquire), called_at: Location::caller() };
    async move {
        suite.run("lock suite: a free lock is acquired at once", at_once).await;
        suite.run("lock suite: who waits is woken when it is released", woken).await;
        suite.run("lock suite: one at a time has it", one_at_a_time).await;
        suite.run("lock suite: a guard may be dropped elsewhere", elsewhere).await;
        suite.run("lock suite: a panic releases it", panicked).await;
        suite.run("lock suite: a cancellation releases it", cancelled).await;
        suite.run("lock suite: polling again changes nothing", polled_again).await;
        suite.run("lock suite: the waker of the last poll is woken", latest_waker).await;
        suite.run("lock suite: a waiter that is dropped takes nothing", dropped).await;
        suite.run("lock suite: a waiter that times out takes nothing", timed_out).await;
        suite.run("lock suite: a waiter that is dropped passes it on", passed_on).await;
        suite.run("lock suite: several may wait in one task", in_one_task).await;
    }
}

/// Tests what [`lock_suite`] does not ask of every lock: that it goes to the waiter that has waited longest,
/// and to nobody who came later.
///
/// # Panics
///
/// As [`lock_suite`].
#[track_caller]
pub fn fair_lock_suite<L: 'static, G: 'static>(
    make: impl Fn() -> L,
    acquire: impl AsyncFn(&'static L) -> G + 'static,
) -> impl Future<Output = ()> {
    let suite = Suite { make: erased(make, acquire), called_at: Location::caller() };
    async move {
        suite.run("lock suite: first come, first served", in_order).await;
        suite.run("lock suite: nobody barges in", nobody_barges).await;
        suite.run("lock suite: polling again keeps the place", keeps_its_position).await;
        suite.run("lock suite: who stops waiting changes no order", keeps_the_order).await;
    }
}

struct Suite<M> {
    make: M,
    called_at: &'static Location<'static>,
}

impl<M: Fn() -> Lock> Suite<M> {
    async fn run<F>(&self, name: &'static str, check: impl FnOnce(Lock) -> F)
    where
        F: Future<Output = Checked> + 'static,
    {
        suite::run(name, self.called_at, check((self.make)())).await;
    }
}

/// Hides the types of a lock and of its guard, so that the checks need not be generic.
fn erased<L: 'static, G: 'static>(
    make: impl Fn() -> L,
    acquire: impl AsyncFn(&'static L) -> G + 'static,
) -> impl Fn() -> Lock {
    let acquire = Rc::new(acquire);
    move || {
        let (lock, acquire) = (&*Box::leak(Box::new(make())), acquire.clone());
        let acquire = move || {
            let acquire = acquire.clone();
            Box::pin(async move { Box::new(acquire(lock).await) as Guard }) as Acquiring
        };
        Lock { acquire: Rc::new(acquire) }
    }
}

/// A lock, whatever its type is.
#[derive(Clone)]
struct Lock {
    acquire: Rc<dyn Fn() -> Acquiring>,
}

type Acquiring = LocalBoxFuture<'static, Guard>;
/// The guard of a lock, whatever its type is: all that the checks do with it is to drop it.
type Guard = Box<dyn Any>;

impl Lock {
    fn acquire(&self) -> Acquiring {
        (self.acquire)()
    }

    /// Acquires the lock, which has to be free, without waiting.
    async fn take(&self) -> Result<Guard, String> {
        // This is done in a new resumption, since with a spent budget even a free lock has to be waited for.
        moment().await;
        match poll(&mut self.acquire()).await {
            Poll::Ready(guard) => Ok(guard),
            Poll::Pending => Err("it is free, and to be waited for".into()),
        }
    }

    /// Begins to wait for the lock, which somebody else has to hold.
    async fn queue(&self) -> Result<Acquiring, String> {
        let mut acquiring = self.acquire();
        still_waits(&mut acquiring).await?;
        Ok(acquiring)
    }

    /// A coroutine that waits for the lock, releases it at once, and is done then.
    fn waiter(&self) -> Coroutine<()> {
        used_up(self.acquire())
    }

    /// Checks that the lock is free, after all that was done with it.
    async fn is_free(&self) -> Checked {
        self.take().await.map(drop)
    }
}

/// A coroutine that goes on to wait, releases the lock at once, and is done then.
fn used_up(acquiring: Acquiring) -> Coroutine<()> {
    coroutine::start(async move { drop(acquiring.await) })
}

async fn poll(acquiring: &mut Acquiring) -> Poll<Guard> {
    poll_once(|cx| acquiring.as_mut().poll(cx)).await
}

/// Checks that the lock is not given out a second time.
async fn still_waits(acquiring: &mut Acquiring) -> Checked {
    ensure(poll(acquiring).await.is_pending(), || "a second one has it".into())
}

async fn at_once(lock: Lock) -> Checked {
    for _ in 0..3 {
        drop(lock.take().await?);
    }
    Ok(())
}

async fn woken(lock: Lock) -> Checked {
    let guard = lock.take().await?;
    let waiter = lock.waiter();
    settle().await;
    ensure(!waiter.done(), || "a second one has it".into())?;
    drop(guard);
    waiter.await;
    lock.is_free().await
}

/// Acquires the lock a few times, and holds it for no turn, one or two each time. Nobody else may have it
/// meanwhile.
async fn contend(lock: Lock, is_held: Rc<Cell<bool>>, n: usize) -> Checked {
    for round in 0..5 {
        let guard = lock.acquire().await;
        ensure(!is_held.replace(true), || "a second one has it".into())?;
        for _ in 0..(n + round) % 3 {
            moment().await;
        }
        is_held.set(false);
        drop(guard);
        if (n + round) % 2 == 0 {
            moment().await;
        }
    }
    Ok(())
}

async fn one_at_a_time(lock: Lock) -> Checked {
    let is_held = Rc::new(Cell::new(false));
    let contend = |n| coroutine::spawn(contend(lock.clone(), is_held.clone(), n));
    for contender in (0..20).map(contend).collect::<Vec<_>>() {
        contender.await?;
    }
    lock.is_free().await
}

async fn elsewhere(lock: Lock) -> Checked {
    let guard = coroutine::start(lock.acquire()).await;
    let waiter = lock.waiter();
    let other = coroutine::spawn(async move { drop(guard) });
    waiter.await;
    other.await;
    lock.is_free().await
}

async fn panicked(lock: Lock) -> Checked {
    let acquiring = lock.acquire();
    let holder: Coroutine<()> = coroutine::start(async move {
        let _guard = acquiring.await;
        moment().await;
        // A `panic!` would print its message, and people would take that for a failure of the test.
        resume_unwind(Box::new("a panic of the suite"))
    });
    let waiter = lock.waiter();
    ensure(holder.join().await.is_err(), || "the holder was to panic".into())?;
    waiter.await;
    lock.is_free().await
}

async fn cancelled(lock: Lock) -> Checked {
    let acquiring = lock.acquire();
    let holder: Coroutine<()> = coroutine::start(async move {
        let _guard = acquiring.await;
        std::future::pending().await
    });
    let waiter = lock.waiter();
    settle().await;
    ensure(!waiter.done(), || "a second one has it".into())?;
    holder.cancel();
    waiter.await;
    lock.is_free().await
}

async fn polled_again(lock: Lock) -> Checked {
    let guard = lock.take().await?;
    let mut first = lock.queue().await?;
    let waiter = lock.waiter();
    for _ in 0..3 {
        settle().await;
        still_waits(&mut first).await?;
    }
    drop(guard);
    used_up(first).await;
    waiter.await;
    lock.is_free().await
}

async fn latest_waker(lock: Lock) -> Checked {
    let guard = lock.take().await?;
    let mut acquiring = lock.acquire();
    let early = acquiring.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    ensure(early.is_pending(), || "a second one has it".into())?;
    let waiter = used_up(acquiring);
    settle().await;
    drop(guard);
    waiter.await;
    lock.is_free().await
}

/// Checks that another waiter gets the lock, after one has given up while `guard` was held.
async fn nothing_taken(lock: Lock, guard: Guard, waiter: Coroutine<()>) -> Checked {
    settle().await;
    ensure(!waiter.done(), || "a second one has it".into())?;
    drop(guard);
    waiter.await;
    lock.is_free().await
}

async fn dropped(lock: Lock) -> Checked {
    let guard = lock.take().await?;
    let leaves = lock.queue().await?;
    drop(leaves);
    drop(guard);
    let guard = lock.take().await?;
    let leaves = lock.queue().await?;
    let waiter = lock.waiter();
    drop(leaves);
    nothing_taken(lock, guard, waiter).await
}

async fn timed_out(lock: Lock) -> Checked {
    let guard = lock.take().await?;
    let leaves = coroutine::start(with_timeout(Duration::from_millis(1), lock.acquire()));
    let waiter = lock.waiter();
    ensure(leaves.await.is_err(), || "a second one has it".into())?;
    nothing_taken(lock, guard, waiter).await
}

async fn passed_on(lock: Lock) -> Checked {
    let guard = lock.take().await?;
    let first = lock.queue().await?;
    drop(guard);
    drop(first);
    let guard = lock.take().await?;
    let first = lock.queue().await?;
    let waiter = lock.waiter();
    drop(guard);
    drop(first);
    waiter.await;
    lock.is_free().await
}

async fn in_one_task(lock: Lock) -> Checked {
    let is_held = Rc::new(Cell::new(false));
    let contenders = (0..20).map(|n| contend(lock.clone(), is_held.clone(), n));
    join_all(contenders).await.into_iter().collect::<Checked>()?;
    lock.is_free().await
}

async fn in_order(lock: Lock) -> Checked {
    let guard = lock.take().await?;
    let order = Rc::new(RefCell::new(Vec::new()));
    let start = |n| {
        let (lock, order) = (lock.clone(), order.clone());
        coroutine::start(async move {
            for _ in 0..2 {
                let _guard = lock.acquire().await;
                order.borrow_mut().push(n);
                moment().await;
            }
        })
    };
    let waiters: Vec<_> = (0..10).map(start).collect();
    drop(guard);
    for waiter in waiters {
        waiter.await;
    }
    let order = order.take();
    ensure(order.iter().copied().eq((0..10).chain(0..10)), || {
        format!("those who waited from 0 to 9, twice, had it in the order {order:?}")
    })
}

async fn nobody_barges(lock: Lock) -> Checked {
    let guard = lock.take().await?;
    let waiter = coroutine::start(lock.acquire());
    drop(guard);
    let mut newcomer = lock.acquire();
    comes_later(&mut newcomer).await?;
    let guard = waiter.await;
    still_waits(&mut newcomer).await?;
    drop(guard);
    drop(newcomer.await);
    lock.is_free().await
}

/// Checks that somebody who came later does not get the lock before one who waits.
async fn comes_later(acquiring: &mut Acquiring) -> Checked {
    let polled = poll(acquiring).await;
    ensure(polled.is_pending(), || "who came later has it, and another one waits".into())
}

async fn keeps_its_position(lock: Lock) -> Checked {
    let guard = lock.take().await?;
    let mut first = lock.queue().await?;
    let mut second = lock.queue().await?;
    still_waits(&mut first).await?;
    drop(guard);
    comes_later(&mut second).await?;
    drop(first.await);
    drop(second.await);
    lock.is_free().await
}

async fn keeps_the_order(lock: Lock) -> Checked {
    let guard = lock.take().await?;
    let first = lock.queue().await?;
    let second = lock.queue().await?;
    let third = lock.queue().await?;
    let mut fourth = lock.queue().await?;
    drop(second);
    drop(guard);
    // The first waiter has been given the lock. When it is dropped, that goes on to the third one.
    drop(first);
    comes_later(&mut fourth).await?;
    comes_later(&mut lock.acquire()).await?;
    drop(third.await);
    drop(fourth.await);
    lock.is_free().await
}
