//! Throughput of a keyed count with a checkpoint each interval and without, by turns, and what the disk needs for the
//! same bytes. The job is that of `bench keyed-count`: its state is the count of each key, and nothing else.

use super::disk_limit;
use super::job::{Ran, Rows, StateJob, Taking};
use super::load::{Counted, Keys, Stage};
use super::measure::CheckpointBench;
use super::report::{CheckpointReport, CheckpointSummary, Figure};
use crate::report::{WorkloadReport, rate};
use crate::workloads::job::BenchError;
use crate::workloads::pairs::median;

/// Of the throughput without checkpoints, so much is left with them.
const TARGET_SHARE: f64 = 0.9;
/// A checkpoint takes so many times what the disk needs for its bytes.
const TARGET_DISK: f64 = 2.0;

/// Measures pairs.
pub(super) fn measure(bench: &CheckpointBench, progress: &mut dyn FnMut(&str)) -> Result<WorkloadReport, BenchError> {
    let (mut shares, mut rates, mut limits) = (Vec::new(), Vec::new(), Vec::new());
    let (mut all, mut durations, mut speeds) = (Vec::new(), Vec::new(), Vec::new());
    let (mut verified, mut expected) = (true, None);
    for run in 1..=bench.runs.max(1) {
        let first = run % 2 == 1;
        let (one, other) = (once(bench, first)?, once(bench, !first)?);
        let (yes, no) = if first { (one, other) } else { (other, one) };
        for counted in [yes.counted, no.counted] {
            // The load is the same each time: a checkpoint that changes a count changes the sum of all.
            verified &= *expected.get_or_insert(counted) == counted;
            verified &= counted.records == bench.count_keys + bench.records && counted.first_counts == bench.count_keys;
        }
        let (with, without) = (bench.records as f64 / yes.ran.seconds, bench.records as f64 / no.ran.seconds);
        let checkpoints = yes.checkpoints;
        let summary = CheckpointSummary::of(&checkpoints);
        let mut line = format!(
            "throughput, pair {run} of {}: {}/s with {} checkpoints, {}/s without: {:.1} %",
            bench.runs,
            rate(with),
            checkpoints.len(),
            rate(without),
            with / without * 100.0
        );
        if summary.completed > 0 && summary.written_bytes > 0.0 {
            let scratch = bench.scratch()?;
            let files = bench.settings.parallelism as usize;
            let seconds = disk_limit::write(scratch.path(), files, summary.written_bytes as u64)?;
            durations.push(summary.duration_ms / 1e3 / seconds);
            speeds.push(summary.written_bytes / seconds);
            line += &format!("; {:.0} ms each, the disk alone {:.0} ms", summary.duration_ms, seconds * 1e3);
        }
        progress(&line);
        shares.push(with / without);
        rates.push(with);
        limits.push(without);
        all.extend(checkpoints);
    }
    let seconds = bench.records as f64 / median(rates);
    let mut report = bench.report("checkpoint-throughput", bench.records, seconds).with_limit(median(limits));
    report.verified = Some(verified);
    let mut figures = vec![Figure::at_least("throughput with checkpoints / without", TARGET_SHARE, shares)];
    if !durations.is_empty() {
        figures.push(Figure::at_most("a checkpoint / its bytes on the disk alone", TARGET_DISK, durations));
    }
    report.checkpoint = Some(CheckpointReport {
        figures,
        checkpoints: Some(CheckpointSummary::of(&all)),
        disk_bytes_per_s: (!speeds.is_empty()).then(|| median(speeds)),
        ..CheckpointReport::default()
    });
    Ok(report)
}

/// A run.
struct Run {
    ran: Ran,
    checkpoints: Vec<Taking>,
    counted: Counted,
}

fn once(bench: &CheckpointBench, with: bool) -> Result<Run, BenchError> {
    let scratch = bench.scratch()?;
    let (keys, records) = (bench.count_keys, bench.records);
    let mut checkpoints = CheckpointBench::on_request(&scratch, false);
    checkpoints.interval = Some(bench.interval);
    let stages = vec![
        Stage { keys: Keys::Each, records: keys, records_per_s: None },
        Stage { keys: Keys::Uniform, records, records_per_s: None },
    ];
    let checkpoints = with.then_some(checkpoints);
    let job = StateJob { keys, rows: Rows::Count, stages, checkpoints, restore: None, permits: None };
    let job = job.start(&bench.settings)?;
    job.run(0)?;
    let ran = job.run(1)?;
    let checkpoints = job.checkpoints_since(ran.began_ms);
    Ok(Run { ran, checkpoints, counted: job.finish()?.counted() })
}
