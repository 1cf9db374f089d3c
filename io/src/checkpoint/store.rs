//! A job's checkpoints on storage: begun, published, collected.
//!
//! The commit point is the rename of `_metadata`: before it everything that it names has been synced, files by their
//! writers and directories here. Deleting goes the other way: `_metadata` first. Whatever has no sound `_metadata` is
//! therefore no checkpoint, and its files are swept. For threads that may wait, never for a slot.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use thalweg_model::{CheckpointId, JobId};

use super::{
    damage::{BadFile, Damage},
    dir_lock::DirLock,
    discover::{Depth, Found, checkpoint_of, discover},
    disk::{Disk, write_all_at},
    metadata::{METADATA_NAME, Metadata},
    names::{CheckpointFiles, SHARED_DIR, TASKOWNED_DIR, creator_of, shared_of},
    registry::{Registry, SharedEntry},
};

/// Name under which `_metadata` is written before it is renamed.
const METADATA_TEMP_NAME: &str = "_metadata.inprogress";

/// Why something could not be done on storage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk refused.
    #[error("cannot {doing} {path}: {source}", path = path.display())]
    Disk {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The checkpoint cannot be written down: it contradicts itself or a limit.
    #[error("checkpoint {checkpoint} cannot be described: {damage:?}")]
    BadMetadata {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// What is wrong with it.
        damage: Damage,
    },
    /// It names a shared file that has been collected, or never was.
    #[error("checkpoint {checkpoint} names the shared file {name}, which nobody holds: take a full checkpoint")]
    LostShared {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// The file's name.
        name: String,
    },
    /// There is such a checkpoint already.
    #[error("checkpoint {0} exists already: go on from a higher number")]
    Exists(CheckpointId),
    /// It was not begun, or it has ended.
    #[error("checkpoint {0} is not being taken")]
    NotBegun(CheckpointId),
    /// `_metadata` is in place, but it is unknown whether it stays if the power goes. Its files are kept; it must
    /// neither be reported as complete nor as failed: restart the job, which restores from what is there then.
    #[error("it is unknown whether checkpoint {checkpoint} is complete: restart the job ({source})")]
    InDoubt {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else has opened it: another process, or another job of this one.
    #[error(
        "job {job} cannot use {dir}: it is in use by a job that is running, in this process or another; stop that one \
         first, or give this one an id of its own (--job-id, or another --job-name) or another directory \
         (--checkpoint-dir)", dir = dir.display()
    )]
    InUse {
        /// The job that may not start.
        job: JobId,
        /// The directory.
        dir: PathBuf,
    },
    /// The job's directory cannot be read.
    #[error(transparent)]
    Unreadable(#[from] BadFile),
}

/// A job's checkpoints.
pub struct CheckpointStore {
    disk: Arc<dyn Disk>,
    job: JobId,
    dir: PathBuf,
    registry: Registry,
    /// Directories whose `_metadata` is there and cannot be used. Kept as sound ones are, until none that is older is left
    /// and there has been a newer one; with them the shared files of which they may name some, those of their time.
    unusable: BTreeSet<CheckpointId>,
    /// The newest that was ever retained here.
    newest_retained: CheckpointId,
    /// Above every number that has left something there.
    next_id: CheckpointId,
    /// Held as long as the store is: two that sweep one directory would remove each other's files.
    _lock: DirLock,
}

pub(crate) fn refused(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Disk { doing, path: path.to_path_buf(), source }
}

