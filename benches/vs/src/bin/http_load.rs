//! `http_load ADDR --conns N (--seconds S | --each R) [--warmup W] [--pid PID]`
//!
//! Load on a server of HTTP/1.1: each connection asks for `/`, waits for the whole answer, and repeats; for S
//! seconds, or R times. The answer has to be a 200 with the body `Hello, World!`. What it prints: see
//! `load.rs`.

use peers::http::exchange::{REQUEST, is_answer};
use peers::load::{self, Options, Protocol};

struct Http {
    /// What has arrived on each connection of an answer that came in pieces.
    begun: Vec<Vec<u8>>,
}

impl Protocol for Http {
    fn request(&mut self, _conn: usize, _seq: u32) -> &[u8] {
        REQUEST
    }

    fn answer(&mut self, conn: usize, _seq: u32, got: usize, bytes: &[u8]) -> Option<bool> {
        if got == 0 && is_answer(bytes)? {
            return Some(true);
        }
        let begun = &mut self.begun[conn];
        begun.extend(bytes);
        let is_complete = is_answer(begun)?;
        if is_complete {
            begun.clear();
        }
        Some(is_complete)
    }
}

fn main() {
    let conns = load::option("--conns").unwrap_or(1);
    load::run(Options::from_args(), Http { begun: vec![Vec::new(); conns] });
}
