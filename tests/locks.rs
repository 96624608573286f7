//! Locks: who is woken and in which order, what becomes of what was meant for a waiter that has gone,
//! and what foreign code may do meanwhile.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use waker_fn::waker_fn;
use waterspout::coroutine::{moment, start};
use waterspout::locks::{BoundedSemaphore, Condition, Event, ReleasedTooOften, Semaphore};

/// Polls once, for nobody.
fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_for(future, Waker::noop())
}

fn poll_for<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

thread_local! {
    /// What wakers call: they can be sent, what they are to do here cannot.
    static CALLS: RefCell<Vec<Rc<dyn Fn()>>> = const { RefCell::new(Vec::new()) };
}

/// `call`, to be called on this thread.
fn sendable(call: impl Fn() + 'static) -> impl Fn() + Send + Sync + 'static {
    let number = CALLS.with_borrow_mut(|calls| {
        calls.push(Rc::new(call));
        calls.len() - 1
    });
    move || CALLS.with_borrow(|calls| calls[number].clone())()
}

/// Calls it when it is dropped.
struct Dropping<F: Fn()>(F);

impl<F: Fn()> Drop for Dropping<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// A waker that calls `call` when the last clone of it is dropped.
fn waker_dropping(call: impl Fn() + 'static) -> Waker {
    let dropping = Dropping(sendable(call));
    waker_fn(move || {
        let _ = &dropping;
    })
}

#[test]
fn a_waker_that_is_replaced_may_use_the_lock() {
    let semaphore = Semaphore::new(0);
    let mut waiting = semaphore.acquire();
    let releases = semaphore.clone();
    assert!(poll_for(&mut waiting, &waker_dropping(move || releases.release())).is_pending());
    assert!(poll(&mut waiting).is_pending());
    assert!(poll(&mut waiting).is_ready());
}

#[test]
fn a_waker_that_goes_with_its_waiter_may_use_the_lock() {
    let semaphore = Semaphore::new(0);
    let mut waiting = semaphore.acquire();
    let releases = semaphore.clone();
    assert!(poll_for(&mut waiting, &waker_dropping(move || releases.release())).is_pending());
    drop(waiting);
    assert_eq!(semaphore.permits(), 1);
}

#[test]
fn notify_all_is_for_those_who_wait_and_not_handed_on_to_who_comes_later() {
    let condition = Condition::new();
    let mut first = condition.wait();
    assert!(poll(&mut first).is_pending());
    condition.notify_all();
    let mut late = condition.wait();
    assert!(poll(&mut late).is_pending());
    drop(first);
    assert!(poll(&mut late).is_pending());
    condition.notify_all();
    assert!(poll(&mut late).is_ready());
}

#[waterspout::test(virtual_time)]
async fn who_asks_an_event_while_it_is_set_passes_also_if_it_first_has_to_give_way() {
    let (event, passed) = (Event::new(), Rc::new(Cell::new(0)));
    event.set();
    let (waits, passes) = (event.clone(), passed.clone());
    let passing = start(async move {
        loop {
            waits.wait().await;
            passes.set(passes.get() + 1);
        }
    });
    let before = passed.get();
    event.clear();
    moment().await;
    moment().await;
    assert_eq!(passed.get(), before + 1);
    passing.cancel();
}

#[test]
fn a_bounded_semaphore_does_not_take_a_permit_that_is_held_for_a_missing_one() {
    let semaphore = BoundedSemaphore::new(1);
    let permit = semaphore.try_acquire().unwrap();
    assert_eq!(semaphore.release(), Err(ReleasedTooOften));
    assert!(semaphore.try_acquire().is_none());
    let mut waiting = semaphore.acquire();
    assert!(poll(&mut waiting).is_pending());
    assert_eq!(semaphore.release(), Err(ReleasedTooOften));
    assert!(poll(&mut waiting).is_pending());
    drop(permit);
    assert!(poll(&mut waiting).is_ready());
    assert_eq!(semaphore.permits(), 1);
}
