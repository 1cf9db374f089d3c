//! Coordination as pure code: slot allocation, checkpoints, restarts, job states, rescaling.
//!
//! Facts go in, decisions come out. Nothing here owns a clock, a thread or a socket.

pub mod checkpoint;
pub mod job;
pub mod rescale;
pub mod slots;
mod time;

pub use slots::{SlotAllocation, VertexSlots, allocate_slots};
pub use time::TimeMs;
