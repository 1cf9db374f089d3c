//! How the runtime sees a table of keyed state: what it is called, and that snapshots can be taken of it.

use std::{cell::Cell, sync::Arc};

use thalweg_io::checkpoint::StateKind;
use thalweg_model::CheckpointId;
use thalweg_state::Snapshots;

use super::SnapshotPart;

/// What a table was restored from, where an increment may go on from it.
#[derive(Clone, Debug)]
pub struct RestoredChain {
    /// The checkpoint.
    pub checkpoint: CheckpointId,
    /// Epoch of the last image.
    pub epoch: u16,
    /// The base and the increments on it.
    pub parts: Vec<SnapshotPart>,
}

/// Names one table of keyed state for as long as it lives.
#[derive(Clone, Debug)]
pub struct StateHandle {
    /// Unique on its slot: no other table has it, also later.
    id: u64,
    /// Index of the operator in its segment.
    pub operator: usize,
    /// Name of the state; unique in the operator at any time, together with the kind.
    pub name: Arc<str>,
    /// What kind of table.
    pub kind: StateKind,
    /// Encoded schema of key and value.
    pub schema: Arc<[u8]>,
    /// What it was restored from.
    pub restored: Option<Arc<RestoredChain>>,
}

thread_local! {
    static NEXT_ID: Cell<u64> = const { Cell::new(1) };
}

impl StateHandle {
    /// The handle of a new table.
    pub fn new(operator: usize, name: impl Into<Arc<str>>, kind: StateKind, schema: Arc<[u8]>) -> Self {
        let id = NEXT_ID.with(|next| next.replace(next.get() + 1));
        Self { id, operator, name: name.into(), kind, schema, restored: None }
    }

    /// Its number.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }
}

/// A table of keyed state, shown to the runtime.
pub struct KeyedStateRef<'a> {
    /// What it is.
    pub handle: &'a StateHandle,
    /// The table.
    pub table: &'a mut dyn Snapshots,
    /// Memory it holds, in bytes.
    pub memory_bytes: usize,
    /// Whether it holds state now. One that does not (kept for reuse, or until a running snapshot has read it) takes no
    /// part in the next checkpoint.
    pub live: bool,
}
