//! `LineReader`: the lines of one split, each with its exact place.
//!
//! A line belongs to the split in which its first byte lies: a split that starts within a line leaves the rest of that
//! line to the split before it, and a split reads beyond its end to finish its last line. Lines end with LF or CRLF, the
//! last one perhaps with neither; a byte order mark at the start of the file is no part of its first line. Line numbers
//! need the lines of earlier splits, so they are counted only when an error message asks for one.

use std::{fs::File, io, os::unix::fs::FileExt};

use memchr::{memchr, memchr_iter};

use super::{
    BadReason, FileError, FileSplit, ReadError, ReadProgress, Step,
    format::Fault,
    split::{open_error, regular_file_bytes},
};

/// The longest line read unless configured otherwise.
pub const DEFAULT_MAX_LINE_BYTES: usize = 1 << 20;
/// The most that one step reads from the file.
const CHUNK_BYTES: usize = 64 << 10;
/// The least that it asks for, to finish a line beyond the end of the split.
const TAIL_BYTES: u64 = 4 << 10;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// What a line may have in the buffer beyond its own bytes while its end is not found: byte order mark and CR.
const FRINGE_BYTES: usize = 4;

/// A line without its line break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its bytes, UTF-8 or not.
    pub bytes: &'a [u8],
    /// The byte of the file at which it starts.
    pub offset: u64,
}

/// Where a line is, before its number is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Byte of the file.
    pub offset: u64,
    /// Line breaks passed by this reader before it.
    pub newlines: u64,
}

/// A line in the reader's buffer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    start: usize,
    end: usize,
    /// 0 at the end of a file without a last line break, 1 for LF, 2 for CRLF.
    pub break_bytes: usize,
    pub place: Place,
}

/// What one step found.
pub(super) enum Found {
    Line(Span),
    TooLong(Place),
    Pending,
    End,
}

enum State {
    /// Until behind the next line break; until then the reader stands at `position`.
    Skipping {
        position: u64,
    },
    Lines,
    Ended,
}

/// Reads the lines of a split. One step makes at most one read of the file, of at most 64 KiB.
pub struct LineReader {
    split: FileSplit,
    file: File,
    max_line_bytes: usize,
    state: State,
    /// Bytes `head..tail` are unread, of which `head..scanned` hold no line break.
    buffer: Vec<u8>,
    head: usize,
    scanned: usize,
    tail: usize,
    /// The byte of the file that `buffer[0]` is.
    base_offset: u64,
    at_end_of_file: bool,
    /// Where reading and the counting of line breaks began.
    origin_offset: u64,
    newlines: u64,
    newlines_before_origin: Option<u64>,
}

impl LineReader {
    /// Opens a split at its start. Lines longer than `max_line_bytes` are errors.
    ///
    /// # Errors
    /// The file is missing, unreadable, not a regular file or shorter than the split.
    pub fn open(split: &FileSplit, max_line_bytes: usize) -> Result<Self, FileError> {
        Self::open_at(split, split.start, max_line_bytes)
    }

    /// Opens a split where an earlier reader of it was, as told by its [`position`](Self::position).
    ///
    /// # Errors
    /// As [`open`](Self::open), and where `offset` lies outside the split's lines or behind no line break.
    pub fn open_at(split: &FileSplit, offset: u64, max_line_bytes: usize) -> Result<Self, FileError> {
        let file_bytes = regular_file_bytes(&split.path)?;
        if file_bytes < split.end {
            return Err(FileError::Shrunk {
                path: split.path.clone(),
                expected_bytes: split.end,
                actual_bytes: file_bytes,
            });
        }
        let file = File::open(&split.path).map_err(|source| open_error(&split.path, source))?;
        let bad_position = || FileError::BadPosition { path: split.path.clone(), offset };
        if offset < split.start || offset > file_bytes {
            return Err(bad_position());
        }
        let (state, origin_offset) = if offset == 0 {
            (State::Lines, 0)
        } else if offset == split.start {
            // The byte before the split tells whether a line starts right at its start.
            (State::Skipping { position: offset }, offset - 1)
        } else if offset >= split.end {
            (State::Ended, offset)
        } else {
            let mut before = [0];
            file.read_exact_at(&mut before, offset - 1).map_err(|source| FileError::Read {
                path: split.path.clone(),
                offset: offset - 1,
                source,
            })?;
            if before != *b"\n" {
                return Err(bad_position());
            }
            (State::Lines, offset)
        };
        Ok(Self {
            split: split.clone(),
            file,
            max_line_bytes,
            state,
            buffer: Vec::new(),
            head: 0,
            scanned: 0,
            tail: 0,
            base_offset: origin_offset,
            at_end_of_file: false,
            origin_offset,
            newlines: 0,
            newlines_before_origin: None,
        })
    }

