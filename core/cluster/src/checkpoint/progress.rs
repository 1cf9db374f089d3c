//! The way of one checkpoint through the coordinator: prepared, triggered, acknowledged, committed or aborted.

use std::sync::Arc;

use thalweg_model::config::CheckpointingMode;

use super::{
    coordinator::{Coordinator, Phase},
    events::{Action, Answered},
    failure::{Failure, FailureReason},
    pending::{Pending, Stage, Taken},
    request::Requester,
    store::Owner,
    types::{Ack, Alignment, Barrier, Checkpoint, CheckpointId, Kind},
};
use crate::{TimeMs, time::millis};

impl<S> Coordinator<S> {
    pub(super) fn prepared(
        &mut self,
        now: TimeMs,
        id: CheckpointId,
        result: Result<Vec<S>, Failure>,
        actions: &mut Vec<Action<S>>,
    ) {
        let base = self.base();
        let mode = self.options.mode;
        if let Some(checkpoint) = self.aborted_early.remove(&id) {
            return self.abandon(checkpoint, actions);
        }
        let pending = self.pending.get_mut(&id).expect("preparing was asked for");
        assert_eq!(pending.stage, Stage::Preparing, "checkpoint {id} was prepared before");
        pending.prepared = true;
        match result {
            Err(failure) => self.abort(now, id, failure, actions),
            Ok(coordinators) => {
                pending.coordinators = coordinators;
                pending.stage = Stage::Running;
                pending.base = base.filter(|_| pending.kind == Kind::Checkpoint { full: false });
                let (kind, triggered_at, base) = (pending.kind, pending.triggered_at, pending.base);
                let subtasks = pending.plan.trigger.clone();
                let alignment = self.alignment(kind);
                let barrier = Barrier { id, kind, triggered_at, mode, alignment, base };
                self.statistics.sent(barrier);
                actions.push(Action::Trigger { barrier, subtasks });
            }
        }
    }

    /// Savepoints stay in line: they must be readable by a job of another shape.
    fn alignment(&self, kind: Kind) -> Alignment {
        let options = &self.options;
        debug_assert!(!options.unaligned_enabled() || options.mode == CheckpointingMode::ExactlyOnce);
        match millis(options.aligned_timeout) {
            _ if kind.is_savepoint() || !options.unaligned_enabled() => Alignment::Aligned,
            0 => Alignment::Unaligned,
            timeout_ms => Alignment::AlignedAtFirst { timeout_ms },
        }
    }

    /// The checkpoint whose shared files the next one may reference: the newest, if it is not the user's.
    fn base(&self) -> Option<CheckpointId> {
        let newest = self.store.newest().filter(|newest| self.options.incremental && newest.owner.lends_files())?;
        Some(newest.checkpoint.id)
    }

    pub(super) fn acknowledged(&mut self, now: TimeMs, ack: Ack<S>, actions: &mut Vec<Action<S>>) {
        let (id, subtask) = (ack.id, ack.subtask);
        let unclaimed = match self.pending.get_mut(&id) {
            None => self.settled.is_aborted(id),
            Some(pending) => match pending.judge(subtask) {
                Taken::Again => false,
                Taken::Unasked => true,
                Taken::Yes => {
                    self.statistics.acknowledged(&ack, now);
                    pending.take(ack);
                    if pending.stage == Stage::Ready && pending.loses_union_list() {
                        self.abort(now, id, FailureReason::PartlyFinishedUnionList.into(), actions);
                    }
                    return;
                }
            },
        };
        if unclaimed {
            actions.push(Action::DiscardState { id, subtask, state: ack.state });
        }
    }

    /// One metadata file at a time, in the order of ids: so checkpoints complete in that order too.
    pub(super) fn commit_next(&mut self, actions: &mut Vec<Action<S>>) {
        if self.is_committing() {
            return;
        }
        if let Some(pending) = self.pending.values_mut().find(|pending| pending.stage == Stage::Ready) {
            pending.stage = Stage::Committing;
            actions.push(Action::WriteMetadata { checkpoint: pending.checkpoint() });
        }
    }

