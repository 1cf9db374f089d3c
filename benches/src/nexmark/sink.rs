//! The end of a query: its rows counted and hashed, written where asked for, and their latency measured.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    marker::PhantomData,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use hdrhistogram::Histogram;
use thalweg::{
    Record,
    sink::{Sink, SinkContext, SinkError},
};

use super::{DigestRow, RowDigest, WriteJson, run_state::RunState, source::Due};

/// Rows are written in pieces of about this size.
const CHUNK_BYTES: usize = 64 << 10;
/// The longest latency that is told from longer ones: an hour.
const MAX_LATENCY_NS: u64 = 3_600_000_000_000;

/// What the latency of a row is counted from. Its end is always the moment at which the row reaches the sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LatencyOf {
    /// Nothing is measured.
    Nothing,
    /// The time that the row's event was scheduled for.
    Event,
    /// The time that the event was scheduled for with which event time reached the end of the row's window and
    /// `delay_ms` more, so that the watermark could close it (of several subtasks, the last to get there). For windows
    /// that only the end of the input closes: the time of the last event.
    Window {
        /// How far the watermark stays behind the events.
        delay_ms: i64,
    },
}

/// What has come of a query.
#[derive(Debug)]
pub struct Rows {
    /// All rows.
    pub digest: RowDigest,
    /// Latencies in nanoseconds; empty if none were measured.
    pub latency_ns: Histogram<u64>,
}

/// A sink for the rows of a query.
pub struct RowSink<R> {
    rows: Arc<Mutex<Rows>>,
    run: RunState,
    latency_of: LatencyOf,
    output: Option<PathBuf>,
    local: Rows,
    file: Option<RowFile>,
    started: Instant,
    /// The window of the last row, by its end, and its due time.
    window: (i64, u64),
    types: PhantomData<fn(R)>,
}

struct RowFile {
    file: File,
    path: PathBuf,
    text: Vec<u8>,
}

fn no_rows() -> Rows {
    let latency_ns = Histogram::new_with_bounds(1, MAX_LATENCY_NS, 3).expect("bounds are in order");
    Rows { digest: RowDigest::default(), latency_ns }
}

impl<R> RowSink<R> {
    /// A sink of a run. With `output`, a path without extension, rows are written as NDJSON to `output.ndjson`, or to
    /// `output/part-<subtask>.ndjson` where there are several subtasks.
    pub fn new(run: RunState, latency_of: LatencyOf, output: Option<PathBuf>) -> Self {
        Self::with_rows(Arc::new(Mutex::new(no_rows())), run, latency_of, output)
    }

    fn with_rows(rows: Arc<Mutex<Rows>>, run: RunState, latency_of: LatencyOf, output: Option<PathBuf>) -> Self {
        let (started, window) = (Instant::now(), (i64::MIN, 0));
        Self { rows, run, latency_of, output, local: no_rows(), file: None, started, window, types: PhantomData }
    }

    /// Where the rows can be had once the job has ended.
    pub fn rows(&self) -> Arc<Mutex<Rows>> {
        self.rows.clone()
    }

    #[inline]
    fn measure(&mut self, due_ns: u64, timestamp_ms: i64) {
        let due_ns = match self.latency_of {
            LatencyOf::Nothing => return,
            LatencyOf::Event => due_ns,
            LatencyOf::Window { delay_ms } => {
                if self.window.0 != timestamp_ms {
                    self.window = (timestamp_ms, self.run.due_of(timestamp_ms.saturating_add(1 + delay_ms)));
                }
                self.window.1
            }
        };
        let latency_ns = (self.started.elapsed().as_nanos() as u64).saturating_sub(due_ns);
        self.local.latency_ns.saturating_record(latency_ns.max(1));
    }
}

impl<R> Clone for RowSink<R> {
    fn clone(&self) -> Self {
        Self::with_rows(self.rows.clone(), self.run.clone(), self.latency_of, self.output.clone())
    }
}

impl<R: Record> Sink<Due<R>> for RowSink<R>
where
    for<'v> R::View<'v>: DigestRow + WriteJson,
{
    fn open(&mut self, ctx: &SinkContext) -> Result<(), SinkError> {
        if let Some(output) = &self.output {
            let path = part_of(output, ctx);
            self.file = Some(RowFile::create(path)?);
        }
        Ok(())
    }

    #[inline(always)]
    fn write(&mut self, (due_ns, row): Due<R::View<'_>>, timestamp: i64) -> Result<(), SinkError> {
        if self.local.digest.count == 0 {
            self.started = self.run.start();
            self.run.note_row();
        }
        self.local.digest.add(&row);
        if self.latency_of != LatencyOf::Nothing {
            self.measure(due_ns, timestamp);
        }
        if let Some(file) = &mut self.file {
            row.write_json(&mut file.text);
            file.text.push(b'\n');
            if file.text.len() >= CHUNK_BYTES {
                file.write_out()?;
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        if let Some(mut file) = self.file.take() {
            file.write_out()?;
        }
        let local = std::mem::replace(&mut self.local, no_rows());
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.digest.merge(local.digest);
        rows.latency_ns.add(local.latency_ns)?;
        Ok(())
    }

    fn name(&self) -> &str {
        "Rows"
    }
}

impl RowFile {
    fn create(path: PathBuf) -> Result<Self, SinkError> {
        let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| File::create(&path));
        let file = made.map_err(|error| cannot_write(&path, &error))?;
        Ok(Self { file, path, text: Vec::with_capacity(CHUNK_BYTES + 4096) })
    }

    fn write_out(&mut self) -> Result<(), SinkError> {
        self.file.write_all(&self.text).map_err(|error| cannot_write(&self.path, &error))?;
        self.text.clear();
        Ok(())
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> String {
    format!("cannot write {}: {error}", path.display())
}

fn part_of(output: &Path, ctx: &SinkContext) -> PathBuf {
    match ctx.parallelism {
        1 => output.with_extension("ndjson"),
        _ => output.join(format!("part-{}.ndjson", ctx.subtask)),
    }
}
