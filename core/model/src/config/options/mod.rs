//! Options structs: what the parts of the engine are told, free of keys and text. Each is made `from(&configuration)`.

mod checkpointing;
mod engine;
mod restart;
mod state;

pub use checkpointing::{CheckpointRetention, CheckpointingMode, CheckpointingOptions};
pub use engine::{ClaimMode, EngineOptions, MemoryOptions, RecoveryOptions};
pub use restart::{ExponentialDelay, FailureRate, FixedDelay, RestartStrategyOptions, RestartStrategyType};
pub use state::{CheckpointStorage, StateBackend, StateBackendName, StateOptions, StorageName};
