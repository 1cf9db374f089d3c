//! CSV with a header row, read through serde.
//!
//! Every split knows the column names: each reader takes them from the start of the file. A row ends at its line's end.
//! Only a file that is read as one split may have line breaks inside quotes, since a split that starts in the middle of
//! a file cannot know whether it starts within quotes; elsewhere such a row is a bad record that says so.

use std::{fmt, marker::PhantomData, sync::Arc};

use serde::de::DeserializeOwned;

use super::{
    BadReason, DEFAULT_MAX_LINE_BYTES, FileFormat, FileSplit, LineReader, OnBadRecord, ReadError, ReadProgress,
    SplitReader, Step,
    csv_de::RowDeserializer,
    csv_row::{CsvRow, RowFault},
    format::{BadRecords, Fault, column_of},
    line::{Found, Place, Span},
};

/// How a CSV file is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsvOptions {
    /// Between fields; ASCII. Default: a comma.
    pub delimiter: u8,
    /// Around fields that hold a delimiter, a quote or a line break; ASCII. Default: a double quote.
    pub quote: u8,
    /// Whether the first line that is not empty names the columns. Without it, structs and tuples are read by place.
    /// Default: true.
    pub has_header: bool,
    /// What an `Option` field reads as `None`, quoted or not. Default: the empty string.
    pub nulls: Vec<String>,
    /// What to do with a row that cannot be read. A bad header is an error always. Default: fail.
    pub on_bad_record: OnBadRecord,
    /// The longest line, and the longest row over several lines. Default: [`DEFAULT_MAX_LINE_BYTES`].
    pub max_line_bytes: usize,
}

impl Default for CsvOptions {
    fn default() -> Self {
        Self {
            delimiter: b',',
            quote: b'"',
            has_header: true,
            nulls: vec![String::new()],
            on_bad_record: OnBadRecord::Fail,
            max_line_bytes: DEFAULT_MAX_LINE_BYTES,
        }
    }
}

/// CSV files of `T`. Empty lines are passed over; a row must have as many fields as the header.
pub struct CsvFormat<T> {
    options: Arc<CsvOptions>,
    reads: PhantomData<fn() -> T>,
}

impl<T> CsvFormat<T> {
    /// CSV as the options describe it.
    ///
    /// # Panics
    /// Where delimiter and quote are the same, a line break, or not ASCII.
    pub fn new(options: CsvOptions) -> Self {
        let is_usable = |byte: u8| byte.is_ascii() && byte != b'\n' && byte != b'\r';
        assert!(
            is_usable(options.delimiter) && is_usable(options.quote) && options.delimiter != options.quote,
            "delimiter and quote must be two different ASCII characters other than line breaks"
        );
        Self { options: Arc::new(options), reads: PhantomData }
    }

    /// The options.
    pub fn options(&self) -> &CsvOptions {
        &self.options
    }
}

impl<T> Default for CsvFormat<T> {
    fn default() -> Self {
        Self::new(CsvOptions::default())
    }
}

impl<T> Clone for CsvFormat<T> {
    fn clone(&self) -> Self {
        Self { options: Arc::clone(&self.options), reads: PhantomData }
    }
}

impl<T> fmt::Debug for CsvFormat<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CsvFormat").field("options", &self.options).finish()
    }
}

impl<T: DeserializeOwned + 'static> FileFormat for CsvFormat<T> {
    type Item = T;
    type Reader = CsvReader<T>;

    fn open_at(&self, split: &FileSplit, offset: u64) -> Result<CsvReader<T>, ReadError> {
        CsvReader::open_at(split, offset, self)
    }
}

/// Reads the rows of a split of a CSV file.
pub struct CsvReader<T> {
    lines: LineReader,
    rows: Rows,
    /// The lines so far of a row whose quotes are still open.
    open_row: Vec<u8>,
    open_quote: Option<OpenQuote>,
    bad: BadRecords,
    reads: PhantomData<fn() -> T>,
}

/// A quote that is not closed yet: where its row starts, and its byte within the row.
#[derive(Clone, Copy)]
struct OpenQuote {
    place: Place,
    at: usize,
}

impl<T: DeserializeOwned> CsvReader<T> {
    /// Opens a split at its start, and reads the header from the start of the file.
    ///
    /// # Errors
    /// As [`LineReader::open`], and a header that is too long, not UTF-8 or wrongly quoted.
    pub fn open(split: &FileSplit, format: &CsvFormat<T>) -> Result<Self, ReadError> {
        Self::open_at(split, split.start, format)
    }

