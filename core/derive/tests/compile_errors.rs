//! What users read when a type cannot be a record.
//!
//! After a change of messages, or of the compiler: `TRYBUILD=overwrite cargo test -p thalweg-derive`, then read the diff.

#[test]
fn when_a_type_cannot_be_a_record_then_the_error_names_the_field() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
