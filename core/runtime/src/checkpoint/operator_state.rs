//! What a segment hands over at the barrier besides its tables: small state without key, element by element.

use thalweg_io::checkpoint::StateKind;
use thalweg_state::elements::Elements;

use super::{Held, SnapshotHold};
use crate::SlotWaker;

/// Operator state of one segment, taken at a barrier.
#[derive(Default)]
pub struct OperatorStateWriter {
    states: Vec<OperatorStateOf>,
    holds: Vec<Held>,
    waker: Option<SlotWaker>,
}

/// One state of one operator.
pub(crate) struct OperatorStateOf {
    pub(crate) operator: usize,
    pub(crate) name: String,
    pub(crate) kind: StateKind,
    pub(crate) schema: Vec<u8>,
    pub(crate) elements: Elements,
}

impl OperatorStateWriter {
    /// Adds a state of the operator with this index in its segment.
    ///
    /// # Panics
    /// Where the operator has a state of this name and kind already.
    pub fn add(&mut self, operator: usize, name: &str, kind: StateKind, schema: Vec<u8>, elements: Elements) {
        let taken = |one: &OperatorStateOf| one.operator == operator && one.name == name && one.kind == kind;
        assert!(
            !self.states.iter().any(taken),
            "operator state {name:?} is written twice; give each a name of its own"
        );
        self.states.push(OperatorStateOf { operator, name: name.to_owned(), kind, schema, elements });
    }

    /// What has been added, for tests of operators: of each state its operator, name, kind, schema and elements.
    #[doc(hidden)]
    pub fn into_parts(self) -> Vec<(usize, String, StateKind, Vec<u8>, Elements)> {
        let parts = self.states.into_iter();
        parts.map(|state| (state.operator, state.name, state.kind, state.schema, state.elements)).collect()
    }

    /// Whether what holds wait for is safe, once that is known, for tests of operators.
    #[doc(hidden)]
    pub fn take_holds(&mut self) -> impl Fn() -> Option<Result<(), String>> + use<> {
        let holds = std::mem::take(&mut self.holds);
        move || {
            let all_known = holds.iter().all(|held| held.result().is_some());
            let failed = holds.iter().filter_map(Held::result).find(|result| result.is_err());
            failed.cloned().or(all_known.then_some(Ok(())))
        }
    }

    /// Keeps the task's part of the checkpoint back until something is safe that becomes so on another thread.
    pub fn hold(&mut self) -> SnapshotHold {
        let (hold, held) = SnapshotHold::new(self.waker.clone());
        self.holds.push(held);
        hold
    }

    /// A writer whose holds wake this slot.
    pub(crate) fn new(waker: SlotWaker) -> Self {
        Self { waker: Some(waker), ..Self::default() }
    }

    pub(crate) fn into_states(self) -> (Vec<OperatorStateOf>, Vec<Held>) {
        (self.states, self.holds)
    }
}
