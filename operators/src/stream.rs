//! `Stream`: the DataStream API on a stream that has not been partitioned by key.

use std::{marker::PhantomData, rc::Rc, time::Duration};

use thalweg_model::Record;
use thalweg_runtime::{RecordType, SegmentFactory};

use crate::{
    checkpoint::record_type,
    environment::EnvironmentState,
    fuse::{FilterStep, FlatMapStep, Fused, InspectStep, MapStep, MapToStep, Out},
    graph::{Chaining, Cut, Edge, Exchange, SegmentId, buffer_timeout},
    keyed::{KeyView, KeyedStream, OwnedKey, ViewKey},
    pipe::{Pipe, Records},
    placed::{Extend, Placed, Rebase},
    segment::{CustomTail, MAIN_PORT, factory, forward_factory},
    side::OutputTag,
    sink::{Sink, SinkStep, SinkStream},
    watermark::{WatermarkStep, WatermarkStrategy},
    window::WindowAssigner,
    window_all::AllWindowedStream,
};

/// A stream of records of type `T`, produced by the fused operators `P`.
///
/// Calls that may break a chain (`parallelism`, `slot_sharing_group`, `start_new_chain`, `disable_chaining`, an
/// exchange, fan-out) end a fused piece; everything between them runs as one loop.
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct Stream<T: Record, P: Pipe<Out = T>> {
    pub(crate) env: Rc<EnvironmentState>,
    pub(crate) segment: SegmentId,
    pub(crate) pipe: P,
    /// Whether its records carry timestamps.
    pub(crate) timed: bool,
}

/// A stream that several consumers read: each call of [`stream`](Self::stream) starts another one.
#[derive(Clone)]
pub struct SharedStream<T: Record> {
    end: StreamEnd,
    env: Rc<EnvironmentState>,
    types: PhantomData<fn() -> T>,
}

/// An output of a finished segment.
#[derive(Clone, Copy)]
pub(crate) struct StreamEnd {
    pub segment: SegmentId,
    pub port: usize,
    pub timed: bool,
}

/// Joins an output to an input of a segment.
pub(crate) fn connect<T: Record>(
    env: &EnvironmentState,
    from: StreamEnd,
    to: SegmentId,
    input: usize,
    exchange: Exchange,
) {
    env.graph.borrow_mut().edges.push(Edge {
        from: from.segment,
        port: from.port,
        to,
        input,
        exchange,
        records: record_type::<T>(),
        timed: from.timed,
    });
}

/// Starts a new segment that reads an output.
pub(crate) fn continue_from<T: Record>(
    env: &Rc<EnvironmentState>,
    from: StreamEnd,
    exchange: Exchange,
) -> Stream<T, Records<T>> {
    let segment = env.graph.borrow_mut().add(1, None);
    connect::<T>(env, from, segment, 0, exchange);
    Stream { env: env.clone(), segment, pipe: Records::silent(), timed: from.timed }
}

/// Cuts the segment before its last operator.
struct LastOperator<'a> {
    env: &'a EnvironmentState,
    segment: SegmentId,
    timed: bool,
    moved: Option<SegmentId>,
}

impl Cut for LastOperator<'_> {
    fn cut(&mut self, before: SegmentFactory, records: RecordType) {
        let mut graph = self.env.graph.borrow_mut();
        let moved = graph.add(1, None);
        let old = &mut graph.nodes[self.segment.0];
        old.factory = Some(before);
        let operator = old.operators.pop();
        let new = &mut graph.nodes[moved.0];
        new.operators.extend(operator);
        graph.edges.push(Edge {
            from: self.segment,
            port: MAIN_PORT,
            to: moved,
            input: 0,
            exchange: Exchange::Auto,
            records,
            timed: self.timed,
        });
        self.moved = Some(moved);
    }
}

/// Cuts the segment behind its last operator.
struct Behind<'a> {
    env: &'a EnvironmentState,
    segment: SegmentId,
    timed: bool,
    next: Option<SegmentId>,
}

