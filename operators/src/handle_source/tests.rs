//! Handles whose job is restarted and killed: every event comes into effect once, and what is durable stays so.

use std::{
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::Duration,
};

use proptest::prelude::*;
use thalweg_io::checkpoint::NamedState;

use super::*;
use crate::{
    handle::{InputHandle, JobEnded, TryPushError, input},
    testing::{Emitted, checkpoint, restored, snapshot},
};

/// A service and its job: what is pushed is the event's own number.
struct World {
    handle: InputHandle<u64>,
    prototype: HandleSource<u64>,
    life: JobLife,
    subtasks: Vec<(HandleSource<u64>, Emitted<u64>)>,
    /// The states and effects of the latest complete checkpoint: what was emitted before it.
    latest: Option<(u64, Vec<Vec<NamedState>>, Vec<u64>)>,
    next_checkpoint: u64,
    /// How many events the service has pushed, and how many it ever had.
    pushed: u64,
    log: u64,
}

impl World {
    fn new(parallelism: u32) -> Self {
        let (handle, prototype) = input(8);
        let (life, subtasks) = (JobLife::default(), Vec::new());
        life.hold();
        let mut world = Self { handle, prototype, life, subtasks, latest: None, next_checkpoint: 1, pushed: 0, log: 0 };
        world.start(parallelism);
        world
    }

    /// Starts the job from the latest checkpoint.
    fn start(&mut self, parallelism: u32) {
        let cut = self.latest.as_ref().map(|(number, states, _)| checkpoint(*number, states.clone()));
        for subtask in 0..parallelism {
            let mut source = self.prototype.clone();
            source.attach(&SlotWaker::new().unwrap(), self.life.clone(), true).unwrap();
            match &cut {
                Some(cut) => source.restore(&restored(cut, subtask, parallelism)).unwrap(),
                None => source.start().unwrap(),
            }
            self.subtasks.push((source, Emitted::new()));
        }
    }

    fn push(&mut self, count: u64) {
        for _ in 0..count {
            match self.handle.try_push(self.pushed) {
                Ok(number) => assert_eq!(number, self.pushed),
                Err(TryPushError::Full(_)) => break,
                Err(TryPushError::Closed(_)) => panic!("the job has ended"),
            }
            self.pushed += 1;
        }
        self.log = self.log.max(self.pushed);
    }

    fn poll(&mut self, subtask: usize, budget: usize) -> SourceStatus {
        let at = subtask % self.subtasks.len();
        let (source, emitted) = &mut self.subtasks[at];
        source.poll(budget, emitted).unwrap()
    }

    /// A checkpoint, with polls between the barriers of the subtasks and before its end is heard.
    fn checkpoint(&mut self, is_complete: bool, between: usize) {
        let number = self.next_checkpoint;
        self.next_checkpoint += 1;
        let mut effects = self.latest.as_ref().map_or(Vec::new(), |(.., effects)| effects.clone());
        let mut states = Vec::new();
        for at in 0..self.subtasks.len() {
            let (source, emitted) = &mut self.subtasks[at];
            states.push(snapshot(number, |snapshot| source.snapshot(snapshot)).unwrap());
            effects.extend(&emitted.records);
            let _ = self.poll(at + 1, between);
            let _ = self.poll(at, between);
        }
        if is_complete {
            // What lies behind the barriers is no effect of this checkpoint.
            let mut unique = effects.clone();
            unique.sort_unstable();
            unique.dedup();
            assert_eq!(unique.len(), effects.len(), "an event came into effect twice");
            for (source, _) in &mut self.subtasks {
                source.checkpoint_complete(CheckpointId(number)).unwrap();
                assert!((0..self.handle.durable()).all(|number| unique.binary_search(&number).is_ok()));
            }
            // Effects so far are those of the attempt's subtasks and of what it started from.
            self.latest = Some((number, states, self.effects_of_attempt(&effects)));
        }
    }

    /// The effects that a restart keeps. Emitted records stay in the subtasks, so those before the barrier are counted once.
    fn effects_of_attempt(&mut self, effects: &[u64]) -> Vec<u64> {
        for (_, emitted) in &mut self.subtasks {
            emitted.records.retain(|record| !effects.contains(record));
        }
        effects.to_vec()
    }

    /// The process lives, the job is restarted.
    fn restart(&mut self, parallelism: u32) {
        self.subtasks.clear();
        self.start(parallelism);
    }

