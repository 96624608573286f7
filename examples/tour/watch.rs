//! Shows the progress of the run, and ends the run when nothing happens any more.
//!
//! The progress goes to standard error. On a terminal it is one line that is drawn again and again.
//! Elsewhere it is a new line for every tenth of the run.

use std::io::{IsTerminal, Write, stderr};
use std::rc::Rc;
use std::time::Duration;

use waterspout::coroutine::sleep;
use waterspout::{CoroutineInfo, IoLoop};

use crate::report::grouped;
use crate::tally::Tally;

const TICK: Duration = Duration::from_millis(100);
/// The run is stuck if nothing has happened for this many ticks, which are 10 seconds. Ticks are counted,
/// since the clock also goes on while the process is suspended.
pub const PATIENCE: u32 = 100;
/// The width of the bar, in characters.
const BAR: usize = 30;

/// Waits until nothing has happened for 10 seconds. Gives all coroutines that are alive then, with where they
/// wait.
pub async fn until_stuck(tally: Rc<Tally>) -> Vec<CoroutineInfo> {
    let mut progress = Progress::new();
    let (mut moved, mut still) = (0, 0);
    while still < PATIENCE {
        sleep(TICK).await;
        progress.show(&tally);
        still = if tally.moved() == moved { still + 1 } else { 0 };
        moved = tally.moved();
    }
    IoLoop::current().coroutines()
}

struct Progress {
    is_terminal: bool,
    tenths: u32,
}

impl Progress {
    fn new() -> Progress {
        Progress { is_terminal: stderr().is_terminal(), tenths: 0 }
    }

    fn show(&mut self, tally: &Tally) {
        let tenths = (tally.done() * 10.0) as u32;
        let news = tenths > self.tenths;
        self.tenths = tenths;
        // An error is ignored: standard error may be closed.
        let _ = if self.is_terminal {
            let filled = (tally.done() * BAR as f64) as usize;
            let (full, empty) = ("█".repeat(filled), "░".repeat(BAR - filled));
            write!(stderr(), "\r\x1b[K{full}{empty} {}", self.line(tally))
        } else if news {
            writeln!(stderr(), "{}", self.line(tally))
        } else {
            Ok(())
        };
    }

    fn line(&self, tally: &Tally) -> String {
        let messages = tally.messages();
        let rate = messages as f64 / tally.elapsed().as_secs_f64();
        let errors = match tally.errors() {
            0 => String::new(),
            errors => format!("  {} errors", grouped(errors)),
        };
        let (percent, messages, rate) =
            (tally.done() * 100.0, grouped(messages), grouped(rate as u64));
        format!("{percent:>3.0} %  {messages} messages  {rate}/s{errors}")
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_terminal {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}
