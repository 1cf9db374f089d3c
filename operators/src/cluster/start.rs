//! What a job starts from: the checkpoints that an earlier process has left, or one that the user names.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use thalweg_cluster::{
    TimeMs,
    checkpoint::{Checkpoint, Coordinator, Kind, Owner, SavepointFormat},
};
use thalweg_io::checkpoint::{
    CheckpointStore, Depth, DirLock, Disk, Found, Metadata, SnapshotKind, snapshot_dir, verify,
};
use thalweg_model::{
    CheckpointId, JobId,
    config::{CheckpointStorage, ClaimMode, RecoveryOptions, RestoreFrom},
};

use super::{fit::RestoreError, shape::Parts};

/// A completed checkpoint that is there before the job runs.
pub(super) struct Adopted {
    pub(super) metadata: Metadata,
    pub(super) dir: PathBuf,
    pub(super) owner: Owner,
    /// Whether it is to be deleted once it is of no use, although nothing may build on its files: it lies elsewhere.
    pub(super) claimed: bool,
    /// Keeps it from being disposed of as long as it may be of use.
    pub(super) in_use: Option<DirLock>,
}

/// See the module.
pub(crate) struct Start {
    /// The job's own directory; none where checkpoints stay in memory.
    pub(super) store: Option<CheckpointStore>,
    /// Oldest first.
    pub(super) adopted: Vec<Adopted>,
    /// Sound ones of the job's own beside the one that was named, of no use once the job has gone on from that.
    pub(super) superseded: Vec<CheckpointId>,
    /// Above every number that was ever given.
    pub(super) next_id: CheckpointId,
    /// Where the job is to start from the latest: the newest that is there, readable or not; 0 for none.
    pub(crate) newest_found: Option<CheckpointId>,
}

impl Start {
    /// From nothing, without a directory.
    pub(crate) fn nothing() -> Self {
        Self { store: None, adopted: Vec::new(), superseded: Vec::new(), next_id: CheckpointId(1), newest_found: None }
    }

    /// Opens the job's directory, if it has one, and finds what is to be restored. The directory is below that of the
    /// storage, under the job's id, where `create_subdir` says so, else that itself.
    ///
    /// # Errors
    /// Where the directory cannot be used, or what was named is no sound checkpoint.
    pub(crate) fn find(
        disk: &Arc<dyn Disk>,
        storage: &CheckpointStorage,
        job: JobId,
        create_subdir: bool,
        recovery: &RecoveryOptions,
    ) -> Result<Self, RestoreError> {
        let (store, found) = match storage {
            CheckpointStorage::Memory => (None, Vec::new()),
            CheckpointStorage::Directory(dir) => {
                let dir = if create_subdir { Path::new(dir).join(job.to_string()) } else { PathBuf::from(dir) };
                let (store, found) = CheckpointStore::open_at(disk.clone(), dir, job)?;
                (Some(store), found)
            }
        };
        let latest_wanted = recovery.restore_from == Some(RestoreFrom::Latest);
        let newest_found = latest_wanted.then(|| newest_found(&found));
        let mut superseded = Vec::new();
        let adopted = match &recovery.restore_from {
            None => Vec::new(),
            Some(RestoreFrom::Latest) => latest(found, store.as_ref())?,
            Some(RestoreFrom::Path(path)) => {
                let named = named(&**disk, Path::new(path), recovery.claim_mode, store.as_ref())?;
                if named.owner == Owner::Engine {
                    superseded = sound_but(&found, named.metadata.checkpoint);
                }
                vec![named]
            }
        };
        let own = store.as_ref().map_or(CheckpointId(1), CheckpointStore::next_id);
        let newest = adopted.iter().map(|one| one.metadata.checkpoint.0.saturating_add(1)).max();
        let next_id = own.max(CheckpointId(newest.unwrap_or(1)));
        Ok(Self { store, adopted, superseded, next_id, newest_found })
    }

    /// What the job is to start from, if nothing turns out to be wrong with it.
    pub(crate) fn newest(&self) -> Option<&Metadata> {
        self.adopted.last().map(|adopted| &adopted.metadata)
    }

