//! `KeyedProcessFunction`: user code with keyed state and timers.

use std::marker::PhantomData;

use thalweg_io::FrameCursor;
use thalweg_model::{CheckpointId, KeyHash, Record, time::MIN_WATERMARK};
use thalweg_runtime::{KeyedStateRef, OperatorStateWriter, Progress, SegmentContext, TaskError};

use crate::{
    batch::KeyedBatch,
    checkpoint::{OperatorRestore, OperatorSnapshot},
    keyed::KeySelector,
    keyed_context::{KeyContext, KeyedRuntime, StateContext},
    op_metrics::OpMetrics,
    pipe::{Emit, Pipe, Watermarks},
    placed::heads,
    side::{Collector, SidePorts},
};

/// Which clock a timer follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeDomain {
    /// Watermarks.
    EventTime,
    /// The wall clock.
    ProcessingTime,
}

/// A function over the records of one key, with state and timers. Semantics as Flink's `KeyedProcessFunction`.
///
/// Each subtask works on a clone. A panic or error fails the task.
pub trait KeyedProcessFunction<K: Record, I: Record>: Clone + Send + 'static {
    /// What it emits.
    type Out: Record;

    /// Called once before the first record: register state here and keep the handles.
    fn open(&mut self, ctx: &mut StateContext<'_, K>) {
        let _ = ctx;
    }

    /// Takes one record of the current key.
    fn process<E: Emit<Self::Out>>(
        &mut self,
        value: I::View<'_>,
        ctx: &mut KeyContext<'_, K>,
        out: &mut Collector<'_, Self::Out, E>,
    );

    /// A timer of the current key is due. `timestamp` is the one it was registered for; emitted records carry it.
    fn on_timer<E: Emit<Self::Out>>(
        &mut self,
        timestamp: i64,
        domain: TimeDomain,
        ctx: &mut KeyContext<'_, K>,
        out: &mut Collector<'_, Self::Out, E>,
    ) {
        let _ = (timestamp, domain, ctx, out);
    }

    /// Takes up what it had handed over in the checkpoint that the job starts from. Called after `open`, where there is one.
    /// Keyed state comes back by itself.
    ///
    /// # Errors
    /// Fails the task.
    fn restore(&mut self, restored: &OperatorRestore<'_>) -> Result<(), TaskError> {
        let _ = restored;
        Ok(())
    }

    /// The barrier of a checkpoint: hands over what the function itself keeps besides keyed state.
    ///
    /// # Errors
    /// Fails the task.
    fn snapshot(&mut self, snapshot: &mut OperatorSnapshot<'_>) -> Result<(), TaskError> {
        let _ = snapshot;
        Ok(())
    }
}

/// The operator that runs a [`KeyedProcessFunction`].
pub struct KeyedProcess<I: Record, S: KeySelector<I>, F> {
    selector: S,
    function: F,
    keyed: KeyedRuntime<S::Key>,
    seen: u64,
    emitted: u64,
    metrics: OpMetrics,
    types: PhantomData<fn() -> I>,
}

impl<I: Record, S: KeySelector<I>, F> KeyedProcess<I, S, F> {
    pub(crate) fn new(selector: S, function: F, ports: SidePorts) -> Self {
        Self {
            selector,
            function,
            keyed: KeyedRuntime::new(ports),
            seen: 0,
            emitted: 0,
            metrics: OpMetrics::new(0),
            types: PhantomData,
        }
    }
}

impl<I: Record, S: KeySelector<I>, F: Clone> Clone for KeyedProcess<I, S, F> {
    fn clone(&self) -> Self {
        Self {
            keyed: self.keyed.fresh(),
            ..Self::new(self.selector.clone(), self.function.clone(), SidePorts::default())
        }
    }
}

heads! {
    [I: Record, S: KeySelector<I>, F: KeyedProcessFunction<S::Key, I>] KeyedProcess<I, S, F>;
}

impl<I: Record, S: KeySelector<I>, F: KeyedProcessFunction<S::Key, I>> Pipe for KeyedProcess<I, S, F> {
    type Out = F::Out;

    fn open(&mut self, ctx: &mut SegmentContext) -> Result<(), TaskError> {
        self.metrics.open(ctx);
        let Self { keyed, function, .. } = self;
        keyed.open(ctx, |states| function.open(states))?;
        match OperatorRestore::of(ctx, 0) {
            Some(restored) => self.function.restore(&restored),
            None => Ok(()),
        }
    }

    fn process<E: Emit<F::Out>>(
        &mut self,
        _input: usize,
        frames: &mut FrameCursor<'_>,
        emit: &mut E,
    ) -> Result<(), TaskError> {
        let Self { selector, function, keyed, seen, emitted, .. } = self;
        keyed.refresh_clock();
        let mut batch = KeyedBatch::new();
        while batch.fill(frames, |hash: KeyHash| keyed.prefetch(hash)) {
            while let Some((elem, hash)) = batch.next::<I, _, _>(frames, emit) {
                *seen += 1;
                selector.with_key(elem.view, |key| {
                    let (mut ctx, ports) = keyed.context(key, hash, elem.timestamp);
                    let mut out = Collector::new(emit, elem.timestamp, ports, emitted);
                    function.process(elem.view, &mut ctx, &mut out);
                });
            }
            if !emit.room() {
                break;
            }
        }
        Ok(())
    }

    fn watermark<E: Emit<F::Out>>(&mut self, watermark: i64, emit: &mut E) -> Result<Progress, TaskError> {
        let Self { function, keyed, emitted, .. } = self;
        Ok(keyed.watermark(watermark, emit, emitted, |at, domain, ctx, out| function.on_timer(at, domain, ctx, out)))
    }

    fn processing_time<E: Emit<F::Out>>(&mut self, now_ms: i64, emit: &mut E) -> Result<Progress, TaskError> {
        let Self { function, keyed, emitted, .. } = self;
        Ok(keyed.processing_time(now_ms, emit, emitted, |at, domain, ctx, out| function.on_timer(at, domain, ctx, out)))
    }

    fn next_deadline_ms(&self) -> Option<i64> {
        self.keyed.next_deadline_ms()
    }

    fn keyed_states(&mut self, visit: &mut dyn FnMut(KeyedStateRef<'_>)) {
        self.keyed.visit(visit);
    }

    fn snapshot(&mut self, checkpoint: CheckpointId, state: &mut OperatorStateWriter) -> Result<(), TaskError> {
        self.function.snapshot(&mut OperatorSnapshot::new(state, 0, checkpoint))
    }

    fn report(&mut self, marks: Watermarks) -> u64 {
        self.metrics.records(self.seen, self.emitted);
        self.metrics.watermarks(marks);
        self.emitted
    }
}

/// The timestamp of a record that has none, seen from user code: nothing.
pub(crate) fn known(timestamp: i64) -> Option<i64> {
    (timestamp != MIN_WATERMARK).then_some(timestamp)
}
