//! `buffer-timeout`: what the bound on a record's wait in a buffer does to throughput and to latency.

use std::time::Duration;

use super::job::{BenchError, JobSettings};
use super::keyed_count::KeyedCount;
use super::open_loop::OpenLoop;
use super::pairs::median;
use crate::options::BufferTimeout;
use crate::report::{WorkloadReport, rate};

/// What is measured, for those who read the table.
pub const MEASURED: &str = "Keyed count at full speed, and its latency at a steady rate, by buffer timeout; limit: the same \
    count as a bare loop on pinned threads. A task without more input sends at once whatever the timeout, so that light loads \
    wait for none of them.";

/// The timeouts that are compared, in milliseconds.
pub const TIMEOUTS_MS: [u64; 3] = [0, 1, 100];

/// A comparison to be made.
#[derive(Clone, Debug)]
pub struct BufferTimeouts {
    /// The load at full speed; its settings are used for both.
    pub full: KeyedCount,
    /// The steady load.
    pub steady: OpenLoop,
}

impl BufferTimeouts {
    /// Measures every timeout `runs` times, by turns. Answers a report for each, latency included.
    ///
    /// # Errors
    /// A job fails.
    pub fn measure(&self, runs: usize, mut progress: impl FnMut(&str)) -> Result<Vec<WorkloadReport>, BenchError> {
        self.full.check()?;
        let mut rates: Vec<Vec<f64>> = vec![Vec::new(); TIMEOUTS_MS.len()];
        let mut right = vec![true; TIMEOUTS_MS.len()];
        let mut limits = Vec::new();
        for run in 1..=runs.max(1) {
            let limit = self.full.limit()?;
            limits.push(self.full.records as f64 / limit.seconds);
            for (index, timeout_ms) in TIMEOUTS_MS.into_iter().enumerate() {
                let counted = KeyedCount { settings: self.settings(timeout_ms), ..self.full.clone() }.job()?;
                right[index] &=
                    counted.sums == limit.sums && counted.sums.records == self.full.keys + self.full.records;
                let per_s = self.full.records as f64 / counted.seconds;
                progress(&format!("timeout {timeout_ms} ms, run {run} of {runs}: {}/s", rate(per_s)));
                rates[index].push(per_s);
            }
        }
        let mut reports = Vec::new();
        for (index, timeout_ms) in TIMEOUTS_MS.into_iter().enumerate() {
            let name = format!("timeout {timeout_ms} ms");
            let steady = self.steady.measure(&name, &self.settings(timeout_ms), 1, &mut progress)?;
            let parallelism = self.full.settings.parallelism;
            let seconds = self.full.records as f64 / median(rates[index].iter().copied());
            let mut report = WorkloadReport::new(name, parallelism, parallelism, self.full.records, seconds)
                .with_limit(median(limits.iter().copied()));
            report.latency_us = steady.report.latency_us;
            report.probe_latency_us = steady.report.probe_latency_us;
            report.cores_used = steady.report.cores_used;
            report.rss_mib = steady.report.rss_mib;
            report.verified = Some(right[index] && steady.report.verified == Some(true));
            reports.push(report);
        }
        Ok(reports)
    }

    fn settings(&self, timeout_ms: u64) -> JobSettings {
        let mut settings = self.full.settings.clone();
        settings.engine.buffer_timeout = Some(BufferTimeout::After(Duration::from_millis(timeout_ms)));
        settings
    }
}
