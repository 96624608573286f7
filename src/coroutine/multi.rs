//! `multi`: awaiting many at once.
//!
//! There are three forms. [`multi`] awaits futures that give results: if one gives an error, so does the
//! whole, as an exception does in Tornado, but only when all are done. [`try_multi`] awaits coroutines
//! that give results, and cancels the rest at the first error. [`multi_outputs`] awaits futures of any
//! output, and gives the outputs as they are. (The compiler could not choose between these forms by a
//! future's output.) All keep the [`Shape`] of what they are given.
//!
//! What is awaited are the *children*. They are awaited by a [`WaitIterator`], which polls only those that
//! were woken: so the cost is linear in their number, however many they are.

use std::fmt::Debug;
use std::future::poll_fn;
use std::panic::Location;
use std::pin::pin;
use std::task::Poll;

use futures::future::{FusedFuture, maybe_done};

use super::shape::Shape;
use super::{CancelOnDrop, Coroutine, WaitIterator};
use crate::ground::error::ExcInfo;
use crate::ground::foreign;
use crate::ground::kept::Kept;
use crate::ground::report::{self, Exception};
use crate::ground::resumption;

/// What [`multi_outputs`] awaits: a vector, an array, a map or a tuple of two to six futures.
#[diagnostic::on_unimplemented(
    message = "`multi_outputs` cannot await all of `{Self}`",
    label = "not a vector, an array, a map or a tuple of two to six futures"
)]
pub trait Children: Sealed {
    /// The outputs, in the same shape.
    type Outputs;

    /// Awaits all children.
    #[doc(hidden)]
    fn outputs(self) -> impl Future<Output = Self::Outputs>;
}

/// What [`multi`] awaits: a vector, an array, a map or a tuple of two to six futures that give
/// results.
#[diagnostic::on_unimplemented(
    message = "`multi` cannot await all of `{Self}`",
    label = "not a vector, an array, a map or a tuple of two to six futures that give results with one \
             type of error"
)]
pub trait FallibleChildren: Sealed {
    /// The values in the same shape, or the first error.
    type Output;

    /// Awaits all children.
    #[doc(hidden)]
    fn settle(self, later_errors: LaterErrors) -> impl Future<Output = Self::Output>;
}

/// What [`try_multi`] awaits: a vector, an array, a map or a tuple of two to six coroutines that
/// give results.
#[diagnostic::on_unimplemented(
    message = "`try_multi` cannot await all of `{Self}`",
    label = "not a vector, an array, a map or a tuple of two to six coroutines that give results with one \
             type of error"
)]
pub trait CancellableChildren: Sealed {
    /// The values in the same shape, or the first error.
    type Output;

    /// Awaits all children, up to the first error. Dropping the future that this gives cancels the children,
    /// even if it was never polled.
    #[doc(hidden)]
    fn until_error(self) -> impl Future<Output = Self::Output>;
}

/// The output of a future that [`multi`] or [`try_multi`] can await: a [`Result`].
#[diagnostic::on_unimplemented(
    message = "`multi` and `try_multi` await futures that give results, and this one gives `{Self}`",
    label = "gives `{Self}`, which is no `Result`",
    note = "`coroutine::multi_outputs` awaits futures that cannot fail, and gives their outputs as they are"
)]
pub trait Fallible: Sealed {
    /// What is in an `Ok`.
    type Value;
    /// What is in an `Err`.
    type Error;

    /// The output as the result that it is.
    #[doc(hidden)]
    fn into_result(self) -> Result<Self::Value, Self::Error>;
}

impl<T, E> Fallible for Result<T, E> {
    type Value = T;
    type Error = E;

    fn into_result(self) -> Result<T, E> {
        self
    }
}

/// A child of [`try_multi`], which has to be able to cancel it: a [`Coroutine`] or a [`CancelOnDrop`].
#[diagnostic::on_unimplemented(
    message = "`try_multi` awaits coroutines, which it can cancel, and `{Self}` is none",
    label = "not a coroutine",
    note = "`coroutine::start` makes a coroutine of a future"
)]
pub trait Cancellable: Future + Sealed {
    /// The same coroutine, which ends when this is dropped.
    #[doc(hidden)]
    fn tied(self) -> CancelOnDrop<Self::Output>;
}

impl<T> Cancellable for Coroutine<T> {
    fn tied(self) -> CancelOnDrop<T> {
        self.cancel_on_drop()
    }
}

