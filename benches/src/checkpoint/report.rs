//! `CheckpointReport`: what a measurement of checkpoints came to, beside its targets.

use std::fmt::Write as _;

use serde::Serialize;

use super::job::Taking;
use crate::latency::stalls::{STALL_US, Stalls};
use crate::report::LatencyUs;
use crate::workloads::pairs::median;

/// A number that has a target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// What it is.
    pub name: String,
    /// The median.
    pub value: f64,
    /// What it may be at most, or has to be at least.
    pub target: f64,
    /// Whether the target is the least, not the most.
    pub at_least: bool,
    /// Whether the median is within the target.
    pub holds: bool,
    /// Of each run.
    pub runs: Vec<f64>,
}

/// Checkpoints of all runs: counts, and medians of the completed ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct CheckpointSummary {
    /// How many completed.
    pub completed: u64,
    /// How many failed.
    pub failed: u64,
    /// Milliseconds from the trigger to the completion.
    pub duration_ms: f64,
    /// The longest of them.
    pub max_duration_ms: f64,
    /// Size of the whole state in bytes.
    pub state_bytes: f64,
    /// Bytes that were newly written.
    pub written_bytes: f64,
    /// Bytes of buffers in flight that became part of it.
    pub persisted_bytes: f64,
    /// Longest stop of a subtask for a checkpoint, milliseconds.
    pub sync_ms: f64,
    /// Milliseconds of writing beside the stream.
    pub async_ms: f64,
    /// Milliseconds from a subtask's first to its last barrier.
    pub alignment_ms: f64,
    /// Milliseconds from the trigger to a subtask's first barrier.
    pub start_delay_ms: f64,
}

/// How many times a slot did not come round for so long, in all runs; it counts for all shorter lengths too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct StallCount {
    /// How long, microseconds.
    pub over_us: u64,
    /// With checkpoints.
    pub with: u64,
    /// Of these, how many are still as long without the time in which the system ran something else on the core.
    pub with_own: u64,
    /// Without checkpoints.
    pub without: u64,
    /// As `with_own`.
    pub without_own: u64,
    /// A loop that only changes a row for each record, while plain threads write as much.
    pub probe: u64,
    /// As `with_own`.
    pub probe_own: u64,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CheckpointReport {
    /// What has a target.
    pub figures: Vec<Figure>,
    /// The checkpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoints: Option<CheckpointSummary>,
    /// Latency without checkpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without_latency_us: Option<LatencyUs>,
    /// The stall histogram.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stalls: Vec<StallCount>,
    /// What the disk does with the same bytes in the same run, bytes per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_bytes_per_s: Option<f64>,
    /// What `fio` does, if it is installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fio_bytes_per_s: Option<f64>,
    /// What the engine does, bytes per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_s: Option<f64>,
    /// For people.
    #[serde(skip)]
    pub notes: Vec<String>,
}

impl Figure {
    /// One that may be at most the target. `runs` has at least one number.
    ///
    /// # Panics
    /// Where there are no runs.
    pub fn at_most(name: &str, target: f64, runs: Vec<f64>) -> Self {
        let value = median(runs.iter().copied());
        Self { name: name.to_owned(), value, target, at_least: false, holds: value <= target, runs }
    }

    /// One that has to be at least the target. `runs` has at least one number.
    ///
    /// # Panics
    /// Where there are no runs.
    pub fn at_least(name: &str, target: f64, runs: Vec<f64>) -> Self {
        let value = median(runs.iter().copied());
        Self { name: name.to_owned(), value, target, at_least: true, holds: value >= target, runs }
    }
}

impl CheckpointSummary {
    pub(super) fn of(all: &[Taking]) -> Self {
        let done: Vec<&Taking> = all.iter().filter(|taking| taking.completed).collect();
        let of = |pick: fn(&Taking) -> u64| match done.is_empty() {
            true => 0.0,
            false => median(done.iter().map(|taking| pick(taking) as f64)),
        };
        let most = |pick: fn(&Taking) -> u64| done.iter().map(|taking| pick(taking)).max().unwrap_or(0) as f64;
        Self {
            completed: done.len() as u64,
            failed: all.iter().filter(|taking| taking.failed).count() as u64,
            duration_ms: of(|taking| taking.duration_ms),
            max_duration_ms: most(|taking| taking.duration_ms),
            state_bytes: of(|taking| taking.state_bytes),
            written_bytes: of(|taking| taking.written_bytes),
            persisted_bytes: of(|taking| taking.persisted_bytes),
            sync_ms: most(|taking| taking.sync_ms),
            async_ms: of(|taking| taking.async_ms),
            alignment_ms: of(|taking| taking.alignment_ms),
            start_delay_ms: of(|taking| taking.start_delay_ms),
        }
    }

