//! Every stream and every lock of the crate goes through the suite that holds for any, and the suites
//! find what is wrong with one that has a fault.

mod common;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::panic::Location;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use common::pipes;
use futures::io::{AsyncRead, AsyncWrite};
use futures::lock::Mutex;
use waterspout::coroutine::moment;
use waterspout::iostream::IoStream;
use waterspout::locks::{BoundedSemaphore, Lock, RwLock, Semaphore};
use waterspout::net::UnixStream;
use waterspout::testing::{
    self, Memory, explore, fair_lock_suite, half_close_suite, lock_suite, stream_suite,
};
use waterspout::{IoLoop, coroutine};

/// A lock that a user wrote; its own test, which puts it through the suite, runs here.
#[allow(dead_code)]
#[path = "../examples/own_lock.rs"]
mod own_lock;

// ---------------------------------------------------------------------------------------------
// Streams

#[waterspout::test(timeout = 120.0)]
async fn tcp() {
    let pair = async || testing::tcp_pair().await.unwrap();
    stream_suite(pair).await;
    half_close_suite(pair).await;
}

#[waterspout::test(timeout = 120.0)]
async fn unix() {
    let pair = async || UnixStream::pair().unwrap();
    stream_suite(pair).await;
    half_close_suite(pair).await;
}

/// Without closing one half: the end of what arrives closes a stream of these.
#[waterspout::test(timeout = 120.0)]
async fn buffered_streams() {
    stream_suite(async || {
        let (one, other) = UnixStream::pair().unwrap();
        (IoStream::new(one), IoStream::new(other))
    })
    .await;
    stream_suite(async || {
        let (one, other) = testing::duplex(1000);
        let (one, other) = (IoStream::new(one), IoStream::new(other));
        for stream in [&one, &other] {
            drop(coroutine::start(stream.closed()));
        }
        (one, other)
    })
    .await;
}

#[waterspout::test(timeout = 120.0)]
async fn two_pipes() {
    stream_suite(async || pipes()).await;
    half_close_suite(async || pipes()).await;
}

#[waterspout::test(timeout = 120.0)]
async fn memory() {
    for capacity in [64, 1000, 1_000_000] {
        let pair = async || testing::duplex(capacity);
        stream_suite(pair).await;
        half_close_suite(pair).await;
    }
}

#[waterspout::test(timeout = 120.0)]
async fn boxed_streams() {
    trait Both: AsyncRead + AsyncWrite + Send + Unpin {}
    impl<S: AsyncRead + AsyncWrite + Send + Unpin> Both for S {}
    let boxed = |(one, other)| (Box::new(one) as Box<dyn Both>, Box::new(other) as Box<dyn Both>);
    stream_suite(async || boxed(testing::duplex(100))).await;
}

// ---------------------------------------------------------------------------------------------
// What the suite says of streams with a fault

/// A stream with one fault.
struct Faulty {
    io: Memory,
    fault: Fault,
    reads: Cell<usize>,
}

#[derive(Clone, Copy)]
enum Fault {
    /// A byte is another one, after many that are right.
    Garbles,
    /// A read that ends early forgets what it read.
    LosesOnShortReads,
    /// There is no end, only silence.
    NeverEnds,
    /// The end comes again and again as an error.
    EndIsAnError,
    /// Everything is taken, whoever reads it.
    TakesAll,
    /// Nobody is woken when bytes come.
    DoesNotWakeReaders,
    /// Closing one direction closes the other.
    ClosesBoth,
}

impl AsyncRead for Faulty {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let fault = self.fault;
        let noop = std::task::Waker::noop();
        let polled = match fault {
            Fault::DoesNotWakeReaders => {
                Pin::new(&mut self.io).poll_read(&mut Context::from_waker(noop), buf)
            }
            _ => Pin::new(&mut self.io).poll_read(cx, buf),
        };
        self.reads.set(self.reads.get() + 1);
        match (fault, &polled) {
            (Fault::Garbles, Poll::Ready(Ok(n @ 1..))) if self.reads.get() > 20 => buf[n - 1] ^= 1,
            (Fault::LosesOnShortReads, Poll::Ready(Ok(n @ 1..))) if *n < buf.len() => {
                let _ = Pin::new(&mut self.io).poll_read(&mut Context::from_waker(noop), buf);
                return Poll::Ready(Ok(n - 1)).map_ok(|n: usize| n.max(1));
            }
            (Fault::NeverEnds, Poll::Ready(Ok(0))) => return Poll::Pending,
            (Fault::EndIsAnError, Poll::Ready(Ok(0))) => {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            _ => {}
        }
        polled
    }
}

