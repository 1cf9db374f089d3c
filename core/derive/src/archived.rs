//! The archived type and the resolver: how a record lies in bytes, and how foreign bytes are checked.
//!
//! `CheckBytes` is written out here because bytecheck's own derive declares types called `Tag` and `Discriminant` in
//! the scope of the fields' types, and records may well be called that.

use proc_macro2::{Ident, TokenStream};
use quote::{format_ident, quote};
use syn::{Index, ext::IdentExt, parse_quote};

use crate::{
    input::{Case, Input},
    types, view,
};

/// The archived type, the resolver, and the impls that rkyv needs of the archived type.
pub fn emit(input: &Input) -> TokenStream {
    let model = &input.model;
    let archived = input.archived_name();
    let resolver = input.resolver_name();
    let archived_doc = format!(" The encoded form of [`{}`].", input.name.unraw());
    let resolver_doc = format!(" What encoding a [`{}`] needs to know of its fields' bytes.", input.name.unraw());
    let declared = input.declare(&archived, &input.generics, |case| {
        case.declare(|field| {
            let (docs, label, vis) = (view::field_docs(field, case), field.label(), &field.vis);
            let record = types::as_record(&field.ty, model);
            quote! { #docs #vis #label #record::Archived }
        })
    });
    let declared_resolver = input.declare(&resolver, &input.generics, |case| {
        case.declare(|field| {
            let label = field.label();
            let record = types::as_record(&field.ty, model);
            quote! { #label #record::Resolver }
        })
    });
    let repr = if input.is_enum {
        quote! { u8 }
    } else {
        quote! { C }
    };
    let (impl_generics, type_generics, bounds) = input.generics.split_for_impl();
    let check = check_bytes(input);
    quote! {
        #[doc = #archived_doc]
        #[allow(missing_docs, dead_code)]
        #[repr(#repr)]
        #declared

        #[doc = #resolver_doc]
        #[allow(missing_docs)]
        #declared_resolver

        // SAFETY: the layout is fixed (`repr(C)`, or `repr(u8)` for an enum), and `Record` promises that all fields
        // are portable.
        #[automatically_derived]
        unsafe impl #impl_generics #model::rkyv::Portable for #archived #type_generics #bounds {}

        #check
    }
}

/// The layout of one variant of a `repr(u8)` enum, as the language defines it: a `repr(C)` struct that starts with the
/// tag. Only valid in the scope of [`layouts`].
pub fn layout_name(index: usize) -> Ident {
    format_ident!("__Variant{index}")
}

/// The name of field `i` in a variant's layout.
pub fn layout_field(i: usize) -> Ident {
    format_ident!("__field{i}")
}

/// The structs that [`layout_name`] names; none for a struct.
pub fn layouts(input: &Input) -> TokenStream {
    if !input.is_enum {
        return TokenStream::new();
    }
    let archived = input.archived_name();
    let params = &input.generics.params;
    let (_, type_generics, bounds) = input.generics.split_for_impl();
    let structs = input.cases.iter().enumerate().map(|(index, case)| {
        let name = layout_name(index);
        let fields = case.fields.iter().enumerate().map(|(i, field)| {
            let field_name = layout_field(i);
            let record = types::as_record(&field.ty, &input.model);
            quote! { #field_name: #record::Archived }
        });
        quote! {
            #[repr(C)]
            #[allow(dead_code)]
            struct #name<#params> #bounds {
                __tag: ::core::primitive::u8,
                #(#fields,)*
                __of: ::core::marker::PhantomData<#archived #type_generics>,
            }
        }
    });
    quote! { #(#structs)* }
}

fn check_bytes(input: &Input) -> TokenStream {
    let model = &input.model;
    let bytecheck = quote! { #model::rkyv::bytecheck };
    let rancor = quote! { #model::rkyv::rancor };
    let archived = input.archived_name();
    let (_, type_generics, _) = input.generics.split_for_impl();
    let mut generics = input.generics.clone();
    generics.params.push(parse_quote!(__C: #rancor::Fallible + ?::core::marker::Sized));
    let predicates = &mut generics.make_where_clause().predicates;
    predicates.push(parse_quote!(<__C as #rancor::Fallible>::Error: #rancor::Source));
    for field in input.fields() {
        let record = types::as_record(&field.ty, model);
        predicates.push(parse_quote!(#record::Archived: #bytecheck::CheckBytes<__C>));
    }
    let (impl_generics, _, bounds) = generics.split_for_impl();
    let layouts = layouts(input);
    let checks = if input.is_enum {
        let arms = input.cases.iter().enumerate().map(|(index, case)| {
            let tag = tag_of(index);
            let layout = layout_name(index);
            let members = (0..case.fields.len()).map(layout_field).map(|name| quote! { #name });
            let checks = field_checks(input, case, members);
            quote! {
                #tag => {
                    let value = value.cast::<#layout #type_generics>();
                    #checks
                }
            }
        });
        let enum_name = archived.to_string();
        quote! {
            // SAFETY: the caller promises that `value` may be read; the tag is its first byte.
            let tag = unsafe { *value.cast::<::core::primitive::u8>() };
            match tag {
                #(#arms)*
                #[allow(unreachable_patterns)]
                _ => {
                    return ::core::result::Result::Err(
                        <<__C as #rancor::Fallible>::Error as #rancor::Source>::new(
                            #bytecheck::InvalidEnumDiscriminantError {
                                enum_name: #enum_name,
                                invalid_discriminant: tag,
                            },
                        ),
                    );
                }
            }
        }
    } else {
        let case = &input.cases[0];
        let members = case.fields.iter().map(|field| {
            let member = &field.member;
            quote! { #member }
        });
        field_checks(input, case, members)
    };
    quote! {
        const _: () = {
            #layouts

            // SAFETY: the value is valid if its tag is that of a variant and all fields are valid.
            #[automatically_derived]
            unsafe impl #impl_generics #bytecheck::CheckBytes<__C> for #archived #type_generics #bounds {
                #[allow(unused_variables)]
                unsafe fn check_bytes(
                    value: *const Self,
                    context: &mut __C,
                ) -> ::core::result::Result<(), <__C as #rancor::Fallible>::Error> {
                    #checks
                    ::core::result::Result::Ok(())
                }
            }
        };
    }
}

/// Checks the fields of `value`, which points to the layout of `case`.
fn field_checks(input: &Input, case: &Case, members: impl Iterator<Item = TokenStream>) -> TokenStream {
    let model = &input.model;
    let checks = case.fields.iter().zip(members).map(|(field, member)| {
        let record = types::as_record(&field.ty, model);
        quote! {
            // SAFETY: the caller promises that `value` is aligned and may be read whole.
            unsafe {
                <#record::Archived as #model::rkyv::bytecheck::CheckBytes<__C>>::check_bytes(
                    &raw const (*value).#member,
                    context,
                )?;
            }
        }
    });
    quote! { #(#checks)* }
}

/// The tag byte of the variant with this index, without a suffix.
pub fn tag_of(index: usize) -> Index {
    Index::from(index)
}
