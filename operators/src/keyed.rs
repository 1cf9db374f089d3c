//! `KeyedStream`: a stream partitioned by key, and what can be done per key without a window.

use std::marker::PhantomData;

use thalweg_io::FrameCursor;
use thalweg_model::{Elem, Record, record::key_hash};
use thalweg_runtime::{KeyedStateRef, Outputs, Progress, SegmentContext, TaskError};
use thalweg_state::{Migration, RowTable, TableConfig};

use crate::{
    aggregate::{AggregateFunction, Reduce},
    batch::RowsAhead,
    checkpoint::KeyedTable,
    graph::Exchange,
    op_metrics::OpMetrics,
    pipe::{Emit, Pipe, Watermarks, read},
    placed::heads,
    process::{KeyedProcess, KeyedProcessFunction},
    segment::{MAIN_PORT, Tail, factory},
    side::SidePorts,
    stream::{Stream, StreamEnd, connect},
    window::{WindowAssigner, WindowedStream},
};

/// Computes the key of a record.
pub trait KeySelector<T: Record>: Clone + Send + 'static {
    /// The key's type.
    type Key: Record;
    /// Hands the key of a record to a function.
    fn with_key<R>(&self, value: T::View<'_>, then: impl for<'k> FnOnce(<Self::Key as Record>::View<'k>) -> R) -> R;
}

/// A function from a record's view to a borrowed key. Every closure of that shape is one.
///
/// A trait of its own, since a bound `for<'v> Fn(T::View<'v>) -> K::View<'v>` cannot be written with `T` generic.
pub trait KeyView<'v, T: Record, K: Record>: Fn(T::View<'v>) -> K::View<'v> {}

impl<'v, T: Record, K: Record, F: Fn(T::View<'v>) -> K::View<'v>> KeyView<'v, T, K> for F {}

/// A key that a function computes as an owned value.
pub struct OwnedKey<K, F> {
    function: F,
    types: PhantomData<fn() -> K>,
}

/// A key that a function borrows from the record.
pub struct ViewKey<K, F> {
    function: F,
    types: PhantomData<fn() -> K>,
}

macro_rules! selector {
    ($name:ident) => {
        impl<K, F> $name<K, F> {
            pub(crate) fn new(function: F) -> Self {
                Self { function, types: PhantomData }
            }
        }
        impl<K, F: Clone> Clone for $name<K, F> {
            fn clone(&self) -> Self {
                Self { function: self.function.clone(), types: PhantomData }
            }
        }
    };
}
selector!(OwnedKey);
selector!(ViewKey);

