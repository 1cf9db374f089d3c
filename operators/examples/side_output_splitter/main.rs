//! `side_output_splitter`: one operator with three outputs: the log, its errors, and what could not be read.
//!
//! ```text
//! cargo run --release --example side_output_splitter -- -p 1
//! ```

mod job;

use std::{fmt::Arguments, io::Write as _, process::ExitCode};

use thalweg::{NoArgs, prelude::for_each};

fn main() -> ExitCode {
    thalweg::main(|env, _: NoArgs| {
        let log = for_each(|line: job::LogLineView<'_>| show(format_args!("log      {}: {}", line.service, line.text)));
        let errors = for_each(|error: job::ErrorLineView<'_>| {
            show(format_args!("error    {}: {} (number {} there)", error.service, error.text, error.number));
        });
        let rejected = for_each(|line: &str| show(format_args!("rejected {line:?}")));
        job::build(env, job::LINES.map(str::to_owned).to_vec(), log, errors, rejected);
        Ok(())
    })
}

/// Prints a line. Whoever reads them may have seen enough, which is no failure of the job.
fn show(line: Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
