//! A tour of the loop under load: an echo server and 1,000 clients on one thread.
//!
//! ```text
//! $ cargo run --release --example tour
//! $ cargo run --release --example tour -- --help
//! ```
//!
//! Server and clients are coroutines of one loop in one process, and talk over real TCP. Each
//! client sends messages from 1 B to 64 KiB and checks every byte that comes back. The exit status
//! is 0 if nothing was lost or wrong, 1 otherwise, and 2 if the tour could not begin as asked.
//!
//! `load` is the part to read: it has the server and the clients. `args`, `limit` and `messages` prepare the
//! run, `tally` and `histogram` count, `watch` shows the progress and ends a run that is stuck, and `report`
//! makes the table that is printed at the end.

mod args;
mod histogram;
mod limit;
mod load;
mod messages;
mod report;
mod tally;
mod watch;

use std::io::Write;
use std::pin::pin;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use futures::future::{Either, select};
use waterspout::{CoroutineInfo, IoLoop};

use args::{Args, Asked};
use tally::Tally;

/// How a run ended.
struct Outcome {
    /// The time since all clients were connected.
    took: Duration,
    /// If the run was stuck: all coroutines that were alive then. `None` if the run came to its end.
    stuck: Option<Vec<CoroutineInfo>>,
}

fn main() -> ExitCode {
    let args = match args::parse(std::env::args_os().skip(1)) {
        Ok(Asked::Tour(args)) => args,
        Ok(Asked::Help) => {
            print(args::HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("tour: {error}\n{}", args::USAGE);
            return ExitCode::from(2);
        }
    };
    if let Err(error) = limit::allow_open_files(args.clients) {
        eprintln!("tour: {error}");
        return ExitCode::from(2);
    }
    match tour(args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("tour: {error}");
            ExitCode::FAILURE
        }
    }
}

fn tour(args: Args) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let tally = Rc::new(Tally::new(args));
    let failures = tally.clone();
    let io_loop = IoLoop::builder()
        // Nobody awaits the server's connections, so an error of one is reported here.
        .on_exception(move |exception| failures.failed(exception.to_string()))
        .build()?;

    let watched = tally.clone();
    let stuck = io_loop.run_sync(|| async {
        let load = pin!(load::run(watched.clone()));
        let watch = pin!(watch::until_stuck(watched));
        match select(load, watch).await {
            Either::Left((result, _)) => result.map(|()| None),
            Either::Right((stuck, _)) => Ok(Some(stuck)),
        }
    })??;
    let outcome = Outcome { took: tally.elapsed(), stuck };

    print(&report::table(&tally, &outcome, &io_loop.counters()));
    eprint!("{}", report::complaints(&tally, &outcome));
    let fine = outcome.stuck.is_none() && tally.errors() == 0 && tally.lost() == 0;
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints to standard output. An error is ignored: whoever has closed the output (`tour | head -1`) does not
/// want the rest.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
