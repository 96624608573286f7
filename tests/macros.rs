//! What the attributes make of a function, in every form a function can have.
//!
//! The yardstick is the real `async fn`: where a coroutine differs, it is because it starts at once.

mod common;

use std::cell::Cell;
use std::fmt::Display;
use std::future::pending;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use common::{Diary, suspend};
use waterspout::coroutine::{self, CancelOnDrop, sleep};
use waterspout::testing::ExpectLog;
use waterspout::{Coroutine, IoLoop};

fn run<T: 'static>(start: impl FnOnce() -> Coroutine<T>) -> T {
    IoLoop::new().unwrap().run_sync(start).unwrap()
}

/// Writes its name into the diary when it is dropped, like what `Diary::at_end` gives; its type can be
/// written in a signature.
struct Noted(Diary, &'static str);

fn noted(diary: &Diary, name: &'static str) -> Noted {
    Noted(diary.clone(), name)
}

impl Noted {
    fn touch(&self) {}
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.0.write(self.1);
    }
}

// ---------------------------------------------------------------------------------------------
// When it runs
// ---------------------------------------------------------------------------------------------

#[waterspout::coroutine]
async fn write_twice(diary: Diary) -> usize {
    diary.write("before");
    suspend().await;
    diary.write("after");
    2
}

#[test]
fn calling_runs_the_body_to_its_first_suspension() {
    let diary = Diary::new();
    let inside = diary.clone();
    let written = run(move || {
        let coroutine = write_twice(inside.clone());
        assert_eq!(inside.read(), ["before"]);
        coroutine
    });
    assert_eq!(written, 2);
    assert_eq!(diary.read(), ["after"]);
}

#[waterspout::coroutine]
fn no_async_in_the_source(n: u8) -> u8 {
    suspend().await;
    n + 1
}

#[test]
fn a_plain_fn_may_await() {
    assert_eq!(run(|| no_async_in_the_source(1)), 2);
}

#[waterspout::coroutine]
async fn depth(n: u32) -> u32 {
    if n == 0 { 0 } else { depth(n - 1).await + 1 }
}

#[test]
fn a_coroutine_may_call_itself() {
    assert_eq!(run(|| depth(50)), 50);
}

// ---------------------------------------------------------------------------------------------
// How long arguments live
// ---------------------------------------------------------------------------------------------

/// The same function as a coroutine and as an `async fn`, and a test that their diaries agree.
macro_rules! dropped_like_an_async_fn {
    ($name:ident, ($($arg:pat_param),*), $count:literal, $body:expr) => {
        #[test]
        #[allow(unused_variables, unused_mut, clippy::no_effect, clippy::toplevel_ref_arg)]
        fn $name() {
            #[waterspout::coroutine]
            async fn ours($($arg: Tuple),*, diary: Diary) {
                $body;
                suspend().await;
                let local = noted(&diary, "local");
                suspend().await;
            }
            async fn theirs($($arg: Tuple),*, diary: Diary) {
                $body;
                suspend().await;
                let local = noted(&diary, "local");
                suspend().await;
            }
            let diary = Diary::new();
            let arguments = || {
                let numbered = |index| tuple(&diary, index);
                std::array::from_fn::<Tuple, $count, _>(numbered).into_iter()
            };
            let mut given = arguments();
            run(|| call!(ours, given, diary.clone(), $($arg),*));
            let of_ours = diary.read();
            let mut given = arguments();
            let theirs = || call!(theirs, given, diary.clone(), $($arg),*);
            IoLoop::new().unwrap().run_sync(theirs).unwrap();
            let of_theirs = diary.read();
            assert_eq!(of_ours, of_theirs);
            assert_eq!(of_ours.len(), 2 * $count + 1, "{of_ours:?}");
        }
    };
}

macro_rules! call {
    ($function:ident, $arguments:ident, $diary:expr, $($arg:pat_param),*) => {
        $function($(call!(@ $arg, $arguments)),*, $diary)
    };
    (@ $arg:pat_param, $arguments:ident) => { $arguments.next().unwrap() };
}

type Tuple = (Noted, Noted);

fn tuple(diary: &Diary, index: usize) -> Tuple {
    const NAMES: [(&str, &str); 4] = [("1a", "1b"), ("2a", "2b"), ("3a", "3b"), ("4a", "4b")];
    (noted(diary, NAMES[index].0), noted(diary, NAMES[index].1))
}

