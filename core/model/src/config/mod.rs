//! Configuration: typed keys under Flink's names, the layers they come from, and the options structs made of them.
//!
//! Owns names, defaults, parsing and messages. It must never open a file or read the environment: the caller hands over
//! text and the name to show for it.

pub mod options;

pub use options::{
    CheckpointRetention, CheckpointingMode, CheckpointingOptions, ExponentialDelay, FailureRate, FixedDelay,
    RestartStrategyOptions,
};
