//! What an incremental checkpoint writes after one key in a hundred has changed.

use super::load::{Keys, Stage};
use super::measure::CheckpointBench;
use super::report::{CheckpointReport, CheckpointSummary, Figure};
use crate::report::WorkloadReport;
use crate::workloads::job::BenchError;

/// Of the bytes of the full one, at most so many are written.
const TARGET_SHARE: f64 = 0.05;
/// Records for each hot key, so that those that are hotter show.
const ROUNDS: u64 = 4;

/// Measures a full checkpoint, then increments.
pub(super) fn measure(bench: &CheckpointBench, progress: &mut dyn FnMut(&str)) -> Result<WorkloadReport, BenchError> {
    let scratch = bench.scratch()?;
    let keys = bench.wide_keys();
    let records = (keys / 100).max(1) * ROUNDS;
    let runs = bench.runs.max(1);
    let touch = Stage { keys: Keys::Hot, records, records_per_s: None };
    let job = bench.wide_job(vec![touch; runs], Some(CheckpointBench::on_request(&scratch, true)));
    let job = job.start(&bench.settings)?;
    job.run(0)?;
    let (full, _) = job.checkpoint()?;
    let (mut shares, mut all, mut seconds) = (Vec::new(), Vec::new(), 0.0);
    for run in 1..=runs {
        seconds += job.run(run)?.seconds;
        let (taking, _) = job.checkpoint()?;
        shares.push(taking.written_bytes as f64 / full.written_bytes.max(1) as f64);
        progress(&format!(
            "incremental, run {run} of {runs}: {} bytes after {records} records on 1 % of {keys} keys; the full one {} bytes; \
             {} ms, the full one {} ms",
            taking.written_bytes, full.written_bytes, taking.duration_ms, full.duration_ms
        ));
        all.push(taking);
    }
    let taken = job.finish()?;
    let all_records = records * runs as u64;
    let mut report = bench.report("checkpoint-incremental", all_records, seconds);
    report.verified = Some(taken.records == keys + all_records && taken.first_counts == keys);
    report.checkpoint = Some(CheckpointReport {
        figures: vec![Figure::at_most("bytes of an increment / of the full one", TARGET_SHARE, shares)],
        checkpoints: Some(CheckpointSummary::of(&all)),
        notes: vec![format!("the full one: {} bytes, {} ms", full.written_bytes, full.duration_ms)],
        ..CheckpointReport::default()
    });
    Ok(report)
}
