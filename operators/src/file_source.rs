//! Reading files: splits dealt to subtasks, one split per file at a time, watermarks per split.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use thalweg_io::connect::{FileFormat, FileSplit, SplitAssignment, SplitReader, Step, plan_splits};
use thalweg_model::{Elem, Record, metrics::Counter, time::MIN_WATERMARK};
use thalweg_runtime::{SegmentContext, SourceStatus};

use crate::{
    error::Error,
    pipe::Emit,
    source::{Source, SourceError},
    watermark::{Generator, WatermarkStrategy},
};

/// Bytes of a split unless [`FileSource::split_bytes`] says otherwise.
pub const DEFAULT_SPLIT_BYTES: u64 = 16 << 20;

/// Most files that a subtask has open at once; further ones wait their turn.
const MAX_OPEN_FILES: usize = 64;

/// How far file sources are, over all their subtasks.
#[derive(Debug, Default)]
pub struct FileProgress {
    done_bytes: AtomicU64,
    total_bytes: u64,
}

impl FileProgress {
    /// Bytes that have been dealt with.
    pub fn done_bytes(&self) -> u64 {
        self.done_bytes.load(Relaxed)
    }

    /// Bytes of all files.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }
}

type TimestampOf<T> = for<'v> fn(<T as Record>::View<'v>) -> i64;

/// A source over files of one format. Build it, then hand it to [`Environment::from_files`](crate::Environment::from_files).
pub struct FileSource<Fmt: FileFormat<Item: Record>, F = TimestampOf<<Fmt as FileFormat>::Item>> {
    format: Fmt,
    paths: Vec<PathBuf>,
    split_bytes: u64,
    strategy: Option<WatermarkStrategy<F>>,
}

impl<Fmt: FileFormat<Item: Record>> FileSource<Fmt> {
    /// Reads these files, or the regular files in these folders.
    pub fn new<P: Into<PathBuf>>(format: Fmt, paths: impl IntoIterator<Item = P>) -> Self {
        let paths = paths.into_iter().map(Into::into).collect();
        Self { format, paths, split_bytes: DEFAULT_SPLIT_BYTES, strategy: None }
    }
}

impl<Fmt: FileFormat<Item: Record>, F> FileSource<Fmt, F> {
    /// How many bytes a split has, whatever the parallelism.
    #[must_use]
    pub fn split_bytes(mut self, bytes: u64) -> Self {
        self.split_bytes = bytes;
        self
    }

    /// Takes timestamps from the records and makes watermarks per split: a subtask's watermark is the smallest of the
    /// splits it is reading.
    pub fn watermarks<G>(self, strategy: WatermarkStrategy<G>) -> FileSource<Fmt, G>
    where
        G: for<'v> FnMut(<Fmt::Item as Record>::View<'v>) -> i64 + Clone + Send + 'static,
    {
        let Self { format, paths, split_bytes, .. } = self;
        FileSource { format, paths, split_bytes, strategy: Some(strategy) }
    }

    pub(crate) fn timed(&self) -> bool {
        self.strategy.is_some()
    }

    /// The source itself, and how far it is, for use within a source of one's own.
    ///
    /// # Errors
    /// A path is missing, unreadable or of the wrong kind.
    pub fn into_source(self) -> Result<(FileSplits<Fmt, F>, Arc<FileProgress>), Error> {
        let plan = plan_splits(&self.paths, self.split_bytes)?;
        let total_bytes = plan.iter().map(FileSplit::bytes).sum();
        let progress = Arc::new(FileProgress { done_bytes: AtomicU64::new(0), total_bytes });
        let splits = FileSplits {
            format: self.format,
            plan: Arc::new(plan),
            strategy: self.strategy,
            progress: progress.clone(),
            waiting: VecDeque::new(),
            active: Vec::new(),
            turn: 0,
            last_watermark: MIN_WATERMARK,
            interval_ms: 0,
            next_ms: None,
            emitted: 0,
            skipped: 0,
            errors: None,
        };
        Ok((splits, progress))
    }
}

/// The source behind a [`FileSource`].
pub struct FileSplits<Fmt: FileFormat, F> {
    format: Fmt,
    plan: Arc<Vec<FileSplit>>,
    strategy: Option<WatermarkStrategy<F>>,
    progress: Arc<FileProgress>,
    /// Files with the splits of theirs that are still to be read, in order.
    waiting: VecDeque<VecDeque<FileSplit>>,
    active: Vec<Active<Fmt::Reader>>,
    turn: usize,
    last_watermark: i64,
    interval_ms: i64,
    next_ms: Option<i64>,
    emitted: u64,
    skipped: u64,
    errors: Option<Counter>,
}

/// A split that is being read, and what is to be read of its file afterwards.
struct Active<R> {
    reader: R,
    generator: Option<Generator>,
    counted_bytes: u64,
    rest: VecDeque<FileSplit>,
}

