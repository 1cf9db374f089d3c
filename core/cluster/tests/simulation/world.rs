//! `World`: a job, its tasks, a storage and a network in virtual time, with everything that can go wrong.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    sync::Arc,
};

use thalweg_cluster::{
    TimeMs,
    checkpoint::{
        Ack, Action, Barrier, Checkpoint, CheckpointId, Coordinator, Event, FailureReason, JobEnd, Kind, RequestId,
        SavepointFormat, StopMode, SubtaskFigures, SubtaskId,
    },
    job::{Attempt, Job, JobAction, JobEvent, JobFailure, JobState, RestartPolicy, TaskReport},
};

use crate::{
    checks::Checks,
    rng::Rng,
    scenario::{CALM_AT_MS, Scenario},
    storage::Storage,
    tasks::{Element, Phase, State, TaskSim},
};

/// A run that is not over by then hangs.
const END_MS: u64 = 600_000;

/// Nor does a run take that many messages.
const MOST_MESSAGES: u64 = 300_000;

/// Records that a source makes in a step of 10 ms.
const RECORDS_PER_STEP: u64 = 7;

/// Which life of which process: whatever belongs to an earlier one never arrives.
type Life = (u32, Attempt);

#[derive(Debug)]
pub enum Message {
    ToJob(JobEvent<State>),
    Tick,
    TaskStarts(SubtaskId),
    Trigger(SubtaskId, Barrier),
    Channel(SubtaskId, SubtaskId, Element),
    Step(SubtaskId),
    Completed(SubtaskId, CheckpointId),
    CancelTask(SubtaskId),
    Store(Action<State>),
    FailTask,
    Crash,
    Ask,
    Stop,
    Cancel,
}

pub struct World {
    pub now: u64,
    pub rng: Rng,
    pub scenario: Scenario,
    pub storage: Storage,
    pub checks: Checks,
    pub job: Job<State>,
    process: u32,
    tasks: BTreeMap<SubtaskId, TaskSim>,
    /// Which life the tasks are of.
    life: Life,
    /// Sent messages by time and number; `None`: it concerns the outside and outlives every process.
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    messages: BTreeMap<u64, (Option<Life>, Message)>,
    sent: u64,
    /// When the last element of a channel arrives: channels keep their order.
    channels: BTreeMap<(SubtaskId, SubtaskId), u64>,
    next_tick: Option<u64>,
    requests: u64,
    /// Whether every message is printed.
    traced: bool,
}

impl World {
    pub fn new(seed: u64, traced: bool) -> Self {
        let mut rng = Rng::new(seed);
        let scenario = Scenario::new(&mut rng);
        let mut world = Self {
            now: 0,
            storage: Storage::default(),
            checks: Checks::default(),
            job: job(&scenario, &Storage::default()),
            process: 1,
            tasks: BTreeMap::new(),
            life: (1, Attempt(0)),
            queue: BinaryHeap::new(),
            messages: BTreeMap::new(),
            sent: 0,
            channels: BTreeMap::new(),
            next_tick: None,
            requests: 0,
            traced,
            rng,
            scenario,
        };
        world.plan_events();
        world.tell(JobEvent::Start);
        world
    }

    fn plan_events(&mut self) {
        let scenario = &self.scenario;
        let mut planned = Vec::new();
        planned.extend((0..scenario.task_failures).map(|_| Message::FailTask));
        planned.extend((0..scenario.process_crashes).map(|_| Message::Crash));
        planned.extend((0..scenario.requests).map(|_| Message::Ask));
        planned.extend((0..scenario.stops).map(|_| Message::Stop));
        planned.extend((0..scenario.cancels).map(|_| Message::Cancel));
        for message in planned {
            let at = self.rng.within(0, CALM_AT_MS);
            self.put(at, None, message);
        }
    }

    fn put(&mut self, at: u64, life: Option<Life>, message: Message) {
        self.sent += 1;
        self.queue.push(Reverse((at, self.sent)));
        self.messages.insert(self.sent, (life, message));
    }

