//! `Record::schema` and `Record::from_value`: how a record lies in its bytes, and how one is built without its type.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;

use crate::{
    archived::{layout_field, layout_name},
    input::{Case, Field, Input, Style},
};

/// Both functions. They are compiled only where they are called (`inline`): in what opens and restores state.
pub fn functions(input: &Input) -> TokenStream {
    let model = &input.model;
    let schema = schema_body(input);
    let from_value = from_value_body(input);
    quote! {
        #[inline]
        fn schema() -> #model::schema::Schema {
            #schema
        }
        #[inline]
        fn from_value(
            value: &#model::schema::Value,
        ) -> ::core::result::Result<Self, #model::schema::ValueError> {
            #from_value
        }
    }
}

fn style_of(input: &Input, case: &Case) -> TokenStream {
    let model = &input.model;
    match case.style {
        Style::Named => quote! { #model::schema::Style::Named },
        Style::Tuple => quote! { #model::schema::Style::Tuple },
        Style::Unit => quote! { #model::schema::Style::Unit },
    }
}

fn schema_body(input: &Input) -> TokenStream {
    let model = &input.model;
    let name = input.name.unraw().to_string();
    let archived = input.archived_name();
    let (_, types, _) = input.generics.split_for_impl();
    let cases = input.cases.iter().enumerate().map(|(index, case)| {
        let title = case.variant.as_ref().map_or_else(|| name.clone(), |variant| variant.unraw().to_string());
        let style = style_of(input, case);
        let fields = case.fields.iter().enumerate().map(|(i, field)| {
            let (label, ty) = (field.spelling(), &field.ty);
            let place = if input.is_enum {
                let (layout, member) = (layout_name(index), layout_field(i));
                quote! { ::core::mem::offset_of!(#layout #types, #member) }
            } else {
                let member = &field.member;
                quote! { ::core::mem::offset_of!(#archived #types, #member) }
            };
            quote! { .field::<#ty>(#label, #place) }
        });
        quote! { #model::schema::Case::new(#title, #style) #(#fields)* }
    });
    let kind = if input.is_enum {
        quote! { #model::schema::Kind::enumeration(#name) #(.variant(#cases))* }
    } else {
        quote! { #model::schema::Kind::Struct(#(#cases)*) }
    };
    quote! { #model::schema::Schema::archived_as::<#archived #types>(#kind) }
}

fn from_value_body(input: &Input) -> TokenStream {
    let model = &input.model;
    let name = &input.name;
    let built = |case: &Case| {
        let style = style_of(input, case);
        let labels = case.fields.iter().map(Field::spelling);
        let path = case.path(name);
        let fields = case.fields.iter().enumerate().map(|(i, field)| {
            let (member, ty) = (&field.member, &field.ty);
            quote! { #member: fields.field::<#ty>(#i)? }
        });
        quote! {
            let fields = #model::schema::build::Fields::of(value, #style, &[#(#labels),*])?;
            ::core::result::Result::Ok(#path { #(#fields,)* })
        }
    };
    if !input.is_enum {
        return built(&input.cases[0]);
    }
    let arms = input.cases.iter().map(|case| {
        let title = case.variant.as_ref().expect("a case of an enum is a variant").unraw().to_string();
        let build = built(case);
        quote! { #title => { #build } }
    });
    quote! {
        let (variant, value) = #model::schema::build::variant(value)?;
        match variant {
            #(#arms)*
            _ => ::core::result::Result::Err(#model::schema::build::unknown_variant(variant)),
        }
    }
}
