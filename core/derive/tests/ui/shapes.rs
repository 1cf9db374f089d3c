//! Types of shapes that cannot be records, and wrong options.

use thalweg_derive::Record;

#[derive(Record)]
union Union {
    a: u64,
}

#[derive(Record)]
struct Borrowed<'a> {
    name: &'a str,
}

#[derive(Record)]
struct Const<const N: usize> {
    value: u64,
}

#[derive(Record)]
enum Never {}

#[derive(Record)]
#[record(modle = ::thalweg_model)]
struct Misspelled {
    value: u64,
}

fn main() {}
