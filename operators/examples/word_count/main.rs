//! `word_count`: counts the words of a text, and prints each count as it grows.
//!
//! ```text
//! cargo run --release --example word_count -- --input README.md -p 1
//! ```

mod job;

use std::{path::PathBuf, process::ExitCode};

use thalweg::{clap, prelude::print};

/// Counts the words of a text; prints a word and its count each time it comes.
#[derive(clap::Args)]
struct WordCountArgs {
    /// The text [default: a few lines of Shakespeare]
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
}

fn main() -> ExitCode {
    thalweg::main(|env, args: WordCountArgs| {
        job::build(env, job::Lines::of(args.input), print());
        Ok(())
    })
}