/// Success, or what was to be undone is not there.
pub(crate) fn unless_missing(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

impl CheckpointStore {
    /// Opens `<dir>/<job>`, making what is missing; reads what is retained there and sweeps what no checkpoint names.
    /// Also returns what was found, newest first: the first sound one is the latest. Until the store is dropped nobody else
    /// can open one there.
    ///
    /// # Errors
    /// Where the directory is in use, the disk refuses, or the directory cannot be read. What is wrong with single
    /// checkpoints is no error.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, job: JobId) -> Result<(Self, Vec<Found>), StoreError> {
        Self::open_at(disk, dir.join(job.to_string()), job)
    }

    /// As [`open`](Self::open), with the job's own directory given.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_at(disk: Arc<dyn Disk>, dir: PathBuf, job: JobId) -> Result<(Self, Vec<Found>), StoreError> {
        make_dirs(&*disk, &dir)?;
        // Before anything is read: what the other one is about to write would look like rubbish.
        let lock = disk.lock_dir(&dir).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => StoreError::InUse { job, dir: dir.clone() },
            _ => refused("lock", &dir)(error),
        })?;
        for path in [&dir.join(SHARED_DIR), &dir.join(TASKOWNED_DIR)] {
            make_dirs(&*disk, path)?;
        }
        let found = discover(&*disk, &dir, Depth::References)?;
        let shared = dir.join(SHARED_DIR);
        let shared = disk.list(&shared).map_err(refused("list", &shared))?;
        let creators = shared.iter().filter_map(|entry| creator_of(entry.name.to_str()?));
        let highest = found.iter().map(|found| found.checkpoint).chain(creators).max();
        let next_id = CheckpointId(highest.map_or(1, |highest| highest.0.saturating_add(1)));
        let (registry, unusable, newest_retained) = (Registry::default(), BTreeSet::new(), CheckpointId(0));
        let mut store = Self { disk, job, dir, registry, unusable, newest_retained, next_id, _lock: lock };
        for one in &found {
            match &one.metadata {
                Ok(metadata) => store.retain(metadata),
                // Damage, which is for people to look at. Else it is rubbish of a crash, to be swept.
                Err(_) if one.is_complete() => {
                    store.unusable.insert(one.checkpoint);
                }
                Err(_) => {}
            }
        }
        store.sweep()?;
        Ok((store, found))
    }

    fn retain(&mut self, metadata: &Metadata) {
        self.newest_retained = self.newest_retained.max(metadata.checkpoint);
        self.registry.retain(metadata);
    }

    /// The job's directory.
    pub fn job_dir(&self) -> &Path {
        &self.dir
    }

    /// The job.
    pub fn job(&self) -> JobId {
        self.job
    }

    /// Above every number that had left something in the directory when it was opened: where to go on.
    pub fn next_id(&self) -> CheckpointId {
        self.next_id
    }

    /// Where a checkpoint of this job lies.
    pub fn dir_of(&self, id: CheckpointId) -> PathBuf {
        CheckpointFiles::of_checkpoint(&self.dir, id).dir().to_path_buf()
    }

    /// Checkpoints that are complete and kept, oldest first.
    pub fn retained(&self) -> Vec<CheckpointId> {
        self.registry.retained().collect()
    }

    /// Checkpoints that cannot be used and still lie there; [`delete`](Self::delete) removes them too.
    pub fn unusable(&self) -> Vec<CheckpointId> {
        self.unusable.iter().copied().collect()
    }

    /// Notes that a retained checkpoint has turned out to be damaged when it was read: it is [unusable](Self::unusable).
    pub fn note_damaged(&mut self, id: CheckpointId) {
        if self.registry.is_retained(id) {
            self.registry.drop_retained(id);
            self.unusable.insert(id);
        }
    }

    /// The shared files, by name.
    pub fn shared(&self) -> BTreeMap<String, SharedEntry> {
        self.registry.entries()
    }

    /// Begins a checkpoint: makes its directory, and holds the shared files of `base`, the completed checkpoint on which
    /// it may build, until it is published or aborted.
    ///
    /// # Errors
    /// Where there is one of that number, or the disk refuses.
    pub fn begin(&mut self, id: CheckpointId, base: Option<CheckpointId>) -> Result<CheckpointFiles, StoreError> {
        let taken = self.registry.is_retained(id) || self.registry.is_pending(id) || self.unusable.contains(&id);
        if taken {
            return Err(StoreError::Exists(id));
        }
        let files = CheckpointFiles::of_checkpoint(&self.dir, id);
        // What an earlier attempt of this number has left: no checkpoint, or it would be retained.
        self.remove_dir(files.dir())?;
        self.disk.make_dir(files.dir()).map_err(refused("make", files.dir()))?;
        self.registry.begin(id, base);
        Ok(files)
    }

    /// Completes a checkpoint. The files it names must be written and synced ([`Event::Finished`](super::Event)). What
    /// its slots wrote and it does not name is swept.
    ///
    /// # Errors
    /// The checkpoint has failed and has been cleaned up as far as the disk lets us, except for
    /// [`StoreError::InDoubt`].
    pub fn publish(&mut self, metadata: &Metadata) -> Result<(), StoreError> {
        let id = metadata.checkpoint;
        if !self.registry.is_pending(id) {
            return Err(StoreError::NotBegun(id));
        }
        let files = CheckpointFiles::of_checkpoint(&self.dir, id);
        let result = match self.registry.unheld(metadata) {
            Some(name) => Err(StoreError::LostShared { checkpoint: id, name }),
            None => publish_to(&*self.disk, files.dir(), metadata, &[&self.dir.join(SHARED_DIR), &self.dir]),
        };
        match &result {
            Ok(()) | Err(StoreError::InDoubt { .. }) => {
                self.retain(metadata);
                // Not part of the checkpoint's success: what stays is tried again with the next sweep.
                let _ = self.sweep();
            }
            Err(_) => {
                let _ = self.abort(id);
            }
        }
        result
    }

    /// Gives up a checkpoint that was begun, and removes what it has written. Call once its slots have stopped writing;
    /// what comes later is removed by the next [`sweep`](Self::sweep).
    ///
    /// # Errors
    /// Where the disk refuses; the next sweep tries again.
    pub fn abort(&mut self, id: CheckpointId) -> Result<(), StoreError> {
        self.registry.end(id);
        self.sweep()
    }

    /// Deletes a checkpoint: `_metadata` first, then the files that nobody else names.
    ///
    /// # Errors
    /// Where the disk refuses. Unless `_metadata` itself could not be removed the checkpoint is gone all the same, and
    /// the next sweep removes the rest.
    pub fn delete(&mut self, id: CheckpointId) -> Result<(), StoreError> {
        // First those that cannot be used and that nobody would start from any more: as many as are to be kept are newer, or
        // the job is over. Afterwards nothing sound might be left to start from, and so nobody to remove them.
        let end = self.registry.retained().find(|retained| *retained != id).unwrap_or(self.newest_retained);
        for unusable in self.unusable() {
            if unusable < end && self.remove_dir(CheckpointFiles::of_checkpoint(&self.dir, unusable).dir()).is_ok() {
                self.unusable.remove(&unusable);
            }
        }
        let files = CheckpointFiles::of_checkpoint(&self.dir, id);
        let metadata = files.dir().join(METADATA_NAME);
        unless_missing(self.disk.unlink(&metadata)).map_err(refused("remove", &metadata))?;
        self.registry.drop_retained(id);
        self.unusable.remove(&id);
        // Durable before any file goes, or a crash could bring back a `_metadata` whose files are gone.
        unless_missing(self.disk.sync_dir(files.dir())).map_err(refused("sync", files.dir()))?;
        self.sweep()
    }

    /// Removes every file below the job's directory that belongs to no retained checkpoint and to none being taken.
    /// While there are [unusable](Self::unusable) checkpoints the shared files of their time stay, since those may name
    /// them.
    ///
    /// # Errors
    /// The first thing that the disk refused; everything else has been tried.
    pub fn sweep(&mut self) -> Result<(), StoreError> {
        let mut first = Ok(());
        for entry in self.disk.list(&self.dir).map_err(refused("list", &self.dir))? {
            let dir = self.dir.join(&entry.name);
            let Some(id) = checkpoint_of(&entry.name).filter(|_| entry.is_dir) else { continue };
            let kept = self.registry.is_retained(id) || self.unusable.contains(&id);
            if !kept && !self.registry.is_pending(id) {
                first = first.and(self.remove_dir(&dir));
            }
        }
        let newest_unusable = self.unusable.last().copied();
        let shared = self.dir.join(SHARED_DIR);
        for entry in self.disk.list(&shared).map_err(refused("list", &shared))? {
            let alive = entry.name.to_str().is_none_or(|name| {
                let may_be_named = |newest: CheckpointId| creator_of(name).is_none_or(|creator| creator <= newest);
                self.registry.is_alive(name) || newest_unusable.is_some_and(may_be_named)
            });
            if !alive && !entry.is_dir {
                let path = shared.join(&entry.name);
                first = first.and(unless_missing(self.disk.unlink(&path)).map_err(refused("remove", &path)));
            }
        }
        first
    }

    fn remove_dir(&self, dir: &Path) -> Result<(), StoreError> {
        remove_dir(&*self.disk, dir)
    }
}

