//! Checkpoints in simulation: what is taken at barriers is one consistent cut, whatever the interleaving.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use thalweg_io::{InFlight, checkpoint::StateKind};
use thalweg_model::{
    CheckpointId, Elem,
    record::{decode_checked, key_hash},
    rkyv::util::AlignedVec,
};
use thalweg_runtime::*;
use thalweg_state::elements::{Elements, read_elements};

use crate::common::*;

/// What the tasks of a job have reported, and the coordination in its place: a checkpoint is complete when all that had
/// not finished have acknowledged it.
struct Coordination {
    control: JobControl,
    subtasks: Vec<TaskSubtask>,
    one_at_a_time: bool,
    seen: Mutex<Reports>,
}

#[derive(Default)]
struct Reports {
    acknowledged: BTreeMap<u64, Vec<(TaskSubtask, Acknowledgement)>>,
    /// Who has to acknowledge a checkpoint.
    asked: BTreeMap<u64, Vec<TaskSubtask>>,
    declined: Vec<(u64, String)>,
    at_end: BTreeSet<TaskSubtask>,
    finished: BTreeSet<TaskSubtask>,
    last: u64,
    complete: u64,
}

impl Coordination {
    /// Starts a checkpoint at the sources, or, where all of a task have finished, behind it.
    ///
    /// One at a time where barriers overtake, as the coordinator has it.
    fn trigger(&self, alignment: BarrierAlignment) {
        let mut seen = self.seen.lock().unwrap();
        if self.one_at_a_time && seen.complete < seen.last {
            return;
        }
        seen.last += 1;
        let id = seen.last;
        let alive: Vec<_> = self.subtasks.iter().filter(|one| !seen.finished.contains(one)).copied().collect();
        let Some(first) = alive.iter().map(|one| one.task).min() else { return };
        let told: Vec<_> = alive.iter().filter(|one| one.task == first).copied().collect();
        seen.asked.insert(id, alive);
        drop(seen);
        self.control.trigger_checkpoint(&request(id, alignment), &told);
    }
}

impl TaskListener for Coordination {
    fn report(&self, subtask: TaskSubtask, report: TaskReport) {
        let mut seen = self.seen.lock().unwrap();
        match report {
            TaskReport::Running => {}
            TaskReport::EndOfData | TaskReport::Finished => {
                if matches!(report, TaskReport::Finished) {
                    seen.finished.insert(subtask);
                }
                seen.at_end.insert(subtask);
                // It will never answer.
                let last = seen.last;
                let owes = last > seen.complete
                    && seen.asked[&last].contains(&subtask)
                    && !seen.acknowledged.get(&last).is_some_and(|parts| parts.iter().any(|(of, _)| *of == subtask));
                if owes && seen.finished.contains(&subtask) {
                    seen.complete = last;
                    self.control.notify_aborted(CheckpointId(last), &seen.asked[&last].clone());
                }
                let all_at_end = seen.at_end.len() == self.subtasks.len();
                if all_at_end && seen.finished.len() < self.subtasks.len() {
                    // A last one, so that everything ends.
                    drop(seen);
                    self.trigger(BarrierAlignment::Aligned);
                }
            }
            TaskReport::Acknowledged(part) => {
                let id = part.id;
                let parts = seen.acknowledged.entry(id.0).or_default();
                parts.push((subtask, *part));
                if parts.len() == seen.asked[&id.0].len() {
                    let asked = seen.asked[&id.0].clone();
                    seen.complete = id.0;
                    let all_at_end = seen.at_end.len() == self.subtasks.len();
                    drop(seen);
                    self.control.notify_complete(id, &asked);
                    if all_at_end && self.one_at_a_time {
                        self.trigger(BarrierAlignment::Aligned);
                    }
                }
            }
            TaskReport::Declined { id, message, .. } => seen.declined.push((id.0, message)),
        }
    }
}

fn request(id: u64, alignment: BarrierAlignment) -> Arc<CheckpointRequest> {
    Arc::new(CheckpointRequest {
        id: CheckpointId(id),
        savepoint: false,
        stop: None,
        triggered_ms: 0,
        alignment,
        incremental: false,
        base: None,
        files: None,
    })
}

fn coordination(job: &Job, control: &JobControl, one_at_a_time: bool) -> Arc<Coordination> {
    let of = |(task, plan): (usize, &TaskPlan)| (0..plan.parallelism).map(move |subtask| TaskSubtask { task, subtask });
    let subtasks = job.plan.tasks.iter().enumerate().flat_map(of).collect();
    Arc::new(Coordination { control: control.clone(), subtasks, one_at_a_time, seen: Mutex::default() })
}

