//! Sources: the trait, generators and iterators.

use std::sync::Arc;

use thalweg_io::FrameCursor;
use thalweg_model::{CheckpointId, Elem, Record, time::MIN_WATERMARK};
use thalweg_runtime::{Clock, OperatorStateWriter, Progress, SegmentContext, SourceStatus, TaskError};

use crate::{
    checkpoint::{OperatorRestore, OperatorSnapshot},
    fuse::Out,
    op_metrics::OpMetrics,
    pipe::{Emit, Pipe, Watermarks},
    placed::heads,
};

pub use crate::from_iter::FromIter;
pub use crate::progressions::{Progression, Progressions, Run};

/// Why a source failed: what happened and what to do, in one line.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// Makes the records of a job. Each subtask works on a clone.
pub trait Source: Clone + Send + 'static {
    /// What it makes.
    type Out: Record;

    /// Called once on the slot, before the first poll.
    ///
    /// # Errors
    /// Fails the task.
    fn open(&mut self, ctx: &mut SegmentContext) -> Result<(), SourceError> {
        let _ = ctx;
        Ok(())
    }
    /// Emits up to `budget` records while there is room, without ever blocking.
    ///
    /// # Errors
    /// Fails the task.
    fn poll<E: Emit<Self::Out>>(&mut self, budget: usize, emit: &mut E) -> Result<SourceStatus, SourceError>;
    /// When [`periodic`](Self::periodic) should be called next, in wall-clock milliseconds.
    fn next_deadline_ms(&self) -> Option<i64> {
        None
    }
    /// Called at the deadline: watermarks of a source's own.
    fn periodic<E: Emit<Self::Out>>(&mut self, now_ms: i64, emit: &mut E) {
        let _ = (now_ms, emit);
    }
    /// How many records it has emitted.
    fn emitted(&self) -> u64;
    /// Called with the metrics of the operator, about ten times a second and at the end.
    fn report(&mut self) {}
    /// Goes on from where it was in the checkpoint that the job starts from. Called after `open`, where there is one.
    ///
    /// # Errors
    /// Fails the task.
    fn restore(&mut self, restored: &OperatorRestore<'_>) -> Result<(), SourceError> {
        let _ = restored;
        Ok(())
    }
    /// The barrier of a checkpoint: hands over where it is. What it has emitted lies before the barrier, what it will emit
    /// behind it.
    ///
    /// # Errors
    /// Fails the task.
    fn snapshot(&mut self, snapshot: &mut OperatorSnapshot<'_>) -> Result<(), SourceError> {
        let _ = snapshot;
        Ok(())
    }
    /// A checkpoint is complete: nothing before it will be asked for again.
    ///
    /// # Errors
    /// Fails the task.
    fn checkpoint_complete(&mut self, checkpoint: CheckpointId) -> Result<(), SourceError> {
        let _ = checkpoint;
        Ok(())
    }
}

/// The head that runs a [`Source`].
pub struct SourceHead<S> {
    source: S,
    metrics: OpMetrics,
}

impl<S> SourceHead<S> {
    pub(crate) fn new(source: S) -> Self {
        Self { source, metrics: OpMetrics::new(0) }
    }
}

impl<S: Clone> Clone for SourceHead<S> {
    fn clone(&self) -> Self {
        Self::new(self.source.clone())
    }
}

heads! {
    [S: Source] SourceHead<S>;
}

impl<S: Source> Pipe for SourceHead<S> {
    type Out = S::Out;

