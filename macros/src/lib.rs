//! The attributes of [`waterspout`](https://docs.rs/waterspout): `#[coroutine]`, `#[engine]`,
//! `#[coroutines]`, `#[main]` and `#[test]`.
//!
//! Use them through `waterspout`, which re-exports them. Each of them but `#[coroutines]` takes an `async fn`
//! and emits a function that hands the body, as one future, to the loop. This crate only rearranges tokens:
//! what a coroutine is, when it starts and who is told of its errors is decided in `waterspout` itself. The
//! code that is emitted calls it `::waterspout`, unless the argument `crate = ".."` gives another path.
//!
//! `expand` writes the new function. For that, `args` reads the arguments of the attribute, `function` reads
//! the function under it, `capture` moves the function's arguments into the coroutine, and `refuse` makes the
//! errors for what cannot be a coroutine. `#[coroutines]` is in `bare`.

use proc_macro::TokenStream;

mod args;
mod bare;
mod capture;
mod expand;
mod function;
mod refuse;

/// Makes a function a coroutine: calling it runs its body at once, up to the first point where it has to
/// wait.
///
/// `async fn f(..) -> T` becomes `fn f(..) -> Coroutine<T>`. The caller may await the `Coroutine<T>`, a
/// handle, for the result, now or later, or drop it. The coroutine runs on either way.
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
/// // In another coroutine, the call `echo(stream);` is all that it takes to run it.
/// ```
///
/// The attribute is written with its path, as Tornado's `@gen.coroutine` is. Within a module or an `impl`
/// block that has the attribute [`#[waterspout::coroutines]`](macro@coroutines), the bare word will do:
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
/// Elsewhere the bare word is an error, however the attribute is imported, since the compiler has an unstable
/// attribute of that name:
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
/// The word `async` may be left out: a plain `fn` whose body awaits will do as well. A function that never
/// returns, `-> !`, becomes one that gives a `Coroutine<Infallible>`.
///
/// # Methods
///
/// A method takes `self` in any form that owns it: `self`, `mut self`, `self: Rc<Self>`. In a trait, put
/// the attribute on the declaration, too, or declare a plain `fn` that returns `Coroutine<T>`. The trait
/// can be used as `dyn Trait`.
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
/// A coroutine outlives the call that starts it, so its arguments are owned or `'static`. A borrowed
/// argument is refused, with a message that says what to write instead. A type parameter needs the bound
/// `'static`. As in an `async fn`, every argument lives until the coroutine ends, used or not, and the
/// last one is dropped first. Unlike in an `async fn`, arguments that are plain names are kept once, not
/// twice, in the coroutine's memory.
///
/// `&'static self` is accepted, too, and so is a lifetime that is `'static` by its bounds, as in `fn f<'a:
/// 'static>(name: &'a str)`. The attribute does not see the bounds of an `impl` around the method: in an
/// `impl<'a: 'static>`, the method has to say `where 'a: 'static` itself.
///
/// # Its handle
///
/// A coroutine runs on when its handle is dropped. With the argument `cancel_on_drop` it is cancelled
/// then: the function returns a `CancelOnDrop<T>`. So when a time limit or a `select!` gives the coroutine
/// up, it is cancelled, with all that it awaits. In a trait, the declaration needs the argument, too.
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
/// With the argument `must_use`, the compiler warns where a caller ignores the handle, as it does for an
/// `async fn`. It is for a coroutine whose result nobody should forget. (With `cancel_on_drop` there is
/// such a warning anyway.) To have another text in the warning, write `#[must_use = "..."]` instead. For
/// methods of a trait, it goes on the declaration, as `#[must_use]` does.
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
///     save(); // the warning is for this: `save().await?` was meant, or `drop(save())`
///     Ok(())
/// }
/// ```
///
/// # Its name, and its place
///
/// Logs and lists of coroutines call it `module::path::function`, or `module::path::Type::method`;
/// `#[waterspout::coroutine(name = "session")]` gives it another name. With the name they tell where the
/// function was called. If the standard library has called it, as in `names.into_iter().map(fetch)`, they
/// tell where the function is declared.
///
/// # Other attributes
///
/// Other attributes stay on the function, which is no `async fn` any more. The exception are those that
/// wrap the body of an `async fn`, `#[tracing::instrument]` and `#[fastrace::trace]`: wherever they stand,
/// they are expanded before this one. Otherwise their span would cover only the first step of the
/// coroutine. They are recognized by the words `instrument` and `trace`; other attributes of that kind
/// have to stand above this one.
///
/// # Where the crate is
///
/// If your program calls the crate by another name, or has it from another crate, say so:
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
/// A macro of another crate can write `crate = $crate::path::to::waterspout`. All attributes here take this
/// argument.
#[proc_macro_attribute]
pub fn coroutine(args: TokenStream, item: TokenStream) -> TokenStream {
    expand::coroutine(args.into(), item.into()).into()
}