/// `Numbers` that triggers a checkpoint now and then (subtask 0), and has its position in them.
struct Counting {
    numbers: u64,
    next: u64,
    step: u64,
    subtask: u32,
    polls: u64,
    every: u64,
    alignment: BarrierAlignment,
    coordination: Arc<Mutex<Option<Arc<Coordination>>>>,
}

const KEYS: u64 = 7;

impl Segment for Counting {
    fn open(&mut self, ctx: &mut SegmentContext, _: &mut Outputs) -> Result<(), TaskError> {
        (self.next, self.step, self.subtask) = (u64::from(ctx.subtask), u64::from(ctx.parallelism), ctx.subtask);
        Ok(())
    }
    fn process(&mut self, _: usize, _: &mut FrameCursor<'_>, _: &mut Outputs) -> Result<(), TaskError> {
        Err(TaskError::new("", "a source has no input"))
    }
    fn poll_source(&mut self, budget_records: usize, out: &mut Outputs) -> Result<SourceStatus, TaskError> {
        self.polls += 1;
        if self.subtask == 0 && self.polls.is_multiple_of(self.every) {
            let coordination = self.coordination.lock().unwrap().clone().expect("it was set before the start");
            coordination.trigger(self.alignment);
        }
        for _ in 0..budget_records {
            if self.next >= self.numbers {
                return Ok(SourceStatus::Ended);
            }
            if !out.room() {
                break;
            }
            let key = self.next % KEYS;
            out.write::<Pair>(0, Elem::new((key, self.next), self.next as i64), key_hash::<u64>(key));
            self.next += self.step;
        }
        Ok(SourceStatus::More)
    }
    fn snapshot(&mut self, _: CheckpointId, state: &mut OperatorStateWriter) -> Result<(), TaskError> {
        let mut elements = Elements::new();
        elements.push::<(u64, u64)>((self.next, self.step));
        state.add(0, "position", StateKind::SourcePosition, Vec::new(), elements);
        Ok(())
    }
    fn is_source(&self) -> bool {
        true
    }
}

/// Sums by key; its sums are in checkpoints.
#[derive(Default)]
struct Sums {
    sums: BTreeMap<u64, u64>,
    complete: Counted,
}

impl Segment for Sums {
    fn process(&mut self, _: usize, frames: &mut FrameCursor<'_>, out: &mut Outputs) -> Result<(), TaskError> {
        each(frames, out, |out, elem, hash| {
            *self.sums.entry(elem.view.0).or_default() += elem.view.1;
            out.write::<Pair>(0, elem, hash);
        });
        Ok(())
    }
    fn snapshot(&mut self, _: CheckpointId, state: &mut OperatorStateWriter) -> Result<(), TaskError> {
        let mut elements = Elements::new();
        self.sums.iter().for_each(|(&key, &sum)| elements.push::<(u64, u64)>((key, sum)));
        state.add(0, "sums", StateKind::OperatorList, Vec::new(), elements);
        Ok(())
    }
    fn checkpoint_complete(&mut self, _: CheckpointId) -> Result<(), TaskError> {
        self.complete.add(1);
        Ok(())
    }
}

/// Two numbers per element of all states of a name.
fn elements(parts: &[(TaskSubtask, Acknowledgement)], name: &str) -> Vec<(u64, u64)> {
    let states = parts.iter().flat_map(|(_, part)| &part.operators).flat_map(|operator| &operator.states);
    let states = states.filter(|state| state.name == name);
    let of = |part: &SnapshotPart| match &part.place {
        SnapshotPlace::Inline(bytes) => read_elements::<(u64, u64)>(bytes).unwrap(),
        SnapshotPlace::File(_) => panic!("everything stays in memory"),
    };
    states.flat_map(|state| &state.parts).flat_map(of).collect()
}

/// The sums of what sources at these positions have emitted.
fn sums_before(positions: &[(u64, u64)]) -> BTreeMap<u64, u64> {
    let mut sums = BTreeMap::new();
    for (next, step) in positions {
        for n in (next % step..*next).step_by(*step as usize) {
            *sums.entry(n % KEYS).or_insert(0) += n;
        }
    }
    sums
}

struct Case {
    seed: u64,
    parallelism: u32,
    alignment: BarrierAlignment,
    page_bytes: usize,
}

