//! `OperatorSnapshot`: where an operator puts its state at a barrier.

use thalweg_io::checkpoint::StateKind;
use thalweg_model::{CheckpointId, Record};
use thalweg_runtime::{OperatorStateWriter, SnapshotHold};
use thalweg_state::elements::Elements;

use super::elements_schema;

/// The operator state of one subtask, in the making. Elements are records; names are unique in the operator per kind.
pub struct OperatorSnapshot<'a> {
    state: &'a mut OperatorStateWriter,
    operator: usize,
    checkpoint: CheckpointId,
}

impl<'a> OperatorSnapshot<'a> {
    pub(crate) fn new(state: &'a mut OperatorStateWriter, operator: usize, checkpoint: CheckpointId) -> Self {
        Self { state, operator, checkpoint }
    }

    /// The checkpoint that is being taken.
    pub fn checkpoint(&self) -> CheckpointId {
        self.checkpoint
    }

    /// Keeps the acknowledgement of the checkpoint back until something is safe that another thread makes so: what would
    /// stop the stream if it were done here, such as syncing a file.
    pub fn hold(&mut self) -> SnapshotHold {
        self.state.hold()
    }

    /// A list that is dealt out evenly when the parallelism changes.
    ///
    /// # Panics
    /// Where there is a list of this name already.
    pub fn list<T: Record>(&mut self, name: &str, elements: impl IntoIterator<Item = T>) {
        self.add(name, StateKind::OperatorList, elements);
    }

    /// A list of which every subtask finds the elements of all.
    ///
    /// # Panics
    /// Where there is one of this name already.
    pub fn union_list<T: Record>(&mut self, name: &str, elements: impl IntoIterator<Item = T>) {
        self.add(name, StateKind::Union, elements);
    }

    /// What all subtasks have alike: each finds one copy.
    ///
    /// # Panics
    /// Where there is one of this name already.
    pub fn broadcast<T: Record>(&mut self, name: &str, elements: impl IntoIterator<Item = T>) {
        self.add(name, StateKind::Broadcast, elements);
    }

    /// Positions of a source: every subtask finds those of all, and takes its own from them.
    ///
    /// # Panics
    /// Where there are some of this name already.
    pub fn positions<T: Record>(&mut self, name: &str, elements: impl IntoIterator<Item = T>) {
        self.add(name, StateKind::SourcePosition, elements);
    }

    fn add<T: Record>(&mut self, name: &str, kind: StateKind, elements: impl IntoIterator<Item = T>) {
        let mut encoded = Elements::new();
        elements.into_iter().for_each(|element| encoded.push::<T>(element.view()));
        self.state.add(self.operator, name, kind, elements_schema::<T>(), encoded);
    }
}
