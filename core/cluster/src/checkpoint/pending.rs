//! A checkpoint on its way: what it waits for and what has come.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    request::{Request, Requester},
    topology::Plan,
    types::{Ack, Checkpoint, CheckpointId, Kind, Part, SubtaskId},
};
use crate::TimeMs;

/// How far a checkpoint is, and what it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// For its directory and the operator coordinators.
    Preparing,
    /// For acknowledgements.
    Running,
    /// All are there; for an earlier one to be committed.
    Ready,
    /// For the metadata. Nothing can end it but that answer.
    Committing,
}

/// What became of an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It counts.
    Yes,
    /// It had come before.
    Again,
    /// Nobody asked for it.
    Unasked,
}

#[derive(Debug)]
pub(super) struct Pending<S> {
    pub id: CheckpointId,
    pub kind: Kind,
    pub requester: Requester,
    pub target: Option<String>,
    pub triggered_at: TimeMs,
    pub deadline: TimeMs,
    pub stage: Stage,
    /// Whether its preparation has been answered, well or badly.
    pub prepared: bool,
    pub plan: Plan,
    /// Earlier checkpoint whose shared files it may reference.
    pub base: Option<CheckpointId>,
    /// The run of the job that it was taken in.
    pub run: u64,
    pub coordinators: Vec<S>,
    waiting: BTreeSet<SubtaskId>,
    parts: BTreeMap<SubtaskId, Part<S>>,
    union_vertices: BTreeSet<u32>,
    checkpoint: Option<Arc<Checkpoint<S>>>,
}

impl<S> Pending<S> {
    pub fn new(id: CheckpointId, request: Request, plan: Plan, times: (TimeMs, TimeMs), run: u64) -> Self {
        let waiting = plan.wait_for.iter().copied().collect();
        Self {
            id,
            kind: request.kind,
            requester: request.requester,
            target: request.target,
            triggered_at: times.0,
            deadline: times.1,
            stage: Stage::Preparing,
            prepared: false,
            plan,
            base: None,
            run,
            coordinators: Vec::new(),
            waiting,
            parts: BTreeMap::new(),
            union_vertices: BTreeSet::new(),
            checkpoint: None,
        }
    }

    /// Whether the subtask still owes its acknowledgement.
    pub fn waits_for(&self, subtask: SubtaskId) -> bool {
        self.waiting.contains(&subtask)
    }

    /// Whether time or a later checkpoint may end it.
    pub fn can_be_aborted(&self) -> bool {
        self.stage != Stage::Committing
    }

    /// What an acknowledgement is to it.
    pub fn judge(&self, subtask: SubtaskId) -> Taken {
        match self.stage {
            Stage::Running if self.waiting.contains(&subtask) => Taken::Yes,
            Stage::Preparing => Taken::Unasked,
            _ if self.plan.wait_for.contains(&subtask) => Taken::Again,
            _ => Taken::Unasked,
        }
    }

    /// Takes an acknowledgement that [`Self::judge`] said yes to.
    pub fn take(&mut self, ack: Ack<S>) {
        assert!(self.waiting.remove(&ack.subtask), "{} was not waited for", ack.subtask);
        if ack.union_list {
            self.union_vertices.insert(ack.subtask.vertex);
        }
        let part = Part { subtask: ack.subtask, state: ack.state, end_of_data: ack.end_of_data };
        self.parts.insert(ack.subtask, part);
        if self.waiting.is_empty() {
            self.stage = Stage::Ready;
        }
    }

    /// Whether a vertex with union list state lacks the parts of subtasks that have finished, or would lack them in the
    /// next checkpoint: those that have handed over their last part finish with this one, and no later one could be
    /// taken before the others do, which wait for one themselves.
    pub fn loses_union_list(&self) -> bool {
        self.union_vertices.iter().any(|&vertex| {
            let finished = self.plan.finished.iter().any(|subtask| subtask.vertex == vertex);
            let mut last =
                self.parts.values().filter(|part| part.subtask.vertex == vertex).map(|part| part.end_of_data);
            let first = last.next();
            finished || last.any(|last| Some(last) != first)
        })
    }

    /// What has come of it so far; to be called once there will be no more.
    pub fn checkpoint(&mut self) -> Arc<Checkpoint<S>> {
        let (id, kind, triggered_at) = (self.id, self.kind, self.triggered_at);
        let (target, coordinators) = (&mut self.target, &mut self.coordinators);
        let (parts, finished) = (&mut self.parts, &mut self.plan.finished);
        let made = self.checkpoint.get_or_insert_with(|| {
            Arc::new(Checkpoint {
                id,
                kind,
                triggered_at,
                target: target.take(),
                coordinators: std::mem::take(coordinators),
                parts: std::mem::take(parts).into_values().collect(),
                finished: std::mem::take(finished),
            })
        });
        Arc::clone(made)
    }
}
