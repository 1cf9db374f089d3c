//! Checkpoints: when they are taken, when they exist, what is kept of them.
//!
//! [`Coordinator`] decides and nothing else: it owns no clock, thread, socket or file. Semantics are those of Flink's
//! `CheckpointCoordinator` and its helpers; where they differ, the module concerned says so.

mod coordinator;
mod events;
mod failure;
mod pending;
mod progress;
mod request;
mod schedule;
mod settled;
mod stats;
mod store;
mod topology;
mod types;

pub use coordinator::Coordinator;
pub use events::{Action, Answered, Event, JobEnd};
pub use failure::{Failure, FailureReason};
pub use request::MAX_QUEUED_REQUESTS;
pub use stats::{Counts, Record, Restored, Spread, Statistics, Status, SubtaskRecord, Summary};
pub use store::{Owner, Retained};
pub use topology::{Input, TaskPhase, Topology, Vertex, Wiring};
pub use types::{
    Ack, Alignment, Barrier, Checkpoint, CheckpointId, Kind, Part, RequestId, SavepointFormat, StopMode,
    SubtaskFigures, SubtaskId,
};
