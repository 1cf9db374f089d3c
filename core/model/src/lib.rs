//! What every part of Thalweg speaks: records, keys, time, configuration, errors and metrics.
//!
//! This crate depends on nothing else of the workspace. It holds definitions and pure functions; it must
//! never own a thread, a socket, a file or a clock.

pub mod config;
pub mod cores;
pub mod hash;
pub mod ids;
pub mod key_group;
pub mod metrics;
pub mod record;
pub mod schema;
pub mod seq;
pub mod time;

pub use hash::{KeyHash, KeyHasher};
pub use ids::{CheckpointId, JobId, OperatorId};
pub use key_group::{KeyGroup, KeyGroupRange, MaxParallelism};
pub use record::{Elem, EncodeScratch, Record};
pub use schema::{Schema, StateSchema, Value};
pub use seq::Seq;

#[doc(hidden)]
pub use rkyv;
