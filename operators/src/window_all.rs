//! Windows over all records, regardless of a key: merged locally in each subtask, then by one subtask for all.
//!
//! What a combiner can merge is not shuffled: a subtask sends one accumulator per slice, however many records it saw.

use std::{collections::BTreeMap, marker::PhantomData};

use thalweg_io::FrameCursor;
use thalweg_model::{CheckpointId, Elem, Record, time::MIN_WATERMARK};
use thalweg_runtime::{OperatorStateWriter, Progress, SegmentContext, TaskError};

use crate::{
    aggregate::AggregateFunction,
    checkpoint::{OperatorRestore, OperatorSnapshot},
    fuse::{Fused, Step},
    graph::Exchange,
    late::LateRecords,
    op_metrics::OpMetrics,
    pipe::{Emit, Pipe, Watermarks, read},
    placed::{Extend, heads},
    stream::{Stream, connect},
    window::{TimeWindow, WindowAssigner, WindowConfig, Windows},
    window_slices::{Place, SliceContents, SlicedWindows},
};

/// A stream cut into windows over all its records.
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct AllWindowedStream<T: Record, P: Pipe<Out = T>, W: WindowAssigner> {
    pub(crate) stream: Stream<T, P>,
    pub(crate) assigner: W,
}

impl<T: Record, P: Extend<Out = T>, W: WindowAssigner> AllWindowedStream<T, P, W> {
    /// Aggregates incrementally; when a window fires, `result` makes a record of it.
    ///
    /// # Panics
    /// Where the stream has no timestamps.
    pub fn aggregate<A, O, F>(self, aggregate: A, result: F) -> Stream<O, GlobalWindows<T, A, F, O>>
    where
        A: AggregateFunction<T>,
        O: Record,
        F: FnMut(TimeWindow, A::Out) -> O + Clone + Send + 'static,
    {
        assert!(
            self.stream.timed,
            "event-time windows need timestamps: call assign_timestamps_and_watermarks before window_all"
        );
        let windows = self.assigner.windows();
        let env = self.stream.env.clone();
        let local: Stream<(i64, A::Acc), Fused<P::Base, LocalWindows<T, A>>> =
            self.stream.fuse("LocalWindow", LocalWindows::new(aggregate.clone(), windows));
        let end = local.end();
        let segment = env.graph.borrow_mut().add(1, Some("GlobalWindow"));
        env.graph.borrow_mut().nodes[segment.0].sequential = true;
        connect::<(i64, A::Acc)>(&env, end, segment, 0, Exchange::Global);
        Stream { env, segment, pipe: GlobalWindows::new(aggregate, result, windows), timed: true }
    }
}

/// Name of the state of both halves: the begin of a slice, and its accumulator.
const SLICES_NAME: &str = "window-contents";
/// Name of the begin of the next window to fire.
const NEXT_NAME: &str = "next-window";
/// Name of the watermark up to which windows have fired, or slices been sent.
const FIRED_NAME: &str = "fired-windows";

/// The watermark up to which all subtasks of either half had come. What had come further is on time again for a subtask of
/// the first half where the others had not; the second half, which the least of them holds back, has fired none of it.
fn restored_watermark(restored: &OperatorRestore<'_>) -> Result<i64, TaskError> {
    Ok(restored.positions::<i64>(FIRED_NAME)?.into_iter().min().unwrap_or(MIN_WATERMARK))
}

/// The slices that either half had in a checkpoint, this subtask's share of them.
fn restored_slices<T: Record, A: AggregateFunction<T>>(
    aggregate: &A,
    restored: &OperatorRestore<'_>,
) -> Result<Vec<(i64, A::Acc)>, TaskError> {
    let migration = aggregate.migration().map(|migration| migration.beside_time());
    restored.list_as(SLICES_NAME, migration.as_ref())
}

/// What a slice of the first half keeps.
struct Accumulated<A>(A);

impl<A> SliceContents for Accumulated<A> {}

/// The first half: one accumulator per slice and subtask, sent when the watermark passes the slice.
pub struct LocalWindows<T, A: AggregateFunction<T>>
where
    T: Record,
{
    aggregate: A,
    windows: SlicedWindows<Accumulated<A::Acc>>,
    emitted: u64,
    late: LateRecords,
    /// The timestamp of a record whose windows do not fit into time.
    unfit: Option<i64>,
}

impl<T: Record, A: AggregateFunction<T>> LocalWindows<T, A> {
    fn new(aggregate: A, windows: Windows) -> Self {
        let config = WindowConfig { windows, lateness_ms: 0, late_port: None };
        let windows = SlicedWindows::new(config);
        Self { aggregate, windows, emitted: 0, late: LateRecords::default(), unfit: None }
    }
}

