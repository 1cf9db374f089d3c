//! Record-wise operators: map, filter, flat map and inspect, each fused onto the pipe before it.

use std::marker::PhantomData;

use thalweg_io::FrameCursor;
use thalweg_model::{CheckpointId, Elem, Record, time::MIN_WATERMARK};
use thalweg_runtime::{KeyedStateRef, OperatorStateWriter, Progress, SegmentContext, SourceStatus, TaskError};

use crate::{
    checkpoint::{OperatorRestore, OperatorSnapshot},
    op_metrics::OpMetrics,
    pipe::{Emit, Pipe, Watermarks},
};

/// Where a function of `map_to` or `flat_map_to` puts its views.
pub struct Out<'a, O: Record> {
    push: &'a mut dyn FnMut(O::View<'_>),
}

impl<'a, O: Record> Out<'a, O> {
    pub(crate) fn new(push: &'a mut dyn FnMut(O::View<'_>)) -> Self {
        Self { push }
    }

    /// Passes a view on. It is encoded or consumed before this returns, so it may borrow from the input.
    #[inline(always)]
    pub fn push(&mut self, view: O::View<'_>) {
        (self.push)(view);
    }
}

/// What a record-wise operator does with one record; the rest of its behaviour is the same for all of them.
pub trait Step<I: Record>: Clone + Send + 'static {
    /// What it emits.
    type Out: Record;

    /// Takes a record and emits any number.
    fn step<E: Emit<Self::Out>>(&mut self, elem: Elem<'_, I>, emit: &mut E);
    /// How many records it has emitted, given how many it took.
    fn emitted(&self, taken: u64) -> u64 {
        taken
    }
    /// Called once on the slot.
    fn open(&mut self, _ctx: &mut SegmentContext, _metrics: &OpMetrics) {}
    /// Takes a watermark; normally passed on.
    fn watermark<E: Emit<Self::Out>>(&mut self, watermark: i64, emit: &mut E) {
        emit.watermark(watermark);
    }
    /// Takes a change of idleness; normally passed on.
    fn idle<E: Emit<Self::Out>>(&mut self, idle: bool, emit: &mut E) {
        emit.idle(idle);
    }
    /// Whether it can take a record.
    fn ready(&self) -> bool {
        true
    }
    /// An error that came up in `step`.
    fn take_error(&mut self) -> Option<TaskError> {
        None
    }
    /// When processing time matters to it next.
    fn next_deadline_ms(&self) -> Option<i64> {
        None
    }
    /// Processing time has moved on.
    fn processing_time<E: Emit<Self::Out>>(&mut self, _now_ms: i64, _emit: &mut E) {}
    /// The input has ended.
    fn finish<E: Emit<Self::Out>>(&mut self, _emit: &mut E) -> Result<Progress, TaskError> {
        Ok(Progress::Done)
    }
    /// The batch is over, or the subtask ends: hand over what is buffered.
    fn flush(&mut self) {}
    /// The subtask ends, for whatever reason.
    fn close(&mut self) {
        self.flush();
    }
    /// Publishes counters of its own.
    fn report(&mut self) {}
    /// Takes up what it had in the checkpoint that the job starts from. Called after `open`, where there is one.
    fn restore(&mut self, restored: &OperatorRestore<'_>) -> Result<(), TaskError> {
        let _ = restored;
        Ok(())
    }
    /// The barrier of a checkpoint: hands over its state.
    fn snapshot(&mut self, snapshot: &mut OperatorSnapshot<'_>) -> Result<(), TaskError> {
        let _ = snapshot;
        Ok(())
    }
    /// A checkpoint is complete: commit what is pending up to it.
    fn checkpoint_complete(&mut self, checkpoint: CheckpointId) -> Result<(), TaskError> {
        let _ = checkpoint;
        Ok(())
    }
    /// The last checkpoint is complete: finish what committing has left to other threads. May wait.
    fn settle(&mut self) -> Result<(), TaskError> {
        Ok(())
    }
    /// A checkpoint came to nothing.
    fn checkpoint_aborted(&mut self, checkpoint: CheckpointId) {
        let _ = checkpoint;
    }
}

/// A pipe with one more record-wise operator.
#[derive(Clone)]
pub struct Fused<P, S> {
    pub(crate) inner: P,
    pub(crate) step: S,
    pub(crate) metrics: OpMetrics,
    /// The last watermark that has left the pipe before the step.
    arrived: i64,
}

/// The emitter that an operator hands to the pipe before it.
pub struct StepEmit<'e, I, S, E> {
    step: &'e mut S,
    arrived: &'e mut i64,
    emit: &'e mut E,
    types: PhantomData<fn(I)>,
}