    /// The process dies; the service replays.
    fn crash(&mut self, parallelism: u32) {
        (self.handle, self.prototype) = input(8);
        self.life = JobLife::default();
        self.life.hold();
        self.subtasks.clear();
        self.start(parallelism);
        self.log = self.log.max(self.pushed);
        self.pushed = self.handle.resume_from().unwrap();
        assert_eq!(self.handle.durable(), self.pushed);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push(u64),
    Poll(usize, usize),
    Checkpoint(bool, usize),
    Restart(u32),
    Crash(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1u64..9).prop_map(Step::Push),
        8 => (0usize..4, 1usize..6).prop_map(|(subtask, budget)| Step::Poll(subtask, budget)),
        4 => (any::<bool>(), 0usize..4).prop_map(|(is_complete, between)| Step::Checkpoint(is_complete, between)),
        1 => (1u32..4).prop_map(Step::Restart),
        1 => (1u32..4).prop_map(Step::Crash),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    #[test]
    fn when_jobs_restart_and_processes_die_then_every_event_comes_into_effect_once(
        parallelism in 1u32..4,
        steps in steps(),
    ) {
        let mut world = World::new(parallelism);
        for step in steps {
            match step {
                Step::Push(count) => world.push(count),
                Step::Poll(subtask, budget) => {
                    let _ = world.poll(subtask, budget);
                }
                Step::Checkpoint(is_complete, between) => world.checkpoint(is_complete, between),
                Step::Restart(parallelism) => world.restart(parallelism),
                Step::Crash(parallelism) => world.crash(parallelism),
            }
        }
        // Whatever was ever pushed is in the service's log, and is pushed again.
        for _ in 0..200 {
            world.push(world.log - world.pushed);
            for at in 0..world.subtasks.len() {
                let _ = world.poll(at, 10);
            }
        }
        world.checkpoint(true, 0);
        let mut effects = world.latest.take().unwrap().2;
        effects.sort_unstable();
        prop_assert_eq!(effects, (0..world.pushed).collect::<Vec<_>>());
        prop_assert_eq!(world.handle.durable(), world.pushed);
    }
}

#[test]
fn when_more_is_kept_than_allowed_then_nothing_is_taken_until_a_checkpoint_is_complete() {
    let mut world = World::new(1);
    world.handle.keep_at_most(3);
    world.push(5);
    for _ in 0..4 {
        let _ = world.poll(0, 10);
    }
    assert_eq!(world.poll(0, 10), SourceStatus::Wait { until_ns: None });
    assert_eq!(world.subtasks[0].1.records, [0, 1, 2]);
    world.checkpoint(true, 0);
    assert_eq!(world.handle.durable(), 3);
    let _ = world.poll(0, 10);
    assert_eq!(world.subtasks[0].1.records, [3, 4]);
}

#[test]
fn when_events_are_pushed_before_a_restored_job_starts_then_it_says_what_to_do() {
    let mut world = World::new(1);
    world.push(3);
    let _ = world.poll(0, 10);
    world.checkpoint(true, 0);
    let cut = checkpoint(1, world.latest.take().unwrap().1);

    let (handle, mut source) = input::<u64>(8);
    handle.push(0).unwrap();
    source.attach(&SlotWaker::new().unwrap(), JobLife::default(), true).unwrap();
    let error = source.restore(&restored(&cut, 0, 1)).unwrap_err().to_string();
    assert!(error.contains("wait for InputHandle::resume_from"), "{error}");
}

#[test]
fn when_a_job_ends_for_good_then_all_who_wait_hear_of_it() {
    let (handle, source) = input::<u64>(1);
    let life = JobLife::default();
    life.hold();
    let waiting = Arc::new(AtomicBool::new(true));
    let threads = [
        thread::spawn({
            let handle = handle.clone();
            move || handle.wait_durable(0)
        }),
        thread::spawn({
            let handle = handle.clone();
            move || handle.resume_from().map(drop)
        }),
        thread::spawn({
            let (handle, waiting) = (handle.clone(), waiting.clone());
            move || {
                handle.push(1).unwrap();
                let refused = handle.push(2).map(drop).map_err(|closed| assert_eq!(closed.0, 2));
                assert!(!waiting.load(SeqCst), "the job may start again");
                refused.map_err(|()| JobEnded)
            }
        }),
    ];
    let mut taking = source.clone();
    taking.attach(&SlotWaker::new().unwrap(), life.clone(), true).unwrap();
    drop(taking);
    thread::sleep(Duration::from_millis(20));
    waiting.store(false, SeqCst);
    life.end();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), Err(JobEnded));
    }
    assert!(source.clone().attach(&SlotWaker::new().unwrap(), life, true).is_err());
}

#[test]
fn when_the_last_handle_goes_then_the_source_ends_after_the_last_event() {
    let (handle, mut source) = input::<u64>(4);
    source.attach(&SlotWaker::new().unwrap(), JobLife::default(), false).unwrap();
    handle.push(7).unwrap();
    drop(handle.clone());
    let mut emitted = Emitted::new();
    assert_eq!(source.poll(10, &mut emitted).unwrap(), SourceStatus::Wait { until_ns: None });
    drop(handle);
    assert_eq!(source.poll(10, &mut emitted).unwrap(), SourceStatus::Ended);
    assert_eq!(emitted.records, [7]);
}