impl<T> Cancellable for CancelOnDrop<T> {
    fn tied(self) -> CancelOnDrop<T> {
        self
    }
}

/// Keeps the traits above from being implemented elsewhere.
pub trait Sealed {}

impl<S: Shape> Sealed for S {}
impl<T, E> Sealed for Result<T, E> {}
impl<T> Sealed for Coroutine<T> {}
impl<T> Sealed for CancelOnDrop<T> {}

/// What happens to errors after the first one, which the caller is not given.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub enum LaterErrors {
    /// They are logged, with the line that called `multi`.
    Log(&'static Location<'static>),
    Ignore,
}

impl LaterErrors {
    fn tell(self, error: &impl Debug) {
        if let LaterErrors::Log(location) = self {
            let error = foreign::debug(error);
            report::error(
                report::APPLICATION,
                format_args!("one more error of multi at {location}: {error}"),
            );
        }
    }

    /// Keeps the result of a child until all children are done. If `multi` is dropped before that, an error
    /// is reported.
    fn keep<T, E: Debug>(self, result: Result<T, E>) -> Kept<Held<T, E>> {
        let failure = |held: &Held<T, E>| match (&held.result, held.later_errors) {
            (Err(error), LaterErrors::Log(location)) => Some(Exception {
                what: "multi, which was dropped",
                name: None,
                location: Some(location),
                info: ExcInfo::error(foreign::debug(error)),
            }),
            _ => None,
        };
        Kept::new(Held { result, later_errors: self }, failure)
    }
}

/// The result of a child, and what to do if it is an error and nobody asks for it.
struct Held<T, E> {
    result: Result<T, E>,
    later_errors: LaterErrors,
}

/// Awaits many futures at once, its children, and gives their values in the same shape and order. Tornado:
/// `gen.multi`, or yielding a list or a dict.
///
/// The children have to give results. For futures that cannot fail there is [`multi_outputs`].
///
/// It waits for *all* of them, also after an error. Then it gives the error that is first in the order of the
/// input; the other errors are logged. If there are no children, it is ready at once. Dropping it drops the
/// children, which detaches those that are [`Coroutine`]s: it is as cancel safe as the children are.
///
/// ```
/// use waterspout::{IoLoop, coroutine::multi};
///
/// async fn half(n: u32) -> Result<u32, String> {
///     if n % 2 == 0 { Ok(n / 2) } else { Err(format!("{n} is odd")) }
/// }
///
/// let io_loop = IoLoop::new()?;
/// io_loop.run_sync(|| async {
///     assert_eq!(multi([half(4), half(2)]).await, Ok([2, 1]));
///     assert_eq!(multi(vec![half(4), half(2)]).await, Ok(vec![2, 1]));
///     assert_eq!(multi((half(4), async { Ok("x") })).await, Ok((2, "x")));
///     assert_eq!(multi(vec![half(4), half(3), half(1)]).await, Err("3 is odd".to_owned()));
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[track_caller]
pub fn multi<C: FallibleChildren>(children: C) -> impl FusedFuture<Output = C::Output> {
    resumption::or_here(children.settle(LaterErrors::Log(Location::caller())))
}

/// Awaits many futures at once, its children, and gives their outputs, as they are, in the same shape and
/// order. Tornado: `gen.multi` of coroutines that raise nothing.
///
/// An output may be a result, but an `Err` is an output like others here: nothing is ended by it, and nobody
/// is told. If there are no children, this is ready at once. If a child panics, so does whoever awaits this,
/// without waiting for the other children. Dropping it drops the outputs that are there, and the children,
/// which detaches those that are [`Coroutine`]s: it is as cancel safe as the children are.
///
/// ```
/// use std::time::Duration;
/// use waterspout::{IoLoop, coroutine::{multi_outputs, sleep}};
///
/// async fn nap(seconds: u64) -> u64 {
///     sleep(Duration::from_secs(seconds)).await;
///     seconds
/// }
///
/// let io_loop = IoLoop::builder().virtual_time().build()?;
/// let begun = io_loop.time();
/// io_loop.run_sync(|| async {
///     assert_eq!(multi_outputs(vec![nap(3), nap(1)]).await, vec![3, 1]);
///     let [one, two] = multi_outputs([nap(1), nap(2)]).await;
///     let (three, word) = multi_outputs((nap(3), async { "x" })).await;
///     assert_eq!((one, two, three, word), (1, 2, 3, "x"));
/// })?;
/// assert_eq!(io_loop.time() - begun, Duration::from_secs(3 + 2 + 3));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[track_caller]
pub fn multi_outputs<C: Children>(children: C) -> impl FusedFuture<Output = C::Outputs> {
    resumption::or_here(children.outputs())
}

