//! The turn: the one function that orders the phases.
//!
//! 1. Take what other threads have posted, 256 messages of it at most.
//! 2. Note how much is ready, and collect the timers that are due.
//! 3. Run that much, first in first out, then those timers.
//! 4. Ask the selector which sockets are ready; sleep there only if nothing else is.
//!
//! Whatever is scheduled during a phase waits for the next turn, so callbacks that add callbacks
//! and timers that set timers cannot keep the loop from its sockets. While more is ready, the loop does not
//! ask the selector every turn, since that is a system call, but when `pace` says that it is time: after 64
//! entries, or about 100 µs. Timers that are due shortly after others share a wake-up with one another. The
//! clock is read before the selector sleeps until a deadline; and after the selector was asked, if there are
//! timers or more is ready.
//!
//! # A long turn
//!
//! A turn runs all that was ready when it began, and that may take long. When `pace` says in the midst of a
//! turn that it is time, the loop *looks up*: it asks the selector, takes some of the inbox, and collects the
//! timers that are due, unless some that it collected before are still to fire. Then it goes on with
//! another one of three kinds of [`Work`], in rotation, until it is time again:
//!
//! * the run queue, as far as it belongs to the turn,
//! * the slots that the selector or a timer has woken, which go ahead of their position in the queue,
//! * the timers that were collected.
//!
//! What is run in one go, until `pace` is asked again, is a *stretch*. So each kind of work waits for one
//! stretch of each of the others at most, however much there is of them. A turn that is not so long has one
//! stretch of the queue and then one of timers.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use super::callback::Callback;
use super::core::Resume;
use super::due::Fired;
use super::inbox::Message;
use super::introspect::Step;
use super::io_loop::IoLoop;
use super::pace::MOST_POSTED;
use super::ready::Next;
use super::selector::{Asked, Outside};
use crate::ground::report::Panic;
use crate::ground::slots::Key;
use crate::ground::{foreign, resumption};

/// The selector sleeps at most this long at a time, like Tornado's.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);
/// The time-out with which the selector only looks, and does not sleep.
const AT_ONCE: Option<Duration> = Some(Duration::ZERO);

/// A turn under way.
struct Turn {
    /// How many entries of the queue are still to run in this stretch, before `pace` is asked again.
    stretch: usize,
    /// How many entries of the queue belong to the turn, beside those of the stretch.
    left: usize,
    /// Whether the turn may have anything to run beside this stretch of the queue.
    has_more: bool,
    /// What the turn goes on with.
    work: Work,
}

/// What a turn goes on with, in rotation.
#[derive(Clone, Copy)]
enum Work {
    /// The next entries of the run queue.
    Queue,
    /// Slots that go ahead of their position in the run queue.
    Ahead,
    /// The timers that were collected.
    Timers,
}

impl Turn {
    fn rotate(&mut self) {
        self.work = match self.work {
            Work::Queue => Work::Ahead,
            Work::Ahead => Work::Timers,
            Work::Timers => Work::Queue,
        };
    }
}

