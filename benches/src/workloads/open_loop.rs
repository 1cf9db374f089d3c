//! Keyed count under a steady load: latency from scheduled send time, by turns with the hiccup probe.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use thalweg::prelude::*;

use super::event::EventView;
use super::job::{BenchError, JobSettings};
use super::load::LoadPlan;
use super::pairs::median;
use crate::latency::{hiccup, histogram, record};
use crate::report::{LatencyUs, WorkloadReport};

/// What is measured, for those who read the table.
pub const MEASURED: &str = "Latency from the moment a record was due to the sink's taking its count. Probe: what a loop \
    that only looks at the clock, on the same cores, would have seen. Neither counts the first half second. Limit: the \
    rate at which records were due.";

/// Spinning of slots that never sleep, in microseconds.
pub const ALWAYS_SPIN_US: u64 = 60_000_000;

/// Records due in so long after the start are sent but not recorded: the machine's clocks and caches settle.
const SETTLE: Duration = Duration::from_millis(500);

/// How long each run of a load is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    /// So long is recorded, after the half second that is not.
    Time(Duration),
    /// So many records in all. Of a run that is shorter than a second, the second half is recorded.
    Records(u64),
}

/// A load to be measured.
#[derive(Clone, Debug)]
pub struct OpenLoop {
    /// Number of keys.
    pub keys: u64,
    /// Records a second in all.
    pub records_per_s: f64,
    /// How long each run is.
    pub length: Length,
}

/// What a run of the job came to.
#[derive(Debug)]
pub struct LoopRun {
    /// Latencies in nanoseconds.
    pub latency: Histogram<u64>,
    /// Cores used, by all threads of the process.
    pub cores_used: f64,
    /// Records per second that arrived.
    pub records_per_s: f64,
    /// Resident memory when the job had everything, MiB.
    pub rss_mib: f64,
    /// Whether every record arrived, and the counts are right.
    pub verified: bool,
}

/// A pair of runs.
#[derive(Clone, Copy, Debug)]
pub struct LoopPair {
    /// Of the probe.
    pub probe: LatencyUs,
    /// Of the job.
    pub job: LatencyUs,
    /// Cores that the job used.
    pub cores_used: f64,
}

/// What came of a measurement.
#[derive(Clone, Debug)]
pub struct LoopReport {
    /// Medians.
    pub report: WorkloadReport,
    /// All runs.
    pub pairs: Vec<LoopPair>,
}

/// The count of a key, and when the record was due that made it so.
#[derive(Record, Clone, Copy, Debug)]
struct Latest {
    count: u64,
    due_ns: u64,
}

/// Counts, and remembers when the last record was due.
#[derive(Clone, Copy)]
struct CountLatest;

impl AggregateFunction<super::event::Event> for CountLatest {
    type Acc = Latest;
    type Out = Latest;

    #[inline(always)]
    fn create(&self) -> Latest {
        Latest { count: 0, due_ns: 0 }
    }
    #[inline(always)]
    fn add(&self, acc: &mut Latest, event: EventView) {
        acc.count += 1;
        acc.due_ns = event.ts;
    }
    fn merge(&self, acc: &mut Latest, other: &Latest) {
        acc.count += other.count;
        acc.due_ns = acc.due_ns.max(other.due_ns);
    }
    #[inline(always)]
    fn result(&self, acc: &Latest) -> Latest {
        *acc
    }
}

#[derive(Default)]
struct Taken {
    latency: Option<Histogram<u64>>,
    cores_used: f64,
    records: u64,
    first_counts: u64,
}

struct LatencySink {
    plan: Arc<LoadPlan>,
    latency: Histogram<u64>,
    /// What was due before is not recorded.
    settle_ns: u64,
    records: u64,
    first_counts: u64,
    published: u64,
    total: Arc<Mutex<Taken>>,
}

impl LatencySink {
    fn new(plan: Arc<LoadPlan>, settle_ns: u64, total: Arc<Mutex<Taken>>) -> Self {
        Self { plan, latency: histogram(), settle_ns, records: 0, first_counts: 0, published: 0, total }
    }
}