impl Cut for Behind<'_> {
    fn cut(&mut self, before: SegmentFactory, records: RecordType) {
        let mut graph = self.env.graph.borrow_mut();
        let next = graph.add(1, None);
        graph.nodes[self.segment.0].factory = Some(before);
        graph.edges.push(Edge {
            from: self.segment,
            port: MAIN_PORT,
            to: next,
            input: 0,
            exchange: Exchange::Auto,
            records,
            timed: self.timed,
        });
        self.next = Some(next);
    }
}

impl<T: Record, P: Extend<Out = T>> Stream<T, P> {
    /// The stream as something that further operators can be fused onto.
    pub(crate) fn open_end(self) -> Stream<T, P::Base> {
        let mut behind = Behind { env: &self.env, segment: self.segment, timed: self.timed, next: None };
        let pipe = self.pipe.base(&mut behind);
        let segment = behind.next.unwrap_or(self.segment);
        Stream { env: self.env, segment, pipe, timed: self.timed }
    }

    pub(crate) fn fuse<S: crate::fuse::Step<T>>(self, name: &str, step: S) -> Stream<S::Out, Fused<P::Base, S>> {
        let Stream { env, segment, pipe, timed } = self.open_end();
        let operator = env.graph.borrow_mut().add_operator(segment, name);
        Stream { env, segment, pipe: Fused::new(pipe, step, operator), timed }
    }

    /// Applies a function to each record; it returns an owned record.
    pub fn map<O, F>(self, function: F) -> Stream<O, Fused<P::Base, MapStep<F>>>
    where
        O: Record,
        F: for<'v> FnMut(T::View<'v>) -> O + Clone + Send + 'static,
    {
        self.fuse("Map", MapStep(function))
    }

    /// Applies a function that pushes any number of views, which may borrow from its argument: nothing is allocated.
    pub fn map_to<O, F>(self, function: F) -> Stream<O, Fused<P::Base, MapToStep<O, F>>>
    where
        O: Record,
        F: for<'v, 'o> FnMut(T::View<'v>, &mut Out<'o, O>) + Clone + Send + 'static,
    {
        self.fuse("Map", MapToStep::new(function))
    }

    /// Applies a function that returns an iterator of owned records.
    pub fn flat_map<O, C, F>(self, function: F) -> Stream<O, Fused<P::Base, FlatMapStep<F>>>
    where
        O: Record,
        C: IntoIterator<Item = O>,
        F: for<'v> FnMut(T::View<'v>) -> C + Clone + Send + 'static,
    {
        self.fuse("Flat Map", FlatMapStep { function, emitted: 0 })
    }

    /// As [`map_to`](Self::map_to), under the name of a flat map.
    pub fn flat_map_to<O, F>(self, function: F) -> Stream<O, Fused<P::Base, MapToStep<O, F>>>
    where
        O: Record,
        F: for<'v, 'o> FnMut(T::View<'v>, &mut Out<'o, O>) + Clone + Send + 'static,
    {
        self.fuse("Flat Map", MapToStep::new(function))
    }

    /// Keeps the records that a predicate holds for.
    pub fn filter<F>(self, predicate: F) -> Stream<T, Fused<P::Base, FilterStep<F>>>
    where
        F: for<'v> FnMut(T::View<'v>) -> bool + Clone + Send + 'static,
    {
        self.fuse("Filter", FilterStep { predicate, passed: 0 })
    }

    /// Lets a function look at each record.
    pub fn inspect<F>(self, function: F) -> Stream<T, Fused<P::Base, InspectStep<F>>>
    where
        F: for<'v> FnMut(T::View<'v>) + Clone + Send + 'static,
    {
        self.fuse("Inspect", InspectStep(function))
    }

    /// Gives each record a timestamp and makes watermarks.
    pub fn assign_timestamps_and_watermarks<F>(
        self,
        strategy: WatermarkStrategy<F>,
    ) -> Stream<T, Fused<P::Base, WatermarkStep<F>>>
    where
        F: for<'v> FnMut(T::View<'v>) -> i64 + Clone + Send + 'static,
    {
        let mut stream = self.fuse("Timestamps/Watermarks", WatermarkStep::new(strategy));
        stream.timed = true;
        stream
    }

    /// Partitions by a key that a function computes.
    pub fn key_by<K, F>(self, key: F) -> KeyedStream<T, P, OwnedKey<K, F>>
    where
        K: Record,
        F: for<'v> Fn(T::View<'v>) -> K + Clone + Send + 'static,
    {
        KeyedStream { stream: self, selector: OwnedKey::new(key) }
    }

    /// Partitions by a key that a function borrows from the record: nothing is allocated.
    pub fn key_by_view<K, F>(self, key: F) -> KeyedStream<T, P, ViewKey<K, F>>
    where
        K: Record,
        F: for<'v> KeyView<'v, T, K> + Clone + Send + 'static,
    {
        KeyedStream { stream: self, selector: ViewKey::new(key) }
    }

    /// Windows over all records regardless of a key. Aggregates are merged locally in each subtask before one subtask
    /// merges them all.
    pub fn window_all<W: WindowAssigner>(self, assigner: W) -> AllWindowedStream<T, P::Base, W> {
        AllWindowedStream { stream: self.open_end(), assigner }
    }

    /// Ends the stream in a sink.
    pub fn sink<S: Sink<T>>(self, sink: S) -> SinkStream<Fused<P::Base, SinkStep<S>>> {
        let name = format!("Sink: {}", sink.name());
        SinkStream::new(self.fuse(&name, SinkStep::new(sink)))
    }
}