    pub(super) fn committed(
        &mut self,
        now: TimeMs,
        id: CheckpointId,
        location: String,
        metadata_bytes: u64,
        actions: &mut Vec<Action<S>>,
    ) {
        let mut pending = match self.pending.remove(&id) {
            Some(pending) if pending.stage == Stage::Committing => pending,
            _ => panic!("no metadata of checkpoint {id} was asked for"),
        };
        let kind = pending.kind;
        self.settled.completed(id);
        self.statistics.completed(id, now, location.clone(), metadata_bytes);
        self.failures.succeeded(id);
        self.last_completion = Some(now);
        if kind.commits() {
            // What sinks commit with, the job must recover from: also the savepoint that it was to stop with.
            let owner = if kind.is_savepoint() { Owner::User } else { Owner::Engine };
            let dropped = self.store.add(pending.checkpoint(), owner);
            self.subsume_before(now, id, actions);
            if self.phase == Phase::Active && pending.run == self.run {
                let subtasks = std::mem::take(&mut pending.plan.wait_for);
                if kind.stop().is_some() {
                    self.stopped_with(now, id, subtasks.clone());
                }
                actions.push(Action::NotifyComplete { id, subtasks });
            }
            for checkpoint in dropped {
                self.delete(checkpoint, actions);
            }
        }
        if let Requester::User(request) = pending.requester {
            actions.push(Action::Answer { request, result: Ok(Answered { id, location }) });
        }
    }

    /// Gives up what a newer checkpoint has made superfluous. Savepoints are wanted for themselves.
    fn subsume_before(&mut self, now: TimeMs, id: CheckpointId, actions: &mut Vec<Action<S>>) {
        let older = |pending: &&Pending<S>| pending.id < id && !pending.kind.is_savepoint();
        let older: Vec<CheckpointId> = self.pending.values().filter(older).map(|pending| pending.id).collect();
        for older in older {
            self.abort(now, older, FailureReason::Subsumed.into(), actions);
        }
    }

    /// Everything that is queued or on its way comes to nothing, but for what is being committed.
    pub(super) fn abort_all(&mut self, now: TimeMs, reason: FailureReason, actions: &mut Vec<Action<S>>) {
        for request in self.queue.drain() {
            self.refuse(now, request, reason, actions);
        }
        let ids: Vec<CheckpointId> = self.pending.values().filter(|p| p.can_be_aborted()).map(|p| p.id).collect();
        for id in ids {
            self.abort(now, id, reason.into(), actions);
        }
    }

    pub(super) fn abort(&mut self, now: TimeMs, id: CheckpointId, failure: Failure, actions: &mut Vec<Action<S>>) {
        let mut pending = self.pending.remove(&id).expect("only pending checkpoints are aborted");
        self.settled.aborted(id);
        self.statistics.failed(id, now, failure.reason, failure.to_string());
        let triggered = pending.stage != Stage::Preparing;
        if pending.prepared {
            self.abandon(pending.checkpoint(), actions);
        } else {
            self.aborted_early.insert(id, pending.checkpoint());
        }
        let current = self.phase == Phase::Active && pending.run == self.run;
        if triggered && current {
            actions.push(Action::NotifyAborted {
                id,
                latest_completed: self.store.newest().map(|newest| newest.checkpoint.id),
                subtasks: std::mem::take(&mut pending.plan.wait_for),
            });
        }
        match pending.requester {
            Requester::Periodic => {}
            Requester::EndOfData => self.schedule.last_failed(now),
            Requester::User(request) => {
                actions.push(Action::Answer { request, result: Err(failure.clone()) });
            }
        }
        let stop = pending.kind.stop().is_some();
        if stop {
            self.go_on(now);
        }
        // Whatever counts against the job, a task that has stopped for its savepoint cannot go on.
        let too_many = self.failures.failed(id, pending.kind, &failure);
        if current && (too_many || (stop && triggered)) {
            actions.push(Action::FailJob { id, failure });
        }
    }

    fn abandon(&mut self, checkpoint: Arc<Checkpoint<S>>, actions: &mut Vec<Action<S>>) {
        assert!(self.cleaning.insert(checkpoint.id), "a checkpoint is deleted once");
        actions.push(Action::Abandon { checkpoint });
    }

    pub(super) fn delete(&mut self, checkpoint: Arc<Checkpoint<S>>, actions: &mut Vec<Action<S>>) {
        self.statistics.discarded(checkpoint.id);
        assert!(self.cleaning.insert(checkpoint.id), "a checkpoint is deleted once");
        let retained = self.store.iter().map(|entry| entry.checkpoint.id);
        let bases = self.pending.values().filter_map(|pending| pending.base);
        let lowest_in_use = retained.chain(bases).min();
        actions.push(Action::Delete { checkpoint, lowest_in_use });
    }
}
