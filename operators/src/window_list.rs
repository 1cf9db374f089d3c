//! The window operator that keeps every record, for functions that need to see them all.

use std::marker::PhantomData;

use thalweg_io::FrameCursor;
use thalweg_model::{CheckpointId, Elem, KeyHash, Record};
use thalweg_runtime::{KeyedStateRef, OperatorStateWriter, Progress, SegmentContext, TaskError};
use thalweg_state::{Cursor, ListIter, ListTable, Migration};

use crate::{
    batch::KeyedBatch,
    checkpoint::OperatorSnapshot,
    fuse::Out,
    keyed::KeySelector,
    late::LateRecords,
    op_metrics::OpMetrics,
    pipe::{Emit, Pipe, Watermarks},
    placed::heads,
    window::{TimeWindow, WindowConfig},
    window_slices::Place,
    window_state::KeyedWindows,
};

/// Keys that a firing window hands to the function before it lets the slot do something else.
const KEYS_PER_TURN: usize = 256;

/// The records of one key in a window, slice by slice in time, in order of arrival within a slice.
pub struct WindowElements<'e, T: Record> {
    lists: &'e [ListIter<'e, T>],
}

impl<T: Record> Clone for WindowElements<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T: Record> Copy for WindowElements<'_, T> {}

impl<'e, T: Record> WindowElements<'e, T> {
    /// The records' views.
    pub fn iter(self) -> impl Iterator<Item = T::View<'e>> {
        self.lists.iter().flat_map(|list| list.clone())
    }

    /// How many there are.
    pub fn len(self) -> usize {
        self.lists.iter().map(|list| list.len()).sum()
    }

    /// Whether there are none; a window that fires has at least one.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// Windows that keep their records.
pub struct WindowList<T: Record, S: KeySelector<T>, F, O> {
    selector: S,
    function: F,
    config: WindowConfig,
    migration: Option<Migration<T>>,
    open: Option<Open<S::Key, T>>,
    late: LateRecords,
    /// The timestamp of a record whose windows do not fit into time.
    unfit: Option<i64>,
    seen: u64,
    emitted: u64,
    metrics: OpMetrics,
    types: PhantomData<fn() -> O>,
}

struct Open<K: Record, T: Record> {
    windows: KeyedWindows<ListTable<K, T>>,
    firing: Option<Firing>,
}

struct Firing {
    window: TimeWindow,
    cursor: Cursor,
    slice: usize,
}

