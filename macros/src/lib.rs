//! The attributes of [`waterspout`](https://docs.rs/waterspout): `#[coroutine]`, `#[engine]`,
//! `#[coroutines]`, `#[main]` and `#[test]`.
//!
//! Each but `#[coroutines]` takes an `async fn` and hands its body, as one future, to the loop. They decide
//! nothing at run time: what a coroutine is, when it starts and who hears of its errors is written
//! in `waterspout` itself, and what stands here only rearranges tokens. Use them through
//! `waterspout`, which re-exports them. The code they emit names `::waterspout`, unless the argument
//! `crate = ".."` says where else that is.
//!
//! `expand` writes the new function. It has `args` to read what stands in an attribute's parentheses,
//! `function` to read the function under it, `capture` to move the arguments into the coroutine and
//! `refuse` to say what cannot be. `#[coroutines]` is in `bare`.

use proc_macro::TokenStream;

mod args;
mod bare;
mod capture;
mod expand;
mod function;
mod refuse;

/// Makes a function a coroutine: calling it runs its body at once, up to the first suspension.
///
/// `async fn f(..) -> T` becomes `fn f(..) -> Coroutine<T>`. The caller may await the
/// `Coroutine<T>` for the result, now or later, or drop it; the coroutine runs on either way.
///
/// ```
/// use waterspout::net::TcpStream;
///
/// #[waterspout::coroutine]
/// async fn echo(stream: TcpStream) -> std::io::Result<()> {
///     let mut buf = vec![0; 4096];
///     loop {
///         let n = stream.read(&mut buf).await?;
///         if n == 0 {
///             return Ok(());
///         }
///         stream.write_all(&buf[..n]).await?;
///     }
/// }
///
/// // In another coroutine: `echo(stream);` and it runs.
/// ```
///
/// It is written with its path, as Tornado's `@gen.coroutine` is. Under
/// [`#[waterspout::coroutines]`](macro@coroutines), on a module or an `impl` block, the bare word will do:
///
/// ```
/// #[waterspout::coroutines]
/// mod service {
///     #[coroutine]
///     pub async fn answer() -> u8 {
///         42
///     }
/// }
/// ```
///
/// Elsewhere the compiler keeps the bare word for an unstable attribute of its own, however ours is
/// imported, and says:
///
/// ```text
/// error[E0659]: `coroutine` is ambiguous
///   = note: ambiguous because of a name conflict with a builtin attribute
///   = note: `coroutine` could refer to a built-in attribute
/// error[E0658]: the `#[coroutine]` attribute is an experimental feature
/// error: `#[coroutine]` attribute cannot be used on functions
///   = help: `#[coroutine]` can only be applied to closures
/// ```
///
/// Where no `async` is wanted in the source, a plain `fn` whose body awaits does as well. A
/// function that never returns, `-> !`, becomes a `Coroutine<Infallible>`.
///
/// # Methods
///
/// A method takes `self` in any form that owns: `self`, `mut self`, `self: Rc<Self>`. In a trait
/// the attribute goes on the declaration too, or the declaration spells `Coroutine<T>`; the trait
/// stays usable as `dyn Trait`.
///
/// ```
/// use std::rc::Rc;
///
/// trait Store {
///     #[waterspout::coroutine]
///     async fn load(self: Rc<Self>, key: String) -> Option<Vec<u8>>;
/// }
///
/// struct Nothing;
///
/// impl Store for Nothing {
///     #[waterspout::coroutine]
///     async fn load(self: Rc<Self>, _key: String) -> Option<Vec<u8>> {
///         None
///     }
/// }
/// ```
///
/// # Arguments
///
/// A coroutine outlives the call that started it, so its arguments are owned or `'static`; a
/// borrowed one is refused with a message that says what to write instead, and a type parameter
/// needs the bound `'static`. As in an `async fn`, every argument lives until the coroutine ends,
/// used or not, and the last is dropped first. Unlike in an `async fn`, arguments that are plain
/// names are kept once, not twice, in the coroutine's memory.
///
/// A `self` may be any that is owned or `'static`, so `&'static self` will do; and so will a lifetime
/// that its bounds make `'static`, as in `fn f<'a: 'static>(name: &'a str)`. Bounds of the `impl` are out of
/// the attribute's sight: a method in an `impl<'a: 'static>` says `where 'a: 'static` itself.
///
/// # Its handle
///
/// A coroutine runs on when its handle is dropped. Under `cancel_on_drop` it ends with it: the function
/// returns a `CancelOnDrop<T>`, so that a time limit, or a `select!`, cancels what it gives up, with all that
/// this awaits. In a trait the declaration says so, too.
///
/// ```
/// use std::time::Duration;
/// use waterspout::{IoLoop, coroutine::{sleep, with_timeout}};
///
/// #[waterspout::coroutine(cancel_on_drop)]
/// async fn fetch() -> String {
///     sleep(Duration::from_secs(60)).await;
///     "late".to_owned()
/// }
///
/// let io_loop = IoLoop::builder().virtual_time().build()?;
/// let limited = io_loop.run_sync(|| with_timeout(Duration::from_secs(1), fetch()))?;
/// assert!(limited.is_err());
/// assert!(io_loop.coroutines().is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Under `must_use` the compiler warns where a call ignores the handle, as for an `async fn`, whose body
/// would not even run then. It is for a coroutine whose result nobody should forget. (That of
/// `cancel_on_drop` has the warning anyway.) For another text of the warning, write
/// `#[must_use = "..."]` instead. On methods of a trait it goes on the declaration, as `#[must_use]` does.
///
/// ```compile_fail
/// #![deny(unused_must_use)]
///
/// #[waterspout::coroutine(must_use)]
/// async fn save() -> std::io::Result<()> {
///     Ok(())
/// }
///
/// #[waterspout::coroutine]
/// async fn leave() -> std::io::Result<()> {
///     save(); // forgotten: `save().await?` was meant, or `drop(save())`
///     Ok(())
/// }
/// ```
///
/// # Its name, and its place
///
/// Logs and snapshots call the coroutine `module::path::function`, or `module::path::Type::method`;
/// `#[waterspout::coroutine(name = "session")]` gives it another name. Beside that they say where it
/// was called. If the standard library has called it, as in `names.into_iter().map(fetch)`, they say
/// where the function is.
///
/// # Other attributes
///
/// They stay on the function, which is no `async fn` any more. Those that wrap the body of one,
/// `#[tracing::instrument]` and `#[fastrace::trace]`, are put before this one wherever they stand, so
/// that the span covers all of the coroutine and not its first step only. They are known by the words
/// `instrument` and `trace`: another attribute of that kind has to stand above this one.
///
/// # Where the crate is
///
/// A program that calls the crate by another name, or has it from another crate, says so:
///
/// ```
/// mod reexports {
///     pub use waterspout as spout;
/// }
///
/// #[reexports::spout::coroutine(crate = "reexports::spout")]
/// async fn answer() -> u8 {
///     42
/// }
/// ```
///
/// A macro of another crate can write `crate = $crate::path::to::waterspout`. All attributes take
/// this argument.
#[proc_macro_attribute]
pub fn coroutine(args: TokenStream, item: TokenStream) -> TokenStream {
    expand::coroutine(args.into(), item.into()).into()
}

