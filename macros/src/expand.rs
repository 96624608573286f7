//! `#[coroutine]`, `#[engine]`, `#[main]` and `#[test]`: from the user's function to the one that is emitted.
//!
//! The four attributes do the same: they take the function's body, make it an `async move` block that owns
//! the function's arguments, and hand that block to the loop. They differ in the function that gets the
//! block, and in what the emitted function returns. `#[coroutine]` and `#[engine]` go through [`wrapper`],
//! which is Tornado's `_make_coroutine_wrapper`; `#[main]` and `#[test]` go through [`blocking`].
//!
//! The code keeps three promises:
//!
//! * **The body is not touched.** It is never parsed, only moved. So the compiler's errors point into it as
//!   always, and editors can deal with half-written code in it.
//! * **Arguments behave as in an `async fn`.** All of them move in, used or not, and are dropped after the
//!   locals, the last one first. See [`capture`](crate::capture).
//! * **A function that is refused is still emitted**, with the signature that it would have had. Otherwise
//!   each call of it would be an error, too, and hide the one that explains what is wrong.

use proc_macro2::{Delimiter, Group, Ident, Literal, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{ReturnType, Safety, Signature, Token, ext::IdentExt, spanned::Spanned};

use crate::{
    args::{MainArgs, TestArgs, WrapperArgs},
    capture::Arguments,
    function::{Function, Output},
    refuse::{Refusals, refuse_borrows, refuse_qualifiers},
};

pub(crate) fn coroutine(args: TokenStream, item: TokenStream) -> TokenStream {
    wrapper(Handle::Returned, args, item)
}

pub(crate) fn engine(args: TokenStream, item: TokenStream) -> TokenStream {
    wrapper(Handle::Dropped, args, item)
}

/// What is done with the coroutine's handle, in which the two attributes differ.
#[derive(Clone, Copy, PartialEq)]
enum Handle {
    /// `#[coroutine]` gives it to the caller.
    Returned,
    /// `#[engine]` drops it.
    Dropped,
}

/// Makes `fn f(..) -> T` a `fn f(..) -> Coroutine<T>`, a `fn f(..) -> CancelOnDrop<T>`, or a `fn f(..)`.
fn wrapper(handle: Handle, args: TokenStream, item: TokenStream) -> TokenStream {
    let attribute = match handle {
        Handle::Returned => "#[waterspout::coroutine]",
        Handle::Dropped => "#[waterspout::engine]",
    };
    let mut function = match Function::parse(attribute, item) {
        Ok(function) => function,
        Err(tokens) => return tokens,
    };
    let output = Output::of(&function.sig);

    let mut refusals = Refusals::default();
    let tokens = args.clone();
    let args = match handle {
        Handle::Returned => WrapperArgs::of_coroutine(attribute, args),
        Handle::Dropped => WrapperArgs::of_engine(attribute, args),
    };
    let args = refusals.unless_ok(args).unwrap_or_default();
    let krate = &args.krate;

    let before = function.take_instruments();
    if !before.is_empty() {
        // These attributes instrument an `async fn`, so they are put first, and get the function as it is.
        // The compiler expands this attribute again after them.
        let word = match handle {
            Handle::Returned => quote!(coroutine),
            Handle::Dropped => quote!(engine),
        };
        function.sig.asyncness.get_or_insert(Token![async](function.sig.fn_token.span));
        return quote!(#(#before)* #[#krate::#word(#tokens)] #function);
    }
    if let (Some(name), None) = (&args.name, &function.body) {
        refusals.push(name, "a declaration runs nothing: the name goes on its implementations");
    }
    let misused = refusals.len();
    refuse_qualifiers(attribute, &function.sig, &mut refusals);
    refuse_borrows(&function.sig, &mut refusals);
    if handle == Handle::Dropped && output.is_opaque {
        let message = "an engine cannot return `impl Trait`: nobody would ever see the value";
        refusals.push(&output.ty, message);
    }
    let refused = refusals.len() > misused;

    let Function { attrs, vis, sig, body } = &function;
    let arguments = Arguments::of(sig, body.as_ref(), refused);
    let mut emitted = Signature {
        constness: None,
        asyncness: None,
        abi: None,
        variadic: None,
        inputs: arguments.inputs,
        ..sig.clone()
    };
    emitted.output = match handle {
        Handle::Returned if args.cancel_on_drop => {
            output.wrapped(&quote!(#krate::coroutine::CancelOnDrop))
        }
        Handle::Returned => output.wrapped(&quote!(#krate::Coroutine)),
        Handle::Dropped => ReturnType::Default,
    };

    let body = match body {
        None => quote_spanned!(sig.fn_token.span=> ;),
        Some(_) if refused => stand_in(),
        Some(body) => {
            let name = match &args.name {
                Some(name) => quote!(::core::option::Option::Some(#name)),
                None => quote!(::core::option::Option::None),
            };
            let report = output.report(krate);
            let future = future(&output, &arguments.bindings, body);
            // Located at the function's name: that is where the compiler shows errors about the whole
            // coroutine.
            let at = Span::mixed_site().located_at(sig.ident.span());
            let from = krate.at(at);
            let start = quote_spanned!(at=> #from::__private::start);
            // This call tells where the function is declared, so it has the span of the function's name. With
            // the span of tokens that a macro makes, it would tell where the attribute stands.
            let at_name = sig.ident.span();
            let from = krate.at(at_name);
            let here = quote_spanned!(at_name=> #from::__private::here());
            let kind = quote! {
                || #krate::__private::Declared {
                    name: #name,
                    report: #report,
                    at: #here,
                }
            };
            let started = quote_spanned!(at=> #start(#kind, #future));
            match handle {
                Handle::Returned if args.cancel_on_drop => {
                    braced(body, quote_spanned!(at=> #started.cancel_on_drop()))
                }
                Handle::Returned => braced(body, started),
                Handle::Dropped => {
                    let ty = &output.ty;
                    let from = krate.at(ty.span());
                    let check = quote_spanned! {ty.span()=>
                        #from::__private::check_engine_output::<#ty>();
                    };
                    braced(body, quote!(#check ::core::mem::drop(#started);))
                }
            }
        }
    };
    let is_given = |word: &str| attrs.iter().any(|attr| attr.path().is_ident(word));
    // A coroutine's place is the line that calls the function.
    let track_caller = (!is_given("track_caller")).then(|| quote!(#[track_caller]));
    // If the user has written a `#[must_use]`, too, that one stays: it says the same in other words.
    let must_use = args.must_use.filter(|_| !is_given("must_use")).map(|at| {
        let why =
            "the coroutine runs on without its handle: await that for the result, or `drop` it";
        quote_spanned!(at=> #[must_use = #why])
    });
    // Clippy warns of an `async` block that gives a future without awaiting it. If the user's body does
    // that on purpose, the caller awaits that future.
    let lints = match (refused, &function.body) {
        (true, _) => allow_unused(),
        (false, Some(_)) => quote!(#[allow(clippy::async_yields_async)]),
        (false, None) => TokenStream::new(),
    };
    let item = quote!(#(#attrs)* #must_use #track_caller #lints #vis #emitted #body);
    refusals.beside(item, refused && output.is_opaque)
}

pub(crate) fn main(args: TokenStream, item: TokenStream) -> TokenStream {
    let attribute = "#[waterspout::main]";
    let function = match Function::parse(attribute, item) {
        Ok(function) => function,
        Err(tokens) => return tokens,
    };
    let mut refusals = Refusals::default();
    let args = refusals.unless_ok(MainArgs::parse(attribute, args)).unwrap_or_default();
    let MainArgs { virtual_time, slow_callback, krate } = args;
    let virtual_time = virtual_time.then(|| quote!(.virtual_time()));
    let slow_callback = slow_callback
        .map(Literal::f64_unsuffixed)
        .map(|seconds| quote!(.slow_callback(::core::time::Duration::from_secs_f64(#seconds))));
    let builder = quote!(#krate::IoLoop::builder() #virtual_time #slow_callback);
    blocking(
        attribute,
        &function,
        refusals,
        TokenStream::new(),
        |future| quote!(#krate::__private::run_main(#builder, #future)),
    )
}

pub(crate) fn test(args: TokenStream, item: TokenStream) -> TokenStream {
    let attribute = "#[waterspout::test]";
    let mut function = match Function::parse(attribute, item) {
        Ok(function) => function,
        Err(tokens) => return tokens,
    };
    let mut refusals = Refusals::default();
    let args = refusals.unless_ok(TestArgs::parse(attribute, args)).unwrap_or_default();
    // Only one that stands below this attribute is found here. If `#[test]` stands above it, the compiler
    // refuses that, since the function is `async` then.
    function.attrs.retain(|attr| {
        let is_second = attr.path().segments.last().is_some_and(|last| last.ident == "test");
        if is_second {
            let message =
                "one test attribute is enough: `#[waterspout::test]` makes the test itself";
            refusals.push(attr, message);
        }
        !is_second
    });

    let name = name_of(&function.sig);
    let timeout = match args.timeout.map(Literal::f64_unsuffixed) {
        Some(seconds) => quote!(::core::option::Option::Some(#seconds)),
        None => quote!(::core::option::Option::None),
    };
    let TestArgs { virtual_time, allow_exceptions, krate, .. } = args;
    let options = quote!(#krate::__private::TestOptions {
        name: #name,
        timeout: #timeout,
        virtual_time: #virtual_time,
        allow_exceptions: #allow_exceptions,
    });
    let report = Output::of(&function.sig).report(&krate);
    // With its full path, since the user may have imported `waterspout::test` as `test`.
    let marker = quote!(#[::core::prelude::v1::test]);
    blocking(
        attribute,
        &function,
        refusals,
        marker,
        |future| quote!(#krate::__private::run_test(#options, #report, || #future)),
    )
}

/// Makes `async fn f() -> T` a `fn f() -> T` that blocks until the body is done. `marker` is an attribute
/// for the emitted function, and `run` wraps the future of the body into the call that runs it.
fn blocking(
    attribute: &str,
    function: &Function,
    mut refusals: Refusals,
    marker: TokenStream,
    run: impl FnOnce(TokenStream) -> TokenStream,
) -> TokenStream {
    let Function { attrs, vis, sig, body } = function;
    let misused = refusals.len();
    if sig.asyncness.is_none() {
        let message = format!("`{}` must be `async`: write `async fn {0}`", sig.ident);
        refusals.push(sig.fn_token, message);
    }
    if !sig.inputs.is_empty() {
        let message = format!("a `{attribute}` function takes no arguments");
        refusals.push(&sig.inputs, message);
    }
    if !sig.generics.params.is_empty() {
        refusals.push(&sig.generics, format!("a `{attribute}` function has no generics"));
    }
    if let Safety::Unsafe(token) = &sig.safety {
        refusals.push(token, format!("a `{attribute}` function cannot be `unsafe`"));
    }
    if body.is_none() {
        refusals.push(&sig.ident, format!("a `{attribute}` function needs a body"));
    }
    refuse_qualifiers(attribute, sig, &mut refusals);
    let refused = refusals.len() > misused;

    let emitted = Signature {
        constness: None,
        asyncness: None,
        safety: Safety::Default,
        abi: None,
        variadic: None,
        generics: Default::default(),
        inputs: Default::default(),
        ..sig.clone()
    };
    let output = Output::of(sig);
    let body = match body {
        Some(body) if !refused => {
            let run = run(future(&output, &[], body));
            if output.is_never {
                // Some versions of the compiler warn that the `match` is unreachable, which is just what it
                // is there for.
                let never = quote! {
                    let never = #run;
                    #[allow(unreachable_code)]
                    match never {};
                };
                braced(body, never)
            } else {
                braced(body, run)
            }
        }
        _ => stand_in(),
    };
    let item = quote!(#marker #(#attrs)* #vis #emitted #body);
    refusals.beside(item, refused && output.is_opaque)
}

/// The coroutine itself: an `async move` block with the body, which owns the arguments and whose output
/// has the declared type.
///
/// An `async` block has no syntax for the type of its output, so the type is written in two statements.
/// The first is a `return` of a value of that type, which is never reached: by that, the compiler knows
/// the type for every other `return` and `?` in the body. The second is a `let`, for the last expression
/// of the body, which may be coerced to the type.
///
/// The block has the span of the body. With the span of tokens that a macro makes, the compiler would not
/// name variables in its errors: it would say "use of moved value", and not of which.
fn future(output: &Output, bindings: &[TokenStream], body: &Group) -> TokenStream {
    let at = body.span();
    let result = Ident::new("__result", Span::mixed_site());
    let (known, ty) = match &output.ty {
        _ if output.is_opaque => (None, None),
        ty => {
            // Located at the type: an error about another type points here, to show what was expected.
            let mut expected = result.clone();
            expected.set_span(result.span().located_at(ty.span()));
            let returned = quote_spanned!(expected.span()=> return #expected);
            let known = quote! {
                if let ::core::option::Option::Some(#result) = ::core::option::Option::None::<#ty> {
                    #returned;
                }
            };
            (Some(known), Some(quote!(: #ty)))
        }
    };
    let mut block = Group::new(
        Delimiter::Brace,
        quote! {
            #known
            // The braces around the body may be unnecessary, and the body may never end. Neither is a
            // mistake of the user's.
            #[allow(unused_braces, clippy::diverging_sub_expression)]
            let #result #ty = { #(#bindings)* #body };
            #[allow(unreachable_code)]
            #result
        },
    );
    block.set_span(at);
    let opening = quote_spanned!(at=> async move);
    quote!(#opening #block)
}

/// The body of the emitted function, whose braces have the span of the user's. If a function ends in a
/// token that a macro makes, the compiler takes the whole function for generated code, and does not warn
/// if it is unused.
fn braced(body: &Group, tokens: TokenStream) -> TokenStream {
    let mut braced = Group::new(Delimiter::Brace, tokens);
    braced.set_span(body.span());
    quote!(#braced)
}

/// The name of a test: `module::path::function`.
fn name_of(sig: &Signature) -> TokenStream {
    let function = sig.ident.unraw().to_string();
    quote!(::core::concat!(::core::module_path!(), "::", #function))
}

/// The body of a function that is refused. It fits every return type.
fn stand_in() -> TokenStream {
    quote!({ ::core::unimplemented!() })
}

/// For a function with a stand-in for its body, which uses no argument: the compiler must not warn of that.
fn allow_unused() -> TokenStream {
    quote!(#[allow(unused_variables, unused_mut)])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares tokens by their text. Spans are tested by `tests/ui`.
    #[track_caller]
    fn assert_tokens(left: TokenStream, right: TokenStream) {
        assert_eq!(left.to_string(), right.to_string());
    }

    /// The messages in an expansion's `compile_error!`s.
    fn errors(expansion: TokenStream) -> Vec<String> {
        let file: syn::File = syn::parse2(expansion).expect("an expansion parses");
        file.items
            .iter()
            .filter_map(|item| match item {
                syn::Item::Macro(call) => {
                    Some(call.mac.parse_body::<syn::LitStr>().expect("a message").value())
                }
                _ => None,
            })
            .collect()
    }

    #[test]
    fn a_coroutine_is_started_with_its_name_its_report_and_its_body() {
        assert_tokens(
            coroutine(
                quote!(),
                quote! {
                    /// Documented.
                    pub async fn f(mut a: A, (b, c): B) -> Outcome { a.run(b, c).await }
                },
            ),
            quote! {
                /// Documented.
                #[track_caller]
                #[allow(clippy::async_yields_async)]
                pub fn f(mut a: A, b_c: B) -> ::waterspout::Coroutine<Outcome> {
                    ::waterspout::__private::start(
                        || ::waterspout::__private::Declared {
                            name: ::core::option::Option::None,
                            report: {
                                #[allow(unused_imports)]
                                use ::waterspout::__private::ReportNothing as _;
                                ::waterspout::__private::Probe::<Outcome>::REPORT
                            },
                            at: ::waterspout::__private::here(),
                        },
                        async move {
                            if let ::core::option::Option::Some(__result) =
                                ::core::option::Option::None::<Outcome>
                            {
                                return __result;
                            }
                            #[allow(unused_braces, clippy::diverging_sub_expression)]
                            let __result: Outcome = {
                                let _ = &a;
                                let b_c = b_c;
                                let (b, c) = b_c;
                                { a.run(b, c).await }
                            };
                            #[allow(unreachable_code)]
                            __result
                        }
                    )
                }
            },
        );
    }

    #[test]
    fn a_coroutine_can_be_tied_to_its_handle_or_have_one_that_must_be_used() {
        let item = quote!(
            async fn f() -> u8;
        );
        assert_tokens(
            coroutine(quote!(cancel_on_drop), item.clone()),
            quote!(
                #[track_caller]
                fn f() -> ::waterspout::coroutine::CancelOnDrop<u8>;
            ),
        );
        let expansion = coroutine(quote!(must_use), item.clone()).to_string();
        assert!(expansion.starts_with("# [must_use = \"the coroutine runs on"), "{expansion}");
        let own = coroutine(quote!(must_use), quote!(#[must_use = "because"] #item)).to_string();
        assert_eq!(own.matches("must_use").count(), 1, "{own}");
        let body = coroutine(
            quote!(cancel_on_drop),
            quote!(
                async fn f() {}
            ),
        );
        assert!(body.to_string().ends_with(". cancel_on_drop () }"), "{body}");
    }

    #[test]
    fn an_engine_is_a_coroutine_whose_handle_is_dropped() {
        let expansion = engine(
            quote!(name = "beat"),
            quote!(
                async fn f() {}
            ),
        )
        .to_string();
        let start = "# [track_caller] # [allow (clippy :: async_yields_async)] fn f () { \
            :: waterspout :: __private :: check_engine_output :: < () > () ; \
            :: core :: mem :: drop (:: waterspout :: __private :: start (";
        assert!(expansion.starts_with(start), "{expansion}");
        assert!(expansion.contains("Some (\"beat\")"), "{expansion}");
    }

    #[test]
    fn a_main_has_a_loop_of_the_builder_that_it_was_told() {
        let expansion = |args| {
            let item = quote!(
                async fn main() {}
            );
            main(args, item).to_string()
        };
        let start = "fn main () { :: waterspout :: __private :: run_main (\
            :: waterspout :: IoLoop :: builder ()";
        let plain = expansion(quote!());
        assert!(plain.starts_with(&format!("{start} , async move")), "{plain}");
        let told = expansion(quote!(slow_callback = 0.1, virtual_time));
        let options = ". virtual_time () . slow_callback (\
            :: core :: time :: Duration :: from_secs_f64 (0.1)) , async move";
        assert!(told.starts_with(&format!("{start} {options}")), "{told}");
    }

    #[test]
    fn a_test_says_what_it_is_and_how_long_it_may_take() {
        let arguments = quote!(timeout = 10, virtual_time);
        let expansion = test(
            arguments,
            quote!(
                #[ignore]
                async fn f() {}
            ),
        )
        .to_string();
        let start = quote! {
            #[::core::prelude::v1::test]
            #[ignore]
            fn f() {
                ::waterspout::__private::run_test(
                    ::waterspout::__private::TestOptions {
                        name: ::core::concat!(::core::module_path!(), "::", "f"),
                        timeout: ::core::option::Option::Some(10.0),
                        virtual_time: true,
                        allow_exceptions: false,
                    },
                    ::waterspout::__private::report_nothing,
                    || async move
                )
            }
        };
        let start = start.to_string();
        assert!(expansion.starts_with(start.trim_end_matches([' ', ')', '}'])), "{expansion}");
    }

    #[test]
    fn what_instruments_an_async_fn_goes_first() {
        assert_tokens(
            coroutine(
                quote!(name = "a"),
                quote! {
                    #[inline]
                    #[tracing::instrument(skip_all)]
                    #[cfg_attr(feature = "trace", instrument)]
                    pub fn f(x: X) -> u8 { x.get().await }
                },
            ),
            quote! {
                #[tracing::instrument(skip_all)]
                #[cfg_attr(feature = "trace", instrument)]
                #[::waterspout::coroutine(name = "a")]
                #[inline]
                pub async fn f(x: X) -> u8 { x.get().await }
            },
        );
        let expansion = engine(
            quote!(crate = "a::b"),
            quote!(
                #[instrument]
                async fn f();
            ),
        );
        assert_tokens(
            expansion,
            quote! {
                #[instrument]
                #[a::b::engine(crate = "a::b")]
                async fn f();
            },
        );
    }

    #[test]
    fn a_declaration_stays_one() {
        assert_tokens(
            coroutine(
                quote!(),
                quote!(
                    async fn f(self: Rc<Self>) -> u8;
                ),
            ),
            quote!(
                #[track_caller]
                fn f(self: Rc<Self>) -> ::waterspout::Coroutine<u8>;
            ),
        );
    }

    #[test]
    fn the_contract_of_an_unsafe_function_stays_its_callers() {
        let expansion = coroutine(
            quote!(),
            quote!(
                async unsafe fn f() {}
            ),
        )
        .to_string();
        assert!(expansion.contains("] unsafe fn f ()"), "{expansion}");
    }

    #[test]
    fn track_caller_is_not_given_twice() {
        let expansion = coroutine(
            quote!(),
            quote!(
                #[track_caller]
                async fn f() {}
            ),
        )
        .to_string();
        assert_eq!(expansion.matches("track_caller").count(), 1);
    }

    #[test]
    fn a_refused_function_keeps_the_signature_it_would_have_had() {
        let expansion = coroutine(
            quote!(),
            quote!(
                pub async fn f(x: &u8, (a, b): T) -> u8 {
                    a + b
                }
            ),
        );
        let item = quote! {
            #[track_caller]
            #[allow(unused_variables, unused_mut)]
            pub fn f(x: &u8, a_b: T) -> ::waterspout::Coroutine<u8> {
                ::core::unimplemented!()
            }
        };
        assert!(expansion.to_string().ends_with(&item.to_string()), "{expansion}");
    }

    #[test]
    fn a_wrong_argument_of_the_attribute_costs_only_itself() {
        let item = quote!(
            async fn f(x: u8) -> u8 {
                x
            }
        );
        let wrong = coroutine(quote!(label = "x"), item.clone());
        assert_eq!(errors(wrong.clone()).len(), 1);
        let right = coroutine(quote!(), item);
        assert!(wrong.to_string().ends_with(&right.to_string()));
    }

    #[test]
    fn what_is_no_function_stays_as_it_was() {
        for item in [
            quote!(
                struct S;
            ),
            quote!(
                const F: fn() = f;
            ),
            quote!(
                extern "C" {
                    fn f();
                }
            ),
            quote!(
                unsafe impl Send for S {}
            ),
        ] {
            let expansion = main(quote!(), item.clone());
            assert_eq!(errors(expansion.clone()), ["`#[waterspout::main]` goes on a function"]);
            assert!(expansion.to_string().ends_with(&item.to_string()));
        }
    }

    #[test]
    fn a_body_may_be_half_written() {
        let expansion = coroutine(quote!(), quote!(async fn f(x: u8) { x. let = }));
        assert!(expansion.to_string().contains("{ x . let = }"), "{expansion}");
    }
}
