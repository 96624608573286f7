//! Foreign code ends where it is called.
//!
//! Wakers, destructors, callbacks, `Debug` and `Display` of errors, loggers: all of these are somebody
//! else's code, and any of them may panic. Wherever this crate calls such code, wakes a waker or drops a
//! value that it was given, it does so by a function of this file. So one rule holds everywhere: a panic
//! of foreign code ends here and is reported once, and all who come after it are still called, woken or
//! dropped.
//!
//! Foreign code may also call back into the crate. So the other half of the rule is up to the callers of
//! these functions: they hold no borrow of anything meanwhile.
//!
//! A foreign stream may also claim to have moved more bytes than it was given; that is checked here, too.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::task::Waker;

use super::error::ExcInfo;
use super::report::{self, Exception, Panic};

/// Calls `run` and returns its output. If `run` panics, the panic is reported as one of `what`, which was
/// added at `location`, and there is no output.
#[inline]
pub(crate) fn call<R>(
    what: &'static str,
    location: Option<&'static Location<'static>>,
    run: impl FnOnce() -> R,
) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(output) => Some(output),
        Err(panic) => {
            report_panic(what, location, panic);
            None
        }
    }
}

/// Reports a panic that was caught, and drops its payload.
#[cold]
pub(crate) fn report_panic(
    what: &'static str,
    location: Option<&'static Location<'static>>,
    panic: Panic,
) {
    let info = ExcInfo::from_panic(&*panic);
    report::report(Exception { what, name: None, location, info });
    report::discard_panic(panic);
}

/// Wakes a waker, and reports a panic of it.
#[inline]
pub(crate) fn wake(waker: Waker) {
    call("waker", None, || waker.wake());
}

/// Wakes all of them in order, also those that come after one that panics.
#[inline]
pub(crate) fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    wakers.into_iter().for_each(wake);
}

/// Drops a value whose destructor may be foreign, and reports a panic of it.
#[inline]
pub(crate) fn discard<T>(value: T) {
    if std::mem::needs_drop::<T>() {
        call("destructor", None, || drop(value));
    }
}

/// Drops each of them, also those that come after one whose destructor panics.
pub(crate) fn discard_all<T>(values: impl IntoIterator<Item = T>) {
    values.into_iter().for_each(discard);
}

/// The `Debug` form of somebody else's value; a text that says so if making it panics.
pub(crate) fn debug(value: &dyn fmt::Debug) -> String {
    let text = catch_unwind(AssertUnwindSafe(|| format!("{value:?}")));
    text.unwrap_or_else(|panic| {
        let text = format!("an error whose Debug form panicked: {}", ExcInfo::from_panic(&*panic));
        report::discard_panic(panic);
        text
    })
}

/// How many bytes somebody else's stream has read or written, of the `of` bytes that it was given.
///
/// # Errors
///
/// `InvalidData` if the stream claims to have moved more than that. Whoever believed it would go on to read
/// or send bytes that are not there.
#[inline]
pub(crate) fn believed(moved: usize, of: usize) -> io::Result<usize> {
    if moved > of {
        let message = format!("the stream claims to have moved {moved} bytes of {of}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(moved)
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::panic::panic_any;
    use std::rc::Rc;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    use super::*;

    /// What is reported while `run` runs.
    fn reported(run: impl FnOnce()) -> Vec<String> {
        let told = Rc::new(RefCell::new(Vec::new()));
        let tells = told.clone();
        let before = report::install(Some(Rc::new(move |exception: &Exception| {
            tells.borrow_mut().push(exception.to_string());
        })));
        run();
        report::install(before);
        told.take()
    }

    struct Bomb(u32);

    impl Drop for Bomb {
        fn drop(&mut self) {
            if self.0 > 0 {
                panic_any(Bomb(self.0 - 1));
            }
        }
    }

    #[test]
    fn a_panic_is_reported_once_and_goes_no_further() {
        let here = Location::caller();
        let told = reported(|| {
            assert_eq!(call("callback", Some(here), || 1), Some(1));
            assert_eq!(call("callback", Some(here), || panic!("boom")), None::<()>);
        });
        assert_eq!(told, [format!("exception in callback ({here}): panicked: boom")]);
    }

    #[test]
    fn all_are_woken_whoever_panics() {
        let woken = Arc::new(AtomicU32::new(0));
        let waker = |n: u32| {
            let woken = woken.clone();
            waker_fn::waker_fn(move || {
                woken.fetch_add(1, SeqCst);
                assert!(n % 2 == 0, "waker {n}");
            })
        };
        let told = reported(|| wake_all((0..4).map(waker)));
        let expected = [1, 3].map(|n| format!("exception in waker: panicked: waker {n}"));
        assert_eq!((told, woken.load(SeqCst)), (expected.to_vec(), 4));
    }

    #[test]
    fn payloads_that_panic_when_they_are_dropped_come_to_an_end() {
        let told = reported(|| discard_all([Bomb(1), Bomb(0), Bomb(1_000_000)]));
        assert_eq!(told.len(), 2, "{told:?}");
    }

    #[test]
    fn a_destructor_that_panics_while_unwinding_is_contained() {
        struct Guard<'a>(&'a Cell<bool>);
        impl Drop for Guard<'_> {
            fn drop(&mut self) {
                discard(Bomb(1));
                self.0.set(true);
            }
        }
        let done = Cell::new(false);
        let told = reported(|| {
            call("callback", None, || {
                let _guard = Guard(&done);
                panic!("outer")
            });
        });
        assert!(done.get() && told.len() == 2, "{told:?}");
    }

    #[test]
    fn no_stream_has_moved_more_than_there_was() {
        assert_eq!((believed(0, 0).unwrap(), believed(5, 5).unwrap()), (0, 5));
        assert_eq!(believed(6, 5).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_debug_form_that_panics_is_a_text_all_the_same() {
        struct Shy;
        impl fmt::Debug for Shy {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                panic!("do not look")
            }
        }
        assert_eq!(debug(&7), "7");
        assert!(debug(&Shy).contains("do not look"));
    }
}
