//! One slot: the reactor on its core, tasks as step machines, gates, outputs, watermarks, timers.
//!
//! A [`PhysicalPlan`] goes in, threads pinned to cores run it, a [`JobReport`] comes out. This crate knows segments
//! (opaque pieces of user code), the channels between them, and tables and files only as what a checkpoint is made of; it
//! never knows an operator.

mod build;
pub mod checkpoint;
pub mod clock;
pub mod control;
pub mod error;
mod exchange;
pub mod execute;
mod guard;
mod inputs;
mod job_life;
mod latency;
pub mod outputs;
mod pace;
mod park_word;
pub mod partition;
pub mod plan;
pub mod reactor;
pub mod segment;
mod segment_run;
pub mod slot;
mod task;
pub mod valve;
mod wake_set;
pub mod waker;
mod wiring;

pub use checkpoint::{
    Acknowledgement, BarrierAlignment, CheckpointRequest, CheckpointingSetup, DeclineReason, KeyedStateRef,
    OperatorSnapshot, OperatorStateWriter, RestoredChain, SnapshotFigures, SnapshotHold, SnapshotPart, SnapshotPlace,
    StateHandle, StateSnapshot, StopMode, TaskListener, TaskReport, TaskSubtask,
};
pub use clock::{Clock, SystemClock, VirtualClock};
pub use control::JobControl;
pub use error::{JobError, ReactorError, TaskError};
pub use exchange::{Frame, FrameCursor, FrameLayout};
pub use execute::{JobHooks, JobReport, execute, execute_with};
pub use job_life::JobLife;
pub use outputs::Outputs;
pub use partition::Partitioner;
pub use plan::{
    BufferTimeout, EdgePlan, OperatorInfo, PhysicalPlan, RecordType, RuntimeConfig, SegmentFactory, SegmentPlan,
    TaskPlan,
};
pub use reactor::{GlommioReactor, Reactor, SeededReactor, SlotEnv, SlotProgram};
pub use segment::{Progress, Segment, SegmentContext, SourceStatus};
pub use slot::{Slot, SlotOutcome, Turn};
pub use waker::SlotWaker;
