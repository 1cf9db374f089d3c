//! Where a fused piece may be cut: before its last operator, and behind an operator whose place is fixed.

use thalweg_io::FrameCursor;
use thalweg_model::{CheckpointId, Record};
use thalweg_runtime::{KeyedStateRef, OperatorStateWriter, Progress, SegmentContext, SourceStatus, TaskError};

use crate::{
    checkpoint::record_type,
    fuse::{Fused, Step},
    graph::Cut,
    pipe::{Emit, Pipe, Records, Watermarks},
    segment::forward_factory,
};

/// A pipe that further operators can follow.
pub trait Extend: Pipe {
    /// What they are fused onto: the pipe itself, or the start of the next segment.
    type Base: Pipe<Out = Self::Out>;
    /// Answers it, closing the segment by `cut` if the next operator starts another.
    fn base(self, cut: &mut dyn Cut) -> Self::Base;
}

/// A pipe whose last operator can be moved to a segment of its own.
pub trait Rebase: Pipe {
    /// The last operator at the head of a segment.
    type Alone: Pipe<Out = Self::Out>;
    /// Answers it, closing what comes before (if anything does) by `cut`.
    fn rebase(self, cut: &mut dyn Cut) -> Self::Alone;
}

/// A pipe whose last operator has a place of its own (parallelism, slot sharing group, chaining), which what follows
/// does not inherit.
#[derive(Clone)]
pub struct Placed<P>(pub(crate) P);

impl<P: Pipe> Extend for Placed<P> {
    type Base = Records<P::Out>;

    fn base(self, cut: &mut dyn Cut) -> Records<P::Out> {
        cut.cut(forward_factory(self.0), record_type::<P::Out>());
        Records::silent()
    }
}

impl<P: Pipe> Rebase for Placed<P> {
    type Alone = Self;

    fn rebase(self, _cut: &mut dyn Cut) -> Self {
        self
    }
}

impl<P: Pipe, S: Step<P::Out>> Extend for Fused<P, S> {
    type Base = Self;

    fn base(self, _cut: &mut dyn Cut) -> Self {
        self
    }
}

impl<P: Pipe, S: Step<P::Out>> Rebase for Fused<P, S> {
    type Alone = Fused<Records<P::Out>, S>;

    fn rebase(self, cut: &mut dyn Cut) -> Self::Alone {
        // A head without an operator of its own is the start of a segment already.
        if !self.inner.is_silent() {
            cut.cut(forward_factory(self.inner), record_type::<P::Out>());
        }
        Fused::new(Records::silent(), self.step, 0)
    }
}

/// Declares pipes that start a segment: nothing comes before them, and operators fuse onto them.
macro_rules! heads {
    ($([$($generics:tt)*] $ty:ty $(where [$($bounds:tt)*])?;)*) => {$(
        impl<$($generics)*> $crate::placed::Rebase for $ty $(where $($bounds)*)? {
            type Alone = Self;
            fn rebase(self, _cut: &mut dyn $crate::graph::Cut) -> Self {
                self
            }
        }
        impl<$($generics)*> $crate::placed::Extend for $ty $(where $($bounds)*)? {
            type Base = Self;
            fn base(self, _cut: &mut dyn $crate::graph::Cut) -> Self {
                self
            }
        }
    )*};
}
pub(crate) use heads;

heads! {
    [T: Record] Records<T>;
}

impl<P: Pipe> Pipe for Placed<P> {
    type Out = P::Out;

    fn open(&mut self, ctx: &mut SegmentContext) -> Result<(), TaskError> {
        self.0.open(ctx)
    }
    #[inline]
    fn process<E: Emit<P::Out>>(
        &mut self,
        input: usize,
        frames: &mut FrameCursor<'_>,
        emit: &mut E,
    ) -> Result<(), TaskError> {
        self.0.process(input, frames, emit)
    }
    fn watermark<E: Emit<P::Out>>(&mut self, watermark: i64, emit: &mut E) -> Result<Progress, TaskError> {
        self.0.watermark(watermark, emit)
    }
    fn idle<E: Emit<P::Out>>(&mut self, idle: bool, emit: &mut E) {
        self.0.idle(idle, emit);
    }
    #[inline]
    fn poll<E: Emit<P::Out>>(&mut self, budget: usize, emit: &mut E) -> Result<SourceStatus, TaskError> {
        self.0.poll(budget, emit)
    }
    fn processing_time<E: Emit<P::Out>>(&mut self, now_ms: i64, emit: &mut E) -> Result<Progress, TaskError> {
        self.0.processing_time(now_ms, emit)
    }
    fn next_deadline_ms(&self) -> Option<i64> {
        self.0.next_deadline_ms()
    }
    fn end_input<E: Emit<P::Out>>(&mut self, input: usize, emit: &mut E) -> Result<Progress, TaskError> {
        self.0.end_input(input, emit)
    }
    fn finish<E: Emit<P::Out>>(&mut self, emit: &mut E) -> Result<Progress, TaskError> {
        self.0.finish(emit)
    }
    fn keyed_states(&mut self, visit: &mut dyn FnMut(KeyedStateRef<'_>)) {
        self.0.keyed_states(visit);
    }
    fn snapshot(&mut self, checkpoint: CheckpointId, state: &mut OperatorStateWriter) -> Result<(), TaskError> {
        self.0.snapshot(checkpoint, state)
    }
    fn checkpoint_complete(&mut self, checkpoint: CheckpointId) -> Result<(), TaskError> {
        self.0.checkpoint_complete(checkpoint)
    }
    fn settle(&mut self) -> Result<(), TaskError> {
        self.0.settle()
    }
    fn checkpoint_aborted(&mut self, checkpoint: CheckpointId) {
        self.0.checkpoint_aborted(checkpoint);
    }
    fn close(&mut self) {
        self.0.close();
    }
    fn report(&mut self, marks: Watermarks) -> u64 {
        self.0.report(marks)
    }
    fn ready(&self) -> bool {
        self.0.ready()
    }
    fn is_source(&self) -> bool {
        self.0.is_source()
    }
}