impl<T: Record, P: Pipe<Out = T>> Stream<T, P> {
    fn edit(self, change: impl FnOnce(&mut crate::graph::Node)) -> Self {
        change(&mut self.env.graph.borrow_mut().nodes[self.segment.0]);
        self
    }

    /// Names the last operator: in `explain`, metrics and messages.
    pub fn name(self, name: &str) -> Self {
        self.edit(|node| {
            if let Some(operator) = node.operators.last_mut() {
                name.clone_into(&mut operator.name);
            }
        })
    }

    /// Gives the last operator a stable id, by which its state is found again in a changed job.
    pub fn uid(self, uid: &str) -> Self {
        self.edit(|node| {
            if let Some(operator) = node.operators.last_mut() {
                operator.uid = Some(uid.to_owned());
            }
        })
    }

    /// How long the last operator's records may wait in a buffer: zero sends each at once.
    pub fn buffer_timeout(self, timeout: Duration) -> Stream<T, Placed<P>> {
        self.edit(|node| node.buffer_timeout = Some(buffer_timeout(timeout))).placed()
    }

    /// Sends the last operator's records only when a buffer is full (Flink's `-1`).
    pub fn buffer_timeout_disabled(self) -> Stream<T, Placed<P>> {
        self.edit(|node| node.buffer_timeout = Some(thalweg_runtime::BufferTimeout::WhenFull)).placed()
    }

    fn placed(self) -> Stream<T, Placed<P>> {
        Stream { env: self.env, segment: self.segment, pipe: Placed(self.pipe), timed: self.timed }
    }

    /// Ends the segment; answers its main output.
    pub(crate) fn end(self) -> StreamEnd {
        let factory = forward_factory(self.pipe);
        self.env.graph.borrow_mut().nodes[self.segment.0].factory = Some(factory);
        StreamEnd { segment: self.segment, port: MAIN_PORT, timed: self.timed }
    }

    fn exchange(self, exchange: Exchange) -> Stream<T, Records<T>> {
        let env = self.env.clone();
        continue_from(&env, self.end(), exchange)
    }

    /// Sends records round robin to all subtasks of what follows.
    pub fn rebalance(self) -> Stream<T, Records<T>> {
        self.exchange(Exchange::Rebalance)
    }

    /// Sends records round robin within a local group of subtasks.
    pub fn rescale(self) -> Stream<T, Records<T>> {
        self.exchange(Exchange::Rescale)
    }

    /// Sends every record to every subtask.
    pub fn broadcast(self) -> Stream<T, Records<T>> {
        self.exchange(Exchange::Broadcast)
    }

    /// Sends each record to a random subtask.
    pub fn shuffle(self) -> Stream<T, Records<T>> {
        self.exchange(Exchange::Shuffle)
    }

