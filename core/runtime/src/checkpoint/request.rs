//! `CheckpointRequest`: what a task must know to take its part in a checkpoint.

use std::sync::Arc;

use thalweg_io::checkpoint::{CheckpointFiles, FaultPlan};
use thalweg_model::CheckpointId;

/// What a stop with savepoint does to windows and timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// They stay open, in the state: the job is to go on later.
    Suspend,
    /// The last watermark is sent first, so that all of them fire: the job is done.
    Drain,
}

/// How barriers travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarrierAlignment {
    /// In line with the records; channels that have delivered theirs are held back.
    Aligned,
    /// In line, and nothing is held back: at-least-once.
    Counted,
    /// Overtaking the records at once.
    Unaligned,
    /// In line, overtaking once this many milliseconds have passed since the trigger.
    AlignedAtFirst {
        /// The time, above 0.
        timeout_ms: u64,
    },
}

/// A checkpoint or savepoint as tasks see it. Made known to all slots before its first barrier.
#[derive(Clone, Debug)]
pub struct CheckpointRequest {
    /// Its number.
    pub id: CheckpointId,
    /// Whether it is a savepoint: complete in itself.
    pub savepoint: bool,
    /// Whether the job ends with it, and how.
    pub stop: Option<StopMode>,
    /// When it was triggered, milliseconds since the epoch.
    pub triggered_ms: i64,
    /// How its barriers travel.
    pub alignment: BarrierAlignment,
    /// Whether later ones may write only what has changed since.
    pub incremental: bool,
    /// The one earlier checkpoint whose shared files it may reference; `None`: it is written in full.
    pub base: Option<CheckpointId>,
    /// Where its files go; `None`: everything stays in memory.
    pub files: Option<CheckpointFiles>,
}

impl CheckpointRequest {
    /// When its barriers cease to be patient, in milliseconds since the epoch.
    pub(crate) fn overtakes_at_ms(&self) -> Option<i64> {
        let BarrierAlignment::AlignedAtFirst { timeout_ms } = self.alignment else { return None };
        Some(self.triggered_ms.saturating_add(i64::try_from(timeout_ms).unwrap_or(i64::MAX)))
    }

    /// Whether sinks may commit when it completes: not after a savepoint in passing, from which nothing recovers.
    pub fn commits(&self) -> bool {
        !self.savepoint || self.stop.is_some()
    }
}

/// How a job's slots take checkpoints.
#[derive(Clone, Debug)]
pub struct CheckpointingSetup {
    /// State below this size goes into the metadata, in bytes.
    pub inline_threshold_bytes: usize,
    /// Whether checkpoints come by themselves: sinks that commit with them wait for one.
    pub periodic: bool,
    /// Where the job starts from nothing: the last checkpoint that somebody may keep; `None` where that is not known.
    pub known: Option<CheckpointId>,
    /// Whether a task whose input has ended waits for one more checkpoint before it ends.
    pub final_checkpoint: bool,
    /// Whether barriers may overtake records.
    pub unaligned: bool,
    /// Whether they may do so with custom partitioners too.
    pub unaligned_forced: bool,
    /// Whether checkpoints or savepoints may go to files; otherwise they stay in memory.
    pub files: bool,
    /// Whether files are written past the page cache where the file system takes it.
    pub direct: bool,
    /// Faults for tests.
    pub faults: Option<Arc<FaultPlan>>,
}

impl Default for CheckpointingSetup {
    fn default() -> Self {
        Self {
            inline_threshold_bytes: 20 << 10,
            periodic: true,
            known: None,
            final_checkpoint: true,
            unaligned: false,
            unaligned_forced: false,
            files: true,
            direct: true,
            faults: None,
        }
    }
}