impl AsyncWrite for Faulty {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.io).poll_write(cx, buf) {
            Poll::Pending if matches!(self.fault, Fault::TakesAll) => Poll::Ready(Ok(buf.len())),
            polled => polled,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if matches!(self.fault, Fault::ClosesBoth) {
            self.io = testing::duplex(1).0;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_close(cx)
    }
}

/// What a suite says: its panic, or the coroutines that are stuck, or that nothing is wrong.
fn verdict<F: Future<Output = ()> + 'static>(suite: impl FnOnce() -> F + 'static) -> String {
    // In virtual time, a loop in which nothing moves any more is at its time limit at once.
    let io_loop = IoLoop::builder().virtual_time().build().unwrap();
    let said = io_loop.run_sync_timeout(Duration::from_secs(1), || async move {
        match coroutine::start(async move { suite().await }).join().await {
            Ok(()) => "nothing is wrong".into(),
            Err(found) => *found.into_panic().unwrap().downcast::<String>().unwrap(),
        }
    });
    io_loop.close();
    said.unwrap_or_else(|stuck| format!("hangs: {stuck}"))
}

fn verdict_on_streams(fault: Fault, half_close: bool) -> String {
    let faulty = move |io| Faulty { io, fault, reads: Cell::new(0) };
    let pair = async move || {
        let (one, other) = testing::duplex(1000);
        (faulty(one), faulty(other))
    };
    match half_close {
        false => verdict(move || stream_suite(pair)),
        true => verdict(move || half_close_suite(pair)),
    }
}

#[test]
fn the_suite_says_what_is_wrong_with_a_stream() {
    for (fault, half_close, expected) in [
        (Fault::Garbles, false, "is another one"),
        (Fault::LosesOnShortReads, false, "stream suite: "),
        (Fault::EndIsAnError, false, "stream suite: a dropped stream ends after its last byte"),
        (Fault::TakesAll, false, "bytes were taken while nobody reads"),
        (Fault::ClosesBoth, true, "stream suite: closing one direction leaves the other"),
    ] {
        let said = verdict_on_streams(fault, half_close);
        assert!(!said.starts_with("hangs") && said.contains(expected), "{said}");
        assert!(said.contains("tests/suites.rs"), "{said}");
    }
}

#[test]
fn a_stream_that_does_not_wake_hangs_in_the_suite() {
    for fault in [Fault::DoesNotWakeReaders, Fault::NeverEnds] {
        let said = verdict_on_streams(fault, false);
        assert!(said.starts_with("hangs") && said.contains("`stream suite: "), "{said}");
    }
}

// ---------------------------------------------------------------------------------------------
// Locks, under many orders

#[test]
fn locks() {
    explore(20, || async {
        lock_suite(|| Lock::new(()), Lock::acquire).await;
        fair_lock_suite(|| Lock::new(()), Lock::acquire).await;
    });
}

#[test]
fn semaphores_of_one() {
    explore(20, || async {
        lock_suite(|| Semaphore::new(1), Semaphore::acquire).await;
        fair_lock_suite(|| Semaphore::new(1), Semaphore::acquire).await;
        lock_suite(|| BoundedSemaphore::new(1), BoundedSemaphore::acquire).await;
        fair_lock_suite(|| BoundedSemaphore::new(1), BoundedSemaphore::acquire).await;
        lock_suite(|| Semaphore::new(3), |it: &Semaphore| it.acquire_many(3)).await;
        fair_lock_suite(|| Semaphore::new(3), |it: &Semaphore| it.acquire_many(3)).await;
    });
}

#[test]
fn rw_locks_by_those_who_write() {
    explore(20, || async {
        lock_suite(|| RwLock::new(()), RwLock::write).await;
        fair_lock_suite(|| RwLock::new(()), RwLock::write).await;
    });
}

#[test]
fn a_lock_of_another_crate() {
    explore(20, || lock_suite(|| Mutex::new(()), Mutex::lock));
}

