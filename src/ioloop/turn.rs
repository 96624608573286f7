//! The turn: the one function that orders the phases.
//!
//! 1. Take what other threads have posted.
//! 2. Note how much is ready, and collect the timers that are due.
//! 3. Run that much, first in first out, then those timers.
//! 4. Ask the selector who can go on; sleep there only if nothing is ready.
//!
//! Whatever is scheduled during a phase waits for the next turn, so callbacks that add callbacks
//! and timers that set timers cannot keep the loop from its sockets. While more is ready, the
//! selector is asked not every turn but when `pace` says that it is time: after 64 entries, or about
//! 100 µs. Timers that follow closely on others share a wake-up. The clock is read before the selector
//! sleeps until a deadline, and after it was asked if there are timers or more is ready.
//!
//! # A long turn
//!
//! A turn takes as long as what was ready when it began, and that may be a lot. When `pace` says that it
//! is time in its midst, the loop *looks up*: it asks the selector, takes the inbox, and collects the
//! timers that are due, unless some that it collected before are still to fire. Then it goes on with
//! another of these, in rotation, until it is time again:
//!
//! * the queue, as long as it was when the turn began,
//! * those whom the selector or a timer has woken, who do not wait until their place in the queue has come,
//! * the timers that are due.
//!
//! So each of them waits for a stretch of the others at most, however many they are. A turn that is not so
//! long has one stretch of the queue and then one of timers.

use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::IoLoop;
use super::core::{Core, INBOX, Outside};
use super::fine_sleep;
use super::inbox::Item;
use super::introspect::Step;
use super::ready::{Callback, Next, Resume, give_back};
use crate::ground::report::{self, Panic};
use crate::ground::slots::Key;
use crate::ground::{foreign, resumption};

/// The selector sleeps at most this long at a time, like Tornado's.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);
/// The time-out of a selector that is only to look.
const AT_ONCE: Option<Duration> = Some(Duration::ZERO);

/// A turn under way.
struct Turn {
    /// How many entries of the queue are to run before `pace` is asked...
    stretch: usize,
    /// ...and how many more belong to the turn.
    left: usize,
    /// Whether there may be more than the stretch.
    has_more: bool,
    /// What it goes on with.
    source: Source,
}

/// What a turn runs, in rotation.
#[derive(Clone, Copy)]
enum Source {
    Queue,
    Ahead,
    Due,
}