    fn line(&self) -> String {
        const MIB: f64 = (1 << 20) as f64;
        format!(
            "checkpoints: {} complete, {} failed; {:.0} ms each (longest {:.0}), {:.1} MiB written of {:.1} MiB of state, \
             stop {:.0} ms, start delay {:.0} ms, alignment {:.0} ms, writing {:.0} ms, {:.1} MiB in flight",
            self.completed,
            self.failed,
            self.duration_ms,
            self.max_duration_ms,
            self.written_bytes / MIB,
            self.state_bytes / MIB,
            self.sync_ms,
            self.start_delay_ms,
            self.alignment_ms,
            self.async_ms,
            self.persisted_bytes / MIB,
        )
    }
}

/// The stall histogram.
pub(super) fn stall_counts(with: &Both, without: &Both, probe: &Both) -> Vec<StallCount> {
    let count = |(at, &over_us): (usize, &u64)| StallCount {
        over_us,
        with: with.0.over[at],
        with_own: with.1.over[at],
        without: without.0.over[at],
        without_own: without.1.over[at],
        probe: probe.0.over[at],
        probe_own: probe.1.over[at],
    };
    STALL_US.iter().enumerate().map(count).collect()
}

/// All stalls, and what was the threads' own.
pub(super) type Both = (Stalls, Stalls);

impl CheckpointReport {
    /// Everything, for people.
    pub fn text(&self, latency: Option<&LatencyUs>, probe: Option<&LatencyUs>) -> String {
        let mut text = String::new();
        let mut line = |line: String| writeln!(text, "  {line}").expect("writing to a string");
        self.notes.iter().for_each(|note| line(note.clone()));
        if let Some(with) = latency {
            line("latency, µs             p50       p90       p99     p99.9    p99.99       max".into());
            let rows = [("with", Some(with)), ("without", self.without_latency_us.as_ref()), ("probe", probe)];
            for (who, l) in rows.into_iter().filter_map(|(who, latency)| Some((who, latency?))) {
                line(format!(
                    "{who:<17}{:>10.1}{:>10.1}{:>10.1}{:>10.1}{:>10.1}{:>10.1}",
                    l.p50, l.p90, l.p99, l.p99_9, l.p99_99, l.max
                ));
            }
        }
        if !self.stalls.is_empty() {
            line(
                "stalls over, µs         with      own of it      without      own of it        probe      own of it"
                    .into(),
            );
            for s in self.stalls.iter().filter(|s| s.with + s.without + s.probe > 0) {
                line(format!(
                    "{:>15}{:>13}{:>15}{:>13}{:>15}{:>13}{:>15}",
                    s.over_us, s.with, s.with_own, s.without, s.without_own, s.probe, s.probe_own
                ));
            }
        }
        if let Some(checkpoints) = &self.checkpoints {
            line(checkpoints.line());
        }
        let speeds =
            [("engine", self.bytes_per_s), ("disk alone", self.disk_bytes_per_s), ("fio", self.fio_bytes_per_s)];
        let speeds =
            speeds.into_iter().filter_map(|(who, speed)| Some(format!("{who} {:.0} MiB/s", speed? / 1_048_576.0)));
        let speeds: Vec<String> = speeds.collect();
        if !speeds.is_empty() {
            line(speeds.join(", "));
        }
        for figure in &self.figures {
            let runs: Vec<String> = figure.runs.iter().map(|run| format!("{run:.3}")).collect();
            line(format!(
                "{}: {:.3}, target {} {} [{}]: {}",
                figure.name,
                figure.value,
                if figure.at_least { "at least" } else { "at most" },
                figure.target,
                runs.join(" "),
                if figure.holds { "holds" } else { "MISSED" }
            ));
        }
        text
    }
}