/// Makes a function a coroutine that nobody awaits: calling it runs its body and returns `()`.
///
/// It is `#[coroutine]` without the handle, and takes `name` and `crate` as that does. The function returns
/// `()`, `!` or `Result<(), E>` with an `E` that is `Debug`: nobody awaits the error, so it goes to
/// the loop's exception handler, as a panic does.
///
/// ```
/// use std::{rc::Rc, time::Duration};
/// use waterspout::coroutine::sleep;
/// # struct Peer;
/// # impl Peer { async fn ping(&self) -> std::io::Result<()> { Ok(()) } }
///
/// #[waterspout::engine(name = "heartbeat")]
/// async fn beat(peer: Rc<Peer>) -> std::io::Result<()> {
///     loop {
///         peer.ping().await?;
///         sleep(Duration::from_secs(30)).await;
///     }
/// }
/// ```
#[proc_macro_attribute]
pub fn engine(args: TokenStream, item: TokenStream) -> TokenStream {
    expand::engine(args.into(), item.into()).into()
}

/// Makes an `async fn main` the program: runs it on a loop of its own and returns what it returns.
///
/// ```
/// use std::time::Duration;
///
/// #[waterspout::main]
/// async fn main() -> std::io::Result<()> {
///     waterspout::coroutine::sleep(Duration::from_millis(10)).await;
///     Ok(())
/// }
/// ```
///
/// * `slow_callback = 0.1`: what takes more seconds than that before it waits, and so keeps all others
///   waiting, is told of in the log; see `Builder::slow_callback`.
/// * `virtual_time`: the loop's clock jumps to the next timer when nothing else is to be done, for
///   simulations; see `Builder::virtual_time`.
/// * `crate = "path::to::waterspout"`: where the crate is, see `#[coroutine]`.
///
/// ```
/// use std::time::Duration;
///
/// #[waterspout::main(virtual_time)]
/// async fn main() {
///     waterspout::coroutine::sleep(Duration::from_secs(3600)).await; // takes no time
/// }
/// ```
///
/// It stands for this, which a program writes itself that wants something else of the `Builder`: to hear of
/// what fails in the background (which is logged otherwise, or written to standard error where there is
/// no logger), another executor, or to run several loops.
///
/// ```
/// use waterspout::IoLoop;
///
/// # async fn serve() -> std::io::Result<()> { Ok(()) }
/// fn main() -> std::io::Result<()> {
///     let io_loop = IoLoop::builder()
///         .on_exception(|exception| eprintln!("told to somebody: {exception}"))
///         .build()?;
///     let output = io_loop.run_sync(serve)?; // `#[main]` panics if the loop is stopped
///     io_loop.close(); // which drops what still runs
///     output
/// }
/// ```
///
/// The function takes no arguments and has no generics. Its name is free: on another function the
/// attribute makes a plain `fn` that blocks until the body is done.
#[proc_macro_attribute]
pub fn main(args: TokenStream, item: TokenStream) -> TokenStream {
    expand::main(args.into(), item.into()).into()
}

