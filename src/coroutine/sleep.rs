//! `sleep`, `sleep_until`, `moment`: waiting until some time has passed, or for one turn of the loop.

use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::FusedFuture;

use crate::ground::slots::Key;
use crate::ground::{foreign, resumption};
use crate::ioloop::{Core, Deadline, IoLoop, LoopId, Message, forget, on_current, with_current};

/// Waits for `duration`, counted from this call. Tornado: `gen.sleep`.
///
/// It never ends earlier, and takes at least one turn of the loop. [`Duration::MAX`] means for ever. The
/// timer is set when the future is first polled, without an allocation, and removed when the future is
/// dropped. Cancel safe.
///
/// # Panics
///
/// As [`IoLoop::current`](crate::IoLoop::current). Awaiting it panics on another loop than the one that it
/// was made on.
///
/// ```
/// use std::time::Duration;
/// use waterspout::{IoLoop, coroutine::sleep};
///
/// let io_loop = IoLoop::builder().virtual_time().build()?;
/// let begun = io_loop.time();
/// io_loop.run_sync(|| sleep(Duration::from_secs(3600)))?;
/// assert_eq!(io_loop.time() - begun, Duration::from_secs(3600));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[track_caller]
pub fn sleep(duration: Duration) -> Sleep {
    Sleep::until(Deadline::After(duration))
}

/// Waits until `when`; if that has passed, for a turn or two of the loop. See [`sleep`].
///
/// Make `when` of [`now`], not of [`Instant::now`]. In virtual time these two differ by all that the loop's
/// clock has jumped, so that the sleep would be too short or too long.
#[track_caller]
pub fn sleep_until(when: Instant) -> Sleep {
    Sleep::until(Deadline::At(when))
}

/// The time by the current loop's clock, which all deadlines of that loop go by: real time, or the loop's own
/// if it runs in virtual time. Tornado: `IOLoop.current().time()`.
///
/// On a thread without a loop it is [`Instant::now`].
///
/// ```
/// use std::time::Duration;
/// use waterspout::{IoLoop, coroutine::{now, sleep_until}};
///
/// IoLoop::builder().virtual_time().build()?.run_sync(|| async {
///     let begun = now();
///     for hour in 1..=3 {
///         sleep_until(begun + hour * Duration::from_secs(3600)).await;
///     }
///     assert_eq!(now() - begun, Duration::from_secs(3 * 3600));
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn now() -> Instant {
    IoLoop::try_current().map_or_else(Instant::now, |io_loop| io_loop.time())
}

/// Waits for a deadline; from [`sleep`] and [`sleep_until`].
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct Sleep {
    id: LoopId,
    /// In nanoseconds of the loop's clock.
    deadline: u64,
    timer: Timing,
    location: &'static Location<'static>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Timing {
    NotSet,
    Set(Key),
    Over,
}

impl Sleep {
    #[track_caller]
    pub(super) fn until(deadline: Deadline) -> Sleep {
        Sleep::new(deadline, Location::caller())
    }

    #[track_caller]
    fn new(deadline: Deadline, location: &'static Location<'static>) -> Sleep {
        let (id, deadline) = on_current(|core| (core.id(), core.deadline(deadline)));
        Sleep { id, deadline, timer: Timing::NotSet, location }
    }

    /// Whether the sleep has ended, by what polling it has given last. (The time may have come since then.)
    pub fn is_over(&self) -> bool {
        self.timer == Timing::Over
    }

    /// When the sleep ends; `None` if never.
    ///
    /// # Panics
    ///
    /// Where awaiting it panics: on another loop than the one that it was made on, and on a thread without a
    /// loop.
    ///
    /// ```
    /// use std::time::Duration;
    /// use waterspout::{IoLoop, coroutine::{now, sleep}};
    ///
    /// IoLoop::new()?.run_sync(|| async {
    ///     let minute = Duration::from_secs(60);
    ///     let sleep = sleep(minute);
    ///     assert!(sleep.deadline().unwrap() - now() <= minute);
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn deadline(&self) -> Option<Instant> {
        let of_clock = |core: &Core| {
            if core.id() == self.id { Ok(core.instant(self.deadline)) } else { Err(core.id()) }
        };
        match with_current(of_clock) {
            Some(Ok(deadline)) => deadline,
            elsewhere => self.is_elsewhere(elsewhere.and_then(Result::err)),
        }
    }

    /// Whether it has to be polled: its time has come, or it has not been polled yet. Costs less than polling it.
    #[cfg(feature = "server")]
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        let waits = |core: &Core| core.id() == self.id && core.last_time() < self.deadline;
        !matches!(self.timer, Timing::Set(_)) || with_current(waits) != Some(true)
    }

    /// Makes a sleep that is over sleep again, until the deadline that `next` gives. `next` is called with
    /// the deadline that has come and with the time now, both in nanoseconds of the loop's clock. The
    /// current loop has to be this sleep's own.
    pub(super) fn go_on(&mut self, next: impl FnOnce(u64, u64) -> u64) {
        self.deadline = next(self.deadline, on_current(Core::now));
        self.timer = Timing::NotSet;
    }

    /// Panics, since this is used on `here`, which is not its own loop; `None` is outside of any loop.
    fn is_elsewhere(&self, here: Option<LoopId>) -> ! {
        match here {
            Some(here) => {
                panic!("a Sleep of {} is awaited on {here}: make it where it is awaited", self.id)
            }
            None => panic!("a Sleep of {} is awaited outside of any loop", self.id),
        }
    }

    /// Sets another deadline, counted from this call if it is a [`Duration`]. From then on it is a sleep
    /// of the current loop.
    ///
    /// # Panics
    ///
    /// As [`IoLoop::current`](crate::IoLoop::current).
    pub fn reset(&mut self, deadline: impl Into<Deadline>) {
        let location = self.location;
        *self = Sleep::new(deadline.into(), location);
    }
}

