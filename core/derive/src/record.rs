//! The `Record` impl, and rkyv's own traits on top of it.

use proc_macro2::TokenStream;
use quote::quote;
use syn::parse_quote;

use crate::{
    archived::{layout_field, layout_name, layouts, tag_of},
    input::{Case, Input},
    schema,
    types::as_record,
};

/// All trait impls of the owned type.
pub fn emit(input: &Input) -> TokenStream {
    let record = record_impl(input);
    let rkyv = rkyv_impls(input);
    let layouts = layouts(input);
    quote! {
        const _: () = {
            #layouts
            #record
            #rkyv
        };
    }
}

/// `match #on { each case => #arm }`.
fn match_cases(input: &Input, on: TokenStream, arm: impl Fn(usize, &Case) -> TokenStream) -> TokenStream {
    let arms = input.cases.iter().enumerate().map(|(index, case)| arm(index, case));
    quote! { match #on { #(#arms,)* } }
}

fn record_impl(input: &Input) -> TokenStream {
    let name = &input.name;
    let model = &input.model;
    let (view, archived, resolver) = (input.view_name(), input.archived_name(), input.resolver_name());
    let (impl_generics, types, bounds) = input.generics.split_for_impl();
    let view_generics = input.view_generics();
    let (_, view_types, _) = view_generics.split_for_impl();
    let records: Vec<_> = input.fields().map(|field| as_record(&field.ty, model)).collect();

    // One match per function that maps every field with a function of its own.
    let mapped = |on: TokenStream, from: &syn::Ident, to: &syn::Ident, function: TokenStream| {
        match_cases(input, on, |_, case| {
            let pattern = case.pattern(from, "f");
            let built = case.build(
                to,
                |field, value| {
                    let record = as_record(&field.ty, model);
                    quote! { #record::#function(#value) }
                },
                "f",
            );
            quote! { #pattern => #built }
        })
    };
    let view_body = mapped(quote! { self }, name, &view, quote! { view });
    let view_archived_body = mapped(quote! { archived }, &archived, &view, quote! { view_archived });
    let from_view_body = mapped(quote! { view }, &view, name, quote! { from_view });
    let shorten_body = mapped(quote! { view }, &view, &view, quote! { shorten });
    let serialize_body = match_cases(input, quote! { view }, |_, case| {
        let pattern = case.pattern(&view, "f");
        let built = case.build(
            &resolver,
            |field, value| {
                let record = as_record(&field.ty, model);
                quote! { #record::serialize_view(#value, serializer)? }
            },
            "f",
        );
        quote! { #pattern => ::core::result::Result::Ok(#built) }
    });
    let resolve_body = resolve_body(input);
    let hash_body = match_cases(input, quote! { view }, |index, case| {
        let pattern = case.pattern(&view, "f");
        let values = case.bindings("f");
        let records = case.fields.iter().map(|field| as_record(&field.ty, model));
        let tag = tag_of(index);
        let tagged = input.is_enum.then(|| quote! { hasher.word(#tag); });
        quote! { #pattern => { #tagged #(#records::hash_view(#values, hasher);)* } }
    });
    let eq_arms = input.cases.iter().map(|case| {
        let (a, b) = (case.pattern(&view, "a"), case.pattern(&view, "b"));
        let (x, y) = (case.bindings("a"), case.bindings("b"));
        let records = case.fields.iter().map(|field| as_record(&field.ty, model));
        quote! { (#a, #b) => true #(&& #records::eq_view(#x, #y))* }
    });
    let eq_rest = (input.cases.len() > 1).then(|| quote! { _ => false });
    let schema_functions = schema::functions(input);
    let inline = if input.is_enum {
        quote! { #[inline] }
    } else {
        quote! { #[inline(always)] }
    };
    quote! {
        // SAFETY: every field is written through its own `Record` impl at its own place, and an enum's tag besides;
        // `FIXED` and `ALIGN` are those of all fields together.
        #[automatically_derived]
        #[allow(unused_variables, clippy::all)]
        unsafe impl #impl_generics #model::Record for #name #types #bounds {
            type View<'a> = #view #view_types;
            type Archived = #archived #types;
            type Resolver = #resolver #types;
            const FIXED: ::core::primitive::bool = true #(&& #records::FIXED)*;
            const ALIGN: ::core::primitive::usize = {
                let align = ::core::mem::align_of::<#archived #types>();
                #(let align = if #records::ALIGN > align { #records::ALIGN } else { align };)*
                align
            };

            #[inline(always)]
            fn view(&self) -> <Self as #model::Record>::View<'_> {
                #view_body
            }
            #[inline(always)]
            fn view_archived(archived: &<Self as #model::Record>::Archived) -> <Self as #model::Record>::View<'_> {
                #view_archived_body
            }
            #[inline]
            fn from_view(view: <Self as #model::Record>::View<'_>) -> Self {
                #from_view_body
            }
            #[inline(always)]
            fn shorten<'__short, '__long: '__short>(
                view: <Self as #model::Record>::View<'__long>,
            ) -> <Self as #model::Record>::View<'__short> {
                #shorten_body
            }
            #[inline(always)]
            fn serialize_view<__S>(
                view: <Self as #model::Record>::View<'_>,
                serializer: &mut __S,
            ) -> ::core::result::Result<<Self as #model::Record>::Resolver, __S::Error>
            where
                __S: #model::rkyv::rancor::Fallible
                    + #model::rkyv::ser::Writer
                    + #model::rkyv::ser::Allocator
                    + ?::core::marker::Sized,
                __S::Error: #model::rkyv::rancor::Source,
            {
                #serialize_body
            }
            #[inline(always)]
            fn resolve_view(
                view: <Self as #model::Record>::View<'_>,
                resolver: <Self as #model::Record>::Resolver,
                out: #model::rkyv::Place<<Self as #model::Record>::Archived>,
            ) {
                #resolve_body
            }
            #inline
            fn hash_view(view: <Self as #model::Record>::View<'_>, hasher: &mut #model::KeyHasher) {
                #hash_body
            }
            #inline
            fn eq_view(
                a: <Self as #model::Record>::View<'_>,
                b: <Self as #model::Record>::View<'_>,
            ) -> ::core::primitive::bool {
                match (a, b) { #(#eq_arms,)* #eq_rest }
            }
            #schema_functions
        }
    }
}

fn resolve_body(input: &Input) -> TokenStream {
    let model = &input.model;
    let (view, resolver) = (input.view_name(), input.resolver_name());
    let (_, types, _) = input.generics.split_for_impl();
    let arms = input.cases.iter().enumerate().map(|(index, case)| {
        let (v, r) = (case.pattern(&view, "v"), case.pattern(&resolver, "r"));
        let fields = case.fields.iter().zip(case.bindings("v")).zip(case.bindings("r")).enumerate().map(
            |(i, ((field, value), resolver))| {
                let record = as_record(&field.ty, model);
                let member = if input.is_enum {
                    let name = layout_field(i);
                    quote! { #name }
                } else {
                    let member = &field.member;
                    quote! { #member }
                };
                quote! {
                    // SAFETY: the pointer is to a field of the value that `out` is the place of.
                    #record::resolve_view(#value, #resolver, unsafe {
                        #model::rkyv::Place::from_field_unchecked(out, &raw mut (*out.ptr()).#member)
                    });
                }
            },
        );
        let tagged = input.is_enum.then(|| {
            let layout = layout_name(index);
            let tag = tag_of(index);
            quote! {
                // SAFETY: a variant of a `repr(u8)` enum is laid out as the `repr(C)` struct of its tag and fields,
                // and is no larger than the enum; the tag is one initialised byte.
                let out = unsafe { out.cast_unchecked::<#layout #types>() };
                unsafe { (&raw mut (*out.ptr()).__tag).write(#tag) };
            }
        });
        quote! { (#v, #r) => { #tagged #(#fields)* } }
    });
    let rest = (input.cases.len() > 1)
        .then(|| quote! { _ => ::core::unreachable!("the resolver is that of another variant") });
    quote! { match (view, resolver) { #(#arms,)* #rest } }
}

/// rkyv's traits, so that the type can be used with rkyv itself and in its containers.
fn rkyv_impls(input: &Input) -> TokenStream {
    let name = &input.name;
    let model = &input.model;
    let rkyv = quote! { #model::rkyv };
    let archived = input.archived_name();
    let (impl_generics, types, bounds) = input.generics.split_for_impl();
    let mut serialize = input.generics.clone();
    serialize.params.push(parse_quote! {
        __S: #rkyv::rancor::Fallible + #rkyv::ser::Writer + #rkyv::ser::Allocator + ?::core::marker::Sized
    });
    let predicates = &mut serialize.make_where_clause().predicates;
    predicates.push(parse_quote!(<__S as #rkyv::rancor::Fallible>::Error: #rkyv::rancor::Source));
    let (serialize_generics, _, serialize_bounds) = serialize.split_for_impl();
    let mut deserialize = input.generics.clone();
    deserialize.params.push(parse_quote!(__D: #rkyv::rancor::Fallible + ?::core::marker::Sized));
    let (deserialize_generics, _, deserialize_bounds) = deserialize.split_for_impl();
    quote! {
        #[automatically_derived]
        impl #impl_generics #rkyv::Archive for #name #types #bounds {
            type Archived = <Self as #model::Record>::Archived;
            type Resolver = <Self as #model::Record>::Resolver;

            #[inline]
            fn resolve(
                &self,
                resolver: <Self as #model::Record>::Resolver,
                out: #rkyv::Place<<Self as #model::Record>::Archived>,
            ) {
                <Self as #model::Record>::resolve_view(<Self as #model::Record>::view(self), resolver, out);
            }
        }

        #[automatically_derived]
        impl #serialize_generics #rkyv::Serialize<__S> for #name #types #serialize_bounds {
            #[inline]
            fn serialize(
                &self,
                serializer: &mut __S,
            ) -> ::core::result::Result<
                <Self as #model::Record>::Resolver,
                <__S as #rkyv::rancor::Fallible>::Error,
            > {
                <Self as #model::Record>::serialize_view(<Self as #model::Record>::view(self), serializer)
            }
        }

        #[automatically_derived]
        impl #deserialize_generics #rkyv::Deserialize<#name #types, __D> for #archived #types #deserialize_bounds {
            #[inline]
            fn deserialize(
                &self,
                _: &mut __D,
            ) -> ::core::result::Result<#name #types, <__D as #rkyv::rancor::Fallible>::Error> {
                ::core::result::Result::Ok(<#name #types as #model::Record>::from_view(
                    <#name #types as #model::Record>::view_archived(self),
                ))
            }
        }
    }
}
