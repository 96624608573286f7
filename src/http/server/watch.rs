//! The one lazy deadline of a connection.
//!
//! A connection has several time limits: for the head of a request, for a client that takes nothing of its
//! answer, for doing nothing at all. A timer for each of them, set and removed with each request, would cost a
//! fifth of what a request costs. So there is one timer, which goes off about once a second while hyper
//! drives the connection, and looks at the [`Notes`]. Only a head that does not come in one piece has its time
//! taken as soon as it begins.
//!
//! The first time it goes off sooner if many connections are up already. What a thousand clients who each ask
//! once within a second leave behind would otherwise be a thousand times hyper's buffers, and an allocator does
//! not give back to the system what it had to take for them. Connections that are busy have their timer go off
//! half as often each time, until it is once a second.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::settings::Settings;
use super::wire::Notes;
use crate::coroutine::{Sleep, now, sleep, sleep_until};

/// How often the deadline is looked at, and how long a connection has to be idle to be parked.
const TICK: Duration = Duration::from_secs(1);
/// How soon it is looked at first if many connections are up.
const SOON: Duration = Duration::from_millis(10);
/// More than this are many.
const MANY: usize = 64;

/// How many connections hyper drives at the moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Crowd(Rc<()>);

impl Crowd {
    fn is_dense(&self) -> bool {
        // One count is the server's own.
        Rc::strong_count(&self.0) > MANY + 1
    }
}

/// What a look at a connection found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// It has been idle for about a second.
    Idle,
    /// It has been idle for as long as it may be.
    TooIdle,
    /// The head of a request has taken too long.
    SlowHead,
    /// The client has hung up, and does not wait for its answer.
    HungUp,
    /// The client has taken nothing of its answer for too long.
    Stalled,
}

pub(super) struct Watch {
    tick: Sleep,
    /// How long after this tick the next one is.
    pause: Duration,
    _one_of: Crowd,
    /// When the head has to be there that has begun to come.
    head_due: Option<Instant>,
    /// How many requests there had been when it was last looked.
    requests: u32,
    /// Since when there has been no request.
    idle_since: Instant,
    /// How many writes there had been, and since when there was none although one was to be.
    written: u32,
    stalled_since: Option<Instant>,
    settings: Rc<Settings>,
}

impl Watch {
    pub(super) fn new(settings: Rc<Settings>, crowd: &Crowd) -> Watch {
        let pause = if crowd.is_dense() { SOON } else { TICK };
        Watch {
            tick: sleep(pause),
            pause,
            _one_of: crowd.clone(),
            head_due: None,
            // The one that it was set up for.
            requests: 1,
            idle_since: now(),
            written: 0,
            stalled_since: None,
            settings,
        }
    }

    /// Looks whether something is due. Is called each time that hyper was polled and waits; `cx` is woken
    /// when it is to be called next.
    #[inline]
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, notes: &Notes) -> Poll<Finding> {
        if notes.is_in_head() != self.head_due.is_some() {
            self.head_changes(notes.is_in_head());
        }
        while self.tick.is_due() && Pin::new(&mut self.tick).poll(cx).is_ready() {
            if let Some(finding) = self.look(notes) {
                return Poll::Ready(finding);
            }
        }
        Poll::Pending
    }

    /// Since when there has been no request, as of the last look.
    pub(super) fn idle_since(&self) -> Instant {
        self.idle_since
    }

    #[cold]
    fn head_changes(&mut self, has_begun: bool) {
        self.head_due = has_begun.then(|| after(now(), self.settings.head)).flatten();
        let Some(due) = self.head_due else { return };
        if self.tick.deadline().is_none_or(|tick| due < tick) {
            self.tick = sleep_until(due);
        }
    }

    #[cold]
    fn look(&mut self, notes: &Notes) -> Option<Finding> {
        let now = now();
        self.pause = TICK.min(2 * self.pause);
        let mut next = now + self.pause;
        if let Some(due) = self.head_due {
            if now >= due {
                return Some(Finding::SlowHead);
            }
            next = next.min(due);
        }
        if !notes.is_blocked() || notes.written() != self.written {
            self.written = notes.written();
            self.stalled_since = notes.is_blocked().then_some(now);
        }
        if let Some(due) = self.stalled_since.and_then(|since| after(since, self.settings.stall)) {
            if now >= due {
                return Some(Finding::Stalled);
            }
            next = next.min(due);
        }
        let was_idle = notes.is_idle() && notes.requests() == self.requests;
        self.requests = notes.requests();
        if !was_idle {
            self.idle_since = now;
        } else if after(self.idle_since, self.settings.idle).is_some_and(|due| now >= due) {
            return Some(Finding::TooIdle);
        }
        self.tick = sleep_until(next);
        was_idle.then_some(Finding::Idle)
    }
}

/// `None` if that is never.
pub(super) fn after(begin: Instant, limit: Duration) -> Option<Instant> {
    begin.checked_add(limit)
}
