//! Reading files: splits dealt to subtasks, one split per file at a time, watermarks per split.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use thalweg_io::connect::{FileFormat, FileMark, FileSplit, SplitAssignment, SplitReader, Step, plan_splits};
use thalweg_model::{
    Elem, Record,
    metrics::{Counter, OperatorMetrics},
    time::MIN_WATERMARK,
};
use thalweg_runtime::{SegmentContext, SourceStatus};

pub use crate::split_position::SplitPosition;
use crate::{
    checkpoint::{OperatorRestore, OperatorSnapshot},
    error::Error,
    pipe::Emit,
    source::{Source, SourceError},
    split_position::{self, Piece},
    watermark::{Generator, WatermarkStrategy},
};

#[cfg(test)]
mod tests;

/// Bytes of a split unless [`FileSource::split_bytes`] says otherwise.
pub const DEFAULT_SPLIT_BYTES: u64 = 16 << 20;

/// The positions' name in checkpoints.
const STATE: &str = "splits";

/// Most files that a subtask has open at once; further ones wait their turn.
const MAX_OPEN_FILES: usize = 64;

/// How far file sources are, over all their subtasks.
#[derive(Debug, Default)]
pub struct FileProgress {
    /// By subtask; each writes its own. A restarted one begins anew.
    done_bytes: Mutex<BTreeMap<u32, Arc<AtomicU64>>>,
    total_bytes: u64,
}

impl FileProgress {
    /// Bytes that have been dealt with.
    pub fn done_bytes(&self) -> u64 {
        let done_bytes = self.done_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        done_bytes.values().map(|bytes| bytes.load(Relaxed)).sum()
    }

    /// Bytes of all files.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    fn of_subtask(&self, subtask: u32) -> Arc<AtomicU64> {
        let bytes = Arc::default();
        self.done_bytes.lock().unwrap_or_else(PoisonError::into_inner).insert(subtask, Arc::clone(&bytes));
        bytes
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
    ///
    /// A file is there to be read: a split is never idle, however long it is held back from behind, and a subtask that has
    /// read its splits ends, after which nobody waits for it. So
    /// [`with_idleness`](WatermarkStrategy::with_idleness) changes nothing here, and is warned of.
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
        if self.strategy.as_ref().is_some_and(WatermarkStrategy::has_idleness) {
            tracing::warn!("with_idleness has no effect on a file source: what is left of a file is never idle");
        }
        let plan = plan_splits(&self.paths, self.split_bytes)?;
        let marks = split_position::marks(&plan)?;
        let total_bytes = plan.iter().map(FileSplit::bytes).sum();
        let progress = Arc::new(FileProgress { done_bytes: Mutex::default(), total_bytes });
        let splits = FileSplits {
            format: self.format,
            plan: Arc::new(plan),
            marks: Arc::new(marks),
            strategy: self.strategy,
            progress: progress.clone(),
            done_bytes: Arc::default(),
            waiting: VecDeque::new(),
            active: Vec::new(),
            turn: 0,
            last_watermark: MIN_WATERMARK,
            interval_ms: 0,
            next_ms: None,
            emitted: 0,
            skipped: 0,
            errors: None,
            read_bytes: 0,
            bytes: None,
        };
        Ok((splits, progress))
    }
}

/// The source behind a [`FileSource`].
///
/// Its positions in checkpoints are exact at any parallelism: what remains of splits that are being read, and the splits
/// that wait. A restored job deals them out anew and reads just them, whatever the paths name by then; it refuses a file
/// whose length or beginning has changed. Watermarks start anew, from what is read after the checkpoint.
pub struct FileSplits<Fmt: FileFormat, F> {
    format: Fmt,
    plan: Arc<Vec<FileSplit>>,
    /// What the files are like, by split of the plan.
    marks: Arc<Vec<FileMark>>,
    strategy: Option<WatermarkStrategy<F>>,
    progress: Arc<FileProgress>,
    /// This subtask's part of the progress.
    done_bytes: Arc<AtomicU64>,
    /// Files with the splits of theirs that are still to be read, in order.
    waiting: VecDeque<VecDeque<Piece>>,
    active: Vec<Active<Fmt::Reader>>,
    turn: usize,
    last_watermark: i64,
    interval_ms: i64,
    next_ms: Option<i64>,
    emitted: u64,
    skipped: u64,
    errors: Option<Counter>,
    read_bytes: u64,
    bytes: Option<Counter>,
}

/// A split that is being read, and what is to be read of its file afterwards.
struct Active<R> {
    /// As it was begun.
    piece: Piece,
    reader: R,
    generator: Option<Generator>,
    /// The split's watermark so far.
    watermark: i64,
    counted_bytes: u64,
    rest: VecDeque<Piece>,
}

impl<R: SplitReader> Active<R> {
    fn skipped(&self) -> u64 {
        self.piece.skipped + self.reader.skipped()
    }

    /// What remains of the split.
    fn remaining(&self) -> Piece {
        Piece { at: self.reader.position(), skipped: self.skipped(), ..self.piece.clone() }
    }
}

