//! Files that appear with checkpoints: every record is in exactly one of them, whatever crashes when.
//!
//! A file is *in progress* while it is written, *pending* from the barrier on (closed, durable, hidden), and *committed* by a
//! rename once the checkpoint is complete. Names of the first two begin with a dot. After a crash, what the checkpoint knows
//! is committed, and what came after it is removed. So are committed files of later checkpoints, where the job does not
//! start from the newest one, because that is damaged or an older one was asked for: their records come again.
//!
//! Failure by failure: killed while in progress or between barrier and completion, the records are not in the checkpoint and
//! come again, and the file is removed; killed after completion and before the rename, the restored job renames; after the
//! rename, it finds the new name and is content. An entry of the directory is durable before the checkpoint that relies on
//! it is acknowledged, and a rename before the next checkpoint leaves the file out.
//!
//! The slot writes and never waits for the disk: syncing and renaming is done in order by other threads (`lane.rs`), and
//! the acknowledgement of a checkpoint is held back until they have done what it relies on. At any instant that only
//! leaves more of the states above behind: several files in progress, or pending for a checkpoint that knows nothing of
//! them. When something fails, nothing after it is done, no checkpoint is acknowledged any more, and the next call of the
//! sink fails the task: the job starts from a checkpoint that the records in question are not in, or that names the file
//! to commit.

mod lane;
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
    lane::{AtClose, Lane, OwnLane, Workers},
    names::{Names, PartId, Run},
    part::{Format, PartFile, PartWriter},
};
use crate::{
    checkpoint::SnapshotHold,
    sink::{SinkContext, SinkError},
    two_phase::{TwoPhase, TwoPhaseCommitSink, two_phase},
};

/// A file that has grown to this many bytes is closed and another begun, unless [`roll_bytes`](TwoPhase::roll_bytes)
/// says otherwise.
pub const DEFAULT_ROLL_BYTES: u64 = 128 << 20;

/// Writes records to files in a directory that appear, complete and durable, with checkpoints. Files in progress and pending
/// are named with a dot, and committed ones `part-<subtask>-<checkpoint>-<run>-<number>-<stream>.<extension>`. A job that
/// does not start from its newest checkpoint removes, with a warning, what it has committed with later ones, since those
/// records come again.
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
    workers: Workers,
    /// What is known once it is open.
    open: Option<Open>,
    writes: std::marker::PhantomData<fn(&T)>,
}

/// A subtask that is open.
struct Open {
    names: Names,
    lane: OwnLane,
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
    /// Begins another file at the end of a batch at which one has so many bytes, perhaps some tens of KiB more. Each barrier
    /// begins another in any case.
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

/// The files of a transaction: one that is written, and some that were large enough, which the lane makes durable.
pub struct OpenFiles<T> {
    writer: Option<(PartId, PartWriter<T>)>,
    closed: Vec<PartId>,
}

impl<T> Clone for CommittedFiles<T> {
    fn clone(&self) -> Self {
        let (dir, disk, run, workers) = (self.dir.clone(), self.disk.clone(), self.run.clone(), self.workers.clone());
        let Self { format, roll_bytes, allow_missing, writes, .. } = *self;
        Self { dir, disk, run, workers, format, roll_bytes, allow_missing, open: None, writes }
    }
}

impl<T: Record + Serialize> CommittedFiles<T> {
    fn new(dir: PathBuf, format: Format, disk: Arc<dyn Disk>) -> Self {
        let (run, workers, writes) = (Run::new(), Workers::of_process(), std::marker::PhantomData);
        let (roll_bytes, allow_missing) = (DEFAULT_ROLL_BYTES, false);
        Self { dir, format, roll_bytes, allow_missing, disk, run, workers, open: None, writes }
    }

    fn opened(&self) -> Result<&Open, SinkError> {
        Ok(self.open.as_ref().ok_or("the sink is not open")?)
    }