impl<T: Record, A: AggregateFunction<T>> LocalWindows<T, A> {
    /// Sends the slices that end by then. More may come for one afterwards: the second half merges it.
    fn send<E: Emit<(i64, A::Acc)>>(&mut self, up_to_ms: i64, emit: &mut E) {
        let slice_ms = self.windows.config.windows.slice_ms();
        while let Some(slice) = self.windows.slices.first() {
            let last_ms = slice.start_ms.saturating_add(slice_ms - 1);
            if last_ms > up_to_ms {
                break;
            }
            self.emitted += 1;
            emit.emit(Elem::new((slice.start_ms, slice.table.0.view()), last_ms));
            self.windows.forget_first(|_| ());
        }
    }
}

impl<T: Record, A: AggregateFunction<T>> Clone for LocalWindows<T, A> {
    fn clone(&self) -> Self {
        Self::new(self.aggregate.clone(), self.windows.config.windows)
    }
}

impl<T: Record, A: AggregateFunction<T>> Step<T> for LocalWindows<T, A> {
    type Out = (i64, A::Acc);

    fn open(&mut self, ctx: &mut SegmentContext, metrics: &OpMetrics) {
        let _ = ctx;
        self.late.open(metrics);
    }

    #[inline(always)]
    fn step<E: Emit<Self::Out>>(&mut self, elem: Elem<'_, T>, emit: &mut E) {
        let Self { aggregate, windows, .. } = self;
        match windows.place(elem.timestamp, |_, _| Accumulated(aggregate.create())) {
            Place::OnTime(index) | Place::Refire(index) => aggregate.add(&mut windows.slices[index].table.0, elem.view),
            Place::Late => self.late.take::<T, Self::Out, E>(elem, None, emit),
            Place::Nowhere => {}
            Place::Unfit => self.unfit = Some(elem.timestamp),
        }
    }

    fn emitted(&self, _taken: u64) -> u64 {
        self.emitted
    }

    fn take_error(&mut self) -> Option<TaskError> {
        self.unfit.take().map(|timestamp| TaskError::new("", self.windows.config.windows.unfit(timestamp)))
    }

    fn watermark<E: Emit<Self::Out>>(&mut self, watermark: i64, emit: &mut E) {
        self.send(watermark, emit);
        self.windows.advance(watermark);
        emit.watermark(watermark);
    }

    fn idle<E: Emit<Self::Out>>(&mut self, idle: bool, emit: &mut E) {
        // The other subtasks no longer wait for this one: windows fire without what it still has.
        if idle {
            self.send(i64::MAX, emit);
        }
        emit.idle(idle);
    }

    fn restore(&mut self, restored: &OperatorRestore<'_>) -> Result<(), TaskError> {
        self.windows.watermark = restored_watermark(restored)?;
        for (start_ms, acc) in restored_slices(&self.aggregate, restored)? {
            let Self { aggregate, windows, .. } = self;
            match windows.slices.binary_search_by_key(&start_ms, |slice| slice.start_ms) {
                Ok(at) => aggregate.merge(&mut windows.slices[at].table.0, &acc),
                Err(_) => windows.restore(start_ms, Accumulated(acc)),
            }
        }
        Ok(())
    }

    fn snapshot(&mut self, snapshot: &mut OperatorSnapshot<'_>) -> Result<(), TaskError> {
        let slices = self.windows.slices.iter();
        snapshot.list(SLICES_NAME, slices.map(|slice| (slice.start_ms, A::Acc::from_view(slice.table.0.view()))));
        snapshot.positions(FIRED_NAME, [self.windows.watermark]);
        Ok(())
    }

    fn report(&mut self) {
        self.late.report();
    }
}

/// The second half: merges the subtasks' slices and fires the windows.
pub struct GlobalWindows<T, A: AggregateFunction<T>, F, O>
where
    T: Record,
{
    aggregate: A,
    result: F,
    windows: Windows,
    slices: BTreeMap<i64, A::Acc>,
    next: Option<TimeWindow>,
    /// Up to where windows have fired.
    watermark: i64,
    seen: u64,
    emitted: u64,
    /// Slices of one subtask each: how many records are in one, nobody has counted.
    late: LateRecords,
    metrics: OpMetrics,
    types: PhantomData<fn() -> O>,
}