impl IoLoop {
    /// Runs turns until the selector has been asked, or the loop is to stop. `main` is called to poll the
    /// future of `run_sync`, when the slot of that was resumed.
    ///
    /// One `catch_unwind` goes around all that runs; one around each resumption would cost as much as the
    /// resumption does. If something panics, `current` says which slot was being resumed. That slot is told,
    /// and the turn goes on with what is left.
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
            // To end the coroutine may panic again: destructors of what it owned run, and foreign wakers.
            foreign::call("handler", None, || self.panicked(key, panic));
        }
        if !core.life.is_to_stop() {
            self.poll(core.ready() > 0);
        }
    }

    /// Phases 1 and 2. `ready` is how many entries are in the run queue.
    #[inline(always)]
    fn begin_turn(&self, mut ready: usize) -> Turn {
        let core = &*self.core;
        core.counting().turns.add(1);
        if core.inbox.is_pending() {
            self.take_inbox(MOST_POSTED, false);
            ready = core.ready();
        }
        if core.watch.is_on() {
            self.begin_watched(ready);
        }
        let now = core.clock.last();
        let is_due = core.due.is_due(now);
        if is_due {
            core.due.collect(now);
        }
        let stretch = core.pace.run(ready);
        let left = ready - stretch;
        Turn { stretch, left, has_more: is_due || left > 0, work: Work::Queue }
    }

    #[cold]
    fn begin_watched(&self, ready: usize) {
        let core = &*self.core;
        core.watch.step(Step::Turn);
        if let Some(random) = core.watch.order() {
            core.scheduler.borrow_mut().shuffle(ready, random);
        }
    }

    /// Goes on after a stretch of the queue: runs what else there is, until there is another stretch of the
    /// queue, of this turn or of the next one. Returns `false` when it is time for phase 4 instead, or the
    /// loop is to stop.
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
        if ready == 0 || core.life.is_to_stop() {
            return false;
        }
        if ready > core.pace.room() && !self.may_put_off(ready) {
            return false;
        }
        *turn = self.begin_turn(ready);
        true
    }

    /// Whether the next turn, of `ready` entries, may begin without phase 4.
    #[cold]
    fn may_put_off(&self, ready: usize) -> bool {
        let core = &*self.core;
        let is_time = core.pace.room() == 0 && core.pace.is_time(core.clock.read());
        !is_time && core.pace.may_begin(ready)
    }

    /// Goes on with phase 3 where a turn has more than one stretch of the queue. Returns `false` when nothing
    /// of the turn is left.
    #[cold]
    fn go_on_with(&self, turn: &mut Turn, main: &mut dyn FnMut()) -> bool {
        let core = &*self.core;
        if core.pace.room() == 0 && core.pace.is_time(core.clock.read()) {
            self.look_up(turn);
        } else if turn.left == 0 && matches!(turn.work, Work::Queue) {
            turn.work = Work::Timers;
        }
        let has_due = core.due.collected() > 0;
        for _ in 0..3 {
            match turn.work {
                Work::Queue if turn.left > 0 => {
                    turn.stretch = core.pace.run(turn.left);
                    turn.left -= turn.stretch;
                    return true;
                }
                // If nothing else is left of the turn, they need not go ahead: the next turn runs them.
                Work::Ahead
                    if core.scheduler.borrow().has_ahead() && (turn.left > 0 || has_due) =>
                {
                    self.run_ahead(main);
                    return true;
                }
                Work::Timers if has_due => {
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
        // Half as many as have run, so that the queue does not become longer by what others post, and all take turns.
        let most_posted = 1.max(core.pace.entries() as usize / 2);
        self.poll(true);
        if core.inbox.is_pending() {
            self.take_inbox(most_posted, true);
        }
        // While some that were collected are still to fire, no others are: or timers that set timers would
        // never let the turn end. And if only timers are left of the turn, the next turn collects.
        let now = core.clock.last();
        if turn.left > 0 && core.due.collected() == 0 && core.due.is_due(now) {
            core.counting().batches.add(1);
            core.watch.step(Step::Turn);
            core.due.collect(now);
        }
        turn.has_more = true;
        turn.rotate();
    }

    /// Phase 3: resumes the slots that go ahead of their position in the queue, until it is time to look up.
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

    /// Phase 3: fires timers that were collected, until it is time to look up. If there are many of them, or
    /// the queue is long, the slots that they wake go ahead. Tells whether anything is left of the turn.
    fn fire_due(&self, queue_is_long: bool) -> bool {
        let core = &*self.core;
        let due = core.due.collected();
        let fire = core.pace.run(due);
        core.slack.fires(fire, core.clock.last());
        self.let_go_ahead(due - fire);
        for _ in 0..fire {
            self.fire_next();
        }
        core.scheduler.borrow_mut().let_go_ahead(false);
        core.due.give_back();
        queue_is_long || fire < due
    }

    /// Phase 1: does what other threads have posted first, at most so many messages.
    ///
    /// In the midst of a turn a request to stop stays where it is, and what was posted after it: callbacks that were
    /// posted before it may have to wait for the next turn, and it must not overtake them.
    #[cold]
    fn take_inbox(&self, most: usize, is_midst: bool) {
        let core = &*self.core;
        let mut messages = core.messages.take();
        core.inbox.take(&mut messages, most, is_midst);
        core.counting().messages.add(messages.len() as u64);
        let mut taken = messages.drain(..);
        loop {
            // The borrow ends here: foreign code may run below.
            let other = core.scheduler.borrow_mut().take_posted(&mut taken);
            match other {
                None => break,
                Some(Message::ForgetSocket(key)) => self.wake_all(core.forget_socket(key)),
                Some(Message::ForgetTimer(key)) => {
                    foreign::discard(core.remove_timer(key));
                }
                Some(Message::Stop) => self.stop(),
                Some(Message::Wake(_) | Message::Call(_)) => unreachable!("they are queued"),
            }
        }
        drop(taken);
        core.messages.set(messages);
    }

    /// Phase 3: one entry of the run queue.
    #[inline]
    fn run(&self, next: Option<Next<Rc<dyn Resume>>>, main: &mut dyn FnMut()) {
        let core = &*self.core;
        match next {
            Some(Next::Resume(key, resume)) => {
                core.counting().resumes.add(1);
                core.current.set(key);
                resumption::begin();
                if !core.watch.is_on() {
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
        slot.resume(&self.core);
        // The future of `run_sync` is on the stack of that function. So its slot could only note that it was
        // resumed, and `main` polls it.
        if self.core.main_resumed.get() {
            self.core.main_resumed.set(false);
            main();
        }
    }

    /// [`resume`](IoLoop::resume) in a loop that records or times what it does.
    #[cold]
    fn resume_watched(&self, slot: Rc<dyn Resume>, main: &mut dyn FnMut()) {
        let core = &*self.core;
        core.watch.step(Step::Resume(slot.info().map(|info| info.name)));
        let info = || slot.info().map_or("a handler".into(), |info| info.to_string());
        self.timed(info, || self.resume(slot.clone(), main));
        // A panic from here on is not one of this slot.
        core.current.set(Key::NONE);
    }

    /// Tells the slot that was being resumed of its panic; reports the panic if there was no such slot.
    #[cold]
    fn panicked(&self, key: Key, panic: Panic) {
        let slot = self.core.scheduler.borrow().get(key).cloned();
        let panic = match slot {
            Some(slot) => slot.panicked(panic, &self.core),
            None => Some(panic),
        };
        if let Some(panic) = panic {
            foreign::report_panic("handler", None, panic);
        }
    }

    fn run_callback(&self, callback: Callback) {
        self.core.counting().callbacks.add(1);
        // A panic of the callback is not one of the slot that was resumed before it.
        self.core.current.set(Key::NONE);
        resumption::end();
        if !self.core.watch.is_on() {
            return callback.call();
        }
        let location = callback.location();
        self.core.watch.step(Step::Call(location));
        self.timed(|| format!("the callback added at {location}"), || callback.call());
    }

    /// Phase 3: fires the next timer that was collected, unless it was removed meanwhile.
    #[inline]
    fn fire_next(&self) {
        let core = &*self.core;
        let Some(fired) = core.due.fire_next() else { return };
        core.counting().timers.add(1);
        match fired {
            Fired::Call(callback) => self.run_callback(callback),
            Fired::Wake(waker) => core.wake(waker),
        }
    }

    /// Calls `run`, and warns if that takes longer than the threshold of `slow_callback`, if there is one.
    #[inline]
    fn timed(&self, what: impl FnOnce() -> String, run: impl FnOnce()) {
        self.core.watch.timed(what, || self.core.ready(), run);
    }

    /// Phase 4: asks the selector which sockets are ready, and sleeps there until one is, unless the loop is
    /// `busy`.
    #[inline(never)]
    fn poll(&self, busy: bool) {
        let core = &*self.core;
        core.scheduler.borrow_mut().give_back();
        let sleep = if busy { AT_ONCE } else { self.sleep() };
        let asleep = sleep != AT_ONCE && core.inbox.fall_asleep();
        let asked = core.selector.ask(if asleep { sleep } else { AT_ONCE });
        if asleep {
            core.inbox.wake_up();
        }
        let Some(asked) = asked else { return };
        core.counting().polls.add(1);
        let quiet = asked.is_quiet();
        if !quiet && asked.result.is_ok() {
            self.dispatch(&asked);
        } else {
            core.watch.step(Step::Poll(0));
        }
        match core.selector.give_back(asked) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                panic!("{self:?}: the selector failed: {error}")
            }
            _ => {}
        }
        self.after_poll(busy, quiet);
    }

    /// Wakes those who wait for the sockets that the selector has reported.
    fn dispatch(&self, asked: &Asked) {
        let core = &*self.core;
        self.let_go_ahead(0);
        let mut later = core.woken.take();
        // Most of them are slots of this loop, and are queued at once, without making a waker of each.
        let count = core.selector.dispatch(asked, |word| core.schedule_word(word), &mut later);
        core.watch.step(Step::Poll(count as usize));
        core.counting().events.add(count);
        self.wake_all(later);
        core.scheduler.borrow_mut().let_go_ahead(false);
    }

    /// Lets the slots that are woken next go ahead, if what is ready and `more` entries are together so many
    /// that they should not wait for all of them.
    #[inline]
    fn let_go_ahead(&self, more: usize) {
        let core = &*self.core;
        let mut scheduler = core.scheduler.borrow_mut();
        let is_long = core.pace.is_long(scheduler.ready() + more);
        scheduler.let_go_ahead(is_long);
    }

    /// Wakes all of them, and keeps the vector to be used again.
    fn wake_all(&self, mut woken: Vec<Waker>) {
        woken.drain(..).for_each(|waker| self.core.wake(waker));
        self.core.woken.set(woken);
    }
}

impl IoLoop {
    /// How long the selector may sleep when nothing is ready; `None` is for ever, if there is no timer.
    fn sleep(&self) -> Option<Duration> {
        let core = &*self.core;
        let deadline = core.due.next_deadline()?;
        if core.clock.is_virtual() {
            return Some(self.virtual_sleep(deadline));
        }
        let now = core.clock.read();
        let deadline = core.slack.wake_up_at(deadline, now);
        let left = Duration::from_nanos(deadline.saturating_sub(now));
        Some(left.min(LONGEST_SLEEP))
    }

    /// [`sleep`](IoLoop::sleep) in virtual time. Mostly it does not sleep: the selector looks once, and if it
    /// has nothing to report, `after_poll` moves the clock. Only if the clock is held it sleeps, until the
    /// clock may reach the deadline.
    #[inline]
    fn virtual_sleep(&self, deadline: u64) -> Duration {
        let core = &*self.core;
        if deadline <= core.clock.last() || core.outside() != Outside::Awaited {
            return Duration::ZERO;
        }
        core.clock.held_until(deadline).min(LONGEST_SLEEP)
    }

    /// Moves a virtual clock to the next deadline, if it may.
    #[inline(always)]
    fn move_clock(&self, deadline: Option<u64>, is_idle: bool) {
        let core = &*self.core;
        // This order matters: another thread posts what it has for the loop, and lets go of the clock after
        // that. If the inbox were asked first, the message could come in between, and the clock would jump
        // before the loop has heard it.
        let outside = core.outside();
        let is_idle = is_idle && !core.inbox.is_pending();
        if outside == Outside::Nothing {
            core.clock.let_go();
        }
        let Some(deadline) = deadline else { return };
        let is_reached = match outside {
            Outside::Nothing => is_idle,
            Outside::There if is_idle => true,
            // It need not be idle. What is outside may keep the loop busy, and the deadline has to come
            // nevertheless.
            Outside::There | Outside::Awaited => core.clock.held_until(deadline).is_zero(),
        };
        if is_reached {
            core.clock.advance_to(deadline);
        }
    }

    /// Brings the clock up to date, if anything depends on it.
    fn after_poll(&self, busy: bool, quiet: bool) {
        let core = &*self.core;
        if core.clock.is_virtual() {
            let is_idle = !busy && quiet;
            self.move_clock(core.due.next_deadline(), is_idle);
        }
        // Reading a virtual clock costs nothing.
        let is_read = busy || core.clock.is_virtual() || !core.due.is_empty();
        core.pace.looked_up(busy, is_read.then(|| core.clock.read()));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn timers_that_are_due_shortly_after_one_that_fires_share_a_wake_up() {
        let io_loop = IoLoop::new().unwrap();
        let (inner, shared) = (io_loop.clone(), Rc::new(Cell::new(None)));
        let wake_up = shared.clone();
        io_loop.call_later(Duration::from_millis(1), move || {
            let now = inner.core.clock.last();
            wake_up.set(Some(inner.core.slack.wake_up_at(now + 1, now) - now));
            inner.stop();
        });
        io_loop.start().unwrap();
        assert!(shared.get().is_some_and(|wait| wait > 1));
    }
}
