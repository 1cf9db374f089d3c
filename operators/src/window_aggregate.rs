//! The window operator that keeps one accumulator per key and slice.

use std::marker::PhantomData;

use thalweg_io::FrameCursor;
use thalweg_model::{CheckpointId, Elem, KeyHash, Record};
use thalweg_runtime::{KeyedStateRef, OperatorStateWriter, Progress, SegmentContext, TaskError};
use thalweg_state::{Cursor, RowTable, TableConfig};

use crate::{
    aggregate::AggregateFunction,
    batch::KeyedBatch,
    checkpoint::OperatorSnapshot,
    keyed::KeySelector,
    late::LateRecords,
    op_metrics::OpMetrics,
    pipe::{Emit, Pipe, Watermarks},
    placed::heads,
    window::{TimeWindow, WindowConfig},
    window_slices::Place,
    window_state::KeyedWindows,
};

/// Rows that a firing window merges, retracts or emits before it lets the slot do something else: some 20 µs of work.
const ROWS_PER_TURN: usize = 1024;

/// Windows with incremental aggregation.
///
/// Where the aggregate is invertible and windows overlap, a running table holds the window as it slides: each slice is
/// merged into it once and retracted once. Otherwise the slices of a window are combined key by key as it fires.
pub struct WindowAggregate<T: Record, S: KeySelector<T>, A: AggregateFunction<T>, F, O> {
    selector: S,
    aggregate: A,
    result: F,
    config: WindowConfig,
    open: Option<Open<S::Key, A::Acc>>,
    late: LateRecords,
    /// The timestamp of a record whose windows do not fit into time.
    unfit: Option<i64>,
    seen: u64,
    emitted: u64,
    metrics: OpMetrics,
    types: PhantomData<fn() -> (T, O)>,
}

struct Open<K: Record, Acc: Record> {
    windows: KeyedWindows<RowTable<K, Acc>>,
    running: Option<Running<K, Acc>>,
    firing: Option<Firing>,
}

/// The combination of the slices in `[from_ms, to_ms)`: per key how many of them know it, and their merged accumulator.
struct Running<K: Record, Acc: Record> {
    table: RowTable<K, (u32, Acc)>,
    from_ms: i64,
    to_ms: i64,
    /// Where the slice at hand has been merged or retracted up to.
    cursor: Cursor,
}

/// A window that is being emitted.
struct Firing {
    window: TimeWindow,
    cursor: Cursor,
    /// Offset of the slice at hand in the window's slices.
    slice: usize,
    prepared: bool,
}

impl<T: Record, S: KeySelector<T>, A: AggregateFunction<T>, F, O> WindowAggregate<T, S, A, F, O> {
    pub(crate) fn new(selector: S, aggregate: A, result: F, config: WindowConfig) -> Self {
        Self {
            selector,
            aggregate,
            result,
            config,
            open: None,
            late: LateRecords::default(),
            unfit: None,
            seen: 0,
            emitted: 0,
            metrics: OpMetrics::new(0),
            types: PhantomData,
        }
    }
}

impl<T: Record, S: KeySelector<T>, A: AggregateFunction<T>, F: Clone, O> Clone for WindowAggregate<T, S, A, F, O> {
    fn clone(&self) -> Self {
        Self::new(self.selector.clone(), self.aggregate.clone(), self.result.clone(), self.config)
    }
}

heads! {
    [T: Record, S: KeySelector<T>, A: AggregateFunction<T>, F, O: Record] WindowAggregate<T, S, A, F, O>
    where [F: for<'k> FnMut(<S::Key as Record>::View<'k>, TimeWindow, A::Out) -> O + Clone + Send + 'static];
}

