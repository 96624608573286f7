//! `multi`: awaiting many at once.
//!
//! There are two forms, for the compiler cannot choose between them by what a future gives. [`multi`]
//! awaits results: one error makes an error of the whole, as an exception does in Tornado.
//! [`multi_outputs`] awaits anything, and gives the outputs as they are.
//!
//! Children wake their own place in a [`WaitIterator`], so the cost is linear in their number
//! however many they are.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::future::poll_fn;
use std::hash::{BuildHasher, Hash};
use std::panic::Location;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use futures::StreamExt;
use futures::future::{FusedFuture, maybe_done};

use super::{CancelOnDrop, Coroutine, WaitIterator};
use crate::ground::error::ExcInfo;
use crate::ground::foreign;
use crate::ground::kept::Kept;
use crate::ground::report::{self, Exception};
use crate::ground::resumption;

/// What [`multi_outputs`] awaits: a vector, an array, a map or a tuple of futures.
pub trait Children {
    /// The same shape of outputs.
    type Outputs;

    /// Awaits all.
    #[doc(hidden)]
    fn outputs(self) -> impl Future<Output = Self::Outputs>;
}

/// What [`multi`] awaits: a vector, an array, a map or a tuple of futures that give results.
pub trait FallibleChildren {
    /// The same shape of values, or the first error.
    type Output;

    /// Awaits all.
    #[doc(hidden)]
    fn settle(self, others: Others) -> impl Future<Output = Self::Output>;
}

/// What each future gives that [`multi`] awaits: a [`Result`] whose error is `Debug`, so that it can be
/// logged.
#[diagnostic::on_unimplemented(
    message = "`multi` awaits futures that give results, and this one gives `{Self}`",
    label = "gives `{Self}`, which is no `Result`",
    note = "`coroutine::multi_outputs` awaits futures that cannot fail, and gives their outputs as they are"
)]
pub trait Fallible {
    /// What is in an `Ok`.
    type Value;
    /// What is in an `Err`.
    type Error: Debug;

    /// The result that it is.
    #[doc(hidden)]
    fn into_result(self) -> Result<Self::Value, Self::Error>;
}

impl<T, E: Debug> Fallible for Result<T, E> {
    type Value = T;
    type Error = E;

    fn into_result(self) -> Result<T, E> {
        self
    }
}

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
/// Gives their values in order, or the error that came first in time.
///
/// ```
/// use std::time::Duration;
/// use waterspout::{IoLoop, coroutine::{sleep, start, try_multi}};
///
/// let io_loop = IoLoop::builder().virtual_time().build()?;
/// let result = io_loop.run_sync(|| {
///     try_multi((1..4u64).map(|n| {
///         start(async move {
///             sleep(Duration::from_secs(n)).await;
///             if n == 2 { Err(n) } else { Ok(n) }
///         })
///     }))
/// })?;
/// assert_eq!(result, Err(2));
/// assert!(io_loop.coroutines().is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[track_caller]
pub fn try_multi<T, E>(
    children: impl IntoIterator<Item = Coroutine<Result<T, E>>>,
) -> TryMulti<T, E> {
    let running = WaitIterator::new(children.into_iter().map(Coroutine::cancel_on_drop));
    let values = running.places().collect();
    TryMulti { running: Some(running), values }
}

/// Awaits coroutines until one gives an error; from [`try_multi`]. It borrows nothing of what gave the
/// coroutines.
#[must_use = "dropping it cancels the coroutines"]
#[derive(Debug)]
pub struct TryMulti<T, E> {
    /// Until it is done.
    running: Option<WaitIterator<CancelOnDrop<Result<T, E>>>>,
    values: Vec<Option<T>>,
}

impl<T, E> Future for TryMulti<T, E> {
    type Output = Result<Vec<T>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(running) = &mut this.running else { return Poll::Pending };
        let error = loop {
            match ready!(running.poll_next_unpin(cx)) {
                Some(Ok(value)) => put(&mut this.values, running, value),
                Some(Err(error)) => break Some(error),
                None => break None,
            }
        };
        // What is left is cancelled, which runs destructors, before the error is given.
        this.running = None;
        let values = std::mem::take(&mut this.values);
        Poll::Ready(error.map_or_else(|| Ok(values.into_iter().flatten().collect()), Err))
    }
}

