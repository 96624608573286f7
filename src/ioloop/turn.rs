//! The turn: the one function that orders the phases.
//!
//! 1. Take what other threads have posted.
//! 2. Note how much is ready, and collect the timers that are due.
//! 3. Run that much, first in first out, then those timers.
//! 4. Ask the selector who can go on; sleep there only if nothing is ready.
//!
//! Whatever is scheduled during a phase waits for the next turn, so callbacks that add callbacks
//! and timers that set timers cannot keep the loop from its sockets. While more is ready, the
//! selector is asked not every turn but every 64 entries, or about every 100 µs if entries take
//! long. Timers that follow closely on others share a wake-up. The clock is read before the selector
//! sleeps until a deadline, and after it was asked if there are timers or more is ready; a turn that
//! does not ask the selector reads none by itself.

use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::IoLoop;
use super::core::{ALARM, Core, INBOX, POLL_INTERVAL};
use super::inbox::Item;
use super::introspect::Step;
use super::ready::{Callback, Next, Resume};
use super::slots::Key;
use crate::report::{self, Panic};
use crate::{foreign, resumption};

/// While entries are ready, the selector is asked after about so many nanoseconds at the latest, going
/// by how long entries took lately.
const POLL_LATENCY: u64 = 100_000;
/// The selector sleeps at most this long at a time, like Tornado's.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);
/// Timers that are due within so many nanoseconds after others have fired share a wake-up: it costs
/// more than they do. (Linux lets a thread's own timers share one within the same time.)
const SHARED_WAKE_UP: u64 = 50_000;
/// The time-out of a selector that is only to look.
const AT_ONCE: Option<Duration> = Some(Duration::ZERO);

/// A turn under way.
struct Turn {
    /// How much was ready when it began...
    ready: usize,
    /// ...how much of that has not run yet...
    left: usize,
    /// ...and whether timers were due then.
    is_due: bool,
}

impl IoLoop {
    /// Turns until the selector has been asked, or the loop is to stop; `main` polls the future of
    /// `run_sync` when that was resumed.
    ///
    /// What panics is found by the slot that was being resumed, and the rest goes on: one
    /// `catch_unwind` for all of them, where one for each would cost as much as a resumption.
    pub(super) fn turn(&self, main: &mut dyn FnMut()) {
        let core = &*self.core;
        let mut turn = self.begin_turn(core.ready());
        while let Err(panic) = catch_unwind(AssertUnwindSafe(|| {
            loop {
                while turn.left > 0 {
                    turn.left -= 1;
                    self.run_next(main);
                }
                match self.end_turn(&turn) {
                    Some(ready) => turn = self.begin_turn(ready),
                    None => return,
                }
            }
        })) {
            let key = core.current.replace(Key::NONE);
            resumption::end();
            // More can panic when it ends: what it had, who awaits it.
            foreign::call("handler", None, || self.panicked(key, panic));
        }
        if !core.stop.get() {
            self.poll();
        }
    }

    /// Phases 1 and 2, when so much is `ready`.
    #[inline(always)]
    fn begin_turn(&self, mut ready: usize) -> Turn {
        let core = &*self.core;
        core.counting.turns.add(1);
        if core.inbox.is_pending() {
            self.take_inbox();
            ready = core.ready();
        }
        if core.watched {
            self.begin_watched(ready);
        }
        let now = core.clock.last();
        let is_due = !core.timers.borrow().is_settled(now);
        if is_due {
            core.collect_due(now);
        }
        Turn { ready, left: ready, is_due }
    }

    #[cold]
    fn begin_watched(&self, ready: usize) {
        let core = &*self.core;
        core.traces(Step::Turn);
        if let Some(state) = &core.shuffle {
            core.scheduler.borrow_mut().shuffle(ready, || next_random(state));
        }
    }

    /// What is left of phase 3; tells how much is ready for the next turn if that begins without phase 4.
    #[inline(always)]
    fn end_turn(&self, turn: &Turn) -> Option<usize> {
        let core = &*self.core;
        core.current.set(Key::NONE);
        resumption::end();
        if turn.is_due {
            self.fire_due();
        }
        if resumption::is_deferred() {
            self.wake_all(resumption::take_deferred());
        }
        let entries = core.entries.get() + turn.ready as u64;
        core.entries.set(entries);
        let ready = core.ready();
        (ready > 0 && entries < core.interval.get() && !core.stop.get()).then_some(ready)
    }