    /// Sends every record to subtask 0.
    pub fn global(self) -> Stream<T, Records<T>> {
        self.exchange(Exchange::Global)
    }

    /// Keeps records on the subtask of the same index; both sides need the same parallelism.
    pub fn forward(self) -> Stream<T, Records<T>> {
        self.exchange(Exchange::Forward)
    }

    /// Sends each record to the subtask whose number a function gives (modulo the parallelism).
    pub fn partition_custom<F>(self, partition: F) -> Stream<T, Records<T>>
    where
        F: for<'v> FnMut(T::View<'v>) -> u32 + Clone + Send + 'static,
    {
        let made = factory(self.pipe, CustomTail(partition));
        self.env.graph.borrow_mut().nodes[self.segment.0].factory = Some(made);
        let end = StreamEnd { segment: self.segment, port: MAIN_PORT, timed: self.timed };
        continue_from(&self.env, end, Exchange::Custom)
    }

    /// Lets several consumers read this stream.
    pub fn shared(self) -> SharedStream<T> {
        let env = self.env.clone();
        SharedStream { end: self.end(), env, types: PhantomData }
    }

    /// Joins streams of one type into one.
    pub fn union<Q: Pipe<Out = T>>(self, other: Stream<T, Q>) -> Stream<T, Records<T>> {
        let env = self.env.clone();
        let timed = self.timed && other.timed;
        let segment = env.graph.borrow_mut().add(1, None);
        for end in [self.end(), other.end()] {
            connect::<T>(&env, StreamEnd { timed, ..end }, segment, 0, Exchange::Auto);
        }
        Stream { env, segment, pipe: Records::silent(), timed }
    }

    /// What the operators of this segment send to a side output.
    ///
    /// # Panics
    /// Where the tag's name has been used with another type on the same operator.
    pub fn side_output<U: Record>(&self, tag: &OutputTag<U>) -> Stream<U, Records<U>> {
        let port = self.env.graph.borrow().nodes[self.segment.0].side_ports.port(tag);
        let port = port.unwrap_or_else(|error| panic!("{error}"));
        continue_from(&self.env, StreamEnd { segment: self.segment, port, timed: self.timed }, Exchange::Auto)
    }
}

impl<T: Record, P: Rebase<Out = T>> Stream<T, P> {
    fn alone(self) -> Stream<T, P::Alone> {
        let mut cut = LastOperator { env: &self.env, segment: self.segment, timed: self.timed, moved: None };
        let pipe = self.pipe.rebase(&mut cut);
        let segment = cut.moved.unwrap_or(self.segment);
        Stream { env: self.env, segment, pipe, timed: self.timed }
    }

    /// How many subtasks the last operator has.
    pub fn parallelism(self, parallelism: u32) -> Stream<T, Placed<P::Alone>> {
        self.alone().edit(|node| node.parallelism = Some(parallelism)).placed()
    }

    /// How many key groups the last operator has.
    pub fn max_parallelism(self, max_parallelism: u32) -> Stream<T, Placed<P::Alone>> {
        self.alone().edit(|node| node.max_parallelism = Some(max_parallelism)).placed()
    }

    /// Which slots the last operator may share: those of operators in the same group.
    pub fn slot_sharing_group(self, group: &str) -> Stream<T, Placed<P::Alone>> {
        self.alone().edit(|node| node.slot_group = Some(group.to_owned())).placed()
    }

    /// Does not chain the last operator to the one before it.
    pub fn start_new_chain(self) -> Stream<T, P::Alone> {
        self.alone().edit(|node| node.chaining = Chaining::Head)
    }

    /// Chains the last operator to no other.
    pub fn disable_chaining(self) -> Stream<T, Placed<P::Alone>> {
        self.alone().edit(|node| node.chaining = Chaining::Never).placed()
    }
}

impl<T: Record> SharedStream<T> {
    /// Another reader of the stream.
    pub fn stream(&self) -> Stream<T, Records<T>> {
        continue_from(&self.env, self.end, Exchange::Auto)
    }
}