impl<T: Record, S: KeySelector<T>, F, O> WindowList<T, S, F, O> {
    pub(crate) fn new(selector: S, function: F, config: WindowConfig, migration: Option<Migration<T>>) -> Self {
        Self {
            selector,
            function,
            config,
            migration,
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

impl<T: Record, S: KeySelector<T>, F: Clone, O> Clone for WindowList<T, S, F, O> {
    fn clone(&self) -> Self {
        Self::new(self.selector.clone(), self.function.clone(), self.config, self.migration.clone())
    }
}

/// Hands one key of a window to the function.
fn fire_key<K, T, O, F, E>(
    windows: &KeyedWindows<ListTable<K, T>>,
    window: TimeWindow,
    key: K::View<'_>,
    hash: KeyHash,
    function: &mut F,
    emitted: &mut u64,
    emit: &mut E,
) where
    K: Record,
    T: Record,
    O: Record,
    E: Emit<O>,
    F: for<'k, 'e, 'o> FnMut(K::View<'k>, TimeWindow, WindowElements<'e, T>, &mut Out<'o, O>),
{
    let slices = &windows.slices[windows.slices_of(window)];
    let lists: Vec<ListIter<'_, T>> = slices.iter().map(|slice| slice.table.table.list(hash, key)).collect();
    let mut push = |view: O::View<'_>| {
        *emitted += 1;
        emit.emit(Elem::new(view, window.max_timestamp()));
    };
    function(key, window, WindowElements { lists: &lists }, &mut Out::new(&mut push));
}

impl<T, S, F, O> WindowList<T, S, F, O>
where
    T: Record,
    S: KeySelector<T>,
    O: Record,
    F: for<'k, 'e, 'o> FnMut(<S::Key as Record>::View<'k>, TimeWindow, WindowElements<'e, T>, &mut Out<'o, O>)
        + Clone
        + Send
        + 'static,
{
    fn opened(open: &mut Option<Open<S::Key, T>>) -> &mut Open<S::Key, T> {
        match open {
            Some(open) => open,
            None => unreachable!("the runtime opens a segment before it uses it"),
        }
    }

    fn add<E: Emit<O>>(&mut self, elem: Elem<'_, T>, hash: KeyHash, emit: &mut E) {
        let Self { selector, function, open, late, emitted, .. } = self;
        let Open { windows, .. } = Self::opened(open);
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
            windows.slices[index].table.table.append(hash, key, elem.view);
            if matches!(place, Place::Refire(_)) {
                for window in windows.refiring_keyed(elem.timestamp, hash) {
                    fire_key::<S::Key, T, O, F, E>(windows, window, key, hash, function, emitted, emit);
                }
            }
        });
    }

    fn emit_window<E: Emit<O>>(&mut self, firing: &mut Firing, keys: &mut usize, emit: &mut E) -> bool {
        let Self { function, open, emitted, .. } = self;
        let windows = &Self::opened(open).windows;
        let slices = windows.slices_of(firing.window);
        while firing.slice < slices.len() {
            if *keys == 0 || !emit.room() {
                return false;
            }
            let at = slices.start + firing.slice;
            let Some((key, _, hash)) = windows.slices[at].table.table.next(&mut firing.cursor) else {
                firing.slice += 1;
                firing.cursor = Cursor::default();
                continue;
            };
            *keys -= 1;
            let is_first =
                || !windows.slices[slices.start..at].iter().any(|earlier| earlier.table.table.contains(hash, key));
            if !windows.has_fired(firing.window, hash) && is_first() {
                fire_key::<S::Key, T, O, F, E>(windows, firing.window, key, hash, function, emitted, emit);
            }
        }
        true
    }
}

heads! {
    [T: Record, S: KeySelector<T>, F, O: Record] WindowList<T, S, F, O>
    where [F: for<'k, 'e, 'o> FnMut(<S::Key as Record>::View<'k>, TimeWindow, WindowElements<'e, T>, &mut Out<'o, O>)
        + Clone
        + Send
        + 'static];
}

impl<T, S, F, O> Pipe for WindowList<T, S, F, O>
where
    T: Record,
    S: KeySelector<T>,
    O: Record,
    F: for<'k, 'e, 'o> FnMut(<S::Key as Record>::View<'k>, TimeWindow, WindowElements<'e, T>, &mut Out<'o, O>)
        + Clone
        + Send
        + 'static,
{
    type Out = O;

    fn open(&mut self, ctx: &mut SegmentContext) -> Result<(), TaskError> {
        self.metrics.open(ctx);
        self.late.open(&self.metrics);
        let windows =
            KeyedWindows::open(ctx, self.config, self.migration.as_ref()).map_err(|error| self.metrics.named(error))?;
        self.open = Some(Open { windows, firing: None });
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
        let mut keys = KEYS_PER_TURN;
        loop {
            let open = Self::opened(&mut self.open);
            let due =
                || open.windows.due(watermark).map(|window| Firing { window, cursor: Cursor::default(), slice: 0 });
            let Some(mut firing) = open.firing.take().or_else(due) else { break };
            let through = self.emit_window(&mut firing, &mut keys, emit);
            let open = Self::opened(&mut self.open);
            if !through {
                open.firing = Some(firing);
                return Ok(if keys == 0 { Progress::More } else { Progress::Blocked });
            }
            open.windows.fired(firing.window);
        }
        let windows = &mut Self::opened(&mut self.open).windows;
        while windows.first_has_expired(watermark) {
            windows.forget_first(|slice| slice.table.clear());
        }
        windows.advance_keyed(watermark);
        emit.watermark(watermark);
        Ok(Progress::Done)
    }

    fn keyed_states(&mut self, visit: &mut dyn FnMut(KeyedStateRef<'_>)) {
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
