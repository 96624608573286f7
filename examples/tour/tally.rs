//! Counts what has happened so far. Plain cells are enough, since all who count are on one thread.

use std::cell::{Cell, Ref, RefCell};
use std::time::{Duration, Instant};

use crate::args::Args;
use crate::histogram::Histogram;

/// This many errors are kept as text. Further errors are only counted.
const KEPT: usize = 5;

pub struct Tally {
    pub args: Args,
    begun: Cell<Instant>,
    connected: Cell<u64>,
    asked: Cell<u64>,
    answered: Cell<u64>,
    /// Bytes of messages that were answered.
    bytes: Cell<u64>,
    /// Bytes of answers, complete or not.
    received: Cell<u64>,
    latencies: RefCell<Histogram>,
    errors: Cell<u64>,
    first_errors: RefCell<Vec<String>>,
}

impl Tally {
    pub fn new(args: Args) -> Tally {
        Tally {
            args,
            begun: Cell::new(Instant::now()),
            connected: Cell::new(0),
            asked: Cell::new(0),
            answered: Cell::new(0),
            bytes: Cell::new(0),
            received: Cell::new(0),
            latencies: RefCell::new(Histogram::new()),
            errors: Cell::new(0),
            first_errors: RefCell::new(Vec::new()),
        }
    }

    /// Called when all clients are connected and begin to send messages.
    pub fn begin(&self) {
        self.begun.set(Instant::now());
    }

    /// The time since [`begin`](Tally::begin).
    pub fn elapsed(&self) -> Duration {
        self.begun.get().elapsed()
    }

    pub fn connected(&self) {
        add(&self.connected, 1);
    }

    /// A message is about to be sent.
    pub fn asked(&self) {
        add(&self.asked, 1);
    }

    /// A part of an answer has come.
    pub fn received(&self, bytes: usize) {
        add(&self.received, bytes as u64);
    }

    /// The answer is complete and right.
    pub fn answered(&self, bytes: usize, took: Duration) {
        add(&self.answered, 1);
        add(&self.bytes, bytes as u64);
        self.latencies.borrow_mut().record(took.as_nanos() as u64);
    }

    pub fn failed(&self, error: String) {
        add(&self.errors, 1);
        let mut first_errors = self.first_errors.borrow_mut();
        if first_errors.len() < KEPT {
            first_errors.push(error);
        }
    }

    /// Whether no message may begin any more.
    pub fn is_time_over(&self) -> bool {
        self.args.seconds.is_some_and(|seconds| self.elapsed().as_secs() >= seconds)
    }

    /// How much of the run is done, from 0 to 1: by messages or by time, whichever ends first.
    pub fn done(&self) -> f64 {
        let of = |part: f64, whole: Option<u64>| whole.map_or(0.0, |whole| part / whole as f64);
        let messages = self.args.messages.map(|messages| messages * self.args.clients);
        let by_messages = of(self.answered.get() as f64, messages);
        let by_time = of(self.elapsed().as_secs_f64(), self.args.seconds);
        by_messages.max(by_time).min(1.0)
    }

    /// A number that grows as long as anything happens.
    pub fn moved(&self) -> u64 {
        self.connected.get() + self.received.get() + self.answered.get()
    }

    pub fn connections(&self) -> u64 {
        self.connected.get()
    }

    pub fn messages(&self) -> u64 {
        self.answered.get()
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// How many messages should have been answered and were not. If the run is ended by time, messages that
    /// were never sent do not count.
    pub fn lost(&self) -> u64 {
        let expected = match (self.args.messages, self.args.seconds) {
            (Some(messages), None) => messages * self.args.clients,
            _ => self.asked.get(),
        };
        expected - self.answered.get()
    }

    pub fn errors(&self) -> u64 {
        self.errors.get()
    }

    pub fn first_errors(&self) -> Ref<'_, [String]> {
        Ref::map(self.first_errors.borrow(), Vec::as_slice)
    }

    pub fn latencies(&self) -> Ref<'_, Histogram> {
        self.latencies.borrow()
    }
}

fn add(cell: &Cell<u64>, n: u64) {
    cell.set(cell.get() + n);
}
