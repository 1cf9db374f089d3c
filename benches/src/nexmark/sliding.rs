//! Measures what a shorter slide costs: q5 with a slide of a half and of a hundredth of its window.

use std::{num::NonZeroU32, sync::PoisonError, time::Duration};

use thalweg::{Environment, Error};

use super::{
    Generator, InputOrder, Reference, RowDigest, digest_generated, queries,
    run_state::RunState,
    sink::{LatencyOf, RowSink},
    source::{GeneratorSource, Paced, Turns},
    windows::Windows,
};
use crate::{options::EngineOptions, report::WorkloadReport};

const SEED: u64 = 1;
const SIZE_MS: NonZeroU32 = NonZeroU32::new(10_000).unwrap();
const HALF_MS: NonZeroU32 = NonZeroU32::new(5_000).unwrap();
const HUNDREDTH_MS: NonZeroU32 = NonZeroU32::new(100).unwrap();

/// Runs both by turns, `runs` times each; answers the medians. The second report's limit is the rate of the first, so that
/// its ratio is what is left of the throughput.
///
/// # Errors
/// Whatever fails a job.
pub fn measure(events: u64, runs: usize, engine: &EngineOptions) -> Result<Vec<WorkloadReport>, Error> {
    let expected = [HALF_MS, HUNDREDTH_MS].map(|slide_ms| {
        let reference = Reference::hot_items(Windows::hop(SIZE_MS, slide_ms), InputOrder::Ascending);
        digest_generated(reference, &Generator::new(SEED), events)
    });
    let (mut half, mut hundredth) = (Vec::new(), Vec::new());
    for _ in 0..runs.max(1) {
        half.push(run(HALF_MS, events, expected[0], engine)?);
        hundredth.push(run(HUNDREDTH_MS, events, expected[1], engine)?);
    }
    let half = median(half);
    let hundredth = median(hundredth).with_limit(half.records_per_s);
    Ok(vec![half, hundredth])
}

fn median(mut reports: Vec<WorkloadReport>) -> WorkloadReport {
    let verified = reports.iter().all(|report| report.verified == Some(true));
    reports.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let middle = reports.len() / 2;
    WorkloadReport { verified: Some(verified), ..reports.swap_remove(middle) }
}

fn run(
    slide_ms: NonZeroU32,
    events: u64,
    expected: RowDigest,
    engine: &EngineOptions,
) -> Result<WorkloadReport, Error> {
    let name = format!("q5, {slide_ms} ms slide");
    let env = Environment::new();
    engine.apply(&env);
    env.job_name(&name);
    let run = RunState::new();
    let source = GeneratorSource::new(Generator::new(SEED), events);
    let source = Paced::new(source, None, Turns::Strided, u64::MAX, run.clone());
    let sink = RowSink::new(run.clone(), LatencyOf::Nothing, None);
    let rows = sink.rows();
    queries::q5(env.from_timed_source("Nexmark", source), SIZE_MS, slide_ms, sink);
    env.execute()?;
    let seconds = run.elapsed().unwrap_or(Duration::MAX).as_secs_f64();
    let parallelism = env.default_parallelism();
    let mut report = WorkloadReport::new(name, parallelism, parallelism, run.emitted(), seconds);
    report.verified = Some(rows.lock().unwrap_or_else(PoisonError::into_inner).digest == expected);
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_measured_small_then_both_results_are_right() {
        let engine = EngineOptions { parallelism: Some(1), oversubscribe: true, ..EngineOptions::default() };
        let reports = measure(30_000, 1, &engine).unwrap();
        assert!(reports.iter().all(|report| report.verified == Some(true) && report.records == 30_000));
    }
}
