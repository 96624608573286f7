//! How a loop is made: the role of Tornado's `Configurable`.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::core::{Core, Options};
use super::io_loop::IoLoop;
use crate::ground::report::Exception;

/// Makes an [`IoLoop`] that is not the default one. From [`IoLoop::builder`].
///
/// The selector is no choice of a builder: mio takes epoll or kqueue, whichever the system has
/// ([`IoLoop::selector`] tells), and poll(2) if the program is compiled with mio's
/// `--cfg mio_unsupported_force_poll_poll`.
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
    /// A loop with defaults. It is the thread's current one if that has none; otherwise it is not
    /// current until it starts or is made so.
    ///
    /// # Errors
    ///
    /// As [`Builder::build`].
    pub fn new() -> io::Result<IoLoop> {
        IoLoop::builder().build()
    }

    /// A loop with options.
    pub fn builder() -> Builder {
        Builder {
            options: Options {
                event_capacity: 1024,
                virtual_time: false,
                on_exception: None,
                slow_callback: None,
                shuffle: None,
                trace: None,
            },
        }
    }
}

impl Builder {
    /// How many events one call to the selector may report: 1,024 unless told, at least 1.
    ///
    /// More wait for the next turn, none is lost.
    pub fn event_capacity(mut self, events: usize) -> Builder {
        self.options.event_capacity = events.max(1);
        self
    }

    /// Gives the loop a virtual clock, for tests.
    ///
    /// It starts at the present and stands still while anything is left to do. When every coroutine
    /// waits and nothing from outside is due (no socket is ready, no other thread has woken the loop),
    /// it jumps to the next deadline. An hour's sleep takes no time, and what happens is the same on
    /// every machine. [`coroutine::now`](crate::coroutine::now) tells that time.
    ///
    /// While something outside is awaited, which takes real time, the clock is held: it reaches the
    /// next deadline no sooner than the real one would. The loop knows of executor jobs, of the end of
    /// [`Subprocess`](crate::process::Subprocess)es and their pipes, and of the answers of other loops.
    /// It cannot know whether a channel's sender lives on another thread, or what a socket is connected
    /// to: there, [`IoLoop::hold_time`] holds the clock by hand.
    pub fn virtual_time(mut self) -> Builder {
        self.options.virtual_time = true;
        self
    }

    /// Who hears of panics and errors that nobody awaited; by default they are logged, as errors with
    /// the target `waterspout::application`, or written to standard error where there is no logger.
    ///
    /// Tornado: overriding `IOLoop.handle_callback_exception`. The handler may use the loop. If it
    /// panics itself, that is logged and the loop goes on.
    ///
    /// An error that is found out when its last handle is dropped goes to the loop that is current
    /// then, and to the log if none is: after `run_sync` has returned, say.
    pub fn on_exception(mut self, handler: impl Fn(&Exception) + 'static) -> Builder {
        self.options.on_exception = Some(Rc::new(handler));
        self
    }

    /// Warns in the log when one callback, or one resumption of a coroutine, takes longer than this.
    ///
    /// It costs two clock readings for each, so it is off unless asked for. Tornado:
    /// `set_blocking_log_threshold`; asyncio: `slow_callback_duration`.
    pub fn slow_callback(mut self, threshold: Duration) -> Builder {
        self.options.slow_callback = Some(threshold);
        self
    }

    /// Runs what is ready in an order that `seed` decides, for tests: code that counts on an order
    /// that nobody promised fails under some seed, and fails again under the same.
    ///
    /// What a turn runs is the same, only its order within the turn is not. Random numbers that others
    /// draw, `futures::select!` for one, are no part of it. See
    /// [`testing::explore`](crate::testing::explore).
    pub fn shuffle(mut self, seed: u64) -> Builder {
        self.options.shuffle = Some(seed);
        self
    }

    /// Records what the loop does, the last `steps` of it, for [`IoLoop::trace`].
    pub fn trace(mut self, steps: usize) -> Builder {
        self.options.trace = Some(steps);
        self
    }

    /// Makes the loop. It is the thread's current one if that has none; otherwise it is not current
    /// until it starts, or [`IoLoop::make_current`] is called.
    ///
    /// # Errors
    ///
    /// If the system refuses a selector or an eventfd (too many open files), or as many loops are
    /// open as the process can have (65,535).
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
            .finish()
    }
}