    fn delay(&mut self) -> u64 {
        // Some are much later than others.
        let most = if self.rng.chance(50) { self.scenario.delay_ms * 10 } else { self.scenario.delay_ms };
        self.rng.within(0, most)
    }

    fn send(&mut self, message: Message) {
        let at = self.now + self.delay();
        self.put(at, Some(self.life), message);
    }

    /// A message that may be lost or come twice.
    fn send_badly(&mut self, message: impl Fn() -> Message) {
        if self.rng.chance(self.scenario.lost) {
            return;
        }
        if self.rng.chance(self.scenario.doubled) {
            self.send(message());
        }
        self.send(message());
    }

    /// A report that comes once at least.
    fn report(&mut self, subtask: SubtaskId, report: TaskReport) {
        let attempt = self.life.1;
        let twice = self.rng.chance(self.scenario.doubled);
        for _ in 0..=u8::from(twice) {
            self.send(Message::ToJob(JobEvent::Task { attempt, subtask, report: report.clone() }));
        }
    }

    fn goes_wrong(&mut self, permille: u64) -> bool {
        self.now < CALM_AT_MS && self.rng.chance(permille)
    }

    /// Runs to the end and checks what it left.
    pub fn run(&mut self) {
        while let Some(Reverse((at, number))) = self.queue.pop() {
            let (life, message) = self.messages.remove(&number).expect("a message for each number");
            self.now = self.now.max(at);
            if self.traced && !matches!(message, Message::Step(_)) {
                println!("{at} {life:?} {message:?}");
            }
            assert!(self.now < END_MS, "the job hangs in {}", self.job.state());
            assert!(number < MOST_MESSAGES, "the job runs in circles in {} at {}", self.job.state(), self.now);
            match life {
                None => self.outside(message),
                Some((process, attempt)) => {
                    // Late acknowledgements of an earlier attempt do reach the same process.
                    let to_process = matches!(message, Message::ToJob(_) | Message::Tick | Message::Store(_));
                    if process == self.process && (to_process || attempt == self.life.1) {
                        self.deliver(message);
                    }
                }
            }
        }
        self.check_end();
    }

    fn outside(&mut self, message: Message) {
        if self.job.state().is_terminal() {
            return;
        }
        match message {
            Message::FailTask => {
                let running: Vec<SubtaskId> = self.tasks.values().filter(|t| t.runs()).map(|t| t.id).collect();
                if !running.is_empty() {
                    let subtask = self.rng.pick(&running);
                    self.tasks.get_mut(&subtask).expect("it runs").phase = Phase::Gone;
                    self.report(subtask, TaskReport::Failed(JobFailure::retryable("a user function panicked")));
                }
            }
            Message::Crash => self.crash(),
            Message::Ask => {
                let savepoint = Kind::Savepoint { format: SavepointFormat::Canonical, stop: None };
                let checkpoint = Kind::Checkpoint { full: self.rng.chance(500) };
                let kind = self.rng.pick(&[savepoint, checkpoint]);
                self.ask(kind);
            }
            Message::Stop => {
                let stop = Some(self.rng.pick(&[StopMode::Suspend, StopMode::Drain]));
                self.ask(Kind::Savepoint { format: SavepointFormat::Native, stop });
            }
            Message::Cancel => self.tell(JobEvent::Cancel),
            other => panic!("{other:?} does not come from outside"),
        }
    }

    fn ask(&mut self, kind: Kind) {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.checks.asked(request);
        self.tell(JobEvent::Checkpoint(Event::Request { request, kind, target: None }));
    }

    /// kill -9 and a new process: all that is left is the storage.
    fn crash(&mut self) {
        self.process += 1;
        self.tasks.clear();
        self.channels.clear();
        self.next_tick = None;
        self.checks.crashed(&self.storage);
        self.life = (self.process, Attempt(0));
        let job = job(&self.scenario, &self.storage);
        self.job = job;
        self.tell(JobEvent::Start);
    }

