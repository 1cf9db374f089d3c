//! Two inputs of different types: `connect`, plain and keyed.

use std::marker::PhantomData;

use thalweg_io::FrameCursor;
use thalweg_model::{CheckpointId, Record};
use thalweg_runtime::{KeyedStateRef, OperatorStateWriter, Progress, SegmentContext, TaskError};

use crate::{
    batch::KeyedBatch,
    checkpoint::{OperatorRestore, OperatorSnapshot},
    graph::Exchange,
    keyed::{KeySelector, KeyedStream},
    keyed_context::{KeyContext, KeyedRuntime, StateContext},
    op_metrics::OpMetrics,
    pipe::{Emit, Pipe, Watermarks, read},
    placed::{Extend, heads},
    process::TimeDomain,
    side::{Collector, SidePorts},
    stream::{Stream, StreamEnd, connect},
};

/// A function over two inputs without keyed state, such as a stream and a broadcast one. Each subtask works on a clone.
pub trait CoProcessFunction<A: Record, B: Record>: Clone + Send + 'static {
    /// What it emits.
    type Out: Record;

    /// Takes a record of the first input.
    fn process1<E: Emit<Self::Out>>(&mut self, value: A::View<'_>, out: &mut Collector<'_, Self::Out, E>);
    /// Takes a record of the second input.
    fn process2<E: Emit<Self::Out>>(&mut self, value: B::View<'_>, out: &mut Collector<'_, Self::Out, E>);
    /// Input 1 or 2 has ended.
    fn end_input<E: Emit<Self::Out>>(&mut self, input: usize, out: &mut Collector<'_, Self::Out, E>) {
        let _ = (input, out);
    }

    /// Takes up what it had handed over in the checkpoint that the job starts from. Called before the first record, where there is one.
    ///
    /// # Errors
    /// Fails the task.
    fn restore(&mut self, restored: &OperatorRestore<'_>) -> Result<(), TaskError> {
        let _ = restored;
        Ok(())
    }

    /// The barrier of a checkpoint: hands over what the function keeps.
    ///
    /// # Errors
    /// Fails the task.
    fn snapshot(&mut self, snapshot: &mut OperatorSnapshot<'_>) -> Result<(), TaskError> {
        let _ = snapshot;
        Ok(())
    }
}

/// A function over two inputs with the same key, with state and timers. Each subtask works on a clone.
pub trait KeyedCoProcessFunction<K: Record, A: Record, B: Record>: Clone + Send + 'static {
    /// What it emits.
    type Out: Record;

    /// Called once before the first record: register state here and keep the handles.
    fn open(&mut self, ctx: &mut StateContext<'_, K>) {
        let _ = ctx;
    }
    /// Takes a record of the first input.
    fn process1<E: Emit<Self::Out>>(
        &mut self,
        value: A::View<'_>,
        ctx: &mut KeyContext<'_, K>,
        out: &mut Collector<'_, Self::Out, E>,
    );
    /// Takes a record of the second input.
    fn process2<E: Emit<Self::Out>>(
        &mut self,
        value: B::View<'_>,
        ctx: &mut KeyContext<'_, K>,
        out: &mut Collector<'_, Self::Out, E>,
    );
    /// A timer of the current key is due.
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

/// Two streams on their way into one operator.
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct ConnectedStreams<A: Record, P: Pipe<Out = A>, B: Record, Q: Pipe<Out = B>> {
    first: Stream<A, P>,
    second: Stream<B, Q>,
}

/// Two keyed streams on their way into one operator.
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct ConnectedKeyedStreams<A, P, S, B, Q, R>
where
    A: Record,
    P: Pipe<Out = A>,
    S: KeySelector<A>,
    B: Record,
    Q: Pipe<Out = B>,
    R: KeySelector<B, Key = S::Key>,
{
    first: KeyedStream<A, P, S>,
    second: KeyedStream<B, Q, R>,
}

impl<A: Record, P: Pipe<Out = A>> Stream<A, P> {
    /// Joins this stream and one of another type into one operator.
    pub fn connect<B: Record, Q: Pipe<Out = B>>(self, second: Stream<B, Q>) -> ConnectedStreams<A, P, B, Q> {
        ConnectedStreams { first: self, second }
    }
}

