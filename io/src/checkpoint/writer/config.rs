//! How a writer is made, what it answers, and what can go wrong.

use std::{fmt, io, os::fd::OwnedFd, path::PathBuf, sync::Arc};

use thalweg_model::CheckpointId;

use crate::checkpoint::{
    block_format::BlockLayout,
    block_reader::Written,
    faults::FaultPlan,
    file_id::FileId,
    limits::{DEFAULT_BLOCK_BYTES, MAX_BLOCK_BYTES, MIN_BLOCK_BYTES},
};

/// Most streams of one writer.
pub const MAX_STREAMS: usize = 256;
/// Most writes that one writer has in flight.
pub const MAX_WRITES_IN_FLIGHT: usize = 256;
/// Most requests (renames, removals and the like) that wait at a time.
pub const MAX_REQUESTS: usize = 64;

/// How the writer reaches the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// io_uring, or a helper thread where the system refuses it (with one warning).
    Auto,
    /// A helper thread.
    Thread,
}

/// What a writer is made of.
#[derive(Debug)]
pub struct WriterConfig {
    /// Size of a block: a multiple of 4 KiB, up to 1 MiB; 256 KiB and more keep a disk busy.
    pub block_bytes: usize,
    /// Files that may be open at once, each with a block being filled.
    pub max_streams: usize,
    /// Blocks that may be on their way to the disk at once.
    pub max_writes_in_flight: usize,
    /// Space is reserved ahead of the writes in steps of so many bytes; 0 for not at all.
    pub preallocate_bytes: u64,
    /// Whether to write past the page cache where the file system takes it.
    pub direct: bool,
    /// How to reach the disk.
    pub engine: Engine,
    /// The eventfd on which the slot sleeps, to be signalled by completions. `None`: the writer makes one.
    pub wake: Option<OwnedFd>,
    /// Faults for tests.
    pub faults: Option<Arc<FaultPlan>>,
}

impl Default for WriterConfig {
    fn default() -> Self {
        Self {
            block_bytes: DEFAULT_BLOCK_BYTES,
            max_streams: 4,
            max_writes_in_flight: 3,
            preallocate_bytes: 64 << 20,
            direct: true,
            engine: Engine::Auto,
            wake: None,
            faults: None,
        }
    }
}

impl WriterConfig {
    /// Buffers of the writer: one that each stream fills, and one for each write in flight. A stream that waits for a
    /// buffer waits for writes only, never for another stream, so that it always gets one.
    pub fn buffers(&self) -> usize {
        self.max_streams + self.max_writes_in_flight
    }

    /// Operations in flight: the writes, two for each stream (reserving goes beside writing), and the requests.
    pub(crate) fn operations(&self) -> usize {
        self.max_writes_in_flight + 2 * self.max_streams + MAX_REQUESTS
    }

    pub(crate) fn layout(&self) -> Result<BlockLayout, WriterError> {
        let streams = (1..=MAX_STREAMS).contains(&self.max_streams);
        let writes = (1..=MAX_WRITES_IN_FLIGHT).contains(&self.max_writes_in_flight);
        BlockLayout::new(self.block_bytes).filter(|_| streams && writes).ok_or(WriterError::BadConfig {
            block_bytes: self.block_bytes,
            max_streams: self.max_streams,
            max_writes_in_flight: self.max_writes_in_flight,
        })
    }
}

