//! A callback that waits for its turn, with the place where it was added.

use std::panic::Location;

use crate::ground::{foreign, report};

/// A callback with the place where it was added; behind one pointer, so that the queue is dense.
pub(crate) struct Callback(Box<dyn Call>);

/// A callback on its way from another thread.
pub(crate) struct Posted(Box<dyn Call + Send>);

trait Call {
    fn location(&self) -> &'static Location<'static>;
    fn call(self: Box<Self>);
}

struct Located<F> {
    location: &'static Location<'static>,
    callback: F,
}

impl<F: FnOnce()> Call for Located<F> {
    fn location(&self) -> &'static Location<'static> {
        self.location
    }

    fn call(self: Box<Self>) {
        (self.callback)();
    }
}

impl Callback {
    pub(crate) fn new(
        location: &'static Location<'static>,
        callback: impl FnOnce() + 'static,
    ) -> Callback {
        if report::is_handling() {
            // Its panic is reported within, where it is not for the handler that has added it.
            let contained = move || foreign::call("callback", Some(location), callback);
            let callback = move || {
                report::handling(contained);
            };
            return Callback(Box::new(Located { location, callback }));
        }
        Callback(Box::new(Located { location, callback }))
    }

    pub(crate) fn location(&self) -> &'static Location<'static> {
        self.0.location()
    }

    pub(crate) fn call(self) {
        self.0.call();
    }
}

impl Posted {
    pub(crate) fn new(
        location: &'static Location<'static>,
        callback: impl FnOnce() + Send + 'static,
    ) -> Posted {
        Posted(Box::new(Located { location, callback }))
    }
}

impl From<Posted> for Callback {
    fn from(posted: Posted) -> Callback {
        Callback(posted.0)
    }
}
