//! `pipeline`: source, map, filter and sink, chained; beside it the same loop written by hand.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use thalweg::fuse::Out;
use thalweg::prelude::*;

use super::event::{Event, EventView, plain};
use super::job::{BenchError, JobSettings};
use super::pairs::{Pair, Pairs};
use crate::limits;
use crate::report::{WorkloadReport, rate};

/// What is measured, for those who read the table.
pub const MEASURED: &str = "Job: source, map, filter, sink over 24-byte records, chained. Limit: the same loop written \
    by hand. From the first record to the last.";

/// Record `n` of the source.
#[inline(always)]
pub fn made(n: u64) -> Event {
    plain(n)
}

/// What the map makes of it.
#[inline(always)]
pub fn mapped(event: Event) -> Event {
    Event { value: event.value.wrapping_mul(3) ^ (event.key >> 7), ..event }
}

/// Whether the filter keeps it: every other one, in no order that a branch predictor could learn.
#[inline(always)]
pub fn passes(event: Event) -> bool {
    event.key >> 63 == 0
}

/// A pipeline to be measured.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// Records.
    pub records: u64,
    /// Where and how.
    pub settings: JobSettings,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct PipelineReport {
    /// Medians.
    pub report: WorkloadReport,
    /// All runs.
    pub pairs: Pairs,
    /// The checksum of every run of job and limit, if it was the same.
    pub checksum: Option<u64>,
}

#[derive(Default)]
struct Taken {
    started: Option<Instant>,
    ended: Option<Instant>,
    checksum: u64,
}

/// Adds up values.
struct ChecksumSink {
    checksum: u64,
    total: Arc<Mutex<Taken>>,
}

impl Clone for ChecksumSink {
    fn clone(&self) -> Self {
        Self { checksum: 0, total: self.total.clone() }
    }
}

impl Sink<Event> for ChecksumSink {
    fn open(&mut self, _: &thalweg::sink::SinkContext) -> Result<(), thalweg::sink::SinkError> {
        self.total.lock().unwrap_or_else(PoisonError::into_inner).started = Some(Instant::now());
        Ok(())
    }

    #[inline(always)]
    fn write(&mut self, event: EventView, _: i64) -> Result<(), thalweg::sink::SinkError> {
        std::hint::black_box(&event);
        self.checksum = self.checksum.wrapping_add(event.value);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), thalweg::sink::SinkError> {
        let mut total = self.total.lock().unwrap_or_else(PoisonError::into_inner);
        total.ended = Some(Instant::now());
        total.checksum = total.checksum.wrapping_add(self.checksum);
        Ok(())
    }

    fn name(&self) -> &str {
        "Checksum"
    }
}

impl Pipeline {
    /// Measures `runs` pairs of limit and job. `progress` is told of every run.
    ///
    /// # Errors
    /// The job fails, or there are no records.
    pub fn measure(&self, runs: usize, mut progress: impl FnMut(&str)) -> Result<PipelineReport, BenchError> {
        super::job::check_records(self.records)?;
        let parallelism = self.settings.parallelism;
        let (mut pairs, mut checksums) = (Pairs::default(), Vec::new());
        for run in 1..=runs.max(1) {
            let (limit_s, of_limit) = limits::pipeline::run(parallelism as usize, &self.settings.cores, self.records);
            let (job_s, of_job) = self.job()?;
            let pair = Pair { limit: self.records as f64 / limit_s, job: self.records as f64 / job_s };
            progress(&format!(
                "pipeline, -p {parallelism}, pair {run} of {runs}: limit {}/s, job {}/s, {:.2} times its time",
                rate(pair.limit),
                rate(pair.job),
                1.0 / pair.ratio()
            ));
            pairs.0.push(pair);
            checksums.extend([of_limit, of_job]);
        }
        let checksum = checksums.first().copied().filter(|first| checksums.iter().all(|other| other == first));
        let seconds = self.records as f64 / pairs.job();
        let mut report = WorkloadReport::new("pipeline", parallelism, parallelism, self.records, seconds);
        report = report.with_limit(pairs.limit());
        report.verified = Some(checksum.is_some());
        Ok(PipelineReport { report, pairs, checksum })
    }

    /// Runs the job once; answers its seconds and checksum.
    ///
    /// # Errors
    /// It fails.
    pub fn job(&self) -> Result<(f64, u64), BenchError> {
        let total = Arc::<Mutex<Taken>>::default();
        let env = self.settings.environment("pipeline");
        env.generate_to(self.records, None, |n, out: &mut Out<'_, Event>| out.push(made(n).view()))
            .map(|event: EventView| mapped(event.to_record()))
            .filter(|event| passes(event.to_record()))
            .sink(ChecksumSink { checksum: 0, total: total.clone() });
        env.execute()?;
        let taken = total.lock().unwrap_or_else(PoisonError::into_inner);
        match (taken.started, taken.ended) {
            (Some(started), Some(ended)) => Ok(((ended - started).as_secs_f64(), taken.checksum)),
            _ => Err(BenchError::Wrong("the job ended before it began".into())),
        }
    }
}