impl<I: Record, S: Step<I>, E: Emit<S::Out>> Emit<I> for StepEmit<'_, I, S, E> {
    #[inline(always)]
    fn emit(&mut self, elem: Elem<'_, I>) {
        self.step.step(elem, self.emit);
    }
    #[inline]
    fn watermark(&mut self, watermark: i64) {
        *self.arrived = watermark;
        self.step.watermark(watermark, self.emit);
    }
    #[inline]
    fn idle(&mut self, idle: bool) {
        self.step.idle(idle, self.emit);
    }
    #[inline(always)]
    fn room(&self) -> bool {
        self.step.ready() && self.emit.room()
    }
    #[inline]
    fn side<U: Record>(&mut self, port: usize, elem: Elem<'_, U>) {
        self.emit.side(port, elem);
    }
}

impl<P: Pipe, S: Step<P::Out>> Fused<P, S> {
    pub(crate) fn new(inner: P, step: S, operator: usize) -> Self {
        Self { inner, step, metrics: OpMetrics::new(operator), arrived: MIN_WATERMARK }
    }

    #[inline(always)]
    fn checked<R>(&mut self, result: Result<R, TaskError>) -> Result<R, TaskError> {
        match self.step.take_error() {
            Some(error) => Err(self.metrics.named(error)),
            None => result,
        }
    }
}

macro_rules! before {
    ($self:ident, $emit:ident) => {
        &mut StepEmit { step: &mut $self.step, arrived: &mut $self.arrived, emit: $emit, types: PhantomData }
    };
}

impl<P: Pipe, S: Step<P::Out>> Pipe for Fused<P, S> {
    type Out = S::Out;

