//! The arguments of the attributes, which stand in their parentheses.
//!
//! An argument is `word` or `word = literal`, and is given at most once. A wrong one is refused with an error
//! that points at its own tokens and says what the attribute takes.

use std::time::Duration;

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::{
    Expr, ExprLit, Lit, LitStr, Meta, Path, Result, Token, parse::Parser, punctuated::Punctuated,
    spanned::Spanned,
};

/// The path of the crate `waterspout`, for the code that is emitted: the one that `crate = ".."` gives
/// (serde and tokio have the same argument), or else `::waterspout`.
#[derive(Clone, Default)]
pub(crate) struct Crate(Option<Path>);

impl Crate {
    /// The path that the argument gives, if there is one.
    pub(crate) fn given(&self) -> Option<&Path> {
        self.0.as_ref()
    }

    /// The path, with all its tokens located at `at`: that is where the compiler shows errors about what is
    /// called by this path.
    pub(crate) fn at(&self, at: Span) -> TokenStream {
        let Some(path) = &self.0 else { return quote_spanned!(at=> ::waterspout) };
        let located = |mut token: TokenTree| {
            token.set_span(token.span().located_at(at));
            token
        };
        path.to_token_stream().into_iter().map(located).collect()
    }
}

impl ToTokens for Crate {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        match &self.0 {
            Some(path) => path.to_tokens(tokens),
            None => tokens.extend(quote!(::waterspout)),
        }
    }
}

/// The arguments of `#[coroutine]` and `#[engine]`.
#[derive(Default)]
pub(crate) struct WrapperArgs {
    /// The coroutine's name, if it is not the function's path.
    pub(crate) name: Option<LitStr>,
    /// Whether dropping the handle cancels the coroutine.
    pub(crate) cancel_on_drop: bool,
    /// Where the flag `must_use` stands, if it is there.
    pub(crate) must_use: Option<Span>,
    pub(crate) krate: Crate,
}

impl WrapperArgs {
    /// The arguments of `#[coroutine]`, which gives the caller a handle.
    pub(crate) fn of_coroutine(attribute: &str, tokens: TokenStream) -> Result<WrapperArgs> {
        let takes = "takes `cancel_on_drop`, `must_use`, `name = \"...\"` and `crate = \"...\"`";
        let mut args = WrapperArgs::default();
        each_argument(attribute, takes, tokens, |word, meta| {
            match word {
                "cancel_on_drop" => args.cancel_on_drop = flag(word, meta)?,
                "must_use" => args.must_use = flag(word, meta)?.then(|| meta.span()),
                _ => return args.accept(word, meta),
            }
            if args.cancel_on_drop && args.must_use.is_some() {
                let message = "`cancel_on_drop` is enough: the compiler warns of its handle, when that is \
                    ignored, without `must_use`";
                return Err(syn::Error::new_spanned(meta, message));
            }
            Ok(true)
        })?;
        Ok(args)
    }

    /// The arguments of `#[engine]`, which gives none.
    pub(crate) fn of_engine(attribute: &str, tokens: TokenStream) -> Result<WrapperArgs> {
        let takes = "takes `name = \"...\"` and `crate = \"...\"`";
        let mut args = WrapperArgs::default();
        each_argument(attribute, takes, tokens, |word, meta| match word {
            "cancel_on_drop" | "must_use" => {
                let message = format!(
                    "an engine gives no handle that `{word}` could be about: it {takes}, and \
                     `#[waterspout::coroutine({word})]` gives one"
                );
                Err(syn::Error::new_spanned(meta, message))
            }
            _ => args.accept(word, meta),
        })?;
        Ok(args)
    }

