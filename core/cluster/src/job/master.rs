//! `Job`: one job's life, from deployment over failures and restarts to its end (Flink's `JobMaster`, its decisions).
//!
//! A failed task cancels all others; then the job starts again from the newest checkpoint that can be read, or fails.

use super::{
    events::{Attempt, JobAction, JobEvent, JobFailure, TaskReport},
    restart::{RestartPolicy, Verdict},
    state::JobState,
};
use crate::{
    TimeMs,
    checkpoint::{
        Action, Answered, Coordinator, Event, Failure, FailureReason, JobEnd, RequestId, SubtaskId, TaskPhase,
    },
};

/// What a job knows of a task: whether it still has to be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Alive,
    Finished,
    /// Cancelled or failed.
    Gone,
}

/// A stop with savepoint that its requester has not been told the end of.
#[derive(Clone, Debug)]
struct Stop {
    request: RequestId,
    /// The savepoint, once it is complete.
    savepoint: Option<Answered>,
}

/// See the module.
#[derive(Debug)]
pub struct Job<S> {
    coordinator: Coordinator<S>,
    policy: RestartPolicy,
    state: JobState,
    attempt: Attempt,
    /// By vertex and index.
    tasks: Vec<Vec<Life>>,
    /// Earliest restart while restarting.
    restart_at: TimeMs,
    restarts: u64,
    /// Whether a checkpoint has turned out to be damaged and none is left: starting from nothing would repeat output.
    lost: bool,
    stop: Option<Stop>,
}

impl<S> Job<S> {
    /// A job that has not started. The coordinator has adopted what an earlier process left, if anything.
    pub fn new(coordinator: Coordinator<S>, policy: RestartPolicy) -> Self {
        let vertices = coordinator.topology().vertices();
        Self {
            tasks: vertices.iter().map(|vertex| vec![Life::Gone; vertex.parallelism as usize]).collect(),
            coordinator,
            policy,
            state: JobState::Created,
            attempt: Attempt(0),
            restart_at: TimeMs(0),
            restarts: 0,
            lost: false,
            stop: None,
        }
    }

    /// What the job is doing.
    pub fn state(&self) -> JobState {
        self.state
    }

    /// The running or last deployment; 0 before the first.
    pub fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// Subtasks that run, or are about to end.
    pub fn tasks_alive(&self) -> usize {
        self.tasks.iter().flatten().filter(|life| **life == Life::Alive).count()
    }

    /// Subtasks that have finished.
    pub fn tasks_finished(&self) -> usize {
        self.tasks.iter().flatten().filter(|life| **life == Life::Finished).count()
    }

    /// How often it was restarted.
    pub fn restarts(&self) -> u64 {
        self.restarts
    }

    /// The checkpoint coordinator, to look at.
    pub fn coordinator(&self) -> &Coordinator<S> {
        &self.coordinator
    }

    /// When the next `Tick` is due, if nothing else happens.
    pub fn next_wakeup(&self) -> Option<TimeMs> {
        let waits = self.state == JobState::Restarting && self.all_ended() && !self.coordinator.is_committing();
        let restart = waits.then_some(self.restart_at);
        self.coordinator.next_wakeup().into_iter().chain(restart).min()
    }

    /// Decides. `random` may be any number, a new one each time. Actions are appended in the order in which they are to
    /// be carried out.
    ///
    /// # Panics
    /// Where the event breaks a rule that its documentation names.
    pub fn handle(&mut self, now: TimeMs, random: u64, event: JobEvent<S>, actions: &mut Vec<JobAction<S>>) {
        match event {
            JobEvent::Start => {
                assert_eq!(self.state, JobState::Created, "a job starts once");
                self.deploy(now, random, actions);
            }
            JobEvent::Task { attempt, subtask, report } if attempt == self.attempt => {
                self.task(now, random, subtask, report, actions);
            }
            JobEvent::Task { .. } => {}
            JobEvent::RestoreDamaged { attempt, id, detail } => {
                let restoring = self.state == JobState::Running && attempt == self.attempt;
                if restoring && let Some(damaged) = self.coordinator.damaged(id) {
                    let why = format!("checkpoint {} cannot be read: {detail}", damaged.checkpoint.id);
                    self.lost = self.coordinator.newest().is_none();
                    self.leave_running(now, JobState::Restarting, why, actions);
                    self.restart_at = now;
                }
            }
            JobEvent::Fail(failure) => self.fail(now, random, failure, actions),
            JobEvent::Cancel => self.cancel(now, actions),
            JobEvent::Suspend if !self.state.is_terminal() => {
                self.cancel_tasks(actions);
                self.end(now, JobState::Suspended, None, actions);
            }
            JobEvent::Suspend => {}
            JobEvent::Checkpoint(event) => {
                if let Event::Request { request, kind, .. } = &event
                    && kind.stop().is_some()
                    && self.stop.is_none()
                {
                    self.stop = Some(Stop { request: *request, savepoint: None });
                }
                let own = matches!(
                    event,
                    Event::Start { .. } | Event::Suspend | Event::Shutdown(_) | Event::Task { .. } | Event::Tick
                );
                assert!(!own, "the job tells its coordinator that itself");
                self.tell(now, random, event, actions);
            }
            JobEvent::Tick => self.tell(now, random, Event::Tick, actions),
        }
        self.proceed(now, random, actions);
    }

