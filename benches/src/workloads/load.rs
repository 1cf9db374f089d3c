//! The load: a source that first names every key once, then sends random keys, as fast as it can or when they are due.
//!
//! Between the two it waits until the sink has seen every key, so that time is taken of warm tables and buffers only.
//! With a rate, record `n` is due at `n / rate` after the start whatever became of those before it, and carries that
//! moment: latency from there has no coordinated omission.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use thalweg::model::{Elem, time::MIN_WATERMARK};
use thalweg::pipe::Emit;
use thalweg::runtime::{Clock, SegmentContext, SourceStatus};
use thalweg::source::{Source, SourceError};

use super::event::{Event, enumerated, random};
use crate::latency::cpu::CpuMeter;

/// How often a source that waits for the end of the warm-up looks, in nanoseconds.
const LOOK_NS: u64 = 50_000;
/// With a rate, the first record is due so long after the warm-up, for all subtasks to be ready.
const HEAD_START_NS: u64 = 2_000_000;

/// What all subtasks of a load know.
#[derive(Debug)]
pub struct LoadPlan {
    keys: u64,
    records: u64,
    records_per_s: Option<f64>,
    /// Written by the sinks, read by the sources.
    arrived: AtomicU64,
    /// When the random part begins.
    started: OnceLock<Instant>,
    /// When the last subtask of the sink had everything.
    ended: Mutex<Option<Instant>>,
    /// From the start of the random part.
    cpu: OnceLock<CpuMeter>,
    /// Written by the sinks.
    rss_kib: AtomicU64,
    on_start: fn(),
    on_end: fn(),
}

impl LoadPlan {
    /// `records` of `keys` keys after one of each; `records_per_s` of them a second in all, or as many as can be.
    pub fn new(keys: u64, records: u64, records_per_s: Option<f64>) -> Self {
        Self {
            keys,
            records,
            records_per_s,
            arrived: AtomicU64::new(0),
            started: OnceLock::new(),
            ended: Mutex::new(None),
            cpu: OnceLock::new(),
            rss_kib: AtomicU64::new(0),
            on_start: || (),
            on_end: || (),
        }
    }

    /// Calls functions when the warm-up is over and when a subtask of the sink has everything.
    #[must_use]
    pub fn observed(mut self, on_start: fn(), on_end: fn()) -> Self {
        (self.on_start, self.on_end) = (on_start, on_end);
        self
    }

    /// The source of this load.
    pub fn source(self: &Arc<Self>) -> Load {
        Load { plan: self.clone(), state: State::default(), clock: None }
    }

    /// A sink has taken so many more records.
    pub fn count_arrived(&self, records: u64) {
        self.arrived.fetch_add(records, Relaxed);
    }

    /// A subtask of the sink has everything.
    pub fn note_end(&self) {
        (self.on_end)();
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let rss_kib = (crate::report::resident_mib() * 1024.0) as u64;
        self.rss_kib.fetch_max(rss_kib, Relaxed);
    }

    /// Resident memory when the job had everything, MiB.
    pub fn rss_mib(&self) -> f64 {
        self.rss_kib.load(Relaxed) as f64 / 1024.0
    }

    /// How many records have arrived, those of the warm-up included.
    pub fn arrived(&self) -> u64 {
        self.arrived.load(Relaxed)
    }

    /// Seconds from the first random record to the last one in the sink; none before that.
    pub fn seconds(&self) -> Option<f64> {
        let ended = (*self.ended.lock().unwrap_or_else(PoisonError::into_inner))?;
        Some((ended - *self.started.get()?).as_secs_f64())
    }

    /// Nanoseconds since the first record of an open loop was due; negative before.
    #[inline(always)]
    pub fn since_start_ns(&self) -> i64 {
        self.started.get().map_or(i64::MIN, |&started| match Instant::now().checked_duration_since(started) {
            Some(after) => after.as_nanos() as i64,
            None => -1,
        })
    }

    /// What the process has used since the start.
    pub fn cpu(&self) -> Option<CpuMeter> {
        self.cpu.get().copied()
    }

    /// When record `n` of the random part is due, in nanoseconds from the start.
    #[inline(always)]
    fn due_ns(&self, n: u64) -> u64 {
        self.records_per_s.map_or(0, |rate| (n as f64 * 1e9 / rate) as u64)
    }