/// Makes an `async fn` a test that runs on a loop of its own.
///
/// ```
/// use std::time::Duration;
/// use waterspout::coroutine::sleep;
///
/// #[waterspout::test]
/// async fn sleeping_takes_a_while() {
///     sleep(Duration::from_millis(1)).await;
/// }
///
/// // An hour, in no time at all.
/// #[waterspout::test(virtual_time)]
/// async fn sleeping_takes_an_hour() {
///     sleep(Duration::from_secs(3600)).await;
/// }
/// ```
///
/// * `timeout = 10.0`: fails the test after so many seconds, with a list of what is stuck, and where.
///   Without it the limit is the number in the environment variable `ASYNC_TEST_TIMEOUT`, or 5
///   seconds. In virtual time the seconds are virtual ones, and without this argument the limit is 100
///   days, whatever the environment says.
/// * `virtual_time`: the loop's clock stands still while anything can run, then jumps to the next
///   timer, unless something outside holds it; see `Builder::virtual_time`. While it is held it is as
///   slow as the real one, and so is the limit: a test that waits for a child has `with_timeout` around
///   that, or it hangs as long as the child does.
/// * `allow_exceptions`: passes the test although something failed in the background.
/// * `crate = "path::to::waterspout"`: where the crate is, see `#[coroutine]`.
///
/// A panic of a callback or a coroutine that nobody awaits, and the `Err` of a `#[coroutine]` that
/// nobody awaits, fail the test as well, unless it allows them or expects them by an `ExpectLog`; see
/// the module `waterspout::testing`.
///
/// The test may return `()` or a `Result`, and keeps its other attributes: `#[should_panic]`,
/// `#[ignore]`.
#[proc_macro_attribute]
pub fn test(args: TokenStream, item: TokenStream) -> TokenStream {
    expand::test(args.into(), item.into()).into()
}

/// Lets functions and methods in a module, an `impl` or a `trait` be called `#[coroutine]` and
/// `#[engine]`, without a path.
///
/// ```
/// use std::rc::Rc;
/// use waterspout::{IoLoop, coroutine::moment};
///
/// struct Counter;
///
/// #[waterspout::coroutines]
/// impl Counter {
///     /// It is a `#[waterspout::coroutine(name = "count")]`.
///     #[coroutine(name = "count")]
///     async fn count(self: Rc<Self>, to: u32) -> u32 {
///         for _ in 0..to {
///             moment().await;
///         }
///         to
///     }
/// }
///
/// #[waterspout::coroutines]
/// mod service {
///     #[coroutine]
///     pub async fn answer() -> u32 {
///         42
///     }
///
///     #[engine]
///     pub async fn beat() {}
/// }
///
/// # let counted =
/// IoLoop::new()?.run_sync(|| async {
///     service::beat();
///     Rc::new(Counter).count(3).await + service::answer().await
/// })?;
/// # assert_eq!(counted, 45);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// It writes the path before each bare word, at any depth, also within `cfg_attr`, and does nothing else:
/// what [`macro@coroutine`] and [`macro@engine`] take and refuse holds for those. Nothing has to be
/// imported for them. What is in a macro's brackets, a `macro_rules!` among them, is left as it is: there
/// they need their path. A module has its body in the same file, for the compiler hands over no other.
///
/// It takes `crate = "path::to::waterspout"`, as the others do, and passes it on.
#[proc_macro_attribute]
pub fn coroutines(args: TokenStream, item: TokenStream) -> TokenStream {
    bare::coroutines(args.into(), item.into()).into()
}