impl<A: Record, P: Pipe<Out = A>, S: KeySelector<A>> KeyedStream<A, P, S> {
    /// Joins this stream and one of another type, partitioned by the same key, into one operator.
    pub fn connect<B, Q, R>(self, second: KeyedStream<B, Q, R>) -> ConnectedKeyedStreams<A, P, S, B, Q, R>
    where
        B: Record,
        Q: Pipe<Out = B>,
        R: KeySelector<B, Key = S::Key>,
    {
        ConnectedKeyedStreams { first: self, second }
    }
}

/// What a stream's end is joined to: an edge made for a silent segment of this stream is taken over instead, so that
/// `connect(other.broadcast())` broadcasts into the operator itself.
fn join<T: Record, P: Pipe<Out = T>>(stream: Stream<T, P>, to: crate::graph::SegmentId, input: usize) {
    let env = stream.env.clone();
    let end: StreamEnd = stream.end();
    connect::<T>(&env, end, to, input, Exchange::Auto);
}

impl<A: Record, P: Extend<Out = A>, B: Record, Q: Extend<Out = B>> ConnectedStreams<A, P, B, Q> {
    /// Runs a function on the records of both inputs.
    pub fn process<F: CoProcessFunction<A, B>>(self, function: F) -> Stream<F::Out, CoProcess<A, B, F>> {
        let env = self.first.env.clone();
        let timed = self.first.timed && self.second.timed;
        let segment = env.graph.borrow_mut().add(2, Some("Co-Process"));
        let ports = env.graph.borrow().nodes[segment.0].side_ports.clone();
        join(self.first, segment, 0);
        join(self.second, segment, 1);
        Stream { env, segment, pipe: CoProcess::new(function, ports), timed }
    }
}

impl<A, P, S, B, Q, R> ConnectedKeyedStreams<A, P, S, B, Q, R>
where
    A: Record,
    P: Pipe<Out = A>,
    S: KeySelector<A>,
    B: Record,
    Q: Pipe<Out = B>,
    R: KeySelector<B, Key = S::Key>,
{
    /// Runs a function with keyed state and timers on the records of both inputs.
    pub fn process<F>(self, function: F) -> Stream<F::Out, KeyedCoProcess<A, S, B, R, F>>
    where
        F: KeyedCoProcessFunction<S::Key, A, B>,
    {
        let env = self.first.stream.env.clone();
        let segment = env.graph.borrow_mut().add(2, Some("Keyed Co-Process"));
        let ports = env.graph.borrow().nodes[segment.0].side_ports.clone();
        let (first, first_key) = self.first.end();
        let (second, second_key) = self.second.end();
        connect::<A>(&env, first, segment, 0, Exchange::Hash);
        connect::<B>(&env, second, segment, 1, Exchange::Hash);
        let timed = first.timed && second.timed;
        Stream { env, segment, pipe: KeyedCoProcess::new(first_key, second_key, function, ports), timed }
    }
}

/// The operator that runs a [`CoProcessFunction`].
pub struct CoProcess<A, B, F> {
    function: F,
    side_ports: SidePorts,
    ports: Vec<String>,
    seen: u64,
    emitted: u64,
    metrics: OpMetrics,
    types: PhantomData<fn() -> (A, B)>,
}

impl<A, B, F> CoProcess<A, B, F> {
    fn new(function: F, side_ports: SidePorts) -> Self {
        Self {
            function,
            side_ports,
            ports: Vec::new(),
            seen: 0,
            emitted: 0,
            metrics: OpMetrics::new(0),
            types: PhantomData,
        }
    }
}

impl<A, B, F: Clone> Clone for CoProcess<A, B, F> {
    fn clone(&self) -> Self {
        Self::new(self.function.clone(), self.side_ports.clone())
    }
}

heads! {
    [A: Record, B: Record, F: CoProcessFunction<A, B>] CoProcess<A, B, F>;
    [A: Record, S: KeySelector<A>, B: Record, R: KeySelector<B, Key = S::Key>, F: KeyedCoProcessFunction<S::Key, A, B>]
        KeyedCoProcess<A, S, B, R, F>;
}

impl<A: Record, B: Record, F: CoProcessFunction<A, B>> Pipe for CoProcess<A, B, F> {
    type Out = F::Out;

    fn open(&mut self, ctx: &mut SegmentContext) -> Result<(), TaskError> {
        self.metrics.open(ctx);
        self.ports = self.side_ports.names();
        match OperatorRestore::of(ctx, 0) {
            Some(restored) => self.function.restore(&restored),
            None => Ok(()),
        }
    }