dropped_like_an_async_fn!(names_that_are_used, (a, b, c), 3, (&a, &b, &c));
dropped_like_an_async_fn!(names_used_in_another_order, (a, b, c), 3, (&c, &a, &b));
dropped_like_an_async_fn!(names_that_are_not_used, (a, b, c), 3, ());
dropped_like_an_async_fn!(a_name_not_used_in_between, (a, b, c), 3, (&a, &c));
dropped_like_an_async_fn!(underscores, (_, _b, _), 3, ());
dropped_like_an_async_fn!(underscores_among_names, (a, _, c, _), 4, (&c, &a));
dropped_like_an_async_fn!(patterns, ((a, b), (c, d)), 2, (&a, &b, &c, &d));
dropped_like_an_async_fn!(patterns_among_names, (a, (b, c), d), 3, (&a, &b, &c, &d));
dropped_like_an_async_fn!(a_pattern_that_leaves_a_part, (a, (b, _), d), 3, (&a, &b, &d));
dropped_like_an_async_fn!(a_pattern_that_borrows, (a, (ref b, _), ref d), 3, (&a, b, d));
dropped_like_an_async_fn!(names_bound_mut, (mut a, mut b, c), 3, (&mut a, &mut b, &c));
dropped_like_an_async_fn!(a_name_moved_away, (a, b, c), 3, (drop(b), &a, &c));
dropped_like_an_async_fn!(a_name_half_moved_away, (a, b, c), 3, (drop(b.1), &a, &c));

#[waterspout::coroutine]
#[allow(unused_variables)]
async fn one_unused(unused: Noted, _unnamed: Noted, _: Noted) {
    pending().await
}

#[test]
fn an_unused_argument_lives_as_long_as_the_coroutine() {
    let diary = Diary::new();
    let inside = diary.clone();
    run(move || {
        one_unused(noted(&inside, "a"), noted(&inside, "b"), noted(&inside, "c"));
        assert_eq!(inside.read(), [""; 0]);
        write_twice(Diary::new())
    });
    // Suspended for ever, it ended with its loop.
    assert_eq!(diary.read(), ["c", "b", "a"]);
}

struct Pair {
    left: Noted,
    right: Noted,
}

impl Pair {
    fn new(diary: &Diary) -> Pair {
        Pair { left: noted(diary, "left"), right: noted(diary, "right") }
    }

    #[waterspout::coroutine]
    async fn use_a_part(self, other: Noted) {
        self.left.touch();
        other.touch();
        suspend().await;
        other.0.write("end");
    }

    async fn use_a_part_async(self, other: Noted) {
        self.left.touch();
        other.touch();
        suspend().await;
        other.0.write("end");
    }

    #[waterspout::coroutine]
    async fn ignore_self(self, other: Noted) {
        suspend().await;
        other.0.write("end");
    }

    #[waterspout::coroutine]
    async fn take_a_part(self) -> Noted {
        suspend().await;
        self.right
    }
}

#[test]
fn self_is_dropped_whole_and_last() {
    let diary = Diary::new();
    let expected = ["end", "other", "left", "right"];
    run(|| Pair::new(&diary).use_a_part(noted(&diary, "other")));
    assert_eq!(diary.read(), expected);
    let theirs = || Pair::new(&diary).use_a_part_async(noted(&diary, "other"));
    IoLoop::new().unwrap().run_sync(theirs).unwrap();
    assert_eq!(diary.read(), expected);
    run(|| Pair::new(&diary).ignore_self(noted(&diary, "other")));
    assert_eq!(diary.read(), expected);
}

#[test]
fn self_can_be_taken_apart() {
    let diary = Diary::new();
    let right = run(|| Pair::new(&diary).take_a_part());
    assert_eq!(diary.read(), ["left"]);
    drop(right);
    assert_eq!(diary.read(), ["right"]);
}

#[test]
fn temporaries_of_the_last_expression_go_before_the_arguments() {
    #[waterspout::coroutine]
    async fn ours(diary: Diary, argument: Noted) -> usize {
        argument.touch();
        noted(&diary, "temporary").1.len()
    }
    let diary = Diary::new();
    assert_eq!(run(|| ours(diary.clone(), noted(&diary, "argument"))), 9);
    assert_eq!(diary.read(), ["temporary", "argument"]);
}

// ---------------------------------------------------------------------------------------------
// What arguments look like
// ---------------------------------------------------------------------------------------------

struct Point {
    x: u8,
    y: u8,
}

#[waterspout::coroutine]
async fn with_patterns(
    (a, b): (u8, u8),
    Point { x, y: mut why }: Point,
    _: u8,
    [first, .., last]: [u8; 4],
    mut sum: u8,
) -> u8 {
    why += 1;
    sum += a + b + x + why;
    suspend().await;
    sum + first + last
}

#[test]
fn arguments_may_be_patterns() {
    let start = || with_patterns((1, 2), Point { x: 3, y: 4 }, 99, [5, 0, 0, 6], 7);
    assert_eq!(run(start), 1 + 2 + 3 + 5 + 5 + 6 + 7);
}

