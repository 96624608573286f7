//! What the attributes refuse, and what they say to write instead.
//!
//! A coroutine outlives the call that starts it, so its arguments have to be owned or `'static`. The compiler
//! would refuse others, too, but with long errors about the code that is emitted. So every borrow that can be
//! seen in the tokens is found here, and refused with an error that points at it and says what to write.

use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::{
    FnArg, GenericParam, Generics, Lifetime, ReceiverKind, Signature, Type, WherePredicate,
    visit::{self, Visit},
};

use crate::function::bare;

/// The errors that were found. They are collected, so that the user sees all of them at once.
#[derive(Default)]
pub(crate) struct Refusals(Vec<syn::Error>);

impl Refusals {
    pub(crate) fn push(&mut self, at: impl ToTokens, message: impl std::fmt::Display) {
        self.0.push(syn::Error::new_spanned(at, message));
    }

    pub(crate) fn unless_ok<T>(&mut self, result: syn::Result<T>) -> Option<T> {
        result.map_err(|error| self.0.push(error)).ok()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The tokens to emit: the errors and, unless `without_item`, the item. It is left out if it returns an
    /// `impl Trait`: there is no stand-in for a body that fits that, so that it would only add another error.
    pub(crate) fn beside(self, item: TokenStream, without_item: bool) -> TokenStream {
        let item = if without_item { TokenStream::new() } else { item };
        let errors = self.0.into_iter().map(syn::Error::into_compile_error);
        quote!(#(#errors)* #item)
    }
}

/// Refuses functions that are `const`, `extern` or variadic, which cannot run on a loop.
pub(crate) fn refuse_qualifiers(attribute: &str, sig: &Signature, refusals: &mut Refusals) {
    if let Some(token) = &sig.constness {
        let message = format!("a `{attribute}` function cannot be `const`: it needs a loop to run");
        refusals.push(token, message);
    }
    if let Some(abi) = &sig.abi {
        let message =
            format!("a `{attribute}` function cannot be `extern`: it is called from Rust");
        refusals.push(abi, message);
    }
    if let Some(variadic) = &sig.variadic {
        refusals.push(variadic, format!("a `{attribute}` function cannot be variadic"));
    }
}

const OUTLIVES: &str = "a coroutine outlives the call that starts it, so it cannot";

/// Refuses arguments that borrow something, and lifetimes for which something could be borrowed.
pub(crate) fn refuse_borrows(sig: &Signature, refusals: &mut Refusals) {
    let before = refusals.len();
    let all_static = all_static(&sig.generics);
    for input in &sig.inputs {
        let mut find = FindBorrows::new(refusals, &all_static);
        match input {
            FnArg::Typed(argument) => find.visit_type(&argument.ty),
            FnArg::Receiver(receiver) => match &receiver.kind {
                ReceiverKind::Reference(_, lifetime, _) if find.is_allowed(lifetime.as_ref()) => {}
                ReceiverKind::Reference(and, lifetime, mutability) => {
                    let this = &receiver.self_token;
                    let written = quote!(#and #lifetime #mutability #this);
                    refusals.push(&written, borrowed(&written, own_self(mutability.is_some())));
                }
                ReceiverKind::Typed(_, ty) => find.visit_type(ty),
                _ => {}
            },
        }
    }
    if refusals.len() > before {
        return;
    }
    // No argument borrows for these lifetimes, so it cannot be told what they are for, and the message is a
    // general one. It is left out above if a borrow was refused, whose message is more to the point.
    for param in &sig.generics.params {
        if let GenericParam::Lifetime(param) = param {
            let lifetime = &param.lifetime;
            if all_static.contains(&lifetime.ident) {
                continue;
            }
            let message = format!(
                "{OUTLIVES} be generic over the lifetime `{lifetime}`: take what is owned or `'static`"
            );
            refusals.push(lifetime, message);
        }
    }
}

/// The lifetime parameters of the function that must be `'static`, since they have a bound that is
/// `'static`, or another lifetime that must be.
fn all_static(generics: &Generics) -> Vec<Ident> {
    let of_params = generics.params.iter().filter_map(|param| match param {
        GenericParam::Lifetime(param) => Some((&param.lifetime, &param.bounds)),
        _ => None,
    });
    let predicates = generics.where_clause.iter().flat_map(|clause| &clause.predicates);
    let of_predicates = predicates.filter_map(|predicate| match predicate {
        WherePredicate::Lifetime(predicate) => Some((&predicate.lifetime, &predicate.bounds)),
        _ => None,
    });
    let bounds: Vec<_> = of_params.chain(of_predicates).collect();
    let mut found: Vec<Ident> = Vec::new();
    loop {
        let is_static = |bound: &Lifetime| bound.ident == "static" || found.contains(&bound.ident);
        let next = bounds.iter().find(|(lifetime, bounds)| {
            !found.contains(&lifetime.ident) && bounds.iter().any(is_static)
        });
        match next {
            Some((lifetime, _)) => found.push(lifetime.ident.clone()),
            None => return found,
        }
    }
}

fn borrowed(borrow: impl ToTokens, instead: String) -> String {
    format!("{OUTLIVES} hold the borrow `{}`: write {instead} instead", written(borrow))
}

/// Refuses all borrows in an argument's type, at any depth.
struct FindBorrows<'r> {
    refusals: &'r mut Refusals,
    /// Lifetimes that are allowed, since nothing of the caller's is borrowed for them: those that must be
    /// `'static`, and those that a `for<..>` around the current type declares.
    allowed: Vec<Ident>,
    /// Whether the current type is in the signature of a function within the argument's type, as the
    /// `&str` in `Box<dyn Fn(&str)>`. A lifetime that is not written there is that of a call of this
    /// function.
    in_signature: bool,
}

impl<'r> FindBorrows<'r> {
    fn new(refusals: &'r mut Refusals, all_static: &[Ident]) -> FindBorrows<'r> {
        FindBorrows { refusals, allowed: all_static.to_vec(), in_signature: false }
    }

    /// Whether a borrow for this lifetime (`None` if it is not written) may be held by a coroutine.
    fn is_allowed(&self, lifetime: Option<&Lifetime>) -> bool {
        match lifetime {
            None => self.in_signature,
            Some(lifetime) if lifetime.ident == "_" => self.in_signature,
            Some(lifetime) => lifetime.ident == "static" || self.allowed.contains(&lifetime.ident),
        }
    }

    fn in_signature(&mut self, visit: impl FnOnce(&mut Self)) {
        let outside = std::mem::replace(&mut self.in_signature, true);
        visit(self);
        self.in_signature = outside;
    }

    fn in_binder(&mut self, binder: Option<&syn::BoundLifetimes>, visit: impl FnOnce(&mut Self)) {
        let outside = self.allowed.len();
        let params = binder.iter().flat_map(|binder| &binder.lifetimes);
        self.allowed.extend(params.filter_map(|param| match param {
            GenericParam::Lifetime(param) => Some(param.lifetime.ident.clone()),
            _ => None,
        }));
        visit(self);
        self.allowed.truncate(outside);
    }
}

impl<'ast> Visit<'ast> for FindBorrows<'_> {
    fn visit_type_reference(&mut self, reference: &'ast syn::TypeReference) {
        if self.is_allowed(reference.lifetime.as_ref()) {
            self.visit_type(&reference.elem);
        } else {
            self.refusals.push(reference, borrowed(reference, own(reference)));
        }
    }

    fn visit_lifetime(&mut self, lifetime: &'ast Lifetime) {
        if !self.is_allowed(Some(lifetime)) {
            let message = format!(
                "{OUTLIVES} hold what borrows for `{lifetime}`: write a type that owns its data, or `'static`"
            );
            self.refusals.push(lifetime, message);
        }
    }

    fn visit_type_fn_ptr(&mut self, pointer: &'ast syn::TypeFnPtr) {
        self.in_binder(pointer.lifetimes.as_ref(), |this| {
            this.in_signature(|this| {
                pointer.inputs.iter().for_each(|input| this.visit_type(&input.ty));
                this.visit_return_type(&pointer.output);
            });
        });
    }

    fn visit_parenthesized_generic_arguments(
        &mut self,
        arguments: &'ast syn::ParenthesizedGenericArguments,
    ) {
        self.in_signature(|this| visit::visit_parenthesized_generic_arguments(this, arguments));
    }

    fn visit_trait_bound(&mut self, bound: &'ast syn::TraitBound) {
        self.in_binder(bound.lifetimes.as_ref(), |this| this.visit_path(&bound.path));
    }

    // The length of an array is an expression. What looks like a lifetime in it is the label of a loop.
    fn visit_expr(&mut self, _: &'ast syn::Expr) {}
}

/// What the message says to write instead of a reference.
fn own(reference: &syn::TypeReference) -> String {
    let is_mut = reference.mutability.is_some();
    let target = bare(&reference.elem);
    let name = written(target);
    match target {
        Type::Path(path) if path.path.is_ident("Self") => own_self(is_mut),
        Type::Slice(slice) => {
            let item = written(&slice.elem);
            if is_mut {
                format!("`Vec<{item}>`")
            } else {
                format!("`Vec<{item}>` or `Rc<[{item}]>`")
            }
        }
        Type::TraitObject(_) if is_mut => format!("`Box<{name}>`"),
        Type::TraitObject(_) => format!("`Box<{name}>` or `Rc<{name}>`"),
        Type::ImplTrait(_) => format!("`{name} + 'static`"),
        Type::Path(path) => match path.path.segments.last().map(|last| last.ident.to_string()) {
            Some(last) if last == "str" && is_mut => "`String`".to_string(),
            Some(last) if last == "str" => "`String` or `&'static str`".to_string(),
            Some(last) if last == "Path" => "`PathBuf`".to_string(),
            Some(last) if last == "OsStr" => "`OsString`".to_string(),
            Some(last) if last == "CStr" => "`CString`".to_string(),
            _ => own_sized(&name, is_mut),
        },
        _ => own_sized(&name, is_mut),
    }
}

fn own_sized(name: &str, is_mut: bool) -> String {
    match is_mut {
        true => format!("`{name}`, or `Rc<RefCell<{name}>>` to share it,"),
        false => format!("`{name}` or `Rc<{name}>`"),
    }
}

fn own_self(is_mut: bool) -> String {
    match is_mut {
        true => "`self: Rc<Self>`, with what changes in a `Cell` or `RefCell`,".to_string(),
        false => "`self: Rc<Self>`".to_string(),
    }
}

/// The tokens of a type as a person would write them. (`TokenStream` prints a space between any two tokens.)
fn written(tokens: impl ToTokens) -> String {
    let mut text = String::new();
    write_into(&mut text, tokens.to_token_stream());
    text
}

fn write_into(text: &mut String, tokens: TokenStream) {
    let mut arrow = false;
    for token in tokens {
        match token {
            TokenTree::Punct(punct) => match punct.as_char() {
                ',' | ';' => text.push_str(&format!("{punct} ")),
                '+' | '=' => text.push_str(&format!(" {punct} ")),
                '-' => {
                    text.push_str(" -");
                    arrow = true;
                }
                '>' if arrow => {
                    text.push_str("> ");
                    arrow = false;
                }
                '\'' | '&' if text.ends_with(|last: char| is_wordy(last)) => {
                    text.push_str(&format!(" {punct}"));
                }
                other => text.push(other),
            },
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::None => ("", ""),
                };
                if text.ends_with("mut") {
                    text.push(' ');
                }
                text.push_str(open);
                write_into(text, group.stream());
                text.push_str(close);
            }
            word => {
                if text.ends_with(|last: char| is_wordy(last) || last == '>') {
                    text.push(' ');
                }
                text.push_str(&word.to_string());
            }
        }
    }
    text.truncate(text.trim_end().len());
}

fn is_wordy(last: char) -> bool {
    last.is_alphanumeric() || last == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many errors there are for one argument of this type.
    fn refusals_of(ty: TokenStream) -> usize {
        let mut refusals = Refusals::default();
        let sig = syn::parse2(quote!(fn f(x: #ty))).expect("a signature");
        refuse_borrows(&sig, &mut refusals);
        refusals.len()
    }

    #[test]
    fn every_borrow_in_a_type_is_found() {
        assert_eq!(refusals_of(quote!(&u8)), 1);
        assert_eq!(refusals_of(quote!((&u8, [&'a u8; 2], *const &u8))), 3);
        assert_eq!(refusals_of(quote!(Option<Box<&mut T>>)), 1);
        assert_eq!(refusals_of(quote!(Foo<'_, 'a>)), 2);
        assert_eq!(refusals_of(quote!(Box<dyn Trait + '_>)), 1);
        assert_eq!(refusals_of(quote!(impl Trait<'a> + 'static)), 1);
        assert_eq!(refusals_of(quote!(impl Iterator<Item = &u8>)), 1);
        assert_eq!(refusals_of(quote!(Box<dyn Fn(&'a str)>)), 1);
        assert_eq!(refusals_of(quote!(fn(&'a str))), 1);
    }

    #[test]
    fn what_borrows_nothing_of_the_callers_is_let_through() {
        for ty in [
            quote!(&'static str),
            quote!(&'static [&'static str]),
            quote!(Cow<'static, str>),
            quote!(Box<dyn Fn(&str) -> &str>),
            quote!(Box<dyn for<'a> Fn(&'a str, &'_ u8) -> Foo<'a>>),
            quote!(for<'a> fn(&'a str, &u8) -> &'a str),
            quote!(impl for<'a> Trait<'a> + 'static),
            quote!(
                [u8; {
                    'a: loop {
                        break 'a 5;
                    }
                }]
            ),
        ] {
            assert_eq!(refusals_of(ty.clone()), 0, "{ty}");
        }
    }

    #[test]
    fn a_lifetime_that_is_static_by_its_bounds_is_static() {
        let refusals = |sig: TokenStream| {
            let mut refusals = Refusals::default();
            refuse_borrows(&syn::parse2(sig).expect("a signature"), &mut refusals);
            refusals.len()
        };
        assert_eq!(refusals(quote!(fn f<'a: 'static>(x: &'a u8, y: Foo<'a>))), 0);
        assert_eq!(refusals(quote!(fn f<'a>(x: &'a u8) where 'a: 'static)), 0);
        assert_eq!(refusals(quote!(fn f<'a: 'b, 'b: 'c, 'c>(x: &'a u8) where 'c: 'b + 'static)), 0);
        assert_eq!(refusals(quote!(fn f<'a: 'static>(&'a self, x: u8))), 0);
        assert_eq!(refusals(quote!(fn f(&'static mut self))), 0);
        assert_eq!(refusals(quote!(fn f(self: &'static Self))), 0);
        assert_eq!(refusals(quote!(fn f<'a: 'static, 'b: 'a, 'c>(x: &'c u8, y: &'b u8))), 1);
        assert_eq!(refusals(quote!(fn f<'a: 'b, 'b: 'a>(x: &'a u8, y: &'b u8))), 2);
        assert_eq!(refusals(quote!(fn f<'a: 'static>(&self, x: &'a u8))), 1);
        assert_eq!(refusals(quote!(fn f<'a>(x: u8))), 1);
    }

    #[test]
    fn types_are_written_as_people_write_them() {
        for ty in [
            "&'a mut [u8]",
            "Option<&Vec<(u8, &str)>>",
            "&(dyn Fn(&str) -> u8 + Send)",
            "Box<dyn for<'a> Fn(&'a str) -> &'a str>",
            "&[[u8; 4]; N]",
            "&<T as std::ops::Deref>::Target",
            "impl Iterator<Item = &'static str> + '_",
            "*const T",
        ] {
            let parsed: Type = syn::parse_str(ty).unwrap();
            assert_eq!(written(&parsed), ty);
        }
    }
}