    fn open(&mut self, ctx: &mut SegmentContext) -> Result<(), TaskError> {
        self.metrics.open_source(ctx);
        self.source.open(ctx).map_err(|error| self.metrics.failed(error))?;
        match OperatorRestore::of(ctx, self.metrics.index()) {
            Some(restored) => self.source.restore(&restored).map_err(|error| self.metrics.failed(error)),
            None => Ok(()),
        }
    }
    fn snapshot(&mut self, checkpoint: CheckpointId, state: &mut OperatorStateWriter) -> Result<(), TaskError> {
        let mut snapshot = OperatorSnapshot::new(state, self.metrics.index(), checkpoint);
        self.source.snapshot(&mut snapshot).map_err(|error| self.metrics.error(error.to_string()))
    }
    fn checkpoint_complete(&mut self, checkpoint: CheckpointId) -> Result<(), TaskError> {
        self.source.checkpoint_complete(checkpoint).map_err(|error| self.metrics.error(error.to_string()))
    }
    fn process<E: Emit<S::Out>>(&mut self, _: usize, _: &mut FrameCursor<'_>, _: &mut E) -> Result<(), TaskError> {
        Ok(())
    }
    fn watermark<E: Emit<S::Out>>(&mut self, watermark: i64, emit: &mut E) -> Result<Progress, TaskError> {
        emit.watermark(watermark);
        Ok(Progress::Done)
    }
    #[inline]
    fn poll<E: Emit<S::Out>>(&mut self, budget: usize, emit: &mut E) -> Result<SourceStatus, TaskError> {
        self.source.poll(budget, emit).map_err(|error| self.metrics.error(error.to_string()))
    }
    fn processing_time<E: Emit<S::Out>>(&mut self, now_ms: i64, emit: &mut E) -> Result<Progress, TaskError> {
        self.source.periodic(now_ms, emit);
        Ok(Progress::Done)
    }
    fn next_deadline_ms(&self) -> Option<i64> {
        self.source.next_deadline_ms()
    }
    fn report(&mut self, marks: Watermarks) -> u64 {
        let emitted = self.source.emitted();
        self.metrics.records(emitted, emitted);
        self.metrics.watermarks(marks);
        self.source.report();
        emitted
    }
    fn is_source(&self) -> bool {
        true
    }
}

/// Paces a subtask's share of a rate: how many of its records are due by now.
#[derive(Clone)]
pub(crate) struct Pace {
    records_per_s: Option<f64>,
    share: f64,
    started_ns: u64,
    clock: Option<Arc<dyn Clock>>,
}

impl Pace {
    pub fn new(records_per_s: Option<f64>) -> Self {
        if let Some(rate) = records_per_s {
            assert!(rate.is_finite() && rate > 0.0, "a rate is a number of records a second above zero, not {rate}");
        }
        Self { records_per_s, share: 0.0, started_ns: 0, clock: None }
    }

    pub fn open(&mut self, ctx: &SegmentContext) {
        self.share = self.records_per_s.unwrap_or(0.0) / f64::from(ctx.parallelism) / 1e9;
        self.started_ns = ctx.clock.now_ns();
        self.clock = Some(ctx.clock.clone());
    }

    /// How many records may have been emitted by now in all; without a rate, any number.
    pub fn due(&self) -> u64 {
        match (&self.clock, self.records_per_s) {
            (Some(clock), Some(_)) => ((clock.now_ns() - self.started_ns) as f64 * self.share) as u64 + 1,
            _ => u64::MAX,
        }
    }

    /// When record `index` of this subtask is due, in the clock's nanoseconds; at a rate so small that they cannot be
    /// counted, at the end of all time.
    pub fn time_of(&self, index: u64) -> u64 {
        self.started_ns.saturating_add((index as f64 / self.share) as u64)
    }
}

/// Records made by a function of their index: subtask `i` of `p` makes those with `n mod p = i`.
///
/// Its positions in checkpoints are exact at any parallelism; see [`Progressions`].
pub struct Generate<O, F> {
    function: F,
    numbers: Progressions,
    made: u64,
    emitted: u64,
    pace: Pace,
    types: std::marker::PhantomData<fn() -> O>,
}

impl<O, F: Clone> Clone for Generate<O, F> {
    fn clone(&self) -> Self {
        let (function, numbers, pace) = (self.function.clone(), self.numbers.clone(), self.pace.clone());
        Self { function, numbers, pace, made: self.made, emitted: self.emitted, types: self.types }
    }
}

impl<O, F> Generate<O, F> {
    /// Makes records `0..count`, all subtasks together at most `records_per_s` of them a second.
    pub(crate) fn new(count: u64, records_per_s: Option<f64>, function: F) -> Self {
        let (numbers, pace) = (Progressions::new(count), Pace::new(records_per_s));
        Self { function, numbers, made: 0, emitted: 0, pace, types: std::marker::PhantomData }
    }
}

