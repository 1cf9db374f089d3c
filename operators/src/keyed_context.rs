//! Keyed state and timers of one operator: registration, the current key, and the handles that user code holds.
//!
//! One concept of unsafe code: a state handle is an index, and the table behind it is found by a checked type id.

use std::{any::TypeId, marker::PhantomData, sync::Arc};

use thalweg_model::{KeyHash, Record, time::MIN_WATERMARK};
use thalweg_runtime::{Clock, KeyedStateRef, Progress, SegmentContext, TaskError};
use thalweg_state::{ListIter, ListTable, MapIter, MapTable, Migrate, Migration, RowTable, TableConfig, TimerQueue};

use crate::{
    checkpoint::{KeyedTable, StateTable},
    pipe::Emit,
    process::{TimeDomain, known},
    side::{Collector, SidePorts},
};

/// A table of state, whatever it holds.
trait AnyTable: Send {
    fn prefetch(&self, hash: KeyHash);
    fn visit(&mut self, visit: &mut dyn FnMut(KeyedStateRef<'_>));
}

macro_rules! any_table {
    ($table:ident<K, $($v:ident),+>) => {
        impl<K: Record, $($v: Record),+> AnyTable for KeyedTable<$table<K, $($v),+>> {
            fn prefetch(&self, hash: KeyHash) {
                self.table.prefetch(hash);
            }
            fn visit(&mut self, visit: &mut dyn FnMut(KeyedStateRef<'_>)) {
                KeyedTable::visit(self, visit);
            }
        }
    };
}
any_table!(RowTable<K, V>);
any_table!(ListTable<K, E>);
any_table!(MapTable<K, UK, UV>);

struct Registered {
    name: String,
    ty: TypeId,
    table: Box<dyn AnyTable>,
}

/// The keyed state of one operator in one subtask.
pub(crate) struct KeyedState<K: Record> {
    config: TableConfig,
    states: Vec<Registered>,
    types: PhantomData<fn() -> K>,
}

impl<K: Record> KeyedState<K> {
    #[inline(always)]
    fn table<T: StateTable>(&mut self, index: usize) -> &mut T {
        let state = &mut self.states[index];
        assert!(state.ty == TypeId::of::<T>(), "a state handle is used with an operator that did not register it");
        // SAFETY: the type id stored beside the table is that of the table in the box, and has just been compared.
        unsafe { &mut (*(&raw mut *state.table).cast::<KeyedTable<T>>()).table }
    }

    #[inline(always)]
    fn table_ref<T: StateTable>(&self, index: usize) -> &T {
        let state = &self.states[index];
        assert!(state.ty == TypeId::of::<T>(), "a state handle is used with an operator that did not register it");
        // SAFETY: as in `table`.
        unsafe { &(*(&raw const *state.table).cast::<KeyedTable<T>>()).table }
    }
}

/// What a keyed operator owns on its slot: state, timers of both domains, the watermark and the clock.
pub(crate) struct KeyedRuntime<K: Record> {
    ports: SidePorts,
    open: Option<Open<K>>,
}

struct Open<K: Record> {
    state: KeyedState<K>,
    timers: Timers<K>,
    ports: Vec<String>,
}

/// Names of the timers of an operator, as Flink has them.
const EVENT_TIMERS_NAME: &str = "_timer_state/event_user-timers";
const PROCESSING_TIMERS_NAME: &str = "_timer_state/processing_user-timers";

struct Timers<K: Record> {
    event: KeyedTable<TimerQueue<K>>,
    processing: KeyedTable<TimerQueue<K>>,
    watermark: i64,
    now_ms: i64,
    clock: Arc<dyn Clock>,
}

impl<K: Record> Timers<K> {
    fn queue(&mut self, domain: TimeDomain) -> &mut TimerQueue<K> {
        match domain {
            TimeDomain::EventTime => &mut self.event.table,
            TimeDomain::ProcessingTime => &mut self.processing.table,
        }
    }
}

impl<K: Record> KeyedRuntime<K> {
    pub fn new(ports: SidePorts) -> Self {
        Self { ports, open: None }
    }

    /// The same before it was opened, for another subtask.
    pub fn fresh(&self) -> Self {
        Self::new(self.ports.clone())
    }

    /// Opens state and timers, as they were in the checkpoint that the job starts from; `register` then registers the
    /// states.
    pub fn open(
        &mut self,
        ctx: &SegmentContext,
        register: impl FnOnce(&mut StateContext<'_, K>),
    ) -> Result<(), TaskError> {
        let config = TableConfig::new(ctx.key_groups, ctx.max_parallelism);
        let timers = Timers {
            event: KeyedTable::open(ctx, 0, EVENT_TIMERS_NAME, config)?,
            processing: KeyedTable::open(ctx, 0, PROCESSING_TIMERS_NAME, config)?,
            watermark: MIN_WATERMARK,
            now_ms: ctx.clock.now_ms(),
            clock: ctx.clock.clone(),
        };
        let mut state = KeyedState { config, states: Vec::new(), types: PhantomData };
        let mut context = StateContext { state: &mut state, ctx, error: None };
        register(&mut context);
        if let Some(error) = context.error {
            return Err(error);
        }
        self.open = Some(Open { state, timers, ports: self.ports.names() });
        Ok(())
    }

    /// Shows all tables to the runtime.
    pub fn visit(&mut self, visit: &mut dyn FnMut(KeyedStateRef<'_>)) {
        if let Some(Open { state, timers, .. }) = &mut self.open {
            state.states.iter_mut().for_each(|state| state.table.visit(visit));
            timers.event.visit(visit);
            timers.processing.visit(visit);
        }
    }

    fn opened(&mut self) -> &mut Open<K> {
        match &mut self.open {
            Some(open) => open,
            None => unreachable!("the runtime opens a segment before it uses it"),
        }
    }

    #[inline(always)]
    pub fn prefetch(&self, hash: KeyHash) {
        if let Some(open) = &self.open {
            for state in &open.state.states {
                state.table.prefetch(hash);
            }
        }
    }

    /// Reads the wall clock: once a batch.
    pub fn refresh_clock(&mut self) {
        let timers = &mut self.opened().timers;
        timers.now_ms = timers.clock.now_ms();
    }

    /// The context of one record, and the names of the side outputs.
    #[inline(always)]
    pub fn context<'a, 'k: 'a>(
        &'a mut self,
        key: K::View<'k>,
        hash: KeyHash,
        timestamp: i64,
    ) -> (KeyContext<'a, K>, &'a [String]) {
        let key = K::shorten(key);
        let Open { state, timers, ports } = self.opened();
        (KeyContext { key, hash, timestamp, state, timers }, ports)
    }

    /// Takes a watermark: fires the timers that are due by it, and passes it on once all have. Resumable.
    pub fn watermark<O: Record, E: Emit<O>>(
        &mut self,
        watermark: i64,
        emit: &mut E,
        emitted: &mut u64,
        on_timer: impl FnMut(i64, TimeDomain, &mut KeyContext<'_, K>, &mut Collector<'_, O, E>),
    ) -> Progress {
        // Timers that are registered from now on are compared with it.
        let timers = &mut self.opened().timers;
        timers.watermark = timers.watermark.max(watermark);
        self.refresh_clock();
        let progress = self.fire(TimeDomain::EventTime, watermark, emit, emitted, on_timer);
        if progress == Progress::Done {
            emit.watermark(watermark);
        }
        progress
    }

    /// Fires the timers that are due by the wall clock: those before `now_ms`, as in Flink. Resumable.
    pub fn processing_time<O: Record, E: Emit<O>>(
        &mut self,
        now_ms: i64,
        emit: &mut E,
        emitted: &mut u64,
        on_timer: impl FnMut(i64, TimeDomain, &mut KeyContext<'_, K>, &mut Collector<'_, O, E>),
    ) -> Progress {
        self.refresh_clock();
        self.fire(TimeDomain::ProcessingTime, now_ms.saturating_sub(1), emit, emitted, on_timer)
    }

    /// Fires timers up to a time, as long as there is room for what they emit.
    fn fire<O: Record, E: Emit<O>>(
        &mut self,
        domain: TimeDomain,
        up_to: i64,
        emit: &mut E,
        emitted: &mut u64,
        mut on_timer: impl FnMut(i64, TimeDomain, &mut KeyContext<'_, K>, &mut Collector<'_, O, E>),
    ) -> Progress {
        let Open { state, timers, ports } = self.opened();
        while let Some(timer) = timers.queue(domain).pop_due(up_to) {
            let mut ctx =
                KeyContext { key: timer.key.view(), hash: timer.hash, timestamp: timer.timestamp, state, timers };
            on_timer(timer.timestamp, domain, &mut ctx, &mut Collector::new(emit, timer.timestamp, ports, emitted));
            if !emit.room() && timers.queue(domain).next().is_some_and(|next| next <= up_to) {
                return Progress::Blocked;
            }
        }
        Progress::Done
    }

    /// When the earliest processing-time timer is due: one millisecond after its time, as in Flink.
    pub fn next_deadline_ms(&self) -> Option<i64> {
        self.open.as_ref()?.timers.processing.table.next().map(|timestamp| timestamp.saturating_add(1))
    }
}

/// Where a function registers its keyed state, in `open`. Where the job starts from a checkpoint, a state is found again by
/// its name.
pub struct StateContext<'a, K: Record> {
    state: &'a mut KeyedState<K>,
    ctx: &'a SegmentContext,
    /// The first thing that went wrong; fails the task once the function has registered everything.
    error: Option<TaskError>,
}

impl<K: Record> StateContext<'_, K> {
    /// Adds a state that `open` opens.
    fn register<T: StateTable>(
        &mut self,
        name: &str,
        open: impl FnOnce(&SegmentContext, TableConfig) -> Result<KeyedTable<T>, TaskError>,
    ) -> usize
    where
        KeyedTable<T>: AnyTable,
    {
        let states = &mut self.state.states;
        assert!(
            states.iter().all(|state| state.name != name),
            "state {name:?} is registered twice; give each state of an operator a name of its own"
        );
        match open(self.ctx, self.state.config) {
            Ok(table) => {
                states.push(Registered { name: name.to_owned(), ty: TypeId::of::<T>(), table: Box::new(table) });
                states.len() - 1
            }
            Err(error) => {
                self.error.get_or_insert(error);
                usize::MAX
            }
        }
    }

    fn plain<T: StateTable>(&mut self, name: &str) -> usize
    where
        KeyedTable<T>: AnyTable,
    {
        self.register::<T>(name, |ctx, config| KeyedTable::open(ctx, 0, name, config))
    }

    fn migrating<T: StateTable + Migrate>(&mut self, name: &str, migration: &Migration<T::Value>) -> usize
    where
        KeyedTable<T>: AnyTable,
    {
        self.register::<T>(name, |ctx, config| KeyedTable::open_migrating(ctx, 0, name, config, Some(migration)))
    }

    /// One value per key.
    ///
    /// # Panics
    /// Where the name is taken.
    pub fn value_state<V: Record>(&mut self, name: &str) -> ValueState<V> {
        ValueState { index: self.plain::<RowTable<K, V>>(name), types: PhantomData }
    }

    /// A list per key.
    ///
    /// # Panics
    /// Where the name is taken.
    pub fn list_state<E: Record>(&mut self, name: &str) -> ListState<E> {
        ListState { index: self.plain::<ListTable<K, E>>(name), types: PhantomData }
    }

    /// A map per key.
    ///
    /// # Panics
    /// Where the name is taken.
    pub fn map_state<UK: Record, UV: Record>(&mut self, name: &str) -> MapState<UK, UV> {
        MapState { index: self.plain::<MapTable<K, UK, UV>>(name), types: PhantomData }
    }

    /// As [`value_state`](Self::value_state), where checkpoints may hold values of an older type.
    ///
    /// # Panics
    /// Where the name is taken.
    pub fn value_state_migrating<V: Record>(&mut self, name: &str, migration: &Migration<V>) -> ValueState<V> {
        ValueState { index: self.migrating::<RowTable<K, V>>(name, migration), types: PhantomData }
    }

    /// As [`list_state`](Self::list_state), where checkpoints may hold elements of an older type.
    ///
    /// # Panics
    /// Where the name is taken.
    pub fn list_state_migrating<E: Record>(&mut self, name: &str, migration: &Migration<E>) -> ListState<E> {
        ListState { index: self.migrating::<ListTable<K, E>>(name, migration), types: PhantomData }
    }

    /// As [`map_state`](Self::map_state), where checkpoints may hold values of an older type.
    ///
    /// # Panics
    /// Where the name is taken.
    pub fn map_state_migrating<UK: Record, UV: Record>(
        &mut self,
        name: &str,
        migration: &Migration<UV>,
    ) -> MapState<UK, UV> {
        MapState { index: self.migrating::<MapTable<K, UK, UV>>(name, migration), types: PhantomData }
    }
}

/// The current key with its state and timers, while a function looks at a record or a timer.
pub struct KeyContext<'a, K: Record> {
    key: K::View<'a>,
    hash: KeyHash,
    timestamp: i64,
    state: &'a mut KeyedState<K>,
    timers: &'a mut Timers<K>,
}

impl<'a, K: Record> KeyContext<'a, K> {
    /// The current key.
    pub fn key(&self) -> K::View<'a> {
        self.key
    }

