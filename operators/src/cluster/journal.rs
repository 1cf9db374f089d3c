//! `Journal`: a line in the log for each checkpoint that has ended.

use std::collections::BTreeSet;

use thalweg_cluster::checkpoint::{CheckpointId, FailureReason, Record, Statistics, Status};

/// Checkpoints that have no line yet.
#[derive(Debug, Default)]
pub(super) struct Journal {
    open: BTreeSet<CheckpointId>,
    /// Failures since one has completed.
    failed_in_a_row: u64,
}

impl Journal {
    /// A checkpoint is on its way.
    pub(super) fn begun(&mut self, id: CheckpointId) {
        self.open.insert(id);
    }

    /// Writes a line for each that has ended since.
    pub(super) fn write(&mut self, job: &str, statistics: &Statistics) {
        let failed_in_a_row = &mut self.failed_in_a_row;
        self.open.retain(|&id| {
            // One that the history has no room for ended unseen.
            let Some(record) = statistics.record(id) else { return false };
            say(job, record, failed_in_a_row)
        });
    }
}

/// Says how a checkpoint ended; whether it has not yet.
fn say(job: &str, record: &Record, failed_in_a_row: &mut u64) -> bool {
    let what = if record.kind.is_savepoint() { "savepoint" } else { "checkpoint" };
    let id = record.id;
    match &record.status {
        Status::InProgress => return true,
        Status::Completed { at, location, metadata_bytes, .. } => {
            *failed_in_a_row = 0;
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
        // Somebody waits for it.
        Status::Failed { message, .. } if record.kind.is_savepoint() => {
            tracing::warn!("{what} {id} of job {job} failed: {message}");
        }
        Status::Failed { message, .. } => {
            *failed_in_a_row += 1;
            let count = *failed_in_a_row;
            let row = if count > 1 { format!(" ({count} in a row)") } else { String::new() };
            match is_told(count) {
                true => tracing::warn!("{what} {id} of job {job} failed{row}: {message}"),
                false => tracing::info!("{what} {id} of job {job} failed{row}: {message}"),
            }
        }
    }
    false
}

/// Whether so many failures in a row are worth a warning: the first few, then fewer and fewer, since a disk that is full
/// stays so for a while.
fn is_told(count: u64) -> bool {
    count <= 3 || count.is_power_of_two()
}

/// Whether such a failure says that the job goes its way, and not that something is wrong.
fn is_expected(reason: FailureReason) -> bool {
    use FailureReason::*;
    matches!(reason, Subsumed | TaskClosing | OvertakenAtTask | Suspended | Shutdown | NotAllTasksRunning)
}

#[cfg(test)]
mod tests {
    use super::is_told;

    #[test]
    fn when_checkpoints_fail_again_and_again_then_fewer_and_fewer_are_told_of() {
        let told: Vec<u64> = (1..=100).filter(|&count| is_told(count)).collect();
        assert_eq!(told, [1, 2, 3, 4, 8, 16, 32, 64]);
    }
}