/// Makes a directory and those above it, and makes them durable.
pub(crate) fn make_dirs(disk: &dyn Disk, path: &Path) -> Result<(), StoreError> {
    match disk.make_dir(path) {
        Ok(()) => match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => disk.sync_dir(parent).map_err(refused("sync", parent)),
            None => Ok(()),
        },
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => {
                make_dirs(disk, parent)?;
                disk.make_dir(path).map_err(refused("make", path))?;
                disk.sync_dir(parent).map_err(refused("sync", parent))
            }
            _ => Err(refused("make", path)(error)),
        },
        Err(error) => Err(refused("make", path)(error)),
    }
}

/// Removes a directory of files: `_metadata` first, durably, so that it is no checkpoint from then on.
pub(crate) fn remove_dir(disk: &dyn Disk, dir: &Path) -> Result<(), StoreError> {
    let mut entries = match disk.list(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused("list", dir)(error)),
    };
    let has_metadata = entries.iter().any(|entry| entry.name == METADATA_NAME);
    entries.sort_by_key(|entry| entry.name != METADATA_NAME);
    for (at, entry) in entries.iter().enumerate() {
        let path = dir.join(&entry.name);
        unless_missing(disk.unlink(&path)).map_err(refused("remove", &path))?;
        if at == 0 && has_metadata {
            disk.sync_dir(dir).map_err(refused("sync", dir))?;
        }
    }
    unless_missing(disk.remove_dir(dir)).map_err(refused("remove", dir))
}