impl<K: Record, Acc: Record> Running<K, Acc> {
    /// Takes rows of a slice in (or out, if `sign` is negative); answers whether all of it is through.
    fn apply<T: Record, A: AggregateFunction<T, Acc = Acc>>(
        &mut self,
        aggregate: &A,
        slice: &RowTable<K, Acc>,
        out: bool,
        rows: &mut usize,
    ) -> bool {
        while *rows > 0 {
            let Some((key, acc, hash)) = slice.next(&mut self.cursor) else {
                self.cursor = Cursor::default();
                return true;
            };
            *rows -= 1;
            let acc = Acc::from_view(acc);
            if out {
                let left = self.table.modify_or_insert_with(
                    hash,
                    key,
                    || (1, acc_create::<T, A>(aggregate)),
                    |row| {
                        row.0 -= 1;
                        aggregate.retract(&mut row.1, &acc);
                        row.0
                    },
                );
                if left == 0 {
                    self.table.remove(hash, key);
                }
            } else {
                self.table.modify_or_insert(
                    hash,
                    key,
                    || (0, acc_create::<T, A>(aggregate)),
                    |row| {
                        row.0 += 1;
                        aggregate.merge(&mut row.1, &acc);
                    },
                );
            }
        }
        false
    }
}

fn acc_create<T: Record, A: AggregateFunction<T>>(aggregate: &A) -> A::Acc {
    aggregate.create()
}

