//! The coordinator's rules one by one: what it answers to a given sequence of events.

use std::{sync::Arc, time::Duration};

use thalweg_cluster::{
    TimeMs,
    checkpoint::{
        Ack, Action, Alignment, Barrier, Checkpoint, CheckpointId, Coordinator, Event, FailureReason, Input, JobEnd,
        Kind, Owner, RequestId, SavepointFormat, StopMode, SubtaskFigures, SubtaskId, TaskPhase, Topology, Vertex,
        Wiring,
    },
};
use thalweg_model::config::{CheckpointRetention, CheckpointingOptions};

const CHECKPOINT: Kind = Kind::Checkpoint { full: false };
const SAVEPOINT: Kind = Kind::Savepoint { format: SavepointFormat::Canonical, stop: None };
const STOP: Kind = Kind::Savepoint { format: SavepointFormat::Canonical, stop: Some(StopMode::Drain) };

/// A job of one source subtask and one sink subtask, driven by hand.
struct Bench {
    coordinator: Coordinator<u64>,
    now: u64,
}

fn subtask(vertex: u32) -> SubtaskId {
    SubtaskId { vertex, index: 0 }
}

impl Bench {
    /// Started from checkpoints that an earlier process left.
    fn new(options: CheckpointingOptions, adopted: &[u64]) -> Self {
        let source = Vertex { parallelism: 1, inputs: Vec::new() };
        let sink = Vertex { parallelism: 1, inputs: vec![Input { from: 0, wiring: Wiring::All }] };
        let topology = Topology::new(vec![source, sink]);
        let next = CheckpointId(adopted.last().map_or(1, |newest| newest + 1));
        let mut coordinator = Coordinator::new(options, topology, next);
        for &id in adopted {
            let kind = Kind::Checkpoint { full: false };
            let checkpoint = Checkpoint::on_storage(CheckpointId(id), kind, TimeMs(0), None);
            coordinator.adopt(Arc::new(checkpoint), Owner::Engine);
        }
        Self { coordinator, now: 0 }
    }

    fn running(options: CheckpointingOptions) -> Self {
        Self::started(options, &[])
    }

    fn started(options: CheckpointingOptions, adopted: &[u64]) -> Self {
        let mut bench = Self::new(options, adopted);
        bench.tell(Event::Start { random: 0 });
        for vertex in 0..2 {
            bench.tell(Event::Task { subtask: subtask(vertex), phase: TaskPhase::Running });
        }
        bench
    }

    fn tell(&mut self, event: Event<u64>) -> Vec<Action<u64>> {
        let mut actions = Vec::new();
        self.coordinator.handle(TimeMs(self.now), event, &mut actions);
        actions
    }

    fn tick_at(&mut self, now: u64) -> Vec<Action<u64>> {
        self.now = now;
        self.tell(Event::Tick)
    }

    fn ask(&mut self, request: u64, kind: Kind) -> Vec<Action<u64>> {
        self.tell(Event::Request { request: RequestId(request), kind, target: None })
    }

    fn prepared(&mut self, id: u64) -> Vec<Action<u64>> {
        self.tell(Event::Prepared { id: CheckpointId(id), result: Ok(Vec::new()) })
    }

    fn ack(&mut self, id: u64, vertex: u32) -> Vec<Action<u64>> {
        let (id, subtask) = (CheckpointId(id), subtask(vertex));
        let figures = SubtaskFigures::default();
        self.tell(Event::Acknowledged(Ack { id, subtask, state: id.0, figures, end_of_data: false, union_list: false }))
    }

    fn written(&mut self, id: u64) -> Vec<Action<u64>> {
        let id = CheckpointId(id);
        self.tell(Event::MetadataWritten { id, location: format!("chk-{id}"), metadata_bytes: 1 })
    }

    /// Takes the checkpoint that was just prepared to its end.
    fn complete(&mut self, id: u64) -> Vec<Action<u64>> {
        self.prepared(id);
        self.ack(id, 0);
        self.ack(id, 1);
        self.written(id)
    }

    fn next(&self) -> Option<u64> {
        self.coordinator.next_wakeup().map(|at| at.0)
    }
}

