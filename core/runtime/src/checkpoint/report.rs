//! What tasks report of themselves: how far they are, and their parts of checkpoints.

use thalweg_io::checkpoint::{FileRef, StateKind};
use thalweg_model::{CheckpointId, OperatorId};

/// A subtask, by the place of its task in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskSubtask {
    /// Index of the task in the plan.
    pub task: usize,
    /// Index of the subtask.
    pub subtask: u32,
}

/// Hears of tasks, on the slots' threads. Must not block.
pub trait TaskListener: Send + Sync {
    /// Something happened to a subtask.
    fn report(&self, subtask: TaskSubtask, report: TaskReport);
}

/// What happened to a subtask.
#[derive(Debug)]
pub enum TaskReport {
    /// It is open, restored if it was to be, and runs.
    Running,
    /// It has processed all of its input and waits for a last checkpoint.
    EndOfData,
    /// It has ended in order.
    Finished,
    /// Its part of a checkpoint is safe.
    Acknowledged(Box<Acknowledgement>),
    /// It cannot take its part in a checkpoint.
    Declined {
        /// Which.
        id: CheckpointId,
        /// Why.
        reason: DeclineReason,
        /// Why, for people.
        message: String,
    },
}

/// Why a subtask cannot take its part in a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeclineReason {
    /// Its state could not be written.
    Writing,
    /// The barrier of a later checkpoint came first.
    Overtaken,
}

/// A subtask's part of a checkpoint.
#[derive(Clone, Debug)]
pub struct Acknowledgement {
    /// Which checkpoint.
    pub id: CheckpointId,
    /// The state of its operators.
    pub operators: Vec<OperatorSnapshot>,
    /// Figures.
    pub figures: SnapshotFigures,
    /// Whether all input had been processed before the barrier.
    pub end_of_data: bool,
}

/// Figures of a subtask's part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotFigures {
    /// Size of its whole state in bytes, what it shares with earlier checkpoints included.
    pub state_bytes: u64,
    /// Bytes that this checkpoint newly wrote.
    pub written_bytes: u64,
    /// Nanoseconds in which the task stood still for it.
    pub sync_ns: u64,
    /// Nanoseconds of writing beside the stream.
    pub async_ns: u64,
    /// Nanoseconds from its first to its last barrier.
    pub alignment_ns: u64,
    /// Milliseconds from the trigger to its first barrier.
    pub start_delay_ms: u64,
    /// Bytes processed between its first and its last barrier.
    pub processed_bytes: u64,
    /// Bytes of buffers in flight that became part of it.
    pub persisted_bytes: u64,
    /// Whether its barrier overtook records.
    pub unaligned: bool,
}

impl SnapshotFigures {
    /// Takes in the figures of another segment of the task.
    pub(crate) fn add(&mut self, other: &Self) {
        self.state_bytes += other.state_bytes;
        self.written_bytes += other.written_bytes;
        self.sync_ns += other.sync_ns;
        self.async_ns = self.async_ns.max(other.async_ns);
        self.alignment_ns = self.alignment_ns.max(other.alignment_ns);
        self.start_delay_ms = self.start_delay_ms.max(other.start_delay_ms);
        self.processed_bytes += other.processed_bytes;
        self.persisted_bytes += other.persisted_bytes;
        self.unaligned |= other.unaligned;
    }
}

/// The state of one operator in one subtask.
#[derive(Clone, Debug)]
pub struct OperatorSnapshot {
    /// Which operator.
    pub operator: OperatorId,
    /// Its states.
    pub states: Vec<StateSnapshot>,
}

/// One named state.
#[derive(Clone, Debug)]
pub struct StateSnapshot {
    /// Its name.
    pub name: String,
    /// What kind of state.
    pub kind: StateKind,
    /// Its encoded schema.
    pub schema: Vec<u8>,
    /// Its contents: the base, then increments.
    pub parts: Vec<SnapshotPart>,
}

/// Contents of a state.
#[derive(Clone, Debug)]
pub struct SnapshotPart {
    /// Rows or elements in it.
    pub rows: u64,
    /// Where its bytes are.
    pub place: SnapshotPlace,
}

/// Where the bytes of a part are.
#[derive(Clone, Debug)]
pub enum SnapshotPlace {
    /// Here: small state.
    Inline(Vec<u8>),
    /// The whole payload of a file.
    File(FileRef),
}

impl SnapshotPlace {
    /// How many bytes the part has.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::File(file) => file.written.payload_bytes,
        }
    }
}