    /// Phase 3: the timers that were due when the turn began.
    #[cold]
    fn fire_due(&self) {
        let mut due = self.core.due.take();
        if !due.is_empty() {
            self.core.entries.set(self.core.entries.get() + due.len() as u64);
            self.core.fired_at.set(self.core.clock.last());
        }
        for key in due.drain(..) {
            self.fire(key);
        }
        self.core.due.set(due);
    }

    /// Phase 1: what other threads have posted.
    #[cold]
    fn take_inbox(&self) {
        let core = &*self.core;
        let items = core.inbox.take();
        core.counting.messages.add(items.len() as u64);
        for item in items {
            match item {
                Item::Wake(key) => core.schedule(key),
                Item::Call(posted) => core.call(posted.into()),
                Item::ForgetSource(key) => self.wake_all(core.take_source(key)),
                Item::ForgetTimer(key) => {
                    foreign::discard(core.remove_timer(key));
                }
                Item::Stop => self.stop(),
            }
        }
    }

    /// Phase 3: one entry of the run queue.
    #[inline]
    fn run_next(&self, main: &mut dyn FnMut()) {
        let core = &*self.core;
        let next = core.scheduler.borrow_mut().next();
        match next {
            Some(Next::Resume(key, resume)) => {
                core.counting.resumes.add(1);
                core.current.set(key);
                resumption::begin();
                if !core.watched {
                    self.resume(resume, main);
                } else {
                    self.resume_watched(resume, main);
                }
            }
            Some(Next::Call(callback)) => self.run_callback(callback),
            Some(Next::Stale) | None => {}
        }
    }

    #[inline(always)]
    fn resume(&self, slot: Rc<dyn Resume>, main: &mut dyn FnMut()) {
        slot.resume(self);
        // The main future is on the stack of `run_sync`, so its slot could only note this.
        if self.core.main_resumed.get() {
            self.core.main_resumed.set(false);
            main();
        }
    }

    /// Resumes a slot in a loop that records or times what it does.
    #[cold]
    fn resume_watched(&self, slot: Rc<dyn Resume>, main: &mut dyn FnMut()) {
        let core = &*self.core;
        core.traces(Step::Resume(slot.info().map(|info| info.name)));
        let info = || slot.info().map_or("a handler".into(), |info| info.to_string());
        self.timed(info, || self.resume(slot.clone(), main));
        // What panics from here on is none of the slot's.
        core.current.set(Key::NONE);
    }

    #[cold]
    fn panicked(&self, key: Key, panic: Panic) {
        let slot = self.core.scheduler.borrow().get(key).cloned();
        let panic = match slot {
            Some(slot) => slot.panicked(panic, self),
            None => Some(panic),
        };
        if let Some(panic) = panic {
            foreign::report_panic("handler", None, panic);
        }
    }

    fn run_callback(&self, callback: Callback) {
        self.core.counting.callbacks.add(1);
        // Not the slot before it.
        self.core.current.set(Key::NONE);
        resumption::end();
        let location = callback.location();
        self.core.traces(Step::Call(location));
        let what = || format!("the callback added at {location}");
        foreign::call("callback", Some(location), || self.timed(what, || callback.call()));
    }

    /// Phase 3: one timer that was due when the turn began, unless it was removed meanwhile.
    fn fire(&self, key: Key) {
        let core = &*self.core;
        let Some(waker) = core.remove_timer(key) else { return };
        core.counting.timers.add(1);
        match core.call_of(&waker) {
            Some(callback) => self.run_callback(callback),
            None => core.wake(waker),
        }
    }

    /// Runs something and warns if it took longer than the threshold, if there is one.
    fn timed(&self, what: impl FnOnce() -> String, run: impl FnOnce()) {
        let Some(threshold) = self.core.slow_callback else { return run() };
        let waiting = self.core.ready();
        let what = what();
        let start = Instant::now();
        run();
        let took = start.elapsed();
        if took > threshold {
            report::warn(format_args!(
                "{what} took {took:?}, more than {threshold:?}, while {waiting} others were waiting"
            ));
        }
    }

