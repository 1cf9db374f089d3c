//! The view type: the same cases with native, borrowed fields, and what users call on it.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Generics, ext::IdentExt, parse_quote};

use crate::{
    input::{Case, Field, Input, Style},
    types,
};

/// The view type with its standard traits and its conversion to the owned type.
pub fn emit(input: &Input) -> TokenStream {
    let name = &input.name;
    let model = &input.model;
    let vis = &input.vis;
    let view = input.view_name();
    let generics = input.view_generics();
    let doc = format!(" The view of [`{}`]: what functions see of it, and what they build to emit one.", name.unraw());
    let declared = input.declare(&view, &generics, |case| {
        case.declare(|field| {
            let (docs, label) = (field_docs(field, case), field.label());
            let ty = types::view_of(&field.ty, model);
            let vis = &field.vis;
            quote! { #docs #vis #label #ty }
        })
    });
    let impls = standard_impls(input, &generics);
    let (impl_generics, view_types, bounds) = generics.split_for_impl();
    let (_, types, _) = input.generics.split_for_impl();
    let variant_docs = if input.is_enum {
        quote! { #[allow(missing_docs)] }
    } else {
        TokenStream::new()
    };
    quote! {
        #[doc = #doc]
        #variant_docs
        #declared
        #impls

        #[automatically_derived]
        impl #impl_generics #view #view_types #bounds {
            /// The owned record. Allocates where the record owns memory.
            #[inline]
            #[must_use]
            #[allow(dead_code)]
            #vis fn to_record(self) -> #name #types {
                <#name #types as #model::Record>::from_view(self)
            }
        }

        #[automatically_derived]
        impl #impl_generics ::core::convert::From<#view #view_types> for #name #types #bounds {
            #[inline]
            fn from(view: #view #view_types) -> Self {
                <Self as #model::Record>::from_view(view)
            }
        }
    }
}

/// The user's documentation of a field, or a line of ours.
pub fn field_docs(field: &Field, case: &Case) -> TokenStream {
    if field.docs.is_empty() && case.variant.is_none() {
        let doc = format!(" Field `{}`.", field.spelling());
        return quote! { #[doc = #doc] };
    }
    let docs = &field.docs;
    quote! { #(#docs)* }
}

/// `Clone`, `Copy`, `Debug` and `PartialEq`. Rust's own derives would ask that the type's parameters have the traits,
/// while it is their views that must.
fn standard_impls(input: &Input, generics: &Generics) -> TokenStream {
    let view = input.view_name();
    let (impl_generics, view_types, bounds) = generics.split_for_impl();
    let debug_arms = input.cases.iter().map(|case| {
        let pattern = case.pattern(&view, "f");
        let values = case.bindings("f");
        let title = case.variant.as_ref().unwrap_or(&view).unraw().to_string();
        let names = case.fields.iter().map(Field::spelling);
        match case.style {
            Style::Named => quote! { #pattern => f.debug_struct(#title) #(.field(#names, #values))* .finish() },
            Style::Tuple | Style::Unit => quote! { #pattern => f.debug_tuple(#title) #(.field(#values))* .finish() },
        }
    });
    let eq_arms = input.cases.iter().map(|case| {
        let (a, b) = (case.pattern(&view, "a"), case.pattern(&view, "b"));
        let (x, y) = (case.bindings("a"), case.bindings("b"));
        quote! { (#a, #b) => true #(&& *#x == *#y)* }
    });
    let eq_rest = (input.cases.len() > 1).then(|| quote! { _ => false });
    let mut eq_generics = generics.clone();
    let mut unknown = Vec::new();
    input.fields().for_each(|field| types::unknown(&field.ty, &mut unknown));
    for ty in unknown {
        let record = types::as_record(ty, &input.model);
        eq_generics.make_where_clause().predicates.push(parse_quote!(#record::View<'a>: ::core::cmp::PartialEq));
    }
    let eq_bounds = &eq_generics.where_clause;
    quote! {
        #[automatically_derived]
        impl #impl_generics ::core::clone::Clone for #view #view_types #bounds {
            #[inline(always)]
            fn clone(&self) -> Self {
                *self
            }
        }
        #[automatically_derived]
        impl #impl_generics ::core::marker::Copy for #view #view_types #bounds {}
        #[automatically_derived]
        impl #impl_generics ::core::fmt::Debug for #view #view_types #bounds {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                match self { #(#debug_arms,)* }
            }
        }
        #[automatically_derived]
        impl #impl_generics ::core::cmp::PartialEq for #view #view_types #eq_bounds {
            #[inline]
            fn eq(&self, other: &Self) -> ::core::primitive::bool {
                match (self, other) { #(#eq_arms,)* #eq_rest }
            }
        }
    }
}