impl Turn {
    /// Goes on with something else.
    fn rotate(&mut self) {
        self.source = match self.source {
            Source::Queue => Source::Ahead,
            Source::Ahead => Source::Due,
            Source::Due => Source::Queue,
        };
    }
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
                while turn.stretch > 0 {
                    turn.stretch -= 1;
                    let next = core.scheduler.borrow_mut().next();
                    self.run(next, main);
                }
                if !self.go_on(&mut turn, main) {
                    return;
                }
            }
        })) {
            let key = core.current.replace(Key::NONE);
            resumption::end();
            // More can panic when it ends: what it had, who awaits it.
            foreign::call("handler", None, || self.panicked(key, panic));
        }
        if !core.stop.get() {
            self.poll(core.ready() > 0);
        }
    }

    /// Phases 1 and 2, when so much is `ready`.
    #[inline(always)]
    fn begin_turn(&self, mut ready: usize) -> Turn {
        let core = &*self.core;
        core.counting.turns.add(1);
        if core.inbox.is_pending() {
            self.take_inbox(false);
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
        let stretch = core.pace.run(ready);
        let left = ready - stretch;
        Turn { stretch, left, has_more: is_due || left > 0, source: Source::Queue }
    }

    #[cold]
    fn begin_watched(&self, ready: usize) {
        let core = &*self.core;
        core.traces(Step::Turn);
        if let Some(state) = &core.shuffle {
            core.scheduler.borrow_mut().shuffle(ready, || next_random(state));
        }
    }

    /// After a stretch of the queue: another one, or what is left of phase 3 and then the next turn, if
    /// that begins without phase 4. Tells whether there is anything.
    #[inline(always)]
    fn go_on(&self, turn: &mut Turn, main: &mut dyn FnMut()) -> bool {
        let core = &*self.core;
        core.current.set(Key::NONE);
        resumption::end();
        if turn.has_more && self.go_on_with(turn, main) {
            return true;
        }
        if resumption::is_deferred() {
            self.wake_all(resumption::take_deferred());
        }
        let ready = core.ready();
        if ready == 0 || core.stop.get() {
            return false;
        }
        if ready > core.pace.room() && !self.may_put_off(ready) {
            return false;
        }
        *turn = self.begin_turn(ready);
        true
    }

    /// Whether phase 4 may wait for another turn, with so much that is `ready`.
    #[cold]
    fn may_put_off(&self, ready: usize) -> bool {
        let core = &*self.core;
        let is_time = core.pace.room() == 0 && core.pace.is_time(core.clock.read());
        !is_time && core.pace.may_begin(ready)
    }

    /// Phase 3, when the queue is not all of it, or is long. Tells whether anything is left.
    #[cold]
    fn go_on_with(&self, turn: &mut Turn, main: &mut dyn FnMut()) -> bool {
        let core = &*self.core;
        if core.pace.room() == 0 && core.pace.is_time(core.clock.read()) {
            self.look_up(turn);
        } else if turn.left == 0 && matches!(turn.source, Source::Queue) {
            turn.source = Source::Due;
        }
        let has_due = !core.due.borrow().is_empty();
        for _ in 0..3 {
            match turn.source {
                Source::Queue if turn.left > 0 => {
                    turn.stretch = core.pace.run(turn.left);
                    turn.left -= turn.stretch;
                    return true;
                }
                // When the turn is over, they have their places in the next one.
                Source::Ahead
                    if core.scheduler.borrow().has_ahead() && (turn.left > 0 || has_due) =>
                {
                    self.run_ahead(main);
                    return true;
                }
                Source::Due if has_due => {
                    turn.has_more = self.fire_due(turn.left > 0);
                    return turn.has_more;
                }
                _ => {}
            }
            turn.rotate();
        }
        turn.has_more = false;
        false
    }

    /// Looks up in the midst of a turn: phases 4, 1 and 2.
    fn look_up(&self, turn: &mut Turn) {
        let core = &*self.core;
        self.poll(true);
        if core.inbox.is_pending() {
            self.take_inbox(true);
        }
        // Not timers that were set by timers which fire now: those wait until all of these have fired. And
        // if the turn ends with them, it is for the next one to collect others.
        let now = core.clock.last();
        if turn.left > 0 && core.due.borrow().is_empty() && !core.timers.borrow().is_settled(now) {
            core.counting.batches.add(1);
            core.traces(Step::Turn);
            core.collect_due(now);
        }
        turn.has_more = true;
        turn.rotate();
    }

    /// Phase 3: those who need not wait for their place in the queue, until it is time to look up.
    #[inline(never)]
    fn run_ahead(&self, main: &mut dyn FnMut()) {
        let core = &*self.core;
        while core.pace.room() > 0 {
            let next = core.scheduler.borrow_mut().next_ahead();
            if next.is_none() {
                break;
            }
            core.pace.run(1);
            self.run(next, main);
        }
    }

    /// Phase 3: timers that are due, until it is time to look up. Whom they wake need not wait for the
    /// rest of them, nor for the rest of the queue.
    /// Tells whether there is more to the turn.
    fn fire_due(&self, queue_is_long: bool) -> bool {
        let core = &*self.core;
        core.pace.fires(core.clock.last());
        let due = core.due.borrow().len();
        let fire = core.pace.run(due);
        self.let_go_ahead(due - fire);
        for _ in 0..fire {
            let key = core.due.borrow_mut().pop_front();
            self.fire(key.unwrap_or(Key::NONE));
        }
        core.scheduler.borrow_mut().let_go_ahead(false);
        give_back(&mut core.due.borrow_mut());
        queue_is_long || fire < due
    }

    /// Phase 1: what other threads have posted.
    #[cold]
    fn take_inbox(&self, is_midst: bool) {
        let core = &*self.core;
        let items = core.inbox.take();
        let mut taken = items.len() as u64;
        for item in items {
            match item {
                Item::Wake(key) => core.schedule(key),
                Item::Call(posted) => core.call(posted.into()),
                Item::ForgetSource(key) => self.wake_all(core.take_source(key)),
                Item::ForgetTimer(key) => {
                    foreign::discard(core.remove_timer(key));
                }
                // In the midst of a turn, what was posted before it may have to wait for the next one, and
                // so does this.
                Item::Stop if is_midst => {
                    taken -= 1;
                    let _ = core.inbox.post(Item::Stop);
                }
                Item::Stop => self.stop(),
            }
        }
        core.counting.messages.add(taken);
    }

    /// Phase 3: one entry of the run queue.
    #[inline]
    fn run(&self, next: Option<Next>, main: &mut dyn FnMut()) {
        let core = &*self.core;
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
        let fired = core.timers.borrow_mut().take_collected(key);
        let Some(waker) = fired else { return };
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
            report::warn(
                report::IOLOOP,
                format_args!(
                    "{what} took {took:?}, more than {threshold:?}, while {waiting} others were waiting"
                ),
            );
        }
    }

    /// Phase 4: asks the selector who can go on, and sleeps there if the loop is not `busy`.
    #[inline(never)]
    fn poll(&self, busy: bool) {
        let core = &*self.core;
        core.scheduler.borrow_mut().give_back();
        let sleep = if busy { AT_ONCE } else { core.sleep() };
        let asleep = sleep != AT_ONCE && core.inbox.fall_asleep();
        let timeout = if asleep { sleep } else { AT_ONCE };
        let Some(mut events) = core.events.take() else { return };
        let polled = fine_sleep::poll(&mut core.poll.borrow_mut(), &mut events, timeout);
        if asleep {
            core.inbox.wake_up();
        }
        core.counting.polls.add(1);
        let quiet = events.is_empty();
        if !quiet && polled.is_ok() {
            self.dispatch(&events);
        } else {
            core.traces(Step::Poll(0));
        }
        core.events.set(Some(events));
        match polled {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                panic!("{self:?}: the selector failed: {error}")
            }
            _ => {}
        }
        core.after_poll(busy, quiet);
    }

    /// Wakes those who can go on.
    fn dispatch(&self, events: &mio::Events) {
        let core = &*self.core;
        self.let_go_ahead(0);
        let mut later = core.woken.take();
        let mut readiness = core.readiness.borrow_mut();
        // Most who wait are slots of this loop: no detour for them.
        let mut wake = |word| core.schedule_word(word);
        let mut count = 0;
        for event in events.iter().filter(|event| event.token() != INBOX) {
            readiness.on_event(event, &mut wake, &mut later);
            count += 1;
        }
        drop(readiness);
        core.traces(Step::Poll(count as usize));
        core.counting.events.add(count);
        self.wake_all(later);
        core.scheduler.borrow_mut().let_go_ahead(false);
    }

    /// Lets those who are woken next go ahead of all that is ready, and of so many more, if that is long.
    #[inline]
    fn let_go_ahead(&self, more: usize) {
        let core = &*self.core;
        let mut scheduler = core.scheduler.borrow_mut();
        let is_long = core.pace.is_long(scheduler.ready() + more);
        scheduler.let_go_ahead(is_long);
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
        self.timers.borrow_mut().collect_due(now, &mut self.due.borrow_mut());
    }

    /// How long the selector may sleep, since nothing is ready; for ever if nobody waits for a
    /// deadline.
    fn sleep(&self) -> Option<Duration> {
        let deadline = self.timers.borrow_mut().next_deadline()?;
        if self.clock.is_virtual() {
            return Some(self.virtual_sleep(deadline));
        }
        let now = self.clock.read();
        let deadline = self.pace.wake_up_at(deadline, now);
        let left = Duration::from_nanos(deadline.saturating_sub(now));
        Some(left.min(LONGEST_SLEEP))
    }

    /// [`sleep`](Core::sleep) in virtual time: looks once, and if there is nothing, `after_poll` moves the
    /// clock instead of sleeping; unless that is held. For what is due already, nobody has to wait.
    #[inline]
    fn virtual_sleep(&self, deadline: u64) -> Duration {
        if deadline <= self.clock.last() || self.outside() != Outside::Awaited {
            return Duration::ZERO;
        }
        self.clock.held_until(deadline).min(LONGEST_SLEEP)
    }

    /// Moves a virtual clock to the next deadline, if it may.
    #[inline]
    fn move_clock(&self, deadline: Option<u64>, is_idle: bool) {
        // Asked first: who lets go has posted before what the loop is to hear.
        let outside = self.outside();
        let is_idle = is_idle && !self.inbox.is_pending();
        if outside == Outside::Nothing {
            self.clock.let_go();
        }
        let Some(deadline) = deadline else { return };
        let is_reached = match outside {
            Outside::Nothing => is_idle,
            Outside::There if is_idle => true,
            // Also in a loop that is never idle: what is outside may see to that.
            Outside::There | Outside::Awaited => self.clock.held_until(deadline).is_zero(),
        };
        if is_reached {
            self.clock.advance_to(deadline);
        }
    }

    /// Brings the clock up to date, if there is anyone to whom it matters.
    fn after_poll(&self, busy: bool, quiet: bool) {
        let mut timers = self.timers.borrow_mut();
        if self.clock.is_virtual() {
            let is_idle = !busy && quiet;
            self.move_clock(timers.next_deadline(), is_idle);
        }
        // In virtual time that costs nothing.
        let is_read = busy || self.clock.is_virtual() || !timers.is_empty();
        self.pace.looked_up(busy, is_read.then(|| self.clock.read()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_closely_on_a_timer_that_fires_shares_a_wake_up_with_others() {
        let io_loop = IoLoop::new().unwrap();
        let (inner, shared) = (io_loop.clone(), Rc::new(Cell::new(None)));
        let wake_up = shared.clone();
        io_loop.call_later(Duration::from_millis(1), move || {
            let now = inner.core.clock.last();
            wake_up.set(Some(inner.core.pace.wake_up_at(now + 1, now) - now));
            inner.stop();
        });
        io_loop.start().unwrap();
        assert!(shared.get().is_some_and(|wait| wait > 1));
    }

    /// So that the order that a seed gives is the same on every machine.
    #[test]
    fn the_random_numbers_are_those_of_splitmix64() {
        let state = Cell::new(0);
        let numbers = [(); 3].map(|()| next_random(&state));
        assert_eq!(numbers, [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f]);
    }
}
