//! What the machine does without an engine: loops written by hand, to hold the engine's figures against.

pub mod exchange;
pub mod memory;
pub mod memory_copy;
pub mod pinned;
pub mod pipeline;
pub mod ring;
pub mod shuffle_count;
