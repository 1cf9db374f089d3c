//! Checkpoints while a sink behind a hash edge holds the stream back, aligned and unaligned.

use std::time::{Duration, Instant};

use super::job::{Checkpoints, Rows, StateJob, Taking};
use super::load::{Keys, Stage};
use super::measure::CheckpointBench;
use super::report::{CheckpointReport, CheckpointSummary, Figure};
use super::throttle::Throttle;
use crate::report::{WorkloadReport, rate};
use crate::workloads::job::BenchError;

/// Keys of the count in front of the sink: its state is small, what is in flight is not.
const KEYS: u64 = 10_000;
/// An unaligned checkpoint completes within so many milliseconds.
const TARGET_MS: f64 = 1_000.0;
/// What the sink takes, as a share of what it could.
const SHARES: [f64; 3] = [0.1, 0.001, 0.000_1];
/// An aligned checkpoint is waited for so long.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Before the first checkpoint, so that all buffers are full.
const FILL: Duration = Duration::from_millis(500);

/// Measures each share, both ways.
pub(super) fn measure(
    bench: &CheckpointBench,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<WorkloadReport>, BenchError> {
    let full_per_s = full_speed(bench)?;
    let mut reports = Vec::new();
    for share in SHARES {
        let throttled = full_per_s * share;
        for unaligned in [true, false] {
            let Throttled { takings, per_s, records, verified } = once(bench, throttled, unaligned)?;
            let way = if unaligned { "unaligned" } else { "aligned" };
            let summary = CheckpointSummary::of(&takings);
            let note =
                format!("{way}, the sink takes {}/s, {} % of {}/s", rate(throttled), share * 100.0, rate(full_per_s));
            progress(&format!(
                "{note}: {} of {} checkpoints complete, {:.0} ms (start delay {:.0} ms, alignment {:.0} ms), {:.1} MiB in flight",
                summary.completed,
                takings.len(),
                summary.duration_ms,
                summary.start_delay_ms,
                summary.alignment_ms,
                summary.persisted_bytes / 1_048_576.0
            ));
            let seconds = records as f64 / per_s.max(1e-9);
            let mut report = bench.report(&format!("checkpoint-{way}-{}", share), records.max(1), seconds.max(1e-9));
            report.verified = Some(verified);
            let runs: Vec<f64> = takings.iter().map(|taking| taking.duration_ms as f64).collect();
            // The aligned ones are there to show why; they have no target.
            let figures = match unaligned && !runs.is_empty() {
                true => vec![Figure::at_most("milliseconds of an unaligned checkpoint", TARGET_MS, runs)],
                false => Vec::new(),
            };
            report.checkpoint = Some(CheckpointReport {
                figures,
                checkpoints: Some(summary),
                notes: vec![note],
                ..CheckpointReport::default()
            });
            reports.push(report);
        }
    }
    Ok(reports)
}

fn job(records: u64, checkpoints: Option<Checkpoints>) -> StateJob {
    let stages = vec![Stage { keys: Keys::Uniform, records, records_per_s: None }];
    StateJob { keys: KEYS, rows: Rows::Narrow, stages, checkpoints, restore: None, permits: None }
}

/// What the job does where nothing holds it back, records per second.
fn full_speed(bench: &CheckpointBench) -> Result<f64, BenchError> {
    let records = (bench.records / 4).max(1);
    let running = job(records, None).start(&bench.settings)?;
    let ran = running.run(0)?;
    running.finish()?;
    Ok(records as f64 / ran.seconds)
}

/// What came of checkpoints under a throttled sink.
struct Throttled {
    takings: Vec<Taking>,
    /// Records that arrived while the sink was throttled, and how many a second.
    records: u64,
    per_s: f64,
    /// Whether all that was sent was counted right, what was in flight in between included.
    verified: bool,
}

fn once(bench: &CheckpointBench, records_per_s: f64, unaligned: bool) -> Result<Throttled, BenchError> {
    let scratch = bench.scratch()?;
    let throttle = Throttle::start(records_per_s)?;
    let mut checkpoints = CheckpointBench::on_request(&scratch, false);
    (checkpoints.unaligned, checkpoints.timeout) = (unaligned, TIMEOUT);
    let mut job = job(u64::MAX / 2, Some(checkpoints));
    job.permits = Some(throttle.permits());
    let running = job.start(&bench.settings)?;
    let began = Instant::now();
    running.begin(0);
    std::thread::sleep(FILL);
    for _ in 0..bench.runs.max(1) {
        // One that fails is among those that are shown.
        let _ = running.checkpoint();
    }
    let takings = running.checkpoints_since(0);
    let (records, seconds) = (running.arrived(), began.elapsed().as_secs_f64());
    let (is_right, counted) = running.finish_within(0)?;
    let verified = is_right && counted > 0 && counted >= records;
    Ok(Throttled { takings, records, per_s: records as f64 / seconds, verified })
}
