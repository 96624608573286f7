//! What runs the requests of HTTP/2, each in a coroutine of its own.

use ::hyper::rt;

use super::settings::Settings;
use crate::coroutine::spawn;

/// Runs what hyper gives it, within tokio's context if the server has that.
#[derive(Clone, Copy)]
pub(super) struct Executor {
    #[cfg(feature = "tokio-compat")]
    in_tokio: bool,
}

impl Settings {
    pub(super) fn executor(&self) -> Executor {
        Executor {
            #[cfg(feature = "tokio-compat")]
            in_tokio: self.in_tokio,
        }
    }
}

impl<F: Future + 'static> rt::Executor<F> for Executor {
    fn execute(&self, future: F) {
        #[cfg(feature = "tokio-compat")]
        if self.in_tokio {
            return drop(spawn(async_compat::Compat::new(future)));
        }
        // Not started here and now: hyper is in the middle of its own.
        drop(spawn(future));
    }
}