fn every(interval_ms: u64) -> CheckpointingOptions {
    CheckpointingOptions { interval: Some(Duration::from_millis(interval_ms)), ..Default::default() }
}

fn names(actions: &[Action<u64>]) -> Vec<String> {
    let name = |action: &Action<u64>| {
        let text = format!("{action:?}");
        text.split([' ', '{', '(']).next().unwrap_or_default().to_owned()
    };
    actions.iter().map(name).collect()
}

fn barrier(actions: &[Action<u64>]) -> Barrier {
    let found = actions.iter().find_map(|action| match action {
        Action::Trigger { barrier, .. } => Some(*barrier),
        _ => None,
    });
    found.expect("a trigger")
}

fn answers(actions: &[Action<u64>]) -> Vec<(u64, Result<u64, FailureReason>)> {
    let answer = |action: &Action<u64>| match action {
        Action::Answer { request, result } => {
            Some((request.0, result.as_ref().map(|done| done.id.0).map_err(|failure| failure.reason)))
        }
        _ => None,
    };
    actions.iter().filter_map(answer).collect()
}

#[test]
fn when_everyone_acknowledges_then_the_metadata_is_the_commit_point() {
    let mut bench = Bench::running(every(100));
    assert_eq!(bench.next(), Some(0), "the first delay was chosen 0");
    assert_eq!(names(&bench.tick_at(0)), ["Prepare"]);
    assert_eq!(names(&bench.prepared(1)), ["Trigger"]);
    assert!(bench.ack(1, 1).is_empty());
    assert!(bench.ack(1, 1).is_empty(), "the same again counts once");
    assert_eq!(names(&bench.ack(1, 0)), ["WriteMetadata"]);
    assert!(bench.coordinator.is_committing() && bench.coordinator.newest().is_none());
    assert_eq!(names(&bench.written(1)), ["NotifyComplete"]);
    assert_eq!(bench.coordinator.newest().unwrap().checkpoint.parts.len(), 2);
    assert!(bench.ack(1, 0).is_empty(), "a late double must not discard what is complete");
    let counts = bench.coordinator.statistics().counts();
    assert_eq!((counts.total, counts.completed, counts.in_progress), (1, 1, 0));
}

#[test]
fn when_a_checkpoint_takes_too_long_then_it_expires_and_stragglers_are_discarded() {
    let mut bench =
        Bench::running(CheckpointingOptions { timeout: Duration::from_millis(50), tolerable_failed: 1, ..every(100) });
    bench.tick_at(0);
    bench.prepared(1);
    bench.ack(1, 0);
    assert_eq!(bench.next(), Some(50));
    assert_eq!(names(&bench.tick_at(50)), ["Abandon", "NotifyAborted"]);
    assert_eq!(names(&bench.ack(1, 1)), ["DiscardState"]);
    bench.tick_at(100);
    bench.prepared(2);
    assert_eq!(names(&bench.tick_at(150)), ["Abandon", "NotifyAborted", "FailJob"], "two in a row, one tolerated");
    assert_eq!(bench.coordinator.statistics().latest_failed().unwrap().id, CheckpointId(2));
}

#[test]
fn when_it_expires_while_being_prepared_then_it_is_deleted_once_that_is_answered() {
    let mut bench =
        Bench::running(CheckpointingOptions { timeout: Duration::from_millis(50), tolerable_failed: 9, ..every(100) });
    bench.tick_at(0);
    assert!(bench.tick_at(50).is_empty());
    assert!(bench.ask(1, CHECKPOINT).is_empty(), "storage owes an answer");
    assert_eq!(names(&bench.prepared(1)), ["Abandon", "Prepare"]);
}

#[test]
fn when_a_later_one_completes_first_then_the_earlier_is_subsumed_but_a_savepoint_is_not() {
    let mut bench = Bench::running(CheckpointingOptions { max_concurrent: 3, ..every(100) });
    bench.ask(7, SAVEPOINT);
    bench.prepared(1);
    bench.tick_at(0);
    bench.prepared(2);
    bench.tick_at(100);
    bench.prepared(3);
    bench.ack(3, 0);
    bench.ack(3, 1);
    assert_eq!(names(&bench.written(3)), ["Abandon", "NotifyAborted", "NotifyComplete"]);
    assert_eq!(names(&bench.ack(2, 0)), ["DiscardState"]);
    bench.ack(1, 0);
    bench.ack(1, 1);
    let actions = bench.written(1);
    assert_eq!(answers(&actions), [(7, Ok(1))]);
    assert_eq!(names(&actions), ["Answer"], "a savepoint in passing commits nothing");
    assert_eq!(bench.coordinator.retained().count(), 1, "and nothing recovers from it");
}

