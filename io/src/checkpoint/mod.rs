//! Checkpoints on storage: block files, the writer of a slot, `_metadata`, and the store that names and collects files.
//!
//! Owns every byte that a checkpoint leaves on disk, and the order in which they are made durable: a checkpoint either
//! is whole or does not exist, because `_metadata` is renamed into place after everything it names has been synced.
//! Formats are described byte by byte in `io/FORMAT.md`.
//!
//! Invariant: nothing here knows what a state means; schemas and contents are opaque bytes.
//! Invariant: [`SlotWriter`] never blocks its slot; everything else here is for threads that may wait.

mod block_format;
mod block_reader;
#[cfg(test)]
mod block_tests;
mod damage;
mod dir_lock;
mod discover;
mod disk;
mod faults;
mod file_id;
pub mod limits;
mod metadata;
mod metadata_check;
mod metadata_format;
#[cfg(test)]
mod metadata_tests;
mod names;
mod registry;
mod restored;
mod savepoint;
mod store;
#[cfg(test)]
mod store_tests;
mod writer;

pub use block_format::{BlockLayout, encode_block_file};
pub use block_reader::{BlockFile, Written};
pub use damage::{BadFile, Damage};
pub use dir_lock::DirLock;
pub use discover::{Depth, Found, discover, read_metadata, verify};
pub use disk::{DirEntry, Disk, LocalDisk};
pub use faults::{FaultPlan, FaultyDisk, Operation};
pub use file_id::{FileId, FileIds};
pub use metadata::{
    FileRef, GroupSpan, METADATA_NAME, Metadata, NamedState, OperatorState, Place, SnapshotKind, StateKind, StatePart,
    SubtaskState,
};
pub use names::{CheckpointFiles, NewFile, SHARED_DIR, TASKOWNED_DIR};
pub use registry::SharedEntry;
pub use restored::{PartReader, RestoredCheckpoint};
pub use savepoint::{
    DisposeError, abandon_savepoint, begin_savepoint, dispose_savepoint, publish_savepoint, remove_claimed,
    snapshot_dir,
};
pub use store::{CheckpointStore, StoreError};
pub use writer::{
    Appended, Doing, Engine, Event, Fallback, MAX_REQUESTS, MAX_STREAMS, MAX_WRITES_IN_FLIGHT, Request, RequestId,
    SlotWriter, StreamId, StreamSpec, WriteFailure, WriterConfig, WriterError,
};
