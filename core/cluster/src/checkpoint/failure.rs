//! Why checkpoints fail, which failures count, and when they fail the job.

use std::{collections::BTreeSet, fmt};

use super::types::{CheckpointId, Kind, SubtaskId};

/// Why a request or a checkpoint came to nothing. The names in brackets are Flink's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureReason {
    /// Tasks are not all running, or some have finished where that is not allowed (NOT_ALL_REQUIRED_TASKS_RUNNING).
    NotAllTasksRunning,
    /// The queue of requests is full (TOO_MANY_CHECKPOINT_REQUESTS).
    TooManyRequests,
    /// A periodic one came within the minimum pause (MINIMUM_TIME_BETWEEN_CHECKPOINTS).
    MinPause,
    /// Not complete within the timeout (CHECKPOINT_EXPIRED).
    Expired,
    /// A later one completed first (CHECKPOINT_SUBSUMED).
    Subsumed,
    /// A task's snapshot failed (CHECKPOINT_DECLINED).
    Declined,
    /// A task was not ready for one (CHECKPOINT_DECLINED_TASK_NOT_READY).
    TaskNotReady,
    /// A task was ending, or has ended without taking part (CHECKPOINT_DECLINED_TASK_CLOSING).
    TaskClosing,
    /// A task saw the barrier of a later one first (CHECKPOINT_DECLINED_SUBSUMED).
    OvertakenAtTask,
    /// A task's writing failed (CHECKPOINT_ASYNC_EXCEPTION).
    AsyncPart,
    /// The storage could not be prepared (IO_EXCEPTION).
    Io,
    /// Operator coordinators could not be snapshotted, or tasks not be told (TRIGGER_CHECKPOINT_FAILURE).
    Trigger,
    /// The metadata could not be written (FINALIZE_CHECKPOINT_FAILURE).
    Finalize,
    /// A vertex with union list state has finished in part (FINALIZE_CHECKPOINT_FAILURE).
    PartlyFinishedUnionList,
    /// The job is not running any more (CHECKPOINT_COORDINATOR_SUSPEND).
    Suspended,
    /// The job has ended (CHECKPOINT_COORDINATOR_SHUTDOWN).
    Shutdown,
    /// The job is already stopping with a savepoint.
    StopInProgress,
}

impl FailureReason {
    /// Whether it counts against `execution.checkpointing.tolerable-failed-checkpoints`.
    pub fn counts(self) -> bool {
        matches!(self, Self::Expired | Self::Declined | Self::AsyncPart | Self::Io)
    }

    fn text(self) -> &'static str {
        match self {
            Self::NotAllTasksRunning => "not all tasks are running; try again once they are",
            Self::TooManyRequests => "too many requests are waiting; try again later",
            Self::MinPause => "execution.checkpointing.min-pause has not passed yet",
            Self::Expired => "it did not complete in time; see execution.checkpointing.timeout",
            Self::Subsumed => "a later checkpoint completed first",
            Self::Declined => "a task could not take its snapshot",
            Self::TaskNotReady => "a task was not ready for a checkpoint",
            Self::TaskClosing => "a task was ending; the next checkpoint does without it",
            Self::OvertakenAtTask => "the barrier of a later checkpoint came first at a task",
            Self::AsyncPart => "a task could not write its state",
            Self::Io => "the storage could not be prepared",
            Self::Trigger => "it could not be triggered",
            Self::Finalize => "the metadata could not be written",
            Self::PartlyFinishedUnionList => {
                "an operator with union list state has finished in some subtasks only; wait until all have finished"
            }
            Self::Suspended => "the job is not running",
            Self::Shutdown => "the job has ended",
            Self::StopInProgress => "the job is already stopping with a savepoint",
        }
    }
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// A reason with what its origin had to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub reason: FailureReason,
    /// Details for people; may be empty.
    pub detail: String,
    /// The task it came from; `None`: coordination itself.
    pub task: Option<SubtaskId>,
}

impl Failure {
    /// A failure that no task reported.
    pub fn new(reason: FailureReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), task: None }
    }

    /// A failure that a task reported.
    pub fn of_task(task: SubtaskId, reason: FailureReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), task: Some(task) }
    }
}

