//! Shows how far the run is, and ends it when nothing moves any more.
//!
//! The progress goes to standard error: one line that is drawn again and again on a terminal, a
//! plain line for every tenth of the way elsewhere.

use std::io::{IsTerminal, Write, stderr};
use std::rc::Rc;
use std::time::Duration;

use waterspout::coroutine::sleep;
use waterspout::{CoroutineInfo, IoLoop};

use crate::report::grouped;
use crate::tally::Tally;

const TICK: Duration = Duration::from_millis(100);
/// So many ticks in which nothing has moved are 10 seconds. Ticks and not the clock, for that goes
/// on while the process is suspended.
pub const PATIENCE: u32 = 100;
/// The width of the bar, in characters.
const BAR: usize = 30;

/// Watches until nothing has moved for 10 seconds; gives all coroutines, with where they wait.
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
        // Nobody may be there to read it.
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
