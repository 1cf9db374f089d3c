//! `JobMaster`: asks the pure `Job` what to do about whatever comes into its inbox, and does it.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender},
    },
};

use thalweg_cluster::{
    checkpoint::{
        Action, Answered, Checkpoint, CheckpointId, Event, Failure, FailureReason, Kind, RequestId, Retained,
    },
    job::{Attempt, Job, JobAction, JobEvent, JobFailure, JobState, TaskReport as HowFar},
};
use thalweg_io::checkpoint::{CheckpointFiles, DirLock};
use thalweg_model::metrics::MetricRegistry;
use thalweg_runtime::{JobControl, JobError, JobReport, PhysicalPlan, TaskReport, TaskSubtask};
use thalweg_state::MemoryReserve;

use super::{
    attempt::{Order, Outcome, Restore},
    client::{Snapshot, SnapshotError},
    clock::{MasterClock, random},
    convert::{acknowledged, checkpoint_request, declined, is_retryable, model_id},
    inbox::{Listener, Message},
    journal::Journal,
    overview::{Lives, Shared},
    running::RunningAttempt,
    shape::{Parts, Shape},
    status::JobStatus,
    storage::{Answer, Command, Published, Storage},
    topology::{subtask_id, task_subtasks},
};

/// What checkpoints in memory have for a place.
const IN_MEMORY: &str = "<checkpoint-not-externally-addressable>";

/// What a job master is made of.
pub(super) struct MasterParts {
    pub(super) job: Job<Parts>,
    pub(super) shape: Shape,
    pub(super) plan: PhysicalPlan,
    pub(super) incremental: bool,
    /// The checkpoint number before the first that this job gives.
    pub(super) before_first: thalweg_model::CheckpointId,
    /// None where the job takes no checkpoints.
    pub(super) storage: Option<Storage>,
    /// Whether completed checkpoints are kept in memory.
    pub(super) in_memory: bool,
    pub(super) savepoint_dir: Option<PathBuf>,
    /// Where completed checkpoints lie.
    pub(super) locations: BTreeMap<CheckpointId, PathBuf>,
    /// One that lies elsewhere and is to be deleted once it is of no use.
    pub(super) claimed: Option<CheckpointId>,
    /// One that somebody has named, and the lock on it.
    pub(super) in_use: Option<(CheckpointId, DirLock)>,
    /// Checkpoints of the job's own beside the one that it has gone on from: they go once it has another.
    pub(super) superseded: Vec<thalweg_model::CheckpointId>,
    pub(super) clock: MasterClock,
    pub(super) status: JobStatus,
    pub(super) shared: Arc<Shared>,
    pub(super) inbox: Receiver<Message>,
    pub(super) own: Sender<Message>,
    pub(super) orders: Sender<Order>,
    pub(super) metrics: MetricRegistry,
}

/// See the module.
pub(super) struct JobMaster {
    parts: MasterParts,
    running: Option<RunningAttempt>,
    /// Where checkpoints on their way put their files.
    files: BTreeMap<CheckpointId, CheckpointFiles>,
    requests: BTreeMap<RequestId, Sender<Result<Snapshot, SnapshotError>>>,
    next_request: u64,
    journal: Journal,
    /// What follows from what is being done.
    events: VecDeque<JobEvent<Parts>>,
    /// Why the job is in its state.
    why: Option<String>,
    /// A checkpoint that may or may not stay: whoever asked for it is not told that it is complete.
    in_doubt: Option<CheckpointId>,
    last: Option<Result<JobReport, JobError>>,
    /// The savepoint that the job is to stop with, and where it lies once it is complete.
    stop: Option<(CheckpointId, Option<PathBuf>)>,
    /// What an attempt that fails leaves, the next one needs.
    _reserve: MemoryReserve,
}

impl JobMaster {
    pub(super) fn new(parts: MasterParts) -> Self {
        Self {
            parts,
            running: None,
            files: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_request: 0,
            journal: Journal::default(),
            events: VecDeque::new(),
            why: None,
            in_doubt: None,
            last: None,
            stop: None,
            _reserve: MemoryReserve::of_job(),
        }
    }

