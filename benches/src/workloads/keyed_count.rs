//! `keyed-count`: source, `key_by`, running count per key, sink; beside it the bare shuffle-and-count loop.

use std::sync::Arc;
use std::sync::{Mutex, PoisonError};

use thalweg::MemoryReserve;
use thalweg::prelude::*;

use super::event::{Event, EventView};
use super::job::{BenchError, JobSettings};
use super::load::LoadPlan;
use super::pairs::{Pair, Pairs};
use crate::limits::shuffle_count::{CountSums, Counted, ShuffleCount};
use crate::report::WorkloadReport;

/// What is measured, for those who read the table.
pub const MEASURED: &str = "Job: source, key_by, running count per key, sink, over 24-byte records. Limit: the same \
    work as a bare loop on pinned threads. Both begin with one record of each key, which is not timed.";

/// A count to be measured.
#[derive(Clone, Debug)]
pub struct KeyedCount {
    /// Number of keys.
    pub keys: u64,
    /// Records, besides one for each key.
    pub records: u64,
    /// Where and how.
    pub settings: JobSettings,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct KeyedCountReport {
    /// Medians.
    pub report: WorkloadReport,
    /// All runs.
    pub pairs: Pairs,
}

/// Takes running counts and adds up what [`CountSums`] holds.
#[derive(Clone)]
struct SumSink {
    plan: Arc<LoadPlan>,
    sums: CountSums,
    published: u64,
    total: Arc<Mutex<CountSums>>,
}

impl Sink<(u64, u64)> for SumSink {
    #[inline(always)]
    fn write(&mut self, (key, count): (u64, u64), _: i64) -> Result<(), thalweg::sink::SinkError> {
        self.sums = self.sums.plus(CountSums { records: 1, running: count, keys: key });
        Ok(())
    }

    fn flush(&mut self) -> Result<(), thalweg::sink::SinkError> {
        self.plan.count_arrived(self.sums.records - self.published);
        self.published = self.sums.records;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), thalweg::sink::SinkError> {
        self.plan.note_end();
        let mut total = self.total.lock().unwrap_or_else(PoisonError::into_inner);
        *total = total.plus(self.sums);
        Ok(())
    }

    fn name(&self) -> &str {
        "Sums"
    }
}

impl KeyedCount {
    /// Measures `runs` pairs of limit and job. `progress` is told of every run.
    ///
    /// # Errors
    /// The job fails, or the numbers make no sense.
    pub fn measure(&self, runs: usize, mut progress: impl FnMut(&str)) -> Result<KeyedCountReport, BenchError> {
        self.check()?;
        // What one run gives back to the system the next would take anew, and the host of a virtual machine stalls both.
        let _reserve = MemoryReserve::new();
        let (mut pairs, mut verified, mut job_rss_mib) = (Pairs::default(), true, 0f64);
        for run in 1..=runs.max(1) {
            let limit = self.limit()?;
            let plan = Arc::new(LoadPlan::new(self.keys, self.records, None));
            let job = self.job_of(&plan)?;
            job_rss_mib = job_rss_mib.max(plan.rss_mib());
            verified &= job.sums == limit.sums && job.sums.records == self.keys + self.records;
            let of = |seconds: f64| self.records as f64 / seconds;
            let pair = Pair { limit: of(limit.seconds), job: of(job.seconds) };
            progress(&format!(
                "keyed-count, {} keys, -p {}, pair {run} of {runs}: limit {}/s, job {}/s, {:.0} %",
                self.keys,
                self.settings.parallelism,
                crate::report::rate(pair.limit),
                crate::report::rate(pair.job),
                pair.ratio() * 100.0
            ));
            pairs.0.push(pair);
        }
        let parallelism = self.settings.parallelism;
        let seconds = self.records as f64 / pairs.job();
        let mut report = WorkloadReport::new("keyed-count", parallelism, parallelism, self.records, seconds);
        report = report.with_limit(pairs.limit());
        report.rss_mib = job_rss_mib;
        report.verified = Some(verified);
        Ok(KeyedCountReport { report, pairs })
    }

    /// Whether the numbers make sense.
    ///
    /// # Errors
    /// They do not.
    pub fn check(&self) -> Result<(), BenchError> {
        if self.keys == 0 || self.keys >= 1 << 31 || self.records == 0 {
            let text = "a count needs a record and a key at least, and fewer than 2^31 keys: see --keys and --records";
            return Err(BenchError::Setting(text.into()));
        }
        Ok(())
    }

    /// Runs the limit once.
    ///
    /// # Errors
    /// The system does not give the memory for it.
    pub fn limit(&self) -> Result<Counted, BenchError> {
        let threads = self.settings.parallelism as usize;
        ShuffleCount { threads, cores: self.settings.cores.clone(), keys: self.keys, records: self.records }.run()
    }

    /// Runs the job once.
    ///
    /// # Errors
    /// It fails.
    pub fn job(&self) -> Result<Counted, BenchError> {
        self.job_of(&Arc::new(LoadPlan::new(self.keys, self.records, None)))
    }

    /// Runs the job once with a load of the caller's.
    ///
    /// # Errors
    /// It fails.
    pub fn job_of(&self, plan: &Arc<LoadPlan>) -> Result<Counted, BenchError> {
        let total = Arc::default();
        let sink = SumSink { plan: plan.clone(), sums: CountSums::default(), published: 0, total: Arc::clone(&total) };
        let env = self.settings.environment("keyed-count");
        env.from_source("Load", plan.source())
            .key_by(|event: EventView| event.key)
            .aggregate(Count, |key, count| (key, count))
            .sink(sink);
        env.execute()?;
        let sums = *total.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = plan.seconds().ok_or_else(|| BenchError::Wrong("the job ended before it began".into()))?;
        Ok(Counted { seconds, sums })
    }
}

const _: () = assert!(size_of::<Event>() == 24);
