//! Counters and history of checkpoints, as the REST interface and the metrics show them.

use std::collections::{BTreeMap, VecDeque};

use super::{
    failure::FailureReason,
    topology::Topology,
    types::{Ack, Barrier, Checkpoint, CheckpointId, Kind, SubtaskFigures},
};
use crate::TimeMs;

/// Completed checkpoints whose figures the summary covers.
const SUMMARY_WINDOW: usize = 10_000;

/// How many there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Checkpoints and savepoints that got an id.
    pub total: u64,
    /// Of these, still on their way.
    pub in_progress: u64,
    /// Completed.
    pub completed: u64,
    /// Failed.
    pub failed: u64,
    /// Restores from one.
    pub restored: u64,
}

/// What became of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// On its way.
    InProgress,
    /// Complete.
    Completed {
        /// When.
        at: TimeMs,
        /// Where it lies.
        location: String,
        /// Size of the metadata in bytes.
        metadata_bytes: u64,
        /// Whether it has been deleted since.
        discarded: bool,
    },
    /// Failed.
    Failed {
        /// When.
        at: TimeMs,
        /// Why.
        reason: FailureReason,
        /// For people.
        message: String,
    },
}

/// A subtask's acknowledgement in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubtaskRecord {
    /// When it came.
    pub acknowledged_at: TimeMs,
    /// What it said.
    pub figures: SubtaskFigures,
}

/// A checkpoint in the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Number.
    pub id: CheckpointId,
    /// What it is.
    pub kind: Kind,
    /// When it was triggered.
    pub triggered_at: TimeMs,
    /// What became of it.
    pub status: Status,
    /// How its barrier travels; `None` before it was sent.
    pub barrier: Option<Barrier>,
    /// By vertex and index: the acknowledgement, if it came.
    pub subtasks: Vec<Vec<Option<SubtaskRecord>>>,
    /// Acknowledgements that it needs.
    pub expected: usize,
    /// Acknowledgements that came.
    pub acknowledged: usize,
    /// When the last one came.
    pub latest_ack_at: Option<TimeMs>,
    /// Sums over all acknowledgements; its times mean nothing.
    pub totals: SubtaskFigures,
}

impl Record {
    /// Milliseconds from the trigger to the completion, to the failure, or until now.
    pub fn duration_ms(&self, now: TimeMs) -> u64 {
        match self.status {
            Status::InProgress => now.since_ms(self.triggered_at),
            Status::Completed { at, .. } | Status::Failed { at, .. } => at.since_ms(self.triggered_at),
        }
    }
}

/// Smallest, largest and in between, of the completed checkpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    /// Smallest.
    pub min: u64,
    /// Largest.
    pub max: u64,
    /// Mean.
    pub mean: u64,
    /// 50th, 90th, 95th, 99th and 99.9th percentile.
    pub percentiles: [u64; 5],
}

/// Figures over the completed checkpoints, the last 10,000 of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// Milliseconds from trigger to completion.
    pub duration_ms: Spread,
    /// Size of the whole state in bytes.
    pub state_bytes: Spread,
    /// Bytes newly written.
    pub checkpointed_bytes: Spread,
    /// Bytes processed during alignment.
    pub processed_bytes: Spread,
    /// Bytes of buffers in flight.
    pub persisted_bytes: Spread,
}

/// The restore that the job runs from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// From which checkpoint.
    pub id: CheckpointId,
    /// When.
    pub at: TimeMs,
    /// What it is.
    pub kind: Kind,
}

/// Counters and history.
#[derive(Clone, Debug)]
pub struct Statistics {
    counts: Counts,
    history_count: usize,
    history: VecDeque<Record>,
    in_progress: BTreeMap<CheckpointId, Record>,
    latest_completed: Option<Record>,
    latest_savepoint: Option<Record>,
    latest_failed: Option<Record>,
    restored: Option<Restored>,
    window: VecDeque<[u64; 5]>,
}

impl Statistics {
    pub(super) fn new(history_count: usize) -> Self {
        Self {
            counts: Counts::default(),
            history_count,
            history: VecDeque::new(),
            in_progress: BTreeMap::new(),
            latest_completed: None,
            latest_savepoint: None,
            latest_failed: None,
            restored: None,
            window: VecDeque::new(),
        }
    }

