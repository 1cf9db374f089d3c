//! One slot: the reactor on its core, tasks as step machines, gates, outputs, watermarks, timers.
//!
//! A [`PhysicalPlan`] goes in, threads pinned to cores run it, a [`JobReport`] comes out. This crate knows segments
//! (opaque pieces of user code) and the channels between them; it never knows an operator, a state or a file.

pub mod clock;
pub mod control;
pub mod error;
mod exchange;
pub mod outputs;
pub mod partition;
pub mod plan;
pub mod segment;
pub mod valve;
pub mod waker;

pub use clock::{Clock, SystemClock, VirtualClock};
pub use control::JobControl;
pub use error::{JobError, ReactorError, TaskError};
pub use exchange::{Frame, FrameCursor, FrameLayout};
pub use outputs::Outputs;
pub use partition::Partitioner;
pub use plan::{
    BufferTimeout, EdgePlan, OperatorInfo, PhysicalPlan, RuntimeConfig, SegmentFactory, SegmentPlan, TaskPlan,
};
pub use segment::{Progress, Segment, SegmentContext, SourceStatus};
pub use waker::SlotWaker;