impl Clone for LatencySink {
    fn clone(&self) -> Self {
        Self::new(self.plan.clone(), self.settle_ns, self.total.clone())
    }
}

impl Sink<(u64, u64, u64)> for LatencySink {
    #[inline(always)]
    fn write(&mut self, (_, count, due_ns): (u64, u64, u64), _: i64) -> Result<(), thalweg::sink::SinkError> {
        self.records += 1;
        self.first_counts += u64::from(count == 1);
        if due_ns != u64::MAX && due_ns >= self.settle_ns {
            let now_ns = self.plan.since_start_ns();
            record(&mut self.latency, now_ns.saturating_sub_unsigned(due_ns).max(0) as u64);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), thalweg::sink::SinkError> {
        self.plan.count_arrived(self.records - self.published);
        self.published = self.records;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), thalweg::sink::SinkError> {
        self.plan.note_end();
        let mut total = self.total.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cpu) = self.plan.cpu() {
            total.cores_used = cpu.cores();
        }
        total.records += self.records;
        total.first_counts += self.first_counts;
        total.latency.get_or_insert_with(histogram).add(&self.latency)?;
        Ok(())
    }

    fn name(&self) -> &str {
        "Latency"
    }
}

impl OpenLoop {
    /// Measures `runs` pairs of probe and job. `progress` is told of every run.
    ///
    /// # Errors
    /// The job fails, or the numbers make no sense.
    pub fn measure(
        &self,
        workload: &str,
        settings: &JobSettings,
        runs: usize,
        mut progress: impl FnMut(&str),
    ) -> Result<LoopReport, BenchError> {
        self.check()?;
        let (mut pairs, mut verified, mut arrived_per_s, mut rss_mib) = (Vec::new(), true, Vec::new(), 0f64);
        for run in 1..=runs.max(1) {
            let probe = hiccup::probe(settings.used_cores(), self.records_per_s, self.recorded());
            let job = self.job(settings)?;
            verified &= job.verified;
            rss_mib = rss_mib.max(job.rss_mib);
            arrived_per_s.push(job.records_per_s);
            let (Some(probe), Some(latency)) = (LatencyUs::from_ns(&probe), LatencyUs::from_ns(&job.latency)) else {
                return Err(BenchError::Setting("nothing was recorded: measure for longer, see --seconds".into()));
            };
            progress(&format!(
                "{workload}, pair {run} of {runs}: p50 {:.1} µs, p99.99 {:.0} µs (probe {:.1}, {:.0}), {:.2} cores",
                latency.p50, latency.p99_99, probe.p50, probe.p99_99, job.cores_used
            ));
            pairs.push(LoopPair { probe, job: latency, cores_used: job.cores_used });
        }
        let parallelism = settings.parallelism;
        let records = self.records();
        let seconds = records as f64 / median(arrived_per_s);
        let mut report = WorkloadReport::new(workload, parallelism, parallelism, records, seconds);
        // No machine is faster than its load: what there is to reach is the rate at which records are due.
        report = report.with_limit(self.records_per_s);
        report.latency_us = Some(middle(pairs.iter().map(|pair| pair.job)));
        report.probe_latency_us = Some(middle(pairs.iter().map(|pair| pair.probe)));
        report.cores_used = Some(median(pairs.iter().map(|pair| pair.cores_used)));
        report.rss_mib = rss_mib;
        report.verified = Some(verified);
        Ok(LoopReport { report, pairs })
    }

    fn records(&self) -> u64 {
        match self.length {
            Length::Time(recorded) => (recorded.saturating_add(SETTLE).as_secs_f64() * self.records_per_s) as u64,
            Length::Records(records) => records,
        }
    }

    /// How long records are sent without being recorded.
    fn settle(&self) -> Duration {
        match self.length {
            Length::Time(_) => SETTLE,
            Length::Records(_) => SETTLE.min(self.all() / 2),
        }
    }

    /// How long a run is.
    fn all(&self) -> Duration {
        match self.length {
            Length::Time(recorded) => recorded.saturating_add(SETTLE),
            Length::Records(records) => {
                Duration::try_from_secs_f64(records as f64 / self.records_per_s).unwrap_or(Duration::MAX)
            }
        }
    }

