//! What `_metadata` says: everything that belongs to a checkpoint, by operator, subtask and state.
//!
//! Plain data. Contents of states and schemas are opaque here. Files are named by paths relative to the directory in
//! which `_metadata` lies, so that a self-contained directory (a savepoint) can be moved.

use thalweg_model::{CheckpointId, JobId, OperatorId};

use super::block_reader::Written;

/// Name of the file in each checkpoint's directory that makes it one.
pub const METADATA_NAME: &str = "_metadata";

/// A checkpoint or savepoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Its number.
    pub checkpoint: CheckpointId,
    /// When it was triggered, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// What it was taken for.
    pub kind: SnapshotKind,
    /// Whether it refers to files of earlier checkpoints.
    pub incremental: bool,
    /// The job.
    pub job: JobId,
    /// The job's name.
    pub job_name: String,
    /// The job's maximum parallelism: the number of key groups of operators that have none of their own.
    pub max_parallelism: u32,
    /// What the coordinator wants to keep: names and opaque values.
    pub properties: Vec<(String, Vec<u8>)>,
    /// Every block file that holds state. Parts name them by index.
    pub files: Vec<FileRef>,
    /// The operators that have state or have finished.
    pub operators: Vec<OperatorState>,
}

/// What a snapshot was taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SnapshotKind {
    /// Owned by the engine, which deletes it when it is superseded.
    Checkpoint,
    /// Owned by the user; self-contained.
    Savepoint,
}

/// A block file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileRef {
    /// Where, from the directory of `_metadata`: `name`, or `../shared/name`.
    pub path: String,
    /// Identity, lengths and digest.
    pub written: Written,
}

/// The state of one operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorState {
    /// By which state is matched on restore.
    pub id: OperatorId,
    /// The uid that the user gave; empty where none was given.
    pub uid: String,
    /// Its name, for people.
    pub name: String,
    /// Number of its subtasks.
    pub parallelism: u32,
    /// Number of its key groups.
    pub max_parallelism: u32,
    /// Whether all subtasks had finished: it is skipped when restored.
    pub finished: bool,
    /// State of the operator's coordinator (a source's splits not yet handed out); empty where there is none.
    pub coordinator: Vec<u8>,
    /// Its subtasks, by ascending index; those without state may be left out.
    pub subtasks: Vec<SubtaskState>,
}

/// The state of one subtask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubtaskState {
    /// Which of the operator's subtasks.
    pub index: u32,
    /// Whether it had finished.
    pub finished: bool,
    /// Its named states.
    pub states: Vec<NamedState>,
}

/// A named state of a subtask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedState {
    /// Its name; unique in the subtask together with the kind.
    pub name: String,
    /// What kind of state.
    pub kind: StateKind,
    /// Its stored schema.
    pub schema: Vec<u8>,
    /// Where its contents lie: a base, then the increments on it, in this order.
    pub parts: Vec<StatePart>,
}

/// Kinds of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum StateKind {
    /// Rows by key.
    KeyedTable,
    /// Lists by key.
    KeyedList,
    /// Maps by key.
    KeyedMap,
    /// Timers by key.
    Timers,
    /// Operator state, split over the subtasks.
    OperatorList,
    /// Operator state that every subtask gets whole.
    Union,
    /// Operator state that all subtasks have alike.
    Broadcast,
    /// Positions of a source.
    SourcePosition,
    /// Buffers in flight of an unaligned checkpoint.
    ChannelState,
}

impl StateKind {
    /// Every kind, by its number in the format.
    pub const ALL: [Self; 9] = [
        Self::KeyedTable,
        Self::KeyedList,
        Self::KeyedMap,
        Self::Timers,
        Self::OperatorList,
        Self::Union,
        Self::Broadcast,
        Self::SourcePosition,
        Self::ChannelState,
    ];
}

/// Contents of a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatePart {
    /// 0: the base; n: the nth increment on it.
    pub increment: u32,
    /// Rows, or elements, in it.
    pub rows: u64,
    /// Where its bytes are.
    pub place: Place,
    /// Which of its bytes belong to which key groups, by ascending group; empty for state without key.
    pub groups: Vec<GroupSpan>,
}

/// Where the bytes of a part are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In `_metadata` itself: small state.
    Inline(Vec<u8>),
    /// In a block file.
    File {
        /// Index into [`Metadata::files`].
        file: u32,
        /// Where in the file's payload, in bytes.
        offset: u64,
        /// How many bytes.
        bytes: u64,
    },
}

/// Bytes of a range of key groups, within a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupSpan {
    /// First group.
    pub first: u16,
    /// Last group.
    pub last: u16,
    /// From the beginning of the part, in bytes.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
    /// Rows in them.
    pub rows: u64,
}

impl Place {
    /// Bytes of the part.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::File { bytes, .. } => *bytes,
        }
    }
}