    fn deploy(&mut self, now: TimeMs, random: u64, actions: &mut Vec<JobAction<S>>) {
        self.attempt = Attempt(self.attempt.0 + 1);
        self.tasks.iter_mut().flatten().for_each(|life| *life = Life::Alive);
        let restore = self.coordinator.newest().cloned();
        if let Some(restore) = &restore {
            self.coordinator.restored(now, &restore.checkpoint);
        }
        self.become_state(JobState::Running, None, actions);
        actions.push(JobAction::Deploy { attempt: self.attempt, restore });
        self.tell(now, random, Event::Start { random }, actions);
    }

    fn task(
        &mut self,
        now: TimeMs,
        random: u64,
        subtask: SubtaskId,
        report: TaskReport,
        actions: &mut Vec<JobAction<S>>,
    ) {
        let life = self.tasks.get_mut(subtask.vertex as usize).and_then(|v| v.get_mut(subtask.index as usize));
        let Some(life) = life.filter(|life| **life == Life::Alive) else { return };
        match report {
            TaskReport::Running => self.tell_phase(now, random, subtask, TaskPhase::Running, actions),
            TaskReport::EndOfData => self.tell_phase(now, random, subtask, TaskPhase::EndOfData, actions),
            TaskReport::Finished => {
                *life = Life::Finished;
                self.tell_phase(now, random, subtask, TaskPhase::Finished, actions);
            }
            TaskReport::Canceled => {
                *life = Life::Gone;
                // Nobody asked for it: that is a failure too.
                self.fail(now, random, JobFailure::retryable(format!("{subtask} was cancelled")), actions);
            }
            TaskReport::Failed(failure) => {
                *life = Life::Gone;
                self.fail(now, random, failure, actions);
            }
        }
    }

    fn tell_phase(
        &mut self,
        now: TimeMs,
        random: u64,
        subtask: SubtaskId,
        phase: TaskPhase,
        actions: &mut Vec<JobAction<S>>,
    ) {
        if self.state == JobState::Running {
            self.tell(now, random, Event::Task { subtask, phase }, actions);
        }
    }

    /// Passes an event to the coordinator and its actions on.
    fn tell(&mut self, now: TimeMs, random: u64, event: Event<S>, actions: &mut Vec<JobAction<S>>) {
        let mut wanted = Vec::new();
        self.coordinator.handle(now, event, &mut wanted);
        let mut failure = None;
        for action in wanted {
            match action {
                Action::FailJob { id, failure: why } => {
                    failure = failure.or(Some(format!("checkpoint {id} failed: {why}")));
                }
                Action::Answer { request, result } => self.answer(request, result, actions),
                other => actions.push(JobAction::Checkpoint(other)),
            }
        }
        if let Some(message) = failure {
            self.fail(now, random, JobFailure::retryable(message), actions);
        }
    }

    /// Answers, but for a stop with savepoint that has its savepoint and not its end yet.
    fn answer(&mut self, request: RequestId, result: Result<Answered, Failure>, actions: &mut Vec<JobAction<S>>) {
        if let Some(stop) = self.stop.as_mut().filter(|stop| stop.request == request) {
            if let Ok(savepoint) = result {
                stop.savepoint = Some(savepoint);
                if self.state != JobState::Running {
                    self.settle_stop(actions);
                }
                return;
            }
            self.stop = None;
        }
        actions.push(JobAction::Checkpoint(Action::Answer { request, result }));
    }

