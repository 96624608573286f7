//! What a coroutine is called.
//!
//! A coroutine that was given no name is called after the type of its future. The compiler's name of that
//! type contains the path of the function that made the future, and the type that the function is a method
//! of. But it is made to be exact, and not to be read: `<app::Shelf<u8> as
//! app::Store>::load::{{closure}}`. Here it is turned into what a person would write,
//! `app::Shelf<u8>::load`.

use std::collections::HashMap;
use std::panic::Location;
use std::sync::{Mutex, PoisonError};

/// The name of a type, as a person would write it.
pub(crate) fn name_of<F: ?Sized>() -> &'static str {
    /// The readable names, by the compiler's. They are leaked, since a name is a `&'static str`; there is one
    /// for each type, so that this comes to an end.
    static NAMES: Mutex<Option<HashMap<&'static str, &'static str>>> = Mutex::new(None);
    let exact = std::any::type_name::<F>();
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let readable = || match readable(exact) {
        same if same == exact => exact,
        readable => readable.leak(),
    };
    names.get_or_insert_default().entry(exact).or_insert_with(readable)
}

/// Leaves out of a type's name what tells the blocks of a function apart (`{{closure}}`), the traits of
/// methods, and the type arguments of functions.
fn readable(exact: &str) -> String {
    let mut text = String::new();
    let mut rest = exact;
    while let Some(first) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("::{{closure}}") {
            rest = after;
            continue;
        }
        if first != '<' {
            text.push(first);
            // The `>` of an arrow closes no bracket.
            if let Some(after) = rest.strip_prefix("->") {
                text.push('>');
                rest = after;
            } else {
                rest = &rest[first.len_utf8()..];
            }
            continue;
        }
        let (inside, after) = bracketed(rest);
        rest = after;
        let segment = text.rsplit(|c: char| !is_wordy(c)).next().unwrap_or_default();
        match segment.chars().next() {
            // `<Type as Trait>`
            None => text.push_str(&readable(without_trait(inside))),
            Some(first) if first.is_lowercase() => {}
            Some(_) => {
                text.push('<');
                text.push_str(&readable(inside));
                text.push('>');
            }
        }
    }
    text
}

/// Splits text that begins with an opening bracket: gives what is between that and the bracket that closes
/// it, and what comes after.
fn bracketed(text: &str) -> (&str, &str) {
    let end = (1..text.len()).find(|at| text.as_bytes()[*at] == b'>' && depth(&text[..=*at]) == 0);
    end.map_or((&text[1..], ""), |end| (&text[1..end], &text[end + 1..]))
}

/// `Type` of `Type as Trait`.
fn without_trait(inside: &str) -> &str {
    let mut indices = inside.match_indices(" as ").map(|(at, _)| at);
    indices.find(|at| depth(&inside[..*at]) == 0).map_or(inside, |at| &inside[..at])
}

/// How many brackets are open at the end of the text. The `>` of an arrow closes none.
fn depth(text: &str) -> usize {
    let closed = text.matches('>').count() - text.matches("->").count();
    text.matches('<').count() - closed
}

fn is_wordy(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether this is a line of the standard library. That is so where the standard library calls a function
/// that it was given, as `Option::map` does, or calls one by way of a trait.
pub(crate) fn is_of_std(place: &Location<'_>) -> bool {
    let file = place.file();
    ["core", "alloc", "std"].iter().any(|name| file.contains(&format!("/library/{name}/src/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_people_write_them() {
        for (exact, name) in [
            ("app::echo::{{closure}}", "app::echo"),
            ("app::test::{{closure}}::{{closure}}::inner::{{closure}}", "app::test::inner"),
            ("app::Tank::fill::{{closure}}", "app::Tank::fill"),
            ("app::Shelf<u8>::load::{{closure}}", "app::Shelf<u8>::load"),
            ("<app::Shelf<u8> as app::Store<i8>>::load::{{closure}}", "app::Shelf<u8>::load"),
            ("app::generic<alloc::vec::Vec<u8>, 3>::{{closure}}", "app::generic"),
            ("app::f<fn(u8) -> u8, [u8; 2]>::{{closure}}", "app::f"),
            ("<<app::A as app::B>::C as app::D>::f", "app::A::C::f"),
            ("<fn(&str) -> u8 as app::Call<u8>>::call::{{closure}}", "fn(&str) -> u8::call"),
            (
                "core::pin::Pin<alloc::boxed::Box<dyn core::future::future::Future<Output = ()>>>",
                "core::pin::Pin<alloc::boxed::Box<dyn core::future::future::Future<Output = ()>>>",
            ),
            (
                "util::Map<app::echo::{{closure}}, app::main::{{closure}}>",
                "util::Map<app::echo, app::main>",
            ),
            ("()", "()"),
            ("", ""),
            // No compiler writes these, but none of them may panic.
            ("a<b", "a"),
            ("A<B", "A<B>"),
            ("a->", "a->"),
        ] {
            assert_eq!(readable(exact), name);
        }
    }

    #[test]
    fn a_type_has_one_name() {
        let future = async {};
        fn of<F>(_: &F) -> &'static str {
            name_of::<F>()
        }
        let name = concat!(module_path!(), "::a_type_has_one_name");
        assert_eq!(of(&future), name);
        assert!(std::ptr::eq(of(&future), of(&future)));
    }

    #[test]
    fn a_place_in_the_standard_library_is_nobodys() {
        #[track_caller]
        fn here(_: u8) -> &'static Location<'static> {
            Location::caller()
        }
        assert!(!is_of_std(here(0)));
        assert!(is_of_std("0".parse().ok().map(here).unwrap()));
        assert!(is_of_std([0].into_iter().map(here).next().unwrap()));
    }
}
