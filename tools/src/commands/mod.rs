//! The subcommands, one a file: each turns its flags into a call of the harness and prints what comes back.

pub mod bench;
pub mod job;
pub mod nexmark_generate;
pub mod nexmark_list;
pub mod nexmark_run;
pub mod nexmark_slide;
pub mod savepoint;
pub mod state;

use std::io::Write as _;

use thalweg::model::metrics::MetricRegistry;
use thalweg_benches::report::{Format, WorkloadReport, table};
use thalweg_benches::workloads::job::BenchError;

use crate::engine_args::EngineArgs;
use crate::error::CliError;

/// Runs workloads with metrics served, prints their reports and fails if a result was wrong.
///
/// `workloads` hands over each report as soon as it is there: JSON lines are printed at once, the table at the end.
fn report(
    engine: &EngineArgs,
    format: Format,
    workloads: impl FnOnce(&MetricRegistry, &mut dyn FnMut(WorkloadReport)) -> Result<(), BenchError>,
) -> Result<(), CliError> {
    let registry = MetricRegistry::default();
    let _server = engine.serve_metrics(&registry).map_err(CliError::Metrics)?;
    let mut reports = Vec::new();
    let mut printed = Ok(());
    let outcome = workloads(&registry, &mut |report| {
        if format == Format::Json && printed.is_ok() {
            printed = print(&format!("{}\n", report.to_json()));
        }
        reports.push(report);
    });
    // What was measured before a failure is shown all the same.
    if format == Format::Table && !reports.is_empty() {
        printed = print(&table(&reports));
    }
    outcome?;
    printed?;
    let wrong: Vec<String> =
        reports.iter().filter(|report| report.verified == Some(false)).map(|report| report.workload.clone()).collect();
    if wrong.is_empty() { Ok(()) } else { Err(CliError::Wrong(wrong)) }
}

fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(CliError::Output)
}
