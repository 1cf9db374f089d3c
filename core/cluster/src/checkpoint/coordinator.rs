//! The checkpoint coordinator: decides when a checkpoint starts, when it exists and when it has failed.
//!
//! A pure state machine over Flink's `CheckpointCoordinator`: events and the time go in, actions come out. What differs:
//! the commit point is an action whose outcome comes back, only one metadata file is written at a time, and one periodic
//! request at most waits in the queue.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use thalweg_model::config::{CheckpointRetention, CheckpointingOptions};

use super::{
    events::{Action, Event, JobEnd},
    failure::{Failure, FailureCounter, FailureReason},
    pending::{Pending, Stage},
    request::{Choice, Facts, Request, RequestQueue, Requester},
    schedule::Schedule,
    settled::Settled,
    stats::Statistics,
    store::{Owner, Retained, Store},
    topology::{TaskPhase, Tasks, Topology},
    types::{Checkpoint, CheckpointId, Kind, RequestId, SubtaskId},
};
use crate::TimeMs;

/// Pause between two notifications of a task that has stopped with its savepoint.
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub struct Coordinator<S> {
    pub(super) options: CheckpointingOptions,
    pub(super) topology: Topology,
    pub(super) tasks: Tasks,
    next_id: CheckpointId,
    pub(super) pending: BTreeMap<CheckpointId, Pending<S>>,
    pub(super) queue: RequestQueue,
    pub(super) store: Store<S>,
    pub(super) failures: FailureCounter,
    pub(super) statistics: Statistics,
    pub(super) schedule: Schedule,
    pub(super) settled: Settled,
    pub(super) last_completion: Option<TimeMs>,
    /// Aborted before they were prepared: to be deleted once that is answered, since a directory may still be made.
    pub(super) aborted_early: BTreeMap<CheckpointId, Arc<Checkpoint<S>>>,
    /// Deletions under way.
    pub(super) cleaning: BTreeSet<CheckpointId>,
    pub(super) phase: Phase,
    /// Counts the runs of the job.
    pub(super) run: u64,
    /// Whether the job is ending with a savepoint.
    pub(super) stopping: bool,
    /// The savepoint that the job has stopped with: its tasks wait to be told, until they are.
    pub(super) stopped: Option<Stopped>,
}

/// Tasks that stand still until they hear that their savepoint is complete. Nothing else would tell them, so they are
/// told again until they have finished.
#[derive(Clone, Debug)]
pub(super) struct Stopped {
    pub id: CheckpointId,
    pub subtasks: Vec<SubtaskId>,
    pub tell_again_at: TimeMs,
}

/// What requests are met with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The job is not running.
    Suspended,
    /// The job is running.
    Active,
    /// The job has ended.
    Shutdown(JobEnd),
}

impl<S> Coordinator<S> {
    /// A coordinator for a job that does not run yet.
    ///
    /// `next_id` must be above every id that was ever given in this job's directory, completed or not: what a torn
    /// checkpoint left behind must not be mistaken for a new one.
    pub fn new(options: CheckpointingOptions, topology: Topology, next_id: CheckpointId) -> Self {
        Self {
            tasks: Tasks::new(&topology),
            store: Store::new(options.retained_count as usize),
            failures: FailureCounter::new(options.tolerable_failed),
            statistics: Statistics::new(options.history_count as usize),
            schedule: Schedule::new(&options),
            settled: Settled::default(),
            pending: BTreeMap::new(),
            queue: RequestQueue::default(),
            last_completion: None,
            aborted_early: BTreeMap::new(),
            cleaning: BTreeSet::new(),
            phase: Phase::Suspended,
            run: 0,
            stopping: false,
            stopped: None,
            options,
            topology,
            next_id,
        }
    }

    /// Makes a completed checkpoint of an earlier process known, oldest first, before the first event. More than are retained stay until the next one completes: the newest may turn out to be damaged.
    ///
    /// # Panics
    /// Where the ids do not rise, or are not below `next_id`.
    pub fn adopt(&mut self, checkpoint: Arc<Checkpoint<S>>, owner: Owner) {
        assert!(checkpoint.id < self.next_id, "ids are not given twice");
        self.settled.completed(checkpoint.id);
        self.store.adopt(checkpoint, owner);
    }