    /// How long records are recorded.
    fn recorded(&self) -> Duration {
        self.all().saturating_sub(self.settle())
    }

    /// Whether the numbers make sense.
    ///
    /// # Errors
    /// They do not.
    pub fn check(&self) -> Result<(), BenchError> {
        if self.keys == 0 || self.records() == 0 || !self.records_per_s.is_finite() {
            return Err(BenchError::Setting("a load needs a key and a record at least: see --keys and --rate".into()));
        }
        Ok(())
    }

    /// Runs the job once.
    ///
    /// # Errors
    /// It fails, or the numbers make no sense.
    pub fn job(&self, settings: &JobSettings) -> Result<LoopRun, BenchError> {
        self.check()?;
        let records = self.records();
        let settle_ns = u64::try_from(self.settle().as_nanos()).unwrap_or(u64::MAX);
        let plan = Arc::new(LoadPlan::new(self.keys, records, Some(self.records_per_s)));
        let total = Arc::default();
        let env = settings.environment("keyed-count");
        env.from_source("Load", plan.source())
            .key_by(|event: EventView| event.key)
            .aggregate(CountLatest, |key, latest| (key, latest.count, latest.due_ns))
            .sink(LatencySink::new(plan.clone(), settle_ns, Arc::clone(&total)));
        env.execute()?;
        let mut taken = total.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = plan.seconds().filter(|&seconds| seconds > 0.0);
        let seconds = seconds.ok_or_else(|| BenchError::Wrong("the job ended before it began".into()))?;
        Ok(LoopRun {
            latency: taken.latency.take().unwrap_or_else(histogram),
            cores_used: taken.cores_used,
            records_per_s: records as f64 / seconds,
            rss_mib: plan.rss_mib(),
            verified: taken.records == self.keys + records && taken.first_counts == self.keys,
        })
    }
}

/// The median of each percentile.
pub(crate) fn middle(all: impl Iterator<Item = LatencyUs> + Clone) -> LatencyUs {
    let of = |pick: fn(LatencyUs) -> f64| median(all.clone().map(pick));
    LatencyUs {
        p50: of(|l| l.p50),
        p90: of(|l| l.p90),
        p99: of(|l| l.p99),
        p99_9: of(|l| l.p99_9),
        p99_99: of(|l| l.p99_99),
        max: of(|l| l.max),
    }
}

impl LoopReport {
    /// Every run, as a table, microseconds.
    pub fn table(&self) -> String {
        let mut text = String::from(
            "  run                 p50       p90       p99     p99.9    p99.99       max  µs   cores used\n",
        );
        let mut line = |run: String, who: &str, l: &LatencyUs, cores: String| {
            writeln!(
                text,
                "  {run:>3}  {who:<8}{:>10.1}{:>10.1}{:>10.1}{:>10.1}{:>10.1}{:>10.1}      {cores}",
                l.p50, l.p90, l.p99, l.p99_9, l.p99_99, l.max
            )
            .expect("writing to a string");
        };
        for (index, pair) in self.pairs.iter().enumerate() {
            line((index + 1).to_string(), "probe", &pair.probe, String::new());
            line(String::new(), "job", &pair.job, format!("{:.2}", pair.cores_used));
        }
        let (job, probe) =
            (middle(self.pairs.iter().map(|pair| pair.job)), middle(self.pairs.iter().map(|pair| pair.probe)));
        line("med".into(), "probe", &probe, String::new());
        line(String::new(), "job", &job, self.report.cores_used.map_or_else(String::new, |c| format!("{c:.2}")));
        let difference = LatencyUs {
            p50: job.p50 - probe.p50,
            p90: job.p90 - probe.p90,
            p99: job.p99 - probe.p99,
            p99_9: job.p99_9 - probe.p99_9,
            p99_99: job.p99_99 - probe.p99_99,
            max: job.max - probe.max,
        };
        line(String::new(), "above it", &difference, String::new());
        text
    }
}