impl std::future::Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.timer == Timing::Over {
            return Poll::Ready(());
        }
        // Wakers are foreign code: the new one is cloned, and the old one dropped, when no borrow is held.
        let mut latest = Some(cx.waker().clone());
        let here = with_current(|core| {
            if core.id() != this.id {
                return Some(core.id());
            }
            match this.timer {
                Timing::NotSet => {
                    if let Some(waker) = latest.take() {
                        this.timer = Timing::Set(core.add_timer(this.deadline, waker));
                    }
                }
                Timing::Set(key) if core.poll_timer(key, &mut latest) => {}
                Timing::Set(_) | Timing::Over => this.timer = Timing::Over,
            }
            None
        });
        match here {
            Some(None) if this.timer == Timing::Over => Poll::Ready(()),
            Some(None) => {
                if let Some(before) = latest {
                    foreign::discard(before);
                }
                resumption::waits_at(this.location);
                Poll::Pending
            }
            elsewhere => this.is_elsewhere(elsewhere.flatten()),
        }
    }
}

impl FusedFuture for Sleep {
    fn is_terminated(&self) -> bool {
        self.is_over()
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let Timing::Set(key) = self.timer else { return };
        let taken = with_current(|core| (core.id() == self.id).then(|| core.remove_timer(key)));
        match taken.flatten() {
            Some(waker) => foreign::discard(waker),
            None => forget(self.id, Message::ForgetTimer(key)),
        }
    }
}

/// Lets everything else that is ready run first, and goes on in the next turn of the loop. Tornado:
/// `gen.moment`.
///
/// A computation that takes long awaits it now and then, so that others get to run. The loop asks the
/// selector at the end of this turn, however few entries have run, and collects the timers that are due:
/// whoever can go on by these runs in the next turn, too. Cancel safe.
///
/// ```
/// # use waterspout::{IoLoop, coroutine::moment};
/// # IoLoop::new()?.run_sync(|| async {
/// for chunk in [[1, 2], [3, 4]] {
///     let _sum: i32 = chunk.iter().sum();
///     moment().await;
/// }
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[track_caller]
pub fn moment() -> Moment {
    Moment { turn: None, is_over: false, location: Location::caller() }
}

/// Waits for one turn of the loop; from [`moment`].
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct Moment {
    /// The turn in which it was first polled.
    turn: Option<u64>,
    is_over: bool,
    location: &'static Location<'static>,
}

impl std::future::Future for Moment {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let turn = with_current(|core| core.counting().turns.get());
        match self.turn {
            // It is over in another turn than the one in which it was first polled. In the same turn, a
            // combinator may poll it again for the sake of others, and it goes on waiting. Outside of any
            // loop there are no turns, so the second poll has to do.
            Some(begun) if turn.is_none() || Some(begun) != turn => {
                self.is_over = true;
                Poll::Ready(())
            }
            _ => {
                resumption::waits_at(self.location);
                self.turn = Some(turn.unwrap_or_default());
                with_current(Core::give_way);
                match with_current(|core| core.wake_own(cx.waker())) {
                    Some(true) => {}
                    // The waker of a combinator. If it were woken at once, a combinator that polls again
                    // whatever was woken would spin, and others would give way, taking it for a future that
                    // spins. So it is woken when the resumptions of this turn have ended.
                    Some(false) => resumption::defer(cx.waker().clone()),
                    None => cx.waker().wake_by_ref(),
                }
                Poll::Pending
            }
        }
    }
}

impl FusedFuture for Moment {
    fn is_terminated(&self) -> bool {
        self.is_over
    }
}

impl Deadline {
    /// Makes a deadline that is a duration one that is an instant: counted from this call, however often
    /// it is used then. Otherwise the duration is counted from each use. A deadline at an instant stays as
    /// it is.
    ///
    /// It goes by the current loop's clock, as [`coroutine::now`](crate::coroutine::now). A duration that is
    /// longer than an instant can tell stays a duration; either means never.
    ///
    /// ```
    /// use std::time::Duration;
    /// use waterspout::{Deadline, IoLoop, coroutine::{now, sleep, with_timeout}};
    ///
    /// IoLoop::builder().virtual_time().build()?.run_sync(|| async {
    ///     let begun = now();
    ///     let in_all = Deadline::from(Duration::from_secs(5)).fixed();
    ///     assert!(with_timeout(in_all, sleep(Duration::from_secs(3))).await.is_ok());
    ///     assert!(with_timeout(in_all, sleep(Duration::from_secs(3))).await.is_err());
    ///     assert_eq!(now() - begun, Duration::from_secs(5));
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fixed(self) -> Deadline {
        let Deadline::After(delay) = self else { return self };
        let now = with_current(Core::time);
        let when = now.unwrap_or_else(Instant::now).checked_add(delay);
        when.map_or(self, Deadline::At)
    }
}
