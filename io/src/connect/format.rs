//! What all file formats have in common: a reader's step, its policy for bad records, its progress.

use super::{
    BadReason, FileSplit, ReadError,
    line::{LineReader, Place},
};

/// What to do with a record that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnBadRecord {
    /// The reader answers the error.
    #[default]
    Fail,
    /// The reader leaves the record out and counts it.
    Skip,
}

/// What one step of a reader brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<T> {
    /// A record.
    Item(T),
    /// Nothing yet: more of the file was read, or a line was left out. Call again.
    Pending,
    /// The split has no more records, now and for ever.
    End,
}

/// How far a reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReadProgress {
    /// Bytes of the split that are dealt with.
    pub done_bytes: u64,
    /// Bytes of the split.
    pub total_bytes: u64,
}

/// A reader over one split.
pub trait SplitReader {
    /// What it reads.
    type Item;

    /// One bounded step: at most one read of the file and at most one record.
    ///
    /// # Errors
    /// The file cannot be read, or a record is bad and the policy is to fail. After a bad record the next call goes on
    /// with the record behind it.
    fn poll_next(&mut self) -> Result<Step<Self::Item>, ReadError>;

    /// The byte of the file at which the next unread record starts: where
    /// [`FileFormat::open_at`] continues. Never goes back.
    fn position(&self) -> u64;

    /// How far it is.
    fn progress(&self) -> ReadProgress;

    /// Bad records left out so far.
    fn skipped(&self) -> u64;

    /// The first bad record left out, for the log. May read the file up to it, to count its lines.
    fn first_skipped(&mut self) -> Option<ReadError>;

    /// The next record, in as many steps as it takes; `None` at the end of the split.
    ///
    /// # Errors
    /// As [`poll_next`](Self::poll_next).
    fn next_record(&mut self) -> Result<Option<Self::Item>, ReadError> {
        loop {
            match self.poll_next()? {
                Step::Item(item) => return Ok(Some(item)),
                Step::Pending => {}
                Step::End => return Ok(None),
            }
        }
    }
}

/// How to read records from a file: the options of a format, from which readers are opened.
pub trait FileFormat: Clone + Send + Sync + 'static {
    /// What it reads.
    type Item: 'static;
    /// Its reader.
    type Reader: SplitReader<Item = Self::Item> + 'static;

    /// Opens a split where an earlier reader of it was, as told by its [`SplitReader::position`]; `split.start` opens
    /// it afresh.
    ///
    /// # Errors
    /// The file is missing, unreadable, shorter than the split, or has no line at `offset`.
    fn open_at(&self, split: &FileSplit, offset: u64) -> Result<Self::Reader, ReadError>;

    /// Opens a split at its start.
    ///
    /// # Errors
    /// As [`open_at`](Self::open_at).
    fn open(&self, split: &FileSplit) -> Result<Self::Reader, ReadError> {
        self.open_at(split, split.start)
    }
}

/// A bad record before its line is counted.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub place: Place,
    pub column: u64,
    pub reason: BadReason,
}

/// The bad records of one reader.
#[derive(Debug, Default)]
pub(super) struct BadRecords {
    policy: OnBadRecord,
    skipped: u64,
    first: Option<Fault>,
}

impl BadRecords {
    pub fn new(policy: OnBadRecord) -> Self {
        Self { policy, skipped: 0, first: None }
    }

    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    pub fn first(&self) -> Option<&Fault> {
        self.first.as_ref()
    }

    /// Fails or counts, as the policy has it.
    pub fn handle<T>(&mut self, fault: Fault, lines: &mut LineReader) -> Result<Step<T>, ReadError> {
        match self.policy {
            OnBadRecord::Fail => Err(lines.locate(&fault)),
            OnBadRecord::Skip => {
                self.skipped += 1;
                self.first.get_or_insert(fault);
                Ok(Step::Pending)
            }
        }
    }
}

/// The column, in characters from 1, of a byte of a line. Bytes that are not UTF-8 count as they are shown.
pub(super) fn column_of(line: &[u8], byte: usize) -> u64 {
    String::from_utf8_lossy(&line[..byte.min(line.len())]).chars().count() as u64 + 1
}
