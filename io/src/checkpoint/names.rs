//! Names of files and directories on storage: Flink's layout.

use std::path::{Path, PathBuf};

use thalweg_model::{CheckpointId, JobId};

use super::{file_id::FileId, metadata::FileRef, writer::StreamSpec};
use crate::checkpoint::block_reader::Written;

/// Directory of files that several checkpoints use.
pub const SHARED_DIR: &str = "shared";
/// Directory of files that tasks own themselves.
pub const TASKOWNED_DIR: &str = "taskowned";

/// Names the files of one checkpoint or savepoint. Cheap to clone; slots get one with the barrier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointFiles {
    checkpoint: CheckpointId,
    dir: PathBuf,
    /// None for savepoints, which share nothing.
    shared: Option<PathBuf>,
}

/// A file that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFile {
    /// Where.
    pub path: PathBuf,
    /// Where, as `_metadata` will say.
    pub relative: String,
    /// Its identity.
    pub file: FileId,
    /// The checkpoint that it is written for.
    pub checkpoint: CheckpointId,
}

impl CheckpointFiles {
    pub(crate) fn of_checkpoint(job_dir: &Path, checkpoint: CheckpointId) -> Self {
        let dir = job_dir.join(format!("chk-{checkpoint}"));
        Self { checkpoint, dir, shared: Some(job_dir.join(SHARED_DIR)) }
    }

    /// A savepoint's directory below `target`: `savepoint-` with six digits of the job and twelve that are random.
    pub(crate) fn of_savepoint(target: &Path, job: JobId, checkpoint: CheckpointId, random: FileId) -> Self {
        let name = format!("savepoint-{}-{}", &job.to_string()[..6], &random.to_string()[..12]);
        Self { checkpoint, dir: target.join(name), shared: None }
    }

    /// The number of the checkpoint.
    pub fn checkpoint(&self) -> CheckpointId {
        self.checkpoint
    }

    /// The checkpoint's own directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A file that belongs to this checkpoint alone and goes with it.
    pub fn exclusive(&self, file: FileId) -> NewFile {
        let relative = file.to_string();
        NewFile { path: self.dir.join(&relative), relative, file, checkpoint: self.checkpoint }
    }

    /// A file that later checkpoints may use too. Its name begins with the checkpoint that made it. Savepoints share
    /// nothing: theirs is an exclusive one.
    pub fn shared(&self, file: FileId) -> NewFile {
        let Some(shared) = &self.shared else { return self.exclusive(file) };
        let name = shared_name(self.checkpoint, file);
        let relative = format!("../{SHARED_DIR}/{name}");
        NewFile { path: shared.join(name), relative, file, checkpoint: self.checkpoint }
    }
}

impl NewFile {
    /// What [`SlotWriter::open`](super::SlotWriter::open) asks for.
    pub fn spec(&self, expected_bytes: u64) -> StreamSpec {
        StreamSpec { path: self.path.clone(), file: self.file, checkpoint: self.checkpoint, expected_bytes }
    }

    /// How `_metadata` names the file once it is written.
    pub fn reference(&self, written: Written) -> FileRef {
        FileRef { path: self.relative.clone(), written }
    }
}

/// Name of a shared file: who made it, and its identity.
pub(crate) fn shared_name(checkpoint: CheckpointId, file: FileId) -> String {
    format!("{checkpoint}-{file}")
}

/// Who made a shared file, by its name. `None` for names that are not ours.
pub(crate) fn creator_of(name: &str) -> Option<CheckpointId> {
    let (creator, file) = name.split_once('-')?;
    FileId::parse(file)?;
    creator.parse().ok().map(CheckpointId)
}

/// The shared file that a path of `_metadata` names.
pub(crate) fn shared_of(path: &str) -> Option<&str> {
    path.strip_prefix("../")?.strip_prefix(SHARED_DIR)?.strip_prefix('/')
}
