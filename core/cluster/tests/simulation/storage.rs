//! `Storage`: what outlives a process: checkpoints with and without metadata, and what sinks have committed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use thalweg_cluster::checkpoint::{Checkpoint, CheckpointId, Kind, Owner, Retained, SubtaskId};

use crate::tasks::State;

#[derive(Default)]
pub struct Storage {
    /// Directories, with metadata or without.
    directories: BTreeMap<CheckpointId, Option<Arc<Checkpoint<State>>>>,
    pub damaged: BTreeSet<CheckpointId>,
    pub deleted: BTreeSet<CheckpointId>,
    /// By subtask and checkpoint: the records that its commit made visible.
    committed: BTreeMap<(SubtaskId, CheckpointId), (u64, u64)>,
    pub highest_id: u64,
}

impl Storage {
    pub fn make(&mut self, id: CheckpointId) {
        assert!(id.0 > self.highest_id, "id {id} was given before");
        self.highest_id = id.0;
        self.directories.insert(id, None);
    }

    pub fn publish(&mut self, checkpoint: &Arc<Checkpoint<State>>) {
        let place = self.directories.get_mut(&checkpoint.id).expect("a directory was made");
        assert!(place.is_none(), "checkpoint {} was committed before", checkpoint.id);
        *place = Some(Arc::clone(checkpoint));
    }

    pub fn is_complete(&self, id: CheckpointId) -> bool {
        matches!(self.directories.get(&id), Some(Some(_)))
    }

    pub fn abandon(&mut self, id: CheckpointId) {
        assert!(!self.is_complete(id), "checkpoint {id} is complete and was abandoned");
        self.directories.remove(&id);
    }

    /// Deletes a completed checkpoint of the engine's, which must not be among those to be retained.
    pub fn delete(&mut self, id: CheckpointId, retained_count: usize) {
        let checkpoint = self.directories.get(&id).cloned().flatten().expect("only what is complete is deleted");
        assert!(!checkpoint.kind.is_savepoint(), "savepoint {id} is the user's");
        // Also those that turned out to be damaged after it was decided.
        let newer = self.directories.values().flatten().filter(|c| !c.kind.is_savepoint() && c.id > id).count();
        assert!(newer >= retained_count, "checkpoint {id} was deleted with {newer} newer ones");
        self.forget(id);
    }

    pub fn forget(&mut self, id: CheckpointId) {
        self.directories.remove(&id);
        self.deleted.insert(id);
    }

    /// The engine's completed checkpoints that are not known to be damaged.
    pub fn engines_own(&self) -> impl Iterator<Item = CheckpointId> + '_ {
        let own = |checkpoint: &&Arc<Checkpoint<State>>| {
            !checkpoint.kind.is_savepoint() && !self.damaged.contains(&checkpoint.id)
        };
        self.directories.values().flatten().filter(own).map(|checkpoint| checkpoint.id)
    }

    /// What a new process finds to recover from, oldest first.
    pub fn recoverable(&self) -> Vec<Retained<State>> {
        let complete = self.directories.values().flatten();
        let good = complete.filter(|c| c.kind.commits() && !self.damaged.contains(&c.id));
        let owner = |kind: Kind| if kind.is_savepoint() { Owner::User } else { Owner::Engine };
        good.map(|c| Retained { checkpoint: Arc::clone(c), owner: owner(c.kind) }).collect()
    }

    pub fn commit(&mut self, subtask: SubtaskId, id: CheckpointId, range: (u64, u64)) {
        let known = self.is_complete(id) || self.deleted.contains(&id) || self.later_commits(id);
        assert!(known, "{subtask} commits for checkpoint {id}, which is not complete");
        if let Some(before) = self.committed.insert((subtask, id), range) {
            assert_eq!(before, range, "{subtask} commits {id} twice, differently");
        }
    }

    /// Aborted and passing ones are committed by the next that completes.
    fn later_commits(&self, id: CheckpointId) -> bool {
        let complete = self.directories.values().flatten().any(|c| c.id > id && c.kind.commits());
        complete || self.deleted.iter().any(|&deleted| deleted > id)
    }

    pub fn newest_commit(&self) -> Option<CheckpointId> {
        self.committed.keys().map(|&(_, id)| id).max()
    }

    /// Every record became visible once, without a gap, up to the position returned.
    pub fn check_exactly_once(&self, subtask: SubtaskId) -> u64 {
        let mut at = 0;
        let of = |key: &(SubtaskId, CheckpointId)| key.0 == subtask;
        for ((_, id), &(from, to)) in self.committed.iter().filter(|(key, _)| of(key)) {
            assert_eq!(from, at, "{subtask}: commit {id} is of {from} to {to}, but {at} was reached");
            at = to;
        }
        at
    }
}
