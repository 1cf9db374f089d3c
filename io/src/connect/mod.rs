//! Connectors: what a job reads from files and writes to them, as plain library code that knows no task.
//!
//! Reading: [`plan_splits`] cuts files into [`FileSplit`]s of fixed bytes, [`SplitAssignment`] deals them to subtasks,
//! and a [`FileFormat`] opens a [`SplitReader`] on each. Every record is read by exactly one split, whatever the split
//! size; a reader's position is exact, so that a restored job goes on with the very next record. A reader's step makes
//! at most one read of the file, so that it can be called from a task that must not block for long.
//!
//! Writing: [`OutputFiles`] names one fresh file per subtask; [`NdjsonWriter`] and [`CsvWriter`] fill them.
//!
//! Nothing here may name a segment, a slot or a buffer of the engine.

mod csv_de;
mod csv_reader;
mod csv_row;
mod error;
mod file_mark;
mod format;
mod line;
mod ndjson;
mod output;
mod split;
#[cfg(test)]
mod tests;
mod writer;

pub use csv_reader::{CsvFormat, CsvOptions, CsvReader};
pub use error::{BadReason, FileError, ReadError, WriteError};
pub use file_mark::FileMark;
pub use format::{FileFormat, OnBadRecord, ReadProgress, SplitReader, Step};
pub use line::{DEFAULT_MAX_LINE_BYTES, Line, LineReader};
pub use ndjson::{NdjsonFormat, NdjsonReader};
pub use output::OutputFiles;
pub use split::{FileSplit, SplitAssignment, input_files, plan_splits};
pub use writer::{CsvWriter, NdjsonWriter};
