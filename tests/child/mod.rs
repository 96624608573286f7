//! A test in a process of its own, for what a process has as a whole: limits, signals, the number of
//! its open files, the logger.
//!
//! The test binary is started again, for one test and with a variable that says so. The child tells
//! things on standard error, a line each, because the test harness writes to standard output.

#![allow(dead_code)] // Each test binary that includes this uses a part of it.

use std::io::{BufRead, BufReader, Lines};
use std::process::{self, ChildStderr, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const VARIABLE: &str = "WATERSPOUT_TEST_IN_CHILD";
/// No child lives longer, whatever goes wrong.
const LIMIT: Duration = Duration::from_secs(120);
/// What the child says begins with it.
const MARK: &str = "child: ";

/// Whether this process is the child in which `test` is to run.
pub fn is_child(test: &str) -> bool {
    let child = std::env::var(VARIABLE).is_ok_and(|name| name == test);
    if child {
        thread::spawn(|| {
            thread::sleep(LIMIT);
            process::abort();
        });
    }
    child
}

/// Says something to the parent.
pub fn say(what: impl std::fmt::Display) {
    eprintln!("{MARK}{what}");
}

/// How many files this process has open.
pub fn open_files() -> usize {
    // Without the one that looks.
    std::fs::read_dir("/proc/self/fd").map_or(0, |open| open.count() - 1)
}

/// Lets this process have so many files open at most.
pub fn limit_open_files(most: u64) {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum }).unwrap();
}

/// Runs `body` in a process in which nothing else runs.
pub fn alone(test: &str, body: impl FnOnce()) {
    if is_child(test) {
        body();
        return say("ran");
    }
    let (status, said) = Child::start(test).end();
    // A process that finds no test of that name succeeds, too.
    assert!(status.success() && said.contains("child: ran"), "{status}: {said}");
}

/// The process in which the test runs. Dropping it kills it.
pub struct Child {
    pub process: process::Child,
    lines: Lines<BufReader<ChildStderr>>,
    said: String,
}

impl Child {
    pub fn start(test: &str) -> Child {
        let mut command = Command::new(std::env::current_exe().expect("a test has a path"));
        command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(VARIABLE, test);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("it starts");
        let lines = BufReader::new(process.stderr.take().expect("it is piped")).lines();
        Child { process, lines, said: String::new() }
    }

    /// Waits for the next thing that it says; panics if it ends instead.
    pub fn hear(&mut self) -> String {
        for line in self.lines.by_ref() {
            let line = line.expect("it says text");
            if let Some(heard) = line.strip_prefix(MARK) {
                return heard.to_owned();
            }
            self.said.push_str(&line);
            self.said.push('\n');
        }
        panic!("it has ended: {}", self.said);
    }

    /// Closes its standard input, waits for its end and tells what else it has said.
    pub fn end(mut self) -> (ExitStatus, String) {
        drop(self.process.stdin.take());
        for line in self.lines.by_ref() {
            self.said.push_str(&line.expect("it says text"));
            self.said.push('\n');
        }
        let status = self.process.wait().expect("it can be waited for");
        (status, std::mem::take(&mut self.said))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It has ended already, mostly.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
