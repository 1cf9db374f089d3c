//! What goes into the checkpoint coordinator and what comes out.

use std::sync::Arc;

use super::{
    failure::{Failure, FailureReason},
    topology::TaskPhase,
    types::{Ack, Barrier, Checkpoint, CheckpointId, Kind, RequestId, SubtaskId},
};

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobEnd {
    /// All of its input is processed, or it was stopped with a savepoint.
    Finished,
    /// Cancelled.
    Canceled,
    /// Failed for good.
    Failed,
    /// Given up by this process, to be taken over by another.
    Suspended,
}

/// Something that happened. Messages of tasks may be lost, late, doubled or out of order; answers to actions
/// (`Prepared`, `MetadataWritten`, `MetadataFailed`, `Cleaned`) come exactly once for each action.
#[derive(Clone, Debug)]
pub enum Event<S> {
    /// The job runs, or runs again: tasks will report. Periodic checkpoints begin.
    Start {
        /// Any number; decides the delay of the first periodic checkpoint.
        random: u64,
    },
    /// The job does not run any more, for now.
    Suspend,
    /// The job has ended.
    Shutdown(JobEnd),
    /// The time that [`Coordinator::next_wakeup`](super::Coordinator::next_wakeup) named has come.
    Tick,
    /// A task of the current run got further.
    Task {
        /// Which.
        subtask: SubtaskId,
        /// How far it is.
        phase: TaskPhase,
    },
    /// A source began or ceased to work off backlog.
    Backlog {
        /// Whether it has some.
        active: bool,
    },
    /// Somebody wants a checkpoint or savepoint; answered exactly once.
    Request {
        /// For the answer.
        request: RequestId,
        /// What.
        kind: Kind,
        /// Where a savepoint is to lie; `None`: the configured place.
        target: Option<String>,
    },
    /// `Prepare` was carried out.
    Prepared {
        /// Which.
        id: CheckpointId,
        /// State of the operator coordinators, or why there is none: reason `Io` or `Trigger`.
        result: Result<Vec<S>, Failure>,
    },
    /// A task's part is safe.
    Acknowledged(Ack<S>),
    /// A task cannot take its part.
    Declined {
        /// Which.
        id: CheckpointId,
        /// Who.
        subtask: SubtaskId,
        /// Why: `Declined`, `AsyncPart`, `TaskNotReady`, `TaskClosing` or `OvertakenAtTask`.
        reason: FailureReason,
        /// For people.
        detail: String,
    },
    /// The metadata is in its place and synced: the checkpoint exists.
    MetadataWritten {
        /// Which.
        id: CheckpointId,
        /// Where.
        location: String,
        /// Size of the metadata.
        metadata_bytes: u64,
    },
    /// The metadata is not in its place and never will be. Where that is not certain, the storage makes it certain
    /// before it says so.
    MetadataFailed {
        /// Which.
        id: CheckpointId,
        /// For people.
        detail: String,
    },
    /// `Abandon` or `Delete` has been carried out, or given up.
    Cleaned {
        /// Which.
        id: CheckpointId,
    },
}

/// Something to be done.
#[derive(Clone, Debug)]
pub enum Action<S> {
    /// Make the directory, and take the state of operator coordinators, holding back what they send to tasks until
    /// `Trigger`. Answer: `Prepared`.
    Prepare {
        /// Which.
        id: CheckpointId,
        /// What.
        kind: Kind,
        /// Where a savepoint is to lie.
        target: Option<String>,
    },
    /// Tell these subtasks to take their part and send the barrier on. A task ignores ids that are not above the last
    /// one it answered: the message may come twice.
    Trigger {
        /// What to take and how.
        barrier: Barrier,
        /// Whom to tell.
        subtasks: Vec<SubtaskId>,
    },
    /// Publish the metadata: the commit point. Answer: `MetadataWritten` or `MetadataFailed`.
    WriteMetadata {
        /// What to write.
        checkpoint: Arc<Checkpoint<S>>,
    },
    /// Tell these subtasks that a checkpoint is complete: whatever is pending up to it is to be committed.
    NotifyComplete {
        /// Which.
        id: CheckpointId,
        /// Whom to tell.
        subtasks: Vec<SubtaskId>,
    },
    /// Tell these subtasks that a checkpoint came to nothing.
    NotifyAborted {
        /// Which.
        id: CheckpointId,
        /// The newest completed one.
        latest_completed: Option<CheckpointId>,
        /// Whom to tell.
        subtasks: Vec<SubtaskId>,
    },
    /// Delete everything of a checkpoint that came to nothing: its directory and the parts that came. Answer: `Cleaned`.
    Abandon {
        /// What there is of it.
        checkpoint: Arc<Checkpoint<S>>,
    },
    /// Delete the state of one subtask that came too late.
    DiscardState {
        /// Of which checkpoint.
        id: CheckpointId,
        /// Whose.
        subtask: SubtaskId,
        /// The state.
        state: S,
    },
    /// Delete a completed checkpoint that newer ones have replaced. Answer: `Cleaned`.
    Delete {
        /// Which.
        checkpoint: Arc<Checkpoint<S>>,
        /// Shared files last used by a checkpoint below this one are not needed by any; `None`: none is needed.
        lowest_in_use: Option<CheckpointId>,
    },
    /// The answer to a request.
    Answer {
        /// Which.
        request: RequestId,
        /// Which checkpoint it became and where that lies, or why it failed.
        result: Result<Answered, Failure>,
    },
    /// Too many checkpoints have failed, or a stop with savepoint left tasks stopped: the job must restart or fail.
    FailJob {
        /// The last straw.
        id: CheckpointId,
        /// Why it failed.
        failure: Failure,
    },
}

/// A request that came true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Number of the checkpoint.
    pub id: CheckpointId,
    /// Where it lies.
    pub location: String,
}
