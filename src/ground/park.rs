//! Blocking a thread that is no loop on a future.

use std::pin::pin;
use std::task::{Context, Poll};
use std::thread;

/// Polls `future` on this thread, which parks in between and is unparked by the waker.
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
