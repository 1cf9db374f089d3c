//! What goes into a job's state machine and what comes out.

use super::state::JobState;
use crate::checkpoint::{Action, CheckpointId, Event, Retained, SubtaskId};

/// Number of a deployment of all of a job's tasks, from 1. Whatever a task reports carries it, so that what comes late
/// from tasks of an earlier one changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(pub u32);

/// Why a job failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFailure {
    /// For people; names the operator and the subtask.
    pub message: String,
    /// Whether another attempt can help. Not, for example, where state does not fit the job.
    pub retryable: bool,
}

impl JobFailure {
    /// A failure that another attempt may get over.
    pub fn retryable(message: impl Into<String>) -> Self {
        Self { message: message.into(), retryable: true }
    }
}

/// What a task has to say. Reports may come late, twice or in the wrong order, but are not lost: a worker that is gone
/// is reported as the failure of its tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskReport {
    /// It is restored and runs.
    Running,
    /// It has processed all of its input and waits for a last checkpoint.
    EndOfData,
    /// It has finished.
    Finished,
    /// It was cancelled.
    Canceled,
    /// It failed.
    Failed(JobFailure),
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum JobEvent<S> {
    /// The job is to run, from the newest checkpoint that the coordinator has adopted, if any.
    Start,
    /// A task got further.
    Task {
        /// Of which deployment.
        attempt: Attempt,
        /// Which.
        subtask: SubtaskId,
        /// What happened to it.
        report: TaskReport,
    },
    /// The checkpoint that an attempt was to start from cannot be read: torn, truncated, changed or incomplete.
    RestoreDamaged {
        /// Which deployment.
        attempt: Attempt,
        /// Which checkpoint.
        id: CheckpointId,
        /// For people: the file and what is wrong with it.
        detail: String,
    },
    /// Something other than a task failed.
    Fail(JobFailure),
    /// Somebody wants the job to end at once.
    Cancel,
    /// This process gives the job up.
    Suspend,
    /// For the checkpoint coordinator: requests, acknowledgements, what storage answers. Not `Start`, `Suspend`,
    /// `Shutdown`, `Task` or `Tick`, which the job says to it.
    Checkpoint(Event<S>),
    /// The time that [`Job::next_wakeup`](super::Job::next_wakeup) named has come.
    Tick,
}

/// Something to be done.
#[derive(Clone, Debug)]
pub enum JobAction<S> {
    /// Start all tasks. An attempt whose tasks cannot all be started is reported as failed tasks.
    Deploy {
        /// Under this number.
        attempt: Attempt,
        /// From this checkpoint; `None`: from nothing.
        restore: Option<Retained<S>>,
    },
    /// Cancel all tasks of an attempt. Each reports `Canceled`, `Failed` or `Finished`, also one that never started.
    CancelTasks {
        /// Which.
        attempt: Attempt,
    },
    /// The checkpoint coordinator wants something done (never `FailJob`).
    Checkpoint(Action<S>),
    /// The job's state has changed.
    State {
        /// To this.
        to: JobState,
        /// Why, where somebody may want to know.
        why: Option<String>,
    },
}