#[test]
fn when_the_metadata_cannot_be_written_then_it_fails_without_counting() {
    let mut bench = Bench::running(every(100));
    bench.tick_at(0);
    bench.prepared(1);
    bench.ack(1, 0);
    bench.ack(1, 1);
    assert_eq!(bench.next(), Some(100), "while the outcome is open, time does not end it");
    let failed = bench.tell(Event::MetadataFailed { id: CheckpointId(1), detail: "disk full".into() });
    assert_eq!(names(&failed), ["Abandon", "NotifyAborted"]);
    let record = bench.coordinator.statistics().latest_failed().unwrap();
    assert!(format!("{:?}", record.status).contains("disk full"));
}

#[test]
fn when_there_is_a_pause_then_periodic_ones_wait_for_it_and_others_do_not() {
    let mut bench = Bench::running(CheckpointingOptions { min_pause: Duration::from_millis(80), ..every(100) });
    assert_eq!(bench.next(), Some(80), "random 0: the least delay");
    bench.tick_at(80);
    bench.now = 150;
    bench.complete(1);
    assert!(bench.tick_at(180).is_empty(), "only 30 since completion");
    assert_eq!(bench.next(), Some(230));
    assert_eq!(names(&bench.ask(1, CHECKPOINT)), ["Prepare"]);
    bench.now = 190;
    bench.complete(2);
    assert!(bench.tick_at(230).is_empty());
    assert_eq!(names(&bench.tick_at(270)), ["Prepare"]);
}

#[test]
fn when_old_checkpoints_are_still_being_deleted_then_no_new_one_starts() {
    let mut bench = Bench::running(every(10));
    let mut deleted = Vec::new();
    for id in 1..=3 {
        bench.tick_at((id - 1) * 10);
        let actions = bench.complete(id);
        deleted.extend(names(&actions).into_iter().filter(|name| name == "Delete"));
    }
    assert_eq!(deleted.len(), 2, "one is retained");
    assert!(bench.tick_at(30).is_empty(), "two are being deleted, one is allowed");
    assert_eq!(names(&bench.tell(Event::Cleaned { id: CheckpointId(1) })), ["Prepare"]);
}

#[test]
fn when_incremental_then_the_barrier_names_the_one_base_whose_files_are_kept() {
    let mut bench =
        Bench::running(CheckpointingOptions { incremental: true, max_concurrent: 2, retained_count: 1, ..every(10) });
    bench.tick_at(0);
    assert_eq!(barrier(&bench.prepared(1)).base, None, "the first is full");
    bench.ack(1, 0);
    bench.ack(1, 1);
    bench.written(1);
    bench.tick_at(10);
    assert_eq!(barrier(&bench.prepared(2)).base, Some(CheckpointId(1)));
    bench.tick_at(20);
    assert_eq!(barrier(&bench.prepared(3)).base, Some(CheckpointId(1)));
    bench.ack(2, 0);
    bench.ack(2, 1);
    let lowest = bench.written(2).into_iter().find_map(|action| match action {
        Action::Delete { lowest_in_use, .. } => lowest_in_use,
        _ => None,
    });
    assert_eq!(lowest, Some(CheckpointId(1)), "3 is on its way and builds on 1");
    bench.ask(1, Kind::Checkpoint { full: true });
    bench.ack(3, 0);
    bench.ack(3, 1);
    bench.written(3);
    assert_eq!(barrier(&bench.prepared(4)).base, None, "full was asked for");
}