    /// Tells the job, carries out what it wants, and arranges the next tick.
    fn tell(&mut self, event: JobEvent<State>) {
        let mut actions = Vec::new();
        let random = self.rng.next();
        self.checks.before(&event, &self.storage);
        self.job.handle(TimeMs(self.now), random, event, &mut actions);
        for action in actions {
            self.perform(action);
        }
        if let Some(TimeMs(at)) = self.job.next_wakeup() {
            let at = at.max(self.now);
            if self.next_tick.is_none_or(|next| at < next) {
                self.next_tick = Some(at);
                self.put(at, Some((self.process, self.life.1)), Message::Tick);
            }
        }
    }

    fn perform(&mut self, action: JobAction<State>) {
        match action {
            JobAction::Deploy { attempt, restore } => {
                self.checks.deployed(attempt, restore.as_ref(), &self.storage);
                self.life = (self.process, attempt);
                if let Some(restore) = &restore
                    && self.goes_wrong(self.scenario.damaged)
                {
                    let id = restore.checkpoint.id;
                    self.storage.damaged.insert(id);
                    self.checks.damage_seen = true;
                    self.tasks.clear();
                    let detail = "a block's checksum is wrong".to_owned();
                    return self.send(Message::ToJob(JobEvent::RestoreDamaged { attempt, id, detail }));
                }
                self.deploy(restore.map(|restore| restore.checkpoint));
            }
            JobAction::CancelTasks { attempt } => {
                assert_eq!(attempt, self.life.1);
                let all: Vec<SubtaskId> = self.scenario.topology.subtasks().collect();
                all.into_iter().for_each(|subtask| self.send(Message::CancelTask(subtask)));
            }
            JobAction::State { to, .. } => self.checks.state = to,
            JobAction::Checkpoint(action) => self.perform_checkpoint(action),
        }
    }

    fn perform_checkpoint(&mut self, action: Action<State>) {
        self.checks.decided(&action, &self.scenario.options, self.now);
        match action {
            Action::Trigger { barrier, subtasks } => {
                for subtask in subtasks {
                    self.send_badly(|| Message::Trigger(subtask, barrier));
                }
            }
            Action::NotifyComplete { id, subtasks } => {
                assert!(self.storage.is_complete(id), "{id} is notified before it is committed");
                for subtask in subtasks {
                    self.send_badly(|| Message::Completed(subtask, id));
                }
            }
            Action::NotifyAborted { .. } => {}
            Action::DiscardState { id, .. } => {
                assert!(!self.storage.is_complete(id), "state of complete checkpoint {id} is discarded");
            }
            Action::Answer { .. } => {}
            Action::FailJob { .. } => panic!("the job keeps that to itself"),
            stored => self.send(Message::Store(stored)),
        }
    }

    fn deploy(&mut self, from: Option<Arc<Checkpoint<State>>>) {
        let finished = from.as_ref().map(|from| from.finished.clone()).unwrap_or_default();
        let parts = from.map(|from| from.parts.clone()).unwrap_or_default();
        self.tasks.clear();
        self.channels.clear();
        let mut states: BTreeMap<SubtaskId, State> = parts.into_iter().map(|part| (part.subtask, part.state)).collect();
        let all: Vec<SubtaskId> = self.scenario.topology.subtasks().collect();
        for id in all {
            let state = states.remove(&id);
            let senders = self.senders(id);
            if let Some(state) = &state {
                assert_eq!(state.owner, Some(id), "a task gets its own state");
                // What was complete when the snapshot was taken from is complete now.
                for (&of, &range) in &state.uncommitted {
                    self.storage.commit(id, of, range);
                }
            }
            let mut state = state.map(|state| State { uncommitted: BTreeMap::new(), ..state });
            if finished.contains(&id) {
                // It had nothing left to read then, and has nothing now.
                state = Some(State { position: self.scenario.records, ..State::default() });
            }
            self.tasks.insert(id, TaskSim::new(id, senders, state));
            self.send(Message::TaskStarts(id));
        }
    }

