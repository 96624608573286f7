//! How a loop is made: the role of Tornado's `Configurable`.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::core::{Core, Options};
use super::io_loop::IoLoop;
use crate::ground::report::Exception;

/// Makes an [`IoLoop`] that is not the default one. From [`IoLoop::builder`].
///
/// The selector cannot be chosen here: mio takes epoll or kqueue, whichever the system has, and poll(2) if
/// the program is compiled with mio's `--cfg mio_unsupported_force_poll_poll`. [`IoLoop::selector`] says
/// which it is.
///
/// ```
/// use waterspout::IoLoop;
///
/// let io_loop = IoLoop::builder()
///     .event_capacity(256)
///     .on_exception(|exception| eprintln!("{exception}"))
///     .build()?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Builder {
    options: Options,
}

impl IoLoop {
    /// A loop with defaults. It becomes the thread's current one if the thread has none; otherwise it is not
    /// current until it starts, or [`make_current`](IoLoop::make_current) is called.
    ///
    /// # Errors
    ///
    /// As [`Builder::build`].
    pub fn new() -> io::Result<IoLoop> {
        IoLoop::builder().build()
    }

    /// A builder, which makes a loop with options.
    pub fn builder() -> Builder {
        Builder {
            options: Options {
                event_capacity: 1024,
                virtual_time: false,
                on_exception: None,
                slow_callback: None,
                shuffle: None,
                trace: None,
                timer_slack: None,
            },
        }
    }
}

impl Builder {
    /// How many events one call to the selector may report: 1,024 by default, at least 1.
    ///
    /// If there are more, the others are reported by the next call; none is lost.
    pub fn event_capacity(mut self, events: usize) -> Builder {
        self.options.event_capacity = events.max(1);
        self
    }

    /// Gives the loop a virtual clock, for tests.
    ///
    /// The clock starts at the present and stands still while anything is left to do. When every coroutine
    /// waits, no socket is ready and no other thread has woken the loop, the clock jumps to the next
    /// deadline. So an hour's sleep takes no time, and what happens is the same on every machine.
    /// [`coroutine::now`](crate::coroutine::now) is the time of this clock.
    ///
    /// While the loop waits for something outside, which takes real time, the clock is held: it reaches the
    /// next deadline no sooner than the real one would. The loop knows of executor jobs, of the end of
    /// [`Subprocess`](crate::process::Subprocess)es and their pipes, and of the answers of other loops.
    /// It cannot know whether a channel's sender is on another thread, or what a socket is connected to. In
    /// such cases [`IoLoop::hold_time`] holds the clock.
    pub fn virtual_time(mut self) -> Builder {
        self.options.virtual_time = true;
        self
    }

    /// Sets the exception handler, which is called with panics and errors that nobody awaited. By default
    /// they are logged, as errors with the target `waterspout::application`, or written to standard error
    /// where there is no logger.
    ///
    /// Tornado: overriding `IOLoop.handle_callback_exception`. The handler may use the loop. If it
    /// panics itself, that is logged and the loop goes on; so is what fails in a callback or coroutine that
    /// the handler has started.
    ///
    /// Some errors are found out only when a handle is dropped. They go to the exception handler of the loop
    /// that is current then, and to the log if there is none.
    pub fn on_exception(mut self, handler: impl Fn(&Exception) + 'static) -> Builder {
        self.options.on_exception = Some(Rc::new(handler));
        self
    }

    /// Warns in the log when one callback, or one resumption of a coroutine, takes longer than this.
    ///
    /// The clock has to be read twice for each of them, so this is off by default. Tornado:
    /// `set_blocking_log_threshold`; asyncio: `slow_callback_duration`.
    pub fn slow_callback(mut self, threshold: Duration) -> Builder {
        self.options.slow_callback = Some(threshold);
        self
    }

    /// Runs what is ready in a random order that follows from `seed`, for tests. Code that relies on an order
    /// which nobody has promised fails with some seeds, and fails each time with the same seed.
    ///
    /// A turn still runs the same entries; only their order within the turn is another. Random numbers that
    /// other crates draw, as `futures::select!` does, do not follow from `seed`. See
    /// [`testing::explore`](crate::testing::explore).
    pub fn shuffle(mut self, seed: u64) -> Builder {
        self.options.shuffle = Some(seed);
        self
    }

    /// Records the last `steps` steps of the loop, for [`IoLoop::trace`].
    pub fn trace(mut self, steps: usize) -> Builder {
        self.options.trace = Some(steps);
        self
    }

    /// Lets each timer be late by as much as `slack`, so that timers share a wake-up of the thread, which costs
    /// more than a timer does. Linux: `prctl(PR_SET_TIMERSLACK)`, which goes for a whole thread.
    ///
    /// A timer never fires early. When the loop goes to sleep, it wakes up as late as the next deadline and
    /// `slack` allow, and then fires all timers that are due, by their deadlines, and those of equal deadline
    /// in the order in which they were set. It wakes up earlier if there is something else to do; then it also
    /// fires the timers that are due by then. On top of `slack` comes what the system takes to wake a thread
    /// (on Linux some 50 µs), and what else runs then.
    ///
    /// This goes for all that waits for a deadline: sleeps, time limits, also that of
    /// [`run_sync_timeout`](IoLoop::run_sync_timeout), and steady beats. Beats keep their phase, so they do not
    /// become later and later. But one that is missed is skipped: `slack` should be less than the periods.
    /// With [`Duration::MAX`] timers fire only when the loop wakes up for something else, after an hour at
    /// the latest.
    ///
    /// By default, a timer that comes alone does not wait at all. One that is due within 50 µs after others
    /// have fired waits until that time is over. The denser the timers are, the longer that time becomes, up
    /// to 400 µs. [`Duration::ZERO`] makes the loop wake up for each deadline.
    ///
    /// With a slack of a millisecond or more, sleeps take whole milliseconds, as those of tokio do. That is
    /// the cheapest for programs with many thousands of timers a second.
    ///
    /// In virtual time it has no effect: each timer fires at its deadline.
    ///
    /// ```
    /// use std::time::Duration;
    /// use waterspout::{IoLoop, coroutine::sleep};
    ///
    /// let io_loop = IoLoop::builder().timer_slack(Duration::from_millis(1)).build()?;
    /// let begun = io_loop.time();
    /// io_loop.run_sync(|| sleep(Duration::from_millis(3)))?;
    /// assert!(io_loop.time() - begun >= Duration::from_millis(3)); // and hardly more than 4
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn timer_slack(mut self, slack: Duration) -> Builder {
        self.options.timer_slack = Some(slack);
        self
    }

    /// Makes the loop. It becomes the thread's current one if the thread has none; otherwise it is not
    /// current until it starts, or [`IoLoop::make_current`] is called.
    ///
    /// # Errors
    ///
    /// If the system refuses a selector or an eventfd (too many open files), or the process has as many
    /// loops as it can (65,535; 63 on 32 bits). Closed loops of which there are still handles count, too.
    pub fn build(self) -> io::Result<IoLoop> {
        Ok(IoLoop::of_core(Core::new(self.options)?))
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("event_capacity", &self.options.event_capacity)
            .field("virtual_time", &self.options.virtual_time)
            .field("on_exception", &self.options.on_exception.is_some())
            .field("slow_callback", &self.options.slow_callback)
            .field("shuffle", &self.options.shuffle)
            .field("trace", &self.options.trace)
            .field("timer_slack", &self.options.timer_slack)
            .finish()
    }
}
