//! What the sources, the sinks and the harness of one run share: the start, the count, and when event time moved.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Event time is looked at in steps of this: every window of the queries ends on one.
const STEP_MS: i64 = 1_000;
/// Most steps that one event is noted for, should event time jump.
const MAX_STEPS: i64 = 3_600;

/// The shared state of one run. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct RunState(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Set by the first source that is polled.
    started: OnceLock<Instant>,
    /// Set by the first sink that takes a row.
    first_row: OnceLock<Instant>,
    /// Written by sources, read by the harness and its progress line.
    emitted: AtomicU64,
    /// Events that subtasks which share one schedule have claimed.
    claimed: AtomicU64,
    /// Largest scheduled time of an event. Written by sources, read by sinks.
    last_due_ns: AtomicU64,
    /// When the event was due that took event time to or over a step; of several subtasks, the latest. Written by
    /// sources before they send the watermark that follows from it, read by sinks.
    reached: Mutex<BTreeMap<i64, u64>>,
}

impl RunState {
    /// The state of a run that has not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// The moment that schedules count from. The first call sets it.
    #[inline]
    pub fn start(&self) -> Instant {
        *self.0.started.get_or_init(Instant::now)
    }

    /// How long ago the first source was polled; none if none was.
    pub fn elapsed(&self) -> Option<Duration> {
        self.0.started.get().map(Instant::elapsed)
    }

    /// Notes that a row has reached a sink.
    pub(super) fn note_row(&self) {
        self.0.first_row.get_or_init(Instant::now);
    }

    /// When the first row reached a sink.
    pub fn first_row(&self) -> Option<Instant> {
        self.0.first_row.get().copied()
    }

    /// Events that sources have emitted.
    pub fn emitted(&self) -> u64 {
        self.0.emitted.load(Relaxed)
    }

    pub(super) fn count(&self, events: u64) {
        self.0.emitted.fetch_add(events, Relaxed);
    }

    /// Claims up to `wanted` of the events that are due, numbers below `due`; answers the first number and how many.
    pub(super) fn claim(&self, due: u64, wanted: u64) -> (u64, u64) {
        let more = |claimed: u64| {
            let take = wanted.min(due.saturating_sub(claimed));
            (take > 0).then_some(claimed + take)
        };
        match self.0.claimed.fetch_update(Relaxed, Relaxed, more) {
            Ok(before) => (before, more(before).unwrap_or(before) - before),
            Err(claimed) => (claimed, 0),
        }
    }

    /// Notes that event time has come from `from_ms` to `to_ms` with an event due at `due_ns`.
    #[cold]
    pub(super) fn reach(&self, from_ms: i64, to_ms: i64, due_ns: u64) {
        let last = to_ms.div_euclid(STEP_MS);
        // The first event reaches only its own step: nothing can have waited for those before it.
        let first = if from_ms == i64::MIN { last } else { from_ms.div_euclid(STEP_MS) + 1 };
        let first = first.max(last - MAX_STEPS);
        let mut reached = self.0.reached.lock().unwrap_or_else(PoisonError::into_inner);
        for step in first..=last {
            let latest = reached.entry(step * STEP_MS).or_default();
            *latest = (*latest).max(due_ns);
        }
    }

    /// The event time behind the one at hand from which [`reach`](Self::reach) has something to note.
    pub(super) const fn next_step(time_ms: i64) -> i64 {
        (time_ms.div_euclid(STEP_MS) + 1) * STEP_MS
    }

    pub(super) fn note_due(&self, due_ns: u64) {
        self.0.last_due_ns.fetch_max(due_ns, Relaxed);
    }

    /// When the event was due that took event time to `time_ms`; for what only the end of the input closed, the last.
    pub(super) fn due_of(&self, time_ms: i64) -> u64 {
        let reached = self.0.reached.lock().unwrap_or_else(PoisonError::into_inner);
        reached.range(time_ms..).next().map_or_else(|| self.0.last_due_ns.load(Relaxed), |(_, &due_ns)| due_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_event_time_crosses_steps_then_the_latest_subtask_counts() {
        let run = RunState::new();
        run.reach(i64::MIN, 500, 5);
        run.reach(500, 2_100, 30);
        run.reach(600, 1_000, 40);
        run.note_due(99);
        assert_eq!((run.due_of(1_000), run.due_of(2_000), run.due_of(3_000)), (40, 30, 99));
        assert_eq!((RunState::next_step(999), RunState::next_step(1_000), RunState::next_step(-1)), (1_000, 2_000, 0));
    }

    #[test]
    fn when_subtasks_share_a_schedule_then_each_event_is_claimed_once() {
        let run = RunState::new();
        assert_eq!(run.claim(10, 4), (0, 4));
        assert_eq!(run.claim(10, 100), (4, 6));
        assert_eq!(run.claim(10, 100).1, 0);
    }
}
