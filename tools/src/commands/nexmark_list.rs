//! `thalweg nexmark list`: the queries and the fields of their results.

use std::fmt::Write as _;
use std::io::Write as _;

use thalweg_benches::nexmark::Query;

use crate::error::CliError;

/// Prints the list.
pub fn run() -> Result<(), CliError> {
    let mut text = String::new();
    for query in Query::ALL {
        writeln!(text, "{:<3} {}\n    {}", query.name(), query.description(), query.fields().join(", "))
            .expect("writing to a string");
    }
    std::io::stdout().write_all(text.as_bytes()).map_err(CliError::Output)
}
