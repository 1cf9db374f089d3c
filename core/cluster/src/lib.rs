//! Coordination as pure code: slot allocation and placement.
//!
//! Facts go in, decisions come out. Nothing here owns a clock, a thread or a socket.

pub mod slots;

pub use slots::{SlotAllocation, VertexSlots, allocate_slots};
