//! `exchange`: a source on one core, a sink on another; beside it a bare ring of the same buffers, and memory copy.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use thalweg::fuse::Out;
use thalweg::model::metrics::{MetricRegistry, MetricValue};
use thalweg::prelude::*;

use super::event::{Event, EventView, plain};
use super::job::{BenchError, JobSettings};
use super::pairs::{Pair, Pairs, median};
use crate::limits::{self, exchange::Exchanged, memory_copy::CopyRates};
use crate::report::{SideCostsNs, WorkloadReport, rate};

/// What is measured, for those who read the table.
pub const MEASURED: &str = "Job: a source on one core, a sink on another, 24-byte records in 32-byte frames. Limit: the \
    same frames through a bare ring of 32 KiB buffers. Cost: time at work on each side, waiting left out, per record.";

/// Bytes of a record's frame.
const FRAME_BYTES: f64 = 32.0;

/// An exchange to be measured.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Records.
    pub records: u64,
    /// Where and how; its parallelism does not matter.
    pub settings: JobSettings,
}

/// What both sides cost.
#[derive(Clone, Copy, Debug)]
pub struct SideCosts {
    /// Nanoseconds per record at the sender.
    pub sender_ns: f64,
    /// Nanoseconds per record at the receiver.
    pub receiver_ns: f64,
}

impl SideCosts {
    /// Both ends together.
    pub fn both_ns(&self) -> f64 {
        self.sender_ns + self.receiver_ns
    }

