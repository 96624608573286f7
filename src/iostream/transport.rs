//! The transport of a stream, which is what the stream is over: somebody else's `AsyncRead` and `AsyncWrite`.

use std::any::TypeId;
use std::cell::Cell;
use std::task::{Context, Poll, Waker};

use futures::io::{AsyncRead, AsyncWrite};

use crate::ground::foreign;
use crate::sockets::{TcpStream, UnixStream};

/// What an [`IoStream`](super::IoStream) can be over: anything that is `AsyncRead` and `AsyncWrite`.
pub trait Transport: AsyncRead + AsyncWrite + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Transport for S {}

/// Whether `S` is a socket of this crate. What that reads into is written to by the system alone, and looked
/// into by nobody.
pub(super) fn is_ours<S: Transport>() -> bool {
    let ours = [TypeId::of::<TcpStream>(), TypeId::of::<UnixStream>()];
    ours.contains(&TypeId::of::<S>())
}

/// Calls `poll` with a waker that wakes both the caller's task and `other`.
///
/// A transport wakes only the waker that polled it last. `other` has polled it before for the same direction,
/// and would otherwise never be woken.
pub(super) fn poll_for_both<T>(
    cx: &mut Context<'_>,
    other: &Cell<Option<Waker>>,
    poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    let Some(waker) = other.take() else { return poll(cx) };
    let also = waker.clone();
    other.set(Some(waker));
    if also.will_wake(cx.waker()) {
        return poll(cx);
    }
    let both = [cx.waker().clone(), also];
    let waker = waker_fn::waker_fn(move || {
        for waker in &both {
            foreign::call("waker", None, || waker.wake_by_ref());
        }
    });
    poll(&mut Context::from_waker(&waker))
}