#[waterspout::coroutine]
async fn generic<T, const N: usize>(
    items: [T; N],
    more: impl Iterator<Item = T> + 'static,
) -> Vec<T>
where
    T: Clone + 'static,
{
    let mut all = items.to_vec();
    for item in more {
        suspend().await;
        all.push(item);
    }
    all
}

#[test]
fn functions_may_be_generic() {
    assert_eq!(run(|| generic(["a", "b"], ["c"].into_iter())), ["a", "b", "c"]);
    assert_eq!(run(|| generic::<u8, 0>([], [1, 2].into_iter())), [1, 2]);
}

#[waterspout::coroutine]
async fn static_borrows(text: &'static str, maybe: Option<&'static [u8]>) -> usize {
    suspend().await;
    text.len() + maybe.map_or(0, <[u8]>::len)
}

#[test]
fn static_borrows_are_welcome() {
    assert_eq!(run(|| static_borrows("four", Some(b"five!"))), 9);
}

#[waterspout::coroutine]
async fn as_good_as_static<'a: 'b, 'b, T: 'static>(text: &'a str, part: Option<&'b [T]>) -> usize
where
    'b: 'static,
{
    suspend().await;
    text.len() + part.map_or(0, <[T]>::len)
}

struct Leaked(u8);

impl Leaked {
    #[waterspout::coroutine]
    async fn by_reference(&'static self) -> u8 {
        suspend().await;
        self.0
    }

    #[waterspout::coroutine]
    async fn changed(&'static mut self, to: u8) -> u8 {
        suspend().await;
        std::mem::replace(&mut self.0, to)
    }

    #[waterspout::coroutine]
    async fn by_bound<'a: 'static>(&'a self, other: &'a Leaked) -> u8 {
        suspend().await;
        self.0 + other.0
    }
}

#[test]
fn so_are_lifetimes_that_can_be_nothing_else_and_a_self_of_such() {
    assert_eq!(run(|| as_good_as_static("four", Some(&[1, 2]))), 6);
    let leaked: &Leaked = Box::leak(Box::new(Leaked(5)));
    assert_eq!(run(|| leaked.by_reference()), 5);
    assert_eq!(run(|| leaked.by_bound(leaked)), 10);
    assert_eq!(run(|| Box::leak(Box::new(Leaked(3))).changed(4)), 3);
}

struct Named<'a>(&'a str);

/// The attribute does not see the bound in the first line.
impl<'a: 'static> Named<'a> {
    #[waterspout::coroutine]
    async fn longer(self, other: &'a str) -> usize
    where
        'a: 'static,
    {
        suspend().await;
        self.0.len().max(other.len())
    }
}

#[test]
fn a_lifetime_of_the_impl_is_static_where_the_method_says_so() {
    assert_eq!(run(|| Named("a").longer("bcd")), 3);
}

#[waterspout::coroutine]
async fn callbacks(
    with_str: impl Fn(&str) -> usize + 'static,
    boxed: Box<dyn for<'a> Fn(&'a str) -> &'a str>,
    pointer: fn(&str) -> &str,
) -> usize {
    suspend().await;
    with_str(pointer(boxed("abc ")))
}

#[test]
fn callbacks_may_borrow_from_their_own_callers() {
    assert_eq!(run(|| callbacks(str::len, Box::new(|text| text), str::trim)), 3);
}

#[waterspout::coroutine]
async fn with_cfgs(
    #[cfg(not(any()))] here: u8,
    #[cfg(any())] gone: Missing,
    #[cfg(any())] (c, d): T,
) -> u8 {
    suspend().await;
    here
}

#[test]
fn arguments_keep_their_cfgs() {
    assert_eq!(run(|| with_cfgs(5)), 5);
}

#[waterspout::coroutine]
async fn raw(r#type: u8, r#gen: String) -> String {
    suspend().await;
    format!("{type}{gen}")
}

#[waterspout::coroutine]
async fn r#loop() {}