    /// The timestamp of the record or timer in milliseconds; none where the stream has no timestamps.
    pub fn timestamp(&self) -> Option<i64> {
        known(self.timestamp)
    }

    /// The current watermark; `i64::MIN` before the first.
    pub fn current_watermark(&self) -> i64 {
        self.timers.watermark
    }

    /// The wall clock in milliseconds, read once a batch.
    pub fn current_processing_time(&self) -> i64 {
        self.timers.now_ms
    }

    /// Asks to be called back when the watermark reaches `timestamp`. Once per key and timestamp, however often asked.
    pub fn register_event_time_timer(&mut self, timestamp: i64) {
        self.timers.event.table.register(self.hash, self.key, 0, timestamp);
    }

    /// Asks to be called back when the wall clock passes `timestamp` (milliseconds).
    pub fn register_processing_time_timer(&mut self, timestamp: i64) {
        self.timers.processing.table.register(self.hash, self.key, 0, timestamp);
    }

    /// Takes an event-time timer back; nothing happens if there is none.
    pub fn delete_event_time_timer(&mut self, timestamp: i64) {
        self.timers.event.table.delete(self.hash, self.key, 0, timestamp);
    }

    /// Takes a processing-time timer back; nothing happens if there is none.
    pub fn delete_processing_time_timer(&mut self, timestamp: i64) {
        self.timers.processing.table.delete(self.hash, self.key, 0, timestamp);
    }
}

