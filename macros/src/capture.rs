//! How a function's arguments move into its coroutine.
//!
//! An `async move` block captures the variables that it mentions. All arguments have to move in, used or
//! not, so the block begins with a statement for each that mentions it. There are two kinds of these:
//!
//! * In place: `let _ = &x;` captures `x`, and the body uses the captured variable itself. A block drops its
//!   captured variables after its locals, in the order in which it has mentioned them. Arguments should be
//!   dropped last one first, so these statements stand in reverse order. An argument in place is in the
//!   coroutine's memory once; an `async fn` keeps each twice, as it was captured and as the local to which it
//!   is moved.
//! * As a local: `let x = x;`, which is what an `async fn` does. A pattern needs that, since it binds
//!   names of its own. So does an argument that the body does not mention: as a local it has the
//!   compiler's warning that it is unused, but in place, `&x` would count as a use.
//!
//! Locals are dropped before what is captured, and the last argument has to be dropped first. So from the
//! first argument on that must be a local, all are.

use proc_macro2::{Group, Ident, Span, TokenStream, TokenTree};
use quote::quote;
use syn::{
    Attribute, FnArg, Pat, PatIdent, PatType, Signature, Token, ext::IdentExt, parse_quote,
    punctuated::Punctuated, visit::Visit,
};

/// A function's arguments, on their way into its coroutine.
pub(crate) struct Arguments {
    /// The arguments for the signature that is emitted. Each has a name: patterns are replaced by names.
    pub(crate) inputs: Punctuated<FnArg, Token![,]>,
    /// The statements at the beginning of the block, which move the arguments into the coroutine.
    pub(crate) bindings: Vec<TokenStream>,
}