#[waterspout::test(timeout = 60.0)]
async fn a_lock_in_real_time() {
    lock_suite(|| Lock::new(()), Lock::acquire).await;
    fair_lock_suite(|| Lock::new(()), Lock::acquire).await;
}

// ---------------------------------------------------------------------------------------------
// What the suites say of locks with a fault

/// A lock that is handed on, with one fault.
struct FaultyLock {
    fault: LockFault,
    is_held: Cell<bool>,
    waiters: RefCell<VecDeque<Rc<Waiter>>>,
}

struct Waiter {
    waker: RefCell<Waker>,
    has_it: Cell<bool>,
}

#[derive(Clone, Copy, PartialEq)]
enum LockFault {
    None,
    /// Who polls again has it.
    LetsInWhoPollsAgain,
    /// Who polls again waits twice.
    QueuesTwice,
    /// The next one has it and is not told.
    ForgetsTheWakeUp,
    /// The next one is told by its first waker.
    KeepsTheFirstWaker,
    /// A waiter that is dropped stays in the queue.
    HandsItToWhoHasGone,
    /// A waiter that has it and is dropped keeps it.
    LosesItWithAWaiter,
    /// A waiter that is dropped releases what it does not have.
    ReleasedByWaiters,
    /// A guard that is dropped by a panic releases nothing.
    KeptByAPanic,
    /// A guard that is dropped by another coroutine releases nothing.
    KeptByAnother,
    /// The last to come is the first.
    LastFirst,
    /// Who polls again waits behind the others.
    LosesThePlace,
    /// Who takes the place of a waiter that is dropped is the last.
    HandedToTheLast,
}

impl FaultyLock {
    fn new(fault: LockFault) -> FaultyLock {
        FaultyLock { fault, is_held: Cell::new(false), waiters: RefCell::default() }
    }

    fn acquire(&self) -> FaultyAcquire<'_> {
        FaultyAcquire { lock: self, waiter: None }
    }

    fn release(&self, to_the_last: bool) {
        let mut waiters = self.waiters.borrow_mut();
        let next = if to_the_last { waiters.pop_back() } else { waiters.pop_front() };
        self.is_held.set(next.is_some());
        if let Some(next) = next {
            next.has_it.set(true);
            if self.fault != LockFault::ForgetsTheWakeUp {
                next.waker.borrow().wake_by_ref();
            }
        }
    }

    fn leave(&self, waiter: &Rc<Waiter>) {
        self.waiters.borrow_mut().retain(|other| !Rc::ptr_eq(other, waiter));
    }
}

struct FaultyAcquire<'a> {
    lock: &'a FaultyLock,
    waiter: Option<Rc<Waiter>>,
}

impl<'a> Future for FaultyAcquire<'a> {
    type Output = FaultyGuard<'a>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<FaultyGuard<'a>> {
        let lock = self.lock;
        let Some(waiter) = self.waiter.clone() else {
            if !lock.is_held.replace(true) {
                return Poll::Ready(FaultyGuard { lock, place: current_place() });
            }
            let (waker, has_it) = (RefCell::new(cx.waker().clone()), Cell::new(false));
            let waiter = self.waiter.insert(Rc::new(Waiter { waker, has_it }));
            lock.waiters.borrow_mut().push_back(waiter.clone());
            return Poll::Pending;
        };
        if waiter.has_it.get() || lock.fault == LockFault::LetsInWhoPollsAgain {
            self.waiter = None;
            return Poll::Ready(FaultyGuard { lock, place: current_place() });
        }
        if lock.fault != LockFault::KeepsTheFirstWaker {
            *waiter.waker.borrow_mut() = cx.waker().clone();
        }
        if lock.fault == LockFault::LosesThePlace {
            lock.leave(&waiter);
        }
        if matches!(lock.fault, LockFault::LosesThePlace | LockFault::QueuesTwice) {
            lock.waiters.borrow_mut().push_back(waiter);
        }
        Poll::Pending
    }
}

impl Drop for FaultyAcquire<'_> {
    fn drop(&mut self) {
        let (fault, Some(waiter)) = (self.lock.fault, &self.waiter) else { return };
        if fault != LockFault::HandsItToWhoHasGone {
            self.lock.leave(waiter);
        }
        let releases = waiter.has_it.get() && fault != LockFault::LosesItWithAWaiter;
        if releases || fault == LockFault::ReleasedByWaiters {
            self.lock.release(fault == LockFault::HandedToTheLast);
        }
    }
}

