//! What stands in the source: a function, and what it returns.

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

/// A function whose body is left alone.
pub(crate) struct Function {
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) vis: Visibility,
    pub(crate) sig: Signature,
    /// In its braces; none where a trait only declares the function.
    pub(crate) body: Option<Group>,
}

impl Function {
    /// On failure, the tokens to emit: what is wrong, and the item as it stood.
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

    /// Takes away the attributes that wrap the body of an `async fn`, as `#[tracing::instrument]` and
    /// `#[fastrace::trace]` do. Of a function that returns a coroutine they would see the first step only.
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

/// Whether a signature follows, however many qualifiers stand before its `fn`.
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

/// The braces and what is in them. Inner attributes move out to the function, since the block that
/// the body becomes cannot carry them.
fn parse_body(input: ParseStream, attrs: &mut Vec<Attribute>) -> syn::Result<Group> {
    let mut tree: TokenTree = input.parse()?;
    let body = loop {
        match tree {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => break group,
            // A `$body:block` of a `macro_rules!` comes in invisible brackets.
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

/// What the function returns when it is done.
pub(crate) struct Output {
    arrow: Token![->],
    /// As it stood; `()` where nothing did, and `Infallible` for `!`, which no stable generic takes.
    pub(crate) ty: Type,
    /// Whether it holds an `impl Trait`, which only the signature may spell.
    pub(crate) is_opaque: bool,
    pub(crate) is_never: bool,
    is_unit: bool,
}

impl Output {
    pub(crate) fn of(sig: &Signature) -> Output {
        let (arrow, mut ty) = match &sig.output {
            ReturnType::Type(arrow, ty) => (*arrow, (**ty).clone()),
            ReturnType::Default => {
                // Where the type would stand, and no place that a lint would blame.
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

    /// `-> Coroutine<T>`, or another handle's type.
    pub(crate) fn wrapped(&self, handle: &TokenStream) -> ReturnType {
        let Output { arrow, ty, .. } = self;
        parse_quote!(#arrow #handle<#ty>)
    }

    /// The `fn(&T) -> Option<String>` that words an error nobody awaited.
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

/// The type without the brackets, visible or not, that may stand around it.
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

    // An array's length is an expression, which no such type is a part of.
    fn visit_expr(&mut self, _: &'ast syn::Expr) {}
}
