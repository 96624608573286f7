//! `#[coroutines]`: lets `#[coroutine]` and `#[engine]` be written without a path, as *bare words*, within a
//! module, an `impl` or a `trait`.
//!
//! By itself `#[coroutine]` is ambiguous, since the compiler has an attribute of that name. But the compiler
//! resolves an attribute only when it gets to it, and an attribute on the module around it gets all tokens of
//! the module before that. So `#[coroutines]` only has to write the path before each bare word. The rest,
//! expanding and refusing, is done by the attribute that has its path then.
//!
//! The tokens are not parsed into a syntax tree. So half-written code, and syntax that is newer than syn,
//! pass through unchanged.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::Result;

use crate::args::{Crate, parse_crate};

const ATTRIBUTE: &str = "#[waterspout::coroutines]";

pub(crate) fn coroutines(args: TokenStream, item: TokenStream) -> TokenStream {
    let refusal = |error: syn::Error| error.into_compile_error();
    let (krate, wrong_args) = match parse_crate(ATTRIBUTE, args) {
        Ok(krate) => (krate, None),
        Err(error) => (Crate::default(), Some(refusal(error))),
    };
    let misplaced = refuse_others(&item).err().map(refusal);
    // This is also done if the attribute is refused. Otherwise each bare word would add an error of its own,
    // which does not help.
    let item = Qualifier { krate }.within(item.clone()).unwrap_or(item);
    quote!(#wrong_args #misplaced #item)
}

/// Refuses what is not a module, an `impl` or a `trait`. It looks for the first word of the item behind
/// attributes, visibility and qualifiers.
fn refuse_others(item: &TokenStream) -> Result<()> {
    let mut after_hash = false;
    let head = item.clone().into_iter().find(|token| match token {
        TokenTree::Punct(punct) => {
            after_hash = punct.as_char() == '#';
            false
        }
        TokenTree::Group(group) => {
            let is_attribute = std::mem::take(&mut after_hash);
            // The `(crate)` of a `pub(crate)`, or the `pub` that a macro's `$vis` stands for.
            let is_visibility =
                matches!(group.delimiter(), Delimiter::Parenthesis | Delimiter::None);
            !is_attribute && !is_visibility
        }
        TokenTree::Ident(word) => !["pub", "unsafe", "auto", "default"].iter().any(|it| word == it),
        TokenTree::Literal(_) => true,
    });
    let is_block = match &head {
        Some(TokenTree::Ident(word)) => word == "mod" || word == "impl" || word == "trait",
        _ => false,
    };
    if is_block {
        return Ok(());
    }
    let message = format!(
        "`{ATTRIBUTE}` goes on a module, an `impl` or a `trait`; a function by itself is a \
         `#[waterspout::coroutine]`"
    );
    Err(syn::Error::new_spanned(head, message))
}

/// Writes the crate's path before bare words.
struct Qualifier {
    krate: Crate,
}

/// What the tokens just before the next one may be the beginning of. It decides what a group of tokens that
/// comes next is.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    /// Nothing that matters here.
    Anything,
    /// The token before is `#`: a group in square brackets is an attribute.
    Attribute,
    /// The token before is a word, perhaps the name of a macro.
    Word { is_macro_rules: bool },
    /// The tokens before are a macro's name and `!`: a group has the macro's arguments.
    Call { is_macro_rules: bool },
}

impl Qualifier {
    /// The tokens, with the path before all bare words at any depth; `None` if there are no bare words.
    /// Then the caller keeps the tokens that it has: a group that is made anew has lost the spans of its
    /// brackets.
    fn within(&self, tokens: TokenStream) -> Option<TokenStream> {
        let mut changed = false;
        let mut before = Before::Anything;
        let qualify = |token: TokenTree| {
            let context = std::mem::replace(&mut before, Before::Anything);
            let TokenTree::Group(group) = &token else {
                before = after(context, &token);
                return token;
            };
            let inside = match context {
                Before::Attribute if group.delimiter() == Delimiter::Bracket => {
                    self.attribute(group.stream())
                }
                // The arguments of a macro mean what that macro says, and are not changed.
                Before::Call { .. } => None,
                _ => self.within(group.stream()),
            };
            match inside {
                Some(inside) => {
                    changed = true;
                    regroup(group, inside)
                }
                None => token,
            }
        };
        let tokens: TokenStream = tokens.into_iter().map(qualify).collect();
        changed.then_some(tokens)
    }

