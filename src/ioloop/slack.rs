//! How late the loop wakes up for its timers, so that several of them share a wake-up.
//!
//! To wake a thread costs more than a timer does. So where timers are dense, it is better that some wait for
//! others. No timer ever fires early: the loop wakes up late, and fires all that are due by then. While it
//! is awake, timers fire as soon as they are due, whatever is said here.
//!
//! By default a timer waits only for the end of a *window*, which begins when others have fired. So one that
//! comes alone never waits. A window is as short as the time by which Linux delays all timers of a thread,
//! for the same reason. Then it becomes as many times longer as timers share a wake-up: twice as long from one
//! to the next, and eight times in all, at most.
//!
//! With [`Builder::timer_slack`](super::builder::Builder::timer_slack), each timer may wait for as long as
//! that says.
//!
//! This is plain data: `now` is an argument. A loop in virtual time does not ask it.

use std::cell::Cell;

/// The shortest window, in nanoseconds.
const SHORTEST: u64 = 50_000;
/// The longest one.
const LONGEST: u64 = 8 * SHORTEST;
/// A sleep of whole milliseconds takes one system call, any other takes two.
const MILLISECOND: u64 = 1_000_000;

pub(super) struct Slack {
    /// By how much each timer may be late, in nanoseconds; `None` if it is not set.
    fixed: Option<u64>,
    /// How long the window is.
    window: Cell<u64>,
    /// When timers fired last: the window begins then.
    fired_at: Cell<u64>,
    /// How many have fired since the loop slept.
    fired: Cell<u64>,
}

impl Slack {
    pub(super) fn new(fixed: Option<u64>) -> Slack {
        Slack { fixed, window: Cell::new(SHORTEST), fired_at: Cell::new(0), fired: Cell::new(0) }
    }

    /// Notes that so many timers fire.
    pub(super) fn fires(&self, timers: usize, now: u64) {
        self.fired.set(self.fired.get() + timers as u64);
        self.fired_at.set(now);
    }

