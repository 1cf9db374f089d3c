//! `CheckpointBench`: which figures are measured, and how large.

use std::path::PathBuf;
use std::time::Duration;

use thalweg::MemoryReserve;

use super::job::{Checkpoints, Rows, StateJob};
use super::load::{Keys, Stage};
use super::rows::WIDE_ROW_BYTES;
use super::{incremental, latency, restore, throughput, unaligned, writer};
use crate::memory::PeakMemory;
use crate::report::WorkloadReport;
use crate::workloads::job::{BenchError, JobSettings};

/// A checkpoint that takes longer has failed, unless a measurement says otherwise.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A group of figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Latency and stalls with a checkpoint each interval.
    Latency,
    /// Throughput with a checkpoint each interval.
    Throughput,
    /// How fast state is written.
    Writer,
    /// What an increment writes.
    Incremental,
    /// Checkpoints under backpressure, aligned and not.
    Unaligned,
    /// How fast state is restored.
    Restore,
}

impl What {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Latency, Self::Throughput, Self::Writer, Self::Incremental, Self::Unaligned, Self::Restore];
}

/// See the module.
#[derive(Clone, Debug)]
pub struct CheckpointBench {
    /// Where and how jobs run.
    pub settings: JobSettings,
    /// Bytes of state, in rows of 200 bytes.
    pub state_bytes: u64,
    /// Keys of the keyed count whose throughput is measured.
    pub count_keys: u64,
    /// Records of that.
    pub records: u64,
    /// Records a second of the steady load.
    pub records_per_s: f64,
    /// How long each run of the steady load is.
    pub duration: Duration,
    /// From one checkpoint to the next.
    pub interval: Duration,
    /// Pairs of runs.
    pub runs: usize,
    /// Where checkpoints lie while they are measured; below the working directory where `None`.
    pub dir: Option<PathBuf>,
}

impl CheckpointBench {
    /// Measures what is asked for, in this order. `progress` is told of every run.
    ///
    /// # Errors
    /// A job fails, the disk refuses, or the numbers make no sense.
    pub fn measure(&self, what: &[What], mut progress: impl FnMut(&str)) -> Result<Vec<WorkloadReport>, BenchError> {
        if self.wide_keys() == 0 || self.count_keys == 0 || self.records == 0 || self.interval.is_zero() {
            let text = "there has to be something to checkpoint: see --state, --keys, --records and --interval";
            return Err(BenchError::Setting(text.into()));
        }
        let progress: &mut dyn FnMut(&str) = &mut progress;
        let mut reports = Vec::new();
        for what in what {
            // A gigabyte that is given back after each run and taken anew in the next keeps the kernel busy during both, and
            // the host of a virtual machine too: none of what is measured. Whoever restores begins with fresh memory.
            let _reserve = (*what != What::Restore).then(MemoryReserve::new);
            let memory = PeakMemory::reset();
            let mut probe_bytes = 0;
            let mut measured = match what {
                What::Latency => {
                    let measured = latency::measure(self, progress)?;
                    probe_bytes = measured.probe_bytes;
                    vec![measured.report]
                }
                What::Throughput => vec![throughput::measure(self, progress)?],
                What::Writer => vec![writer::measure(self, progress)?],
                What::Incremental => vec![incremental::measure(self, progress)?],
                What::Unaligned => unaligned::measure(self, progress)?,
                What::Restore => vec![restore::measure(self, progress)?],
            };
            // By the time they report, their jobs have ended and given back what they held.
            if let Some(mib) = memory.mib() {
                measured.iter_mut().for_each(|report| report.rss_mib = mib - probe_bytes as f64 / (1 << 20) as f64);
            }
            reports.extend(measured);
        }
        Ok(reports)
    }

    /// Keys whose wide rows make up the state.
    pub(super) fn wide_keys(&self) -> u64 {
        self.state_bytes / WIDE_ROW_BYTES
    }

    /// A job over the wide rows whose first stage names each key.
    pub(super) fn wide_job(&self, stages: Vec<Stage>, checkpoints: Option<Checkpoints>) -> StateJob {
        let keys = self.wide_keys();
        let each = Stage { keys: Keys::Each, records: keys, records_per_s: None };
        let stages = std::iter::once(each).chain(stages).collect();
        StateJob { keys, rows: Rows::Wide, stages, checkpoints, restore: None, permits: None }
    }

    /// Checkpoints in this directory, taken when the harness asks.
    pub(super) fn on_request(dir: &super::Scratch, incremental: bool) -> Checkpoints {
        let dir = dir.path().to_path_buf();
        Checkpoints { dir, interval: None, incremental, unaligned: false, timeout: TIMEOUT }
    }

    /// A fresh directory.
    pub(super) fn scratch(&self) -> Result<super::Scratch, BenchError> {
        Ok(super::Scratch::below(self.dir.as_deref())?)
    }

    /// A report without figures.
    pub(super) fn report(&self, workload: &str, records: u64, seconds: f64) -> WorkloadReport {
        let parallelism = self.settings.parallelism;
        WorkloadReport::new(workload, parallelism, parallelism, records, seconds)
    }
}