/// Runs a job with checkpoints; answers its coordination, and what reached the sink.
fn run(case: &Case) -> (Arc<Coordination>, Log, Counted) {
    let log = Log::default();
    let complete = Counted::default();
    let unaligned = !matches!(case.alignment, BarrierAlignment::Aligned | BarrierAlignment::Counted);
    let mut job = Job::new(RuntimeConfig {
        checkpointing: Some(CheckpointingSetup { files: false, unaligned, ..CheckpointingSetup::default() }),
        ..small_config(case.page_bytes)
    });
    let shared: Arc<Mutex<Option<Arc<Coordination>>>> = Arc::default();
    let (alignment, for_source, counted) = (case.alignment, shared.clone(), complete.clone());
    let source = job.task(
        "numbers",
        case.parallelism,
        0,
        boxed(move || Counting {
            numbers: 400,
            next: 0,
            step: 1,
            subtask: 0,
            polls: 0,
            every: 9,
            alignment,
            coordination: for_source.clone(),
        }),
    );
    let pass = job.chain("pass", 1, boxed(|| Pass));
    let sums =
        job.task("sums", case.parallelism, 1, boxed(move || Sums { complete: counted.clone(), ..Sums::default() }));
    let sink = job.task("sink", 1, 1, log.sink());
    job.edge(source, pass, Partitioner::Forward);
    job.edge(pass, sums, hash());
    job.edge(sums, sink, Partitioner::Global);
    let control = JobControl::new();
    let coordination = coordination(&job, &control, unaligned);
    *shared.lock().unwrap() = Some(coordination.clone());
    let hooks = JobHooks { listener: Some(coordination.clone()), restored: None };
    let report = execute_with(
        job.plan,
        &SeededReactor::new(case.seed).with_stall_timeout(std::time::Duration::from_secs(5)),
        control,
        &Default::default(),
        hooks,
    )
    .unwrap();
    assert_eq!(report.pages_outstanding, 0);
    *shared.lock().unwrap() = None;
    (coordination, log, complete)
}

#[test]
fn when_barriers_are_aligned_then_every_checkpoint_is_a_consistent_cut() {
    let mut checked = 0;
    for seed in seeds(60) {
        let parallelism = 1 + seed as u32 % 3;
        let page_bytes = [64, 128, 256][seed as usize % 3];
        let case = Case { seed, parallelism, alignment: BarrierAlignment::Aligned, page_bytes };
        let (coordination, log, complete) = run(&case);
        let seen = coordination.seen.lock().unwrap();
        for (id, parts) in seen.acknowledged.iter().filter(|(_, parts)| parts.len() == coordination.subtasks.len()) {
            let positions = elements(parts, "position");
            assert_eq!(positions.len(), parallelism as usize);
            let sums: BTreeMap<u64, u64> = elements(parts, "sums").into_iter().collect();
            assert_eq!(sums, sums_before(&positions), "seed {seed}, checkpoint {id}");
            checked += 1;
        }
        assert_eq!(log.sorted_pairs().len(), 400, "seed {seed}");
        assert_eq!(seen.finished.len(), coordination.subtasks.len(), "seed {seed}");
        assert!(complete.get() > 0 && seen.declined.is_empty(), "seed {seed}");
        let (_, last) = seen.acknowledged.last_key_value().unwrap();
        assert!(last.iter().all(|(_, part)| part.end_of_data), "seed {seed}");
    }
    assert!(checked > 100, "{checked}");
}

#[test]
fn when_at_least_once_then_nothing_is_lost_in_a_checkpoint() {
    for seed in seeds(20) {
        let case = Case { seed, parallelism: 2, alignment: BarrierAlignment::Counted, page_bytes: 128 };
        let (coordination, log, _) = run(&case);
        let seen = coordination.seen.lock().unwrap();
        for (id, parts) in seen.acknowledged.iter().filter(|(_, parts)| parts.len() == coordination.subtasks.len()) {
            let sums: BTreeMap<u64, u64> = elements(parts, "sums").into_iter().collect();
            for (key, sum) in sums_before(&elements(parts, "position")) {
                assert!(sums.get(&key).copied().unwrap_or(0) >= sum, "seed {seed}, checkpoint {id}, key {key}");
            }
        }
        assert_eq!(log.sorted_pairs().len(), 400);
    }
}