    fn of(exchanged: &Exchanged, records: u64) -> Self {
        let per_record = |seconds: f64| seconds * 1e9 / records as f64;
        Self { sender_ns: per_record(exchanged.sender_busy_s), receiver_ns: per_record(exchanged.receiver_busy_s) }
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct ExchangeReport {
    /// Medians.
    pub report: WorkloadReport,
    /// All runs.
    pub pairs: Pairs,
    /// Costs of the limit and of the job, run by run.
    pub costs: Vec<(SideCosts, SideCosts)>,
    /// What copying memory reaches.
    pub copy: CopyRates,
    /// The checksum of every run of job and limit, if it was the same.
    pub checksum: Option<u64>,
}

impl ExchangeReport {
    /// The median cost of the job, both ends together, as a multiple of the limit's.
    pub fn cost_ratio(&self) -> f64 {
        median(self.costs.iter().map(|(limit, job)| job.both_ns() / limit.both_ns()))
    }

    /// Every run, and memory copy, as a table.
    pub fn table(&self) -> String {
        let mut text = self.pairs.table();
        text.push_str("  run   ns/record: limit sender + receiver     job sender + receiver   cost ratio\n");
        for (index, (limit, job)) in self.costs.iter().enumerate() {
            writeln!(
                text,
                "  {:>3}   {:>14.2} + {:<16.2}   {:>14.2} + {:<14.2}   {:.2}",
                index + 1,
                limit.sender_ns,
                limit.receiver_ns,
                job.sender_ns,
                job.receiver_ns,
                job.both_ns() / limit.both_ns()
            )
            .expect("writing to a string");
        }
        writeln!(
            text,
            "  median cost ratio {:.2}; frames: job {}B/s, limit {}B/s; memory copy of one core: {}B/s in its cache, {}B/s out of it",
            self.cost_ratio(),
            rate(self.pairs.job() * FRAME_BYTES),
            rate(self.pairs.limit() * FRAME_BYTES),
            rate(self.copy.in_cache),
            rate(self.copy.in_memory)
        )
        .expect("writing to a string");
        text
    }
}

struct Taken {
    started: Option<Instant>,
    ended: Option<Instant>,
    checksum: u64,
}

#[derive(Clone)]
struct ChecksumSink {
    checksum: u64,
    total: Arc<Mutex<Taken>>,
}

impl Sink<Event> for ChecksumSink {
    fn open(&mut self, _: &thalweg::sink::SinkContext) -> Result<(), thalweg::sink::SinkError> {
        self.total.lock().unwrap_or_else(PoisonError::into_inner).started = Some(Instant::now());
        Ok(())
    }

    #[inline(always)]
    fn write(&mut self, event: EventView, _: i64) -> Result<(), thalweg::sink::SinkError> {
        std::hint::black_box(&event);
        self.checksum = self.checksum.wrapping_add(event.key ^ event.value);
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

impl Exchange {
    /// Measures `runs` pairs of limit and job. `progress` is told of every run.
    ///
    /// # Errors
    /// There is one core only, there are no records, or the job fails.
    pub fn measure(&self, runs: usize, mut progress: impl FnMut(&str)) -> Result<ExchangeReport, BenchError> {
        super::job::check_records(self.records)?;
        let cores = &self.settings.cores;
        if cores.len() < 2 {
            return Err(BenchError::TooFewCores { wanted: 2, available: cores.len() });
        }
        let (mut pairs, mut costs, mut checksums) = (Pairs::default(), Vec::new(), Vec::new());
        for run in 1..=runs.max(1) {
            let limit = limits::exchange::run(cores, self.records);
            let job = self.job()?;
            let per_s = |exchanged: &Exchanged| self.records as f64 / exchanged.seconds;
            pairs.0.push(Pair { limit: per_s(&limit), job: per_s(&job) });
            let cost = (SideCosts::of(&limit, self.records), SideCosts::of(&job, self.records));
            progress(&format!(
                "exchange, pair {run} of {runs}: limit {}/s, job {}/s; both ends {:.2} and {:.2} ns a record",
                rate(per_s(&limit)),
                rate(per_s(&job)),
                cost.0.both_ns(),
                cost.1.both_ns()
            ));
            costs.push(cost);
            checksums.extend([limit.checksum, job.checksum]);
        }
        let checksum = checksums.first().copied().filter(|first| checksums.iter().all(|other| other == first));
        let seconds = self.records as f64 / pairs.job();
        let mut report = WorkloadReport::new("exchange", 1, 2, self.records, seconds).with_limit(pairs.limit());
        report.verified = Some(checksum.is_some());
        let middle = |pick: fn(&(SideCosts, SideCosts)) -> f64| median(costs.iter().map(pick));
        report.ns_per_record = Some(SideCostsNs {
            sender: middle(|(_, job)| job.sender_ns),
            receiver: middle(|(_, job)| job.receiver_ns),
            limit_sender: middle(|(limit, _)| limit.sender_ns),
            limit_receiver: middle(|(limit, _)| limit.receiver_ns),
        });
        Ok(ExchangeReport { report, pairs, costs, copy: limits::memory_copy::measure(cores[0]), checksum })
    }

    /// Runs the job once.
    ///
    /// # Errors
    /// It fails.
    pub fn job(&self) -> Result<Exchanged, BenchError> {
        let total = Arc::new(Mutex::new(Taken { started: None, ended: None, checksum: 0 }));
        let env = JobSettings { parallelism: 1, ..self.settings.clone() }.environment("exchange");
        env.generate_to(self.records, None, |n, out: &mut Out<'_, Event>| out.push(plain(n).view()))
            .slot_sharing_group("senders")
            .rebalance()
            .sink(ChecksumSink { checksum: 0, total: total.clone() })
            .slot_sharing_group("receivers");
        env.execute()?;
        let taken = total.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(started), Some(ended)) = (taken.started, taken.ended) else {
            return Err(BenchError::Wrong("the job ended before it began".into()));
        };
        let registry = env.metrics();
        Ok(Exchanged {
            seconds: (ended - started).as_secs_f64(),
            sender_busy_s: busy_s(&registry, "Source"),
            receiver_busy_s: busy_s(&registry, "Sink"),
            checksum: taken.checksum,
        })
    }
}

/// The seconds that the tasks whose names begin so were at work.
fn busy_s(registry: &MetricRegistry, task: &str) -> f64 {
    let mut busy_s = 0.0;
    registry.visit(0, |sample| {
        let of_task = sample.labels.iter().any(|(name, value)| name == "task_name" && value.starts_with(task));
        if of_task && sample.name == "accumulateBusyTimeMs" {
            busy_s += match sample.value {
                MetricValue::Counter(ms) => ms as f64 / 1e3,
                MetricValue::Float(ms) | MetricValue::Meter(ms) => ms / 1e3,
                _ => 0.0,
            };
        }
    });
    busy_s
}
