//! `multi`: awaiting many at once.
//!
//! There are three forms. [`multi`] awaits results: one error makes an error of the whole, as an exception
//! does in Tornado, but only when all are done. [`try_multi`] awaits coroutines that give results, and
//! cancels the rest at the first error. [`multi_outputs`] awaits anything, and gives the outputs as they are.
//! (The compiler could not choose between them by what a future gives.) All keep the [`Shape`] of what they
//! are given.
//!
//! Children wake their own place in a [`WaitIterator`], so the cost is linear in their number
//! however many they are.

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

/// What [`multi_outputs`] awaits: a vector, an array, a map or a tuple of futures.
#[diagnostic::on_unimplemented(
    message = "`multi_outputs` cannot await all of `{Self}`",
    label = "not a vector, an array, a map or a tuple of two to six futures"
)]
pub trait Children: Sealed {
    /// The same shape of outputs.
    type Outputs;

    /// Awaits all.
    #[doc(hidden)]
    fn outputs(self) -> impl Future<Output = Self::Outputs>;
}

/// What [`multi`] awaits: a vector, an array, a map or a tuple of futures that give results.
#[diagnostic::on_unimplemented(
    message = "`multi` cannot await all of `{Self}`",
    label = "not a vector, an array, a map or a tuple of two to six futures that give results with one \
             type of error"
)]
pub trait FallibleChildren: Sealed {
    /// The same shape of values, or the first error.
    type Output;

    /// Awaits all.
    #[doc(hidden)]
    fn settle(self, others: Others) -> impl Future<Output = Self::Output>;
}

/// What [`try_multi`] awaits: a vector, an array, a map or a tuple of coroutines that give results.
#[diagnostic::on_unimplemented(
    message = "`try_multi` cannot await all of `{Self}`",
    label = "not a vector, an array, a map or a tuple of two to six coroutines that give results with one \
             type of error"
)]
pub trait CancellableChildren: Sealed {
    /// The same shape of values, or the first error.
    type Output;

    /// Awaits all, or the first error. Dropping what this gives cancels them, even if it was never polled.
    #[doc(hidden)]
    fn until_error(self) -> impl Future<Output = Self::Output>;
}

/// What each future gives that [`multi`] or [`try_multi`] awaits: a [`Result`].
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

    /// The result that it is.
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

/// What [`try_multi`] can cancel: a [`Coroutine`], tied to its handle or not.
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

/// Keeps the traits above to what stands here.
pub trait Sealed {}

impl<S: Shape> Sealed for S {}
impl<T, E> Sealed for Result<T, E> {}
impl<T> Sealed for Coroutine<T> {}
impl<T> Sealed for CancelOnDrop<T> {}

/// What happens to the errors after the first.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub enum Others {
    Log(&'static Location<'static>),
    Ignore,
}

impl Others {
    fn tell(self, error: &impl Debug) {
        if let Others::Log(location) = self {
            let error = foreign::debug(error);
            report::error(
                report::APPLICATION,
                format_args!("one more error of multi at {location}: {error}"),
            );
        }
    }

    /// Keeps what a child has given until all have: the others may never.
    fn keep<T, E: Debug>(self, result: Result<T, E>) -> Kept<Held<T, E>> {
        let failure = |held: &Held<T, E>| match (&held.result, held.others) {
            (Err(error), Others::Log(location)) => Some(Exception {
                what: "multi, which was dropped",
                name: None,
                location: Some(location),
                info: ExcInfo::error(foreign::debug(error)),
            }),
            _ => None,
        };
        Kept::new(Held { result, others: self }, failure)
    }
}

/// What a child has given, and what is to be said of it if it is an error.
struct Held<T, E> {
    result: Result<T, E>,
    others: Others,
}

/// Awaits all children at once and gives their values in the same shape and order. Tornado:
/// `gen.multi`, or yielding a list or a dict.
///
/// The children give results. For those that cannot fail there is [`multi_outputs`].
///
/// It waits for *all* of them, also after an error, and then gives the first error in the order of
/// the input; the others are logged. Nothing to wait for is done at once. Dropping it drops the
/// children, which detaches those that are [`Coroutine`]s: it is as cancel safe as they are.
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
    resumption::or_here(children.settle(Others::Log(Location::caller())))
}

/// Awaits all children at once and gives their outputs, as they are, in the same shape and order.
/// Tornado: `gen.multi` of coroutines that raise nothing.
///
/// An output may be a result, but an `Err` is no more than that here: nobody is told of it, and it ends
/// nothing. Nothing to wait for is done at once. A panic of a child goes on in whoever awaits this, at once.
/// Dropping it drops the children, which detaches those that are [`Coroutine`]s, and the outputs that are
/// there already: it is as cancel safe as they are.
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
    resumption::or_here(children.settle(Others::Ignore))
}

/// Awaits coroutines until one gives an error; the rest is cancelled then, and when this is dropped.
///
/// Gives their values in the same shape and order, or the error that came first in time. The coroutines that
/// are left then, and what they await, have ended before the error is given. It takes [`Coroutine`]s and
/// [`CancelOnDrop`]s; [`start`](super::start()) makes one of a future. It borrows nothing of what gave them.
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

/// Keeps what a child has given in its place.
fn put<T, F: Future>(values: &mut [Option<T>], children: &WaitIterator<F>, value: T) {
    if let Some(&index) = children.current_index() {
        values[index] = Some(value);
    }
}

/// Awaits all, and keeps what `keep` makes of each output.
async fn wait_for_all<F: Future, T>(
    futures: impl Iterator<Item = F>,
    keep: impl Fn(F::Output) -> T,
) -> Vec<T> {
    let mut running = WaitIterator::new(futures);
    let mut outputs: Vec<Option<T>> = running.places().collect();
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

    async fn settle(self, others: Others) -> Self::Output {
        let (frame, futures) = self.take_apart();
        let results = wait_for_all(futures, |output| others.keep(output.into_result())).await;
        let mut values = Vec::with_capacity(results.len());
        let mut first = None;
        for held in results.into_iter().filter_map(Kept::take) {
            match held.result {
                Ok(value) => values.push(value),
                Err(error) if first.is_none() => first = Some(error),
                Err(error) => others.tell(&error),
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
        // Tied at once: what is never polled would detach them.
        let mut running = WaitIterator::new(coroutines.map(Cancellable::tied));
        async move {
            let mut values: Vec<Option<T>> = running.places().collect();
            while let Some(output) = running.advance().await {
                put(&mut values, &running, output.into_result()?);
            }
            Ok(S::put_together(frame, values.into_iter().flatten().collect()))
        }
    }
}

/// Tuples of futures of different kinds; where they give results, with one type of error.
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

            async fn settle(self, others: Others) -> Self::Output {
                let ($($f,)*) = self;
                let children = ($(async move { others.keep($f.await.into_result()) },)*);
                let ($($f,)*) = children.outputs().await;
                let mut first = None;
                $(
                    let $f = match $f.take().map(|held| held.result) {
                        Some(Ok(value)) => Some(value),
                        Some(Err(error)) => {
                            match &first {
                                None => first = Some(error),
                                Some(_) => others.tell(&error),
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
                // Tied at once: what is never polled would detach them.
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