#[test]
fn raw_names_are_names() {
    assert_eq!(run(|| raw(1, "x".into())), "1x");
    assert_eq!(r#loop().name(), concat!(module_path!(), "::loop"));
}

#[waterspout::coroutine]
async fn only_in_a_format_string(count: u8) -> String {
    suspend().await;
    format!("{count:03}")
}

#[test]
fn arguments_may_be_used_by_format_strings_alone() {
    assert_eq!(run(|| only_in_a_format_string(7)), "007");
}

/// On one line, with braces that look superfluous beside those of the expansion.
#[waterspout::coroutine]
#[rustfmt::skip]
async fn one_line(n: u8) -> u8 { n }

#[test]
fn a_body_may_be_one_expression() {
    assert_eq!(run(|| one_line(1)), 1);
}

// ---------------------------------------------------------------------------------------------
// Methods and traits
// ---------------------------------------------------------------------------------------------

#[derive(Default)]
struct Account {
    balance: Cell<u32>,
}

impl Account {
    #[waterspout::coroutine]
    async fn opened_with(balance: u32) -> Self {
        suspend().await;
        Self { balance: Cell::new(balance) }
    }

    #[waterspout::coroutine]
    async fn deposit(self: Rc<Self>, amount: u32) -> u32 {
        suspend().await;
        self.balance.set(self.balance.get() + amount);
        self.balance.get()
    }

    #[waterspout::coroutine]
    pub(crate) async fn closed(mut self) -> u32 {
        let last = self.balance.take();
        self = Account::default();
        suspend().await;
        last + self.balance.get()
    }

    #[waterspout::coroutine]
    async fn pinned(self: Pin<Box<Self>>) -> u32 {
        suspend().await;
        self.balance.get()
    }

    #[waterspout::engine]
    async fn drain(self: Rc<Self>) {
        suspend().await;
        self.balance.set(0);
    }
}

#[test]
fn methods_own_self_in_any_form() {
    let account = Rc::new(run(|| Account::opened_with(5)));
    assert_eq!(run(|| account.clone().deposit(7)), 12);
    assert_eq!(run(|| Account::pinned(Box::pin(Account { balance: Cell::new(3) }))), 3);
    let account = Rc::into_inner(account).expect("the coroutine is done with its part");
    assert_eq!(run(|| account.closed()), 12);
}

trait Store {
    fn load(self: Rc<Self>, key: String) -> Coroutine<usize>;

    #[waterspout::coroutine]
    async fn size(self: Rc<Self>) -> usize;

    /// A default body needs what the coroutine owns to be `'static`.
    #[waterspout::coroutine]
    async fn twice(self: Rc<Self>) -> usize
    where
        Self: 'static,
    {
        2 * self.size().await
    }
}

struct Shelf<T>(Vec<T>);

impl<T: 'static> Store for Shelf<T> {
    #[waterspout::coroutine]
    async fn load(self: Rc<Self>, key: String) -> usize {
        suspend().await;
        self.0.len() + key.len()
    }

    #[waterspout::coroutine]
    async fn size(self: Rc<Self>) -> usize {
        suspend().await;
        self.0.len()
    }
}

#[test]
fn traits_declare_coroutines_either_way() {
    let shelf = Rc::new(Shelf(vec![(), ()]));
    assert_eq!(run(|| shelf.clone().load("key".into())), 5);
    assert_eq!(run(|| shelf.clone().size()), 2);
    assert_eq!(run(|| shelf.clone().twice()), 4);
}

#[test]
fn such_traits_make_objects() {
    let store: Rc<dyn Store> = Rc::new(Shelf(vec![1, 2, 3]));
    assert_eq!(run(|| store.clone().load("key".into())), 6);
}

// ---------------------------------------------------------------------------------------------
// Results
// ---------------------------------------------------------------------------------------------

#[waterspout::coroutine]
async fn question_mark(text: String) -> Result<u8, Box<dyn std::error::Error>> {
    suspend().await;
    if text.is_empty() {
        return Err("empty".into());
    }
    Ok(text.parse::<u8>()?)
}

#[waterspout::coroutine]
async fn coerced(long: bool) -> Box<dyn Display> {
    if long {
        return Box::new("long");
    }
    suspend().await;
    Box::new(1)
}

#[waterspout::coroutine]
async fn opaque(n: u8) -> std::io::Result<impl Display> {
    suspend().await;
    Ok(n)
}

#[waterspout::coroutine]
async fn generic_error<T: 'static, E: 'static>(result: Result<T, E>) -> Result<T, E> {
    suspend().await;
    Ok(result?)
}

#[waterspout::coroutine]
async fn io(fail: bool) -> std::io::Result<()> {
    suspend().await;
    if fail {
        Err(std::io::ErrorKind::NotFound)?
    }
    Ok(())
}

#[waterspout::coroutine]
async fn unit() -> () {
    suspend().await
}

#[waterspout::coroutine]
async fn never(diary: Diary) -> ! {
    diary.write("here");
    loop {
        suspend().await;
    }
}

#[test]
fn results_are_what_the_signature_says() {
    assert_eq!(run(|| question_mark("5".into())).unwrap(), 5);
    assert!(run(|| question_mark("x".into())).is_err());
    assert_eq!(run(|| question_mark(String::new())).unwrap_err().to_string(), "empty");
    assert_eq!(run(|| coerced(true)).to_string(), "long");
    assert_eq!(run(|| coerced(false)).to_string(), "1");
    assert_eq!(run(|| opaque(3)).unwrap().to_string(), "3");
    assert_eq!(run(|| generic_error(Ok::<u8, Diary>(5))).ok(), Some(5));
    assert!(run(|| io(true)).is_err());
    assert!(run(|| io(false)).is_ok());
    run(unit);
}

