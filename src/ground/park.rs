//! Blocking a thread on a future, where no loop runs on that thread.

use std::pin::pin;
use std::task::{Context, Poll};
use std::thread;

/// Polls `future` on this thread until it is done. In between the thread is parked, until the future's waker
/// unparks it.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let thread = thread::current();
    let waker = waker_fn::waker_fn(move || thread.unpark());
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
