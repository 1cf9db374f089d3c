//! State of operators in checkpoints: what they hand over at a barrier, and what they find again.

mod restore;
mod snapshot;
mod tables;

pub use restore::OperatorRestore;
pub use snapshot::OperatorSnapshot;
pub(crate) use tables::{KeyedTable, StateTable, record_type, schema_of};
pub use thalweg_model::CheckpointId;
