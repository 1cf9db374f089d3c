//! Sources: the trait, generators and iterators.

use std::sync::{Arc, Mutex, PoisonError};

use thalweg_io::FrameCursor;
use thalweg_model::{CheckpointId, Elem, Record, time::MIN_WATERMARK};
use thalweg_runtime::{Clock, OperatorStateWriter, Progress, SegmentContext, SourceStatus, TaskError};

use crate::{
    checkpoint::{OperatorRestore, OperatorSnapshot},
    fuse::Out,
    op_metrics::OpMetrics,
    pipe::{Emit, Pipe},
    placed::heads,
};

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
        self.metrics.open(ctx);
        self.source.open(ctx).map_err(|error| self.metrics.error(error.to_string()))?;
        match OperatorRestore::of(ctx, self.metrics.index()) {
            Some(restored) => self.source.restore(&restored).map_err(|error| self.metrics.error(error.to_string())),
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
    fn report(&mut self) -> u64 {
        let emitted = self.source.emitted();
        self.metrics.records(emitted, emitted);
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

    /// When record `index` of this subtask is due, in the clock's nanoseconds.
    pub fn time_of(&self, index: u64) -> u64 {
        self.started_ns + (index as f64 / self.share) as u64
    }
}

/// Records made by a function of their index: subtask `i` of `p` makes those with `n mod p = i`.
pub struct Generate<O, F> {
    function: F,
    count: u64,
    next: u64,
    step: u64,
    made: u64,
    emitted: u64,
    pace: Pace,
    types: std::marker::PhantomData<fn() -> O>,
}

impl<O, F: Clone> Clone for Generate<O, F> {
    fn clone(&self) -> Self {
        Self { function: self.function.clone(), pace: self.pace.clone(), ..*self }
    }
}

impl<O, F> Generate<O, F> {
    /// Makes records `0..count`, all subtasks together at most `records_per_s` of them a second.
    pub(crate) fn new(count: u64, records_per_s: Option<f64>, function: F) -> Self {
        let pace = Pace::new(records_per_s);
        Self { function, count, next: 0, step: 1, made: 0, emitted: 0, pace, types: std::marker::PhantomData }
    }
}

impl<O: Record, F> Source for Generate<O, F>
where
    F: for<'o> FnMut(u64, &mut Out<'o, O>) + Clone + Send + 'static,
{
    type Out = O;

    fn open(&mut self, ctx: &mut SegmentContext) -> Result<(), SourceError> {
        self.next = u64::from(ctx.subtask);
        self.step = u64::from(ctx.parallelism);
        self.pace.open(ctx);
        Ok(())
    }

    #[inline]
    fn poll<E: Emit<O>>(&mut self, budget: usize, emit: &mut E) -> Result<SourceStatus, SourceError> {
        let due = self.pace.due();
        let left = self.count.saturating_sub(self.next).div_ceil(self.step);
        let allowed = (budget as u64).min(left).min(due.saturating_sub(self.made));
        // Counted in registers: a store per record beside those into a page is one fewer that may be under way there.
        let (mut next, step, mut made, mut emitted) = (self.next, self.step, 0, 0);
        while made < allowed && emit.room() {
            let mut push = |view: O::View<'_>| {
                emitted += 1;
                emit.emit(Elem::new(view, MIN_WATERMARK));
            };
            (self.function)(next, &mut Out::new(&mut push));
            next += step;
            made += 1;
        }
        self.next = next;
        self.made += made;
        self.emitted += emitted;
        Ok(if self.next >= self.count {
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
}

/// The records of an iterator, in order, from one subtask.
pub struct FromIter<I: IntoIterator> {
    source: Arc<Mutex<Option<I>>>,
    running: Option<Running<I>>,
    emitted: u64,
}

/// Keeps an iterator on its slot: it is made there, and so need not be sendable.
struct Running<I: IntoIterator>(I::IntoIter);

impl<I: IntoIterator> Clone for FromIter<I> {
    fn clone(&self) -> Self {
        Self { source: self.source.clone(), running: None, emitted: 0 }
    }
}

impl<I: IntoIterator> FromIter<I> {
    pub(crate) fn new(records: I) -> Self {
        Self { source: Arc::new(Mutex::new(Some(records))), running: None, emitted: 0 }
    }
}

impl<I> Source for FromIter<I>
where
    I: IntoIterator + Send + 'static,
    I::Item: Record,
    I::IntoIter: Send,
{
    type Out = I::Item;

    fn open(&mut self, _ctx: &mut SegmentContext) -> Result<(), SourceError> {
        let records = self.source.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.running = Some(Running(
            records.ok_or("an iterator source can only be read once: build the job anew to run it again")?.into_iter(),
        ));
        Ok(())
    }

    fn poll<E: Emit<I::Item>>(&mut self, budget: usize, emit: &mut E) -> Result<SourceStatus, SourceError> {
        let Some(Running(records)) = &mut self.running else { return Ok(SourceStatus::Ended) };
        for _ in 0..budget {
            if !emit.room() {
                break;
            }
            let Some(record) = records.next() else { return Ok(SourceStatus::Ended) };
            self.emitted += 1;
            emit.emit(Elem::new(record.view(), MIN_WATERMARK));
        }
        Ok(SourceStatus::More)
    }

    fn emitted(&self) -> u64 {
        self.emitted
    }
}
