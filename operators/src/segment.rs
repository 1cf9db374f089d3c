//! A pipe and its tail, as the runtime sees them: one `Segment` behind one dynamic call a batch.

use std::{
    marker::PhantomData,
    sync::{Arc, Mutex},
};

use thalweg_io::FrameCursor;
use thalweg_model::{CheckpointId, Elem, KeyHash, Record, time::MIN_WATERMARK};
use thalweg_runtime::{
    KeyedStateRef, OperatorStateWriter, Outputs, Progress, Segment, SegmentContext, SegmentFactory, SourceStatus,
    TaskError,
};

use crate::pipe::{Emit, Pipe, Watermarks};

/// The port of the main output; side outputs follow it.
pub const MAIN_PORT: usize = 0;

/// How a segment's records reach its main output.
pub trait Tail<T: Record>: Clone + Send + 'static {
    /// Writes one record.
    fn write(&mut self, elem: Elem<'_, T>, out: &mut Outputs);
}

/// The tail of most segments: the edges' own partitioners decide.
#[derive(Clone, Copy)]
pub struct ForwardTail;

impl<T: Record> Tail<T> for ForwardTail {
    #[inline(always)]
    fn write(&mut self, elem: Elem<'_, T>, out: &mut Outputs) {
        out.write(MAIN_PORT, elem, KeyHash(0));
    }
}

/// The tail that sends each record where a function says: `partition_custom`.
#[derive(Clone)]
pub struct CustomTail<F>(pub(crate) F);

impl<T: Record, F> Tail<T> for CustomTail<F>
where
    F: for<'v> FnMut(T::View<'v>) -> u32 + Clone + Send + 'static,
{
    #[inline(always)]
    fn write(&mut self, elem: Elem<'_, T>, out: &mut Outputs) {
        let choice = (self.0)(elem.view);
        out.write(MAIN_PORT, elem, KeyHash(choice));
    }
}

/// The tail of a sink: there is nothing after it.
#[derive(Clone, Copy)]
pub struct NoTail;

impl Tail<()> for NoTail {
    #[inline(always)]
    fn write(&mut self, _elem: Elem<'_, ()>, _out: &mut Outputs) {}
}

struct TailEmit<'a, T, L> {
    tail: &'a mut L,
    left: &'a mut i64,
    out: &'a mut Outputs,
    types: PhantomData<fn(T)>,
}

impl<T: Record, L: Tail<T>> Emit<T> for TailEmit<'_, T, L> {
    #[inline(always)]
    fn emit(&mut self, elem: Elem<'_, T>) {
        self.tail.write(elem, self.out);
    }
    fn watermark(&mut self, watermark: i64) {
        *self.left = watermark;
        self.out.watermark(watermark);
    }
    fn idle(&mut self, idle: bool) {
        self.out.idle(idle);
    }
    #[inline(always)]
    fn room(&self) -> bool {
        self.out.room()
    }
    #[inline]
    fn side<U: Record>(&mut self, port: usize, elem: Elem<'_, U>) {
        self.out.write(port, elem, KeyHash(0));
    }
}

struct Assembled<P, L> {
    pipe: P,
    tail: L,
    marks: Watermarks,
}

/// A factory for a pipe whose records leave by the edges' own partitioners.
pub(crate) fn forward_factory<P: Pipe>(pipe: P) -> SegmentFactory {
    factory(pipe, ForwardTail)
}

/// A factory for a pipe and a tail: each instance is a clone of what was built.
pub(crate) fn factory<P: Pipe, L: Tail<P::Out>>(pipe: P, tail: L) -> SegmentFactory {
    let prototype = Mutex::new((pipe, tail));
    Arc::new(move || {
        let (pipe, tail) = prototype.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        let marks = Watermarks { arrived: MIN_WATERMARK, left: MIN_WATERMARK };
        Box::new(Assembled { pipe, tail, marks })
    })
}

macro_rules! emitter {
    ($self:ident, $out:ident) => {
        &mut TailEmit { tail: &mut $self.tail, left: &mut $self.marks.left, out: $out, types: PhantomData }
    };
}

impl<P: Pipe, L: Tail<P::Out>> Segment for Assembled<P, L> {
    fn open(&mut self, ctx: &mut SegmentContext, _out: &mut Outputs) -> Result<(), TaskError> {
        self.pipe.open(ctx)
    }
    fn process(&mut self, input: usize, frames: &mut FrameCursor<'_>, out: &mut Outputs) -> Result<(), TaskError> {
        self.pipe.process(input, frames, emitter!(self, out))
    }
    fn watermark(&mut self, watermark: i64, out: &mut Outputs) -> Result<Progress, TaskError> {
        self.marks.arrived = watermark;
        self.pipe.watermark(watermark, emitter!(self, out))
    }
    fn idle(&mut self, idle: bool, out: &mut Outputs) {
        self.pipe.idle(idle, emitter!(self, out));
    }
    fn poll_source(&mut self, budget_records: usize, out: &mut Outputs) -> Result<SourceStatus, TaskError> {
        self.pipe.poll(budget_records, emitter!(self, out))
    }
    fn processing_time(&mut self, now_ms: i64, out: &mut Outputs) -> Result<Progress, TaskError> {
        self.pipe.processing_time(now_ms, emitter!(self, out))
    }
    fn next_deadline_ms(&self) -> Option<i64> {
        self.pipe.next_deadline_ms()
    }
    fn end_input(&mut self, input: usize, out: &mut Outputs) -> Result<Progress, TaskError> {
        self.pipe.end_input(input, emitter!(self, out))
    }
    fn finish(&mut self, out: &mut Outputs) -> Result<Progress, TaskError> {
        self.pipe.finish(emitter!(self, out))
    }
    fn keyed_states(&mut self, visit: &mut dyn FnMut(KeyedStateRef<'_>)) {
        self.pipe.keyed_states(visit);
    }
    fn snapshot(&mut self, checkpoint: CheckpointId, state: &mut OperatorStateWriter) -> Result<(), TaskError> {
        self.pipe.snapshot(checkpoint, state)
    }
    fn checkpoint_complete(&mut self, checkpoint: CheckpointId) -> Result<(), TaskError> {
        self.pipe.checkpoint_complete(checkpoint)
    }
    fn settle(&mut self) -> Result<(), TaskError> {
        self.pipe.settle()
    }
    fn checkpoint_aborted(&mut self, checkpoint: CheckpointId) {
        self.pipe.checkpoint_aborted(checkpoint);
    }
    fn close(&mut self) {
        self.pipe.close();
    }
    fn report(&mut self) {
        self.pipe.report(self.marks);
    }
    fn ready(&self) -> bool {
        self.pipe.ready()
    }
    fn is_source(&self) -> bool {
        self.pipe.is_source()
    }
}