impl<T, E> FusedFuture for TryMulti<T, E> {
    fn is_terminated(&self) -> bool {
        self.running.is_none()
    }
}

// Nothing in it is pinned in place.
impl<T, E> Unpin for TryMulti<T, E> {}

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

async fn all_outputs<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    wait_for_all(futures, |output| output).await
}

/// Awaits all and keeps the values, or the first error in order.
async fn settle_all<F, T, E>(futures: impl Iterator<Item = F>, others: Others) -> Result<Vec<T>, E>
where
    F: Future<Output: Fallible<Value = T, Error = E>>,
    E: Debug,
{
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
    first.map_or(Ok(values), Err)
}

fn into_array<T, const N: usize>(values: Vec<T>) -> [T; N] {
    match values.try_into() {
        Ok(values) => values,
        Err(_) => unreachable!("all have given a value"),
    }
}

impl<F: Future> Children for Vec<F> {
    type Outputs = Vec<F::Output>;

    fn outputs(self) -> impl Future<Output = Self::Outputs> {
        all_outputs(self.into_iter())
    }
}

impl<F, T, E> FallibleChildren for Vec<F>
where
    F: Future<Output: Fallible<Value = T, Error = E>>,
    E: Debug,
{
    type Output = Result<Vec<T>, E>;

    fn settle(self, others: Others) -> impl Future<Output = Self::Output> {
        settle_all(self.into_iter(), others)
    }
}

impl<F: Future, const N: usize> Children for [F; N] {
    type Outputs = [F::Output; N];

    async fn outputs(self) -> Self::Outputs {
        into_array(all_outputs(self.into_iter()).await)
    }
}

impl<F, T, E, const N: usize> FallibleChildren for [F; N]
where
    F: Future<Output: Fallible<Value = T, Error = E>>,
    E: Debug,
{
    type Output = Result<[T; N], E>;

    async fn settle(self, others: Others) -> Self::Output {
        settle_all(self.into_iter(), others).await.map(into_array)
    }
}

impl<K, F, S> Children for HashMap<K, F, S>
where
    K: Eq + Hash,
    F: Future,
    S: BuildHasher + Default,
{
    type Outputs = HashMap<K, F::Output, S>;

    async fn outputs(self) -> Self::Outputs {
        let (keys, futures): (Vec<K>, Vec<F>) = self.into_iter().unzip();
        keys.into_iter().zip(all_outputs(futures.into_iter()).await).collect()
    }
}

impl<K, F, T, E, S> FallibleChildren for HashMap<K, F, S>
where
    K: Eq + Hash,
    F: Future<Output: Fallible<Value = T, Error = E>>,
    E: Debug,
    S: BuildHasher + Default,
{
    type Output = Result<HashMap<K, T, S>, E>;

    async fn settle(self, others: Others) -> Self::Output {
        let (keys, futures): (Vec<K>, Vec<F>) = self.into_iter().unzip();
        let values = settle_all(futures.into_iter(), others).await?;
        Ok(keys.into_iter().zip(values).collect())
    }
}

impl<K: Ord, F: Future> Children for BTreeMap<K, F> {
    type Outputs = BTreeMap<K, F::Output>;

    async fn outputs(self) -> Self::Outputs {
        let (keys, futures): (Vec<K>, Vec<F>) = self.into_iter().unzip();
        keys.into_iter().zip(all_outputs(futures.into_iter()).await).collect()
    }
}

impl<K, F, T, E> FallibleChildren for BTreeMap<K, F>
where
    K: Ord,
    F: Future<Output: Fallible<Value = T, Error = E>>,
    E: Debug,
{
    type Output = Result<BTreeMap<K, T>, E>;

    async fn settle(self, others: Others) -> Self::Output {
        let (keys, futures): (Vec<K>, Vec<F>) = self.into_iter().unzip();
        let values = settle_all(futures.into_iter(), others).await?;
        Ok(keys.into_iter().zip(values).collect())
    }
}

/// Tuples of futures of different kinds; where they give results, with one type of error.
macro_rules! tuple {
    ($($F:ident $T:ident $f:ident),*) => {
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
    };
}

tuple!(A TA a, B TB b);
tuple!(A TA a, B TB b, C TC c);
tuple!(A TA a, B TB b, C TC c, D TD d);
tuple!(A TA a, B TB b, C TC c, D TD d, F TF f);
tuple!(A TA a, B TB b, C TC c, D TD d, F TF f, G TG g);