impl<Fmt: FileFormat, F: Clone> Clone for FileSplits<Fmt, F> {
    fn clone(&self) -> Self {
        Self {
            format: self.format.clone(),
            plan: self.plan.clone(),
            strategy: self.strategy.clone(),
            progress: self.progress.clone(),
            waiting: VecDeque::new(),
            active: Vec::new(),
            turn: 0,
            last_watermark: MIN_WATERMARK,
            interval_ms: 0,
            next_ms: None,
            emitted: 0,
            skipped: 0,
            errors: None,
        }
    }
}

impl<Fmt: FileFormat<Item: Record>, F> FileSplits<Fmt, F> {
    fn begin(&mut self, mut rest: VecDeque<FileSplit>) -> Result<(), SourceError> {
        if let Some(split) = rest.pop_front() {
            let reader = self.format.open(&split)?;
            let generator = self.strategy.as_ref().map(WatermarkStrategy::make);
            self.active.push(Active { reader, generator, counted_bytes: 0, rest });
        }
        Ok(())
    }

    fn watermark<E: Emit<Fmt::Item>>(&mut self, emit: &mut E) {
        let current = |active: &mut Active<Fmt::Reader>| {
            active.generator.as_mut().and_then(Generator::on_periodic).unwrap_or(MIN_WATERMARK)
        };
        let smallest = self.active.iter_mut().map(current).min().unwrap_or(MIN_WATERMARK);
        if self.waiting.is_empty() && smallest > self.last_watermark {
            self.last_watermark = smallest;
            emit.watermark(smallest);
        }
    }

    fn count_bytes(&mut self, at: usize) {
        let active = &mut self.active[at];
        let done_bytes = active.reader.progress().done_bytes;
        self.progress.done_bytes.fetch_add(done_bytes - active.counted_bytes, Relaxed);
        active.counted_bytes = done_bytes;
    }
}

impl<Fmt, F> Source for FileSplits<Fmt, F>
where
    Fmt: FileFormat<Item: Record, Reader: Send>,
    F: for<'v> FnMut(<Fmt::Item as Record>::View<'v>) -> i64 + Clone + Send + 'static,
{
    type Out = Fmt::Item;

    fn open(&mut self, ctx: &mut SegmentContext) -> Result<(), SourceError> {
        let assignment = SplitAssignment::new(ctx.parallelism as usize);
        let plan = self.plan.clone();
        for (_, split) in assignment.splits_of(ctx.subtask as usize, &plan) {
            match self.waiting.back_mut().filter(|file| file.back().is_some_and(|last| last.path == split.path)) {
                Some(file) => file.push_back(split.clone()),
                None => self.waiting.push_back(VecDeque::from([split.clone()])),
            }
        }
        if self.strategy.is_some() && ctx.auto_watermark_interval_ms > 0 {
            self.interval_ms = i64::try_from(ctx.auto_watermark_interval_ms).unwrap_or(i64::MAX);
            self.next_ms = Some(ctx.clock.now_ms().saturating_add(self.interval_ms));
        }
        self.errors = ctx.metrics.first().map(|metrics| metrics.group().counter("numRecordsInErrors"));
        Ok(())
    }

    fn poll<E: Emit<Fmt::Item>>(&mut self, budget: usize, emit: &mut E) -> Result<SourceStatus, SourceError> {
        while self.active.len() < MAX_OPEN_FILES {
            let Some(file) = self.waiting.pop_front() else { break };
            self.begin(file)?;
        }
        if self.active.is_empty() {
            return Ok(SourceStatus::Ended);
        }
        self.turn = (self.turn + 1) % self.active.len();
        let at = self.turn;
        let mut left = budget;
        while left > 0 && emit.room() {
            let active = &mut self.active[at];
            match active.reader.poll_next()? {
                Step::Item(record) => {
                    left -= 1;
                    self.emitted += 1;
                    let view = record.view();
                    let Some(strategy) = &mut self.strategy else {
                        emit.emit(Elem::new(view, MIN_WATERMARK));
                        continue;
                    };
                    let timestamp = (strategy.timestamp)(view);
                    emit.emit(Elem::new(view, timestamp));
                    if active.generator.as_mut().and_then(|generator| generator.on_event(timestamp)).is_some() {
                        self.watermark(emit);
                    }
                }
                Step::Pending => break,
                Step::End => {
                    self.count_bytes(at);
                    let ended = self.active.swap_remove(at);
                    self.skipped += ended.reader.skipped();
                    self.begin(ended.rest)?;
                    return Ok(SourceStatus::More);
                }
            }
        }
        self.count_bytes(at);
        Ok(SourceStatus::More)
    }

    fn next_deadline_ms(&self) -> Option<i64> {
        self.next_ms
    }

    fn periodic<E: Emit<Fmt::Item>>(&mut self, now_ms: i64, emit: &mut E) {
        self.next_ms = Some(now_ms.saturating_add(self.interval_ms));
        self.watermark(emit);
    }

    fn emitted(&self) -> u64 {
        self.emitted
    }

    fn report(&mut self) {
        if let Some(errors) = &self.errors {
            errors.set(self.skipped + self.active.iter().map(|active| active.reader.skipped()).sum::<u64>());
        }
    }
}
