//! Configuration: typed keys under Flink's names, the layers they come from, and the options structs made of them.
//!
//! Owns names, defaults, parsing and messages. It must never open a file or read the environment: the caller hands over
//! text and the name to show for it.

mod configuration;
mod error;
mod ignored;
pub mod keys;
pub mod options;
mod source;
mod value;

pub use configuration::{Configuration, ConfigurationBuilder};
pub use error::{ConfigError, Warning};
pub use keys::Key;
pub use options::{
    CheckpointRetention, CheckpointStorage, CheckpointingMode, CheckpointingOptions, ClaimMode, EngineOptions,
    ExponentialDelay, FailureRate, FixedDelay, MemoryOptions, RecoveryOptions, RestOptions, RestartStrategyOptions,
    RestartStrategyType, RestoreFrom, StateBackend, StateBackendName, StateOptions, StorageName,
};
pub use source::Source;
pub use value::{ConfigValue, Fraction, MemorySize};
