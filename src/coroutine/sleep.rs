//! `sleep`, `sleep_until`, `moment`: waiting for time, and for one turn.

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
/// It ends no earlier, and takes at least one turn of the loop; [`Duration::MAX`] is for ever. It is
/// plain data until it is awaited, takes no allocation then, and dropping it takes its timer back.
/// Cancel safe.
///
/// # Panics
///
/// As [`IoLoop::current`](crate::IoLoop::current); and when it is awaited on another loop than it
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

/// Waits until `when`; a turn or two of the loop if that has passed. See [`sleep`].
///
/// Count from [`now`], not from [`Instant::now`]: in virtual time the two differ by whatever the
/// clock has jumped, and the sleep would be too short, or too long.
#[track_caller]
pub fn sleep_until(when: Instant) -> Sleep {
    Sleep::until(Deadline::At(when))
}

/// The time on the current loop's clock, by which all its deadlines go: the present, or in virtual
/// time the loop's own. Tornado: `IOLoop.current().time()`.
///
/// Outside of any loop it is [`Instant::now`].
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

    /// Whether its time has come; as awaiting told last.
    pub fn is_over(&self) -> bool {
        self.timer == Timing::Over
    }

    /// When its time comes; `None` is never.
    ///
    /// # Panics
    ///
    /// Where awaiting it does: on another loop than it was made on, and outside of any.
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

    /// Sets the deadline that `next` says, by the one that has come and by the time now. It has been polled
    /// on its loop and is over.
    pub(super) fn go_on(&mut self, next: impl FnOnce(u64, u64) -> u64) {
        self.deadline = next(self.deadline, on_current(Core::now));
        self.timer = Timing::NotSet;
    }

    /// It is of no use there.
    fn is_elsewhere(&self, here: Option<LoopId>) -> ! {
        match here {
            Some(here) => {
                panic!("a Sleep of {} is awaited on {here}: make it where it is awaited", self.id)
            }
            None => panic!("a Sleep of {} is awaited outside of any loop", self.id),
        }
    }

    /// Moves the deadline, counted from now if it is a [`Duration`].
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
        // Wakers are foreign: cloned, and the old one dropped, when no borrow is held.
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

/// Lets everything else that is ready run first: exactly one turn of the loop. Tornado:
/// `gen.moment`.
///
/// For computations that take long: they let I/O and others have their turn. The selector is asked at
/// the end of the turn, however few entries have run, and whoever can go on goes on in the next one; so do
/// timers that are due. Cancel safe.
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
            // Outside of any loop there are no turns: one wake-up has to do. Else a combinator may poll again
            // within the turn.
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
                    // A combinator's. One that polls again whatever was woken would spin, and others
                    // give way early when they see much of that.
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
    /// The same deadline at an instant: counted from this call, however often it is used then. By itself
    /// a duration counts from each use.
    ///
    /// It goes by the current loop's clock, as [`coroutine::now`](crate::coroutine::now). What is further
    /// than an instant can be stays what it is, which is never.
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
