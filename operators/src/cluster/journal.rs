//! `Journal`: a line in the log for each checkpoint that has ended.

use std::collections::BTreeSet;

use thalweg_cluster::checkpoint::{CheckpointId, FailureReason, Record, Statistics, Status};

/// Checkpoints that have no line yet.
#[derive(Debug, Default)]
pub(super) struct Journal {
    open: BTreeSet<CheckpointId>,
}

impl Journal {
    /// A checkpoint is on its way.
    pub(super) fn begun(&mut self, id: CheckpointId) {
        self.open.insert(id);
    }

    /// Writes a line for each that has ended since.
    pub(super) fn write(&mut self, job: &str, statistics: &Statistics) {
        self.open.retain(|&id| {
            // One that the history has no room for ended unseen.
            let Some(record) = statistics.record(id) else { return false };
            say(job, record)
        });
    }
}

/// Says how a checkpoint ended; whether it has not yet.
fn say(job: &str, record: &Record) -> bool {
    let what = if record.kind.is_savepoint() { "savepoint" } else { "checkpoint" };
    let id = record.id;
    match &record.status {
        Status::InProgress => return true,
        Status::Completed { at, location, metadata_bytes, .. } => {
            let duration_ms = record.duration_ms(*at);
            let (written, state) = (record.totals.checkpointed_bytes, record.totals.state_bytes);
            let how = if record.barrier.is_some_and(|barrier| barrier.base.is_some()) { "incremental" } else { "full" };
            tracing::info!(
                "{what} {id} of job {job} completed in {duration_ms} ms, {how}: {written} bytes written for {state} bytes \
                 of state, {metadata_bytes} of metadata, in {location}"
            );
        }
        Status::Failed { reason, message, .. } if is_expected(*reason) => {
            tracing::info!("{what} {id} of job {job} was given up: {message}");
        }
        Status::Failed { message, .. } => tracing::warn!("{what} {id} of job {job} failed: {message}"),
    }
    false
}

/// Whether such a failure says that the job goes its way, and not that something is wrong.
fn is_expected(reason: FailureReason) -> bool {
    use FailureReason::*;
    matches!(reason, Subsumed | TaskClosing | OvertakenAtTask | Suspended | Shutdown | NotAllTasksRunning)
}