impl<T: Record, K: Record, F> KeySelector<T> for OwnedKey<K, F>
where
    F: for<'v> Fn(T::View<'v>) -> K + Clone + Send + 'static,
{
    type Key = K;

    #[inline(always)]
    fn with_key<R>(&self, value: T::View<'_>, then: impl for<'k> FnOnce(K::View<'k>) -> R) -> R {
        let key = (self.function)(value);
        then(key.view())
    }
}

impl<T: Record, K: Record, F> KeySelector<T> for ViewKey<K, F>
where
    F: for<'v> KeyView<'v, T, K> + Clone + Send + 'static,
{
    type Key = K;

    #[inline(always)]
    fn with_key<R>(&self, value: T::View<'_>, then: impl for<'k> FnOnce(K::View<'k>) -> R) -> R {
        then((self.function)(value))
    }
}

/// The tail that hashes the key: the hash routes the record and travels with it.
#[derive(Clone)]
pub struct KeyTail<S>(S);

impl<T: Record, S: KeySelector<T>> Tail<T> for KeyTail<S> {
    #[inline(always)]
    fn write(&mut self, elem: Elem<'_, T>, out: &mut Outputs) {
        let hash = self.0.with_key(elem.view, |key| key_hash::<S::Key>(key));
        out.write(MAIN_PORT, elem, hash);
    }
}

/// A stream partitioned by key. All records of one key reach the same subtask, in order per sender.
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct KeyedStream<T: Record, P: Pipe<Out = T>, S: KeySelector<T>> {
    pub(crate) stream: Stream<T, P>,
    pub(crate) selector: S,
}

impl<T: Record, P: Pipe<Out = T>, S: KeySelector<T>> KeyedStream<T, P, S> {
    /// Closes the stream behind its key and answers the end to read from.
    pub(crate) fn end(self) -> (StreamEnd, S) {
        let Stream { env, segment, pipe, timed } = self.stream;
        let made = factory(pipe, KeyTail(self.selector.clone()));
        env.graph.borrow_mut().nodes[segment.0].factory = Some(made);
        (StreamEnd { segment, port: MAIN_PORT, timed }, self.selector)
    }

    /// Starts the segment of a keyed operator.
    pub(crate) fn head<H: Pipe>(self, name: &str, make: impl FnOnce(S, SidePorts) -> H) -> Stream<H::Out, H> {
        let env = self.stream.env.clone();
        let (end, selector) = self.end();
        let segment = env.graph.borrow_mut().add(1, Some(name));
        let ports = env.graph.borrow().nodes[segment.0].side_ports.clone();
        connect::<T>(&env, end, segment, 0, Exchange::Hash);
        Stream { env, segment, pipe: make(selector, ports), timed: end.timed }
    }

    /// Runs a function with keyed state and timers on each record.
    pub fn process<F>(self, function: F) -> Stream<F::Out, KeyedProcess<T, S, F>>
    where
        F: KeyedProcessFunction<S::Key, T>,
    {
        self.head("KeyedProcess", |selector, ports| KeyedProcess::new(selector, function, ports))
    }

    /// Combines each record with the value so far of its key, and emits the new value.
    pub fn reduce<F>(
        self,
        function: F,
    ) -> Stream<
        T,
        Rolling<T, S, Reduce<T, F>, impl for<'k> FnMut(<S::Key as Record>::View<'k>, T) -> T + Clone + Send + 'static>,
    >
    where
        T: Clone,
        F: for<'a, 'b> Fn(T::View<'a>, T::View<'b>) -> T + Clone + Send + 'static,
    {
        self.head("Reduce", |selector, _| Rolling::new(selector, Reduce::new(function), value_of::<S::Key, T>()))
    }

    /// As [`reduce`](Self::reduce), where checkpoints may hold values of an older type.
    pub fn reduce_migrating<F>(
        self,
        function: F,
        migration: &Migration<T>,
    ) -> Stream<
        T,
        Rolling<T, S, Reduce<T, F>, impl for<'k> FnMut(<S::Key as Record>::View<'k>, T) -> T + Clone + Send + 'static>,
    >
    where
        T: Clone,
        F: for<'a, 'b> Fn(T::View<'a>, T::View<'b>) -> T + Clone + Send + 'static,
    {
        let reduce = Reduce::migrating(function, migration);
        self.head("Reduce", |selector, _| Rolling::new(selector, reduce, value_of::<S::Key, T>()))
    }

    /// Aggregates per key and emits, for each record, what `result` makes of the key and the aggregate so far.
    pub fn aggregate<A, O, F>(self, aggregate: A, result: F) -> Stream<O, Rolling<T, S, A, F, O>>
    where
        A: AggregateFunction<T>,
        O: Record,
        F: for<'k> FnMut(<S::Key as Record>::View<'k>, A::Out) -> O + Clone + Send + 'static,
    {
        self.head("Aggregate", |selector, _| Rolling::new(selector, aggregate, result))
    }

    /// Windows per key.
    pub fn window<W: WindowAssigner>(self, assigner: W) -> WindowedStream<T, P, S, W> {
        WindowedStream::new(self, assigner)
    }
}

