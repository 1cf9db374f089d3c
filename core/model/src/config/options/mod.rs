//! Options structs: what the parts of the engine are told, free of keys and text. Each is made `from(&configuration)`,
//! and those that a program changes afterwards take over what another configuration sets with `update`.

mod checkpointing;
mod engine;
mod memory;
mod recovery;
mod rest;
mod restart;
mod state;

pub use checkpointing::{CheckpointRetention, CheckpointingMode, CheckpointingOptions};
pub use engine::EngineOptions;
pub use memory::MemoryOptions;
pub use recovery::{ClaimMode, RecoveryOptions, RestoreFrom};
pub use rest::RestOptions;
pub use restart::{ExponentialDelay, FailureRate, FixedDelay, RestartStrategyOptions, RestartStrategyType};
pub use state::{CheckpointStorage, StateBackend, StateBackendName, StateOptions, StorageName};
