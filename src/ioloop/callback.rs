//! A callback in the run queue, with the place where it was added.

use std::panic::Location;

use crate::ground::{foreign, report};

/// A callback with the place where it was added. Both are behind one pointer, so that the entries of the run
/// queue are small.
pub(crate) struct Callback(Box<dyn Call>);

/// A callback on its way from another thread.
pub(crate) struct Posted(Box<dyn Call + Send>);

trait Call {
    fn location(&self) -> &'static Location<'static>;
    /// Calls it, and reports a panic.
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
        foreign::call("callback", Some(self.location), self.callback);
    }
}

impl Callback {
    pub(crate) fn new(
        location: &'static Location<'static>,
        callback: impl FnOnce() + 'static,
    ) -> Callback {
        if report::is_handling() {
            // The exception handler adds this. A panic of it must only be logged, and not be given to the
            // handler that has caused it. So it is reported while it still counts as the handler's doing.
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

    /// Calls it, and reports a panic.
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
