//! Latency and stalls of a steady load over a large state, with a checkpoint each interval and without, by turns; and of a
//! loop that changes as many rows of as much memory while plain threads write what the checkpoints wrote.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use super::disk_limit;
use super::job::{Ran, Taking};
use super::load::{Keys, Stage};
use super::measure::CheckpointBench;
use super::report::{Both, CheckpointReport, CheckpointSummary, Figure, stall_counts};
use super::rows::WIDE_ROW_BYTES;
use super::sink::SETTLE_NS;
use crate::latency::hiccup::{self, ProbeRows, Probed};
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

/// What was measured, and how much memory of it was the probe's, in bytes.
pub(super) struct Measured {
    pub(super) report: WorkloadReport,
    pub(super) probe_bytes: u64,
}

/// Measures pairs.
pub(super) fn measure(bench: &CheckpointBench, progress: &mut dyn FnMut(&str)) -> Result<Measured, BenchError> {
    let mut settings = bench.settings.clone();
    // A slot that sleeps between two records is late by its wake-up, with checkpoints or without.
    settings.engine.spin_us = settings.engine.spin_us.or((!settings.engine.oversubscribe).then_some(ALWAYS_SPIN_US));
    let (mut with, mut without, mut probes) = (Vec::new(), Vec::new(), Vec::new());
    let cores = settings.used_cores();
    let share = bench.state_bytes / cores.len() as u64;
    let mut rows: Vec<ProbeRows> = cores.iter().map(|_| ProbeRows::new(share, WIDE_ROW_BYTES)).collect();
    for run in 1..=bench.runs.max(1) {
        // Whoever comes second finds the machine as the first has left it: they take turns.
        let first = run % 2 == 1;
        let (one, other) = (once(bench, &settings, first)?, once(bench, &settings, !first)?);
        let (yes, no) = if first { (one, other) } else { (other, one) };
        let written: Vec<u64> = yes.checkpoints.iter().map(|taking| taking.written_bytes).collect();
        let probed = probe_beside_writing(bench, cores, &mut rows, &written)?;
        progress(&format!(
            "latency, pair {run} of {}: p99.99 {:.0} µs with {} checkpoints, {:.0} µs without, own stalls over 1 ms {} and {}, \
             of the probe {}",
            bench.runs,
            yes.latency.p99_99,
            yes.checkpoints.len(),
            no.latency.p99_99,
            yes.stalls.1.over_1ms(),
            no.stalls.1.over_1ms(),
            probed.own_stalls.over_1ms()
        ));
        with.push(yes);
        without.push(no);
        probes.push(probed);
    }
    let ran = median(with.iter().map(|run| run.ran.seconds));
    let mut report = bench.report("checkpoint-latency", records(bench), ran);
    report.latency_us = Some(middle(with.iter().map(|run| run.latency)));
    report.probe_latency_us = Some(middle(probes.iter().filter_map(|probe| LatencyUs::from_ns(&probe.latency))));
    report.verified = Some(with.iter().chain(&without).all(|run| run.verified));
    let stalls_of = |runs: &[Run]| runs.iter().map(|run| run.stalls).collect::<Vec<Both>>();
    let stalls =
        [stalls_of(&with), stalls_of(&without), probes.iter().map(|probe| (probe.stalls, probe.own_stalls)).collect()];
    let [with_sum, without_sum, probe_sum] = stalls.each_ref().map(|all| {
        all.iter().fold(Both::default(), |mut sum, stalls| {
            sum.0.add(&stalls.0);
            sum.1.add(&stalls.1);
            sum
        })
    });
    let ratio = |of: fn(&LatencyUs) -> f64| {
        let pairs = with.iter().zip(&without);
        pairs.map(|(yes, no)| of(&yes.latency) / of(&no.latency)).collect::<Vec<f64>>()
    };
    let checkpoints: Vec<Taking> = with.iter().flat_map(|run| run.checkpoints.iter().copied()).collect();
    let [with_own, without_own, probe_own] =
        stalls.map(|all| all.iter().map(|stalls| stalls.1.over_1ms()).collect::<Vec<u64>>());
    let beyond = with_own.iter().zip(&probe_own).map(|(own, probe)| own.saturating_sub(*probe) as f64).collect();
    report.checkpoint = Some(CheckpointReport {
        figures: vec![
            Figure::at_most("p99.99 with checkpoints / without", TARGET_RATIO, ratio(|l| l.p99_99)),
            Figure::at_most("p99.9 with checkpoints / without", TARGET_RATIO, ratio(|l| l.p99_9)),
            Figure::at_most("own stalls of a slot over 1 ms beyond the probe's, each run", 0.0, beyond),
        ],
        checkpoints: Some(CheckpointSummary::of(&checkpoints)),
        without_latency_us: Some(middle(without.iter().map(|run| run.latency))),
        stalls: stall_counts(&with_sum, &without_sum, &probe_sum),
        notes: vec![format!(
            "own stalls over 1 ms, run by run: with {with_own:?}, without {without_own:?}, probe {probe_own:?}"
        )],
        ..CheckpointReport::default()
    });
    Ok(Measured { report, probe_bytes: share * cores.len() as u64 })
}

/// Probes with rows, while plain threads write each interval what the next of the checkpoints has written.
fn probe_beside_writing(
    bench: &CheckpointBench,
    cores: &[usize],
    rows: &mut [ProbeRows],
    written: &[u64],
) -> Result<Probed, BenchError> {
    let scratch = bench.scratch()?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for bytes in written.iter().cycle().take_while(|_| !over.load(Relaxed)) {
                let began = Instant::now();
                disk_limit::write(scratch.path(), cores.len(), *bytes)?;
                std::thread::sleep(bench.interval.saturating_sub(began.elapsed()));
            }
            std::io::Result::Ok(())
        });
        let probed = hiccup::probe_rows(cores, bench.records_per_s, bench.duration, rows);
        over.store(true, Relaxed);
        writer.join().expect("a limit's thread does not panic")?;
        Ok(probed)
    })
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
