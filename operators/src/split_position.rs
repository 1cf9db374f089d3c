//! `SplitPosition`: where a file source is in a split, and who reads what remains when a job is restored.

use std::{
    collections::{HashMap, VecDeque},
    path::Path,
};

use thalweg_derive::Record;
use thalweg_io::connect::{FileError, FileMark, FileSplit};

use crate::source::SourceError;

/// A split that is not read to its end yet. A position of a file source in a checkpoint.
#[derive(Record, Clone, Debug, PartialEq, Eq)]
pub struct SplitPosition {
    /// The file.
    pub path: String,
    /// Its length in bytes, when reading it was planned.
    pub file_bytes: u64,
    /// A checksum of its beginning.
    pub file_head_crc: u32,
    /// First byte of the split.
    pub start: u64,
    /// The byte after its last.
    pub end: u64,
    /// The byte at which the next record begins; `start` where the split has not been begun.
    pub at: u64,
    /// Bad records left out so far.
    pub skipped: u64,
}

/// A split to be read, from some byte of it on.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) split: FileSplit,
    pub(crate) mark: FileMark,
    pub(crate) at: u64,
    pub(crate) skipped: u64,
}

impl Piece {
    /// A split from its start.
    pub(crate) fn whole(split: &FileSplit, mark: FileMark) -> Self {
        Self { at: split.start, split: split.clone(), mark, skipped: 0 }
    }

    /// Its position, where the reader of it is at a byte.
    ///
    /// # Errors
    /// Where the file's path is not text.
    pub(crate) fn position(&self) -> Result<SplitPosition, SourceError> {
        let path = self.split.path.to_str().ok_or_else(|| {
            let path = self.split.path.display();
            format!("the path {path} is not UTF-8 and cannot be kept in a checkpoint: rename it")
        })?;
        Ok(SplitPosition {
            path: path.to_owned(),
            file_bytes: self.mark.bytes,
            file_head_crc: self.mark.head_crc,
            start: self.split.start,
            end: self.split.end,
            at: self.at,
            skipped: self.skipped,
        })
    }
}

impl From<SplitPosition> for Piece {
    fn from(position: SplitPosition) -> Self {
        let SplitPosition { path, file_bytes, file_head_crc, start, end, at, skipped } = position;
        let split = FileSplit { path: path.into(), start, end };
        Self { split, mark: FileMark { bytes: file_bytes, head_crc: file_head_crc }, at, skipped }
    }
}

/// What one of the new subtasks reads of the remaining splits: every `parallelism`th, in the order of the plan's files and of
/// the bytes within them. Files that the plan does not have come last.
pub(crate) fn share(
    mut remaining: Vec<SplitPosition>,
    plan: &[FileSplit],
    subtask: u32,
    parallelism: u32,
) -> Vec<Piece> {
    let mut ranks = HashMap::new();
    for (at, split) in plan.iter().enumerate() {
        ranks.entry(split.path.as_path()).or_insert(at);
    }
    let rank = |path: &str| ranks.get(Path::new(path)).copied().unwrap_or(plan.len());
    remaining.sort_by_cached_key(|position| (rank(&position.path), position.path.clone(), position.start, position.at));
    remaining.into_iter().skip(subtask as usize).step_by(parallelism as usize).map(Piece::from).collect()
}

/// Splits by file: those of one file are read one after the other.
pub(crate) fn by_file(pieces: impl IntoIterator<Item = Piece>) -> VecDeque<VecDeque<Piece>> {
    let mut files: VecDeque<VecDeque<Piece>> = VecDeque::new();
    for piece in pieces {
        match files.back_mut().filter(|file| file.back().is_some_and(|last| last.split.path == piece.split.path)) {
            Some(file) => file.push_back(piece),
            None => files.push_back(VecDeque::from([piece])),
        }
    }
    files
}

/// Finds a file that is not as it was.
///
/// # Errors
/// It is missing or has changed.
pub(crate) fn check_files(files: &VecDeque<VecDeque<Piece>>) -> Result<(), FileError> {
    files.iter().filter_map(VecDeque::front).try_for_each(|piece| piece.mark.check(&piece.split.path))
}

/// What the files of a plan are like, one mark a split.
///
/// # Errors
/// A file is missing or unreadable.
pub(crate) fn marks(plan: &[FileSplit]) -> Result<Vec<FileMark>, FileError> {
    let mut marks: Vec<FileMark> = Vec::with_capacity(plan.len());
    for (at, split) in plan.iter().enumerate() {
        let known = (at > 0 && plan[at - 1].path == split.path).then(|| marks[at - 1]);
        marks.push(match known {
            Some(mark) => mark,
            None => FileMark::of(&split.path)?,
        });
    }
    Ok(marks)
}