#[test]
fn when_barriers_may_overtake_then_savepoints_stay_aligned_and_are_not_forced() {
    let options = CheckpointingOptions { unaligned: true, max_concurrent: 5, ..every(100) };
    let mut bench = Bench::running(options.clone());
    bench.tick_at(0);
    assert_eq!(barrier(&bench.prepared(1)).alignment, Alignment::Unaligned);
    assert!(bench.ask(1, SAVEPOINT).is_empty(), "not beside a checkpoint");
    bench.ack(1, 0);
    bench.ack(1, 1);
    assert_eq!(names(&bench.written(1)), ["NotifyComplete", "Prepare"]);
    assert_eq!(barrier(&bench.prepared(2)).alignment, Alignment::Aligned);
    let later = CheckpointingOptions { aligned_timeout: Duration::from_millis(7), ..options };
    let mut bench = Bench::running(later);
    bench.tick_at(0);
    assert_eq!(barrier(&bench.prepared(1)).alignment, Alignment::AlignedAtFirst { timeout_ms: 7 });
}

#[test]
fn when_the_job_is_to_stop_then_everything_else_ends_and_tasks_are_told_until_they_finish() {
    let mut bench = Bench::running(every(100));
    bench.tick_at(0);
    bench.prepared(1);
    let actions = bench.ask(1, STOP);
    assert_eq!(names(&actions), ["Abandon", "NotifyAborted", "Prepare"]);
    assert_eq!(answers(&bench.ask(2, SAVEPOINT)), [(2, Err(FailureReason::StopInProgress))]);
    let actions = bench.complete(2);
    assert_eq!(names(&actions), ["NotifyComplete", "Answer"], "it is synchronous: sinks commit");
    assert_eq!(bench.next(), Some(1000));
    bench.tell(Event::Task { subtask: subtask(0), phase: TaskPhase::Finished });
    match &bench.tick_at(1000)[..] {
        [Action::NotifyComplete { subtasks, .. }] => assert_eq!(subtasks[..], [subtask(1)]),
        other => panic!("{other:?}"),
    }
    assert!(
        !bench.coordinator.newest().unwrap().owner.deletes(),
        "the job would recover from it, but it is the user's"
    );
}

#[test]
fn when_a_stop_fails_before_its_barrier_then_the_job_goes_on_and_afterwards_it_fails() {
    let mut bench = Bench::running(every(100));
    bench.ask(1, STOP);
    let failure = thalweg_cluster::checkpoint::Failure::new(FailureReason::Io, "no such directory");
    let actions = bench.tell(Event::Prepared { id: CheckpointId(1), result: Err(failure) });
    assert_eq!(names(&actions), ["Abandon", "Answer"]);
    assert_eq!(bench.next(), Some(100), "periodic checkpoints go on");
    bench.ask(2, STOP);
    bench.prepared(2);
    let (id, subtask) = (CheckpointId(2), subtask(1));
    let declined = Event::Declined { id, subtask, reason: FailureReason::TaskClosing, detail: String::new() };
    assert_eq!(names(&bench.tell(declined)), ["Abandon", "NotifyAborted", "Answer", "FailJob"]);
}

#[test]
fn when_all_input_is_processed_then_one_more_checkpoint_is_taken_at_once() {
    let mut bench = Bench::running(every(100_000));
    bench.now = 5;
    assert!(bench.tell(Event::Task { subtask: subtask(0), phase: TaskPhase::EndOfData }).is_empty());
    bench.tick_at(6);
    bench.complete(1);
    let at_end = bench.tell(Event::Task { subtask: subtask(1), phase: TaskPhase::EndOfData });
    assert_eq!(names(&at_end), ["Prepare"]);
    bench.complete(2);
    bench.tell(Event::Task { subtask: subtask(0), phase: TaskPhase::Finished });
    let mut with_finished = Bench::running(every(100));
    with_finished.tell(Event::Task { subtask: subtask(0), phase: TaskPhase::Finished });
    with_finished.tick_at(0);
    match &with_finished.prepared(1)[..] {
        [Action::Trigger { subtasks, .. }] => assert_eq!(subtasks[..], [subtask(1)], "no barrier reaches it"),
        other => panic!("{other:?}"),
    }
    with_finished.ack(1, 1);
    with_finished.written(1);
    assert!(with_finished.coordinator.newest().unwrap().checkpoint.is_fully_finished(0));
}

