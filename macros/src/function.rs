//! The function on which an attribute stands: its parts, and what it returns.

use proc_macro2::{Delimiter, Group, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::{
    AttrStyle, Attribute, Meta, ReturnType, Signature, Token, Type, Visibility,
    parse::{ParseStream, Parser},
    parse_quote,
    punctuated::Punctuated,
    spanned::Spanned,
    visit::Visit,
};

use crate::args::Crate;

/// A function whose body is not parsed.
pub(crate) struct Function {
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) vis: Visibility,
    pub(crate) sig: Signature,
    /// The body with its braces; `None` where a trait only declares the function.
    pub(crate) body: Option<Group>,
}

impl Function {
    /// Parses a function. If the item is none, the error is the tokens to emit: a `compile_error!`, and
    /// the item as it was.
    pub(crate) fn parse(attribute: &str, item: TokenStream) -> Result<Function, TokenStream> {
        let parser = |input: ParseStream| {
            let mut attrs = input.call(Attribute::parse_outer)?;
            let vis = input.parse()?;
            if !stands_before_a_function(input) {
                return Err(input.error(format!("`{attribute}` goes on a function")));
            }
            let sig = input.parse()?;
            let body = match input.parse::<Option<Token![;]>>()? {
                Some(_) => None,
                None => Some(parse_body(input, &mut attrs)?),
            };
            Ok(Function { attrs, vis, sig, body })
        };
        parser.parse2(item.clone()).map_err(|error| {
            let error = error.into_compile_error();
            quote!(#error #item)
        })
    }

    /// Removes and gives the attributes that wrap the body of an `async fn`, as `#[tracing::instrument]` and
    /// `#[fastrace::trace]` do. On a function that returns a coroutine, they would cover its first step only.
    pub(crate) fn take_instruments(&mut self) -> Vec<Attribute> {
        let (taken, kept) = std::mem::take(&mut self.attrs).into_iter().partition(|attr| {
            let instruments = |path: &syn::Path| {
                let last = path.segments.last();
                last.is_some_and(|last| last.ident == "instrument" || last.ident == "trace")
            };
            match &attr.meta {
                Meta::List(list) if list.path.is_ident("cfg_attr") => {
                    let metas = Punctuated::<Meta, Token![,]>::parse_terminated;
                    let metas = metas.parse2(list.tokens.clone()).unwrap_or_default();
                    metas.iter().skip(1).any(|meta| instruments(meta.path()))
                }
                meta => instruments(meta.path()),
            }
        });
        self.attrs = kept;
        taken
    }
}

impl ToTokens for Function {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        let Function { attrs, vis, sig, body } = self;
        let body = match body {
            Some(body) => quote!(#body),
            None => quote_spanned!(sig.fn_token.span=> ;),
        };
        tokens.extend(quote!(#(#attrs)* #vis #sig #body));
    }
}

/// Whether a function's signature comes next in the input, with any qualifiers before its `fn`.
fn stands_before_a_function(input: ParseStream) -> bool {
    let ahead = input.fork();
    loop {
        if ahead.peek(Token![fn]) {
            return true;
        }
        let is_qualifier = ahead.peek(Token![const])
            || ahead.peek(Token![async])
            || ahead.peek(Token![unsafe])
            || ahead.peek(Token![extern])
            || ahead.peek(syn::LitStr);
        if !is_qualifier || ahead.parse::<TokenTree>().is_err() {
            return false;
        }
    }
}

/// Reads the function's body: the braces and what is in them. Inner attributes (`#![..]`) become
/// attributes of the function, since they are not allowed in the block that the body becomes.
fn parse_body(input: ParseStream, attrs: &mut Vec<Attribute>) -> syn::Result<Group> {
    let mut tree: TokenTree = input.parse()?;
    let body = loop {
        match tree {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => break group,
            // A body that is the `$body:block` of a `macro_rules!` comes in invisible brackets.
            TokenTree::Group(group) if group.delimiter() == Delimiter::None => {
                tree = syn::parse2(group.stream())?;
            }
            other => return Err(syn::Error::new_spanned(other, "expected the function's body")),
        }
    };
    let inside = |input: ParseStream| {
        let inner = input.call(Attribute::parse_inner)?;
        Ok((inner, input.parse::<TokenStream>()?))
    };
    let (inner, rest) = inside.parse2(body.stream())?;
    if inner.is_empty() {
        return Ok(body);
    }
    attrs.extend(inner.into_iter().map(|attr| Attribute { style: AttrStyle::Outer, ..attr }));
    let mut rebuilt = Group::new(Delimiter::Brace, rest);
    rebuilt.set_span(body.span());
    Ok(rebuilt)
}

/// What the function is declared to return, which is the coroutine's output.
pub(crate) struct Output {
    arrow: Token![->],
    /// The type as it was written. It is `()` if none was, and `Infallible` for `!`, which is no type
    /// argument in stable Rust.
    pub(crate) ty: Type,
    /// Whether it contains an `impl Trait`, so that the type can be written only in the signature.
    pub(crate) is_opaque: bool,
    pub(crate) is_never: bool,
    is_unit: bool,
}

impl Output {
    pub(crate) fn of(sig: &Signature) -> Output {
        let (arrow, mut ty) = match &sig.output {
            ReturnType::Type(arrow, ty) => (*arrow, (**ty).clone()),
            ReturnType::Default => {
                // Located where the type would stand, with the hygiene of a macro's tokens, so that no lint
                // complains of a type that the user has not written.
                let at = Span::mixed_site().located_at(sig.paren_token.span.close());
                (Token![->](at), syn::parse2(quote_spanned!(at=> ())).expect("a type"))
            }
        };
        let is_never = matches!(bare(&ty), Type::Never(_));
        if is_never {
            ty = syn::parse2(quote_spanned!(ty.span()=> ::core::convert::Infallible))
                .expect("a type");
        }
        let mut opaque = FindOpaque(false);
        opaque.visit_type(&ty);
        let is_unit = matches!(bare(&ty), Type::Tuple(tuple) if tuple.elems.is_empty());
        Output { arrow, ty, is_opaque: opaque.0, is_never, is_unit }
    }

    /// The return type of the emitted function: `-> Coroutine<T>`, or another type of handle around `T`.
    pub(crate) fn wrapped(&self, handle: &TokenStream) -> ReturnType {
        let Output { arrow, ty, .. } = self;
        parse_quote!(#arrow #handle<#ty>)
    }

    /// Code for the `fn(&T) -> Option<String>` that gives the text to report, if an output that nobody has
    /// awaited is an error.
    pub(crate) fn report(&self, krate: &Crate) -> TokenStream {
        if self.is_unit || self.is_never || self.is_opaque {
            return quote!(#krate::__private::report_nothing);
        }
        let ty = &self.ty;
        quote!({
            #[allow(unused_imports)]
            use #krate::__private::ReportNothing as _;
            #krate::__private::Probe::<#ty>::REPORT
        })
    }
}

/// The type without the parentheses or invisible brackets that may be around it.
pub(crate) fn bare(mut ty: &Type) -> &Type {
    loop {
        match ty {
            Type::Paren(paren) => ty = &paren.elem,
            Type::Group(group) => ty = &group.elem,
            _ => return ty,
        }
    }
}

struct FindOpaque(bool);

impl<'ast> Visit<'ast> for FindOpaque {
    fn visit_type_impl_trait(&mut self, _: &'ast syn::TypeImplTrait) {
        self.0 = true;
    }

    // The length of an array is an expression. An `impl Trait` in that is not a part of the type.
    fn visit_expr(&mut self, _: &'ast syn::Expr) {}
}