#[test]
fn a_coroutine_that_never_returns_starts_like_any_other() {
    let diary = Diary::new();
    drop::<Coroutine<std::convert::Infallible>>(never(diary.clone()));
    assert_eq!(diary.read(), ["here"]);
}

// ---------------------------------------------------------------------------------------------
// Its handle
// ---------------------------------------------------------------------------------------------

#[waterspout::coroutine(cancel_on_drop, name = "tied")]
async fn tied(argument: Noted) -> usize {
    suspend().await;
    argument.0.write("after");
    argument.1.len()
}

#[waterspout::coroutine(cancel_on_drop)]
async fn tied_and_opaque(n: u8) -> impl Display {
    suspend().await;
    n
}

#[waterspout::coroutine(cancel_on_drop)]
fn tied_for_ever<T: 'static>(_kept: T) -> ! {
    pending().await
}

trait Watch {
    #[waterspout::coroutine(cancel_on_drop)]
    async fn watch(self: Rc<Self>) -> usize;
}

impl Watch for Noted {
    #[waterspout::coroutine(cancel_on_drop)]
    async fn watch(self: Rc<Self>) -> usize {
        suspend().await;
        self.1.len()
    }
}

#[waterspout::coroutines]
impl Noted {
    #[coroutine(cancel_on_drop)]
    async fn kept(self) {
        pending().await
    }
}

#[test]
fn a_coroutine_may_be_one_that_ends_with_its_handle() {
    let diary = Diary::new();
    let io_loop = IoLoop::new().unwrap();
    let inside = diary.clone();
    io_loop
        .run_sync(async || {
            let handle: CancelOnDrop<usize> = tied(noted(&inside, "ended"));
            assert_eq!((handle.name(), handle.done()), ("tied", false));
            assert_eq!(inside.read(), [""; 0]);
            drop(handle);
            assert_eq!(inside.read(), ["ended"]);
            assert_eq!(tied(noted(&inside, "ended")).await, 5);
            assert_eq!(inside.read(), ["after", "ended"]);
            assert_eq!(tied_and_opaque(7).await.to_string(), "7");
            drop(tied_for_ever(noted(&inside, "for ever")));
            assert_eq!(Rc::new(noted(&inside, "watched")).watch().await, 7);
            drop(Rc::new(noted(&inside, "no more")).watch());
            drop(noted(&inside, "bare").kept());
            assert_eq!(inside.read(), ["for ever", "watched", "no more", "bare"]);
            // Given away, it goes on as any other does.
            drop(tied(noted(&inside, "detached")).detach());
            assert_eq!(inside.read(), [""; 0]);
            suspend().await;
        })
        .unwrap();
    assert_eq!(diary.read(), ["after", "detached"]);
    assert!(io_loop.coroutines().is_empty());
}

#[waterspout::coroutine(must_use)]
async fn to_be_used(n: u8) -> u8 {
    suspend().await;
    n
}

#[waterspout::coroutine(must_use, name = "reason")]
#[must_use = "for a reason"]
async fn to_be_used_for_a_reason(n: u8) -> u8 {
    to_be_used(n).await
}

/// That a call which is ignored has a warning is in `ui/ignored_handle.rs`.
#[test]
fn a_coroutine_whose_handle_must_be_used_runs_as_any_other() {
    assert_eq!(run(|| to_be_used(1)), 1);
    assert_eq!(run(|| to_be_used_for_a_reason(2)), 2);
}

// ---------------------------------------------------------------------------------------------
// Its name, its attributes
// ---------------------------------------------------------------------------------------------

#[waterspout::coroutine(name = "session")]
async fn named() {}

macro_rules! coroutine_named {
    ($function:ident, $name:literal) => {
        #[waterspout::coroutine(name = $name)]
        async fn $function() {}
    };
}

coroutine_named!(named_by_a_macro, "by a macro");

mod inner {
    #[waterspout::coroutine]
    pub async fn unnamed() {}
}

#[test]
fn a_coroutine_is_named_by_its_path_unless_told_otherwise() {
    assert_eq!(inner::unnamed().name(), concat!(module_path!(), "::inner::unnamed"));
    assert_eq!(named().name(), "session");
    assert_eq!(named_by_a_macro().name(), "by a macro");
}

/// Each in a place of its own, for the lines.
#[derive(Clone, Copy)]
struct Tank<T>(T);

trait Fill {
    #[waterspout::coroutine]
    async fn fill(self: Rc<Self>);

    #[waterspout::coroutine]
    async fn fill_twice(self: Rc<Self>)
    where
        Self: 'static,
    {
        suspend().await;
    }
}

impl<T: 'static> Fill for Tank<T> {
    #[waterspout::coroutine]
    async fn fill(self: Rc<Self>) {}
}

