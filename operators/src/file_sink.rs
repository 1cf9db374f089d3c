//! Files that appear with checkpoints: every record is in exactly one of them, whatever crashes when.
//!
//! A file is *in progress* while it is written, *pending* from the barrier on (closed, durable, hidden), and *committed* by a
//! rename once the checkpoint is complete. Names of the first two begin with a dot. After a crash, what the checkpoint knows
//! is committed, and what came after it is removed.
//!
//! Failure by failure: killed while in progress or between barrier and completion, the records are not in the checkpoint and
//! come again, and the file is removed; killed after completion and before the rename, the restored job renames; after the
//! rename, it finds the new name and is content. An entry of the directory is durable before the checkpoint that relies on
//! it is acknowledged, and a rename before the next checkpoint leaves the file out.

mod early_sync;
mod names;
mod part;
#[cfg(test)]
mod tests;

use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;
use thalweg_derive::Record;
use thalweg_io::checkpoint::{Disk, LocalDisk};
use thalweg_model::{CheckpointId, Record};

use self::{
    names::{Names, PartId, Run},
    part::{Format, PartFile, PartWriter},
};
use crate::{
    sink::{SinkContext, SinkError},
    two_phase::{TwoPhase, TwoPhaseCommitSink, two_phase},
};

/// A file that has grown beyond this many bytes is closed and another begun, unless [`roll_bytes`](TwoPhase::roll_bytes)
/// says otherwise.
pub const DEFAULT_ROLL_BYTES: u64 = 128 << 20;

/// Most files that a subtask has closed but not made durable, before a barrier does.
const MAX_UNSYNCED: usize = 16;

/// Writes records to files in a directory that appear, complete and durable, with checkpoints. Files in progress and pending
/// are named with a dot, and committed ones `part-<subtask>-<checkpoint>-<run>-<number>.<extension>`.
///
/// Made by [`committed_ndjson_files`] and [`committed_csv_files`]. Without checkpoints, files appear at the end of the
/// stream. Give the sink a uid. A checkpoint names the files that it commits: whoever moves those away can restore from it only with
/// [`allow_missing_files`](TwoPhase::allow_missing_files).
pub struct CommittedFiles<T> {
    dir: PathBuf,
    format: Format,
    roll_bytes: u64,
    allow_missing: bool,
    disk: Arc<dyn Disk>,
    run: Arc<Run>,
    names: Option<Names>,
    writes: std::marker::PhantomData<fn(&T)>,
}

/// NDJSON files in a directory that appear with checkpoints: one JSON object a line, by the type's serde form.
pub fn committed_ndjson_files<T: Record + Serialize>(dir: impl Into<PathBuf>) -> TwoPhase<T, CommittedFiles<T>> {
    two_phase(CommittedFiles::new(dir.into(), Format::Ndjson, Arc::new(LocalDisk)))
}

/// CSV files in a directory that appear with checkpoints, each with a header line, by the type's serde form.
pub fn committed_csv_files<T: Record + Serialize>(dir: impl Into<PathBuf>) -> TwoPhase<T, CommittedFiles<T>> {
    two_phase(CommittedFiles::new(dir.into(), Format::Csv, Arc::new(LocalDisk)))
}

impl<T: Record + Serialize> TwoPhase<T, CommittedFiles<T>> {
    /// Begins another file when one has more bytes than this. Each barrier begins another in any case.
    #[must_use]
    pub fn roll_bytes(self, bytes: u64) -> Self {
        self.map_sink(|sink| CommittedFiles { roll_bytes: bytes, ..sink })
    }

    /// Takes an output file that a checkpoint names, but that is nowhere, for one that was committed and moved away by
    /// whoever reads them. Otherwise, restoring from that checkpoint fails.
    #[must_use]
    pub fn allow_missing_files(self) -> Self {
        self.map_sink(|sink| CommittedFiles { allow_missing: true, ..sink })
    }
}