    /// Takes in an argument that both attributes have. `false` if they have no such word.
    fn accept(&mut self, word: &str, meta: &Meta) -> Result<bool> {
        match word {
            "name" => self.name = Some(name(meta)?),
            "crate" => self.krate = krate(meta)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// The arguments of `#[main]`: options of the loop that it makes.
#[derive(Default)]
pub(crate) struct MainArgs {
    /// Whether the loop's clock jumps from timer to timer.
    pub(crate) virtual_time: bool,
    /// After how many seconds a callback counts as slow.
    pub(crate) slow_callback: Option<f64>,
    pub(crate) krate: Crate,
}

impl MainArgs {
    pub(crate) fn parse(attribute: &str, tokens: TokenStream) -> Result<MainArgs> {
        let mut args = MainArgs::default();
        let takes = "takes `slow_callback = SECONDS`, `virtual_time` and `crate = \"...\"`";
        each_argument(attribute, takes, tokens, |word, meta| {
            match word {
                "virtual_time" => args.virtual_time = flag(word, meta)?,
                "slow_callback" => args.slow_callback = Some(seconds(word, meta)?),
                "crate" => args.krate = krate(meta)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(args)
    }
}

/// The arguments of `#[test]`.
#[derive(Default)]
pub(crate) struct TestArgs {
    /// After how many seconds the test fails.
    pub(crate) timeout: Option<f64>,
    /// Whether the loop's clock jumps from timer to timer.
    pub(crate) virtual_time: bool,
    /// Whether the test passes although something failed in the background.
    pub(crate) allow_exceptions: bool,
    pub(crate) krate: Crate,
}

impl TestArgs {
    pub(crate) fn parse(attribute: &str, tokens: TokenStream) -> Result<TestArgs> {
        let mut args = TestArgs::default();
        let takes =
            "takes `timeout = SECONDS`, `virtual_time`, `allow_exceptions` and `crate = \"...\"`";
        each_argument(attribute, takes, tokens, |word, meta| {
            match word {
                "timeout" => args.timeout = Some(seconds(word, meta)?),
                "virtual_time" => args.virtual_time = flag(word, meta)?,
                "allow_exceptions" => args.allow_exceptions = flag(word, meta)?,
                "crate" => args.krate = krate(meta)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(args)
    }
}

/// The argument of `#[coroutines]`, which takes only `crate`.
pub(crate) fn parse_crate(attribute: &str, tokens: TokenStream) -> Result<Crate> {
    let mut found = Crate::default();
    each_argument(attribute, "takes nothing but `crate = \"...\"`", tokens, |word, meta| {
        if word == "crate" {
            found = krate(meta)?;
        }
        Ok(word == "crate")
    })?;
    Ok(found)
}

/// Calls `accept` with the word and the tokens of each argument. If that gives `false`, there is no such
/// argument, and it is refused.
fn each_argument(
    attribute: &str,
    takes: &str,
    tokens: TokenStream,
    mut accept: impl FnMut(&str, &Meta) -> Result<bool>,
) -> Result<()> {
    let arguments = Punctuated::<Meta, Token![,]>::parse_terminated
        .parse2(tokens)
        // syn's message would say what its grammar expected, which does not help. This says what to write.
        .map_err(|error| syn::Error::new(error.span(), format!("`{attribute}` {takes}")))?;
    let mut seen = Vec::new();
    for meta in &arguments {
        let word = meta.path().get_ident().map(ToString::to_string).unwrap_or_default();
        if seen.contains(&word) {
            return Err(syn::Error::new_spanned(meta, format!("`{word}` is given twice")));
        }
        if !accept(&word, meta)? {
            let message = format!("unknown argument: `{attribute}` {takes}");
            return Err(syn::Error::new_spanned(meta.path(), message));
        }
        seen.push(word);
    }
    Ok(())
}

/// What stands after the `=`. If it comes from a `macro_rules!`, it is in invisible brackets, which are
/// removed.
fn value(meta: &Meta) -> Option<&Expr> {
    let Meta::NameValue(pair) = meta else { return None };
    let mut value = &pair.value;
    while let Expr::Group(group) = value {
        value = &group.expr;
    }
    Some(value)
}

fn literal(meta: &Meta) -> Option<&Lit> {
    match value(meta) {
        Some(Expr::Lit(ExprLit { lit, .. })) => Some(lit),
        _ => None,
    }
}

/// Makes an error that points at the argument's value if it has one, since the word before it is right.
fn refuse<T>(meta: &Meta, message: &str) -> Result<T> {
    Err(match meta {
        Meta::NameValue(pair) => syn::Error::new_spanned(&pair.value, message),
        _ => syn::Error::new_spanned(meta, message),
    })
}

fn name(meta: &Meta) -> Result<LitStr> {
    match literal(meta) {
        Some(Lit::Str(name)) => Ok(name.clone()),
        _ => refuse(meta, "`name` is a string literal, as in `name = \"session\"`"),
    }
}

/// A path, in a string or without one: without, a `macro_rules!` can write `$crate` in it.
fn krate(meta: &Meta) -> Result<Crate> {
    let path = match value(meta) {
        Some(Expr::Lit(ExprLit { lit: Lit::Str(text), .. })) => {
            text.parse_with(Path::parse_mod_style).ok()
        }
        Some(Expr::Path(path)) if path.qself.is_none() => Some(path.path.clone()),
        _ => None,
    };
    match path {
        Some(path) => Ok(Crate(Some(path))),
        None => refuse(meta, "`crate` is a path, as in `crate = \"my_crate::waterspout\"`"),
    }
}

fn seconds(word: &str, meta: &Meta) -> Result<f64> {
    let seconds = match literal(meta) {
        Some(Lit::Int(number)) if number.suffix().is_empty() => number.base10_parse().ok(),
        Some(Lit::Float(number)) if number.suffix().is_empty() => number.base10_parse().ok(),
        _ => None,
    };
    // Tried with `Duration` here: otherwise a number that a `Duration` cannot hold would be found only
    // when the program runs.
    let fits = |seconds: &f64| {
        Duration::try_from_secs_f64(*seconds).is_ok_and(|duration| !duration.is_zero())
    };
    match seconds.filter(fits) {
        Some(seconds) => Ok(seconds),
        None => {
            let message =
                format!("`{word}` is a number of seconds above zero, as in `{word} = 0.5`");
            refuse(meta, &message)
        }
    }
}

fn flag(word: &str, meta: &Meta) -> Result<bool> {
    match meta {
        Meta::Path(_) => Ok(true),
        _ => refuse(meta, &format!("`{word}` is a flag and takes no value")),
    }
}

#[cfg(test)]
mod tests {
    use quote::quote;

    use super::*;

    fn wrapper_error(tokens: TokenStream) -> String {
        WrapperArgs::of_coroutine("#[coroutine]", tokens).err().expect("refused").to_string()
    }

    fn test_error(tokens: TokenStream) -> String {
        TestArgs::parse("#[test]", tokens).err().expect("refused").to_string()
    }

    #[test]
    fn nothing_is_a_good_argument_list() {
        let args = WrapperArgs::of_coroutine("#[coroutine]", quote!()).unwrap();
        assert!(args.name.is_none() && !args.cancel_on_drop && args.must_use.is_none());
        let args = TestArgs::parse("#[test]", quote!()).unwrap();
        assert_eq!((args.timeout, args.virtual_time), (None, false));
        let args = MainArgs::parse("#[main]", quote!()).unwrap();
        assert_eq!((args.slow_callback, args.virtual_time), (None, false));
        assert!(parse_crate("#[coroutines]", quote!()).is_ok());
    }

    #[test]
    fn a_name_is_a_string_literal() {
        let args = WrapperArgs::of_engine("#[engine]", quote!(name = "session",)).unwrap();
        assert_eq!(args.name.unwrap().value(), "session");

        let wanted = "`name` is a string literal, as in `name = \"session\"`";
        assert_eq!(wrapper_error(quote!(name = 5)), wanted);
        assert_eq!(wrapper_error(quote!(name = session)), wanted);
        assert_eq!(wrapper_error(quote!(name("session"))), wanted);
        assert_eq!(wrapper_error(quote!(name)), wanted);
    }

    #[test]
    fn a_crate_is_a_path() {
        let path = |tokens| parse_crate("#[c]", tokens).unwrap().to_token_stream().to_string();
        assert_eq!(path(quote!()), ":: waterspout");
        assert_eq!(path(quote!(crate = "spout")), "spout");
        assert_eq!(path(quote!(crate = "::a::b")), ":: a :: b");
        assert_eq!(path(quote!(crate = "crate::a")), "crate :: a");
        assert_eq!(path(quote!(crate = self::a)), "self :: a");
        let wanted = "`crate` is a path, as in `crate = \"my_crate::waterspout\"`";
        for tokens in [
            quote!(crate),
            quote!(crate = 5),
            quote!(crate = ""),
            quote!(crate = "a b"),
            quote!(crate = "a::<b>"),
            quote!(crate("a")),
            quote!(crate = <a as b>::c),
        ] {
            assert_eq!(wrapper_error(tokens.clone()), wanted, "{tokens}");
        }
    }

    #[test]
    fn a_timeout_is_a_number_of_seconds() {
        let timeout = |tokens| TestArgs::parse("#[test]", tokens).unwrap().timeout;
        assert_eq!(timeout(quote!(timeout = 10)), Some(10.0));
        assert_eq!(timeout(quote!(timeout = 0.25)), Some(0.25));
        assert_eq!(timeout(quote!(timeout = 1e3)), Some(1000.0));
    }

    #[test]
    fn a_timeout_that_no_clock_can_wait_for_is_refused() {
        let wanted = "`timeout` is a number of seconds above zero, as in `timeout = 0.5`";
        for tokens in [
            quote!(timeout = 0),
            quote!(timeout = 0.0),
            quote!(timeout = -1),
            quote!(timeout = 1e-12),
            quote!(timeout = 1e300),
            quote!(timeout = 1e999),
            quote!(timeout = 5u8),
            quote!(timeout = "5"),
            quote!(timeout = FIVE),
            quote!(timeout),
        ] {
            assert_eq!(test_error(tokens.clone()), wanted, "{tokens}");
        }
    }

    #[test]
    fn flags_take_no_value() {
        let args = TestArgs::parse("#[test]", quote!(virtual_time, timeout = 1)).unwrap();
        assert_eq!((args.timeout, args.virtual_time), (Some(1.0), true));
        assert!(!args.allow_exceptions);
        let wanted = "`virtual_time` is a flag and takes no value";
        assert_eq!(test_error(quote!(virtual_time = true)), wanted);
        let args = MainArgs::parse("#[main]", quote!(virtual_time, slow_callback = 0.1)).unwrap();
        assert_eq!((args.slow_callback, args.virtual_time), (Some(0.1), true));
        assert!(TestArgs::parse("#[test]", quote!(allow_exceptions)).unwrap().allow_exceptions);
        let wanted = "`allow_exceptions` is a flag and takes no value";
        assert_eq!(test_error(quote!(allow_exceptions("any"))), wanted);
    }

    #[test]
    fn what_is_said_of_the_handle_is_said_once_and_where_there_is_one() {
        let parse = |tokens| WrapperArgs::of_coroutine("#[coroutine]", tokens).unwrap();
        assert!(parse(quote!(name = "a", cancel_on_drop)).cancel_on_drop);
        assert!(parse(quote!(must_use, crate = "a")).must_use.is_some());
        assert!(wrapper_error(quote!(cancel_on_drop, must_use)).contains("without `must_use`"));
        assert!(wrapper_error(quote!(must_use, cancel_on_drop)).contains("without `must_use`"));
        let wanted = "`must_use` is a flag and takes no value";
        assert_eq!(wrapper_error(quote!(must_use = "why")), wanted);
        for tokens in [quote!(cancel_on_drop), quote!(must_use)] {
            let error = WrapperArgs::of_engine("#[engine]", tokens).err().expect("refused");
            assert!(error.to_string().starts_with("an engine gives no handle"), "{error}");
        }
    }

    #[test]
    fn an_unknown_argument_is_told_what_there_is() {
        let takes = "`#[coroutine]` takes `cancel_on_drop`, `must_use`, `name = \"...\"` and \
            `crate = \"...\"`";
        let wanted = format!("unknown argument: {takes}");
        assert_eq!(wrapper_error(quote!(label = "x")), wanted);
        assert_eq!(wrapper_error(quote!(some::path = "x")), wanted);
        assert_eq!(wrapper_error(quote!("x")), takes);
        assert_eq!(
            parse_crate("#[coroutines]", quote!(name = "a")).err().expect("refused").to_string(),
            "unknown argument: `#[coroutines]` takes nothing but `crate = \"...\"`",
        );
    }

    #[test]
    fn an_argument_given_twice_is_refused() {
        assert_eq!(wrapper_error(quote!(name = "a", name = "b")), "`name` is given twice");
        assert_eq!(test_error(quote!(virtual_time, virtual_time)), "`virtual_time` is given twice");
    }
}
