//! The port to the disk that does not wait: operations go in, and come out when they are done.
//!
//! One dynamic call per operation, so at most a few per block. An operation owns what it needs, its buffer included,
//! until it comes back: nothing that the kernel still reads can be touched or freed.

use std::{fs::File, io, path::PathBuf, sync::Arc};

use super::{RequestId, StreamId, buffers::Buffer};

/// Whom an operation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Stream(StreamId),
    Request(RequestId),
}

/// An operation on the disk.
pub(crate) enum Op {
    /// Creates a file, which must not exist.
    Create { path: PathBuf, direct: bool },
    /// Opens a directory, to sync it.
    OpenDir { path: PathBuf },
    /// Reserves space, and makes the file that long.
    Allocate { file: Arc<File>, offset: u64, bytes: u64 },
    /// Writes the bytes `start..end` of a buffer; may write fewer, at most `at_most`.
    Write { file: Arc<File>, buffer: Buffer, start: usize, end: usize, offset: u64, at_most: usize },
    /// Cuts a file to its length.
    Truncate { file: Arc<File>, bytes: u64 },
    /// Makes contents durable.
    Sync { file: Arc<File> },
    /// Closes a file. `None` once it has been taken.
    Close { file: Option<File> },
    /// Renames.
    Rename { from: PathBuf, to: PathBuf },
    /// Removes a file.
    Unlink { path: PathBuf },
    /// Makes a directory.
    MakeDir { path: PathBuf },
}

/// An operation and whom it is for.
pub(crate) struct Job {
    pub(crate) owner: Owner,
    pub(crate) op: Op,
}

/// What an operation has done.
#[derive(Debug)]
pub(crate) enum Answer {
    Opened(File),
    Wrote(usize),
    Nothing,
}

/// An operation that has come back.
pub(crate) struct Done {
    pub(crate) job: Job,
    pub(crate) result: io::Result<Answer>,
}

/// Carries operations out. Each one that goes in comes out exactly once, in any order.
pub(crate) trait Lane {
    /// Takes an operation. The writer never has more in flight than the lane was made for.
    fn submit(&mut self, job: Job);

    /// Moves things along without waiting, and hands out what is done.
    ///
    /// # Errors
    /// Where the lane is broken for good; what is in flight then never comes back.
    fn poll(&mut self, done: &mut Vec<Done>) -> io::Result<()>;

    /// Waits until something is done, if anything is in flight.
    fn wait(&mut self) -> io::Result<()>;
}