impl From<FailureReason> for Failure {
    fn from(reason: FailureReason) -> Self {
        Self::new(reason, "")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)?;
        if let Some(task) = self.task {
            write!(f, " ({task})")?;
        }
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// Counts consecutive failures (Flink's `CheckpointFailureManager`).
#[derive(Clone, Debug)]
pub(super) struct FailureCounter {
    tolerable: u32,
    consecutive: u32,
    counted: BTreeSet<CheckpointId>,
    last_success: Option<CheckpointId>,
}

impl FailureCounter {
    pub fn new(tolerable: u32) -> Self {
        Self { tolerable, consecutive: 0, counted: BTreeSet::new(), last_success: None }
    }

    /// A checkpoint completed: the count starts again.
    pub fn succeeded(&mut self, id: CheckpointId) {
        self.last_success = self.last_success.max(Some(id));
        self.clear();
    }

    /// A checkpoint failed; whether the job must fail with it.
    pub fn failed(&mut self, id: CheckpointId, kind: Kind, failure: &Failure) -> bool {
        match failure.task {
            // Tasks that have stopped for it cannot go on.
            Some(_) if kind.stop().is_some() => return true,
            None if kind.is_savepoint() => return false,
            _ => {}
        }
        let late = self.last_success.is_some_and(|success| id <= success);
        if late || !failure.reason.counts() || !self.counted.insert(id) {
            return false;
        }
        self.consecutive += 1;
        let fails = self.consecutive > self.tolerable;
        if fails {
            self.clear();
        }
        fails
    }

    fn clear(&mut self) {
        self.consecutive = 0;
        self.counted.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::{super::types::*, *};

    const CHECKPOINT: Kind = Kind::Checkpoint { full: false };
    const SAVEPOINT: Kind = Kind::Savepoint { format: SavepointFormat::Canonical, stop: None };
    const STOP: Kind = Kind::Savepoint { format: SavepointFormat::Canonical, stop: Some(StopMode::Suspend) };
    const TASK: SubtaskId = SubtaskId { vertex: 0, index: 0 };

    fn of_task(reason: FailureReason) -> Failure {
        Failure::of_task(TASK, reason, "")
    }

    #[test]
    fn when_more_fail_in_a_row_than_tolerated_then_the_job_fails_and_counting_starts_again() {
        let mut counter = FailureCounter::new(1);
        let expired = Failure::from(FailureReason::Expired);
        assert!(!counter.failed(CheckpointId(1), CHECKPOINT, &expired));
        assert!(!counter.failed(CheckpointId(1), CHECKPOINT, &expired), "each id counts once");
        assert!(counter.failed(CheckpointId(2), CHECKPOINT, &of_task(FailureReason::Declined)));
        assert!(!counter.failed(CheckpointId(3), CHECKPOINT, &expired));
    }

    #[test]
    fn when_one_succeeds_then_the_count_starts_again_and_older_failures_do_not_matter() {
        let mut counter = FailureCounter::new(1);
        let expired = Failure::from(FailureReason::Expired);
        assert!(!counter.failed(CheckpointId(1), CHECKPOINT, &expired));
        counter.succeeded(CheckpointId(5));
        assert!(!counter.failed(CheckpointId(4), CHECKPOINT, &expired));
        assert!(!counter.failed(CheckpointId(6), CHECKPOINT, &expired));
        assert!(counter.failed(CheckpointId(7), CHECKPOINT, &expired));
    }

    #[test]
    fn when_a_reason_is_nobodys_fault_then_it_does_not_count() {
        use FailureReason::*;
        let ignored = [
            NotAllTasksRunning,
            TooManyRequests,
            MinPause,
            Subsumed,
            TaskNotReady,
            TaskClosing,
            OvertakenAtTask,
            Trigger,
            Finalize,
            PartlyFinishedUnionList,
            Suspended,
            Shutdown,
            StopInProgress,
        ];
        let mut counter = FailureCounter::new(0);
        for (n, reason) in ignored.into_iter().enumerate() {
            assert!(!counter.failed(CheckpointId(n as u64 + 1), CHECKPOINT, &reason.into()), "{reason:?}");
        }
        for (n, reason) in [Expired, Declined, AsyncPart, Io].into_iter().enumerate() {
            assert!(counter.failed(CheckpointId(n as u64 + 100), CHECKPOINT, &reason.into()), "{reason:?}");
        }
    }

    #[test]
    fn when_a_savepoint_fails_then_it_depends_on_where() {
        let mut counter = FailureCounter::new(0);
        assert!(!counter.failed(CheckpointId(1), SAVEPOINT, &FailureReason::Expired.into()));
        assert!(counter.failed(CheckpointId(2), SAVEPOINT, &of_task(FailureReason::AsyncPart)));
        assert!(counter.failed(CheckpointId(3), STOP, &of_task(FailureReason::TaskClosing)));
    }
}