    /// Phase 4: asks the selector who can go on, and sleeps there if nobody can.
    #[inline(never)]
    fn poll(&self) {
        let core = &*self.core;
        let busy = core.ready() > 0;
        let sleep = if busy { AT_ONCE } else { core.sleep() };
        let asleep = sleep != AT_ONCE && core.inbox.fall_asleep();
        let timeout = if asleep { sleep } else { AT_ONCE };
        let Some(mut events) = core.events.take() else { return };
        let polled = core.poll.borrow_mut().poll(&mut events, timeout);
        if asleep {
            core.inbox.wake_up();
        }
        core.counting.polls.add(1);
        if polled.is_ok() {
            self.dispatch(&events);
        }
        let quiet = events.is_empty();
        core.events.set(Some(events));
        match polled {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                panic!("{self:?}: the selector failed: {error}")
            }
            _ => {}
        }
        core.after_poll(busy, quiet);
    }

    fn dispatch(&self, events: &mio::Events) {
        let core = &*self.core;
        let mut later = core.woken.take();
        let mut readiness = core.readiness.borrow_mut();
        // Most who wait are slots of this loop: no detour for them.
        let mut wake = |word| core.schedule_word(word);
        let mut count = 0;
        for event in events.iter().filter(|event| ![INBOX, ALARM].contains(&event.token())) {
            readiness.on_event(event, &mut wake, &mut later);
            count += 1;
        }
        drop(readiness);
        core.traces(Step::Poll(count as usize));
        core.counting.events.add(count);
        self.wake_all(later);
    }

    /// Wakes all, and keeps the buffer.
    fn wake_all(&self, mut woken: Vec<Waker>) {
        woken.drain(..).for_each(|waker| self.core.wake(waker));
        self.core.woken.set(woken);
    }
}

/// SplitMix64: small, and the same everywhere.
fn next_random(state: &Cell<u64>) -> u64 {
    state.set(state.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
    let mut z = state.get();
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Core {
    #[cold]
    fn collect_due(&self, now: u64) {
        let mut due = self.due.take();
        self.timers.borrow_mut().collect_due(now, &mut due);
        self.due.set(due);
    }

    /// How long the selector may sleep, since nothing is ready; for ever if nobody waits for a
    /// deadline.
    fn sleep(&self) -> Option<Duration> {
        let deadline = self.timers.borrow_mut().next_deadline()?;
        if self.clock.is_virtual() {
            // Looks once; if there is nothing, `after_poll` moves the clock instead of sleeping. For
            // what is due already, nobody has to wait.
            let waits = self.outside.get() > 0 && deadline > self.clock.last();
            return if waits { None } else { AT_ONCE };
        }
        let now = self.clock.read();
        let just_fired = now.saturating_sub(self.fired_at.get()) < SHARED_WAKE_UP;
        let deadline = match deadline > now && just_fired {
            true => deadline.max(now + SHARED_WAKE_UP),
            false => deadline,
        };
        let left = Duration::from_nanos(deadline.saturating_sub(now));
        let poll = self.poll.borrow();
        let armed = self.alarm.borrow_mut().arm(poll.registry(), ALARM, deadline, left);
        // Without a timerfd (too many open files), deadlines are kept to the next millisecond.
        Some(armed.unwrap_or(Duration::from_millis(1)).min(LONGEST_SLEEP))
    }

    /// Brings the clock up to date, if there is anyone to whom it matters.
    fn after_poll(&self, busy: bool, quiet: bool) {
        let mut timers = self.timers.borrow_mut();
        if self.clock.is_virtual() {
            let idle = !busy && quiet && self.outside.get() == 0 && !self.inbox.is_pending();
            if let (true, Some(deadline)) = (idle, timers.next_deadline()) {
                self.clock.advance_to(deadline);
            }
        } else if busy || !timers.is_empty() {
            let now = self.clock.read();
            if busy {
                let spent = now.saturating_sub(self.polled_at.get());
                let each = (spent / self.entries.get().max(1)).max(1);
                self.interval.set((POLL_LATENCY / each).clamp(1, POLL_INTERVAL));
            }
            self.polled_at.set(now);
        }
        self.entries.set(0);
    }
}
