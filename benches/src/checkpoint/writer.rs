//! How fast a slot writes its state when nothing else is to be done, beside what the disk takes from plain threads.

use super::disk_limit;
use super::measure::CheckpointBench;
use super::report::{CheckpointReport, CheckpointSummary, Figure};
use crate::report::WorkloadReport;
use crate::workloads::job::BenchError;
use crate::workloads::pairs::median;

/// Of the disk's speed, so much is reached.
const TARGET_SHARE: f64 = 0.8;

/// Measures pairs of checkpoint and disk.
pub(super) fn measure(bench: &CheckpointBench, progress: &mut dyn FnMut(&str)) -> Result<WorkloadReport, BenchError> {
    let scratch = bench.scratch()?;
    let job = bench.wide_job(Vec::new(), Some(CheckpointBench::on_request(&scratch, false)));
    let job = job.start(&bench.settings)?;
    let ran = job.run(0)?;
    let files = bench.settings.parallelism as usize;
    let (mut shares, mut engine, mut disk, mut all) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut fio = Vec::new();
    for run in 1..=bench.runs.max(1) {
        let (taking, _) = job.checkpoint()?;
        let seconds = disk_limit::write(scratch.path(), files, taking.written_bytes)?;
        fio.extend(disk_limit::fio(scratch.path(), files, taking.written_bytes));
        let bytes = taking.written_bytes as f64;
        // Of the parts of the slots, the longest counts; they are in whole milliseconds.
        let own = bytes / (taking.async_ms.max(1) as f64 / 1e3);
        let limit = fio.last().copied().unwrap_or(bytes / seconds);
        progress(&format!(
            "writer, pair {run} of {}: {:.0} MiB in {} ms ({} ms from trigger to completion), the disk alone {:.0} ms: {:.0} %",
            bench.runs,
            bytes / 1_048_576.0,
            taking.async_ms,
            taking.duration_ms,
            bytes / limit * 1e3,
            own / limit * 100.0
        ));
        shares.push(own / limit);
        engine.push(own);
        disk.push(bytes / seconds);
        all.push(taking);
    }
    let taken = job.finish()?;
    let mut report = bench.report("checkpoint-writer", bench.wide_keys(), ran.seconds);
    let keys = bench.wide_keys();
    report.verified = Some(taken.records == keys && taken.running == keys);
    report.checkpoint = Some(CheckpointReport {
        figures: vec![Figure::at_least("writing state / the disk alone", TARGET_SHARE, shares)],
        checkpoints: Some(CheckpointSummary::of(&all)),
        bytes_per_s: Some(median(engine)),
        disk_bytes_per_s: Some(median(disk)),
        fio_bytes_per_s: (!fio.is_empty()).then(|| median(fio)),
        ..CheckpointReport::default()
    });
    Ok(report)
}
