//! `thalweg nexmark run`: queries on the engine, checked against the reference.

use thalweg::entry::Interrupt;
use thalweg_benches::nexmark::{Query, run};
use thalweg_benches::options::NexmarkOptions;
use thalweg_benches::workloads::job::BenchError;

use crate::cli::RunArgs;
use crate::error::CliError;

/// Runs the queries one after the other.
pub fn run(args: RunArgs) -> Result<(), CliError> {
    let mut queries = args.queries;
    if queries.is_empty() {
        queries.extend(Query::ALL);
    }
    let options = NexmarkOptions {
        queries,
        events: args.events,
        seed: args.seed,
        rate: args.rate,
        input: args.input,
        output: args.output,
    };
    let engine = args.engine.options()?;
    // Whoever stops it in the middle gets what was measured until then, and no half a job.
    let interrupt = Interrupt::listen().map_err(BenchError::from)?;
    super::report(&args.engine, args.format, |metrics, done| run::run(&options, &engine, metrics, &interrupt, done))
}
