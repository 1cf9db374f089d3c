//! How long a job takes to begin from a checkpoint of a large state, beside reading its files.

use super::disk_limit;
use super::job::files_below;
use super::load::{Keys, Stage};
use super::measure::CheckpointBench;
use super::report::{CheckpointReport, Figure};
use crate::report::WorkloadReport;
use crate::workloads::job::BenchError;
use crate::workloads::pairs::median;

/// A restore takes at most so many times what reading the files takes.
const TARGET_RATIO: f64 = 2.0;

/// Leaves a checkpoint, then measures pairs of restore and reading.
pub(super) fn measure(bench: &CheckpointBench, progress: &mut dyn FnMut(&str)) -> Result<WorkloadReport, BenchError> {
    let (kept, own) = (bench.scratch()?, bench.scratch()?);
    let job = bench.wide_job(Vec::new(), Some(CheckpointBench::on_request(&kept, false)));
    let job = job.start(&bench.settings)?;
    job.run(0)?;
    let (_, location) = job.checkpoint()?;
    job.cancel();
    let files = files_below(kept.path())?;
    let parallelism = bench.settings.parallelism;
    let keys = bench.wide_keys();
    let (mut ratios, mut seconds, mut speeds, mut disk) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut verified = true;
    for run in 1..=bench.runs.max(1) {
        disk_limit::forget(&files);
        let mut job = bench.wide_job(Vec::new(), Some(CheckpointBench::on_request(&own, false)));
        job.restore = Some(location.clone());
        job.stages = vec![Stage { keys: Keys::Each, records: keys, records_per_s: None }];
        let job = job.start(&bench.settings)?;
        let restored = job.opened(parallelism)?.as_secs_f64();
        // Every key is named once more: its count was 1 and is 2.
        job.run(0)?;
        let taken = job.finish()?;
        verified &= taken.records == keys && taken.running == 2 * keys && taken.first_counts == 0;
        disk_limit::forget(&files);
        let (bytes, read) = disk_limit::read(&files, parallelism as usize)?;
        progress(&format!(
            "restore, pair {run} of {}: {:.0} MiB in {:.0} ms, reading the files {:.0} ms: {:.2} times",
            bench.runs,
            bytes as f64 / 1_048_576.0,
            restored * 1e3,
            read * 1e3,
            restored / read
        ));
        ratios.push(restored / read);
        seconds.push(restored);
        speeds.push(bytes as f64 / restored);
        disk.push(bytes as f64 / read);
    }
    let mut report = bench.report("checkpoint-restore", keys, median(seconds));
    report.verified = Some(verified);
    report.checkpoint = Some(CheckpointReport {
        figures: vec![Figure::at_most("restore / reading its files", TARGET_RATIO, ratios)],
        bytes_per_s: Some(median(speeds)),
        disk_bytes_per_s: Some(median(disk)),
        ..CheckpointReport::default()
    });
    Ok(report)
}
