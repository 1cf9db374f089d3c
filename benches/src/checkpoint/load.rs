//! `Load`: a source that goes through stages, each when it is told to.

use std::sync::{
    Arc, Mutex, OnceLock, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};
use std::time::{Duration, Instant};

use thalweg::model::{Elem, time::MIN_WATERMARK};
use thalweg::pipe::Emit;
use thalweg::runtime::{Clock, SegmentContext, SourceStatus};
use thalweg::source::{Source, SourceError};

use crate::workloads::event::{Event, enumerated, mixed, random};

/// How often a source that waits for its next stage looks, in nanoseconds.
const LOOK_NS: u64 = 50_000;
/// A stage begins so long after it is asked for, for all subtasks to be ready.
const HEAD_START: Duration = Duration::from_millis(2);
/// Records that are not to be timed say that they were due then.
pub(super) const UNTIMED: u64 = u64::MAX;
/// Of a thousand keys, so many are hot in [`Keys::Hot`].
const HOT_PER_MILLE: u64 = 10;

/// Which keys a stage sends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Keys {
    /// Every key once.
    Each,
    /// Uniform over all.
    Uniform,
    /// One in a hundred, some of them far more often than others.
    Hot,
}

/// A part of the load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stage {
    pub(super) keys: Keys,
    pub(super) records: u64,
    /// Records a second in all; each is timed from when it is due. As fast as it goes where `None`.
    pub(super) records_per_s: Option<f64>,
}

/// What a count per key adds up to, whatever the order of the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) records: u64,
    /// Counts that are 1.
    pub(super) first_counts: u64,
    /// Sum of all counts.
    pub(super) running: u64,
}

/// What sources, sink and the harness share.
#[derive(Debug)]
pub(super) struct LoadPlan {
    keys: u64,
    stages: Vec<Stage>,
    started: Vec<OnceLock<Instant>>,
    /// Set by the harness, read by the sources.
    over: AtomicBool,
    /// Of each source that was ended within a stage, what it has sent of it. Written by them, read by the harness.
    cut: Mutex<Vec<At>>,
    /// Subtasks of the source that were called: the job runs. Written by them, read by the harness.
    polled: AtomicU64,
    /// Written by the sinks, read by the harness.
    arrived: AtomicU64,
}

impl LoadPlan {
    pub(super) fn new(keys: u64, stages: Vec<Stage>) -> Self {
        let started = stages.iter().map(|_| OnceLock::new()).collect();
        let (over, polled, arrived) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        Self { keys, stages, started, over, cut: Mutex::default(), polled, arrived }
    }

    pub(super) fn source(self: &Arc<Self>) -> Load {
        Load { plan: self.clone(), at: At::default(), clock: None }
    }

    /// Begins a stage.
    pub(super) fn start(&self, stage: usize) -> Instant {
        *self.started[stage].get_or_init(|| Instant::now() + HEAD_START)
    }

    /// No stage follows, and the one that runs goes no further.
    pub(super) fn end(&self) {
        self.over.store(true, Relaxed);
    }

