//! Savepoints: begun, published and disposed of. Each has a directory of its own, which belongs to the user.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use thalweg_model::{CheckpointId, JobId};

use super::{
    damage::{BadFile, Damage},
    discover::{Depth, discover, read_metadata},
    disk::Disk,
    file_id::FileId,
    metadata::{METADATA_NAME, Metadata, SnapshotKind},
    names::{CheckpointFiles, shared_of},
    store::{StoreError, make_dirs, publish_to, refused, remove_dir, unless_missing},
};

/// Why a savepoint could not be disposed of.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DisposeError {
    /// There is none, or what lies there cannot be read.
    #[error("not a savepoint: {0}")]
    Unreadable(#[from] BadFile),
    /// It is a checkpoint.
    #[error("{} is a checkpoint, which its job deletes itself; only savepoints are disposed of", dir.display())]
    Checkpoint {
        /// Where.
        dir: PathBuf,
    },
    /// A job was restored from it and may yet be again.
    #[error(
        "the savepoint in {} is in use: a job that runs was restored from it and has not completed enough checkpoints of its \
         own since; wait for those, or end the job", dir.display()
    )]
    InUse {
        /// Where.
        dir: PathBuf,
    },
    /// The disk refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Names the files of a savepoint in a new directory below `target`. It is completed by [`publish_savepoint`] and belongs
/// to the user afterwards.
///
/// # Errors
/// Where the disk refuses.
pub fn begin_savepoint(
    disk: &dyn Disk,
    job: JobId,
    id: CheckpointId,
    target: &Path,
    random: FileId,
) -> Result<CheckpointFiles, StoreError> {
    make_dirs(disk, target)?;
    let files = CheckpointFiles::of_savepoint(target, job, id, random);
    disk.make_dir(files.dir()).map_err(refused("make", files.dir()))?;
    Ok(files)
}

/// Completes a savepoint, whose files must all lie in its own directory.
///
/// # Errors
/// The savepoint has failed and has been removed, except for [`StoreError::InDoubt`].
pub fn publish_savepoint(disk: &dyn Disk, files: &CheckpointFiles, metadata: &Metadata) -> Result<(), StoreError> {
    let what = "a savepoint that names files outside its directory";
    let outside = metadata.files.iter().any(|file| file.path.starts_with(".."));
    let result = if outside {
        Err(StoreError::BadMetadata { checkpoint: metadata.checkpoint, damage: Damage::Malformed { what } })
    } else {
        let target: Vec<&Path> = files.dir().parent().into_iter().collect();
        publish_to(disk, files.dir(), metadata, &target)
    };
    if !matches!(result, Ok(()) | Err(StoreError::InDoubt { .. })) {
        let _ = remove_dir(disk, files.dir());
    }
    result
}

/// Removes a savepoint that failed before it was published.
///
/// # Errors
/// Where the disk refuses.
pub fn abandon_savepoint(disk: &dyn Disk, files: &CheckpointFiles) -> Result<(), StoreError> {
    remove_dir(disk, files.dir())
}

/// Removes a savepoint, given by its directory or by the `_metadata` in it.
///
/// # Errors
/// Where there is none, a job that runs may yet restore from it, or the disk refuses; without `_metadata` it is no savepoint any more.
pub fn dispose_savepoint(disk: &dyn Disk, path: &Path) -> Result<(), DisposeError> {
    let dir = snapshot_dir(path);
    if read_metadata(disk, dir)?.kind == SnapshotKind::Checkpoint {
        return Err(DisposeError::Checkpoint { dir: dir.to_path_buf() });
    }
    let _lock = disk.lock_dir(dir).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => DisposeError::InUse { dir: dir.to_path_buf() },
        _ => refused("lock", dir)(error).into(),
    })?;
    Ok(remove_dir(disk, dir)?)
}

/// Removes a checkpoint or savepoint that a job was restored from and has claimed: its directory, and the shared files
/// beside it that no other checkpoint there names.
///
/// # Errors
/// Where the disk refuses.
pub fn remove_claimed(disk: &dyn Disk, dir: &Path) -> Result<(), DisposeError> {
    let metadata = read_metadata(disk, dir)?;
    remove_dir(disk, dir)?;
    let shared: Vec<&str> =
        metadata.files.iter().map(|file| file.path.as_str()).filter(|p| shared_of(p).is_some()).collect();
    let Some(job_dir) = dir.parent().filter(|_| !shared.is_empty()) else { return Ok(()) };
    let mut named = BTreeSet::new();
    for other in discover(disk, job_dir, Depth::References)? {
        // Where one cannot be read, nobody knows what it names.
        let Ok(other) = other.metadata else { return Ok(()) };
        named.extend(other.files.into_iter().map(|file| file.path));
    }
    for path in shared.into_iter().filter(|path| !named.contains(*path)) {
        let path = job_dir.join(path.trim_start_matches("../"));
        unless_missing(disk.unlink(&path)).map_err(refused("remove", &path))?;
    }
    Ok(())
}

/// The directory of a checkpoint or savepoint, which may also be given by the `_metadata` in it.
pub fn snapshot_dir(path: &Path) -> &Path {
    let parent = path.parent().filter(|_| path.file_name().is_some_and(|name| name == METADATA_NAME));
    match parent {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}