    /// Says so where all operators have finished in what the job starts from. With the latest that is how a job that was
    /// killed at its end goes on; whoever names one probably expects more.
    pub(crate) fn note_finished(&self) {
        let Some(Adopted { metadata, dir, .. }) = self.adopted.last() else { return };
        if metadata.operators.is_empty() || !metadata.operators.iter().all(|operator| operator.finished) {
            return;
        }
        let (id, dir) = (metadata.checkpoint, dir.display());
        match metadata.kind {
            SnapshotKind::Savepoint => tracing::warn!(
                "nothing is left to be done: the savepoint in {dir} was taken with drain, or at the end of the job, so its \
                 sources have finished; one that the job can go on from is taken without"
            ),
            SnapshotKind::Checkpoint if self.newest_found.is_none() => {
                tracing::warn!("nothing is left to be done: all tasks had finished in checkpoint {id} in {dir}");
            }
            SnapshotKind::Checkpoint => tracing::info!("all tasks had finished in checkpoint {id} in {dir}"),
        }
    }

    /// Makes the coordinator know what is there.
    pub(super) fn hand_over(&self, coordinator: &mut Coordinator<Parts>) {
        for Adopted { metadata, dir, owner, .. } in &self.adopted {
            let kind = match metadata.kind {
                SnapshotKind::Checkpoint => Kind::Checkpoint { full: !metadata.incremental },
                SnapshotKind::Savepoint => Kind::Savepoint { format: SavepointFormat::Native, stop: None },
            };
            let id = thalweg_cluster::checkpoint::CheckpointId(metadata.checkpoint.0);
            let triggered_at = TimeMs(u64::try_from(metadata.timestamp_ms).unwrap_or(0));
            let checkpoint = Checkpoint::on_storage(id, kind, triggered_at, Some(dir.display().to_string()));
            coordinator.adopt(Arc::new(checkpoint), *owner);
        }
    }
}

/// The newest that somebody may yet start from. Without `_metadata` it has never been one.
fn newest_found(found: &[Found]) -> CheckpointId {
    found.iter().filter(|found| found.is_complete()).map(|found| found.checkpoint).max().unwrap_or(CheckpointId(0))
}

/// The sound ones of the job's own directory, oldest first; a line in the log for each of the others. That there is none is
/// an error where there was one: what the job has committed would come a second time.
fn latest(found: Vec<Found>, store: Option<&CheckpointStore>) -> Result<Vec<Adopted>, RestoreError> {
    let any = found.iter().any(Found::is_complete);
    let mut adopted = Vec::new();
    for Found { checkpoint, dir, metadata } in found {
        match metadata {
            Ok(metadata) => adopted.push(Adopted { metadata, dir, owner: Owner::Engine, claimed: false, in_use: None }),
            Err(bad) => tracing::warn!("checkpoint {checkpoint} is not used: {bad}"),
        }
    }
    adopted.reverse();
    if adopted.is_empty() {
        let dir = store.map(|store| store.job_dir().to_path_buf()).unwrap_or_default();
        if any {
            return Err(RestoreError::NoneReadable { dir });
        }
        tracing::info!("there is no checkpoint to restore in {}: the job starts from nothing", dir.display());
    }
    Ok(adopted)
}

/// The sound ones of the job's own directory but for this one. What is damaged stays there for people to look at.
fn sound_but(found: &[Found], named: CheckpointId) -> Vec<CheckpointId> {
    let sound = found.iter().filter(|found| found.metadata.is_ok()).map(|found| found.checkpoint);
    sound.filter(|&id| id != named).collect()
}

/// The checkpoint or savepoint that the user names.
fn named(
    disk: &dyn Disk,
    path: &Path,
    mode: ClaimMode,
    store: Option<&CheckpointStore>,
) -> Result<Adopted, RestoreError> {
    let dir = snapshot_dir(path);
    let in_use = match disk.share_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return Err(RestoreError::Disposed { dir: dir.to_path_buf() });
        }
        // Whatever is wrong with it shows below.
        lock => lock.ok(),
    };
    let metadata =
        verify(disk, dir, Depth::References).map_err(|bad| RestoreError::Unreadable { dir: dir.to_path_buf(), bad })?;
    let own = store.is_some_and(|store| is_same(dir, &store.dir_of(metadata.checkpoint)));
    // Files outside the job's directory cannot be named by its checkpoints: then the first one is full in any mode.
    let owner = match mode {
        ClaimMode::Claim if own => Owner::Engine,
        ClaimMode::Legacy if own => Owner::Nobody,
        ClaimMode::Claim | ClaimMode::Legacy | ClaimMode::NoClaim => Owner::User,
    };
    let claimed = mode == ClaimMode::Claim && !own;
    Ok(Adopted { metadata, dir: dir.to_path_buf(), owner, claimed, in_use })
}

fn is_same(one: &Path, other: &Path) -> bool {
    matches!((fs::canonicalize(one), fs::canonicalize(other)), (Ok(one), Ok(other)) if one == other)
}
