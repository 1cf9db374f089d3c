//! Finding checkpoints on storage, and telling which are whole.

use std::path::{Path, PathBuf};

use thalweg_model::CheckpointId;

use super::{
    block_reader::BlockFile,
    damage::{BadFile, Damage},
    disk::{Disk, read_full_at},
    limits::MAX_METADATA_BYTES,
    metadata::{METADATA_NAME, Metadata},
};

/// How closely a checkpoint is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// `_metadata`, and both ends of each file it names: whether each is there, finished, and the right one.
    References,
    /// Also every block of every file: reads everything.
    Checksums,
}

/// A checkpoint directory that was found.
#[derive(Debug)]
pub struct Found {
    /// Its number, from the directory's name.
    pub checkpoint: CheckpointId,
    /// The directory.
    pub dir: PathBuf,
    /// What it holds, or the first thing wrong with it; [`BadFile`] says it in one line.
    pub metadata: Result<Metadata, BadFile>,
}

impl Found {
    /// Whether there is `_metadata`, readable or not. Without it, it has never been a checkpoint, or is none any more.
    pub fn is_complete(&self) -> bool {
        let is_absent =
            |bad: &BadFile| matches!(bad.damage, Damage::Missing) && bad.path == self.dir.join(METADATA_NAME);
        !self.metadata.as_ref().is_err_and(is_absent)
    }
}

/// Reads `_metadata` of a directory.
///
/// # Errors
/// Where it is missing or not sound.
pub fn read_metadata(disk: &dyn Disk, dir: &Path) -> Result<Metadata, BadFile> {
    let path = dir.join(METADATA_NAME);
    let unreadable = |error| BadFile::io(&path, 0, error);
    let file = disk.open(&path).map_err(unreadable)?;
    let length = disk.length(&file).map_err(unreadable)?;
    if length > MAX_METADATA_BYTES {
        let damage = Damage::TooMany { what: "bytes", found: length, limit: MAX_METADATA_BYTES };
        return Err(BadFile::new(&path, 0, damage));
    }
    let mut bytes = vec![0; length as usize];
    let read = read_full_at(disk, &file, &mut bytes, 0).map_err(unreadable)?;
    Metadata::decode(&bytes[..read], &path)
}

/// Reads `_metadata` of a checkpoint or savepoint directory and checks the files that it names.
///
/// # Errors
/// The first thing that is wrong.
pub fn verify(disk: &dyn Disk, dir: &Path, depth: Depth) -> Result<Metadata, BadFile> {
    let metadata = read_metadata(disk, dir)?;
    for file in &metadata.files {
        let mut open = BlockFile::open_written(disk, &dir.join(&file.path), &file.written)?;
        if depth == Depth::Checksums {
            open.verify()?;
        }
    }
    Ok(metadata)
}

/// The number in the name of a checkpoint's directory, `chk-N`.
pub(crate) fn checkpoint_of(name: &std::ffi::OsStr) -> Option<CheckpointId> {
    let digits = name.to_str()?.strip_prefix("chk-")?;
    let number = digits.parse().ok()?;
    // One name for each number, so that a directory and its checkpoint are the same thing.
    (format!("{number}") == digits).then_some(CheckpointId(number))
}

/// Every checkpoint directory below a job's directory, newest first, each checked. The first sound one is the latest.
///
/// # Errors
/// Where the job's directory cannot be listed.
pub fn discover(disk: &dyn Disk, job_dir: &Path, depth: Depth) -> Result<Vec<Found>, BadFile> {
    let entries = disk.list(job_dir).map_err(|error| BadFile::io(job_dir, 0, error))?;
    let mut found: Vec<Found> = entries
        .iter()
        .filter(|entry| entry.is_dir)
        .filter_map(|entry| {
            let checkpoint = checkpoint_of(&entry.name)?;
            let dir = job_dir.join(&entry.name);
            let metadata = verify(disk, &dir, depth).and_then(|metadata| match metadata.checkpoint == checkpoint {
                true => Ok(metadata),
                false => Err(BadFile::new(&dir.join(METADATA_NAME), 0, Damage::Misplaced { what: "checkpoint" })),
            });
            Some(Found { checkpoint, dir, metadata })
        })
        .collect();
    found.sort_by_key(|found| std::cmp::Reverse(found.checkpoint));
    Ok(found)
}
