//! `RunningAttempt`: the attempt that runs, and what has been said to the job of its tasks.

use std::collections::BTreeSet;

use thalweg_cluster::{
    checkpoint::{CheckpointId, SubtaskId},
    job::Attempt,
};
use thalweg_runtime::JobControl;

/// See the module. One that is dropped before its end is cancelled.
pub(super) struct RunningAttempt {
    pub(super) attempt: Attempt,
    pub(super) control: JobControl,
    /// What it started from.
    pub(super) restored: Option<CheckpointId>,
    /// Subtasks of whose end nothing has been said.
    open: BTreeSet<SubtaskId>,
    is_over: bool,
}

impl RunningAttempt {
    pub(super) fn new(
        attempt: Attempt,
        control: JobControl,
        restored: Option<CheckpointId>,
        subtasks: impl Iterator<Item = SubtaskId>,
    ) -> Self {
        Self { attempt, control, restored, open: subtasks.collect(), is_over: false }
    }

    /// A subtask has finished; whether that may be said now. Of the last one it may not: whether the job has finished
    /// shows only when its slots have ended in order.
    pub(super) fn finished(&mut self, subtask: SubtaskId) -> bool {
        self.open.len() > 1 && self.open.remove(&subtask)
    }

    /// All slots have ended.
    pub(super) fn ended(&mut self) {
        self.is_over = true;
    }

    /// Whether all slots have ended.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// The subtasks of whose end nothing has been said, which now will be.
    pub(super) fn take_open(&mut self) -> BTreeSet<SubtaskId> {
        std::mem::take(&mut self.open)
    }
}

impl Drop for RunningAttempt {
    fn drop(&mut self) {
        if !self.is_over {
            self.control.cancel();
        }
    }
}