    /// The tokens in an attribute's brackets, with the path before a bare word; `None` if there is none. In a
    /// `cfg_attr(condition, ..)` it looks at all that comes after the condition.
    fn attribute(&self, meta: TokenStream) -> Option<TokenStream> {
        let mut tokens = meta.clone().into_iter();
        let is_conditional =
            matches!(tokens.next(), Some(TokenTree::Ident(word)) if word == "cfg_attr");
        let Some(TokenTree::Group(list)) = tokens.next().filter(|_| is_conditional) else {
            return self.meta(&meta.into_iter().collect::<Vec<_>>());
        };
        let list_tokens: Vec<TokenTree> = list.stream().into_iter().collect();
        let is_comma =
            |token: &TokenTree| matches!(token, TokenTree::Punct(it) if it.as_char() == ',');
        let mut changed = false;
        let metas = list_tokens.split_inclusive(is_comma).enumerate().map(|(index, meta)| {
            let (comma, alone) = match meta.split_last() {
                Some((comma, alone)) if is_comma(comma) => (Some(comma), alone),
                _ => (None, meta),
            };
            // The element at index 0 is the condition.
            let qualified = if index > 0 { self.meta(alone) } else { None };
            changed |= qualified.is_some();
            let alone = qualified.unwrap_or_else(|| alone.iter().cloned().collect());
            quote!(#alone #comma)
        });
        let metas: TokenStream = metas.collect();
        let list = regroup(&list, metas);
        changed.then(|| quote!(cfg_attr #list))
    }

    /// `coroutine`, or `engine(name = "beat")`, with its path; `None` for any other attribute.
    fn meta(&self, tokens: &[TokenTree]) -> Option<TokenStream> {
        let (word, arguments) = match tokens {
            [TokenTree::Ident(word)] => (word, TokenStream::new()),
            [TokenTree::Ident(word), TokenTree::Group(arguments)] => (word, arguments.stream()),
            _ => return None,
        };
        if word != "coroutine" && word != "engine" {
            return None;
        }
        let path = self.krate.at(word.span());
        let names_a_crate = |token| matches!(token, TokenTree::Ident(it) if it == "crate");
        let krate = match self.krate.given() {
            Some(krate) if !arguments.clone().into_iter().any(names_a_crate) => {
                let comma = (!arguments.is_empty()).then(|| quote!(,));
                Some(quote!(#comma crate = #krate))
            }
            _ => None,
        };
        let arguments = match (tokens.get(1), krate) {
            (_, Some(krate)) => Some(quote!((#arguments #krate))),
            (arguments, None) => arguments.map(ToTokens::to_token_stream),
        };
        Some(quote!(#path::#word #arguments))
    }
}

/// What comes before the token after `token`, if `context` came before `token` itself.
fn after(context: Before, token: &TokenTree) -> Before {
    match (context, token) {
        (_, TokenTree::Punct(punct)) if punct.as_char() == '#' => Before::Attribute,
        (Before::Word { is_macro_rules }, TokenTree::Punct(punct)) if punct.as_char() == '!' => {
            Before::Call { is_macro_rules }
        }
        // The name of the macro that a `macro_rules!` defines.
        (Before::Call { is_macro_rules: true }, TokenTree::Ident(_)) => context,
        (_, TokenTree::Ident(word)) => Before::Word { is_macro_rules: word == "macro_rules" },
        _ => Before::Anything,
    }
}

/// The same group with other tokens in it.
fn regroup(group: &Group, tokens: TokenStream) -> TokenTree {
    let mut regrouped = Group::new(group.delimiter(), tokens);
    regrouped.set_span(group.span());
    TokenTree::Group(regrouped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_becomes(item: TokenStream, expected: TokenStream) {
        assert_eq!(coroutines(quote!(), item).to_string(), expected.to_string());
    }

    #[test]
    fn bare_words_get_their_path_at_any_depth_and_keep_their_arguments() {
        assert_becomes(
            quote! {
                #[cfg(unix)]
                pub(crate) mod session {
                    #[coroutine]
                    async fn outer() {
                        #[engine(name = "inner")]
                        async fn inner() {}
                        inner();
                    }
                    mod deeper {
                        impl Peer {
                            /// Documented.
                            #[inline]
                            #[coroutine()]
                            pub async fn ping(self: Rc<Self>) {}
                        }
                    }
                }
            },
            quote! {
                #[cfg(unix)]
                pub(crate) mod session {
                    #[::waterspout::coroutine]
                    async fn outer() {
                        #[::waterspout::engine(name = "inner")]
                        async fn inner() {}
                        inner();
                    }
                    mod deeper {
                        impl Peer {
                            /// Documented.
                            #[inline]
                            #[::waterspout::coroutine()]
                            pub async fn ping(self: Rc<Self>) {}
                        }
                    }
                }
            },
        );
    }

    #[test]
    fn in_a_cfg_attr_they_are_attributes_too() {
        assert_becomes(
            quote! {
                impl S {
                    #[cfg_attr(coroutine, engine, coroutine(name = "a"), doc = "b")]
                    async fn f(self) {}
                }
            },
            quote! {
                impl S {
                    #[cfg_attr(coroutine, ::waterspout::engine, ::waterspout::coroutine(name = "a"), doc = "b")]
                    async fn f(self) {}
                }
            },
        );
    }

    #[test]
    fn what_is_no_bare_word_and_what_is_a_macros_stays() {
        let item = quote! {
            mod m {
                #![allow(dead_code)]
                use waterspout::coroutine;
                #[waterspout::coroutine]
                async fn f() -> ! { coroutine::moment().await; loop {} }
                #[other::engine]
                #[coroutine::thing]
                struct S;
                macro_rules! make { () => { #[coroutine] async fn made() {} }; }
                thread_local! { #[coroutine] static T: u8 = 0 }
            }
        };
        assert_becomes(item.clone(), item);
    }

    #[test]
    fn where_the_crate_is_goes_on_to_each_that_does_not_say_so_itself() {
        let item = quote! {
            mod m {
                #[coroutine]
                async fn f() {}
                #[engine(name = "g")]
                async fn g() {}
                #[engine(crate = "b")]
                async fn h() {}
            }
        };
        let expected = quote! {
            mod m {
                #[a::spout::coroutine(crate = a::spout)]
                async fn f() {}
                #[a::spout::engine(name = "g", crate = a::spout)]
                async fn g() {}
                #[a::spout::engine(crate = "b")]
                async fn h() {}
            }
        };
        let expansion = coroutines(quote!(crate = "a::spout"), item);
        assert_eq!(expansion.to_string(), expected.to_string());
    }

    #[test]
    fn it_goes_on_a_module_an_impl_or_a_trait() {
        for item in [
            quote!(
                mod m {}
            ),
            quote!(
                pub(in a::b) mod m {}
            ),
            quote!(
                #[a]
                #[b(c)]
                pub unsafe trait T {}
            ),
            quote!(
                unsafe impl<T> Send for S<T> {}
            ),
            quote!(default impl T for S {}),
        ] {
            assert_becomes(item.clone(), item);
        }
        for item in [
            quote!(
                async fn f() {}
            ),
            quote!(
                pub struct S;
            ),
            quote!(m! {}),
            quote!(),
        ] {
            let expansion = coroutines(quote!(), item.clone()).to_string();
            assert!(expansion.contains("goes on a module"), "{item}: {expansion}");
            assert!(expansion.ends_with(&item.to_string()), "{item}: {expansion}");
        }
    }

    #[test]
    fn code_may_be_half_written() {
        let item = quote!(impl S { #[coroutine] async fn f #[] # + });
        let expected = quote!(impl S { #[::waterspout::coroutine] async fn f #[] # + });
        assert_becomes(item, expected);
    }
}