impl Tank<u8> {
    #[waterspout::coroutine]
    async fn drain<F: Fn(u8) + 'static>(self, _by: F) {}

    #[waterspout::coroutine]
    async fn empty() {}

    #[waterspout::coroutine(name = "leak")]
    async fn leak(self) {}
}

#[test]
fn a_method_is_named_with_its_type() {
    let path = |name: &str| format!("{}::{name}", module_path!());
    let tank = Tank(5_u8);
    assert_eq!(tank.drain(|_| ()).name(), path("Tank<u8>::drain"));
    assert_eq!(Tank::empty().name(), path("Tank<u8>::empty"));
    assert_eq!(tank.leak().name(), "leak");
    assert_eq!(Rc::new(Tank("")).fill().name(), path("Tank<&str>::fill"));
    assert_eq!(Rc::new(Tank("")).fill_twice().name(), path("Tank<&str>::fill_twice"));
    assert_eq!(generic([1], [2].into_iter()).name(), path("generic"));
    fn local() -> &'static str {
        #[waterspout::coroutine]
        async fn within() {}
        within().name()
    }
    assert_eq!(local(), path("a_method_is_named_with_its_type::local::within"));
}

#[test]
fn a_coroutine_has_the_place_of_its_call_or_its_own_where_a_library_calls_it() {
    let here = line!() + 1;
    let (started, place) = (write_twice(Diary::new()).info().started_at, (here, 29));
    assert_eq!((started.file(), (started.line(), started.column())), (file!(), place));
    // The standard library calls it in all of these.
    let own = line!() + 2;
    #[waterspout::coroutine]
    async fn session(_: u8) -> Result<(), String> {
        Err("lost".into())
    }
    let by_option = "1".parse().ok().map(session).unwrap();
    let by_iterator = [1].into_iter().map(session).next().unwrap();
    let by_box = (Box::new(session) as Box<dyn Fn(u8) -> Coroutine<Result<(), String>>>)(1);
    let by_trait = call(session);
    fn call<T>(by: impl FnOnce(u8) -> T) -> T {
        by(1)
    }
    for coroutine in [by_option, by_iterator, by_box, by_trait] {
        let started = coroutine.info().started_at;
        assert_eq!((started.file(), started.line()), (file!(), own), "{started}");
    }
    // By a pointer, it is the compiler that says where the function is: there, with its attributes.
    let by_pointer = (session as fn(u8) -> Coroutine<Result<(), String>>)(1);
    let started = by_pointer.info().started_at;
    assert_eq!((started.file(), started.line()), (file!(), own - 1), "{started}");
    // A report says the same.
    let diary = Diary::new();
    let told = diary.clone();
    let io_loop = IoLoop::builder()
        .on_exception(move |exception| told.write(exception.location.unwrap()))
        .build()
        .unwrap();
    io_loop.run_sync(|| async { drop(call(session)) }).unwrap();
    assert_eq!(diary.read(), [format!("{}:{own}:14", file!())]);
}

#[waterspout::coroutine]
#[must_use = "kept"]
#[cfg(not(any()))]
#[track_caller]
#[inline]
async fn kept() -> u8 {
    #![allow(unused_variables)]
    let unused = 5;
    1
}

#[waterspout::coroutine]
#[cfg(any())]
async fn absent() -> Missing {}

/// An attribute was kept if the lint that it silences, or sets off, is.
#[test]
fn attributes_are_kept() {
    #[waterspout::coroutine]
    #[deprecated]
    async fn old() {}
    #[expect(deprecated)]
    drop(old());
    #[expect(unused_must_use)]
    kept();
    fn absent() {}
    absent();
}

// ---------------------------------------------------------------------------------------------
// Out of a `macro_rules!`
// ---------------------------------------------------------------------------------------------

macro_rules! adder {
    ($name:ident, $amount:expr) => {
        #[waterspout::coroutine]
        async fn $name(n: u32, (__arg0, __arg1): (u32, u32), __result: u32) -> u32 {
            let hidden = 1;
            suspend().await;
            n + hidden + $amount + __arg0 + __arg1 + __result
        }
    };
}

adder!(add_ten, 10);

macro_rules! method {
    ($owner:ident, $name:ident, $body:expr) => {
        impl $owner {
            #[waterspout::coroutine]
            async fn $name(self) -> u32 {
                suspend().await;
                $body + self.balance.get()
            }
        }
    };
}

method!(Account, plus_one, 1);

macro_rules! whole_body {
    ($ty:ty, $name:ident, $arg:ident, $body:block) => {
        #[waterspout::coroutine]
        async fn $name($arg: $ty) -> $ty $body
    };
}

whole_body!(u32, doubled, n, { n * 2 });