/// Why there is no writer, or no stream.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriterError {
    /// The configuration makes no sense.
    #[error(
        "checkpoint blocks of {block_bytes} bytes, {max_streams} files, {max_writes_in_flight} writes in flight: use a \
         multiple of 4096 from {MIN_BLOCK_BYTES} to {MAX_BLOCK_BYTES}, up to {MAX_STREAMS} files and up to \
         {MAX_WRITES_IN_FLIGHT} writes"
    )]
    BadConfig {
        /// The block size asked for.
        block_bytes: usize,
        /// The number of streams asked for.
        max_streams: usize,
        /// The number of writes asked for.
        max_writes_in_flight: usize,
    },
    /// The system refuses something that even the fallback needs.
    #[error("cannot set up the checkpoint writer ({what}): {source}")]
    System {
        /// What was refused.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Too much is open already; finish something, and poll.
    #[error("the checkpoint writer has {limit} {what} already: poll until one is done")]
    Busy {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The way to the disk broke earlier; every stream has failed.
    #[error("the checkpoint writer broke down earlier: restart the task")]
    Broken,
}

/// What the writer does without, because the system refuses it. It works, more slowly.
#[derive(Debug)]
#[non_exhaustive]
pub enum Fallback {
    /// No io_uring: a helper thread writes.
    HelperThread(io::Error),
    /// The buffers are not registered with the ring.
    UnregisteredBuffers {
        /// Bytes of the buffers.
        bytes: usize,
        /// What the system said.
        source: io::Error,
    },
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Newer kernels count the ring itself as locked memory.
            Self::HelperThread(error) if error.raw_os_error() == Some(libc::ENOMEM) => write!(
                f,
                "cannot lock memory for an io_uring ({error}), so a helper thread writes checkpoints: raise the limit \
                 on locked memory (`ulimit -l`)"
            ),
            Self::HelperThread(error) => write!(
                f,
                "io_uring is not available ({error}), so a helper thread writes checkpoints: allow io_uring in the \
                 container's seccomp profile and set kernel.io_uring_disabled=0"
            ),
            Self::UnregisteredBuffers { bytes, source } => write!(
                f,
                "cannot lock {} KiB of checkpoint buffers ({source}), so they are not registered and writes cost more: \
                 raise the limit on locked memory (`ulimit -l`, in KiB) by so much for each slot",
                bytes.div_ceil(1024)
            ),
        }
    }
}

/// Names a stream: a file being written. Never used twice by one writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub(crate) u64);

/// Names a request. Never used twice by one writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub(crate) u64);

/// A file to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSpec {
    /// Where; there must be no file of that name, and the directory must exist.
    pub path: PathBuf,
    /// Its identity.
    pub file: FileId,
    /// The checkpoint that it is written for.
    pub checkpoint: CheckpointId,
    /// About how many bytes will come: so many are reserved at first. 0 where nobody knows.
    pub expected_bytes: u64,
}

/// What became of bytes that were appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// All were taken.
    All,
    /// The first so many were taken; come back with the rest after a poll.
    Partial(usize),
    /// None were taken; come back after a poll.
    Full,
    /// The stream has failed, or there is none: an event says or has said why.
    Failed,
}

/// What the writer was doing when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Doing {
    /// Creating the file.
    Create,
    /// Reserving space.
    Allocate,
    /// Writing a block.
    Write,
    /// Cutting the file to its length.
    Truncate,
    /// Making it durable. What the file holds is unknown now; it is given up, never synced again.
    Sync,
    /// Closing it.
    Close,
    /// A request, or the ring itself.
    Other,
}

/// Why a file could not be written. The file has been given up and, as far as the disk lets us, removed.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path} ({doing:?} at byte {offset}): {source}")]
pub struct WriteFailure {
    /// The file.
    pub path: PathBuf,
    /// What failed.
    pub doing: Doing,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// What the system said.
    pub source: io::Error,
}

/// Something that is not about one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Make the entries of a directory durable.
    SyncDir(PathBuf),
    /// Rename a file.
    Rename {
        /// Its name.
        from: PathBuf,
        /// Its new name.
        to: PathBuf,
    },
    /// Remove a file.
    Unlink(PathBuf),
    /// Make a directory.
    MakeDir(PathBuf),
}

/// What [`SlotWriter::poll`](super::SlotWriter::poll) reports.
#[derive(Debug)]
pub enum Event {
    /// A file is whole and durable (its directory's entry is made so by the store).
    Finished {
        /// The stream, which is gone now.
        stream: StreamId,
        /// What `_metadata` should say.
        written: Written,
    },
    /// A file was given up and removed.
    Failed {
        /// The stream, which is gone now.
        stream: StreamId,
        /// Why.
        failure: WriteFailure,
        /// Why the file could not be removed; the store's sweep will.
        left_behind: Option<io::Error>,
    },
    /// A file was aborted, as asked, and removed.
    Aborted {
        /// The stream, which is gone now.
        stream: StreamId,
        /// Why the file could not be removed; the store's sweep will.
        left_behind: Option<io::Error>,
    },
    /// A request is done.
    Done {
        /// Which one.
        request: RequestId,
        /// How it went.
        result: io::Result<()>,
    },
}
