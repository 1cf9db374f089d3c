//! Which shared files are alive: those that a retained checkpoint names, or one that is being taken may still name.
//!
//! Pure decisions. As in Flink each file knows who made it and who used it last; unlike there, a file lives exactly as
//! long as somebody names it, whatever the order in which checkpoints go, so that nothing rests on ids being dropped in
//! ascending order.

use std::collections::{BTreeMap, BTreeSet};

use thalweg_model::CheckpointId;

use super::{
    metadata::Metadata,
    names::{creator_of, shared_of},
};

/// Who made a shared file and who used it last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedEntry {
    /// Bytes of the file.
    pub file_bytes: u64,
    /// The checkpoint that wrote it.
    pub created_by: CheckpointId,
    /// The newest retained checkpoint that names it.
    pub last_used: CheckpointId,
}

/// Shared files by checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    retained: BTreeMap<CheckpointId, BTreeMap<String, u64>>,
    /// Checkpoints being taken, and the shared files that they may come to name.
    pending: BTreeMap<CheckpointId, BTreeSet<String>>,
}

fn shared_files(metadata: &Metadata) -> BTreeMap<String, u64> {
    let named = |file: &super::FileRef| Some((shared_of(&file.path)?.to_owned(), file.written.file_bytes));
    metadata.files.iter().filter_map(named).collect()
}

impl Registry {
    pub(crate) fn begin(&mut self, checkpoint: CheckpointId, base: Option<CheckpointId>) {
        let base = base.and_then(|base| self.retained.get(&base));
        self.pending.insert(checkpoint, base.map(|files| files.keys().cloned().collect()).unwrap_or_default());
    }

    pub(crate) fn is_pending(&self, checkpoint: CheckpointId) -> bool {
        self.pending.contains_key(&checkpoint)
    }

    pub(crate) fn is_retained(&self, checkpoint: CheckpointId) -> bool {
        self.retained.contains_key(&checkpoint)
    }

    pub(crate) fn retained(&self) -> impl DoubleEndedIterator<Item = CheckpointId> {
        self.retained.keys().copied()
    }

    pub(crate) fn end(&mut self, checkpoint: CheckpointId) {
        self.pending.remove(&checkpoint);
    }

    pub(crate) fn retain(&mut self, metadata: &Metadata) {
        self.pending.remove(&metadata.checkpoint);
        self.retained.insert(metadata.checkpoint, shared_files(metadata));
    }

    pub(crate) fn drop_retained(&mut self, checkpoint: CheckpointId) {
        self.retained.remove(&checkpoint);
    }

    /// A shared file that `metadata` names, and nobody holds and it did not make itself: it may be gone.
    pub(crate) fn unheld(&self, metadata: &Metadata) -> Option<String> {
        let own = |name: &str| creator_of(name) == Some(metadata.checkpoint);
        shared_files(metadata).into_keys().find(|name| !own(name) && !self.is_named(name))
    }

    fn is_named(&self, name: &str) -> bool {
        self.retained.values().any(|files| files.contains_key(name))
            || self.pending.values().any(|files| files.contains(name))
    }

    /// Whether a file in the shared directory must stay. Files of a checkpoint that is being taken do; so do names that
    /// are not ours.
    pub(crate) fn is_alive(&self, name: &str) -> bool {
        creator_of(name).is_none_or(|creator| self.is_pending(creator)) || self.is_named(name)
    }

    pub(crate) fn entries(&self) -> BTreeMap<String, SharedEntry> {
        let mut entries = BTreeMap::new();
        // Ascending, so that the newest user is the last to set it.
        for (user, files) in &self.retained {
            for (name, file_bytes) in files {
                let created_by = creator_of(name).unwrap_or(*user);
                let entry = SharedEntry { file_bytes: *file_bytes, created_by, last_used: *user };
                entries.insert(name.clone(), entry);
            }
        }
        entries
    }
}