impl<Fmt: FileFormat, F: Clone> Clone for FileSplits<Fmt, F> {
    fn clone(&self) -> Self {
        Self {
            format: self.format.clone(),
            plan: self.plan.clone(),
            marks: self.marks.clone(),
            strategy: self.strategy.clone(),
            progress: self.progress.clone(),
            done_bytes: Arc::default(),
            waiting: VecDeque::new(),
            active: Vec::new(),
            turn: 0,
            last_watermark: MIN_WATERMARK,
            interval_ms: 0,
            next_ms: None,
            emitted: 0,
            skipped: 0,
            errors: None,
            read_bytes: 0,
            bytes: None,
        }
    }
}

impl<Fmt: FileFormat<Item: Record>, F> FileSplits<Fmt, F> {
    /// Takes this subtask's splits of the plan.
    fn assign(&mut self, subtask: u32, parallelism: u32) {
        let assignment = SplitAssignment::new(parallelism as usize);
        let own = assignment.splits_of(subtask as usize, &self.plan);
        self.waiting = split_position::by_file(own.map(|(at, split)| Piece::whole(split, self.marks[at])));
        self.done_bytes = self.progress.of_subtask(subtask);
    }

    /// Takes this subtask's splits of what remained at a checkpoint.
    fn resume(&mut self, remaining: Vec<SplitPosition>, subtask: u32, parallelism: u32) -> Result<(), SourceError> {
        if subtask == 0 {
            let remaining_bytes: u64 = remaining.iter().map(|split| split.end - split.start).sum();
            self.done_bytes.store(self.progress.total_bytes.saturating_sub(remaining_bytes), Relaxed);
        }
        self.waiting = split_position::by_file(split_position::share(remaining, &self.plan, subtask, parallelism));
        Ok(split_position::check_files(&self.waiting)?)
    }

    /// What remains.
    fn positions(&self) -> Result<Vec<SplitPosition>, SourceError> {
        let mut positions = Vec::new();
        for active in &self.active {
            positions.push(active.remaining().position()?);
        }
        let waiting = self.active.iter().flat_map(|active| &active.rest).chain(self.waiting.iter().flatten());
        for piece in waiting {
            positions.push(piece.position()?);
        }
        Ok(positions)
    }

    fn begin(&mut self, mut rest: VecDeque<Piece>) -> Result<(), SourceError> {
        if let Some(piece) = rest.pop_front() {
            let reader = self.format.open_at(&piece.split, piece.at)?;
            let generator = self.strategy.as_ref().map(WatermarkStrategy::make);
            self.active.push(Active { piece, reader, generator, watermark: MIN_WATERMARK, counted_bytes: 0, rest });
        }
        Ok(())
    }

    /// Emits the smallest watermark of the splits, where it has risen.
    fn advance<E: Emit<Fmt::Item>>(&mut self, emit: &mut E) {
        let smallest = self.active.iter().map(|active| active.watermark).min().unwrap_or(MIN_WATERMARK);
        if self.waiting.is_empty() && smallest > self.last_watermark {
            self.last_watermark = smallest;
            emit.watermark(smallest);
        }
    }

    fn count_bytes(&mut self, at: usize) {
        let active = &mut self.active[at];
        let done_bytes = active.reader.progress().done_bytes;
        self.done_bytes.fetch_add(done_bytes - active.counted_bytes, Relaxed);
        self.read_bytes += done_bytes - active.counted_bytes;
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
        self.assign(ctx.subtask, ctx.parallelism);
        if self.strategy.is_some() && ctx.auto_watermark_interval_ms > 0 {
            self.interval_ms = i64::try_from(ctx.auto_watermark_interval_ms).unwrap_or(i64::MAX);
            self.next_ms = Some(ctx.clock.now_ms().saturating_add(self.interval_ms));
        }
        self.bytes = ctx.metrics.first().map(OperatorMetrics::num_bytes_in);
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
                    let mark = active.generator.as_mut().and_then(|generator| generator.on_event(timestamp));
                    if let Some(mark) = mark.filter(|mark| *mark > active.watermark) {
                        let held_back = active.watermark <= self.last_watermark;
                        active.watermark = mark;
                        if held_back {
                            self.advance(emit);
                        }
                    }
                }
                Step::Pending => break,
                Step::End => {
                    self.count_bytes(at);
                    let ended = self.active.swap_remove(at);
                    self.skipped += ended.skipped();
                    self.begin(ended.rest)?;
                    // It may be the one that held the others back.
                    self.advance(emit);
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
        for active in &mut self.active {
            let mark = active.generator.as_mut().and_then(Generator::on_periodic).unwrap_or(MIN_WATERMARK);
            active.watermark = active.watermark.max(mark);
        }
        self.advance(emit);
    }

    fn emitted(&self) -> u64 {
        self.emitted
    }

    fn report(&mut self) {
        if let Some(bytes) = &self.bytes {
            bytes.set(self.read_bytes);
        }
        if let Some(errors) = &self.errors {
            errors.set(self.skipped + self.active.iter().map(Active::skipped).sum::<u64>());
        }
    }

    fn restore(&mut self, restored: &OperatorRestore<'_>) -> Result<(), SourceError> {
        let remaining = restored.positions::<SplitPosition>(STATE).map_err(|error| error.message)?;
        self.resume(remaining, restored.subtask(), restored.parallelism())
    }

    fn snapshot(&mut self, snapshot: &mut OperatorSnapshot<'_>) -> Result<(), SourceError> {
        snapshot.positions::<SplitPosition>(STATE, self.positions()?);
        Ok(())
    }
}
