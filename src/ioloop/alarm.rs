//! Wakes the selector at deadlines finer than its millisecond.
//!
//! epoll and poll(2) take their time-out in whole milliseconds, and mio rounds up. For the part
//! below a millisecond a timerfd is armed, and only then: a loop that sleeps for seconds is first
//! put to sleep in whole milliseconds, and a loop without short deadlines never makes a timerfd.
//! kqueue counts nanoseconds itself.

use std::io;
use std::time::Duration;

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use timerfd::Alarm;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) struct Alarm;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Alarm {
    pub(crate) fn new() -> Alarm {
        Alarm
    }

    pub(crate) fn arm(
        &mut self,
        _: &mio::Registry,
        _: mio::Token,
        _: u64,
        left: Duration,
    ) -> io::Result<Duration> {
        Ok(left)
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod timerfd {
    use std::os::fd::{AsRawFd, OwnedFd};

    use mio::unix::SourceFd;
    use mio::{Interest, Registry, Token};
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };

    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// A timerfd, made when it is first needed.
    pub(crate) struct Alarm {
        timer: Option<OwnedFd>,
        /// The deadline for which it is set.
        armed: Option<u64>,
    }

    impl Alarm {
        pub(crate) fn new() -> Alarm {
            Alarm { timer: None, armed: None }
        }

        /// How long the selector may sleep when the next deadline is `left` away. If the timerfd
        /// ends the sleep, the answer is longer than `left`.
        ///
        /// `deadline` names the deadline, so that an alarm already set for it is not set again.
        pub(crate) fn arm(
            &mut self,
            registry: &Registry,
            token: Token,
            deadline: u64,
            left: Duration,
        ) -> io::Result<Duration> {
            let whole = Duration::from_millis(left.as_millis().try_into().unwrap_or(u64::MAX));
            if left.is_zero() || left >= MILLISECOND {
                return Ok(whole);
            }
            if self.armed != Some(deadline) {
                self.set(registry, token, left)?;
                self.armed = Some(deadline);
            }
            Ok(MILLISECOND)
        }

        fn set(&mut self, registry: &Registry, token: Token, left: Duration) -> io::Result<()> {
            let fresh = self.timer.is_none();
            if fresh {
                let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
                self.timer = Some(timerfd_create(TimerfdClockId::Monotonic, flags)?);
            }
            let Some(timer) = &self.timer else { return Ok(()) };
            // Setting it anew also takes back an expiry that was reported, so it is never read.
            let value = Timespec { tv_sec: 0, tv_nsec: left.subsec_nanos().into() };
            let interval = Timespec { tv_sec: 0, tv_nsec: 0 };
            timerfd_settime(
                timer,
                TimerfdTimerFlags::empty(),
                &Itimerspec { it_interval: interval, it_value: value },
            )?;
            let fd = timer.as_raw_fd();
            if fresh {
                registry.register(&mut SourceFd(&fd), token, Interest::READABLE)?;
            } else if cfg!(mio_unsupported_force_poll_poll) {
                // poll(2) reports it once for each time it is armed.
                registry.reregister(&mut SourceFd(&fd), token, Interest::READABLE)?;
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks `poll` for an event for a long time, and tells whether one came.
    fn comes(poll: &mut mio::Poll) -> bool {
        let mut events = mio::Events::with_capacity(4);
        poll.poll(&mut events, Some(Duration::from_secs(20))).unwrap();
        events.iter().any(|event| event.token() == mio::Token(7))
    }

    #[test]
    fn a_part_of_a_millisecond_ends_the_sleep() {
        if cfg!(not(any(target_os = "linux", target_os = "android"))) {
            return;
        }
        let (mut poll, mut alarm) = (mio::Poll::new().unwrap(), Alarm::new());
        for deadline in [1, 2] {
            let left = Duration::from_micros(100);
            let sleep = alarm.arm(poll.registry(), mio::Token(7), deadline, left).unwrap();
            assert!(sleep > left && comes(&mut poll), "the alarm does not go off");
        }
    }

    #[test]
    fn whole_milliseconds_and_no_time_at_all_need_no_alarm() {
        let (poll, mut alarm) = (mio::Poll::new().unwrap(), Alarm::new());
        let mut sleep = |micros| {
            let left = Duration::from_micros(micros);
            alarm.arm(poll.registry(), mio::Token(7), micros, left).unwrap()
        };
        for (left, most) in [(0, 0), (1_000, 1_000), (5_900, 5_900)] {
            assert!(sleep(left) <= Duration::from_micros(most));
        }
    }
}
