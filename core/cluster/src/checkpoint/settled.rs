//! What became of checkpoints that are no longer on their way, so that late messages are understood.

use std::collections::BTreeMap;

use super::types::CheckpointId;

/// Outcomes remembered.
const MAX_REMEMBERED: usize = 4096;

/// The outcomes of the last checkpoints.
#[derive(Clone, Debug, Default)]
pub(super) struct Settled {
    completed: BTreeMap<CheckpointId, bool>,
}

impl Settled {
    pub fn completed(&mut self, id: CheckpointId) {
        self.insert(id, true);
    }

    pub fn aborted(&mut self, id: CheckpointId) {
        self.insert(id, false);
    }

    /// Whether state that comes for this checkpoint now belongs to nobody. Of a completed one it is the same that came
    /// before, and where the outcome is forgotten, state that may be a savepoint's is better left lying than deleted.
    pub fn is_aborted(&self, id: CheckpointId) -> bool {
        self.completed.get(&id) == Some(&false)
    }

    fn insert(&mut self, id: CheckpointId, completed: bool) {
        let before = self.completed.insert(id, completed);
        assert!(before.is_none(), "checkpoint {id} was settled before");
        if self.completed.len() > MAX_REMEMBERED {
            self.completed.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_many_are_settled_then_the_oldest_are_forgotten() {
        let mut settled = Settled::default();
        for id in 0..MAX_REMEMBERED as u64 + 2 {
            if id % 2 == 0 { settled.aborted(CheckpointId(id)) } else { settled.completed(CheckpointId(id)) }
        }
        assert!(!settled.is_aborted(CheckpointId(0)), "forgotten");
        assert!(settled.is_aborted(CheckpointId(2)) && !settled.is_aborted(CheckpointId(3)));
        assert!(!settled.is_aborted(CheckpointId(99_999)), "never heard of");
    }
}