    /// Opens a split where an earlier reader of it was.
    ///
    /// # Errors
    /// As [`LineReader::open_at`], and a header that is too long, not UTF-8 or wrongly quoted.
    pub fn open_at(split: &FileSplit, offset: u64, format: &CsvFormat<T>) -> Result<Self, ReadError> {
        let options = Arc::clone(&format.options);
        let whole = FileSplit::whole(&split.path)?;
        Ok(Self {
            lines: LineReader::open_at(split, offset, options.max_line_bytes)?,
            bad: BadRecords::new(options.on_bad_record),
            open_row: Vec::new(),
            open_quote: None,
            reads: PhantomData,
            rows: Rows {
                header: if options.has_header { Header::read(&whole, &options)? } else { None },
                is_whole_file: split.start == 0 && split.end >= whole.end,
                row: CsvRow::default(),
                options,
            },
        })
    }

    /// Finds out whether a line is bad because it starts within quotes, which a split in the middle of a file cannot see.
    #[cold]
    fn explain(&self, error: ReadError) -> ReadError {
        match error {
            ReadError::BadRecord {
                path,
                offset,
                reason: BadReason::Csv(_) | BadReason::QuoteAcrossSplits,
                line,
                ..
            } if !self.rows.is_whole_file && self.starts_within_quotes(offset) => {
                ReadError::BadRecord { path, offset, reason: BadReason::WithinQuotes, line, column: 1 }
            }
            error => error,
        }
    }

    /// Whether the byte of the file lies within quotes, as a reader of all of it would see it.
    fn starts_within_quotes(&self, offset: u64) -> bool {
        let CsvOptions { delimiter, quote, .. } = *self.rows.options;
        let (mut within, mut at_field_start, mut closed) = (false, true, false);
        let scanned = self.lines.scan(offset, |bytes| {
            for &byte in bytes {
                // A quote opens a field at its start only; one right behind another stands for itself.
                let toggles = byte == quote && (within || at_field_start || closed);
                closed = toggles && within;
                within ^= toggles;
                at_field_start = !within && (byte == delimiter || byte == b'\n');
            }
        });
        scanned.is_ok() && within
    }

    /// Takes a line that starts a row or goes on with the open one.
    fn take_line(&mut self, span: Span) -> Result<Step<T>, Fault> {
        let line = self.lines.bytes(span);
        let (row, place) = match self.open_quote {
            None if line.is_empty() || self.rows.is_header(span.place) => return Ok(Step::Pending),
            None => (line, span.place),
            Some(OpenQuote { place, .. }) => {
                let limit_bytes = self.rows.options.max_line_bytes;
                if self.open_row.len() + line.len() > limit_bytes {
                    self.open_quote = None;
                    return Err(Fault { place, column: 1, reason: BadReason::TooLong { limit_bytes } });
                }
                self.open_row.extend_from_slice(line);
                if !line.contains(&self.rows.options.quote) {
                    self.open_row.extend_from_slice(self.lines.line_break(span));
                    return Ok(Step::Pending);
                }
                (self.open_row.as_slice(), place)
            }
        };
        match self.rows.read(row, place) {
            Ok(Row::Read(item)) => {
                self.open_quote = None;
                Ok(Step::Item(item))
            }
            Ok(Row::Open { at }) => {
                if self.open_quote.is_none() {
                    self.open_row.clear();
                    self.open_row.extend_from_slice(line);
                }
                self.open_row.extend_from_slice(self.lines.line_break(span));
                self.open_quote = Some(OpenQuote { place, at });
                Ok(Step::Pending)
            }
            Err(fault) => {
                self.open_quote = None;
                Err(fault)
            }
        }
    }
}

impl<T: DeserializeOwned> SplitReader for CsvReader<T> {
    type Item = T;

    fn poll_next(&mut self) -> Result<Step<T>, ReadError> {
        let fault = match self.lines.step()? {
            Found::Pending => return Ok(Step::Pending),
            Found::Line(span) => match self.take_line(span) {
                Ok(step) => return Ok(step),
                Err(fault) => fault,
            },
            Found::TooLong(place) => {
                self.open_quote = None;
                self.lines.too_long(place)
            }
            Found::End => match self.open_quote.take() {
                None => return Ok(Step::End),
                Some(open) => fault_at(&self.open_row, open.at, open.place, BadReason::QuoteUnclosed),
            },
        };
        self.bad.handle(fault, &mut self.lines).map_err(|error| self.explain(error))
    }

    fn position(&self) -> u64 {
        self.open_quote.map_or_else(|| self.lines.position(), |open| open.place.offset)
    }

    fn progress(&self) -> ReadProgress {
        self.lines.progress()
    }

    fn skipped(&self) -> u64 {
        self.bad.skipped()
    }

    fn first_skipped(&mut self) -> Option<ReadError> {
        let error = self.bad.first().map(|fault| self.lines.locate(fault))?;
        Some(self.explain(error))
    }
}

/// The column names, and the byte of the file behind them.
struct Header {
    names: Vec<String>,
    end_offset: u64,
}