    /// Runs the job to its end.
    pub(super) fn run(mut self) -> Result<JobReport, JobError> {
        self.tell(JobEvent::Start);
        while !self.is_over() {
            let wakeup = self.parts.job.next_wakeup().filter(|_| !self.parts.job.state().is_terminal());
            let message = match wakeup {
                Some(at) => match self.parts.inbox.recv_timeout(self.parts.clock.until(at)) {
                    Ok(message) => Some(message),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => unreachable!("the master holds a sender itself"),
                },
                None => self.parts.inbox.recv().ok(),
            };
            match message {
                Some(message) => self.receive(message),
                None => self.tell(JobEvent::Tick),
            }
        }
        self.result()
    }

    /// Whether nothing is left to be done or waited for.
    fn is_over(&self) -> bool {
        let job = &self.parts.job;
        let idle = job.coordinator().is_idle() && self.running.as_ref().is_none_or(RunningAttempt::is_over);
        job.state().is_terminal() && idle
    }

    fn result(mut self) -> Result<JobReport, JobError> {
        self.forget_restored();
        let why = self.why.take().unwrap_or_else(|| "for no known reason; please report this".to_owned());
        match (self.parts.job.state(), self.last.take()) {
            (JobState::Finished, Some(result)) => result.map(|mut report| {
                report.stopped_with = self.stop.and_then(|(_, dir)| dir);
                report
            }),
            (JobState::Canceled, _) => Err(JobError::Cancelled),
            (_, Some(Err(error))) if !matches!(error, JobError::Cancelled) => Err(error),
            _ => Err(JobError::Failed(why)),
        }
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Task { attempt, subtask, report } => self.report(attempt, subtask, report),
            Message::Ended { attempt, outcome } => self.ended(attempt, outcome),
            Message::Storage(answer) => self.answered(answer),
            Message::Request { kind, target, reply } => self.request(kind, target, reply),
            // Whoever does not wait any more need not know.
            Message::Statistics(reply) => drop(reply.send(self.parts.job.coordinator().statistics().clone())),
            Message::Lives(reply) => drop(reply.send(Lives::of(&self.parts.job))),
            Message::Cancel => self.tell(JobEvent::Cancel),
        }
    }

    /// Tells the job something, and does what it wants, and what follows from that.
    fn tell(&mut self, event: JobEvent<Parts>) {
        self.events.push_back(event);
        self.go_on();
    }

    fn go_on(&mut self) {
        while let Some(event) = self.events.pop_front() {
            let mut actions = Vec::new();
            self.parts.job.handle(self.parts.clock.now(), random(), event, &mut actions);
            actions.into_iter().for_each(|action| self.perform(action));
        }
        let statistics = self.parts.job.coordinator().statistics();
        self.journal.write(&self.parts.plan.job_name, statistics);
        self.parts.status.show(self.parts.job.restarts(), statistics);
        self.forget_restored();
    }

    fn tell_checkpoint(&mut self, event: Event<Parts>) {
        self.tell(JobEvent::Checkpoint(event));
    }

    fn report(&mut self, attempt: Attempt, subtask: TaskSubtask, report: TaskReport) {
        let id = subtask_id(subtask);
        let far = match report {
            TaskReport::Acknowledged(ack) => return self.tell_checkpoint(Event::Acknowledged(acknowledged(id, *ack))),
            TaskReport::Declined { id: checkpoint, reason, message } => {
                let (id, subtask, reason) = (CheckpointId(checkpoint.0), id, declined(reason));
                return self.tell_checkpoint(Event::Declined { id, subtask, reason, detail: message });
            }
            TaskReport::Running => HowFar::Running,
            TaskReport::EndOfData => HowFar::EndOfData,
            TaskReport::Finished => HowFar::Finished,
        };
        let Some(running) = self.running.as_mut().filter(|running| running.attempt == attempt) else { return };
        // The last one has finished for good only when the attempt has ended in order.
        if far == HowFar::Finished && !running.finished(id) {
            return;
        }
        self.tell(JobEvent::Task { attempt, subtask: id, report: far });
    }

    /// All tasks of an attempt are over: says of each what has not been said.
    fn ended(&mut self, attempt: Attempt, outcome: Outcome) {
        let Some(running) = self.running.as_mut().filter(|running| running.attempt == attempt) else { return };
        running.ended();
        let mut open = running.take_open().into_iter();
        let mut first = None;
        let rest = match outcome {
            Outcome::Ran(Ok(report)) => {
                self.last = Some(Ok(report));
                HowFar::Finished
            }
            Outcome::Ran(Err(error)) => {
                if !matches!(error, JobError::Cancelled) {
                    let failure = JobFailure { message: error.to_string(), retryable: is_retryable(&error) };
                    first = Some(HowFar::Failed(failure));
                }
                self.last = Some(Err(error));
                HowFar::Canceled
            }
            Outcome::Damaged(detail) => {
                if let Some(id) = running.restored {
                    if let Some(storage) = &self.parts.storage {
                        storage.tell(Command::Damaged(model_id(id)));
                    }
                    self.events.push_back(JobEvent::RestoreDamaged { attempt, id, detail });
                }
                HowFar::Canceled
            }
            Outcome::Unfit(message) => {
                first = Some(HowFar::Failed(JobFailure { message, retryable: false }));
                HowFar::Canceled
            }
        };
        if let Some(report) = first
            && let Some(subtask) = open.next()
        {
            self.events.push_back(JobEvent::Task { attempt, subtask, report });
        }
        for subtask in open {
            self.events.push_back(JobEvent::Task { attempt, subtask, report: rest.clone() });
        }
        self.go_on();
    }

    fn answered(&mut self, answer: Answer) {
        match answer {
            Answer::Prepared { id, result } => {
                let id = CheckpointId(id.0);
                let result = match result {
                    Ok(files) => {
                        self.files.insert(id, files);
                        Ok(Vec::new())
                    }
                    Err(detail) => Err(Failure::new(FailureReason::Io, detail)),
                };
                self.tell_checkpoint(Event::Prepared { id, result });
            }
            Answer::Published { id, result: Ok(published) } => self.published(CheckpointId(id.0), published),
            Answer::Published { id, result: Err(failure) } => {
                let id = CheckpointId(id.0);
                self.files.remove(&id);
                let detail = failure.detail;
                match failure.in_doubt {
                    Some(published) => {
                        // Nobody may be told that it is complete; the job goes on from it, if it is what is there.
                        self.tell(JobEvent::Fail(JobFailure::retryable(detail)));
                        self.in_doubt = Some(id);
                        self.published(id, published);
                    }
                    None => self.tell_checkpoint(Event::MetadataFailed { id, detail }),
                }
            }
            Answer::Cleaned { id } => self.tell_checkpoint(Event::Cleaned { id: CheckpointId(id.0) }),
        }
    }

    fn published(&mut self, id: CheckpointId, published: Published) {
        let Published { dir, metadata_bytes } = published;
        let location = dir.display().to_string();
        self.files.remove(&id);
        if let Some((_, place)) = self.stop.as_mut().filter(|(stop, _)| *stop == id) {
            *place = Some(dir.clone());
        }
        self.parts.locations.insert(id, dir);
        self.tell_checkpoint(Event::MetadataWritten { id, location, metadata_bytes });
    }

    fn request(&mut self, kind: Kind, target: Option<String>, reply: Sender<Result<Snapshot, SnapshotError>>) {
        let refused = match () {
            () if self.parts.storage.is_none() => Some(SnapshotError::NotEnabled),
            () if kind.is_savepoint() && target.is_none() && self.parts.savepoint_dir.is_none() => {
                Some(SnapshotError::NoTarget)
            }
            () => None,
        };
        if let Some(error) = refused {
            // Whoever does not wait any more need not know.
            let _ = reply.send(Err(error));
            return;
        }
        let request = RequestId(self.next_request);
        self.next_request += 1;
        self.requests.insert(request, reply);
        self.tell_checkpoint(Event::Request { request, kind, target });
    }

    fn perform(&mut self, action: JobAction<Parts>) {
        match action {
            JobAction::Deploy { attempt, restore } => self.deploy(attempt, restore),
            JobAction::CancelTasks { attempt } => self.cancel_tasks(attempt),
            JobAction::Checkpoint(action) => self.perform_checkpoint(action),
            JobAction::State { to, why } => self.become_state(to, why),
        }
    }

    fn become_state(&mut self, to: JobState, why: Option<String>) {
        let (name, reason) = (&self.parts.plan.job_name, why.as_deref().unwrap_or_default());
        match to {
            // Consumed here: a failure that a restart gets over is seen by nobody else.
            JobState::Restarting => tracing::warn!("job {name} restarts: {reason}"),
            _ => tracing::info!("job {name} is {to} {reason}"),
        }
        if why.is_some() {
            self.why = why;
        }
        self.parts.status.state(to);
        self.parts.shared.become_state(to, self.parts.clock.now());
    }

    fn deploy(&mut self, attempt: Attempt, restore: Option<Retained<Parts>>) {
        let control = JobControl::new();
        let mut plan = self.parts.plan.clone();
        plan.config.attempt = attempt.0 - 1;
        if let Some(setup) = plan.config.checkpointing.as_mut().filter(|_| plan.config.attempt > 0) {
            // What attempts before this one have left for a checkpoint is this job's own.
            setup.known.get_or_insert(self.parts.before_first);
        }
        if let Some(before) = plan.config.attempt.checked_sub(1) {
            self.parts.metrics.remove_attempt(&plan.job_id, before);
        }
        let restored = restore.as_ref().map(|retained| retained.checkpoint.id);
        let restore = restore.map(|retained| self.source(&retained.checkpoint));
        let listener = Listener { attempt, inbox: self.parts.own.clone() };
        let listener = plan.config.checkpointing.is_some().then(|| Arc::new(listener) as Arc<_>);
        let subtasks = self.parts.job.coordinator().topology().subtasks();
        self.running = Some(RunningAttempt::new(attempt, control.clone(), restored, subtasks));
        // One that came to nothing has not stopped it.
        (self.last, self.stop) = (None, None);
        let sent = self.parts.orders.send(Order { attempt, plan, control, listener, restore });
        assert!(sent.is_ok(), "the thread that runs attempts is gone; please report this");
    }

    /// Where a completed checkpoint is read from.
    fn source(&self, checkpoint: &Checkpoint<Parts>) -> Restore {
        match self.parts.locations.get(&checkpoint.id) {
            Some(dir) => Restore::Files(dir.clone()),
            None => Restore::Memory(Box::new(self.parts.shape.metadata(checkpoint))),
        }
    }

    fn cancel_tasks(&mut self, attempt: Attempt) {
        // Each task's end is said once the whole attempt has ended.
        if let Some(running) = self.running.as_ref().filter(|running| running.attempt == attempt) {
            running.control.cancel();
        }
    }

    fn perform_checkpoint(&mut self, action: Action<Parts>) {
        match action {
            Action::Prepare { id, kind, target } => self.prepare(id, kind, target),
            Action::Trigger { barrier, subtasks } => {
                let files = self.files.get(&barrier.id).cloned();
                let request = Arc::new(checkpoint_request(&barrier, self.parts.incremental, files));
                self.at_tasks(|control| control.trigger_checkpoint(&request, &task_subtasks(&subtasks)));
            }
            Action::WriteMetadata { checkpoint } => self.write_metadata(&checkpoint),
            Action::NotifyComplete { id, subtasks } => {
                self.at_tasks(|control| control.notify_complete(model_id(id), &task_subtasks(&subtasks)));
            }
            Action::NotifyAborted { id, subtasks, .. } => {
                self.at_tasks(|control| control.notify_aborted(model_id(id), &task_subtasks(&subtasks)));
            }
            Action::Abandon { checkpoint } => self.abandon(&checkpoint),
            // What came too late is named by no checkpoint: the next sweep removes it.
            Action::DiscardState { .. } => {}
            Action::Delete { checkpoint, .. } => {
                self.parts.locations.remove(&checkpoint.id);
                self.store_or(Command::Delete(model_id(checkpoint.id)), Event::Cleaned { id: checkpoint.id });
            }
            Action::Answer { request, result } => self.answer(request, result),
            Action::FailJob { .. } => unreachable!("the job consumes it"),
        }
    }

    fn at_tasks(&self, tell: impl FnOnce(&JobControl)) {
        if let Some(running) = &self.running {
            tell(&running.control);
        }
    }

    /// Hands something to storage, or goes on at once where checkpoints stay in memory.
    fn store_or(&mut self, command: Command, event: Event<Parts>) {
        match &self.parts.storage {
            Some(storage) if !self.parts.in_memory => storage.tell(command),
            _ => self.events.push_back(JobEvent::Checkpoint(event)),
        }
    }

    fn prepare(&mut self, id: CheckpointId, kind: Kind, target: Option<String>) {
        self.journal.begun(id);
        if !kind.is_savepoint() {
            return self.store_or(Command::Begin(model_id(id)), Event::Prepared { id, result: Ok(Vec::new()) });
        }
        let target = target.map(PathBuf::from).or_else(|| self.parts.savepoint_dir.clone());
        match (&self.parts.storage, target) {
            (Some(storage), Some(target)) => storage.tell(Command::BeginSavepoint(model_id(id), target)),
            _ => {
                let failure = Failure::new(FailureReason::Io, SnapshotError::NoTarget.to_string());
                self.events.push_back(JobEvent::Checkpoint(Event::Prepared { id, result: Err(failure) }));
            }
        }
    }

    fn write_metadata(&mut self, checkpoint: &Checkpoint<Parts>) {
        let metadata = self.parts.shape.metadata(checkpoint);
        if checkpoint.kind.stop().is_some() {
            self.stop = Some((checkpoint.id, None));
        }
        match &self.parts.storage {
            Some(storage) if checkpoint.kind.is_savepoint() || !self.parts.in_memory => {
                storage.tell(Command::Publish(Box::new(metadata)));
            }
            _ => {
                let (id, location) = (checkpoint.id, IN_MEMORY.to_owned());
                let event = Event::MetadataWritten { id, location, metadata_bytes: 0 };
                self.events.push_back(JobEvent::Checkpoint(event));
            }
        }
    }

    fn abandon(&mut self, checkpoint: &Checkpoint<Parts>) {
        self.files.remove(&checkpoint.id);
        let command = Command::Abandon(model_id(checkpoint.id));
        match &self.parts.storage {
            Some(storage) if checkpoint.kind.is_savepoint() => storage.tell(command),
            _ => self.store_or(command, Event::Cleaned { id: checkpoint.id }),
        }
    }

    fn answer(&mut self, request: RequestId, result: Result<Answered, Failure>) {
        let Some(reply) = self.requests.remove(&request) else { return };
        let result = match result {
            Ok(answered) if self.in_doubt == Some(answered.id) => {
                Err(Failure::new(FailureReason::Finalize, "it is unknown whether it stays if the power goes"))
            }
            result => result,
        };
        let result = result.map(|answered| Snapshot { id: model_id(answered.id), location: answered.location });
        // Whoever does not wait any more need not know.
        let _ = reply.send(result.map_err(SnapshotError::from));
    }

    /// Lets go of what the job was restored from, once it is of no use any more: deletes it, where it was claimed.
    fn forget_restored(&mut self) {
        let MasterParts { job, claimed, in_use, superseded, locations, storage, .. } = &mut self.parts;
        let used = |id: CheckpointId| job.coordinator().retained().any(|retained| retained.checkpoint.id == id);
        in_use.take_if(|(id, _)| !used(*id));
        // As long as it has none of its own, they may be all that it has left.
        let has_own = job.coordinator().statistics().counts().completed > 0 || job.state() == JobState::Finished;
        if let Some(storage) = storage.as_ref().filter(|_| has_own) {
            superseded.drain(..).for_each(|id| storage.tell(Command::Supersede(id)));
        }
        let Some(id) = claimed.take_if(|id| !used(*id)) else { return };
        if let (Some(dir), Some(storage)) = (locations.remove(&id), storage) {
            storage.tell(Command::Dispose(dir));
        }
    }
}