/// [`multi`] that does not log the errors after the first. Tornado: `quiet_exceptions`.
#[track_caller]
pub fn multi_quiet<C: FallibleChildren>(children: C) -> impl FusedFuture<Output = C::Output> {
    resumption::or_here(children.settle(LaterErrors::Ignore))
}

/// Awaits many coroutines at once. When one gives an error, the rest is cancelled; also when this is dropped.
///
/// It gives the values in the same shape and order, or the error that came first in time. (Of errors that were
/// there when it was first polled, it gives the first in order.) Before it gives the error, the coroutines that are left, and those that they await, have ended. It takes [`Coroutine`]s and
/// [`CancelOnDrop`]s; [`start`](super::start()) makes a coroutine of a future.
///
/// ```
/// use std::time::Duration;
/// use waterspout::{Coroutine, IoLoop, coroutine::{sleep, start, try_multi}};
///
/// fn half(n: u64) -> Coroutine<Result<u64, String>> {
///     start(async move {
///         sleep(Duration::from_secs(n)).await;
///         if n % 2 == 0 { Ok(n / 2) } else { Err(format!("{n} is odd")) }
///     })
/// }
///
/// let io_loop = IoLoop::builder().virtual_time().build()?;
/// let begun = io_loop.time();
/// io_loop.run_sync(|| async {
///     assert_eq!(try_multi([half(4), half(2)]).await, Ok([2, 1]));
///     assert_eq!(try_multi((half(4), start(async { Ok("x") }))).await, Ok((2, "x")));
///     let many: Vec<_> = (1..60).map(half).collect();
///     assert_eq!(try_multi(many).await, Err("1 is odd".to_owned()));
/// })?;
/// assert_eq!(io_loop.time() - begun, Duration::from_secs(4 + 4 + 1));
/// assert!(io_loop.coroutines().is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[track_caller]
pub fn try_multi<C: CancellableChildren>(children: C) -> impl FusedFuture<Output = C::Output> {
    resumption::or_here(children.until_error())
}

/// Stores what the child has given whose output came last, at the index that the child has in the input.
fn put<T, F: Future>(values: &mut [Option<T>], children: &WaitIterator<F>, value: T) {
    if let Some(&index) = children.current_index() {
        values[index] = Some(value);
    }
}

/// Awaits all futures, and gives what `keep` makes of each output, in the order of the futures.
async fn wait_for_all<F: Future, T>(
    futures: impl Iterator<Item = F>,
    keep: impl Fn(F::Output) -> T,
) -> Vec<T> {
    let mut running = WaitIterator::new(futures);
    let mut outputs: Vec<Option<T>> = running.empty_values().collect();
    while let Some(output) = running.advance().await {
        put(&mut outputs, &running, keep(output));
    }
    outputs.into_iter().flatten().collect()
}

impl<S> Children for S
where
    S: Shape<Child: Future>,
{
    type Outputs = S::Of<<S::Child as Future>::Output>;

    async fn outputs(self) -> Self::Outputs {
        let (frame, futures) = self.take_apart();
        S::put_together(frame, wait_for_all(futures, |output| output).await)
    }
}

impl<S, F, T, E> FallibleChildren for S
where
    S: Shape<Child = F>,
    F: Future<Output: Fallible<Value = T, Error = E>>,
    E: Debug,
{
    type Output = Result<S::Of<T>, E>;

    async fn settle(self, later_errors: LaterErrors) -> Self::Output {
        let (frame, futures) = self.take_apart();
        let results = wait_for_all(futures, |output| later_errors.keep(output.into_result())).await;
        let mut values = Vec::with_capacity(results.len());
        let mut first = None;
        for held in results.into_iter().filter_map(Kept::take) {
            match held.result {
                Ok(value) => values.push(value),
                Err(error) if first.is_none() => first = Some(error),
                Err(error) => later_errors.tell(&error),
            }
        }
        first.map_or_else(|| Ok(S::put_together(frame, values)), Err)
    }
}

