//! A job's rules one by one: what a failure, a cancel, a stop or a damaged checkpoint leads to.

use std::{sync::Arc, time::Duration};

use thalweg_cluster::{
    TimeMs,
    checkpoint::{
        Ack, Action, Checkpoint, CheckpointId, Coordinator, Event, Kind, Owner, RequestId, SavepointFormat, StopMode,
        SubtaskFigures, SubtaskId, Topology, Vertex,
    },
    job::{Attempt, Job, JobAction, JobEvent, JobFailure, JobState, RestartPolicy, TaskReport},
};
use thalweg_model::config::{CheckpointingOptions, FixedDelay, RestartStrategyOptions};

const CHECKPOINT: Kind = Kind::Checkpoint { full: false };

/// A job of two source subtasks that may restart twice, 100 ms after a failure.
struct Bench {
    job: Job<()>,
    now: u64,
}

fn subtask(index: u32) -> SubtaskId {
    SubtaskId { vertex: 0, index }
}

fn attempt(number: u32) -> Attempt {
    Attempt(number)
}

impl Bench {
    /// Started from checkpoints that an earlier process left.
    fn new(adopted: &[u64]) -> Self {
        let options = CheckpointingOptions {
            interval: Some(Duration::from_secs(100)),
            retained_count: 5,
            ..CheckpointingOptions::default()
        };
        let topology = Topology::new(vec![Vertex { parallelism: 2, inputs: Vec::new() }]);
        let mut coordinator = Coordinator::new(options, topology, CheckpointId(50));
        for &id in adopted {
            let checkpoint = Checkpoint::on_storage(CheckpointId(id), CHECKPOINT, TimeMs(0), None);
            coordinator.adopt(Arc::new(checkpoint), Owner::Engine);
        }
        let delay = Duration::from_millis(100);
        let policy = RestartPolicy::new(RestartStrategyOptions::FixedDelay(FixedDelay { attempts: 2, delay }));
        Self { job: Job::new(coordinator, policy), now: 0 }
    }

    fn running(adopted: &[u64]) -> Self {
        let mut bench = Self::new(adopted);
        bench.tell(JobEvent::Start);
        bench.report(1, 0, TaskReport::Running);
        bench.report(1, 1, TaskReport::Running);
        bench
    }

    fn tell(&mut self, event: JobEvent<()>) -> Vec<JobAction<()>> {
        let mut actions = Vec::new();
        self.job.handle(TimeMs(self.now), 99_000, event, &mut actions);
        actions
    }

    fn report(&mut self, number: u32, index: u32, report: TaskReport) -> Vec<JobAction<()>> {
        self.tell(JobEvent::Task { attempt: attempt(number), subtask: subtask(index), report })
    }

    fn fail(&mut self, number: u32, index: u32) -> Vec<JobAction<()>> {
        self.report(number, index, TaskReport::Failed(JobFailure::retryable("it panicked")))
    }

    fn checkpoint_event(&mut self, event: Event<()>) -> Vec<JobAction<()>> {
        self.tell(JobEvent::Checkpoint(event))
    }

    fn ask(&mut self, kind: Kind) -> Vec<JobAction<()>> {
        self.checkpoint_event(Event::Request { request: RequestId(1), kind, target: None })
    }

    /// As far as the metadata being written.
    fn commit(&mut self, id: u64) {
        let id = CheckpointId(id);
        self.checkpoint_event(Event::Prepared { id, result: Ok(Vec::new()) });
        for index in 0..2 {
            let (subtask, figures) = (subtask(index), SubtaskFigures::default());
            let ack = Ack { id, subtask, state: (), figures, end_of_data: false, union_list: false };
            self.checkpoint_event(Event::Acknowledged(ack));
        }
    }

    fn written(&mut self, id: u64) -> Vec<JobAction<()>> {
        let location = format!("place-{id}");
        self.checkpoint_event(Event::MetadataWritten { id: CheckpointId(id), location, metadata_bytes: 1 })
    }
}

/// The deployment among the actions: its number and what it restores.
fn deployed(actions: &[JobAction<()>]) -> Option<(u32, Option<u64>)> {
    actions.iter().find_map(|action| match action {
        JobAction::Deploy { attempt, restore } => {
            Some((attempt.0, restore.as_ref().map(|restore| restore.checkpoint.id.0)))
        }
        _ => None,
    })
}

fn states(actions: &[JobAction<()>]) -> Vec<JobState> {
    let state = |action: &JobAction<()>| match action {
        JobAction::State { to, .. } => Some(*to),
        _ => None,
    };
    actions.iter().filter_map(state).collect()
}

fn answer(actions: &[JobAction<()>]) -> Option<Result<String, String>> {
    actions.iter().find_map(|action| match action {
        JobAction::Checkpoint(Action::Answer { result, .. }) => {
            Some(result.as_ref().map(|done| done.location.clone()).map_err(ToString::to_string))
        }
        _ => None,
    })
}

#[test]
fn when_a_task_fails_then_all_are_cancelled_and_the_job_restarts_from_the_newest_checkpoint() {
    let mut bench = Bench::new(&[3, 7]);
    assert_eq!(deployed(&bench.tell(JobEvent::Start)), Some((1, Some(7))));
    let actions = bench.fail(1, 0);
    assert_eq!(states(&actions), [JobState::Restarting]);
    assert!(actions.iter().any(|action| matches!(action, JobAction::CancelTasks { attempt: Attempt(1) })));
    assert!(bench.fail(1, 1).is_empty(), "the pause has not passed");
    assert_eq!(bench.job.next_wakeup(), Some(TimeMs(100)));
    bench.now = 100;
    assert_eq!(deployed(&bench.tell(JobEvent::Tick)), Some((2, Some(7))));
    assert!(bench.fail(1, 0).is_empty(), "of an attempt that is over");
    assert_eq!((bench.job.state(), bench.job.restarts()), (JobState::Running, 1));
}