    fn start(&self) -> Instant {
        *self.started.get_or_init(|| {
            (self.on_start)();
            self.cpu.get_or_init(CpuMeter::start);
            let head_start_ns = if self.records_per_s.is_some() { HEAD_START_NS } else { 0 };
            Instant::now() + std::time::Duration::from_nanos(head_start_ns)
        })
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    WarmUp,
    Waiting,
    Running,
}

#[derive(Clone, Copy, Default)]
struct State {
    phase: Phase,
    /// The number of the next record, of its phase, and the distance to the one after it.
    next: u64,
    step: u64,
    first: u64,
    emitted: u64,
}

/// The source of a [`LoadPlan`].
pub struct Load {
    plan: Arc<LoadPlan>,
    state: State,
    clock: Option<Arc<dyn Clock>>,
}

impl Clone for Load {
    fn clone(&self) -> Self {
        self.plan.source()
    }
}

impl Load {
    fn wait(&self, nanos: u64) -> SourceStatus {
        SourceStatus::Wait { until_ns: self.clock.as_ref().map(|clock| clock.now_ns().saturating_add(nanos)) }
    }

    /// Emits records of a phase up to number `until`, at most `budget`.
    #[inline(always)]
    fn emit_until<E: Emit<Event>>(&mut self, until: u64, budget: usize, emit: &mut E, make: impl Fn(u64) -> Event) {
        let State { mut next, step, .. } = self.state;
        let mut left = budget as u64;
        while next < until && left > 0 && emit.room() {
            emit.emit(Elem::new(thalweg::Record::view(&make(next)), MIN_WATERMARK));
            next += step;
            left -= 1;
        }
        self.state.emitted += (next - self.state.next) / step;
        self.state.next = next;
    }

    fn run<E: Emit<Event>>(&mut self, budget: usize, emit: &mut E) -> SourceStatus {
        let plan = self.plan.clone();
        let keys = plan.keys;
        if plan.records_per_s.is_none() {
            self.emit_until(plan.records, budget, emit, |n| random(keys + n, keys));
            return if self.state.next >= plan.records { SourceStatus::Ended } else { SourceStatus::More };
        }
        let now_ns = plan.since_start_ns();
        let due = |n| now_ns >= 0 && plan.due_ns(n) <= now_ns as u64;
        let (mut left, step) = (budget, self.state.step);
        while self.state.next < plan.records && due(self.state.next) && left > 0 && emit.room() {
            let n = self.state.next;
            let event = Event { ts: plan.due_ns(n), ..random(keys + n, keys) };
            emit.emit(Elem::new(thalweg::Record::view(&event), MIN_WATERMARK));
            self.state.next += step;
            self.state.emitted += 1;
            left -= 1;
        }
        if self.state.next >= plan.records {
            SourceStatus::Ended
        } else if due(self.state.next) {
            SourceStatus::More
        } else {
            // At a rate so small that the nanoseconds to a record cannot be counted, it is due at the end of all time.
            self.wait(until_due_ns(plan.due_ns(self.state.next), plan.since_start_ns()))
        }
    }
}

/// From now, which is before the start where it is negative, until something is due.
fn until_due_ns(due_ns: u64, now_ns: i64) -> u64 {
    (i128::from(due_ns) - i128::from(now_ns)).clamp(0, u64::MAX.into()) as u64
}

impl Source for Load {
    type Out = Event;

    fn open(&mut self, ctx: &mut SegmentContext) -> Result<(), SourceError> {
        self.state.first = u64::from(ctx.subtask);
        self.state.next = self.state.first;
        self.state.step = u64::from(ctx.parallelism);
        self.clock = Some(ctx.clock.clone());
        Ok(())
    }

    #[inline]
    fn poll<E: Emit<Event>>(&mut self, budget: usize, emit: &mut E) -> Result<SourceStatus, SourceError> {
        Ok(match self.state.phase {
            Phase::WarmUp => {
                let keys = self.plan.keys;
                self.emit_until(keys, budget, emit, |n| Event { ts: u64::MAX, ..enumerated(n) });
                if self.state.next >= keys {
                    self.state.phase = Phase::Waiting;
                }
                SourceStatus::More
            }
            Phase::Waiting if self.plan.arrived() < self.plan.keys => self.wait(LOOK_NS),
            Phase::Waiting => {
                self.plan.start();
                self.state.phase = Phase::Running;
                self.state.next = self.state.first;
                SourceStatus::More
            }
            Phase::Running => self.run(budget, emit),
        })
    }

    fn emitted(&self) -> u64 {
        self.state.emitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_a_record_is_due_beyond_all_time_then_it_is_waited_for_and_no_sooner() {
        assert_eq!([until_due_ns(7, 3), until_due_ns(7, 9), until_due_ns(7, -3)], [4, 0, 10]);
        assert_eq!([until_due_ns(u64::MAX, 0), until_due_ns(u64::MAX, -5)], [u64::MAX, u64::MAX]);
    }
}