#[test]
fn when_a_vertex_with_a_union_list_has_finished_in_part_then_the_checkpoint_fails() {
    let topology = Topology::new(vec![Vertex { parallelism: 2, inputs: Vec::new() }]);
    let mut bench = Bench { coordinator: Coordinator::new(every(100), topology, CheckpointId(1)), now: 0 };
    bench.tell(Event::Start { random: 0 });
    let other = SubtaskId { vertex: 0, index: 1 };
    bench.tell(Event::Task { subtask: subtask(0), phase: TaskPhase::Running });
    bench.tell(Event::Task { subtask: other, phase: TaskPhase::Finished });
    bench.tick_at(0);
    bench.prepared(1);
    let (id, subtask, figures) = (CheckpointId(1), subtask(0), SubtaskFigures::default());
    let ack = Ack { id, subtask, state: 0, figures, end_of_data: false, union_list: true };
    assert_eq!(names(&bench.tell(Event::Acknowledged(ack))), ["Abandon", "NotifyAborted"]);
}

#[test]
fn when_a_vertex_with_a_union_list_would_finish_in_part_then_the_checkpoint_fails_until_all_of_it_does() {
    let topology = Topology::new(vec![Vertex { parallelism: 2, inputs: Vec::new() }]);
    let mut bench = Bench { coordinator: Coordinator::new(every(100), topology, CheckpointId(1)), now: 0 };
    bench.tell(Event::Start { random: 0 });
    let subtasks = [0, 1].map(|index| SubtaskId { vertex: 0, index });
    for subtask in subtasks {
        bench.tell(Event::Task { subtask, phase: TaskPhase::Running });
    }
    for (id, at_end, last) in
        [(1, [true, false], vec!["Abandon", "NotifyAborted"]), (2, [true, true], vec!["WriteMetadata"])]
    {
        bench.tick_at((id - 1) * 100);
        bench.prepared(id);
        let (id, figures) = (CheckpointId(id), SubtaskFigures::default());
        let [first, second] = [0, 1].map(|at| {
            let (subtask, end_of_data) = (subtasks[at], at_end[at]);
            bench.tell(Event::Acknowledged(Ack { id, subtask, state: 0, figures, end_of_data, union_list: true }))
        });
        assert_eq!(names(&first), [] as [&str; 0], "{id}");
        assert_eq!(names(&second), last, "{id}");
    }
}

#[test]
fn when_the_job_ends_then_what_is_kept_depends_on_how() {
    use CheckpointRetention::*;
    let kept = |retention, end| {
        let mut bench = Bench::running(CheckpointingOptions { retention, ..every(100) });
        bench.tick_at(0);
        bench.complete(1);
        bench.tell(Event::Suspend);
        names(&bench.tell(Event::Shutdown(end))).is_empty()
    };
    for retention in [DeleteOnCancellation, RetainOnCancellation, NoExternalizedCheckpoints] {
        assert!(!kept(retention, JobEnd::Finished));
        assert!(kept(retention, JobEnd::Suspended));
        assert_eq!(kept(retention, JobEnd::Canceled), retention == RetainOnCancellation);
        assert_eq!(kept(retention, JobEnd::Failed), retention != NoExternalizedCheckpoints);
    }
}

#[test]
fn when_a_job_fails_before_a_checkpoint_of_its_own_then_what_it_was_to_go_on_from_stays() {
    let ends = |own: bool, end| {
        let mut bench = Bench::started(every(100), &[1]);
        if own {
            bench.tick_at(0);
            bench.complete(2);
        }
        bench.tell(Event::Suspend);
        names(&bench.tell(Event::Shutdown(end))).is_empty()
    };
    assert!(ends(false, JobEnd::Failed));
    assert!(!ends(true, JobEnd::Failed));
    assert!(!ends(false, JobEnd::Canceled));
}

#[test]
fn when_the_job_is_suspended_then_what_is_being_committed_still_counts() {
    let mut bench = Bench::running(every(100));
    bench.tick_at(0);
    bench.prepared(1);
    bench.ack(1, 0);
    bench.ack(1, 1);
    assert!(bench.tell(Event::Suspend).is_empty());
    assert!(bench.written(1).is_empty(), "nobody is there to be told");
    assert_eq!(bench.coordinator.newest().unwrap().checkpoint.id, CheckpointId(1));
    assert_eq!(answers(&bench.ask(1, CHECKPOINT)), [(1, Err(FailureReason::Suspended))]);
}
