//! The vocabulary of checkpoints: ids, kinds, acknowledgements, and what a completed one consists of.

use std::fmt;

use thalweg_model::config::CheckpointingMode;

use crate::TimeMs;

/// Number of a checkpoint or savepoint within its job; strictly increasing, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckpointId(pub u64);

impl fmt::Display for CheckpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number that a caller gives to its request, so that it recognises the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A subtask: the vertex by its place in the topology, and its index in the vertex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubtaskId {
    /// Place of the vertex in the topology.
    pub vertex: u32,
    /// Index of the subtask.
    pub index: u32,
}

impl fmt::Display for SubtaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "subtask {} of vertex {}", self.index, self.vertex)
    }
}

/// How a savepoint is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SavepointFormat {
    /// Independent of the state backend.
    Canonical,
    /// As the backend writes its checkpoints.
    Native,
}

/// What a stop with savepoint does to windows and timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// They stay open, in the state: the job is to go on later.
    Suspend,
    /// The last watermark is sent first, so that all of them fire: the job is done.
    Drain,
}

/// What is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The engine's own.
    Checkpoint {
        /// Whether it must not reference files of earlier ones.
        full: bool,
    },
    /// The user's.
    Savepoint {
        /// How it is written.
        format: SavepointFormat,
        /// Whether the job ends with it (a synchronous savepoint), and how.
        stop: Option<StopMode>,
    },
}

impl Kind {
    /// Whether it belongs to the user.
    pub fn is_savepoint(self) -> bool {
        matches!(self, Self::Savepoint { .. })
    }

    /// The mode in which the job ends with it, if it does.
    pub fn stop(self) -> Option<StopMode> {
        match self {
            Self::Savepoint { stop, .. } => stop,
            Self::Checkpoint { .. } => None,
        }
    }

    /// Whether sinks may commit when it completes: not after a savepoint in passing, from which nothing recovers.
    pub fn commits(self) -> bool {
        !self.is_savepoint() || self.stop().is_some()
    }
}

/// How barriers travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alignment {
    /// In line with the records.
    Aligned,
    /// Overtaking them at once.
    Unaligned,
    /// In line, overtaking once this many milliseconds have passed since the trigger.
    AlignedAtFirst {
        /// The time, above 0.
        timeout_ms: u64,
    },
}

/// What a task must know to take its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// Which checkpoint.
    pub id: CheckpointId,
    /// What it is.
    pub kind: Kind,
    /// When it was triggered.
    pub triggered_at: TimeMs,
    /// Whether channels that delivered the barrier are held back.
    pub mode: CheckpointingMode,
    /// How it travels.
    pub alignment: Alignment,
    /// The one earlier checkpoint whose shared files this one may reference; `None`: it is written in full. A task goes
    /// by this and not by notifications, which may be lost: the files of any other may be gone.
    pub base: Option<CheckpointId>,
}

/// Figures that a subtask reports with its acknowledgement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubtaskFigures {
    /// Size of its whole state in bytes.
    pub state_bytes: u64,
    /// Bytes that this checkpoint newly wrote.
    pub checkpointed_bytes: u64,
    /// Milliseconds in which the task stood still for it.
    pub sync_ms: u64,
    /// Milliseconds of writing beside the stream.
    pub async_ms: u64,
    /// Milliseconds from its first to its last barrier.
    pub alignment_ms: u64,
    /// Milliseconds from the trigger to its first barrier.
    pub start_delay_ms: u64,
    /// Bytes processed between its first and its last barrier.
    pub processed_bytes: u64,
    /// Bytes of buffers in flight that became part of it.
    pub persisted_bytes: u64,
    /// Whether its barrier overtook records.
    pub unaligned: bool,
}

/// A subtask's part of a checkpoint is written and safe.
#[derive(Clone, Debug)]
pub struct Ack<S> {
    /// Which checkpoint.
    pub id: CheckpointId,
    /// Who.
    pub subtask: SubtaskId,
    /// Its state, or where that lies: opaque here.
    pub state: S,
    /// Figures.
    pub figures: SubtaskFigures,
    /// Whether the subtask had processed all of its input before the barrier.
    pub end_of_data: bool,
    /// Whether the state holds a union list, which must not lose the parts of finished subtasks.
    pub union_list: bool,
}

/// A checkpoint or savepoint whose parts are all there.
#[derive(Clone, Debug)]
pub struct Checkpoint<S> {
    /// Number.
    pub id: CheckpointId,
    /// What it is.
    pub kind: Kind,
    /// When it was triggered.
    pub triggered_at: TimeMs,
    /// Where the requester wants it; `None`: the configured place.
    pub target: Option<String>,
    /// State of operator coordinators such as split enumerators, as `Prepared` brought it.
    pub coordinators: Vec<S>,
    /// State of each subtask that took part, ordered by subtask.
    pub parts: Vec<Part<S>>,
    /// Subtasks that had finished before it and have no state any more.
    pub finished: Vec<SubtaskId>,
}

/// A subtask's part of a checkpoint.
#[derive(Clone, Debug)]
pub struct Part<S> {
    /// Who.
    pub subtask: SubtaskId,
    /// State or where it lies.
    pub state: S,
    /// Whether the subtask had processed all of its input.
    pub end_of_data: bool,
}

impl<S> Checkpoint<S> {
    /// A checkpoint as far as a start from its place on storage needs it: no parts, which are read from there.
    pub fn on_storage(id: CheckpointId, kind: Kind, triggered_at: TimeMs, target: Option<String>) -> Self {
        Self { id, kind, triggered_at, target, coordinators: Vec::new(), parts: Vec::new(), finished: Vec::new() }
    }

    /// Whether every subtask of a vertex had processed all of its input: a restored job skips the vertex's operators.
    pub fn is_fully_finished(&self, vertex: u32) -> bool {
        let mut parts = self.parts.iter().filter(|part| part.subtask.vertex == vertex).peekable();
        let any = parts.peek().is_some() || self.finished.iter().any(|subtask| subtask.vertex == vertex);
        any && parts.all(|part| part.end_of_data)
    }
}