    /// When a loop that goes to sleep is to wake up for a deadline: then, or a little later.
    pub(super) fn wake_up_at(&self, deadline: u64, now: u64) -> u64 {
        let fired = self.fired.take();
        if deadline <= now {
            return deadline;
        }
        if let Some(slack) = self.fixed {
            let latest = deadline.saturating_add(slack);
            let whole = latest - (latest - now) % MILLISECOND;
            return if whole >= deadline { whole } else { latest };
        }
        if fired > 0 {
            let longer = LONGEST.min(2 * self.window.get());
            self.window.set(fired.saturating_mul(SHORTEST).min(longer));
        }
        let end = self.fired_at.get() + self.window.get();
        if end <= deadline {
            // This one waits for no others, so timers are not dense.
            self.window.set(SHORTEST);
        }
        deadline.max(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: u64 = 1_000;
    const MS: u64 = MILLISECOND;

    /// Has a loop sleep for one timer after the other, with deadlines `apart` nanoseconds apart, until `n` have
    /// fired. It wakes up as it is told, and does not work. Gives how often it woke up, and how late the
    /// latest timer was among the last half.
    fn sleep_for(slack: &Slack, apart: u64, n: u64) -> (u64, u64) {
        let (mut wakes, mut latest, mut fired) = (0, 0, 0);
        while fired < n {
            let deadline = MS + (fired + 1) * apart;
            let now = slack.wake_up_at(deadline, slack.fired_at.get().max(MS));
            assert!(now >= deadline, "early");
            let due = (now - deadline) / apart + 1;
            if fired >= n / 2 {
                latest = latest.max(now - deadline);
            }
            (wakes, fired) = (wakes + 1, fired + due);
            slack.fires(due as usize, now);
        }
        (wakes, latest)
    }

    #[test]
    fn a_timer_that_comes_alone_does_not_wait() {
        for apart in [50 * US, 60 * US, 300 * US, MS, 3_600_000 * MS] {
            assert_eq!(sleep_for(&Slack::new(None), apart, 100), (100, 0), "{apart}");
        }
    }

    #[test]
    fn timers_that_follow_closely_on_others_share_a_wake_up() {
        let slack = Slack::new(None);
        slack.fires(1, MS);
        assert_eq!(slack.wake_up_at(MS + 10 * US, MS + 5 * US), MS + 50 * US);
        // Something else has ended the sleep: the timer does not wait any longer for that.
        assert_eq!(slack.wake_up_at(MS + 10 * US, MS + 8 * US), MS + 50 * US);
        assert_eq!(slack.wake_up_at(MS + 4 * US, MS + 8 * US), MS + 4 * US, "it is late already");
        assert_eq!(slack.wake_up_at(MS + 60 * US, MS + 45 * US), MS + 60 * US, "it comes alone");
    }

    #[test]
    fn the_denser_timers_are_the_more_of_them_share_a_wake_up() {
        let (wakes, latest) = sleep_for(&Slack::new(None), 25 * US, 16_000);
        assert!(wakes < 1_200 && latest < LONGEST, "{wakes}, {latest}");
        let (wakes, latest) = sleep_for(&Slack::new(None), 1, 1_600_000);
        assert!(wakes < 16 && latest < LONGEST, "{wakes}, {latest}");
    }

    #[test]
    fn where_timers_are_no_longer_dense_they_wait_no_longer() {
        let slack = Slack::new(None);
        sleep_for(&slack, US, 10_000);
        assert_eq!(slack.window.get(), LONGEST);
        let fired_at = slack.fired_at.get();
        let (alone, now) = (fired_at + MS, fired_at + US);
        assert_eq!(slack.wake_up_at(alone, now), alone);
        slack.fires(1, alone);
        assert_eq!(slack.wake_up_at(alone + US, alone), alone + SHORTEST);
    }

    #[test]
    fn many_timers_at_once_do_not_make_the_next_one_wait_long() {
        let slack = Slack::new(None);
        slack.fires(100_000, MS);
        assert_eq!(slack.wake_up_at(MS + 100 * US, MS), MS + 100 * US);
        slack.fires(100_000, 2 * MS);
        assert_eq!(slack.wake_up_at(2 * MS + US, 2 * MS), 2 * MS + 2 * SHORTEST);
    }

    #[test]
    fn a_slack_that_is_set_bounds_how_late_each_timer_is() {
        for slack in [0, 1, 30 * US, 999 * US, MS, MS + 1, 20 * MS + 7] {
            let fixed = Slack::new(Some(slack));
            for now in [0, 1, 7 * MS, 123_456_789] {
                for left in [1, 999, 30 * US, MS - 1, MS, 5 * MS + 3, 3_600_000 * MS] {
                    let late = fixed.wake_up_at(now + left, now) - (now + left);
                    assert!(late <= slack, "{slack}, {now}, {left}: {late}");
                }
                assert_eq!(fixed.wake_up_at(now, now + 1), now, "it is late already");
            }
        }
        assert_eq!(sleep_for(&Slack::new(Some(0)), 3, 1_000), (1_000, 0));
        let (wakes, latest) = sleep_for(&Slack::new(Some(MS)), 25 * US, 40_000);
        assert!(wakes <= 1_001 && latest <= MS, "{wakes}, {latest}");
    }

    #[test]
    fn with_a_slack_of_a_millisecond_sleeps_are_whole_milliseconds() {
        for slack in [MS, MS + 1, 7 * MS] {
            for left in [1, 400 * US, MS - 1, MS, MS + 1, 12_345_678] {
                let now = 77_777;
                let sleep = Slack::new(Some(slack)).wake_up_at(now + left, now) - now;
                assert_eq!(sleep % MS, 0, "{slack}, {left}");
            }
        }
    }

    #[test]
    fn the_longest_slack_and_the_latest_deadline_are_no_overflow() {
        let slack = Slack::new(Some(u64::MAX));
        assert!(slack.wake_up_at(MS, 0) > u64::MAX - MS);
        assert!(slack.wake_up_at(u64::MAX - 1, u64::MAX - 2) >= u64::MAX - 1);
        assert_eq!(Slack::new(None).wake_up_at(u64::MAX - 1, 0), u64::MAX - 1);
    }
}
