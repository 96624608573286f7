//! What a server and its connections share.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::settings::Settings;
use super::watch::Crowd;
use crate::coroutine::now;
use crate::ground::report;
use crate::http::request::Peer;
use crate::service::Made;

/// How often the log hears of clients that misbehave.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// What the connections of a server share, those who ask and those who answer.
pub(super) struct Serving<A> {
    pub(super) answer: Rc<A>,
    pub(super) made: Made,
    pub(super) shared: Rc<Shared>,
}

/// What they share with their server.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) settings: RefCell<Rc<Settings>>,
    /// Connections are to end as soon as they have answered what they were asked.
    pub(super) is_draining: Cell<bool>,
    /// The connections that hyper drives.
    pub(super) crowd: Crowd,
    complained_at: Cell<Option<Instant>>,
    /// How many complaints were left out since then.
    left_out: Cell<u64>,
}

impl Shared {
    /// Says in the log that a client misbehaves. Whoever can connect could fill the log with that, so most of
    /// many complaints are only counted.
    #[cold]
    pub(super) fn complain(&self, peer: &Peer, why: &dyn fmt::Display) {
        let now = now();
        let before = self.complained_at.get();
        if before.is_some_and(|before| now < before + COMPLAIN_EVERY) {
            self.left_out.set(self.left_out.get() + 1);
            return;
        }
        self.complained_at.set(Some(now));
        match self.left_out.take() {
            0 => report::info(report::HTTP, format_args!("a connection from {peer} ended: {why}")),
            others => report::info(
                report::HTTP,
                format_args!(
                    "{} connections have ended since the last such line; of {peer}: {why}",
                    others + 1
                ),
            ),
        }
    }
}