    fn snapshot(&mut self, checkpoint: CheckpointId, state: &mut OperatorStateWriter) -> Result<(), TaskError> {
        self.function.snapshot(&mut OperatorSnapshot::new(state, 0, checkpoint))
    }

    fn process<E: Emit<F::Out>>(
        &mut self,
        input: usize,
        frames: &mut FrameCursor<'_>,
        emit: &mut E,
    ) -> Result<(), TaskError> {
        while emit.room() {
            if input == 0 {
                let Some(frame) = frames.next::<A>() else { break };
                let elem = read::<A>(&frame);
                let mut out = Collector::new(emit, elem.timestamp, &self.ports, &mut self.emitted);
                self.function.process1(elem.view, &mut out);
            } else {
                let Some(frame) = frames.next::<B>() else { break };
                let elem = read::<B>(&frame);
                let mut out = Collector::new(emit, elem.timestamp, &self.ports, &mut self.emitted);
                self.function.process2(elem.view, &mut out);
            }
            self.seen += 1;
        }
        Ok(())
    }

    fn watermark<E: Emit<F::Out>>(&mut self, watermark: i64, emit: &mut E) -> Result<Progress, TaskError> {
        emit.watermark(watermark);
        Ok(Progress::Done)
    }

    fn end_input<E: Emit<F::Out>>(&mut self, input: usize, emit: &mut E) -> Result<Progress, TaskError> {
        let mut out = Collector::new(emit, thalweg_model::time::MIN_WATERMARK, &self.ports, &mut self.emitted);
        self.function.end_input(input + 1, &mut out);
        Ok(Progress::Done)
    }

    fn report(&mut self, marks: Watermarks) -> u64 {
        self.metrics.records(self.seen, self.emitted);
        self.metrics.watermarks(marks);
        self.emitted
    }
}

/// The operator that runs a [`KeyedCoProcessFunction`].
pub struct KeyedCoProcess<A: Record, S: KeySelector<A>, B: Record, R, F> {
    first: S,
    second: R,
    function: F,
    keyed: KeyedRuntime<S::Key>,
    seen: u64,
    emitted: u64,
    metrics: OpMetrics,
    types: PhantomData<fn() -> (A, B)>,
}

impl<A: Record, S: KeySelector<A>, B: Record, R, F> KeyedCoProcess<A, S, B, R, F> {
    fn new(first: S, second: R, function: F, ports: SidePorts) -> Self {
        let keyed = KeyedRuntime::new(ports);
        Self { first, second, function, keyed, seen: 0, emitted: 0, metrics: OpMetrics::new(0), types: PhantomData }
    }
}

impl<A: Record, S: KeySelector<A>, B: Record, R: Clone, F: Clone> Clone for KeyedCoProcess<A, S, B, R, F> {
    fn clone(&self) -> Self {
        let fresh = Self::new(self.first.clone(), self.second.clone(), self.function.clone(), SidePorts::default());
        Self { keyed: self.keyed.fresh(), ..fresh }
    }
}

impl<A, S, B, R, F> Pipe for KeyedCoProcess<A, S, B, R, F>
where
    A: Record,
    S: KeySelector<A>,
    B: Record,
    R: KeySelector<B, Key = S::Key>,
    F: KeyedCoProcessFunction<S::Key, A, B>,
{
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
        input: usize,
        frames: &mut FrameCursor<'_>,
        emit: &mut E,
    ) -> Result<(), TaskError> {
        let Self { first, second, function, keyed, seen, emitted, .. } = self;
        keyed.refresh_clock();
        let mut batch = KeyedBatch::new();
        while batch.fill(frames, |hash| keyed.prefetch(hash)) {
            if input == 0 {
                while let Some((elem, hash)) = batch.next::<A, _, _>(frames, emit) {
                    *seen += 1;
                    first.with_key(elem.view, |key| {
                        let (mut ctx, ports) = keyed.context(key, hash, elem.timestamp);
                        let mut out = Collector::new(emit, elem.timestamp, ports, emitted);
                        function.process1(elem.view, &mut ctx, &mut out);
                    });
                }
            } else {
                while let Some((elem, hash)) = batch.next::<B, _, _>(frames, emit) {
                    *seen += 1;
                    second.with_key(elem.view, |key| {
                        let (mut ctx, ports) = keyed.context(key, hash, elem.timestamp);
                        let mut out = Collector::new(emit, elem.timestamp, ports, emitted);
                        function.process2(elem.view, &mut ctx, &mut out);
                    });
                }
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