/// A file that is complete and durable, and waits to be committed.
#[derive(Record, Clone, Debug, PartialEq, Eq)]
pub struct PendingFile {
    /// The directory.
    pub dir: String,
    /// The file's name while it is pending.
    pub pending: String,
    /// Its name when it is committed.
    pub committed: String,
}

/// The files of a transaction: one that is written, and some that were large enough.
pub struct OpenFiles<T> {
    writer: Option<(PartId, PartWriter<T>)>,
    closed: Vec<Closed>,
}

/// A file with everything written.
struct Closed {
    id: PartId,
    /// None once it is durable.
    file: Option<PartFile>,
}

impl<T> Clone for CommittedFiles<T> {
    fn clone(&self) -> Self {
        let (dir, disk, run) = (self.dir.clone(), self.disk.clone(), self.run.clone());
        let Self { format, roll_bytes, allow_missing, writes, .. } = *self;
        Self { dir, disk, run, format, roll_bytes, allow_missing, names: None, writes }
    }
}

impl<T: Record + Serialize> CommittedFiles<T> {
    fn new(dir: PathBuf, format: Format, disk: Arc<dyn Disk>) -> Self {
        let writes = std::marker::PhantomData;
        let run = Run::new();
        Self { dir, format, roll_bytes: DEFAULT_ROLL_BYTES, allow_missing: false, disk, run, names: None, writes }
    }

    fn names(&self) -> Result<&Names, SinkError> {
        Ok(self.names.as_ref().ok_or("the sink is not open")?)
    }

    fn failed(&self, doing: &str, path: &Path, error: &io::Error) -> SinkError {
        let hint = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room on the disk",
            _ => "check that this user may write there and that the disk is sound",
        };
        format!("cannot {doing} {}: {error}; {hint}", path.display()).into()
    }

    fn begin_file(&self) -> Result<(PartId, PartWriter<T>), SinkError> {
        let names = self.names()?;
        let id = names.next();
        let path = names.in_progress(&id);
        let writer = PartWriter::create(&self.disk, &self.dir.join(path), self.format)?;
        Ok((id, writer))
    }

    /// Ends the file that is written.
    fn close(&self, files: &mut OpenFiles<T>) -> Result<(), SinkError> {
        if let Some((id, writer)) = files.writer.take() {
            files.closed.push(Closed { id, file: Some(writer.into_file()?) });
        }
        Ok(())
    }

    fn sync(&self, closed: &mut Closed) -> Result<(), SinkError> {
        if let Some(file) = closed.file.take() {
            file.sync().map_err(|error| self.failed("make durable a file in", &self.dir, &error))?;
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), SinkError> {
        self.disk.sync_dir(dir).map_err(|error| self.failed("make durable the directory", dir, &error))
    }

    /// Makes a directory and those above it.
    fn make_dirs(&self, dir: &Path) -> Result<(), SinkError> {
        if dir.as_os_str().is_empty() || dir.is_dir() {
            return Ok(());
        }
        if let Some(parent) = dir.parent() {
            self.make_dirs(parent)?;
        }
        match self.disk.make_dir(dir) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(self.failed("create the output directory", dir, &error));
            }
            _ => {}
        }
        match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => self.sync_dir(parent),
            _ => self.sync_dir(Path::new(".")),
        }
    }

    fn commit_file(&self, file: &PendingFile) -> Result<(), SinkError> {
        let (from, to) = (Path::new(&file.dir).join(&file.pending), Path::new(&file.dir).join(&file.committed));
        match self.disk.rename(&from, &to) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound && (self.allow_missing || to.is_file()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(format!(
                "the checkpoint names the output file {}, but it is gone, and so is {}, in which it was pending; put it \
                 back where it was, start from a later checkpoint, or set allow_missing_files if it was moved on purpose",
                to.display(),
                from.display()
            )
            .into()),
            Err(error) => Err(self.failed("commit the output file", &to, &error)),
        }
    }
}

impl<T: Record + Serialize> TwoPhaseCommitSink<T> for CommittedFiles<T> {
    type Transaction = OpenFiles<T>;
    type Committable = PendingFile;