/// What a checkpoint holds of the records in flight: the sums by key.
fn sums_in_flight(parts: &[(TaskSubtask, Acknowledgement)]) -> (BTreeMap<u64, u64>, u64) {
    let states = |prefix: &'static str| {
        let all = parts.iter().flat_map(|(subtask, part)| {
            part.operators.iter().flat_map(|operator| &operator.states).map(|state| (*subtask, state))
        });
        all.filter(move |(_, state)| state.kind == StateKind::ChannelState && state.name.starts_with(prefix))
    };
    // By edge, sender and receiver: what was queued, then what was not sent.
    let mut channels: BTreeMap<(String, u32, u32), [Vec<u8>; 2]> = BTreeMap::new();
    for (at, prefix) in ["in ", "out "].into_iter().enumerate() {
        for (subtask, state) in states(prefix) {
            let [_, edge, other] = state.name.split(' ').collect::<Vec<_>>().try_into().unwrap();
            let other: u32 = other.parse().unwrap();
            let ends = if at == 0 { (other, subtask.subtask) } else { (subtask.subtask, other) };
            let SnapshotPlace::Inline(bytes) = &state.parts[0].place else { panic!("everything stays in memory") };
            channels.entry((edge.to_owned(), ends.0, ends.1)).or_default()[at] = bytes.clone();
        }
    }
    let (mut sums, mut count) = (BTreeMap::new(), 0);
    for ((edge, ..), [queued, unsent]) in channels {
        // What is on its way from the sums to the sink has been summed.
        let is_summed = edge.split('>').nth(1).is_some_and(|to| to.starts_with(&format!("{:032x}", 3)));
        let parts: Vec<&[u8]> =
            [&queued, &unsent].into_iter().filter(|part| !part.is_empty()).map(Vec::as_slice).collect();
        for record in InFlight::read(&parts).unwrap() {
            let mut aligned = AlignedVec::<16>::new();
            aligned.extend_from_slice(&record.payload);
            let (key, n) = decode_checked::<Pair>(&aligned).unwrap();
            assert_eq!(record.hash, key_hash::<u64>(key).0);
            count += 1;
            if !is_summed {
                *sums.entry(key).or_insert(0) += n;
            }
        }
    }
    (sums, count)
}

fn check_unaligned(case: &Case, in_flight: &mut u64) {
    let (coordination, log, _) = run(case);
    let seen = coordination.seen.lock().unwrap();
    let whole = seen.acknowledged.iter().filter(|(id, parts)| parts.len() == seen.asked[id].len());
    for (id, parts) in whole.filter(|(_, parts)| parts.len() == coordination.subtasks.len()) {
        let mut sums: BTreeMap<u64, u64> = elements(parts, "sums").into_iter().collect();
        let (more, count) = sums_in_flight(parts);
        *in_flight += count;
        more.into_iter().for_each(|(key, sum)| *sums.entry(key).or_insert(0) += sum);
        assert_eq!(sums, sums_before(&elements(parts, "position")), "seed {}, checkpoint {id}", case.seed);
    }
    assert_eq!(log.sorted_pairs().len(), 400, "seed {}", case.seed);
    assert_eq!(seen.finished.len(), coordination.subtasks.len(), "seed {}", case.seed);
}

#[test]
fn when_barriers_overtake_then_state_and_records_in_flight_are_a_consistent_cut() {
    let mut in_flight = 0;
    for seed in seeds(200) {
        let (parallelism, page_bytes) = (1 + seed as u32 % 3, [64, 128, 256][seed as usize % 3]);
        check_unaligned(
            &Case { seed, parallelism, alignment: BarrierAlignment::Unaligned, page_bytes },
            &mut in_flight,
        );
    }
    assert!(in_flight > 1000, "only {in_flight} records were in flight: barriers did not overtake");
}

#[test]
fn when_aligned_barriers_take_too_long_then_they_overtake_and_the_cut_is_consistent() {
    let mut in_flight = 0;
    for seed in seeds(200) {
        let (parallelism, page_bytes) = (1 + seed as u32 % 3, [64, 128, 256][seed as usize % 3]);
        // Triggered at 0, so that the time is over by milliseconds of virtual time: some align, some do not.
        let alignment = BarrierAlignment::AlignedAtFirst { timeout_ms: 1_577_836_800_000 + seed % 2 };
        check_unaligned(&Case { seed, parallelism, alignment, page_bytes }, &mut in_flight);
    }
    assert!(in_flight > 100, "only {in_flight} records were in flight: barriers did not overtake");
}