#[test]
fn macro_rules_may_write_coroutines() {
    assert_eq!(run(|| add_ten(100, (1000, 10_000), 100_000)), 111_111);
    assert_eq!(run(|| Account { balance: Cell::new(4) }.plus_one()), 5);
    assert_eq!(run(|| doubled(4)), 8);
}

// ---------------------------------------------------------------------------------------------
// Bare words
// ---------------------------------------------------------------------------------------------

#[waterspout::coroutines]
mod bare {
    use std::rc::Rc;

    use super::{Diary, suspend};

    #[coroutine]
    pub async fn twice(n: u8) -> u8 {
        suspend().await;
        #[coroutine(name = "add")]
        async fn add(a: u8, b: u8) -> (u8, &'static str) {
            suspend().await;
            (a + b, waterspout::coroutine::current().unwrap().name)
        }
        let (sum, name) = add(n, n).await;
        assert_eq!(name, "add");
        sum
    }

    #[engine]
    pub async fn note(diary: Diary) {
        diary.write("noted");
    }

    #[cfg_attr(all(), coroutine)]
    #[cfg_attr(any(), engine)]
    pub async fn conditional() -> &'static str {
        "conditional"
    }

    /// The longest path needs no help.
    #[waterspout::coroutine]
    pub async fn by_its_path() -> &'static str {
        waterspout::coroutine::current().unwrap().name
    }

    pub mod deeper {
        use super::Rc;

        pub trait Named {
            #[coroutine]
            async fn name(self: Rc<Self>) -> String;
        }

        pub struct One;

        impl Named for One {
            #[coroutine]
            async fn name(self: Rc<Self>) -> String {
                waterspout::coroutine::current().unwrap().name.to_owned()
            }
        }

        impl One {
            #[deprecated = "attributes are kept"]
            #[coroutine]
            pub async fn number(self) -> u8 {
                1
            }
        }
    }
}

struct Bare;

#[waterspout::coroutines]
impl Bare {
    #[coroutine]
    async fn by_value(self, n: u8) -> u8 {
        suspend().await;
        n
    }

    fn plain(&self) -> u8 {
        3
    }
}

#[test]
fn bare_words_make_coroutines_wherever_they_stand_under_coroutines() {
    use bare::deeper::{Named, One};

    assert_eq!(run(|| bare::twice(21)), 42);
    assert_eq!(run(bare::conditional), "conditional");
    assert_eq!(run(bare::by_its_path), "macros::bare::by_its_path");
    assert_eq!(run(|| Named::name(Rc::new(One))), "macros::bare::deeper::One::name");
    #[expect(deprecated, reason = "the attribute has to be there")]
    let number = run(|| One.number());
    assert_eq!(number + run(|| Bare.by_value(2)) + Bare.plain(), 6);
    let diary = Diary::new();
    IoLoop::new().unwrap().run_sync(async || bare::note(diary.clone())).unwrap();
    assert_eq!(diary.read(), ["noted"]);
}

#[test]
fn bare_words_may_come_out_of_a_macro() {
    macro_rules! module {
        ($name:ident, $($item:item)*) => {
            #[waterspout::coroutines(crate = ::waterspout)]
            mod $name { $($item)* }
        };
    }
    macro_rules! under {
        ($item:item) => {
            #[waterspout::coroutines]
            $item
        };
    }
    module! {
        made,
        #[coroutine]
        pub async fn one() -> u8 { 1 }
        #[coroutine]
        pub async fn two() -> u8 { 2 }
    }
    under! {
        mod other {
            #[coroutine]
            pub async fn three() -> u8 { 3 }
        }
    }
    assert_eq!(run(made::one) + run(made::two) + run(other::three), 6);
}

// ---------------------------------------------------------------------------------------------
// Where the crate is
// ---------------------------------------------------------------------------------------------

mod reexports {
    pub use waterspout as spout;
}

#[waterspout::coroutine(crate = "reexports::spout", name = "elsewhere")]
async fn by_another_path(n: u8) -> Result<u8, String> {
    suspend().await;
    Ok(n)
}

#[reexports::spout::engine(crate = crate::reexports::spout)]
async fn engine_by_another_path() -> std::io::Result<()> {
    Ok(())
}

#[waterspout::main(crate = "reexports::spout")]
async fn main_by_another_path() -> u8 {
    by_another_path(5).await.unwrap()
}

#[waterspout::test(crate = "reexports::spout", virtual_time)]
async fn a_crate_may_be_reached_by_another_path() -> Result<(), String> {
    engine_by_another_path();
    let coroutine = by_another_path(5);
    assert_eq!(coroutine.name(), "elsewhere");
    coroutine.await.map(drop)
}

/// What a crate's macro would write for its users, who may not depend on `waterspout` themselves.
macro_rules! coroutine_of_crate {
    ($function:ident) => {
        #[$crate::reexports::spout::coroutine(crate = $crate::reexports::spout)]
        async fn $function() -> u8 {
            5
        }
    };
}

