//! NDJSON: one JSON value a line, read through serde.

use std::{fmt, marker::PhantomData};

use serde::de::DeserializeOwned;

use super::{
    BadReason, DEFAULT_MAX_LINE_BYTES, FileError, FileFormat, FileSplit, LineReader, OnBadRecord, ReadError,
    ReadProgress, SplitReader, Step,
    format::{BadRecords, Fault, column_of},
    line::Found,
};

/// NDJSON files of `T`. Blank lines are passed over.
pub struct NdjsonFormat<T> {
    on_bad_record: OnBadRecord,
    max_line_bytes: usize,
    reads: PhantomData<fn() -> T>,
}

impl<T> NdjsonFormat<T> {
    /// Fails at a bad record, reads lines of up to [`DEFAULT_MAX_LINE_BYTES`].
    pub fn new() -> Self {
        Self { on_bad_record: OnBadRecord::Fail, max_line_bytes: DEFAULT_MAX_LINE_BYTES, reads: PhantomData }
    }

    /// What to do with a line that is not a `T`.
    #[must_use]
    pub fn on_bad_record(mut self, policy: OnBadRecord) -> Self {
        self.on_bad_record = policy;
        self
    }

    /// The longest line; a longer one is a bad record.
    #[must_use]
    pub fn max_line_bytes(mut self, bytes: usize) -> Self {
        self.max_line_bytes = bytes;
        self
    }
}

impl<T> Default for NdjsonFormat<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for NdjsonFormat<T> {
    fn clone(&self) -> Self {
        Self { on_bad_record: self.on_bad_record, max_line_bytes: self.max_line_bytes, reads: PhantomData }
    }
}

impl<T> fmt::Debug for NdjsonFormat<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NdjsonFormat")
            .field("on_bad_record", &self.on_bad_record)
            .field("max_line_bytes", &self.max_line_bytes)
            .finish()
    }
}

impl<T: DeserializeOwned + 'static> FileFormat for NdjsonFormat<T> {
    type Item = T;
    type Reader = NdjsonReader<T>;

    fn open_at(&self, split: &FileSplit, offset: u64) -> Result<NdjsonReader<T>, ReadError> {
        Ok(NdjsonReader::open_at(split, offset, self)?)
    }
}

/// Reads the values of a split of an NDJSON file.
pub struct NdjsonReader<T> {
    lines: LineReader,
    bad: BadRecords,
    reads: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> NdjsonReader<T> {
    /// Opens a split at its start.
    ///
    /// # Errors
    /// As [`LineReader::open`].
    pub fn open(split: &FileSplit, format: &NdjsonFormat<T>) -> Result<Self, FileError> {
        Self::open_at(split, split.start, format)
    }

    /// Opens a split where an earlier reader of it was.
    ///
    /// # Errors
    /// As [`LineReader::open_at`].
    pub fn open_at(split: &FileSplit, offset: u64, format: &NdjsonFormat<T>) -> Result<Self, FileError> {
        let lines = LineReader::open_at(split, offset, format.max_line_bytes)?;
        Ok(Self { lines, bad: BadRecords::new(format.on_bad_record), reads: PhantomData })
    }
}

impl<T: DeserializeOwned> SplitReader for NdjsonReader<T> {
    type Item = T;

    fn poll_next(&mut self) -> Result<Step<T>, ReadError> {
        let fault = match self.lines.step()? {
            Found::End => return Ok(Step::End),
            Found::Pending => return Ok(Step::Pending),
            Found::TooLong(place) => self.lines.too_long(place),
            Found::Line(span) => {
                let line = self.lines.bytes(span);
                if line.trim_ascii().is_empty() {
                    return Ok(Step::Pending);
                }
                match parse(line) {
                    Ok(item) => return Ok(Step::Item(item)),
                    Err((column, reason)) => Fault { place: span.place, column, reason },
                }
            }
        };
        self.bad.handle(fault, &mut self.lines)
    }

    fn position(&self) -> u64 {
        self.lines.position()
    }

    fn progress(&self) -> ReadProgress {
        self.lines.progress()
    }

    fn skipped(&self) -> u64 {
        self.bad.skipped()
    }

    fn first_skipped(&mut self) -> Option<ReadError> {
        self.bad.first().map(|fault| self.lines.locate(fault))
    }
}

fn parse<T: DeserializeOwned>(line: &[u8]) -> Result<T, (u64, BadReason)> {
    let text = std::str::from_utf8(line).map_err(|error| (column_of(line, error.valid_up_to()), BadReason::NotUtf8))?;
    serde_json::from_str(text).map_err(|error| {
        // The parser counts bytes from 1, and says where again at the end of its message; 0 is before the first.
        let at = format!(" at line {} column {}", error.line(), error.column());
        let message = error.to_string();
        let message = message.strip_suffix(&at).unwrap_or(&message);
        (column_of(line, error.column().saturating_sub(1)), BadReason::Json(message.to_string()))
    })
}
