//! State of operators in checkpoints: what they hand over at a barrier, and what they find again.

mod restore;
mod snapshot;
mod tables;

pub use restore::OperatorRestore;
pub use snapshot::OperatorSnapshot;
pub(crate) use tables::{KeyedTable, StateTable, elements_schema, record_type};
pub use thalweg_io::checkpoint::DisposeError;
use thalweg_io::checkpoint::LocalDisk;
pub use thalweg_model::CheckpointId;
pub use thalweg_runtime::SnapshotHold;
pub use thalweg_state::Migration;

/// Removes a savepoint, given by its directory or by the `_metadata` in it.
///
/// # Errors
/// Where there is none, where it is a checkpoint of the engine's own, where a job that runs may yet restore from it, or
/// where the disk refuses.
pub fn dispose_savepoint(path: impl AsRef<std::path::Path>) -> Result<(), DisposeError> {
    thalweg_io::checkpoint::dispose_savepoint(&LocalDisk, path.as_ref())
}