    fn open(&mut self, ctx: &mut SegmentContext) -> Result<(), TaskError> {
        self.inner.open(ctx)?;
        self.metrics.open(ctx);
        self.step.open(ctx, &self.metrics);
        self.checked(Ok(()))?;
        match OperatorRestore::of(ctx, self.metrics.index()) {
            Some(restored) => self.step.restore(&restored),
            None => Ok(()),
        }
    }
    #[inline]
    fn process<E: Emit<S::Out>>(
        &mut self,
        input: usize,
        frames: &mut FrameCursor<'_>,
        emit: &mut E,
    ) -> Result<(), TaskError> {
        let result = self.inner.process(input, frames, before!(self, emit));
        self.step.flush();
        self.checked(result)
    }
    fn watermark<E: Emit<S::Out>>(&mut self, watermark: i64, emit: &mut E) -> Result<Progress, TaskError> {
        let result = self.inner.watermark(watermark, before!(self, emit));
        self.step.flush();
        self.checked(result)
    }
    fn idle<E: Emit<S::Out>>(&mut self, idle: bool, emit: &mut E) {
        self.inner.idle(idle, before!(self, emit));
    }
    #[inline]
    fn poll<E: Emit<S::Out>>(&mut self, budget: usize, emit: &mut E) -> Result<SourceStatus, TaskError> {
        let result = self.inner.poll(budget, before!(self, emit));
        self.step.flush();
        self.checked(result)
    }
    fn processing_time<E: Emit<S::Out>>(&mut self, now_ms: i64, emit: &mut E) -> Result<Progress, TaskError> {
        if self.inner.next_deadline_ms().is_some_and(|deadline| deadline <= now_ms) {
            let result = self.inner.processing_time(now_ms, before!(self, emit));
            if !matches!(result, Ok(Progress::Done)) {
                return self.checked(result);
            }
        }
        if self.step.next_deadline_ms().is_some_and(|deadline| deadline <= now_ms) {
            self.step.processing_time(now_ms, emit);
        }
        self.step.flush();
        self.checked(Ok(Progress::Done))
    }
    fn next_deadline_ms(&self) -> Option<i64> {
        match (self.inner.next_deadline_ms(), self.step.next_deadline_ms()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
    fn end_input<E: Emit<S::Out>>(&mut self, input: usize, emit: &mut E) -> Result<Progress, TaskError> {
        let result = self.inner.end_input(input, before!(self, emit));
        self.checked(result)
    }
    fn finish<E: Emit<S::Out>>(&mut self, emit: &mut E) -> Result<Progress, TaskError> {
        let before = self.inner.finish(before!(self, emit))?;
        if before != Progress::Done {
            return Ok(before);
        }
        let result = self.step.finish(emit);
        self.checked(result)
    }
    fn keyed_states(&mut self, visit: &mut dyn FnMut(KeyedStateRef<'_>)) {
        self.inner.keyed_states(visit);
    }
    fn snapshot(&mut self, checkpoint: CheckpointId, state: &mut OperatorStateWriter) -> Result<(), TaskError> {
        self.inner.snapshot(checkpoint, state)?;
        let result = self.step.snapshot(&mut OperatorSnapshot::new(state, self.metrics.index(), checkpoint));
        result.map_err(|error| self.metrics.named(error))
    }
    fn checkpoint_complete(&mut self, checkpoint: CheckpointId) -> Result<(), TaskError> {
        self.inner.checkpoint_complete(checkpoint)?;
        self.step.checkpoint_complete(checkpoint).map_err(|error| self.metrics.named(error))
    }
    fn settle(&mut self) -> Result<(), TaskError> {
        self.inner.settle()?;
        self.step.settle().map_err(|error| self.metrics.named(error))
    }
    fn checkpoint_aborted(&mut self, checkpoint: CheckpointId) {
        self.inner.checkpoint_aborted(checkpoint);
        self.step.checkpoint_aborted(checkpoint);
    }
    fn close(&mut self) {
        self.inner.close();
        self.step.close();
    }
    fn report(&mut self, marks: Watermarks) -> u64 {
        let taken = self.inner.report(Watermarks { left: self.arrived, ..marks });
        let emitted = self.step.emitted(taken);
        self.metrics.records(taken, emitted);
        self.metrics.watermarks(Watermarks { arrived: self.arrived, ..marks });
        self.step.report();
        emitted
    }
    fn ready(&self) -> bool {
        self.step.ready() && self.inner.ready()
    }
    fn is_source(&self) -> bool {
        self.inner.is_source()
    }
}

/// `map`: one owned record for each.
#[derive(Clone)]
pub struct MapStep<F>(pub(crate) F);

impl<I: Record, O: Record, F> Step<I> for MapStep<F>
where
    F: for<'v> FnMut(I::View<'v>) -> O + Clone + Send + 'static,
{
    type Out = O;

    #[inline(always)]
    fn step<E: Emit<O>>(&mut self, elem: Elem<'_, I>, emit: &mut E) {
        let value = (self.0)(elem.view);
        emit.emit(Elem::new(value.view(), elem.timestamp));
    }
}

/// `map_to` and `flat_map_to`: any number of views, which may borrow from the input.
pub struct MapToStep<O, F> {
    function: F,
    emitted: u64,
    types: PhantomData<fn() -> O>,
}

impl<O, F: Clone> Clone for MapToStep<O, F> {
    fn clone(&self) -> Self {
        Self { function: self.function.clone(), emitted: self.emitted, types: PhantomData }
    }
}

impl<O, F> MapToStep<O, F> {
    pub(crate) fn new(function: F) -> Self {
        Self { function, emitted: 0, types: PhantomData }
    }
}

impl<I: Record, O: Record, F> Step<I> for MapToStep<O, F>
where
    F: for<'v, 'o> FnMut(I::View<'v>, &mut Out<'o, O>) + Clone + Send + 'static,
{
    type Out = O;

    #[inline(always)]
    fn step<E: Emit<O>>(&mut self, elem: Elem<'_, I>, emit: &mut E) {
        let emitted = &mut self.emitted;
        let mut push = |view: O::View<'_>| {
            *emitted += 1;
            emit.emit(Elem::new(view, elem.timestamp));
        };
        (self.function)(elem.view, &mut Out::new(&mut push));
    }
    fn emitted(&self, _taken: u64) -> u64 {
        self.emitted
    }
}

/// `flat_map`: an iterator of owned records for each.
#[derive(Clone)]
pub struct FlatMapStep<F> {
    pub(crate) function: F,
    pub(crate) emitted: u64,
}

impl<I: Record, O: Record, C, F> Step<I> for FlatMapStep<F>
where
    C: IntoIterator<Item = O>,
    F: for<'v> FnMut(I::View<'v>) -> C + Clone + Send + 'static,
{
    type Out = O;

    #[inline(always)]
    fn step<E: Emit<O>>(&mut self, elem: Elem<'_, I>, emit: &mut E) {
        for value in (self.function)(elem.view) {
            self.emitted += 1;
            emit.emit(Elem::new(value.view(), elem.timestamp));
        }
    }
    fn emitted(&self, _taken: u64) -> u64 {
        self.emitted
    }
}

/// `filter`: passes on, unchanged, the records that a predicate holds for.
#[derive(Clone)]
pub struct FilterStep<F> {
    pub(crate) predicate: F,
    pub(crate) passed: u64,
}

impl<I: Record, F> Step<I> for FilterStep<F>
where
    F: for<'v> FnMut(I::View<'v>) -> bool + Clone + Send + 'static,
{
    type Out = I;

    #[inline(always)]
    fn step<E: Emit<I>>(&mut self, elem: Elem<'_, I>, emit: &mut E) {
        if (self.predicate)(elem.view) {
            self.passed += 1;
            emit.emit(elem);
        }
    }
    fn emitted(&self, _taken: u64) -> u64 {
        self.passed
    }
}

/// `inspect`: lets a function look at each record, and passes it on unchanged.
#[derive(Clone)]
pub struct InspectStep<F>(pub(crate) F);

impl<I: Record, F> Step<I> for InspectStep<F>
where
    F: for<'v> FnMut(I::View<'v>) + Clone + Send + 'static,
{
    type Out = I;

    #[inline(always)]
    fn step<E: Emit<I>>(&mut self, elem: Elem<'_, I>, emit: &mut E) {
        (self.0)(elem.view);
        emit.emit(elem);
    }
}