macro_rules! handle {
    ($(#[$meta:meta])* $name:ident<$($v:ident),+>) => {
        $(#[$meta])*
        pub struct $name<$($v),+> {
            index: usize,
            types: PhantomData<fn() -> ($($v,)+)>,
        }
        impl<$($v),+> Clone for $name<$($v),+> {
            fn clone(&self) -> Self {
                *self
            }
        }
        impl<$($v),+> Copy for $name<$($v),+> {}
        impl<$($v),+> Default for $name<$($v),+> {
            /// A handle that is not registered yet: using it panics. Replace it in `open`.
            fn default() -> Self {
                Self { index: usize::MAX, types: PhantomData }
            }
        }
    };
}

handle! {
    /// One value per key. Get it from [`StateContext::value_state`]; every call concerns the current key.
    ValueState<V>
}
handle! {
    /// A list per key. Get it from [`StateContext::list_state`]; every call concerns the current key.
    ListState<E>
}
handle! {
    /// A map per key. Get it from [`StateContext::map_state`]; every call concerns the current key.
    MapState<UK, UV>
}

impl<V: Record> ValueState<V> {
    /// The value, if there is one.
    #[inline(always)]
    pub fn value<'c, K: Record>(&self, ctx: &'c KeyContext<'_, K>) -> Option<V::View<'c>> {
        let (hash, key) = (ctx.hash, ctx.key);
        ctx.state.table_ref::<RowTable<K, V>>(self.index).get(hash, key)
    }

    /// Sets the value.
    #[inline(always)]
    pub fn set<K: Record>(&self, ctx: &mut KeyContext<'_, K>, value: V::View<'_>) {
        ctx.state.table::<RowTable<K, V>>(self.index).insert(ctx.hash, ctx.key, value);
    }

    /// Changes the value in place, starting from `init` if there is none; answers what `change` answers.
    #[inline(always)]
    pub fn update<K: Record, R>(
        &self,
        ctx: &mut KeyContext<'_, K>,
        init: impl FnOnce() -> V,
        change: impl FnOnce(&mut V) -> R,
    ) -> R {
        ctx.state.table::<RowTable<K, V>>(self.index).modify_or_insert_with(ctx.hash, ctx.key, init, change)
    }

    /// Removes the value.
    pub fn clear<K: Record>(&self, ctx: &mut KeyContext<'_, K>) {
        ctx.state.table::<RowTable<K, V>>(self.index).remove(ctx.hash, ctx.key);
    }
}

impl<E: Record> ListState<E> {
    /// Appends an element.
    pub fn add<K: Record>(&self, ctx: &mut KeyContext<'_, K>, element: E::View<'_>) {
        ctx.state.table::<ListTable<K, E>>(self.index).append(ctx.hash, ctx.key, element);
    }

    /// The elements in order.
    pub fn get<'c, K: Record>(&self, ctx: &'c KeyContext<'_, K>) -> ListIter<'c, E> {
        let (hash, key) = (ctx.hash, ctx.key);
        ctx.state.table_ref::<ListTable<K, E>>(self.index).list(hash, key)
    }

    /// Replaces all elements.
    pub fn replace<'e, K: Record>(&self, ctx: &mut KeyContext<'_, K>, elements: impl IntoIterator<Item = E::View<'e>>) {
        ctx.state.table::<ListTable<K, E>>(self.index).replace(ctx.hash, ctx.key, elements);
    }

    /// Removes all elements.
    pub fn clear<K: Record>(&self, ctx: &mut KeyContext<'_, K>) {
        ctx.state.table::<ListTable<K, E>>(self.index).remove(ctx.hash, ctx.key);
    }
}

impl<UK: Record, UV: Record> MapState<UK, UV> {
    /// The value of an entry.
    pub fn get<'c, K: Record>(&self, ctx: &'c KeyContext<'_, K>, user_key: UK::View<'_>) -> Option<UV::View<'c>> {
        let (hash, key) = (ctx.hash, ctx.key);
        ctx.state.table_ref::<MapTable<K, UK, UV>>(self.index).get(hash, key, user_key)
    }

    /// Whether there is an entry.
    pub fn contains<K: Record>(&self, ctx: &KeyContext<'_, K>, user_key: UK::View<'_>) -> bool {
        ctx.state.table_ref::<MapTable<K, UK, UV>>(self.index).contains(ctx.hash, ctx.key, user_key)
    }

    /// Sets an entry.
    pub fn put<K: Record>(&self, ctx: &mut KeyContext<'_, K>, user_key: UK::View<'_>, value: UV::View<'_>) {
        ctx.state.table::<MapTable<K, UK, UV>>(self.index).put(ctx.hash, ctx.key, user_key, value);
    }

    /// Removes an entry.
    pub fn remove<K: Record>(&self, ctx: &mut KeyContext<'_, K>, user_key: UK::View<'_>) {
        ctx.state.table::<MapTable<K, UK, UV>>(self.index).remove_entry(ctx.hash, ctx.key, user_key);
    }

    /// All entries, in no defined order.
    pub fn entries<'c, K: Record>(&self, ctx: &'c KeyContext<'_, K>) -> MapIter<'c, UK, UV> {
        let (hash, key) = (ctx.hash, ctx.key);
        ctx.state.table_ref::<MapTable<K, UK, UV>>(self.index).entries(hash, key)
    }

    /// Removes all entries.
    pub fn clear<K: Record>(&self, ctx: &mut KeyContext<'_, K>) {
        ctx.state.table::<MapTable<K, UK, UV>>(self.index).remove(ctx.hash, ctx.key);
    }
}