impl<S, F, T, E> CancellableChildren for S
where
    S: Shape<Child = F>,
    F: Cancellable<Output: Fallible<Value = T, Error = E>>,
{
    type Output = Result<S::Of<T>, E>;

    fn until_error(self) -> impl Future<Output = Self::Output> {
        let (frame, coroutines) = self.take_apart();
        // Tied to their handles now, and not in the future below: if that is dropped before it was ever
        // polled, the coroutines would only be detached.
        let mut running = WaitIterator::new(coroutines.map(Cancellable::tied));
        async move {
            let mut values: Vec<Option<T>> = running.empty_values().collect();
            while let Some(output) = running.advance().await {
                put(&mut values, &running, output.into_result()?);
            }
            Ok(S::put_together(frame, values.into_iter().flatten().collect()))
        }
    }
}

/// Implements the traits above for tuples of futures. The children may be of different types; if they give
/// results, these must have one type of error.
macro_rules! tuple {
    ($($F:ident $T:ident $f:ident),*) => {
        impl<$($F),*> Sealed for ($($F,)*) {}

        impl<$($F: Future),*> Children for ($($F,)*) {
            type Outputs = ($($F::Output,)*);

            async fn outputs(self) -> Self::Outputs {
                let ($($f,)*) = self;
                $(let mut $f = pin!(maybe_done($f));)*
                poll_fn(|cx| {
                    let mut is_pending = false;
                    $(is_pending |= $f.as_mut().poll(cx).is_pending();)*
                    if is_pending { Poll::Pending } else { Poll::Ready(()) }
                })
                .await;
                match ($($f.as_mut().take_output(),)*) {
                    ($(Some($f),)*) => ($($f,)*),
                    _ => unreachable!("all have given an output"),
                }
            }
        }

        impl<$($F, $T,)* E> FallibleChildren for ($($F,)*)
        where
            $($F: Future<Output: Fallible<Value = $T, Error = E>>,)*
            E: Debug,
        {
            type Output = Result<($($T,)*), E>;

            async fn settle(self, later_errors: LaterErrors) -> Self::Output {
                let ($($f,)*) = self;
                let children = ($(async move { later_errors.keep($f.await.into_result()) },)*);
                let ($($f,)*) = children.outputs().await;
                let mut first = None;
                $(
                    let $f = match $f.take().map(|held| held.result) {
                        Some(Ok(value)) => Some(value),
                        Some(Err(error)) => {
                            match &first {
                                None => first = Some(error),
                                Some(_) => later_errors.tell(&error),
                            }
                            None
                        }
                        None => None,
                    };
                )*
                match (first, $($f),*) {
                    (None, $(Some($f)),*) => Ok(($($f,)*)),
                    (Some(error), ..) => Err(error),
                    _ => unreachable!("without an error, all have given a value"),
                }
            }
        }

        impl<$($F, $T,)* E> CancellableChildren for ($($F,)*)
        where
            $($F: Cancellable<Output: Fallible<Value = $T, Error = E>>,)*
        {
            type Output = Result<($($T,)*), E>;

            fn until_error(self) -> impl Future<Output = Self::Output> {
                let ($($f,)*) = self;
                // Tied to their handles now, for the same reason as in the implementation for shapes.
                $(let $f = $f.tied();)*
                async move {
                    $(let mut $f = pin!(maybe_done(async move { $f.await.into_result() }));)*
                    poll_fn(|cx| {
                        let mut is_pending = false;
                        $(
                            is_pending |= $f.as_mut().poll(cx).is_pending();
                            if let Some(Err(_)) = $f.as_mut().output_mut() {
                                return Poll::Ready($f.as_mut().take_output().and_then(Result::err));
                            }
                        )*
                        if is_pending { Poll::Pending } else { Poll::Ready(None) }
                    })
                    .await
                    .map_or(Ok(()), Err)?;
                    match ($($f.as_mut().take_output(),)*) {
                        ($(Some(Ok($f)),)*) => Ok(($($f,)*)),
                        _ => unreachable!("without an error, all have given a value"),
                    }
                }
            }
        }
    };
}

tuple!(A TA a, B TB b);
tuple!(A TA a, B TB b, C TC c);
tuple!(A TA a, B TB b, C TC c, D TD d);
tuple!(A TA a, B TB b, C TC c, D TD d, F TF f);
tuple!(A TA a, B TB b, C TC c, D TD d, F TF f, G TG g);