    fn senders(&self, id: SubtaskId) -> Vec<SubtaskId> {
        let topology = &self.scenario.topology;
        let inputs = &topology.vertices()[id.vertex as usize].inputs;
        let of = |input| topology.senders(id, input).map(move |index| SubtaskId { vertex: input.from, index });
        inputs.iter().flat_map(|&input| of(input)).collect()
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::ToJob(event) => self.tell(event),
            Message::Tick => {
                self.next_tick = None;
                self.tell(JobEvent::Tick);
            }
            Message::Store(action) => self.store(action),
            Message::CancelTask(subtask) => {
                if let Some(task) = self.tasks.get_mut(&subtask) {
                    task.phase = Phase::Gone;
                }
                self.report(subtask, TaskReport::Canceled);
            }
            Message::TaskStarts(subtask) => {
                let task = self.tasks.get_mut(&subtask).expect("deployed");
                if task.phase == Phase::Starting {
                    task.phase = Phase::Running;
                    self.report(subtask, TaskReport::Running);
                    self.send(Message::Step(subtask));
                }
            }
            Message::Step(subtask) => self.step(subtask),
            Message::Trigger(subtask, barrier) => {
                if self.task(subtask).is_some_and(|task| task.runs()) {
                    let aligned = self.tasks.get_mut(&subtask).expect("it runs").triggered(barrier);
                    self.snapshot(subtask, aligned);
                }
            }
            Message::Channel(from, to, element) => {
                let Some(task) = self.tasks.get_mut(&to).filter(|task| task.phase != Phase::Gone) else { return };
                let aligned = task.receive(from, element);
                self.snapshot(to, aligned);
                self.see_end(to);
            }
            Message::Completed(subtask, id) => self.completed(subtask, id),
            other => panic!("{other:?} comes from outside"),
        }
    }

    fn task(&self, subtask: SubtaskId) -> Option<&TaskSim> {
        self.tasks.get(&subtask)
    }

    /// Storage carries something out, or fails, and says so.
    fn store(&mut self, action: Action<State>) {
        let fails = self.goes_wrong(self.scenario.storage_fails);
        let answer = match action {
            Action::Prepare { id, .. } => {
                self.storage.make(id);
                let failure = || thalweg_cluster::checkpoint::Failure::new(FailureReason::Io, "disk full");
                Event::Prepared { id, result: if fails { Err(failure()) } else { Ok(Vec::new()) } }
            }
            Action::WriteMetadata { checkpoint } => {
                let id = checkpoint.id;
                if fails {
                    Event::MetadataFailed { id, detail: "disk full".into() }
                } else {
                    self.storage.publish(&checkpoint);
                    Event::MetadataWritten { id, location: format!("chk-{id}"), metadata_bytes: 100 }
                }
            }
            Action::Abandon { checkpoint } => {
                self.storage.abandon(checkpoint.id);
                Event::Cleaned { id: checkpoint.id }
            }
            Action::Delete { checkpoint, .. } => {
                let id = checkpoint.id;
                if self.job.state().is_terminal() {
                    self.storage.forget(id);
                } else {
                    self.storage.delete(id, self.scenario.options.retained_count as usize);
                }
                Event::Cleaned { id }
            }
            other => panic!("{other:?} is not for the storage"),
        };
        self.send(Message::ToJob(JobEvent::Checkpoint(answer)));
    }

    fn step(&mut self, subtask: SubtaskId) {
        let records = self.scenario.records;
        let Some(task) = self.tasks.get_mut(&subtask).filter(|task| task.phase == Phase::Running) else { return };
        if task.is_source && task.stopping.is_none() {
            task.position = records.min(task.position + RECORDS_PER_STEP);
        }
        let at = self.now + 10;
        self.put(at, Some(self.life), Message::Step(subtask));
        self.see_end(subtask);
    }

    fn see_end(&mut self, subtask: SubtaskId) {
        let records = self.scenario.records;
        let Some(task) = self.tasks.get_mut(&subtask).filter(|task| task.phase == Phase::Running) else { return };
        let ended = (task.is_source && task.position == records) || task.inputs_ended();
        if !ended {
            return;
        }
        task.phase = Phase::EndOfData;
        self.report(subtask, TaskReport::EndOfData);
        self.forward(subtask, Element::EndOfData);
        let options = &self.scenario.options;
        if options.interval.is_none() || !options.after_tasks_finish {
            self.finish(subtask);
        }
    }

    fn finish(&mut self, subtask: SubtaskId) {
        self.tasks.get_mut(&subtask).expect("it runs").phase = Phase::Gone;
        self.report(subtask, TaskReport::Finished);
        self.forward(subtask, Element::Finished);
    }

    /// Sends an element to all receivers, behind what was sent before.
    fn forward(&mut self, from: SubtaskId, element: Element) {
        let all: Vec<SubtaskId> = self.scenario.topology.subtasks().collect();
        let receivers: BTreeSet<SubtaskId> = all.into_iter().filter(|&to| self.senders(to).contains(&from)).collect();
        for to in receivers {
            let wanted = self.now + self.delay();
            let last = self.channels.entry((from, to)).or_default();
            *last = wanted.max(*last);
            let at = *last;
            self.put(at, Some(self.life), Message::Channel(from, to, element));
        }
    }

    fn snapshot(&mut self, subtask: SubtaskId, aligned: Vec<Barrier>) {
        for barrier in aligned {
            let (id, declines) = (barrier.id, self.goes_wrong(self.scenario.declined));
            self.forward(subtask, Element::Barrier(barrier));
            let task = self.tasks.get_mut(&subtask).expect("it runs");
            if declines {
                let reasons = [FailureReason::Declined, FailureReason::AsyncPart, FailureReason::TaskNotReady];
                let reason = self.rng.pick(&reasons);
                let declined = || Event::Declined { id, subtask, reason, detail: String::new() };
                self.send_badly(|| Message::ToJob(JobEvent::Checkpoint(declined())));
                continue;
            }
            let state = task.snapshot(barrier);
            let end_of_data = state.end_of_data;
            let figures = SubtaskFigures { state_bytes: 10, ..SubtaskFigures::default() };
            let ack = Ack { id, subtask, state, figures, end_of_data, union_list: false };
            self.send_badly(|| Message::ToJob(JobEvent::Checkpoint(Event::Acknowledged(ack.clone()))));
        }
    }

    fn completed(&mut self, subtask: SubtaskId, id: CheckpointId) {
        let Some(task) = self.tasks.get_mut(&subtask).filter(|task| task.runs()) else { return };
        let (commits, ends) = task.completed(id);
        for (of, range) in commits {
            self.storage.commit(subtask, of, range);
        }
        if ends {
            self.finish(subtask);
        }
    }

    fn check_end(&mut self) {
        let state = self.job.state();
        assert!(state.is_terminal(), "nothing happens any more, but the job is {state}");
        assert!(self.job.coordinator().is_idle(), "something is still under way");
        self.checks.at_end();
        let end = match state {
            JobState::Finished => JobEnd::Finished,
            JobState::Canceled => JobEnd::Canceled,
            _ => JobEnd::Failed,
        };
        let completed = self.job.coordinator().statistics().counts().completed;
        self.checks.retained_at_end(end, completed, &self.scenario.options, &self.storage);
        if self.checks.damage_seen {
            return;
        }
        let commits = self.scenario.options.interval.is_some() && self.scenario.options.after_tasks_finish;
        for subtask in self.scenario.topology.subtasks().filter(|s| self.senders(*s).is_empty()) {
            let reached = self.storage.check_exactly_once(subtask);
            if state == JobState::Finished && commits && !self.checks.stopped {
                assert_eq!(reached, self.scenario.records, "{subtask} has not committed everything");
            }
        }
    }
}

/// A job as a process makes it from what storage holds.
fn job(scenario: &Scenario, storage: &Storage) -> Job<State> {
    let next_id = CheckpointId(storage.highest_id + 1);
    let mut coordinator = Coordinator::new(scenario.options.clone(), scenario.topology.clone(), next_id);
    for retained in storage.recoverable() {
        coordinator.adopt(retained.checkpoint, retained.owner);
    }
    // What lies there beyond the number retained was about to be deleted when the process died.
    Job::new(coordinator, RestartPolicy::new(scenario.restart.clone()))
}
