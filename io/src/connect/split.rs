//! Splits: pieces of files of fixed bytes, planned once and dealt to subtasks.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::FileError;

/// A piece of a file. The lines whose first byte lies in `start..end` belong to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileSplit {
    /// The file.
    pub path: PathBuf,
    /// The first byte.
    pub start: u64,
    /// The byte after the last.
    pub end: u64,
}

impl FileSplit {
    /// A file as one split.
    ///
    /// # Errors
    /// Where the file is missing, unreadable or not a regular file.
    pub fn whole(path: impl Into<PathBuf>) -> Result<Self, FileError> {
        let path = path.into();
        let end = regular_file_bytes(&path)?;
        Ok(Self { path, start: 0, end })
    }

    /// The bytes it covers.
    pub fn bytes(&self) -> u64 {
        self.end - self.start
    }
}

/// The files that paths stand for, in the order of [`plan_splits`]: a directory stands for the regular files directly in
/// it, sorted by name (names that start with `.` or `_` are left out).
///
/// # Errors
/// A path that is missing or unreadable; a directory with nothing to read; no path at all.
pub fn input_files<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<Vec<PathBuf>, FileError> {
    let mut files = Vec::new();
    for path in paths {
        let path = path.as_ref();
        if metadata(path)?.is_dir() {
            files.extend(files_of_directory(path)?);
        } else {
            files.push(path.to_path_buf());
        }
    }
    if files.is_empty() { Err(FileError::NoInput) } else { Ok(files) }
}

/// Cuts files into splits of `split_bytes`, the last of each file shorter; `u64::MAX` makes one split of every file.
/// The order is that of the files (see [`input_files`]) and of the bytes within them. Empty files have no split. The plan
/// depends on the files and `split_bytes` alone, never on the parallelism.
///
/// # Errors
/// A path that is missing, unreadable, or neither regular file nor directory; a directory with nothing to read; no path
/// at all; `split_bytes` 0.
pub fn plan_splits<P: AsRef<Path>>(
    paths: impl IntoIterator<Item = P>,
    split_bytes: u64,
) -> Result<Vec<FileSplit>, FileError> {
    if split_bytes == 0 {
        return Err(FileError::ZeroSplitBytes);
    }
    let mut splits = Vec::new();
    for path in input_files(paths)? {
        let file_bytes = regular_file_bytes(&path)?;
        let mut start = 0;
        while start < file_bytes {
            let end = start.saturating_add(split_bytes).min(file_bytes);
            splits.push(FileSplit { path: path.clone(), start, end });
            start = end;
        }
    }
    Ok(splits)
}

/// Who reads which split: split `i` of the plan goes to subtask `i mod parallelism`, in the plan's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitAssignment {
    parallelism: usize,
}

impl SplitAssignment {
    /// The assignment for that many subtasks.
    ///
    /// # Panics
    /// Where `parallelism` is 0.
    pub fn new(parallelism: usize) -> Self {
        assert!(parallelism > 0, "parallelism must be at least 1");
        Self { parallelism }
    }

    /// The splits of one subtask with their places in the plan. None for a subtask beyond the number of splits.
    ///
    /// # Panics
    /// Where `subtask` is not below the parallelism.
    pub fn splits_of(self, subtask: usize, plan: &[FileSplit]) -> impl Iterator<Item = (usize, &FileSplit)> {
        assert!(subtask < self.parallelism, "subtask {subtask} of {}", self.parallelism);
        plan.iter().enumerate().skip(subtask).step_by(self.parallelism)
    }
}

fn files_of_directory(directory: &Path) -> Result<Vec<PathBuf>, FileError> {
    let failed = |source| FileError::Open { path: directory.to_path_buf(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let hidden = matches!(entry.file_name().as_encoded_bytes().first(), Some(b'.' | b'_'));
        let path = entry.path();
        if !hidden && metadata(&path)?.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(FileError::EmptyDirectory { path: directory.to_path_buf() });
    }
    files.sort();
    Ok(files)
}

fn metadata(path: &Path) -> Result<fs::Metadata, FileError> {
    fs::metadata(path).map_err(|source| open_error(path, source))
}

/// The length of a regular file.
pub(super) fn regular_file_bytes(path: &Path) -> Result<u64, FileError> {
    let metadata = metadata(path)?;
    if metadata.is_file() { Ok(metadata.len()) } else { Err(FileError::NotRegular { path: path.to_path_buf() }) }
}

/// What a failure to open a path means.
pub(super) fn open_error(path: &Path, source: io::Error) -> FileError {
    let path = path.to_path_buf();
    match source.kind() {
        io::ErrorKind::NotFound => FileError::NotFound { path },
        _ => FileError::Open { path, source },
    }
}
