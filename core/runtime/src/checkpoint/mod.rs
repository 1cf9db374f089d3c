//! Checkpoints inside a slot: barriers, what each segment hands over at one, and the writing beside the stream.
//!
//! The way of a barrier: a [`CheckpointRequest`] reaches the tasks that no barrier reaches (sources, mostly) through the
//! slot's mailbox; a segment takes it between two batches: it sends the barrier on, hands over its operator state and
//! flips the epoch of its tables; the slot then writes their images in slices between batches, and reports the task's part once all its files are
//! durable. Who decides is told through a [`TaskListener`]; nothing here decides whether a checkpoint exists.

mod alignment;
mod hold;
mod image_file;
mod in_flight;
mod keyed_state;
mod mailbox;
mod operator_state;
mod report;
mod request;
mod segment_snapshot;
mod slice_budget;
mod slot_writer;

pub(crate) use alignment::{Aligned, Alignments, Complete};
pub(crate) use hold::Held;
pub use hold::SnapshotHold;
pub(crate) use in_flight::{ChannelState, RestoredFrames, check_restored, restored_frames};
pub use keyed_state::{KeyedStateRef, RestoredChain, StateHandle};
pub(crate) use mailbox::{Mailbox, SlotMessage};
pub use operator_state::OperatorStateWriter;
pub use report::{
    Acknowledgement, DeclineReason, OperatorSnapshot, SnapshotFigures, SnapshotPart, SnapshotPlace, StateSnapshot,
    TaskListener, TaskReport, TaskSubtask,
};
pub use request::{BarrierAlignment, CheckpointRequest, CheckpointingSetup, StopMode};
pub(crate) use segment_snapshot::{AtBarrier, Outcome, SegmentSnapshots, Slice, SliceEnv};
pub(crate) use slot_writer::{SlotSnapshots, Work};