#[test]
fn when_failures_go_on_then_the_job_fails_as_its_strategy_says() {
    let mut bench = Bench::running(&[]);
    for number in 1..=2 {
        bench.fail(number, 0);
        bench.now += 100;
        let actions = bench.report(number, 1, TaskReport::Canceled);
        assert_eq!(deployed(&actions), Some((number + 1, None)));
    }
    assert_eq!(states(&bench.fail(3, 0)), [JobState::Failing]);
    assert_eq!(states(&bench.report(3, 1, TaskReport::Canceled)), [JobState::Failed]);
    assert!(bench.tell(JobEvent::Cancel).is_empty(), "it has ended");
}

#[test]
fn when_another_attempt_cannot_help_then_the_job_fails_at_once() {
    let mut bench = Bench::running(&[]);
    let failure = JobFailure { message: "state of uid x has no operator".into(), retryable: false };
    bench.tell(JobEvent::Fail(failure));
    assert_eq!(bench.job.state(), JobState::Failing);
}

#[test]
fn when_a_checkpoint_is_damaged_then_the_one_before_is_used_without_a_pause_and_in_the_end_the_job_fails() {
    let mut bench = Bench::new(&[3, 7]);
    bench.tell(JobEvent::Start);
    let damaged = |number, id| {
        let (attempt, detail) = (attempt(number), "a checksum is wrong".into());
        JobEvent::RestoreDamaged { attempt, id: CheckpointId(id), detail }
    };
    assert_eq!(states(&bench.tell(damaged(1, 7))), [JobState::Restarting]);
    assert!(bench.tell(damaged(1, 7)).is_empty(), "another task says the same");
    bench.report(1, 0, TaskReport::Canceled);
    assert_eq!(deployed(&bench.report(1, 1, TaskReport::Canceled)), Some((2, Some(3))));
    bench.tell(damaged(2, 3));
    bench.report(2, 0, TaskReport::Canceled);
    let actions = bench.report(2, 1, TaskReport::Canceled);
    assert_eq!(states(&actions), [JobState::Failing, JobState::Failed], "to start from nothing would repeat output");
}

#[test]
fn when_a_commit_is_open_then_nothing_restarts_until_it_is_known() {
    let mut bench = Bench::running(&[7]);
    bench.ask(CHECKPOINT);
    bench.commit(50);
    bench.fail(1, 0);
    bench.now = 1000;
    assert!(bench.report(1, 1, TaskReport::Canceled).is_empty());
    assert!(bench.tell(JobEvent::Tick).is_empty());
    assert_eq!(bench.job.next_wakeup(), None, "there is nothing to wake up for");
    assert_eq!(deployed(&bench.written(50)), Some((2, Some(50))));
}

#[test]
fn when_cancelled_then_the_job_ends_in_whatever_state_it_is() {
    let mut created = Bench::new(&[]);
    assert_eq!(states(&created.tell(JobEvent::Cancel)), [JobState::Canceled]);
    let mut running = Bench::running(&[]);
    assert_eq!(states(&running.tell(JobEvent::Cancel)), [JobState::Cancelling]);
    assert!(running.fail(1, 0).iter().all(|action| !matches!(action, JobAction::State { .. })));
    assert_eq!(states(&running.report(1, 1, TaskReport::Finished)), [JobState::Canceled]);
    let mut restarting = Bench::running(&[]);
    restarting.fail(1, 0);
    restarting.report(1, 1, TaskReport::Canceled);
    assert_eq!(states(&restarting.tell(JobEvent::Cancel)), [JobState::Cancelling, JobState::Canceled]);
    let mut suspended = Bench::running(&[]);
    assert_eq!(states(&suspended.tell(JobEvent::Suspend)), [JobState::Suspended]);
}

#[test]
fn when_stopped_with_a_savepoint_then_the_answer_comes_when_all_have_finished() {
    let stop = Kind::Savepoint { format: SavepointFormat::Canonical, stop: Some(StopMode::Suspend) };
    let mut bench = Bench::running(&[]);
    bench.ask(stop);
    bench.commit(50);
    assert_eq!(answer(&bench.written(50)), None);
    bench.report(1, 0, TaskReport::Finished);
    let actions = bench.report(1, 1, TaskReport::Finished);
    assert_eq!(states(&actions), [JobState::Finished]);
    assert_eq!(answer(&actions), Some(Ok("place-50".into())));
    // And where a task fails instead, the savepoint is named, and is what the job goes on from.
    let mut bench = Bench::running(&[]);
    bench.ask(stop);
    bench.commit(50);
    bench.written(50);
    let refused = answer(&bench.fail(1, 0)).unwrap().unwrap_err();
    assert!(refused.contains("savepoint 50 is complete at place-50"), "{refused}");
    bench.now = 100;
    assert_eq!(deployed(&bench.report(1, 1, TaskReport::Canceled)), Some((2, Some(50))));
}

#[test]
fn when_all_tasks_finish_then_so_does_the_job_whatever_comes_twice() {
    let mut bench = Bench::running(&[]);
    bench.report(1, 0, TaskReport::Finished);
    assert!(bench.report(1, 0, TaskReport::Finished).is_empty());
    assert!(bench.report(1, 0, TaskReport::Running).is_empty(), "late");
    assert_eq!(states(&bench.report(1, 1, TaskReport::Finished)), [JobState::Finished]);
}