    /// Counts per key, without the engine, what the sources have sent of a stage in which they were ended.
    pub(super) fn counted(&self, stage: usize) -> Counted {
        let mut counts = vec![0u64; self.keys as usize];
        let mut counted = Counted::default();
        for at in self.cut.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|at| at.stage == stage) {
            for n in (at.first..at.next).step_by(at.step as usize) {
                let count = &mut counts[self.event(self.stages[stage], n).key as usize];
                *count += 1;
                counted.records += 1;
                counted.first_counts += u64::from(*count == 1);
                counted.running += *count;
            }
        }
        counted
    }

    /// Records up to the end of a stage.
    pub(super) fn records_until(&self, stage: usize) -> u64 {
        self.stages[..=stage].iter().map(|stage| stage.records).sum()
    }

    pub(super) fn stage(&self, stage: usize) -> Stage {
        self.stages[stage]
    }

    pub(super) fn polled(&self) -> u64 {
        self.polled.load(Relaxed)
    }

    pub(super) fn arrived(&self) -> u64 {
        self.arrived.load(Relaxed)
    }

    pub(super) fn count_arrived(&self, records: u64) {
        self.arrived.fetch_add(records, Relaxed);
    }

    fn timed(&self) -> Option<usize> {
        self.stages.iter().position(|stage| stage.records_per_s.is_some())
    }

    /// When the timed stage began, if one has.
    #[inline]
    pub(super) fn timed_since(&self) -> Option<Instant> {
        self.started[self.timed()?].get().copied()
    }

    /// How long after its beginning the last record of the timed stage is due.
    pub(super) fn timed_for(&self) -> Option<Duration> {
        let stage = self.stages[self.timed()?];
        Some(Duration::from_secs_f64(stage.records as f64 / stage.records_per_s?))
    }

    #[inline(always)]
    fn event(&self, stage: Stage, n: u64) -> Event {
        let event = match stage.keys {
            Keys::Each => enumerated(n),
            Keys::Uniform => random(self.keys + n, self.keys),
            Keys::Hot => {
                let hot = (self.keys * HOT_PER_MILLE / 1000).max(1);
                // The first round names each; then the smaller of two draws, which makes some far hotter.
                let rank = if n < hot { n } else { random(n, hot).key.min(random(!n, hot).key) };
                // Spread over all keys, each another one.
                Event { key: rank * (self.keys / hot), value: mixed(n), ts: n }
            }
        };
        let ts = stage.records_per_s.map_or(UNTIMED, |rate| (n as f64 * 1e9 / rate) as u64);
        Event { ts, ..event }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct At {
    stage: usize,
    next: u64,
    first: u64,
    step: u64,
    emitted: u64,
    is_open: bool,
    is_cut: bool,
}

/// See the module.
pub(super) struct Load {
    plan: Arc<LoadPlan>,
    at: At,
    clock: Option<Arc<dyn Clock>>,
}

impl Clone for Load {
    fn clone(&self) -> Self {
        self.plan.source()
    }
}

impl Load {
    fn wait(&self, nanos: u64) -> SourceStatus {
        SourceStatus::Wait { until_ns: self.clock.as_ref().map(|clock| clock.now_ns() + nanos) }
    }

    /// The stage is over.
    fn next_stage(&mut self) {
        self.at.stage += 1;
        self.at.next = self.at.first;
    }

    fn run<E: Emit<Event>>(&mut self, stage: Stage, started: Instant, budget: usize, emit: &mut E) -> SourceStatus {
        let now = Instant::now();
        let Some(since) = now.checked_duration_since(started) else {
            return self.wait((started - now).as_nanos() as u64);
        };
        let due_until = stage.records_per_s.map_or(u64::MAX, |rate| (since.as_secs_f64() * rate) as u64 + 1);
        let until = due_until.min(stage.records);
        let (mut next, step, mut left) = (self.at.next, self.at.step, budget);
        while next < until && left > 0 && emit.room() {
            emit.emit(Elem::new(thalweg::Record::view(&self.plan.event(stage, next)), MIN_WATERMARK));
            next += step;
            left -= 1;
        }
        self.at.emitted += (next - self.at.next) / step;
        self.at.next = next;
        if next >= stage.records {
            self.next_stage();
        } else if next >= until
            && let Some(rate) = stage.records_per_s
        {
            let due = started + Duration::from_secs_f64(next as f64 / rate);
            return self.wait(due.saturating_duration_since(Instant::now()).as_nanos() as u64);
        }
        SourceStatus::More
    }
}

impl Source for Load {
    type Out = Event;

    fn open(&mut self, ctx: &mut SegmentContext) -> Result<(), SourceError> {
        let first = u64::from(ctx.subtask);
        self.at = At { first, next: first, step: u64::from(ctx.parallelism), ..At::default() };
        self.clock = Some(ctx.clock.clone());
        Ok(())
    }

    #[inline]
    fn poll<E: Emit<Event>>(&mut self, budget: usize, emit: &mut E) -> Result<SourceStatus, SourceError> {
        if !self.at.is_open {
            self.at.is_open = true;
            self.plan.polled.fetch_add(1, Relaxed);
        }
        let stage = self.at.stage;
        let is_over = self.plan.over.load(Relaxed);
        Ok(match self.plan.started.get(stage).and_then(OnceLock::get) {
            Some(_) if is_over => {
                if !std::mem::replace(&mut self.at.is_cut, true) {
                    self.plan.cut.lock().unwrap_or_else(PoisonError::into_inner).push(self.at);
                }
                SourceStatus::Ended
            }
            Some(&started) => {
                let stage = self.plan.stage(stage);
                self.run(stage, started, budget, emit)
            }
            None if is_over => SourceStatus::Ended,
            None => self.wait(LOOK_NS),
        })
    }

    fn emitted(&self) -> u64 {
        self.at.emitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn when_keys_are_hot_then_each_of_one_in_a_hundred_is_named_and_some_more_often() {
        let stage = Stage { keys: Keys::Hot, records: 4_000, records_per_s: None };
        let plan = LoadPlan::new(100_000, vec![stage]);
        let keys: Vec<u64> = (0..4_000).map(|n| plan.event(stage, n).key).collect();
        assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), 1_000);
        let low = keys.iter().filter(|&&key| key < 10_000).count();
        assert!(low > 500, "a tenth of the hot keys has more than an eighth of the records: {low}");
        assert!(keys.iter().all(|&key| key < 100_000));
    }
}
