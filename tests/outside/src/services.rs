//! How tests get the servers that they ask: `tests/services/run` starts them, and stops them as soon as
//! nobody holds the other end of its standard input.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Once;

/// A server that was started for a test, and is stopped when it is dropped.
pub struct Server {
    script: Child,
    address: String,
}

impl Server {
    /// Starts `postgres` or `redis`. If that is not installed, this says so and gives `None`.
    ///
    /// # Panics
    ///
    /// If it is installed and does not start; why is on standard error then.
    pub fn start(name: &str) -> Option<Server> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../services/run");
        let mut script = Command::new(path)
            .arg(name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("tests/services/run needs bash");
        let mut address = String::new();
        BufReader::new(script.stdout.take().unwrap()).read_line(&mut address).unwrap();
        if address.is_empty() {
            let status = script.wait().unwrap();
            assert_eq!(status.code(), Some(77), "{name} has not started");
            // One line for all tests of a file; they ask the same kind of server.
            static SAID: Once = Once::new();
            // Not by `eprintln!`: what a test prints by that is only shown if it fails.
            let line = format!("SKIPPED: no {name} is installed, so its tests do nothing\n");
            SAID.call_once(|| std::io::stderr().write_all(line.as_bytes()).unwrap());
            return None;
        }
        Some(Server { script, address: address.trim().to_owned() })
    }

    /// What a client connects to, as PostgreSQL's and Redis's own libraries write it.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // This closes the script's standard input first.
        let _ended = self.script.wait();
    }
}