impl<T: Record, A: AggregateFunction<T>, F, O> GlobalWindows<T, A, F, O> {
    fn new(aggregate: A, result: F, windows: Windows) -> Self {
        Self {
            aggregate,
            result,
            windows,
            slices: BTreeMap::new(),
            next: None,
            watermark: MIN_WATERMARK,
            seen: 0,
            emitted: 0,
            late: LateRecords::default(),
            metrics: OpMetrics::new(0),
            types: PhantomData,
        }
    }

    /// The first window, from `from` on, that has a slice.
    fn next_from(&self, from: i64) -> Option<TimeWindow> {
        let (&slice, _) = self.slices.range(from..).next()?;
        Some(self.windows.window_at(self.windows.first_window(slice).start_ms.max(from)))
    }
}

impl<T: Record, A: AggregateFunction<T>, F: Clone, O> Clone for GlobalWindows<T, A, F, O> {
    fn clone(&self) -> Self {
        Self::new(self.aggregate.clone(), self.result.clone(), self.windows)
    }
}

heads! {
    [T: Record, A: AggregateFunction<T>, F, O: Record] GlobalWindows<T, A, F, O>
    where [F: FnMut(TimeWindow, A::Out) -> O + Clone + Send + 'static];
}

impl<T, A, F, O> Pipe for GlobalWindows<T, A, F, O>
where
    T: Record,
    A: AggregateFunction<T>,
    O: Record,
    F: FnMut(TimeWindow, A::Out) -> O + Clone + Send + 'static,
{
    type Out = O;

    fn open(&mut self, ctx: &mut SegmentContext) -> Result<(), TaskError> {
        self.metrics.open(ctx);
        self.late.open(&self.metrics);
        if let Some(restored) = OperatorRestore::of(ctx, 0) {
            self.slices.extend(restored_slices(&self.aggregate, &restored)?);
            let next = restored.list::<i64>(NEXT_NAME)?;
            self.next = next.first().map(|&start_ms| self.windows.window_at(start_ms));
            self.watermark = restored_watermark(&restored)?;
        }
        Ok(())
    }

    fn snapshot(&mut self, checkpoint: CheckpointId, state: &mut OperatorStateWriter) -> Result<(), TaskError> {
        let mut snapshot = OperatorSnapshot::new(state, 0, checkpoint);
        snapshot
            .list(SLICES_NAME, self.slices.iter().map(|(&start_ms, acc)| (start_ms, A::Acc::from_view(acc.view()))));
        snapshot.list(NEXT_NAME, self.next.map(|window| window.start_ms));
        snapshot.positions(FIRED_NAME, [self.watermark]);
        Ok(())
    }

    fn process<E: Emit<O>>(
        &mut self,
        _input: usize,
        frames: &mut FrameCursor<'_>,
        emit: &mut E,
    ) -> Result<(), TaskError> {
        while emit.room() {
            let Some(frame) = frames.next::<(i64, A::Acc)>() else { break };
            let (slice, acc) = read::<(i64, A::Acc)>(&frame).view;
            self.seen += 1;
            // A slice may come in parts: its windows that have fired do not fire again.
            let Some(window) = self.windows.first_open(slice, self.watermark) else {
                self.late.drop_one();
                continue;
            };
            let acc = A::Acc::from_view(acc);
            let merged = self.slices.entry(slice).or_insert_with(|| self.aggregate.create());
            self.aggregate.merge(merged, &acc);
            if self.next.is_none_or(|next| window < next) {
                self.next = Some(window);
            }
        }
        Ok(())
    }

    fn watermark<E: Emit<O>>(&mut self, watermark: i64, emit: &mut E) -> Result<Progress, TaskError> {
        while let Some(window) = self.next.filter(|window| window.max_timestamp() <= watermark) {
            if !emit.room() {
                return Ok(Progress::Blocked);
            }
            let mut slices = self.slices.range(window.start_ms..window.end_ms).map(|(_, acc)| acc).peekable();
            if slices.peek().is_some() {
                let mut merged = self.aggregate.create();
                slices.for_each(|acc| self.aggregate.merge(&mut merged, acc));
                let value = (self.result)(window, self.aggregate.result(&merged));
                self.emitted += 1;
                emit.emit(Elem::new(value.view(), window.max_timestamp()));
            }
            let after = window.start_ms.saturating_add(self.windows.slide_ms);
            self.slices = self.slices.split_off(&after);
            self.next = self.next_from(after);
        }
        self.watermark = self.watermark.max(watermark);
        emit.watermark(watermark);
        Ok(Progress::Done)
    }

    fn report(&mut self, marks: Watermarks) -> u64 {
        self.metrics.records(self.seen, self.emitted);
        self.metrics.watermarks(marks);
        self.late.report();
        self.emitted
    }
}