struct FaultyGuard<'a> {
    lock: &'a FaultyLock,
    /// Where the coroutine that acquired it was started.
    place: Option<&'static Location<'static>>,
}

fn current_place() -> Option<&'static Location<'static>> {
    coroutine::current().map(|coroutine| coroutine.started_at)
}

impl Drop for FaultyGuard<'_> {
    fn drop(&mut self) {
        let keeps = match self.lock.fault {
            LockFault::KeptByAPanic => thread::panicking(),
            LockFault::KeptByAnother => self.place != current_place(),
            _ => false,
        };
        if !keeps {
            self.lock.release(self.lock.fault == LockFault::LastFirst);
        }
    }
}

#[test]
fn the_suite_says_what_is_wrong_with_a_lock() {
    use LockFault::*;
    for (fault, expected) in [
        (LetsInWhoPollsAgain, "polling again changes nothing: a second one has it"),
        (QueuesTwice, "polling again changes nothing: it is free, and to be waited for"),
        (HandsItToWhoHasGone, "a waiter that is dropped takes nothing: it is free, and"),
        (LosesItWithAWaiter, "a waiter that is dropped passes it on: it is free, and"),
        (ReleasedByWaiters, "a waiter that is dropped takes nothing: a second one has it"),
    ] {
        let said = verdict_on_locks(fault);
        assert!(said.starts_with(&format!("lock suite: {expected}")), "{said}");
        assert!(said.contains("tests/suites.rs"), "{said}");
    }
    let two = verdict(|| lock_suite(|| Semaphore::new(2), Semaphore::acquire));
    assert!(
        two.starts_with("lock suite: who waits is woken when it is released: a second"),
        "{two}"
    );
    let slow = async |lock: &'static Lock| {
        moment().await;
        lock.acquire().await
    };
    let slow = verdict(move || lock_suite(|| Lock::new(()), slow));
    assert!(slow.starts_with("lock suite: a free lock is acquired at once: it is free"), "{slow}");
}

#[test]
fn a_lock_that_is_lost_hangs_in_the_suite() {
    use LockFault::*;
    for (fault, expected) in [
        (ForgetsTheWakeUp, "who waits is woken when it is released"),
        (KeepsTheFirstWaker, "the waker of the last poll is woken"),
        (KeptByAPanic, "a panic releases it"),
        (KeptByAnother, "a guard may be dropped elsewhere"),
    ] {
        let said = verdict_on_locks(fault);
        assert!(said.starts_with("hangs"), "{said}");
        assert!(said.contains(&format!("stuck: `lock suite: {expected}` started")), "{said}");
    }
}

#[test]
fn the_suite_for_fair_locks_says_who_has_it_too_early() {
    use LockFault::*;
    for (fault, expected) in [
        (LastFirst, "first come, first served: those who waited from 0 to 9, twice, had it in"),
        (LosesThePlace, "polling again keeps the place: who came later has it"),
        (HandedToTheLast, "who stops waiting changes no order: who came later has it"),
    ] {
        let said =
            verdict(move || fair_lock_suite(move || FaultyLock::new(fault), FaultyLock::acquire));
        assert!(said.starts_with(&format!("lock suite: {expected}")), "{said}");
        assert!(said.contains("tests/suites.rs"), "{said}");
        // As a lock that promises no order, it is right.
        assert_eq!(verdict_on_locks(fault), "nothing is wrong");
    }
    // Whoever releases it may have it again at once.
    let barges = verdict(|| fair_lock_suite(|| Mutex::new(()), Mutex::lock));
    assert!(barges.contains("had it in the order [0, 0, 1, 1, 2, 2,"), "{barges}");
}

#[test]
fn the_suites_find_nothing_in_a_lock_without_a_fault() {
    let right = || FaultyLock::new(LockFault::None);
    assert_eq!(verdict_on_locks(LockFault::None), "nothing is wrong");
    let fair = verdict(move || fair_lock_suite(right, FaultyLock::acquire));
    assert_eq!(fair, "nothing is wrong");
}

fn verdict_on_locks(fault: LockFault) -> String {
    verdict(move || lock_suite(move || FaultyLock::new(fault), FaultyLock::acquire))
}