/// Makes a function a coroutine that nobody awaits: calling it starts its body and returns `()`.
///
/// It is `#[coroutine]` without the handle, and takes the arguments `name` and `crate` as that does. The
/// function is declared to return `()`, `!`, or `Result<(), E>` with an `E` that is `Debug`. Since nobody
/// awaits it, an error goes to the loop's exception handler, as a panic does.
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

/// Makes an `async fn main` a plain `main` that runs it on a loop of its own, and returns what it returns.
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
/// It takes these arguments:
///
/// * `slow_callback = 0.1`: logs a warning when a callback or a coroutine runs for more than so many seconds
///   without waiting, and so keeps all others from running; see `Builder::slow_callback`.
/// * `virtual_time`: the loop's clock jumps to the next timer when there is nothing else to do, for
///   simulations; see `Builder::virtual_time`.
/// * `crate = "path::to::waterspout"`: where the crate is; see `#[coroutine]`.
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
/// It is short for the following. Write that yourself if you need something else of the `Builder`: to be told
/// of what fails in the background (by default it is logged, or written to standard error if there is no
/// logger), another executor, or several loops.
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
/// The function takes no arguments and has no generics. It may have any name: on another function, the
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
/// It takes these arguments:
///
/// * `timeout = 10.0`: fails the test after so many seconds, with a list of the coroutines that are stuck,
///   and where. By default the limit is the number of seconds in the environment variable
///   `ASYNC_TEST_TIMEOUT`, or else 5 seconds. In virtual time the seconds are virtual, and the limit is
///   100 days by default, whatever the environment says.
/// * `virtual_time`: the loop's clock stands still while anything can run, and then jumps to the next
///   timer, unless something outside of the loop holds it; see `Builder::virtual_time`. While it is held,
///   it goes with the real clock, and so does the limit. So put `with_timeout` around waiting for a child
///   process, or the test hangs as long as the child does.
/// * `allow_exceptions`: does not fail the test if something has failed in the background.
/// * `crate = "path::to::waterspout"`: where the crate is; see `#[coroutine]`.
///
/// The test also fails by a panic of a callback or a coroutine that nobody awaits, and by the `Err` of a
/// `#[coroutine]` that nobody awaits, unless it allows or expects (by an `ExpectLog`) such failures; see the
/// module `waterspout::testing`.
///
/// The test may return `()` or a `Result`, and keeps other attributes, such as `#[should_panic]` and
/// `#[ignore]`.
#[proc_macro_attribute]
pub fn test(args: TokenStream, item: TokenStream) -> TokenStream {
    expand::test(args.into(), item.into()).into()
}

/// Lets functions and methods in a module, an `impl` or a `trait` have the attributes `#[coroutine]` and
/// `#[engine]` without a path.
///
/// ```
/// use std::rc::Rc;
/// use waterspout::{IoLoop, coroutine::moment};
///
/// struct Counter;
///
/// #[waterspout::coroutines]
/// impl Counter {
///     /// This is the same as `#[waterspout::coroutine(name = "count")]`.
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
/// It writes the path before each of these bare words, at any depth, also within `cfg_attr`, and does
/// nothing else: see [`macro@coroutine`] and [`macro@engine`] for all that they take and refuse. Nothing
/// has to be imported. What stands in the brackets of a macro call, or of a `macro_rules!`, is left as it
/// is: there the attributes need their path. If it is a module, its body has to be in the same file, since
/// the compiler does not show an attribute the body in another file.
///
/// It takes the argument `crate = "path::to::waterspout"`, as the others do, and passes it on to them.
#[proc_macro_attribute]
pub fn coroutines(args: TokenStream, item: TokenStream) -> TokenStream {
    bare::coroutines(args.into(), item.into()).into()
}