    fn lane(&self) -> Result<&Lane, SinkError> {
        Ok(&self.opened()?.lane)
    }

    fn begin_file(&self) -> Result<(PartId, PartWriter<T>), SinkError> {
        let Open { names, lane } = self.opened()?;
        let id = names.next();
        let path = names.in_progress(&id);
        // What is gathered is not counted yet: with more than this, a small file would never be found large enough.
        let gather_bytes = usize::try_from(self.roll_bytes).unwrap_or(usize::MAX);
        let writer = PartWriter::create(&self.disk, lane, &self.dir.join(path), self.format, gather_bytes)?;
        Ok((id, writer))
    }

    /// Ends the files of a transaction, and has the lane make them pending: nothing but to write what is gathered is done here.
    fn end_files(
        &self,
        mut files: OpenFiles<T>,
        checkpoint: CheckpointId,
        hold: Option<SnapshotHold>,
    ) -> Result<Vec<PendingFile>, SinkError> {
        let Open { names, lane } = self.opened()?;
        let last = match files.writer.take() {
            Some((id, writer)) => {
                files.closed.push(id);
                Some(writer.into_file()?)
            }
            None => None,
        };
        let dir = self.dir.to_str().unwrap_or_default();
        let (mut renames, mut pending_files) = (Vec::new(), Vec::new());
        for id in files.closed {
            let (pending, committed) = (names.pending(&id, checkpoint), names.committed(&id, checkpoint));
            renames.push((self.dir.join(names.in_progress(&id)), self.dir.join(&pending)));
            pending_files.push(PendingFile { dir: dir.to_owned(), pending, committed });
        }
        let (disk, dir) = (self.disk.clone(), self.dir.clone());
        lane.add(hold, AtClose::Drop, move || {
            // Those before it were synced when they were closed.
            last.map_or(Ok(()), PartFile::sync)?;
            for (from, to) in renames {
                disk.rename(&from, &to).map_err(|error| failed("complete the output file", &from, &error))?;
            }
            sync_dir(&*disk, &dir)
        });
        Ok(pending_files)
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
                return Err(failed("create the output directory", dir, &error));
            }
            _ => {}
        }
        match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_dir(&*self.disk, parent),
            _ => sync_dir(&*self.disk, Path::new(".")),
        }
    }
}

fn failed(doing: &str, path: &Path, error: &io::Error) -> SinkError {
    let hint = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room on the disk",
        _ => "check that this user may write there and that the disk is sound",
    };
    format!("cannot {doing} {}: {error}; {hint}", path.display()).into()
}

fn sync_dir(disk: &dyn Disk, dir: &Path) -> Result<(), SinkError> {
    disk.sync_dir(dir).map_err(|error| failed("make durable the directory", dir, &error))
}

/// Gives files their names, durably.
fn commit_files(disk: &dyn Disk, files: &[PendingFile], allow_missing: bool) -> Result<(), SinkError> {
    files.iter().try_for_each(|file| commit_file(disk, file, allow_missing))?;
    let mut dirs: Vec<&str> = files.iter().map(|file| file.dir.as_str()).collect();
    dirs.sort_unstable();
    dirs.dedup();
    dirs.into_iter().try_for_each(|dir| sync_dir(disk, Path::new(dir)))
}