    fn open(&mut self, ctx: &SinkContext) -> Result<(), SinkError> {
        if self.dir.to_str().is_none() {
            return Err(format!("the output directory {} is not UTF-8: rename it", self.dir.display()).into());
        }
        let ids = (ctx.job_id.as_str(), ctx.operator_id.as_str());
        self.names = Some(Names::new(self.run.clone(), ids, self.format.extension(), ctx.subtask, ctx.parallelism));
        self.make_dirs(&self.dir)
    }

    fn recover(&mut self, known: Option<CheckpointId>) -> Result<(), SinkError> {
        let entries = self.disk.list(&self.dir).map_err(|error| self.failed("list the files of", &self.dir, &error))?;
        let names = self.names()?.clone();
        for entry in entries {
            let is_garbage = entry.name.to_str().is_some_and(|name| names.is_garbage(name, known));
            if is_garbage && !entry.is_dir {
                let path = self.dir.join(&entry.name);
                match self.disk.unlink(&path) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        return Err(self.failed("remove the unfinished file", &path, &error));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<OpenFiles<T>, SinkError> {
        Ok(OpenFiles { writer: None, closed: Vec::new() })
    }

    fn write(&mut self, files: &mut OpenFiles<T>, view: T::View<'_>, _timestamp: i64) -> Result<(), SinkError> {
        let (_, writer) = match &mut files.writer {
            Some(writer) => writer,
            None => files.writer.insert(self.begin_file()?),
        };
        Ok(writer.write(&T::from_view(view))?)
    }

    fn flush(&mut self, files: &mut OpenFiles<T>) -> Result<(), SinkError> {
        if files.writer.as_ref().is_some_and(|(_, writer)| writer.bytes() > self.roll_bytes) {
            self.close(files)?;
            if let Some(file) = files.closed.last_mut().and_then(|closed| closed.file.as_mut()) {
                file.begin_sync();
            }
            if let Some(oldest) = files.closed.len().checked_sub(MAX_UNSYNCED) {
                self.sync(&mut files.closed[oldest])?;
            }
        }
        Ok(())
    }

    fn pre_commit(&mut self, mut files: OpenFiles<T>, checkpoint: CheckpointId) -> Result<Vec<PendingFile>, SinkError> {
        self.close(&mut files)?;
        let (names, dir) = (self.names()?.clone(), self.dir.to_str().unwrap_or_default().to_owned());
        let mut pending_files = Vec::with_capacity(files.closed.len());
        for mut closed in files.closed {
            self.sync(&mut closed)?;
            let (from, pending) = (names.in_progress(&closed.id), names.pending(&closed.id, checkpoint));
            let (from, to) = (self.dir.join(from), self.dir.join(&pending));
            self.disk.rename(&from, &to).map_err(|error| self.failed("complete the output file", &from, &error))?;
            let committed = names.committed(&closed.id, checkpoint);
            pending_files.push(PendingFile { dir: dir.clone(), pending, committed });
        }
        self.sync_dir(&self.dir)?;
        Ok(pending_files)
    }

    fn commit(&mut self, files: &[PendingFile]) -> Result<(), SinkError> {
        files.iter().try_for_each(|file| self.commit_file(file))?;
        let mut dirs: Vec<&str> = files.iter().map(|file| file.dir.as_str()).collect();
        dirs.sort_unstable();
        dirs.dedup();
        dirs.into_iter().try_for_each(|dir| self.sync_dir(Path::new(dir)))
    }

    fn abort(&mut self, files: OpenFiles<T>) {
        let Some(names) = &self.names else { return };
        let written = files.writer.iter().map(|(id, _)| id);
        for id in files.closed.iter().map(|closed| &closed.id).chain(written) {
            // Best effort: the next attempt removes what is left.
            let _ = self.disk.unlink(&self.dir.join(names.in_progress(id)));
        }
    }

    fn name(&self) -> &str {
        match self.format {
            Format::Ndjson => "CommittedNdjsonFiles",
            Format::Csv => "CommittedCsvFiles",
        }
    }
}
