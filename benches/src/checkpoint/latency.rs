//! Latency and stalls of a steady load over a large state, with a checkpoint each interval and without, by turns.

use super::job::{Ran, Taking};
use super::load::{Keys, Stage};
use super::measure::CheckpointBench;
use super::report::{Both, CheckpointReport, CheckpointSummary, Figure, stall_counts};
use super::sink::SETTLE_NS;
use super::stalls::Stalls;
use crate::latency::hiccup;
use crate::report::{LatencyUs, WorkloadReport};
use crate::workloads::job::{BenchError, JobSettings};
use crate::workloads::open_loop::{ALWAYS_SPIN_US, middle};
use crate::workloads::pairs::median;

/// p99.99 with checkpoints is at most so many times that without.
const TARGET_RATIO: f64 = 1.5;

struct Run {
    latency: LatencyUs,
    stalls: Both,
    checkpoints: Vec<Taking>,
    ran: Ran,
    verified: bool,
}

/// Measures pairs.
pub(super) fn measure(bench: &CheckpointBench, progress: &mut dyn FnMut(&str)) -> Result<WorkloadReport, BenchError> {
    let mut settings = bench.settings.clone();
    // A slot that sleeps between two records is late by its wake-up, with checkpoints or without.
    settings.engine.spin_us = settings.engine.spin_us.or((!settings.engine.oversubscribe).then_some(ALWAYS_SPIN_US));
    let (mut with, mut without, mut probes) = (Vec::new(), Vec::new(), Vec::new());
    let mut probe_stalls = Stalls::default();
    for run in 1..=bench.runs.max(1) {
        let (probe, stalls) = hiccup::probe_stalls(settings.used_cores(), bench.records_per_s, bench.duration);
        probe_stalls.add(&stalls);
        probes.extend(LatencyUs::from_ns(&probe));
        // Whoever comes second finds the machine as the first has left it: they take turns.
        let first = run % 2 == 1;
        let (one, other) = (once(bench, &settings, first)?, once(bench, &settings, !first)?);
        let (yes, no) = if first { (one, other) } else { (other, one) };
        progress(&format!(
            "latency, pair {run} of {}: p99.99 {:.0} µs with {} checkpoints, {:.0} µs without, own stalls over 1 ms {} and {}",
            bench.runs,
            yes.latency.p99_99,
            yes.checkpoints.len(),
            no.latency.p99_99,
            yes.stalls.1.over_1ms(),
            no.stalls.1.over_1ms()
        ));
        with.push(yes);
        without.push(no);
    }
    let ran = median(with.iter().map(|run| run.ran.seconds));
    let mut report = bench.report("checkpoint-latency", records(bench), ran);
    report.latency_us = Some(middle(with.iter().map(|run| run.latency)));
    report.probe_latency_us = Some(middle(probes.iter().copied()));
    report.verified = Some(with.iter().chain(&without).all(|run| run.verified));
    let sum = |runs: &[Run]| {
        runs.iter().fold(Both::default(), |mut sum, run| {
            sum.0.add(&run.stalls.0);
            sum.1.add(&run.stalls.1);
            sum
        })
    };
    let ratio = |of: fn(&LatencyUs) -> f64| {
        let pairs = with.iter().zip(&without);
        pairs.map(|(yes, no)| of(&yes.latency) / of(&no.latency)).collect::<Vec<f64>>()
    };
    let checkpoints: Vec<Taking> = with.iter().flat_map(|run| run.checkpoints.iter().copied()).collect();
    let own = |runs: &[Run]| runs.iter().map(|run| run.stalls.1.over_1ms() as f64).collect::<Vec<f64>>();
    report.checkpoint = Some(CheckpointReport {
        figures: vec![
            Figure::at_most("p99.99 with checkpoints / without", TARGET_RATIO, ratio(|l| l.p99_99)),
            Figure::at_most("p99.9 with checkpoints / without", TARGET_RATIO, ratio(|l| l.p99_9)),
            Figure::at_most("own stalls of a slot over 1 ms, each run", 0.0, own(&with)),
        ],
        checkpoints: Some(CheckpointSummary::of(&checkpoints)),
        without_latency_us: Some(middle(without.iter().map(|run| run.latency))),
        stalls: stall_counts(&sum(&with), &sum(&without), &probe_stalls),
        ..CheckpointReport::default()
    });
    Ok(report)
}

fn records(bench: &CheckpointBench) -> u64 {
    let seconds = bench.duration.as_secs_f64() + SETTLE_NS as f64 / 1e9;
    ((seconds * bench.records_per_s) as u64).max(1)
}

fn once(bench: &CheckpointBench, settings: &JobSettings, with: bool) -> Result<Run, BenchError> {
    let scratch = bench.scratch()?;
    let records = records(bench);
    let steady = Stage { keys: Keys::Uniform, records, records_per_s: Some(bench.records_per_s) };
    let mut checkpoints = CheckpointBench::on_request(&scratch, true);
    checkpoints.interval = Some(bench.interval);
    let job = bench.wide_job(vec![steady], with.then_some(checkpoints)).start(settings)?;
    job.run(0)?;
    if with {
        // All of the state, so that those that follow write what has changed.
        job.checkpoint()?;
    }
    let ran = job.run(1)?;
    let checkpoints = job.checkpoints_since(ran.began_ms);
    let taken = job.finish()?;
    let latency = taken.latency.as_ref().and_then(LatencyUs::from_ns);
    let latency =
        latency.ok_or_else(|| BenchError::Setting("nothing was recorded: measure for longer, see --seconds".into()))?;
    let keys = bench.wide_keys();
    let verified = taken.records == keys + records && taken.first_counts == keys;
    Ok(Run { latency, stalls: (taken.stalls, taken.own_stalls), checkpoints, ran, verified })
}
