//! The completed checkpoints that a job can recover from, and when each is dropped.

use std::{collections::VecDeque, sync::Arc};

use super::types::{Checkpoint, CheckpointId};

/// Whose a completed checkpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The engine's: it is deleted when newer ones take its place, and those may build on its files.
    Engine,
    /// The user's, as savepoints are, and what was restored without claiming it: it is never deleted, and nothing builds on
    /// its files, so that the user may do so at any time.
    User,
    /// Nobody's (Flink's claim mode LEGACY): it is never deleted, and newer ones may build on its files all the same.
    Nobody,
}

impl Owner {
    /// Whether the engine deletes it in time.
    pub fn deletes(self) -> bool {
        self == Self::Engine
    }

    /// Whether newer ones may reference its files.
    pub fn lends_files(self) -> bool {
        self != Self::User
    }
}

/// A completed checkpoint and who may delete it.
#[derive(Debug)]
pub struct Retained<S> {
    /// The checkpoint.
    pub checkpoint: Arc<Checkpoint<S>>,
    /// Whose it is.
    pub owner: Owner,
}

impl<S> Clone for Retained<S> {
    fn clone(&self) -> Self {
        Self { checkpoint: Arc::clone(&self.checkpoint), owner: self.owner }
    }
}

/// Oldest first, ids strictly increasing.
#[derive(Debug)]
pub(super) struct Store<S> {
    retained: VecDeque<Retained<S>>,
    retained_count: usize,
}

impl<S> Store<S> {
    pub fn new(retained_count: usize) -> Self {
        Self { retained: VecDeque::new(), retained_count: retained_count.max(1) }
    }

    /// Adds a checkpoint and drops none for it.
    pub fn adopt(&mut self, checkpoint: Arc<Checkpoint<S>>, owner: Owner) {
        let newest = self.retained.back().map(|last| last.checkpoint.id);
        assert!(newest.is_none_or(|id| id < checkpoint.id), "checkpoints complete in the order of their ids");
        self.retained.push_back(Retained { checkpoint, owner });
    }

    /// Adds a checkpoint and returns the engine's own that are to be deleted now.
    ///
    /// The user's stay as something to recover from until as many newer ones of the engine are there as are retained.
    pub fn add(&mut self, checkpoint: Arc<Checkpoint<S>>, owner: Owner) -> Vec<Arc<Checkpoint<S>>> {
        self.adopt(checkpoint, owner);
        let owned_count =
            |retained: &VecDeque<Retained<S>>| retained.iter().filter(|entry| entry.owner.deletes()).count();
        let mut dropped = Vec::new();
        while let Some(first) = self.retained.front() {
            let newer = owned_count(&self.retained) - usize::from(first.owner.deletes());
            if newer < self.retained_count {
                break;
            }
            let first = self.retained.pop_front().expect("there is a first");
            dropped.extend(first.owner.deletes().then_some(first.checkpoint));
        }
        dropped
    }

    pub fn newest(&self) -> Option<&Retained<S>> {
        self.retained.back()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Retained<S>> {
        self.retained.iter()
    }

    /// Takes out a checkpoint that cannot be read. Its files stay where they are, for people to look at.
    pub fn take(&mut self, id: CheckpointId) -> Option<Retained<S>> {
        let at = self.retained.iter().position(|entry| entry.checkpoint.id == id)?;
        self.retained.remove(at)
    }

    /// Empties the store; returns what is the engine's.
    pub fn clear(&mut self) -> Vec<Arc<Checkpoint<S>>> {
        self.retained.drain(..).filter(|entry| entry.owner.deletes()).map(|entry| entry.checkpoint).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::types::Kind, *};
    use crate::TimeMs;

    fn checkpoint(id: u64) -> Arc<Checkpoint<()>> {
        Arc::new(Checkpoint::on_storage(CheckpointId(id), Kind::Checkpoint { full: false }, TimeMs(0), None))
    }

    fn ids(of: &[Arc<Checkpoint<()>>]) -> Vec<u64> {
        of.iter().map(|checkpoint| checkpoint.id.0).collect()
    }

    fn retained(store: &Store<()>) -> Vec<u64> {
        store.iter().map(|entry| entry.checkpoint.id.0).collect()
    }

    #[test]
    fn when_more_complete_than_are_retained_then_the_oldest_goes() {
        let mut store = Store::new(2);
        assert!(store.add(checkpoint(1), Owner::Engine).is_empty());
        assert!(store.add(checkpoint(2), Owner::Engine).is_empty());
        assert_eq!(ids(&store.add(checkpoint(5), Owner::Engine)), [1]);
        assert_eq!(retained(&store), [2, 5]);
        assert_eq!(ids(&store.clear()), [2, 5]);
    }

    #[test]
    fn when_more_are_adopted_than_are_retained_then_they_go_with_the_next_one() {
        let mut store = Store::new(1);
        (1..=3).for_each(|id| store.adopt(checkpoint(id), Owner::Engine));
        assert_eq!(retained(&store), [1, 2, 3]);
        assert_eq!(ids(&store.add(checkpoint(4), Owner::Engine)), [1, 2, 3]);
        assert_eq!(retained(&store), [4]);
    }

    #[test]
    fn when_something_is_the_users_then_it_goes_out_of_use_but_is_never_deleted() {
        let mut store = Store::new(2);
        store.add(checkpoint(1), Owner::User);
        assert!(store.add(checkpoint(2), Owner::Engine).is_empty());
        assert_eq!(retained(&store), [1, 2]);
        assert!(store.add(checkpoint(3), Owner::Engine).is_empty(), "1 is forgotten, not deleted");
        assert_eq!(retained(&store), [2, 3]);
        assert!(store.add(checkpoint(4), Owner::User).is_empty());
        assert_eq!(ids(&store.add(checkpoint(5), Owner::Engine)), [2]);
        assert_eq!(retained(&store), [3, 4, 5]);
        assert_eq!(ids(&store.add(checkpoint(6), Owner::Engine)), [3]);
        assert_eq!(retained(&store), [5, 6]);
    }

    #[test]
    fn when_something_is_nobodys_then_it_is_never_deleted_either() {
        let mut store = Store::new(1);
        store.adopt(checkpoint(1), Owner::Nobody);
        assert!(store.newest().unwrap().owner.lends_files());
        assert!(store.add(checkpoint(2), Owner::Engine).is_empty());
        assert_eq!(retained(&store), [2]);
        store.adopt(checkpoint(3), Owner::Nobody);
        assert_eq!(ids(&store.clear()), [2]);
    }

    #[test]
    fn when_one_is_damaged_then_the_one_before_is_the_newest() {
        let mut store = Store::new(3);
        store.add(checkpoint(1), Owner::Engine);
        store.add(checkpoint(2), Owner::Engine);
        assert_eq!(store.take(CheckpointId(2)).unwrap().checkpoint.id.0, 2);
        assert!(store.take(CheckpointId(2)).is_none());
        assert_eq!(store.newest().unwrap().checkpoint.id.0, 1);
    }
}
