//! Sinks: the trait, printing, collecting, discarding; and the end of a stream. Those to files are beside it.

use std::{
    io::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use thalweg_model::{CheckpointId, Elem, Record};
use thalweg_runtime::{Clock, Progress, SegmentContext, TaskError};

use crate::{
    checkpoint::{OperatorRestore, OperatorSnapshot},
    fuse::Step,
    op_metrics::OpMetrics,
    pipe::{Emit, Pipe},
    placed::{Extend, Rebase},
    segment::{NoTail, factory},
    stream::Stream,
};

pub use crate::plain_file_sink::{CsvFile, NdjsonFile, csv_file, ndjson_file};

/// Why a sink failed: what happened and what to do, in one line.
pub type SinkError = Box<dyn std::error::Error + Send + Sync>;

/// Where a subtask of a sink runs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SinkContext {
    /// Index of the subtask.
    pub subtask: u32,
    /// How many there are.
    pub parallelism: u32,
    /// Wakes the slot when a sink that was not ready is ready again.
    pub waker: thalweg_runtime::SlotWaker,
    /// Id of the job: 32 hexadecimal digits, as the job's checkpoints have it.
    pub job_id: String,
    /// Id of the sink: 32 hexadecimal digits, made from its uid where it has one. The same for all its subtasks.
    pub operator_id: String,
    /// Whether the job starts from a checkpoint.
    pub restoring: bool,
    /// Where it does not: the last checkpoint that somebody may keep all the same, and start from another time. What was
    /// left behind for a later one belongs to none. `None` where that is not known.
    pub known_checkpoint: Option<CheckpointId>,
    /// Whether checkpoints are taken: only then does a sink that commits with them have to wait for one.
    pub checkpointing: bool,
    /// The life of the job, of which this may be one attempt.
    pub life: thalweg_runtime::JobLife,
    /// The slot's clock.
    pub clock: Arc<dyn Clock>,
}

