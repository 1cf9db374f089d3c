//! The storage thread: makes, publishes and deletes checkpoints in the order in which it is told to, and answers.
//!
//! Whatever it does waits for a disk, which the job master must not: reports of slots would wait with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{self, Sender},
    },
    thread::JoinHandle,
};

use thalweg_io::checkpoint::{
    CheckpointFiles, CheckpointStore, Disk, FileIds, METADATA_NAME, Metadata, StoreError, abandon_savepoint,
    begin_savepoint, publish_savepoint, read_metadata, remove_claimed,
};
use thalweg_model::{CheckpointId, JobId};

use super::inbox::Message;

/// Something to be done. Each is answered once, but for `Damaged`, `Supersede` and `Dispose`.
pub(super) enum Command {
    /// Make a checkpoint's directory.
    Begin(CheckpointId),
    /// Make a savepoint's directory below this one.
    BeginSavepoint(CheckpointId, PathBuf),
    /// Make it exist.
    Publish(Box<Metadata>),
    /// Remove what there is of one that came to nothing.
    Abandon(CheckpointId),
    /// Remove a completed one.
    Delete(CheckpointId),
    /// One has turned out to be damaged when it was read.
    Damaged(CheckpointId),
    /// Remove one that the job has not gone on from, and that nobody counts.
    Supersede(CheckpointId),
    /// Remove one that was claimed and lies elsewhere.
    Dispose(PathBuf),
}

/// What has become of it.
pub(super) enum Answer {
    /// The directory is there, or why not.
    Prepared { id: CheckpointId, result: Result<CheckpointFiles, String> },
    /// It exists, or why not.
    Published { id: CheckpointId, result: Result<Published, PublishFailure> },
    /// It is gone, as far as the disk lets us.
    Cleaned { id: CheckpointId },
}

/// A checkpoint that exists.
pub(super) struct Published {
    pub(super) dir: PathBuf,
    pub(super) metadata_bytes: u64,
}

/// One that does not exist, or that may not stay.
pub(super) struct PublishFailure {
    pub(super) detail: String,
    /// Its `_metadata` can be read, but may be gone after a loss of power: nobody may be told that it is complete.
    pub(super) in_doubt: Option<Published>,
}