impl Arguments {
    pub(crate) fn of(sig: &Signature, body: Option<&Group>, refused: bool) -> Arguments {
        let mut inputs = sig.inputs.clone();
        let mut bindings = Vec::new();
        // A declaration has no block, and the compiler allows no patterns in it.
        let Some(body) = body else { return Arguments { inputs, bindings } };
        let in_place = match refused {
            true => 0,
            false => inputs.iter().take_while(|input| !needs_a_local(input, body)).count(),
        };
        let mut hidden = Hidden::default();
        for (index, input) in inputs.iter_mut().enumerate() {
            bindings.push(match input {
                FnArg::Receiver(receiver) => {
                    let this = receiver.self_token;
                    quote!(let _ = &#this;)
                }
                FnArg::Typed(argument) => bind(argument, &mut hidden, index < in_place),
            });
        }
        bindings[..in_place].reverse();
        Arguments { inputs, bindings }
    }
}

/// The names that arguments get which are patterns, and so have no name. Documentation shows these names, so
/// each is made of the names in the pattern. They cannot clash with names in the user's code, since they have
/// another hygiene (`Span::mixed_site`).
#[derive(Default)]
struct Hidden(Vec<String>);

impl Hidden {
    /// A name for this pattern that no other argument has got.
    fn name(&mut self, pattern: &Pat) -> Ident {
        struct Names(Vec<String>);
        impl<'ast> Visit<'ast> for Names {
            fn visit_pat_ident(&mut self, pattern: &'ast PatIdent) {
                let name = pattern.ident.unraw().to_string();
                if !self.0.contains(&name) {
                    self.0.push(name);
                }
                syn::visit::visit_pat_ident(self, pattern);
            }

            // Names within a constant in a pattern are not bound by the pattern.
            fn visit_expr(&mut self, _: &'ast syn::Expr) {}
            fn visit_expr_const(&mut self, _: &'ast syn::ExprConst) {}
        }
        let mut names = Names(Vec::new());
        names.visit_pat(pattern);
        let base = names.0.join("_");
        let nth = |n: usize| match (&*base, n) {
            ("", _) => format!("_{n}"),
            (_, 1) => base.clone(),
            _ => format!("{base}{n}"),
        };
        let is_free = |name: &String| {
            // If the pattern has one name, that may be a keyword without its `r#`, which is no identifier.
            !self.0.contains(name) && syn::parse_str::<Ident>(name).is_ok()
        };
        let name = (1..).map(nth).find(is_free).expect("one of so many is free");
        self.0.push(name.clone());
        Ident::new(&name, Span::mixed_site())
    }
}

/// Makes the argument one that the emitted signature can have, and gives the statement that moves it into the
/// coroutine.
fn bind(argument: &mut PatType, hidden: &mut Hidden, in_place: bool) -> TokenStream {
    let hidden = match plain_name(&argument.pat) {
        Some(name) => name.clone(),
        None => hidden.name(&argument.pat),
    };
    let cfgs: Vec<_> = argument.attrs.iter().filter(|attr| is_cfg(attr)).cloned().collect();
    if in_place {
        if let Pat::Wild(_) = *argument.pat {
            *argument.pat = parse_quote!(#hidden);
        }
        let name = plain_name(&argument.pat).unwrap_or(&hidden);
        let lint = allow_underscore(name);
        return quote!(#(#cfgs)* #lint let _ = &#name;);
    }
    // Lint levels on the argument, such as `#[allow(unused)]`, are meant for the local.
    let (lints, kept) = std::mem::take(&mut argument.attrs).into_iter().partition(is_lint);
    let lints: Vec<Attribute> = lints;
    argument.attrs = kept;
    match plain_name(&argument.pat).cloned() {
        Some(name) => {
            // `mut` moves to the local, too.
            let inside = std::mem::replace(&mut *argument.pat, parse_quote!(#name));
            let lint = allow_underscore(&name);
            quote!(#(#cfgs)* #(#lints)* #lint let #inside = #name;)
        }
        None => {
            let inside = std::mem::replace(&mut *argument.pat, parse_quote!(#hidden));
            // Two statements: the first makes the whole argument a local. A pattern may bind only a part
            // of it, and the rest has to be dropped with the locals as well.
            let lint = allow_underscore(&hidden);
            let moved = quote!(#(#cfgs)* #lint let #hidden = #hidden;);
            match inside {
                Pat::Wild(_) => moved,
                inside => quote!(#moved #(#cfgs)* #(#lints)* let #inside = #hidden;),
            }
        }
    }
}

/// Keeps clippy from warning that a name with an underscore is used: the statements here only mention it.
fn allow_underscore(name: &Ident) -> Option<TokenStream> {
    let allow = quote! {
        #[allow(clippy::used_underscore_binding, clippy::no_effect_underscore_binding)]
    };
    name.to_string().starts_with('_').then_some(allow)
}

/// Whether the argument must be a local, and cannot be captured in place.
fn needs_a_local(input: &FnArg, body: &Group) -> bool {
    let FnArg::Typed(argument) = input else { return false };
    match (&*argument.pat, plain_name(&argument.pat)) {
        (Pat::Wild(_), _) => false,
        (_, Some(name)) => !name.to_string().starts_with('_') && !mentions(body.stream(), name),
        (_, None) => true,
    }
}

/// The name in a pattern that is just a name, `mut` or not.
fn plain_name(pattern: &Pat) -> Option<&Ident> {
    match pattern {
        Pat::Ident(PatIdent { by_ref: None, subpat: None, ident, .. }) => Some(ident),
        _ => None,
    }
}

/// Whether the word stands anywhere in the tokens, or in a literal, which may be a format string. If the word
/// means something else there, the only harm is that the warning about an unused argument is missing.
fn mentions(tokens: TokenStream, word: &Ident) -> bool {
    let unraw = word.unraw().to_string();
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == *word,
        TokenTree::Group(group) => mentions(group.stream(), word),
        TokenTree::Literal(literal) => literal.to_string().contains(&unraw),
        TokenTree::Punct(_) => false,
    })
}

fn is_cfg(attr: &Attribute) -> bool {
    attr.path().is_ident("cfg") || attr.path().is_ident("cfg_attr")
}

fn is_lint(attr: &Attribute) -> bool {
    ["allow", "expect", "warn", "deny", "forbid"].iter().any(|level| attr.path().is_ident(level))
}

#[cfg(test)]
mod tests {
    use quote::ToTokens;

    use super::*;

    #[test]
    fn an_argument_without_a_name_is_called_by_the_names_in_it() {
        let names = |arguments: TokenStream| {
            let sig: Signature = syn::parse2(quote!(fn f(#arguments))).expect("a signature");
            let body = Group::new(proc_macro2::Delimiter::Brace, TokenStream::new());
            let inputs = Arguments::of(&sig, Some(&body), false).inputs;
            let pattern = |input: &FnArg| match input {
                FnArg::Typed(argument) => argument.pat.to_token_stream().to_string(),
                FnArg::Receiver(_) => "self".to_string(),
            };
            inputs.iter().map(pattern).collect::<Vec<_>>()
        };
        assert_eq!(names(quote!(self, a: A, (b, c): B)), ["self", "a", "b_c"]);
        assert_eq!(names(quote!(Point { x, y: [ref why, ..] }: P)), ["x_why"]);
        assert_eq!(names(quote!(_: A, mut a: A, _: A)), ["_1", "a", "_2"]);
        assert_eq!(names(quote!((_, _): A, (a, b): B, (a, b): C)), ["_1", "a_b", "a_b2"]);
        assert_eq!(names(quote!(Some(r#type): A, (A(x) | B(x)): B)), ["type2", "x"]);
    }
}
