//! Options structs: what the parts of the engine are told, free of keys and text.

mod checkpointing;
mod restart;

pub use checkpointing::{CheckpointRetention, CheckpointingMode, CheckpointingOptions};
pub use restart::{ExponentialDelay, FailureRate, FixedDelay, RestartStrategyOptions};