/// A function that ignores the key and answers the value.
fn value_of<K: Record, T: 'static>() -> impl for<'k> FnMut(K::View<'k>, T) -> T + Clone + Send + 'static {
    |_key, value| value
}

/// Name of the state of a running aggregate.
const AGGREGATE_NAME: &str = "aggregate";

/// A running aggregate per key: one row of state, one result for each record.
pub struct Rolling<T: Record, S: KeySelector<T>, A: AggregateFunction<T>, F, O = T> {
    selector: S,
    aggregate: A,
    result: F,
    table: Option<KeyedTable<RowTable<S::Key, A::Acc>>>,
    seen: u64,
    metrics: OpMetrics,
    types: PhantomData<fn() -> (T, O)>,
}

impl<T: Record, S: KeySelector<T>, A: AggregateFunction<T>, F, O> Rolling<T, S, A, F, O> {
    fn new(selector: S, aggregate: A, result: F) -> Self {
        Self { selector, aggregate, result, table: None, seen: 0, metrics: OpMetrics::new(0), types: PhantomData }
    }
}

impl<T: Record, S: KeySelector<T>, A: AggregateFunction<T>, F: Clone, O> Clone for Rolling<T, S, A, F, O> {
    fn clone(&self) -> Self {
        Self::new(self.selector.clone(), self.aggregate.clone(), self.result.clone())
    }
}

impl<T: Record, S: KeySelector<T>, A: AggregateFunction<T>, F, O: Record> Rolling<T, S, A, F, O>
where
    F: for<'k> FnMut(<S::Key as Record>::View<'k>, A::Out) -> O + Clone + Send + 'static,
{
    /// Takes records while there are any, and room.
    #[inline(always)]
    fn roll<const TIMED: bool, E: Emit<O>>(&mut self, frames: &mut FrameCursor<'_>, emit: &mut E) {
        let Some(KeyedTable { table, .. }) = self.table.as_mut() else { return };
        let (aggregate, selector, result) = (&self.aggregate, &self.selector, &mut self.result);
        let mut seen = 0;
        // Takes one record; `$update` is how its row is changed.
        macro_rules! take {
            ($elem:ident, |$key:ident| $table:ident.$update:ident($($place:expr),*)) => {{
                seen += 1;
                let value = selector.with_key($elem.view, |$key| {
                    let so_far = $table.$update(
                        $($place,)*
                        || aggregate.create(),
                        |acc| {
                            aggregate.add(acc, $elem.view);
                            aggregate.result(acc)
                        },
                    );
                    result($key, so_far)
                });
                emit.emit(Elem::new(value.view(), $elem.timestamp));
            }};
        }
        let mut records = frames.typed::<T, TIMED>();
        if table.is_near() {
            while emit.room()
                && let Some(frame) = records.next()
            {
                let (elem, hash) = (read::<T>(&frame), frame.hash);
                take!(elem, |key| table.modify_or_insert_near(hash, key));
            }
        } else {
            let mut rows = RowsAhead::new(records, table);
            while let Some((elem, hash, place)) = rows.next(emit, table) {
                take!(elem, |key| table.modify_or_insert_at(place, hash, key));
            }
            records = rows.into_records();
        }
        frames.resume(&records);
        self.seen += seen;
    }
}

heads! {
    [T: Record, S: KeySelector<T>, A: AggregateFunction<T>, F, O: Record] Rolling<T, S, A, F, O>
    where [F: for<'k> FnMut(<S::Key as Record>::View<'k>, A::Out) -> O + Clone + Send + 'static];
}

impl<T: Record, S: KeySelector<T>, A: AggregateFunction<T>, F, O: Record> Pipe for Rolling<T, S, A, F, O>
where
    F: for<'k> FnMut(<S::Key as Record>::View<'k>, A::Out) -> O + Clone + Send + 'static,
{
    type Out = O;

    fn open(&mut self, ctx: &mut SegmentContext) -> Result<(), TaskError> {
        self.metrics.open(ctx);
        let config = TableConfig::new(ctx.key_groups, ctx.max_parallelism);
        let migration = self.aggregate.migration();
        self.table = Some(KeyedTable::open_migrating(ctx, 0, AGGREGATE_NAME, config, migration.as_ref())?);
        Ok(())
    }

    fn process<E: Emit<O>>(
        &mut self,
        _input: usize,
        frames: &mut FrameCursor<'_>,
        emit: &mut E,
    ) -> Result<(), TaskError> {
        match frames.carries_time() {
            true => self.roll::<true, E>(frames, emit),
            false => self.roll::<false, E>(frames, emit),
        }
        Ok(())
    }

    fn watermark<E: Emit<O>>(&mut self, watermark: i64, emit: &mut E) -> Result<Progress, TaskError> {
        emit.watermark(watermark);
        Ok(Progress::Done)
    }

    fn keyed_states(&mut self, visit: &mut dyn FnMut(KeyedStateRef<'_>)) {
        if let Some(table) = &mut self.table {
            table.visit(visit);
        }
    }

    fn report(&mut self, marks: Watermarks) -> u64 {
        self.metrics.records(self.seen, self.seen);
        self.metrics.watermarks(marks);
        self.seen
    }
}