impl<T, S, A, F, O> WindowAggregate<T, S, A, F, O>
where
    T: Record,
    S: KeySelector<T>,
    A: AggregateFunction<T>,
    O: Record,
    F: for<'k> FnMut(<S::Key as Record>::View<'k>, TimeWindow, A::Out) -> O + Clone + Send + 'static,
{
    fn opened(open: &mut Option<Open<S::Key, A::Acc>>) -> &mut Open<S::Key, A::Acc> {
        match open {
            Some(open) => open,
            None => unreachable!("the runtime opens a segment before it uses it"),
        }
    }

    #[inline(always)]
    fn add<E: Emit<O>>(&mut self, elem: Elem<'_, T>, hash: KeyHash, emit: &mut E) {
        let Self { selector, aggregate, result, open, late, emitted, .. } = self;
        let Open { windows, running, .. } = Self::opened(open);
        let place = windows.place_keyed(elem.timestamp, hash);
        let (Place::OnTime(index) | Place::Refire(index)) = place else {
            match place {
                Place::Late => late.take(elem, windows.config.late_port, emit),
                Place::Unfit => self.unfit = Some(elem.timestamp),
                _ => {}
            }
            return;
        };
        selector.with_key(elem.view, |key| {
            let mut is_new = false;
            windows.slices[index].table.table.modify_or_insert(
                hash,
                key,
                || {
                    is_new = true;
                    aggregate.create()
                },
                |acc| aggregate.add(acc, elem.view),
            );
            if let Some(running) = running.as_mut().filter(|running| running.holds(windows.slices[index].start_ms)) {
                running.table.modify_or_insert(
                    hash,
                    key,
                    || (0, aggregate.create()),
                    |row| {
                        row.0 += u32::from(is_new);
                        aggregate.add(&mut row.1, elem.view);
                    },
                );
            }
            if matches!(place, Place::Refire(_)) {
                for window in windows.refiring_keyed(elem.timestamp, hash) {
                    let mut merged = aggregate.create();
                    for slice in windows.slices_of(window) {
                        if let Some(acc) = windows.slices[slice].table.table.get(hash, key) {
                            aggregate.merge(&mut merged, &A::Acc::from_view(acc));
                        }
                    }
                    *emitted += 1;
                    let value = result(key, window, aggregate.result(&merged));
                    emit.emit(Elem::new(value.view(), window.max_timestamp()));
                }
            }
        });
    }

    /// Brings the running table to a window: what has slid out is retracted, what has slid in is merged.
    fn slide_to(&mut self, window: TimeWindow, rows: &mut usize) -> bool {
        let Self { aggregate, open, .. } = self;
        let Open { windows, running, .. } = Self::opened(open);
        let Some(running) = running else { return true };
        let slice_ms = windows.config.windows.slice_ms();
        while running.from_ms < window.start_ms && running.from_ms < running.to_ms {
            let next = windows.slices.partition_point(|slice| slice.start_ms < running.from_ms);
            match windows.slices.get(next).filter(|slice| slice.start_ms < window.start_ms.min(running.to_ms)) {
                Some(slice) => {
                    if !running.apply::<T, A>(aggregate, &slice.table.table, true, rows) {
                        return false;
                    }
                    running.from_ms = slice.start_ms + slice_ms;
                }
                None => running.from_ms = window.start_ms.min(running.to_ms),
            }
        }
        // Empty; but not at the window's start, where the first slice may be half merged.
        if running.from_ms >= running.to_ms && running.from_ms != window.start_ms {
            running.table.reset();
            (running.from_ms, running.to_ms) = (window.start_ms, window.start_ms);
        }
        while running.to_ms < window.end_ms {
            let next = windows.slices.partition_point(|slice| slice.start_ms < running.to_ms);
            match windows.slices.get(next).filter(|slice| slice.start_ms < window.end_ms) {
                Some(slice) => {
                    if !running.apply::<T, A>(aggregate, &slice.table.table, false, rows) {
                        return false;
                    }
                    running.to_ms = slice.start_ms + slice_ms;
                }
                None => running.to_ms = window.end_ms,
            }
        }
        true
    }

    /// Emits rows of the firing window; answers whether it is through.
    fn emit_window<E: Emit<O>>(&mut self, firing: &mut Firing, rows: &mut usize, emit: &mut E) -> bool {
        let Self { aggregate, result, open, emitted, .. } = self;
        let Open { windows, running, .. } = Self::opened(open);
        let window = firing.window;
        let mut put = |key: <S::Key as Record>::View<'_>, acc: &A::Acc, emit: &mut E| {
            *emitted += 1;
            let value = result(key, window, aggregate.result(acc));
            emit.emit(Elem::new(value.view(), window.max_timestamp()));
        };
        if let Some(running) = running {
            while *rows > 0 && emit.room() {
                let Some((key, row, hash)) = running.table.next(&mut firing.cursor) else { return true };
                *rows -= 1;
                if windows.has_fired(window, hash) {
                    continue;
                }
                let row = <(u32, A::Acc)>::from_view(row);
                put(key, &row.1, emit);
            }
            return false;
        }
        let slices = windows.slices_of(window);
        let drains = slices.len() == 1
            && windows.config.windows.slice_ms() == windows.config.windows.slide_ms
            && windows.config.windows.size_ms == windows.config.windows.slide_ms
            && windows.config.lateness_ms == 0;
        while firing.slice < slices.len() {
            let at = slices.start + firing.slice;
            while *rows > 0 && emit.room() {
                if drains {
                    let Some((key, acc, _)) = windows.slices[at].table.table.drain_next(&mut firing.cursor) else {
                        return true;
                    };
                    *rows -= 1;
                    put(key, &A::Acc::from_view(acc), emit);
                    continue;
                }
                let Some((key, acc, hash)) = windows.slices[at].table.table.next(&mut firing.cursor) else {
                    firing.slice += 1;
                    firing.cursor = Cursor::default();
                    break;
                };
                *rows -= 1;
                if windows.has_fired(window, hash)
                    || windows.slices[slices.start..at].iter().any(|earlier| earlier.table.table.contains(hash, key))
                {
                    continue;
                }
                let mut merged = A::Acc::from_view(acc);
                for later in &windows.slices[at + 1..slices.end] {
                    if let Some(acc) = later.table.table.get(hash, key) {
                        aggregate.merge(&mut merged, &A::Acc::from_view(acc));
                    }
                }
                put(key, &merged, emit);
            }
            if *rows == 0 || !emit.room() {
                return false;
            }
        }
        true
    }

    /// Forgets the slices that no kept window needs; answers whether all are gone.
    fn clean_up(&mut self, watermark: i64, rows: &mut usize) -> bool {
        while Self::opened(&mut self.open).windows.first_has_expired(watermark) {
            let Self { aggregate, open, .. } = self;
            let Open { windows, running, .. } = Self::opened(open);
            let slice = &windows.slices[0];
            if let Some(running) = running.as_mut().filter(|running| running.holds(slice.start_ms)) {
                if !running.apply::<T, A>(aggregate, &slice.table.table, true, rows) {
                    return false;
                }
                running.from_ms = slice.start_ms + windows.config.windows.slice_ms();
            }
            windows.forget_first(|slice| slice.table.reset());
        }
        true
    }
}

