//! `thalweg nexmark slide`: q5 with a long and a short slide, side by side.

use thalweg_benches::nexmark::sliding;

use crate::cli::SlideArgs;
use crate::error::CliError;

/// Measures both; the ratio is what the short slide leaves of the throughput.
pub fn run(args: &SlideArgs) -> Result<(), CliError> {
    let engine = args.engine.unserved_options("nexmark slide")?;
    super::report(&args.engine, args.format, |_, done| {
        let reports = sliding::measure(args.events, args.runs.into(), &engine)?;
        reports.into_iter().for_each(done);
        Ok(())
    })
}
