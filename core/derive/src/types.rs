//! Field types by their syntax: which are plain, and what their views are.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{GenericArgument, Path, PathArguments, Type, WherePredicate, parse_quote_spanned, spanned::Spanned};

/// Types that are their own views.
const NATIVE: [&str; 14] =
    ["u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64", "u128", "i128", "f32", "f64", "bool", "char"];

/// The first segments of paths to the standard library, as they are written after a `use std::...`.
const STD_ROOTS: [&str; 9] = ["std", "core", "alloc", "time", "sync", "collections", "rc", "cell", "borrow"];

/// A type of the prelude or of the standard library: its name and its type arguments.
pub fn std_type(ty: &Type) -> Option<(String, Vec<&Type>)> {
    let Type::Path(path) = ty else { return None };
    if path.qself.is_some() {
        return None;
    }
    let segments = &path.path.segments;
    if segments.len() > 1 && !STD_ROOTS.iter().any(|root| segments[0].ident == root) {
        return None;
    }
    let last = segments.last()?;
    let args = match &last.arguments {
        PathArguments::AngleBracketed(args) => args
            .args
            .iter()
            .filter_map(|arg| if let GenericArgument::Type(ty) = arg { Some(ty) } else { None })
            .collect(),
        _ => Vec::new(),
    };
    Some((last.ident.to_string(), args))
}

/// The type without the parentheses and the invisible groups that macros leave.
pub fn bare(mut ty: &Type) -> &Type {
    loop {
        ty = match ty {
            Type::Group(group) => &group.elem,
            Type::Paren(paren) => &paren.elem,
            _ => return ty,
        }
    }
}

/// Whether the type is visibly its own view: numbers, `bool`, `char`, and tuples and options of them.
pub fn is_plain(ty: &Type) -> bool {
    let ty = bare(ty);
    if let Type::Tuple(tuple) = ty {
        return tuple.elems.iter().all(is_plain);
    }
    match std_type(ty) {
        Some((name, args)) if args.is_empty() => NATIVE.contains(&name.as_str()),
        Some((name, args)) => name == "Option" && args.len() == 1 && is_plain(args[0]),
        None => false,
    }
}

/// The view of a type for the lifetime `'a`.
///
/// Known types are spelled out: documentation and errors read better so, and `&'a str` may be shortened to any shorter
/// lifetime, which rustc does not see of `<String as Record>::View<'a>`.
pub fn view_of(ty: &Type, model: &Path) -> TokenStream {
    let ty = bare(ty);
    if is_plain(ty) {
        return ty.to_token_stream();
    }
    if let Type::Tuple(tuple) = ty {
        let views = tuple.elems.iter().map(|ty| view_of(ty, model));
        return quote! { (#(#views,)*) };
    }
    if let Some((name, args)) = std_type(ty) {
        match (name.as_str(), args.as_slice()) {
            ("String", []) => return quote! { &'a ::core::primitive::str },
            ("Vec", [element]) => {
                let span = at(element);
                return quote_spanned! { span=> #model::Seq<'a, #element> };
            }
            ("Option", [value]) => {
                let view = view_of(value, model);
                return quote! { ::core::option::Option<#view> };
            }
            _ => {}
        }
    }
    let record = as_record(ty, model);
    quote! { #record::View<'a> }
}

/// The types inside `ty` of which only the compiler can tell whether they are records.
pub fn unknown<'t>(ty: &'t Type, found: &mut Vec<&'t Type>) {
    let ty = bare(ty);
    if is_plain(ty) {
        return;
    }
    if let Type::Tuple(tuple) = ty {
        return tuple.elems.iter().for_each(|ty| unknown(ty, found));
    }
    match std_type(ty) {
        Some((name, args)) if name == "String" && args.is_empty() => {}
        Some((name, args)) if (name == "Vec" || name == "Option") && args.len() == 1 => unknown(args[0], found),
        _ => found.push(ty),
    }
}

/// `Ty: Record`, placed at the field.
pub fn must_be_record(ty: &Type, model: &Path) -> WherePredicate {
    let span = at(ty);
    parse_quote_spanned! { span=> #ty: #model::Record }
}

/// `<Ty as Record>`, placed at the field so that rustc's errors point there.
pub fn as_record(ty: &Type, model: &Path) -> TokenStream {
    let span = at(ty);
    quote_spanned! { span=> <#ty as #model::Record> }
}

/// The place of `ty` in the user's file, but still marked as code of this macro.
fn at(ty: &Type) -> Span {
    Span::call_site().located_at(ty.span())
}
