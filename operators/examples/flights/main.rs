//! `flights`: a job over real data. Per carrier and three hours: the departures from New York, how many were cancelled,
//! and how late the others left.
//!
//! ```text
//! cargo run --release --example flights -- --help
//! ```

mod job;
mod model;

use std::process::ExitCode;

fn main() -> ExitCode {
    thalweg::main(|env, args: job::FlightsArgs| Ok(job::build(env, &args)?))
}
