//! The ends of a channel with many receivers: how many are left on each side, and who waits for the other.
//! Under `watch` and `broadcast`, which add what is sent.

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, ready};

use futures::future::FusedFuture;

use crate::ground::resumption;
use crate::ground::wait_queue::{Queued, WaitQueue, Waiting};
use crate::locks::Event;

/// What the ends share. `S` is what is sent, as receivers see it.
pub(super) struct Ends<S> {
    pub(super) sent: S,
    senders: Cell<usize>,
    receivers: Cell<usize>,
    /// Receivers that have had all there is.
    waiting: WaitQueue,
    /// Set while there is no receiver: for `Sender::closed`.
    closed: Event,
}

impl<S> Queued<()> for Ends<S> {
    fn waiters(&self) -> &WaitQueue {
        &self.waiting
    }
}

impl<S> Ends<S> {
    /// One sender and one receiver.
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

    /// Whether nothing will be sent any more.
    pub(super) fn has_ended(&self) -> bool {
        self.senders.get() == 0
    }

    pub(super) fn sender_comes(&self) {
        self.senders.set(self.senders.get() + 1);
    }

    pub(super) fn sender_goes(&self) {
        self.senders.set(self.senders.get() - 1);
        if self.has_ended() {
            self.tell();
        }
    }

    pub(super) fn receiver_comes(&self) {
        self.receivers.set(self.receivers.get() + 1);
        self.closed.clear();
    }

    pub(super) fn receiver_goes(&self) {
        self.receivers.set(self.receivers.get() - 1);
        if self.receivers() == 0 {
            self.closed.set();
        }
    }

    /// Has every receiver that waits look again.
    pub(super) fn tell(&self) {
        self.waiting.wake_all();
    }

    /// Waits, as a receiver, until `look` gives something. It may be asked more often than something has
    /// changed.
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
            waiting.join(cx, &mut None);
            // Joining clones the waker, which is foreign code, and may have sent something.
            let Some(found) = look(waiting.queued()) else { return Poll::Pending };
            waiting.leave();
            Poll::Ready(found)
        }))
    }

    /// The `Debug` form of either end.
    pub(super) fn debug(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name)
            .field("senders", &self.senders.get())
            .field("receivers", &self.receivers())
            .field("waiting", &self.waiting.len())
            .finish()
    }
}
