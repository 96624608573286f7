//! Sleeps at the selector more finely than its millisecond.
//!
//! epoll and poll(2) take their time-out in whole milliseconds, and mio rounds up. So a loop first sleeps as
//! many whole milliseconds as there are. When less than one is left, it waits with ppoll(2), which counts
//! nanoseconds, for epoll's own file descriptor: that is readable when epoll has events to report. Only if it
//! is, epoll is asked for them, which is a second system call.
//!
//! Linux lets such a sleep end up to 50 µs late, so that it ends together with something else, if there is
//! anything. So ppoll(2) is asked to end that much earlier. Mostly it then ends when it should. If it has ended
//! too early, the loop finds nothing due and sleeps again; that happens once in a hundred times.
//!
//! kqueue counts nanoseconds itself. With mio's poll(2) there is no file descriptor to wait for, so there
//! deadlines are kept to the next millisecond.

use std::io;
use std::time::Duration;

/// Asks the selector, and sleeps there until something is ready, or for `timeout` at most. It may return
/// before that with no events; a caller that waits for a deadline has to ask again.
pub(super) fn poll(
    selector: &mut mio::Poll,
    events: &mut mio::Events,
    timeout: Option<Duration>,
) -> io::Result<()> {
    let Some(timeout) = timeout else { return selector.poll(events, None) };
    let Some(left) = shorten(selector, timeout) else {
        events.clear();
        return Ok(());
    };
    selector.poll(events, Some(left))
}

/// If `timeout` is less than a millisecond, sleeps for it here. Returns how long mio is to sleep; `None` if
/// it is not to, and the selector has nothing to report.
#[cfg(all(any(target_os = "linux", target_os = "android"), not(mio_unsupported_force_poll_poll)))]
fn shorten(selector: &mio::Poll, timeout: Duration) -> Option<Duration> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::io::Errno;

    const MILLISECOND: Duration = Duration::from_millis(1);
    /// By how much Linux may delay the end of a sleep: a thread's timer slack, unless somebody has set it.
    const DELAY: Duration = Duration::from_micros(50);

    if timeout >= MILLISECOND {
        let fraction = Duration::from_nanos(u64::from(timeout.subsec_nanos()) % 1_000_000);
        return Some(timeout - fraction);
    }
    if timeout.is_zero() {
        return Some(timeout);
    }
    let ask_for = if timeout > DELAY { timeout - DELAY } else { timeout };
    let left = Timespec { tv_sec: 0, tv_nsec: ask_for.subsec_nanos().into() };
    match poll(&mut [PollFd::new(selector.registry(), PollFlags::IN)], Some(&left)) {
        Ok(0) => None,
        Ok(_) | Err(Errno::INTR) => Some(Duration::ZERO),
        // The system lacks memory, or forbids the process to call this: then mio sleeps for a millisecond.
        Err(_) => Some(timeout),
    }
}

#[cfg(not(all(
    any(target_os = "linux", target_os = "android"),
    not(mio_unsupported_force_poll_poll)
)))]
fn shorten(_: &mio::Poll, timeout: Duration) -> Option<Duration> {
    Some(timeout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn slept(timeout: Duration) -> Duration {
        let mut selector = mio::Poll::new().unwrap();
        let mut events = mio::Events::with_capacity(4);
        let begun = Instant::now();
        while let Some(left) = timeout.checked_sub(begun.elapsed()) {
            poll(&mut selector, &mut events, Some(left)).unwrap();
            assert!(events.is_empty());
        }
        begun.elapsed()
    }

    #[test]
    fn a_part_of_a_millisecond_ends_the_sleep() {
        let short = Duration::from_micros(100);
        let finest =
            (0..1000).map(|_| slept(short)).find(|slept| *slept < Duration::from_millis(1));
        if !cfg!(mio_unsupported_force_poll_poll) {
            assert!(finest.expect("one of a thousand is shorter than a millisecond") >= short);
        }
    }

    #[test]
    fn whole_milliseconds_come_first_and_no_time_at_all_is_no_sleep() {
        let selector = mio::Poll::new().unwrap();
        for (micros, most) in [(0, 0), (1_000, 1_000), (5_900, 5_900), (3_000_400, 3_000_400)] {
            let sleeps = shorten(&selector, Duration::from_micros(micros));
            let sleeps = sleeps.expect("nothing was slept yet");
            assert!(sleeps <= Duration::from_micros(most), "{sleeps:?}");
            assert_eq!(sleeps.is_zero(), micros == 0);
        }
    }

    #[test]
    fn what_is_ready_ends_a_short_sleep() {
        let mut selector = mio::Poll::new().unwrap();
        let mut events = mio::Events::with_capacity(4);
        let waker = mio::Waker::new(selector.registry(), mio::Token(7)).unwrap();
        waker.wake().unwrap();
        poll(&mut selector, &mut events, Some(Duration::from_micros(999))).unwrap();
        assert_eq!(events.iter().map(|event| event.token()).collect::<Vec<_>>(), [mio::Token(7)]);
        // When a later sleep ends without an event, there is none left of the one before.
        poll(&mut selector, &mut events, Some(Duration::from_micros(1))).unwrap();
        assert!(events.is_empty());
    }
}
