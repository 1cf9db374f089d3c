//! A checkpoint that a job starts from: its metadata, and the contents of its states.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use thalweg_model::OperatorId;

use super::{
    block_reader::BlockFile,
    damage::{BadFile, Damage},
    disk::Disk,
    metadata::{METADATA_NAME, Metadata, OperatorState, Place, StateKind, StatePart},
};

/// A checkpoint or savepoint, open for reading. Shared by all slots of a job that starts from it.
pub struct RestoredCheckpoint {
    disk: Arc<dyn Disk>,
    /// Where `_metadata` lies; empty where the checkpoint is in memory.
    dir: PathBuf,
    metadata: Metadata,
    allow_unclaimed: bool,
    /// What operators have asked for: by operator, kind and name. Written by slots while they open.
    claimed: Mutex<BTreeSet<(OperatorId, StateKind, String)>>,
    /// The first thing that was found wrong with it. Written by slots while they open.
    damage: Mutex<Option<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for RestoredCheckpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RestoredCheckpoint")
            .field("dir", &self.dir)
            .field("checkpoint", &self.metadata.checkpoint)
            .finish_non_exhaustive()
    }
}

impl RestoredCheckpoint {
    /// The checkpoint whose `_metadata` was read from `dir`. With `allow_unclaimed`, state that no operator asks for is
    /// left out instead of refused.
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf, metadata: Metadata, allow_unclaimed: bool) -> Self {
        Self { disk, dir, metadata, allow_unclaimed, claimed: Mutex::default(), damage: Mutex::default() }
    }

    /// What it consists of.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Where its `_metadata` lies; empty where it is in memory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether state that no operator asks for is left out.
    pub fn allows_unclaimed(&self) -> bool {
        self.allow_unclaimed
    }

    /// The state of an operator, if there is any.
    pub fn operator(&self, id: OperatorId) -> Option<&OperatorState> {
        self.metadata.operators.iter().find(|operator| operator.id == id)
    }

    /// Notes that an operator asks for a state, whether there is any or not.
    pub fn claim(&self, operator: OperatorId, kind: StateKind, name: &str) {
        lock(&self.claimed).insert((operator, kind, name.to_owned()));
    }

    /// A state of an operator that nobody has asked for, unless those are left out: its name. Ask once the operator is
    /// open. Buffers in flight belong to nobody.
    pub fn unclaimed(&self, operator: OperatorId) -> Option<String> {
        if self.allow_unclaimed {
            return None;
        }
        let claimed = lock(&self.claimed);
        let states = self.operator(operator)?.subtasks.iter().flat_map(|subtask| &subtask.states);
        states
            .filter(|state| state.kind != StateKind::ChannelState)
            .find(|state| !claimed.contains(&(operator, state.kind, state.name.clone())))
            .map(|state| state.name.clone())
    }

    /// What is wrong with it, if reading it has shown that something is: one line that names the file.
    pub fn damage(&self) -> Option<String> {
        lock(&self.damage).clone()
    }

    /// Notes that something is wrong with it which its checksums do not show, in one line: it becomes its
    /// [`damage`](Self::damage), unless something else is already.
    pub fn note_damage(&self, what: impl std::fmt::Display) {
        lock(&self.damage).get_or_insert_with(|| what.to_string());
    }

    fn noting<T>(&self, result: Result<T, BadFile>) -> Result<T, BadFile> {
        result.inspect_err(|bad| self.note_damage(bad))
    }

    /// Opens a part of a state for reading.
    ///
    /// # Errors
    /// Where its file is missing, or is not the one that the metadata names. It is remembered as [`damage`](Self::damage),
    /// and so is what reading shows.
    pub fn open<'c>(&'c self, part: &'c StatePart) -> Result<PartReader<'c>, BadFile> {
        self.noting(self.open_part(part))
    }

    fn open_part<'c>(&'c self, part: &'c StatePart) -> Result<PartReader<'c>, BadFile> {
        match &part.place {
            Place::Inline(bytes) => Ok(PartReader::Inline(bytes)),
            Place::File { file, offset, bytes } => {
                let missing = || {
                    let damage = Damage::Malformed { what: "a part in a file that is not listed" };
                    BadFile::new(&self.dir.join(METADATA_NAME), 0, damage)
                };
                let named = self.metadata.files.get(*file as usize).ok_or_else(missing)?;
                let path = self.dir.join(&named.path);
                let open = BlockFile::open_written(&*self.disk, &path, &named.written)?;
                Ok(PartReader::File { checkpoint: self, file: Box::new(open), offset: *offset, bytes: *bytes })
            }
        }
    }
}

/// The bytes of a part.
pub enum PartReader<'c> {
    /// In memory already.
    Inline(&'c [u8]),
    /// In a file.
    File {
        /// Whose it is.
        checkpoint: &'c RestoredCheckpoint,
        /// The file.
        file: Box<BlockFile<'c>>,
        /// Where in its payload.
        offset: u64,
        /// How many.
        bytes: u64,
    },
}

impl PartReader<'_> {
    /// How many bytes the part has.
    pub fn len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::File { bytes, .. } => *bytes,
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `out` with the bytes from `at` on, checksums verified.
    ///
    /// # Errors
    /// Where the file is damaged.
    ///
    /// # Panics
    /// Where that is beyond the part's end.
    pub fn read(&mut self, at: u64, out: &mut [u8]) -> Result<(), BadFile> {
        assert!(at + out.len() as u64 <= self.len(), "a part is read beyond its end");
        match self {
            Self::Inline(bytes) => {
                let at = at as usize;
                out.copy_from_slice(&bytes[at..at + out.len()]);
                Ok(())
            }
            Self::File { checkpoint, file, offset, .. } => checkpoint.noting(file.read_exact_at(*offset + at, out)),
        }
    }
}