/// Takes the records at the end of a stream. Each subtask works on a clone.
pub trait Sink<T: Record>: Clone + Send + 'static {
    /// Called once before the first record.
    ///
    /// # Errors
    /// Fails the task.
    fn open(&mut self, ctx: &SinkContext) -> Result<(), SinkError> {
        let _ = ctx;
        Ok(())
    }
    /// Takes a record. `timestamp` is `i64::MIN` where the stream has none.
    ///
    /// # Errors
    /// Fails the task.
    fn write(&mut self, view: T::View<'_>, timestamp: i64) -> Result<(), SinkError>;
    /// Whether it can take a record now; a sink that cannot holds the stream back.
    fn ready(&self) -> bool {
        true
    }
    /// Whether everything it has taken has left it; asked before the job may end.
    fn drained(&self) -> bool {
        true
    }
    /// A batch is over, or [`next_deadline_ms`](Self::next_deadline_ms) has come: hands over what is buffered, or, where that
    /// would be too often, says by when it is to be.
    ///
    /// # Errors
    /// Fails the task.
    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
    /// When to flush although nothing comes, in milliseconds of the wall clock. Asked often: answer from a field.
    fn next_deadline_ms(&self) -> Option<i64> {
        None
    }
    /// The stream has ended: make everything durable.
    ///
    /// # Errors
    /// Fails the task.
    fn finish(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
    /// Takes up what was pending in the checkpoint that the job starts from. Called after `open`, where there is one.
    ///
    /// # Errors
    /// Fails the task.
    fn restore(&mut self, restored: &OperatorRestore<'_>) -> Result<(), SinkError> {
        let _ = restored;
        Ok(())
    }
    /// The barrier of a checkpoint: makes what it has taken safe, and hands over what is to be committed when the
    /// checkpoint is complete.
    ///
    /// # Errors
    /// Fails the task.
    fn snapshot(&mut self, snapshot: &mut OperatorSnapshot<'_>) -> Result<(), SinkError> {
        let _ = snapshot;
        Ok(())
    }
    /// A checkpoint is complete: commits what is pending up to it. May come more than once, or only for a later one.
    ///
    /// # Errors
    /// Fails the task.
    fn checkpoint_complete(&mut self, checkpoint: CheckpointId) -> Result<(), SinkError> {
        let _ = checkpoint;
        Ok(())
    }
    /// The last checkpoint is complete, and nothing comes after this: finishes what
    /// [`checkpoint_complete`](Self::checkpoint_complete) may have left to other threads. May wait.
    ///
    /// # Errors
    /// Fails the task.
    fn settle(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
    /// A checkpoint came to nothing. A hint: what is pending is committed with the next one.
    fn checkpoint_aborted(&mut self, checkpoint: CheckpointId) {
        let _ = checkpoint;
    }
    /// The last call in every case, after a failure and a cancellation too: hands over what is still buffered, as well as
    /// may be.
    ///
    /// # Errors
    /// Are of no consequence any more.
    fn close(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
    /// Its name in graphs and metrics.
    fn name(&self) -> &str {
        "Sink"
    }
}

/// The operator that runs a [`Sink`]; it emits nothing.
pub struct SinkStep<S> {
    sink: S,
    error: Option<TaskError>,
}

impl<S> SinkStep<S> {
    pub(crate) fn new(sink: S) -> Self {
        Self { sink, error: None }
    }

    #[cold]
    fn failed(&mut self, error: SinkError) {
        self.error.get_or_insert_with(|| failure(error));
    }

    fn note(&mut self, result: Result<(), SinkError>) {
        if let Err(error) = result {
            self.failed(error);
        }
    }
}

impl<S: Clone> Clone for SinkStep<S> {
    fn clone(&self) -> Self {
        Self::new(self.sink.clone())
    }
}

impl<T: Record, S: Sink<T>> Step<T> for SinkStep<S> {
    type Out = ();

    fn open(&mut self, ctx: &mut SegmentContext, metrics: &OpMetrics) {
        let ctx = SinkContext {
            subtask: ctx.subtask,
            parallelism: ctx.parallelism,
            waker: ctx.waker.clone(),
            job_id: ctx.job_id.to_string(),
            operator_id: ctx.operators.get(metrics.index()).map(|operator| operator.id.clone()).unwrap_or_default(),
            restoring: ctx.restored.is_some(),
            known_checkpoint: ctx.known_checkpoint,
            checkpointing: ctx.checkpointing,
            life: ctx.life.clone(),
            clock: ctx.clock.clone(),
        };
        let result = self.sink.open(&ctx);
        self.note(result);
    }
    #[inline(always)]
    fn step<E: Emit<()>>(&mut self, elem: Elem<'_, T>, _emit: &mut E) {
        if let Err(error) = self.sink.write(elem.view, elem.timestamp) {
            self.failed(error);
        }
    }
    fn emitted(&self, _taken: u64) -> u64 {
        0
    }
    #[inline(always)]
    fn ready(&self) -> bool {
        self.error.is_none() && self.sink.ready()
    }
    fn take_error(&mut self) -> Option<TaskError> {
        self.error.take()
    }
    fn finish<E: Emit<()>>(&mut self, _emit: &mut E) -> Result<Progress, TaskError> {
        if !self.sink.drained() {
            return Ok(Progress::Blocked);
        }
        let result = self.sink.finish();
        self.note(result);
        Ok(Progress::Done)
    }
    fn flush(&mut self) {
        let result = self.sink.flush();
        self.note(result);
    }
    fn next_deadline_ms(&self) -> Option<i64> {
        self.sink.next_deadline_ms()
    }
    fn close(&mut self) {
        let result = self.sink.flush().and_then(|()| self.sink.close());
        self.note(result);
    }
    fn restore(&mut self, restored: &OperatorRestore<'_>) -> Result<(), TaskError> {
        self.sink.restore(restored).map_err(failure)
    }
    fn snapshot(&mut self, snapshot: &mut OperatorSnapshot<'_>) -> Result<(), TaskError> {
        self.sink.flush().and_then(|()| self.sink.snapshot(snapshot)).map_err(failure)
    }
    fn checkpoint_complete(&mut self, checkpoint: CheckpointId) -> Result<(), TaskError> {
        self.sink.checkpoint_complete(checkpoint).map_err(failure)
    }
    fn settle(&mut self) -> Result<(), TaskError> {
        self.sink.settle().map_err(failure)
    }
    fn checkpoint_aborted(&mut self, checkpoint: CheckpointId) {
        self.sink.checkpoint_aborted(checkpoint);
    }
}

fn failure(error: SinkError) -> TaskError {
    // One that came from the engine stays what it is.
    error.downcast::<TaskError>().map_or_else(|error| TaskError::new("", error.to_string()), |error| *error)
}

/// A stream that has ended in a sink. The sink can still be named and placed; it joins the job when this is dropped.
pub struct SinkStream<P: Pipe<Out = ()>> {
    stream: Option<Stream<(), P>>,
}

impl<P: Pipe<Out = ()>> SinkStream<P> {
    pub(crate) fn new(stream: Stream<(), P>) -> Self {
        Self { stream: Some(stream) }
    }

    fn change<Q: Pipe<Out = ()>>(mut self, change: impl FnOnce(Stream<(), P>) -> Stream<(), Q>) -> SinkStream<Q> {
        SinkStream { stream: self.stream.take().map(change) }
    }

    /// Names the sink.
    pub fn name(self, name: &str) -> Self {
        self.change(|stream| stream.name(name))
    }

    /// Gives the sink a stable id.
    pub fn uid(self, uid: &str) -> Self {
        self.change(|stream| stream.uid(uid))
    }
}

impl<P: Rebase<Out = ()> + Extend> SinkStream<P> {
    /// How many subtasks the sink has.
    pub fn parallelism(self, parallelism: u32) -> SinkStream<crate::placed::Placed<P::Alone>> {
        self.change(|stream| stream.parallelism(parallelism))
    }

    /// Which slots the sink may share.
    pub fn slot_sharing_group(self, group: &str) -> SinkStream<crate::placed::Placed<P::Alone>> {
        self.change(|stream| stream.slot_sharing_group(group))
    }

    /// Chains the sink to no other operator.
    pub fn disable_chaining(self) -> SinkStream<crate::placed::Placed<P::Alone>> {
        self.change(|stream| stream.disable_chaining())
    }
}

impl<P: Pipe<Out = ()>> Drop for SinkStream<P> {
    fn drop(&mut self) {
        if let Some(Stream { env, segment, pipe, .. }) = self.stream.take() {
            env.graph.borrow_mut().nodes[segment.0].factory = Some(factory(pipe, NoTail));
        }
    }
}

/// Prints each record to standard output, prefixed by the subtask (from 1) where there are several.
#[derive(Clone, Debug, Default)]
pub struct Print {
    prefix: String,
    text: Vec<u8>,
}

/// A sink that prints.
pub fn print() -> Print {
    Print::default()
}

impl<T: Record> Sink<T> for Print {
    fn open(&mut self, ctx: &SinkContext) -> Result<(), SinkError> {
        if ctx.parallelism > 1 {
            self.prefix = format!("{}> ", ctx.subtask + 1);
        }
        Ok(())
    }
    fn write(&mut self, view: T::View<'_>, _timestamp: i64) -> Result<(), SinkError> {
        Ok(writeln!(self.text, "{}{view:?}", self.prefix)?)
    }
    fn flush(&mut self) -> Result<(), SinkError> {
        if !self.text.is_empty() {
            std::io::stdout().lock().write_all(&self.text).map_err(unprinted)?;
            self.text.clear();
        }
        Ok(())
    }
    fn name(&self) -> &str {
        "Print"
    }
}

/// Why nothing more is printed.
fn unprinted(error: std::io::Error) -> SinkError {
    match error.kind() {
        std::io::ErrorKind::BrokenPipe => Box::new(TaskError::output_closed()),
        _ => format!("cannot write to standard output: {error}").into(),
    }
}

/// What a [`collect`] sink has taken.
#[derive(Debug)]
pub struct Collected<T>(Arc<Mutex<Vec<T>>>);

impl<T> Clone for Collected<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Collected<T> {
    /// Takes out the records so far, in order per subtask.
    pub fn take(&self) -> Vec<T> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Collects records in memory, for tests and embedding.
#[derive(Debug)]
pub struct Collect<T> {
    batch: Vec<T>,
    all: Collected<T>,
}

/// A sink that collects, and the place where its records can be had.
pub fn collect<T: Record>() -> (Collect<T>, Collected<T>) {
    let all = Collected(Arc::default());
    (Collect { batch: Vec::new(), all: all.clone() }, all)
}

impl<T> Clone for Collect<T> {
    fn clone(&self) -> Self {
        Self { batch: Vec::new(), all: self.all.clone() }
    }
}

impl<T: Record> Sink<T> for Collect<T> {
    fn write(&mut self, view: T::View<'_>, _timestamp: i64) -> Result<(), SinkError> {
        self.batch.push(T::from_view(view));
        Ok(())
    }
    fn flush(&mut self) -> Result<(), SinkError> {
        if !self.batch.is_empty() {
            self.all.0.lock().unwrap_or_else(PoisonError::into_inner).append(&mut self.batch);
        }
        Ok(())
    }
    fn name(&self) -> &str {
        "Collect"
    }
}

/// Drops records and counts them.
#[derive(Debug, Default)]
pub struct Discard {
    seen: u64,
    published: u64,
    total: DiscardCount,
}

/// How many records a [`discard`] sink has dropped, over all its subtasks.
#[derive(Clone, Debug, Default)]
pub struct DiscardCount(Arc<AtomicU64>);

impl DiscardCount {
    /// The count; exact once the job has ended.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A sink that drops, and its counter.
pub fn discard() -> (Discard, DiscardCount) {
    let sink = Discard::default();
    let total = sink.total.clone();
    (sink, total)
}

impl Clone for Discard {
    fn clone(&self) -> Self {
        Self { total: self.total.clone(), ..Self::default() }
    }
}

impl<T: Record> Sink<T> for Discard {
    #[inline(always)]
    fn write(&mut self, view: T::View<'_>, _timestamp: i64) -> Result<(), SinkError> {
        std::hint::black_box(&view);
        self.seen += 1;
        Ok(())
    }
    fn flush(&mut self) -> Result<(), SinkError> {
        self.total.0.fetch_add(self.seen - self.published, Relaxed);
        self.published = self.seen;
        Ok(())
    }
    fn name(&self) -> &str {
        "Discard"
    }
}

/// Calls a function with each record.
#[derive(Clone)]
pub struct ForEach<F>(F);

/// A sink that calls a function with each record's view.
pub fn for_each<F>(function: F) -> ForEach<F> {
    ForEach(function)
}

impl<T: Record, F> Sink<T> for ForEach<F>
where
    F: for<'v> FnMut(T::View<'v>) + Clone + Send + 'static,
{
    #[inline(always)]
    fn write(&mut self, view: T::View<'_>, _timestamp: i64) -> Result<(), SinkError> {
        (self.0)(view);
        Ok(())
    }
    fn name(&self) -> &str {
        "ForEach"
    }
}