impl<O: Record, F> Source for Generate<O, F>
where
    F: for<'o> FnMut(u64, &mut Out<'o, O>) + Clone + Send + 'static,
{
    type Out = O;

    fn open(&mut self, ctx: &mut SegmentContext) -> Result<(), SourceError> {
        self.numbers.open(ctx.subtask, ctx.parallelism);
        self.pace.open(ctx);
        Ok(())
    }

    #[inline]
    fn poll<E: Emit<O>>(&mut self, budget: usize, emit: &mut E) -> Result<SourceStatus, SourceError> {
        let due = self.pace.due();
        let mut allowed = (budget as u64).min(due.saturating_sub(self.made));
        // Once, except where leftovers of a restored checkpoint come first.
        while allowed > 0 && !self.numbers.is_done() && emit.room() {
            let run = self.numbers.run();
            let most = allowed.min(run.left());
            // Counted in registers: a store per record beside those into a page is one fewer that may be under way there.
            let (mut next, step, mut made, mut emitted) = (run.next, run.step, 0, 0);
            while made < most && emit.room() {
                let mut push = |view: O::View<'_>| {
                    emitted += 1;
                    emit.emit(Elem::new(view, MIN_WATERMARK));
                };
                (self.function)(next, &mut Out::new(&mut push));
                next += step;
                made += 1;
            }
            self.numbers.reached(next);
            allowed -= made;
            self.made += made;
            self.emitted += emitted;
        }
        Ok(if self.numbers.is_done() {
            SourceStatus::Ended
        } else if self.made >= due {
            SourceStatus::Wait { until_ns: Some(self.pace.time_of(self.made)) }
        } else {
            SourceStatus::More
        })
    }

    fn emitted(&self) -> u64 {
        self.emitted
    }

    fn restore(&mut self, restored: &OperatorRestore<'_>) -> Result<(), SourceError> {
        self.numbers.restore(restored)
    }

    fn snapshot(&mut self, snapshot: &mut OperatorSnapshot<'_>) -> Result<(), SourceError> {
        self.numbers.snapshot(snapshot);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Emitted, checkpoint, restored, snapshot};

    #[test]
    fn when_a_record_is_due_beyond_all_time_then_it_is_waited_for() {
        let pace = Pace { share: 1e-300, started_ns: 5, ..Pace::new(Some(1e-291)) };
        assert_eq!((pace.time_of(0), pace.time_of(1)), (5, u64::MAX));
    }

    #[test]
    fn when_a_rate_is_no_number_above_zero_then_it_is_refused_by_its_value() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let refused = std::panic::catch_unwind(|| {
                let env = crate::Environment::new();
                env.generate_at_rate(1, rate, |n| n).sink(crate::sink::discard().0);
            });
            let message = *refused.unwrap_err().downcast::<String>().unwrap();
            assert!(message.contains("above zero") && message.contains(&rate.to_string()), "{message}");
        }
    }

    #[test]
    fn when_a_generator_is_restored_at_another_parallelism_then_it_goes_on_where_it_was() {
        let make = |parallelism: u32| {
            let generate = Generate::new(100, None, |n: u64, out: &mut Out<'_, u64>| out.push(n));
            (0..parallelism).map(move |_| generate.clone())
        };
        let mut emitted = Emitted::<u64>::new();
        let mut states = Vec::new();
        for (subtask, mut source) in (0..3).zip(make(3)) {
            source.numbers.open(subtask, 3);
            assert_eq!(source.poll(4 * subtask as usize + 1, &mut emitted).unwrap(), SourceStatus::More);
            states.push(snapshot(1, |snapshot| source.snapshot(snapshot)).unwrap());
        }
        let cut = checkpoint(1, states);
        for (subtask, mut source) in (0..2).zip(make(2)) {
            source.restore(&restored(&cut, subtask, 2)).unwrap();
            let begin = emitted.records.len();
            assert_eq!(source.poll(1_000, &mut emitted).unwrap(), SourceStatus::Ended);
            assert!(emitted.records[begin..].is_sorted());
            assert_eq!(source.emitted(), (emitted.records.len() - begin) as u64);
        }
        emitted.records.sort_unstable();
        assert_eq!(emitted.records, (0..100).collect::<Vec<_>>());
    }
}
