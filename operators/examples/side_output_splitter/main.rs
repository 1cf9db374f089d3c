//! `side_output_splitter`: one operator with three outputs: the log, its errors, and what could not be read.
//!
//! ```text
//! cargo run --release --example side_output_splitter -- -p 1
//! ```

mod job;

use std::process::ExitCode;

use thalweg::{NoArgs, prelude::for_each};

fn main() -> ExitCode {
    thalweg::main(|env, _: NoArgs| {
        let log = for_each(|line: job::LogLineView<'_>| println!("log      {}: {}", line.service, line.text));
        let errors = for_each(|error: job::ErrorLineView<'_>| {
            println!("error    {}: {} (number {} there)", error.service, error.text, error.number);
        });
        let rejected = for_each(|line: &str| println!("rejected {line:?}"));
        job::build(env, job::LINES.map(str::to_owned).to_vec(), log, errors, rejected);
        Ok(())
    })
}