coroutine_of_crate!(by_a_macro);

#[test]
fn a_main_and_a_macro_may_reach_it_so_too() {
    assert_eq!(main_by_another_path(), 5);
    assert_eq!(run(by_a_macro), 5);
}

// ---------------------------------------------------------------------------------------------
// Lints: clippy denies some by default, and warnings where it runs over this project
// ---------------------------------------------------------------------------------------------

#[waterspout::coroutine]
async fn gives_a_coroutine() -> Coroutine<usize> {
    write_twice(Diary::new())
}

#[waterspout::coroutine]
async fn gives_a_future() -> Pin<Box<dyn Future<Output = u8>>> {
    Box::pin(async { 5 })
}

#[waterspout::coroutine]
#[warn(clippy::pedantic)]
async fn underscored(_a: u8, (b, _c): (u8, u8), _d: u8, _: u8) -> u8 {
    suspend().await;
    b
}

#[test]
fn a_coroutine_may_give_another_one() {
    assert_eq!(run(|| coroutine::start(async { gives_a_coroutine().await.await })), 2);
    assert_eq!(run(|| coroutine::start(async { gives_a_future().await.await })), 5);
    assert_eq!(run(|| underscored(1, (2, 3), 4, 5)), 2);
}

// ---------------------------------------------------------------------------------------------
// Engines
// ---------------------------------------------------------------------------------------------

#[waterspout::engine]
async fn note(diary: Diary) {
    diary.write("started");
    suspend().await;
    diary.write("done");
}

#[waterspout::engine(name = "failing")]
async fn failing(diary: Diary) -> std::io::Result<()> {
    suspend().await;
    diary.write("failing");
    Err(std::io::ErrorKind::NotFound)?
}

#[waterspout::engine]
fn forever(diary: Diary) -> ! {
    diary.write("forever");
    pending().await
}

#[waterspout::engine]
async fn generic_engine<E: std::fmt::Debug + 'static>(result: Result<(), E>) -> Result<(), E> {
    suspend().await;
    result
}

#[test]
fn an_engine_returns_nothing_and_runs_on() {
    let diary = Diary::new();
    let inside = diary.clone();
    run(move || {
        let () = note(inside.clone());
        let () = failing(inside.clone());
        let () = forever(inside.clone());
        let () = generic_engine::<u8>(Ok(()));
        assert_eq!(inside.read(), ["started", "forever"]);
        let account = Rc::new(Account { balance: Cell::new(5) });
        account.clone().drain();
        assert_eq!(account.balance.get(), 5);
        write_twice(Diary::new())
    });
    assert_eq!(diary.read(), ["done", "failing"]);
}

// ---------------------------------------------------------------------------------------------
// `main` and `test`
// ---------------------------------------------------------------------------------------------

#[waterspout::main]
async fn main_of_another_name() -> Result<u8, std::num::ParseIntError> {
    suspend().await;
    "5".parse()
}

#[waterspout::main]
async fn main_that_never_returns() -> ! {
    suspend().await;
    panic!("over")
}

mod a_main {
    #[waterspout::main]
    pub async fn main() {
        super::suspend().await;
    }
}

#[test]
fn a_main_blocks_and_returns_what_it_returns() {
    assert_eq!(main_of_another_name(), Ok(5));
    a_main::main();
}

#[waterspout::main(virtual_time)]
async fn main_that_sleeps_for_a_year() -> Instant {
    sleep(Duration::from_secs(365 * 24 * 3600)).await;
    coroutine::now()
}

#[waterspout::main(slow_callback = 0.000_001)]
async fn main_that_is_slow() {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1) {}
}

#[test]
fn a_main_has_a_loop_as_its_options_say() {
    assert!(main_that_sleeps_for_a_year() > Instant::now() + Duration::from_secs(300 * 24 * 3600));
    let told = ExpectLog::new("waterspout::ioloop", "`main` started");
    main_that_is_slow();
    assert!(told.count() >= 1);
}

#[test]
#[should_panic(expected = "over")]
fn a_main_may_never_return() {
    main_that_never_returns();
}

#[waterspout::test]
async fn a_test_may_await() {
    suspend().await;
}

#[waterspout::test(timeout = 10)]
async fn a_test_may_return_a_result() -> Result<(), std::num::ParseIntError> {
    suspend().await;
    "5".parse::<u8>()?;
    Ok(())
}

#[waterspout::test(timeout = 2.5, virtual_time)]
#[should_panic(expected = "as it should")]
async fn a_test_keeps_should_panic() {
    suspend().await;
    panic!("as it should");
}

#[waterspout::test]
#[ignore = "to see that it is kept"]
async fn a_test_keeps_ignore() {
    panic!("ignored");
}
