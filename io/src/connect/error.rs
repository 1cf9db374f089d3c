//! What can go wrong with files: finding and reading them, the records in them, and writing them.

use std::{io, path::PathBuf};

use thiserror::Error;

/// A file that cannot be found, opened or read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FileError {
    /// No file or directory of that name.
    #[error(
        "there is no file {}; check the path (a relative one starts at the directory the program runs in)",
        path.display()
    )]
    NotFound {
        /// The path as given.
        path: PathBuf,
    },
    /// The system refused to open it.
    #[error("cannot open {}: {source}; check that this user may read it", path.display())]
    Open {
        /// The path as given.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The system failed while reading.
    #[error("cannot read {} at byte {offset}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Where, in bytes from its start.
        offset: u64,
        /// The system's answer.
        source: io::Error,
    },
    /// A pipe, socket or device: it has no size, so it cannot be split or read again.
    #[error("{} is not a regular file; write its content to a file first and name that", path.display())]
    NotRegular {
        /// The path as given.
        path: PathBuf,
    },
    /// A directory without a regular file to read.
    #[error(
        "the directory {} holds no file to read (names starting with '.' or '_' and subdirectories are left out)",
        path.display()
    )]
    EmptyDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// No path was given at all.
    #[error("no input file was given; name at least one file or directory")]
    NoInput,
    /// Splits of no bytes.
    #[error("the split size must be at least 1 byte")]
    ZeroSplitBytes,
    /// The file is shorter than when its splits were planned.
    #[error(
        "{} has {actual_bytes} bytes but had at least {expected_bytes} when its splits were planned; \
         do not replace or shorten input while a job reads it",
        path.display()
    )]
    Shrunk {
        /// The file.
        path: PathBuf,
        /// The end of the split.
        expected_bytes: u64,
        /// The length now.
        actual_bytes: u64,
    },
    /// The file is another one than when a position in it was taken.
    #[error(
        "{} has changed since the checkpoint was taken: {what}; restore with the input as it was, or start without the \
         checkpoint",
        path.display()
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// In what.
        what: String,
    },
    /// A position to continue from that no reader of this split can have given.
    #[error(
        "no line of {} starts at byte {offset} within the split; the file is not the one the position was taken from",
        path.display()
    )]
    BadPosition {
        /// The file.
        path: PathBuf,
        /// The position asked for, in bytes from its start.
        offset: u64,
    },
}

/// Why a record could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BadReason {
    /// The line, or a quoted field over several lines, is longer than configured.
    #[error("the line is longer than {limit_bytes} bytes (raise the maximum line length if that is right)")]
    TooLong {
        /// The configured limit.
        limit_bytes: usize,
    },
    /// Not UTF-8.
    #[error("the text is not UTF-8")]
    NotUtf8,
    /// Not the JSON that the type needs; the parser's words.
    #[error("{0}")]
    Json(String),
    /// Not the CSV that the type needs.
    #[error("{0}")]
    Csv(String),
    /// A quoted field goes on in the next line, in a file that is read in several splits.
    #[error(
        "a quoted field is not closed on its line; a file with line breaks inside quotes must be read as one split, since \
         they could cross from one to the next (raise the split size above the file's)"
    )]
    QuoteAcrossSplits,
    /// A line that goes on with a quoted field of an earlier one, in a file that is read in several splits.
    #[error(
        "the line goes on with a quoted field that began on an earlier line; a file with line breaks inside quotes must be \
         read as one split, since they could cross from one to the next (raise the split size above the file's)"
    )]
    WithinQuotes,
    /// A file whose lines end as on old Macintoshes: all of it is one line.
    #[error("the lines end with CR alone; write the file with LF or CRLF at the end of each line")]
    CrAlone,
    /// A quoted field that never closes.
    #[error("a quoted field is not closed before the end of the file")]
    QuoteUnclosed,
}

/// A failure to read records.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file itself.
    #[error(transparent)]
    File(#[from] FileError),
    /// One record.
    #[error("{}:{line}:{column}: {reason}; correct it, or have bad records skipped and counted", path.display())]
    BadRecord {
        /// The file.
        path: PathBuf,
        /// The line within the file, from 1.
        line: u64,
        /// The character within the line, from 1.
        column: u64,
        /// The byte of the file at which the record starts.
        offset: u64,
        /// What is wrong.
        reason: BadReason,
    },
}

/// A failure to write records.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The file or its directory cannot be made.
    #[error("cannot create {}: {source}; check that the directory exists and that this user may write there", path.display())]
    Create {
        /// What was to be made.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The system failed while writing.
    #[error("cannot write to {}: {source}; check that the disk has room", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A record that the format cannot express.
    #[error("cannot write a record to {}: {reason}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// The format's words.
        reason: String,
    },
    /// Something else is in the way of the output.
    #[error("{} is a directory with other content; remove it or choose another output", path.display())]
    Occupied {
        /// The output asked for.
        path: PathBuf,
    },
    /// A write failed before; the file may end within a record.
    #[error("an earlier write to {} failed, its content is incomplete; run again to write it afresh", path.display())]
    Incomplete {
        /// The file.
        path: PathBuf,
    },
}