    /// The completed checkpoints to recover from, oldest first.
    pub fn retained(&self) -> impl Iterator<Item = &Retained<S>> {
        self.store.iter()
    }

    /// The newest completed checkpoint.
    pub fn newest(&self) -> Option<&Retained<S>> {
        self.store.newest()
    }

    /// Takes a checkpoint out of use that turned out to be damaged. Its files are left for people to look at.
    pub fn damaged(&mut self, id: CheckpointId) -> Option<Retained<S>> {
        self.store.take(id)
    }

    /// Notes that the job was restored from a checkpoint.
    pub fn restored(&mut self, now: TimeMs, checkpoint: &Checkpoint<S>) {
        self.statistics.restored_from(checkpoint, now);
    }

    /// The job's vertices.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Counters and history.
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// Whether a metadata file is being written: until that is answered nobody knows which checkpoint is the newest, and
    /// a job must not be restored.
    pub fn is_committing(&self) -> bool {
        self.pending.values().any(|pending| pending.stage == Stage::Committing)
    }

    /// Whether nothing is under way: no checkpoint and no deletion.
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.aborted_early.is_empty() && self.cleaning.is_empty() && self.queue.is_empty()
    }

    /// When the next `Tick` is due, if nothing else happens.
    pub fn next_wakeup(&self) -> Option<TimeMs> {
        let deadlines = self.pending.values().filter(|p| p.can_be_aborted()).map(|p| p.deadline);
        let stopped = self.stopped.as_ref().map(|stopped| stopped.tell_again_at);
        deadlines.chain(self.schedule.next_wakeup()).chain(stopped).min()
    }

    /// Decides. Actions are appended in the order in which they are to be carried out.
    ///
    /// # Panics
    /// Where an answer comes to an action that was not given, or comes twice: storage has lost track then, and nothing
    /// that it says can be relied on. Messages of tasks never lead to a panic.
    pub fn handle(&mut self, now: TimeMs, event: Event<S>, actions: &mut Vec<Action<S>>) {
        match event {
            Event::Start { random } => self.start(now, random),
            Event::Suspend => self.suspend(now, actions),
            Event::Shutdown(end) => self.shutdown(now, end, actions),
            Event::Tick => self.tick(now, actions),
            Event::Task { subtask, phase } => self.task(now, subtask, phase, actions),
            Event::Backlog { active } => self.schedule.backlog(now, active),
            Event::Request { request, kind, target } => self.request(now, request, kind, target, actions),
            Event::Prepared { id, result } => self.prepared(now, id, result, actions),
            Event::Acknowledged(ack) => self.acknowledged(now, ack, actions),
            Event::Declined { id, subtask, reason, detail } => {
                if self.pending.get(&id).is_some_and(|pending| pending.waits_for(subtask)) {
                    self.abort(now, id, Failure::of_task(subtask, reason, detail), actions);
                }
            }
            Event::MetadataWritten { id, location, metadata_bytes } => {
                self.committed(now, id, location, metadata_bytes, actions);
            }
            Event::MetadataFailed { id, detail } => {
                assert!(
                    self.pending.get(&id).is_some_and(|p| p.stage == Stage::Committing),
                    "no metadata was asked for"
                );
                self.abort(now, id, Failure::new(FailureReason::Finalize, detail), actions);
            }
            Event::Cleaned { id } => self.cleaned(id),
        }
        self.commit_next(actions);
        self.start_requests(now, actions);
        if let Phase::Shutdown(end) = self.phase {
            self.close(end, actions);
        }
    }

    fn start(&mut self, now: TimeMs, random: u64) {
        assert!(!matches!(self.phase, Phase::Shutdown(_)), "the job has ended");
        self.phase = Phase::Active;
        self.run += 1;
        (self.stopping, self.stopped) = (false, None);
        self.tasks.reset();
        self.schedule.start(now, random);
    }

    fn suspend(&mut self, now: TimeMs, actions: &mut Vec<Action<S>>) {
        if self.phase == Phase::Active {
            self.phase = Phase::Suspended;
        }
        self.stopped = None;
        self.schedule.stop();
        self.tasks.reset();
        self.abort_all(now, FailureReason::Suspended, actions);
    }

    fn shutdown(&mut self, now: TimeMs, end: JobEnd, actions: &mut Vec<Action<S>>) {
        self.phase = Phase::Shutdown(end);
        self.stopped = None;
        self.schedule.stop();
        self.abort_all(now, FailureReason::Shutdown, actions);
    }

    /// Once nothing is being committed any more, deletes what the way in which the job ended does not let it keep.
    fn close(&mut self, end: JobEnd, actions: &mut Vec<Action<S>>) {
        use CheckpointRetention::*;
        let keep = match (end, self.options.retention) {
            (JobEnd::Suspended, _) => true,
            (JobEnd::Finished, _) => false,
            (JobEnd::Canceled, retention) => retention == RetainOnCancellation,
            // What a job was to go on from stays until it has a checkpoint of its own: one that fails before has perhaps
            // been refused what it asked for, and must not take the state of its predecessor with it. (Flink deletes it.)
            (JobEnd::Failed, retention) => {
                retention != NoExternalizedCheckpoints || self.statistics.counts().completed == 0
            }
        };
        if !keep && self.pending.is_empty() {
            for checkpoint in self.store.clear() {
                self.delete(checkpoint, actions);
            }
        }
    }

    fn tick(&mut self, now: TimeMs, actions: &mut Vec<Action<S>>) {
        let expired = |p: &&Pending<S>| p.can_be_aborted() && p.deadline <= now;
        let expired: Vec<CheckpointId> = self.pending.values().filter(expired).map(|p| p.id).collect();
        for id in expired {
            self.abort(now, id, FailureReason::Expired.into(), actions);
        }
        let checkpoint = Kind::Checkpoint { full: false };
        if self.schedule.periodic_due(now) && !self.queue.has_periodic() {
            self.enqueue(now, Requester::Periodic, checkpoint, None, actions);
        }
        if self.schedule.last_due(now) {
            self.enqueue(now, Requester::EndOfData, checkpoint, None, actions);
        }
        self.tell_stopped_again(now, actions);
    }

    fn tell_stopped_again(&mut self, now: TimeMs, actions: &mut Vec<Action<S>>) {
        let Some(stopped) = self.stopped.as_mut().filter(|stopped| stopped.tell_again_at <= now) else { return };
        stopped.subtasks.retain(|&subtask| !self.tasks.is_finished(subtask));
        stopped.tell_again_at = now.plus(TELL_AGAIN);
        actions.push(Action::NotifyComplete { id: stopped.id, subtasks: stopped.subtasks.clone() });
    }

    fn task(&mut self, now: TimeMs, subtask: SubtaskId, phase: TaskPhase, actions: &mut Vec<Action<S>>) {
        if self.phase != Phase::Active || !self.tasks.set(subtask, phase) {
            return;
        }
        if phase == TaskPhase::Finished {
            // It will never answer, and the next checkpoint does not need it to.
            let owed = |p: &&Pending<S>| p.waits_for(subtask);
            let owed: Vec<CheckpointId> = self.pending.values().filter(owed).map(|p| p.id).collect();
            for id in owed {
                let failure = Failure::new(FailureReason::TaskClosing, format!("{subtask} finished before its part"));
                self.abort(now, id, failure, actions);
            }
        }
        if self.wants_last() {
            self.schedule.want_last(now);
            self.tick(now, actions);
        }
    }

    /// Whether nothing is left but to commit.
    fn wants_last(&self) -> bool {
        !self.stopping && self.options.after_tasks_finish && self.tasks.all_at_end_of_data()
    }

    fn request(
        &mut self,
        now: TimeMs,
        request: RequestId,
        kind: Kind,
        target: Option<String>,
        actions: &mut Vec<Action<S>>,
    ) {
        let refused = match self.phase {
            Phase::Suspended => Some(FailureReason::Suspended),
            Phase::Shutdown(_) => Some(FailureReason::Shutdown),
            Phase::Active if self.stopping => Some(FailureReason::StopInProgress),
            Phase::Active => None,
        };
        if let Some(reason) = refused {
            actions.push(Action::Answer { request, result: Err(reason.into()) });
            return;
        }
        if kind.stop().is_some() {
            self.stopping = true;
            self.schedule.stop();
            self.abort_all(now, FailureReason::Suspended, actions);
        }
        self.enqueue(now, Requester::User(request), kind, target, actions);
    }

    fn enqueue(
        &mut self,
        at: TimeMs,
        requester: Requester,
        kind: Kind,
        target: Option<String>,
        actions: &mut Vec<Action<S>>,
    ) {
        // With barriers that overtake, a savepoint may not run beside a checkpoint.
        let forced = kind.is_savepoint() && !self.options.unaligned_enabled();
        if let Some((refused, reason)) = self.queue.push(Request { requester, kind, forced, at, target }) {
            self.refuse(at, refused, reason, actions);
        }
    }

    /// A request that never became a checkpoint.
    pub(super) fn refuse(
        &mut self,
        now: TimeMs,
        request: Request,
        reason: FailureReason,
        actions: &mut Vec<Action<S>>,
    ) {
        match request.requester {
            Requester::Periodic => {}
            Requester::EndOfData => self.schedule.last_failed(now),
            Requester::User(request) => actions.push(Action::Answer { request, result: Err(reason.into()) }),
        }
        if request.kind.stop().is_some() {
            self.go_on(now);
        }
    }

    /// The savepoint of a stop is complete.
    pub(super) fn stopped_with(&mut self, now: TimeMs, id: CheckpointId, subtasks: Vec<SubtaskId>) {
        self.stopped = Some(Stopped { id, subtasks, tell_again_at: now.plus(TELL_AGAIN) });
    }

    /// The job is not stopping after all.
    pub(super) fn go_on(&mut self, now: TimeMs) {
        self.stopping = false;
        if self.phase == Phase::Active {
            self.schedule.resume(now);
            if self.wants_last() {
                self.schedule.want_last(now);
            }
        }
    }

    fn start_requests(&mut self, now: TimeMs, actions: &mut Vec<Action<S>>) {
        while self.phase == Phase::Active {
            let pause = self.last_completion.map_or(TimeMs(0), |at| at.plus(self.options.min_pause));
            let facts = Facts {
                now,
                triggering: self.is_preparing(),
                pending: self.pending.len(),
                cleaning: self.cleaning.len(),
                max_concurrent: self.options.effective_max_concurrent(),
                pause_until: pause,
            };
            match self.queue.choose(facts) {
                Choice::Nothing => break,
                Choice::TooEarly => self.schedule.postpone(pause),
                Choice::Start(request) => self.begin(now, request, actions),
            }
        }
    }

    /// Whether storage still owes the answer to a `Prepare`, wanted or not.
    fn is_preparing(&self) -> bool {
        !self.aborted_early.is_empty() || self.pending.values().any(|p| p.stage == Stage::Preparing)
    }

    fn begin(&mut self, now: TimeMs, request: Request, actions: &mut Vec<Action<S>>) {
        let plan = match self.tasks.plan(&self.topology, self.options.after_tasks_finish) {
            Ok(plan) => plan,
            Err(reason) => return self.refuse(now, request, reason, actions),
        };
        let id = self.next_id;
        self.next_id = CheckpointId(id.0 + 1);
        let expected = plan.wait_for.len();
        self.statistics.begun(&self.topology, id, request.kind, now, expected);
        actions.push(Action::Prepare { id, kind: request.kind, target: request.target.clone() });
        let times = (now, now.plus(self.options.timeout));
        self.pending.insert(id, Pending::new(id, request, plan, times, self.run));
    }

    fn cleaned(&mut self, id: CheckpointId) {
        assert!(self.cleaning.remove(&id), "no deletion of checkpoint {id} was asked for");
    }
}