    /// How many there were.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Those in progress and the last ended ones (`web.checkpoints.history`), newest first.
    pub fn history(&self) -> Vec<&Record> {
        let mut all: Vec<&Record> = self.in_progress.values().chain(&self.history).collect();
        all.sort_by_key(|record| std::cmp::Reverse(record.id));
        all
    }

    /// A checkpoint of the history, or one of the latest.
    pub fn record(&self, id: CheckpointId) -> Option<&Record> {
        let latest = [&self.latest_completed, &self.latest_savepoint, &self.latest_failed];
        let others = self.history.iter().chain(latest.into_iter().flatten());
        self.in_progress.get(&id).or_else(|| others.into_iter().find(|record| record.id == id))
    }

    /// The last checkpoint, not savepoint, that completed.
    pub fn latest_completed(&self) -> Option<&Record> {
        self.latest_completed.as_ref()
    }

    /// The last savepoint that completed.
    pub fn latest_savepoint(&self) -> Option<&Record> {
        self.latest_savepoint.as_ref()
    }

    /// The last that failed.
    pub fn latest_failed(&self) -> Option<&Record> {
        self.latest_failed.as_ref()
    }

    /// The last restore.
    pub fn restored(&self) -> Option<&Restored> {
        self.restored.as_ref()
    }

    /// Figures over the completed ones.
    pub fn summary(&self) -> Summary {
        let spread = |column: usize| {
            let mut values: Vec<u64> = self.window.iter().map(|row| row[column]).collect();
            values.sort_unstable();
            let (Some(&min), Some(&max)) = (values.first(), values.last()) else { return Spread::default() };
            let sum: u128 = values.iter().map(|&value| u128::from(value)).sum();
            let at = |share: f64| values[((values.len() as f64 * share).ceil() as usize).clamp(1, values.len()) - 1];
            let percentiles = [0.5, 0.9, 0.95, 0.99, 0.999].map(at);
            Spread { min, max, mean: (sum / values.len() as u128) as u64, percentiles }
        };
        Summary {
            duration_ms: spread(0),
            state_bytes: spread(1),
            checkpointed_bytes: spread(2),
            processed_bytes: spread(3),
            persisted_bytes: spread(4),
        }
    }

    pub(super) fn begun(&mut self, topology: &Topology, id: CheckpointId, kind: Kind, now: TimeMs, expected: usize) {
        self.counts.total += 1;
        self.counts.in_progress += 1;
        let subtasks = topology.vertices().iter().map(|vertex| vec![None; vertex.parallelism as usize]).collect();
        let record = Record {
            id,
            kind,
            triggered_at: now,
            status: Status::InProgress,
            barrier: None,
            subtasks,
            expected,
            acknowledged: 0,
            latest_ack_at: None,
            totals: SubtaskFigures::default(),
        };
        self.in_progress.insert(id, record);
    }

    pub(super) fn sent(&mut self, barrier: Barrier) {
        if let Some(record) = self.in_progress.get_mut(&barrier.id) {
            record.barrier = Some(barrier);
        }
    }

    pub(super) fn acknowledged<S>(&mut self, ack: &Ack<S>, now: TimeMs) {
        let Some(record) = self.in_progress.get_mut(&ack.id) else { return };
        let (sums, figures) = (&mut record.totals, &ack.figures);
        sums.state_bytes += figures.state_bytes;
        sums.checkpointed_bytes += figures.checkpointed_bytes;
        sums.processed_bytes += figures.processed_bytes;
        sums.persisted_bytes += figures.persisted_bytes;
        sums.unaligned |= figures.unaligned;
        record.acknowledged += 1;
        record.latest_ack_at = Some(now);
        record.subtasks[ack.subtask.vertex as usize][ack.subtask.index as usize] =
            Some(SubtaskRecord { acknowledged_at: now, figures: ack.figures });
    }

    pub(super) fn completed(&mut self, id: CheckpointId, now: TimeMs, location: String, metadata_bytes: u64) {
        let status = Status::Completed { at: now, location, metadata_bytes, discarded: false };
        let Some(record) = self.end(id, status) else { return };
        self.counts.completed += 1;
        let sums = &record.totals;
        let row = [
            record.duration_ms(now),
            sums.state_bytes,
            sums.checkpointed_bytes,
            sums.processed_bytes,
            sums.persisted_bytes,
        ];
        if self.window.len() == SUMMARY_WINDOW {
            self.window.pop_front();
        }
        self.window.push_back(row);
        let savepoint = record.kind.is_savepoint();
        let latest = if savepoint { &mut self.latest_savepoint } else { &mut self.latest_completed };
        *latest = Some(record);
    }