    /// Tells who asked for a stop how it ended.
    fn settle_stop(&mut self, actions: &mut Vec<JobAction<S>>) {
        let complete = self.stop.take_if(|stop| stop.savepoint.is_some());
        let Some(Stop { request, savepoint: Some(savepoint) }) = complete else { return };
        let result = if self.state == JobState::Finished {
            Ok(savepoint)
        } else {
            let detail = format!(
                "savepoint {} is complete at {}, but the job was {} before all of its tasks had stopped",
                savepoint.id, savepoint.location, self.state
            );
            Err(Failure::new(FailureReason::Suspended, detail))
        };
        actions.push(JobAction::Checkpoint(Action::Answer { request, result }));
    }

    fn fail(&mut self, now: TimeMs, random: u64, failure: JobFailure, actions: &mut Vec<JobAction<S>>) {
        match self.state {
            JobState::Running => {}
            JobState::Created => {
                self.become_state(JobState::Failing, Some(failure.message), actions);
                return;
            }
            // Tasks that fail while all are being cancelled tell nothing new.
            _ => return,
        }
        let verdict = if failure.retryable {
            self.policy.failed(now, random)
        } else {
            Verdict::Fail { why: "another attempt would fail in the same way".into() }
        };
        match verdict {
            Verdict::Restart { at } => {
                self.leave_running(now, JobState::Restarting, failure.message, actions);
                self.restart_at = at;
            }
            Verdict::Fail { why } => {
                self.leave_running(now, JobState::Failing, format!("{} ({why})", failure.message), actions);
            }
        }
    }

    fn leave_running(&mut self, now: TimeMs, to: JobState, why: String, actions: &mut Vec<JobAction<S>>) {
        self.become_state(to, Some(why), actions);
        self.settle_stop(actions);
        self.tell(now, 0, Event::Suspend, actions);
        self.cancel_tasks(actions);
    }

    fn cancel_tasks(&mut self, actions: &mut Vec<JobAction<S>>) {
        if !self.all_ended() {
            actions.push(JobAction::CancelTasks { attempt: self.attempt });
        }
    }

    fn cancel(&mut self, now: TimeMs, actions: &mut Vec<JobAction<S>>) {
        let why = || "it was cancelled".to_owned();
        match self.state {
            JobState::Created => self.end(now, JobState::Canceled, Some(why()), actions),
            JobState::Running => self.leave_running(now, JobState::Cancelling, why(), actions),
            JobState::Failing | JobState::Restarting => {
                self.become_state(JobState::Cancelling, Some(why()), actions);
            }
            JobState::Cancelling | JobState::Failed | JobState::Canceled | JobState::Finished | JobState::Suspended => {
            }
        }
    }

    fn all_ended(&self) -> bool {
        self.tasks.iter().flatten().all(|life| *life != Life::Alive)
    }

    /// Takes the step that all tasks being over makes possible.
    fn proceed(&mut self, now: TimeMs, random: u64, actions: &mut Vec<JobAction<S>>) {
        if self.state == JobState::Created || self.state.is_terminal() || !self.all_ended() {
            return;
        }
        match self.state {
            JobState::Running => self.end(now, JobState::Finished, None, actions),
            // What is being committed may become the newest checkpoint: nothing may start from the one before it, and
            // nobody may be told what is kept, until that is known.
            _ if self.coordinator.is_committing() => {}
            JobState::Failing => self.end(now, JobState::Failed, None, actions),
            JobState::Cancelling => self.end(now, JobState::Canceled, None, actions),
            JobState::Restarting if self.lost && self.coordinator.newest().is_none() => {
                let why = "no checkpoint is left that can be read; to start from nothing, use an empty checkpoint \
                           directory";
                self.become_state(JobState::Failing, Some(why.to_owned()), actions);
                self.end(now, JobState::Failed, None, actions);
            }
            JobState::Restarting if self.restart_at <= now => {
                self.restarts += 1;
                self.deploy(now, random, actions);
            }
            _ => {}
        }
    }

    fn end(&mut self, now: TimeMs, state: JobState, why: Option<String>, actions: &mut Vec<JobAction<S>>) {
        self.become_state(state, why, actions);
        self.settle_stop(actions);
        let end = match state {
            JobState::Finished => JobEnd::Finished,
            JobState::Canceled => JobEnd::Canceled,
            JobState::Failed => JobEnd::Failed,
            _ => JobEnd::Suspended,
        };
        self.tell(now, 0, Event::Shutdown(end), actions);
    }

    fn become_state(&mut self, to: JobState, why: Option<String>, actions: &mut Vec<JobAction<S>>) {
        assert!(self.state.may_become(to), "a job cannot go from {} to {to}", self.state);
        self.state = to;
        actions.push(JobAction::State { to, why });
    }
}
