//! How a function's arguments move into its coroutine.
//!
//! An `async` block takes along what it mentions, so the block begins by mentioning every argument.
//! There are two ways to do that:
//!
//! * In place: `let _ = &x;` makes the block own `x` under the name it has. What a block owns is
//!   dropped after its locals and in the order in which it was mentioned, so these statements stand
//!   in reverse. This is how a coroutine stays at half the size of an `async fn`, which keeps each
//!   argument twice: as it came, and as the local it is moved to.
//! * As a local: `let x = x;`, which is what an `async fn` does. A pattern needs it, having names of
//!   its own to bind. So does an argument that the body does not mention, for the compiler to say
//!   so: in place, the mention would count as its use.
//!
//! Locals go before what the block owns, and the last argument goes first. So from the first
//! argument that must be a local on, all are.

use proc_macro2::{Group, Ident, Span, TokenStream, TokenTree};
use quote::quote;
use syn::{
    Attribute, FnArg, Pat, PatIdent, PatType, Signature, Token, ext::IdentExt, parse_quote,
    punctuated::Punctuated, visit::Visit,
};

/// A function's arguments, on their way in.
pub(crate) struct Arguments {
    /// What the signature says: each argument has a name of its own.
    pub(crate) inputs: Punctuated<FnArg, Token![,]>,
    /// The statements that move them into the coroutine.
    pub(crate) bindings: Vec<TokenStream>,
}

impl Arguments {
    pub(crate) fn of(sig: &Signature, body: Option<&Group>, refused: bool) -> Arguments {
        let mut inputs = sig.inputs.clone();
        let mut bindings = Vec::new();
        // A declaration has nothing to bind, and its arguments are as plain as the language asks.
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

/// The names of arguments that have none, being patterns. Documentation shows them, so each is made of
/// the names in the pattern; what the user calls so is another name, for the compiler.
#[derive(Default)]
struct Hidden(Vec<String>);

impl Hidden {
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

            // What a constant in a pattern names is bound within that constant.
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
            // The one name in a pattern may be a keyword, written raw.
            !self.0.contains(name) && syn::parse_str::<Ident>(name).is_ok()
        };
        let name = (1..).map(nth).find(is_free).expect("one of so many is free");
        self.0.push(name.clone());
        Ident::new(&name, Span::mixed_site())
    }
}

/// Gives the argument a name that the signature can have, and returns the statement that moves it.
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
    // Lints about a name are about the local.
    let (lints, kept) = std::mem::take(&mut argument.attrs).into_iter().partition(is_lint);
    let lints: Vec<Attribute> = lints;
    argument.attrs = kept;
    match plain_name(&argument.pat).cloned() {
        Some(name) => {
            // `mut` is about the local, too.
            let inside = std::mem::replace(&mut *argument.pat, parse_quote!(#name));
            let lint = allow_underscore(&name);
            quote!(#(#cfgs)* #(#lints)* #lint let #inside = #name;)
        }
        None => {
            let inside = std::mem::replace(&mut *argument.pat, parse_quote!(#hidden));
            // Twice, so that what the pattern leaves behind is a local too.
            let lint = allow_underscore(&hidden);
            let moved = quote!(#(#cfgs)* #lint let #hidden = #hidden;);
            match inside {
                Pat::Wild(_) => moved,
                inside => quote!(#moved #(#cfgs)* #(#lints)* let #inside = #hidden;),
            }
        }
    }
}

/// For who asks clippy: `_name` is mentioned, not used.
fn allow_underscore(name: &Ident) -> Option<TokenStream> {
    let allow = quote! {
        #[allow(clippy::used_underscore_binding, clippy::no_effect_underscore_binding)]
    };
    name.to_string().starts_with('_').then_some(allow)
}

/// Whether the argument cannot stay as it is in the coroutine.
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

/// Whether the word stands anywhere in the tokens, or in a string that may be a format string. A
/// word that means something else costs a warning about an unused argument, and nothing more.
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
