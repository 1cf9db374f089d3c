//! What reaches a job master, and how tasks put it there.
//!
//! The inbox has no bound of its own, since slots must never wait for it. What is in it is bounded by what can be under
//! way: a few messages for each subtask and checkpoint, one for each action, and those of callers, who wait for theirs.

use std::sync::mpsc::Sender;

use thalweg_cluster::{
    checkpoint::{Kind, Statistics},
    job::Attempt,
};
use thalweg_runtime::{TaskListener, TaskReport, TaskSubtask};

use super::{
    attempt::Outcome,
    client::{Snapshot, SnapshotError},
    overview::Lives,
    storage::Answer,
};

/// A message to the job master.
pub(super) enum Message {
    /// A task has something to say.
    Task { attempt: Attempt, subtask: TaskSubtask, report: TaskReport },
    /// All tasks of an attempt are over.
    Ended { attempt: Attempt, outcome: Outcome },
    /// Storage has done what it was told.
    Storage(Answer),
    /// Somebody wants a checkpoint or savepoint.
    Request { kind: Kind, target: Option<String>, reply: Sender<Result<Snapshot, SnapshotError>> },
    /// Somebody wants to see the history.
    Statistics(Sender<Statistics>),
    /// Somebody wants to know what tasks are doing.
    Lives(Sender<Lives>),
    /// Somebody wants the job to end.
    Cancel,
}

/// Puts what tasks of one attempt report into the inbox.
pub(super) struct Listener {
    pub(super) attempt: Attempt,
    pub(super) inbox: Sender<Message>,
}

impl TaskListener for Listener {
    fn report(&self, subtask: TaskSubtask, report: TaskReport) {
        // A master that is gone needs no reports.
        let _ = self.inbox.send(Message::Task { attempt: self.attempt, subtask, report });
    }
}
