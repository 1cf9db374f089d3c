//! `#[derive(Record)]`: makes a struct or an enum a record that can flow through a job.
//!
//! The macro only reads syntax and emits code; it must never touch files, the environment or the network.

mod archived;
mod input;
mod record;
mod reject;
mod schema;
mod types;
mod view;

use proc_macro::TokenStream;
use quote::quote;
use syn::{DeriveInput, parse_macro_input};

/// Implements `thalweg::model::Record` for a struct or an enum whose fields are all records.
///
/// For `struct Bid { auction: u64, channel: String }` it writes:
///
/// - `BidView<'a> { auction: u64, channel: &'a str }`, the `Copy` view that user functions see and that they build to
///   emit a bid. It has the visibility of `Bid`, field by field, and `to_record()` makes a `Bid` of it. A type of plain
///   numbers, `bool`s and `char`s (also in tuples and `Option`s) has a view without the lifetime: `BidView`.
/// - `ArchivedBid`, the encoded form, and `BidResolver`, which encoding needs.
/// - `Record for Bid`, `From<BidView<'_>> for Bid`, and rkyv's `Archive`, `Serialize` and `Deserialize`.
///
/// The view of an enum is an enum with the same variants; the archived enum starts with the variant's index as one
/// byte, so that variants may be appended, but not be reordered, without changing the meaning of stored bytes. State is
/// stored with its schema (names, types and places of all fields): if the type changes, it needs a migration.
/// Discriminants (`A = 5`) are not stored. Type parameters need no bounds: each must be a `Record`.
///
/// `#[record(model = ::path)]` names the `thalweg_model` crate where it is not `::thalweg::model`.
///
/// # Errors
/// It does not compile for unions, for types with lifetimes or const parameters, for enums without variants or with
/// more than 256, for types that contain themselves, and for fields that are no records; the error names the field.
#[proc_macro_derive(Record, attributes(record))]
pub fn derive_record(tokens: TokenStream) -> TokenStream {
    let input = parse_macro_input!(tokens as DeriveInput);
    let input = match input::Input::parse(input) {
        Ok(input) => input,
        Err(error) => return error.to_compile_error().into(),
    };
    let view = view::emit(&input);
    let archived = archived::emit(&input);
    let record = record::emit(&input);
    quote! { #view #archived #record }.into()
}