fn commit_file(disk: &dyn Disk, file: &PendingFile, allow_missing: bool) -> Result<(), SinkError> {
    let (from, to) = (Path::new(&file.dir).join(&file.pending), Path::new(&file.dir).join(&file.committed));
    match disk.rename(&from, &to) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound && (allow_missing || to.is_file()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(format!(
            "the checkpoint names the output file {}, but it is gone, and so is {}, in which it was pending; put it \
             back where it was, start from a later checkpoint, or set allow_missing_files if it was moved on purpose",
            to.display(),
            from.display()
        )
        .into()),
        Err(error) => Err(failed("commit the output file", &to, &error)),
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
        let names = Names::new(self.run.clone(), ids, self.format.extension(), ctx.subtask, ctx.parallelism);
        self.open = Some(Open { names, lane: OwnLane::open(self.workers.clone(), ctx.waker.clone()) });
        self.make_dirs(&self.dir)
    }

    fn stream(&mut self, origins: &[u64]) {
        if let Some(open) = &mut self.open {
            open.names.set_stream(origins);
        }
    }

    fn recover(&mut self, known: Option<CheckpointId>) -> Result<(), SinkError> {
        let entries = self.disk.list(&self.dir).map_err(|error| failed("list the files of", &self.dir, &error))?;
        let names = &self.opened()?.names;
        let mut taken_back = 0;
        for entry in entries.iter().filter(|entry| !entry.is_dir) {
            let Some(name) = entry.name.to_str() else { continue };
            let is_taken_back = known.is_some_and(|known| names.is_taken_back(name, known));
            if is_taken_back || names.is_garbage(name, known) {
                let path = self.dir.join(name);
                match self.disk.unlink(&path) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        return Err(failed("remove the file of a checkpoint that is not used", &path, &error));
                    }
                    _ => taken_back += usize::from(is_taken_back),
                }
            }
        }
        if let Some(known) = known.filter(|_| taken_back > 0) {
            // Durable, or a later start could find them again and take them for what it has committed itself.
            sync_dir(&*self.disk, &self.dir)?;
            tracing::warn!(
                "removed {taken_back} output files in {} that checkpoints after {known} had committed: the job starts from \
                 {known}, and their records come again",
                self.dir.display()
            );
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
        let lane = self.lane()?;
        lane.check()?;
        if let Some((id, writer)) = files.writer.take_if(|(_, writer)| writer.bytes() >= self.roll_bytes) {
            files.closed.push(id);
            let file = writer.into_file()?;
            lane.add(None, AtClose::Drop, move || file.sync());
        }
        Ok(())
    }

    fn ready(&self) -> bool {
        self.open.as_ref().is_none_or(|open| open.lane.has_room())
    }

    fn pre_commit(&mut self, files: OpenFiles<T>, checkpoint: CheckpointId) -> Result<Vec<PendingFile>, SinkError> {
        let pending = self.end_files(files, checkpoint, None)?;
        self.settle()?;
        Ok(pending)
    }

    fn commit(&mut self, files: &[PendingFile]) -> Result<(), SinkError> {
        self.settle()?;
        commit_files(&*self.disk, files, self.allow_missing)
    }

    fn pre_commit_behind(
        &mut self,
        files: Option<OpenFiles<T>>,
        checkpoint: CheckpointId,
        hold: &mut dyn FnMut() -> SnapshotHold,
    ) -> Result<Vec<PendingFile>, SinkError> {
        let is_idle = self.lane()?.is_idle()?;
        match files {
            Some(files) => self.end_files(files, checkpoint, Some(hold())),
            None if is_idle => Ok(Vec::new()),
            None => {
                // What is being committed, or pre-committed for a checkpoint that has expired, has to be safe first.
                self.lane()?.add(Some(hold()), AtClose::Drop, || Ok(()));
                Ok(Vec::new())
            }
        }
    }

    fn commit_behind(&mut self, files: &[PendingFile]) -> Result<(), SinkError> {
        let (disk, files, allow_missing) = (self.disk.clone(), files.to_vec(), self.allow_missing);
        let lane = self.lane()?;
        lane.add(None, AtClose::Do, move || commit_files(&*disk, &files, allow_missing));
        lane.check()
    }

    fn settle(&mut self) -> Result<(), SinkError> {
        self.lane()?.settle()
    }

    fn abort(&mut self, files: OpenFiles<T>) {
        let Some(Open { names, lane }) = &self.open else { return };
        lane.close();
        let written = files.writer.iter().map(|(id, _)| id);
        for id in files.closed.iter().chain(written) {
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
