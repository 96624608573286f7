//! What the senders and receivers of a channel with many receivers share: it counts both sides, lets
//! receivers wait for news, and lets senders wait until no receiver is left. `watch` and `broadcast` are
//! built on it; each adds what it keeps of the values that were sent.

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, ready};

use futures::future::FusedFuture;

use crate::ground::resumption;
use crate::ground::wait_queue::{Queued, WaitQueue, Waiting};
use crate::locks::Event;

/// What all ends of one channel share. `S` is what the channel keeps of the values that were sent.
pub(super) struct Ends<S> {
    pub(super) sent: S,
    senders: Cell<usize>,
    receivers: Cell<usize>,
    /// Receivers that have seen everything and wait for more.
    waiting: WaitQueue,
    /// Set while there is no receiver. `Sender::closed` waits for it.
    closed: Event,
}

impl<S> Queued<()> for Ends<S> {
    fn waiters(&self) -> &WaitQueue {
        &self.waiting
    }
}

impl<S> Ends<S> {
    /// For one sender and one receiver, which count already.
    pub(super) fn new(sent: S) -> Rc<Ends<S>> {
        Rc::new(Ends {
            sent,
            senders: Cell::new(1),
            receivers: Cell::new(1),
            waiting: WaitQueue::new(),
            closed: Event::new(),
        })
    }

    pub(super) fn receivers(&self) -> usize {
        self.receivers.get()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_set()
    }

    /// Waits until there is no receiver.
    #[track_caller]
    pub(super) fn closed(&self) -> impl FusedFuture<Output = ()> + use<S> {
        self.closed.wait()
    }

    /// Whether nothing will be sent any more: no sender is left.
    pub(super) fn has_ended(&self) -> bool {
        self.senders.get() == 0
    }

    pub(super) fn add_sender(&self) {
        self.senders.set(self.senders.get() + 1);
    }

    pub(super) fn remove_sender(&self) {
        self.senders.set(self.senders.get() - 1);
        if self.has_ended() {
            self.wake_receivers();
        }
    }

    pub(super) fn add_receiver(&self) {
        self.receivers.set(self.receivers.get() + 1);
        self.closed.clear();
    }

    pub(super) fn remove_receiver(&self) {
        self.receivers.set(self.receivers.get() - 1);
        if self.receivers() == 0 {
            self.closed.set();
        }
    }

    /// Makes every receiver that waits look again.
    pub(super) fn wake_receivers(&self) {
        self.waiting.wake_all();
    }

    /// Waits, as a receiver, until `look` finds something, and gives what it has found. `look` may also be
    /// called when nothing has changed.
    #[track_caller]
    pub(super) fn until<R>(
        self: &Rc<Self>,
        mut look: impl FnMut(&Ends<S>) -> Option<R>,
    ) -> impl FusedFuture<Output = R> {
        let mut waiting = Waiting::new(self.clone());
        resumption::fused(poll_fn(move |cx| {
            if waiting.has_joined() {
                ready!(waiting.poll(cx));
            } else {
                ready!(resumption::poll_proceed(cx));
            }
            if let Some(found) = look(waiting.queued()) {
                return Poll::Ready(found);
            }
            // `look` may call a function of the user's, which may have sent something after it had looked. So
            // this looks once more when it has joined, whatever happened while the waker was cloned.
            waiting.join(cx, &mut None, |_| false);
            let Some(found) = look(waiting.queued()) else { return Poll::Pending };
            waiting.leave();
            Poll::Ready(found)
        }))
    }

    /// Writes the `Debug` form of a sender or a receiver.
    pub(super) fn debug(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name)
            .field("senders", &self.senders.get())
            .field("receivers", &self.receivers())
            .field("waiting", &self.waiting.len())
            .finish()
    }
}
