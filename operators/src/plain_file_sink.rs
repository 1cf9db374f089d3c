//! Sinks to files that grow as records come: NDJSON and CSV. Those whose files appear with checkpoints are in `file_sink`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;
use thalweg_io::connect::{CsvWriter, NdjsonWriter};
use thalweg_model::Record;
use thalweg_runtime::Clock;

use crate::{
    checkpoint::OperatorSnapshot,
    sink::{Sink, SinkContext, SinkError},
};

/// How long a record may lie in memory: a batch may be a single record, and a write to the file for each would cost more than
/// all else.
const MAX_DELAY_MS: i64 = 100;

/// When a file was last written to, and is to be next.
struct Pace {
    clock: Arc<dyn Clock>,
    /// Records in the file by then.
    written: u64,
    written_ms: i64,
    due_ms: Option<i64>,
}

impl Pace {
    fn new(ctx: &SinkContext) -> Self {
        Self { clock: ctx.clock.clone(), written: 0, written_ms: i64::MIN, due_ms: None }
    }

    /// Whether the file is to be written to now that it has been given so many records.
    fn is_due(&mut self, records: u64) -> bool {
        if records == self.written {
            self.due_ms = None;
            return false;
        }
        let now_ms = self.clock.now_ms();
        let due_ms = self.written_ms.saturating_add(MAX_DELAY_MS);
        let is_due = due_ms <= now_ms;
        if is_due {
            (self.written, self.written_ms) = (records, now_ms);
        }
        self.due_ms = (!is_due).then_some(due_ms);
        is_due
    }
}

/// The file of a subtask: the path itself for one, `part-<subtask>` in a folder for several. Parts that a run with more
/// subtasks has left are removed, each by the subtask with the same remainder.
fn part_path(path: &Path, ctx: &SinkContext, extension: &str) -> Result<PathBuf, SinkError> {
    if ctx.parallelism == 1 {
        return Ok(path.to_owned());
    }
    let part = |index: u32| path.join(format!("part-{index}.{extension}"));
    std::fs::create_dir_all(path)
        .map_err(|error| format!("cannot create the output folder {}: {error}", path.display()))?;
    let mut stale = ctx.subtask + ctx.parallelism;
    while std::fs::remove_file(part(stale)).is_ok() {
        stale += ctx.parallelism;
    }
    Ok(part(ctx.subtask))
}

macro_rules! file_sink {
    ($(#[$meta:meta])* $name:ident, $function:ident, $writer:ident, $extension:literal, $label:literal) => {
        $(#[$meta])*
        pub struct $name<T> {
            path: PathBuf,
            open: Option<($writer<T>, Pace)>,
        }

        $(#[$meta])*
        ///
        /// With one subtask `path` is the file; with several it is a folder of `part-<subtask>` files. What has come is in
        /// the file a tenth of a second later, and at each checkpoint.
        pub fn $function<T: Record + Serialize>(path: impl Into<PathBuf>) -> $name<T> {
            $name { path: path.into(), open: None }
        }

        impl<T> Clone for $name<T> {
            fn clone(&self) -> Self {
                Self { path: self.path.clone(), open: None }
            }
        }

        impl<T: Record + Serialize> Sink<T> for $name<T> {
            fn open(&mut self, ctx: &SinkContext) -> Result<(), SinkError> {
                let writer = $writer::create(part_path(&self.path, ctx, $extension)?)?;
                self.open = Some((writer, Pace::new(ctx)));
                Ok(())
            }
            fn write(&mut self, view: T::View<'_>, _timestamp: i64) -> Result<(), SinkError> {
                if let Some((writer, _)) = &mut self.open {
                    writer.write(&T::from_view(view))?;
                }
                Ok(())
            }
            fn flush(&mut self) -> Result<(), SinkError> {
                if let Some((writer, pace)) = &mut self.open
                    && pace.is_due(writer.records())
                {
                    writer.flush()?;
                }
                Ok(())
            }
            fn next_deadline_ms(&self) -> Option<i64> {
                self.open.as_ref().and_then(|(_, pace)| pace.due_ms)
            }
            fn snapshot(&mut self, _snapshot: &mut OperatorSnapshot<'_>) -> Result<(), SinkError> {
                if let Some((writer, _)) = &mut self.open {
                    writer.flush()?;
                }
                Ok(())
            }
            fn finish(&mut self) -> Result<(), SinkError> {
                if let Some((writer, _)) = self.open.take() {
                    writer.close()?;
                }
                Ok(())
            }
            fn close(&mut self) -> Result<(), SinkError> {
                <Self as Sink<T>>::finish(self)
            }
            fn name(&self) -> &str {
                $label
            }
        }
    };
}

file_sink! {
    /// Writes records to a file as NDJSON: one JSON object a line, by the type's serde form.
    NdjsonFile, ndjson_file, NdjsonWriter, "ndjson", "NdjsonFile"
}
file_sink! {
    /// Writes records to a file as CSV with a header line, by the type's serde form.
    CsvFile, csv_file, CsvWriter, "csv", "CsvFile"
}

#[cfg(test)]
mod tests {
    use std::fs;

    use thalweg_runtime::VirtualClock;

    use super::*;
    use crate::testing::{sink_context, snapshot};

    #[test]
    fn when_little_comes_then_the_file_has_it_soon_and_is_not_written_to_for_each_batch() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.ndjson");
        let clock = VirtualClock::default();
        let mut sink = ndjson_file::<u64>(&path);
        sink.open(&SinkContext { clock: Arc::new(clock.clone()), ..sink_context(0, 1, false) }).unwrap();
        let text = || fs::read_to_string(&path).unwrap();
        let opened_ms = clock.now_ms();

        sink.write(1, 0).unwrap();
        sink.flush().unwrap();
        assert_eq!((text().as_str(), sink.next_deadline_ms()), ("1\n", None));
        sink.write(2, 0).unwrap();
        sink.flush().unwrap();
        assert_eq!((text().as_str(), sink.next_deadline_ms()), ("1\n", Some(opened_ms + MAX_DELAY_MS)));
        clock.advance_to(MAX_DELAY_MS as u64 * 1_000_000);
        sink.flush().unwrap();
        assert_eq!((text().as_str(), sink.next_deadline_ms()), ("1\n2\n", None));

        sink.write(3, 0).unwrap();
        sink.flush().unwrap();
        snapshot(1, |out| sink.snapshot(out)).unwrap();
        assert_eq!(text(), "1\n2\n3\n");
        sink.write(4, 0).unwrap();
        sink.flush().unwrap();
        assert_eq!(text(), "1\n2\n3\n");
        sink.close().unwrap();
        assert_eq!(text(), "1\n2\n3\n4\n");
    }
}
