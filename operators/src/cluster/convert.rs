//! From the words of the runtime to those of coordination, and back.

use thalweg_cluster::checkpoint::{
    Ack, Alignment, Barrier, CheckpointId, FailureReason, StopMode as ClusterStop, SubtaskFigures, SubtaskId,
};
use thalweg_io::checkpoint::{CheckpointFiles, StateKind};
use thalweg_model::config::CheckpointingMode;
use thalweg_runtime::{
    Acknowledgement, BarrierAlignment, CheckpointRequest, DeclineReason, JobError, ReactorError, SnapshotFigures,
    StopMode,
};

use super::shape::Parts;

/// What a task is told of a checkpoint.
pub(super) fn checkpoint_request(
    barrier: &Barrier,
    incremental: bool,
    files: Option<CheckpointFiles>,
) -> CheckpointRequest {
    CheckpointRequest {
        id: model_id(barrier.id),
        savepoint: barrier.kind.is_savepoint(),
        stop: barrier.kind.stop().map(|stop| match stop {
            ClusterStop::Suspend => StopMode::Suspend,
            ClusterStop::Drain => StopMode::Drain,
        }),
        triggered_ms: i64::try_from(barrier.triggered_at.0).unwrap_or(i64::MAX),
        alignment: match (barrier.mode, barrier.alignment) {
            (CheckpointingMode::AtLeastOnce, _) => BarrierAlignment::Counted,
            (_, Alignment::Aligned) => BarrierAlignment::Aligned,
            (_, Alignment::Unaligned) => BarrierAlignment::Unaligned,
            (_, Alignment::AlignedAtFirst { timeout_ms }) => BarrierAlignment::AlignedAtFirst { timeout_ms },
        },
        incremental,
        base: barrier.base.map(model_id),
        files,
    }
}

/// Why a task does not take its part.
pub(super) fn declined(reason: DeclineReason) -> FailureReason {
    match reason {
        DeclineReason::Writing => FailureReason::AsyncPart,
        DeclineReason::Overtaken => FailureReason::OvertakenAtTask,
    }
}

/// The number of a checkpoint, as the runtime writes it.
pub(super) fn model_id(id: CheckpointId) -> thalweg_model::CheckpointId {
    thalweg_model::CheckpointId(id.0)
}

/// Whether another attempt may get over it.
pub(super) fn is_retryable(error: &JobError) -> bool {
    match error {
        JobError::Task(error) => !error.permanent,
        JobError::Reactor(ReactorError::Slot { .. }) => true,
        _ => false,
    }
}

/// A task's part of a checkpoint.
pub(super) fn acknowledged(subtask: SubtaskId, ack: Acknowledgement) -> Ack<Parts> {
    let Acknowledgement { id, operators, figures, end_of_data } = ack;
    let states = || operators.iter().flat_map(|operator| &operator.states);
    let union_list = states().any(|state| state.kind == StateKind::Union);
    let figures = in_millis(&figures);
    Ack { id: CheckpointId(id.0), subtask, state: operators, figures, end_of_data, union_list }
}

fn in_millis(figures: &SnapshotFigures) -> SubtaskFigures {
    const NS_PER_MS: u64 = 1_000_000;
    SubtaskFigures {
        state_bytes: figures.state_bytes,
        checkpointed_bytes: figures.written_bytes,
        sync_ms: figures.sync_ns / NS_PER_MS,
        async_ms: figures.async_ns / NS_PER_MS,
        alignment_ms: figures.alignment_ns / NS_PER_MS,
        start_delay_ms: figures.start_delay_ms,
        processed_bytes: figures.processed_bytes,
        persisted_bytes: figures.persisted_bytes,
        unaligned: figures.unaligned,
    }
}