impl Header {
    /// The first line of a file that is not empty; `None` if there is none.
    fn read(whole: &FileSplit, options: &CsvOptions) -> Result<Option<Self>, ReadError> {
        let mut lines = LineReader::open(whole, options.max_line_bytes)?;
        loop {
            let fault = match lines.step()? {
                Found::End => return Ok(None),
                Found::Pending => continue,
                Found::TooLong(place) => {
                    let mut has_cr = false;
                    let end_offset = place.offset.saturating_add(options.max_line_bytes as u64);
                    lines.scan(end_offset, |bytes| has_cr |= memchr::memchr(b'\r', bytes).is_some())?;
                    let reason = BadReason::CrAlone;
                    if has_cr { Fault { place, column: 1, reason } } else { lines.too_long(place) }
                }
                Found::Line(span) => {
                    let line = lines.bytes(span);
                    if line.is_empty() {
                        continue;
                    }
                    // All of the file is in it, so that there would be no row.
                    if span.break_bytes == 0
                        && let Some(at) = bare_cr(line, options.quote)
                    {
                        let fault = fault_at(line, at, span.place, BadReason::CrAlone);
                        return Err(lines.locate(&fault));
                    }
                    let mut row = CsvRow::default();
                    match cut(&mut row, line, options) {
                        Ok(text) => {
                            let names = (0..row.len()).map(|index| row.field(text, index).to_string()).collect();
                            return Ok(Some(Self { names, end_offset: lines.position() }));
                        }
                        Err((at, reason)) => {
                            fault_at(line, at, span.place, reason.unwrap_or(BadReason::QuoteAcrossSplits))
                        }
                    }
                }
            };
            return Err(lines.locate(&fault));
        }
    }
}

/// Where a line has a CR outside quotes, if anywhere.
fn bare_cr(line: &[u8], quote: u8) -> Option<usize> {
    let mut within = false;
    line.iter().position(|&byte| {
        within ^= byte == quote;
        byte == b'\r' && !within
    })
}

/// What the lines of one file mean.
struct Rows {
    options: Arc<CsvOptions>,
    header: Option<Header>,
    is_whole_file: bool,
    row: CsvRow,
}

enum Row<T> {
    Read(T),
    /// The quote at this byte is not closed, and may be in the next line.
    Open {
        at: usize,
    },
}

impl Rows {
    /// Whether a line is the header or in front of it.
    fn is_header(&self, place: Place) -> bool {
        self.header.as_ref().is_some_and(|header| place.offset < header.end_offset)
    }

    fn read<T: DeserializeOwned>(&mut self, bytes: &[u8], place: Place) -> Result<Row<T>, Fault> {
        let text = match cut(&mut self.row, bytes, &self.options) {
            Ok(text) => text,
            Err((at, None)) if self.is_whole_file => return Ok(Row::Open { at }),
            Err((at, reason)) => {
                return Err(fault_at(bytes, at, place, reason.unwrap_or(BadReason::QuoteAcrossSplits)));
            }
        };
        let names = self.header.as_ref().map(|header| header.names.as_slice());
        if let Some(names) = names.filter(|names| names.len() != self.row.len()) {
            let at = if self.row.len() > names.len() { self.row.field_at(names.len()) } else { bytes.len() };
            let message = format!("the number of fields is {}, but the header names {}", self.row.len(), names.len());
            return Err(fault_at(bytes, at, place, BadReason::Csv(message)));
        }
        let fields = RowDeserializer { text, row: &self.row, names, nulls: &self.options.nulls };
        fields.read().map(Row::Read).map_err(|error| {
            let message = match (error.field, names) {
                (None, Some(names)) => format!("{} (the columns are {})", error.message, names.join(", ")),
                _ => error.message,
            };
            let at = error.field.map_or(0, |field| self.row.field_at(field));
            fault_at(bytes, at, place, BadReason::Csv(message))
        })
    }
}

/// Cuts a row into fields and answers its text; or the byte at fault and why, `None` for a quote that is not closed.
fn cut<'a>(row: &mut CsvRow, bytes: &'a [u8], options: &CsvOptions) -> Result<&'a str, (usize, Option<BadReason>)> {
    let text = std::str::from_utf8(bytes).map_err(|error| (error.valid_up_to(), Some(BadReason::NotUtf8)))?;
    row.cut(text, options.delimiter, options.quote).map(|()| text).map_err(|fault| match fault {
        RowFault::Unclosed { at } => (at, None),
        RowFault::AfterQuote { at } => {
            let message = "something follows the closing quote of a field; double a quote that belongs to the field";
            (at, Some(BadReason::Csv(message.to_string())))
        }
    })
}

/// A fault at a byte of a row that may have several lines.
fn fault_at(row: &[u8], at: usize, place: Place, reason: BadReason) -> Fault {
    let before = &row[..at];
    let line_start = memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
    let newlines = memchr::memchr_iter(b'\n', before).count() as u64;
    let place = Place { newlines: place.newlines + newlines, ..place };
    Fault { place, column: column_of(&row[line_start..], at - line_start), reason }
}