/// Removes what lies in a checkpoint's directory and is not named.
fn trim_dir(disk: &dyn Disk, dir: &Path, metadata: &Metadata) -> Result<(), StoreError> {
    for entry in disk.list(dir).map_err(refused("list", dir))? {
        let own = |file: &super::FileRef| shared_of(&file.path).is_none() && *entry.name == *file.path;
        if entry.name != METADATA_NAME && !entry.is_dir && !metadata.files.iter().any(own) {
            let path = dir.join(&entry.name);
            unless_missing(disk.unlink(&path)).map_err(refused("remove", &path))?;
        }
    }
    Ok(())
}

/// Writes `_metadata` under another name, syncs it and the directories whose entries it rests on, and renames it.
pub(crate) fn publish_to(disk: &dyn Disk, dir: &Path, metadata: &Metadata, others: &[&Path]) -> Result<(), StoreError> {
    let checkpoint = metadata.checkpoint;
    let bytes = metadata.encode().map_err(|damage| StoreError::BadMetadata { checkpoint, damage })?;
    trim_dir(disk, dir, metadata)?;
    let (temp, path) = (dir.join(METADATA_TEMP_NAME), dir.join(METADATA_NAME));
    let file = disk.create(&temp).map_err(refused("create", &temp))?;
    write_all_at(disk, &file, &bytes, 0).map_err(refused("write", &temp))?;
    disk.sync(&file).map_err(refused("sync", &temp))?;
    for dir in others.iter().copied().chain([dir]) {
        disk.sync_dir(dir).map_err(refused("sync", dir))?;
    }
    disk.rename(&temp, &path).map_err(refused("rename", &temp))?;
    let Err(source) = disk.sync_dir(dir) else { return Ok(()) };
    // In place and not known to be durable. Taking it away again settles it, if that works.
    let taken_back = disk.unlink(&path).and_then(|()| disk.sync_dir(dir));
    match taken_back {
        Ok(()) => Err(refused("sync", dir)(source)),
        Err(_) => Err(StoreError::InDoubt { checkpoint, source }),
    }
}