/// The thread, as the job master sees it.
pub(super) struct Storage {
    commands: Option<Sender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl Storage {
    /// Starts the thread. `store`: the job's own directory, if it has one.
    ///
    /// # Errors
    /// Where the system has no thread or no randomness.
    pub(super) fn start(
        disk: Arc<dyn Disk>,
        job: JobId,
        store: Option<CheckpointStore>,
        inbox: Sender<Message>,
    ) -> std::io::Result<Self> {
        let (commands, orders) = mpsc::channel();
        let mut worker = Worker {
            disk,
            job,
            store,
            ids: FileIds::from_system()?,
            savepoints: BTreeMap::new(),
            undeleted: BTreeSet::new(),
        };
        let run = move || {
            for command in orders {
                if let Some(answer) = worker.obey(command) {
                    // A master that is gone waits for no answers.
                    let _ = inbox.send(Message::Storage(answer));
                }
            }
            worker.sweep();
        };
        let thread = std::thread::Builder::new().name("checkpoint-storage".into()).spawn(run)?;
        Ok(Self { commands: Some(commands), thread: Some(thread) })
    }

    /// Hands it something to do.
    pub(super) fn tell(&self, command: Command) {
        let sent = self.commands.as_ref().is_some_and(|commands| commands.send(command).is_ok());
        assert!(sent, "the storage thread is gone; please report this");
    }
}

impl Drop for Storage {
    /// Waits until all is done.
    fn drop(&mut self) {
        drop(self.commands.take());
        // One that panicked has said so itself.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

struct Worker {
    disk: Arc<dyn Disk>,
    job: JobId,
    store: Option<CheckpointStore>,
    ids: FileIds,
    /// Savepoints on their way.
    savepoints: BTreeMap<CheckpointId, CheckpointFiles>,
    /// Completed ones that are not wanted any more and still lie there.
    undeleted: BTreeSet<CheckpointId>,
}

impl Worker {
    fn obey(&mut self, command: Command) -> Option<Answer> {
        Some(match command {
            Command::Begin(id) => {
                let begun = self.begin(id).map_err(|error| format!("{error}; see execution.checkpointing.dir"));
                Answer::Prepared { id, result: begun }
            }
            Command::BeginSavepoint(id, target) => {
                let begun = begin_savepoint(&*self.disk, self.job, id, &target, self.ids.make());
                if let Ok(files) = &begun {
                    self.savepoints.insert(id, files.clone());
                }
                // Its message names the place, which need not be the configured one.
                let begun = begun.map_err(|error| format!("{error}; name another target for the savepoint"));
                Answer::Prepared { id, result: begun }
            }
            Command::Publish(metadata) => {
                let id = metadata.checkpoint;
                Answer::Published { id, result: self.publish(&metadata) }
            }
            Command::Abandon(id) => {
                match self.savepoints.remove(&id) {
                    Some(files) => note("remove", id, abandon_savepoint(&*self.disk, &files)),
                    None => note("remove", id, self.store.as_mut().map_or(Ok(()), |store| store.abort(id))),
                }
                Answer::Cleaned { id }
            }
            Command::Delete(id) => {
                self.undeleted.insert(id);
                self.delete();
                Answer::Cleaned { id }
            }
            Command::Damaged(id) => {
                self.store.as_mut()?.note_damaged(id);
                return None;
            }
            Command::Supersede(id) => {
                self.undeleted.insert(id);
                self.delete();
                return None;
            }
            Command::Dispose(dir) => {
                if let Err(error) = remove_claimed(&*self.disk, &dir) {
                    tracing::warn!("the checkpoint in {} that the job was restored from stays: {error}", dir.display());
                }
                return None;
            }
        })
    }

    fn begin(&mut self, id: CheckpointId) -> Result<CheckpointFiles, StoreError> {
        let store = self.store.as_mut().ok_or(StoreError::NotBegun(id))?;
        // What it may build on is known only when it is triggered, and then it is the newest one: that stays.
        let base = store.retained().last().copied();
        store.begin(id, base)
    }

    fn publish(&mut self, metadata: &Metadata) -> Result<Published, PublishFailure> {
        let id = metadata.checkpoint;
        let (dir, result) = match (self.savepoints.remove(&id), &mut self.store) {
            (Some(files), _) => (files.dir().to_path_buf(), publish_savepoint(&*self.disk, &files, metadata)),
            (None, Some(store)) => (store.dir_of(id), store.publish(metadata)),
            (None, None) => (PathBuf::new(), Err(StoreError::NotBegun(id))),
        };
        let published = |dir: PathBuf| Published { metadata_bytes: self.metadata_bytes(&dir), dir };
        match result {
            Ok(()) => Ok(published(dir)),
            Err(error) => {
                let doubt = matches!(error, StoreError::InDoubt { .. }) && read_metadata(&*self.disk, &dir).is_ok();
                Err(PublishFailure { detail: error.to_string(), in_doubt: doubt.then(|| published(dir)) })
            }
        }
    }

    /// Deletes what is not wanted any more; what cannot be deleted now is tried again with the next.
    fn delete(&mut self) {
        let Some(store) = &mut self.store else { return };
        for id in &self.undeleted {
            note("delete", *id, store.delete(*id));
        }
        let retained = store.retained();
        self.undeleted.retain(|id| retained.contains(id));
    }

    fn metadata_bytes(&self, dir: &Path) -> u64 {
        let length = self.disk.open(&dir.join(METADATA_NAME)).and_then(|file| self.disk.length(&file));
        length.unwrap_or(0)
    }

    /// Removes what tasks that were stopped in the middle of a checkpoint have left.
    fn sweep(&mut self) {
        self.delete();
        if let Some(Err(error)) = self.store.as_mut().map(CheckpointStore::sweep) {
            tracing::warn!("files of checkpoints that came to nothing stay for now: {error}");
        }
    }
}

/// Something that stays is tried again with the next sweep.
fn note(doing: &str, id: CheckpointId, result: Result<(), StoreError>) {
    if let Err(error) = result {
        tracing::warn!("could not {doing} checkpoint {id} now: {error}");
    }
}