impl<K: Record, Acc: Record> Running<K, Acc> {
    fn holds(&self, slice_start_ms: i64) -> bool {
        self.from_ms <= slice_start_ms && slice_start_ms < self.to_ms
    }
}

impl<T, S, A, F, O> Pipe for WindowAggregate<T, S, A, F, O>
where
    T: Record,
    S: KeySelector<T>,
    A: AggregateFunction<T>,
    O: Record,
    F: for<'k> FnMut(<S::Key as Record>::View<'k>, TimeWindow, A::Out) -> O + Clone + Send + 'static,
{
    type Out = O;

    fn open(&mut self, ctx: &mut SegmentContext) -> Result<(), TaskError> {
        self.metrics.open(ctx);
        self.late.open(&self.metrics);
        let windows = KeyedWindows::open(ctx, self.config, self.aggregate.migration().as_ref())
            .map_err(|error| self.metrics.named(error))?;
        let tables = TableConfig::new(ctx.key_groups, ctx.max_parallelism);
        let slides = self.config.windows.slice_ms() < self.config.windows.size_ms;
        let running = (A::INVERTIBLE && slides).then(|| Running {
            table: RowTable::new(tables),
            from_ms: i64::MIN,
            to_ms: i64::MIN,
            cursor: Cursor::default(),
        });
        self.open = Some(Open { windows, running, firing: None });
        Ok(())
    }

    fn process<E: Emit<O>>(
        &mut self,
        _input: usize,
        frames: &mut FrameCursor<'_>,
        emit: &mut E,
    ) -> Result<(), TaskError> {
        let mut batch = KeyedBatch::new();
        while batch.fill(frames, |hash| {
            if let Some(table) = self.open.as_ref().and_then(|open| open.windows.recent_table()) {
                table.table.prefetch(hash);
            }
        }) {
            while let Some((elem, hash)) = batch.next::<T, _, _>(frames, emit) {
                self.seen += 1;
                self.add(elem, hash, emit);
            }
            if !emit.room() {
                break;
            }
        }
        match self.unfit {
            Some(timestamp) => Err(self.metrics.error(self.config.windows.unfit(timestamp))),
            None => Ok(()),
        }
    }

    fn watermark<E: Emit<O>>(&mut self, watermark: i64, emit: &mut E) -> Result<Progress, TaskError> {
        let mut rows = ROWS_PER_TURN;
        loop {
            let open = Self::opened(&mut self.open);
            let firing = open.firing.take().or_else(|| {
                open.windows.due(watermark).map(|window| Firing {
                    window,
                    cursor: Cursor::default(),
                    slice: 0,
                    prepared: false,
                })
            });
            let Some(mut firing) = firing else { break };
            firing.prepared = firing.prepared || self.slide_to(firing.window, &mut rows);
            let through = firing.prepared && self.emit_window(&mut firing, &mut rows, emit);
            let open = Self::opened(&mut self.open);
            if !through {
                open.firing = Some(firing);
                return Ok(if rows == 0 { Progress::More } else { Progress::Blocked });
            }
            open.windows.fired(firing.window);
        }
        if !self.clean_up(watermark, &mut rows) {
            return Ok(Progress::More);
        }
        Self::opened(&mut self.open).windows.advance_keyed(watermark);
        emit.watermark(watermark);
        Ok(Progress::Done)
    }

    fn keyed_states(&mut self, visit: &mut dyn FnMut(KeyedStateRef<'_>)) {
        // The running table holds nothing that the slices do not.
        if let Some(open) = &mut self.open {
            open.windows.visit(visit);
        }
    }

    fn snapshot(&mut self, checkpoint: CheckpointId, state: &mut OperatorStateWriter) -> Result<(), TaskError> {
        Self::opened(&mut self.open).windows.snapshot(&mut OperatorSnapshot::new(state, 0, checkpoint));
        Ok(())
    }

    fn report(&mut self, marks: Watermarks) -> u64 {
        self.metrics.records(self.seen, self.emitted);
        self.metrics.watermarks(marks);
        self.late.report();
        self.emitted
    }
}