    pub(super) fn failed(&mut self, id: CheckpointId, now: TimeMs, reason: FailureReason, message: String) {
        if let Some(record) = self.end(id, Status::Failed { at: now, reason, message }) {
            self.counts.failed += 1;
            self.latest_failed = Some(record);
        }
    }

    fn end(&mut self, id: CheckpointId, status: Status) -> Option<Record> {
        let mut record = self.in_progress.remove(&id)?;
        self.counts.in_progress -= 1;
        record.status = status;
        if self.history_count > 0 {
            if self.history.len() == self.history_count {
                self.history.pop_front();
            }
            self.history.push_back(record.clone());
        }
        Some(record)
    }

    pub(super) fn discarded(&mut self, id: CheckpointId) {
        for record in self.history.iter_mut().chain(&mut self.latest_completed).filter(|record| record.id == id) {
            if let Status::Completed { discarded, .. } = &mut record.status {
                *discarded = true;
            }
        }
    }

    pub(super) fn restored_from<S>(&mut self, checkpoint: &Checkpoint<S>, now: TimeMs) {
        self.counts.restored += 1;
        self.restored = Some(Restored { id: checkpoint.id, at: now, kind: checkpoint.kind });
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{topology::Vertex, types::SubtaskId},
        *,
    };

    fn topology() -> Topology {
        Topology::new(vec![Vertex { parallelism: 2, inputs: Vec::new() }])
    }

    fn take(statistics: &mut Statistics, id: u64, bytes: u64, took_ms: u64) {
        let (id, kind) = (CheckpointId(id), Kind::Checkpoint { full: false });
        statistics.begun(&topology(), id, kind, TimeMs(1000), 2);
        for index in 0..2 {
            let figures = SubtaskFigures { state_bytes: bytes, checkpointed_bytes: 1, ..Default::default() };
            let subtask = SubtaskId { vertex: 0, index };
            let ack = Ack { id, subtask, state: (), figures, end_of_data: false, union_list: false };
            statistics.acknowledged(&ack, TimeMs(1001));
        }
        statistics.completed(id, TimeMs(1000 + took_ms), format!("chk-{id}"), 7);
    }

    #[test]
    fn when_checkpoints_end_then_counts_history_and_summary_follow() {
        let mut statistics = Statistics::new(3);
        for id in 1..=5 {
            take(&mut statistics, id, 10 * id, id);
        }
        statistics.begun(&topology(), CheckpointId(6), Kind::Checkpoint { full: false }, TimeMs(2000), 2);
        statistics.failed(CheckpointId(6), TimeMs(2001), FailureReason::Expired, "late".into());
        statistics.begun(&topology(), CheckpointId(7), Kind::Checkpoint { full: false }, TimeMs(2000), 2);
        let expected = Counts { total: 7, in_progress: 1, completed: 5, failed: 1, restored: 0 };
        assert_eq!(statistics.counts(), expected);
        let ids: Vec<u64> = statistics.history().iter().map(|record| record.id.0).collect();
        assert_eq!(ids, [7, 6, 5, 4]);
        let summary = statistics.summary();
        assert_eq!((summary.duration_ms.min, summary.duration_ms.max, summary.duration_ms.mean), (1, 5, 3));
        assert_eq!((summary.state_bytes.min, summary.state_bytes.max), (20, 100));
        assert_eq!(summary.duration_ms.percentiles, [3, 5, 5, 5, 5]);
        assert_eq!(statistics.latest_completed().unwrap().id.0, 5);
        assert_eq!(statistics.latest_failed().unwrap().id.0, 6);
        assert!(statistics.record(CheckpointId(1)).is_none());
    }

    #[test]
    fn when_a_checkpoint_is_deleted_then_the_history_says_so() {
        let mut statistics = Statistics::new(2);
        take(&mut statistics, 1, 1, 1);
        statistics.discarded(CheckpointId(1));
        let discarded = |record: &Record| matches!(record.status, Status::Completed { discarded: true, .. });
        assert!(discarded(statistics.history()[0]) && discarded(statistics.latest_completed().unwrap()));
    }
}