    /// One bounded step: at most one read of the file and at most one line.
    ///
    /// # Errors
    /// The file cannot be read, or a line is too long; the next call goes on with the line behind it.
    pub fn poll_line(&mut self) -> Result<Step<Line<'_>>, ReadError> {
        match self.step()? {
            Found::Line(span) => Ok(Step::Item(Line { bytes: self.bytes(span), offset: span.place.offset })),
            Found::TooLong(place) => Err(self.locate(&self.too_long(place))),
            Found::Pending => Ok(Step::Pending),
            Found::End => Ok(Step::End),
        }
    }

    /// The split it reads.
    pub fn split(&self) -> &FileSplit {
        &self.split
    }

    /// The longest line it reads.
    pub fn max_line_bytes(&self) -> usize {
        self.max_line_bytes
    }

    /// The byte of the file at which the next unread line starts; the start of the split before its first line is
    /// found. A line that is too long is passed only when its end is found.
    pub fn position(&self) -> u64 {
        match self.state {
            State::Skipping { position } => position,
            State::Lines | State::Ended => self.head_offset(),
        }
    }

    /// How far it is.
    pub fn progress(&self) -> ReadProgress {
        let done_bytes = match self.state {
            State::Ended => self.split.bytes(),
            _ => self.position().clamp(self.split.start, self.split.end) - self.split.start,
        };
        ReadProgress { done_bytes, total_bytes: self.split.bytes() }
    }

    pub(super) fn step(&mut self) -> Result<Found, FileError> {
        let mut has_read = false;
        loop {
            let newline = memchr(b'\n', &self.buffer[self.scanned..self.tail]).map(|at| self.scanned + at);
            match (&self.state, newline) {
                (State::Ended, _) => return Ok(Found::End),
                (State::Skipping { .. }, Some(at)) => {
                    self.pass(at + 1, 1);
                    self.state = State::Lines;
                    continue;
                }
                (State::Skipping { .. }, None) => self.pass(self.tail, 0),
                (State::Lines, _) if self.head_offset() >= self.split.end => self.state = State::Ended,
                (State::Lines, Some(at)) => return Ok(self.take_line(at, 1)),
                (State::Lines, None) => {
                    self.scanned = self.tail;
                    if self.at_end_of_file && self.tail > self.head {
                        return Ok(self.take_line(self.tail, 0));
                    }
                    if self.tail - self.head > self.max_line_bytes.saturating_add(FRINGE_BYTES) {
                        let place = self.place();
                        self.state = State::Skipping { position: place.offset };
                        return Ok(Found::TooLong(place));
                    }
                }
            }
            if self.at_end_of_file {
                self.state = State::Ended;
            } else if !matches!(self.state, State::Ended) {
                if has_read {
                    return Ok(Found::Pending);
                }
                self.fill()?;
                has_read = true;
            }
        }
    }

    /// The bytes of a line that the latest step found.
    pub(super) fn bytes(&self, span: Span) -> &[u8] {
        &self.buffer[span.start..span.end]
    }

    /// The line break behind a line that the latest step found.
    pub(super) fn line_break(&self, span: Span) -> &[u8] {
        &self.buffer[span.end..span.end + span.break_bytes]
    }

    pub(super) fn too_long(&self, place: Place) -> Fault {
        Fault { place, column: 1, reason: BadReason::TooLong { limit_bytes: self.max_line_bytes } }
    }

    /// Makes an error of a fault: counts lines from the start of the file if that is not done yet.
    pub(super) fn locate(&mut self, fault: &Fault) -> ReadError {
        let before = match self.newlines_before_origin {
            Some(count) => Ok(count),
            None => self.count_newlines(self.origin_offset),
        };
        match before {
            Ok(count) => {
                self.newlines_before_origin = Some(count);
                ReadError::BadRecord {
                    path: self.split.path.clone(),
                    line: count + fault.place.newlines + 1,
                    column: fault.column,
                    offset: fault.place.offset,
                    reason: fault.reason.clone(),
                }
            }
            Err(error) => error.into(),
        }
    }

    fn head_offset(&self) -> u64 {
        self.base_offset + self.head as u64
    }

    fn place(&self) -> Place {
        Place { offset: self.head_offset(), newlines: self.newlines }
    }

    fn pass(&mut self, to: usize, newlines: u64) {
        self.head = to;
        self.scanned = to;
        self.newlines += newlines;
    }

    /// Takes the line from `head` up to `at`, and the line feed there if there is one.
    fn take_line(&mut self, at: usize, line_feeds: usize) -> Found {
        let place = self.place();
        let (mut start, mut end) = (self.head, at);
        if line_feeds == 1 && self.buffer[start..end].ends_with(b"\r") {
            end -= 1;
        }
        if place.offset == 0 && self.buffer[start..end].starts_with(BYTE_ORDER_MARK) {
            start += BYTE_ORDER_MARK.len();
        }
        self.pass(at + line_feeds, line_feeds as u64);
        if line_feeds == 0 && start == end {
            self.state = State::Ended; // a file that is nothing but a byte order mark
            return Found::End;
        }
        if end - start > self.max_line_bytes {
            return Found::TooLong(place);
        }
        Found::Line(Span { start, end, break_bytes: at + line_feeds - end, place })
    }

    /// Reads once, behind what is unread.
    fn fill(&mut self) -> Result<(), FileError> {
        self.buffer.copy_within(self.head..self.tail, 0);
        self.base_offset += self.head as u64;
        self.tail -= self.head;
        self.scanned -= self.head;
        self.head = 0;
        let offset = self.base_offset + self.tail as u64;
        let wanted = self.split.end.saturating_sub(offset).clamp(TAIL_BYTES, CHUNK_BYTES as u64) as usize;
        if self.buffer.len() < self.tail + wanted {
            self.buffer.resize(self.tail + wanted, 0);
        }
        let read = read_at(&self.file, &mut self.buffer[self.tail..self.tail + wanted], offset)
            .map_err(|source| FileError::Read { path: self.split.path.clone(), offset, source })?;
        self.tail += read;
        self.at_end_of_file = read == 0;
        Ok(())
    }

    fn count_newlines(&self, before_offset: u64) -> Result<u64, FileError> {
        let mut count = 0;
        self.scan(before_offset, |bytes| count += memchr_iter(b'\n', bytes).count() as u64)?;
        Ok(count)
    }

    /// Shows the bytes of the file before one to a function, a piece at a time, without the byte order mark.
    pub(super) fn scan(&self, before_offset: u64, mut see: impl FnMut(&[u8])) -> Result<(), FileError> {
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut offset = 0;
        while offset < before_offset {
            let wanted = (before_offset - offset).min(CHUNK_BYTES as u64) as usize;
            let read = read_at(&self.file, &mut buffer[..wanted], offset).map_err(|source| FileError::Read {
                path: self.split.path.clone(),
                offset,
                source,
            })?;
            if read == 0 {
                break;
            }
            let bytes = &buffer[..read];
            see(bytes.strip_prefix(BYTE_ORDER_MARK).filter(|_| offset == 0).unwrap_or(bytes));
            offset += read as u64;
        }
        Ok(())
    }
}

fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
